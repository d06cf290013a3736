import math

import pytest
import torch

from molml.nn.flows import CouplingFlow


def disturbed(n_dimensions, **settings):
    """A flow with random weights in every layer."""
    flow = CouplingFlow(n_dimensions, seed=1, hidden=(16,), dtype=torch.float64, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    flow.set_scale(torch.randn(50, n_dimensions, generator=generator, dtype=torch.float64) * 3 + 1)
    return flow


def points(n, n_dimensions, seed=0):
    return torch.randn(n, n_dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n_dimensions", [2, 3, 7, 64])
def test_inverse_undoes_forward(n_dimensions):
    flow = disturbed(n_dimensions)
    u = points(20, n_dimensions)
    x, there = flow(u)
    back, home = flow.inverse(x)
    assert (x - u).abs().max() > 0.1  # a control: it is not the identity
    # rounding of eight layers, each of which stretches by up to e²
    torch.testing.assert_close(back, u, rtol=0, atol=1e-7)
    torch.testing.assert_close(home, -there, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n_dimensions", [2, 5])
def test_volume_is_the_determinant_of_the_jacobian(n_dimensions):
    flow = disturbed(n_dimensions, n_layers=4)
    u = points(3, n_dimensions)
    _, volume = flow(u)
    for row, expected in zip(u, volume, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: flow(r[None])[0][0], row)
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(expected.item(), abs=1e-9)


def test_density_integrates_to_one():
    flow = disturbed(2, n_layers=4)
    axis = torch.linspace(-40, 40, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = flow.log_density(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)  # the rest lies outside the grid or between its points


def test_untrained_flow_is_the_standard_normal():
    flow = CouplingFlow(3, seed=0, dtype=torch.float64)
    x = points(10, 3)
    normal = -0.5 * x.square().sum(1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_density(x), normal)


def test_scale_gives_the_gaussian_of_the_samples():
    flow = CouplingFlow(3, seed=0, dtype=torch.float64)
    samples = points(400, 3, seed=1) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, -7.0, 2.0])
    flow.set_scale(samples)
    gaussian = torch.distributions.Normal(samples.mean(0), samples.std(0, correction=0))
    x = points(10, 3)
    torch.testing.assert_close(flow.log_density(x), gaussian.log_prob(x).sum(1))


def test_every_coordinate_is_changed_and_depends_on_every_other():
    flow = disturbed(6, n_layers=8)
    jacobian = torch.autograd.functional.jacobian(lambda r: flow(r[None])[0][0], points(1, 6)[0])
    assert (jacobian.abs() > 1e-12).all()
    alone = disturbed(6, n_layers=1)  # a control: one layer leaves half of them alone
    jacobian = torch.autograd.functional.jacobian(lambda r: alone(r[None])[0][0], points(1, 6)[0])
    assert (jacobian.abs() < 1e-12).sum() >= 15


def test_maximum_likelihood_learns_two_modes():
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (2000, 1), generator=generator) * 2.0 - 1
    samples = torch.cat([2 * side, -side], 1) + 0.3 * torch.randn(2000, 2, generator=generator)
    flow = CouplingFlow(2, seed=0, n_layers=6, hidden=(32, 32))
    flow.set_scale(samples)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    before = flow.log_density(samples).mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        (-flow.log_density(samples).mean()).backward()
        optimizer.step()
    # entropy of two Gaussians far apart: that of one, plus log 2
    best = -(math.log(2 * math.pi * math.e) + 2 * math.log(0.3) + math.log(2))
    after = flow.log_density(samples).mean().item()
    assert before < best - 0.5
    assert best - 0.15 < after < best + 0.1
    drawn = flow.sample(2000, generator=generator)
    assert 0.4 < (drawn[:, 0] > 0).float().mean().item() < 0.6


def test_seed_decides_everything():
    one, same, other = (CouplingFlow(4, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.orders, other.orders)
    a, b = (one.sample(3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert CouplingFlow(4).n_dimensions == 4


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="n_dimensions must be at least 2"):
        CouplingFlow(1)
    with pytest.raises(ValueError, match="n_layers must be at least 1"):
        CouplingFlow(2, n_layers=0)
    flow = CouplingFlow(2, seed=0)
    for call in (flow, flow.inverse, flow.log_density, flow.set_scale):
        with pytest.raises(ValueError, match=r"points must have shape \(n, 2\), got \(5, 3\)"):
            call(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="vary in every coordinate"):
        flow.set_scale(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="vary in every coordinate"):
        flow.set_scale(torch.tensor([[0.0, 1.0], [torch.nan, 2.0]]))
