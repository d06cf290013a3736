"""Active learning: what is labelled, what is kept, when it ends."""

import json
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

import molml
from molml.cli import main
from molml.energy import StructureDataset, automatic_functions, learn
from molml.energy.learning import force_uncertainty, oracle_of

QUICK = {
    **{"labels": 3, "steps": 60, "threshold": 0.005, "temperature": (500.0, 2000.0)},
    **{"members": 3, "cutoff": 4.0, "n_functions": 30},
}


class Counted(EMT):
    """Counts its calculations, and stops or fails at some of them."""

    def __init__(self, stop_at=None, fail_from=None):
        super().__init__()
        self.count, self.stop_at, self.fail_from = 0, stop_at, fail_from

    def calculate(self, *arguments, **keywords):
        self.count += 1
        if self.count == self.stop_at:
            raise KeyboardInterrupt
        if self.fail_from is not None and self.count >= self.fail_from:
            raise CalculationFailed("no convergence")
        super().calculate(*arguments, **keywords)


class Broken(EMT):
    """Gives forces that are no numbers."""

    def get_property(self, name, *arguments, **keywords):
        return np.nan * np.asarray(super().get_property(name, *arguments, **keywords))


@pytest.fixture(scope="module", autouse=True)
def few_candidates():
    """Functions are chosen from a few: seconds less in every round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("molml.energy.fitting.automatic_functions", partial(automatic_functions, n_candidates=40))
        yield


def start():
    return [bulk("Cu", cubic=True)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder and outcome of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("learning") / "whole"
    rows = []
    test = StructureDataset([hot(seed) for seed in range(5)])
    return folder, learn(start(), EMT(), folder, rounds=2, test=test, report=rows.append, **QUICK), rows


def hot(seed):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.08, seed=seed)
    atoms.calc = EMT()
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    return atoms


def test_uncertainty_is_that_of_the_least_certain_atom():
    assert force_uncertainty(np.array([[0.1, 0.0, 0.0], [0.0, 0.3, 0.4]])) == pytest.approx(0.5)


def test_every_label_is_the_oracles_and_is_in_the_file(whole):
    folder, result, _ = whole
    frames = ase.io.read(folder / "labels.xyz", ":")
    assert len(frames) == 10 + sum(row.get("n_taken", 0) for row in result.rounds) > 10
    for atoms in frames:
        again = atoms.copy()
        again.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-6)
        np.testing.assert_allclose(atoms.get_stress(), again.get_stress(), atol=1e-7)


def test_what_it_labels_is_what_its_committee_is_unsure_of(whole):
    folder, result, _ = whole
    taken = [atoms for atoms in ase.io.read(folder / "labels.xyz", ":") if atoms.info["round"] > 0]
    limits = {row["round"]: row["threshold"] for row in result.rounds if "threshold" in row}
    assert all(atoms.info["uncertainty"] > limits[atoms.info["round"]] for atoms in taken)
    assert {atoms.info["temperature"] for atoms in taken} <= {500.0, 2000.0}


def test_labels_make_it_better(tmp_path, monkeypatch):
    """On the mean over four runs: where so few structures are learned, chance can make a single one worse."""
    # with functions chosen from few candidates, what the errors are is chance
    monkeypatch.setattr("molml.energy.fitting.automatic_functions", automatic_functions)
    test = StructureDataset([hot(seed) for seed in range(20)])
    options = {**QUICK, "labels": 12}
    runs = [learn(start(), EMT(), tmp_path / str(seed), rounds=2, test=test, seed=seed, **options) for seed in range(4)]
    # a run ends sooner where nothing is uncertain any more
    errors = np.array([[run.rounds[i]["test_forces_rmse"] for i in (0, -1)] for run in runs])
    assert errors[:, 1].mean() < 0.9 * errors[:, 0].mean()


def test_errors_are_written(whole):
    folder, result, rows = whole
    assert rows == result.rounds
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert all(0 < row["test_forces_rmse"] < 1 for row in rows)
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == rows
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["reason"] == result.reason == "2 rounds are done"
    assert summary["n_labels"] == rows[-1]["n_labels"] == len(ase.io.read(folder / "labels.xyz", ":"))
    assert (folder / "active_learning.png").stat().st_size > 1000
    loaded = molml.load(folder / "model.molml")
    assert loaded.metadata["n_structures"] == rows[-1]["n_labels"]


def test_the_first_structures_are_as_far_from_rest_as_the_temperature(whole):
    frames = ase.io.read(whole[0] / "labels.xyz", ":10")
    rise = [(atoms.get_potential_energy() - frames[0].get_potential_energy()) / 12 / units.kB for atoms in frames[2:]]
    # half of kT in every degree of freedom, known as well as one structure of twelve degrees tells, to 40 %
    assert 0.5 < np.mean(rise[0::2]) / (0.5 * 500) < 2.0
    assert 0.5 < np.mean(rise[1::2]) / (0.5 * 2000) < 2.0


@pytest.mark.parametrize("stop_at", [4, 12])
def test_interrupted_runs_come_to_the_same_without_a_second_label(whole, tmp_path, stop_at):
    folder, result, _ = whole
    first = Counted(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        learn(start(), first, tmp_path, rounds=2, **QUICK)
    saved = ase.io.read(tmp_path / "labels.xyz", ":")
    assert len(saved) == stop_at - 1
    second = Counted()
    resumed = learn(start(), second, tmp_path, rounds=2, resume=True, **QUICK)
    assert (tmp_path / "labels.xyz").read_bytes() == (folder / "labels.xyz").read_bytes()
    assert first.count - 1 + second.count == len(ase.io.read(folder / "labels.xyz", ":"))
    batch = StructureDataset([hot(9)], cutoff=4.0)[0]
    assert resumed.potential.predict(batch).energy == result.potential.predict(batch).energy
    for mine, theirs in zip(resumed.rounds, result.rounds, strict=True):
        assert mine == {key: value for key, value in theirs.items() if not key.startswith("test")}


def test_other_processes_come_to_the_same(whole, tmp_path):
    folder, result, _ = whole
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        other = learn(start(), EMT(), tmp_path, rounds=2, executor=pool, **QUICK)
    assert (tmp_path / "labels.xyz").read_bytes() == (folder / "labels.xyz").read_bytes()
    assert [row["n_taken"] for row in other.rounds[:2]] == [row["n_taken"] for row in result.rounds[:2]]
    batch = StructureDataset([hot(9)], cutoff=4.0)[0]
    mine, theirs = other.potential.predict(batch), result.potential.predict(batch)
    assert mine.energy == theirs.energy
    np.testing.assert_array_equal(mine.forces_std, theirs.forces_std)


class Backwards(Executor):
    """Does its work at once, and hands it out last first; stops where it is told to."""

    def __init__(self, stop_at=None):
        self.count, self.stop_at, self.waiting = 0, stop_at, []

    def submit(self, function, *arguments):
        self.count += 1
        future = Future()
        try:
            if self.count == self.stop_at:
                raise KeyboardInterrupt
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


def backwards(futures):
    return iter(sorted(futures, key=futures.get, reverse=True))


@pytest.mark.parametrize("stop_at", [None, 6, 16])
def test_the_order_in_which_labels_come_does_not_matter(whole, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr("molml.training.cluster.as_completed", backwards)
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            learn(start(), "emt", tmp_path, rounds=2, executor=Backwards(stop_at), **QUICK)
        frames = ase.io.read(tmp_path / "labels.xyz", ":")
        order = [(atoms.info["round"], atoms.info["walker"]) for atoms in frames]
        assert order == sorted(order)
        assert order[:3] != [(0, 0), (0, 1), (0, 2)] or stop_at > 10
    learn(start(), "emt", tmp_path, rounds=2, executor=Backwards(), resume=stop_at is not None, **QUICK)
    assert (tmp_path / "labels.xyz").read_bytes() == (whole[0] / "labels.xyz").read_bytes()


def test_an_oracle_that_cannot_travel_is_refused_before_the_work(tmp_path):
    oracle = EMT()
    oracle.hook = lambda: None
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(ValueError, match=r"the oracle EMT cannot be had in other processes.*give the name of one"),
    ):
        learn(start(), oracle, tmp_path / "run", executor=pool, **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_can_be_prolonged_and_other_settings_are_refused(whole, tmp_path):
    with pytest.raises(ValueError, match="already holds active learning"):
        learn(start(), EMT(), whole[0], rounds=2, **QUICK)
    with pytest.raises(ValueError, match="labels was 3 and is 4"):
        learn(start(), EMT(), whole[0], resume=True, **{**QUICK, "labels": 4})
    with pytest.raises(ValueError, match="oracle was 'EMT' and is 'Counted'"):
        learn(start(), Counted(), whole[0], resume=True, **QUICK)
    for rounds in (0, 2):
        learn(start(), EMT(), tmp_path, rounds=rounds, resume=rounds > 0, **QUICK)
    assert (tmp_path / "labels.xyz").read_bytes() == (whole[0] / "labels.xyz").read_bytes()


def test_it_ends_when_nothing_is_uncertain_and_when_time_is_over(tmp_path):
    sure = learn(start(), EMT(), tmp_path / "sure", **{**QUICK, "threshold": 100.0})
    assert "no simulation came to a structure" in sure.reason
    assert [row["n_taken"] for row in sure.rounds] == [0]
    late = learn(start(), EMT(), tmp_path / "late", minutes=1e-9, **QUICK)
    assert "minutes are over" in late.reason
    assert len(ase.io.read(tmp_path / "late" / "labels.xyz", ":")) == 10


def test_structures_that_the_oracle_fails_on_are_left_out_by_name(tmp_path):
    with pytest.warns(UserWarning) as caught:
        result = learn(start(), Counted(fail_from=12), tmp_path, **QUICK)
    assert [str(warning.message) for warning in caught[:2]] == [
        f"round 1, simulation {k}: the oracle Counted failed on Cu4: no convergence; it is left out" for k in (1, 2)
    ]
    assert result.rounds[0]["n_failed"] == 2
    assert result.reason == "the oracle failed on what round 2 found"
    with pytest.raises(ValueError, match="the oracle Counted failed on Cu4: no convergence"):
        learn(start(), Counted(fail_from=3), tmp_path / "none", **QUICK)
    with pytest.raises(ValueError, match="the oracle EMT failed on Fe: No EMT-potential for Fe"):
        learn([bulk("Fe")], EMT(), tmp_path / "iron", **QUICK)


def test_labels_that_are_there_are_not_asked_for(tmp_path):
    oracle = Counted()
    learn([hot(seed) for seed in range(8)], oracle, tmp_path, rounds=0, **QUICK)
    assert oracle.count == 2
    with pytest.raises(ValueError, match="the oracle Broken failed on Cu4: .*finite numbers, got others"):
        learn(start(), Broken(), tmp_path / "nan", **QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": -1}, "rounds must be at least 0, got -1"),
        ({"labels": 0}, "labels must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"members": 1}, "members must be at least 2"),
        ({"minutes": 0.0}, "minutes must be positive"),
        ({"threshold": -0.1}, "threshold must be positive"),
        ({"temperature": ()}, "temperature must be one or more"),
        ({"temperature": (300.0, -5.0)}, "temperature must be one or more"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        learn(start(), EMT(), tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_there_must_be_a_structure(tmp_path):
    with pytest.raises(ValueError, match="at least one structure"):
        learn([], EMT(), tmp_path)
    doubled = bulk("Cu", cubic=True)
    doubled.positions[1] = doubled.positions[0]
    with pytest.raises(ValueError, match="start, frame 1.*overlap"):
        learn([*start(), doubled], EMT(), tmp_path)


def test_oracles_by_name(tmp_path, monkeypatch):
    assert isinstance(oracle_of("emt"), EMT)
    dimer = molecule("O2")
    dimer.positions = [[0, 0, 0], [0, 0, 3.4 * 2 ** (1 / 6)]]
    dimer.calc = oracle_of("lj")
    assert dimer.get_potential_energy() == pytest.approx(-0.01034, rel=1e-6)
    np.testing.assert_allclose(dimer.get_forces(), 0, atol=1e-10)
    (tmp_path / "my_oracle.py").write_text(
        "from ase.calculators.emt import EMT\nmake = EMT\nnothing = dict\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(oracle_of("my_oracle:make"), EMT)
    for name in ("my_oracle:nothing", "my_oracle:number", "my_oracle:missing"):
        with pytest.raises(ValueError, match="must be a function that returns an ASE calculator"):
            oracle_of(name)
    with pytest.raises(ValueError, match="oracle must be emt, lj, tblite:METHOD"):
        oracle_of("dft")
    with pytest.raises(ImportError, match="no_such_module"):
        oracle_of("no_such_module:make")


def test_the_oracle_of_tblite():
    pytest.importorskip("tblite")
    water = molecule("H2O")
    water.calc = oracle_of("tblite:GFN2-xTB")
    # GFN2-xTB of water is near -5.07 hartree
    assert water.get_potential_energy() == pytest.approx(-5.07 * units.Hartree, rel=1e-3)


def test_the_command_line(tmp_path, capsys):
    ase.io.write(tmp_path / "start.xyz", start())
    ase.io.write(tmp_path / "test.xyz", [hot(1), hot(2)])
    command = ["energy", "learn", str(tmp_path / "start.xyz"), "--oracle", "emt", "--output", str(tmp_path / "run")]
    options = ["--labels", "2", "--steps", "60", "--threshold", "0.001", "--members", "3", "--cutoff", "4"]
    options += ["--test", str(tmp_path / "test.xyz")]
    assert main([*command, *options, "--rounds", "1", "--temperature", "600", "900"]) == 0
    output = capsys.readouterr().out
    assert "unsure" in output and "ended: 1 rounds are done" in output
    assert "next: molml energy fit" in output
    assert main(["energy", "fit", str(tmp_path / "run" / "labels.xyz"), "--model", "linear", "--n-functions", "8",
                 "--output", str(tmp_path / "fit")]) == 0  # fmt: skip
    assert main([*command, *options]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main([*command, *options, "--resume", "--temperature", "700"]) == 1
    assert "temperature was [600.0, 900.0] and is [700.0]" in capsys.readouterr().err
    assert main(["energy", "learn", "nowhere.xyz", "--oracle", "emt", "--output", str(tmp_path / "no")]) == 1
    assert "nowhere.xyz does not exist" in capsys.readouterr().err


def test_a_dask_cluster_comes_to_the_same(tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    ase.io.write(tmp_path / "start.xyz", start())
    command = ["energy", "learn", str(tmp_path / "start.xyz"), "--oracle", "emt", "--labels", "2", "--steps", "60"]
    command += ["--threshold", "0.001", "--members", "3", "--cutoff", "4", "--rounds", "1"]
    assert main([*command, "--output", str(tmp_path / "here")]) == 0
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as local:
        cluster = ["--cluster", local.scheduler_address]
        assert main([*command, *cluster, "--output", str(tmp_path / "there")]) == 0
        fitted = ["energy", "fit", str(tmp_path / "here" / "labels.xyz"), "--model", "linear", "--members", "2"]
        assert main([*fitted, *cluster, "--output", str(tmp_path / "fit"), "--n-functions", "8"]) == 0
    assert (tmp_path / "here" / "labels.xyz").read_bytes() == (tmp_path / "there" / "labels.xyz").read_bytes()
    capsys.readouterr()
    assert main([*command, "--cluster", "nowhere", "--output", str(tmp_path / "no")]) == 1
    assert "no Dask scheduler answers at nowhere" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
