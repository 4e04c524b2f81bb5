"""Rows that depend on each other: the step's loss and its exact gradient, however the step is split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from _build import adapted, adapter_off, apart, gradients, logged, losses, many, model, train
from grainline.coupling import judge
from grainline.data.collate import collate, pack, speaking
from grainline.data.mismatch import mismatch
from grainline.forward import Scorer, voices
from grainline.objectives._seam import Sum
from grainline.objectives.aot import AOT
from grainline.objectives.bco import BCO
from grainline.objectives.dpo import DPO
from grainline.objectives.kto import KTO
from grainline.objectives.sft import SFT
from grainline.objectives.signed_sft import SignedSFT
from grainline.objectives.tdpo import TDPO
from grainline.objectives.updpo import UPDPO
from grainline.objectives.wpo import WPO
from grainline.types import Batch, Example, LogProbs, Losses, Term, spec

pytestmark = pytest.mark.usefixtures("one_thread")


@spec
class Spread:
    """A made-up objective that truly couples: each pair's squared distance from the mean h of all pairs, and drift."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "kl"})
    coupled: ClassVar[bool] = True

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Any, heads: Mapping[str, Tensor]) -> Losses:
        assert policy.kl is not None
        h_P = ((policy.token - reference.token) * policy.weight).sum(-1).chunk(2)[0]
        drift_P = policy.kl.sum(-1).chunk(2)[1]
        value = (h_P - h_P.mean()).square() + drift_P * drift_P.mean()
        return Losses({"spread": Term(value, torch.ones_like(value))}, h_P.detach(), {})


OBJECTIVES: dict[str, Any] = {
    "kto": KTO(),
    "bco": BCO(beta=0.5),
    "aot": AOT(variant="unpaired", beta=0.5),
    "spread": Spread(),
    "mpo": Sum(terms=((0.8, DPO()), (0.4, BCO(beta=0.5)), (1.0, SFT()))),
    "aligned": Sum(terms=((1.0, AOT(beta=0.5)), (0.5, WPO()))),
    "numbers": Sum(terms=((1.0, AOT(beta=0.5)), (0.5, UPDPO(beta=0.5)))),
    "signed": SignedSFT(until=4.0),  # its divisor depends on the model
    "sum": Sum(terms=((1.0, AOT(beta=0.5)), (0.3, TDPO()), (0.1, SFT()))),
}


def rows(objective: Any, count: int = 9) -> list[Example]:
    made = [
        one._replace(
            record=one.record._replace(numbers=(("chosen_uncertainty", 0.3 * i), ("rejected_uncertainty", 0.1)))
        )
        for i, one in enumerate(many(count))
    ]
    return mismatch(made) if "mismatched" in objective.needs else made


def lowered(said: LogProbs) -> LogProbs:
    """A reference so much below the policy that kto's mean is above 0, where it is not cut off."""
    return said._replace(token=said.token - 0.5 * said.mask)


def stepped(objective: Any, examples: list[Example], max_tokens: int) -> tuple[float, dict[str, Tensor], int, Any]:
    """(loss, gradients, forwards, state) of one step split by a budget."""
    scorer = Scorer(adapted(model("llama", torch.float64, vocab_size=96)))
    keep = ("hidden",) if "kl" in objective.needs else ()

    def reference(batch: Batch) -> LogProbs:
        with torch.no_grad(), scorer.model.disable_adapter():  # type: ignore[operator]
            return lowered(scorer(batch, keep=keep))

    parts = pack(examples, max_tokens=max_tokens)
    forwards = [collate(part, rows=speaking(objective.needs)) for part in parts]
    judged = judge(objective, scorer, reference, forwards, Accelerator(cpu=True), getattr(objective, "state", {}))
    total = 0.0
    for i, batch in enumerate(forwards):
        policy, against = voices(scorer, reference, batch, objective.needs)
        _, loss = judged(i, batch, policy, against)
        loss.backward()
        total += loss.item()
    return total, gradients(scorer), len(forwards), judged.state


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_forward_or_many(name: str) -> None:
    """One batch, called as the formula says, against the same step in pieces: loss, gradient and state."""
    objective = OBJECTIVES[name]
    examples = rows(objective)
    scorer = Scorer(adapted(model("llama", torch.float64, vocab_size=96)))
    batch = collate(examples, rows=speaking(objective.needs))
    with torch.no_grad(), scorer.model.disable_adapter():  # type: ignore[operator]
        against = lowered(scorer(batch, keep=("hidden",)))
    policy = scorer(batch, against, kl="kl" in objective.needs, concentration="concentration" in objective.needs)
    state = {k: torch.tensor(v, dtype=torch.float64) for k, v in getattr(objective, "state", {}).items()}
    found = objective(policy, against, batch.facts, state)
    weight = batch.facts.weight
    loss = sum(t.coefficient * (weight * t.value).sum() / (weight * t.count).sum() for t in found.terms.values())
    loss.backward()
    wanted = gradients(scorer)
    for budget in (10_000, 90):
        value, slopes, count, after = stepped(objective, examples, budget)
        assert (count == 1) == (budget == 10_000)
        assert value == pytest.approx(loss.item(), abs=1e-6)
        assert apart(slopes, wanted) < 1e-5
        assert after == pytest.approx({k: float(v) for k, v in found.state.items()}, abs=1e-6)


def test_piece_by_piece_would_be_wrong() -> None:
    """Judged forward by forward the same objectives give other gradients: there is something to couple."""
    for objective in (KTO(), AOT(variant="unpaired", beta=0.5), Spread()):
        examples = rows(objective)
        _, wanted, _, _ = stepped(objective, examples, 90)
        object.__setattr__(objective, "coupled", False)
        _, found, _, _ = stepped(objective, examples, 90)
        assert apart(found, wanted) > 1e-3


def test_an_objective_that_is_not_coupled_is_judged_as_before() -> None:
    one, slopes, _, _ = stepped(DPO(), many(9), 10_000)
    two, others, count, _ = stepped(DPO(), many(9), 90)
    assert count > 1
    assert one == pytest.approx(two, abs=1e-9)
    assert apart(slopes, others) < 1e-5


def test_dropout_draws_the_same_in_both_readings() -> None:
    """With other draws the gradient would be of another loss than the one that was judged."""
    scorer = Scorer(adapted(model("llama", vocab_size=96), dropout=0.5)).train()
    forwards = [collate(part, layout="packed") for part in pack(many(8), max_tokens=90, layout="packed")]
    reference = adapter_off(scorer)
    torch.manual_seed(3)
    judged = judge(AOT(), scorer, reference, forwards, Accelerator(cpu=True), {})
    for i, batch in enumerate(forwards):
        policy, _ = voices(scorer, reference, batch, AOT.needs)
        assert torch.equal(policy.token.detach(), judged._looks[i].policy.token)  # type: ignore[union-attr]


def test_a_run_is_the_same_however_its_steps_are_split(tmp_path: Path) -> None:
    for name, max_tokens in {"whole": 10_000, "split": 70}.items():
        train(model("llama", vocab_size=96), tmp_path / name, objective=AOT(), batch_size=7, max_tokens=max_tokens)
    assert losses(tmp_path / "split") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def test_state_is_saved_and_goes_on(tmp_path: Path) -> None:
    """Four steps at once, and two and two: the same delta, which is logged."""
    options: dict[str, Any] = {"objective": BCO(), "batch_size": 5}
    train(model("llama", vocab_size=96), tmp_path / "whole", steps=4, **options)
    train(model("llama", vocab_size=96), tmp_path / "parts", steps=4, plan={"save_every": 2}, **options)
    train(model("llama", vocab_size=96), tmp_path / "parts", steps=4, resume=True, **options)
    whole = logged(tmp_path / "whole")
    assert [line["delta_rows"] for line in whole] == [10, 20, 30, 40]
    assert whole[-1]["delta"] != 0
    assert logged(tmp_path / "parts") == whole
