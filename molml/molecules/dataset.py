"""Molecules as tokens and graphs, prepared once, and batches of nearly equal length."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from molml.molecules.data import as_molecules
from molml.molecules.features import GraphFeatures
from molml.molecules.tokens import Tokenizer, split_smiles

ATOM_SIZES = (*GraphFeatures.atom_sizes, 9)
BOND_SIZES = GraphFeatures.bond_sizes
"""Categories of the columns of a data set's graphs."""


class Graphs(NamedTuple):
    """Molecular graphs with the atoms in the order of the canonical SMILES, one graph after the other.

    Attributes
    ----------
    atoms : shape (n_atoms, 9)
        Those of `GraphBatch`, then RDKit's chiral tag. Relative to this order of the atoms it says whether the SMILES
        has @ or @@, which R and S do not tell without the rules of Cahn, Ingold and Prelog.
    places : shape (n_atoms,)
        Symbol of the canonical SMILES, from 0, that is the atom.
    bonds : shape (n_bonds, 4)
        Those of `GraphBatch`.
    ends : shape (n_bonds, 2)
        Atoms of every bond, numbered through a batch; within each molecule in a data set.
    atom_counts, bond_counts : shape (n,)
    """

    atoms: Any
    places: Any
    bonds: Any
    ends: Any
    atom_counts: Any
    bond_counts: Any


class MoleculeBatch(NamedTuple):
    """Molecules as a model reads them.

    Attributes
    ----------
    tokens : Tensor, shape (n, 1 + longest), int64
        Start, the tokens of the string, end, padding.
    graph : Graphs of Tensors, int64, or None
    properties : Tensor, shape (n, n_properties), float32
        NaN where unknown.
    read : MoleculeBatch, optional
        The same molecules spelled another way, for the encoder to read in training.
    """

    tokens: Tensor
    graph: Graphs | None
    properties: Tensor
    read: MoleculeBatch | None = None


@final
class MoleculeDataset:
    """Molecules as a model reads them, in a few flat arrays.

    Parameters
    ----------
    smiles : sequence of str
        Canonical SMILES. Graphs are made from these, so that the order of the atoms is that of the string.
    tokenizer : Tokenizer
    graphs : bool
        Make graphs, for a model that reads them.
    properties : array, shape (n, n_properties), optional
        NaN where unknown.
    spellings : int
        Randomised SMILES of every molecule, made once. Batches then also hold what the encoder is to read in training:
        one of these or the canonical one, each as likely as the others. Which one depends on a molecule's company in
        the batch and so changes from epoch to epoch, but is the same in a run that is resumed.
    seed : int
        Of the randomised SMILES.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Raises
    ------
    UnknownTokenError
        If a molecule has a token outside the vocabulary.
    ValueError
        If there are no molecules, or not one row of properties for each, or `spellings` is negative.
    """

    def __init__(
        self,
        smiles: Sequence[str],
        tokenizer: Tokenizer,
        *,
        graphs: bool = True,
        properties: np.ndarray | None = None,
        spellings: int = 0,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        if isinstance(spellings, bool) or not isinstance(spellings, int) or spellings < 0:
            raise ValueError(f"spellings must be an integer of at least 0, got {spellings!r}")
        if len(smiles) == 0:
            raise ValueError("smiles must not be empty, got no molecules")
        tokens = tokenizer.encode(smiles)
        self._lengths = np.array([len(row) for row in tokens])
        self._tokens = np.concatenate(tokens)
        self._graphs = _graphs(smiles, progress) if graphs else None
        if properties is None:
            properties = np.zeros((len(smiles), 0))
        if len(properties) != len(smiles):
            raise ValueError(f"properties must have a row per molecule, {len(smiles)}, got {len(properties)}")
        self._properties = np.asarray(properties, np.float32)
        self._chosen = np.arange(len(smiles))
        self._starts = np.cumsum(self._lengths) - self._lengths
        self.spellings, self._spelled = spellings, None
        if spellings:
            strings = _spellings(smiles, tokenizer, spellings, seed, progress)
            self._spelled = MoleculeDataset(strings, tokenizer, graphs=graphs, progress=progress)
        if self._graphs is not None:
            self._atom_starts = np.cumsum(self._graphs.atom_counts) - self._graphs.atom_counts
            self._bond_starts = np.cumsum(self._graphs.bond_counts) - self._graphs.bond_counts

    @property
    def n_tokens(self) -> int:
        """Tokens of all molecules, the ends included."""
        return int(self._lengths[self._chosen].sum())

    def subset(self, indices: Sequence[int] | np.ndarray) -> MoleculeDataset:
        """Data set of these molecules, in this order, which shares its arrays with this one."""
        part = copy.copy(self)
        part._chosen = self._chosen[np.asarray(indices, np.int64)]
        return part

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> int:
        return index

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Items of every batch of an epoch, of equal or neighbouring lengths; in order of length without `rng`."""
        noise = np.arange(len(self)) if rng is None else rng.random(len(self))
        order = np.lexsort((noise, self._lengths[self._chosen]))
        parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        return parts if rng is None else [parts[i] for i in rng.permutation(len(parts))]

    def collate(self, items: list[int]) -> MoleculeBatch:
        chosen = self._chosen[items]
        lengths = self._lengths[chosen]
        tokens = np.zeros((len(chosen), 1 + lengths.max()), np.int64)
        tokens[:, 0] = 1
        rows = np.repeat(np.arange(len(chosen)), lengths)
        inner = _inner(lengths)
        tokens[rows, 1 + inner] = self._tokens[np.repeat(self._starts[chosen], lengths) + inner]
        graph = None
        if self._graphs is not None:
            n_atoms, n_bonds = self._graphs.atom_counts[chosen], self._graphs.bond_counts[chosen]
            atoms = np.repeat(self._atom_starts[chosen], n_atoms) + _inner(n_atoms)
            bonds = np.repeat(self._bond_starts[chosen], n_bonds) + _inner(n_bonds)
            shift = np.repeat(np.cumsum(n_atoms) - n_atoms, n_bonds)
            graph = Graphs(
                *(
                    torch.from_numpy(np.asarray(array, np.int64))
                    for array in (
                        self._graphs.atoms[atoms],
                        self._graphs.places[atoms],
                        self._graphs.bonds[bonds],
                        self._graphs.ends[bonds] + shift[:, None],
                        n_atoms,
                        n_bonds,
                    )
                )
            )
        read = None
        if self._spelled is not None:
            which = np.random.default_rng(np.asarray(items)).integers(1 + self.spellings, size=len(items))
            read = self._spelled.collate((chosen * (1 + self.spellings) + which).tolist())
        return MoleculeBatch(torch.from_numpy(tokens), graph, torch.from_numpy(self._properties[chosen]), read)


def on_device(batch: MoleculeBatch, device: torch.device) -> MoleculeBatch:
    """The batch on another device; the same object if it is there."""
    if batch.tokens.device == device:
        return batch
    graph = None if batch.graph is None else Graphs(*(tensor.to(device) for tensor in batch.graph))
    read = None if batch.read is None else on_device(batch.read, device)
    return MoleculeBatch(batch.tokens.to(device), graph, batch.properties.to(device), read)


def _spellings(
    smiles: Sequence[str], tokenizer: Tokenizer, n: int, seed: int, progress: bool | None, most: int = 2000
) -> list[str]:
    """Every molecule as it is, and in n randomised SMILES whose tokens are known; where there are fewer, repeated."""
    from tqdm import tqdm

    silent = None if progress is None else not progress
    result = []
    for index, text in enumerate(
        tqdm(smiles, desc="spellings", unit=" molecules", disable=len(smiles) <= most or silent)
    ):
        (mol,) = as_molecules(text)
        # RDKit takes seeds from 1 on
        others = Chem.MolToRandomSmilesVect(mol, n, 1 + (seed + 7919 * index) % 2**31)
        known = [other for other in others if not tokenizer.unknown(other)] or [text]
        result += [text, *(known[i % len(known)] for i in range(n))]
    return result


def _graphs(smiles: Sequence[str], progress: bool | None, most: int = 2000) -> Graphs:
    """Graphs of molecules, with atoms numbered within each molecule, made by parts: Mols are large."""
    from tqdm import tqdm

    make, parts = GraphFeatures(), []
    # tqdm's None: only if stderr is a terminal
    silent = None if progress is None else not progress
    with tqdm(total=len(smiles), desc="graphs", unit=" molecules", disable=len(smiles) <= most or silent) as bar:
        for first in range(0, len(smiles), most):
            part = make(smiles[first : first + most])
            shift = np.repeat(np.cumsum(part.atom_counts) - part.atom_counts, part.bond_counts)
            parts.append(
                Graphs(
                    np.hstack([part.atoms, part.atom_details[:, 3:4].astype(np.uint8)]),
                    np.concatenate([_places(text) for text in smiles[first : first + most]]),
                    part.bonds,
                    (part.ends - shift[:, None]).astype(np.int16),
                    part.atom_counts,
                    part.bond_counts,
                )
            )
            bar.update(len(part.atom_counts))
    return Graphs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _places(smiles: str) -> np.ndarray:
    """Which symbols of a SMILES are atoms."""
    return np.array(
        [i for i, symbol in enumerate(split_smiles(smiles)) if symbol[-1].isalpha() or symbol[-1] == "]"], np.int16
    )


def _inner(counts: np.ndarray) -> np.ndarray:
    """0 … count - 1 of every count, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
