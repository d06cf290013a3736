"""Featurizers: molecules as numbers, one column per name.

Every featurizer is made from a topology and selections in mdtraj's language, keeps what it found (atom indices, names)
and needs the topology no more: `config` is JSON-able and `from_config` rebuilds it. It is called with an
`mdtraj.Trajectory` (nm), whose unit cell gives the nearest periodic image, or with an array of positions in Å, which
has none; it gives an array (n_frames, n_features) in Å and radians, in the precision of the positions. Its method
`tensor` is the same in torch, differentiable, of positions in Å and without periodic images: molecules must be whole.
Featurizers are joined by ``+``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol, final

import mdtraj
import numpy as np
from mdtraj.geometry import dihedral

from molml.kinetics import alignment, geometry
from molml.kinetics.geometry import NoValueError

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

HEAVY = "not element H"
TORSIONS = ("phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4", "chi5")
SCHEMES = ("ca", "closest-heavy", "closest")
_MOST_PAIRS = 10_000


class Featurizer(Protocol):
    """What every featurizer has."""

    @property
    def names(self) -> list[str]:
        """One for every column."""
        ...

    @property
    def n_features(self) -> int: ...

    @property
    def n_atoms(self) -> int | None:
        """Atoms of the frames it takes; None if any number."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able; `featurizer_from_config` makes the featurizer of it."""
        ...

    def __call__(self, frames: mdtraj.Trajectory | Array, /) -> Array:
        """Features of every frame.

        Parameters
        ----------
        frames : mdtraj.Trajectory, or array (n_frames, n_atoms, 3) in Å

        Returns
        -------
        array, shape (n_frames, n_features), Å and radians

        Raises
        ------
        ValueError
            If the frames are of other atoms. A `NoValueError`, which knows the frame, if a position is not finite or
            a feature has no value.
        """
        ...

    def tensor(self, positions: Tensor, /) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å, differentiable."""
        ...


def featurizer_from_config(config: Mapping[str, Any]) -> Featurizer:
    """The featurizer that has this `config`.

    Parameters
    ----------
    config : mapping

    Returns
    -------
    Featurizer

    Raises
    ------
    ValueError
        If it is the configuration of no featurizer, or a damaged one.
    """
    kinds: dict[str, Any] = {
        kind.__name__: kind
        for kind in (
            Positions,
            Distances,
            ContactDistances,
            MinimumDistances,
            Angles,
            Torsions,
            ReferenceRMSD,
            Function,
            Concatenation,
        )
    }
    kind = config.get("kind")
    if kind not in kinds:
        raise ValueError(f"config must have a kind, one of {', '.join(kinds)}, got {kind!r}")
    try:
        featurizer: Featurizer = kinds[kind].from_config(config)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"the configuration of {kind} is damaged: {type(error).__name__}: {error}") from error
    return featurizer


# ---- what featurizers share ------------------------------------------------------------------------------------------


def _n_features(self: Featurizer) -> int:
    return len(self.names)


def _config(self: Any) -> dict[str, Any]:
    """JSON-able."""
    return {"kind": type(self).__name__} | {name: _plain(getattr(self, name)) for name in self._stored}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _from_config(cls: Any, config: Mapping[str, Any]) -> Any:
    """Featurizer with this `config`."""
    self = cls.__new__(cls)
    self._setup(*(config[name] for name in cls._stored))
    return self


def _joined(self: Featurizer, other: Featurizer) -> Concatenation:
    return Concatenation(self, other)


# ---- Cartesian coordinates -------------------------------------------------------------------------------------------


@final
class Positions:
    """Positions of atoms after superposition on a reference.

    Parameters
    ----------
    topology : mdtraj.Topology
    selection : str
        Atoms whose positions are taken, in mdtraj's language.
    reference : mdtraj.Trajectory
        Of the same atoms; its first frame is superposed on. Best one of a well populated basin: frames that fit it
        badly may have two rotations that are nearly equally good.
    superposed : str, optional
        Atoms that are superposed; if not given, the selection.

    Raises
    ------
    TypeError, ValueError
        If a selection finds nothing, or topology and reference do not fit.

    Notes
    -----
    Frames with a unit cell must hold whole molecules: a bond across the boundary of the cell is refused.
    """

    def __init__(
        self,
        topology: mdtraj.Topology,
        selection: str = HEAVY,
        *,
        reference: mdtraj.Trajectory,
        superposed: str | None = None,
    ) -> None:
        atoms = _select(topology, selection, "selection")
        fitted = atoms if superposed is None else _select(topology, superposed, "superposed")
        labels = _labels(topology)
        self._setup(
            atoms,
            [labels[i] for i in atoms],
            topology.n_atoms,
            fitted,
            _reference_positions(reference, topology, fitted),
            _bonds(topology, np.union1d(atoms, fitted)),
        )

    def _setup(self, atoms: Any, labels: list[str], n_atoms: int, superposed: Any, reference: Any, bonds: Any) -> None:
        self.n_atoms, self.superposed, self.reference, self.bonds = _superposition(
            n_atoms, superposed, reference, bonds
        )
        """Of the topology; atoms that are superposed; their positions (n, 3) in Å; bonds that must be whole."""
        self.atoms, self.labels = _indices(atoms, self.n_atoms, (len(labels),)), list(labels)
        """Atoms whose positions are taken, int array; their names."""

    _stored = ("atoms", "labels", "n_atoms", "superposed", "reference", "bonds")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined

    @property
    def names(self) -> list[str]:
        """Atom and axis, such as "ALA2-CA x"."""
        return [f"{label} {axis}" for label in self.labels for axis in "xyz"]

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """Aligned positions, (n_frames, 3 n) in Å.

        Raises
        ------
        NoValueError
            If a position is not finite, or a molecule broken; it is a ValueError that knows the frame.
        """
        used, weights, reference, columns = self._problem()
        aligned = alignment.align_positions(_whole(frames, self, used), reference, weights)
        return np.ascontiguousarray(aligned[:, columns]).reshape(len(aligned), self.n_features)

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å; its first derivative is right, its second is not.

        Raises
        ------
        ValueError
            If several rotations are equally good, so that there is no derivative.
        """
        import torch

        _check_tensor(positions, self.n_atoms)
        used, weights, reference, columns = (torch.tensor(array) for array in self._problem())
        aligned = alignment.align_tensor(positions[..., used, :], reference, weights)
        return aligned[..., columns, :].flatten(-2)

    def _problem(self) -> tuple[Array, Array, Array, Array]:
        """Atoms that take part, weights and reference of them, and where among them those of the columns are."""
        used = np.union1d(self.atoms, self.superposed)
        weights, reference = np.zeros(len(used)), np.zeros((len(used), 3))
        place = np.searchsorted(used, self.superposed)
        weights[place], reference[place] = 1.0, self.reference
        return used, weights, reference, np.searchsorted(used, self.atoms)

    def __repr__(self) -> str:
        return f"Positions({len(self.atoms)} of {self.n_atoms} atoms)"


@final
class ReferenceRMSD:
    """Root mean square deviation from a reference structure, after superposition on it.

    Parameters
    ----------
    topology : mdtraj.Topology
    selection : str
        Atoms that are superposed and compared.
    reference : mdtraj.Trajectory
        Of the same atoms; its first frame counts.
    name : str
        Of the column.

    Raises
    ------
    TypeError, ValueError
        If the selection finds nothing, or topology and reference do not fit.

    Notes
    -----
    Frames with a unit cell must hold whole molecules, as for `Positions`.
    """

    def __init__(
        self, topology: mdtraj.Topology, selection: str = HEAVY, *, reference: mdtraj.Trajectory, name: str = "RMSD"
    ) -> None:
        atoms = _select(topology, selection, "selection")
        self._setup(
            name, topology.n_atoms, atoms, _reference_positions(reference, topology, atoms), _bonds(topology, atoms)
        )

    def _setup(self, name: str, n_atoms: int, atoms: Any, reference: Any, bonds: Any) -> None:
        self.name = str(name)
        self.n_atoms, self.superposed, self.reference, self.bonds = _superposition(n_atoms, atoms, reference, bonds)

    _stored = ("name", "n_atoms", "superposed", "reference", "bonds")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined

    @property
    def atoms(self) -> Array:
        """Atoms that are compared; int array."""
        return self.superposed

    @property
    def names(self) -> list[str]:
        """One."""
        return [self.name]

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """Deviations, (n_frames, 1) in Å.

        Raises
        ------
        NoValueError
            As `Positions`.
        """
        positions = _whole(frames, self, self.atoms)
        return alignment.rmsd(positions, self.reference)[:, None].astype(positions.dtype)

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å; its derivative at 0, where it has none, is 0."""
        import torch

        _check_tensor(positions, self.n_atoms)
        chosen, reference = positions[..., torch.tensor(self.atoms), :], torch.tensor(self.reference)
        return alignment.rmsd_tensor(chosen, reference, torch.ones(len(reference)))[..., None]

    def __repr__(self) -> str:
        return f"ReferenceRMSD({len(self.atoms)} of {self.n_atoms} atoms)"


def _superposition(n_atoms: int, atoms: Any, reference: Any, bonds: Any) -> tuple[int, Array, Array, Array]:
    """Number of atoms, the superposed ones, where they should come to lie, and bonds that tell whole molecules."""
    positions = _frozen(np.asarray(reference, np.float64))
    return (
        int(n_atoms),
        _indices(atoms, int(n_atoms), (len(positions),)),
        positions,
        _indices(np.reshape(np.asarray(bonds, int), (-1, 2)), int(n_atoms), (len(bonds), 2)),
    )


def _whole(frames: mdtraj.Trajectory | Array, featurizer: Positions | ReferenceRMSD, used: Array) -> Array:
    """Positions in Å of the used atoms; of whole molecules, and finite."""
    xyz, cells, scale = _read(frames, featurizer.n_atoms, True)
    if cells is not None and len(featurizer.bonds):
        _check_whole(xyz, cells, scale, featurizer.bonds)
    chosen: Array = xyz[:, used] * xyz.dtype.type(scale)
    finite = np.isfinite(chosen).all(axis=(1, 2))
    if not finite.all():
        frame = int(np.argmin(finite))
        atom = used[np.argmin(np.isfinite(chosen[frame]).all(axis=1))]
        raise NoValueError(f"positions must be finite, got NaN or infinity (of atom {atom})", frame)
    return chosen


def _check_whole(xyz: Array, cells: Array, scale: float, bonds: Array) -> None:
    direct, nearest = (geometry.distances(xyz, *_single(bonds), boxes, scale) for boxes in (None, cells))
    # half a rounding of an XTC file apart is the same image
    broken = np.argwhere(direct > nearest + 0.05)
    if len(broken):
        frame, bond = broken[0]
        i, j = bonds[bond]
        raise NoValueError(
            f"molecules must be whole to be superposed, got the bond of atoms {i} and {j} across the boundary of the "
            "cell; use trajectory.make_molecules_whole(), or features that take periodic images, such as Distances",
            int(frame),
        )


# ---- distances -------------------------------------------------------------------------------------------------------


def _shortest(self: Any, frames: mdtraj.Trajectory | Array) -> Array:
    """Distances, (n_frames, n) in Å; 0 for two atoms in one place.

    Raises
    ------
    NoValueError
        If a position is not finite; it is a ValueError that knows the frame.
    """
    xyz, cells, scale = _read(frames, self.n_atoms, self.periodic)
    groups, pairs = self._terms
    return geometry.distances(xyz, groups, pairs, cells, scale)


def _shortest_tensor(self: Any, positions: Tensor) -> Tensor:
    """The same of a tensor (..., n_atoms, 3) in Å.

    The derivative at 0, where there is none, is 0; it jumps where another pair of atoms becomes the nearest.
    """
    _check_tensor(positions, self.n_atoms)
    return geometry.distances_tensor(positions, *self._terms)


def _single(pairs: Array) -> tuple[list[Array], Array]:
    """Groups of one atom each, and pairs of them."""
    atoms, numbers = np.unique(pairs, return_inverse=True)
    return list(atoms[:, None]), numbers.reshape(pairs.shape)


@final
class Distances:
    """Distances of pairs of atoms.

    Parameters
    ----------
    topology : mdtraj.Topology
    selection : str, optional
        All pairs of these atoms are taken; not with `pairs`. If neither is given, of all atoms but hydrogen.
    pairs : sequence of (int, int), optional
        Explicit pairs of atom indices.
    periodic : bool
        Take the nearest image where a trajectory has a unit cell.

    Raises
    ------
    TypeError, ValueError
        If the selection finds fewer than two atoms, or the pairs are not such.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> residue = topology.add_residue("LIG", topology.add_chain(), resSeq=1)
    >>> atoms = [topology.add_atom(name, mdtraj.element.carbon, residue) for name in ("C1", "C2")]
    >>> feature = Distances(topology)
    >>> feature.names, feature(np.array([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]])).tolist()
    (['distance LIG1-C1 LIG1-C2'], [[5.0]])
    """

    def __init__(
        self,
        topology: mdtraj.Topology,
        selection: str | None = None,
        *,
        pairs: Sequence[tuple[int, int]] | Array | None = None,
        periodic: bool = True,
    ) -> None:
        if pairs is None:
            chosen = _select(topology, HEAVY if selection is None else selection, "selection", least=2)
            pairs = list(combinations(chosen.tolist(), 2))
        elif selection is not None:
            raise ValueError(f"selection and pairs both say which distances to take, got selection={selection!r}")
        labels = _labels(topology)
        found = _explicit(pairs, topology, "pairs", 2)
        self._setup(topology.n_atoms, found, [f"{labels[i]} {labels[j]}" for i, j in found], periodic)

    def _setup(self, n_atoms: int, pairs: Any, labels: list[str], periodic: bool) -> None:
        self.n_atoms, self.labels, self.periodic = int(n_atoms), list(labels), bool(periodic)
        self.pairs = _indices(pairs, self.n_atoms, (len(labels), 2))
        """Atoms of every distance; int array (n, 2)."""
        self._terms = _single(self.pairs)

    _stored = ("n_atoms", "pairs", "labels", "periodic")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined
    __call__, tensor = _shortest, _shortest_tensor

    @property
    def names(self) -> list[str]:
        """Such as "distance ACE1-C ALA2-CA"."""
        return [f"distance {label}" for label in self.labels]

    def __repr__(self) -> str:
        return f"Distances({len(self.pairs)} pairs of {self.n_atoms} atoms)"


def _grouped(n_atoms: int, groups: Any, pairs: Any, n_pairs: int) -> tuple[list[Array], Array]:
    """Atoms of every group, and the groups of every distance."""
    atoms = [_indices(group, n_atoms, (len(group),)) for group in groups]
    return atoms, _indices(pairs, len(atoms), (n_pairs, 2))


@final
class MinimumDistances:
    """Shortest distance between the atoms of two groups.

    Parameters
    ----------
    topology : mdtraj.Topology
    pairs : sequence of (str, str)
        Two selections for every column, in mdtraj's language; they must share no atom.
    periodic : bool
        Take the nearest image where a trajectory has a unit cell.

    Raises
    ------
    TypeError, ValueError
        If a selection finds nothing, or two share atoms.
    """

    def __init__(self, topology: mdtraj.Topology, pairs: Sequence[Sequence[str]], *, periodic: bool = True) -> None:
        # a string is a sequence of strings, too
        if isinstance(pairs, str) or not len(pairs) or any(isinstance(p, str) or len(p) != 2 for p in pairs):
            raise ValueError(f"pairs must be a non-empty list of pairs of selections, got {pairs!r}")
        selections = sorted({selection for pair in pairs for selection in pair})
        groups = [_select(topology, selection, "pairs") for selection in selections]
        numbers = [[selections.index(selection) for selection in pair] for pair in pairs]
        for pair, (a, b) in zip(pairs, numbers, strict=True):
            shared = np.intersect1d(groups[a], groups[b])
            if len(shared):
                raise ValueError(
                    f"the groups of a minimum distance must share no atom, got {_labels(topology)[shared[0]]} in both "
                    f"{pair[0]!r} and {pair[1]!r}"
                )
        self._setup(topology.n_atoms, groups, numbers, [f"{a} | {b}" for a, b in pairs], periodic)

    def _setup(self, n_atoms: int, groups: Any, pairs: Any, labels: list[str], periodic: bool) -> None:
        self.n_atoms, self.labels, self.periodic = int(n_atoms), list(labels), bool(periodic)
        self.groups, self.pairs = self._terms = _grouped(self.n_atoms, groups, pairs, len(labels))
        """Atoms of every group, list of int arrays; groups of every distance, int array (n, 2)."""

    _stored = ("n_atoms", "groups", "pairs", "labels", "periodic")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined
    __call__, tensor = _shortest, _shortest_tensor

    @property
    def names(self) -> list[str]:
        """Such as "minimum distance resid 0 | resid 2"."""
        return [f"minimum distance {label}" for label in self.labels]

    def __repr__(self) -> str:
        return f"MinimumDistances({len(self.pairs)} pairs of {len(self.groups)} groups, {self.n_atoms} atoms)"


@final
class ContactDistances:
    """Distances of residues.

    Parameters
    ----------
    topology : mdtraj.Topology
    contacts : sequence of (int, int), optional
        Pairs of residue indices, from 0. If not given, all residues with an alpha carbon that are three or more apart
        in the sequence, or in different chains.
    scheme : {"closest-heavy", "closest", "ca"}
        Between the closest two atoms but hydrogen, the closest two of all, or the alpha carbons.
    periodic : bool
        Take the nearest image where a trajectory has a unit cell.

    Raises
    ------
    TypeError, ValueError
        If there are no such residues or atoms.
    """

    def __init__(
        self,
        topology: mdtraj.Topology,
        contacts: Sequence[tuple[int, int]] | Array | None = None,
        *,
        scheme: str = "closest-heavy",
        periodic: bool = True,
    ) -> None:
        _check_topology(topology)
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
        residues = list(topology.residues)
        if contacts is None:
            central = [r for r in residues if any(atom.name == "CA" for atom in r.atoms)]
            contacts = [
                (a.index, b.index)
                for a, b in combinations(central, 2)
                if b.index - a.index > 2 or a.chain is not b.chain
            ]
            if not contacts:
                raise ValueError(
                    "contacts must be given where no two residues with an alpha carbon are three or more apart; the "
                    f"topology holds {_content(topology)}"
                )
        found = np.asarray(contacts)
        if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu" or (found[:, 0] == found[:, 1]).any():
            raise ValueError(f"contacts must be a non-empty list of pairs of different residues, got {contacts!r}")
        if found.min() < 0 or found.max() >= len(residues):
            raise ValueError(
                f"contacts must be of residues 0 ... {len(residues) - 1}, got {found.min()} ... {found.max()}"
            )
        used = np.unique(found)
        groups = [[atom.index for atom in residues[i].atoms if _counts(atom, scheme)] for i in used]
        for i, group in zip(used, groups, strict=True):
            if not group:
                raise ValueError(f"residue {i} ({residues[i]}) has no atom for scheme={scheme!r}; take another scheme")
        names = [f"{residues[i]} {residues[j]}" for i, j in found]
        self._setup(topology.n_atoms, groups, np.searchsorted(used, found), _unique(names, found), periodic)

    def _setup(self, n_atoms: int, groups: Any, pairs: Any, labels: list[str], periodic: bool) -> None:
        self.n_atoms, self.labels, self.periodic = int(n_atoms), list(labels), bool(periodic)
        self.groups, self.pairs = self._terms = _grouped(self.n_atoms, groups, pairs, len(labels))
        """Atoms of every residue that takes part, list of int arrays; groups of every distance, int array (n, 2)."""

    _stored = ("n_atoms", "groups", "pairs", "labels", "periodic")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined
    __call__, tensor = _shortest, _shortest_tensor

    @property
    def names(self) -> list[str]:
        """Such as "contact ACE1 NME3"."""
        return [f"contact {label}" for label in self.labels]

    def __repr__(self) -> str:
        return f"ContactDistances({len(self.pairs)} pairs of {len(self.groups)} residues, {self.n_atoms} atoms)"


# ---- angles ----------------------------------------------------------------------------------------------------------


@final
class Angles:
    """Angles at the second of three atoms.

    Parameters
    ----------
    topology : mdtraj.Topology
    selection : str, optional
        All angles between two bonds of these atoms are taken; not with `triplets`. If neither is given, of all atoms
        but hydrogen.
    triplets : sequence of (int, int, int), optional
        Explicit atom indices.
    periodic : bool
        Take the nearest image where a trajectory has a unit cell.

    Raises
    ------
    TypeError, ValueError
        If there are no bonds between the selected atoms, or the triplets are not such.
    """

    def __init__(
        self,
        topology: mdtraj.Topology,
        selection: str | None = None,
        *,
        triplets: Sequence[tuple[int, int, int]] | Array | None = None,
        periodic: bool = True,
    ) -> None:
        if triplets is None:
            wanted = HEAVY if selection is None else selection
            chosen = set(_select(topology, wanted, "selection").tolist())
            neighbours: dict[int, list[int]] = {i: [] for i in sorted(chosen)}
            for a, b in topology.bonds:
                if a.index in chosen and b.index in chosen:
                    neighbours[a.index].append(b.index)
                    neighbours[b.index].append(a.index)
            triplets = [(i, j, k) for j, around in neighbours.items() for i, k in combinations(sorted(set(around)), 2)]
            if not triplets:
                raise ValueError(
                    f"the atoms of selection {wanted!r} must be bonded to give angles, got no two bonds that meet; "
                    "topology.create_standard_bonds() makes those of proteins, or give triplets"
                )
        elif selection is not None:
            raise ValueError(f"selection and triplets both say which angles to take, got selection={selection!r}")
        labels = _labels(topology)
        found = _explicit(triplets, topology, "triplets", 3)
        self._setup(topology.n_atoms, found, [" ".join(labels[i] for i in triplet) for triplet in found], periodic)

    def _setup(self, n_atoms: int, triplets: Any, labels: list[str], periodic: bool) -> None:
        self.n_atoms, self.labels, self.periodic = int(n_atoms), list(labels), bool(periodic)
        self.triplets = _indices(triplets, self.n_atoms, (len(labels), 3))
        """Atoms of every angle; int array (n, 3)."""

    _stored = ("n_atoms", "triplets", "labels", "periodic")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined

    @property
    def names(self) -> list[str]:
        """Such as "angle ACE1-C ALA2-N ALA2-CA"."""
        return [f"angle {label}" for label in self.labels]

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """Angles, (n_frames, n), radians in [0, π]; 0 or π for three atoms on a line.

        Raises
        ------
        NoValueError
            If a position is not finite, or two atoms that make an angle are in one place; it is a ValueError that
            knows the frame.
        """
        xyz, cells, _ = _read(frames, self.n_atoms, self.periodic)
        values, bad = geometry.angles(xyz, self.triplets, cells)
        _refuse(bad, self.names, self.triplets, "two atoms in one place make no angle")
        return values

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å; its derivative at 0 and π, where it has none, is 0."""
        _check_tensor(positions, self.n_atoms)
        values, bad = geometry.angles_tensor(positions, self.triplets)
        _refuse(bad, self.names, self.triplets, "two atoms in one place make no angle")
        return values

    def __repr__(self) -> str:
        return f"Angles({len(self.triplets)} angles of {self.n_atoms} atoms)"


@final
class Torsions:
    """Torsions of a protein's backbone and side chains, or of any four atoms, by default as cosine and sine.

    Parameters
    ----------
    topology : mdtraj.Topology
    kinds : sequence of str, optional
        Of "phi", "psi", "omega" and "chi1" ... "chi5"; those that a residue has are taken. If neither `kinds` nor
        `quadruplets` is given, φ and ψ.
    selection : str, optional
        Of `kinds`, take only torsions whose four atoms are all selected.
    quadruplets : sequence of (int, int, int, int), optional
        Explicit atom indices; not with `kinds` or `selection`.
    cossin : bool
        Two columns for every torsion, its cosine and its sine, which do not jump at ±π. Otherwise the angle.
    periodic : bool
        Take the nearest image where a trajectory has a unit cell.

    Raises
    ------
    TypeError, ValueError
        If the topology has no such torsion, or the quadruplets are not such.

    Notes
    -----
    0 is cis; positive is clockwise, seen along the middle bond (IUPAC-IUB, J. Mol. Biol. 52, 1 (1970)).
    """

    def __init__(
        self,
        topology: mdtraj.Topology,
        kinds: Sequence[str] | None = None,
        *,
        selection: str | None = None,
        quadruplets: Sequence[tuple[int, int, int, int]] | Array | None = None,
        cossin: bool = True,
        periodic: bool = True,
    ) -> None:
        if quadruplets is None:
            found, labels = _named_torsions(topology, ("phi", "psi") if kinds is None else kinds, selection)
        elif kinds is not None or selection is not None:
            raise ValueError("quadruplets say all that kinds and selection say; give one or the other")
        else:
            found, atom_labels = _explicit(quadruplets, topology, "quadruplets", 4), _labels(topology)
            labels = [" ".join(["torsion", *(atom_labels[i] for i in four)]) for four in found]
        self._setup(topology.n_atoms, found, labels, cossin, periodic)

    def _setup(self, n_atoms: int, quadruplets: Any, labels: list[str], cossin: bool, periodic: bool) -> None:
        self.n_atoms, self.cossin, self.periodic = int(n_atoms), bool(cossin), bool(periodic)
        self.quadruplets = _indices(quadruplets, self.n_atoms, (len(labels), 4))
        """Atoms of every torsion; int array (n, 4)."""
        self.labels = list(labels)
        """One for every torsion, such as "phi ALA2"."""

    _stored = ("n_atoms", "quadruplets", "labels", "cossin", "periodic")
    config, from_config = property(_config), classmethod(_from_config)
    n_features, __add__ = property(_n_features), _joined

    @property
    def names(self) -> list[str]:
        """Such as "cos phi ALA2", "sin phi ALA2"; or "phi ALA2" for the angle."""
        return [f"{f} {label}" for label in self.labels for f in ("cos", "sin")] if self.cossin else list(self.labels)

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """Torsions.

        Returns
        -------
        array, shape (n_frames, n_features)
            Cosine and sine of every torsion in turn; or radians in [-π, π].

        Raises
        ------
        NoValueError
            If a position is not finite, or three successive atoms lie on a line; it is a ValueError that knows the
            frame.
        """
        xyz, cells, _ = _read(frames, self.n_atoms, self.periodic)
        values, bad = geometry.torsions(xyz, self.quadruplets, cells, cossin=self.cossin)
        _refuse(bad, self.labels, self.quadruplets, "atoms on a line make no torsion")
        return values

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å."""
        _check_tensor(positions, self.n_atoms)
        values, bad = geometry.torsions_tensor(positions, self.quadruplets, cossin=self.cossin)
        _refuse(bad, self.labels, self.quadruplets, "atoms on a line make no torsion")
        return values

    def __repr__(self) -> str:
        return f"Torsions({len(self.quadruplets)} torsions of {self.n_atoms} atoms)"


def _named_torsions(topology: mdtraj.Topology, kinds: Sequence[str], selection: str | None) -> tuple[Array, list[str]]:
    _check_topology(topology)
    if isinstance(kinds, str) or not len(kinds) or not set(kinds) <= set(TORSIONS):
        raise ValueError(f"kinds must be a non-empty list of {', '.join(TORSIONS)}, got {kinds!r}")
    chosen = None if selection is None else _select(topology, selection, "selection")
    found, names = [], []
    for kind in kinds:
        for four in getattr(dihedral, f"indices_{kind}")(topology):
            if chosen is None or np.isin(four, chosen).all():
                # φ begins in the residue before
                residue = topology.atom(int(four[1 if kind == "phi" else 0])).residue
                found.append([int(i) for i in four])
                names.append(f"{kind} {residue}")
    if not found:
        within = "" if selection is None else f" within selection {selection!r}"
        raise ValueError(
            f"no torsion {' or '.join(kinds)}{within}; the topology holds {_content(topology)}. Other torsions can be "
            "given as quadruplets"
        )
    return np.array(found), _unique(names, np.array(found))


# ---- anything else ---------------------------------------------------------------------------------------------------


@final
class Function:
    """A function of your own.

    Parameters
    ----------
    function : callable
        Positions (n_frames, n_atoms, 3) in Å, without periodic images -> array (n_frames, n_features). It must treat
        every frame alike, whatever the others are: frames come in pieces.
    names : sequence of str
        One for every column.
    differentiable : callable, optional
        The same for tensors (..., n_atoms, 3), in torch; needed for `tensor`.

    Raises
    ------
    TypeError, ValueError
        If these are not functions and names.

    Notes
    -----
    A model file holds no code, only the place of the function: it can be stored if module and name lead to it, and
    loaded after that module has been imported. Functions of notebooks and scripts, and lambdas, can be used but not
    stored.
    """

    def __init__(
        self,
        function: Callable[[Array], Array],
        names: Sequence[str],
        *,
        differentiable: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        for name, value in (("function", function), ("differentiable", differentiable)):
            if not callable(value) and not (name == "differentiable" and value is None):
                raise TypeError(f"{name} must be a function, got {type(value).__name__}")
        if isinstance(names, str) or not len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names must be a non-empty list of strings, one for every column, got {names!r}")
        self._function, self._names, self._differentiable = function, list(names), differentiable

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Function:
        """Featurizer with this `config`.

        Raises
        ------
        ValueError
            If the module of the function has not been imported: a file must not cause that.
        """
        place = config["differentiable"]
        differentiable = None if place is None else _resolve(place)
        return cls(_resolve(config["function"]), config["names"], differentiable=differentiable)

    @property
    def names(self) -> list[str]:
        """As given."""
        return list(self._names)

    n_features, __add__ = property(_n_features), _joined

    @property
    def n_atoms(self) -> None:
        """The function must know."""
        return None

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able.

        Raises
        ------
        ValueError
            If module and name do not lead to the function.
        """
        return {
            "kind": "Function",
            "function": _place(self._function),
            "differentiable": None if self._differentiable is None else _place(self._differentiable),
            "names": list(self._names),
        }

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """What the function gives, (n_frames, n_features).

        Raises
        ------
        ValueError
            If that is no such array, or not finite.
        """
        xyz, _, scale = _read(frames, None, False)
        values = np.asarray(self._function(xyz * xyz.dtype.type(scale)))
        if values.shape != (len(xyz), self.n_features) or values.dtype.kind not in "fiub":
            raise ValueError(
                f"the function must give real numbers of shape {(len(xyz), self.n_features)} for {len(xyz)} frames and "
                f"the names {', '.join(self._names)}, got {values.dtype} of shape {values.shape}"
            )
        broken = np.argwhere(~np.isfinite(values))
        if len(broken):
            frame, column = broken[0]
            raise NoValueError(f"the function must give finite numbers, got {values[frame, column]} for "
                               f"{self._names[column]!r}", int(frame))  # fmt: skip
        return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å.

        Raises
        ------
        TypeError
            If no `differentiable` function was given.
        """
        if self._differentiable is None:
            raise TypeError("differentiable must be given to Function, the same function in torch, to take derivatives")
        return self._differentiable(positions)

    def __repr__(self) -> str:
        return f"Function({getattr(self._function, '__qualname__', self._function)!s}, {self.n_features} features)"


def _place(function: Any) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found: Any = sys.modules.get(module or "")
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    if found is not function or module == "__main__":
        raise ValueError(
            f"the function {name or function!r} cannot be stored in a file, because module and name do not lead to it "
            f"(module {module!r}); write it at the top level of a module that can be imported"
        )
    return f"{module}:{name}"


def _resolve(place: str) -> Any:
    module, _, name = place.partition(":")
    if module not in sys.modules:
        raise ValueError(f"the featurizer needs the function {name} of module {module}; import {module} first")
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"the featurizer needs the function {name}, which module {module} does not have")
    return found


@final
class Concatenation:
    """Columns of several featurizers side by side; ``a + b`` makes it, too.

    Parameters
    ----------
    *parts : Featurizer
        Of frames with the same atoms. Concatenations among them are taken apart.

    Raises
    ------
    TypeError, ValueError
        If they are no featurizers, or do not fit together.
    """

    def __init__(self, *parts: Featurizer) -> None:
        self.parts: list[Featurizer] = []
        """What is joined; none of them a Concatenation."""
        for part in parts:
            if not callable(part) or not hasattr(part, "names"):
                raise TypeError(
                    f"only featurizers can be joined, got {type(part).__name__}; wrap functions in Function"
                )
            self.parts += part.parts if isinstance(part, Concatenation) else [part]
        if not self.parts:
            raise ValueError("parts must be at least one featurizer, got none")
        sizes = {part.n_atoms for part in self.parts if part.n_atoms is not None}
        if len(sizes) > 1:
            raise ValueError(f"featurizers that are joined must be made for the same atoms, got {sorted(sizes)} atoms")
        names = [name for part in self.parts for name in part.names]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"every feature must be taken once, got {', '.join(twice[:3])} twice; leave one out")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Concatenation:
        """Featurizer with this `config`."""
        return cls(*(featurizer_from_config(part) for part in config["parts"]))

    @property
    def names(self) -> list[str]:
        """Of all parts."""
        return [name for part in self.parts for name in part.names]

    n_features, __add__ = property(_n_features), _joined

    @property
    def n_atoms(self) -> int | None:
        """Atoms of the frames it takes; None if any number."""
        return next((part.n_atoms for part in self.parts if part.n_atoms is not None), None)

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": "Concatenation", "parts": [part.config for part in self.parts]}

    def __call__(self, frames: mdtraj.Trajectory | Array) -> Array:
        """Features of all parts, (n_frames, n_features)."""
        return np.concatenate([part(frames) for part in self.parts], axis=1)

    def tensor(self, positions: Tensor) -> Tensor:
        """The same of a tensor (..., n_atoms, 3) in Å."""
        import torch

        return torch.cat([part.tensor(positions) for part in self.parts], dim=-1)

    def __repr__(self) -> str:
        return " + ".join(repr(part) for part in self.parts)


# ---- by name ---------------------------------------------------------------------------------------------------------

_NAMED: dict[str, Callable[[mdtraj.Topology, mdtraj.Trajectory | None], Featurizer]] = {
    "positions": lambda topology, reference: Positions(topology, reference=_needed(reference, "positions")),
    "torsions": lambda topology, _: Torsions(topology, ("phi", "psi")),
    "omega": lambda topology, _: Torsions(topology, ("omega",)),
    "sidechains": lambda topology, _: Torsions(topology, ("chi1", "chi2", "chi3", "chi4", "chi5")),
    "distances": lambda topology, _: Distances(topology, _few(topology, HEAVY)),
    "ca-distances": lambda topology, _: Distances(topology, _few(topology, "name CA")),
    "contacts": lambda topology, _: ContactDistances(topology),
    "angles": lambda topology, _: Angles(topology),
    "rmsd": lambda topology, reference: ReferenceRMSD(topology, reference=_needed(reference, "rmsd")),
}
FEATURES = tuple(_NAMED)
"""Names that `features_from_names` knows."""


def features_from_names(
    topology: mdtraj.Topology, names: Sequence[str], *, reference: mdtraj.Trajectory | None = None
) -> Featurizer:
    """Featurizers with their defaults, joined in this order.

    Parameters
    ----------
    topology : mdtraj.Topology
    names : sequence of str
        "positions" (aligned, all atoms but hydrogen), "torsions" (φ and ψ), "omega", "sidechains" (χ1 ... χ5),
        "distances" (all pairs of atoms but hydrogen), "ca-distances", "contacts" (closest atoms of residues three or
        more apart), "angles" (between bonds) or "rmsd".
    reference : mdtraj.Trajectory, optional
        Needed for positions and rmsd.

    Returns
    -------
    Featurizer

    Raises
    ------
    ValueError
        If a name is unknown, or the topology has nothing of the kind.
    """
    if isinstance(names, str) or not len(names):
        raise ValueError(f"features must be a non-empty list of {', '.join(FEATURES)}, got {names!r}")
    unknown = [name for name in names if name not in _NAMED]
    if unknown:
        raise ValueError(f"features must be of {', '.join(FEATURES)}, got {unknown[0]!r}")
    parts = [_NAMED[name](topology, reference) for name in names]
    return parts[0] if len(parts) == 1 else Concatenation(*parts)


def _needed(reference: mdtraj.Trajectory | None, name: str) -> mdtraj.Trajectory:
    if reference is None:
        raise ValueError(f"reference must be given for the features {name!r}, which superpose on it")
    return reference


def _few(topology: mdtraj.Topology, selection: str) -> str:
    n = len(_select(topology, selection, "selection"))
    if n * (n - 1) // 2 > _MOST_PAIRS:
        raise ValueError(
            f"{n} atoms ({selection}) have {n * (n - 1) // 2} distances, more than {_MOST_PAIRS}; take ca-distances, "
            "contacts or torsions, or Distances with a selection of your own"
        )
    return selection


# ---- atoms and frames ------------------------------------------------------------------------------------------------


def _read(frames: mdtraj.Trajectory | Array, n_atoms: int | None, periodic: bool) -> tuple[Array, Array | None, float]:
    """Positions as they are, unit cells if they count, and the factor that makes Å of them."""
    cells: Array | None = None
    if isinstance(frames, mdtraj.Trajectory):
        xyz, scale = np.ascontiguousarray(frames.xyz), 10.0
        if periodic and frames.unitcell_lengths is not None:
            cells = frames.unitcell_vectors
    else:
        xyz, scale = np.asarray(frames), 1.0
        if xyz.dtype.kind not in "fiu" or xyz.ndim != 3 or xyz.shape[2] != 3:
            raise ValueError(
                "frames must be an mdtraj.Trajectory, or an array of positions (n_frames, n_atoms, 3) in Å, got "
                + (f"{xyz.dtype} of shape {xyz.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__)
            )
        xyz = np.ascontiguousarray(xyz, np.float32 if xyz.dtype == np.float32 else np.float64)
    if n_atoms is not None and xyz.shape[1] != n_atoms:
        raise ValueError(
            f"frames must have the {n_atoms} atoms of the topology that the features were made from, got "
            f"{xyz.shape[1]} atoms; make the features from the topology of these frames, or slice the frames"
        )
    return xyz, cells, scale


def _check_tensor(positions: Tensor, n_atoms: int) -> None:
    if positions.ndim < 2 or tuple(positions.shape[-2:]) != (n_atoms, 3):
        raise ValueError(f"positions must have shape (..., {n_atoms}, 3), got {tuple(positions.shape)}")
    if not positions.is_floating_point():
        raise TypeError(f"positions must be floating-point numbers, got {positions.dtype}")


def _refuse(bad: int, labels: list[str], atoms: Array, reason: str) -> None:
    if bad >= 0:
        frame, term = divmod(bad, len(atoms))
        listed = ", ".join(str(i) for i in atoms[term])
        raise NoValueError(f"{reason}, got {labels[term]} (atoms {listed})", frame)


def _check_topology(topology: mdtraj.Topology) -> None:
    if not isinstance(topology, mdtraj.Topology):
        raise TypeError(
            f"topology must be an mdtraj.Topology, got {type(topology).__name__}; mdtraj.load(...).topology is one"
        )


def _select(topology: mdtraj.Topology, selection: str, name: str, least: int = 1) -> Array:
    _check_topology(topology)
    if not isinstance(selection, str):
        raise TypeError(f"{name} must be a string in mdtraj's selection language, got {type(selection).__name__}")
    try:
        found = topology.select(selection)
    except (ValueError, TypeError, SyntaxError, AttributeError, NameError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name} {selection!r} is not in mdtraj's selection language ({reason}); 'name CA', 'resid 0 to 5', "
            "'protein and not element H' are"
        ) from error
    if len(found) < least:
        raise ValueError(
            f"{name} {selection!r} finds {'nothing' if len(found) == 0 else f'{len(found)} atom'}, but at least "
            f"{least} {'is' if least == 1 else 'are'} needed; the topology holds {_content(topology)}"
        )
    return np.asarray(found, int)


def _content(topology: mdtraj.Topology) -> str:
    residues = sorted({residue.name for residue in topology.residues})
    atoms = list(dict.fromkeys(atom.name for atom in topology.atoms))
    return (
        f"{topology.n_atoms} atoms ({_listed(atoms)}) in {topology.n_residues} residues ({_listed(residues)}) and "
        f"{topology.n_chains} chains"
    )


def _listed(words: list[str]) -> str:
    return ", ".join(words[:12]) + (", …" if len(words) > 12 else "")


def _labels(topology: mdtraj.Topology) -> list[str]:
    """Unique name of every atom, such as "ALA2-CA"; with the index where that is not enough."""
    _check_topology(topology)
    names = [str(atom) for atom in topology.atoms]
    return _unique(names, np.arange(len(names))[:, None])


def _unique(names: list[str], indices: Array) -> list[str]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [
        name if counts[name] == 1 else f"{name} #{'-'.join(str(i) for i in row)}"
        for name, row in zip(names, indices, strict=True)
    ]


def _counts(atom: Any, scheme: str) -> bool:
    if scheme == "ca":
        return bool(atom.name == "CA")
    return scheme == "closest" or atom.element is None or atom.element.symbol != "H"


def _bonds(topology: mdtraj.Topology, atoms: Array) -> list[tuple[int, int]]:
    """Bonds, but to hydrogen, of the chains that hold these atoms."""
    chains = {topology.atom(int(i)).residue.chain.index for i in atoms}
    return [
        (a.index, b.index)
        for a, b in topology.bonds
        if a.residue.chain.index in chains and _counts(a, "closest-heavy") and _counts(b, "closest-heavy")
    ]


def _reference_positions(reference: mdtraj.Trajectory, topology: mdtraj.Topology, atoms: Array) -> Array:
    if not isinstance(reference, mdtraj.Trajectory):
        raise TypeError(f"reference must be an mdtraj.Trajectory, got {type(reference).__name__}")
    if reference.n_atoms != topology.n_atoms or reference.n_frames == 0:
        raise ValueError(
            f"reference must have a frame of the {topology.n_atoms} atoms of the topology, got {reference.n_frames} "
            f"frames of {reference.n_atoms} atoms"
        )
    positions = 10.0 * reference.xyz[0, atoms].astype(np.float64)
    if not np.isfinite(positions).all():
        raise ValueError("reference must have finite positions, got NaN or infinity")
    return positions


def _explicit(indices: Any, topology: mdtraj.Topology, name: str, width: int) -> Array:
    _check_topology(topology)
    found = np.asarray(indices)
    if found.ndim != 2 or found.shape[1] != width or len(found) == 0 or found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a non-empty list of {width} atom indices each, got {_short(indices)}")
    if found.min() < 0 or found.max() >= topology.n_atoms:
        raise ValueError(f"{name} must be of atoms 0 ... {topology.n_atoms - 1}, got {found.min()} ... {found.max()}")
    ordered = np.sort(found, axis=1)
    repeated = np.flatnonzero((np.diff(ordered, axis=1) == 0).any(axis=1))
    if len(repeated):
        raise ValueError(f"{name} must be of different atoms each, got {found[repeated[0]].tolist()}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _indices(values: Any, n: int, shape: tuple[int, ...]) -> Array:
    """Read-only indices below n, for a configuration may have been damaged."""
    array = np.array(values, dtype=np.int64)
    if array.shape != shape or (array.size and (array.min() < 0 or array.max() >= n)):
        raise ValueError(f"indices must be of shape {shape} and in 0 ... {n - 1}, got {_short(array.tolist())}")
    return _frozen(array)


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array
