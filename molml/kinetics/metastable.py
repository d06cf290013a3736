"""Metastable sets of a Markov model: robust Perron cluster analysis (PCCA+)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_array, block_diag, csr_array

from molml.kinetics.markov import MarkovStateModel

Array = np.ndarray[Any, np.dtype[Any]]


class MetastableSets(NamedTuple):
    """Sets between which a Markov chain changes rarely, the most populated first.

    Attributes
    ----------
    memberships : array (n_active, n_sets)
        Part to which every active state belongs to every set; rows add up to 1.
    assignments : integer array (n_active,)
        The set every active state belongs to most; every set has a state.
    stationary_distribution : array (n_sets,)
        Of the memberships.
    transition_matrix : array (n_sets, n_sets)
        Propagator of the memberships with exactly the slowest eigenvalues of the model; rows add up to 1, but of fuzzy
        sets entries may be less than 0.
    crisp_transition_matrix : array (n_sets, n_sets)
        Probability, from equilibrium in the states assigned to one set, to be in those of another after the lag time.
    crispness : float
        Mean over sets of Σ_i π_i χ_i² / Σ_i π_i χ_i: 1 if every state belongs to one set only.
    """

    memberships: Array
    assignments: Array
    stationary_distribution: Array
    transition_matrix: Array
    crisp_transition_matrix: Array
    crispness: float


def pcca(model: MarkovStateModel, n_sets: int) -> MetastableSets:
    """Memberships that are linear combinations of the slowest eigenvectors, as crisp as they can be.

    Memberships χ = X A of the eigenvectors X are at least 0 and add up to 1 for A in a convex polytope, on which
    crispness, a sum of quadratic-over-linear terms of A, is a convex function. Its linearisation is therefore never
    above it, and linear programs climb from one corner to the next until none is higher. The start is the inner simplex
    algorithm; the states it finds stay members of their sets more than of any other, so that no set vanishes.

    Parameters
    ----------
    model : MarkovStateModel
        Reversible.
    n_sets : int
        At most the number of active states.

    Returns
    -------
    MetastableSets

    Raises
    ------
    ValueError
        If the model is not reversible or has fewer states.
    ArithmeticError
        If a linear program cannot be solved.

    References
    ----------
    Röblitz, Weber, Adv. Data Anal. Classif. 7, 147 (2013); start: Weber, Galliat, ZIB-Report 02-12 (2002); coarse
    matrix: Kube, Weber, J. Chem. Phys. 126, 024103 (2007).

    Examples
    --------
    >>> counts = np.array([[99, 9, 0, 0], [9, 90, 1, 0], [0, 1, 80, 9], [0, 0, 9, 80]])
    >>> pcca(MarkovStateModel().fit_counts(counts), 2).assignments
    array([0, 0, 1, 1])
    """
    n_active = len(model.active_states)
    if not model.reversible:
        raise ValueError("metastable sets need the real eigenvectors of a reversible model; choose reversible=True")
    if not isinstance(n_sets, int | np.integer) or not 1 <= n_sets <= n_active:
        raise ValueError(f"n_sets must be a whole number from 1 to {n_active}, the active states, got {n_sets!r}")
    modes = model.eigenvectors_right(n_sets)
    corners = _inner_simplex(modes)
    memberships = np.clip(modes @ _crispest(modes, corners), 0.0, 1.0)
    memberships /= memberships.sum(axis=1, keepdims=True)
    weights = model.stationary_distribution
    # equal ones in an order that rounding does not decide
    order = np.argsort((-weights @ memberships).round(9), kind="stable")
    memberships, corners = memberships[:, order], corners[order]
    assignments = memberships.argmax(axis=1)
    # at equal memberships another set might take the only state
    assignments[corners] = np.arange(n_sets)
    members = np.eye(n_sets)[assignments]
    overlap, flows = _overlap(memberships, weights, model)
    crisp_overlap, crisp_flows = _overlap(members, weights, model)
    populations = weights @ memberships
    return MetastableSets(
        memberships,
        assignments,
        populations,
        # least squares: where nothing tells two sets apart, their memberships are the same and the overlap is singular
        np.linalg.lstsq(overlap, flows)[0],
        crisp_flows / np.diag(crisp_overlap)[:, None],
        float(np.mean(np.diag(overlap) / populations)),
    )


def _overlap(memberships: Array, weights: Array, model: MarkovStateModel) -> tuple[Array, Array]:
    weighted = memberships.T * weights
    return weighted @ memberships, weighted @ (model.transition_matrix @ memberships)


def _inner_simplex(modes: Array) -> Array:
    """Rows that span a large simplex: each next one is the furthest from the plane of those before."""
    corners = [int(np.argmax(np.linalg.norm(modes, axis=1)))]
    rest = modes - modes[corners[0]]
    for _ in range(1, modes.shape[1]):
        distances = np.linalg.norm(rest, axis=1)
        corners.append(int(np.argmax(distances)))
        direction = rest[corners[-1]] / distances[corners[-1]]
        rest = rest - np.outer(rest @ direction, direction)
    return np.array(corners)


def _crispest(modes: Array, corners: Array) -> Array:
    n_states, n_sets = modes.shape
    if n_sets == 1:
        return np.ones((1, 1))
    a = _feasible(modes, np.linalg.inv(modes[corners]))
    # a is written column by column: the coefficients of one set after the other
    positive = block_diag([csr_array(-modes)] * n_sets, format="csr")
    owned = [_owner(modes[corners[k]], k, n_sets) for k in range(n_sets)]
    bounds = block_array([[positive], [np.concatenate(owned)]], format="csr")
    sums = np.tile(np.eye(n_sets), (1, n_sets))
    crispness = -np.inf
    while True:
        slope = 2 * a / a[0]
        slope[0] -= np.sum(a**2, axis=0) / a[0] ** 2
        best = linprog(
            -slope.T.ravel(),
            A_ub=bounds,
            b_ub=np.zeros(bounds.shape[0]),
            A_eq=sums,
            b_eq=np.eye(n_sets)[0],
            bounds=(None, None),
            method="highs",
        )
        if not best.success:
            raise ArithmeticError(f"memberships of {n_sets} sets were not found: {best.message}; try fewer sets")
        found = best.x.reshape(n_sets, n_sets).T
        higher = float(np.sum(found**2 / found[0]))
        if higher <= crispness + 1e-12:
            return a
        a, crispness = found, higher


def _feasible(modes: Array, a: Array) -> Array:
    """The nearest memberships that are at least 0 and add up to 1 (Röblitz, Weber 2013, algorithm of section 3.4)."""
    a = a.copy()
    a[1:, 0] = -a[1:, 1:].sum(axis=1)
    a[0] = -(modes[:, 1:] @ a[1:]).min(axis=0)
    scaled: Array = a / a[0].sum()
    return scaled


def _owner(corner: Array, k: int, n_sets: int) -> Array:
    """Rows that say: at this corner no membership is larger than the one of set k."""
    others = np.delete(np.arange(n_sets), k)
    rows = np.zeros((n_sets - 1, n_sets, n_sets))
    rows[np.arange(n_sets - 1), others] = corner
    rows[:, k] = -corner
    return rows.reshape(n_sets - 1, -1)
