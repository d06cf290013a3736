import pytest
import torch

from molml.training import cosine


def test_without_warmup_it_is_torchs_cosine():
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.03)
    rates = []
    for _ in range(51):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    factor = cosine(end=0.1)
    assert [0.3 * factor(i / 50) for i in range(51)] == pytest.approx(rates, rel=1e-12)


def test_warmup_rises_linearly_and_meets_the_cosine():
    factor = cosine(warmup=0.25, end=0.5)
    assert [factor(f) for f in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 0.75, 0.5])


@pytest.mark.parametrize("warmup", [-0.1, 1.0, float("nan")])
def test_warmup_is_a_fraction(warmup):
    with pytest.raises(ValueError, match="warmup must be"):
        cosine(warmup=warmup)


@pytest.mark.parametrize("end", [-0.1, 1.1, float("nan")])
def test_end_is_a_factor(end):
    with pytest.raises(ValueError, match="end must be"):
        cosine(end=end)
