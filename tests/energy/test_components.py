"""Principal components against the functions they are made of."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy import StructureDataset, SymmetryFunctions
from molml.energy.components import ComponentKernel, Components, principal_components, smoothness, standardised
from molml.energy.data import pair_vectors
from molml.energy.features import G1, G2, G5, Compact, CompactAngle, FourBody, Function, ThreeBody
from molml.energy.fitting import _OnComponents, _silence
from molml.energy.kernels import FeatureKernel, Neighbourhood, neighbourhood
from molml.energy.loss import FeaturisedDataset
from molml.energy.model import BehlerParrinello, FeatureStatistics, feature_statistics

CUTOFF = 3.5
SHELLS = [(2.0, 1.0), (1.0, 1.8), (0.6, 2.6)]
CHOSEN = [G2(symbol, *shell) for symbol in "HO" for shell in SHELLS]
CHOSEN += [ThreeBody(("H", "O"), (SHELLS[0], SHELLS[1]), 1), FourBody(("H", "O", "O"), (SHELLS[1],) * 3, (1, 1, 2))]
FUNCTIONS = SymmetryFunctions({"H": CHOSEN, "O": CHOSEN[3:]}, cutoff=CUTOFF)


def without_labels(structures: list[Atoms]) -> StructureDataset:
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    return StructureDataset(structures, cutoff=CUTOFF)


def near(kernel: FeatureKernel, dataset: StructureDataset, i: int) -> Neighbourhood:
    item = dataset[i]
    return neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))


@pytest.fixture(scope="module")
def dataset(random_structures) -> StructureDataset:
    return without_labels(random_structures(40, seed=3, symbols=("H", "O")))


@pytest.fixture(scope="module")
def kernel() -> FeatureKernel:
    return FeatureKernel(FUNCTIONS)


@pytest.fixture(scope="module")
def statistics(kernel: FeatureKernel, dataset: StructureDataset) -> FeatureStatistics:
    featurised = FeaturisedDataset(dataset, kernel)
    return feature_statistics([featurised[i].features for i in range(len(dataset))])


def means(statistics: FeatureStatistics) -> list[np.ndarray]:
    return [own.numpy() for own in statistics.mean]


@pytest.fixture(scope="module")
def components(kernel, dataset, statistics) -> list[Components]:
    return principal_components(kernel, dataset, means(statistics), standardised(statistics))


def values_of(kernel: FeatureKernel, dataset: StructureDataset, e: int) -> np.ndarray:
    blocks = []
    for i in range(len(dataset)):
        around = near(kernel, dataset, i)
        blocks.append(kernel.values(around, kernel.moments(around))[e])
    return np.concatenate(blocks)


def test_components_are_uncorrelated_and_ordered(kernel, dataset, statistics, components):
    for e, own in enumerate(components):
        values = values_of(kernel, dataset, e)
        z = (values - own.mean) @ own.directions
        np.testing.assert_allclose(z.T @ z / len(z), np.diag(own.variances), atol=1e-9 * own.variances[0])
        assert (np.diff(own.variances) <= 0).all()
        # standardised functions: the variances add up to the number of those that vary
        assert own.variances.sum() == pytest.approx(int((statistics.std[e] > 0).sum()), rel=1e-8)
        for power, expected in ((0.5, np.ones(4)), (0.0, own.variances[:4] / own.variances[:4].mean())):
            z = (values - own.mean) @ own.scaled(4, power)
            np.testing.assert_allclose((z**2).mean(0), expected, rtol=1e-8)


def test_components_of_functions_that_count_differently(kernel, dataset, statistics):
    factors = [np.linspace(0.5, 2.0, len(own)) for own in statistics.mean]
    found = principal_components(kernel, dataset, means(statistics), factors)
    for e, (own, factor) in enumerate(zip(found, factors, strict=True)):
        centred = values_of(kernel, dataset, e) - own.mean
        z = centred @ own.directions
        np.testing.assert_allclose(z.T @ z / len(z), np.diag(own.variances), atol=1e-9 * own.variances[0])
        expected = float(((statistics.std[e].numpy() * factor) ** 2).sum())
        assert own.variances.sum() == pytest.approx(expected, rel=1e-8)
        # the leading one is the direction in which the multiplied functions vary most
        covariance = (centred * factor).T @ (centred * factor) / len(centred)
        assert own.variances[0] == pytest.approx(np.linalg.norm(covariance, 2), rel=1e-8)


def test_far_and_many_neighbours_count_less():
    close, far = (0.5, 1.0), (0.5, 4.0)
    own: list[Function] = [
        G2("H", *close),
        G2("H", *far),
        ThreeBody(("H", "H"), (close, far), 1),
        FourBody(("H", "H", "H"), (close, close, far), (1, 1, 2)),
        G1("H"),
        G5(("H", "H"), 0.1, 2.0, 1.0, r_s=4.0),
        Compact("H", 1.0, 3.0),
        CompactAngle(("H", "H"), -2.0, 2.0, 60.0, 180.0),
    ]
    first, second = 1 / 1.5, 1 / 3.0
    expected = [first, second, 3 * first * second, first**2 * second, 1.0, 3 * second**2, 0.5, 3.0]
    found = smoothness(SymmetryFunctions({"H": own, "O": own[:2]}, cutoff=5.0))
    np.testing.assert_allclose(found[0], expected)
    np.testing.assert_allclose(found[1], expected[:2])


def test_products_with_derivatives_are_those_of_the_functions(kernel, dataset, components):
    projections = [own.scaled(3, 0.2) for own in components]
    own = ComponentKernel(kernel, projections, [c.mean for c in components])
    rng, seen = np.random.default_rng(0), 0
    for i in range(6):
        around = near(kernel, dataset, i)
        moments, n_pairs = own.moments(around), len(around.pairs.first)
        values = own.values(around, moments)
        for x, g, c, p in zip(values, kernel.values(around, moments), components, projections, strict=True):
            np.testing.assert_allclose(x, (g - c.mean) @ p, rtol=1e-10, atol=1e-12)
        weights, directions = [rng.normal(size=x.shape) for x in values], rng.normal(size=(n_pairs, 3))
        gradient, changes = own.vjp(around, moments, weights), own.jvp(around, moments, directions)
        # both sides of the same bilinear form
        both = sum(float((w * x).sum()) for w, x in zip(weights, changes, strict=True))
        assert float((gradient * directions).sum()) == pytest.approx(both, rel=1e-9, abs=1e-9)
        kept = own.derivatives(around, moments)
        assert sum(block.nbytes for block in kept) == own.derivatives_size(around)
        np.testing.assert_allclose(own.stored_vjp(around, kept, weights), gradient, rtol=1e-9, atol=1e-9)
        for x, y in zip(own.stored_jvp(around, kept, directions), changes, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)
        seen += n_pairs
    assert seen > 50


def test_an_element_that_no_structure_holds_has_one_component_that_is_zero(kernel):
    hydrogen = without_labels([Atoms("H2", [[0, 0, 0], [0, 0, 0.8 + 0.1 * i]]) for i in range(3)])
    featurised = FeaturisedDataset(hydrogen, kernel)
    statistics = feature_statistics([featurised[i].features for i in range(3)])
    found = principal_components(kernel, hydrogen, means(statistics), standardised(statistics))
    assert found[0].variances[0] > 0.5
    assert found[1].directions.shape == (len(CHOSEN) - 3, 1)
    assert not found[1].directions.any()


@pytest.mark.parametrize("activation", ["silu", "softplus"])
def test_trained_networks_are_networks_of_the_functions(activation, dataset, kernel, statistics, components):
    linear = [torch.randn(FUNCTIONS.n_functions(s), dtype=torch.float64) for s in "HO"]
    options = {"hidden": (5, 4), "activation": activation, "linear": linear}
    potential = BehlerParrinello(FUNCTIONS, statistics, [-1.0, 2.0], **options)
    _silence(potential.networks)
    projections = [own.scaled(3, 0.2) for own in components]
    learner = _OnComponents(ComponentKernel(kernel, projections, [c.mean for c in components]), potential, seed=1)
    before = [potential.predict(dataset[i]) for i in range(4)]
    learner.copy_to(potential)
    for i, base in enumerate(before):
        around = near(kernel, dataset, i)
        inputs = [torch.from_numpy(x) for x in learner.kernel.values(around, kernel.moments(around))]
        own = sum(float(e.sum().detach()) for e in learner.atomic_energies(inputs))
        assert abs(own) > 1e-6
        assert float(potential.predict(dataset[i]).energy - base.energy) == pytest.approx(own, rel=1e-8, abs=1e-10)
