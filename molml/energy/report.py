"""What a fit leaves behind for a reader: metrics.json, figures and one self-contained report.html."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ase.data import chemical_symbols

from molml.energy.metrics import Evaluation
from molml.energy.plots import (
    plot_coverage,
    plot_force_error_by_element,
    plot_learning_curve,
    plot_parity,
    plot_uncertainty,
    plot_worst_structures,
    three_digits,
)
from molml.io import write_atomic
from molml.pages import Figures, cards, page, table
from molml.units import GPA

if TYPE_CHECKING:
    from molml.energy.model import Potential

__all__ = ["read_history", "write_metrics", "write_report"]

SETS = {"train": "training", "valid": "validation", "test": "test"}

TITLES: Mapping[Literal["energy", "forces", "stress"], str] = {
    "energy": "Energy",
    "forces": "Forces",
    "stress": "Stress",
}


def write_metrics(path: str | os.PathLike[str], evaluations: Mapping[str, Evaluation]) -> None:
    """Write the metrics of every set as JSON: `{"train": {"energy_rmse": …}, "test": {…}}`, in eV and Å.

    Parameters
    ----------
    path : path-like
    evaluations : dict of name to Evaluation
        Names among "train", "valid" and "test".

    Raises
    ------
    ValueError
        An unknown name, or a number that is not finite.
    """
    _check_names(evaluations)
    content = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Epochs logged in a `metrics.jsonl`; a last line that a killed run left unfinished is dropped.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ValueError
        A line before the last one that is not JSON.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    history = []
    for number, line in enumerate(lines, start=1):
        try:
            history.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{os.fspath(path)}:{number}: expected a JSON object per line, got {line[:60]!r}"
            ) from error
    return history


def write_report(
    directory: str | os.PathLike[str],
    potential: Potential,
    evaluations: Mapping[str, Evaluation],
    *,
    history: Sequence[Mapping[str, Any]] = (),
    sources: Mapping[str, str] | None = None,
    model_file: str | os.PathLike[str] = "model.molml",
) -> Path:
    """Write metrics.json, the figures as PNG files and report.html into a folder.

    The report needs nothing but itself: figures are part of it, there are no scripts, and a content security policy
    forbids the browser to load anything.

    Parameters
    ----------
    directory : path-like
    potential : LinearPotential, BehlerParrinello or Committee
    evaluations : dict of name to Evaluation
        Names among "train", "valid" and "test".
    history : sequence of dict
        Epochs, as from `Trainer.fit` or `read_history`; empty for a linear potential.
    sources : dict of name to str, optional
        Where each set came from, to be shown.
    model_file : path-like
        Shown in the lines of code that tell how to use the model.

    Returns
    -------
    Path
        report.html

    Raises
    ------
    ValueError
        No evaluation, an unknown name, or a number that is not finite.
    """
    _check_names(evaluations)
    if not evaluations:
        raise ValueError("evaluations must hold at least one of train, valid and test, got none")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics(folder / "metrics.json", evaluations)
    figures = Figures(folder)
    last = list(evaluations)[-1]
    body = [
        _head(potential, evaluations, sources or {}),
        "<h2>Errors</h2>",
        _metrics_table(evaluations),
        *_remarks(evaluations),
        "<h2>Predicted against reference</h2>",
        *_parity(figures, evaluations),
        *_learning_curves(figures, history),
        *_by_element(figures, evaluations),
        *_by_group(evaluations),
        *_uncertainty(figures, last, evaluations[last]),
        *_worst(figures, evaluations),
        "<h2>The model</h2>",
        _model(potential),
        "<h2>How to use it</h2>",
        _usage(model_file),
    ]
    path = folder / "report.html"
    write_atomic(path, page(_title(potential), body))
    return path


def _check_names(evaluations: Mapping[str, Evaluation]) -> None:
    unknown = [name for name in evaluations if name not in SETS]
    if unknown:
        raise ValueError(f"evaluations must be named train, valid or test, got {unknown[0]!r}")


def _symbols(potential: Potential) -> list[str]:
    return [chemical_symbols[number] for number in potential.elements]


def _title(potential: Potential) -> str:
    return f"{type(potential).__name__} for {', '.join(_symbols(potential))}"


def _head(
    potential: Potential,
    evaluations: Mapping[str, Evaluation],
    sources: Mapping[str, str],
) -> str:
    last, evaluation = list(evaluations.items())[-1]
    entries = [
        (f"{three_digits(factor * evaluation.metrics[key])} {unit}", f"{title}, {SETS[last]} set")
        for key, factor, unit, title in (
            ("energy_mae", 1e3, "meV/atom", "energy MAE"),
            ("forces_mae", 1e3, "meV/Å", "force MAE"),
            ("stress_mae", 1 / GPA, "GPa", "stress MAE"),
        )
        if key in evaluation.metrics
    ]
    entries.append((f"{potential.cutoff:g} Å", "cutoff"))
    data = " · ".join(f"{SETS[name]}: {source}" for name, source in sources.items() if name in SETS)
    return f"<h1>{html.escape(_title(potential))}</h1>\n<p class=sub>{html.escape(data)}</p>\n" + cards(entries)


def _metrics_table(evaluations: Mapping[str, Evaluation]) -> str:
    quantities = [
        (quantity, title)
        for quantity, title in (("energy", "E {}\nmeV/atom"), ("forces", "F {}\nmeV/Å"), ("stress", "S {}\nGPa"))
        if any(f"{quantity}_rmse" in evaluation.metrics for evaluation in evaluations.values())
    ]
    rows = []
    for name, evaluation in evaluations.items():
        metrics = evaluation.metrics
        cells = [SETS[name], f"{metrics['n_structures']:,}", f"{metrics['n_atoms']:,}"]
        for quantity, _ in quantities:
            factor = 1 / GPA if quantity == "stress" else 1e3
            cells += [
                three_digits(factor * metrics[f"{quantity}_{kind}"]) if f"{quantity}_{kind}" in metrics else "–"
                for kind in ("rmse", "mae", "max")
            ]
        rows.append(cells)
    head = ["set", "structures", "atoms"]
    for _, title in quantities:
        head += [title.format(kind) for kind in ("RMSE", "MAE", "max")]
    legend = "<p class=sub>E: energy, F: force components, S: stress components; max: largest error</p>"
    return table(head, rows) + legend


def _remarks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Sentences about what a careful reader would notice in the table."""
    remarks = []
    ratios = {
        name: evaluation.metrics["forces_max"] / evaluation.metrics["forces_rmse"]
        for name, evaluation in evaluations.items()
        if evaluation.metrics.get("forces_rmse", 0.0) > 0
    }
    large = [f"{ratio:.0f} times the RMSE in the {SETS[name]} set" for name, ratio in ratios.items() if ratio > 10]
    if large:
        remarks.append(
            f"The largest force error is {', '.join(large)}: look at the worst structures below, their labels may be "
            "wrong or such surroundings too rare."
        )
    held_out = next((name for name in ("test", "valid") if name in evaluations), None)
    if "train" in evaluations and held_out:
        train, other = evaluations["train"].metrics, evaluations[held_out].metrics
        for key, title in (("forces_rmse", "force"), ("energy_rmse", "energy")):
            if key in train and key in other and other[key] > 2 * train[key] > 0:
                remarks.append(
                    f"The {title} RMSE of the {SETS[held_out]} set is {other[key] / train[key]:.1f} times that of the "
                    "training set: more training structures would help most."
                )
    return [f"<p class=note>{html.escape(remark)}</p>" for remark in remarks]


def _parity(figures: Figures, evaluations: Mapping[str, Evaluation]) -> list[str]:
    rows = []
    for name, evaluation in evaluations.items():
        drawn = [
            figures.html(
                f"parity_{quantity}_{name}",
                partial(plot_parity, evaluation, quantity),
                f"{title}, {SETS[name]} set",
            )
            for quantity, title in TITLES.items()
            if f"{quantity}_rmse" in evaluation.metrics
        ]
        open_ = " open" if name == list(evaluations)[-1] else ""
        rows.append(f"<details{open_}><summary>{SETS[name]}</summary><div class=grid>{''.join(drawn)}</div></details>")
    return rows[::-1]


def _learning_curves(figures: Figures, history: Sequence[Mapping[str, Any]]) -> list[str]:
    if not history:
        return []
    drawn = [
        figures.html(
            f"learning_curve_{term.removesuffix('_rmse')}",
            partial(plot_learning_curve, history, term),
            f"{title} while training",
        )
        for term, title in (("energy_rmse", "Energy error"), ("forces_rmse", "Force error"))
        if f"train_{term}" in history[0]
    ]
    if not drawn:
        drawn = [figures.html("learning_curve", partial(plot_learning_curve, history), "Objective while training")]
    return ["<h2>Learning curve</h2>", f"<div class=grid>{''.join(drawn)}</div>"]


def _by_element(figures: Figures, evaluations: Mapping[str, Evaluation]) -> list[str]:
    if not any(evaluation.elements for evaluation in evaluations.values()):
        return []
    named = {SETS[name]: evaluation for name, evaluation in evaluations.items()}
    figure = figures.html(
        "force_error_by_element", partial(plot_force_error_by_element, named), "RMSE of the force components"
    )
    return ["<h2>Force error by element</h2>", f"<div class=grid>{figure}</div>"]


def _by_group(evaluations: Mapping[str, Evaluation]) -> list[str]:
    rows = [
        [
            SETS[name],
            group or "(none)",
            f"{errors['n_structures']:,}",
            *(
                three_digits(1e3 * errors[key]) if key in errors else "–"
                for key in ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")
            ),
        ]
        for name, evaluation in evaluations.items()
        if set(evaluation.groups) != {""}
        for group, errors in evaluation.groups.items()
    ]
    if not rows:
        return []
    units = ("E RMSE\nmeV/atom", "E MAE\nmeV/atom", "F RMSE\nmeV/Å", "F MAE\nmeV/Å")
    head = ["set", "group", "structures", *units]
    listing = table(head, rows, text=(0, 1))
    if len(rows) > 10:
        listing = f"<details><summary>{len(rows)} rows</summary>{listing}</details>"
    return ["<h2>Errors by group</h2>", listing]


def _uncertainty(figures: Figures, name: str, evaluation: Evaluation) -> list[str]:
    drawn = [
        figures.html(
            f"uncertainty_{quantity}",
            partial(plot_uncertainty, evaluation, quantity),
            f"{title}: error against the committee's standard deviation, {SETS[name]} set",
        )
        for quantity, title in TITLES.items()
        if quantity != "stress"
        and getattr(evaluation, f"{quantity}_std") is not None
        and f"{quantity}_rmse" in evaluation.metrics
    ]
    if not drawn:
        return []
    title = f"Share of errors within intervals of the committee, {SETS[name]} set"
    drawn.append(figures.html("uncertainty_coverage", partial(plot_coverage, evaluation), title))
    ranks = [
        f"{kind} {evaluation.metrics[f'{kind}_spearman']:.2f}"
        for kind in ("energy", "forces")
        if f"{kind}_spearman" in evaluation.metrics
    ]
    text = f"<p class=sub>Rank correlation of error and standard deviation: {', '.join(ranks)}.</p>" if ranks else ""
    return ["<h2>Uncertainty</h2>", f"{text}<div class=grid>{''.join(drawn)}</div>"]


def _worst(figures: Figures, evaluations: Mapping[str, Evaluation]) -> list[str]:
    parts = ["<h2>Worst structures</h2>"]
    units = ("E error\nmeV/atom", "F RMSE\nmeV/Å", "F max\nmeV/Å")
    head = ["structure", "formula", *units, "at atom", "remarks"]
    for name, evaluation in list(evaluations.items())[::-1]:
        if not evaluation.worst:
            continue
        rows = [
            [
                row["source"] + (f" ({row['group']})" if row["group"] else ""),
                row["formula"],
                *("–" if row[key] is None else three_digits(1e3 * row[key]) for key in ("energy_error", "forces_rmse")),
                "–" if row["forces_max"] is None else three_digits(1e3 * row["forces_max"]),
                "–" if row["atom"] is None else str(row["atom"]),
                row["odd"],
            ]
            for row in evaluation.worst
        ]
        figure = figures.html(
            f"worst_{name}",
            partial(plot_worst_structures, evaluation),
            f"Worst structures of the {SETS[name]} set",
        )
        open_ = " open" if len(parts) == 1 else ""
        parts.append(
            f"<details{open_}><summary>{SETS[name]}</summary>{table(head, rows, text=(0, 1, 6))}"
            f"<div class=grid>{figure}</div></details>"
        )
    return parts if len(parts) > 1 else []


def _model(potential: Potential) -> str:
    names = {symbol: potential.features.names(symbol) for symbol in _symbols(potential)}
    rows = [["kind", type(potential).__name__], ["elements", ", ".join(_symbols(potential))]]
    rows += [["cutoff", f"{potential.cutoff:g} Å"]]
    functions = ", ".join(f"{symbol} {len(listed)}" for symbol, listed in names.items())
    rows += [["functions of the surroundings", functions]]
    rows += [[key, _plain(value)] for key, value in potential.metadata.items() if key not in ("metrics", "history")]
    parts = [table(["", ""], rows, text=(0, 1))]
    ranges = potential.feature_ranges
    for symbol, listed in names.items():
        limits = table(
            ["function", "smallest", "largest"],
            [
                [name, f"{low:.6g}", f"{high:.6g}"]
                for name, (low, high) in zip(listed, ranges[symbol].tolist(), strict=True)
            ],
        )
        parts.append(
            f"<details><summary>Training ranges of the {len(listed)} functions of {symbol}</summary>{limits}</details>"
        )
    return "\n".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _usage(model_file: str | os.PathLike[str]) -> str:
    code = (
        "import molml\n"
        f"atoms.calc = molml.load({os.fspath(model_file)!r}).calculator()   # atoms: any ase.Atoms of these elements\n"
        "atoms.get_potential_energy(), atoms.get_forces()   # eV, eV/Å"
    )
    return f"<pre>{html.escape(code)}</pre>"
