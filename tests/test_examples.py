"""Every example runs, as a user would run it, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("**/*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_example(path, tmp_path):
    # MOLML_FAST asks an example for seconds instead of minutes; its result is then worth nothing
    environment = os.environ | {"MOLML_FAST": "1"}
    line = [sys.executable, "-W", "error", str(path)]
    child = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr


COPPER = """
import ase.io
from ase.build import bulk
from ase.calculators.emt import EMT

ase.io.write("start.xyz", bulk("Cu", cubic=True))
frames = [bulk("Cu", cubic=True) for _ in range(20)]
for seed, atoms in enumerate(frames):
    atoms.rattle(0.06, seed=seed)
    atoms.calc = EMT()
    atoms.get_forces()
ase.io.write("data.xyz", frames)
"""
LAUNCHERS = {
    "torchrun.sbatch": (["data.xyz", "--epochs", "2", "--n-functions", "12"], {"PROCESSES": "2", "PORT": "29471"}),
    "dask.sbatch": (
        ["start.xyz", "--labels", "2", "--steps", "40", "--rounds", "1", "--members", "2"],
        {"WORKERS": "2", "ORACLE": "emt"},
    ),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher(name, tmp_path):
    if name == "dask.sbatch":
        pytest.importorskip("distributed")
    (data, *options), settings = LAUNCHERS[name]
    subprocess.run([sys.executable, "-c", COPPER], cwd=tmp_path, check=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    line = ["bash", str(FOLDER / "cluster" / name), data, "out", "--cutoff", "4", *options]
    environment = os.environ | settings | {"PATH": path}
    child = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    assert (tmp_path / "out" / "model.molml").stat().st_size > 1000
    if name == "dask.sbatch":
        # the scheduler and its workers have ended, and nothing of theirs is left
        assert [path.name for path in tmp_path.glob("scheduler-*")] == []
