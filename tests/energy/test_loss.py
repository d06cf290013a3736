"""The training objective: by hand, its gradient by differences, and the batches it is computed on."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy import BehlerParrinello, EnergyForceLoss, LinearPotential, StructureDataset, SymmetryFunctions
from molml.energy.data import collate
from molml.energy.features import G2, G4, G5, FourBody, ThreeBody
from molml.energy.kernels import FeatureKernel
from molml.energy.loss import Featurised, FeaturisedDataset, featurise
from molml.energy.model import feature_statistics

CUTOFF = 3.5
CHOSEN = [
    G2("H", 1.0, 1.0),
    G2("O", 0.5, 2.0),
    G4(("H", "O"), 0.05, 1.5, 1),
    G5(("H", "O"), 0.05, 2, -1),
    ThreeBody(("O", "O"), ((0.9, 1.2), (0.3, 2.2)), 2),
    FourBody(("H", "O", "O"), ((0.9, 1.2), (0.3, 2.2), (0.3, 2.2)), (1, 1, 2)),
]
FUNCTIONS = SymmetryFunctions({"H": CHOSEN, "O": CHOSEN[:5]}, cutoff=CUTOFF)


def labelled(atoms: Atoms, seed: int, weight: float, labels: str) -> Atoms:
    rng = np.random.default_rng(seed)
    stress = rng.normal(size=(3, 3)) * 0.01
    values = {
        "energy": rng.normal(),
        "forces": rng.normal(size=(len(atoms), 3)),
        "stress": (stress + stress.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
    }
    atoms.calc = SinglePointCalculator(atoms, **{name: values[name] for name in labels.split()})
    atoms.info["weight"] = weight
    return atoms


@pytest.fixture
def dataset(random_structures) -> StructureDataset:
    """A molecule with energy, a slab with forces, a wire with both, two crystals: all; energy and stress."""
    molecule, slab, wire, crystal, other = random_structures(5, seed=1, symbols=("H", "O"))
    frames = [
        labelled(molecule, 0, 1.0, "energy"),
        labelled(slab, 1, 0.5, "forces"),
        labelled(wire, 2, 2.0, "energy forces"),
        labelled(crystal, 3, 3.0, "energy forces stress"),
        labelled(other, 4, 0.25, "energy stress"),
    ]
    return StructureDataset(frames, cutoff=CUTOFF)


def network(dataset: StructureDataset) -> BehlerParrinello:
    featurised = FeaturisedDataset(dataset, FeatureKernel(FUNCTIONS))
    statistics = feature_statistics([item.features for item in featurised])
    linear = [torch.full_like(mean, 0.1) for mean in statistics.mean]
    return BehlerParrinello(FUNCTIONS, statistics, [0.1, -0.3], hidden=(5, 4), linear=linear, energy_scale=0.7, seed=3)


def batch_of(dataset: StructureDataset, model: BehlerParrinello | LinearPotential) -> Featurised:
    featurised = FeaturisedDataset(dataset, model.kernel)
    return featurised.collate([featurised[i] for i in range(len(featurised))])


def test_terms_by_hand(dataset: StructureDataset) -> None:
    model = network(dataset).eval()
    terms = EnergyForceLoss(energy_weight=0.5, forces_weight=2.0, stress_weight=7.0)(model, batch_of(dataset, model))
    predictions = [model.predict(dataset[i]) for i in range(len(dataset))]
    energy = sum(
        w * ((float(predictions[i].energy[0]) - float(dataset[i].energy[0])) / len(dataset[i].numbers)) ** 2
        for i, w in ((0, 1.0), (2, 2.0), (3, 3.0), (4, 0.25))
    )
    forces = sum(
        w * float(((predictions[i].forces - dataset[i].forces) ** 2).sum()) for i, w in ((1, 0.5), (2, 2.0), (3, 3.0))
    )
    stress = sum(w * float(((predictions[i].stress - dataset[i].stress) ** 2).sum()) for i, w in ((3, 3.0), (4, 0.25)))
    components = 3 * (0.5 * len(dataset[1].numbers) + 2 * len(dataset[2].numbers) + 3 * len(dataset[3].numbers))
    assert list(terms) == ["energy_mse", "forces_mse", "stress_mse"]
    assert [float(term.total.detach()) for term in terms.values()] == pytest.approx([energy, forces, stress], rel=1e-12)
    assert [float(term.count) for term in terms.values()] == pytest.approx([6.25, components, 9 * 3.25], rel=1e-15)
    assert [term.weight for term in terms.values()] == [0.5, 2.0, 7.0]


def test_training_and_evaluation_say_the_same(dataset: StructureDataset) -> None:
    model = network(dataset)
    batch = batch_of(dataset, model)
    trained = EnergyForceLoss()(model.train(), batch)
    evaluated = EnergyForceLoss()(model.eval(), batch)
    assert [float(t.total.detach()) for t in trained.values()] == pytest.approx(
        [float(t.total.detach()) for t in evaluated.values()], rel=1e-12
    )


def test_terms_without_labels_count_nothing(dataset: StructureDataset) -> None:
    model = network(dataset)
    terms = EnergyForceLoss()(model, batch_of(dataset.subset([0]), model))
    assert [float(term.count) for term in terms.values()] == [1.0, 0.0, 0.0]
    assert [float(term.total.detach()) for term in list(terms.values())[1:]] == [0.0, 0.0]


@pytest.mark.parametrize("name", ["energy_mse", "forces_mse", "stress_mse"])
def test_gradient_by_the_weights_is_that_of_differences(dataset: StructureDataset, name: str) -> None:
    model = network(dataset).train()
    batch = batch_of(dataset, model)
    loss = EnergyForceLoss()
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        loss(model, batch)[name].total, parameters, allow_unused=True, materialize_grads=True
    )
    assert max(float(g.abs().max()) for g in gradients) > 1e-4
    h = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for k in range(len(flat)):
            before = float(flat[k])
            values = []
            for step in (h, -h):
                flat[k] = before + step
                values.append(float(loss(model, batch)[name].total.detach()))
            flat[k] = before
            assert float(gradient.view(-1)[k]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6, abs=1e-8)


def test_collating_is_featurising_the_collated(dataset: StructureDataset) -> None:
    kernel = FeatureKernel(FUNCTIONS)
    featurised = FeaturisedDataset(dataset, kernel)
    order = [3, 0, 4, 1]
    batch = featurised.collate([featurised[i] for i in order])
    structures = collate([dataset[i] for i in order])
    assert all(torch.equal(a, b) for a, b in zip(batch.structures, structures, strict=True))
    whole = featurise(kernel, structures)
    np.testing.assert_array_equal(batch.near.pairs.start, whole.near.pairs.start)
    np.testing.assert_array_equal(batch.near.pairs.first, whole.near.pairs.first)
    np.testing.assert_array_equal(batch.near.pairs.second, whole.near.pairs.second)
    np.testing.assert_array_equal(batch.near.pairs.neighbour, whole.near.pairs.neighbour)
    np.testing.assert_allclose(batch.near.pairs.vectors, whole.near.pairs.vectors, rtol=0, atol=1e-15)
    assert (batch.near.pairs.longest, batch.near.pairs.n_elements) == (whole.near.pairs.longest, 2)
    for a, b in zip(batch.near.atoms, whole.near.atoms, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(batch.moments, whole.moments, rtol=1e-13, atol=1e-13)
    for a, b in zip(batch.features, whole.features, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def bytes_of(item: Featurised) -> int:
    """What an item of one structure takes beyond what the data set itself holds, from the arrays themselves."""
    pairs = item.near.pairs
    arrays = [item.moments, *item.features, *(item.derivatives or []), pairs.vectors, pairs.neighbour, pairs.first]
    arrays += [pairs.second, item.structures.offset.numpy(), pairs.start[1:], item.structures.structure.numpy()]
    return sum(array.nbytes for array in [*arrays, *item.near.atoms])


@pytest.mark.parametrize("derivatives", ["auto", "keep", "compute"])
def test_memory_bounds_what_is_kept(dataset: StructureDataset, derivatives: str) -> None:
    kernel = FeatureKernel(FUNCTIONS)
    everything = FeaturisedDataset(dataset, kernel, derivatives="keep")
    sizes = [bytes_of(everything[i]) for i in range(5)]
    kept = []
    for memory in np.linspace(0.0, 1.2 * sum(sizes), 25):
        featurised = FeaturisedDataset(dataset, kernel, memory=memory * 1e-9, derivatives=derivatives)
        twice = [(featurised[i], featurised[i]) for i in (4, 2, 0, 1, 3)]
        held = [first for first, second in twice if first is second]
        assert sum(bytes_of(item) for item in held) <= memory
        assert sum(item.derivatives is not None for item in held) == featurised.n_derivatives
        # moments and functions of all come before the derivatives of any
        assert len(held) == 5 or featurised.n_derivatives == 0
        kept.append((len(held), featurised.n_derivatives))
    assert kept[0] == (0, 0)
    assert kept[-1] == (5, {"auto": 5, "keep": 5, "compute": 0}[derivatives])
    # and between the two limits a part of each
    assert len({n for n, _ in kept}) > 2
    assert derivatives == "compute" or len({n for _, n in kept}) > 2


def test_what_is_kept_does_not_depend_on_the_order_of_use(dataset: StructureDataset) -> None:
    kernel = FeatureKernel(FUNCTIONS)
    memory = 0.6e-9 * sum(bytes_of(item) for item in FeaturisedDataset(dataset, kernel, derivatives="keep"))
    found = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        featurised = FeaturisedDataset(dataset, kernel, memory=memory, derivatives="keep")
        items = {i: featurised[i] for i in order}
        found.append([i for i in range(5) if items[i].derivatives is not None])
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 5


def test_kept_and_computed_features_are_the_same(dataset: StructureDataset) -> None:
    kernel = FeatureKernel(FUNCTIONS)
    kept, computed = FeaturisedDataset(dataset, kernel), FeaturisedDataset(dataset, kernel, memory=0.0)
    assert len(kept) == 5
    assert kept[2] is kept[2]
    assert computed[2] is not computed[2]
    for a, b in zip(kept[2].features, computed[2].features, strict=True):
        assert np.array_equal(a, b)


def gradient_of(model: BehlerParrinello, batch: Featurised) -> torch.Tensor:
    """Terms of the loss and their gradients by the weights, in one row."""
    terms = EnergyForceLoss()(model.train(), batch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = [torch.stack([term.total.detach() for term in terms.values()])]
    for term in terms.values():
        grads = torch.autograd.grad(
            term.total, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows += [g.ravel() / g.abs().max().clamp(min=1.0) for g in grads]
    return torch.cat(rows)


@pytest.mark.parametrize("share", [1.0, 0.6], ids=["all kept", "some kept"])
def test_kept_derivatives_give_the_same_loss_and_gradient(dataset: StructureDataset, share: float) -> None:
    model = network(dataset)
    everything = FeaturisedDataset(dataset, model.kernel, derivatives="keep")
    room = 1e-9 * share * sum(bytes_of(item) for item in everything)
    some = FeaturisedDataset(dataset, model.kernel, memory=room, derivatives="keep")
    none = FeaturisedDataset(dataset, model.kernel, derivatives="compute")
    order = [3, 1, 4, 0, 2]
    stored, computed = (data.collate([data[i] for i in order]) for data in (some, none))
    assert (len(stored.parts), len(computed.parts)) == (5, 0)
    expected = gradient_of(model, computed)
    # both sum the same few hundred products in another order
    torch.testing.assert_close(gradient_of(model, stored), expected, rtol=1e-12, atol=1e-12)
    # a control: single precision would be seen
    for part in stored.parts:
        for block in part.derivatives or []:
            block[:] = block.astype(np.float32)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(gradient_of(model, stored), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_atoms", "kept"), [(2, 0), (4, 0), (5, 1), (8, 1)])
def test_derivatives_are_kept_where_reading_them_is_cheaper(n_atoms: int, kept: int) -> None:
    # n neighbours each: n (n - 1) / 2 pairs of them to visit, or n derivatives to read
    atoms = Atoms(f"H{n_atoms}", [[i // 4, i // 2 % 2, i % 2] for i in range(n_atoms)])
    dataset = StructureDataset([labelled(atoms, 0, 1.0, "energy forces")], cutoff=CUTOFF)
    narrow = SymmetryFunctions({"H": [G4(("H", "H"), 0.05, 1.5, 1), G4(("H", "H"), 0.1, 2.0, -1)]}, cutoff=CUTOFF)
    assert FeaturisedDataset(dataset, FeatureKernel(narrow)).n_derivatives == kept
    radial = SymmetryFunctions({"H": [G2("H", 1.0, 1.0)]}, cutoff=CUTOFF)
    assert FeaturisedDataset(dataset, FeatureKernel(radial)).n_derivatives == 0


def test_refusals(dataset: StructureDataset) -> None:
    with pytest.raises(ValueError, match=r"must have the functions' cutoff 3\.5 Å, got 4\.0; use dataset\.with_cutoff"):
        FeaturisedDataset(dataset.with_cutoff(4.0), FeatureKernel(FUNCTIONS))
    with pytest.raises(ValueError, match="memory must be zero or more GB, got -1"):
        FeaturisedDataset(dataset, FeatureKernel(FUNCTIONS), memory=-1.0)
    with pytest.raises(ValueError, match="derivatives must be 'auto', 'keep' or 'compute', got 'all'"):
        FeaturisedDataset(dataset, FeatureKernel(FUNCTIONS), derivatives="all")
    for name in ("energy", "forces", "stress"):
        with pytest.raises(ValueError, match=f"{name}_weight must not be negative, got -1.0"):
            EnergyForceLoss(**{f"{name}_weight": -1.0})
