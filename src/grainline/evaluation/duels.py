"""Who answers better? A win rate with position swap, ties and an interval, and the same at equal length.

Each duel gets the chance that the policy's answer is the better one: 1, 0, or between. A reward that compares two
answers beside each other is asked in both orders (unless it says ``swap`` and does so itself), and the two are
averaged, so that a liking for a place cancels. What is not decided counts one half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from grainline.evaluation.intervals import interval, mean_interval
from grainline.evaluation.regression import length_controlled

Duel = TypeVar("Duel")


class Order(NamedTuple):
    """What a judge says of one duel."""

    win: float  # of the first
    agreed: bool | None  # whether both orders name the same winner; None where it was not asked twice


def both_orders(
    duels: Sequence[Duel], compare: Callable[[Sequence[Duel]], Sequence[float]], turned: Callable[[Duel], Duel]
) -> Iterator[Order]:
    """Each duel judged as it is and turned round."""
    forward = compare(duels)
    backward = compare([turned(duel) for duel in duels])
    for a, b in zip(forward, backward, strict=True):
        yield Order((a + 1 - b) / 2, _side(a) == -_side(b))


def figures(lines: Sequence[Mapping[str, Any]], *, seed: int = 0) -> dict[str, float | None]:
    """Of lines with ``id``, ``group``, ``win`` (of the policy), ``longer`` (characters of the policy's answer less the
    other's) and, where both orders were asked, ``agreed``."""
    won, groups = [line["win"] for line in lines], [line["group"] for line in lines]
    apart = [line["longer"] for line in lines]

    def controlled(index: Any) -> float:
        return length_controlled([won[i] for i in index], [apart[i] for i in index]).rate

    found: dict[str, float | None] = {"generation/win_rate": sum(won) / len(won)}
    found["generation/win_rate_low"], found["generation/win_rate_high"] = mean_interval(won, groups, seed=seed)
    found["generation/win_rate_controlled"] = controlled(range(len(lines)))
    bounds = interval(controlled, groups, seed=seed, draws=300)
    found["generation/win_rate_controlled_low"], found["generation/win_rate_controlled_high"] = bounds
    found["generation/ties"] = sum(w == 0.5 for w in won) / len(won)
    agreed = [line["agreed"] for line in lines if line.get("agreed") is not None]
    if agreed:
        found["generation/agreement"] = sum(agreed) / len(agreed)
    return found


def _side(win: float) -> int:
    return (win > 0.5) - (win < 0.5)
