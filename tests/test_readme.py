"""The README is true: its code runs, in the order in which it stands there, in one empty folder."""

import lzma
import re
import shlex
import shutil
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
import pytest

import molml.datasets
from molml.cli import main
from molml.energy import read_structures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run_python(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def run_bash(code: str) -> None:
    for line in code.splitlines():
        for variable, name in (("$ETHANOL", "ethanol"), ("$ALANINE", "alanine-dipeptide"), ("$MOLECULES", "molecules")):
            line = line.replace(variable, str(molml.datasets.path(name)))
        program, *arguments = shlex.split(line)
        assert program == "molml"
        assert main(arguments) == 0


@pytest.fixture
def small_data(tmp_path_factory, monkeypatch):
    """Every fifteenth item in the place of the data sets: a reader has minutes, a test has seconds."""
    folder, path = tmp_path_factory.mktemp("data"), molml.datasets.path
    (folder / "ethanol").mkdir()
    for name in ("train", "valid", "test"):
        structures = read_structures(path("ethanol") / f"{name}.xyz.xz")[::15]
        ase.io.write(folder / "ethanol" / f"{name}.xyz.xz", structures, format="extxyz")
    (folder / "alanine-dipeptide").mkdir()
    whole = path("alanine-dipeptide")
    shutil.copy(whole / "topology.pdb", folder / "alanine-dipeptide")
    for run in (1, 4):
        frames = mdtraj.load(whole / f"run-{run}.xtc", top=whole / "topology.pdb")[::15]
        frames.time = 2.5 * np.arange(len(frames))  # of which the lag time of 5 ps is a multiple
        frames.save_xtc(str(folder / "alanine-dipeptide" / f"run-{run}.xtc"))
    (folder / "molecules").mkdir()
    for name in ("train", "valid"):
        with lzma.open(path("molecules") / f"{name}.csv.xz", "rt") as whole_table:
            lines = whole_table.readlines()
        with lzma.open(folder / "molecules" / f"{name}.csv.xz", "wt") as table:
            table.writelines([lines[0], *lines[1::15]])
    monkeypatch.setattr(molml.datasets, "path", lambda name: folder / name)


@pytest.mark.usefixtures("small_data")
def test_code_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [language for language, _ in BLOCKS] == 3 * ["bash", "python"] + ["bash"]
    for language, code in BLOCKS:
        quick = re.sub(r"minutes([ =])\d+", r"minutes\g<1>0.05", code)
        quick = re.sub(r"max_epochs=\d+", "max_epochs=1", quick)
        quick = quick.replace("kinetics compare ", "kinetics compare --epochs 1 --folds 2 --threads 1 ")
        {"python": run_python, "bash": run_bash}[language](quick)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {
        *("ethanol", "ethanol.molml", "alanine", "structures", "markov", "plumed.dat"),
        *("neighbours.png", "between.svg", "samples.csv", "better.sdf", "mine", "around.svg"),
    }
    assert all((tmp_path / name / "report.html").is_file() for name in ("ethanol", "alanine", "markov", "mine"))
    output = capsys.readouterr().out
    assert " eV/Å\n" in output
    assert " ps\n" in output


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert [target for target in local if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)", README))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
