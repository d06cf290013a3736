"""VAMPnets: coordinates whose future is best known, of dynamics that are reversible or not.

All are estimators of scikit-learn. Frames are whitened first; training is in single precision by the Trainer, and
judged on held-out blocks of time; what comes out is in double precision, and the same for the same seed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, final

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from molml.io import Container
from molml.kinetics.covariance import Covariances
from molml.kinetics.data import Array, Streamed, TimeLaggedDataset, Trajectories, check_lagtime
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.loss import VAMPLoss
from molml.kinetics.metrics import vamp_score
from molml.kinetics.networks import (
    Frames,
    Output,
    apply,
    check_parameters,
    frame_statistics,
    lone_encoder,
    of_one_kind,
    own_timescales,
    sequential,
    singular_modes,
    slow_modes,
    train,
    trajectories,
    whitened,
)

__all__ = ["ReversibleVAMPNet", "VAMPNet"]

_N_STEPS = 1500  # unless max_epochs is given


@final
class VAMPNet(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Coordinates whose future is best known, found by maximising their VAMP-2 score; time need not be reversible.

    The network's outputs are linear, not probabilities of states, so that n coordinates hold n slow processes and can
    be scored, compared and biased like those of any other method. They are given as left singular functions of the
    Koopman operator: uncorrelated, of variance one, the best known first. A Markov model of them gives states.

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int
        Number of coordinates.
    batch_size : int
        Pairs in a step, whose covariances must be good estimates: hundreds at least.
    hidden, activation, max_epochs, learning_rate, valid_fraction, patience, n_restarts, minutes, seed, progress
        As in `Autoencoder`.

    Attributes
    ----------
    mean_ : ndarray (n_features,)
    whitening_ : ndarray (rank, n_features)
        Of the frames that begin a pair.
    encoder_ : MLP
        With a few outputs more than there are coordinates: had it found a faster process first, a network with a single
        output would never leave it.
    rotation_, shift_ : ndarray (n_components, n_outputs), (n_components,)
        Encoder's outputs -> coordinates.
    eigenvalues_ : ndarray (n_components,)
        Absolute eigenvalues of the coordinates' Koopman matrix, descending.
    history_ : list of dict
    n_features_in_ : int

    References
    ----------
    Mardt, Pasquali, Wu and Noé, Nat. Commun. 9, 5 (2018).
    """

    def __init__(
        self,
        lagtime: int = 1,
        n_components: int = 2,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        max_epochs: int | None = None,
        batch_size: int = 500,
        learning_rate: float = 1e-2,
        valid_fraction: float = 0.2,
        patience: int | None = None,
        n_restarts: int = 1,
        minutes: float | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.lagtime = lagtime
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.valid_fraction = valid_fraction
        self.patience = patience
        self.n_restarts = n_restarts
        self.minutes = minutes
        self.seed = seed
        self.progress = progress

    def fit(self, X: Trajectories, y: None = None) -> Self:
        """Train anew.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None

        Returns
        -------
        VAMPNet
            This object.

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is not what it should be, or a trajectory is not longer than the lag time.
        TrainingInterrupted
            After Ctrl-C; the estimator is fitted as far as it came.
        """
        check_parameters(self)
        check_lagtime(self.lagtime, least=1)
        arrays = trajectories(self, X, fitted=False)
        covariances = Covariances(self.lagtime).update(arrays)
        self.mean_, self.whitening_ = frame_statistics(covariances)
        self.n_features_in_ = covariances.n_features
        return self._train(arrays, self._networks, self.n_restarts)

    def partial_fit(self, X: Trajectories, y: None = None) -> Self:
        """Train on, from the present weights, with other trajectories; parameters, result and errors as in `fit`.

        Mean and whitening stay those of the first call; the coordinates and their eigenvalues are those of the new
        frames.
        """
        if not hasattr(self, "encoder_"):
            return self.fit(X)
        check_parameters(self)
        present = nn.ModuleDict({"encoder": self.encoder_})
        return self._train(trajectories(self, X, fitted=True), lambda seed: copy.deepcopy(present), 1)

    def _train(self, arrays: list[Array] | Streamed, make: Callable[[int], nn.ModuleDict], n_restarts: int) -> Self:
        loss = VAMPLoss(reversible=False)
        with whitened(arrays, Frames(self.mean_, self.whitening_)) as frames:
            pairs = TimeLaggedDataset(frames, self.lagtime)
            trained = train(self, make, loss, pairs, n_steps=_N_STEPS, n_restarts=n_restarts)
            self.encoder_ = trained.network["encoder"]
            (self.rotation_, self.shift_), self.eigenvalues_ = singular_modes(self.encoder_, pairs, self.n_components)
        self.history_ = list(trained.history)
        if trained.interruption is not None:
            raise trained.interruption
        return self

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Coordinates of every frame; as in `Autoencoder`."""
        return of_one_kind(X, apply(self.as_module(), trajectories(self, X, fitted=True)))

    def score(self, X: Trajectories, y: None = None) -> float:
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

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales of the coordinates' Koopman matrix, -lagtime / ln |λ|, longest first.

        Parameters
        ----------
        n : int, optional
            How many; all if not given.

        Returns
        -------
        array (n,), frames
            Infinite for |λ| >= 1.

        Raises
        ------
        NotFittedError, ValueError
            If there was no fit, or there are fewer.
        """
        return own_timescales(self, n)

    def as_module(self) -> nn.Sequential:
        """Features -> coordinates as a network of Linear and activation modules; as in `Autoencoder`."""
        check_is_fitted(self)
        output = Output(self.rotation_, self.shift_)
        return sequential(Frames(self.mean_, self.whitening_), self.encoder_, self.activation, output)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write a model file, see `molml.kinetics.files.save_estimator`."""
        save_estimator(self, path, metadata=metadata)

    @classmethod
    def from_container(cls, container: Container) -> Self:
        """The estimator of a model file, see `molml.kinetics.files.load_estimator`."""
        return load_estimator(cls, container)

    def _networks(self, seed: int) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": lone_encoder(self, seed)})

    def _build_networks(self) -> None:
        self.encoder_ = lone_encoder(self, 0)

    @property
    def _n_features_out(self) -> int:
        return self.n_components


@final
class ReversibleVAMPNet(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Slowest coordinates of reversible dynamics, found by a network: a curved TICA.

    The sum of squared eigenvalues of the symmetrised problem in the space of the network's outputs is maximised. Given
    are its eigenfunctions: uncorrelated, of variance one, the slowest first. Also known as state-free reversible
    VAMPnet (SRV).

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int
        Number of coordinates.
    batch_size : int
        Pairs in a step, whose covariances must be good estimates: hundreds at least.
    hidden, activation, max_epochs, learning_rate, valid_fraction, patience, n_restarts, minutes, seed, progress
        As in `Autoencoder`.

    Attributes
    ----------
    mean_ : ndarray (n_features,)
    whitening_ : ndarray (rank, n_features)
        Of the frames that begin a pair.
    encoder_ : MLP
        With a few outputs more than there are coordinates: had it found a faster process first, a network with a single
        output would never leave it.
    rotation_, shift_ : ndarray (n_components, n_outputs), (n_components,)
        Encoder's outputs -> coordinates.
    eigenvalues_ : ndarray (n_components,)
        Autocorrelations of the coordinates over the lag time, descending.
    history_ : list of dict
    n_features_in_ : int

    References
    ----------
    Chen, Sidky and Ferguson, J. Chem. Phys. 150, 214114 (2019).
    """

    def __init__(
        self,
        lagtime: int = 1,
        n_components: int = 2,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        max_epochs: int | None = None,
        batch_size: int = 500,
        learning_rate: float = 1e-2,
        valid_fraction: float = 0.2,
        patience: int | None = None,
        n_restarts: int = 1,
        minutes: float | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.lagtime = lagtime
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.valid_fraction = valid_fraction
        self.patience = patience
        self.n_restarts = n_restarts
        self.minutes = minutes
        self.seed = seed
        self.progress = progress

    def fit(self, X: Trajectories, y: None = None) -> Self:
        """Train anew.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None

        Returns
        -------
        ReversibleVAMPNet
            This object.

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is not what it should be, or a trajectory is not longer than the lag time.
        TrainingInterrupted
            After Ctrl-C; the estimator is fitted as far as it came.
        """
        check_parameters(self)
        check_lagtime(self.lagtime, least=1)
        arrays = trajectories(self, X, fitted=False)
        covariances = Covariances(self.lagtime).update(arrays)
        self.mean_, self.whitening_ = frame_statistics(covariances)
        self.n_features_in_ = covariances.n_features
        return self._train(arrays, self._networks, self.n_restarts)

    def partial_fit(self, X: Trajectories, y: None = None) -> Self:
        """Train on, from the present weights, with other trajectories; parameters, result and errors as in `fit`.

        Mean and whitening stay those of the first call; the coordinates and their eigenvalues are those of the new
        frames.
        """
        if not hasattr(self, "encoder_"):
            return self.fit(X)
        check_parameters(self)
        present = nn.ModuleDict({"encoder": self.encoder_})
        return self._train(trajectories(self, X, fitted=True), lambda seed: copy.deepcopy(present), 1)

    def _train(self, arrays: list[Array] | Streamed, make: Callable[[int], nn.ModuleDict], n_restarts: int) -> Self:
        loss = VAMPLoss(reversible=True)
        with whitened(arrays, Frames(self.mean_, self.whitening_)) as frames:
            pairs = TimeLaggedDataset(frames, self.lagtime)
            trained = train(self, make, loss, pairs, n_steps=_N_STEPS, n_restarts=n_restarts)
            self.encoder_ = trained.network["encoder"]
            (self.rotation_, self.shift_), self.eigenvalues_ = slow_modes(self.encoder_, pairs, self.n_components)
        self.history_ = list(trained.history)
        if trained.interruption is not None:
            raise trained.interruption
        return self

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Coordinates of every frame; as in `Autoencoder`."""
        return of_one_kind(X, apply(self.as_module(), trajectories(self, X, fitted=True)))

    def score(self, X: Trajectories, y: None = None) -> float:
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

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales of the coordinates, -lagtime / ln λ, longest first.

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
        return own_timescales(self, n)

    def as_module(self) -> nn.Sequential:
        """Features -> coordinates as a network of Linear and activation modules; as in `Autoencoder`."""
        check_is_fitted(self)
        output = Output(self.rotation_, self.shift_)
        return sequential(Frames(self.mean_, self.whitening_), self.encoder_, self.activation, output)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write a model file, see `molml.kinetics.files.save_estimator`."""
        save_estimator(self, path, metadata=metadata)

    @classmethod
    def from_container(cls, container: Container) -> Self:
        """The estimator of a model file, see `molml.kinetics.files.load_estimator`."""
        return load_estimator(cls, container)

    def _networks(self, seed: int) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": lone_encoder(self, seed)})

    def _build_networks(self) -> None:
        self.encoder_ = lone_encoder(self, 0)

    @property
    def _n_features_out(self) -> int:
        return self.n_components
