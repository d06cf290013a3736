"""Superposition on a reference: for every frame the proper rotation of least weighted squared deviation.

The rotation is the unit quaternion that belongs to the largest eigenvalue of Horn's symmetric 4 × 4 matrix. Where that
eigenvalue is well apart from the others, Newton's method on the characteristic polynomial finds it from above, and a
few cofactors give the quaternion; the residual is checked for every frame. All other frames, the degenerate ones
included, go through Jacobi rotations, which do not fail.

References
----------
Kabsch, Acta Cryst. A 32, 922 (1976); Horn, J. Opt. Soc. Am. A 4, 629 (1987); Theobald, Acta Cryst. A 61, 478 (2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    import mdtraj
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_jit = njit(cache=True, nogil=True, error_model="numpy")

# the largest eigenvalue is told from the others by p'(λ), the product of the gaps, in units of the matrix cubed; below
# it Newton's method loses digits
_APART = 1e-2
_RESIDUAL = 1e-13


def align(
    trajectory: mdtraj.Trajectory, reference: mdtraj.Trajectory, *, atoms: Sequence[int] | None = None
) -> mdtraj.Trajectory:
    """Every frame superposed on the first frame of a reference, as a new trajectory.

    Parameters
    ----------
    trajectory : mdtraj.Trajectory
        Molecules must be whole; the superposition does not know of periodic images.
    reference : mdtraj.Trajectory
        Its first frame counts; it must have the atoms of the trajectory.
    atoms : sequence of int, optional
        Which atoms to superpose (``topology.select("name CA")``, say); all atoms move along. If not given, all.

    Returns
    -------
    mdtraj.Trajectory
        Without unit cell, whose directions would no longer be those of the frames.

    Raises
    ------
    TypeError, ValueError
        If the atoms of the two do not fit, or a position is not finite; the message names the frame.

    Examples
    --------
    >>> import mdtraj
    >>> aligned = align(trajectory, trajectory[0], atoms=trajectory.topology.select("name CA"))  # doctest: +SKIP
    """
    import mdtraj

    for name, value in (("trajectory", trajectory), ("reference", reference)):
        if not isinstance(value, mdtraj.Trajectory):
            raise TypeError(f"{name} must be an mdtraj.Trajectory, got {type(value).__name__}")
    if reference.n_atoms != trajectory.n_atoms or reference.n_frames == 0:
        raise ValueError(
            f"reference must have the {trajectory.n_atoms} atoms of the trajectory and a frame, got "
            f"{reference.n_atoms} atoms and {reference.n_frames} frames; slice both to the atoms they share"
        )
    weights = None if atoms is None else _indicator(atoms, trajectory.n_atoms)
    xyz = align_positions(trajectory.xyz, reference.xyz[0], weights)
    return mdtraj.Trajectory(xyz, trajectory.topology, time=trajectory.time.copy())


def _indicator(atoms: Sequence[int], n_atoms: int) -> Array:
    chosen = np.asarray(atoms)
    if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(
            f"atoms must be a non-empty sequence of atom indices, got {atoms!r}; "
            "topology.select('name CA') makes one of a selection"
        )
    if chosen.min() < 0 or chosen.max() >= n_atoms:
        raise ValueError(f"atoms must lie in 0 ... {n_atoms - 1}, got {chosen.min()} ... {chosen.max()}")
    weights = np.zeros(n_atoms)
    weights[chosen] = 1.0
    return weights


def align_positions(positions: Array, reference: Array, weights: Array | None = None) -> Array:
    """Every frame rotated and shifted so that Σ w |x - reference|² is least.

    The rotation is always proper (never a reflection). Where several are equally good (atoms on a line, or a
    mirror image that could be turned in more than one way) one of them is taken, always the same.

    Parameters
    ----------
    positions : array, shape (n_frames, n_atoms, 3)
        Of any length unit.
    reference : array, shape (n_atoms, 3)
        In the same unit.
    weights : array, shape (n_atoms,), optional
        0 or more, not all 0. If not given, 1 for every atom.

    Returns
    -------
    array, shape (n_frames, n_atoms, 3)
        float32 for float32 positions, otherwise float64; computed in float64. A new array.

    Raises
    ------
    ValueError
        If shapes do not fit, weights are negative, or a number is not finite; the message names the frame.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    >>> turned = square @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) + 7.0
    >>> np.allclose(align_positions(turned[None], square), square)
    True
    """
    frames, target, w = checked_input(positions, reference, weights)
    aligned = np.empty_like(frames)
    bad = _align(frames, target, w, aligned)
    if bad >= 0:
        _refuse(frames, bad)
    return aligned


def rmsd(positions: Array, reference: Array, weights: Array | None = None) -> Array:
    """Root of the least weighted mean squared deviation from a reference, over all rotations and shifts.

    Parameters
    ----------
    positions, reference, weights
        As for `align_positions`.

    Returns
    -------
    array of float64, shape (n_frames,)
        In the unit of the positions.

    Raises
    ------
    ValueError
        As `align_positions`.
    """
    frames, target, w = checked_input(positions, reference, weights)
    values = np.empty(len(frames))
    bad = _rmsd(frames, target, w, values)
    if bad >= 0:
        _refuse(frames, bad)
    return values


def align_tensor(positions: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """`align_positions` in torch, of which the first derivative can be taken.

    Parameters
    ----------
    positions : Tensor, shape (..., n_atoms, 3)
    reference : Tensor, shape (n_atoms, 3)
    weights : Tensor, shape (n_atoms,)

    Returns
    -------
    Tensor, shape (..., n_atoms, 3)
        In the precision of the positions; computed in float64. Its second derivative is wrong.

    Raises
    ------
    ValueError
        If several rotations are equally good for a frame, so that there is no derivative.
    """
    import torch

    moved, centred, goal = _centred_tensors(positions, reference, weights)
    matrix = _horn_matrix(moved, centred * weights.double()[:, None])
    values, vectors = torch.linalg.eigh(matrix.detach())
    gaps = values[..., 3:] - values[..., :3]
    size = torch.linalg.matrix_norm(matrix.detach())
    unclear = (gaps[..., 2] <= 1e-12 * size).reshape(-1).nonzero()
    if len(unclear):
        raise ValueError(
            f"positions must have one best rotation to be differentiated, got several in frame {int(unclear[0])} "
            "(atoms on a line, or too far from the reference); take features that need no reference, such as distances"
        )
    largest, others = vectors[..., 3], vectors[..., :3]
    # first order perturbation: equal in value, as the others are orthogonal to M q, and right in the derivative, which
    # the derivative of eigh is not where two of the other eigenvalues meet
    mixing = torch.einsum("...kj,...jm,...k->...m", matrix, others, largest) / gaps
    q = largest + torch.einsum("...km,...m->...k", others, mixing)
    q = q / q.norm(dim=-1, keepdim=True)
    return (moved @ _rotation_tensor(q).mT + goal).to(positions.dtype)


def rmsd_tensor(positions: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """`rmsd` in torch, of which the first derivative can be taken.

    Parameters
    ----------
    positions, reference, weights
        As for `align_tensor`.

    Returns
    -------
    Tensor, shape (...)
        Its derivative at 0, where it has none, is 0.
    """
    import torch

    moved, centred, _ = _centred_tensors(positions, reference, weights)
    w = weights.double()
    vectors = torch.linalg.eigh(_horn_matrix(moved.detach(), centred * w[:, None]))[1]
    # to first order the best rotation does not change the deviation, which is what it makes least
    difference = moved @ _rotation_tensor(vectors[..., 3]).mT - centred
    mean = (w[:, None] * difference**2).sum(dim=(-2, -1)) / w.sum()
    positive = mean > 0
    return torch.where(positive, torch.where(positive, mean, 1.0).sqrt(), 0.0).to(positions.dtype)


def _centred_tensors(positions: Tensor, reference: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions and reference about their weighted centres, in float64, and the centre of the reference."""
    share = (weights.double() / weights.double().sum())[:, None]
    target = reference.double()
    relative = positions.double() - positions[..., :1, :].double()
    goal = target[0] + (share * (target - target[0])).sum(dim=0)
    return relative - (share * relative).sum(dim=-2, keepdim=True), target - goal, goal


def _horn_matrix(x: Tensor, weighted: Tensor) -> Tensor:
    """Symmetric matrix (..., 4, 4) whose eigenvector of the largest eigenvalue is the best rotation's quaternion."""
    import torch

    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in (x.mT @ weighted).unbind(-2))
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation_tensor(q: Tensor) -> Tensor:
    import torch

    a, b, c, d = q.unbind(-1)
    rows = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def checked_input(positions: Array, reference: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Frames in their precision, reference and weights in float64; see `align_positions` for what is refused."""
    frames = np.asarray(positions)
    frames = np.ascontiguousarray(frames, frames.dtype if frames.dtype == np.float32 else np.float64)
    if frames.ndim != 3 or frames.shape[1] == 0 or frames.shape[2] != 3:
        raise ValueError(f"positions must have shape (n_frames, n_atoms, 3), got {frames.shape}")
    target = np.ascontiguousarray(reference, np.float64)
    if target.shape != frames.shape[1:]:
        raise ValueError(f"reference must have shape {frames.shape[1:]} as a frame, got {target.shape}")
    if not np.isfinite(target).all():
        raise ValueError("reference must be finite, got NaN or infinity")
    w = np.ones(len(target)) if weights is None else np.ascontiguousarray(weights, np.float64)
    if w.shape != (len(target),) or not np.isfinite(w).all() or w.min() < 0 or w.max() == 0:
        raise ValueError(
            f"weights must be {len(target)} finite numbers of at least 0, not all 0, got {_described(w)}; "
            "one for every atom"
        )
    return frames, target, w


def _described(array: Array) -> str:
    return f"shape {array.shape}" + (f" from {array.min()} to {array.max()}" if array.size else "")


def _refuse(frames: Array, bad: int) -> None:
    broken = np.flatnonzero(~np.isfinite(frames[bad]).all(axis=1))
    where = f"of atom {broken[0]}" if len(broken) else "so large that their squares overflow"
    raise ValueError(f"positions must be finite, got NaN, infinity or too large numbers in frame {bad} ({where})")


# ---- kernels ---------------------------------------------------------------------------------------------------------


@_jit
def _align(frames, target, weights, aligned):  # type: ignore[no-untyped-def]
    """Fill `aligned`; the number of the first frame that is not finite, or -1."""
    n_frames, n_atoms, _ = frames.shape
    goal, centred, weighted, moved, rotation = _prepare(target, weights)
    for f in range(n_frames):
        _centre(frames[f], weights, moved)
        if not _rotation(moved, weighted, rotation):
            return f
        for i in range(n_atoms):
            x, y, z = moved[i, 0], moved[i, 1], moved[i, 2]
            for k in range(3):
                aligned[f, i, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z + goal[k]
    return -1


@_jit
def _rmsd(frames, target, weights, values):  # type: ignore[no-untyped-def]
    n_frames, n_atoms, _ = frames.shape
    _, centred, weighted, moved, rotation = _prepare(target, weights)
    total = weights.sum()
    for f in range(n_frames):
        _centre(frames[f], weights, moved)
        if not _rotation(moved, weighted, rotation):
            return f
        # the deviation itself: a difference of sums of squares would lose half the digits of a small one
        deviation = 0.0
        for i in range(n_atoms):
            x, y, z = moved[i, 0], moved[i, 1], moved[i, 2]
            square = 0.0
            for k in range(3):
                difference = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z - centred[i, k]
                square += difference * difference
            deviation += weights[i] * square
        values[f] = np.sqrt(deviation / total)
    return -1


@_jit
def _prepare(target, weights):  # type: ignore[no-untyped-def]
    centred = np.empty(target.shape)
    _centre(target, weights, centred)
    weighted = centred * weights.reshape(-1, 1)
    return target[0] - centred[0], centred, weighted, np.empty(target.shape), np.empty((3, 3))


@_jit
def _centre(x, weights, out):  # type: ignore[no-untyped-def]
    """Positions about their weighted centre."""
    n_atoms = len(x)
    # relative to the first atom, so that a molecule far from the origin loses no digits
    ox, oy, oz = np.float64(x[0, 0]), np.float64(x[0, 1]), np.float64(x[0, 2])
    cx = cy = cz = total = 0.0
    for i in range(n_atoms):
        w = weights[i]
        dx, dy, dz = x[i, 0] - ox, x[i, 1] - oy, x[i, 2] - oz
        out[i, 0], out[i, 1], out[i, 2] = dx, dy, dz
        cx += w * dx
        cy += w * dy
        cz += w * dz
        total += w
    cx, cy, cz = cx / total, cy / total, cz / total
    for i in range(n_atoms):
        out[i, 0] -= cx
        out[i, 1] -= cy
        out[i, 2] -= cz


@_jit
def _rotation(x, weighted, rotation):  # type: ignore[no-untyped-def]
    """Rotation that brings x closest to the reference; False if a number is not finite."""
    xx = xy = xz = yx = yy = yz = zx = zy = zz = 0.0
    for i in range(len(x)):
        a, b, c = x[i, 0], x[i, 1], x[i, 2]
        u, v, w = weighted[i, 0], weighted[i, 1], weighted[i, 2]
        xx += a * u
        xy += a * v
        xz += a * w
        yx += b * u
        yy += b * v
        yz += b * w
        zx += c * u
        zy += c * v
        zz += c * w
    size = np.sqrt(xx * xx + xy * xy + xz * xz + yx * yx + yy * yy + yz * yz + zx * zx + zy * zy + zz * zz)
    if not np.isfinite(size):
        return False
    if size == 0.0:
        _from_quaternion(1.0, 0.0, 0.0, 0.0, rotation)
        return True
    scale = 1.0 / size
    xx, xy, xz = xx * scale, xy * scale, xz * scale
    yx, yy, yz = yx * scale, yy * scale, yz * scale
    zx, zy, zz = zx * scale, zy * scale, zz * scale
    # Horn's matrix
    a00, a01, a02, a03 = xx + yy + zz, yz - zy, zx - xz, xy - yx
    a11, a12, a13 = xx - yy - zz, xy + yx, zx + xz
    a22, a23 = yy - xx - zz, yz + zy
    a33 = zz - xx - yy
    # its characteristic polynomial λ⁴ - 2 λ² + c1 λ + c0, for a covariance of norm 1
    m00, m01, m02 = yy * zz - yz * zy, yz * zx - yx * zz, yx * zy - yy * zx
    m10, m11, m12 = xz * zy - xy * zz, xx * zz - xz * zx, xy * zx - xx * zy
    m20, m21, m22 = xy * yz - xz * yy, xz * yx - xx * yz, xx * yy - xy * yx
    c1 = -8.0 * (xx * m00 + xy * m01 + xz * m02)
    c0 = 1.0 - 4.0 * (
        m00 * m00 + m01 * m01 + m02 * m02 + m10 * m10 + m11 * m11 + m12 * m12 + m20 * m20 + m21 * m21 + m22 * m22
    )
    # all roots are real and the largest is at most √3: from there Newton's method falls monotonically
    root, slope, step = 1.7320508075688774, 0.0, 1.0
    for _ in range(30):
        square = root * root
        slope = 4.0 * root * (square - 1.0) + c1
        if slope < _APART:
            break
        step = ((square - 2.0) * square + c1 * root + c0) / slope
        root -= step
        if abs(step) < 1e-10:
            break
    slope = 4.0 * root * (root * root - 1.0) + c1
    # right of the last turning point (all derivatives positive) there is one root only
    if slope >= _APART and abs(step) < 1e-10 and 3.0 * root * root > 1.0:
        b00, b11, b22, b33 = a00 - root, a11 - root, a22 - root, a33 - root
        # 2 × 2 minors of the last and of the first two rows, then the cofactors, which are multiples of q qᵀ
        t01, t02, t03 = a02 * a13 - a03 * a12, a02 * a23 - a03 * b22, a02 * b33 - a03 * a23
        t12, t13, t23 = a12 * a23 - a13 * b22, a12 * b33 - a13 * a23, b22 * b33 - a23 * a23
        s01, s02, s03 = b00 * b11 - a01 * a01, b00 * a12 - a01 * a02, b00 * a13 - a01 * a03
        s12, s13 = a01 * a12 - b11 * a02, a01 * a13 - b11 * a03
        d00 = b11 * t23 - a12 * t13 + a13 * t12
        d11 = b00 * t23 - a02 * t03 + a03 * t02
        d22 = a03 * s13 - a13 * s03 + b33 * s01
        d33 = a02 * s12 - a12 * s02 + b22 * s01
        e0, e1, e2, e3 = abs(d00), abs(d11), abs(d22), abs(d33)
        d01 = -(a01 * t23 - a12 * t03 + a13 * t02)
        d23 = -(a02 * s13 - a12 * s03 + a23 * s01)
        d02 = a01 * t13 - b11 * t03 + a13 * t01
        d03 = -(a01 * t12 - b11 * t02 + a12 * t01)
        d12 = -(b00 * t13 - a01 * t03 + a03 * t01)
        d13 = b00 * t12 - a01 * t02 + a02 * t01
        if e0 >= e1 and e0 >= e2 and e0 >= e3:
            q0, q1, q2, q3 = d00, d01, d02, d03
        elif e1 >= e2 and e1 >= e3:
            q0, q1, q2, q3 = d01, d11, d12, d13
        elif e2 >= e3:
            q0, q1, q2, q3 = d02, d12, d22, d23
        else:
            q0, q1, q2, q3 = d03, d13, d23, d33
        norm = 1.0 / np.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
        q0, q1, q2, q3 = q0 * norm, q1 * norm, q2 * norm, q3 * norm
        r0 = b00 * q0 + a01 * q1 + a02 * q2 + a03 * q3
        r1 = a01 * q0 + b11 * q1 + a12 * q2 + a13 * q3
        r2 = a02 * q0 + a12 * q1 + b22 * q2 + a23 * q3
        r3 = a03 * q0 + a13 * q1 + a23 * q2 + b33 * q3
        if r0 * r0 + r1 * r1 + r2 * r2 + r3 * r3 <= _RESIDUAL * _RESIDUAL:
            _from_quaternion(q0, q1, q2, q3, rotation)
            return True
    q0, q1, q2, q3 = _by_jacobi(a00, a01, a02, a03, a11, a12, a13, a22, a23, a33)
    _from_quaternion(q0, q1, q2, q3, rotation)
    return True


@_jit
def _by_jacobi(a00, a01, a02, a03, a11, a12, a13, a22, a23, a33):  # type: ignore[no-untyped-def]
    """Eigenvector of the largest eigenvalue, by cyclic Jacobi rotations (Golub & Van Loan, section 8.5)."""
    a = np.array([[a00, a01, a02, a03], [a01, a11, a12, a13], [a02, a12, a22, a23], [a03, a13, a23, a33]])
    v = np.eye(4)
    for _ in range(30):
        off = 0.0
        for i in range(4):
            for j in range(i):
                off += a[i, j] * a[i, j]
        # of a matrix of norm 2: what is left turns nothing by a digit that counts, squares go to 0 quadratically
        if off <= 1e-40:
            break
        for i in range(3):
            for j in range(i + 1, 4):
                if a[i, j] == 0.0:
                    continue
                ratio = (a[j, j] - a[i, i]) / (2.0 * a[i, j])
                t = 1.0 / (abs(ratio) + np.sqrt(ratio * ratio + 1.0))
                if ratio < 0.0:
                    t = -t
                c = 1.0 / np.sqrt(t * t + 1.0)
                s = t * c
                for k in range(4):
                    left, right = a[k, i], a[k, j]
                    a[k, i], a[k, j] = c * left - s * right, s * left + c * right
                for k in range(4):
                    left, right = a[i, k], a[j, k]
                    a[i, k], a[j, k] = c * left - s * right, s * left + c * right
                for k in range(4):
                    left, right = v[k, i], v[k, j]
                    v[k, i], v[k, j] = c * left - s * right, s * left + c * right
    best = 0
    for i in range(1, 4):
        if a[i, i] > a[best, best]:
            best = i
    q0, q1, q2, q3 = v[0, best], v[1, best], v[2, best], v[3, best]
    norm = 1.0 / np.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
    return q0 * norm, q1 * norm, q2 * norm, q3 * norm


@_jit
def _from_quaternion(q0, q1, q2, q3, rotation):  # type: ignore[no-untyped-def]
    rotation[0, 0] = q0 * q0 + q1 * q1 - q2 * q2 - q3 * q3
    rotation[1, 1] = q0 * q0 - q1 * q1 + q2 * q2 - q3 * q3
    rotation[2, 2] = q0 * q0 - q1 * q1 - q2 * q2 + q3 * q3
    rotation[0, 1], rotation[1, 0] = 2.0 * (q1 * q2 - q0 * q3), 2.0 * (q1 * q2 + q0 * q3)
    rotation[0, 2], rotation[2, 0] = 2.0 * (q1 * q3 + q0 * q2), 2.0 * (q1 * q3 - q0 * q2)
    rotation[1, 2], rotation[2, 1] = 2.0 * (q2 * q3 - q0 * q1), 2.0 * (q2 * q3 + q0 * q1)
