"""Figures of training and validation. Every function draws into `ax`, or a new figure, and gives the axes back."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molml.figures import axes_or_new
from molml.training.validation import BiasVariance, LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_history(history: Sequence[Mapping[str, Any]], *, name: str = "objective", ax: "Axes | None" = None) -> "Axes":
    """Training and validation curves of one term over the epochs.

    Parameters
    ----------
    history : sequence of mappings
        A `History`, or the lines of metrics.jsonl.
    name : str
        Term, such as "forces_rmse".

    Raises
    ------
    ValueError
        If there is no epoch or no such term.
    """
    keys = [key for key in (f"train_{name}", f"valid_{name}") if history and key in history[0]]
    if not keys:
        known = sorted({key.partition("_")[2] for record in history[:1] for key in record if "_" in key})
        raise ValueError(f"name must be a term of the history ({', '.join(known)}), got {name!r}")
    ax = axes_or_new(ax)
    epochs = [record["epoch"] for record in history]
    for key in keys:
        # None, for a value that was not finite, becomes nan: a gap
        values = np.array([record[key] for record in history], dtype=np.float64)
        ax.plot(epochs, values, label={"t": "training", "v": "validation"}[key[0]])
        if np.nanmin(values, initial=np.inf) > 0:
            ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=name)
    ax.legend()
    return ax


def plot_learning_curve(curve: LearningCurve, *, ylabel: str = "error", ax: "Axes | None" = None) -> "Axes":
    """Training and test error against the number of training items: mean and standard deviation over the folds.

    Parameters
    ----------
    curve : LearningCurve
    ylabel : str
        Name and unit of the error.
    """
    ax = axes_or_new(ax)
    for label, errors in (("training", curve.train), ("test", curve.test)):
        ax.errorbar(curve.sizes, errors.mean(axis=1), yerr=errors.std(axis=1), marker="o", capsize=3, label=label)
    ax.set(xlabel="training items", ylabel=ylabel, xscale="log")
    if min(curve.train.mean(axis=1).min(), curve.test.mean(axis=1).min()) > 0:
        ax.set_yscale("log")
    ax.legend()
    return ax


def plot_bias_variance(
    complexity: Sequence[float], parts: Sequence[BiasVariance], *, xlabel: str = "complexity", ax: "Axes | None" = None
) -> "Axes":
    """Bias², variance, noise and their sum, the error, of models of growing complexity.

    Parameters
    ----------
    complexity : sequence of float
        Degree, number of parameters, …, of each model.
    parts : sequence of BiasVariance
        One per model.
    xlabel : str
        Name of the complexity.

    Raises
    ------
    ValueError
        If there is not one of `parts` for each of `complexity`, or none.
    """
    if len(complexity) == 0 or len(complexity) != len(parts):
        raise ValueError(f"complexity and parts must have one length above 0, got {len(complexity)} and {len(parts)}")
    ax = axes_or_new(ax)
    bias2, variance, noise, error = np.array(parts).T
    for label, values, style in (
        ("bias²", bias2, "o--"),
        ("variance", variance, "s--"),
        ("noise", noise, ":"),
        ("error", error, "k-"),
    ):
        ax.plot(complexity, values, style, label=label)
    ax.set(xlabel=xlabel, ylabel="squared error", yscale="log")
    ax.legend()
    return ax
