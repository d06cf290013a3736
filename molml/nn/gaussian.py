"""Normal distributions with diagonal covariance: log densities, divergences and samples.

Everywhere the last dimension is that of the variable, and ``logvar`` is the logarithm of its variances.
"""

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def log_density(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; μ, σ²) = -½ Σ (log 2π + log σ² + (x - μ)² / σ²).

    Parameters
    ----------
    x, mean, logvar : Tensor, shapes (..., n) that broadcast

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If the last dimensions differ.

    Examples
    --------
    >>> log_density(torch.zeros(2), torch.zeros(2), torch.zeros(2))
    tensor(-1.8379)
    """
    _check_widths(x=x, mean=mean, logvar=logvar)
    return -0.5 * (LOG_2PI + logvar + (x - mean) ** 2 * torch.exp(-logvar)).sum(-1)


def kl_divergence(
    mean: Tensor, logvar: Tensor, prior_mean: Tensor | None = None, prior_logvar: Tensor | None = None
) -> Tensor:
    """KL(N(μ, σ²) ‖ N(m, s²)) = ½ Σ (log s² - log σ² + (σ² + (μ - m)²) / s² - 1), in nats.

    Parameters
    ----------
    mean, logvar : Tensor, shape (..., n)
    prior_mean, prior_logvar : Tensor, shapes (..., n), optional
        Those of N(0, 1) if not given.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If the last dimensions differ.

    References
    ----------
    Kingma and Welling, ICLR 2014, appendix B, for N(0, 1).

    Examples
    --------
    >>> kl_divergence(torch.tensor([2.0]), torch.tensor([0.0]))
    tensor(2.)
    """
    prior_mean = torch.zeros_like(mean) if prior_mean is None else prior_mean
    prior_logvar = torch.zeros_like(logvar) if prior_logvar is None else prior_logvar
    _check_widths(mean=mean, logvar=logvar, prior_mean=prior_mean, prior_logvar=prior_logvar)
    difference = logvar - prior_logvar
    # expm1(d) - d keeps its digits where the two variances are nearly equal
    return 0.5 * (torch.expm1(difference) - difference + (mean - prior_mean) ** 2 * torch.exp(-prior_logvar)).sum(-1)


def sample(mean: Tensor, logvar: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """μ + σ ε with ε from N(0, 1): a sample through which gradients reach both parameters.

    Parameters
    ----------
    mean, logvar : Tensor, the same shape
    generator : torch.Generator, optional
        Source of ε; torch's global one if not given, which the Trainer seeds before every step.

    Returns
    -------
    Tensor, of that shape

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Kingma and Welling, ICLR 2014, section 2.4.
    """
    if mean.shape != logvar.shape:
        raise ValueError(f"mean and logvar must have one shape, got {tuple(mean.shape)} and {tuple(logvar.shape)}")
    noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean + torch.exp(0.5 * logvar) * noise


def _check_widths(**tensors: Tensor) -> None:
    if len({tensor.shape[-1:] for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"the last dimensions must be equal, got {shapes}")
