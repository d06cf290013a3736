"""Autoencoders: coordinates from which a frame, or the one a lag time later, can be rebuilt.

All are estimators of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from operator import attrgetter
from typing import Any, final

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from molml.kinetics import estimators, networks
from molml.kinetics.covariance import Covariances
from molml.kinetics.data import Array, TimeLaggedDataset, Trajectories, as_list, lagged_blocks, of_one_kind
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.loss import ReconstructionLoss, VariationalLoss, pieces
from molml.kinetics.networks import Frames, Output, single

__all__ = ["Autoencoder", "TimeLaggedAutoencoder", "VariationalTimeLaggedAutoencoder"]

_N_STEPS = 2000  # unless max_epochs is given


@final
@dataclass(eq=False, repr=False)
class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Coordinates from which a network can rebuild the frame they were made of: a curved PCA.

    The mean squared error of the features, in their own units, is minimised. With ``hidden=()`` the coordinates span
    the space of the first principal components.

    Parameters
    ----------
    n_components : int
        Number of coordinates.
    hidden : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse order. Empty for a linear map.
    activation : str
        tanh, logistic, silu, relu or softsign.
    max_epochs : int, optional
        Passes over the training frames; if not given, as many as make some thousands of steps, 5 to 200.
    batch_size : int
        Frames in a step.
    learning_rate : float
        Of Adam at its largest; it falls to zero like a cosine.
    valid_fraction : float
        Fraction of the frames, in contiguous blocks of time, that decides which epoch's weights are kept; with 0 the
        training error decides.
    patience : int, optional
        Stop after so many epochs that were no better.
    n_restarts : int
        Trainings from different random weights, of which the one with the best held-out error is kept.
    minutes : float, optional
        Longest time of all trainings.
    seed : int
        Of initial weights, held-out blocks, order of the frames and noise.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Attributes
    ----------
    mean_ : ndarray (n_features,)
    whitening_ : ndarray (rank, n_features)
    encoder_, decoder_ : MLP
        Of whitened frames.
    target_matrix_ : ndarray (n_features, rank)
        Whitened frame -> features less `mean_`, in units of `scale_`, which the decoder is to give.
    rotation_, shift_ : ndarray (n_components, n_outputs), (n_components,)
        Encoder's outputs -> coordinates: uncorrelated, of variance one, by the variance that they explain linearly.
    scale_ : float
        Root of the mean variance of a feature, the decoder's unit.
    history_ : list of dict
        Of the training that was kept, see `molml.training.History`.
    n_features_in_ : int

    References
    ----------
    Hinton and Salakhutdinov, Science 313, 504 (2006).

    Examples
    --------
    >>> angle = np.linspace(0.0, 3.0, 1000)
    >>> X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> autoencoder = Autoencoder(1, max_epochs=20, progress=False).fit(X)
    >>> autoencoder.transform(X).shape
    (1000, 1)
    """

    n_components: int = 2
    _: KW_ONLY
    hidden: Sequence[int] = (200, 100)
    activation: str = "tanh"
    max_epochs: int | None = None
    batch_size: int = 200
    learning_rate: float = 1e-2
    valid_fraction: float = 0.2
    patience: int | None = None
    n_restarts: int = 1
    minutes: float | None = None
    seed: int = 0
    progress: bool | None = None

    fit = estimators.fit
    partial_fit = estimators.partial_fit
    transform = estimators.transform
    as_module = estimators.as_module
    save = save_estimator
    from_container = classmethod(load_estimator)

    _check = estimators.check_parameters
    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _frames(self, covariances: Covariances) -> Frames:
        frames = networks.frame_statistics(covariances)
        self.scale_ = float(np.sqrt(np.trace(covariances.c00) / covariances.n_features))
        # regression of the features on their whitened combinations, which leaves nothing over
        self.target_matrix_ = covariances.c00 @ frames.whitening.T / self.scale_
        return frames

    def _networks(self, seed: int) -> nn.ModuleDict:
        return networks.encoder_decoder(self, seed, n_outputs=self.n_components, n_targets=len(self.target_matrix_))

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> networks.Trained:
        loss = ReconstructionLoss(single(self.target_matrix_), single(np.zeros(self.n_features_in_)))
        trained = networks.train(self, self._networks, loss, pairs, present=present, n_steps=_N_STEPS)
        outputs = Covariances(0)
        for u, _ in pieces(pairs):
            targets = u.double().numpy() @ self.target_matrix_.T
            outputs.update(np.concatenate([networks.numbers(trained.network["encoder"], u), targets], axis=1))
        self.rotation_, self.shift_ = networks.explaining_modes(outputs, self.n_components)
        return trained

    def inverse_transform(self, Z: Trajectories) -> Array | list[Array]:
        """Frames that the decoder makes of coordinates.

        Parameters
        ----------
        Z : array (n_frames, n_components), or list of such arrays

        Returns
        -------
        array (n_frames, n_features), or list of such arrays

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `transform`.
        """
        check_is_fitted(self)
        return of_one_kind(Z, networks.apply(self._decoder(), as_list(Z, name="Z", n_features=self.n_components)))

    def _decoder(self) -> nn.Sequential:
        """Coordinates -> features."""
        back = np.linalg.inv(self.rotation_)
        return networks.sequential(
            Frames(self.shift_, back),
            self.decoder_,
            self.activation,
            Output(self.scale_ * np.eye(self.n_features_in_), self.mean_),
        )

    def score(self, X: Trajectories, y: None = None) -> float:
        """Fraction of the variance that is rebuilt, 1 - Σ ‖x - x̂‖² / Σ ‖x - mean of X‖².

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None

        Returns
        -------
        float
            At most 1.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `transform`, and if X does not vary.
        """
        arrays = estimators.trajectories(self, X, fitted=True)
        network, decoder = self.as_module(), self._decoder()
        error, covariances = 0.0, Covariances(0).update(arrays)
        for _, _, x, _ in lagged_blocks(arrays, 0):
            rebuilt = networks.apply(decoder, networks.apply(network, [x]))[0]
            error += float(np.square(rebuilt - x).sum())
        return networks.explained(error, covariances.n_pairs * np.trace(covariances.c00))


def _lagged_frames(self: Any, covariances: Covariances) -> Frames:
    frames = networks.frame_statistics(covariances)
    self.target_matrix_, self.target_shift_ = networks.whitened_targets(covariances, frames)
    return frames


@final
@dataclass(eq=False, repr=False)
class TimeLaggedAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Coordinates of a frame from which a network can tell the frame one lag time later: a curved TICA.

    Frames at t and at t + lagtime are whitened, so that every direction counts alike, and the mean squared error of the
    later ones is minimised. With ``hidden=()`` the coordinates span the space of the leading canonical correlations
    between x_t and x_t+lagtime. Where a fast motion varies much and a slow one little, a single coordinate may follow
    the fast one all the same; `ReversibleVAMPNet` then does not.

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int
        Number of coordinates.
    hidden, activation, max_epochs, batch_size, learning_rate, valid_fraction, patience, n_restarts, minutes, seed
    progress
        As in `Autoencoder`.

    Attributes
    ----------
    mean_ : ndarray (n_features,)
    whitening_ : ndarray (rank, n_features)
        Of the frames that begin a pair.
    target_matrix_, target_shift_ : ndarray (rank, rank), (rank,)
        Whitened frame -> what the decoder is to give: it whitens the frames that end a pair.
    encoder_, decoder_ : MLP
    rotation_, shift_ : ndarray (n_components, n_outputs), (n_components,)
        Encoder's outputs -> coordinates: uncorrelated, of variance one, the slowest first.
    eigenvalues_ : ndarray (n_components,)
        Autocorrelations of the coordinates over the lag time.
    history_ : list of dict
    n_features_in_ : int

    References
    ----------
    Wehmeyer and Noé, J. Chem. Phys. 148, 241703 (2018).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> state = np.repeat(rng.choice([-1.0, 1.0], 200), 50)
    >>> X = np.stack([state, rng.normal(size=10000)], axis=1)
    >>> tae = TimeLaggedAutoencoder(1, 1, max_epochs=5, progress=False).fit(X)
    >>> tae.transform([X, X[:100]])[1].shape
    (100, 1)
    """

    lagtime: int = 1
    n_components: int = 2
    _: KW_ONLY
    hidden: Sequence[int] = (200, 100)
    activation: str = "tanh"
    max_epochs: int | None = None
    batch_size: int = 200
    learning_rate: float = 1e-2
    valid_fraction: float = 0.2
    patience: int | None = None
    n_restarts: int = 1
    minutes: float | None = None
    seed: int = 0
    progress: bool | None = None

    fit = estimators.fit
    partial_fit = estimators.partial_fit
    transform = estimators.transform
    score = estimators.regression_score
    timescales = estimators.timescales
    as_module = estimators.as_module
    save = save_estimator
    from_container = classmethod(load_estimator)

    _check = estimators.check_lagged_parameters
    _frames = _lagged_frames
    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _networks(self, seed: int) -> nn.ModuleDict:
        return networks.encoder_decoder(self, seed, n_outputs=self.n_components, n_targets=len(self.target_matrix_))

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> networks.Trained:
        loss = ReconstructionLoss(single(self.target_matrix_), single(self.target_shift_))
        trained = networks.train(self, self._networks, loss, pairs, present=present, n_steps=_N_STEPS)
        encoder = trained.network["encoder"]
        (self.rotation_, self.shift_), self.eigenvalues_ = networks.slow_modes(encoder, pairs, self.n_components)
        return trained


@final
@dataclass(eq=False, repr=False)
class VariationalTimeLaggedAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Time-lagged autoencoder whose encoder gives a distribution, held near a normal one: smooth coordinates.

    The mean over pairs of ½ ‖y - decoder(z)‖² + β KL(q(z|x_t) ‖ N(0, 1)) is minimised, with y the whitened frame at
    t + lagtime and z a sample of q. Coordinates are means of q.

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int
        Number of coordinates.
    beta : float
        Weight of the divergence, above 0. With 1 it is the evidence bound of a decoder with noise of unit variance,
        under which most of what one frame tells of the next is not worth its price: coordinates would be constant.
    hidden, activation, max_epochs, batch_size, learning_rate, valid_fraction, patience, n_restarts, minutes, seed
    progress
        As in `Autoencoder`.

    Attributes
    ----------
    mean_, whitening_, target_matrix_, target_shift_, encoder_, decoder_, rotation_, shift_, eigenvalues_, history_
    n_features_in_
        As in `TimeLaggedAutoencoder`; the encoder gives means and log variances side by side.

    References
    ----------
    Hernández, Wayment-Steele, Sultan, Husic and Pande, Phys. Rev. E 97, 062412 (2018); Higgins et al., ICLR 2017, for
    β.
    """

    lagtime: int = 1
    n_components: int = 2
    _: KW_ONLY
    beta: float = 0.01
    hidden: Sequence[int] = (200, 100)
    activation: str = "tanh"
    max_epochs: int | None = None
    batch_size: int = 200
    learning_rate: float = 1e-2
    valid_fraction: float = 0.2
    patience: int | None = None
    n_restarts: int = 1
    minutes: float | None = None
    seed: int = 0
    progress: bool | None = None

    fit = estimators.fit
    partial_fit = estimators.partial_fit
    transform = estimators.transform
    score = estimators.regression_score
    timescales = estimators.timescales
    as_module = estimators.as_module
    save = save_estimator
    from_container = classmethod(load_estimator)

    _frames = _lagged_frames
    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _check(self) -> None:
        estimators.check_lagged_parameters(self)
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; TimeLaggedAutoencoder is the limit 0")

    def _networks(self, seed: int) -> nn.ModuleDict:
        return networks.encoder_decoder(self, seed, n_outputs=2 * self.n_components, n_targets=len(self.target_matrix_))

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> networks.Trained:
        loss = VariationalLoss(single(self.target_matrix_), single(self.target_shift_), self.beta)
        trained = networks.train(self, self._networks, loss, pairs, present=present, n_steps=_N_STEPS)
        means = nn.Sequential(trained.network["encoder"], networks.First(self.n_components))
        (rotation, self.shift_), self.eigenvalues_ = networks.slow_modes(means, pairs, self.n_components)
        # of means and log variances, only the means count
        self.rotation_ = np.pad(rotation, ((0, 0), (0, self.n_components)))
        return trained
