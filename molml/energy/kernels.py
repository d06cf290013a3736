"""Fused processor kernels for symmetry functions: values, and products with their Jacobian from either side.

The reference is :func:`molml.energy.features.reference_features`; here the same definition is computed in three steps,

    pair vectors --moments--> A --invariants--> B --combination--> features,

each with its vector-Jacobian product (forces) and its Jacobian-vector product (training on forces). dG/dR is never
stored. Neighbours are handled element by element, padded to whole vector registers, the loop over neighbours innermost;
invariants are computed for LANES atoms at a time, the loop over atoms innermost.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from molml.energy.features import COSINE, GAUSSIAN, CentreTables, SymmetryFunctions, element_index
from molml.energy.harmonics import n_harmonics, normalisation

LANES = 8
_THREAD_ATOMS = 64  # fewer atoms than this are not worth waking a second thread

# everything of fast-math but the promises that no NaN and no infinity occurs
_jit = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp", "afn"})


@intrinsic
def _float_of_bits(typingctx, bits):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@_jit
def _exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0 to 1 ulp or so, in plain arithmetic that the compiler can vectorise; 0 below -700."""
    inside = max(x, -700.0)
    n = math.floor(inside * 1.4426950408889634 + 0.5)
    f = (inside - n * 0.693145751953125) - n * 1.42860682030941723212e-6
    p = 1.0 / 479001600.0
    p = p * f + 1.0 / 39916800.0
    p = p * f + 1.0 / 3628800.0
    p = p * f + 1.0 / 362880.0
    p = p * f + 1.0 / 40320.0
    p = p * f + 1.0 / 5040.0
    p = p * f + 1.0 / 720.0
    p = p * f + 1.0 / 120.0
    p = p * f + 1.0 / 24.0
    p = p * f + 1.0 / 6.0
    p = p * f + 0.5
    p = p * f + 1.0
    p = p * f + 1.0
    value = p * _float_of_bits((np.int64(n) + 1023) << 52)
    return value if x > -700.0 else 0.0


@_jit
def _cutoff(r, cutoff, kind):  # type: ignore[no-untyped-def]
    """Cutoff function and its derivative."""
    x = r / cutoff
    if x >= 1.0:
        return 0.0, 0.0
    if kind == 0:
        return 0.5 * (1.0 + math.cos(math.pi * x)), -0.5 * math.pi / cutoff * math.sin(math.pi * x)
    if kind == 1:
        scale = 1.0 / math.tanh(1.0) ** 3
        t = math.tanh(1.0 - x)
        return scale * t**3, -3.0 * scale * t * t * (1.0 - t * t) / cutoff
    y = x * x
    return 1.0 + x * y * (-10.0 + x * (15.0 - 6.0 * x)), -30.0 * y * (1.0 - x) ** 2 / cutoff


@_jit
def _neighbourhood(vectors, begin, end, neighbour, n_elements, cutoff, order, group, geometry):  # type: ignore[no-untyped-def]
    """Sort one atom's neighbours by element into padded groups; unit vectors, distances. Returns the padded length.

    order[k] is the pair at place k or -1; group[e] … group[e + 1] the places of element e; geometry rows x, y, z, r.
    """
    length = 0
    for e in range(n_elements):
        group[e] = length
        for p in range(begin, end):
            if neighbour[p] == e:
                x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
                r = math.sqrt(x * x + y * y + z * z)
                if r < cutoff:
                    order[length] = p
                    geometry[0, length] = x / r
                    geometry[1, length] = y / r
                    geometry[2, length] = z / r
                    geometry[3, length] = r
                    length += 1
        while (length - group[e]) % LANES:
            # places that hold no neighbour sit at the cutoff, where every function and its slope vanish
            order[length] = -1
            geometry[0, length] = 0.0
            geometry[1, length] = 0.0
            geometry[2, length] = 1.0
            geometry[3, length] = cutoff
            length += 1
    group[n_elements] = length
    return length


@_jit
def _shells(length, geometry, cutoff, kind, form, parameters, fc, shell, slope):  # type: ignore[no-untyped-def]
    """Radial functions times the cutoff function, and their derivatives; shape (n_radials, length)."""
    r = geometry[3]
    if kind == 2:
        for k in range(length):
            x = r[k] / cutoff
            inside = 1.0 if x < 1.0 else 0.0
            y = x * x
            fc[0, k] = inside * (1.0 + x * y * (-10.0 + x * (15.0 - 6.0 * x)))
            fc[1, k] = -inside * 30.0 * y * (1.0 - x) * (1.0 - x) / cutoff
    else:
        for k in range(length):
            fc[0, k], fc[1, k] = _cutoff(r[k], cutoff, kind)
    for n in range(len(form)):
        a, b = parameters[n, 0], parameters[n, 1]
        if form[n] == GAUSSIAN:
            for k in range(length):
                d = r[k] - b
                value = _exp(-a * d * d)
                shell[n, k] = value * fc[0, k]
                slope[n, k] = value * (fc[1, k] - 2.0 * a * d * fc[0, k])
        elif form[n] == COSINE:
            for k in range(length):
                value, sine = math.cos(a * r[k]), math.sin(a * r[k])
                shell[n, k] = value * fc[0, k]
                slope[n, k] = value * fc[1, k] - a * sine * fc[0, k]
        else:
            i, j = int(a), int(b)
            for k in range(length):
                shell[n, k] = shell[i, k] * shell[j, k]
                slope[n, k] = slope[i, k] * shell[j, k] + shell[i, k] * slope[j, k]


@_jit
def _angular(length, geometry, degree, trig, legendre):  # type: ignore[no-untyped-def]
    """cos(m φ) and sin(m φ) times sin^m θ (rows 2m and 2m + 1), and d^m P_l / dz^m (row l (l + 1) / 2 + m)."""
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


@_jit
def _workspace(longest, n_elements, n_radials, degree):  # type: ignore[no-untyped-def]
    room = longest + n_elements * LANES
    return (
        np.empty(room, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty((4, room)),
        np.empty((2, room)),
        np.empty((n_radials, room)),
        np.empty((n_radials, room)),
        np.empty((2 * degree + 2, room)),
        np.empty(((degree + 1) * (degree + 2) // 2, room)),
    )


@_jit
def _moments(low, high, start, vectors, neighbour, n_elements, longest, cutoff, kind, degree, factor, form, parameters,
             scalar_radial, scalar_weight, tensor_radial, tensor_weight, moments):  # type: ignore[no-untyped-def]  # fmt: skip
    order, group, geometry, fc, shell, slope, trig, legendre = _workspace(longest, n_elements, len(form), degree)
    width = (degree + 1) ** 2
    harmonics = np.empty((width, geometry.shape[1]))
    for i in range(low, high):
        out = moments[i]
        out[:] = 0.0
        length = _neighbourhood(
            vectors, start[i], start[i + 1], neighbour, n_elements, cutoff, order, group, geometry
        )
        _shells(length, geometry, cutoff, kind, form, parameters, fc, shell, slope)
        _angular(length, geometry, degree, trig, legendre)
        for l in range(degree + 1):  # noqa: E741
            for m in range(l + 1):
                q, c = legendre[l * (l + 1) // 2 + m], factor[l, m]
                up, down = harmonics[l * l + l + m], harmonics[l * l + l - m]
                for k in range(length):
                    up[k] = c * q[k] * trig[2 * m, k]
                if m:
                    for k in range(length):
                        down[k] = c * q[k] * trig[2 * m + 1, k]
        for e in range(n_elements):
            a, b = group[e], group[e + 1]
            if a == b:
                continue
            for s in range(len(scalar_radial)):
                if scalar_weight[s, e] != 0.0:
                    total = 0.0
                    for k in range(a, b):
                        total += shell[scalar_radial[s], k]
                    out[s] += scalar_weight[s, e] * total
            for s in range(len(tensor_radial)):
                if tensor_weight[s, e] != 0.0:
                    w, n, base = tensor_weight[s, e], tensor_radial[s], len(scalar_radial) + s * width
                    for lm in range(width):
                        total = 0.0
                        for k in range(a, b):
                            total += shell[n, k] * harmonics[lm, k]
                        out[base + lm] += w * total


@_jit
def _moments_vjp(low, high, start, vectors, neighbour, n_elements, longest, cutoff, kind, degree, factor, form,
                 parameters, scalar_radial, scalar_weight, tensor_radial, tensor_weight, adjoint, gradient):  # type: ignore[no-untyped-def]  # fmt: skip
    """gradient[p] = d(sum adjoint · A) / d vectors[p]."""
    order, group, geometry, fc, shell, slope, trig, legendre = _workspace(longest, n_elements, len(form), degree)
    width = (degree + 1) ** 2
    room = geometry.shape[1]
    across, along = np.empty((width, room)), np.empty((width, room))
    tangent, radial = np.empty((3, room)), np.empty(room)
    for i in range(low, high):
        bar = adjoint[i]
        length = _neighbourhood(
            vectors, start[i], start[i + 1], neighbour, n_elements, cutoff, order, group, geometry
        )
        for p in range(start[i], start[i + 1]):
            gradient[p, 0] = 0.0
            gradient[p, 1] = 0.0
            gradient[p, 2] = 0.0
        _shells(length, geometry, cutoff, kind, form, parameters, fc, shell, slope)
        _angular(length, geometry, degree, trig, legendre)
        tangent[:, :length] = 0.0
        radial[:length] = 0.0
        across[:, :length] = 0.0
        along[:, :length] = 0.0
        for e in range(n_elements):
            a, b = group[e], group[e + 1]
            if a == b:
                continue
            for s in range(len(scalar_radial)):
                if scalar_weight[s, e] != 0.0:
                    w, n = scalar_weight[s, e] * bar[s], scalar_radial[s]
                    for k in range(a, b):
                        radial[k] += w * slope[n, k]
            for s in range(len(tensor_radial)):
                if tensor_weight[s, e] != 0.0:
                    n, base = tensor_radial[s], len(scalar_radial) + s * width
                    for lm in range(width):
                        w = tensor_weight[s, e] * bar[base + lm]
                        for k in range(a, b):
                            across[lm, k] += w * shell[n, k]
                            along[lm, k] += w * slope[n, k]
        for l in range(degree + 1):  # noqa: E741
            for m in range(l + 1):
                c, centre, row = factor[l, m], l * l + l, l * (l + 1) // 2 + m
                q = legendre[row]
                if m == 0:
                    for k in range(length):
                        radial[k] += along[centre, k] * q[k]
                    if l:
                        for k in range(length):
                            tangent[2, k] += across[centre, k] * legendre[row + 1, k]
                else:
                    for k in range(length):
                        cosine, sine = trig[2 * m, k], trig[2 * m + 1, k]
                        before, behind = trig[2 * m - 2, k], trig[2 * m - 1, k]
                        up, down = across[centre + m, k], across[centre - m, k]
                        scaled = c * q[k]
                        radial[k] += scaled * (along[centre + m, k] * cosine + along[centre - m, k] * sine)
                        tangent[0, k] += scaled * m * (up * before + down * behind)
                        tangent[1, k] += scaled * m * (down * before - up * behind)
                    if m < l:
                        for k in range(length):
                            tangent[2, k] += c * legendre[row + 1, k] * (
                                across[centre + m, k] * trig[2 * m, k] + across[centre - m, k] * trig[2 * m + 1, k]
                            )
        for k in range(length):
            p = order[k]
            if p >= 0:
                x, y, z, r = geometry[0, k], geometry[1, k], geometry[2, k], geometry[3, k]
                inward = x * tangent[0, k] + y * tangent[1, k] + z * tangent[2, k]
                lift = radial[k] - inward / r
                gradient[p, 0] = tangent[0, k] / r + lift * x
                gradient[p, 1] = tangent[1, k] / r + lift * y
                gradient[p, 2] = tangent[2, k] / r + lift * z


@_jit
def _harmonic_changes(length, geometry, degree, factor, trig, legendre, turn, harmonics, change):  # type: ignore[no-untyped-def]
    """Harmonics, and their change when the unit vector changes by ``turn`` (3, length), a tangent vector."""
    for l in range(degree + 1):  # noqa: E741
        for m in range(l + 1):
            c, centre, row = factor[l, m], l * l + l, l * (l + 1) // 2 + m
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


@_jit
def _moments_jvp(low, high, start, vectors, neighbour, n_elements, longest, cutoff, kind, degree, factor, form,
                 parameters, scalar_radial, scalar_weight, tensor_radial, tensor_weight, directions, change):  # type: ignore[no-untyped-def]  # fmt: skip
    """change[i] = derivative of A[i] when every pair vector moves along ``directions``."""
    order, group, geometry, fc, shell, slope, trig, legendre = _workspace(longest, n_elements, len(form), degree)
    width = (degree + 1) ** 2
    room = geometry.shape[1]
    harmonics, turned = np.empty((width, room)), np.empty((width, room))
    turn, stretch = np.empty((3, room)), np.empty(room)
    for i in range(low, high):
        out = change[i]
        out[:] = 0.0
        length = _neighbourhood(
            vectors, start[i], start[i + 1], neighbour, n_elements, cutoff, order, group, geometry
        )
        _shells(length, geometry, cutoff, kind, form, parameters, fc, shell, slope)
        _angular(length, geometry, degree, trig, legendre)
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
                turn[:, k] = 0.0
        _harmonic_changes(length, geometry, degree, factor, trig, legendre, turn, harmonics, turned)
        for n in range(len(form)):
            for k in range(length):
                slope[n, k] *= stretch[k]
        for e in range(n_elements):
            a, b = group[e], group[e + 1]
            if a == b:
                continue
            for s in range(len(scalar_radial)):
                if scalar_weight[s, e] != 0.0:
                    total = 0.0
                    for k in range(a, b):
                        total += slope[scalar_radial[s], k]
                    out[s] += scalar_weight[s, e] * total
            for s in range(len(tensor_radial)):
                if tensor_weight[s, e] != 0.0:
                    w, n, base = tensor_weight[s, e], tensor_radial[s], len(scalar_radial) + s * width
                    for lm in range(width):
                        total = 0.0
                        for k in range(a, b):
                            total += slope[n, k] * harmonics[lm, k] + shell[n, k] * turned[lm, k]
                        out[base + lm] += w * total


@_jit
def _gather(moments, atoms, first, count, block):  # type: ignore[no-untyped-def]
    """block[column, lane] of up to LANES atoms; unused lanes are zero."""
    for lane in range(LANES):
        if lane < count:
            row = moments[atoms[first + lane]]
            for c in range(block.shape[0]):
                block[c, lane] = row[c]
        else:
            for c in range(block.shape[0]):
                block[c, lane] = 0.0


@_jit
def _invariants(low, high, atoms, moments, linear, quadratic, cubic_start, cubic_columns, cubic_value, out):  # type: ignore[no-untyped-def]
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block = np.empty((moments.shape[1], LANES))
    total = np.empty(LANES)
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        for f in range(n_linear):
            for lane in range(count):
                out[first + lane, f] = block[linear[f], lane]
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            total[:] = 0.0
            for t in range(n):
                for lane in range(LANES):
                    total[lane] += block[a + t, lane] * block[b + t, lane]
            for lane in range(count):
                out[first + lane, n_linear + f] = total[lane]
        for f in range(n_cubic):
            total[:] = 0.0
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                for lane in range(LANES):
                    total[lane] += v * block[a, lane] * block[b, lane] * block[c, lane]
            for lane in range(count):
                out[first + lane, n_linear + n_quadratic + f] = total[lane]


@_jit
def _invariants_vjp(low, high, atoms, moments, linear, quadratic, cubic_start, cubic_columns, cubic_value, adjoint,
                    out):  # type: ignore[no-untyped-def]  # fmt: skip
    """out[atom] = d(sum adjoint · B) / d A[atom]."""
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block, bar = np.empty((moments.shape[1], LANES)), np.empty((moments.shape[1], LANES))
    weight = np.zeros(LANES)
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        bar[:] = 0.0
        weight[:] = 0.0
        for f in range(n_linear):
            for lane in range(count):
                bar[linear[f], lane] += adjoint[first + lane, f]
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            for lane in range(count):
                weight[lane] = adjoint[first + lane, n_linear + f]
            if a == b:
                for t in range(n):
                    for lane in range(LANES):
                        bar[a + t, lane] += 2.0 * weight[lane] * block[a + t, lane]
            else:
                for t in range(n):
                    for lane in range(LANES):
                        bar[a + t, lane] += weight[lane] * block[b + t, lane]
                        bar[b + t, lane] += weight[lane] * block[a + t, lane]
        for f in range(n_cubic):
            for lane in range(count):
                weight[lane] = adjoint[first + lane, n_linear + n_quadratic + f]
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                for lane in range(LANES):
                    w, x, y, z = v * weight[lane], block[a, lane], block[b, lane], block[c, lane]
                    bar[a, lane] += w * y * z
                    bar[b, lane] += w * x * z
                    bar[c, lane] += w * x * y
        for lane in range(count):
            row = out[atoms[first + lane]]
            for c in range(bar.shape[0]):
                row[c] = bar[c, lane]


@_jit
def _invariants_jvp(low, high, atoms, moments, linear, quadratic, cubic_start, cubic_columns, cubic_value, change,
                    out):  # type: ignore[no-untyped-def]  # fmt: skip
    """out = derivative of B when A moves along ``change``."""
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    block, moved = np.empty((moments.shape[1], LANES)), np.empty((moments.shape[1], LANES))
    total = np.empty(LANES)
    for first in range(low, high, LANES):
        count = min(LANES, high - first)
        _gather(moments, atoms, first, count, block)
        _gather(change, atoms, first, count, moved)
        for f in range(n_linear):
            for lane in range(count):
                out[first + lane, f] = moved[linear[f], lane]
        for f in range(n_quadratic):
            a, b, n = quadratic[f, 0], quadratic[f, 1], quadratic[f, 2]
            total[:] = 0.0
            for t in range(n):
                for lane in range(LANES):
                    total[lane] += block[a + t, lane] * moved[b + t, lane] + moved[a + t, lane] * block[b + t, lane]
            for lane in range(count):
                out[first + lane, n_linear + f] = total[lane]
        for f in range(n_cubic):
            total[:] = 0.0
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                for lane in range(LANES):
                    x, y, z = block[a, lane], block[b, lane], block[c, lane]
                    total[lane] += v * (
                        moved[a, lane] * y * z + x * moved[b, lane] * z + x * y * moved[c, lane]
                    )
            for lane in range(count):
                out[first + lane, n_linear + n_quadratic + f] = total[lane]


@_jit
def _angle_function(r_j, r_k, r_3, cosine, f_j, d_j, f_k, d_k, f_3, d_3, eta, zeta, lambda_, r_s):  # type: ignore[no-untyped-def]
    """G4 of one pair of neighbours (G5 with f_3 = 1, d_3 = 0, r_3 = r_s) and its derivatives by cos θ and the sides."""
    base = max(1.0 + lambda_ * cosine, 0.0)
    below = base ** (zeta - 1.0)
    a, b, c = r_j - r_s, r_k - r_s, r_3 - r_s
    envelope = 2.0 ** (1.0 - zeta) * math.exp(-eta * (a * a + b * b + c * c))
    power = below * base * envelope
    return (
        power * f_j * f_k * f_3,
        zeta * lambda_ * below * envelope * f_j * f_k * f_3,
        power * f_k * f_3 * (d_j - 2.0 * eta * a * f_j),
        power * f_j * f_3 * (d_k - 2.0 * eta * b * f_k),
        power * f_j * f_k * (d_3 - 2.0 * eta * c * f_3),
    )


@_jit
def _triples(low, high, mode, start, vectors, neighbour, centre, wanted, row, atomic_number, longest, cutoff, kind, table,
             weights, directions, out, gradient):  # type: ignore[no-untyped-def]  # fmt: skip
    """Angular functions over every pair of neighbours of the atoms of element ``wanted``.

    mode 0 writes values to out[row[i]]; 1 adds d(sum weights · G) / d vectors to gradient; 2 writes the change of G
    along ``directions`` to out.
    """
    unit, distance, fc = np.empty((longest, 3)), np.empty(longest), np.empty((longest, 2))
    places = np.empty(longest, np.int64)
    for i in range(low, high):
        if centre[i] != wanted:
            continue
        count = 0
        for p in range(start[i], start[i + 1]):
            x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
            r = math.sqrt(x * x + y * y + z * z)
            if r < cutoff:
                places[count] = p
                unit[count, 0], unit[count, 1], unit[count, 2] = x / r, y / r, z / r
                distance[count] = r
                fc[count, 0], fc[count, 1] = _cutoff(r, cutoff, kind)
                count += 1
        if mode != 1:
            out[row[i], :] = 0.0
        for j in range(count):
            for k in range(j + 1, count):
                p, q = places[j], places[k]
                e, g = neighbour[p], neighbour[q]
                cosine = unit[j, 0] * unit[k, 0] + unit[j, 1] * unit[k, 1] + unit[j, 2] * unit[k, 2]
                r_j, r_k = distance[j], distance[k]
                side = np.empty(3)
                r_3 = 0.0
                for a in range(3):
                    side[a] = vectors[q, a] - vectors[p, a]
                    r_3 += side[a] * side[a]
                r_3 = math.sqrt(r_3)
                f_3, d_3 = _cutoff(r_3, cutoff, kind)
                by_cosine = by_j = by_k = by_3 = 0.0
                d_cosine = d_r_j = d_r_k = d_r_3 = 0.0
                if mode == 2:
                    for a in range(3):
                        d_r_j += unit[j, a] * directions[p, a]
                        d_r_k += unit[k, a] * directions[q, a]
                        d_cosine += (unit[k, a] - cosine * unit[j, a]) / r_j * directions[p, a]
                        d_cosine += (unit[j, a] - cosine * unit[k, a]) / r_k * directions[q, a]
                        d_r_3 += side[a] / r_3 * (directions[q, a] - directions[p, a])
                for f in range(table.shape[0]):
                    a_f, b_f = table[f, 0], table[f, 1]
                    weight = 0.0
                    if a_f < 0:
                        weight = atomic_number[e] * atomic_number[g]
                    elif (e == a_f and g == b_f) or (e == b_f and g == a_f):
                        weight = 1.0
                    if weight == 0.0:
                        continue
                    narrow = table[f, 6] != 0.0
                    if narrow and f_3 == 0.0:
                        continue
                    value, v_c, v_j, v_k, v_3 = _angle_function(
                        r_j, r_k, r_3 if narrow else table[f, 5], cosine, fc[j, 0], fc[j, 1], fc[k, 0], fc[k, 1],
                        f_3 if narrow else 1.0, d_3 if narrow else 0.0, table[f, 2], table[f, 3], table[f, 4],
                        table[f, 5],
                    )  # fmt: skip
                    if mode == 0:
                        out[row[i], f] += weight * value
                    elif mode == 1:
                        w = weight * weights[row[i], f]
                        by_cosine += w * v_c
                        by_j += w * v_j
                        by_k += w * v_k
                        by_3 += w * v_3
                    else:
                        out[row[i], f] += weight * (v_c * d_cosine + v_j * d_r_j + v_k * d_r_k + v_3 * d_r_3)
                if mode == 1:
                    for a in range(3):
                        third = by_3 * side[a] / r_3
                        gradient[p, a] += (
                            by_j * unit[j, a] + by_cosine * (unit[k, a] - cosine * unit[j, a]) / r_j - third
                        )
                        gradient[q, a] += (
                            by_k * unit[k, a] + by_cosine * (unit[j, a] - cosine * unit[k, a]) / r_k + third
                        )


@_jit
def _jacobian(low, high, start, vectors, first_index, second, neighbour, centre, n_elements, longest, cutoff, kind,
              degree, factor, form, parameters, scalar_radial, scalar_weight, tensor_radial, tensor_weight, moments, wanted,
              linear, quadratic, cubic_start, cubic_columns, cubic_value, column, forces, virial):  # type: ignore[no-untyped-def]  # fmt: skip
    """Add dB/dr of the atoms of element ``wanted`` to the rows of a least-squares problem.

    forces[atom, axis, column + f] gains d(sum of B_f) / d position; virial[6, column + f] the sum over pairs of
    r_a · dB_f / d r_b in Voigt order xx yy zz yz xz xy.
    """
    order, group, geometry, fc, shell, slope, trig, legendre = _workspace(longest, n_elements, len(form), degree)
    width, room = (degree + 1) ** 2, geometry.shape[1]
    n_scalars, n_moments = len(scalar_radial), moments.shape[1]
    n_linear, n_quadratic, n_cubic = len(linear), len(quadratic), len(cubic_start) - 1
    harmonics, turned = np.empty((width, room)), np.empty((3, width, room))
    turn = np.empty((3, room))
    slopes = np.zeros((n_moments, 3 * room))  # dA / d vector, axis-major
    rows = np.empty((n_linear + n_quadratic + n_cubic, 3 * room))
    for i in range(low, high):
        if centre[i] != wanted:
            continue
        length = _neighbourhood(
            vectors, start[i], start[i + 1], neighbour, n_elements, cutoff, order, group, geometry
        )
        _shells(length, geometry, cutoff, kind, form, parameters, fc, shell, slope)
        _angular(length, geometry, degree, trig, legendre)
        for axis in range(3):
            for k in range(length):
                r = geometry[3, k]
                for b in range(3):
                    turn[b, k] = ((1.0 if b == axis else 0.0) - geometry[axis, k] * geometry[b, k]) / r
            _harmonic_changes(length, geometry, degree, factor, trig, legendre, turn, harmonics, turned[axis])
        total = 3 * length
        slopes[:, :total] = 0.0
        for e in range(n_elements):
            a, b = group[e], group[e + 1]
            for axis in range(3):
                place = axis * length
                for s in range(n_scalars):
                    w = scalar_weight[s, e]
                    if w != 0.0:
                        for k in range(a, b):
                            slopes[s, place + k] = w * slope[scalar_radial[s], k] * geometry[axis, k]
                for s in range(len(tensor_radial)):
                    w, n, base = tensor_weight[s, e], tensor_radial[s], n_scalars + s * width
                    if w != 0.0:
                        for lm in range(width):
                            for k in range(a, b):
                                slopes[base + lm, place + k] = w * (
                                    slope[n, k] * geometry[axis, k] * harmonics[lm, k] + shell[n, k] * turned[axis, lm, k]
                                )
        own = moments[i]
        rows[:, :total] = 0.0
        for f in range(n_linear):
            for k in range(total):
                rows[f, k] = slopes[linear[f], k]
        for f in range(n_quadratic):
            target = rows[n_linear + f]
            for t in range(quadratic[f, 2]):
                a, b = quadratic[f, 0] + t, quadratic[f, 1] + t
                x, y = own[a], own[b]
                for k in range(total):
                    target[k] += x * slopes[b, k] + y * slopes[a, k]
        for f in range(n_cubic):
            target = rows[n_linear + n_quadratic + f]
            for t in range(cubic_start[f], cubic_start[f + 1]):
                a, b, c, v = cubic_columns[t, 0], cubic_columns[t, 1], cubic_columns[t, 2], cubic_value[t]
                x, y, z = v * own[b] * own[c], v * own[a] * own[c], v * own[a] * own[b]
                for k in range(total):
                    target[k] += x * slopes[a, k] + y * slopes[b, k] + z * slopes[c, k]
        for k in range(length):
            p = order[k]
            if p < 0:
                continue
            here, there = forces[first_index[p]], forces[second[p]]
            for f in range(rows.shape[0]):
                x, y, z = rows[f, k], rows[f, length + k], rows[f, 2 * length + k]
                at = column + f
                there[0, at] += x
                there[1, at] += y
                there[2, at] += z
                here[0, at] -= x
                here[1, at] -= y
                here[2, at] -= z
                virial[0, at] += vectors[p, 0] * x
                virial[1, at] += vectors[p, 1] * y
                virial[2, at] += vectors[p, 2] * z
                virial[3, at] += 0.5 * (vectors[p, 1] * z + vectors[p, 2] * y)
                virial[4, at] += 0.5 * (vectors[p, 0] * z + vectors[p, 2] * x)
                virial[5, at] += 0.5 * (vectors[p, 0] * y + vectors[p, 1] * x)


class Neighbourhood(NamedTuple):
    """The pairs of a batch as the kernels want them."""

    start: np.ndarray  # (n_atoms + 1,) first pair of every atom
    first: np.ndarray  # (n_pairs,)
    second: np.ndarray  # (n_pairs,)
    vectors: np.ndarray  # (n_pairs, 3), Å
    species: np.ndarray  # (n_atoms,) index of the element
    neighbour: np.ndarray  # (n_pairs,) index of the neighbour's element
    longest: int  # most pairs of any atom
    atoms: tuple[np.ndarray, ...]  # atoms of each element


def neighbourhood(elements: list[int], numbers: Tensor, first: Tensor, second: Tensor, vectors: Tensor) -> Neighbourhood:
    """Arrange the pairs of a batch (sorted by ``first``) for the kernels."""
    species = element_index(elements, numbers).numpy()
    start = np.zeros(len(species) + 1, dtype=np.int64)
    counts = np.bincount(first.numpy(), minlength=len(species))
    np.cumsum(counts, out=start[1:])
    return Neighbourhood(
        start,
        first.numpy(),
        second.numpy(),
        np.ascontiguousarray(vectors.detach().numpy(), dtype=np.float64),
        species,
        species[second.numpy()],
        int(counts.max(initial=0)),
        tuple(np.flatnonzero(species == e) for e in range(len(elements))),
    )


class FeatureKernel:
    """Values and Jacobian products of a set of symmetry functions, on the processor, in float64.

    Parameters
    ----------
    functions : SymmetryFunctions
    """

    def __init__(self, functions: SymmetryFunctions) -> None:
        tables = functions.tables
        self.elements = functions.elements
        self.tables = tables
        self._numbers = np.array(self.elements, dtype=np.float64)
        self._common = (
            tables.cutoff,
            tables.cutoff_function,
            tables.degree,
            normalisation(tables.degree),
            tables.radial_form,
            tables.radial_parameters,
            tables.scalar_radial,
            tables.scalar_weight,
            tables.tensor_radial,
            tables.tensor_weight,
        )

    def moments(self, near: Neighbourhood) -> np.ndarray:
        """Moments A of every atom, shape (n_atoms, n_moments)."""
        out = np.empty((len(near.species), self.tables.n_moments))
        self._over_atoms(_moments, near, out)
        return out

    def values(self, near: Neighbourhood, moments: np.ndarray) -> list[np.ndarray]:
        """Features of the atoms of every element, each of shape (n_atoms of it, n_functions)."""
        features = []
        for e, centre in enumerate(self.tables.centres):
            atoms = near.atoms[e]
            out = np.empty((len(atoms), centre.n_moment_invariants + len(centre.triple)))
            _invariants(0, len(atoms), atoms, moments, *_algebra(centre), out)
            self._over_triples(0, near, e, centre, out=out)
            features.append(out if centre.combination is None else out @ centre.combination.T)
        return features

    def vjp(self, near: Neighbourhood, moments: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """d(sum of weights · features) / d(pair vectors), shape (n_pairs, 3)."""
        adjoint = np.empty_like(moments)
        spread = [
            w if centre.combination is None else w @ centre.combination
            for w, centre in zip(weights, self.tables.centres, strict=True)
        ]
        for e, centre in enumerate(self.tables.centres):
            atoms = near.atoms[e]
            _invariants_vjp(0, len(atoms), atoms, moments, *_algebra(centre), np.ascontiguousarray(spread[e]), adjoint)
        gradient = np.empty((len(near.first), 3))
        self._over_atoms(_moments_vjp, near, adjoint, gradient)
        for e, centre in enumerate(self.tables.centres):
            narrow = np.ascontiguousarray(spread[e][:, centre.n_moment_invariants :])
            self._over_triples(1, near, e, centre, weights=narrow, gradient=gradient)
        return gradient

    def jvp(self, near: Neighbourhood, moments: np.ndarray, directions: np.ndarray) -> list[np.ndarray]:
        """Change of the features when the pair vectors move along ``directions`` (n_pairs, 3)."""
        change = np.empty_like(moments)
        self._over_atoms(_moments_jvp, near, np.ascontiguousarray(directions), change)
        features = []
        for e, centre in enumerate(self.tables.centres):
            atoms = near.atoms[e]
            out = np.empty((len(atoms), centre.n_moment_invariants + len(centre.triple)))
            _invariants_jvp(0, len(atoms), atoms, moments, *_algebra(centre), change, out)
            self._over_triples(2, near, e, centre, directions=directions, out=out)
            features.append(out if centre.combination is None else out @ centre.combination.T)
        return features

    def jacobian(self, near: Neighbourhood, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the summed features of each element by every position and by strain: for least squares.

        Returns
        -------
        by_position : array, shape (n_atoms, 3, n_columns), where n_columns counts the functions of all elements in turn
        by_strain : array, shape (6, n_columns), Voigt order xx yy zz yz xz xy, eV per unit strain once multiplied by
            coefficients in eV
        """
        width = [centre.n_moment_invariants + len(centre.triple) for centre in self.tables.centres]
        forces, virial = np.zeros((len(near.species), 3, sum(width))), np.zeros((6, sum(width)))
        column = 0
        for e, centre in enumerate(self.tables.centres):
            _jacobian(
                0, len(near.species), near.start, near.vectors, near.first, near.second, near.neighbour, near.species,
                len(self.elements), near.longest, *self._common, moments, e, *_algebra(centre), column, forces, virial,
            )  # fmt: skip
            self._triple_jacobian(near, e, centre, column + centre.n_moment_invariants, forces, virial)
            column += width[e]
        if all(centre.combination is None for centre in self.tables.centres):
            return forces, virial
        blocks = [
            np.eye(w) if centre.combination is None else centre.combination
            for w, centre in zip(width, self.tables.centres, strict=True)
        ]
        combined = _block_diagonal(blocks).T
        return forces @ combined, virial @ combined

    def _triple_jacobian(
        self, near: Neighbourhood, e: int, centre: CentreTables, column: int, forces: np.ndarray, virial: np.ndarray
    ) -> None:
        # one vector-Jacobian product a function: slow, but such functions are few and this runs once per structure
        for f in range(len(centre.triple)):
            weights = np.zeros((len(near.atoms[e]), len(centre.triple)))
            weights[:, f] = 1.0
            gradient = np.zeros((len(near.first), 3))
            self._over_triples(1, near, e, centre, weights=weights, gradient=gradient)
            np.add.at(forces[:, :, column + f], near.second, gradient)
            np.subtract.at(forces[:, :, column + f], near.first, gradient)
            strain = near.vectors.T @ gradient
            strain = 0.5 * (strain + strain.T)
            virial[:, column + f] += strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def _over_atoms(self, kernel, near: Neighbourhood, *arrays: np.ndarray) -> None:  # type: ignore[no-untyped-def]
        def work(low: int, high: int) -> None:
            kernel(
                low, high, near.start, near.vectors, near.neighbour, len(self.elements), near.longest, *self._common, *arrays
            )  # fmt: skip

        _share(work, len(near.species))

    def _over_triples(
        self,
        mode: int,
        near: Neighbourhood,
        e: int,
        centre: CentreTables,
        *,
        weights: np.ndarray | None = None,
        directions: np.ndarray | None = None,
        out: np.ndarray | None = None,
        gradient: np.ndarray | None = None,
    ) -> None:
        if not len(centre.triple):
            return
        empty = np.empty((0, 0))
        row = np.empty(len(near.species), dtype=np.int64)
        row[near.atoms[e]] = np.arange(len(near.atoms[e]))
        target = empty if out is None else out[:, centre.n_moment_invariants :]

        def work(low: int, high: int) -> None:
            _triples(
                low, high, mode, near.start, near.vectors, near.neighbour, near.species, e, row, self._numbers,
                near.longest, self.tables.cutoff, self.tables.cutoff_function, centre.triple,
                empty if weights is None else weights, empty if directions is None else directions, target,
                empty if gradient is None else gradient,
            )  # fmt: skip

        _share(work, len(near.species))


def _algebra(centre: CentreTables) -> tuple[np.ndarray, ...]:
    return centre.linear, centre.quadratic, centre.cubic_start, centre.cubic_columns, centre.cubic_value


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    from scipy.linalg import block_diag

    return block_diag(*blocks)


@lru_cache(maxsize=4)
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads)


def _share(work, n_atoms: int) -> None:  # type: ignore[no-untyped-def]
    """Run ``work(low, high)`` over all atoms, on torch's number of threads. Every atom's result is its own: same bits."""
    n_threads = min(torch.get_num_threads(), n_atoms // _THREAD_ATOMS)
    if n_threads <= 1:
        work(0, n_atoms)
        return
    # whole multiples of LANES keep the blocks of atoms, and with them the bits, as in one thread
    step = -(-n_atoms // (n_threads * LANES)) * LANES
    bounds = [(low, min(low + step, n_atoms)) for low in range(0, n_atoms, step)]
    list(_pool(n_threads).map(lambda bound: work(*bound), bounds))
