"""Autoencoders: linear ones against closed forms, curved ones on systems with known answers, and what is refused."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from molml.kinetics.autoencoders import Autoencoder, TimeLaggedAutoencoder, VariationalTimeLaggedAutoencoder
from molml.kinetics.linear import PCA, TICA
from molml.kinetics.metrics import canonical_correlations
from molml.kinetics.systems import square_root_model, swiss_roll_model

SMALL = {"hidden": (8,), "max_epochs": 2, "progress": False}
# of the whole data, as the closed forms are; a thousand steps of full precision
LINEAR = {"hidden": (), "valid_fraction": 0.0, "batch_size": 300, "max_epochs": 100, "progress": False}


def test_linear_autoencoder_is_pca(trajectories, angles):
    autoencoder, pca = Autoencoder(2, **LINEAR).fit(trajectories), PCA(2).fit(trajectories)
    z, known = autoencoder.transform(trajectories), pca.transform(trajectories)
    # Adam stops a little before the optimum
    assert angles(z, known).max() < 0.1
    assert autoencoder.score(trajectories) == pytest.approx(pca.score(trajectories), abs=1e-5)
    # the coordinates are the components, in their order, scaled to variance one
    known = np.concatenate(known) / np.std(np.concatenate(known), axis=0)
    correlation = known.T @ np.concatenate(z) / len(known)
    np.testing.assert_allclose(np.abs(correlation), np.eye(2), atol=5e-3)
    # control: the slow directions are others than those of large variance
    assert angles(z, TICA(1, 2).fit(trajectories).transform(trajectories)).max() > 20


def reduced_rank(trajectories, lagtime, n):
    """Coordinates of the best linear prediction of whitened later frames by n numbers, and its error."""
    x, y = (np.concatenate([t[s] for t in trajectories]) for s in (slice(None, -lagtime), slice(lagtime, None)))
    d = x.shape[1]
    c = np.cov(x.T, y.T, bias=True)

    def white(part):
        values, vectors = np.linalg.eigh(part)
        kept = values > 1e-10 * values[-1]
        return vectors[:, kept] / np.sqrt(values[kept])

    left = white(c[:d, :d])
    u, s, _ = np.linalg.svd(left.T @ c[:d, d:] @ white(c[d:, d:]))
    return [(t - x.mean(0)) @ left @ u[:, :n] for t in trajectories], np.sum(s[:n] ** 2) / len(s)


def test_linear_time_lagged_autoencoder_is_reduced_rank_regression(trajectories, angles):
    tae = TimeLaggedAutoencoder(2, 2, **LINEAR).fit(trajectories)
    known, explained = reduced_rank(trajectories, 2, 2)
    assert angles(tae.transform(trajectories), known).max() < 1.0
    assert tae.score(trajectories) == pytest.approx(explained, abs=1e-4)
    # nearly TICA, which takes the pairs in both directions of time
    tica = TICA(2, 2).fit(trajectories)
    assert angles(tae.transform(trajectories), tica.transform(trajectories)).max() < 5.0
    np.testing.assert_allclose(tae.timescales(), tica.timescales()[:2], rtol=0.02)
    # control: not what varies most
    assert angles(tae.transform(trajectories), PCA(2).fit(trajectories).transform(trajectories)).max() > 20


def test_variational_encoder_is_linear_too_and_constant_if_information_is_too_dear(trajectories, angles):
    cheap = VariationalTimeLaggedAutoencoder(2, 2, beta=1e-4, **LINEAR).fit(trajectories)
    known, explained = reduced_rank(trajectories, 2, 2)
    assert angles(cheap.transform(trajectories), known).max() < 5.0
    dear = VariationalTimeLaggedAutoencoder(2, 2, beta=100.0, **LINEAR).fit(trajectories)
    assert dear.score(trajectories) < 0.05 < explained < cheap.score(trajectories) + 0.01


def test_time_lagged_autoencoder_finds_the_slow_function_of_the_square_root_model(square_root):
    x, slow = square_root
    tae = TimeLaggedAutoencoder(1, 1, hidden=(50, 30), max_epochs=15, progress=False).fit(x)
    assert canonical_correlations(tae.transform(x), slow)[0] > 0.95
    # λ = 0.9, and the coordinate is not quite the slow function
    assert 0.7 * 9.4912 < tae.timescales()[0] < 1.05 * 9.4912
    # controls: no linear coordinate does, nor one that is not told what time is
    assert canonical_correlations(TICA(1, 1).fit(x).transform(x), slow)[0] < 0.8
    assert canonical_correlations(PCA(1).fit(x).transform(x), slow)[0] < 0.1
    autoencoder = Autoencoder(1, hidden=(50, 30), max_epochs=5, progress=False).fit(x)
    assert canonical_correlations(autoencoder.transform(x), slow)[0] < 0.3


def test_variational_autoencoder_finds_the_slow_function_of_the_square_root_model(square_root):
    x, slow = square_root
    tae = VariationalTimeLaggedAutoencoder(1, 1, hidden=(50, 30), max_epochs=15, progress=False).fit(x)
    assert canonical_correlations(tae.transform(x), slow)[0] > 0.95


def test_time_lagged_autoencoder_follows_what_varies_most_on_the_swiss_roll():
    """Its known failure: one coordinate of the swiss roll is the fast motion along the roll's long side."""
    system = swiss_roll_model()
    x = system.simulate(10000, seed=0).trajectories[0]
    tae = TimeLaggedAutoencoder(1, 1, hidden=(50, 30), max_epochs=10, progress=False).fit(x)
    assert canonical_correlations(tae.transform(x), system.slow_function(x)[:, None])[0] < 0.8
    assert tae.timescales()[0] < 0.5 * system.timescales(1)[0]


def test_autoencoder_rebuilds_a_curve_that_pca_does_not():
    angle = np.random.default_rng(0).uniform(0.0, 3.0, 3000)
    x = np.stack([np.cos(angle), np.sin(angle), 0.3 * angle], axis=1)
    autoencoder = Autoencoder(1, hidden=(30,), max_epochs=40, progress=False).fit(x)
    assert autoencoder.score(x) > 0.99 > 0.95 > PCA(1).fit(x).score(x)
    rebuilt = autoencoder.inverse_transform(autoencoder.transform(x))
    known = 1 - np.square(x - rebuilt).sum() / np.square(x - x.mean(0)).sum()
    assert autoencoder.score(x) == pytest.approx(known, rel=1e-10)


def test_price_of_information_is_positive(trajectories):
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        VariationalTimeLaggedAutoencoder(1, 1, beta=0.0, **SMALL).fit(trajectories)


def test_wrong_coordinates_are_refused(trajectories):
    fitted = Autoencoder(2, **SMALL).fit(trajectories)
    with pytest.raises(ValueError, match="2 features"):
        fitted.inverse_transform(np.zeros((3, 1)))
    with pytest.raises(NotFittedError):
        Autoencoder(2).inverse_transform(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="X must vary"):
        fitted.score(np.ones((10, 6)))


@pytest.mark.long
def test_worst_of_five_seeds_on_the_square_root_model():
    system = square_root_model()
    worst = 1.0
    for seed in range(5):
        x = system.simulate(10000, seed=seed).trajectories[0]
        tae = TimeLaggedAutoencoder(1, 1, seed=seed, progress=False).fit(x)
        worst = min(worst, canonical_correlations(tae.transform(x), system.slow_function(x)[:, None])[0])
    assert worst >= 0.95
