import numpy as np
import pytest
import torch

from molml.io import ModelFileError, load_container
from molml.molecules.data import MoleculeError
from molml.molecules.fitting import train_language
from molml.molecules.language import LanguageModel
from molml.molecules.tokens import Tokenizer, UnknownTokenError

TOKENIZER = Tokenizer.from_strings(["CCO", "CN", "c1ccccc1"])


@pytest.fixture(scope="module")
def coin():
    """Model of a language of two molecules, one three times as frequent as the other."""
    return train_language(
        ["CO"] * 3 + ["CCN"],
        minutes=5.0,
        max_epochs=300,
        hidden=16,
        batch_size=4,
        learning_rate=2e-2,
        valid_fraction=0.0,
    )


def test_it_learns_the_frequencies(coin):
    # cross-entropy is least at the frequencies themselves
    np.testing.assert_allclose(np.exp(coin.log_likelihood(["CO", "CCN"])), [0.75, 0.25], atol=0.06)
    assert coin.metadata["training"]["n_train"] == 4


def test_samples_have_them_too(coin):
    smiles = [mol.GetNumAtoms() for mol in coin.sample(400, seed=1) if mol is not None]
    # five standard errors of a frequency of 3/4 beside what the fit leaves
    assert abs(smiles.count(2) / 400 - 0.75) < 0.05 + 5 * (0.75 * 0.25 / 400) ** 0.5


def test_samples_follow_the_seed(coin):
    one, two, other = ([mol.GetNumAtoms() for mol in coin.sample(60, seed=seed)] for seed in (1, 1, 2))
    assert one == two != other


def test_likelihood_is_that_of_the_tokens_one_by_one():
    model = LanguageModel(TOKENIZER, hidden=8, seed=1).eval()
    (ids,) = TOKENIZER.encode(["CCO"])
    state, last, expected = model.decoder.start(None, 1), torch.tensor([1]), 0.0
    for number in ids.tolist():
        logits, state = model.decoder.step(last, state)
        expected += float(torch.log_softmax(logits.detach(), 1)[0, number])
        last = torch.tensor([number])
    np.testing.assert_allclose(model.log_likelihood(["OCC", "benzene"])[0], expected, rtol=1e-5)
    assert len(model.log_likelihood([])) == 0


def test_a_file_gives_the_same_model(coin, tmp_path):
    coin.save(tmp_path / "model.molml", {"licence": "none"})
    again = LanguageModel.from_container(load_container(tmp_path / "model.molml"))
    np.testing.assert_array_equal(again.log_likelihood(["CO"]), coin.log_likelihood(["CO"]))
    assert again.metadata["licence"] == "none"
    container = load_container(tmp_path / "model.molml")
    with pytest.raises(ModelFileError, match="whole LanguageModel"):
        LanguageModel.from_container(container._replace(config=container.config | {"hidden": 5}))


def test_what_it_cannot_read_is_named(coin):
    with pytest.raises(UnknownTokenError, match="Br"):
        coin.log_likelihood(["CBr"])
    with pytest.raises(MoleculeError, match="C1C"):
        coin.log_likelihood(["C1C"])
