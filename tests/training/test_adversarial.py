import math

import pytest
import torch
from torch import nn

from molml.nn import MLP
from molml.training import adversarial_loss, play


class Shift(nn.Module):
    """Samples: z moved by a number."""

    def __init__(self, start=0.0):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, z):
        return z + self.by


def players(slope, by=0.0):
    line = MLP(1, [], 1, seed=0, dtype=torch.float64)
    nn.init.constant_(line.layers[0].weight, slope)
    return nn.ModuleDict({"generator": Shift(by), "discriminator": line})


def gradients(rule, slope, by=0.0, **options):
    """Terms of a batch of data at 2, and the gradients of its sum."""
    model = players(slope, by)
    torch.manual_seed(0)
    terms = adversarial_loss(rule, 1, **options)(model, [torch.full((50, 1), 2.0, dtype=torch.float64)])
    sum(term.total / term.count for term in terms.values()).backward()
    values = {name: float(term.total.detach()) / term.count for name, term in terms.items()}
    torch.manual_seed(0)
    z = torch.randn(50, 1, dtype=torch.float64)
    return values, float(model["generator"].by.grad), float(model["discriminator"].layers[0].weight.grad), z + by


def test_of_two_players_who_know_nothing_the_discriminator_loses_two_bits():
    for rule, answer in (("minimax", -math.log(2)), ("non-saturating", math.log(2))):
        values, *_ = gradients(rule, 0.0)
        assert values["discriminator"] == pytest.approx(2 * math.log(2), abs=1e-12)
        assert values["generator"] == pytest.approx(answer, abs=1e-12)


def test_a_linear_critic_has_the_terms_and_gradients_of_the_formulas():
    values, on_generator, on_critic, made = gradients("wasserstein", 3.0, penalty=10.0)
    assert values["discriminator"] == pytest.approx(3 * (float(made.mean()) - 2) + 10 * (3 - 1) ** 2, abs=1e-10)
    # the generator goes up the slope of the critic, which its own step leaves alone
    assert on_generator == pytest.approx(-3.0, abs=1e-12)
    assert on_critic == pytest.approx(float(made.mean()) - 2 + 10 * 2 * (3 - 1), abs=1e-10)


def test_without_a_penalty_the_critic_is_free():
    assert gradients("wasserstein", 3.0, penalty=0.0)[2] == pytest.approx(
        float(gradients("wasserstein", 3.0)[3].mean()) - 2, abs=1e-10
    )


def test_the_gradient_of_a_losing_generator_vanishes_in_the_minimax_game_only():
    # D of the samples, 20 below the data, is 1e-9
    assert abs(gradients("minimax", 1.0, by=-20.0)[1]) < 1e-7
    assert gradients("non-saturating", 1.0, by=-20.0)[1] == pytest.approx(-1.0, abs=1e-7)


# a linear Wasserstein critic would never rest: the penalty wants its slope to be one
@pytest.mark.parametrize("rule", ["minimax", "non-saturating"])
def test_the_generator_finds_the_data(rule):
    model = players(0.0)
    data = 2.0 + torch.randn(512, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = torch.get_rng_state()
    play(*model.values(), data, rule, 1, max_epochs=60, learning_rates=(2e-2, 5e-2), progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(model["generator"].by.detach()) == pytest.approx(2.0, abs=0.3)


def test_the_weights_are_those_of_the_end():
    model, data = players(1.0), torch.full((8, 1), 100.0, dtype=torch.float64)
    # the discriminator stands still; the sum is lowest at the start, where it cannot tell the samples from zero
    rates = {"learning_rates": (1e-2, 0.0), "batch_size": 8}
    play(*model.values(), data, "non-saturating", 1, max_epochs=40, progress=False, **rates)
    # Adam's steps are as long as the learning rate, and what the last one did is not kept
    assert float(model["generator"].by.detach()) == pytest.approx(0.39, rel=0.1)


@pytest.mark.parametrize(
    ("rule", "n_latent", "penalty", "message"),
    [
        ("least squares", 1, 1.0, "rule must be one of minimax, non-saturating, wasserstein, got 'least squares'"),
        ("minimax", 0, 1.0, "n_latent must be at least 1, got 0"),
        ("wasserstein", 1, -1.0, "penalty must be 0 or more and finite, got -1.0"),
        ("wasserstein", 1, math.inf, "penalty must be 0 or more and finite, got inf"),
    ],
)
def test_what_makes_no_sense_is_refused(rule, n_latent, penalty, message):
    with pytest.raises(ValueError, match=message):
        adversarial_loss(rule, n_latent, penalty=penalty)
