"""Activation functions, found by name.

Each works on a Tensor of any shape, element by element, and can be differentiated twice, as force training needs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def identity(x: Tensor) -> Tensor:
    """f(x) = x, f'(x) = 1; a network of it is a linear model."""
    return x


def binary_step(x: Tensor) -> Tensor:
    """f(x) = 1 for x >= 0, else 0; f'(x) = 0, so that nothing below it can be trained by gradients.

    The threshold unit of McCulloch and Pitts, Bull. Math. Biophys. 5, 115 (1943).
    """
    # 0 * x keeps the graph: the derivative is zero, not absent; where() keeps an infinite x from becoming nan
    return (x >= 0).to(x.dtype) + 0 * torch.where(torch.isinf(x), torch.zeros_like(x), x)


def logistic(x: Tensor) -> Tensor:
    """f(x) = 1 / (1 + exp(-x)), f'(x) = f(x) (1 - f(x))."""
    return torch.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """f(x) = (exp(x) - exp(-x)) / (exp(x) + exp(-x)), f'(x) = 1 - f(x)².

    In single precision on the CPU it is computed as 2 s(2x) - 1, with s the logistic function: the same to 2e-7, and
    more than twice as fast.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu":
        result: Tensor = _SingleTanh.apply(x)
        return result
    return torch.tanh(x)


class _SingleTanh(torch.autograd.Function):
    """tanh of single precision: torch evaluates the logistic function six times as fast as tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.mul(x, 2).sigmoid_()
        torch.add(x.new_tensor(-1.0), y, alpha=2, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # torch knows the derivative of this one, too
        return torch.ops.aten.tanh_backward(gradient, y)


def arctan(x: Tensor) -> Tensor:
    """f(x) = arctan(x), f'(x) = 1 / (1 + x²)."""
    return torch.arctan(x)


def softsign(x: Tensor) -> Tensor:
    """f(x) = x / (1 + |x|), f'(x) = 1 / (1 + |x|)²."""
    return functional.softsign(x)


def relu(x: Tensor) -> Tensor:
    """f(x) = max(0, x); f'(x) = 1 for x > 0, else 0. Its second derivative is zero: forces made of it are steps.

    Nair and Hinton, ICML 2010.
    """
    return torch.relu(x)


def silu(x: Tensor) -> Tensor:
    """f(x) = x s(x), f'(x) = s(x) (1 + x (1 - s(x))), with s the logistic function.

    Elfwing, Uchibe and Doya, Neural Networks 107, 3 (2018), eq. 9 and 10.
    """
    return functional.silu(x)


def softplus(x: Tensor) -> Tensor:
    """f(x) = log(1 + exp(x)), f'(x) = 1 / (1 + exp(-x)).

    Dugas et al., NIPS 13 (2000). Evaluated without the linear branch that torch's own takes for x > 20.
    """
    return torch.logaddexp(x, torch.zeros_like(x))


def gaussian(x: Tensor) -> Tensor:
    """f(x) = exp(-x²/2), f'(x) = -x f(x)."""
    return torch.exp(-0.5 * x**2)


def cosine(x: Tensor) -> Tensor:
    """f(x) = cos(x), f'(x) = -sin(x)."""
    return torch.cos(x)


def reverse_logistic(x: Tensor) -> Tensor:
    """f(x) = 1 - 1 / (1 + exp(-x)), f'(x) = -f(x) (1 - f(x))."""
    return torch.sigmoid(-x)


def exponential(x: Tensor) -> Tensor:
    """f(x) = exp(-x), f'(x) = -f(x)."""
    return torch.exp(-x)


def square(x: Tensor) -> Tensor:
    """f(x) = x², f'(x) = 2 x; "harmonic" in programs for interatomic potentials."""
    return x**2


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "binary_step": binary_step,
    "logistic": logistic,
    "tanh": tanh,
    "arctan": arctan,
    "softsign": softsign,
    "relu": relu,
    "silu": silu,
    "softplus": softplus,
    "gaussian": gaussian,
    "cosine": cosine,
    "reverse_logistic": reverse_logistic,
    "exponential": exponential,
    "square": square,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Activation function of that name.

    Parameters
    ----------
    name : str
        One of identity, binary_step, logistic, tanh, arctan, softsign, relu, silu, softplus, gaussian, cosine,
        reverse_logistic, exponential, square.

    Returns
    -------
    Callable
        Tensor of any shape -> Tensor of the same shape.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> activation("softsign")(torch.tensor([-1.0, 0.0, 3.0]))
    tensor([-0.5000,  0.0000,  0.7500])
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]
