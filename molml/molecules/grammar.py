"""Grammar of SMILES as an automaton: which tokens may follow, so that the string ends up a molecule.

A row of the state is a molecule in the making. A token is allowed if, after it, the molecule can still be completed
with the tokens that remain: brackets, branches and bonds are well formed, rings get closed, no valence is exceeded,
and a Kekulé structure of the aromatic atoms exists. For the latter a matching of the atoms that need a double bond is
kept up to date by augmenting paths (Edmonds, Can. J. Math. 17, 449 (1965)); atoms that can still get neighbours need
not be matched yet.

Strings are those that a depth-first walk over the molecule writes, as RDKit and the other toolkits do: the bond that
closes a ring leads back to an atom on the way from the first atom to the current one, a ring number stands directly
after its atom, an unmarked bond between aromatic atoms lies in a ring.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from rdkit import Chem, rdBase

from molml.molecules.automaton import (
    AROMATIC,
    ATOM,
    ATOMS,
    BOND,
    BRANCH,
    CARBON,
    CLOSE,
    COLUMNS,
    CURRENT,
    DIRECTED,
    DONE,
    DOT,
    END,
    EXTENDS,
    HEAD,
    KIND,
    N_SEARCHED,
    NEVER,
    PAIR,
    PHASE,
    RING,
    RING_CARBON,
    RING_TOKEN,
    SEARCHED,
    Ints,
    run,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from molml.molecules.tokens import Tokenizer

__all__ = ["Grammar", "GrammarState"]

BONDS = {"-": 1, "/": DIRECTED, "\\": DIRECTED, "=": 2, "#": 3, ":": AROMATIC}
EXOCYCLIC = ("", "(C)", "(=C)", "(#C)")
END_ID = 2
NO_IDS, NO_SCORES, NO_MASK = np.zeros((0, 0), np.int64), np.zeros((0, 0)), np.zeros((0, 0), np.bool_)


class GrammarState(NamedTuple):
    """Molecules in the making; all arrays have a row for each, which may be dropped, repeated and reordered.

    Attributes
    ----------
    head : array of int, shape (n, …)
        Current atom, depth of branches and the like.
    atoms : array of int, shape (n, max_length, …)
        Atoms so far.
    rings : array of int, shape (n, n_ring_numbers, 2)
        Atom at which the ring number was opened, or −1; bond symbol that stood there.
    plans : array of int, shape (n, max_length)
        Tokens that complete the molecule, then −1.
    """

    head: Ints
    atoms: Ints
    rings: Ints
    plans: Ints


@final
class Grammar:
    """Automaton over the tokens of a vocabulary that tells which may follow.

    Parameters
    ----------
    tokenizer : Tokenizer
        Of SMILES. Tokens that stand for no atom, bond, branch or ring number known here ("*", "~", "$", "->") are never
        allowed. Valences are those that this version of RDKit accepts.
    max_length : int
        Most tokens of a string, "<end>" included.

    Raises
    ------
    ValueError
        If the tokens are not those of SMILES, `max_length` is too small, or no molecule can be written.

    Notes
    -----
    Every molecule that RDKit writes, canonical or randomised, is let through by `refusal`, and by `choose` unless it is
    strict, as long as some tokens remain: the number of tokens needed is estimated, from above by up to about ten for
    fused aromatic rings that are all open. So let `max_length` exceed the longest string by that. The strict choice,
    and `allowed`, `best` and `advance`, let a token through only if tokens that complete the molecule after it have
    been found; those are kept for the next token. The search is short, and fails for some unusual molecules.

    Examples
    --------
    >>> from molml.molecules.tokens import Tokenizer
    >>> tokenizer = Tokenizer(["C", "F", "(", ")", "=", "1"])
    >>> grammar = Grammar(tokenizer, max_length=20)
    >>> state = grammar.start(1)
    >>> for token in "CF":
    ...     state = grammar.advance(state, np.array([tokenizer.vocabulary.index(token)]))
    >>> [tokenizer.vocabulary[k] for k in np.flatnonzero(grammar.allowed(state, 18)[0])]
    ['<end>']
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        if tokenizer.kind != "smiles":
            raise ValueError(f"tokenizer must be one of SMILES, got {tokenizer.kind}, which need no mask")
        if not isinstance(max_length, int) or not 2 <= max_length < NEVER:
            raise ValueError(f"max_length must be an integer in 2…{NEVER - 1}, got {max_length!r}")
        self.vocabulary, self.max_length = tokenizer.vocabulary, max_length
        self._tables, self._n_rings = _tables(self.vocabulary)
        if not (self._tables[:, KIND] == ATOM).any():
            raise ValueError("tokenizer must have a token of an atom, got none; make it from molecules")
        self._end = self._ending()

    def _ending(self) -> Ints:
        """Tokens of a molecule, for the beginning."""
        for token in self._tables[0, [CARBON, RING_CARBON, PAIR]]:
            state = self._empty(1)
            if (
                token >= 0
                and self._run(
                    state, np.arange(1), self.max_length, NO_SCORES, np.zeros(0), 0, np.array([[token]]), NO_MASK
                )
                < 0
            ):
                return np.concatenate([[token], state.plans[0, :-1]])
        raise ValueError(f"tokenizer must have the tokens of a molecule of at most {self.max_length}, got too few")

    def start(self, n: int) -> GrammarState:
        """State before the first token.

        Parameters
        ----------
        n : int
            Number of strings.

        Returns
        -------
        GrammarState
        """
        state = self._empty(n)
        state.plans[:] = self._end
        return state

    def _empty(self, n: int) -> GrammarState:
        head = np.zeros((n, HEAD), np.int64)
        head[:, CURRENT] = -1
        rings = np.zeros((n, max(self._n_rings, 1), 2), np.int64)
        rings[:, :, 0] = -1
        plans = np.full((n, self.max_length), -1, np.int64)
        return GrammarState(head, np.zeros((n, self.max_length, ATOMS), np.int64), rings, plans)

    def allowed(self, state: GrammarState, remaining: int) -> NDArray[np.bool_]:
        """Tokens that may come next.

        Parameters
        ----------
        state : GrammarState
        remaining : int
            Number of tokens that may still come, "<end>" included.

        Returns
        -------
        array of bool, shape (n, n_tokens)
            At least one in every row, if every token before was an allowed one; after "<end>", "<pad>" is the only one.
        """
        return self.best(state, np.zeros((len(state.head), len(self.vocabulary))), len(self.vocabulary), remaining)

    def best(self, state: GrammarState, scores: NDArray[Any], n: int, remaining: int) -> NDArray[np.bool_]:
        """Of the tokens that may come next those with the greatest scores.

        Parameters
        ----------
        state : GrammarState
        scores : array, shape (n_rows, n_tokens)
        n : int
            Most tokens to find in a row, at least 2.
        remaining : int
            As of `allowed`.

        Returns
        -------
        array of bool, shape (n_rows, n_tokens)
        """
        mask = np.zeros((len(state.head), len(self.vocabulary)), np.bool_)
        self._run(state, np.arange(len(state.head)), remaining, scores, np.zeros(0), max(n, 2), NO_IDS, mask)
        return mask

    def choose(
        self,
        state: GrammarState,
        rows: NDArray[np.int64],
        remaining: int,
        scores: NDArray[Any],
        numbers: NDArray[np.float64] | None = None,
        *,
        strict: bool = True,
    ) -> NDArray[np.int64]:
        """Go on with tokens that may come next; looks at no more tokens than it takes to find one.

        Parameters
        ----------
        state : GrammarState
            Changed in place.
        rows : array of int, shape (n,)
            Rows of the state to go on with.
        remaining : int
            As of `allowed`.
        scores : array, shape (n, n_tokens)
            Of the tokens after these rows.
        numbers : array of float in [0, 1), shape (n,), optional
            Draw a token with the scores, which are then weights of at least 0, one random number for each row. Without,
            take the allowed token of greatest score.
        strict : bool
            Take only tokens after which the molecule can be completed for sure: then every string ends as a molecule,
            but about one in a hundred unusual ones, with many fused rings, cannot be written. Otherwise every molecule
            can, and a string that leads nowhere stops; `finished` tells.

        Returns
        -------
        array of int, shape (n,)
            "<end>" for a string that has ended, or leads nowhere.

        Notes
        -----
        A drawn token that is forbidden is left out, and another is drawn, until one is allowed: that one has the
        distribution over the allowed tokens. What is left of a random number after a token has been drawn with it is
        as uniform, and serves for the next.
        """
        ids = np.full((len(rows), 1), END_ID, np.int64)
        self._run(state, rows, remaining, scores, np.zeros(0) if numbers is None else numbers, 1, ids, NO_MASK, strict)
        return ids[:, 0]

    def finished(self, state: GrammarState) -> NDArray[np.bool_]:
        """Which strings have ended as molecules, shape (n,)."""
        return state.head[:, PHASE] == DONE

    def advance(self, state: GrammarState, ids: NDArray[np.integer[Any]]) -> GrammarState:
        """State after one more token.

        Parameters
        ----------
        state : GrammarState
            Changed in place.
        ids : array of int, shape (n,)
            Tokens, allowed ones.

        Returns
        -------
        GrammarState
            The same one.

        Raises
        ------
        ValueError
            If the number of tokens is not that of the strings, or one is forbidden.
        """
        n = len(state.head)
        if ids.shape != (n,):
            raise ValueError(f"ids must have shape ({n},), got {ids.shape}")
        rows = np.arange(n)
        tokens = ids.astype(np.int64)[:, None]
        if self._run(state, rows, self.max_length, NO_SCORES, np.zeros(0), 0, tokens, NO_MASK) >= 0:
            raise ValueError("ids must be tokens that may come next, got a forbidden one; see allowed")
        return state

    def refusal(self, ids: NDArray[np.integer[Any]]) -> int | None:
        """First token of a string that the grammar forbids.

        Parameters
        ----------
        ids : array of int, shape (n_tokens,)
            With "<end>".

        Returns
        -------
        int or None
            Its index; None if all are allowed.
        """
        tokens = np.asarray(ids, np.int64)[None]
        place = self._run(
            self.start(1), np.arange(1), self.max_length, NO_SCORES, np.zeros(0), 0, tokens, NO_MASK, strict=False
        )
        return None if place < 0 else int(place)

    def accept(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which strings end, within the greatest length, as molecules.

        Parameters
        ----------
        ids : array of int, shape (n, n_tokens)
            What follows "<end>" does not count.

        Returns
        -------
        array of bool, shape (n,)
            Those with an end of which `refusal` finds nothing, several times as fast.
        """
        mask = np.zeros((len(ids), 1), np.bool_)
        tokens = ids[:, : self.max_length].astype(np.int64)
        self._run(self.start(1), np.arange(1), self.max_length, NO_SCORES, np.zeros(0), -1, tokens, mask)
        return mask[:, 0]

    def _run(
        self,
        state: GrammarState,
        rows: NDArray[np.int64],
        remaining: int,
        scores: NDArray[Any],
        numbers: NDArray[np.float64],
        most: int,
        ids: NDArray[np.int64],
        mask: NDArray[np.bool_],
        strict: bool = True,
    ) -> int:
        arrays = (np.ascontiguousarray(array) for array in (scores.astype(np.float64), numbers, ids))
        weights, uniform, tokens = arrays
        n, n_rings = self.max_length, state.rings.shape[1]
        shapes = (n + 3, HEAD), (n + 3, n, ATOMS), (n + 3, n_rings, 2), (6, n + 1), n
        space = [np.empty(shape, np.int64) for shape in (*shapes, (n + 3, self._tables[0, N_SEARCHED] + n_rings + 1))]
        refused = np.empty(len(self._tables), np.bool_)
        given = self._tables, rows, remaining, weights, uniform, most, tokens, mask, strict
        return int(run(*state, *given, *space, refused))


# ---- what the tokens are


def _tables(vocabulary: tuple[str, ...]) -> tuple[Ints, int]:
    n = len(vocabulary)
    kind, value, most, neighbours = (np.zeros(n, np.int64) for _ in range(4))
    aromatic = np.zeros(n, np.bool_)
    valences = np.full((n, 4, 4), -1, np.int64)  # of aromatic atoms: 1 needs a double bond, 0 needs none, -1 is wrong
    n_rings = 0
    syntax = {"(": BRANCH, ")": CLOSE, ".": DOT, "<end>": END}
    for index, token in enumerate(vocabulary):
        if token in syntax:
            kind[index] = syntax[token]
        elif token in BONDS:
            kind[index], value[index] = BOND, BONDS[token]
        elif re.fullmatch(r"\d|%\d\d|%\(\d+\)", token):
            kind[index], value[index] = RING, n_rings
            n_rings += 1
        elif (atom := _parse_atom(token)) is not None:
            kind[index] = ATOM
            aromatic[index] = atom.GetIsAromatic()
            if aromatic[index]:
                valences[index] = _aromatic_valences(token)
            else:
                most[index] = _most_valences(token)
                if "@" in token:
                    neighbours[index] = (3 if atom.GetSymbol() not in ("C", "Si", "Ge", "Sn") else 4) - (
                        atom.GetTotalNumHs() + abs(atom.GetFormalCharge()) * (atom.GetSymbol() == "C")
                    )
    short = np.array([len(token) == 1 for token in vocabulary])
    return _derive(kind, value, aromatic, most, neighbours, valences, short), n_rings


def _parse_atom(token: str) -> Any:
    with rdBase.BlockLogs():
        mol: Any = Chem.MolFromSmiles(token, sanitize=False)
    if mol is None or mol.GetNumAtoms() != 1 or mol.GetAtomWithIdx(0).GetAtomicNum() == 0:
        return None
    mol.UpdatePropertyCache(strict=False)
    return mol.GetAtomWithIdx(0)


def _most_valences(token: str) -> int:
    with rdBase.BlockLogs():
        return max((k for k in range(9) if Chem.MolFromSmiles(token + "(C)" * k) is not None), default=0)


def _aromatic_valences(token: str) -> Ints:
    """Whether an aromatic atom needs a double bond, by aromatic bonds and order of one more bond: asked from RDKit.

    In a ring with five carbon atoms, or nine in two rings, the atom must be the one that makes their number even; in a
    ring with four, or eight, it must be none.
    """
    result = np.full((4, 4), -1, np.int64)
    with rdBase.BlockLogs():
        for order, branch in enumerate(EXOCYCLIC):
            for needs, ring in ((1, "ccccc1"), (0, "cccc1")):
                if Chem.MolFromSmiles(f"{token}1{branch}{ring}") is not None:
                    result[2, order] = needs
        for needs, rings in ((1, "ccccc1cccc2"), (0, "cccc1cccc2")):
            if Chem.MolFromSmiles(f"{token}12{rings}") is not None:
                result[3, 0] = needs
    return result


def _derive(
    kind: Ints,
    value: Ints,
    aromatic: NDArray[np.bool_],
    most: Ints,
    neighbours: Ints,
    valences: Ints,
    short: NDArray[np.bool_],
) -> Ints:
    n = len(kind)
    extends, right, may_double, will_double = (np.zeros((n, 4, 4, 5), np.bool_) for _ in range(4))
    double, escapes = (np.zeros((n, 4, 4), np.bool_) for _ in range(2))
    for token in np.flatnonzero(aromatic):
        known = [(pi, order) for pi, order in np.argwhere(valences[token] >= 0)]
        for pi, sigma in np.ndindex(4, 4):
            # there is room for one bond that is not aromatic
            later = [(p, s) for p, s in known if p >= pi and (s == sigma or sigma == 0)]
            for waiting in range(5):
                added = [(p - pi + (s > 0 and sigma == 0), p, s) for p, s in later]
                at = token, pi, sigma, waiting
                some = [valences[token, p, s] for k, p, s in added if k >= waiting]
                all_closed = [valences[token, p, s] for k, p, s in added if k == waiting]
                extends[at], may_double[at] = len(some) > 0, 1 in some
                right[at], will_double[at] = len(all_closed) > 0, 1 in all_closed
            double[token, pi, sigma] = valences[token, pi, sigma] == 1
            escapes[token, pi, sigma] = pi < 2 or any(valences[token, p, s] == 0 for p, s in later if p == pi)
    described = [(kind[k], value[k], aromatic[k], most[k], neighbours[k], valences[k].tobytes()) for k in range(n)]
    first = {what: place for place, what in reversed(list(enumerate(described)))}
    tables = np.full((n, COLUMNS), -1, np.int64)
    tables[:, :6] = np.stack([kind, value, [first[what] for what in described], aromatic, most, neighbours], 1)
    parts = extends, right, may_double, will_double, double, escapes
    tables[:, EXTENDS:SEARCHED] = np.concatenate([part.reshape(n, -1) for part in parts], 1)
    tables[value[kind == RING], RING_TOKEN] = np.flatnonzero(kind == RING)
    special = _special(kind, value, aromatic, most, neighbours, valences, short)
    tables[0, CARBON:] = special
    carbon, ring_carbon, pair, opens, closes, doubled = special
    searched = [_first(kind == END), closes, ring_carbon, pair]
    searched += [_first(aromatic & (valences[:, 3, 0] == 0)), carbon, doubled, opens]
    searched = list(dict.fromkeys(k for k in searched if k >= 0))
    tables[: len(searched), SEARCHED], tables[0, N_SEARCHED] = searched, len(searched)
    return tables


def _special(
    kind: Ints,
    value: Ints,
    aromatic: NDArray[np.bool_],
    most: Ints,
    neighbours: Ints,
    valences: Ints,
    short: NDArray[np.bool_],
) -> list[int]:
    """Tokens that complete molecules: of those with most valences the first, −1 where there are none."""
    plain = (kind == ATOM) & ~aromatic
    plain = plain & (neighbours == 0) if (plain & (neighbours == 0)).any() else plain
    carbon = _first(plain & (np.minimum(most, 4) == np.minimum(most[plain], 4).max(initial=0)))
    # neutral atoms, which are the shortest tokens, before others
    known = 2 * (valences >= 0).sum((1, 2)) + short
    ring_carbon = int(np.argmax(known * (aromatic & (valences[:, 2, 0] == 1) & (valences[:, 3, 0] == 1))))
    ring_carbon = ring_carbon or -1
    pair = int(np.argmax(known * (aromatic & (valences[:, 2, 0] == 0)))) or -1
    return [
        carbon,
        ring_carbon if ring_carbon >= 0 else _first(aromatic & (valences[:, 2, 0] == 1)),
        pair,
        _first(kind == BRANCH),
        _first(kind == CLOSE),
        _first((kind == BOND) & (value == 2)),
    ]


def _first(which: NDArray[np.bool_]) -> int:
    return int(which.argmax()) if which.any() else -1
