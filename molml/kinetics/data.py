"""What every method of this arm is fitted to: trajectories of features, in memory or streamed, and lagged pairs.

An input called ``X`` is one array (n_frames, n_features), a list of such arrays, or a `Streamed` source such as
`molml.kinetics.TrajectoryFiles`. Pairs of frames are never formed across the end of a trajectory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, final, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import mdtraj
    from torch import Tensor

    from molml.kinetics.features import Featurizer

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK_BYTES = 16_000_000
"""Size of the pieces in which long trajectories are looked at."""
_LOADED_FRAMES = 10_000
_BAR_DELAY = 2.0


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
        _check_width(found, n_features, name)
        return X
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError(f"{name} must hold at least one trajectory, got an empty list")
    if isinstance(X, list | tuple) and isinstance(X[0], np.ndarray) and X[0].ndim == 1:
        raise ValueError(
            f"trajectories of {name} must be arrays (n_frames, n_features), got one of shape {X[0].shape}; "
            "x.reshape(-1, 1) makes a single feature of it"
        )
    arrays = [_as_array(x, f"{name}[{i}]") for i, x in enumerate(X)] if is_several(X) else [_as_array(X, name)]
    widths = {x.shape[1] for x in arrays}
    if len(widths) > 1:
        raise ValueError(f"all trajectories of {name} must have the same features, got widths {sorted(widths)}")
    _check_width(widths.pop(), n_features, name)
    return arrays


def is_several(X: Trajectories) -> bool:
    """Whether what is made of X is a list with an array for every trajectory; if not, one array."""
    return isinstance(X, Streamed) or (
        isinstance(X, list | tuple) and len(X) > 0 and all(getattr(x, "ndim", None) == 2 for x in X)
    )


def of_one_kind(X: Trajectories, results: list[Array]) -> Array | list[Array]:
    """One array for one array, a list for a list or a stream."""
    return results if is_several(X) else results[0]


def check_columns(estimator: Any, X: Trajectories, *, reset: bool) -> None:
    """Names and number of the columns of a data frame, as everywhere in scikit-learn; arrays have no names.

    Raises
    ------
    ValueError
        If they are not those of the fit and there is no `reset`.
    """
    from sklearn.utils.validation import validate_data

    if not is_several(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset and hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def of_the_fit(estimator: Any, X: Trajectories) -> list[Array] | Streamed:
    """Trajectories that have the features of the fit.

    Raises
    ------
    TypeError, ValueError
        If they have not, or X is not what it should be.
    """
    arrays = as_list(X, n_features=estimator.n_features_in_)
    check_columns(estimator, X, reset=False)
    return arrays


def _check_width(found: int, expected: int | None, name: str) -> None:
    if expected is not None and found != expected:
        raise ValueError(
            f"{name} has {found} features, but it is expecting {expected} features as input, those of the fit"
        )


def _as_array(x: Any, name: str) -> Array:
    if type(x) is np.ndarray and x.ndim == 2 and x.size and x.dtype in (np.float32, np.float64):
        return x  # as what follows would, but there may be thousands of them
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
    if isinstance(X, Streamed):
        check_lengths(X.lengths, lagtime, name=name)
        for index in range(len(X.lengths)):
            yield from _streamed(X, index, lagtime, name)
        return
    check_lengths([len(x) for x in X], lagtime, name=name)
    for index, array in enumerate(X):
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
    check_lagtime(lagtime)
    shortest = min(range(len(lengths)), key=lambda i: lengths[i])
    if lengths[shortest] <= lagtime:
        raise ValueError(
            f"lagtime must be shorter than every trajectory, got lagtime={lagtime} and a trajectory of "
            f"n_samples={lengths[shortest]} frames ({name}[{shortest}]); drop it or shorten the lagtime"
        )


def whole(name: str, value: Any, least: int) -> int:
    """A parameter that must be a whole number.

    Raises
    ------
    ValueError
        If it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_lagtime(lagtime: int, *, least: int = 0) -> None:
    """Refuse lag times that are not a number of frames.

    Raises
    ------
    ValueError
        If it is no whole number of at least `least`.
    """
    if not isinstance(lagtime, int | np.integer) or isinstance(lagtime, bool) or lagtime < least:
        raise ValueError(f"lagtime must be a whole number of frames, at least {least}, got {lagtime!r}")


def _block_length(n_features: int, itemsize: int) -> int:
    return max(1024, BLOCK_BYTES // max(1, n_features * itemsize))


def _streamed(X: Streamed, index: int, lagtime: int, name: str) -> Iterator[tuple[int, int, Array, Array]]:
    """The very pieces that the same numbers in memory would give: sums over them then have the same bits."""
    held: list[Array] = []
    first = n_held = 0
    for block in X.blocks(index, _block_length(X.n_features, 8)):
        if block.ndim != 2 or block.shape[1] != X.n_features:
            raise ValueError(
                f"{name} must give pieces of {X.n_features} features, got one of shape {block.shape} in trajectory "
                f"{index}"
            )
        _check_finite(block, index, first + n_held, name)
        held.append(block)
        n_held += len(block)
        size = _block_length(block.shape[1], block.dtype.itemsize)
        if n_held < size + lagtime:
            continue
        frames = np.concatenate(held)
        while len(frames) >= size + lagtime:
            yield index, first, frames[:size], frames[lagtime : size + lagtime]
            first, frames = first + size, frames[size:]
        # a copy, so that what was used can go
        held, n_held = [frames.copy()], len(frames)
    if first + n_held != X.lengths[index]:
        raise ValueError(
            f"{name} must give all frames of its trajectories, got {first + n_held} of the "
            f"{X.lengths[index]} frames of trajectory {index}; the file may be damaged or still be written"
        )
    if n_held > lagtime:
        frames = np.concatenate(held)
        yield index, first, frames[: n_held - lagtime], frames[lagtime:]


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


Segment = tuple[int, int, int]
"""Consecutive frames: number of the trajectory, first frame, frame after the last."""


class TimeLagged(NamedTuple):
    """A batch of pairs of frames that lie one lag time apart.

    Attributes
    ----------
    x : Tensor, shape (n, n_features)
        Frames at times t.
    y : Tensor, shape (n, n_features)
        Frames at times t + lagtime, of the same trajectories.
    """

    x: Tensor
    y: Tensor


@final
class TimeLaggedDataset:
    """Pairs of frames, a data set for the `Trainer`; parts of it are made of blocks of time, never of single frames.

    Parameters
    ----------
    trajectories : array (n_frames, n_features) or list of such arrays
        Arrays in memory are joined once; memory maps stay on the disk.
    lagtime : int
        In frames; 0 pairs every frame with itself.
    segments : list of (trajectory, start, stop), optional
        Frames to take pairs from: both frames of a pair lie in one segment. If not given, all trajectories, whole.

    Raises
    ------
    TypeError, ValueError
        If the trajectories are not such arrays, hold numbers that are not finite, or are not longer than the lag time;
        if a segment is none of theirs or too short to hold a pair.

    Examples
    --------
    >>> dataset = TimeLaggedDataset([np.arange(10.0)[:, None], np.arange(20.0)[:, None]], lagtime=3)
    >>> len(dataset)
    24
    >>> dataset.collate([dataset[0], dataset[7]]).y.flatten().tolist()
    [3.0, 3.0]
    """

    def __init__(self, trajectories: Trajectories, lagtime: int, *, segments: Sequence[Segment] | None = None) -> None:
        if isinstance(trajectories, Streamed):
            raise TypeError(
                "trajectories must be arrays, which can be read in any order, got a streamed source; write its "
                "features to the disk once with its to_arrays(directory), or load() them"
            )
        several = trajectories if isinstance(trajectories, list | tuple) else [trajectories]
        arrays = cast("list[Array]", as_list(trajectories, name="trajectories"))
        for _ in lagged_blocks(arrays, lagtime, name="trajectories"):
            pass  # they are finite, and longer than the lag time
        # one array is looked up faster than many, but maps would then have to be read into memory
        mapped = any(isinstance(x, np.memmap) for x in several)
        self._setup(
            arrays if mapped or len(arrays) == 1 else [np.concatenate(arrays)],
            [len(x) for x in arrays],
            lagtime,
            [(i, 0, len(x)) for i, x in enumerate(arrays)] if segments is None else segments,
        )

    def _setup(self, pieces: list[Array], lengths: list[int], lagtime: int, segments: Sequence[Segment]) -> None:
        for segment in segments:
            trajectory, start, stop = segment
            if not (0 <= trajectory < len(lengths) and 0 <= start and start + lagtime < stop <= lengths[trajectory]):
                raise ValueError(
                    f"segments must be (trajectory, start, stop) with more than lagtime={lagtime} frames of "
                    f"trajectories of {lengths} frames, got {segment}"
                )
        self._pieces, self._lengths = pieces, lengths
        self.lagtime, self.segments = lagtime, [(int(i), int(a), int(b)) for i, a, b in segments]
        origins = np.concatenate([[0], np.cumsum(lengths)])
        pairs = [stop - start - lagtime for _, start, stop in self.segments]
        # number of the first pair of every segment, and what to add to get the frame in all trajectories joined
        self._first = np.concatenate([[0], np.cumsum(pairs)])
        self._numbers = range(sum(pairs))
        self._shift = np.array([origins[i] + start for i, start, _ in self.segments], int) - self._first[:-1]
        self._origins = origins

    @property
    def n_features(self) -> int:
        """Numbers of a frame."""
        return self._pieces[0].shape[1]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> int:
        """Number of a pair, which `collate` understands."""
        return self._numbers[index]

    def collate(self, items: Sequence[int]) -> TimeLagged:
        """The pairs of these numbers, in the precision of the trajectories.

        Parameters
        ----------
        items : sequence of int

        Returns
        -------
        TimeLagged
        """
        import torch

        pairs = np.asarray(items)
        frames = pairs + self._shift[np.searchsorted(self._first, pairs, side="right") - 1]
        return TimeLagged(*(torch.from_numpy(self._take(frames + lag)) for lag in (0, self.lagtime)))

    def _take(self, frames: Array) -> Array:
        if len(self._pieces) == 1:
            return np.take(self._pieces[0], frames, axis=0)
        taken = np.empty((len(frames), self.n_features), np.result_type(*self._pieces))
        piece = np.searchsorted(self._origins, frames, side="right") - 1
        for i in np.unique(piece):
            mine = piece == i
            taken[mine] = self._pieces[i][frames[mine] - self._origins[i]]
        return taken

    def split(
        self, fraction: float, *, n_blocks: int | None = None, seed: int = 0
    ) -> tuple[TimeLaggedDataset, TimeLaggedDataset]:
        """Two parts made of blocks of consecutive frames, chosen at random; no frame is in both.

        Pairs across the border of two parts are dropped.

        Parameters
        ----------
        fraction : float
            Fraction of the blocks that go to the second part; at least one block goes to each.
        n_blocks : int, optional
            How many blocks of (nearly) one length are made; see `time_blocks`. If not given, 20, or less so that every
            block is 10 times as long as a pair.
        seed : int
            Of the choice.

        Returns
        -------
        training, validation : TimeLaggedDataset

        Raises
        ------
        ValueError
            If the fraction is not between 0 and 1, or the blocks are too short for a pair.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        if n_blocks is None:
            n_frames = sum(stop - start for _, start, stop in self.segments)
            n_blocks = min(max(n_frames // (10 * (self.lagtime + 1)), 2), 20)
        blocks = self._time_blocks(n_blocks)
        n_held = min(max(round(fraction * n_blocks), 1), n_blocks - 1)
        chosen = np.random.default_rng(seed).permutation(n_blocks)[:n_held]
        return self._parted([segment for i in chosen for segment in blocks[i]])

    def blocks(self, n: int) -> list[tuple[TimeLaggedDataset, TimeLaggedDataset]]:
        """Parts for cross-validation: each of `n` blocks of time is held out once.

        Parameters
        ----------
        n : int
            At least 2.

        Returns
        -------
        list of (training, validation)
            As from `split`.

        Raises
        ------
        ValueError
            As `time_blocks`.
        """
        return [self._parted(held) for held in self._time_blocks(n)]

    def _time_blocks(self, n: int) -> list[list[Segment]]:
        folds = time_blocks([stop - start for _, start, stop in self.segments], n, self.lagtime)
        return [
            [(self.segments[i][0], self.segments[i][1] + a, self.segments[i][1] + b) for i, a, b in fold]
            for fold in folds
        ]

    def _parted(self, held: list[Segment]) -> tuple[TimeLaggedDataset, TimeLaggedDataset]:
        rest = [part for segment in self.segments for part in _without(segment, held)]
        rest = [(i, start, stop) for i, start, stop in rest if stop - start > self.lagtime]
        if not rest:
            raise ValueError(
                f"no pair is left for training at lagtime={self.lagtime} between the blocks held out; shorten the lag "
                "time, or take fewer blocks"
            )
        return self._part(rest), self._part(sorted(held))

    def _part(self, segments: list[Segment]) -> TimeLaggedDataset:
        part = object.__new__(TimeLaggedDataset)
        part._setup(self._pieces, self._lengths, self.lagtime, segments)
        return part


def time_blocks(lengths: Sequence[int], n_folds: int, lagtime: int) -> list[list[Segment]]:
    """Folds for cross-validation of time series: contiguous blocks, or whole trajectories.

    All trajectories, laid end to end, are cut into parts of equal length. A cut moves to the end of a trajectory if
    one is nearer than a tenth of a part, so that six runs make three folds of two runs. Pieces that are too short for
    a pair are left out.

    Parameters
    ----------
    lengths : sequence of int
        Frames of every trajectory.
    n_folds : int
        At least 2.
    lagtime : int
        In frames.

    Returns
    -------
    list of list of (trajectory, start, stop)
        Segments of every fold, each longer than `lagtime`.

    Raises
    ------
    ValueError
        If a fold would hold no pair of frames.

    Examples
    --------
    >>> time_blocks([100, 100, 50], 2, lagtime=5)
    [[(0, 0, 100), (1, 0, 25)], [(1, 25, 100), (2, 0, 50)]]
    """
    whole("n_folds", n_folds, 2)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    size = ends[-1] / n_folds
    cuts = np.round(size * np.arange(n_folds + 1)).astype(int)
    nearest = ends[np.abs(cuts[:, None] - ends).argmin(axis=1)]
    cuts = np.where(np.abs(nearest - cuts) <= 0.1 * size, nearest, cuts)
    folds: list[list[Segment]] = []
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        pieces = [
            (i, max(int(begin - ends[i]), 0), min(int(end - ends[i]), int(length))) for i, length in enumerate(lengths)
        ]
        folds.append([piece for piece in pieces if piece[2] - piece[1] > lagtime])
    if not all(folds):
        raise ValueError(
            f"every fold must hold a pair of frames, got {n_folds} folds of about {size:.0f} frames in all and "
            f"lagtime={lagtime}; take fewer folds, or shorten the lag time"
        )
    return folds


def remaining_blocks(lengths: Sequence[int], held: Sequence[Segment], lagtime: int) -> list[Segment]:
    """What is left of the trajectories when some segments are held out.

    Parameters
    ----------
    lengths : sequence of int
        Frames of every trajectory.
    held : sequence of (trajectory, start, stop)
        A fold of `time_blocks`, say.
    lagtime : int
        Pieces that are not longer are left out.

    Returns
    -------
    list of (trajectory, start, stop)

    Examples
    --------
    >>> remaining_blocks([100, 50], [(0, 40, 60)], lagtime=5)
    [(0, 0, 40), (0, 60, 100), (1, 0, 50)]
    """
    rest = [part for i, length in enumerate(lengths) for part in _without((i, 0, length), held)]
    return [(i, start, stop) for i, start, stop in rest if stop - start > lagtime]


def _without(segment: Segment, held: Sequence[Segment]) -> list[Segment]:
    """Parts of a segment that are in none of others."""
    trajectory, start, stop = segment
    parts = []
    for _, begin, end in sorted(other for other in held if other[0] == trajectory):
        if begin >= stop or end <= start:
            continue
        if begin > start:
            parts.append((trajectory, start, begin))
        start = max(start, end)
    if start < stop:
        parts.append((trajectory, start, stop))
    return parts


@final
class TrajectoryFiles:
    """Features of trajectory files, read piece by piece: memory does not grow with their length.

    Every file is a trajectory of its own; pairs of frames are never formed across the end of a file. Files are read in
    another process, so that one that crashes its reader is an error like any other, and every frame that a file should
    have is accounted for.

    Parameters
    ----------
    files : path or sequence of paths
        XTC, TRR, DCD, NetCDF, HDF5, PDB, GRO, XYZ or LAMMPS trajectories. Names may hold ``*``, ``?`` and ``[]``; what
        they match is sorted, ``run10`` after ``run9``.
    features : Featurizer
        Such as `Torsions`, or several of them joined by ``+``.
    topology : mdtraj.Topology, optional
        Of exactly the atoms of the trajectories, such as ``mdtraj.load("start.pdb").topology``. Needed unless the files
        have one (PDB, GRO, HDF5).
    stride : int
        Take every `stride`-th frame.
    timestep : float, optional
        Time between the frames of the files, ps, before `stride`. If not given, that of the files, which must then be
        the same everywhere.
    allow_truncated : bool
        Take the whole frames of files that end too early, with a warning that says how many.
    progress : bool, optional
        Show a progress bar where reading takes more than two seconds; if not given, only if stderr is a terminal.

    Raises
    ------
    TypeError, ValueError
        If a file is missing, empty, damaged, cut off, of another format than its name says, or does not fit the
        topology; if its frames do not follow each other in equal times. The message names the file.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import mdtraj
    >>> from molml.kinetics import TICA, Torsions, TrajectoryFiles
    >>> topology = mdtraj.load("protein.pdb").topology  # doctest: +SKIP
    >>> data = TrajectoryFiles("run*.xtc", Torsions(topology), topology=topology)  # doctest: +SKIP
    >>> tica = TICA(lagtime=parse_lag("1 ns", data.timestep)).fit(data)  # doctest: +SKIP
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        features: Featurizer,
        *,
        topology: mdtraj.Topology | None = None,
        stride: int = 1,
        timestep: float | None = None,
        allow_truncated: bool = False,
        progress: bool | None = None,
    ) -> None:
        import mdtraj

        from molml.kinetics.reading import inspect_file, topology_of_file, trajectory_paths

        if not callable(features) or not hasattr(features, "names"):
            raise TypeError(
                f"features must be a featurizer such as Torsions(topology), got {type(features).__name__}; functions "
                "can be wrapped in Function"
            )
        if topology is not None and not isinstance(topology, mdtraj.Topology):
            raise TypeError(
                f"topology must be an mdtraj.Topology, got {type(topology).__name__}; load_topology(path) or "
                "mdtraj.load(path).topology is one"
            )
        stride = whole("stride", stride, 1)
        if timestep is not None and not 0 < timestep < math.inf:
            raise ValueError(f"timestep must be a positive number of ps, got {timestep!r}")
        paths = trajectory_paths(files)
        self.features, self.stride, self.progress = features, stride, progress
        self.topology = topology_of_file(paths[0]) if topology is None else topology
        if features.n_atoms not in (None, self.topology.n_atoms):
            raise ValueError(
                f"features must be made from the topology of the trajectories, got features of {features.n_atoms} "
                f"atoms and a topology of {self.topology.n_atoms}"
            )
        with self._bar(len(paths), "looking into files", "file") as bar:
            self._files = []
            for path in paths:
                self._files.append(
                    inspect_file(path, self.topology, allow_truncated=allow_truncated, need_times=timestep is None)
                )
                bar.update()
        self._timestep = self._common_timestep() if timestep is None else float(timestep)

    def _common_timestep(self) -> float | None:
        timed = [file for file in self._files if file.timestep is not None]
        for file in timed[1:]:
            if not math.isclose(cast(float, file.timestep), cast(float, timed[0].timestep), rel_tol=1e-5):
                raise ValueError(
                    f"all files must have one time between frames, got {timed[0].timestep} ps in {timed[0].path} and "
                    f"{file.timestep} ps in {file.path}; read them apart, or give timestep= to take them as they are"
                )
        return timed[0].timestep if timed else None

    @property
    def files(self) -> list[Path]:
        """In the order of the trajectories."""
        return [file.path for file in self._files]

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return self.features.names

    @property
    def n_features(self) -> int:
        """Columns."""
        return self.features.n_features

    @property
    def lengths(self) -> list[int]:
        """Frames of every trajectory, after `stride`."""
        return [len(range(0, file.n_frames, self.stride)) for file in self._files]

    @property
    def timestep(self) -> float | None:
        """Time between frames, ps, after `stride`; None if the files do not say."""
        return None if self._timestep is None else self._timestep * self.stride

    def blocks(self, index: int, n_frames: int) -> Iterator[Array]:
        """Consecutive pieces of the features of one trajectory.

        Parameters
        ----------
        index : int
            Number of the trajectory.
        n_frames : int
            Most frames at a time.

        Yields
        ------
        array, shape (n, n_features)

        Raises
        ------
        ValueError
            If the file cannot be read to its end, or a frame has no features; the message names file and frame.
        """
        file = self._files[index]
        with self._bar(self.lengths[index], file.path.name, "frame") as bar:
            for trajectory, first in self._pieces(index, range(0, file.n_frames, self.stride), n_frames):
                yield self._features_of(trajectory, first, file.path)
                bar.update(len(trajectory))

    def load(self) -> list[Array]:
        """Features of all trajectories in memory.

        Returns
        -------
        list of array, shape (n_frames, n_features)
        """
        return [np.concatenate(list(self.blocks(i, _LOADED_FRAMES))) for i in range(len(self._files))]

    def to_arrays(self, directory: str | os.PathLike[str]) -> list[Array]:
        """Features of all trajectories as files of numpy, for methods that need frames in any order.

        Parameters
        ----------
        directory : path
            Made if need be. Its files of the same names are replaced, each when the new one is whole.

        Returns
        -------
        list of numpy.memmap, shape (n_frames, n_features)
            Read-only.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = []
        for i, (path, length) in enumerate(zip(self.files, self.lengths, strict=True)):
            target = folder / f"{i:04d}-{path.stem}.npy"
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                # not through a memory map: a full disk would then end the process
                with open(temporary, "wb") as file:
                    for number, block in enumerate(self.blocks(i, _LOADED_FRAMES)):
                        if number == 0:
                            header = {
                                "descr": block.dtype.str,
                                "fortran_order": False,
                                "shape": (length, block.shape[1]),
                            }
                            np.lib.format.write_array_header_1_0(file, header)
                        file.write(np.ascontiguousarray(block).data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            arrays.append(np.load(target, mmap_mode="r"))
        return arrays

    def trajectory(self, index: int) -> mdtraj.Trajectory:
        """One trajectory, whole, in memory.

        Parameters
        ----------
        index : int

        Returns
        -------
        mdtraj.Trajectory
            After `stride`.
        """
        import mdtraj

        frames = range(0, self._files[index].n_frames, self.stride)
        return mdtraj.join([piece for piece, _ in self._pieces(index, frames, _LOADED_FRAMES)], check_topology=False)

    def frames(self, selection: Sequence[tuple[int, int]]) -> mdtraj.Trajectory:
        """Some frames, to write them as structures, say.

        Parameters
        ----------
        selection : sequence of (trajectory, frame)
            Frames counted after `stride`, as in the features.

        Returns
        -------
        mdtraj.Trajectory
            In this order.

        Raises
        ------
        ValueError
            If there is no such frame.
        """
        import mdtraj

        lengths = self.lengths
        for i, frame in selection:
            if not (0 <= i < len(lengths) and 0 <= frame < lengths[i]):
                raise ValueError(f"selection must be of (trajectory, frame) of trajectories of {lengths} frames, got "
                                 f"{(i, frame)}")  # fmt: skip
        if not len(selection):
            raise ValueError("selection must name at least one frame, got none")
        pieces: dict[tuple[int, int], mdtraj.Trajectory] = {}
        # in the order of the files, which readers are fastest in
        for i, frame in sorted({(int(i), int(frame)) for i, frame in selection}):
            at = frame * self.stride
            pieces[i, frame] = next(self._pieces(i, range(at, at + 1), 1))[0]
        return mdtraj.join([pieces[int(i), int(frame)] for i, frame in selection], check_topology=False)

    def _pieces(self, index: int, frames: range, n_frames: int) -> Iterator[tuple[mdtraj.Trajectory, int]]:
        """Trajectories of some frames each, and the number of their first frame in the file."""
        import mdtraj

        from molml.kinetics.reading import read_frames

        file = self._files[index]
        for piece in read_frames(file, frames.start, frames.stop, stride=frames.step, n_frames=n_frames):
            yield (
                mdtraj.Trajectory(piece.xyz, self.topology, piece.time, piece.lengths, piece.angles),
                piece.first,
            )

    def _features_of(self, trajectory: mdtraj.Trajectory, first: int, path: Path) -> Array:
        from molml.kinetics.geometry import NoValueError

        try:
            values = self.features(trajectory)
        except NoValueError as error:
            raise ValueError(f"{path}, frame {first + error.frame * self.stride}: {error.reason}") from error
        if values.shape != (len(trajectory), self.n_features):
            raise ValueError(
                f"features must give an array of shape {(len(trajectory), self.n_features)} for {len(trajectory)} "
                f"frames, got {values.shape}"
            )
        return values

    def _bar(self, total: int, description: str, unit: str) -> Any:
        from tqdm import tqdm

        # tqdm's None: only if stderr is a terminal
        quiet = None if self.progress is None else not self.progress
        return tqdm(total=total, desc=description, unit=unit, disable=quiet, delay=_BAR_DELAY, leave=False)

    def __repr__(self) -> str:
        return f"TrajectoryFiles({len(self._files)} files, {sum(self.lengths)} frames, {self.n_features} features)"
