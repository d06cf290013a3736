"""What runs in the process that reads trajectory files, so that a reader that crashes takes nobody with it.

It also knows where the frames of some text formats begin and end, which those who count them ask, too. It answers
requests, one JSON object a line on its standard input, with a JSON object a line and the arrays that it announces. Only
numpy and mdtraj are imported, so that it starts fast.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# what readers throw at damaged files; anything else ends the process, which the other side reports with its traceback
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError, EOFError, OSError,
    RuntimeError, MemoryError, ZeroDivisionError, StopIteration, ImportError, SyntaxError,  # the last of XML, too
)  # fmt: skip

CIF = (".cif", ".cif.gz", ".mmcif", ".mmcif.gz", ".pdbx", ".pdbx.gz")
RESTART = (".rst7", ".restrt", ".inpcrd", ".ncrst")
ONE_FRAME = (*RESTART, ".mol2", ".xml", ".hoomdxml")
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
        self._open()

    def _open(self) -> None:
        self._position = 0
        self._some, self._seek = _opened(self.path, self.n_atoms)

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
        """Frames ``range(start, stop, stride)``, in nm."""
        if self._position != start:
            self._go(start)
        frames = self._next(stop - start)
        arrays = {"xyz": frames.xyz[::stride], "time": np.asarray(frames.time, np.float64)[::stride]}
        if frames.unitcell_lengths is not None:
            arrays["lengths"] = np.asarray(frames.unitcell_lengths, np.float32)[::stride]
            arrays["angles"] = np.asarray(frames.unitcell_angles, np.float32)[::stride]
        return arrays

    def _go(self, start: int) -> None:
        if self._seek is not None:
            self._seek(start)
            self._position = start
            return
        if start < self._position:
            self._open()
        while self._position < start and len(self._next(min(start - self._position, _COUNTED_AT_ONCE))):
            pass

    def _next(self, n: int) -> Any:
        import mdtraj

        frames = self._some(n)
        if len(frames) and frames.xyz.shape[1] != self.n_atoms:
            raise ValueError(f"frame {self._position} has {frames.xyz.shape[1]} atoms instead of {self.n_atoms}")
        self._position += len(frames)
        return frames if len(frames) else mdtraj.Trajectory(np.zeros((0, self.n_atoms, 3)), None)


# ---- one format after the other --------------------------------------------------------------------------------------

_Some = Callable[[int], Any]
_Seek = Callable[[int], Any]


def _opened(path: str, n_atoms: int) -> tuple[_Some, _Seek | None]:
    """What gives the next frames, some at a time, and what goes to a frame, if the format allows."""
    import mdtraj

    name = path.lower()
    if name.endswith((".pdb", ".pdb.gz")):
        return _pieces(_models(Path(path)), "pdb"), None
    if name.endswith(CIF):
        return _pieces(((model.head, model.rows) for model in cif_models(Path(path))), "cif"), None
    if name.endswith(ONE_FRAME):
        return _once(path, n_atoms), None
    if name.endswith(".gsd"):
        return _gsd(path)
    if name.endswith((".dtr", ".stk")):
        return _dtr(path)
    file: Any
    if name.endswith((".mdcrd", ".crd")):
        # found by the reader itself, numbers that touch each other are taken for damage
        file = mdtraj.open(path, n_atoms=n_atoms, has_box=mdcrd_has_cells(Path(path), n_atoms))
    else:
        file = mdtraj.open(path)
    if name.endswith(".gro"):
        return lambda n: _gro(file, n), None
    if name.endswith((".h5", ".hdf5")):
        return lambda n: file.read_as_traj(n_frames=n), None
    if name.endswith(".lh5"):
        # its read_as_traj fails where no atoms are named, as it leaves them itself
        return lambda n: mdtraj.Trajectory(file.read(n_frames=n).reshape(-1, n_atoms, 3), None), file.seek
    # the topology stays with those who ask; readers need it for its number of atoms at the end of a file only
    anything = _Anything(n_atoms)
    if name.endswith(".arc"):
        file.topology = anything
        return lambda n: file.read_as_traj(n_frames=n), None
    direct = name.endswith((".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf"))
    return lambda n: file.read_as_traj(anything, n_frames=n), file.seek if direct else None


def _pieces(models: Iterator[tuple[bytes, bytes]], suffix: str) -> _Some:
    """Models of a text file, some at a time, each with what stands before the first: mdtraj reads such files whole."""
    import mdtraj
    from mdtraj.formats.pdbx import load_pdbx

    load = {"pdb": mdtraj.load_pdb, "cif": load_pdbx}[suffix]

    def some(n: int) -> Any:
        texts = list(islice(models, n))
        if not texts:
            return []
        with tempfile.TemporaryDirectory() as folder:
            piece = Path(folder) / f"piece.{suffix}"
            piece.write_bytes(texts[0][0] + b"".join(text for _, text in texts))
            return load(str(piece))

    return some


def _once(path: str, n_atoms: int) -> _Some:
    """The frame of a file that has one."""
    import mdtraj
    from mdtraj.formats.registry import FormatRegistry

    def load() -> Any:
        name = path.lower()
        if name.endswith(RESTART):
            kind = mdtraj.formats.AmberNetCDFRestartFile if is_netcdf(Path(path)) else mdtraj.formats.AmberRestartFile
            with kind(path) as file:
                return file.read_as_traj(_Anything(n_atoms))
        loader = FormatRegistry.loaders[os.path.splitext(name)[1]]
        return loader(path, top=_nameless(n_atoms)) if name.endswith(".xml") else loader(path)

    rest = [load]
    return lambda n: rest.pop()() if n and rest else []


def _gsd(path: str) -> tuple[_Some, _Seek]:
    import gsd.hoomd
    import mdtraj

    file = gsd.hoomd.open(path, "r")
    place = 0

    def seek(frame: int) -> None:
        nonlocal place
        place = frame

    def some(n: int) -> Any:
        nonlocal place
        frames = [file[i] for i in range(place, min(place + n, len(file)))]
        if not frames:
            return []
        found = mdtraj.Trajectory(
            np.array([frame.particles.position for frame in frames]), None, time=np.arange(place, place + len(frames))
        )
        lx, ly, lz, xy, xz, yz = np.array([frame.configuration.box for frame in frames], np.float64).T
        none = np.zeros_like(lx)
        # HOOMD's tilt factors are relative to the lengths
        vectors = np.array([[lx, none, none], [xy * ly, ly, none], [xz * lz, yz * lz, lz]])
        found.unitcell_vectors = vectors.transpose(2, 0, 1)
        place += len(frames)
        return found

    return some, seek


def _dtr(path: str) -> tuple[_Some, _Seek]:
    import mdtraj

    file = mdtraj.formats.DTRTrajectoryFile(path)

    def some(n: int) -> Any:
        # its read_as_traj reads all frames, whatever is asked
        xyz, times, lengths, angles = file.read(n_frames=n)
        if not len(xyz):
            return []
        # as mdtraj makes nm of Å, to the last bit
        xyz *= 0.1
        lengths *= 0.1
        return mdtraj.Trajectory(xyz, None, times, lengths, angles)

    return some, file.seek


def _gro(file: Any, n: int) -> Any:
    # its read_as_traj reads all frames, whatever is asked
    import mdtraj

    positions, time, vectors = file.read(n_frames=n)
    frames = mdtraj.Trajectory(positions.reshape(len(positions), -1, 3), None, time=time)
    frames.unitcell_vectors = vectors if len(positions) else None
    return frames


class _Anything:
    """Stands for a topology of which nothing but the number of atoms is known."""

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = self._numAtoms = n_atoms


def _nameless(n_atoms: int) -> Any:
    """A topology for readers that insist on one."""
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(n_atoms):
        topology.add_atom("X", mdtraj.element.virtual, residue)
    return topology


# ---- where frames begin and end --------------------------------------------------------------------------------------


def lines_of(path: Path) -> Iterator[bytes]:
    """Lines of a text file, which may be compressed."""
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        yield from file


def is_netcdf(path: Path) -> bool:
    """Amber writes restarts as text or as NetCDF, under the same names."""
    with open(path, "rb") as file:
        return file.read(3) == b"CDF"


def mdcrd_has_cells(path: Path, n_atoms: int) -> bool:
    """Whether a line of three lengths follows each frame of an AMBER trajectory: the file does not say so itself.

    Raises
    ------
    ValueError
        For one atom, whose frames look like such lines.
    """
    if n_atoms == 1:
        raise ValueError("frames of one atom cannot be told from cells in this format")
    after = list(islice(lines_of(path), 1 + mdcrd_lines(n_atoms), 2 + mdcrd_lines(n_atoms)))
    return bool(after) and mdcrd_is_cell(after[0])


def mdcrd_is_cell(line: bytes) -> bool:
    """Three numbers, with or without blanks between them, where two atoms or more would give six."""
    return len(line.split()) == 3 and len(line.rstrip()) <= 26


def mdcrd_lines(n_atoms: int) -> int:
    """Lines of a frame without its cell: ten numbers in each."""
    return (3 * n_atoms + 9) // 10


def _models(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Of every model of a PDB file, the lines in front of the first, where the cell is, and its own."""
    head: list[bytes] = []
    model: list[bytes] = []
    several = False
    for line in lines_of(path):
        word = line[:6].rstrip()
        if word == b"MODEL":
            several, model = True, [line]
        elif word == b"ENDMDL":
            yield b"".join(head), b"".join([*model, line])
            model = []
        elif several or word in (b"ATOM", b"HETATM", b"TER"):
            model.append(line)
        elif word != b"END":
            head.append(line)
    if not several and model:
        yield b"".join(head), b"".join(model)


class CifModel(NamedTuple):
    """A model of an mmCIF file.

    Attributes
    ----------
    head : bytes
        The cell and the names of the columns.
    rows : bytes
    n_rows : int
        Atoms, alternative places counted each.
    ended : bool
        False if the file ends within a line.
    """

    head: bytes
    rows: bytes
    n_rows: int
    ended: bool


# words of a row; what is quoted ends where the quote is followed by a blank
_WORDS = re.compile(rb"""'.*?'(?=\s|$)|".*?"(?=\s|$)|\S+""")
_NEEDED = ("type_symbol", "label_alt_id", "cartn_x", "cartn_y", "cartn_z")


def cif_models(path: Path) -> Iterator[CifModel]:
    """Models of an mmCIF file, one at a time.

    Raises
    ------
    ValueError
        If there is no table of atoms, more than one, or one that cannot be split into models; the message does not name
        the file.
    """
    head: list[bytes] = [b"data_model\n"]
    columns: list[str] = []
    rows: list[bytes] = []
    model, inside, place = b"", False, -1
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        tag = line[:11].lower()
        if inside and not tag.startswith((b"_", b"loop_", b"data_")):
            if not line.endswith(b"\n"):
                yield CifModel(b"".join(head), b"".join(rows), len(rows), ended=False)
                return
            words = _WORDS.findall(line)
            if len(words) != len(columns):
                raise ValueError(f"line {number} should hold {len(columns)} values of an atom, got {len(words)}")
            before, model = model, words[place] if place >= 0 else b"1"
            if rows and model != before:
                yield CifModel(b"".join(head), b"".join(rows), len(rows), ended=True)
                rows = []
            rows.append(line)
        elif tag == b"_atom_site.":
            if rows or (columns and not inside):
                raise ValueError(f"line {number} begins a second table of atoms")
            name, inside = line[11:].strip().lower().decode("latin-1"), True
            if name == "pdbx_pdb_model_num":
                place = len(columns)
            head += [line] if columns else [b"loop_\n", line]
            columns.append(name)
        elif tag.startswith(b"_cell."):
            if columns:
                raise ValueError(f"line {number} tells the cell after the atoms, where it is not looked for")
            head.append(line)
        else:
            inside = False
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise ValueError(f"it has no table of atoms (_atom_site) with {missing[0]}")
    if rows:
        yield CifModel(b"".join(head), b"".join(rows), len(rows), ended=True)
