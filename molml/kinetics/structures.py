"""Structures along a coordinate: what moves when one component of a latent space changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import mdtraj
import numpy as np

from molml.kinetics.alignment import align, rmsd
from molml.kinetics.data import TrajectoryFiles

Array = np.ndarray[Any, np.dtype[Any]]


class Along(NamedTuple):
    """Structures in the order of a coordinate.

    Attributes
    ----------
    structures : mdtraj.Trajectory
        Aligned on the first of them; ``structures.save("component.pdb")`` writes them.
    frames : list of (int, int)
        Trajectory and frame of each.
    values : array (n_structures,)
        Of the coordinate.
    """

    structures: mdtraj.Trajectory
    frames: list[tuple[int, int]]
    values: Array


def representatives(
    trajectories: Sequence[mdtraj.Trajectory] | TrajectoryFiles,
    latent: Sequence[Array],
    *,
    component: int = 0,
    n_structures: int = 10,
    quantiles: bool = False,
    limits: tuple[float, float] | None = None,
    atoms: Sequence[int] | None = None,
) -> Along:
    """Typical structures at several values of a component.

    Of the frames around each value, the one is taken that is most like the others (least mean RMSD).

    Parameters
    ----------
    trajectories : sequence of mdtraj.Trajectory, or TrajectoryFiles
        Of files, only the frames that are looked at are read: at most 20 for every structure.
    latent : sequence of array (n_frames, n_components)
        Of the same frames, as ``estimator.transform`` gives them.
    component : int
        Column.
    n_structures : int
    quantiles : bool
        Whether the values cut the frames, rather than the axis, into equal parts.
    limits : (low, high), optional
        Of the values; if not given, those that leave out half a percent of the frames on each side.
    atoms : sequence of int, optional
        Atoms that count and are aligned; all unless told.

    Returns
    -------
    Along

    Raises
    ------
    TypeError, ValueError
        If frames and latent do not fit, or numbers are out of range.

    Examples
    --------
    >>> along = representatives(trajectories, tica.transform(X), n_structures=5)  # doctest: +SKIP
    >>> along.structures.save_pdb("tic1.pdb")  # doctest: +SKIP
    """
    groups = _candidates(trajectories, latent, component, n_structures, quantiles, limits)
    pool = _join(trajectories, np.concatenate(groups))
    weights = _weights(atoms, pool.n_atoms)
    chosen = []
    for members in _positions(groups):
        between = _distances(pool.xyz[members], pool.xyz[members], weights)
        chosen.append(members[int(np.mean(between, axis=0).argmin())])
    return _along(latent, component, groups, pool, chosen, atoms)


def moving(
    trajectories: Sequence[mdtraj.Trajectory] | TrajectoryFiles,
    latent: Sequence[Array],
    *,
    component: int = 0,
    n_structures: int = 50,
    limits: tuple[float, float] | None = None,
    atoms: Sequence[int] | None = None,
) -> Along:
    """A moving picture along a component: real frames at equally spaced values, chosen to jump least.

    Of all ways to take one of the frames around each value, it is the one with the least sum of squared RMSDs between
    neighbours. A value near which there is no frame takes the nearest one, which may come again.

    Parameters
    ----------
    trajectories, latent, component, n_structures, limits, atoms
        As for `representatives`.

    Returns
    -------
    Along

    Raises
    ------
    TypeError, ValueError
        As `representatives`.
    """
    groups = _candidates(trajectories, latent, component, n_structures, False, limits)
    pool = _join(trajectories, np.concatenate(groups))
    weights = _weights(atoms, pool.n_atoms)
    members = _positions(groups)
    # the least sum up to each frame of a group, and the frame before it on the way there
    total, before = np.zeros(len(groups[0])), []
    for last, here in pairwise(members):
        sums = total[:, None] + _distances(pool.xyz[last], pool.xyz[here], weights) ** 2
        before.append(sums.argmin(axis=0))
        total = sums.min(axis=0)
    way = [int(total.argmin())]
    for step in reversed(before):
        way.append(int(step[way[-1]]))
    chosen = [here[k] for here, k in zip(members, reversed(way), strict=True)]
    return _along(latent, component, groups, pool, chosen, atoms)


# frames around a value that are looked at: the nearest
_MOST = 20


def _candidates(
    trajectories: Sequence[mdtraj.Trajectory] | TrajectoryFiles,
    latent: Sequence[Array],
    component: int,
    n_structures: int,
    quantiles: bool,
    limits: tuple[float, float] | None,
) -> list[Array]:
    """Rows (trajectory, frame) of the frames that lie around each value, at least one and not too many."""
    lengths, found = _lengths(trajectories), [np.shape(z) for z in latent]
    if [shape[:1] for shape in found] != [(n,) for n in lengths] or any(len(shape) != 2 for shape in found):
        raise ValueError(
            f"latent must be a list of arrays (n_frames, n_components) for trajectories of {lengths} frames, got "
            f"shapes {found}"
        )
    width = min((int(shape[1]) for shape in found), default=0)
    if not 0 <= component < width:
        raise ValueError(f"component must be 0 to {width - 1}, got {component}")
    values = np.concatenate([np.asarray(z)[:, component] for z in latent])
    if not np.isfinite(values).all():
        raise ValueError(f"latent must be finite, got {np.count_nonzero(~np.isfinite(values))} other values")
    if not 2 <= n_structures <= len(values):
        raise ValueError(f"n_structures must be 2 to the number of frames, {len(values)}, got {n_structures}")
    low, high = np.quantile(values, [0.005, 0.995]) if limits is None else limits
    if not low < high:
        raise ValueError(f"limits must be (low, high), got ({low:g}, {high:g})")
    inside = values[(values >= low) & (values <= high)]
    if not len(inside):
        raise ValueError(
            f"limits must hold frames, got ({low:g}, {high:g}) for values from {values.min():g} to {values.max():g}"
        )
    parts = np.arange(2 * n_structures + 1) / (2 * n_structures)
    marks = np.quantile(inside, parts) if quantiles else low + (high - low) * parts
    where = np.concatenate([np.stack([np.full(n, i), np.arange(n)], axis=1) for i, n in enumerate(lengths)])
    groups = []
    for left, centre, right in zip(marks[:-1:2], marks[1::2], marks[2::2], strict=True):
        n_within = max(1, min(_MOST, int(np.count_nonzero((values >= left) & (values <= right)))))
        nearest = np.argpartition(np.abs(values - centre), n_within - 1)[:n_within]
        groups.append(where[np.sort(nearest)])
    return groups


def _lengths(trajectories: Sequence[mdtraj.Trajectory] | TrajectoryFiles) -> list[int]:
    if isinstance(trajectories, TrajectoryFiles):
        return trajectories.lengths
    if isinstance(trajectories, mdtraj.Trajectory) or not all(isinstance(t, mdtraj.Trajectory) for t in trajectories):
        raise TypeError(
            f"trajectories must be a list of mdtraj.Trajectory, or TrajectoryFiles, got {type(trajectories).__name__}"
        )
    return [t.n_frames for t in trajectories]


def _join(trajectories: Sequence[mdtraj.Trajectory] | TrajectoryFiles, frames: Array) -> mdtraj.Trajectory:
    if isinstance(trajectories, TrajectoryFiles):
        return trajectories.frames([(int(i), int(j)) for i, j in frames])
    sizes = {t.n_atoms for t in trajectories}
    if len(sizes) > 1:
        raise ValueError(f"trajectories must have the same atoms, got {sorted(sizes)} atoms; slice them")
    xyz = np.stack([trajectories[i].xyz[j] for i, j in frames])
    time = np.array([trajectories[i].time[j] for i, j in frames])
    return mdtraj.Trajectory(xyz, trajectories[0].topology, time=time)


def _positions(groups: list[Array]) -> list[range]:
    """Where the frames of every group lie in all of them joined."""
    starts = accumulate((len(group) for group in groups), initial=0)
    return [range(start, start + len(group)) for start, group in zip(starts, groups, strict=False)]


def _weights(atoms: Sequence[int] | None, n_atoms: int) -> Array | None:
    if atoms is None:
        return None
    weights = np.zeros(n_atoms)
    weights[list(atoms)] = 1.0
    return weights


def _distances(a: Array, b: Array, weights: Array | None) -> Array:
    """RMSD of every frame of a and every frame of b, nm."""
    return np.stack([rmsd(a, frame, weights) for frame in b], axis=1)


def _along(
    latent: Sequence[Array],
    component: int,
    groups: list[Array],
    pool: mdtraj.Trajectory,
    chosen: list[int],
    atoms: Sequence[int] | None,
) -> Along:
    frames = [(int(i), int(j)) for i, j in np.concatenate(groups)[chosen]]
    values = np.array([float(latent[i][j, component]) for i, j in frames])
    structures = pool[chosen]
    return Along(align(structures, structures[0], atoms=atoms), frames, values)
