import numpy as np
import pytest
import torch

from molml.training import ArrayDataset, Trainer, TrainingDivergedError, squared_error
from molml.training.data import batches


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


class ByLength:
    """Rows of 1, 2 or 3 numbers; a batch holds rows of one length."""

    lengths = np.array([3, 1, 2, 1, 3, 3, 2])

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return torch.full((int(self.lengths[index]),), float(index))

    def collate(self, items):
        return torch.stack(items)

    def batches(self, batch_size, rng):
        order = np.argsort(self.lengths, kind="stable")
        parts = [order[self.lengths[order] == n] for n in (1, 2, 3)]
        return parts if rng is None else [parts[i] for i in rng.permutation(3)]


def test_a_data_set_may_make_its_own_batches():
    assert [part.tolist() for part in batches(ByLength(), 2)] == [[1, 3], [2, 6], [0, 4, 5]]


def test_other_data_sets_are_shuffled_and_cut():
    data = ArrayDataset(torch.zeros(7, 1), torch.zeros(7, 1))
    parts = batches(data, 3, np.random.default_rng(0))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert np.concatenate(parts).tolist() == np.random.default_rng(0).permutation(7).tolist()


def test_the_trainer_takes_the_batches_of_the_data_set():
    seen = []

    def loss(model, batch):
        seen.append((model.training, batch[:, 0].int().tolist()))
        return {"mse": squared_error(model(batch[:, :1]), batch[:, :1])}

    model = torch.nn.Linear(1, 1)
    trainer = Trainer(model, loss, torch.optim.SGD(model.parameters(), lr=0.0), batch_size=2, max_epochs=1)
    trainer.fit(ByLength(), ByLength())
    training = [batch for is_training, batch in seen if is_training]
    assert sorted(training) == [[0, 4, 5], [1, 3], [2, 6]]
    assert [batch for is_training, batch in seen if not is_training] == [[1, 3], [2, 6], [0, 4, 5]]


def test_the_trainer_names_the_items_of_a_broken_batch():
    def loss(model, batch):
        error = squared_error(model(batch[:, :1]), batch[:, :1])
        return {"mse": error._replace(total=error.total * (float("nan") if batch.shape[1] == 2 else 1.0))}

    model = torch.nn.Linear(1, 1)
    trainer = Trainer(model, loss, torch.optim.SGD(model.parameters(), lr=0.0), batch_size=2, max_epochs=1)
    with pytest.raises(TrainingDivergedError) as caught:
        trainer.evaluate(ByLength())
    assert (caught.value.batch, caught.value.indices) == (2, [2, 6])
