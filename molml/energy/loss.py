"""What is minimised: squared errors of energies, forces and stress; and the batches it is computed on."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from molml.energy.data import StructureDataset, Structures, collate, pair_vectors
from molml.energy.kernels import FeatureKernel, Neighbourhood, Pairs, neighbourhood
from molml.energy.model import forces_and_virial, structure_energies
from molml.training import Term


class Featurised(NamedTuple):
    """A batch with everything that does not change while a potential is trained.

    Attributes
    ----------
    structures : Structures
    near : Neighbourhood
    moments : ndarray, shape (n_atoms, n_moments)
    features : list of ndarray, shape (n_atoms of the element, n_functions)
        One per element of the symmetry functions.
    """

    structures: Structures
    near: Neighbourhood
    moments: np.ndarray
    features: list[np.ndarray]


@final
class FeaturisedDataset:
    """Structures with their moments and symmetry functions, computed once and kept as long as memory allows.

    Parameters
    ----------
    dataset : StructureDataset
        With the cutoff of the symmetry functions.
    kernel : FeatureKernel
    memory : float, GB
        What is kept; items beyond it are computed anew each time.

    Raises
    ------
    ValueError
        If the data set's cutoff is another than the functions'.
    """

    def __init__(self, dataset: StructureDataset, kernel: FeatureKernel, *, memory: float = 4.0) -> None:
        if dataset.cutoff != kernel.cutoff:
            raise ValueError(
                f"the data set must have the functions' cutoff {kernel.cutoff:g} Å, got {dataset.cutoff}; "
                "use dataset.with_cutoff"
            )
        self.dataset, self.kernel = dataset, kernel
        self._left = memory * 1e9
        self._kept: dict[int, Featurised] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Featurised:
        if index in self._kept:
            return self._kept[index]
        item = self.dataset[index]
        near = neighbourhood(self.kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))
        moments = self.kernel.moments(near)
        features = self.kernel.values(near, moments)
        featurised = Featurised(item, near, moments, features)
        # the pairs: first, second, the neighbour's element, the vector twice (here and in the data set's item)
        size = moments.nbytes + 3 * near.pairs.vectors.nbytes + sum(block.nbytes for block in features)
        if size <= self._left:
            self._left -= size
            self._kept[index] = featurised
        return featurised

    def collate(self, items: list[Featurised]) -> Featurised:
        """One batch of several structures."""
        structures = collate([item.structures for item in items])
        parts = [item.near.pairs for item in items]
        pairs_before = np.cumsum([0] + [len(part.first) for part in parts])
        atoms_before = np.cumsum([0] + [len(part.start) - 1 for part in parts])
        pairs = Pairs(
            np.concatenate([*(p.start[:-1] + n for p, n in zip(parts, pairs_before, strict=False)), pairs_before[-1:]]),
            structures.first.numpy(),
            structures.second.numpy(),
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.neighbour for part in parts]),
            max(part.longest for part in parts),
            parts[0].n_elements,
        )
        atoms = [[a + n for a in item.near.atoms] for item, n in zip(items, atoms_before, strict=False)]
        near = Neighbourhood(pairs, tuple(np.concatenate(blocks) for blocks in zip(*atoms, strict=True)))
        features = [np.concatenate(blocks) for blocks in zip(*(item.features for item in items), strict=True)]
        return Featurised(structures, near, np.concatenate([item.moments for item in items]), features)


class _PairGradient(torch.autograd.Function):
    """dE / d(pair vectors) from dE / d(features); its own gradient is the Jacobian-vector product.

    It can be differentiated by the weights, which is what training on forces needs, and not by the positions.
    """

    @staticmethod
    def forward(ctx: Any, kernel: FeatureKernel, near: Neighbourhood, moments: np.ndarray, *weights: Tensor) -> Tensor:
        ctx.kernel, ctx.near, ctx.moments = kernel, near, moments
        return torch.from_numpy(kernel.vjp(near, moments, [w.detach().numpy() for w in weights]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor | None, ...]:
        changes = ctx.kernel.jvp(ctx.near, ctx.moments, directions.numpy())
        return None, None, None, *(torch.from_numpy(change) for change in changes)


@final
class EnergyForceLoss:
    """Mean squared errors of the energy per atom, the force components and the stress.

    Terms ``energy_mse`` ((eV/atom)², mean over structures), ``forces_mse`` ((eV/Å)², mean over components) and
    ``stress_mse`` ((eV/Å³)², mean over the nine components). Structures count by their weight.

    Parameters
    ----------
    energy_weight, forces_weight, stress_weight : float
        Of each term in the objective; with 0 it is a metric.

    Raises
    ------
    ValueError
        For a negative weight.
    """

    def __init__(self, *, energy_weight: float = 1.0, forces_weight: float = 1.0, stress_weight: float = 0.0) -> None:
        for name, value in (("energy", energy_weight), ("forces", forces_weight), ("stress", stress_weight)):
            if not value >= 0:
                raise ValueError(f"{name}_weight must not be negative, got {value}")
        self.energy_weight, self.forces_weight, self.stress_weight = energy_weight, forces_weight, stress_weight

    def __call__(self, model: nn.Module, batch: Featurised) -> dict[str, Term]:
        """Terms for a model with ``atomic_energies`` and ``kernel`` (LinearPotential, BehlerParrinello)."""
        data = batch.structures
        features = [torch.from_numpy(block).requires_grad_() for block in batch.features]
        energies = model.atomic_energies(features)  # type: ignore[operator]
        _, energy = structure_energies(data, batch.near.atoms, energies)
        if bool(data.has_forces.any() | data.has_stress.any()):
            weights = torch.autograd.grad(energy.sum(), features, create_graph=model.training)
            gradient = _PairGradient.apply(model.kernel, batch.near, batch.moments, *weights)
            forces, virial = forces_and_virial(data, torch.from_numpy(batch.near.pairs.vectors), gradient)
        else:
            forces, virial = data.forces, data.stress

        n_atoms = torch.bincount(data.structure, minlength=len(data.energy))
        counted = data.weight * data.has_energy
        energy_error = (energy - data.energy) / n_atoms
        atom_weight = data.weight[data.structure] * data.has_forces
        periodic = data.weight * data.has_stress
        stress = virial / torch.where(data.volume > 0, data.volume, 1.0)[:, None, None]
        return {
            "energy_mse": Term((counted * energy_error**2).sum(), counted.sum(), self.energy_weight),
            "forces_mse": Term(
                (atom_weight[:, None] * (forces - data.forces) ** 2).sum(), 3 * atom_weight.sum(), self.forces_weight
            ),
            "stress_mse": Term(
                (periodic[:, None, None] * (stress - data.stress) ** 2).sum(), 9 * periodic.sum(), self.stress_weight
            ),
        }
