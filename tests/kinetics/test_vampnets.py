"""VAMPnets: linear ones against TICA and VAMP, curved ones on systems with known answers, and what is refused."""

import signal
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import molml
from molml.kinetics import loss
from molml.kinetics.autoencoders import TimeLaggedAutoencoder
from molml.kinetics.linear import PCA, TICA, VAMP
from molml.kinetics.metrics import canonical_correlations, vamp_score
from molml.kinetics.systems import beltway, square_root_model, swiss_roll_model
from molml.kinetics.vampnets import ReversibleVAMPNet, VAMPNet
from molml.training import TrainingInterrupted

ALANINE = Path(__file__).parents[2].parent / "shared" / "data" / "md" / "600K"
SMALL = {"hidden": (8,), "max_epochs": 2, "progress": False}
ESTIMATORS = [VAMPNet(1, 1, **SMALL), ReversibleVAMPNet(1, 1, **SMALL)]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


class Pieces:
    """Arrays as a streamed source that gives pieces of 700 frames."""

    def __init__(self, arrays):
        self.arrays, self.lengths, self.n_features = arrays, [len(x) for x in arrays], arrays[0].shape[1]

    def blocks(self, index, n_frames):
        for start in range(0, len(self.arrays[index]), 700):
            yield self.arrays[index][start : start + 700]


def oscillators(*lengths, seed=0):
    """AR(1) processes with autocorrelations 0.95, 0.8, 0.5, 0.2 and 0, mixed into six features of rank five."""
    rng = np.random.default_rng(seed)
    rho = np.array([0.95, 0.8, 0.5, 0.2, 0.0])
    mixing = np.random.default_rng(1).normal(size=(5, 6)) * [1.0, 3.0, 0.5, 2.0, 1.0, 1.0]
    result = []
    for n in lengths:
        z = rng.normal(size=(n, 5))
        z[1:] *= np.sqrt(1 - rho**2)
        for t in range(1, n):
            z[t] += rho * z[t - 1]
        result.append(z @ mixing + 5.0)
    return result


@pytest.fixture(scope="module")
def trajectories():
    return oscillators(2000, 1000)


@parametrize_with_checks(ESTIMATORS)
def test_convention_of_scikit_learn(estimator, check):
    check(estimator)


def angles(A, B):
    """Between the spaces of two sets of coordinates, degrees."""
    A, B = np.concatenate(A), np.concatenate(B)
    return np.degrees(scipy.linalg.subspace_angles(A - A.mean(0), B - B.mean(0)))


# of the whole data, as the closed forms are, in one batch
LINEAR = {"hidden": (), "valid_fraction": 0.0, "batch_size": 3000, "max_epochs": 300, "progress": False}


def test_linear_reversible_network_is_tica(trajectories):
    network, tica = ReversibleVAMPNet(2, 2, **LINEAR).fit(trajectories), TICA(2, 2, scaling=None).fit(trajectories)
    z, known = network.transform(trajectories), tica.transform(trajectories)
    assert angles(z, known).max() < 0.5
    np.testing.assert_allclose(network.eigenvalues_, tica.eigenvalues_, atol=1e-4)
    np.testing.assert_allclose(network.timescales(), tica.timescales(), rtol=2e-3)
    correlation = np.concatenate(known).T @ np.concatenate(z) / 3000
    np.testing.assert_allclose(np.abs(correlation), np.eye(2), atol=2e-2)
    # control
    assert angles(z, PCA(2).fit(trajectories).transform(trajectories)).max() > 20


def test_linear_network_is_vamp(trajectories):
    network, vamp = VAMPNet(2, 2, **LINEAR).fit(trajectories), VAMP(2, 2).fit(trajectories)
    assert angles(network.transform(trajectories), vamp.transform(trajectories)).max() < 1.0
    known = vamp_score(vamp.transform(trajectories), 2)
    assert network.score(trajectories) == pytest.approx(known, abs=1e-3)


def test_score_is_that_of_the_coordinates_and_at_most_one_more_than_their_number(trajectories):
    for estimator in ESTIMATORS:
        fitted = clone(estimator).set_params(n_components=2).fit(trajectories)
        assert fitted.score(trajectories) == vamp_score(fitted.transform(trajectories), 1)
        assert 1.0 < fitted.score(trajectories) < 3.0


@pytest.fixture(scope="module")
def square_root():
    system = square_root_model()
    x = system.simulate(10000, seed=0).trajectories[0]
    return x, system.slow_function(x)[:, None]


@pytest.mark.parametrize("cls", [VAMPNet, ReversibleVAMPNet])
def test_slow_function_of_the_square_root_model(square_root, cls):
    x, slow = square_root
    network = cls(1, 1, max_epochs=40, progress=False).fit(x)
    assert canonical_correlations(network.transform(x), slow)[0] > 0.99
    # the sampling error of the timescale is 4 %
    assert network.timescales()[0] == pytest.approx(9.4912, rel=0.15)
    assert network.score(x) > 1.75
    # control
    assert canonical_correlations(TICA(1, 1).fit(x).transform(x), slow)[0] < 0.8


def test_slowest_function_of_the_swiss_roll_where_a_time_lagged_autoencoder_follows_another():
    system = swiss_roll_model()
    x = system.simulate(20000, seed=0).trajectories[0]
    slow = system.slow_function(x)[:, None]
    network = ReversibleVAMPNet(1, 1, max_epochs=15, progress=False).fit(x)
    assert canonical_correlations(network.transform(x), slow)[0] > 0.99
    tae = TimeLaggedAutoencoder(1, 1, hidden=(50, 30), max_epochs=5, progress=False).fit(x)
    assert canonical_correlations(tae.transform(x), slow)[0] < 0.8


def test_rotating_dynamics_have_timescales_too():
    """A noisy circular motion: its eigenvalues are complex, and symmetrised in time they are smaller."""
    rng = np.random.default_rng(0)
    turn = 0.95 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    x = np.zeros((10000, 2))
    for t in range(1, len(x)):
        x[t] = turn @ x[t - 1] + rng.normal(size=2)
    options = {**LINEAR, "batch_size": 9999, "max_epochs": 100}
    forward, reversible = VAMPNet(1, 2, **options).fit(x), ReversibleVAMPNet(1, 2, **options).fit(x)
    np.testing.assert_allclose(forward.timescales(), -1 / np.log(0.95), rtol=0.1)
    np.testing.assert_allclose(reversible.eigenvalues_, 0.95 * np.cos(0.6), atol=0.02)


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
def test_same_kind_back(estimator, trajectories):
    fitted = clone(estimator).fit(trajectories)
    listed = fitted.transform(trajectories)
    assert isinstance(listed, list) and [z.shape for z in listed] == [(2000, 1), (1000, 1)]
    assert all(z.dtype == np.float64 for z in listed)
    np.testing.assert_array_equal(fitted.transform(trajectories[1]), listed[1])
    streamed = fitted.transform(Pieces(trajectories))
    for z, s in zip(listed, streamed, strict=True):
        np.testing.assert_allclose(z, s, rtol=0, atol=1e-12)


@each
def test_streams_are_fitted_like_arrays(estimator, trajectories):
    arrays, streamed = clone(estimator).fit(trajectories), clone(estimator).fit(Pieces(trajectories))
    # frames in single precision differ in the last digit, which training makes larger
    np.testing.assert_allclose(arrays.transform(trajectories[0]), streamed.transform(trajectories[0]), atol=1e-2)
    assert arrays.score(trajectories) == pytest.approx(streamed.score(Pieces(trajectories)), abs=1e-3)


@each
def test_partial_fit_trains_on(estimator, trajectories):
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


@each
def test_after_an_interruption_the_estimator_is_fitted(estimator, trajectories, monkeypatch):
    cls = loss.VAMPLoss
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


@each
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


def test_copies_of_a_coordinate_are_refused():
    states = np.repeat(np.random.default_rng(0).integers(0, 2, 300), 10)[:, None].astype(float)
    # two states have one function besides the constant
    with pytest.raises(ValueError, match="n_components must be at most 1 for this network and these frames, got 2"):
        ReversibleVAMPNet(1, 2, **SMALL).fit(states)
    assert ReversibleVAMPNet(1, 1, **SMALL).fit(states).transform(states).std() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("system", "n_frames", "stride", "lagtime"),
    [(square_root_model(), 10000, 1, 1), (swiss_roll_model(), 30000, 1, 1), (beltway(), 5000000, 100, 10)],
    ids=["square root", "swiss roll", "beltway"],
)
def test_worst_of_five_seeds(system, n_frames, stride, lagtime):
    for seed in range(5):
        x = system.simulate(n_frames, seed=seed).trajectories[0][::stride]
        slow = system.slow_function(x)[:, None]
        network = ReversibleVAMPNet(lagtime, 1, seed=seed, progress=False).fit(x)
        assert canonical_correlations(network.transform(x), slow)[0] >= 0.99
        network = VAMPNet(lagtime, 1, seed=seed, progress=False).fit(x)
        assert network.score(x) >= system.vamp2(lagtime * stride, 1) - 0.03


@pytest.mark.long
@pytest.mark.skipif(not ALANINE.is_dir(), reason=f"{ALANINE} is absent")
def test_alanine_dipeptide():
    """Aligned Cartesians: correlation with the φ state on runs that were held out, and the timescale of torsions."""
    import mdtraj

    from molml.kinetics import KMeans, MarkovStateModel, align

    runs = [mdtraj.load(path, top=ALANINE / "ala2-heavy.pdb") for path in sorted(ALANINE.glob("*.xtc"))]
    torsions = [np.stack([mdtraj.compute_phi(r)[1][:, 0], mdtraj.compute_psi(r)[1][:, 0]], axis=1) for r in runs]
    state = [((t[:, :1] > 0) & (t[:, :1] < 2.2)).astype(float) for t in torsions]
    circles = [np.concatenate([np.cos(t), np.sin(t)], axis=1) for t in torsions]
    aligned = [10.0 * align(r, runs[0][0]).xyz.reshape(len(r), -1) for r in runs]
    cells = KMeans(200, seed=0).fit(circles[:4])
    known = MarkovStateModel(25).fit(cells.predict(circles[:4])).timescales()[0]
    network = ReversibleVAMPNet(25, 2, progress=False).fit(aligned[:4])
    assert network.timescales()[0] == pytest.approx(known, rel=0.08)
    assert canonical_correlations(network.transform(aligned[4:]), state[4:])[0] >= 0.99
