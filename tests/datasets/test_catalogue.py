import datetime
import re

import pytest

from molml.datasets import card, list_datasets
from molml.datasets.catalogue import embedded_folder, embedded_names, public_names
from molml.datasets.sampling import read_frames

HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
ADDRESS = re.compile(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/\S+")
STRUCTURES = [name for name in embedded_names() if card(name)["kind"] == "structures"]
VERIFIED = [name for name in public_names() if card(name)["verified"]]
DESCRIBED = [name for name in public_names() if not card(name)["verified"]]


def test_embedded_sets_come_first():
    assert list_datasets()[:5] == ["alanine-dipeptide", "dry_ice", "ethanol", "molecules", "small-molecules"]
    assert {"rmd17-ethanol", "qm9", "zinc-250k", "moses", "moleculenet", "alanine-dipeptide-100ns"} <= set(
        list_datasets()
    )


def test_names_are_unique():
    assert len(set(list_datasets())) == len(list_datasets())


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="name must be a known data set, got 'ethanl'; did you mean ethanol"):
        card("ethanl")
    with pytest.raises(ValueError, match="`molml data list` shows all"):
        card("???")


@pytest.mark.parametrize("name", embedded_names())
def test_embedded_card_is_complete(name):
    entry = card(name)
    for key in ("title", "origin", "theory", "fields", "licence", "citation", "n_atoms"):
        assert entry[key].strip()
    assert isinstance(entry["date"], datetime.date)
    assert (embedded_folder() / name / "make.py").is_file()
    assert all(HEXADECIMAL.fullmatch(file[key]) for file in entry["files"] for key in ("sha256", "values_sha256"))


@pytest.mark.parametrize("name", STRUCTURES)
def test_card_of_structures_tells_parts_and_units(name):
    entry = card(name)
    assert entry["units"]["energy"] == "eV"
    assert entry["structures"] == sum(file["structures"] for file in entry["files"])
    assert {file["name"] for file in entry["files"]} == {"train.xyz.xz", "valid.xyz.xz", "test.xyz.xz"}


def test_card_of_trajectories_tells_runs_and_units():
    entry = card("alanine-dipeptide")
    assert entry["kind"] == "trajectories"
    assert {"positions", "time", "temperature"} <= set(entry["units"])
    topology, *runs = entry["files"]
    assert topology["name"] == "topology.pdb"
    assert [run["name"] for run in runs] == [f"run-{n}.xtc" for n in range(1, len(runs) + 1)]
    assert entry["frames"] == sum(run["frames"] for run in runs)


def test_embedded_files_are_small():
    files = [file for name in embedded_names() for file in card(name)["files"]]
    assert sum(file["bytes"] for file in files) < 4e6


def test_molecule_has_a_thousand_frames():
    assert card("ethanol")["structures"] >= 1000


@pytest.mark.parametrize("name", STRUCTURES)
def test_parts_share_no_run(name):
    folder = embedded_folder() / name
    groups = {
        part: {a.info["group"] for a in read_frames(folder / f"{part}.xyz.xz")} for part in ("train", "valid", "test")
    }
    assert not groups["train"] & groups["valid"]
    assert not (groups["train"] | groups["valid"]) & groups["test"]


@pytest.mark.parametrize("name", public_names())
def test_public_entry_is_described(name):
    entry = card(name)
    for key in ("title", "kind", "licence", "citation"):
        assert entry[key].strip()
    assert entry["kind"] in ("structures", "trajectories", "molecules")
    assert re.fullmatch(r"[\w-]+", name)


@pytest.mark.parametrize("name", VERIFIED)
def test_verified_entry_has_the_facts_of_every_file(name):
    entry = card(name)
    assert entry["files"]
    assert len({file["name"] for file in entry["files"]}) == len(entry["files"])
    for file in entry["files"]:
        assert re.fullmatch(r"\w[\w.-]*", file["name"])
        assert HEXADECIMAL.fullmatch(file["sha256"])
        assert 0 < file["bytes"] < 1e9


@pytest.mark.parametrize("name", [name for name in VERIFIED if "package" not in card(name)])
def test_address_is_a_fixed_commit(name):
    assert all(ADDRESS.fullmatch(file["url"]) for file in card(name)["files"])


def test_package_entry_names_a_release_and_its_members():
    entry = card("moses")
    assert re.fullmatch(r"\w+==[\d.]+", entry["package"])
    assert HEXADECIMAL.fullmatch(entry["package_sha256"])
    assert all(file["member"].startswith("moses/") for file in entry["files"])


@pytest.mark.parametrize("name", DESCRIBED)
def test_described_entry_has_no_hash_and_says_where(name):
    entry = card(name)
    assert entry["files"] == []
    assert entry["where"].strip()
    assert not re.search(r"[0-9a-f]{32}", str(entry))
