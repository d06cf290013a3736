"""The command line, with a fit that costs nothing: what is written, printed and refused."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

import molml
from molml.cli import main
from molml.energy.calculator import Calculator
from molml.energy.features import G2, SymmetryFunctions
from molml.energy.model import Committee, FeatureStatistics, LinearPotential


def make_potential(symbols=("Ar",), *, slope: float = 0.1) -> LinearPotential:
    """Every neighbour costs an energy that falls with its distance; the training range is wide."""
    functions = SymmetryFunctions({s: [G2(t, 0.3, 0.0) for t in symbols] for s in symbols}, cutoff=5.0)
    ones = [torch.ones(len(symbols), dtype=torch.float64) for _ in symbols]
    statistics = FeatureStatistics([0 * x for x in ones], ones, [0 * x for x in ones], [100 * x for x in ones])
    return LinearPotential(functions, [slope * x for x in ones], [-1.0] * len(symbols), statistics)


def write_data(path, n: int = 12, *, seed: int = 0, energy: float = 0.0, name: str = "energy") -> str:
    frames = []
    for k in range(n):
        atoms = bulk("Ar", "fcc", 5.0, cubic=True)
        atoms.rattle(0.1, seed=seed + k)
        calculator = Calculator(make_potential(), on_extrapolation="ignore")
        calculator.calculate(atoms)
        labels = {key: calculator.results[key] for key in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels | {"energy": labels["energy"] + 4 * energy})
        if name != "energy":
            atoms.info[name], atoms.arrays["my_forces"] = labels["energy"], labels["forces"]
            atoms.calc = None
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return str(path)


@pytest.fixture
def fits(monkeypatch):
    """Calls of a fit that returns the potential which the labels were made with."""
    calls = []

    def fit(train, valid=None, **settings):
        calls.append(settings | {"train": train, "valid": valid})
        if int(os.environ.get("RANK", "0")) == 0:
            line = {"epoch": 1, "train_objective": 1.0, "train_forces_rmse": 0.1, "valid_forces_rmse": 0.2}
            (settings["directory"] / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            (settings["directory"] / "checkpoint.molml").write_text("a checkpoint")
        return make_potential()

    stub = types.ModuleType("molml.energy.fitting")
    stub.fit, stub.VALID_FRACTION = fit, 0.1
    monkeypatch.setitem(sys.modules, "molml.energy.fitting", stub)
    return calls


@pytest.fixture
def quick(monkeypatch):
    """Reports without their figures."""
    from molml.energy.report import write_metrics

    monkeypatch.setattr(
        "molml.energy.report.write_report",
        lambda directory, potential, evaluations, **_: write_metrics(directory / "metrics.json", evaluations),
    )


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data.xyz")


@pytest.fixture
def model(tmp_path):
    make_potential().save(tmp_path / "model.molml")
    return str(tmp_path / "model.molml")


def test_a_fit_writes_everything_and_says_what_is_next(fits, data, tmp_path, capsys):
    test = write_data(tmp_path / "test.xyz", 3, seed=100, energy=0.01)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--test", test]) == 0
    written = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"model.molml", "metrics.json", "metrics.jsonl", "report.html", "learning_curve_forces.png"} <= written
    assert ".lock" not in written
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == {"train", "valid", "test"}
    assert metrics["train"]["n_structures"] == 11 and metrics["valid"]["n_structures"] == 1
    assert metrics["test"]["energy_mae"] == pytest.approx(0.01, abs=1e-6)
    assert metrics["test"]["forces_mae"] < 1e-6
    potential = molml.load(tmp_path / "run" / "model.molml")
    assert potential.metadata["metrics"] == metrics
    output = capsys.readouterr().out
    assert "train  11 structures" in output
    assert "RMSE / MAE" in output and "10.0 / 10.0" in output
    assert f"next: molml energy md {tmp_path}/run/model.molml STRUCTURE" in output


def test_options_reach_the_fit(fits, quick, data, tmp_path):
    valid = write_data(tmp_path / "valid.xyz", 2, seed=50)
    options = [
        "--model",
        "linear",
        "--members",
        "3",
        "--minutes",
        "1.5",
        "--epochs",
        "7",
        "--seed",
        "5",
        "--cutoff",
        "4.5",
        "--n-functions",
        "20",
        "--hidden",
        "8",
        "4",
        "--memory",
        "0.5",
        "--derivatives",
        "keep",
        "--no-guard",
    ]
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--valid", valid, *options]) == 0
    (call,) = fits
    assert (len(call["train"]), len(call["valid"])) == (12, 2)
    assert call["train"].cutoff == call["valid"].cutoff == 4.5
    expected = {"model": "linear", "members": 3, "minutes": 1.5, "epochs": 7, "seed": 5, "resume": False}
    expected |= {"n_functions": 20, "hidden": (8, 4), "memory": 0.5, "derivatives": "keep", "guard": False}
    assert {name: call[name] for name in expected} == expected


def test_few_structures_are_not_split(fits, quick, tmp_path):
    data = write_data(tmp_path / "few.xyz", 4)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run")]) == 0
    assert fits[0]["valid"] is None
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())) == {"train"}


def test_labels_under_other_names(fits, quick, tmp_path, capsys):
    data = write_data(tmp_path / "other.xyz", name="my_energy")
    keys = ["--energy-key", "my_energy", "--forces-key", "my_forces", "--stress-key", "none"]
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), *keys]) == 0
    assert bool(fits[0]["train"][0].has_forces.all())
    assert not bool(fits[0]["train"][0].has_stress.any())


def test_a_linear_potential_takes_all_structures_and_leaves_a_line_of_metrics(fits, quick, data, tmp_path, monkeypatch):
    fit = sys.modules["molml.energy.fitting"].fit

    def linear(train, valid=None, **settings):
        potential = fit(train, valid, **settings)
        (settings["directory"] / "metrics.jsonl").unlink()
        return potential

    monkeypatch.setattr(sys.modules["molml.energy.fitting"], "fit", linear)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--model", "linear"]) == 0
    assert len(fits[0]["train"]) == 12 and fits[0]["valid"] is None
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"epoch", "train_energy_rmse", "train_forces_rmse", "train_stress_rmse"}


def test_the_histories_of_a_committee_are_joined(fits, quick, data, tmp_path, monkeypatch):
    fit = sys.modules["molml.energy.fitting"].fit

    def committee(train, valid=None, **settings):
        for k in range(1, 11):
            folder = settings["directory"] / f"member-{k}"
            folder.mkdir()
            fit(train, valid, **settings | {"directory": folder})
        return make_potential()

    monkeypatch.setattr(sys.modules["molml.energy.fitting"], "fit", committee)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--members", "10"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["member"] for line in lines] == list(range(1, 11))


@pytest.mark.filterwarnings("default")
def test_structures_in_two_sets_are_warned_about(fits, quick, data, tmp_path, capsys):
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--test", data]) == 0
    error = capsys.readouterr().err
    assert "12 of 12 test structures are training structures, too (the first is " in error and "data.xyz:0" in error
    other = write_data(tmp_path / "other.xyz", 2, seed=77)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "other"), "--test", other]) == 0
    assert capsys.readouterr().err == ""


def test_elements_without_training_structures_are_refused_before_the_fit(fits, data, tmp_path, capsys):
    frames = ase.io.read(data, ":")
    frames[1].symbols[2] = "Kr"
    frames[1].calc = SinglePointCalculator(frames[1], energy=0.0)
    ase.io.write(tmp_path / "krypton.xyz", frames[:2])
    command = ["energy", "fit", data, "--output", str(tmp_path / "run"), "--test", str(tmp_path / "krypton.xyz")]
    assert main(command) == 1
    assert "the test structures hold Kr, which no training structure does" in capsys.readouterr().err
    assert not fits


def test_threads_are_set(fits, quick, data, tmp_path):
    before = torch.get_num_threads()
    try:
        assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), "--threads", "2"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# saved work


def test_a_finished_run_is_neither_overwritten_nor_lost(fits, quick, data, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["energy", "fit", data, "--output", str(run)]
    assert main(command) == 0
    first = (run / "model.molml").read_bytes()
    assert main(command) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert len(fits) == 1
    assert (run / "model.molml").read_bytes() == first
    assert main([*command, "--overwrite"]) == 0
    assert (run / "previous-1" / "model.molml").read_bytes() == first
    assert not fits[1]["resume"]
    assert main([*command, "--resume"]) == 0
    assert fits[2]["resume"]
    assert (run / "checkpoint.molml").read_text() == "a checkpoint"


def test_the_model_survives_a_failing_report(fits, data, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("molml.energy.report.write_report", fail)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run")]) == 1
    assert molml.load(tmp_path / "run" / "model.molml").elements == [18]


def test_an_interrupted_fit_frees_the_folder(fits, data, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt("stopped; continue with --resume")

    monkeypatch.setattr(sys.modules["molml.energy.fitting"], "fit", interrupted)
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run")]) == 130
    assert list((tmp_path / "run").iterdir()) == []


def test_two_writers_are_refused(fits, quick, data, tmp_path, capsys):
    code = (
        "import sys, time; from molml.training.directory import run_directory\n"
        "with run_directory(sys.argv[1]): print('locked', flush=True); time.sleep(60)"
    )
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        assert main(["energy", "fit", data, "--output", str(run)]) == 1
        assert f"being written to by process {other.pid}" in capsys.readouterr().err
        other.send_signal(signal.SIGKILL)
    assert main(["energy", "fit", data, "--output", str(run)]) == 0


def test_only_the_first_of_several_processes_writes(fits, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""
    assert len(fits) == 1


# refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members", "0"], "--members must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--minutes", "-1"], "--minutes must be positive, got -1"),
        (["--cutoff", "0"], "--cutoff must be a positive length"),
        (["--n-functions", "0"], "--n-functions must be at least 1, got 0"),
        (["--memory", "0"], "--memory must be positive (GB), got 0"),
        (["--hidden", "8", "0"], "--hidden must be widths of at least 1, got 0"),
        (["--seed", "-1"], "--seed must be zero or positive"),
        (["--cluster", "tcp://127.0.0.1:9"], "--cluster computes the members of a committee; give --members"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--energy-key", "total"], "total"),
        (["--valid", "nowhere.xyz"], "nowhere.xyz"),
    ],
)
def test_wrong_options_are_one_line(fits, data, tmp_path, capsys, options, message):
    assert main(["energy", "fit", data, "--output", str(tmp_path / "run"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("molml: error: ") and error.count("\n") == 1
    assert not fits


@pytest.mark.parametrize(
    "line", [[], ["fit"], ["fit", "x"], ["md", "m"], ["fit", "x", "--output", "y", "--model", "deep"]]
)
def test_wrong_command_lines_end_with_status_2(line):
    with pytest.raises(SystemExit) as stop:
        main(["energy", *line])
    assert stop.value.code == 2


# evaluate


def test_evaluate_prints_errors_and_the_worst(model, tmp_path, capsys):
    data = write_data(tmp_path / "data.xyz", 5, energy=0.02)
    assert main(["energy", "evaluate", model, data]) == 0
    output = capsys.readouterr().out
    assert "data.xyz" in output and "20.0 / 20.0" in output and "stress GPa" in output
    assert "data.xyz:0 Ar4: energy -20 meV/atom" in output
    assert {file.name for file in tmp_path.iterdir()} == {"data.xyz", "model.molml"}


def test_evaluate_writes_a_report_where_there_is_none(model, data, tmp_path, capsys):
    assert main(["energy", "evaluate", model, data, "--output", str(tmp_path / "out")]) == 0
    assert set(json.loads((tmp_path / "out" / "metrics.json").read_text())) == {"test"}
    assert (tmp_path / "out" / "report.html").exists()
    assert main(["energy", "evaluate", model, data, "--output", str(tmp_path / "out")]) == 1
    assert "already holds metrics.json and report.html; choose another folder" in capsys.readouterr().err
    assert main(["energy", "evaluate", model, data, "--output", str(tmp_path / "out"), "--overwrite"]) == 0
    assert (tmp_path / "out" / "previous-1" / "report.html").exists()


def test_evaluate_refuses_what_is_no_potential(data, tmp_path, capsys):
    (tmp_path / "x.molml").write_text("nothing")
    assert main(["energy", "evaluate", str(tmp_path / "x.molml"), data]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["energy", "evaluate", data, data, "--threads", "0"]) == 1


def test_other_models_are_no_potentials(model, data, monkeypatch, capsys):
    monkeypatch.setattr(molml, "load", lambda path: {})
    assert main(["energy", "evaluate", model, data]) == 1
    assert "must hold a potential, got a dict" in capsys.readouterr().err


# info


def test_info_tells_what_the_model_is(tmp_path, capsys):
    potential = make_potential(["Ar", "Kr"])
    potential.metadata["metrics"] = {"test": {"energy_rmse": 0.0012, "energy_mae": 0.001, "n_structures": 7}}
    potential.metadata["data"] = {"hash": "abc", "sizes": [1, 2]}
    potential.save(tmp_path / "m.molml")
    assert main(["energy", "info", str(tmp_path / "m.molml")]) == 0
    output = capsys.readouterr().out
    for text in ("LinearPotential", "Ar, Kr", "5 Å", "Ar 2, Kr 2", "hash abc, sizes 1, 2", "1.20 / 1.00"):
        assert text in output
    assert main(["energy", "info", str(tmp_path / "m.molml"), "--functions"]) == 0
    assert "G2(Kr, eta=0.3)" in capsys.readouterr().out


def test_info_of_a_committee(tmp_path, capsys):
    Committee([make_potential(), make_potential(slope=0.2)]).save(tmp_path / "m.molml")
    assert main(["energy", "info", str(tmp_path / "m.molml")]) == 0
    assert "Committee(2" in capsys.readouterr().out


# md


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_dynamics_are_run_and_written(model, data, tmp_path, capsys, ensemble):
    options = ["--steps", "20", "--timestep", "2", "--temperature", "50", "--ensemble", ensemble, "--index", "-1"]
    assert main(["energy", "md", model, data, *options, "--output", str(tmp_path / "t.xyz")]) == 0
    assert len(ase.io.read(tmp_path / "t.xyz", ":")) == 3
    output = capsys.readouterr().out
    assert ("drift of the total energy" in output) == (ensemble == "nve")
    assert "no atom left the range of the training data" in output
    assert "3 frames" in output
    assert main(["energy", "md", model, data, *options, "--output", str(tmp_path / "t.xyz")]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_extrapolation_is_reported_once_and_summed_up(tmp_path, data, capsys):
    potential = make_potential()
    potential.high_0[:] = 1e-3
    potential.save(tmp_path / "narrow.molml")
    command = [
        "energy",
        "md",
        str(tmp_path / "narrow.molml"),
        data,
        "--steps",
        "5",
        "--output",
        str(tmp_path / "t.xyz"),
    ]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.err.count("molml: warning: extrapolation: atom") == 1
    assert "outside the training range: 24 times in 6 steps, most often G2(Ar, eta=0.3) of Ar" in captured.out
    assert main([*command[:-1], str(tmp_path / "u.xyz"), "--on-extrapolation", "raise"]) == 1
    assert main([*command[:-1], str(tmp_path / "v.xyz"), "--on-extrapolation", "ignore"]) == 0
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["POSCAR", "a.cif", "a.xyz", "a.xyz.xz", "a.traj"])
def test_structures_of_many_formats_are_read(model, tmp_path, name):
    atoms = bulk("Ar", "fcc", 5.0, cubic=True)
    ase.io.write(tmp_path / name, atoms)
    command = ["energy", "md", model, str(tmp_path / name), "--steps", "1", "--output", str(tmp_path / "t.xyz")]
    assert main(command) == 0
    np.testing.assert_allclose(ase.io.read(tmp_path / "t.xyz", 0).get_volume(), 125.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere.xyz", None, "does not exist"),
        ("a.xyz", "nonsense", "a.xyz"),
        ("a.cif", "nonsense", "cannot be read as a structure"),
        ("a.unknown", "nonsense", "cannot be read as a structure"),
    ],
)
def test_structures_that_cannot_be_read_are_one_line(model, tmp_path, capsys, name, text, message):
    (tmp_path / name).write_text(text) if text else None
    assert main(["energy", "md", model, str(tmp_path / name), "--output", str(tmp_path / "t.xyz")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_frame_that_is_not_there_is_refused(model, data, tmp_path, capsys):
    assert main(["energy", "md", model, data, "--index", "99", "--output", str(tmp_path / "t.xyz")]) == 1
    assert "which has 12, got 99" in capsys.readouterr().err


def test_unknown_elements_are_refused(model, tmp_path, capsys):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    assert main(["energy", "md", model, str(tmp_path / "water.xyz"), "--output", str(tmp_path / "t.xyz")]) == 1
    assert "trained on (Ar), got H (atom 1), O (atom 0)" in capsys.readouterr().err


def test_help_is_fast():
    started = time.process_time()
    with pytest.raises(SystemExit):
        main(["energy", "fit", "--help"])
    assert time.process_time() - started < 1


def test_a_real_fit_from_data_to_dynamics(tmp_path, capsys):
    data, test = write_data(tmp_path / "data.xyz", 20), write_data(tmp_path / "test.xyz", 4, seed=200)
    run = str(tmp_path / "run")
    options = ["--epochs", "2", "--n-functions", "12", "--hidden", "4", "--cutoff", "5", "--members", "2"]
    assert main(["energy", "fit", data, "--test", test, "--output", run, *options]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # forces of these structures are about 0.03 eV/Å
    assert metrics["test"]["forces_rmse"] < 0.003
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["member"], line["epoch"]) for line in lines] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    first = (tmp_path / "run" / "model.molml").read_bytes()
    assert main(["energy", "fit", data, "--test", test, "--output", run, *options, "--resume"]) == 0
    again = molml.load(tmp_path / "run" / "model.molml")
    (tmp_path / "first.molml").write_bytes(first)
    stored = molml.load(tmp_path / "first.molml").state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in again.state_dict().items())
    model = f"{run}/model.molml"
    assert main(["energy", "evaluate", model, test]) == 0
    assert main(["energy", "md", model, test, "--steps", "5", "--output", str(tmp_path / "t.xyz")]) == 0
    assert "2 frames" not in capsys.readouterr().err
