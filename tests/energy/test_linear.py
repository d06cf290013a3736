"""Least squares: against explicit design matrices, refits, and potentials with known coefficients."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy import LinearPotential, StructureDataset, SymmetryFunctions, linear
from molml.energy.data import atoms_to_structures
from molml.energy.features import G2, G4, FourBody, Function, ThreeBody
from molml.energy.kernels import FeatureKernel
from molml.energy.linear import (
    NormalEquations,
    _bounded,
    folds,
    forward_selection,
    limit_force_errors,
    linear_forces,
    normal_equations,
    penalties,
    reference_energies,
    ridge_solution,
    solve,
    structure_rows,
    weighted_gram,
)
from molml.energy.model import FeatureStatistics

CUTOFF = 3.5
SHELLS = [(2.0, 1.0), (1.0, 1.8), (0.6, 2.6)]
CHOSEN: list[Function] = [
    *(G2(symbol, *shell) for symbol in "HO" for shell in SHELLS),
    ThreeBody(("H", "O"), (SHELLS[0], SHELLS[1]), 1),
    ThreeBody(("O", "O"), (SHELLS[1], SHELLS[1]), 2),
    FourBody(("H", "O", "O"), (SHELLS[1],) * 3, (1, 1, 2)),
    G4(("H", "O"), 0.05, 1.0, 1),
]
# summed over atoms, the pairs that H sees of O are those that O sees of H: one of the two is enough
FUNCTIONS = SymmetryFunctions({"H": CHOSEN, "O": CHOSEN[3:]}, cutoff=CUTOFF)
N_H, N_O = len(CHOSEN), len(CHOSEN) - 3
N = N_H + N_O
REFERENCE = [-13.0, -400.0]


def potential(coefficients: np.ndarray) -> LinearPotential:
    """Coefficients of H, of O, and the two reference energies."""
    parts = [torch.from_numpy(coefficients[:N_H].copy()), torch.from_numpy(coefficients[N_H:N].copy())]
    empty = FeatureStatistics(*([torch.zeros_like(part) for part in parts] for _ in range(4)))
    return LinearPotential(FUNCTIONS, parts, coefficients[N:].tolist(), empty)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.concatenate([np.random.default_rng(0).normal(size=N), REFERENCE])


@pytest.fixture(scope="module")
def structures(random_structures) -> list[Atoms]:
    return random_structures(42, seed=2, symbols=("H", "O"))


def labelled(
    structures: list[Atoms], truth: np.ndarray, labels: tuple[str, ...] = ("energy", "forces", "stress"), noise=0.0
) -> StructureDataset:
    """The structures with what the potential of these coefficients says of them."""
    model, frames, rng = potential(truth), [], np.random.default_rng(1)
    for atoms in structures:
        prediction = model.predict(atoms_to_structures(atoms, CUTOFF))
        values = {
            "energy": float(prediction.energy[0]) + noise * rng.normal(),
            "forces": prediction.forces.numpy() + noise * rng.normal(size=(len(atoms), 3)),
            "stress": prediction.stress[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }
        wanted = [name for name in labels if name != "stress" or atoms.pbc.all()]
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **{name: values[name] for name in wanted})
        frames.append(copy)
    return StructureDataset(frames, cutoff=CUTOFF)


def equations_of(dataset: StructureDataset, **options) -> NormalEquations:
    reference = reference_energies(dataset, FUNCTIONS.elements)
    return normal_equations(FeatureKernel(FUNCTIONS), dataset, reference, **options)


def explicit_rows(dataset: StructureDataset) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    reference = reference_energies(dataset, FUNCTIONS.elements)
    kernel = FeatureKernel(FUNCTIONS)
    return [structure_rows(kernel, dataset[i], reference) for i in range(len(dataset))]


def explicit_solution(
    rows: list[list[tuple[np.ndarray, np.ndarray]]], energy_weight: float, ridge: float
) -> np.ndarray:
    """Ridge regression on the stacked rows, penalties as further rows."""
    weights = (energy_weight, 1.0, 0.3)
    design = np.concatenate([w * d for parts in rows for w, (d, _) in zip(weights, parts, strict=True)])
    target = np.concatenate([w * t for parts in rows for w, (_, t) in zip(weights, parts, strict=True)])
    norms = np.linalg.norm(design, axis=0)
    penalty = np.append(np.full(N, ridge**0.5 * np.sqrt(np.median(norms[:N] ** 2))), 1e-13**0.5 * norms[N:])
    design, target = np.concatenate([design, np.diag(penalty)]), np.append(target, np.zeros(N + 2))
    return np.linalg.lstsq(design, target, rcond=None)[0]


def test_rows_are_the_potential(structures: list[Atoms], truth: np.ndarray) -> None:
    model, dataset = potential(truth), labelled(structures, truth)
    kernel = FeatureKernel(FUNCTIONS)
    for i, atoms in enumerate(structures[:14]):
        prediction = model.predict(dataset[i])
        (energy, e), (forces, f), (virial, v) = structure_rows(kernel, dataset[i], np.array(REFERENCE))
        members = np.array([(atoms.numbers == 1).sum(), (atoms.numbers == 8).sum()])
        root = np.sqrt(len(atoms))
        assert (energy @ truth)[0] * root == pytest.approx(float(prediction.energy[0]), rel=1e-12)
        assert e[0] * root + members @ REFERENCE == pytest.approx(float(prediction.energy[0]), rel=1e-12)
        np.testing.assert_allclose(forces @ truth, prediction.forces.numpy().ravel(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(f, prediction.forces.numpy().ravel(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(virial @ truth, v, rtol=0, atol=1e-11)
        assert len(v) == 6 * bool(atoms.pbc.all())


def test_rows_know_that_tension_is_positive() -> None:
    stretched = bulk("Ar", "fcc", a=6.0, cubic=True)
    stretched.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
    frame = stretched.copy()
    frame.calc = SinglePointCalculator(frame, energy=stretched.get_potential_energy(), stress=stretched.get_stress())
    functions = SymmetryFunctions({"Ar": [G2("Ar", 0.1, 0.0)]}, cutoff=6.0)
    dataset = StructureDataset([frame], cutoff=6.0)
    _, _, (design, target) = structure_rows(FeatureKernel(functions), dataset[0], np.zeros(1))
    # a stretched crystal pulls: its stress is positive; stretched further, it has fewer near neighbours
    assert (target[:3] > 0).all()
    assert (design[:3, 0] < 0).all()
    np.testing.assert_allclose(target * 2, stretched.get_stress() * stretched.get_volume(), rtol=0, atol=1e-12)


def test_missing_labels_and_weights(structures: list[Atoms], truth: np.ndarray) -> None:
    kernel = FeatureKernel(FUNCTIONS)
    (energy, _), (forces, _), (virial, _) = structure_rows(
        kernel, labelled(structures[3:4], truth, ("forces",))[0], np.zeros(2)
    )
    assert (len(energy), len(forces), len(virial)) == (0, 3 * len(structures[3]), 0)
    item = labelled(structures[3:4], truth)[0]
    heavy = item._replace(weight=torch.tensor([4.0], dtype=torch.float64))
    for light_rows, heavy_rows in zip(*(structure_rows(kernel, x, np.zeros(2)) for x in (item, heavy)), strict=True):
        np.testing.assert_allclose(heavy_rows[0], 2 * light_rows[0], rtol=1e-14)
        np.testing.assert_allclose(heavy_rows[1], 2 * light_rows[1], rtol=1e-14)
    some = item._replace(has_forces=torch.arange(len(item.numbers)) == 1)
    np.testing.assert_array_equal(
        structure_rows(kernel, some, np.zeros(2))[1][0], structure_rows(kernel, item, np.zeros(2))[1][0][3:6]
    )


def test_sums_are_those_of_the_rows(structures: list[Atoms], truth: np.ndarray) -> None:
    dataset = labelled(structures, truth)
    equations, rows = equations_of(dataset, n_folds=4, seed=3), explicit_rows(dataset)
    for label in range(3):
        design = np.concatenate([parts[label][0] for parts in rows])
        target = np.concatenate([parts[label][1] for parts in rows])
        scale = np.abs(design.T @ design).max()
        np.testing.assert_allclose(equations.gram[:, label].sum(0), design.T @ design, rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(equations.moment[:, label].sum(0), design.T @ target, rtol=1e-9, atol=1e-10)
        assert equations.square[:, label].sum() == pytest.approx(target @ target, rel=1e-12)
        assert equations.n_rows[:, label].sum() == len(target)
    assert equations.n_elements == 2


@pytest.mark.parametrize("ridge", [1e-3, 1e-6])
def test_solution_is_that_of_the_design_matrix(structures: list[Atoms], truth: np.ndarray, ridge: float) -> None:
    dataset = labelled(structures, truth, noise=0.05)
    found = solve(equations_of(dataset), energy_weights=(7.0,), ridges=(ridge,))
    expected = explicit_solution(explicit_rows(dataset), 7.0, ridge)
    assert (found.energy_weight, found.ridge) == (7.0, ridge)
    np.testing.assert_allclose(found.coefficients, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_scores_are_those_of_refits(structures: list[Atoms], truth: np.ndarray) -> None:
    dataset = labelled(structures, truth, noise=0.05)
    found = solve(equations_of(dataset, n_folds=3, seed=5), energy_weights=(2.0, 20.0), ridges=(1e-6, 1e-4, 1e-2))
    rows = explicit_rows(dataset)
    fold = np.random.default_rng(5).permutation(len(dataset)) % 3
    for score in found.scores:
        errors: list[list[np.ndarray]] = [[], [], []]
        logs = 0.0
        for f in range(3):
            before = [len(error) for error in errors]
            kept = [parts for parts, g in zip(rows, fold, strict=True) if g != f]
            x = explicit_solution(kept, score["energy_weight"], score["ridge"])
            for parts in (rows[i] for i in np.flatnonzero(fold == f)):
                for label, (design, target) in enumerate(parts):
                    errors[label].append(design @ x - target)
            logs += sum(np.log(np.sum(np.concatenate(errors[label][before[label] :]) ** 2)) for label in (0, 1))
        rmse = [float(np.sqrt(np.mean(np.concatenate(error) ** 2))) for error in errors]
        assert [score["energy_rmse"], score["forces_rmse"], score["virial_rmse"]] == pytest.approx(rmse, rel=1e-6)
        assert score["log_score"] == pytest.approx(logs, rel=1e-6)
    best = min(found.scores, key=lambda score: score["log_score"])
    assert (found.energy_weight, found.ridge) == (best["energy_weight"], best["ridge"])
    assert {score["energy_weight"] for score in found.scores} == {2.0, 20.0}
    # tried from the middle on, as long as scores fall
    tried = {score["ridge"] for score in found.scores if score["energy_weight"] == found.energy_weight}
    assert {1e-4} < tried <= {1e-6, 1e-4, 1e-2}


def test_more_columns_than_there_is_room_for(structures: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_COLUMNS", N + 2)
    dataset = labelled(structures[:2], np.zeros(N + 2))
    equations_of(dataset)
    monkeypatch.setattr(linear, "MOST_COLUMNS", N + 1)
    with pytest.raises(ValueError, match=f"at most {N + 1} functions .* got {N + 2}; use fewer"):
        equations_of(dataset)


def test_coefficients_are_penalised_alike() -> None:
    gram = np.diag([4.0, 1.0, 1e-6, 0.0, 9.0])
    np.testing.assert_allclose(penalties(gram, 0.1, 1), 0.1)  # the median of 4, 1 and 1e-6
    # of two functions that say the same, the one that varies more is believed
    both = np.outer([2.0, 1.0, 0.0], [2.0, 1.0, 0.0]) + np.diag([0.0, 0.0, 1.0])
    x = ridge_solution(both, np.array([2.0, 1.0, 0.0]), penalties(both, 1e-6, 1), 1)
    np.testing.assert_allclose(x, [0.4, 0.2, 0.0], atol=1e-5)


def test_a_fold_that_nothing_can_predict_does_not_decide() -> None:
    rng = np.random.default_rng(0)
    n_folds, width = 6, 8
    truth = np.array([*rng.normal(size=width - 2), 0.5, 0.0])
    gram, moment = np.zeros((n_folds, 3, width, width)), np.zeros((n_folds, 3, width))
    square, count = np.zeros((n_folds, 3)), np.zeros((n_folds, 3))
    for f in range(n_folds):
        for label, n in ((0, 10), (1, 60)):
            design = rng.normal(size=(n, width)) * (10.0 if f == 0 else 1.0)
            # only this fold knows of the last function, which turns the sign of all that it predicts
            known = design[:, : width - 2] @ truth[: width - 2]
            design[:, width - 2] = -2.0 * known / truth[width - 2] if f == 0 else 0.0
            target = design @ truth + 1e-6 * rng.normal(size=n)
            count[f, label], square[f, label] = n, target @ target
            moment[f, label], gram[f, label] = design.T @ target, design.T @ design
    found = solve(NormalEquations(gram, moment, square, count, 1), ridges=(1e-8, 1e-4, 1.0))
    assert found.ridge == 1e-8
    np.testing.assert_allclose(found.coefficients, truth, atol=1e-4)
    # the errors of all folds together are those of the first: it is predicted least badly if nothing is learnt
    judged = [score for score in found.scores if score["energy_weight"] == found.energy_weight]
    assert min(judged, key=lambda score: score["energy_rmse"] * score["forces_rmse"])["ridge"] == 1.0


@pytest.mark.parametrize("labels", [("energy", "forces", "stress"), ("energy", "forces"), ("forces", "stress")])
def test_known_coefficients_are_found_again(
    structures: list[Atoms], truth: np.ndarray, labels: tuple[str, ...]
) -> None:
    dataset = labelled(structures, truth, labels)
    found = solve(equations_of(dataset), ridges=(1e-13,)).coefficients
    found[N:] += reference_energies(dataset, FUNCTIONS.elements)
    np.testing.assert_allclose(found[:N], truth[:N], rtol=0, atol=1e-4)
    constants = found[N:] if "energy" in labels else truth[N:]
    np.testing.assert_allclose(constants, truth[N:], rtol=0, atol=1e-4)


def test_energies_alone(random_structures, truth: np.ndarray) -> None:
    many = random_structures(140, seed=7, symbols=("H", "O"))
    dataset = labelled(many[:120], truth, ("energy",))
    best = solve(equations_of(dataset), ridges=(1e-12, 1e-10))
    assert best.energy_weight == 10.0  # the only one tried would do: there is nothing to weigh against
    best.coefficients[N:] += reference_energies(dataset, FUNCTIONS.elements)
    test = labelled(many[120:], truth)
    predicted = potential(best.coefficients)
    errors = [float((predicted.predict(test[i]).energy - test[i].energy)[0]) for i in range(20)]
    assert np.abs(errors).max() < 1e-3


def test_stress_alone_is_refused(structures: list[Atoms], truth: np.ndarray) -> None:
    equations = equations_of(labelled(structures, truth))
    stress_only = equations._replace(n_rows=equations.n_rows * [0, 0, 1])
    with pytest.raises(ValueError, match="needs energies or forces, got stress labels only"):
        solve(stress_only)


def test_one_structure_has_no_folds(structures: list[Atoms], truth: np.ndarray) -> None:
    dataset = labelled(structures[3:4], truth)
    equations = equations_of(dataset)
    assert len(equations.gram) == 1
    found = solve(equations)
    model = potential(found.coefficients + np.append(np.zeros(N), reference_energies(dataset, [1, 8])))
    error = model.predict(dataset[0]).forces - dataset[0].forces
    assert error.norm() < 0.05 * dataset[0].forces.norm()


def test_a_column_of_roundings_does_no_harm(structures: list[Atoms], truth: np.ndarray) -> None:
    equations = equations_of(labelled(structures, truth))
    for sums in (equations.gram, equations.gram.swapaxes(2, 3), equations.moment):
        sums[:, :, 4] *= 1e-17
    assert abs(solve(equations).coefficients[4]) < 1.0
    assert 4 not in forward_selection(equations, OWNERS, np.array([N_H, N_O]))
    # a control: a small column that is no rounding counts
    for sums in (equations.gram, equations.gram.swapaxes(2, 3), equations.moment):
        sums[:, :, 4] *= 1e15
    assert abs(solve(equations).coefficients[4]) > 1.0
    assert 4 in forward_selection(equations, OWNERS, np.array([N_H, N_O]))


def test_a_column_of_zeros_does_no_harm(structures: list[Atoms], truth: np.ndarray) -> None:
    equations = equations_of(labelled(structures, truth))
    for sums in (equations.gram, equations.gram.swapaxes(2, 3), equations.moment):
        sums[:, :, 4] = 0.0
    found = solve(equations)
    assert found.coefficients[4] == 0.0
    assert np.isfinite(found.coefficients).all()


def test_reference_energies() -> None:
    frames = []
    for symbols, energy in (("H2O", -3.0), ("H4O", -5.0), ("HO", 1e3)):
        atoms = Atoms(symbols, np.arange(3 * len(Atoms(symbols))).reshape(-1, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
        frames.append(atoms)
    dataset = StructureDataset(frames[:2], cutoff=CUTOFF)
    np.testing.assert_allclose(reference_energies(dataset, [1, 8]), [-1.0, -1.0], atol=1e-12)
    # compositions that cannot tell the elements apart: the least norm
    np.testing.assert_allclose(reference_energies(dataset.subset([0]), [1, 8]), [-1.2, -0.6], atol=1e-12)
    forces_only = frames[0].copy()
    forces_only.calc = SinglePointCalculator(forces_only, forces=np.zeros((3, 3)))
    assert reference_energies(StructureDataset([forces_only], cutoff=CUTOFF), [1, 8]).tolist() == [0.0, 0.0]


OWNERS = np.repeat([0, 1, -1], [N_H, N_O, 2])


def test_forward_selection_finds_the_true_functions() -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat([0, 1, -1], [20, 12, 2])
    design = rng.normal(size=(300, 34)) * rng.uniform(0.01, 100.0, 34)
    support = [3, 11, 19, 20, 27]
    truth = np.zeros(34)
    truth[[*support, 32, 33]] = rng.choice([-1.0, 1.0], 7) / np.linalg.norm(design, axis=0)[[*support, 32, 33]]
    target = design @ truth
    gram, moment = np.zeros((1, 3, 34, 34)), np.zeros((1, 3, 34))
    gram[0, 1], moment[0, 1] = design.T @ design, design.T @ target
    equations = NormalEquations(gram, moment, np.array([[0.0, target @ target, 0.0]]), np.array([[0, 300, 0]]), 2)
    assert forward_selection(equations, owners, np.array([3, 2])).tolist() == support
    # with room for more the true ones are among the chosen, and one fewer leaves out a true one
    assert set(support) < set(forward_selection(equations, owners, np.array([5, 5])).tolist())
    assert set(forward_selection(equations, owners, np.array([2, 2])).tolist()) < set(support)


def test_forward_selection_obeys_its_limits(structures: list[Atoms], truth: np.ndarray) -> None:
    equations = equations_of(labelled(structures, truth))
    for limits in ([3, 1], [0, 4], [N_H, N_O], [100, 2]):
        chosen = forward_selection(equations, OWNERS, np.array(limits))
        n_h = int((chosen < N_H).sum())
        assert (n_h, len(chosen) - n_h) == (min(limits[0], N_H), min(limits[1], N_O))
        assert (np.diff(chosen) > 0).all()


def test_forward_selection_passes_over_repeats(structures: list[Atoms], truth: np.ndarray) -> None:
    equations = equations_of(labelled(structures, truth))
    order = [*range(N), 0, 3, N, N + 1]
    doubled = NormalEquations(
        equations.gram[:, :, order][:, :, :, order], equations.moment[:, :, order], *equations[2:]
    )
    owners = np.concatenate([OWNERS[:N], [0, 0, -1, -1]])
    assert len(forward_selection(doubled, owners, np.array([N_H + 2, N_O]))) == N


def worst(data: StructureDataset, coefficients: np.ndarray) -> tuple[float, float]:
    """Largest error of a force component of structures that count, and the root mean square of all."""
    shifted = coefficients + np.append(np.zeros(N), reference_energies(data, [1, 8]))
    items = [data[i] for i in range(len(data)) if float(data[i].weight[0])]
    errors = [(potential(shifted).predict(item).forces - item.forces)[item.has_forces].numpy() for item in items]
    flat = np.concatenate([error.ravel() for error in errors])
    return float(np.abs(flat).max()), float(np.sqrt(np.mean(flat**2)))


def odd_one_out(structures: list[Atoms], truth: np.ndarray, weight: float = 1.0) -> StructureDataset:
    """Noisy labels, and one structure, the fifth, whose forces are pushed far from what the others say."""
    data = labelled(structures, truth, noise=0.02)
    frames = data.atoms
    forces = frames[5].get_forces()
    forces[0, 1] += 3.0
    forces[1, 1] -= 3.0
    frames[5].calc = SinglePointCalculator(frames[5], energy=frames[5].get_potential_energy(), forces=forces)
    frames[5].info["weight"] = weight
    return StructureDataset(frames, cutoff=CUTOFF)


def limited(data: StructureDataset, limit: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of least squares, and how the limit changes them."""
    kernel, equations = FeatureKernel(FUNCTIONS), equations_of(data)
    best = solve(equations)
    forces = linear_forces(kernel, data, best.coefficients)
    errors = {i: own - data[i].forces[data[i].has_forces].numpy().ravel() for i, own in forces.items()}
    gram = weighted_gram(equations, best.energy_weight)
    change = limit_force_errors(kernel, data, gram, errors, ridge=best.ridge, limit=limit)
    return best.coefficients, change


def test_no_force_error_far_beyond_the_others(structures: list[Atoms], truth: np.ndarray) -> None:
    data = odd_one_out(structures, truth)
    coefficients, change = limited(data)
    before, after = worst(data, coefficients), worst(data, coefficients + change)
    assert before[0] > 10.0 * before[1]
    assert after[0] < 8.5 * after[1]
    # the price is a larger mean: least squares without the limit has the smallest there is
    assert before[1] < after[1]
    # and a limit that nothing exceeds changes nothing
    assert not limited(data, limit=100.0)[1].any()


def test_bounded_least_squares_minimise_their_objective() -> None:
    rng = np.random.default_rng(3)
    design, target = rng.normal(size=(200, 6)), rng.standard_t(2, size=200)
    gram = design.T @ design
    found = _bounded(gram, design, target, np.full(200, 4.0), 0.0, np.zeros(6), 0)
    error = design @ found - target
    excess = np.sign(error) * np.maximum(np.abs(error) - 4.0, 0.0)
    assert 0 < np.count_nonzero(excess) < 50
    stiff = 1000.0 * design.T @ excess
    assert np.abs(gram @ found + stiff).max() < 1e-6 * np.abs(stiff).max()


def test_forces_of_coefficients(structures: list[Atoms], truth: np.ndarray) -> None:
    data = labelled(structures, truth)
    forces = linear_forces(FeatureKernel(FUNCTIONS), data, truth)
    assert sorted(forces) == list(range(len(data)))
    for i, own in forces.items():
        np.testing.assert_allclose(own, data[i].forces.numpy().ravel(), rtol=0, atol=1e-10)


def test_the_limit_leaves_out_what_does_not_count(structures: list[Atoms], truth: np.ndarray) -> None:
    assert limited(odd_one_out(structures, truth))[1].any()
    assert not limited(odd_one_out(structures, truth, weight=0.0))[1].any()
    assert not limited(labelled(structures, truth, ("energy",)))[1].any()


def test_folds_are_equal_parts() -> None:
    fold = folds(23, 5, seed=3)
    assert sorted(np.bincount(fold).tolist()) == [4, 4, 5, 5, 5]
    assert np.array_equal(fold, folds(23, 5, seed=3))
    assert not np.array_equal(fold, folds(23, 5, seed=4))
