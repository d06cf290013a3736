"""Figures: what they show, checked on the artists, and what they refuse."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from molml.energy.metrics import Evaluation
from molml.energy.plots import (
    MOST_POINTS,
    plot_active_learning,
    plot_coverage,
    plot_force_error_by_element,
    plot_learning_curve,
    plot_parity,
    plot_uncertainty,
    plot_worst_structures,
    three_digits,
)


def evaluation(n: int = 200, *, std: bool = True, labels: bool = True) -> Evaluation:
    rng = np.random.default_rng(0)
    size = n if labels else 0
    energy, forces, stress = rng.normal(size=n)[:size] - 1000, rng.normal(size=(size, 3)), rng.normal(size=(size, 6))
    return Evaluation(
        metrics={f"{q}_{kind}": 0.0123 for q in ("energy", "forces", "stress") for kind in ("rmse", "mae")},
        elements={"H": {"forces_rmse": 0.02}, "O": {"forces_rmse": 0.05}} if labels else {},
        groups={},
        worst=[
            {"source": f"some/long/path/to/data_{k}.xyz:{k}", "energy_error": -0.03, "forces_rmse": None}
            for k in range(3)
        ],
        energy=energy + 0.01 * rng.normal(size=size),
        energy_reference=energy,
        forces=forces + 0.01 * rng.normal(size=(size, 3)),
        forces_reference=forces,
        forces_numbers=np.ones(size, dtype=np.int64),
        stress=stress,
        stress_reference=stress,
        energy_std=np.full(size, 0.01) if std else None,
        forces_std=np.abs(rng.normal(size=(size, 3))) if std else None,
    )


HISTORY = [
    {
        "epoch": epoch,
        "train_objective": 1 / epoch,
        "train_forces_rmse": 0.2 / epoch,
        "valid_forces_rmse": 0.3 / epoch + 0.01 * abs(epoch - 6),
        "train_energy_rmse": 0.0,
        "valid_energy_rmse": None,
    }
    for epoch in range(1, 10)
]


def offsets(axes):
    return np.concatenate([collection.get_offsets() for collection in axes.collections])


@pytest.mark.parametrize(("quantity", "unit"), [("energy", "meV/atom"), ("forces", "meV/Å"), ("stress", "meV/Å³")])
def test_parity_shows_the_points_and_the_errors(quantity, unit):
    data = evaluation()
    axes = plot_parity(data, quantity)
    points = offsets(axes)
    reference, predicted = getattr(data, f"{quantity}_reference").ravel(), getattr(data, quantity).ravel()
    np.testing.assert_allclose(np.sort(points[:, 1] - points[:, 0]), np.sort(predicted - reference), atol=1e-9)
    text = axes.texts[0].get_text()
    assert f"RMSE 12.3 {unit}" in text and f"MAE 12.3 {unit}" in text
    assert f"n = {len(reference):,}" in text
    assert quantity.removesuffix("s") in axes.get_xlabel() and "eV" in axes.get_xlabel()
    assert axes.get_xlim() == axes.get_ylim()


def test_parity_takes_large_energies_off_the_axes():
    axes = plot_parity(evaluation(), "energy")
    assert "+ 1000" in axes.get_xlabel() or "+ 999.9" in axes.get_xlabel()
    assert np.abs(axes.get_xlim()).max() < 10


def test_many_points_are_thinned_but_no_outlier_is_lost():
    data = evaluation(30_000)
    data.forces[17] = [9.0, -9.0, 8.0]
    points = offsets(plot_parity(data, "forces"))
    assert len(points) <= MOST_POINTS
    assert {9.0, -9.0, 8.0} <= set(points[:, 1])


def test_one_structure_can_be_drawn():
    plot_parity(evaluation(1), "energy").figure.canvas.draw()


def test_the_learning_curve_shows_training_and_validation():
    axes = plot_learning_curve(HISTORY)
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["training"].get_ydata(), [200 / epoch for epoch in range(1, 10)])
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "force RMSE (meV/Å)"
    # the best validation error is marked: 50 meV/Å at epoch 6
    assert [text.get_text() for text in axes.texts] == ["50.0"]


def test_terms_without_logarithm_or_validation_are_drawn():
    axes = plot_learning_curve(HISTORY, "energy_rmse")
    assert axes.get_yscale() == "linear"
    assert [line.get_label() for line in axes.lines] == ["training"]
    assert plot_learning_curve(HISTORY[:1], "objective").get_ylabel() == "objective"


def test_an_epoch_that_was_cut_short_is_left_out():
    rows = [{"batches": 7, **row} for row in HISTORY[:-1]] + [{"batches": 3, **HISTORY[-1]}]
    assert len(plot_learning_curve(rows).lines[0].get_xdata()) == len(HISTORY) - 1


def test_members_of_a_committee_have_a_line_each():
    axes = plot_learning_curve([{"member": k, **row} for k in (1, 2, 3) for row in HISTORY])
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(HISTORY)]
    assert len(lines) == 6
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]


def test_a_history_without_known_terms_shows_the_objective():
    assert plot_learning_curve([{"epoch": 1, "train_objective": 2.0}]).get_ylabel() == "objective"


def test_force_errors_by_element():
    axes = plot_force_error_by_element({"train": evaluation(), "test": evaluation()})
    assert sorted(round(bar.get_height(), 6) for bar in axes.patches) == [20, 20, 50, 50]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["H", "O"]
    assert len(plot_force_error_by_element(evaluation()).patches) == 2


def test_an_element_may_be_missing_in_a_set():
    other = evaluation()._replace(elements={"O": {"forces_rmse": 0.01}})
    assert len(plot_force_error_by_element({"train": evaluation(), "test": other}).patches) == 3


def test_worst_structures_are_named():
    axes = plot_worst_structures(evaluation())
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert all(name.endswith(f"data_{k}.xyz:{k}") and len(name) <= 32 for k, name in enumerate(names))
    assert max(bar.get_width() for bar in axes.patches) == pytest.approx(0.03 / 0.0123)


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_uncertainty_against_error(quantity):
    axes = plot_uncertainty(evaluation(), quantity)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert {line.get_label() for line in axes.lines} == {"RMSE in bins", "ideal"}


def test_uncertainty_without_any_spread_is_an_empty_figure():
    data = evaluation()._replace(energy_std=np.zeros(200))
    assert not plot_uncertainty(data, "energy").collections


def test_axes_are_used_when_given_and_pyplot_is_left_alone():
    axes = Figure().subplots()
    assert plot_parity(evaluation(), ax=axes) is axes
    pyplot = sys.modules.get("matplotlib.pyplot")
    before = pyplot.get_fignums() if pyplot else []
    figure = plot_learning_curve(HISTORY).figure
    figure.canvas.draw()
    assert (pyplot.get_fignums() if pyplot else []) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1234"),
        (0.0012345, "0.00123"),
        (-2.5, "-2.50"),
        (1e-7, "1.00e-07"),
        (3e8, "3.00e+08"),
    ],
)
def test_three_digits(value, text):
    assert three_digits(value) == text


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_parity(evaluation(), "charge"), "quantity must be one of energy, forces, stress, got 'charge'"),
        (lambda: plot_parity(evaluation(labels=False), "forces"), "no reference labels"),
        (lambda: plot_learning_curve([]), "at least one epoch"),
        (lambda: plot_learning_curve(HISTORY, "charge"), "term must be one of objective, forces_rmse"),
        (lambda: plot_force_error_by_element(evaluation(labels=False)), "must hold force labels"),
        (lambda: plot_worst_structures(evaluation()._replace(worst=[])), "must hold worst structures"),
        (lambda: plot_coverage(evaluation(std=False)), "no standard deviations"),
        (lambda: plot_active_learning([]), "rounds must hold at least one round"),
        (lambda: plot_uncertainty(evaluation(), "stress"), "quantity must be"),
        (lambda: plot_uncertainty(evaluation(std=False)), "only a committee"),
        (lambda: plot_uncertainty(evaluation(labels=False)), "only a committee"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_active_learning_shows_what_there_is():
    rounds = [{"round": 1, "n_labels": 10, "test_forces_rmse": 0.2, "new_forces_rmse": 0.4, "threshold": 0.05}]
    rounds += [{"round": 2, "n_labels": 20, "test_forces_rmse": 0.1}]
    axes = plot_active_learning(rounds)
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines["test structures"] == [[10, 200], [20, 100]]
    assert lines["new structures, before they are learnt"] == [[10, 400]]
    assert len(plot_active_learning(rounds[1:]).get_lines()) == 1


def test_coverage_of_normal_errors_is_the_diagonal():
    one = evaluation(20_000)
    for deviation, expected in ((0.01, lambda x, y: np.abs(y - x).max() < 0.01), (0.005, lambda x, y: (y < x).all())):
        axes = plot_coverage(one._replace(forces_std=np.full((20_000, 3), deviation)))
        x, y = {line.get_label(): line.get_xydata().T for line in axes.get_lines()}["force components"]
        assert expected(x, y)
