"""The repulsion below the shortest distances of the training data."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers

import molml
from molml.energy import Committee, StructureDataset, fit
from molml.energy.data import atoms_to_structures, collate, pair_vectors
from molml.energy.guard import Guard, fit_guard, zbl
from molml.energy.model import LinearPotential

SYMBOLS = ("Al", "Cu", "Au")


@pytest.fixture(scope="module")
def data(emt_crystals):
    return StructureDataset(emt_crystals(16, symbols=SYMBOLS), cutoff=4.5)


@pytest.fixture(scope="module")
def bare(data):
    return fit(data, model="linear", n_functions=20, guard=False)


@pytest.fixture(scope="module")
def guarded(data):
    return fit(data, model="linear", n_functions=20)


def dimer_energies(potential, one, other, distances):
    dimers = [Atoms([one, other], positions=[[0, 0, 0], [0, 0, r]]) for r in distances]
    batch = collate([atoms_to_structures(atoms, potential.cutoff) for atoms in dimers])
    prediction = potential.predict(batch, stress=False)
    return prediction.energy.numpy(), prediction.forces[::2, 2].numpy()


def pairs_of(symbols):
    return [(a, b) for i, a in enumerate(symbols) for b in symbols[i:]]


def shortest(data, one, other):
    found = []
    for item in (data[k] for k in range(len(data))):
        numbers = item.numbers
        own = (numbers[item.first] == atomic_numbers[one]) & (numbers[item.second] == atomic_numbers[other])
        found += pair_vectors(item)[own].norm(dim=1).tolist()
    return min(found)


def test_zbl_is_coulombs_law_for_the_nuclei_and_screened_far_away():
    r = np.array([1e-6, 0.5, 1.0, 2.0])
    energy, slope = zbl(r, 29, 29)
    assert energy[0] * r[0] == pytest.approx(14.399645 * 29**2, rel=1e-4)
    # by hand: a = 0.4685 / (2 · 29^0.23) = 0.10798 Å, x = 9.2613 at 1 Å, screening 0.011150
    assert energy[2] == pytest.approx(14.399645 * 841 * 0.011150, rel=1e-4)
    step = 1e-6
    numeric = (zbl(r[1:] + step, 29, 29)[0] - zbl(r[1:] - step, 29, 29)[0]) / (2 * step)
    np.testing.assert_allclose(slope[1:], numeric, rtol=1e-7)
    np.testing.assert_allclose(zbl(r, 8, 79)[0], zbl(r, 79, 8)[0])


def test_it_is_smooth_falls_everywhere_and_ends_at_its_onset():
    guard = Guard({"O-Cu": (1.6, 2.0)})
    r = np.linspace(0.2, 1.7, 20_001)
    energy, slope = guard.energy(r, 8, 29)
    inside = r < 1.6
    assert (np.diff(energy[inside]) < 0).all() and (slope[inside] <= 0).all()
    assert not energy[~inside].any() and not slope[~inside].any()
    np.testing.assert_allclose(np.gradient(energy, r)[1:-1], slope[1:-1], rtol=1e-3, atol=1e-2)
    near = np.array([1.6 - 1e-3, 1.6 - 1e-6])
    # the switch leaves as the third power of the distance to the onset
    assert (guard.energy(near, 8, 29)[0] < 2.0 * zbl(near, 8, 29)[0] * 10.1 * ((1.6 - near) / 0.48) ** 3).all()
    np.testing.assert_array_equal(guard.energy(r, 29, 8)[0], energy)
    np.testing.assert_array_equal(guard.energy(r, 8, 8)[0], 0.0)
    full = np.array([0.5, 1.1])
    np.testing.assert_allclose(guard.energy(full, 8, 29)[0], 2.0 * zbl(full, 8, 29)[0], rtol=1e-14)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"Cu": (1.0, 1.0)}, "two chemical symbols such as Cu-O, got 'Cu'"),
        ({"Cu-Xx": (1.0, 1.0)}, "got 'Cu-Xx'"),
        ({"Cu-O": (0.0, 1.0)}, "onset and strength of Cu-O must be positive, got 0.0 and 1.0"),
        ({"Cu-O": (1.0, np.inf)}, "must be positive, got 1.0 and inf"),
        ({"Cu-O": (1.0, 1.0), "O-Cu": (1.0, 1.0)}, "got O-Cu a second time"),
    ],
)
def test_what_a_guard_cannot_be(pairs, message):
    with pytest.raises(ValueError, match=message):
        Guard(pairs)


def test_training_structures_do_not_feel_it(data, bare, guarded):
    for index in range(len(data)):
        without, with_it = bare.predict(data[index]), guarded.predict(data[index])
        assert torch.equal(without.energy, with_it.energy)
        assert torch.equal(without.forces, with_it.forces)
        assert torch.equal(without.stress, with_it.stress)


def test_it_begins_just_below_the_shortest_distance_of_the_data(data, guarded):
    for one, other in pairs_of(SYMBOLS):
        names = {f"{one}-{other}", f"{other}-{one}"} & set(guarded.guard.pairs)
        (onset, strength) = guarded.guard.pairs[names.pop()]
        assert onset == pytest.approx(0.95 * shortest(data, one, other), rel=1e-12)
        assert strength >= 1.0
    # elements that no structure holds side by side: from the radii of their atoms
    alone = fit_guard(guarded, data.subset([0]).with_cutoff(0.1))
    assert alone.pairs["Cu-Cu"][0] == pytest.approx(0.95 * 2.64)


def test_two_atoms_pushed_together_are_pushed_apart(data, bare, guarded):
    unguarded = 0
    for one, other in pairs_of(SYMBOLS):
        r = np.linspace(0.25, 0.89, 200) * 0.95 * shortest(data, one, other)
        energy, force = dimer_energies(guarded, one, other, r)
        assert (np.diff(energy) < 0).all(), (one, other)
        assert (force < 0).all(), (one, other)
        unguarded += bool((np.diff(dimer_energies(bare, one, other, r)[0]) > 0).any())
    # the control: what was learnt goes down somewhere
    assert unguarded > 0


def test_two_atoms_of_a_crystal_are_pushed_apart(data, bare, guarded):
    atoms = data.atoms[0]
    force = []
    for potential in (bare, guarded):
        moved = atoms.copy()
        vector = moved.get_distance(0, 1, mic=True, vector=True)
        moved.positions[0] += 0.7 * vector
        forces = potential.predict(atoms_to_structures(moved, potential.cutoff)).forces.numpy()
        force.append(0.5 * float((forces[1] - forces[0]) @ vector) / np.linalg.norm(vector))
    assert force[1] > 10.0 and force[1] > force[0]


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_forces_and_stress_are_derivatives(data, kind):
    potential = fit(data, model=kind, n_functions=20, hidden=(8,), epochs=1, progress=False)
    atoms = data.atoms[0]
    vector = atoms.get_distance(0, 1, mic=True, vector=True)
    atoms.positions[0] += 0.5 * vector
    assert potential.guard.pair_terms(*with_vectors(atoms, potential)) is not None

    def energy(strain, move):
        changed = atoms.copy()
        changed.positions[0] += move
        changed.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return float(potential.predict(atoms_to_structures(changed, 4.5), forces=False, stress=False).energy[0])

    found = potential.predict(atoms_to_structures(atoms, 4.5))
    step, still = 1e-5, np.zeros((3, 3))
    for axis in range(3):
        move = step * np.eye(3)[axis]
        slope = (energy(still, move) - energy(still, -move)) / (2 * step)
        assert -slope == pytest.approx(float(found.forces[0, axis]), rel=1e-6, abs=1e-5)
        strain = np.zeros((3, 3))
        strain[axis, (axis + 1) % 3] = strain[(axis + 1) % 3, axis] = 0.5 * step
        strain[axis, axis] = step
        slope = (energy(strain, 0.0) - energy(-strain, 0.0)) / (2 * step)
        stress = found.stress[0].numpy()
        expected = atoms.get_volume() * (stress[axis, axis] + stress[axis, (axis + 1) % 3])
        assert slope == pytest.approx(float(expected), rel=1e-6, abs=1e-4)


def with_vectors(atoms, potential):
    batch = atoms_to_structures(atoms, potential.cutoff)
    return batch, pair_vectors(batch)


def test_the_sum_over_pairs_is_that_of_two_loops(random_structures):
    guard = Guard({"H-H": (1.3, 1.0), "C-H": (1.6, 1.5), "C-O": (2.0, 3.0)})
    for atoms in random_structures(14, closest=0.6):
        batch = atoms_to_structures(atoms, 3.0)
        vectors = pair_vectors(batch)
        expected, numbers = np.zeros(len(atoms)), atoms.numbers
        for i, j, r in zip(batch.first.tolist(), batch.second.tolist(), vectors.norm(dim=1).tolist(), strict=True):
            expected[i] += 0.5 * guard.energy(np.array([r]), int(numbers[i]), int(numbers[j]))[0][0]
        terms = guard.pair_terms(batch, vectors)
        found = np.zeros(len(atoms)) if terms is None else terms[0]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_it_is_saved_with_the_model_and_files_without_one_load(guarded, bare, tmp_path):
    r = np.array([0.8, 1.2, 1.6])
    for name, potential in (("guarded", guarded), ("bare", bare)):
        potential.save(tmp_path / name)
        again = molml.load(tmp_path / name)
        np.testing.assert_array_equal(
            dimer_energies(again, "Cu", "Au", r)[0], dimer_energies(potential, "Cu", "Au", r)[0]
        )
    assert "guard" not in bare.config
    assert molml.load(tmp_path / "bare").guard is None
    assert molml.load(tmp_path / "guarded").guard.config == guarded.guard.config


def test_a_committee_has_one(data, tmp_path):
    committee = fit(data, model="linear", n_functions=20, members=3)
    assert isinstance(committee, Committee)
    committee.save(tmp_path / "model.molml")
    again = molml.load(tmp_path / "model.molml")
    assert again.guard.config == committee.guard.config
    energy, _ = dimer_energies(again, "Al", "Au", np.linspace(0.3, 1.8, 40))
    assert (np.diff(energy) < 0).all()
    one, other = again.members[0], again.members[1]
    assert isinstance(other, LinearPotential)
    other.guard = None
    with pytest.raises(ValueError, match="must share their guard"):
        Committee([one, other])
