"""First passages: random walks with known answers, and deeptime's."""

import numpy as np
import pytest
from deeptime.markov.tools.analysis import committor as deeptime_committor
from deeptime.markov.tools.analysis import mfpt
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from molml.kinetics.passage import committor, mean_first_passage_times, stationary_distribution


def walk(n, up=0.5):
    """Walk on 0 … n - 1 that goes up with a probability, is reflected at the ends."""
    matrix = np.diag(np.full(n - 1, up), 1) + np.diag(np.full(n - 1, 1 - up), -1)
    matrix[0, 1] = matrix[-1, -2] = 1.0
    return matrix


def only(n, *states):
    return np.isin(np.arange(n), states)


def both(matrix):
    return matrix, csr_array(matrix)


def test_time_across_a_walk_is_its_length_squared():
    for matrix in both(walk(11)):
        times = mean_first_passage_times(matrix, only(11, 10))
        np.testing.assert_allclose(times, 100 - np.arange(11) ** 2, rtol=1e-12)


def test_gamblers_ruin():
    up = 0.6
    k = np.arange(9)
    expected = (1 - (0.4 / up) ** k) / (1 - (0.4 / up) ** 8)
    for matrix in both(walk(9, up)):
        np.testing.assert_allclose(committor(matrix, only(9, 0), only(9, 8)), expected, rtol=1e-12)
    # control: a fair game
    np.testing.assert_allclose(committor(walk(9), only(9, 0), only(9, 8)), k / 8, rtol=1e-12)


def test_stationary_distribution_of_a_birth_and_death_chain():
    up = 0.7
    expected = np.concatenate([[1 - up], np.ones(8) * (up / (1 - up)) ** np.arange(8), [(up / (1 - up)) ** 7 * up]])
    for matrix in both(walk(10, up)):
        found = stationary_distribution(matrix)
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-12)
        assert found.sum() == pytest.approx(1, rel=1e-14)


def test_small_probabilities_are_relatively_exact():
    found = stationary_distribution(walk(60, 0.9))
    np.testing.assert_allclose(found[2:-1] / found[1:-2], 9.0, rtol=1e-10)
    assert found[0] < 1e-50


@given(st.integers(0, 2**20))
def test_random_chains_equal_deeptime(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 12))
    matrix = rng.dirichlet(np.full(n, 0.5), n) + 1e-3
    matrix /= matrix.sum(axis=1, keepdims=True)
    for given_ in both(matrix):
        np.testing.assert_allclose(mean_first_passage_times(given_, only(n, 0, 1)), mfpt(matrix, [0, 1]), rtol=1e-8)
        expected = deeptime_committor(matrix, [0], [n - 1])
        np.testing.assert_allclose(committor(given_, only(n, 0), only(n, n - 1)), expected, atol=1e-9)
        distribution = stationary_distribution(given_)
        np.testing.assert_allclose(distribution @ matrix, distribution, atol=1e-14)


def test_nowhere_to_go():
    for matrix in both(walk(3)):
        np.testing.assert_array_equal(mean_first_passage_times(matrix, only(3, 0, 1, 2)), 0)
        np.testing.assert_array_equal(committor(matrix, only(3, 0), only(3, 1, 2)), [0, 1, 1])
    for matrix in both(np.ones((1, 1))):
        np.testing.assert_array_equal(stationary_distribution(matrix), [1])
