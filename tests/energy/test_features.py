"""Symmetry functions against plain loops over neighbours, written out from the papers' formulas."""

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers
from numpy.polynomial import legendre

from molml.energy.data import atoms_to_structures, pair_vectors
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
    element_index,
    neighbour_pairs_of_atoms,
)

CUTOFF = 4.0
SYMBOLS = ("H", "C", "O")
Neighbours = list[tuple[np.ndarray, str]]
Fc = Callable[[float], float]


def cosine(r: float, cutoff: float = CUTOFF) -> float:
    return 0.5 * (1 + math.cos(math.pi * r / cutoff)) if r < cutoff else 0.0


def tanh(r: float, cutoff: float = CUTOFF) -> float:
    return math.tanh(1 - r / cutoff) ** 3 / math.tanh(1.0) ** 3 if r < cutoff else 0.0


def polynomial(r: float, cutoff: float = CUTOFF) -> float:
    x = r / cutoff
    return 1 - 10 * x**3 + 15 * x**4 - 6 * x**5 if r < cutoff else 0.0


FC = {"cosine": cosine, "tanh": tanh, "polynomial": polynomial}
SHAPE = {
    "polynomial": lambda x: 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
    "polynomial_3": lambda x: 1 - 3 * x**2 + 2 * x**3,
    "polynomial_7": lambda x: 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7,
    "polynomial_9": lambda x: 1 - 126 * x**5 + 420 * x**6 - 540 * x**7 + 315 * x**8 - 70 * x**9,
    "exponential": lambda x: math.exp(1 - 1 / (1 - x * x)),
}


def bump(x: float, low: float, high: float, shape: str, asymmetric: bool = False) -> float:
    y = abs(2 * x - low - high) / (high - low)
    return SHAPE[shape](2 * y - y * y if asymmetric else y) if y < 1 else 0.0


def counts(wanted: str, symbol: str) -> float:
    """How much a neighbour counts where ``wanted`` is asked for."""
    return float(atomic_numbers[symbol]) if wanted == "*" else float(wanted == symbol)


def length(v: np.ndarray) -> float:
    return math.sqrt(float(v @ v))


def sum_over_one(function: G1 | G2 | G3, neighbours: Neighbours, fc: Fc) -> float:
    total = 0.0
    for v, symbol in neighbours:
        r = length(v)
        form = {
            G1: lambda f, r: 1.0,
            G2: lambda f, r: math.exp(-f.eta * (r - f.r_s) ** 2),
            G3: lambda f, r: math.cos(f.kappa * r),
        }[type(function)]
        total += counts(function.neighbour, symbol) * form(function, r) * fc(r, function.cutoff or CUTOFF)
    return total


def sum_of_bumps(function: Compact, neighbours: Neighbours, fc: Fc) -> float:
    return sum(counts(function.neighbour, e) * bump(length(v), *function[1:]) for v, e in neighbours)


def sum_of_angle_bumps(function: CompactAngle, neighbours: Neighbours, fc: Fc) -> float:
    total = 0.0
    a, b = function.neighbours
    for (v, e), (w, f) in itertools.combinations(neighbours, 2):
        weight = counts("*", e) * counts("*", f) if a == "*" else float(sorted((a, b)) == sorted((e, f)))
        angle = math.degrees(math.acos(float(v @ w) / (length(v) * length(w))))
        sides = [length(v), length(w)] + [length(w - v)] * function.narrow
        value = bump(angle, function.angle_low, function.angle_high, function.shape)
        for side in sides:
            value *= bump(side, function.low, function.high, function.shape, function.asymmetric)
        total += weight * value
    return total


def sum_over_pairs(function: G4 | G5, neighbours: Neighbours, fc: Fc) -> float:
    total = 0.0
    a, b = function.neighbours
    for (v, e), (w, f) in itertools.combinations(neighbours, 2):
        if a == "*":
            weight = float(atomic_numbers[e] * atomic_numbers[f])
        else:
            weight = float(sorted((a, b)) == sorted((e, f)))
        r, s, t = length(v), length(w), length(w - v)
        angle = (1 + function.lambda_ * float(v @ w) / (r * s)) ** function.zeta
        squares = (r - function.r_s) ** 2 + (s - function.r_s) ** 2
        own = function.cutoff or CUTOFF
        product = fc(r, own) * fc(s, own)
        if isinstance(function, G4):
            squares += (t - function.r_s) ** 2
            product *= fc(t, own)
        total += weight * 2 ** (1 - function.zeta) * angle * math.exp(-function.eta * squares) * product
    return total


def gaussian(radial: tuple[float, float], r: float, fc: Fc) -> float:
    return math.exp(-radial[0] * (r - radial[1]) ** 2) * fc(r)


def legendre_value(degree: int, x: float | np.ndarray) -> np.ndarray:
    return legendre.legval(x, [0.0] * degree + [1.0])


def three_body(function: ThreeBody, neighbours: Neighbours, fc: Fc) -> float:
    total = 0.0
    for (v, e), (w, f) in itertools.product(neighbours, repeat=2):
        r, s = length(v), length(w)
        weight = counts(function.neighbours[0], e) * counts(function.neighbours[1], f)
        radial = gaussian(function.radials[0], r, fc) * gaussian(function.radials[1], s, fc)
        total += weight * radial * float(legendre_value(function.degree, float(v @ w) / (r * s)))
    return total


def average_over_directions(degrees: tuple[int, int, int], units: list[np.ndarray]) -> float:
    """∫ P_a(u·n) P_b(v·n) P_c(w·n) dn by quadrature, over its value at u = v = w: the invariant of three vectors."""
    z, weight = legendre.leggauss(14)
    phi = 2 * np.pi * np.arange(28) / 28
    s = np.sqrt(1 - z**2)
    points = np.stack([np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones(28))], -1).reshape(-1, 3)
    weights = np.repeat(weight, 28)
    at = [np.prod([legendre_value(d, points @ u) for d, u in zip(degrees, us, strict=True)], axis=0) for us in
          (units, [units[0]] * 3)]  # fmt: skip
    return float(weights @ at[0]) / float(weights @ at[1])


def four_body(function: FourBody, neighbours: Neighbours, fc: Fc) -> float:
    total = 0.0
    for triple in itertools.product(neighbours, repeat=3):
        weight = math.prod(counts(wanted, e) for wanted, (_, e) in zip(function.neighbours, triple, strict=True))
        if weight:
            radial = math.prod(gaussian(g, length(v), fc) for g, (v, _) in zip(function.radials, triple, strict=True))
            units = [v / length(v) for v, _ in triple]
            total += weight * radial * average_over_directions(function.degrees, units)
    return total


DIRECT = {
    G1: sum_over_one,
    G2: sum_over_one,
    G3: sum_over_one,
    G4: sum_over_pairs,
    G5: sum_over_pairs,
    Compact: sum_of_bumps,
    CompactAngle: sum_of_angle_bumps,
    ThreeBody: three_body,
    FourBody: four_body,
}


def cluster(n: int = 10, seed: int = 0) -> Atoms:
    """Atoms of three elements, none closer than 0.9 Å."""
    rng = np.random.default_rng(seed)
    points: list[np.ndarray] = []
    while len(points) < n:
        point = rng.uniform(0.0, 3.2, 3)
        if all(np.linalg.norm(point - other) > 0.9 for other in points):
            points.append(point)
    return Atoms([SYMBOLS[i % 3] for i in range(n)], points)


def directly(function: Function, atoms: Atoms, centre: str, fc: Fc) -> list[float]:
    values = []
    for i in np.flatnonzero(np.array(atoms.get_chemical_symbols()) == centre):
        vectors = [(atoms.positions[j] - atoms.positions[i], atoms[j].symbol) for j in range(len(atoms)) if j != i]
        near = [(v, symbol) for v, symbol in vectors if length(v) < CUTOFF]
        values.append(DIRECT[type(function)](function, near, fc))
    return values


def computed(functions: SymmetryFunctions, atoms: Atoms, centre: str) -> np.ndarray:
    return functions(atoms_to_structures(atoms, CUTOFF))[atomic_numbers[centre]].numpy()


FUNCTIONS: list[Function] = [
    G1("C"),
    G1("*"),
    G2("H", 1.3, 1.1),
    G2("O", 0.2),
    G2("*", 0.7, 2.0),
    G3("O", 1.7),
    G3("*", 0.4),
    G4(("H", "C"), 0.05, 1.0, 1, 0.3),
    G4(("O", "O"), 0.1, 4.0, -1),
    G4(("*", "*"), 0.02, 2.5, 1),
    G5(("C", "H"), 0.05, 3, -1, 0.4),
    G5(("H", "H"), 0.1, 1, 1),
    G5(("*", "*"), 0.03, 2, -1),
    G5(("*", "*"), 0.03, 2.5, -1),
    G5(("C", "O"), 0.03, 1.5, 1, 0.5),
    G5(("C", "C"), 0.03, 16, 1, 0.5),
    G1("C", 3.6),
    G2("H", 1.3, 1.1, 3.1),
    G3("O", 1.7, 3.7),
    G4(("H", "C"), 0.05, 1.0, 1, 0.3, 3.8),
    G5(("C", "H"), 0.05, 3, -1, 0.0, 3.1),
    G5(("H", "O"), 0.05, 2.5, -1, 0.2, 3.7),
    Compact("H", -3.0, 3.0),
    Compact("C", 0.6, 3.9, "polynomial_7"),
    Compact("*", 1.0, 4.0, "exponential", True),
    CompactAngle(("H", "C"), -3.0, 3.0, 20.0, 130.0),
    CompactAngle(("O", "O"), 0.4, 4.0, 30.0, 330.0, "polynomial_3"),
    CompactAngle(("O", "C"), 0.4, 4.0, -120.0, 120.0, "polynomial_9", True, True),
    CompactAngle(("*", "*"), 0.3, 3.8, 10.0, 150.0, "exponential", False, True),
    CompactAngle(("*", "*"), -4.0, 4.0, 0.0, 180.0, "polynomial_3", True),
    ThreeBody(("H", "H"), ((0.9, 1.2), (0.9, 1.2)), 0),
    ThreeBody(("H", "O"), ((0.9, 1.2), (0.3, 2.2)), 3),
    ThreeBody(("*", "C"), ((0.4, 1.0), (0.3, 2.2)), 4),
    FourBody(("H", "H", "H"), ((0.9, 1.2), (0.9, 1.2), (0.3, 0.5)), (1, 1, 0)),
    FourBody(("H", "C", "O"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (1, 2, 3)),
    FourBody(("C", "H", "C"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (2, 2, 2)),
    FourBody(("*", "H", "*"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (2, 4, 2)),
]


@pytest.mark.parametrize("cutoff_function", FC)
@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_every_function_is_its_formula(function: Function, cutoff_function: str) -> None:
    atoms = cluster(8)
    functions = SymmetryFunctions(
        {"H": [function], "C": [function], "O": []}, cutoff=CUTOFF, cutoff_function=cutoff_function
    )
    for centre in ("H", "C"):
        expected = np.array(directly(function, atoms, centre, FC[cutoff_function]))
        assert np.abs(expected).max() > 1e-8
        values = computed(functions, atoms, centre)[:, 0]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("neighbours", [("H", "H"), ("H", "O"), ("*", "*")])
@pytest.mark.parametrize("lambda_", [1, -1])
@pytest.mark.parametrize("zeta", range(1, 9))
def test_wide_angles_in_linear_cost_are_exact(zeta: int, lambda_: int, neighbours: tuple[str, str]) -> None:
    function = G5(neighbours, 0.05, zeta, lambda_, 0.5)
    functions = SymmetryFunctions({"H": [], "C": [function], "O": []}, cutoff=CUTOFF)
    assert len(functions.tables.centres[1].triple.bump) == 0  # no pair of neighbours is visited
    atoms = cluster(12, seed=zeta)
    values = computed(functions, atoms, "C")[:, 0]
    expected = np.array(directly(function, atoms, "C", polynomial))
    # the scale of the sum is that of its terms with 1 + λ cos θ at its largest
    scale = np.abs(directly(function._replace(zeta=0), atoms, "C", polynomial)).max()
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize(
    ("degrees", "form"),
    [
        ((0, 0, 0), lambda u, v, w: 1.0),
        ((1, 1, 0), lambda u, v, w: u @ v),
        ((1, 1, 2), lambda u, v, w: (3 * (u @ w) * (v @ w) - u @ v) / 2),
        ((2, 2, 0), lambda u, v, w: (3 * (u @ v) ** 2 - 1) / 2),
        (
            (2, 2, 2),
            lambda u, v, w: 4.5 * np.trace(np.linalg.multi_dot([np.outer(x, x) - np.eye(3) / 3 for x in (u, v, w)])),
        ),
    ],
)
def test_four_body_forms_known_in_closed_form(degrees: tuple, form: Callable) -> None:
    shell = (0.3, 1.0)
    atoms = Atoms("CHON", [[0, 0, 0], [1.0, 0.2, 0.1], [-0.3, 1.1, 0.4], [0.5, -0.6, 1.2]])
    function = FourBody(("H", "O", "N"), (shell, shell, shell), degrees)
    functions = SymmetryFunctions({"C": [function], "H": [], "O": [], "N": []}, cutoff=CUTOFF)
    value = computed(functions, atoms, "C")[0, 0]
    units = [v / length(v) for v in atoms.positions[1:]]
    radial = math.prod(gaussian(shell, length(v), polynomial) for v in atoms.positions[1:])
    assert value == pytest.approx(radial * form(*units), abs=1e-14)


def test_derivatives_of_the_reference() -> None:
    functions = SymmetryFunctions({"H": FUNCTIONS[2:], "C": FUNCTIONS[:8], "O": []}, cutoff=CUTOFF, inner_cutoff=0.2)
    batch = atoms_to_structures(cluster(4, seed=2), CUTOFF)
    vectors = pair_vectors(batch).requires_grad_()

    def total(v: torch.Tensor) -> torch.Tensor:
        blocks = functions(batch, v)
        return torch.stack([blocks[1].tanh().sum(), blocks[6].tanh().sum()])

    assert torch.autograd.gradcheck(total, vectors)
    assert torch.autograd.gradgradcheck(total, vectors)


def test_config_survives_json() -> None:
    functions = SymmetryFunctions({"H": FUNCTIONS, "C": [], "O": FUNCTIONS[:3]}, cutoff=CUTOFF, cutoff_function="tanh")
    again = SymmetryFunctions.from_config(json.loads(json.dumps(functions.config)))
    assert again.config == functions.config
    assert again.functions == functions.functions
    inner = SymmetryFunctions({"H": []}, cutoff=CUTOFF, inner_cutoff=0.25)
    assert SymmetryFunctions.from_config(json.loads(json.dumps(inner.config))).inner_cutoff == 0.25
    batch = atoms_to_structures(cluster(), CUTOFF)
    for number, block in functions(batch).items():
        assert torch.equal(again(batch)[number], block)


def test_names_and_numbers() -> None:
    functions = SymmetryFunctions({"H": FUNCTIONS, "C": [], "O": []}, cutoff=CUTOFF)
    names = functions.names("H")
    assert functions.elements == [1, 6, 8]
    assert functions.n_functions("H") == len(names) == len(set(names)) == len(FUNCTIONS)
    assert functions.names("C") == []
    assert names[0] == "G1(C)"
    assert names[2:4] == ["G2(H, eta=1.3, r_s=1.1)", "G2(O, eta=0.2)"]
    assert names[7] == "G4(H C, eta=0.05, zeta=1, lambda_=1, r_s=0.3)"
    assert "ThreeBody(H O, radials=(0.9 1.2) (0.3 2.2), degree=3)" in names
    assert names[16:18] == ["G1(C, cutoff=3.6)", "G2(H, eta=1.3, r_s=1.1, cutoff=3.1)"]
    assert "Compact(*, low=1, high=4, shape=exponential, asymmetric=1)" in names
    assert "CompactAngle(H C, low=-3, high=3, angle_low=20, angle_high=130, shape=polynomial)" in names
    assert repr(functions) == f"SymmetryFunctions(H: {len(FUNCTIONS)}, C: 0, O: 0; cutoff=4 Å, polynomial)"


def test_a_function_given_twice_is_computed_twice() -> None:
    pair = [G5(("H", "H"), 0.1, 2, 1), G2("H", 1.0), G5(("H", "H"), 0.1, 2, 1)]
    values = computed(SymmetryFunctions({"H": pair, "C": [], "O": []}, cutoff=CUTOFF), cluster(), "H")
    assert np.array_equal(values[:, 0], values[:, 2])
    assert not np.allclose(values[:, 0], values[:, 1])


def test_the_input_is_left_alone() -> None:
    batch = atoms_to_structures(cluster(), CUTOFF)
    before = [tensor.clone() for tensor in batch]
    SymmetryFunctions({"H": FUNCTIONS, "C": FUNCTIONS, "O": []}, cutoff=CUTOFF)(batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


def test_pairs_of_pairs() -> None:
    first = torch.tensor([0, 0, 0, 2, 3, 3])
    j, k = neighbour_pairs_of_atoms(first, 5)
    assert list(zip(j.tolist(), k.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (4, 5)]


def test_element_index() -> None:
    assert element_index([1, 8], torch.tensor([8, 1, 1])).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="no symmetry functions for C, N, only for H, O; fit on structures"):
        element_index([1, 8], torch.tensor([7, 1, 6]))


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.inf, math.nan, "5"])
def test_cutoff_must_be_a_distance(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff must be a positive distance"):
        SymmetryFunctions({"H": []}, cutoff=cutoff)


def test_cutoff_function_must_be_known() -> None:
    with pytest.raises(ValueError, match="cutoff_function must be one of cosine, tanh, polynomial, .*, got 'step'"):
        SymmetryFunctions({"H": []}, cutoff=3.0, cutoff_function="step")


@pytest.mark.parametrize("inner", [-0.1, 1.0, math.nan, "0.5"])
def test_inner_cutoff_must_be_a_fraction(inner: float) -> None:
    with pytest.raises(ValueError, match="inner_cutoff must be a fraction of the cutoff from 0 to below 1"):
        SymmetryFunctions({"H": []}, cutoff=3.0, inner_cutoff=inner)


@pytest.mark.parametrize("kind", ["hard", "tanh", "tanh_unscaled"])
def test_some_cutoff_functions_have_no_inner_radius(kind: str) -> None:
    with pytest.raises(ValueError, match="inner_cutoff has no meaning for cutoff_function="):
        SymmetryFunctions({"H": []}, cutoff=3.0, cutoff_function=kind, inner_cutoff=0.5)


def test_elements_must_be_given_and_known() -> None:
    with pytest.raises(ValueError, match="at least one central element"):
        SymmetryFunctions({}, cutoff=3.0)
    for symbol in ("X", "h", "Hx"):
        with pytest.raises(ValueError, match=f"chemical symbol, got '{symbol}'"):
            SymmetryFunctions({symbol: []}, cutoff=3.0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (G2("C", 1.0), "neighbour 'C' is no central element"),
        (G5(("H", "*"), 0.1, 1, 1), "'\\*' must stand for both neighbours or for none"),
        (G2("H", -1.0), "eta must not be negative"),
        (ThreeBody(("H", "H"), ((1.0, 1.0), (-1.0, 1.0)), 1), "eta must not be negative"),
        (G2("H", math.nan), "parameters must be finite"),
        (G2("H", "1.0"), "parameters must be finite"),
        (G5(("H", "H"), 0.1, 0.5, 1), "zeta must be at least 1"),
        (G4(("H", "H"), 0.1, 1.0, 0.5), "lambda_ must be 1 or -1"),
        (ThreeBody(("H", "H"), ((1.0, 1.0), (1.0, 1.0)), 13), "whole numbers from 0 to 12"),
        (ThreeBody(("H", "H"), ((1.0, 1.0), (1.0, 1.0)), 1.5), "whole numbers from 0 to 12"),
        (ThreeBody(("H", "H"), ((1.0, 1.0),), 1), "must number 2 each"),
        (FourBody(("H", "H"), ((1.0, 1.0),) * 3, (1, 1, 2)), "must number 3 each"),
        (FourBody(("H", "H", "H"), ((1.0, 1.0),) * 3, (-1, 1, 2)), "whole numbers from 0 to 12"),
        (FourBody(("H", "H", "H"), ((1.0, 1.0),) * 3, (1, 1, 1)), "even sum"),
        (FourBody(("H", "H", "H"), ((1.0, 1.0),) * 3, (1, 1, 4)), "triangle rule"),
        (G2("H", 1.0, 0.0, 3.1), "cutoff must be None or a distance up to that of the set, 3 Å"),
        (G4(("H", "H"), 0.1, 1.0, 1, 0.0, 0.0), "cutoff must be None or a distance"),
        (G1("H", "2"), "cutoff must be None or a distance"),
        (Compact("H", 1.0, 3.1), "not beyond the cutoff of the set, 3 Å"),
        (Compact("H", 2.0, 1.0), "high must lie above low"),
        (Compact("H", math.nan, 1.0), "parameters must be finite"),
        (Compact("H", 1.0, 2.0, "cosine"), "shape must be one of polynomial, exponential, .*, got 'cosine'"),
        (CompactAngle(("H", "*"), 1.0, 2.0, 0.0, 90.0), "'\\*' must stand for both neighbours or for none"),
        (CompactAngle(("H", "H"), 1.0, 2.0, 90.0, 90.0), "angles must ascend"),
        (CompactAngle(("H", "H"), 1.0, 2.0, -10.0, 90.0), "centred at 0 or at 180"),
        (CompactAngle(("H", "H"), 1.0, 2.0, 100.0, 200.0), "centred at 0 or at 180"),
        (CompactAngle(("H", "H"), 1.0, 2.0, -190.0, 190.0), "angles must ascend"),
    ],
)
def test_parameters_out_of_range_are_refused(function: Function, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SymmetryFunctions({"H": [function]}, cutoff=3.0)


def test_only_functions_are_functions() -> None:
    with pytest.raises(TypeError, match="functions of H must be G1, G2, .*, got tuple"):
        SymmetryFunctions({"H": [("H", 1.0)]}, cutoff=3.0)
