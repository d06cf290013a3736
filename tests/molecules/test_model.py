import numpy as np
import pytest
import torch
from rdkit import Chem

from molml.io import ModelFileError, load_container
from molml.molecules.data import MoleculeError, as_molecules, canonical
from molml.molecules.fitting import fit_prior, train
from molml.molecules.model import MoleculeVAE
from molml.molecules.names import NAMES
from molml.molecules.optimisation import optimize
from molml.molecules.tokens import Tokenizer, UnknownTokenError

SMILES = sorted({canonical(mol) for mol in as_molecules(list(NAMES.values()))}, key=lambda text: (len(text), text))
FIFTY = [text for text in SMILES if len(text) > 6][:50]
TOKENIZER = Tokenizer.from_strings(SMILES)
MASSES = [float(sum(atom.GetMass() for atom in mol.GetAtoms())) for mol in as_molecules(FIFTY)]


@pytest.fixture(scope="module")
def trained():
    model = train(
        FIFTY,
        minutes=10.0,
        max_epochs=100,
        encoder="convolutional",
        n_latent=24,
        hidden=128,
        beta=0.003,
        word_dropout=0.0,
        noisy=0.1,
        batch_size=10,
        learning_rate=4e-3,
        valid_fraction=0.0,
        property_weight=0.1,
        properties={"mass": MASSES},
        prior=False,
    )
    fit_prior(model, model.dataset(FIFTY), minutes=1.0, max_epochs=30)
    return model


def test_it_memorises_fifty_molecules(trained):
    assert trained.decode_strings(trained.encode(FIFTY), mask=False) == FIFTY


def test_control_an_untrained_one_knows_none():
    model = MoleculeVAE(TOKENIZER, encoder="convolutional", n_latent=16, hidden=32).eval()
    strings = model.decode_strings(model.encode(FIFTY), mask=False)
    assert not any(found == expected for found, expected in zip(strings, FIFTY, strict=True))


def test_molecules_come_back_as_molecules(trained):
    found = trained.reconstruct([Chem.MolFromSmiles(FIFTY[7]), FIFTY[9], "aspirin"])
    assert [canonical(mol) for mol in found[:2]] == [FIFTY[7], FIFTY[9]]
    assert trained.decode(trained.encode([]))[:] == []


def test_encoding_is_deterministic_and_reads_canonically(trained):
    ethyl, turned = "CCOC(C)=O", "O=C(C)OCC"
    codes = trained.encode([ethyl, turned])
    assert codes.shape == (2, 24) and codes.dtype == np.float64
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes, trained.encode([ethyl, turned]))


def test_properties_are_predicted_in_their_units(trained):
    table = trained.predict(FIFTY)
    assert list(table.columns) == ["mass"] and list(table.index) == FIFTY
    assert np.abs(table["mass"] - MASSES).mean() < 0.3 * np.std(MASSES)
    np.testing.assert_array_equal(trained.predict_codes(trained.encode(FIFTY)), table.to_numpy())


def test_samples_are_different_molecules_and_follow_the_seed(trained):
    mols = trained.sample(20, seed=3)
    smiles = [canonical(mol) for mol in mols]
    assert len(set(smiles)) == 20
    assert smiles == [canonical(mol) for mol in trained.sample(20, seed=3)]
    assert smiles != [canonical(mol) for mol in trained.sample(20, seed=4)]
    assert trained.sample(0) == []


def test_it_explores_by_the_functions_of_that_name(trained):
    assert len(trained.near(FIFTY[9], n=3)) >= 1
    assert len(trained.interpolate([FIFTY[9], FIFTY[12]], n=3, path=True)) == 3
    assert MoleculeVAE.optimize is optimize


def test_the_learned_prior_fits_the_codes_better_than_the_standard_one(trained):
    codes = torch.from_numpy(trained.encode(FIFTY)).float()
    codes = codes + torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    standard = torch.distributions.Normal(0.0, 2**0.5).log_prob(codes).sum(1)
    assert trained.prior.log_density(codes).mean() > standard.mean()


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_without_a_learned_prior_codes_are_standard_normal_with_noise(noise):
    codes = MoleculeVAE(TOKENIZER, n_latent=4, hidden=8).sample_codes(4000, noise=noise, seed=1)
    codes /= (1 + noise**2) ** 0.5
    # five standard errors
    assert np.abs(codes.mean(0)).max() < 5 / 4000**0.5
    assert np.abs(codes.std(0) - 1).max() < 5 / 8000**0.5


@pytest.mark.parametrize("noise", [0.9, np.inf, np.nan])
def test_samples_with_less_noise_than_the_prior_are_refused(trained, noise):
    with pytest.raises(ValueError, match="noise must be at least 1"):
        trained.sample_codes(3, noise=noise)


def test_the_hint_is_what_to_expect_of_a_code_with_noise():
    model = MoleculeVAE(TOKENIZER, n_latent=2, hidden=8)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200_000, 2))
    noisy = z + 0.7 * rng.normal(size=z.shape)
    hint = model.hint(torch.from_numpy(noisy), torch.full((len(z), 1), 0.7, dtype=torch.float64)).numpy()
    # the regression of the code on the noisy one; slope within five standard errors
    slope = (z * noisy).sum() / (noisy**2).sum()
    assert (hint[:, :2] / noisy) == pytest.approx(np.full(z.shape, 1 / 1.49))
    assert slope == pytest.approx(1 / 1.49, abs=5 * 0.7 / 400_000**0.5)
    np.testing.assert_allclose(hint[:, 2], 0.7 / 1.49**0.5)
    np.testing.assert_allclose(model.hint(torch.ones(1, 2), torch.zeros(1, 1)), [[1.0, 1.0, 0.0]])


def test_with_much_noise_the_code_hardly_counts(trained):
    codes = trained.encode(FIFTY)
    assert len(set(trained.decode_strings(codes, noise=0.0))) == 50
    # control above: without noise they differ
    assert len(set(trained.decode_strings(codes, noise=1e4))) == 1


@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf])
def test_noise_out_of_range_is_refused(trained, noise):
    with pytest.raises(ValueError, match="noise must be a standard deviation"):
        trained.decode(trained.encode(["CCO"]), noise=noise)


@pytest.mark.parametrize("encoder", ["graph", "convolutional", "recurrent"])
def test_a_file_gives_the_same_model(encoder, tmp_path):
    model = MoleculeVAE(TOKENIZER, encoder=encoder, n_latent=4, hidden=8, properties=["a", "b"], seed=2).eval()
    model.save(tmp_path / "model.molml", {"licence": "none"})
    again = MoleculeVAE.from_container(load_container(tmp_path / "model.molml"))
    assert again.config == model.config and again.metadata["licence"] == "none"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    np.testing.assert_array_equal(model.encode(FIFTY[:5]), again.encode(FIFTY[:5]))


def test_a_file_with_a_learned_prior_gives_the_same_samples(trained, tmp_path):
    trained.save(tmp_path / "model.molml")
    again = MoleculeVAE.from_container(load_container(tmp_path / "model.molml"))
    np.testing.assert_array_equal(trained.sample_codes(9, seed=1), again.sample_codes(9, seed=1))
    assert again.decode_strings(again.encode(FIFTY)) == trained.decode_strings(trained.encode(FIFTY))


def test_half_precision_halves_the_file_and_hardly_changes_the_codes(trained, tmp_path):
    trained.save(tmp_path / "full.molml")
    trained.save(tmp_path / "half.molml", half=True)
    sizes = [(tmp_path / f"{name}.molml").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    again = MoleculeVAE.from_container(load_container(tmp_path / "half.molml"))
    codes = trained.encode(FIFTY)
    # numbers of 11 bits
    assert np.abs(again.encode(FIFTY) - codes).max() < 0.01 * np.abs(codes).max()


@pytest.mark.parametrize("change", [{"n_latent": 5}, {"encoder": "none"}, {"prior": {"n_layers": 2, "hidden": [4]}}])
def test_a_file_that_does_not_fit_is_refused(change, tmp_path):
    model = MoleculeVAE(TOKENIZER, n_latent=4, hidden=8)
    model.save(tmp_path / "model.molml")
    container = load_container(tmp_path / "model.molml")
    with pytest.raises(ModelFileError, match="whole MoleculeVAE"):
        MoleculeVAE.from_container(container._replace(config=container.config | change))


def test_unknown_tokens_and_what_is_no_molecule_are_named(trained):
    with pytest.raises(UnknownTokenError, match=r"\[Se\]"):
        trained.encode(["CCO", "C[Se]C"])
    with pytest.raises(MoleculeError, match="C1C"):
        trained.encode(["C1C"])


@pytest.mark.parametrize("z", [np.zeros(24), np.zeros((2, 23)), np.full((1, 24), np.nan)])
def test_codes_of_another_shape_or_not_finite_are_refused(trained, z):
    with pytest.raises(ValueError, match="z must"):
        trained.decode(z)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ValueError, match="encoder must be one of graph"):
        MoleculeVAE(TOKENIZER, encoder="transformer")
    with pytest.raises(ValueError, match="n_latent must be at least 2"):
        MoleculeVAE(TOKENIZER, n_latent=0)
    with pytest.raises(TypeError, match=r"write \['logP'\]"):
        MoleculeVAE(TOKENIZER, properties="logP")


def test_a_model_without_properties_predicts_none():
    model = MoleculeVAE(TOKENIZER, n_latent=4, hidden=8).eval()
    with pytest.raises(ValueError, match="predicts no properties"):
        model.predict(["CCO"])
    with pytest.raises(ValueError, match="predicts no properties"):
        model.predict_codes(np.zeros((1, 4)))


def test_samples_out_of_range_are_refused(monkeypatch):
    model = MoleculeVAE(TOKENIZER, n_latent=4, hidden=8).eval()
    with pytest.raises(ValueError, match="n must be 0 or more"):
        model.sample(-1)
    # codes that are all the same decode to one molecule
    monkeypatch.setattr(MoleculeVAE, "sample_codes", lambda self, n, **options: np.zeros((n, 4)))
    with pytest.raises(ValueError, match="only [01] different molecules"):
        model.sample(3, temperature=0.0)


def test_it_can_be_trained_further_on_a_table(trained, tmp_path):
    (tmp_path / "more.csv").write_text("name,logD\n" + "".join(f"{text},{len(text)}\n" for text in [*FIFTY, "C[Se]C"]))
    model = MoleculeVAE(TOKENIZER, encoder="convolutional", n_latent=4, hidden=8, properties=["mass"])
    returned = model.fit(tmp_path / "more.csv", smiles="name", properties=["logD"], minutes=0.03)
    assert returned is model and model.properties == ["logD"] and not model.training
    assert model.metadata["training"]["n_unknown_tokens"] == 1
    assert model.predict(["CCO"]).columns.tolist() == ["logD"]
    assert model.prior is not None
