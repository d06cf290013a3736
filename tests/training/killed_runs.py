"""Trainings in processes of their own that are killed or interrupted at random times, and continued.

Run by test_killed_runs.py: python killed_runs.py MODE DIRECTORY; prints a JSON object. Processes are forked from this
one, which imports torch once and computes nothing itself.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import safetensors.torch  # noqa: F401  (before the forks: molml and torch would import these in every process)
import torch
import torch._dynamo

from molml.training import ArrayDataset, Trainer, TrainingInterrupted, cosine, squared_error


def fit(directory, checkpoint_seconds, ready=None):
    """Train, or continue, and return the digest of everything that must not depend on what happened on the way."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    inputs = torch.randn(50, 4)
    data = ArrayDataset(inputs, inputs.square().sum(dim=1, keepdim=True))
    valid = data.subset(range(10))
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))

    def loss(model, batch):
        if ready is not None:
            os.write(ready, b".")
        time.sleep(0.001)
        return {"y_mse": squared_error(model(batch[0]), batch[1])}

    trainer = Trainer(
        model,
        loss,
        torch.optim.Adam(model.parameters(), lr=0.01),
        lr_schedule=cosine(warmup=0.1),
        batch_size=8,
        max_epochs=12,
        average_epochs=2.0,
        directory=directory,
        checkpoint_seconds=checkpoint_seconds,
    )
    history = trainer.fit(data, valid, resume=True)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    if records != history:
        raise RuntimeError("metrics.jsonl is not the history")
    figures = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    digest = hashlib.sha256(json.dumps(figures).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def child(directory, checkpoint_seconds):
    """Fork a process that trains; its number and the end of a pipe on which every evaluation sends a byte."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    os.close(reading)
    status = 1
    try:
        # a shell may have told background jobs to ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        (directory / "digest").write_text(fit(directory, checkpoint_seconds, writing))
        status = 0
    except TrainingInterrupted as error:
        (directory / "message").write_text(str(error))
        status = 128 + error.signal
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def finish(number, reading):
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    os.close(reading)
    return status


def kills(root):
    rng = random.Random(1)
    finish(*child(root / "straight", 60.0))
    expected = (root / "straight" / "digest").read_text()
    digests, statuses = [], []
    for run in range(6):
        folder = root / str(run)
        folder.mkdir()
        for _ in range(4):
            process = child(folder, rng.choice([0.0, 0.03]))
            # of the 108 evaluations of a whole run
            for _ in range(rng.randrange(27)):
                os.read(process[1], 1)
            time.sleep(rng.uniform(0.0, 0.02))
            os.kill(process[0], signal.SIGKILL)
            statuses.append(finish(*process))
        statuses.append(finish(*child(folder, 0.03)))
        digests.append((folder / "digest").read_text())
        stale = [path.name for path in folder.iterdir() if path.suffix == ".tmp"]
        digests.extend(stale)
    return {"expected": expected, "digests": digests, "statuses": statuses}


def signals(root):
    rng = random.Random(2)
    finish(*child(root / "straight", 60.0))
    expected = (root / "straight" / "digest").read_text()
    digests, statuses, messages = [], [], []
    for run in range(4):
        folder = root / str(run)
        folder.mkdir()
        for number in (signal.SIGINT, signal.SIGTERM):
            process = child(folder, 60.0)
            os.read(process[1], 1)
            time.sleep(rng.uniform(0.0, 0.02))
            os.kill(process[0], number)
            statuses.append(finish(*process))
            messages.append((folder / "message").read_text())
        finish(*child(folder, 60.0))
        digests.append((folder / "digest").read_text())
    return {"expected": expected, "digests": digests, "statuses": statuses, "messages": messages}


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    (folder / "straight").mkdir()
    print(json.dumps({"kills": kills, "signals": signals}[sys.argv[1]](folder)))
