"""What all estimators made of networks promise, and what they refuse."""

import signal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import molml
from molml.kinetics import loss
from molml.kinetics.autoencoders import Autoencoder, TimeLaggedAutoencoder, VariationalTimeLaggedAutoencoder
from molml.kinetics.linear import PCA
from molml.kinetics.vampnets import ReversibleVAMPNet, VAMPNet
from molml.training import TrainingInterrupted

SMALL = {"hidden": (8,), "max_epochs": 2, "progress": False}
LOSSES = {
    Autoencoder(1, **SMALL): loss.ReconstructionLoss,
    TimeLaggedAutoencoder(1, 1, **SMALL): loss.ReconstructionLoss,
    VariationalTimeLaggedAutoencoder(1, 1, **SMALL): loss.VariationalLoss,
    VAMPNet(1, 1, **SMALL): loss.VAMPLoss,
    ReversibleVAMPNet(1, 1, **SMALL): loss.VAMPLoss,
}
ESTIMATORS = list(LOSSES)
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


@parametrize_with_checks(ESTIMATORS)
def test_convention_of_scikit_learn(estimator, check):
    check(estimator)


@each
def test_coordinates_are_uncorrelated_and_of_variance_one(estimator, trajectories):
    z = np.concatenate(clone(estimator).set_params(n_components=3).fit(trajectories).transform(trajectories))
    # those of the frames that begin or end a pair
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(3), atol=1e-2)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-2)


@each
def test_module_is_the_transformation(estimator, trajectories):
    fitted = clone(estimator).set_params(n_components=2, hidden=(8, 5)).fit(trajectories)
    network = fitted.as_module()
    assert [type(m).__name__ for m in network] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    x = trajectories[0]
    np.testing.assert_array_equal(network(torch.from_numpy(x)).numpy(), fitted.transform(x))
    # and its encoder in single precision, to the precision of that
    u = ((x - fitted.mean_) @ fitted.whitening_.T).astype(np.float32)
    outputs = fitted.encoder_(torch.from_numpy(u)).detach().double().numpy()
    np.testing.assert_allclose(outputs @ fitted.rotation_.T + fitted.shift_, fitted.transform(x), atol=2e-4)


@each
def test_same_seed_same_bits(estimator, trajectories):
    before = torch.random.get_rng_state()
    first, same, other = (clone(estimator).set_params(seed=s).fit(trajectories) for s in (3, 3, 4))
    a, b, c = (e.transform(trajectories[0]) for e in (first, same, other))
    assert np.array_equal(a, b) and not np.allclose(np.abs(a), np.abs(c), atol=1e-3)
    assert first.history_[-1]["train_objective"] == same.history_[-1]["train_objective"]
    # nobody else's random numbers were touched
    assert torch.equal(before, torch.random.get_rng_state())


@each
def test_same_kind_back(estimator, trajectories, streamed):
    fitted = clone(estimator).fit(trajectories)
    listed = fitted.transform(trajectories)
    assert isinstance(listed, list) and [z.shape for z in listed] == [(2000, 1), (1000, 1)]
    assert all(z.dtype == np.float64 for z in listed)
    np.testing.assert_array_equal(fitted.transform(trajectories[1]), listed[1])
    pieces = fitted.transform(streamed(trajectories))
    for z, s in zip(listed, pieces, strict=True):
        np.testing.assert_allclose(z, s, rtol=0, atol=1e-12)


@each
def test_streams_are_fitted_like_arrays(estimator, trajectories, streamed):
    arrays, pieces = clone(estimator).fit(trajectories), clone(estimator).fit(streamed(trajectories))
    # frames in single precision differ in the last digit, which training makes larger
    np.testing.assert_allclose(arrays.transform(trajectories[0]), pieces.transform(trajectories[0]), atol=1e-2)
    assert arrays.score(trajectories) == pytest.approx(pieces.score(streamed(trajectories)), abs=1e-3)


@each
def test_partial_fit_trains_on(estimator, trajectories, oscillators):
    more = oscillators(1500, seed=7)
    once = clone(estimator).partial_fit(trajectories)
    fitted = clone(estimator).fit(trajectories)
    np.testing.assert_array_equal(once.transform(trajectories[0]), fitted.transform(trajectories[0]))
    before, mean = once.score(more), once.mean_.copy()
    for _ in range(3):
        once.partial_fit(more)
    assert once.score(more) > before
    np.testing.assert_array_equal(once.mean_, mean)


@each
def test_file_holds_all(estimator, trajectories, tmp_path):
    fitted = clone(estimator).set_params(n_components=2).fit(trajectories)
    fitted.save(tmp_path / "model.molml", {"lag": "1 ps"})
    loaded = molml.load(tmp_path / "model.molml")
    assert type(loaded) is type(fitted)
    np.testing.assert_array_equal(loaded.transform(trajectories[0]), fitted.transform(trajectories[0]))
    assert loaded.score(trajectories) == fitted.score(trajectories)
    # and goes on
    assert loaded.partial_fit(trajectories).score(trajectories) > fitted.score(trajectories) - 0.1


@each
def test_the_best_restart_is_kept(estimator, trajectories):
    objectives = [
        min(record["valid_objective"] for record in clone(estimator).set_params(seed=s).fit(trajectories).history_)
        for s in (0, 1)
    ]
    # held-out blocks follow the seed of the estimator, so that the second restart is judged like the first
    kept = clone(estimator).set_params(n_restarts=3, max_epochs=1).fit(trajectories)
    single = clone(estimator).set_params(max_epochs=1).fit(trajectories)
    assert kept.history_[0]["valid_objective"] <= single.history_[0]["valid_objective"]
    assert objectives[0] != objectives[1]


@pytest.mark.parametrize(("estimator", "cls"), LOSSES.items(), ids=lambda e: type(e).__name__)
def test_after_an_interruption_the_estimator_is_fitted(estimator, cls, trajectories, monkeypatch):
    original, calls = cls.__call__, []

    def counting(self, model, batch):
        calls.append(None)
        # in the fortieth batch only
        [signal.raise_signal(signal.SIGINT) for _ in range(len(calls) == 40)]
        return original(self, model, batch)

    monkeypatch.setattr(cls, "__call__", counting)
    interrupted = clone(estimator).set_params(max_epochs=1000)
    with pytest.raises(TrainingInterrupted, match="was interrupted by SIGINT in epoch"):
        interrupted.fit(trajectories)
    assert len(calls) < 60
    assert interrupted.transform(trajectories[0]).shape == (2000, 1)
    monkeypatch.undo()
    assert np.isfinite(interrupted.set_params(max_epochs=1).partial_fit(trajectories).score(trajectories))


@each
def test_minutes_end_the_training(estimator, trajectories):
    fitted = clone(estimator).set_params(max_epochs=100000, minutes=0.005).fit(trajectories)
    assert 0 < len(fitted.history_) < 1000


@each
def test_patience_ends_the_training(estimator):
    noise = np.random.default_rng(0).normal(size=(300, 3))
    fitted = clone(estimator).set_params(hidden=(50,), max_epochs=3000, patience=5, n_components=1).fit(noise)
    assert len(fitted.history_) < 3000


@each
def test_held_out_blocks_decide(estimator, trajectories):
    with_valid = clone(estimator).fit(trajectories)
    without = clone(estimator).set_params(valid_fraction=0.0).fit(trajectories)
    assert "valid_objective" in with_valid.history_[0] and "valid_objective" not in without.history_[0]


@each
def test_works_in_a_pipeline_and_in_a_grid_search(estimator, trajectories):
    pipeline = make_pipeline(PCA(3), clone(estimator))
    assert pipeline.fit(trajectories).transform(trajectories)[0].shape == (2000, 1)
    search = GridSearchCV(clone(estimator), {"n_components": np.array([1, 2])}, cv=KFold(2)).fit(trajectories)
    assert search.transform(trajectories)[1].shape == (1000, search.best_params_["n_components"])


@each
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1, got 0"),
        (
            {"n_components": 6, "hidden": ()},
            "n_components must be at most 5, the rank of the frames, for a linear network",
        ),
        ({"hidden": (0,)}, "n_in, hidden and n_out must be at least 1"),
        ({"activation": "sine"}, "activation must be one of tanh, logistic, silu, relu, softsign, got 'sine'"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"valid_fraction": 1.0}, "valid_fraction must be in 0 <= valid_fraction < 1, got 1.0"),
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
        ({"n_restarts": 0}, "n_restarts must be a whole number of at least 1, got 0"),
        ({"minutes": -1.0}, "minutes must be positive, got -1.0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_wrong_parameters_are_refused(estimator, parameters, message, trajectories):
    with pytest.raises(ValueError, match=message):
        clone(estimator).set_params(**parameters).fit(trajectories)


@each
def test_wrong_data_are_refused(estimator, trajectories):
    with pytest.raises(ValueError, match="X must vary, got 2 feature"):
        clone(estimator).fit(np.ones((100, 2)))
    with pytest.raises(NotFittedError):
        clone(estimator).transform(trajectories)
    with pytest.raises(NotFittedError):
        clone(estimator).as_module()
    fitted = clone(estimator).fit(trajectories)
    for method in (fitted.transform, fitted.score, fitted.partial_fit):
        with pytest.raises(ValueError, match="6 features"):
            method(trajectories[0][:, :3])
    broken = trajectories[0].copy()
    broken[7, 2] = np.nan
    for method in (fitted.transform, fitted.score, fitted.partial_fit, clone(estimator).fit):
        with pytest.raises(ValueError, match="trajectory 0, frame 7, feature 2"):
            method(broken)


@pytest.mark.parametrize("estimator", ESTIMATORS[1:], ids=lambda e: type(e).__name__)
def test_lag_times_are_checked(estimator, trajectories):
    for lagtime in (0, -1, 1.5):
        with pytest.raises(ValueError, match="lagtime must be a whole number"):
            clone(estimator).set_params(lagtime=lagtime).fit(trajectories)
    with pytest.raises(ValueError, match="lagtime must be shorter than every trajectory, got lagtime=1000"):
        clone(estimator).set_params(lagtime=1000).fit(trajectories)
    fitted = clone(estimator).fit(trajectories)
    assert fitted.timescales(1).shape == (1,)
    with pytest.raises(ValueError, match="n must be at most 1, the number of components, got 2"):
        fitted.timescales(2)
    with pytest.raises(NotFittedError):
        clone(estimator).timescales()
