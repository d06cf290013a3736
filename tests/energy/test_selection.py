"""The automatic choice of symmetry functions."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from molml.energy import StructureDataset, automatic_functions, selection
from molml.energy.data import collate
from molml.energy.features import ANY, G2, FourBody, SymmetryFunctions, ThreeBody
from molml.energy.selection import COUPLINGS, candidates, shells, shortest_distance, walls

CUTOFF = 4.0


@pytest.fixture(scope="module")
def alloy(emt_crystals) -> StructureDataset:
    return StructureDataset(emt_crystals(12, symbols=("Cu", "Ni")), cutoff=CUTOFF)


def dimers(distances: list[float]) -> StructureDataset:
    frames = []
    for r in distances:
        atoms = Atoms("H2", [[0, 0, 0], [r, 0, 0]])
        force = 2 * (r - 0.8)
        atoms.calc = SinglePointCalculator(atoms, energy=(r - 0.8) ** 2, forces=[[force, 0, 0], [-force, 0, 0]])
        frames.append(atoms)
    return StructureDataset(frames, cutoff=CUTOFF)


def test_shells_cover_the_range() -> None:
    grid = shells(8, 1.0, 5.0)
    eta, r_s = np.array(grid).T
    assert r_s[0] == 1.0
    assert r_s[-1] == pytest.approx(0.92 * 5.0)
    assert (np.diff(r_s) > 0).all()
    # neighbouring shells overlap: half way between them neither has fallen below a half
    middle = (r_s[1:] + r_s[:-1]) / 2
    assert (np.exp(-eta[:-1] * (middle - r_s[:-1]) ** 2) > 0.5).all()
    assert shells(1, 1.0, 5.0) == [(0.08, 3.0)]


def test_walls_rise_towards_the_atom() -> None:
    for eta, r_s in walls(6, 1.8):
        assert r_s == 0.0
        assert 1.0 - 1e-5 < 2.0 * eta * 1.8 < 8.0 + 1e-5  # - d ln(wall) / dr at 1.8 Å
    assert len(set(walls(6, 1.8))) == 6
    # a control: of the shells, the nearest falls off again
    eta, r_s = shells(14, 1.8, 5.5)[0]
    assert np.exp(-eta * (1.2 - r_s) ** 2) < np.exp(-eta * (1.8 - r_s) ** 2)


@pytest.mark.parametrize("elements", [[14], [1, 8], [1, 6, 8], [1, 6, 7, 8, 16]])
def test_candidates_are_all_different_and_valid(elements: list[int]) -> None:
    grid = candidates(elements, 0.9, 5.0)
    assert len(grid) == len(set(grid))
    functions = SymmetryFunctions(dict.fromkeys(["H", "C", "N", "O", "S", "Si"], grid), cutoff=5.0)
    # no two are the same invariant written twice
    centre = functions.tables.centres[0]
    assert centre.combination is None
    assert centre.n_functions == len(grid)
    assert {type(function) for function in grid} == {G2, ThreeBody, FourBody}


def test_couplings() -> None:
    assert (0, 0, 0) in COUPLINGS and (1, 1, 2) in COUPLINGS and (4, 4, 4) in COUPLINGS
    assert (1, 1, 1) not in COUPLINGS and (1, 1, 4) not in COUPLINGS
    assert len(COUPLINGS) == 14


def test_shortest_distance() -> None:
    assert shortest_distance(dimers([0.9, 0.71, 1.3])) == pytest.approx(0.71)
    assert shortest_distance(dimers([5.0])) == CUTOFF


def test_the_choice_is_the_same_every_time(alloy: StructureDataset) -> None:
    first, second = (automatic_functions(alloy, n_functions=15, n_candidates=60, seed=3) for _ in range(2))
    assert first.config == second.config


def test_limits(alloy: StructureDataset) -> None:
    functions = automatic_functions(alloy, n_functions=15, n_candidates=60)
    assert functions.elements == alloy.elements == [28, 29]
    assert [functions.n_functions(symbol) for symbol in ("Ni", "Cu")] == [15, 15]
    assert functions.cutoff == CUTOFF
    assert all(len(set(chosen)) == len(chosen) for chosen in functions.functions.values())


def test_what_does_not_vary_is_dropped() -> None:
    # in a dimer every angle is zero and only the distance varies: nine energies and nine forces are all there is
    dataset = dimers(np.linspace(0.6, 1.2, 9).tolist())
    functions = automatic_functions(dataset, n_functions=40)
    assert 1 <= functions.n_functions("H") <= 18
    values = functions(collate([dataset[i] for i in range(9)]))[1]
    spread = values.std(0)
    assert (spread > 1e-8 * spread.max()).all()


def test_an_element_whose_surroundings_never_vary_keeps_one_function() -> None:
    # a network needs an input
    assert automatic_functions(dimers([0.8, 0.8, 0.8])).n_functions("H") == 1
    assert automatic_functions(dimers([5.0, 6.0])).n_functions("H") == 1


def test_without_a_second_stage_what_varies_most_is_taken(alloy: StructureDataset) -> None:
    functions = automatic_functions(alloy, n_functions=6, n_candidates=6)
    grid = candidates(alloy.elements, shortest_distance(alloy), CUTOFF)
    everything = SymmetryFunctions({"Ni": grid, "Cu": grid}, cutoff=CUTOFF)
    for number, values in everything(collate([alloy[i] for i in range(12)])).items():
        rest = (values - values.mean(0)).numpy()
        chosen = []
        for _ in range(6):
            chosen.append(int((rest**2).sum(0).argmax()))
            direction = rest[:, chosen[-1]] / np.linalg.norm(rest[:, chosen[-1]])
            rest = rest - np.outer(direction, direction @ rest)
        assert list(functions.functions[chemical_symbols[number]]) == [grid[i] for i in sorted(chosen)]


def test_few_structures(alloy: StructureDataset) -> None:
    for n in (1, 2):
        functions = automatic_functions(alloy.subset(range(n)), n_functions=300)
        # as many independent directions as there are labels, at most
        assert 1 <= min(functions.n_functions(symbol) for symbol in functions.functions)
        assert sum(functions.n_functions(symbol) for symbol in functions.functions) <= n * (1 + 12 + 6)


def test_an_element_that_is_rare(alloy: StructureDataset, emt_crystals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many structures only some are looked at; the few with a rare element must be among them."""
    monkeypatch.setattr(selection, "_SAMPLE_STRUCTURES", 5)
    frames = [*emt_crystals(20), *emt_crystals(1, symbols=("Ag",))]
    functions = automatic_functions(StructureDataset(frames, cutoff=CUTOFF), n_functions=5, n_candidates=30)
    assert [functions.n_functions(symbol) for symbol in ("Cu", "Ag")] == [5, 5]


def test_chosen_functions_are_in_reach_of_the_reference(alloy: StructureDataset) -> None:
    functions = automatic_functions(alloy, n_functions=10, n_candidates=30)
    for block in functions(collate([alloy[i] for i in range(len(alloy))])).values():
        assert block.shape[1] == 10
        assert torch.isfinite(block).all()
        assert torch.linalg.matrix_rank(block - block.mean(0)) == 10


def test_refusals(alloy: StructureDataset) -> None:
    with pytest.raises(ValueError, match="needs a cutoff, got None"):
        automatic_functions(StructureDataset(alloy.atoms))
    with pytest.raises(ValueError, match="n_functions must be positive .* got 0 and 700"):
        automatic_functions(alloy, n_functions=0)
    with pytest.raises(ValueError, match="n_candidates no smaller, got 20 and 10"):
        automatic_functions(alloy, n_functions=20, n_candidates=10)


@pytest.mark.parametrize(
    ("elements", "weighted"), [([1, 6, 7, 8], False), ([1, 6, 7, 8, 9], True), (list(range(21, 31)), True)]
)
def test_many_elements_share_their_triples(elements: list[int], weighted: bool) -> None:
    chosen = candidates(elements, 0.9, 4.0)
    triples = [function for function in chosen if isinstance(function, FourBody)]
    assert len(chosen) < 6000
    assert {function.neighbours == (ANY, ANY, ANY) for function in triples} == {weighted}
    SymmetryFunctions({chemical_symbols[z]: chosen[-5:] for z in elements}, cutoff=4.0)
