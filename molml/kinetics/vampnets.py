"""VAMPnets: coordinates whose future is best known, of dynamics that are reversible or not.

All are estimators of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from operator import attrgetter
from typing import final

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import nn

from molml.kinetics import estimators, networks
from molml.kinetics.data import TimeLaggedDataset
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.loss import VAMPLoss

__all__ = ["ReversibleVAMPNet", "VAMPNet"]

_N_STEPS = 1500  # unless max_epochs is given


@final
@dataclass(eq=False, repr=False)
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

    lagtime: int = 1
    n_components: int = 2
    _: KW_ONLY
    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"
    max_epochs: int | None = None
    batch_size: int = 500
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
    score = estimators.vamp2
    timescales = estimators.timescales
    as_module = estimators.as_module
    save = save_estimator
    from_container = classmethod(load_estimator)

    _check = estimators.check_lagged_parameters
    _frames = staticmethod(networks.frame_statistics)
    _networks = networks.lone_encoder
    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> networks.Trained:
        loss = VAMPLoss(reversible=False)
        trained = networks.train(self, self._networks, loss, pairs, present=present, n_steps=_N_STEPS)
        encoder = trained.network["encoder"]
        (self.rotation_, self.shift_), self.eigenvalues_ = networks.singular_modes(encoder, pairs, self.n_components)
        return trained


@final
@dataclass(eq=False, repr=False)
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
    hidden, activation, max_epochs, batch_size, learning_rate, valid_fraction, patience, n_restarts, minutes, seed
    progress
        As in `VAMPNet`.

    Attributes
    ----------
    mean_, whitening_, encoder_, rotation_, shift_, history_, n_features_in_
        As in `VAMPNet`.
    eigenvalues_ : ndarray (n_components,)
        Autocorrelations of the coordinates over the lag time, descending.

    References
    ----------
    Chen, Sidky and Ferguson, J. Chem. Phys. 150, 214114 (2019).
    """

    lagtime: int = 1
    n_components: int = 2
    _: KW_ONLY
    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"
    max_epochs: int | None = None
    batch_size: int = 500
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
    score = estimators.vamp2
    timescales = estimators.timescales
    as_module = estimators.as_module
    save = save_estimator
    from_container = classmethod(load_estimator)

    _check = estimators.check_lagged_parameters
    _frames = staticmethod(networks.frame_statistics)
    _networks = networks.lone_encoder
    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> networks.Trained:
        loss = VAMPLoss(reversible=True)
        trained = networks.train(self, self._networks, loss, pairs, present=present, n_steps=_N_STEPS)
        encoder = trained.network["encoder"]
        (self.rotation_, self.shift_), self.eigenvalues_ = networks.slow_modes(encoder, pairs, self.n_components)
        return trained
