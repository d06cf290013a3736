"""Games of a generator against a discriminator, played by the one Trainer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from molml.training.data import ArrayDataset
from molml.training.evaluation import Loss
from molml.training.loss import Term
from molml.training.trainer import Trainer

RULES = ("minimax", "non-saturating", "wasserstein")


def adversarial_loss(rule: str, n_latent: int, *, penalty: float = 10.0) -> Loss:
    """Loss of both players of a game: a step along the gradient of their sum is a step of each.

    The discriminator's term is a function of fixed samples, the generator's goes through a fixed discriminator.

    Parameters
    ----------
    rule : "minimax", "non-saturating" or "wasserstein"
        With D the sigmoid of the discriminator's output f, x data and G(z) samples:

        - minimax: the discriminator maximises E log D(x) + E log(1 - D(G(z))), the generator minimises it
        - non-saturating: the same discriminator; the generator maximises E log D(G(z))
        - wasserstein: the discriminator maximises E f(x) - E f(G(z)) less `penalty` times E (|∇f| - 1)² between data
          and samples; the generator maximises E f(G(z))
    n_latent : int
        Length of z, which is standard normal.
    penalty : float
        Of the slope; it is per unit of length of the data, whose scale therefore matters.

    Returns
    -------
    callable
        (model, batch) -> {"discriminator": Term, "generator": Term} of a ModuleDict with these two and a batch whose
        first tensor is data of shape (n, ...).

    Raises
    ------
    ValueError
        If there is no such rule, or a number is out of its range.

    References
    ----------
    Goodfellow et al., NIPS 2014; Gulrajani et al., NIPS 2017, eq. 3.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if n_latent < 1:
        raise ValueError(f"n_latent must be at least 1, got {n_latent}")
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be 0 or more and finite, got {penalty}")

    def loss(model: Any, batch: Any) -> dict[str, Term]:
        real = batch[0]
        n = len(real)
        discriminator = model["discriminator"]
        made = model["generator"](torch.randn(n, n_latent, dtype=real.dtype, device=real.device))
        on_real, on_made = discriminator(real), discriminator(made.detach())
        seen = _fixed(discriminator, made)
        if rule == "wasserstein":
            steep = _slope_excess(discriminator, real, made.detach(), create_graph=model.training)
            critic = (on_made - on_real).sum() + penalty * steep
            return {"discriminator": Term(critic, n), "generator": Term(-seen.sum(), n)}
        wrong = -functional.logsigmoid(on_real).sum() - functional.logsigmoid(-on_made).sum()
        answer = functional.logsigmoid(-seen).sum() if rule == "minimax" else -functional.logsigmoid(seen).sum()
        return {"discriminator": Term(wrong, n), "generator": Term(answer, n)}

    return loss


def play(
    generator: nn.Module,
    discriminator: nn.Module,
    data: Tensor,
    rule: str,
    n_latent: int,
    *,
    max_epochs: int,
    learning_rates: tuple[float, float] = (1e-3, 1e-3),
    batch_size: int = 128,
    lr_schedule: Callable[[float], float] | None = None,
    penalty: float = 10.0,
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Train both players in place by Adam, with β₁ = 0.5 (Radford, Metz and Chintala, ICLR 2016) and β₂ = 0.9.

    They keep their weights of the last step: no objective of a game says which ones are best.

    Parameters
    ----------
    generator, discriminator : torch.nn.Module
        z (n, n_latent) to samples (n, ...) like the data, and these to (n, 1).
    data : Tensor, shape (n_data, ...)
    rule, n_latent, penalty
        As of `adversarial_loss`.
    learning_rates : (float, float)
        Of the generator and of the discriminator.
    max_epochs, batch_size, lr_schedule, seed, progress
        As of `Trainer`.

    Raises
    ------
    ValueError, TypeError, TrainingDivergedError
        As of `adversarial_loss` and `Trainer`.
    """
    players = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    both = adversarial_loss(rule, n_latent, penalty=penalty)
    last: dict[str, Tensor] = {}

    def loss(model: Any, batch: Any) -> Any:
        # the Trainer would give back the weights of the epoch with the lowest objective
        last.update({name: value.detach().clone() for name, value in model.state_dict().items()})
        return both(model, batch)

    rates = zip((generator, discriminator), learning_rates, strict=True)
    Trainer(
        players,
        loss,
        torch.optim.Adam([{"params": list(p.parameters()), "lr": rate} for p, rate in rates], betas=(0.5, 0.9)),
        batch_size=batch_size,
        max_epochs=max_epochs,
        lr_schedule=lr_schedule,
        seed=seed,
        progress=progress,
        description=f"{rule} game",
    ).fit(ArrayDataset(data, data))
    players.load_state_dict(last)


def _fixed(module: nn.Module, x: Tensor) -> Tensor:
    """Output of a module whose weights are not to be trained by it."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    result: Tensor = functional_call(module, weights, (x,))
    return result


def _slope_excess(critic: nn.Module, real: Tensor, made: Tensor, *, create_graph: bool) -> Tensor:
    """Σ (|∇f| - 1)² at a random point between each of the data and a sample."""
    share = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device)
    between = (share * real + (1 - share) * made).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=create_graph)
    return (slope.flatten(1).norm(dim=1) - 1).square().sum()
