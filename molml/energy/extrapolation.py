"""Noticing that atoms see surroundings unlike anything in the training data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.data import chemical_symbols

from molml.energy.cutoffs import jit

if TYPE_CHECKING:
    from molml.energy.data import Structures
    from molml.energy.model import Extrapolation, Potential, Prediction

__all__ = ["ExtrapolationError", "ExtrapolationWarning", "ExtrapolationWatch"]

TOLERANCE = 0.005
"""In widths of the training range. A range is that of a finite sample: a hair beyond its ends nothing changes."""

ESCALATION = 10.0
"""With hundreds of functions, a line for each would bury the news; this many times further out is news."""

ADVICE = (
    "Energies and forces are not to be trusted there: add such structures to the training data, or take "
    'on_extrapolation="ignore" if they are known to be harmless'
)


class ExtrapolationWarning(UserWarning):
    """An atom sees surroundings outside the range of the training data."""


class ExtrapolationError(ValueError):
    """An atom sees surroundings outside the range of the training data and `on_extrapolation="raise"`.

    Attributes
    ----------
    extrapolations : list[Extrapolation]
        Every atom and function concerned, the furthest outside first.
    """

    def __init__(self, message: str, extrapolations: Sequence[Extrapolation]) -> None:
        super().__init__(message)
        self.extrapolations = list(extrapolations)


class ExtrapolationWatch:
    """Compares symmetry functions with their ranges in training, structure after structure.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    action : "warn" or "raise"
        Raise at the first excursion, or warn at the first one of an element and again whenever it is ten times as far
        outside as all that was told before.
    """

    def __init__(self, potential: Potential, action: Literal["warn", "raise"]) -> None:
        self.potential = potential
        self.action = action
        self._symbols = [chemical_symbols[number] for number in potential.elements]
        ranges = [potential.feature_ranges[symbol] for symbol in self._symbols]
        self._low = [bounds[:, 0].copy() for bounds in ranges]
        self._high = [bounds[:, 1].copy() for bounds in ranges]
        # a function that was constant in training has a width of rounding errors
        floor = [np.maximum(1e-12, 1e-9 * np.abs(bounds).max(axis=1, initial=0.0)) for bounds in ranges]
        self._width = [np.maximum(b - a, w) for a, b, w in zip(self._low, self._high, floor, strict=True)]
        self._counts = [np.zeros(len(low), dtype=np.int64) for low in self._low]
        self._told = [0.0 for _ in self._symbols]

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """How many times an atom of an element (symbol) left the range of a function, where it ever did."""
        found: dict[tuple[str, str], int] = {}
        for symbol, counts in zip(self._symbols, self._counts, strict=True):
            if counts.any():
                names = self.potential.features.names(symbol)
                found |= {(symbol, names[column]): int(counts[column]) for column in np.flatnonzero(counts)}
        return found

    def look(self, batch: Structures, prediction: Prediction) -> None:
        """Count the excursions of one structure, and warn or raise.

        Parameters
        ----------
        batch : Structures
        prediction : Prediction
            Of this batch.

        Raises
        ------
        ExtrapolationError
            If an atom is outside and the action is "raise".
        """
        news, first = False, not any(self._told)
        for element, values in enumerate(prediction.features):
            limits = self._low[element], self._high[element], self._width[element]
            furthest = _count(values.numpy(), *limits, TOLERANCE, self._counts[element])
            if furthest <= TOLERANCE:
                continue
            if self.action == "raise" or furthest > ESCALATION * self._told[element]:
                news = True
                self._told[element] = float(furthest)
        if not news:
            return
        outside = [item for item in self.potential.extrapolation(batch, prediction) if item.excess > TOLERANCE]
        if self.action == "raise":
            raise ExtrapolationError(f"{_describe(outside)}. {ADVICE}", outside)
        text = _describe(outside)
        if first:
            text += f". {ADVICE}. More of it is counted, and told when it goes ten times further"
        warnings.warn(text, ExtrapolationWarning, stacklevel=3)


@jit
def _count(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, width: np.ndarray, tolerance: float, counts: np.ndarray
) -> float:
    """Count the values outside, function by function; the furthest excursion in widths, 0 if there is none."""
    furthest = 0.0
    for i in range(len(values)):
        for f in range(len(low)):
            excess = max(low[f] - values[i, f], values[i, f] - high[f]) / width[f]
            if excess > tolerance:
                counts[f] += 1
            furthest = max(furthest, excess)
    return furthest


def excess_in_words(item: Extrapolation) -> str:
    """How far outside its training range a function is, in terms of the width of the range."""
    return f"{100 * item.excess:.2g} % of its width" if item.excess < 1 else f"{item.excess:.3g} times its width"


def _describe(outside: Sequence[Extrapolation]) -> str:
    """The furthest excursion, and how many more there are."""
    worst = outside[0]
    more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
    return (
        f"extrapolation: atom {worst.atom} ({chemical_symbols[worst.element]}), function {worst.function} = "
        f"{worst.value:.6g} lies outside the training range [{worst.low:.6g}, {worst.high:.6g}] by "
        f"{excess_in_words(worst)}{more}"
    )
