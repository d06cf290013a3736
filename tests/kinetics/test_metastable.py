"""Metastable sets: deeptime's, the definition of crispness, and chains without any."""

from types import SimpleNamespace

import numpy as np
import pytest
from deeptime.markov import pcca as deeptime_pcca
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.kinetics import metastable as module
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.metastable import pcca


def blocks(sizes, between, seed=0):
    """Counts within and, fewer, between blocks of states."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    counts = rng.random((len(block),) * 2) * np.where(block[:, None] == block, 1.0, between)
    return MarkovStateModel().fit_counts(100 * (counts + counts.T)), block


def crispness(memberships, weights):
    return np.mean(weights @ memberships**2 / (weights @ memberships))


def partition(labels):
    return {tuple(np.flatnonzero(labels == k)) for k in np.unique(labels)}


def test_two_sets_equal_deeptime():
    model, _ = blocks((8, 12), 0.1)
    mine, theirs = pcca(model, 2), deeptime_pcca(model.transition_matrix, 2)
    order = np.argsort(-theirs.coarse_grained_stationary_probability)
    np.testing.assert_allclose(mine.memberships, theirs.memberships[:, order], atol=1e-8)
    np.testing.assert_allclose(mine.stationary_distribution, theirs.coarse_grained_stationary_probability[order])
    expected = theirs.coarse_grained_transition_matrix[np.ix_(order, order)]
    np.testing.assert_allclose(mine.transition_matrix, expected, atol=1e-8)


@pytest.mark.parametrize("sizes, between", [((20, 14, 16), 0.01), ((20, 14, 16), 0.2), ((9, 30, 12, 20), 0.02)])
def test_more_sets_are_as_crisp_as_deeptime_or_crisper(sizes, between):
    model, block = blocks(sizes, between)
    mine, theirs = pcca(model, len(sizes)), deeptime_pcca(model.transition_matrix, len(sizes))
    weights = model.stationary_distribution
    assert mine.crispness == pytest.approx(crispness(mine.memberships, weights))
    assert mine.crispness >= crispness(theirs.memberships, weights) - 1e-9
    assert partition(mine.assignments) == partition(theirs.assignments) == partition(block)
    # as close as a simplex search of deeptime's came to the corner that linear programs end in
    order = [int(np.argmin(np.abs(theirs.memberships - column[:, None]).max(axis=0))) for column in mine.memberships.T]
    np.testing.assert_allclose(mine.memberships, theirs.memberships[:, order], atol=0.02)


@given(st.integers(0, 2**20), st.integers(1, 6), st.floats(0.001, 1.0))
@settings(max_examples=40)
def test_memberships_are_memberships(seed, n_sets, between):
    model, _ = blocks((4,) * n_sets, between, seed)
    sets = pcca(model, n_sets)
    assert sets.memberships.min() >= 0
    np.testing.assert_allclose(sets.memberships.sum(axis=1), 1, rtol=1e-12)
    assert sorted(set(sets.assignments)) == list(range(n_sets))
    assert (np.diff(sets.stationary_distribution) <= 1e-9).all()
    np.testing.assert_allclose(sets.stationary_distribution, model.stationary_distribution @ sets.memberships)
    # combinations of eigenvectors: nothing is left outside their space
    modes = model.eigenvectors_right(n_sets)
    rest = sets.memberships - modes @ (modes.T * model.stationary_distribution @ sets.memberships)
    assert np.abs(rest).max() < 1e-9


@pytest.mark.parametrize("n_sets", [2, 3, 4])
def test_coarse_matrix_keeps_the_slow_processes(n_sets):
    model, _ = blocks((5, 6, 7, 8), 0.05)
    sets = pcca(model, n_sets)
    np.testing.assert_allclose(sets.transition_matrix.sum(axis=1), 1, rtol=1e-10)
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvals(sets.transition_matrix).real)[::-1], model.eigenvalues(n_sets), rtol=1e-9
    )
    np.testing.assert_allclose(
        sets.stationary_distribution @ sets.transition_matrix, sets.stationary_distribution, rtol=1e-9
    )
    # control: that of crisp sets decays faster, since leaving is not all there is to it
    crisp = np.sort(np.linalg.eigvals(sets.crisp_transition_matrix).real)[::-1]
    assert (crisp[1:] < model.eigenvalues(n_sets)[1:]).all()


def test_crisp_matrix_is_that_of_lumped_states():
    model, block = blocks((5, 6, 9), 0.02)
    sets = pcca(model, 3)
    weights, matrix = model.stationary_distribution, model.transition_matrix
    for a in range(3):
        for b in range(3):
            begin, end = sets.assignments == a, sets.assignments == b
            expected = weights[begin] @ matrix[np.ix_(begin, end)].sum(axis=1) / weights[begin].sum()
            assert sets.crisp_transition_matrix[a, b] == pytest.approx(expected)


def test_chain_without_metastable_sets_still_has_as_many_as_asked_for():
    walk = sum(np.diag(np.full(40 - abs(k), 100.0), k) for k in (-1, 0, 1))
    model = MarkovStateModel().fit_counts(walk)
    sets = pcca(model, 6)
    assert sorted(set(sets.assignments)) == list(range(6))
    theirs = deeptime_pcca(model.transition_matrix, 6)
    assert sets.crispness > crispness(theirs.memberships, model.stationary_distribution) + 0.05
    # neighbours belong together
    assert np.count_nonzero(np.diff(sets.assignments)) == 5


def test_one_set_and_as_many_sets_as_states():
    model, _ = blocks((2, 2), 0.1)
    whole = pcca(model, 1)
    np.testing.assert_array_equal(whole.memberships, np.ones((4, 1)))
    np.testing.assert_allclose(whole.transition_matrix, [[1]])
    single = pcca(model, 4)
    np.testing.assert_allclose(np.sort(single.memberships, axis=1), np.eye(4)[[3] * 4], atol=1e-9)
    assert single.crispness == pytest.approx(1)


def test_sparse_is_the_same():
    model, _ = blocks((10, 10, 12), 0.02)
    thin = MarkovStateModel(sparse=True).fit_counts(model.counts)
    np.testing.assert_allclose(pcca(thin, 3).memberships, pcca(model, 3).memberships, atol=1e-7)


@pytest.mark.parametrize("n_sets", [0, 5, 2.0])
def test_number_of_sets_is_checked(n_sets):
    with pytest.raises(ValueError, match="n_sets must be a whole number from 1 to 4"):
        pcca(blocks((2, 2), 0.1)[0], n_sets)


def test_detailed_balance_is_needed():
    with pytest.raises(ValueError, match="choose reversible=True"):
        pcca(MarkovStateModel(reversible=False).fit_counts(np.ones((3, 3))), 2)


def test_failure_of_a_linear_program_is_said(monkeypatch):
    monkeypatch.setattr(module, "linprog", lambda *a, **o: SimpleNamespace(success=False, message="it is cyclic"))
    with pytest.raises(ArithmeticError, match="memberships of 2 sets were not found: it is cyclic"):
        pcca(blocks((2, 2), 0.1)[0], 2)


def test_sets_that_nothing_tells_apart(monkeypatch):
    model, _ = blocks((2, 2), 0.1)
    # the third set is a copy of half the second: the overlap of the memberships is singular
    monkeypatch.setattr(
        module, "_crispest", lambda modes, corners: np.linalg.inv(modes[corners])[:, [0, 1, 1]] * [1.0, 0.5, 0.5]
    )
    monkeypatch.setattr(module, "_inner_simplex", lambda modes: np.array([0, 2, 3]))
    sets = pcca(model, 3)
    np.testing.assert_allclose(sets.transition_matrix.sum(axis=1), 1.0)
