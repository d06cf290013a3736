"""Functions that fall smoothly from 1 to 0: cutoff functions, and the compact functions built of the same shapes.

Each comes twice: in torch, differentiable twice, and compiled, with its derivative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

CUTOFF_FUNCTIONS = (
    "cosine",
    "tanh",
    "polynomial",
    "hard",
    "tanh_unscaled",
    "exponential",
    "polynomial_3",
    "polynomial_7",
    "polynomial_9",
)
COSINE, TANH, POLYNOMIAL, HARD, TANH_UNSCALED, EXPONENTIAL, POLYNOMIAL_3, POLYNOMIAL_7, POLYNOMIAL_9 = range(9)
SHAPES = ("polynomial", "exponential", "polynomial_3", "polynomial_7", "polynomial_9")
"""Of these compact functions are made: their slope vanishes at both ends."""

# everything of fast-math but the promises that no NaN and no infinity occurs; whoever changes a compiled function of
# this file must remove __pycache__: numba keeps what other files have compiled it into
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp", "afn"},
}
jit = njit(**_OPTIONS)
# for functions that make no array: arrays are counted whenever a function gets them, which takes longer than some work
borrowing_jit = njit(**_OPTIONS, _nrt=False)


def cutoff_values(distances: Tensor, cutoff: float, kind: int, inner: float = 0.0) -> Tensor:
    """Cutoff function: 1 up to the inner radius (0 where there is none), and 0 from ``cutoff`` on.

    Parameters
    ----------
    distances : Tensor, shape (n,), Å
    cutoff : float, Å
    kind : int
        Index into :data:`CUTOFF_FUNCTIONS`. With x = (r - r_i) / (r_c - r_i) and r_i = ``inner`` · r_c:

        - cosine: ½ [1 + cos(π x)]
        - tanh: tanh³(1 - r / r_c), scaled to 1 at zero; tanh_unscaled: as it is, 0.44 at zero
        - polynomial: 1 - 10 x³ + 15 x⁴ - 6 x⁵, whose second derivative vanishes at both ends as well
        - polynomial_3: 1 - 3 x² + 2 x³
        - polynomial_7: 1 - 35 x⁴ + 84 x⁵ - 70 x⁶ + 20 x⁷
        - polynomial_9: 1 - 126 x⁵ + 420 x⁶ - 540 x⁷ + 315 x⁸ - 70 x⁹
        - exponential: exp(1 - 1 / (1 - x²))
        - hard: 1; energies jump and forces are not their derivatives when a neighbour crosses ``cutoff``
    inner : float
        Inner radius as a fraction of ``cutoff``; of no effect on hard and the two tanh.

    Returns
    -------
    Tensor, shape (n,)

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4 (cosine); Behler, Phys. Chem. Chem. Phys. 13, 17930 (2011) (tanh³);
    Singraber, Behler, Dellago, J. Chem. Theory Comput. 15, 1827 (2019) (polynomials, exponential, inner radius).
    """
    if kind == HARD:
        value = torch.ones_like(distances)
    elif kind in (TANH, TANH_UNSCALED):
        scale = 1.0 / math.tanh(1.0) ** 3 if kind == TANH else 1.0
        value = scale * torch.tanh(1.0 - distances / cutoff) ** 3
    else:
        value = shape_values((distances - inner * cutoff) / (cutoff - inner * cutoff), kind)
    return torch.where(distances < cutoff, value, torch.zeros_like(value))


def shape_values(x: Tensor, kind: int) -> Tensor:
    """The shape itself: 1 for x <= 0, 0 for x >= 1; see :func:`cutoff_values`."""
    inside = (x > 0.0) & (x < 1.0)
    # where() passes NaN of the branch not taken into derivatives; a number in the middle is harmless
    y = torch.where(inside, x, torch.full_like(x, 0.5))
    if kind == COSINE:
        value = 0.5 * (1.0 + torch.cos(math.pi * y))
    elif kind == POLYNOMIAL:
        value = 1.0 + y**3 * (-10.0 + y * (15.0 - 6.0 * y))
    # in factors, because the plain sums lose digits where they cancel near 1
    elif kind == POLYNOMIAL_3:
        value = (1.0 - y) ** 2 * (1.0 + 2.0 * y)
    elif kind == POLYNOMIAL_7:
        value = (1.0 - y) ** 4 * (1.0 + y * (4.0 + y * (10.0 + 20.0 * y)))
    elif kind == POLYNOMIAL_9:
        value = (1.0 - y) ** 5 * (1.0 + y * (5.0 + y * (15.0 + y * (35.0 + 70.0 * y))))
    else:
        value = torch.exp(1.0 - 1.0 / (1.0 - y**2))
    return torch.where(inside, value, (x <= 0.0).to(x.dtype))


def compact_values(x: Tensor, low: float, high: float, kind: int, asymmetric: bool = False) -> Tensor:
    """Compact function: 1 in the middle between ``low`` and ``high``, 0 outside of them.

    Parameters
    ----------
    x : Tensor, shape (n,)
    low, high : float
    kind : int
        Index into :data:`CUTOFF_FUNCTIONS`, one of :data:`SHAPES`.
    asymmetric : bool
        Steeper near the middle: with the distance y from the middle in half widths, the shape is taken at (2 - y) y.

    Returns
    -------
    Tensor, shape (n,)

    References
    ----------
    Bircher, Singraber, Dellago, Mach. Learn.: Sci. Technol. 2, 035026 (2021).
    """
    y = ((x - 0.5 * (low + high)) / (0.5 * (high - low))).abs()
    return shape_values((2.0 - y.clamp(max=1.0)) * y if asymmetric else y, kind)


@intrinsic
def _float_of_bits(typingctx: Any, bits: Any) -> tuple:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@jit
def exp_series(f: Any) -> Any:
    """exp(f) for |f| <= ln 2 / 2, by its series; of a number, or of the lanes of :mod:`molml.energy.lanes`."""
    p = f * (1.0 / 479001600.0) + 1.0 / 39916800.0
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
    return p * f + 1.0


@jit
def exp(x: float) -> float:
    """exp(x) for x <= 0 to 1 ulp or so, in plain arithmetic that the compiler can vectorise; 0 below -700."""
    inside = max(x, -700.0)
    n = math.floor(inside * 1.4426950408889634 + 0.5)
    f = (inside - n * 0.693145751953125) - n * 1.42860682030941723212e-6
    value = exp_series(f) * _float_of_bits((np.int64(n) + 1023) << 52)
    return value if x > -700.0 else 0.0


@jit
def shape(x: float, kind: int) -> tuple[float, float]:
    """The shape at 0 < x < 1 and its derivative; 1 and 0 outside."""
    if x >= 1.0:
        return 0.0, 0.0
    if x <= 0.0:
        return 1.0, 0.0
    if kind == COSINE:
        return 0.5 * (1.0 + math.cos(math.pi * x)), -0.5 * math.pi * math.sin(math.pi * x)
    if kind == POLYNOMIAL:
        return 1.0 + x * x * x * (-10.0 + x * (15.0 - 6.0 * x)), -30.0 * x * x * (1.0 - x) ** 2
    y = 1.0 - x
    if kind == POLYNOMIAL_3:
        return y * y * (1.0 + 2.0 * x), -6.0 * x * y
    if kind == POLYNOMIAL_7:
        return (y * y) ** 2 * (1.0 + x * (4.0 + x * (10.0 + 20.0 * x))), -140.0 * (x * y) ** 3
    if kind == POLYNOMIAL_9:
        value = (y * y) ** 2 * y * (1.0 + x * (5.0 + x * (15.0 + x * (35.0 + 70.0 * x))))
        return value, -630.0 * (x * y) ** 4
    inverse = 1.0 / (1.0 - x * x)
    value = math.exp(1.0 - inverse)
    return value, -2.0 * x * inverse * inverse * value


@jit
def compact_function(x: float, low: float, high: float, kind: int, asymmetric: bool) -> tuple[float, float]:
    """Compact function and its derivative; see :func:`compact_values`."""
    width = 0.5 * (high - low)
    y = (x - 0.5 * (low + high)) / width
    sign = 1.0 if y > 0.0 else -1.0
    y = abs(y)
    if y >= 1.0:
        return 0.0, 0.0
    stretch = 1.0
    if asymmetric:
        stretch = 2.0 - 2.0 * y
        y = (2.0 - y) * y
    value, slope = shape(y, kind)
    return value, sign * stretch * slope / width
