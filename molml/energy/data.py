"""What a batch of structures is, and the data set that makes batches."""

from __future__ import annotations

import hashlib
import html
import operator
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, SupportsIndex

import ase
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molml.energy.labels import (
    Frame,
    LabelKeys,
    check_structure,
    file_of,
    group_of,
    label_frames,
    labelled_atoms,
)
from molml.energy.neighbors import neighbor_pairs, neighbor_shifts
from molml.energy.plausibility import suspicions
from molml.energy.reading import read_frames, read_structures

__all__ = [
    "StructureDataset",
    "Structures",
    "atoms_to_structures",
    "check_structure",
    "collate",
    "n_structures",
    "pair_vectors",
    "read_structures",
]


GROUPS_SHOWN = 12


class Structures(NamedTuple):
    """A batch of structures with their neighbour lists and labels; never changed in place.

    Attributes
    ----------
    positions : Tensor, shape (n_atoms, 3), Å
        Atoms of all structures, one structure after the other.
    numbers : Tensor of int64, shape (n_atoms,)
        Atomic numbers.
    cell : Tensor, shape (n_structures, 3, 3), Å
        Rows are lattice vectors; zeros if none.
    structure : Tensor of int64, shape (n_atoms,)
        To which structure an atom belongs, ascending.
    first, second : Tensor of int64, shape (n_pairs,)
        Atoms of every ordered pair within the cutoff, sorted by `first`, then by `second`.
    offset : Tensor, shape (n_pairs, 3), Å
        Lattice translation of `second`; see `pair_vectors`.
    volume : Tensor, shape (n_structures,), Å³
        0 where fewer than three directions are periodic.
    energy : Tensor, shape (n_structures,), eV
    forces : Tensor, shape (n_atoms, 3), eV/Å
    stress : Tensor, shape (n_structures, 3, 3), eV/Å³
        Symmetric, tension positive. Labels that are missing are 0, and their mask is False:
    has_energy : Tensor of bool, shape (n_structures,)
    has_forces : Tensor of bool, shape (n_atoms,)
    has_stress : Tensor of bool, shape (n_structures,)
    weight : Tensor, shape (n_structures,)
    """

    positions: Tensor
    numbers: Tensor
    cell: Tensor
    structure: Tensor
    first: Tensor
    second: Tensor
    offset: Tensor
    volume: Tensor
    energy: Tensor
    forces: Tensor
    stress: Tensor
    has_energy: Tensor
    has_forces: Tensor
    has_stress: Tensor
    weight: Tensor


def n_structures(batch: Structures) -> int:
    """Number of structures in a batch."""
    return batch.cell.shape[0]


def pair_vectors(batch: Structures) -> Tensor:
    """Vectors from the first to the second atom of every pair.

    Parameters
    ----------
    batch : Structures

    Returns
    -------
    Tensor, shape (n_pairs, 3), Å
        Differentiable with respect to `batch.positions`.
    """
    return batch.positions.index_select(0, batch.second) - batch.positions.index_select(0, batch.first) + batch.offset


def collate(structures: Sequence[Structures]) -> Structures:
    """Join batches into one.

    Parameters
    ----------
    structures : sequence of Structures

    Returns
    -------
    Structures
        The structures in the given order.

    Raises
    ------
    ValueError
        If there is nothing to join.
    """
    if not structures:
        raise ValueError("collate needs at least one structure, got none")
    if len(structures) == 1:
        return structures[0]
    atoms_before = [0, *accumulate(len(s.numbers) for s in structures)]
    structures_before = [0, *accumulate(len(s.energy) for s in structures)]
    fields = [torch.cat(tensors) for tensors in zip(*structures, strict=True)]
    return Structures(*fields)._replace(
        structure=torch.cat([s.structure + n for s, n in zip(structures, structures_before, strict=False)]),
        first=torch.cat([s.first + n for s, n in zip(structures, atoms_before, strict=False)]),
        second=torch.cat([s.second + n for s, n in zip(structures, atoms_before, strict=False)]),
    )


def atoms_to_structures(atoms: ase.Atoms, cutoff: float | None) -> Structures:
    """A batch of one structure without labels, for prediction.

    The calculator attached to the atoms, if any, is not looked at.

    Parameters
    ----------
    atoms : ase.Atoms
    cutoff : float, Å, or None
        None leaves the neighbour list empty.

    Returns
    -------
    Structures

    Raises
    ------
    ValueError
        If positions or cell are not finite or a periodic cell is singular.
    """
    positions = np.array(atoms.positions, dtype=np.float64)
    cell = np.array(atoms.cell, dtype=np.float64)
    n_atoms = len(positions)
    first, second, offset = (
        (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))
        if cutoff is None
        else neighbor_pairs(positions, cell, atoms.pbc, cutoff)
    )
    return Structures(
        positions=torch.from_numpy(positions),
        numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
        cell=torch.from_numpy(cell)[None],
        structure=torch.zeros(n_atoms, dtype=torch.int64),
        first=torch.from_numpy(first),
        second=torch.from_numpy(second),
        offset=torch.from_numpy(offset),
        volume=torch.tensor([_volume(cell, atoms.pbc)], dtype=torch.float64),
        energy=torch.zeros(1, dtype=torch.float64),
        forces=torch.zeros(n_atoms, 3, dtype=torch.float64),
        stress=torch.zeros(1, 3, 3, dtype=torch.float64),
        has_energy=torch.zeros(1, dtype=torch.bool),
        has_forces=torch.zeros(n_atoms, dtype=torch.bool),
        has_stress=torch.zeros(1, dtype=torch.bool),
        weight=torch.ones(1, dtype=torch.float64),
    )


class StructureDataset:
    """Structures with energies, forces and stresses, ready to be made into batches.

    Neighbour lists are computed when a structure is first asked for and kept in compact form; subsets share them.

    Parameters
    ----------
    structures : sequence of ase.Atoms, or path
        Paths are read as by `read_structures`.
    cutoff : float, Å, or None
        Radius of the neighbour lists; None leaves them empty until `with_cutoff`.
    energy_key, forces_key, stress_key, virial_key, weight_key : str or None
        As in `read_structures`. With ``energy_key=None, forces_key=None`` the structures need no labels.
    energy_unit, length_unit : str or None
        As in `read_structures`.
    index : slice or None
        Which structures to take.

    Raises
    ------
    ValueError
        Naming file, frame and field, if a structure or a label is wrong, or no structure has an energy or forces.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> copper = bulk("Cu", cubic=True)
    >>> copper.calc = EMT()
    >>> _ = copper.get_potential_energy(), copper.get_forces()
    >>> StructureDataset([copper], cutoff=4.0)
    StructureDataset: 1 structure, 4 atoms (Cu), periodic; 1 with energy, 1 with forces, 1 with stress; cutoff 4.0 Å
    """

    def __init__(
        self,
        structures: Sequence[ase.Atoms] | str | os.PathLike[str],
        *,
        cutoff: float | None = None,
        energy_key: str | None = "energy",
        forces_key: str | None = "forces",
        stress_key: str | None = "stress",
        virial_key: str | None = None,
        weight_key: str | None = "weight",
        energy_unit: str | None = None,
        length_unit: str | None = None,
        index: slice | None = None,
    ) -> None:
        keys = LabelKeys(energy_key, forces_key, stress_key, virial_key, weight_key)
        if isinstance(structures, (str, os.PathLike)):
            frames = read_frames(structures, keys, energy_unit=energy_unit, length_unit=length_unit, index=index)
        else:
            listed = _list_of_atoms(structures)
            chosen = range(len(listed))[slice(None) if index is None else index]
            frames = label_frames(
                ((f"structures[{k}]", listed[k]) for k in chosen),
                keys,
                energy_unit=energy_unit,
                length_unit=length_unit,
            )
        if not frames:
            raise ValueError("structures must hold at least one structure, got none")
        for suspicion in suspicions(frames):
            warnings.warn(f"{file_of(frames[0].source)}: {suspicion}", stacklevel=2)
        self._store = _Store(frames)
        self._chosen: list[int] = list(range(len(frames)))
        self._set_cutoff(cutoff)

    def _set_cutoff(self, cutoff: float | None) -> None:
        if cutoff is not None and not (np.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive length in Å, got {cutoff}")
        self._cutoff = cutoff
        self._pairs: list[_Pairs | None] = [None] * len(self._store.sources)

    @property
    def cutoff(self) -> float | None:
        """Radius of the neighbour lists in Å, None if they are empty."""
        return self._cutoff

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        found: set[int] = set()
        for k in self._chosen:
            found.update(self._store.numbers[self._store.atoms_of(k)].unique().tolist())
        return sorted(found)

    @property
    def sources(self) -> list[str]:
        """``file:frame`` of every structure, frames counted from 0; ``structures[k]`` for lists."""
        return [self._store.sources[k] for k in self._chosen]

    @property
    def groups(self) -> list[str]:
        """``info["group"]`` of every structure (or ``config_type``, or ``system``); empty where there is none."""
        return [group_of(self._store.infos[k]) for k in self._chosen]

    @property
    def atoms(self) -> list[ase.Atoms]:
        """Fresh `ase.Atoms` of every structure, with the labels as calculator results."""
        return [labelled_atoms(self._store.frame(k)) for k in self._chosen]

    @property
    def hash(self) -> str:
        """SHA-256 of geometry, labels and weights in their order, whatever file or cutoff they came with."""
        digest = hashlib.sha256(b"molml structures 1")
        for k in self._chosen:
            self._store.feed(digest, k)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: SupportsIndex) -> Structures:
        """One structure as a batch.

        Raises
        ------
        IndexError
            If there is no such structure.
        """
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index must lie in 0…{len(self) - 1}, got {position}")
        k = self._chosen[position]
        pairs = self._pairs[k]
        if pairs is None:
            pairs = self._pairs[k] = self._store.pairs(k, self._cutoff)
        return self._store.structures(k, pairs)

    @staticmethod
    def collate(structures: Sequence[Structures]) -> Structures:
        """`collate`, where a `Trainer` looks for it."""
        return collate(structures)

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> StructureDataset:
        """Some of the structures, sharing memory and neighbour lists with this data set.

        Parameters
        ----------
        indices : sequence of int
            In the order wanted.

        Raises
        ------
        IndexError
            If there is no such structure.
        ValueError
            If there are no indices.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size == 0:
            raise ValueError("indices must name at least one structure, got none")
        outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
        if outside.size:
            raise IndexError(f"indices must lie in 0…{len(self) - 1}, got {outside[0]}")
        part = self._twin()
        part._chosen = [self._chosen[k] for k in wanted.tolist()]
        return part

    def split(self, fraction: float, seed: int) -> tuple[StructureDataset, StructureDataset]:
        """Two disjoint random parts, each in the original order.

        Parameters
        ----------
        fraction : float
            Share of the second part, rounded to whole structures; both parts have at least one.
        seed : int

        Returns
        -------
        rest, part : StructureDataset

        Raises
        ------
        ValueError
            If `fraction` is not between 0 and 1 or there are fewer than two structures.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        if len(self) < 2:
            raise ValueError("a data set needs at least two structures to be split, got 1")
        size = min(max(round(fraction * len(self)), 1), len(self) - 1)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.subset(np.sort(order[size:])), self.subset(np.sort(order[:size]))

    def with_cutoff(self, cutoff: float | None) -> StructureDataset:
        """The same structures with neighbour lists of another radius.

        Parameters
        ----------
        cutoff : float, Å, or None
        """
        twin = self._twin()
        if cutoff != self._cutoff:
            twin._set_cutoff(cutoff)
        return twin

    def _twin(self) -> StructureDataset:
        twin = object.__new__(StructureDataset)
        twin.__dict__.update(self.__dict__)
        return twin

    def _summary(self) -> list[tuple[str, str]]:
        store, chosen = self._store, torch.tensor(self._chosen)
        counts = store.start[chosen + 1] - store.start[chosen]
        periodic = Counter(int(row.sum()) for row in store.pbc[chosen])
        shapes = {0: "molecules", 1: "wires", 2: "slabs", 3: "periodic"}
        rows = [
            ("structures", str(len(self))),
            ("atoms", f"{int(counts.sum())} ({', '.join(ase.data.chemical_symbols[z] for z in self.elements)})"),
            ("boundaries", ", ".join(shapes[n] for n in sorted(periodic, reverse=True))),
            ("with energy", str(int(store.has_energy[chosen].sum()))),
            ("with forces", str(int(store.has_forces[chosen].sum()))),
            ("with stress", str(int(store.has_stress[chosen].sum()))),
            ("cutoff", "none" if self._cutoff is None else f"{self._cutoff} Å"),
        ]
        groups = Counter(self.groups)
        if set(groups) != {""}:
            shown = [f"{name or 'none'} {n}" for name, n in groups.most_common(GROUPS_SHOWN)]
            rows.append(("groups", ", ".join(shown) + ", …" * (len(groups) > GROUPS_SHOWN)))
        return rows

    def __repr__(self) -> str:
        rows = dict(self._summary())
        atoms, elements = rows["atoms"].split(" ", 1)
        text = (
            f"StructureDataset: {len(self)} structure{'s' if len(self) > 1 else ''}, {atoms} atoms {elements}, "
            f"{rows['boundaries']}; {rows['with energy']} with energy, {rows['with forces']} with forces, "
            f"{rows['with stress']} with stress; cutoff {rows['cutoff']}"
        )
        return text + (f"; groups: {rows['groups']}" if "groups" in rows else "")

    def _repr_html_(self) -> str:
        body = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._summary()
        )
        return f"<table><caption>StructureDataset</caption>{body}</table>"


class _Pairs(NamedTuple):
    """A neighbour list at a quarter of its size: `first` follows from how many pairs each atom has."""

    counts: Tensor
    second: Tensor
    shift: Tensor


class _Store:
    """All structures in a few flat tensors; atoms of structure k are rows start[k] to start[k + 1]."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.sources = [frame.source for frame in frames]
        self.infos = [frame.atoms.info for frame in frames]
        self.start = torch.tensor([0, *accumulate(len(frame.atoms) for frame in frames)])
        self.numbers = torch.from_numpy(np.concatenate([frame.atoms.numbers for frame in frames]).astype(np.int64))
        self.positions = torch.from_numpy(np.concatenate([frame.atoms.positions for frame in frames]))
        self.cell = torch.from_numpy(np.stack([np.asarray(frame.atoms.cell, np.float64) for frame in frames]))
        self.pbc = torch.from_numpy(np.stack([frame.atoms.pbc for frame in frames]))
        self.volume = torch.tensor(
            [_volume(np.asarray(frame.atoms.cell), frame.atoms.pbc) for frame in frames], dtype=torch.float64
        )
        self.energy = torch.tensor([frame.energy or 0.0 for frame in frames], dtype=torch.float64)
        self.forces = torch.from_numpy(
            np.concatenate([np.zeros((len(f.atoms), 3)) if f.forces is None else f.forces for f in frames])
        )
        stresses = [frame.stress if frame.atoms.pbc.all() else None for frame in frames]
        self.stress = torch.from_numpy(np.stack([np.zeros((3, 3)) if s is None else s for s in stresses]))
        self.weight = torch.tensor([frame.weight for frame in frames], dtype=torch.float64)
        self.has_energy = torch.tensor([frame.energy is not None for frame in frames])
        self.has_forces = torch.tensor([frame.forces is not None for frame in frames])
        self.has_stress = torch.tensor([stress is not None for stress in stresses])

    def atoms_of(self, k: int) -> slice:
        return slice(int(self.start[k]), int(self.start[k + 1]))

    def pairs(self, k: int, cutoff: float | None) -> _Pairs:
        rows = self.atoms_of(k)
        if cutoff is None:
            first, second, shift = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int32)
        else:
            first, second, shift = neighbor_shifts(
                self.positions[rows].numpy(), self.cell[k].numpy(), self.pbc[k].numpy(), cutoff
            )
        small = np.abs(shift).max(initial=0) < 128
        return _Pairs(
            torch.from_numpy(np.bincount(first, minlength=rows.stop - rows.start).astype(np.int64)),
            torch.from_numpy(second.astype(np.int32)),
            torch.from_numpy(shift.astype(np.int8) if small else shift),
        )

    def structures(self, k: int, pairs: _Pairs) -> Structures:
        rows = self.atoms_of(k)
        n_atoms = rows.stop - rows.start
        one = slice(k, k + 1)
        return Structures(
            positions=self.positions[rows],
            numbers=self.numbers[rows],
            cell=self.cell[one],
            structure=torch.zeros(n_atoms, dtype=torch.int64),
            first=torch.repeat_interleave(pairs.counts),
            second=pairs.second.long(),
            offset=pairs.shift.double() @ self.cell[k],
            volume=self.volume[one],
            energy=self.energy[one],
            forces=self.forces[rows],
            stress=self.stress[one],
            has_energy=self.has_energy[one],
            has_forces=self.has_forces[one].expand(n_atoms),
            has_stress=self.has_stress[one],
            weight=self.weight[one],
        )

    def frame(self, k: int) -> Frame:
        rows = self.atoms_of(k)
        atoms = ase.Atoms(
            self.numbers[rows].numpy(),
            positions=self.positions[rows].numpy(),
            cell=self.cell[k].numpy(),
            pbc=self.pbc[k].numpy(),
            info=dict(self.infos[k]),
        )
        return Frame(
            atoms=atoms,
            source=self.sources[k],
            energy=float(self.energy[k]) if self.has_energy[k] else None,
            forces=self.forces[rows].numpy() if self.has_forces[k] else None,
            stress=self.stress[k].numpy() if self.has_stress[k] else None,
            weight=float(self.weight[k]),
            closest=np.inf,
        )

    def feed(self, digest: hashlib._Hash, k: int) -> None:
        rows = self.atoms_of(k)
        flags = [int(mask[k]) for mask in (self.has_energy, self.has_forces, self.has_stress)]
        digest.update(np.array([rows.stop - rows.start, *flags, *self.pbc[k].tolist()], "<i8").tobytes())
        digest.update(self.numbers[rows].numpy().astype("<i8").tobytes())
        for field in (
            self.positions[rows],
            self.cell[k],
            self.energy[k],
            self.forces[rows],
            self.stress[k],
            self.weight[k],
        ):
            # adding zero turns -0.0, which some formats lose, into 0.0
            digest.update((field.numpy() + 0.0).astype("<f8").tobytes())


def _list_of_atoms(structures: object) -> list[ase.Atoms]:
    if isinstance(structures, Sequence) and all(isinstance(atoms, ase.Atoms) for atoms in structures):
        return list(structures)
    raise TypeError(
        f"structures must be a path or a list of ase.Atoms, got {type(structures).__name__}; a single structure goes "
        "into a list: [atoms]"
    )


def _volume(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> float:
    return float(abs(np.linalg.det(cell))) if pbc.all() else 0.0
