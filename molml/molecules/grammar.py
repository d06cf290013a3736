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

Ints = np.ndarray[Any, np.dtype[np.int16]]

_jit = njit(cache=True, nogil=True, error_model="numpy")

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

_NEVER = 10_000
_BONDS = {"-": 1, "/": _DIRECTED, "\\": _DIRECTED, "=": 2, "#": 3, ":": _AROMATIC}
_EXOCYCLIC = ("", "(C)", "(=C)", "(#C)")


class GrammarState(NamedTuple):
    """Molecules in the making; all arrays have a row for each, which may be dropped, repeated and reordered.

    Attributes
    ----------
    head : array of int16, shape (n, …)
        Current atom, depth of branches and the like.
    atoms : array of int16, shape (n, max_length, …)
        Atoms so far.
    rings : array of int16, shape (n, n_ring_numbers, 2)
        Atom at which the ring number was opened, or −1; bond symbol that stood there.
    """

    head: Ints
    atoms: Ints
    rings: Ints


class _Tables(NamedTuple):
    """What the automaton knows of every token."""

    kind: Ints
    value: Ints  # of a bond: its order; of a ring number: its index
    group: Ints  # tokens of one group are allowed or forbidden together
    aromatic: NDArray[np.bool_]
    most: Ints  # most valences of an aliphatic atom
    neighbours: Ints  # that its chirality needs
    # of aromatic atoms by aromatic bonds, order of the others, and open ring numbers
    extends: NDArray[np.bool_]  # can become right with more bonds
    right: NDArray[np.bool_]  # is right, or becomes so when its rings are closed
    may_double: NDArray[np.bool_]  # with more bonds may need a double bond in the ring
    will_double: NDArray[np.bool_]  # when its rings are closed may need one
    # by aromatic bonds and order of the others
    double: NDArray[np.bool_]  # needs one now
    escapes: NDArray[np.bool_]  # with a bond that is not aromatic may need none


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
    Every molecule that RDKit writes, canonical or randomised, is allowed, as long as some tokens remain: the number of
    tokens needed to complete a molecule is estimated from above, by up to about ten for fused aromatic rings that are
    all open. So let `max_length` exceed the longest string by that.

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
        if not (self._tables.kind == _ATOM).any():
            raise ValueError("tokenizer must have a token of an atom, got none; make it from molecules")

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
        head = np.zeros((n, _HEAD), np.int16)
        head[:, _CURRENT] = -1
        rings = np.zeros((n, max(self._n_rings, 1), 2), np.int16)
        rings[:, :, 0] = -1
        return GrammarState(head, np.zeros((n, self.max_length, _ATOMS), np.int16), rings)

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
            At least one in every row; after "<end>", "<pad>" is the only one. In a row that cannot be completed, which
            is rare, it is what the syntax allows.
        """
        mask = np.zeros((len(state.head), len(self.vocabulary)), np.bool_)
        _allowed(state.head, state.atoms, state.rings, self._tables, remaining, mask)
        return mask

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
            If the number of tokens is not that of the strings.
        """
        if ids.shape != (len(state.head),):
            raise ValueError(f"ids must have shape ({len(state.head)},), got {ids.shape}")
        _advance_all(state.head, state.atoms, state.rings, self._tables, ids.astype(np.int64))
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
        state = self.start(1)
        place = _first_refused(
            state.head, state.atoms, state.rings, self._tables, self.max_length, np.asarray(ids, np.int64)
        )
        return None if place < 0 else int(place)


# ---- what the tokens are


def _tables(vocabulary: tuple[str, ...]) -> tuple[_Tables, int]:
    n = len(vocabulary)
    kind, value, most, neighbours = (np.zeros(n, np.int16) for _ in range(4))
    aromatic = np.zeros(n, np.bool_)
    valences = np.full((n, 4, 4), -1, np.int16)  # of aromatic atoms: 1 needs a double bond, 0 needs none, -1 is wrong
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
    tables = _derive(kind, value, aromatic, most, neighbours, valences)
    return tables, n_rings


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
    result = np.full((4, 4), -1, np.int16)
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
    kind: Ints, value: Ints, aromatic: NDArray[np.bool_], most: Ints, neighbours: Ints, valences: Ints
) -> _Tables:
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
    group = np.array([first[what] for what in described], np.int16)
    return _Tables(
        kind, value, group, aromatic, most, neighbours, extends, right, may_double, will_double, double, escapes
    )


# ---- one token more


@_jit
def _allowed(head: Ints, atoms: Ints, rings: Ints, t: _Tables, remaining: int, mask: NDArray[np.bool_]) -> None:
    n_tokens = len(t.kind)
    one_head, one_atoms, one_rings = np.empty_like(head[:1]), np.empty_like(atoms[:1]), np.empty_like(rings[:1])
    work = np.empty((6, atoms.shape[1]), np.int16)
    cost = np.empty(n_tokens, np.int16)
    for row in range(len(head)):
        if head[row, _PHASE] == _DONE:
            mask[row, 0] = True
            continue
        cost[:] = -1
        free_ring, least = -1, _NEVER
        for token in range(n_tokens):
            if not _grammatical(head[row], t, token):
                continue
            group = t.group[token]
            if t.kind[token] == _RING and rings[row, t.value[token], 0] < 0:
                # one free ring number is as good as another
                free_ring = token if free_ring < 0 else free_ring
                group = free_ring
            if cost[group] < 0:
                count = head[row, _COUNT]
                one_head[0] = head[row]
                one_atoms[0, : count + 1] = atoms[row, : count + 1]
                one_rings[0] = rings[row]
                _advance(one_head[0], one_atoms[0], one_rings[0], t, token, work)
                cost[group] = _tokens_needed(one_head[0], one_atoms[0], one_rings[0], t, work)
                least = min(least, cost[group])
        # too late to be sure: on the shortest way
        most = max(least, remaining - 1)
        free = free_ring
        for token in range(n_tokens):
            if not _grammatical(head[row], t, token):
                continue
            is_free = t.kind[token] == _RING and rings[row, t.value[token], 0] < 0
            mask[row, token] = cost[free if is_free else t.group[token]] <= most


@_jit
def _advance_all(head: Ints, atoms: Ints, rings: Ints, t: _Tables, ids: NDArray[np.int64]) -> None:
    work = np.empty((6, atoms.shape[1]), np.int16)
    for row in range(len(head)):
        if head[row, _PHASE] != _DONE:
            _advance(head[row], atoms[row], rings[row], t, ids[row], work)


@_jit
def _first_refused(head: Ints, atoms: Ints, rings: Ints, t: _Tables, remaining: int, ids: NDArray[np.int64]) -> int:
    work = np.empty((6, atoms.shape[1]), np.int16)
    for place in range(len(ids)):
        if not _grammatical(head[0], t, ids[place]):
            return place
        _advance(head[0], atoms[0], rings[0], t, ids[place], work)
        if _tokens_needed(head[0], atoms[0], rings[0], t, work) > remaining - place - 1:
            return place
    return -1


@_jit
def _grammatical(head: Ints, t: _Tables, token: int) -> bool:
    """Whether a token may stand here whatever the atoms are."""
    kind, phase, pending = t.kind[token], head[_PHASE], head[_PENDING] != 0
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
def _advance(head: Ints, atoms: Ints, rings: Ints, t: _Tables, token: int, work: Ints) -> None:
    kind, x, other = t.kind[token], head[_CURRENT], -1
    if kind == _ATOM:
        _add_atom(head, atoms, t, token)
    elif kind == _BOND:
        head[_PENDING] = t.value[token]
        return
    elif kind == _BRANCH:
        atoms[head[_DEPTH], _STACK] = x
        head[_DEPTH] += 1
        head[_PHASE] = _AFTER_BRANCH
        return
    elif kind == _RING:
        ring = t.value[token]
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
    for v in np.array([other, x]):
        if v >= 0 and not head[_WRONG]:
            _settle(head, atoms, t, v, work)


@_jit
def _leave(head: Ints, atoms: Ints, rings: Ints, t: _Tables, kind: int) -> None:
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
def _add_atom(head: Ints, atoms: Ints, t: _Tables, token: int) -> None:
    x, v = head[_CURRENT], head[_COUNT]
    if v >= len(atoms):
        head[_WRONG] = 1
        return
    head[_COUNT] = v + 1
    atoms[v, :_STACK] = 0
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
def _bind(head: Ints, atoms: Ints, t: _Tables, x: int, v: int, bond: int) -> bool:
    """Make a bond; tell whether it is aromatic."""
    both = t.aromatic[atoms[x, _TYPE]] and t.aromatic[atoms[v, _TYPE]]
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
def _add_sigma(head: Ints, atoms: Ints, t: _Tables, v: int, order: int) -> None:
    if t.aromatic[atoms[v, _TYPE]] and atoms[v, _SIGMA] > 0:
        head[_WRONG] = 1
    atoms[v, _SIGMA] += order


@_jit
def _open_ring(head: Ints, atoms: Ints, rings: Ints, t: _Tables, ring: int) -> None:
    x, bond = head[_CURRENT], head[_PENDING]
    rings[ring, 0], rings[ring, 1] = x, bond if bond != _DIRECTED else _UNMARKED
    head[_OPEN] += 1
    atoms[x, _DEGREE] += 1
    if bond in (_UNMARKED, _AROMATIC, _DIRECTED):
        atoms[x, _WAITING] += 1
    else:
        _add_sigma(head, atoms, t, x, bond)
    if bond == _AROMATIC and not t.aromatic[atoms[x, _TYPE]]:
        head[_WRONG] = 1


@_jit
def _close_ring(head: Ints, atoms: Ints, rings: Ints, t: _Tables, ring: int) -> None:
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
def _finish(head: Ints, atoms: Ints, t: _Tables, v: int) -> None:
    """No bond will be added to an atom, but at its ring numbers."""
    atoms[v, _FINAL] = 1
    if not _is_right(atoms, t, v):
        head[_WRONG] = 1


@_jit
def _is_right(atoms: Ints, t: _Tables, v: int) -> bool:
    kind, sigma, waiting = atoms[v, _TYPE], atoms[v, _SIGMA], atoms[v, _WAITING]
    if t.aromatic[kind]:
        return sigma < 4 and waiting < 5 and t.right[kind, atoms[v, _PI], sigma, waiting]
    return sigma + waiting <= t.most[kind] and atoms[v, _DEGREE] >= t.neighbours[kind]


@_jit
def _extends(atoms: Ints, t: _Tables, v: int, pi: int, sigma: int) -> bool:
    """Whether an atom can have so many more aromatic bonds, and others of that order."""
    kind, waiting = atoms[v, _TYPE], atoms[v, _WAITING]
    if t.aromatic[kind]:
        if sigma > 0 and atoms[v, _SIGMA] > 0:
            return False
        pi, sigma = atoms[v, _PI] + pi, atoms[v, _SIGMA] + sigma
        return pi < 4 and sigma < 4 and waiting < 5 and t.extends[kind, pi, sigma, waiting]
    left = t.most[kind] - atoms[v, _SIGMA] - waiting - sigma
    missing = t.neighbours[kind] - atoms[v, _DEGREE] - (sigma > 0)
    return pi == 0 and left >= max(missing, 0)


# ---- Kekulé structures


@_jit
def _settle(head: Ints, atoms: Ints, t: _Tables, v: int, work: Ints) -> None:
    """Repair the matching after an atom has changed."""
    if not t.aromatic[atoms[v, _TYPE]]:
        return
    mate = atoms[v, _MATE]
    if mate >= 0 and not _may_match(atoms, t, v):
        atoms[v, _MATE] = atoms[mate, _MATE] = -1
        v = mate
    if atoms[v, _MATE] < 0 and _must_match(atoms, t, v) and not _augment(atoms, t, head[_COUNT], v, work):
        head[_WRONG] = 1


@_jit
def _may_match(atoms: Ints, t: _Tables, v: int) -> bool:
    kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
    waiting = atoms[v, _WAITING]
    if pi > 3 or sigma > 3 or waiting > 4:
        return False
    if atoms[v, _FINAL]:
        return t.will_double[kind, pi, sigma, waiting]
    return t.may_double[kind, pi, sigma, waiting]


@_jit
def _must_match(atoms: Ints, t: _Tables, v: int) -> bool:
    kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
    if atoms[v, _WAITING] > 0 or pi > 3 or sigma > 3:
        return False
    if atoms[v, _FINAL]:
        return t.double[kind, pi, sigma]
    return t.double[kind, pi, sigma] and not t.escapes[kind, pi, sigma]


@_jit
def _augment(atoms: Ints, t: _Tables, n: int, root: int, work: Ints) -> bool:
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
def _tokens_needed(head: Ints, atoms: Ints, rings: Ints, t: _Tables, work: Ints) -> int:
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
            pi = way == 1 or (way == 2 and not marked)
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
def _takes(head: Ints, atoms: Ints, t: _Tables, v: int, pi: int, sigma: int, last: bool, work: Ints) -> bool:
    """Whether an atom can have one more bond to a new atom, be it its last one."""
    if not _extends(atoms, t, v, pi, sigma):
        return False
    n, mates = head[_COUNT], work[5]
    old_pi, old_sigma, degree, final = atoms[v, _PI], atoms[v, _SIGMA], atoms[v, _DEGREE], atoms[v, _FINAL]
    if pi:
        # the new atom is yet to come; an atom is no neighbour of itself
        atoms[v, _NEAR + old_pi] = v
    mates[:n] = atoms[:n, _MATE]
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
    atoms[:n, _MATE] = mates[:n]
    return right


@_jit
def _has_room(head: Ints, atoms: Ints, t: _Tables, v: int, work: Ints) -> bool:
    """Whether the string can go on from an atom, as its last bond."""
    if not t.aromatic[atoms[v, _TYPE]]:
        return _extends(atoms, t, v, 0, 1)
    for pi, sigma in ((0, 1), (0, 2), (1, 0)):
        if _takes(head, atoms, t, v, pi, sigma, atoms[v, _PI] > 1, work):
            return True
    return False


@_jit
def _duties(head: Ints, atoms: Ints, rings: Ints, t: _Tables, ahead: int, work: Ints) -> int:
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
        lacks = t.aromatic[atoms[end, _TYPE]] and bonds < 2
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
def _repairs(head: Ints, atoms: Ints, t: _Tables) -> int:
    """Tokens that open atoms need: neighbours of a stereocentre, double bonds out of a ring."""
    tokens = 0
    for level in range(head[_DEPTH] + 1):
        v = head[_CURRENT] if level == head[_DEPTH] else atoms[level, _STACK]
        kind, pi, sigma = atoms[v, _TYPE], atoms[v, _PI], atoms[v, _SIGMA]
        if t.aromatic[kind]:
            if atoms[v, _WAITING] == 0 and atoms[v, _MATE] < 0 and pi < 4 and sigma < 4 and t.double[kind, pi, sigma]:
                tokens += 2
        else:
            missing = t.neighbours[kind] - atoms[v, _DEGREE]
            if missing > 0:
                tokens += 3 * missing - 2
    return tokens


@_jit
def _steps_to_close(head: Ints, atoms: Ints, rings: Ints, t: _Tables, goes_on: bool) -> int:
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
