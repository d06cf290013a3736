import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from molml.training.plots import plot_bias_variance, plot_history, plot_learning_curve
from molml.training.validation import BiasVariance, LearningCurve

HISTORY = [
    {"epoch": 1, "train_objective": 4.0, "valid_objective": 5.0, "train_mae": 2.0},
    {"epoch": 2, "train_objective": 1.0, "valid_objective": None, "train_mae": 0.0},
]
CURVE = LearningCurve(np.array([10, 100]), np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[8.0, 10.0], [4.0, 4.0]]))
PARTS = [BiasVariance(4.0, 1.0, 0.5, 5.5), BiasVariance(1.0, 2.0, 0.5, 3.5)]


def lines(ax):
    return {line.get_label(): line.get_ydata().tolist() for line in ax.get_lines() if line.get_label()[0] != "_"}


def test_history_shows_both_curves_and_a_gap_for_null():
    ax = plot_history(HISTORY)
    assert lines(ax)["training"] == [4.0, 1.0]
    np.testing.assert_array_equal(lines(ax)["validation"], [5.0, np.nan])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "objective", "log")


def test_history_of_a_term_with_zeros_is_linear():
    ax = plot_history(json.loads(json.dumps(HISTORY)), name="mae")
    assert lines(ax) == {"training": [2.0, 0.0]}
    assert ax.get_yscale() == "linear"


@pytest.mark.parametrize("history", [HISTORY, []])
def test_unknown_terms_are_refused(history):
    with pytest.raises(ValueError, match="name must be a term of the history .* got 'rmse'"):
        plot_history(history, name="rmse")


def test_learning_curve_shows_means():
    ax = plot_learning_curve(CURVE, ylabel="RMSE (eV)")
    means = [container.lines[0].get_ydata().tolist() for container in ax.containers]
    assert means == [[2.0, 2.0], [9.0, 4.0]]
    assert (ax.get_ylabel(), ax.get_yscale()) == ("RMSE (eV)", "log")


def test_learning_curve_of_a_perfect_fit_is_linear():
    assert plot_learning_curve(CURVE._replace(train=np.zeros((2, 2)))).get_yscale() == "linear"


def test_bias_variance_shows_all_parts():
    ax = plot_bias_variance([1, 2], PARTS, xlabel="degree")
    assert lines(ax) == {"bias²": [4.0, 1.0], "variance": [1.0, 2.0], "noise": [0.5, 0.5], "error": [5.5, 3.5]}
    assert ax.get_xlabel() == "degree"


@pytest.mark.parametrize(("complexity", "parts"), [([1], PARTS), ([], [])])
def test_one_decomposition_per_complexity(complexity, parts):
    with pytest.raises(ValueError, match="one length above 0"):
        plot_bias_variance(complexity, parts)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plot_history(HISTORY, ax=ax),
        lambda ax: plot_learning_curve(CURVE, ax=ax),
        lambda ax: plot_bias_variance([1, 2], PARTS, ax=ax),
    ],
)
def test_axes_given_are_drawn_into_and_can_be_saved(draw, tmp_path):
    figure = Figure()
    ax = figure.subplots()
    assert draw(ax) is ax
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
