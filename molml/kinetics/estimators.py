"""Methods of the estimators made of networks, which have them by assignment: ``fit = estimators.fit``.

Frames are whitened first; training is in single precision by the Trainer, and judged on held-out blocks of time; what
comes out is in double precision, and the same for the same seed. `NetworkEstimator` tells what a class has to add.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from molml.kinetics.covariance import Covariances
from molml.kinetics.data import (
    Array,
    Streamed,
    TimeLaggedDataset,
    Trajectories,
    as_list,
    check_lagtime,
    lagged_blocks,
    of_one_kind,
    whole,
)
from molml.kinetics.metrics import implied_timescales, vamp_score
from molml.kinetics.networks import (
    ACTIVATIONS,
    FRAMES,
    First,
    Frames,
    NetworkEstimator,
    Output,
    apply,
    explained,
    numbers,
    sequential,
    whitened,
)

E = TypeVar("E", bound=NetworkEstimator)


def check_parameters(estimator: NetworkEstimator) -> None:
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


def check_lagged_parameters(estimator: Any) -> None:
    """Those of an estimator of pairs of frames.

    Raises
    ------
    ValueError
        The message names the parameter.
    """
    check_parameters(estimator)
    check_lagtime(estimator.lagtime, least=1)


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


def fit(self: E, X: Trajectories, y: None = None) -> E:
    """Train anew.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    y : None

    Returns
    -------
    estimator
        This object.

    Raises
    ------
    TypeError, ValueError
        If X or a parameter is not what it should be, or a trajectory is not longer than the lag time.
    TrainingInterrupted
        After Ctrl-C; the estimator is fitted as far as it came.
    """
    self._check()
    arrays = trajectories(self, X, fitted=False)
    covariances = Covariances(_lagtime(self)).update(arrays)
    self.mean_, self.whitening_ = self._frames(covariances)
    self.n_features_in_ = covariances.n_features
    return _trained(self, arrays, None)


def partial_fit(self: E, X: Trajectories, y: None = None) -> E:
    """Train on, from the present weights, with other trajectories; parameters, result and errors as in `fit`.

    Mean and whitening stay those of the first call; the coordinates, and their eigenvalues, are those of the new
    frames.
    """
    if not hasattr(self, "encoder_"):
        return fit(self, X)
    self._check()
    return _trained(self, trajectories(self, X, fitted=True), present_networks(self))


def _trained(estimator: E, arrays: list[Array] | Streamed, present: nn.ModuleDict | None) -> E:
    with whitened(arrays, Frames(estimator.mean_, estimator.whitening_)) as frames:
        pairs = TimeLaggedDataset(frames, _lagtime(estimator))
        trained = estimator._train(pairs, present)
    _set_networks(estimator, trained.network)
    estimator.history_ = list(trained.history)
    if trained.interruption is not None:
        raise trained.interruption
    return estimator


def _lagtime(estimator: Any) -> int:
    # what knows of no time pairs every frame with itself
    return getattr(estimator, "lagtime", 0)


def _set_networks(estimator: Any, networks: nn.ModuleDict) -> None:
    for name, network in networks.items():
        setattr(estimator, f"{name}_", network)


def present_networks(estimator: Any) -> nn.ModuleDict:
    """The networks that `_networks` named, as they are."""
    names = [name for name in ("encoder", "decoder", "prior") if hasattr(estimator, f"{name}_")]
    return nn.ModuleDict({name: getattr(estimator, f"{name}_") for name in names})


def build_networks(self: NetworkEstimator) -> None:
    """Untrained networks, for `load_estimator` to fill."""
    _set_networks(self, self._networks(0))


def transform(self: NetworkEstimator, X: Trajectories) -> Array | list[Array]:
    """Coordinates of every frame.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed

    Returns
    -------
    array (n_frames, n_components), or a list of such arrays for a list or a stream

    Raises
    ------
    NotFittedError, TypeError, ValueError
        If there was no fit, or X is not what it should be.
    """
    return of_one_kind(X, apply(self.as_module(), trajectories(self, X, fitted=True)))


def as_module(self: Any) -> nn.Sequential:
    """Features -> coordinates as a network of Linear and activation modules, in double precision.

    Returns
    -------
    Sequential
        Equal to `transform`.
    """
    check_is_fitted(self)
    frames, output = Frames(self.mean_, self.whitening_), Output(self.rotation_, self.shift_)
    return sequential(frames, self.encoder_, self.activation, output)


def timescales(self: Any, n: int | None = None) -> Array:
    """Implied timescales of `eigenvalues_`, -lagtime / ln λ, longest first.

    Parameters
    ----------
    n : int, optional
        How many; all if not given.

    Returns
    -------
    array (n,), frames
        0 for λ <= 0, infinite for λ >= 1.

    Raises
    ------
    NotFittedError, ValueError
        If there was no fit, or there are fewer.
    """
    check_is_fitted(self)
    found = implied_timescales(self.eigenvalues_, self.lagtime)
    if n is None:
        return found
    if whole("n", n, 1) > len(found):
        raise ValueError(f"n must be at most {len(found)}, the number of components, got {n}")
    return found[:n]


def regression_score(self: Any, X: Trajectories, y: None = None) -> float:
    """Fraction of the variance of later frames, whitened, that is told from earlier ones.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    y : None

    Returns
    -------
    float
        1 - Σ ‖y - ŷ‖² / Σ ‖y - mean of y‖² over all pairs, at most 1.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `transform`, and if a trajectory is not longer than the lag time or X does not vary.
    """
    arrays = trajectories(self, X, fitted=True)
    frames = Frames(self.mean_, self.whitening_)
    chain = nn.Sequential(self.encoder_, First(self.n_components), self.decoder_)
    chain = copy.deepcopy(chain).double()
    error, targets = 0.0, Covariances(0)
    for _, _, x, y_ in lagged_blocks(arrays, self.lagtime):
        for first in range(0, len(x), FRAMES):
            rows = slice(first, first + FRAMES)
            u, v = ((block[rows] - frames.mean) @ frames.whitening.T for block in (x, y_))
            target = v @ self.target_matrix_.T + self.target_shift_
            targets.update(target)
            error += float(np.square(numbers(chain, torch.from_numpy(u)) - target).sum())
    return explained(error, targets.n_pairs * np.trace(targets.c00))


def vamp2(self: Any, X: Trajectories, y: None = None) -> float:
    """VAMP-2 score of the coordinates of these frames, 1 for the constant function included.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    y : None

    Returns
    -------
    float
        At most n_components + 1; see `molml.kinetics.metrics.vamp_score`.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `transform`, and if a trajectory is not longer than the lag time.
    """
    return vamp_score(apply(self.as_module(), trajectories(self, X, fitted=True)), self.lagtime)
