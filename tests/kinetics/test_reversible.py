"""Reversible maximum likelihood: closed forms, the equations of the maximum, a general optimiser, deeptime."""

import numpy as np
import pytest
from deeptime.markov.tools.estimation import transition_matrix as deeptime_estimate
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_array

from molml.kinetics import reversible
from molml.kinetics.counting import active_set
from molml.kinetics.reversible import (
    TOLERANCE,
    count_graph,
    log_potentials,
    reversible_flows,
    transition_probabilities,
)


def estimate(counts, full=True):
    graph = count_graph(counts)
    return transition_probabilities(graph, *reversible_flows(graph, log_potentials(graph)), full=full)


def log_likelihood(counts, matrix):
    occurred = counts > 0
    return np.sum(counts[occurred] * np.log(matrix[occurred]))


def random_counts(rng, n, decades=2.0, density=0.5):
    """Strongly connected, since a cycle runs through all states."""
    counts = np.floor(10 ** rng.uniform(0, decades, (n, n))) * (rng.random((n, n)) < density)
    return counts + np.roll(np.eye(n), 1, axis=1)


def chain(n, barrier, n_frames, seed):
    """Counts of a walk in a double well, discretised into n cells."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1.4, 1.4, n)
    energy = barrier * (x**2 - 1) ** 2
    matrix = np.zeros((n, n))
    for i in range(n):
        for j in range(max(0, i - 4), min(n, i + 5)):
            matrix[i, j] = min(1.0, np.exp(energy[i] - energy[j])) / 9 if i != j else 0.0
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    weights = np.exp(-energy) / np.exp(-energy).sum()
    return rng.poisson(n_frames * weights[:, None] * matrix).astype(float)


def error_of(counts, matrix, distribution):
    """How far the equations of the maximum are from true: (c_ij + c_ji) / x_ij = c_i / x_i + c_j / x_j, relative."""
    flows = distribution[:, None] * matrix
    ratio = counts.sum(axis=1) / distribution
    occurred = counts + counts.T > 0
    return np.abs((counts + counts.T)[occurred] / flows[occurred] / np.add.outer(ratio, ratio)[occurred] - 1).max()


def test_two_states_always_obey_detailed_balance():
    counts = np.array([[80.0, 20.0], [5.0, 95.0]])
    matrix, distribution = estimate(counts)
    np.testing.assert_allclose(matrix, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(distribution, [0.05 / 0.25, 0.20 / 0.25], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_chains_without_cycles_always_obey_detailed_balance(seed):
    rng = np.random.default_rng(seed)
    n = 12
    counts = sum(np.diag(rng.integers(1, 1000, n - abs(k)), k) for k in (-1, 0, 1)).astype(float)
    matrix, _ = estimate(counts)
    np.testing.assert_allclose(matrix, counts / counts.sum(axis=1, keepdims=True), rtol=1e-11)


def test_symmetric_counts_are_flows_already():
    counts = random_counts(np.random.default_rng(0), 9)
    counts = counts + counts.T
    matrix, distribution = estimate(counts)
    np.testing.assert_allclose(matrix, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(distribution, counts.sum(axis=1) / counts.sum(), rtol=1e-12)


@given(st.integers(0, 2**20), st.floats(0.0, 6.0))
def test_detailed_balance_and_the_equations_of_the_maximum(seed, decades):
    rng = np.random.default_rng(seed)
    counts = random_counts(rng, int(rng.integers(1, 12)), decades)
    matrix, distribution = estimate(counts)
    flows = distribution[:, None] * matrix
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(flows, flows.T, rtol=1e-13)
    np.testing.assert_allclose(distribution @ matrix, distribution, rtol=1e-12)
    # the equation of a sum is met to TOLERANCE, one of a term to that times the number of terms and a margin
    assert error_of(counts, matrix, distribution) < 1e-8


def test_maximum_control_without_detailed_balance_is_elsewhere():
    counts = random_counts(np.random.default_rng(3), 6, density=1.0)
    free = counts / counts.sum(axis=1, keepdims=True)
    matrix, _ = estimate(counts)
    values, vectors = np.linalg.eig(free.T)
    distribution = np.real(vectors[:, np.argmax(values.real)])
    distribution /= distribution.sum()
    flows = distribution[:, None] * free
    assert np.abs(flows - flows.T).max() > 1e-3
    assert error_of(counts, free, distribution) > 1e-3
    assert log_likelihood(counts, free) > log_likelihood(counts, matrix)


def test_no_general_optimiser_finds_more():
    counts = random_counts(np.random.default_rng(1), 5, density=0.9)
    matrix, distribution = estimate(counts)
    rows, columns = np.nonzero(np.triu(counts + counts.T))

    def loss(log_flows):
        flows = np.zeros((5, 5))
        flows[rows, columns] = flows[columns, rows] = np.exp(log_flows)
        return -log_likelihood(counts, flows / flows.sum(axis=1, keepdims=True))

    found = minimize(loss, np.log((counts + counts.T)[rows, columns]), tol=1e-12)
    best = -log_likelihood(counts, matrix)
    assert best <= found.fun + 1e-9 and found.fun < best + 1e-6
    # control: a slightly different reversible matrix is worse
    assert loss(np.log((distribution[:, None] * matrix)[rows, columns]) + 0.01 * np.arange(len(rows))) > best + 1e-6


@pytest.mark.parametrize("seed, decades", [(0, 1.0), (1, 3.0), (2, 5.0)])
def test_equal_to_deeptime_at_tight_tolerance(seed, decades):
    counts = random_counts(np.random.default_rng(seed), 40, decades, density=0.2)
    expected = deeptime_estimate(counts, reversible=True, maxerr=1e-14, maxiter=10**7)
    np.testing.assert_allclose(estimate(counts)[0], expected, atol=1e-9)


def test_equal_to_deeptime_where_mixing_is_slow():
    counts = active_set(chain(60, 6.0, 200_000, 0)).counts
    expected = deeptime_estimate(counts, reversible=True, maxerr=1e-15, maxiter=10**7)
    matrix, _ = estimate(counts)
    np.testing.assert_allclose(matrix, expected, atol=1e-7)
    # control: at its own default tolerance deeptime has stopped before
    loose = deeptime_estimate(counts, reversible=True)
    assert np.abs(loose - expected).max() > 10 * np.abs(matrix - expected).max()


def gradient_error(graph, u):
    """Relative error of Σ_j s_ij / (1 + q_j / q_i) = departures, written out without the kernel."""
    total = np.zeros(len(u))
    for i, j, weight in zip(graph.first, graph.second, graph.weights, strict=True):
        total[i] += weight / (1 + np.exp(u[j] - u[i]))
        total[j] += weight / (1 + np.exp(u[i] - u[j]))
    return np.abs(total / graph.leaving - 1).max()


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_rows_may_be_sampled_unequally(scale):
    counts = active_set(chain(80, 4.0, 100_000, 1)).counts
    counts = counts * 10 ** np.random.default_rng(0).normal(scale=scale, size=(len(counts), 1))
    graph = count_graph(counts)
    u = log_potentials(graph)
    assert gradient_error(graph, u) <= TOLERANCE
    # control: the start is no solution
    assert gradient_error(graph, np.zeros_like(u)) > 1e-3


def spread(n, seed):
    """A graph that mixes fast: every state has a few neighbours anywhere."""
    rng = np.random.default_rng(seed)
    rows, columns = np.repeat(np.arange(n), 6), rng.integers(0, n, 6 * n)
    counts = csr_array((rng.integers(1, 50, 6 * n).astype(float), (rows, columns)), shape=(n, n))
    ring = csr_array((np.ones(n), (np.arange(n), (np.arange(n) + 1) % n)), shape=(n, n))
    return (counts + ring).toarray()


@pytest.mark.parametrize("counts", [chain(150, 5.0, 300_000, 2), spread(150, 3)], ids=["thread", "spread"])
def test_sparse_solvers_agree_with_the_dense_one(counts, monkeypatch):
    counts = active_set(counts).counts
    expected, distribution = estimate(counts)
    monkeypatch.setattr(reversible, "_DENSE_STATES", 0)
    monkeypatch.setattr(reversible, "_DENSE_FRACTION", 1.0)
    solvers = []
    for name in ("cg", "splu"):
        solver = getattr(reversible, name)

        def watched(*args, name=name, solver=solver, **options):
            solvers.append(name)
            return solver(*args, **options)

        monkeypatch.setattr(reversible, name, watched)
    matrix, weights = estimate(csr_array(counts), full=False)
    np.testing.assert_allclose(matrix.toarray(), expected, atol=1e-9)
    np.testing.assert_allclose(weights, distribution, rtol=1e-6)
    assert solvers[0] == "cg"


def test_threads_are_factorised_and_spread_graphs_are_not(monkeypatch):
    monkeypatch.setattr(reversible, "_DENSE_STATES", 0)
    factorised = []
    solver = reversible.splu
    monkeypatch.setattr(reversible, "splu", lambda *a, **o: factorised.append(1) or solver(*a, **o))
    log_potentials(count_graph(active_set(spread(300, 0)).counts))
    assert not factorised
    thread = sum(np.diag(np.full(900 - abs(k), 5.0), k) for k in (-1, 1)) + np.diag(np.full(899, 1.0), 1)
    log_potentials(count_graph(thread))
    assert factorised


def test_graph_of_full_and_sparse_counts_is_the_same():
    counts = random_counts(np.random.default_rng(4), 7)
    for full, rows in zip(count_graph(counts), count_graph(csr_array(counts)), strict=True):
        np.testing.assert_array_equal(full, rows)
    np.testing.assert_allclose(estimate(counts)[0], estimate(csr_array(counts))[0], rtol=1e-12)


def test_one_state():
    matrix, distribution = estimate(np.array([[3.0]]))
    assert matrix == [[1.0]] and distribution == [1.0]


def test_periodic_counts():
    matrix, distribution = estimate(np.array([[0.0, 5.0], [4.0, 0.0]]))
    np.testing.assert_array_equal(matrix, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(distribution, [0.5, 0.5])


def test_hopeless_counts_are_an_error(monkeypatch):
    rng = np.random.default_rng(0)
    counts = active_set(chain(300, 5.0, 300_000, 2)).counts
    counts = counts * 10 ** rng.uniform(-30, 30, (len(counts), 1))
    with pytest.raises(ArithmeticError, match="must not differ by so many orders of magnitude"):
        estimate(counts)
    monkeypatch.setattr(reversible, "_MAX_ITERATIONS", 1)
    with pytest.raises(ArithmeticError, match="must not differ"):
        estimate(random_counts(rng, 5))
