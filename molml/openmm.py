"""What the arms need that make forces for OpenMM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["particle_numbers", "python_force"]


def python_force() -> Any:
    """OpenMM's class PythonForce.

    Raises
    ------
    ModuleNotFoundError
        If OpenMM is missing, or older than 8.5.
    """
    try:
        from openmm import PythonForce
    except ImportError as error:
        raise ModuleNotFoundError(
            "openmm_force needs OpenMM with PythonForce (8.5 or later): pip install --upgrade openmm"
        ) from error
    return PythonForce


def particle_numbers(name: str, numbers: Sequence[int], n_atoms: int) -> list[int]:
    """Numbers of particles, one for each of so many atoms, as a force needs them.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    numbers : sequence of int
        From 0.
    n_atoms : int

    Raises
    ------
    ValueError
        If they are not so many different whole numbers from 0.
    """
    found = np.asarray(numbers)
    if found.shape != (n_atoms,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise ValueError(
            f"{name} must be the number, from 0, of each of the {n_atoms} atoms, got {found.dtype} of shape "
            f"{found.shape}"
        )
    chosen: list[int] = found.tolist()
    if len(set(chosen)) < n_atoms:
        raise ValueError(f"{name} must all be different, got some of them twice")
    return chosen
