"""Linear coordinates: PCA, time-lagged independent components, and the variational approach to Markov processes.

All three are eigenvalue problems of covariances, which are gathered in one pass over the trajectories (`Covariances`);
`partial_fit` adds trajectories, and forms no pairs between those of different calls; files hold no moments, so that it
does not go on from them. In cross-validation give a list of trajectories, of which the folds are then made: of one
array, what remains is joined where a fold was cut out.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Self, TypeVar, final

import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from molml.kinetics.covariance import EPSILON, Covariances, FrameWeights, koopman_weights, whitening
from molml.kinetics.data import (
    Array,
    Streamed,
    Trajectories,
    as_list,
    check_columns,
    check_lagtime,
    lagged_blocks,
    of_one_kind,
    of_the_fit,
    whole,
)
from molml.kinetics.files import check_fitted_shapes, load_estimator, save_estimator
from molml.kinetics.metrics import implied_timescales, singular_value_score

__all__ = ["PCA", "TICA", "VAMP"]

SCALINGS = ("kinetic_map", "commute_map")


def _takes_one_pass(estimator: TICA) -> bool:
    if estimator.reweight:
        raise AttributeError("partial_fit cannot reweight, which takes two passes over all trajectories; use fit")
    return True


def _check_linear(estimator: TICA | VAMP) -> None:
    check_lagtime(estimator.lagtime, least=1)
    epsilon, kinetic_variance = estimator.epsilon, estimator.kinetic_variance
    if not isinstance(epsilon, int | float | np.number) or not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be at least 0 and less than 1, got {epsilon!r}")
    if kinetic_variance is not None and (
        not isinstance(kinetic_variance, int | float | np.number) or not 0 < kinetic_variance <= 1
    ):
        raise ValueError(f"kinetic_variance must be a fraction, more than 0 and at most 1, got {kinetic_variance!r}")


E = TypeVar("E", "PCA", "TICA", "VAMP")


def _fit(self: E, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> E:
    """Fit to trajectories, and forget what was fitted before.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    y : ignored
    weights : array (n_frames,), or list of them for a list, optional
        Of every frame, at least 0; that of a pair is its first frame's.

    Returns
    -------
    estimator
        This object.

    Raises
    ------
    TypeError, ValueError
        If X, the weights or a parameter are not what they should be, a trajectory is not longer than the lag time, no
        feature varies, or n_components is larger than the rank.
    """
    self._check_parameters()
    check_columns(self, X, reset=True)
    return self._solve(self._moments(X, weights))


def _partial_fit(self: E, X: Trajectories, y: object = None, *, weights: FrameWeights | None = None) -> E:
    """Add trajectories to those seen before; parameters and errors as in `fit`.

    Nothing is added if there is an error.
    """
    self._check_parameters()
    check_columns(self, X, reset=not hasattr(self, "components_"))
    return self._solve(_extended(self, self._moments(X, weights)))


def _transform(self: PCA | TICA | VAMP, X: Trajectories) -> Array | list[Array]:
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
    arrays = of_the_fit(self, X)
    mean, components = self.mean_, self.components_
    lengths = arrays.lengths if isinstance(arrays, Streamed) else [len(x) for x in arrays]
    found = [np.empty((n, len(components))) for n in lengths]
    for index, first, x, _ in lagged_blocks(arrays, 0):
        np.matmul(np.subtract(x, mean, dtype=np.float64), components.T, out=found[index][first : first + len(x)])
    return of_one_kind(X, found)


def _timescales(self: TICA | VAMP, n: int | None = None) -> Array:
    """Implied timescales t = −lagtime / ln λ, of VAMP of σ, which are relaxation times if the dynamics is reversible.

    Parameters
    ----------
    n : int, optional
        How many; as many as there are components if not given.

    Returns
    -------
    array (n,), frames
        Descending; 0 for λ ≤ 0, infinite for 1, as of fewer frames than features.
    """
    check_is_fitted(self, "components_")
    _, _, values = self._functions()
    if n is not None and (not isinstance(n, int | np.integer) or not 1 <= n <= len(values)):
        raise ValueError(f"n must be a whole number from 1 to {len(values)}, the number of components, got {n!r}")
    return np.sort(implied_timescales(values, self.lagtime))[::-1][:n]


def _vamp_score(self: TICA | VAMP, X: Trajectories, *, r: float | str = 2.0) -> float:
    """How well the components describe trajectories that they need not have been fitted to.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    r : float or "E"
        At least 1: 1 + Σ σ^r, with σ the canonical correlations between the components at t and at t + lagtime, of VAMP
        between left functions at t and right ones at t + lagtime. "E": the VAMP-E score of the model, which is at most
        the sum of squares of the true correlations.

    Returns
    -------
    float
        1 for the constant function included.

    References
    ----------
    Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eqs. 30 and 33.
    """
    check_is_fitted(self, "components_")
    left, right, values = self._functions()
    covariances = Covariances(self.lagtime).update(of_the_fit(self, X))
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


def _score(self: TICA | VAMP, X: Trajectories, y: object = None) -> float:
    """VAMP-2 score of the components, of VAMP of left and right functions; at most n_components + 1.

    Parameters
    ----------
    X : array (n_frames, n_features), list of such arrays, or Streamed
    y : ignored

    Returns
    -------
    float
    """
    return self.vamp_score(X)


@final
@dataclass(eq=False, repr=False)
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

    n_components: int | None = None
    _: KW_ONLY
    whiten: bool = False

    fit = _fit
    partial_fit = _partial_fit
    transform = _transform
    save = save_estimator
    from_container = classmethod(load_estimator)
    _n_features_out = property(lambda self: len(self.components_))

    def _check_parameters(self) -> None:
        pass  # n_components, when the rank is known

    def _moments(self, X: Trajectories, weights: FrameWeights | None) -> Covariances:
        return Covariances(0).update(X, weights)

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
        return of_one_kind(X, [z @ inverse + self.mean_ for z in arrays])

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
        covariances = Covariances(0).update(of_the_fit(self, X))
        off = covariances.mean_0 - self.mean_
        # of what is left of x: x − x̂ = (1 − P)(x − mean_), with P the projector on the components
        inverse = self.components_ * self.explained_variance_[:, None] if self.whiten else self.components_
        rest = np.eye(len(off)) - inverse.T @ self.components_
        total = np.trace(covariances.c00)
        if not total > 0:
            raise ValueError(_CONSTANT)
        error = (rest @ covariances.c00 * rest).sum() + np.square(rest @ off).sum()
        return float(1.0 - error / total)

    def _check_fitted(self) -> None:
        _check_fitted(self, ("components_",), ("explained_variance_", "explained_variance_ratio_"))


@final
@dataclass(eq=False, repr=False)
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

    lagtime: int = 1
    n_components: int | None = None
    _: KW_ONLY
    scaling: str | None = "kinetic_map"
    epsilon: float = EPSILON
    kinetic_variance: float | None = None
    reweight: bool = False

    fit = _fit
    partial_fit = available_if(_takes_one_pass)(_partial_fit)
    transform = _transform
    timescales = _timescales
    vamp_score = _vamp_score
    score = _score
    save = save_estimator
    from_container = classmethod(load_estimator)
    _n_features_out = property(lambda self: len(self.components_))

    def _check_parameters(self) -> None:
        _check_linear(self)
        if self.scaling is not None and self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)} or None, got {self.scaling!r}")

    def _moments(self, X: Trajectories, weights: FrameWeights | None) -> Covariances:
        if self.reweight:
            if weights is not None:
                raise ValueError("weights must not be given with reweight=True, which makes its own")
            function = koopman_weights(Covariances(self.lagtime).update(X), epsilon=self.epsilon)
            return Covariances(self.lagtime, reversible=True).update(X, function)
        return Covariances(self.lagtime, reversible=True).update(X, weights)

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
        n_components = _n_kept(self, ratio)
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

    def _functions(self) -> tuple[Array, Array, Array]:
        return self.eigenvectors_, self.eigenvectors_, self.eigenvalues_

    def _check_fitted(self) -> None:
        _check_fitted(self, ("components_", "eigenvectors_"), ("eigenvalues_", "kinetic_variance_ratio_"))


@final
@dataclass(eq=False, repr=False)
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

    lagtime: int = 1
    n_components: int | None = None
    _: KW_ONLY
    epsilon: float = EPSILON
    kinetic_variance: float | None = None

    fit = _fit
    partial_fit = _partial_fit
    transform = _transform
    timescales = _timescales
    vamp_score = _vamp_score
    score = _score
    save = save_estimator
    from_container = classmethod(load_estimator)
    _check_parameters = _check_linear
    _n_features_out = property(lambda self: len(self.components_))

    def _moments(self, X: Trajectories, weights: FrameWeights | None) -> Covariances:
        return Covariances(self.lagtime).update(X, weights)

    def _solve(self, covariances: Covariances) -> Self:
        mean, right_mean, resolution = covariances.mean_0, covariances.mean_t, covariances.resolution
        left = whitening(covariances.c00, mean=mean, epsilon=self.epsilon, resolution=resolution)
        right = whitening(covariances.ctt, mean=right_mean, epsilon=self.epsilon, resolution=resolution)
        if not left.shape[1] or not right.shape[1]:
            raise ValueError(_CONSTANT)
        u, values, vt = scipy.linalg.svd(left.T @ covariances.c0t @ right, full_matrices=False)
        ratio = _fractions(values)
        n_components = _n_kept(self, ratio)
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

    def _functions(self) -> tuple[Array, Array, Array]:
        return self.components_, self.right_components_, self.singular_values_

    def _check_fitted(self) -> None:
        _check_fitted(self, ("components_", "right_components_"), ("singular_values_", "kinetic_variance_ratio_"))
        check_fitted_shapes(self, {"right_mean_": (self.n_features_in_,)})


_CONSTANT = "X must have a feature that varies, got only constant ones (to the precision of the numbers)"


def _checked_n_components(n_components: int | None, rank: int) -> int:
    if n_components is None:
        return rank
    if whole("n_components", n_components, 1) > rank:
        raise ValueError(
            f"n_components must be at most {rank}, the number of independent directions in X, got {n_components}"
        )
    return int(n_components)


def _fractions(values: Array) -> Array:
    total = np.square(values).sum()
    return values**2 / total if total > 0 else np.zeros(len(values))


def _n_kept(estimator: TICA | VAMP, ratio: Array) -> int:
    """How many components are asked for, or hold the fraction that is asked for."""
    n, fraction = _checked_n_components(estimator.n_components, len(ratio)), estimator.kinetic_variance
    # the sum of all falls short of 1 by rounding
    return n if fraction is None else min(int(np.sum(np.cumsum(ratio) < fraction - 1e-12)) + 1, n)


def _extended(estimator: PCA | TICA | VAMP, added: Covariances) -> Covariances:
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


def _signs(columns: Array) -> Array:
    size = np.abs(columns)
    # of entries that are equal but for rounding the first decides, on every machine
    largest = np.argmax(size >= size.max(axis=0) * (1 - 1e-6), axis=0)
    return np.where(np.take_along_axis(columns, largest[None], axis=0)[0] < 0, -1.0, 1.0)


def _signed(columns: Array) -> Array:
    return columns * _signs(columns)


def _check_fitted(estimator: PCA | TICA | VAMP, matrices: tuple[str, ...], vectors: tuple[str, ...]) -> None:
    n, d = len(estimator.components_), estimator.n_features_in_
    shapes = {"mean_": (d,)} | dict.fromkeys(matrices, (n, d)) | dict.fromkeys(vectors, (n,))
    check_fitted_shapes(estimator, shapes)
