"""Figures of a fit: parity, learning curve, force errors by element, worst structures, uncertainty.

Every function draws into `ax`, or into a figure of its own, and returns the axes: write with
`axes.figure.savefig(path)`. No figure is registered with pyplot, so nothing pops up and nothing has to be closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from molml.figures import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from molml.energy.metrics import Evaluation

__all__ = [
    "plot_active_learning",
    "plot_coverage",
    "plot_force_error_by_element",
    "plot_learning_curve",
    "plot_parity",
    "plot_uncertainty",
    "plot_worst_structures",
]

Floats = NDArray[np.float64]

TRAIN, VALID, ACCENT, GREY = "#3b6fb6", "#d1495b", "#2a9d8f", "#6b7280"

MOST_POINTS = 20_000
"""Points drawn at most; the loneliest ones are always among them, so that no outlier is lost."""

QUANTITIES = {
    # name: (title, unit, factor from eV, unit of errors)
    "energy": ("energy", "eV/atom", 1e3, "meV/atom"),
    "forces": ("force components", "eV/Å", 1e3, "meV/Å"),
    "stress": ("stress components", "eV/Å³", 1e3, "meV/Å³"),
}

TERMS = {
    # terms of the loss, as the Trainer logs them: (title, factor, unit)
    "energy_rmse": ("energy RMSE", 1e3, "meV/atom"),
    "forces_rmse": ("force RMSE", 1e3, "meV/Å"),
    "stress_rmse": ("stress RMSE", 1e3, "meV/Å³"),
    "objective": ("objective", 1.0, ""),
}


def plot_parity(
    evaluation: Evaluation, quantity: Literal["energy", "forces", "stress"] = "energy", *, ax: Axes | None = None
) -> Axes:
    """Predicted against reference values, coloured by the density of points, with the errors in a corner.

    Parameters
    ----------
    evaluation : Evaluation
        From `molml.energy.evaluate`.
    quantity : "energy", "forces" or "stress"

    Raises
    ------
    ValueError
        An unknown quantity, or one that the data set has no labels of.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
    title, unit, factor, error_unit = QUANTITIES[quantity]
    reference: Floats = getattr(evaluation, f"{quantity}_reference").ravel()
    predicted: Floats = getattr(evaluation, quantity).ravel()
    if not len(reference):
        raise ValueError(f"quantity {quantity!r} has no reference labels in this data set; plot another one")
    axes = axes_or_new(ax, (4.6, 4.4))
    # a common offset of atomic energies would leave nothing but digits on the axes
    offset = float(np.round(np.mean(reference), 1)) if quantity == "energy" else 0.0
    x, y = reference - offset, predicted - offset
    low, high = _limits(x, y)
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, zorder=1)
    _density_scatter(axes, x, y)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.locator_params(nbins=6)
    shift = f" {'−' if offset > 0 else '+'} {abs(offset):g}" if offset else ""
    axes.set_xlabel(f"reference {title}{shift} ({unit})")
    axes.set_ylabel(f"predicted {title}{shift} ({unit})")
    metrics = evaluation.metrics
    text = (
        f"RMSE {three_digits(factor * metrics[f'{quantity}_rmse'])} {error_unit}\n"
        f"MAE {three_digits(factor * metrics[f'{quantity}_mae'])} {error_unit}\n"
        f"n = {len(reference):,}"
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9, bbox=_box(), zorder=5)
    _error_histogram(axes, factor * (predicted - reference), error_unit)
    return axes


def plot_learning_curve(
    history: Sequence[Mapping[str, Any]], term: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """Errors on training and validation data against the epoch.

    Parameters
    ----------
    history : sequence of dict
        From `Trainer.fit`, or the lines of `metrics.jsonl`; rows of several `member`s are drawn one by one.
    term : str, optional
        Which figure to draw, such as "forces_rmse"; by default the first that exists of forces_rmse, energy_rmse,
        stress_rmse and objective.

    Raises
    ------
    ValueError
        An empty history, or a term that is not in it.
    """
    if not history:
        raise ValueError("history must hold at least one epoch, got none")
    names = list(dict.fromkeys(key.removeprefix("train_") for key in history[0] if key.startswith("train_")))
    if term is None:
        term = next((name for name in ("forces_rmse", "energy_rmse", "stress_rmse") if name in names), "objective")
    if term not in names:
        raise ValueError(f"term must be one of {', '.join(names) or 'none, as the history is empty'}, got {term!r}")
    title, factor, unit = TERMS.get(term, (term.replace("_", " "), 1.0, ""))
    # an epoch that the clock cut short averages over other structures than the rest
    longest = max(row.get("batches", 0) for row in history)
    history = [row for row in history if row.get("batches", 0) == longest]
    axes = axes_or_new(ax, (5.4, 3.6))
    positive = True
    members = list(dict.fromkeys(row.get("member", 1) for row in history))
    for prefix, label, colour, width in (("train_", "training", TRAIN, 1.2), ("valid_", "validation", VALID, 1.6)):
        for member in members:
            rows = [row for row in history if row.get("member", 1) == member and row.get(prefix + term) is not None]
            if not rows:
                continue
            epochs = np.array([row["epoch"] for row in rows])
            values = factor * np.array([row[prefix + term] for row in rows], dtype=np.float64)
            positive = positive and bool((values > 0).all())
            mark = "o" if len(rows) == 1 else None
            axes.plot(epochs, values, color=colour, linewidth=width / len(members) ** 0.5, marker=mark, label=label)
            label = "_nolegend_"
            if prefix == "valid_":
                best = int(np.argmin(values))
                axes.plot(epochs[best], values[best], "o", color=colour, markersize=5)
                axes.annotate(
                    three_digits(values[best]),
                    (epochs[best], values[best]),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                )
    if positive:
        axes.set_yscale("log")
        _plain_log_ticks(axes)
    axes.margins(y=0.12)  # room for the figure beside the best epoch
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{title} ({unit})" if unit else title)
    axes.grid(True, which="both", axis="y", alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    return axes


def plot_active_learning(rounds: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Force errors against the number of labels.

    Parameters
    ----------
    rounds : sequence of dict
        Of `molml.energy.learn`, or the lines of its `metrics.jsonl`.

    Raises
    ------
    ValueError
        If there is no round.
    """
    if not rounds:
        raise ValueError("rounds must hold at least one round, got none")
    axes = axes_or_new(ax, (5.4, 3.6))
    for key, label, colour, style in (
        ("test_forces_rmse", "test structures", VALID, "o-"),
        ("new_forces_rmse", "new structures, before they are learnt", TRAIN, "o-"),
        ("threshold", "threshold of the uncertainty", GREY, ":"),
    ):
        rows = [row for row in rounds if key in row]
        if rows:
            labels, values = [row["n_labels"] for row in rows], [1e3 * row[key] for row in rows]
            axes.plot(labels, values, style, color=colour, linewidth=1.4, markersize=4, label=label)
    axes.set_yscale("log")
    _plain_log_ticks(axes)
    axes.set_xlabel("labelled structures")
    axes.set_ylabel("force RMSE (meV/Å)")
    axes.grid(True, which="both", axis="y", alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    return axes


def plot_force_error_by_element(evaluations: Mapping[str, Evaluation] | Evaluation, *, ax: Axes | None = None) -> Axes:
    """RMSE of the force components on the atoms of every element.

    Parameters
    ----------
    evaluations : Evaluation, or dict of name to Evaluation
        Several sets are drawn side by side.

    Raises
    ------
    ValueError
        If no set has force labels.
    """
    sets: Mapping[str, Any] = evaluations if isinstance(evaluations, Mapping) else {"": evaluations}
    symbols = list(dict.fromkeys(symbol for evaluation in sets.values() for symbol in evaluation.elements))
    if not symbols:
        raise ValueError("evaluations must hold force labels, got none; there is nothing to draw")
    axes = axes_or_new(ax, (max(3.6, 1.4 + len(symbols) * (0.3 + 0.42 * len(sets))), 3.4))
    colours = [TRAIN, VALID, ACCENT]
    width = 0.8 / len(sets)
    for k, (name, evaluation) in enumerate(sets.items()):
        for place, symbol in enumerate(symbols):
            if symbol not in evaluation.elements:
                continue
            value = 1e3 * evaluation.elements[symbol]["forces_rmse"]
            left = place + (k - (len(sets) - 1) / 2) * width
            label = name if place == 0 else None
            axes.bar(left, value, 0.92 * width, color=colours[k % len(colours)], label=label)
            axes.text(left, value, three_digits(value), ha="center", va="bottom", fontsize=7.5, color=GREY)
    axes.set_xticks(range(len(symbols)), symbols)
    axes.set_ylabel("force RMSE (meV/Å)")
    axes.margins(x=0.25 / len(symbols), y=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(sets) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def plot_worst_structures(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Errors of the worst structures, named by file and frame, in units of the RMSE of the whole set.

    Parameters
    ----------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        If no worst structures were asked for.
    """
    worst = evaluation.worst
    if not worst:
        raise ValueError("evaluation must hold worst structures, got none; evaluate with n_worst of at least 1")
    axes = axes_or_new(ax, (5.6, 0.9 + 0.32 * len(worst)))
    rows = np.arange(len(worst))
    for key, rmse, label, colour, shift in (
        ("energy_error", "energy_rmse", "energy", TRAIN, -0.2),
        ("forces_rmse", "forces_rmse", "forces", VALID, 0.2),
    ):
        scale = evaluation.metrics.get(rmse)
        if scale:
            values = [abs(row[key] or 0.0) / scale for row in worst]
            axes.barh(rows + shift, values, 0.38, color=colour, label=label)
    axes.set_yticks(rows, [_shorten(row["source"]) for row in worst], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("error / RMSE of the set")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return axes


def plot_uncertainty(
    evaluation: Evaluation, quantity: Literal["energy", "forces"] = "forces", *, ax: Axes | None = None
) -> Axes:
    """Errors of a committee against the standard deviations that it predicts.

    The lines show the error expected if the deviations were those of a normal distribution: the RMSE in bins of equal
    size should follow the diagonal.

    Parameters
    ----------
    evaluation : Evaluation
        Of a committee.
    quantity : "energy" or "forces"

    Raises
    ------
    ValueError
        An unknown quantity, or one without standard deviations or labels.
    """
    if quantity not in ("energy", "forces"):
        raise ValueError(f'quantity must be "energy" or "forces", got {quantity!r}')
    deviation: Floats | None = getattr(evaluation, f"{quantity}_std")
    if deviation is None or not deviation.size:
        raise ValueError(f"evaluation has no standard deviations of the {quantity}; only a committee predicts them")
    _, _, factor, unit = QUANTITIES[quantity]
    error = np.abs(getattr(evaluation, quantity) - getattr(evaluation, f"{quantity}_reference")).ravel()
    spread = deviation.ravel()
    shown = (spread > 0) & (error > 0)
    axes = axes_or_new(ax, (4.6, 4.4))
    if shown.any():
        _density_scatter(axes, factor * spread[shown], factor * error[shown], log=True)
        parts = np.array_split(np.argsort(spread), min(10, len(spread)))
        x = [factor * np.sqrt(np.mean(spread[part] ** 2)) for part in parts]
        y = [factor * np.sqrt(np.mean(error[part] ** 2)) for part in parts]
        axes.plot(x, y, "o-", color=VALID, linewidth=1.2, markersize=4, label="RMSE in bins", zorder=4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = np.array([min(x), max(x)])
        axes.plot(ends, ends, color="black", linewidth=0.9, label="ideal", zorder=3)
        axes.legend(loc="upper left", framealpha=0.85, edgecolor="none")
    axes.set_xlabel(f"standard deviation of the {quantity} ({unit})")
    axes.set_ylabel(f"error of the {quantity} ({unit})")
    return axes


def plot_coverage(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Share of errors within intervals of a committee, against the share that a normal distribution has there.

    Below the diagonal the committee is too sure of itself.

    Parameters
    ----------
    evaluation : Evaluation
        Of a committee.

    Raises
    ------
    ValueError
        If there are no standard deviations with labels beside them.
    """
    from scipy.stats import norm

    axes = None
    expected = np.linspace(0.01, 0.99, 99)
    for quantity, colour in (("energy", TRAIN), ("forces", VALID)):
        deviation: Floats | None = getattr(evaluation, f"{quantity}_std")
        if deviation is None or not deviation.size:
            continue
        axes = axes or axes_or_new(ax, (4.6, 4.4))
        error = np.abs(getattr(evaluation, quantity) - getattr(evaluation, f"{quantity}_reference"))
        ratio = np.sort((error / np.maximum(deviation, np.finfo(float).tiny)).ravel())
        within = np.searchsorted(ratio, norm.ppf(0.5 + 0.5 * expected), side="right") / len(ratio)
        axes.plot(expected, within, color=colour, linewidth=1.6, label=QUANTITIES[quantity][0])
    if axes is None:
        raise ValueError("evaluation has no standard deviations; only a committee predicts them")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.9, label="ideal")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("share expected within the interval")
    axes.set_ylabel("share of errors found there")
    axes.legend(frameon=False)
    return axes


def _limits(x: Floats, y: Floats) -> tuple[float, float]:
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or max(0.05 * abs(high), 1e-3)
    return float(low - margin), float(high + margin)


def _density_scatter(axes: Axes, x: Floats, y: Floats, *, log: bool = False) -> None:
    """Points coloured by how many lie in the same cell of a grid, the densest on top."""
    u, v = (np.log(x), np.log(y)) if log else (x, y)
    counts, u_edges, v_edges = np.histogram2d(u, v, bins=80)
    column = np.clip(np.searchsorted(u_edges, u, side="right") - 1, 0, counts.shape[0] - 1)
    row = np.clip(np.searchsorted(v_edges, v, side="right") - 1, 0, counts.shape[1] - 1)
    density = counts[column, row]
    order = np.argsort(density, kind="stable")
    if len(order) > MOST_POINTS:
        lonely, crowded = order[: MOST_POINTS // 2], order[MOST_POINTS // 2 :]
        step = -(-len(crowded) // (MOST_POINTS // 2))
        order = np.concatenate([lonely, crowded[::step]])
    few = len(order) < 50
    axes.scatter(
        x[order],
        y[order],
        c=TRAIN if few else np.log1p(density[order]),
        cmap=None if few else "viridis",
        s=16 if len(order) < 2000 else 5,
        alpha=0.9,
        linewidths=0,
        rasterized=True,
        zorder=2,
    )


def _error_histogram(axes: Axes, errors: Floats, unit: str) -> None:
    """Small inset: a good potential's errors cannot be seen beside the diagonal."""
    if len(errors) < 20 or not np.ptp(errors):
        return
    inset = axes.inset_axes((0.60, 0.10, 0.37, 0.24), zorder=6)
    # a single outlier must not turn the histogram into one bar; what lies outside is counted in the last bars
    reach = float(np.quantile(np.abs(errors), 0.99)) or float(np.abs(errors).max())
    inset.hist(np.clip(errors, -reach, reach), bins=31, range=(-reach, reach), color=TRAIN)
    inset.axvline(0.0, color=GREY, linewidth=0.6)
    inset.set_yticks([])
    inset.tick_params(axis="x", labelsize=7, length=2, pad=1)
    inset.set_xlabel(f"error ({unit})", fontsize=7, labelpad=1)
    inset.patch.set_alpha(0.85)
    for side in ("top", "right", "left"):
        inset.spines[side].set_visible(False)


def _plain_log_ticks(axes: Axes) -> None:
    """Numbers instead of powers of ten on a logarithmic axis, also when it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _box() -> dict[str, Any]:
    return {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent where people expect none."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}"


def _shorten(source: str, limit: int = 32) -> str:
    return source if len(source) <= limit else "…" + source[-limit + 1 :]
