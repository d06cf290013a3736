"""Normal distributions: against scipy, torch.distributions, and averages over samples."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.nn import gaussian

numbers = st.floats(-3, 3)
vectors = st.integers(1, 4).flatmap(lambda n: st.tuples(*(st.lists(numbers, min_size=n, max_size=n) for _ in range(4))))


def tensors(lists):
    return [torch.tensor(values, dtype=torch.float64) for values in lists]


@given(vectors)
def test_log_density_is_that_of_scipy(lists):
    x, mean, logvar, _ = lists
    known = scipy.stats.norm.logpdf(x, mean, np.exp(0.5 * np.array(logvar))).sum()
    assert float(gaussian.log_density(*tensors((x, mean, logvar)))) == pytest.approx(known, rel=1e-12, abs=1e-12)


@given(vectors)
def test_divergence_is_that_of_torch(lists):
    mean, logvar, prior_mean, prior_logvar = tensors(lists)
    q = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    p = torch.distributions.Normal(prior_mean, torch.exp(0.5 * prior_logvar))
    known = float(torch.distributions.kl_divergence(q, p).sum())
    found = float(gaussian.kl_divergence(mean, logvar, prior_mean, prior_logvar))
    assert found == pytest.approx(known, rel=1e-10, abs=1e-10)
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    known = float(torch.distributions.kl_divergence(q, standard).sum())
    assert float(gaussian.kl_divergence(mean, logvar)) == pytest.approx(known, rel=1e-10, abs=1e-10)


@given(vectors)
def test_divergence_is_zero_only_from_itself(lists):
    mean, logvar, *_ = tensors(lists)
    assert float(gaussian.kl_divergence(mean, logvar, mean, logvar)) == 0.0
    assert float(gaussian.kl_divergence(mean, logvar, mean + 0.1, logvar)) > 0.0
    assert float(gaussian.kl_divergence(mean, logvar, mean, logvar + 0.1)) > 0.0


def test_divergence_keeps_its_digits_near_zero():
    # ½ (s - 1 - ln s) with s = 1 + e is e²/4 - …; computed as a difference of numbers near 1 nothing would be left
    logvar = torch.tensor([1e-9], dtype=torch.float64)
    assert float(gaussian.kl_divergence(torch.zeros_like(logvar), logvar)) == pytest.approx(2.5e-19, rel=1e-6)


def test_samples_have_the_mean_and_the_variance():
    mean, logvar = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.0, 2 * math.log(3.0)]).double()
    generator = torch.Generator().manual_seed(0)
    n = 20000
    z = gaussian.sample(mean.expand(n, 2), logvar.expand(n, 2), generator=generator)
    # five standard errors
    assert (z.mean(0) - mean).abs().tolist() < [5 / n**0.5, 15 / n**0.5]
    assert z.var(0).tolist() == pytest.approx([1.0, 9.0], rel=5 * (2 / n) ** 0.5)


def test_samples_follow_the_generator():
    mean, logvar = torch.zeros(3, 2), torch.zeros(3, 2)
    first, same, other = (gaussian.sample(mean, logvar, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_gradients_reach_both_parameters_through_a_sample():
    mean = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    logvar = torch.tensor([0.1, 0.7], dtype=torch.float64, requires_grad=True)
    z = gaussian.sample(mean, logvar, generator=torch.Generator().manual_seed(0))
    slopes = torch.autograd.grad(z.sum(), (mean, logvar))
    # dz/dμ = 1 and dz/dlogvar = ½ (z - μ)
    assert slopes[0].tolist() == [1.0, 1.0]
    torch.testing.assert_close(slopes[1], 0.5 * (z - mean).detach())


def test_divergence_is_the_mean_difference_of_log_densities():
    mean, logvar, prior_mean, prior_logvar = tensors([[0.5, -1.0], [0.2, -0.5], [0.0, 1.0], [-0.3, 0.4]])
    n = 40000
    z = gaussian.sample(mean.expand(n, 2), logvar.expand(n, 2), generator=torch.Generator().manual_seed(0))
    differences = gaussian.log_density(z, mean, logvar) - gaussian.log_density(z, prior_mean, prior_logvar)
    error = 5 * float(differences.std()) / n**0.5
    found = float(gaussian.kl_divergence(mean, logvar, prior_mean, prior_logvar))
    assert float(differences.mean()) == pytest.approx(found, abs=error)
    # control: the other direction is another number
    assert abs(float(gaussian.kl_divergence(prior_mean, prior_logvar, mean, logvar)) - found) > 2 * error


def test_widths_must_be_equal():
    two, three = torch.zeros(4, 2), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"last dimensions must be equal, got x \(4, 3\), mean \(4, 2\)"):
        gaussian.log_density(three, two, two)
    with pytest.raises(ValueError, match="last dimensions must be equal"):
        gaussian.kl_divergence(two, two, three, two)
    with pytest.raises(ValueError, match=r"mean and logvar must have one shape, got \(4, 2\) and \(4, 3\)"):
        gaussian.sample(two, three)
