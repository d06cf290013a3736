"""Optimisation where the best molecule is known."""

import re

import numpy as np
import pytest
from rdkit import Chem

from molml.molecules import optimisation
from molml.molecules.optimisation import optimize
from tests.molecules.toys import Chains

METHODS = ["bayesian", "cma", "gradient"]


def atoms(mol):
    return float(mol.GetNumAtoms())


def search(method, **options):
    score = "heavy_atoms"
    return optimize(Chains(n_latent=4), score, "CCCO", method=method, **{"budget": 40, **options})


@pytest.mark.parametrize("method", METHODS)
def test_the_largest_molecule_is_found(method):
    found = search(method)
    # twelve carbon and three oxygen atoms are the most that decode
    assert found.score == 15 and Chem.MolToSmiles(found.best) == "C" * 12 + "OOO"
    assert found.start_score == 4


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_and_one_of_given_size(method):
    assert search(method, direction="min").score == 1
    assert search(method, direction=9.0).score == 9


@pytest.mark.parametrize("method", METHODS)
def test_budget_history_and_no_molecule_twice(method):
    found = search(method, budget=7)
    assert len(found.history) == 7
    assert len({call.smiles for call in found.history}) == 7
    assert found.history[0].smiles == "CCCO" and found.history[0].similarity == 1.0
    best = [call.best for call in found.history]
    assert best == sorted(best) and best[-1] == found.score


@pytest.mark.parametrize("method", METHODS)
def test_results_are_as_similar_as_asked_for(method):
    found = search(method, similarity=0.6)
    assert all(call.similarity >= 0.6 for call in found.history)
    assert all(value >= 0.6 for value in found.found.values["similarity"])
    assert found.score < search(method).score


@pytest.mark.parametrize("method", METHODS)
def test_never_worse_than_the_start(method):
    found = search(method, similarity=1.0)
    assert found.score == found.start_score and Chem.MolToSmiles(found.best) == "CCCO"
    assert found.found.smiles == ["CCCO"]


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_search(method):
    assert search(method, seed=5, budget=12).history == search(method, seed=5, budget=12).history


def test_other_seed_other_search():
    assert search("cma", seed=5, budget=12).history != search("cma", seed=6, budget=12).history


def test_found_molecules_are_better_than_the_start_and_in_order():
    found = search("bayesian", direction="min").found
    scores = found.values["score"]
    assert scores[0] == 4 and scores[1:] == sorted(scores[1:]) and max(scores[1:]) < 4
    assert found.highlight == [0]


@pytest.mark.parametrize("method", ["bayesian", "cma"])
def test_any_function_will_do_and_infinite_scores_are_the_worst(method):
    def score(mol):
        return float("nan") if mol.GetNumAtoms() > 8 else atoms(mol)

    assert optimize(Chains(), score, "CCCO", method=method, budget=40).score == 8


def test_search_beats_random_points():
    vae, rng = Chains(n_latent=4), np.random.default_rng(0)
    z = vae.encode([Chem.MolFromSmiles("CCCO")]) + 0.4 * rng.normal(size=(200, 4))
    assert max(atoms(mol) for mol in vae.decode(z) if mol is not None) < 9


def test_expected_improvement_is_its_integral():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 0.7, size=1_000_000)
    expected = np.maximum(draws - 0.5, 0)
    value = optimisation._expected_improvement(np.array([0.3]), np.array([0.7]), 0.5)[0]
    # five standard errors of the mean of a million draws
    assert value == pytest.approx(expected.mean(), abs=5 * expected.std() / 1000)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"score": "logp"}, ValueError, "score must be one of logP"),
        ({"score": 3}, TypeError, "score must be the name of a property or a function, got int"),
        ({"direction": "up"}, ValueError, "direction must be 'max', 'min' or a number"),
        ({"direction": float("nan")}, ValueError, "direction must be finite"),
        ({"method": "random"}, ValueError, "method must be one of gradient, bayesian, cma"),
        ({"similarity": 1.5}, ValueError, "similarity must lie in 0"),
        ({"budget": 0}, ValueError, "budget must be an integer of at least 1"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        ({"start": ["C", "CC"]}, ValueError, "start must be one molecule, got 2"),
        ({"start": "none of them"}, ValueError, "start"),
        ({"score": lambda mol: float("inf")}, ValueError, "score must be finite at the start"),
        ({"score": "logP", "method": "gradient"}, ValueError, "needs a score that the model predicts, heavy_atoms"),
        ({"score": atoms, "method": "gradient"}, ValueError, "got a function; choose method 'bayesian' or 'cma'"),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        optimize(Chains(), **{"score": "heavy_atoms", "start": "CCO", **options})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("std", [0.1, 0.4, 6.0])
def test_the_budget_is_used_wherever_the_similar_molecules_are(method, std):
    # eleven molecules are so similar; near the start there is only the start, far from it nothing
    vae = Chains(n_latent=4, std=std)
    options = {"similarity": 0.5, "method": method, "progress": False}
    found = optimize(vae, "heavy_atoms", "CCCO", budget=10, **options)
    assert len(found.history) == 10
    assert "Stopped early" not in found.found.note


@pytest.mark.parametrize("method", METHODS)
def test_a_search_that_finds_nothing_new_ends_and_says_why(method):
    found = search(method, budget=10_000, similarity=0.5)
    assert len(found.history) <= 11
    shares = re.search(
        r"Stopped early: .* (\d+)% of them were none, (\d+)% less similar .* 0.5, (\d+)% known", found.found.note
    )
    assert shares and 99 <= sum(map(int, shares.groups())) <= 101
    assert all(int(share) > 0 for share in shares.groups())


def test_a_search_that_ends_by_its_budget_does_not_say_so():
    assert "Stopped early" in search("cma", budget=10_000).found.note
    assert "Stopped early" not in search("cma", budget=5).found.note
