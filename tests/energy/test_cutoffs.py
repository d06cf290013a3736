"""Cutoff and compact functions: formulas, ends, and the compiled forms beside those in torch."""

import math

import numpy as np
import pytest
import torch

from molml.energy.cutoffs import (
    CUTOFF_FUNCTIONS,
    SHAPES,
    compact_function,
    compact_values,
    cutoff_values,
)
from molml.energy.triples import cutoffs_of

CUTOFF = 4.0
# value half-way between the inner radius and the cutoff, by hand
HALF = {
    "cosine": 0.5,
    "polynomial": 0.5,
    "polynomial_3": 0.5,
    "polynomial_7": 0.5,
    "polynomial_9": 0.5,
    "exponential": math.exp(-1 / 3),
    "hard": 1.0,
}
# value at three quarters: a shape symmetric about its middle would pass at one half whatever its degree
THREE_QUARTERS = {
    "cosine": 0.5 * (1 - math.sqrt(0.5)),
    "polynomial": 53 / 512,
    "polynomial_3": 5 / 32,
    "polynomial_7": 289 / 4096,
    "polynomial_9": 6413 / 131072,
    "exponential": math.exp(-9 / 7),
}
KINKED = ("hard",)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("inner", [0.0, 0.25])
@pytest.mark.parametrize("name", HALF)
def test_values_known_by_hand(name: str, inner: float) -> None:
    kind = CUTOFF_FUNCTIONS.index(name)
    middle = CUTOFF * (1 + inner) / 2
    assert cutoff_values(tensor(middle), CUTOFF, kind, inner).item() == pytest.approx(HALF[name], rel=1e-14)
    assert cutoff_values(tensor(CUTOFF * inner * 0.5), CUTOFF, kind, inner).item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", THREE_QUARTERS)
def test_shapes_differ_where_they_should(name: str) -> None:
    value = cutoff_values(tensor(0.75 * CUTOFF), CUTOFF, CUTOFF_FUNCTIONS.index(name)).item()
    assert value == pytest.approx(THREE_QUARTERS[name], rel=1e-13)


def test_hyperbolic_tangents() -> None:
    r = tensor(1.3)
    plain = math.tanh(1 - 1.3 / CUTOFF) ** 3
    scaled = cutoff_values(r, CUTOFF, CUTOFF_FUNCTIONS.index("tanh")).item()
    assert scaled == pytest.approx(plain / math.tanh(1.0) ** 3, rel=1e-14)
    assert cutoff_values(r, CUTOFF, CUTOFF_FUNCTIONS.index("tanh_unscaled")).item() == pytest.approx(plain, rel=1e-14)


@pytest.mark.parametrize("name", [name for name in CUTOFF_FUNCTIONS if name not in KINKED])
def test_cutoff_functions_end_smoothly(name: str) -> None:
    kind = CUTOFF_FUNCTIONS.index(name)
    r = tensor(CUTOFF - 1e-7, CUTOFF, CUTOFF + 0.3).requires_grad_()
    values = cutoff_values(r, CUTOFF, kind)
    (slopes,) = torch.autograd.grad(values.sum(), r)
    torch.testing.assert_close(values, tensor(0.0, 0.0, 0.0), rtol=0, atol=1e-11)
    assert slopes.abs().max() < 1e-6  # 1e-7 Å before the end
    inside = torch.linspace(0.1, CUTOFF - 0.1, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cutoff_values(x, CUTOFF, kind, 0.3), inside)
    assert torch.autograd.gradgradcheck(lambda x: cutoff_values(x, CUTOFF, kind), inside)


def test_a_hard_cutoff_does_not() -> None:
    values = cutoff_values(tensor(CUTOFF - 1e-7, CUTOFF), CUTOFF, CUTOFF_FUNCTIONS.index("hard"))
    assert values.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("inner", [0.0, 0.35])
@pytest.mark.parametrize("name", CUTOFF_FUNCTIONS)
def test_compiled_cutoff_is_that_in_torch(name: str, inner: float) -> None:
    kind = CUTOFF_FUNCTIONS.index(name)
    r = torch.linspace(0.01, CUTOFF + 0.5, 104, dtype=torch.float64, requires_grad=True)
    values = cutoff_values(r, CUTOFF, kind, inner)
    slopes = torch.autograd.grad(values.sum() + 0.0 * r.sum(), r)[0]
    compiled = np.empty((2, len(r)))
    cutoffs_of(r.detach().numpy()[None], 0, len(r), CUTOFF, kind, inner, compiled, 0)
    np.testing.assert_allclose(compiled[0], values.detach().numpy(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(compiled[1], slopes.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_compact_functions(name: str, asymmetric: bool) -> None:
    low, high, kind = 1.0, 3.0, CUTOFF_FUNCTIONS.index(name)
    r = torch.linspace(0.5, 3.5, 91, dtype=torch.float64, requires_grad=True)
    values = compact_values(r, low, high, kind, asymmetric)
    slopes = torch.autograd.grad(values.sum(), r)[0]
    compiled = np.array([compact_function(float(x), low, high, kind, asymmetric) for x in r.tolist()])
    np.testing.assert_allclose(compiled[:, 0], values.detach().numpy(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(compiled[:, 1], slopes.numpy(), rtol=0, atol=1e-13)
    top, flank, mirrored = compact_values(tensor(2.0, 1.5, 2.5), low, high, kind, asymmetric).tolist()
    assert (top, flank) == (1.0, mirrored)
    # half-way down the flank is x = 1/2, or x = (2 - 1/2) / 2 = 3/4 for the asymmetric one
    assert flank == pytest.approx((THREE_QUARTERS if asymmetric else HALF)[name], rel=1e-13)
    assert values[(r <= low) | (r >= high)].abs().max() == 0.0
