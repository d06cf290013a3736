import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.nn import activation
from molml.nn.activations import ACTIVATIONS


def sigma(x):
    return 1 / (1 + math.exp(-x))


# value and derivative as printed in the docstrings, with the math module only
FORMULAS = {
    "identity": (lambda x: x, lambda x: 1.0),
    "binary_step": (lambda x: float(x >= 0), lambda x: 0.0),
    "logistic": (sigma, lambda x: sigma(x) * (1 - sigma(x))),
    "tanh": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "arctan": (math.atan, lambda x: 1 / (1 + x * x)),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "relu": (lambda x: max(0.0, x), lambda x: float(x > 0)),
    "silu": (lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * (1 - sigma(x)))),
    "softplus": (lambda x: math.log1p(math.exp(x)), sigma),
    "gaussian": (lambda x: math.exp(-x * x / 2), lambda x: -x * math.exp(-x * x / 2)),
    "cosine": (math.cos, lambda x: -math.sin(x)),
    "reverse_logistic": (lambda x: 1 - sigma(x), lambda x: -sigma(x) * (1 - sigma(x))),
    "exponential": (lambda x: math.exp(-x), lambda x: -math.exp(-x)),
    "square": (lambda x: x * x, lambda x: 2 * x),
}
UNBOUNDED = {"identity", "relu", "silu", "softplus", "exponential", "square"}


def test_every_activation_has_a_formula_here():
    assert FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", FORMULAS)
@given(x=st.floats(-30, 30).filter(lambda x: abs(x) > 1e-6))
def test_value_and_derivative_follow_the_formula(name, x):
    value, derivative = FORMULAS[name]
    t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = activation(name)(t)
    (slope,) = torch.autograd.grad(y, t)
    assert y.item() == pytest.approx(value(x), rel=1e-12, abs=1e-12)
    assert slope.item() == pytest.approx(derivative(x), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_second_derivative_equals_differences_of_the_first(name):
    x = torch.linspace(-3.05, 3.05, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: activation(name)(t) + 0 * t**2, (x,))


@pytest.mark.parametrize("name", sorted(FORMULAS.keys() - UNBOUNDED))
def test_bounded_activations_stay_finite_at_extremes(name):
    x = torch.tensor([-np.inf, -1e300, 1e300, np.inf], dtype=torch.float64)
    finite = torch.isfinite(activation(name)(x))
    # softsign(±inf) = inf / inf has no value, nor has cos(±inf)
    assert finite[1:3].all() and (finite.all() or name in ("softsign", "cosine"))


@pytest.mark.parametrize("name", FORMULAS)
def test_shape_and_type_are_kept(name):
    x = torch.zeros(2, 0, 3, dtype=torch.float32)
    assert activation(name)(x).shape == (2, 0, 3)
    assert activation(name)(x).dtype == torch.float32


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="one of identity, binary_step, .*square, got 'swish'"):
        activation("swish")


def test_tanh_of_single_precision_is_that_of_double_precision():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, -1e-30, 0.0, 1e30, torch.inf, -torch.inf])])
    exact = torch.tanh(x.double())
    assert (activation("tanh")(x) - exact).abs().max() <= 2e-7
    x.requires_grad_()
    (slope,) = torch.autograd.grad(activation("tanh")(x).sum(), x, create_graph=True)
    torch.testing.assert_close(slope.detach().double(), 1 - exact**2, rtol=0, atol=5e-7)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(curvature.double(), -2 * exact * (1 - exact**2), rtol=0, atol=1e-6)
