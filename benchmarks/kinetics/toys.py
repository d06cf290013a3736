"""Every method with one coordinate on systems whose slowest function is known exactly; prints a markdown table.

    python benchmarks/kinetics/toys.py [--seeds 5]

Correlation: canonical, with the exact slow function, worst and mean over seeds (of the simulation and of the method).
Timescale: of the coordinate, from its autocorrelation at five lag times (its own lag time for the beltway), over the
exact one, mean and standard error over seeds. VAMP-2 and its ceiling: of the coordinate at the lag time, 1 included.
"""

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from molml.kinetics import (
    PCA,
    TICA,
    Autoencoder,
    ReversibleVAMPNet,
    TimeLaggedAutoencoder,
    VAMPNet,
    VariationalTimeLaggedAutoencoder,
)
from molml.kinetics.metrics import canonical_correlations, vamp_score
from molml.kinetics.systems import beltway, square_root_model, swiss_roll_model


class Toy(NamedTuple):
    system: Any
    n_frames: int
    stride: int  # steps of the simulation in a frame
    lagtime: int  # of the methods, frames
    judged_at: int  # lag time of the timescale, frames


TOYS = {
    "square root": Toy(square_root_model(), 10_000, 1, 1, 5),
    "swiss roll": Toy(swiss_roll_model(), 30_000, 1, 1, 5),
    "beltway": Toy(beltway(), 50_000, 100, 10, 10),
}


def methods(lagtime: int, seed: int) -> dict[str, Any]:
    options: dict[str, Any] = {"seed": seed, "progress": False}
    return {
        "PCA": PCA(1),
        "TICA": TICA(lagtime, 1),
        "autoencoder": Autoencoder(1, **options),
        "time-lagged autoencoder": TimeLaggedAutoencoder(lagtime, 1, **options),
        "variational time-lagged": VariationalTimeLaggedAutoencoder(lagtime, 1, **options),
        "VAMPnet": VAMPNet(lagtime, 1, **options),
        "reversible VAMPnet": ReversibleVAMPNet(lagtime, 1, **options),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| system | method | worst correlation | mean | timescale / exact | VAMP-2 | exact | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for title, toy in TOYS.items():
        figures: dict[str, list[tuple[float, ...]]] = {}
        for seed in tqdm(range(arguments.seeds), desc=title, disable=None):
            x = toy.system.simulate(toy.n_frames * toy.stride, seed=seed).trajectories[0][:: toy.stride].copy()
            slow = toy.system.slow_function(x)[:, None]
            for name, method in methods(toy.lagtime, seed).items():
                started = time.process_time()
                z = method.fit(x).transform(x)
                seconds = time.process_time() - started
                timescale = TICA(toy.judged_at, 1).fit(z).timescales()[0] * toy.stride / toy.system.timescales(1)[0]
                figures.setdefault(name, []).append(
                    (canonical_correlations(z, slow)[0], timescale, vamp_score(z, toy.lagtime), seconds)
                )
        ceiling = toy.system.vamp2(toy.lagtime * toy.stride, 1)
        for name, rows in figures.items():
            correlation, timescale, score, seconds = np.array(rows).T
            error = timescale.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.nan
            print(
                f"| {title} | {name} | {correlation.min():.3f} | {correlation.mean():.3f} | {timescale.mean():.3f} ± "
                f"{error:.3f} | {score.mean():.3f} | {ceiling:.3f} | {seconds.mean():.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
