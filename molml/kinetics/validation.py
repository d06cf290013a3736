"""Is it a Markov chain? Implied timescales over lag times, and the Chapman-Kolmogorov test.

Intervals are Bayesian: models drawn from the posterior of effective counts (`molml.kinetics.bayesian`). They cover what
follows from the number of transitions, not that a model may be wrong or that trajectories began out of equilibrium.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from molml.kinetics.bayesian import BayesianMarkovStateModel, check_confidence
from molml.kinetics.counting import active_set, discrete_trajectories, transition_counts
from molml.kinetics.data import whole
from molml.kinetics.markov import MarkovStateModel

Array = np.ndarray[Any, np.dtype[Any]]


class ImpliedTimescales(NamedTuple):
    """Timescales of models at several lag times: constant where the chain is Markovian.

    Attributes
    ----------
    lagtimes : integer array (n_lagtimes,)
        In frames.
    timescales, low, high : array (n_lagtimes, n_timescales)
        Maximum likelihood and ends of the interval, frames; 0 where a model has fewer.
    n_active : integer array (n_lagtimes,)
        States of the model.
    active_count_fraction : array (n_lagtimes,)
        Part of the counts that the model is of.
    """

    lagtimes: Array
    timescales: Array
    low: Array
    high: Array
    n_active: Array
    active_count_fraction: Array


def implied_timescales(
    dtrajs: Any,
    lagtimes: Sequence[int],
    *,
    n_timescales: int = 3,
    reversible: bool = True,
    n_samples: int = 100,
    confidence: float = 0.95,
    sparse: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> ImpliedTimescales:
    """Implied timescales of Markov models at several lag times, with intervals.

    Parameters
    ----------
    dtrajs : integer array (n_frames,), or sequence of such arrays
        States from 0; -1 for none.
    lagtimes : sequence of int
        In frames.
    n_timescales : int
    reversible : bool
        Impose detailed balance.
    n_samples : int
        Of the posterior, for every lag time.
    confidence : float
        Part of the samples between `low` and `high`.
    sparse : bool
        Use sparse matrices.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    ImpliedTimescales

    Raises
    ------
    TypeError, ValueError
        As of `BayesianMarkovStateModel.fit`; if there are no lag times.

    References
    ----------
    Swope, Pitera, Suits, J. Phys. Chem. B 108, 6571 (2004).
    """
    trajectories = discrete_trajectories(dtrajs)
    lags = _whole_numbers("lagtimes", lagtimes)
    n_timescales = whole("n_timescales", n_timescales, 1)
    check_confidence(confidence)
    shape = (len(lags), n_timescales)
    result = ImpliedTimescales(
        np.array(lags), np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(len(lags), int), np.zeros(len(lags))
    )
    hidden = None if progress is None else not progress
    for k, lag in enumerate(tqdm(lags, desc="lag times", disable=hidden, leave=False)):
        model = BayesianMarkovStateModel(
            lag, reversible=reversible, n_samples=n_samples, sparse=sparse, seed=seed, progress=False
        )
        model.fit_counts(transition_counts(trajectories, lag, counting="effective", sparse=sparse))
        result.n_active[k] = len(model.active_states_)
        result.active_count_fraction[k] = model.active_count_fraction_
        n = min(n_timescales, len(model.active_states_) - 1)
        if n:
            interval = model.posterior(partial(MarkovStateModel.timescales, n=n), confidence=confidence)
            result.timescales[k, :n] = model.maximum_likelihood.timescales(n)
            result.low[k, :n], result.high[k, :n] = interval.low, interval.high
    return result


class ChapmanKolmogorov(NamedTuple):
    """Probabilities to be in sets of states, as a model predicts them and as models at longer lag times say.

    Attributes
    ----------
    lagtimes : integer array (n,)
        In frames.
    predictions, estimates : array (n, n_sets, n_sets)
        Probability to be in the set of the column, having begun in the set of the row, in the stationary distribution
        of the model.
    low, high : array (n, n_sets, n_sets)
        Interval of the estimates.
    """

    lagtimes: Array
    predictions: Array
    estimates: Array
    low: Array
    high: Array


def chapman_kolmogorov(
    model: MarkovStateModel,
    dtrajs: Any,
    multiples: Sequence[int],
    sets: Any,
    *,
    n_samples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool | None = None,
) -> ChapmanKolmogorov:
    """Compare powers of a transition matrix with matrices estimated at multiples of its lag time.

    The estimates are of the active states of the model; those that the longer lag time no longer connects are left out.

    Parameters
    ----------
    model : MarkovStateModel
        Fitted.
    dtrajs : integer array (n_frames,), or sequence of such arrays
        What it was fitted to.
    multiples : sequence of int
        Of the lag time.
    sets : array (n_active, n_sets)
        Memberships, at least 0, rows adding up to 1: those of `molml.kinetics.metastable.pcca`, say.
    n_samples : int
        Of the posterior, for every multiple.
    confidence : float
        Part of the samples between `low` and `high`.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    ChapmanKolmogorov

    Raises
    ------
    TypeError, ValueError
        As of `BayesianMarkovStateModel.fit`; if there are no multiples, or the sets do not fit to the model.

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011), section IV F.
    """
    trajectories = discrete_trajectories(dtrajs)
    factors = _whole_numbers("multiples", multiples)
    check_confidence(confidence)
    active = model.active_states
    memberships = np.asarray(sets, dtype=np.float64)
    if memberships.ndim != 2 or len(memberships) != len(active):
        raise ValueError(
            f"sets must have shape ({len(active)}, n_sets), a row for every active state, got {memberships.shape}"
        )
    if not (memberships.min() >= 0 and np.allclose(memberships.sum(axis=1), 1, atol=1e-8)):
        raise ValueError("sets must be at least 0 and rows add up to 1, got others; PCCA+ memberships do")
    if (memberships.sum(axis=0) == 0).any():
        raise ValueError("every set must have a state, got a column of zeros in sets")
    weights = model.stationary_distribution[:, None] * memberships
    n_states = max([model.n_states_, *(int(states.max(initial=-1)) + 1 for states in trajectories)])
    columns: list[list[Array]] = []
    hidden = None if progress is None else not progress
    for factor in tqdm(factors, desc="lag times", disable=hidden, leave=False):
        counts = transition_counts(
            trajectories, factor * model.lagtime, n_states=n_states, counting="effective", sparse=model.sparse
        )
        inside = counts[active][:, active]
        kept = active_set(inside).states
        if (weights[kept].sum(axis=0) == 0).any():
            empty = int(np.argmin(weights[kept].sum(axis=0)))
            raise ValueError(
                f"every set must have states that are connected at every lag time, got none of set {empty} at "
                f"{factor * model.lagtime} frames; use smaller multiples"
            )
        sampled = BayesianMarkovStateModel(
            factor * model.lagtime,
            reversible=model.reversible,
            n_samples=n_samples,
            sparse=model.sparse,
            seed=seed,
            progress=False,
        ).fit_counts(inside)
        interval = sampled.posterior(
            partial(_stays, weights=weights[kept], memberships=memberships[kept]), confidence=confidence
        )
        columns.append(
            [
                _propagated(model.transition_matrix, factor, weights, memberships),
                _stays(sampled.maximum_likelihood, weights[kept], memberships[kept]),
                interval.low,
                interval.high,
            ]
        )
    predictions, estimates, low, high = (np.array(column) for column in zip(*columns, strict=True))
    return ChapmanKolmogorov(np.array(factors) * model.lagtime, predictions, estimates, low, high)


def _propagated(matrix: Any, steps: int, weights: Array, memberships: Array) -> Array:
    for _ in range(steps):
        memberships = matrix @ memberships
    probabilities: Array = (weights / weights.sum(axis=0)).T @ memberships
    return probabilities


def _stays(model: MarkovStateModel, weights: Array, memberships: Array) -> Array:
    return _propagated(model.transition_matrix, 1, weights, memberships)


def _whole_numbers(name: str, values: Sequence[int]) -> list[int]:
    if not len(values):
        raise ValueError(f"{name} must hold at least one whole number, got none")
    return [whole(f"{name}[{i}]", value, 1) for i, value in enumerate(values)]
