"""Processor kernel for functions that have to visit every pair of neighbours: G4, fractional G5 and compact angles.

Each is a product of one function of the distance, taken of two or of all three sides, and one of the angle, and sets of
them share few of either. Both are computed once per neighbour and per pair of neighbours; what is left for a function
is one product, and the loop over the second neighbour is innermost.
"""

from __future__ import annotations

import math
from typing import NamedTuple

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
    exp,
    jit,
    shape,
)

VALUES, VJP, JVP = 0, 1, 2  # what the kernel is asked for
GAUSSIAN_RANGE, COMPACT_RANGE = 0, 1
POWER, COMPACT_BUMP = 0, 1


class Triples(NamedTuple):
    """Functions of one central element over pairs of neighbours; those of one group stand together."""

    radii: np.ndarray  # (n_radii,) Å, cutoff radii
    ranges: np.ndarray  # (n_ranges, 6): form, reach; eta, r_s, index of the radius, 0; or low, high, shape, asymmetric
    bumps: np.ndarray  # (n_bumps, 4): form; lambda, zeta, 0; or low, high in radians, shape
    groups: np.ndarray  # (n_groups, 6): elements a <= b (-1: any), range, 1 if the third side counts, first, last + 1
    bump: np.ndarray  # (n_functions,) index into the bumps


@jit
def _shapes(start: int, stop: int, kind: int, y: np.ndarray, value: np.ndarray, slope: np.ndarray) -> None:
    """Shapes of cutoff functions at 0 <= y <= 1 and their derivatives, in arithmetic that the compiler vectorises."""
    if kind == EXPONENTIAL:
        for k in range(start, stop):
            value[k], slope[k] = shape(y[k], kind)
    elif kind == COSINE:
        for k in range(start, stop):
            # cos(π y) as the sine, and sin(π y) as the cosine of an angle within ± π / 2, by their series
            a = math.pi * (0.5 - y[k])
            q = a * a
            s = 1.0 - q / 272.0 * (1.0 - q / 342.0 * (1.0 - q / 420.0))
            s = 1.0 - q / 72.0 * (1.0 - q / 110.0 * (1.0 - q / 156.0 * (1.0 - q / 210.0 * s)))
            s = a * (1.0 - q / 6.0 * (1.0 - q / 20.0 * (1.0 - q / 42.0 * s)))
            c = 1.0 - q / 306.0 * (1.0 - q / 380.0 * (1.0 - q / 462.0))
            c = 1.0 - q / 90.0 * (1.0 - q / 132.0 * (1.0 - q / 182.0 * (1.0 - q / 240.0 * c)))
            c = 1.0 - q / 2.0 * (1.0 - q / 12.0 * (1.0 - q / 30.0 * (1.0 - q / 56.0 * c)))
            value[k], slope[k] = 0.5 + 0.5 * s, -0.5 * math.pi * c
    elif kind == POLYNOMIAL:
        for k in range(start, stop):
            x, z = y[k], 1.0 - y[k]
            value[k] = z * z * z * (1.0 + x * (3.0 + 6.0 * x))
            slope[k] = -30.0 * (x * z) * (x * z)
    elif kind == POLYNOMIAL_3:
        for k in range(start, stop):
            x, z = y[k], 1.0 - y[k]
            value[k] = z * z * (1.0 + 2.0 * x)
            slope[k] = -6.0 * x * z
    elif kind == POLYNOMIAL_7:
        for k in range(start, stop):
            x, z = y[k], 1.0 - y[k]
            value[k] = (z * z) * (z * z) * (1.0 + x * (4.0 + x * (10.0 + 20.0 * x)))
            slope[k] = -140.0 * (x * z) * (x * z) * (x * z)
    else:
        for k in range(start, stop):
            x, z = y[k], 1.0 - y[k]
            value[k] = (z * z) * (z * z) * z * (1.0 + x * (5.0 + x * (15.0 + x * (35.0 + 70.0 * x))))
            slope[k] = -630.0 * (x * z) * (x * z) * (x * z) * (x * z)


@jit
def _bumps(
    x: np.ndarray,
    start: int,
    stop: int,
    low: float,
    high: float,
    kind: int,
    asymmetric: bool,
    y: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Compact function of a row of numbers and its derivative; ``y`` is room to work in."""
    middle, inverse = 0.5 * (low + high), 2.0 / (high - low)
    for k in range(start, stop):
        y[k] = min(abs(x[k] - middle) * inverse, 1.0)
        if asymmetric:
            y[k] *= 2.0 - y[k]
    _shapes(start, stop, kind, y, value, slope)
    for k in range(start, stop):
        stretch = inverse if x[k] > middle else -inverse
        if asymmetric:
            stretch *= 2.0 - 2.0 * min(abs(x[k] - middle) * inverse, 1.0)
        slope[k] *= stretch


@jit
def _cutoffs(
    r: np.ndarray,
    start: int,
    stop: int,
    radius: float,
    kind: int,
    inner: float,
    y: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Cutoff function of a row of distances and its derivative; ``y`` is room to work in."""
    if kind == HARD:
        for k in range(start, stop):
            value[k] = 1.0 if r[k] < radius else 0.0
            slope[k] = 0.0
    elif kind == TANH or kind == TANH_UNSCALED:
        scale = 1.0 / math.tanh(1.0) ** 3 if kind == TANH else 1.0
        for k in range(start, stop):
            e = exp(-2.0 * max(1.0 - r[k] / radius, 0.0))
            t = (1.0 - e) / (1.0 + e)
            value[k] = scale * t * t * t
            slope[k] = -3.0 * scale * t * t * (1.0 - t * t) / radius
    else:
        width = radius - inner * radius
        for k in range(start, stop):
            y[k] = min(max((r[k] - inner * radius) / width, 0.0), 1.0)
        _shapes(start, stop, kind, y, value, slope)
        for k in range(start, stop):
            inside = 1.0 if r[k] < radius else 0.0
            value[k] *= inside
            slope[k] *= inside / width


@jit
def _flanks(
    r: np.ndarray,
    start: int,
    stop: int,
    tables: Triples,
    wanted: np.ndarray,
    kind: int,
    inner: float,
    y: np.ndarray,
    fc: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Rows of ``value`` and ``slope``: every wanted function of the distance, cutoff included, and its derivative."""
    for c in range(len(tables.radii)):
        _cutoffs(r, start, stop, tables.radii[c], kind, inner, y, fc[2 * c], fc[2 * c + 1])
    for s in range(len(tables.ranges)):
        if not wanted[s]:
            continue
        own, change = value[s], slope[s]
        a, b = tables.ranges[s, 2], tables.ranges[s, 3]
        if tables.ranges[s, 0] == COMPACT_RANGE:
            asymmetric = tables.ranges[s, 5] != 0.0
            _bumps(r, start, stop, a, b, int(tables.ranges[s, 4]), asymmetric, y, own, change)
        else:
            f, df = fc[2 * int(tables.ranges[s, 4])], fc[2 * int(tables.ranges[s, 4]) + 1]
            for k in range(start, stop):
                d = r[k] - b
                g = exp(-a * d * d)
                own[k] = g * f[k]
                change[k] = g * (df[k] - 2.0 * a * d * f[k])


@jit
def _powers(
    cosine: np.ndarray,
    start: int,
    stop: int,
    lambda_: float,
    zeta: float,
    y: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
) -> None:
    """2^(1 - zeta) (1 + lambda cos θ)^zeta and its derivative by the cosine; ``y`` is room to work in."""
    scale = 2.0 ** (1.0 - zeta)
    for k in range(start, stop):
        y[k] = max(1.0 + lambda_ * cosine[k], 0.0)
        slope[k] = 1.0
    if zeta == math.floor(zeta) and zeta < 65.0:
        n = int(zeta) - 1
        for k in range(start, stop):
            value[k] = y[k]
        while n:
            if n % 2:
                for k in range(start, stop):
                    slope[k] *= value[k]
            n //= 2
            if n:
                for k in range(start, stop):
                    value[k] *= value[k]
    else:
        for k in range(start, stop):
            slope[k] = y[k] ** (zeta - 1.0)
    for k in range(start, stop):
        value[k] = scale * slope[k] * y[k]
        slope[k] *= scale * zeta * lambda_


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
    radii, ranges, bumps, groups, bump = tables
    n_elements, n_ranges, n_bumps, n_functions = len(atomic_number), len(ranges), len(bumps), len(bump)
    reach = ranges[:, 1].max()
    always, third_counts = np.ones(n_ranges, np.bool_), np.zeros(n_ranges, np.bool_)
    for g in range(len(groups)):
        if groups[g, 3]:
            third_counts[groups[g, 2]] = True
    # of a neighbour of every element: the first and the last element of its partners
    partners = np.empty((n_elements, 2), np.int64)
    for e in range(n_elements):
        partners[e, 0], partners[e, 1] = n_elements, -1
        for g in range(len(groups)):
            if groups[g, 0] < 0:
                partners[e, 0], partners[e, 1] = min(partners[e, 0], e), n_elements - 1
            elif groups[g, 0] == e:
                partners[e, 0], partners[e, 1] = (
                    min(partners[e, 0], groups[g, 1]),
                    max(partners[e, 1], groups[g, 1]),
                )
    any_third = third_counts.any()
    any_angle = (bumps[:, 0] == COMPACT_BUMP).any()
    places, element = np.empty(room, np.int64), np.empty(room, np.int64)
    begin, stop = np.empty(n_elements + 1, np.int64), np.empty((n_ranges, n_elements), np.int64)
    unit, r = np.empty((3, room)), np.empty(room)
    per_angle = np.empty(room)
    cosine, angle, third, side = np.empty(room), np.empty(room), np.empty(room), np.empty((3, room))
    flank, slope = np.empty((n_ranges, room)), np.empty((n_ranges, room))
    side_flank, side_slope = np.empty((n_ranges, room)), np.empty((n_ranges, room))
    height, per_cosine = np.empty((n_bumps, room)), np.empty((n_bumps, room))
    spare, fc = np.empty(room), np.empty((2 * len(radii), room))
    product, total, total_slope = np.empty(room), np.empty(room), np.empty(room)
    by_cosine, by_r, by_third = np.empty(room), np.empty(room), np.empty(room)
    turn, along, along_third, change = np.empty(room), np.empty(room), np.empty(room), np.empty(room)
    gradient, direction = np.empty((3, room)), np.empty((3, room))
    for atom in range(low, high):
        start, end = first_pair[atoms[atom]], first_pair[atoms[atom] + 1]
        # neighbours by element, the nearest first: a short range ends early
        count = 0
        for e in range(n_elements):
            begin[e] = count
            for p in range(start, end):
                if neighbour[p] == e:
                    d = math.sqrt(vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2)
                    if d < reach:
                        places[count], r[count], element[count] = p, d, e
                        count += 1
            own = np.argsort(r[begin[e] : count], kind="mergesort")
            places[begin[e] : count] = places[begin[e] : count][own]
            r[begin[e] : count] = r[begin[e] : count][own]
            for s in range(n_ranges):
                k = begin[e]
                while k < count and r[k] < ranges[s, 1]:
                    k += 1
                stop[s, e] = k
        begin[n_elements] = count
        for k in range(count):
            for a in range(3):
                unit[a, k] = vectors[places[k], a] / r[k]
                gradient[a, k] = 0.0
                if mode == JVP:
                    direction[a, k] = motion[places[k], a]
            if mode == JVP:
                along[k] = unit[0, k] * direction[0, k] + unit[1, k] * direction[1, k] + unit[2, k] * direction[2, k]
        _flanks(r, 0, count, tables, always, kind, inner, spare, fc, flank, slope)
        out = features[atom, column : column + n_functions]
        if mode != VJP:
            out[:] = 0.0
        for j in range(count - 1):
            x, y, z, r_j, e_j = unit[0, j], unit[1, j], unit[2, j], r[j], element[j]
            if partners[e_j, 1] < partners[e_j, 0]:
                continue
            near, far = max(j + 1, begin[partners[e_j, 0]]), begin[partners[e_j, 1] + 1]
            if near >= far:
                continue
            for k in range(near, far):
                cosine[k] = x * unit[0, k] + y * unit[1, k] + z * unit[2, k]
            if any_angle:
                for k in range(near, far):
                    angle[k] = math.acos(min(max(cosine[k], -1.0), 1.0))
                    # in line: the bump is flat there and the cosine is stationary
                    sine = 1.0 - cosine[k] * cosine[k]
                    per_angle[k] = -1.0 / math.sqrt(sine) if sine > 0.0 else 0.0
            for b in range(n_bumps):
                first, second = bumps[b, 1], bumps[b, 2]
                if bumps[b, 0] == POWER:
                    _powers(cosine, near, far, first, second, spare, height[b], per_cosine[b])
                else:
                    shape_of = int(bumps[b, 3])
                    _bumps(angle, near, far, first, second, shape_of, False, spare, height[b], per_cosine[b])
                    for k in range(near, far):
                        per_cosine[b, k] *= per_angle[k]
            if any_third:
                for k in range(near, far):
                    for a in range(3):
                        side[a, k] = unit[a, k] * r[k] - unit[a, j] * r_j
                    third[k] = math.sqrt(side[0, k] ** 2 + side[1, k] ** 2 + side[2, k] ** 2)
                    for a in range(3):
                        side[a, k] /= third[k]
                _flanks(third, near, far, tables, third_counts, kind, inner, spare, fc, side_flank, side_slope)
            if mode == VJP:
                by_cosine[near:far] = 0.0
                by_r[near:far] = 0.0
                by_third[near:far] = 0.0
            elif mode == JVP:
                u, v, w = direction[0, j], direction[1, j], direction[2, j]
                for k in range(near, far):
                    here = unit[0, k] * u + unit[1, k] * v + unit[2, k] * w
                    there = x * direction[0, k] + y * direction[1, k] + z * direction[2, k]
                    turn[k] = (here - cosine[k] * along[j]) / r_j + (there - cosine[k] * along[k]) / r[k]
                    if any_third:
                        along_third[k] = (
                            side[0, k] * (direction[0, k] - u)
                            + side[1, k] * (direction[1, k] - v)
                            + side[2, k] * (direction[2, k] - w)
                        )
            by_r_j = 0.0
            for g in range(len(groups)):
                a, b, s, narrow = groups[g, 0], groups[g, 1], groups[g, 2], groups[g, 3]
                f_j, d_j = flank[s, j], slope[s, j]
                if f_j == 0.0 or (a >= 0 and a != e_j):
                    continue
                for e in range(e_j if a < 0 else b, n_elements if a < 0 else b + 1):
                    lowest, highest = max(begin[e], j + 1), stop[s, e]
                    if lowest >= highest:
                        continue
                    weight = atomic_number[e_j] * atomic_number[e] if a < 0 else 1.0
                    if narrow:
                        for k in range(lowest, highest):
                            product[k] = weight * flank[s, k] * side_flank[s, k]
                    else:
                        for k in range(lowest, highest):
                            product[k] = weight * flank[s, k]
                    if mode == VALUES:
                        for f in range(groups[g, 4], groups[g, 5]):
                            bend = height[bump[f]]
                            value = 0.0
                            for k in range(lowest, highest):
                                value += product[k] * bend[k]
                            out[f] += f_j * value
                    elif mode == VJP:
                        total[lowest:highest] = 0.0
                        total_slope[lowest:highest] = 0.0
                        for f in range(groups[g, 4], groups[g, 5]):
                            share, bend, change_of = out[f], height[bump[f]], per_cosine[bump[f]]
                            for k in range(lowest, highest):
                                total[k] += share * bend[k]
                                total_slope[k] += share * change_of[k]
                        value = 0.0
                        for k in range(lowest, highest):
                            value += product[k] * total[k]
                            by_cosine[k] += f_j * product[k] * total_slope[k]
                        by_r_j += d_j * value
                        if narrow:
                            for k in range(lowest, highest):
                                common = weight * f_j * total[k]
                                by_r[k] += common * slope[s, k] * side_flank[s, k]
                                by_third[k] += common * flank[s, k] * side_slope[s, k]
                        else:
                            for k in range(lowest, highest):
                                by_r[k] += weight * f_j * total[k] * slope[s, k]
                    else:
                        for k in range(lowest, highest):
                            beside = side_flank[s, k] if narrow else 1.0
                            change[k] = d_j * along[j] * product[k] + weight * f_j * slope[s, k] * along[k] * beside
                            if narrow:
                                change[k] += weight * f_j * flank[s, k] * side_slope[s, k] * along_third[k]
                        for f in range(groups[g, 4], groups[g, 5]):
                            bend, change_of = height[bump[f]], per_cosine[bump[f]]
                            value = 0.0
                            for k in range(lowest, highest):
                                value += bend[k] * change[k] + change_of[k] * f_j * product[k] * turn[k]
                            out[f] += value
            if mode == VJP:
                g_x = g_y = g_z = 0.0
                for k in range(near, far):
                    c, d = by_cosine[k] / r_j, by_cosine[k] / r[k]
                    g_x += c * (unit[0, k] - cosine[k] * x)
                    g_y += c * (unit[1, k] - cosine[k] * y)
                    g_z += c * (unit[2, k] - cosine[k] * z)
                    lift = by_r[k] - d * cosine[k]
                    gradient[0, k] += d * x + lift * unit[0, k]
                    gradient[1, k] += d * y + lift * unit[1, k]
                    gradient[2, k] += d * z + lift * unit[2, k]
                if any_third:
                    for k in range(near, far):
                        g_x -= by_third[k] * side[0, k]
                        g_y -= by_third[k] * side[1, k]
                        g_z -= by_third[k] * side[2, k]
                        for a in range(3):
                            gradient[a, k] += by_third[k] * side[a, k]
                gradient[0, j] += g_x + by_r_j * x
                gradient[1, j] += g_y + by_r_j * y
                gradient[2, j] += g_z + by_r_j * z
        if mode == VJP:
            for k in range(count):
                for a in range(3):
                    motion[places[k], a] += gradient[a, k]
