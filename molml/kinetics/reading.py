"""Trajectory files: which there are, what they hold, and their frames, piece by piece.

mdtraj reads them, in a process of its own: a reader that crashes or hangs on a damaged file is an error here, not the
end. How many frames there should be is found in the file itself (:mod:`molml.kinetics.framecounts`), and what is read
is compared with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import glob
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from molml.kinetics.child import CIF, DAMAGE, RESTART
from molml.kinetics.framecounts import Contents, DamagedError, contents

if TYPE_CHECKING:
    import mdtraj

Array = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (
    ".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf", ".h5", ".hdf5", ".pdb", ".pdb.gz", ".gro", ".xyz", ".xyz.gz",
    ".lammpstrj", ".mdcrd", ".crd", ".arc", ".lh5", ".dtr", ".stk", ".gsd", *RESTART, *CIF, ".mol2", ".xml",
    ".hoomdxml",
)  # fmt: skip
"""Endings of the files that can be read."""

_WITH_TOPOLOGY = (".pdb", ".pdb.gz", ".h5", ".hdf5", ".gro", *CIF, ".mol2")
_PACKAGES = {
    (".h5", ".hdf5", ".lh5"): ("tables", "HDF5"),
    (".gsd",): ("gsd", "GSD"),
    (".mol2",): ("pandas", "MOL2"),
    (".hoomdxml",): ("networkx", "HOOMD-blue XML"),
}
"""What mdtraj needs for some formats, and does not install itself."""
_PIECE_BYTES = 8_000_000
# no sign of life for so long is a hang: a piece takes tenths of a second
_PATIENCE = 120.0
_UNITS = {"fs": 1e-3, "ps": 1.0, "ns": 1e3, "us": 1e6, "µs": 1e6, "ms": 1e9}


# ---- files -----------------------------------------------------------------------------------------------------------


def trajectory_paths(files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files that are meant.

    Parameters
    ----------
    files : path or sequence of paths
        Names may hold ``*``, ``?`` and ``[]``; what they match is sorted, ``run10`` after ``run9``. Otherwise the order
        is kept.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        If a pattern matches nothing, a file has an ending that cannot be read, is empty, or is named twice.
    FileNotFoundError
        If there is no such file.
    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    if not given:
        raise ValueError("files must name at least one trajectory, got none")
    paths: list[Path] = []
    for name in given:
        text = os.path.expanduser(os.fspath(name))
        if not os.path.exists(text) and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True), key=_natural)
            if not matches:
                raise ValueError(f"no file matches {text!r}; the folder {Path(text).parent.resolve()} {_holds(text)}")
            paths += map(Path, matches)
        else:
            paths.append(Path(text))
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}; its folder {_holds(str(path))}")
        if path.is_dir() and path.suffix.lower() != ".dtr":
            raise ValueError(
                f"{path} is not a file; name the trajectories in it, as {path}/*.xtc, or its clickme.dtr, if Desmond "
                "wrote it"
            )
        if not path.name.lower().endswith(SUFFIXES):
            raise ValueError(
                f"{path} cannot be read as a trajectory: known endings are {', '.join(SUFFIXES)}; convert it with "
                "mdtraj.load(...).save_xtc(...)"
            )
        if path.stat().st_size == 0 and path.name != "clickme.dtr":
            raise ValueError(f"{path} is empty; leave it out, or wait until its simulation has written frames")
    real = [path.resolve() for path in paths]
    twice = next((path for i, path in enumerate(real) if path in real[:i]), None)
    if twice is not None:
        raise ValueError(f"every file must be named once, got {twice} twice: its frames would count double")
    return paths


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _holds(pattern: str) -> str:
    folder = Path(pattern).parent
    if not folder.is_dir():
        return "does not exist"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.lower().endswith(SUFFIXES))
    return f"holds {', '.join(names[:5]) + (', …' if len(names) > 5 else '')}" if names else "holds no trajectories"


def load_topology(path: str | os.PathLike[str]) -> mdtraj.Topology:
    """Topology of a file that has one.

    Parameters
    ----------
    path : path
        PDB, GRO, PSF, prmtop, HDF5 and what else mdtraj reads topologies from.

    Returns
    -------
    mdtraj.Topology

    Raises
    ------
    ValueError
        If mdtraj cannot make a topology of it; the message names the file.
    FileNotFoundError
        If there is no such file.
    """
    import mdtraj

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no topology file {path}")
    _check_package(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            topology = mdtraj.load_topology(os.fspath(path))
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        with warnings.catch_warnings():
            # readers that fail leave the file open
            warnings.simplefilter("ignore", ResourceWarning)
            traceback.clear_frames(error.__traceback__)
            gc.collect()
        raise ValueError(
            f"no topology can be read from {path} ({reason}); give a PDB file of the atoms of the trajectory"
        ) from error
    if topology.n_atoms == 0:
        raise ValueError(f"the topology of {path} has no atoms; give a PDB file of the atoms of the trajectory")
    return topology


def first_frame(path: Path, topology: mdtraj.Topology) -> mdtraj.Trajectory:
    """The first frame of a trajectory, to superpose others on.

    Parameters
    ----------
    path : Path
    topology : mdtraj.Topology

    Returns
    -------
    mdtraj.Trajectory

    Raises
    ------
    ValueError
        As of `TrajectoryFiles`.
    """
    import mdtraj

    file = inspect_file(path, topology, allow_truncated=True, need_times=False)
    piece = next(read_frames(file, 0, 1, n_frames=1))
    return mdtraj.Trajectory(piece.xyz, topology, piece.time, piece.lengths, piece.angles)


def topology_of_file(path: Path) -> mdtraj.Topology:
    """Topology that a trajectory brings along.

    Parameters
    ----------
    path : Path

    Returns
    -------
    mdtraj.Topology

    Raises
    ------
    ValueError
        If files of this format have none, or it cannot be read.
    """
    if not path.name.lower().endswith(_WITH_TOPOLOGY):
        raise ValueError(
            f"topology must be given: {path.name} holds positions only; topology=load_topology('start.pdb') takes "
            "that of a PDB file of the same atoms"
        )
    return load_topology(path)


# ---- what they hold --------------------------------------------------------------------------------------------------


class TrajectoryFile(NamedTuple):
    """A file, looked into.

    Attributes
    ----------
    path : Path
    n_frames : int
    n_atoms : int
        Of the topology; the file may know more only when it is read.
    timestep : float or None
        Time between its frames, ps; None if it has no times, or one frame only.
    """

    path: Path
    n_frames: int
    n_atoms: int
    timestep: float | None


def inspect_file(
    path: Path, topology: mdtraj.Topology, *, allow_truncated: bool = False, need_times: bool = True
) -> TrajectoryFile:
    """Count the frames of a file, and check it against the topology.

    Parameters
    ----------
    path : Path
    topology : mdtraj.Topology
    allow_truncated : bool
        Take the whole frames of a file that ends too early, with a warning that says how many are there.
    need_times : bool
        Look at its times; otherwise none are given, and they may be in any order.

    Returns
    -------
    TrajectoryFile

    Raises
    ------
    ValueError
        If the file is damaged, ends too early, has no frames, other atoms, or frames at uneven times; the message names
        the file.
    """
    _check_package(path)
    try:
        found = contents(path, topology.n_atoms)
    except DamagedError as error:
        raise ValueError(f"{path}: {error}; get the file again, or convert it where it was written") from error
    if found is None:
        found = _count_by_reading(path, topology.n_atoms)
    if found.n_atoms not in (None, topology.n_atoms):
        raise ValueError(
            f"{path} has {found.n_atoms} atoms, the topology {topology.n_atoms}; give the topology of exactly the "
            "atoms that were written to the trajectory"
        )
    if found.problem is not None:
        message = f"{path}: {found.problem}; {found.n_frames} frames are whole"
        if not allow_truncated:
            raise ValueError(
                f"{message}. Get the file again, wait if its simulation is still running, or allow_truncated=True "
                "takes those that are whole"
            )
        warnings.warn(message + " and taken", stacklevel=2)
    if found.n_frames == 0:
        raise ValueError(f"{path} holds no whole frame; leave it out")
    times = found.times if need_times else None
    return TrajectoryFile(path, found.n_frames, topology.n_atoms, None if times is None else _spacing(times, path))


def _check_package(path: str | os.PathLike[str]) -> None:
    for suffixes, (package, name) in _PACKAGES.items():
        if os.fspath(path).lower().endswith(suffixes) and importlib.util.find_spec(package) is None:
            raise ValueError(f"{path}: reading {name} trajectories needs the package {package}; pip install {package}")


def _count_by_reading(path: Path, n_atoms: int) -> Contents:
    with _reader() as reader:
        answer, arrays = reader.ask({"what": "count", "path": str(path), "n_atoms": n_atoms})
    return Contents(answer["n_frames"], None, arrays.get("time"), None)


def _spacing(times: Array, path: Path) -> float | None:
    """Time between frames, with no more digits than single-precision times give."""
    if len(times) < 2:
        return None
    if not np.isfinite(times).all():
        raise ValueError(f"{path}: the time of frame {int(np.argmin(np.isfinite(times)))} is not finite; "
                         "give timestep= to count frames instead")  # fmt: skip
    step = (times[-1] - times[0]) / (len(times) - 1)
    # half a unit in the last place of a single-precision number, and times that were themselves rounded to three digits
    rounding = 1.2e-7 * np.abs(times).max() + 1e-3 * abs(step)
    off = np.abs(times - (times[0] + step * np.arange(len(times)))) > rounding
    if step <= 0 or off.any():
        gaps = np.diff(times)
        frame = int(np.argmax(np.abs(gaps - np.median(gaps)))) + 1
        raise ValueError(
            f"{path}: frames must follow each other in equal times, got {times[frame - 1]:g} ps and then "
            f"{times[frame]:g} ps at frame {frame}, where {np.median(gaps):g} ps is usual; cut or sort the file "
            "there, or give timestep= to take it as it is"
        )
    error = 2.4e-7 * np.abs(times).max() / (len(times) - 1)
    return next(value for digits in range(1, 18) if abs((value := float(f"{step:.{digits}g}")) - step) <= error)


def parse_lag(lag: str | int, timestep: float | None) -> int:
    """A lag time in frames.

    Parameters
    ----------
    lag : str or int
        "10 ps", "0.5 ns", "100 fs", "20 frames" or a number of frames.
    timestep : float or None
        Time between frames, ps.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is no positive whole number of frames (the message names the nearest ones), or has a unit and the
        timestep is not known.

    Examples
    --------
    >>> parse_lag("5 ps", 0.2), parse_lag("20 frames", None), parse_lag(3, 0.2)
    (25, 20, 3)
    """
    if isinstance(lag, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*([a-zµμ]*)\s*", lag)
        unit = match[2].replace("μ", "µ") if match else ""
        number = _number(match[1]) if match else None
        if number is None or unit not in (*_UNITS, "", "frame", "frames"):
            raise ValueError(
                f"lag must be a number of frames, or a time such as '10 ps', '0.5 ns' or '20 frames', got {lag!r}"
            )
        if unit in _UNITS:
            return _in_frames(lag, number * _UNITS[unit], timestep)
        lag_frames = number
    elif isinstance(lag, int | np.integer) and not isinstance(lag, bool):
        lag_frames = float(lag)
    else:
        raise ValueError(f"lag must be a number of frames or a time such as '10 ps', got {lag!r}")
    if lag_frames < 1 or lag_frames != int(lag_frames):
        raise ValueError(f"lag must be a positive whole number of frames, got {lag!r}")
    return int(lag_frames)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _in_frames(lag: str, time: float, timestep: float | None) -> int:
    if timestep is None:
        raise ValueError(
            f"lag={lag!r} needs the time between frames, which these files do not have; give timestep= in ps, or the "
            "lag in frames"
        )
    frames = time / timestep
    nearest = round(frames)
    # times written in single precision are known to seven digits
    if nearest < 1 or abs(frames - nearest) > 1e-5 * max(frames, 1.0):
        low = max(1, int(frames))
        near = " or ".join(f"{n * timestep:.6g} ps ({n} frames)" for n in sorted({low, low + (frames > 1)}))
        raise ValueError(f"lag={lag!r} must be a whole number of frames, which are {timestep:g} ps apart; take {near}")
    return nearest


# ---- frames ----------------------------------------------------------------------------------------------------------


class Frames(NamedTuple):
    """Some frames of a file.

    Attributes
    ----------
    first : int
        Number of the first one in the file.
    xyz : array of float32, shape (n, n_atoms, 3), nm
    time : array of float64, shape (n,), ps
        Counted by the reader where the file has none.
    lengths, angles : array of float32, shape (n, 3), nm and degrees, or None
        Of the unit cell.
    """

    first: int
    xyz: Array
    time: Array
    lengths: Array | None
    angles: Array | None


def read_frames(file: TrajectoryFile, start: int, stop: int, *, stride: int = 1, n_frames: int) -> Iterator[Frames]:
    """Frames of a file, some at a time; the next ones are read while these are used.

    Parameters
    ----------
    file : TrajectoryFile
    start, stop, stride : int
        Frames ``range(start, stop, stride)`` of the file.
    n_frames : int
        Most frames at a time; less of many atoms, so that a piece takes about 8 MB.

    Yields
    ------
    Frames

    Raises
    ------
    ValueError
        If the file cannot be read, a frame is missing, or a position is not finite; the message names file and frame.
    """
    size = max(1, min(n_frames, _PIECE_BYTES // (12 * file.n_atoms * stride)))
    pieces = [(first, min(first + size * stride, stop)) for first in range(start, stop, size * stride)]

    def request(piece: tuple[int, int]) -> dict[str, Any]:
        first, last = piece
        return {"what": "read", "path": str(file.path), "n_atoms": file.n_atoms, "start": first, "stop": last,
                "stride": stride}  # fmt: skip

    with _reader() as reader:
        if pieces:
            reader.send(request(pieces[0]))
        for number, (first, last) in enumerate(pieces):
            arrays = reader.receive()[1]
            if number + 1 < len(pieces):
                reader.send(request(pieces[number + 1]))
            xyz = arrays["xyz"]
            expected = len(range(first, last, stride))
            if xyz.shape != (expected, file.n_atoms, 3):
                raise ValueError(
                    f"{file.path}: expected {file.n_frames} frames, but reading ends after frame "
                    f"{first + max(len(xyz) - 1, 0) * stride}; the file is damaged, get it again"
                )
            _check_finite(xyz, file.path, first, stride)
            yield Frames(first, xyz, arrays["time"], arrays.get("lengths"), arrays.get("angles"))


def _check_finite(xyz: Array, path: Path, first: int, stride: int) -> None:
    with np.errstate(all="ignore"):
        total = np.sum(xyz)
    if np.isfinite(total):
        return
    bad = np.argwhere(~np.isfinite(xyz))
    if len(bad):
        frame, atom, axis = bad[0]
        raise ValueError(
            f"{path}: positions must be finite, got {xyz[frame, atom, axis]} for atom {atom} in frame "
            f"{first + frame * stride}; the simulation broke down or the file is damaged"
        )


# ---- the process that reads ------------------------------------------------------------------------------------------

# not -m: what can be imported here must be there, too
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from molml.kinetics.child import serve; serve()"
_IDLE: list[_Reader] = []
_MOST_IDLE = 2


class _reader:
    """A process for the time of a with-block: one that waits for work, or a new one."""

    def __enter__(self) -> _Reader:
        while _IDLE:
            reader = _IDLE.pop()
            if reader.usable():
                break
            reader.close()
        else:
            reader = _Reader()
        self._reader = reader
        return reader

    def __exit__(self, *_: object) -> None:
        # one that owes an answer would give it to the next who asks
        if self._reader.owes or not self._reader.usable() or len(_IDLE) >= _MOST_IDLE:
            self._reader.close()
        else:
            _IDLE.append(self._reader)


@final
class _Reader:
    """The other end of :mod:`molml.kinetics.child`."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C is ours to handle
            start_new_session=True,
        )
        self._owner = os.getpid()
        self.owes = False
        self._path = ""

    def usable(self) -> bool:
        # not after a fork, when two would share the pipes
        return self._owner == os.getpid() and self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
        self.send(request)
        return self.receive()

    def send(self, request: dict[str, Any]) -> None:
        self._path, self.owes = request["path"], True
        try:
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()
        except OSError as error:
            raise self._ended() from error

    @property
    def _input(self) -> Any:
        return self._process.stdin

    def receive(self) -> tuple[dict[str, Any], dict[str, Array]]:
        # a pipe cannot be waited for with a limit on every system, but whoever hangs can be ended
        hung = threading.Event()

        def end() -> None:
            hung.set()
            self._process.kill()

        watch = threading.Timer(_PATIENCE, end)
        watch.daemon = True
        watch.start()
        output: Any = self._process.stdout
        try:
            line = output.readline()
            if not line.endswith(b"\n"):
                raise self._hung() if hung.is_set() else self._ended()
            answer = json.loads(line)
            arrays = {}
            for name, kind, shape in answer["arrays"]:
                array = np.empty(shape, kind)
                if output.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:
                    raise self._hung() if hung.is_set() else self._ended()
                arrays[name] = array
        finally:
            watch.cancel()
        self.owes = False
        if "error" in answer:
            raise ValueError(
                f"{self._path} cannot be read ({answer['error']}); it is damaged, or not what its ending says"
            )
        return answer, arrays

    def _hung(self) -> ValueError:
        return ValueError(
            f"{self._path}: nothing was read for {_PATIENCE:g} s, so the reader was ended; the file is damaged, or its "
            "disk does not answer"
        )

    def _ended(self) -> ValueError:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._log.seek(0)
        lines = self._log.read()[-2000:].decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        return ValueError(
            f"{self._path}: the reader crashed ({how}{last}), which took only its own process; the file is damaged"
        )

    def close(self) -> None:
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            # what could not be written to a process that has ended
            self._input.close()
        output: Any = self._process.stdout
        output.close()
        self._log.close()


@atexit.register
def _close_idle() -> None:
    while _IDLE:
        _IDLE.pop().close()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
