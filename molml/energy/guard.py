"""A repulsion below the shortest distances of the training data: what a potential cannot have learnt from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, NamedTuple, cast, final

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray

from molml.energy.cutoffs import jit
from molml.energy.data import Structures, atoms_to_structures, collate, pair_vectors

if TYPE_CHECKING:
    from molml.energy.data import StructureDataset
    from molml.energy.model import Potential

__all__ = ["Guard", "fit_guard", "zbl"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COULOMB = 14.399645
"""eV Å, e² / (4 π ε0)."""

ZBL = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Coefficients and exponents of the universal screening function."""

ONSET = 0.95
"""Where the guard begins, in units of the shortest distance: data that are like the training data must not feel it."""

FULL = 0.7
"""Where it is there in full, in units of where it begins."""

JUDGED, CLOSEST = 0.9, 0.25
"""Distances, in units of the onset, between which the guard must outweigh every attraction of the potential."""

MARGIN = 1.5
N_DISTANCES = 24
MOST_ATOMS = 300  # of a structure in which two atoms are pushed together


def zbl(distances: Floats, first: int, second: int) -> tuple[Floats, Floats]:
    """Repulsion of two atoms at short distances, and its derivative.

    Parameters
    ----------
    distances : ndarray, Å
    first, second : int
        Atomic numbers.

    Returns
    -------
    energy, slope : ndarray, eV and eV/Å

    References
    ----------
    Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Matter, Pergamon (1985).
    """
    length = 0.46850 / (first**0.23 + second**0.23)
    terms = [c * np.exp(-b * distances / length) for c, b in ZBL]
    screening = sum(terms)
    slope = -sum(b / length * term for (_, b), term in zip(ZBL, terms, strict=True))
    scale = COULOMB * first * second / distances
    return scale * screening, scale * (slope - screening / distances)


@final
class Guard:
    """The repulsion of Ziegler, Biersack and Littmark times a strength, switched off beyond an onset.

    Between 0.7 times the onset and the onset the switch is a polynomial with continuous second derivatives; from the
    onset on the guard is exactly zero.

    Parameters
    ----------
    pairs : mapping from two chemical symbols with a hyphen between them to (onset in Å, strength)
        Each two once, in either order.

    Raises
    ------
    ValueError
        For what is no chemical symbol, two elements given twice, or an onset or strength that is not positive.
    """

    def __init__(self, pairs: Mapping[str, tuple[float, float]]) -> None:
        self.pairs = {name: (float(onset), float(strength)) for name, (onset, strength) in pairs.items()}
        table: dict[tuple[int, int], tuple[float, float]] = {}
        for name, (onset, strength) in self.pairs.items():
            symbols = name.split("-")
            if len(symbols) != 2 or not set(symbols) <= set(chemical_symbols[1:]):
                raise ValueError(f"pairs must be named by two chemical symbols such as Cu-O, got {name!r}")
            if not (onset > 0 and strength > 0 and math.isfinite(onset) and math.isfinite(strength)):
                raise ValueError(f"onset and strength of {name} must be positive, got {onset} and {strength}")
            a, b = sorted(atomic_numbers[symbol] for symbol in symbols)
            if (a, b) in table:
                raise ValueError(f"pairs must name each two elements once, got {name} a second time")
            table[a, b] = onset, strength
        self._table = table
        self._onsets = np.zeros((len(chemical_symbols), len(chemical_symbols)))
        for (a, b), (onset, _) in table.items():
            self._onsets[a, b] = self._onsets[b, a] = onset

    @property
    def config(self) -> dict[str, list[float]]:
        """JSON-able description; ``Guard(config)`` rebuilds it."""
        return {name: list(both) for name, both in self.pairs.items()}

    def energy(self, distances: Floats, first: int, second: int) -> tuple[Floats, Floats]:
        """Energy of pairs of two elements (eV) and its derivative (eV/Å); zero for elements that it does not know.

        Parameters
        ----------
        distances : ndarray, Å
        first, second : int
            Atomic numbers.
        """
        energy, slope = np.zeros_like(distances), np.zeros_like(distances)
        onset, strength = self._table.get((min(first, second), max(first, second)), (0.0, 0.0))
        inside = distances < onset
        if inside.any():
            r = distances[inside]
            value, change = zbl(r, first, second)
            t = np.clip((r / onset - FULL) / (1.0 - FULL), 0.0, 1.0)
            switch = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
            bend = -30.0 * (t * (1.0 - t)) ** 2 / (onset * (1.0 - FULL))
            energy[inside] = strength * value * switch
            slope[inside] = strength * (change * switch + value * bend)
        return energy, slope

    def pair_terms(self, batch: Structures, vectors: torch.Tensor) -> tuple[Floats, Floats] | None:
        """What the guard adds for a batch; None where no two atoms are close enough.

        Parameters
        ----------
        batch : Structures
        vectors : Tensor, shape (n_pairs, 3), Å

        Returns
        -------
        energies : ndarray, shape (n_atoms,), eV
            Half of each pair's energy for each of its atoms.
        gradient : ndarray, shape (n_pairs, 3), eV/Å
            By the pair vectors, where every two atoms appear as two pairs.
        """
        moved, numbers, ends = vectors.numpy(), batch.numbers.numpy(), batch.first.numpy()
        close = _closer(moved, numbers, ends, batch.second.numpy(), self._onsets)
        if not len(close):
            return None
        first = ends[close]
        distances = np.linalg.norm(moved[close], axis=1)
        one, other = numbers[first], numbers[batch.second.numpy()[close]]
        energies, gradient = np.zeros(len(batch.numbers)), np.zeros_like(moved)
        for a, b in {(int(a), int(b)) for a, b in zip(one, other, strict=True)}:
            own = (one == a) & (other == b)
            energy, slope = self.energy(distances[own], a, b)
            # every two atoms are there twice, once from each side
            np.add.at(energies, first[own], 0.5 * energy)
            gradient[close[own]] = (0.5 * slope / distances[own])[:, None] * moved[close[own]]
        return energies, gradient


@jit
def _closer(vectors: Floats, numbers: Integers, first: Integers, second: Integers, onsets: Floats) -> Integers:
    """The pairs whose atoms are closer than the onset of their elements."""
    found, n = np.empty(len(first), np.int64), 0
    for p in range(len(first)):
        square = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
        if square < onsets[numbers[first[p]], numbers[second[p]]] ** 2:
            found[n] = p
            n += 1
    return found[:n]


def fit_guard(potential: Potential, *datasets: StructureDataset) -> Guard:
    """Guard for a potential that has none yet.

    It begins at 0.95 times the shortest distance of two elements in the data (or, where they never meet, times the sum
    of their covalent radii). Its strength is 1, which is the repulsion that is known of free atoms, or more where the
    potential's own attraction at shorter distances would win: of two free atoms, and of the two closest of the data
    among their neighbours.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    *datasets : StructureDataset
        With the potential's cutoff; structures in which the guard must be zero.

    Returns
    -------
    Guard
    """
    shortest = _shortest(*datasets)
    pairs = {}
    for a, b in combinations_with_replacement(potential.elements, 2):
        closest = shortest.get((a, b))
        distance = covalent_radii[a] + covalent_radii[b] if closest is None else closest.distance
        onset = ONSET * min(distance, potential.cutoff)
        name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
        guard = Guard({name: (onset, 1.0)})
        r = onset * np.geomspace(CLOSEST, JUDGED, N_DISTANCES)
        dimer = Atoms([a, b], positions=[[0, 0, 0], [onset, 0, 0]])
        slope = _slope(potential, dimer, 0, 1, np.array([1.0, 0.0, 0.0]), onset, r)
        # an atom and its own image would move together
        if closest is not None and closest.i != closest.j and len(closest.atoms) <= MOST_ATOMS:
            slope = np.maximum(slope, _slope(potential, *closest, r))
        needed = MARGIN * float((slope / -guard.energy(r, a, b)[1]).max())
        pairs[name] = onset, max(1.0, needed)
    return Guard(pairs)


class _Closest(NamedTuple):
    """Where two elements come closest: a structure, two of its atoms, the unit vector from one to the other."""

    atoms: Atoms
    i: int
    j: int
    direction: Floats
    distance: float


def closest_pairs(batch: Structures) -> dict[tuple[int, int], tuple[float, int]]:
    """Shortest distance, Å, of every two elements that are neighbours, and the place of that pair in the batch.

    Elements are named by their atomic numbers, the smaller first.
    """
    distances, numbers = pair_vectors(batch).norm(dim=1).numpy(), batch.numbers.numpy()
    both = np.sort(np.stack([numbers[batch.first.numpy()], numbers[batch.second.numpy()]]), axis=0)
    found = {}
    for a, b in np.unique(both, axis=1).T.tolist():
        own = np.flatnonzero((both[0] == a) & (both[1] == b))
        pair = int(own[distances[own].argmin()])
        found[a, b] = float(distances[pair]), pair
    return found


def _shortest(*datasets: StructureDataset) -> dict[tuple[int, int], _Closest]:
    """The closest two atoms of every two elements that are neighbours anywhere."""
    found: dict[tuple[int, int], tuple[float, StructureDataset, int, int]] = {}
    for dataset in datasets:
        for index in range(len(dataset)):
            for elements, (distance, pair) in closest_pairs(dataset[index]).items():
                if elements not in found or distance < found[elements][0]:
                    found[elements] = distance, dataset, index, pair
    result = {}
    for elements, (distance, dataset, index, pair) in found.items():
        item, atoms = dataset[index], dataset.subset([index]).atoms[0]
        direction = pair_vectors(item)[pair].numpy() / distance
        result[elements] = _Closest(atoms, int(item.first[pair]), int(item.second[pair]), direction, distance)
    return result


def _slope(
    potential: Potential, atoms: Atoms, i: int, j: int, direction: Floats, now: float, distances: Floats
) -> Floats:
    """Derivative of the energy by the distance of two atoms that are moved along a line, each by half, eV/Å."""
    moved = []
    for distance in distances.tolist():
        copy = atoms.copy()
        copy.positions[i] -= 0.5 * (distance - now) * direction
        copy.positions[j] += 0.5 * (distance - now) * direction
        moved.append(atoms_to_structures(copy, potential.cutoff))
    forces = cast(torch.Tensor, potential.predict(collate(moved), stress=False).forces).numpy()
    forces = forces.reshape(len(distances), len(atoms), 3)
    return 0.5 * (forces[:, i] - forces[:, j]) @ direction
