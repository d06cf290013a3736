"""Counting transitions of discrete trajectories, and the sets of states that they connect.

A discrete trajectory is an integer array (n_frames,): the state of every frame, from 0. The state -1 stands for no
state at all (a frame that was discarded, a gap); pairs of frames that include it are not counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.sparse import csgraph, csr_array, issparse

from molml.kinetics.data import check_lagtime, check_lengths

Array = np.ndarray[Any, np.dtype[Any]]
Counts = Any
"""A square array, or a sparse matrix of scipy."""

COUNTINGS = ("sliding", "strided", "effective")
MOST_DENSE = 20_000
"""Most states of which full matrices are made, 3 GB each."""


def discrete_trajectories(dtrajs: Any, *, name: str = "dtrajs") -> list[Array]:
    """Discrete trajectories as a list of integer arrays, without copying those that are.

    Parameters
    ----------
    dtrajs : integer array (n_frames,), or sequence of such arrays
    name : str
        What an error calls them.

    Returns
    -------
    list of array (n_frames,)

    Raises
    ------
    TypeError
        If states are not integers.
    ValueError
        If there are no trajectories, one is not one-dimensional, or a state is less than -1.
    """
    if isinstance(dtrajs, np.ndarray):
        trajectories = [dtrajs]
    elif isinstance(dtrajs, list | tuple):
        single = len(dtrajs) > 0 and all(np.ndim(states) == 0 for states in dtrajs)
        trajectories = [np.asarray(dtrajs)] if single else [np.asarray(states) for states in dtrajs]
    else:
        raise TypeError(
            f"{name} must be an integer array or a list of integer arrays, got {type(dtrajs).__module__}."
            f"{type(dtrajs).__name__}"
        )
    if not trajectories:
        raise ValueError(f"{name} must hold at least one trajectory, got an empty list")
    for i, states in enumerate(trajectories):
        if states.ndim != 1:
            raise ValueError(
                f"{name}[{i}] must be one-dimensional, got shape {states.shape}; give one array for each trajectory"
            )
        if states.dtype.kind not in "iu" and len(states):
            raise TypeError(
                f"{name}[{i}] must hold integers, the numbers of states, got {states.dtype}; "
                "assign frames to states first, by KMeans(...).fit(X).predict(X), say"
            )
        if len(states) and states.min() < -1:
            raise ValueError(
                f"states must be at least 0, or -1 for none, got {states.min()} in {name}[{i}], frame {states.argmin()}"
            )
    return trajectories


def transition_counts(
    dtrajs: Any, lagtime: int, *, n_states: int | None = None, counting: str = "sliding", sparse: bool = False
) -> Counts:
    """Number of transitions from every state to every other within a lag time.

    Parameters
    ----------
    dtrajs : integer array (n_frames,), or sequence of such arrays
        States from 0; -1 for none.
    lagtime : int
        In frames, at least 1.
    n_states : int, optional
        Number of states; if not given, one more than the largest.
    counting : {"sliding", "strided", "effective"}
        "sliding": every pair of frames (t, t + lagtime); what estimates are made of. "strided": the pairs that begin at
        0, lagtime, 2 lagtime, …, which share no step. "effective": sliding counts divided by the lag time, the number
        of pairs that share no step; what intervals are made of. Where memory outlasts the lag time, even these are too
        many.
    sparse : bool
        Give a scipy.sparse.csr_array, in memory proportional to the number of different transitions.

    Returns
    -------
    array (n_states, n_states), float64, or csr_array
        Row: from; column: to.

    Raises
    ------
    TypeError, ValueError
        If the trajectories are none, or not longer than the lag time; if `counting` is unknown, `n_states` too small or
        too large for a full matrix.

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011), section III; effective counts: Trendelkamp-Schroer et al.,
    J. Chem. Phys. 143, 174101 (2015), section II.

    Examples
    --------
    >>> transition_counts(np.array([0, 0, 1, 0, 1, 1]), 1)
    array([[1., 2.],
           [1., 1.]])
    """
    trajectories = discrete_trajectories(dtrajs)
    if counting not in COUNTINGS:
        raise ValueError(f"counting must be one of {', '.join(COUNTINGS)}, got {counting!r}")
    check_lagtime(lagtime, least=1)
    check_lengths([len(states) for states in trajectories], lagtime, name="dtrajs")
    largest = max(int(states.max()) for states in trajectories)
    if n_states is None:
        n_states = largest + 1
    elif n_states <= largest:
        raise ValueError(f"n_states must be larger than every state, got n_states={n_states} and the state {largest}")
    if n_states == 0:
        raise ValueError("dtrajs must visit a state, got -1 (none) in every frame")
    if not sparse and n_states > MOST_DENSE:
        raise ValueError(
            f"full matrices are made of at most {MOST_DENSE} states, got {n_states}, which would take "
            f"{8e-9 * n_states**2:.0f} GB; choose sparse=True, or fewer states"
        )
    count = _sparse_counts if sparse else _dense_counts
    counts = count(trajectories, lagtime, lagtime if counting == "strided" else 1, n_states)
    if counting == "effective":
        counts /= lagtime
    return counts


@njit(cache=True, nogil=True)
def _add_dense(states: Array, lagtime: int, step: int, counts: Array) -> None:
    for t in range(0, len(states) - lagtime, step):
        i, j = states[t], states[t + lagtime]
        if i >= 0 and j >= 0:
            counts[i, j] += 1.0


@njit(cache=True, nogil=True)
def _add_departures(states: Array, lagtime: int, step: int, departures: Array) -> None:
    for t in range(0, len(states) - lagtime, step):
        if states[t] >= 0 and states[t + lagtime] >= 0:
            departures[states[t]] += 1


@njit(cache=True, nogil=True)
def _sort_by_departure(states: Array, lagtime: int, step: int, place: Array, arrivals: Array) -> None:
    for t in range(0, len(states) - lagtime, step):
        i, j = states[t], states[t + lagtime]
        if i >= 0 and j >= 0:
            arrivals[place[i]] = j
            place[i] += 1


@njit(cache=True, nogil=True)
def _merge_rows(offsets: Array, arrivals: Array, columns: Array, values: Array, ends: Array) -> None:
    """Every state's arrivals, each once with its number; `columns` and `values` have room for all."""
    n_states = len(offsets) - 1
    seen = np.full(n_states, -1)
    n = 0
    for i in range(n_states):
        first = n
        for j in arrivals[offsets[i] : offsets[i + 1]]:
            if seen[j] < first:
                seen[j] = n
                columns[n] = j
                values[n] = 0.0
                n += 1
            values[seen[j]] += 1.0
        ends[i] = n


def _dense_counts(trajectories: Sequence[Array], lagtime: int, step: int, n_states: int) -> Array:
    counts = np.zeros((n_states, n_states))
    for states in trajectories:
        _add_dense(_signed(states), lagtime, step, counts)
    return counts


def _sparse_counts(trajectories: Sequence[Array], lagtime: int, step: int, n_states: int) -> Any:
    offsets = np.zeros(n_states + 1, dtype=np.int64)
    for states in trajectories:
        _add_departures(_signed(states), lagtime, step, offsets[1:])
    np.cumsum(offsets, out=offsets)
    arrivals = np.empty(offsets[-1], dtype=np.int32)
    place = offsets[:-1].copy()
    for states in trajectories:
        _sort_by_departure(_signed(states), lagtime, step, place, arrivals)
    columns, values, ends = np.empty_like(arrivals), np.empty(len(arrivals)), np.zeros(n_states + 1, dtype=np.int64)
    _merge_rows(offsets, arrivals, columns, values, ends[1:])
    n = ends[-1]
    counts = csr_array((values[:n].copy(), columns[:n].copy(), ends), shape=(n_states, n_states))
    counts.sort_indices()
    return counts


def _signed(states: Array) -> Array:
    # two kinds of integers are two compilations; the others are rare enough to be copied
    return states if states.dtype in (np.int32, np.int64) else states.astype(np.int64)


def connected_sets(counts: Counts) -> list[Array]:
    """Strongly connected sets of states: within one, every state is reached from every other.

    Parameters
    ----------
    counts : array (n_states, n_states) or scipy.sparse matrix

    Returns
    -------
    list of integer array
        The states of each, ascending; first the set with the most counts inside; ties go by the lowest state.

    Examples
    --------
    >>> connected_sets(np.array([[5, 1, 1], [2, 0, 0], [0, 0, 3]]))
    [array([0, 1]), array([2])]
    """
    if not issparse(counts) and np.all(counts):
        return [np.arange(len(counts))]
    graph = csr_array(counts, copy=issparse(counts))
    # zeros that are stored would connect
    graph.eliminate_zeros()
    n_sets, labels = csgraph.connected_components(graph, connection="strong")
    if n_sets == 1:
        return [np.arange(graph.shape[0])]
    start = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    inside = labels[start] == labels[graph.indices]
    weights = np.bincount(labels[start[inside]], graph.data[inside], n_sets)
    order = np.argsort(labels, kind="stable")
    sets = np.split(order, np.cumsum(np.bincount(labels, minlength=n_sets))[:-1])
    return [sets[k] for k in sorted(range(n_sets), key=lambda k: (-weights[k], sets[k][0]))]


class ActiveSet(NamedTuple):
    """The connected set of states with the most counts.

    Attributes
    ----------
    states : integer array (n_active,)
        Ascending.
    counts : array (n_active, n_active) or csr_array
        Between them.
    count_fraction : float
        Part of all counts that these are.
    n_visited : int
        States with any count, to or from.
    """

    states: Array
    counts: Counts
    count_fraction: float
    n_visited: int


def active_set(counts: Counts) -> ActiveSet:
    """The strongly connected set with the most counts inside: what a Markov model can be made of.

    Parameters
    ----------
    counts : array (n_states, n_states) or scipy.sparse matrix

    Returns
    -------
    ActiveSet

    Raises
    ------
    TypeError, ValueError
        If counts are not a square matrix of finite numbers, at least 0, with a positive one within a connected set.
    """
    counts = _check_counts(counts)
    total = counts.sum()
    states = connected_sets(counts)[0]
    if len(states) < counts.shape[0]:
        visited = np.asarray(counts.sum(axis=0)).ravel() + np.asarray(counts.sum(axis=1)).ravel() > 0
        inside = counts[states][:, states] if issparse(counts) else counts[np.ix_(states, states)]
    else:
        visited, inside = np.ones(len(states), dtype=bool), counts
    weight = inside.sum()
    if weight == 0:
        raise ValueError(
            f"counts must connect states in both directions, got {total:g} transitions and no way back to any state; "
            "use longer trajectories, a shorter lag time or fewer states"
        )
    return ActiveSet(states, inside, float(weight / total), int(np.count_nonzero(visited)))


def warn_of_left_out(active: ActiveSet) -> None:
    """Warn if states that were visited are not in the active set."""
    if len(active.states) < active.n_visited:
        warnings.warn(
            f"{active.n_visited - len(active.states)} of {active.n_visited} visited states, with "
            f"{100 * (1 - active.count_fraction):.3g} % of the counts, are left out: they are not connected in both "
            "directions with the set of states that has the most counts; active_states tells which remain",
            UserWarning,
            stacklevel=3,
        )


def _check_counts(counts: Any) -> Counts:
    if not issparse(counts):
        counts = np.asarray(counts)
    if counts.dtype.kind not in "fiu":
        raise TypeError(f"counts must be numbers, got {counts.dtype}")
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.shape[0]:
        raise ValueError(f"counts must be a square matrix, got shape {counts.shape}")
    if issparse(counts):
        counts = csr_array(counts, dtype=np.float64, copy=True)
        counts.sum_duplicates()
        counts.eliminate_zeros()
    else:
        counts = counts.astype(np.float64, copy=False)
    values = counts.data if issparse(counts) else counts
    if not np.isfinite(values).all() or (values.size and values.min() < 0):
        raise ValueError("counts must be finite and at least 0, got a negative number, NaN or infinity")
    return counts
