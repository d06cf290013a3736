"""What the estimators made of networks share: whitened frames, training with restarts, networks that stand alone."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from molml.kinetics import loss
from molml.kinetics.covariance import Covariances, whitening
from molml.kinetics.data import (
    Array,
    Streamed,
    TimeLaggedDataset,
    lagged_blocks,
)
from molml.nn import MLP
from molml.training import History, Trainer, TrainingInterrupted, cosine
from molml.training.evaluation import Loss

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "softsign": nn.Softsign,
}
"""Those that are modules of torch as well, so that a network can be handed on as a Sequential."""

Encoder = Callable[[Tensor], Tensor]

_LEAST_EPOCHS, _MOST_EPOCHS = 5, 400
FRAMES = 16384
"""That are looked at together."""
N_SPARE = 3
_RANK = 1e-12  # least relative variance of an output that is no copy of the others


class NetworkEstimator(Protocol):
    """What an estimator made of networks has: parameters, and the steps of a fit that are its own."""

    n_components: int
    hidden: Sequence[int]
    activation: str
    max_epochs: int | None
    batch_size: int
    learning_rate: float
    valid_fraction: float
    patience: int | None
    n_restarts: int
    minutes: float | None
    seed: int
    progress: bool | None

    mean_: Array
    whitening_: Array
    n_features_in_: int
    history_: list[dict[str, Any]]

    def _check(self) -> None:
        """Refuse wrong parameters."""

    def _frames(self, covariances: Covariances) -> Frames:
        """Mean and whitening, from the covariances of all frames or pairs; what targets need is set."""
        ...

    def _networks(self, seed: int) -> nn.ModuleDict:
        """Untrained networks; each becomes an attribute, the ``encoder`` `encoder_`."""
        ...

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> Trained:
        """Train new networks, or those that are present, with whitened frames; what follows from them is set."""
        ...

    def as_module(self) -> nn.Sequential:
        """Features -> coordinates."""
        ...


class Frames(NamedTuple):
    """Statistics of the frames that begin a pair.

    Attributes
    ----------
    mean : array (n_features,)
    whitening : array (rank, n_features)
        ``(x - mean) @ whitening.T`` has unit covariance.
    """

    mean: Array
    whitening: Array


def frame_statistics(covariances: Covariances) -> Frames:
    """Mean and whitening of the first frames of all pairs.

    Raises
    ------
    ValueError
        If no feature varies.
    """
    mean = covariances.mean_0
    matrix = whitening(covariances.c00, mean=mean, resolution=covariances.resolution).T
    if not len(matrix):
        raise ValueError(
            f"X must vary, got {covariances.n_features} feature(s) that are constant over n_samples="
            f"{covariances.n_pairs} frames"
        )
    return Frames(mean, matrix)


def whitened_targets(covariances: Covariances, frames: Frames) -> tuple[Array, Array]:
    """Whitening of the frames that end a pair, after that of the frames that begin one.

    Returns
    -------
    matrix : array (n_targets, rank)
    shift : array (n_targets,)
        ``u @ matrix.T + shift`` of whitened frames u has mean zero and unit covariance over the ends of all pairs.

    Raises
    ------
    ValueError
        If these do not vary.
    """
    w = frames.whitening
    matrix = whitening(w @ covariances.ctt @ w.T).T
    if not len(matrix):
        raise ValueError(f"X must vary, got constant frames after the first {covariances.lagtime}")
    return matrix, -matrix @ w @ (covariances.mean_t - frames.mean)


@contextmanager
def whitened(X: list[Array] | Streamed, frames: Frames) -> Iterator[list[Array]]:
    """Whitened trajectories in single precision: in memory, or, of streams, as memory maps while the context lasts."""
    rank = len(frames.whitening)
    if not isinstance(X, Streamed):
        arrays: list[Array] = [np.empty((len(x), rank), np.float32) for x in X]
        _whiten(X, frames, arrays)
        yield arrays
        return
    with tempfile.TemporaryDirectory(prefix="molml-") as folder:
        maps: list[Array] = [
            np.lib.format.open_memmap(Path(folder) / f"{i}.npy", mode="w+", dtype=np.float32, shape=(length, rank))
            for i, length in enumerate(X.lengths)
        ]
        _whiten(X, frames, maps)
        yield maps


def _whiten(X: list[Array] | Streamed, frames: Frames, results: list[Array]) -> None:
    for index, first, x, _ in lagged_blocks(X, 0):
        results[index][first : first + len(x)] = (x - frames.mean) @ frames.whitening.T


class _Whole:
    """Held-out data as one item: their score is one of all pairs, not a mean over batches."""

    def __init__(self, dataset: TimeLaggedDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> TimeLaggedDataset:
        return self._dataset

    def collate(self, items: list[TimeLaggedDataset]) -> TimeLaggedDataset:
        return items[0]


class Trained(NamedTuple):
    """What training leaves.

    Attributes
    ----------
    network : nn.ModuleDict
        With the weights that were best on the held-out data.
    history : History
    interruption : TrainingInterrupted or None
        Ctrl-C or SIGTERM, to be raised when the estimator is usable.
    """

    network: nn.ModuleDict
    history: History
    interruption: TrainingInterrupted | None


def train(
    estimator: NetworkEstimator,
    make: Callable[[int], nn.ModuleDict],
    objective: Loss,
    pairs: TimeLaggedDataset,
    *,
    present: nn.ModuleDict | None,
    n_steps: int,
    share: float = 1.0,
    seed: int | None = None,
) -> Trained:
    """The best of several trainings from different random weights, judged on held-out blocks of time.

    Parameters
    ----------
    estimator : NetworkEstimator
    make : callable
        Seed -> networks.
    objective : callable
        Loss as the Trainer needs it; it is also called with a whole `TimeLaggedDataset`.
    pairs : TimeLaggedDataset
    present : ModuleDict, optional
        Networks of which a copy is trained on, once, instead of new ones.
    n_steps : int
        Steps to aim at where ``max_epochs`` is not given.
    share : float
        Part of the epochs, steps and minutes that this training may take.
    seed : int, optional
        Of networks and noise; that of the estimator if not given. Held-out blocks always follow the latter.

    Returns
    -------
    Trained
    """
    train_pairs, valid_pairs = pairs, None
    if estimator.valid_fraction > 0:
        train_pairs, valid_pairs = pairs.split(estimator.valid_fraction, seed=estimator.seed)
    best: Trained | None = None
    n_restarts = estimator.n_restarts if present is None else 1
    for restart in range(n_restarts):
        own_seed = int(estimator.seed if seed is None else seed) + restart
        interruption, history = None, History()
        try:
            network = make(own_seed) if present is None else copy.deepcopy(present)
        except TrainingInterrupted as error:
            if best is None:
                raise
            return best._replace(interruption=error)
        batch_size = min(int(estimator.batch_size), len(train_pairs))
        max_epochs = estimator.max_epochs
        if max_epochs is None:
            max_epochs = min(max(round(n_steps * batch_size / len(train_pairs)), _LEAST_EPOCHS), _MOST_EPOCHS)
        description = type(estimator).__name__
        trainer = Trainer(
            network,
            objective,
            # one call for all weights: networks here are so small that a call for each costs more than the arithmetic
            torch.optim.Adam(network.parameters(), lr=estimator.learning_rate, fused=True),
            batch_size=batch_size,
            max_epochs=max(1, round(share * max_epochs)),
            lr_schedule=cosine(warmup=0.05),
            patience=None if estimator.patience is None else int(estimator.patience),
            minutes=None if estimator.minutes is None else share * estimator.minutes / n_restarts,
            seed=own_seed,
            progress=estimator.progress,
            description=description if n_restarts == 1 else f"{description} {restart + 1} of {n_restarts}",
        )
        try:
            history = trainer.fit(train_pairs, None if valid_pairs is None else _Whole(valid_pairs))
        except TrainingInterrupted as error:
            interruption = error
        network.eval()
        if best is None or _objective(history) < _objective(best.history):
            best = Trained(network, history, None)
        if interruption is not None:
            return best._replace(interruption=interruption)
    assert best is not None  # n_restarts is at least 1
    return best


def _objective(history: History) -> float:
    """Of the epoch that was kept; of the held-out data if there are any."""
    if not history.best_epoch:
        return math.inf
    record = history[history.best_epoch - 1]
    value = record["valid_objective"] if "valid_objective" in record else record["train_objective"]
    return math.inf if value is None else float(value)


class Output(NamedTuple):
    """What is made of an encoder's outputs: ``z = outputs @ matrix.T + shift``.

    Attributes
    ----------
    matrix : array (n_components, n_outputs)
    shift : array (n_components,)
    """

    matrix: Array
    shift: Array


def slow_modes(encoder: Encoder, pairs: TimeLaggedDataset, n_components: int) -> tuple[Output, Array]:
    """Combinations of outputs that are slow: uncorrelated, of unit variance, the slowest first.

    The eigenvectors of the symmetrised problem, as TICA finds them.

    Returns
    -------
    Output
    eigenvalues : array (n_components,)
        Descending.

    Raises
    ------
    ValueError
        If fewer outputs are independent.
    """
    c = _covariances(encoder, pairs, reversible=True)
    white = _whitening(c.c00, n_components)
    eigenvalues, vectors = np.linalg.eigh(white @ c.c0t @ white.T)
    matrix = _oriented(vectors[:, : -n_components - 1 : -1].T @ white)
    return Output(matrix, -matrix @ c.mean_x), eigenvalues[: -n_components - 1 : -1].copy()


def singular_modes(encoder: Encoder, pairs: TimeLaggedDataset, n_components: int) -> tuple[Output, Array]:
    """Combinations of outputs whose future is best known: left singular functions, the best known first.

    Returns
    -------
    Output
    eigenvalues : array (n_components,)
        Absolute eigenvalues of the Koopman matrix C00⁻¹ C0t of these combinations, descending; those of processes that
        decay in circles are complex.

    Raises
    ------
    ValueError
        If fewer outputs are independent.
    """
    c = _covariances(encoder, pairs, reversible=False)
    c00, c0t, ctt = c.c00, c.c0t, c.ctt
    white = _whitening(c00, n_components)
    left, _, _ = np.linalg.svd(white @ c0t @ _whitening(ctt, n_components).T)
    matrix = _oriented(left[:, :n_components].T @ white)
    eigenvalues = np.abs(np.linalg.eigvals(matrix @ c0t @ matrix.T))
    return Output(matrix, -matrix @ c.mean_x), np.sort(eigenvalues)[::-1].copy()


def explaining_modes(outputs: Covariances, n_components: int) -> Output:
    """Combinations of outputs by the variance of a target that they explain linearly: those of a linear autoencoder
    are its principal components.

    Parameters
    ----------
    outputs : Covariances
        Of as many outputs as there are to be components and, after them, targets.
    n_components : int

    Returns
    -------
    Output

    Raises
    ------
    ValueError
        If fewer outputs are independent.
    """
    c = outputs.c00
    white = _whitening(c[:n_components, :n_components], n_components)
    left, _, _ = np.linalg.svd(white @ c[:n_components, n_components:])
    matrix = _oriented(left.T @ white)
    return Output(matrix, -matrix @ outputs.mean_0[:n_components])


def _covariances(encoder: Encoder, pairs: TimeLaggedDataset, *, reversible: bool) -> loss.Covariances:
    return loss.covariances(loss.lagged_moments(encoder, pairs), reversible=reversible)


def _whitening(covariance: Array, n_components: int) -> Array:
    """W with W C Wᵀ = 1, (rank, n_outputs)."""
    values, vectors = np.linalg.eigh(covariance)
    kept = (values > _RANK * values[-1]) & (values > 0)
    if kept.sum() < n_components:
        raise ValueError(
            f"n_components must be at most {kept.sum()} for this network and these frames, got {n_components}: the "
            "other coordinates are copies of these or constant"
        )
    root: Array = (vectors[:, kept] / np.sqrt(values[kept])).T
    return root


def _oriented(matrix: Array) -> Array:
    # the sign of an eigenvector is arbitrary, and should not depend on the library that found it
    largest = np.abs(matrix).argmax(axis=1)
    return matrix * np.sign(matrix[range(len(matrix)), largest])[:, None]


def sequential(frames: Frames, encoder: nn.Module, activation: str, output: Output) -> nn.Sequential:
    """Features -> coordinates as one network: whitening and rotation are parts of its first and last layer.

    Parameters
    ----------
    frames : Frames
    encoder : Module
        Linear layers with the activation between them.
    activation : str
    output : Output

    Returns
    -------
    Sequential
        Of Linear and activation modules, in double precision, without gradients.
    """
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    weights = [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in layers]
    first, bias = weights[0]
    weights[0] = (first @ frames.whitening, bias - first @ frames.whitening @ frames.mean)
    last, bias = weights[-1]
    weights[-1] = (output.matrix @ last, output.matrix @ bias + output.shift)
    modules: list[nn.Module] = []
    for weight, bias in weights:
        layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1]).requires_grad_(False)


def encoder_decoder(estimator: Any, seed: int, *, n_outputs: int, n_targets: int) -> nn.ModuleDict:
    """Untrained networks of an autoencoder: the decoder has the encoder's hidden layers in reverse order.

    Parameters
    ----------
    estimator : NetworkEstimator
        With the whitening that the encoder follows.
    seed : int
    n_outputs, n_targets : int
        Of the encoder, and of the decoder, which takes n_components.

    Returns
    -------
    ModuleDict of encoder and decoder
    """
    hidden, rank = list(estimator.hidden), len(estimator.whitening_)
    if not hidden and estimator.n_components > rank:
        raise ValueError(_too_many(estimator.n_components, rank))
    options = {"activation": estimator.activation, "dtype": torch.float32}
    return nn.ModuleDict(
        {
            "encoder": MLP(rank, hidden, n_outputs, seed=2 * seed, **options),
            "decoder": MLP(estimator.n_components, hidden[::-1], n_targets, seed=2 * seed + 1, **options),
        }
    )


def lone_encoder(self: Any, seed: int) -> nn.ModuleDict:
    """Untrained network of a VAMPnet, after the whitening that there is."""
    rank = len(self.whitening_)
    if not self.hidden and self.n_components > rank:
        raise ValueError(_too_many(self.n_components, rank))
    # with more outputs than are asked for, a network that has found a faster process first still finds the slowest
    n_outputs = self.n_components + N_SPARE if self.hidden else min(self.n_components + N_SPARE, rank)
    encoder = MLP(rank, self.hidden, n_outputs, activation=self.activation, seed=seed, dtype=torch.float32)
    return nn.ModuleDict({"encoder": encoder})


def _too_many(n_components: int, rank: int) -> str:
    return f"n_components must be at most {rank}, the rank of the frames, for a linear network, got {n_components}"


@final
class First(nn.Module):
    """The first n columns.

    Parameters
    ----------
    n : int
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.n]


def apply(network: nn.Module, arrays: list[Array] | Streamed) -> list[Array]:
    """A network's outputs for every frame, in double precision.

    Parameters
    ----------
    network : Module
    arrays : list of array or Streamed

    Returns
    -------
    list of array
    """
    parts: list[list[Array]] = [[] for _ in (arrays.lengths if isinstance(arrays, Streamed) else arrays)]
    with torch.no_grad():
        for index, _, block, _ in lagged_blocks(arrays, 0):
            for first in range(0, len(block), FRAMES):
                # torch wants to be able to write to what it reads, which maps of files forbid
                x = np.require(block[first : first + FRAMES], np.float64, ["C", "W"])
                parts[index].append(network(torch.from_numpy(x)).numpy())
    return [np.concatenate(part) for part in parts]


def single(matrix: Array) -> Tensor:
    """In the precision of training."""
    return torch.from_numpy(np.ascontiguousarray(matrix, np.float32))


def numbers(network: nn.Module, x: Tensor) -> Array:
    """A network's outputs, in double precision."""
    with torch.no_grad():
        result: Array = network(x).double().numpy()
    return result


def explained(error: float, total: float) -> float:
    """Fraction of a sum of squares that is explained.

    Raises
    ------
    ValueError
        If it is zero.
    """
    if not total > 0:
        raise ValueError("X must vary, got frames that are all the same")
    return 1.0 - error / total
