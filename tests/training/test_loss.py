import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.training import Term, absolute_error, objective, squared_error
from molml.training.loss import add, means

numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@given(numbers, st.integers(1, 7))
def test_sums_of_batches_of_any_size_equal_the_sum_of_all(values, size):
    sums = {}
    for first in range(0, len(values), size):
        part = tensor(values[first : first + size])
        add(sums, {"x_mse": squared_error(part, torch.zeros_like(part)), "mae": absolute_error(part, 0 * part)})
    result = means(sums)
    assert result["x_mse"] == pytest.approx(sum(v * v for v in values) / len(values), rel=1e-12)
    assert result["x_rmse"] == pytest.approx(math.sqrt(result["x_mse"]), rel=1e-12)
    assert result["mae"] == pytest.approx(sum(map(abs, values)) / len(values), rel=1e-12)
    assert "mae_rmse" not in result


def test_means_of_means_would_differ():
    # the control: a loss that averages batches of sizes 2 and 1 is not the mean of all three
    a, b = tensor([1.0, 1.0]), tensor([4.0])
    sums = {}
    add(sums, {"x": squared_error(a, 0 * a)})
    add(sums, {"x": squared_error(b, 0 * b)})
    assert means(sums)["x"] == 6.0
    assert means(sums)["x"] != (1.0 + 16.0) / 2


@given(numbers, st.floats(0.1, 10), st.floats(0.1, 10))
def test_objective_is_linear_in_the_weights(values, first, second):
    x = tensor(values)
    a, b = squared_error(x, 0 * x), absolute_error(x, 0 * x)
    both = objective({"a": a._replace(weight=first), "b": b._replace(weight=second)})
    expected = first * a.total / a.count + second * b.total / b.count
    torch.testing.assert_close(both, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(objective({"a": a, "b": b}, {"a": first, "b": second}), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("count", [0, 0.0, torch.tensor(0), torch.tensor(0.0)])
def test_a_term_without_anything_counted_adds_nothing_and_no_nan(count):
    x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    value = objective({"stress": Term(0 * x, count), "energy": Term(x * x, 1)})
    value.backward()
    assert (value.item(), x.grad.item()) == (9.0, 6.0)


def test_fractional_counts_are_kept():
    assert objective({"x": Term(tensor(1.0), 0.25)}).item() == 4.0
    assert objective({"x": Term(tensor(1.0), tensor(0.25))}).item() == 4.0


def test_metrics_may_be_infinite():
    assert objective({"x": Term(tensor(2.0), 1), "r2": Term(tensor(math.nan), 1, 0.0)}).item() == 2.0


def test_gradient_of_the_objective_ignores_metrics():
    x = tensor(2.0).requires_grad_()
    objective({"x": Term(x, 1), "metric": Term(100 * x, 1, 0.0)}).backward()
    assert x.grad.item() == 1.0


def test_sums_have_no_graph_and_are_double():
    sums = {}
    x = torch.tensor(2.0, dtype=torch.float32, requires_grad=True)
    add(sums, {"x": Term(x * x, torch.tensor(2))})
    assert not sums["x"].total.requires_grad
    assert sums["x"].total.dtype == torch.float64


def test_nothing_counted_gives_nan_as_mean():
    sums = {}
    add(sums, {"x_mse": Term(tensor(0.0), 0)})
    assert math.isnan(means(sums)["x_mse"])
    assert math.isnan(means(sums)["x_rmse"])


def test_unknown_weight_is_refused():
    with pytest.raises(ValueError, match=r"terms of the loss \(energy\), got force"):
        objective({"energy": Term(tensor(1.0), 1)}, {"force": 1.0})


@pytest.mark.parametrize("terms", [{}, {"metric": Term(torch.tensor(1.0), 1, 0.0)}])
def test_an_objective_needs_a_weight(terms):
    with pytest.raises(ValueError, match="at least one term"):
        objective(terms)


@pytest.mark.parametrize("error", [squared_error, absolute_error])
def test_shapes_are_not_broadcast(error):
    with pytest.raises(ValueError, match=r"one shape, got \(3, 1\) and \(3,\)"):
        error(torch.zeros(3, 1), torch.zeros(3))
