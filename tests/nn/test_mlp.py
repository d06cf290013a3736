import numpy as np
import pytest
import torch

from molml.nn import MLP
from molml.nn.mlp import INITIALISATIONS


def test_output_equals_the_formula_in_numpy():
    network = MLP(3, [5, 4], 2, activation="tanh", seed=1, dtype=torch.float64)
    x = np.random.default_rng(0).normal(size=(7, 3))
    h = x
    weights = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in network.layers]
    for w, b in weights[:-1]:
        h = np.tanh(h @ w.T + b)
    expected = h @ weights[-1][0].T + weights[-1][1]
    np.testing.assert_allclose(network(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-14)


def test_every_layer_may_have_its_own_activation():
    network = MLP(3, [5, 4], 2, activation="tanh square", seed=1, dtype=torch.float64)
    x = np.random.default_rng(0).normal(size=(7, 3))
    (w, b), (v, c), (u, d) = [(n.weight.detach().numpy(), n.bias.detach().numpy()) for n in network.layers]
    expected = (np.tanh(x @ w.T + b) @ v.T + c) ** 2 @ u.T + d
    np.testing.assert_allclose(network(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-14)
    assert "activation=tanh square" in repr(network)


@pytest.mark.parametrize(("hidden", "names"), [([5, 4], "tanh tanh tanh"), ([5, 4], ""), ([], "tanh tanh")])
def test_as_many_activations_as_layers(hidden, names):
    with pytest.raises(ValueError, match="activation must name one function or . one per layer|one function or"):
        MLP(3, hidden, 2, activation=names)


def test_without_hidden_layers_it_is_linear():
    network = MLP(3, [], 1, seed=0, dtype=torch.float64)
    x, y = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    torch.testing.assert_close(network(x + y), network(x) + network(y), rtol=0, atol=1e-14)


def test_with_hidden_layers_it_is_not_linear():
    network = MLP(3, [4], 1, seed=0, dtype=torch.float64)
    x = torch.ones(1, 3, dtype=torch.float64)
    assert not torch.allclose(network(2 * x), 2 * network(x))


@pytest.mark.parametrize(("law", "variance"), [("xavier", 2 / 300), ("kaiming", 2 / 100), ("lecun", 1 / 100)])
@pytest.mark.parametrize("shape", ["normal", "uniform"])
def test_initial_weights_have_the_stated_variance(law, variance, shape):
    weight = MLP(100, [], 200, initialisation=f"{law}_{shape}", seed=3, dtype=torch.float64).layers[0].weight
    # 20,000 samples: the relative standard error of a variance is below 1 %
    assert weight.var().item() == pytest.approx(variance, rel=0.04)
    assert abs(weight.mean().item()) < 4 * (variance / weight.numel()) ** 0.5
    kurtosis = (weight**4).mean().item() / variance**2
    assert kurtosis == pytest.approx({"normal": 3.0, "uniform": 1.8}[shape], rel=0.1)


@pytest.mark.parametrize("law", INITIALISATIONS)
def test_biases_start_at_zero(law):
    assert all((layer.bias == 0).all() for layer in MLP(2, [3], 1, initialisation=law).layers)


def test_same_seed_same_weights_other_seed_other_weights():
    one, same, other, random, again = (MLP(2, [3], 1, seed=s).layers[0].weight for s in (7, 7, 8, None, None))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(random, again)


@pytest.mark.parametrize("seed", [0, None])
def test_global_generator_is_left_alone(seed):
    before = torch.get_rng_state()
    MLP(2, [3], 1, seed=seed)
    assert torch.equal(before, torch.get_rng_state())


def test_dtype_is_the_default_unless_given():
    assert MLP(2, [3], 1).layers[0].weight.dtype == torch.get_default_dtype()
    assert MLP(2, [3], 1, dtype=torch.float64)(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_gradients_of_gradients_reach_the_weights():
    network = MLP(2, [3], 1, seed=0, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    (forces,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    forces.square().sum().backward()
    assert network.layers[0].weight.grad.abs().sum() > 0


def test_a_graph_free_batch_may_be_empty():
    assert MLP(2, [3], 1)(torch.zeros(0, 2)).shape == (0, 1)


def test_repr_names_the_activation():
    assert "activation=arctan" in repr(MLP(2, [3], 1, activation="arctan"))


@pytest.mark.parametrize("widths", [(0, [3], 1), (2, [3, 0], 1), (2, [], -1)])
def test_widths_must_be_positive(widths):
    with pytest.raises(ValueError, match="at least 1"):
        MLP(*widths)


def test_unknown_initialisation_lists_the_known_ones():
    with pytest.raises(ValueError, match="one of xavier_normal, .*lecun_uniform, got 'glorot'"):
        MLP(2, [3], 1, initialisation="glorot")


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation must be one of"):
        MLP(2, [3], 1, activation="swish")


def test_integer_weights_are_refused():
    with pytest.raises(ValueError, match="floating type"):
        MLP(2, [3], 1, dtype=torch.int64)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 1), ()])
def test_wrong_number_of_inputs_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 2\), got"):
        MLP(2, [3], 1)(torch.zeros(shape))
