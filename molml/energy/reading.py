"""Structure files: reading them, and refusing at the border what would spoil a fit later."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.units
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from numpy.typing import NDArray

from molml.energy.neighbors import neighbor_shifts

__all__ = ["Frame", "LabelKeys", "check_structure", "label_frames", "read_frames", "read_structures"]

OVERLAP = 0.1
"""Å; no two nuclei of a real structure come closer."""

CLOSE = 0.5
"""Å; shorter than any bond, longer than any bond written in nm and taken for Å."""

N_ELEMENTS = 118

ENERGY_UNITS: Mapping[str, float] = {
    "eV": 1.0,
    "hartree": ase.units.Hartree,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
}

LENGTH_UNITS: Mapping[str, float] = {"Å": 1.0, "bohr": ase.units.Bohr, "nm": ase.units.nm}

# what readers throw at damaged files; everything else would be a fault of ours and should look like one
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError, EOFError, OSError,
    MemoryError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, sqlite3.Error,
)  # fmt: skip


class LabelKeys(NamedTuple):
    """Under which names a file keeps its labels; None where a label is not wanted.

    Attributes
    ----------
    energy, forces, stress, virial, weight : str or None
    """

    energy: str | None = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"
    virial: str | None = None
    weight: str | None = "weight"


class Frame(NamedTuple):
    """One checked structure with its labels, in eV and Å.

    Attributes
    ----------
    atoms : ase.Atoms
        Without calculator; `info` holds what is neither geometry nor label.
    source : str
        ``file:frame``, frames counted from 0 as `ase.io.read` does.
    energy : float or None, eV
    forces : array, shape (n_atoms, 3), or None, eV/Å
    stress : array, shape (3, 3), or None, eV/Å³
        Symmetric, tension positive.
    weight : float
    closest : float, Å
        Shortest distance between atoms, images included; infinite when above `CLOSE`.
    """

    atoms: ase.Atoms
    source: str
    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    weight: float
    closest: float


def read_structures(
    path: str | os.PathLike[str],
    *,
    energy_key: str | None = "energy",
    forces_key: str | None = "forces",
    stress_key: str | None = "stress",
    virial_key: str | None = None,
    weight_key: str | None = "weight",
    energy_unit: str | None = None,
    length_unit: str | None = None,
    index: slice | None = None,
) -> list[ase.Atoms]:
    """Read and check every structure of a file.

    Parameters
    ----------
    path : path
        Extended XYZ (``.xyz``, ``.extxyz``, also followed by ``.xz``, ``.gz``, ``.bz2``), ASE database (``.db``), ASE
        trajectory (``.traj``) or NumPy archive in the keys of MD17, rMD17 and sGDML (``.npz``). Archives that hold
        ``train_*`` and ``test_*`` arrays give the training part; ``FILE.npz:test`` gives the other.
    energy_key, forces_key, stress_key, weight_key : str or None
        Names of the labels; None leaves a label out. The standard names are also found in the results of a calculator.
        Stress may be Voigt (xx yy zz yz xz xy), 9 numbers or 3×3, tension positive.
    virial_key : str or None
        Name of a virial in units of energy to take instead of the stress: ``stress = -virial / volume``, the sign of
        QUIP, GAP and MACE files.
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"} or None
        Unit of the file. None: the unit an archive states (``e_unit``), otherwise eV.
    length_unit : {"Å", "bohr", "nm"} or None
        None: the unit an archive states (``r_unit``), otherwise Å.
    index : slice or None
        Which frames to read.

    Returns
    -------
    list of ase.Atoms
        In eV and Å, with the labels as results of a `SinglePointCalculator` under their standard names and the weight,
        if any, in ``info["weight"]``.

    Raises
    ------
    ValueError
        Naming file, frame and field, if something in the file is not a structure or not a label.
    FileNotFoundError
        If there is no such file.
    """
    keys = LabelKeys(energy_key, forces_key, stress_key, virial_key, weight_key)
    return [
        labelled_atoms(frame)
        for frame in read_frames(path, keys, energy_unit=energy_unit, length_unit=length_unit, index=index)
    ]


def labelled_atoms(frame: Frame) -> ase.Atoms:
    """`ase.Atoms` that carries the labels of a frame as calculator results."""
    atoms = frame.atoms.copy()
    if frame.weight != 1.0:
        atoms.info["weight"] = frame.weight
    results: dict[str, Any] = {}
    if frame.energy is not None:
        results["energy"] = frame.energy
    if frame.forces is not None:
        results["forces"] = frame.forces
    if frame.stress is not None:
        results["stress"] = frame.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def read_frames(
    path: str | os.PathLike[str],
    keys: LabelKeys = LabelKeys(),  # noqa: B008 (immutable)
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    index: slice | None = None,
) -> list[Frame]:
    """`read_structures` before the labels are packed into calculators.

    Returns
    -------
    list of Frame
    """
    file, part = _file_and_part(path)
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    suffix = suffixes[-1] if suffixes else ""
    compression = suffix if suffix in (".xz", ".gz", ".bz2") else ""
    kind = suffixes[0] if compression and len(suffixes) == 2 else suffix
    window = slice(None) if index is None else index
    raw: Iterable[tuple[int, ase.Atoms]]
    if kind in (".xyz", ".extxyz"):
        raw = _extxyz(file, compression, window)
    elif compression == "" and kind == ".npz":
        raw, stated_energy, stated_length = _npz(file, part or "train", window)
        energy_unit, length_unit = energy_unit or stated_energy, length_unit or stated_length
    elif compression == "" and kind == ".traj":
        raw = _trajectory(file, window)
    elif compression == "" and kind == ".db":
        raw = _database(file, window)
    else:
        raise ValueError(
            f"cannot read {file.name}: known endings are .xyz and .extxyz (also with .xz, .gz, .bz2), .db, .traj and "
            ".npz; read other formats with ase.io.read(..., ':') and pass the list of Atoms"
        )
    frames = label_frames(
        ((f"{file.name}:{number}", atoms) for number, atoms in raw),
        keys,
        energy_unit=energy_unit,
        length_unit=length_unit,
    )
    if not frames:
        raise ValueError(f"{file.name} holds no structures" + ("" if index is None else f" in {index}"))
    return frames


def label_frames(
    structures: Iterable[tuple[str, ase.Atoms]],
    keys: LabelKeys = LabelKeys(),  # noqa: B008 (immutable)
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
) -> list[Frame]:
    """Find the labels of structures, convert them to eV and Å, and check everything.

    Parameters
    ----------
    structures : iterable of (source, ase.Atoms)
        Left untouched.
    keys : LabelKeys
    energy_unit, length_unit : str or None
        As in `read_structures`.

    Returns
    -------
    list of Frame

    Raises
    ------
    ValueError
        If a structure or a label is wrong, or a key that is not one of the standard names occurs nowhere.
    """
    eV = _unit("energy_unit", energy_unit or "eV", ENERGY_UNITS)
    angstrom = _unit("length_unit", length_unit or "Å", LENGTH_UNITS)
    frames = []
    present: set[str] = set()
    for source, atoms in structures:
        present.update(_names(atoms))
        frames.append(_frame(atoms, source, keys, eV, angstrom))
    for field, key, standard in zip(LabelKeys._fields, keys, LabelKeys(), strict=True):
        if frames and key is not None and key != standard and key not in present:
            raise ValueError(
                f"{field}_key={key!r} occurs in none of the {len(frames)} structures of {_file_of(frames[0].source)}; "
                f"there is {_listing(present)}"
            )
    if (
        frames
        and (keys.energy or keys.forces)
        and not any(f.energy is not None or f.forces is not None for f in frames)
    ):
        raise ValueError(
            f"none of the {len(frames)} structures of {_file_of(frames[0].source)} has an energy under {keys.energy!r} "
            f"or forces under {keys.forces!r}; there is {_listing(present)}: name the labels with energy_key and "
            "forces_key"
        )
    return frames


def check_structure(atoms: ase.Atoms, source: str = "structure") -> float:
    """Refuse a geometry that no potential could make sense of.

    Parameters
    ----------
    atoms : ase.Atoms
    source : str
        Named in errors.

    Returns
    -------
    float, Å
        Shortest distance between atoms, images included; infinite when above 0.5 Å.

    Raises
    ------
    ValueError
        If there are no atoms, an element is unknown, a position or cell is not finite, a periodic cell is missing or
        singular, or atoms overlap.
    """
    if len(atoms) == 0:
        raise ValueError(f"{_where(source)}: a structure needs at least one atom, got none")
    unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > N_ELEMENTS))
    if unknown.size:
        raise ValueError(
            f"{_where(source)}: atomic numbers must lie in 1…{N_ELEMENTS}, got {atoms.numbers[unknown[0]]} for atom "
            f"{unknown[0]}"
        )
    cell = np.asarray(atoms.cell)
    try:
        first, second, shift = neighbor_shifts(atoms.positions, cell, atoms.pbc, CLOSE)
    except ValueError as error:
        raise ValueError(f"{_where(source)}: {error}") from error
    if not len(first):
        return math.inf
    distances = np.linalg.norm(atoms.positions[second] - atoms.positions[first] + shift @ cell, axis=1)
    closest = int(distances.argmin())
    if distances[closest] < OVERLAP:
        i, j = int(first[closest]), int(second[closest])
        other = f"the periodic image of atom {j}" if shift[closest].any() else f"atom {j}"
        raise ValueError(
            f"{_where(source)}: positions of atom {i} ({atoms.symbols[i]}) and {other} ({atoms.symbols[j]}) overlap: "
            f"they are {distances[closest]:.3g} Å apart; is the atom doubled, the cell too small or the unit not Å?"
        )
    return float(distances[closest])


def _frame(atoms: ase.Atoms, source: str, keys: LabelKeys, eV: float, angstrom: float) -> Frame:
    bare = atoms.copy()
    bare.constraints = []
    for key in keys:
        if key is not None:
            bare.info.pop(key, None)
            if key not in ("positions", "numbers"):
                bare.arrays.pop(key, None)
    if angstrom != 1.0:
        bare.positions *= angstrom
        bare.cell *= angstrom
    closest = check_structure(bare, source)
    n_atoms = len(bare)
    energy = _label(atoms, keys.energy, source)
    forces = _label(atoms, keys.forces, source)
    stress = None if keys.virial else _label(atoms, keys.stress, source)
    virial = _label(atoms, keys.virial, source)
    weight = _label(atoms, keys.weight, source)
    value = None if energy is None else eV * _number(energy, f"{_where(source)}: {keys.energy}")
    if forces is not None:
        forces = _array(forces, f"{_where(source)}: {keys.forces}")
        if forces.shape != (n_atoms, 3):
            raise ValueError(
                f"{_where(source)}: {keys.forces} must have shape ({n_atoms}, 3), one row per atom, got {forces.shape}"
            )
        forces = forces * (eV / angstrom)
    if virial is not None:
        name = f"{_where(source)}: {keys.virial}"
        if not bare.pbc.all():
            raise ValueError(
                f"{name} becomes a stress only in a cell with three periodic directions, got pbc={bare.pbc}"
            )
        stress = -eV * _tensor(virial, name) / bare.get_volume()
    elif stress is not None:
        stress = _tensor(stress, f"{_where(source)}: {keys.stress}") * (eV / angstrom**3)
    share = 1.0 if weight is None else _number(weight, f"{_where(source)}: {keys.weight}")
    if share < 0:
        raise ValueError(f"{_where(source)}: {keys.weight} must not be negative, got {share}")
    return Frame(bare, source, value, forces, stress, share, closest)


def _label(atoms: ase.Atoms, key: str | None, source: str) -> Any:
    """The value of a label wherever ASE's versions and formats put it, or None."""
    if key is None:
        return None
    found = [place[key] for place in (atoms.info, atoms.arrays) if place.get(key) is not None]
    calculator = atoms.calc
    results = getattr(calculator, "results", {})
    if results.get(key) is not None:
        # a calculator keeps its last results when somebody moves the atoms afterwards
        if calculator.check_state(atoms):
            raise ValueError(
                f"{_where(source)}: the calculator's {key} belongs to another geometry; the atoms were changed after "
                "the calculation, so compute it again"
            )
        found.append(results[key])
    if len(found) == 2 and not np.array_equal(found[0], found[1]):
        raise ValueError(
            f"{_where(source)}: {key} is given twice and differs: {_short(found[0])} in info or arrays, "
            f"{_short(found[1])} in the calculator; remove one"
        )
    return found[0] if found else None


def _names(atoms: ase.Atoms) -> Iterator[str]:
    yield from (key for key in atoms.info)
    yield from (key for key in atoms.arrays if key not in ("positions", "numbers"))
    yield from getattr(atoms.calc, "results", {})


def _number(value: Any, name: str) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size != 1:
        raise ValueError(f"{name} must be one number, got {_short(value)}")
    number = float(array.reshape(()))
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _array(value: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers, got {_short(value)}")
    array = array.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        place = wrong[0]
        raise ValueError(f"{name} must be finite, got {array[tuple(place)]} at {tuple(place.tolist())}")
    return array


def _tensor(value: Any, name: str) -> NDArray[np.float64]:
    array = _array(value, name)
    if array.shape == (6,):
        return array[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    if array.shape not in ((9,), (3, 3)):
        raise ValueError(
            f"{name} must have 6 components (xx yy zz yz xz xy), 9 components or shape (3, 3), got shape {array.shape}"
        )
    array = array.reshape(3, 3)
    # codes print a few digits, so a symmetric tensor need not be symmetric to the last of them
    if np.abs(array - array.T).max() > 0.01 * np.abs(array).max() + 1e-5:
        raise ValueError(f"{name} must be symmetric, got {array.tolist()}; are its components in another order?")
    return (array + array.T) / 2


def _unit(name: str, unit: str, known: Mapping[str, float]) -> float:
    factors = {key.lower(): factor for key, factor in known.items()}
    if unit.lower() not in factors:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {unit!r}")
    return factors[unit.lower()]


def _file_and_part(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    text = os.fspath(path)
    for part in ("train", "test"):
        if text.lower().endswith(f".npz:{part}"):
            return Path(text[: -len(part) - 1]), part
    return Path(text), None


def _where(source: str) -> str:
    file, _, frame = source.rpartition(":")
    return f"{file}, frame {frame}" if file and frame.isdigit() else source


def _file_of(source: str) -> str:
    return source.rpartition(":")[0] or "the list"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listing(names: Iterable[str]) -> str:
    listed = sorted(set(names))
    return ", ".join(map(repr, listed)) if listed else "nothing but positions"


# ---- extended XYZ ----------------------------------------------------------------------------------------------------


def _extxyz(path: Path, compression: str, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    from ase.io.extxyz import read_xyz

    lines = _text(path, compression).split("\n")
    spans = list(_spans(lines, path.name))
    for number in range(len(spans))[window]:
        start, stop = spans[number]
        chunk = lines[start:stop]
        try:
            (atoms,) = read_xyz(io.StringIO("\n".join(chunk)), slice(None), properties_parser=_comment)
        except DAMAGE as error:
            line, reason = _diagnosis(chunk, error)
            raise ValueError(f"{path.name}, frame {number} (line {start + line + 1}): {reason}") from error
        yield number, atoms


_UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
}


def _text(path: Path, compression: str) -> str:
    try:
        data = _UNPACK[compression](path.read_bytes())
    except (ValueError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be unpacked, it is damaged or cut off: {_reason(error)}") from error
    try:
        # editors on Windows put a byte order mark in front; it means nothing
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name} (line {line}): byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        ) from error


def _spans(lines: Sequence[str], name: str) -> Iterator[tuple[int, int]]:
    """First and last line of every frame, from the atom counts alone: a mad count must not cost time or memory."""
    last = len(lines)
    while last and not lines[last - 1].strip():
        last -= 1
    start = number = 0
    while start < last:
        head = lines[start].strip()
        if not head:
            start += 1
            continue
        where = f"{name}, frame {number} (line {start + 1})"
        try:
            n_atoms = int(head)
        except ValueError as error:
            raise ValueError(
                f"{where}: expected the number of atoms of the next structure, got {_short(head)}"
                + ("; does the frame before it hold more atoms than it announces?" if number else "")
            ) from error
        if n_atoms < 1:
            raise ValueError(f"{where}: the number of atoms must be positive, got {n_atoms}")
        stop = start + 2 + n_atoms
        if stop > last:
            raise ValueError(
                f"{where}: announces {n_atoms} atoms, but only {max(last - start - 2, 0)} lines of them follow; the "
                "file is cut off or the number is wrong"
            )
        while stop < last and lines[stop].lstrip().startswith("VEC"):
            stop += 1
        yield start, stop
        start = stop
        number += 1


_SIX = re.compile(r"""(?<![\w-])(stress|virial)\s*=\s*(["'\[{])([^"'\]}]*)(["'\]}])""")


def _comment(line: str) -> dict[str, Any]:
    """ASE's parser of the comment line, which would refuse Voigt stress and swallow asymmetric stress."""
    from ase.io.extxyz import key_val_str_to_dict

    values = key_val_str_to_dict(_SIX.sub(_nine, line))
    for key in ("stress", "virial"):
        if key in values:
            _tensor(values[key], key)
    return values


def _nine(match: re.Match[str]) -> str:
    components = re.split(r"[\s,]+", match[3].strip())
    if len(components) != 6:
        return match[0]
    return f'{match[1]}="{" ".join(components[k] for k in (0, 5, 4, 5, 1, 3, 4, 3, 2))}"'


def _diagnosis(chunk: Sequence[str], error: BaseException) -> tuple[int, str]:
    """Which line of a frame is wrong, and why in the words of its author."""
    match = re.search(r"""(?<![\w-])Properties\s*=\s*["'{\[]?([^\s"'}\]]+)""", chunk[1])
    fields = (match[1] if match else "species:S:1:pos:R:3").split(":")
    columns = []
    for name, kind, count in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        if not count.isdigit() or kind not in "RISL":
            return (
                1,
                f"Properties must be a list of name:type:columns with type R, I, S or L, got {_short(match and match[1])}",
            )
        columns += [(name, kind)] * int(count)
    for number, line in enumerate(chunk[2:], start=2):
        words = line.split()
        if len(words) < len(columns):
            return (
                number,
                f"expected {len(columns)} columns ({':'.join(fields)}), got {_short(line.strip())}",
            )
        for word, (name, kind) in zip(words, columns, strict=False):
            if name == "species" and word.capitalize() not in atomic_numbers:
                return number, f"unknown element {word!r}"
            if kind in "RI" and not _reads_as(word, float if kind == "R" else int):
                hint = "; write exponents with E, not D" if _reads_as(re.sub("[dD]", "e", word), float) else ""
                return number, f"{name} must be {'numbers' if kind == 'R' else 'integers'}, got {word!r}{hint}"
    return 1, str(error) or type(error).__name__


def _reads_as(word: str, kind: type) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


# ---- ASE's own formats -----------------------------------------------------------------------------------------------


def _trajectory(path: Path, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    from ase.io.trajectory import TrajectoryReader

    _must_exist(path)
    number = 0
    try:
        with TrajectoryReader(str(path)) as trajectory:
            for number in range(len(trajectory))[window]:
                yield number, trajectory[number]
    except DAMAGE as error:
        raise ValueError(f"{path.name}, frame {number}: not a readable ASE trajectory ({_reason(error)})") from error


def _database(path: Path, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    from ase.db import connect

    _must_exist(path)
    number = 0
    try:
        rows = list(connect(str(path), type="db", use_lock_file=False).select())
        for number in range(len(rows))[window]:
            row = rows[number]
            atoms = row.toatoms()
            atoms.info.update(row.data)
            atoms.info.update(row.key_value_pairs)
            yield number, atoms
    except DAMAGE as error:
        raise ValueError(f"{path.name}, frame {number}: not a readable ASE database ({_reason(error)})") from error


def _must_exist(path: Path) -> None:
    with path.open("rb"):
        pass


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# ---- NumPy archives --------------------------------------------------------------------------------------------------

_NPZ_NAMES = {
    "numbers": ("numbers", "nuclear_charges", "z", "atomic_numbers", "species"),
    "positions": ("coords", "R", "positions", "coordinates", "r"),
    "energy": ("energies", "E", "energy"),
    "forces": ("forces", "F", "force"),
}


def _npz(path: Path, part: str, window: slice) -> tuple[list[tuple[int, ase.Atoms]], str | None, str | None]:
    arrays = _npz_arrays(path)
    parted = any(name.startswith(("train_", "test_")) for name in arrays)
    found: dict[str, NDArray[Any]] = {}
    for field, names in _NPZ_NAMES.items():
        candidates = [f"{part}_{name}" for name in names if parted] + list(names)
        present = [name for name in candidates if name in arrays]
        if present:
            found[field] = arrays[present[0]]
    for field in ("numbers", "positions"):
        if field not in found:
            raise ValueError(
                f"{path.name} has no {field} under any of {', '.join(_NPZ_NAMES[field])}; there is {_listing(arrays)}"
            )
    if not parted and part == "test":
        raise ValueError(f"{path.name}:test asks for test_* arrays; there is {_listing(arrays)}")
    periodic = sorted({"lattice", "cell", "cells"} & set(arrays))
    if periodic:
        raise ValueError(
            f"{path.name} holds {periodic[0]!r}, and archives do not say whether rows or columns are the lattice vectors"
            "; convert it to extended XYZ"
        )
    numbers, positions = found["numbers"], found["positions"]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(f"{path.name}: positions must have shape (n_structures, n_atoms, 3), got {positions.shape}")
    n_structures, n_atoms = positions.shape[:2]
    if numbers.shape not in ((n_atoms,), (n_structures, n_atoms)) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"{path.name}: numbers must be integers of shape ({n_atoms},), got {numbers.dtype} of shape {numbers.shape}"
        )
    if "energy" in found and found["energy"].size != n_structures:
        raise ValueError(f"{path.name}: energies must be {n_structures} numbers, got shape {found['energy'].shape}")
    if "forces" in found and found["forces"].shape != positions.shape:
        raise ValueError(f"{path.name}: forces must have shape {positions.shape}, got {found['forces'].shape}")
    frames = []
    for number in range(n_structures)[window]:
        species = numbers if numbers.ndim == 1 else numbers[number]
        atoms = ase.Atoms(species, positions=positions[number].astype(np.float64))
        if "energy" in found:
            atoms.info["energy"] = found["energy"].reshape(-1)[number]
        if "forces" in found:
            atoms.arrays["forces"] = found["forces"][number]
        frames.append((number, atoms))
    return frames, _stated(arrays, "e_unit", ENERGY_UNITS), _stated(arrays, "r_unit", LENGTH_UNITS)


def _npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    wanted = {name for names in _NPZ_NAMES.values() for name in names} | {
        "lattice",
        "cell",
        "cells",
        "e_unit",
        "r_unit",
    }
    wanted |= {f"{part}_{name}" for part in ("train", "test") for name in wanted}
    try:
        with np.load(path, allow_pickle=False) as archive:
            # names we do not need may hold pickled objects, which stay closed
            return {name: archive[name] if name in wanted else np.zeros(0) for name in archive.files}
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path.name}: not a readable NumPy archive ({_reason(error)})") from error


def _stated(arrays: Mapping[str, NDArray[Any]], name: str, known: Mapping[str, float]) -> str | None:
    if name not in arrays:
        return None
    value = arrays[name].reshape(-1)[0]
    text = value.decode() if isinstance(value, bytes) else str(value)
    return {"ang": "Å", "angstrom": "Å", "a": "Å"}.get(text.lower(), text) if known is LENGTH_UNITS else text
