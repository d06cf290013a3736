import math

import numpy as np
import pytest
import torch
from torch import nn

from molml.molecules import chemnet
from molml.molecules.chemnet import (
    PADDING,
    TOKENS,
    ChemNet,
    Gaussian,
    frechet_distance,
    frechet_distance_limit,
    gaussian_of,
    token_ids,
)

# of single precision, gathered by 88 steps that forget little
ROUNDING = 3e-5


@pytest.fixture(scope="module")
def layers():
    """Layers of ChemNet's shapes, which do not forget a molecule over the padding behind it."""
    torch.manual_seed(0)
    layers = [
        nn.Conv1d(35, 32, 4, stride=2, bias=False),
        nn.Conv1d(32, 32, 4, stride=2, bias=False),
        nn.LSTM(32, 128, batch_first=True),
        nn.LSTM(128, 512, batch_first=True),
    ]
    with torch.no_grad():
        for lstm, d in zip(layers[2:], (128, 512), strict=True):
            lstm.bias_ih_l0[d : 2 * d] = 5.0
        # one-hot numbers are divided by 35
        layers[0].weight.mul_(30.0)
    return layers


@pytest.fixture(scope="module")
def weights(layers, tmp_path_factory):
    path = tmp_path_factory.mktemp("chemnet") / "weights.pt"
    kinds = ["Conv1d", "Conv1d", "LSTM", "LSTM"]
    torch.save([(kind, (layer.state_dict(), {}, {})) for kind, layer in zip(kinds, layers, strict=True)], path)
    return path


def straight(layers, smiles):
    """The whole network, all 350 places of it, with torch's own layers."""
    x = torch.zeros(1, len(TOKENS), 350)
    for place, token in enumerate(token_ids(smiles)):
        x[0, token, place] = 1 / len(TOKENS)
    with torch.no_grad():
        x = torch.selu(layers[0](nn.functional.pad(x, (1, 1))))
        x = torch.selu(layers[1](nn.functional.pad(x, (1, 2))))
        assert x.shape[2] == 88
        x = layers[2](x.transpose(1, 2).flip(1))[0]
        return layers[3](x.flip(1))[0][0, -1].numpy()


@pytest.mark.parametrize("n", [*range(1, 11), 37, 100, 342, 343, 344, 345, 346, 347, 348, 349, 350, 400])
def test_padding_may_be_computed_once(weights, layers, n):
    rng = np.random.default_rng(n)
    smiles = "".join(rng.choice(list("CNO(=)c1n[@H]+s"), n))
    found = ChemNet(weights).describe([smiles])[0]
    np.testing.assert_allclose(found, straight(layers, smiles), atol=ROUNDING)


def test_neighbours_in_a_batch_do_not_matter(weights, layers):
    smiles = ["C", "CCO" * 30, "c1ccccc1", "CC(=O)O", "N" * 349, "CCl"]
    found = ChemNet(weights).describe(smiles)
    expected = np.stack([straight(layers, text) for text in smiles])
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    # the control: molecules differ by far more
    assert np.abs(found[0] - found[5]).max() > 1e-3


def test_nothing_to_describe(weights):
    assert ChemNet(weights).describe([]).shape == (0, 512)


def test_tokens():
    def read(smiles):
        return [TOKENS[i] for i in token_ids(smiles)]

    assert read("CCl") == ["C", "Cl", "."]
    assert read("[Si]Br") == ["[", "Si", "]", "Br", "."]
    # no token of its own: aluminium, nine, per cent, slash
    assert read("[Al]9%/") == ["[", "X", "]", "X", "X", "X", "."]
    # salts are read up to the first dot
    assert read("[Na+].[Cl-]") == ["[", "N", "X", "+", "]", "."]
    assert len(token_ids("C" * 1000)) == 350
    assert PADDING == len(TOKENS) == 35


@pytest.mark.parametrize("content", [b"", b"not torch's", None])
def test_wrong_weights(tmp_path, content):
    path = tmp_path / "weights.pt"
    torch.save([("LSTM", ({}, {}, {}))], path)
    path.write_bytes(path.read_bytes() if content is None else content)
    with pytest.raises(ValueError, match="does not hold ChemNet's weights"):
        ChemNet(path)


def test_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    scale, turn = rng.uniform(0.5, 2.0, (2, 5)), np.linalg.qr(rng.normal(size=(5, 5)))[0]
    shift = rng.normal(size=5)
    # covariances that commute: sum of (σ_a - σ_b)²
    a, b = (Gaussian(mean, turn * s**2 @ turn.T, 9) for mean, s in zip((np.zeros(5), shift), scale, strict=True))
    expected = shift @ shift + ((scale[0] - scale[1]) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)


def test_distance_of_gaussians_that_do_not_commute():
    # 2 × 2: tr √M = √(tr M + 2 √det M), with M = C_a C_b
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    cross = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * cross
    zero = np.zeros(2)
    assert frechet_distance(Gaussian(zero, a, 9), Gaussian(zero, b, 9)) == pytest.approx(expected, rel=1e-12)


def test_distance_of_singular_covariances_is_real():
    rng = np.random.default_rng(1)
    thin = [rng.normal(size=(40, 3)) for _ in range(2)]
    a, b = (Gaussian(np.zeros(40), v @ v.T, 3) for v in thin)
    # tr (C_a^½ C_b C_a^½)^½ is the nuclear norm of v_aᵀ v_b
    nuclear = np.linalg.svd(thin[0].T @ thin[1], compute_uv=False).sum()
    expected = (thin[0] ** 2).sum() + (thin[1] ** 2).sum() - 2 * nuclear
    # eigenvalues that are zero come out as 1e-14 or so, and their roots as 1e-7
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-4)


def test_gaussian_of():
    x = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    found = gaussian_of(x)
    np.testing.assert_allclose(found.covariance, np.cov(x.T.astype(float)), rtol=1e-12)
    np.testing.assert_allclose(found.mean, x.astype(float).mean(axis=0), rtol=1e-12)
    assert found.n == 50
    with pytest.raises(ValueError, match="at least 2 molecules, got 1"):
        gaussian_of(x[:1])


def test_limit_of_many_molecules():
    d = 20
    reference = Gaussian(np.zeros(d), np.eye(d), 10**6)
    truth = d * 0.1**2
    naive, corrected = [], []
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(400, d)) * 1.1
        naive.append(frechet_distance(reference, gaussian_of(x)) - truth)
        corrected.append(frechet_distance_limit(x, reference, seed=seed) - truth)
    assert np.mean(naive) > 0.2
    # four standard errors of what is left
    assert abs(np.mean(corrected)) < 4 * np.std(corrected) / math.sqrt(40) < 0.15 * np.mean(naive)
    assert frechet_distance_limit(x, reference, seed=1) == frechet_distance_limit(x, reference, seed=1)


def test_limit_needs_many():
    with pytest.raises(ValueError, match="at least 320 of them, got 319"):
        frechet_distance_limit(np.zeros((319, 40)), Gaussian(np.zeros(40), np.eye(40), 9))


def test_batches_are_of_bounded_size(weights, monkeypatch):
    smiles = ["C" * (1 + i % 7) for i in range(10)]
    whole = ChemNet(weights).describe(smiles)
    monkeypatch.setattr(chemnet, "BATCH", 3)
    np.testing.assert_allclose(ChemNet(weights).describe(smiles), whole, atol=ROUNDING)
