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
from molml.energy.quadratic import QuadraticSolution, _forms, _layout, _rows, fit_quadratic

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
    return principal_components(KERNEL, StructureDataset(structures, cutoff=CUTOFF), statistics)


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


def drawn(n: int, layout, seed: int = 0) -> np.ndarray:
    """A solution for all columns of a layout, products of ``n`` components first."""
    size = layout.n_products - layout.first(n) + N_H + N_O + 2
    return np.random.default_rng(seed).normal(size=size)


@pytest.fixture(scope="module")
def truth(statistics, components) -> BehlerParrinello:
    layout = _layout(components, 3, np.inf)
    solution = drawn(3, layout)
    return potential(statistics, solution[layout.n_products :], _forms(solution, layout, 0))


def test_rows_times_coefficients_are_what_a_potential_says(structures, statistics, components):
    layout = _layout(components, 4, np.inf)
    solution, dataset = drawn(4, layout), StructureDataset(structures, cutoff=CUTOFF)
    model = potential(statistics, solution[layout.n_products :], _forms(solution, layout, 0))
    stresses = 0
    known = labelled(structures[:14], model)
    for i, atoms in enumerate(known.atoms):
        item, said = known[i], model.predict(dataset[i])
        (energy, _), (forces, _), (virial, _) = _rows(KERNEL, item, NONE, layout)
        root = len(atoms) ** 0.5
        np.testing.assert_allclose(energy[0] @ solution * root, float(said.energy[0]), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forces @ solution, said.forces.numpy().ravel(), rtol=1e-8, atol=1e-8)
        if len(virial):
            stress = said.stress[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * atoms.get_volume()
            np.testing.assert_allclose(virial @ solution * root, stress, rtol=1e-8, atol=1e-8)
            stresses += 1
    assert stresses > 2


@pytest.fixture(autouse=True)
def few_labels_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molml.energy.quadratic._LEAST_LABELS", 100)


def solve(dataset: StructureDataset, components: list[Components], **options) -> QuadraticSolution | None:
    return fit_quadratic(KERNEL, dataset, components, NONE, energy_weight=3.0, ridge=1e-11, **options)


def test_a_quadratic_potential_is_found(structures, statistics, components, truth):
    train, test = labelled(structures[:48], truth), labelled(structures[48:], truth)
    found = solve(train, components, n_components=3)
    assert found is not None
    model = potential(statistics, found.solutions[0], found.forms[0])
    linear = potential(statistics, found.solutions[0], None)
    off, off_linear = [], []
    for i in range(len(test)):
        label = test[i].forces
        off.append(float((model.predict(test[i]).forces - label).abs().max()))
        off_linear.append(float((linear.predict(test[i]).forces - label).abs().max()))
    scale = max(float(test[i].forces.abs().max()) for i in range(len(test)))
    # the penalty of the products leaves a trace
    assert max(off) < 5e-3 * scale
    assert max(off_linear) > 0.05 * scale
    assert found.rmse[1] < 5e-3 * scale


def test_no_products_where_the_labels_are_linear(structures, statistics, components):
    layout = _layout(components, 1, np.inf)
    solution = drawn(0, layout)
    noisy = labelled(structures, potential(statistics, solution, None), noise=0.3)
    assert solve(noisy, components, n_components=6) is None


def test_the_solution_is_that_of_the_explicit_problem(structures, components, truth):
    dataset = labelled(structures[:40], truth, noise=0.5)
    found = solve(dataset, components, n_components=3, members=5, seed=4)
    assert found is not None
    best = min(found.scores, key=lambda s: s["log_score"])
    layout = _layout(components, 3, np.inf)
    first, fold = layout.first(int(best["n_components"])), folds(40, 5, 4)
    n = layout.n_products - first
    for member, solution in enumerate(found.solutions):
        designs, targets = [], []
        for i in np.flatnonzero(fold != member):
            for weight, (design, target) in zip((3.0, 1.0, 0.3), _rows(KERNEL, dataset[i], NONE, layout), strict=True):
                designs.append(weight * design[:, first:])
                targets.append(weight * target)
        design, target = np.concatenate(designs), np.concatenate(targets)
        penalty = np.concatenate([np.full(n, best["ridge"]), np.full(N_H + N_O, 1e-11), [1e-13] * 2])
        size = np.linalg.norm(design, axis=0)
        stacked = np.concatenate([design, np.diag(np.sqrt(penalty) * size)])
        explicit = np.linalg.lstsq(stacked, np.concatenate([target, np.zeros(len(size))]), rcond=None)[0]
        expected = _forms(explicit, layout, first)
        np.testing.assert_allclose(design[:, n:] @ solution, design[:, n:] @ explicit[n:], rtol=1e-4, atol=1e-4)
        for form, other in zip(found.forms[member], expected, strict=True):
            matrix, other_matrix = (f.directions.T * f.weights @ f.directions for f in (form, other))
            np.testing.assert_allclose(matrix, other_matrix, atol=1e-4 * np.abs(other_matrix).max())
    assert not np.allclose(found.solutions[0], found.solutions[1])


def test_columns_are_limited(components):
    everything = _layout(components, 5, np.inf)
    assert everything.n_products == 30
    few = _layout(components, 5, N_H + N_O + 2 + 20)
    assert few.n_products == 20
    assert [p.shape[1] for p in few.projections] == [4, 4]
    assert everything.first(4) == 10
    assert _layout(components, 5, 10).n_products == 0


def test_too_few_labels_leave_the_potential_linear(structures, components, truth, monkeypatch):
    dataset = labelled(structures, truth)
    n_labels = sum(1 + 3 * len(atoms) for atoms in structures)
    for least, found in ((n_labels, True), (n_labels + 1, False)):
        monkeypatch.setattr("molml.energy.quadratic._LEAST_LABELS", least)
        assert (solve(dataset, components, n_components=3) is not None) == found
