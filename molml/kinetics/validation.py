"""Is it a Markov chain? Implied timescales over lag times, and the Chapman-Kolmogorov test.

Intervals come from whole blocks of time, drawn again with replacement (Künsch, Ann. Stat. 17, 1217 (1989)): frames
within one may depend on each other in any way, as those of real trajectories do. What is drawn twice is fitted twice as
closely, which shifts all resamples the same way; so their spread is taken around the estimate, which an interval always
contains. They do not cover that trajectories began out of equilibrium, or what was never seen. Where every pair of
frames is an independent transition, `molml.kinetics.bayesian` gives the posterior distribution instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from scipy.sparse import csgraph, csr_array, vstack
from tqdm import tqdm

from molml.kinetics.bayesian import check_confidence
from molml.kinetics.counting import active_set, discrete_trajectories, transition_counts
from molml.kinetics.data import whole
from molml.kinetics.markov import MarkovStateModel

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_BLOCKS = 30
_LAGS_PER_BLOCK = 10


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
        Resamples, for every lag time.
    confidence : float
        Probability that the interval contains what infinitely long trajectories would give.
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
        As of `MarkovStateModel.fit`; if there are no lag times, or `n_samples` or `confidence` are out of range.

    References
    ----------
    Swope, Pitera, Suits, J. Phys. Chem. B 108, 6571 (2004).
    """
    trajectories = discrete_trajectories(dtrajs)
    lags = _whole_numbers("lagtimes", lagtimes)
    n_timescales = whole("n_timescales", n_timescales, 1)
    whole("n_samples", n_samples, 1)
    check_confidence(confidence)
    shape = (len(lags), n_timescales)
    result = ImpliedTimescales(
        np.array(lags), np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(len(lags), int), np.zeros(len(lags))
    )
    hidden = None if progress is None else not progress
    for k, lag in enumerate(tqdm(lags, desc="lag times", disable=hidden, leave=False)):
        model = MarkovStateModel(lag, reversible=reversible, sparse=sparse)
        resamples = Resamples(trajectories, lag, sparse=sparse)
        result.timescales[k] = _slowest(model.fit_counts(resamples.counts), n_timescales)
        result.n_active[k] = len(model.active_states_)
        result.active_count_fraction[k] = model.active_count_fraction_
        samples = [
            # a resample in which nothing returns says nothing
            _slowest(model.fit_counts(drawn), n_timescales) if _returns(drawn) else result.timescales[k]
            for drawn in resamples.draw(n_samples, seed=seed)
        ]
        # none, or one that never decays, is the end of an interval, too
        with np.errstate(divide="ignore"):
            ends = resamples.interval(np.log(np.array(samples)), np.log(result.timescales[k]), confidence)
        result.low[k], result.high[k] = np.exp(ends[0]), np.exp(ends[1])
    return result


def _slowest(model: MarkovStateModel, n: int) -> Array:
    found = np.zeros(n)
    there = min(n, len(model.active_states_) - 1)
    if there:
        found[:there] = model.timescales(there)
    return found


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
        Resamples, for every multiple.
    confidence : float
        Probability that the interval contains what infinitely long trajectories would give.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    ChapmanKolmogorov

    Raises
    ------
    TypeError, ValueError
        As of `MarkovStateModel.fit`; if there are no multiples, or the sets do not fit to the model.

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011), section IV F.
    """
    trajectories = discrete_trajectories(dtrajs)
    factors = _whole_numbers("multiples", multiples)
    whole("n_samples", n_samples, 1)
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
        resamples = Resamples(trajectories, factor * model.lagtime, n_states=n_states, sparse=model.sparse)
        inside = resamples.counts[active][:, active]
        kept = active_set(inside).states
        if (weights[kept].sum(axis=0) == 0).any():
            empty = int(np.argmin(weights[kept].sum(axis=0)))
            raise ValueError(
                f"every set must have states that are connected at every lag time, got none of set {empty} at "
                f"{factor * model.lagtime} frames; use smaller multiples"
            )
        longer = MarkovStateModel(factor * model.lagtime, reversible=model.reversible, sparse=model.sparse)
        estimate = _stays(longer.fit_counts(inside), weights[kept], memberships[kept])
        samples = []
        for drawn in resamples.draw(n_samples, seed=seed):
            between = drawn[active][:, active]
            found = longer.fit_counts(between).active_states_ if _returns(between) else np.empty(0, int)
            # a resample in which a set does not occur says nothing of it
            there = (weights[found].sum(axis=0) > 0).all()
            samples.append(_stays(longer, weights[found], memberships[found]) if there else estimate)
        low, high = resamples.interval(np.array(samples), estimate, confidence)
        columns.append(
            [
                _propagated(model.transition_matrix, factor, weights, memberships),
                estimate,
                np.clip(low, 0, 1),
                np.clip(high, 0, 1),
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


@final
class Resamples:
    """Counts of blocks of time, of which any number can be drawn with replacement.

    A pair of frames belongs to the block in which it begins, so that the blocks together have all counts. They are of
    equal length, as many as 30, if each is ten lag times long.

    Parameters
    ----------
    trajectories : list of integer array (n_frames,)
        As `discrete_trajectories` gives them.
    lagtime : int
        In frames.
    n_states : int, optional
        If not given, one more than the largest.
    sparse : bool
        Give sparse counts.

    Attributes
    ----------
    counts : array (n_states, n_states) or csr_array
        Of all blocks.
    n_blocks : int
    """

    def __init__(
        self, trajectories: list[Array], lagtime: int, *, n_states: int | None = None, sparse: bool = False
    ) -> None:
        total = transition_counts(trajectories, lagtime, n_states=n_states, sparse=True)
        n_states = total.shape[0]
        n_frames = sum(map(len, trajectories))
        wanted = int(np.clip(n_frames // (_LAGS_PER_BLOCK * lagtime), 2, _MOST_BLOCKS))
        cuts = np.linspace(0, n_frames, wanted + 1).round().astype(int)
        starts = np.cumsum([0, *map(len, trajectories)])
        # all blocks in the places that are occupied in the sum of all
        places = _places(total)
        blocks = []
        for first, last in zip(cuts[:-1], cuts[1:], strict=True):
            pieces = [
                states[max(first - start, 0) : max(last - start, 0) + lagtime]
                for start, states in zip(starts, trajectories, strict=False)
            ]
            pieces = [piece for piece in pieces if len(piece) > lagtime]
            if pieces:
                counts = transition_counts(pieces, lagtime, n_states=n_states, sparse=True)
                where = np.searchsorted(places, _places(counts))
                blocks.append(csr_array((counts.data, where, [0, len(where)]), shape=(1, len(places))))
        self._pattern, self._sparse, self._blocks = total, sparse, vstack(blocks, format="csr")
        self.n_blocks = len(blocks)
        self.counts = self._of(np.ones(self.n_blocks))

    def draw(self, n: int, *, seed: int) -> Iterator[Any]:
        """Counts of as many blocks as there are, drawn with replacement, `n` times."""
        rng = np.random.default_rng(seed)
        for weights in rng.multinomial(self.n_blocks, np.full(self.n_blocks, 1 / self.n_blocks), size=n):
            yield self._of(weights.astype(np.float64))

    def _of(self, weights: Array) -> Any:
        pattern = self._pattern
        counts = csr_array((self._blocks.T @ weights, pattern.indices, pattern.indptr), shape=pattern.shape)
        return counts if self._sparse else counts.toarray()

    def interval(self, samples: Array, estimate: Array, confidence: float) -> tuple[Array, Array]:
        """Ends of the interval of a quantity, around its estimate from all blocks.

        Parameters
        ----------
        samples : array (n_samples, ...)
            Of the resamples.
        estimate : array (...)
        confidence : float

        Returns
        -------
        low, high : array (...)
        """
        wanted = [(1 - confidence) / 2, 0.5, (1 + confidence) / 2]
        low, middle, high = np.quantile(samples, wanted, axis=0, method="inverted_cdf")
        # n blocks around their own mean vary less than around the true one
        wider = np.sqrt(self.n_blocks / max(self.n_blocks - 1, 1))
        with np.errstate(invalid="ignore"):
            moved = [estimate + wider * (end - middle) for end in (low, high)]
        # what is infinite cannot be moved
        low, high = (np.where(np.isnan(m), end, m) for m, end in zip(moved, (low, high), strict=True))
        return np.minimum(low, estimate), np.maximum(high, estimate)


def _returns(counts: Any) -> bool:
    """Whether there is a way back to any state."""
    return counts.diagonal().any() or csgraph.connected_components(counts, connection="strong")[0] < counts.shape[0]


def _places(counts: Any) -> Array:
    """Row and column of what is stored, as one ascending number."""
    rows = np.repeat(np.arange(counts.shape[0], dtype=np.int64), np.diff(counts.indptr))
    places: Array = rows * counts.shape[0] + counts.indices
    return places
