"""n2p2's files against a second implementation of its definitions in plain Python, and against its own output."""

import itertools
import lzma
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.units import Bohr, Hartree
from hypothesis import given, settings
from hypothesis import strategies as st

import molml
from molml.energy import BehlerParrinello, Committee, LinearPotential, evaluate, fit, read_structures
from molml.energy.data import StructureDataset, atoms_to_structures
from molml.energy.features import (
    G1,
    G2,
    G3,
    G4,
    G5,
    Compact,
    CompactAngle,
    FourBody,
    Function,
    SymmetryFunctions,
    ThreeBody,
)
from molml.energy.model import FeatureStatistics, Potential, feature_statistics
from molml.energy.n2p2 import read_n2p2, write_n2p2

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "energy"

# ----------------------------------------------------------------------- n2p2's definitions, after its documentation

SHAPES: dict[str, Callable[[float], float]] = {
    "p1": lambda x: (2 * x - 3) * x**2 + 1,
    "p2": lambda x: ((15 - 6 * x) * x - 10) * x**3 + 1,
    "p3": lambda x: (x * (x * (20 * x - 70) + 84) - 35) * x**4 + 1,
    "p4": lambda x: (x * (x * ((315 - 70 * x) * x - 540) + 420) - 126) * x**5 + 1,
    "e": lambda x: math.exp(1 - 1 / (1 - x * x)),
}
CUTOFFS: list[Callable[[float], float]] = [
    lambda x: 1.0,
    lambda x: (math.cos(math.pi * x) + 1) / 2,
    lambda x: math.tanh(1 - x) ** 3,
    lambda x: (math.tanh(1 - x) / math.tanh(1)) ** 3,
    *(SHAPES[name] for name in ("e", "p1", "p2", "p3", "p4")),
]
ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "l": lambda x: x,
    "t": math.tanh,
    "s": lambda x: 1 / (1 + math.exp(-x)),
    "p": lambda x: math.log(1 + math.exp(x)),
    "r": lambda x: max(x, 0.0),
    "g": lambda x: math.exp(-x * x / 2),
    "c": math.cos,
    "S": lambda x: 1 - 1 / (1 + math.exp(-x)),
    "e": lambda x: math.exp(-x),
    "h": lambda x: x * x,
}
Z = {"H": 1, "C": 6, "O": 8, "Cu": 29}
Neighbours = list[tuple[np.ndarray, str]]


def f_c(r: float, radius: float, kind: int, inner: float) -> float:
    if r >= radius:
        return 0.0
    if kind in (2, 3):
        inner = 0.0
    return 1.0 if r < inner * radius else CUTOFFS[kind]((r - inner * radius) / (radius - inner * radius))


def bump(x: float, low: float, high: float, shape: str, asymmetric: bool) -> float:
    y = abs(2 * x - low - high) / (high - low)
    if y >= 1:
        return 0.0
    return SHAPES[shape[:2]]((2 - y) * y if asymmetric else y)


def function_value(words: Sequence[str], near: Neighbours, kind: int, inner: float) -> float:
    """One symmetry function of one atom; ``words`` from the type on."""
    number, rest = int(words[0]), list(words[1:])
    wanted = []
    while rest[0] in Z:
        wanted.append(rest.pop(0))
    shape = rest.pop() if number >= 20 else ""
    values = [float(word) for word in rest]
    total = 0.0
    if number in (2, 12, 20, 23):
        for v, symbol in near:
            r = np.linalg.norm(v)
            weight = float(Z[symbol]) if number in (12, 23) else float(symbol == wanted[0])
            if number >= 20:
                total += weight * bump(r, values[0], values[1], shape, shape.endswith("a"))
            else:
                total += weight * math.exp(-values[0] * (r - values[1]) ** 2) * f_c(r, values[2], kind, inner)
        return total
    for (v, e), (w, f) in itertools.combinations(near, 2):
        if number in (13, 24, 25):
            weight = float(Z[e] * Z[f])
        elif sorted([e, f]) == sorted(wanted):
            weight = 1.0
        else:
            continue
        r, s, t = (float(np.linalg.norm(x)) for x in (v, w, w - v))
        cosine = float(v @ w) / (r * s)
        sides = [r, s, t] if number in (3, 13, 21, 24) else [r, s]
        if number >= 20:
            low, high, left, right = values
            angle = math.acos(max(-1.0, min(1.0, cosine)))
            weight *= bump(angle, math.radians(left), math.radians(right), shape, False)
            for side in sides:
                weight *= bump(side, low, high, shape, shape.endswith("a"))
        else:
            if number == 13:
                eta, r_s, lambda_, zeta, radius = values
            else:
                eta, lambda_, zeta, radius = values[:4]
                r_s = values[4] if len(values) > 4 else 0.0
            weight *= 2 ** (1 - zeta) * max(0.0, 1 + lambda_ * cosine) ** zeta
            for side in sides:
                weight *= math.exp(-eta * (side - r_s) ** 2) * f_c(side, radius, kind, inner)
        total += weight
    return total


def order(line: str) -> tuple:
    """What n2p2 sorts by: SymFnc*::operator< of every type."""
    number, *rest = line.split()[1:]
    kind = int(number)
    own = []
    while rest[0] in Z:
        own.append(Z[rest.pop(0)])
    own.sort()
    if kind >= 20:
        *numbers, shape = rest
        low, high, *angles = map(float, numbers)
        return kind, shape, own, high, low, angles
    values = [float(word) for word in rest]
    if kind in (2, 12):
        eta, r_s, radius = values
        return kind, radius, eta, r_s, own
    if kind == 13:
        eta, r_s, lambda_, zeta, radius = values
    else:
        eta, lambda_, zeta, radius = values[:4]
        r_s = values[4] if len(values) > 4 else 0.0
    return kind, radius, eta, r_s, zeta, lambda_, own


def read_input(folder: Path) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for line in (folder / "input.nn").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            found.setdefault(words[0], []).append(words[1:])
    return found


def near_of(atoms: Atoms, i: int, reach: float) -> Neighbours:
    """Neighbours in the unit of the files, bohr, by brute force over images."""
    cells = range(-4, 5) if atoms.pbc.any() else range(1)
    near = []
    for j, (a, b, c) in itertools.product(range(len(atoms)), itertools.product(cells, repeat=3)):
        v = (atoms.positions[j] - atoms.positions[i] + np.array([a, b, c]) @ atoms.cell.array) / Bohr
        if 0 < np.linalg.norm(v) < reach:
            near.append((v, atoms[j].symbol))
    return near


def features_by_hand(folder: Path, atoms: Atoms) -> list[list[float]]:
    """Symmetry functions of every atom in n2p2's order."""
    words = read_input(folder)
    kind, *alpha = words["cutoff_type"][0]
    inner = float(alpha[0]) if alpha else 0.0
    lines = [" ".join(line) for line in words["symfunction_short"]]
    features = []
    for i in range(len(atoms)):
        near = near_of(atoms, i, 60.0 if not atoms.pbc.any() else 9.0)
        mine = sorted((line for line in lines if line.split()[0] == atoms[i].symbol), key=order)
        features.append([function_value(line.split()[1:], near, int(kind), inner) for line in mine])
    return features


def energy_by_hand(folder: Path, atoms: Atoms) -> float:
    """Energy of a structure in the unit of the files."""
    words = read_input(folder)
    symbols = sorted(words["elements"][0], key=lambda s: Z[s])
    table = [
        [float(x) for x in line.split()]
        for line in (folder / "scaling.data").read_text().splitlines()
        if not line.startswith("#")
    ]
    low_to, high_to = (float(words.get(k, [[d]])[0][0]) for k, d in (("scale_min_short", 0), ("scale_max_short", 1)))
    scale, centre, sigma = (
        f"{name}_symmetry_functions{end}" in words for name, end in (("scale", ""), ("center", ""), ("scale", "_sigma"))
    )
    nodes = [int(n) for n in words.get("global_nodes_short", [[]])[0]]
    names = words["global_activation_short"][0]
    mean, conversion = (float(words.get(k, [[d]])[0][0]) for k, d in (("mean_energy", 0), ("conv_energy", 1)))
    offsets = {symbol: float(value) for symbol, value in words.get("atom_energy", [])}
    total = 0.0
    for atom, features in zip(atoms, features_by_hand(folder, atoms), strict=True):
        e = symbols.index(atom.symbol) + 1
        rows = [row for row in table if row[0] == e]
        x = []
        for g, (_, _, smallest, largest, average, *rest) in zip(features, rows, strict=True):
            if scale and centre:
                x.append(low_to + (high_to - low_to) * (g - average) / (largest - smallest))
            elif scale:
                x.append(low_to + (high_to - low_to) * (g - smallest) / (largest - smallest))
            elif centre:
                x.append(g - average)
            elif sigma:
                x.append(low_to + (high_to - low_to) * (g - average) / rest[0])
            else:
                x.append(g)
        column = [
            float(line.split()[0])
            for line in (folder / f"weights.{Z[atom.symbol]:03d}.data").read_text().splitlines()
            if not line.startswith("#")
        ]
        for width, name in zip([*nodes, 1], names, strict=True):
            n = len(x)
            weight = [column[j * width : (j + 1) * width] for j in range(n)]
            bias = column[n * width : (n + 1) * width]
            del column[: (n + 1) * width]
            share = n if "normalize_nodes" in words else 1
            sums = [(bias[k] + math.fsum(weight[j][k] * x[j] for j in range(n))) / share for k in range(width)]
            x = [ACTIVATIONS[name](value) for value in sums]
        assert column == []
        total += x[0] / conversion + mean + offsets.get(atom.symbol, 0.0)
    return total


# ------------------------------------------------------------------------------------------------ folders for the tests

RADIAL = ["2 {a} 0.08 0.0 9.0", "2 {a} 0.4 2.5 9.0", "2 {b} 0.3 1.5 7.5", "12 0.1 1.0 9.0", "12 0.3 0.0 6.0"]
ANGULAR = [
    "3 {a} {b} 0.01 1.0 2.0 9.0",
    "3 {b} {a} 0.02 -1 1.5 8.0 0.3",
    "3 {a} {a} 0.005 1 4 9.0",
    "9 {a} {a} 0.01 -1 3 9.0",
    "9 {a} {b} 0.01 1 16 7.5 0.5",
    "9 {b} {b} 0.02 1 2.5 9.0",
    "13 0.01 0.2 1.0 2.0 9.0",
    "13 0.02 0.0 -1.0 1.0 8.5",
]
COMPACT = [
    "20 {a} -7.0 7.0 p2",
    "20 {b} 1.0 8.0 p1a",
    "20 {a} 0.5 6.0 e",
    "21 {a} {b} -9.0 9.0 20.0 130.0 p3",
    "21 {b} {b} 0.5 9.0 -120.0 120.0 p4a",
    "22 {a} {a} -8.0 8.0 30.0 330.0 p1",
    "22 {b} {a} 0.3 8.0 0.0 180.0 e",
    "23 0.0 7.0 p4",
    "24 0.2 9.0 10.0 170.0 p2a",
    "25 -6.0 6.0 40.0 320.0 p3a",
]
EVERYTHING = RADIAL + ANGULAR + COMPACT


def cluster(seed: int = 0, n: int = 7, symbols: Sequence[str] = ("H", "O")) -> Atoms:
    """Atoms within 3 Å, none closer than 0.9 Å."""
    rng = np.random.default_rng(seed)
    points: list[np.ndarray] = []
    while len(points) < n:
        point = rng.uniform(0.0, 3.0, 3)
        if all(np.linalg.norm(point - other) > 0.9 for other in points):
            points.append(point)
    return Atoms([symbols[i % len(symbols)] for i in range(n)], points)


def folder_of(
    home: Path,
    forms: Sequence[str] = EVERYTHING,
    *,
    seed: int = 0,
    cutoff: str = "1",
    scaling: Sequence[str] = ("scale_symmetry_functions", "center_symmetry_functions"),
    nodes: str = "5 4",
    activations: str = "t t l",
    more: Sequence[str] = (),
    columns: int = 6,
) -> Path:
    """A potential for H and O with random weights, written by other code than that under test."""
    rng = np.random.default_rng(seed)
    home.mkdir(parents=True, exist_ok=True)
    lines = [f"symfunction_short {c} " + form.format(a=a, b=b) for c, a, b in ("HOH", "OHO") for form in forms]
    rng.shuffle(lines)
    header = [
        "number_of_elements 2  # how many",
        "elements O H",
        f"cutoff_type {cutoff}",
        *scaling,
        f"global_hidden_layers_short {len(nodes.split())}",
        *([f"global_nodes_short {nodes}"] if nodes else []),
        f"global_activation_short {activations}",
        "epochs 10",
        "# a comment",
        "",
        *more,
    ]
    (home / "input.nn").write_text("\n".join([*header, *lines]) + "\n")
    by_atom = features_by_hand(home, cluster(99))
    rows, widths = ["# header"], [*map(int, nodes.split()), 1]
    for e, symbol in enumerate("HO"):
        columns_of = np.array([g for g, atom in zip(by_atom, cluster(99), strict=True) if atom.symbol == symbol])
        low, high = columns_of.min(0) - rng.uniform(0.0, 0.2), columns_of.max(0) + rng.uniform(0.01, 0.2)
        for k in range(len(forms)):
            values = low[k], high[k], rng.uniform(low[k], high[k]), (high[k] - low[k]) * rng.uniform(0.2, 0.4)
            rows.append(f"{e + 1:10d} {k + 1:10d}" + "".join(f" {v:24.16E}" for v in values[: columns - 2]))
        n, weights = len(forms), []
        for m in widths:
            weights += [*rng.normal(0.0, 1.0 / math.sqrt(n), n * m), *rng.normal(0.0, 0.3, m)]
            n = m
        text = "".join(f"{w:24.16E} a {k + 1:9d}\n" for k, w in enumerate(weights))
        (home / f"weights.{Z[symbol]:03d}.data").write_text("# header\n" + text)
    (home / "scaling.data").write_text("\n".join(rows) + "\n")
    return home


def energy_of(potential: Potential, atoms: Atoms) -> float:
    """In hartree."""
    batch = atoms_to_structures(atoms, potential.cutoff)
    return float(potential.predict(batch, forces=False, stress=False).energy[0]) / Hartree


def same_energy(folder: Path, atoms: Atoms, **units: str) -> None:
    expected = energy_by_hand(folder, atoms)
    # sums of some hundred terms of order 1, each exact to 1e-16, times weights of order 1
    assert energy_of(read_n2p2(folder, **units), atoms) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("form", EVERYTHING)
def test_every_type_of_function(form: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [form, "2 {a} 0.1 0.0 9.0"], cutoff="2")
    atoms = cluster(1)
    same_energy(folder, atoms)
    potential = read_n2p2(folder)
    values = potential.features(atoms_to_structures(atoms, potential.cutoff))
    expected = features_by_hand(folder, atoms)
    for z, symbol in ((1, "H"), (8, "O")):
        mine = [g for g, atom in zip(expected, atoms, strict=True) if atom.symbol == symbol]
        np.testing.assert_allclose(values[z].numpy(), mine, rtol=1e-12, atol=1e-13)
        assert np.abs(mine).max(axis=0).min() > 1e-7  # every function is seen to work


@pytest.mark.parametrize("inner", ["", " 0.0", " 0.35"])
@pytest.mark.parametrize("kind", range(9))
def test_every_type_of_cutoff(kind: int, inner: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL + ANGULAR, cutoff=f"{kind}{inner}")
    same_energy(folder, cluster(2))


def test_types_of_cutoff_differ(tmp_path: Path) -> None:
    energies = [
        energy_of(read_n2p2(folder_of(tmp_path, RADIAL, cutoff=f"{kind} {inner}")), cluster(2))
        for kind in range(9)
        for inner in (0.0, 0.35)
    ]
    # the inner radius has no meaning for hard (0), and n2p2 ignores it for the two tanh (2 and 3)
    assert len({round(energy, 9) for energy in energies}) == 18 - 3


SCALINGS = {
    "none": (),
    "scale": ("scale_symmetry_functions",),
    "center": ("center_symmetry_functions",),
    "scale and center": ("scale_symmetry_functions", "center_symmetry_functions"),
    "sigma": ("scale_symmetry_functions_sigma",),
    "range before sigma": ("scale_symmetry_functions", "scale_symmetry_functions_sigma"),
    "scale to another range": ("scale_symmetry_functions", "scale_min_short -1.5", "scale_max_short 2"),
    "sigma to another range": ("scale_symmetry_functions_sigma", "scale_min_short 0.2", "scale_max_short 0.7"),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_every_mode_of_scaling(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL[:3] + COMPACT[:3], scaling=SCALINGS[name])
    same_energy(folder, cluster(3))


def test_modes_of_scaling_differ(tmp_path: Path) -> None:
    energies = {
        name: energy_of(read_n2p2(folder_of(tmp_path, RADIAL, scaling=lines)), cluster(3))
        for name, lines in SCALINGS.items()
    }
    assert energies.pop("range before sigma") == energies["scale"]
    assert len({round(energy, 9) for energy in energies.values()}) == len(energies)


@pytest.mark.parametrize("letter", ACTIVATIONS)
def test_every_activation(letter: str, tmp_path: Path) -> None:
    same_energy(folder_of(tmp_path, RADIAL, activations=f"{letter} t l"), cluster(4))
    same_energy(folder_of(tmp_path, RADIAL, nodes="6", activations=f"{letter} l"), cluster(4))
    same_energy(folder_of(tmp_path, RADIAL, activations=f"t p {letter}"), cluster(4))  # an output that is not linear


@pytest.mark.parametrize(
    "more",
    [
        ("normalize_nodes",),
        ("atom_energy O -74.94518524", "atom_energy H -0.45890771"),
        ("mean_energy -25.5", "conv_energy 242.6", "conv_length 5.8"),
        ("mean_energy -25.5", "conv_energy 242.6", "conv_length 5.8", "atom_energy O -1.5", "normalize_nodes"),
        ("nnp_type 2G-HDNNP",),
        ("nnp_gen 2", "use_short_forces", "unheard_of_keyword 1 2 3", "electrostatic_type 5", "cutoff_alpha 0.0"),
    ],
)
def test_other_settings(more: Sequence[str], tmp_path: Path) -> None:
    same_energy(folder_of(tmp_path, RADIAL + ANGULAR[:4], more=more), cluster(5))


def test_a_network_without_hidden_layers(tmp_path: Path) -> None:
    same_energy(folder_of(tmp_path, RADIAL, nodes="", activations="l"), cluster(5))


def test_periodic_crystals(tmp_path: Path) -> None:
    atoms = Atoms("HOH", [[0, 0, 0], [1.1, 0.2, 0.3], [0.3, 1.4, 1.9]], pbc=True)
    atoms.set_cell([[2.9, 0, 0], [0.4, 3.1, 0], [-0.5, 0.3, 3.3]])
    folder = folder_of(tmp_path, ["2 {a} 0.1 1.0 8.0", "3 {a} {a} 0.01 1 2 6.0", "22 {a} {b} 0.5 5.0 20 160 p2"])
    same_energy(folder, atoms)


def test_forces_are_the_slope_of_the_other_implementation(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, cutoff="6 0.2")
    potential, atoms = read_n2p2(folder), cluster(6, n=4)
    forces = potential.predict(atoms_to_structures(atoms, potential.cutoff)).forces.numpy() / (Hartree / Bohr)
    step = 1e-3 * Bohr
    for i, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[i, axis] += k * step
            energies.append(energy_by_hand(folder, moved))
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * 1e-3)
        # fourth order: the error of the difference is the fifth derivative times step⁴ / 30
        assert forces[i, axis] == pytest.approx(-slope, abs=1e-8)


def test_other_units(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL + ANGULAR)
    atoms = cluster(7)
    in_bohr = energy_of(read_n2p2(folder), atoms) * Hartree
    scaled = Atoms(atoms.symbols, atoms.positions / Bohr)
    in_angstrom = energy_of(read_n2p2(folder, energy_unit="eV", length_unit="Å"), scaled) * Hartree
    assert in_angstrom == pytest.approx(in_bohr / Hartree, rel=1e-13)


def test_the_order_of_lines_means_nothing_and_that_of_the_statistics_everything(tmp_path: Path) -> None:
    folder, atoms = folder_of(tmp_path), cluster(8)
    energy = energy_of(read_n2p2(folder), atoms)
    lines = (folder / "input.nn").read_text().splitlines()
    (folder / "input.nn").write_text("\n".join(lines[::-1]))
    assert energy_of(read_n2p2(folder), atoms) == energy
    # the control: columns of the weights belong to functions in n2p2's order, not in that of the file
    rows = (folder / "scaling.data").read_text().splitlines()
    swapped = rows[1][:21] + rows[5][21:], rows[5][:21] + rows[1][21:]
    (folder / "scaling.data").write_text("\n".join([rows[0], swapped[0], *rows[2:5], swapped[1], *rows[6:]]))
    assert abs(energy_of(read_n2p2(folder), atoms) - energy) > 1e-6


def test_statistics_become_the_training_range(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    potential = read_n2p2(folder)
    table = np.loadtxt(folder / "scaling.data")
    for e, symbol in enumerate("HO"):
        np.testing.assert_array_equal(potential.feature_ranges[symbol], table[table[:, 0] == e + 1, 2:4])
    far = cluster(9)
    far.positions *= 2.5
    assert potential.extrapolation(atoms_to_structures(far, potential.cutoff))


def test_old_files_have_no_sigma_and_end_with_energies(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL, columns=5)
    same_energy(folder, cluster(1))
    with (folder / "scaling.data").open("a") as file:
        file.write("  -1.5  2.5\n")
    same_energy(folder, cluster(1))


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".bz2"])
def test_packed_files(suffix: str, tmp_path: Path) -> None:
    import bz2
    import gzip

    pack = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    folder = folder_of(tmp_path, RADIAL)
    energy = energy_of(read_n2p2(folder), cluster())
    for name in ("input.nn", "weights.008.data"):
        (folder / (name + suffix)).write_bytes(pack((folder / name).read_bytes()))
        (folder / name).unlink()
    assert energy_of(read_n2p2(folder), cluster()) == energy


def test_a_potential_like_any_other(tmp_path: Path) -> None:
    potential = read_n2p2(folder_of(tmp_path / "n2p2"))
    potential.save(tmp_path / "water.molml")
    again = molml.load(tmp_path / "water.molml")
    atoms = cluster(3)
    atoms.calc = again.calculator(on_extrapolation="ignore")
    assert atoms.get_potential_energy() / Hartree == energy_of(potential, atoms)
    assert again.metadata["source"] == "n2p2"


# ------------------------------------------------------------------------------------- settings for one element only


def narrow_oxygen(home: Path, *lines: str, width: int = 3) -> Path:
    """Hydrogen has 5 and 4 hidden neurons, oxygen 5 and 3 (or another first width), by ``lines``."""
    folder = folder_of(home, RADIAL)
    narrow = folder_of(home / "narrow", RADIAL, nodes=f"5 {width}")
    for name in ("weights.008.data", "scaling.data"):
        shutil.copy(narrow / name, folder)
    with (folder / "input.nn").open("a") as file:
        file.write("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("line", ["element_nodes_short O 5 3", "element_nodes_short O 2 3"])
def test_widths_of_one_element(line: str, tmp_path: Path) -> None:
    # a line of widths, and RuNNer's line of a layer and its width
    folder = narrow_oxygen(tmp_path, line)
    potential = read_n2p2(folder)
    assert potential.exceptions == {"O": ([5, 3], "tanh tanh")}
    oxygen = Atoms("O")
    assert energy_of(potential, oxygen) == pytest.approx(energy_by_hand(tmp_path / "narrow", oxygen), rel=1e-12)
    hydrogen = Atoms("H")
    assert energy_of(potential, hydrogen) == pytest.approx(energy_by_hand(folder, hydrogen), rel=1e-12)


def test_n2p2_keeps_the_last_width_of_all_elements(tmp_path: Path) -> None:
    # its source reads element_nodes_short up to the last layer but one; the number of weights tells
    folder = folder_of(tmp_path, RADIAL, more=["element_nodes_short O 5 2"])
    assert read_n2p2(folder).exceptions == {}
    same_energy(folder, cluster())


def test_depth_and_activations_of_one_element(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    other = folder_of(tmp_path / "other", RADIAL, nodes="3", activations="p l")
    for name in ("weights.008.data", "scaling.data"):
        shutil.copy(other / name, folder)
    with (folder / "input.nn").open("a") as file:
        file.write("element_hidden_layers_short O 1\nelement_nodes_short O 3\nelement_activation_short O p l\n")
    potential = read_n2p2(folder)
    assert potential.exceptions == {"O": ([3], "softplus")}
    for atoms, home in ((Atoms("O"), other), (Atoms("H"), folder)):
        assert energy_of(potential, atoms) == pytest.approx(energy_by_hand(home, atoms), rel=1e-12)
    with pytest.raises(ValueError, match="n2p2 can have only one number of hidden layers and one set of activation"):
        write_n2p2(potential, tmp_path / "written")


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nnp_type 4G-HDNNP", r"\(line 22\): only short-ranged potentials without charges .* got nnp_type '4G-HDNNP'"),
        ("nnp_gen 3", "only short-ranged potentials without charges"),
        ("use_electrostatics", "cannot read a potential with use_electrostatics: electrostatics are not part"),
        ("nn_type_short 2", "networks of pairs of atoms are not supported"),
        ("cutoff_alpha 0.5", "n2p2 ignores cutoff_alpha, RuNNer does not; give the inner"),
        ("element_symfunction_short H 2 0.1 0.0 6.0", "write every symmetry function out"),
        ("cutoff_type 2", "cutoff_type is given twice"),
        ("symfunction_short H 4 H H 0.1 1 1 6.0", "type 4 are not supported, only 2, 3, 9, 12, 13, 20"),
        ("symfunction_short H x H 0.1 0.0 6.0", "expected the type of a symmetry function, got 'H x H 0.1 0.0 6.0'"),
        ("symfunction_short H 2.5 H 0.1 0.0 6.0", "the type of a symmetry function must be a whole number, got 2.5"),
        ("symfunction_short C 2 H 0.1 0.0 6.0", "expected one of the elements H, O, got 'C'"),
        ("symfunction_short H 2 H 0.1 0.0", r"expected a number \(type 2\)"),
        ("symfunction_short H 2 H 0.1 nan 6.0", r"a number \(type 2\) must be finite, got nan"),
        ("symfunction_short H 20 H 0.1 6.0", "expected a form among p1, p2, p3, p4 .* got ''"),
        ("symfunction_short H 20 H 0.1 6.0 ea", "expected a form among p1, p2, p3, p4 .* got 'ea'"),
        ("symfunction_short H 3 H H 0.1 0.5 1 6.0", "lambda_ must be 1 or -1"),
        ("symfunction_short H 3 H H 0.1 1 0.5 6.0", "zeta must be at least 1"),
        ("symfunction_short H 20 H 6.0 1.0 p2", "high must lie above low"),
        ("symfunction_short H 22 H H 0 6.0 -10 90 p2", "centred at 0 or at 180"),
        ("mean_energy 1.0", r"must give all of mean_energy, conv_energy, conv_length or none, got \['mean_energy'\]"),
        ("mean_energy 1\nconv_energy 0\nconv_length 1", "conv_energy and conv_length of input.nn must be positive"),
        ("atom_energy H", "expected the energy of an atom, got 'H'"),
        ("element_hidden_layers_short O 3", "gives no activation functions for O"),
        (
            "element_hidden_layers_short O 3\nelement_activation_short O t t t l",
            "gives no widths of the hidden layers for O",
        ),
        ("element_nodes_short O 5 4 3", "expected 2 widths of hidden layers, got '5 4 3'"),
        ("element_nodes_short O 4 4", r"need .* numbers, got"),
        ("element_activation_short O t x l", "expected 3 activation functions among l t s .* got 't x l'"),
        ("element_activation_short O 1 2 t", "expected 3 activation functions among"),
    ],
)
def test_lines_that_are_refused(line: str, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    with (folder / "input.nn").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_n2p2(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("elements O H\n", "elements O Q\n", r"input.nn \(line 2\): unknown element 'Q'"),
        ("number_of_elements 2", "number_of_elements 3", "says 3, but the elements are 'O H'"),
        ("elements O H\n", "elements O O\n", "says 2, but the elements are 'O O'"),
        ("elements O H\n", "", "input.nn has no line elements"),
        ("cutoff_type 1", "cutoff_type 9", "the cutoff type must be 0 to 8, got 9"),
        ("cutoff_type 1", "cutoff_type 1 1.0", "the inner cutoff must be a fraction from 0 to below 1, got 1.0"),
        ("cutoff_type 1", "", "input.nn has no line cutoff_type"),
        ("global_nodes_short 5 4", "global_nodes_short 5", "must have 2 entries for global_hidden_layers_short, got 1"),
        ("global_nodes_short 5 4", "", "gives no widths of the hidden layers for H"),
        ("global_nodes_short 5 4", "global_nodes_short 5 5", r"weights.001.data: 5 symmetry functions .*\[5, 5\]"),
        ("global_activation_short t t l", "", "gives no activation functions for H"),
        ("global_hidden_layers_short 2", "", "must have None entries|gives no number of hidden layers"),
        ("symfunction_short O", "# symfunction_short O", "has no symfunction_short for O"),
    ],
)
def test_inputs_that_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    text = (folder / "input.nn").read_text()
    (folder / "input.nn").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_n2p2(folder)


def test_no_number_of_layers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    lines = (folder / "input.nn").read_text().splitlines()
    (folder / "input.nn").write_text("\n".join(line for line in lines if not line.startswith("global_")))
    with pytest.raises(ValueError, match=r"no number of hidden layers for H \(global_hidden_layers_short\)"):
        read_n2p2(folder)


def test_radii_must_be_positive(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["2 {a} 0.1 0.0 9.0"])
    text = (folder / "input.nn").read_text()
    (folder / "input.nn").write_text(text.replace("9.0", "-9.0"))
    with pytest.raises(ValueError, match="cutoff radii must be positive, got -9"):
        read_n2p2(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[:-1], "must have one line for each of the 10 symmetry functions of input.nn, got 9"),
        (lambda rows: [*rows, rows[-1]], "must have one line for each of the 10 symmetry functions"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], r"line 2\): expected function 1 of element 1 \(H\)"),
        (lambda rows: [rows[0][:22] + "x", *rows[1:]], "expected minimum, maximum, mean and standard deviation"),
        (lambda rows: [rows[0][:22] + " 1.0 1.0 1.0 0.0", *rows[1:]], "function 1 of H cannot be scaled, its sf_max"),
    ],
)
def test_statistics_that_are_refused(edit: Callable, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    header, *rows = (folder / "scaling.data").read_text().splitlines()
    (folder / "scaling.data").write_text("\n".join([header, *edit(rows)]))
    with pytest.raises(ValueError, match=message):
        read_n2p2(folder)


def test_sigma_that_is_missing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL, columns=5, scaling=["scale_symmetry_functions_sigma"])
    with pytest.raises(ValueError, match="function 1 of H cannot be scaled, its sf_sigma is 0; remove the function"):
        read_n2p2(folder)


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    path = folder / "weights.008.data"
    path.write_text(path.read_text().replace("E", "D", 20))
    with pytest.raises(ValueError, match=r"weights.008.data \(line .*\): expected a weight, got"):
        read_n2p2(folder)


@pytest.mark.parametrize("name", ["input.nn", "scaling.data", "weights.001.data"])
def test_files_that_are_missing(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, RADIAL)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing; a potential needs input.nn"):
        read_n2p2(folder)


def test_unknown_units(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="energy_unit must be one of eV, hartree, .*, got 'Ha'"):
        read_n2p2(folder_of(tmp_path, RADIAL), energy_unit="Ha")
    with pytest.raises(ValueError, match="length_unit must be one of Å, bohr, nm, got 'a.u.'"):
        write_n2p2(read_n2p2(tmp_path), tmp_path, length_unit="a.u.")


# ----------------------------------------------------------------------------------------------------------- writing

WRITABLE: dict[str, list[Function]] = {
    symbol: [
        G1("H"),
        G1("*", 4.0),
        G2("O", 0.8, 1.2),
        G2("*", 0.3, 0.0, 3.5),
        G4(("H", "O"), 0.04, 2, -1),
        G4(("*", "*"), 0.03, 1.5, 1, 0.2),
        G5(("O", "O"), 0.05, 3, 1, 0.0, 4.5),
        G5(("H", "O"), 0.05, 2.5, -1, 0.4),
        Compact("H", -4.0, 4.0),
        Compact("*", 0.5, 4.0, "polynomial_9", True),
        CompactAngle(("H", "O"), 0.2, 4.8, 10.0, 160.0, "polynomial_3"),
        CompactAngle(("*", "*"), 0.2, 5.0, -100.0, 100.0, "exponential", False, True),
    ]
    for symbol in ("H", "O")
}


def statistics_of(functions: SymmetryFunctions) -> FeatureStatistics:
    batches = [atoms_to_structures(cluster(seed), functions.cutoff) for seed in range(12)]
    return feature_statistics([[block.numpy() for block in functions(batch).values()] for batch in batches])


def writable(**changes: object) -> SymmetryFunctions:
    keywords = {"cutoff": 5.0, "cutoff_function": "polynomial_7", "inner_cutoff": 0.1} | changes
    return SymmetryFunctions(WRITABLE, **keywords)


def random_linear(functions: SymmetryFunctions, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        0.1 * torch.randn(std.shape, generator=generator, dtype=torch.float64) / std
        for std in statistics_of(functions).std
    ]


def network(functions: SymmetryFunctions, activation: str = "tanh", **changes: object) -> BehlerParrinello:
    keywords = {"hidden": (6, 5), "activation": activation, "energy_scale": 0.3, "seed": 3} | changes
    return BehlerParrinello(functions, statistics_of(functions), [-13.0, -2041.0], **keywords).eval()


def written(potential: Potential, folder: Path) -> None:
    """The other implementation, and the reader, find the same energies in what was written."""
    write_n2p2(potential, folder)
    again = read_n2p2(folder)
    for seed in range(2):
        atoms = cluster(20 + seed)
        energy = energy_of(potential, atoms)
        assert energy_by_hand(folder, atoms) == pytest.approx(energy, rel=1e-13)
        assert energy_of(again, atoms) == pytest.approx(energy, rel=1e-13)
        batch = atoms_to_structures(atoms, potential.cutoff)
        forces, expected = again.predict(batch).forces, potential.predict(batch).forces
        torch.testing.assert_close(forces, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("activation", ["tanh", "logistic square", "softplus", "relu gaussian"])
def test_networks_written(activation: str, tmp_path: Path) -> None:
    written(network(writable(), activation), tmp_path / "new" / "folder")


@pytest.mark.parametrize("kind", ["hard", "cosine", "tanh", "tanh_unscaled", "exponential", "polynomial_3"])
def test_cutoffs_written(kind: str, tmp_path: Path) -> None:
    written(network(writable(cutoff_function=kind, inner_cutoff=0.0)), tmp_path)


def test_linear_potentials_written(tmp_path: Path) -> None:
    functions = writable()
    written(LinearPotential(functions, random_linear(functions), [-13.0, 5.0], statistics_of(functions)), tmp_path)


@pytest.mark.parametrize("activation", ["softplus", "relu", "identity softplus", "relu identity"])
def test_linear_part_is_carried_through(activation: str, tmp_path: Path) -> None:
    functions = writable()
    written(network(functions, activation, linear=random_linear(functions)), tmp_path)


def test_a_network_without_hidden_layers_is_written(tmp_path: Path) -> None:
    functions = writable()
    written(network(functions, hidden=(), linear=random_linear(functions)), tmp_path)


def test_a_narrower_network_is_written(tmp_path: Path) -> None:
    potential = network(writable(), exceptions={"O": ((3, 5), "tanh")})
    written(potential, tmp_path)
    assert "global_nodes_short              6 5" in (tmp_path / "input.nn").read_text().splitlines()


def test_functions_that_never_varied_are_left_out(tmp_path: Path) -> None:
    functions = writable()
    statistics = statistics_of(functions)
    for std in statistics.std:
        std[2] = 0.0
    potential = BehlerParrinello(functions, statistics, [0.0, 0.0], hidden=(4,), activation="tanh").eval()
    written(potential, tmp_path)
    assert (tmp_path / "input.nn").read_text().count("symfunction_short") == 2 * 11
    linear = LinearPotential(functions, random_linear(functions), [0.0, 0.0], statistics)
    written(linear, tmp_path)
    assert (tmp_path / "input.nn").read_text().count("symfunction_short") == 2 * 12


def test_a_fitted_network_is_written(emt_crystals, tmp_path: Path) -> None:
    functions = [G2("Cu", 1.0, r_s) for r_s in (2.0, 2.5, 3.0)] + [G4(("Cu", "Cu"), 0.02, 2, x) for x in (-1, 1)]
    potential = fit(
        StructureDataset(emt_crystals(12)),
        functions=SymmetryFunctions({"Cu": functions}, cutoff=4.5, cutoff_function="cosine"),
        hidden=(6, 5),
        activation="softplus",
        quadratic=False,
        epochs=2,
        progress=False,
    )
    with pytest.warns(UserWarning, match=r"no short-range guard: the files give no repulsion to Cu-Cu below 1\.\d+ Å"):
        write_n2p2(potential, tmp_path)
    assert read_n2p2(tmp_path).guard is None
    atoms = Atoms("Cu6", cluster(3, n=6).positions * 2.2)
    energy = energy_of(potential, atoms)
    assert energy_by_hand(tmp_path, atoms) == pytest.approx(energy, rel=1e-12)
    assert energy_of(read_n2p2(tmp_path), atoms) == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_what_was_read_is_written_again(scaling: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", scaling=SCALINGS[scaling], activations="t s e", more=["normalize_nodes"])
    written(read_n2p2(folder), tmp_path / "b")


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 6),
    units=st.sampled_from([("hartree", "bohr"), ("eV", "Å"), ("kcal/mol", "nm")]),
)
@settings(max_examples=15, deadline=None)
def test_round_trip(seed: int, n: int, units: tuple[str, str], tmp_path_factory) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(len(WRITABLE["H"]))[:n]
    functions = SymmetryFunctions({s: [WRITABLE[s][k] for k in numbers] for s in WRITABLE}, cutoff=5.0)
    potential = network(functions, seed=seed)
    folder = tmp_path_factory.mktemp("round")
    write_n2p2(potential, folder, energy_unit=units[0], length_unit=units[1])
    again = read_n2p2(folder, energy_unit=units[0], length_unit=units[1])
    atoms = cluster(seed % 97)
    assert energy_of(again, atoms) == pytest.approx(energy_of(potential, atoms), rel=1e-12)
    # a second time nothing changes any more but the last bits of the units
    write_n2p2(again, folder, energy_unit=units[0], length_unit=units[1])
    third = read_n2p2(folder, energy_unit=units[0], length_unit=units[1])
    assert third.features.n_functions("H") == again.features.n_functions("H")
    assert energy_of(third, atoms) == pytest.approx(energy_of(again, atoms), rel=1e-12)


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    functions = SymmetryFunctions({"Cu": [G2("Cu", 1.0), G1("Cu")]}, cutoff=5.0, cutoff_function="cosine")
    statistics = FeatureStatistics(*([torch.tensor([x, 1.0], dtype=torch.float64)] for x in (0.5, 0.25, 0.0, 2.0)))
    potential = BehlerParrinello(functions, statistics, [-3.5], hidden=(2,), activation="tanh")
    write_n2p2(potential, tmp_path, energy_unit="eV", length_unit="Å")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.nn", "scaling.data", "weights.029.data"]
    lines = [line.split() for line in (tmp_path / "input.nn").read_text().splitlines() if line and line[0] != "#"]
    assert lines == [
        ["number_of_elements", "1"],
        ["elements", "Cu"],
        ["atom_energy", "Cu", "-3.5"],
        ["cutoff_type", "1", "0.0"],
        ["scale_symmetry_functions_sigma"],
        ["scale_min_short", "0.0"],
        ["scale_max_short", "1.0"],
        ["global_hidden_layers_short", "1"],
        ["global_nodes_short", "2"],
        ["global_activation_short", "t", "l"],
        ["symfunction_short", "Cu", "2", "Cu", "0.0", "0.0", "5.0"],
        ["symfunction_short", "Cu", "2", "Cu", "1.0", "0.0", "5.0"],
    ]
    rows = [line for line in (tmp_path / "scaling.data").read_text().splitlines() if line[0] != "#"]
    # the constant G1 sorts first: eta = 0
    assert rows[1] == (
        "         1          2   0.0000000000000000E+00   2.0000000000000000E+00   5.0000000000000000E-01   "
        "2.5000000000000000E-01"
    )
    weights = [line for line in (tmp_path / "weights.029.data").read_text().splitlines() if line[0] != "#"]
    assert [line.split()[1:] for line in weights] == [
        ["a", "1", "0", "1", "1", "1"],
        ["a", "2", "0", "1", "1", "2"],
        ["a", "3", "0", "2", "1", "1"],
        ["a", "4", "0", "2", "1", "2"],
        ["b", "5", "1", "1"],
        ["b", "6", "1", "2"],
        ["a", "7", "1", "1", "2", "1"],
        ["a", "8", "1", "2", "2", "1"],
        ["b", "9", "2", "1"],
    ]
    assert all(len(line.split()[0]) >= 22 and line[24:27] in (" a ", " b ") for line in weights)


def unwritable(function: Function, symbol: str = "H", **changes: object) -> LinearPotential:
    functions = SymmetryFunctions({symbol: [function]}, cutoff=5.0, **changes)
    one = [torch.ones(1, dtype=torch.float64)]
    return LinearPotential(functions, one, [0.0], FeatureStatistics(one, one, one, one))


@pytest.mark.parametrize(
    "function",
    [
        G3("H", 1.0),
        G5(("*", "*"), 0.1, 2, 1),
        ThreeBody(("H", "H"), ((1.0, 1.0), (1.0, 1.0)), 1),
        FourBody(("H", "H", "H"), ((1.0, 1.0),) * 3, (1, 1, 2)),
    ],
)
def test_functions_that_n2p2_has_not(function: Function, tmp_path: Path) -> None:
    name = type(function).__name__
    with pytest.raises(ValueError, match=f"n2p2 has no symmetry function such as {name}.* of H; fit with"):
        write_n2p2(unwritable(function), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    functions = writable()
    with pytest.raises(ValueError, match="n2p2 has no activation function silu, only identity, tanh"):
        write_n2p2(network(functions, "silu"), tmp_path)
    with pytest.raises(ValueError, match="linear part beside the network of H cannot be written for n2p2 with tanh"):
        write_n2p2(network(functions, "tanh", linear=random_linear(functions)), tmp_path)
    with pytest.raises(ValueError, match="only one number of hidden layers and one set of activation functions"):
        write_n2p2(network(functions, exceptions={"O": ((6, 5), "softplus")}), tmp_path)
    with pytest.raises(TypeError, match="got Committee; write the members of a committee one by one"):
        write_n2p2(Committee([network(functions), network(functions, seed=4)]), tmp_path)
    with pytest.raises(ValueError, match="no asymmetric exponential function such as Compact"):
        write_n2p2(unwritable(Compact("H", 0.0, 4.0, "exponential", True)), tmp_path)
    with pytest.raises(ValueError, match="n2p2 knows elements up to No, got Lr"):
        write_n2p2(unwritable(G1("Lr"), "Lr"), tmp_path)
    empty = SymmetryFunctions({"H": [G1("H")], "O": []}, cutoff=5.0)
    one, none = torch.ones(1, dtype=torch.float64), torch.ones(0, dtype=torch.float64)
    potential = LinearPotential(empty, [one, none], [0.0, 0.0], FeatureStatistics(*([one, none] for _ in range(4))))
    with pytest.raises(ValueError, match="at least one symmetry function for every element, got none for O"):
        write_n2p2(potential, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- n2p2's own numbers


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_water_as_n2p2_computes_it() -> None:
    folder = shared("n2p2/pot_H2O_RPBE-D3")
    (atoms,) = read_structures(folder / "input.data.xz")
    potential = read_n2p2(folder)
    prediction = potential.predict(atoms_to_structures(atoms, potential.cutoff), stress=False)
    energy = float((folder / "ref_energy.out").read_text().splitlines()[-1].split()[3])
    assert float(prediction.energy[0]) / Hartree == pytest.approx(energy, rel=1e-13)
    forces = np.loadtxt(lzma.open(folder / "ref_nnforces.out.xz", "rt"))[:, 5:8]
    np.testing.assert_allclose(prediction.forces.numpy() / (Hartree / Bohr), forces, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("element", "published"),
    # energy RMSE, MAE (meV/atom), force RMSE, MAE (eV/Å) of Zuo et al., J. Phys. Chem. A 124, 731 (2020), as n2p2
    # evaluates them on the test structures
    [("Cu", (1.68, 1.15, 0.0630, 0.0262)), ("Si", (6.93, 5.63, 0.1697, 0.1086))],
)
def test_published_networks_have_the_published_errors(element: str, published: tuple[float, ...]) -> None:
    potential = read_n2p2(shared(f"mlearn/nnp_{element}"))
    found = evaluate(potential, StructureDataset(shared(f"mlearn/{element}_test.xyz.xz")), progress=False).metrics
    errors = [found[name] for name in ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")]
    # three digits are published
    assert [1e3 * errors[0], 1e3 * errors[1], *errors[2:]] == pytest.approx(published, rel=5e-3)


def test_a_copper_crystal_from_published_weights_survives_writing(tmp_path: Path) -> None:
    potential = read_n2p2(shared("mlearn/nnp_Cu"))
    write_n2p2(potential, tmp_path)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=0)
    batch = atoms_to_structures(atoms, potential.cutoff)
    one, other = potential.predict(batch), read_n2p2(tmp_path).predict(batch)
    assert float(other.energy[0]) == pytest.approx(float(one.energy[0]), rel=1e-13)
    torch.testing.assert_close(other.forces, one.forces, rtol=0, atol=1e-12)
