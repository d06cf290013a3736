"""Figures of slow motions. Every function draws into `ax`, or a figure of its own, and gives the axes back.

No figure is registered with pyplot, so nothing pops up and nothing has to be closed: write with
`axes.figure.savefig(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from molml.figures import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from molml.kinetics.validation import ChapmanKolmogorov

__all__ = [
    "plot_chapman_kolmogorov",
    "plot_free_energy",
    "plot_projection",
    "plot_ramachandran",
    "plot_scores",
    "plot_timescales",
]

Floats = NDArray[np.float64]

BLUE, RED, GREY = "#3b6fb6", "#d1495b", "#6b7280"
MOST_POINTS = 4000
"""Points of a curve against time: more cannot be seen."""


def plot_free_energy(
    coordinates: Sequence[Floats], *, components: Sequence[int] = (0, 1), bins: int = 80, ax: Axes | None = None
) -> Axes:
    """Free energy −ln p of the sampled coordinates, in units of kT above its minimum.

    Parameters
    ----------
    coordinates : list of array (n_frames, n_components)
    components : one or two ints
        Which coordinates; one gives a curve, two a map.
    bins : int
        Per coordinate.

    Raises
    ------
    ValueError
        If `components` are not one or two columns of the coordinates.
    """
    points = np.concatenate([np.asarray(x, dtype=np.float64) for x in coordinates])
    if len(components) not in (1, 2) or not all(0 <= c < points.shape[1] for c in components):
        raise ValueError(
            f"components must be one or two of the {points.shape[1]} columns of the coordinates, got {list(components)}"
        )
    ax = axes_or_new(ax, (4.4, 3.6))
    ranges = [_central_range(points[:, c]) for c in components]
    if len(components) == 1:
        counts, edges = np.histogram(points[:, components[0]], bins=bins, range=ranges[0])
        ax.plot((edges[1:] + edges[:-1]) / 2, _free_energy(counts), color=BLUE)
        ax.set(xlabel=f"coordinate {components[0] + 1}", ylabel="free energy (kT)")
        ax.set_ylim(bottom=-0.2)
        return ax
    first, second = components
    counts, x, y = np.histogram2d(points[:, first], points[:, second], bins=bins, range=ranges)
    mesh = ax.pcolormesh(x, y, _free_energy(counts).T, cmap=_map("viridis"), vmin=0, rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label="free energy (kT)")
    ax.set(xlabel=f"coordinate {first + 1}", ylabel=f"coordinate {second + 1}")
    return ax


def plot_projection(
    coordinates: Sequence[Floats], *, timestep: float, unit: str = "ps", component: int = 0, ax: Axes | None = None
) -> Axes:
    """A coordinate against time, the trajectories one after the other, their ends marked.

    Parameters
    ----------
    coordinates : list of array (n_frames, n_components)
    timestep : float
        Time between two frames.
    unit : str
        Of the time; ps become ns where they are many.
    component : int

    Raises
    ------
    ValueError
        If the coordinates have no such component.
    """
    n_components = coordinates[0].shape[1]
    if not 0 <= component < n_components:
        raise ValueError(f"component must be one of the {n_components} columns of the coordinates, got {component}")
    ax = axes_or_new(ax, (6.4, 2.4))
    lengths = [len(x) for x in coordinates]
    scale, unit = _time_unit(timestep * sum(lengths), unit)
    start, stride = 0, max(1, sum(lengths) // MOST_POINTS)
    for x in coordinates:
        time = (start + np.arange(0, len(x), stride)) * timestep * scale
        ax.plot(time, x[::stride, component], color=BLUE, lw=0.5)
        start += len(x)
        ax.axvline(start * timestep * scale, color=GREY, lw=0.6, ls=":")
    ax.set(xlabel=f"time ({unit})", ylabel=f"coordinate {component + 1}")
    ax.margins(x=0.01)
    return ax


def plot_timescales(
    lagtimes: Floats,
    timescales: Floats,
    *,
    low: Floats | None = None,
    high: Floats | None = None,
    reference: Floats | None = None,
    unit: str = "ps",
    ax: Axes | None = None,
) -> Axes:
    """Implied timescales against the lag time of the Markov model, with the region that no lag time can resolve.

    Parameters
    ----------
    lagtimes : array (n_lagtimes,)
    timescales, low, high : array (n_lagtimes, n_processes)
        Estimates and the ends of their intervals, in the unit of the lag times; not finite ones are left out.
    reference : array, optional
        Timescales known from elsewhere, as dashed lines.
    unit : str

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    lagtimes, timescales = np.asarray(lagtimes, dtype=np.float64), np.asarray(timescales, dtype=np.float64)
    if timescales.ndim != 2 or len(timescales) != len(lagtimes):
        raise ValueError(
            f"timescales must have shape ({len(lagtimes)}, n_processes) as there are {len(lagtimes)} lag times, "
            f"got {timescales.shape}"
        )
    ax = axes_or_new(ax, (4.4, 3.6))
    for process in range(timescales.shape[1]):
        colour = f"C{process}"
        ax.plot(lagtimes, _positive(timescales[:, process]), "o-", color=colour, ms=3, lw=1.2)
        if low is not None and high is not None:
            ax.fill_between(
                lagtimes, _positive(low[:, process]), _positive(high[:, process]), color=colour, alpha=0.2, lw=0
            )
    ends = np.array([0.0, lagtimes.max() * 1.03])
    for value in () if reference is None else reference:
        ax.plot(ends, [value, value], color=GREY, lw=0.9, ls="--")
    ax.set_yscale("log")
    bottom, top = ax.get_ylim()
    bottom = min(bottom, float(lagtimes.min()))
    # a process faster than the lag time has decayed before it is looked at
    ax.fill_between(ends, np.maximum(ends, bottom * 0.5), bottom * 0.5, color=GREY, alpha=0.2, lw=0)
    ax.set(xlim=ends, ylim=(bottom * 0.9, top * 1.2), xlabel=f"lag time ({unit})", ylabel=f"timescale ({unit})")
    return ax


def plot_ramachandran(
    phi: Floats,
    psi: Floats,
    values: Floats,
    *,
    label: str = "slowest coordinate",
    bins: int = 72,
    ax: Axes | None = None,
) -> Axes:
    """Mean of a coordinate in every cell of the (φ, ψ) plane: which conformations it tells apart.

    Parameters
    ----------
    phi, psi, values : array (n_frames,)
        Angles in radians.
    label : str
        What the values are.
    bins : int

    Raises
    ------
    ValueError
        If the arrays differ in length.
    """
    if not len(phi) == len(psi) == len(values):
        raise ValueError(
            f"phi, psi and values must have one length, got {len(phi)}, {len(psi)} and {len(values)} frames"
        )
    ax = axes_or_new(ax, (4.4, 3.6))
    edges = np.linspace(-180, 180, bins + 1)
    x, y = np.degrees(phi), np.degrees(psi)
    counts, _, _ = np.histogram2d(x, y, bins=[edges, edges])
    sums, _, _ = np.histogram2d(x, y, bins=[edges, edges], weights=values)
    with np.errstate(invalid="ignore"):
        mean = np.where(counts > 0, sums / counts, np.nan)
    low, high = np.quantile(values, [0.001, 0.999])
    mesh = ax.pcolormesh(edges, edges, mean.T, cmap=_map("RdBu_r"), vmin=low, vmax=high, rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label=label)
    ax.set_facecolor("#eceef0")  # never visited
    ticks = [-180, -90, 0, 90, 180]
    ax.set(xlabel="φ (°)", ylabel="ψ (°)", xticks=ticks, yticks=ticks, aspect="equal")
    return ax


def plot_chapman_kolmogorov(
    test: ChapmanKolmogorov, *, timestep: float = 1.0, unit: str = "ps", ax: Axes | None = None
) -> Axes:
    """Probability to be in the set where one began: predicted by the model, and seen at longer lag times.

    Parameters
    ----------
    test : ChapmanKolmogorov
        From `molml.kinetics.validation.chapman_kolmogorov`.
    timestep : float
        Time between two frames.
    unit : str
        Of the time.
    """
    ax = axes_or_new(ax, (4.4, 3.6))
    time = np.asarray(test.lagtimes) * timestep
    for number in range(test.predictions.shape[1]):
        colour = f"C{number}"
        ax.plot(time, test.predictions[:, number, number], color=colour, lw=1.2, label=f"set {number + 1}")
        seen = test.estimates[:, number, number]
        low, high = test.low[:, number, number], test.high[:, number, number]
        spread = np.stack([np.maximum(seen - low, 0.0), np.maximum(high - seen, 0.0)])
        ax.errorbar(time, seen, yerr=spread, fmt="o", color=colour, ms=4, capsize=2, lw=1)
    ax.set(xlabel=f"time ({unit})", ylabel="probability to stay", ylim=(-0.03, 1.03))
    ax.legend(frameon=False, title="line: model, points: data", title_fontsize=8, fontsize=8)
    return ax


def plot_scores(
    scores: Mapping[str, tuple[float, float | None]], *, label: str, best: str | None = "high", ax: Axes | None = None
) -> Axes:
    """One figure of merit of several methods, with standard errors.

    Parameters
    ----------
    scores : dict of name to (value, standard error or None)
    label : str
        Name and unit of what is shown.
    best : "high", "low" or None
        Which end is the good one; the best method is drawn in colour.

    Raises
    ------
    ValueError
        If there are no scores, or `best` is neither of these.
    """
    if not scores or best not in ("high", "low", None):
        raise ValueError(f"scores must not be empty and best be 'high', 'low' or None, got {dict(scores)}, {best!r}")
    ax = axes_or_new(ax, (4.6, 0.7 + 0.34 * len(scores)))
    values = np.array([value for value, _ in scores.values()])
    errors = np.array([0.0 if error is None else error for _, error in scores.values()])
    colours = [GREY] * len(scores)
    if best is not None:
        colours[int(np.nanargmax(values) if best == "high" else np.nanargmin(values))] = RED
    for place, (value, error, colour) in enumerate(zip(values, errors, colours, strict=True)):
        ax.errorbar(value, place, xerr=error, fmt="o", color=colour, capsize=3)
    ax.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=label)
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    return ax


def _free_energy(counts: NDArray[Any]) -> Floats:
    with np.errstate(divide="ignore"):
        energy = -np.log(counts / counts.max())
    return np.where(np.isfinite(energy), energy, np.nan)


def _central_range(values: Floats) -> tuple[float, float]:
    # single far frames must not shrink the map to a point
    low, high = np.quantile(values, [5e-5, 1 - 5e-5])
    margin = 0.05 * (high - low) or max(1e-6, 1e-6 * abs(high))
    return float(low - margin), float(high + margin)


def _time_unit(total: float, unit: str) -> tuple[float, str]:
    return (1e-3, "ns") if unit == "ps" and total > 2000 else (1.0, unit)


def _positive(values: Floats) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _map(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name]
