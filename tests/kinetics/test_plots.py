import numpy as np
import pytest
from matplotlib.figure import Figure

from molml.kinetics.plots import (
    plot_chapman_kolmogorov,
    plot_free_energy,
    plot_projection,
    plot_ramachandran,
    plot_scores,
    plot_timescales,
)
from molml.kinetics.validation import ChapmanKolmogorov


@pytest.fixture
def gaussian():
    return [np.random.default_rng(i).normal(size=(20_000, 2)) for i in range(2)]


def test_free_energy_of_a_gaussian_is_a_parabola(gaussian):
    axes = plot_free_energy(gaussian, components=[0], bins=60)
    x, energy = axes.lines[0].get_data()
    near = np.abs(x) < 1.5
    # -ln p + ln p(0) = x²/2; 40,000 samples leave an error of some per cent of kT in the middle
    assert np.abs(energy - energy[near].min() - x**2 / 2)[near].max() < 0.15


def test_free_energy_map(gaussian):
    axes = plot_free_energy(gaussian, bins=30)
    mesh = axes.collections[0]
    assert np.nanmin(mesh.get_array()) == 0
    assert axes.get_xlabel() == "coordinate 1"


def test_one_far_frame_does_not_shrink_the_map(gaussian):
    gaussian[0][0] = 1e6
    axes = plot_free_energy(gaussian)
    assert axes.get_xlim()[1] < 10


@pytest.mark.parametrize("components", [(0, 1, 2), (), (2,), (-1,)])
def test_free_energy_needs_components_that_exist(gaussian, components):
    with pytest.raises(ValueError, match="components must be one or two of the 2 columns"):
        plot_free_energy(gaussian, components=components)


def test_projection_lays_trajectories_end_to_end(gaussian):
    axes = plot_projection(gaussian, timestep=0.5, component=1)
    last = axes.lines[2].get_xdata()
    assert axes.get_xlabel() == "time (ns)"
    assert last[0] == pytest.approx(10.0)  # 20,000 frames of 0.5 ps
    assert axes.get_ylabel() == "coordinate 2"


def test_projection_of_a_short_run_is_in_its_own_unit():
    assert plot_projection([np.zeros((10, 1))], timestep=1.0).get_xlabel() == "time (ps)"


def test_projection_refuses_a_component_that_is_not_there(gaussian):
    with pytest.raises(ValueError, match="component must be one of the 2 columns of the coordinates, got 2"):
        plot_projection(gaussian, timestep=1.0, component=2)


def test_timescales_are_shown_with_what_cannot_be_resolved():
    lags = np.array([1.0, 2.0, 4.0])
    times = np.array([[10.0, 2.0], [11.0, np.inf], [12.0, 0.0]])
    axes = plot_timescales(lags, times, low=0.9 * times, high=1.1 * times, reference=np.array([11.0]))
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [10.0, 11.0, 12.0])
    # infinite and vanishing ones are gaps, not walls
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2.0, np.nan, np.nan])
    assert axes.lines[2].get_ydata()[0] == 11.0


def test_timescales_must_fit_the_lag_times():
    with pytest.raises(ValueError, match=r"timescales must have shape \(3, n_processes\).*got \(2, 2\)"):
        plot_timescales(np.arange(3.0), np.ones((2, 2)))


def test_ramachandran_shows_means():
    phi = np.radians([-60.0, -60.0, 60.0])
    axes = plot_ramachandran(phi, phi, np.array([1.0, 3.0, 7.0]), bins=4)
    shown = np.ma.filled(axes.collections[0].get_array(), np.nan)
    # cells of 90°: (-90, 0) in both angles, and (0, 90)
    assert shown[1, 1] == 2.0
    assert shown[2, 2] == 7.0
    assert np.isnan(shown[0, 0])


def test_ramachandran_needs_equal_lengths():
    with pytest.raises(ValueError, match="phi, psi and values must have one length, got 2, 2 and 3 frames"):
        plot_ramachandran(np.zeros(2), np.zeros(2), np.zeros(3))


def test_chapman_kolmogorov():
    predictions = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.83, 0.17], [0.34, 0.66]]])
    test = ChapmanKolmogorov(np.array([5, 10]), predictions, predictions - 0.01, predictions - 0.02, predictions + 0.02)
    axes = plot_chapman_kolmogorov(test, timestep=0.2)
    time, stays = axes.lines[0].get_data()
    np.testing.assert_allclose(time, [1.0, 2.0])
    np.testing.assert_allclose(stays, [0.9, 0.83])


def test_scores_colour_the_best():
    scores = {"a": (1.0, 0.1), "b": (2.0, None), "c": (np.nan, None)}
    high = [bar[0].get_color() for bar in plot_scores(scores, label="x").containers]
    low = [bar[0].get_color() for bar in plot_scores(scores, label="x", best="low").containers]
    assert high[1] == low[0] != high[0]
    none = [bar[0].get_color() for bar in plot_scores(scores, label="x", best=None).containers]
    assert len(set(none)) == 1


@pytest.mark.parametrize(("scores", "best"), [({}, "high"), ({"a": (1.0, None)}, "best")])
def test_scores_refuse(scores, best):
    with pytest.raises(ValueError, match="scores must not be empty and best be"):
        plot_scores(scores, label="x", best=best)


def test_given_axes_are_used(gaussian):
    axes = Figure().subplots()
    assert plot_free_energy(gaussian, components=(1,), ax=axes) is axes
    assert plot_projection(gaussian, timestep=1.0, ax=axes) is axes
