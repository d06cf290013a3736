"""Principal components of the symmetry functions: what quadratic forms are made of, and what training looks at.

Hundreds of functions say much the same. Their leading components say most of it in a fraction of the numbers, which
makes an epoch several times as fast, and in directions of like size, in which gradient descent gets on. A network of
them is a network of the functions: its first layer is multiplied out at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from molml.energy.data import StructureDataset, pair_vectors
from molml.energy.features import G2, G4, G5, Compact, CompactAngle, FourBody, Function, SymmetryFunctions, ThreeBody
from molml.energy.kernels import FeatureKernel, Neighbourhood, neighbourhood
from molml.energy.model import FeatureStatistics

_SAMPLE_ATOMS = 5000
# of a usual training; and operations for a multiplication of moments and its two derivatives
_EPOCHS, _PRODUCT_COST = 30, 12
# without them forces of aspirin are 9 %, of uracil 7 % worse, of toluene 1 % better (150 to 200 structures)
_NEAR, _TWO_NEIGHBOURS = 2.0, 3.0  # Å
_INDEPENDENT = 1e-10  # of the largest eigenvalue: what is below is rounding


class Components(NamedTuple):
    """Principal components of the functions of one element.

    Attributes
    ----------
    directions : ndarray, shape (n_functions, n)
        The components are (G - mean) @ directions, uncorrelated on the training atoms.
    variances : ndarray, shape (n,)
        Of each, largest first.
    mean : ndarray, shape (n_functions,)
    """

    directions: np.ndarray
    variances: np.ndarray
    mean: np.ndarray

    def scaled(self, n: int, power: float) -> np.ndarray:
        """Directions of the first ``n``, divided by their variances to some power; 1/2 makes the variances equal.

        The mean of the scaled components' variances is 1.
        """
        directions = self.directions[:, :n] * self.variances[:n] ** -power
        return directions / np.sqrt(np.mean(self.variances[:n] ** (1.0 - 2.0 * power)))


def standardised(statistics: FeatureStatistics) -> list[np.ndarray]:
    """Factors that make all functions of an element vary alike; those that hardly varied are left out."""
    factors = []
    for std in (own.numpy() for own in statistics.std):
        # 1 / std would blow the noise of the others up
        used = std > 1e-6 * max(float(std.max(initial=0.0)), 1e-30)
        factors.append(np.where(used, 1.0 / np.where(used, std, 1.0), 0.0))
    return factors


def smoothness(functions: SymmetryFunctions) -> list[np.ndarray]:
    """Factors by which functions count where all are penalised alike, shape (n_functions,) of every element.

    An energy says little of far atoms, and less of many at a time: every neighbour counts 1 / (1 + r / 2 Å) at the
    distance r of the radial function's middle, functions of two neighbours count three times as much as the others.

    References
    ----------
    Willatt, Musil, Ceriotti, Phys. Chem. Chem. Phys. 20, 29661 (2018), who scale what neighbours add by their distance.
    """
    return [np.array([_counts(f) for f in own]) for own in functions.functions.values()]


def _counts(function: Function) -> float:
    match function:
        case ThreeBody() | FourBody():
            middles = [r_s for _, r_s in function.radials]
        case Compact() | CompactAngle():
            middles = [max(0.5 * (function.low + function.high), 0.0)]
        case G2() | G4() | G5():
            middles = [function.r_s]
        case _:
            middles = [0.0]
    if isinstance(function, (G4, G5, CompactAngle)):
        middles *= 2
    return (_TWO_NEIGHBOURS if len(middles) == 2 else 1.0) * math.prod(1.0 / (1.0 + r / _NEAR) for r in middles)


def principal_components(
    kernel: FeatureKernel, dataset: StructureDataset, means: Sequence[np.ndarray], factors: Sequence[np.ndarray]
) -> list[Components]:
    """Components of every element's functions, from a few thousand of its atoms.

    Parameters
    ----------
    kernel : FeatureKernel
    dataset : StructureDataset
    means : sequence of array, shape (n_functions,)
        Of the functions on these structures.
    factors : sequence of array, shape (n_functions,)
        The functions are multiplied by them first (:func:`standardised`, :func:`smoothness`).
    """
    blocks: list[list[np.ndarray]] = [[] for _ in kernel.elements]
    for i in np.random.default_rng(0).permutation(len(dataset)).tolist():
        item = dataset[i]
        near = neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))
        for block, values in zip(blocks, kernel.values(near, kernel.moments(near)), strict=True):
            block.append(values)
        if all(sum(len(values) for values in block) >= _SAMPLE_ATOMS for block in blocks):
            break
    found = []
    for block, mean, factor in zip(blocks, means, factors, strict=True):
        values = (np.concatenate(block) - mean) * factor
        variances, vectors = np.linalg.eigh(values.T @ values / max(len(values), 1))
        order = np.argsort(-variances)[: len(values)]
        order = order[variances[order] > _INDEPENDENT * max(variances.max(initial=0.0), 1e-30)]
        if len(order):
            directions, own = factor[:, None] * vectors[:, order], variances[order]
        else:
            # surroundings that never vary, or no atom at all: one component, which is zero
            directions, own = np.zeros((len(mean), 1)), np.ones(1)
        found.append(Components(np.ascontiguousarray(directions), own, mean.copy()))
    return found


class ComponentKernel:
    """What :class:`FeatureKernel` does, for linear combinations of the functions.

    Parameters
    ----------
    kernel : FeatureKernel
    projections : sequence of array, shape (n_functions, n)
        One per element.
    means : sequence of array, shape (n_functions,)
        Taken off the functions.
    """

    def __init__(self, kernel: FeatureKernel, projections: Sequence[np.ndarray], means: Sequence[np.ndarray]) -> None:
        self._kernel, self.projections, self._means = kernel, list(projections), list(means)
        self.elements, self.cutoff = kernel.elements, kernel.cutoff

    def moments(self, near: Neighbourhood) -> np.ndarray:
        """As :meth:`FeatureKernel.moments`."""
        return self._kernel.moments(near)

    def values(self, near: Neighbourhood, moments: np.ndarray) -> list[np.ndarray]:
        """As :meth:`FeatureKernel.values`."""
        values = self._kernel.values(near, moments)
        return [(x - mean) @ p for x, mean, p in zip(values, self._means, self.projections, strict=True)]

    def vjp(self, near: Neighbourhood, moments: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """As :meth:`FeatureKernel.vjp`."""
        return self._kernel.vjp(near, moments, [w @ p.T for w, p in zip(weights, self.projections, strict=True)])

    def jvp(self, near: Neighbourhood, moments: np.ndarray, directions: np.ndarray) -> list[np.ndarray]:
        """As :meth:`FeatureKernel.jvp`."""
        changes = self._kernel.jvp(near, moments, directions)
        return [x @ p for x, p in zip(changes, self.projections, strict=True)]

    def derivatives(self, near: Neighbourhood, moments: np.ndarray) -> list[np.ndarray]:
        """As :meth:`FeatureKernel.derivatives`."""
        blocks = self._kernel.derivatives(near, moments)
        return [np.matmul(x, p) for x, p in zip(blocks, self.projections, strict=True)]

    def stored_vjp(self, near: Neighbourhood, derivatives: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
        """As :meth:`FeatureKernel.stored_vjp`."""
        return self._kernel.stored_vjp(near, derivatives, weights)

    def stored_jvp(
        self, near: Neighbourhood, derivatives: list[np.ndarray], directions: np.ndarray
    ) -> list[np.ndarray]:
        """As :meth:`FeatureKernel.stored_jvp`."""
        return self._kernel.stored_jvp(near, derivatives, directions)

    def values_size(self, near: Neighbourhood) -> int:
        """As :meth:`FeatureKernel.values_size`."""
        own = sum(len(atoms) * p.shape[1] for atoms, p in zip(near.atoms, self.projections, strict=True))
        functions = sum(len(atoms) * len(p) for atoms, p in zip(near.atoms, self.projections, strict=True))
        return self._kernel.values_size(near) + 8 * (own - functions)

    def worth_keeping(self, near: Neighbourhood) -> bool:
        """Whether training reads derivatives faster than it multiplies by them anew, their computation included."""
        n_pairs = np.diff(near.pairs.start)
        kept, anew = 0.0, _PRODUCT_COST * self._kernel.n_products(near)
        for atoms, p in zip(near.atoms, self.projections, strict=True):
            n_functions, n = p.shape
            kept += 3.0 * n * int(n_pairs[atoms].sum()) * (2.0 + n_functions / _EPOCHS)
            anew += 2.0 * n * n_functions * len(atoms)
        return kept < anew

    def derivatives_size(self, near: Neighbourhood) -> int:
        """As :meth:`FeatureKernel.derivatives_size`."""
        start = near.pairs.start
        n_pairs = [int((start[atoms + 1] - start[atoms]).sum()) for atoms in near.atoms]
        return sum(8 * 3 * n * p.shape[1] for n, p in zip(n_pairs, self.projections, strict=True))
