"""Axes to draw on, for the plots of training and of every arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    """The axes that were given, or those of a figure of their own.

    Parameters
    ----------
    ax : Axes, optional
    size : (float, float), optional
        Of a figure that is made, in inches, which then has a fine resolution. If not given, matplotlib's settings hold.

    Returns
    -------
    Axes
    """
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # without pyplot: no window system is touched, and no figure has to be closed
    figure = Figure(figsize=size, dpi=None if size is None else 150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()
