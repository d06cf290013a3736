"""Processor kernel for compact functions of the angle: sums over every pair of neighbours.

Such functions come by the hundred and share few distance ranges and few bumps of the angle. Both are computed once per
neighbour and per pair; what is left for a function is one product, and the loop over the second neighbour is innermost.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from molml.energy.cutoffs import EXPONENTIAL, POLYNOMIAL, POLYNOMIAL_3, POLYNOMIAL_7, compact_function, jit

VALUES, VJP, JVP = 0, 1, 2  # what the kernels of pairs of neighbours are asked for


class CompactAngles(NamedTuple):
    """Compact functions of the angle of one central element; functions of one group stand together."""

    ranges: np.ndarray  # (n_ranges, 4): low, high, shape, asymmetric; of distances, Å
    bumps: np.ndarray  # (n_bumps, 3): low, high, shape; of angles, radians
    groups: np.ndarray  # (n_groups, 6): elements a <= b (-1: any), range, 1 if the third side counts, first, last + 1
    bump: np.ndarray  # (n_functions,) index into the bumps


@jit
def _fill(
    x: np.ndarray, start: int, stop: int, row: np.ndarray, asymmetric: bool, value: np.ndarray, slope: np.ndarray
) -> None:
    """Compact function of a row of numbers and its derivative; plain arithmetic where the compiler can vectorise it."""
    low, high, kind = row[0], row[1], int(row[2])
    middle, inverse = 0.5 * (low + high), 2.0 / (high - low)
    if asymmetric or kind == EXPONENTIAL:
        for k in range(start, stop):
            value[k], slope[k] = compact_function(x[k], low, high, kind, asymmetric)
    elif kind == POLYNOMIAL:
        for k in range(start, stop):
            d = (x[k] - middle) * inverse
            y = min(abs(d), 1.0)
            z = 1.0 - y
            value[k] = z * z * z * (1.0 + y * (3.0 + 6.0 * y))
            slope[k] = -30.0 * y * y * z * z * (inverse if d > 0.0 else -inverse)
    elif kind == POLYNOMIAL_3:
        for k in range(start, stop):
            d = (x[k] - middle) * inverse
            y = min(abs(d), 1.0)
            z = 1.0 - y
            value[k] = z * z * (1.0 + 2.0 * y)
            slope[k] = -6.0 * y * z * (inverse if d > 0.0 else -inverse)
    elif kind == POLYNOMIAL_7:
        for k in range(start, stop):
            d = (x[k] - middle) * inverse
            y = min(abs(d), 1.0)
            z = 1.0 - y
            value[k] = (z * z) * (z * z) * (1.0 + y * (4.0 + y * (10.0 + 20.0 * y)))
            slope[k] = -140.0 * (y * z) * (y * z) * (y * z) * (inverse if d > 0.0 else -inverse)
    else:
        for k in range(start, stop):
            d = (x[k] - middle) * inverse
            y = min(abs(d), 1.0)
            z = 1.0 - y
            value[k] = (z * z) * (z * z) * z * (1.0 + y * (5.0 + y * (15.0 + y * (35.0 + 70.0 * y))))
            slope[k] = -630.0 * (y * z) * (y * z) * (y * z) * (y * z) * (inverse if d > 0.0 else -inverse)


@jit
def compact_triples(
    low: int,
    high: int,
    mode: int,
    atoms: np.ndarray,
    first_pair: np.ndarray,
    vectors: np.ndarray,
    neighbour: np.ndarray,
    room: int,
    tables: CompactAngles,
    atomic_number: np.ndarray,
    column: int,
    features: np.ndarray,
    motion: np.ndarray,
) -> None:
    """Compact functions over every pair of neighbours of ``atoms``; they are the columns from ``column`` on.

    VALUES writes them to ``features``; VJP adds d(sum features · G) / d vectors to ``motion``; JVP writes the change of
    G when the vectors move along ``motion`` to ``features``. The pairs of atom i are ``first_pair[i]`` and so on, at
    most ``room`` of them; ``neighbour`` holds the index of the second atom's element.
    """
    ranges, bumps, groups, bump = tables
    n_elements, n_ranges, n_bumps, n_functions = len(atomic_number), len(ranges), len(bumps), len(bump)
    reach = ranges[:, 1].max()
    third_counts = np.zeros(n_ranges, np.bool_)
    for g in range(len(groups)):
        if groups[g, 3]:
            third_counts[groups[g, 2]] = True
    any_third = third_counts.any()
    places, element = np.empty(room, np.int64), np.empty(room, np.int64)
    begin, stop = np.empty(n_elements + 1, np.int64), np.empty((n_ranges, n_elements), np.int64)
    unit, r = np.empty((3, room)), np.empty(room)
    cosine, angle, third, side = np.empty(room), np.empty(room), np.empty(room), np.empty((3, room))
    flank, slope = np.empty((n_ranges, room)), np.empty((n_ranges, room))
    side_flank, side_slope = np.empty((n_ranges, room)), np.empty((n_ranges, room))
    height, per_cosine = np.empty((n_bumps, room)), np.empty((n_bumps, room))
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
        for s in range(n_ranges):
            _fill(r, 0, count, ranges[s], ranges[s, 3] != 0.0, flank[s], slope[s])
        out = features[atom, column : column + n_functions]
        if mode != VJP:
            out[:] = 0.0
        for j in range(count - 1):
            x, y, z, r_j, e_j = unit[0, j], unit[1, j], unit[2, j], r[j], element[j]
            for k in range(j + 1, count):
                cosine[k] = x * unit[0, k] + y * unit[1, k] + z * unit[2, k]
                angle[k] = math.acos(min(max(cosine[k], -1.0), 1.0))
            for b in range(n_bumps):
                _fill(angle, j + 1, count, bumps[b], False, height[b], per_cosine[b])
            if mode != VALUES:
                for k in range(j + 1, count):
                    # in line: the bump is flat there and the cosine is stationary
                    sine = 1.0 - cosine[k] * cosine[k]
                    total[k] = -1.0 / math.sqrt(sine) if sine > 0.0 else 0.0
                for b in range(n_bumps):
                    for k in range(j + 1, count):
                        per_cosine[b, k] *= total[k]
            if any_third:
                for k in range(j + 1, count):
                    for a in range(3):
                        side[a, k] = unit[a, k] * r[k] - unit[a, j] * r_j
                    third[k] = math.sqrt(side[0, k] ** 2 + side[1, k] ** 2 + side[2, k] ** 2)
                    for a in range(3):
                        side[a, k] /= third[k]
                for s in range(n_ranges):
                    if third_counts[s]:
                        _fill(third, j + 1, count, ranges[s], ranges[s, 3] != 0.0, side_flank[s], side_slope[s])
            if mode == VJP:
                by_cosine[j + 1 : count] = 0.0
                by_r[j + 1 : count] = 0.0
                by_third[j + 1 : count] = 0.0
            elif mode == JVP:
                u, v, w = direction[0, j], direction[1, j], direction[2, j]
                for k in range(j + 1, count):
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
                            shape = height[bump[f]]
                            value = 0.0
                            for k in range(lowest, highest):
                                value += product[k] * shape[k]
                            out[f] += f_j * value
                    elif mode == VJP:
                        total[lowest:highest] = 0.0
                        total_slope[lowest:highest] = 0.0
                        for f in range(groups[g, 4], groups[g, 5]):
                            share, shape, change_of = out[f], height[bump[f]], per_cosine[bump[f]]
                            for k in range(lowest, highest):
                                total[k] += share * shape[k]
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
                            shape, change_of = height[bump[f]], per_cosine[bump[f]]
                            value = 0.0
                            for k in range(lowest, highest):
                                value += shape[k] * change[k] + change_of[k] * f_j * product[k] * turn[k]
                            out[f] += value
            if mode == VJP:
                g_x = g_y = g_z = 0.0
                for k in range(j + 1, count):
                    c, d = by_cosine[k] / r_j, by_cosine[k] / r[k]
                    g_x += c * (unit[0, k] - cosine[k] * x)
                    g_y += c * (unit[1, k] - cosine[k] * y)
                    g_z += c * (unit[2, k] - cosine[k] * z)
                    lift = by_r[k] - d * cosine[k]
                    gradient[0, k] += d * x + lift * unit[0, k]
                    gradient[1, k] += d * y + lift * unit[1, k]
                    gradient[2, k] += d * z + lift * unit[2, k]
                if any_third:
                    for k in range(j + 1, count):
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
