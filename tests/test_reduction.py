"""The step's loss: sums over sums, however the step is split; weights that repeat rows; metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from _build import adapted, adapter_off, apart, example, gradients, judged, many, model
from grainline.data.collate import collate, speaking
from grainline.forward import Scorer
from grainline.objectives._seam import Sum
from grainline.objectives.dpo import DPO
from grainline.objectives.sft import SFT
from grainline.reduction import add, means, measure, share, totals
from grainline.types import Batch, Example, LogProbs, Losses, Pairs, Rows, Term

ALONE = Accelerator(cpu=True)
OBJECTIVES: dict[str, Any] = {
    "dpo": DPO(),
    "sft": SFT(),
    "dpo + 0.5*sft": Sum(terms=((1.0, DPO()), (0.5, SFT()))),
}


def whole_step(scorer: Scorer, objective: Any, parts: list[list[Example]]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step, split into ``parts``."""
    scorer.zero_grad()
    forwards = [collate(part, rows=speaking(objective.needs)) for part in parts]
    counted = totals(objective, forwards, ALONE)
    loss = 0.0
    for batch in forwards:
        policy = scorer(batch)
        against = adapter_off(scorer)(batch) if "reference" in objective.needs else None
        part = share(objective(policy, against, batch.facts, {}), batch.facts.weight, counted)
        part.backward()
        loss += part.item()
    return loss, gradients(scorer)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(adapted(model("gpt2", torch.float64, vocab_size=96)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_the_same_however_it_is_split(name: str, scorer: Scorer) -> None:
    """Means over tokens and over pairs together, with answers of uneven lengths in uneven parts."""
    rows = many(9)
    loss, slope = whole_step(scorer, OBJECTIVES[name], [rows])
    for parts in ([[row] for row in rows], [rows[:1], rows[1:8], rows[8:]], [rows[4:], rows[:4]]):
        other, slopes = whole_step(scorer, OBJECTIVES[name], parts)
        assert other == pytest.approx(loss, abs=1e-9)
        assert apart(slopes, slope) < 1e-9


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weight_two_is_the_row_twice(name: str, scorer: Scorer) -> None:
    rows = many(5)
    heavy = rows[2]._replace(record=rows[2].record._replace(weight=2.0))
    loss, slope = whole_step(scorer, OBJECTIVES[name], [[*rows[:2], heavy], rows[3:]])
    twice, slopes = whole_step(scorer, OBJECTIVES[name], [[*rows, rows[2]]])
    assert loss == pytest.approx(twice, abs=1e-9)
    assert apart(slopes, slope) < 1e-9


def test_sft_is_the_mean_over_the_steps_tokens(scorer: Scorer) -> None:
    rows = many(7)
    loss, _ = whole_step(scorer, SFT(), [rows[:2], rows[2:]])
    token = scorer(collate(rows, rows="chosen"))
    assert loss == pytest.approx(-token.token.sum().item() / int(token.mask.sum()), abs=1e-9)
    mean_of_rows = -(token.token.sum(1) / token.mask.sum(1)).mean().item()
    assert abs(loss - mean_of_rows) > 1e-3  # which is another number


def test_dpo_is_the_weighted_mean_over_the_steps_pairs(scorer: Scorer) -> None:
    rows = [r._replace(record=r.record._replace(weight=w)) for r, w in zip(many(4), (1.0, 2.0, 0.5, 0.0), strict=True)]
    loss, _ = whole_step(scorer, DPO(beta=0.3), [rows[:1], rows[1:]])
    batch = collate(rows)
    with torch.no_grad():
        h = (scorer(batch).token - adapter_off(scorer)(batch).token).sum(1)
    each = [math.log(1 + math.exp(-0.3 * float(h[i] - h[i + 4]))) for i in range(4)]
    assert loss == pytest.approx((each[0] + 2 * each[1] + 0.5 * each[2]) / 3.5, abs=1e-9)


def toy(values: list[float], counts: list[float], coefficient: float = 1.0) -> Losses:
    return Losses({"t": Term(torch.tensor(values), torch.tensor(counts), coefficient)}, None, {})


def test_share_by_hand() -> None:
    total = {"t": torch.tensor(8.0)}
    assert share(toy([3.0, 5.0], [1, 1], 0.5), torch.tensor([1.0, 2.0]), total) == 0.5 * (3 + 2 * 5) / 8


def test_a_term_that_counts_nothing_adds_nothing() -> None:
    """No desirable row in the step: 0 / 0 must be 0, not NaN."""
    rows = [example(i, [3, 4], [5, 6], label=False) for i in range(2)]
    batch = collate(rows, rows="labels")
    counted = totals(SFT(), [batch], ALONE)
    policy = LogProbs(torch.full(batch.rows.shape, -1.0), batch.rows >= 0, batch.weight)
    assert share(SFT()(policy, None, batch.facts, {}), batch.facts.weight, counted) == 0.0


def test_add_and_means() -> None:
    sums: dict[str, Tensor] = {}
    add(sums, {"loss": torch.tensor(0.25), "tokens": torch.tensor(10), "rows": torch.tensor(2), "n": torch.tensor(2)})
    add(sums, {"loss": torch.tensor(0.5), "tokens": torch.tensor(5), "rows": torch.tensor(1), "n": torch.tensor(1)})
    add(sums, {"rewards/margins": torch.tensor(6.0)})
    assert means(sums, ALONE) == {"loss": 0.75, "tokens": 15.0, "rows": 3.0, "rewards/margins": 2.0}


def pair_batch() -> Batch:
    return collate([example(0, [3], [4, 5], [6]), example(1, [3, 4], [5], [6, 7])])


def test_metrics_by_hand() -> None:
    """Two pairs, margins 0 and 2: one tie, one win."""
    batch = pair_batch()
    policy = LogProbs(
        torch.tensor([[-1.0, -2.0], [-4.0, 0.0], [-5.0, 0.0], [-6.0, -7.0]]), batch.rows >= 0, batch.weight
    )
    losses = Losses(
        {"t": Term(torch.zeros(2), torch.ones(2))},
        torch.tensor([0.0, 2.0]),
        {"rewards/chosen": torch.tensor([1.0, 4.0])},
    )
    sums: dict[str, Tensor] = {}
    add(sums, measure(losses, policy, batch, torch.tensor(0.5)))
    assert means(sums, ALONE) == {
        "loss": 0.5,
        "tokens": 1 + 1 + 0 + 2 + 0 + 1,
        "rows": 2,
        "logps/chosen": (-3 - 4) / 2,
        "logps/rejected": (-5 - 13) / 2,
        "rewards/margins": 1.0,
        "rewards/accuracies": (0.5 + 1) / 2,
        "rewards/margins_squared": (0 + 4) / 2,
        "rewards/accuracies_shorter": 1.0,  # of the second pair alone
        "rewards/chosen": 2.5,
    }
    assert isinstance(batch.facts, Pairs)


def test_margins_by_aspect_are_means_over_the_pairs_that_differ_in_it() -> None:
    rows = [
        judged(example(0, [3], [4], [6]), [("safety", 1.0)], [("safety", 0.0)]),
        judged(example(1, [3], [5], [6]), [("safety", 0.2)], [("safety", 0.9)]),
        judged(example(2, [3], [7], [6]), [("tone", 0.5)], [("tone", 0.5)]),
    ]
    sums: dict[str, Tensor] = {}
    for part, margins in ((rows[:2], [3.0, 1.0]), (rows[2:], [7.0])):
        batch = collate(part)
        policy = batch.logprobs(torch.zeros(batch.rows.shape))
        losses = toy([0.0] * len(part), [1] * len(part))._replace(margin=torch.tensor(margins))
        add(sums, measure(losses, policy, batch, torch.tensor(0.5)))
    found = means(sums, ALONE)
    assert found["rewards/safety/margins"] == (3.0 - 1.0) / 2
    assert found["rewards/margins"] == (3.0 + 1.0 + 7.0) / 3
    assert "rewards/tone/margins" not in found  # no pair differs in tone


def test_metrics_of_single_answers() -> None:
    batch = collate([example(i, [3], [4, 5], label=True) for i in range(2)], rows="chosen")
    policy = LogProbs(torch.tensor([[-1.0, -2.0], [-4.0, 0.0]]), batch.rows >= 0, batch.weight)
    sums = measure(toy([0, 0], [1, 1]), policy, batch, torch.tensor(0.5))
    assert isinstance(batch.facts, Rows)
    assert means(sums, ALONE) == {"loss": 0.5, "tokens": 2.0, "rows": 2.0, "logps/answer": -3.5}


def test_metrics_do_not_depend_on_the_split(scorer: Scorer, tmp_path: Path) -> None:
    rows = many(9)

    def metrics(parts: list[list[Example]]) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        forwards = [collate(part) for part in parts]
        counted = totals(DPO(), forwards, ALONE)
        for batch in forwards:
            policy = scorer(batch)
            losses = DPO()(policy, adapter_off(scorer)(batch), batch.facts, {})
            add(sums, measure(losses, policy, batch, share(losses, batch.facts.weight, counted)))
        return {k: v for k, v in means(sums, ALONE).items() if k != "tokens"}

    assert metrics([rows]) == pytest.approx(metrics([rows[:2], rows[2:3], rows[3:]]), abs=1e-9)
