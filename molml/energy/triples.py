"""Processor kernel for functions that have to visit every pair of neighbours: G4, fractional G5 and compact angles.

Each is a product of one function of the distance, taken of two or of all three sides, and one of the angle, and sets of
them share few of either. Functions of the same two elements, with and without the third side, and of the same reach
make a list. For each list, an atom's pairs of neighbours that count, those with every side within reach, are written
down one after the other in blocks, whatever the neighbour they start from. A block then is worked off LANES pairs at a
time, without branches:

    cosine and third side -> functions of the angle -> functions of the third side -> sums over the pairs.

Functions of the first two sides are computed once per neighbour and gathered. Derivatives are contracted with the
weights of the functions pair by pair: what comes of a pair is its derivative by the cosine and by the three sides.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from molml.energy.cutoffs import (
    COSINE,
    EXPONENTIAL,
    HARD,
    POLYNOMIAL,
    POLYNOMIAL_3,
    POLYNOMIAL_7,
    TANH,
    TANH_UNSCALED,
    borrowing_jit,
    jit,
)
from molml.energy.lanes import (
    LANES,
    across,
    below,
    compress,
    exp,
    gather,
    larger,
    load,
    rows,
    smaller,
    spread,
    sqrt,
    store,
)

VALUES, VJP, JVP = 0, 1, 2  # what the kernel is asked for
GAUSSIAN_RANGE, COMPACT_RANGE = 0, 1
POWER, COMPACT_BUMP = 0, 1

_BLOCK = 128  # pairs of neighbours, about, that are worked off at once; their numbers should fit the first cache


class Triples(NamedTuple):
    """Functions of one central element over pairs of neighbours; those of one group and of one list stand together."""

    radii: np.ndarray  # (n_radii,) Å, cutoff radii
    ranges: np.ndarray  # (n_ranges, 6): form, reach; eta, r_s, index of the radius, 0; or low, high, shape, asymmetric
    bumps: np.ndarray  # (n_bumps, 4): form; lambda, zeta, 0; or low, high in radians, shape
    lists: np.ndarray  # (n_lists, 5): elements a <= b (-1: any), 1 if the third side counts, groups: first, last + 1
    bends: np.ndarray  # (n_lists, n_bumps): whether a bump is in a list
    groups: np.ndarray  # (n_groups, 3): range, functions: first, last + 1
    bump: np.ndarray  # (n_functions,) index into the bumps


@borrowing_jit
def _shape(y: Any, kind: int) -> Any:
    """Shape of a cutoff function at 0 <= y <= 1 and its derivative, in lanes; see cutoffs.shape."""
    z = 1.0 - y
    if kind == COSINE:
        # cos(π y) as the sine, and sin(π y) as the cosine of an angle within ± π / 2, by their series
        a = math.pi * (0.5 - y)
        q = a * a
        s = 1.0 - q / 272.0 * (1.0 - q / 342.0 * (1.0 - q / 420.0))
        s = 1.0 - q / 72.0 * (1.0 - q / 110.0 * (1.0 - q / 156.0 * (1.0 - q / 210.0 * s)))
        s = a * (1.0 - q / 6.0 * (1.0 - q / 20.0 * (1.0 - q / 42.0 * s)))
        c = 1.0 - q / 306.0 * (1.0 - q / 380.0 * (1.0 - q / 462.0))
        c = 1.0 - q / 90.0 * (1.0 - q / 132.0 * (1.0 - q / 182.0 * (1.0 - q / 240.0 * c)))
        c = 1.0 - q / 2.0 * (1.0 - q / 12.0 * (1.0 - q / 30.0 * (1.0 - q / 56.0 * c)))
        return 0.5 + 0.5 * s, -0.5 * math.pi * c
    if kind == POLYNOMIAL:
        return z * z * z * (1.0 + y * (3.0 + 6.0 * y)), -30.0 * (y * z) * (y * z)
    if kind == POLYNOMIAL_3:
        return z * z * (1.0 + 2.0 * y), -6.0 * y * z
    if kind == POLYNOMIAL_7:
        value = (z * z) * (z * z) * (1.0 + y * (4.0 + y * (10.0 + 20.0 * y)))
        return value, -140.0 * (y * z) * (y * z) * (y * z)
    if kind == EXPONENTIAL:
        # the bound is where the value has vanished
        inverse = 1.0 / larger(z * (1.0 + y), spread(1e-3))
        value = exp(1.0 - inverse)
        return value, -2.0 * y * inverse * inverse * value
    value = (z * z) * (z * z) * z * (1.0 + y * (5.0 + y * (15.0 + y * (35.0 + 70.0 * y))))
    return value, -630.0 * (y * z) * (y * z) * (y * z) * (y * z)


@borrowing_jit
def _compact(x: Any, low: float, high: float, kind: int, asymmetric: bool) -> Any:
    """Compact function and its derivative, in lanes; see cutoffs.compact_values."""
    middle, inverse = 0.5 * (low + high), 2.0 / (high - low)
    right = (x - middle) * inverse
    y = smaller(larger(right, 0.0 - right), spread(1.0))
    stretch = below(spread(0.0), right, spread(inverse), spread(-inverse))
    if asymmetric:
        stretch = stretch * (2.0 - 2.0 * y)
        y = y * (2.0 - y)
    value, slope = _shape(y, kind)
    return value, slope * stretch


@borrowing_jit
def _cutoff(r: Any, radius: float, kind: int, inner: float) -> Any:
    """Cutoff function and its derivative, in lanes; see cutoffs.cutoff_values."""
    inside = below(r, spread(radius), spread(1.0), spread(0.0))
    if kind == HARD:
        return inside, spread(0.0)
    if kind == TANH or kind == TANH_UNSCALED:
        scale = 1.0 / math.tanh(1.0) ** 3 if kind == TANH else 1.0
        e = exp(-2.0 * larger(1.0 - r / radius, spread(0.0)))
        t = (1.0 - e) / (1.0 + e)
        return inside * scale * t * t * t, inside * (-3.0 * scale / radius) * t * t * (1.0 - t * t)
    width = radius - inner * radius
    value, slope = _shape(smaller(larger((r - inner * radius) / width, spread(0.0)), spread(1.0)), kind)
    return inside * value, inside * slope / width


@borrowing_jit
def cutoffs_of(
    r: np.ndarray, row: int, length: int, radius: float, kind: int, inner: float, fc: np.ndarray, target: int
) -> None:
    """Cutoff function of the distances in a row and its derivative, to the rows ``target`` and ``target + 1``."""
    for k in range(0, length, LANES):
        value, slope = _cutoff(load(r, row, k), radius, kind, inner)
        store(fc, target, k, value)
        store(fc, target + 1, k, slope)


@borrowing_jit
def gaussians_of(
    r: np.ndarray,
    row: int,
    length: int,
    eta: float,
    r_s: float,
    fc: np.ndarray,
    cut: int,
    target: np.ndarray,
    value: int,
    slopes: np.ndarray,
    slope: int,
) -> None:
    """Gaussian of the distances in a row times the cutoff in row ``cut``, and its derivative, to two rows."""
    for k in range(0, length, LANES):
        d = load(r, row, k) - r_s
        g, f = exp(-eta * d * d), load(fc, cut, k)
        store(target, value, k, g * f)
        store(slopes, slope, k, g * (load(fc, cut + 1, k) - 2.0 * eta * d * f))


@borrowing_jit
def _flank(
    r: np.ndarray,
    row: int,
    length: int,
    ranges: np.ndarray,
    s: int,
    fc: np.ndarray,
    cut: int,
    target: np.ndarray,
    value: int,
    slope: int,
) -> None:
    """Range ``s`` of the distances in a row and its derivative, to two rows; ``cut`` is the row of its cutoff."""
    a, b = ranges[s, 2], ranges[s, 3]
    if ranges[s, 0] == COMPACT_RANGE:
        kind, asymmetric = int(ranges[s, 4]), ranges[s, 5] != 0.0
        for k in range(0, length, LANES):
            own, change = _compact(load(r, row, k), a, b, kind, asymmetric)
            store(target, value, k, own)
            store(target, slope, k, change)
    else:
        gaussians_of(r, row, length, a, b, fc, cut, target, value, target, slope)


@borrowing_jit
def _bend(cosine: np.ndarray, length: int, bumps: np.ndarray, b: int, height: np.ndarray) -> None:
    """Bump ``b`` of the angles, to row ``b``, and its derivative by the cosine, as many rows behind as there are."""
    slope = len(bumps) + b
    if bumps[b, 0] == COMPACT_BUMP:
        for k in range(length):
            c = min(max(cosine[0, k], -1.0), 1.0)
            cosine[1, k] = math.acos(c)
            # in line: the bump is flat there and the cosine is stationary
            sine = 1.0 - c * c
            cosine[2, k] = -1.0 / math.sqrt(sine) if sine > 0.0 else 0.0
        for k in range(0, length, LANES):
            own, change = _compact(load(cosine, 1, k), bumps[b, 1], bumps[b, 2], int(bumps[b, 3]), False)
            store(height, b, k, own)
            store(height, slope, k, change * load(cosine, 2, k))
        return
    lambda_, zeta = bumps[b, 1], bumps[b, 2]
    scale = 2.0 ** (1.0 - zeta)
    if zeta == math.floor(zeta) and zeta < 65.0:
        for k in range(0, length, LANES):
            # rounding may leave it a hair below zero for a straight angle
            base = larger(1.0 + lambda_ * load(cosine, 0, k), spread(0.0))
            n, square, power = int(zeta) - 1, base, spread(1.0)
            while n:
                if n % 2:
                    power = power * square
                n //= 2
                square = square * square
            store(height, b, k, scale * power * base)
            store(height, slope, k, scale * zeta * lambda_ * power)
    else:
        for k in range(length):
            base = max(1.0 + lambda_ * cosine[0, k], 0.0)
            power = base ** (zeta - 1.0)
            height[b, k] = scale * power * base
            height[slope, k] = scale * zeta * lambda_ * power


# rows of what is known of a neighbour, or of the first neighbour of a pair; functions of the distance come behind them
_X, _Y, _Z, _INVERSE, _NUMBER, _R, _MOVED, _FUNCTIONS = range(8)


class _Neighbours(NamedTuple):
    """One atom's neighbours within reach, and behind them one where all functions vanish, to fill blocks with."""

    pair: np.ndarray  # (room,)
    element: np.ndarray  # (room,)
    known: np.ndarray  # (_FUNCTIONS + 2 n_ranges, room): vector, 1 / r, atomic number, r,
    # JVP: change of r; ranges, their slopes
    fc: np.ndarray  # (2 n_radii, room)
    spot: np.ndarray  # (room, LANES): vector, then zeros; what only adds up can be done for a whole row at once
    fourth: np.ndarray  # (1, LANES): 0, 0, 0, 1, then zeros
    motion: np.ndarray  # (room, LANES): VJP: what is to be added to the gradient, as a vector and, in the fourth place,
    # as a multiple of the own vector; JVP: change of the vector


class _Block(NamedTuple):
    """Pairs of neighbours of one list."""

    runs: np.ndarray  # (2, room): a first neighbour's place, where its pairs end
    second: np.ndarray  # (1, width): the second neighbour's place
    first: np.ndarray  # (_FUNCTIONS + 2 n_ranges, width): what is known of the first; ranges of the list's groups only
    third: np.ndarray  # (1, width): third side
    cosine: np.ndarray  # (3, width): cosine, angle, its derivative by the cosine
    fc: np.ndarray  # (2, width): cutoff function of the third side
    flank: np.ndarray  # (2 n_ranges, width): functions of the third side, of the list's groups; then their slopes
    height: np.ndarray  # (2 n_bumps, width): functions of the angle; then their derivatives by the cosine
    result: np.ndarray  # (3, width): VJP: multiples of either vector for itself, and of each for the other one;
    # JVP: changes of the cosine, of the third side and of the first
    product: np.ndarray  # (2, width): of the functions of the sides; its change


@borrowing_jit
def _find(
    start: int,
    end: int,
    reach: float,
    vectors: np.ndarray,
    neighbour: np.ndarray,
    atomic_number: np.ndarray,
    tables: Triples,
    kind: int,
    inner: float,
    around: _Neighbours,
) -> int:
    """Write down an atom's neighbours. Returns how many there are."""
    known, n_ranges, count = around.known, len(tables.ranges), 0
    for p in range(start, end):
        x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
        d = math.sqrt(x * x + y * y + z * z)
        if d < reach:
            around.pair[count], around.element[count] = p, neighbour[p]
            known[_X, count], known[_Y, count], known[_Z, count] = x, y, z
            known[_R, count], known[_INVERSE, count] = d, 1.0 / d
            known[_NUMBER, count] = atomic_number[neighbour[p]]
            around.spot[count, 0], around.spot[count, 1], around.spot[count, 2] = x, y, z
            count += 1
    length = (count + LANES) // LANES * LANES
    for k in range(count, length):
        for row in range(_FUNCTIONS):
            known[row, k] = 0.0
        known[_R, k] = 2.0 * reach + 1.0
    for c in range(len(tables.radii)):
        cutoffs_of(known, _R, length, tables.radii[c], kind, inner, around.fc, 2 * c)
    for s in range(n_ranges):
        own, cut = _FUNCTIONS + s, 2 * int(tables.ranges[s, 4])
        _flank(known, _R, length, tables.ranges, s, around.fc, cut, known, own, own + n_ranges)
    return count


@borrowing_jit
def _measure(n: int, count: int, around: _Neighbours, block: _Block) -> int:
    """Fill a block up to whole multiples of LANES; cosines and third sides. Returns the length."""
    second, first, third, cosine, known = block.second, block.first, block.third, block.cosine, around.known
    length = (n + LANES - 1) // LANES * LANES
    for t in range(n, length):
        second[0, t] = count
    for t in range(0, length, LANES):
        x, y, z = load(first, _X, t), load(first, _Y, t), load(first, _Z, t)
        u, v, w = gather(known, _X, second, 0, t), gather(known, _Y, second, 0, t), gather(known, _Z, second, 0, t)
        inverse = load(first, _INVERSE, t) * gather(known, _INVERSE, second, 0, t)
        store(cosine, 0, t, (x * u + y * v + z * w) * inverse)
        u, v, w = u - x, v - y, w - z
        store(third, 0, t, sqrt(u * u + v * v + w * w))
    return length


@borrowing_jit
def _sum_values(
    length: int, own: np.ndarray, tables: Triples, changes: bool, around: _Neighbours, block: _Block, out: np.ndarray
) -> None:
    """Add a block's share of the list's functions, or of their changes, to ``out``."""
    second, first, flank, height, product = block.second, block.first, block.flank, block.height, block.product
    known, n_ranges, n_bumps = around.known, len(tables.ranges), len(tables.bumps)
    for g in range(own[4] - own[3]):
        s = _FUNCTIONS + tables.groups[own[3] + g, 0]
        for t in range(0, length, LANES):
            f_j, f_k = load(first, _FUNCTIONS + g, t), gather(known, s, second, 0, t)
            both, side, side_slope = f_j * f_k, spread(1.0), spread(0.0)
            if own[2]:
                side, side_slope = load(flank, g, t), load(flank, n_ranges + g, t)
            if own[0] < 0:
                both = both * load(first, _NUMBER, t) * gather(known, _NUMBER, second, 0, t)
            store(product, 0, t, both * side)
            if changes:
                d_j = load(first, _FUNCTIONS + n_ranges + g, t) * load(block.result, 2, t)
                d_k = gather(known, n_ranges + s, second, 0, t) * gather(known, _MOVED, second, 0, t)
                change = (d_j * f_k + f_j * d_k) * side
                if own[0] < 0:
                    change = change * load(first, _NUMBER, t) * gather(known, _NUMBER, second, 0, t)
                store(product, 1, t, change + both * side_slope * load(block.result, 1, t))
        for f in range(tables.groups[own[3] + g, 1], tables.groups[own[3] + g, 2]):
            b, total = tables.bump[f], spread(0.0)
            if changes:
                for t in range(0, length, LANES):
                    total += load(height, b, t) * load(product, 1, t)
                    total += load(height, n_bumps + b, t) * load(block.result, 0, t) * load(product, 0, t)
            else:
                for t in range(0, length, LANES):
                    total += load(height, b, t) * load(product, 0, t)
            out[f] += across(total)


@borrowing_jit
def _sum_gradient(
    n_runs: int, length: int, own: np.ndarray, tables: Triples, around: _Neighbours, block: _Block, weights: np.ndarray
) -> None:
    """Add a block's share of the gradient of the list's functions, times ``weights``, to the neighbours' motion."""
    second, first, flank, height, result = block.second, block.first, block.flank, block.height, block.result
    known, motion, n_ranges, n_bumps = around.known, around.motion, len(tables.ranges), len(tables.bumps)
    for t in range(0, length, LANES):
        by_cosine, by_j, by_k, by_third = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for g in range(own[4] - own[3]):
            s = _FUNCTIONS + tables.groups[own[3] + g, 0]
            value, turned = spread(0.0), spread(0.0)
            for f in range(tables.groups[own[3] + g, 1], tables.groups[own[3] + g, 2]):
                w, b = spread(weights[f]), tables.bump[f]
                value += w * load(height, b, t)
                turned += w * load(height, n_bumps + b, t)
            f_j, f_k = load(first, _FUNCTIONS + g, t), gather(known, s, second, 0, t)
            both = f_j * f_k
            if own[2]:
                side = load(flank, g, t)
                by_third += both * value * load(flank, n_ranges + g, t)
                value, turned = value * side, turned * side
            by_cosine += both * turned
            by_j += load(first, _FUNCTIONS + n_ranges + g, t) * f_k * value
            by_k += f_j * gather(known, n_ranges + s, second, 0, t) * value
        inverse_j, inverse_k = load(first, _INVERSE, t), gather(known, _INVERSE, second, 0, t)
        turn, pull = by_cosine * load(block.cosine, 0, t), by_third / load(block.third, 0, t)
        own_j = (by_j - turn * inverse_j) * inverse_j + pull
        own_k = (by_k - turn * inverse_k) * inverse_k + pull
        cross = by_cosine * inverse_j * inverse_k - pull
        if own[0] < 0:
            weight = load(first, _NUMBER, t) * gather(known, _NUMBER, second, 0, t)
            own_j, own_k, cross = own_j * weight, own_k * weight, cross * weight
        store(result, 0, t, own_j)
        store(result, 1, t, own_k)
        store(result, 2, t, cross)
    spot, fourth, t = around.spot, load(around.fourth, 0, 0), 0
    for run in range(n_runs):
        j = block.runs[0, run]
        here, pull_j = load(spot, j, 0), load(motion, j, 0)
        while t < block.runs[1, run]:
            k, cross = second[0, t], spread(result[2, t])
            pull_j += cross * load(spot, k, 0) + result[0, t] * fourth
            store(motion, k, 0, load(motion, k, 0) + cross * here + result[1, t] * fourth)
            t += 1
        store(motion, j, 0, pull_j)


@borrowing_jit
def _changes(n_runs: int, length: int, around: _Neighbours, block: _Block) -> None:
    """Change of a block's cosines, third and first sides when the vectors move."""
    known, motion, result = around.known, around.motion, block.result
    t = 0
    for run in range(n_runs):
        j = block.runs[0, run]
        while t < block.runs[1, run]:
            k, dot, apart = block.second[0, t], 0.0, 0.0
            for a in range(3):
                dot += motion[j, a] * known[_X + a, k] + known[_X + a, j] * motion[k, a]
                apart += (known[_X + a, k] - known[_X + a, j]) * (motion[k, a] - motion[j, a])
            along = known[_MOVED, j] * known[_INVERSE, j] + known[_MOVED, k] * known[_INVERSE, k]
            result[0, t] = dot * known[_INVERSE, j] * known[_INVERSE, k] - block.cosine[0, t] * along
            result[1, t] = apart / block.third[0, t]
            result[2, t] = known[_MOVED, j]
            t += 1
    for rest in range(t, length):
        result[0, rest] = result[1, rest] = result[2, rest] = 0.0


@borrowing_jit
def _fill(array: np.ndarray, row: int, start: int, stop: int, value: float) -> None:
    """The same number from ``start`` to ``stop``, and in as many places more as a block is filled up by."""
    for t in range(start, stop + LANES, LANES):
        store(array, row, t, spread(value))


@borrowing_jit
def _list(
    q: int,
    mode: int,
    count: int,
    tables: Triples,
    kind: int,
    inner: float,
    around: _Neighbours,
    block: _Block,
    here: np.ndarray,
    there: np.ndarray,
    vector: np.ndarray,
    out: np.ndarray,
) -> None:
    """One list's functions of one atom: values and changes are added to ``out``, gradients to the motion."""
    own, known, n_ranges = tables.lists[q], around.known, len(tables.ranges)
    limit = tables.ranges[tables.groups[own[3], 0], 1]
    n_here = n_there = 0
    for k in range(count):
        if known[_R, k] < limit:
            if own[0] < 0 or around.element[k] == own[0]:
                here[n_here] = k
                n_here += 1
            if own[1] < 0 or around.element[k] == own[1]:
                there[0, n_there] = k
                for a in range(3):
                    vector[a, n_there] = known[_X + a, k]
                n_there += 1
    for k in range(n_there, n_there + LANES):
        # too far away for any list
        there[0, k] = count
        vector[0, k] = vector[1, k] = vector[2, k] = 1e200
    furthest = spread(limit * limit if own[2] else np.inf)
    n = n_runs = 0
    for p in range(n_here):
        j, before = here[p], n
        x, y, z = spread(known[_X, j]), spread(known[_Y, j]), spread(known[_Z, j])
        for o in range(p + 1 if own[0] == own[1] else 0, n_there, LANES):
            u, v, w = load(vector, 0, o) - x, load(vector, 1, o) - y, load(vector, 2, o) - z
            n += compress(block.second, 0, n, there, 0, o, u * u + v * v + w * w, furthest)
        block.runs[0, n_runs], block.runs[1, n_runs] = j, n
        n_runs += 1
        for row in range(_NUMBER + 1):
            _fill(block.first, row, before, n, known[row, j])
        for g in range(own[4] - own[3]):
            row = _FUNCTIONS + tables.groups[own[3] + g, 0]
            _fill(block.first, _FUNCTIONS + g, before, n, known[row, j])
            if mode != VALUES:
                _fill(block.first, _FUNCTIONS + n_ranges + g, before, n, known[row + n_ranges, j])
        if n == 0 or (n < _BLOCK and p + 1 < n_here):
            continue
        length = _measure(n, count, around, block)
        for b in range(len(tables.bumps)):
            if tables.bends[q, b]:
                _bend(block.cosine, length, tables.bumps, b, block.height)
        if own[2]:
            if tables.ranges[tables.groups[own[3], 0], 0] == GAUSSIAN_RANGE:
                cutoffs_of(block.third, 0, length, limit, kind, inner, block.fc, 0)
            for g in range(own[4] - own[3]):
                s = tables.groups[own[3] + g, 0]
                _flank(block.third, 0, length, tables.ranges, s, block.fc, 0, block.flank, g, n_ranges + g)
        if mode == VJP:
            _sum_gradient(n_runs, length, own, tables, around, block, out)
        else:
            if mode == JVP:
                _changes(n_runs, length, around, block)
            _sum_values(length, own, tables, mode == JVP, around, block, out)
        n = n_runs = 0


@borrowing_jit
def _atom(
    i: int,
    mode: int,
    first_pair: np.ndarray,
    vectors: np.ndarray,
    neighbour: np.ndarray,
    tables: Triples,
    kind: int,
    inner: float,
    atomic_number: np.ndarray,
    around: _Neighbours,
    block: _Block,
    here: np.ndarray,
    there: np.ndarray,
    vector: np.ndarray,
    out: np.ndarray,
    motion: np.ndarray,
) -> None:
    """:func:`sum_triples` of one atom."""
    known, pair = around.known, around.pair
    reach = 0.0
    for s in range(len(tables.ranges)):
        reach = max(reach, tables.ranges[s, 1])
    count = _find(
        first_pair[i], first_pair[i + 1], reach, vectors, neighbour, atomic_number, tables, kind, inner, around
    )
    for k in range(count):
        store(around.motion, k, 0, spread(0.0))
        if mode == JVP:
            known[_MOVED, k] = 0.0
            for a in range(3):
                around.motion[k, a] = motion[pair[k], a]
                known[_MOVED, k] += motion[pair[k], a] * known[_X + a, k] * known[_INVERSE, k]
    if mode != VJP:
        for f in range(len(out)):
            out[f] = 0.0
    for q in range(len(tables.lists)):
        _list(q, mode, count, tables, kind, inner, around, block, here, there, vector, out)
    if mode == VJP:
        for k in range(count):
            for a in range(3):
                motion[pair[k], a] += around.motion[k, a] + around.motion[k, 3] * known[_X + a, k]


@jit
def sum_triples(
    low: int,
    high: int,
    mode: int,
    atoms: np.ndarray,
    first_pair: np.ndarray,
    vectors: np.ndarray,
    neighbour: np.ndarray,
    room: int,
    tables: Triples,
    kind: int,
    inner: float,
    atomic_number: np.ndarray,
    column: int,
    features: np.ndarray,
    motion: np.ndarray,
) -> None:
    """Functions over every pair of neighbours of ``atoms``; they are the columns from ``column`` on.

    VALUES writes them to ``features``; VJP adds d(sum features · G) / d vectors to ``motion``; JVP writes the change of
    G when the vectors move along ``motion`` to ``features``. The pairs of atom i are ``first_pair[i]`` and so on, at
    most ``room`` of them; ``neighbour`` holds the index of the second atom's element, ``kind`` and ``inner`` tell the
    cutoff function.
    """
    n_ranges, n_bumps = len(tables.ranges), len(tables.bumps)
    places = (room + LANES) // LANES * LANES
    around = _Neighbours(
        np.empty(places, np.int64),
        np.empty(places, np.int64),
        rows(_FUNCTIONS + 2 * n_ranges, places),
        rows(2 * len(tables.radii), places),
        rows(places, LANES),
        rows(1, LANES),
        rows(places, LANES),
    )
    around.spot[:] = 0.0
    around.fourth[0] = 0.0
    around.fourth[0, 3] = 1.0
    # before a block is worked off one neighbour's pairs may come on top of it
    width = _BLOCK + places + 2 * LANES
    block = _Block(
        np.empty((2, places), np.int64),
        np.empty((1, width), np.int64),
        rows(_FUNCTIONS + 2 * n_ranges, width),
        rows(1, width),
        rows(3, width),
        rows(2, width),
        rows(2 * n_ranges, width),
        rows(2 * n_bumps, width),
        rows(3, width),
        rows(2, width),
    )
    here, there, vector = np.empty(places, np.int64), np.empty((1, places + LANES), np.int64), rows(3, places + LANES)
    for atom in range(low, high):
        out = features[atom, column : column + len(tables.bump)]
        _atom(
            atoms[atom],
            mode,
            first_pair,
            vectors,
            neighbour,
            tables,
            kind,
            inner,
            atomic_number,
            around,
            block,
            here,
            there,
            vector,
            out,
            motion,
        )
