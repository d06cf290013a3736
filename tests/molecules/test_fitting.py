import inspect

import numpy as np
import pytest
import torch

from molml.molecules.data import as_molecules, canonical
from molml.molecules.fitting import (
    DRUGLIKE,
    druglike_molecules,
    fit_prior,
    latent_statistics,
    train,
    train_language,
)
from molml.molecules.model import MoleculeVAE
from molml.molecules.names import NAMES
from molml.molecules.tokens import Tokenizer
from molml.training import TrainingInterrupted
from molml.training.checkpoint import ResumeError

SMILES = sorted({canonical(mol) for mol in as_molecules(list(NAMES.values()))})
SMALL = {"encoder": "convolutional", "n_latent": 8, "hidden": 32, "batch_size": 16, "learning_rate": 4e-3}


def short(smiles=SMILES, **keywords):
    options = {"minutes": 10.0, "max_epochs": 3, "valid_fraction": 0.2, "prior": False, **SMALL} | keywords
    return train(smiles, **options)


def weights(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_the_same_seed_gives_the_same_weights():
    assert torch.equal(weights(short(seed=1)), weights(short(seed=1)))
    assert not torch.equal(weights(short(seed=1)), weights(short(seed=2)))


def test_a_killed_run_continues_to_the_same_bits(tmp_path, monkeypatch):
    import os
    import signal

    from molml.molecules.loss import ELBO

    expected = short(seed=1)
    whole, calls = ELBO.__call__, []

    def killed(self, model, batch):
        calls.append(1)
        # in the middle of the second of three epochs
        if len(calls) == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, model, batch)

    monkeypatch.setattr(ELBO, "__call__", killed)
    with pytest.raises(TrainingInterrupted):
        short(seed=1, directory=tmp_path)
    monkeypatch.setattr(ELBO, "__call__", whole)
    assert torch.equal(weights(short(seed=1, directory=tmp_path, resume=True)), weights(expected))
    with pytest.raises(ResumeError, match="beta"):
        short(seed=1, beta=0.5, directory=tmp_path, resume=True)


def test_spellings_bring_the_codes_of_one_molecule_together():
    def unlike(spellings):
        """Distance of the codes of two spellings, in distances of two molecules."""
        model = short(spellings=spellings, max_epochs=8, valid_fraction=0.0, seed=1)
        data = model.dataset(SMILES, spellings=8, seed=1)
        # none of the spellings that were trained on
        batch = data.collate(list(range(len(SMILES)))).read
        with torch.inference_mode():
            other = model.encode_batch(batch)[0]
        mean = model.posterior(data)[0]
        return float((other - mean).norm(dim=1).mean() / (mean - mean.roll(1, 0)).norm(dim=1).mean())

    assert unlike(4) < 0.8 * unlike(0)


def test_spellings_are_the_same_after_an_interruption(tmp_path):
    expected = weights(short(seed=1, spellings=3, max_epochs=4))
    assert torch.equal(weights(short(seed=1, spellings=3, max_epochs=4)), expected)
    assert not torch.equal(weights(short(seed=1, max_epochs=4)), expected)


def test_the_code_is_used():
    model = short(beta=0.01, max_epochs=15, valid_fraction=0.0, word_dropout=0.0)
    assert model.metadata["latent"]["active_units"] == 8
    assert latent_statistics(model, model.dataset(SMILES)).kl.min() > 0.1


def test_control_a_large_beta_makes_it_collapse_and_this_is_told():
    with pytest.warns(UserWarning, match="posterior collapse: none of 8"):
        model = short(beta=100.0, warm_up=0.0, max_epochs=15, valid_fraction=0.0, word_dropout=0.0)
    assert model.metadata["latent"]["active_units"] == 0
    assert model.metadata["latent"]["kl"] < 0.05


def test_statistics_are_those_of_the_posterior():
    model = MoleculeVAE(Tokenizer.from_strings(SMILES), n_latent=3, hidden=8).eval()
    model.encode_batch = lambda batch: (torch.arange(3.0) * torch.arange(len(batch.tokens))[:, None], torch.zeros(1, 3))
    data = model.dataset(SMILES[:4])
    # means 0, 1, 2, 3 times 0, 1 and 2, variances 1: half of the mean square
    assert latent_statistics(model, data).kl.tolist() == [0.0, 14 / 8, 14 / 2]
    assert latent_statistics(model, data).active_units == 2


def test_molecules_with_rare_tokens_are_left_out_and_counted():
    model = short([*SMILES, "C[Se]C"], min_count=2, max_epochs=1)
    assert "[Se]" not in model.tokenizer.vocabulary
    found = model.metadata["training"]
    assert found["n_unknown_tokens"] >= 1
    assert found["n_train"] + found["n_valid"] + found["n_unknown_tokens"] == len(SMILES) + 1


@pytest.mark.parametrize(("n", "least", "most"), [(40, 4, 12), (1000, 70, 130)])
def test_of_few_molecules_more_are_held_out(n, least, most):
    model = short(
        ["C" * (i % 30) + "O" + "C" * (i // 30) for i in range(n)],
        valid_fraction=None,
        minutes=1e-4,
        encoder="recurrent",
    )
    # a fifth of 40, a tenth of 1000
    assert least <= model.metadata["training"]["n_valid"] <= most


def test_repeated_molecules_are_held_out_once_and_never_trained_on():
    from molml.molecules.data import split_by_hash

    held_out = split_by_hash(SMILES, 0.2)[1]
    model = short(SMILES * 3, max_epochs=1)
    assert model.metadata["training"]["n_valid"] == len(held_out)
    assert model.metadata["training"]["n_train"] == 3 * (len(SMILES) - len(held_out))


def test_selfies_can_be_written():
    pytest.importorskip("selfies")
    model = short(SMILES, kind="selfies", max_epochs=1)
    assert model.tokenizer.kind == "selfies"
    # whatever a decoder of SELFIES writes is a molecule or nothing
    assert all(mol is None or mol.GetNumAtoms() for mol in model.reconstruct(SMILES[:5]))


def test_a_model_can_be_trained_further_with_its_predictor():
    masses = [float(len(text)) for text in SMILES]
    model = short(properties={"length": masses}, max_epochs=1)
    mean, predictor = model.property_mean.clone(), model.predictor
    assert train(SMILES, model=model, minutes=5.0, max_epochs=1, valid_fraction=0.2, prior=False) is model
    assert model.properties == ["length"] and model.predictor is predictor
    assert torch.equal(model.property_mean, mean)


def test_the_prior_comes_by_itself():
    model = short(minutes=0.02, max_epochs=2, prior=True)
    assert model.prior is not None and model.config["prior"]["n_layers"] == 8


def test_a_prior_meets_a_mixture_better_than_a_gaussian():
    model = MoleculeVAE(Tokenizer.from_strings(SMILES), n_latent=2, hidden=8).eval()
    rng = np.random.default_rng(0)
    centres = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0]])[rng.integers(3, size=1000)]
    model.posterior = lambda dataset: (centres[: len(dataset)], torch.full((len(dataset), 2), -3.0))
    fit_prior(model, model.dataset(["CCO"] * 1000), minutes=5.0, max_epochs=60)
    gaussian = -(np.log(2 * np.pi * np.e) + 0.5 * np.log(np.linalg.det(np.cov(centres.T.numpy()) + 1.05 * np.eye(2))))
    # e⁻³ of the posterior, and 1 of the noise
    codes = centres + 1.05**0.5 * torch.randn(centres.shape, generator=torch.Generator().manual_seed(0))
    assert model.prior.log_density(codes).mean().item() > gaussian + 0.2


def test_the_recipe_reads_its_three_files(tmp_path):
    (tmp_path / "zinc.smi").write_text("\n".join(["CC(C)Oc1ccccc1", "CCN(CC)C(=O)c1ccncc1"] * 15 + ["CCCCO"] * 15))
    (tmp_path / "drugs.csv").write_text("smiles\nCC(=O)[O-].[Na+]\nnothing\nCCCOC(C)=O\n")
    (tmp_path / "qm9.smi").write_text("\n".join("C" * n for n in range(1, 40)))
    smiles = druglike_molecules(tmp_path / "zinc.smi", tmp_path / "drugs.csv", tmp_path / "qm9.smi")
    assert smiles[:45] == ["CC(C)Oc1ccccc1", "CCN(CC)C(=O)c1ccncc1"] * 15 + ["CCCCO"] * 15
    # the counterion is stripped, what is no molecule left out, and everyday molecules are there; each several times
    assert smiles.count("CC(=O)[O-]") == smiles.count("CCCOC(C)=O") == 4 <= smiles.count("CC(=O)Oc1ccccc1C(=O)O")
    assert not any("Na" in text for text in smiles)
    assert 1 <= sum(set(text) == {"C"} and len(text) > 9 for text in smiles) <= 15
    assert DRUGLIKE.keys() <= inspect.signature(train).parameters.keys()


@pytest.mark.parametrize(
    ("smiles", "keywords", "match"),
    [
        (["CCO"], {"valid_fraction": 0.5}, "both sides of the split"),
        (SMILES, {"properties": {"x": [1.0]}}, "'x' must have a number per molecule"),
        (SMILES, {"properties": {"x": [1.0] * len(SMILES)}}, "'x' must have at least two different values"),
        (SMILES, {"minutes": 0.0}, "minutes must be positive"),
        (SMILES, {"min_count": 10**6}, "min_count"),
    ],
)
def test_what_cannot_be_trained_is_refused(smiles, keywords, match):
    with pytest.raises(ValueError, match=match):
        short(smiles, **keywords)


def test_a_language_model_needs_molecules_on_both_sides():
    with pytest.raises(ValueError, match="both sides of the split"):
        train_language(["CCO"], minutes=1.0, valid_fraction=0.5)
