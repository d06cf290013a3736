"""The README is true: its code runs, in the order in which it stands there, in one empty folder."""

import re
import shlex
from pathlib import Path

import ase.io
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
        program, *arguments = shlex.split(line.replace("$ETHANOL", str(molml.datasets.path("ethanol"))))
        assert program == "molml"
        assert main(arguments) == 0


@pytest.fixture
def small_ethanol(tmp_path_factory, monkeypatch):
    """Every fifteenth structure, in the place of the data set: a reader has minutes, a test has seconds."""
    folder, whole = tmp_path_factory.mktemp("ethanol"), molml.datasets.path("ethanol")
    for name in ("train", "valid", "test"):
        ase.io.write(folder / f"{name}.xyz.xz", read_structures(whole / f"{name}.xyz.xz")[::15], format="extxyz")
    monkeypatch.setattr(molml.datasets, "path", lambda name: folder)


@pytest.mark.usefixtures("small_ethanol")
def test_code_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [language for language, _ in BLOCKS] == ["bash", "python", "bash"]
    for language, code in BLOCKS:
        quick = re.sub(r"minutes([ =])\d+", r"minutes\g<1>0.05", code)
        {"python": run_python, "bash": run_bash}[language](quick)
    assert {path.name for path in tmp_path.iterdir()} == {"ethanol", "ethanol.molml"}
    assert (tmp_path / "ethanol" / "report.html").is_file()
    assert " eV/Å\n" in capsys.readouterr().out


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert [target for target in local if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)", README))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
