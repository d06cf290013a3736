import numpy as np
import pytest
from rdkit import Chem

from molml.molecules.data import as_molecules, canonical
from molml.molecules.evaluation import evaluate, interpolation_metrics, sample_metrics
from molml.molecules.language import LanguageModel
from molml.molecules.model import MoleculeVAE
from molml.molecules.tokens import Tokenizer

SMILES = ["CCO", "CCN", "CCC", "CC=O"]
TOKENIZER = Tokenizer.from_strings(SMILES)


def encode_as(model, codes, monkeypatch):
    """Let a model give molecules, as SMILES or not, the codes of a table."""
    monkeypatch.setattr(model, "encode", lambda mols: np.array([codes[canonical(mol)] for mol in as_molecules(mols)]))


@pytest.fixture
def vae(monkeypatch):
    """A model whose codes are the numbers of the molecules in a list, and which decodes a code to the nearest one."""
    model = MoleculeVAE(TOKENIZER, encoder="convolutional", n_latent=2, hidden=4)
    table = [*SMILES, "C(C"]

    def decode_strings(z, *, mask=True, **options):
        # the mask turns the string that is no molecule into one
        return [("C" if mask and i == 4 else table[i]) for i in np.clip(np.round(z[:, 0]), 0, 4).astype(int)]

    encode_as(model, {text: np.array([i, 0.0]) for i, text in enumerate(SMILES)}, monkeypatch)
    monkeypatch.setattr(model, "decode_strings", decode_strings)
    monkeypatch.setattr(model, "sample_codes", lambda n, **options: np.arange(n)[:, None] % 5 * np.array([1.0, 0.0]))
    return model


def test_samples_are_counted(vae):
    found = sample_metrics(vae, ["CCO", "CCN"], n=10)
    assert found == {"validity": 1.0, "uniqueness": 0.5, "novelty": 3 / 5}
    without = sample_metrics(vae, ["CCO", "CCN"], n=10, mask=False)
    assert without == {"validity": 0.8, "uniqueness": 0.5, "novelty": 2 / 4}


def test_reconstruction_is_exact_matches(vae, monkeypatch):
    assert evaluate(vae, SMILES, [], n_samples=5)["reconstruction"] == 1.0
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda texts: np.minimum(encode(texts) + np.array([1.0, 0.0]), 3))
    assert evaluate(vae, SMILES, [], n_samples=5)["reconstruction"] == 0.25  # a control: the last one only


def test_evaluation_of_an_autoencoder(vae):
    found = evaluate(vae, [*SMILES, "CCBr"], ["CCO"], n_samples=5)
    assert found["n_valid"] == 4  # bromine is no token of the model
    assert found["validity_without_mask"] == 0.8 < found["validity"] == 1.0
    assert found["kl"] > 0 and found["active_units"] in (0, 1, 2)


def test_evaluation_of_a_language_model():
    model = LanguageModel(TOKENIZER, hidden=8, seed=0)
    found = evaluate(model, SMILES, [], n_samples=20)
    assert found["log_likelihood"] == pytest.approx(np.mean(model.log_likelihood(SMILES)))
    assert set(found) == {
        *("log_likelihood", "validity", "uniqueness", "novelty", "validity_without_mask", "n_valid", "n_samples"),
    }
    assert found["validity_without_mask"] < found["validity"]


def test_paths_are_measured(vae):
    found = interpolation_metrics(vae, ["CCO", "CCC"], n_pairs=3, n_points=5, candidates=1)
    # codes 0 … 2 in steps of a half: CCO, CCO (0.5 rounds to even), CCN, CCC, CCC
    assert found["validity"] == 1.0
    assert found["distinct"] == 3.0
    generator = Chem.rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in ("CCO", "CCN", "CCC")]
    between = [Chem.DataStructs.TanimotoSimilarity(a, b) for a, b in zip(prints, prints[1:], strict=False)]
    assert found["adjacent_similarity"] == pytest.approx((1 + between[0] + between[1] + 1) / 4)
    # without the steps on which nothing changes
    assert found["step_similarity"] == pytest.approx((between[0] + between[1]) / 2)


def test_paths_may_turn(vae, monkeypatch):
    # a quarter of a circle of radius 2 has its middle at 1.41, the straight line at 1
    encode_as(vae, {"CCO": np.array([0.0, 2.0]), "CCC": np.array([2.0, 0.0])}, monkeypatch)
    seen = []
    decode = vae.decode_strings
    monkeypatch.setattr(vae, "decode_strings", lambda z, **options: seen.append(z) or decode(z, **options))
    for spherical in (False, True):
        interpolation_metrics(vae, ["CCO", "CCC"], n_pairs=1, n_points=3, spherical=spherical, candidates=1)
    np.testing.assert_allclose([z[1] for z in seen], [[1.0, 1.0], [2**0.5, 2**0.5]])


@pytest.mark.parametrize(
    "call", [lambda m: evaluate(m, ["CCO", "CCBr"], []), lambda m: interpolation_metrics(m, ["CCO"])]
)
def test_too_few_molecules(vae, call):
    with pytest.raises(ValueError, match="at least two molecules whose tokens the model knows, got 1"):
        call(vae)
