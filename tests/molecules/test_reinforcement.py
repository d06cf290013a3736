"""Policy gradients where the best model is known."""

import math

import numpy as np
import pytest

from molml.molecules.fitting import train_language
from molml.molecules.language import LanguageModel
from molml.molecules.reinforcement import reinforce
from molml.molecules.tokens import Tokenizer

WORDS = ["CO", "CCN", "CCCF"]


@pytest.fixture(scope="module")
def words():
    """Model of a language of three molecules with known frequencies."""
    return train_language(
        ["CO"] * 4 + ["CCN"] * 2 + ["CCCF"] * 2,
        minutes=5.0,
        max_epochs=300,
        hidden=16,
        batch_size=8,
        learning_rate=2e-2,
        valid_fraction=0.0,
    )


def atoms(mol):
    return float(mol.GetNumAtoms())


def run(model, score=atoms, **options):
    return reinforce(model, score, **{"budget": 40, "replay": 0, "diversity": None, "batch_size": 64, **options})


def odds(model, a="CCCF", b="CO"):
    likelihood = model.log_likelihood([a, b])
    return float(likelihood[0] - likelihood[1])


def test_the_model_becomes_the_tilted_prior(words):
    sigma, seen = 6.0, []
    result = run(words, lambda mol: seen.append(atoms(mol)) or atoms(mol), sigma=sigma, learning_rate=5e-3)
    first = seen[: result.history[0].calls]
    reward = {n: 1 / (1 + math.exp(-(n - np.mean(first)) / np.std(first))) for n in (2, 4)}
    gained, expected = odds(result.model) - odds(words), sigma * (reward[4] - reward[2])
    # what small steps on batches of 64 leave; without the anchor the gain has no limit, and the control must fail
    assert abs(gained - expected) < 0.4, (gained, expected)
    free = run(words, sigma=math.inf, learning_rate=5e-3)
    assert abs(odds(free.model) - odds(words) - expected) > 2
    assert "Stopped early" in result.found.note and result.history[-1].calls < 40


def test_other_directions_give_other_odds(words):
    more, less, middle = (run(words, direction=way, sigma=6.0, learning_rate=5e-3) for way in ("max", "min", 3.0))
    assert odds(more.model) > odds(words) + 1
    assert odds(less.model) < odds(words) - 1
    assert odds(middle.model, "CCN", "CO") > odds(words, "CCN", "CO") + 1


def test_the_given_model_is_left_alone_and_runs_follow_the_seed(words):
    before = words.log_likelihood(WORDS)
    one, two, other = (run(words, seed=seed, budget=8).model.log_likelihood(WORDS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(words.log_likelihood(WORDS), before)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_calls_are_counted_once_per_molecule(words):
    seen = []
    result = run(words, lambda mol: seen.append(mol) or atoms(mol), budget=10)
    assert len(seen) == len(result.found) == result.history[-1].calls == 10
    assert len(set(result.found.smiles)) == 10
    assert result.found.values["score"] == sorted(result.found.values["score"], reverse=True)


def test_the_budget_is_kept():
    model = LanguageModel(Tokenizer(["C", "N", "O"]), hidden=8, seed=1).eval()
    result = run(model, budget=30, replay=4)
    assert result.history[-1].calls == 30 == len(result.found)
    assert result.model.metadata["reinforcement"]["calls"] == 30
    assert result.found.note == ""
    step = result.history[0]
    assert 0 < step.valid < 1 and 0 < step.unique <= 1 and step.likelihood < 0 and step.score > 0


def test_a_scaffold_is_not_rewarded_for_ever(words):
    # all are chains, of one scaffold: nothing is rewarded after the third, and the model goes back to the prior
    assert abs(odds(run(words, diversity=3, sigma=6.0, learning_rate=5e-3).model) - odds(words)) < 0.4
    assert odds(run(words, sigma=6.0, learning_rate=5e-3).model) - odds(words) > 1


def test_molecules_are_similar_to_the_start(words):
    result = run(words, start="CCCN", similarity=0.4, direction="min")
    assert "CCN" in result.found.smiles and "CO" not in result.found.smiles
    assert all(value >= 0.4 for value in result.found.values["similarity"])
    assert odds(result.model, "CCN", "CO") > odds(words, "CCN", "CO") + 1
    assert "similar enough" in result.found.note


def test_what_has_no_score_earns_nothing(words):
    result = run(words, lambda mol: math.nan if mol.GetNumAtoms() == 4 else atoms(mol), sigma=6.0, learning_rate=5e-3)
    assert "CCCF" not in result.found.smiles
    assert odds(result.model) < odds(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 1}, "budget must be an integer of at least 2, got 1"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"replay": -1}, "replay must be"),
        ({"diversity": 0}, "diversity must be an integer of at least 1, got 0"),
        ({"seed": True}, "seed must be"),
        ({"sigma": 0.0}, "sigma must be positive, got 0"),
        ({"learning_rate": math.inf}, "learning_rate must be positive and finite, got inf"),
        ({"similarity": 1.5, "start": "CCO"}, "similarity must lie in 0…1, got 1.5"),
        ({"similarity": 0.4}, "give start"),
        ({"start": ["CCO", "CCN"]}, "start must be one molecule, got 2"),
        ({"direction": "up"}, "direction must be"),
        ({"score": "beauty"}, "score must be one of"),
        ({"score": lambda mol: 1.0}, "different scores"),
    ],
)
def test_errors_say_what_to_do(words, options, message):
    with pytest.raises(ValueError, match=message):
        run(words, **options)


def test_models_that_cannot_be_trained():
    with pytest.raises(TypeError, match="LanguageModel, got str"):
        run("druglike")
    selfies = LanguageModel(Tokenizer.from_strings(["CCO"], "selfies"), hidden=8)
    with pytest.raises(ValueError, match="must write SMILES"):
        run(selfies)
