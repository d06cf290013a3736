"""What every method of this arm is fitted to: trajectories of features, in memory or streamed, and lagged pairs.

An input called ``X`` is one array (n_frames, n_features), a list of such arrays, or a `Streamed` source such as
`molml.kinetics.TrajectoryFiles`. Pairs of frames are never formed across the end of a trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK_BYTES = 16_000_000
"""Size of the pieces in which long trajectories are looked at."""


@runtime_checkable
class Streamed(Protocol):
    """Trajectories that are read piece by piece; `TrajectoryFiles` is one."""

    @property
    def n_features(self) -> int: ...

    @property
    def lengths(self) -> list[int]:
        """Frames of every trajectory."""
        ...

    def blocks(self, index: int, n_frames: int, /) -> Iterator[Array]:
        """Consecutive pieces (at most n_frames, n_features) of one trajectory."""
        ...


Trajectories = Array | Sequence[Array] | Streamed


def as_list(X: Trajectories, *, name: str = "X", n_features: int | None = None) -> list[Array] | Streamed:
    """Trajectories as a list of two-dimensional floating arrays, without copying those that are; streams as they are.

    Parameters
    ----------
    X : array (n_frames, n_features), sequence of such arrays, or Streamed
    name : str
        What an error calls them.
    n_features : int, optional
        Number of columns that is expected.

    Raises
    ------
    TypeError, ValueError
        If X is none of these, has no frames, complex or non-numeric entries, or arrays of different widths.
    """
    if isinstance(X, Streamed):
        found = X.n_features
        if not X.lengths:
            raise ValueError(f"{name} must hold at least one trajectory, got none")
        if n_features is not None and found != n_features:
            raise ValueError(f"{name} must have {n_features} features as in the fit, got {found}")
        return X
    several = isinstance(X, list | tuple) and len(X) > 0 and all(getattr(x, "ndim", None) == 2 for x in X)
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError(f"{name} must hold at least one trajectory, got an empty list")
    arrays = [_as_array(x, f"{name}[{i}]") for i, x in enumerate(X)] if several else [_as_array(X, name)]
    widths = {x.shape[1] for x in arrays}
    if len(widths) > 1:
        raise ValueError(f"all trajectories of {name} must have the same features, got widths {sorted(widths)}")
    if n_features is not None and widths != {n_features}:
        raise ValueError(f"{name} has {widths.pop()} features, but expected {n_features} features as in the fit")
    return arrays


def _as_array(x: Any, name: str) -> Array:
    from sklearn.utils import check_array

    # finite numbers are checked block by block, where they are read anyway
    array: Array = check_array(
        x, dtype=[np.float64, np.float32], ensure_all_finite=False, ensure_min_samples=1, input_name=name
    )
    return array


def lagged_blocks(
    X: list[Array] | Streamed, lagtime: int, *, name: str = "X"
) -> Iterator[tuple[int, int, Array, Array]]:
    """Pairs of frames that lie `lagtime` apart, piece by piece.

    Parameters
    ----------
    X : list of array or Streamed
        As `as_list` gives them.
    lagtime : int
        In frames; 0 pairs every frame with itself.
    name : str
        What an error calls them.

    Yields
    ------
    trajectory : int
        Number of the trajectory.
    first : int
        Frame of the first row.
    x, y : array (n, n_features)
        Frames t and t + lagtime; views of the input where it lies in memory.

    Raises
    ------
    ValueError
        If a trajectory is not longer than the lag time, or a number is not finite.
    """
    lengths = X.lengths if isinstance(X, Streamed) else [len(x) for x in X]
    check_lengths(lengths, lagtime, name=name)
    for index in range(len(lengths)):
        if isinstance(X, Streamed):
            yield from _streamed(X, index, lagtime, name)
            continue
        array = X[index]
        size = _block_length(array.shape[1], array.dtype.itemsize)
        n = len(array) - lagtime
        for first in range(0, n, size):
            last = min(first + size, n)
            x, y = array[first:last], array[first + lagtime : last + lagtime]
            # frames of the first lag time are only in x, those of the last only in y
            _check_finite(x, index, first, name)
            if lagtime and last + lagtime > n:
                _check_finite(y, index, first + lagtime, name)
            yield index, first, x, y


def check_lengths(lengths: Sequence[int], lagtime: int, *, name: str = "X") -> None:
    """Refuse trajectories that are too short to hold a pair of frames.

    Raises
    ------
    ValueError
        The message names the shortest trajectory.
    """
    if not isinstance(lagtime, int | np.integer) or isinstance(lagtime, bool) or lagtime < 0:
        raise ValueError(f"lagtime must be a whole number of frames, at least 0, got {lagtime!r}")
    shortest = min(range(len(lengths)), key=lambda i: lengths[i])
    if lengths[shortest] <= lagtime:
        raise ValueError(
            f"lagtime must be shorter than every trajectory, got lagtime={lagtime} and a trajectory of "
            f"n_samples={lengths[shortest]} frames ({name}[{shortest}]); drop it or shorten the lagtime"
        )


def _block_length(n_features: int, itemsize: int) -> int:
    return max(1024, BLOCK_BYTES // max(1, n_features * itemsize))


def _streamed(X: Streamed, index: int, lagtime: int, name: str) -> Iterator[tuple[int, int, Array, Array]]:
    tail: Array | None = None
    first = 0
    for block in X.blocks(index, _block_length(X.n_features, 8)):
        start = first + (0 if tail is None else len(tail))
        _check_finite(block, index, start, name)
        frames = block if tail is None or not len(tail) else np.concatenate([tail, block])
        n = len(frames) - lagtime
        if n > 0:
            yield index, first, frames[:n], frames[lagtime:]
            first += n
            frames = frames[n:]
        tail = np.array(frames)


def _check_finite(x: Array, index: int, first: int, name: str) -> None:
    # the sum is NaN or infinite if any entry is, and costs a tenth of looking at every one
    with np.errstate(all="ignore"):
        total = np.sum(x)
    if np.isfinite(total):
        return
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        frame, column = bad[0]
        raise ValueError(
            f"{name} must be finite, got {x[frame, column]} (NaN or infinity) in trajectory {index}, frame "
            f"{first + frame}, feature {column}; {len(bad)} such entries in this piece"
        )
