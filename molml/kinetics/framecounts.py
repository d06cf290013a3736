"""How many frames a trajectory file should give, found in the file itself, without the library that will read them.

A reader that loses frames silently (of a DCD file that was cut off, say) cannot be trusted with counting them. Formats
that are not known here are counted by reading.

References
----------
XTC and TRR: xdrfile of GROMACS. DCD: CHARMM's documentation of DYNAMC. NetCDF: the classic file format specification of
Unidata, and AMBER's conventions. AMBER's text formats: its manual. PDB: wwPDB format 3.3, and the dictionary of
PDBx/mmCIF. Desmond: the frame sets of VMD's dtrplugin. Tinker: its user's guide.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numba import njit

from molml.kinetics.child import (
    CIF,
    RESTART,
    cif_models,
    is_netcdf,
    lines_of,
    mdcrd_has_cells,
    mdcrd_is_cell,
    mdcrd_lines,
)

Array = np.ndarray[Any, np.dtype[Any]]

_WINDOW = 2**18


class Contents(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    n_frames : int
        Frames that are there, whole.
    n_atoms : int or None
        None if only the reader can tell.
    times : array of float64, shape (n_frames,), or None
        In ps; None if the format has none.
    problem : str or None
        Why frames are missing, or may be.
    """

    n_frames: int
    n_atoms: int | None
    times: Array | None
    problem: str | None


class DamagedError(ValueError):
    """A file that is not what its name says."""


def contents(path: Path, n_atoms: int) -> Contents | None:
    """Look into a file.

    Parameters
    ----------
    path : Path
    n_atoms : int
        Of the topology: AMBER's text trajectories do not say where a frame ends. One of twice as many atoms may look
        like one of twice as many frames.

    Returns
    -------
    Contents or None
        None if the format is not known here.

    Raises
    ------
    DamagedError
        If the file is not of the format of its name, or damaged; the message does not name it.
    OSError
        If it cannot be read.
    """
    name = path.name.lower()
    try:
        if name.endswith((".mdcrd", ".crd")):
            return _mdcrd(path, n_atoms)
        return next((count(path) for suffixes, count in _COUNTERS.items() if name.endswith(suffixes)), None)
    except (struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"it ends within its header, or is damaged ({error})") from error


# ---- GROMACS ---------------------------------------------------------------------------------------------------------

_GOOD, _NO_FRAME, _OTHER_ATOMS = 0, 1, 2


def _xtc(path: Path) -> Contents:
    return _gromacs(path, _xtc_frames, "XTC")


def _trr(path: Path) -> Contents:
    return _gromacs(path, _trr_frames, "TRR")


def _gromacs(path: Path, scan: Callable[..., tuple[int, int, int, int]], kind: str) -> Contents:
    """Go from frame to frame by their lengths; headers alone are looked at, where frames are long."""
    size = path.stat().st_size
    offset = n_frames = n_atoms = 0
    times: list[Array] = []
    # room for the headers of the shortest frames that fit
    found = np.empty(_WINDOW // 56 + 1)
    with open(path, "rb", buffering=0) as file:
        while offset < size:
            file.seek(offset)
            window = file.read(_WINDOW)
            # what follows the end reads as zeros
            buffer = np.frombuffer(window + bytes(128), np.uint8)
            n, end, n_atoms, state = scan(buffer, len(window), offset + len(window) >= size, n_atoms, found)
            if state != _GOOD:
                what = "another number of atoms" if state == _OTHER_ATOMS else f"no {kind} frame"
                raise DamagedError(f"frame {n_frames + n} at byte {offset + end} is damaged: {what} begins there")
            if n == 0:
                break
            times.append(found[:n].copy())
            n_frames += n
            offset += end
    if offset == size:
        return Contents(n_frames, n_atoms, np.concatenate(times) if times else np.zeros(0), None)
    # the last frame reaches beyond the end of the file, or its header does
    whole = n_frames - (offset > size)
    joined = np.concatenate(times)[:whole] if times else np.zeros(0)
    return Contents(whole, n_atoms, joined, f"the file ends within frame {whole}")


_jit = njit(cache=True, error_model="numpy")


@_jit
def _integer(buffer, at):  # type: ignore[no-untyped-def]
    value = (np.int64(buffer[at]) << 24) | (np.int64(buffer[at + 1]) << 16) | (np.int64(buffer[at + 2]) << 8)
    value |= np.int64(buffer[at + 3])
    return value - (np.int64(1) << 32) if value >= (np.int64(1) << 31) else value


@_jit
def _real(buffer, at, width):  # type: ignore[no-untyped-def]
    """Big-endian floating-point number of 4 or 8 bytes."""
    if width == 4:
        four = np.empty(4, np.uint8)
        for i in range(4):
            four[i] = buffer[at + 3 - i]
        return np.float64(four.view(np.float32)[0])
    eight = np.empty(8, np.uint8)
    for i in range(8):
        eight[i] = buffer[at + 7 - i]
    return eight.view(np.float64)[0]


@_jit
def _xtc_frames(buffer, size, at_end, n_atoms, times):  # type: ignore[no-untyped-def]
    """Times of the frames whose headers lie in the buffer; their number, where the next one begins, atoms, state."""
    at = n = 0
    while at < size and (at + 96 <= size or at_end):
        magic, atoms, again = _integer(buffer, at), _integer(buffer, at + 4), _integer(buffer, at + 52)
        if at + 56 > size:
            break
        if magic != 1995 and magic != 2023:
            return n, at, n_atoms, _NO_FRAME
        if atoms < 1 or atoms != again or (n_atoms and atoms != n_atoms):
            return n, at, n_atoms, _OTHER_ATOMS
        n_atoms = atoms
        if atoms <= 9:
            length = 56 + 12 * atoms
        else:
            if at + 88 + (4 if magic == 1995 else 8) > size:
                break
            if magic == 1995:
                n_bytes, head = _integer(buffer, at + 88), 92
            else:
                n_bytes, head = (_integer(buffer, at + 88) << 32) + (_integer(buffer, at + 92) & 0xFFFFFFFF), 96
            if n_bytes < 1:
                return n, at, n_atoms, _NO_FRAME
            length = head + (n_bytes + 3) // 4 * 4
        times[n] = _real(buffer, at + 12, 4)
        n += 1
        at += length
    return n, at, n_atoms, _GOOD


@_jit
def _trr_frames(buffer, size, at_end, n_atoms, times):  # type: ignore[no-untyped-def]
    at = n = 0
    while at < size and (at + 92 <= size or at_end):
        if at + 84 > size:
            break
        if _integer(buffer, at) != 1993 or _integer(buffer, at + 8) != 12:
            return n, at, n_atoms, _NO_FRAME
        length = 0
        # input record, energies, topology and symbols are never written
        for field in range(10):
            part = _integer(buffer, at + 24 + 4 * field)
            if part < 0:
                return n, at, n_atoms, _NO_FRAME
            length += part
        box, positions, atoms = _integer(buffer, at + 32), _integer(buffer, at + 52), _integer(buffer, at + 64)
        if atoms < 1 or (n_atoms and atoms != n_atoms):
            return n, at, n_atoms, _OTHER_ATOMS
        n_atoms = atoms
        width = box // 9 if box else positions // (3 * atoms)
        if (width != 4 and width != 8) or positions != 3 * atoms * width:
            # frames with velocities alone are not frames to us
            return n, at, n_atoms, _NO_FRAME
        if at + 76 + 2 * width > size:
            break
        times[n] = _real(buffer, at + 76, width)
        n += 1
        at += 76 + 2 * width + length
    return n, at, n_atoms, _GOOD


# ---- CHARMM, NAMD, OpenMM --------------------------------------------------------------------------------------------


def _dcd(path: Path) -> Contents:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(16)
        for order, width in (("<", 4), (">", 4), ("<", 8), (">", 8)):
            marker = {4: "i", 8: "q"}[width]
            begins_here = start[width : width + 4] == b"CORD"
            if begins_here and struct.unpack_from(order + marker, start)[0] == 84:
                break
        else:
            raise DamagedError("it does not begin like a DCD file of positions")

        def record() -> bytes:
            (length,) = struct.unpack(order + marker, file.read(width))
            if not 0 <= length <= size:
                raise DamagedError(f"a record of its header claims a length of {length} bytes")
            data = file.read(length)
            if file.read(width) != struct.pack(order + marker, length):
                raise DamagedError("its header ends early, or a record of it does not end where it should")
            return data

        file.seek(0)
        control = struct.unpack(order + "20i", record()[4:84])
        record()  # titles
        (n_atoms,) = struct.unpack(order + "i", record())
        announced, n_fixed, charmm = control[0], control[8], control[19] != 0
        if n_atoms < 1 or not 0 <= n_fixed < n_atoms or announced < 0:
            raise DamagedError(f"its header claims {announced} frames of {n_atoms} atoms, {n_fixed} of them fixed")
        if n_fixed:
            record()  # which atoms are free
        header = file.tell()
    cell = 48 + 2 * width if charmm and control[10] else 0
    blocks = 4 if charmm and control[11] else 3
    first = cell + blocks * (4 * n_atoms + 2 * width)
    later = cell + blocks * (4 * (n_atoms - n_fixed) + 2 * width)
    body = size - header
    n_frames, rest = (0, body) if body < first else (1 + (body - first) // later, (body - first) % later)
    problem = None
    if rest:
        problem = f"the file ends within frame {n_frames}"
    if announced not in (0, n_frames):
        # programs that were stopped leave 0
        problem = f"its header announces {announced} frames, its size is that of {n_frames}"
    return Contents(n_frames, n_atoms, None, problem)


# ---- AMBER -----------------------------------------------------------------------------------------------------------

_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}


class _Variable(NamedTuple):
    shape: tuple[int, ...]  # of a record, if it has records
    type: np.dtype[Any]
    begin: int
    records: bool


_NONE = _Variable((), np.dtype("i1"), 0, False)


def _netcdf(path: Path) -> Contents | None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic == b"\x89HDF":
            return None
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02"):
            raise DamagedError("it does not begin like a NetCDF file")
        announced, dimensions, variables = _netcdf_header(file, magic[3], size)
        if "atom" not in dimensions or "coordinates" not in variables or not variables["coordinates"].records:
            raise DamagedError("it holds no frames in AMBER's conventions (atom, frame, coordinates)")
        of_frames = [variable for variable in variables.values() if variable.records]
        lengths = [int(np.prod(v.shape, dtype=np.int64)) * v.type.itemsize for v in of_frames]
        # records are padded to four bytes, unless there is one variable only
        length = lengths[0] if len(lengths) == 1 else sum((n + 3) // 4 * 4 for n in lengths)
        begin = min(variable.begin for variable in of_frames)
        if begin > size or any(variable.begin >= begin + length for variable in of_frames):
            raise DamagedError("its header claims frames of no length, or beyond its end")
        there = (size - begin) // length
        if announced == 0xFFFFFFFF:
            announced = there  # written as a stream
        if there != announced or (size - begin) % length > 3:
            # the whole frames cannot be saved: readers of NetCDF refuse the file
            raise DamagedError(
                f"its header announces {announced} frames, its size is that of {(size - begin) / length:.4g}"
            )
        times = None
        if "time" in variables and variables["time"].records and variables["time"].shape == ():
            times = _column(file, variables["time"], length, there)
    return Contents(there, dimensions["atom"], times, None)


def _restart(path: Path) -> Contents:
    """One frame: positions, then velocities and the cell where they were written."""
    if is_netcdf(path):
        return _netcdf_restart(path)
    lines = list(lines_of(path))
    words = lines[1].split() if len(lines) > 1 else []
    if not words or not words[0].isdigit() or int(words[0]) < 1:
        raise DamagedError("it does not begin like a restart of AMBER, with a title and a number of atoms")
    n_atoms = int(words[0])
    of_positions = (n_atoms + 1) // 2
    n = len(lines) - 2
    if n < of_positions or not lines[-1].endswith(b"\n"):
        return Contents(0, n_atoms, None, "the file ends within its frame")
    if n not in (of_positions, of_positions + 1, 2 * of_positions, 2 * of_positions + 1):
        raise DamagedError(f"{n} lines follow its number of atoms, which is that of no frame of {n_atoms} atoms")
    return Contents(1, n_atoms, None, None)


def _netcdf_restart(path: Path) -> Contents:
    size = path.stat().st_size
    with open(path, "rb") as file:
        (version,) = struct.unpack("3xB", file.read(4))
        _, dimensions, variables = _netcdf_header(file, version, size)
    if "atom" not in dimensions or variables.get("coordinates", _NONE).shape != (dimensions["atom"], 3):
        raise DamagedError("it holds no frame in AMBER's conventions (atom, coordinates)")
    ends = [v.begin + int(np.prod(v.shape, dtype=np.int64)) * v.type.itemsize for v in variables.values()]
    if max(ends) > size:
        raise DamagedError(f"the file ends within its frame: {size} bytes instead of {max(ends)}")
    return Contents(1, dimensions["atom"], None, None)


def _mdcrd(path: Path, n_atoms: int) -> Contents:
    """A title, and lines of ten numbers; frames begin on a new line, and cells have lines of their own."""
    try:
        cells = mdcrd_has_cells(path, n_atoms)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    of_positions = mdcrd_lines(n_atoms)
    expected = [10] * (of_positions - 1) + [3 * n_atoms - 10 * (of_positions - 1)]
    n_lines = of_positions + cells
    n_frames = place = blank = 0
    line = b"\n"
    for number, line in enumerate(islice(lines_of(path), 1, None), start=2):
        if not line.strip():
            blank += 1
            continue
        if blank:
            raise DamagedError(f"line {number - 1} is blank, and others follow")
        if line.endswith(b"\n"):
            n = (len(line.rstrip()) + 7) // 8
            if place == of_positions and not mdcrd_is_cell(line):
                raise DamagedError(f"line {number} should hold the cell of frame {n_frames}, got {line[:40]!r}")
            if place < of_positions and n != expected[place]:
                raise DamagedError(
                    f"line {number} should hold {expected[place]} numbers of frame {n_frames}, got {n}; it is damaged, "
                    f"or not of the {n_atoms} atoms of the topology"
                )
        place += 1
        if place == n_lines:
            n_frames, place = n_frames + 1, 0
    return _ended(n_frames, n_atoms, within=place > 0, whole_line=line.endswith(b"\n"))


def _ended(n_frames: int, n_atoms: int | None, *, within: bool, whole_line: bool) -> Contents:
    """Of a text file, by where its last line leaves it."""
    problem = None
    if within:
        problem = f"the file ends within frame {n_frames}"
    elif not whole_line:
        # what is left of a number that was cut off is a number
        n_frames -= 1
        problem = f"the file ends within the last line of frame {n_frames} (no end of line)"
    return Contents(n_frames, n_atoms, None, problem)


def _netcdf_header(file: IO[bytes], version: int, size: int) -> tuple[int, dict[str, int], dict[str, _Variable]]:
    def integer() -> int:
        return int(struct.unpack(">I", file.read(4))[0])

    def counted(tag: int) -> range:
        found, n = integer(), integer()
        if found not in (0, tag) or n > size or (found == 0 and n):
            raise DamagedError("its header is damaged")
        return range(n)

    def text() -> str:
        n = integer()
        if n > size:
            raise DamagedError("its header is damaged")
        return file.read((n + 3) // 4 * 4)[:n].decode("latin-1")

    def skip_attributes() -> None:
        for _ in counted(0x0C):
            text()
            kind, n = integer(), integer()
            if kind not in _TYPES or n > size:
                raise DamagedError("its header is damaged")
            file.seek((n * np.dtype(_TYPES[kind]).itemsize + 3) // 4 * 4, os.SEEK_CUR)

    n_records = integer()
    dimensions = {text(): integer() for _ in counted(0x0A)}
    extents = list(dimensions.values())
    skip_attributes()
    variables = {}
    for _ in counted(0x0B):
        name = text()
        n_axes = integer()
        if n_axes > len(extents):
            raise DamagedError("its header is damaged")
        axes = [integer() for _ in range(n_axes)]
        if any(axis >= len(extents) for axis in axes):
            raise DamagedError("its header is damaged")
        skip_attributes()
        kind, _ = integer(), integer()
        if kind not in _TYPES:
            raise DamagedError("its header is damaged")
        begin = integer() if version == 1 else (integer() << 32) + integer()
        records = bool(axes) and extents[axes[0]] == 0
        shape = tuple(extents[axis] for axis in axes[records:])
        variables[name] = _Variable(shape, np.dtype(_TYPES[kind]), begin, records)
    return n_records, dimensions, variables


def _column(file: IO[bytes], variable: _Variable, length: int, n: int) -> Array:
    """One number of every record."""
    values = np.empty(n)
    width = variable.type.itemsize
    at_once = max(1, _WINDOW // length)
    for first in range(0, n, at_once):
        some = min(at_once, n - first)
        file.seek(variable.begin + first * length)
        data = file.read((some - 1) * length + width)
        view = np.ndarray((some,), variable.type, data, strides=(length,))
        values[first : first + some] = view
    return values


# ---- text ------------------------------------------------------------------------------------------------------------


def _pdb(path: Path) -> Contents:
    sizes: list[int] = []
    outside = 0  # atoms that belong to no model
    inside = False
    for number, line in enumerate(lines_of(path), start=1):
        word = line[:6].rstrip()
        if word in (b"ATOM", b"HETATM"):
            # the last line of a file that was cut off within a model is no other fault
            if len(line.rstrip()) < 54 and not (inside and not line.endswith(b"\n")):
                raise DamagedError(f"line {number} ends before the position of its atom does")
            if inside:
                sizes[-1] += 1
            else:
                outside += 1
        elif word == b"MODEL":
            if inside:
                raise DamagedError(f"line {number} begins a model within another; ENDMDL is missing before it")
            sizes.append(0)
            inside = True
        elif word == b"ENDMDL":
            if not inside:
                raise DamagedError(f"line {number} ends a model that did not begin; MODEL is missing before it")
            inside = False
    if not sizes:
        return Contents(int(outside > 0), None, None, None)
    if outside:
        raise DamagedError(f"{outside} of its atoms belong to no model")
    n_frames, problem = len(sizes), None
    if inside:
        n_frames -= 1
        problem = f"the file ends within frame {n_frames}, whose ENDMDL is missing"
    other = [i for i in range(n_frames) if sizes[i] != sizes[0]]
    if other:
        raise DamagedError(f"frame {other[0]} has {sizes[other[0]]} atoms, the first has {sizes[0]}")
    return Contents(n_frames, None, None, problem)


def _xyz(path: Path) -> Contents:
    return _counted_lines(path, 0, 2)


def _gro(path: Path) -> Contents:
    return _counted_lines(path, 1, 3)


def _lammps(path: Path) -> Contents:
    return _counted_lines(path, 3, 9)


def _counted_lines(path: Path, where: int, others: int) -> Contents:
    """Frames of one line for every atom and some others, of which number `where` is the number of atoms."""
    n_frames = place = 0
    n_atoms: int | None = None
    blank, line = 0, b"\n"
    for number, line in enumerate(lines_of(path), start=1):
        blank = blank + 1 if not line.strip() else 0
        if place == where and not blank:
            try:
                found = int(line)
            except ValueError as error:
                raise DamagedError(f"line {number} should be a number of atoms, got {line[:40]!r}") from error
            if found < 1 or (n_atoms is not None and found != n_atoms):
                raise DamagedError(f"line {number} claims {found} atoms in frame {n_frames}; the first has {n_atoms}")
            n_atoms = found
        elif place == where:
            continue  # blank lines at the end
        place += 1
        if n_atoms is not None and place == n_atoms + others:
            n_frames, place = n_frames + 1, 0
    return _ended(n_frames, n_atoms, within=place > blank, whole_line=line.endswith(b"\n"))


def _arc(path: Path) -> Contents:
    """Tinker: a number of atoms, six numbers of the cell where there is one, and a line for every atom."""
    n_frames = n_atoms = left = 0
    begun = False  # the line after the number of atoms is next
    line = b"\n"
    for number, line in enumerate(lines_of(path), start=1):
        words = line.split()
        if not left:
            if not words or not words[0].isdigit() or int(words[0]) < 1:
                raise DamagedError(f"line {number} should begin with a number of atoms, got {line[:40]!r}")
            if n_atoms and int(words[0]) != n_atoms:
                raise DamagedError(
                    f"line {number} claims {int(words[0])} atoms in frame {n_frames}, the first {n_atoms}"
                )
            n_atoms = left = int(words[0])
            begun = True
        elif begun and len(words) == 6 and _all_numbers(words):
            begun = False
        else:
            begun = False
            if len(words) < 6 and line.endswith(b"\n"):
                raise DamagedError(f"line {number} should hold an atom and its type, got {line[:40]!r}")
            left -= 1
            n_frames += not left
    return _ended(n_frames, n_atoms, within=left > 0, whole_line=line.endswith(b"\n"))


def _all_numbers(words: list[bytes]) -> bool:
    try:
        return [float(word) for word in words] != []
    except ValueError:
        return False


def _cif(path: Path) -> Contents:
    sizes, ended = [], True
    try:
        for model in cif_models(path):
            sizes.append(model.n_rows)
            ended = model.ended
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if not sizes:
        raise DamagedError("its table of atoms is empty")
    n_frames, problem = len(sizes), None
    if not ended or sizes[-1] < sizes[0]:
        # a line that was cut off may be the first of the next model, where the last one is as long as others
        n_frames -= n_frames == 1 or sizes[-1] != sizes[0]
        problem = f"the file ends within frame {n_frames}"
    other = [i for i in range(n_frames) if sizes[i] != sizes[0]]
    if other:
        raise DamagedError(f"frame {other[0]} has {sizes[other[0]]} atoms, the first has {sizes[0]}")
    return Contents(n_frames, None, None, problem)


def _mol2(path: Path) -> Contents | None:
    """Left to the reader, if it would read all of it: of several structures it takes the last."""
    n_structures = sum(line.startswith(b"@<TRIPOS>MOLECULE") for line in lines_of(path))
    if n_structures != 1:
        raise DamagedError(f"it must hold one structure, got {n_structures}: its reader would take the last")
    return None


# ---- Desmond ---------------------------------------------------------------------------------------------------------


def _dtr(path: Path) -> Contents:
    """Frames lie in several files of a folder; another one tells their times and where they are."""
    folder = path if path.is_dir() else path.parent
    try:
        keys = (folder / "timekeys").read_bytes()
    except FileNotFoundError as error:
        raise DamagedError("its folder holds no file timekeys") from error
    magic, per_file, length = struct.unpack_from(">4sII", keys)
    if magic != b"DESK" or length != 24 or per_file < 1:
        raise DamagedError("its file timekeys does not begin like one")
    n = (len(keys) - 12) // 24
    table = np.frombuffer(keys, ">u4", 6 * n, 12).reshape(n, 3, 2).astype(np.uint64)
    low_high = table[..., 0] | table[..., 1] << np.uint64(32)
    times = low_high[:, 0].copy().view(np.float64)
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise DamagedError("the times in its file timekeys do not increase")
    ends = np.zeros(n) if per_file == 1 else low_high[:, 1].astype(np.float64)
    ends += low_high[:, 2].astype(np.float64)
    # hashed over folders or not
    sizes = {int(file.name[5:]): file.stat().st_size for file in folder.rglob("frame?????????")}
    there = np.array([sizes.get(i // per_file, 0) for i in range(n)])
    whole = int(np.argmin(there >= ends)) if (there < ends).any() else n
    problem = None
    if whole < n:
        problem = f"its file timekeys announces {n} frames, but frame {whole} is not whole"
    elif (len(keys) - 12) % 24 or (n and max(sizes) > (n - 1) // per_file) or (n and there[-1] > ends[-1]):
        problem = f"its file timekeys ends after {n} frames, and there are more"
    return Contents(whole, None, times[:whole], problem)


def _stk(path: Path) -> Contents:
    """A list of frame sets, each of which is cut where the next one begins."""
    times: list[Array] = []
    for number, line in enumerate(lines_of(path), start=1):
        name = line.strip().decode()
        part = Path(name)
        if not name or not part.exists():
            raise DamagedError(
                f"line {number} names {name!r}, which is not there (relative names count from the working folder)"
            )
        found = _dtr(part)
        if found.problem is not None or found.times is None or not found.n_frames:
            raise DamagedError(f"line {number} names {name!r}: {found.problem or 'it holds no frame'}")
        if times:
            times[-1] = times[-1][times[-1] < found.times[0]]
            if not len(times[-1]):
                raise DamagedError(f"line {number} names {name!r}, which begins before all those above it")
        times.append(found.times)
    joined = np.concatenate(times) if times else np.zeros(0)
    return Contents(len(joined), None, joined, None)


_COUNTERS: dict[tuple[str, ...], Callable[[Path], Contents | None]] = {
    (".xtc",): _xtc,
    (".trr",): _trr,
    (".dcd",): _dcd,
    (".nc", ".ncdf", ".netcdf"): _netcdf,
    (".pdb", ".pdb.gz"): _pdb,
    (".xyz", ".xyz.gz"): _xyz,
    (".gro",): _gro,
    (".lammpstrj",): _lammps,
    RESTART: _restart,
    (".arc",): _arc,
    CIF: _cif,
    (".mol2",): _mol2,
    (".dtr",): _dtr,
    (".stk",): _stk,
}
