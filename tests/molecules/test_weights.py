"""The model that comes with the package keeps its promises."""

from pathlib import Path

import numpy as np
import pytest

import molml
from molml.molecules import as_molecules, canonical

WEIGHTS = Path(molml.__file__).parent / "molecules" / "weights"
EVERYDAY = ["aspirin", "caffeine", "ibuprofen", "paracetamol"]


@pytest.fixture(scope="module")
def vae():
    return molml.load("druglike")


def test_files_are_small_and_have_a_card():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 10e6
    card = (WEIGHTS / "druglike.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("ZINC-250k", "licence", "Limits", "recipe"))


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "druglike").write_text("not a model")
    with pytest.raises(molml.io.ModelFileError, match="druglike"):
        molml.load("druglike")


def test_everyday_molecules_come_back(vae):
    truth = [canonical(mol) for mol in as_molecules(EVERYDAY)]
    codes = vae.encode(EVERYDAY)
    assert [mol and canonical(mol) for mol in vae.decode(codes)] == truth
    # a control: codes of other molecules do not give these back
    assert [mol and canonical(mol) for mol in vae.decode(np.roll(codes, 1, axis=0))] != truth


def test_codes_are_the_same_at_every_call(vae):
    np.testing.assert_array_equal(vae.encode(EVERYDAY), vae.encode(EVERYDAY))
    # to rounding of single precision, whatever else is encoded with it
    np.testing.assert_allclose(vae.encode(EVERYDAY)[:1], vae.encode("aspirin"), atol=1e-4)


def test_samples_are_different_molecules(vae):
    found = [canonical(mol) for mol in vae.sample(30, seed=1)]
    assert len(set(found)) == 30
    assert found == [canonical(mol) for mol in vae.sample(30, seed=1)]
    assert found != [canonical(mol) for mol in vae.sample(30, seed=2)]


def test_neighbours_are_similar(vae):
    found = vae.near("aspirin", n=5, seed=0)
    assert len(found) == 6 and found.highlight == [0]
    assert found.values["similarity"][1] > 0.3
    assert found.values["similarity"] == sorted(found.values["similarity"], reverse=True)
