"""Evaluation against labels that are wrong by known amounts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy.calculator import Calculator
from molml.energy.data import StructureDataset
from molml.energy.metrics import evaluate, uncertainty_metrics


def labelled(
    potential, atoms: Atoms, *, energy=0.0, forces=0.0, stress=0.0, only=("energy", "forces", "stress")
) -> Atoms:
    """The potential's own labels, changed by the given amounts."""
    calculator = Calculator(potential, on_extrapolation="ignore")
    calculator.calculate(atoms)
    changes = {"energy": energy, "forces": forces, "stress": stress}
    atoms.calc = SinglePointCalculator(
        atoms, **{name: calculator.results[name] + changes[name] for name in only if name in calculator.results}
    )
    return atoms


def crystal(seed: int, symbols: str = "Ar4", *, noise: float = 0.2, a: float = 5.3) -> Atoms:
    atoms = bulk("Ar", "fcc", a, cubic=True)
    atoms.symbols[:] = Atoms(symbols).symbols
    atoms.rattle(noise, seed=seed)
    return atoms


@pytest.fixture
def potential(lennard_jones):
    return lennard_jones(["Ar", "Kr"], closest=0.5, furthest=50.0)


def test_an_exact_potential_has_no_errors(potential):
    dataset = StructureDataset([labelled(potential, crystal(k, "Ar2Kr2")) for k in range(4)])
    evaluation = evaluate(potential, dataset)
    errors = [
        evaluation.metrics[f"{q}_{kind}"] for q in ("energy", "forces", "stress") for kind in ("rmse", "mae", "max")
    ]
    assert max(errors) < 1e-13
    counts = {key: value for key, value in evaluation.metrics.items() if key.startswith("n_")}
    assert counts == {"n_structures": 4, "n_atoms": 16, "n_energy": 4, "n_forces": 16, "n_stress": 4}


def test_errors_are_those_put_in(potential):
    # energies off by 0.04 and -0.08 eV in 4 atoms, one force component of 12 off by 0.6, one stress of 6 by 0.03
    forces, stress = np.zeros((4, 3)), np.zeros(6)
    forces[2, 1], stress[4] = 0.6, 0.03
    frames = [
        labelled(potential, crystal(0), energy=0.04),
        labelled(potential, crystal(1), energy=-0.08, forces=forces, stress=stress),
    ]
    metrics = evaluate(potential, StructureDataset(frames)).metrics
    expected = {
        "energy_rmse": np.sqrt((0.01**2 + 0.02**2) / 2),
        "energy_mae": 0.015,
        "energy_max": 0.02,
        "forces_rmse": 0.6 / np.sqrt(24),
        "forces_mae": 0.6 / 24,
        "forces_max": 0.6,
        "stress_rmse": 0.03 / np.sqrt(12),
        "stress_mae": 0.03 / 12,
        "stress_max": 0.03,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def test_energies_count_per_atom_whatever_the_size(potential):
    frames = [labelled(potential, crystal(0), energy=0.4), labelled(potential, crystal(0) * (2, 1, 1), energy=0.8)]
    metrics = evaluate(potential, StructureDataset(frames)).metrics
    assert metrics["energy_rmse"] == pytest.approx(0.1, rel=1e-9)
    assert metrics["energy_mae"] == pytest.approx(0.1, rel=1e-9)


def test_only_labels_that_exist_are_compared(potential):
    frames = [
        labelled(potential, crystal(0), energy=0.4, forces=1.0, only=["energy"]),
        labelled(potential, crystal(1), energy=0.4, forces=1.0, only=["forces"]),
    ]
    evaluation = evaluate(potential, StructureDataset(frames))
    metrics = evaluation.metrics
    assert (metrics["n_energy"], metrics["n_forces"], metrics["n_stress"]) == (1, 4, 0)
    assert metrics["energy_rmse"] == pytest.approx(0.1)
    assert metrics["forces_rmse"] == pytest.approx(1.0)
    assert not [key for key in metrics if key.startswith("stress")]
    rows = {row["source"]: row for row in evaluation.worst}
    assert rows["structures[0]"]["forces_rmse"] is None and rows["structures[0]"]["atom"] is None
    assert rows["structures[1]"]["energy_error"] is None


def test_energies_alone_need_no_forces_of_the_potential(potential, monkeypatch):
    frames = [labelled(potential, crystal(0), energy=0.4, only=["energy"])]
    asked = []
    predict = potential.predict
    monkeypatch.setattr(
        potential, "predict", lambda batch, **options: asked.append(options) or predict(batch, **options)
    )
    evaluate(potential, StructureDataset(frames))
    assert asked == [{"forces": False, "stress": False}]


def test_errors_by_element(potential):
    forces = np.array([[0.1] * 3, [0.1] * 3, [0.3] * 3, [0.5] * 3])
    dataset = StructureDataset([labelled(potential, crystal(0, "Ar2Kr2"), forces=forces)])
    elements = evaluate(potential, dataset).elements
    assert elements["Ar"]["forces_rmse"] == pytest.approx(0.1)
    assert elements["Kr"]["forces_rmse"] == pytest.approx(np.sqrt((0.09 + 0.25) / 2))
    assert elements["Kr"]["forces_mae"] == pytest.approx(0.4)
    assert elements["Kr"]["n_forces"] == 2


def test_errors_by_group(potential):
    frames = [labelled(potential, crystal(k), energy=0.4 * k) for k in range(3)]
    for atoms, name in zip(frames, ["bulk", "surface", "surface"], strict=True):
        atoms.info["group"] = name
    groups = evaluate(potential, StructureDataset(frames)).groups
    assert set(groups) == {"bulk", "surface"}
    assert groups["surface"]["energy_mae"] == pytest.approx(0.15)
    assert groups["surface"]["n_structures"] == 2


def test_the_worst_structures_come_first_with_file_and_frame(potential, tmp_path):
    import ase.io

    frames = [labelled(potential, crystal(k), energy=0.01 * (k == 3), forces=0.1 * (k == 1)) for k in range(5)]
    ase.io.write(tmp_path / "data.xyz", frames, format="extxyz")
    worst = evaluate(potential, StructureDataset(tmp_path / "data.xyz"), n_worst=3).worst
    assert [Path(row["source"]).name for row in worst[:2]] in (
        ["data.xyz:3", "data.xyz:1"],
        ["data.xyz:1", "data.xyz:3"],
    )
    assert len(worst) == 3
    assert worst[0]["formula"] == "Ar4"


def remarks(potential, frames, index):
    rows = evaluate(potential, StructureDataset(frames), n_worst=len(frames)).worst
    return next(row["odd"] for row in rows if row["source"] == f"structures[{index}]")


def test_what_is_odd_is_said(potential):
    frames = [labelled(potential, crystal(k), forces=0.01 * (-1.0) ** np.arange(4)[:, None]) for k in range(100)]
    squeezed = crystal(0, a=4.6, noise=0.0)
    squeezed.positions[0] += 0.9
    frames[7] = labelled(potential, squeezed, forces=np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))
    frames[8] = labelled(potential, crystal(8, "Ar2Kr2"))
    text = remarks(potential, frames, 7)
    assert "of the force error is on atom 0 (Ar)" in text
    assert "reference forces add up to 1 eV/Å instead of 0" in text
    assert "shortest distances" in text
    assert "largest reference forces" in text
    assert "densest of the set" in text
    assert "only 1 of 100 structures consist of Ar-Kr" in remarks(potential, frames, 8)
    # the control: an ordinary structure has nothing odd about it
    assert remarks(potential, frames, 20) == ""


def test_worst_structures_that_extrapolate_say_so(lennard_jones):
    potential = lennard_jones(closest=3.4, furthest=3.9)
    frames = [labelled(potential, Atoms("Ar2", [[0, 0, 0], [0, 0, r]])) for r in (3.3, 3.5, 5.9)]
    assert remarks(potential, frames, 0) == "2 of 2 atoms outside the training range, atom 0 (Ar) by 20 % of its width"
    assert remarks(potential, frames, 1) == ""
    assert remarks(potential, frames, 2).endswith("atom 0 (Ar) by 4 times its width")


def test_lonely_and_dilute_atoms_are_odd(potential):
    frames = [labelled(potential, crystal(k)) for k in range(60)]
    wide = crystal(0, a=40.0)
    frames[5] = labelled(potential, wide)
    text = remarks(potential, frames, 5)
    assert "least dense" in text
    assert "without neighbours" in text
    half = crystal(0) * (1, 1, 2)
    half.cell[2] *= 3
    frames[5] = labelled(potential, half)
    assert "neighbours within the cutoff" in remarks(potential, frames, 5)


def test_batches_do_not_change_the_numbers(potential):
    dataset = StructureDataset([labelled(potential, crystal(k, "Ar3Kr"), energy=0.1, forces=0.1) for k in range(7)])
    together, alone = evaluate(potential, dataset), evaluate(potential, dataset, batch_atoms=1)
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-10)
    np.testing.assert_allclose(together.forces, alone.forces, rtol=0, atol=1e-12)
    assert [row["source"] for row in together.worst] == [row["source"] for row in alone.worst]


def test_batches_are_bounded(potential, monkeypatch):
    dataset = StructureDataset([labelled(potential, crystal(k)) for k in range(7)])
    sizes = []
    predict = potential.predict
    monkeypatch.setattr(
        potential, "predict", lambda batch, **options: sizes.append(len(batch.numbers)) or predict(batch, **options)
    )
    evaluate(potential, dataset, batch_atoms=9)
    assert sizes == [8, 8, 8, 4]


def test_the_data_sets_own_cutoff_does_not_matter(potential):
    frames = [labelled(potential, crystal(k)) for k in range(2)]
    metrics = evaluate(potential, StructureDataset(frames, cutoff=3.0)).metrics
    assert metrics["forces_rmse"] < 1e-13


def test_committees_leave_their_deviations(lennard_jones):
    potential = lennard_jones(std=True)
    dataset = StructureDataset([labelled(potential, crystal(k)) for k in range(2)])
    evaluation = evaluate(potential, dataset)
    np.testing.assert_allclose(evaluation.energy_std, 0.1 * np.abs(evaluation.energy))
    np.testing.assert_allclose(evaluation.forces_std, 0.1 * np.abs(evaluation.forces))


def test_the_summary_is_json_without_nan(potential):
    frames = [labelled(potential, crystal(0), only=["energy"]), labelled(potential, Atoms("Kr"), only=["energy"])]
    evaluation = evaluate(potential, StructureDataset(frames))
    text = json.dumps(evaluation.summary(), allow_nan=False)
    assert set(json.loads(text)) == {"metrics", "elements", "groups", "worst"}


def test_molecules_are_evaluated(potential):
    frames = [labelled(potential, Atoms("Ar2", [[0, 0, 0], [0, 0, 3.5 + 0.1 * k]]), energy=0.2) for k in range(3)]
    metrics = evaluate(potential, StructureDataset(frames)).metrics
    assert metrics["energy_mae"] == pytest.approx(0.1)
    assert "stress_mae" not in metrics


# refusals


def test_unknown_elements_are_refused_with_the_frame(potential):
    dataset = StructureDataset([labelled(potential, crystal(k)) for k in range(2)])
    frames = dataset.atoms
    frames[1].symbols[2] = "Cl"
    frames[1].calc = SinglePointCalculator(frames[1], energy=0.0)
    with pytest.raises(ValueError, match=r"structures\[1\] holds Cl.*knows Ar, Kr"):
        evaluate(potential, StructureDataset(frames))


@pytest.mark.parametrize(("name", "options"), [("batch_atoms", {"batch_atoms": 0}), ("n_worst", {"n_worst": -1})])
def test_options_are_checked(potential, name, options):
    dataset = StructureDataset([labelled(potential, crystal(0))])
    with pytest.raises(ValueError, match=name):
        evaluate(potential, dataset, **options)


@pytest.mark.parametrize("field", ["energy", "forces", "stress"])
def test_a_broken_prediction_names_the_structure(potential, monkeypatch, field):
    dataset = StructureDataset([labelled(potential, crystal(k)) for k in range(3)])
    predict = potential.predict

    def broken(batch, **options):
        prediction = predict(batch, **options)
        values = getattr(prediction, field).clone()
        values[-1] = torch.nan
        return prediction._replace(**{field: values})

    monkeypatch.setattr(potential, "predict", broken)
    with pytest.raises(ValueError, match=rf"potential gave {field} of structures\[2\] that are not finite"):
        evaluate(potential, dataset)


def test_no_structures_are_refused(potential):
    with pytest.raises(ValueError, match="at least one structure"):
        evaluate(potential, [])


def test_uncertainties_that_tell_of_errors_and_such_that_do_not():
    rng = np.random.default_rng(0)
    deviations = np.exp(rng.normal(size=(20_000, 1))) * np.ones((1, 3))
    found = uncertainty_metrics("forces", deviations * rng.normal(size=(20_000, 3)), deviations)
    assert found["forces_within_1_std"] == pytest.approx(0.683, abs=0.01)
    assert found["forces_within_2_std"] == pytest.approx(0.954, abs=0.01)
    assert found["forces_spearman"] > 0.7
    blind = uncertainty_metrics("forces", rng.normal(size=(20_000, 3)), deviations)
    assert abs(blind["forces_spearman"]) < 0.03
    # ranks need something to rank
    assert "energy_spearman" not in uncertainty_metrics("energy", np.ones(5), np.arange(5.0))
    assert uncertainty_metrics("energy", np.zeros(0), np.zeros(0)) == {}
