"""Substructures that nobody wants in a drug: medicinal-chemistry filters (MCF), PAINS, structural alerts."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, final

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

ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
"""Each has classes of its own, by aromaticity and positive charge; all other elements share theirs."""
N_CLASSES = 4 * (len(ELEMENTS) + 1)
# class = 4 · place of the element + 2 · aromatic + positive
_ELEMENT, _AROMATIC, _POSITIVE = np.indices((len(ELEMENTS) + 1, 2, 2)).reshape(3, -1)
SYMBOLS = {"C": 6, "N": 7, "O": 8, "S": 16, "F": 9, "Cl": 17, "Br": 35, "I": 53, "P": 15}
N_KINDS = 5
"""Of bonds: single, aromatic, double, triple, others."""
KINDS = {"-": 0, ":": 1, "=": 2, "#": 3}
# twice the bond order of RDKit's adjacency matrix → kind
_KIND_OF = np.array([4, 4, 0, 1, 2, 4, 3, 4, 4])


def pains(path: Path | None = None) -> list[str]:
    """SMARTS of the 480 pan-assay interference compounds, for molecules with explicit hydrogens.

    Parameters
    ----------
    path : Path, optional
        MOSES' file of them. If not given, RDKit's, which has been mended since MOSES took its copy; of 30,000
        generated drug-like molecules they judge 7 differently.

    References
    ----------
    Baell, Holloway, J. Med. Chem. 53, 2719 (2010).
    """
    path = Path(RDConfig.RDDataDir, "Pains", "wehi_pains.csv") if path is None else path
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.rpartition(",")[0].strip().strip('"') for line in lines]


@final
class Bonds:
    """What a molecule's atoms are, and what its bonds join: all that screening needs to know of it.

    Parameters
    ----------
    molecule : Mol
    """

    def __init__(self, molecule: Chem.Mol) -> None:
        # by number: iterating over RDKit's atoms takes twice as long
        atoms = np.array([_class_of(molecule.GetAtomWithIdx(i)) for i in range(molecule.GetNumAtoms())], dtype=np.int64)
        orders = np.triu(Chem.GetAdjacencyMatrix(molecule, useBO=True))
        first, second = np.nonzero(orders)
        kinds = _KIND_OF[np.minimum(2.0 * orders[first, second], len(_KIND_OF) - 1).astype(np.int64)]
        self.codes = np.concatenate([atoms, N_CLASSES + (atoms[first] * N_CLASSES + atoms[second]) * N_KINDS + kinds])
        """Number of every atom and every bond in the order of `_Need.table`."""


def _class_of(atom: Chem.Atom) -> int:
    element = _PLACES.get(atom.GetAtomicNum(), len(ELEMENTS))
    return 4 * element + 2 * atom.GetIsAromatic() + (atom.GetFormalCharge() > 0)


_PLACES = {element: place for place, element in enumerate(ELEMENTS)}


class _Need(NamedTuple):
    """An atom or a bond that a pattern needs: sets, as bits, of possible classes of the ends and kinds of the bond.

    An atom has neither a second end nor a kind.
    """

    first: int
    second: int
    kinds: int

    def serves(self, other: _Need) -> bool:
        """Whether all that meets this need meets the other one."""
        if bool(self.kinds) != bool(other.kinds) or self.kinds & ~other.kinds:
            return False
        straight = not (self.first & ~other.first or self.second & ~other.second)
        return straight or not (self.first & ~other.second or self.second & ~other.first)

    def table(self) -> np.ndarray:
        """For every atom's class, and then for every bond, whether it meets the need."""
        first, second = (np.array([ends >> i & 1 for i in range(N_CLASSES)], dtype=bool) for ends in self[:2])
        kinds = np.array([self.kinds >> i & 1 for i in range(N_KINDS)], dtype=bool)
        bonds = (first[:, None] & second | second[:, None] & first)[..., None] & kinds
        return np.concatenate([first if not self.kinds else np.zeros_like(first), bonds.ravel()])


@final
class Screen:
    """Substructure patterns, and what a molecule must have at the least to contain one of them.

    A pattern is looked for only if the molecule has enough atoms and bonds of every sort that the pattern is sure to
    need; that spares most searches and changes no answer.

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
        distinct = sorted({need for own in needs for need in own})
        # a match maps no two atoms and no two bonds on one, so numbers count
        self._least = np.array([[sum(need.serves(key) for need in own) for key in distinct] for own in needs])
        self._table = np.stack([key.table() for key in distinct], axis=1).astype(np.int16)

    def candidates(self, bonds: Bonds) -> list[Chem.Mol]:
        """Patterns that the molecule may contain."""
        counts = self._table[bonds.codes].sum(axis=0)
        return [self.patterns[i] for i in np.flatnonzero((counts >= self._least).all(axis=1))]

    def any(self, molecule: Chem.Mol, bonds: Bonds) -> bool:
        """Whether the molecule contains any of the patterns."""
        return any(molecule.HasSubstructMatch(pattern) for pattern in self.candidates(bonds))

    def count(self, molecule: Chem.Mol, bonds: Bonds) -> int:
        """How many of the patterns the molecule contains."""
        return sum(molecule.HasSubstructMatch(pattern) for pattern in self.candidates(bonds))


def _needs(pattern: Chem.Mol) -> list[_Need]:
    ends = [_bits(_possible(atom.GetSmarts())) for atom in pattern.GetAtoms()]
    needs = [_Need(end, end, 0) for end in ends]
    for bond in pattern.GetBonds():
        kinds = _possible_kinds(bond.GetSmarts())  # type: ignore[call-arg]  # RDKit's stub counts self
        first, second = sorted((ends[bond.GetBeginAtomIdx()], ends[bond.GetEndAtomIdx()]))
        needs.append(_Need(first, second, kinds))
    return needs


def _bits(flags: np.ndarray) -> int:
    return sum(1 << int(i) for i in np.flatnonzero(flags))


def _possible(smarts: str) -> np.ndarray:
    """Classes that an atom's SMARTS does not exclude; whatever else it asks for may be or not be."""
    smarts = smarts.removeprefix("[").removesuffix("]")
    inner = re.compile(r"\([^()]*\)")
    while inner.search(smarts):
        smarts = inner.sub("", smarts)
    possible = np.ones(N_CLASSES, dtype=bool)
    for clause in smarts.split(";"):
        alternatives = [
            np.logical_and.reduce([_may_be(text) for text in part.split("&")]) for part in clause.split(",")
        ]
        possible &= np.logical_or.reduce(alternatives)
    return possible


def _may_be(text: str) -> np.ndarray:
    """Classes for which a primitive of SMARTS, or its negation, may hold."""
    wanted = text.removeprefix("!")
    symbol = wanted[:1].upper() + wanted[1:]
    if re.fullmatch(r"#\d+", wanted):
        sure = possible = _ELEMENT == _PLACES.get(int(wanted[1:]), len(ELEMENTS))
        if int(wanted[1:]) not in _PLACES:
            sure = np.zeros(N_CLASSES, dtype=bool)
    elif symbol in SYMBOLS and wanted not in ("cl", "br", "i", "f"):
        sure = possible = (_ELEMENT == _PLACES[SYMBOLS[symbol]]) & (_AROMATIC == wanted.islower())
    elif wanted in ("+", "+1"):
        sure, possible = np.zeros(N_CLASSES, dtype=bool), _POSITIVE == 1
    else:
        sure, possible = np.zeros(N_CLASSES, dtype=bool), np.ones(N_CLASSES, dtype=bool)
    return possible if wanted == text else ~sure


def _possible_kinds(smarts: str) -> int:
    """Kinds that a bond's SMARTS does not exclude, as bits; nothing written means single or aromatic."""
    kinds = 0
    for part in (smarts or "-,:").split(","):
        first = part.split("&")[0]
        kinds |= 1 << KINDS[first] if first in KINDS else (1 << N_KINDS) - 1
    return kinds


@functools.cache
def _unwanted(path: Path | None) -> Screen:
    patterns = [Chem.MolFromSmarts(smarts) for smarts in [*PATTERNS_MCF, *pains(path)]]
    if None in patterns:
        raise ValueError(f"{path} holds something that is no SMARTS; install molsets again")
    return Screen(patterns)


def passes_filters(molecule: Chem.Mol, patterns: Path | None = None) -> bool:
    """Whether a molecule passes MOSES' filters.

    It has no ring of more than seven atoms, no charged atom, no element but H, C, N, O, F, S, Cl, Br, and none of the
    MCF and PAINS substructures.

    Parameters
    ----------
    molecule : Mol
    patterns : Path, optional
        As in :func:`pains`.

    Raises
    ------
    ValueError
        If the file holds something that is no SMARTS.

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
    return not _unwanted(patterns).any(whole, Bonds(whole))
