"""Counts: against pairs counted one by one, and deeptime's; connected sets against reachability."""

import numpy as np
import pytest
from deeptime.markov import TransitionCountEstimator
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse

from molml.kinetics.counting import (
    MOST_DENSE,
    active_set,
    connected_sets,
    discrete_trajectories,
    transition_counts,
    warn_of_left_out,
)


def counted(dtrajs, lagtime, n_states, step=1):
    counts = np.zeros((n_states, n_states))
    for states in dtrajs:
        for t in range(0, len(states) - lagtime, step):
            if states[t] >= 0 and states[t + lagtime] >= 0:
                counts[states[t], states[t + lagtime]] += 1
    return counts


TRAJECTORIES = st.lists(st.lists(st.integers(-1, 6), min_size=5, max_size=40), min_size=1, max_size=4)


@given(TRAJECTORIES, st.integers(1, 4))
def test_counts_are_those_of_pairs_one_by_one(lists, lagtime):
    dtrajs = [np.array(states) for states in lists]
    expected = counted(dtrajs, lagtime, 7)
    strided = counted(dtrajs, lagtime, 7, step=lagtime)
    for sparse in (False, True):
        found = transition_counts(dtrajs, lagtime, n_states=7, sparse=sparse)
        assert issparse(found) == sparse
        np.testing.assert_array_equal(np.asarray(found.todense() if sparse else found), expected)
        found = transition_counts(dtrajs, lagtime, n_states=7, counting="strided", sparse=sparse)
        np.testing.assert_array_equal(np.asarray(found.todense() if sparse else found), strided)
        found = transition_counts(dtrajs, lagtime, n_states=7, counting="effective", sparse=sparse)
        np.testing.assert_array_equal(np.asarray(found.todense() if sparse else found), expected / lagtime)


@pytest.mark.parametrize(
    "mine, theirs", [("sliding", "sliding"), ("strided", "sample"), ("effective", "sliding-effective")]
)
@pytest.mark.parametrize("lagtime", [1, 7])
def test_counts_equal_deeptime(mine, theirs, lagtime):
    rng = np.random.default_rng(0)
    dtrajs = [rng.integers(0, 50, n) for n in (1000, 300)]
    expected = TransitionCountEstimator.count(theirs, dtrajs, lagtime)
    np.testing.assert_array_equal(transition_counts(dtrajs, lagtime, counting=mine), expected)


def test_no_pair_spans_two_trajectories():
    two = [np.array([0, 0, 0]), np.array([1, 1, 1])]
    np.testing.assert_array_equal(transition_counts(two, 1), [[2, 0], [0, 2]])
    # the control: of one long trajectory there is such a pair
    np.testing.assert_array_equal(transition_counts(np.concatenate(two), 1), [[2, 1], [0, 2]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_counts(dtype):
    states = np.random.default_rng(1).integers(0, 100, 500)
    np.testing.assert_array_equal(transition_counts(states.astype(dtype), 2), counted([states], 2, 100))


def test_views_and_arrays_that_must_not_be_written_to():
    states = np.random.default_rng(1).integers(0, 4, 500)
    states.flags.writeable = False
    np.testing.assert_array_equal(transition_counts(states[::3], 2), counted([states[::3]], 2, 4))
    np.testing.assert_array_equal(transition_counts(states, 2, sparse=True).todense(), counted([states], 2, 4))


def test_one_trajectory_as_array_list_or_list_of_one():
    expected = transition_counts(np.array([0, 1, 1]), 1)
    np.testing.assert_array_equal(transition_counts([0, 1, 1], 1), expected)
    np.testing.assert_array_equal(transition_counts([[0, 1, 1]], 1), expected)
    np.testing.assert_array_equal(transition_counts((np.array([0, 1, 1]),), 1), expected)


def test_many_states_in_little_memory():
    states = np.array([0, 10**9, 0, 10**9 - 1])
    with pytest.raises(ValueError, match="full matrices are made of at most"):
        transition_counts(states, 1)
    states = np.array([0, MOST_DENSE, 0, 1])
    counts = transition_counts(states, 1, sparse=True)
    assert counts.nnz == 3 and counts.shape == (MOST_DENSE + 1,) * 2


@pytest.mark.parametrize(
    "dtrajs, error, message",
    [
        ([], ValueError, "at least one trajectory"),
        ("0101", TypeError, "integer array or a list"),
        (np.array([[0, 1], [1, 0]]), ValueError, "one-dimensional"),
        (np.array([0.0, 1.0]), TypeError, "integers"),
        ([0.0, 1.0], TypeError, "integers"),
        (np.array([True, False]), TypeError, "integers"),
        (
            [np.array([0, 1]), np.array([0, -2])],
            ValueError,
            r"at least 0, or -1 for none, got -2 in dtrajs\[1\]",
        ),
        ([np.array([0, 1, 0]), np.array([], dtype=int)], ValueError, r"n_samples=0 frames \(dtrajs\[1\]\)"),
        ([np.array([0, 1, 0]), np.array([])], ValueError, r"n_samples=0 frames \(dtrajs\[1\]\)"),
        (np.array([0]), ValueError, "shorter than every trajectory"),
        (np.array([-1, -1]), ValueError, "must visit a state"),
    ],
)
def test_what_is_no_trajectory_is_refused(dtrajs, error, message):
    with pytest.raises(error, match=message):
        transition_counts(dtrajs, 1)


@pytest.mark.parametrize(
    "lagtime, options, message",
    [
        (0, {}, "lagtime must be a whole number of frames, at least 1"),
        (1.0, {}, "lagtime must be a whole number of frames, at least 1"),
        (3, {}, "lagtime must be shorter than every trajectory, got lagtime=3"),
        (1, {"counting": "all"}, "counting must be one of sliding, strided, effective, got 'all'"),
        (1, {"n_states": 2}, "n_states=2 and the state 2"),
    ],
)
def test_parameters_out_of_range_are_refused(lagtime, options, message):
    with pytest.raises(ValueError, match=message):
        transition_counts(np.array([0, 1, 2]), lagtime, **options)


def test_trajectories_are_not_copied():
    states = np.array([0, 1, 2])
    assert discrete_trajectories([states])[0] is states


@given(st.integers(0, 2**20))
def test_connected_sets_are_those_of_mutual_reachability(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    counts = rng.integers(1, 5, (n, n)) * (rng.random((n, n)) < 1.3 / n)
    reached = np.linalg.matrix_power(np.eye(n) + (counts > 0), n) > 0
    mutual = reached & reached.T
    expected = {tuple(np.flatnonzero(row)) for row in mutual}
    for given_ in (counts, csr_array(counts)):
        sets = connected_sets(given_)
        assert {tuple(states) for states in sets} == expected
        inside = [counts[np.ix_(states, states)].sum() for states in sets]
        assert inside == sorted(inside, reverse=True)


def test_active_set_says_what_it_leaves_out():
    counts = np.zeros((6, 6))
    counts[np.ix_([1, 3], [1, 3])] = 10
    counts[0, 1], counts[3, 4], counts[2, 2] = 1, 2, 7
    for given_ in (counts, csr_array(counts)):
        active = active_set(given_)
        np.testing.assert_array_equal(active.states, [1, 3])
        np.testing.assert_array_equal(np.asarray(active.counts.sum(axis=1)).ravel(), [20, 20])
        assert active.count_fraction == 40 / 50 and active.n_visited == 5
        with pytest.warns(UserWarning, match="3 of 5 visited states, with 20 % of the counts, are left out"):
            warn_of_left_out(active)


def test_zeros_that_are_stored_connect_nothing():
    counts = csr_array(([5.0, 3.0, 2.0, 0.0], ([0, 0, 1, 1], [0, 1, 1, 0])), shape=(2, 2))
    assert counts.nnz == 4
    assert [states.tolist() for states in connected_sets(counts)] == [[0], [1]]
    active = active_set(counts)
    assert active.states.tolist() == [0] and active.count_fraction == 0.5 and counts.nnz == 4


def test_many_counts_matter_more_than_many_states():
    counts = np.zeros((5, 5))
    counts[0, 0] = 100
    counts[1:, 1:] = 1
    np.testing.assert_array_equal(active_set(counts).states, [0])


def test_nothing_left_out_no_warning():
    counts = np.zeros((3, 3))
    counts[:2, :2] = 1
    # the third state was never visited
    warn_of_left_out(active_set(counts))


@pytest.mark.parametrize(
    "counts, error, message",
    [
        (np.array([["a"]]), TypeError, "must be numbers"),
        (np.ones((2, 3)), ValueError, "square matrix, got shape"),
        (np.ones(4), ValueError, "square matrix, got shape"),
        (np.zeros((0, 0)), ValueError, "square matrix, got shape"),
        (np.array([[1.0, -1.0], [1.0, 1.0]]), ValueError, "at least 0"),
        (np.array([[1.0, np.nan], [1.0, 1.0]]), ValueError, "finite"),
        (csr_array(np.array([[1.0, np.inf], [1.0, 1.0]])), ValueError, "finite"),
        (np.array([[0, 5], [0, 0]]), ValueError, "connect states in both directions, got 5 transitions"),
        (np.zeros((2, 2)), ValueError, "connect states in both directions, got 0 transitions"),
        (csr_array((2, 2)), ValueError, "connect states in both directions, got 0 transitions"),
    ],
)
def test_what_is_no_count_matrix_is_refused(counts, error, message):
    with pytest.raises(error, match=message):
        active_set(counts)
