"""Markov state models: transition matrices of discrete trajectories, and what follows from them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self, final

import numpy as np
from numba import njit
from scipy import linalg
from scipy.sparse import csc_array, csr_array, diags_array, issparse
from scipy.sparse.linalg import eigs, eigsh
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from molml.kinetics.counting import ActiveSet, active_set, discrete_trajectories, transition_counts, warn_of_left_out
from molml.kinetics.data import check_lagtime, whole
from molml.kinetics.files import check_fitted_shapes, load_estimator, save_estimator
from molml.kinetics.metrics import implied_timescales
from molml.kinetics.passage import committor, mean_first_passage_times, stationary_distribution
from molml.kinetics.reversible import count_graph, log_potentials, reversible_flows, transition_probabilities

Array = np.ndarray[Any, np.dtype[Any]]

# Slow processes crowd below 1, where Lanczos iterations tell them apart late: the inverse of P - 1.01 spreads them.
_SHIFT = 1.01


def check_fitted(model: Any) -> None:
    """Refuse a Markov model that lacks what every fitted one has.

    Raises
    ------
    ValueError
        The message names the attribute.
    """
    n = len(model.active_states_)
    check_fitted_shapes(model, {"active_states_": (n,), "stationary_distribution_": (n,)})
    check_fitted_shapes(model, {"counts_": (n, n), "transition_matrix_": (n, n)}, sparse=model.sparse)


@final
@dataclass(eq=False, repr=False)
class MarkovStateModel(BaseEstimator):
    """Markov chain on discrete states, estimated from trajectories by maximum likelihood.

    Write the state of every frame as a row of X that is 1 in the column of the state and 0 elsewhere, and the state a
    lag time later as a row of Y. Then XᵀX is diagonal and holds the visits, XᵀY is the matrix of counts c_ij, and the
    linear regression argmin_T ‖Y - X T‖² = (XᵀX)⁻¹ XᵀY has T_ij = c_ij / Σ_k c_ik: the Markov model without detailed
    balance is the least-squares fit of a linear propagator, and also the one of maximum likelihood. With detailed
    balance, π_i T_ij = π_j T_ji, which holds in thermal equilibrium, the likelihood is maximised by Newton's method
    (`molml.kinetics.reversible`).

    The model is one of the active set: the strongly connected set of states with the most counts. All its arrays are
    ordered like `active_states`; states are named, in arguments and results, by their numbers in the trajectories.

    Parameters
    ----------
    lagtime : int
        In frames.
    reversible : bool
        Impose detailed balance.
    counting : {"sliding", "strided", "effective"}
        As in `molml.kinetics.counting.transition_counts`; "effective" gives the same matrix as "sliding".
    sparse : bool
        Keep counts and transition matrix as scipy.sparse.csr_array: for many thousand states.

    Attributes
    ----------
    transition_matrix_, counts_ : array (n_active, n_active) or csr_array
    stationary_distribution_ : array (n_active,)
    active_states_ : integer array (n_active,)
    n_states_ : int
        All states, active or not.
    active_count_fraction_ : float
        Part of the counts that lies in the active set.

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011).

    Examples
    --------
    >>> model = MarkovStateModel(lagtime=1).fit(np.array([0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0]))
    >>> model.transition_matrix.round(3)
    array([[0.667, 0.333],
           [0.4  , 0.6  ]])
    >>> model.timescales().round(3)
    array([0.757])
    """

    lagtime: int = 1
    _: KW_ONLY
    reversible: bool = True
    counting: str = "sliding"
    sparse: bool = False

    save = save_estimator
    from_container = classmethod(load_estimator)
    _check_fitted = check_fitted

    def fit(self, dtrajs: Any, y: None = None) -> Self:
        """Count and estimate.

        Parameters
        ----------
        dtrajs : integer array (n_frames,), or sequence of such arrays
            States from 0; -1 for none.
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError
            If states are not integers, trajectories are empty or not longer than the lag time, or nothing is connected.
        ArithmeticError
            If counts span too many orders of magnitude.

        Warns
        -----
        UserWarning
            If states that were visited are not in the active set.
        """
        counts = transition_counts(dtrajs, self.lagtime, counting=self.counting, sparse=self.sparse)
        active = active_set(counts)
        warn_of_left_out(active)
        return self._fit(active, counts.shape[0])

    def fit_counts(self, counts: Any) -> Self:
        """Estimate from counts; without a warning if states are left out.

        Parameters
        ----------
        counts : array (n_states, n_states) or scipy.sparse matrix
            Transitions from row to column within the lag time, at least 0, not necessarily whole.

        Raises
        ------
        TypeError, ValueError, ArithmeticError
            As in `fit`.
        """
        check_lagtime(self.lagtime, least=1)
        return self._fit(active_set(counts), np.shape(counts)[0])

    def _fit(self, active: ActiveSet, n_states: int) -> Self:
        self.n_states_ = n_states
        self.active_states_ = active.states
        self.active_count_fraction_ = active.count_fraction
        self.counts_ = csr_array(active.counts) if self.sparse else _full(active.counts)
        if self.reversible:
            graph = count_graph(self.counts_)
            flows = reversible_flows(graph, log_potentials(graph))
            self.transition_matrix_, self.stationary_distribution_ = transition_probabilities(
                graph, *flows, full=not self.sparse
            )
        else:
            departures = np.asarray(self.counts_.sum(axis=1)).ravel()
            if self.sparse:
                self.transition_matrix_ = diags_array(1 / departures) @ self.counts_
                self.transition_matrix_.sort_indices()
            else:
                self.transition_matrix_ = self.counts_ / departures[:, None]
            self.stationary_distribution_ = stationary_distribution(self.transition_matrix_)
        return self

    @property
    def transition_matrix(self) -> Any:
        """Array (n_active, n_active) or csr_array; rows add up to 1."""
        check_is_fitted(self)
        return self.transition_matrix_

    @property
    def counts(self) -> Any:
        """Array (n_active, n_active) or csr_array, of the active states."""
        check_is_fitted(self)
        return self.counts_

    @property
    def stationary_distribution(self) -> Array:
        """Array (n_active,); adds up to 1."""
        check_is_fitted(self)
        return self.stationary_distribution_

    @property
    def active_states(self) -> Array:
        """Integer array (n_active,): the numbers of the states the model is of, ascending."""
        check_is_fitted(self)
        return self.active_states_

    def eigenvalues(self, n: int | None = None) -> Array:
        """Eigenvalues of the transition matrix, the stationary 1 included.

        Parameters
        ----------
        n : int, optional
            So many of them, at most all; a sparse model needs it.

        Returns
        -------
        array (n,)
            Those nearest to 1 first: descending, if the model is reversible; otherwise they may be complex.
        """
        return self._spectrum(n, vectors=False)[0]

    def eigenvectors_right(self, n: int | None = None) -> Array:
        """Right eigenvectors as columns, (n_active, n), in the order of `eigenvalues`.

        Products with `eigenvectors_left` are 0 or 1; the first is 1 in every state. Of a reversible model the mean of
        ψ² is 1, and its entry of largest modulus is positive.

        Parameters
        ----------
        n : int, optional
            As in `eigenvalues`.

        Raises
        ------
        ValueError
            If there are none: the model is not reversible and sparse, or its matrix cannot be diagonalised.
        """
        return self._spectrum(n, vectors=True)[1]

    def eigenvectors_left(self, n: int | None = None) -> Array:
        """Left eigenvectors as rows, (n, n_active); the first is the stationary distribution.

        Parameters
        ----------
        n : int, optional
            As in `eigenvalues`.

        Raises
        ------
        ValueError
            As in `eigenvectors_right`.
        """
        return self._spectrum(n, vectors=True)[2]

    def _spectrum(self, n: int | None, vectors: bool) -> tuple[Array, Array, Array]:
        check_is_fitted(self)
        n_active = len(self.active_states_)
        if n is None and self.sparse:
            raise ValueError("n must be given for a sparse model: how many eigenvalues or timescales are wanted")
        n = n_active if n is None else min(whole("n", n, 1), n_active)
        return self._reversible_spectrum(n) if self.reversible else self._general_spectrum(n, vectors)

    def _reversible_spectrum(self, n: int) -> tuple[Array, Array, Array]:
        root = np.sqrt(self.stationary_distribution_)
        n_active = len(root)
        if self.sparse and n < n_active - 1:
            symmetric = diags_array(root) @ self.transition_matrix_ @ diags_array(1 / root)
            # the start is random, since the known first vector would not leave its own space
            start = np.random.default_rng(0).normal(size=n_active)
            values, modes = eigsh((symmetric + symmetric.T) / 2, n, sigma=_SHIFT, which="LM", v0=start)
            order = np.argsort(values)[-2::-1]
            values, modes = values[order], modes[:, order]
        elif n > 1:
            symmetric = root[:, None] * _full(self.transition_matrix_) / root
            # the known first one is moved below all others, so that it cannot mix with a second that is nearly 1
            symmetric = (symmetric + symmetric.T) / 2 - 3 * np.outer(root, root)
            values, modes = linalg.eigh(symmetric, subset_by_index=[n_active - n + 1, n_active - 1], check_finite=False)
            values, modes = values[::-1], modes[:, ::-1]
        else:
            values, modes = np.empty(0), np.empty((n_active, 0))
        right = modes / root[:, None]
        # of entries that are equal but for rounding the first decides the sign, on every machine
        largest = np.argmax(np.abs(right) >= np.abs(right).max(axis=0) * (1 - 1e-6), axis=0)
        right *= np.sign(right[largest, np.arange(n - 1)])
        right = np.concatenate([np.ones((n_active, 1)), right], axis=1)
        return np.append(1.0, values), right, (right * self.stationary_distribution_[:, None]).T

    def _general_spectrum(self, n: int, vectors: bool) -> tuple[Array, Array, Array]:
        n_active = len(self.active_states_)
        if self.sparse and vectors:
            raise ValueError("eigenvectors of a sparse model need reversible=True; or choose sparse=False")
        if self.sparse and n < n_active - 1:
            start = np.random.default_rng(0).uniform(size=n_active)
            values = eigs(
                csc_array(self.transition_matrix_), n, sigma=_SHIFT, which="LM", v0=start, return_eigenvectors=False
            )
            return _real_if_close(values[_slowest_first(values)]), np.empty(0), np.empty(0)
        matrix = _full(self.transition_matrix_)
        if not vectors:
            values = linalg.eigvals(matrix, check_finite=False)
            return _real_if_close(values[_slowest_first(values)][:n]), np.empty(0), np.empty(0)
        values, right = linalg.eig(matrix, check_finite=False)
        order = _slowest_first(values)
        values, right = values[order], right[:, order]
        # rounding parts equal eigenvalues, so that their vectors differ by its root
        if np.linalg.cond(right) > 1e7:
            raise ValueError("the transition matrix cannot be diagonalised, so it has no basis of eigenvectors")
        # every row of left eigenvectors belongs to its column; the first column shall be 1
        right[:, 0] = 1.0
        left = np.linalg.inv(right)
        return _real_if_close(values[:n]), _real_if_close(right[:, :n]), _real_if_close(left[:n])

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales, t = -lagtime / ln|λ|, in frames.

        Parameters
        ----------
        n : int, optional
            So many, at most n_active - 1; a sparse model needs it.

        Returns
        -------
        array (n,)
            Descending. 0 for eigenvalues that are real and not positive, inf for those that equal 1 to rounding.
        """
        values = self.eigenvalues(None if n is None else whole("n", n, 1) + 1)[1:]
        return np.sort(implied_timescales(values, self.lagtime))[::-1]

    def score(self, dtrajs: Any, y: None = None, *, n: int = 10) -> float:
        """VAMP-2 of the slowest right eigenvectors as coordinates of other trajectories, the constant included.

        States that are not active have no eigenvectors; they get 0, the mean of each, so what the model does not know
        does not score. At most n + 1.

        Parameters
        ----------
        dtrajs : integer array (n_frames,), or sequence of such arrays
        y : None
            Ignored.
        n : int
            Number of processes, at most n_active - 1; give models that are compared the same.

        Raises
        ------
        TypeError, ValueError
            If trajectories cannot be counted, or the model is not reversible.

        References
        ----------
        McGibbon, Pande, J. Chem. Phys. 142, 124105 (2015); Wu, Noé, J. Nonlinear Sci. 30, 23 (2020).
        """
        if not self.reversible:
            raise ValueError("score needs the real eigenvectors of a reversible model; choose reversible=True")
        n = min(whole("n", n, 1), len(self.active_states) - 1)
        modes = self.eigenvectors_right(n + 1) if n else np.ones((1, 1))
        largest = max(self.n_states_, 1 + max(int(states.max(initial=-1)) for states in discrete_trajectories(dtrajs)))
        values = np.zeros((largest, n + 1))
        values[:, 0] = 1.0
        values[self.active_states_, 1:] = modes[:, 1:]
        counts = transition_counts(dtrajs, self.lagtime, n_states=largest, sparse=True)
        begins, ends = np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel()
        product = _inverse_root(values.T * begins @ values) @ (values.T @ (counts @ values))
        return float(np.sum((product @ _inverse_root(values.T * ends @ values)) ** 2))

    def mean_first_passage_times(self, target: Any) -> Array:
        """Mean time to reach a set of states first, from every active state.

        Parameters
        ----------
        target : int or sequence of int
            Active states.

        Returns
        -------
        array (n_active,), frames
            0 in the target.

        Raises
        ------
        TypeError, ValueError
            If `target` is empty or names states that are not active.
        """
        return self.lagtime * mean_first_passage_times(self.transition_matrix, self._members(target, "target"))

    def mean_first_passage_time(self, source: Any, target: Any) -> float:
        """Mean time from one set, in its stationary distribution, to another.

        Parameters
        ----------
        source, target : int or sequence of int
            Active states.

        Returns
        -------
        float, frames

        Raises
        ------
        TypeError, ValueError
            If a set is empty or names states that are not active.
        """
        inside = self._members(source, "source")
        weights = self.stationary_distribution[inside]
        return float(np.average(self.mean_first_passage_times(target)[inside], weights=weights))

    def committor(self, source: Any, target: Any) -> Array:
        """Probability to reach the target before the source, from every active state.

        Parameters
        ----------
        source, target : int or sequence of int
            Active states, none in both.

        Returns
        -------
        array (n_active,)

        Raises
        ------
        TypeError, ValueError
            If a set is empty, names states that are not active, or shares some with the other.
        """
        begin, end = self._members(source, "source"), self._members(target, "target")
        if (begin & end).any():
            raise ValueError(
                f"source and target must have no common state, got {self.active_states_[begin & end].tolist()} in both"
            )
        return committor(self.transition_matrix, begin, end)

    def _members(self, states: Any, name: str) -> Array:
        numbers = np.atleast_1d(np.asarray(states))
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise TypeError(f"{name} must be a state or a sequence of states, integers, got {numbers.dtype}")
        unknown = np.setdiff1d(numbers, self.active_states)
        if not numbers.size or len(unknown):
            raise ValueError(
                f"{name} must name at least one active state, got {numbers.tolist()}"
                + (f", of which {unknown.tolist()} are not in active_states" if len(unknown) else "")
            )
        return np.isin(self.active_states_, numbers)

    def simulate(self, n_frames: int, *, seed: int = 0, start: int | None = None) -> Array:
        """A trajectory of the chain, one frame per lag time.

        Parameters
        ----------
        n_frames : int
        seed : int
        start : int, optional
            First state; if not given, drawn from the stationary distribution.

        Returns
        -------
        integer array (n_frames,)
            Numbers of active states.

        Raises
        ------
        TypeError, ValueError
            If `n_frames` is not positive, or `start` not an active state.
        """
        n_frames = whole("n_frames", n_frames, 1)
        matrix = csr_array(self.transition_matrix)
        rng = np.random.default_rng(seed)
        draws = rng.random(n_frames)
        if start is None:
            first = int(np.searchsorted(np.cumsum(self.stationary_distribution_)[:-1], draws[0], side="right"))
        else:
            first = int(np.flatnonzero(self._members(start, "start"))[0])
        cumulative = np.cumsum(matrix.data)
        path = _walk(cumulative, matrix.indices, matrix.indptr, first, draws)
        return self.active_states_[path]


@njit(cache=True, nogil=True)
def _walk(cumulative: Array, columns: Array, offsets: Array, state: int, draws: Array) -> Array:
    path = np.empty(len(draws), dtype=np.int64)
    path[0] = state
    for t in range(1, len(draws)):
        first, last = offsets[state], offsets[state + 1]
        before = cumulative[first - 1] if first else 0.0
        # rounding must not lead beyond the last possible state
        wanted = before + draws[t] * (cumulative[last - 1] - before)
        place = first + np.searchsorted(cumulative[first : last - 1], wanted, side="right")
        state = columns[place]
        path[t] = state
    return path


def _full(matrix: Any) -> Array:
    return matrix.toarray() if issparse(matrix) else np.array(matrix)


def _slowest_first(values: Array) -> Array:
    # conjugates are equally near, and rounding must not part them
    return np.lexsort((-values.imag, np.abs(values - _SHIFT).round(12)))


def _real_if_close(values: Array) -> Array:
    return values.real.copy() if np.all(np.abs(values.imag) < 1e-12) else values


def _inverse_root(covariance: Array) -> Array:
    """Inverse square root, without the directions that trajectories did not visit."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-10 * values[-1]
    root: Array = vectors[:, kept] / np.sqrt(values[kept]) @ vectors[:, kept].T
    return root
