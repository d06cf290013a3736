"""Normalizing flow of affine coupling layers: a density that can be evaluated, sampled and learned."""

import math
from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from molml.nn.mlp import MLP

# largest factor, as a logarithm, by which one layer stretches: keeps an untrained or badly trained flow invertible in
# floating point
_MOST = 2.0


@final
class CouplingFlow(nn.Module):
    """Density of x = f(u), u ~ N(0, I), with f a sequence of invertible layers.

    A layer leaves one half of the coordinates as they are and moves and stretches the other half by amounts that depend
    on the first, v ← v exp(s(w)) + t(w), with s and t of one perceptron; which coordinates are in which half is drawn
    anew for every two layers, that each may change every coordinate. Dinh, Sohl-Dickstein and Bengio, ICLR 2017
    (arXiv:1605.08803), eq. 7 and 8. It starts as a Gaussian, the standard one until `set_scale` is called.

    Parameters
    ----------
    n_dimensions : int
        At least 2.
    n_layers : int
    hidden : sequence of int
        Widths of the perceptron of every layer.
    seed : int, optional
        Of weights and halves; without it they differ from call to call.
    dtype : torch.dtype, optional

    Raises
    ------
    ValueError
        If a number is too small.

    Examples
    --------
    >>> flow = CouplingFlow(2, seed=0)
    >>> x = flow.sample(5, generator=torch.Generator().manual_seed(0))
    >>> x.shape, flow.log_density(x).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        n_dimensions: int,
        *,
        n_layers: int = 8,
        hidden: Sequence[int] = (64, 64),
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if n_dimensions < 2:
            raise ValueError(f"n_dimensions must be at least 2, for a half to depend on the other, got {n_dimensions}")
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {n_layers}")
        self.n_dimensions, self.n_layers, self.hidden = n_dimensions, n_layers, tuple(hidden)
        dtype = dtype or torch.get_default_dtype()
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        kept = n_dimensions // 2
        orders: list[Tensor] = []
        for layer in range(n_layers):
            # the second of two layers changes what the first has kept
            order = orders[-1].roll(-kept) if layer % 2 else torch.randperm(n_dimensions, generator=generator)
            orders.append(order)
        self.register_buffer("orders", torch.stack(orders))
        self.register_buffer("mean", torch.zeros(n_dimensions, dtype=dtype))
        self.register_buffer("scale", torch.ones(n_dimensions, dtype=dtype))
        networks = []
        for layer in range(n_layers):
            n_in = kept if layer % 2 == 0 else n_dimensions - kept
            start = int(torch.randint(2**31, (), generator=generator))
            network = MLP(n_in, self.hidden, 2 * (n_dimensions - n_in), seed=start, dtype=dtype)
            last = cast(nn.Linear, network.layers[-1])
            nn.init.zeros_(last.weight)
            networks.append(network)
        self.networks = nn.ModuleList(networks)

    def set_scale(self, samples: Tensor) -> None:
        """Start from the Gaussian that has mean and standard deviations of the samples.

        Parameters
        ----------
        samples : Tensor, shape (n, n_dimensions)

        Raises
        ------
        ValueError
            If the shape is wrong, a number is not finite, or a coordinate does not vary.
        """
        self._check(samples)
        mean, scale = samples.mean(0), samples.std(0, correction=0)
        if not (torch.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(
                f"samples must be finite and vary in every coordinate, got standard deviations {scale.tolist()}"
            )
        cast(Tensor, self.mean).copy_(mean)
        cast(Tensor, self.scale).copy_(scale)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Push points of the standard normal to the density.

        Parameters
        ----------
        u : Tensor, shape (n, n_dimensions)

        Returns
        -------
        x : Tensor, shape (n, n_dimensions)
        log_volume : Tensor, shape (n,)
            Logarithm of the determinant |∂x/∂u|.

        Raises
        ------
        ValueError
            If the shape is wrong.
        """
        self._check(u)
        volume = self._log_scale()
        for layer in range(self.n_layers):
            order, kept, moved = self._halves(u, layer)
            log_stretch, shift = self._stretch(layer, kept)
            moved = moved * log_stretch.exp() + shift
            u = _joined(order, kept, moved)
            volume = volume + log_stretch.sum(1)
        return u * cast(Tensor, self.scale) + cast(Tensor, self.mean), volume

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pull points back to the standard normal.

        Parameters
        ----------
        x : Tensor, shape (n, n_dimensions)

        Returns
        -------
        u : Tensor, shape (n, n_dimensions)
        log_volume : Tensor, shape (n,)
            Logarithm of the determinant |∂u/∂x|.

        Raises
        ------
        ValueError
            If the shape is wrong.
        """
        self._check(x)
        x = (x - cast(Tensor, self.mean)) / cast(Tensor, self.scale)
        volume = -self._log_scale()
        for layer in reversed(range(self.n_layers)):
            order, kept, moved = self._halves(x, layer)
            log_stretch, shift = self._stretch(layer, kept)
            moved = (moved - shift) * (-log_stretch).exp()
            x = _joined(order, kept, moved)
            volume = volume - log_stretch.sum(1)
        return x, volume

    def log_density(self, x: Tensor) -> Tensor:
        """Logarithm of the density.

        Parameters
        ----------
        x : Tensor, shape (n, n_dimensions)

        Returns
        -------
        Tensor, shape (n,)

        Raises
        ------
        ValueError
            If the shape is wrong.
        """
        u, volume = self.inverse(x)
        return volume - 0.5 * (u.square().sum(1) + self.n_dimensions * math.log(2 * math.pi))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Points drawn from the density.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
            torch's global one if not given.

        Returns
        -------
        Tensor, shape (n, n_dimensions)
        """
        mean = cast(Tensor, self.mean)
        u = torch.randn(n, self.n_dimensions, generator=generator, dtype=mean.dtype, device=mean.device)
        return cast(Tensor, self(u)[0])

    def _log_scale(self) -> Tensor:
        return cast(Tensor, self.scale).log().sum()

    def _halves(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        order = cast(Tensor, self.orders)[layer]
        n_kept = cast(MLP, self.networks[layer]).n_in
        return order, x[:, order[:n_kept]], x[:, order[n_kept:]]

    def _stretch(self, layer: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        log_stretch, shift = self.networks[layer](kept).chunk(2, dim=1)
        return _MOST * torch.tanh(log_stretch / _MOST), shift

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.n_dimensions:
            raise ValueError(f"points must have shape (n, {self.n_dimensions}), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        return f"n_dimensions={self.n_dimensions}"


def _joined(order: Tensor, kept: Tensor, moved: Tensor) -> Tensor:
    return torch.cat([kept, moved], dim=1)[:, torch.argsort(order)]
