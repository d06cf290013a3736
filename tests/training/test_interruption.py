import os
import signal
import threading

import numpy as np
import pytest
import torch

from molml.training import ArrayDataset, Term, Trainer, TrainingInterrupted
from molml.training.interruption import Interruption


@pytest.fixture(autouse=True)
def default_handlers():
    """A shell may have told background jobs to ignore Ctrl-C."""
    before = [(s, signal.signal(s, signal.default_int_handler)) for s in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


class Walker(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))


def trainer(directory, at=10**9, number=signal.SIGINT, times=1):
    """Trainer whose weight goes up by one per step, which is best near 4; signals come in step `at`."""
    model = Walker()

    def loss(model, batch):
        if model.training and model.w.item() == at:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return {"x": Term(-model.w if model.training else (model.w - 4) ** 2, 1)}

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Trainer(model, loss, optimizer, batch_size=1, max_epochs=4, directory=directory, description="walking")


data = ArrayDataset(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_is_finished_and_saved(number, tmp_path):
    with pytest.raises(
        TrainingInterrupted, match=f"walking was interrupted by {number.name} in epoch 3 of 4"
    ) as caught:
        stopped = trainer(tmp_path, at=7, number=number)
        stopped.fit(data, data)
    assert caught.value.signal == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert str(tmp_path / "checkpoint.molml") in str(caught.value)
    assert "resume=True" in str(caught.value)
    # the best so far, of epoch 1 (w = 3), not the last (w = 8)
    assert stopped.model.w.item() == 3.0
    assert not stopped.model.training
    resumed, straight = trainer(tmp_path), trainer(None)
    assert len(resumed.fit(data, data, resume=True)) == 4
    straight.fit(data, data)
    np.testing.assert_array_equal(resumed.model.w.item(), straight.model.w.item())


def test_in_the_first_epoch_the_current_weights_stay(tmp_path):
    with pytest.raises(TrainingInterrupted):
        stopped = trainer(tmp_path, at=1)
        stopped.fit(data, data)
    assert stopped.model.w.item() == 2.0


def test_without_a_directory_the_hint_is_another_one():
    with pytest.raises(TrainingInterrupted, match="give the Trainer a directory"):
        trainer(None, at=1).fit(data)


def test_a_second_signal_stops_at_once(tmp_path):
    stopped = trainer(tmp_path, at=1, times=2)
    with pytest.raises(TrainingInterrupted, match="at once by a second signal"):
        stopped.fit(data)
    # the step was not made
    assert stopped.model.w.item() == 1.0


@pytest.mark.parametrize("at", [1, 10**9])
def test_handlers_are_given_back(at):
    stopped = trainer(None, at=at)
    with pytest.raises((TrainingInterrupted, ZeroDivisionError)):
        stopped.fit(data)
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ignoring = trainer(None, at=1)
    ignoring.fit(data)
    assert ignoring.model.w.item() == 12.0
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.received is None


def test_other_threads_train_without_handlers():
    threaded = trainer(None)
    thread = threading.Thread(target=threaded.fit, args=(data,))
    thread.start()
    thread.join()
    assert threaded.model.w.item() == 12.0
