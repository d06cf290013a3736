import json

import numpy as np
import pandas
import pytest
import torch
from rdkit import Chem

from molml.io import ModelFileError, load_container
from molml.molecules.data import MoleculeError, as_molecules, canonical
from molml.molecules.prediction import (
    FingerprintModel,
    PropertyModel,
    cross_validate,
    fingerprints,
    random_folds,
    scaffold_folds,
)

ALKANES = ["C" * n + tail for n in range(1, 13) for tail in ("", "O", "N", "C(C)C")]
HEAVY = pandas.DataFrame({"heavy": [float(mol.GetNumHeavyAtoms()) for mol in as_molecules(ALKANES)]})
POLAR = pandas.DataFrame({"polar": [float(smiles[-1] in "ON") for smiles in ALKANES]})


@pytest.fixture(scope="module")
def heavy():
    return PropertyModel(["heavy"], width=32, n_layers=2, seed=1).fit(ALKANES, HEAVY, max_epochs=60, batch_size=16)


def test_the_model_learns_to_count_atoms(heavy):
    error = heavy.predict(ALKANES)["heavy"] - HEAVY["heavy"]
    # a model of the mean has an error of 3.5
    assert HEAVY["heavy"].std() > 3 and np.sqrt((error**2).mean()) < 0.5


def test_a_classification_gives_probabilities():
    model = PropertyModel(["polar"], kind="classification", width=32, n_layers=2).fit(ALKANES, POLAR, max_epochs=40)
    predicted = model.predict(ALKANES)["polar"]
    assert predicted.between(0, 1).all()
    assert ((predicted > 0.5) == (POLAR["polar"] == 1)).mean() > 0.9


def test_predictions_do_not_depend_on_the_spelling_or_the_batch(heavy):
    [mol] = as_molecules("CCCCC(C)(C)C=O")
    spellings = Chem.MolToRandomSmilesVect(mol, 10, randomSeed=0)
    values = heavy.predict(spellings)["heavy"].to_numpy()
    # sums of float32 in another order
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    np.testing.assert_allclose(heavy.predict(["CCCCC(C)(C)C=O", "C"])["heavy"][0], values[0], rtol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    def weights(seed):
        model = PropertyModel(["heavy"], width=8, n_layers=1, seed=seed).fit(ALKANES, HEAVY, max_epochs=2)
        return model.predict(ALKANES).to_numpy()

    np.testing.assert_array_equal(weights(3), weights(3))
    assert (weights(3) != weights(4)).any()


def test_unknown_values_are_left_out():
    both = pandas.concat([HEAVY, POLAR * np.nan], axis=1)
    both.loc[:3, "polar"] = 2.0
    model = PropertyModel(["polar", "heavy"], width=16, n_layers=1).fit(ALKANES, both, max_epochs=3)
    predicted = model.predict(ALKANES)
    assert list(predicted.columns) == ["polar", "heavy"] and np.isfinite(predicted.to_numpy()).all()
    # the mean of what is known, and no spread
    assert float(model.mean[0]) == 2.0 and float(model.std[0]) == 1.0


def test_values_may_be_an_array_and_nothing_held_out():
    model = PropertyModel(["heavy"], width=8, n_layers=1)
    assert model.fit(ALKANES, HEAVY.to_numpy(), max_epochs=1, valid_fraction=0) is model
    assert model.predict([]).shape == (0, 1)


def test_a_saved_model_predicts_the_same(heavy, tmp_path):
    heavy.save(tmp_path / "model.molml", {"licence": "CC0-1.0"})
    again = PropertyModel.from_container(load_container(tmp_path / "model.molml"))
    np.testing.assert_array_equal(again.predict(ALKANES), heavy.predict(ALKANES))
    assert again.metadata["licence"] == "CC0-1.0" and again.config == json.loads(json.dumps(heavy.config))


def test_a_file_without_its_weights_is_refused(heavy, tmp_path):
    heavy.save(tmp_path / "model.molml")
    container = load_container(tmp_path / "model.molml")
    del container.tensors["mean"]
    with pytest.raises(ModelFileError, match="does not hold a whole PropertyModel"):
        PropertyModel.from_container(container)


def test_gradients_reach_every_weight_that_matters():
    model = PropertyModel(["heavy"], width=8, n_layers=2)
    model.fit(ALKANES, HEAVY, max_epochs=1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.fit(ALKANES, HEAVY, max_epochs=2, learning_rate=1e-2)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert {"encoder.atoms.weight", "encoder.bonds.0.weight", "encoder.head.0.weight"} <= changed


@pytest.mark.parametrize("model", [FingerprintModel(["heavy"]), PropertyModel(["heavy"], width=8, n_layers=1)])
def test_wrong_values_are_refused(model):
    with pytest.raises(ValueError, match=r"row per molecule and a column per name, \(48, 1\), got \(47, 1\)"):
        model.fit(ALKANES, HEAVY[:-1])
    with pytest.raises(ValueError, match=r"must have the column 'heavy', got \['polar'\]"):
        model.fit(ALKANES, POLAR)
    with pytest.raises(ValueError, match="finite or NaN, and every property known"):
        model.fit(ALKANES, HEAVY * np.nan)
    with pytest.raises(ValueError, match="finite or NaN"):
        model.fit(ALKANES, HEAVY.replace(1.0, np.inf))
    with pytest.raises(MoleculeError, match=r"molecules\[0\]"):
        model.fit(["C("], HEAVY[:1])


def test_a_classification_takes_zeros_and_ones():
    with pytest.raises(ValueError, match="must be 0, 1 or NaN"):
        PropertyModel(["heavy"], kind="classification").fit(ALKANES, HEAVY)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"names": "heavy"}, "names must be a list of different names"),
        ({"names": []}, "names must be a list"),
        ({"names": ["a", "a"]}, "names must be a list"),
        ({"kind": "ranking"}, "kind must be 'regression' or 'classification', got 'ranking'"),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
        ({"n_layers": 1.5}, "n_layers must be an integer of at least 1, got 1.5"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_wrong_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PropertyModel(**{"names": ["heavy"], **options})


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_to_hold_out_is_checked(fraction):
    with pytest.raises(ValueError, match="valid_fraction must lie in"):
        PropertyModel(["heavy"]).fit(ALKANES, HEAVY, valid_fraction=fraction)


def test_fingerprints_count_fragments():
    ethane, propane = np.expm1(fingerprints(["CC", "CCC"]))
    assert ethane.sum() == pytest.approx(3) and sorted(set(propane.round().astype(int))) == [0, 1, 2]
    assert fingerprints("C", n_bits=128).shape == (1, 128) and fingerprints([]).shape == (0, 2048)


def test_the_baseline_learns_the_polar_ones_and_not_noise():
    model = FingerprintModel(["polar"], kind="classification").fit(ALKANES, POLAR)
    assert ((model.predict(ALKANES)["polar"] > 0.5) == (POLAR["polar"] == 1)).mean() > 0.9
    noise = pandas.DataFrame({"polar": np.random.default_rng(0).permutation(POLAR["polar"])})
    folds = random_folds(len(noise))
    areas = [
        cross_validate(
            lambda fold: FingerprintModel(["polar"], kind="classification"), ALKANES, y, folds, kind="classification"
        )["roc_auc"].mean()
        for y in (POLAR, noise)
    ]
    assert areas[0] > 0.95 > 0.8 > areas[1]


def test_the_baseline_needs_both_classes_and_a_fit():
    rare = pandas.DataFrame({"polar": [1.0, 1.0] + [0.0] * 46})
    with pytest.raises(ValueError, match="three molecules of either class in every column, got 2"):
        FingerprintModel(["polar"], kind="classification").fit(ALKANES, rare)
    with pytest.raises(ValueError, match="must be fitted"):
        FingerprintModel(["polar"]).predict(ALKANES)
    with pytest.raises(ValueError, match="kind must be"):
        FingerprintModel(["polar"], kind="both")


def test_folds_by_chance_are_equal_and_depend_on_the_seed():
    folds = random_folds(13, 4, seed=1)
    assert sorted(np.bincount(folds)) == [3, 3, 3, 4]
    np.testing.assert_array_equal(folds, random_folds(13, 4, seed=1))
    assert (folds != random_folds(13, 4, seed=2)).any()


def test_no_scaffold_is_in_two_folds():
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "c1ccoc1", "C1CC1", "c1ccc2ccccc2c1"]
    mols = [tail + ring for ring in rings for tail in ("", "C", "CC", "N", "O[C@H](C)")] + ["CC", "CCO"]
    folds = scaffold_folds(mols, 3)
    blocks = folds[:30].reshape(6, 5)
    assert (blocks == blocks[:, :1]).all()
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 5
    # the control: folds by chance do part molecules with one scaffold
    by_chance = random_folds(len(mols), 3)[:30].reshape(6, 5)
    assert (by_chance != by_chance[:, :1]).any()


@pytest.mark.parametrize("n_folds", [1, 4])
def test_folds_are_checked(n_folds):
    with pytest.raises(ValueError, match="n_folds must lie in 2 … 3, the number of molecules"):
        random_folds(3, n_folds)
    with pytest.raises(ValueError, match="n_folds must lie in 2 … 3, the number of scaffolds"):
        scaffold_folds(["C", "CC", "CCC", "C"], n_folds)


class Mean:
    """Predicts the mean of what it was fitted to."""

    def fit(self, mols, values):
        self.seen, self.means = [canonical(mol) for mol in mols], values.mean()
        return self

    def predict(self, mols):
        assert not {canonical(mol) for mol in mols} & set(self.seen)
        return pandas.DataFrame([self.means] * len(mols))


def test_errors_of_the_mean_are_those_computed_by_hand():
    values = pandas.DataFrame({"y": [0.0, 2.0, 5.0, 9.0, np.nan]})
    table = cross_validate(lambda fold: Mean(), ["C", "CC", "CCC", "CCCC", "O"], values, np.array([0, 0, 1, 1, 1]))
    # fold 0 is predicted as 7, fold 1 as 1
    assert table["mae"].tolist() == [6.0, 6.0]
    np.testing.assert_allclose(table["rmse"], [np.sqrt((49 + 25) / 2), np.sqrt((16 + 64) / 2)])


@pytest.mark.parametrize("folds", [[0, 1], [0, 0, 2], [1, 1, 2]])
def test_folds_that_do_not_fit_are_refused(folds):
    values = pandas.DataFrame({"y": [0.0, 1.0, 2.0]})
    with pytest.raises(ValueError, match="folds must be a number per molecule"):
        cross_validate(lambda fold: Mean(), ["C", "CC", "CCC"], values, np.array(folds))


def test_a_fold_without_a_known_value_is_refused():
    values = pandas.DataFrame({"y": [0.0, 1.0, np.nan]})
    with pytest.raises(ValueError, match="got fold 1 without"):
        cross_validate(lambda fold: Mean(), ["C", "CC", "CCC"], values, np.array([0, 0, 1]))
