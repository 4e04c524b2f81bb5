"""The lists of a row are what transformers' plain forward says, token by token, rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _build import adapter_off, many
from grainline.evaluation import by_token
from grainline.evaluation.preferences import evaluate, forwards
from grainline.evaluation.speakers import Subject
from grainline.objectives.dpo import DPO
from grainline.objectives.simpo import SimPO


@pytest.mark.parametrize("objective", [DPO(), SimPO()], ids=["dpo", "simpo"])
def test_rows_are_the_plain_models(objective: Any, voices: Subject) -> None:
    """Of an objective without reference too: the reference is looked at, and its margins do not see it."""
    examples, scorer = many(5, vocabulary=90), voices.policy.scorer
    batches = forwards(examples, rows="pairs", layout="tree", max_tokens=100)
    reference = adapter_off(scorer, keep=("hidden",))
    rows = {row["id"]: row for row in evaluate(scorer, objective, batches, reference=reference, look=by_token.look)}
    plain = evaluate(scorer, objective, batches, reference=reference if "reference" in objective.needs else None)
    assert {row["id"]: row["rewards/margins"] for row in plain} == pytest.approx(
        {name: row["rewards/margins"] for name, row in rows.items()}
    )
    for example in examples:
        for role, answer in zip(("chosen", "rejected"), example.answers, strict=True):
            said = rows[example.record.id][role]
            assert said["tokens"] == len(answer.ids)
            both = {}
            for who in (voices.policy, voices.reference):
                assert who is not None
                with who.plain() as model, torch.no_grad():
                    logits = model(input_ids=torch.tensor([[*example.prompt, *answer.ids]])).logits[0]
                both[who.name] = logits[len(example.prompt) - 1 : -1].log_softmax(-1)
                own = both[who.name].gather(-1, torch.tensor(answer.ids)[:, None])[:, 0]
                assert said[who.name] == pytest.approx(own.tolist(), abs=1e-6)
            p, q = both["policy"], both["reference"]
            assert said["kl"] == pytest.approx((q.exp() * (q - p)).sum(-1).tolist(), abs=1e-6)


def test_answers_are_cut_to_their_tokens_and_rounded() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = {"policy": torch.tensor([[-0.12345678, -0.0000001, 0.0], [-3.0, 0.0, 0.0]], dtype=torch.float64)}
    first, second = by_token.answers_of(mask, values)
    assert first == {"tokens": 2, "policy": [-0.123457, 0.0]}
    assert second == {"tokens": 1, "policy": [-3.0]}
