"""Networks and sums as compiled functions, with their derivatives: for few atoms autograd takes longer than the work.

A layer is a product of two matrices. Its weights are stored as panels of LANES outputs, one input after the other, in
the order in which the product reads them; four atoms and two panels at a time keep eight sums in registers. Each layer
is stored twice: by outputs for the energies, by inputs for their derivatives.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from molml.energy.cutoffs import borrowing_jit, exp, jit
from molml.energy.kernels import share
from molml.energy.lanes import LANES, load, rows, spread, store
from molml.nn import MLP
from molml.nn.activations import ACTIVATIONS

Floats = NDArray[np.float64]

_ATOMS, _PANELS = 4, 2  # of a product, worked off at once
_CHUNK = 32  # atoms that go through all layers before the next ones do
_NAMES = list(ACTIVATIONS)
_IDENTITY, _STEP, _LOGISTIC, _TANH, _ARCTAN, _SOFTSIGN, _RELU = range(7)
_SILU, _SOFTPLUS, _GAUSSIAN, _COSINE, _REVERSE_LOGISTIC, _EXPONENTIAL, _SQUARE = range(7, 14)


@borrowing_jit
def _sigmoid(x: float) -> float:
    e = exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@borrowing_jit
def _with_slope(x: float, kind: int) -> tuple[float, float]:
    """One of the functions of :mod:`molml.nn.activations`, and its derivative."""
    if kind == _STEP:
        return 1.0 if x >= 0.0 else 0.0, 0.0
    if kind == _LOGISTIC:
        s = _sigmoid(x)
        return s, s * (1.0 - s)
    if kind == _ARCTAN:
        return math.atan(x), 1.0 / (1.0 + x * x)
    if kind == _SOFTSIGN:
        d = 1.0 / (1.0 + abs(x))
        return x * d, d * d
    if kind == _RELU:
        return max(x, 0.0), 1.0 if x > 0.0 else 0.0
    if kind == _SOFTPLUS:
        return max(x, 0.0) + math.log1p(exp(-abs(x))), _sigmoid(x)
    if kind == _GAUSSIAN:
        y = exp(-0.5 * x * x)
        return y, -x * y
    if kind == _COSINE:
        return math.cos(x), -math.sin(x)
    if kind == _REVERSE_LOGISTIC:
        s = _sigmoid(-x)
        return s, -s * (1.0 - s)
    if kind == _EXPONENTIAL:
        y = math.exp(-x)
        return y, -y
    if kind == _SQUARE:
        return x * x, 2.0 * x
    return x, 1.0


@borrowing_jit
def activate(x: Floats, n: int, kind: int, slope: Floats) -> None:
    """Replace the first ``n`` numbers of every row by an activation function of them; its derivative to ``slope``."""
    for a in range(len(x)):
        # the two most frequent ones in loops of their own, which the compiler vectorises
        if kind == _SILU:
            for i in range(n):
                s = _sigmoid(x[a, i])
                y = x[a, i] * s
                x[a, i], slope[a, i] = y, s + y * (1.0 - s)
        elif kind == _TANH:
            for i in range(n):
                e = exp(-2.0 * abs(x[a, i]))
                y = (1.0 - e) / (1.0 + e)
                x[a, i], slope[a, i] = y if x[a, i] >= 0.0 else -y, 1.0 - y * y
        else:
            for i in range(n):
                x[a, i], slope[a, i] = _with_slope(x[a, i], kind)


class AtomNetwork(NamedTuple):
    """Energy of the atoms of one element as arrays: linear · x + reference, and a network of x - mean.

    The scale of the inputs and that of the output are part of the weights. Without layers there is no network.
    """

    linear: Floats  # (n_functions,), eV
    reference: float  # eV
    mean: Floats  # (n_functions,)
    sizes: NDArray[np.int64]  # of the inputs and of every layer; the last is 1
    activations: NDArray[np.int64]  # of every layer but the last: its place among molml.nn.activations.ACTIVATIONS
    biases: Floats  # (n_layers, widest, padded)
    panels: Floats  # (n, LANES): by outputs and by inputs for every layer but the last, then the weights of the last


def _padded(n: int) -> int:
    return -(-n // (_PANELS * LANES)) * _PANELS * LANES


def _panels(matrix: Floats) -> Floats:
    """A matrix (n, m) as panels: LANES of the m columns, all n rows; then the next columns."""
    n, m = matrix.shape
    wide = np.zeros((n, _padded(m)))
    wide[:, :m] = matrix
    return wide.reshape(n, -1, LANES).transpose(1, 0, 2).reshape(-1, LANES)


def linear_network(linear: Floats, reference: float) -> AtomNetwork:
    """Only the linear part."""
    none = np.zeros(0, dtype=np.int64)
    return AtomNetwork(linear, float(reference), linear, none, none, np.zeros((0, 0)), np.zeros((0, LANES)))


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
    sizes = np.array([len(mean), *(len(bias) for _, bias in layers)], dtype=np.int64)
    biases = np.zeros((len(layers), max(_padded(n) for n in sizes.tolist())))
    for row, (_, bias) in zip(biases, layers, strict=True):
        row[: len(bias)] = bias
    panels = [panel for weight, _ in layers[:-1] for panel in (_panels(weight.T), _panels(weight))]
    kinds = np.array([_NAMES.index(name) for name in names], dtype=np.int64)
    return AtomNetwork(
        linear.copy(),
        reference,
        mean.copy(),
        sizes,
        kinds,
        biases,
        np.concatenate([*panels, _panels(layers[-1][0].T)]),
    )


@borrowing_jit
def _multiply(
    x: Floats, n_atoms: int, panels: Floats, first: int, n: int, m: int, bias: Floats, row: int, y: Floats
) -> None:
    """``y = x · matrix + bias`` for a matrix (n, m) in the panels from ``first`` on; no bias if its row is negative."""
    for column in range(0, m, _PANELS * LANES):
        here = first + column // LANES * n
        there = here + n
        start, start_2 = spread(0.0), spread(0.0)
        if row >= 0:
            start, start_2 = load(bias, row, column), load(bias, row, column + LANES)
        for a in range(0, n_atoms, _ATOMS):
            one, two, three, four = start, start, start, start
            one_2, two_2, three_2, four_2 = start_2, start_2, start_2, start_2
            for i in range(n):
                w, w_2 = load(panels, here + i, 0), load(panels, there + i, 0)
                one += x[a, i] * w
                two += x[a + 1, i] * w
                three += x[a + 2, i] * w
                four += x[a + 3, i] * w
                one_2 += x[a, i] * w_2
                two_2 += x[a + 1, i] * w_2
                three_2 += x[a + 2, i] * w_2
                four_2 += x[a + 3, i] * w_2
            store(y, a, column, one)
            store(y, a + 1, column, two)
            store(y, a + 2, column, three)
            store(y, a + 3, column, four)
            store(y, a, column + LANES, one_2)
            store(y, a + 1, column + LANES, two_2)
            store(y, a + 2, column + LANES, three_2)
            store(y, a + 3, column + LANES, four_2)


@borrowing_jit
def _chunk(
    low: int,
    high: int,
    network: AtomNetwork,
    x: Floats,
    energies: Floats,
    gradient: Floats,
    work: Floats,
    slopes: Floats,
) -> None:
    """:func:`energies_with_gradient` of the atoms from ``low`` to ``high``, as many as the chunk has."""
    sizes, panels, n_layers = network.sizes, network.panels, len(network.sizes) - 1
    n_functions = len(network.mean)
    n_atoms = (high - low + _ATOMS - 1) // _ATOMS * _ATOMS
    # two halves, each the input of the product into the other
    y, z = work[:_CHUNK], work[_CHUNK:]
    for a in range(n_atoms):
        for i in range(n_functions):
            y[a, i] = x[low + a, i] - network.mean[i] if low + a < high else 0.0
    first = 0
    for layer in range(n_layers - 1):
        n, m = sizes[layer], sizes[layer + 1]
        wide = (m + _PANELS * LANES - 1) // (_PANELS * LANES) * _PANELS * LANES
        _multiply(y, n_atoms, panels, first, n, wide, network.biases, layer, z)
        activate(z[:n_atoms], m, network.activations[layer], slopes[layer * _CHUNK : layer * _CHUNK + n_atoms])
        first += wide // LANES * n + (n + _PANELS * LANES - 1) // (_PANELS * LANES) * _PANELS * m
        y, z = z, y
    last = sizes[n_layers - 1]
    for a in range(high - low):
        total = network.biases[n_layers - 1, 0]
        for i in range(last):
            total += y[a, i] * panels[first + i, 0]
        energies[low + a] += total
    for a in range(n_atoms):
        for i in range(last):
            y[a, i] = panels[first + i, 0]
    for layer in range(n_layers - 2, -1, -1):
        n, m = sizes[layer], sizes[layer + 1]
        wide = (n + _PANELS * LANES - 1) // (_PANELS * LANES) * _PANELS * LANES
        for a in range(n_atoms):
            for i in range(m):
                y[a, i] *= slopes[layer * _CHUNK + a, i]
        first -= wide // LANES * m
        _multiply(y, n_atoms, panels, first, m, wide, network.biases, -1, z)
        first -= (m + _PANELS * LANES - 1) // (_PANELS * LANES) * _PANELS * n
        y, z = z, y
    for a in range(high - low):
        for i in range(n_functions):
            gradient[low + a, i] += y[a, i]


@jit
def _run(low: int, high: int, network: AtomNetwork, x: Floats, energies: Floats, gradient: Floats) -> None:
    linear, n_layers, width = network.linear, len(network.sizes) - 1, network.biases.shape[1]
    for a in range(low, high):
        energies[a] = network.reference
        for i in range(len(linear)):
            energies[a] += x[a, i] * linear[i]
            gradient[a, i] = linear[i]
    if n_layers > 0:
        work, slopes = rows(2 * _CHUNK, width), rows((n_layers - 1) * _CHUNK, width)
        for start in range(low, high, _CHUNK):
            _chunk(start, min(start + _CHUNK, high), network, x, energies, gradient, work, slopes)


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
    energies, gradient = np.empty(len(x)), np.empty(x.shape)
    share(_run, len(x), network, x, energies, gradient)
    return energies, gradient


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
