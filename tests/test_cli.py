import os
import signal
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import molml.cli
import molml.datasets
import molml.doctor
from molml.cli import main
from molml.io import save_container
from molml.training import TrainingInterrupted


@pytest.fixture
def command(monkeypatch):
    """Make `molml energy fit`, `molml kinetics compare` and `molml molecules train` run the given function."""

    def install(function):
        def add_parser(commands):
            actions = commands.add_parser("energy").add_subparsers(required=True)
            action = actions.add_parser("fit")
            action.add_argument("data")
            action.add_argument("--output")
            action.add_argument("--valid")
            action.add_argument("--test")
            action.add_argument("--n-functions", type=int)
            action.add_argument("--minutes", type=float)
            action.add_argument("--overwrite", action="store_true")
            action.set_defaults(run=function)

        def add_kinetics(commands):
            actions = commands.add_parser("kinetics").add_subparsers(required=True)
            action = actions.add_parser("compare")
            action.add_argument("trajectories", nargs="+")
            for option in ("--top", "--lag", "--output"):
                action.add_argument(option)
            action.add_argument("--overwrite", action="store_true")
            action.set_defaults(run=function)

        def add_molecules(commands):
            actions = commands.add_parser("molecules").add_subparsers(required=True)
            action = actions.add_parser("train")
            action.add_argument("data")
            for option in ("--output", "--minutes"):
                action.add_argument(option)
            action.add_argument("--overwrite", action="store_true")
            action.set_defaults(run=function)
            for name in ("near", "interpolate"):
                action = actions.add_parser(name)
                action.add_argument("words", nargs="+")
                action.add_argument("-n")
                action.add_argument("--output")
                action.set_defaults(run=lambda arguments: 0)

        monkeypatch.setattr("molml.molecules.cli.add_parser", add_molecules)
        monkeypatch.setattr("molml.energy.cli.add_parser", add_parser)
        monkeypatch.setattr("molml.kinetics.cli.add_parser", add_kinetics)

    return install


def raising(error):
    def run(*_: object) -> int:
        raise error

    return run


# --- exit codes and errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ValueError("cutoff must be positive"), FileNotFoundError(2, "No such file", "x"), ArithmeticError("nan")],
)
def test_a_users_error_is_one_line(command, capsys, error):
    command(raising(error))
    assert main(["energy", "fit", "x"]) == 1
    assert capsys.readouterr() == ("", f"molml: error: {error}\n")


def test_an_error_without_a_message_has_its_name(command, capsys):
    command(raising(ValueError()))
    assert main(["energy", "fit", "x"]) == 1
    assert capsys.readouterr().err == "molml: error: ValueError\n"


def test_debug_shows_the_traceback(command, capsys):
    command(raising(ValueError("cutoff must be positive")))
    assert main(["--debug", "energy", "fit", "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "molml: error: cutoff must be positive"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a bug"), TypeError("a bug")])
def test_a_fault_of_molml_is_not_hidden(command, error):
    command(raising(error))
    with pytest.raises(type(error), match="a bug"):
        main(["energy", "fit", "x"])


@pytest.mark.parametrize("line", [[], ["enery"], ["energy"], ["info"], ["demo", "--minutes", "two"], ["doctor", "x"]])
def test_a_wrong_command_line_exits_with_2(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    assert "usage: molml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "molml: interrupted\n"),
        (
            TrainingInterrupted("resume with --resume", signal.SIGTERM),
            143,
            "molml: interrupted: resume with --resume\n",
        ),
    ],
)
def test_interrupts_exit_as_shells_expect(command, capsys, error, status, message):
    command(raising(error))
    assert main(["energy", "fit", "x"]) == status
    assert capsys.readouterr().err == message


def test_warnings_are_lines_too(command, capsys):
    def run(arguments: Namespace) -> int:
        warnings.warn("the stress looks odd", stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return 0

    command(run)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["energy", "fit", "x"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == "molml: warning: the stress looks odd"
    assert second.startswith("molml: warning: old (DeprecationWarning, ")


def test_help_and_version(capsys):
    for line in (["--help"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            main(line)
        assert stop.value.code == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("energy", "kinetics", "molecules", "data", "demo", "info", "doctor"))
    assert output.endswith(f"molml {molml.__version__}\n")


def test_the_module_runs_as_the_command():
    child = subprocess.run([sys.executable, "-m", "molml", "info", "absent"], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr == "molml: error: [Errno 2] No such file or directory: 'absent'\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_error(tmp_path):
    save_container(tmp_path / "m", "X", {f"key{i}": i for i in range(20_000)}, {}, {})
    script = '"$0" -m molml info "$1" | head -n 1; echo "${PIPESTATUS[0]}"'
    line = ["bash", "-c", script, sys.executable, tmp_path / "m"]
    child = subprocess.run(line, capture_output=True, text=True, check=True)
    assert child.stderr == ""
    assert child.stdout.splitlines()[1:] == ["141"]


# --- info ------------------------------------------------------------------------------------------------------------


def test_info(tmp_path, capsys):
    config = {
        "elements": [1, 6, 8],
        "cutoff": 6.0,
        "hidden": [20, 20],
        "features": {"eta": [0.1] * 20, "r": {"a": [1]}},
    }
    metadata = {
        "units": {"energy": "eV", "length": "Å"},
        "data": "0123456789abcdef",
        "metrics": {"test": {"energy_rmse": 0.00123456789, "stress_rmse": None}},
    }
    tensors = {"w": torch.ones(3, 2), "b": torch.tensor(1.0), "n": torch.tensor([7])}
    save_container(tmp_path / "m.molml", "BehlerParrinello", config, tensors, metadata)
    assert main(["info", str(tmp_path / "m.molml")]) == 0
    output = capsys.readouterr().out
    words = " ".join(output.split())
    assert output.startswith("BehlerParrinello  ")
    for expected in (
        "elements H C O",
        "cutoff 6 Å",
        "hidden 20, 20",
        "eta 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1 … (20 in all)",
        "units energy eV, length Å",
        "data 0123456789abcdef",
        "test energy_rmse 0.00123457, stress_rmse -",
        f"molml {molml.__version__}",
        "tensors 3: 1 I64, 7 F32",
        "verified",
    ):
        assert expected in words


def test_info_of_strange_elements(tmp_path, capsys):
    save_container(tmp_path / "m", "X", {"elements": ["H", 119]}, {}, {})
    assert main(["info", str(tmp_path / "m")]) == 0
    assert "elements      H, 119" in capsys.readouterr().out


def test_info_of_a_damaged_file(tmp_path, capsys):
    save_container(tmp_path / "m", "X", {}, {}, {})
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-1])
    assert main(["info", str(tmp_path / "m")]) == 1
    assert capsys.readouterr().err.startswith(f"molml: error: {tmp_path / 'm'} is damaged")


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_finds_all_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "all is well" in output
    assert all(f"ok    {name} " in output for name in ("torch", "numba", "threads", "gpu", "data", "writing"))
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_faults(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(molml.doctor, "_requirements", lambda: [("no-such-package", None), ("nor-this", "xtb")])
    monkeypatch.setattr("molml.datasets.path", raising(FileNotFoundError("no file of data set")))
    monkeypatch.setattr("molml.io.write_atomic", raising(OSError("no space left")))
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "FAULT no-such-package missing; pip install no-such-package" in output
    assert "ok    nor-this       not installed (optional, for xtb)" in output
    assert "FAULT data           no file of data set" in output
    assert "FAULT writing        no space left" in output
    assert output.endswith("\n3 faults\n")


def test_doctor_works_without_an_installation(monkeypatch):
    def missing(name):
        raise molml.doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(molml.doctor.metadata, "requires", missing)
    assert molml.doctor._requirements() == []


def test_doctor_knows_what_is_needed_for_what(monkeypatch):
    lines = ["torch>=2.10", "tblite>=0.4; extra == 'xtb'", "ruff; extra == 'test'", 'tblite; extra == "test"', "ase>=3"]
    monkeypatch.setattr(molml.doctor.metadata, "requires", lambda name: lines)
    assert molml.doctor._requirements() == [("ase", None), ("torch", None), ("tblite", "xtb")]


# --- demo ------------------------------------------------------------------------------------------------------------


def test_demo_runs_commands_that_can_be_repeated(command, tmp_path, capsys):
    def run(arguments: Namespace) -> int:
        told = vars(arguments)
        files = [told[name] for name in ("data", "valid", "test", "top") if name in told]
        assert len(files) in (1, 3) and all(Path(file).is_file() for file in files)
        Path(arguments.output).mkdir(parents=True)
        for name in (".lock", "model.molml", "report.html"):
            (Path(arguments.output) / name).write_text(str(told.get("minutes")))
        return 0

    command(run)
    assert main(["demo", "--output", str(tmp_path / "results"), "--minutes", "0.5"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("$ molml energy fit ")
    assert [line[:25] for line in output.splitlines() if line.startswith("$")] == [
        output[:25],
        "$ molml kinetics compare ",
        "$ molml molecules train /",
        "$ molml molecules near dr",
        "$ molml molecules interpo",
    ]
    folders = energy, *_ = [tmp_path / "results" / name for name in ("energy", "kinetics", "molecules")]
    reports = [f"  {folder / 'report.html'}" for folder in folders]
    assert output.splitlines()[-6:] == [*reports, *(f"  {folder / 'model.molml'}" for folder in folders)]
    assert (energy / "report.html").read_text() == "0.5"


def test_demo_stops_at_an_error(command, tmp_path, capsys):
    command(raising(ValueError("cutoff must be positive")))
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "molml: error: cutoff must be positive\n"
    assert main(["--debug", "demo", "--output", str(tmp_path)]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.long
def test_demo(tmp_path):
    for _ in range(2):
        assert main(["demo", "--output", str(tmp_path), "--minutes", "0.2"]) == 0
    written = {path.name for path in (tmp_path / "energy").iterdir()}
    assert {"model.molml", "metrics.json", "metrics.jsonl", "report.html"} <= written
    written = {path.name for path in (tmp_path / "kinetics").iterdir()}
    assert {"tica.molml", "reversible-vampnet.molml", "metrics.json", "report.html"} <= written
    written = {path.name for path in (tmp_path / "molecules").iterdir()}
    assert {"model.molml", "metrics.json", "report.html", "aspirin.png", "interpolation.png"} <= written
