"""Atom-centred symmetry functions: what they are, and their reference implementation in torch.

Every function of an atom's surroundings is built from a few moments,

    A[s, l, m] = sum_j  w_s(element of j) · R_s(r_ij) · f_c(r_ij) · Y_lm(direction of j),

one sum over neighbours each. A radial function is the l = 0 moment itself; a sum over pairs of neighbours of a
polynomial in their angle is a sum of products of two moments (addition theorem); products of three moments see four
atoms at a time. The cost is linear in the number of neighbours whatever the body order. Only G4, which needs the
distance between the two neighbours, G5 with a fractional zeta and compact functions of the angle have to visit every
pair of neighbours.

:mod:`molml.energy.kernels` holds the fast implementation of the same definition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from molml.energy.cutoffs import CUTOFF_FUNCTIONS, SHAPES, compact_values, cutoff_values
from molml.energy.data import Structures, pair_vectors
from molml.energy.harmonics import coupling, n_harmonics, normalisation, real_harmonics
from molml.energy.triples import COMPACT_BUMP, COMPACT_RANGE, GAUSSIAN_RANGE, POWER, Triples

ANY = "*"
"""Neighbour of any element, weighted by its atomic number (Gastegger et al., J. Chem. Phys. 148, 241709 (2018))."""


class G1(NamedTuple):
    """Sum of the cutoff function over the neighbours of one element.

    Attributes
    ----------
    neighbour : str
    cutoff : float, Å, or None
        A cutoff radius of its own, up to that of the set; None for that of the set. The same in G2 to G5.

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 5.
    """

    neighbour: str
    cutoff: float | None = None


class G2(NamedTuple):
    """Gaussian shell: the sum over neighbours of exp(-eta (r - r_s)²) f_c(r).

    Attributes
    ----------
    neighbour : str
    eta : float, Å⁻²
    r_s : float, Å
    cutoff : float, Å, or None

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 6.
    """

    neighbour: str
    eta: float
    r_s: float = 0.0
    cutoff: float | None = None


class G3(NamedTuple):
    """Damped cosine: the sum over neighbours of cos(kappa r) f_c(r).

    Attributes
    ----------
    neighbour : str
    kappa : float, Å⁻¹
    cutoff : float, Å, or None

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 7.
    """

    neighbour: str
    kappa: float
    cutoff: float | None = None


class G4(NamedTuple):
    """Narrow angular function, with the cutoff of the third side; every pair of neighbours counts once.

    2^(1-zeta) (1 + lambda cos θ)^zeta exp(-eta [(r_ij - r_s)² + (r_ik - r_s)² + (r_jk - r_s)²]) f_c f_c f_c.
    RuNNer and n2p2 call it type 3.

    Attributes
    ----------
    neighbours : tuple of two str
    eta : float, Å⁻²
    zeta : float
        At least 1.
    lambda_ : float
        1 or -1.
    r_s : float, Å
        0 in Behler's paper.
    cutoff : float, Å, or None

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 8.
    """

    neighbours: tuple[str, str]
    eta: float
    zeta: float
    lambda_: float
    r_s: float = 0.0
    cutoff: float | None = None


class G5(NamedTuple):
    """Wide angular function, without the third side; every pair of neighbours counts once.

    2^(1-zeta) (1 + lambda cos θ)^zeta exp(-eta [(r_ij - r_s)² + (r_ik - r_s)²]) f_c f_c.
    RuNNer and n2p2 call it type 9. A whole zeta up to 8 is computed in time linear in the neighbours. Attributes are as
    in :class:`G4`.

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 9.
    """

    neighbours: tuple[str, str]
    eta: float
    zeta: float
    lambda_: float
    r_s: float = 0.0
    cutoff: float | None = None


class Compact(NamedTuple):
    """Bump between two distances, without exponentials and without a cutoff function: a sum over neighbours.

    1 in the middle between ``low`` and ``high``, 0 from there on. RuNNer and n2p2 call it type 20, for neighbours of
    any element type 23.

    Attributes
    ----------
    neighbour : str
    low, high : float, Å
        ``low`` may be negative: -``high`` puts the top at the atom itself. ``high`` at most the cutoff of the set.
    shape : str
        Form of the two flanks: polynomial, polynomial_3, polynomial_7, polynomial_9 or exponential, formulas in
        :func:`molml.energy.cutoffs.cutoff_values`.
    asymmetric : bool
        Narrower top, see :func:`molml.energy.cutoffs.compact_values`.

    References
    ----------
    Bircher, Singraber, Dellago, Mach. Learn.: Sci. Technol. 2, 035026 (2021).
    """

    neighbour: str
    low: float
    high: float
    shape: str = "polynomial"
    asymmetric: bool = False


class CompactAngle(NamedTuple):
    """Bump between two angles times bumps between two distances; every pair of neighbours counts once.

    RuNNer and n2p2 call the wide form type 22, the narrow one type 21, for neighbours of any element types 25 and 24.

    Attributes
    ----------
    neighbours : tuple of two str
    low, high : float, Å
        Of the distances, as in :class:`Compact`.
    angle_low, angle_high : float, degrees
        A bump that reaches below 0 must have its middle at 0, one that reaches beyond 180 at 180: others have a kink.
    shape : str
    asymmetric : bool
        Of the distances alone.
    narrow : bool
        Whether the distance between the two neighbours counts as well.

    References
    ----------
    Bircher, Singraber, Dellago, Mach. Learn.: Sci. Technol. 2, 035026 (2021).
    """

    neighbours: tuple[str, str]
    low: float
    high: float
    angle_low: float
    angle_high: float
    shape: str = "polynomial"
    asymmetric: bool = False
    narrow: bool = False


class ThreeBody(NamedTuple):
    """Product of two moments: the sum over j and k, j = k included, of g(r_ij) h(r_ik) P_degree(cos θ).

    Every wide angular function with a whole zeta is a linear combination of these (and of radial functions), so they
    carry the same knowledge at less cost.

    Attributes
    ----------
    neighbours : tuple of two str
    radials : tuple of two (eta in Å⁻², r_s in Å)
        The Gaussians g and h, each times the cutoff function.
    degree : int
        Of the Legendre polynomial, up to 12.
    """

    neighbours: tuple[str, str]
    radials: tuple[tuple[float, float], tuple[float, float]]
    degree: int


class FourBody(NamedTuple):
    """Product of three moments, coupled to an invariant: a sum over triples of neighbours, repeats included.

    Attributes
    ----------
    neighbours : tuple of three str
    radials : tuple of three (eta in Å⁻², r_s in Å)
        Gaussians, each times the cutoff function.
    degrees : tuple of three int
        Up to 12; they obey the triangle rule and have an even sum (:func:`molml.energy.harmonics.coupling`).

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019), the products of three atomic base functions.
    """

    neighbours: tuple[str, str, str]
    radials: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    degrees: tuple[int, int, int]


Function = G1 | G2 | G3 | G4 | G5 | Compact | CompactAngle | ThreeBody | FourBody
_KINDS: dict[str, Callable[..., Function]] = {
    kind.__name__: kind for kind in (G1, G2, G3, G4, G5, Compact, CompactAngle, ThreeBody, FourBody)
}
_MAX_DEGREE = 12
_MAX_MOMENT_ZETA = 8  # beyond it the pair loop is no slower and loses no digits to cancellation

# radial forms, as the kernels number them
GAUSSIAN, COSINE, PRODUCT, COMPACT = 0, 1, 2, 3


class Basis(NamedTuple):
    """How the moments are made: the radial functions, and which of them are summed over which neighbours.

    Columns of the moment array: first the l = 0 moments that nothing else needs ("scalars"), then (degree + 1)² columns
    for every tensor slot.
    """

    cutoff: float  # Å, beyond it nothing counts
    cutoff_function: int  # index into CUTOFF_FUNCTIONS
    inner: float  # inner radius of the cutoff function over the outer one
    degree: int  # highest l of any slot
    normalisation: np.ndarray  # (degree + 1, degree + 1), of the harmonics
    radii: np.ndarray  # (n_radii,) Å, cutoff radii of the radial functions
    radial_radius: np.ndarray  # (n_radials,) index into them; of no meaning for PRODUCT and COMPACT
    radial_form: np.ndarray  # (n_radials,) GAUSSIAN, COSINE, PRODUCT (of two earlier ones) or COMPACT
    radial_parameters: np.ndarray  # (n_radials, 4): eta, r_s; kappa; the two factors; low, high, shape, asymmetric
    scalar_radial: np.ndarray  # (n_scalars,)
    scalar_weight: np.ndarray  # (n_scalars, n_elements)
    tensor_radial: np.ndarray  # (n_tensors,)
    tensor_weight: np.ndarray  # (n_tensors, n_elements)

    @property
    def n_moments(self) -> int:
        """Columns of the moment array."""
        return len(self.scalar_radial) + len(self.tensor_radial) * n_harmonics(self.degree)


class Invariants(NamedTuple):
    """Which products of moments are taken, by column: single ones, sums over pairs, sums over triples."""

    linear: np.ndarray  # (n_linear,)
    quadratic: np.ndarray  # (n_quadratic, 3): first column of two blocks, length
    cubic_start: np.ndarray  # (n_cubic + 1,) into the terms
    cubic_columns: np.ndarray  # (n_terms, 3) of int32
    cubic_value: np.ndarray  # (n_terms,)


class CentreTables(NamedTuple):
    """What is computed for the atoms of one central element: invariants, then functions as combinations of them."""

    invariants: Invariants
    triple: Triples
    combination: np.ndarray | None  # (n_functions, n_invariants), None for the identity

    @property
    def n_moment_invariants(self) -> int:
        """Invariants made of moments; those that need every pair of neighbours come after them."""
        return len(self.invariants.linear) + len(self.invariants.quadratic) + len(self.invariants.cubic_start) - 1

    @property
    def n_invariants(self) -> int:
        """Invariants of both kinds."""
        return self.n_moment_invariants + len(self.triple.bump)

    @property
    def n_functions(self) -> int:
        """Symmetry functions of the element."""
        return self.n_invariants if self.combination is None else len(self.combination)


class Tables(NamedTuple):
    """A set of symmetry functions as flat arrays, the form both implementations work from."""

    basis: Basis
    centres: tuple[CentreTables, ...]  # one per element


class SymmetryFunctions:
    """A set of symmetry functions for every central element; callable on a batch.

    Parameters
    ----------
    functions : mapping from chemical symbol to a sequence of functions
        One entry per central element. Neighbours are named by symbol or ``"*"`` (any, weighted by atomic number).
    cutoff : float, Å
    cutoff_function : str
        One of :data:`molml.energy.cutoffs.CUTOFF_FUNCTIONS`, formulas in :func:`molml.energy.cutoffs.cutoff_values`.
    inner_cutoff : float
        Up to this fraction of a cutoff radius the cutoff function is 1.

    Raises
    ------
    ValueError
        For an unknown element, a function of a neighbour that is no central element, or a parameter out of its range.
    TypeError
        For something that is no symmetry function.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from molml.energy import StructureDataset, SymmetryFunctions
    >>> from molml.energy.features import G2, G5
    >>> water = molecule("H2O")
    >>> functions = {"H": [G2("O", 1.0, 1.0)], "O": [G2("H", 1.0, 1.0), G5(("H", "H"), 0.1, 2, -1)]}
    >>> g = SymmetryFunctions(functions, cutoff=6.0)
    >>> g.names("O")
    ['G2(H, eta=1, r_s=1)', 'G5(H H, eta=0.1, zeta=2, lambda_=-1)']
    """

    def __init__(
        self,
        functions: Mapping[str, Sequence[Function]],
        *,
        cutoff: float,
        cutoff_function: str = "polynomial",
        inner_cutoff: float = 0.0,
    ) -> None:
        if not (isinstance(cutoff, int | float) and math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive distance in Å, got {cutoff!r}")
        if cutoff_function not in CUTOFF_FUNCTIONS:
            raise ValueError(f"cutoff_function must be one of {', '.join(CUTOFF_FUNCTIONS)}, got {cutoff_function!r}")
        if not (isinstance(inner_cutoff, int | float) and 0 <= inner_cutoff < 1):
            raise ValueError(f"inner_cutoff must be a fraction of the cutoff from 0 to below 1, got {inner_cutoff!r}")
        if inner_cutoff and cutoff_function in ("hard", "tanh", "tanh_unscaled"):
            raise ValueError(f"inner_cutoff has no meaning for cutoff_function={cutoff_function!r}; leave it at 0")
        if not functions:
            raise ValueError("functions must name at least one central element, got none")
        for symbol in functions:
            _check_symbol(symbol)
        self.elements = sorted(atomic_numbers[symbol] for symbol in functions)
        self.cutoff = float(cutoff)
        self.cutoff_function = cutoff_function
        self.inner_cutoff = float(inner_cutoff)
        self.functions: dict[str, tuple[Function, ...]] = {
            chemical_symbols[z]: tuple(functions[chemical_symbols[z]]) for z in self.elements
        }
        for symbol, chosen in self.functions.items():
            for function in chosen:
                _check_function(function, symbol, set(self.functions), self.cutoff)
        self.tables = _compile(self)

    @property
    def config(self) -> dict:
        """JSON-able description; ``SymmetryFunctions.from_config`` rebuilds the same functions from it."""
        inner = {"inner_cutoff": self.inner_cutoff} if self.inner_cutoff else {}
        return {
            "cutoff": self.cutoff,
            "cutoff_function": self.cutoff_function,
            **inner,
            "functions": {
                symbol: [[type(function).__name__, *_given(function)] for function in chosen]
                for symbol, chosen in self.functions.items()
            },
        }

    @classmethod
    def from_config(cls, config: Mapping) -> SymmetryFunctions:
        """Rebuild from :attr:`config`."""
        functions = {
            symbol: [_KINDS[name](*(_tuples(value) for value in values)) for name, *values in chosen]
            for symbol, chosen in config["functions"].items()
        }
        return cls(
            functions,
            cutoff=config["cutoff"],
            cutoff_function=config["cutoff_function"],
            inner_cutoff=config.get("inner_cutoff", 0.0),
        )

    def names(self, element: str) -> list[str]:
        """One name per column of the features of ``element``."""
        return [_name(function) for function in self.functions[element]]

    def n_functions(self, element: str) -> int:
        """Number of columns of the features of ``element``."""
        return len(self.functions[element])

    def __repr__(self) -> str:
        counts = ", ".join(f"{symbol}: {len(chosen)}" for symbol, chosen in self.functions.items())
        return f"SymmetryFunctions({counts}; cutoff={self.cutoff:g} Å, {self.cutoff_function})"

    def __call__(self, batch: Structures, vectors: Tensor | None = None) -> dict[int, Tensor]:
        """Features of every atom, by the reference implementation.

        Parameters
        ----------
        batch : Structures
        vectors : Tensor, shape (n_pairs, 3), Å, optional
            Pair vectors to differentiate with respect to; the batch's own where absent.

        Returns
        -------
        dict from atomic number to Tensor, shape (n_atoms of that element, n_functions), in the order of the batch
        """
        return reference_features(self, batch, pair_vectors(batch) if vectors is None else vectors)


def reference_features(functions: SymmetryFunctions, batch: Structures, vectors: Tensor) -> dict[int, Tensor]:
    """The definition, written with plain torch operations: any device, differentiable twice.

    Parameters
    ----------
    functions : SymmetryFunctions
    batch : Structures
    vectors : Tensor, shape (n_pairs, 3), Å

    Returns
    -------
    dict from atomic number to Tensor, shape (n_atoms of that element, n_functions), in the order of the batch

    Raises
    ------
    ValueError
        For an atom of an element without functions.
    """
    basis, centres = functions.tables
    device, dtype = vectors.device, vectors.dtype
    species = element_index(functions.elements, batch.numbers)
    neighbour = species[batch.second]
    # r = 0 never occurs (the border refuses overlapping atoms), so the plain norm is differentiable
    distances = vectors.norm(dim=-1)
    fc = [cutoff_values(distances, radius, basis.cutoff_function, basis.inner) for radius in basis.radii.tolist()]
    radial: list[Tensor] = []
    for form, radius, (a, b, kind, asymmetric) in zip(
        basis.radial_form.tolist(), basis.radial_radius.tolist(), basis.radial_parameters.tolist(), strict=True
    ):
        if form == GAUSSIAN:
            radial.append(torch.exp(-a * (distances - b) ** 2) * fc[radius])
        elif form == COSINE:
            radial.append(torch.cos(a * distances) * fc[radius])
        elif form == PRODUCT:
            radial.append(radial[int(a)] * radial[int(b)])
        else:
            radial.append(compact_values(distances, a, b, int(kind), bool(asymmetric)))
    shells = torch.stack(radial, dim=-1) if radial else distances.new_zeros(len(distances), 0)
    n_atoms = len(batch.numbers)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=device, dtype=dtype)

    scalars = shells[:, basis.scalar_radial] * tensor(basis.scalar_weight).T[neighbour]
    weighted = shells[:, basis.tensor_radial] * tensor(basis.tensor_weight).T[neighbour]
    harmonics = real_harmonics(vectors / distances[:, None], basis.degree)
    products = (weighted[:, :, None] * harmonics[:, None, :]).flatten(1)
    moments = vectors.new_zeros(n_atoms, basis.n_moments).index_add(
        0, batch.first, torch.cat([scalars, products], dim=1)
    )

    features = {}
    for index, (number, centre) in enumerate(zip(functions.elements, centres, strict=True)):
        atoms = torch.nonzero(species == index).flatten()
        columns = _products(moments[atoms], centre.invariants)
        if len(centre.triple.bump):
            columns.append(_triples(functions, batch, vectors, distances, neighbour, centre)[atoms])
        invariants = torch.cat(columns, dim=1)
        features[number] = invariants if centre.combination is None else invariants @ tensor(centre.combination).T
    return features


def _products(moments: Tensor, invariants: Invariants) -> list[Tensor]:
    """Invariants made of moments: blocks of columns."""
    linear, quadratic, cubic_start, cubic_columns, cubic_value = invariants
    columns = [moments[:, linear]]
    columns += [(moments[:, a : a + n] * moments[:, b : b + n]).sum(1, keepdim=True) for a, b, n in quadratic.tolist()]
    owner = np.repeat(np.arange(len(cubic_start) - 1), np.diff(cubic_start))
    a, b, c = (moments[:, cubic_columns[:, i]] for i in range(3))
    terms = torch.as_tensor(cubic_value, device=moments.device, dtype=moments.dtype) * a * b * c
    cubic = moments.new_zeros(len(moments), len(cubic_start) - 1)
    columns.append(cubic.index_add(1, torch.as_tensor(owner, device=moments.device), terms))
    return columns


def _triples(
    functions: SymmetryFunctions,
    batch: Structures,
    vectors: Tensor,
    distances: Tensor,
    neighbour: Tensor,
    centre: CentreTables,
) -> Tensor:
    """Angular functions that need every pair (j, k) of neighbours, for all atoms."""
    n_atoms, basis = len(batch.numbers), functions.tables.basis
    j, k = neighbour_pairs_of_atoms(batch.first, n_atoms)
    cosine = (vectors[j] * vectors[k]).sum(-1) / (distances[j] * distances[k])
    side = vectors[k] - vectors[j]
    squared = (side**2).sum(-1)
    # j and k may be two images at the same place only if atoms overlap, which the border refuses
    third = squared.sqrt()
    sides = distances[j], distances[k], third
    z = torch.as_tensor(functions.elements, device=vectors.device, dtype=vectors.dtype)
    e, f = neighbour[j], neighbour[k]

    def column(a: float, b: float, value: Tensor) -> Tensor:
        weight = z[e] * z[f] if a < 0 else (((e == a) & (f == b)) | ((e == b) & (f == a))).to(vectors.dtype)
        return vectors.new_zeros(n_atoms).index_add(0, batch.first[j], weight * value)

    # the angle has no derivative where the three atoms are in line; the bump is flat there, so none is needed
    bent = cosine.abs() < 1.0
    angle = torch.where(bent, torch.acos(torch.where(bent, cosine, 0.0)), torch.where(cosine > 0.0, 0.0, math.pi))

    def flank(r: Tensor, form: float, reach: float, a: float, b: float, kind: float, asymmetric: float) -> Tensor:
        if form == COMPACT_RANGE:
            return compact_values(r, a, b, int(kind), bool(asymmetric))
        return torch.exp(-a * (r - b) ** 2) * cutoff_values(r, reach, basis.cutoff_function, basis.inner)

    def bend(form: float, a: float, b: float, kind: float) -> Tensor:
        if form == COMPACT_BUMP:
            return compact_values(angle, a, b, int(kind))
        # rounding may leave 1 + λ cos θ a hair below zero for a straight angle
        return 2.0 ** (1.0 - b) * (1.0 + a * cosine).clamp(min=0.0) ** b

    columns = []
    for a, b, narrow, first, last in centre.triple.lists.tolist():
        for own, start, stop in centre.triple.groups[first:last].tolist():
            flanks = [flank(r, *centre.triple.ranges[own].tolist()) for r in sides[: 3 if narrow else 2]]
            for row in centre.triple.bumps[centre.triple.bump[start:stop]].tolist():
                columns.append(column(a, b, bend(*row) * math.prod(flanks)))
    return torch.stack(columns, dim=-1)


def neighbour_pairs_of_atoms(first: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Indices (into the pairs) of every unordered pair of neighbours of every atom; ``first`` must be sorted."""
    counts = torch.bincount(first, minlength=n_atoms)
    start = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(first), device=first.device) - start[first]
    later = counts[first] - rank - 1  # neighbours that come after this one
    j = torch.repeat_interleave(torch.arange(len(first), device=first.device), later)
    offset = torch.arange(len(j), device=first.device) - torch.repeat_interleave(torch.cumsum(later, 0) - later, later)
    return j, j + 1 + offset


def element_index(elements: Sequence[int], numbers: Tensor) -> Tensor:
    """Position of every atomic number in ``elements``.

    Raises
    ------
    ValueError
        Naming the elements that are not among them.
    """
    table = torch.full((len(chemical_symbols) + 1,), -1, dtype=torch.int64, device=numbers.device)
    table[torch.as_tensor(list(elements), device=numbers.device)] = torch.arange(len(elements), device=numbers.device)
    index = table[numbers]
    if bool((index < 0).any()):
        unknown = ", ".join(chemical_symbols[z] for z in sorted(set(numbers[index < 0].tolist())))
        known = ", ".join(chemical_symbols[z] for z in elements)
        raise ValueError(f"no symmetry functions for {unknown}, only for {known}; fit on structures that contain it")
    return index


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _check_symbol(symbol: str) -> None:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"an element must be a chemical symbol, got {symbol!r}; write e.g. 'Si'")


def _check_function(function: Function, centre: str, symbols: set[str], largest: float) -> None:
    if type(function) not in _KINDS.values():
        raise TypeError(f"functions of {centre} must be {', '.join(_KINDS)}, got {type(function).__name__}")
    neighbours: Sequence[str]
    if isinstance(function, G1 | G2 | G3 | Compact):
        n_neighbours, neighbours = 1, (function.neighbour,)
    else:
        n_neighbours, neighbours = 3 if isinstance(function, FourBody) else 2, function.neighbours
    name = f"{_name(function)} of {centre}"
    for neighbour in neighbours:
        if neighbour != ANY and neighbour not in symbols:
            raise ValueError(
                f"{name}: neighbour {neighbour!r} is no central element; "
                f"expected one of {', '.join(sorted(symbols))} or '{ANY}'"
            )
    lengths = {len(neighbours)}
    lengths |= {len(function.radials)} if isinstance(function, ThreeBody | FourBody) else set()
    lengths |= {len(function.degrees)} if isinstance(function, FourBody) else set()
    if lengths != {n_neighbours}:
        raise ValueError(f"{name}: neighbours, radials and degrees must number {n_neighbours} each")
    fields = {field: value for field, value in function._asdict().items() if field not in ("shape", "cutoff")}
    numbers = list(_flat(list(fields.values())[1:]))
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise ValueError(f"{name}: parameters must be finite Python numbers, got {numbers}")
    if isinstance(function, Compact | CompactAngle):
        _check_compact(function, name, largest)
    own = None if isinstance(function, Compact | CompactAngle | ThreeBody | FourBody) else function.cutoff
    if own is not None and not (isinstance(own, int | float) and 0 < own <= largest):
        raise ValueError(f"{name}: cutoff must be None or a distance up to that of the set, {largest:g} Å")
    etas = [function.eta] if isinstance(function, G2 | G4 | G5) else []
    if isinstance(function, ThreeBody | FourBody):
        etas = [eta for eta, _ in function.radials]
        degrees = (function.degree,) if isinstance(function, ThreeBody) else function.degrees
        if any(not isinstance(degree, int) or not 0 <= degree <= _MAX_DEGREE for degree in degrees):
            raise ValueError(f"{name}: degrees must be whole numbers from 0 to {_MAX_DEGREE}")
        if isinstance(function, FourBody):
            coupling(*function.degrees)
    if any(eta < 0 for eta in etas):
        raise ValueError(f"{name}: eta must not be negative (Å⁻²)")
    if isinstance(function, G4 | G5 | CompactAngle) and ANY in neighbours and set(neighbours) != {ANY}:
        raise ValueError(f"{name}: '{ANY}' must stand for both neighbours or for none")
    if isinstance(function, G4 | G5):
        if function.zeta < 1:
            raise ValueError(f"{name}: zeta must be at least 1")
        if function.lambda_ not in (1, -1):
            raise ValueError(f"{name}: lambda_ must be 1 or -1")


def _check_compact(function: Compact | CompactAngle, name: str, largest: float) -> None:
    if function.shape not in SHAPES:
        raise ValueError(f"{name}: shape must be one of {', '.join(SHAPES)}, got {function.shape!r}")
    if not (function.low < function.high and 0 < function.high <= largest):
        raise ValueError(f"{name}: high must lie above low and 0 and not beyond the cutoff of the set, {largest:g} Å")
    if isinstance(function, Compact):
        return
    low, high = function.angle_low, function.angle_high
    middle = 0.5 * (low + high)
    if not low < high <= low + 360 or (low < 0 and middle != 0) or (high > 180 and middle != 180):
        raise ValueError(
            f"{name}: angles must ascend between 0 and 180 degrees, or be centred at 0 or at 180; others have a kink"
        )


def _given(function: Function) -> Sequence[object]:
    """The fields without those at the end that are left at their defaults."""
    defaults, values = function._field_defaults, list(function)
    for field in reversed(function._fields):
        if field not in defaults or field == "r_s" or defaults[field] != values[-1]:
            break
        values.pop()
    return values


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _name(function: Function) -> str:
    first, *rest = function._fields
    for field in ("r_s", "cutoff", "asymmetric", "narrow"):
        if field in rest and not getattr(function, field):
            rest.remove(field)
    parts = [_text(getattr(function, first)), *(f"{field}={_text(getattr(function, field))}" for field in rest)]
    return f"{type(function).__name__}({', '.join(parts)})"


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(f"({_text(item)})" if isinstance(item, tuple | list) else _text(item) for item in value)
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


# ------------------------------------------------------------------------------------------------- compiling to tables


class _Builder:
    """Collects radial functions and moments without repeats while the functions are translated."""

    def __init__(self, elements: Sequence[int], cutoff: float) -> None:
        self.elements, self.cutoff = list(elements), cutoff
        self.radials: dict[tuple[int, float, tuple[float, ...]], int] = {}  # form, cutoff radius, parameters
        self.scalars: dict[tuple[int, tuple[float, ...]], int] = {}
        self.tensors: dict[tuple[int, tuple[float, ...]], int] = {}
        self.degree = 0

    def radial(self, form: int, *parameters: float, cutoff: float | None = None) -> int:
        numbers = (*(float(x) for x in parameters), 0.0, 0.0, 0.0)[:4]
        return self.radials.setdefault((form, float(cutoff or self.cutoff), numbers), len(self.radials))

    def weights(self, neighbour: str) -> tuple[float, ...]:
        if neighbour == ANY:
            return tuple(float(z) for z in self.elements)
        return tuple(float(chemical_symbols[z] == neighbour) for z in self.elements)

    def scalar(self, radial: int, weights: tuple[float, ...]) -> tuple[int]:
        return (self.scalars.setdefault((radial, weights), len(self.scalars)),)

    def tensor(self, radial: int, weights: tuple[float, ...], degree: int) -> int:
        self.degree = max(self.degree, degree)
        return self.tensors.setdefault((radial, weights), len(self.tensors))


def _compile(functions: SymmetryFunctions) -> Tables:
    builder = _Builder(functions.elements, functions.cutoff)
    drafts = [_Draft() for _ in functions.elements]
    for draft, chosen in zip(drafts, functions.functions.values(), strict=True):
        for function in chosen:
            draft.rows.append(_translate(function, builder, draft))
    # a radial function whose moment exists up to some degree anyway is that moment's l = 0 column
    scalars = [key for key in builder.scalars if key not in builder.tensors]
    n_scalars, width = len(scalars), n_harmonics(builder.degree)
    column = [
        n_scalars + builder.tensors[key] * width if key in builder.tensors else scalars.index(key)
        for key in builder.scalars
    ]

    def array(values: Iterable, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        return np.array(list(values), dtype=dtype).reshape(shape)

    n_elements = len(functions.elements)
    radii = sorted({radius for form, radius, _ in builder.radials if form in (GAUSSIAN, COSINE)})
    basis = Basis(
        cutoff=functions.cutoff,
        cutoff_function=CUTOFF_FUNCTIONS.index(functions.cutoff_function),
        inner=functions.inner_cutoff,
        degree=builder.degree,
        normalisation=normalisation(builder.degree),
        radii=array(radii, np.float64, (-1,)),
        radial_radius=array((radii.index(r) if r in radii else 0 for _, r, _ in builder.radials), np.int64, (-1,)),
        radial_form=array((form for form, _, _ in builder.radials), np.int64, (-1,)),
        radial_parameters=array((numbers for _, _, numbers in builder.radials), np.float64, (-1, 4)),
        scalar_radial=array((radial for radial, _ in scalars), np.int64, (-1,)),
        scalar_weight=array((weights for _, weights in scalars), np.float64, (-1, n_elements)),
        tensor_radial=array((radial for radial, _ in builder.tensors), np.int64, (-1,)),
        tensor_weight=array((weights for _, weights in builder.tensors), np.float64, (-1, n_elements)),
    )
    return Tables(basis, tuple(draft.finish(column, n_scalars, width) for draft in drafts))


class _Draft:
    """Invariants of one central element while they are collected; columns are resolved once all moments are known."""

    def __init__(self) -> None:
        self.linear: dict[tuple[int], int] = {}
        self.quadratic: dict[tuple[int, int, int], int] = {}
        self.cubic: dict[tuple[tuple[int, int], ...], int] = {}
        self.triple: dict[tuple[tuple[float, ...], tuple[float, ...]], int] = {}  # what a group shares; the angle
        self.rows: list[list[tuple[str, tuple, float]]] = []  # per function: (kind, key, coefficient)

    def add(self, kind: str, key: tuple) -> tuple[str, tuple]:
        table: dict = getattr(self, kind)
        table.setdefault(key, len(table))
        return kind, key

    def finish(self, scalar_column: list[int], n_scalars: int, width: int) -> CentreTables:
        def column(slot: int, degree: int) -> int:
            return n_scalars + slot * width + degree * degree

        linear = [scalar_column[index] for (index,) in self.linear]
        quadratic = [(column(s, degree), column(t, degree), 2 * degree + 1) for s, t, degree in self.quadratic]
        start, columns, values = [0], [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0)]
        for key in self.cubic:
            index, value = coupling(*(degree for _, degree in key))
            columns.append(index + np.array([column(slot, degree) for slot, degree in key]))
            values.append(value)
            start.append(start[-1] + len(value))
        offsets = {"linear": 0, "quadratic": len(linear)}
        offsets["cubic"] = offsets["quadratic"] + len(quadratic)
        offsets["triple"] = offsets["cubic"] + len(self.cubic)
        n_invariants = offsets["triple"] + len(self.triple)
        self.triple = {key: place for place, key in enumerate(sorted(self.triple))}
        combination = np.zeros((len(self.rows), n_invariants))
        for row, terms in enumerate(self.rows):
            for kind, key, coefficient in terms:
                combination[row, offsets[kind] + getattr(self, kind)[key]] += coefficient
        identity = combination.shape[0] == n_invariants and np.array_equal(combination, np.eye(n_invariants))
        return CentreTables(
            Invariants(
                linear=np.array(linear, dtype=np.int64),
                quadratic=np.array(quadratic, dtype=np.int64).reshape(-1, 3),
                cubic_start=np.array(start, dtype=np.int64),
                # the largest table of all, read anew for every few atoms: half the width, half the cache
                cubic_columns=np.concatenate(columns).astype(np.int32),
                cubic_value=np.concatenate(values),
            ),
            triple=_tables_of_triples(list(self.triple)),
            combination=None if identity else combination,
        )


def _tables_of_triples(keys: Sequence[tuple[tuple[float, ...], tuple[float, ...]]]) -> Triples:
    """Tables of the functions with these sorted keys: (a, b, third side, range), bump."""
    ranges = list(dict.fromkeys(group[3:] for group, _ in keys))
    bumps = list(dict.fromkeys(bump for _, bump in keys))
    radii = sorted({row[1] for row in ranges if row[0] == GAUSSIAN_RANGE})
    rows = [(*row[:4], radii.index(row[1]), 0) if row[0] == GAUSSIAN_RANGE else row for row in ranges]
    lists: list[tuple] = []
    groups: list[tuple] = []
    start = 0
    # of one list: the elements, the third side, and the form and the reach of the range
    for (a, b, narrow, *_), alike in itertools.groupby(keys, key=lambda key: key[0][:5]):
        first = len(groups)
        for group, members in itertools.groupby(alike, key=lambda key: key[0]):
            stop = start + len(list(members))
            groups.append((ranges.index(group[3:]), start, stop))
            start = stop
        lists.append((a, b, narrow, first, len(groups)))
    bump = np.array([bumps.index(bump) for _, bump in keys], dtype=np.int64)
    bends = np.zeros((len(lists), len(bumps)), dtype=np.bool_)
    for row, (*_, first, last) in zip(bends, lists, strict=True):
        row[bump[groups[first][1] : groups[last - 1][2]]] = True
    return Triples(
        np.array(radii, dtype=np.float64),
        np.array(rows, dtype=np.float64).reshape(-1, 6),
        np.array(bumps, dtype=np.float64).reshape(-1, 4),
        np.array(lists, dtype=np.int64).reshape(-1, 5),
        bends,
        np.array(groups, dtype=np.int64).reshape(-1, 3),
        bump,
    )


def _translate(function: Function, builder: _Builder, draft: _Draft) -> list[tuple[str, tuple, float]]:
    """A function as a combination of invariants, which are entered into the draft."""
    if isinstance(function, G1 | G2 | G3 | Compact):
        if isinstance(function, G1):
            radial = builder.radial(GAUSSIAN, 0.0, 0.0, cutoff=function.cutoff)
        elif isinstance(function, G2):
            radial = builder.radial(GAUSSIAN, function.eta, function.r_s, cutoff=function.cutoff)
        elif isinstance(function, G3):
            radial = builder.radial(COSINE, function.kappa, cutoff=function.cutoff)
        else:
            kind = CUTOFF_FUNCTIONS.index(function.shape)
            radial = builder.radial(COMPACT, function.low, function.high, kind, function.asymmetric)
        return [(*draft.add("linear", builder.scalar(radial, builder.weights(function.neighbour))), 1.0)]
    if isinstance(function, ThreeBody):
        slots = [
            builder.tensor(builder.radial(GAUSSIAN, *radial), builder.weights(neighbour), function.degree)
            for neighbour, radial in zip(function.neighbours, function.radials, strict=True)
        ]
        return [(*draft.add("quadratic", (*sorted(slots), function.degree)), 1.0)]
    if isinstance(function, FourBody):
        parts = [
            (builder.tensor(builder.radial(GAUSSIAN, *radial), builder.weights(neighbour), degree), degree)
            for neighbour, radial, degree in zip(function.neighbours, function.radials, function.degrees, strict=True)
        ]
        return [(*draft.add("cubic", tuple(sorted(parts))), 1.0)]
    if isinstance(function, G5) and float(function.zeta).is_integer() and function.zeta <= _MAX_MOMENT_ZETA:
        return _wide(function, builder, draft)
    a, b = sorted(-1 if n == ANY else builder.elements.index(atomic_numbers[n]) for n in function.neighbours)
    own: tuple[float, ...]
    bump: tuple[float, ...]
    if isinstance(function, CompactAngle):
        kind = CUTOFF_FUNCTIONS.index(function.shape)
        own = COMPACT_RANGE, function.high, function.low, function.high, kind, int(function.asymmetric)
        bump = COMPACT_BUMP, math.radians(function.angle_low), math.radians(function.angle_high), kind
        narrow = function.narrow
    else:
        radius = float(function.cutoff or builder.cutoff)
        own = GAUSSIAN_RANGE, radius, function.eta, function.r_s, 0, 0
        bump = POWER, function.lambda_, function.zeta, 0
        narrow = isinstance(function, G4)
    return [(*draft.add("triple", ((a, b, int(narrow), *own), bump)), 1.0)]


def _wide(function: G5, builder: _Builder, draft: _Draft) -> list[tuple[str, tuple, float]]:
    """G5 with a whole zeta: (1 + λ x)^ζ in Legendre polynomials, each a product of two moments, less j = k."""
    zeta = int(function.zeta)
    legendre = np.polynomial.legendre.poly2leg([math.comb(zeta, p) * function.lambda_**p for p in range(zeta + 1)])
    radial = builder.radial(GAUSSIAN, function.eta, function.r_s, cutoff=function.cutoff)
    first, second = (builder.weights(neighbour) for neighbour in function.neighbours)
    same = first == second
    scale = 2.0 ** (1 - zeta) * (0.5 if same else 1.0)
    slots = [builder.tensor(radial, weights, zeta) for weights in (first, second)]
    terms = [
        (*draft.add("quadratic", (*sorted(slots), degree)), scale * float(value))
        for degree, value in enumerate(legendre)
    ]
    if same:
        squares = tuple(w * w for w in first)
        own = builder.scalar(builder.radial(PRODUCT, radial, radial), squares)
        terms.append((*draft.add("linear", own), -scale * (1.0 + function.lambda_) ** zeta))
    return terms
