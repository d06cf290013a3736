import pytest
import torch

from molml.training import ArrayDataset


def test_items_batches_and_subsets():
    data = ArrayDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([10.0, 11.0, 12.0]))
    assert len(data) == 3
    inputs, targets = data.collate([data[2], data[0]])
    assert inputs.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert targets.tolist() == [12.0, 10.0]
    part = data.subset([1, 1, 2])
    assert part.targets.tolist() == [11.0, 11.0, 12.0]
    assert part.inputs[0].tolist() == [2.0, 3.0]
    assert len(data.subset([])) == 0


@pytest.mark.parametrize("shapes", [((3, 2), (2,)), ((), ()), ((3,), ())])
def test_lengths_must_agree(shapes):
    with pytest.raises(ValueError, match="one length"):
        ArrayDataset(*map(torch.zeros, shapes))
