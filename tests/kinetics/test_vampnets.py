"""VAMPnets: linear ones against TICA and VAMP, curved ones on systems with known answers, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from molml.kinetics.autoencoders import TimeLaggedAutoencoder
from molml.kinetics.linear import PCA, TICA, VAMP
from molml.kinetics.metrics import canonical_correlations, vamp_score
from molml.kinetics.systems import beltway, square_root_model, swiss_roll_model
from molml.kinetics.vampnets import ReversibleVAMPNet, VAMPNet

ALANINE = Path(__file__).parents[2].parent / "shared" / "data" / "md" / "600K"
SMALL = {"hidden": (8,), "max_epochs": 2, "progress": False}
ESTIMATORS = [VAMPNet(1, 1, **SMALL), ReversibleVAMPNet(1, 1, **SMALL)]


# of the whole data, as the closed forms are, in one batch
LINEAR = {"hidden": (), "valid_fraction": 0.0, "batch_size": 3000, "max_epochs": 300, "progress": False}


def test_linear_reversible_network_is_tica(trajectories, angles):
    network, tica = ReversibleVAMPNet(2, 2, **LINEAR).fit(trajectories), TICA(2, 2, scaling=None).fit(trajectories)
    z, known = network.transform(trajectories), tica.transform(trajectories)
    assert angles(z, known).max() < 0.5
    np.testing.assert_allclose(network.eigenvalues_, tica.eigenvalues_, atol=1e-4)
    np.testing.assert_allclose(network.timescales(), tica.timescales(), rtol=2e-3)
    correlation = np.concatenate(known).T @ np.concatenate(z) / 3000
    np.testing.assert_allclose(np.abs(correlation), np.eye(2), atol=2e-2)
    # control
    assert angles(z, PCA(2).fit(trajectories).transform(trajectories)).max() > 20


def test_linear_network_is_vamp(trajectories, angles):
    network, vamp = VAMPNet(2, 2, **LINEAR).fit(trajectories), VAMP(2, 2).fit(trajectories)
    assert angles(network.transform(trajectories), vamp.transform(trajectories)).max() < 1.0
    known = vamp_score(vamp.transform(trajectories), 2)
    assert network.score(trajectories) == pytest.approx(known, abs=1e-3)


def test_score_is_that_of_the_coordinates_and_at_most_one_more_than_their_number(trajectories):
    for estimator in ESTIMATORS:
        fitted = clone(estimator).set_params(n_components=2).fit(trajectories)
        assert fitted.score(trajectories) == vamp_score(fitted.transform(trajectories), 1)
        assert 1.0 < fitted.score(trajectories) < 3.0


@pytest.mark.parametrize("cls", [VAMPNet, ReversibleVAMPNet])
def test_slow_function_of_the_square_root_model(square_root, cls):
    x, slow = square_root
    network = cls(1, 1, max_epochs=40, progress=False).fit(x)
    assert canonical_correlations(network.transform(x), slow)[0] > 0.99
    # the sampling error of the timescale is 4 %
    assert network.timescales()[0] == pytest.approx(9.4912, rel=0.15)
    assert network.score(x) > 1.75
    # control
    assert canonical_correlations(TICA(1, 1).fit(x).transform(x), slow)[0] < 0.8


def test_slowest_function_of_the_swiss_roll_where_a_time_lagged_autoencoder_follows_another():
    system = swiss_roll_model()
    x = system.simulate(20000, seed=0).trajectories[0]
    slow = system.slow_function(x)[:, None]
    network = ReversibleVAMPNet(1, 1, max_epochs=15, progress=False).fit(x)
    assert canonical_correlations(network.transform(x), slow)[0] > 0.99
    tae = TimeLaggedAutoencoder(1, 1, hidden=(50, 30), max_epochs=5, progress=False).fit(x)
    assert canonical_correlations(tae.transform(x), slow)[0] < 0.8


def test_rotating_dynamics_have_timescales_too():
    """A noisy circular motion: its eigenvalues are complex, and symmetrised in time they are smaller."""
    rng = np.random.default_rng(0)
    turn = 0.95 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    x = np.zeros((10000, 2))
    for t in range(1, len(x)):
        x[t] = turn @ x[t - 1] + rng.normal(size=2)
    options = {**LINEAR, "batch_size": 9999, "max_epochs": 100}
    forward, reversible = VAMPNet(1, 2, **options).fit(x), ReversibleVAMPNet(1, 2, **options).fit(x)
    np.testing.assert_allclose(forward.timescales(), -1 / np.log(0.95), rtol=0.1)
    np.testing.assert_allclose(reversible.eigenvalues_, 0.95 * np.cos(0.6), atol=0.02)


def test_copies_of_a_coordinate_are_refused():
    states = np.repeat(np.random.default_rng(0).integers(0, 2, 300), 10)[:, None].astype(float)
    # two states have one function besides the constant
    with pytest.raises(ValueError, match="n_components must be at most 1 for this network and these frames, got 2"):
        ReversibleVAMPNet(1, 2, **SMALL).fit(states)
    assert ReversibleVAMPNet(1, 1, **SMALL).fit(states).transform(states).std() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("system", "n_frames", "stride", "lagtime"),
    [(square_root_model(), 10000, 1, 1), (swiss_roll_model(), 30000, 1, 1), (beltway(), 5000000, 100, 10)],
    ids=["square root", "swiss roll", "beltway"],
)
def test_worst_of_five_seeds(system, n_frames, stride, lagtime):
    for seed in range(5):
        x = system.simulate(n_frames, seed=seed).trajectories[0][::stride]
        slow = system.slow_function(x)[:, None]
        network = ReversibleVAMPNet(lagtime, 1, seed=seed, progress=False).fit(x)
        assert canonical_correlations(network.transform(x), slow)[0] >= 0.99
        network = VAMPNet(lagtime, 1, seed=seed, progress=False).fit(x)
        assert network.score(x) >= system.vamp2(lagtime * stride, 1) - 0.03


@pytest.mark.long
@pytest.mark.skipif(not ALANINE.is_dir(), reason=f"{ALANINE} is absent")
def test_alanine_dipeptide():
    """Aligned Cartesians: correlation with the φ state on runs that were held out, and the timescale of torsions."""
    import mdtraj

    from molml.kinetics import KMeans, MarkovStateModel, align

    runs = [mdtraj.load(path, top=ALANINE / "ala2-heavy.pdb") for path in sorted(ALANINE.glob("*.xtc"))]
    torsions = [np.stack([mdtraj.compute_phi(r)[1][:, 0], mdtraj.compute_psi(r)[1][:, 0]], axis=1) for r in runs]
    state = [((t[:, :1] > 0) & (t[:, :1] < 2.2)).astype(float) for t in torsions]
    circles = [np.concatenate([np.cos(t), np.sin(t)], axis=1) for t in torsions]
    aligned = [10.0 * align(r, runs[0][0]).xyz.reshape(len(r), -1) for r in runs]
    cells = KMeans(200, seed=0).fit(circles[:4])
    known = MarkovStateModel(25).fit(cells.predict(circles[:4])).timescales()[0]
    network = ReversibleVAMPNet(25, 2, progress=False).fit(aligned[:4])
    assert network.timescales()[0] == pytest.approx(known, rel=0.08)
    assert canonical_correlations(network.transform(aligned[4:]), state[4:])[0] >= 0.99
