"""Maximum-likelihood transition matrix with detailed balance, by Newton's method.

With x_ij = π_i P_ij = x_ji and x_i = Σ_j x_ij, the likelihood Π P_ij^c_ij is largest where (c_ij + c_ji) / x_ij =
c_i / x_i + c_j / x_j (Bowman et al., J. Chem. Phys. 131, 124101 (2009); Trendelkamp-Schroer et al., J. Chem. Phys.
143, 174101 (2015)). Call q_i = c_i / x_i and u_i = log q_i. Then x_ij = s_ij / (q_i + q_j) with s_ij = c_ij + c_ji, and
that rows add up means

    c_i = Σ_j s_ij q_i / (q_i + q_j),

where the concave function f(u) = Σ_i c_i u_i - 1/2 Σ_ij s_ij log(e^u_i + e^u_j) has its maximum. It is the likelihood
of the model of Bradley and Terry (Biometrika 39, 324 (1952)), in which c_ij counts how often i has won against j. Its
Hessian is minus the Laplacian of a graph whose edges weigh s_ij q_i q_j / (q_i + q_j)², so a few Newton steps replace
the many thousand fixed-point iterations of slowly mixing chains. The maximum exists and is unique up to a constant if
and only if the graph of counts is strongly connected (Ford, Am. Math. Mon. 64, 28 (1957)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy import linalg, sparse
from scipy.sparse.linalg import cg, splu

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-10
"""Largest part by which departures of any state from the others may miss Σ_j s_ij q_i / (q_i + q_j)."""

_MAX_ITERATIONS = 200
# beyond these, full matrices lose against sparse ones
_DENSE_STATES, _DENSE_FRACTION = 400, 0.1


class CountGraph(NamedTuple):
    """Counts between different states, as a graph without directions, and those that stay.

    Attributes
    ----------
    first, second : integer array (n_edges,)
        Pairs of states i < j that are connected.
    weights : array (n_edges,)
        c_ij + c_ji.
    leaving : array (n_states,)
        Σ_j≠i c_ij.
    staying : array (n_states,)
        c_ii.
    """

    first: Array
    second: Array
    weights: Array
    leaving: Array
    staying: Array


def count_graph(counts: Any) -> CountGraph:
    """Counts of one strongly connected set as a graph.

    Parameters
    ----------
    counts : array (n_states, n_states) or scipy.sparse matrix
    """
    if sparse.issparse(counts):
        staying = counts.diagonal()
        leaving = np.asarray(counts.sum(axis=1)).ravel() - staying
        both = sparse.coo_array(sparse.triu(counts + counts.T, 1))
        first, second = both.coords
        return CountGraph(first.astype(np.int64), second.astype(np.int64), both.data, leaving, staying)
    staying = np.diag(counts).astype(np.float64)
    off = counts - np.diag(staying)
    first, second = np.nonzero(np.triu(off + off.T))
    return CountGraph(first, second, off[first, second] + off[second, first], off.sum(axis=1), staying)


@njit(cache=True, nogil=True, error_model="numpy")
def gradient(u: Array, first: Array, second: Array, weights: Array, leaving: Array, bonds: Array) -> Array:
    """Gradient of f at u, (n_states,); the weights of the Hessian's graph are left in `bonds` (n_edges,)."""
    g = leaving.copy()
    for k in range(len(weights)):
        i, j = first[k], second[k]
        difference = u[i] - u[j]
        # both shares from the smaller exponential: one minus the other would lose what is small
        e = np.exp(-abs(difference))
        large = weights[k] / (1.0 + e)
        small = large * e
        if difference > 0.0:
            g[i] -= large
            g[j] -= small
        else:
            g[i] -= small
            g[j] -= large
        bonds[k] = large * small / weights[k]
    return g


@njit(cache=True, nogil=True, error_model="numpy")
def _laplacian(first: Array, second: Array, bonds: Array, n_states: int) -> Array:
    """Full Laplacian without its last row and column."""
    matrix = np.zeros((n_states, n_states))
    for k in range(len(bonds)):
        i, j = first[k], second[k]
        matrix[i, j] = matrix[j, i] = -bonds[k]
        matrix[i, i] += bonds[k]
        matrix[j, j] += bonds[k]
    return matrix[:-1, :-1]


def laplacian(graph: CountGraph, bonds: Array) -> Array:
    """Minus the Hessian of f, without the last state, whose u is held: symmetric and positive definite.

    Parameters
    ----------
    graph : CountGraph
    bonds : array (n_edges,)
        As `gradient` leaves them.

    Returns
    -------
    array (n_states - 1, n_states - 1)
    """
    matrix: Array = _laplacian(graph.first, graph.second, bonds, len(graph.leaving))
    return matrix


def _dense_step(graph: CountGraph, bonds: Array, g: Array) -> Array:
    """Solution of Laplacian · step = g, zero for the last state."""
    factor = linalg.cho_factor(laplacian(graph, bonds), overwrite_a=True, check_finite=False)
    return np.append(linalg.cho_solve(factor, g[:-1], check_finite=False), 0.0)


def _sparse_step(graph: CountGraph, bonds: Array, g: Array, iterative: bool) -> tuple[Array, bool]:
    """The same without full matrices; and whether conjugate gradients are worth trying next time.

    Graphs that mix fast fill up when factorised, but conjugate gradients need few iterations; of graphs that hang
    together by threads, chains and planes, the opposite is true.
    """
    n = len(g)
    degree = np.bincount(graph.first, bonds, n) + np.bincount(graph.second, bonds, n)
    scale = 1 / np.sqrt(degree[:-1])
    off = sparse.coo_array((bonds, (graph.first, graph.second)), shape=(n, n)).tocsr()[:-1, :-1]
    off = off.multiply(scale[:, None]).multiply(scale).tocsr()
    matrix = (sparse.eye_array(n - 1, format="csr") - off - off.T).tocsr()
    if iterative:
        scaled, failed = cg(matrix, scale * g[:-1], rtol=1e-9, maxiter=300)
        iterative = not failed
    if not iterative:
        factors = splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        scaled = factors.solve(scale * g[:-1])
    return np.append(scale * scaled, 0.0), iterative


def log_potentials(graph: CountGraph) -> Array:
    """The maximum of f: u_i = log(c_i / x_i), zero for the last state.

    Parameters
    ----------
    graph : CountGraph
        Of a strongly connected set.

    Returns
    -------
    array (n_states,)

    Raises
    ------
    ArithmeticError
        If `TOLERANCE` is not met, because counts differ by too many orders of magnitude.
    """
    n = len(graph.leaving)
    if n == 1:
        return np.zeros(1)
    first, second, weights, leaving, _ = graph
    arriving = np.bincount(first, weights, n) + np.bincount(second, weights, n) - leaving
    # exact if x_i is the mean of counts from and to i: nearly true of long trajectories
    u = np.log(2 * leaving / (leaving + arriving))
    bonds = np.empty(len(weights))
    dense = n <= _DENSE_STATES or len(weights) > _DENSE_FRACTION / 2 * n * n
    reached, iterative = False, True
    for _ in range(_MAX_ITERATIONS):
        g = gradient(u, first, second, weights, leaving, bonds)
        error = np.max(np.abs(g) / leaving)
        if reached and error <= TOLERANCE:
            return u - u[-1]
        try:
            if dense:
                step = _dense_step(graph, bonds, g)
            else:
                step, iterative = _sparse_step(graph, bonds, g, iterative)
        except (np.linalg.LinAlgError, RuntimeError):
            break
        longest = np.max(np.abs(step[first] - step[second]))
        if not np.isfinite(longest):
            break
        reached = longest < 1e-7
        if longest > 0.1:
            step *= _step_length(graph, u, step, g @ step, longest)
        u = u + step
    raise ArithmeticError(
        f"counts must not differ by so many orders of magnitude (from {weights.min():.1e} to {weights.max():.1e}): the "
        f"reversible maximum-likelihood matrix cannot be found to {TOLERANCE}, got {error:.1e}; leave weakly connected "
        "states out, or choose reversible=False"
    )


def _step_length(graph: CountGraph, u: Array, step: Array, slope: float, longest: float) -> float:
    """Where on the line u + t · step the slope is small or still positive.

    The third derivative of f is bounded by `longest` times the second, so t = log(1 + longest) / longest climbs for
    certain (generalised self-concordance: Sun, Tran-Dinh, Math. Program. 178, 145 (2019), ν = 2). Longer steps are
    tried first, as long as no difference u_i - u_j changes so much that the next Hessian could vanish.
    """
    certain = np.log1p(longest) / longest
    bonds = np.empty(len(graph.weights))
    low, high = certain, min(1.0, 6.0 / longest)
    length = high
    for _ in range(20):
        if gradient(u + length * step, *graph[:4], bonds) @ step >= -0.1 * slope or length <= certain:
            return length
        high = length
        length = np.sqrt(low * high)
    return certain


def reversible_flows(graph: CountGraph, u: Array) -> tuple[Array, Array]:
    """Unconditional transition probabilities x_ij = s_ij / (q_i + q_j), up to a factor.

    Parameters
    ----------
    graph : CountGraph
    u : array (n_states,)

    Returns
    -------
    between : array (n_edges,)
    within : array (n_states,)
        x_ii.
    """
    q = np.exp(u - u.max())
    return graph.weights / (q[graph.first] + q[graph.second]), graph.staying / q


def transition_probabilities(graph: CountGraph, between: Array, within: Array, *, full: bool) -> tuple[Any, Array]:
    """Transition matrix and stationary distribution of symmetric flows.

    Parameters
    ----------
    graph : CountGraph
    between : array (n_edges,)
    within : array (n_states,)
    full : bool
        Give an array instead of a csr_array.

    Returns
    -------
    transition_matrix : array (n_states, n_states) or csr_array
    stationary_distribution : array (n_states,)
    """
    n = len(within)
    first, second, everywhere = graph.first, graph.second, np.arange(n)
    leaving = within + np.bincount(first, between, n) + np.bincount(second, between, n)
    if full:
        matrix = np.zeros((n, n))
        matrix[first, second] = between / leaving[first]
        matrix[second, first] = between / leaving[second]
        matrix[everywhere, everywhere] = within / leaving
        return matrix, leaving / leaving.sum()
    inside = np.flatnonzero(within)
    rows = np.concatenate([first, second, inside])
    columns = np.concatenate([second, first, inside])
    values = np.concatenate([between, between, within[inside]]) / leaving[rows]
    return sparse.coo_array((values, (rows, columns)), shape=(n, n)).tocsr(), leaving / leaving.sum()
