"""Recurrent decoder over tokens, with a latent code or without."""

from __future__ import annotations

import math
from typing import cast, final

import torch
from torch import Tensor, nn

PAD, START, END = 0, 1, 2


@final
class Decoder(nn.Module):
    """One-layer LSTM that gives the next token from those before it and from a latent code.

    The code enters as the initial state and at every step, there through a plan: n_slots vectors M_k(z), of which the
    input at step t, beside the embedding of the token, holds the combination Σ_k p_t[k] M_k(z), with learned weights
    p_t for every place in the string. M_0 is the part that is the same at every step (p_t[0] starts at 1). So the
    network need not carry the whole molecule through its state from the first token to the last.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary; numbers 0, 1 and 2 are padding, start and end.
    n_latent : int
        Width of the code; 0 makes a language model.
    hidden : int
        Width of the LSTM's state.
    embedding : int
        Width of a token's embedding, and of the plan's vectors, which are added to it.
    n_slots : int
        Number of the plan's vectors.
    max_length : int
        Places with their own weights; later ones share those of the last.
    seed : int, optional
        Seed of the initial weights.

    Raises
    ------
    ValueError
        If a width is out of its range.

    References
    ----------
    Bowman et al., CoNLL 2016 (code at every step); Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018).
    """

    def __init__(
        self,
        n_tokens: int,
        n_latent: int,
        *,
        hidden: int = 512,
        embedding: int = 96,
        n_slots: int = 32,
        max_length: int = 128,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if n_tokens < 4:
            raise ValueError(f"n_tokens must be at least 4 (padding, start, end and one more), got {n_tokens}")
        if n_latent < 0:
            raise ValueError(f"n_latent must be 0 (language model) or more, got {n_latent}")
        for name, value in (
            ("hidden", hidden),
            ("embedding", embedding),
            ("n_slots", n_slots),
            ("max_length", max_length),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.n_tokens, self.n_latent, self.hidden = n_tokens, n_latent, hidden
        self.n_slots, self.max_length = n_slots, max_length
        with torch.random.fork_rng([]):
            if seed is not None:
                torch.manual_seed(seed)
            self.tokens = nn.Embedding(n_tokens, embedding)
            self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
            self.output = nn.Linear(hidden, n_tokens)
            if n_latent:
                self.initial = nn.Linear(n_latent, 2 * hidden)
                self.widen = nn.Linear(n_latent, 2 * n_latent)
                self.plan = nn.Linear(3 * n_latent, n_slots * embedding)
                self.places = nn.Parameter(_places(max_length, n_slots))
            with torch.no_grad():
                # remembers at first: the forget gate starts open (Jozefowicz et al., ICML 2015)
                cast(Tensor, self.lstm.bias_hh_l0)[hidden : 2 * hidden].fill_(1.0)

    def start(self, z: Tensor | None, n: int) -> tuple[Tensor, ...]:
        """State before the first token.

        Parameters
        ----------
        z : Tensor, shape (n, n_latent), or None
            None only for a language model.
        n : int
            Number of strings.

        Returns
        -------
        tuple of Tensor, each with n rows
            Rows may be dropped, repeated and reordered: ``tuple(s[index] for s in state)``.

        Raises
        ------
        ValueError
            If there is a code where none is expected, or the other way round, or its shape is wrong.
        """
        if self.n_latent == 0:
            if z is not None:
                raise ValueError("a language model takes no z; give None")
            state = self.output.weight.new_zeros(n, self.hidden)
            return state, state.clone()
        if z is None or z.shape != (n, self.n_latent):
            found = "None" if z is None else f"shape {tuple(z.shape)}"
            raise ValueError(f"z must have shape ({n}, {self.n_latent}), got {found}")
        z = z.to(self.initial.weight.dtype)
        h, c = torch.tanh(self.initial(z)).chunk(2, 1)
        return h, c, self._plan(z), torch.zeros(n, dtype=torch.long, device=z.device)

    def step(self, ids: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits of the next token.

        Parameters
        ----------
        ids : Tensor, shape (n,), int64
            The token just read; at first that of the start.
        state : tuple of Tensor
            From `start` or the step before.

        Returns
        -------
        logits : Tensor, shape (n, n_tokens)
        state : tuple of Tensor
        """
        h, c, *code = state
        x = self.tokens(ids)
        if code:
            plan, time = code
            here = self.places[time.clamp(max=self.max_length - 1)].to(plan.dtype)
            x = x + (here[:, None] @ plan)[:, 0].to(x.dtype)
            code = [plan, time + 1]
        _, (h, c) = self.lstm(x[:, None], (h[None].to(x.dtype), c[None].to(x.dtype)))
        h, c = h[0], c[0]
        return self.output(h), (h, c, *code)

    def forward(self, ids: Tensor, z: Tensor | None = None) -> Tensor:
        """Logits after every token of given strings.

        Parameters
        ----------
        ids : Tensor, shape (n, length), int64
            Beginning with that of the start.
        z : Tensor, shape (n, n_latent), optional

        Returns
        -------
        Tensor, shape (n, length, n_tokens)
        """
        n, length = ids.shape
        h, c, *code = self.start(z, n)
        x = self.tokens(ids)
        if code:
            time = torch.arange(length, device=ids.device).clamp(max=self.max_length - 1)
            x = x + (self.places[time].to(code[0].dtype) @ code[0]).to(x.dtype)
        hidden, _ = self.lstm(x, (h[None].to(x.dtype), c[None].to(x.dtype)))
        return self.output(hidden)

    def _plan(self, z: Tensor) -> Tensor:
        wide = torch.cat([z, nn.functional.silu(self.widen(z)).to(z.dtype)], 1)
        return self.plan(wide).view(len(z), self.n_slots, -1)


def _places(length: int, n: int) -> Tensor:
    """Weights at the start: half of them waves, which neighbours share, and half noise, which tells them apart."""
    time = torch.arange(length, dtype=torch.float32)[:, None]
    waves = torch.cos(math.pi * torch.arange(n // 2 + n % 2, dtype=torch.float32) * (time + 0.5) / length)
    return torch.cat([waves, torch.randn(length, n // 2)], 1) / torch.tensor([1.0] + [n**0.5 / 2] * (n - 1))
