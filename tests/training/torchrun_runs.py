"""Trainings that must not depend on the number of processes.

Run by test_distributed.py, alone or by torchrun: torchrun_runs.py DIRECTORY; every process writes RANK.json there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from molml.training import (
    ArrayDataset,
    Term,
    Trainer,
    TrainingDivergedError,
    TrainingInterrupted,
    cosine,
    processes,
    squared_error,
)


class PerKind(torch.nn.Module):
    """A layer per kind of item, like a network per element: some batches leave a layer without gradient."""

    def __init__(self, shift):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 1) for _ in range(3)])
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
            parameter.data.add_(shift)

    def forward(self, inputs, kinds):
        out = torch.zeros(len(inputs))
        for number, layer in enumerate(self.layers):
            chosen = (kinds == number).nonzero().flatten()
            if len(chosen):
                out = out.index_add(0, chosen, layer(inputs[chosen]).squeeze(1))
        return out


def loss(model, batch):
    (inputs, kinds), targets = (batch[0][:, :3], batch[0][:, 3].long()), batch[1]
    prediction = model(inputs, kinds)
    known = kinds != 1
    return {
        "all_mse": squared_error(prediction, targets),
        # counts that differ from process to process, and are zero in some
        "some": Term((prediction - targets).abs()[known].sum(), known.sum(), 0.3),
        "metric": Term(prediction.detach().sum(), len(targets), 0.0),
    }


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 4, generator=generator)
    # kind 2 is rare: most batches have none of it
    inputs[:, 3] = (torch.rand(n, generator=generator) * 2.15).floor()
    return ArrayDataset(inputs, torch.randn(n, generator=generator))


def result(model, history):
    return {
        "weights": [p.detach().flatten().tolist() for p in model.parameters()],
        "history": [{k: v for k, v in record.items() if k != "seconds"} for record in history],
        "stopped_by": history.stopped_by,
        "best_epoch": history.best_epoch,
    }


def adamw(folder, rank, loss=loss, resume=False):
    # 33 = 4 · 8 + 1: the last batch leaves processes without work; so does a validation set of one item
    model = PerKind(shift=rank)
    trainer = Trainer(
        model,
        loss,
        torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1),
        batch_size=8,
        max_epochs=6,
        clip_norm=0.5,
        average_epochs=2.0,
        lr_schedule=cosine(),
        weight_schedule=lambda fraction: {"some": 1 - 0.5 * fraction},
        directory=folder,
        checkpoint_seconds=0.0,
        progress=True,
        description=f"process {rank}",
    )
    history = trainer.fit(data(33, 0), data(1, 1), resume=resume)
    return result(model, history) | {"evaluation": trainer.evaluate(data(10, 2))}


def lbfgs(folder, rank):
    model = PerKind(shift=0)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=8, line_search_fn="strong_wolfe")
    history = Trainer(model, loss, optimizer, batch_size=40, max_epochs=3).fit(data(40, 0))
    return result(model, history)


def early_stopping(folder, rank):
    model = PerKind(shift=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    trainer = Trainer(model, loss, optimizer, batch_size=8, max_epochs=500, patience=4)
    return result(model, trainer.fit(data(33, 0), data(9, 1)))


def clock(folder, rank):
    """All stop at the same step, though their clocks differ."""
    time.sleep(0.05 * rank)

    def slow(model, batch):
        time.sleep(0.002 * (1 + rank))
        return loss(model, batch)

    model = PerKind(shift=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = Trainer(model, slow, optimizer, batch_size=8, max_epochs=10**6, minutes=0.3 / 60)
    return result(model, trainer.fit(data(33, 0)))


def diverging(folder, rank):
    model = PerKind(shift=0)
    damaged = data(33, 0)
    damaged.targets[20] = float("nan")
    try:
        Trainer(model, loss, torch.optim.SGD(model.parameters(), lr=0.1), batch_size=8, max_epochs=1).fit(damaged)
    except TrainingDivergedError as error:
        return {"batch": error.batch, "indices": error.indices}
    return {}


def diverging_validation(folder, rank):
    model = PerKind(shift=0)
    damaged = data(33, 0)
    damaged.targets[20] = float("nan")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        Trainer(model, loss, optimizer, batch_size=8, max_epochs=1).fit(data(9, 0), damaged)
    except TrainingDivergedError as error:
        return {"batch": error.batch, "indices": error.indices}
    return {}


def interrupted(folder, rank):
    """Only the last process gets the signal, and all stop; the continued run is the uninterrupted one."""
    calls = 0
    last = processes().size - 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def signalling(model, batch):
        nonlocal calls
        calls += 1
        if calls == 13 and rank == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(model, batch)

    try:
        adamw(folder, rank, signalling)
    except TrainingInterrupted:
        return adamw(folder, rank, resume=True)
    return {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    directory = Path(sys.argv[1])
    rank = int(os.environ.get("RANK", "0"))
    runs = (adamw, lbfgs, early_stopping, clock, diverging, diverging_validation, interrupted)
    results = {run.__name__: run(directory / run.__name__, rank) for run in runs}
    (directory / f"{rank}.json").write_text(json.dumps(results))
