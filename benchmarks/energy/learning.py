"""How many labels active learning needs, beside random frames of molecular dynamics: copper (EMT), solid to liquid.

    python benchmarks/energy/learning.py OUTPUT [--seeds 0 1 …] [--rounds N]

Sixteen atoms in a fixed cell at 300, 900, 1500 and 2100 K. The pool of random frames and the test structures come from
simulations with EMT itself, one of each at every temperature, all with 60 frames 100 fs apart; active learning begins
with the perfect crystal and never sees them. Both fit the same committees. OUTPUT keeps the frames, the runs and a
figure, and what is there is not computed again. One thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from molml.energy import StructureDataset, evaluate, fit, learn
from molml.energy.dynamics import run_dynamics

TEMPERATURES = (300.0, 900.0, 1500.0, 2100.0)
TIMESTEP = 4.0
N_FRAMES, INTERVAL, DISCARD = 60, 25, 400
SIZES = (10, 15, 20, 30, 40, 60, 80, 100)
CUTOFF = 4.5
STEPS = 200
THRESHOLD = 0.005


def crystal() -> Atoms:
    """Copper, 8 % less dense than at rest, so that it can melt."""
    return bulk("Cu", a=3.70, cubic=True).repeat((2, 2, 1))


def frames(folder: Path, name: str, seed: int) -> StructureDataset:
    """Frames of simulations with EMT, one at each temperature."""
    found = []
    for kelvin in TEMPERATURES:
        path = folder / f"{name}-{kelvin:.0f}.xyz"
        if not path.exists():
            atoms, unfinished = crystal(), folder / f"unfinished-{name}.xyz"
            unfinished.unlink(missing_ok=True)
            atoms.calc = EMT()
            common = {"temperature": kelvin, "timestep": TIMESTEP, "interval": INTERVAL}
            run_dynamics(atoms, steps=DISCARD, seed=seed, **common)
            run_dynamics(atoms, steps=INTERVAL * N_FRAMES - 1, seed=seed + 1, output=unfinished, **common)
            unfinished.rename(path)
        found += ase.io.read(path, ":")
    return StructureDataset(found, cutoff=CUTOFF)


def at_random(pool: StructureDataset, test: StructureDataset, seed: int) -> list[tuple[int, float]]:
    """Numbers of random frames and force RMSE on the test structures, meV/Å."""
    order = np.random.default_rng(seed).permutation(len(pool))
    curve, functions, chosen_at = [], None, 0
    for n in SIZES:
        # as active learning does it
        if n >= 2 * chosen_at:
            functions, chosen_at = None, n
        potential = fit(pool.subset(order[:n]), model="linear", members=5, functions=functions, seed=seed)
        functions = potential.features
        curve.append((n, 1e3 * evaluate(potential, test).metrics["forces_rmse"]))
        print(f"random,  seed {seed}: {curve[-1][0]:4} labels {curve[-1][1]:7.2f} meV/Å", flush=True)
    return curve


def by_learning(folder: Path, test: StructureDataset, seed: int, rounds: int) -> list[tuple[int, float]]:
    """The same for active learning."""

    def report(row: dict) -> None:
        print(
            f"learning, seed {seed}: {row['n_labels']:3} labels {1e3 * row['test_forces_rmse']:7.2f} meV/Å; of "
            f"{row.get('n_walkers', 0)} simulations {row.get('n_taken', 0)} were unsure",
            flush=True,
        )

    result = learn(
        [crystal()],
        EMT(),
        folder / f"seed-{seed}",
        rounds=rounds,
        temperature=TEMPERATURES,
        timestep=TIMESTEP,
        steps=STEPS,
        threshold=THRESHOLD,
        cutoff=CUTOFF,
        test=test,
        seed=seed,
        resume=True,
        report=report,
    )
    return [(row["n_labels"], 1e3 * row["test_forces_rmse"]) for row in result.rounds]


def labels_for(error: float, curve: list[tuple[int, float]]) -> float:
    """Number of labels at which a curve comes to an error, between its points on logarithmic axes; infinite beyond."""
    for (n, above), (more, below) in zip(curve[:-1], curve[1:], strict=True):
        if above >= error >= below:
            return float(n * (more / n) ** (np.log(above / error) / max(np.log(above / below), 1e-12)))
    return np.nan if error > curve[0][1] else np.inf


def main() -> None:
    """Run both, print the shares of labels, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    test, pool = frames(arguments.output, "test", 100), frames(arguments.output, "pool", 200)
    figure = Figure(figsize=(5.4, 3.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    for seed in arguments.seeds:
        learned = by_learning(arguments.output, test, seed, arguments.rounds)
        random = at_random(pool, test, seed)
        for n, error in learned:
            print(f"seed {seed}: {error:7.2f} meV/Å with {n} labels, at random with {labels_for(error, random):.0f}")
        for curve, name, colour in ((learned, "active learning", "C0"), (random, "random frames", "C7")):
            label = name if seed == arguments.seeds[0] else None
            axes.loglog(*zip(*curve, strict=True), "o-", color=colour, label=label, markersize=4)
    axes.set(xlabel="labelled structures", ylabel="force RMSE on test structures (meV/Å)")
    axes.legend(frameon=False)
    figure.savefig(arguments.output / "learning.png")


if __name__ == "__main__":
    main()
