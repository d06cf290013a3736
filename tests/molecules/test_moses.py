"""Files of the same form as MOSES', with few molecules in them."""

import gzip
import pickle
import zipfile
from collections import Counter
from importlib import metadata

import numpy as np
import pytest

from molml.molecules.moses import INSTALL, chemnet_file, moses_reference, moses_training_smiles
from molml.molecules.similarity import packed


def statistics(n=3):
    bits = (np.random.default_rng(0).random((n, 1024)) < 0.05).astype(np.uint8)
    return {
        "FCD": {"mu": np.arange(512, dtype=np.float32), "sigma": np.eye(512)},
        "SNN": {"fps": bits},
        "Frag": {"frag": Counter({"[1*]C": 2})},
        "Scaf": {"scaf": Counter({"c1ccccc1": 1})},
        **{name: {"values": [1.0, 2.0, 3.5]} for name in ("logP", "SA", "QED", "weight")},
    }


def save(path, content):
    """As the older numpy did that wrote MOSES' files: its modules had other names."""
    array = np.array(content, dtype=object)
    data = pickle.dumps(array, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("stats.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
        member.write(data)


@pytest.fixture
def files(tmp_path):
    """Folder with the files of both packages."""
    data = tmp_path / "moses" / "dataset" / "data"
    data.mkdir(parents=True)
    for split in ("test", "test_scaffolds"):
        save(data / f"{split}_stats.npz", statistics())
    with gzip.open(data / "train.csv.gz", "wt") as file:
        file.write("SMILES\nCCO\nCCN,more\n")
    return tmp_path


def test_reference(files):
    for split in ("test", "test_scaffolds"):
        found, expected = moses_reference(split, files), statistics()
        np.testing.assert_array_equal(found.gaussian.mean, expected["FCD"]["mu"])
        np.testing.assert_array_equal(found.gaussian.covariance, np.eye(512))
        assert found.gaussian.n == 3
        np.testing.assert_array_equal(found.fingerprints, packed(expected["SNN"]["fps"]))
        assert found.fragments == {"[1*]C": 2}
        assert found.scaffolds == {"c1ccccc1": 1}
        assert {name: values.tolist() for name, values in found.properties.items()} == dict.fromkeys(
            ("logP", "SA", "QED", "weight"), [1.0, 2.0, 3.5]
        )


def test_training_smiles(files):
    assert moses_training_smiles(files) == ["CCO", "CCN"]


class Evil:
    def __reduce__(self):
        return eval, ("1/0",)


@pytest.mark.parametrize(
    "content", [b"no archive", Evil(), {"SNN": {}}, {**statistics(), "FCD": {"mu": 0}}, None, "text"]
)
def test_damaged_reference(files, content):
    path = files / "moses/dataset/data/test_stats.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)
    with pytest.raises(ValueError, match="test_stats.npz is damaged; install molsets 0.3.1 again"):
        moses_reference("test", files)


def test_damaged_training_set(files):
    path = files / "moses/dataset/data/train.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"train.csv.gz is damaged"):
        moses_training_smiles(files)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"there is no .*\.pt; {INSTALL} --target"):
        chemnet_file(tmp_path)


def test_missing_package(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match=rf"fcd-torch is needed, which is not installed; {INSTALL}"):
        chemnet_file()


def test_other_version(monkeypatch):
    class Distribution:
        version = "0.1"

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    with pytest.raises(FileNotFoundError, match="molsets 0.3.1 is needed, got version 0.1"):
        moses_training_smiles()


def test_incomplete_package(monkeypatch, tmp_path):
    class Distribution:
        version = "1.0.7"

        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    with pytest.raises(FileNotFoundError, match=rf"there is no {tmp_path}.*; {INSTALL}$"):
        chemnet_file()
    (tmp_path / "fcd_torch").mkdir()
    (tmp_path / "fcd_torch" / "ChemNet_v0.13_pretrained.pt").touch()
    assert chemnet_file().name == "ChemNet_v0.13_pretrained.pt"


def test_statistics_could_run_code():
    # the control: plain unpickling would have
    with pytest.raises(ZeroDivisionError):
        pickle.loads(pickle.dumps(Evil()))
