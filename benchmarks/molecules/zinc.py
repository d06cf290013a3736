"""An autoencoder trained on ZINC-250k within a given time, and what it is worth then.

    python benchmarks/molecules/zinc.py TRAIN VALID [--minutes 60] [--threads 1] [--n 2000] [--output FILE.json]

TRAIN and VALID are the training and validation molecules of ZINC-250k, without those of a test set. One thread for an
hour is half an hour of two cores; preparing the data and fitting the prior come on top. The settings are those of the
model that comes with the package; the weights kept are the best of molecules held out of TRAIN, VALID decides nothing.
Prints the share of N molecules of VALID that come back from their mean code, decoded greedily, and the shares of 1,000
samples that are molecules, with the mask and without, and the CPU seconds that the training had: on a machine that
others use they are fewer than the minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from molml.molecules.data import read_molecules
from molml.molecules.evaluation import evaluate
from molml.molecules.fitting import DRUGLIKE, train
from molml.training.trainer import CHECKPOINT


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="folder for checkpoint and model; resumes if there is one")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    smiles, valid = (read_molecules(path).smiles for path in (arguments.train, arguments.valid))
    resume = arguments.directory is not None and (arguments.directory / CHECKPOINT).exists()
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    model = train(
        smiles,
        minutes=arguments.minutes,
        directory=arguments.directory,
        resume=resume,
        seed=arguments.seed,
        **DRUGLIKE,
    )
    seconds = time.process_time() - started
    if arguments.directory is not None:
        model.save(arguments.directory / "model.molml")
    every = max(1, len(valid) // arguments.n)
    found = {"minutes": arguments.minutes, "threads": arguments.threads, "cpu_seconds": round(seconds)}
    found |= {"epochs": model.metadata["training"]["epochs"]}
    found |= evaluate(model, valid[::every][: arguments.n], smiles, n_samples=1000, seed=arguments.seed)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
