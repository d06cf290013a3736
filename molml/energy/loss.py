"""What is minimised: squared errors of energies, forces and stress; and the batches it is computed on."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from molml.energy.components import ComponentKernel
from molml.energy.data import StructureDataset, Structures, collate, pair_vectors
from molml.energy.kernels import FeatureKernel, Neighbourhood, Pairs, neighbourhood
from molml.energy.model import BehlerParrinello, forces_and_virial, structure_energies
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
    derivatives : list of ndarray, shape (n_pairs of the element's atoms, 3, n_functions), or None
        Those of the features by the pair vectors, where they are kept.
    parts : list of Featurised
        The structures one by one, where any of them keeps its derivatives.
    """

    structures: Structures
    near: Neighbourhood
    moments: np.ndarray
    features: list[np.ndarray]
    derivatives: list[np.ndarray] | None
    parts: list[Featurised]


def featurise(
    kernel: FeatureKernel | ComponentKernel, structures: Structures, *, derivatives: bool = False
) -> Featurised:
    """Compute moments, symmetry functions and, where asked for, their derivatives."""
    near = _near(kernel, structures)
    moments = kernel.moments(near)
    kept = kernel.derivatives(near, moments) if derivatives else None
    return Featurised(structures, near, moments, kernel.values(near, moments), kept, [])


def _near(kernel: FeatureKernel | ComponentKernel, item: Structures) -> Neighbourhood:
    return neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))


def pair_gradient(kernel: FeatureKernel | ComponentKernel, batch: Featurised, weights: list[np.ndarray]) -> np.ndarray:
    """d(sum of weights · features) / d(pair vectors), shape (n_pairs, 3), for weights of the features' shapes."""
    if batch.derivatives is not None:
        return kernel.stored_vjp(batch.near, batch.derivatives, weights)
    if not batch.parts:
        return kernel.vjp(batch.near, batch.moments, weights)
    ends = np.cumsum([[len(atoms) for atoms in part.near.atoms] for part in batch.parts], axis=0)
    shares = zip(*(np.split(w, ends[:-1, e]) for e, w in enumerate(weights)), strict=True)
    own = zip(batch.parts, shares, strict=True)
    return np.concatenate([pair_gradient(kernel, part, list(share)) for part, share in own])


def feature_changes(
    kernel: FeatureKernel | ComponentKernel, batch: Featurised, directions: np.ndarray
) -> list[np.ndarray]:
    """Change of the features, in their shapes, when the pair vectors move along ``directions`` (n_pairs, 3)."""
    if batch.derivatives is not None:
        return kernel.stored_jvp(batch.near, batch.derivatives, directions)
    if not batch.parts:
        return kernel.jvp(batch.near, batch.moments, directions)
    ends = np.cumsum([len(part.near.pairs.first) for part in batch.parts])
    own = zip(batch.parts, np.split(directions, ends[:-1]), strict=True)
    changes = [feature_changes(kernel, part, share) for part, share in own]
    return [np.concatenate(blocks) for blocks in zip(*changes, strict=True)]


@final
class FeaturisedDataset:
    """Structures with their moments and symmetry functions, computed once and kept as far as memory allows.

    What is kept depends on the sizes alone, not on the order of use: moments and functions, structure by structure, and
    if there is room for all of them, derivatives of the functions by the pair vectors in what is left.

    Parameters
    ----------
    dataset : StructureDataset
        With the cutoff of the symmetry functions.
    kernel : FeatureKernel or ComponentKernel
    base : BehlerParrinello, optional
        What it predicts is taken off the labels.
    memory : float, GB
        What is kept; the rest is computed anew each time.
    derivatives : {"auto", "keep", "compute"}
        Whether derivatives, 24 bytes for every function of every neighbour, are kept or their products computed anew in
        every step, which gives the same to rounding. "auto" keeps those that are read faster than multiplied anew
        (:meth:`FeatureKernel.worth_keeping`): of functions that visit every pair of neighbours, and of isolated
        molecules, where many functions see few neighbours.

    Raises
    ------
    ValueError
        If the data set's cutoff is another than the functions', or a setting is out of its range.
    """

    def __init__(
        self,
        dataset: StructureDataset,
        kernel: FeatureKernel | ComponentKernel,
        *,
        base: BehlerParrinello | None = None,
        memory: float = 4.0,
        derivatives: Literal["auto", "keep", "compute"] = "auto",
    ) -> None:
        if dataset.cutoff != kernel.cutoff:
            raise ValueError(
                f"the data set must have the functions' cutoff {kernel.cutoff:g} Å, got {dataset.cutoff}; "
                "use dataset.with_cutoff"
            )
        if not memory >= 0:
            raise ValueError(f"memory must be zero or more GB, got {memory:g}")
        if derivatives not in ("auto", "keep", "compute"):
            raise ValueError(f"derivatives must be 'auto', 'keep' or 'compute', got {derivatives!r}")
        self.dataset, self.kernel, self.base = dataset, kernel, base
        self._keep: set[int] = set()
        self._keep_derivatives: set[int] = set()
        self._kept: dict[int, Featurised] = {}
        if memory > 0:
            self._plan(memory * 1e9, derivatives)

    def _plan(self, room: float, derivatives: str) -> None:
        """Decide what is kept within ``room`` bytes."""
        wanted: dict[int, int] = {}
        for index in range(len(self)):
            near = _near(self.kernel, self.dataset[index])
            size = self.kernel.values_size(near)
            if size <= room:
                room -= size
                self._keep.add(index)
                if derivatives == "keep" or (derivatives == "auto" and self.kernel.worth_keeping(near)):
                    wanted[index] = self.kernel.derivatives_size(near)
        for index, size in wanted.items():
            if len(self._keep) == len(self) and size <= room:
                room -= size
                self._keep_derivatives.add(index)

    @property
    def n_derivatives(self) -> int:
        """Number of structures whose derivatives are kept."""
        return len(self._keep_derivatives)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Featurised:
        if index in self._kept:
            return self._kept[index]
        structures = self.dataset[index]
        if self.base is not None:
            structures = _residual(self.base, structures)
        item = featurise(self.kernel, structures, derivatives=index in self._keep_derivatives)
        if index in self._keep:
            self._kept[index] = item
        return item

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
        moments = np.concatenate([item.moments for item in items])
        singly = items if any(item.derivatives is not None for item in items) else []
        return Featurised(structures, near, moments, features, None, singly)


def _residual(base: BehlerParrinello, item: Structures) -> Structures:
    """A structure with labels that a potential's predictions are taken off."""
    said = base.predict(item)
    assert said.forces is not None and said.stress is not None
    return item._replace(
        energy=item.energy - said.energy, forces=item.forces - said.forces, stress=item.stress - said.stress
    )


class _PairGradient(torch.autograd.Function):
    """dE / d(pair vectors) from dE / d(features); its own gradient is the Jacobian-vector product.

    It can be differentiated by the weights, which is what training on forces needs, and not by the positions.
    """

    @staticmethod
    def forward(ctx: Any, kernel: FeatureKernel | ComponentKernel, batch: Featurised, *weights: Tensor) -> Tensor:
        ctx.kernel, ctx.batch = kernel, batch
        return torch.from_numpy(pair_gradient(kernel, batch, [w.detach().numpy() for w in weights]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor | None, ...]:
        changes = feature_changes(ctx.kernel, ctx.batch, directions.numpy())
        return None, None, *(torch.from_numpy(change) for change in changes)


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
            gradient = _PairGradient.apply(model.kernel, batch, *weights)
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
