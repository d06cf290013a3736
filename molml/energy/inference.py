"""Networks and sums as compiled functions, with their derivatives: for few atoms autograd takes longer than the work.

Weights are stored once and as torch has them, a row for every output, filled up with zeros to whole registers: for a
small molecule it is not arithmetic but their way from memory that counts. Energies need sums along the rows and
derivatives sums over them; four atoms at a time keep eight sums in registers.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from molml.energy.cutoffs import borrowing_jit, exp, jit
from molml.energy.kernels import share
from molml.energy.lanes import LANES, across, load, rows, spread, store
from molml.nn import MLP
from molml.nn.activations import ACTIVATIONS

Floats = NDArray[np.float64]

_ATOMS, _OUTPUTS = 4, 2  # of a product, worked off at once
_WIDE = 2 * LANES  # rows of weights are whole multiples of this
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
    """Energy of the atoms of one element as arrays: linear · x + reference, and of x - mean squares and a network.

    The scale of the inputs and that of the output are part of the weights. Without layers there is no network, as where
    the weights of the last layer are zero.
    """

    linear: Floats  # (n_functions,), eV
    reference: float  # eV
    mean: Floats  # (n_functions,)
    sizes: NDArray[np.int64]  # of the inputs and of every layer; the last is 1, or none
    activations: NDArray[np.int64]  # of every layer but the last: its place among molml.nn.activations.ACTIVATIONS
    biases: Floats  # (n_layers, widest)
    weights: Floats  # (1, n): of layer after layer, rows and their number filled up
    directions: Floats  # (1, n): rows that are multiplied by x - mean, filled up in the same way
    squares: Floats  # (1, n_directions) eV: of the squares of these products


@borrowing_jit
def _filled(n: int, multiple: int) -> int:
    return (n + multiple - 1) // multiple * multiple


def linear_network(linear: Floats, reference: float) -> AtomNetwork:
    """Only the linear part."""
    none, nothing = np.zeros(0, dtype=np.int64), np.zeros((1, 0))
    return AtomNetwork(linear, float(reference), linear, none, none, np.zeros((0, 0)), nothing, nothing, nothing)


def atom_network(
    network: MLP,
    mean: Floats,
    scale: Floats,
    linear: Floats,
    reference: float,
    energy_scale: float,
    quadratic: tuple[Floats, Floats] | None = None,
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
    directions, squares = quadratic or (np.zeros((0, len(mean))), np.zeros(0))
    biases = np.zeros((len(layers), max(_filled(n, _WIDE) for n in [*sizes.tolist(), len(squares)])))
    for row, (_, bias) in zip(biases, layers, strict=True):
        row[: len(bias)] = bias
    flat = np.concatenate([_flat(weight) for weight, _ in layers])[None]
    kinds = np.array([_NAMES.index(name) for name in names], dtype=np.int64)
    parts = linear.copy(), reference, mean.copy(), sizes, kinds, biases, flat
    found = AtomNetwork(*parts, _flat(directions)[None], squares[None].copy())
    if any(array.any() for array in layers[-1]):
        return found
    nothing = linear_network(found.linear, reference)
    return found._replace(
        sizes=nothing.sizes, activations=nothing.activations, biases=biases[:0], weights=nothing.weights
    )


def _flat(weight: Floats) -> Floats:
    """Rows of a matrix, filled up with zeros as to length and number."""
    m, n = weight.shape
    wide = np.zeros((_filled(m, _OUTPUTS), _filled(n, _WIDE)))
    wide[:m, :n] = weight
    return wide.ravel()


@borrowing_jit
def _forward(
    x: Floats, n_atoms: int, weights: Floats, first: int, n: int, m: int, bias: Floats, row: int, y: Floats
) -> None:
    """``y = weights · x + bias`` for a matrix (m, n) that begins at ``first``; ``n`` includes what is filled up."""
    for o in range(0, m, _OUTPUTS):
        here = first + o * n
        there = here + n
        for a in range(0, n_atoms, _ATOMS):
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            one_2, two_2, three_2, four_2 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for i in range(0, n, LANES):
                w, w_2 = load(weights, 0, here + i), load(weights, 0, there + i)
                b, c, d, e = load(x, a, i), load(x, a + 1, i), load(x, a + 2, i), load(x, a + 3, i)
                one += b * w
                two += c * w
                three += d * w
                four += e * w
                one_2 += b * w_2
                two_2 += c * w_2
                three_2 += d * w_2
                four_2 += e * w_2
            y[a, o], y[a, o + 1] = bias[row, o] + across(one), bias[row, o + 1] + across(one_2)
            y[a + 1, o], y[a + 1, o + 1] = bias[row, o] + across(two), bias[row, o + 1] + across(two_2)
            y[a + 2, o], y[a + 2, o + 1] = bias[row, o] + across(three), bias[row, o + 1] + across(three_2)
            y[a + 3, o], y[a + 3, o + 1] = bias[row, o] + across(four), bias[row, o + 1] + across(four_2)


@borrowing_jit
def _backward(x: Floats, n_atoms: int, weights: Floats, first: int, n: int, m: int, y: Floats) -> None:
    """``y = x · weights`` for the same matrix."""
    for i in range(0, n, _WIDE):
        for a in range(0, n_atoms, _ATOMS):
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            one_2, two_2, three_2, four_2 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for o in range(m):
                w, w_2 = load(weights, 0, first + o * n + i), load(weights, 0, first + o * n + i + LANES)
                b, c, d, e = spread(x[a, o]), spread(x[a + 1, o]), spread(x[a + 2, o]), spread(x[a + 3, o])
                one += b * w
                two += c * w
                three += d * w
                four += e * w
                one_2 += b * w_2
                two_2 += c * w_2
                three_2 += d * w_2
                four_2 += e * w_2
            store(y, a, i, one)
            store(y, a + 1, i, two)
            store(y, a + 2, i, three)
            store(y, a + 3, i, four)
            store(y, a, i + LANES, one_2)
            store(y, a + 1, i + LANES, two_2)
            store(y, a + 2, i + LANES, three_2)
            store(y, a + 3, i + LANES, four_2)


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
    sizes, weights, n_layers = network.sizes, network.weights, len(network.sizes) - 1
    n_functions, n_atoms = len(network.mean), _filled(high - low, _ATOMS)
    # two of three parts, each the input of the product into the other
    y, z = work[:_CHUNK], work[_CHUNK : 2 * _CHUNK]
    for a in range(n_atoms):
        for i in range(_filled(n_functions, _WIDE)):
            y[a, i] = x[low + a, i] - network.mean[i] if low + a < high and i < n_functions else 0.0
    n_squares = network.squares.shape[1]
    if n_squares > 0:
        n, none = _filled(n_functions, _WIDE), work[2 * _CHUNK : 2 * _CHUNK + 1]
        none[:] = 0.0
        _forward(y, n_atoms, network.directions, 0, n, n_squares, none, 0, z)
        for a in range(n_atoms):
            total = 0.0
            for i in range(n_squares):
                total += network.squares[0, i] * z[a, i] * z[a, i]
                z[a, i] *= 2.0 * network.squares[0, i]
            if low + a < high:
                energies[low + a] += total
        slope = work[2 * _CHUNK :]
        _backward(z, n_atoms, network.directions, 0, n, n_squares, slope)
        for a in range(high - low):
            for i in range(n_functions):
                gradient[low + a, i] += slope[a, i]
    if n_layers < 1:
        return
    first = 0
    for layer in range(n_layers - 1):
        n, m = _filled(sizes[layer], _WIDE), sizes[layer + 1]
        _forward(y, n_atoms, weights, first, n, m, network.biases, layer, z)
        activate(z[:n_atoms], m, network.activations[layer], slopes[layer * _CHUNK : layer * _CHUNK + n_atoms])
        for a in range(n_atoms):
            for i in range(m, _filled(m, _WIDE)):
                z[a, i] = 0.0
        first += n * _filled(m, _OUTPUTS)
        y, z = z, y
    last = sizes[n_layers - 1]
    for a in range(high - low):
        total = network.biases[n_layers - 1, 0]
        for i in range(last):
            total += y[a, i] * weights[0, first + i]
        energies[low + a] += total
    for a in range(n_atoms):
        for i in range(last):
            y[a, i] = weights[0, first + i]
    for layer in range(n_layers - 2, -1, -1):
        n, m = _filled(sizes[layer], _WIDE), sizes[layer + 1]
        first -= n * _filled(m, _OUTPUTS)
        for a in range(n_atoms):
            for i in range(m):
                y[a, i] *= slopes[layer * _CHUNK + a, i]
        _backward(y, n_atoms, weights, first, n, m, z)
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
    if n_layers > 0 or network.squares.shape[1] > 0:
        work, slopes = rows(3 * _CHUNK, width), rows(max(n_layers - 1, 0) * _CHUNK, width)
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
