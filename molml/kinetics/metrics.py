"""How good a coordinate is: VAMP scores, canonical correlations and implied timescales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from molml.kinetics.covariance import Covariances, whitening
from molml.kinetics.data import Array, Streamed, Trajectories, as_list, check_lagtime, lagged_blocks

__all__ = [
    "canonical_correlations",
    "implied_timescales",
    "singular_value_score",
    "vamp_score",
]

_EPSILON = 1e-10  # of whitening: coordinates are few, and a small one is no less a coordinate


def vamp_score(X: Trajectories, lagtime: int, *, r: float = 2.0) -> float:
    """VAMP-r score of coordinates: how much of the motion over a lag time they hold.

    1 + Σ σ_i^r, with the canonical correlations σ_i between the coordinates at t and at t + lagtime; the 1 is the
    constant function. It depends on the space that the coordinates span, not on their scale or order; n of them score
    at most n + 1. A coordinate that does not vary adds nothing.

    Parameters
    ----------
    X : array (n_frames, n_components), list of such arrays, or Streamed
        Coordinates, of frames they were not fitted to if the score is to mean something.
    lagtime : int
        In frames, at least 1.
    r : float
        At least 1.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If a trajectory is not longer than the lag time, a number is not finite, or r is below 1.

    References
    ----------
    Wu and Noé, J. Nonlinear Sci. 30, 23 (2020), eq. 33.

    Examples
    --------
    >>> states = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    >>> round(vamp_score(states[:, None], 1), 4)
    1.1
    """
    _check_r(r)
    check_lagtime(lagtime, least=1)
    covariances = Covariances(lagtime).update(X)
    mean, mean_t, resolution = covariances.mean_0, covariances.mean_t, covariances.resolution
    left = whitening(covariances.c00, mean=mean, epsilon=_EPSILON, resolution=resolution)
    right = whitening(covariances.ctt, mean=mean_t, epsilon=_EPSILON, resolution=resolution)
    return singular_value_score(left.T @ covariances.c0t @ right, r=r)


def singular_value_score(koopman: Array, *, r: float = 2.0) -> float:
    """VAMP-r score from the covariances of whitened coordinates, the constant function included.

    Parameters
    ----------
    koopman : array (n, m)
        ⟨x_t y_t+lagtimeᵀ⟩ of mean-free x and y with unit covariances.
    r : float
        At least 1.

    Returns
    -------
    float
    """
    _check_r(r)
    return 1.0 + float((scipy.linalg.svdvals(koopman) ** r).sum()) if koopman.size else 1.0


def canonical_correlations(A: Array | Sequence[Array], B: Array | Sequence[Array]) -> Array:
    """Correlations between the best linear combinations of two sets of coordinates of the same frames.

    Parameters
    ----------
    A : array (n_frames, n_a) or list of such arrays
    B : array (n_frames, n_b) or list of such arrays

    Returns
    -------
    array (min(n_a, n_b),)
        Descending, from 1 to 0; 0 where a combination does not vary.

    Raises
    ------
    TypeError, ValueError
        If the frames are not the same in number, or not finite.

    References
    ----------
    Hotelling, Biometrika 28, 321 (1936).

    Examples
    --------
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0], [3.0, 1.0]])
    >>> canonical_correlations(x, x @ [[1.0], [2.0]] + 5.0).round(6)
    array([1.])
    """
    first, second = _in_memory(A, "A"), _in_memory(B, "B")
    lengths = [len(x) for x in first], [len(x) for x in second]
    if lengths[0] != lengths[1]:
        raise ValueError(f"A and B must be of the same frames, got {lengths[0]} and {lengths[1]} frames")
    covariances = Covariances(0)
    for a, b in zip(first, second, strict=True):
        covariances.update(np.concatenate([a, b], axis=1, dtype=np.float64))
    c, mean, n = covariances.c00, covariances.mean_0, first[0].shape[1]
    resolution = max(float(np.finfo(x.dtype).eps) for x in (*first, *second))
    left = whitening(c[:n, :n], mean=mean[:n], epsilon=_EPSILON, resolution=resolution)
    right = whitening(c[n:, n:], mean=mean[n:], epsilon=_EPSILON, resolution=resolution)
    result = np.zeros(min(n, len(c) - n))
    found = scipy.linalg.svdvals(left.T @ c[:n, n:] @ right) if left.size and right.size else np.zeros(0)
    # rounding can exceed 1
    result[: len(found)] = np.minimum(found, 1.0)
    return result


def implied_timescales(eigenvalues: Array, lagtime: float) -> Array:
    """Relaxation times t = −lagtime / ln|λ| of processes with these autocorrelations.

    Parameters
    ----------
    eigenvalues : array (n,)
        Of a propagator over the lag time, real or complex; or singular values.
    lagtime : float
        In any unit.

    Returns
    -------
    array (n,)
        In the unit and in the order of what was given. 0 for real λ ≤ 0, which is no relaxation; infinite for |λ| ≥ 1.

    Raises
    ------
    ValueError
        If an eigenvalue is NaN or infinite, or the lag time is not positive.

    Examples
    --------
    >>> implied_timescales(np.array([0.9, 0.5, -0.1]), lagtime=10).round(2)
    array([94.91, 14.43,  0.  ])
    """
    values = np.asarray(eigenvalues)
    if not np.isfinite(values).all():
        raise ValueError(f"eigenvalues must be finite, got {values}")
    if not (math.isfinite(lagtime) and lagtime > 0):
        raise ValueError(f"lagtime must be positive, got {lagtime}")
    size = np.where((values.imag == 0) & (values.real <= 0), 0.0, np.abs(values))
    with np.errstate(divide="ignore"):
        return np.where(size >= 1, np.inf, -lagtime / np.minimum(np.log(size), -0.0))


def _in_memory(X: Array | Sequence[Array], name: str) -> list[Array]:
    arrays = as_list(X, name=name)
    if isinstance(arrays, Streamed):
        raise TypeError(f"{name} must be arrays, got a streamed source; load() them, or transform them first")
    for _ in lagged_blocks(arrays, 0, name=name):
        pass  # they are finite
    return arrays


def _check_r(r: float) -> None:
    if isinstance(r, bool) or not isinstance(r, int | float | np.number) or not 1 <= r < math.inf:
        raise ValueError(f"r must be a number of at least 1, got {r!r}")
