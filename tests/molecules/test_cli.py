import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

import molml
from molml.cli import main
from molml.kinetics import PCA
from molml.molecules import report
from molml.molecules.language import LanguageModel
from molml.molecules.model import MoleculeVAE
from molml.molecules.tokens import Tokenizer

FEW = ["CCO", "CCN", "CCCO", "c1ccccc1", "CC(=O)O", "CC(C)C", "C1CCCCC1", "CCOC", "CC(N)=O", "Cc1ccccc1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small untrained model of each kind, and molecules."""
    place = tmp_path_factory.mktemp("molecules")
    tokenizer = Tokenizer.from_strings(FEW)
    vae = MoleculeVAE(tokenizer, encoder="convolutional", n_latent=4, hidden=16, properties=["logP"], seed=1)
    vae.save(place / "vae.molml")
    LanguageModel(tokenizer, hidden=16, seed=1).save(place / "language.molml")
    (place / "few.smi").write_text("\n".join(FEW) + "\n")
    many = [n * "C" + tail for n in range(1, 21) for tail in ("O", "N", "(C)C", "C=O", "CC(N)=O", "C1CC1")]
    rows = [f"{smiles},{len(smiles)}.5" for smiles in many]
    (place / "few.csv").write_text("SMILES,length\n" + "\n".join(rows) + "\n")
    return place


@pytest.fixture
def small_report(monkeypatch):
    """Fewer samples: an untrained model writes long strings, and slowly."""
    monkeypatch.setattr(report, "N_EVALUATED", 40)


def run(*words):
    return main(["molecules", *map(str, words)])


def failure(capsys, *words):
    """Message of a command that must fail."""
    assert run(*words) == 1
    return capsys.readouterr().err


def table(path):
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("model", ["vae", "language"])
@pytest.mark.parametrize("suffix", ["smi", "csv", "sdf", "svg", "png"])
def test_sample(folder, tmp_path, model, suffix):
    assert run("sample", folder / f"{model}.molml", "-n", 6, "--output", tmp_path / f"x.{suffix}", "--threads", 1) == 0
    assert (tmp_path / f"x.{suffix}").stat().st_size > 0


def test_samples_are_molecules_and_follow_the_seed(folder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("sample", folder / "vae.molml", "-n", 8, "--seed", seed, "--output", tmp_path / f"{name}.smi") == 0
    a, b, c = ((tmp_path / f"{name}.smi").read_text() for name in "abc")
    assert a == b != c
    assert len(set(a.split())) == 8
    assert all(Chem.MolFromSmiles(text) is not None for text in a.split())


def test_near(folder, tmp_path, capsys):
    assert run("near", folder / "vae.molml", "CCO", "-n", 3, "--radius", 5, "--output", tmp_path / "x.csv") == 0
    rows = table(tmp_path / "x.csv")
    assert rows[0]["smiles"] == "CCO" and float(rows[0]["similarity"]) == 1.0
    assert "radius 5" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "n"), [([], 9), (["--path"], 7)])
def test_interpolate(folder, tmp_path, options, n):
    line = ["interpolate", folder / "vae.molml", "CCO", "CCN", "CCCO", "CC(C)C", "-n", 3, *options]
    assert run(*line, "--output", tmp_path / "x.csv") == 0
    assert len(table(tmp_path / "x.csv")) == n


@pytest.mark.parametrize("direction", ["max", "60"])
def test_optimize(folder, tmp_path, capsys, direction):
    line = ["optimize", folder / "vae.molml", "CCO", "--property", "MW", "--direction", direction, "--similarity", 0]
    assert run(*line, "--budget", 3, "--method", "cma", "--output", tmp_path / "x.csv") == 0
    before, after = (float(word) for word in capsys.readouterr().out.split()[1:4:2])
    better = {"max": after >= before, "60": abs(after - 60) <= abs(before - 60)}
    assert better[direction]
    assert table(tmp_path / "x.csv")[0]["smiles"] == "CCO"


def test_reinforce(folder, tmp_path, capsys):
    words = ("reinforce", folder / "language.molml", "--property", "heavy_atoms", "--budget", 20)
    assert run(*words, "--output", tmp_path / "x", "--direction", "3") == 0
    assert "in 20 evaluations" in capsys.readouterr().out
    rows = table(tmp_path / "x" / "molecules.csv")
    distances = [abs(float(row["score"]) - 3) for row in rows]
    assert len(rows) == 20 and distances == sorted(distances)
    steps = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["calls"] == 20 and 0 <= steps[-1]["valid"] <= 1
    assert molml.load(tmp_path / "x" / "model.molml").metadata["reinforcement"]["calls"] == 20
    assert run(*words, "--start", "CCO", "--output", tmp_path / "y") == 0
    assert all(float(row["similarity"]) >= 0.4 for row in table(tmp_path / "y" / "molecules.csv"))
    assert "LanguageModel" in failure(
        capsys, "reinforce", folder / "vae.molml", "--property", "QED", "--output", tmp_path / "z"
    )


def test_encode(folder, tmp_path):
    for suffix in ("csv", "npy"):
        line = ["encode", folder / "vae.molml", folder / "few.smi", "--output", tmp_path / f"z.{suffix}"]
        assert run(*line) == 0
    expected = molml.load(folder / "vae.molml").encode(FEW)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)
    rows = table(tmp_path / "z.csv")
    assert [row["smiles"] for row in rows] == FEW
    np.testing.assert_allclose([[float(row[f"z{k}"]) for k in (1, 2, 3, 4)] for row in rows], expected, rtol=1e-12)


def test_predict(folder, tmp_path):
    assert run("predict", folder / "vae.molml", folder / "few.csv", "--output", tmp_path / "p.csv") == 0
    rows = table(tmp_path / "p.csv")
    assert len(rows) == 120
    alone = molml.load(folder / "vae.molml").predict(["CO"])["logP"].iloc[0]
    assert (rows[0]["smiles"], float(rows[0]["logP"])) == ("CO", pytest.approx(alone, abs=1e-6))


def test_metrics(folder, capsys):
    (folder / "made.smi").write_text("CCO\nOCC\nC(C\nCCCl\n")
    line = ["metrics", folder / "made.smi", "--reference", folder / "few.smi", "--train", folder / "few.smi"]
    assert run(*line, "--no-fcd", "--json", "--threads", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["n"], found["Novelty"]) == (0.75, 4, 0.5)
    assert run(*line, "--no-fcd", "--threads", 1) == 0
    assert "4 molecules, 3 of them valid" in capsys.readouterr().out


@pytest.mark.usefixtures("small_report")
@pytest.mark.parametrize("options", [["--properties", "length", "--encoder", "graph"], ["--model", "language"]])
def test_train(folder, tmp_path, capsys, options):
    line = ["train", folder / "few.csv", "--minutes", 0.02, "--threads", 1, "--output", tmp_path / "out", *options]
    assert run(*line) == 0
    output = capsys.readouterr().out
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"model.molml", "metrics.json", "metrics.jsonl", "report.html"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["valid"]
    assert 0 <= metrics["validity"] <= 1 and "validity" in output
    assert not re.search(r"(src|href|url)\W{1,3}http", (tmp_path / "out" / "report.html").read_text())
    model = molml.load(tmp_path / "out" / "model.molml")
    assert model.metadata["metrics"]["valid"] == metrics
    assert len(model.sample(1)) == 1
    # a run is never overwritten by accident, and set aside on request
    assert "already holds a run" in failure(capsys, *line)
    assert run(*line, "--overwrite") == 0
    assert (tmp_path / "out" / "previous-1" / "model.molml").exists()


@pytest.mark.usefixtures("small_report")
def test_train_further(folder, tmp_path):
    line = ["train", folder / "few.csv", "--start", folder / "vae.molml", "--minutes", 0.01, "--properties", "length"]
    assert run(*line, "--output", tmp_path / "out") == 0
    assert molml.load(tmp_path / "out" / "model.molml").properties == ["length"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "vae", "--output", "x.txt"], "path must end with"),
        (["near", "vae", "nonsense", "--output", "x.svg"], "nonsense"),
        (["near", "lm", "CCO", "--output", "x.svg"], "must hold a MoleculeVAE, got LanguageModel"),
        (["near", "vae", "CC[Si]", "--output", "x.svg"], r"[Si]"),
        (["optimize", "vae", "CCO", "--property", "QED", "--direction", "up"], "must be max, min or a number"),
        (["encode", "vae", "few.smi", "--output", "z.txt"], "--output must end in .csv or .npy"),
        (["predict", "vae", "few.smi", "--output", "z.txt"], "--output must end in .csv"),
        (["train", "few.smi", "--recipe", "druglike", "--output", "out"], "needs three files"),
        (["train", "few.smi", "--model", "language", "--spellings", "2", "--output", "out"], "--noisy and --start"),
        (["train", "a", "b", "c", "--recipe", "druglike", "--spellings", "2", "--output", "out"], "leave out --spell"),
        (["train", "few.smi", "--model", "language", "--properties", "x", "--output", "out"], "belong to --model vae"),
        (["metrics", "none.smi"], "there is no file"),
    ],
)
def test_errors_say_what_to_do(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    names = {"vae": folder / "vae.molml", "lm": folder / "language.molml", "few.smi": folder / "few.smi"}
    assert message in failure(capsys, *(names.get(word, word) for word in words))
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_no_model_of_molecules(tmp_path, capsys):
    PCA(1).fit(np.random.default_rng(0).normal(size=(20, 3))).save(tmp_path / "x.molml")
    message = failure(capsys, "sample", tmp_path / "x.molml", "--output", tmp_path / "x.smi")
    assert "must hold a MoleculeVAE or a LanguageModel, got PCA" in message
