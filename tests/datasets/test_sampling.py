import importlib.util
import lzma

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from molml.datasets import card
from molml.datasets.catalogue import embedded_folder, embedded_names
from molml.datasets.sampling import label, langevin, read_frames, values_hash, write_frames, write_set

PARTS = [(name, part) for name in embedded_names() for part in ("train", "valid", "test")]
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


@pytest.mark.parametrize("name", embedded_names())
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
