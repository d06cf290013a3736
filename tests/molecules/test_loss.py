import math

import numpy as np
import pytest
import torch

from molml.molecules.decoder import PAD
from molml.molecules.loss import ELBO, NextToken, fast_precision, log_density, token_losses
from molml.molecules.model import MoleculeVAE
from molml.molecules.tokens import Tokenizer
from molml.nn import CouplingFlow, gaussian

SMILES = ["CCO", "c1ccccc1", "C[C@H](N)C(=O)O", "CCN"]
TOKENIZER = Tokenizer.from_strings(SMILES)


def small(properties=()):
    return MoleculeVAE(TOKENIZER, encoder="convolutional", n_latent=5, hidden=12, properties=properties, seed=1)


def batch(model, values=None):
    return model.dataset(SMILES, values).collate([0, 1, 2, 3])


def test_token_losses_are_log_probabilities_without_padding():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 3, 4, 2], [1, 4, 2, PAD]])
    expected = torch.zeros(2, 3)
    for i, t in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        expected[i, t] = -torch.log_softmax(logits[i, t], 0)[tokens[i, t + 1]]
    torch.testing.assert_close(token_losses(logits, tokens), expected)


def test_divergence_in_closed_form_is_that_of_samples():
    model = small().eval()
    mean, logvar = (part.detach().double() for part in model.encode_batch(batch(model)))
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    z = gaussian.sample(mean.expand(n, -1, -1), logvar.expand(n, -1, -1), generator=generator)
    ratio = gaussian.log_density(z, mean, logvar) - gaussian.log_density(z, torch.zeros_like(z), torch.zeros_like(z))
    error = ratio.std(0) / math.sqrt(n)
    terms = ELBO()(model, batch(model))
    assert abs(terms["kl"].total.item() - float(ratio.mean(0).sum())) < 5 * float(error.square().sum().sqrt())


def test_the_bound_is_a_sum_per_molecule():
    model = small().eval()
    torch.manual_seed(0)
    terms = ELBO(beta=0.3, noisy=0.0)(model, batch(model))
    torch.manual_seed(0)
    whole = batch(model)
    mean, logvar = model.encode_batch(whole)
    z = gaussian.sample(mean, logvar)
    hint = torch.cat([z, torch.zeros(4, 1)], 1)
    expected = token_losses(model.decoder(whole.tokens[:, :-1], hint), whole.tokens).sum()
    torch.testing.assert_close(terms["cross_entropy"].total, expected)
    assert terms["cross_entropy"].count == terms["kl"].count == 4
    assert (terms["cross_entropy"].weight, terms["kl"].weight) == (1.0, 0.3)


def test_so_many_codes_get_noise_half_of_it_below_one():
    model, seen = small().eval(), []
    hint = model.hint
    model.hint = lambda z, noise: seen.append(noise[:, 0]) or hint(z, noise)
    whole = model.dataset(SMILES * 500).collate(list(range(2000)))
    torch.manual_seed(0)
    ELBO(noisy=0.6)(model, whole)
    (noise,) = seen
    # five standard deviations of a frequency
    assert torch.isfinite(noise).all() and noise.max() < 23
    assert (noise > 0).double().mean().item() == pytest.approx(0.6, abs=5 * (0.24 / 2000) ** 0.5)
    assert (noise[noise > 0] < 1).double().mean().item() == pytest.approx(0.5, abs=5 * (0.25 / 1200) ** 0.5)
    ELBO(noisy=0.0)(model, whole)
    assert not seen[1].any()


def test_free_nats_cost_nothing_and_the_divergence_is_still_reported():
    model = small().eval()
    free, plain = ELBO(beta=0.3, free_nats=100.0)(model, batch(model)), ELBO()(model, batch(model))
    torch.testing.assert_close(free["kl"].total, plain["kl"].total)
    assert (free["kl"].weight, free["kl_free"].weight) == (0.0, 0.3)
    # 5 dimensions, each below the 100 nats that are free
    assert free["kl_free"].total.item() / free["kl_free"].count == pytest.approx(500.0)
    free["kl_free"].total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    # control: with next to nothing free it is the divergence itself
    little = ELBO(free_nats=1e-9)(model, batch(model))
    torch.testing.assert_close(little["kl_free"].total, little["kl"].total, rtol=1e-4, atol=1e-4)


def test_word_dropout_hides_tokens_in_training_only():
    model = small()
    seen = []
    model.decoder.tokens.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    loss, whole = ELBO(word_dropout=0.9, noisy=0.0), batch(model)
    torch.manual_seed(0)
    loss(model.train(), whole)
    loss(model.eval(), whole)
    # nothing is hidden where the code has noise
    ELBO(word_dropout=0.9, noisy=1.0)(model.train(), whole)
    assert torch.equal(seen[2], whole.tokens[:, :-1])
    hidden = (seen[0] == PAD) & (whole.tokens[:, :-1] != PAD)
    assert hidden[:, 0].sum() == 0  # the start is always read
    assert 0.6 < hidden.sum() / (whole.tokens[:, 1:-1] > 2).sum() < 1.0
    assert torch.equal(seen[1], whole.tokens[:, :-1])


@pytest.mark.parametrize("encoder", ["graph", "convolutional", "recurrent"])
def test_another_spelling_is_read_in_training_only_and_never_written(encoder):
    model, seen = MoleculeVAE(TOKENIZER, encoder=encoder, n_latent=5, hidden=12, seed=1), []
    encode = model.encode_batch
    model.encode_batch = lambda batch: seen.append(batch) or encode(batch)
    written = []
    model.decoder.tokens.register_forward_hook(lambda module, inputs, output: written.append(inputs[0]))
    whole = model.dataset(SMILES, spellings=4).collate([0, 1, 2, 3])
    loss = ELBO(word_dropout=0.0)
    loss(model.train(), whole)
    loss(model.eval(), whole)
    assert torch.equal(seen[0].tokens, whole.read.tokens) and torch.equal(seen[1].tokens, whole.tokens)
    assert not torch.equal(seen[0].tokens, seen[1].tokens)
    assert torch.equal(written[0], whole.tokens[:, :-1]) and torch.equal(written[1], whole.tokens[:, :-1])


def test_unknown_properties_do_not_count():
    model = small(["logP", "QED"]).eval()
    with torch.no_grad():
        model.property_mean.copy_(torch.tensor([1.0, 0.0]))
        model.property_std.copy_(torch.tensor([2.0, 1.0]))
    values = np.array([[3.0, 1.0], [np.nan, 0.0], [np.nan, np.nan], [1.0, np.nan]])
    torch.manual_seed(0)
    term = ELBO(property_weight=0.7)(model, batch(model, values))["property_mse"]
    torch.manual_seed(0)
    z = gaussian.sample(*model.encode_batch(batch(model)))
    guess = model.predictor(z)
    expected = (guess[0, 0] - 1) ** 2 + guess[3, 0] ** 2 + (guess[0, 1] - 1) ** 2 + guess[1, 1] ** 2
    torch.testing.assert_close(term.total, expected)
    assert (int(term.count), term.weight) == (4, 0.7)


@pytest.mark.parametrize("encoder", ["graph", "convolutional", "recurrent"])
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16")
def test_bfloat16_agrees_with_float32(encoder):
    model = MoleculeVAE(TOKENIZER, encoder=encoder, n_latent=5, hidden=32, seed=1).eval()
    figures = {}
    for precision in (torch.float32, torch.bfloat16):
        model.zero_grad()
        torch.manual_seed(0)
        terms = ELBO(precision=precision)(model, batch(model))
        (terms["cross_entropy"].total + terms["kl"].total).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        figures[precision] = (terms["cross_entropy"].total.item(), terms["kl"].total.item(), gradient)
    exact, rounded = figures[torch.float32], figures[torch.bfloat16]
    # 8 bits of mantissa: 0.4 % per number, less for sums
    assert rounded[0] == pytest.approx(exact[0], rel=5e-3)
    assert rounded[1] == pytest.approx(exact[1], rel=1e-2)
    assert torch.cosine_similarity(rounded[2], exact[2], dim=0) > 0.999
    # control: it did compute in another precision
    assert not torch.equal(rounded[2], exact[2])


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model = small()
    with pytest.raises(ValueError, match="precision must be torch.float32 on this processor"):
        ELBO(precision=torch.bfloat16)(model, batch(model))
    ELBO(precision=torch.float32)(model, batch(model))


@pytest.mark.parametrize(("vector", "tile", "expected"), [(1, 0, "bfloat16"), (0, 1, "bfloat16"), (0, 0, "float32")])
def test_bfloat16_is_taken_where_the_processor_has_it(vector, tile, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(vector))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(tile))
    assert fast_precision() == getattr(torch, expected)


def test_warm_up_rises_with_the_square_to_beta():
    weights = ELBO(beta=0.4).warm_up(0.5)
    assert [weights(f)["kl"] for f in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.1, 0.4, 0.4])
    assert ELBO(beta=0.4, free_nats=1.0).warm_up(0.5)(1.0) == {"kl_free": 0.4}
    assert ELBO(beta=0.4).warm_up(0.0)(0.0) == {"kl": 0.4}


def test_a_prior_is_judged_by_the_density_of_codes():
    flow, codes = CouplingFlow(3, seed=0), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    term = log_density(flow, (codes, codes))["code"]
    standard = 0.5 * (codes.square().sum() + 18 * math.log(2 * math.pi))
    torch.testing.assert_close(term.total, standard)
    assert term.count == 6


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"beta": -1.0}, "beta must be 0 or more"),
        ({"beta": math.nan}, "beta must be 0 or more"),
        ({"free_nats": -1.0}, "free_nats must be 0 or more"),
        ({"property_weight": -1.0}, "property_weight must be 0 or more"),
        ({"word_dropout": 1.0}, "word_dropout must be a probability"),
        ({"precision": torch.float64}, "precision must be"),
    ],
)
def test_parameters_out_of_range_are_refused(keywords, match):
    with pytest.raises(ValueError, match=match):
        ELBO(**keywords)


def test_fraction_and_precision_out_of_range_are_refused():
    with pytest.raises(ValueError, match="fraction must lie"):
        ELBO().warm_up(1.5)
    with pytest.raises(ValueError, match="precision must be"):
        NextToken(precision=torch.float16)
