"""A potential whose numbers are known in closed form, with the interface of molml's own."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from molml.energy.data import Structures, n_structures, pair_vectors
from molml.energy.neighbors import neighbor_pairs


class Prediction(NamedTuple):
    energy: torch.Tensor
    energies: torch.Tensor
    forces: torch.Tensor | None
    stress: torch.Tensor | None
    energy_std: torch.Tensor | None = None
    forces_std: torch.Tensor | None = None
    features: list[torch.Tensor] = []


class Extrapolation(NamedTuple):
    atom: int
    element: int
    function: str
    value: float
    low: float
    high: float
    excess: float


class LennardJones:
    """4 ε ((σ/r)¹² - (σ/r)⁶) (1 - r²/r_c²)³ for every pair; derivatives written by hand.

    `closest` and `furthest` play the role of the range of a symmetry function: the distance to the nearest neighbour.
    """

    def __init__(self, symbols=("Ar",), *, epsilon=0.0104, sigma=3.4, cutoff=8.0, closest=3.0, furthest=5.0, std=False):
        self.elements = sorted(atomic_numbers[symbol] for symbol in symbols)
        self.epsilon, self.sigma, self.cutoff = epsilon, sigma, cutoff
        self.closest, self.furthest, self.std = closest, furthest, std
        self.metadata = {"units": {"energy": "eV", "length": "Å"}}
        self.n_predictions = 0

    def predict(self, batch: Structures, *, forces: bool = True, stress: bool = True) -> Prediction:
        self.n_predictions += 1
        vectors = pair_vectors(batch)
        r = vectors.norm(dim=1)
        six = (self.sigma / r) ** 6
        smooth = torch.clamp(1 - (r / self.cutoff) ** 2, min=0.0)
        pair = 4 * self.epsilon * (six**2 - six) * smooth**3
        slope = 4 * self.epsilon * (-12 * six**2 + 6 * six) / r * smooth**3
        slope = slope - 4 * self.epsilon * (six**2 - six) * 6 * r / self.cutoff**2 * smooth**2
        n_atoms, n = len(batch.numbers), n_structures(batch)
        energies = torch.zeros(n_atoms, dtype=torch.float64).index_add(0, batch.first, pair / 2)
        energy = torch.zeros(n, dtype=torch.float64).index_add(0, batch.structure, energies)
        push = (slope / r)[:, None] * vectors
        force = torch.zeros(n_atoms, 3, dtype=torch.float64).index_add(0, batch.first, push)
        outer = 0.5 * push[:, :, None] * vectors[:, None, :]
        virial = torch.zeros(n, 3, 3, dtype=torch.float64).index_add(0, batch.structure[batch.first], outer)
        volume = batch.volume[:, None, None]
        tensor = torch.where(volume > 0, virial / torch.where(volume > 0, volume, 1.0), 0.0)
        nearest = self._nearest(batch)
        return Prediction(
            energy,
            energies,
            force if forces else None,
            tensor if stress else None,
            0.1 * energy.abs() if self.std else None,
            0.1 * force.abs() if self.std and forces else None,
            [nearest[batch.numbers == number, None].expand(-1, 2) for number in self.elements],
        )

    def _nearest(self, batch: Structures) -> torch.Tensor:
        """Distance of every atom to its nearest neighbour; in the middle of the range if it has none."""
        nearest = torch.full((len(batch.numbers),), torch.inf, dtype=torch.float64)
        nearest = nearest.scatter_reduce(0, batch.first, pair_vectors(batch).norm(dim=1), "amin")
        return torch.where(nearest < torch.inf, nearest, 0.5 * (self.closest + self.furthest))

    @property
    def features(self) -> "LennardJones":
        return self

    def names(self, symbol: str) -> list[str]:
        return ["nearest", "nearest²"]

    @property
    def feature_ranges(self) -> dict[str, np.ndarray]:
        bounds = np.array([[self.closest, self.furthest]] * 2)
        return {chemical_symbols[number]: bounds for number in self.elements}

    def extrapolation(self, batch: Structures, prediction: Prediction | None = None) -> list[Extrapolation]:
        span = max(self.furthest - self.closest, 1e-12)
        found = []
        for atom, value in enumerate(self._nearest(batch).tolist()):
            excess = max(self.closest - value, value - self.furthest) / span
            found += [
                Extrapolation(atom, int(batch.numbers[atom]), name, value, self.closest, self.furthest, excess)
                for name in ("nearest", "nearest²")
                if excess > 0
            ]
        return sorted(found, key=lambda item: -item.excess)


@pytest.fixture(scope="session")
def lennard_jones() -> type[LennardJones]:
    """The class, so that a test chooses its parameters."""
    return LennardJones


KINDS = ("molecule", "slab", "wire", "triclinic", "left-handed", "tiny", "one atom")


@pytest.fixture(scope="session")
def random_structures():
    """Function (n, seed, symbols, closest) -> structures of all kinds in turn, no two atoms closer than `closest` Å."""

    def make(n: int, *, seed: int = 0, symbols: tuple[str, ...] = ("H", "C", "O"), closest: float = 1.0) -> list[Atoms]:
        rng = np.random.default_rng(seed)
        return [_random_structure(KINDS[i % len(KINDS)], rng, symbols, closest) for i in range(n)]

    return make


def _random_structure(kind: str, rng: np.random.Generator, symbols: tuple[str, ...], closest: float) -> Atoms:
    pbc = {"molecule": False, "slab": (True, True, False), "wire": (False, False, True)}.get(kind, True)
    small = kind in ("tiny", "one atom")
    n = 1 if kind == "one atom" else int(rng.integers(2, 4 if small else 6))
    while True:
        edges = rng.uniform(2.0, 3.0, 3) if small else rng.uniform(3.0, 4.5, 3)
        cell = edges[:, None] * (np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)))
        cell[0] *= -1.0 if kind == "left-handed" else 1.0
        atoms = Atoms(rng.choice(symbols, n), rng.uniform(0, 1, (n, 3)) @ cell, cell=cell, pbc=pbc)
        if not len(neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, closest)[0]):
            return atoms


@pytest.fixture(scope="session")
def emt_crystals():
    """Function (n, symbols, repeat, labels) -> rattled and strained fcc crystals with EMT's labels."""

    def make(
        n: int,
        *,
        symbols: tuple[str, ...] = ("Cu",),
        repeat: tuple[int, int, int] = (1, 1, 1),
        labels: tuple[str, ...] = ("energy", "forces", "stress"),
    ) -> list[Atoms]:
        frames = []
        for i in range(n):
            atoms = bulk("Cu", cubic=True) * repeat
            atoms.symbols[:] = np.random.default_rng(i).choice(symbols, len(atoms))
            atoms.set_cell(atoms.cell.array * (0.98 + 0.05 * i / n), scale_atoms=True)
            atoms.rattle(0.04 + 0.16 * i / n, seed=i)
            atoms.calc = EMT()
            values = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            known = dict(zip(("energy", "forces", "stress"), values, strict=True))
            atoms.calc = SinglePointCalculator(atoms, **{name: known[name] for name in labels})
            frames.append(atoms)
        return frames

    return make
