"""Networks and sums written out in numpy, with their derivatives: for few atoms autograd takes longer than the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from molml.energy.cutoffs import exp, jit
from molml.nn import MLP

Floats = NDArray[np.float64]


def _sigmoid(x: Floats) -> Floats:
    # scipy.special would do, but adds filters of warnings where it is imported
    e = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, e) / (1.0 + e)
    return result


@jit
def _silu(x: Floats) -> tuple[Floats, Floats]:
    # the default, and for few atoms compiled twice as fast as numpy
    value, slope = np.empty(x.size), np.empty(x.size)
    flat = x.reshape(x.size)
    for i in range(x.size):
        e = exp(-abs(flat[i]))
        s = (1.0 if flat[i] >= 0.0 else e) / (1.0 + e)
        value[i] = flat[i] * s
        slope[i] = s + value[i] * (1.0 - s)
    return value.reshape(x.shape), slope.reshape(x.shape)


def _logistic(x: Floats) -> tuple[Floats, Floats]:
    s = _sigmoid(x)
    return s, s * (1.0 - s)


def _reverse_logistic(x: Floats) -> tuple[Floats, Floats]:
    s = _sigmoid(-x)
    return s, -s * (1.0 - s)


def _tanh(x: Floats) -> tuple[Floats, Floats]:
    y = np.tanh(x)
    return y, 1.0 - y * y


def _softsign(x: Floats) -> tuple[Floats, Floats]:
    d = 1.0 / (1.0 + np.abs(x))
    return x * d, d * d


def _gaussian(x: Floats) -> tuple[Floats, Floats]:
    y = np.exp(-0.5 * x * x)
    return y, -x * y


def _exponential(x: Floats) -> tuple[Floats, Floats]:
    y = np.exp(-x)
    return y, -y


WITH_SLOPE: dict[str, Callable[[Floats], tuple[Floats, Floats]]] = {
    "identity": lambda x: (x, np.ones_like(x)),
    "binary_step": lambda x: ((x >= 0).astype(x.dtype), np.zeros_like(x)),
    "logistic": _logistic,
    "tanh": _tanh,
    "arctan": lambda x: (np.arctan(x), 1.0 / (1.0 + x * x)),
    "softsign": _softsign,
    "relu": lambda x: (np.maximum(x, 0.0), (x > 0).astype(x.dtype)),
    "silu": _silu,
    "softplus": lambda x: (np.logaddexp(x, 0.0), _sigmoid(x)),
    "gaussian": _gaussian,
    "cosine": lambda x: (np.cos(x), -np.sin(x)),
    "reverse_logistic": _reverse_logistic,
    "exponential": _exponential,
    "square": lambda x: (x * x, 2.0 * x),
}
"""The activation functions of :mod:`molml.nn.activations`, each with its derivative."""


class AtomNetwork(NamedTuple):
    """Energy of the atoms of one element as arrays: linear · x + reference, and a network of x - mean.

    The scale of the inputs and that of the output are part of the weights. Without layers there is no network.
    """

    linear: Floats  # (n_functions,), eV
    reference: float  # eV
    mean: Floats  # (n_functions,)
    layers: list[tuple[Floats, Floats]]  # weight (n_out, n_in) and bias of each layer, the last with one output
    activations: list[Callable[[Floats], tuple[Floats, Floats]]]  # of every layer but the last


def atom_network(
    network: MLP, mean: Floats, scale: Floats, linear: Floats, reference: float, energy_scale: float
) -> AtomNetwork:
    """Take over the weights of an element's network; later changes of them have no effect on the result."""
    layers = [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in cast("list[nn.Linear]", network.layers)
    ]
    for array in layers[-1]:
        array *= energy_scale
    layers[0][0][:] *= scale
    names = network.activation.split()
    names = names * (len(layers) - 1) if len(names) == 1 else names
    return AtomNetwork(linear.copy(), reference, mean.copy(), layers, [WITH_SLOPE[name] for name in names])


def energies_with_gradient(network: AtomNetwork, x: Floats) -> tuple[Floats, Floats]:
    """Energies of an element's atoms and their derivatives by the symmetry functions.

    Parameters
    ----------
    network : AtomNetwork
    x : ndarray, shape (n_atoms, n_functions)

    Returns
    -------
    energies : ndarray, shape (n_atoms,), eV
    gradient : ndarray, shape (n_atoms, n_functions), eV
    """
    energies = x @ network.linear
    energies += network.reference
    if not network.layers:
        return energies, np.tile(network.linear, (len(x), 1))
    y, slopes = x - network.mean, []
    for (weight, bias), activation in zip(network.layers, network.activations, strict=False):
        y = y @ weight.T
        y += bias
        y, slope = activation(y)
        slopes.append(slope)
    weight, bias = network.layers[-1]
    energies += y @ weight[0]
    energies += bias
    gradient = np.broadcast_to(weight, y.shape)
    for (weight, _), slope in zip(network.layers[-2::-1], slopes[::-1], strict=True):
        gradient = (gradient * slope) @ weight
    return energies, gradient + network.linear


@jit
def pair_vectors(positions: np.ndarray, first: np.ndarray, second: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The same as :func:`molml.energy.data.pair_vectors`."""
    vectors = np.empty((len(first), 3))
    for p in range(len(first)):
        for a in range(3):
            vectors[p, a] = positions[second[p], a] - positions[first[p], a] + offset[p, a]
    return vectors


@jit
def sum_pairs(
    first: np.ndarray,
    second: np.ndarray,
    structure: np.ndarray,
    vectors: np.ndarray,
    gradient: np.ndarray,
    n_structures: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The same as :func:`molml.energy.model.forces_and_virial`."""
    forces, virial = np.zeros((len(structure), 3)), np.zeros((n_structures, 3, 3))
    for p in range(len(first)):
        i, j = first[p], second[p]
        own = virial[structure[i]]
        for a in range(3):
            forces[i, a] += gradient[p, a]
            forces[j, a] -= gradient[p, a]
            for b in range(a, 3):
                own[a, b] += 0.5 * (vectors[p, a] * gradient[p, b] + vectors[p, b] * gradient[p, a])
    for own in virial:
        for a in range(3):
            for b in range(a):
                own[a, b] = own[b, a]
    return forces, virial
