import json

import mdtraj
import numpy as np
import pytest

import molml
from molml import datasets
from molml.cli import main
from molml.kinetics import Torsions, cli
from molml.kinetics.comparison import METHODS
from molml.kinetics.features import FEATURES


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every fifth frame of two runs of the embedded data: what decides here is the plumbing."""
    folder, whole = tmp_path_factory.mktemp("runs"), datasets.path("alanine-dipeptide")
    topology = mdtraj.load(whole / "topology.pdb").topology
    for number, path in enumerate(sorted(whole.glob("*.xtc"))[:2]):
        mdtraj.load(path, top=topology)[::5].save_xtc(str(folder / f"run{number}.xtc"))
    (folder / "top.pdb").write_bytes((whole / "topology.pdb").read_bytes())
    return folder


def given(runs):
    return [str(runs / "run*.xtc"), "--top", str(runs / "top.pdb")]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "out"
    options = ["--lag", "5 ps", "--methods", "pca", "tica", "--folds", "2", "--states", "50", "--threads", "1"]
    assert main(["kinetics", "compare", *given(runs), *options, "--output", str(folder)]) == 0
    return folder


def test_names_are_those_of_the_package():
    assert cli.METHODS == (*METHODS, "variational-tae")
    assert cli.DEFAULT_METHODS == METHODS
    assert cli.FEATURES == FEATURES


def test_compare_writes_what_it_promises(compared):
    metrics = json.loads((compared / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["pca", "tica"]
    for figures in metrics["methods"].values():
        assert {"vamp2", "vamp2_se", "timescales", "own_timescales", "fit_seconds"} <= figures.keys()
    assert metrics["lagtime"] == pytest.approx(5.0)
    assert metrics["timestep"] == pytest.approx(2.5)
    assert metrics["reference"]["names"] == ["cos phi ALA2", "sin phi ALA2", "cos psi ALA2", "sin psi ALA2"]
    names = {path.name for path in compared.iterdir() if not path.name.startswith(".")}
    drawn = {
        f"{kind}_{m}.png"
        for kind in ("free_energy", "projection", "timescales", "ramachandran")
        for m in ("pca", "tica")
    }
    assert {"report.html", "metrics.json", "pca.molml", "tica.molml", *drawn} <= names
    report = (compared / "report.html").read_text()
    assert "cos phi" not in report.split("<style>")[0]
    assert report.count("data:image/png") == len([name for name in names if name.endswith(".png")])


def test_compare_does_not_write_over_results(runs, compared, capsys):
    line = ["kinetics", "compare", *given(runs), "--lag", "5 ps", "--methods", "pca", "--output", str(compared)]
    assert main(line) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_transform_knows_its_features(runs, compared, tmp_path):
    out = tmp_path / "z"
    assert main(["kinetics", "transform", str(compared / "tica.molml"), *given(runs), "--output", str(out)]) == 0
    arrays = sorted(out.glob("*.npy"))
    tica = molml.load(compared / "tica.molml")
    trajectory = mdtraj.load(runs / "run1.xtc", top=runs / "top.pdb")
    expected = tica.transform(Torsions(trajectory.topology)(trajectory))
    np.testing.assert_allclose(np.load(arrays[1]), expected, rtol=0, atol=1e-6)  # single-precision positions
    description = json.loads((out / "features.json").read_text())
    assert description["names"] == ["coordinate 1", "coordinate 2"]


def test_features_are_read_back(runs, tmp_path, capsys):
    out = tmp_path / "features"
    line = ["kinetics", "features", *given(runs), "--features", "torsions", "distances", "--output", str(out)]
    assert main(line) == 0
    fit = ["kinetics", "fit", *sorted(map(str, out.glob("*.npy"))), "--lag", "5 ps", "--output", str(tmp_path / "fit")]
    assert main(fit) == 0
    assert "2 trajectories, 2,000 frames of 2.5 ps, 49 features; lag time 5 ps = 2 frames" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "fit" / "metrics.json").read_text())
    assert metrics["method"] == "tica"
    assert metrics["own_timescales"][0] > metrics["own_timescales"][1] > 0
    # from arrays of features to trajectories: the model remembers what the columns are
    line = [
        "kinetics",
        "transform",
        str(tmp_path / "fit" / "model.molml"),
        *given(runs),
        "--output",
        str(tmp_path / "z"),
    ]
    assert main(line) == 0


def test_msm(runs, compared, tmp_path):
    line = ["kinetics", "msm", *given(runs), "--lag", "5 ps", "--states", "40", "--output", str(tmp_path / "msm")]
    assert main([*line, "--model", str(compared / "tica.molml")]) == 0
    metrics = json.loads((tmp_path / "msm" / "metrics.json").read_text())
    assert sum(metrics["populations"]) == pytest.approx(1.0)
    np.testing.assert_allclose(np.sum(metrics["transition_matrix"], axis=1), 1.0)
    model = molml.load(tmp_path / "msm" / "msm.molml")
    assert model.timescales(1)[0] * 2.5 == pytest.approx(metrics["timescales"][0])
    assert (tmp_path / "msm" / "report.html").is_file()


def test_msm_makes_its_own_coordinates(runs, tmp_path):
    line = ["kinetics", "msm", *given(runs), "--lag", "5 ps", "--states", "20", "--output", str(tmp_path / "msm")]
    assert main(line) == 0
    assert type(molml.load(tmp_path / "msm" / "coordinates.molml")).__name__ == "TICA"


def test_structures(runs, compared, tmp_path):
    out = tmp_path / "structures"
    line = ["kinetics", "structures", str(compared / "tica.molml"), *given(runs), "--frames", "5", "--output", str(out)]
    assert main(line) == 0
    typical = mdtraj.load(out / "along-1.pdb")
    moving = mdtraj.load(out / "moving-1.xtc", top=runs / "top.pdb")
    assert (typical.n_frames, moving.n_frames, typical.n_atoms) == (5, 25, 10)


def test_plumed(compared, tmp_path, capsys):
    assert main(["kinetics", "plumed", str(compared / "tica.molml")]) == 0
    printed = capsys.readouterr().out
    assert main(["kinetics", "plumed", str(compared / "tica.molml"), "--output", str(tmp_path / "plumed.dat")]) == 0
    assert (tmp_path / "plumed.dat").read_text() == printed
    assert "TORSION ATOMS=" in printed


def refused(line, capsys):
    assert main(["kinetics", *map(str, line)]) == 1
    return capsys.readouterr().err


def test_errors_name_what_is_wrong(runs, compared, tmp_path, capsys):
    out = ["--output", tmp_path / "x"]
    tica = compared / "tica.molml"
    assert "no file matches" in refused(["compare", runs / "no*.xtc", "--lag", "5 ps", *out], capsys)
    assert "topology" in refused(["compare", runs / "run0.xtc", "--lag", "5 ps", *out], capsys)
    assert "2.5 ps" in refused(["compare", *given(runs), "--lag", "1 ps", *out], capsys)
    assert "--threads" in refused(["compare", *given(runs), "--lag", "5 ps", "--threads", "0", *out], capsys)
    assert "--component" in refused(["structures", tica, *given(runs), "--component", "3", *out], capsys)
    assert "--top belongs" in refused(["fit", "a.npy", "--top", "b.pdb", "--lag", "1 frames", *out], capsys)
    assert "there is no file" in refused(["fit", tmp_path / "a.npy", "--lag", "1 frames", *out], capsys)
    assert not (tmp_path / "x").exists()


def test_arrays_that_are_none(tmp_path, capsys):
    out = ["--output", tmp_path / "x"]
    (tmp_path / "a.npy").write_text("text")
    assert "cannot be read as an array" in refused(["fit", tmp_path / "a.npy", "--lag", "3", *out], capsys)
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert "(n_frames, n_features), got shape (3,)" in refused(["fit", tmp_path / "b.npy", "--lag", "3", *out], capsys)
    np.save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(50, 2)))
    assert "give --timestep" in refused(["fit", tmp_path / "c.npy", "--lag", "3", *out], capsys)
    line = ["structures", tmp_path / "no.molml", tmp_path / "c.npy", *out]
    assert "no.molml" in refused(line, capsys)


def test_reference_needs_trajectories(tmp_path, capsys):
    np.save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(500, 2)))
    line = ["compare", tmp_path / "c.npy", "--timestep", "1", "--lag", "3", "--output", tmp_path / "x"]
    assert "--reference is computed from trajectories" in refused([*line, "--reference", "torsions"], capsys)


def test_arrays_of_different_features_are_refused(runs, tmp_path, capsys):
    for kind in ("torsions", "distances"):
        main(["kinetics", "features", *given(runs), "--features", kind, "--output", str(tmp_path / kind)])
    files = [next((tmp_path / kind).glob("*.npy")) for kind in ("torsions", "distances")]
    message = refused(["fit", *files, "--lag", "5 ps", "--output", tmp_path / "x"], capsys)
    assert "the same features" in message


def test_other_models_are_refused(runs, compared, tmp_path, capsys):
    line = ["msm", *given(runs), "--lag", "5 ps", "--states", "20", "--output", tmp_path / "msm"]
    assert main(["kinetics", *map(str, line)]) == 0
    message = refused(["plumed", tmp_path / "msm" / "msm.molml"], capsys)
    assert "must hold a fitted coordinate, got a MarkovStateModel" in message


def test_a_model_of_bare_arrays_has_no_features_to_write(tmp_path, capsys):
    np.save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(500, 2)))
    line = ["fit", tmp_path / "c.npy", "--timestep", "1", "--lag", "3", "--output", tmp_path / "x"]
    assert main(["kinetics", *map(str, line)]) == 0
    assert "does not say what its features are" in refused(["plumed", tmp_path / "x" / "model.molml"], capsys)
