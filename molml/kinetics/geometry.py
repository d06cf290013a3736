"""Distances, angles and torsions of many frames: compiled, with periodic images, and in torch, differentiable.

Frames are handled in blocks, turned so that the same atom of successive frames lies side by side; every formula then
runs over frames and compiles to vector instructions. Arithmetic is in float64 whatever the precision of the frames.

Functions return values and, where a frame has no value (NaN, atoms on a line), the first such frame and term instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_jit = njit(cache=True, nogil=True, error_model="numpy")

_BLOCK = 32
_OPEN, _RECTANGULAR, _TRICLINIC = 0, 1, 2

COLLINEAR = 1e-12
"""Torsions are undefined where the product of the sines of the two angles is smaller."""


class NoValueError(ValueError):
    """A frame for which something cannot be computed.

    Attributes
    ----------
    reason : str
        Without the number of the frame.
    frame : int
    """

    def __init__(self, reason: str, frame: int) -> None:
        super().__init__(f"frame {frame}: {reason}")
        self.reason, self.frame = reason, frame


def distances(positions: Array, groups: list[Array], pairs: Array, cells: Array | None, scale: float) -> Array:
    """Shortest distance between the atoms of two groups, for every pair of groups.

    Parameters
    ----------
    positions : array of float32 or float64, shape (n_frames, n_atoms, 3)
    groups : list of int array
        Atoms of every group; not empty.
    pairs : int array, shape (n_pairs, 2)
        Numbers of groups.
    cells : array, shape (n_frames, 3, 3), or None
        Rows are lattice vectors, in the unit of the positions; for the nearest periodic image.
    scale : float
        Factor of the result.

    Returns
    -------
    array, shape (n_frames, n_pairs)
        In the precision of the positions.

    Raises
    ------
    NoValueError
        If a position is not finite, or a cell has no volume.
    """
    boxes, kind = _boxes(positions, cells)
    atoms, local = np.unique(np.concatenate(groups), return_inverse=True)
    start = np.concatenate([[0], np.cumsum([len(group) for group in groups])])
    values = np.empty((len(positions), len(pairs)), positions.dtype)
    if len(local) == len(groups):
        bad = _pair_distances(positions, atoms, local[pairs], boxes, kind, scale, values)
    else:
        bad = _distances(positions, atoms, local, start, pairs, boxes, kind, scale, values)
    if bad >= 0:
        raise _not_finite(positions, bad)
    return values


def angles(positions: Array, triplets: Array, cells: Array | None) -> tuple[Array, int]:
    """Angle at the second of three atoms.

    Parameters
    ----------
    positions, cells
        As for `distances`.
    triplets : int array, shape (n, 3)

    Returns
    -------
    values : array, shape (n_frames, n), radians in [0, π]
    bad : int
        Frame times n plus term where two atoms are in one place, or -1.

    Raises
    ------
    NoValueError
        As `distances`.
    """
    values = np.empty((len(positions), len(triplets)), positions.dtype)
    bad = _angles(positions, *_terms(positions, triplets, cells), values)
    return values, _undefined(positions, bad, len(triplets))


def torsions(positions: Array, quadruplets: Array, cells: Array | None, *, cossin: bool) -> tuple[Array, int]:
    """Torsion of four atoms, 0 for cis, positive clockwise seen along the middle bond (IUPAC).

    Parameters
    ----------
    positions, cells
        As for `distances`.
    quadruplets : int array, shape (n, 4)
    cossin : bool
        Cosine and sine, from products of vectors alone, instead of the angle.

    Returns
    -------
    values : array, shape (n_frames, 2 n) or (n_frames, n)
        Cosine and sine of every torsion in turn; or radians in [-π, π].
    bad : int
        Frame times n plus term where atoms are on a line, or -1.

    Raises
    ------
    NoValueError
        As `distances`.
    """
    values = np.empty((len(positions), (1 + cossin) * len(quadruplets)), positions.dtype)
    bad = _torsions(positions, *_terms(positions, quadruplets, cells), cossin, values)
    return values, _undefined(positions, bad, len(quadruplets))


def _terms(positions: Array, indices: Array, cells: Array | None) -> tuple[Array, Array, Array, int]:
    """Atoms that take part, where among them those of every term are, and the cells."""
    atoms, local = np.unique(indices, return_inverse=True)
    return atoms, local.reshape(indices.shape), *_boxes(positions, cells)


def _boxes(positions: Array, cells: Array | None) -> tuple[Array, int]:
    if cells is None:
        return np.empty((0, 3, 3)), _OPEN
    boxes = np.ascontiguousarray(cells, np.float64)
    with np.errstate(invalid="ignore"):
        volumes = np.abs(np.linalg.det(boxes))
    flat = np.flatnonzero(~((volumes > 0) & np.isfinite(volumes)))
    if len(flat):
        raise NoValueError(
            f"the unit cell must have a volume, got rows {boxes[flat[0]].tolist()}; give periodic=False if there is "
            "none",
            int(flat[0]),
        )
    # mdtraj makes the cosine of 90° to rounding
    lengths = np.abs(boxes).max(axis=(1, 2), keepdims=True)
    rectangular = bool((np.abs(boxes * (1 - np.eye(3))) <= 1e-6 * lengths).all())
    return boxes, _RECTANGULAR if rectangular else _TRICLINIC


def _undefined(positions: Array, bad: int, n_terms: int) -> int:
    if bad >= 0 and not np.isfinite(positions[bad // n_terms]).all():
        raise _not_finite(positions, bad // n_terms)
    return bad


def _not_finite(positions: Array, frame: int) -> NoValueError:
    atoms = np.flatnonzero(~np.isfinite(positions[frame]).all(axis=1))
    where = f"of atom {atoms[0]}" if len(atoms) else "so large that their squares overflow"
    return NoValueError(f"positions must be finite, got NaN, infinity or too large numbers ({where})", frame)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@_jit
def _pair_distances(positions, atoms, pairs, boxes, kind, scale, values):  # type: ignore[no-untyped-def]
    """Fill `values`; the first frame that is not finite, or -1."""
    # in the precision of the positions, which costs an ulp or two and is twice as fast
    x, box = np.empty((len(atoms), 3, _BLOCK), positions.dtype), np.empty((3, 3, _BLOCK), positions.dtype)
    v, lengths = np.empty((3, _BLOCK), positions.dtype), np.empty((len(pairs), _BLOCK), positions.dtype)
    factor, unknown = positions.dtype.type(scale), np.empty(_BLOCK, positions.dtype)
    for first in range(0, len(positions), _BLOCK):
        n = min(_BLOCK, len(positions) - first)
        _load(positions, atoms, boxes, kind, first, n, x, box)
        for k in range(len(pairs)):
            if kind == _OPEN:
                i, j = pairs[k, 0], pairs[k, 1]
                for f in range(_BLOCK):
                    a, b, c = x[j, 0, f] - x[i, 0, f], x[j, 1, f] - x[i, 1, f], x[j, 2, f] - x[i, 2, f]
                    lengths[k, f] = factor * np.sqrt(a * a + b * b + c * c)
            else:
                _difference(x, pairs[k, 0], pairs[k, 1], box, kind, v)
                for f in range(_BLOCK):
                    lengths[k, f] = factor * np.sqrt(v[0, f] * v[0, f] + v[1, f] * v[1, f] + v[2, f] * v[2, f])
        unknown[:] = 0.0
        for k in range(len(pairs)):
            for f in range(_BLOCK):
                # NaN and infinity make it NaN, for good
                unknown[f] += 0.0 * lengths[k, f]
        for f in range(n):
            if np.isnan(unknown[f]):
                return first + f
            for k in range(len(pairs)):
                values[first + f, k] = lengths[k, f]
    return -1


@_jit
def _distances(positions, atoms, local, start, pairs, boxes, kind, scale, values):  # type: ignore[no-untyped-def]
    x, box, v = np.empty((len(atoms), 3, _BLOCK)), np.empty((3, 3, _BLOCK)), np.empty((3, _BLOCK))
    best, unknown = np.empty(_BLOCK), np.empty(_BLOCK)
    for first in range(0, len(positions), _BLOCK):
        n = min(_BLOCK, len(positions) - first)
        _load(positions, atoms, boxes, kind, first, n, x, box)
        unknown[:] = 0.0
        for k in range(len(pairs)):
            a, b = pairs[k, 0], pairs[k, 1]
            best[:] = np.inf
            for i in range(start[a], start[a + 1]):
                for j in range(start[b], start[b + 1]):
                    _difference(x, local[i], local[j], box, kind, v)
                    for f in range(_BLOCK):
                        square = v[0, f] * v[0, f] + v[1, f] * v[1, f] + v[2, f] * v[2, f]
                        # NaN and infinity make it NaN, for good
                        unknown[f] += 0.0 * square
                        best[f] = min(best[f], square)
            for f in range(n):
                values[first + f, k] = scale * np.sqrt(best[f])
        for f in range(n):
            if np.isnan(unknown[f]):
                return first + f
    return -1


@_jit
def _angles(positions, atoms, triplets, boxes, kind, values):  # type: ignore[no-untyped-def]
    x, box = np.empty((len(atoms), 3, _BLOCK)), np.empty((3, 3, _BLOCK))
    u, v = np.empty((3, _BLOCK)), np.empty((3, _BLOCK))
    for first in range(0, len(positions), _BLOCK):
        n = min(_BLOCK, len(positions) - first)
        _load(positions, atoms, boxes, kind, first, n, x, box)
        for k in range(len(triplets)):
            _difference(x, triplets[k, 1], triplets[k, 0], box, kind, u)
            _difference(x, triplets[k, 1], triplets[k, 2], box, kind, v)
            for f in range(n):
                a, b, c = u[0, f], u[1, f], u[2, f]
                d, e, g = v[0, f], v[1, f], v[2, f]
                product = (a * a + b * b + c * c) * (d * d + e * e + g * g)
                if not 0.0 < product < np.inf:
                    return (first + f) * len(triplets) + k
                p, q, r = b * g - c * e, c * d - a * g, a * e - b * d
                values[first + f, k] = np.arctan2(np.sqrt(p * p + q * q + r * r), a * d + b * e + c * g)
    return -1


@_jit
def _torsions(positions, atoms, quadruplets, boxes, kind, cossin, values):  # type: ignore[no-untyped-def]
    x, box = np.empty((len(atoms), 3, _BLOCK)), np.empty((3, 3, _BLOCK))
    u, v, w = np.empty((3, _BLOCK)), np.empty((3, _BLOCK)), np.empty((3, _BLOCK))
    cosine, sine, size, least = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for first in range(0, len(positions), _BLOCK):
        n = min(_BLOCK, len(positions) - first)
        _load(positions, atoms, boxes, kind, first, n, x, box)
        for k in range(len(quadruplets)):
            _difference(x, quadruplets[k, 0], quadruplets[k, 1], box, kind, u)
            _difference(x, quadruplets[k, 1], quadruplets[k, 2], box, kind, v)
            _difference(x, quadruplets[k, 2], quadruplets[k, 3], box, kind, w)
            unknown = 0
            for f in range(_BLOCK):
                u0, u1, u2 = u[0, f], u[1, f], u[2, f]
                v0, v1, v2 = v[0, f], v[1, f], v[2, f]
                w0, w1, w2 = w[0, f], w[1, f], w[2, f]
                m0, m1, m2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
                n0, n1, n2 = v1 * w2 - v2 * w1, v2 * w0 - v0 * w2, v0 * w1 - v1 * w0
                middle = v0 * v0 + v1 * v1 + v2 * v2
                c = m0 * n0 + m1 * n1 + m2 * n2
                s = np.sqrt(middle) * (u0 * n0 + u1 * n1 + u2 * n2)
                # the length of both is |m| |n|
                length = np.sqrt(c * c + s * s)
                outer = np.sqrt((u0 * u0 + u1 * u1 + u2 * u2) * (w0 * w0 + w1 * w1 + w2 * w2))
                limit = COLLINEAR * middle * outer
                unknown += not limit < length < np.inf
                cosine[f], sine[f], size[f], least[f] = c, s, length, limit
            if unknown:
                for f in range(n):
                    if not least[f] < size[f] < np.inf:
                        return (first + f) * len(quadruplets) + k
            if cossin:
                for f in range(_BLOCK):
                    inverse = 1.0 / size[f]
                    cosine[f] *= inverse
                    sine[f] *= inverse
                for f in range(n):
                    values[first + f, 2 * k] = cosine[f]
                    values[first + f, 2 * k + 1] = sine[f]
            else:
                for f in range(n):
                    values[first + f, k] = np.arctan2(sine[f], cosine[f])
    return -1


@_jit
def _load(positions, atoms, boxes, kind, first, n, x, box):  # type: ignore[no-untyped-def]
    """Atoms and cells of a block of frames; the last frame is repeated to fill it."""
    reduced = np.empty((3, 3))
    for f in range(_BLOCK):
        frame = first + min(f, n - 1)
        for i in range(len(atoms)):
            for c in range(3):
                x[i, c, f] = positions[frame, atoms[i], c]
        if kind == _RECTANGULAR:
            for c in range(3):
                box[c, c, f] = boxes[frame, c, c]
        elif kind == _TRICLINIC:
            for r in range(3):
                for c in range(3):
                    reduced[r, c] = boxes[frame, r, c]
            _reduce(reduced)
            for r in range(3):
                for c in range(3):
                    box[r, c, f] = reduced[r, c]


@_jit
def _difference(x, i, j, box, kind, v):  # type: ignore[no-untyped-def]
    """Vector from atom i to the nearest image of atom j, in every frame of a block."""
    for c in range(3):
        for f in range(_BLOCK):
            v[c, f] = x[j, c, f] - x[i, c, f]
    if kind == _RECTANGULAR:
        for c in range(3):
            for f in range(_BLOCK):
                v[c, f] -= box[c, c, f] * np.floor(v[c, f] / box[c, c, f] + 0.5)
    elif kind == _TRICLINIC:
        for f in range(_BLOCK):
            _nearest(v, box, f)


@_jit
def _nearest(v, box, f):  # type: ignore[no-untyped-def]
    """Replace the vector of a frame by the shortest of its periodic images; the rows of the box are reduced."""
    a0, a1, a2 = box[0, 0, f], box[0, 1, f], box[0, 2, f]
    b0, b1, b2 = box[1, 0, f], box[1, 1, f], box[1, 2, f]
    c0, c1, c2 = box[2, 0, f], box[2, 1, f], box[2, 2, f]
    x, y, z = v[0, f], v[1, f], v[2, f]
    p0, p1, p2 = b1 * c2 - b2 * c1, b2 * c0 - b0 * c2, b0 * c1 - b1 * c0
    q0, q1, q2 = c1 * a2 - c2 * a1, c2 * a0 - c0 * a2, c0 * a1 - c1 * a0
    r0, r1, r2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    volume = a0 * p0 + a1 * p1 + a2 * p2
    i = np.floor((x * p0 + y * p1 + z * p2) / volume + 0.5)
    j = np.floor((x * q0 + y * q1 + z * q2) / volume + 0.5)
    k = np.floor((x * r0 + y * r1 + z * r2) / volume + 0.5)
    x -= i * a0 + j * b0 + k * c0
    y -= i * a1 + j * b1 + k * c1
    z -= i * a2 + j * b2 + k * c2
    best = np.inf
    # of a reduced lattice the nearest image is at most one step from the rounded one
    for step in range(27):
        i, j, k = step // 9 - 1.0, step // 3 % 3 - 1.0, step % 3 - 1.0
        d, e, g = x + i * a0 + j * b0 + k * c0, y + i * a1 + j * b1 + k * c1, z + i * a2 + j * b2 + k * c2
        square = d * d + e * e + g * g
        # NaN is taken, too: it must not get lost
        if not square >= best:
            best = square
            v[0, f], v[1, f], v[2, f] = d, e, g


@_jit
def _reduce(box):  # type: ignore[no-untyped-def]
    """Minkowski reduction: no lattice vector gets shorter by adding or subtracting the others."""
    shorter = True
    while shorter:
        shorter = False
        for r in range(3):
            s, t = (r + 1) % 3, (r + 2) % 3
            for i in range(-1, 2):
                for j in range(-1, 2):
                    x = box[r, 0] + i * box[s, 0] + j * box[t, 0]
                    y = box[r, 1] + i * box[s, 1] + j * box[t, 1]
                    z = box[r, 2] + i * box[s, 2] + j * box[t, 2]
                    length = box[r, 0] ** 2 + box[r, 1] ** 2 + box[r, 2] ** 2
                    # by more than rounding, so that it ends
                    if x * x + y * y + z * z < length * (1.0 - 1e-12):
                        box[r, 0], box[r, 1], box[r, 2] = x, y, z
                        shorter = True


# ---- the same in torch -----------------------------------------------------------------------------------------------


def distances_tensor(positions: Tensor, groups: list[Array], pairs: Array) -> Tensor:
    """`distances` without periodic images.

    Parameters
    ----------
    positions : Tensor, shape (..., n_atoms, 3)
    groups, pairs
        As for `distances`.

    Returns
    -------
    Tensor, shape (..., n_pairs)
        Its derivative at 0, where it has none, is 0.
    """
    import torch

    x = positions.double()
    if all(len(group) == 1 for group in groups):
        atoms = np.concatenate(groups)
        i, j = (torch.tensor(atoms[pairs[:, k]]) for k in (0, 1))
        return _length(x[..., j, :] - x[..., i, :]).to(positions.dtype)
    columns = []
    for a, b in pairs:
        i, j = torch.tensor(groups[a]), torch.tensor(groups[b])
        columns.append(_length(x[..., i, None, :] - x[..., None, j, :]).flatten(-2).amin(dim=-1))
    return torch.stack(columns, dim=-1).to(positions.dtype)


def angles_tensor(positions: Tensor, triplets: Array) -> tuple[Tensor, int]:
    """`angles` without periodic images.

    Parameters
    ----------
    positions : Tensor, shape (..., n_atoms, 3)
    triplets : int array, shape (n, 3)

    Returns
    -------
    values : Tensor, shape (..., n)
        Their derivative at 0 and π, where they have none, is 0.
    bad : int
        Frame times n plus term where two atoms are in one place, or -1.
    """
    import torch

    x = positions.double()
    i, j, k = (x[..., torch.tensor(triplets[:, c]), :] for c in range(3))
    u, v = i - j, k - j
    cross = _length(torch.linalg.cross(u, v))
    values = torch.atan2(cross, (u * v).sum(dim=-1))
    return values.to(positions.dtype), _first((u * u).sum(-1) * (v * v).sum(-1) > 0)


def torsions_tensor(positions: Tensor, quadruplets: Array, *, cossin: bool) -> tuple[Tensor, int]:
    """`torsions` without periodic images.

    Parameters
    ----------
    positions : Tensor, shape (..., n_atoms, 3)
    quadruplets : int array, shape (n, 4)
    cossin : bool

    Returns
    -------
    values : Tensor, shape (..., 2 n) or (..., n)
    bad : int
        Frame times n plus term where atoms are on a line, or -1.
    """
    import torch

    x = positions.double()
    i, j, k, m = (x[..., torch.tensor(quadruplets[:, c]), :] for c in range(4))
    u, v, w = j - i, k - j, m - k
    first, second = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    c, s = (first * second).sum(-1), _length(v) * (u * second).sum(-1)
    length = _length(torch.stack([c, s], dim=-1))
    bad = _first(length > COLLINEAR * (v * v).sum(-1) * ((u * u).sum(-1) * (w * w).sum(-1)).sqrt())
    if cossin:
        return torch.stack([c / length, s / length], dim=-1).flatten(-2).to(positions.dtype), bad
    return torch.atan2(s, c).to(positions.dtype), bad


def _length(v: Tensor) -> Tensor:
    """Norm over the last axis, with derivative 0 at 0 instead of NaN."""
    import torch

    square = (v * v).sum(dim=-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _first(good: Tensor) -> int:
    bad = (~good).flatten().nonzero()
    return int(bad[0]) if len(bad) else -1
