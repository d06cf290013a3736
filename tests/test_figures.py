"""Axes to draw on."""

import sys

import pytest
from matplotlib.figure import Figure

from molml.figures import axes_or_new


def test_given_axes_come_back():
    ax = Figure().subplots()
    assert axes_or_new(ax) is ax and axes_or_new(ax, (3.0, 2.0)) is ax


def test_a_figure_of_its_own_is_not_pyplots():
    ax = axes_or_new(None, (3.0, 2.0))
    assert ax.figure.get_size_inches() == pytest.approx([3.0, 2.0]) and ax.figure.dpi == 150
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_settings_of_matplotlib_hold_for_a_figure_without_size():
    import matplotlib

    with matplotlib.rc_context({"figure.figsize": (2.0, 1.0), "figure.dpi": 50}):
        ax = axes_or_new(None)
    assert ax.figure.get_size_inches() == pytest.approx([2.0, 1.0]) and ax.figure.dpi == 50
