"""Promises of the package as a whole: what an import costs, what is never called, what is installed."""

import ast
import configparser
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import molml
from molml.io import ModelFileError, save_container

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "molml"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ["torch", "matplotlib", "ase", "rdkit", "mdtraj", "numba", "sklearn", "scipy", "numpy", "tqdm"]


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has after the code."""
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(child.stderr.split())


# --- laziness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import molml",
        "import molml; dir(molml); molml.__version__",
        "import molml.cli",
        "import molml.datasets.cli",
        "import molml.energy",
        "import molml.energy.cli",
        "import molml.kinetics",
        "import molml.kinetics.cli",
        "import molml.molecules",
        "import molml.molecules.cli",
        "from molml.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from molml.cli import main\ntry: main(['energy', 'fit', '--help'])\nexcept SystemExit: pass",
        "from molml.cli import main\ntry: main(['kinetics', 'compare', '--help'])\nexcept SystemExit: pass",
        "from molml.cli import main\ntry: main(['molecules', 'train', '--help'])\nexcept SystemExit: pass",
        "from molml.cli import main\nmain(['data', 'list'])",
    ],
)
def test_nothing_heavy_is_imported(code):
    assert loaded_after(code).isdisjoint(HEAVY)


def test_the_check_above_sees_imports():
    assert "numpy" in loaded_after("import molml; molml.nn")


def test_info_needs_no_torch(tmp_path):
    save_container(tmp_path / "m", "X", {}, {"w": torch.ones(1)}, {})
    assert "torch" not in loaded_after(f"from molml.cli import main\nmain(['info', {str(tmp_path / 'm')!r}])")


def test_modules_come_on_demand():
    assert loaded_after("import molml; molml.units") >= {"molml.units"}
    assert molml.nn.MLP.__name__ == "MLP"
    assert "load" in dir(molml)


@pytest.mark.parametrize("arm", ["energy", "kinetics", "molecules"])
def test_public_names_of_an_arm(arm):
    package = importlib.import_module(f"molml.{arm}")
    assert sorted(package._HOMES) == sorted(package.__all__) == sorted(dir(package))
    # a name that is also a module would be the function or the module, whichever was imported first
    modules = {path.stem for path in (PACKAGE / arm).glob("*.py")}
    assert modules.isdisjoint(package._HOMES)
    for name, home in package._HOMES.items():
        assert getattr(package, name) is getattr(importlib.import_module(f"molml.{arm}.{home}"), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'molml' has no attribute 'enery'"):
        _ = molml.enery


def test_import_leaves_the_state_of_others_alone():
    code = """
import logging, sys, warnings, torch
torch.manual_seed(3)
filters = list(warnings.filters)
{}
print(torch.rand(1).item(), torch.get_default_dtype(), torch.get_num_threads(), logging.root.handlers)
print(warnings.filters == filters)
"""
    imports = "import molml.datasets, molml.energy.fitting, molml.io, molml.kinetics, molml.nn, molml.training"
    outputs = [subprocess.check_output([sys.executable, "-c", code.format(text)]) for text in (imports, "")]
    assert outputs[0] == outputs[1]


# --- load ------------------------------------------------------------------------------------------------------------


def test_load_refuses_what_is_no_model(tmp_path):
    save_container(tmp_path / "checkpoint.molml", "checkpoint", {}, {}, {})
    with pytest.raises(ModelFileError, match="must hold a model, one of LinearPotential, .* got kind 'checkpoint'"):
        molml.load(tmp_path / "checkpoint.molml")


@pytest.mark.parametrize("kind", molml._ARMS)
def test_load_hands_the_container_to_its_class(tmp_path, monkeypatch, kind):
    save_container(tmp_path / "m", kind, {"a": 1}, {}, {})
    arm = importlib.import_module(molml._ARMS[kind])
    monkeypatch.setattr(getattr(arm, kind), "from_container", lambda container: container)
    assert molml.load(tmp_path / "m").config == {"a": 1}


# --- security --------------------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
# joblib may start processes; its files are pickles
FORBIDDEN_CALLS = {
    *("eval", "exec", "os.system", "yaml.load", "joblib.load", "joblib.dump"),
    *("torch.load", "torch.save", "torch.hub.load"),
}

# ChemNet's weights and MOSES' tables exist as pickles only; they are read by unpicklers that make nothing but numbers
EXCEPTIONS = {"molecules/chemnet.py": {"pickle", "torch.load"}, "molecules/moses.py": {"pickle"}}


def offences(source: str) -> list[str]:
    """Places where code could run from data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.split(".")[0] in FORBIDDEN_MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                full = [f"{module}.{name.name}" for name in names]
                found += [name for name in full if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS]
            case ast.Call(func=function, keywords=keywords):
                name = ast.unparse(function)
                found += [name] if name in FORBIDDEN_CALLS else []
                found += [name for k in keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
                found += [name for k in keywords if k.arg == "shell" and ast.unparse(k.value) != "False"]
                found += [name for k in keywords if k.arg == "verify" and ast.unparse(k.value) == "False"]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_code_comes_from_data(path):
    allowed = EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), set())
    assert set(offences(path.read_text(encoding="utf-8"))) == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "import torch\ntorch.load('x', weights_only=True)",
        "np.load('x', allow_pickle=True)",
        "yaml.load(text)",
        "eval('1')",
        "def f():\n    exec('1')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_check_above_sees_offences(source):
    assert offences(source)


# --- what is installed -----------------------------------------------------------------------------------------------


def settings() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_folder_of_code_is_a_listed_package():
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    listed = set(settings()["options"]["packages"].split())
    assert listed == {".".join(folder.parts) for folder in folders} | {"molml._datasets"}


def test_every_package_has_an_init():
    assert [path.parent for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


def test_metadata_of_the_distribution():
    assert metadata.version("molml-lab") == molml.__version__
    (entry,) = metadata.entry_points(group="console_scripts", name="molml")
    assert entry.value == "molml.cli:main"


def test_every_test_directory_mirrors_the_package():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and list(path.glob("test_*.py"))}
    assert folders <= {path.name for path in PACKAGE.iterdir() if path.is_dir()}
