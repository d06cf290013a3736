"""From a decoder to molecules: greedy decoding, sampling and beam search, with or without the grammar of SMILES."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from rdkit import Chem, rdBase
from torch import Tensor
from tqdm import tqdm

from molml.molecules.grammar import Grammar, GrammarState
from molml.molecules.tokens import Tokenizer

__all__ = ["TokenDecoder", "different_molecules", "generate", "molecules"]

_START, _END = 1, 2
# a string that the mask refuses is drawn so many times, before the mask says how it goes on
DRAWS = 3
_State = tuple[Tensor, ...]


class TokenDecoder(Protocol):
    """What gives the next token: the decoder of a variational autoencoder, or a language model."""

    def start(self, z: Tensor | None, n: int, /) -> _State:
        """State of n strings before the first token: tensors with one row per string."""

    def step(self, ids: Tensor, state: _State, /) -> tuple[Tensor, _State]:
        """Logits (n, n_tokens) of the next token after `ids` (n,), and the new state."""


def generate(
    decoder: TokenDecoder,
    tokenizer: Tokenizer,
    z: Tensor | int,
    *,
    mask: bool = True,
    temperature: float = 1.0,
    beam: int = 1,
    max_length: int = 128,
    seed: int = 0,
    batch_size: int = 2048,
    mixed_precision: bool = False,
    progress: bool | None = None,
) -> list[str]:
    """Strings that a decoder writes.

    Parameters
    ----------
    decoder : TokenDecoder
        In evaluation mode. Runs on the device of its parameters, or on the CPU if it has none.
    tokenizer : Tokenizer
    z : Tensor, shape (n, n_latent), or int
        Codes; for a decoder without, the number of strings.
    mask : bool
        Allow only tokens after which the string can become a molecule (`molml.molecules.grammar`). SELFIES need no
        mask and get none.
    temperature : float
        Divides the logits of sampling; 0 takes the most probable token (greedy decoding).
    beam : int
        Strings kept by beam search, which looks for the most probable string; 1 is no search. Only with temperature 0.
    max_length : int
        Most tokens of a string, the end included. The mask needs some ten more than the longest molecule expected.
    seed : int
        Of the sampling. Each string has its own random numbers: it depends on neither `batch_size` nor its neighbours
        (but for rounding in the decoder).
    batch_size : int
        Strings decoded at a time.
    mixed_precision : bool
        Run the decoder, if it is a torch module, in bfloat16.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal and there are more than two batches.

    Returns
    -------
    list of str
        As decoded, in the order of `z`; not necessarily molecules. `molecules` makes molecules of them.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range, or the decoder gives logits that are not finite or
        not one per token.

    Notes
    -----
    Sampling inverts the cumulative distribution function at one uniform number per token. A mask that forbids tokens
    does not give the distribution of the decoder over molecules: a string that has lost its way goes on with tokens of
    little probability, and ends as an odd molecule. To draw another string instead is right, and fast. So strings are
    drawn without the mask; one that it would not have let through is drawn anew, and after three times with it. With
    temperature 0 all strings are first written without the mask, and those that it refuses, once more with it.

    Examples
    --------
    >>> class Chain:  # writes CCO and ends
    ...     def start(self, z, n):
    ...         return (torch.zeros(n, dtype=torch.long),)
    ...     def step(self, ids, state):
    ...         place = state[0]
    ...         following = torch.tensor([3, 3, 4, 2])[place]
    ...         return 10.0 * torch.nn.functional.one_hot(following, 5), (place + 1,)
    >>> generate(Chain(), Tokenizer(["C", "O"]), 2, temperature=0)
    ['CCO', 'CCO']
    """
    _check(z, temperature, beam, max_length, seed, batch_size)
    codes = z if isinstance(z, Tensor) else None
    n = len(z) if isinstance(z, Tensor) else z
    device = _device(decoder)
    grammar = Grammar(tokenizer, max_length) if mask and tokenizer.kind == "smiles" else None
    uniform = torch.Generator().manual_seed(seed)
    strings: list[str] = []
    if mixed_precision and isinstance(decoder, torch.nn.Module):
        decoder = cast(TokenDecoder, copy.deepcopy(decoder).to(torch.bfloat16))
    hidden = None if progress is None and n > 2 * batch_size else not progress
    settings = len(tokenizer), temperature, max_length, device
    draws = DRAWS if temperature > 0 else 1
    # of the strings that the mask refuses: their places, and the random numbers to draw them with
    lost: list[int] = []
    drawn: list[Tensor] = []
    with torch.inference_mode(), tqdm(total=n, desc="decoding", unit="mol", disable=hidden) as bar:
        for first in range(0, n, batch_size):
            size = min(batch_size, n - first)
            numbers = None
            if temperature > 0:
                numbers = torch.rand(size, DRAWS, max_length, generator=uniform, dtype=torch.float64).to(device)
            state = decoder.start(None if codes is None else codes[first : first + size].to(device), size)
            refused: list[int] = []
            if beam > 1:
                ids = _beam(decoder, state, len(tokenizer), grammar, beam, max_length, device)
            else:
                ids, _ = _one_by_one(decoder, state, None if numbers is None else numbers[:, 0], None, *settings)
                if grammar:
                    refused = np.flatnonzero(~grammar.accept(ids)).tolist()
            lost += [first + k for k in refused]
            if numbers is not None:
                drawn.append(numbers[refused])
            strings += _spelled(tokenizer, ids)
            bar.update(size - len(refused))
        numbers = torch.cat(drawn) if drawn else None
        # together, for a step takes nearly as long for few as for many: without the mask, with it, and with the mask
        # that lets through nothing that may lead nowhere
        passes = [(0, True, False)] if draws == 1 else [(draw, False, False) for draw in range(1, draws)]
        for draw, masked, strict in [*passes, (draws - 1, True, True)]:
            again: list[int] = []
            for first in range(0, len(lost), batch_size):
                rows = lost[first : first + batch_size]
                state = decoder.start(None if codes is None else codes[rows].to(device), len(rows))
                few = None if numbers is None else numbers[first : first + batch_size, draw]
                ids, still = _one_by_one(decoder, state, few, grammar if masked else None, *settings, strict=strict)
                if grammar and not masked:
                    still = np.flatnonzero(~grammar.accept(ids))
                for row, text in zip(rows, _spelled(tokenizer, ids), strict=True):
                    strings[row] = text
                again += (first + still).tolist()
            bar.update(len(lost) - len(again))
            lost, numbers = [lost[k] for k in again], None if numbers is None else numbers[again]
    return strings


def _check(z: Tensor | int, temperature: float, beam: int, max_length: int, seed: int, batch_size: int) -> None:
    if isinstance(z, bool) or not isinstance(z, Tensor | int):
        raise TypeError(f"z must be a Tensor of codes or a number of strings, got {type(z).__name__}")
    if isinstance(z, Tensor):
        if z.ndim != 2:
            raise ValueError(f"z must have shape (n, n_latent), got {tuple(z.shape)}")
        if not bool(torch.isfinite(z).all()):
            raise ValueError("z must be finite, got NaN or infinity")
    elif z < 0:
        raise ValueError(f"z must be a number of strings of at least 0, got {z}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    for name, value, least in (
        ("beam", beam, 1),
        ("max_length", max_length, 2),
        ("seed", seed, 0),
        ("batch_size", batch_size, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if beam > 1 and temperature > 0:
        raise ValueError(f"beam search looks for the most probable string, got temperature={temperature}; give 0")


def _device(decoder: TokenDecoder) -> torch.device:
    parameters = decoder.parameters() if isinstance(decoder, torch.nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def _one_by_one(
    decoder: TokenDecoder,
    state: _State,
    numbers: Tensor | None,
    grammar: Grammar | None,
    n_tokens: int,
    temperature: float,
    max_length: int,
    device: torch.device,
    *,
    strict: bool = False,
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Tokens (n, max_length), and the rows that led nowhere."""
    n = len(state[0])
    result, ended = np.full((n, max_length), _END), np.zeros(n, np.bool_)
    rows = torch.arange(n, device=device)
    last = torch.full((n,), _START, device=device)
    making = grammar.start(n) if grammar else None
    for place in range(max_length):
        logits, state = decoder.step(last, state)
        logits = _checked(logits, len(last), n_tokens)
        # neither padding nor a second start
        logits[:, :_END] = -torch.inf
        at = rows.cpu().numpy()
        if grammar and making:
            uniform = None
            if numbers is not None:
                logits = torch.softmax(logits.double() / temperature, 1)
                uniform = numbers[rows, place].cpu().numpy()
            ids = grammar.choose(making, at, max_length - place, logits.cpu().numpy(), uniform, strict=strict)
            last = torch.as_tensor(ids, device=device)
        elif numbers is None:
            last = logits.argmax(1)
        else:
            cumulative = torch.softmax(logits.double() / temperature, 1).cumsum(1)
            drawn = numbers[rows, place][:, None] * cumulative[:, -1:]
            last = torch.searchsorted(cumulative, drawn, right=True)[:, 0]
        ids = np.where(ended[at], _END, last.cpu().numpy())
        result[at, place], ended[at] = ids, ids == _END
        going = np.flatnonzero(ids != _END)
        if len(going) == 0:
            break
        # of few numbers of rows, for the library writes code for each new one; some that have ended fill them up
        step = 64 if len(going) > 64 else 8
        n_kept = -(-len(going) // step) * step
        # copying the state costs about as much as a step of a tenth of the rows
        if n_kept < 0.9 * len(ids):
            kept = torch.as_tensor(np.argsort(ids == _END, kind="stable")[:n_kept], device=device)
            rows, last, state = rows[kept], last[kept], tuple(s[kept] for s in state)
    lost = np.flatnonzero(~grammar.finished(making)) if grammar and making else np.zeros(0, np.int64)
    return result, lost


def _spelled(tokenizer: Tokenizer, ids: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
    ends = ids == _END
    lengths = np.where(ends.any(1), ends.argmax(1), ids.shape[1])
    return [tokenizer.decode(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]


def _beam(
    decoder: TokenDecoder,
    state: _State,
    n_tokens: int,
    grammar: Grammar | None,
    beam: int,
    max_length: int,
    device: torch.device,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Most probable string of `beam` candidates per code; finished ones stay and compete with their probability."""
    n = len(state[0])
    repeated = torch.arange(n, device=device).repeat_interleave(beam)
    state = tuple(s[repeated] for s in state)
    scores = torch.full((n, beam), -torch.inf, dtype=torch.float64, device=device)
    scores[:, 0] = 0.0
    texts = torch.full((n * beam, max_length), _END, device=device)
    last = torch.full((n * beam,), _START, device=device)
    ended = torch.zeros(n * beam, dtype=torch.bool, device=device)
    making = grammar.start(n * beam) if grammar else None
    base = torch.arange(n, device=device)[:, None] * beam
    for place in range(max_length):
        logits, state = decoder.step(last, state)
        logits = _checked(logits, len(last), n_tokens)
        logits[:, :_END] = -torch.inf
        gains = torch.log_softmax(logits.double(), 1)
        if grammar and making:
            best = grammar.best(making, gains.cpu().numpy(), beam, max_length - place)
            gains.masked_fill_(~torch.from_numpy(best).to(device), -torch.inf)
        gains[ended] = -torch.inf
        gains[ended, _END] = 0.0
        total = (scores.reshape(-1, 1) + gains).reshape(n, -1)
        scores, places = total.topk(beam, 1)
        # where there are fewer than that, the best one again
        places = torch.where(scores == -torch.inf, places[:, :1], places)
        parents = (base + places // n_tokens).reshape(-1)
        last = (places % n_tokens).reshape(-1)
        state = tuple(s[parents] for s in state)
        texts = texts[parents]
        texts[:, place] = last
        if grammar and making:
            making = grammar.advance(_rows(making, parents.cpu().numpy()), last.cpu().numpy())
        ended = last == _END
        # probabilities only fall: no other string overtakes one that has ended
        if bool(ended.reshape(n, beam)[:, 0].all()):
            break
    return texts.reshape(n, beam, max_length)[:, 0].cpu().numpy()


def _checked(logits: Tensor, n: int, n_tokens: int) -> Tensor:
    if logits.shape != (n, n_tokens):
        raise ValueError(
            f"the decoder must give logits of shape ({n}, {n_tokens}), got {tuple(logits.shape)}; is the tokenizer "
            "its own?"
        )
    if bool(torch.isnan(logits).any()):
        raise ValueError("the decoder must give finite logits, got NaN; is z far from everything it was trained on?")
    return logits.float().clone()


def _rows(making: GrammarState, index: np.ndarray[Any, Any]) -> GrammarState:
    return GrammarState(*(array[index] for array in making))


def molecules(strings: Iterable[str]) -> list[Chem.Mol | None]:
    """Molecules that strings stand for.

    Parameters
    ----------
    strings : iterable of str
        SMILES.

    Returns
    -------
    list of Mol or None
        Sanitised, with atoms in the order of the canonical SMILES, so that equal molecules are equal in all; None for
        a string that is no molecule or is empty. In the order of the strings.

    Examples
    --------
    >>> [mol and Chem.MolToSmiles(mol) for mol in molecules(["OCC", "C1C", "C(C)O"])]
    ['CCO', None, 'CCO']
    """
    seen: dict[str, Chem.Mol | None] = {}
    result: list[Chem.Mol | None] = []
    for smiles, mol in _read(strings, seen):
        result.append(Chem.Mol(mol) if smiles in seen and mol is not None else mol)
        seen[smiles] = mol
    return result


def different_molecules(strings: Iterable[str]) -> dict[str, Chem.Mol]:
    """Molecules that strings stand for, each once, by canonical SMILES; otherwise as of `molecules`.

    Examples
    --------
    >>> list(different_molecules(["OCC", "C1C", "C(C)O", "C"]))
    ['CCO', 'C']
    """
    seen: dict[str, Chem.Mol | None] = {}
    for smiles, mol in _read(strings, seen):
        seen.setdefault(smiles, mol)
    return {smiles: mol for smiles, mol in seen.items() if mol is not None}


def _read(strings: Iterable[str], seen: Mapping[str, Chem.Mol | None]) -> Iterator[tuple[str, Chem.Mol | None]]:
    """Canonical SMILES and molecule of every string; the one that was seen already, where it was."""
    parameters: Any = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    for text in strings:
        with rdBase.BlockLogs():
            mol: Any = Chem.MolFromSmiles(text, parameters) if text else None
            smiles = Chem.MolToSmiles(mol) if mol is not None and mol.GetNumAtoms() else ""
            if smiles in seen:
                mol = seen[smiles]
            elif smiles != text or not smiles:
                # read again: the canonical form is what a user can copy, and it must be a molecule, too
                mol = Chem.MolFromSmiles(smiles, parameters) if smiles else None
        yield smiles, mol
