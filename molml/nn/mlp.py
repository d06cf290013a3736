"""Multi-layer perceptron."""

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from molml.nn import activations

INITIALISATIONS = (
    "xavier_normal",
    "xavier_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
)


@final
class MLP(nn.Module):
    """Multi-layer perceptron: h ← f(W h + b) for every hidden layer, then W h + b.

    Parameters
    ----------
    n_in : int
        Number of inputs.
    hidden : sequence of int
        Width of every hidden layer; empty for a linear map.
    n_out : int
        Number of outputs.
    activation : str
        Name of f, see `molml.nn.activation`; or one name per hidden layer, with blanks between them.
    initialisation : str
        Law of the initial weights of a layer with n inputs and m outputs; biases start at zero. "normal" is
        centred, "uniform" is symmetric with the same variance.

        - xavier_normal, xavier_uniform: variance 2 / (n + m), Glorot and Bengio, AISTATS 2010, eq. 12 and 16
        - kaiming_normal, kaiming_uniform: variance 2 / n, meant for relu; He et al., ICCV 2015, eq. 10
        - lecun_normal, lecun_uniform: variance 1 / n, LeCun et al., Efficient BackProp (1998), eq. 16
    seed : int, optional
        Seed of the initial weights; without it they differ from call to call. torch's global generator is neither
        read nor moved.
    dtype : torch.dtype, optional
        Type of the weights; torch's default type if not given.

    Raises
    ------
    ValueError
        If a width is not positive, a name is unknown, or there are neither one nor as many as hidden layers.

    Examples
    --------
    >>> network = MLP(2, [8, 8], 1, activation="tanh", seed=0)
    >>> network(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        *,
        activation: str = "silu",
        initialisation: str = "xavier_normal",
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        widths = [n_in, *hidden, n_out]
        if min(widths) < 1:
            raise ValueError(f"n_in, hidden and n_out must be at least 1, got {n_in}, {list(hidden)} and {n_out}")
        if initialisation not in INITIALISATIONS:
            raise ValueError(f"initialisation must be one of {', '.join(INITIALISATIONS)}, got {initialisation!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating type such as torch.float64, got {dtype}")
        self.n_in, self.n_out = n_in, n_out
        self.activation = activation
        names = activation.split()
        if len(names) == 1:
            names *= len(hidden)
        if len(names) != len(hidden):
            raise ValueError(f"activation must name one function or {len(hidden)}, one per layer, got {activation!r}")
        self._functions = [activations.activation(name) for name in names or [activation]]
        # skip_init: nn.Linear would draw from the global generator only to be overwritten
        layers = [
            nn.utils.skip_init(nn.Linear, n, m, dtype=dtype or torch.get_default_dtype())
            for n, m in itertools.pairwise(widths)
        ]
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        for layer in layers:
            _initialise(layer, initialisation, generator)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the network.

        Parameters
        ----------
        x : Tensor, shape (..., n_in)

        Returns
        -------
        Tensor, shape (..., n_out)

        Raises
        ------
        ValueError
            If the last dimension of `x` is not `n_in` long.
        """
        if x.shape[-1:] != (self.n_in,):
            raise ValueError(f"x must have shape (..., {self.n_in}), got {tuple(x.shape)}")
        for layer, function in zip(self.layers[:-1], self._functions, strict=False):
            x = function(layer(x))
        return self.layers[-1](x)

    def extra_repr(self) -> str:
        return f"activation={self.activation}"


def _initialise(layer: nn.Linear, law: str, generator: torch.Generator) -> None:
    n, m = layer.in_features, layer.out_features
    source, shape = law.split("_")
    std = math.sqrt({"xavier": 2 / (n + m), "kaiming": 2 / n, "lecun": 1 / n}[source])
    with torch.no_grad():
        if shape == "normal":
            layer.weight.normal_(0.0, std, generator=generator)
        else:
            layer.weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
        layer.bias.zero_()
