"""Contests of two: how many comparisons they take, and what they find, sure judge or not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import permutations

import pytest

from grainline.curation._ranking import Standing, Table, Way, contest, play

WAYS: tuple[Way, ...] = ("iterative", "knockout", "insertion", "robin")


def held(way: Way, order: list[int], judge: Callable[[int, int], float], draw: bool = False) -> tuple[Standing, Table]:
    """One contest; answer i is the better the larger i, if the judge says so."""
    table = Table(order)
    luck = random.Random(0).choice if draw else None
    (found,) = play([contest(table, way, luck)], lambda duels: [judge(i, j) for _, i, j in duels])
    return found, table


def sure(i: int, j: int) -> float:
    return float(i > j)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_sure_judge_is_believed_in_every_order(way: Way, n: int) -> None:
    for order in permutations(range(n)):
        found, table = held(way, list(order), sure)
        assert (found[n - 1], found[0]) == (1.0, 0.0)
        if way in ("insertion", "robin"):
            assert found == pytest.approx([i / (n - 1) for i in range(n)], abs=1e-12)
        else:
            assert sum(score is not None for score in found) == 2
        assert table.met <= n * (n - 1) // 2


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_the_number_of_comparisons(n: int) -> None:
    """n - 1 for the best; for both ends no more than 2 n - 3, and 3 n / 2 - 2 by a knockout, the fewest there can be
    (Pohl 1972, for even n); a full order by halving no more than the sum of ceil(log2(k))."""
    rng = random.Random(n)
    for _ in range(20):
        order = rng.sample(range(n), n)
        assert held("iterative", order, sure, draw=True)[1].met == n - 1
        assert held("knockout", order, sure, draw=True)[1].met == n - 1
        assert n - 1 <= held("iterative", order, sure)[1].met <= max(1, 2 * n - 3)
        assert held("knockout", order, sure)[1].met == 3 * n // 2 - 2
        assert held("insertion", order, sure)[1].met <= sum(math.ceil(math.log2(k)) for k in range(2, n + 1))
        assert held("robin", order, sure)[1].met == n * (n - 1) // 2


def test_a_loser_has_lost() -> None:
    for order in permutations(range(4)):
        found, table = held("iterative", list(order), sure, draw=True)
        assert found[3] == 1.0
        (loser,) = [i for i, score in enumerate(found) if score == 0.0]
        assert any(p == 0 for (i, _), p in table.known.items() if i == loser)


@pytest.mark.parametrize("way", WAYS)
def test_ties_all_over_place_nobody(way: Way) -> None:
    assert held(way, [2, 0, 1], lambda i, j: 0.5)[0] == [None] * 3


def test_a_tie_leaves_who_was_there() -> None:
    """0 and 1 are alike, 2 is worse than both: the best is the one that came up first."""
    for order in ([0, 1, 2], [1, 0, 2]):
        found, _ = held("iterative", order, lambda i, j: 0.5 if {i, j} == {0, 1} else float(j == 2))
        assert (found[order[0]], found[2]) == (1.0, 0.0)


def test_best_and_worst_that_no_victory_connects_meet() -> None:
    """Only 1 beats 2; 0 came first and ties with everybody, so it and the worst are no pair."""
    found, table = held("iterative", [0, 1, 2], lambda i, j: {(1, 2): 1.0, (2, 1): 0.0}.get((i, j), 0.5))
    assert found == [None] * 3
    assert table.met == 3


def test_the_robin_counts_points_of_a_judge_who_goes_in_circles() -> None:
    beats = {(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)}
    found, _ = held("robin", [0, 1, 2, 3], lambda i, j: float((i, j) in beats))
    assert found == [2 / 3, 2 / 3, 2 / 3, 0]


def test_contests_side_by_side_are_those_alone() -> None:
    rng = random.Random(5)
    strength = [[rng.random() for _ in range(n)] for n in (2, 7, 4, 3)]
    rounds: list[int] = []

    def judge(duels: list[tuple[int, int, int]]) -> list[float]:
        rounds.append(len(duels))
        return [float(strength[n][i] > strength[n][j]) for n, i, j in duels]

    def all_of(numbers: list[int], way: Way) -> list[Standing]:
        places = dict(enumerate(numbers))
        contests = [contest(Table(list(range(len(strength[n])))), way) for n in numbers]
        return play(contests, lambda duels: judge([(places[k], i, j) for k, i, j in duels]))

    for way in WAYS:
        assert all_of([0, 1, 2, 3], way) == [all_of([n], way)[0] for n in range(4)]
    assert max(rounds) >= 1 + 21 + 6 + 3  # a robin is one round


def test_a_knockout_stands_an_unsure_judge_better() -> None:
    """A judge who is right 8 times in 10, 16 answers: the best survives 4 duels of a knockout with 0.8^4 = 0.41, and as
    the newcomer at place k of an iterative pass with 0.8^(16 - k), on average about 0.8 (1 - 0.8^16) / (16 * 0.2)."""
    rng, n, right, tries = random.Random(1), 16, 0.8, 1500
    hits = dict.fromkeys(WAYS, 0)
    for _ in range(tries):
        order = rng.sample(range(n), n)
        for way in ("iterative", "knockout"):
            found, _ = held(way, order, lambda i, j: float((i > j) == (rng.random() < right)), draw=True)
            hits[way] += found[n - 1] == 1.0
    # at place 1 it plays n - 1 duels, at place k > 1 it plays n - k + 1
    expected = (right ** (n - 1) + sum(right ** (n - k + 1) for k in range(2, n + 1))) / n
    deviation = 4 * math.sqrt(0.25 / tries)
    assert abs(hits["iterative"] / tries - expected) < deviation
    assert abs(hits["knockout"] / tries - right**4) < deviation
