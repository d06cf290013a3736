"""Atom-centred symmetry functions: what they are, and their reference implementation in torch.

Every function of an atom's surroundings is built from a few moments,

    A[s, l, m] = sum_j  w_s(element of j) · R_s(r_ij) · f_c(r_ij) · Y_lm(direction of j),

one sum over neighbours each. A radial function is the l = 0 moment itself; a sum over pairs of neighbours of a
polynomial in their angle is a sum of products of two moments (addition theorem); products of three moments see four
atoms at a time. The cost is linear in the number of neighbours whatever the body order. Only G4, which needs the
distance between the two neighbours, and G5 with a fractional zeta have to visit every pair of neighbours.

:mod:`molml.energy.kernels` holds the fast implementation of the same definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from molml.energy.data import Structures, pair_vectors
from molml.energy.harmonics import coupling, n_harmonics, normalisation, real_harmonics

CUTOFF_FUNCTIONS = ("cosine", "tanh", "polynomial")
ANY = "*"
"""Neighbour of any element, weighted by its atomic number (Gastegger et al., J. Chem. Phys. 148, 241709 (2018))."""


class G1(NamedTuple):
    """Sum of the cutoff function over the neighbours of one element.

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 5.
    """

    neighbour: str


class G2(NamedTuple):
    """Gaussian shell: the sum over neighbours of exp(-eta (r - r_s)²) f_c(r).

    Attributes
    ----------
    neighbour : str
    eta : float, Å⁻²
    r_s : float, Å

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 6.
    """

    neighbour: str
    eta: float
    r_s: float = 0.0


class G3(NamedTuple):
    """Damped cosine: the sum over neighbours of cos(kappa r) f_c(r).

    Attributes
    ----------
    neighbour : str
    kappa : float, Å⁻¹

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 7.
    """

    neighbour: str
    kappa: float


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

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 8.
    """

    neighbours: tuple[str, str]
    eta: float
    zeta: float
    lambda_: float
    r_s: float = 0.0


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


Function = G1 | G2 | G3 | G4 | G5 | ThreeBody | FourBody
_KINDS: dict[str, Callable[..., Function]] = {kind.__name__: kind for kind in (G1, G2, G3, G4, G5, ThreeBody, FourBody)}
_MAX_DEGREE = 12
_MAX_MOMENT_ZETA = 8  # beyond it the pair loop is no slower and loses no digits to cancellation

# radial forms, as the kernels number them
GAUSSIAN, COSINE, PRODUCT = 0, 1, 2


class Basis(NamedTuple):
    """How the moments are made: the radial functions, and which of them are summed over which neighbours.

    Columns of the moment array: first the l = 0 moments that nothing else needs ("scalars"), then (degree + 1)² columns
    for every tensor slot.
    """

    cutoff: float  # Å
    cutoff_function: int  # index into CUTOFF_FUNCTIONS
    degree: int  # highest l of any slot
    normalisation: np.ndarray  # (degree + 1, degree + 1), of the harmonics
    radial_form: np.ndarray  # (n_radials,) GAUSSIAN, COSINE or PRODUCT (of two earlier ones)
    radial_parameters: np.ndarray  # (n_radials, 2)
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
    cubic_columns: np.ndarray  # (n_terms, 3)
    cubic_value: np.ndarray  # (n_terms,)


class CentreTables(NamedTuple):
    """What is computed for the atoms of one central element: invariants, then functions as combinations of them."""

    invariants: Invariants
    triple: np.ndarray  # (n_triple, 7): elements a and b (-1: any), eta, zeta, lambda, r_s, 1 if the third side counts
    combination: np.ndarray | None  # (n_functions, n_invariants), None for the identity

    @property
    def n_moment_invariants(self) -> int:
        """Invariants made of moments; those that need every pair of neighbours come after them."""
        return len(self.invariants.linear) + len(self.invariants.quadratic) + len(self.invariants.cubic_start) - 1

    @property
    def n_invariants(self) -> int:
        """Invariants of both kinds."""
        return self.n_moment_invariants + len(self.triple)

    @property
    def n_functions(self) -> int:
        """Symmetry functions of the element."""
        return self.n_invariants if self.combination is None else len(self.combination)


class Tables(NamedTuple):
    """A set of symmetry functions as flat arrays, the form both implementations work from."""

    basis: Basis
    centres: tuple[CentreTables, ...]  # one per element


def cutoff_values(distances: Tensor, cutoff: float, kind: int) -> Tensor:
    """Cutoff function: 1 at 0, and 0 with zero slope from ``cutoff`` on.

    Parameters
    ----------
    distances : Tensor, shape (n,), Å
    cutoff : float, Å
    kind : int
        Index into :data:`CUTOFF_FUNCTIONS`. With x = r / r_c: 0 is ½ [1 + cos(π x)]; 1 is tanh³(1 - x), scaled to 1 at
        zero; 2 is the polynomial 1 - 10 x³ + 15 x⁴ - 6 x⁵, whose second derivative vanishes at both ends as well.

    Returns
    -------
    Tensor, shape (n,)

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4 (cosine); Behler, Phys. Chem. Chem. Phys. 13, 17930 (2011) (tanh³);
    Singraber, Behler, Dellago, J. Chem. Theory Comput. 15, 1827 (2019) (polynomials).
    """
    x = distances / cutoff
    if kind == 0:
        value = 0.5 * (1.0 + torch.cos(math.pi * x))
    elif kind == 1:
        value = torch.tanh(1.0 - x) ** 3 / math.tanh(1.0) ** 3
    else:
        value = 1.0 + x**3 * (-10.0 + x * (15.0 - 6.0 * x))
    return torch.where(x < 1.0, value, torch.zeros_like(value))


class SymmetryFunctions:
    """A set of symmetry functions for every central element; callable on a batch.

    Parameters
    ----------
    functions : mapping from chemical symbol to a sequence of functions
        One entry per central element. Neighbours are named by symbol or ``"*"`` (any, weighted by atomic number).
    cutoff : float, Å
    cutoff_function : {"cosine", "tanh", "polynomial"}

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
        self, functions: Mapping[str, Sequence[Function]], *, cutoff: float, cutoff_function: str = "polynomial"
    ) -> None:
        if not (isinstance(cutoff, int | float) and math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive distance in Å, got {cutoff!r}")
        if cutoff_function not in CUTOFF_FUNCTIONS:
            raise ValueError(f"cutoff_function must be one of {', '.join(CUTOFF_FUNCTIONS)}, got {cutoff_function!r}")
        if not functions:
            raise ValueError("functions must name at least one central element, got none")
        for symbol in functions:
            _check_symbol(symbol)
        self.elements = sorted(atomic_numbers[symbol] for symbol in functions)
        self.cutoff = float(cutoff)
        self.cutoff_function = cutoff_function
        self.functions: dict[str, tuple[Function, ...]] = {
            chemical_symbols[z]: tuple(functions[chemical_symbols[z]]) for z in self.elements
        }
        for symbol, chosen in self.functions.items():
            for function in chosen:
                _check_function(function, symbol, set(self.functions))
        self.tables = _compile(self)

    @property
    def config(self) -> dict:
        """JSON-able description; ``SymmetryFunctions.from_config`` rebuilds the same functions from it."""
        return {
            "cutoff": self.cutoff,
            "cutoff_function": self.cutoff_function,
            "functions": {
                symbol: [[type(function).__name__, *function] for function in chosen]
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
        return cls(functions, cutoff=config["cutoff"], cutoff_function=config["cutoff_function"])

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
    fc = cutoff_values(distances, basis.cutoff, basis.cutoff_function)
    radial: list[Tensor] = []
    for form, (a, b) in zip(basis.radial_form.tolist(), basis.radial_parameters.tolist(), strict=True):
        if form == GAUSSIAN:
            radial.append(torch.exp(-a * (distances - b) ** 2) * fc)
        elif form == COSINE:
            radial.append(torch.cos(a * distances) * fc)
        else:
            radial.append(radial[int(a)] * radial[int(b)])
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
        if len(centre.triple):
            columns.append(_triples(functions, batch, vectors, distances, fc, neighbour, centre.triple)[atoms])
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
    fc: Tensor,
    neighbour: Tensor,
    table: np.ndarray,
) -> Tensor:
    """Angular functions that need every pair (j, k) of neighbours, for all atoms, shape (n_atoms, n_triple)."""
    n_atoms = len(batch.numbers)
    j, k = neighbour_pairs_of_atoms(batch.first, n_atoms)
    cosine = (vectors[j] * vectors[k]).sum(-1) / (distances[j] * distances[k])
    side = vectors[k] - vectors[j]
    squared = (side**2).sum(-1)
    # j and k may be two images at the same place only if atoms overlap, which the border refuses
    third = squared.sqrt()
    fc_third = cutoff_values(third, functions.cutoff, functions.tables.basis.cutoff_function)
    z = torch.as_tensor(functions.elements, device=vectors.device, dtype=vectors.dtype)
    columns = []
    for a, b, eta, zeta, lambda_, r_s, narrow in table.tolist():
        if a < 0:
            weight = z[neighbour[j]] * z[neighbour[k]]
        else:
            e, f = neighbour[j], neighbour[k]
            weight = (((e == a) & (f == b)) | ((e == b) & (f == a))).to(vectors.dtype)
        exponent = (distances[j] - r_s) ** 2 + (distances[k] - r_s) ** 2
        value = fc[j] * fc[k]
        if narrow:
            exponent = exponent + (third - r_s) ** 2
            value = value * fc_third
        # rounding may leave 1 + λ cos θ a hair below zero for a straight angle
        base = (1.0 + lambda_ * cosine).clamp(min=0.0)
        value = value * 2.0 ** (1.0 - zeta) * base**zeta * torch.exp(-eta * exponent)
        columns.append(vectors.new_zeros(n_atoms).index_add(0, batch.first[j], weight * value))
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


def _check_function(function: Function, centre: str, symbols: set[str]) -> None:
    if type(function) not in _KINDS.values():
        raise TypeError(f"functions of {centre} must be {', '.join(_KINDS)}, got {type(function).__name__}")
    n_neighbours = 1 if isinstance(function, G1 | G2 | G3) else 3 if isinstance(function, FourBody) else 2
    neighbours: Sequence[str] = (function.neighbour,) if isinstance(function, G1 | G2 | G3) else function.neighbours
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
    numbers = list(_flat(function[1:]))
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise ValueError(f"{name}: parameters must be finite Python numbers, got {numbers}")
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
    if isinstance(function, G4 | G5):
        if ANY in neighbours and set(neighbours) != {ANY}:
            raise ValueError(f"{name}: '{ANY}' must stand for both neighbours or for none")
        if function.zeta < 1:
            raise ValueError(f"{name}: zeta must be at least 1")
        if function.lambda_ not in (1, -1):
            raise ValueError(f"{name}: lambda_ must be 1 or -1")


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _name(function: Function) -> str:
    first, *rest = function._fields
    if isinstance(function, G2 | G4 | G5) and function.r_s == 0.0:
        rest.remove("r_s")
    parts = [_text(getattr(function, first)), *(f"{field}={_text(getattr(function, field))}" for field in rest)]
    return f"{type(function).__name__}({', '.join(parts)})"


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(f"({_text(item)})" if isinstance(item, tuple | list) else _text(item) for item in value)
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


# ------------------------------------------------------------------------------------------------- compiling to tables


class _Builder:
    """Collects radial functions and moments without repeats while the functions are translated."""

    def __init__(self, elements: Sequence[int]) -> None:
        self.elements = list(elements)
        self.radials: dict[tuple[int, float, float], int] = {}
        self.scalars: dict[tuple[int, tuple[float, ...]], int] = {}
        self.tensors: dict[tuple[int, tuple[float, ...]], int] = {}
        self.degree = 0

    def radial(self, form: int, a: float, b: float = 0.0) -> int:
        return self.radials.setdefault((form, float(a), float(b)), len(self.radials))

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
    builder = _Builder(functions.elements)
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
    basis = Basis(
        cutoff=functions.cutoff,
        cutoff_function=CUTOFF_FUNCTIONS.index(functions.cutoff_function),
        degree=builder.degree,
        normalisation=normalisation(builder.degree),
        radial_form=array((form for form, _, _ in builder.radials), np.int64, (-1,)),
        radial_parameters=array(((a, b) for _, a, b in builder.radials), np.float64, (-1, 2)),
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
        self.triple: dict[tuple[float, ...], int] = {}
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
                cubic_columns=np.concatenate(columns),
                cubic_value=np.concatenate(values),
            ),
            triple=np.array(list(self.triple), dtype=np.float64).reshape(-1, 7),
            combination=None if identity else combination,
        )


def _translate(function: Function, builder: _Builder, draft: _Draft) -> list[tuple[str, tuple, float]]:
    """A function as a combination of invariants, which are entered into the draft."""
    if isinstance(function, G1 | G2 | G3):
        if isinstance(function, G3):
            radial = builder.radial(COSINE, function.kappa)
        else:
            radial = builder.radial(GAUSSIAN, *((0.0, 0.0) if isinstance(function, G1) else function[1:]))
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
    key = (a, b, function.eta, function.zeta, function.lambda_, function.r_s, float(isinstance(function, G4)))
    return [(*draft.add("triple", key), 1.0)]


def _wide(function: G5, builder: _Builder, draft: _Draft) -> list[tuple[str, tuple, float]]:
    """G5 with a whole zeta: (1 + λ x)^ζ in Legendre polynomials, each a product of two moments, less j = k."""
    zeta = int(function.zeta)
    legendre = np.polynomial.legendre.poly2leg([math.comb(zeta, p) * function.lambda_**p for p in range(zeta + 1)])
    radial = builder.radial(GAUSSIAN, function.eta, function.r_s)
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
