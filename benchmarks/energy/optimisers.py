"""What optimisers make of the same network in the same time: silicon, the recipe of `fit` but for the optimiser.

    python benchmarks/energy/optimisers.py Si_train.xyz.xz OUTPUT [--minutes 1] [--seeds 0 1] [--only NAME …]

A fifth of the training structures is kept aside; no test file is read. Adam is the recipe's. Others have its
schedules and averages, and of three learning rates the one with the best result of the first seed; L-BFGS, which
needs one batch, has neither. Muon (Jordan 2024) orthogonalises the steps of weight matrices, SOAP (Vyas et al., arXiv
2409.11321) is Adam in the eigenbasis of Shampoo's preconditioner; biases are left to Adam. The Kalman filter has a
block for every unit of a layer (Puskorius, Feldkamp, IEEE Trans. Neural Netw. 5, 279 (1994)): one for the first layer,
of 19,264 weights, would hold 3 GB; and, like those for neural potentials (Hu et al., AAAI 2023), it observes one number
a batch, the root of the objective. One thread; minutes are wall-clock time, so nothing else should run. OUTPUT keeps
the rows and a figure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import molml.energy.fitting as recipe
from molml.energy import StructureDataset, evaluate, fit
from molml.training import Trainer

Parameters = Iterable[torch.nn.Parameter]


class Soap(torch.optim.Optimizer):
    """Adam in the slowly changing eigenbasis of Shampoo's preconditioner, for matrices; Adam for the rest."""

    def __init__(self, parameters: Parameters, lr: float, beta: float = 0.95, every: int = 10) -> None:
        super().__init__(parameters, {"lr": lr})
        self.beta, self.every = beta, every

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        beta = self.beta
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
                    if p.ndim == 2:
                        state["sides"] = [p.new_zeros(n, n) for n in p.shape]
                state["step"] += 1
                n, gradient = state["step"], p.grad
                state["mean"].lerp_(gradient, 1 - beta)
                mean = state["mean"]
                if p.ndim == 2:
                    for side, product in zip(
                        state["sides"], (gradient @ gradient.T, gradient.T @ gradient), strict=True
                    ):
                        side.lerp_(product, 1 - beta)
                    if n == 1 or n % self.every == 0:
                        state["bases"] = [torch.linalg.eigh(side)[1] for side in state["sides"]]
                    left, right = state["bases"]
                    gradient, mean = left.T @ gradient @ right, left.T @ mean @ right
                state["square"].mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
                scale = (state["square"] / (1 - beta**n)).sqrt_().add_(1e-8)
                change = mean / (1 - beta**n) / scale
                p.sub_(left @ change @ right.T if p.ndim == 2 else change, alpha=group["lr"])
        return value


class Muon(torch.optim.Optimizer):
    """torch's Muon for matrices and Adam for the rest, as one optimiser."""

    def __init__(self, parameters: Parameters, lr: float) -> None:
        everything = list(parameters)
        super().__init__(everything, {"lr": lr})
        matrices = [p for p in everything if p.ndim == 2]
        self.parts = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=0.0),
            torch.optim.Adam([p for p in everything if p.ndim != 2], lr=1e-3),
        ]
        self.first = [part.param_groups[0]["lr"] for part in self.parts]
        self.whole = lr

    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step, with the learning rate that a schedule gave to this optimiser."""
        value = None if closure is None else closure()
        for part, first in zip(self.parts, self.first, strict=True):
            part.param_groups[0]["lr"] = first * self.param_groups[0]["lr"] / self.whole
            part.step()
        return value


class Kalman(torch.optim.Optimizer):
    """Extended Kalman filter with fading memory, decoupled by units: a covariance for every row of weights and bias."""

    def __init__(self, parameters: Parameters, lr: float, memory: float = 0.98, towards: float = 0.9987) -> None:
        super().__init__(parameters, {"lr": lr})
        self.memory, self.towards = memory, towards
        self.covariances: list[torch.Tensor] = []

    def _rows(self, of: Callable[[torch.nn.Parameter], torch.Tensor]) -> list[torch.Tensor]:
        """Weights and bias of every layer side by side, a row for each unit."""
        own = [of(p) for group in self.param_groups for p in group["params"]]
        return [torch.cat([w, b[:, None]], dim=1) for w, b in zip(own[::2], own[1::2], strict=True)]

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step."""
        assert closure is not None
        with torch.enable_grad():
            value = closure()
        error = float(value) ** 0.5
        slopes = [row / (2 * error) for row in self._rows(lambda p: cast(torch.Tensor, p.grad))]
        if not self.covariances:
            self.covariances = [torch.eye(s.shape[1]).to(s).repeat(len(s), 1, 1) for s in slopes]
        products = [torch.bmm(p, s[:, :, None])[:, :, 0] for p, s in zip(self.covariances, slopes, strict=True)]
        expected = self.memory + sum(float((a * s).sum()) for a, s in zip(products, slopes, strict=True))
        parameters = [p for group in self.param_groups for p in group["params"]]
        rate = self.param_groups[0]["lr"]
        for i, (covariance, product) in enumerate(zip(self.covariances, products, strict=True)):
            change = product * (rate * error / expected)
            parameters[2 * i].sub_(change[:, :-1])
            parameters[2 * i + 1].sub_(change[:, -1])
            covariance.baddbmm_(
                product[:, :, None], product[:, None], beta=1 / self.memory, alpha=-1 / (expected * self.memory)
            )
        self.memory = self.towards * self.memory + 1 - self.towards
        return value


ADAM = torch.optim.Adam
OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], tuple[float, ...]]] = {
    "Adam": (ADAM, (recipe.LEARNING_RATE,)),
    "Muon": (Muon, (1e-3, 3e-3, 1e-2)),
    "SOAP": (Soap, (1e-3, 3e-3, 1e-2)),
    "Kalman": (Kalman, (0.01, 0.1, 1.0)),
    "L-BFGS": (
        lambda parameters, lr: torch.optim.LBFGS(
            parameters, lr=lr, max_iter=10, history_size=30, line_search_fn="strong_wolfe"
        ),
        (1.0,),
    ),
}


def run(name: str, rate: float, train: StructureDataset, valid: StructureDataset, minutes: float, seed: int) -> dict:
    """Errors on what is kept aside, and the way there."""
    make = OPTIMISERS[name][0]

    def trainer(*arguments: object, **settings: object) -> Trainer:
        if name == "L-BFGS":
            settings |= {"batch_size": len(train), "lr_schedule": None, "average_epochs": None, "max_epochs": 10**6}
            settings["weight_schedule"] = None
        return Trainer(*arguments, **settings)

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(torch.optim, "Adam", lambda parameters, lr: make(parameters, lr=rate)),
        patch.object(recipe, "Trainer", trainer),
    ):
        potential = fit(train, valid, minutes=minutes, epochs=10**6, directory=folder, seed=seed, guard=False)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    metrics = evaluate(potential, valid).metrics
    return {
        "optimiser": name,
        "rate": rate,
        "seed": seed,
        "curve": [(row["seconds"], row["valid_energy_mse"] ** 0.5, row["valid_forces_mse"] ** 0.5) for row in rows],
        "metrics": {kind: metrics[kind] for kind in ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")},
    }


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(OPTIMISERS), default=list(OPTIMISERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(5.4, 3.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    for number, name in enumerate(arguments.only):
        rows = []
        for seed in arguments.seeds:
            train, valid = StructureDataset(arguments.data).split(0.2, seed)
            rates = (
                OPTIMISERS[name][1] if not rows else (min(rows, key=lambda row: row["metrics"]["forces_mae"])["rate"],)
            )
            for rate in rates:
                path = arguments.output / f"{name}-{rate:g}-{seed}-{arguments.minutes:g}min.json"
                if not path.exists():
                    path.write_text(json.dumps(run(name, rate, train, valid, arguments.minutes, seed)))
                row = json.loads(path.read_text())
                rows.append(row)
                shown = "  ".join(f"{kind} {1e3 * value:.2f}" for kind, value in row["metrics"].items())
                print(f"{name:<7} lr {rate:<6g} seed {seed}: {shown}  {len(row['curve'])} epochs", flush=True)
        best = min((row for row in rows if row["seed"] == arguments.seeds[0]), key=lambda r: r["metrics"]["forces_mae"])
        for row in rows:
            if row["rate"] == best["rate"]:
                seconds, _, forces = zip(*row["curve"], strict=True)
                label = name if row is best else None
                axes.loglog(seconds, [1e3 * value for value in forces], color=f"C{number}", label=label, lw=1)
    axes.set(xlabel="training (s)", ylabel="force RMSE on structures kept aside (meV/Å)")
    axes.legend(frameon=False)
    figure.savefig(arguments.output / "optimisers.png")


if __name__ == "__main__":
    main()
