"""The report: complete, self-contained, and safe against whatever file names and groups say."""

import html.parser
import json
import re

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy.calculator import Calculator
from molml.energy.data import StructureDataset
from molml.energy.metrics import evaluate
from molml.energy.report import read_history, write_metrics, write_report

EVIL = '<script>alert("1")</script>'

HISTORY = [
    {"epoch": k, "train_objective": 1 / k, "train_forces_rmse": 0.2 / k, "valid_forces_rmse": 0.3 / k}
    for k in (1, 2, 3)
]


@pytest.fixture(scope="module")
def potential(lennard_jones):
    return lennard_jones(["Ar", "Kr"], std=True)


def frames(potential, n: int = 6, *, stress: bool = True, outlier: float = 0.0):
    rng = np.random.default_rng(0)
    made = []
    for k in range(n):
        atoms = bulk("Ar", "fcc", 5.3, cubic=True)
        atoms.numbers[k % 2] = 36
        atoms.rattle(0.1, seed=k)
        atoms.info["group"] = EVIL if k % 2 else "bulk"
        calculator = Calculator(potential, on_extrapolation="ignore")
        calculator.calculate(atoms)
        labels = {key: calculator.results[key] for key in ("energy", "forces", *(["stress"] if stress else []))}
        labels["forces"] = labels["forces"] + 0.01 * rng.normal(size=(4, 3))
        labels["forces"][0, 0] += outlier * (k == 0)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        made.append(atoms)
    return made


class Page(html.parser.HTMLParser):
    """Every tag must be closed; tags, attributes and text are kept."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(potential, tmp_path_factory):
    data = StructureDataset(frames(potential))
    evaluations = {"train": evaluate(potential, data), "test": evaluate(potential, data.subset([0, 1]))}
    sources = {"train": f"{EVIL}.xyz", "test": "test.xyz"}
    path = write_report(
        tmp_path_factory.mktemp("run"),
        potential,
        evaluations,
        history=HISTORY,
        sources=sources,
        model_file="it's/<model>.molml",
    )
    return path, evaluations


def test_the_metrics_have_the_fixed_names_and_values(report):
    path, evaluations = report
    content = json.loads((path.parent / "metrics.json").read_text())
    assert set(content) == {"train", "test"}
    assert {f"{q}_{kind}" for q in ("energy", "forces", "stress") for kind in ("rmse", "mae")} <= set(content["test"])
    assert content["test"] == evaluations["test"].metrics


def test_the_report_is_html_with_everything_in_it(report):
    page = Page(report[0].read_text())
    for heading in ("Errors", "Predicted against reference", "Learning curve", "Force error by element",
                    "Errors by group", "Uncertainty", "Worst structures", "The model", "How to use it"):  # fmt: skip
        assert heading in page.text
    for text in ("structures[0]", "Ar3Kr", "nearest²", "8 Å", ".calculator()", "test.xyz", "Rank correlation of error"):
        assert text in page.text


def test_figures_stand_beside_the_report_and_in_it(report):
    files = {file.stem for file in report[0].parent.glob("*.png")}
    assert files == {
        *(f"parity_{q}_{name}" for q in ("energy", "forces", "stress") for name in ("train", "test")),
        *("learning_curve_forces", "force_error_by_element", "uncertainty_energy", "uncertainty_forces"),
        *("uncertainty_coverage", "worst_train", "worst_test"),
    }
    images = [value for key, value in Page(report[0].read_text()).attributes if key == "src"]
    assert len(images) == len(files)
    assert all(image.startswith("data:image/png;base64,iVBORw0KGgo") for image in images)


def test_the_report_needs_no_network_and_runs_nothing(report):
    text = report[0].read_text()
    page = Page(text)
    policy = (
        dict(page.attributes)["content"],
        re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text),
    )
    assert policy[1].group(1) == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {"script", "iframe", "link", "object"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", text)
    assert not [key for key, _ in page.attributes if key.startswith("on")]


def test_what_users_write_is_escaped(report):
    text = report[0].read_text()
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert") >= 2
    assert "&lt;model&gt;" in text


def test_the_check_above_would_see_a_script():
    assert "script" in Page(f"<p>{EVIL}</p>").tags


def test_energies_alone_make_a_short_report(lennard_jones, tmp_path):
    potential = lennard_jones(["Ar", "Kr"])
    made = frames(potential, stress=False)
    for atoms in made:
        atoms.info.clear()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    path = write_report(tmp_path, potential, {"valid": evaluate(potential, StructureDataset(made), n_worst=0)})
    page = Page(path.read_text())
    assert "Forces, validation" not in page.text
    for heading in ("Learning curve", "Errors by group", "Uncertainty", "Worst structures", "Force error by element"):
        assert heading not in page.text


def test_a_history_of_other_terms_is_drawn(potential, tmp_path):
    evaluations = {"train": evaluate(potential, StructureDataset(frames(potential)))}
    path = write_report(tmp_path, potential, evaluations, history=[{"epoch": 1, "train_objective": 1.0}])
    assert "Objective while training" in path.read_text()


def test_outliers_and_overfitting_are_pointed_out(potential, tmp_path):
    good = evaluate(potential, StructureDataset(frames(potential)))
    bad = evaluate(potential, StructureDataset(frames(potential, 60, outlier=3.0)))
    text = write_report(tmp_path, potential, {"train": good, "test": bad}).read_text()
    assert "times the RMSE in the test set" in text
    assert "more training structures would help most" in text
    text = write_report(tmp_path, potential, {"train": good, "test": good}).read_text()
    assert "class=note" not in text


def test_names_of_sets_are_checked(potential, tmp_path):
    evaluation = evaluate(potential, StructureDataset(frames(potential)))
    with pytest.raises(ValueError, match="train, valid or test, got 'training'"):
        write_metrics(tmp_path / "metrics.json", {"training": evaluation})
    with pytest.raises(ValueError, match="at least one of train, valid and test"):
        write_report(tmp_path, potential, {})


def test_numbers_that_are_not_finite_are_not_written(potential, tmp_path):
    evaluation = evaluate(potential, StructureDataset(frames(potential)))
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(tmp_path / "metrics.json", {"test": evaluation._replace(metrics={"energy_rmse": float("nan")})})
    assert not (tmp_path / "metrics.json").exists()


def test_a_history_is_read_without_the_torn_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert read_history(path) == [{"epoch": 1}, {"epoch": 2}]
    path.write_text('{"epoch": 1}\nnonsense\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl:2: expected a JSON object"):
        read_history(path)
