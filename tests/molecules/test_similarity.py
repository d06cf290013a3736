import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from molml.molecules.similarity import diversity, morgan_fingerprints, nearest_similarities, packed

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "c1ccccc1", "C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"]


@pytest.fixture(scope="module")
def molecules():
    return [Chem.MolFromSmiles(smiles) for smiles in SMILES]


def rdkit_similarities(molecules):
    prints = [GetMorganGenerator(radius=2, fpSize=1024).GetFingerprint(mol) for mol in molecules]
    return np.array([DataStructs.BulkTanimotoSimilarity(a, prints) for a in prints])


def random_bits(n, n_bits, seed):
    return (np.random.default_rng(seed).random((n, n_bits)) < 0.05).astype(np.uint8)


def test_nearest_is_rdkits(molecules):
    prints = morgan_fingerprints(molecules)
    expected = rdkit_similarities(molecules)
    np.testing.assert_allclose(nearest_similarities(prints, prints), 1.0)
    np.testing.assert_allclose(nearest_similarities(prints[:3], prints[3:]), expected[:3, 3:].max(axis=1), rtol=1e-15)
    # the control: similarities to another set are others
    assert not np.allclose(nearest_similarities(prints[:3], prints[4:5]), expected[:3, 3:].max(axis=1))


def test_diversity_is_rdkits(molecules):
    similarity = rdkit_similarities(molecules)
    found = diversity(morgan_fingerprints(molecules))
    assert found.first == pytest.approx(1 - similarity.mean(), rel=1e-14)
    assert found.second == pytest.approx(1 - np.sqrt((similarity**2).mean(axis=1)).mean(), rel=1e-14)


@pytest.mark.parametrize(("n", "m", "n_bits"), [(1, 1, 64), (3, 700, 192), (520, 257, 1024), (5, 256, 320)])
def test_every_block_and_word_is_counted(n, m, n_bits):
    own, others = random_bits(n, n_bits, 0), random_bits(m, n_bits, 1)
    shared = own.astype(float) @ others.T
    union = own.sum(axis=1)[:, None] + others.sum(axis=1) - shared
    expected = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
    np.testing.assert_allclose(nearest_similarities(packed(own), packed(others)), expected.max(axis=1), rtol=1e-15)


def test_fingerprints_without_bits():
    prints = np.zeros((2, 16), dtype=np.uint64)
    prints[1, 3] = 5
    # as in MOSES: nothing and nothing are alike, nothing and something are not
    np.testing.assert_array_equal(nearest_similarities(prints[:1], prints), [1.0])
    np.testing.assert_array_equal(nearest_similarities(prints[:1], prints[1:]), [0.0])
    assert diversity(prints).first == 0.5


def test_threads_change_nothing():
    prints = packed(random_bits(1500, 128, 2))
    np.testing.assert_array_equal(
        nearest_similarities(prints[:700], prints[700:], threads=3), nearest_similarities(prints[:700], prints[700:])
    )
    assert diversity(prints, threads=2) == diversity(prints)


@pytest.mark.parametrize(
    ("own", "others", "message"),
    [
        (np.zeros((0, 16), np.uint64), np.zeros((1, 16), np.uint64), "non-empty array"),
        (np.zeros((1, 16), np.uint8), np.zeros((1, 16), np.uint64), "of uint8"),
        (np.zeros(16, np.uint64), np.zeros((1, 16), np.uint64), "non-empty array"),
        (np.zeros((1, 16), np.uint64), np.zeros((1, 8), np.uint64), "got 1024 and 512 bits"),
    ],
)
def test_wrong_fingerprints(own, others, message):
    with pytest.raises(ValueError, match=message):
        nearest_similarities(own, others)
