"""Batches, and the data set that makes them."""

import pickle
import re
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.energy.data import (
    StructureDataset,
    Structures,
    atoms_to_structures,
    check_structure,
    collate,
    n_structures,
    pair_vectors,
    read_structures,
)
from molml.energy.neighbors import neighbor_pairs

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "energy"


def copper(seed: int = 0, *, repeat: int = 1, **info) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    atoms.info.update(info)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    return atoms


def water(**info) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def mixture() -> list[Atoms]:
    """A crystal with all labels, a molecule with an energy, a molecule with forces, a slab without labels."""
    pushed = molecule("CH4")
    pushed.arrays["forces"] = np.arange(15.0).reshape(5, 3)
    return [copper(weight=2.0), water(energy=-14.0), pushed, fcc111("Al", (1, 1, 2), vacuum=4.0)]


def refused(message, kind=ValueError):
    return pytest.raises(kind, match=re.escape(message))


def assert_equal(one: Structures, other: Structures) -> None:
    for name, mine, theirs in zip(Structures._fields, one, other, strict=True):
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name


# ---- one structure ---------------------------------------------------------------------------------------------------


def test_fields_of_a_crystal():
    atoms = copper(weight=2.0)
    batch = StructureDataset([atoms], cutoff=5.0)[0]
    np.testing.assert_array_equal(batch.positions, atoms.positions)
    np.testing.assert_array_equal(batch.cell, np.asarray(atoms.cell)[None])
    assert batch.numbers.tolist() == [29] * 4
    assert batch.structure.tolist() == [0] * 4
    assert batch.volume.item() == pytest.approx(atoms.get_volume())
    assert batch.energy.item() == atoms.get_potential_energy()
    np.testing.assert_array_equal(batch.forces, atoms.get_forces())
    np.testing.assert_allclose(batch.stress[0], atoms.get_stress(voigt=False), atol=1e-18)
    assert batch.has_energy.tolist() == batch.has_stress.tolist() == [True]
    assert batch.has_forces.tolist() == [True] * 4
    assert batch.weight.tolist() == [2.0]
    first, second, offset = neighbor_pairs(atoms.positions, atoms.cell, atoms.pbc, 5.0)
    np.testing.assert_array_equal(batch.first, first)
    np.testing.assert_array_equal(batch.second, second)
    np.testing.assert_allclose(batch.offset, offset, atol=1e-14)


def test_dtypes():
    batch = StructureDataset(mixture(), cutoff=4.0)[0]
    floating = {"positions", "cell", "offset", "volume", "energy", "forces", "stress", "weight"}
    integer = {"numbers", "structure", "first", "second"}
    for name, field in batch._asdict().items():
        expected = torch.float64 if name in floating else torch.int64 if name in integer else torch.bool
        assert field.dtype == expected, name


def test_pair_vectors_point_to_the_neighbours():
    batch = atoms_to_structures(bulk("Cu", "fcc", a=3.6), cutoff=3.0)
    vectors = pair_vectors(batch)
    assert vectors.shape == (12, 3)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((12,), 3.6 / np.sqrt(2), dtype=torch.float64))
    torch.testing.assert_close(vectors.sum(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-14, rtol=0)


def test_pair_vectors_carry_gradients():
    batch = atoms_to_structures(water(), cutoff=2.0)
    positions = batch.positions.clone().requires_grad_()
    pair_vectors(batch._replace(positions=positions)).square().sum().backward()
    # d/dr_i of the sum over both directions of |r_j - r_i|² is 4 Σ_j (r_i - r_j)
    expected = 4 * (3 * batch.positions - batch.positions.sum(dim=0))
    torch.testing.assert_close(positions.grad, expected)


def test_structures_for_prediction_ignore_the_calculator():
    atoms = copper()
    atoms.positions[0] += 0.1
    batch = atoms_to_structures(atoms, 4.0)
    assert not batch.has_energy.any() and not batch.has_forces.any() and not batch.has_stress.any()
    assert_equal(batch, atoms_to_structures(atoms.copy(), 4.0))
    assert batch.positions.data_ptr() != torch.from_numpy(atoms.positions).data_ptr()


def test_structures_for_prediction_equal_those_of_a_data_set():
    atoms = copper().copy()
    dataset = StructureDataset([atoms], cutoff=5.0, energy_key=None, forces_key=None)
    assert_equal(dataset[0], atoms_to_structures(atoms, 5.0))


def test_structures_for_prediction_refuse_broken_geometry():
    atoms = water()
    atoms.positions[1, 2] = np.nan
    with refused("positions must be finite, got [0.0, 0.763239, nan] for atom 1"):
        atoms_to_structures(atoms, 4.0)


def test_without_a_cutoff_there_are_no_pairs():
    for batch in (atoms_to_structures(copper(), None), StructureDataset([copper()])[0]):
        assert batch.first.shape == batch.second.shape == (0,)
        assert batch.offset.shape == (0, 3)


def test_missing_labels_are_masked():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    batch = dataset.collate([dataset[k] for k in range(4)])
    assert batch.has_energy.tolist() == [True, True, False, False]
    assert batch.has_forces.tolist() == [True] * 4 + [False] * 3 + [True] * 5 + [False] * 2
    assert batch.has_stress.tolist() == [True, False, False, False]
    assert batch.energy[2:].tolist() == [0.0, 0.0]
    assert batch.forces[4:7].abs().max() == batch.stress[1:].abs().max() == 0
    assert batch.weight.tolist() == [2.0, 1.0, 1.0, 1.0]


def test_volume_needs_three_periodic_directions():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    assert [float(dataset[k].volume) > 0 for k in range(4)] == [True, False, False, False]


def test_stress_of_a_slab_is_ignored_aloud():
    slab = fcc111("Al", (1, 1, 2), vacuum=4.0)
    slab.info.update(energy=-1.0, stress=np.ones(6))
    with pytest.warns(UserWarning, match="the list: stress is ignored in 1 of 1 structures, beginning with structures"):
        dataset = StructureDataset([slab], cutoff=4.0)
    assert not dataset[0].has_stress.any()
    assert dataset[0].stress.abs().max() == 0


def test_suspicions_name_the_file(tmp_path):
    scaled = molecule("H2O")
    scaled.positions *= 0.15
    scaled.info["energy"] = -14.0
    ase.io.write(tmp_path / "small.xyz", scaled)
    with pytest.warns(UserWarning, match="small.xyz: every structure has atoms closer than 0.5 Å"):
        StructureDataset(tmp_path / "small.xyz")


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_collate_shifts_indices():
    dataset = StructureDataset([copper(0), water(energy=-1.0), copper(1)], cutoff=4.0)
    parts = [dataset[k] for k in range(3)]
    batch = collate(parts)
    assert n_structures(batch) == 3
    assert batch.structure.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert torch.equal(batch.structure[batch.first], batch.structure[batch.second])
    torch.testing.assert_close(pair_vectors(batch), torch.cat([pair_vectors(part) for part in parts]), rtol=0, atol=0)
    rows = torch.stack([batch.first, batch.second]).T.tolist()
    assert rows == sorted(rows)


def test_collate_of_batches_is_the_batch_of_all():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    parts = [dataset[k] for k in range(4)]
    assert_equal(collate([collate(parts[:2]), collate(parts[2:])]), collate(parts))
    # control: the order matters
    assert not torch.equal(collate(parts[::-1]).numbers, collate(parts).numbers)


def test_collate_of_one_is_that_one():
    part = StructureDataset([copper()], cutoff=4.0)[0]
    assert collate([part]) is part


def test_collate_of_nothing():
    with refused("collate needs at least one structure, got none"):
        collate([])


def test_collate_is_fast():
    dataset = StructureDataset([water(energy=-1.0)] * 4, cutoff=4.0)
    parts = [dataset[k] for k in range(4)]
    times = []
    for _ in range(200):
        start = time.perf_counter()
        collate(parts)
        times.append(time.perf_counter() - start)
    # 0.1 ms on an idle machine
    assert np.median(times) < 2e-3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.floats(1.0, 6.0))
def test_any_batch_has_the_pairs_of_its_structures(choice, cutoff):
    shelf = [*mixture(), Atoms("H", info={"energy": -13.6}), copper(3)]
    dataset = StructureDataset([shelf[k] for k in choice] + [shelf[1]], cutoff=cutoff)
    batch = collate([dataset[k] for k in range(len(dataset))])
    counts = [len(neighbor_pairs(a.positions, a.cell, a.pbc, cutoff)[0]) for a in dataset.atoms]
    assert torch.bincount(batch.structure[batch.first], minlength=len(counts)).tolist() == counts
    assert (pair_vectors(batch).norm(dim=1) < cutoff + 1e-9).all()


def test_offsets_far_outside_the_cell_are_exact():
    # translations of more than 127 cells do not fit the compact form
    atoms = Atoms("Cu2", [[0, 0, 0], [1000.0, 0, 1.5]], cell=[4, 4, 4], pbc=True, info={"energy": -1.0})
    batch = StructureDataset([atoms], cutoff=4.2)[0]
    _, _, offset = neighbor_pairs(atoms.positions, atoms.cell, atoms.pbc, 4.2)
    np.testing.assert_array_equal(batch.offset, offset)
    assert batch.offset.abs().max() > 127 * 4


# ---- the data set ----------------------------------------------------------------------------------------------------


def test_items_are_computed_once_and_equal_when_asked_again():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    assert dataset._pairs == [None] * 4
    assert_equal(dataset[1], dataset[-3])
    assert [pairs is not None for pairs in dataset._pairs] == [False, True, False, False]


def test_neighbour_lists_are_kept_compact():
    dataset = StructureDataset([copper(repeat=3)], cutoff=6.0)
    batch = dataset[0]
    kept = sum(field.nbytes for field in dataset._pairs[0])
    assert kept < 0.25 * sum(field.nbytes for field in (batch.first, batch.second, batch.offset))


@pytest.mark.parametrize("index", [4, -5, 100])
def test_indices_outside(index):
    with refused(f"index must lie in 0…3, got {index}", IndexError):
        StructureDataset(mixture())[index]


def test_iteration_ends():
    assert len(list(StructureDataset(mixture()))) == 4


def test_indices_are_integers():
    with pytest.raises(TypeError, match="integer"):
        StructureDataset(mixture())[0.5]
    assert len(StructureDataset(mixture())[np.int64(1)].numbers) == 3


def test_split_is_disjoint_complete_and_repeatable():
    dataset = StructureDataset([water(energy=-float(k)) for k in range(20)])
    rest, part = dataset.split(0.25, seed=3)
    assert (len(rest), len(part)) == (15, 5)

    def energies(some):
        return [float(structure.energy) for structure in some]

    assert sorted(energies(rest) + energies(part), reverse=True) == energies(dataset)
    assert energies(part) == sorted(energies(part), reverse=True)
    assert energies(dataset.split(0.25, seed=3)[1]) == energies(part)
    assert energies(dataset.split(0.25, seed=4)[1]) != energies(part)


@pytest.mark.parametrize(("fraction", "size"), [(0.001, 1), (0.999, 3), (0.5, 2)])
def test_split_leaves_no_part_empty(fraction, size):
    rest, part = StructureDataset(mixture()).split(fraction, seed=0)
    assert (len(rest), len(part)) == (4 - size, size)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, np.nan])
def test_split_fractions(fraction):
    with refused(f"fraction must lie between 0 and 1, got {fraction}"):
        StructureDataset(mixture()).split(fraction, seed=0)


def test_split_of_one_structure():
    with refused("a data set needs at least two structures to be split, got 1"):
        StructureDataset([copper()]).split(0.5, seed=0)


def test_subset_keeps_order_and_shares_neighbour_lists():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    subset = dataset.subset([2, 0, -1]).subset(np.array([1, 0]))
    assert_equal(subset[0], dataset[0])
    assert_equal(subset[1], dataset[2])
    assert subset.sources == ["structures[0]", "structures[2]"]
    assert subset._pairs is dataset._pairs
    assert subset._store is dataset._store


def test_subset_errors():
    dataset = StructureDataset(mixture())
    with refused("indices must lie in 0…3, got 7", IndexError):
        dataset.subset([0, 7])
    with refused("indices must name at least one structure, got none"):
        dataset.subset([])


def test_another_cutoff():
    dataset = StructureDataset(mixture(), cutoff=3.0)
    wider = dataset.subset([0, 1]).with_cutoff(5.0)
    assert (dataset.cutoff, wider.cutoff, len(wider)) == (3.0, 5.0, 2)
    assert len(wider[0].first) > len(dataset[0].first)
    assert wider.with_cutoff(5.0)._pairs is wider._pairs
    assert wider.with_cutoff(None).cutoff is None


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.inf, np.nan])
def test_wrong_cutoffs(cutoff):
    for action in (
        lambda: StructureDataset([copper()], cutoff=cutoff),
        lambda: StructureDataset([copper()]).with_cutoff(cutoff),
    ):
        with refused(f"cutoff must be a positive length in Å, got {cutoff}"):
            action()


def test_elements_groups_and_sources(tmp_path):
    frames = [water(energy=-1.0, config_type="wet"), copper(group="dry"), copper(1, system="hard"), copper(2)]
    path = tmp_path / "all.xyz"
    ase.io.write(path, frames)
    dataset = StructureDataset(path, index=slice(None, None, -1))
    assert dataset.elements == [1, 8, 29]
    assert dataset.subset([1]).elements == [29]
    assert dataset.groups == ["", "hard", "dry", "wet"]
    assert dataset.sources == ["all.xyz:3", "all.xyz:2", "all.xyz:1", "all.xyz:0"]


def test_atoms_are_fresh_copies_with_labels():
    given = mixture()
    dataset = StructureDataset(given)
    atoms = dataset.atoms
    atoms[0].positions[:] = 0.0
    atoms[0].info["group"] = "changed"
    np.testing.assert_array_equal(dataset.atoms[0].positions, given[0].positions)
    assert dataset.groups == [""] * 4
    assert dataset.atoms[0].get_potential_energy() == given[0].get_potential_energy()
    assert dataset.atoms[3].calc is None
    assert [set(a.calc.results) for a in atoms[:3]] == [{"energy", "forces", "stress"}, {"energy"}, {"forces"}]
    assert StructureDataset(dataset.atoms).hash == dataset.hash


def test_atoms_given_are_neither_changed_nor_looked_at_again():
    atoms = copper()
    before = atoms.positions.copy()
    dataset = StructureDataset([atoms], cutoff=4.0)
    np.testing.assert_array_equal(atoms.positions, before)
    assert isinstance(atoms.calc, EMT)
    atoms.positions += 1.0
    np.testing.assert_array_equal(dataset[0].positions, before)


def test_hash_does_not_depend_on_the_file(tmp_path):
    frames = [copper(seed, weight=0.5) for seed in range(3)]
    ase.io.write(tmp_path / "a.traj", frames)
    for atoms in frames:
        atoms.info.clear()
    ase.io.write(tmp_path / "a.db", frames)
    hashes = {
        StructureDataset(tmp_path / "a.traj", weight_key=None).hash,
        StructureDataset(tmp_path / "a.db").hash,
        StructureDataset(tmp_path / "a.db", cutoff=3.0).hash,
        StructureDataset(frames).hash,
        StructureDataset(read_structures(tmp_path / "a.db")).hash,
    }
    assert len(hashes) == 1
    assert StructureDataset(tmp_path / "a.traj").hash not in hashes
    assert re.fullmatch("[0-9a-f]{64}", hashes.pop())


def test_hash_is_written_in_stone():
    # checkpoints and models of older versions compare with it
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, -0.0]], info={"energy": -7.5})
    atoms.positions[1, 0] = 1.125
    assert StructureDataset([atoms]).hash == "427f8805f179da5a2fd12991dad6226140e3dca64a2c425a256b4b0d8655a503"


def changed(name):
    atoms = copper()
    results = dict(atoms.calc.results)
    results = {key: results[key] for key in ("energy", "forces", "stress")}
    atoms.calc = None
    change = {
        "nothing": lambda: None,
        "position": lambda: atoms.positions.__setitem__((1, 2), np.nextafter(atoms.positions[1, 2], 9)),
        "element": lambda: atoms.numbers.__setitem__(2, 28),
        "cell": lambda: atoms.cell.__setitem__((0, 0), atoms.cell[0, 0] + 1e-9),
        "pbc": lambda: atoms.set_pbc([True, True, False]),
        "energy": lambda: results.update(energy=results["energy"] + 1e-12),
        "force": lambda: results.update(forces=results["forces"] + 1e-12),
        "stress": lambda: results.update(stress=results["stress"] * 1.001),
        "no stress": lambda: results.pop("stress"),
        "zero stress": lambda: results.update(stress=np.zeros(6)),
        "no energy": lambda: results.pop("energy"),
        "weight": lambda: atoms.info.update(weight=1.5),
    }
    change[name]()
    atoms.calc = SinglePointCalculator(atoms, **results)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stress is ignored")
        return StructureDataset([atoms]).hash


def test_hash_notices_every_change():
    names = ["nothing", "position", "element", "cell", "pbc", "energy", "force", "stress", "no stress", "zero stress",
             "no energy", "weight"]  # fmt: skip
    assert len({changed(name) for name in names}) == len(names)
    assert changed("nothing") == StructureDataset([copper()]).hash


def test_hash_notices_order_and_choice():
    dataset = StructureDataset(mixture())
    assert dataset.subset([0, 1, 2, 3]).hash == dataset.hash
    assert len({dataset.hash, dataset.subset([1, 0, 2, 3]).hash, dataset.subset([0, 1]).hash}) == 3


def test_summary():
    dataset = StructureDataset([copper(group="a"), water(energy=-1.0)], cutoff=5.0)
    assert repr(dataset) == (
        "StructureDataset: 2 structures, 7 atoms (H, O, Cu), periodic, molecules; 2 with energy, 1 with forces, "
        "1 with stress; cutoff 5.0 Å; groups: a 1, none 1"
    )
    assert repr(dataset.subset([1]).with_cutoff(None)) == (
        "StructureDataset: 1 structure, 3 atoms (H, O), molecules; 1 with energy, 0 with forces, 0 with stress; "
        "cutoff none"
    )


def test_summary_of_many_groups():
    dataset = StructureDataset([water(energy=-1.0, group=k) for k in range(30)])
    assert repr(dataset).endswith("groups: 0 1, 1 1, 2 1, 3 1, 4 1, 5 1, 6 1, 7 1, 8 1, 9 1, 10 1, 11 1, …")


def test_summary_in_a_notebook():
    text = StructureDataset([copper(group="<b>&")])._repr_html_()
    assert text.startswith("<table><caption>StructureDataset</caption><tr><th")
    assert "&lt;b&gt;&amp; 1" in text
    assert "<b>" not in text


def test_data_sets_can_be_pickled():
    dataset = StructureDataset(mixture(), cutoff=4.0)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again.hash == dataset.hash
    assert_equal(again[0], dataset[0])


@pytest.mark.parametrize(("wrong", "name"), [(5, "int"), (["a.xyz"], "list"), ([1, 2], "list")])
def test_structures_are_atoms(wrong, name):
    with refused(
        f"structures must be a path or a list of ase.Atoms, got {name}; a single structure goes into a list", TypeError
    ):
        StructureDataset(wrong)


def test_a_single_structure_is_not_a_list():
    with refused(
        "structures must be a path or a list of ase.Atoms, got Atoms; a single structure goes into a list: [at",
        TypeError,
    ):
        StructureDataset(copper())


def test_no_structures():
    with refused("structures must hold at least one structure, got none"):
        StructureDataset([])


def test_errors_of_lists_name_the_structure():
    with refused("structures[1]: energy must be finite, got nan"):
        StructureDataset([copper(), water(energy=np.nan)])


def test_check_structure_is_at_hand():
    with refused("structure: a structure needs at least one atom, got none"):
        check_structure(Atoms())


def test_keys_and_units_reach_the_reader(tmp_path):
    atoms = water(E=-1.0, w=3.0)
    atoms.arrays["F"] = np.ones((3, 3))
    ase.io.write(tmp_path / "a.xyz", atoms)
    keys = {"energy_key": "E", "forces_key": "F", "weight_key": "w", "energy_unit": "hartree", "length_unit": "bohr"}
    from_file, from_list = StructureDataset(tmp_path / "a.xyz", **keys)[0], StructureDataset([atoms], **keys)[0]
    assert_equal(from_file, from_list)
    assert from_file.energy.item() == pytest.approx(-27.2113862)
    assert from_file.forces[0, 0].item() == pytest.approx(51.4220675)
    assert from_file.weight.item() == 3.0


# ---- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not here")
def test_silicon():
    start = time.process_time()
    dataset = StructureDataset(SHARED / "mlearn" / "Si_train.xyz.xz", cutoff=6.0)
    batch = collate([dataset[k] for k in range(len(dataset))])
    # 1 s on an idle machine
    assert time.process_time() - start < 10
    assert n_structures(batch) == 214
    assert len(batch.numbers) == 13233
    assert len(batch.first) == 558754
    assert batch.has_energy.all() and batch.has_forces.all() and batch.has_stress.all()
    assert dataset.elements == [14]
    assert sorted(set(dataset.groups)) == ["AIMD-NVT", "Elastic", "Surface", "Vacancy"]
    assert dataset.sources[213] == "Si_train.xyz.xz:213"
    assert batch.energy[0].item() == -295.49753016
    # read as text from the file: xx, and yz at row 1, column 2
    assert batch.stress[0, 0, 0].item() == 0.004107503988364278
    assert batch.stress[0, 1, 2].item() == 0.0033825764710596886
    distances = pair_vectors(batch).norm(dim=1)
    assert 1.8 < distances.min() and distances.max() <= 6.0
