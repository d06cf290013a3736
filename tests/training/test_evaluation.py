import numpy as np
import pytest
import torch

from molml.training import ArrayDataset, Processes, Term
from molml.training.evaluation import Evaluator


def total(model, batch):
    return {"x": Term(batch[0].sum(), len(batch[0]), 2.0), "metric": Term(batch[1].sum(), torch.tensor(1), 0.0)}


def evaluator(loss=total):
    return Evaluator(torch.nn.Identity(), loss, torch.device("cpu"))


data = ArrayDataset(torch.arange(7.0), torch.arange(7.0) + 10)


@pytest.mark.parametrize("n_processes", [1, 2, 3, 9])
def test_shares_make_up_the_batch_and_some_may_be_empty(n_processes):
    parts = []
    for rank in range(n_processes):
        one = evaluator()
        one.processes = Processes(rank, n_processes)
        parts.append(one.share(data, np.array([6, 0, 3])))
    items = [part[0].tolist() for part in parts if part is not None]
    assert sorted(sum(items, [])) == [0.0, 3.0, 6.0]
    assert sum(part is None for part in parts) == max(0, n_processes - 3)


def test_batches_are_in_order_with_a_short_last_one():
    batches = evaluator().batches(data, 3)
    assert [terms["x"].total.item() for terms in batches] == [3.0, 12.0, 6.0]
    assert [terms["x"].count.item() for terms in batches] == [3.0, 3.0, 1.0]
    assert {(terms["x"].weight, terms["metric"].weight) for terms in batches} == {(2.0, 0.0)}


def test_alone_the_sum_is_the_very_same_object():
    one = evaluator()
    terms = one.terms((torch.ones(2), torch.ones(2)))
    assert one.sum(terms) is terms


def test_names_must_stay():
    one = evaluator(lambda model, batch: {str(len(batch[0])): Term(torch.tensor(0.0), 1)})
    with pytest.raises(ValueError, match="got 1 after 3"):
        one.batches(data, 3)
