"""What runs in the process that reads trajectory files, so that a reader that crashes takes nobody with it.

It answers requests, one JSON object a line on its standard input, with a JSON object a line and the arrays that it
announces. Only numpy and mdtraj are imported, so that it starts fast.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# what readers throw at damaged files; anything else ends the process, which the other side reports with its traceback
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError, EOFError, OSError,
    RuntimeError, MemoryError, ZeroDivisionError, StopIteration, ImportError,
)  # fmt: skip

_COUNTED_AT_ONCE = 1000


def serve() -> None:
    """Answer requests until there are no more."""
    # what libraries print must not get between the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    import mdtraj  # noqa: F401  while the first request is on its way

    opened: _Frames | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        arrays: dict[str, Array] = {}
        answer: dict[str, Any] = {}
        try:
            path, n_atoms = request["path"], request["n_atoms"]
            if opened is None or (opened.path, opened.n_atoms) != (path, n_atoms):
                opened = _Frames(path, n_atoms)
            if request["what"] == "count":
                answer["n_frames"], times = opened.count()
                arrays = {} if times is None else {"time": times}
            else:
                arrays = opened.read(request["start"], request["stop"], request["stride"])
        except DAMAGE as error:
            # HDF5 tells all its calls first, and what is wrong last
            reason = str(error).strip().splitlines()[-1:] or ["no reason given"]
            answer["error"], arrays = f"{type(error).__name__}: {reason[0]}", {}
            opened = None
        answer["arrays"] = [[name, str(array.dtype), array.shape] for name, array in arrays.items()]
        answers.write(json.dumps(answer).encode() + b"\n")
        for array in arrays.values():
            answers.write(np.ascontiguousarray(array).data)
        answers.flush()


class _Frames:
    """A file that is being read, from front to back where possible."""

    def __init__(self, path: str, n_atoms: int) -> None:
        self.path, self.n_atoms = path, n_atoms
        self._position = 0
        self._open()

    def _open(self) -> None:
        import mdtraj

        name = self.path.lower()
        self._file: Any = None
        self._models: Iterator[bytes] | None = None
        if name.endswith((".pdb", ".pdb.gz")):
            self._models = _models(Path(self.path))
        else:
            self._file = mdtraj.open(self.path)
        self._position = 0

    def count(self) -> tuple[int, Array | None]:
        """Frames, and times where there are any, by reading all of them."""
        self._open()
        times = []
        n = 0
        while len(frames := self._next(_COUNTED_AT_ONCE)):
            n += len(frames)
            times.append(frames.time)
        timed = self.path.lower().endswith((".h5", ".hdf5")) and n
        return n, np.concatenate(times).astype(np.float64) if timed else None

    def read(self, start: int, stop: int, stride: int) -> dict[str, Array]:
        """Every so manieth frame, in nm."""
        if self._position != start:
            self._go(start)
        frames = self._next(stop - start)
        arrays = {"xyz": frames.xyz[::stride], "time": np.asarray(frames.time, np.float64)[::stride]}
        if frames.unitcell_lengths is not None:
            arrays["lengths"] = np.asarray(frames.unitcell_lengths, np.float32)[::stride]
            arrays["angles"] = np.asarray(frames.unitcell_angles, np.float32)[::stride]
        return arrays

    def _go(self, start: int) -> None:
        if self._file is not None and self.path.lower().endswith((".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf")):
            self._file.seek(start)
            self._position = start
            return
        if start < self._position:
            self._open()
        while self._position < start and len(self._next(min(start - self._position, _COUNTED_AT_ONCE))):
            pass

    def _next(self, n: int) -> Any:
        import mdtraj

        if self._models is not None:
            frames = _load(list(islice(self._models, n)))
        elif self.path.lower().endswith(".gro"):
            # its read_as_traj reads all frames, whatever is asked
            positions, time, vectors = self._file.read(n_frames=n)
            frames = mdtraj.Trajectory(positions.reshape(len(positions), -1, 3), None, time=time)
            frames.unitcell_vectors = vectors if len(positions) else None
        elif self.path.lower().endswith((".h5", ".hdf5")):
            frames = self._file.read_as_traj(n_frames=n)
        else:
            # the topology stays with those who ask; readers need it for its number of atoms at the end of a file only
            frames = self._file.read_as_traj(_Anything(self.n_atoms), n_frames=n)
        if len(frames) and frames.xyz.shape[1] != self.n_atoms:
            raise ValueError(f"frame {self._position} has {frames.xyz.shape[1]} atoms instead of {self.n_atoms}")
        self._position += len(frames)
        return frames if len(frames) else mdtraj.Trajectory(np.zeros((0, self.n_atoms, 3)), None)


def _load(models: list[bytes]) -> Any:
    """Models of a PDB file, some at a time: mdtraj reads such files whole."""
    import mdtraj

    if not models:
        return []
    with tempfile.TemporaryDirectory() as folder:
        piece = Path(folder) / "piece.pdb"
        piece.write_bytes(b"".join(models) + b"END\n")
        return mdtraj.load_pdb(str(piece))


class _Anything:
    """Stands for a topology of which nothing but the number of atoms is known."""

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = self._numAtoms = n_atoms


def _models(path: Path) -> Iterator[bytes]:
    """Text of every model of a PDB file, each after the lines in front of the first: the cell is there."""
    file: Any
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        head: list[bytes] = []
        model: list[bytes] = []
        several = False
        for line in file:
            word = line[:6].rstrip()
            if word == b"MODEL":
                several, model = True, [line]
            elif word == b"ENDMDL":
                yield b"".join([*head, *model, line])
                model = []
            elif several or word in (b"ATOM", b"HETATM", b"TER"):
                model.append(line)
            elif word != b"END":
                head.append(line)
        if not several and model:
            yield b"".join(head + model)
