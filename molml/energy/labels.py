"""The border of the energy arm: labels found and converted, and structures refused that would spoil a fit later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ase
import ase.units
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from molml.energy.neighbors import neighbor_shifts

__all__ = ["Frame", "LabelKeys", "check_structure", "label_frames", "labelled_atoms"]

OVERLAP = 0.1
"""Å; no two nuclei of a real structure come closer."""

CLOSE = 0.5
"""Å; shorter than any bond, longer than any bond written in nm and taken for Å."""

SEARCH = 1.0
"""Å; the search for close atoms lays a grid of this width, and a finer one would cost more than it saves."""

N_ELEMENTS = 118

GROUP_KEYS = ("group", "config_type", "system")
"""Where authors of data sets note what kind of structure a frame is."""

ENERGY_UNITS: Mapping[str, float] = {
    "eV": 1.0,
    "hartree": ase.units.Hartree,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
}

LENGTH_UNITS: Mapping[str, float] = {"Å": 1.0, "bohr": ase.units.Bohr, "nm": ase.units.nm}


# what readers throw at damaged files; everything else would be a fault of ours and should look like one
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
    eV = unit_value("energy_unit", energy_unit or "eV", ENERGY_UNITS)
    angstrom = unit_value("length_unit", length_unit or "Å", LENGTH_UNITS)
    frames = []
    present: set[str] = set()
    for source, atoms in structures:
        present.update(_names(atoms))
        frames.append(_frame(atoms, source, keys, eV, angstrom))
    for field, key, standard in zip(LabelKeys._fields, keys, LabelKeys(), strict=True):
        if frames and key is not None and key != standard and key not in present:
            raise ValueError(
                f"{field}_key={key!r} occurs in no structure of {file_of(frames[0].source)}; there is "
                f"{listing(present)}"
            )
    if (
        frames
        and (keys.energy or keys.forces)
        and not any(f.energy is not None or f.forces is not None for f in frames)
    ):
        raise ValueError(
            f"no structure of {file_of(frames[0].source)} has an energy under {keys.energy!r} or "
            f"forces under {keys.forces!r}; there is {listing(present)}: name the labels with energy_key and "
            "forces_key"
        )
    if energy_unit is None:
        _refuse_other_unit(frames)
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
        first, second, shift = neighbor_shifts(atoms.positions, cell, atoms.pbc, SEARCH)
    except ValueError as error:
        raise ValueError(f"{_where(source)}: {error}") from error
    if not len(first):
        return math.inf
    distances = np.linalg.norm(atoms.positions[second] - atoms.positions[first] + shift @ cell, axis=1)
    closest = int(distances.argmin())
    if distances[closest] > CLOSE:
        return math.inf
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
    # under the standard names too: labels that are not wanted must not come back from `labelled_atoms`
    for key in {*keys, *LabelKeys()} - {None, "positions", "numbers"}:
        bare.info.pop(key, None)
        bare.arrays.pop(key, None)
    if angstrom != 1.0:
        bare.positions *= angstrom
        bare.cell *= angstrom
    closest = check_structure(bare, source)
    n_atoms = len(bare)
    places = (atoms.info, atoms.arrays, _results(atoms, keys, source))
    energy = _label(places, keys.energy, source)
    forces = _label(places, keys.forces, source)
    stress = None if keys.virial else _label(places, keys.stress, source)
    virial = _label(places, keys.virial, source)
    weight = _label(places, keys.weight, source)
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
                f"{name} becomes a stress only in a cell with three periodic directions, got pbc={bare.pbc.tolist()}"
            )
        stress = -eV * symmetric_tensor(virial, name) / bare.get_volume()
    elif stress is not None:
        stress = symmetric_tensor(stress, f"{_where(source)}: {keys.stress}") * (eV / angstrom**3)
    share = 1.0 if weight is None else _number(weight, f"{_where(source)}: {keys.weight}")
    if share < 0:
        raise ValueError(f"{_where(source)}: {keys.weight} must not be negative, got {share}")
    return Frame(bare, source, value, forces, stress, share, closest)


def _refuse_other_unit(frames: Sequence[Frame]) -> None:
    ratios = [f.energy / all_electron_energy(f.atoms.numbers) for f in frames if f.energy is not None]
    if not ratios:
        return
    ratio = float(np.median(ratios))
    # nothing lies far below nuclei with all their electrons, so a ratio far above 1 cannot be eV; hartree gives one
    # far below 1, where valence-only and atomisation energies live as well: not decidable
    for unit in ("kcal/mol", "kJ/mol"):
        if abs(ratio * ENERGY_UNITS[unit] - 1) < 0.1:
            raise ValueError(
                f"energies of {file_of(frames[0].source)} must be in eV, but they are {ratio:.1f} times those of free "
                f"atoms with all their electrons, as if in {unit}; say energy_unit={unit!r}, or energy_unit='eV' if "
                "they really are"
            )


def all_electron_energy(numbers: NDArray[np.integer]) -> float:
    """Total energy of free atoms, all electrons included, within 2 % from boron on (helium: 6 %).

    Parameters
    ----------
    numbers : array of int
        Atomic numbers.

    Returns
    -------
    float, eV

    References
    ----------
    Schwinger, Phys. Rev. A 24, 2353 (1981): Thomas–Fermi energy with Scott's and the exchange correction.
    """
    z = np.asarray(numbers, dtype=np.float64)
    atoms = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)
    return float(np.where(z == 1, -0.5, atoms).sum()) * ase.units.Hartree


def _results(atoms: ase.Atoms, keys: LabelKeys, source: str) -> Mapping[str, Any]:
    """What the calculator of a structure, if any, has computed."""
    results = getattr(atoms.calc, "results", {})
    # a calculator keeps its last results when somebody moves the atoms afterwards
    if any(key in results for key in keys) and atoms.calc.check_state(atoms):
        raise ValueError(
            f"{_where(source)}: energy and forces in the calculator belong to another geometry, the atoms were changed "
            "after the calculation; compute them again"
        )
    return results


def _label(places: Sequence[Mapping[str, Any]], key: str | None, source: str) -> Any:
    """The value of a label wherever the versions and formats of ASE put it, or None."""
    found = [place[key] for place in places if key is not None and place.get(key) is not None]
    if not all(np.array_equal(found[0], other) for other in found[1:]):
        raise ValueError(
            f"{_where(source)}: {key} is given twice, as {' and as '.join(map(short, found))}; remove one from info, "
            "arrays or the calculator"
        )
    return found[0] if found else None


def _names(atoms: ase.Atoms) -> Iterator[str]:
    yield from (key for key in atoms.info)
    yield from (key for key in atoms.arrays if key not in ("positions", "numbers"))
    yield from getattr(atoms.calc, "results", {})


def _number(value: Any, name: str) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size != 1:
        raise ValueError(f"{name} must be one number, got {short(value)}")
    number = float(array.reshape(()))
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _array(value: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers, got {short(value)}")
    array = array.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        raise ValueError(f"{name}{wrong[0].tolist()} must be finite, got {array[tuple(wrong[0])]}")
    return array


def symmetric_tensor(value: Any, name: str) -> NDArray[np.float64]:
    """Stress or virial as a matrix, from 6 (Voigt) or 9 components or a matrix.

    Raises
    ------
    ValueError
        If the shape is another, a component is not finite or the matrix is not symmetric.
    """
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


def unit_value(name: str, unit: str, known: Mapping[str, float]) -> float:
    """Value of a unit in those of molml.

    Parameters
    ----------
    name : str
        Of the keyword that names the unit, for the error.
    unit : str
    known : mapping from name to value
        :data:`ENERGY_UNITS` or :data:`LENGTH_UNITS`.

    Raises
    ------
    ValueError
        If it is none of the known ones.
    """
    factors = {key.lower(): factor for key, factor in known.items()}
    if unit.lower() not in factors:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {unit!r}")
    return factors[unit.lower()]


def _where(source: str) -> str:
    file, _, frame = source.rpartition(":")
    return f"{file}, frame {frame}" if file and frame.isdigit() else source


def group_of(info: Mapping[str, Any]) -> str:
    """What kind of structure the author of a data set calls a frame; empty if nothing."""
    return next((str(info[key]) for key in GROUP_KEYS if key in info), "")


def file_of(source: str) -> str:
    """File a source names."""
    return source.rpartition(":")[0] or "the list"


def short(value: Any) -> str:
    """A value in at most 60 characters."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listing(names: Iterable[str]) -> str:
    """Names as they would be typed."""
    listed = sorted(set(names))
    return ", ".join(map(repr, listed)) if listed else "nothing but positions"
