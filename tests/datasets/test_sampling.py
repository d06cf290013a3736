import gzip
import hashlib
import importlib.util
import lzma
import tomllib

import mdtraj
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from molml.datasets import card
from molml.datasets.catalogue import embedded_folder, embedded_names
from molml.datasets.sampling import (
    label,
    langevin,
    positions_hash,
    read_frames,
    values_hash,
    write_frames,
    write_set,
    write_tables,
    write_trajectories,
)

STRUCTURES = [name for name in embedded_names() if card(name)["kind"] == "structures"]
PARTS = [(name, part) for name in STRUCTURES for part in ("train", "valid", "test")]
ALANINE = embedded_folder() / "alanine-dipeptide"
STIFFNESS = 5.0


def springs(atoms):
    """Every atom bound to the origin by a spring of 5 eV/Å²."""
    return -STIFFNESS * atoms.positions


def sample(forces=springs, n_atoms=400, n_frames=50, seed=(1,), temperature=300.0):
    return list(
        langevin(
            Atoms(f"He{n_atoms}", positions=np.zeros((n_atoms, 3))),
            forces,
            temperature=temperature,
            timestep=2.0,
            friction=0.05,
            discard=200,
            interval=20,
            n_frames=n_frames,
            seed=seed,
        )
    )


def labelled(shift=0.0):
    frames = []
    for energy in (-1.5, -1.25):
        atoms = Atoms("CO", positions=[[0.0, 0.0, 0.0], [0.1, 0.2, 1.1 + shift]], cell=[5.0, 6.0, 7.0], pbc=True)
        atoms.info["group"] = "a"
        atoms.calc = SinglePointCalculator(
            atoms, energy=energy, forces=np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]), stress=np.arange(6.0) / 100
        )
        frames.append(atoms)
    return frames


def recipe(name):
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", embedded_folder() / name / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_langevin_gives_the_canonical_variance():
    # kT/k for every coordinate; the fixed centre of mass takes 1/400 of it. 50 frames of 1200 coordinates, correlated
    # over a few frames: the standard error is about 1 %
    variance = np.mean([frame.positions**2 for frame in sample()])
    expected = units.kB * 300.0 / STIFFNESS
    assert variance == pytest.approx(expected, rel=0.04)
    # control: the test can tell temperatures apart
    assert variance != pytest.approx(expected * 330.0 / 300.0, rel=0.04)


def test_langevin_leaves_its_start_alone_and_keeps_the_centre():
    start = Atoms("HeNe", positions=[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    frames = langevin(
        start, springs, temperature=300.0, timestep=1.0, friction=0.1, discard=0, interval=5, n_frames=3, seed=(0,)
    )
    for frame in frames:
        np.testing.assert_allclose(frame.get_center_of_mass(), start.get_center_of_mass(), atol=1e-12)
    np.testing.assert_array_equal(start.positions, [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])


def test_langevin_does_not_see_noise_in_the_last_bits():
    noise = np.random.default_rng(0)

    def noisy(size):
        return lambda atoms: springs(atoms) + size * noise.standard_normal(atoms.positions.shape)

    quiet = sample(n_atoms=2, n_frames=3)[-1].positions
    np.testing.assert_array_equal(sample(noisy(1e-13), n_atoms=2, n_frames=3)[-1].positions, quiet)
    # controls: larger noise and another seed do change it
    assert not np.array_equal(sample(noisy(1e-3), n_atoms=2, n_frames=3)[-1].positions, quiet)
    assert not np.array_equal(sample(n_atoms=2, n_frames=3, seed=(2,))[-1].positions, quiet)


def test_label_rounds_before_it_calculates():
    seen = []

    def calculate(atoms):
        seen.append(atoms.positions.copy())
        return {"energy": 1.23456789012, "forces": np.full((1, 3), 0.123456789012)}

    made = label(Atoms("H", positions=[[0.123456789012, 0.0, 0.0]]), calculate, {"temperature": 300})
    assert seen[0][0, 0] == made.positions[0, 0] == 0.12345679
    assert made.get_potential_energy() == 1.23456789
    assert made.get_forces()[0, 0] == 0.12345679
    assert made.info["temperature"] == 300


def test_frames_survive_the_file(tmp_path):
    frames = labelled()
    write_frames(tmp_path / "a.xyz.xz", frames)
    again = read_frames(tmp_path / "a.xyz.xz")
    assert values_hash(again) == values_hash(frames)
    np.testing.assert_allclose(again[1].get_stress(), frames[1].get_stress(), atol=1e-12)
    assert again[0].info["group"] == "a"


def test_values_hash_sees_content_not_noise():
    assert values_hash(labelled(1e-7)) == values_hash(labelled())
    assert values_hash(labelled(1e-3)) != values_hash(labelled())
    assert values_hash(labelled()[:1]) != values_hash(labelled())


def test_write_set_renews_the_end_of_the_card(tmp_path):
    old = tmp_path / "card.toml"
    old.write_text('title = "t"\n\n[[files]]\nname = "gone.xyz.xz"\n', encoding="utf-8")
    write_set(tmp_path / "new", {"train": labelled(), "test": labelled()[:1]}, old)
    text = (tmp_path / "new" / "card.toml").read_text(encoding="utf-8")
    assert text.startswith('title = "t"\n\n[[files]]\nname = "train.xyz.xz"\nstructures = 2\n')
    assert "gone" not in text
    assert lzma.decompress((tmp_path / "new" / "test.xyz.xz").read_bytes()).startswith(b"2\n")


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_embedded_file_has_the_values_of_its_card(name, part):
    frames = read_frames(embedded_folder() / name / f"{part}.xyz.xz")
    facts = {file["name"]: file for file in card(name)["files"]}[f"{part}.xyz.xz"]
    assert len(frames) == facts["structures"]
    assert values_hash(frames) == facts["values_sha256"]
    assert sorted({symbol for frame in frames for symbol in frame.symbols}) == sorted(card(name)["elements"])
    forces = np.array([frame.get_forces() for frame in frames])
    energies = np.array([frame.get_potential_energy() for frame in frames])
    assert np.isfinite(forces).all()
    # no net force on an isolated molecule or a periodic crystal
    assert np.abs(forces.sum(axis=1)).max() < 1e-6
    # energies belong to thermal motion: spread over some kT of every degree of freedom, no outlier
    assert 0.05 < energies.std() < 2.0
    assert np.abs(energies - energies.mean()).max() < 6.0 * energies.std()


@pytest.mark.parametrize("name", STRUCTURES)
def test_labels_are_those_of_the_engine(name):
    pytest.importorskip("tblite", reason="tblite is not installed")
    calculate = recipe(name).calculate
    frames = read_frames(embedded_folder() / name / "test.xyz.xz")
    for frame in (frames[0], frames[-1]):
        again = calculate(frame)
        # convergence and the eight written decimals; other versions of tblite may differ by more than the last digit
        assert again["energy"] == pytest.approx(frame.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(again["forces"], frame.get_forces(), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "part", "temperature", "number"), [("ethanol", "train", 300, 0), ("dry_ice", "test", 100, 0)]
)
def test_recipe_repeats_a_run(name, part, temperature, number):
    pytest.importorskip("tblite", reason="tblite is not installed")
    again = recipe(name).run(temperature, number, card(name)["seed"])
    frames = read_frames(embedded_folder() / name / f"{part}.xyz.xz")
    run = [frame for frame in frames if frame.info["group"] == f"{temperature}K-{number}"]
    assert values_hash(again) == values_hash(run)


@pytest.mark.parametrize("strain", [np.diag([1.0, 0.0, 0.0]), np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])])
def test_stress_is_the_derivative_of_the_energy(strain):
    pytest.importorskip("tblite", reason="tblite is not installed")
    calculate = recipe("dry_ice").calculate
    frame = read_frames(embedded_folder() / "dry_ice" / "test.xyz.xz")[-1]
    step, energies = 5e-4, []
    for sign in (1.0, -1.0):
        copy = frame.copy()
        copy.set_cell(frame.cell.array @ (np.eye(3) + sign * step * strain), scale_atoms=True)
        energies.append(calculate(copy)["energy"])
    numerical = (energies[0] - energies[1]) / (2 * step) / frame.get_volume()
    # tblite's own stress is off by up to 5e-6 eV/Å³ (see the card), of 1e-2
    assert numerical == pytest.approx(np.sum(frame.get_stress(voigt=False) * strain), abs=1e-5)


def runs_of_alanine():
    return [mdtraj.load(path, top=ALANINE / "topology.pdb") for path in sorted(ALANINE.glob("run-*.xtc"))]


def test_positions_hash_sees_content_not_noise():
    positions = np.random.default_rng(0).normal(size=(3, 4, 3)).round(3)
    assert positions_hash(positions + 1e-6) == positions_hash(positions)
    assert positions_hash(positions + 1e-3) != positions_hash(positions)
    assert positions_hash(positions[:2]) != positions_hash(positions)


def test_write_trajectories_keeps_heavy_atoms(tmp_path):
    topology = mdtraj.Topology()
    residue = topology.add_residue("ETH", topology.add_chain())
    for name, symbol in (("C1", "C"), ("H1", "H"), ("O1", "O")):
        topology.add_atom(name, mdtraj.element.get_by_symbol(symbol), residue)
    (tmp_path / "card.toml").write_text('title = "t"\n[[files]]\nname = "gone"\n', encoding="utf-8")
    positions = np.random.default_rng(0).normal(size=(2, 5, 3, 3))
    write_trajectories(tmp_path / "new", topology, list(positions), frame_time=0.5, card=tmp_path / "card.toml")
    for n in (1, 2):
        run = mdtraj.load(tmp_path / "new" / f"run-{n}.xtc", top=tmp_path / "new" / "topology.pdb")
        assert [atom.name for atom in run.topology.atoms] == ["C1", "O1"]
        np.testing.assert_allclose(run.time, 0.5 * np.arange(5))
        np.testing.assert_allclose(run.xyz.mean(axis=1), 0.0, atol=1e-3)
        # XTC files round to 1e-3 nm
        bond = positions[n - 1][:, 2] - positions[n - 1][:, 0]
        np.testing.assert_allclose(run.xyz[:, 1] - run.xyz[:, 0], bond, atol=1.1e-3)
    text = (tmp_path / "new" / "card.toml").read_text(encoding="utf-8")
    assert text.startswith('title = "t"\n\n[[files]]\nname = "topology.pdb"\nframes = 1\n')
    assert "gone" not in text


def test_embedded_trajectories_have_the_values_of_their_card():
    facts = {file["name"]: file for file in card("alanine-dipeptide")["files"]}
    for n, run in enumerate(runs_of_alanine(), start=1):
        assert run.n_frames == facts[f"run-{n}.xtc"]["frames"]
        assert positions_hash(run.xyz) == facts[f"run-{n}.xtc"]["values_sha256"]
        np.testing.assert_allclose(np.diff(run.time), 0.5, atol=1e-4)
    topology = mdtraj.load(ALANINE / "topology.pdb")
    assert positions_hash(topology.xyz) == facts["topology.pdb"]["values_sha256"]
    names = [(atom.residue.name, atom.name) for atom in topology.topology.atoms]
    assert names == [
        *(("ACE", name) for name in ("CH3", "C", "O")),
        *(("ALA", name) for name in ("N", "CA", "CB", "C", "O")),
        *(("NME", name) for name in ("N", "C")),
    ]


def test_embedded_trajectories_are_of_the_left_handed_amino_acid_and_cross_phi():
    for run in runs_of_alanine():
        phi = mdtraj.compute_dihedrals(run, [[1, 3, 4, 6]])[:, 0]
        # both sides of the barrier are visited, the side of the beta sheet and the right-handed helix more than the
        # other one
        assert 0.005 < np.mean((phi > 0.0) & (phi < 2.2)) < 0.3
        # improper torsion of the alpha carbon: the mirror image would have the other sign
        assert mdtraj.compute_dihedrals(run, [[3, 6, 5, 4]]).max() < 0.0
        # bonds of the backbone are whole
        bonds = mdtraj.compute_distances(run, [[0, 1], [1, 3], [3, 4], [4, 6], [6, 8], [8, 9]])
        assert 0.11 < bonds.min() < bonds.max() < 0.19


@pytest.fixture(scope="module")
def alanine_recipe():
    pytest.importorskip("openmm", reason="openmm is not installed")
    return recipe("alanine-dipeptide")


def test_built_in_solvent_has_the_energy_of_the_formulas(alanine_recipe):
    import openmm
    from openmm import app, unit

    topology, positions = alanine_recipe.molecule(), alanine_recipe.start()
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    slow = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    energies = []
    for system in (alanine_recipe.model(topology), slow):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        energy = context.getState(energy=True).getPotentialEnergy()
        energies.append(energy.value_in_unit(unit.kilojoule_per_mole))
    # the two forms have constants of eight digits
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)


def test_last_digits_do_not_change_a_run(alanine_recipe, monkeypatch):
    monkeypatch.setattr(alanine_recipe, "DISCARD", 0)
    first = alanine_recipe.run(600.0, 40, 1)
    start, other = alanine_recipe.start, alanine_recipe.run(600.0, 40, 2)
    monkeypatch.setattr(alanine_recipe, "start", lambda: start() * (1.0 + 1e-15))
    np.testing.assert_array_equal(alanine_recipe.run(600.0, 40, 1), first)
    assert np.abs(other - first).max() > 0.01
    # control: without rounding it is another run
    monkeypatch.setattr(alanine_recipe, "DECIMALS", 16)
    different = alanine_recipe.run(600.0, 40, 1)
    monkeypatch.setattr(alanine_recipe, "start", start)
    assert np.abs(alanine_recipe.run(600.0, 40, 1) - different).max() > 0.01


@pytest.mark.long
def test_recipe_repeats_a_trajectory(alanine_recipe):
    again = alanine_recipe.run(card("alanine-dipeptide")["temperature"], 5000, 1)
    heavy = [n for n, (_, atom) in enumerate(alanine_recipe.ATOMS) if not atom.startswith("H")]
    centred = again[:, heavy] - again[:, heavy].mean(axis=1, keepdims=True)
    # XTC files round to 1e-3 nm
    np.testing.assert_allclose(centred, runs_of_alanine()[0].xyz, atol=6e-4)


def test_tables_are_written_with_four_decimals_and_their_facts(tmp_path):
    card_file = tmp_path / "card.toml"
    card_file.write_text('title = "x"\n\n[[files]]\nname = "old"\n')
    parts = {"train": [("C,C", 1.00004, -0.00001), ("N", 2.0, 3.0)], "valid": []}
    write_tables(tmp_path / "out", ("smiles", "a", "b"), parts, card_file)
    text = lzma.decompress((tmp_path / "out" / "train.csv.xz").read_bytes()).decode()
    assert text == 'smiles,a,b\n"C,C",1.0000,0.0000\nN,2.0000,3.0000\n'
    facts = tomllib.loads((tmp_path / "out" / "card.toml").read_text())["files"]
    assert [(file["name"], file["molecules"]) for file in facts] == [("train.csv.xz", 2), ("valid.csv.xz", 0)]
    assert facts[0]["values_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert facts[0]["bytes"] == (tmp_path / "out" / "train.csv.xz").stat().st_size


def molecules(name, part):
    text = lzma.decompress((embedded_folder() / name / f"{part}.csv.xz").read_bytes())
    return [line.split(",")[0] for line in text.decode().splitlines()[1:]], text


@pytest.mark.parametrize("name", ["molecules", "small-molecules"])
def test_the_molecules_are_all_different_and_have_the_declared_content(name):
    (train, one), (valid, other) = molecules(name, "train"), molecules(name, "valid")
    assert len(set(train + valid)) == len(train + valid) == card(name)["molecules"]
    hashes = [file["values_sha256"] for file in card(name)["files"]]
    assert hashes == [hashlib.sha256(text).hexdigest() for text in (one, other)]


def test_the_draw_of_molecules_depends_on_the_seed_and_not_on_the_order(tmp_path, monkeypatch):
    recipe_of_molecules = recipe("molecules")
    monkeypatch.setattr(recipe_of_molecules, "N_TRAIN", 3)
    monkeypatch.setattr(recipe_of_molecules, "N_VALID", 1)
    strings = ["C" * n for n in range(1, 30)]
    drawn = []
    for order, seed in ((strings, 0), (strings[::-1], 0), (strings, 1)):
        file = tmp_path / "train.csv.gz"
        file.write_bytes(gzip.compress("\n".join(["SMILES", *order]).encode()))
        drawn.append(recipe_of_molecules.draw(file, seed))
    assert drawn[0] == drawn[1] != drawn[2]
    rows = recipe_of_molecules.table(["OCC"])
    assert rows == [("CCO", pytest.approx(-0.0014), pytest.approx(0.4068, abs=1e-4), pytest.approx(1.9803, abs=1e-4))]


def test_small_molecules_are_drawn_once_without_charges_and_never_from_the_part_that_is_held_out(monkeypatch):
    small = recipe("small-molecules")
    monkeypatch.setattr(small, "N_TRAIN", 3)
    monkeypatch.setattr(small, "N_VALID", 1)
    # SHA-1 of O begins with 8, of all others here with more than 25
    strings = ["OCC", "CCO", "[NH3+]CC([O-])=O", "O", "C#N", "CO", "CC"]
    assert sorted(small.draw(strings, 0)) == ["C#N", "CC", "CCO", "CO"]
    assert small.draw(strings, 0) == small.draw(strings[::-1], 0) != small.draw(strings, 1)
