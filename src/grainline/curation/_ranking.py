"""The best and the worst of several answers by comparisons of two, and as few of them as will do.

A contest is a generator: it yields a round of duels (i, j), is sent how likely each i is the better one, and returns a
score from 0 to 1 for every answer it has placed (None for the others). Contests of many prompts are played side by side
(:func:`play`), so that a judge gets their duels together. Letters: ``n`` answers of a prompt.

=============  ==========================  ============================================================================
way            comparisons for the best    how
=============  ==========================  ============================================================================
``iterative``  n - 1                       the best so far meets one answer after the other
``knockout``   n - 1                       winners meet winners: the best has about log2(n) duels to survive, not n
``insertion``  about n log2(n), all        each answer is put into its place among those before it, by halving
``robin``      n (n - 1) / 2, all          everybody meets everybody; a win counts 1, a tie 1/2
=============  ==========================  ============================================================================

The worst is looked for the same way among those that have won nothing. No two answers meet twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import combinations
from typing import Literal

Way = Literal["iterative", "knockout", "insertion", "robin"]
Duels = Sequence[tuple[int, int]]
Contest = Generator[Duels, Sequence[float], "Standing"]
Standing = list[float | None]
"""Score of each answer, 1 the best, 0 the worst; None = not placed. All None: none is better than another."""


class Table:
    """Who has met whom; ``order`` is the order in which the answers come up."""

    def __init__(self, order: Sequence[int]) -> None:
        self.order = list(order)
        self.known: dict[tuple[int, int], float] = {}

    @property
    def met(self) -> int:
        """Comparisons so far."""
        return len(self.known) // 2

    @property
    def ties(self) -> int:
        return sum(p == 0.5 for p in self.known.values()) // 2

    def ask(self, duels: Iterable[tuple[int, int]]) -> Generator[Duels, Sequence[float], list[float]]:
        """How likely the first of each is the better one; those that have met are not asked again."""
        duels = list(duels)
        if new := [duel for duel in dict.fromkeys(duels) if duel not in self.known]:
            heard = yield new
            for (i, j), p in zip(new, heard, strict=True):
                self.known[i, j], self.known[j, i] = p, 1 - p
        return [self.known[duel] for duel in duels]

    def beaten(self, i: int) -> list[int]:
        """Whom ``i`` has won against."""
        return [b for (a, b), p in self.known.items() if a == i and p > 0.5]

    def above(self, i: int, j: int) -> bool:
        """Whether a chain of victories leads from ``i`` to ``j``."""
        seen, new = {i}, [i]
        while new:
            new = [b for a in new for b in self.beaten(a) if b not in seen]
            seen |= set(new)
        return j in seen and j != i


def ends(table: Table, way: Way, draw: Callable[[Sequence[int]], int] | None = None) -> Contest:
    """The best, and the worst; with ``draw`` instead of the worst one of those that have lost.

    A tie leaves whoever was there first. If ties break every chain of victories from the best to the other, the two
    meet; if that is a tie, too, nobody is placed.
    """
    best = yield from _extreme(table, way, table.order, 1)
    if draw is None:
        low = [i for i in table.order if i != best and not table.beaten(i)] or [i for i in table.order if i != best]
        other = yield from _extreme(table, way, low, -1)
    else:
        lost = [j for j in table.order if j != best and any(j in table.beaten(i) for i in table.order)]
        other = draw(lost) if lost else table.order[-1 if table.order[-1] != best else 0]
    found: Standing = [None] * len(table.order)
    if not table.above(best, other):
        (p,) = yield from table.ask([(best, other)])
        if p <= 0.5:
            return found
    found[best], found[other] = 1.0, 0.0
    return found


def insertion(table: Table) -> Contest:
    """All in order; an answer that ties with another comes behind it."""
    ranked: list[int] = []
    for new in table.order:
        low, high = 0, len(ranked)
        while low < high:
            middle = (low + high) // 2
            (p,) = yield from table.ask([(ranked[middle], new)])
            low, high = (middle + 1, high) if p >= 0.5 else (low, middle)
        ranked.insert(low, new)
    if table.ties == table.met:
        return [None] * len(ranked)
    return [1 - ranked.index(i) / (len(ranked) - 1) for i in range(len(ranked))]


def robin(table: Table) -> Contest:
    """Everybody against everybody: the share of points, as a judge who may contradict himself gives them."""
    yield from table.ask(combinations(table.order, 2))
    n = len(table.order)
    points = [math.fsum(table.known[i, j] for j in range(n) if j != i) / (n - 1) for i in range(n)]
    return list(points) if max(points) > min(points) else [None] * n


def contest(table: Table, way: Way, draw: Callable[[Sequence[int]], int] | None = None) -> Contest:
    if way == "insertion":
        return insertion(table)
    return robin(table) if way == "robin" else ends(table, way, draw)


def play(contests: Sequence[Contest], judge: Callable[[list[tuple[int, int, int]]], Sequence[float]]) -> list[Standing]:
    """All contests side by side; ``judge`` is asked (contest, i, j) round by round."""
    found: list[Standing] = [[] for _ in contests]
    rounds: dict[int, Duels] = {}
    sent: dict[int, Sequence[float]] = {}
    waiting = list(range(len(contests)))
    while waiting:
        for n in waiting:
            try:
                rounds[n] = contests[n].send(sent[n]) if n in sent else next(contests[n])
            except StopIteration as end:
                found[n] = end.value
                rounds.pop(n, None)
        waiting = sorted(rounds)
        heard = iter(judge([(n, *duel) for n in waiting for duel in rounds[n]]) if waiting else ())
        sent = {n: [next(heard) for _ in rounds[n]] for n in waiting}
    return found


def _extreme(table: Table, way: Way, order: Sequence[int], sign: int) -> Generator[Duels, Sequence[float], int]:
    """The best (sign 1) or the worst (-1) of ``order``."""
    players = list(order)
    while len(players) > 1:
        met = 2 if way == "iterative" else len(players) // 2 * 2
        playing, rest = players[:met], players[met:]
        duels = list(zip(playing[::2], playing[1::2], strict=True))
        heard = yield from table.ask(duels)
        left = [i if sign * (p - 0.5) >= 0 else j for (i, j), p in zip(duels, heard, strict=True)]
        players = [*left, *rest] if way == "iterative" else [*rest, *left]  # who sat out plays first
    return players[0]
