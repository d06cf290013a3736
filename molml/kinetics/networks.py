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
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from molml.kinetics import loss
from molml.kinetics.covariance import Covariances, whitening
from molml.kinetics.data import (
    Array,
    Streamed,
    TimeLaggedDataset,
    Trajectories,
    as_list,
    is_several,
    lagged_blocks,
)
from molml.kinetics.metrics import implied_timescales
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
_FRAMES = 16384  # that are looked at together
N_SPARE = 3
_RANK = 1e-12  # least relative variance of an output that is no copy of the others


class Trainable(Protocol):
    """Parameters of every estimator here."""

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


def whole(name: str, value: Any, least: int) -> int:
    """A parameter that must be a whole number.

    Raises
    ------
    ValueError
        If it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_parameters(estimator: Trainable) -> None:
    """Refuse parameters that would fail later, or not at all.

    Raises
    ------
    ValueError
        The message names the parameter.
    """
    if estimator.activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {estimator.activation!r}")
    for name in ("n_components", "n_restarts", "batch_size"):
        whole(name, getattr(estimator, name), 1)
    for name in ("max_epochs", "patience"):
        if getattr(estimator, name) is not None:
            whole(name, getattr(estimator, name), 1)
    whole("seed", estimator.seed, 0)
    if not 0 <= estimator.valid_fraction < 1:
        raise ValueError(f"valid_fraction must be in 0 <= valid_fraction < 1, got {estimator.valid_fraction}")
    if estimator.minutes is not None and not estimator.minutes > 0:
        raise ValueError(f"minutes must be positive, got {estimator.minutes}; leave it out for no limit")
    if not estimator.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {estimator.learning_rate}")


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
    estimator: Trainable,
    make: Callable[[int], nn.ModuleDict],
    objective: Loss,
    pairs: TimeLaggedDataset,
    *,
    n_steps: int,
    n_restarts: int,
    share: float = 1.0,
    seed: int | None = None,
) -> Trained:
    """The best of several trainings from different random weights, judged on held-out blocks of time.

    Parameters
    ----------
    estimator : Trainable
    make : callable
        Seed -> networks.
    objective : callable
        Loss as the Trainer needs it; it is also called with a whole `TimeLaggedDataset`.
    pairs : TimeLaggedDataset
    n_steps : int
        Steps to aim at where ``max_epochs`` is not given.
    n_restarts : int
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
    for restart in range(n_restarts):
        own_seed = int(estimator.seed if seed is None else seed) + restart
        interruption, history = None, History()
        try:
            network = make(own_seed)
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
    estimator : autoencoder
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


def lone_encoder(estimator: Any, seed: int) -> MLP:
    """Untrained network of a VAMPnet.

    Parameters
    ----------
    estimator : VAMPnet
        With the whitening that the encoder follows.
    seed : int

    Returns
    -------
    MLP
    """
    rank = len(estimator.whitening_)
    if not estimator.hidden and estimator.n_components > rank:
        raise ValueError(_too_many(estimator.n_components, rank))
    # with more outputs than are asked for, a network that has found a faster process first still finds the slowest
    n_outputs = estimator.n_components + N_SPARE if estimator.hidden else min(estimator.n_components + N_SPARE, rank)
    return MLP(rank, estimator.hidden, n_outputs, activation=estimator.activation, seed=seed, dtype=torch.float32)


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


def trajectories(estimator: Any, X: Trajectories, *, fitted: bool) -> list[Array] | Streamed:
    """X as list or stream, with the features of the fit where there has been one.

    Raises
    ------
    NotFittedError
        If there should have been one.
    TypeError, ValueError
        If X is not what it should be.
    """
    if fitted:
        check_is_fitted(estimator)
    arrays = as_list(X, n_features=estimator.n_features_in_ if fitted else None)
    # names of the columns of a data frame only: as_list has looked at the rest
    validate_data(estimator, X, reset=not fitted, skip_check_array=True, ensure_2d=False)
    return arrays


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
            for first in range(0, len(block), _FRAMES):
                # torch wants to be able to write to what it reads, which maps of files forbid
                x = np.require(block[first : first + _FRAMES], np.float64, ["C", "W"])
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


def regression_score(estimator: Any, arrays: list[Array] | Streamed, encoder: nn.Module) -> float:
    """Fraction of the variance of whitened later frames that encoder and decoder tell from earlier ones."""
    frames = Frames(estimator.mean_, estimator.whitening_)
    encoder, decoder = copy.deepcopy(encoder).double(), copy.deepcopy(estimator.decoder_).double()
    error, targets = 0.0, Covariances(0)
    for _, _, x, y in lagged_blocks(arrays, estimator.lagtime):
        for first in range(0, len(x), _FRAMES):
            rows = slice(first, first + _FRAMES)
            u, v = ((block[rows] - frames.mean) @ frames.whitening.T for block in (x, y))
            target = v @ estimator.target_matrix_.T + estimator.target_shift_
            targets.update(target)
            error += float(np.square(numbers(nn.Sequential(encoder, decoder), torch.from_numpy(u)) - target).sum())
    return explained(error, targets.n_pairs * np.trace(targets.c00))


def own_timescales(estimator: Any, n: int | None) -> Array:
    """Implied timescales of an estimator's eigenvalues, in frames.

    Raises
    ------
    NotFittedError, ValueError
        If there was no fit, or there are fewer than n.
    """
    check_is_fitted(estimator)
    found = implied_timescales(estimator.eigenvalues_, estimator.lagtime)
    if n is None:
        return found
    if whole("n", n, 1) > len(found):
        raise ValueError(f"n must be at most {len(found)}, the number of components, got {n}")
    return found[:n]


def of_one_kind(X: Trajectories, results: list[Array]) -> Array | list[Array]:
    """One array for one array, a list for a list or a stream."""
    return results if is_several(X) else results[0]
