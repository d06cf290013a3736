"""Real spherical harmonics as polynomials of a unit vector, and how three of them couple to an invariant.

Normalised after Racah, so that the addition theorem has no prefactor: sum over m of Y_lm(u) Y_lm(v) = P_l(u · v),
the Legendre polynomial of the angle's cosine. Column of (l, m) is ``l² + l + m``; m < 0 are the sine functions.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def n_harmonics(degree: int) -> int:
    """Number of functions up to and including ``degree``."""
    return (degree + 1) ** 2


@lru_cache(maxsize=16)
def normalisation(degree: int) -> np.ndarray:
    """Racah factors, shape (degree + 1, degree + 1): 1 for m = 0, else sqrt(2 (l - m)! / (l + m)!)."""
    table = np.zeros((degree + 1, degree + 1))
    for l in range(degree + 1):  # noqa: E741  (the field's letter)
        table[l, 0] = 1.0
        for m in range(1, l + 1):
            table[l, m] = math.sqrt(2.0 * math.factorial(l - m) / math.factorial(l + m))
    return table


def real_harmonics(unit: Tensor, degree: int) -> Tensor:
    """All real harmonics of unit vectors, double-differentiable.

    Parameters
    ----------
    unit : Tensor, shape (n, 3)
        Unit vectors. The functions are polynomials of their components, extended off the sphere as they stand: a
        derivative has to be projected on the tangent plane, which differentiating through ``r / |r|`` does.
    degree : int
        Highest l.

    Returns
    -------
    Tensor, shape (n, (degree + 1)²)

    References
    ----------
    Varshalovich, Moskalev, Khersonskii, Quantum Theory of Angular Momentum (World Scientific, 1988), chapter 5.
    """
    x, y, z = unit.unbind(-1)
    factor = normalisation(degree)
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(degree):
        cosine.append(x * cosine[-1] - y * sine[-1])
        sine.append(x * sine[-1] + y * cosine[-2])
    columns: list[Tensor] = [torch.empty(0)] * n_harmonics(degree)
    for m in range(degree + 1):
        # q_l = d^m P_l / dz^m, by the recurrence of the associated Legendre functions without their (1 - z²)^(m/2)
        before, q = torch.zeros_like(z), torch.full_like(z, math.prod(range(1, 2 * m, 2)))
        for l in range(m, degree + 1):  # noqa: E741
            if l > m:
                before, q = q, ((2 * l - 1) * z * q - (l + m - 1) * before) / (l - m)
            centre = l * l + l
            columns[centre + m] = factor[l, m] * q * cosine[m]
            if m:
                columns[centre - m] = factor[l, m] * q * sine[m]
    return torch.stack(columns, dim=-1)


@lru_cache(maxsize=128)
def coupling(l1: int, l2: int, l3: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the rotation- and reflection-invariant product of three sets of moments.

    The invariant is ``sum_t value[t] · A[l1, m1[t]] · B[l2, m2[t]] · C[l3, m3[t]]``. For an even sum of degrees the
    only one is the integral of three harmonics over the sphere (Gaunt); it is computed by exact quadrature and scaled
    to 1 at three parallel unit vectors.

    Parameters
    ----------
    l1, l2, l3 : int

    Returns
    -------
    index : int array, shape (n_terms, 3)
        Column of each factor within its own degree, 0 … 2l.
    value : float array, shape (n_terms,)

    Raises
    ------
    ValueError
        If the degrees break the triangle rule or add up to an odd number (a pseudoscalar: reflection turns its sign).

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019): invariant products of atomic base functions.
    """
    if (l1 + l2 + l3) % 2 or not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(
            f"degrees must obey the triangle rule and have an even sum, got ({l1}, {l2}, {l3}); choose e.g. (1, 1, 2)"
        )
    degree = max(l1, l2, l3)
    n = l1 + l2 + l3 + 2
    z, weight = np.polynomial.legendre.leggauss(n)
    phi = 2.0 * np.pi * np.arange(2 * n) / (2 * n)
    s = np.sqrt(1.0 - z**2)
    points = np.stack([np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones_like(phi))], axis=-1)
    values = real_harmonics(torch.as_tensor(points.reshape(-1, 3)), degree).numpy()
    weights = np.repeat(weight, 2 * n)
    block = [values[:, l * l : (l + 1) ** 2] for l in (l1, l2, l3)]  # noqa: E741
    tensor = np.einsum("p,pa,pb,pc->abc", weights, *block)
    tensor /= tensor[l1, l2, l3]  # m = 0 of each: the value along z
    tensor[np.abs(tensor) < 1e-12] = 0.0
    index = np.argwhere(tensor)
    return index.astype(np.int64), tensor[tuple(index.T)]
