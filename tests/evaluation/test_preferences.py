"""Held-out preferences: metrics by hand, intervals by simulation, and numbers that do not depend on the packing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from _build import adapted, adapter_off, example, judged, many, model
from grainline.data.collate import Layout, tokens
from grainline.evaluation.preferences import WINDOW, evaluate, forwards, summarise
from grainline.forward import Scorer
from grainline.objectives.dpo import DPO
from grainline.objectives.sft import SFT
from grainline.types import Batch, LogProbs


def fixed(table: dict[str, tuple[float, ...]]) -> Any:
    """A scorer that knows its answers by heart: content of an answer's first token -> log-probs of its tokens."""

    def score(batch: Batch) -> LogProbs:
        rows: list[Tensor] = []
        for row in batch.rows:
            first = int(batch.target[row[0]])
            values = torch.tensor(table[str(first)])
            rows.append(torch.cat([values, torch.zeros(len(row) - len(values))]))
        return LogProbs(torch.stack(rows), batch.rows >= 0, batch.weight)

    return score


PAIRS = [
    example("won", [3], [10, 4], [11]),  # under the policy: chosen -1 -1, rejected -3
    example("lost", [3, 4], [12], [13, 4]),  # chosen -4, rejected -1 -1
    example("tied", [3, 4, 5], [14], [15]),  # no change at all
]
POLICY = {"10": (-1.0, -1.0), "11": (-3.0,), "12": (-4.0,), "13": (-1.0, -1.0), "14": (-2.0,), "15": (-2.0,)}
REFERENCE = {"10": (-2.0, -1.5), "11": (-2.0,), "12": (-3.0,), "13": (-2.0, -3.0), "14": (-2.0,), "15": (-2.0,)}


def test_metrics_by_hand() -> None:
    batches = forwards(PAIRS, rows="pairs", layout="tree", max_tokens=100)
    rows = evaluate(fixed(POLICY), DPO(beta=0.5), batches, reference=fixed(REFERENCE))
    found = {row["id"]: row for row in rows}
    # h(chosen) - h(rejected): (1 + 0.5) - (-1) = 2.5; (-1) - (1 + 2) = -4; 0
    assert {k: v["rewards/margins"] for k, v in found.items()} == {"won": 1.25, "lost": -2.0, "tied": 0.0}
    assert {k: v["rewards/accuracies"] for k, v in found.items()} == {"won": 1.0, "lost": 0.0, "tied": 0.5}
    # mean log-prob a token: -1 > -3; -4 < -1; -2 = -2
    assert {k: v["likelihood/accuracies"] for k, v in found.items()} == {"won": 1.0, "lost": 0.0, "tied": 0.5}
    assert {k: v["rewards/chosen"] for k, v in found.items()} == {"won": 0.75, "lost": -0.5, "tied": 0.0}
    metrics = summarise(rows, {e.record.id: e.prompt for e in PAIRS})
    assert metrics["rows"] == 3
    assert metrics["rewards/accuracies"] == (1 + 0 + 0.5) / 3
    assert metrics["rewards/margins"] == pytest.approx((1.25 - 2.0 + 0.0) / 3)
    assert metrics["logps/chosen"] == pytest.approx((-2 - 4 - 2) / 3)
    assert metrics["logps/rejected"] == pytest.approx((-3 - 2 - 2) / 3)
    assert metrics["logps/chosen_per_token"] == pytest.approx((-1 - 4 - 2) / 3)
    assert {name for name in metrics if name.endswith(("_low", "_high"))} == {
        f"{kind}_{end}"
        for kind in ("rewards/accuracies", "rewards/margins", "likelihood/accuracies")
        for end in ("low", "high")
    }


def test_per_aspect_by_hand() -> None:
    """Margins 1.25, -2, 0 as above. Of safety the better answer is chosen, then rejected, then neither; of tone only
    the first row speaks."""
    rows = [
        judged(PAIRS[0], [("safety", 1.0), ("tone", 0.2)], [("safety", 0.0), ("tone", 0.6)]),
        judged(PAIRS[1], [("safety", 0.5)], [("safety", 0.75)]),
        judged(PAIRS[2], [("safety", 0.5)], [("safety", 0.5)]),
    ]
    batches = forwards(rows, rows="pairs", layout="tree", max_tokens=100)
    found = evaluate(fixed(POLICY), DPO(beta=0.5), batches, reference=fixed(REFERENCE))
    assert ["rewards/safety/margins" in row for row in found].count(True) == 2
    metrics = summarise(found, {e.record.id: e.prompt for e in rows})
    assert metrics["rewards/safety/margins"] == (1.25 + 2.0) / 2  # the rejected answer is safer, and has more reward
    assert metrics["rewards/safety/accuracies"] == 1.0
    assert metrics["rewards/tone/margins"] == -1.25
    assert metrics["rewards/tone/accuracies"] == 0.0
    assert metrics["rewards/safety/margins_low"] == 1.25  # of two prompts, a resample may hold the same one twice
    assert metrics["rewards/safety/margins_high"] == 2.0


def test_no_annotation_of_a_held_out_row_helps() -> None:
    """Weights that know the answer are not listened to: before training accuracy is one half, whatever they say."""
    knowing = [
        e._replace(answers=(e.answers[0]._replace(weight=(9.0,) * len(e.answers[0].ids)), e.answers[1])) for e in PAIRS
    ]
    for rows in (PAIRS, knowing):
        batches = forwards(rows, rows="pairs", layout="tree", max_tokens=100)
        found = evaluate(fixed(POLICY), DPO(beta=0.5), batches, reference=fixed(REFERENCE))
        assert {row["id"]: row["rewards/margins"] for row in found} == {"won": 1.25, "lost": -2.0, "tied": 0.0}


def test_before_training_every_reward_is_a_tie() -> None:
    batches = forwards(PAIRS, rows="pairs", layout="tree", max_tokens=100)
    metrics = summarise(
        evaluate(fixed(POLICY), DPO(), batches, reference=fixed(POLICY)), {e.record.id: e.prompt for e in PAIRS}
    )
    assert [metrics[f"rewards/accuracies{end}"] for end in ("", "_low", "_high")] == [0.5, 0.5, 0.5]
    assert metrics["likelihood/accuracies"] == 0.5  # one won, one lost, one tied: informative all the same


def test_without_pairs() -> None:
    labelled = [example("a", [3], [10, 4], label=True), example("b", [3], [12], label=True)]
    batches = forwards(labelled, rows="chosen", layout="tree", max_tokens=100)
    rows = evaluate(fixed(POLICY), SFT(), batches, reference=None)
    assert summarise(rows, {"a": 0, "b": 0}) == {"logps/answer": -3.0, "logps/answer_per_token": -2.5, "rows": 2.0}


# ------------------------------------------------------------------------------------------------------- intervals


def interval(values: list[float], groups: list[int], seed: int = 0) -> tuple[float, float]:
    rows = [{"id": str(i), "x/accuracies": value} for i, value in enumerate(values)]
    found = summarise(rows, {str(i): group for i, group in enumerate(groups)}, seed=seed)
    assert found["x/accuracies"] == pytest.approx(sum(values) / len(values))
    return found["x/accuracies_low"], found["x/accuracies_high"]


def test_interval_is_over_prompts_not_rows() -> None:
    """20 prompts of 10 rows that agree with each other are 20 observations, not 200."""
    values = [float(i // 10 % 2) for i in range(200)]  # half of the prompts are all right, half all wrong
    low, high = interval(values, [i // 10 for i in range(200)])
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20), rel=0.15)
    low, high = interval(values, list(range(200)))
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.15)


def test_interval_of_one_prompt_is_a_point() -> None:
    assert interval([1.0, 0.0, 0.0, 0.0], [7, 7, 7, 7]) == (0.25, 0.25)


def test_interval_weighs_prompts_by_their_rows() -> None:
    """30 prompts of nine wins each and 30 of one loss: nine rows in ten are won, though only half of the prompts."""
    values, groups = [1.0] * 270 + [0.0] * 30, [i // 9 for i in range(270)] + list(range(30, 60))
    low, high = interval(values, groups)
    assert 0.8 < low < 0.9 < high < 0.96


def test_interval_covers() -> None:
    """In 200 worlds of 60 prompts with 1 to 3 rows each, the truth is inside about 95 times in 100."""
    rng = np.random.default_rng(0)
    truth, inside = 0.7, 0
    for world in range(200):
        groups = np.repeat(np.arange(60), rng.integers(1, 4, size=60)).tolist()
        values = (rng.random(len(groups)) < truth).astype(float).tolist()
        low, high = interval(values, groups, seed=world)
        inside += low <= truth <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_interval_is_a_function_of_the_seed() -> None:
    values = [float(i % 3 > 0) for i in range(50)]
    assert interval(values, list(range(50))) == interval(values, list(range(50)))
    assert interval(values, list(range(50)), seed=1) != interval(values, list(range(50)), seed=2)


# --------------------------------------------------------------------------------------------------------- packing


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(adapted(model("gpt2", torch.float64, vocab_size=96)))


def measured(scorer: Scorer, layout: Layout, max_tokens: int, share: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    rows = many(WINDOW + 6)
    scorer.use(packed=layout != "padded")
    batches = forwards(rows, rows="pairs", layout=layout, max_tokens=max_tokens, share=share)
    return {row["id"]: row for row in evaluate(scorer, DPO(), batches, reference=adapter_off(scorer))}


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize("max_tokens", [60, 250])
def test_rows_do_not_depend_on_their_company(scorer: Scorer, layout: Layout, max_tokens: int) -> None:
    wanted = measured(scorer, "tree", 10_000)
    found = measured(scorer, layout, max_tokens)
    assert found.keys() == wanted.keys() == {str(i) for i in range(WINDOW + 6)}
    for name, row in wanted.items():
        assert found[name] == pytest.approx(row, abs=1e-9)


def test_forwards_keep_to_the_budget_and_the_window() -> None:
    rows = many(2 * WINDOW + 5, prompts=2 * WINDOW + 5)
    for layout in ("tree", "packed", "padded"):
        batches = forwards(rows, rows="pairs", layout=layout, max_tokens=120)
        assert [b for b in batches if b.ids.numel() > 120] == []
        assert sorted(int(row) for b in batches for row in b.facts.ids) == list(range(len(rows)))
    whole = forwards(rows, rows="pairs", layout="tree", max_tokens=10**9)
    assert [len(b.facts.ids) for b in whole] == [WINDOW, WINDOW, 5]
    assert sum(b.ids.numel() for b in whole) == tokens(rows)


def test_processes_share_the_rows(scorer: Scorer) -> None:
    wanted = measured(scorer, "tree", 100)
    shares = [measured(scorer, "tree", 100, (k, 3)) for k in range(3)]
    assert sum(map(len, shares)) == len(wanted)
    assert {k: v for part in shares for k, v in part.items()} == wanted
    assert min(map(len, shares)) > 0


def test_no_gradient_is_kept(scorer: Scorer) -> None:
    seen: list[bool] = []

    def score(batch: Batch) -> LogProbs:
        found = scorer(batch)
        seen.append(found.token.requires_grad)
        return found

    scorer.use(packed=True)
    evaluate(score, SFT(), forwards(many(4), rows="chosen", layout="tree", max_tokens=100), reference=None)
    assert seen
    assert not any(seen)
