"""Figures of molecular models. Every function draws into `ax`, or a new figure, and gives the axes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molml.figures import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_latent_map", "plot_properties"]


def plot_latent_map(codes: np.ndarray, values: np.ndarray, *, label: str, ax: Axes | None = None) -> Axes:
    """Codes on their two leading principal components, coloured by a property.

    Parameters
    ----------
    codes : array, shape (n, n_latent)
        At least three.
    values : array, shape (n,)
        Of the property; NaN leaves a molecule out.
    label : str
        Name of the property.
    ax : Axes, optional

    Raises
    ------
    ValueError
        If the shapes do not match, or there are too few molecules.
    """
    codes, values = np.asarray(codes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if codes.ndim != 2 or values.shape != codes.shape[:1]:
        raise ValueError(f"codes and values must be (n, n_latent) and (n,), got {codes.shape} and {values.shape}")
    known = np.isfinite(values)
    if known.sum() < 3:
        raise ValueError(f"a map needs at least three molecules with a known {label}, got {known.sum()}")
    ax = axes_or_new(ax, (6.0, 4.8))
    centred = codes[known] - codes[known].mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    place = centred @ directions[:2].T
    shares = 100 * sizes**2 / (sizes**2).sum()
    # a few extreme values must not take all the colours
    low, high = np.quantile(values[known], [0.02, 0.98])
    shown = ax.scatter(
        place[:, 0], place[:, 1], c=values[known], s=6, cmap="viridis", vmin=low, vmax=high, rasterized=True
    )
    ax.figure.colorbar(shown, ax=ax, label=label)
    ax.set(xlabel=f"component 1 ({shares[0]:.0f} %)", ylabel=f"component 2 ({shares[1]:.0f} %)")
    return ax


def plot_properties(sets: Mapping[str, Sequence[float]], *, label: str, ax: Axes | None = None, bins: int = 40) -> Axes:
    """Distributions of one property in several sets of molecules, such as training molecules and samples.

    Parameters
    ----------
    sets : mapping of str to sequence of float
        Name of a set to its values.
    label : str
        Name of the property.
    ax : Axes, optional
    bins : int

    Raises
    ------
    ValueError
        If a set is empty.
    """
    if not sets or any(len(values) == 0 for values in sets.values()):
        sizes = {name: len(values) for name, values in sets.items()}
        raise ValueError(f"sets must hold at least one value each, got {sizes}")
    ax = axes_or_new(ax, (4.6, 3.4))
    arrays: dict[str, Any] = {name: np.asarray(values, dtype=np.float64) for name, values in sets.items()}
    low, high = np.quantile(np.concatenate(list(arrays.values())), [0.001, 0.999])
    edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    for name, values in arrays.items():
        ax.hist(np.clip(values, edges[0], edges[-1]), edges.tolist(), density=True, histtype="step", lw=1.6, label=name)
    ax.set(xlabel=label, ylabel="density")
    ax.legend()
    return ax
