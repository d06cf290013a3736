"""Neighbour lists: which atoms see each other, through which lattice translation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molml.energy.cutoffs import jit

__all__ = ["neighbor_pairs", "neighbor_shifts"]

SMALLEST_HEIGHT = 0.1
"""Å; a periodic cell flatter than this is taken as singular: its atoms would overlap with their own images."""

THREADS_PAY_FROM = 5_000
"""Number of atoms below which starting threads takes longer than the search."""


def neighbor_pairs(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All ordered pairs of atoms closer than a cutoff, images included.

    The list is full (every pair appears in both directions) and its order does not depend on the search: sorted by the
    first atom, then by the second, then by the lattice translation.

    Parameters
    ----------
    positions : array, shape (n_atoms, 3), Å
        May lie outside the cell.
    cell : array, shape (3, 3), Å
        Rows are lattice vectors, of either handedness; zeros where there is none. Rows of directions that are not
        periodic are ignored.
    pbc : array of bool, shape (3,)
        Periodic directions.
    cutoff : float, Å
        May be longer than the cell.

    Returns
    -------
    first, second : array of int64, shape (n_pairs,)
    offset : array of float64, shape (n_pairs, 3), Å
        Lattice translation: ``positions[second] - positions[first] + offset`` points from the first to the second atom.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, the cutoff is not positive or a periodic cell is singular.

    Examples
    --------
    >>> neighbor_pairs([[0.0, 0.0, 0.0]], 3.0 * np.eye(3), [True, False, False], cutoff=3.5)[2]
    array([[-3.,  0.,  0.],
           [ 3.,  0.,  0.]])
    """
    first, second, shift = neighbor_shifts(positions, cell, pbc, cutoff)
    return first, second, shift.astype(np.float64) @ np.asarray(cell, dtype=np.float64)


def neighbor_shifts(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """`neighbor_pairs` with the lattice translations counted in cell vectors.

    Returns
    -------
    first, second : array of int64, shape (n_pairs,)
    shift : array of int32, shape (n_pairs, 3)
        ``shift @ cell`` is the offset in Å.
    """
    points = np.ascontiguousarray(positions, dtype=np.float64)
    box = np.array(cell, dtype=np.float64)
    periodic = np.asarray(pbc, dtype=bool)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"positions must have shape (n_atoms, 3), got {points.shape}")
    if box.shape != (3, 3):
        raise ValueError(f"cell must have shape (3, 3) with lattice vectors as rows, got {box.shape}")
    if periodic.shape != (3,):
        raise ValueError(f"pbc must hold three booleans, got shape {periodic.shape}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"cutoff must be a positive length in Å, got {cutoff}")
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if wrong.size:
        raise ValueError(f"positions must be finite, got {points[wrong[0]].tolist()} for atom {wrong[0]}")
    check_cell(box, periodic)
    # the vectors of directions that do not repeat carry no meaning, but a search could divide by their volume
    box[~periodic] = 0.0
    if len(points) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int32)

    # vesin imports torch and loads a shared library: only when a list is really wanted
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, n_threads=1 if len(points) < THREADS_PAY_FROM else 0)
    i, j, s = search.compute(points, box, periodic, quantities="ijS", copy=False)
    return _sorted(i, j, s, len(points))


@jit
def _sorted(
    i: NDArray[np.uint64], j: NDArray[np.uint64], s: NDArray[np.int32], n_atoms: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """The pairs sorted by first, second, shift; no two are the same, so every algorithm gives the same."""
    n = len(i)
    # by the second atom, then by the first, each by counting; what was in order stays so
    order, keys = np.arange(n), j
    for _ in range(2):
        ends = np.zeros(n_atoms + 1, np.int64)
        for p in range(n):
            ends[np.int64(keys[p]) + 1] += 1
        for a in range(n_atoms):
            ends[a + 1] += ends[a]
        own = np.empty(n, np.int64)
        for p in range(n):
            key = np.int64(keys[order[p]])
            own[ends[key]] = order[p]
            ends[key] += 1
        order, keys = own, i
    first, second, shift = np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, 3), np.int32)
    for p in range(n):
        q = order[p]
        one, other, x, y, z = np.int64(i[q]), np.int64(j[q]), s[q, 0], s[q, 1], s[q, 2]
        # images of the same two atoms are few: each moves up to its place
        place = int(p)
        while place > 0 and first[place - 1] == one and second[place - 1] == other:
            u, v, w = shift[place - 1, 0], shift[place - 1, 1], shift[place - 1, 2]
            if u < x or (u == x and (v < y or (v == y and w < z))):
                break
            shift[place, 0], shift[place, 1], shift[place, 2] = u, v, w
            place -= 1
        first[p], second[p] = one, other
        shift[place, 0], shift[place, 1], shift[place, 2] = x, y, z
    return first, second, shift


def check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> None:
    """Refuse a cell that cannot tile space along its periodic directions.

    Parameters
    ----------
    cell : array, shape (3, 3), Å
    pbc : array of bool, shape (3,)

    Raises
    ------
    ValueError
        If the cell is not finite, a periodic vector is missing, or the periodic vectors are (nearly) dependent.
    """
    if not np.isfinite(cell).all():
        raise ValueError(f"cell must be finite, got {cell.tolist()}")
    vectors = cell[pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    if (lengths == 0).any():
        missing = np.array(["a", "b", "c"])[pbc][lengths == 0]
        them = "it" if len(missing) == 1 else "them"
        raise ValueError(
            f"cell vector{'' if len(missing) == 1 else 's'} {', '.join(missing)} must not be zero where "
            f"pbc={tuple(pbc.tolist())} calls {them} periodic; give the cell or set pbc to False there"
        )
    if len(vectors) == 0:
        return
    if np.linalg.svd(vectors / lengths[:, None], compute_uv=False)[-1] < 1e-10 or _height(cell, pbc) < SMALLEST_HEIGHT:
        raise ValueError(
            f"cell is singular: its periodic vectors {vectors.tolist()} are linearly dependent or flatter than "
            f"{SMALLEST_HEIGHT} Å"
        )


def _height(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> float:
    """Smallest distance between lattice planes, judged in the reduced cell if the given one is skewed."""
    if (height := _plane_distance(cell[pbc])) >= SMALLEST_HEIGHT:
        return height
    from ase.geometry import minkowski_reduce

    return _plane_distance(minkowski_reduce(cell, pbc)[0][pbc])


def _plane_distance(vectors: NDArray[np.float64]) -> float:
    # columns of the pseudo-inverse are the reciprocal vectors within the space the vectors span
    return float(1.0 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max())
