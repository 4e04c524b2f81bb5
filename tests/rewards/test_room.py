"""Every reward, by the room's interface alone; and the seam."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import pytest

from grainline import rooms
from grainline.rewards._seam import Asked, Duel, Scores, compare

NAMES = rooms.names("rewards")


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_states_what_it_gives_and_needs(name: str) -> None:
    spec = rooms.load("rewards", name)()
    assert set(spec.needs) <= {"model", "endpoint", "torch"}
    assert spec.between is None or spec.between[0] < spec.between[1]
    assert rooms.parse("rewards", rooms.text(spec)) == spec


class Lengths:
    """Scores an answer by its length; "?" it cannot judge."""

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        for one in asked:
            said = [math.nan if one.answer == "?" else float(stop - start) for start, stop in one.pieces]
            yield Scores(tuple((value,) for value in said))


def test_a_duel_goes_by_the_scores_where_a_reward_has_no_comparison() -> None:
    duels = [Duel("p", "long", "a"), Duel("p", "a", "long"), Duel("p", "a", "b"), Duel("p", "?", "b")]
    assert compare(Lengths(), duels) == [1.0, 0.0, 0.5, 0.5]


def test_a_duel_goes_by_the_rewards_own_comparison() -> None:
    class Own(Lengths):
        def compare(self, duels: list[Duel]) -> Iterator[float]:
            return (0.75 for _ in duels)

    assert compare(Own(), [Duel("p", "a", "b")]) == [0.75]


def test_an_answer_without_segments_is_one_piece() -> None:
    assert Asked("p", "four").pieces == ((0, 4),)
    assert Asked("p", "four", ((0, 1), (1, 4))).pieces == ((0, 1), (1, 4))
