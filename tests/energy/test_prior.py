"""What is assumed of distorted structures: how they are made, what they add to least squares, what they prevent."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from molml.datasets import path
from molml.energy import StructureDataset, SymmetryFunctions, fit
from molml.energy.data import pair_vectors
from molml.energy.features import G2, ThreeBody
from molml.energy.kernels import FeatureKernel
from molml.energy.linear import linear_forces, normal_equations, penalties, reference_energies, ridge_solution, solve
from molml.energy.prior import distorted, prior

CUTOFF = 3.5
SHELLS = [(2.0, 1.0), (1.0, 1.8), (0.6, 2.6)]
CHOSEN = [G2(s, *shell) for s in "HO" for shell in SHELLS] + [ThreeBody(("H", "O"), (SHELLS[0], SHELLS[1]), 1)]
KERNEL = FeatureKernel(SymmetryFunctions({"H": CHOSEN, "O": CHOSEN}, cutoff=CUTOFF))


@pytest.fixture(scope="module")
def water(random_structures) -> StructureDataset:
    rng, found = np.random.default_rng(0), random_structures(40, seed=3, symbols=("H", "O"))
    for atoms in found:
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
    return StructureDataset(found, cutoff=CUTOFF)


def shortest(items) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for item in items:
        numbers = item.numbers.tolist()
        distances = pair_vectors(item).norm(dim=1).tolist()
        for i, j, d in zip(item.first.tolist(), item.second.tolist(), distances, strict=True):
            pair = min(numbers[i], numbers[j]), max(numbers[i], numbers[j])
            found[pair] = min(found.get(pair, np.inf), d)
    return found


def positions(items) -> list[np.ndarray]:
    return [item.positions.numpy() for item in items]


def test_every_other_structure_is_shaken_and_the_rest_are_pushed_together(water):
    beside = distorted(water, seed=0)
    items = beside.structures
    least = shortest(water[i] for i in range(len(water)))
    assert len(items) == 50
    known = positions(water[i] for i in range(len(water)))
    for k, item in enumerate(items):
        assert item.has_forces.all() and not item.forces.any() and not item.has_energy.any()
        same = [p for p in known if p.shape == item.positions.shape]
        moved = min((np.abs(item.positions.numpy() - p).max(1) > 1e-12).sum() for p in same)
        if k % 2:
            assert moved <= 2
        else:
            assert moved == len(item.numbers)
            assert all(d >= 0.92 * least[pair] - 1e-12 for pair, d in shortest([item]).items())
    # the control of the last line: what is pushed comes closer than that
    closest = shortest(items[1::2])
    assert min(closest[pair] / least[pair] for pair in closest) < 0.7
    assert min(closest[pair] / least[pair] for pair in closest) >= 0.35
    assert (beside.repulsion[::2] == 0.0).all() and (beside.repulsion >= 0.0).all() and beside.repulsion.max() > 1.0


def test_the_seed_decides(water):
    one, same, other = (distorted(water, seed).structures for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(positions(one), positions(same), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(positions(one), positions(other), strict=True))


def test_crystals_are_strained_and_an_atom_alone_in_its_cell_has_no_partner():
    crystals = []
    for a in (3.5, 3.6, 3.7):
        crystals.append(bulk("Cu", a=a))
        crystals[-1].calc = EMT()
        crystals[-1].get_forces()
    items = distorted(StructureDataset(crystals, cutoff=4.0), seed=0).structures
    assert len(items) == 50
    cells = np.array([item.cell[0].numpy() for item in items])
    assert all(np.abs(cells[0] - cell).max() > 1e-3 for cell in cells[1:])
    assert all(len(item.first) for item in items)


def test_an_atom_without_neighbours_is_no_reason_to_fail():
    lonely = Atoms("He", [[0, 0, 0]])
    data = StructureDataset([lonely], cutoff=4.0, energy_key=None, forces_key=None)
    assert len(distorted(data, seed=0).structures) == 50


def test_forces_are_expected_within_four_times_their_median_and_the_repulsion(water):
    beside = distorted(water, seed=0)
    forces = np.concatenate([np.full(50, 0.5), np.full(49, 1e9), [-0.5]])
    found = prior(KERNEL, beside, forces, 0.02)
    weights = [(0.02 / (4 * 0.5 + repulsion)) ** 2 for repulsion in beside.repulsion]
    assert [float(item.weight[0]) for item in found.structures] == pytest.approx(weights, rel=1e-12)
    gram = sum(
        weight * normal_equations(KERNEL, [item], np.zeros(2), n_folds=1).gram[0, 1]
        for item, weight in zip(beside.structures, weights, strict=True)
    )
    assert np.allclose(found.gram, gram, rtol=1e-12)
    # data without an error, forces that are all zero: neither takes the assumption its meaning
    exact = prior(KERNEL, beside, forces, 0.0)
    assert float(exact.structures[0].weight[0]) == pytest.approx((2e-3 / 2.0) ** 2, rel=1e-12)
    assert float(prior(KERNEL, beside, np.zeros(9), 0.02).structures[0].weight[0]) == pytest.approx(100.0)


def test_least_squares_with_the_assumption_is_least_squares_with_more_rows(water):
    reference = reference_energies(water, KERNEL.elements)
    equations = normal_equations(KERNEL, water, reference)
    assumed = prior(KERNEL, distorted(water, seed=0), np.ones(3), 1.0)
    found = solve(equations, energy_weights=(10.0,), ridges=(1e-8,), prior=assumed.gram)
    gram = np.tensordot([100.0, 1.0, 0.09], equations.gram.sum(0), 1) + assumed.gram
    moment = np.tensordot([100.0, 1.0, 0.09], equations.moment.sum(0), 1)
    expected = ridge_solution(gram, moment, penalties(gram, 1e-8, 2), 2)
    assert np.allclose(found.coefficients, expected, rtol=1e-10)
    without = solve(equations, energy_weights=(10.0,), ridges=(1e-8,))
    on = [np.concatenate(list(linear_forces(KERNEL, assumed.structures, s.coefficients).values()))
          for s in (found, without)]  # fmt: skip
    assert (on[0] ** 2).sum() < (on[1] ** 2).sum()
    squares = [(equations.n_rows.sum(0) * s.train_rmse**2) @ [100.0, 1.0, 0.09] for s in (found, without)]
    assert squares[0] > squares[1]


def test_potentials_have_no_holes_beside_the_data(monkeypatch):
    data = StructureDataset(path("ethanol") / "train.xyz.xz", index=slice(0, 140)).with_cutoff(4.0)
    # fewer structures than decide on so many functions
    train, rest = data.subset(range(30)), data.subset(range(100, 140))
    others = distorted(train, seed=99).structures
    # penalties of coefficients close most holes, too: here the assumption is alone with them
    monkeypatch.setattr("molml.energy.linear.penalties", lambda gram, ridge, n_free: np.zeros(len(gram)))

    def largest_and_error() -> tuple[float, float]:
        potential = fit(train, model="linear", n_functions=200, guard=False)
        forces = [potential.predict(item, stress=False).forces.abs().max() for item in others]
        errors = [(potential.predict(rest[i]).forces - rest[i].forces).abs() for i in range(len(rest))]
        return float(np.quantile(forces, 0.9)), float(torch.cat(errors).mean())

    with_it, error = largest_and_error()
    monkeypatch.setattr("molml.energy.prior._WIDTH", 1e6)  # the control: an assumption without weight
    without, error_without = largest_and_error()
    assert with_it < 0.3 * without
    assert error < 1.1 * error_without
