"""Molecules as graphs: flat arrays of atoms and bonds, and back."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, final

import numpy as np
from rdkit import Chem, rdBase

from molml.molecules.data import BOND_TYPES, MoleculeError, iterate_molecules

__all__ = ["GraphBatch", "GraphFeatures", "n_molecules", "select", "to_molecules"]

MAX_CHARGE = 8
MAX_HYDROGENS = 15
MAX_RING = 9
_PERMUTATION = "_chiralPermutation"
_CONFIGURATIONS = {"R": 1, "S": 2, "r": 3, "s": 4}
# numbers by table: int() of RDKit's enumerations takes twice as long as all else
_HYBRIDISATIONS = {kind: min(number, 8) for number, kind in Chem.HybridizationType.values.items()}
_TAGS = {tag: number for number, tag in Chem.ChiralType.values.items()}
_STEREO = {stereo: number for number, stereo in Chem.BondStereo.values.items() if number < 6}
_KNOWN_BONDS = {kind: number for number, kind in enumerate(BOND_TYPES)}


class GraphBatch(NamedTuple):
    """Graphs of some molecules, one after the other.

    The columns of `atoms` and `bonds` are categories, numbered from 0, that do not depend on how a molecule was
    written: they are what an encoder reads, all of them. The two arrays of details are for the way back only.

    Attributes
    ----------
    atoms : ndarray of uint8, shape (n_atoms, 8)
        Columns `GraphFeatures.atom_names`.
    bonds : ndarray of uint8, shape (n_bonds, 4)
        Columns `GraphFeatures.bond_names`; each bond once.
    ends : ndarray of int32, shape (n_bonds, 2)
        Atoms of every bond, numbered through the whole batch; a dative bond points from the first to the second.
    atom_counts, bond_counts : ndarray of int32, shape (n,)
        Atoms and bonds of every molecule.
    atom_details : ndarray of int16, shape (n_atoms, 5) or (n_atoms, 0)
        Hydrogens stated explicitly, whether more are forbidden, isotope, RDKit's chiral tag and its permutation.
    bond_details : ndarray of int16, shape (n_bonds, 2) or (n_bonds, 0)
        The two atoms a double bond's configuration refers to, numbered in their molecule, or -1.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    ends: np.ndarray
    atom_counts: np.ndarray
    bond_counts: np.ndarray
    atom_details: np.ndarray
    bond_details: np.ndarray


@final
@dataclass(frozen=True)
class GraphFeatures:
    """Molecules → graphs with categories for every atom and bond.

    Atoms: `element` (atomic number), `charge` (formal charge + 8), `hydrogens` (attached, implicit or explicit, that
    are no atoms of the graph), `radicals` (unpaired electrons), `hybridisation` (RDKit's), `aromatic`, `ring` (0 or
    the size of the smallest ring less 2; rings of 9 and more count as one), `configuration` (none, R, S, r, s).
    Bonds: `type` (single, double, triple, aromatic, quadruple, dative), `conjugated`, `ring`, `stereo` (of double
    bonds; RDKit's: none, any, Z, E, cis, trans).

    Parameters
    ----------
    exact : bool
        Store also what only the way back needs (`to_molecules`); costs half as much memory again.

    Attributes
    ----------
    atom_names, bond_names : tuple of str
        Columns.
    atom_sizes, bond_sizes : tuple of int
        Number of categories of each column, for embeddings.
    names : tuple of str
        All columns, "atom element", …, "bond stereo".
    sizes : tuple of int
        All sizes, in the same order.
    config : dict
        JSON-able; `from_config` makes the same features of it.

    Examples
    --------
    >>> batch = GraphFeatures()(["CCO", "benzene"])
    >>> batch.atom_counts, batch.bond_counts
    (array([3, 6], dtype=int32), array([2, 6], dtype=int32))
    >>> batch.atoms[:3, 0]
    array([6, 6, 8], dtype=uint8)
    >>> [Chem.MolToSmiles(mol) for mol in to_molecules(batch)]
    ['CCO', 'c1ccccc1']
    """

    exact: bool = True

    atom_names = ("element", "charge", "hydrogens", "radicals", "hybridisation", "aromatic", "ring", "configuration")
    atom_sizes = (119, 2 * MAX_CHARGE + 1, MAX_HYDROGENS + 1, 9, 9, 2, MAX_RING - 1, 5)
    bond_names = ("type", "conjugated", "ring", "stereo")
    bond_sizes = (len(BOND_TYPES), 2, 2, 6)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(f"atom {name}" for name in self.atom_names) + tuple(f"bond {name}" for name in self.bond_names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of every column."""
        return self.atom_sizes + self.bond_sizes

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description."""
        return {"exact": self.exact}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GraphFeatures":
        """The features of a `config`."""
        return cls(**config)

    def __call__(self, mols: object) -> GraphBatch:
        """Graphs of molecules.

        Parameters
        ----------
        mols : Mol, str, or iterable of these
            As in `as_molecules`; one after the other, so that a generator may yield millions.

        Returns
        -------
        GraphBatch

        Raises
        ------
        MoleculeError
            If something is no molecule, or has a charge beyond ±8 or more than 15 hydrogens on one atom.
        """
        atoms, bonds, ends = array("B"), array("B"), array("i")
        atom_details, bond_details = array("h"), array("h")
        atom_counts, bond_counts = array("i"), array("i")
        start = 0
        for index, mol in enumerate(iterate_molecules(mols)):
            try:
                _add_atoms(mol, atoms, atom_details, self.exact)
            except _OutOfRangeError as error:
                raise MoleculeError(
                    f"molecules[{index}], {Chem.MolToSmiles(mol)}, has {error}; leave it out"
                ) from error
            _add_bonds(mol, start, bonds, ends, bond_details, self.exact)
            atom_counts.append(mol.GetNumAtoms())
            bond_counts.append(mol.GetNumBonds())
            start += mol.GetNumAtoms()
        n_bonds = len(ends) // 2
        return GraphBatch(
            np.frombuffer(atoms, np.uint8).reshape(start, len(self.atom_names)),
            np.frombuffer(bonds, np.uint8).reshape(n_bonds, len(self.bond_names)),
            np.frombuffer(ends, np.int32).reshape(n_bonds, 2),
            np.frombuffer(atom_counts, np.int32),
            np.frombuffer(bond_counts, np.int32),
            np.frombuffer(atom_details, np.int16).reshape(start, 5 if self.exact else 0),
            np.frombuffer(bond_details, np.int16).reshape(n_bonds, 2 if self.exact else 0),
        )


class _OutOfRangeError(ValueError):
    pass


def _add_atoms(mol: Chem.Mol, atoms: array, details: array, exact: bool) -> None:
    smallest = [0] * mol.GetNumAtoms()
    for ring in mol.GetRingInfo().AtomRings():
        size = min(len(ring), MAX_RING) - 2
        for number in ring:
            smallest[number] = min(smallest[number] or size, size)
    # by number, because iterating over GetAtoms() is eight times slower
    members = [mol.GetAtomWithIdx(number) for number in range(mol.GetNumAtoms())]
    tags = [_TAGS[tag] for tag in map(Chem.Atom.GetChiralTag, members)]
    configurations = [0] * len(members)
    if any(tags):
        Chem.AssignStereochemistry(mol, cleanIt=False, force=True)
        configurations = [
            _CONFIGURATIONS[atom.GetProp("_CIPCode")] if tag and atom.HasProp("_CIPCode") else 0
            for atom, tag in zip(members, tags, strict=True)
        ]
    charges = list(map(Chem.Atom.GetFormalCharge, members))
    hydrogens = list(map(Chem.Atom.GetTotalNumHs, members))
    if charge := next((charge for charge in charges if not -MAX_CHARGE <= charge <= MAX_CHARGE), 0):
        raise _OutOfRangeError(f"an atom of charge {charge:+d}, and at most ±{MAX_CHARGE} are allowed")
    if max(hydrogens) > MAX_HYDROGENS:
        raise _OutOfRangeError(f"an atom with {max(hydrogens)} hydrogens, and at most {MAX_HYDROGENS} are allowed")
    columns = zip(
        map(Chem.Atom.GetAtomicNum, members),
        [charge + MAX_CHARGE for charge in charges],
        hydrogens,
        [min(radicals, 8) for radicals in map(Chem.Atom.GetNumRadicalElectrons, members)],
        [_HYBRIDISATIONS[kind] for kind in map(Chem.Atom.GetHybridization, members)],
        map(Chem.Atom.GetIsAromatic, members),
        smallest,
        configurations,
        strict=True,
    )
    atoms.extend(chain.from_iterable(columns))
    if exact:
        columns = zip(
            map(Chem.Atom.GetNumExplicitHs, members),
            map(Chem.Atom.GetNoImplicit, members),
            map(Chem.Atom.GetIsotope, members),
            tags,
            [
                atom.GetUnsignedProp(_PERMUTATION) if tag and atom.HasProp(_PERMUTATION) else 0
                for atom, tag in zip(members, tags, strict=True)
            ],
            strict=True,
        )
        details.extend(chain.from_iterable(columns))


def _add_bonds(mol: Chem.Mol, start: int, bonds: array, ends: array, details: array, exact: bool) -> None:
    members = [mol.GetBondWithIdx(number) for number in range(mol.GetNumBonds())]
    begin = [start + number for number in map(Chem.Bond.GetBeginAtomIdx, members)]
    end = [start + number for number in map(Chem.Bond.GetEndAtomIdx, members)]
    ends.extend(chain.from_iterable(zip(begin, end, strict=True)))
    kinds = [_KNOWN_BONDS[kind] for kind in map(Chem.Bond.GetBondType, members)]
    # GetStereo() takes longer than all else, and only double bonds have a configuration
    stereo = [_STEREO[bond.GetStereo()] if kind == 1 else 0 for bond, kind in zip(members, kinds, strict=True)]
    columns = zip(kinds, map(Chem.Bond.GetIsConjugated, members), map(Chem.Bond.IsInRing, members), stereo, strict=True)
    bonds.extend(chain.from_iterable(columns))
    if exact:
        for bond, configuration in zip(members, stereo, strict=True):
            details.extend(bond.GetStereoAtoms() if configuration > 1 else (-1, -1))


def n_molecules(batch: GraphBatch) -> int:
    """Number of molecules of a batch."""
    return len(batch.atom_counts)


def select(batch: GraphBatch, indices: Sequence[int] | np.ndarray) -> GraphBatch:
    """Graphs of some of the molecules, in a new order.

    Parameters
    ----------
    batch : GraphBatch
    indices : sequence of int
        Molecules, from 0; one may occur twice.

    Returns
    -------
    GraphBatch

    Raises
    ------
    IndexError
        If an index is out of range.
    """
    chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
    outside = chosen[(chosen < 0) | (chosen >= n_molecules(batch))]
    if outside.size:
        raise IndexError(f"indices must lie in 0…{n_molecules(batch) - 1}, got {outside[0]}")
    atom_counts, bond_counts = batch.atom_counts[chosen], batch.bond_counts[chosen]
    atom_starts, bond_starts = _starts(batch.atom_counts), _starts(batch.bond_counts)
    atoms, bonds = _ranges(atom_starts[chosen], atom_counts), _ranges(bond_starts[chosen], bond_counts)
    shift = (_starts(atom_counts) - atom_starts[chosen]).astype(np.int32)
    return GraphBatch(
        batch.atoms[atoms],
        batch.bonds[bonds],
        batch.ends[bonds] + np.repeat(shift, bond_counts)[:, None],
        atom_counts,
        bond_counts,
        batch.atom_details[atoms],
        batch.bond_details[bonds],
    )


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts, dtype=np.int64) - counts


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All numbers start, start + 1, … of every range, one range after the other."""
    return np.arange(counts.sum()) + np.repeat(starts - _starts(counts), counts)


def to_molecules(batch: GraphBatch) -> list[Chem.Mol]:
    """The molecules of graphs: the very ones they were made of, but for coordinates, names and other labels.

    Parameters
    ----------
    batch : GraphBatch
        Made with `exact`.

    Returns
    -------
    list of rdkit.Chem.Mol
        Sanitised; atoms and bonds in the same order.

    Raises
    ------
    MoleculeError
        If a graph is no molecule: an atom has too many bonds, say.
    ValueError
        If the batch has no details, or its arrays do not fit together.
    """
    if len(batch.atoms) and not batch.atom_details.shape[1]:
        raise ValueError("batch must hold the details, got one made with GraphFeatures(exact=False)")
    owners = np.repeat(np.arange(n_molecules(batch)), batch.bond_counts)
    if not (
        len(batch.atoms) == len(batch.atom_details) == batch.atom_counts.sum()
        and len(batch.bonds) == len(batch.ends) == len(batch.bond_details) == batch.bond_counts.sum()
    ):
        raise ValueError(
            f"batch must hold the {batch.atom_counts.sum()} atoms and {batch.bond_counts.sum()} bonds that are "
            f"counted, got {len(batch.atoms)} and {len(batch.bonds)}"
        )
    ends = batch.ends - _starts(batch.atom_counts)[owners, None]
    if len(ends) and (ends.min() < 0 or (ends >= batch.atom_counts[owners, None]).any()):
        raise ValueError("ends must be atoms of the molecule that has the bond; got a bond between two molecules")
    for what, table, sizes in (
        ("atoms", batch.atoms, GraphFeatures.atom_sizes),
        ("bonds", batch.bonds, GraphFeatures.bond_sizes),
        ("atom_details", batch.atom_details[:, 3:4], (len(Chem.ChiralType.values),)),
    ):
        if table.shape[1] != len(sizes) or (table < 0).any() or (table >= np.array(sizes)).any():
            raise ValueError(f"{what} must be categories of {len(sizes)} columns below {sizes}, got others")
    mols, atom, bond = [], 0, 0
    for index, (n_atoms, n_bonds) in enumerate(zip(batch.atom_counts, batch.bond_counts, strict=True)):
        these, those = slice(atom, atom + n_atoms), slice(bond, bond + n_bonds)
        try:
            mol = _build(
                batch.atoms[these].tolist(),
                batch.atom_details[these].tolist(),
                batch.bonds[those].tolist(),
                ends[those].tolist(),
                batch.bond_details[those].tolist(),
            )
        except (Chem.MolSanitizeException, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MoleculeError(f"graph {index} is no molecule: {reason}") from error
        mols.append(mol)
        atom, bond = atom + n_atoms, bond + n_bonds
    return mols


# aromaticity, hydrogens and radicals are those of the graph: perceiving them anew could find others
_SANITIZE = (
    Chem.SanitizeFlags.SANITIZE_PROPERTIES
    | Chem.SanitizeFlags.SANITIZE_SYMMRINGS
    | Chem.SanitizeFlags.SANITIZE_SETCONJUGATION
    | Chem.SanitizeFlags.SANITIZE_SETHYBRIDIZATION
)


def _build(
    atoms: list[list[int]],
    atom_details: list[list[int]],
    bonds: list[list[int]],
    ends: list[list[int]],
    bond_details: list[list[int]],
) -> Chem.Mol:
    mol = Chem.RWMol()
    for (element, charge, _, radicals, _, aromatic, *_), (explicit, closed, isotope, tag, permutation) in zip(
        atoms, atom_details, strict=True
    ):
        atom = Chem.Atom(element)
        atom.SetFormalCharge(charge - MAX_CHARGE)
        atom.SetNumRadicalElectrons(radicals)
        atom.SetIsAromatic(bool(aromatic))
        atom.SetNumExplicitHs(explicit)
        atom.SetNoImplicit(bool(closed))
        atom.SetIsotope(isotope)
        atom.SetChiralTag(Chem.ChiralType.values[tag])
        if permutation:
            atom.SetUnsignedProp("_chiralPermutation", permutation)
        mol.AddAtom(atom)
    for (kind, *_), (begin, end) in zip(bonds, ends, strict=True):
        mol.AddBond(begin, end, BOND_TYPES[kind])
        mol.GetBondWithIdx(mol.GetNumBonds() - 1).SetIsAromatic(BOND_TYPES[kind] == Chem.BondType.AROMATIC)
    with rdBase.BlockLogs():
        Chem.SanitizeMol(Chem.Mol(mol))
        Chem.SanitizeMol(mol, _SANITIZE)
        _configure(mol, bonds, bond_details)
    return mol.GetMol()


def _configure(mol: Chem.RWMol, bonds: list[list[int]], bond_details: list[list[int]]) -> None:
    stereo = [(number, kind) for number, (_, _, _, kind) in enumerate(bonds) if kind]
    for number, kind in stereo:
        bond, (one, two) = mol.GetBondWithIdx(number), bond_details[number]
        if one >= 0:
            bond.SetStereoAtoms(one, two)
        bond.SetStereo(Chem.BondStereo.values[kind])
    if stereo:
        # RDKit takes a configuration off if no neighbouring bond points up or down
        Chem.SetDoubleBondNeighborDirections(mol)
    # cleanIt, because that alone finds the pairs of atoms that are cis or trans on a ring
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
