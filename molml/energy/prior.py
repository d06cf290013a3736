"""What is assumed where there are no data: that forces on distorted structures are no larger than they mostly are.

Least squares leaves open what no label tells. Two hydrogens of different groups as close to each other as two of one
carbon always are occur in no trajectory, and the coefficients that decide on them may be of any size: simulations fall
into the hole sooner or later. Forces on structures distorted until they are unlike the training data, taken as zero
with a large uncertainty, close such holes and, as they weigh next to nothing against labels, change little else.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from ase import Atoms

from molml.energy.data import StructureDataset, Structures, atoms_to_structures, pair_vectors
from molml.energy.guard import closest_pairs, zbl
from molml.energy.kernels import FeatureKernel
from molml.energy.linear import normal_equations

# distorted structures: one for so many of the training data, within limits, and with so many atoms at most, or at least
# ten of them
_SHARE, _FEWEST, _MOST, _MOST_ATOMS = 3, 50, 300, 10_000
_SHAKEN = (0.05, 0.3)  # of the shortest distance: standard deviations of the displacements
_STRAINED = 0.05
_CLOSEST = 0.92  # what displaced atoms keep of the shortest distance of their elements
_PUSHED, _NEAR = (0.35, 1.3), 2.5  # of it: where two atoms are pushed to, and how far apart they were at most
_SMALLER, _MOST_TRIALS = 0.8, 20
_LEAST_ERROR = 2e-3  # eV/Å; data that are fitted exactly would leave the assumption no weight
_WIDTH = 4.0  # of the assumption, in units of the median force

_Shortest = dict[tuple[int, int], float]


class Prior(NamedTuple):
    """The assumption as least squares needs it.

    Attributes
    ----------
    structures : list of Structures
        Distorted ones, with forces of zero; their weights are those of the square of a force component against that of
        a label's error.
    gram : ndarray, shape (n_columns, n_columns)
        What it adds to the normal matrix of the linear part.
    """

    structures: list[Structures]
    gram: np.ndarray


class Distorted(NamedTuple):
    """Structures unlike the training data, labelled with zero forces, and how large their forces may be.

    Attributes
    ----------
    structures : list of Structures
    repulsion : ndarray, shape (n,), eV/Å
        By how much two atoms pushed together repel each other more than the closest of the data do, by what is known
        of free atoms (:func:`molml.energy.guard.zbl`).
    """

    structures: list[Structures]
    repulsion: np.ndarray


def prior(
    kernel: FeatureKernel, beside: Distorted, forces: np.ndarray, error: float, *, progress: bool = False
) -> Prior:
    """Assume forces on distorted structures to be about as large as a first potential has them for the most part.

    Parameters
    ----------
    kernel : FeatureKernel
    beside : Distorted
    forces : ndarray, eV/Å
        Components that the first potential gives there. Where it has holes they are huge, but not their median.
    error : float, eV/Å
        Of the forces of the training data, root mean square.
    progress : bool
    """
    width = _WIDTH * float(np.median(np.abs(forces))) + beside.repulsion
    weights = torch.from_numpy((max(error, _LEAST_ERROR) / np.maximum(width, _LEAST_ERROR)) ** 2)
    weighted = [item._replace(weight=own[None]) for item, own in zip(beside.structures, weights, strict=True)]
    equations = normal_equations(
        kernel,
        weighted,
        np.zeros(len(kernel.elements)),
        n_folds=1,
        progress=progress,
        description="distorted structures",
    )
    return Prior(weighted, equations.gram[0, 1])


def distorted(dataset: StructureDataset, seed: int) -> Distorted:
    """Structures of a data set, made unlike it.

    In every other one all atoms are displaced at random, and the cell, if any, is strained; in the rest two atoms are
    pushed together, down to a third of the shortest distance of their elements.

    Parameters
    ----------
    dataset : StructureDataset
        With a cutoff.
    seed : int
    """
    rng, cutoff = np.random.default_rng(seed), cast(float, dataset.cutoff)
    n_atoms = np.mean([len(dataset[i].numbers) for i in range(len(dataset))])
    n = min(int(np.clip(len(dataset) // _SHARE, _FEWEST, _MOST)), max(10, int(_MOST_ATOMS / n_atoms)))
    chosen = rng.permutation(max(n, len(dataset)))[:n] % len(dataset)
    shortest: _Shortest = {}
    for i in range(len(dataset)):
        for pair, (distance, _) in closest_pairs(dataset[i]).items():
            shortest[pair] = min(shortest.get(pair, cutoff), distance)
    found, repulsion = [], np.zeros(n)
    for k, (i, atoms) in enumerate(zip(chosen.tolist(), dataset.subset(chosen).atoms, strict=True)):
        pushed = _pushed(atoms, dataset[i], shortest, cutoff, rng) if k % 2 else None
        batch, repulsion[k] = pushed or (_shaken(atoms, shortest, cutoff, rng), 0.0)
        found.append(batch._replace(has_forces=torch.ones(len(atoms), dtype=torch.bool)))
    return Distorted(found, repulsion)


def _shaken(atoms: Atoms, shortest: _Shortest, cutoff: float, rng: np.random.Generator) -> Structures:
    """Every atom displaced; less so until no two are too close."""
    scale = min(shortest.values(), default=1.0)
    steps = scale * rng.uniform(*_SHAKEN) * rng.normal(size=(len(atoms), 3))
    strain = _STRAINED * rng.normal(size=(3, 3)) if atoms.pbc.all() else np.zeros((3, 3))
    for trial in range(_MOST_TRIALS):
        size = _SMALLER**trial
        moved = Atoms(atoms.numbers, atoms.positions + size * steps, cell=atoms.cell, pbc=atoms.pbc)
        moved.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * size * (strain + strain.T)), scale_atoms=True)
        batch = atoms_to_structures(moved, cutoff)
        if all(d > _CLOSEST * shortest.get(pair, 0.0) for pair, (d, _) in closest_pairs(batch).items()):
            break
    return batch


def _pushed(
    atoms: Atoms, batch: Structures, shortest: _Shortest, cutoff: float, rng: np.random.Generator
) -> tuple[Structures, float] | None:
    """Two atoms moved towards each other, and how they repel each other; None where none are near enough."""
    vectors, numbers = pair_vectors(batch).numpy(), batch.numbers.numpy()
    first, second = batch.first.numpy(), batch.second.numpy()
    least = np.array([shortest[min(a, b), max(a, b)] for a, b in zip(numbers[first], numbers[second], strict=True)])
    distances = np.linalg.norm(vectors, axis=1)
    # an atom and its own image move together
    pairs = np.flatnonzero((distances < _NEAR * least) & (first != second))
    if not len(pairs):
        return None
    pair = int(rng.choice(pairs))
    apart = min(rng.uniform(*_PUSHED) * least[pair], distances[pair])
    step = (1.0 - apart / distances[pair]) * vectors[pair]
    share = rng.uniform()
    moved = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moved.positions[first[pair]] += share * step
    moved.positions[second[pair]] -= (1.0 - share) * step
    slopes = zbl(np.array([min(apart, least[pair]), least[pair]]), *numbers[[first[pair], second[pair]]].tolist())[1]
    return atoms_to_structures(moved, cutoff), float(slopes[1] - slopes[0])
