"""Real spherical harmonics and their couplings, against Legendre polynomials, quadrature and rotations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from scipy.stats import ortho_group, special_ortho_group

from molml.energy.harmonics import coupling, n_harmonics, normalisation, real_harmonics

DEGREE = 8
EVEN = [d for d in itertools.product(range(5), repeat=3) if sum(d) % 2 == 0 and abs(d[0] - d[1]) <= d[2] <= d[0] + d[1]]


def unit_vectors(n: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_low_degrees_are_the_well_known_polynomials() -> None:
    u = unit_vectors(10)
    x, y, z = u.T
    values = real_harmonics(u, 2)
    root = np.sqrt(3.0)
    expected = [
        torch.ones_like(x),
        y, z, x,
        root * x * y, root * y * z, (3 * z**2 - 1) / 2, root * x * z, root / 2 * (x**2 - y**2),
    ]  # fmt: skip
    torch.testing.assert_close(values, torch.stack(expected, dim=1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("degree", range(DEGREE + 1))
def test_addition_theorem(degree: int) -> None:
    u, v = unit_vectors(50, 1), unit_vectors(50, 2)
    block = slice(degree**2, (degree + 1) ** 2)
    sums = (real_harmonics(u, DEGREE)[:, block] * real_harmonics(v, DEGREE)[:, block]).sum(1)
    expected = eval_legendre(degree, (u * v).sum(1).numpy())
    np.testing.assert_allclose(sums.numpy(), expected, rtol=0, atol=1e-13)


def test_orthogonal_on_the_sphere() -> None:
    # Gauss-Legendre in z and equal steps in φ integrate these polynomials exactly
    z, weight = np.polynomial.legendre.leggauss(DEGREE + 1)
    phi = 2 * np.pi * np.arange(2 * DEGREE + 1) / (2 * DEGREE + 1)
    s = np.sqrt(1 - z**2)
    points = np.stack([np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones_like(phi))], axis=-1)
    values = real_harmonics(torch.from_numpy(points.reshape(-1, 3)), DEGREE).numpy()
    overlap = values.T @ (values * np.repeat(weight / 2 / len(phi), len(phi))[:, None])
    degrees = np.repeat(np.arange(DEGREE + 1), 2 * np.arange(DEGREE + 1) + 1)
    np.testing.assert_allclose(overlap, np.diag(1 / (2 * degrees + 1)), rtol=0, atol=1e-14)


def test_derivatives_through_a_direction() -> None:
    vectors = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)

    def of_direction(r: torch.Tensor) -> torch.Tensor:
        return real_harmonics(r / r.norm(dim=1, keepdim=True), 5)

    assert torch.autograd.gradcheck(of_direction, vectors)
    assert torch.autograd.gradgradcheck(of_direction, vectors)


def test_number_and_normalisation() -> None:
    assert [n_harmonics(l) for l in range(4)] == [1, 4, 9, 16]  # noqa: E741
    np.testing.assert_allclose(normalisation(2)[2], [1, np.sqrt(2 / 6), np.sqrt(2 / 24)], rtol=1e-15)


def moments(vectors: np.ndarray, degree: int, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).normal(size=len(vectors))
    units = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return weights @ real_harmonics(units, degree).numpy()[:, degree**2 : (degree + 1) ** 2]


def product(degrees: tuple[int, int, int], vectors: np.ndarray) -> float:
    index, value = coupling(*degrees)
    a, b, c = (moments(vectors, degree, seed) for seed, degree in enumerate(degrees))
    return float(np.sum(value * a[index[:, 0]] * b[index[:, 1]] * c[index[:, 2]]))


@pytest.mark.parametrize("degrees", EVEN)
def test_coupled_products_are_invariant(degrees: tuple[int, int, int]) -> None:
    vectors = np.random.default_rng(5).normal(size=(6, 3))
    before = product(degrees, vectors)
    rotation, mirror = special_ortho_group(3, seed=6).rvs(), np.diag([1.0, 1.0, -1.0])
    for change in (rotation, mirror, -np.eye(3), ortho_group(3, seed=7).rvs()):
        assert product(degrees, vectors @ change.T) == pytest.approx(before, rel=1e-12, abs=1e-13)


def test_a_product_that_is_not_coupled_turns_with_the_vectors() -> None:
    vectors = np.random.default_rng(5).normal(size=(6, 3))
    turned = vectors @ special_ortho_group(3, seed=6).rvs().T
    single, after = (np.prod([moments(v, 2, seed)[0] for seed in range(3)]) for v in (vectors, turned))
    assert abs(after - single) > 0.01 * abs(single)


@pytest.mark.parametrize("degrees", EVEN)
def test_coupling_is_one_for_parallel_vectors(degrees: tuple[int, int, int]) -> None:
    index, value = coupling(*degrees)
    u = real_harmonics(unit_vectors(1, 8), 4).numpy()[0]
    a, b, c = (u[l**2 : (l + 1) ** 2] for l in degrees)  # noqa: E741
    assert np.sum(value * a[index[:, 0]] * b[index[:, 1]] * c[index[:, 2]]) == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("degrees", [(1, 1, 1), (0, 1, 2), (2, 2, 5), (1, 1, 4)])
def test_coupling_refuses(degrees: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="triangle rule and have an even sum"):
        coupling(*degrees)
