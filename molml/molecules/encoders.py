"""Encoders of a batch of molecules into the mean and the log variance of a latent code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from molml.molecules.dataset import MoleculeBatch

ENCODERS = ("graph", "convolutional", "recurrent")

STEP = 128
"""Numbers of atoms and bonds of a batch are filled up to multiples of this."""


@final
class GraphEncoder(nn.Module):
    """Message passing over the bonds, then a pooling that keeps the places of the atoms.

    An atom starts as the sum of embeddings of its features and of its place in the canonical SMILES. In
    every layer it receives a sum over its bonds, a_i = Σ_j silu(W h_j + e_ij), and h_i ← h_i + V silu(U [h_i, a_i]),
    all on normalised h. The pooled vector holds Σ_i (A h_i) ⊗ q_i with learned vectors q_i for every place
    (a tensor product binding, of which the flattening of a padded array is the special case of unit
    vectors), a gated sum and the mean.

    Parameters
    ----------
    atom_sizes, bond_sizes : sequence of int
        Number of categories of every feature.
    n_latent : int
    width : int
        Width of an atom's state.
    n_layers : int
    max_length : int
        Places with their own vectors; later ones share those of the last.
    directed : bool
        Tell the two directions of a bond apart, which are those of its writing; without it, and with one place, the
        code does not depend on how a molecule is written.
    seed : int, optional

    References
    ----------
    Gilmer et al., ICML 2017 (message passing); Hu et al., ICLR 2020 (bond embeddings in the messages);
    Smolensky, Artif. Intell. 46, 159 (1990) (tensor product binding).
    """

    def __init__(
        self,
        atom_sizes: Sequence[int],
        bond_sizes: Sequence[int],
        n_latent: int,
        *,
        width: int = 96,
        n_layers: int = 4,
        max_length: int = 128,
        directed: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.max_length, self.n_kinds = max_length, sum(bond_sizes) if directed else 0
        with torch.random.fork_rng([]):
            if seed is not None:
                torch.manual_seed(seed)
            self.atoms = nn.Embedding(sum(atom_sizes), width)
            self.bonds = nn.ModuleList(nn.Embedding(2 * sum(bond_sizes), width) for _ in range(n_layers))
            self.places = nn.Embedding(max_length, width)
            for embedding in (self.atoms, *self.bonds, self.places):
                nn.init.normal_(embedding.weight, 0.0, 0.5)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers + 1))
            self.messages = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
            self.ups = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(n_layers))
            self.downs = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
            self.bound = nn.Linear(width, 32)
            self.binding = nn.Embedding(max_length, 32)
            self.gate = nn.Linear(width, 2 * width)
            self.head = _head(32 * 32 + 2 * width, n_latent)
        self.register_buffer("atom_offsets", _offsets(atom_sizes), persistent=False)
        self.register_buffer("bond_offsets", _offsets(bond_sizes), persistent=False)

    def forward(self, batch: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each of shape (n, n_latent)."""
        graph = batch.graph
        if graph is None:
            raise ValueError("a graph encoder needs graphs, got a batch without; make the data set with graphs=True")
        n = len(graph.atom_counts)
        owner = torch.repeat_interleave(torch.arange(n, device=graph.atoms.device), graph.atom_counts)
        place = graph.places.clamp(max=self.max_length - 1)
        n_atoms, own = len(place), _counted(graph.atoms + self.atom_offsets, self.atoms.weight)
        # beyond them atoms that belong to no molecule, and bonds from the last of these to itself
        h = _filled(own) @ self.atoms.weight + _filled(self.places(place))
        # every bond carries a message each way, and knows which way it goes if it is to
        ends = torch.cat([graph.ends, graph.ends.flip(1)])
        kinds = graph.bonds + self.bond_offsets
        tables = [cast(nn.Embedding, each).weight for each in self.bonds]
        kinds = _filled(_counted(torch.cat([kinds, kinds + self.n_kinds]), tables[0]))
        ends = nn.functional.pad(ends, (0, 0, 0, len(kinds) - len(ends)), value=len(h) - 1)
        source, target = ends.unbind(1)
        for norm, table, message, up, down in zip(
            self.norms[:-1], tables, self.messages, self.ups, self.downs, strict=True
        ):
            x = norm(h)
            sent = nn.functional.silu(message(x)[source] + kinds @ table)
            received = torch.zeros_like(x).index_add_(0, target, sent.to(x.dtype))
            h = h + down(nn.functional.silu(up(torch.cat([x, received], 1))))
        x = self.norms[-1](h)
        bound, (gate, value) = self.bound(x)[:n_atoms], self.gate(x)[:n_atoms].float().chunk(2, 1)
        x = x[:n_atoms]
        # side by side, with zeros where a molecule has fewer atoms than another
        longest = int(graph.atom_counts.max()) if n else 0
        starts = torch.cumsum(graph.atom_counts, 0) - graph.atom_counts
        slots = torch.arange(len(owner), device=owner.device) + owner * longest - starts[owner]
        left, right = (
            each.new_zeros(n * longest, each.shape[1]).index_copy(0, slots, each).view(n, longest, -1)
            for each in (bound, self.binding(place))
        )
        pairs = (left.transpose(1, 2) @ right).flatten(1).float()
        single = torch.cat([torch.sigmoid(gate) * value, x.float()], 1)
        single = single.new_zeros(n, single.shape[1]).index_add_(0, owner, single)
        gated, summed = single.chunk(2, 1)
        pooled = torch.cat([pairs / 5, gated / 5, summed / graph.atom_counts[:, None]], 1)
        return _gaussian(self.head(pooled))


@final
class ConvolutionalEncoder(nn.Module):
    """Three convolutions along the tokens and a dense layer on the flattened result.

    Parameters
    ----------
    n_tokens, n_latent : int
    max_length : int
        Tokens that are read; what follows is cut off.
    seed : int, optional

    References
    ----------
    Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018): filters of 9, 9 and 11 tokens, 9, 9 and 10 channels,
    dense layer of 196. Here with more channels.
    """

    def __init__(
        self, n_tokens: int, n_latent: int, *, channels: int = 32, max_length: int = 96, seed: int | None = None
    ) -> None:
        super().__init__()
        self.max_length = max_length
        with torch.random.fork_rng([]):
            if seed is not None:
                torch.manual_seed(seed)
            self.tokens = nn.Embedding(n_tokens, channels)
            self.layers = nn.ModuleList(nn.Conv1d(channels, channels, size, padding=size // 2) for size in (9, 9, 11))
            self.head = _head(channels * max_length, n_latent)

    def forward(self, batch: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each of shape (n, n_latent)."""
        ids = batch.tokens[:, 1 : 1 + self.max_length]
        ids = nn.functional.pad(ids, (0, self.max_length - ids.shape[1]))
        x = (self.tokens(ids) * (ids != 0)[..., None]).transpose(1, 2)
        for layer in self.layers:
            x = nn.functional.silu(layer(x))
        return _gaussian(self.head(x.flatten(1)))


@final
class RecurrentEncoder(nn.Module):
    """LSTM over the tokens in both directions; its states are averaged and their last ones kept.

    Parameters
    ----------
    n_tokens, n_latent : int
    hidden : int
        Width of either direction's state.
    seed : int, optional
    """

    def __init__(self, n_tokens: int, n_latent: int, *, hidden: int = 192, seed: int | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            if seed is not None:
                torch.manual_seed(seed)
            self.tokens = nn.Embedding(n_tokens, 64)
            self.onward = nn.LSTM(64, hidden, batch_first=True)
            self.backwards = nn.LSTM(64, hidden, batch_first=True)
            self.head = _head(4 * hidden, n_latent)

    def forward(self, batch: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each of shape (n, n_latent)."""
        ids = batch.tokens[:, 1:]
        rows, mask = torch.arange(len(ids), device=ids.device), ids != 0
        lengths = mask.sum(1)
        # every row turned round within its own length: padding stays behind, where no state has seen it yet
        time = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        turned = ids.gather(1, torch.where(mask, lengths[:, None] - 1 - time, time))
        pooled = []
        for lstm, read in ((self.onward, ids), (self.backwards, turned)):
            states = lstm(self.tokens(read))[0].float()
            pooled += [(states * mask[..., None]).sum(1) / lengths[:, None], states[rows, lengths - 1]]
        return _gaussian(self.head(torch.cat(pooled, 1)))


def _head(n_in: int, n_latent: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_in, 256), nn.SiLU(), nn.Linear(256, 2 * n_latent))


def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = parameters.float().chunk(2, 1)
    # starts at a standard deviation of e⁻² so that the code says something from the first step on
    return mean, logvar.clamp(-12.0, 8.0) - 4.0


def _filled(rows: Tensor) -> Tensor:
    """With zeros up to the next multiple of STEP, at least one row: products of a shape not met before cost as much as
    ten others, while the library writes code for it."""
    return nn.functional.pad(rows, (0, 0, 0, STEP - len(rows) % STEP))


def _counted(kinds: Tensor, table: Tensor) -> Tensor:
    """How often every row of a table is named in a row of `kinds`, (n, n_rows): a product sums faster than a lookup."""
    counts = table.new_zeros(len(kinds), len(table))
    return counts.scatter_add_(1, kinds, torch.ones_like(kinds, dtype=table.dtype))


def _offsets(sizes: Sequence[int]) -> Tensor:
    return torch.cumsum(torch.tensor([0, *sizes[:-1]]), 0)
