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
from numba import njit
from rdkit import Chem, rdBase

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from molml.molecules.tokens import Tokenizer

__all__ = ["Grammar", "GrammarState"]

Ints = np.ndarray[Any, np.dtype[np.int64]]

# called by `_run` alone, which is what is kept of the compiled code; they make no arrays, not even slices of them are
# assigned: that would bring in numba's counting of references and its messages, and half of the time to compile it all
_jit = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)

# kinds of tokens
_OTHER, _ATOM, _BOND, _BRANCH, _CLOSE, _RING, _DOT, _END = range(8)
# bonds: single, double and triple are their orders; "/" and "\\" give a direction only and leave the order open
_UNMARKED, _AROMATIC, _DIRECTED = 0, 4, 5
# phases: an atom must come; after an atom and its ring numbers; after "("; after ")"; after "<end>"
_START, _AFTER_ATOM, _AFTER_BRANCH, _AFTER_CLOSE, _DONE = range(5)

# columns of GrammarState.head
_CURRENT, _DEPTH, _PHASE, _PENDING, _COUNT, _WRONG, _OPEN, _N_PARTNERS, _PARTNER = range(9)
_MOST_PARTNERS = 4
_HEAD = _PARTNER + _MOST_PARTNERS
# columns of GrammarState.atoms: token, order of its bonds that are not aromatic, number of the aromatic ones, of open
# ring numbers without bond symbol, and of neighbours; atom before it and whether the aromatic bond to that one lies in
# no ring yet; whether no bond can be added but at its ring numbers; partner in the matching; aromatic neighbours; and,
# in row k, the atom at which the k-th open branch began
_TYPE, _SIGMA, _PI, _WAITING, _DEGREE, _PARENT, _BRIDGE, _FINAL, _MATE, _NEAR = range(10)
_STACK = _NEAR + 3
_ATOMS = _STACK + 1
# columns of the table of tokens: kind; of a bond its order, of a ring number its index; tokens of one group are allowed
# or forbidden together; most valences of an aliphatic atom, neighbours that its chirality needs
_KIND, _VALUE, _GROUP, _AROMATIC_ATOM, _MOST, _NEIGHBOURS = range(6)
# of aromatic atoms, by aromatic bonds, order of the others and open ring numbers: can become right with more bonds; is
# right, or becomes so when its rings are closed; with more bonds may need a double bond in the ring; when its rings are
# closed may need one
_EXTENDS, _RIGHT, _MAY, _WILL = range(6, 326, 80)
# by aromatic bonds and order of the others: needs a double bond now; with a bond that is not aromatic may need none
_DOUBLE, _ESCAPES = 326, 342
# not of the token but of the row: k-th token to search with, and of the k-th ring number
_SEARCHED, _RING_TOKEN = 358, 359
# in row 0: number of tokens to search with; a carbon atom, an aromatic one, and one with a lone pair in the ring;
# "(", ")" and "="
_N_SEARCHED, _C, _AR, _PAIR, _OPENS, _CLOSES, _DOUBLED = range(360, 367)
_COLUMNS = 367

_NEVER, _UNKNOWN = 10_000, 10_001
_MOST_NODES = 60  # of a search for an end
_BONDS = {"-": 1, "/": _DIRECTED, "\\": _DIRECTED, "=": 2, "#": 3, ":": _AROMATIC}
_EXOCYCLIC = ("", "(C)", "(=C)", "(#C)")
_END_ID = 2
_NO_IDS, _NO_SCORES, _NO_MASK = np.zeros((0, 0), np.int64), np.zeros((0, 0)), np.zeros((0, 0), np.bool_)


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
        if not isinstance(max_length, int) or not 2 <= max_length < _NEVER:
            raise ValueError(f"max_length must be an integer in 2…{_NEVER - 1}, got {max_length!r}")
        self.vocabulary, self.max_length = tokenizer.vocabulary, max_length
        self._tables, self._n_rings = _tables(self.vocabulary)
        if not (self._tables[:, _KIND] == _ATOM).any():
            raise ValueError("tokenizer must have a token of an atom, got none; make it from molecules")
        self._end = self._ending()

    def _ending(self) -> Ints:
        """Tokens of a molecule, for the beginning."""
        for token in self._tables[0, [_C, _AR, _PAIR]]:
            state = self._empty(1)
            if (
                token >= 0
                and self._run(
                    state, np.arange(1), self.max_length, _NO_SCORES, np.zeros(0), 0, np.array([[token]]), _NO_MASK
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
        head = np.zeros((n, _HEAD), np.int64)
        head[:, _CURRENT] = -1
        rings = np.zeros((n, max(self._n_rings, 1), 2), np.int64)
        rings[:, :, 0] = -1
        plans = np.full((n, self.max_length), -1, np.int64)
        return GrammarState(head, np.zeros((n, self.max_length, _ATOMS), np.int64), rings, plans)

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
        self._run(state, np.arange(len(state.head)), remaining, scores, np.zeros(0), max(n, 2), _NO_IDS, mask)
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
        ids = np.full((len(rows), 1), _END_ID, np.int64)
        self._run(state, rows, remaining, scores, np.zeros(0) if numbers is None else numbers, 1, ids, _NO_MASK, strict)
        return ids[:, 0]

    def finished(self, state: GrammarState) -> NDArray[np.bool_]:
        """Which strings have ended as molecules, shape (n,)."""
        return state.head[:, _PHASE] == _DONE

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
        if self._run(state, rows, self.max_length, _NO_SCORES, np.zeros(0), 0, tokens, _NO_MASK) >= 0:
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
            self.start(1), np.arange(1), self.max_length, _NO_SCORES, np.zeros(0), 0, tokens, _NO_MASK, strict=False
        )
        return None if place < 0 else int(place)

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
        shapes = (n + 3, _HEAD), (n + 3, n, _ATOMS), (n + 3, n_rings, 2), (6, n + 1), n
        space = [np.empty(shape, np.int64) for shape in (*shapes, (n + 3, self._tables[0, _N_SEARCHED] + n_rings + 1))]
        refused = np.empty(len(self._tables), np.bool_)
        given = self._tables, rows, remaining, weights, uniform, most, tokens, mask, strict
        return int(_run(*state, *given, *space, refused))


# ---- what the tokens are


def _tables(vocabulary: tuple[str, ...]) -> tuple[Ints, int]:
    n = len(vocabulary)
    kind, value, most, neighbours = (np.zeros(n, np.int64) for _ in range(4))
    aromatic = np.zeros(n, np.bool_)
    valences = np.full((n, 4, 4), -1, np.int64)  # of aromatic atoms: 1 needs a double bond, 0 needs none, -1 is wrong
    n_rings = 0
    syntax = {"(": _BRANCH, ")": _CLOSE, ".": _DOT, "<end>": _END}
    for index, token in enumerate(vocabulary):
        if token in syntax:
            kind[index] = syntax[token]
        elif token in _BONDS:
            kind[index], value[index] = _BOND, _BONDS[token]
        elif re.fullmatch(r"\d|%\d\d|%\(\d+\)", token):
            kind[index], value[index] = _RING, n_rings
            n_rings += 1
        elif (atom := _parse_atom(token)) is not None:
            kind[index] = _ATOM
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
        for order, branch in enumerate(_EXOCYCLIC):
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
    tables = np.full((n, _COLUMNS), -1, np.int64)
    tables[:, :6] = np.stack([kind, value, [first[what] for what in described], aromatic, most, neighbours], 1)
    parts = extends, right, may_double, will_double, double, escapes
    tables[:, _EXTENDS:_SEARCHED] = np.concatenate([part.reshape(n, -1) for part in parts], 1)
    tables[value[kind == _RING], _RING_TOKEN] = np.flatnonzero(kind == _RING)
    special = _special(kind, value, aromatic, most, neighbours, valences, short)
    tables[0, _C:] = special
    carbon, ring_carbon, pair, opens, closes, doubled = special
    searched = [_first(kind == _END), closes, ring_carbon, pair]
    searched += [_first(aromatic & (valences[:, 3, 0] == 0)), carbon, doubled, opens]
    searched = list(dict.fromkeys(k for k in searched if k >= 0))
    tables[: len(searched), _SEARCHED], tables[0, _N_SEARCHED] = searched, len(searched)
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
    plain = (kind == _ATOM) & ~aromatic
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
        _first(kind == _BRANCH),
        _first(kind == _CLOSE),
        _first((kind == _BOND) & (value == 2)),
    ]


def _first(which: NDArray[np.bool_]) -> int:
    return int(which.argmax()) if which.any() else -1


# ---- which token comes next


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _run(
    head: Ints,
    atoms: Ints,
    rings: Ints,
    plans: Ints,
    t: Ints,
    rows: Ints,
    remaining: int,
    scores: NDArray[np.float64],
    numbers: NDArray[np.float64],
    most: int,
    ids: Ints,
    mask: NDArray[np.bool_],
    strict: bool,
    heads: Ints,
    many: Ints,
    open_rings: Ints,
    work: Ints,
    plan: Ints,
    costs: Ints,
    refused: NDArray[np.bool_],
) -> int:
    """All that is done with rows of the state, as one function that is compiled once.

    With `most` = 0 the rows follow `ids` (n, length); the first place with a forbidden token, or −1, is returned. With
    `most` = 1 they go on with tokens of greatest score or, if there are `numbers`, tokens drawn with the scores as
    weights, which `ids` receives. With more, they stay, and `mask` receives so many allowed tokens of greatest score.
    """
    n_tokens = len(t)
    for i in range(len(rows)):
        row, place, found = rows[i], 0, 0
        if most > 0 and head[row, _PHASE] == _DONE:
            if most > 1:
                mask[i, 0] = True
            continue
        for k in range(n_tokens):
            refused[k] = k < 2
        number = numbers[i] if len(numbers) else 0.0
        while True:
            token = -1
            if most == 0:
                if place == ids.shape[1] or head[row, _PHASE] == _DONE:
                    break
                token = ids[i, place]
            elif len(numbers):
                token, number = _draw(scores[i], refused, number)
            else:
                for k in range(n_tokens):
                    if not refused[k] and (token < 0 or scores[i, k] > scores[i, token]):
                        token = k
            if token < 0:
                break
            good = False
            if _grammatical(head[row], t, token):
                _copy(head[row], atoms[row], rings[row], heads[0], many[0], open_rings[0])
                good = _check(
                    heads, many, open_rings, plans[row], t, token, remaining - place - 1, plan, costs, work, strict
                )
            if most > 1:
                refused[token] = True
                mask[i, token] = good
                found += good
                if found == most:
                    break
            if most <= 1:
                if good:
                    _copy(heads[0], many[0], open_rings[0], head[row], atoms[row], rings[row])
                    for k in range(len(plan)):
                        plans[row, k] = plan[k]
                    if most == 1:
                        ids[i, 0] = token
                        break
                    place += 1
                    continue
                if most == 0:
                    return place
            if not good:
                free = t[token, _KIND] == _RING and rings[row, t[token, _VALUE], 0] < 0
                for k in range(n_tokens):
                    alike = t[k, _GROUP] == t[token, _GROUP]
                    if free:
                        # one free ring number is as good as another
                        alike = t[k, _KIND] == _RING and rings[row, t[k, _VALUE], 0] < 0
                    refused[k] = refused[k] or alike
    return -1


@_jit
def _draw(weights: NDArray[np.float64], refused: NDArray[np.bool_], number: float) -> tuple[int, float]:
    """Token drawn with one uniform number, and what is left of that: a uniform number, too."""
    total, last = 0.0, -1
    for k in range(len(weights)):
        if not refused[k] and weights[k] > 0:
            total += weights[k]
            last = k
    if last < 0:
        for k in range(len(weights)):
            if not refused[k]:
                return k, number
        return -1, number
    left = number * total
    for k in range(len(weights)):
        if not refused[k] and weights[k] > 0:
            if left < weights[k] or k == last:
                return k, min(left / weights[k], 1.0)
            left -= weights[k]
    return last, number


@_jit
def _copy(head: Ints, atoms: Ints, rings: Ints, new_head: Ints, new_atoms: Ints, new_rings: Ints) -> None:
    n = max(head[_COUNT], head[_DEPTH]) + 1
    if n > len(atoms):
        n = len(atoms)
    for k in range(len(head)):
        new_head[k] = head[k]
    for v in range(n):
        for k in range(atoms.shape[1]):
            new_atoms[v, k] = atoms[v, k]
    for ring in range(len(rings)):
        new_rings[ring, 0], new_rings[ring, 1] = rings[ring, 0], rings[ring, 1]


@_jit
def _forget(plan: Ints, first: int) -> None:
    for k in range(first, len(plan)):
        plan[k] = -1


@_jit
def _check(
    heads: Ints,
    atoms: Ints,
    rings: Ints,
    old: Ints,
    t: Ints,
    token: int,
    most: int,
    new: Ints,
    costs: Ints,
    work: Ints,
    strict: bool,
) -> bool:
    """Add a token to the molecule of row 0, and find at most so many that complete it.

    If not `strict`, it is enough that they may exist; then they are looked for no further than in what was known.
    """
    p = old[0]
    first_free = p >= 0 and t[p, _KIND] == _RING and rings[0, t[p, _VALUE], 0] < 0
    opened = heads[0, _OPEN]
    _advance(heads[0], atoms[0], rings[0], t, token, work)
    if heads[0, _WRONG]:
        return False
    _forget(new, 0)
    if t[token, _KIND] == _END:
        return True
    if p >= 0 and (
        t[p, _GROUP] == t[token, _GROUP] or (first_free and t[token, _KIND] == _RING and heads[0, _OPEN] > opened)
    ):
        # what was to come, or a token as good; then the numbers of two rings change places
        for k in range(1, len(old)):
            new[k - 1] = token if old[k] == p and first_free else p if old[k] == token and first_free else old[k]
        return most >= len(new) or new[most] < 0
    for way in range(6 if p >= 0 else 0):
        n = _adapt(heads[0], atoms[0], rings[0], t, old, token, way, new)
        if 0 < n <= most and _completes(heads, atoms, rings, t, new, work):
            return True
    needed = _tokens_needed(heads[0], atoms[0], rings[0], t, work)
    if needed >= _NEVER:
        return False
    if not strict:
        _forget(new, 0)
        return needed <= most
    # what is needed is an estimate: first a narrow search, then a wide one
    for slack in (3, 15):
        if _search(heads, atoms, rings, t, min(most, needed + slack), new, costs, work):
            return True
        if needed + slack >= most:
            break
    return False


@_jit
def _completes(heads: Ints, atoms: Ints, rings: Ints, t: Ints, plan: Ints, work: Ints) -> bool:
    _copy(heads[0], atoms[0], rings[0], heads[1], atoms[1], rings[1])
    for k in range(len(plan)):
        if plan[k] < 0 or not _grammatical(heads[1], t, plan[k]):
            return False
        _advance(heads[1], atoms[1], rings[1], t, plan[k], work)
        if heads[1, _WRONG]:
            return False
        if t[plan[k], _KIND] == _END:
            _forget(plan, k + 1)
            return True
    return False


@_jit
def _adapt(head: Ints, atoms: Ints, rings: Ints, t: Ints, old: Ints, token: int, way: int, new: Ints) -> int:
    """Tokens that may complete the molecule after a token, from those that did so before it; their number."""
    kind, n, start, left_out, lead, none = t[token, _KIND], 0, 0, -1, 0, -1
    carbon, aromatic, pair, opens, closes = t[0, _C], t[0, _AR], t[0, _PAIR], t[0, _OPENS], t[0, _CLOSES]
    atom_first = old[0] >= 0 and t[old[0], _KIND] == _ATOM
    prefix = (none, none, none, none, none, none, none)
    x = head[_CURRENT]
    if kind == _ATOM:
        rich = t[token, _AROMATIC_ATOM]
        missing = t[token, _NEIGHBOURS] - atoms[x, _DEGREE]
        last = none if way == 0 and atom_first else carbon
        if way < 2 and missing == 1:
            prefix = (last, none, none, none, none, none, none)
        elif way < 2 and missing == 2:
            prefix = (opens, carbon, closes, last, none, none, none)
        elif way < 2 and missing == 3:
            prefix = (opens, carbon, closes, opens, carbon, closes, last)
        elif way == 0:
            start = int(atom_first)
        elif way == 1:
            start = 0
            if not atom_first and not rich:
                prefix = (carbon, none, none, none, none, none, none)
        elif way == 2 and rich and atoms[x, _PI] == 0:
            # a ring of its own
            ring = none
            for k in range(len(rings)):
                if ring < 0 and rings[k, 0] < 0:
                    ring = t[k, _RING_TOKEN]
            if ring >= 0:
                second = pair if t[token, _DOUBLE + 8 + atoms[x, _SIGMA]] else aromatic
                prefix = (ring, second, aromatic, aromatic, aromatic, ring, none)
        elif way == 2 and rich:
            prefix, start = (pair, none, none, none, none, none, none), int(atom_first)
        elif way == 3 and rich:
            prefix = (pair, none, none, none, none, none, none)
        elif way == 4 and rich:
            prefix = (aromatic, none, none, none, none, none, none)
        elif way == 5 and rich and atom_first:
            start = 2
        else:
            return 0
    elif kind == _BOND:
        if way == 0:
            start = int(old[0] >= 0 and t[old[0], _KIND] == _BOND)
        elif way == 1:
            prefix = (carbon, none, none, none, none, none, none)
        elif way == 2:
            prefix, start = (carbon, none, none, none, none, none, none), 1
        elif way == 3:
            prefix = (aromatic, none, none, none, none, none, none)
        elif way == 4:
            # a branch would be too much
            new[0], n = carbon, 1
            while old[start] >= 0 and t[old[start], _KIND] == _RING:
                new[n] = old[start]
                n, start = n + 1, start + 1
            if old[start] != opens:
                return 0
            while old[start] >= 0 and old[start] != closes:
                start += 1
            start += 1
        else:
            return 0
    elif kind == _BRANCH:
        if way == 0:
            prefix = (carbon, closes, none, none, none, none, none)
        elif way == 1 and t[0, _DOUBLED] >= 0:
            prefix = (t[0, _DOUBLED], carbon, closes, none, none, none, none)
        elif way == 2:
            prefix = (carbon, closes, carbon, none, none, none, none)
        else:
            return 0
    elif kind == _CLOSE:
        depth = 0
        while start < len(old) and old[start] >= 0 and depth >= 0:
            what = t[old[start], _KIND]
            depth += int(what == _BRANCH) - int(what == _CLOSE)
            start += 1
        if way > 0:
            return 0
    elif kind == _DOT:
        prefix = (carbon, none, none, none, none, none, none)
        if way > 0:
            return 0
    elif rings[t[token, _VALUE], 0] >= 0:
        if way == 1 and carbon >= 0:
            prefix = (carbon, carbon, token, none, none, none, none)
        elif way == 2 and atom_first:
            prefix, start = (old[0], opens, carbon, carbon, token, closes, none), 1
        elif way == 3 and atom_first:
            prefix, start = (aromatic, aromatic, aromatic, aromatic, aromatic, token, none), 1
        elif way == 4 or way == 5:
            # after other ring numbers, in place of a branch
            while lead < len(old) and old[lead] >= 0 and t[old[lead], _KIND] == _RING:
                lead += 1
            start, prefix = lead, (carbon, carbon, token, none, none, none, none)
            if way == 5 and old[start] == opens:
                while old[start] >= 0 and old[start] != closes:
                    start += 1
                start += 1
        else:
            return 0
    else:
        while start < len(old) and old[start] >= 0 and old[start] != token:
            start += 1
        if way == 0:
            start += 1
        elif way == 1:
            left_out, start = start, 0
        else:
            return 0
    for k in range(lead):
        new[n] = old[k]
        n += 1
    for k in range(7):
        if prefix[k] >= 0:
            new[n] = prefix[k]
            n += 1
    for k in range(start, len(old)):
        if old[k] < 0:
            return n
        if k == left_out:
            continue
        if n == len(new):
            return 0
        new[n] = old[k]
        n += 1
    return n


@_jit
def _search(heads: Ints, atoms: Ints, rings: Ints, t: Ints, most: int, plan: Ints, costs: Ints, work: Ints) -> bool:
    """Find tokens that complete the molecule of row 0 depth first, those with the least needed after them first."""
    n_fixed, n_rings = t[0, _N_SEARCHED], len(rings[0])
    # the last column: tokens needed before
    last, at, nodes = n_fixed + n_rings, 0, 0
    for k in range(last):
        costs[0, k] = _UNKNOWN
    costs[0, last] = _tokens_needed(heads[0], atoms[0], rings[0], t, work)
    while at >= 0:
        if at >= most or at + 1 + heads[at, _DEPTH] + heads[at, _OPEN] > most:
            at -= 1
            continue
        best, free = -1, False
        for j in range(last):
            # ring numbers first
            k = j + n_fixed if j < n_rings else j - n_rings
            if costs[at, k] == _UNKNOWN:
                token = t[k, _SEARCHED] if k < n_fixed else t[k - n_fixed, _RING_TOKEN]
                costs[at, k] = _NEVER
                opens = k >= n_fixed and rings[at, k - n_fixed, 0] < 0
                if token >= 0 and not (opens and free) and _grammatical(heads[at], t, token):
                    _copy(heads[at], atoms[at], rings[at], heads[at + 1], atoms[at + 1], rings[at + 1])
                    _advance(heads[at + 1], atoms[at + 1], rings[at + 1], t, token, work)
                    needed = _tokens_needed(heads[at + 1], atoms[at + 1], rings[at + 1], t, work)
                    if at + 1 + needed <= most:
                        costs[at, k] = needed
                free = free or opens
            if costs[at, k] < _NEVER and (best < 0 or costs[at, k] < costs[at, best]):
                best = k
                if costs[at, k] < costs[at, last]:
                    # nearer to the end: no need to look at the others now
                    break
        if best < 0:
            at -= 1
            continue
        token = t[best, _SEARCHED] if best < n_fixed else t[best - n_fixed, _RING_TOKEN]
        needed = costs[at, best]
        costs[at, best] = _NEVER
        plan[at] = token
        if t[token, _KIND] == _END:
            _forget(plan, at + 1)
            return True
        nodes += 1
        if nodes > _MOST_NODES:
            return False
        _copy(heads[at], atoms[at], rings[at], heads[at + 1], atoms[at + 1], rings[at + 1])
        _advance(heads[at + 1], atoms[at + 1], rings[at + 1], t, token, work)
        at += 1
        for k in range(last):
            costs[at, k] = _UNKNOWN
        costs[at, last] = needed
    return False


# ---- one token more


@_jit
def _grammatical(head: Ints, t: Ints, token: int) -> bool:
    """Whether a token may stand here whatever the atoms are."""
    kind, phase, pending = t[token, _KIND], head[_PHASE], head[_PENDING] != 0
    if kind == _ATOM:
        return True
    if kind == _BOND:
        return phase != _START and not pending
    if kind == _RING:
        return phase == _AFTER_ATOM
    if phase not in (_AFTER_ATOM, _AFTER_CLOSE) or pending:
        return False
    if kind == _BRANCH:
        return True
    if kind == _CLOSE:
        return head[_DEPTH] > 0
    return kind in (_DOT, _END) and head[_DEPTH] == 0 and head[_OPEN] == 0


@_jit
def _advance(head: Ints, atoms: Ints, rings: Ints, t: Ints, token: int, work: Ints) -> None:
    kind, x, other = t[token, _KIND], head[_CURRENT], -1
    if kind == _ATOM:
        _add_atom(head, atoms, t, token)
    elif kind == _BOND:
        head[_PENDING] = t[token, _VALUE]
        return
    elif kind == _BRANCH:
        atoms[head[_DEPTH], _STACK] = x
        head[_DEPTH] += 1
        head[_PHASE] = _AFTER_BRANCH
        return
    elif kind == _RING:
        ring = t[token, _VALUE]
        if rings[ring, 0] < 0:
            _open_ring(head, atoms, rings, t, ring)
        else:
            other = rings[ring, 0]
            _close_ring(head, atoms, rings, t, ring)
        head[_PENDING] = 0
    elif kind in (_CLOSE, _DOT, _END):
        _leave(head, atoms, rings, t, kind)
    else:
        head[_WRONG] = 1
    for k in range(2):
        v = x if k else other
        if v >= 0 and not head[_WRONG]:
            _settle(head, atoms, t, v, work)


@_jit
def _leave(head: Ints, atoms: Ints, rings: Ints, t: Ints, kind: int) -> None:
    """End a branch, a molecule of several, or the string; what began there must have ended."""
    x, bottom = head[_CURRENT], -1
    _finish(head, atoms, t, x)
    if kind == _CLOSE and head[_DEPTH] > 0:
        head[_DEPTH] -= 1
        bottom = atoms[head[_DEPTH], _STACK]
        head[_PHASE] = _AFTER_CLOSE
    else:
        head[_PHASE] = _START if kind == _DOT else _DONE
        if head[_DEPTH] > 0:
            head[_WRONG] = 1
    head[_CURRENT] = bottom
    while x > bottom:
        if atoms[x, _BRIDGE]:
            head[_WRONG] = 1
        x = atoms[x, _PARENT]
    for ring in range(len(rings)):
        if rings[ring, 0] > bottom:
            head[_WRONG] = 1


@_jit
def _add_atom(head: Ints, atoms: Ints, t: Ints, token: int) -> None:
    x, v = head[_CURRENT], head[_COUNT]
    if v >= len(atoms):
        head[_WRONG] = 1
        return
    head[_COUNT] = v + 1
    for k in range(_STACK):
        atoms[v, k] = 0
    atoms[v, _TYPE], atoms[v, _PARENT], atoms[v, _MATE] = token, x, -1
    head[_CURRENT] = v
    if x >= 0:
        bond = head[_PENDING]
        atoms[v, _BRIDGE] = _bind(head, atoms, t, x, v, bond)
        atoms[x, _DEGREE] += 1
        atoms[v, _DEGREE] += 1
        if head[_PHASE] != _AFTER_BRANCH:
            _finish(head, atoms, t, x)
    head[_PHASE], head[_PENDING], head[_N_PARTNERS] = _AFTER_ATOM, 0, 0


@_jit
def _bind(head: Ints, atoms: Ints, t: Ints, x: int, v: int, bond: int) -> bool:
    """Make a bond; tell whether it is aromatic."""
    both = t[atoms[x, _TYPE], _AROMATIC_ATOM] and t[atoms[v, _TYPE], _AROMATIC_ATOM]
    if both and bond in (_UNMARKED, _AROMATIC, _DIRECTED):
        if atoms[x, _PI] >= 3 or atoms[v, _PI] >= 3:
            head[_WRONG] = 1
            return False
        atoms[x, _NEAR + atoms[x, _PI]] = v
        atoms[v, _NEAR + atoms[v, _PI]] = x
        atoms[x, _PI] += 1
        atoms[v, _PI] += 1
        return True
    if bond == _AROMATIC:
        head[_WRONG] = 1
    order = bond if 1 <= bond <= 3 else 1
    _add_sigma(head, atoms, t, x, order)
    _add_sigma(head, atoms, t, v, order)
    return False


@_jit
def _add_sigma(head: Ints, atoms: Ints, t: Ints, v: int, order: int) -> None:
    if t[atoms[v, _TYPE], _AROMATIC_ATOM] and atoms[v, _SIGMA] > 0:
        head[_WRONG] = 1
    atoms[v, _SIGMA] += order


@_jit
def _open_ring(head: Ints, atoms: Ints, rings: Ints, t: Ints, ring: int) -> None:
    x, bond = head[_CURRENT], head[_PENDING]
    rings[ring, 0], rings[ring, 1] = x, bond if bond != _DIRECTED else _UNMARKED
    head[_OPEN] += 1
    atoms[x, _DEGREE] += 1
    if bond in (_UNMARKED, _AROMATIC, _DIRECTED):
        atoms[x, _WAITING] += 1
    else:
        _add_sigma(head, atoms, t, x, bond)
    if bond == _AROMATIC and not t[atoms[x, _TYPE], _AROMATIC_ATOM]:
        head[_WRONG] = 1


@_jit
def _close_ring(head: Ints, atoms: Ints, rings: Ints, t: Ints, ring: int) -> None:
    x = head[_CURRENT]
    here = head[_PENDING] if head[_PENDING] != _DIRECTED else _UNMARKED
    a, there = rings[ring, 0], rings[ring, 1]
    rings[ring, 0] = -1
    head[_OPEN] -= 1
    if a == x or a == atoms[x, _PARENT] or head[_N_PARTNERS] == _MOST_PARTNERS or (here and there and here != there):
        head[_WRONG] = 1
        return
    for k in range(head[_N_PARTNERS]):
        if head[_PARTNER + k] == a:
            head[_WRONG] = 1
    head[_PARTNER + head[_N_PARTNERS]] = a
    head[_N_PARTNERS] += 1
    atoms[x, _DEGREE] += 1
    if there in (_UNMARKED, _AROMATIC):
        atoms[a, _WAITING] -= 1
    else:
        atoms[a, _SIGMA] -= there
    _bind(head, atoms, t, a, x, max(here, there))
    y = x
    while y > a:
        atoms[y, _BRIDGE] = 0
        y = atoms[y, _PARENT]
    if atoms[a, _FINAL] and not _is_right(atoms, t, a):
        head[_WRONG] = 1


@_jit
def _finish(head: Ints, atoms: Ints, t: Ints, v: int) -> None:
    """No bond will be added to an atom, but at its ring numbers."""
    atoms[v, _FINAL] = 1
    if not _is_right(atoms, t, v):
        head[_WRONG] = 1


@_jit
def _is_right(atoms: Ints, t: Ints, v: int) -> bool:
    kind, sigma, waiting = atoms[v, _TYPE], atoms[v, _SIGMA], atoms[v, _WAITING]
    if t[kind, _AROMATIC_ATOM]:
        return sigma < 4 and waiting < 5 and t[kind, _RIGHT + 20 * atoms[v, _PI] + 5 * sigma + waiting]
    return sigma + waiting <= t[kind, _MOST] and atoms[v, _DEGREE] >= t[kind, _NEIGHBOURS]


@_jit
def _extends(atoms: Ints, t: Ints, v: int, pi: int, sigma: int) -> bool:
    """Whether an atom can have so many more aromatic bonds, and others of that order."""
    kind, waiting = atoms[v, _TYPE], atoms[v, _WAITING]
    if t[kind, _AROMATIC_ATOM]:
        if sigma > 0 and atoms[v, _SIGMA] > 0:
            return False
        pi, sigma = atoms[v, _PI] + pi, atoms[v, _SIGMA] + sigma
        return pi < 4 and sigma < 4 and waiting < 5 and t[kind, _EXTENDS + 20 * pi + 5 * sigma + waiting]
    left = t[kind, _MOST] - atoms[v, _SIGMA] - waiting - sigma
    missing = t[kind, _NEIGHBOURS] - atoms[v, _DEGREE] - (sigma > 0)
    return pi == 0 and left >= max(missing, 0)


# ---- Kekulé structures


@_jit
def _settle(head: Ints, atoms: Ints, t: Ints, v: int, work: Ints) -> None:
    """Repair the matching after an atom has changed."""
    if not t[atoms[v, _TYPE], _AROMATIC_ATOM]:
        return
    mate = atoms[v, _MATE]
    if mate >= 0 and not _may_match(atoms, t, v):
        atoms[v, _MATE] = atoms[mate, _MATE] = -1
        v = mate
    if atoms[v, _MATE] < 0 and _must_match(atoms, t, v) and not _augment(atoms, t, head[_COUNT], v, work):
        head[_WRONG] = 1


@_jit
def _may_match(atoms: Ints, t: Ints, v: int) -> bool:
    kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
    waiting = atoms[v, _WAITING]
    if pi > 3 or sigma > 3 or waiting > 4:
        return False
    if atoms[v, _FINAL]:
        return t[kind, _WILL + 20 * pi + 5 * sigma + waiting]
    return t[kind, _MAY + 20 * pi + 5 * sigma + waiting]


@_jit
def _must_match(atoms: Ints, t: Ints, v: int) -> bool:
    kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
    if atoms[v, _WAITING] > 0 or pi > 3 or sigma > 3:
        return False
    if atoms[v, _FINAL]:
        return t[kind, _DOUBLE + 4 * pi + sigma]
    return t[kind, _DOUBLE + 4 * pi + sigma] and not t[kind, _ESCAPES + 4 * pi + sigma]


@_jit
def _augment(atoms: Ints, t: Ints, n: int, root: int, work: Ints) -> bool:
    """Match an atom that must be, by an alternating path to one that is free or need not be matched."""
    before, base, outer, queue, marked = work[0], work[1], work[2], work[3], work[4]
    for i in range(n):
        before[i], base[i], outer[i] = -1, i, 0
    outer[root], queue[0] = 1, root
    first, last = 0, 1
    while first < last:
        v = queue[first]
        first += 1
        if v != root and not _must_match(atoms, t, v):
            end = atoms[v, _MATE]
            atoms[v, _MATE] = -1
            _flip(atoms, before, end)
            return True
        for k in range(atoms[v, _PI]):
            to = atoms[v, _NEAR + k]
            if base[v] == base[to] or atoms[v, _MATE] == to or not _may_match(atoms, t, to):
                continue
            if to == root or (atoms[to, _MATE] >= 0 and before[atoms[to, _MATE]] >= 0):
                common = _common_base(atoms, before, base, marked, n, v, to)
                for i in range(n):
                    marked[i] = 0
                _mark(atoms, before, base, marked, v, common, to)
                _mark(atoms, before, base, marked, to, common, v)
                for i in range(n):
                    if marked[base[i]]:
                        base[i] = common
                        if not outer[i]:
                            outer[i] = 1
                            queue[last] = i
                            last += 1
            elif before[to] < 0:
                before[to] = v
                mate = atoms[to, _MATE]
                if mate < 0:
                    _flip(atoms, before, to)
                    return True
                outer[mate] = 1
                queue[last] = mate
                last += 1
    return False


@_jit
def _flip(atoms: Ints, before: Ints, end: int) -> None:
    while end >= 0:
        v = before[end]
        following = atoms[v, _MATE]
        atoms[end, _MATE], atoms[v, _MATE] = v, end
        end = following


@_jit
def _common_base(atoms: Ints, before: Ints, base: Ints, marked: Ints, n: int, v: int, w: int) -> int:
    for i in range(n):
        marked[i] = 0
    while True:
        v = base[v]
        marked[v] = 1
        if atoms[v, _MATE] < 0:
            break
        v = before[atoms[v, _MATE]]
    while True:
        w = base[w]
        if marked[w]:
            return w
        w = before[atoms[w, _MATE]]


@_jit
def _mark(atoms: Ints, before: Ints, base: Ints, marked: Ints, v: int, common: int, child: int) -> None:
    while base[v] != common:
        marked[base[v]] = marked[base[atoms[v, _MATE]]] = 1
        before[v] = child
        child = atoms[v, _MATE]
        v = before[child]


# ---- whether a molecule can be completed


@_jit
def _tokens_needed(head: Ints, atoms: Ints, rings: Ints, t: Ints, work: Ints) -> int:
    """Tokens that complete the molecule, estimated from above; `_NEVER` if it cannot be."""
    if head[_WRONG]:
        return _NEVER
    phase = head[_PHASE]
    if phase == _DONE:
        return 0
    if phase == _START:
        return 2
    x, depth, pending = head[_CURRENT], head[_DEPTH], head[_PENDING]
    expected = pending != 0 or phase == _AFTER_BRANCH
    needed = 1 + depth + expected
    duties = -1
    if expected:
        # a bond that is not aromatic, one that is, and if a ring number must follow
        for way in range(3):
            if duties >= 0 or (way == 2 and phase != _AFTER_ATOM):
                break
            marked = 1 <= pending <= 3
            if (way == 0 and pending == _AROMATIC) or (way == 1 and marked):
                continue
            pi = int(way == 1 or (way == 2 and not marked))
            sigma = 0 if pi else (pending if marked else 1)
            if _takes(head, atoms, t, x, pi, sigma, phase != _AFTER_BRANCH and way < 2, work):
                duties = _duties(head, atoms, rings, t, way if way < 2 else -1, work)
                needed += 2 * (way == 2)
    else:
        duties = _duties(head, atoms, rings, t, -1, work)
        if not _extends(atoms, t, x, 0, 0):
            return _NEVER
    if duties < 0:
        return _NEVER
    # every open ring needs an atom that can go on, no higher than the branch in which it was opened
    level, end = depth, x
    while not (expected or head[_OPEN] == 0 or _has_room(head, atoms, t, end, work)):
        bottom = atoms[level - 1, _STACK] if level else -1
        for ring in range(len(rings)):
            if rings[ring, 0] > bottom:
                return _NEVER
        if level == 0:
            break
        level, end = level - 1, bottom
    needed += 4 * duties + _repairs(head, atoms, t)
    if head[_OPEN]:
        needed += 4 * head[_OPEN] - 3 + _steps_to_close(head, atoms, rings, t, level == depth)
    return needed


@_jit
def _takes(head: Ints, atoms: Ints, t: Ints, v: int, pi: int, sigma: int, last: bool, work: Ints) -> bool:
    """Whether an atom can have one more bond to a new atom, be it its last one."""
    if not _extends(atoms, t, v, pi, sigma):
        return False
    n, mates = head[_COUNT], work[5]
    old_pi, old_sigma, degree, final = atoms[v, _PI], atoms[v, _SIGMA], atoms[v, _DEGREE], atoms[v, _FINAL]
    if pi:
        # the new atom is yet to come; an atom is no neighbour of itself
        atoms[v, _NEAR + old_pi] = v
    for i in range(n):
        mates[i] = atoms[i, _MATE]
    atoms[v, _PI] += pi
    atoms[v, _SIGMA] += sigma
    atoms[v, _DEGREE] += 1
    if last:
        atoms[v, _FINAL] = 1
    right = not last or _is_right(atoms, t, v)
    if right and not (pi and _may_match(atoms, t, v)):
        _settle(head, atoms, t, v, work)
        right = head[_WRONG] == 0
        head[_WRONG] = 0
    atoms[v, _PI], atoms[v, _SIGMA], atoms[v, _DEGREE], atoms[v, _FINAL] = old_pi, old_sigma, degree, final
    for i in range(n):
        atoms[i, _MATE] = mates[i]
    return right


@_jit
def _has_room(head: Ints, atoms: Ints, t: Ints, v: int, work: Ints) -> bool:
    """Whether the string can go on from an atom, as its last bond."""
    if not t[atoms[v, _TYPE], _AROMATIC_ATOM]:
        return _extends(atoms, t, v, 0, 1)
    for pi, sigma in ((0, 1), (0, 2), (1, 0)):
        if _takes(head, atoms, t, v, pi, sigma, atoms[v, _PI] > 1, work):
            return True
    return False


@_jit
def _duties(head: Ints, atoms: Ints, rings: Ints, t: Ints, ahead: int, work: Ints) -> int:
    """Rings that aromatic atoms on the way to the current one still need; −1 if there are not enough open ones.

    A duty is met by closing a ring that was opened at its place or before. It comes from an atom with fewer than two
    aromatic bonds, or from aromatic bonds in no ring; duties deeper in the branches also serve the latter. `ahead`
    tells of the atom that comes next: 1 if its bond is aromatic, 0 if not, −1 if none is expected.
    """
    places = work[0]
    n, x, depth = 0, head[_CURRENT], head[_DEPTH]
    end = x
    if ahead == 1:
        places[0] = x
        n = 1
    if ahead >= 0 and head[_PHASE] == _AFTER_BRANCH:
        depth -= 1
    while True:
        bottom = atoms[depth - 1, _STACK] if depth else -1
        place = _NEVER
        y = end
        while y > bottom:
            if atoms[y, _BRIDGE]:
                place = atoms[y, _PARENT]
            y = atoms[y, _PARENT]
        bonds = atoms[end, _PI] + atoms[end, _WAITING]
        lacks = t[atoms[end, _TYPE], _AROMATIC_ATOM] and bonds < 2
        if end == x:
            if ahead >= 0 and head[_PHASE] != _AFTER_BRANCH:
                # it was found to be right with that bond
                lacks = False
            elif ahead == 1:
                lacks = lacks and bonds < 1
            elif bonds == 0 and head[_PHASE] == _AFTER_ATOM:
                # ring numbers may follow
                lacks = False
        if lacks:
            places[n] = min(place, end)
            n += 1
        elif place < _NEVER:
            if n:
                places[n - 1] = min(places[n - 1], place)
            else:
                places[0] = place
                n = 1
        if depth == 0:
            break
        depth -= 1
        end = bottom
    for i in range(n):
        served = 0
        for ring in range(len(rings)):
            served += 0 <= rings[ring, 0] <= places[i]
        for j in range(n):
            served -= places[j] <= places[i]
        if served < 0:
            return -1
    return n


@_jit
def _repairs(head: Ints, atoms: Ints, t: Ints) -> int:
    """Tokens that open atoms need: neighbours of a stereocentre, double bonds out of a ring."""
    tokens = 0
    for level in range(head[_DEPTH] + 1):
        v = head[_CURRENT] if level == head[_DEPTH] else atoms[level, _STACK]
        kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
        if t[kind, _AROMATIC_ATOM]:
            if (
                atoms[v, _WAITING] == 0
                and atoms[v, _MATE] < 0
                and pi < 4
                and sigma < 4
                and t[kind, _DOUBLE + 4 * pi + sigma]
            ):
                tokens += 2
        else:
            missing = t[kind, _NEIGHBOURS] - atoms[v, _DEGREE]
            if missing > 0:
                tokens += 3 * missing - 2
    return tokens


@_jit
def _steps_to_close(head: Ints, atoms: Ints, rings: Ints, t: Ints, goes_on: bool) -> int:
    """Atoms to add before a ring can be closed."""
    x = head[_CURRENT]
    if not goes_on:
        return 2
    fresh = head[_PENDING] != 0 or head[_PHASE] != _AFTER_ATOM
    steps = 2
    for ring in range(len(rings)):
        a = rings[ring, 0]
        if a < 0:
            continue
        if a != x:
            steps = min(steps, 1)
        if fresh or a == x or a == atoms[x, _PARENT]:
            continue
        known = False
        for k in range(head[_N_PARTNERS]):
            known = known or head[_PARTNER + k] == a
        if not known and (_extends(atoms, t, x, 0, max(rings[ring, 1], 1)) or _extends(atoms, t, x, 1, 0)):
            steps = 0
    if fresh and steps == 1:
        # the atom that must come can close one
        steps = 0 if (head[_PENDING] != 0 or head[_PHASE] == _AFTER_BRANCH) else 1
    return steps
