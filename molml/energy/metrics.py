"""How well a potential reproduces reference data: errors of energy, forces and stress, by element and by structure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from molml.energy.data import StructureDataset, Structures, n_structures, pair_vectors
from molml.energy.extrapolation import TOLERANCE, excess_in_words

if TYPE_CHECKING:
    from molml.energy.model import Potential

__all__ = ["Evaluation", "evaluate", "uncertainty_metrics"]

Floats = NDArray[np.float64]

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Rows and columns of xx yy zz yz xz xy."""


class Evaluation(NamedTuple):
    """Errors of a potential on a data set, and the pairs of numbers that they come from.

    Attributes
    ----------
    metrics : dict[str, float | int]
        For every kind of label that exists: `energy_rmse`, `energy_mae`, `energy_max` (eV/atom), `forces_rmse`,
        `forces_mae`, `forces_max` (eV/Å, components), `stress_rmse`, `stress_mae`, `stress_max` (eV/Å³, components);
        always `n_structures`, `n_atoms` and the numbers of labels `n_energy`, `n_forces` (atoms), `n_stress`. Of a
        committee also those of :func:`uncertainty_metrics` for energy and forces.
    elements : dict[str, dict[str, float | int]]
        `forces_rmse`, `forces_mae`, `forces_max` and `n_forces` (atoms) of every element (symbol).
    groups : dict[str, dict[str, float | int]]
        Errors of energy and forces and `n_structures` of every group that the file names (empty name: none).
    worst : list[dict[str, Any]]
        The structures with the largest errors, worst first: `source` ("file:frame"), `group`, `formula`, `n_atoms`,
        `energy_error` (eV/atom), `forces_rmse`, `forces_max` (eV/Å), `atom` (index of the atom with the largest force
        error) and `odd` (what is unusual about the structure, possibly empty); None where a label is missing.
    energy, energy_reference : ndarray, shape (n_energy,), eV/atom
    forces, forces_reference : ndarray, shape (n_forces, 3), eV/Å
    forces_numbers : ndarray of int64, shape (n_forces,)
        Atomic numbers to which the forces belong.
    stress, stress_reference : ndarray, shape (n_stress, 6), eV/Å³
        xx yy zz yz xz xy, tension positive.
    energy_std : ndarray, shape (n_energy,), eV/atom, or None
    forces_std : ndarray, shape (n_forces, 3), eV/Å, or None
        Standard deviations of a committee.
    """

    metrics: dict[str, float | int]
    elements: dict[str, dict[str, float | int]]
    groups: dict[str, dict[str, float | int]]
    worst: list[dict[str, Any]]
    energy: Floats
    energy_reference: Floats
    forces: Floats
    forces_reference: Floats
    forces_numbers: NDArray[np.int64]
    stress: Floats
    stress_reference: Floats
    energy_std: Floats | None
    forces_std: Floats | None

    def summary(self) -> dict[str, Any]:
        """`metrics`, `elements`, `groups` and `worst` as one dictionary that JSON takes (no NaN, no arrays)."""
        return {"metrics": self.metrics, "elements": self.elements, "groups": self.groups, "worst": self.worst}


def evaluate(
    potential: Potential,
    dataset: StructureDataset,
    *,
    batch_atoms: int = 2048,
    n_worst: int = 10,
    progress: bool | None = None,
) -> Evaluation:
    """Compare a potential with the reference labels of a data set.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    dataset : StructureDataset
        Only the labels that exist are compared.
    batch_atoms : int
        Structures are computed together up to this number of atoms; it bounds memory and does not change the numbers.
    n_worst : int
        How many of the worst structures to describe.
    progress : bool, optional
        Progress bar; by default on a terminal, when it takes more than two seconds.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        No structures, an element that the potential was not trained on, or a prediction that is not a finite number.
    """
    if len(dataset) == 0:
        raise ValueError("dataset must hold at least one structure, got none")
    if batch_atoms < 1:
        raise ValueError(f"batch_atoms must be at least 1, got {batch_atoms}")
    if n_worst < 0:
        raise ValueError(f"n_worst must not be negative, got {n_worst}")
    _check_elements(potential, dataset)
    if dataset.cutoff != potential.cutoff:
        dataset = dataset.with_cutoff(potential.cutoff)
    parts = [
        _compare(potential, dataset.collate(structures), sources)
        for structures, sources in _batches(dataset, batch_atoms, sys.stderr.isatty() if progress is None else progress)
    ]
    joined = _Comparison(*(np.concatenate(field) for field in zip(*parts, strict=True)))
    return _evaluation(joined, potential, dataset, n_worst)


def _check_elements(potential: Potential, dataset: StructureDataset) -> None:
    unknown = set(dataset.elements) - set(potential.elements)
    if not unknown:
        return
    source = next(
        source
        for source, atoms in zip(dataset.sources, dataset.atoms, strict=True)
        if unknown & set(atoms.numbers.tolist())
    )
    raise ValueError(
        f"{source} holds {_symbols(unknown)}, which the potential was not trained on (it knows "
        f"{_symbols(potential.elements)}); leave such structures out or train a potential with them"
    )


def _symbols(numbers: Any) -> str:
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))


def _batches(
    dataset: StructureDataset, batch_atoms: int, progress: bool
) -> Iterator[tuple[list[Structures], list[str]]]:
    from tqdm import tqdm

    structures: list[Structures] = []
    sources: list[str] = []
    n_atoms = 0
    numbered = enumerate(dataset.sources)
    for index, source in tqdm(
        numbered, "evaluating", len(dataset), leave=False, delay=2.0, unit=" structures", disable=not progress
    ):
        structure = dataset[index]
        size = len(structure.numbers)
        if structures and n_atoms + size > batch_atoms:
            yield structures, sources
            structures, sources, n_atoms = [], [], 0
        structures.append(structure)
        sources.append(source)
        n_atoms += size
    yield structures, sources


class _Comparison(NamedTuple):
    """Predictions beside labels; one row per structure unless noted. Missing labels are zero and not counted."""

    energy: Floats  # eV/atom
    energy_reference: Floats
    energy_std: Floats  # empty unless a committee
    has_energy: NDArray[np.bool_]
    forces: Floats  # (n_atoms, 3)
    forces_reference: Floats  # (n_atoms, 3)
    forces_std: Floats  # (n_atoms, 3), empty unless a committee
    has_forces: NDArray[np.bool_]  # (n_atoms,)
    stress: Floats  # (n_structures, 6)
    stress_reference: Floats
    has_stress: NDArray[np.bool_]
    numbers: NDArray[np.int64]  # (n_atoms,)
    n_atoms: NDArray[np.int64]
    shortest: Floats  # shortest distance, Å; infinite without neighbours
    loneliest: NDArray[np.int64]  # smallest number of neighbours of an atom
    volume: Floats  # Å³/atom, 0 where not periodic


def _compare(potential: Potential, batch: Structures, sources: Sequence[str]) -> _Comparison:
    want_forces, want_stress = bool(batch.has_forces.any()), bool(batch.has_stress.any())
    predicted = potential.predict(batch, forces=want_forces, stress=want_stress)
    n = n_structures(batch)
    n_atoms = torch.bincount(batch.structure, minlength=n)
    energy = predicted.energy.detach()
    forces = torch.zeros_like(batch.forces) if predicted.forces is None else predicted.forces.detach()
    stress = torch.zeros_like(batch.stress) if predicted.stress is None else predicted.stress.detach()
    _check_finite(energy, forces, stress, batch, sources)
    empty = np.zeros(0)
    distances = torch.linalg.vector_norm(pair_vectors(batch), dim=1)
    shortest = torch.full((n,), torch.inf, dtype=torch.float64)
    shortest = shortest.scatter_reduce(0, batch.structure[batch.first], distances, "amin")
    neighbours = torch.bincount(batch.first, minlength=len(batch.numbers))
    loneliest = torch.full((n,), len(batch.first) + 1).scatter_reduce(0, batch.structure, neighbours, "amin")
    return _Comparison(
        energy=(energy / n_atoms).numpy(),
        energy_reference=(batch.energy / n_atoms).numpy(),
        energy_std=empty if predicted.energy_std is None else (predicted.energy_std.detach() / n_atoms).numpy(),
        has_energy=batch.has_energy.numpy(),
        forces=forces.numpy(),
        forces_reference=batch.forces.numpy(),
        forces_std=np.zeros((0, 3)) if predicted.forces_std is None else predicted.forces_std.detach().numpy(),
        has_forces=batch.has_forces.numpy(),
        stress=stress[:, VOIGT[0], VOIGT[1]].numpy(),
        stress_reference=batch.stress[:, VOIGT[0], VOIGT[1]].numpy(),
        has_stress=batch.has_stress.numpy(),
        numbers=batch.numbers.numpy(),
        n_atoms=n_atoms.numpy(),
        shortest=shortest.numpy(),
        loneliest=loneliest.numpy(),
        volume=(batch.volume / n_atoms).numpy(),
    )


def _check_finite(
    energy: torch.Tensor,
    forces: torch.Tensor,
    stress: torch.Tensor,
    batch: Structures,
    sources: Sequence[str],
) -> None:
    for name, values, structure in (
        ("energy", energy[:, None], torch.arange(len(energy))),
        ("forces", forces, batch.structure),
        ("stress", stress.flatten(1), torch.arange(len(energy))),
    ):
        wrong = torch.nonzero(~torch.isfinite(values).all(dim=1))
        if len(wrong):
            source = sources[int(structure[wrong[0, 0]])]
            raise ValueError(
                f"the potential gave {name} of {source} that are not finite; the model or the structure is broken"
            )


def _errors(name: str, difference: Floats) -> dict[str, float | int]:
    if difference.size == 0:
        return {}
    return {
        f"{name}_rmse": float(np.sqrt(np.mean(difference**2))),
        f"{name}_mae": float(np.mean(np.abs(difference))),
        f"{name}_max": float(np.max(np.abs(difference))),
    }


def uncertainty_metrics(name: str, errors: Floats, deviations: Floats) -> dict[str, float | int]:
    """How far standard deviations tell of errors.

    Parameters
    ----------
    name : str
        Beginning of the names.
    errors, deviations : ndarray, shape (n,) or (n, 3)
        Of every energy, or of the force on every atom.

    Returns
    -------
    dict
        `NAME_within_1_std` and `NAME_within_2_std`, the shares of errors (of components) below one and two standard
        deviations, 0.683 and 0.954 if they are those of a normal distribution; `NAME_spearman`, the rank correlation of
        the sizes of errors and deviations (of vectors), where there are three and both vary.
    """
    # not above: it adds filters of warnings to those of whoever imports it
    from scipy.stats import spearmanr

    if not errors.size:
        return {}
    found: dict[str, float | int] = {
        f"{name}_within_{k}_std": float(np.mean(np.abs(errors) <= k * deviations)) for k in (1, 2)
    }
    sizes, expected = (np.linalg.norm(values.reshape(len(errors), -1), axis=1) for values in (errors, deviations))
    if len(sizes) > 2 and np.ptp(sizes) > 0 and np.ptp(expected) > 0:
        found[f"{name}_spearman"] = float(spearmanr(expected, sizes).statistic)
    return found


def _evaluation(joined: _Comparison, potential: Potential, dataset: StructureDataset, n_worst: int) -> Evaluation:
    has_energy, has_forces, has_stress = joined.has_energy, joined.has_forces, joined.has_stress
    energy, energy_reference = joined.energy[has_energy], joined.energy_reference[has_energy]
    forces, forces_reference = joined.forces[has_forces], joined.forces_reference[has_forces]
    stress, stress_reference = joined.stress[has_stress], joined.stress_reference[has_stress]
    numbers = joined.numbers[has_forces]
    metrics: dict[str, float | int] = {
        **_errors("energy", energy - energy_reference),
        **_errors("forces", forces - forces_reference),
        **_errors("stress", stress - stress_reference),
        "n_structures": len(joined.n_atoms),
        "n_atoms": int(joined.n_atoms.sum()),
        "n_energy": len(energy),
        "n_forces": len(forces),
        "n_stress": len(stress),
    }
    if len(joined.energy_std):
        metrics |= uncertainty_metrics("energy", energy - energy_reference, joined.energy_std[has_energy])
    if len(joined.forces_std):
        metrics |= uncertainty_metrics("forces", forces - forces_reference, joined.forces_std[has_forces])
    elements: dict[str, dict[str, float | int]] = {}
    groups: dict[str, dict[str, float | int]] = {}
    names = np.array(dataset.groups)
    for name in sorted(set(names.tolist())):
        in_group = names == name
        rows = np.repeat(in_group, joined.n_atoms) & has_forces
        chosen = in_group & has_energy
        groups[name] = {
            **_errors("energy", joined.energy[chosen] - joined.energy_reference[chosen]),
            **_errors("forces", joined.forces[rows] - joined.forces_reference[rows]),
            "n_structures": int(in_group.sum()),
        }
    for number in np.unique(numbers).tolist():
        of_element = numbers == number
        difference = forces[of_element] - forces_reference[of_element]
        elements[chemical_symbols[number]] = {**_errors("forces", difference), "n_forces": int(of_element.sum())}
    return Evaluation(
        metrics=metrics,
        elements=elements,
        groups=groups,
        worst=_worst(joined, potential, dataset, metrics, n_worst),
        energy=energy,
        energy_reference=energy_reference,
        forces=forces,
        forces_reference=forces_reference,
        forces_numbers=numbers,
        stress=stress,
        stress_reference=stress_reference,
        energy_std=joined.energy_std[has_energy] if len(joined.energy_std) else None,
        forces_std=joined.forces_std[has_forces] if len(joined.forces_std) else None,
    )


def _worst(
    joined: _Comparison,
    potential: Potential,
    dataset: StructureDataset,
    metrics: dict[str, float | int],
    n_worst: int,
) -> list[dict[str, Any]]:
    """Structures ordered by their energy or force error, whichever is larger in units of the RMSE of the whole set."""
    n = len(joined.n_atoms)
    starts = np.concatenate([[0], np.cumsum(joined.n_atoms)])
    energy_error = np.where(joined.has_energy, joined.energy - joined.energy_reference, 0.0)
    squares = np.where(joined.has_forces[:, None], joined.forces - joined.forces_reference, 0.0) ** 2
    n_forces = np.add.reduceat(joined.has_forces.astype(np.int64), starts[:-1])
    force_rmse = np.sqrt(np.add.reduceat(squares.sum(axis=1), starts[:-1]) / np.maximum(3 * n_forces, 1))
    # an exact potential has no errors to compare with: every structure is then equally good
    score = np.maximum(
        np.abs(energy_error) / max(metrics.get("energy_rmse", 0.0), np.finfo(float).tiny),
        force_rmse / max(metrics.get("forces_rmse", 0.0), np.finfo(float).tiny),
    )
    odd = _Oddities(joined, starts)
    worst = []
    sources, groups = dataset.sources, dataset.groups
    for index in np.argsort(-score, kind="stable")[: min(n_worst, n)].tolist():
        atoms = slice(starts[index], starts[index + 1])
        has_forces = n_forces[index] > 0
        per_atom = squares[atoms].sum(axis=1)
        worst.append(
            {
                "source": sources[index],
                "group": groups[index],
                "formula": dataset.subset([index]).atoms[0].get_chemical_formula(),
                "n_atoms": int(joined.n_atoms[index]),
                "energy_error": float(energy_error[index]) if joined.has_energy[index] else None,
                "forces_rmse": float(force_rmse[index]) if has_forces else None,
                "forces_max": float(np.sqrt(squares[atoms].max())) if has_forces else None,
                "atom": int(np.argmax(per_atom)) if has_forces else None,
                "odd": "; ".join(odd.remarks(index, per_atom) + _extrapolation(potential, dataset[index])),
            }
        )
    return worst


class _Oddities:
    """What sets a structure apart from the rest of its data set, in words."""

    def __init__(self, joined: _Comparison, starts: NDArray[np.int64]) -> None:
        self.joined = joined
        self.starts = starts
        lengths = np.where(joined.has_forces, np.linalg.norm(joined.forces_reference, axis=1), 0.0)
        self.largest_force = np.maximum.reduceat(lengths, starts[:-1])
        summed = np.add.reduceat(np.where(joined.has_forces[:, None], joined.forces_reference, 0.0), starts[:-1])
        self.net_force = np.linalg.norm(summed, axis=1)
        # a net force is only wrong where every atom has a label
        self.complete = np.minimum.reduceat(joined.has_forces.astype(np.int64), starts[:-1]) == 1
        self.compositions = [
            tuple(np.unique(joined.numbers[start:stop], return_counts=True)[0].tolist())
            for start, stop in zip(starts[:-1], starts[1:], strict=True)
        ]

    def remarks(self, index: int, squared_errors: Floats) -> list[str]:
        """Remarks about one structure.

        Parameters
        ----------
        index : int
        squared_errors : ndarray, shape (n_atoms of the structure,), (eV/Å)²
        """
        joined = self.joined
        n = len(joined.n_atoms)
        remarks = []
        total = float(squared_errors.sum())
        if len(squared_errors) > 3 and total > 0 and float(squared_errors.max()) > 0.5 * total:
            atom = int(np.argmax(squared_errors))
            symbol = chemical_symbols[joined.numbers[self.starts[index] + atom]]
            share = 100 * float(squared_errors.max()) / total
            remarks.append(f"{share:.0f} % of the force error is on atom {atom} ({symbol})")
        if self.complete[index] and self.net_force[index] > 0.01 * np.sqrt(joined.n_atoms[index]):
            remarks.append(f"reference forces add up to {self.net_force[index]:.2g} eV/Å instead of 0")
        if n >= 20:
            remarks += self._extremes(index)
        return remarks

    def _extremes(self, index: int) -> list[str]:
        joined = self.joined
        shortest, force, volume = joined.shortest[index], self.largest_force[index], joined.volume[index]
        remarks = []
        if np.isfinite(shortest) and _is_rare(joined.shortest <= shortest):
            remarks.append(f"among the shortest distances of the set ({shortest:.3g} Å)")
        if force > 0 and _is_rare(self.largest_force >= force):
            remarks.append(f"among the largest reference forces of the set ({force:.3g} eV/Å)")
        if volume > 0 and _is_rare(joined.volume <= volume):
            remarks.append(f"among the densest of the set ({volume:.4g} Å³/atom)")
        if volume > 0 and _is_rare(joined.volume >= volume):
            remarks.append(f"among the least dense of the set ({volume:.4g} Å³/atom)")
        if joined.loneliest[index] == 0:
            remarks.append("holds an atom without neighbours")
        elif _is_rare(joined.loneliest <= joined.loneliest[index]):
            remarks.append(f"holds an atom with only {joined.loneliest[index]} neighbours within the cutoff")
        composition = self.compositions[index]
        n_same = self.compositions.count(composition)
        if n_same < 0.02 * len(self.compositions):
            symbols = "-".join(chemical_symbols[number] for number in composition)
            remarks.append(f"only {n_same} of {len(self.compositions)} structures consist of {symbols}")
        return remarks


def _extrapolation(potential: Potential, structure: Structures) -> list[str]:
    outside = [item for item in potential.extrapolation(structure) if item.excess > TOLERANCE]
    if not outside:
        return []
    worst = outside[0]
    symbol = chemical_symbols[worst.element]
    atoms = len({item.atom for item in outside})
    return [
        f"{atoms} of {len(structure.numbers)} atoms outside the training range, atom {worst.atom} ({symbol}) by "
        f"{excess_in_words(worst)}"
    ]


def _is_rare(others: NDArray[np.bool_]) -> bool:
    """Whether few structures are like this one or more extreme."""
    return float(np.mean(others)) <= max(0.02, 1 / len(others))
