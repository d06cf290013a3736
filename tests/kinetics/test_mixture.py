"""Gaussian-mixture autoencoder: its bound against closed forms, clusters that are known, and what is refused."""

import signal

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import molml
from molml.kinetics import loss
from molml.kinetics.data import TimeLaggedDataset
from molml.kinetics.loss import GaussianMixtureLoss, GaussianMixturePrior
from molml.kinetics.mixture import GaussianMixtureVAE
from molml.training import TrainingInterrupted

SMALL = {"hidden": (8,), "max_epochs": 2, "progress": False}
ESTIMATOR = GaussianMixtureVAE(3, 2, **SMALL)


def accuracy(labels, found):
    """Fraction of frames in the right cluster, under the best naming of the clusters."""
    table = np.zeros((labels.max() + 1, found.max() + 1))
    np.add.at(table, (labels, found), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


@pytest.fixture(scope="module")
def arcs():
    """Three arcs of a circle seen in five dimensions, 300 frames each, in two trajectories, and which arc it is."""
    rng = np.random.default_rng(0)
    label = rng.permutation(np.repeat([0, 1, 2], 300))
    angle = rng.uniform(0.0, 1.0, 900) + 2.1 * label
    mixing = rng.normal(size=(2, 5))
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ mixing + 0.02 * rng.normal(size=(900, 5)) + 3.0
    return [x[:600], x[600:]], [label[:600], label[600:]]


@parametrize_with_checks([ESTIMATOR])
def test_convention_of_scikit_learn(estimator, check):
    check(estimator)


def test_prior_is_the_density_of_a_mixture():
    prior = GaussianMixturePrior(2, 3).double()
    rng = np.random.default_rng(0)
    mean, logvar, logits = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    prior.load_state_dict({k: torch.from_numpy(v) for k, v in (("mean", mean), ("logvar", logvar), ("logits", logits))})
    known = GaussianMixture(2, covariance_type="diag")
    known.weights_, known.means_ = np.exp(logits) / np.exp(logits).sum(), mean
    known.covariances_, known.precisions_cholesky_ = np.exp(logvar), np.exp(-0.5 * logvar)
    z = rng.normal(size=(20, 3))
    found = prior(torch.from_numpy(z)).detach()
    np.testing.assert_allclose(found.logsumexp(1).numpy(), known.score_samples(z), rtol=1e-12)
    np.testing.assert_allclose(torch.softmax(found, 1).numpy(), known.predict_proba(z), rtol=0, atol=1e-12)


def test_bound_is_the_closed_form_of_one_cluster():
    """With one standard normal cluster it is an ordinary variational autoencoder, whose divergence is known."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.7, -0.4, 0.3, -1.0]], dtype=torch.float64).expand(len(x), 4)

    class Zero(nn.Module):
        def forward(self, z):
            return torch.zeros(len(z), 3, dtype=torch.float64)

    model = nn.ModuleDict({"encoder": Constant(), "decoder": Zero(), "prior": GaussianMixturePrior(1, 2).double()})
    x = np.random.default_rng(0).normal(size=(40000, 3))
    torch.manual_seed(0)
    terms = GaussianMixtureLoss(6.0)(model.eval(), TimeLaggedDataset(x, 0))
    assert float(terms["error"].total) == pytest.approx(6.0 / 3 * np.square(x).sum(), rel=1e-12)
    variances = np.exp([0.3, -1.0])
    known = 0.5 * np.sum(variances + np.square([0.7, -0.4]) - 1 - np.log(variances))
    # one sample a frame; log p(z) has a standard deviation of about one
    assert float(terms["divergence"].total) / 40000 == pytest.approx(known, abs=5 / 200)
    assert terms["divergence"].count == terms["error"].count == 40000


def test_known_clusters_are_found(arcs):
    x, label = arcs
    model = GaussianMixtureVAE(3, 2, hidden=(30,), max_epochs=60, progress=False).fit(x)
    found = model.predict(x)
    assert [f.shape for f in found] == [(600,), (300,)]
    assert accuracy(np.concatenate(label), np.concatenate(found)) > 0.98
    probabilities = np.concatenate(model.predict_proba(x))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(1), np.concatenate(found))
    # control: labels that have nothing to do with it
    assert accuracy(np.random.default_rng(1).permutation(np.concatenate(label)), np.concatenate(found)) < 0.5
    # a price of information above all that can be told
    dear = GaussianMixtureVAE(3, 2, hidden=(30,), max_epochs=60, precision=0.01, progress=False).fit(x)
    assert accuracy(np.concatenate(label), np.concatenate(dear.predict(x))) < 0.9


def test_module_is_the_transformation(arcs):
    x, _ = arcs
    model = clone(ESTIMATOR).fit(x)
    np.testing.assert_array_equal(model.as_module()(torch.from_numpy(x[0])).numpy(), model.transform(x[0]))
    outputs = model.encoder_(torch.from_numpy(((x[0] - model.mean_) @ model.whitening_).astype(np.float32)))
    np.testing.assert_allclose(outputs.detach().numpy()[:, :2], model.transform(x[0]), atol=1e-4)


def test_same_seed_same_bits(arcs):
    x, _ = arcs
    before = torch.random.get_rng_state()
    first, same, other = (clone(ESTIMATOR).set_params(seed=s).fit(x) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.transform(x[0]), same.transform(x[0]))
    assert first.score(x) == same.score(x) != other.score(x)
    assert torch.equal(before, torch.random.get_rng_state())


def test_streams_and_lists_agree(arcs, streamed):
    x, _ = arcs
    model = clone(ESTIMATOR).fit(x)
    for a, b in zip(model.predict_proba(x), model.predict_proba(streamed(x, 70)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_array_equal(model.predict(x[1]), model.predict(x)[1])
    fitted = clone(ESTIMATOR).fit(streamed(x, 70))
    assert fitted.score(x) == pytest.approx(model.score(x), rel=1e-3)


def test_partial_fit_trains_on(arcs):
    x, _ = arcs
    model = clone(ESTIMATOR).partial_fit(x)
    before = model.score(x)
    np.testing.assert_array_equal(model.transform(x[0]), clone(ESTIMATOR).fit(x).transform(x[0]))
    for _ in range(5):
        model.partial_fit(x)
    assert model.score(x) > before


def test_file_holds_all(arcs, tmp_path):
    x, _ = arcs
    model = clone(ESTIMATOR).fit(x)
    model.save(tmp_path / "model.molml")
    loaded = molml.load(tmp_path / "model.molml")
    np.testing.assert_array_equal(loaded.predict_proba(x[0]), model.predict_proba(x[0]))
    assert loaded.score(x) == model.score(x)


def test_the_best_restart_is_kept(arcs):
    x, _ = arcs
    single = clone(ESTIMATOR).fit(x).history_
    kept = clone(ESTIMATOR).set_params(n_restarts=3).fit(x).history_
    best = [min(record["valid_objective"] for record in history) for history in (single, kept)]
    assert best[1] <= best[0]


@pytest.mark.parametrize("call", [5, 60])
def test_interruption_before_and_after_there_are_clusters(arcs, monkeypatch, call):
    x, _ = arcs
    calls = []
    for cls in (loss.ReconstructionLoss, loss.GaussianMixtureLoss):
        original = cls.__call__

        def counting(self, model, batch, original=original):
            calls.append(None)
            # in one batch only
            [signal.raise_signal(signal.SIGINT) for _ in range(len(calls) == call)]
            return original(self, model, batch)

        monkeypatch.setattr(cls, "__call__", counting)
    model = clone(ESTIMATOR).set_params(max_epochs=20)
    with pytest.raises(TrainingInterrupted):
        model.fit(x)
    assert len(calls) < call + 20
    # four epochs of nine batches are for the autoencoder alone
    assert hasattr(model, "prior_") == (call == 60)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be a whole number of at least 1, got 0"),
        ({"n_clusters": 901}, "n_clusters must be at most the number of frames, got n_clusters=901 for n_samples=900"),
        ({"precision": 0.0}, "precision must be positive, got 0.0"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1, got 0"),
        ({"activation": "sine"}, "activation must be one of tanh"),
    ],
)
def test_wrong_parameters_are_refused(arcs, parameters, message):
    with pytest.raises(ValueError, match=message):
        clone(ESTIMATOR).set_params(**parameters).fit(arcs[0])


def test_wrong_data_are_refused(arcs):
    x, _ = arcs
    with pytest.raises(ValueError, match=r"X must vary, got 2 feature\(s\) that are constant over n_samples=50 frames"):
        clone(ESTIMATOR).fit(np.full((50, 2), 0.1))
    model = clone(ESTIMATOR)
    for method in (model.transform, model.predict, model.predict_proba, model.score):
        with pytest.raises(NotFittedError):
            method(x)
    with pytest.raises(NotFittedError):
        model.as_module()
    model.fit(x)
    with pytest.raises(ValueError, match="5 features"):
        model.predict(x[0][:, :2])


@pytest.mark.long
def test_digits_are_clustered_better_than_by_k_means():
    x, label = load_digits(return_X_y=True)
    k_means = max(accuracy(label, KMeans(10, n_init=10, random_state=seed).fit_predict(x)) for seed in range(5))
    found = [accuracy(label, GaussianMixtureVAE(10, seed=seed, progress=False).fit_predict(x)) for seed in range(5)]
    assert min(found) > k_means
