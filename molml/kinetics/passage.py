"""First passages of a Markov chain: mean times, and committors, by linear equations.

References
----------
Norris, Markov Chains (Cambridge, 1997), theorems 1.3.2 and 1.3.5; Metzner, Schütte, Vanden-Eijnden, Multiscale Model.
Simul. 7, 1192 (2009), eqs. 2.16 and 2.17.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from scipy import linalg
from scipy.sparse import csc_array, csr_array, eye_array, issparse
from scipy.sparse.linalg import splu

Array = np.ndarray[Any, np.dtype[Any]]


def stationary_distribution(transition_matrix: Any) -> Array:
    """Stationary distribution of an irreducible chain.

    Parameters
    ----------
    transition_matrix : array (n_states, n_states) or csr_array

    Returns
    -------
    array (n_states,)
        Adds up to 1.
    """
    if not issparse(transition_matrix):
        distribution: Array = _eliminated(np.array(transition_matrix, dtype=np.float64))
        return distribution / distribution.sum()
    n = transition_matrix.shape[0]
    others = np.arange(n) < n - 1
    # visits to every other state between two visits to the last
    visits = _solve(_generator(transition_matrix, others).T, _dense(transition_matrix[-1:][:, others]).ravel())
    distribution = np.append(np.maximum(visits, 0.0), 1.0)
    return distribution / distribution.sum()


@njit(cache=True, nogil=True, error_model="numpy")
def _eliminated(matrix: Array) -> Array:
    """Stationary distribution up to a factor; the matrix is overwritten.

    States are taken out one after the other, the last first, and the others connected past them. Nothing is subtracted,
    so that also what is tiny is relatively exact (Grassmann, Taksar, Heyman, Oper. Res. 33, 1107 (1985)).
    """
    n = len(matrix)
    for k in range(n - 1, 0, -1):
        leaving = max(matrix[k, :k].sum(), 1e-300)
        for i in range(k):
            if matrix[i, k] > 0.0:
                matrix[i, k] /= leaving
                for j in range(k):
                    matrix[i, j] += matrix[i, k] * matrix[k, j]
    distribution = np.ones(n)
    for k in range(1, n):
        distribution[k] = np.dot(distribution[:k], matrix[:k, k].copy())
        if distribution[k] > 1e100:
            distribution[: k + 1] /= distribution[k]
    return distribution


def mean_first_passage_times(transition_matrix: Any, target: Array) -> Array:
    """Mean number of steps until a set of states is reached first; 0 within it.

    Parameters
    ----------
    transition_matrix : array (n_states, n_states) or csr_array
        Irreducible.
    target : bool array (n_states,)

    Returns
    -------
    array (n_states,)
    """
    times = np.zeros(len(target))
    outside = ~target
    if outside.any():
        times[outside] = _solve(_generator(transition_matrix, outside), np.ones(np.count_nonzero(outside)))
    return times


def committor(transition_matrix: Any, source: Array, target: Array) -> Array:
    """Probability to reach the target before the source; 0 in the source, 1 in the target.

    Parameters
    ----------
    transition_matrix : array (n_states, n_states) or csr_array
        Irreducible.
    source, target : bool array (n_states,)
        Without common states.

    Returns
    -------
    array (n_states,)
    """
    probability = target.astype(np.float64)
    between = ~(source | target)
    if between.any():
        into = _dense(transition_matrix[between][:, target].sum(axis=1)).ravel()
        probability[between] = np.clip(_solve(_generator(transition_matrix, between), into), 0.0, 1.0)
    return probability


def _generator(transition_matrix: Any, states: Array) -> Any:
    """1 - P among some states."""
    inside = transition_matrix[states][:, states]
    n = inside.shape[0]
    return eye_array(n, format="csr") - csr_array(inside) if issparse(inside) else np.eye(n) - inside


def _solve(matrix: Any, right: Array) -> Array:
    if not len(right):
        return right
    if issparse(matrix):
        solution: Array = splu(csc_array(matrix)).solve(right)
        return solution
    solution = linalg.lu_solve(linalg.lu_factor(matrix, check_finite=False), right, check_finite=False)
    return solution


def _dense(x: Any) -> Array:
    array: Array = x.toarray() if issparse(x) else np.asarray(x)
    return array
