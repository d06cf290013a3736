import json
import math
from collections import Counter

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors
from rdkit.Contrib.SA_Score import sascorer

from molml.molecules.description import describe, joined
from molml.molecules.metrics import Metrics, cosine_similarity, metrics
from molml.molecules.moses import chemnet_file, moses_training_smiles

GENERATED = ["CCO", "OCC", "c1ccc2ccccc2c1", "C(", None, "", "CC(=O)Nc1ccc(O)cc1", "C" * 1001]
REFERENCE = ["CCCO", "c1ccc2ccccc2c1C", "CC(=O)Nc1ccccc1"]

PUBLISHED = {
    "fast_z56": {
        "valid": 1.0,
        "unique@1000": 1.0,
        "unique@10000": 0.9992,
        "FCD/Test": 0.42235413520261034,
        "SNN/Test": 0.5560595345050097,
        "Frag/Test": 0.996223352989786,
        "Scaf/Test": 0.8924981494347503,
        "FCD/TestSF": 0.9962165008703465,
        "SNN/TestSF": 0.5272934146558245,
        "Frag/TestSF": 0.9947901514732745,
        "Scaf/TestSF": 0.10049873444911761,
        "IntDiv": 0.8511712225340441,
        "IntDiv2": 0.8453088593783662,
        "Filters": 0.9778,
    },
}


def found(**settings):
    return metrics(GENERATED, reference=REFERENCE, fcd=False, threads=1, **settings)


def test_counts():
    result = found(train=["OCC"], n_unique=[2, 3, 4, 5])
    assert (result.n, result.n_valid) == (8, 4)
    assert result.values["valid"] == 0.5
    assert {k: v for k, v in result.values.items() if k.startswith("unique")} == {
        "unique@2": 0.5,
        "unique@3": 2 / 3,
        "unique@4": 0.75,
    }
    assert result.values["Novelty"] == 2 / 3
    assert "Novelty" not in found().values
    # fewer than all numbers asked for: the uniqueness of all, by its right name
    assert [name for name in found().values if name.startswith("unique")] == ["unique@4"]


def test_order_of_names():
    names = list(found(train=["C"]).values)
    expected = "valid unique@4 SNN/Test Frag/Test Scaf/Test IntDiv IntDiv2 Filters logP SA QED weight Novelty"
    assert names == expected.split()


def test_properties_are_rdkits():
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "C1CCCCCCCCC1", "[2H]C([2H])Cl", "C[C@H](N)C(=O)O", "OC1=CC=C(C=C1)N=O"]
    (part,) = describe(smiles, chemnet=None, threads=1)
    molecules = [Chem.MolFromSmiles(text) for text in smiles]
    expected = {
        "logP": [Crippen.MolLogP(mol) for mol in molecules],
        "SA": [sascorer.calculateScore(mol) for mol in molecules],
        "QED": [QED.qed(mol) for mol in molecules],
        "weight": [Descriptors.MolWt(mol) for mol in molecules],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(part.properties[name], values, rtol=1e-12)


def test_distance_of_properties():
    # one molecule and one: the difference
    a, b = "CCO", "CCCCCC"
    result = metrics([a, a], reference=[b, b], fcd=False, threads=1).values
    weights = [Descriptors.MolWt(Chem.MolFromSmiles(text)) for text in (a, b)]
    assert result["weight"] == pytest.approx(weights[1] - weights[0], rel=1e-12)
    assert result["unique@2"] == 0.5


def test_fragments_and_scaffolds():
    (part,) = describe(["CC(=O)NCc1ccccc1", "c1ccc2ccccc2c1CC", "C1CC1C2CC2"], chemnet=None, threads=1)
    # one ring is no scaffold here
    assert part.scaffolds == {"c1ccc2ccccc2c1": 1, "C1CC1C1CC1": 1}
    assert sum(part.fragments.values()) > 3
    assert part.fragments["[1*]C(C)=O"] == 1


def test_scaffolds_may_be_absent():
    result = metrics(["CCO", "CCN"], reference=["CC", "CCC"], fcd=False, threads=1).values
    assert "Scaf/Test" not in result
    assert all(math.isfinite(value) for value in result.values())


def test_perfect_copy():
    result = metrics(REFERENCE, reference=REFERENCE, fcd=False, threads=1).values
    for name in ("SNN/Test", "Frag/Test", "Scaf/Test"):
        assert result[name] == pytest.approx(1.0, rel=1e-12)
    for name in ("logP", "SA", "QED", "weight"):
        assert result[name] == 0.0


def test_processes_change_nothing():
    smiles = [f"{'C' * (1 + i % 9)}O{'N' * (i % 2)}" for i in range(60)] + [None] * 3
    one = metrics(smiles, reference=REFERENCE, fcd=False, threads=1)
    assert metrics(smiles, reference=REFERENCE, fcd=False, threads=2) == one


def test_molecules_instead_of_smiles():
    given, others = ([Chem.MolFromSmiles(text) for text in smiles] for smiles in (GENERATED[:3], REFERENCE))
    expected = metrics(GENERATED[:3], reference=REFERENCE, fcd=False, threads=1).values
    # a Mol is written and read again, with its atoms in another order
    assert metrics(given, reference=others, fcd=False, threads=1).values == pytest.approx(expected, rel=1e-12)


def test_parts_are_joined_in_order():
    parts = list(describe(["C", "x", "CC", "CCC"], chemnet=None, threads=1))
    whole = joined([*parts, *describe(["N"], chemnet=None, threads=1)])
    assert whole.smiles == ["C", "CC", "CCC", "N"]
    assert whole.n_given == 5
    assert whole.features.shape == (4, 0)
    assert whole.passes.tolist() == [True] * 4


def test_nothing_valid_in_a_part():
    (part,) = describe(["x", None], chemnet=None, threads=1)
    assert (part.n_given, part.smiles, part.fingerprints.shape) == (2, [], (0, 16))


def test_cosine_similarity():
    assert cosine_similarity(Counter("ab"), Counter("cd")) == 0.0
    assert cosine_similarity(Counter("aab"), Counter("aab")) == pytest.approx(1.0, rel=1e-12)


def test_text_and_json():
    result = Metrics({"valid": 1.0, "FCD/Test": 0.5, "FCD/TestSF": 0.25}, 5000, 5000, {"FCD/Test": 0.125})
    assert "FCD/Test           0.5   (n = 5,000; about 0.1250 for n → ∞)" in str(result)
    assert "FCD/TestSF        0.25   (n = 5,000)" in str(result)
    assert json.loads(result.json()) == {
        "valid": 1.0,
        "FCD/Test": 0.5,
        "FCD/TestSF": 0.25,
        "n": 5000,
        "n_valid": 5000,
        "fcd_limits": {"FCD/Test": 0.125},
    }


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"molecules": []}, ValueError, "molecules must hold molecules, got an empty list"),
        ({"molecules": "CCO"}, TypeError, "molecules must be a list of SMILES"),
        ({"molecules": 3}, TypeError, "molecules must be a list of SMILES"),
        ({"molecules": ["C", math.nan]}, TypeError, r"molecules\[1\] must be a SMILES, a Mol, or None .* got nan"),
        ({"molecules": ["C", "x", None]}, ValueError, "at least two valid molecules, got 1 of 3"),
        ({"reference": "zinc"}, ValueError, "reference must be 'moses' or a list"),
        ({"reference": ["CC", "x"]}, ValueError, "all valid, got 1 valid ones of 2"),
        ({"reference": ["CC"]}, ValueError, "two molecules or more"),
        ({"reference": []}, ValueError, "reference must hold molecules"),
        ({"train": ["CC", "x"]}, ValueError, r"train\[1\] must be a molecule, got 'x'"),
        ({"train": [None]}, ValueError, r"train\[0\] must be a molecule, got None"),
        ({"n_unique": []}, ValueError, "n_unique must hold numbers from 1"),
        ({"n_unique": [0, 5]}, ValueError, "n_unique must hold numbers from 1"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
    ],
)
def test_wrong_input(settings, error, message):
    given = {"molecules": GENERATED, "reference": REFERENCE, "fcd": False, "threads": 1, **settings}
    with pytest.raises(error, match=message):
        metrics(given.pop("molecules"), **given)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        metrics(["C", "CC"], reference=REFERENCE, files=tmp_path, threads=1)


@pytest.fixture(scope="module")
def installed():
    """The two packages; skips where they are not."""
    try:
        chemnet_file(), moses_training_smiles()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_distance_to_molecules_of_ones_own(installed):
    smiles = ["C" * k + "O" for k in range(1, 20)]
    result = metrics(smiles, reference=smiles, threads=1)
    # roots of eigenvalues that would be zero: fewer molecules than features
    assert result.values["FCD/Test"] == pytest.approx(0.0, abs=1e-4)
    # too few for it
    assert result.fcd_limits == {}
    assert metrics(smiles, reference=smiles[:10], threads=1).values["FCD/Test"] > 0.1


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_values(installed, shared_smiles, name):
    # the first line is the header
    smiles = shared_smiles(f"jtvae_moses_samples_{name}.smi.xz")[1:]
    result = metrics(smiles)
    assert result.n == 30_000
    for key, value in PUBLISHED[name].items():
        # the authors had a version of RDKit of 2019
        assert result.values[key] == pytest.approx(value, abs=5e-4), key
    assert 0.3 < result.fcd_limits["FCD/Test"] < 0.4
