"""What training minimises: the evidence lower bound, with a weight on its divergence, and the errors of properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from molml.molecules.dataset import MoleculeBatch, on_device
from molml.molecules.decoder import END, PAD, START
from molml.nn import gaussian
from molml.training import Term

NOISY = 0.5


@final
class ELBO:
    """Negative evidence lower bound per molecule, -log p(x|z) + β KL(q(z|x) ‖ N(0, 1)), in nats.

    Both summands are sums, the one over the tokens of a molecule, the other over the dimensions of z; so `beta` is
    that of the literature, whatever the length of the strings.

    Of some molecules the decoder gets the code with noise added, and is told its standard deviation s: then it learns
    p(x|z + s ε), from all of a molecule (s = 0) to what remains of it when the code is hardly known. √(s²/(1 + s²)) is
    drawn like the largest of two uniform numbers, so that half of the s lie above 1.

    Terms: cross_entropy, kl (and kl_free, which takes its place in the objective, where there are free nats), and
    property_mse (of standardised properties, per known value) where the model predicts properties.

    Parameters
    ----------
    beta : float
        Weight of the divergence, 0 or more.
    free_nats : float
        Divergence per dimension, averaged over the batch, that costs nothing.
    word_dropout : float
        Probability with which a token that the decoder reads in training is hidden from it, 0 … 1, where the code has
        no noise.
    noisy : float
        Probability with which a molecule's code gets noise, 0 … 1.
    property_weight : float
        Weight of the properties' error.
    precision : torch.dtype
        torch.bfloat16 computes what torch.autocast allows in that type, torch.float32 nothing.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    Kingma and Welling, ICLR 2014, eq. 8 and 10; Higgins et al., ICLR 2017 (β); Kingma et al., NeurIPS 2016,
    appendix C.8 (free nats); Bowman et al., CoNLL 2016 (word dropout, warm-up).
    """

    def __init__(
        self,
        *,
        beta: float = 0.1,
        free_nats: float = 0.0,
        word_dropout: float = 0.1,
        noisy: float = NOISY,
        property_weight: float = 1.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        for name, value in (("beta", beta), ("free_nats", free_nats), ("property_weight", property_weight)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout must be a probability, 0 <= word_dropout < 1, got {word_dropout}")
        if not 0 <= noisy <= 1:
            raise ValueError(f"noisy must be a probability, 0 <= noisy <= 1, got {noisy}")
        check_precision(precision)
        self.beta, self.free_nats, self.word_dropout = float(beta), float(free_nats), float(word_dropout)
        self.noisy, self.property_weight, self.precision = float(noisy), float(property_weight), precision

    def __call__(self, model: Any, batch: MoleculeBatch) -> dict[str, Term]:
        n, batch = len(batch.tokens), on_device(batch, model.decoder.output.weight.device)
        with autocast(batch.tokens.device.type, self.precision):
            # in training the encoder may read another spelling than the decoder writes
            spelled = batch if batch.read is None or not model.training else batch.read
            mean, logvar = model.encode_batch(spelled)
            z = gaussian.sample(mean, logvar)
            noise = _noise(n, self.noisy, z.device)
            # tokens are hidden so that the decoder looks at the code, which is not to be relied on where it has noise
            dropout = torch.where(noise > 0, 0.0, self.word_dropout if model.training else 0.0)
            read = _read(batch.tokens, dropout)
            logits = model.decoder(read, model.hint(z + noise * torch.randn_like(z), noise))
        divergence = gaussian.kl_divergence(mean, logvar).sum()
        terms = {
            "cross_entropy": Term(token_losses(logits, batch.tokens).sum(), n),
            "kl": Term(divergence, n, 0.0 if self.free_nats else self.beta),
        }
        if self.free_nats:
            each = gaussian.kl_divergence(mean.T[..., None], logvar.T[..., None]).mean(1)
            terms["kl_free"] = Term(each.clamp(min=self.free_nats).sum() * n, n, self.beta)
        if model.properties:
            target = (batch.properties - model.property_mean) / model.property_std
            known = torch.isfinite(target)
            error = model.predictor(z) - torch.where(known, target, 0.0)
            terms["property_mse"] = Term((error[known] ** 2).sum(), known.sum(), self.property_weight)
        return terms

    def warm_up(self, fraction: float) -> Callable[[float], dict[str, float]]:
        """Schedule for the Trainer's `weight_schedule`: β rises with the square of the time, so that it is small while
        the decoder learns to read the code.

        Parameters
        ----------
        fraction : float
            Fraction of training that the rise takes, 0 … 1.

        Returns
        -------
        callable
            Fraction of training done -> weights.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must lie in 0 … 1, got {fraction}")
        name = "kl_free" if self.free_nats else "kl"

        def weights(done: float) -> dict[str, float]:
            return {name: self.beta * ((done / fraction) ** 2 if done < fraction else 1.0)}

        return weights


def log_density(model: Any, batch: Any) -> dict[str, Term]:
    """Negative log density of codes under a learned prior, in nats, for a batch (codes,) of an ArrayDataset."""
    return {"code": Term(-model.log_density(batch[0]).sum(), len(batch[0]))}


@final
class NextToken:
    """Cross-entropy of a language model per molecule, in nats.

    Parameters
    ----------
    precision : torch.dtype
        As in `ELBO`.
    """

    def __init__(self, *, precision: torch.dtype = torch.float32) -> None:
        check_precision(precision)
        self.precision = precision

    def __call__(self, model: Any, batch: MoleculeBatch) -> dict[str, Term]:
        batch = on_device(batch, model.decoder.output.weight.device)
        with autocast(batch.tokens.device.type, self.precision):
            logits = model.decoder(batch.tokens[:, :-1])
        return {"cross_entropy": Term(token_losses(logits, batch.tokens).sum(), len(batch.tokens))}


def token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of every token after the first, in nats; 0 for padding.

    Parameters
    ----------
    logits : Tensor, shape (n, length, n_tokens)
    tokens : Tensor, shape (n, length + 1), int64

    Returns
    -------
    Tensor, shape (n, length), float32
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD, reduction="none"
    )
    return losses.view(len(tokens), -1)


def fast_precision() -> torch.dtype:
    """bfloat16 where this processor multiplies in it (AVX512-BF16 or AMX), else float32."""
    # oneDNN says yes also where it would emulate the type, at a loss
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def autocast(device: str, precision: torch.dtype) -> torch.autocast:
    """Context in which torch computes in this precision where it can; ValueError where it has none such."""
    # without AVX-512 oneDNN has no recurrent network of that type
    if precision == torch.bfloat16 and device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ValueError("precision must be torch.float32 on this processor, which cannot compute in torch.bfloat16")
    return torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16)


def check_precision(precision: torch.dtype) -> None:
    """Refuse what is neither float32 nor bfloat16."""
    if precision not in (torch.float32, torch.bfloat16):
        raise ValueError(f"precision must be torch.float32 or torch.bfloat16, got {precision}")


def _noise(n: int, share: float, device: torch.device) -> Tensor:
    """Standard deviations of the noise of codes, shape (n, 1)."""
    # at 1, where nothing is left of the code, the deviation would be infinite
    blur = torch.rand(n, 1, device=device).sqrt().clamp(max=0.999) * (torch.rand(n, 1, device=device) < share)
    return blur / (1 - blur**2).sqrt()


def _read(tokens: Tensor, dropout: Tensor) -> Tensor:
    """What the decoder reads: all but the last token, some of them hidden, with a probability (n, 1)."""
    ids = tokens[:, :-1]
    hidden = (torch.rand(ids.shape, device=ids.device) < dropout) & (ids != START) & (ids != END)
    return torch.where(hidden, PAD, ids)
