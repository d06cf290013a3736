"""Potentials: derivatives against differences, symmetries, smoothness, dynamics, files, extrapolation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from ase.units import fs, kB
from scipy.stats import special_ortho_group

import molml
from molml.energy import BehlerParrinello, Committee, LinearPotential, StructureDataset, fit
from molml.energy.data import Structures, atoms_to_structures, collate, n_structures, pair_vectors
from molml.energy.features import (
    G1,
    G2,
    G3,
    G4,
    G5,
    FourBody,
    SymmetryFunctions,
    ThreeBody,
)
from molml.energy.kernels import FeatureKernel, neighbourhood
from molml.energy.model import FeatureStatistics, Potential, Prediction, feature_statistics

CUTOFF = 4.0
CHOSEN = [
    G1("C"),
    G2("H", 1.3, 1.1),
    G2("O", 0.6, 1.6),
    G2("*", 0.7, 2.0),
    G3("O", 1.7),
    G4(("H", "C"), 0.05, 1.0, 1, 0.3),
    G5(("C", "H"), 0.05, 3, -1, 0.4),
    G5(("O", "O"), 0.1, 2, 1),
    G5(("*", "*"), 0.03, 4, -1),
    ThreeBody(("H", "O"), ((0.9, 1.2), (0.3, 2.2)), 3),
    FourBody(("H", "C", "O"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (1, 2, 3)),
    FourBody(("*", "H", "*"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (2, 2, 2)),
]
KINDS = ("linear", "network", "committee")
DATA_HASH = {"data_hash": "0" * 64}


def functions_of(cutoff_function: str = "polynomial") -> SymmetryFunctions:
    return SymmetryFunctions(
        {"H": CHOSEN, "C": CHOSEN, "O": CHOSEN[1:9]}, cutoff=CUTOFF, cutoff_function=cutoff_function
    )


def features_of(functions: SymmetryFunctions, batch: Structures) -> list[np.ndarray]:
    kernel = FeatureKernel(functions)
    near = neighbourhood(kernel.elements, batch.numbers, batch.first, batch.second, pair_vectors(batch))
    return kernel.values(near, kernel.moments(near))


def statistics_of(functions: SymmetryFunctions, structures: list[Atoms]) -> FeatureStatistics:
    return feature_statistics([features_of(functions, atoms_to_structures(atoms, CUTOFF)) for atoms in structures])


def linear(functions: SymmetryFunctions, statistics: FeatureStatistics, seed: int = 0) -> LinearPotential:
    """Random coefficients that give forces of a few eV/Å."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = [
        0.1 * torch.randn(std.shape, dtype=torch.float64, generator=generator) / std.clamp(min=1e-3)
        for std in statistics.std
    ]
    return LinearPotential(functions, coefficients, [-13.0, -1029.0, -2041.0], statistics, DATA_HASH)


def network(functions: SymmetryFunctions, statistics: FeatureStatistics, seed: int = 0) -> BehlerParrinello:
    base = linear(functions, statistics, seed)
    return BehlerParrinello(
        functions,
        statistics,
        base.reference.tolist(),
        hidden=(16, 16),
        linear=[0.5 * c.detach() for c in base.coefficients],
        energy_scale=0.15,
        seed=seed,
        metadata=DATA_HASH,
    ).eval()


def make(kind: str, structures: list[Atoms], cutoff_function: str = "polynomial") -> Potential:
    functions = functions_of(cutoff_function)
    statistics = statistics_of(functions, structures)
    makers: dict[str, Callable[[], Potential]] = {
        "linear": lambda: linear(functions, statistics),
        "network": lambda: network(functions, statistics),
        "committee": lambda: Committee([network(functions, statistics, seed) for seed in range(3)]),
    }
    return makers[kind]()


@pytest.fixture(scope="module")
def structures(random_structures) -> list[Atoms]:
    return random_structures(200, seed=11)


@pytest.fixture(scope="module", params=KINDS)
def potential(request, structures) -> Potential:
    return make(request.param, structures)


# ------------------------------------------------------------------------------------------------------- derivatives


def copies(item: Structures, changes: torch.Tensor, strains: torch.Tensor) -> Structures:
    """The structure with its atoms displaced (n, n_atoms, 3) and its space strained (n, 3, 3), its pairs the same."""
    deformed = []
    for change, strain in zip(changes, strains, strict=True):
        space = torch.eye(3, dtype=torch.float64) + strain
        positions, offset = (item.positions + change) @ space, item.offset @ space
        deformed.append(item._replace(positions=positions, offset=offset))
    return collate(deformed)


def differences(potential: Potential, item: Structures, h: float = 1e-4) -> tuple[torch.Tensor, torch.Tensor]:
    """Forces and dE/dstrain (Voigt order) by central differences."""
    n = 3 * len(item.numbers)
    # pairs that come within the cutoff while atoms move are listed: 0.1 Å more than the cutoff
    steps = torch.zeros(2 * (n + 6), n // 3, 3, dtype=torch.float64)
    strains = torch.zeros(2 * (n + 6), 3, 3, dtype=torch.float64)
    steps[:n].view(n, n)[range(n), range(n)] = h
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strains[n + k, a, b] += h / 2
        strains[n + k, b, a] += h / 2
    steps[n + 6 :], strains[n + 6 :] = -steps[: n + 6], -strains[: n + 6]
    energy = potential.predict(copies(item, steps, strains), forces=False, stress=False).energy
    slopes = (energy[: n + 6] - energy[n + 6 :]) / (2 * h)
    return -slopes[:n].reshape(-1, 3), slopes[n:]


def test_forces_and_stress_are_derivatives(potential: Potential, structures: list[Atoms]) -> None:
    worst_force = worst_stress = largest = 0.0
    for atoms in structures:
        item = atoms_to_structures(atoms, CUTOFF + 0.1)
        prediction = potential.predict(item)
        forces, slopes = differences(potential, item)
        worst_force = max(worst_force, float((prediction.forces - forces).abs().max()))
        largest = max(largest, float(prediction.forces.abs().max()))
        volume = item.volume[0] if item.volume[0] > 0 else torch.inf
        stress = prediction.stress[0].flatten()[[0, 4, 8, 5, 2, 1]]
        worst_stress = max(worst_stress, float((stress - slopes / volume).abs().max()))
    print(f"largest force {largest:.1f} eV/Å; forces to {worst_force:.1e} eV/Å, stress to {worst_stress:.1e} eV/Å³")
    assert largest > 1.0
    assert worst_force < 1e-6
    assert worst_stress < 1e-7


# -------------------------------------------------------------------------------------------------------- symmetries


class RawCoordinates:
    """What a potential must not be: it reads positions as they stand. Control of the invariance tests."""

    elements = [1, 6, 8]
    cutoff = CUTOFF

    def predict(self, batch: Structures, *, forces: bool = True, stress: bool = True) -> Prediction:
        weights = torch.arange(1.0, len(batch.numbers) + 1, dtype=torch.float64) * batch.numbers
        energies = weights * (batch.positions @ torch.tensor([1.0, 0.3, -0.2], dtype=torch.float64)).sin()
        energy = torch.zeros(n_structures(batch), dtype=torch.float64).index_add(0, batch.structure, energies)
        return Prediction(energy, energies, torch.zeros_like(batch.positions), batch.cell, None, None, [])


def moved(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T)
    copy.positions = atoms.positions @ matrix.T
    return copy


def rotated(atoms: Atoms) -> Atoms:
    return moved(atoms, special_ortho_group(3, seed=1).rvs())


def reflected(atoms: Atoms) -> Atoms:
    return moved(atoms, special_ortho_group(3, seed=2).rvs() @ np.diag([1.0, -1.0, 1.0]))


def translated(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.positions += [1.7, -20.3, 0.4]
    return copy


def permuted(atoms: Atoms) -> Atoms:
    return atoms[np.random.default_rng(3).permutation(len(atoms))]


def other_cell(atoms: Atoms) -> Atoms:
    """Another choice of lattice vectors for the same lattice, and atoms moved to other cells."""
    choices = {3: [[1, 1, 0], [0, 1, 0], [-1, 0, 1]], 2: [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}
    copy = atoms.copy()
    copy.set_cell(np.array(choices.get(int(atoms.pbc.sum()), np.eye(3))) @ atoms.cell.array)
    shifts = np.random.default_rng(4).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    copy.positions = atoms.positions + shifts @ atoms.cell.array
    return copy


def repeated(atoms: Atoms) -> Atoms:
    return atoms * tuple(np.where(atoms.pbc, [2, 1, 3], 1))


def energy_change(model, atoms: Atoms, change: Callable[[Atoms], Atoms]) -> float:
    """Relative change of the energy per atom; of less than 1 meV, where a lone atom has none, the change in meV."""
    before, after = atoms_to_structures(atoms, CUTOFF), atoms_to_structures(change(atoms), CUTOFF)
    a = float(model.predict(before).energy[0]) / len(before.numbers)
    b = float(model.predict(after).energy[0]) / len(after.numbers)
    return abs(b - a) / max(abs(a), 1e-3)


CHANGES = [rotated, reflected, translated, permuted, other_cell, repeated]


@pytest.mark.parametrize("change", CHANGES)
def test_energy_is_invariant(potential: Potential, structures: list[Atoms], change: Callable) -> None:
    assert max(energy_change(potential, atoms, change) for atoms in structures[:70]) < 1e-10


@pytest.mark.parametrize("change", CHANGES)
def test_raw_coordinates_are_not_invariant(structures: list[Atoms], change: Callable) -> None:
    assert max(energy_change(RawCoordinates(), atoms, change) for atoms in structures[:7]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_energy_without_the_reference_is_invariant_too(kind: str, structures: list[Atoms]) -> None:
    # the constant of an atom, a thousand eV, must not hide the rest
    model = make(kind, structures)
    for name, buffer in model.named_buffers():
        buffer.mul_(0.0 if name.endswith("reference") else 1.0)
    changes = [energy_change(model, atoms, change) for atoms in structures[:42] for change in CHANGES]
    assert max(changes) < 1e-10


def test_forces_and_stress_turn_with_the_structure(potential: Potential, structures: list[Atoms]) -> None:
    for matrix in (special_ortho_group(3, seed=1).rvs(), np.diag([1.0, 1.0, -1.0])):
        turn = torch.from_numpy(matrix)
        for atoms in structures[:21]:
            before = potential.predict(atoms_to_structures(atoms, CUTOFF))
            after = potential.predict(atoms_to_structures(moved(atoms, matrix), CUTOFF))
            torch.testing.assert_close(after.forces, before.forces @ turn.T, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(after.stress, turn @ before.stress @ turn.T, rtol=1e-10, atol=1e-10)


def test_forces_add_up_to_zero_and_stress_is_symmetric(potential: Potential, structures: list[Atoms]) -> None:
    for atoms in structures[:21]:
        prediction = potential.predict(atoms_to_structures(atoms, CUTOFF))
        assert prediction.forces.sum(0).abs().max() < 1e-11
        assert torch.equal(prediction.stress, prediction.stress.transpose(1, 2))


# ------------------------------------------------------------------------------------------------------- smoothness


def approach(potential: Potential, list_cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy and force on an oxygen while it goes through the cutoff of a hydrogen beside a carbon, in 1e-4 Å steps."""
    batch = []
    for x in np.arange(CUTOFF - 0.02, CUTOFF + 0.02, 1e-4):
        atoms = Atoms("HCO", [[0, 0, 0], [1.0, 0.3, 0], [x, 0, 0]])
        batch.append(atoms_to_structures(atoms, list_cutoff))
    prediction = potential.predict(collate(batch))
    return prediction.energy.numpy(), prediction.forces[2::3, 0].numpy()


@pytest.mark.parametrize("cutoff_function", ["cosine", "tanh", "polynomial", "polynomial_3", "exponential"])
@pytest.mark.parametrize("kind", KINDS)
def test_smooth_through_the_cutoff(kind: str, cutoff_function: str, structures: list[Atoms]) -> None:
    potential = make(kind, structures, cutoff_function)
    energy, force = approach(potential, CUTOFF + 0.1)
    # no step: neither is larger than its slope times 1e-4 Å, here a few eV/Å and eV/Å²
    assert np.abs(np.diff(energy)).max() < 1e-3
    assert np.abs(np.diff(force)).max() < 1e-2
    # the force is the slope of the energy on both sides of the cutoff and across it
    middle = 0.5 * (force[1:] + force[:-1])
    assert np.abs(np.diff(energy) / 1e-4 + middle).max() < 1e-4


def test_a_list_that_ends_too_soon_is_not_smooth(structures: list[Atoms]) -> None:
    potential = make("linear", structures, "cosine")
    steps = [np.diff(approach(potential, cutoff)[1]) for cutoff in (CUTOFF + 0.1, CUTOFF - 0.005)]
    assert np.abs(steps[1]).max() > 5 * np.abs(steps[0]).max()


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_energy_is_conserved_in_dynamics(kind: str, emt_crystals) -> None:
    train = StructureDataset(emt_crystals(24, repeat=(2, 2, 2)), cutoff=4.5)
    potential = fit(train, model=kind, epochs=10, n_functions=30, hidden=(16,), progress=False)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = potential.calculator(on_extrapolation="ignore", skin=1.0)
    momenta = np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(600 * kB * atoms.get_masses()[:, None])
    atoms.set_momenta(momenta - momenta.mean(0))
    dynamics = VelocityVerlet(atoms, timestep=1.0 * fs)
    energies, kinetic = [], []
    for _ in dynamics.irun(1000):
        energies.append(atoms.get_total_energy() / len(atoms))
        kinetic.append(atoms.get_kinetic_energy() / len(atoms))
    time = 1e-3 * np.arange(len(energies))  # ps
    drift = np.polyfit(time, energies, 1)[0]
    print(f"drift {1e3 * drift:.4f} meV/atom/ps")
    assert np.std(kinetic) > 1e-3  # the atoms did move
    assert abs(drift) < 1e-4


# ---------------------------------------------------------------------------------------------------------- batching


def test_a_batch_is_its_structures_one_by_one(potential: Potential, structures: list[Atoms]) -> None:
    items = [atoms_to_structures(atoms, CUTOFF) for atoms in structures[:35]]
    together, single = potential.predict(collate(items)), [potential.predict(item) for item in items]
    for name in ("energy", "energies", "forces", "stress"):
        torch.testing.assert_close(
            getattr(together, name), torch.cat([getattr(one, name) for one in single]), rtol=1e-10, atol=1e-10
        )


def test_only_what_is_asked_for(potential: Potential, structures: list[Atoms]) -> None:
    item = atoms_to_structures(structures[3], CUTOFF)
    everything = potential.predict(item)
    plain = potential.predict(item, forces=False, stress=False)
    assert plain.forces is None and plain.stress is None and plain.forces_std is None
    assert torch.equal(plain.energy, everything.energy)
    assert potential.predict(item, stress=False).stress is None
    only_stress = potential.predict(item, forces=False)
    assert only_stress.forces is None and torch.equal(only_stress.stress, everything.stress)
    assert everything.energies.sum() == pytest.approx(float(everything.energy[0]), rel=1e-14)
    assert not any(t.requires_grad for t in everything if isinstance(t, torch.Tensor))


def test_stress_of_molecules_and_slabs_is_zero(potential: Potential, structures: list[Atoms]) -> None:
    for atoms in structures[:3]:
        prediction = potential.predict(atoms_to_structures(atoms, CUTOFF))
        assert prediction.forces.abs().max() > 1e-3
        assert not prediction.stress.any()


def test_inference_is_deterministic(potential: Potential, structures: list[Atoms]) -> None:
    item = collate([atoms_to_structures(atoms, CUTOFF) for atoms in structures[:14]])
    first = potential.predict(item)
    torch.manual_seed(5)
    again = potential.predict(item)
    assert torch.equal(first.energy, again.energy)
    assert torch.equal(first.forces, again.forces)
    assert torch.equal(first.stress, again.stress)


def test_committee_is_mean_and_spread_of_its_members(structures: list[Atoms]) -> None:
    committee = make("committee", structures)
    item = collate([atoms_to_structures(atoms, CUTOFF) for atoms in structures[:7]])
    members = [member.predict(item) for member in committee.members]
    prediction = committee.predict(item)
    for name in ("energy", "energies", "forces", "stress"):
        values = np.stack([getattr(member, name).numpy() for member in members])
        np.testing.assert_allclose(getattr(prediction, name).numpy(), values.mean(0), rtol=1e-13, atol=1e-13)
    energies, forces = (np.stack([getattr(m, name).numpy() for m in members]) for name in ("energy", "forces"))
    np.testing.assert_allclose(prediction.energy_std.numpy(), energies.std(0, ddof=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(prediction.forces_std.numpy(), forces.std(0, ddof=1), rtol=1e-9, atol=1e-12)
    assert prediction.energy_std.min() > 0


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_gives_the_same_bits(potential: Potential, structures: list[Atoms], tmp_path) -> None:
    path = tmp_path / "model.molml"
    potential.save(path)
    loaded = molml.load(path)
    assert type(loaded) is type(potential)
    assert loaded.config == potential.config
    assert loaded.elements == potential.elements and loaded.cutoff == potential.cutoff
    assert repr(loaded) == repr(potential)
    assert loaded.metadata["data_hash"] == DATA_HASH["data_hash"]
    assert loaded.metadata["units"]["forces"] == "eV/Å"
    item = collate([atoms_to_structures(atoms, CUTOFF) for atoms in structures[:14]])
    before, after = potential.predict(item), loaded.predict(item)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)
    assert torch.equal(before.stress, after.stress)
    for symbol, bounds in potential.feature_ranges.items():
        assert np.array_equal(loaded.feature_ranges[symbol], bounds)


def test_representations(structures: list[Atoms]) -> None:
    assert repr(make("linear", structures[:20])) == (
        "LinearPotential(H: 12 functions, C: 12 functions, O: 8 functions, cutoff=4 Å)"
    )
    assert repr(make("committee", structures[:20])).startswith("Committee(3 × BehlerParrinello(H: 12 functions")


# ----------------------------------------------------------------------------------------------------- extrapolation


def test_training_structures_do_not_extrapolate(potential: Potential, structures: list[Atoms]) -> None:
    batch = collate([atoms_to_structures(atoms, CUTOFF) for atoms in structures])
    assert potential.extrapolation(batch) == []
    assert potential.extrapolation(batch, potential.predict(batch)) == []


@pytest.mark.parametrize("side", ["above", "below"])
def test_one_function_one_percent_outside(structures: list[Atoms], side: str) -> None:
    functions = functions_of()
    statistics = statistics_of(functions, structures)
    batch = atoms_to_structures(next(a for a in structures if list(a.numbers).count(6) == 1 and len(a) > 3), CUTOFF)
    values = features_of(functions, batch)
    atom, column = batch.numbers.tolist().index(6), 3
    value = float(values[1][0, column])
    # the range is moved so that this one value lies 1 % of it outside
    ends = {"above": (value - 1.01, value - 0.01), "below": (value + 0.01, value + 1.01)}[side]
    low, high = [t.clone() - 1e3 for t in statistics.low], [t.clone() + 1e3 for t in statistics.high]
    low[1][column], high[1][column] = ends
    model = linear(functions, statistics._replace(low=low, high=high))
    (found,) = model.extrapolation(batch)
    assert (found.atom, found.element, found.function) == (atom, 6, functions.names("C")[column])
    assert (found.value, found.low, found.high) == pytest.approx((value, *ends))
    assert found.excess == pytest.approx(0.01, rel=1e-9)


def test_the_furthest_comes_first(structures: list[Atoms]) -> None:
    model = make("committee", structures[:20])
    squeezed = structures[24].copy()
    squeezed.set_cell(0.5 * squeezed.cell.array, scale_atoms=True)
    found = model.extrapolation(atoms_to_structures(squeezed, CUTOFF))
    assert len(found) > 1
    assert [item.excess for item in found] == sorted((item.excess for item in found), reverse=True)


def test_rounding_of_a_constant_function_is_no_extrapolation() -> None:
    functions = SymmetryFunctions({"H": [G2("H", 0.5, 1.0)]}, cutoff=CUTOFF)
    molecule = Atoms("H2", [[0, 0, 0], [0.74, 0, 0]])
    model = LinearPotential(
        functions, [torch.ones(1, dtype=torch.float64)], [0.0], statistics_of(functions, [molecule])
    )
    for seed in range(20):
        turned = moved(molecule, special_ortho_group(3, seed=seed).rvs())
        assert model.extrapolation(atoms_to_structures(translated(turned), CUTOFF)) == []
    stretched = atoms_to_structures(Atoms("H2", [[0, 0, 0], [0.75, 0, 0]]), CUTOFF)
    assert len(model.extrapolation(stretched)) == 2


def test_statistics() -> None:
    blocks = [[np.array([[1.0, 5.0]]), np.empty((0, 1))], [np.array([[3.0, 5.0], [5.0, 8.0]]), np.empty((0, 1))]]
    statistics = feature_statistics(blocks)
    assert statistics.mean[0].tolist() == [3.0, 6.0]
    np.testing.assert_allclose(statistics.std[0].numpy(), [np.std([1, 3, 5]), np.std([5, 5, 8])])
    assert (statistics.low[0].tolist(), statistics.high[0].tolist()) == ([1.0, 5.0], [5.0, 8.0])
    # an element that no structure holds
    assert [float(part[1]) for part in statistics] == [0.0, 0.0, 0.0, 0.0]


def test_a_function_that_hardly_varied_stays_out_of_the_networks(structures: list[Atoms]) -> None:
    functions = functions_of()
    statistics = statistics_of(functions, structures)
    statistics.std[0][2] = 1e-9 * statistics.std[0].max()
    model = network(functions, statistics)
    assert model.scale_0[2] == 0.0
    inputs = [torch.randn(4, 12, dtype=torch.float64), torch.zeros(0, 12), torch.zeros(0, 8)]
    inputs = [x.double() for x in inputs]
    other = [x.clone() for x in inputs]
    other[0][:, 2] += 1.0
    change = model.atomic_energies(other)[0] - model.atomic_energies(inputs)[0]
    np.testing.assert_allclose(change.detach().numpy(), float(model.linear[0][2]), rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------ errors


def test_unknown_element(potential: Potential) -> None:
    batch = atoms_to_structures(Atoms("HN", [[0, 0, 0], [1.1, 0, 0]]), CUTOFF)
    with pytest.raises(ValueError, match="no symmetry functions for N, only for H, C, O; fit on structures"):
        potential.predict(batch)


def one_element() -> tuple[SymmetryFunctions, FeatureStatistics]:
    functions = SymmetryFunctions({"H": [G1("H"), G2("H", 1.0)]}, cutoff=CUTOFF)
    return functions, FeatureStatistics(*([torch.ones(2, dtype=torch.float64)] for _ in range(4)))


def test_shapes_must_belong_to_the_functions() -> None:
    functions, statistics = one_element()
    three, two = torch.ones(3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"coefficients must have the shapes \[\(2,\)\]"):
        LinearPotential(functions, [three], [0.0], statistics)
    with pytest.raises(ValueError, match="linear must have the shapes"):
        BehlerParrinello(functions, statistics, [0.0], linear=[two, two])
    with pytest.raises(ValueError, match=r"statistics\.high must have the shapes"):
        LinearPotential(functions, [two], [0.0], statistics._replace(high=[three]))
    with pytest.raises(ValueError, match="reference must hold 1 energies, one per element, got 2"):
        LinearPotential(functions, [two], [0.0, 1.0], statistics)


def test_settings_of_the_network() -> None:
    functions, statistics = one_element()
    with pytest.raises(ValueError, match="energy_scale must be positive"):
        BehlerParrinello(functions, statistics, [0.0], energy_scale=0.0)
    with pytest.raises(ValueError, match="activation"):
        BehlerParrinello(functions, statistics, [0.0], activation="unheard")
    with pytest.raises(ValueError, match=r"exceptions must be for elements of the functions \(H\), got O"):
        BehlerParrinello(functions, statistics, [0.0], exceptions={"O": ([4], "tanh")})
    empty = SymmetryFunctions({"H": []}, cutoff=CUTOFF)
    nothing = FeatureStatistics(*([torch.ones(0)] for _ in range(4)))
    with pytest.raises(ValueError, match="needs symmetry functions to see, got none for H"):
        BehlerParrinello(empty, nothing, [0.0])


def test_an_element_with_a_network_of_its_own(tmp_path, structures: list[Atoms]) -> None:
    functions = functions_of("polynomial")
    potential = BehlerParrinello(
        functions,
        statistics_of(functions, structures),
        [0.0] * 3,
        hidden=(6,),
        activation="tanh",
        exceptions={"C": ([5, 3], "softplus gaussian")},
    ).eval()
    assert [[layer.out_features for layer in network.layers] for network in potential.networks] == [
        [6, 1],
        [5, 3, 1],
        [6, 1],
    ]
    potential.save(tmp_path / "own.molml")
    again = molml.load(tmp_path / "own.molml")
    batch = collate([atoms_to_structures(atoms, CUTOFF) for atoms in structures[:4]])
    assert again.exceptions == potential.exceptions
    assert torch.equal(again.predict(batch).forces, potential.predict(batch).forces)


def test_members_of_a_committee(structures: list[Atoms]) -> None:
    functions, statistics = one_element()
    first = BehlerParrinello(functions, statistics, [0.0])
    with pytest.raises(ValueError, match="at least two members, got 1"):
        Committee([first])
    with pytest.raises(TypeError, match="must be of one class"):
        Committee([first, LinearPotential(functions, [torch.ones(2)], [0.0], statistics)])
    other = SymmetryFunctions({"H": [G1("H"), G2("H", 2.0)]}, cutoff=CUTOFF)
    with pytest.raises(ValueError, match="must share their symmetry functions"):
        Committee([first, BehlerParrinello(other, statistics, [0.0])])
