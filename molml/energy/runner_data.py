"""Structure files of RuNNer and n2p2 (``input.data``): read and written.

A file holds structures between the words begin and end, one atom, lattice vector, energy or comment to a line. It does
not say its units; the two programs take whatever units its owner uses throughout. Bohr and hartree are assumed here
unless said otherwise, with the values of :mod:`molml.units` (CODATA 2014, as in ASE).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase
import numpy as np
from ase.data import atomic_numbers

from molml.energy.labels import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    label_frames,
    labelled_atoms,
    short,
    unit_value,
)
from molml.energy.reading import text_of

__all__ = ["read_runner_data", "runner_frames", "write_runner_data"]

_SETS = ("set=train", "set=test")
_CHARGE = "initial_charges"  # where ASE keeps charges of atoms
_COMPRESSIONS = (".xz", ".gz", ".bz2")
# n2p2 refuses charged periodic cells beyond this
_NEUTRAL = 2e-15


def read_runner_data(
    path: str | os.PathLike[str],
    *,
    energy_unit: str = "hartree",
    length_unit: str = "bohr",
    index: slice | None = None,
) -> list[ase.Atoms]:
    """Read the structures of RuNNer or n2p2.

    Parameters
    ----------
    path : path
        Any name; ``.xz``, ``.gz`` or ``.bz2`` at its end is unpacked.
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"}
        Unit of the file, which does not say it.
    length_unit : {"Å", "bohr", "nm"}
    index : slice or None
        Which structures to take.

    Returns
    -------
    list of ase.Atoms
        In eV and Å. Energy and forces are results of a `SinglePointCalculator`; charges of the atoms (elementary
        charges) are their initial charges where any is not zero; ``info`` holds the comment, the total charge and the
        set (``"train"`` or ``"test"``) where the file gives them.

    Raises
    ------
    ValueError
        Naming file, structure and line, if something is not in the format.
    FileNotFoundError
        If there is no such file.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    text = text_of(file, suffix if suffix in _COMPRESSIONS else "")
    frames = label_frames(
        (
            (f"{file.name}:{number}", atoms)
            for number, atoms in runner_frames(text, file.name, slice(None) if index is None else index)
        ),
        energy_unit=energy_unit,
        length_unit=length_unit,
    )
    if not frames:
        raise ValueError(f"{file.name} holds no structures" + ("" if index is None else f" in {index}"))
    return [labelled_atoms(frame) for frame in frames]


def runner_frames(text: str, name: str, window: slice) -> Iterator[tuple[int, ase.Atoms]]:
    """Structures of a file's text in the units of the file, labels in ``info`` and ``arrays``.

    Parameters
    ----------
    text : str
    name : str
        Of the file, for errors.
    window : slice
        Which structures to take.

    Yields
    ------
    number : int
    atoms : ase.Atoms
    """
    blocks = list(_blocks(text.split("\n"), name))
    for number in range(len(blocks))[window]:
        yield number, _structure(*blocks[number], f"{name}, frame {number}")


def _blocks(lines: Sequence[str], name: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Line number of every "begin", and the lines from it up to "end"."""
    start: int | None = None
    for k, line in enumerate(lines):
        word = line.split(maxsplit=1)[:1]
        if word == ["begin"]:
            if start is not None:
                raise ValueError(f"{name} (line {k + 1}): 'begin' inside the structure begun in line {start + 1}")
            start = k
        elif word and start is None:
            raise ValueError(f"{name} (line {k + 1}): expected 'begin', got {short(line.strip())}")
        elif word == ["end"] and start is not None:
            yield start, lines[start:k]
            start = None
    if start is not None:
        raise ValueError(f"{name} (line {start + 1}): this structure has no 'end'; the file is cut off")


def _structure(start: int, lines: Sequence[str], where: str) -> ase.Atoms:
    info: dict[str, str | float] = {}
    cell: list[list[float]] = []
    symbols: list[str] = []
    rows: list[list[float]] = []
    for k, line in enumerate(lines):
        word, *rest = line.split() or [""]
        here = f"{where} (line {start + k + 1})"
        if word == "begin":
            if not set(rest) <= set(_SETS):
                raise ValueError(f"{here}: after 'begin' may follow {' or '.join(_SETS)}, got {short(' '.join(rest))}")
            if rest:
                info["set"] = rest[-1].removeprefix("set=")
        elif word == "comment":
            info["comment"] = line.strip().removeprefix("comment").strip()
        elif word == "lattice":
            cell.append(_numbers(rest, 3, here, "a lattice vector of 3 numbers"))
        elif word == "atom":
            if len(rest) < 9:
                raise ValueError(
                    f"{here}: an atom needs x y z element charge energy fx fy fz, got {len(rest)} items: "
                    f"{short(line.strip())}"
                )
            if rest[3] not in atomic_numbers or rest[3] == "X":
                raise ValueError(f"{here}: unknown element {rest[3]!r}")
            symbols.append(rest[3])
            rows.append(_numbers([*rest[:3], *rest[4:9]], 8, here, "numbers"))
        elif word in ("energy", "charge"):
            if word in info:
                raise ValueError(f"{here}: a second {word} in one structure")
            info[word] = _numbers(rest, 1, here, f"one number for the {word}")[0]
        elif word:
            raise ValueError(
                f"{here}: expected atom, lattice, energy, charge, comment or end, got {short(line.strip())}"
            )
    if len(cell) not in (0, 3):
        raise ValueError(f"{where}: expected 3 lattice vectors or none, got {len(cell)}")
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    atoms = ase.Atoms(symbols, positions=table[:, :3], cell=cell or None, pbc=bool(cell), info=info)
    if table[:, 3].any():
        atoms.set_initial_charges(table[:, 3])
    atoms.arrays["forces"] = table[:, 5:].copy()
    return atoms


def _numbers(words: Sequence[str], n: int, where: str, what: str) -> list[float]:
    try:
        values = [float(word) for word in words[:n]]
    except ValueError as error:
        hint = "; write exponents with E, not D" if any("d" in word.lower() for word in words[:n]) else ""
        raise ValueError(f"{where}: expected {what}, got {short(' '.join(words))}{hint}") from error
    if len(values) < n:
        raise ValueError(f"{where}: expected {what}, got {short(' '.join(words))}")
    return values


def write_runner_data(
    path: str | os.PathLike[str],
    structures: Sequence[ase.Atoms],
    *,
    energy_unit: str = "hartree",
    length_unit: str = "bohr",
    labels: bool = True,
) -> None:
    """Write structures for RuNNer or n2p2.

    Numbers carry 17 digits; what was read from such a file is written with the same values up to the rounding of the
    change of units. Comment, total charge and set are taken from ``info``, charges from the initial charges.

    Parameters
    ----------
    path : path
    structures : sequence of ase.Atoms
        In eV and Å, periodic in three directions or in none.
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"}
        Unit to write in; that of the potential the structures are meant for.
    length_unit : {"Å", "bohr", "nm"}
    labels : bool
        Whether to write energies and forces, which every structure then needs; the format has no word for "unknown".
        Without them zeros are written, as is usual for structures to predict.

    Raises
    ------
    ValueError
        If there is nothing to write, a label is missing, a structure is periodic in one or two directions, or a
        periodic one is charged, which n2p2 refuses.
    """
    eV = unit_value("energy_unit", energy_unit, ENERGY_UNITS)
    angstrom = unit_value("length_unit", length_unit, LENGTH_UNITS)
    if not len(structures) or not all(isinstance(atoms, ase.Atoms) for atoms in structures):
        raise ValueError(f"structures must be a list of one or more Atoms, got {short(structures)}")
    text: list[str] = []
    found = label_frames((f"structures[{k}]", atoms) for k, atoms in enumerate(structures)) if labels else []
    for k, atoms in enumerate(structures):
        where = f"structures[{k}]"
        periodic = bool(atoms.pbc.all())
        if atoms.pbc.any() and not periodic:
            raise ValueError(
                f"{where} must be periodic in three directions or in none, got pbc={atoms.pbc.tolist()}; "
                "give a slab or wire a cell with vacuum and pbc=True"
            )
        energy, forces = 0.0, np.zeros((len(atoms), 3), dtype=np.float64)
        if labels:
            own_energy, own_forces = found[k].energy, found[k].forces
            if own_energy is None or own_forces is None:
                missing = "energy" if own_energy is None else "forces"
                raise ValueError(
                    f"{where} has no {missing}, and the format has no word for that; compute it, or write structures "
                    "to predict with labels=False"
                )
            energy, forces = own_energy / eV, own_forces / (eV / angstrom)
        charge = float(atoms.info.get("charge", 0.0))
        if periodic and abs(charge) > _NEUTRAL:
            raise ValueError(f"{where} is periodic and must not be charged (n2p2 refuses it), got charge {charge}")
        text += _lines(atoms, energy, forces, charge, angstrom)
    Path(path).write_text("\n".join(text) + "\n", encoding="utf-8")


def _lines(atoms: ase.Atoms, energy: float, forces: np.ndarray, charge: float, angstrom: float) -> Iterator[str]:
    part = atoms.info.get("set")
    yield f"begin set={part}" if part in ("train", "test") else "begin"
    comment = " ".join(str(atoms.info.get("comment", "")).split())
    if comment:
        yield f"comment {comment}"
    if atoms.pbc.any():
        for vector in atoms.cell.array / angstrom:
            yield "lattice" + _floats(vector)
    charges = atoms.get_initial_charges()
    for symbol, position, own, force in zip(
        atoms.get_chemical_symbols(), atoms.positions / angstrom, charges, forces, strict=True
    ):
        yield f"atom{_floats(position)} {symbol:>2}{_floats([own, 0.0])}{_floats(force)}"
    yield "energy" + _floats([energy])
    yield "charge" + _floats([charge])
    yield "end"


def _floats(values: Sequence[float] | np.ndarray) -> str:
    return "".join(f" {value:24.16E}" for value in values)
