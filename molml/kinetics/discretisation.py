"""From coordinates to a Markov model: cells, the model at a lag time, and how far it can be trusted."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np

from molml.kinetics.clustering import KMeans
from molml.kinetics.data import Array, check_lengths
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.validation import implied_timescales

N_CELLS = 200
FRAMES_PER_CELL = 50
"""Fewer say nothing of where they go."""
_N_RESAMPLES = 60
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
        Ends of the 95 % intervals, from resampled blocks of time; they contain `timescales`.
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

    Intervals are those of `molml.kinetics.implied_timescales`.

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
    states = cast("list[Array]", clusters.predict(coordinates))
    lags = sorted({max(1, round(factor * lagtime)) for factor in _LAG_FACTORS} | {lagtime})
    lags = [lag for lag in lags if lag <= lagtime or lag < min(lengths) // 2]
    found = implied_timescales(
        states, lags, n_timescales=_N_TIMESCALES, n_samples=_N_RESAMPLES, seed=seed, progress=False
    )
    model = MarkovStateModel(lagtime).fit(states)
    return Markov(clusters, states, model, *found[:4], lags.index(lagtime))


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
