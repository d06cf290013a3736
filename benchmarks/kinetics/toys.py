"""Systems whose slow functions and timescales are known exactly; prints two markdown tables.

    python benchmarks/kinetics/toys.py [--seeds 20] [--systems "swiss roll" Prinz …] [--methods PCA TICA …]

First table, every method with one coordinate. Correlation: canonical, with the exact slow function, the worst of the
first five seeds and of all. Timescale: of the coordinate, from its autocorrelation at one lag time, over the exact one.
Same frames: over what the exact slow function gives on the frames of that seed, so that the noise of the simulation
cancels and what is left is due to the method. VAMP-2 and its ceiling: of the coordinate at the lag time, 1 included.

Second table, Markov models on k-means cells: of the reversible VAMPnet's coordinates where the positions do not show
the slow motion (fitted to as many frames as in the first table), else of the positions. One rule for all: frames that
last 6,000 times the slowest timescale; one cell for 2,000 frames, at least 100 on a line and 1,000 in a plane. A
process is judged at the lag time that is half its exact timescale: shorter ones see the cells, longer ones the noise.
Timescales that are equal are averaged, as estimates come in order of size. Müller–Brown is left out: its slow process
takes 2.6 million frames to happen once.

A seed is one simulation and one fit. Everything is mean ± standard error over seeds, and how many standard errors the
mean is from 1.
"""

import argparse
import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from molml.kinetics import (
    PCA,
    TICA,
    Autoencoder,
    KMeans,
    MarkovStateModel,
    ReversibleVAMPNet,
    TimeLaggedAutoencoder,
    VAMPNet,
    VariationalTimeLaggedAutoencoder,
)
from molml.kinetics.metrics import canonical_correlations, vamp_score
from molml.kinetics.systems import (
    asymmetric_double_well,
    beltway,
    double_well,
    prinz_potential,
    quadruple_well,
    square_root_model,
    swiss_roll_model,
    triple_well,
)


class Toy(NamedTuple):
    system: Any
    n_processes: int  # of the Markov model
    stride: int = 1  # steps of the simulation in a frame
    # of the first table
    n_frames: int = 0
    lagtime: int = 1  # of the methods, frames
    judged_at: int = 5  # lag time of the timescale, frames
    # of the second
    least_cells: int = 100


TOYS = {
    "square root": Toy(square_root_model(), 1, n_frames=10_000),
    "swiss roll": Toy(swiss_roll_model(), 3, n_frames=30_000),
    "beltway": Toy(beltway(), 3, 100, 50_000, 10, 10),
}
WELLS = {
    "double well, β = 1": Toy(double_well(), 1),
    "double well, β = 4": Toy(double_well(temperature=0.25), 1),
    "asymmetric double well, β = 4": Toy(asymmetric_double_well(), 1),
    "Prinz": Toy(prinz_potential(), 3),
    "triple well": Toy(triple_well(), 2, least_cells=1000),
    "quadruple well": Toy(quadruple_well(), 3, least_cells=1000),
}
N_TIMESCALES, MOST_AT_ONCE = 6_000, 100_000
"""The relative error of a timescale t from a simulation of length T is about (3 t / T)^½: 2 % here, 0.5 % of twenty."""
FRAMES_PER_CELL = 2_000
"""With few a model fits the noise: 150 frames in a cell make the timescales of the swiss roll 1.1 % longer than its
hidden states make them on the same frames (20 seeds), 600 frames 0.25 %: in inverse proportion. Few cells are wide: 95,
380 and 1,520 of them make the second process of the triple well 3.0 % and 0.7 % shorter and, with 500 frames in a cell,
0.5 % longer than its exact function does on the same frames (6 seeds)."""


METHODS = ("PCA", "TICA", "autoencoder", "time-lagged autoencoder", "variational time-lagged", "VAMPnet",
           "reversible VAMPnet")  # fmt: skip


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


def simulated(toy: Toy, n_frames: int, seed: int) -> Any:
    return toy.system.simulate(n_frames * toy.stride, seed=seed).trajectories[0][:: toy.stride].copy()


def long_simulations(toy: Toy, seed: int) -> list[Any]:
    """Trajectories of the length that the rule of the Markov models demands, which start in equilibrium."""
    n_frames = max(
        toy.least_cells * FRAMES_PER_CELL, math.ceil(N_TIMESCALES * toy.system.timescales(1)[0] / toy.stride)
    )
    n_pieces = math.ceil(n_frames / MOST_AT_ONCE)
    seeds = np.random.default_rng(seed).integers(2**32, size=n_pieces)
    return [simulated(toy, math.ceil(n_frames / n_pieces), int(piece)) for piece in seeds]


def of_coordinate(toy: Toy, z: Any) -> float:
    """Timescale of a coordinate over the exact one."""
    return TICA(toy.judged_at, 1).fit(z).timescales()[0] * toy.stride / toy.system.timescales(1)[0]


def of_markov_model(toy: Toy, z: list[Any], seed: int) -> Any:
    """Timescales of Markov models over the exact ones."""
    n_cells = sum(map(len, z)) // FRAMES_PER_CELL
    some = np.concatenate(z)[:: FRAMES_PER_CELL // 25]
    states = KMeans(n_cells, seed=seed).fit(some).predict(z)
    exact = toy.system.timescales(toy.n_processes) / toy.stride
    ratios = np.empty(toy.n_processes)
    for lagtime in {half(t) for t in exact}:
        found = MarkovStateModel(lagtime, sparse=True).fit(states).timescales(toy.n_processes) / exact
        ratios = np.where([half(t) == lagtime for t in exact], found, ratios)
    return np.array([ratios[np.isclose(exact, t)].mean() for t in distinct(exact)])


def half(timescale: float) -> int:
    return max(1, round(timescale / 2))


def distinct(timescales: Any) -> Any:
    return timescales[np.append(True, ~np.isclose(timescales[1:], timescales[:-1]))]


def with_error(values: Any) -> str:
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {error:.3f} ({(values.mean() - 1) / error:+.1f})"


def compare_methods(toys: dict[str, Toy], names: list[str], seeds: range) -> None:
    print(
        "| system | method | worst of five | of all | timescale / exact (SE) | same frames | VAMP-2 | exact | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for title, toy in toys.items():
        figures: dict[str, list[tuple[float, ...]]] = {}
        for seed in tqdm(seeds, desc=title, disable=None):
            x = simulated(toy, toy.n_frames, seed)
            slow = toy.system.slow_function(x)[:, None]
            known = of_coordinate(toy, slow)
            figures.setdefault("exact function", []).append((1.0, known, 1.0, vamp_score(slow, toy.lagtime), 0.0))
            for name in names:
                method = methods(toy.lagtime, seed)[name]
                started = time.process_time()
                z = method.fit(x).transform(x)
                seconds = time.process_time() - started
                found = of_coordinate(toy, z)
                correlation = canonical_correlations(z, slow)[0]
                figures.setdefault(name, []).append(
                    (correlation, found, found / known, vamp_score(z, toy.lagtime), seconds)
                )
        ceiling = toy.system.vamp2(toy.lagtime * toy.stride, 1)
        for name, rows in figures.items():
            correlation, timescale, paired, score, seconds = np.array(rows).T
            error = paired.std(ddof=1) / len(paired) ** 0.5
            print(
                f"| {title} | {name} | {correlation[:5].min():.3f} | {correlation.min():.3f} | "
                f"{with_error(timescale)} | {paired.mean():.4f} ± {error:.4f} | {score.mean():.3f} | "
                f"{ceiling:.3f} | {seconds.mean():.1f} |",
                flush=True,
            )


def judge_markov_models(toys: dict[str, Toy], seeds: range) -> None:
    print("\n| system | frames | exact timescales (frames) | found / exact (SE) |")
    print("|---|---|---|---|")
    for title, toy in toys.items():
        found = []
        for seed in tqdm(seeds, desc=title, disable=None):
            x = long_simulations(toy, seed)
            if title in TOYS:
                network = ReversibleVAMPNet(toy.lagtime, toy.n_processes, seed=seed, progress=False)
                x = network.fit(x[0][: toy.n_frames]).transform(x)
            n_frames = sum(map(len, x))
            found.append(of_markov_model(toy, x, seed))
        exact = distinct(toy.system.timescales(toy.n_processes) / toy.stride)
        print(
            f"| {title} | {n_frames:,} | {', '.join(f'{t:.2f}' for t in exact)} | "
            f"{', '.join(with_error(column) for column in np.array(found).T)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--systems", nargs="+", choices=[*TOYS, *WELLS], default=[*TOYS, *WELLS])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: standard errors are over seeds")
    torch.set_num_threads(1)
    seeds = range(arguments.seeds)
    compare_methods({t: toy for t, toy in TOYS.items() if t in arguments.systems}, arguments.methods, seeds)
    judge_markov_models({t: toy for t, toy in (TOYS | WELLS).items() if t in arguments.systems}, seeds)


if __name__ == "__main__":
    main()
