"""Scores and correlations against counted chains, closed forms and other libraries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molml.kinetics.linear import TICA
from molml.kinetics.metrics import (
    canonical_correlations,
    implied_timescales,
    singular_value_score,
    vamp_score,
)
from molml.kinetics.systems import square_root_model


def processes(n, *, n_features=3, seed=0):
    """Correlated AR(1) processes."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_features))
    for t in range(1, n):
        z[t] += np.linspace(0.95, 0.3, n_features) * z[t - 1]
    return z @ rng.normal(size=(n_features, n_features))


@pytest.fixture(scope="module")
def square_root():
    system = square_root_model()
    return system, system.simulate(60_000, seed=0).trajectories[0]


# VAMP scores


@given(st.lists(st.integers(0, 1), min_size=6, max_size=60).filter(lambda s: len(set(s[1:])) == len(set(s[:-1])) == 2))
def test_score_of_two_states_from_their_counts(states):
    """One indicator: its only correlation is the second singular value of the scaled counts."""
    s = np.array(states)
    counts = np.zeros((2, 2))
    np.add.at(counts, (s[:-1], s[1:]), 1)
    scaled = counts / np.sqrt(np.outer(counts.sum(axis=1), counts.sum(axis=0)))
    expected = (np.linalg.svd(scaled)[1] ** 2).sum()
    assert vamp_score(s[:, None].astype(float), 1) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("r", [1, 2, 4.5])
def test_score_equals_deeptime(r):
    deeptime = pytest.importorskip("deeptime.decomposition")
    x = processes(2000)
    for lagtime in (1, 10):
        expected = deeptime.vamp_score_data(x[:-lagtime], x[lagtime:], r=r, epsilon=1e-10)
        assert vamp_score(x, lagtime, r=r) == pytest.approx(expected, rel=1e-8)
        assert vamp_score(x, lagtime + 1, r=r) != pytest.approx(expected, rel=1e-4)


def test_score_is_of_the_space_and_not_of_its_coordinates(streamed):
    x = processes(2000)
    mixed = x @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1e-4], [0.0, 0.0, 1e6]]) + 1e4
    assert vamp_score(mixed, 2) == pytest.approx(vamp_score(x, 2), rel=1e-8)
    assert vamp_score(np.c_[x, x[:, :1] + x[:, 1:2], np.ones(2000)], 2) == pytest.approx(vamp_score(x, 2), rel=1e-8)
    assert 1 < vamp_score(x[:, :1], 2) < vamp_score(x[:, :2], 2) < vamp_score(x, 2) < 4
    assert vamp_score(streamed([x, x[:700]], 300), 2) == pytest.approx(vamp_score([x, x[:700]], 2), rel=1e-12)
    narrow = x.astype(np.float32)
    assert vamp_score(narrow, 2) == pytest.approx(vamp_score(narrow.astype(float), 2), rel=1e-6)


def test_coordinates_that_do_not_vary_score_one():
    assert vamp_score(np.ones((50, 2)), 3) == 1.0
    assert vamp_score(np.full((50, 2), 0.1, np.float32), 3) == 1.0
    # changes in the first frame only: constant at t + lagtime
    assert vamp_score(np.r_[1.0, np.zeros(49)][:, None], 3) == 1.0


def test_score_of_the_exact_slow_function(square_root):
    """The best coordinate of the square-root system scores what theory says; the raw ones do not."""
    system, x = square_root
    exact = system.vamp2(1, 1)
    # λ is 0.9 and its standard error over n frames √(1 − λ²) / √n = 0.0018
    assert vamp_score(system.slow_function(x)[:, None], 1) == pytest.approx(exact, abs=4 * 2 * 0.9 * 0.0018)
    assert exact == pytest.approx(1.81, abs=1e-3)
    assert vamp_score(x, 1) < 1.4
    assert TICA(1, 1).fit(x[:30_000]).score(x[30_000:]) < 1.4


def test_scores_of_singular_values():
    koopman = np.diag([0.5, 0.25])
    assert singular_value_score(koopman) == 1.3125
    assert singular_value_score(koopman, r=1) == 1.75
    assert singular_value_score(koopman[::-1] * -1) == 1.3125
    assert singular_value_score(np.zeros((0, 2))) == 1.0


# canonical correlations


def test_correlations_of_known_mixtures():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100_000, 5))
    a = z[:, :2]
    b = np.c_[0.6 * z[:, 0] + 0.8 * z[:, 2], z[:, 3], 0.3 * z[:, 1] + np.sqrt(1 - 0.09) * z[:, 4]]
    # standard error of a correlation ρ: (1 − ρ²) / √n
    np.testing.assert_allclose(canonical_correlations(a, b), [0.6, 0.3], atol=4 / np.sqrt(1e5))
    np.testing.assert_allclose(canonical_correlations(b, a), canonical_correlations(a, b), atol=1e-12)
    rotated = b @ rng.normal(size=(3, 3)) + 5.0
    np.testing.assert_allclose(canonical_correlations(a, rotated), canonical_correlations(a, b), atol=1e-10)
    lists = canonical_correlations([a[:10], a[10:]], [b[:10], b[10:]])
    np.testing.assert_allclose(lists, canonical_correlations(a, b), atol=1e-12)
    np.testing.assert_allclose(canonical_correlations(a[:, :1], b[:, :1])[0], np.corrcoef(a[:, 0], b[:, 0])[0, 1])


def test_correlations_that_are_not_defined_are_zero():
    x = processes(100)
    np.testing.assert_array_equal(canonical_correlations(np.ones((100, 2)), x), [0.0, 0.0])
    np.testing.assert_allclose(canonical_correlations(x[:, [0, 0]], x), [1.0, 0.0], atol=1e-10)
    assert canonical_correlations(x, x).max() <= 1.0


# timescales


def test_timescales_of_exponential_decays():
    t = np.array([1000.0, 10.0, 0.3])
    np.testing.assert_allclose(implied_timescales(np.exp(-5 / t), 5), t, rtol=1e-10)
    np.testing.assert_array_equal(implied_timescales(np.array([1.0, 1.5, 0.0, -0.5]), 2), [np.inf, np.inf, 0.0, 0.0])
    np.testing.assert_allclose(implied_timescales(np.array([0.3 + 0.4j, -0.5 + 0j]), 2.5), [-2.5 / np.log(0.5), 0.0])
    assert implied_timescales(np.zeros(0), 1).shape == (0,)


def test_what_cannot_be_measured(streamed):
    x = processes(100)
    for r in (0.9, -1, np.nan, True, "E"):
        with pytest.raises(ValueError, match="r must be a number of at least 1"):
            vamp_score(x, 1, r=r)
        with pytest.raises(ValueError, match="r must be a number of at least 1"):
            singular_value_score(np.eye(2), r=r)
    with pytest.raises(ValueError, match="lagtime must be a whole number of frames, at least 1"):
        vamp_score(x, 0)
    with pytest.raises(ValueError, match="shorter than every trajectory"):
        vamp_score(x, 100)
    with pytest.raises(ValueError, match="NaN"):
        vamp_score(np.where(x > 1, np.nan, x), 1)
    with pytest.raises(ValueError, match=r"same frames, got \[100\] and \[99\]"):
        canonical_correlations(x, x[1:])
    with pytest.raises(ValueError, match="B must be finite"):
        canonical_correlations(x, np.where(x > 1, np.inf, x))
    with pytest.raises(TypeError, match="A must be arrays"):
        canonical_correlations(streamed([x], 300), x)
    with pytest.raises(ValueError, match="eigenvalues must be finite"):
        implied_timescales(np.array([np.nan]), 1)
    for lagtime in (0, -1, np.inf):
        with pytest.raises(ValueError, match="lagtime must be positive"):
            implied_timescales(np.array([0.5]), lagtime)
