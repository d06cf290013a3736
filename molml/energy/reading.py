"""Structure files: the formats people keep reference data in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from molml.energy.labels import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    Frame,
    LabelKeys,
    label_frames,
    labelled_atoms,
    listing,
    short,
    symmetric_tensor,
)

__all__ = ["read_frames", "read_structures"]

# what readers throw at damaged files; everything else would be a fault of ours and should look like one
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError, EOFError, OSError,
    RuntimeError, MemoryError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, sqlite3.Error,
)  # fmt: skip


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
        Extended XYZ (``.xyz``, ``.extxyz``) or RuNNer's and n2p2's format (``.data``), both also followed by ``.xz``,
        ``.gz``, ``.bz2``; ASE database (``.db``), ASE trajectory (``.traj``) or NumPy archive in the keys of MD17,
        rMD17 and sGDML (``.npz``). Archives that hold ``train_*`` and ``test_*`` arrays give the training part;
        ``FILE.npz:test`` gives the other.
    energy_key, forces_key, stress_key, weight_key : str or None
        Names of the labels; None leaves a label out. They are looked for in `info`, `arrays` and the results of the
        calculator. Where electrons are smeared, forces are derivatives of ``"free_energy"``, not of ``"energy"``.
        Stress may be Voigt (xx yy zz yz xz xy), 9 numbers or 3×3, tension positive.
    virial_key : str or None
        Name of a virial in units of energy to take instead of the stress: ``stress = -virial / volume``, the sign of
        QUIP, GAP and MACE files.
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"} or None
        Unit of the file. None: the unit an archive states (``e_unit``), hartree for ``.data``, otherwise eV.
    length_unit : {"Å", "bohr", "nm"} or None
        None: the unit an archive states (``r_unit``), bohr for ``.data``, otherwise Å.
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
    elif kind == ".data":
        # it reads texts with what is here
        from molml.energy.runner_data import runner_frames

        raw = runner_frames(text_of(file, compression), file.name, window)
        energy_unit, length_unit = energy_unit or "hartree", length_unit or "bohr"
    elif compression == "" and kind == ".npz":
        raw, stated_energy, stated_length = _npz(file, part or "train", window)
        energy_unit, length_unit = energy_unit or stated_energy, length_unit or stated_length
    elif compression == "" and kind == ".traj":
        raw = _trajectory(file, window)
    elif compression == "" and kind == ".db":
        raw = _database(file, window)
    else:
        raise ValueError(
            f"cannot read {file.name}: known endings are .xyz, .extxyz, .data (also with .xz, .gz, .bz2), .db, .traj "
            "and .npz; read other formats with ase.io.read(..., ':') and pass the list of Atoms"
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


def _file_and_part(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    text = os.fspath(path)
    for part in ("train", "test"):
        if text.lower().endswith(f".npz:{part}"):
            return Path(text[: -len(part) - 1]), part
    return Path(text), None


# ---- extended XYZ ----------------------------------------------------------------------------------------------------


def _extxyz(path: Path, compression: str, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    from ase.io.extxyz import read_xyz

    lines = text_of(path, compression).split("\n")
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


def text_of(path: Path, compression: str) -> str:
    """Text of a file.

    Parameters
    ----------
    path : Path
    compression : {"", ".xz", ".gz", ".bz2"}

    Raises
    ------
    ValueError
        If it cannot be unpacked or is not UTF-8.
    FileNotFoundError
        If there is no such file.
    """
    packed = path.read_bytes()
    try:
        data = _UNPACK[compression](packed)
    except (ValueError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
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
                f"{where}: expected the number of atoms of the next structure, got {short(head)}"
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


_MATRIX = re.compile(r"""(?<![\w-])(Lattice|stress|virial)\s*=\s*(["'\[{])([^"'\]}]*)(["'\]}])""")


def _comment(line: str) -> dict[str, Any]:
    """ASE's parser of the comment line, which would refuse Voigt stress and swallow asymmetric stress."""
    from ase.io.extxyz import key_val_str_to_dict

    values = key_val_str_to_dict(_MATRIX.sub(_nine, line))
    for key in ("stress", "virial"):
        if key in values:
            symmetric_tensor(values[key], key)
    return values


def _nine(match: re.Match[str]) -> str:
    components = re.split(r"[\s,]+", match[3].strip())
    if len(components) != 6 or match[1] == "Lattice":
        return match[0]
    return f'{match[1]}="{" ".join(components[k] for k in (0, 5, 4, 5, 1, 3, 4, 3, 2))}"'


def _diagnosis(chunk: Sequence[str], error: BaseException) -> tuple[int, str]:
    """Which line of a frame is wrong, and why in the words of its author."""
    match = re.search(r"""(?<![\w-])Properties\s*=\s*["'{\[]?([^\s"'}\]]+)""", chunk[1])
    fields = (match[1] if match else "species:S:1:pos:R:3").split(":")
    columns = []
    for name, kind, count in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        if not count.isdigit() or kind not in "RISL":
            return 1, f"Properties must list name:type:columns with type R, I, S or L, got {short(match and match[1])}"
        columns += [(name, kind)] * int(count)
    for name, _, value, _ in _MATRIX.findall(chunk[1]):
        words = re.split(r"[\s,]+", value.strip())
        if len(words) != 9 or not all(_reads_as(word, float) for word in words):
            return 1, f"{name} must be 9 numbers, got {short(value)}"
    for number, line in enumerate(chunk[2:], start=2):
        words = line.split()
        if len(words) < len(columns):
            return (
                number,
                f"expected {len(columns)} columns ({':'.join(fields)}), got {short(line.strip())}",
            )
        for word, (name, kind) in zip(words, columns, strict=False):
            if name == "species" and word.capitalize() not in atomic_numbers:
                return number, f"unknown element {word!r}"
            if kind in "RI" and not _reads_as(word, float if kind == "R" else int):
                fortran = re.search("[dD]", word) and _reads_as(re.sub("[dD]", "e", word), float)
                hint = "; write exponents with E, not D" if fortran else ""
                return number, f"{name} must be {'numbers' if kind == 'R' else 'integers'}, got {word!r}{hint}"
    return 1, f"ASE cannot make a structure of this frame: {_reason(error)}"


def _reads_as(word: str, kind: type) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


# ---- ASE's own formats -----------------------------------------------------------------------------------------------


def _trajectory(path: Path, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    from ase.io.trajectory import TrajectoryReader

    number = 0
    # readers that open a file themselves and then fail leave it open
    with path.open("rb") as file:
        try:
            trajectory = TrajectoryReader(file)
            for number in range(len(trajectory))[window]:
                yield number, trajectory[number]
        except DAMAGE as error:
            raise ValueError(
                f"{path.name}, frame {number}: not a readable ASE trajectory ({_reason(error)})"
            ) from error


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
                f"{path.name} has no {field} under any of {', '.join(_NPZ_NAMES[field])}; there is {listing(arrays)}"
            )
    if not parted and part == "test":
        raise ValueError(f"{path.name}:test asks for test_* arrays; there is {listing(arrays)}")
    periodic = sorted({"lattice", "cell", "cells"} & set(arrays))
    if periodic:
        raise ValueError(
            f"{path.name} holds {periodic[0]!r}, and archives do not say whether rows or columns are the lattice "
            "vectors; convert it to extended XYZ"
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
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            # names we do not need may hold pickled objects, which stay closed
            return {name: archive[name] if name in wanted else np.zeros(0) for name in archive.files}
        except DAMAGE as error:
            raise ValueError(f"{path.name}: not a readable NumPy archive ({_reason(error)})") from error


def _stated(arrays: Mapping[str, NDArray[Any]], name: str, known: Mapping[str, float]) -> str | None:
    if name not in arrays:
        return None
    value = arrays[name].reshape(-1)[0]
    text = value.decode() if isinstance(value, bytes) else str(value)
    return {"ang": "Å", "angstrom": "Å", "a": "Å"}.get(text.lower(), text) if known is LENGTH_UNITS else text
