"""Means and covariances of frames and of pairs of frames one lag time apart, gathered in one pass and mergeable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

import numpy as np
import scipy.linalg
from tqdm import tqdm

from molml.kinetics.data import Array, Streamed, Trajectories, as_list, check_lagtime, check_lengths, lagged_blocks

__all__ = ["Covariances", "FrameWeights", "koopman_weights", "whitening"]

FrameWeights = Array | Sequence[Array]
"""One number of at least 0 per frame: an array (n_frames,) for one trajectory, a list of them for a list."""

EPSILON = 1e-6
"""Least variance, in the scale in which every feature has variance 1, of a direction that counts."""

_FLOAT64 = float(np.finfo(np.float64).eps)
_NARROW = 32  # features of which float64 costs next to nothing
_ROWS = 2048  # pieces that stay in the processor's cache; in float32 also the longest sum in that precision


@final
class Covariances:
    """First and second moments of pairs (x_t, x_t+lagtime), of trajectories in memory or streamed.

    With N pairs of weights w_t (1 if not given), W = Σ w_t, and ⟨·⟩ the weighted mean over pairs,

        mean_0 = ⟨x_t⟩,   mean_t = ⟨x_t+lagtime⟩,
        c00 = ⟨(x_t − mean_0)(x_t − mean_0)ᵀ⟩,   c0t = ⟨(x_t − mean_0)(x_t+lagtime − mean_t)ᵀ⟩,   ctt likewise.

    If reversible, every pair counts in both directions of time: mean_0 = mean_t, c00 = ctt, c0t is symmetric.

    All moments are sums about a point near the data, which moves with them, so that a large mean or a drift costs no
    digits, and c0t comes from differences x_t+lagtime − x_t, so that of slow motions 1 − λ keeps its digits, too.
    Float64 frames are summed in float64: the order in which they come changes the result by some 1e-15 relative.
    Float32 frames of more than 32 features are multiplied in float32, 2048 frames at a time, and these sums are added
    in float64, which is twice as fast: entries of the covariances are then right to about 1e-7 of √(c_ii c_jj). Give
    float64 where directions of less than a millionth of the variance matter.

    Parameters
    ----------
    lagtime : int
        In frames, at least 0.
    reversible : bool

    Raises
    ------
    ValueError
        If the lag time is not a whole number of at least 0.

    References
    ----------
    Moving sums to another origin: Chan, Golub and LeVeque, Am. Stat. 37, 242 (1983). Estimators: Wu and Noé,
    J. Nonlinear Sci. 30, 23 (2020).

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [3.0], [2.0]])
    >>> covariances = Covariances(1).update(x)
    >>> covariances.n_pairs, covariances.mean_0.round(3), covariances.c0t.round(3)
    (3, array([1.333]), array([[0.333]]))
    """

    def __init__(self, lagtime: int, *, reversible: bool = False) -> None:
        check_lagtime(lagtime)
        self.lagtime, self.reversible = int(lagtime), reversible
        self.n_pairs = 0
        self.resolution = 0.0
        """Relative distance of neighbouring numbers of the coarsest type of the input; 0 before the first."""
        self._origin = np.zeros(0)
        # of the first frames of all pairs, and of the second ones, about the origin
        self._weight, self._total, self._square = np.zeros(2), np.zeros((2, 0)), np.zeros((2, 0, 0))
        # with d the second frame less the first: sum of d dᵀ if reversible; if not, of d and, about the origin, of x dᵀ
        self._step, self._cross = np.zeros(0), np.zeros((0, 0))
        # largest distances from the origin among its first frames, and whether to multiply float32 in float32
        self._spread, self._float32 = np.zeros(0), False

    def update(self, X: Trajectories, weights: FrameWeights | Callable[[Array], Array] | None = None) -> Covariances:
        """Add trajectories; nothing is added if one is refused.

        Parameters
        ----------
        X : array (n_frames, n_features), list of such arrays, or Streamed
        weights : array (n_frames,), list of such arrays, or function, optional
            Weight of every frame, which is that of the pair it begins; those of the last frames are not used. A
            function gives the weights (n,) of frames (n, n_features); they may be negative.

        Returns
        -------
        Covariances
            This object.

        Raises
        ------
        TypeError, ValueError
            If X or the weights are not what they should be, do not fit each other, or have numbers that are too large.
        """
        arrays = as_list(X, n_features=len(self._origin) if self.n_pairs else None)
        lengths = arrays.lengths if isinstance(arrays, Streamed) else [len(x) for x in arrays]
        check_lengths(lengths, self.lagtime)
        numbers = None if weights is None or callable(weights) else _checked_weights(weights, lengths, self.lagtime)
        added, block = (Covariances(self.lagtime, reversible=self.reversible) for _ in range(2))
        # what overflows is found below
        with np.errstate(over="ignore", invalid="ignore"), _bar(lengths, self.lagtime) as bar:
            for index, first, x, y in lagged_blocks(arrays, self.lagtime):
                w: Array | None = None
                if callable(weights):
                    w = _checked_values(weights(x), len(x))
                elif numbers is not None:
                    w = numbers[index][first : first + len(x)]
                # short trajectories near each other share an origin: moving it costs more than their sums
                if block.n_pairs and (block.n_pairs >= _ROWS or not block._is_near(x[0])):
                    added.merge(block)
                    block = Covariances(self.lagtime, reversible=self.reversible)
                block._gather(x, y, first, lengths[index] - self.lagtime, w)
                bar.update(len(x))
        added.merge(block)
        if not np.isfinite(added._square).all() or not np.isfinite(added._cross).all():
            raise ValueError(
                f"X must hold numbers whose squares {'float32' if added.resolution > 1e-10 else 'float64'} can hold, "
                "got larger ones; scale the features, or give float64"
            )
        if callable(weights) and not added._weight[0] > 0:
            raise ValueError(f"weights must have a positive sum, got {added._weight[0]}")
        self.merge(added)
        return self

    def merge(self, other: Covariances) -> None:
        """Add all that another one has seen.

        Raises
        ------
        ValueError
            If lag time, reversibility or number of features differ.
        """
        if (self.lagtime, self.reversible) != (other.lagtime, other.reversible):
            raise ValueError(
                f"covariances must be of one kind, got lagtime={self.lagtime}, reversible={self.reversible} and "
                f"lagtime={other.lagtime}, reversible={other.reversible}"
            )
        if not other.n_pairs:
            return
        if not self.n_pairs:
            for name in ("_origin", "_weight", "_total", "_square", "_step", "_cross"):
                setattr(self, name, getattr(other, name).copy())
            self.n_pairs, self.resolution = other.n_pairs, other.resolution
            return
        if len(self._origin) != len(other._origin):
            raise ValueError(
                f"covariances must be of the same features, got {len(self._origin)} and {len(other._origin)}"
            )
        n_pairs = self.n_pairs + other.n_pairs
        apart = other._origin - self._origin
        # equal origins stay equal to the last bit: a constant feature must not begin to vary
        origin = self._origin + apart * (other.n_pairs / n_pairs)
        mine, its = self._about(origin), other._about(origin)
        self._total, self._square, self._cross = (a + b for a, b in zip(mine, its, strict=True))
        self._origin, self.n_pairs = origin, n_pairs
        self._weight, self._step = self._weight + other._weight, self._step + other._step
        self.resolution = max(self.resolution, other.resolution)

    def _about(self, origin: Array) -> tuple[Array, Array, Array]:
        """Sums about another origin."""
        move = self._origin - origin
        if not move.any():
            return self._total, self._square, self._cross
        square = self._square + np.array([_moved(t, w, move) for t, w in zip(self._total, self._weight, strict=True)])
        cross = self._cross if self.reversible else self._cross + np.outer(move, self._step)
        return self._total + self._weight[:, None] * move, square, cross

    def _begin(self, x: Array) -> None:
        """Choose an origin near the first frames."""
        n_features = x.shape[1]
        sample = np.asarray(x[:: max(1, len(x) // 512)], np.float64)
        # through the first frame, so that the mean of equal numbers is that number
        mean = sample[0] + (sample - sample[0]).mean(axis=0)
        self._origin = mean.astype(x.dtype).astype(np.float64)
        self._total, self._square = np.zeros((2, n_features)), np.zeros((2, n_features, n_features))
        self._step, self._cross = np.zeros(n_features), np.zeros((n_features, n_features))
        self._spread = np.abs(sample - mean).max(axis=0)
        # squares must not leave the range of float32, and the origin must be one of its numbers
        fits = bool(np.all((self._spread < 1e12) & ((self._spread > 1e-12) | (self._spread == 0))))
        self._float32 = fits and n_features > _NARROW and x.dtype == np.float32

    def _is_near(self, frame: Array) -> bool:
        return bool(np.all(np.abs(frame - self._origin) <= 3 * self._spread))

    def _gather(self, x: Array, y: Array, first: int, n_pairs: int, weights: Array | None) -> None:
        """Sums over a piece of a trajectory of `n_pairs` pairs that begins with pair `first`."""
        if not self.n_pairs:
            self._begin(x)
        lagtime, n_features = self.lagtime, x.shape[1]
        self.n_pairs += len(x)
        self.resolution = max(self.resolution, float(np.finfo(x.dtype).eps))
        dtype = np.dtype(np.float32 if x.dtype == np.float32 and self._float32 else np.float64)
        origin = self._origin.astype(dtype)
        room = np.empty((2, min(_ROWS, len(x)), n_features), dtype)
        # without weights almost every frame is the first one of a pair and the second one of another, and counts for
        # both at once; only those of the first lag time are no second ones, those of the last lag time no first ones
        head = min(max(lagtime - first, 0), len(x))
        borders = [*range(0, head, _ROWS), *range(head, len(x), _ROWS), len(x)]
        for start, stop in zip(borders[:-1], borders[1:], strict=True):
            near, step = room[:, : stop - start]
            np.subtract(x[start:stop], origin, out=near, dtype=dtype)
            if lagtime:
                np.subtract(y[start:stop], x[start:stop], out=step, dtype=dtype)
            if weights is not None:
                self._add_weighted(near, step, weights[start:stop, None].astype(dtype))
                continue
            self._add(near, slice(0, 2 if start >= head else 1))
            if lagtime:
                self._cross += (step if self.reversible else near).T @ step
                if not self.reversible:
                    self._step += _column_sums(step)
        if lagtime and weights is None:
            tail = y[max(n_pairs - lagtime - first, 0) :]
            for start in range(0, len(tail), _ROWS):
                near = room[0, : len(tail) - start]
                self._add(np.subtract(tail[start : start + _ROWS], origin, out=near, dtype=dtype), slice(1, 2))

    def _add(self, near: Array, which: slice) -> None:
        self._weight[which] += len(near)
        self._total[which] += _column_sums(near)
        self._square[which] += near.T @ near

    def _add_weighted(self, near: Array, step: Array, weights: Array) -> None:
        for i, frames in enumerate((near, near + step) if self.lagtime else (near,)):
            self._weight[i] += weights.sum()
            self._total[i] += (weights * frames).sum(axis=0)
            self._square[i] += (weights * frames).T @ frames
        if self.lagtime:
            self._cross += (weights * (step if self.reversible else near)).T @ step
            if not self.reversible:
                self._step += (weights * step).sum(axis=0)

    @property
    def n_features(self) -> int:
        """0 before the first trajectory."""
        return len(self._origin)

    @property
    def weight(self) -> float:
        """Sum of the weights of all pairs; their number if there are no weights."""
        return float(self._weight[0])

    @property
    def mean_0(self) -> Array:
        """(n_features,)"""
        return self._frames(0)[0]

    @property
    def mean_t(self) -> Array:
        """(n_features,)"""
        return self._frames(1)[0]

    @property
    def c00(self) -> Array:
        """(n_features, n_features), symmetric."""
        return self._frames(0)[1]

    @property
    def ctt(self) -> Array:
        """(n_features, n_features), symmetric."""
        return self._frames(1)[1]

    @property
    def c0t(self) -> Array:
        """(n_features, n_features), first index: time t."""
        if self.reversible:
            return self.c00 - self.dirichlet
        move = self._total[0] / self.weight
        return self.c00 + (self._cross - np.outer(move, self._step)) / self.weight

    @property
    def dirichlet(self) -> Array:
        """½⟨(x_t+lagtime − x_t)(x_t+lagtime − x_t)ᵀ⟩, which is c00 − c0t, if reversible; (n_features, n_features).

        Raises
        ------
        ValueError
            If not reversible.
        """
        if not self.reversible:
            raise ValueError("dirichlet needs reversible=True, got covariances of one direction of time")
        self._check_filled()
        return _symmetric(self._cross / (2 * self.weight))

    def _frames(self, which: int) -> tuple[Array, Array]:
        self._check_filled()
        both = slice(0, 2) if self.reversible else slice(which, which + 1)
        if not self.lagtime:
            both = slice(0, 1)
        weight = self._weight[both].sum()
        move = self._total[both].sum(axis=0) / weight
        return self._origin + move, _symmetric(self._square[both].sum(axis=0) / weight - np.outer(move, move))

    def _check_filled(self) -> None:
        if not self.n_pairs:
            raise ValueError("covariances need trajectories, got none yet; call update(X)")


def whitening(
    covariance: Array, *, mean: Array | float = 0.0, epsilon: float = EPSILON, resolution: float = _FLOAT64
) -> Array:
    """W with Wᵀ C W = 1, over all directions in which there is variance.

    A feature counts if its standard deviation is more than rounding of numbers as large as its mean can make. Features
    are then scaled to variance 1, so that the rank does not depend on their units, and a direction counts if its
    variance in this scale is more than `epsilon`, and more than n_features times the resolution.

    Parameters
    ----------
    covariance : array (n_features, n_features)
        Symmetric.
    mean : array (n_features,) or float
    epsilon : float
    resolution : float
        Relative distance of neighbouring numbers of the data, as in `Covariances`.

    Returns
    -------
    array (n_features, rank)
        By descending variance; zero for features that do not count. The rank may be 0.
    """
    resolution = max(resolution, _FLOAT64)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    varies = deviation > resolution * np.abs(mean)
    scale = deviation[varies]
    if not len(scale):
        return np.zeros((len(deviation), 0))
    values, vectors = scipy.linalg.eigh(covariance[np.ix_(varies, varies)] / scale / scale[:, None])
    kept = np.flatnonzero(values > max(epsilon, len(scale) * resolution))[::-1]
    result = np.zeros((len(deviation), len(kept)))
    result[varies] = vectors[:, kept] / np.sqrt(values[kept]) / scale[:, None]
    return result


def koopman_weights(covariances: Covariances, *, epsilon: float = EPSILON) -> Callable[[Array], Array]:
    """Weights of frames that turn averages over trajectories out of equilibrium into equilibrium ones.

    The ratio of the equilibrium distribution to that of the frames is sought as a linear function of the features that
    one lag time leaves unchanged: w(x) = 1 + uᵀ Wᵀ(x − mean_0) with (1 − Kᵀ) u = Wᵀ(mean_t − mean_0), K = Wᵀ c0t W.

    Parameters
    ----------
    covariances : Covariances
        Not reversible.
    epsilon : float
        As in `whitening`.

    Returns
    -------
    function
        Frames (n, n_features) -> weights (n,). Their mean over the first frames of all pairs is 1. They may be negative
        where the linear function is a poor one.

    Raises
    ------
    ValueError
        If the covariances are reversible, or the features contain a second function that does not change.

    References
    ----------
    Wu, Nüske, Paul, Klus, Koltai and Noé, J. Chem. Phys. 146, 154104 (2017), section "Koopman reweighting".
    """
    if covariances.reversible:
        raise ValueError("koopman_weights need covariances of one direction of time, got reversible ones")
    mean = covariances.mean_0
    white = whitening(covariances.c00, mean=mean, epsilon=epsilon, resolution=covariances.resolution)
    leaving = np.eye(white.shape[1]) - (white.T @ covariances.c0t @ white).T
    if white.shape[1] and np.linalg.cond(leaving) > 1e10:
        raise ValueError(
            "X must have one equilibrium to be reweighted to, got a function of the features that does not change "
            "within a lag time; leave it out, or join the trajectories"
        )
    slope = white @ np.linalg.solve(leaving, white.T @ (covariances.mean_t - mean))

    def weights(x: Array) -> Array:
        return cast(Array, 1.0 + (x - mean) @ slope)

    return weights


def _checked_weights(weights: FrameWeights, lengths: Sequence[int], lagtime: int) -> list[Array]:
    several = isinstance(weights, list | tuple) and len(weights) > 0 and np.ndim(weights[0]) > 0
    arrays = [np.asarray(w, np.float64) for w in (weights if several else [weights])]
    shapes = [w.shape for w in arrays]
    if shapes != [(n,) for n in lengths]:
        raise ValueError(
            f"weights must be one number per frame, arrays of shapes {[(n,) for n in lengths]}, got {shapes}"
        )
    for i, w in enumerate(arrays):
        bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
        if len(bad):
            raise ValueError(f"weights must be finite and at least 0, got {w[bad[0]]} for frame {bad[0]} of X[{i}]")
    if not sum(w[: len(w) - lagtime].sum() for w in arrays) > 0:
        raise ValueError("weights must not all be 0, got no pair of frames with a positive one")
    return arrays


def _checked_values(values: Array, n: int) -> Array:
    w = np.asarray(values, np.float64)
    if w.shape != (n,) or not np.isfinite(w).all():
        raise ValueError(f"weights must give {n} finite numbers for {n} frames, got an array of shape {w.shape}")
    return w


def _moved(total: Array, weight: float, move: Array) -> Array:
    """What an origin that moves back by `move` adds to a sum of squares."""
    mixed = np.outer(total, move)
    return cast(Array, mixed + mixed.T + weight * np.outer(move, move))


def _column_sums(x: Array) -> Array:
    # half the time of x.sum(axis=0)
    return cast(Array, np.ones(len(x), x.dtype) @ x)


def _symmetric(matrix: Array) -> Array:
    return cast(Array, 0.5 * (matrix + matrix.T))


def _bar(lengths: Sequence[int], lagtime: int) -> tqdm[None]:
    return tqdm(
        total=sum(lengths) - lagtime * len(lengths),
        desc="covariances",
        unit="frame",
        unit_scale=True,
        leave=False,
        delay=2,
        # tqdm's None: only if stderr is a terminal
        disable=None,
    )
