"""Losses: closed forms, whole data sets equal to batches, gradients that stay finite."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from molml.kinetics.data import TimeLagged, TimeLaggedDataset
from molml.kinetics.loss import (
    PIECE,
    ReconstructionLoss,
    VAMPLoss,
    VariationalLoss,
    covariances,
    lagged_moments,
    pieces,
    vamp2,
)
from molml.nn import MLP


@pytest.fixture
def walk():
    """Frames (5000, 3) of a linear process, in double precision."""
    rng = np.random.default_rng(0)
    x = np.zeros((5000, 3))
    step = np.array([[0.9, 0.1, 0.0], [-0.1, 0.8, 0.0], [0.0, 0.0, 0.3]])
    for t in range(1, len(x)):
        x[t] = step @ x[t - 1] + rng.normal(size=3)
    return x


def networks(n_outputs=2, n_in=3, n_targets=3):
    return nn.ModuleDict(
        {
            "encoder": MLP(n_in, [4], n_outputs, activation="tanh", seed=0, dtype=torch.float64),
            "decoder": MLP(2, [4], n_targets, activation="tanh", seed=1, dtype=torch.float64),
        }
    )


MATRIX = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 0.5]], dtype=torch.float64)
SHIFT = torch.tensor([0.3, -0.2], dtype=torch.float64)


def test_reconstruction_is_the_mean_squared_error_of_the_target(walk):
    model, dataset = networks(n_targets=2).eval(), TimeLaggedDataset(walk, 2)
    term = ReconstructionLoss(MATRIX, SHIFT)(model, dataset)["mse"]
    x, y = torch.from_numpy(walk[:-2]), torch.from_numpy(walk[2:])
    error = (model["decoder"](model["encoder"](x)) - (y @ MATRIX.T + SHIFT)).detach()
    assert float(term.total) / term.count == pytest.approx(float(error.square().mean()), rel=1e-12)
    assert term.count == 2 * 4998


@pytest.mark.parametrize("loss", [ReconstructionLoss(MATRIX, SHIFT), VariationalLoss(MATRIX, SHIFT, 0.5)])
def test_sums_over_batches_are_those_of_the_whole(walk, loss):
    model = networks(n_outputs=2 if isinstance(loss, ReconstructionLoss) else 4, n_targets=2).eval()
    dataset = TimeLaggedDataset(np.tile(walk, (4, 1)), 1)
    assert len(dataset) > PIECE
    whole = loss(model, dataset)
    parts = [
        loss(model, dataset.collate(range(first, min(first + 999, len(dataset)))))
        for first in range(0, len(dataset), 999)
    ]
    for name, term in whole.items():
        assert float(term.total) == pytest.approx(sum(float(part[name].total) for part in parts), rel=1e-12)
        assert term.count == sum(part[name].count for part in parts)


def test_variational_terms_follow_their_definition(walk):
    model = networks(n_outputs=4, n_targets=2).eval()
    batch = TimeLaggedDataset(walk, 1).collate(range(100))
    terms = VariationalLoss(MATRIX, SHIFT, 0.25)(model, batch)
    mean, logvar = model["encoder"](batch.x).detach().split(2, dim=1)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum()
    error = 0.5 * (model["decoder"](mean).detach() - (batch.y @ MATRIX.T + SHIFT)).square().sum()
    assert float(terms["kl"].total) == pytest.approx(float(kl), rel=1e-12) and terms["kl"].weight == 0.25
    assert float(terms["error"].total) == pytest.approx(float(error), rel=1e-12)
    assert terms["kl"].count == terms["error"].count == 100
    # in training, z is a sample
    sampled = VariationalLoss(MATRIX, SHIFT, 0.25)(model.train(), batch)["error"].total.detach()
    assert float(sampled) != float(error)


def test_covariances_are_those_of_numpy(walk):
    dataset = TimeLaggedDataset(walk, 3)
    c = covariances(lagged_moments(nn.Identity(), dataset), reversible=False)
    x, y = walk[:-3], walk[3:]
    known = np.cov(x.T, y.T, bias=True)
    for found, part in ((c.c00, known[:3, :3]), (c.c0t, known[:3, 3:]), (c.ctt, known[3:, 3:])):
        np.testing.assert_allclose(found, part, rtol=0, atol=1e-12)
    np.testing.assert_allclose(c.mean_x, x.mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(c.mean_y, y.mean(0), rtol=0, atol=1e-13)


def test_reversible_covariances_are_those_of_pairs_and_reversed_pairs(walk):
    dataset = TimeLaggedDataset(walk, 3)
    c = covariances(lagged_moments(nn.Identity(), dataset), reversible=True)
    x, y = walk[:-3], walk[3:]
    known = np.cov(np.concatenate([x, y]).T, np.concatenate([y, x]).T, bias=True)
    np.testing.assert_allclose(c.c00, known[:3, :3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(c.c0t, known[:3, 3:], rtol=0, atol=1e-12)
    assert c.ctt is c.c00 and c.mean_y is c.mean_x


@pytest.mark.parametrize("reversible", [True, False])
def test_score_is_that_of_singular_values(walk, reversible):
    moments = lagged_moments(nn.Identity(), TimeLaggedDataset(walk, 1))
    c = covariances(moments, reversible=reversible)
    roots = [scipy.linalg.inv(scipy.linalg.sqrtm(part)) for part in (c.c00, c.ctt)]
    known = 1 + np.square(scipy.linalg.svdvals(roots[0] @ c.c0t @ roots[1])).sum()
    # the ridge takes a millionth of each of three variances
    assert 1 + vamp2(c).value == pytest.approx(known, rel=1e-5)
    loss = VAMPLoss(reversible=reversible)(nn.ModuleDict({"encoder": nn.Identity()}).eval(), TimeLaggedDataset(walk, 1))
    assert float(loss["score"].total) == -1 - vamp2(c).value and loss["score"].count == 1


def test_reversible_score_is_the_sum_of_squared_eigenvalues(walk):
    c = covariances(lagged_moments(nn.Identity(), TimeLaggedDataset(walk, 1)), reversible=True)
    eigenvalues = scipy.linalg.eigh(c.c0t, c.c00, eigvals_only=True)
    assert vamp2(c).value == pytest.approx(np.square(eigenvalues).sum(), rel=1e-5)


def test_whole_data_are_scored_at_once(walk):
    """A mean of scores of batches is another number."""
    model = nn.ModuleDict({"encoder": nn.Identity()}).eval()
    dataset, loss = TimeLaggedDataset(walk, 1), VAMPLoss(reversible=False)
    batches = [dataset.collate(range(first, first + 50)) for first in range(0, 4950, 50)]
    mean = np.mean([float(loss(model, batch)["score"].total) for batch in batches])
    assert abs(mean - float(loss(model, dataset)["score"].total)) > 0.1


@pytest.mark.parametrize("reversible", [True, False])
def test_score_does_not_depend_on_scale_or_mixture_of_outputs(walk, reversible):
    dataset = TimeLaggedDataset(walk, 1)
    mixing = torch.tensor([[2.0, 0.3, 0.0], [0.0, 50.0, 1.0], [0.1, 0.0, -0.4]], dtype=torch.float64)
    scores = [
        vamp2(covariances(lagged_moments(encoder, dataset), reversible=reversible)).value
        for encoder in (nn.Identity(), lambda x: x @ mixing + 7.0)
    ]
    # the ridge is relative to the mean variance, the smallest of which is 1e-4 of it
    assert scores[0] == pytest.approx(scores[1], rel=2e-2)


class Outputs(nn.Module):
    """A function of frames, as an encoder."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def batch_score(function, x, y, reversible):
    encoder = nn.ModuleDict({"encoder": Outputs(function)})
    return VAMPLoss(reversible=reversible)(encoder, TimeLagged(x, y))["score"].total


@pytest.mark.parametrize("reversible", [True, False])
def test_score_of_a_batch_and_its_gradient_are_right(walk, reversible):
    dataset = TimeLaggedDataset(walk[:41], 1)
    x, y = dataset.collate(range(40))
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: batch_score(lambda x: x @ w, x, y, reversible), (weight,))
    whole = vamp2(covariances(lagged_moments(lambda x: x @ weight, dataset), reversible=reversible)).value
    assert float(batch_score(lambda x: x @ weight.detach(), x, y, reversible)) == pytest.approx(-1 - whole, rel=1e-12)


def collapsed(x):
    return x[:, :1].expand(-1, 2)


def constant(x):
    return 0.0 * x + 3.0


def equal_variances(x):
    return torch.stack([x[:, 0], torch.flip(x[:, 0], [0])], dim=1)


@pytest.mark.parametrize("outputs", [collapsed, constant, equal_variances])
@pytest.mark.parametrize("reversible", [True, False])
def test_gradients_of_degenerate_outputs_are_finite(walk, outputs, reversible):
    x, y = (torch.from_numpy(part).requires_grad_() for part in (walk[:200], walk[1:201]))
    score = batch_score(outputs, x, y, reversible)
    gradients = torch.autograd.grad(score, (x, y))
    assert torch.isfinite(score) and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_pieces_cover_a_data_set_once(walk):
    dataset = TimeLaggedDataset(np.tile(walk, (7, 1)), 1)
    found = torch.cat([piece.x for piece in pieces(dataset)])
    assert torch.equal(found, dataset.collate(range(len(dataset))).x)
    batch = dataset.collate([3, 5])
    assert next(pieces(batch)) is batch
