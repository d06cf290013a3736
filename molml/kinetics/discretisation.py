"""From coordinates to a Markov model: cells, the model at a lag time, and how far it can be trusted."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np

from molml.kinetics.clustering import KMeans
from molml.kinetics.counting import transition_counts
from molml.kinetics.data import Array, check_lengths, time_blocks
from molml.kinetics.markov import MarkovStateModel

N_CELLS = 200
FRAMES_PER_CELL = 50
"""Fewer say nothing of where they go."""
_N_RESAMPLES = 60
_INTERVAL = (2.5, 97.5)  # per cent
_N_TIMESCALES = 3
_LAG_FACTORS = (0.2, 0.5, 1.0, 1.5, 2.0, 3.0)


class Markov(NamedTuple):
    """A Markov model of one coordinate, and how far it can be trusted.

    Attributes
    ----------
    clusters : KMeans
        What makes a cell of a coordinate.
    states : list of int array (n_frames,)
        Cell of every frame.
    model : MarkovStateModel
        At the lag time of the comparison.
    lagtimes : array (n_lagtimes,)
        In frames.
    timescales : array (n_lagtimes, n_processes)
        In frames.
    low, high : array (n_lagtimes, n_processes)
        Ends of the 95 % intervals, from resampled blocks of time.
    place : int
        Row of the lag time of the comparison.
    """

    clusters: KMeans
    states: list[Array]
    model: MarkovStateModel
    lagtimes: Array
    timescales: Array
    low: Array
    high: Array
    place: int


def markov_model(coordinates: list[Array], lagtime: int, *, n_cells: int = N_CELLS, seed: int = 0) -> Markov:
    """Reversible Markov model on k-means cells, and its timescales over lag times.

    Intervals come from whole blocks of time, drawn again with replacement, since frames within one are anything but
    independent.

    Parameters
    ----------
    coordinates : list of array (n_frames, n_components)
    lagtime : int
        In frames, at least 1.
    n_cells : int
        Most cells; fewer if one would have less than 50 frames on average.
    seed : int

    Returns
    -------
    Markov

    Raises
    ------
    TypeError, ValueError
        If the coordinates or the lag time are not what they should be.
    """
    lengths = [len(x) for x in coordinates]
    check_lengths(lengths, lagtime, name="coordinates")
    if lagtime == 0:
        raise ValueError("lagtime must be at least one frame, got 0")
    clusters = cells_of(coordinates, n_cells, seed=seed)
    n_cells = clusters.n_clusters
    states = cast("list[Array]", clusters.predict(coordinates))
    lags = sorted({max(1, round(factor * lagtime)) for factor in _LAG_FACTORS} | {lagtime})
    lags = [lag for lag in lags if lag <= lagtime or lag < min(lengths) // 2]
    rng = np.random.default_rng(seed)
    rows = [_timescales(states, lag, n_cells, rng) for lag in lags]
    estimate, low, high = (np.array(column) for column in zip(*rows, strict=True))
    model = MarkovStateModel(lagtime).fit(states)
    return Markov(clusters, states, model, np.array(lags), estimate, low, high, lags.index(lagtime))


def cells_of(coordinates: list[Array], n_cells: int, *, seed: int) -> KMeans:
    """K-means cells; less than `n_cells` if one would have under 50 frames, or there are fewer different frames."""
    n_cells = max(2, min(n_cells, sum(map(len, coordinates)) // FRAMES_PER_CELL))
    return KMeans(min(n_cells, _n_different(coordinates, n_cells)), seed=seed).fit(coordinates)


def _n_different(coordinates: list[Array], enough: int) -> int:
    """Number of different frames; looking ends when there are enough of them."""
    seen = np.empty((0, coordinates[0].shape[1]))
    for x in coordinates:
        for first in range(0, len(x), 10 * enough):
            seen = np.unique(np.concatenate([seen, x[first : first + 10 * enough]]), axis=0)
            if len(seen) >= enough:
                return enough
    return len(seen)


def _timescales(
    states: list[Array], lagtime: int, n_cells: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Estimate and interval of the slowest processes."""
    n_blocks = int(np.clip(sum(map(len, states)) // (10 * lagtime), 2, 30))
    folds = time_blocks([len(x) for x in states], n_blocks, lagtime)
    counts = np.array(
        [transition_counts([states[i][a:b] for i, a, b in fold], lagtime, n_states=n_cells) for fold in folds]
    )
    drawn = rng.multinomial(len(folds), np.full(len(folds), 1 / len(folds)), size=_N_RESAMPLES)
    samples = np.array([_slowest(np.tensordot(weights, counts, 1), lagtime) for weights in drawn])
    low, high = np.percentile(samples, _INTERVAL, axis=0)
    return _slowest(transition_counts(states, lagtime, n_states=n_cells), lagtime), low, high


def _slowest(counts: Array, lagtime: int) -> Array:
    found = MarkovStateModel(lagtime).fit_counts(counts).timescales(_N_TIMESCALES)
    return np.concatenate([found, np.zeros(_N_TIMESCALES - len(found))])


def timescale_metrics(markov: Markov, timestep: float) -> dict[str, list[float | None]]:
    """Timescales and their intervals at the lag time, for JSON: in the unit of `timestep`, None if it never decays."""
    return {
        "timescales": finite(markov.timescales[markov.place] * timestep),
        "timescales_low": finite(markov.low[markov.place] * timestep),
        "timescales_high": finite(markov.high[markov.place] * timestep),
    }


def finite(values: Array) -> list[float | None]:
    """Numbers for JSON; None for what never decays."""
    return [float(value) if math.isfinite(value) else None for value in values]
