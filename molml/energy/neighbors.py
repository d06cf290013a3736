"""Neighbour lists: which atoms see each other, through which lattice translation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray

from molml.energy.cutoffs import jit
from molml.energy.lanes import LANES, below, compress, exact_difference, exact_sum, load, spread

__all__ = ["neighbor_pairs", "neighbor_shifts"]

SMALLEST_HEIGHT = 0.1
"""Å; a periodic cell flatter than this is taken as singular: its atoms would overlap with their own images."""

THREADS_PAY_FROM = 2_000
"""Number of atoms below which starting threads takes longer than the search."""

# bins along the third direction lie one after the other in memory: small ones there leave fewer atoms to look at
_BINS_PER_CUTOFF = np.array([1, 1, 2])
_FURTHEST = 2**30  # cells from home, beyond which translations no longer fit into their integers


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
    return first, second, _offsets(shift, np.array(cell, dtype=np.float64))


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
    grid = _grid(points, box, periodic, float(cutoff))
    n_threads = torch.get_num_threads() if len(points) >= THREADS_PAY_FROM else 1
    step = -(-len(points) // n_threads)
    ranges = [(low, min(low + step, len(points))) for low in range(0, len(points), step)]
    if len(ranges) == 1:
        found = [_search(*ranges[0], grid)]
    else:
        with ThreadPoolExecutor(len(ranges)) as pool:
            found = list(pool.map(lambda own: _search(*own, grid), ranges))
    counts = np.concatenate([count for _, _, count in found])
    start = np.cumsum(counts) - counts
    pairs = np.empty(int(counts.sum()), np.int64), np.empty(int(counts.sum()), np.int64)
    shift, place = np.empty((len(pairs[0]), 3), np.int32), start.copy()
    for (low, high), (other, image, count) in zip(ranges, found, strict=True):
        _turn(low, high, other, image, count, grid.home, start, place, *pairs, shift)
    return *pairs, shift


class _Grid(NamedTuple):
    """Atoms in bins; those of one bin, and of bins that follow each other along the third direction, lie together."""

    cell: np.ndarray  # (3, 3) lattice vectors, zeros in directions that are not periodic
    home: np.ndarray  # (n_atoms, 3) the cell that an atom lies in
    bins: np.ndarray  # (n_atoms, 3) and the bin in it
    n_bins: np.ndarray  # (3,) bins of every direction
    reach: np.ndarray  # (3,) how many bins away a neighbour may be
    periodic: np.ndarray  # (3,) of bool
    start: np.ndarray  # (bins + 1,) first place of every bin
    atoms: np.ndarray  # (n_atoms,) the atom at every place
    place: np.ndarray  # (n_atoms,) the place of every atom
    places: np.ndarray  # (1, n_atoms + LANES): 0, 1, 2 ...
    points: np.ndarray  # (4, n_atoms + LANES) positions within the cell by place, and the place
    cutoff: float


def _grid(points: np.ndarray, cell: np.ndarray, periodic: np.ndarray, cutoff: float) -> _Grid:
    """Sort atoms into bins, no more of them than atoms."""
    frame = cell.copy()
    # the directions left over stand at right angles to the periodic ones, in Å
    frame[~periodic] = scipy.linalg.null_space(cell[periodic]).T if periodic.any() else np.eye(3)
    inverse = np.linalg.inv(frame)
    fraction = points @ inverse
    far = np.flatnonzero((np.abs(fraction[:, periodic]) > _FURTHEST).any(axis=1))
    if far.size:
        raise ValueError(
            f"atom {far[0]} at {points[far[0]].tolist()} is {np.abs(fraction[far[0], periodic]).max():.3g} cells away "
            "from home; wrap the positions"
        )
    home = np.where(periodic, np.floor(fraction), 0.0)
    fraction -= home
    low = np.where(periodic, 0.0, fraction.min(0))
    width = np.where(periodic, 1.0, fraction.max(0) - low)
    height = width / np.linalg.norm(inverse, axis=0)
    count = np.clip(height * (_BINS_PER_CUTOFF * (1.0 - 1e-6) / cutoff), 1, len(points)).astype(np.int64)
    while np.prod(count.astype(float)) > len(points):
        count[count.argmax()] = (count.max() + 1) // 2
    # atoms in a plane but for rounding have bins of no height; where nothing repeats the last bin is the furthest
    thick = np.maximum(height / count, 1e-9 * cutoff)
    reach = np.minimum(np.floor(cutoff / thick) + 1, np.where(periodic, np.inf, count)).astype(np.int64)
    scaled = (fraction - low) * (count / np.where(width > 0.0, width, 1.0))
    # rounding can put an atom on the far side of its cell
    bins = np.clip(scaled.astype(np.int64), 0, count - 1)
    flat = (bins[:, 0] * count[1] + bins[:, 1]) * count[2] + bins[:, 2]
    atoms = np.argsort(flat, kind="stable")
    place = np.empty_like(atoms)
    place[atoms] = np.arange(len(atoms))
    start = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=int(count.prod())))])
    places = np.arange(len(points) + LANES)
    inside = np.zeros((4, len(places)))
    inside[:3, : len(points)] = (points - home @ cell)[atoms].T
    inside[3] = places
    return _Grid(
        cell, home.astype(np.int64), bins, count, reach, periodic, start, atoms, place, places[None], inside, cutoff
    )


@jit
def _search(low: int, high: int, grid: _Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours of the atoms low ... high, atom after atom: who, in which cell beside one's own, and how many."""
    points, a, b, c = grid.points, grid.cell[0], grid.cell[1], grid.cell[2]
    n_x, n_y, n_z = grid.n_bins[0], grid.n_bins[1], grid.n_bins[2]
    limit, nowhere, n = spread(grid.cutoff**2), spread(np.inf), 0
    other, image = np.empty((1, 64 * (high - low + 1)), np.int64), np.empty((64 * (high - low + 1), 3), np.int32)
    counts = np.empty(high - low, np.int64)
    for i in range(low, high):
        before, own = n, grid.place[i]
        x, y, z = spread(points[0, own]), spread(points[1, own]), spread(points[2, own])
        for u in range(grid.bins[i, 0] - grid.reach[0], grid.bins[i, 0] + grid.reach[0] + 1):
            s = u // n_x
            if s and not grid.periodic[0]:
                continue
            for v in range(grid.bins[i, 1] - grid.reach[1], grid.bins[i, 1] + grid.reach[1] + 1):
                t = v // n_y
                if t and not grid.periodic[1]:
                    continue
                column = ((u - s * n_x) * n_y + v - t * n_y) * n_z
                first, last = grid.bins[i, 2] - grid.reach[2], grid.bins[i, 2] + grid.reach[2]
                if not grid.periodic[2]:
                    first, last = max(first, 0), min(last, n_z - 1)
                for w in range(first // n_z, last // n_z + 1):
                    start = grid.start[column + max(first - w * n_z, 0)]
                    end = grid.start[column + min(last - w * n_z, n_z - 1) + 1]
                    if start == end:
                        continue
                    if n + end - start + LANES > other.shape[1]:
                        other, image = _longer(other, image, n, end - start + LANES)
                    stop = spread(float(end))
                    p = spread(s * a[0] + t * b[0] + w * c[0])
                    q = spread(s * a[1] + t * b[1] + w * c[1])
                    r = spread(s * a[2] + t * b[2] + w * c[2])
                    begun = n
                    for k in range(start, end, LANES):
                        # the difference first: seen from the other atom it is the opposite to the last digit
                        d = exact_sum(exact_difference(load(points, 0, k), x), p)
                        e = exact_sum(exact_difference(load(points, 1, k), y), q)
                        f = exact_sum(exact_difference(load(points, 2, k), z), r)
                        squared = below(load(points, 3, k), stop, d * d + e * e + f * f, nowhere)
                        n += compress(other, 0, n, grid.places, 0, k, squared, limit)
                    if s == 0 and t == 0 and w == 0 and start <= own < end:
                        m = begun
                        while other[0, m] != own:
                            m += 1
                        n -= 1
                        other[0, m] = other[0, n]
                    for m in range(begun, n):
                        image[m, 0], image[m, 1], image[m, 2] = s, t, w
        for m in range(before, n):
            other[0, m] = grid.atoms[other[0, m]]
        counts[i - low] = n - before
    return other[0, :n], image[:n], counts


@jit
def _longer(other: np.ndarray, image: np.ndarray, n: int, more: int) -> tuple[np.ndarray, np.ndarray]:
    """More room for what is found."""
    room = 2 * other.shape[1] + more
    longer, images = np.empty((1, room), np.int64), np.empty((room, 3), np.int32)
    longer[0, :n], images[:n] = other[0, :n], image[:n]
    return longer, images


@jit
def _turn(
    low: int,
    high: int,
    other: np.ndarray,
    image: np.ndarray,
    counts: np.ndarray,
    home: np.ndarray,
    start: np.ndarray,
    place: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    shift: np.ndarray,
) -> None:
    """Give every pair to its other atom: as those here come in order, so do the neighbours there."""
    p = 0
    for j in range(low, high):
        for _ in range(counts[j - low]):
            i = other[p]
            x = np.int32(home[i, 0] - home[j, 0] - image[p, 0])
            y = np.int32(home[i, 1] - home[j, 1] - image[p, 1])
            z = np.int32(home[i, 2] - home[j, 2] - image[p, 2])
            at = place[i]
            place[i] += 1
            first[at], second[at] = i, j
            # images of the same two atoms are few: each moves up to its place
            while at > start[i] and second[at - 1] == j:
                u, v, w = shift[at - 1, 0], shift[at - 1, 1], shift[at - 1, 2]
                if u < x or (u == x and (v < y or (v == y and w < z))):
                    break
                shift[at, 0], shift[at, 1], shift[at, 2] = u, v, w
                at -= 1
            shift[at, 0], shift[at, 1], shift[at, 2] = x, y, z
            p += 1


@jit
def _offsets(shift: np.ndarray, cell: np.ndarray) -> np.ndarray:
    offset = np.empty((len(shift), 3))
    for p in range(len(shift)):
        for axis in range(3):
            offset[p, axis] = shift[p, 0] * cell[0, axis] + shift[p, 1] * cell[1, axis] + shift[p, 2] * cell[2, axis]
    return offset


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
