"""What a comparison leaves behind for a reader: metrics.json, figures and one self-contained report.html."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from molml.io import write_atomic
from molml.kinetics.discretisation import Markov, timescale_metrics
from molml.kinetics.metastable import pcca
from molml.kinetics.plots import (
    plot_chapman_kolmogorov,
    plot_free_energy,
    plot_projection,
    plot_ramachandran,
    plot_scores,
    plot_timescales,
)
from molml.kinetics.validation import chapman_kolmogorov
from molml.pages import Figures, cards, page, table
from molml.training.threads import in_processes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from molml.kinetics.comparison import Comparison, Coordinate
    from molml.kinetics.validation import ChapmanKolmogorov

__all__ = ["write_markov_report", "write_report"]

Floats = NDArray[np.float64]

LEGEND = """VAMP-2: score on held-out blocks of time, mean ± standard error; at most the number of coordinates + 1.
Timescales: of a Markov model on the coordinates, with 95 % interval, then the second one; own: what the method itself
states. Regression error: unexplained fraction of the whitened features one lag time later. Correlation: canonical, with
the reference coordinates; slow state: with the slow state of their Markov model. Metastability: probability to be in
the same set a lag time later. Seconds: processor time of the fit to all frames."""


def write_report(
    directory: str | os.PathLike[str],
    comparison: Comparison,
    *,
    sources: Mapping[str, str] | None = None,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> Path:
    """Write metrics.json, the figures as PNG files and report.html into a folder.

    Parameters
    ----------
    directory : path-like
    comparison : Comparison
        From `molml.kinetics.compare`.
    sources : dict of title to str, optional
        What the data are, to be shown: trajectories, features.
    n_jobs : int
        Processes to draw in, each on one core.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    Path
        report.html
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = comparison.metrics
    write_atomic(folder / "metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    figures = Figures(folder)
    head, rows = comparison.table()
    title = "Slow coordinates compared"
    body = [
        f"<h1>{title}</h1>",
        *(f"<p class=sub>{html.escape(f'{name}: {text}')}</p>" for name, text in (sources or {}).items()),
        cards(_cards(comparison)),
        "<h2>Methods</h2>",
        table(head, rows, text=(0,)),
        f"<p class=sub>{html.escape(' '.join(LEGEND.split()))}</p>",
        f"<div class=grid>{_summary(figures, comparison)}</div>",
    ]
    shown = progress if progress is not None else sys.stderr.isatty()
    drawn = in_processes(n_jobs, _figures, [(figures, comparison, each) for each in comparison.methods.values()])
    drawn = tqdm(drawn, total=len(comparison.methods), desc="drawing", unit="method", disable=not shown)
    for name, elements in zip(comparison.methods, drawn, strict=True):
        body += [f"<h2>{html.escape(name)}</h2>", f"<div class=grid>{elements}</div>"]
    body += ["<h2>How to use a coordinate</h2>", _usage(next(iter(comparison.methods)))]
    path = folder / "report.html"
    write_atomic(path, page(title, body))
    return path


def write_markov_report(
    directory: str | os.PathLike[str],
    markov: Markov,
    coordinates: Sequence[Floats],
    *,
    n_sets: int,
    timestep: float,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write metrics.json, the figures as PNG files and report.html of one Markov model into a folder.

    Parameters
    ----------
    directory : path-like
    markov : Markov
        From `molml.kinetics.discretisation.markov_model`.
    coordinates : list of array (n_frames, n_components)
        What it was made from.
    n_sets : int
        Metastable sets (PCCA+).
    timestep : float
        Time between two frames, ps.
    sources : dict of title to str, optional
        What the data are, to be shown.

    Returns
    -------
    dict
        What metrics.json holds; times in ps.

    Raises
    ------
    ValueError
        If there are fewer cells than sets.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    model = markov.model
    sets = pcca(model, n_sets)
    members = [model.active_states[sets.assignments == k] for k in range(n_sets)]
    passage = [[0.0 if a is b else model.mean_first_passage_time(a, b) * timestep for b in members] for a in members]
    metrics: dict[str, Any] = {
        "lagtime": model.lagtime * timestep,
        "n_states": len(model.active_states),
        "active_count_fraction": model.active_count_fraction_,
        **timescale_metrics(markov, timestep),
        "populations": [float(model.stationary_distribution[sets.assignments == k].sum()) for k in range(n_sets)],
        "mean_first_passage_times": passage,
        "transition_matrix": sets.crisp_transition_matrix.tolist(),
        "metastability": float(np.mean(np.diag(sets.crisp_transition_matrix))),
    }
    write_atomic(folder / "metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    figures = Figures(folder)
    drawn = [
        figures.html(
            "timescales",
            _timescales(markov, timestep),
            "Implied timescales against the lag time",
        ),
        figures.html(
            "free_energy",
            partial(plot_free_energy, coordinates, components=tuple(range(min(2, coordinates[0].shape[1])))),
            "Free energy",
        ),
    ]
    test = _test(markov, n_sets)
    if test is not None:
        draw = partial(plot_chapman_kolmogorov, test, timestep=timestep)
        drawn.append(figures.html("chapman_kolmogorov", draw, "Chapman–Kolmogorov test"))
    names = [f"set {k + 1}" for k in range(n_sets)]
    rows = [
        [name, f"{population:.3f}", *(f"{time:.4g}" for time in times)]
        for name, population, times in zip(names, metrics["populations"], passage, strict=True)
    ]
    title = "Markov model"
    body = [
        f"<h1>{title}</h1>",
        *(f"<p class=sub>{html.escape(f'{name}: {text}')}</p>" for name, text in (sources or {}).items()),
        cards(
            [
                (_time(metrics["timescales"][0]), "slowest timescale"),
                (f"{metrics['lagtime']:g} ps", "lag time"),
                (str(metrics["n_states"]), "states"),
                (f"{metrics['metastability']:.3f}", "metastability"),
            ]
        ),
        "<h2>Metastable sets</h2>",
        table(["set", "population", *(f"passage to\n{name} (ps)" for name in names)], rows),
        "<h2>Is it Markovian?</h2>",
        f"<div class=grid>{''.join(drawn)}</div>",
    ]
    write_atomic(folder / "report.html", page(title, body))
    return metrics


def _time(value: float | None) -> str:
    return "never decays" if value is None else f"{value:.3g} ps"


def _cards(comparison: Comparison) -> list[tuple[str, str]]:
    best = max(comparison.methods.values(), key=lambda coordinate: coordinate.metrics["vamp2"])
    slowest = best.metrics["timescales"][0]
    return [
        (best.name, f"highest held-out VAMP-2, {best.metrics['vamp2']:.3f}"),
        (_time(slowest), "its slowest timescale"),
        (f"{comparison.lagtime * comparison.timestep:g} ps", f"lag time ({comparison.lagtime} frames)"),
        (f"{sum(comparison.lengths):,}", f"frames of {len(comparison.lengths)} trajectories"),
    ]


def _summary(figures: Figures, comparison: Comparison) -> str:
    methods = {name: coordinate.metrics for name, coordinate in comparison.methods.items()}
    quantities = [
        ("vamp2", "held-out VAMP-2", "high", lambda m: (m["vamp2"], m["vamp2_se"])),
        ("regression_error", "regression error", "low", lambda m: (m["regression_error"], m["regression_error_se"])),
        ("timescale", "slowest timescale (ps)", None, lambda m: (_number(m["timescales"][0]), None)),
    ]
    if all(m.get("state_correlation") is not None for m in methods.values()):
        value: Callable[[Any], Any] = lambda m: (m["state_correlation"], m["state_correlation_se"])  # noqa: E731
        quantities.append(("state_correlation", "correlation with the slow state", "high", value))
    parts = []
    for name, label, best, value in quantities:
        scores = {method: value(m) for method, m in methods.items()}
        parts.append(figures.html(f"compare_{name}", partial(plot_scores, scores, label=label, best=best), label))
    return "".join(parts)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _figures(figures: Figures, comparison: Comparison, coordinate: Coordinate) -> str:
    name, step = coordinate.name, comparison.timestep
    components = tuple(range(min(2, coordinate.n_components)))
    markov = coordinate.markov
    drawings: list[tuple[str, Callable[[], Any], str]] = [
        (
            "free_energy",
            partial(plot_free_energy, coordinate.coordinates, components=components),
            "Free energy",
        ),
        (
            "projection",
            partial(plot_projection, coordinate.coordinates, timestep=step),
            "First coordinate against time",
        ),
        (
            "timescales",
            _timescales(markov, step, _reference_timescales(comparison)),
            "Timescales of the Markov model against its lag time"
            + ("" if comparison.reference is None else "; dashed: of the reference coordinates"),
        ),
    ]
    test = _test(markov, coordinate.n_components + 1)
    if test is not None:
        drawings.append(
            ("chapman_kolmogorov", partial(plot_chapman_kolmogorov, test, timestep=step), "Chapman–Kolmogorov test")
        )
    torsions = _torsions(comparison)
    if torsions is not None:
        label, phi, psi = torsions
        first = np.concatenate([x[:, 0] for x in coordinate.coordinates])
        drawings.append(
            (
                "ramachandran",
                partial(plot_ramachandran, phi, psi, first, label="first coordinate"),
                f"First coordinate over the torsions of {label}",
            )
        )
    return "".join(figures.html(f"{kind}_{name}", draw, caption) for kind, draw, caption in drawings)


def _timescales(markov: Markov, step: float, reference: Floats | None = None) -> Callable[[], Axes]:
    return partial(
        plot_timescales,
        markov.lagtimes * step,
        markov.timescales * step,
        low=markov.low * step,
        high=markov.high * step,
        reference=reference,
    )


def _test(markov: Markov, n_sets: int) -> ChapmanKolmogorov | None:
    """Chapman–Kolmogorov test up to five lag times; None if the data do not reach to two."""
    model, states = markov.model, markov.states
    sets = pcca(model, min(n_sets, len(model.active_states)))
    most = min(5, min(map(len, states)) // (2 * model.lagtime))
    if most < 2:
        return None
    # threads that wait for each other at every small matrix cost many times what they save
    with threadpool_limits(1):
        return chapman_kolmogorov(model, states, range(1, most + 1), sets.memberships, n_samples=50, progress=False)


def _reference_timescales(comparison: Comparison) -> Floats | None:
    if comparison.reference is None:
        return None
    markov = comparison.reference.markov
    found = markov.timescales[markov.place] * comparison.timestep
    return found[np.isfinite(found) & (found > 0)]


def _torsions(comparison: Comparison) -> tuple[str, Floats, Floats] | None:
    """The first residue whose φ and ψ are among the reference coordinates, as cosine and sine."""
    if comparison.reference is None:
        return None
    column = {name: i for i, name in enumerate(comparison.reference.names)}
    for name in column:
        kind, _, residue = name.removeprefix("cos ").partition(" ")
        wanted = [f"{function} {angle} {residue}" for angle in ("phi", "psi") for function in ("sin", "cos")]
        if name.startswith("cos ") and kind == "phi" and all(n in column for n in wanted):
            joined = np.concatenate(comparison.reference.coordinates)
            sin_phi, cos_phi, sin_psi, cos_psi = (joined[:, column[n]] for n in wanted)
            return residue, np.arctan2(sin_phi, cos_phi), np.arctan2(sin_psi, cos_psi)
    return None


def _usage(name: str) -> str:
    code = (
        f"molml kinetics transform {name}.molml TRAJECTORY --top TOPOLOGY --output coordinates\n"
        f"molml kinetics structures {name}.molml TRAJECTORY --top TOPOLOGY --output structures\n"
        f"molml kinetics plumed {name}.molml --output plumed.dat"
    )
    return f"<pre>{html.escape(code)}</pre>"
