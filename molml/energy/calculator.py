"""A potential as an ASE calculator, for molecular dynamics, relaxations and everything else that asks for forces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from ase.outputs import Properties, all_outputs
from numpy.typing import NDArray

from molml.energy.cutoffs import jit
from molml.energy.data import Structures
from molml.energy.extrapolation import ExtrapolationWatch
from molml.energy.neighbors import neighbor_shifts

if TYPE_CHECKING:
    from molml.energy.model import Potential

__all__ = ["Calculator", "VerletList", "check_elements"]

ONE_THREAD_BELOW = 200
"""Atoms. Threads cost a small system more than they give, and on a busy machine ten times as much: they wait actively
for each other at every one of some fifty small operations."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class VerletList:
    """Neighbour pairs that are searched for again only when atoms have come closer by the skin.

    The search runs with `cutoff + skin`; every call then keeps the pairs within `cutoff`, so that the pairs are those
    of a fresh search whatever happened before. Strained cells (constant pressure, relaxations) reuse the list too.

    Parameters
    ----------
    cutoff : float, Å
    skin : float, Å
        0 searches anew at every call in which anything moved.

    Attributes
    ----------
    n_searches : int
        How often the pairs were searched for.

    References
    ----------
    Verlet, Phys. Rev. 159, 98 (1967).
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not (cutoff > 0 and np.isfinite(cutoff)):
            raise ValueError(f"cutoff must be a positive length in Å, got {cutoff}")
        if not (skin >= 0 and np.isfinite(skin)):
            raise ValueError(f"skin must be a length in Å, zero or positive, got {skin}; 0.5 is a good choice")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.n_searches = 0
        self._search: _Search | None = None

    def pairs(self, positions: Floats, cell: Floats, pbc: Booleans) -> tuple[Integers, Integers, Floats]:
        """All pairs within the cutoff, both directions, in the order of `molml.energy.neighbors.neighbor_pairs`.

        Parameters
        ----------
        positions : ndarray, shape (n_atoms, 3), Å
        cell : ndarray, shape (3, 3), Å
            Rows are the lattice vectors.
        pbc : ndarray of bool, shape (3,)

        Returns
        -------
        first, second : ndarray of int64, shape (n_pairs,)
        offset : ndarray, shape (n_pairs, 3), Å
            `positions[second] - positions[first] + offset` points from the first to the second atom.
        """
        search = self._search
        if search is None or self._is_stale(search, positions, cell, pbc):
            first, second, shift = neighbor_shifts(positions, cell, pbc, self.cutoff + self.skin)
            search = _Search(positions.copy(), cell.copy(), pbc.copy(), first, second, shift, shift @ cell, cell.copy())
            self.n_searches += 1
        elif not _same(cell, search.offset_cell):
            search = search._replace(offset_cell=cell.copy(), offset=search.shift @ cell)
        self._search = search
        return _within(self.cutoff, positions, search.first, search.second, search.offset)

    def _is_stale(self, search: _Search, positions: Floats, cell: Floats, pbc: Booleans) -> bool:
        if positions.shape != search.positions.shape or not _same(pbc, search.pbc):
            return True
        expected = search.positions
        stretch = 1.0
        if not _same(cell, search.cell):
            if not pbc.all():
                return True
            # A vector r of the search has become r·deform + (difference of two moves), so
            # |r| ≤ (|vector now| + 2 largest move) · ‖deform⁻¹‖: a bound that no strain and no rotation escapes.
            deform = np.linalg.solve(search.cell, cell)
            stretch = 1.0 / float(np.linalg.svd(deform, compute_uv=False)[-1])
            expected = expected @ deform
        largest = _largest_move(positions, expected)
        return (self.cutoff + 2.0 * largest) * stretch > self.cutoff + self.skin


class _Search(NamedTuple):
    """What a search found (pairs within cutoff + skin), and for which positions and cell."""

    positions: Floats
    cell: Floats
    pbc: Booleans
    first: Integers
    second: Integers
    shift: NDArray[np.int32]
    offset: Floats
    offset_cell: Floats


@jit
def _within(
    cutoff: float, positions: Floats, first: Integers, second: Integers, offset: Floats
) -> tuple[Integers, Integers, Floats]:
    """The pairs that are no further apart than the cutoff."""
    own, other, shift, n = np.empty_like(first), np.empty_like(second), np.empty_like(offset), 0
    for p in range(len(first)):
        i, j, square = first[p], second[p], 0.0
        for a in range(3):
            square += (positions[j, a] - positions[i, a] + offset[p, a]) ** 2
        if square <= cutoff**2:
            own[n], other[n] = i, j
            for a in range(3):
                shift[n, a] = offset[p, a]
            n += 1
    return own[:n], other[:n], shift[:n]


@jit
def _largest_move(positions: Floats, before: Floats) -> float:
    largest = 0.0
    for i in range(len(positions)):
        square = 0.0
        for a in range(3):
            square += (positions[i, a] - before[i, a]) ** 2
        largest = max(largest, square)
    return math.sqrt(largest)


def check_elements(numbers: Integers, elements: Sequence[int]) -> None:
    """Refuse atoms of elements that a potential does not know.

    Parameters
    ----------
    numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    elements : sequence of int
        Those of the potential.

    Raises
    ------
    ValueError
    """
    unknown = sorted(set(numbers.tolist()) - set(elements))
    if unknown:
        found = ", ".join(
            f"{chemical_symbols[number]} (atom {int(np.flatnonzero(numbers == number)[0])})" for number in unknown
        )
        known = ", ".join(chemical_symbols[number] for number in elements)
        raise ValueError(
            f"atoms must be of the elements that the potential was trained on ({known}), got {found}; "
            "train a potential on structures that contain them"
        )


class Calculator(AseCalculator):
    """ASE calculator of a trained potential.

    Gives `energy` and `free_energy` (eV), `energies` (eV per atom), `forces` (eV/Å) and, for cells that are periodic in
    three directions, `stress` (eV/Å³; xx yy zz yz xz xy, tension positive). A committee also leaves its standard
    deviations in `results["energy_std"]` (eV) and `results["forces_std"]` (eV/Å). All of them are computed together.
    `calculate(atoms, ["virial"])` also leaves `results["virial"]`, minus the derivative of the energy by strain (eV,
    shape (3, 3)), which structures of any periodicity have.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    on_extrapolation : "warn", "raise" or "ignore"
        What to do when an atom's surroundings lie outside the range of the training data: warn at the first one of
        every element and when it goes ten times further, and count (see `extrapolations`); raise `ExtrapolationError`;
        or do not look.
    skin : float, Å
        Neighbours are searched for within the cutoff plus the skin, and again only when an atom has moved by half of
        the skin. Results do not depend on it.

    Attributes
    ----------
    n_calculations : int
        Structures calculated so far.

    Examples
    --------
    >>> atoms.calc = molml.load("model.molml").calculator()  # doctest: +SKIP
    >>> atoms.get_forces()  # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        potential: Potential,
        *,
        on_extrapolation: Literal["warn", "raise", "ignore"] = "warn",
        skin: float = 0.5,
    ) -> None:
        if on_extrapolation not in ("warn", "raise", "ignore"):
            raise ValueError(f'on_extrapolation must be "warn", "raise" or "ignore", got {on_extrapolation!r}')
        super().__init__()
        self.potential = potential
        self.on_extrapolation = on_extrapolation
        self.neighbours = VerletList(potential.cutoff, skin)
        self._watch = None if on_extrapolation == "ignore" else ExtrapolationWatch(potential, on_extrapolation)
        self.n_calculations = 0
        self._blank: Structures | None = None
        self._last: Atoms | None = None

    def __repr__(self) -> str:
        symbols = " ".join(chemical_symbols[number] for number in self.potential.elements)
        return f"molml.energy.Calculator({type(self.potential).__name__}, {symbols}, cutoff={self.potential.cutoff} Å)"

    @property
    def extrapolations(self) -> dict[tuple[str, str], int]:
        """How many times an atom of this element (symbol) left the training range of this function (name)."""
        return {} if self._watch is None else self._watch.counts

    def _get_name(self) -> str:
        return "molml"

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the last calculation; exact, whatever `tol`.

        ASE's own comparison takes 0.1 ms at every request for a property, as much as a small molecule's forces.
        """
        last = self.atoms
        if last is None or len(last) != len(atoms):
            return list(all_changes)
        changes = []
        if not _same(last.positions, atoms.positions):
            changes.append("positions")
        if not _same(last.numbers, atoms.numbers):
            changes.append("numbers")
        if not _same(last.cell.array, atoms.cell.array):
            changes.append("cell")
        if not _same(last.pbc, atoms.pbc):
            changes.append("pbc")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with everything the potential gives for these atoms (called by ASE).

        Raises
        ------
        ValueError
            No atoms, an element that the potential was not trained on, or a position that is not a finite number.
        PropertyNotImplementedError
            The stress of a structure that is not periodic in three directions.
        molml.energy.extrapolation.ExtrapolationError
            Surroundings outside the training range, with `on_extrapolation="raise"`.
        """
        if atoms is None:
            atoms = self.atoms
        if atoms is None:
            raise ValueError("atoms are missing: the calculator has not seen any yet; call calculate(atoms)")
        # results of the last structure must not survive a refusal of this one
        self.results = {}
        self.atoms = None
        periodic = bool(atoms.pbc.all())
        if "stress" in properties and not periodic:
            raise PropertyNotImplementedError(
                "stress is defined only for cells that are periodic in three directions, "
                f"got pbc={atoms.pbc.tolist()}; set atoms.pbc and atoms.cell, or do not ask for the stress"
            )
        batch = self._batch(atoms, periodic)
        want_virial = "virial" in properties
        if want_virial and not periodic:
            # the stress of a unit volume is the derivative by strain
            batch = batch._replace(volume=torch.ones(1, dtype=torch.float64))
        threads = torch.get_num_threads()
        alone = threads > 1 and len(atoms) < ONE_THREAD_BELOW
        if alone:
            torch.set_num_threads(1)
        try:
            prediction = self.potential.predict(batch, forces=True, stress=periodic or want_virial)
        finally:
            if alone:
                torch.set_num_threads(threads)
        if self._watch is not None:
            self._watch.look(batch, prediction)
        energy = float(prediction.energy[0])
        results: dict[str, float | Floats] = {
            "energy": energy,
            "free_energy": energy,
            "energies": _numpy(prediction.energies),
            "forces": _numpy(prediction.forces),
        }
        if periodic:
            tensor = _numpy(prediction.stress)[0]
            results["stress"] = tensor.reshape(9)[[0, 4, 8, 5, 2, 1]]
        if want_virial:
            results["virial"] = -float(batch.volume[0]) * _numpy(prediction.stress)[0]
        if prediction.energy_std is not None:
            results["energy_std"] = float(prediction.energy_std[0])
        if prediction.forces_std is not None:
            results["forces_std"] = _numpy(prediction.forces_std)
        self.atoms = self._remember(atoms)
        self.results = results
        self.n_calculations += 1

    def _remember(self, atoms: Atoms) -> Atoms:
        """A copy of the atoms, as far as results depend on them."""
        last = self._last
        if last is None or not _same(last.numbers, atoms.numbers):
            last = self._last = atoms.copy()
        else:
            # another copy takes ten times as long
            last.positions[:] = atoms.positions
            last.cell.array[:] = atoms.cell.array
            last.pbc[:] = atoms.pbc
        return last

    def export_properties(self) -> Properties:
        """The standard properties; ASE refuses names that it does not know, such as a committee's deviations."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def _batch(self, atoms: Atoms, periodic: bool) -> Structures:
        # positions, cell and pbc are only read; float64 and contiguous is what ASE keeps
        positions: Floats = np.ascontiguousarray(atoms.positions, dtype=np.float64)
        cell: Floats = np.ascontiguousarray(atoms.cell.array, dtype=np.float64)
        numbers = np.asarray(atoms.numbers)
        if not np.isfinite(positions).all():
            atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise ValueError(
                f"positions must be finite, got {positions[atom].tolist()} for atom {atom}; in a simulation this "
                "mostly means that it has blown up: look at the frames before and take a shorter time step"
            )
        blank = self._blank
        if blank is None or not _same(blank.numbers.numpy(), numbers):
            blank = self._blank = self._new_blank(numbers)
        first, second, offset = self.neighbours.pairs(positions, cell, atoms.pbc)
        volume = abs(float(np.linalg.det(cell))) if periodic else 0.0
        return blank._replace(
            positions=torch.from_numpy(positions),
            cell=torch.from_numpy(cell)[None],
            first=torch.from_numpy(first),
            second=torch.from_numpy(second),
            offset=torch.from_numpy(offset),
            volume=torch.from_numpy(np.array([volume])),
        )

    def _new_blank(self, numbers: Integers) -> Structures:
        """The fields that stay the same as long as the elements do."""
        n_atoms = len(numbers)
        if n_atoms == 0:
            raise ValueError("atoms must hold at least one atom, got none")
        check_elements(numbers, self.potential.elements)
        none = torch.zeros(0, dtype=torch.int64)
        zeros = torch.zeros(1, dtype=torch.float64)
        no = torch.zeros(1, dtype=torch.bool)
        return Structures(
            positions=torch.zeros((n_atoms, 3), dtype=torch.float64),
            numbers=torch.from_numpy(numbers.astype(np.int64)),
            cell=torch.zeros((1, 3, 3), dtype=torch.float64),
            structure=torch.zeros(n_atoms, dtype=torch.int64),
            first=none,
            second=none,
            offset=torch.zeros((0, 3), dtype=torch.float64),
            volume=zeros,
            energy=zeros,
            forces=torch.zeros((n_atoms, 3), dtype=torch.float64),
            stress=torch.zeros((1, 3, 3), dtype=torch.float64),
            has_energy=no,
            has_forces=torch.zeros(n_atoms, dtype=torch.bool),
            has_stress=no,
            weight=torch.ones(1, dtype=torch.float64),
        )


def _numpy(tensor: torch.Tensor | None) -> Floats:
    if tensor is None:
        raise TypeError("the potential returned None where forces or stress were asked for")
    array: Floats = tensor.numpy()
    return array


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    # for small arrays five times as fast as numpy's array_equal; zeros of two signs count as a difference
    return a.tobytes() == b.tobytes()
