import json

import numpy as np
import pytest

import molml
from molml.kinetics import TICA, compare
from molml.kinetics.comparison import METHODS, estimator_of

LINEAR = ("pca", "tica", "vamp")


@pytest.fixture(scope="module")
def hidden_switch():
    """Two runs of a slow switch that is drowned in fast noise of larger variance: PCA must miss it, TICA must not."""
    rng = np.random.default_rng(5)
    runs, states = [], []
    for _ in range(2):
        switch = np.cumsum(rng.random(6000) < 0.01) % 2
        noise = rng.normal(size=(6000, 3)) * [10.0, 5.0, 0.1]
        x = noise.copy()
        x[:, 2] += switch
        runs.append(x)
        states.append(np.stack([switch, 1 - switch], axis=1).astype(float))
    return runs, states


@pytest.fixture(scope="module")
def comparison(hidden_switch):
    runs, states = hidden_switch
    return compare(
        runs, 5, methods=LINEAR, dims=(1,), reference=states, timestep=0.5, n_folds=4, n_states=20, progress=False
    )


def test_the_slow_coordinate_wins(comparison):
    pca, tica, vamp = (comparison.methods[name].metrics for name in LINEAR)
    # two-state chain, p = 0.01 each way: λ = 0.98 per frame, t = -1 / ln 0.98 = 49.5 frames = 24.7 ps
    for found in (tica, vamp):
        assert found["timescales_low"][0] < 24.7 < found["timescales_high"][0]
        assert found["state_correlation"] > 0.97
        # 0.98^5 = 0.904, times 0.25 / 0.26 for the noise on the switch, squared, and 1 for the constant
        assert found["vamp2"] == pytest.approx(1.755, abs=0.05)
    assert pca["vamp2"] < 1.05
    assert pca["state_correlation"] < 0.3
    assert pca["timescales"][0] < 5
    assert tica["vamp2"] > pca["vamp2"] + 5 * pca["vamp2_se"]


def test_regression_error_is_what_the_coordinate_explains(comparison):
    # of three whitened features one has a predictable part: variance 1/4 of switching in 1/4 + 0.01, autocorrelation
    # 0.904 over the lag, so that 0.25 / 0.26 * 0.904² of a third is explained
    expected = 1 - (0.25 / 0.26 * 0.904**2) / 3
    assert comparison.methods["tica"].metrics["regression_error"] == pytest.approx(expected, abs=0.03)
    assert comparison.methods["pca"].metrics["regression_error"] == pytest.approx(1.0, abs=0.02)


def test_own_timescales_and_metastability(comparison):
    tica = comparison.methods["tica"].metrics
    # TICA sees the switch through the noise: its autocorrelation is smaller by 0.25 / 0.26
    assert tica["own_timescales"][0] == pytest.approx(-2.5 / np.log(0.904 * 0.25 / 0.26), rel=0.15)
    # to be on the same side 5 frames later: (1 + 0.904) / 2
    assert tica["metastability"] == pytest.approx(0.952, abs=0.02)


def test_metrics_are_json_and_say_what_was_done(comparison):
    metrics = json.loads(json.dumps(comparison.metrics, allow_nan=False))
    assert (metrics["lagtime"], metrics["lagtime_frames"], metrics["timestep"]) == (2.5, 5, 0.5)
    assert (metrics["n_frames"], metrics["n_trajectories"], metrics["n_folds"]) == (12000, 2, 4)
    wanted = {"vamp2", "vamp2_se", "timescales", "own_timescales", "fit_seconds", "regression_error", "metastability"}
    assert wanted <= metrics["methods"]["tica"].keys()
    folds = metrics["methods"]["tica"]["vamp2_folds"]
    assert metrics["methods"]["tica"]["vamp2"] == pytest.approx(np.mean(folds))
    assert metrics["methods"]["tica"]["vamp2_se"] == pytest.approx(np.std(folds, ddof=1) / 2)
    assert metrics["reference"]["timescales_low"][0] < 24.7 < metrics["reference"]["timescales_high"][0]


def test_table(comparison):
    head, rows = comparison.table()
    assert [row[0] for row in rows] == [*LINEAR, "reference"]
    assert all(len(row) == len(head) for row in rows)
    assert "tica" in repr(comparison)
    assert comparison._repr_html_().count("<tr>") == 5


def test_processes_give_the_same_figures(hidden_switch, comparison):
    runs, states = hidden_switch
    again = compare(
        runs,
        5,
        methods=("tica",),
        dims=(1,),
        reference=states,
        timestep=0.5,
        n_folds=4,
        n_states=20,
        n_jobs=2,
        progress=False,
    )
    first, second = comparison.methods["tica"].metrics, again.methods["tica"].metrics
    assert {k: v for k, v in first.items() if k != "fit_seconds"} == {
        k: v for k, v in second.items() if k != "fit_seconds"
    }


def test_held_out_blocks_are_held_out():
    """White noise in many dimensions: whatever a fit finds in it is gone in frames that it has not seen."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1200, 60))
    result = compare(noise, 1, methods=("tica",), dims=(1,), n_folds=3, n_states=4, progress=False)
    held_out = result.methods["tica"].metrics["vamp2"]
    assert held_out < 1.03
    # the control: on the frames that were fitted, the score is far above that of noise
    assert TICA(1, 1).fit(noise).score(noise) > 1.06


def test_several_dimensions_and_files(hidden_switch, tmp_path):
    runs, _ = hidden_switch
    result = compare(
        runs,
        5,
        methods=("pca", "tica"),
        dims=(2, 1),
        n_folds=2,
        n_states=10,
        directory=tmp_path,
        metadata={"feature_names": ["a", "b", "c"]},
        progress=False,
    )
    assert list(result.methods) == ["pca-1d", "pca", "tica-1d", "tica"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.molml" for name in result.methods}
    loaded = molml.load(tmp_path / "tica-1d.molml")
    np.testing.assert_array_equal(loaded.transform(runs)[0], result.methods["tica-1d"].coordinates[0])
    assert result.reference is None
    assert "correlations" not in result.methods["tica"].metrics


@pytest.mark.parametrize("method", [*METHODS[3:], "variational-tae"])
def test_networks_take_part(hidden_switch, method):
    runs, states = hidden_switch
    result = compare(
        [x[:800] for x in runs],
        5,
        methods=(method,),
        dims=(1,),
        reference=[x[:800] for x in states],
        n_folds=2,
        n_states=8,
        max_epochs=2,
        progress=False,
    )
    assert np.isfinite(result.methods[method].metrics["vamp2"])


def test_estimator_of_refuses_nothing_but_knows_all():
    assert {estimator_of(m, 1, 3, max_epochs=5, seed=1, progress=False).__class__.__name__ for m in METHODS} == {
        "PCA",
        "TICA",
        "VAMP",
        "Autoencoder",
        "TimeLaggedAutoencoder",
        "VAMPNet",
        "ReversibleVAMPNet",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("tica", "ica")}, "methods must be different ones among pca, tica.*'ica'"),
        ({"methods": ()}, "methods must be different ones"),
        ({"methods": ("tica", "tica")}, "methods must be different ones"),
        ({"dims": ()}, "dims must be different whole numbers of at least 1"),
        ({"dims": (0,)}, "dims must be different whole numbers of at least 1"),
        ({"dims": (1, 1)}, "dims must be different whole numbers of at least 1"),
        ({"n_folds": 1}, "n_folds must be at least 2, got 1"),
        ({"n_states": 1}, "n_states must be at least 2, got 1"),
        ({"n_jobs": 0}, "n_jobs must be at least 1, got 0"),
        ({"timestep": 0.0}, "timestep must be a positive time in ps, got 0.0"),
        ({"timestep": float("nan")}, "timestep must be a positive time in ps, got nan"),
        ({"lagtime": 0}, "lagtime must be at least one frame, got 0"),
        ({"lagtime": 6000}, "lagtime must be shorter than every trajectory"),
        ({"reference": [np.zeros((10, 1))]}, "reference must have the frames of the trajectories"),
        ({"reference_names": ["a"], "reference": None}, "reference_names are given without reference"),
    ],
)
def test_settings_that_do_not_fit(hidden_switch, change, message):
    runs, _ = hidden_switch
    settings = {"lagtime": 5, "methods": ("tica",), "progress": False} | change
    with pytest.raises(ValueError, match=message):
        compare(runs, **settings)


def test_reference_names_must_fit(hidden_switch):
    runs, states = hidden_switch
    with pytest.raises(ValueError, match="reference_names must name 2 columns, got 1 names"):
        compare(runs, 5, methods=("tica",), reference=states, reference_names=["a"], progress=False)
