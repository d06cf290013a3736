"""Discrete states: k-means cells, and mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self, final

import numpy as np
from numba import njit
from sklearn import mixture
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from molml.kinetics.data import (
    Streamed,
    Trajectories,
    as_list,
    check_columns,
    lagged_blocks,
    of_one_kind,
    of_the_fit,
    whole,
)
from molml.kinetics.files import check_fitted_shapes, load_estimator, save_estimator

Array = np.ndarray[Any, np.dtype[Any]]

# frames that are compared with a centre at a time, their distances all in the fastest cache
_LANES = 128
# of contraction and reassociation alone, results hardly differ; infinities and NaN stay what they are
_jit = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@_jit
def _assign(frames: Array, centers: Array, labels: Array, distances: Array) -> None:
    """Nearest centre of every frame, of equally near ones the first, and the squared distance.

    The innermost loops run over frames, so that processors handle 4 to 16 of them in one instruction.
    """
    n_frames, n_features = frames.shape
    columns = np.empty((n_features, _LANES), frames.dtype)
    now, best = np.empty(_LANES, frames.dtype), np.empty(_LANES, frames.dtype)
    nearest = np.empty(_LANES, np.int32)
    for first in range(0, n_frames, _LANES):
        n = min(_LANES, n_frames - first)
        for k in range(_LANES):
            best[k] = np.inf
            nearest[k] = 0
            for j in range(n_features):
                columns[j, k] = frames[first + min(k, n - 1), j]
        for i in range(len(centers)):
            # four features at a time, since what is added up would else be read and written as often as the features
            done = n_features % 4
            for k in range(_LANES):
                now[k] = 0.0
            for j in range(done):
                a = centers[i, j]
                for k in range(_LANES):
                    x = columns[j, k] - a
                    now[k] += x * x
            for j in range(done, n_features, 4):
                a, b, c, d = centers[i, j], centers[i, j + 1], centers[i, j + 2], centers[i, j + 3]
                for k in range(_LANES):
                    x, y = columns[j, k] - a, columns[j + 1, k] - b
                    z, w = columns[j + 2, k] - c, columns[j + 3, k] - d
                    now[k] += (x * x + y * y) + (z * z + w * w)
            for k in range(_LANES):
                closer = now[k] < best[k]
                best[k] = now[k] if closer else best[k]
                nearest[k] = i if closer else nearest[k]
        for k in range(n):
            labels[first + k] = nearest[k]
            distances[first + k] = best[k]


@_jit
def _add(frames: Array, labels: Array, sums: Array, counts: Array) -> None:
    for t in range(len(frames)):
        counts[labels[t]] += 1
        for j in range(frames.shape[1]):
            sums[labels[t], j] += frames[t, j]


@_jit
def _nearer(frames: Array, center: Array, distances: Array, found: Array) -> float:
    """Smaller one of known squared distances and those to one more centre; and their sum."""
    total = 0.0
    for t in range(len(frames)):
        square = 0.0
        for j in range(frames.shape[1]):
            square += (frames[t, j] - center[j]) ** 2
        found[t] = min(square, distances[t])
        total += found[t]
    return total


@final
@dataclass(eq=False, repr=False)
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Cells around centres that are the means of their frames, by Lloyd's algorithm.

    The first centres are drawn by greedy k-means++ from a random sample of 100 frames per cluster (at least 10,000, at
    most all): each is the best of a few frames that are drawn with probabilities proportional to the squared distance
    from the centres so far. A cell that loses its last frame moves to the frame that is furthest from its centre. A
    streamed input is read once for the sample and once in every iteration.

    Parameters
    ----------
    n_clusters : int
    seed : int
        Of the first centres; all else is deterministic.
    max_iter : int
        Most times that centres are moved.
    tol : float
        Stop when the inertia falls by no more than this part of it.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Attributes
    ----------
    cluster_centers_ : array (n_clusters, n_features)
    counts_ : integer array (n_clusters,)
        Frames that each centre is, or in `partial_fit` was, the mean of.
    inertia_ : float
        Sum of squared distances to the nearest of `cluster_centers_`; of the last call of `partial_fit`.
    n_iter_ : int
        Times that centres were moved.

    References
    ----------
    Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982); Arthur, Vassilvitskii, SODA 2007, p. 1027; updates of `partial_fit`:
    MacQueen, Proc. Fifth Berkeley Symp. Math. Stat. Prob. 1, 281 (1967).

    Examples
    --------
    >>> X = np.array([[0.0], [0.2], [5.0], [5.2], [9.0]])
    >>> model = KMeans(3).fit(X)
    >>> np.sort(model.cluster_centers_[:, 0])
    array([0.1, 5.1, 9. ])
    >>> states = model.predict([X, X[:2]])
    >>> bool(states[0][0] == states[1][1])
    True
    """

    n_clusters: int = 100
    _: KW_ONLY
    seed: int = 0
    max_iter: int = 100
    tol: float = 1e-4
    progress: bool | None = None

    save = save_estimator
    from_container = classmethod(load_estimator)
    _n_features_out = property(lambda self: len(self.cluster_centers_))

    def fit(self, X: Trajectories, y: None = None) -> Self:
        """Find the centres.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            If X is no such thing or not finite, parameters are out of range, or there are fewer different frames than
            clusters.
        """
        data = self._prepare(X)
        centers = self._first_centers(data)
        sums, counts, inertia = _assigned(data, centers)
        hidden = None if self.progress is None else not self.progress
        self.n_iter_ = 0
        for _ in tqdm(range(self.max_iter), desc="k-means", disable=hidden, leave=False):
            filled = counts > 0
            centers[filled] = sums[filled] / counts[filled, None]
            if not filled.all():
                centers[~filled] = _furthest(data, centers[filled], int(np.count_nonzero(~filled)))
            before = inertia
            sums, counts, inertia = _assigned(data, centers)
            self.n_iter_ += 1
            # every cell must have a frame in the end
            if before - inertia <= self.tol * inertia and counts.all():
                break
        self.cluster_centers_, self.counts_, self.inertia_ = centers, counts, inertia
        return self

    def partial_fit(self, X: Trajectories, y: None = None) -> Self:
        """Move each centre to the mean of all frames that were assigned to it, in this call and those before.

        The first call without `fit` before draws the first centres from its frames.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        if hasattr(self, "cluster_centers_"):
            data = self._known(X)
        else:
            data = self._prepare(X)
            self.cluster_centers_ = self._first_centers(data)
            self.counts_ = np.zeros(self.n_clusters, dtype=np.int64)
            self.n_iter_ = 0
        sums, counts, self.inertia_ = _assigned(data, self.cluster_centers_)
        self.counts_ = self.counts_ + counts
        moved = counts > 0
        mean = sums[moved] / counts[moved, None]
        self.cluster_centers_[moved] += (mean - self.cluster_centers_[moved]) * (counts / self.counts_)[moved, None]
        self.n_iter_ += 1
        return self

    def _prepare(self, X: Trajectories) -> list[Array] | Streamed:
        whole("n_clusters", self.n_clusters, 1)
        whole("max_iter", self.max_iter, 0)
        if not 0 <= self.tol < np.inf:
            raise ValueError(f"tol must be at least 0 and finite, got {self.tol!r}")
        data = as_list(X)
        n_frames = sum(_lengths(data))
        if n_frames < self.n_clusters:
            raise ValueError(
                f"there must be at least as many frames as clusters, got n_samples={n_frames} and "
                f"n_clusters={self.n_clusters}; choose fewer clusters"
            )
        self.n_features_in_ = data.n_features if isinstance(data, Streamed) else data[0].shape[1]
        check_columns(self, X, reset=True)
        return data

    def _known(self, X: Trajectories) -> list[Array] | Streamed:
        check_is_fitted(self)
        return of_the_fit(self, X)

    def _first_centers(self, data: list[Array] | Streamed) -> Array:
        rng = np.random.default_rng(self.seed)
        n_frames = sum(_lengths(data))
        n_drawn = min(n_frames, max(100 * self.n_clusters, 10_000))
        sample = _frames(data, np.sort(rng.choice(n_frames, n_drawn, replace=False, shuffle=False)))
        centers = np.empty((self.n_clusters, self.n_features_in_))
        centers[0] = sample[rng.integers(n_drawn)]
        distances, scratch = np.full(n_drawn, np.inf), np.empty(n_drawn)
        for k in range(1, self.n_clusters + 1):
            total = _nearer(sample, centers[k - 1], distances, distances)
            if k == self.n_clusters or total == 0:
                break
            # as many as Arthur and Vassilvitskii used
            candidates = np.searchsorted(np.cumsum(distances), total * rng.random(2 + int(np.log(self.n_clusters))))
            candidates = np.minimum(candidates, n_drawn - 1)
            totals = [_nearer(sample, sample[t], distances, scratch) for t in candidates]
            centers[k] = sample[candidates[int(np.argmin(totals))]]
        if k < self.n_clusters:
            centers[k:] = _furthest(data, centers[:k], self.n_clusters - k)
        return centers

    def predict(self, X: Trajectories) -> Array | list[Array]:
        """Number of the nearest centre of every frame, of equally near ones the first.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        int32 array (n_frames,), or list of such arrays
            A list for a list and for a stream.

        Raises
        ------
        TypeError, ValueError
            If X is no such thing, has other features, or is not finite.
        """
        data = self._known(X)
        pieces: list[list[Array]] = [[] for _ in _lengths(data)]
        for index, labels, _, _ in _assignments(data, self.cluster_centers_):
            pieces[index].append(labels)
        return of_one_kind(X, [np.concatenate(each) for each in pieces])

    def fit_predict(self, X: Trajectories, y: None = None) -> Array | list[Array]:
        """`fit`, then `predict`."""
        return self.fit(X).predict(X)

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Distances to all centres.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed

        Returns
        -------
        array (n_frames, n_clusters), or list of such arrays
            A list for a list and for a stream.

        Raises
        ------
        TypeError, ValueError
            As in `predict`.
        """
        data = self._known(X)
        pieces: list[list[Array]] = [[] for _ in _lengths(data)]
        for index, _, x, _ in lagged_blocks(data, 0):
            # one centre after the other: all differences at once would take n_features times the room
            columns = [np.linalg.norm(x - center, axis=1) for center in self.cluster_centers_]
            pieces[index].append(np.stack(columns, axis=1))
        return of_one_kind(X, [np.concatenate(each) for each in pieces])

    def score(self, X: Trajectories, y: None = None) -> float:
        """Minus the mean squared distance to the nearest centre.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            As in `predict`.
        """
        _, counts, inertia = _assigned(self._known(X), self.cluster_centers_)
        return -inertia / float(counts.sum())

    def _check_fitted(self) -> None:
        check_fitted_shapes(
            self, {"cluster_centers_": (self.n_clusters, self.n_features_in_), "counts_": (self.n_clusters,)}
        )


def _lengths(data: list[Array] | Streamed) -> list[int]:
    return data.lengths if isinstance(data, Streamed) else [len(x) for x in data]


def _frames(data: list[Array] | Streamed, numbers: Array) -> Array:
    """Some frames, numbered through all trajectories, ascending."""
    starts = np.concatenate([[0], np.cumsum(_lengths(data))])
    found = []
    for index, first, x, _ in lagged_blocks(data, 0):
        low, high = np.searchsorted(numbers, starts[index] + np.array([first, first + len(x)]))
        found.append(np.asarray(x[numbers[low:high] - starts[index] - first], dtype=np.float64))
    return np.concatenate(found)


def _assignments(data: list[Array] | Streamed, centers: Array) -> Iterator[tuple[int, Array, Array, Array]]:
    """Trajectory, labels, squared distances and frames, piece by piece."""
    for index, _, x, _ in lagged_blocks(data, 0):
        labels, distances = np.empty(len(x), dtype=np.int32), np.empty(len(x), dtype=x.dtype)
        # other layouts would be compiled anew
        _assign(np.ascontiguousarray(x), centers.astype(x.dtype), labels, distances)
        yield index, labels, distances, x


def _assigned(data: list[Array] | Streamed, centers: Array) -> tuple[Array, Array, float]:
    """Sums and numbers of the frames of every centre, and the inertia."""
    sums, counts, inertia = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64), 0.0
    for _, labels, distances, x in _assignments(data, centers):
        _add(np.ascontiguousarray(x), labels, sums, counts)
        inertia += float(distances.sum(dtype=np.float64))
    if not np.isfinite(inertia):
        raise ValueError("features are too large: squared distances overflow; scale them")
    return sums, counts, inertia


def _furthest(data: list[Array] | Streamed, centers: Array, n: int) -> Array:
    """Frames each of which is the furthest from all centres and from those found before."""
    found = centers
    for _ in range(n):
        largest, frame = 0.0, None
        for _, _, distances, x in _assignments(data, found):
            t = int(distances.argmax())
            if distances[t] > largest:
                largest, frame = float(distances[t]), np.asarray(x[t], dtype=np.float64)
        if frame is None:
            raise ValueError(
                f"there must be at least as many different frames as clusters, got {len(found)} different ones and "
                f"n_clusters={len(centers) + n}; choose fewer clusters"
            )
        found = np.concatenate([found, frame[None]])
    return found[len(centers) :]


@final
@dataclass(eq=False, repr=False)
class GaussianMixture(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Mixture of Gaussians, fitted by scikit-learn, for lists of trajectories and with files.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    seed : int
    max_iter : int
        Of expectation and maximisation.
    tol : float
        Stop when the mean log-likelihood gains less.
    reg_covar : float
        Added to variances.

    Attributes
    ----------
    weights_ : array (n_components,)
    means_ : array (n_components, n_features)
    covariances_, precisions_cholesky_ : array
        As in sklearn.mixture.GaussianMixture.
    converged_ : bool
    n_iter_ : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(500, 1)) + np.repeat([[1.0], [9.0]], 250, axis=0)
    >>> np.sort(GaussianMixture(2).fit(X).means_[:, 0]).round()
    array([1., 9.])
    """

    n_components: int = 2
    _: KW_ONLY
    covariance_type: str = "full"
    seed: int = 0
    max_iter: int = 100
    tol: float = 1e-3
    reg_covar: float = 1e-6

    save = save_estimator
    from_container = classmethod(load_estimator)
    _n_features_out = property(lambda self: len(self.means_))

    def fit(self, X: Trajectories, y: None = None) -> Self:
        """Fit to all frames.

        Parameters
        ----------
        X : array (n_frames, n_features), or list of such arrays
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            If X is no such thing or not finite, is streamed, or a parameter is out of range.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If `max_iter` was not enough.
        """
        data = _finite(as_list(X))
        self.n_features_in_ = data[0].shape[1]
        check_columns(self, X, reset=True)
        fitted = self._mixture().fit(np.concatenate(data))
        for name in _FITTED:
            setattr(self, name, getattr(fitted, name))
        return self

    def _mixture(self) -> mixture.GaussianMixture:
        return mixture.GaussianMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            tol=self.tol,
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            random_state=self.seed,
        )

    def _fitted(self) -> mixture.GaussianMixture:
        check_is_fitted(self)
        fitted = self._mixture()
        for name in _FITTED:
            setattr(fitted, name, getattr(self, name))
        return fitted

    def predict(self, X: Trajectories) -> Array | list[Array]:
        """Number of the most probable component of every frame.

        Parameters
        ----------
        X : array (n_frames, n_features), or list of such arrays

        Returns
        -------
        integer array (n_frames,), or list of such arrays
            A list for a list.

        Raises
        ------
        TypeError, ValueError
            If X is no such thing, has other features, is streamed or not finite.
        """
        fitted = self._fitted()
        return of_one_kind(X, [fitted.predict(x) for x in self._known(X)])

    def fit_predict(self, X: Trajectories, y: None = None) -> Array | list[Array]:
        """`fit`, then `predict`."""
        return self.fit(X).predict(X)

    def transform(self, X: Trajectories) -> Array | list[Array]:
        """Probabilities of the components, given the frame.

        Parameters
        ----------
        X : array (n_frames, n_features), or list of such arrays

        Returns
        -------
        array (n_frames, n_components), or list of such arrays
            A list for a list.

        Raises
        ------
        TypeError, ValueError
            As in `predict`.
        """
        fitted = self._fitted()
        return of_one_kind(X, [fitted.predict_proba(x) for x in self._known(X)])

    def score(self, X: Trajectories, y: None = None) -> float:
        """Mean log-likelihood of a frame.

        Parameters
        ----------
        X : array (n_frames, n_features), or list of such arrays
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            As in `predict`.
        """
        fitted = self._fitted()
        return float(np.concatenate([fitted.score_samples(x) for x in self._known(X)]).mean())

    def _known(self, X: Trajectories) -> list[Array]:
        check_is_fitted(self)
        return _finite(of_the_fit(self, X))

    def _check_fitted(self) -> None:
        n, d = self.n_components, self.n_features_in_
        of_type: dict[str, tuple[int, ...]] = {"full": (n, d, d), "tied": (d, d), "diag": (n, d), "spherical": (n,)}
        shape = of_type.get(self.covariance_type)
        check_fitted_shapes(
            self, {"weights_": (n,), "means_": (n, d), "covariances_": shape, "precisions_cholesky_": shape}
        )


_FITTED = ("weights_", "means_", "covariances_", "precisions_cholesky_", "converged_", "n_iter_", "lower_bound_")


def _finite(data: list[Array] | Streamed) -> list[Array]:
    if isinstance(data, Streamed):
        raise TypeError("GaussianMixture needs all frames in memory, got a stream; give arrays, of some frames, say")
    for _ in lagged_blocks(data, 0):
        pass
    return data
