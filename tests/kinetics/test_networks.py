"""What network estimators share: whitening, restarts, rotation of outputs, networks that stand alone."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from molml.kinetics import networks
from molml.kinetics.covariance import Covariances
from molml.kinetics.data import TimeLaggedDataset, whole
from molml.kinetics.networks import (
    First,
    Output,
    apply,
    explained,
    explaining_modes,
    frame_statistics,
    sequential,
    singular_modes,
    slow_modes,
    whitened,
    whitened_targets,
)
from molml.nn import MLP


@pytest.fixture
def walks():
    """Two trajectories of a linear process with a rotating pair, in 4 dimensions, and a copy of a column."""
    rng = np.random.default_rng(0)
    step = np.diag([0.95, 0.5, 0.5, 0.0]) + np.array([[0, 0, 0, 0], [0, 0, 0.4, 0], [0, -0.4, 0, 0], [0, 0, 0, 0]])
    result = []
    for n in (3000, 1500):
        x = np.zeros((n, 4))
        for t in range(1, n):
            x[t] = step @ x[t - 1] + rng.normal(size=4)
        result.append(np.concatenate([x * [1.0, 10.0, 0.1, 3.0] + 5.0, x[:, :1]], axis=1))
    return result


def test_whitened_frames_have_unit_covariance_and_the_rank_of_the_data(walks):
    frames = frame_statistics(Covariances(2).update(walks))
    assert frames.whitening.shape == (4, 5)
    with whitened(walks, frames) as arrays:
        assert [x.dtype for x in arrays] == [np.float32] * 2
        joined = np.concatenate([x[:-2] for x in arrays]).astype(float)
    np.testing.assert_allclose(np.cov(joined.T, bias=True), np.eye(4), atol=1e-5)
    np.testing.assert_allclose(joined.mean(0), 0.0, atol=1e-6)


def test_targets_are_white_at_the_ends_of_pairs(walks):
    covariances = Covariances(2).update(walks)
    frames = frame_statistics(covariances)
    matrix, shift = whitened_targets(covariances, frames)
    ends = np.concatenate([x[2:] for x in walks])
    targets = (ends - frames.mean) @ frames.whitening.T @ matrix.T + shift
    np.testing.assert_allclose(np.cov(targets.T, bias=True), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(targets.mean(0), 0.0, atol=1e-9)


def test_streams_are_whitened_like_arrays_and_stay_on_the_disk(walks, streamed):
    frames = frame_statistics(Covariances(0).update(walks))
    with whitened(walks, frames) as arrays, whitened(streamed(walks), frames) as maps:
        assert all(isinstance(x, np.memmap) for x in maps)
        for x, y in zip(arrays, maps, strict=True):
            # products over other pieces are rounded otherwise
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)
        path = maps[0].filename
    assert not path.exists()


def test_constant_frames_are_refused(walks):
    with pytest.raises(ValueError, match="X must vary, got 5 feature.s. that are constant over n_samples=4500 frames"):
        frame_statistics(Covariances(0).update([np.full_like(x, 0.1) for x in walks]))
    x = walks[0].copy()
    x[2:] = 1.0
    covariances = Covariances(2).update(x)
    with pytest.raises(ValueError, match="X must vary, got constant frames after the first 2"):
        whitened_targets(covariances, frame_statistics(covariances))


def test_slow_modes_solve_the_symmetrised_problem(walks):
    pairs = TimeLaggedDataset([x[:, :4] for x in walks], 2)
    output, eigenvalues = slow_modes(nn.Identity(), pairs, 3)
    x, y = (np.concatenate([w[s, :4] for w in walks]) for s in (slice(None, -2), slice(2, None)))
    both, other = np.concatenate([x, y]), np.concatenate([y, x])
    c = np.cov(both.T, other.T, bias=True)
    known = scipy.linalg.eigh(c[:4, 4:], c[:4, :4], eigvals_only=True)[::-1]
    np.testing.assert_allclose(eigenvalues, known[:3], atol=1e-10)
    z = both @ output.matrix.T + output.shift
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-8)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(3), atol=1e-8)
    z = other @ output.matrix.T + output.shift, z
    np.testing.assert_allclose(z[0].T @ z[1] / len(both), np.diag(eigenvalues), atol=1e-8)


def test_singular_modes_are_left_singular_functions(walks):
    pairs = TimeLaggedDataset([x[:, :4] for x in walks], 1)
    output, eigenvalues = singular_modes(nn.Identity(), pairs, 3)
    x, y = (np.concatenate([w[s, :4] for w in walks]) for s in (slice(None, -1), slice(1, None)))
    c = np.cov(x.T, y.T, bias=True)
    koopman = np.linalg.solve(c[:4, :4], c[:4, 4:])
    # all four outputs are needed for an invariant space; three hold the rotating pair and the slow process
    assert eigenvalues[0] == pytest.approx(np.sort(np.abs(np.linalg.eigvals(koopman)))[-1], abs=1e-3)
    # a rotating pair has two equal absolute eigenvalues, |0.5 + 0.4i|
    assert eigenvalues[1] == pytest.approx(eigenvalues[2], abs=1e-10)
    assert eigenvalues[1] == pytest.approx(np.hypot(0.5, 0.4), abs=0.02)
    z = x @ output.matrix.T + output.shift
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(3), atol=1e-8)
    # what of each is known a step later: singular values, descending
    known = np.cov(z.T, y.T, bias=True)[:3, 3:] @ np.linalg.inv(scipy.linalg.sqrtm(c[4:, 4:]))
    lengths = np.linalg.norm(known, axis=1)
    assert np.all(np.diff(lengths) < 0)
    np.testing.assert_allclose(known @ known.T, np.diag(lengths**2), atol=1e-8)


def test_modes_that_are_copies_are_refused(walks):
    pairs = TimeLaggedDataset([x[:, :4] for x in walks], 1)

    def doubled(x):
        return torch.stack([x[:, 0], 3.0 * x[:, 0]], dim=1)

    assert slow_modes(doubled, pairs, 1)[1] == pytest.approx([0.95], abs=0.02)
    for modes in (slow_modes, singular_modes):
        with pytest.raises(ValueError, match="n_components must be at most 1 for this network and these frames, got 2"):
            modes(doubled, pairs, 2)
        with pytest.raises(ValueError, match="n_components must be at most 0 for this network and these frames, got 1"):
            modes(lambda x: 0.0 * x[:, :2], pairs, 1)


def test_explaining_modes_are_principal_components_of_what_is_explained():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 2)) @ [[1.0, 2.0], [0.0, 0.3]] + 1.0
    targets = z @ [[1.0, 0.0, 3.0], [0.0, 1.0, 1.0]]
    output = explaining_modes(Covariances(0).update(np.concatenate([z, targets], axis=1)), 2)
    found = z @ output.matrix.T + output.shift
    centred = targets - targets.mean(0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    # unit variance, up to the sign
    np.testing.assert_allclose(np.abs(found.T @ left[:, :2]) / np.sqrt(len(z)), np.eye(2), atol=1e-8)
    with pytest.raises(ValueError, match="n_components must be at most 1"):
        explaining_modes(Covariances(0).update(np.concatenate([z[:, [0, 0]], targets], axis=1)), 2)


@pytest.mark.parametrize("hidden", [[], [7], [7, 5]])
@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_sequential_is_the_chain_of_its_parts(walks, hidden, activation):
    frames = frame_statistics(Covariances(0).update(walks))
    encoder = MLP(4, hidden, 3, activation=activation, seed=0, dtype=torch.float32)
    rng = np.random.default_rng(0)
    output = Output(rng.normal(size=(2, 3)), rng.normal(size=2))
    network = sequential(frames, encoder, activation, output)
    x = torch.from_numpy(walks[0][:200])
    u = (x - torch.from_numpy(frames.mean)) @ torch.from_numpy(frames.whitening.T)
    known = encoder.double()(u).detach().numpy() @ output.matrix.T + output.shift
    np.testing.assert_allclose(network(x).numpy(), known, rtol=0, atol=1e-10)
    assert [type(m) for m in network] == [nn.Linear, *[networks.ACTIVATIONS[activation], nn.Linear] * len(hidden)]


def test_outputs_of_streams_and_lists_agree(walks, streamed):
    network = nn.Linear(5, 2, dtype=torch.float64)
    lists, streams = apply(network, walks), apply(network, streamed(walks))
    for x, z, s in zip(walks, lists, streams, strict=True):
        np.testing.assert_allclose(z, network(torch.from_numpy(x)).detach().numpy(), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(z, s, rtol=1e-13, atol=1e-13)


def test_first_columns():
    x = torch.arange(6.0).view(2, 3)
    assert First(2)(x).tolist() == [[0.0, 1.0], [3.0, 4.0]]


@pytest.mark.parametrize("value", [0, 1.5, "2", True, None])
def test_whole_numbers_only(value):
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got"):
        whole("n", value, 1)
    assert whole("n", np.int64(3), 1) == 3


def test_nothing_is_explained_of_what_does_not_vary():
    assert explained(1.0, 4.0) == 0.75
    with pytest.raises(ValueError, match="X must vary, got frames that are all the same"):
        explained(0.0, 0.0)
