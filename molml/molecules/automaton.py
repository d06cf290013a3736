"""The automaton of SMILES, compiled: what a token does to a molecule in the making, and whether it can be completed.

Molecules in the making are arrays of integers (:class:`molml.molecules.grammar.GrammarState`); what the tokens are
stands in one table of a row each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ints = np.ndarray[Any, np.dtype[np.int64]]

# called by `run` alone, which is what is kept of the compiled code; they make no arrays, not even slices of them are
# assigned: that would bring in numba's counting of references and its messages, and half of the time to compile it all
_jit = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)

# kinds of tokens
OTHER, ATOM, BOND, BRANCH, CLOSE, RING, DOT, END = range(8)
# bonds: single, double and triple are their orders; "/" and "\\" give a direction only and leave the order open
UNMARKED, AROMATIC, DIRECTED = 0, 4, 5
# phases: an atom must come; after an atom and its ring numbers; after "("; after ")"; after "<end>"
START, AFTER_ATOM, AFTER_BRANCH, AFTER_CLOSE, DONE = range(5)

# columns of GrammarState.head
CURRENT, DEPTH, PHASE, PENDING, COUNT, WRONG, OPEN, N_PARTNERS, PARTNER = range(9)
MOST_PARTNERS = 4
HEAD = PARTNER + MOST_PARTNERS
# columns of GrammarState.atoms: token, order of its bonds that are not aromatic, number of the aromatic ones, of open
# ring numbers without bond symbol, and of neighbours; atom before it and whether the aromatic bond to that one lies in
# no ring yet; whether no bond can be added but at its ring numbers; partner in the matching; aromatic neighbours; and,
# in row k, the atom at which the k-th open branch began
TYPE, SIGMA, PI, WAITING, DEGREE, PARENT, BRIDGE, FINAL, MATE, NEAR = range(10)
STACK = NEAR + 3
ATOMS = STACK + 1
# columns of the table of tokens: kind; of a bond its order, of a ring number its index; tokens of one group are allowed
# or forbidden together; most valences of an aliphatic atom, neighbours that its chirality needs
KIND, VALUE, GROUP, AROMATIC_ATOM, MOST, NEIGHBOURS = range(6)
# of aromatic atoms, by aromatic bonds, order of the others and open ring numbers: can become right with more bonds; is
# right, or becomes so when its rings are closed; with more bonds may need a double bond in the ring; when its rings are
# closed may need one
EXTENDS, RIGHT, MAY, WILL = range(6, 326, 80)
# by aromatic bonds and order of the others: needs a double bond now; with a bond that is not aromatic may need none
DOUBLE, ESCAPES = 326, 342
# not of the token but of the row: k-th token to search with, and of the k-th ring number
SEARCHED, RING_TOKEN = 358, 359
# in row 0: number of tokens to search with; a carbon atom, an aromatic one, and one with a lone pair in the ring;
# "(", ")" and "="
N_SEARCHED, CARBON, RING_CARBON, PAIR, OPENS, CLOSES, DOUBLED = range(360, 367)
COLUMNS = 367

NEVER, UNKNOWN = 10_000, 10_001
MOST_NODES = 60  # of a search for an end


# ---- which token comes next


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def run(
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
    With `most` < 0 every row of `ids` is a string, begun with the one row of the state, which stays, and `mask` (n, 1)
    receives which are molecules.
    """
    n_tokens = len(t)
    if most < 0:
        for i in range(len(ids)):
            _copy(head[0], atoms[0], rings[0], heads[0], many[0], open_rings[0])
            mask[i, 0] = _follow(heads[0], many[0], open_rings[0], t, ids[i], work)
        return -1
    for i in range(len(rows)):
        row, place, found = rows[i], 0, 0
        if most > 0 and head[row, PHASE] == DONE:
            if most > 1:
                mask[i, 0] = True
            continue
        for k in range(n_tokens):
            refused[k] = k < 2
        number = numbers[i] if len(numbers) else 0.0
        while True:
            token = -1
            if most == 0:
                if place == ids.shape[1] or head[row, PHASE] == DONE:
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
                free = t[token, KIND] == RING and rings[row, t[token, VALUE], 0] < 0
                for k in range(n_tokens):
                    alike = t[k, GROUP] == t[token, GROUP]
                    if free:
                        # one free ring number is as good as another
                        alike = t[k, KIND] == RING and rings[row, t[k, VALUE], 0] < 0
                    refused[k] = refused[k] or alike
    return -1


@_jit
def _follow(head: Ints, atoms: Ints, rings: Ints, t: Ints, ids: Ints, work: Ints) -> bool:
    for place in range(len(ids)):
        if not _grammatical(head, t, ids[place]):
            return False
        _advance(head, atoms, rings, t, ids[place], work)
        if head[WRONG]:
            return False
        if head[PHASE] == DONE:
            return True
    return False


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
    n = max(head[COUNT], head[DEPTH]) + 1
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
    first_free = p >= 0 and t[p, KIND] == RING and rings[0, t[p, VALUE], 0] < 0
    opened = heads[0, OPEN]
    _advance(heads[0], atoms[0], rings[0], t, token, work)
    if heads[0, WRONG]:
        return False
    _forget(new, 0)
    if t[token, KIND] == END:
        return True
    if p >= 0 and (
        t[p, GROUP] == t[token, GROUP] or (first_free and t[token, KIND] == RING and heads[0, OPEN] > opened)
    ):
        # what was to come, or a token as good; then the numbers of two rings change places
        for k in range(1, len(old)):
            new[k - 1] = token if old[k] == p and first_free else p if old[k] == token and first_free else old[k]
        return most >= len(new) or new[most] < 0
    for way in range(6 if p >= 0 else 0):
        n = _adapt(heads[0], atoms[0], rings[0], t, old, token, way, new)
        if 0 < n <= most:
            # what an earlier way left behind these is no part of the plan
            _forget(new, n)
            if _completes(heads, atoms, rings, t, new, work):
                return True
    needed = _tokens_needed(heads[0], atoms[0], rings[0], t, work)
    if needed >= NEVER:
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
        if heads[1, WRONG]:
            return False
        if t[plan[k], KIND] == END:
            _forget(plan, k + 1)
            return True
    return False


@_jit
def _adapt(head: Ints, atoms: Ints, rings: Ints, t: Ints, old: Ints, token: int, way: int, new: Ints) -> int:
    """Tokens that may complete the molecule after a token, from those that did so before it; their number."""
    kind, n, start, left_out, lead, none = t[token, KIND], 0, 0, -1, 0, -1
    carbon, aromatic, pair, opens, closes = t[0, CARBON], t[0, RING_CARBON], t[0, PAIR], t[0, OPENS], t[0, CLOSES]
    atom_first = old[0] >= 0 and t[old[0], KIND] == ATOM
    prefix = (none, none, none, none, none, none, none)
    x = head[CURRENT]
    if kind == ATOM:
        rich = t[token, AROMATIC_ATOM]
        missing = t[token, NEIGHBOURS] - atoms[x, DEGREE]
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
        elif way == 2 and rich and atoms[x, PI] == 0:
            # a ring of its own
            ring = none
            for k in range(len(rings)):
                if ring < 0 and rings[k, 0] < 0:
                    ring = t[k, RING_TOKEN]
            if ring >= 0:
                second = pair if t[token, DOUBLE + 8 + atoms[x, SIGMA]] else aromatic
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
    elif kind == BOND:
        if way == 0:
            start = int(old[0] >= 0 and t[old[0], KIND] == BOND)
        elif way == 1:
            prefix = (carbon, none, none, none, none, none, none)
        elif way == 2:
            prefix, start = (carbon, none, none, none, none, none, none), 1
        elif way == 3:
            prefix = (aromatic, none, none, none, none, none, none)
        elif way == 4:
            # a branch would be too much
            new[0], n = carbon, 1
            while old[start] >= 0 and t[old[start], KIND] == RING:
                new[n] = old[start]
                n, start = n + 1, start + 1
            if old[start] != opens:
                return 0
            while old[start] >= 0 and old[start] != closes:
                start += 1
            start += 1
        else:
            return 0
    elif kind == BRANCH:
        if way == 0:
            prefix = (carbon, closes, none, none, none, none, none)
        elif way == 1 and t[0, DOUBLED] >= 0:
            prefix = (t[0, DOUBLED], carbon, closes, none, none, none, none)
        elif way == 2:
            prefix = (carbon, closes, carbon, none, none, none, none)
        else:
            return 0
    elif kind == CLOSE:
        depth = 0
        while start < len(old) and old[start] >= 0 and depth >= 0:
            what = t[old[start], KIND]
            depth += int(what == BRANCH) - int(what == CLOSE)
            start += 1
        if way > 0:
            return 0
    elif kind == DOT:
        prefix = (carbon, none, none, none, none, none, none)
        if way > 0:
            return 0
    elif rings[t[token, VALUE], 0] >= 0:
        if way == 1 and carbon >= 0:
            prefix = (carbon, carbon, token, none, none, none, none)
        elif way == 2 and atom_first:
            prefix, start = (old[0], opens, carbon, carbon, token, closes, none), 1
        elif way == 3 and atom_first:
            prefix, start = (aromatic, aromatic, aromatic, aromatic, aromatic, token, none), 1
        elif way == 4 or way == 5:
            # after other ring numbers, in place of a branch
            while lead < len(old) and old[lead] >= 0 and t[old[lead], KIND] == RING:
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
    n_fixed, n_rings = t[0, N_SEARCHED], len(rings[0])
    # the last column: tokens needed before
    last, at, nodes = n_fixed + n_rings, 0, 0
    for k in range(last):
        costs[0, k] = UNKNOWN
    costs[0, last] = _tokens_needed(heads[0], atoms[0], rings[0], t, work)
    while at >= 0:
        if at >= most or at + 1 + heads[at, DEPTH] + heads[at, OPEN] > most:
            at -= 1
            continue
        best, free = -1, False
        for j in range(last):
            # ring numbers first
            k = j + n_fixed if j < n_rings else j - n_rings
            if costs[at, k] == UNKNOWN:
                token = t[k, SEARCHED] if k < n_fixed else t[k - n_fixed, RING_TOKEN]
                costs[at, k] = NEVER
                opens = k >= n_fixed and rings[at, k - n_fixed, 0] < 0
                if token >= 0 and not (opens and free) and _grammatical(heads[at], t, token):
                    _copy(heads[at], atoms[at], rings[at], heads[at + 1], atoms[at + 1], rings[at + 1])
                    _advance(heads[at + 1], atoms[at + 1], rings[at + 1], t, token, work)
                    needed = _tokens_needed(heads[at + 1], atoms[at + 1], rings[at + 1], t, work)
                    if at + 1 + needed <= most:
                        costs[at, k] = needed
                free = free or opens
            if costs[at, k] < NEVER and (best < 0 or costs[at, k] < costs[at, best]):
                best = k
                if costs[at, k] < costs[at, last]:
                    # nearer to the end: no need to look at the others now
                    break
        if best < 0:
            at -= 1
            continue
        token = t[best, SEARCHED] if best < n_fixed else t[best - n_fixed, RING_TOKEN]
        needed = costs[at, best]
        costs[at, best] = NEVER
        plan[at] = token
        if t[token, KIND] == END:
            _forget(plan, at + 1)
            return True
        nodes += 1
        if nodes > MOST_NODES:
            return False
        _copy(heads[at], atoms[at], rings[at], heads[at + 1], atoms[at + 1], rings[at + 1])
        _advance(heads[at + 1], atoms[at + 1], rings[at + 1], t, token, work)
        at += 1
        for k in range(last):
            costs[at, k] = UNKNOWN
        costs[at, last] = needed
    return False


# ---- one token more


@_jit
def _grammatical(head: Ints, t: Ints, token: int) -> bool:
    """Whether a token may stand here whatever the atoms are."""
    kind, phase, pending = t[token, KIND], head[PHASE], head[PENDING] != 0
    if kind == ATOM:
        return True
    if kind == BOND:
        return phase != START and not pending
    if kind == RING:
        return phase == AFTER_ATOM
    if phase not in (AFTER_ATOM, AFTER_CLOSE) or pending:
        return False
    if kind == BRANCH:
        return True
    if kind == CLOSE:
        return head[DEPTH] > 0
    return kind in (DOT, END) and head[DEPTH] == 0 and head[OPEN] == 0


@_jit
def _advance(head: Ints, atoms: Ints, rings: Ints, t: Ints, token: int, work: Ints) -> None:
    kind, x, other = t[token, KIND], head[CURRENT], -1
    if kind == ATOM:
        _add_atom(head, atoms, t, token)
    elif kind == BOND:
        head[PENDING] = t[token, VALUE]
        return
    elif kind == BRANCH:
        atoms[head[DEPTH], STACK] = x
        head[DEPTH] += 1
        head[PHASE] = AFTER_BRANCH
        return
    elif kind == RING:
        ring = t[token, VALUE]
        if rings[ring, 0] < 0:
            _open_ring(head, atoms, rings, t, ring)
        else:
            other = rings[ring, 0]
            _close_ring(head, atoms, rings, t, ring)
        head[PENDING] = 0
    elif kind in (CLOSE, DOT, END):
        _leave(head, atoms, rings, t, kind)
    else:
        head[WRONG] = 1
    for k in range(2):
        v = x if k else other
        if v >= 0 and not head[WRONG]:
            _settle(head, atoms, t, v, work)


@_jit
def _leave(head: Ints, atoms: Ints, rings: Ints, t: Ints, kind: int) -> None:
    """End a branch, a molecule of several, or the string; what began there must have ended."""
    x, bottom = head[CURRENT], -1
    _finish(head, atoms, t, x)
    if kind == CLOSE and head[DEPTH] > 0:
        head[DEPTH] -= 1
        bottom = atoms[head[DEPTH], STACK]
        head[PHASE] = AFTER_CLOSE
    else:
        head[PHASE] = START if kind == DOT else DONE
        if head[DEPTH] > 0:
            head[WRONG] = 1
    head[CURRENT] = bottom
    while x > bottom:
        if atoms[x, BRIDGE]:
            head[WRONG] = 1
        x = atoms[x, PARENT]
    for ring in range(len(rings)):
        if rings[ring, 0] > bottom:
            head[WRONG] = 1


@_jit
def _add_atom(head: Ints, atoms: Ints, t: Ints, token: int) -> None:
    x, v = head[CURRENT], head[COUNT]
    if v >= len(atoms):
        head[WRONG] = 1
        return
    head[COUNT] = v + 1
    for k in range(STACK):
        atoms[v, k] = 0
    atoms[v, TYPE], atoms[v, PARENT], atoms[v, MATE] = token, x, -1
    head[CURRENT] = v
    if x >= 0:
        bond = head[PENDING]
        atoms[v, BRIDGE] = _bind(head, atoms, t, x, v, bond)
        atoms[x, DEGREE] += 1
        atoms[v, DEGREE] += 1
        if head[PHASE] != AFTER_BRANCH:
            _finish(head, atoms, t, x)
    head[PHASE], head[PENDING], head[N_PARTNERS] = AFTER_ATOM, 0, 0


@_jit
def _bind(head: Ints, atoms: Ints, t: Ints, x: int, v: int, bond: int) -> bool:
    """Make a bond; tell whether it is aromatic."""
    both = t[atoms[x, TYPE], AROMATIC_ATOM] and t[atoms[v, TYPE], AROMATIC_ATOM]
    if both and bond in (UNMARKED, AROMATIC, DIRECTED):
        if atoms[x, PI] >= 3 or atoms[v, PI] >= 3:
            head[WRONG] = 1
            return False
        atoms[x, NEAR + atoms[x, PI]] = v
        atoms[v, NEAR + atoms[v, PI]] = x
        atoms[x, PI] += 1
        atoms[v, PI] += 1
        return True
    if bond == AROMATIC:
        head[WRONG] = 1
    order = bond if 1 <= bond <= 3 else 1
    _add_sigma(head, atoms, t, x, order)
    _add_sigma(head, atoms, t, v, order)
    return False


@_jit
def _add_sigma(head: Ints, atoms: Ints, t: Ints, v: int, order: int) -> None:
    if t[atoms[v, TYPE], AROMATIC_ATOM] and atoms[v, SIGMA] > 0:
        head[WRONG] = 1
    atoms[v, SIGMA] += order


@_jit
def _open_ring(head: Ints, atoms: Ints, rings: Ints, t: Ints, ring: int) -> None:
    x, bond = head[CURRENT], head[PENDING]
    rings[ring, 0], rings[ring, 1] = x, bond if bond != DIRECTED else UNMARKED
    head[OPEN] += 1
    atoms[x, DEGREE] += 1
    if bond in (UNMARKED, AROMATIC, DIRECTED):
        atoms[x, WAITING] += 1
    else:
        _add_sigma(head, atoms, t, x, bond)
    if bond == AROMATIC and not t[atoms[x, TYPE], AROMATIC_ATOM]:
        head[WRONG] = 1


@_jit
def _close_ring(head: Ints, atoms: Ints, rings: Ints, t: Ints, ring: int) -> None:
    x = head[CURRENT]
    here = head[PENDING] if head[PENDING] != DIRECTED else UNMARKED
    a, there = rings[ring, 0], rings[ring, 1]
    rings[ring, 0] = -1
    head[OPEN] -= 1
    if a == x or a == atoms[x, PARENT] or head[N_PARTNERS] == MOST_PARTNERS or (here and there and here != there):
        head[WRONG] = 1
        return
    for k in range(head[N_PARTNERS]):
        if head[PARTNER + k] == a:
            head[WRONG] = 1
    head[PARTNER + head[N_PARTNERS]] = a
    head[N_PARTNERS] += 1
    atoms[x, DEGREE] += 1
    if there in (UNMARKED, AROMATIC):
        atoms[a, WAITING] -= 1
    else:
        atoms[a, SIGMA] -= there
    _bind(head, atoms, t, a, x, max(here, there))
    y = x
    while y > a:
        atoms[y, BRIDGE] = 0
        y = atoms[y, PARENT]
    if atoms[a, FINAL] and not _is_right(atoms, t, a):
        head[WRONG] = 1


@_jit
def _finish(head: Ints, atoms: Ints, t: Ints, v: int) -> None:
    """No bond will be added to an atom, but at its ring numbers."""
    atoms[v, FINAL] = 1
    if not _is_right(atoms, t, v):
        head[WRONG] = 1


@_jit
def _is_right(atoms: Ints, t: Ints, v: int) -> bool:
    kind, sigma, waiting = atoms[v, TYPE], atoms[v, SIGMA], atoms[v, WAITING]
    if t[kind, AROMATIC_ATOM]:
        return sigma < 4 and waiting < 5 and t[kind, RIGHT + 20 * atoms[v, PI] + 5 * sigma + waiting]
    return sigma + waiting <= t[kind, MOST] and atoms[v, DEGREE] >= t[kind, NEIGHBOURS]


@_jit
def _extends(atoms: Ints, t: Ints, v: int, pi: int, sigma: int) -> bool:
    """Whether an atom can have so many more aromatic bonds, and others of that order."""
    kind, waiting = atoms[v, TYPE], atoms[v, WAITING]
    if t[kind, AROMATIC_ATOM]:
        if sigma > 0 and atoms[v, SIGMA] > 0:
            return False
        pi, sigma = atoms[v, PI] + pi, atoms[v, SIGMA] + sigma
        return pi < 4 and sigma < 4 and waiting < 5 and t[kind, EXTENDS + 20 * pi + 5 * sigma + waiting]
    left = t[kind, MOST] - atoms[v, SIGMA] - waiting - sigma
    missing = t[kind, NEIGHBOURS] - atoms[v, DEGREE] - (sigma > 0)
    return pi == 0 and left >= max(missing, 0)


# ---- Kekulé structures


@_jit
def _settle(head: Ints, atoms: Ints, t: Ints, v: int, work: Ints) -> None:
    """Repair the matching after an atom has changed."""
    if not t[atoms[v, TYPE], AROMATIC_ATOM]:
        return
    mate = atoms[v, MATE]
    if mate >= 0 and not _may_match(atoms, t, v):
        atoms[v, MATE] = atoms[mate, MATE] = -1
        v = mate
    if atoms[v, MATE] < 0 and _must_match(atoms, t, v) and not _augment(atoms, t, head[COUNT], v, work):
        head[WRONG] = 1


@_jit
def _may_match(atoms: Ints, t: Ints, v: int) -> bool:
    kind, pi, sigma = atoms[v, TYPE], atoms[v, PI], atoms[v, SIGMA]
    waiting = atoms[v, WAITING]
    if pi > 3 or sigma > 3 or waiting > 4:
        return False
    if atoms[v, FINAL]:
        return t[kind, WILL + 20 * pi + 5 * sigma + waiting]
    return t[kind, MAY + 20 * pi + 5 * sigma + waiting]


@_jit
def _must_match(atoms: Ints, t: Ints, v: int) -> bool:
    kind, pi, sigma = atoms[v, TYPE], atoms[v, PI], atoms[v, SIGMA]
    if atoms[v, WAITING] > 0 or pi > 3 or sigma > 3:
        return False
    if atoms[v, FINAL]:
        return t[kind, DOUBLE + 4 * pi + sigma]
    return t[kind, DOUBLE + 4 * pi + sigma] and not t[kind, ESCAPES + 4 * pi + sigma]


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
            end = atoms[v, MATE]
            atoms[v, MATE] = -1
            _flip(atoms, before, end)
            return True
        for k in range(atoms[v, PI]):
            to = atoms[v, NEAR + k]
            if base[v] == base[to] or atoms[v, MATE] == to or not _may_match(atoms, t, to):
                continue
            if to == root or (atoms[to, MATE] >= 0 and before[atoms[to, MATE]] >= 0):
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
                mate = atoms[to, MATE]
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
        following = atoms[v, MATE]
        atoms[end, MATE], atoms[v, MATE] = v, end
        end = following


@_jit
def _common_base(atoms: Ints, before: Ints, base: Ints, marked: Ints, n: int, v: int, w: int) -> int:
    for i in range(n):
        marked[i] = 0
    while True:
        v = base[v]
        marked[v] = 1
        if atoms[v, MATE] < 0:
            break
        v = before[atoms[v, MATE]]
    while True:
        w = base[w]
        if marked[w]:
            return w
        w = before[atoms[w, MATE]]


@_jit
def _mark(atoms: Ints, before: Ints, base: Ints, marked: Ints, v: int, common: int, child: int) -> None:
    while base[v] != common:
        marked[base[v]] = marked[base[atoms[v, MATE]]] = 1
        before[v] = child
        child = atoms[v, MATE]
        v = before[child]


# ---- whether a molecule can be completed


@_jit
def _tokens_needed(head: Ints, atoms: Ints, rings: Ints, t: Ints, work: Ints) -> int:
    """Tokens that complete the molecule, estimated from above; `NEVER` if it cannot be."""
    if head[WRONG]:
        return NEVER
    phase = head[PHASE]
    if phase == DONE:
        return 0
    if phase == START:
        return 2
    x, depth, pending = head[CURRENT], head[DEPTH], head[PENDING]
    expected = pending != 0 or phase == AFTER_BRANCH
    needed = 1 + depth + expected
    duties = -1
    if expected:
        # a bond that is not aromatic, one that is, and if a ring number must follow
        for way in range(3):
            if duties >= 0 or (way == 2 and phase != AFTER_ATOM):
                break
            marked = 1 <= pending <= 3
            if (way == 0 and pending == AROMATIC) or (way == 1 and marked):
                continue
            pi = int(way == 1 or (way == 2 and not marked))
            sigma = 0 if pi else (pending if marked else 1)
            if _takes(head, atoms, t, x, pi, sigma, phase != AFTER_BRANCH and way < 2, work):
                duties = _duties(head, atoms, rings, t, way if way < 2 else -1, work)
                needed += 2 * (way == 2)
    else:
        duties = _duties(head, atoms, rings, t, -1, work)
        if not _extends(atoms, t, x, 0, 0):
            return NEVER
    if duties < 0:
        return NEVER
    # every open ring needs an atom that can go on, no higher than the branch in which it was opened
    level, end = depth, x
    while not (expected or head[OPEN] == 0 or _has_room(head, atoms, t, end, work)):
        bottom = atoms[level - 1, STACK] if level else -1
        for ring in range(len(rings)):
            if rings[ring, 0] > bottom:
                return NEVER
        if level == 0:
            break
        level, end = level - 1, bottom
    needed += 4 * duties + _repairs(head, atoms, t)
    if head[OPEN]:
        needed += 4 * head[OPEN] - 3 + _steps_to_close(head, atoms, rings, t, level == depth)
    return needed


@_jit
def _takes(head: Ints, atoms: Ints, t: Ints, v: int, pi: int, sigma: int, last: bool, work: Ints) -> bool:
    """Whether an atom can have one more bond to a new atom, be it its last one."""
    if not _extends(atoms, t, v, pi, sigma):
        return False
    n, mates = head[COUNT], work[5]
    old_pi, old_sigma, degree, final = atoms[v, PI], atoms[v, SIGMA], atoms[v, DEGREE], atoms[v, FINAL]
    if pi:
        # the new atom is yet to come; an atom is no neighbour of itself
        atoms[v, NEAR + old_pi] = v
    for i in range(n):
        mates[i] = atoms[i, MATE]
    atoms[v, PI] += pi
    atoms[v, SIGMA] += sigma
    atoms[v, DEGREE] += 1
    if last:
        atoms[v, FINAL] = 1
    right = not last or _is_right(atoms, t, v)
    if right and not (pi and _may_match(atoms, t, v)):
        _settle(head, atoms, t, v, work)
        right = head[WRONG] == 0
        head[WRONG] = 0
    atoms[v, PI], atoms[v, SIGMA], atoms[v, DEGREE], atoms[v, FINAL] = old_pi, old_sigma, degree, final
    for i in range(n):
        atoms[i, MATE] = mates[i]
    return right


@_jit
def _has_room(head: Ints, atoms: Ints, t: Ints, v: int, work: Ints) -> bool:
    """Whether the string can go on from an atom, as its last bond."""
    if not t[atoms[v, TYPE], AROMATIC_ATOM]:
        return _extends(atoms, t, v, 0, 1)
    for pi, sigma in ((0, 1), (0, 2), (1, 0)):
        if _takes(head, atoms, t, v, pi, sigma, atoms[v, PI] > 1, work):
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
    n, x, depth = 0, head[CURRENT], head[DEPTH]
    end = x
    if ahead == 1:
        places[0] = x
        n = 1
    if ahead >= 0 and head[PHASE] == AFTER_BRANCH:
        depth -= 1
    while True:
        bottom = atoms[depth - 1, STACK] if depth else -1
        place = NEVER
        y = end
        while y > bottom:
            if atoms[y, BRIDGE]:
                place = atoms[y, PARENT]
            y = atoms[y, PARENT]
        bonds = atoms[end, PI] + atoms[end, WAITING]
        lacks = t[atoms[end, TYPE], AROMATIC_ATOM] and bonds < 2
        if end == x:
            if ahead >= 0 and head[PHASE] != AFTER_BRANCH:
                # it was found to be right with that bond
                lacks = False
            elif ahead == 1:
                lacks = lacks and bonds < 1
            elif bonds == 0 and head[PHASE] == AFTER_ATOM:
                # ring numbers may follow
                lacks = False
        if lacks:
            places[n] = min(place, end)
            n += 1
        elif place < NEVER:
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
    for level in range(head[DEPTH] + 1):
        v = head[CURRENT] if level == head[DEPTH] else atoms[level, STACK]
        kind, pi, sigma = atoms[v, TYPE], atoms[v, PI], atoms[v, SIGMA]
        if t[kind, AROMATIC_ATOM]:
            if (
                atoms[v, WAITING] == 0
                and atoms[v, MATE] < 0
                and pi < 4
                and sigma < 4
                and t[kind, DOUBLE + 4 * pi + sigma]
            ):
                tokens += 2
        else:
            missing = t[kind, NEIGHBOURS] - atoms[v, DEGREE]
            if missing > 0:
                tokens += 3 * missing - 2
    return tokens


@_jit
def _steps_to_close(head: Ints, atoms: Ints, rings: Ints, t: Ints, goes_on: bool) -> int:
    """Atoms to add before a ring can be closed."""
    x = head[CURRENT]
    if not goes_on:
        return 2
    fresh = head[PENDING] != 0 or head[PHASE] != AFTER_ATOM
    steps = 2
    for ring in range(len(rings)):
        a = rings[ring, 0]
        if a < 0:
            continue
        if a != x:
            steps = min(steps, 1)
        if fresh or a == x or a == atoms[x, PARENT]:
            continue
        known = False
        for k in range(head[N_PARTNERS]):
            known = known or head[PARTNER + k] == a
        if not known and (_extends(atoms, t, x, 0, max(rings[ring, 1], 1)) or _extends(atoms, t, x, 1, 0)):
            steps = 0
    if fresh and steps == 1:
        # the atom that must come can close one
        steps = 0 if (head[PENDING] != 0 or head[PHASE] == AFTER_BRANCH) else 1
    return steps
