"""What the networks of this arm minimise: errors of reconstruction, variational bounds, VAMP scores.

A loss is called with a batch of pairs while training, and with a whole `TimeLaggedDataset` when held-out data are
judged: scores of covariances are not sums over batches, so that they must see all pairs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from molml.kinetics.data import Array, TimeLagged, TimeLaggedDataset
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


@final
class GaussianMixturePrior(nn.Module):
    """Density Σ_c π_c N(z; μ_c, σ_c²) of latent coordinates, with parameters that can be trained.

    Parameters
    ----------
    n_clusters, n_components : int

    Attributes
    ----------
    logits : Parameter, shape (n_clusters,)
        Logarithms of π, up to a constant.
    mean, logvar : Parameter, shape (n_clusters, n_components)
    """

    def __init__(self, n_clusters: int, n_components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_clusters))
        self.mean = nn.Parameter(torch.zeros(n_clusters, n_components))
        self.logvar = nn.Parameter(torch.zeros(n_clusters, n_components))

    def forward(self, z: Tensor) -> Tensor:
        """log π_c N(z; μ_c, σ_c²), shape (n, n_clusters), of points (n, n_components)."""
        return torch.log_softmax(self.logits, 0) + gaussian.log_density(z[:, None], self.mean, self.logvar)


@final
class GaussianMixtureLoss:
    """Negative evidence bound of a variational autoencoder whose prior is a mixture: terms ``error``, ``divergence``.

    The objective is the mean over frames of precision ‖x - decoder(z)‖² / n_features, which is the bound of a decoder
    with noise of variance n_features / (2 precision), and of log q(z|x) - log p(z), for a sample z of q. The network is
    a mapping with an ``encoder``, which gives mean and log variance side by side, a ``decoder`` and a ``prior``.

    Parameters
    ----------
    precision : float

    References
    ----------
    Jiang, Zheng, Tan, Tang and Zhou, IJCAI 2017, eq. 9, with the q(c|x) of eq. 16: the sum over clusters is then
    log p(z).
    """

    def __init__(self, precision: float) -> None:
        self.precision = precision

    def __call__(self, model: nn.ModuleDict, batch: TimeLagged | TimeLaggedDataset) -> dict[str, Term]:
        error, divergence, count = torch.zeros(()), torch.zeros(()), 0
        with torch.set_grad_enabled(model.training):
            for x, _ in pieces(batch):
                mean, logvar = model["encoder"](x).chunk(2, dim=1)
                # held-out data are judged by samples, too: at the mean a wide q would cost nothing
                z = gaussian.sample(mean, logvar)
                difference = (model["decoder"](z) - x).flatten()
                error = error + self.precision / x.shape[1] * torch.dot(difference, difference)
                entropy = 0.5 * (1 + gaussian.LOG_2PI) * mean.numel() + 0.5 * logvar.sum()
                divergence = divergence - entropy - model["prior"](z).logsumexp(1).sum()
                count += len(x)
        return {"error": Term(error, count), "divergence": Term(divergence, count)}


class LaggedMoments(NamedTuple):
    """Sums over pairs, from which covariances follow, of outputs at t and, beside them, at t + lagtime.

    Attributes
    ----------
    n : int
        Pairs.
    total : array (2 n_outputs,)
    square : array (2 n_outputs, 2 n_outputs)
    """

    n: int
    total: Array
    square: Array


class Covariances(NamedTuple):
    """Of outputs at t and at t + lagtime, and their means.

    Attributes
    ----------
    mean_x, mean_y : array (n_outputs,)
    c00, c0t, ctt : array (n_outputs, n_outputs)
    """

    mean_x: Array
    mean_y: Array
    c00: Array
    c0t: Array
    ctt: Array


class Score(NamedTuple):
    """VAMP-2 score and its derivatives.

    Attributes
    ----------
    value : float
        Without the 1 of the constant function.
    by_c00, by_c0t, by_ctt : array (n_outputs, n_outputs)
    """

    value: float
    by_c00: Array
    by_c0t: Array
    by_ctt: Array


def lagged_moments(network: Callable[[Tensor], Tensor], dataset: TimeLaggedDataset) -> LaggedMoments:
    """Moments of a network's outputs over all pairs, in double precision.

    Parameters
    ----------
    network : torch.nn.Module
    dataset : TimeLaggedDataset

    Returns
    -------
    LaggedMoments
    """
    parts = []
    with torch.no_grad():
        for x, y in pieces(dataset):
            parts.append(_moments(network(torch.cat([x, y])).double().numpy()))
    return LaggedMoments(*(sum(column[1:], start=column[0]) for column in zip(*parts, strict=True)))


def _moments(outputs: Array) -> LaggedMoments:
    """Of outputs (2 n_pairs, n_outputs) at t and, after them, at t + lagtime."""
    n = len(outputs) // 2
    both = np.concatenate([outputs[:n], outputs[n:]], axis=1)
    return LaggedMoments(n, both.sum(0), both.T @ both)


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
    mean, square = moments.total / moments.n, moments.square / moments.n
    k = len(mean) // 2
    if reversible:
        mean = 0.5 * (mean[:k] + mean[k:])
        around = np.outer(mean, mean)
        c00 = 0.5 * (square[:k, :k] + square[k:, k:]) - around
        return Covariances(mean, mean, c00, 0.5 * (square[:k, k:] + square[k:, :k]) - around, c00)
    c = square - np.outer(mean, mean)
    return Covariances(mean[:k], mean[k:], c[:k, :k], c[:k, k:], c[k:, k:])


def vamp2(c: Covariances) -> Score:
    """VAMP-2 score ‖C00^-½ C0t Ctt^-½‖² of covariances.

    It is the trace of C00⁻¹ C0t Ctt⁻¹ C0tᵀ, which needs neither roots nor eigenvectors: unlike theirs, its derivatives
    stay finite where variances are equal.

    Parameters
    ----------
    c : Covariances

    Returns
    -------
    Score

    References
    ----------
    Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eq. 30.
    """
    left, right = _inverse(c.c00), _inverse(c.ctt)
    forward, backward = left @ c.c0t, right @ c.c0t.T
    by_c0t = forward @ right
    return Score(
        float(np.sum(forward * backward.T)),
        _with_ridge(-by_c0t @ forward.T),
        2 * by_c0t,
        _with_ridge(-by_c0t.T @ backward.T),
    )


def _inverse(covariance: Array) -> Array:
    # constant outputs have no variance at all: the smallest number makes their score 0 instead of NaN
    ridge = EPSILON * covariance.trace() / len(covariance) + 1e-30
    inverse: Array = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    return inverse


def _with_ridge(derivative: Array) -> Array:
    """Derivative by a covariance from that by the covariance with its ridge, which is a part of its trace."""
    n = len(derivative)
    return derivative + EPSILON * derivative.trace() / n * np.eye(n)


class _BatchScore(torch.autograd.Function):
    """Score of outputs (2 n_pairs, n_outputs) at t and, after them, at t + lagtime.

    The derivative is written out, because tens of operations on matrices of this size take torch as long as a layer.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, reversible: bool) -> Tensor:
        values = outputs.numpy().astype(np.float64)
        c = covariances(_moments(values), reversible=reversible)
        ctx.values, ctx.c, ctx.score, ctx.reversible, ctx.dtype = values, c, vamp2(c), reversible, outputs.dtype
        return torch.tensor(ctx.score.value, dtype=torch.float64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        n, (_, by_c00, by_c0t, by_ctt) = len(ctx.values) // 2, ctx.score
        f, g = ctx.values[:n] - ctx.c.mean_x, ctx.values[n:] - ctx.c.mean_y
        if ctx.reversible:
            by_c00 = by_ctt = 0.5 * (by_c00 + by_ctt)
            by_c0t = 0.5 * (by_c0t + by_c0t.T)
        by_outputs = np.concatenate([2 * f @ by_c00 + g @ by_c0t.T, 2 * g @ by_ctt + f @ by_c0t])
        return gradient.item() * torch.from_numpy(by_outputs / n).to(ctx.dtype), None


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
        if isinstance(batch, TimeLagged):
            # both ends of the pairs at once: one large product is faster than two
            score = _BatchScore.apply(model["encoder"](torch.cat([batch.x, batch.y])), self.reversible)
        else:
            c = covariances(lagged_moments(model["encoder"], batch), reversible=self.reversible)
            score = torch.tensor(vamp2(c).value, dtype=torch.float64)
        return {"score": Term(-1 - score, 1)}
