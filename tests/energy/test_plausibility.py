"""Whole data sets in wrong units, signs and orders are noticed; unusual but correct ones are not."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from molml.energy.labels import Frame, label_frames
from molml.energy.plausibility import suspicions
from molml.energy.reading import read_frames

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "energy"
KBAR = 1602.1766


def frames_of(structures) -> list[Frame]:
    return label_frames((f"data.xyz:{k}", atoms) for k, atoms in enumerate(structures))


def strained(n: int = 12, *, volume: float = 0.03, shear: float = 0.02) -> list[Atoms]:
    """Copper in cells of many shapes."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        strain = np.diag(rng.uniform(-volume, volume, 3)) + np.triu(rng.uniform(-shear, shear, (3, 3)), 1)
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        frames.append(atoms)
    return frames


def with_stress(frames, change) -> list[Frame]:
    return [frame._replace(stress=change(frame.stress)) for frame in frames]


def reordered(stress):
    """What VASP's xx yy zz xy yz zx gives when taken for xx yy zz yz xz xy."""
    xx, yy, zz, xy, yz, zx = stress[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
    return np.array([[xx, zx, yz], [zx, yy, xy], [yz, xy, zz]])


def test_correct_data_raise_no_suspicion():
    assert suspicions(frames_of(strained())) == []


def test_opposite_sign():
    (suspicion,) = suspicions(with_stress(frames_of(strained()), np.negative))
    assert suspicion.startswith(
        "stress seems to have the opposite sign: larger cells should be under tension, which is pos"
    )
    assert suspicion.endswith("seen in 12 structures of Cu4")


def test_other_unit():
    (suspicion,) = suspicions(with_stress(frames_of(strained()), lambda stress: stress * KBAR))
    assert suspicion.startswith("stress seems not to be in eV/Å³: it gives a bulk modulus of ")
    assert "1 kbar = 0.000624 eV/Å³" in suspicion


def test_other_order():
    (suspicion,) = suspicions(with_stress(frames_of(strained()), reordered))
    assert suspicion.startswith(
        "shear stress seems to be in another order: what is called yz, xz, xy answers to strains xy, yz, xz"
    )


def test_order_of_reordering_is_the_one_of_vasp():
    tensor = np.array([[1, 4, 6], [4, 2, 5], [6, 5, 3]])
    np.testing.assert_array_equal(reordered(tensor), [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


def test_groups_are_judged_apart():
    # thermal pressure at one volume would drown the elastic response if both were thrown together
    hot = []
    for seed in range(40):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.01 + 0.01 * seed, seed=seed)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.info["config_type"] = "hot"
        hot.append(atoms)
    cold = strained()
    for atoms in cold:
        atoms.info["config_type"] = "cold"
    assert suspicions(frames_of(hot + cold)) == []
    (suspicion,) = suspicions(with_stress(frames_of(hot + cold), np.negative))
    assert suspicion.endswith("seen in 12 structures of Cu4 (cold)")


@pytest.mark.parametrize(
    "structures",
    [
        # too few structures, too little volume, too little shear, cells turned against each other
        strained(7),
        strained(volume=0.001),
    ],
)
def test_silence_where_the_data_prove_nothing(structures):
    wrong = with_stress(frames_of(structures), np.negative)
    assert not any("sign" in suspicion for suspicion in suspicions(wrong))


def test_silence_on_the_order_without_shear():
    assert suspicions(with_stress(frames_of(strained(shear=1e-4)), reordered)) == []


def test_silence_on_the_order_in_unrelated_cells():
    frames = frames_of(strained())
    turned = [
        frame._replace(atoms=Atoms(frame.atoms, cell=np.roll(np.asarray(frame.atoms.cell), k % 2, axis=1)))
        for k, frame in enumerate(with_stress(frames, reordered))
    ]
    assert suspicions(turned) == []


def test_cells_that_cancel_in_the_mean_are_no_lattice():
    frames = with_stress(frames_of(strained()), reordered)
    mirrored = [
        frame._replace(atoms=Atoms(frame.atoms, cell=np.asarray(frame.atoms.cell) * (-1) ** k))
        for k, frame in enumerate(frames)
    ]
    assert all("order" not in suspicion for suspicion in suspicions(mirrored))


def test_positions_in_nanometres():
    water = molecule("H2O")
    water.positions *= 0.15
    water.info["energy"] = -14.2
    (suspicion,) = suspicions(frames_of([water, water]))
    assert suspicion == (
        "every structure has atoms closer than 0.5 Å (down to 0.15 Å), shorter than any bond; if the positions are in "
        "nm, say length_unit='nm'"
    )


def test_one_short_contact_is_no_unit():
    water, squeezed = molecule("H2O"), molecule("H2", positions=[[0, 0, 0], [0, 0, 0.4]])
    for atoms in (water, squeezed):
        atoms.info["energy"] = -10.0
    assert suspicions(frames_of([water, squeezed])) == []


def test_single_atoms_have_no_distances():
    atoms = Atoms("Cu", info={"energy": -1.0})
    assert suspicions(frames_of([atoms])) == []


def test_stress_of_a_slab_is_announced_as_ignored():
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.info.update(energy=-1.0, stress=np.zeros(6))
    (suspicion,) = suspicions(frames_of([slab]))
    assert suspicion == (
        "stress is ignored in 1 of 1 structures, beginning with data.xyz:0: it has a meaning only where all three "
        "directions are periodic, and there pbc=[True, True, False]"
    )


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not here")
@pytest.mark.parametrize("element", ["Li", "Si", "Mo", "Cu"])
def test_real_stress(element):
    frames = read_frames(SHARED / "mlearn" / f"{element}_train.xyz.xz")
    assert suspicions(frames) == []
    assert any("opposite sign" in suspicion for suspicion in suspicions(with_stress(frames, np.negative)))
    assert any("not to be in" in suspicion for suspicion in suspicions(with_stress(frames, lambda s: s * KBAR)))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not here")
@pytest.mark.parametrize("element", ["Si", "Mo", "Cu"])
def test_real_shear(element):
    # lithium's elastic set holds no shear to speak of
    frames = read_frames(SHARED / "mlearn" / f"{element}_train.xyz.xz")
    assert any("another order" in suspicion for suspicion in suspicions(with_stress(frames, reordered)))
