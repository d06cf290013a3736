"""An epoch of a time-lagged autoencoder and of VAMPnets on 100,000 pairs of 30 features: CPU seconds, beside deeptime.

    python benchmarks/kinetics/networks.py [N_ROUNDS]

One thread, batches of 1000, encoder 30-200-100-1, decoder 1-100-200-30, Adam; deeptime with its default activation
(ELU) and with ours (tanh), without held-out data on either side. The time of an epoch is the difference between fits of
five and of one, each the least of several rounds in which every candidate has its turn.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from molml.kinetics import ReversibleVAMPNet, TimeLaggedAutoencoder, VAMPNet

N_PAIRS, N_FEATURES, BATCH, N_EPOCHS = 100_000, 30, 1000, 4
HIDDEN = (200, 100)


def cpu_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def ours(cls: type[Any], x: np.ndarray, n_epochs: int) -> float:
    options: dict[str, Any] = {"hidden": HIDDEN, "batch_size": BATCH, "valid_fraction": 0.0, "progress": False}
    return cpu_seconds(lambda: cls(1, 1, max_epochs=n_epochs, **options).fit(x))


def deeptime(kind: str, x: np.ndarray, activation: type[nn.Module], n_epochs: int) -> float:
    from deeptime.decomposition.deep import TAE
    from deeptime.decomposition.deep import VAMPNet as DeeptimeVAMPNet
    from deeptime.util.data import TrajectoryDataset
    from deeptime.util.torch import MLP
    from torch.utils.data import DataLoader

    encoder = MLP([N_FEATURES, *HIDDEN, 1], nonlinearity=activation)
    if kind == "TAE":
        estimator = TAE(encoder, MLP([1, *HIDDEN[::-1], N_FEATURES], nonlinearity=activation))
    else:
        estimator = DeeptimeVAMPNet(encoder)
    loader = DataLoader(TrajectoryDataset(1, x), batch_size=BATCH, shuffle=True)
    return cpu_seconds(lambda: estimator.fit(loader, n_epochs=n_epochs))


def main() -> None:
    n_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x = np.random.default_rng(0).standard_normal((N_PAIRS + 1, N_FEATURES)).astype(np.float32)
    candidates: dict[str, Callable[[int], float]] = {
        "molml TimeLaggedAutoencoder": lambda n: ours(TimeLaggedAutoencoder, x, n),
        "deeptime TAE, ELU": lambda n: deeptime("TAE", x, nn.ELU, n),
        "deeptime TAE, tanh": lambda n: deeptime("TAE", x, nn.Tanh, n),
        "molml VAMPNet": lambda n: ours(VAMPNet, x, n),
        "molml ReversibleVAMPNet": lambda n: ours(ReversibleVAMPNet, x, n),
        "deeptime VAMPNet, ELU": lambda n: deeptime("VAMPNet", x, nn.ELU, n),
        "deeptime VAMPNet, tanh": lambda n: deeptime("VAMPNet", x, nn.Tanh, n),
    }
    short, long = (np.full((n_rounds, len(candidates)), np.inf) for _ in range(2))
    for row in range(n_rounds):
        for column, run in enumerate(candidates.values()):
            short[row, column], long[row, column] = run(1), run(1 + N_EPOCHS)
    epoch = dict(zip(candidates, (long.min(0) - short.min(0)) / N_EPOCHS, strict=True))
    for name, seconds in epoch.items():
        print(f"{name:30s} {seconds:.3f} s an epoch")
    for kind, names in (("TAE", ["TimeLaggedAutoencoder"]), ("VAMPNet", ["VAMPNet", "ReversibleVAMPNet"])):
        for name in names:
            for activation in ("ELU", "tanh"):
                ratio = epoch[f"deeptime {kind}, {activation}"] / epoch[f"molml {name}"]
                print(f"{name}: {ratio:.2f} times as fast as deeptime {kind}, {activation}")


if __name__ == "__main__":
    main()
