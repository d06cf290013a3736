"""Tests of being Markovian: on chains that are, and on one that is not."""

import numpy as np
import pytest
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.kinetics.bayesian import BayesianMarkovStateModel
from molml.kinetics.counting import transition_counts
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.metastable import pcca
from molml.kinetics.validation import Resamples, chapman_kolmogorov, implied_timescales


@pytest.fixture(scope="module")
def chain():
    """Two wells of three states each."""
    flows = np.array(
        [
            [50, 9, 2, 0, 0, 0],
            [9, 40, 8, 0, 0, 0],
            [2, 8, 30, 1, 0, 0],
            [0, 0, 1, 30, 7, 1],
            [0, 0, 0, 7, 35, 9],
            [0, 0, 0, 1, 9, 45],
        ]
    )
    return MarkovStateModel().fit_counts(flows)


@pytest.fixture(scope="module")
def dtrajs(chain):
    return [chain.simulate(n, seed=seed) for seed, n in enumerate((30_000, 20_000))]


@pytest.fixture(scope="module")
def lumped(dtrajs):
    """A cut through the middle of a well: what one sees is no Markov chain."""
    return [(states >= 2).astype(int) for states in dtrajs]


def test_timescales_of_a_markov_chain_do_not_depend_on_the_lag_time(chain, dtrajs):
    found = implied_timescales(dtrajs, [1, 2, 5, 10, 20], n_timescales=2)
    exact = chain.timescales(1)[0]
    assert found.timescales.shape == found.low.shape == (5, 2)
    assert (found.low[:, 0] < exact).all() and (exact < found.high[:, 0]).all()
    np.testing.assert_array_equal(found.lagtimes, [1, 2, 5, 10, 20])
    np.testing.assert_array_equal(found.n_active, 6)
    np.testing.assert_array_equal(found.active_count_fraction, 1)
    for k, lag in enumerate(found.lagtimes):
        np.testing.assert_allclose(found.timescales[k], MarkovStateModel(int(lag)).fit(dtrajs).timescales(2), rtol=1e-8)


def coverage(chain, observe, lagtime, n_seeds=100) -> np.ndarray:
    """Part of the simulations whose intervals contain the exact timescales."""
    exact = chain.timescales(2)
    inside = []
    for seed in range(n_seeds):
        states = observe(chain.simulate(6000, seed=seed))
        found = implied_timescales(states, [lagtime], n_timescales=2, n_samples=60, seed=seed)
        inside.append((found.low[0] < exact) & (exact < found.high[0]))
    return np.mean(inside, axis=0)


# of a hundred that are right with probability 0.95, less than 85 are in one case of 100,000
@pytest.mark.parametrize("lagtime", [1, 5])
def test_intervals_contain_the_exact_timescales_as_often_as_they_say(chain, lagtime):
    found = coverage(chain, lambda states: states, lagtime)
    assert (found >= 0.85).all() and (found < 1).all()


def test_intervals_of_a_bad_discretisation_do_not_contain_them(chain):
    # control: a model that is wrong is not helped by its intervals
    found = coverage(chain, lambda states: np.where(states == 2, 3, states), 1, n_seeds=20)
    assert found[0] < 0.2


def test_intervals_of_frames_that_come_several_times(chain):
    """Every frame ten times, seen every ten frames: the same data must give the same interval, ten times as long."""
    states = chain.simulate(6000, seed=0)
    once = implied_timescales(states, [1], n_timescales=2)
    often = implied_timescales(np.repeat(states, 10), [10], n_timescales=2)
    widths = [np.log(found.high / found.low) for found in (once, often)]
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.15)
    # control: counts that are taken for independent give narrower ones
    posterior = BayesianMarkovStateModel(10, counting="sliding").fit(np.repeat(states, 10))
    taken = posterior.posterior(lambda model: model.timescales(2))
    assert (np.log(taken.high / taken.low) < 0.5 * widths[1]).all()


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 7]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_intervals_contain_the_estimate(seed, lagtime, reversible):
    rng = np.random.default_rng(seed)
    trajectories = [rng.integers(0, 4, size=n) for n in rng.integers(lagtime + 5, 80, size=3)]
    found = implied_timescales(trajectories, [lagtime], n_samples=10, reversible=reversible, seed=seed)
    assert (found.low <= found.timescales).all() and (found.timescales <= found.high).all()
    assert not np.isnan(found.low).any() and not np.isnan(found.high).any()


def test_blocks_together_have_all_counts(dtrajs):
    shorter = [*dtrajs, dtrajs[0][:21_000]]
    for lagtime in (1, 7, 500, 19_000):
        resamples = Resamples(shorter, lagtime)
        expected = transition_counts(shorter, lagtime)
        np.testing.assert_array_equal(resamples.counts, expected)
        assert 1 < resamples.n_blocks <= 30
        drawn = list(resamples.draw(5, seed=0))
        assert any((counts != expected).any() for counts in drawn)
        thin = Resamples(shorter, lagtime, sparse=True)
        for counts, other in zip(drawn, thin.draw(5, seed=0), strict=True):
            np.testing.assert_array_equal(other.toarray(), counts)


def test_resamples_in_which_nothing_returns():
    # a way through six states and back, in two blocks of which none returns
    states = np.array([0, 1, 2, 3, 4, 5, 0])
    found = implied_timescales(states, [1], n_samples=20)
    np.testing.assert_array_equal(found.low, found.timescales)
    test = chapman_kolmogorov(MarkovStateModel().fit(states), states, [1], np.eye(2)[[0, 0, 0, 1, 1, 1]], n_samples=20)
    np.testing.assert_array_equal(test.low, test.estimates)


def test_timescales_of_a_bad_discretisation_do(chain, lumped):
    found = implied_timescales(lumped, [1, 20], n_timescales=1)
    # too short, and growing with the lag time, by more than the intervals
    assert found.high[0, 0] < found.low[1, 0] < chain.timescales(1)[0]


def test_fewer_processes_than_asked_for_are_zero(lumped):
    found = implied_timescales(lumped, [3], n_timescales=4, n_samples=5)
    assert found.timescales[0, 0] > 0
    np.testing.assert_array_equal(found.timescales[0, 1:], 0)
    np.testing.assert_array_equal(found.high[0, 1:], 0)


def test_what_is_left_out_at_a_lag_time_is_told():
    states = np.array([0, 1, 0, 1, 1, 0, 1, 0, 2])
    found = implied_timescales(states, [1], n_samples=5)
    assert found.n_active[0] == 2 and found.active_count_fraction[0] == 7 / 8
    one = implied_timescales(np.zeros(9, dtype=int), [1], n_samples=5)
    assert one.n_active[0] == 1 and one.timescales[0, 0] == 0


def test_sparse_free_and_seeded(dtrajs):
    full = implied_timescales(dtrajs, [2], n_timescales=2, n_samples=10)
    thin = implied_timescales(dtrajs, [2], n_timescales=2, n_samples=10, sparse=True)
    np.testing.assert_allclose(thin.low, full.low, rtol=1e-6)
    again = implied_timescales(dtrajs, [2], n_timescales=2, n_samples=10)
    np.testing.assert_array_equal(again.low, full.low)
    other = implied_timescales(dtrajs, [2], n_timescales=2, n_samples=10, seed=1)
    assert (other.low != full.low).any()
    free = implied_timescales(dtrajs, [2], n_timescales=2, n_samples=10, reversible=False)
    np.testing.assert_allclose(free.timescales, full.timescales, rtol=0.05)


@pytest.mark.parametrize(
    "lagtimes, options, message",
    [
        ([], {}, "lagtimes must hold at least one whole number"),
        ([1, 0], {}, r"lagtimes\[1\] must be a whole number"),
        ([1.5], {}, r"lagtimes\[0\] must be a whole number"),
        ([10**6], {}, "shorter than every trajectory"),
        ([1], {"n_timescales": 0}, "n_timescales must be a whole number"),
        ([1], {"n_samples": 0}, "n_samples must be a whole number"),
        ([1], {"confidence": 2}, "confidence must be between"),
    ],
)
def test_parameters_of_timescales_are_checked(dtrajs, lagtimes, options, message):
    with pytest.raises(ValueError, match=message):
        implied_timescales(dtrajs, lagtimes, **options)


def test_chapman_kolmogorov_of_a_markov_chain(dtrajs):
    model = MarkovStateModel(2).fit(dtrajs)
    found = chapman_kolmogorov(model, dtrajs, [1, 2, 5, 10], pcca(model, 2).memberships, confidence=0.99)
    np.testing.assert_array_equal(found.lagtimes, [2, 4, 10, 20])
    assert found.predictions.shape == (4, 2, 2)
    np.testing.assert_allclose(found.predictions[0], found.estimates[0], atol=1e-10)
    np.testing.assert_allclose(found.predictions.sum(axis=2), 1)
    np.testing.assert_allclose(found.estimates.sum(axis=2), 1)
    assert (found.low <= found.predictions).all() and (found.predictions <= found.high).all()


def test_chapman_kolmogorov_of_what_is_none(lumped):
    model = MarkovStateModel(1).fit(lumped)
    found = chapman_kolmogorov(model, lumped, [1, 20], np.eye(2), confidence=0.99)
    # control: the chain that is cut in the wrong place fails where the one that is not passes
    assert found.predictions[1, 0, 0] < found.low[1, 0, 0]


def test_chapman_kolmogorov_equals_deeptime(dtrajs):
    model = MarkovStateModel(2).fit(dtrajs)
    models = [
        MaximumLikelihoodMSM(maxerr=1e-14).fit_fetch(TransitionCountEstimator(2 * k, "sliding").fit_fetch(dtrajs))
        for k in (1, 3, 6)
    ]
    theirs = models[0].ck_test(models, 2, include_lag0=False)
    sets = models[0].pcca(2)
    found = chapman_kolmogorov(model, dtrajs, [1, 3, 6], sets.memberships, n_samples=2)
    np.testing.assert_allclose(found.predictions, np.real(theirs.predictions), atol=1e-8)
    # deeptime begins in the stationary distribution of the model at the longer lag time
    np.testing.assert_allclose(found.estimates, np.real(theirs.estimates), atol=2e-3)


def test_crisp_sets_and_powers_by_hand(dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    members = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    found = chapman_kolmogorov(model, dtrajs, [4], members, n_samples=2)
    weights, power = model.stationary_distribution, np.linalg.matrix_power(model.transition_matrix, 4)
    expected = weights[:3] @ power[:3, :3].sum(axis=1) / weights[:3].sum()
    assert found.predictions[0, 0, 0] == pytest.approx(expected)
    thin = MarkovStateModel(sparse=True).fit(dtrajs)
    again = chapman_kolmogorov(thin, dtrajs, [4], members, n_samples=2)
    np.testing.assert_allclose(again.predictions, found.predictions, rtol=1e-8)
    np.testing.assert_allclose(again.estimates, found.estimates, rtol=1e-8)


def test_states_that_are_lost_at_longer_lag_times_are_left_out():
    # 2 is left and entered once, and the way back is shorter than three frames
    states = np.array([0, 1] * 20 + [2] + [0, 0, 1, 1] * 5)
    model = MarkovStateModel().fit(states)
    found = chapman_kolmogorov(model, states, [1, 3], np.eye(2)[[0, 1, 1]], n_samples=5)
    np.testing.assert_allclose(found.estimates.sum(axis=2), 1)
    short = np.array([0, 1, 1, 0, 0, 1] * 6 + [2, 2, 0])
    model = MarkovStateModel().fit(short)
    with pytest.raises(ValueError, match="got none of set 1 at 3 frames; use smaller multiples"):
        chapman_kolmogorov(model, short, [3], np.eye(2)[[0, 0, 1]], n_samples=5)


@pytest.mark.parametrize(
    "multiples, sets, options, message",
    [
        ([], np.eye(6), {}, "multiples must hold at least one whole number"),
        ([0], np.eye(6), {}, r"multiples\[0\] must be a whole number"),
        ([1], np.eye(5), {}, r"sets must have shape \(6, n_sets\)"),
        ([1], np.arange(6), {}, r"sets must have shape \(6, n_sets\)"),
        ([1], 2 * np.eye(6), {}, "rows add up to 1"),
        ([1], np.eye(6) * 3 - np.eye(6)[::-1] * 2, {}, "at least 0"),
        ([1], np.eye(7)[:6], {}, "every set must have a state"),
        ([10**5], np.eye(6), {}, "shorter than every trajectory"),
        ([1], np.eye(6), {"confidence": 0}, "confidence must be between"),
        ([1], np.eye(6), {"n_samples": 0}, "n_samples must be a whole number"),
    ],
)
def test_parameters_of_chapman_kolmogorov_are_checked(dtrajs, multiples, sets, options, message):
    with pytest.raises(ValueError, match=message):
        chapman_kolmogorov(MarkovStateModel().fit(dtrajs), dtrajs, multiples, sets, **options)
