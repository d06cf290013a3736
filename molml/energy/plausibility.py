"""Does a whole data set look as if its units, signs and component orders were what they are said to be?

Every check here stays silent unless the data speak clearly, because correct data that are unusual must pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from molml.energy.labels import CLOSE, Frame, group_of

__all__ = ["suspicions"]

FEWEST = 8
"""Structures of one composition below which a correlation proves nothing."""

STIFFEST = 10.0
"""eV/Å³ (1600 GPa); more than three times the bulk modulus of diamond."""


def suspicions(frames: Sequence[Frame]) -> list[str]:
    """What is probably wrong with the labels of a data set as a whole.

    Parameters
    ----------
    frames : sequence of Frame

    Returns
    -------
    list of str
        One sentence per suspicion, empty for data that look right.
    """
    return [*_length_unit(frames), *_stress_without_volume(frames), *_stress_convention(frames)]


def _length_unit(frames: Sequence[Frame]) -> Iterator[str]:
    several = [frame.closest for frame in frames if len(frame.atoms) > 1]
    if several and max(several) < CLOSE:
        yield (
            f"every structure has atoms closer than {CLOSE} Å (down to {min(several):.2f} Å), shorter than any bond; "
            "if the positions are in nm, say length_unit='nm'"
        )


def _stress_without_volume(frames: Sequence[Frame]) -> Iterator[str]:
    without = [frame for frame in frames if frame.stress is not None and not frame.atoms.pbc.all()]
    if without:
        yield (
            f"stress is ignored in {len(without)} of {len(frames)} structures, beginning with {without[0].source}: it "
            "has a meaning only where all three directions are periodic, and there pbc="
            f"{without[0].atoms.pbc.tolist()}"
        )


def _stress_convention(frames: Sequence[Frame]) -> Iterator[str]:
    families: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.stress is not None and frame.atoms.pbc.all():
            families[frame.atoms.get_chemical_formula(), group_of(frame.atoms.info)].append(frame)
    kinds: dict[str, list[str]] = defaultdict(list)
    for (formula, group), family in families.items():
        if len(family) >= FEWEST:
            stress = np.stack([frame.stress for frame in family if frame.stress is not None])
            cells = np.stack([np.asarray(frame.atoms.cell) for frame in family])
            for kind in (_wrong_sign(stress, cells), _wrong_unit(stress, cells), _wrong_order(stress, cells)):
                if kind:
                    kinds[kind].append(f"{len(family)} structures of {formula}{group and f' ({group})'}")
    for kind, where in kinds.items():
        yield f"{kind}: seen in {', '.join(where)}"


def _tension_and_volume(
    stress: NDArray[np.float64], cells: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.trace(stress, axis1=1, axis2=2) / 3, np.log(np.abs(np.linalg.det(cells)))


def _wrong_sign(stress: NDArray[np.float64], cells: NDArray[np.float64]) -> str:
    tension, volume = _tension_and_volume(stress, cells)
    # 3 % of volume is a strain of 1 %: enough to stand out from thermal pressure
    if np.ptp(volume) > 0.03 and _correlation(tension, volume) < -0.9:
        return (
            "stress seems to have the opposite sign: larger cells should be under tension, which is positive here (the "
            "sign of ASE; VASP's 'in kB' and LAMMPS' pressure count compression as positive)"
        )
    return ""


def _wrong_unit(stress: NDArray[np.float64], cells: NDArray[np.float64]) -> str:
    tension, volume = _tension_and_volume(stress, cells)
    if np.ptp(volume) > 0.03 and abs(_correlation(tension, volume)) > 0.9:
        modulus = float(np.polyfit(volume, tension, 1)[0])
        if abs(modulus) > STIFFEST:
            return (
                f"stress seems not to be in eV/Å³: it gives a bulk modulus of {abs(modulus):.3g} eV/Å³, and diamond "
                "has 2.8; 1 GPa = 0.00624 eV/Å³, 1 kbar = 0.000624 eV/Å³"
            )
    return ""


def _wrong_order(stress: NDArray[np.float64], cells: NDArray[np.float64]) -> str:
    reference = cells.mean(axis=0)
    if abs(np.linalg.det(reference)) < 1e-3:
        return ""
    deformation = np.linalg.solve(reference, cells) - np.eye(3)
    # one lattice, deformed: anything else has no common frame in which to compare components
    if np.abs(deformation).max() > 0.3:
        return ""
    strain = (deformation + deformation.transpose(0, 2, 1)) / 2
    places = ((1, 2), (0, 2), (0, 1))
    shear = np.stack([strain[:, i, j] for i, j in places])
    response = np.stack([stress[:, i, j] for i, j in places])
    if (shear.std(axis=1) < 0.002).any():
        return ""
    table = np.array([[_correlation(r, s) for s in shear] for r in response])
    orders = {order: table[range(3), order].min() for order in permutations(range(3))}
    best = max(orders, key=lambda order: orders[order])
    if orders[best] > 0.9 and abs(orders[(0, 1, 2)]) < 0.5:
        names = np.array(["yz", "xz", "xy"])
        return (
            "shear stress seems to be in another order: what is called yz, xz, xy answers to strains "
            f"{', '.join(names[list(best)])} (ASE: xx yy zz yz xz xy; VASP: xx yy zz xy yz xz)"
        )
    return ""


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0
