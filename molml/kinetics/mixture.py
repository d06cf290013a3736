"""Clusters in coordinates that are learnt with them: a variational autoencoder whose prior is a Gaussian mixture."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from operator import attrgetter
from typing import Any, cast, final

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted
from torch import nn

from molml.kinetics import estimators
from molml.kinetics.covariance import Covariances
from molml.kinetics.data import Array, TimeLaggedDataset, Trajectories, of_one_kind, whole
from molml.kinetics.estimators import check_parameters, trajectories
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.loss import GaussianMixtureLoss, GaussianMixturePrior, ReconstructionLoss
from molml.kinetics.networks import First, Frames, Output, Trained, apply, encoder_decoder, sequential, train, whitened
from molml.training import Term, objective

__all__ = ["GaussianMixtureVAE"]

_N_STEPS = 4000  # unless max_epochs is given
_FIRST_PART = 0.2  # of epochs and time, for the autoencoder without clusters
_SAMPLE = 20000  # frames from which the first clusters are made


@final
@dataclass(eq=False, repr=False)
class GaussianMixtureVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Clusters of any shape: Gaussian ones in the latent coordinates of a variational autoencoder.

    An autoencoder is trained first; k-means of its coordinates gives the clusters to start from; then encoder, decoder
    and mixture are trained together. Features count by their variance, as in k-means: scale them if they are of
    different kinds, and give torsions as cosines and sines.

    Parameters
    ----------
    n_clusters : int
    n_components : int
        Number of latent coordinates.
    precision : float
        How much rebuilding the features counts beside a simple distribution of the coordinates: their error is that of
        a decoder with noise of 1 / (2 precision) of the total variance. A smaller value gives rounder clusters, and too
        small a one a single cluster.
    hidden, activation, batch_size, learning_rate, valid_fraction, patience, n_restarts, minutes, seed, progress
        As in `Autoencoder`.
    max_epochs : int, optional
        Passes over the training frames, a fifth of them for the autoencoder without clusters; if not given, as many as
        make some thousands of steps, 5 to 400.

    Attributes
    ----------
    mean_ : ndarray (n_features,)
    whitening_ : ndarray (n_features, n_features)
        One over the root of the mean variance of the features, times 1.
    encoder_, decoder_ : MLP
        Of scaled frames; the encoder gives means and log variances of the coordinates side by side.
    prior_ : GaussianMixturePrior
    history_ : list of dict
    n_features_in_ : int

    References
    ----------
    Jiang, Zheng, Tan, Tang and Zhou, IJCAI 2017 (VaDE).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0.0, 2.0, 2000) + np.repeat([0.0, 3.0], 1000)
    >>> X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> model = GaussianMixtureVAE(2, 2, max_epochs=20, progress=False).fit(rng.permutation(X))
    >>> model.predict_proba(X).shape
    (2000, 2)
    """

    n_clusters: int = 10
    n_components: int = 10
    _: KW_ONLY
    precision: float = 16.0
    hidden: Sequence[int] = (200, 100)
    activation: str = "relu"
    max_epochs: int | None = None
    batch_size: int = 100
    learning_rate: float = 3e-3
    valid_fraction: float = 0.1
    patience: int | None = None
    n_restarts: int = 1
    minutes: float | None = None
    seed: int = 0
    progress: bool | None = None

    fit = estimators.fit
    partial_fit = estimators.partial_fit
    transform = estimators.transform
    save = save_estimator
    from_container = classmethod(load_estimator)

    _build_networks = estimators.build_networks
    _n_features_out = property(attrgetter("n_components"))

    def _check(self) -> None:
        check_parameters(self)
        whole("n_clusters", self.n_clusters, 1)
        if not self.precision > 0:
            raise ValueError(f"precision must be positive, got {self.precision}")

    def _frames(self, covariances: Covariances) -> Frames:
        variance = np.trace(covariances.c00) / covariances.n_features
        noise = covariances.resolution * np.abs(covariances.mean_0).max()
        if not variance > noise**2:
            raise ValueError(
                f"X must vary, got {covariances.n_features} feature(s) that are constant over n_samples="
                f"{covariances.n_pairs} frames"
            )
        if covariances.n_pairs < self.n_clusters:
            raise ValueError(
                f"n_clusters must be at most the number of frames, got n_clusters={self.n_clusters} for n_samples="
                f"{covariances.n_pairs}"
            )
        return Frames(covariances.mean_0, np.eye(covariances.n_features) / np.sqrt(variance))

    def _networks(self, seed: int) -> nn.ModuleDict:
        networks = encoder_decoder(self, seed, n_outputs=2 * self.n_components, n_targets=self.n_features_in_)
        networks["prior"] = GaussianMixturePrior(self.n_clusters, self.n_components)
        return networks

    def _train(self, pairs: TimeLaggedDataset, present: nn.ModuleDict | None) -> Trained:
        loss = GaussianMixtureLoss(self.precision)
        return train(
            self,
            lambda seed: self._started(seed, pairs),
            loss,
            pairs,
            present=present,
            n_steps=_N_STEPS,
            share=1 - _FIRST_PART,
        )

    def _started(self, seed: int, pairs: TimeLaggedDataset) -> nn.ModuleDict:
        """An autoencoder, and the mixture that k-means finds in its coordinates."""
        means = First(self.n_components)

        def loss(model: nn.ModuleDict, batch: Any) -> Mapping[str, Term]:
            inner = nn.ModuleDict({"encoder": nn.Sequential(model["encoder"], means), "decoder": model["decoder"]})
            return reconstruction(inner.train(model.training), batch)

        d = self.n_features_in_
        reconstruction = ReconstructionLoss(torch.eye(d), torch.zeros(d))
        new = self._networks(seed)
        trained = train(self, self._networks, loss, pairs, present=new, n_steps=_N_STEPS, share=_FIRST_PART, seed=seed)
        if trained.interruption is not None:
            raise trained.interruption
        network = trained.network
        encoder, prior = network["encoder"], cast(GaussianMixturePrior, network["prior"])
        chosen = np.random.default_rng(seed).permutation(len(pairs))[:_SAMPLE].tolist()
        with torch.no_grad():
            z = torch.cat([encoder(part)[:, : self.n_components] for part in pairs.collate(chosen).x.split(4096)])
            clusters = KMeans(self.n_clusters, n_init=10, random_state=seed).fit(z.numpy())
            spread = float(((z - torch.from_numpy(clusters.cluster_centers_[clusters.labels_])) ** 2).mean())
            share = np.bincount(clusters.labels_, minlength=self.n_clusters) / len(z)
            prior.logits.copy_(torch.from_numpy(np.log(np.maximum(share, 1e-6))))
            prior.mean.copy_(torch.from_numpy(clusters.cluster_centers_))
            prior.logvar.fill_(math.log(spread + 1e-6))
            # a narrow distribution of every frame to begin with
            last = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)][-1]
            last.weight[self.n_components :] *= 0.01
            last.bias[self.n_components :] = math.log(0.1 * spread + 1e-6)
        return network

    def predict_proba(self, X: Trajectories) -> Array | list[Array]:
        """Probabilities of the clusters at every frame's coordinates.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        array (n_frames, n_clusters), or a list of such arrays for a list or a stream

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `transform`.
        """
        return of_one_kind(X, self._probabilities(X))

    def predict(self, X: Trajectories) -> Array | list[Array]:
        """Number of the most probable cluster of every frame; X and errors as in `predict_proba`.

        Returns
        -------
        integer array (n_frames,), or a list of such arrays for a list or a stream
        """
        return of_one_kind(X, [p.argmax(axis=1) for p in self._probabilities(X)])

    def fit_predict(self, X: Trajectories, y: None = None) -> Array | list[Array]:
        """`fit` and then `predict`."""
        return self.fit(X).predict(X)

    def _probabilities(self, X: Trajectories) -> list[Array]:
        arrays = trajectories(self, X, fitted=True)
        prior = copy.deepcopy(self.prior_).double()
        with torch.no_grad():
            return [torch.softmax(prior(torch.from_numpy(z)), 1).numpy() for z in apply(self.as_module(), arrays)]

    def score(self, X: Trajectories, y: None = None) -> float:
        """Evidence bound, mean over frames, up to a constant: the negative of what is minimised.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None

        Returns
        -------
        float
            In nats. It is estimated with one sample of q(z|x) a frame, the same in every call.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `transform`.
        """
        arrays = trajectories(self, X, fitted=True)
        network = estimators.present_networks(self).eval()
        with whitened(arrays, Frames(self.mean_, self.whitening_)) as frames, torch.random.fork_rng([]):
            torch.default_generator.manual_seed(self.seed)
            terms = GaussianMixtureLoss(self.precision)(network, TimeLaggedDataset(frames, 0))
        return -float(objective(terms))

    def as_module(self) -> nn.Sequential:
        """Features -> coordinates as a network of Linear and activation modules; as in `Autoencoder`."""
        check_is_fitted(self)
        means = np.eye(self.n_components, 2 * self.n_components)
        output = Output(means, np.zeros(self.n_components))
        return sequential(Frames(self.mean_, self.whitening_), self.encoder_, self.activation, output)
