import pytest
import torch

from molml.molecules.decoder import Decoder


def decoder(n_latent=5, **keywords):
    return Decoder(11, n_latent, hidden=16, embedding=8, n_slots=4, max_length=7, seed=3, **keywords).double().eval()


@pytest.mark.parametrize("n_latent", [0, 5])
def test_step_by_step_is_the_same_as_all_at_once(n_latent):
    # 10 tokens are more than the 7 places with weights of their own
    network = decoder(n_latent)
    ids = torch.randint(3, 11, (4, 10), generator=torch.Generator().manual_seed(0))
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if n_latent else None
    whole = network(ids, z)
    state = network.start(z, 4)
    for t in range(10):
        logits, state = network.step(ids[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-12, atol=1e-12)


def test_rows_of_the_state_can_be_dropped_and_reordered():
    network = decoder()
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([3, 4, 5, 6])
    _, state = network.step(ids, network.start(z, 4))
    expected, _ = network.step(ids, state)
    rows = torch.tensor([2, 0])
    logits, _ = network.step(ids[rows], tuple(s[rows] for s in state))
    torch.testing.assert_close(logits, expected[rows], rtol=1e-12, atol=1e-12)


def test_no_token_sees_what_follows_it():
    network = decoder()
    z = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(3, 11, (2, 6), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 4] = (ids[:, 4] + 1 - 3) % 8 + 3
    difference = (network(ids, z) - network(changed, z)).abs().amax((0, 2))
    assert difference[:4].max() == 0
    assert difference[4:].min() > 0


def test_every_part_of_the_code_reaches_every_step():
    network = decoder()
    z = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits = network(torch.full((1, 6), 4), z)
    for t in range(6):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), z, retain_graph=True)
        assert (gradient != 0).all()


def test_seed_decides_the_weights_and_leaves_torchs_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = Decoder(9, 4, seed=1), Decoder(9, 4, seed=1), Decoder(9, 4, seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.tokens.weight, other.tokens.weight)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"n_tokens": 3}, "n_tokens must be at least 4"),
        ({"n_latent": -1}, "n_latent must be 0"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"embedding": 0}, "embedding must be at least 1"),
        ({"n_slots": 0}, "n_slots must be at least 1"),
        ({"max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_widths_out_of_range_are_refused(keywords, match):
    with pytest.raises(ValueError, match=match):
        Decoder(**({"n_tokens": 9, "n_latent": 4} | keywords))


def test_a_language_model_takes_no_code_and_an_autoencoder_needs_one():
    with pytest.raises(ValueError, match="takes no z"):
        decoder(0).start(torch.zeros(2, 5), 2)
    with pytest.raises(ValueError, match=r"z must have shape \(2, 5\), got None"):
        decoder().start(None, 2)
    with pytest.raises(ValueError, match=r"z must have shape \(2, 5\), got shape \(2, 4\)"):
        decoder().start(torch.zeros(2, 4), 2)
