"""Quadratic forms: against potentials that have one, and against explicit design matrices."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy import StructureDataset, SymmetryFunctions
from molml.energy.components import Components, principal_components
from molml.energy.data import atoms_to_structures
from molml.energy.features import G2, FourBody, Function, ThreeBody
from molml.energy.kernels import FeatureKernel
from molml.energy.linear import folds
from molml.energy.loss import FeaturisedDataset
from molml.energy.model import BehlerParrinello, FeatureStatistics, QuadraticForm, feature_statistics
from molml.energy.prior import Prior
from molml.energy.quadratic import QuadraticSolution, _form, _gather, _quadratic_rows, _transposed, fit_quadratic

CUTOFF = 3.5
SHELLS = [(2.0, 1.0), (1.0, 1.8), (0.6, 2.6)]
CHOSEN: list[Function] = [G2(symbol, *shell) for symbol in "HO" for shell in SHELLS]
CHOSEN += [ThreeBody(("H", "O"), (SHELLS[0], SHELLS[1]), 1), FourBody(("H", "O", "O"), (SHELLS[1],) * 3, (1, 1, 2))]
FUNCTIONS = SymmetryFunctions({"H": CHOSEN, "O": CHOSEN[3:]}, cutoff=CUTOFF)
KERNEL = FeatureKernel(FUNCTIONS)
N_H, N_O = len(CHOSEN), len(CHOSEN) - 3
NONE = np.zeros(2)


@pytest.fixture(scope="module")
def structures(random_structures) -> list[Atoms]:
    found = random_structures(60, seed=5, symbols=("H", "O"))
    for atoms in found:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    return found


@pytest.fixture(scope="module")
def statistics(structures: list[Atoms]) -> FeatureStatistics:
    featurised = FeaturisedDataset(StructureDataset(structures, cutoff=CUTOFF), KERNEL)
    return feature_statistics([featurised[i].features for i in range(len(structures))])


@pytest.fixture(scope="module")
def components(structures: list[Atoms], statistics: FeatureStatistics) -> list[Components]:
    return components_of(structures, statistics, [np.ones(N_H), np.ones(N_O)])


def components_of(structures: list[Atoms], statistics: FeatureStatistics, factors: list[np.ndarray]):
    dataset = StructureDataset(structures, cutoff=CUTOFF)
    return principal_components(KERNEL, dataset, [own.numpy() for own in statistics.mean], factors)


def potential(
    statistics: FeatureStatistics, solution: np.ndarray, forms: list[QuadraticForm] | None
) -> BehlerParrinello:
    """Without network: coefficients of H, of O, and the two reference energies; quadratic forms."""
    linear = [torch.from_numpy(solution[:N_H].copy()), torch.from_numpy(solution[N_H : N_H + N_O].copy())]
    model = BehlerParrinello(
        FUNCTIONS, statistics, solution[-2:].tolist(), hidden=(2,), linear=linear, quadratic=forms, seed=0
    )
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.zero_()
    return model.eval()


def labelled(structures: list[Atoms], model: BehlerParrinello, noise: float = 0.0) -> StructureDataset:
    frames, rng = [], np.random.default_rng(1)
    for atoms in structures:
        said = model.predict(atoms_to_structures(atoms, CUTOFF))
        values = {
            "energy": float(said.energy[0]) + noise * rng.normal(),
            "forces": said.forces.numpy() + noise * rng.normal(size=(len(atoms), 3)),
        }
        if atoms.pbc.all():
            values["stress"] = said.stress[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **values)
        frames.append(copy)
    return StructureDataset(frames, cutoff=CUTOFF)


def gathered(dataset: StructureDataset, components: list[Components], n: int, weights=(3.0, 1.0, 0.3)):
    items = [dataset[i] for i in range(len(dataset))]
    projections = [own.directions[:, :n] for own in components]
    means = [own.mean for own in components]
    return _gather(KERNEL, items, folds(len(items), 5, 0), NONE, means, projections, weights, False)


def symmetric(problem, seed: int) -> list[np.ndarray]:
    rng, found = np.random.default_rng(seed), []
    for centre in problem.centres:
        matrix = rng.normal(size=(centre.components.shape[1],) * 2)
        found.append(matrix + matrix.T)
    return found


def drawn(components: list[Components], n: int, seed: int = 0) -> tuple[np.ndarray, list[QuadraticForm]]:
    """Coefficients of the linear part, and forms of ``n`` components."""
    rng, forms = np.random.default_rng(seed), []
    for own in components:
        directions = own.directions[:, :n] / own.variances[:n] ** 0.5
        matrix = rng.normal(size=(directions.shape[1],) * 2)
        forms.append(_form(directions, matrix + matrix.T))
    return rng.normal(size=N_H + N_O + 2), forms


@pytest.fixture(scope="module")
def truth(statistics, components) -> BehlerParrinello:
    return potential(statistics, *drawn(components, 3))


def test_rows_are_what_a_potential_says(structures, statistics, components):
    solution, _ = drawn(components, 4)
    labels = gathered(labelled(structures[:14], potential(statistics, solution, None)), components, 4).labels
    matrices = symmetric(gathered(StructureDataset(structures[:14], cutoff=CUTOFF), components, 4), seed=3)
    forms = [_form(own.directions[:, :4], matrix) for own, matrix in zip(components, matrices, strict=True)]
    model = potential(statistics, solution, forms)
    known = labelled(structures[:14], model)
    problem = gathered(known, components, 4)
    said = problem.labels.linear @ solution + _quadratic_rows(problem, matrices)
    # the derivatives of the components are kept in single precision
    scale = np.abs(problem.labels.target).max()
    np.testing.assert_allclose(said, problem.labels.target, rtol=1e-5, atol=1e-6 * scale)
    assert np.bincount(problem.labels.kind, minlength=3).tolist() == [
        14, 3 * sum(map(len, known.atoms)), 6 * sum(atoms.pbc.all() for atoms in known.atoms)
    ]  # fmt: skip
    # the control: without the quadratic part the rows are those of the linear potential, and others
    np.testing.assert_allclose(labels.linear @ solution, labels.target, rtol=1e-9, atol=1e-9)
    assert np.abs(labels.target - problem.labels.target).max() > 0.1 * scale


def test_transposed_is_the_transpose(structures, components, truth):
    problem = gathered(labelled(structures[:14], truth), components, 5)
    matrices, rng = symmetric(problem, seed=1), np.random.default_rng(2)
    rows = rng.normal(size=len(problem.labels.target))
    there = rows @ _quadratic_rows(problem, matrices)
    back = sum(np.vdot(a, b) for a, b in zip(matrices, _transposed(problem, rows), strict=True))
    assert back == pytest.approx(there, rel=1e-10)


@pytest.fixture(autouse=True)
def few_labels_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molml.energy.quadratic._LEAST_LABELS", 100)


def solve(dataset: StructureDataset, components: list[Components], **options) -> QuadraticSolution | None:
    alike = [np.ones(N_H), np.ones(N_O)]
    return fit_quadratic(KERNEL, dataset, components, NONE, **{"energy_weight": 3.0, "factors": alike, **options})


def largest_errors(model: BehlerParrinello, test: StructureDataset) -> tuple[float, float]:
    """Of forces, and the largest force itself."""
    errors = [(model.predict(test[i]).forces - test[i].forces).abs().max() for i in range(len(test))]
    return float(max(errors)), max(float(test[i].forces.abs().max()) for i in range(len(test)))


def test_a_quadratic_potential_is_found(structures, statistics, components, truth, monkeypatch):
    monkeypatch.setattr("molml.energy.quadratic._TOLERANCE", 1e-4)
    train, test = labelled(structures[:48], truth), labelled(structures[48:], truth)
    found = solve(train, components, n_components=3)
    assert found is not None
    off, scale = largest_errors(potential(statistics, found.solutions[0], found.forms[0]), test)
    # the penalty of the products leaves a trace
    assert off < 5e-3 * scale
    assert largest_errors(potential(statistics, found.solutions[0], None), test)[0] > 0.05 * scale
    assert found.rmse[1] < 5e-3 * scale


def test_no_products_where_the_labels_are_linear(structures, statistics, components):
    solution, _ = drawn(components, 1)
    noisy = labelled(structures, potential(statistics, solution, None), noise=0.3)
    assert solve(noisy, components, n_components=6) is None


def test_the_solution_is_that_of_the_explicit_problem(structures, statistics, truth, monkeypatch):
    monkeypatch.setattr("molml.energy.quadratic._TOLERANCE", 1e-20)
    dataset = labelled(structures[:40], truth, noise=0.5)
    factors = [np.linspace(0.3, 2.0, N_H), np.linspace(3.0, 0.5, N_O)]
    components = components_of(structures, statistics, factors)
    found = solve(dataset, components, factors=factors, n_components=3, members=5, seed=4)
    assert found is not None
    best = min(found.scores, key=lambda s: s["error"])
    problem, fold = gathered(dataset, components, 3), folds(40, 5, 4)
    labels = problem.labels
    # all products, each by the rows of a matrix that holds nothing else
    columns, places = [], []
    for e, centre in enumerate(problem.centres):
        n = centre.components.shape[1]
        for a in range(n):
            for b in range(a, n):
                matrices = [np.zeros((own.components.shape[1],) * 2) for own in problem.centres]
                matrices[e][a, b] += 0.5
                matrices[e][b, a] += 0.5
                columns.append(_quadratic_rows(problem, matrices))
                places.append((e, a, b))
    design = np.concatenate([np.array(columns).T, labels.linear], axis=1)
    counts = np.array([sum(len(item) for item in own) for own in ([c.components] for c in problem.centres)])
    variance = sum(n * own.variances.sum() for n, own in zip(counts, components, strict=True)) / counts.sum()
    functions = labels.linear[labels.kind == 1, : N_H + N_O]
    factor = np.concatenate(factors)
    of_functions = best["ridge"] * np.mean(np.sum((functions * factor) ** 2, axis=1))
    # an element of a symmetric matrix off its diagonal counts twice, and halves of a product are such elements
    of_products = of_functions / best["share"] * variance
    penalty = np.array([of_products * (1.0 if a == b else 0.5) for _, a, b in places])
    penalty = np.concatenate([penalty, of_functions / factor**2, [0.0, 0.0]])
    for member, solution in enumerate(found.solutions):
        kept = fold[labels.structure] != member
        stacked = np.concatenate([design[kept], np.diag(np.sqrt(penalty))])
        target = np.concatenate([labels.target[kept], np.zeros(len(penalty))])
        explicit = np.linalg.lstsq(stacked, target, rcond=None)[0]
        np.testing.assert_allclose(
            labels.linear @ solution, labels.linear @ explicit[len(places) :], rtol=1e-3, atol=1e-3
        )
        for e, (form, own) in enumerate(zip(found.forms[member], components, strict=True)):
            matrix, expected = form.directions.T * form.weights @ form.directions, 0.0
            for value, (element, a, b) in zip(explicit, places, strict=False):
                if element == e:
                    outer = np.outer(own.directions[:, a], own.directions[:, b])
                    expected = expected + 0.5 * value * (outer + outer.T)
            np.testing.assert_allclose(matrix, expected, atol=1e-3 * np.abs(expected).max())
    assert not np.allclose(found.solutions[0], found.solutions[1])


def test_what_is_assumed_pulls_forces_towards_zero(structures, statistics, components, truth):
    train, others = labelled(structures[:48], truth), labelled(structures[48:], truth)
    silent = [others[i]._replace(has_energy=others[i].has_energy & False) for i in range(len(others))]
    silent = [item._replace(has_stress=item.has_stress & False) for item in silent]
    sizes = []
    for weight in (1e-12, 1e4):
        weighted = [item._replace(weight=torch.full_like(item.weight, weight)) for item in silent]
        found = solve(train, components, n_components=3, prior=Prior(weighted, np.zeros((1, 1))))
        forms, solution = (found.forms[0], found.solutions[0]) if found else (None, None)
        assert solution is not None
        model = potential(statistics, solution, forms)
        sizes.append(max(float(model.predict(item).forces.abs().max()) for item in silent))
    assert sizes[1] < 0.3 * sizes[0]


def test_memory_is_limited(structures, components, truth, monkeypatch):
    dataset, problem_sizes = labelled(structures, truth), []
    real = _gather

    def watched(kernel, items, *others):
        problem = real(kernel, items, *others)
        problem_sizes.append((len(items), problem.centres[0].components.shape[1]))
        return problem

    monkeypatch.setattr("molml.energy.quadratic._gather", watched)
    solve(dataset, components, n_components=4)
    n_pairs = sum(len(dataset[i].first) for i in range(len(dataset)))
    monkeypatch.setattr("molml.energy.quadratic._CHANGES", 12.0 * 2 * n_pairs)
    solve(dataset, components, n_components=4)
    n_labels = sum(1 + 3 * len(atoms) + 6 * int(atoms.pbc.all()) for atoms in structures)
    monkeypatch.setattr("molml.energy.quadratic._ROWS", 0.5 * 8 * (N_H + N_O + 2) * n_labels)
    solve(dataset, components, n_components=4)
    assert problem_sizes[0] == (60, 4)
    assert problem_sizes[1] == (60, 2)
    assert 20 < problem_sizes[2][0] < 40


def test_too_few_labels_leave_the_potential_linear(structures, components, truth, monkeypatch):
    dataset = labelled(structures, truth)
    n_labels = sum(1 + 3 * len(atoms) + 6 * int(atoms.pbc.all()) for atoms in structures)
    for least, found in ((n_labels, True), (n_labels + 1, False)):
        monkeypatch.setattr("molml.energy.quadratic._LEAST_LABELS", least)
        assert (solve(dataset, components, n_components=3) is not None) == found
