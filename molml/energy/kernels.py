"""Fused processor kernels for symmetry functions: values, and products with their Jacobian from either side.

The reference is :func:`molml.energy.features.reference_features`; here the same definition is computed in three steps,

    pair vectors --moments--> A --invariants--> B --combination--> features,

each with its vector-Jacobian product (forces) and its Jacobian-vector product (training on forces). dG/dR is stored
only where asked for (:meth:`FeatureKernel.derivatives`). Neighbours are handled element by element, padded to whole
vector registers, the loop over neighbours innermost; invariants are computed for LANES atoms at a time, the loop over
atoms innermost.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor

from molml.energy.cutoffs import borrowing_jit, compact_function, jit
from molml.energy.features import (
    COMPACT,
    COSINE,
    GAUSSIAN,
    Basis,
    CentreTables,
    Invariants,
    SymmetryFunctions,
    element_index,
)
from molml.energy.lanes import LANES, load, rows, spread, store, transpose
from molml.energy.triples import JVP, VALUES, VJP, cutoffs_of, gaussians_of, sum_triples

_THREAD_ATOMS = 64  # fewer atoms than this are not worth waking a second thread


class Pairs(NamedTuple):
    """The pairs of a batch as the kernels want them, sorted by the first atom."""

    start: np.ndarray  # (n_atoms + 1,) first pair of every atom
    first: np.ndarray  # (n_pairs,)
    second: np.ndarray  # (n_pairs,)
    vectors: np.ndarray  # (n_pairs, 3), Å
    neighbour: np.ndarray  # (n_pairs,) index of the neighbour's element
    longest: int  # most pairs of any atom
    n_elements: int


class _Work(NamedTuple):
    """What is known of one atom's neighbours, room for as many as any atom has."""

    order: np.ndarray  # (room,) the pair at each place, or -1
    group: np.ndarray  # (n_elements + 1,) places of element e: group[e] ... group[e + 1]
    counts: np.ndarray  # (n_elements,) neighbours of element e: its first places
    geometry: np.ndarray  # (4, room): unit vector, distance
    fc: np.ndarray  # (2 n_radii, room): cutoff function of every radius, then its derivative
    shell: np.ndarray  # (n_radials, room): radial functions times the cutoff function
    slope: np.ndarray  # (n_radials, room): their derivatives
    trig: np.ndarray  # (2 degree + 2, room): cos(m φ) and sin(m φ) times sin^m θ in rows 2 m and 2 m + 1
    legendre: np.ndarray  # (n, room): d^m P_l / dz^m in row l (l + 1) / 2 + m


@jit
def _workspace(pairs: Pairs, basis: Basis) -> _Work:
    room, degree, n_radials = _room(pairs), basis.degree, len(basis.radial_form)
    return _Work(
        np.empty(room, np.int64),
        np.empty(pairs.n_elements + 1, np.int64),
        np.empty(pairs.n_elements, np.int64),
        rows(4, room),
        rows(2 * len(basis.radii), room),
        rows(n_radials, room),
        rows(n_radials, room),
        rows(2 * degree + 2, room),
        rows((degree + 1) * (degree + 2) // 2, room),
    )


@borrowing_jit
def _room(pairs: Pairs) -> int:
    """Places for the neighbours of any atom, every element's padded to whole multiples of LANES."""
    return (pairs.longest + pairs.n_elements * LANES) // LANES * LANES


@borrowing_jit
def _prepare(i: int, pairs: Pairs, basis: Basis, work: _Work) -> int:
    """Everything in ``work`` for atom ``i``. Returns the number of places in use."""
    length = _sort(i, pairs, basis.cutoff, work.order, work.group, work.counts, work.geometry)
    _shells(length, basis, work.geometry, work.fc, work.shell, work.slope)
    _angular(length, basis.degree, work.geometry, work.trig, work.legendre)
    return length


@borrowing_jit
def _sort(
    i: int,
    pairs: Pairs,
    cutoff: float,
    order: np.ndarray,
    group: np.ndarray,
    counts: np.ndarray,
    geometry: np.ndarray,
) -> int:
    """Sort an atom's neighbours by element into groups, each padded to whole multiples of LANES."""
    length = 0
    for e in range(pairs.n_elements):
        group[e] = length
        for p in range(pairs.start[i], pairs.start[i + 1]):
            if pairs.neighbour[p] == e:
                x, y, z = pairs.vectors[p, 0], pairs.vectors[p, 1], pairs.vectors[p, 2]
                r = math.sqrt(x * x + y * y + z * z)
                if r < cutoff:
                    order[length] = p
                    geometry[0, length] = x / r
                    geometry[1, length] = y / r
                    geometry[2, length] = z / r
                    geometry[3, length] = r
                    length += 1
        counts[e] = length - group[e]
        while (length - group[e]) % LANES:
            # places that hold no neighbour sit at the cutoff, where every function and its slope vanish
            order[length] = -1
            geometry[0, length] = 0.0
            geometry[1, length] = 0.0
            geometry[2, length] = 1.0
            geometry[3, length] = cutoff
            length += 1
    group[pairs.n_elements] = length
    return length


@borrowing_jit
def _shells(
    length: int, basis: Basis, geometry: np.ndarray, fc: np.ndarray, shell: np.ndarray, slope: np.ndarray
) -> None:
    """Radial functions times the cutoff function, and their derivatives."""
    form, parameters, r = basis.radial_form, basis.radial_parameters, geometry[3]
    for c in range(len(basis.radii)):
        cutoffs_of(geometry, 3, length, basis.radii[c], basis.cutoff_function, basis.inner, fc, 2 * c)
    for n in range(len(form)):
        a, b = parameters[n, 0], parameters[n, 1]
        if form[n] == GAUSSIAN:
            gaussians_of(geometry, 3, length, a, b, fc, 2 * basis.radial_radius[n], shell, n, slope, n)
        elif form[n] == COSINE:
            f, df = fc[2 * basis.radial_radius[n]], fc[2 * basis.radial_radius[n] + 1]
            for k in range(length):
                value, sine = math.cos(a * r[k]), math.sin(a * r[k])
                shell[n, k] = value * f[k]
                slope[n, k] = value * df[k] - a * sine * f[k]
        elif form[n] == COMPACT:
            kind, asymmetric = int(parameters[n, 2]), parameters[n, 3] != 0.0
            for k in range(length):
                shell[n, k], slope[n, k] = compact_function(r[k], a, b, kind, asymmetric)
        else:
            i, j = int(a), int(b)
            for k in range(length):
                shell[n, k] = shell[i, k] * shell[j, k]
                slope[n, k] = slope[i, k] * shell[j, k] + shell[i, k] * slope[j, k]


@borrowing_jit
def _angular(length: int, degree: int, geometry: np.ndarray, trig: np.ndarray, legendre: np.ndarray) -> None:
    """Factors of the harmonics: the azimuthal ones and those of z."""
    x, y, z = geometry[0], geometry[1], geometry[2]
    for k in range(length):
        trig[0, k] = 1.0
        trig[1, k] = 0.0
        legendre[0, k] = 1.0
    double_factorial = 1.0
    for m in range(degree + 1):
        if m:
            double_factorial *= 2 * m - 1
            for k in range(length):
                trig[2 * m, k] = x[k] * trig[2 * m - 2, k] - y[k] * trig[2 * m - 1, k]
                trig[2 * m + 1, k] = x[k] * trig[2 * m - 1, k] + y[k] * trig[2 * m - 2, k]
                legendre[m * (m + 1) // 2 + m, k] = double_factorial
        if m < degree:
            row, upper = m * (m + 1) // 2 + m, (m + 1) * (m + 2) // 2 + m
            for k in range(length):
                legendre[upper, k] = (2 * m + 1) * z[k] * legendre[row, k]
        for l in range(m + 2, degree + 1):  # noqa: E741
            row, below, lowest = l * (l + 1) // 2 + m, (l - 1) * l // 2 + m, (l - 2) * (l - 1) // 2 + m
            c1, c2 = (2.0 * l - 1.0) / (l - m), (l + m - 1.0) / (l - m)
            for k in range(length):
                legendre[row, k] = c1 * z[k] * legendre[below, k] - c2 * legendre[lowest, k]


@borrowing_jit
def _harmonics(length: int, basis: Basis, work: _Work, harmonics: np.ndarray) -> None:
    """Harmonics of every place, shape ((degree + 1)², length)."""
    trig, legendre = work.trig, work.legendre
    for l in range(basis.degree + 1):  # noqa: E741
        for m in range(l + 1):
            q, c = legendre[l * (l + 1) // 2 + m], basis.normalisation[l, m]
            up, down = harmonics[l * l + l + m], harmonics[l * l + l - m]
            for k in range(length):
                up[k] = c * q[k] * trig[2 * m, k]
            if m:
                for k in range(length):
                    down[k] = c * q[k] * trig[2 * m + 1, k]


@borrowing_jit
def _sum_scalars(pairs: Pairs, basis: Basis, group: np.ndarray, shell: np.ndarray, out: np.ndarray) -> None:
    """Add the sums of ``shell`` over the neighbours to the scalar columns of ``out``."""
    for s in range(len(basis.scalar_radial)):
        values = shell[basis.scalar_radial[s]]
        for e in range(pairs.n_elements):
            if basis.scalar_weight[s, e] != 0.0:
                total = 0.0
                for k in range(group[e], group[e + 1]):
                    total += values[k]
                out[s] += basis.scalar_weight[s, e] * total


@jit
def _moments(low: int, high: int, pairs: Pairs, basis: Basis, moments: np.ndarray) -> None:
    work = _workspace(pairs, basis)
    group, shell = work.group, work.shell
    n_scalars, width, room = len(basis.scalar_radial), (basis.degree + 1) ** 2, len(work.order)
    wide = (width + LANES - 1) // LANES * LANES
    harmonics, turned, sums = rows(wide, room), rows(room, wide), rows(2, wide)
    harmonics[:] = 0.0
    for i in range(low, high):
        out = moments[i]
        out[:] = 0.0
        length = _prepare(i, pairs, basis, work)
        _harmonics(length, basis, work, harmonics)
        # a sum over neighbours for LANES harmonics at a time: few neighbours do not fill the lanes
        for k in range(0, length, LANES):
            for lm in range(0, wide, LANES):
                transpose(harmonics, lm, k, turned, k, lm)
        _sum_scalars(pairs, basis, group, shell, out)
        for e in range(pairs.n_elements):
            end = group[e] + work.counts[e]
            if work.counts[e]:
                _sum_tensors(e, group[e], end, basis, shell, turned, sums, out[n_scalars:])


@borrowing_jit
def _sum_tensors(
    e: int,
    start: int,
    end: int,
    basis: Basis,
    shell: np.ndarray,
    harmonics: np.ndarray,
    sums: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add the sums over the neighbours of one element to the tensor columns."""
    width, wide, radial, n = (basis.degree + 1) ** 2, sums.shape[1], basis.tensor_radial, len(basis.tensor_radial)
    for s in range(n):
        w = basis.tensor_weight[s, e]
        if w == 0.0:
            continue
        for lm in range(0, wide, 4 * LANES):
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            # the number of vectors is no less than one; the rest is read again in vain
            b, c, d = (
                min(lm + LANES, wide - LANES),
                min(lm + 2 * LANES, wide - LANES),
                min(lm + 3 * LANES, wide - LANES),
            )
            for k in range(start, end):
                value = spread(shell[radial[s], k])
                one += value * load(harmonics, k, lm)
                two += value * load(harmonics, k, b)
                three += value * load(harmonics, k, c)
                four += value * load(harmonics, k, d)
            store(sums, 0, lm, one)
            store(sums, 0, b, two)
            store(sums, 0, c, three)
            store(sums, 0, d, four)
        for lm in range(width):
            out[s * width + lm] += w * sums[0, lm]


@borrowing_jit
def _spread_weights(
    n: int,
    start: int,
    end: int,
    width: int,
    radials: np.ndarray,
    weights: np.ndarray,
    shell: np.ndarray,
    slope: np.ndarray,
    aside: np.ndarray,
    along: np.ndarray,
) -> None:
    """What a harmonic and its radial function's slope are multiplied by, for the neighbours of one element."""
    # four harmonics at once: the radial functions are loaded once for all of them; up to three rows are waste
    for lm in range(0, width, 4):
        for k in range(start, end, LANES):
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            one_2, two_2, three_2, four_2 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for s in range(n):
                value, change = load(shell, radials[s], k), load(slope, radials[s], k)
                u, v, w, x = weights[s, lm], weights[s, lm + 1], weights[s, lm + 2], weights[s, lm + 3]
                one += u * value
                two += v * value
                three += w * value
                four += x * value
                one_2 += u * change
                two_2 += v * change
                three_2 += w * change
                four_2 += x * change
            store(aside, lm, k, one)
            store(aside, lm + 1, k, two)
            store(aside, lm + 2, k, three)
            store(aside, lm + 3, k, four)
            store(along, lm, k, one_2)
            store(along, lm + 1, k, two_2)
            store(along, lm + 2, k, three_2)
            store(along, lm + 3, k, four_2)


@jit
def _moments_vjp(low: int, high: int, pairs: Pairs, basis: Basis, adjoint: np.ndarray, gradient: np.ndarray) -> None:
    """gradient[p] = d(sum adjoint · A) / d vectors[p]."""
    work = _workspace(pairs, basis)
    order, group, geometry, shell, slope = work.order, work.group, work.geometry, work.shell, work.slope
    trig, legendre = work.trig, work.legendre
    n_scalars, width, room = len(basis.scalar_radial), (basis.degree + 1) ** 2, len(order)
    aside, along = rows(width + 3, room), rows(width + 3, room)
    tangent, radial = np.empty((3, room)), np.empty(room)
    n_tensors = len(basis.tensor_radial)
    radials, weights = np.empty(n_tensors, np.int64), np.zeros((n_tensors, width + 3))
    for i in range(low, high):
        bar = adjoint[i]
        length = _prepare(i, pairs, basis, work)
        gradient[pairs.start[i] : pairs.start[i + 1]] = 0.0
        tangent[:, :length] = 0.0
        radial[:length] = 0.0
        for e in range(pairs.n_elements):
            a, b = group[e], group[e + 1]
            if a == b:
                continue
            for s in range(n_scalars):
                if basis.scalar_weight[s, e] != 0.0:
                    w, n = basis.scalar_weight[s, e] * bar[s], basis.scalar_radial[s]
                    for k in range(a, b):
                        radial[k] += w * slope[n, k]
            n = 0
            for s in range(len(basis.tensor_radial)):
                if basis.tensor_weight[s, e] != 0.0:
                    radials[n] = basis.tensor_radial[s]
                    for lm in range(width):
                        weights[n, lm] = basis.tensor_weight[s, e] * bar[n_scalars + s * width + lm]
                    n += 1
            _spread_weights(n, a, b, width, radials, weights, shell, slope, aside, along)
        for l in range(basis.degree + 1):  # noqa: E741
            for m in range(l + 1):
                c, centre, row = basis.normalisation[l, m], l * l + l, l * (l + 1) // 2 + m
                q = legendre[row]
                if m == 0:
                    for k in range(length):
                        radial[k] += along[centre, k] * q[k]
                    if l:
                        for k in range(length):
                            tangent[2, k] += aside[centre, k] * legendre[row + 1, k]
                else:
                    for k in range(length):
                        cosine, sine = trig[2 * m, k], trig[2 * m + 1, k]
                        before, behind = trig[2 * m - 2, k], trig[2 * m - 1, k]
                        up, down = aside[centre + m, k], aside[centre - m, k]
                        scaled = c * q[k]
                        radial[k] += scaled * (along[centre + m, k] * cosine + along[centre - m, k] * sine)
                        tangent[0, k] += scaled * m * (up * before + down * behind)
                        tangent[1, k] += scaled * m * (down * before - up * behind)
                    if m < l:
                        for k in range(length):
                            up, down = (
                                aside[centre + m, k] * trig[2 * m, k],
                                aside[centre - m, k] * trig[2 * m + 1, k],
                            )
                            tangent[2, k] += c * legendre[row + 1, k] * (up + down)
        for k in range(length):
            p = order[k]
            if p >= 0:
                x, y, z, r = geometry[0, k], geometry[1, k], geometry[2, k], geometry[3, k]
                inward = x * tangent[0, k] + y * tangent[1, k] + z * tangent[2, k]
                lift = radial[k] - inward / r
                gradient[p, 0] = tangent[0, k] / r + lift * x
                gradient[p, 1] = tangent[1, k] / r + lift * y
                gradient[p, 2] = tangent[2, k] / r + lift * z


@borrowing_jit
def _harmonic_changes(
    length: int, basis: Basis, work: _Work, turn: np.ndarray, harmonics: np.ndarray, change: np.ndarray
) -> None:
    """Harmonics, and their change when the unit vector changes by ``turn`` (3, length), a tangent vector."""
    trig, legendre = work.trig, work.legendre
    for l in range(basis.degree + 1):  # noqa: E741
        for m in range(l + 1):
            c, centre, row = basis.normalisation[l, m], l * l + l, l * (l + 1) // 2 + m
            for k in range(length):
                q = c * legendre[row, k]
                dq = c * legendre[row + 1, k] * turn[2, k] if m < l else 0.0
                cosine, sine = trig[2 * m, k], trig[2 * m + 1, k]
                harmonics[centre + m, k] = q * cosine
                if m == 0:
                    change[centre, k] = dq
                else:
                    before, behind = trig[2 * m - 2, k], trig[2 * m - 1, k]
                    harmonics[centre - m, k] = q * sine
                    change[centre + m, k] = dq * cosine + q * m * (before * turn[0, k] - behind * turn[1, k])
                    change[centre - m, k] = dq * sine + q * m * (behind * turn[0, k] + before * turn[1, k])


@jit
def _moments_jvp(low: int, high: int, pairs: Pairs, basis: Basis, directions: np.ndarray, change: np.ndarray) -> None:
    """change[i] = derivative of A[i] when every pair vector moves along ``directions``."""
    work = _workspace(pairs, basis)
    order, group, geometry, shell, slope = work.order, work.group, work.geometry, work.shell, work.slope
    n_scalars, width, room = len(basis.scalar_radial), (basis.degree + 1) ** 2, len(order)
    harmonics, turned = np.empty((width, room)), np.empty((width, room))
    turn, stretch = np.empty((3, room)), np.empty(room)
    for i in range(low, high):
        out = change[i]
        out[:] = 0.0
        length = _prepare(i, pairs, basis, work)
        for k in range(length):
            p = order[k]
            if p >= 0:
                x, y, z, r = geometry[0, k], geometry[1, k], geometry[2, k], geometry[3, k]
                along = x * directions[p, 0] + y * directions[p, 1] + z * directions[p, 2]
                stretch[k] = along
                turn[0, k] = (directions[p, 0] - along * x) / r
                turn[1, k] = (directions[p, 1] - along * y) / r
                turn[2, k] = (directions[p, 2] - along * z) / r
            else:
                stretch[k] = 0.0
                turn[0, k] = turn[1, k] = turn[2, k] = 0.0
        _harmonic_changes(length, basis, work, turn, harmonics, turned)
        for n in range(len(slope)):
            for k in range(length):
                slope[n, k] *= stretch[k]
        _sum_scalars(pairs, basis, group, slope, out)
        for e in range(pairs.n_elements):
            a, b = group[e], group[e + 1]
            if a == b:
                continue
            for s in range(len(basis.tensor_radial)):
                w, n, base = basis.tensor_weight[s, e], basis.tensor_radial[s], n_scalars + s * width
                if w != 0.0:
                    for lm in range(width):
                        total = 0.0
                        for k in range(a, b):
                            total += slope[n, k] * harmonics[lm, k] + shell[n, k] * turned[lm, k]
                        out[base + lm] += w * total


@borrowing_jit
def _gather(moments: np.ndarray, atoms: np.ndarray, first: int, count: int, block: np.ndarray) -> None:
    """block[column, lane] of up to LANES atoms; unused lanes are zero."""
    for lane in range(LANES):
        if lane < count:
            row = moments[atoms[first + lane]]
            for c in range(block.shape[0]):
                block[c, lane] = row[c]
        else:
            for c in range(block.shape[0]):
                block[c, lane] = 0.0


@jit
def _invariants(
    low: int, high: int, atoms: np.ndarray, moments: np.ndarray, invariants: Invariants, out: np.ndarray
) -> None:
    """out[k] = B of atoms[k], the invariants made of moments in its first columns."""
    linear, quadratic, cubic_start, cubic_columns, cubic_value = invariants
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block = rows(moments.shape[1], LANES)
    sums = rows(n_quadratic + n_cubic, LANES)
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        for f in range(n_linear):
            for lane in range(count):
                out[first + lane, f] = block[linear[f], lane]
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            total = spread(0.0)
            for t in range(n):
                total += load(block, a + t, 0) * load(block, b + t, 0)
            store(sums, f, 0, total)
        for f in range(n_cubic):
            total = spread(0.0)
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                total += spread(v) * load(block, a, 0) * load(block, b, 0) * load(block, c, 0)
            store(sums, n_quadratic + f, 0, total)
        for lane in range(count):
            for f in range(n_quadratic + n_cubic):
                out[first + lane, n_linear + f] = sums[f, lane]


@jit
def _invariants_vjp(
    low: int,
    high: int,
    atoms: np.ndarray,
    moments: np.ndarray,
    invariants: Invariants,
    adjoint: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[atom] = d(sum adjoint · B) / d A[atom]."""
    linear, quadratic, cubic_start, cubic_columns, cubic_value = invariants
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block, bar = rows(moments.shape[1], LANES), rows(moments.shape[1], LANES)
    weights = rows(adjoint.shape[1], LANES)
    each = np.arange(adjoint.shape[0])
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        _gather(adjoint, each, first, count, weights)
        bar[:] = 0.0
        for f in range(n_linear):
            a = linear[f]
            store(bar, a, 0, load(bar, a, 0) + load(weights, f, 0))
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            w = load(weights, n_linear + f, 0)
            for t in range(n):
                x, y = load(block, a + t, 0), load(block, b + t, 0)
                # one after the other: a and b may be the same row
                store(bar, a + t, 0, load(bar, a + t, 0) + w * y)
                store(bar, b + t, 0, load(bar, b + t, 0) + w * x)
        for f in range(n_cubic):
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                w = spread(v) * load(weights, n_linear + n_quadratic + f, 0)
                x, y, z = load(block, a, 0), load(block, b, 0), load(block, c, 0)
                store(bar, a, 0, load(bar, a, 0) + w * y * z)
                store(bar, b, 0, load(bar, b, 0) + w * x * z)
                store(bar, c, 0, load(bar, c, 0) + w * x * y)
        for lane in range(count):
            row = out[atoms[first + lane]]
            for c in range(bar.shape[0]):
                row[c] = bar[c, lane]


@jit
def _invariants_jvp(
    low: int,
    high: int,
    atoms: np.ndarray,
    moments: np.ndarray,
    invariants: Invariants,
    change: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[k] = derivative of B of atoms[k] when A moves along ``change``."""
    linear, quadratic, cubic_start, cubic_columns, cubic_value = invariants
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block, moved = rows(moments.shape[1], LANES), rows(moments.shape[1], LANES)
    sums = rows(n_quadratic + n_cubic, LANES)
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        _gather(change, atoms, first, count, moved)
        for f in range(n_linear):
            for lane in range(count):
                out[first + lane, f] = moved[linear[f], lane]
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            total = spread(0.0)
            for t in range(n):
                total += load(block, a + t, 0) * load(moved, b + t, 0) + load(moved, a + t, 0) * load(block, b + t, 0)
            store(sums, f, 0, total)
        for f in range(n_cubic):
            total = spread(0.0)
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                x, y, z = load(block, a, 0), load(block, b, 0), load(block, c, 0)
                u, d, e = load(moved, a, 0), load(moved, b, 0), load(moved, c, 0)
                total += spread(v) * (u * y * z + x * d * z + x * y * e)
            store(sums, n_quadratic + f, 0, total)
        for lane in range(count):
            for f in range(n_quadratic + n_cubic):
                out[first + lane, n_linear + f] = sums[f, lane]


class Terms(NamedTuple):
    """Invariants as sums of products of three moments, the last of which may be a one, and what they depend on."""

    columns: np.ndarray  # (n_terms, 3) moments; n_moments stands for one
    slots: np.ndarray  # (n_terms, 3) where the derivative by each of them is summed up; the last slot is for the ones
    value: np.ndarray  # (n_terms,)
    start: np.ndarray  # (n_invariants + 1,) slots of invariant f: start[f] ... start[f + 1]
    column: np.ndarray  # (n_slots,) moment that a slot is the derivative by


@jit
def _terms(invariants: Invariants, n_moments: int) -> Terms:
    linear, quadratic, cubic_start, cubic_columns, cubic_value = invariants
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    n_invariants, n = n_linear + n_quadratic + n_cubic, n_linear + len(cubic_value)
    for f in range(n_quadratic):
        n += quadratic[f, 2]
    columns, slots, value = np.full((n, 3), n_moments), np.empty((n, 3), np.int64), np.ones(n)
    start, column = np.zeros(n_invariants + 1, np.int64), np.empty(3 * n, np.int64)
    where, t, n_slots = np.empty(n_moments + 1, np.int64), 0, 0
    for f in range(n_invariants):
        first, n_own = t, 1
        if n_linear <= f < n_linear + n_quadratic:
            n_own = quadratic[f - n_linear, 2]
        elif f >= n_linear:
            n_own = cubic_start[f - n_linear - n_quadratic + 1] - cubic_start[f - n_linear - n_quadratic]
        for own in range(n_own):
            if f < n_linear:
                columns[t, 0] = linear[f]
            elif f < n_linear + n_quadratic:
                columns[t, 0], columns[t, 1] = quadratic[f - n_linear, 0] + own, quadratic[f - n_linear, 1] + own
            else:
                place = cubic_start[f - n_linear - n_quadratic] + own
                columns[t] = cubic_columns[place]
                value[t] = cubic_value[place]
            t += 1
        for own in range(first, t):
            for c in columns[own]:
                where[c] = -1
        for own in range(first, t):
            for axis in range(3):
                c = columns[own, axis]
                if c < n_moments and where[c] < 0:
                    where[c] = n_slots
                    column[n_slots] = c
                    n_slots += 1
                slots[own, axis] = where[c]
        start[f + 1] = n_slots
    return Terms(columns, np.where(slots < 0, n_slots, slots), value, start, column[:n_slots])


class _Slopes(NamedTuple):
    """Room for the derivatives of the invariants of LANES atoms by the moments, and of one atom's by the vectors."""

    block: np.ndarray  # (n_moments + 1, LANES): moments of the atoms, and ones
    weights: np.ndarray  # (n_slots + 1, LANES): dB / dA
    turn: np.ndarray  # (3, room)
    harmonics: np.ndarray  # (width, room)
    turned: np.ndarray  # (3, width, room)
    moments: np.ndarray  # (n_moments, 3 room): dA / d vector, axis-major
    alone: np.ndarray  # (n_slots,): dB / dA of one atom
    few: np.ndarray  # (LANES, 4 LANES): some derivatives of some invariants
    all: np.ndarray  # (3 room, n_invariants and more): of all, zero beyond them


@jit
def _slopes(work: _Work, basis: Basis, n_moments: int, terms: Terms) -> _Slopes:
    width, room = (basis.degree + 1) ** 2, len(work.order)
    n_invariants = len(terms.start) - 1
    slopes = _Slopes(
        rows(n_moments + 1, LANES),
        rows(len(terms.column) + 1, LANES),
        np.empty((3, room)),
        np.empty((width, room)),
        np.empty((3, width, room)),
        rows(n_moments, 3 * room),
        np.empty(len(terms.column)),
        rows(LANES, 4 * LANES),
        rows(3 * room, (n_invariants + LANES - 1) // LANES * LANES),
    )
    slopes.block[n_moments] = 1.0
    return slopes


@jit
def _by_moments(terms: Terms, slopes: _Slopes) -> None:
    """dB / dA of the atoms whose moments are in the block."""
    block, weights = slopes.block, slopes.weights
    weights[:] = 0.0
    for t in range(len(terms.value)):
        a, b, c = terms.columns[t, 0], terms.columns[t, 1], terms.columns[t, 2]
        u, v, w = terms.slots[t, 0], terms.slots[t, 1], terms.slots[t, 2]
        value = spread(terms.value[t])
        x, y, z = load(block, a, 0), load(block, b, 0), load(block, c, 0)
        # one after the other: they may be the same
        store(weights, u, 0, load(weights, u, 0) + value * y * z)
        store(weights, v, 0, load(weights, v, 0) + value * x * z)
        store(weights, w, 0, load(weights, w, 0) + value * x * y)


@jit
def _by_vectors(i: int, lane: int, pairs: Pairs, basis: Basis, work: _Work, terms: Terms, slopes: _Slopes) -> int:
    """Write dB / d vector of atom ``i``, which is in this lane of the weights, to ``slopes.all``.

    Returns the number of places in use: the derivative by component ``axis`` of the vector at place k is in row
    axis · places + k.
    """
    group, geometry, shell, slope = work.group, work.geometry, work.shell, work.slope
    weights, turn, harmonics, turned = slopes.weights, slopes.turn, slopes.harmonics, slopes.turned
    change, alone, few = slopes.moments, slopes.alone, slopes.few
    n_scalars, width, n_invariants = len(basis.scalar_radial), (basis.degree + 1) ** 2, len(terms.start) - 1
    length = _prepare(i, pairs, basis, work)
    for axis in range(3):
        for k in range(length):
            r = geometry[3, k]
            for b in range(3):
                turn[b, k] = ((1.0 if b == axis else 0.0) - geometry[axis, k] * geometry[b, k]) / r
        _harmonic_changes(length, basis, work, turn, harmonics, turned[axis])
    total = 3 * length
    change[:, :total] = 0.0
    for e in range(pairs.n_elements):
        a, b = group[e], group[e + 1]
        for axis in range(3):
            place = axis * length
            for s in range(n_scalars):
                w, n = basis.scalar_weight[s, e], basis.scalar_radial[s]
                if w != 0.0:
                    for k in range(a, b):
                        change[s, place + k] = w * slope[n, k] * geometry[axis, k]
            for s in range(len(basis.tensor_radial)):
                w, n, base = basis.tensor_weight[s, e], basis.tensor_radial[s], n_scalars + s * width
                if w != 0.0:
                    for lm in range(width):
                        for k in range(a, b):
                            stretched = slope[n, k] * geometry[axis, k] * harmonics[lm, k]
                            change[base + lm, place + k] = w * (stretched + shell[n, k] * turned[axis, lm, k])
    # one after the other in memory
    n_slots = len(terms.column)
    for s in range(n_slots):
        alone[s] = weights[s, lane]
    # the part of `change` that four vectors of LANES take stays near while all invariants are made from it
    for k in range(0, total, 4 * LANES):
        # the last ones are computed again where fewer are left
        b, c, d = (
            min(k + LANES, total - LANES),
            min(k + 2 * LANES, total - LANES),
            min(k + 3 * LANES, total - LANES),
        )
        for f in range(0, n_invariants, LANES):
            for own in range(LANES):
                first, end = 0, 0
                if f + own < n_invariants:
                    first, end = terms.start[f + own], terms.start[f + own + 1]
                one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                for s in range(first, end):
                    w, column = spread(alone[s]), terms.column[s]
                    one += w * load(change, column, k)
                    two += w * load(change, column, b)
                    three += w * load(change, column, c)
                    four += w * load(change, column, d)
                store(few, own, 0, one)
                store(few, own, LANES, two)
                store(few, own, 2 * LANES, three)
                store(few, own, 3 * LANES, four)
            transpose(few, 0, 0, slopes.all, k, f)
            transpose(few, 0, LANES, slopes.all, b, f)
            transpose(few, 0, 2 * LANES, slopes.all, c, f)
            transpose(few, 0, 3 * LANES, slopes.all, d, f)
    return length


@jit
def _jacobian(
    atoms: np.ndarray,
    pairs: Pairs,
    basis: Basis,
    terms: Terms,
    moments: np.ndarray,
    column: int,
    forces: np.ndarray,
    virial: np.ndarray,
) -> None:
    """Add dB/dr of ``atoms`` to the rows of a least-squares problem.

    forces[3 · atom + axis, column + f] gains d(sum of B_f) / d position; virial[6, column + f] the sum over pairs of
    r_a · dB_f / d r_b in Voigt order xx yy zz yz xz xy. Columns up to the next multiple of LANES gain zeros.
    """
    work = _workspace(pairs, basis)
    slopes = _slopes(work, basis, moments.shape[1], terms)
    rows, order = slopes.all, work.order
    half = spread(0.5)
    for first in range(0, len(atoms), LANES):
        count = min(LANES, len(atoms) - first)
        _gather(moments, atoms, first, count, slopes.block[: moments.shape[1]])
        _by_moments(terms, slopes)
        for lane in range(count):
            i = atoms[first + lane]
            length = _by_vectors(i, lane, pairs, basis, work, terms, slopes)
            for f in range(0, rows.shape[1] if length else 0, LANES):
                at = column + f
                here_x, here_y, here_z = spread(0.0), spread(0.0), spread(0.0)
                xx, yy, zz, yz, xz, xy = spread(0.0), spread(0.0), spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                for k in range(length):
                    p = order[k]
                    if p < 0:
                        continue
                    x, y, z = load(rows, k, f), load(rows, length + k, f), load(rows, 2 * length + k, f)
                    there = 3 * pairs.second[p]
                    store(forces, there, at, load(forces, there, at) + x)
                    store(forces, there + 1, at, load(forces, there + 1, at) + y)
                    store(forces, there + 2, at, load(forces, there + 2, at) + z)
                    here_x += x
                    here_y += y
                    here_z += z
                    r_x, r_y, r_z = (
                        spread(pairs.vectors[p, 0]),
                        spread(pairs.vectors[p, 1]),
                        spread(pairs.vectors[p, 2]),
                    )
                    xx += r_x * x
                    yy += r_y * y
                    zz += r_z * z
                    yz += r_y * z + r_z * y
                    xz += r_x * z + r_z * x
                    xy += r_x * y + r_y * x
                here = 3 * i
                store(forces, here, at, load(forces, here, at) - here_x)
                store(forces, here + 1, at, load(forces, here + 1, at) - here_y)
                store(forces, here + 2, at, load(forces, here + 2, at) - here_z)
                store(virial, 0, at, load(virial, 0, at) + xx)
                store(virial, 1, at, load(virial, 1, at) + yy)
                store(virial, 2, at, load(virial, 2, at) + zz)
                store(virial, 3, at, load(virial, 3, at) + half * yz)
                store(virial, 4, at, load(virial, 4, at) + half * xz)
                store(virial, 5, at, load(virial, 5, at) + half * xy)


@jit
def _pair_jacobian(
    low: int,
    high: int,
    atoms: np.ndarray,
    pairs: Pairs,
    basis: Basis,
    terms: Terms,
    moments: np.ndarray,
    place: np.ndarray,
    block: np.ndarray,
) -> None:
    """Write dB / d vector of ``atoms`` to ``block``, where the pairs of atoms[k] begin in row place[k]."""
    work = _workspace(pairs, basis)
    slopes = _slopes(work, basis, moments.shape[1], terms)
    n_invariants = len(terms.start) - 1
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, slopes.block[: moments.shape[1]])
        _by_moments(terms, slopes)
        for lane in range(count):
            i = atoms[first + lane]
            length = _by_vectors(i, lane, pairs, basis, work, terms, slopes)
            for k in range(length):
                if work.order[k] >= 0:
                    row = block[place[first + lane] + work.order[k] - pairs.start[i]]
                    for axis in range(3):
                        for f in range(n_invariants):
                            row[axis, f] = slopes.all[axis * length + k, f]


@jit
def _stored_vjp(
    low: int,
    high: int,
    atoms: np.ndarray,
    start: np.ndarray,
    place: np.ndarray,
    block: np.ndarray,
    weights: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """gradient[pair] = weights · dG / d vector, from the rows of :func:`_pair_jacobian`."""
    for atom in range(low, high):
        i, own = atoms[atom], weights[atom]
        for k in range(start[i + 1] - start[i]):
            for axis in range(3):
                row, total = block[place[atom] + k, axis], 0.0
                for f in range(len(own)):
                    total += own[f] * row[f]
                gradient[start[i] + k, axis] = total


@jit
def _stored_jvp(
    low: int,
    high: int,
    atoms: np.ndarray,
    start: np.ndarray,
    place: np.ndarray,
    block: np.ndarray,
    directions: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[k] = change of G of atoms[k] along ``directions``, from the rows of :func:`_pair_jacobian`."""
    for atom in range(low, high):
        i, own = atoms[atom], out[atom]
        own[:] = 0.0
        for k in range(start[i + 1] - start[i]):
            row, move = block[place[atom] + k], directions[start[i] + k]
            for f in range(len(own)):
                own[f] += move[0] * row[0, f] + move[1] * row[1, f] + move[2] * row[2, f]


class Neighbourhood(NamedTuple):
    """The pairs of a batch, and the atoms of each element of the symmetry functions."""

    pairs: Pairs
    atoms: tuple[np.ndarray, ...]


def neighbourhood(
    elements: list[int], numbers: Tensor, first: Tensor, second: Tensor, vectors: Tensor
) -> Neighbourhood:
    """Arrange the pairs of a batch for the kernels.

    Parameters
    ----------
    elements : list of int
        Atomic numbers of the symmetry functions.
    numbers : Tensor of int64, shape (n_atoms,)
    first, second : Tensor of int64, shape (n_pairs,)
        Sorted by ``first``.
    vectors : Tensor, shape (n_pairs, 3), Å

    Raises
    ------
    ValueError
        For an atom of none of the elements.
    """
    arranged = np.ascontiguousarray(vectors.detach().numpy(), dtype=np.float64)
    return arrange(np.array(elements), numbers.numpy(), first.numpy(), second.numpy(), arranged)


def arrange(
    elements: np.ndarray, numbers: np.ndarray, first: np.ndarray, second: np.ndarray, vectors: np.ndarray
) -> Neighbourhood:
    """:func:`neighbourhood` of arrays: int64, and contiguous float64."""
    start, neighbour, order, bounds, longest = _arrange(elements, numbers, first, second)
    ends = bounds.tolist()
    if ends[-1] < len(numbers):
        element_index(elements.tolist(), torch.from_numpy(numbers))  # refuses them by name
    pairs = Pairs(start, first, second, vectors, neighbour, longest, len(elements))
    return Neighbourhood(pairs, tuple([order[a:b] for a, b in itertools.pairwise(ends)]))


@jit
def _arrange(
    elements: np.ndarray, numbers: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """First pair of every atom, element of every neighbour, atoms by element and where each begins, most neighbours."""
    n_atoms, n_elements = len(numbers), len(elements)
    species, order, bounds = np.full(n_atoms, -1), np.empty(n_atoms, np.int64), np.zeros(n_elements + 1, np.int64)
    n = 0
    for e in range(n_elements):
        for i in range(n_atoms):
            if numbers[i] == elements[e]:
                species[i] = e
                order[n] = i
                n += 1
        bounds[e + 1] = n
    start, neighbour = np.zeros(n_atoms + 1, np.int64), np.empty(len(first), np.int64)
    for p in range(len(first)):
        start[first[p] + 1] += 1
        neighbour[p] = species[second[p]]
    longest = 0
    for i in range(n_atoms):
        longest = max(longest, start[i + 1])
        start[i + 1] += start[i]
    return start, neighbour, order, bounds, longest


class FeatureKernel:
    """Values and Jacobian products of a set of symmetry functions, on the processor, in float64.

    Parameters
    ----------
    functions : SymmetryFunctions
    """

    def __init__(self, functions: SymmetryFunctions) -> None:
        self.elements, self.cutoff = functions.elements, functions.cutoff
        self.tables = functions.tables
        self.numbers = np.array(self.elements)
        self._numbers = self.numbers.astype(np.float64)

    @functools.cached_property
    def _terms(self) -> list[Terms]:
        """Invariants of each element, as their derivatives need them."""
        return [_terms(centre.invariants, self.tables.basis.n_moments) for centre in self.tables.centres]

    def moments(self, near: Neighbourhood) -> np.ndarray:
        """Moments A of every atom, shape (n_atoms, n_moments)."""
        n_atoms = len(near.pairs.start) - 1
        moments = np.empty((n_atoms, self.tables.basis.n_moments))
        share(_moments, n_atoms, near.pairs, self.tables.basis, moments)
        return moments

    def values(self, near: Neighbourhood, moments: np.ndarray) -> list[np.ndarray]:
        """Features of the atoms of every element, each of shape (n_atoms of it, n_functions)."""
        features = []
        for atoms, centre in zip(near.atoms, self.tables.centres, strict=True):
            values = np.empty((len(atoms), centre.n_invariants))
            share(_invariants, len(atoms), atoms, moments, centre.invariants, values)
            self._triples(VALUES, near, atoms, centre, values, near.pairs.vectors)
            features.append(_combined(values, centre))
        return features

    def vjp(self, near: Neighbourhood, moments: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """d(sum of weights · features) / d(pair vectors), shape (n_pairs, 3), for weights of the features' shapes."""
        adjoint, gradient = np.empty_like(moments), np.empty_like(near.pairs.vectors)
        spread = [
            np.ascontiguousarray(w if centre.combination is None else w @ centre.combination)
            for w, centre in zip(weights, self.tables.centres, strict=True)
        ]
        for atoms, centre, w in zip(near.atoms, self.tables.centres, spread, strict=True):
            share(_invariants_vjp, len(atoms), atoms, moments, centre.invariants, w, adjoint)
        share(_moments_vjp, len(moments), near.pairs, self.tables.basis, adjoint, gradient)
        for atoms, centre, w in zip(near.atoms, self.tables.centres, spread, strict=True):
            self._triples(VJP, near, atoms, centre, w, gradient)
        return gradient

    def jvp(self, near: Neighbourhood, moments: np.ndarray, directions: np.ndarray) -> list[np.ndarray]:
        """Change of the features, in their shapes, when the pair vectors move along ``directions`` (n_pairs, 3)."""
        directions = np.ascontiguousarray(directions)
        change = np.empty_like(moments)
        share(_moments_jvp, len(moments), near.pairs, self.tables.basis, directions, change)
        features = []
        for atoms, centre in zip(near.atoms, self.tables.centres, strict=True):
            changes = np.empty((len(atoms), centre.n_invariants))
            share(_invariants_jvp, len(atoms), atoms, moments, centre.invariants, change, changes)
            self._triples(JVP, near, atoms, centre, changes, directions)
            features.append(_combined(changes, centre))
        return features

    def jacobian(self, near: Neighbourhood, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the summed features of each element by every position and by strain: for least squares.

        Returns
        -------
        by_position : array, shape (n_atoms, 3, n_columns), where n_columns counts the functions of all elements in turn
        by_strain : array, shape (6, n_columns), Voigt order xx yy zz yz xz xy, eV per unit strain once multiplied by
            coefficients in eV
        """
        centres = self.tables.centres
        width = sum(centre.n_invariants for centre in centres)
        # the kernel adds zeros to up to LANES columns beyond its own
        flat, strain = np.zeros((3 * len(moments), width + LANES)), np.zeros((6, width + LANES))
        forces, virial = flat.reshape(len(moments), 3, -1)[:, :, :width], strain[:, :width]
        column = 0
        for e, (atoms, centre) in enumerate(zip(near.atoms, centres, strict=True)):
            _jacobian(atoms, near.pairs, self.tables.basis, self._terms[e], moments, column, flat, strain)
            self._triple_jacobian(near, atoms, centre, column + centre.n_moment_invariants, forces, virial)
            column += centre.n_invariants
        if all(centre.combination is None for centre in centres):
            return forces, virial
        combination = block_diag(
            *(np.eye(c.n_invariants) if c.combination is None else c.combination for c in centres)
        ).T
        return forces @ combination, virial @ combination

    def derivatives(self, near: Neighbourhood, moments: np.ndarray) -> list[np.ndarray]:
        """dG / d(pair vectors), to be kept: :meth:`stored_vjp` and :meth:`stored_jvp` multiply by it.

        Returns
        -------
        list of array, shape (n_pairs of the element's atoms, 3, n_functions)
            One per element; the pairs of an atom lie together, atom after atom.
        """
        blocks = []
        for e, (atoms, centre) in enumerate(zip(near.atoms, self.tables.centres, strict=True)):
            place, members = _members(near, atoms)
            block = np.zeros((len(members), 3, centre.n_invariants))
            tables = self.tables.basis, self._terms[e], moments
            share(_pair_jacobian, len(atoms), atoms, near.pairs, *tables, place, block)
            for f in range(centre.n_moment_invariants, centre.n_invariants):
                block[:, :, f] = self._triple_gradient(near, atoms, centre, f)[members]
            blocks.append(_combined(block, centre))
        return blocks

    def values_size(self, near: Neighbourhood) -> int:
        """Bytes that a structure takes with its neighbours, moments and functions."""
        centres = self.tables.centres
        values = sum(len(atoms) * centre.n_functions for atoms, centre in zip(near.atoms, centres, strict=True))
        n_atoms, n_pairs = len(near.pairs.start) - 1, len(near.pairs.first)
        # a pair: first, second, the neighbour's element, its vector and the offset of its cell; an atom: three numbers
        return 8 * (values + n_atoms * (self.tables.basis.n_moments + 3) + 9 * n_pairs)

    def n_products(self, near: Neighbourhood) -> int:
        """Multiplications that the functions take beside their moments, as a measure of their cost."""
        start, products = near.pairs.start, 0
        for atoms, centre in zip(near.atoms, self.tables.centres, strict=True):
            counts = start[atoms + 1] - start[atoms]
            products += len(atoms) * (int(centre.invariants.quadratic[:, 2].sum()) + len(centre.invariants.cubic_value))
            triples = centre.n_invariants - centre.n_moment_invariants
            products += int((counts * (counts - 1) // 2).sum()) * triples
        return products

    def worth_keeping(self, near: Neighbourhood) -> bool:
        """Whether derivatives hold fewer numbers than a product with them takes multiplications when computed anew."""
        return self.n_products(near) > self.derivatives_size(near) // 24

    def derivatives_size(self, near: Neighbourhood) -> int:
        """Bytes that :meth:`derivatives` takes."""
        start, centres = near.pairs.start, self.tables.centres
        n_pairs = [int((start[atoms + 1] - start[atoms]).sum()) for atoms in near.atoms]
        return sum(8 * 3 * n * centre.n_functions for n, centre in zip(n_pairs, centres, strict=True))

    def stored_vjp(self, near: Neighbourhood, derivatives: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
        """:meth:`vjp` by what :meth:`derivatives` gave."""
        gradient = np.empty_like(near.pairs.vectors)
        for atoms, block, w in zip(near.atoms, derivatives, weights, strict=True):
            own = np.ascontiguousarray(w)
            share(_stored_vjp, len(atoms), atoms, near.pairs.start, _members(near, atoms)[0], block, own, gradient)
        return gradient

    def stored_jvp(
        self, near: Neighbourhood, derivatives: list[np.ndarray], directions: np.ndarray
    ) -> list[np.ndarray]:
        """:meth:`jvp` by what :meth:`derivatives` gave."""
        directions, changes = np.ascontiguousarray(directions), []
        for atoms, block in zip(near.atoms, derivatives, strict=True):
            change, place = np.empty((len(atoms), block.shape[2])), _members(near, atoms)[0]
            share(_stored_jvp, len(atoms), atoms, near.pairs.start, place, block, directions, change)
            changes.append(change)
        return changes

    def _triple_gradient(self, near: Neighbourhood, atoms: np.ndarray, centre: CentreTables, f: int) -> np.ndarray:
        """d(sum of one function over the atoms) / d(pair vectors), for a function of pairs of neighbours."""
        # one vector-Jacobian product a function: slow, but it runs once per structure
        weights = np.zeros((len(atoms), centre.n_invariants))
        weights[:, f] = 1.0
        gradient = np.zeros_like(near.pairs.vectors)
        self._triples(VJP, near, atoms, centre, weights, gradient)
        return gradient

    def _triple_jacobian(
        self,
        near: Neighbourhood,
        atoms: np.ndarray,
        centre: CentreTables,
        column: int,
        forces: np.ndarray,
        virial: np.ndarray,
    ) -> None:
        for f in range(centre.n_moment_invariants, centre.n_invariants):
            gradient = self._triple_gradient(near, atoms, centre, f)
            np.add.at(forces[:, :, column], near.pairs.second, gradient)
            np.subtract.at(forces[:, :, column], near.pairs.first, gradient)
            strain = near.pairs.vectors.T @ gradient
            strain = 0.5 * (strain + strain.T)
            virial[:, column] += strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            column += 1

    def _triples(
        self,
        mode: int,
        near: Neighbourhood,
        atoms: np.ndarray,
        centre: CentreTables,
        features: np.ndarray,
        motion: np.ndarray,
    ) -> None:
        if len(centre.triple.bump):
            basis, pairs = self.tables.basis, near.pairs
            given = pairs.start, pairs.vectors, pairs.neighbour, pairs.longest
            tables = centre.triple, basis.cutoff_function, basis.inner, self._numbers, centre.n_moment_invariants
            share(sum_triples, len(atoms), mode, atoms, *given, *tables, features, motion)


def _members(near: Neighbourhood, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of ``atoms``, atom after atom, and where those of each atom begin among them."""
    start = near.pairs.start
    counts = start[atoms + 1] - start[atoms]
    place = np.cumsum(counts) - counts
    return place, np.arange(int(counts.sum())) + np.repeat(start[atoms] - place, counts)


def _combined(invariants: np.ndarray, centre: CentreTables) -> np.ndarray:
    return invariants if centre.combination is None else invariants @ centre.combination.T


@lru_cache(maxsize=4)
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads)


def share(kernel: Callable[..., None], n_atoms: int, *arguments: object) -> None:
    """Run ``kernel(low, high, *arguments)`` over all atoms, on torch's number of threads.

    Every atom's result is its own, so the bits do not depend on the number of threads.
    """
    n_threads = min(torch.get_num_threads(), n_atoms // _THREAD_ATOMS)
    if n_threads <= 1:
        kernel(0, n_atoms, *arguments)
        return
    # whole multiples of LANES keep the blocks of atoms, and with them the bits, as in one thread
    step = -(-n_atoms // (n_threads * LANES)) * LANES
    runs = [
        _pool(n_threads).submit(kernel, low, min(low + step, n_atoms), *arguments) for low in range(0, n_atoms, step)
    ]
    for run in runs:
        run.result()
