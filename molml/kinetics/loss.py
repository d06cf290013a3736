"""What the networks of this arm minimise: errors of reconstruction, variational bounds, VAMP scores.

A loss is called with a batch of pairs while training, and with a whole `TimeLaggedDataset` when held-out data are
judged: scores of covariances are not sums over batches, so that they must see all pairs at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from molml.kinetics.data import TimeLagged, TimeLaggedDataset
from molml.nn import gaussian
from molml.training import Term

PIECE = 16384
"""Pairs looked at together when a whole data set is judged."""

EPSILON = 1e-6
"""Added to covariances, in units of their mean variance, before they are inverted."""


def pieces(batch: TimeLagged | TimeLaggedDataset) -> Iterator[TimeLagged]:
    """A batch as it is; a data set in pieces that fit into memory."""
    if isinstance(batch, TimeLagged):
        yield batch
        return
    for first in range(0, len(batch), PIECE):
        yield batch.collate(range(first, min(first + PIECE, len(batch))))


@final
class ReconstructionLoss:
    """Mean squared error, over pairs and components, of what a decoder makes of frame t: term ``mse``.

    The network is a mapping with an ``encoder`` and a ``decoder``; the target is ``y @ matrix.T + shift``.

    Parameters
    ----------
    matrix : Tensor, shape (n_targets, n_features)
    shift : Tensor, shape (n_targets,)
    """

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        self.matrix, self.shift = matrix, shift

    def __call__(self, model: nn.ModuleDict, batch: TimeLagged | TimeLaggedDataset) -> dict[str, Term]:
        total, count = torch.zeros(()), 0
        with torch.set_grad_enabled(model.training):
            for x, y in pieces(batch):
                target = torch.addmm(self.shift, y, self.matrix.T)
                error = model["decoder"](model["encoder"](x)) - target
                # the dot product is one pass over the numbers, where square and sum are two
                flat = error.flatten()
                total = total + torch.dot(flat, flat)
                count += error.numel()
        return {"mse": Term(total, count)}


@final
class VariationalLoss:
    """Squared error and divergence of a variational encoder: terms ``error`` and ``kl``.

    The objective is the mean over pairs of ½ ‖y - decoder(z)‖² + β KL(q(z|x) ‖ N(0, 1)): summed over the components of
    the target and of z alike, so that β = 1 is the evidence bound of a decoder with noise of unit variance. The
    encoder gives mean and log variance side by side. Held-out data are judged with the mean instead of a sample.

    Parameters
    ----------
    matrix, shift : Tensor
        As in `ReconstructionLoss`.
    beta : float

    References
    ----------
    Kingma and Welling, ICLR 2014, eq. 10; Higgins et al., ICLR 2017, eq. 4, for β.
    """

    def __init__(self, matrix: Tensor, shift: Tensor, beta: float) -> None:
        self.matrix, self.shift, self.beta = matrix, shift, beta

    def __call__(self, model: nn.ModuleDict, batch: TimeLagged | TimeLaggedDataset) -> dict[str, Term]:
        error, kl, count = torch.zeros(()), torch.zeros(()), 0
        with torch.set_grad_enabled(model.training):
            for x, y in pieces(batch):
                mean, logvar = model["encoder"](x).chunk(2, dim=1)
                z = gaussian.sample(mean, logvar) if model.training else mean
                difference = (model["decoder"](z) - torch.addmm(self.shift, y, self.matrix.T)).flatten()
                error = error + 0.5 * torch.dot(difference, difference)
                kl = kl + gaussian.kl_divergence(mean, logvar).sum()
                count += len(x)
        return {"error": Term(error, count), "kl": Term(kl, count, self.beta)}


class LaggedMoments(NamedTuple):
    """Sums over pairs, from which covariances follow.

    Attributes
    ----------
    n : int
        Pairs.
    x, y : Tensor, shape (n_outputs,)
        Σ x and Σ y.
    xx, xy, yy : Tensor, shape (n_outputs, n_outputs)
        Σ x xᵀ, Σ x yᵀ and Σ y yᵀ.
    """

    n: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor


class Covariances(NamedTuple):
    """Of outputs at t and at t + lagtime, and their means.

    Attributes
    ----------
    mean_x, mean_y : Tensor, shape (n_outputs,)
    c00, c0t, ctt : Tensor, shape (n_outputs, n_outputs)
    """

    mean_x: Tensor
    mean_y: Tensor
    c00: Tensor
    c0t: Tensor
    ctt: Tensor


def lagged_moments(network: nn.Module, batch: TimeLagged | TimeLaggedDataset) -> LaggedMoments:
    """Moments of a network's outputs, in double precision.

    Parameters
    ----------
    network : torch.nn.Module
    batch : TimeLagged or TimeLaggedDataset

    Returns
    -------
    LaggedMoments
    """
    sums: Any = None
    for x, y in pieces(batch):
        # both ends of the pairs at once: one large product is faster than two
        outputs = network(torch.cat([x, y])).double()
        f, g = outputs[: len(x)], outputs[len(x) :]
        new = (len(x), f.sum(0), g.sum(0), f.T @ f, f.T @ g, g.T @ g)
        sums = new if sums is None else tuple(a + b for a, b in zip(sums, new, strict=True))
    return LaggedMoments(*sums)


def covariances(moments: LaggedMoments, *, reversible: bool) -> Covariances:
    """Covariances of pairs; with `reversible`, of the pairs and the same pairs reversed in time.

    Parameters
    ----------
    moments : LaggedMoments
    reversible : bool

    Returns
    -------
    Covariances

    References
    ----------
    Noé and Clementi, J. Chem. Theory Comput. 11, 5002 (2015), eq. 20-22, for reversed pairs.
    """
    n, x, y, xx, xy, yy = moments
    if reversible:
        x, xx, xy = (x + y) / 2, (xx + yy) / 2, (xy + xy.T) / 2
        y, yy = x, xx
    mean_x, mean_y = x / n, y / n
    return Covariances(
        mean_x,
        mean_y,
        xx / n - torch.outer(mean_x, mean_x),
        xy / n - torch.outer(mean_x, mean_y),
        yy / n - torch.outer(mean_y, mean_y),
    )


def vamp2(c: Covariances) -> Tensor:
    """VAMP-2 score ‖C00^-½ C0t Ctt^-½‖² of the covariances, without the 1 of the constant function.

    Roots of Cholesky take the place of symmetric ones: the norm is the same, and unlike those of eigenvectors their
    derivatives stay finite where variances are equal.

    Parameters
    ----------
    c : Covariances

    Returns
    -------
    Tensor, shape ()

    References
    ----------
    Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eq. 30.
    """
    left, right = _root(c.c00), _root(c.ctt)
    half = torch.linalg.solve_triangular(left, c.c0t, upper=False)
    return torch.linalg.solve_triangular(right, half.T, upper=False).square().sum()


def _root(covariance: Tensor) -> Tensor:
    n = len(covariance)
    # constant outputs have no variance at all: the smallest number makes their score 0 instead of NaN
    ridge = EPSILON * covariance.diagonal().sum() / n + 1e-30
    return torch.linalg.cholesky(covariance + ridge * torch.eye(n, dtype=covariance.dtype))


@final
class VAMPLoss:
    """Negative VAMP-2 score of a network's outputs, the constant function included: term ``score``.

    Of the pairs as they are, or, with `reversible`, of the pairs and their reverse, where it is the sum of the squared
    eigenvalues of the symmetrised problem.

    Parameters
    ----------
    reversible : bool

    References
    ----------
    Mardt, Pasquali, Wu and Noé, Nat. Commun. 9, 5 (2018), eq. 9; Chen, Sidky and Ferguson, J. Chem. Phys. 150, 214114
    (2019), eq. 13, for reversible pairs.
    """

    def __init__(self, *, reversible: bool) -> None:
        self.reversible = reversible

    def __call__(self, model: nn.ModuleDict, batch: TimeLagged | TimeLaggedDataset) -> dict[str, Term]:
        with torch.set_grad_enabled(model.training):
            moments = lagged_moments(model["encoder"], batch)
            score = 1 + vamp2(covariances(moments, reversible=self.reversible))
        return {"score": Term(-score, 1)}
