"""Linear coordinates: PCA, time-lagged independent components, and the variational approach to Markov processes.

All three are eigenvalue problems of covariances, which are gathered in one pass over the trajectories (`Covariances`);
`partial_fit` adds trajectories, and forms no pairs between those of different calls. In cross-validation give a list
of trajectories, of which the folds are then made: of one array, what remains is joined where a fold was cut out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self, TypeVar, final

import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from molml.io import Container, ModelFileError
from molml.kinetics.covariance import EPSILON, Covariances, FrameWeights, koopman_weights, whitening
from molml.kinetics.data import Array, Streamed, Trajectories, as_list, check_lagtime, is_several, lagged_blocks
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.metrics import implied_timescales, singular_value_score

__all__ = ["PCA", "TICA", "VAMP"]

SCALINGS = ("kinetic_map", "commute_map")


def _takes_one_pass(estimator: TICA) -> bool:
    if estimator.reweight:
        raise AttributeError("partial_fit cannot reweight, which takes two passes over all trajectories; use fit")
    return True


@final
class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Directions of largest variance, by the eigenvalue problem of the covariance matrix.

    Parameters
    ----------
    n_components : int, optional
        All if not given; with `whiten`, all in which there is variance.
    whiten : bool
        Scale every component to variance 1. A direction counts if its variance is more than 1e-6 of the variance of
        the features it is made of (`molml.kinetics.covariance.whitening`).

    Attributes
    ----------
    mean_ : array (n_features,)
    components_ : array (n_components, n_features)
        transform(x) = (x − mean_) @ components_.T; the largest entry of a row is positive.
    explained_variance_ : array (n_components,)
        Of the features along each direction, before any scaling; descending. Divided by n_frames − 1.
    explained_variance_ratio_ : array (n_components,)
        The same, as fractions of the variance of all features.
    n_frames_ : int

    References
    ----------
    Pearson, Phil. Mag. 2, 559 (1901).

    Examples
    --------
    >>> x = np.array([[0.0, 0.1], [1.0, 2.0], [2.0, 3.9], [3.0, 6.0]])
    >>> PCA(1).fit(x).transform(x).round(2).ravel()
    array([-3.26, -1.12,  1.03,  3.35])
    """

    def __init__(self, n_components: int | None = None, *, whiten: bool = False) -> None:
        self.n_components, self.whiten = n_components, whiten

    def fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Fit to trajectories, and forget what was fitted before.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored
        weights : array (n_frames,), or list of them for a list, optional
            Of every frame, at least 0.

        Returns
        -------
        PCA
            This object.

        Raises
        ------
        TypeError, ValueError
            If X or the weights are not what they should be, no feature varies, or n_components is out of range.
        """
        _check_columns(self, X, reset=True)
        return self._solve(Covariances(0).update(X, weights))

    def partial_fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Add trajectories to those seen before; parameters and errors as in `fit`.

        Nothing is added if there is an error.
        """
        _check_columns(self, X, reset=not hasattr(self, "components_"))
        return self._solve(_extended(self, Covariances(0).update(X, weights)))

    def _solve(self, covariances: Covariances) -> Self:
        if covariances.n_pairs < 2:
            raise ValueError("PCA needs at least two frames, got n_samples=1; give more")
        c = covariances.c00
        mean, resolution = covariances.mean_0, covariances.resolution
        white = whitening(c, mean=mean, resolution=resolution)
        if not white.shape[1]:
            raise ValueError(_CONSTANT)
        values, vectors = scipy.linalg.eigh(c)
        values, vectors = values[::-1], vectors[:, ::-1]
        most = len(c)
        if self.whiten:
            # smaller ones are rounding errors of the largest
            most = min(white.shape[1], int(np.sum(values > len(c) * resolution * values[0])))
        n_components = _checked_n_components(self.n_components, most)
        values, vectors = values[:n_components], vectors[:, :n_components]
        # rounding can make a zero negative; the divisor is that of an unbiased estimate
        unbiased = covariances.n_pairs / (covariances.n_pairs - 1)
        values = np.maximum(values, 0.0) * unbiased
        self.n_features_in_, self.n_frames_ = len(c), covariances.n_pairs
        self.mean_ = mean
        self.explained_variance_ = values
        self.explained_variance_ratio_ = values / (unbiased * np.trace(c))
        components = _signed(vectors).T
        self.components_ = components / np.sqrt(values)[:, None] if self.whiten else components
        self._covariances = covariances
        return self

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Coordinates of frames.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        array (n_frames, n_components), or list of them for a list or a Streamed

        Raises
        ------
        TypeError, ValueError
            If X is not what it should be, or has other features than those of the fit.
        """
        check_is_fitted(self, "components_")
        return _projected(self, X)

    def inverse_transform(self, X: Array | list[Array]) -> Array | list[Array]:
        """Features whose coordinates these are, with nothing in the directions left out.

        Parameters
        ----------
        X : array (n_frames, n_components) or list of such arrays

        Returns
        -------
        array (n_frames, n_features), or list of them for a list
        """
        check_is_fitted(self, "components_")
        # rows are orthonormal but for the scaling
        inverse = self.components_ * self.explained_variance_[:, None] if self.whiten else self.components_
        arrays = as_list(X, n_features=len(inverse))
        if isinstance(arrays, Streamed):
            raise TypeError("X must be coordinates in memory, got a streamed source")
        found = [z @ inverse + self.mean_ for z in arrays]
        return found if is_several(X) else found[0]

    def score(self, X: Trajectories, y: object = None) -> float:
        """Fraction of the variance of X, about its own mean, that is left when only the components are known.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored

        Returns
        -------
        float
            1 − Σ‖x − x̂‖² / Σ‖x − ⟨x⟩‖², with x̂ = inverse_transform(transform(x)).
        """
        check_is_fitted(self, "components_")
        covariances = Covariances(0).update(_of_the_fit(self, X))
        off = covariances.mean_0 - self.mean_
        # of what is left of x: x − x̂ = (1 − P)(x − mean_), with P the projector on the components
        inverse = self.components_ * self.explained_variance_[:, None] if self.whiten else self.components_
        rest = np.eye(len(off)) - inverse.T @ self.components_
        total = np.trace(covariances.c00)
        if not total > 0:
            raise ValueError(_CONSTANT)
        error = (rest @ covariances.c00 * rest).sum() + np.square(rest @ off).sum()
        return float(1.0 - error / total)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a file that `molml.load` reads; it holds no moments, so that `partial_fit` does not go on from it.

        Parameters
        ----------
        path : path-like
        metadata : mapping, optional
            JSON-able description to add.
        """
        save_estimator(self, path, metadata=metadata)

    @classmethod
    def from_container(cls, container: Container) -> PCA:
        """What `save` wrote, as `molml.io.load_container` reads it.

        Raises
        ------
        molml.io.ModelFileError
            If it is of another class or not whole.
        """
        return _loaded(cls, container, ("components_",), ("explained_variance_", "explained_variance_ratio_"))

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


@final
class TICA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Slowest linear coordinates of reversible dynamics: time-lagged independent component analysis.

    Solves c0t v = λ c00 v with covariances in which every pair of frames counts in both directions of time; λ is the
    autocorrelation of the coordinate vᵀ(x − mean) over the lag time, and v is scaled to variance 1.

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int, optional
        All if not given.
    scaling : "kinetic_map", "commute_map" or None
        A component is multiplied by |λ|, so that distances are kinetic distances (Noé and Clementi 2015); or by √(t̃/2)
        with the timescale t damped below the lag time, t̃ = t/2 (1 + tanh(π (t − lagtime) / lagtime)), for commute
        distances (Noé, Banisch and Clementi 2016); or left at variance 1.
    epsilon : float
        Least variance of a direction that is looked at, in the scale in which every feature has variance 1; for
        float32 data at least 1.2e-7 n_features (`molml.kinetics.covariance.whitening`).
    kinetic_variance : float, optional
        Take no more components than hold this fraction, at most 1, of Σλ².
    reweight : bool
        Reweight frames to equilibrium before (`koopman_weights`), for many short trajectories that start anywhere.
        Takes two passes, so there is no `partial_fit`.

    Attributes
    ----------
    mean_ : array (n_features,)
    components_ : array (n_components, n_features)
        transform(x) = (x − mean_) @ components_.T, the scaling included.
    eigenvectors_ : array (n_components, n_features)
        The same without it; the largest entry of a row is positive.
    eigenvalues_ : array (n_components,)
        λ, by descending size.
    kinetic_variance_ratio_ : array (n_components,)
        λ² as fractions of their sum over all components.
    rank_ : int
        Number of directions that were looked at.

    References
    ----------
    Pérez-Hernández et al., J. Chem. Phys. 139, 015102 (2013); Schwantes and Pande, J. Chem. Theory Comput. 9, 2000
    (2013). Scalings: Noé and Clementi, J. Chem. Theory Comput. 11, 5002 (2015); Noé, Banisch and Clementi, J. Chem.
    Theory Comput. 12, 5620 (2016). Reweighting: Wu et al., J. Chem. Phys. 146, 154104 (2017).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> slow = np.repeat(rng.choice([-1.0, 1.0], 200), 50)
    >>> x = np.stack([slow + rng.normal(size=10000), slow - 3.0 * rng.normal(size=10000)], axis=1)
    >>> tica = TICA(lagtime=1, n_components=1).fit(x)
    >>> abs(np.corrcoef(tica.transform(x)[:, 0], slow)[0, 1]).round(2)
    np.float64(0.72)
    """

    def __init__(
        self,
        lagtime: int = 1,
        n_components: int | None = None,
        *,
        scaling: str | None = "kinetic_map",
        epsilon: float = EPSILON,
        kinetic_variance: float | None = None,
        reweight: bool = False,
    ) -> None:
        self.lagtime, self.n_components, self.scaling = lagtime, n_components, scaling
        self.epsilon, self.kinetic_variance, self.reweight = epsilon, kinetic_variance, reweight

    def fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Fit to trajectories, and forget what was fitted before.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored
        weights : array (n_frames,), or list of them for a list, optional
            Of every frame, at least 0; that of a pair is its first frame's.

        Returns
        -------
        TICA
            This object.

        Raises
        ------
        TypeError, ValueError
            If X, the weights or a parameter are not what they should be, a trajectory is not longer than the lag time,
            no feature varies, or n_components is larger than the rank.
        """
        self._check_parameters()
        _check_columns(self, X, reset=True)
        if not self.reweight:
            return self._solve(Covariances(self.lagtime, reversible=True).update(X, weights))
        if weights is not None:
            raise ValueError("weights must not be given with reweight=True, which makes its own")
        function = koopman_weights(Covariances(self.lagtime).update(X), epsilon=self.epsilon)
        return self._solve(Covariances(self.lagtime, reversible=True).update(X, function))

    @available_if(_takes_one_pass)
    def partial_fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Add trajectories to those seen before; parameters and errors as in `fit`.

        Nothing is added if there is an error.
        """
        self._check_parameters()
        _check_columns(self, X, reset=not hasattr(self, "components_"))
        return self._solve(_extended(self, Covariances(self.lagtime, reversible=True).update(X, weights)))

    def _check_parameters(self) -> None:
        _check_linear(self)
        if self.scaling is not None and self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)} or None, got {self.scaling!r}")

    def _solve(self, covariances: Covariances) -> Self:
        mean = covariances.mean_0
        white = whitening(covariances.c00, mean=mean, epsilon=self.epsilon, resolution=covariances.resolution)
        if not white.shape[1]:
            raise ValueError(_CONSTANT)
        # 1 − λ, which of slow motions has more digits than λ
        decay, vectors = scipy.linalg.eigh(white.T @ covariances.dirichlet @ white)
        order = np.argsort(-np.abs(1.0 - decay), kind="stable")
        values = 1.0 - decay[order]
        ratio = _fractions(values)
        n_components = min(
            _checked_n_components(self.n_components, len(values)), _n_holding(self.kinetic_variance, ratio)
        )
        eigenvectors = _signed(white @ vectors[:, order[:n_components]]).T
        scale = self._scale(values[:n_components])
        self.n_features_in_, self.rank_ = len(mean), len(values)
        self.mean_, self.eigenvectors_, self.components_ = mean, eigenvectors, eigenvectors * scale[:, None]
        self.eigenvalues_, self.kinetic_variance_ratio_ = values[:n_components], ratio[:n_components]
        self._covariances = covariances
        return self

    def _scale(self, values: Array) -> Array:
        if self.scaling is None:
            return np.ones(len(values))
        if self.scaling == "kinetic_map":
            return np.abs(values)
        t = implied_timescales(np.abs(values), self.lagtime)
        if not np.isfinite(t).all():
            raise ValueError(
                "scaling must not be commute_map for a coordinate that does not decay at all, got an infinite timescale"
            )
        return np.sqrt(t / 4 * (1 + np.tanh(np.pi * (t - self.lagtime) / self.lagtime)))

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Coordinates of frames.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        array (n_frames, n_components), or list of them for a list or a Streamed

        Raises
        ------
        TypeError, ValueError
            If X is not what it should be, or has other features than those of the fit.
        """
        check_is_fitted(self, "components_")
        return _projected(self, X)

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales t = −lagtime / ln λ.

        Parameters
        ----------
        n : int, optional
            How many; as many as there are components if not given.

        Returns
        -------
        array (n,), frames
            Descending; 0 for λ ≤ 0.
        """
        check_is_fitted(self, "components_")
        return _timescales(self.eigenvalues_, self.lagtime, n)

    def vamp_score(self, X: Trajectories, *, r: float | str = 2.0) -> float:
        """How well the components describe trajectories that they need not have been fitted to.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        r : float or "E"
            At least 1: 1 + Σ σ^r, with σ the canonical correlations between the components at t and t + lagtime.
            "E": the VAMP-E score of the model λ, which is at most the sum of squares of the true ones.

        Returns
        -------
        float
            1 for the constant function included.

        References
        ----------
        Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eqs. 30 and 33.
        """
        check_is_fitted(self, "components_")
        return _score(self, X, self.eigenvectors_, self.eigenvectors_, self.eigenvalues_, r)

    def score(self, X: Trajectories, y: object = None) -> float:
        """VAMP-2 score of the components, at most n_components + 1.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored

        Returns
        -------
        float
        """
        return self.vamp_score(X)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a file that `molml.load` reads; it holds no moments, so that `partial_fit` does not go on from it.

        Parameters
        ----------
        path : path-like
        metadata : mapping, optional
            JSON-able description to add.
        """
        save_estimator(self, path, metadata=metadata)

    @classmethod
    def from_container(cls, container: Container) -> TICA:
        """What `save` wrote, as `molml.io.load_container` reads it.

        Raises
        ------
        molml.io.ModelFileError
            If it is of another class or not whole.
        """
        return _loaded(cls, container, ("components_", "eigenvectors_"), ("eigenvalues_", "kinetic_variance_ratio_"))

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


@final
class VAMP(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Linear functions that a frame knows best about the frame one lag time later; no reversibility is assumed.

    The singular value decomposition of W0ᵀ c0t Wt, where W0 and Wt whiten frames at t and t + lagtime: pairs of
    functions, left ones of x_t and right ones of x_t+lagtime, of variance 1 and correlation σ.

    Parameters
    ----------
    lagtime : int
        In frames, at least 1.
    n_components : int, optional
        All if not given.
    epsilon : float
        Least variance of a direction that is looked at, in the scale in which every feature has variance 1; for
        float32 data at least 1.2e-7 n_features (`molml.kinetics.covariance.whitening`).
    kinetic_variance : float, optional
        Take no more components than hold this fraction, at most 1, of Σσ².

    Attributes
    ----------
    mean_ : array (n_features,)
        Of the frames at t.
    components_ : array (n_components, n_features)
        Left functions: transform(x) = (x − mean_) @ components_.T; the largest entry of a row is positive.
    right_mean_, right_components_ : array (n_features,), array (n_components, n_features)
        Right functions, of the frames at t + lagtime.
    singular_values_ : array (n_components,)
        σ, descending.
    kinetic_variance_ratio_ : array (n_components,)
        σ² as fractions of their sum over all components.
    rank_ : int
        Number of functions that could be had.

    References
    ----------
    Wu and Noé, J. Nonlinear Sci. 30, 23 (2020).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.repeat(rng.choice([-1.0, 1.0], 200), 50)[:, None] + rng.normal(size=(10000, 1))
    >>> vamp = VAMP(lagtime=1).fit(x)
    >>> round(vamp.score(x), 3)
    1.24
    """

    def __init__(
        self,
        lagtime: int = 1,
        n_components: int | None = None,
        *,
        epsilon: float = EPSILON,
        kinetic_variance: float | None = None,
    ) -> None:
        self.lagtime, self.n_components = lagtime, n_components
        self.epsilon, self.kinetic_variance = epsilon, kinetic_variance

    def fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Fit to trajectories, and forget what was fitted before.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored
        weights : array (n_frames,), or list of them for a list, optional
            Of every frame, at least 0; that of a pair is its first frame's.

        Returns
        -------
        VAMP
            This object.

        Raises
        ------
        TypeError, ValueError
            If X, the weights or a parameter are not what they should be, a trajectory is not longer than the lag time,
            no feature varies, or n_components is larger than the rank.
        """
        _check_linear(self)
        _check_columns(self, X, reset=True)
        return self._solve(Covariances(self.lagtime).update(X, weights))

    def partial_fit(self, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> Self:
        """Add trajectories to those seen before; parameters and errors as in `fit`.

        Nothing is added if there is an error.
        """
        _check_linear(self)
        _check_columns(self, X, reset=not hasattr(self, "components_"))
        return self._solve(_extended(self, Covariances(self.lagtime).update(X, weights)))

    def _solve(self, covariances: Covariances) -> Self:
        mean, right_mean, resolution = covariances.mean_0, covariances.mean_t, covariances.resolution
        left = whitening(covariances.c00, mean=mean, epsilon=self.epsilon, resolution=resolution)
        right = whitening(covariances.ctt, mean=right_mean, epsilon=self.epsilon, resolution=resolution)
        if not left.shape[1] or not right.shape[1]:
            raise ValueError(_CONSTANT)
        u, values, vt = scipy.linalg.svd(left.T @ covariances.c0t @ right, full_matrices=False)
        ratio = _fractions(values)
        n_components = min(
            _checked_n_components(self.n_components, len(values)), _n_holding(self.kinetic_variance, ratio)
        )
        components, right_components = left @ u[:, :n_components], right @ vt[:n_components].T
        sign = _signs(components)
        self.n_features_in_, self.rank_ = len(mean), len(values)
        self.mean_, self.right_mean_ = mean, right_mean
        self.components_, self.right_components_ = (components * sign).T, (right_components * sign).T
        # rounding can exceed 1
        self.singular_values_ = np.minimum(values[:n_components], 1.0)
        self.kinetic_variance_ratio_ = ratio[:n_components]
        self._covariances = covariances
        return self

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Left functions of frames.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        array (n_frames, n_components), or list of them for a list or a Streamed

        Raises
        ------
        TypeError, ValueError
            If X is not what it should be, or has other features than those of the fit.
        """
        check_is_fitted(self, "components_")
        return _projected(self, X)

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales t = −lagtime / ln σ, which are relaxation times if the dynamics is reversible.

        Parameters
        ----------
        n : int, optional
            How many; as many as there are components if not given.

        Returns
        -------
        array (n,), frames
            Descending; infinite for σ = 1, as of fewer frames than features.
        """
        check_is_fitted(self, "components_")
        return _timescales(self.singular_values_, self.lagtime, n)

    def vamp_score(self, X: Trajectories, *, r: float | str = 2.0) -> float:
        """How well the functions describe trajectories that they need not have been fitted to.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        r : float or "E"
            At least 1: 1 + Σ σ^r, with σ the canonical correlations between left functions at t and right ones at
            t + lagtime. "E": the VAMP-E score of the model, which is at most the sum of squares of the true ones.

        Returns
        -------
        float
            1 for the constant function included.

        References
        ----------
        Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eqs. 30 and 33.
        """
        check_is_fitted(self, "components_")
        return _score(self, X, self.components_, self.right_components_, self.singular_values_, r)

    def score(self, X: Trajectories, y: object = None) -> float:
        """VAMP-2 score of left and right functions, at most n_components + 1.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : ignored

        Returns
        -------
        float
        """
        return self.vamp_score(X)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a file that `molml.load` reads; it holds no moments, so that `partial_fit` does not go on from it.

        Parameters
        ----------
        path : path-like
        metadata : mapping, optional
            JSON-able description to add.
        """
        save_estimator(self, path, metadata=metadata)

    @classmethod
    def from_container(cls, container: Container) -> VAMP:
        """What `save` wrote, as `molml.io.load_container` reads it.

        Raises
        ------
        molml.io.ModelFileError
            If it is of another class or not whole.
        """
        vamp = _loaded(
            cls, container, ("components_", "right_components_"), ("singular_values_", "kinetic_variance_ratio_")
        )
        _check_shape(vamp, "right_mean_", (vamp.n_features_in_,))
        return vamp

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


_CONSTANT = "X must have a feature that varies, got only constant ones (to the precision of the numbers)"

Linear = PCA | TICA | VAMP
E = TypeVar("E", PCA, TICA, VAMP)


def _check_linear(estimator: TICA | VAMP) -> None:
    check_lagtime(estimator.lagtime, least=1)
    epsilon, kinetic_variance = estimator.epsilon, estimator.kinetic_variance
    if not isinstance(epsilon, int | float | np.number) or not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be at least 0 and less than 1, got {epsilon!r}")
    if kinetic_variance is not None and (
        not isinstance(kinetic_variance, int | float | np.number) or not 0 < kinetic_variance <= 1
    ):
        raise ValueError(f"kinetic_variance must be a fraction, more than 0 and at most 1, got {kinetic_variance!r}")


def _check_columns(estimator: Linear, X: Trajectories, *, reset: bool) -> None:
    """Names and number of the columns of a data frame, as everywhere in scikit-learn; arrays have no names."""
    if not is_several(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset and hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def _checked_n_components(n_components: int | None, rank: int) -> int:
    if n_components is None:
        return rank
    if not isinstance(n_components, int | np.integer) or isinstance(n_components, bool) or n_components < 1:
        raise ValueError(f"n_components must be a whole number of at least 1, got {n_components!r}")
    if n_components > rank:
        raise ValueError(
            f"n_components must be at most {rank}, the number of independent directions in X, got {n_components}"
        )
    return int(n_components)


def _fractions(values: Array) -> Array:
    total = np.square(values).sum()
    return values**2 / total if total > 0 else np.zeros(len(values))


def _n_holding(fraction: float | None, ratio: Array) -> int:
    """How many of the first numbers have this sum."""
    # the sum of all falls short of 1 by rounding
    return len(ratio) if fraction is None else min(int(np.sum(np.cumsum(ratio) < fraction - 1e-12)) + 1, len(ratio))


def _extended(estimator: Linear, added: Covariances) -> Covariances:
    """What an estimator has seen, and more; the estimator is left as it is."""
    seen = getattr(estimator, "_covariances", None)
    if seen is None:
        if hasattr(estimator, "components_"):
            raise ValueError("partial_fit cannot go on from a file, which holds no moments; use fit")
        return added
    if seen.n_features != added.n_features:
        raise ValueError(
            f"X has {added.n_features} features, but {type(estimator).__name__} is expecting {seen.n_features} "
            "features as input, those of earlier calls"
        )
    both = Covariances(seen.lagtime, reversible=seen.reversible)
    both.merge(seen)
    # of another lag time, if the parameter was changed between two calls: refused here
    both.merge(added)
    return both


def _of_the_fit(estimator: Linear, X: Trajectories) -> list[Array] | Streamed:
    """Trajectories that have the features of the fit."""
    arrays = as_list(X, n_features=estimator.n_features_in_)
    _check_columns(estimator, X, reset=False)
    return arrays


def _projected(estimator: Linear, X: Trajectories) -> Array | list[Array]:
    arrays = _of_the_fit(estimator, X)
    mean, components = estimator.mean_, estimator.components_
    lengths = arrays.lengths if isinstance(arrays, Streamed) else [len(x) for x in arrays]
    found = [np.empty((n, len(components))) for n in lengths]
    for index, first, x, _ in lagged_blocks(arrays, 0):
        np.matmul(np.subtract(x, mean, dtype=np.float64), components.T, out=found[index][first : first + len(x)])
    return found if is_several(X) else found[0]


def _signs(columns: Array) -> Array:
    size = np.abs(columns)
    # of entries that are equal but for rounding the first decides, on every machine
    largest = np.argmax(size >= size.max(axis=0) * (1 - 1e-6), axis=0)
    return np.where(np.take_along_axis(columns, largest[None], axis=0)[0] < 0, -1.0, 1.0)


def _signed(columns: Array) -> Array:
    return columns * _signs(columns)


def _timescales(eigenvalues: Array, lagtime: int, n: int | None) -> Array:
    if n is not None and (not isinstance(n, int | np.integer) or not 1 <= n <= len(eigenvalues)):
        raise ValueError(f"n must be a whole number from 1 to {len(eigenvalues)}, the number of components, got {n!r}")
    return np.sort(implied_timescales(eigenvalues, lagtime))[::-1][:n]


def _score(estimator: TICA | VAMP, X: Trajectories, left: Array, right: Array, values: Array, r: float | str) -> float:
    covariances = Covariances(estimator.lagtime).update(_of_the_fit(estimator, X))
    c00 = left @ covariances.c00 @ left.T
    c0t = left @ covariances.c0t @ right.T
    ctt = right @ covariances.ctt @ right.T
    if isinstance(r, str):
        if r != "E":
            raise ValueError(f'r must be a number of at least 1 or "E", got {r!r}')
        return float(1.0 + 2.0 * values @ np.diag(c0t) - values @ (c00 * ctt) @ values)
    resolution = covariances.resolution
    # sizes of the terms of which a coordinate is the sum: what rounding of it depends on
    size, size_t = np.abs(left) @ np.abs(covariances.mean_0), np.abs(right) @ np.abs(covariances.mean_t)
    white = whitening(c00, mean=size, epsilon=1e-10, resolution=resolution)
    white_t = whitening(ctt, mean=size_t, epsilon=1e-10, resolution=resolution)
    return singular_value_score(white.T @ c0t @ white_t, r=r)


def _loaded(cls: type[E], container: Container, matrices: tuple[str, ...], vectors: tuple[str, ...]) -> E:
    estimator = load_estimator(cls, container)
    n_features = getattr(estimator, "n_features_in_", None)
    if not isinstance(n_features, int):
        raise ModelFileError(f"the file does not hold a whole {cls.__name__}: n_features_in_ is missing; get it again")
    _check_shape(estimator, "mean_", (n_features,))
    n = len(getattr(estimator, matrices[0], ()))
    for name in matrices:
        _check_shape(estimator, name, (n, n_features))
    for name in vectors:
        _check_shape(estimator, name, (n,))
    return estimator


def _check_shape(estimator: Linear, name: str, shape: tuple[int, ...]) -> None:
    found = getattr(estimator, name, None)
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise ModelFileError(
            f"the file does not hold a whole {type(estimator).__name__}: {name} must be an array of shape {shape}, "
            f"got {getattr(found, 'shape', found)!r}; get it again"
        )
