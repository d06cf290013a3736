"""Neighbours, paths and grids in a space whose codes one can read."""

import itertools

import numpy as np
import pytest
from rdkit import Chem

from molml.molecules import exploration
from molml.molecules.exploration import interpolate, near, similarities
from tests.molecules.toys import Chains


def test_similarity_is_that_of_morgan_fingerprints():
    mol, other = Chem.MolFromSmiles("CCO"), Chem.MolFromSmiles("CCCO")
    # published definition: intersection over union of the bits set
    bits = [set(exploration._MORGAN.GetFingerprint(m).GetOnBits()) for m in (mol, other)]
    expected = len(bits[0] & bits[1]) / len(bits[0] | bits[1])
    assert similarities(mol, [other, None, mol]) == [pytest.approx(expected), None, 1.0]


def test_neighbours_come_after_the_query_by_similarity():
    found = near(Chains(), "CCCCO", 8, seed=1)
    assert found.smiles[0] == "CCCCO" and found.highlight == [0]
    assert len(found) == 9 and len(set(found.smiles)) == 9 and None not in found.smiles
    assert found.values["similarity"] == sorted(found.values["similarity"], reverse=True)
    assert found.values["similarity"] == pytest.approx(similarities(found[0], found))


def test_the_radius_grows_until_there_are_enough_and_the_note_says_so():
    few, many = near(Chains(), "CCCCO", 3), near(Chains(), "CCCCO", 20)
    assert max(few.values["distance"]) < max(many.values["distance"])
    assert "20 neighbours at radius 0.283 to" in many.note


def test_at_a_given_radius_all_points_have_that_distance():
    found = near(Chains(), "CCCCO", 4, radius=1.5)
    assert found.values["distance"] == [0.0] + [1.5] * 4
    carbon_and_oxygen = Chains().encode(list(found))
    # rounding moves each of the two numbers by at most a half
    assert (np.linalg.norm(carbon_and_oxygen - [4, 1], axis=1) <= 1.5 + 0.5**0.5).all()


def test_seeds():
    assert near(Chains(), "CCCCO", 5, seed=1).smiles == near(Chains(), "CCCCO", 5, seed=1).smiles
    runs = {tuple(near(Chains(), "CCCCCCO", 5, radius=3.0, seed=seed).smiles) for seed in range(5)}
    assert len(runs) > 1


def test_too_few_neighbours_are_no_secret():
    with pytest.warns(UserWarning, match=r"only 8 different neighbours of CCCCO were found at radius 1, 12 were asked"):
        assert len(near(Chains(), "CCCCO", 12, radius=1.0)) == 9


def test_a_query_that_is_not_reconstructed_is_said_to_be():
    assert "does not reconstruct" in near(Chains(most=4), "CCCCCO", 3).note
    assert "does not reconstruct" not in near(Chains(), "CCCCCO", 3).note


def test_path_is_straight():
    found = interpolate(Chains(), ["CCCCCC", "C"], 6, candidates=1)
    assert found.smiles == ["CCCCCC", "CCCCC", "CCCC", "CCC", "CC", "C"]
    assert found.values["to previous"][0] is None
    assert found.values["to previous"][1] == similarities(found[0], [found[1]])[0]
    assert found.highlight == [0, 5] and "6 of 6" in found.note


def test_path_through_several_has_each_once():
    found = interpolate(Chains(), ["C", "CCC", "CCCOO"], 3, candidates=1)
    assert found.smiles == ["C", "CC", "CCC", "CCCO", "CCCOO"]
    assert found.highlight == [0, 2, 4]


def test_grid_has_the_four_in_its_corners():
    found = interpolate(Chains(), ["C", "CCC", "COO", "CCCOO"], 3, candidates=1)
    assert found.smiles == ["C", "CC", "CCC", "CO", "CCO", "CCCO", "COO", "CCOO", "CCCOO"]
    assert found.columns == 3 and found.highlight == [0, 2, 6, 8]
    assert [found.values["similarity"][k] for k in found.highlight] == [1.0] * 4
    assert len(interpolate(Chains(), ["C", "CCC", "COO", "CCCOO"], 3, path=True)) == 7


def test_points_that_are_no_molecules_stay_empty():
    found = interpolate(Chains(most=2), ["C", "CCCC"], 4)
    assert found.smiles == ["C", "CC", None, None]
    assert found.values["to previous"][2:] == [None, None]
    assert "2 of 4 points are molecules" in found.note and "does not reconstruct CCCC" in found.note


def test_the_smoothest_path_is_the_best_of_all():
    rng = np.random.default_rng(3)
    texts = ["CCO", "CCN", "c1ccccc1", "CCCO", "OCCO", "Cc1ccccc1", "CC(C)O", "Oc1ccccc1"]
    for n_points in (2, 5):
        found = [[Chem.MolFromSmiles(texts[k]) for k in rng.integers(len(texts), size=4)] for _ in range(n_points)]
        found[1][2] = None

        def worth(path):
            steps = zip(path, path[1:], strict=False)
            return sum(
                exploration.MISSING
                if a is None or b is None
                else exploration.REST
                if similarities(a, [b])[0] == 1.0
                else similarities(a, [b])[0]
                for a, b in steps
            )

        chosen = exploration._smoothest(found, [list(range(n_points))])
        assert all(any(mol is other for other in each) for mol, each in zip(chosen, found, strict=True))
        every = [worth(path) for path in itertools.product(*found)]
        assert worth(chosen) == pytest.approx(max(every)) and min(every) < max(every) - 0.1
    # of a grid no single change makes it better
    square = [[0, 1], [2, 3], [0, 2], [1, 3]]
    found = [[Chem.MolFromSmiles(texts[k]) for k in rng.integers(len(texts), size=4)] for _ in range(4)]
    chosen = exploration._smoothest(found, square)
    best = sum(worth([chosen[i] for i in line]) for line in square)
    for place, mols in enumerate(found):
        for mol in mols:
            other = [mol if i == place else each for i, each in enumerate(chosen)]
            assert sum(worth([other[i] for i in line]) for line in square) < best + 1e-12


def test_candidates_make_paths_smoother():
    ends = ["CCCCCCCC", "COOO"]
    plain, again, other = (
        interpolate(Chains(std=2.0), ends, 9, candidates=k, seed=s) for k, s in ((1, 0), (1, 1), (64, 0))
    )
    assert plain.smiles == again.smiles
    assert other.smiles[0] == plain.smiles[0] and other.smiles[-1] == plain.smiles[-1]
    mean = [np.mean([value or 0.0 for value in path.values["to previous"][1:]]) for path in (plain, other)]
    assert mean[1] > mean[0] + 0.05
    assert interpolate(Chains(std=2.0), ends, 9, seed=4).smiles == interpolate(Chains(std=2.0), ends, 9, seed=4).smiles


def test_spherical_path_keeps_the_length():
    a, b = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    points = exploration.turned(a, b, np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 3.0, rtol=1e-12)
    np.testing.assert_allclose(points[[0, -1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(points[2], 3 / 2**0.5, rtol=1e-12)
    # a straight line would be shorter in the middle
    assert np.linalg.norm(exploration.straight(a, b, np.array([0.5]))) < 2.2
    assert len(interpolate(Chains(), ["CCC", "COOO"], 5, spherical=True)) == 5


@pytest.mark.parametrize(("a", "b"), [([1.0, 0.0], [2.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [1.0, 0.0])])
def test_where_there_is_no_plane_to_turn_in_the_path_is_straight(a, b):
    points = exploration.turned(np.array(a), np.array(b), np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(points[1], np.array(a) + 0.25 * (np.array(b) - np.array(a)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: near(Chains(), ["C", "CC"]), "molecule must be one molecule, got 2"),
        (lambda: near(Chains(), "C", 0), "n must be an integer of at least 1, got 0"),
        (lambda: near(Chains(), "C", seed=-1), "seed must be an integer of at least 0"),
        (lambda: near(Chains(), "C", radius=0.0), "radius must be positive and finite"),
        (lambda: near(Chains(), "this is none"), "molecule"),
        (lambda: interpolate(Chains(), ["C"]), "molecules must be at least two molecules, got 1"),
        (lambda: interpolate(Chains(), ["C", "CC"], 1), "n must be an integer of at least 2"),
        (
            lambda: interpolate(Chains(), ["C", "CC"], candidates=0),
            "candidates must be an integer of at least 1, got 0",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
