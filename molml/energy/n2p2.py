"""Potentials of n2p2 and RuNNer: read and written.

A potential is a folder: ``input.nn`` (elements, symmetry functions, networks), ``scaling.data`` (statistics of the
functions) and one ``weights.ZZZ.data`` per element. Both programs compute with whatever units their owner used
throughout, and the files do not say which; bohr and hartree are assumed unless said otherwise, with the values of
:mod:`molml.units` (CODATA 2014, as in ASE).

What comes in which order is decided by n2p2's sorting of the symmetry functions, not by ``input.nn``.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from molml.energy.features import ANY, G1, G2, G4, G5, Compact, CompactAngle, Function, SymmetryFunctions
from molml.energy.labels import ENERGY_UNITS, LENGTH_UNITS, short, unit_value
from molml.energy.model import BehlerParrinello, FeatureStatistics, LinearPotential, Potential
from molml.energy.reading import text_of
from molml.nn import MLP

__all__ = ["read_n2p2", "write_n2p2"]

# in the order of n2p2's numbers, from 0
_CUTOFF_TYPES = (
    "hard",
    "cosine",
    "tanh_unscaled",
    "tanh",
    "exponential",
    "polynomial_3",
    "polynomial",
    "polynomial_7",
    "polynomial_9",
)
_WITHOUT_INNER = ("hard", "tanh_unscaled", "tanh")
_SHAPES = {
    "p1": "polynomial_3",
    "p2": "polynomial",
    "p3": "polynomial_7",
    "p4": "polynomial_9",
    "e": "exponential",
}
_ACTIVATIONS = {
    "l": "identity",
    "t": "tanh",
    "s": "logistic",
    "p": "softplus",
    "r": "relu",
    "g": "gaussian",
    "c": "cosine",
    "S": "reverse_logistic",
    "e": "exponential",
    "h": "square",
}
# y - (-y) of these is the identity: a linear part can be carried through such layers
_ODD_PART_IS_LINEAR = ("softplus", "relu")
_LAST_ELEMENT = 102  # n2p2 knows no element beyond nobelium

_ALIASES = {
    "symfunction": "symfunction_short",
    "nnp_generation": "nnp_type",
    "nnp_type_gen": "nnp_type",
    "nnp_gen": "nnp_type",
}
# settings that may be given once; n2p2 refuses a second line as well
_SINGLE = (
    "number_of_elements",
    "elements",
    "cutoff_type",
    "scale_symmetry_functions",
    "scale_symmetry_functions_sigma",
    "center_symmetry_functions",
    "scale_min_short",
    "scale_max_short",
    "global_hidden_layers_short",
    "global_nodes_short",
    "global_activation_short",
    "normalize_nodes",
    "mean_energy",
    "conv_energy",
    "conv_length",
    "nnp_type",
)
# what changes the energy and has no counterpart, with the reason
_REFUSED = {
    "use_electrostatics": "electrostatics are not part of a molml potential",
    "use_vdw": "dispersion is not part of a molml potential; add it in ASE with a SumCalculator",
    "global_symfunction_short": "write every symmetry function out as symfunction_short, as n2p2 needs it",
    "element_symfunction_short": "write every symmetry function out as symfunction_short, as n2p2 needs it",
    "global_pairsymfunction_short": "networks of pairs of atoms are not supported",
    "element_pairsymfunction_short": "networks of pairs of atoms are not supported",
    "pairsymfunction_short": "networks of pairs of atoms are not supported",
}


class _Line(NamedTuple):
    """A keyword of ``input.nn``."""

    words: list[str]  # after the keyword
    where: str  # file and line, for errors


class _Entry(NamedTuple):
    """A symmetry function in n2p2's terms, lengths in the unit of the files."""

    centre: str
    kind: int
    neighbours: tuple[str, ...]  # by atomic number; none for the kinds of any element
    numbers: tuple[float, ...]  # as they stand in the line
    shape: str  # of compact functions: p1 ... p4, with an a for the asymmetric ones, e

    @property
    def key(self) -> tuple:
        """What n2p2 sorts the functions of an element by."""
        order = tuple(atomic_numbers[neighbour] for neighbour in self.neighbours)
        if self.kind in (2, 12):
            eta, r_s, cutoff = self.numbers
            return self.kind, cutoff, eta, r_s, order
        if self.kind in (3, 9):
            eta, lambda_, zeta, cutoff, r_s = self.numbers
            return self.kind, cutoff, eta, r_s, zeta, lambda_, order
        if self.kind == 13:
            eta, r_s, lambda_, zeta, cutoff = self.numbers
            return self.kind, cutoff, eta, r_s, zeta, lambda_, order
        low, high, *angles = self.numbers
        return self.kind, self.shape, order, high, low, *angles


class _Kind(NamedTuple):
    """How a line of a kind of symmetry function is written."""

    n_neighbours: int
    n_numbers: int
    n_required: int  # numbers that must be there
    compact: bool


_KINDS = {
    2: _Kind(1, 3, 3, False),
    3: _Kind(2, 5, 4, False),
    9: _Kind(2, 5, 4, False),
    12: _Kind(0, 3, 3, False),
    13: _Kind(0, 5, 5, False),
    20: _Kind(1, 2, 2, True),
    21: _Kind(2, 4, 4, True),
    22: _Kind(2, 4, 4, True),
    23: _Kind(0, 2, 2, True),
    24: _Kind(0, 4, 4, True),
    25: _Kind(0, 4, 4, True),
}


class _Network(NamedTuple):
    """Layers of an element's network."""

    widths: tuple[int, ...]  # of the hidden layers
    activations: tuple[str, ...]  # of the hidden layers and of the output, molml's names


# ------------------------------------------------------------------------------------------------------------- reading


def read_n2p2(
    folder: str | os.PathLike[str], *, energy_unit: str = "hartree", length_unit: str = "bohr"
) -> BehlerParrinello:
    """Read a potential of n2p2 or RuNNer.

    Symmetry functions of types 2, 3, 9, 12, 13 and 20 to 25 with cutoff types 0 to 8 and an inner cutoff, all modes of
    scaling, normalised data sets, atomic energies, and the settings of networks for all elements or for one. Training
    settings are passed over. The result is an ordinary potential; its symmetry functions come in n2p2's order.

    Parameters
    ----------
    folder : path
        With ``input.nn``, ``scaling.data`` and ``weights.ZZZ.data`` (ZZZ the atomic number), which may be packed
        (``.xz``, ``.gz``, ``.bz2``).
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"}
        Unit in which the potential was trained. The files do not say it; nearly all published ones use hartree.
    length_unit : {"Å", "bohr", "nm"}

    Returns
    -------
    BehlerParrinello

    Raises
    ------
    ValueError
        Naming file and line, for what is not in the format and for what molml has no counterpart of: potentials of the
        third and fourth generation (charges), networks of pairs, functions with zeta below 1 or lambda other than ±1.
    FileNotFoundError
        If a file is missing.

    References
    ----------
    Singraber, Behler, Dellago, J. Chem. Theory Comput. 15, 1827 (2019).

    Examples
    --------
    >>> potential = read_n2p2("pot_H2O_RPBE-D3")  # doctest: +SKIP
    >>> atoms.calc = potential.calculator()  # doctest: +SKIP
    """
    eV = unit_value("energy_unit", energy_unit, ENERGY_UNITS)
    angstrom = unit_value("length_unit", length_unit, LENGTH_UNITS)
    home = Path(folder)
    settings = _settings(_text(home / "input.nn"))
    symbols = _elements(settings)
    entries = _entries(settings, symbols)
    functions = _functions(entries, settings, angstrom)
    scale, centre, shift, statistics = _scaling(home, settings, entries)
    networks = _networks(settings, symbols, {s: len(chosen) for s, chosen in entries.items()}, home)
    mean, conversion = _normalisation(settings)
    reference = [eV * (mean + energy) for energy in _atom_energies(settings, symbols)]

    layouts = [_with_linear_output(network) for network, _ in networks.values()]
    first = layouts[0]
    potential = BehlerParrinello(
        functions,
        statistics,
        reference,
        hidden=first[0],
        activation=first[1],
        exceptions={symbol: layout for symbol, layout in zip(symbols, layouts, strict=True) if layout != first},
        energy_scale=eV / conversion,
        metadata={"source": "n2p2", "source_units": {"energy": energy_unit, "length": length_unit}},
    )
    for e, (_, layers) in enumerate(networks.values()):
        weight, bias = layers[0]
        # n2p2 scales to shift + scale (G - centre); a molml network sees scale (G - mean)
        offset = shift + scale[e] * (statistics.mean[e].numpy() - centre[e])
        layers[0] = weight, bias + weight @ offset
        potential.get_buffer(f"scale_{e}").copy_(torch.from_numpy(scale[e]))
        _fill(cast(MLP, potential.networks[e]), layers)
    return potential.eval()


def _text(path: Path) -> str:
    for suffix in ("", ".xz", ".gz", ".bz2"):
        packed = path.with_name(path.name + suffix)
        if packed.exists():
            return text_of(packed, suffix)
    raise FileNotFoundError(f"{path} is missing; a potential needs input.nn, scaling.data and weights.ZZZ.data")


def _settings(text: str) -> dict[str, list[_Line]]:
    """Keywords of ``input.nn``, comments dropped; refuses those of which molml has no counterpart."""
    settings: dict[str, list[_Line]] = {}
    for k, line in enumerate(text.split("\n")):
        words = line.split("#")[0].split("!")[0].split()
        if words:
            keyword, where = _ALIASES.get(words[0], words[0]), f"input.nn (line {k + 1})"
            if keyword in _REFUSED:
                raise ValueError(f"{where}: cannot read a potential with {keyword}: {_REFUSED[keyword]}")
            if keyword in settings and keyword in _SINGLE:
                raise ValueError(f"{where}: {keyword} is given twice")
            settings.setdefault(keyword, []).append(_Line(words[1:], where))
    for alpha in settings.get("cutoff_alpha", []):
        if _number(alpha, 0, "the inner cutoff"):
            raise ValueError(
                f"{alpha.where}: n2p2 ignores cutoff_alpha, RuNNer does not; give the inner cutoff as second number of "
                "cutoff_type"
            )
    for words, where in settings.get("nnp_type", []):
        if words[:1] not in (["2"], ["2G-HDNNP"]):
            raise ValueError(
                f"{where}: only short-ranged potentials without charges (nnp_type 2G-HDNNP) can be read, "
                f"got nnp_type {short(' '.join(words))}"
            )
    if "nn_type_short" in settings and settings["nn_type_short"][0].words[:1] != ["1"]:
        raise ValueError(f"{settings['nn_type_short'][0].where}: networks of pairs of atoms are not supported")
    return settings


def _only(settings: Mapping[str, list[_Line]], keyword: str) -> _Line:
    if keyword not in settings:
        raise ValueError(f"input.nn has no line {keyword}")
    return settings[keyword][0]


def _number(line: _Line, place: int, what: str) -> float:
    words = line.words[place : place + 1]
    try:
        (value,) = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{line.where}: expected {what}, got {short(' '.join(line.words))}") from error
    if not math.isfinite(value):
        raise ValueError(f"{line.where}: {what} must be finite, got {value}")
    return value


def _whole(line: _Line, place: int, what: str) -> int:
    value = _number(line, place, what)
    if value != int(value) or value < 0:
        raise ValueError(f"{line.where}: {what} must be a whole number, got {line.words[place]}")
    return int(value)


def _element(line: _Line, place: int, symbols: Sequence[str]) -> str:
    word = line.words[place] if place < len(line.words) else ""
    if word not in symbols:
        raise ValueError(f"{line.where}: expected one of the elements {', '.join(symbols)}, got {word!r}")
    return word


def _elements(settings: Mapping[str, list[_Line]]) -> list[str]:
    line = _only(settings, "elements")
    for word in line.words:
        if word not in atomic_numbers or word == "X":
            raise ValueError(f"{line.where}: unknown element {word!r}")
    count = _whole(_only(settings, "number_of_elements"), 0, "the number of elements")
    if count != len(set(line.words)) or count != len(line.words):
        raise ValueError(
            f"{line.where}: number_of_elements says {count}, but the elements are {short(' '.join(line.words))}"
        )
    return sorted(line.words, key=lambda symbol: atomic_numbers[symbol])


def _atom_energies(settings: Mapping[str, list[_Line]], symbols: Sequence[str]) -> list[float]:
    energies = dict.fromkeys(symbols, 0.0)
    for line in settings.get("atom_energy", []):
        energies[_element(line, 0, symbols)] = _number(line, 1, "the energy of an atom")
    return list(energies.values())


def _normalisation(settings: Mapping[str, list[_Line]]) -> tuple[float, float]:
    """Mean energy per atom and factor from the energies of the files to those of the networks."""
    given = [keyword for keyword in ("mean_energy", "conv_energy", "conv_length") if keyword in settings]
    if not given:
        return 0.0, 1.0
    if len(given) < 3:
        raise ValueError(f"input.nn must give all of mean_energy, conv_energy, conv_length or none, got {given}")
    # conv_length changes no number here: lengths and 1 / sqrt(eta) are scaled alike inside n2p2
    mean, energy, length = (_number(settings[keyword][0], 0, "a number") for keyword in given)
    if not (energy > 0 and length > 0):
        raise ValueError(f"conv_energy and conv_length of input.nn must be positive, got {energy} and {length}")
    return mean, energy


def _entries(settings: Mapping[str, list[_Line]], symbols: Sequence[str]) -> dict[str, list[_Entry]]:
    """Symmetry functions of every element in n2p2's order."""
    entries: dict[str, list[_Entry]] = {symbol: [] for symbol in symbols}
    for line in settings.get("symfunction_short", []):
        centre = _element(line, 0, symbols)
        number = _whole(line, 1, "the type of a symmetry function")
        if number not in _KINDS:
            raise ValueError(
                f"{line.where}: symmetry functions of type {number} are not supported, "
                f"only {', '.join(map(str, _KINDS))}"
            )
        kind = _KINDS[number]
        start = 2 + kind.n_neighbours
        neighbours = [_element(line, place, symbols) for place in range(2, start)]
        stop = start + min(kind.n_numbers, max(kind.n_required, len(line.words) - start - kind.compact))
        numbers = [_number(line, place, f"a number (type {number})") for place in range(start, stop)]
        numbers += [0.0] * (kind.n_numbers - len(numbers))
        entries[centre].append(
            _Entry(
                centre,
                number,
                tuple(sorted(neighbours, key=lambda symbol: atomic_numbers[symbol])),
                tuple(numbers),
                _shape(line, stop) if kind.compact else "",
            )
        )
    empty = [symbol for symbol, chosen in entries.items() if not chosen]
    if empty:
        raise ValueError(f"input.nn has no symfunction_short for {', '.join(empty)}")
    return {symbol: sorted(chosen, key=lambda entry: entry.key) for symbol, chosen in entries.items()}


def _shape(line: _Line, place: int) -> str:
    word = line.words[place] if place < len(line.words) else ""
    plain = word.removesuffix("a") if word.startswith("p") else word
    if plain not in _SHAPES:
        raise ValueError(f"{line.where}: expected a form among p1, p2, p3, p4 (with or without a) and e, got {word!r}")
    return word


def _functions(
    entries: Mapping[str, Sequence[_Entry]], settings: Mapping[str, list[_Line]], angstrom: float
) -> SymmetryFunctions:
    line = _only(settings, "cutoff_type")
    number = _whole(line, 0, "the cutoff type")
    if number >= len(_CUTOFF_TYPES):
        raise ValueError(f"{line.where}: the cutoff type must be 0 to {len(_CUTOFF_TYPES) - 1}, got {number}")
    name = _CUTOFF_TYPES[number]
    inner = _number(line, 1, "the inner cutoff") if len(line.words) > 1 else 0.0
    if not 0 <= inner < 1:
        raise ValueError(f"{line.where}: the inner cutoff must be a fraction from 0 to below 1, got {inner}")
    furthest = max(_reach(entry) for chosen in entries.values() for entry in chosen)
    if not furthest > 0:
        raise ValueError(f"input.nn: cutoff radii must be positive, got {furthest}")
    return SymmetryFunctions(
        {symbol: [_function(entry, angstrom, furthest) for entry in chosen] for symbol, chosen in entries.items()},
        cutoff=furthest * angstrom,
        cutoff_function=name,
        inner_cutoff=0.0 if name in _WITHOUT_INNER else inner,
    )


def _reach(entry: _Entry) -> float:
    """Cutoff radius of a function, in the unit of the files."""
    return entry.numbers[{2: 2, 12: 2, 3: 3, 9: 3, 13: 4}.get(entry.kind, 1)]


def _function(entry: _Entry, angstrom: float, furthest: float) -> Function:
    reach = _reach(entry)
    own = None if reach == furthest else reach * angstrom
    if entry.kind in (2, 12):
        eta, r_s, _ = entry.numbers
        return G2(entry.neighbours[0] if entry.neighbours else ANY, eta / angstrom**2, r_s * angstrom, own)
    pair = cast(tuple[str, str], entry.neighbours or (ANY, ANY))
    if entry.kind in (3, 9, 13):
        if entry.kind == 13:
            eta, r_s, lambda_, zeta, _ = entry.numbers
        else:
            eta, lambda_, zeta, _, r_s = entry.numbers
        kind = G5 if entry.kind == 9 else G4
        return kind(pair, eta / angstrom**2, zeta, lambda_, r_s * angstrom, own)
    low, high = entry.numbers[0] * angstrom, entry.numbers[1] * angstrom
    shape, asymmetric = _SHAPES[entry.shape.removesuffix("a")], entry.shape.endswith("a")
    if entry.kind in (20, 23):
        return Compact(entry.neighbours[0] if entry.neighbours else ANY, low, high, shape, asymmetric)
    angles = entry.numbers[2:]
    return CompactAngle(pair, low, high, angles[0], angles[1], shape, asymmetric, entry.kind in (21, 24))


def _scaling(
    home: Path, settings: Mapping[str, list[_Line]], entries: Mapping[str, Sequence[_Entry]]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], float, FeatureStatistics]:
    """Per element: inputs of the networks are shift + scale (G - centre); and the statistics of the training atoms."""
    by_range, centred, by_sigma = (
        keyword in settings
        for keyword in ("scale_symmetry_functions", "center_symmetry_functions", "scale_symmetry_functions_sigma")
    )
    # as n2p2 reads them: the first two keywords stand before the third
    by_sigma = by_sigma and not by_range and not centred
    bounds = []
    for keyword, default in (("scale_min_short", 0.0), ("scale_max_short", 1.0)):
        bounds.append(_number(settings[keyword][0], 0, "a number") if keyword in settings else default)
    lowest, highest = bounds
    rows = _statistics(home, entries)
    scales, centres = [], []
    for symbol, table in rows.items():
        low, high, mean, sigma = table.T
        width = high - low if by_range else sigma if by_sigma else np.ones(len(table))
        if not (width > 0).all():
            k = int(np.flatnonzero(~(width > 0))[0])
            what = "sf_max - sf_min" if by_range else "sf_sigma"
            raise ValueError(
                f"scaling.data: function {k + 1} of {symbol} cannot be scaled, its {what} is {width[k]:g}; "
                "remove the function (nnp-prune) and train again"
            )
        scales.append((highest - lowest) / width if by_range or by_sigma else np.ones(len(table)))
        centres.append(mean if centred or by_sigma else low if by_range else np.zeros(len(table)))
    shift = lowest if by_range or by_sigma else 0.0

    def column(k: int) -> list[Tensor]:
        return [torch.from_numpy(table[:, k].copy()) for table in rows.values()]

    return scales, centres, shift, FeatureStatistics(column(2), column(3), column(0), column(1))


def _statistics(home: Path, entries: Mapping[str, Sequence[_Entry]]) -> dict[str, NDArray[np.float64]]:
    """Minimum, maximum, mean and standard deviation (0 where an old file has none) of every function."""
    lines = [
        _Line(line.split(), f"scaling.data (line {k + 1})")
        for k, line in enumerate(_text(home / "scaling.data").split("\n"))
        if line.strip() and not line.lstrip().startswith("#")
    ]
    expected = sum(len(chosen) for chosen in entries.values())
    # RuNNer ends the file with the range of the energies, two numbers
    if len(lines) < expected or any(len(line.words) > 4 for line in lines[expected:]):
        raise ValueError(
            f"scaling.data must have one line for each of the {expected} symmetry functions of input.nn, "
            f"got {len(lines)}"
        )
    tables, taken = {}, 0
    for e, (symbol, chosen) in enumerate(entries.items()):
        table = np.zeros((len(chosen), 4))
        for k in range(len(chosen)):
            line = lines[taken + k]
            if (_whole(line, 0, "the index of an element"), _whole(line, 1, "the index of a function")) != (
                e + 1,
                k + 1,
            ):
                raise ValueError(
                    f"{line.where}: expected function {k + 1} of element {e + 1} ({symbol}), got {short(line.words)}"
                )
            for c in range(min(4, max(3, len(line.words) - 2))):
                table[k, c] = _number(line, 2 + c, "minimum, maximum, mean and standard deviation")
        tables[symbol] = table
        taken += len(chosen)
    return tables


# ------------------------------------------------------------------------------------------------- networks of a folder

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def _networks(
    settings: Mapping[str, list[_Line]], symbols: Sequence[str], n_functions: Mapping[str, int], home: Path
) -> dict[str, tuple[_Network, Layers]]:
    """Every element's layout, and the weights (n_out, n_in) and biases of its layers."""
    common: int | None = None
    if "global_hidden_layers_short" in settings:
        common = _whole(settings["global_hidden_layers_short"][0], 0, "the number of hidden layers")
    depths = dict.fromkeys(symbols, common)
    for line in settings.get("element_hidden_layers_short", []):
        depths[_element(line, 0, symbols)] = _whole(line, 1, "the number of hidden layers")
    nodes = _per_layer(settings, "global_nodes_short", common)
    names = _per_layer(settings, "global_activation_short", None if common is None else common + 1)
    normalised = "normalize_nodes" in settings
    networks = {}
    for symbol in symbols:
        depth = depths[symbol]
        if depth is None:
            raise ValueError(f"input.nn gives no number of hidden layers for {symbol} (global_hidden_layers_short)")
        same = depth == common
        activations = _activations(settings, symbol, symbols, depth, names if same else None)
        file = home / f"weights.{atomic_numbers[symbol]:03d}.data"
        values = _first_column(file)
        candidates = _widths(settings, symbol, symbols, depth, nodes if same else None)
        fitting = [w for w in candidates if _n_values(n_functions[symbol], w) == len(values)]
        if not fitting:
            wanted = " or ".join(str(_n_values(n_functions[symbol], w)) for w in candidates)
            raise ValueError(
                f"{file.name}: {n_functions[symbol]} symmetry functions and the layers of input.nn "
                f"({' or '.join(str(list(w)) for w in candidates)}) need {wanted} numbers, got {len(values)}"
            )
        network = _Network(fitting[0], activations)
        networks[symbol] = network, _layers(n_functions[symbol], fitting[0], values, normalised)
    return networks


def _per_layer(settings: Mapping[str, list[_Line]], keyword: str, count: int | None) -> _Line | None:
    if keyword not in settings:
        return None
    line = settings[keyword][0]
    if len(line.words) != count:
        raise ValueError(
            f"{line.where}: {keyword} must have {count} entries for global_hidden_layers_short, got {len(line.words)}"
        )
    return line


def _own(settings: Mapping[str, list[_Line]], keyword: str, symbol: str, symbols: Sequence[str]) -> list[_Line]:
    """Lines of a keyword for one element, without the element."""
    return [
        _Line(line.words[1:], line.where) for line in settings.get(keyword, []) if _element(line, 0, symbols) == symbol
    ]


def _activations(
    settings: Mapping[str, list[_Line]], symbol: str, symbols: Sequence[str], depth: int, common: _Line | None
) -> tuple[str, ...]:
    own = _own(settings, "element_activation_short", symbol, symbols)
    line = own[-1] if own else common
    if line is None:
        raise ValueError(f"input.nn gives no activation functions for {symbol} (global_activation_short)")
    if len(line.words) != depth + 1 or not set(line.words) <= set(_ACTIVATIONS):
        raise ValueError(
            f"{line.where}: expected {depth + 1} activation functions among {' '.join(_ACTIVATIONS)}, the last one of "
            f"the output, got {short(' '.join(line.words))}"
        )
    return tuple(_ACTIVATIONS[word] for word in line.words)


def _widths(
    settings: Mapping[str, list[_Line]], symbol: str, symbols: Sequence[str], depth: int, common: _Line | None
) -> list[tuple[int, ...]]:
    """Widths of the hidden layers that the settings may mean; the number of weights decides.

    Documented is one number per layer. n2p2 3.0 keeps the last layer as it is for all elements; RuNNer's lines hold a
    layer and its width.
    """
    base = tuple(_whole(common, k, "a width") for k in range(depth)) if common is not None else ()
    own = _own(settings, "element_nodes_short", symbol, symbols)
    if not own:
        if len(base) != depth:
            raise ValueError(f"input.nn gives no widths of the hidden layers for {symbol} (global_nodes_short)")
        return [base]
    candidates = []
    if len(own) == 1 and len(own[0].words) == depth:
        widths = tuple(_whole(own[0], k, "a width") for k in range(depth))
        candidates.append(widths)
        if base:
            candidates.append((*widths[:-1], base[-1]))
    if all(len(line.words) == 2 for line in own):
        pairs = {_whole(line, 0, "a layer"): _whole(line, 1, "a width") for line in own}
        widths = tuple(pairs.get(k + 1, base[k] if base else 0) for k in range(depth))
        if set(pairs) <= set(range(1, depth + 1)):
            candidates.append(widths)
    candidates = [widths for widths in dict.fromkeys(candidates) if all(width > 0 for width in widths)]
    if not candidates:
        raise ValueError(
            f"{own[0].where}: expected {depth} widths of hidden layers, got {short(' '.join(own[0].words))}"
        )
    return candidates


def _n_values(n_functions: int, widths: Sequence[int]) -> int:
    return sum((n + 1) * m for n, m in itertools.pairwise([n_functions, *widths, 1]))


def _first_column(path: Path) -> NDArray[np.float64]:
    values = []
    for k, line in enumerate(_text(path).split("\n")):
        words = line.split()
        if words and not words[0].startswith("#"):
            values.append(_number(_Line(words, f"{path.name} (line {k + 1})"), 0, "a weight"))
    return np.array(values)


def _layers(n_functions: int, widths: Sequence[int], values: NDArray[np.float64], normalised: bool) -> Layers:
    """Cut the file's one column into layers: weights by the lower neuron, then biases."""
    layers, start = [], 0
    for n, m in itertools.pairwise([n_functions, *widths, 1]):
        weight = values[start : start + n * m].reshape(n, m).T
        bias = values[start + n * m : start + n * m + m]
        start += n * m + m
        share = 1.0 / n if normalised else 1.0
        layers.append((weight * share, bias * share))
    return layers


def _with_linear_output(network: _Network) -> tuple[list[int], str]:
    """Hidden layers and activations of a network that ends linearly: another output is one more hidden layer."""
    widths, activations = list(network.widths), list(network.activations)
    if activations[-1] == "identity":
        activations.pop()
    else:
        widths.append(1)
    return widths, " ".join(activations) or "identity"


def _fill(network: MLP, layers: Layers) -> None:
    given = [*layers]
    if len(given) < len(network.layers):
        given.append((np.ones((1, 1)), np.zeros(1)))  # after an output that was not linear
    with torch.no_grad():
        for layer, (weight, bias) in zip(network.layers, given, strict=True):
            cast(Tensor, layer.weight).copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            cast(Tensor, layer.bias).copy_(torch.from_numpy(np.ascontiguousarray(bias)))


# ------------------------------------------------------------------------------------------------------------- writing


def write_n2p2(
    potential: Potential,
    folder: str | os.PathLike[str],
    *,
    energy_unit: str = "hartree",
    length_unit: str = "bohr",
) -> None:
    """Write a potential for n2p2, and with it for LAMMPS (``pair_style hdnnp``) and RuNNer.

    The folder, made if it is not there, receives ``input.nn``, ``scaling.data`` and one ``weights.ZZZ.data`` per
    element, in place of what it has under these names. Energies of the written potential are those of the given one up
    to rounding.

    Can be written: functions G1, G2, G4, G5, Compact and CompactAngle; linear potentials; networks of which all
    elements have the same depth and activations, among identity, tanh, logistic, softplus, relu, gaussian, cosine,
    reverse_logistic, exponential and square. A linear part beside the networks, as :func:`molml.energy.fit` gives it,
    needs softplus, relu or identity, which carry it through; a quadratic part has no counterpart: fit with
    ``activation="softplus"`` and ``quadratic=False``. The guard at distances shorter than any in the training data is
    left out, with a warning: fit with ``guard=False`` if it is not wanted.

    Parameters
    ----------
    potential : LinearPotential or BehlerParrinello
    folder : path
    energy_unit : {"eV", "hartree", "kcal/mol", "kJ/mol"}
        Unit of the files; programs that read them must be told. LAMMPS with ``units metal`` needs no conversion
        factors for eV and Å.
    length_unit : {"Å", "bohr", "nm"}

    Raises
    ------
    ValueError
        For what n2p2 has no counterpart of, by name.
    TypeError
        For a committee: write its members, each to its own folder.

    Examples
    --------
    >>> from molml.energy import SymmetryFunctions, fit
    >>> from molml.energy.features import G2, G4
    >>> radial = [G2("Si", 0.5, r_s) for r_s in (0.0, 2.4, 3.8)]
    >>> angular = [G4(("Si", "Si"), 0.03, zeta, lambda_) for zeta in (1, 4) for lambda_ in (-1, 1)]
    >>> functions = SymmetryFunctions({"Si": radial + angular}, cutoff=5.0, cutoff_function="cosine")
    >>> potential = fit(train, functions=functions, activation="softplus", quadratic=False)  # doctest: +SKIP
    >>> write_n2p2(potential, "hdnnp-data")  # doctest: +SKIP
    """
    eV = unit_value("energy_unit", energy_unit, ENERGY_UNITS)
    angstrom = unit_value("length_unit", length_unit, LENGTH_UNITS)
    if not isinstance(potential, LinearPotential | BehlerParrinello):
        raise TypeError(
            f"potential must be a LinearPotential or a BehlerParrinello, got {type(potential).__name__}; write the "
            "members of a committee one by one, each to its own folder"
        )
    if potential.guard is not None:
        onsets = ", ".join(f"{name} below {onset:.2f} Å" for name, (onset, _) in potential.guard.pairs.items())
        warnings.warn(
            f"n2p2 has no short-range guard: the files give no repulsion to {onsets}; in LAMMPS pair_style "
            "hybrid/overlay can add one (zbl)",
            stacklevel=2,
        )
    elements = [_exported(potential, e, eV, angstrom) for e in range(len(potential.elements))]
    # elements of narrower networks get neurons that lead nowhere: n2p2 3.0 reads the widths of single elements wrongly
    depths = {len(element.layers) for element in elements}
    activations = {element.activations for element in elements}
    if len(depths) > 1 or len(activations) > 1:
        raise ValueError(
            "n2p2 can have only one number of hidden layers and one set of activation functions for all elements, got "
            + "; ".join(f"{element.symbol}: {' '.join(element.activations)}" for element in elements)
        )
    widths = [max(element.layers[k][0].shape[0] for element in elements) for k in range(len(elements[0].layers) - 1)]
    texts = {"input.nn": _input_nn(potential, elements, widths, energy_unit, length_unit)}
    texts["scaling.data"] = _scaling_data(elements)
    for element in elements:
        texts[f"weights.{atomic_numbers[element.symbol]:03d}.data"] = _weights_data(_padded(element.layers, widths))
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (home / name).write_text(text, encoding="utf-8")


class _Exported(NamedTuple):
    """What is written of one element, in the units of the files and in n2p2's order."""

    symbol: str
    energy: float  # of an atom
    entries: list[_Entry]
    statistics: NDArray[np.float64]  # (n_functions, 4): minimum, maximum, mean, sigma
    activations: tuple[str, ...]  # of the hidden layers, molml's names
    layers: Layers  # on (G - mean) / sigma


def _exported(potential: LinearPotential | BehlerParrinello, e: int, eV: float, angstrom: float) -> _Exported:
    number = potential.elements[e]
    symbol = chemical_symbols[number]
    if number > _LAST_ELEMENT:
        raise ValueError(f"n2p2 knows elements up to {chemical_symbols[_LAST_ELEMENT]}, got {symbol}")
    chosen = potential.features.functions[symbol]
    if not chosen:
        raise ValueError(f"n2p2 needs at least one symmetry function for every element, got none for {symbol}")
    entries = [_entry(function, symbol, potential, angstrom) for function in chosen]

    def array(name: str) -> NDArray[np.float64]:
        return potential.get_buffer(f"{name}_{e}").detach().numpy()

    mean, std = array("mean"), array("std")
    linear = (potential.coefficients if isinstance(potential, LinearPotential) else potential.linear)[e]
    linear = linear.detach().numpy() / eV
    if isinstance(potential, LinearPotential):
        # n2p2 cannot do without a hidden layer: one neuron that passes its input on
        scale, hidden = np.ones(len(chosen)), ["identity"]
        layers = [(linear[None, :].copy(), np.array([linear @ mean])), (np.ones((1, 1)), np.zeros(1))]
        linear = np.zeros(len(chosen))
    else:
        if potential.is_quadratic:
            raise ValueError("n2p2 has no counterpart of a quadratic part; fit the potential with quadratic=False")
        scale = array("scale")
        network = cast(MLP, potential.networks[e])
        layers = [
            (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
            for layer in cast("list[torch.nn.Linear]", list(network.layers))
        ]
        names = network.activation.split()
        hidden = names if len(names) == len(layers) - 1 else names * (len(layers) - 1)
        last = potential.energy_scale / eV
        layers[-1] = layers[-1][0] * last, layers[-1][1] * last
        if not hidden:
            layers, hidden = [layers[0], (np.ones((1, 1)), np.zeros(1))], ["identity"]
    # n2p2 divides by sigma, so it must be a number that can be divided by
    inverse = np.where(scale != 0.0, scale, 1.0)
    sigma = np.where(std > 0.0, std, 1.0 / inverse)
    layers[0] = layers[0][0] * (scale * sigma), layers[0][1]
    if linear.any():
        unknown = sorted(set(hidden) - {"identity", *_ODD_PART_IS_LINEAR})
        if unknown:
            raise ValueError(
                f"the linear part beside the network of {symbol} cannot be written for n2p2 with {', '.join(unknown)} "
                "units; write a potential whose activation is softplus or relu, or one without linear part"
            )
        layers = _with_linear_part(layers, hidden, linear * sigma)
        layers[-1] = layers[-1][0], layers[-1][1] + linear @ mean
    missing = sorted(set(hidden) - set(_ACTIVATIONS.values()))
    if missing:
        raise ValueError(
            f"n2p2 has no activation function {', '.join(missing)}, only {', '.join(_ACTIVATIONS.values())}; "
            "train a network with one of these"
        )
    used = [k for k in range(len(chosen)) if layers[0][0][:, k].any()] or [0]
    order = sorted(used, key=lambda k: entries[k].key)
    layers[0] = layers[0][0][:, order], layers[0][1]
    table = np.stack([array("low"), array("high"), mean, sigma], axis=1)[order]
    energy = float(cast(Tensor, potential.reference)[e]) / eV
    return _Exported(symbol, energy, [entries[k] for k in order], table, tuple(hidden), layers)


def _with_linear_part(layers: Layers, hidden: Sequence[str], coefficients: NDArray[np.float64]) -> Layers:
    """Add neurons that carry a linear combination of the inputs to the output: f(y) - f(-y) = y."""
    # rows of the neurons to add, as a combination of the inputs at first and of the added neurons later
    below = coefficients[None, :]
    widened: Layers = []
    before = 0
    for k, (name, (weight, bias)) in enumerate(zip(hidden, layers[:-1], strict=True)):
        rows = below if name == "identity" else np.concatenate([below, -below])
        if k == 0:
            new = np.concatenate([weight, rows])
        else:
            new = np.block([[weight, np.zeros((len(weight), before))], [np.zeros((len(rows), weight.shape[1])), rows]])
        widened.append((new, np.concatenate([bias, np.zeros(len(rows))])))
        below = np.array([[1.0]]) if name == "identity" else np.array([[1.0, -1.0]])
        before = len(rows)
    weight, bias = layers[-1]
    return [*widened, (np.concatenate([weight, below], axis=1), bias)]


def _padded(layers: Layers, widths: Sequence[int]) -> Layers:
    """Layers widened with neurons that nothing leads to or from."""
    padded, below = [], layers[0][0].shape[1]
    for (weight, bias), width in zip(layers, [*widths, 1], strict=True):
        wider = np.zeros((width, below))
        wider[: weight.shape[0], : weight.shape[1]] = weight
        padded.append((wider, np.concatenate([bias, np.zeros(width - len(bias))])))
        below = width
    return padded


def _entry(function: Function, centre: str, potential: LinearPotential | BehlerParrinello, angstrom: float) -> _Entry:
    """A function in n2p2's terms."""
    name = potential.features.names(centre)[potential.features.functions[centre].index(function)]
    shape = ""
    numbers: tuple[float, ...]
    if isinstance(function, G1 | G2 | G4 | G5):
        reach = (function.cutoff or potential.cutoff) / angstrom
    if isinstance(function, G1 | G2):
        neighbours: tuple[str, ...] = (function.neighbour,)
        eta, r_s = (function.eta, function.r_s) if isinstance(function, G2) else (0.0, 0.0)
        kind, numbers = 2, (eta * angstrom**2, r_s / angstrom, reach)
    elif isinstance(function, G4 | G5) and not (isinstance(function, G5) and ANY in function.neighbours):
        neighbours = function.neighbours
        eta, r_s = function.eta * angstrom**2, function.r_s / angstrom
        if ANY in neighbours:
            kind, numbers = 13, (eta, r_s, function.lambda_, function.zeta, reach)
        else:
            kind = 3 if isinstance(function, G4) else 9
            numbers = (eta, function.lambda_, function.zeta, reach, r_s)
    elif isinstance(function, Compact | CompactAngle):
        shape = {name: word for word, name in _SHAPES.items()}[function.shape] + "a" * function.asymmetric
        numbers = (function.low / angstrom, function.high / angstrom)
        if isinstance(function, Compact):
            neighbours, kind = (function.neighbour,), 20
        else:
            neighbours, kind = function.neighbours, 21 if function.narrow else 22
            numbers = (*numbers, function.angle_low, function.angle_high)
        if shape == "ea":
            raise ValueError(f"n2p2 has no asymmetric exponential function such as {name} of {centre}")
    else:
        raise ValueError(
            f"n2p2 has no symmetry function such as {name} of {centre}; fit with functions of the kinds G1, G2, G4, "
            "G5 (for single elements), Compact and CompactAngle"
        )
    if ANY in neighbours:
        kind, neighbours = {2: 12, 20: 23, 21: 24, 22: 25}.get(kind, kind), ()
    ordered = tuple(sorted(neighbours, key=lambda symbol: atomic_numbers[symbol]))
    return _Entry(centre, kind, ordered, tuple(float(number) for number in numbers), shape)


def _input_nn(
    potential: LinearPotential | BehlerParrinello,
    elements: Sequence[_Exported],
    widths: Sequence[int],
    energy_unit: str,
    length_unit: str,
) -> str:
    features = potential.features
    cutoff = f"{_CUTOFF_TYPES.index(features.cutoff_function)}"
    letters = {name: letter for letter, name in _ACTIVATIONS.items()}
    settings = [
        ("number_of_elements", str(len(elements))),
        ("elements", " ".join(element.symbol for element in elements)),
        *(("atom_energy", f"{element.symbol} {element.energy!r}") for element in elements),
        ("cutoff_type", f"{cutoff} {features.inner_cutoff!r}"),
        ("scale_symmetry_functions_sigma", ""),
        ("scale_min_short", "0.0"),
        ("scale_max_short", "1.0"),
        ("global_hidden_layers_short", str(len(widths))),
        ("global_nodes_short", " ".join(map(str, widths))),
        ("global_activation_short", " ".join(letters[name] for name in (*elements[0].activations, "identity"))),
    ]
    lines = [
        "# Written by molml.",
        f"# Unit of length: {length_unit}. Unit of energy: {energy_unit}.",
        "",
        *(f"{keyword:<32}{value}".rstrip() for keyword, value in settings),
        "",
    ]
    for element in elements:
        for entry in element.entries:
            numbers = map(repr, entry.numbers)
            words = [entry.centre, str(entry.kind), *entry.neighbours, *numbers, *([entry.shape] * bool(entry.shape))]
            lines.append("symfunction_short " + " ".join(words))
    return "\n".join(lines) + "\n"


def _scaling_data(elements: Sequence[_Exported]) -> str:
    lines = [
        "# Statistics of the symmetry functions over the training atoms.",
        "# element, function, minimum, maximum, mean, sigma (by which n2p2 divides)",
    ]
    for e, element in enumerate(elements):
        for k, row in enumerate(element.statistics):
            lines.append(f"{e + 1:10d} {k + 1:10d}" + "".join(f" {value:24.16E}" for value in row))
    return "\n".join(lines) + "\n"


def _weights_data(layers: Layers) -> str:
    lines = [
        "# Weights (a) and biases (b) of a network.",
        "# value, type, index, then layer and neuron the connection starts from, and those it leads to;",
        "# of a bias, layer and neuron it belongs to",
    ]
    count = 0
    for k, (weight, bias) in enumerate(layers):
        for j, row in enumerate(weight.T):
            for i, value in enumerate(row):
                count += 1
                lines.append(f"{value:24.16E} a {count:9d} {k:5d} {j + 1:5d} {k + 1:5d} {i + 1:5d}")
        for i, value in enumerate(bias):
            count += 1
            lines.append(f"{value:24.16E} b {count:9d} {k + 1:5d} {i + 1:5d}")
    return "\n".join(lines) + "\n"
