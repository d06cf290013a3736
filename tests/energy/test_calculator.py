"""The ASE calculator, tested with a Lennard-Jones potential whose numbers are known."""

import io
import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs, kB

from molml.energy.calculator import Calculator, VerletList
from molml.energy.extrapolation import ExtrapolationError, ExtrapolationWarning
from molml.energy.neighbors import neighbor_pairs


def argon(seed: int = 0, *, repeat: int = 2, noise: float = 0.1) -> Atoms:
    atoms = bulk("Ar", "fcc", 5.3, cubic=True).repeat(repeat)
    atoms.rattle(noise, seed=seed)
    return atoms


def cluster(n: int = 6, seed: int = 0) -> Atoms:
    """Atoms on a slightly disordered zig-zag, every neighbour about 3.7 Å away."""
    positions = np.array([[3.2 * k, 1.9 * (k % 2), 0.3 * k] for k in range(n)])
    atoms = Atoms(f"Ar{n}", positions)
    atoms.rattle(0.05, seed=seed)
    return atoms


def heat(atoms: Atoms, temperature: float) -> np.random.Generator:
    rng = np.random.default_rng(0)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses()[:, None] * kB * temperature))
    return rng


# numbers


def test_energy_of_the_dimer_is_the_closed_form(lennard_jones):
    potential = lennard_jones(cutoff=8.0)
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]], calculator=Calculator(potential))
    six = (3.4 / 4.0) ** 6
    expected = 4 * 0.0104 * (six**2 - six) * (1 - 0.25) ** 3
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_potential_energies(), [expected / 2, expected / 2], rtol=1e-13)


def test_energy_of_a_cluster_is_the_sum_over_pairs(lennard_jones):
    atoms = cluster()
    atoms.calc = Calculator(lennard_jones(cutoff=8.0), on_extrapolation="ignore")
    distances = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
    six = (3.4 / distances) ** 6
    expected = 4 * 0.0104 * (six**2 - six) * np.clip(1 - (distances / 8.0) ** 2, 0, None) ** 3
    assert (distances > 8.0).any()
    assert atoms.get_potential_energy() == pytest.approx(expected.sum(), rel=1e-13)


@pytest.mark.parametrize("make", [argon, cluster])
def test_forces_are_the_derivative_of_the_energy(lennard_jones, make):
    atoms = make()
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    forces = atoms.get_forces()
    chosen = [0, 3, 5]
    np.testing.assert_allclose(forces[chosen], calculate_numerical_forces(atoms, eps=1e-4, iatoms=chosen), atol=1e-8)


@pytest.mark.parametrize("left_handed", [False, True])
def test_stress_is_the_derivative_of_the_energy_in_ases_order(lennard_jones, left_handed):
    atoms = argon(repeat=1, noise=0.3)
    deform = np.array([[1.03, 0.05, -0.02], [0.0, 0.96, 0.04], [0.0, 0.0, 1.01]])
    atoms.set_cell(atoms.cell @ deform, scale_atoms=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]] if left_handed else atoms.cell, scale_atoms=False)
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    stress = atoms.get_stress()
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-4), atol=1e-8)
    # the control: yz, xz, xy differ, so that a wrong order could not pass
    assert np.ptp(stress[3:]) > 1e-4


def test_results_are_float64_and_complete(lennard_jones):
    atoms = argon()
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    atoms.get_forces()
    results = atoms.calc.results
    assert set(results) == {"energy", "free_energy", "energies", "forces", "stress"}
    assert type(results["energy"]) is float
    assert {results[name].dtype for name in ("energies", "forces", "stress")} == {np.dtype("float64")}
    assert results["energies"].shape == (len(atoms),)
    assert results["stress"].shape == (6,)


def test_committee_deviations_are_results(lennard_jones):
    atoms = argon()
    atoms.calc = Calculator(lennard_jones(std=True), on_extrapolation="ignore")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert atoms.calc.results["energy_std"] == pytest.approx(0.1 * abs(energy), rel=1e-14)
    np.testing.assert_array_equal(atoms.calc.results["forces_std"], 0.1 * np.abs(forces))


def test_changing_a_returned_array_does_not_change_the_results(lennard_jones):
    atoms = cluster()
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    forces = atoms.get_forces()
    expected = forces.copy()
    forces *= 2
    np.testing.assert_array_equal(atoms.get_forces(), expected)


# caching


def test_small_systems_use_one_thread_and_give_the_others_back(lennard_jones):
    potential = lennard_jones()
    predict, used = potential.predict, []

    def watched(batch, **options):
        used.append(torch.get_num_threads())
        return predict(batch, **options)

    potential.predict = watched
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for repeat in (1, 4):
            Calculator(potential, on_extrapolation="ignore").get_forces(argon(repeat=repeat))
        assert used == [1, 2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_everything_comes_from_one_calculation(lennard_jones):
    potential = lennard_jones()
    atoms = argon()
    atoms.calc = Calculator(potential, on_extrapolation="ignore")
    atoms.get_forces(), atoms.get_potential_energy(), atoms.get_stress(), atoms.get_potential_energies()
    atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.get_forces()
    assert potential.n_predictions == 1
    assert atoms.calc.n_calculations == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + 1e-12),
        lambda atoms: atoms.set_cell(atoms.cell * (1 + 1e-12)),
        lambda atoms: atoms.set_pbc([True, True, False]),
        lambda atoms: atoms.numbers.__setitem__(0, 36),
        lambda atoms: atoms.append("Ar"),
    ],
    ids=["positions", "cell", "pbc", "numbers", "length"],
)
def test_every_change_is_noticed(lennard_jones, change):
    potential = lennard_jones(["Ar", "Kr"])
    atoms = argon()
    atoms.calc = Calculator(potential, on_extrapolation="ignore")
    atoms.get_forces()
    change(atoms)
    atoms.get_potential_energy()
    assert potential.n_predictions == 2


def test_a_refused_structure_leaves_no_results_behind(lennard_jones):
    atoms = argon()
    calculator = atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    atoms.get_forces()
    atoms.numbers[0] = 17
    with pytest.raises(ValueError, match="Cl"):
        atoms.get_forces()
    assert calculator.results == {}
    atoms.numbers[0] = 18
    assert atoms.get_forces().shape == (len(atoms), 3)


# neighbours


def sequence_of_cells(seed: int, n: int = 40):
    """A walk of atoms and cell, with a jump now and then."""
    rng = np.random.default_rng(seed)
    atoms = argon(seed, repeat=1)
    for step in range(n):
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.002, size=(3, 3))), scale_atoms=True)
        atoms.positions[step % 4] += atoms.cell[step % 3] * (step % 7 == 0)
        yield atoms.positions.copy(), atoms.cell.array.copy(), atoms.pbc.copy()


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0])
def test_pairs_are_those_of_a_fresh_search_during_motion_and_strain(skin):
    neighbours = VerletList(6.0, skin)
    for positions, cell, pbc in sequence_of_cells(3):
        first, second, offset = neighbours.pairs(positions, cell, pbc)
        expected = neighbor_pairs(positions, cell, pbc, 6.0)
        np.testing.assert_array_equal(first, expected[0])
        np.testing.assert_array_equal(second, expected[1])
        np.testing.assert_allclose(offset, expected[2], atol=1e-12)


def test_a_list_that_is_never_renewed_would_be_wrong(monkeypatch):
    # the control of the test above
    neighbours = VerletList(6.0, 0.3)
    monkeypatch.setattr(VerletList, "_is_stale", lambda *_: False)
    counts = [(len(neighbours.pairs(*frame)[0]), len(neighbor_pairs(*frame, 6.0)[0])) for frame in sequence_of_cells(3)]
    assert any(found != expected for found, expected in counts)


def test_the_skin_saves_searches_in_dynamics_at_constant_volume_and_pressure():
    frames = list(sequence_of_cells(1, 7))[1:]
    wide, none = VerletList(6.0, 2.0), VerletList(6.0, 0.0)
    for frame in frames:
        wide.pairs(*frame)
        none.pairs(*frame)
    assert none.n_searches == len(frames)
    assert wide.n_searches < len(frames) / 2


@pytest.mark.parametrize("pbc", [False, [True, True, False], [False, False, True]])
def test_slabs_wires_and_molecules_have_the_pairs_of_a_fresh_search(pbc):
    neighbours = VerletList(5.0, 0.5)
    rng = np.random.default_rng(0)
    atoms = argon(repeat=1)
    atoms.pbc = pbc
    for _ in range(10):
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        found = neighbours.pairs(atoms.positions, atoms.cell.array, atoms.pbc)
        expected = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
        np.testing.assert_array_equal(np.stack(found[:2]), np.stack(expected[:2]))
    assert neighbours.n_searches < 10


def test_other_atoms_or_boundaries_are_searched_anew():
    neighbours = VerletList(6.0, 1.0)
    atoms = argon(repeat=1)
    for pbc, n_atoms in (([True] * 3, 4), ([True, True, False], 4), ([True, True, False], 3)):
        part = atoms[:n_atoms]
        part.pbc = pbc
        found = neighbours.pairs(part.positions, part.cell.array, part.pbc)
        np.testing.assert_array_equal(found[1], neighbor_pairs(part.positions, part.cell.array, part.pbc, 6.0)[1])
    assert neighbours.n_searches == 3


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cutoff_must_be_a_length(cutoff):
    with pytest.raises(ValueError, match="cutoff must be a positive length"):
        VerletList(cutoff, 0.5)


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_a_skin_must_be_a_length(lennard_jones, skin):
    with pytest.raises(ValueError, match="skin must be"):
        Calculator(lennard_jones(), skin=skin)


# refusals


def test_unknown_elements_are_named_with_those_that_are_known(lennard_jones):
    atoms = molecule("CH3Cl")
    atoms.calc = Calculator(lennard_jones(["H", "C"]))
    with pytest.raises(ValueError, match=r"trained on \(H, C\), got Cl \(atom 1\)"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("pbc", [False, [True, True, False]])
def test_stress_is_refused_without_a_cell(lennard_jones, pbc):
    atoms = argon()
    atoms.pbc = pbc
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    with pytest.raises(PropertyNotImplementedError, match="periodic in three directions, got pbc="):
        atoms.get_stress()
    assert atoms.get_forces().shape == (len(atoms), 3)
    # also when everything else is there already
    with pytest.raises(PropertyNotImplementedError, match="periodic in three directions"):
        atoms.get_stress()


def test_positions_that_are_not_numbers_are_refused(lennard_jones):
    atoms = cluster()
    atoms.positions[4, 1] = np.nan
    atoms.calc = Calculator(lennard_jones())
    with pytest.raises(ValueError, match="for atom 4.*shorter time step"):
        atoms.get_forces()


def test_no_atoms_are_refused(lennard_jones):
    with pytest.raises(ValueError, match="at least one atom"):
        Calculator(lennard_jones()).get_potential_energy(Atoms())
    with pytest.raises(ValueError, match="has not seen any"):
        Calculator(lennard_jones()).calculate()


def test_an_unknown_way_with_extrapolation_is_refused(lennard_jones):
    with pytest.raises(ValueError, match="'shout'"):
        Calculator(lennard_jones(), on_extrapolation="shout")


def test_a_potential_without_forces_is_refused(lennard_jones):
    potential = lennard_jones()
    potential.predict = lambda batch, *, forces, stress: lennard_jones().predict(batch, forces=False)
    with pytest.raises(TypeError, match="returned None"):
        Calculator(potential, on_extrapolation="ignore").get_forces(cluster())


# extrapolation


def test_extrapolation_is_warned_about_once_and_counted(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]])
    calculator = atoms.calc = Calculator(lennard_jones(closest=3.0, furthest=5.0))
    message = r"atom 0 \(Ar\), function nearest = 2.8 lies .*\[3, 5\] by 10 % of its width \(and 3 more\).*add such"
    with pytest.warns(ExtrapolationWarning, match=message):
        atoms.get_forces()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.positions[1, 2] = 2.7
        atoms.get_forces()
        atoms.positions[1, 2] = 3.5
        atoms.get_forces()
    assert calculator.extrapolations == {("Ar", "nearest"): 4, ("Ar", "nearest²"): 4}


def test_extrapolation_that_goes_ten_times_further_is_told_again(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.98]])
    atoms.calc = Calculator(lennard_jones(closest=3.0, furthest=5.0))
    with pytest.warns(ExtrapolationWarning, match="by 1 % of its width"):
        atoms.get_forces()
    atoms.positions[1, 2] = 2.75
    with pytest.warns(ExtrapolationWarning, match="by 12 % of its width"):
        atoms.get_forces()


def test_a_hair_beyond_the_range_is_nothing(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.995]])
    calculator = atoms.calc = Calculator(lennard_jones(closest=3.0, furthest=5.0), on_extrapolation="raise")
    atoms.get_forces()
    assert calculator.extrapolations == {}
    atoms.positions[1, 2] = 2.98
    with pytest.raises(ExtrapolationError):
        atoms.get_forces()


def test_a_function_that_was_constant_in_training_is_not_outside_by_rounding(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0 + 1e-13]])
    atoms.calc = Calculator(lennard_jones(closest=4.0, furthest=4.0), on_extrapolation="raise")
    atoms.get_forces()
    atoms.positions[1, 2] = 4.1
    with pytest.raises(ExtrapolationError):
        atoms.get_forces()


def test_far_excursions_are_counted_in_widths(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]])
    atoms.calc = Calculator(lennard_jones(closest=3.0, furthest=3.2))
    with pytest.warns(ExtrapolationWarning, match="by 4 times its width"):
        atoms.get_forces()


def test_every_element_is_warned_about(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]])
    calculator = atoms.calc = Calculator(lennard_jones(["Ar", "Kr"]))
    with pytest.warns(ExtrapolationWarning, match=r"\(Ar\)"):
        atoms.get_forces()
    atoms.numbers[:] = 36
    with pytest.warns(ExtrapolationWarning, match=r"\(Kr\)"):
        atoms.get_forces()
    assert set(calculator.extrapolations) == {(s, f) for s in ("Ar", "Kr") for f in ("nearest", "nearest²")}


def test_extrapolation_raises_when_asked_to(lennard_jones):
    atoms = Atoms("Ar3", [[0, 0, 0], [0, 0, 2.9], [0, 2.7, 2.9]])
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="raise")
    with pytest.raises(ExtrapolationError, match=r"atom 1 \(Ar\).*by 15 % of its width \(and 5 more\)") as caught:
        atoms.get_forces()
    assert caught.value.extrapolations[0].value == pytest.approx(2.7)
    assert len(caught.value.extrapolations) == 6
    assert atoms.calc.results == {}


def test_raising_goes_on_raising(lennard_jones):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]])
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="raise")
    for distance in (2.8, 2.9, 2.85):
        atoms.positions[1, 2] = distance
        with pytest.raises(ExtrapolationError):
            atoms.get_forces()
    atoms.positions[1, 2] = 3.5
    assert np.isfinite(atoms.get_forces()).all()


def test_extrapolation_is_not_looked_at_when_ignored(lennard_jones):
    potential = lennard_jones()
    potential.extrapolation = None
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]], calculator=Calculator(potential, on_extrapolation="ignore"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(atoms.get_forces()).all()
    assert atoms.calc.extrapolations == {}


# life with ASE


def test_energy_is_conserved_in_dynamics_with_a_skin(lennard_jones):
    atoms = argon(noise=0.02)
    calculator = atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore", skin=0.5)
    heat(atoms, 40)
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=2 * fs).run(100)
    assert atoms.get_total_energy() == pytest.approx(before, abs=1e-5 * len(atoms))
    assert calculator.neighbours.n_searches < 10 < calculator.n_calculations


def test_dynamics_do_not_depend_on_the_skin(lennard_jones):
    ends = []
    for skin in (0.0, 0.7):
        atoms = argon(noise=0.02)
        atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore", skin=skin)
        atoms.set_constraint(FixAtoms([0]))
        rng = heat(atoms, 60)
        Langevin(atoms, timestep=2 * fs, temperature_K=60, friction=0.01 / fs, rng=rng, fixcm=False).run(30)
        ends.append(atoms.positions.copy())
    np.testing.assert_array_equal(ends[0], ends[1])


def test_a_cell_relaxes_to_zero_stress_with_few_searches(lennard_jones):
    atoms = argon(repeat=1, noise=0.2)
    atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    calculator = atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore", skin=1.0)
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=300)
    np.testing.assert_allclose(atoms.get_stress(), 0.0, atol=1e-6)
    assert calculator.neighbours.n_searches < calculator.n_calculations / 2


def test_ase_writes_committee_results_to_its_files(lennard_jones, tmp_path):
    atoms = argon(repeat=1)
    atoms.calc = Calculator(lennard_jones(std=True), on_extrapolation="ignore")
    forces = atoms.get_forces()
    with Trajectory(tmp_path / "one.traj", "w") as trajectory:
        trajectory.write(atoms)
    np.testing.assert_allclose(ase.io.read(tmp_path / "one.traj").get_forces(), forces)
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    text.seek(0)
    np.testing.assert_allclose(ase.io.read(text, format="extxyz").get_stress(), atoms.get_stress(), atol=1e-8)
    assert "energy_std" not in atoms.calc.export_properties()
    assert atoms.calc.export_properties()["energy"] == atoms.get_potential_energy()


def test_it_says_what_it_is(lennard_jones):
    calculator = Calculator(lennard_jones(["Ar", "Kr"]))
    assert repr(calculator) == "molml.energy.Calculator(LennardJones, Ar Kr, cutoff=8.0 Å)"
    assert calculator.name == "molml"
