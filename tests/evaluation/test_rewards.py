"""Measures of a reward: against scikit-learn, by hand, and that intervals are of prompts."""

from __future__ import annotations

import math
import random

import pytest

from grainline.evaluation.rewards import Duel, Piece, calibration_error, measured, reliability


def pieces(number: int, prompts: int, *, signal: float, levels: int = 2, seed: int = 0) -> list[Piece]:
    rng = random.Random(seed)
    found = []
    for n in range(number):
        right = rng.randrange(levels) / (levels - 1)
        said = min(1.0, max(0.0, 0.5 + signal * (right - 0.5) + rng.gauss(0, 0.2)))
        found.append(Piece(f"prompt {n % prompts}", round(said, 2), right))
    return found


def test_of_right_and_wrong_pieces_it_is_the_area_under_the_curve() -> None:
    """Ties in scores count one half, as scikit-learn's does."""
    from sklearn.metrics import roc_auc_score

    every = pieces(300, 40, signal=0.3)
    found = measured({"safety": every}, [], bounded=True)
    truth = roc_auc_score([p.right for p in every], [p.said for p in every])
    assert found["safety/auc"] == pytest.approx(truth, abs=1e-12)
    assert 0.5 < found["safety/auc_low"] < truth < found["safety/auc_high"] < 1


def test_of_graded_pieces_every_two_that_differ_are_compared() -> None:
    every = [Piece("a", 0.9, 1.0), Piece("a", 0.5, 0.5), Piece("b", 0.5, 0.0), Piece("b", 0.7, 0.5)]
    #        (1, .5) right, (1, 0) right, (1, .5) right, (.5, 0) a tie, (.5, 0) right; the two of 0.5 are not compared
    assert measured({"": every}, [], bounded=False)["overall/auc"] == pytest.approx(4.5 / 5)


def test_an_interval_is_one_of_prompts() -> None:
    """Each piece five times over adds no certainty where the copies share their prompt, and does where they do not."""
    once = pieces(60, 60, signal=0.3)
    same = [piece for piece in once for _ in range(5)]
    apart = [Piece(f"{piece.prompt} {k}", *piece[1:]) for piece in once for k in range(5)]
    width = [
        found["x/auc_high"] - found["x/auc_low"]
        for found in (measured({"x": every}, [], bounded=True) for every in (once, same, apart))
    ]
    assert width[1] == pytest.approx(width[0], rel=0.1)
    assert width[2] == pytest.approx(width[0] / math.sqrt(5), rel=0.25)


def test_accuracy_stands_beside_that_of_the_commoner_answer() -> None:
    every = [Piece("a", 0.9, 1.0), Piece("b", 0.8, 1.0), Piece("c", 0.2, 1.0), Piece("d", 0.7, 0.0)]
    found = measured({"x": every}, [], bounded=True)
    assert (found["x/accuracies"], found["x/commoner"], found["x/right"], found["x/pieces"]) == (0.5, 0.75, 0.75, 4)


def test_calibration_by_hand() -> None:
    every = [Piece("a", 0.05, 0.0), Piece("b", 0.95, 1.0), Piece("c", 0.91, 0.0), Piece("d", 1.0, 1.0)]
    rows = reliability(every)
    assert [(row["from"], row["pieces"]) for row in rows] == [(0.0, 1), (0.9, 3)]
    assert (rows[1]["said"], rows[1]["right"]) == (pytest.approx(2.86 / 3), pytest.approx(2 / 3))
    assert calibration_error(every) == pytest.approx(1 / 4 * 0.05 + 3 / 4 * (2.86 / 3 - 2 / 3))


def test_what_a_reward_cannot_say_is_left_out_and_without_bounds_there_is_no_side() -> None:
    every = [Piece("a", math.nan, 1.0), Piece("a", 3.0, 1.0), Piece("b", -2.0, 0.0)]
    found = measured({"x": every, "y": [Piece("a", math.nan, 1.0)]}, [], bounded=False)
    assert set(found) == {"x/auc", "x/auc_low", "x/auc_high", "x/right", "x/pieces"}
    assert (found["x/auc"], found["x/pieces"]) == (1, 2)
    assert "x/auc" not in measured({"x": [Piece("a", 0.3, 1.0), Piece("b", 0.5, 1.0)]}, [], bounded=True)


def test_pairs() -> None:
    fought = [Duel("a", 0.9), Duel("b", 0.2), Duel("c", 0.5), Duel("c", 0.51)]
    found = measured({}, [*fought, Duel("d", float("nan"))], bounded=False)  # nothing was said of the last
    assert found["pairs/accuracies"] == 2.5 / 4
    assert found["pairs/accuracies_low"] < 2.5 / 4 < found["pairs/accuracies_high"]
