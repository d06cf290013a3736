"""Substructures that nobody wants in a drug: medicinal-chemistry filters (MCF), PAINS, structural alerts."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from rdkit import Chem, RDConfig

__all__ = ["PATTERNS_MCF", "Bonds", "Screen", "pains", "passes_filters"]

# Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020); as published with MOSES, MIT licence
PATTERNS_MCF = """
[#6]=&!@[#6]-[#6]#[#7]
[#6]=&!@[#6]-[#16](=[#8])=[#8]
[#6]=&!@[#6&!H0]-&!@[#6](=[#8])-&!@[#7]
[H]C([H])([#6])[F,Cl,Br,I]
[#6]1-[#8]-[#6]-1
[#6]-[#7]=[#6]=[#8]
[#6&!H0]=[#8]
[#6](=&!@[#7&!H0])-&!@[#6,#7,#8,#16]
[#6]1-[#7]-[#6]-1
[#6]~&!@[#7]~&!@[#7]~&!@[#6]
[#7]=&!@[#7]
[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#8]-1
[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#16]-1
[#17,#35,#53]-c(:*):[!#1!#6]:*
[H][#7]([H])-[#6]-1=[#6]-[#6]=[#6]-[#6]=[#6]-1
[#16]~[#16]
[#7]~&!@[#7]~&!@[#7]
[#7]-&!@[#6&!H0&!H1]-&!@[#7]
[#6&!H0](-&!@[#8])-&!@[#8]
[#35].[#35].[#35]
[#17].[#17].[#17].[#17]
[#9].[#9].[#9].[#9].[#9].[#9].[#9]
""".split()

ALLOWED = frozenset({1, 6, 7, 8, 9, 16, 17, 35})
"""H, C, N, O, F, S, Cl, Br."""
LONGEST_RING = 7

# every element has a number of its own up to here, all heavier ones share the last
N_ELEMENTS = 54
ORDERS = {1.0: 0, 1.5: 1, 2.0: 2, 3.0: 3}
"""Bond orders as RDKit's adjacency matrix gives them: single, aromatic, double, triple."""
KINDS = {"-": 0, ":": 1, "=": 2, "#": 3}
ANY = len(ORDERS)
SYMBOLS = {"C": 6, "N": 7, "O": 8, "S": 16, "F": 9, "Cl": 17, "Br": 35, "I": 53, "P": 15} | {
    "c": 6,
    "n": 7,
    "o": 8,
    "s": 16,
    "p": 15,
}


def pains() -> list[str]:
    """SMARTS of the 480 pan-assay interference compounds of RDKit, for molecules with explicit hydrogens.

    References
    ----------
    Baell, Holloway, J. Med. Chem. 53, 2719 (2010).
    """
    lines = Path(RDConfig.RDDataDir, "Pains", "wehi_pains.csv").read_text(encoding="utf-8").splitlines()
    return [line.rpartition(",")[0].strip().strip('"') for line in lines]


@final
class Bonds:
    """How many atoms of each element a molecule has, and how many bonds of each kind between each two elements.

    Parameters
    ----------
    molecule : Mol
    """

    def __init__(self, molecule: Chem.Mol) -> None:
        elements = np.array([min(atom.GetAtomicNum(), N_ELEMENTS) for atom in molecule.GetAtoms()], dtype=np.int64)
        orders = np.triu(Chem.GetAdjacencyMatrix(molecule, useBO=True))
        first, second = np.nonzero(orders)
        pairs = _pair(elements[first], elements[second])
        kinds = _KIND_OF[(2.0 * orders[first, second]).astype(np.int64)]
        self.keys = np.concatenate([elements, _key(pairs, kinds), _key(pairs, ANY)])


# twice the order → kind; orders without a kind of their own (dative, zero) count as bonds of any kind only
_KIND_OF = np.full(16, ANY + 1)
for _order, _kind in ORDERS.items():
    _KIND_OF[int(2 * _order)] = _kind


def _pair(first: Any, second: Any) -> Any:
    return np.minimum(first, second) * (N_ELEMENTS + 1) + np.maximum(first, second)


def _key(pairs: Any, kinds: Any) -> Any:
    return (N_ELEMENTS + 1) + pairs * (ANY + 2) + kinds


@final
class Screen:
    """Substructure patterns, and what a molecule must have at the least to contain one of them.

    A pattern is looked for only if the molecule has as many atoms of every element and bonds of every kind as the
    pattern is sure to need; that spares nine searches of ten and changes no answer.

    Parameters
    ----------
    patterns : sequence of Mol
        Made of SMARTS.

    Raises
    ------
    ValueError
        For none.
    """

    def __init__(self, patterns: Sequence[Chem.Mol]) -> None:
        if not patterns:
            raise ValueError("a screen needs at least one pattern, got none")
        self.patterns = list(patterns)
        needs = [_needs(pattern) for pattern in self.patterns]
        keys = sorted({key for need in needs for key in need})
        self._column = np.full(_key(_pair(N_ELEMENTS, N_ELEMENTS), ANY + 1) + 1, len(keys), dtype=np.int64)
        self._column[keys] = np.arange(len(keys))
        self._needs = np.zeros((len(self.patterns), len(keys)), dtype=np.int64)
        for row, need in zip(self._needs, needs, strict=True):
            for key, count in need.items():
                row[self._column[key]] = count

    def candidates(self, bonds: Bonds) -> list[Chem.Mol]:
        """Patterns that the molecule may contain."""
        counts = np.bincount(self._column[bonds.keys], minlength=self._needs.shape[1] + 1)[:-1]
        return [self.patterns[i] for i in np.flatnonzero((counts >= self._needs).all(axis=1))]

    def any(self, molecule: Chem.Mol, bonds: Bonds) -> bool:
        """Whether the molecule contains any of the patterns."""
        return any(molecule.HasSubstructMatch(pattern) for pattern in self.candidates(bonds))

    def count(self, molecule: Chem.Mol, bonds: Bonds) -> int:
        """How many of the patterns the molecule contains."""
        return sum(molecule.HasSubstructMatch(pattern) for pattern in self.candidates(bonds))


def _needs(pattern: Chem.Mol) -> dict[int, int]:
    """Keys of the atoms and bonds that every match has, with their numbers; a match maps no two of them on one."""
    needs: dict[int, int] = {}
    elements = [_element(atom.GetSmarts()) for atom in pattern.GetAtoms()]
    keys = [element for element in elements if element is not None]
    for bond in pattern.GetBonds():
        ends = elements[bond.GetBeginAtomIdx()], elements[bond.GetEndAtomIdx()]
        if None not in ends:
            pair = int(_pair(*ends))
            keys.append(_key(pair, ANY))
            # "-", "-&!@" but not "-,:"
            text = bond.GetSmarts()  # type: ignore[call-arg]  # RDKit's stub counts self
            if "," not in text and text[:1] in KINDS and text[1:2] in ("", "&", ";"):
                keys.append(_key(pair, KINDS[text[0]]))
    for key in keys:
        needs[key] = needs.get(key, 0) + 1
    return needs


def _element(smarts: str) -> int | None:
    """Element that an atom's SMARTS leaves no choice of."""
    smarts = smarts.strip("[]")
    inner = re.compile(r"\([^()]*\)")
    while inner.search(smarts):
        smarts = inner.sub("", smarts)
    for alternatives in smarts.split(";"):
        for text in alternatives.split("&") if "," not in alternatives else []:
            element = int(text[1:]) if re.fullmatch(r"#\d+", text) else SYMBOLS.get(text)
            if element is not None:
                return min(element, N_ELEMENTS)
    return None


@functools.cache
def _unwanted() -> Screen:
    return Screen([Chem.MolFromSmarts(smarts) for smarts in [*PATTERNS_MCF, *pains()]])


def passes_filters(molecule: Chem.Mol) -> bool:
    """Whether a molecule passes MOSES' filters.

    It has no ring of more than seven atoms, no charged atom, no element but H, C, N, O, F, S, Cl, Br, and none of the
    MCF and PAINS substructures.

    Parameters
    ----------
    molecule : Mol

    References
    ----------
    Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020).

    Examples
    --------
    >>> from rdkit import Chem
    >>> [passes_filters(Chem.MolFromSmiles(s)) for s in ("CC(=O)Nc1ccccc1", "CC=O", "C1CCCCCCC1", "C[N+](C)(C)C")]
    [True, False, False, False]
    """
    if any(len(ring) > LONGEST_RING for ring in molecule.GetRingInfo().AtomRings()):
        return False
    if any(atom.GetFormalCharge() or atom.GetAtomicNum() not in ALLOWED for atom in molecule.GetAtoms()):
        return False
    whole = Chem.AddHs(molecule)
    return not _unwanted().any(whole, Bonds(whole))
