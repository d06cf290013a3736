"""The recipe from structures to a potential, on small crystals whose energies come from EMT."""

import json
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import molml
from molml.energy import (
    BehlerParrinello,
    Committee,
    EnergyForceLoss,
    LinearPotential,
    StructureDataset,
    evaluate,
    fit,
    fitting,
)
from molml.energy.data import collate
from molml.energy.features import G2, Function, SymmetryFunctions, ThreeBody
from molml.energy.loss import FeaturisedDataset
from molml.energy.model import Potential
from molml.training import TrainingInterrupted

SMALL = {"n_functions": 20, "hidden": (8,), "progress": False}


@pytest.fixture(scope="module")
def data(emt_crystals) -> StructureDataset:
    return StructureDataset(emt_crystals(30), cutoff=4.5)


@pytest.fixture(scope="module")
def alloy(emt_crystals) -> StructureDataset:
    return StructureDataset(emt_crystals(20, symbols=("Cu", "Ni")), cutoff=4.5)


def bits(potential: Potential) -> dict[str, torch.Tensor]:
    return potential.state_dict()


def same(a: Potential, b: Potential) -> bool:
    first, second = bits(a), bits(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def errors(potential: Potential, data: StructureDataset) -> tuple[float, float]:
    """RMSE of the energy per atom and of the force components."""
    batch = collate([data[i] for i in range(len(data))])
    prediction = potential.predict(batch)
    n_atoms = torch.bincount(batch.structure)
    energy = ((prediction.energy - batch.energy) / n_atoms).square().mean().sqrt()
    return float(energy), float((prediction.forces - batch.forces).square().mean().sqrt())


def spread(data: StructureDataset) -> tuple[float, float]:
    batch = collate([data[i] for i in range(len(data))])
    return float((batch.energy / torch.bincount(batch.structure)).std()), float(batch.forces.std())


def test_linear(data: StructureDataset) -> None:
    potential = fit(data, model="linear", **SMALL)
    assert isinstance(potential, LinearPotential)
    assert potential.features.n_functions("Cu") == 20
    assert all(e < 0.1 * s for e, s in zip(errors(potential, data), spread(data), strict=True))
    assert potential.metadata["data_hash"] == data.hash
    assert potential.metadata["n_structures"] == 30
    assert set(potential.metadata["cross_validation"]) == {"energy", "forces", "stress"}
    json.dumps(potential.metadata)


@pytest.fixture(scope="module")
def odd(emt_crystals) -> StructureDataset:
    """Crystals, in one of which two forces were pushed apart: no potential of few functions can follow them."""
    frames = emt_crystals(60)
    forces = frames[7].get_forces()
    forces[:2, 0] += [2.0, -2.0]
    energy, stress = frames[7].get_potential_energy(), frames[7].get_stress()
    frames[7].calc = SinglePointCalculator(frames[7], energy=energy, forces=forces, stress=stress)
    return StructureDataset(frames, cutoff=4.5)


def worst(potential: Potential, data: StructureDataset) -> float:
    """Largest error of a force component in units of their root mean square."""
    batch = collate([data[i] for i in range(len(data))])
    error = potential.predict(batch).forces - batch.forces
    return float(error.abs().max() / error.square().mean().sqrt())


@pytest.mark.parametrize("options", [{}, {"members": 2}])
def test_no_force_of_the_training_structures_is_far_off(odd: StructureDataset, options: dict) -> None:
    assert worst(fit(odd, model="linear", **options, **SMALL), odd) < 9.0


def unlimited(kernel, data, gram, errors, *, ridge) -> np.ndarray:
    return np.zeros(len(gram))


def test_without_the_limit_a_force_is_far_off(odd: StructureDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molml.energy.fitting.limit_force_errors", unlimited)
    assert worst(fit(odd, model="linear", **SMALL), odd) > 12.0


def test_networks_keep_to_the_limit(odd: StructureDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = odd.subset(range(50)), odd.subset(range(50, 60))
    assert worst(fit(train, valid, epochs=10, **SMALL), train) < 9.0
    monkeypatch.setattr("molml.energy.fitting.limit_force_errors", unlimited)
    assert worst(fit(train, valid, epochs=10, **SMALL), train) > 10.0


def test_cross_validated_errors_are_like_true_ones(data: StructureDataset, emt_crystals) -> None:
    potential = fit(data, model="linear", **SMALL)
    test = StructureDataset(emt_crystals(37), cutoff=4.5)  # other rattles of the same amplitudes
    ratio = np.array(errors(potential, test)) / [
        potential.metadata["cross_validation"][k] for k in ("energy", "forces")
    ]
    assert ((0.2 < ratio) & (ratio < 5)).all()


def test_activation(data: StructureDataset) -> None:
    potential = fit(data, epochs=1, activation="softplus", **SMALL)
    assert potential.activation == "softplus"
    for name in ("swish", "tanh tanh"):  # one hidden layer
        with pytest.raises(ValueError, match="activation must"):
            fit(data, activation=name, **SMALL)


def test_network(data: StructureDataset, tmp_path) -> None:
    potential = fit(data, epochs=5, directory=tmp_path, **SMALL)
    assert isinstance(potential, BehlerParrinello)
    assert not potential.training
    assert potential.hidden == [8]
    assert all(e < 0.2 * s for e, s in zip(errors(potential, data), spread(data), strict=True))
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(epochs) == 5
    assert {"train_forces_rmse", "valid_forces_rmse"} <= set(epochs[0])


def test_a_network_is_no_worse_than_the_linear_potential_it_starts_from(alloy: StructureDataset) -> None:
    train, valid = alloy.split(0.3, 1)
    linear, network = (fit(train, valid, model=kind, epochs=1, **SMALL) for kind in ("linear", "network"))
    # one epoch from random weights helps little; what it must not do is harm
    assert errors(network, valid)[1] < 1.05 * errors(linear, valid)[1]


@pytest.mark.parametrize("model", ["linear", "network"])
def test_committee(data: StructureDataset, model: str) -> None:
    potential = fit(data, model=model, members=2, epochs=2, **SMALL)
    assert isinstance(potential, Committee)
    first, second = potential.members
    assert type(first) is {"linear": LinearPotential, "network": BehlerParrinello}[model]
    assert not same(first, second)
    assert all(e < 0.2 * s for e, s in zip(errors(potential, data), spread(data), strict=True))
    assert potential.predict(data[0]).energy_std > 0


@pytest.mark.parametrize("model", ["linear", "network"])
def test_other_processes_come_to_the_same_committee(data: StructureDataset, model: str, tmp_path) -> None:
    options = {"model": model, "members": 3, "epochs": 2, **SMALL}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        potential = fit(data, executor=pool, directory=tmp_path, **options)
    assert same(potential, fit(data, **options))
    if model == "network":
        assert sorted(path.name for path in tmp_path.glob("member-*")) == ["member-1", "member-2", "member-3"]


def test_a_seed_decides_everything(data: StructureDataset) -> None:
    first, second, other = (fit(data, epochs=2, seed=seed, **SMALL) for seed in (1, 1, 2))
    assert same(first, second)
    assert first.features.config != other.features.config or not same(first, other)


@pytest.mark.parametrize("labels", [("energy",), ("forces",), ("energy", "forces")])
@pytest.mark.parametrize("model", ["linear", "network"])
def test_any_labels(emt_crystals, labels: tuple[str, ...], model: str) -> None:
    potential = fit(StructureDataset(emt_crystals(20, labels=labels), cutoff=4.5), model=model, epochs=2, **SMALL)
    whole = StructureDataset(emt_crystals(20), cutoff=4.5)
    reached = dict(zip(("energy", "forces"), errors(potential, whole), strict=True))
    width = dict(zip(("energy", "forces"), spread(whole), strict=True))
    assert all(reached[name] < 0.3 * width[name] for name in labels)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Ctrl-C in the training step number ``at``."""
    steps = iter(range(10**9))
    compute = EnergyForceLoss.__call__

    def interrupted(self, model, batch):
        if model.training and next(steps) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return compute(self, model, batch)

    monkeypatch.setattr(EnergyForceLoss, "__call__", interrupted)


@pytest.mark.parametrize(("members", "at"), [(1, 3), (1, 13), (2, 20)])
def test_an_interrupted_fit_resumes_to_the_same_bits(
    data: StructureDataset, tmp_path, monkeypatch: pytest.MonkeyPatch, members: int, at: int
) -> None:
    options = {"epochs": 4, "members": members, **SMALL}
    straight = fit(data, directory=tmp_path / "straight", **options)
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(TrainingInterrupted, match="resume"):
            fit(data, directory=tmp_path / "broken", **options)
    resumed = fit(data, directory=tmp_path / "broken", resume=True, **options)
    assert same(straight, resumed)


def test_resuming_a_finished_fit_changes_nothing(data: StructureDataset, tmp_path) -> None:
    first = fit(data, epochs=2, directory=tmp_path, **SMALL)
    assert same(first, fit(data, epochs=2, directory=tmp_path, resume=True, **SMALL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_functions": 19}, "n_functions was 20 and is 19"),
        ({"hidden": (9,)}, r"hidden was \[8\] and is \[9\]"),
        ({"activation": "tanh"}, "activation was 'silu' and is 'tanh'"),
        ({"seed": 5}, "seed was 0 and is 5"),
        ({"members": 2}, "members was 1 and is 2"),
        ({"model": "network"}, "model was 'linear' and is 'network'"),
        ({"functions": SymmetryFunctions({"Cu": [G2("Cu", 1.0)]}, cutoff=4.5)}, "functions was None"),
    ],
)
def test_resume_refuses_other_settings(data: StructureDataset, tmp_path, change: dict, message: str) -> None:
    options = {"model": "linear", **SMALL}
    fit(data, directory=tmp_path, **options)
    with pytest.raises(ValueError, match=f"made with other settings: {message}.*; use those, or a new folder"):
        fit(data, directory=tmp_path, resume=True, **(options | change))


def test_resume_refuses_other_data(data: StructureDataset, tmp_path) -> None:
    fit(data, model="linear", directory=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="made with other training data"):
        fit(data.subset(range(29)), model="linear", directory=tmp_path, resume=True, **SMALL)


def test_functions_of_ones_own(alloy: StructureDataset) -> None:
    own = [G2("Cu", 1.0, 2.0), G2("Ni", 1.0, 2.5), ThreeBody(("Cu", "Ni"), ((1.0, 2.0), (1.0, 2.5)), 2)]
    functions = SymmetryFunctions({"Cu": own, "Ni": own[:2]}, cutoff=4.0)
    potential = fit(alloy, model="linear", functions=functions, progress=False)
    assert potential.features.config == functions.config
    assert potential.cutoff == 4.0  # the functions' cutoff, not the data set's


def test_functions_may_know_more_elements_than_the_data(data: StructureDataset) -> None:
    own = [G2("Cu", 1.0, 2.0), G2("Cu", 1.0, 2.5), G2("Au", 1.0, 2.5)]
    functions = SymmetryFunctions({"Cu": own, "Au": own}, cutoff=4.0)
    for model in ("linear", "network"):
        potential = fit(data, model=model, functions=functions, hidden=(4,), epochs=1, progress=False)
        assert potential.elements == [29, 79]
        assert np.isfinite(errors(potential, data.with_cutoff(4.0))).all()
        gold = Atoms("CuAu", [[0, 0, 0], [2.5, 0, 0]])
        stranger = StructureDataset([labelled(gold)], cutoff=4.0)[0]
        assert any(item.element == 79 for item in potential.extrapolation(stranger))


def labelled(atoms: Atoms) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    return atoms


def test_functions_must_cover_the_data(alloy: StructureDataset) -> None:
    functions = SymmetryFunctions({"Cu": [G2("Cu", 1.0)]}, cutoff=4.0)
    with pytest.raises(ValueError, match=r"functions must cover the elements \[28, 29\] of the data, got \[29\]"):
        fit(alloy, functions=functions)


def test_validation_structures_must_hold_known_elements(data: StructureDataset, alloy: StructureDataset) -> None:
    with pytest.raises(ValueError, match=r"validation structures hold elements \(atomic numbers \[28\]\)"):
        fit(data, alloy)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model": "forest"}, "model must be 'network' or 'linear', got 'forest'"),
        ({"members": 0}, "members must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"n_functions": 0}, "n_functions must be at least 1, got 0"),
        ({"minutes": 0.0}, "minutes must be positive, got 0.0"),
    ],
)
def test_settings_out_of_range(data: StructureDataset, setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(data, **setting)


def test_networks_are_left_out_beside_a_quadratic_part_where_they_add_nothing(monkeypatch) -> None:
    ethanol = StructureDataset(molml.datasets.path("ethanol") / "train.xyz.xz", index=slice(0, 90))
    train, valid = ethanol.subset(range(70)), ethanol.subset(range(70, 90))
    own: list[Function] = [G2(s, eta, r) for s in "HCO" for eta, r in ((4.0, 1.0), (4.0, 1.5), (2.0, 2.2), (1.0, 3.0))]
    functions = SymmetryFunctions(dict.fromkeys("HCO", own), cutoff=4.0)
    silent = {}
    for limit in (0.0, np.inf):
        monkeypatch.setattr("molml.energy.fitting._USELESS", limit)
        for quadratic in (True, False):
            potential = fit(train, valid, functions=functions, epochs=1, quadratic=quadratic, guard=False)
            assert isinstance(potential, BehlerParrinello)
            assert potential.is_quadratic == quadratic
            silent[quadratic, limit] = not any(n.layers[-1].weight.any() for n in potential.networks)
    assert silent == {(True, 0.0): True, (True, np.inf): False, (False, 0.0): False, (False, np.inf): False}


def test_default_cutoffs(emt_crystals) -> None:
    crystals = emt_crystals(4)
    assert fit(StructureDataset(crystals), model="linear", n_functions=5).cutoff == 5.5
    molecules = []
    for atoms in crystals:
        molecule = Atoms(atoms.symbols, atoms.positions)
        molecule.calc = SinglePointCalculator(molecule, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        molecules.append(molecule)
    assert fit(StructureDataset(molecules), model="linear", n_functions=5).cutoff == 5.0


def test_the_clock_ends_training(data: StructureDataset, tmp_path) -> None:
    fit(data, minutes=0.02, directory=tmp_path, **SMALL)
    n_epochs = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert 1 <= n_epochs < 400


def test_a_committee_needs_structures(data: StructureDataset) -> None:
    with pytest.raises(ValueError, match="at least 10 training structures, got 9"):
        fit(data.subset(range(9)), model="linear", members=2, **SMALL)


def test_the_memory_limit_changes_no_bit(data: StructureDataset) -> None:
    options = {"epochs": 2, "derivatives": "compute", **SMALL}
    kept, computed = (fit(data, memory=memory, **options) for memory in (4.0, 0.0))
    assert same(kept, computed)


def test_kept_derivatives_change_roundings_only(data: StructureDataset) -> None:
    kept, partly, computed = (
        fit(data, epochs=2, derivatives=derivatives, memory=memory, **SMALL)
        for derivatives, memory in (("keep", 4.0), ("keep", 0.002), ("compute", 4.0))
    )
    assert not same(kept, computed)
    assert not same(kept, partly)
    for other in (kept, partly):
        for key, value in bits(computed).items():
            # Adam divides by the gradients' size, and passes their roundings on as they are
            torch.testing.assert_close(bits(other)[key], value, rtol=1e-8, atol=1e-10)


def limits(monkeypatch: pytest.MonkeyPatch, data: StructureDataset, **settings) -> list[tuple[int, float]]:
    """Number of structures and room, GB, of every featurised set of a fit."""
    seen = []

    class Watched(FeaturisedDataset):
        def __init__(self, dataset, kernel, *, memory, **settings):
            seen.append((len(dataset), memory))
            super().__init__(dataset, kernel, memory=memory, **settings)

    monkeypatch.setattr("molml.energy.fitting.FeaturisedDataset", Watched)
    fit(data, epochs=1, **settings, **SMALL)
    return [(n, memory) for n, memory in seen if memory]


def test_training_and_validation_share_the_memory_limit(
    data: StructureDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits(monkeypatch, data, memory=0.5) == [(27, pytest.approx(0.45)), (3, pytest.approx(0.05))]


def test_derivatives_must_be_one_of_three(data: StructureDataset) -> None:
    with pytest.raises(ValueError, match="derivatives must be 'auto', 'keep' or 'compute', got 'all'"):
        fit(data, derivatives="all", **SMALL)


def test_memory_must_not_be_negative(data: StructureDataset) -> None:
    with pytest.raises(ValueError, match="memory must be zero or more GB, got -1"):
        fit(data, memory=-1.0, **SMALL)


def test_a_committees_deviations_are_those_of_the_errors_on_validation_structures(data, tmp_path) -> None:
    train, valid = data.split(0.3, 0)
    committee = fit(train, valid, model="linear", members=3, **SMALL)
    assert isinstance(committee, Committee)
    for scale, name in zip(committee.std_scale, ("energy", "forces"), strict=True):
        seen = evaluate(committee, valid)
        error, deviation = getattr(seen, name) - getattr(seen, f"{name}_reference"), getattr(seen, f"{name}_std")
        assert np.mean(deviation**2) == pytest.approx(np.mean(error**2), rel=1e-9)
        assert scale != 1.0
    committee.save(tmp_path / "model.molml")
    again = molml.load(tmp_path / "model.molml")
    assert again.std_scale == committee.std_scale
    assert torch.equal(again.predict(valid[0]).forces_std, committee.predict(valid[0]).forces_std)
    # without validation structures there is nothing to scale by
    assert fit(train, model="linear", members=3, **SMALL).std_scale == (1.0, 1.0)
    with pytest.raises(ValueError, match="std_scale must be two positive factors"):
        Committee(list(again.members), std_scale=(0.0, 1.0))


def test_folds_fit_into_memory() -> None:
    limit = fitting._MATRICES / (8 * 3)
    assert fitting._folds(1, 300) == 5
    # two at least, whatever they take; one more as soon as there is room
    for n_folds in (2, 3, 4):
        width = int((limit / n_folds) ** 0.5)
        assert fitting._folds(1, width) == n_folds
        assert fitting._folds(1, width + 1) == max(n_folds - 1, 2)
    # every member of a committee leaves out another, up to ten
    assert [fitting._folds(members, 300) for members in (4, 7, 20)] == [5, 7, 10]
    assert fitting._folds(4, 30_000) == 4
