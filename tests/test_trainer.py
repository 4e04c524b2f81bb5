"""The loop against a naive one and against TRL; and what must not change a number: splits, stops, kills, processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from _build import (
    MORE,
    adapted,
    adapter_off,
    apart,
    example,
    gradients,
    logged,
    losses,
    many,
    model,
    questions,
    train,
    train_more,
)
from grainline import checkpoint
from grainline.data.collate import collate
from grainline.data.order import Order
from grainline.errors import InvariantError, NonFiniteError, RecipeError
from grainline.forward import Scorer
from grainline.objectives.dpo import DPO
from grainline.objectives.sft import SFT
from grainline.optimizers.adamw import AdamW
from grainline.trainer import Plan
from grainline.trainer import schedule as rate_of
from grainline.types import Batch, Example, LogProbs, Losses, Term

TESTS = Path(__file__).parent
SOURCES = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])  # these sources, whatever is installed
ENVIRONMENT = os.environ | {"PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen:
    """Gradients as the optimizer sees them, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def __call__(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_pre_hook(self._look)

    def _look(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        named = [pair for g in optimizer.param_groups for pair in zip(g["param_names"], g["params"], strict=True)]
        self.steps.append({name: p.grad.clone() for name, p in named})


# ------------------------------------------------------------------------------------------ against a naive loop


def naive(base: Any, examples: list[Example], steps: int, *, batch_size: int, lr: float) -> tuple[list, list]:
    """DPO as one would write it on a whiteboard: one answer at a time, full logits, plain torch."""
    policy = adapted(base, fresh=True)
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=lr, weight_decay=0.0)
    order = Order(examples, batch_size=batch_size, seed=0)

    def logp(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
        logprobs = policy(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(logprobs[len(prompt) + t - 1, token] for t, token in enumerate(answer))  # type: ignore[return-value]

    values, slopes = [], []
    for step in range(steps):
        total = 0.0
        for e in order.step(step):
            chosen, rejected = (logp(e.prompt, a.ids) for a in e.answers)
            with torch.no_grad(), policy.disable_adapter():
                ref_chosen, ref_rejected = (logp(e.prompt, a.ids) for a in e.answers)
            total = total - torch.log(torch.sigmoid(0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))))
        loss = total / batch_size
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.step()
        values.append(loss.item())
        slopes.append(gradients(policy))
    return values, slopes


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_the_loop_is_the_naive_loop(layout: Any, tmp_path: Path) -> None:
    wanted, slopes = naive(model("llama", vocab_size=96), many(20), 3, batch_size=8, lr=1e-2)
    seen = Seen()
    train(model("llama", vocab_size=96), tmp_path, steps=3, layout=layout, max_tokens=100, watch=seen)
    assert losses(tmp_path) == pytest.approx(wanted, abs=1e-5)
    assert wanted[0] == pytest.approx(math.log(2))
    assert wanted[2] < wanted[0] - 0.01  # it moved
    for found, slope in zip(seen.steps, slopes, strict=True):
        assert apart(found, slope) < 1e-4


# ---------------------------------------------------------------------------------------------------- against TRL


def words(ids: tuple[int, ...]) -> str:
    return "".join(f"w{i} " for i in ids)


def test_loss_and_gradients_are_trls(tmp_path: Path) -> None:
    """The same token ids, the same adapter: DPOTrainer's loss, gradients and logged metrics."""
    trl = pytest.importorskip("trl", reason="NO PARITY TEST: trl is not installed; run `make setup`")
    assert trl.__version__ == "1.16.0", "parity is pinned; look at the new version's loss before changing this"
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(96) if i not in (0, 2)} | {"<pad>": 0, "<end>": 2}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    examples = many(8)
    texts = [
        dict(zip(("prompt", "chosen", "rejected"), map(words, (e.prompt, *(a.ids for a in e.answers))), strict=True))
        for e in examples
    ]
    torch.manual_seed(0)
    trainer = trl.DPOTrainer(
        model("llama", vocab_size=96),
        args=trl.DPOConfig(
            output_dir=str(tmp_path), beta=0.3, max_length=None, use_cpu=True, report_to="none", bf16=False,
            per_device_train_batch_size=8, gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, lora_alpha=32.0, target_modules="all-linear", init_lora_weights=False),
    )  # fmt: skip
    rows = trainer.train_dataset
    ours = [
        example(i, row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for i, row in enumerate(rows)
    ]  # TRL's own tokens, with the end of text that it adds
    assert [e.prompt for e in ours] == [e.prompt for e in examples]
    assert ours[0].answers[0].ids == (*examples[0].answers[0].ids, 2)

    policy = adapted(model("llama", vocab_size=96))
    policy.load_state_dict(trainer.model.state_dict())
    scorer = Scorer(policy)
    batch = collate(ours)
    found = DPO(beta=0.3)(scorer(batch), adapter_off(scorer)(batch), batch.facts, {})
    loss = found.terms["dpo"].value.mean()
    loss.backward()

    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(rows)))
    theirs.backward()
    assert abs(loss.item() - math.log(2)) > 0.05
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert apart(gradients(policy), gradients(trainer.model)) < 1e-4
    logs = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert found.margin is not None
    assert found.margin.mean().item() == pytest.approx(logs["rewards/margins"], abs=1e-4)
    assert found.log["rewards/chosen"].mean().item() == pytest.approx(logs["rewards/chosen"], abs=1e-4)


# --------------------------------------------------------------------------------------- what must change nothing


def test_one_step_of_eight_is_four_of_two_and_two_of_four(tmp_path: Path) -> None:
    """Gradient accumulation, budgets and layouts are ways to compute one trajectory."""
    order = Order(many(20), batch_size=8, seed=0)

    def split(size: int) -> Callable[[int], list[Batch]]:
        return lambda step: [collate(order.step(step)[i : i + size]) for i in range(0, 8, size)]

    ways: dict[str, dict[str, Any]] = {
        "1 x 8": {"batches": split(8)},
        "2 x 4": {"batches": split(4)},
        "4 x 2": {"batches": split(2)},
        "8 x 1": {"batches": split(1)},
        "budget 60": {"max_tokens": 60},
        "packed": {"max_tokens": 100, "layout": "packed"},
        "padded": {"max_tokens": 100, "layout": "padded"},
    }
    for way, options in ways.items():
        train(model("gpt2", torch.float64, vocab_size=96), tmp_path / way, steps=6, **options)
    wanted = losses(tmp_path / "1 x 8")
    assert len(wanted) == 6
    for way in ways:
        assert losses(tmp_path / way) == pytest.approx(wanted, abs=1e-8), way
    norms = [[line["grad_norm"] for line in logged(tmp_path / way)] for way in ways]
    assert all(norm == pytest.approx(norms[0], rel=1e-7) for norm in norms)


def test_row_weights_change_the_trajectory(tmp_path: Path) -> None:
    rows = many(8)
    heavy = [e._replace(record=e.record._replace(weight=5.0)) if e.record.id == "3" else e for e in rows]
    for name, examples in (("light", rows), ("heavy", heavy)):
        train(model("llama", vocab_size=96), tmp_path / name, examples=examples, steps=3)
    assert losses(tmp_path / "light")[0] == pytest.approx(losses(tmp_path / "heavy")[0], abs=1e-6)  # log 2, either way
    assert abs(losses(tmp_path / "light")[2] - losses(tmp_path / "heavy")[2]) > 1e-4


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def scripted(*values: float) -> Callable[[], dict[str, float]]:
    """An evaluation that answers with these values, one after another."""
    rest: Iterator[float] = iter(values)
    return lambda: {"score": next(rest)}


def eventful(folder: Path, **options: Any) -> Any:
    """Eight steps in which everything happens that has a state: dropout, best, pruning."""
    base = model("llama", vocab_size=96)
    plan = {"save_every": 3, "keep": 1, "evaluate_every": 2, "best": "score", "schedule": "cosine", "warmup": 2}
    outcome = train(base, folder, steps=8, layout="packed", max_tokens=100, dropout=0.1, plan=plan, **options)
    return outcome, {name: p.detach().clone() for name, p in base.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_resumed_is_uninterrupted(step: int, tmp_path: Path) -> None:
    """Bit for bit, with dropout; also where the stop falls on an evaluation (4) or on a saved step (3)."""
    scores = (0.3, 0.5, 0.4, 0.2)
    whole, wanted = eventful(tmp_path / "whole", evaluate=scripted(*scores))
    first, _ = eventful(tmp_path / "cut", evaluate=scripted(*scores), callbacks=[StopAt(step)])
    assert (first.step, first.finished) == (step, False)
    second, found = eventful(tmp_path / "cut", evaluate=scripted(*scores[step // 2 :]), resume=True)
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (second.step, second.finished, second.metrics) == (8, True, {"score": 0.2}) == (8, True, whole.metrics)
    assert second.best == tmp_path / "cut" / "checkpoints" / "step-000004"
    assert sorted(f.name for f in second.best.parent.iterdir()) == ["step-000004", "step-000008"]


def test_resumed_after_a_kill_is_uninterrupted(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, str(TESTS / "scripts" / "killed.py"), str(tmp_path / "cut")], env=ENVIRONMENT, check=False
    )
    assert killed.returncode == -9
    assert [line["step"] for line in logged(tmp_path / "cut")] == [1, 2, 3, 4, 5]  # one more than the checkpoint's
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')  # and a line that did not get through
    options: dict[str, Any] = {"steps": 8, "layout": "packed", "dropout": 0.1, "plan": {"save_every": 2}}
    train(model("llama", vocab_size=96), tmp_path / "cut", resume=True, **options)
    train(model("llama", vocab_size=96), tmp_path / "whole", **options)
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


def test_resuming_what_is_finished_does_nothing(tmp_path: Path) -> None:
    train(model("llama", vocab_size=96), tmp_path, steps=2)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    outcome = train(model("llama", vocab_size=96), tmp_path, steps=2, resume=True)
    assert (outcome.step, outcome.finished) == (2, True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    train(model("llama", vocab_size=96), tmp_path / "one", steps=2)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')  # killed before its first checkpoint
    train(model("llama", vocab_size=96), tmp_path / "two", steps=2, resume=True)
    assert logged(tmp_path / "two") == logged(tmp_path / "one")


# ------------------------------------------------------------------------------------------------ pinned trajectory

PINNED = TESTS / "golden" / "trajectory.json"


def trajectory(folder: Path, **options: Any) -> list[float]:
    train(model("llama", vocab_size=96), folder, steps=20, max_tokens=120, lr=3e-3, plan={"warmup": 0.1}, **options)
    return losses(folder)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_pinned_trajectory(layout: str, tmp_path: Path) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))["losses"]
    assert trajectory(tmp_path, layout=layout) == pytest.approx(pinned, abs=1e-4)
    assert min(pinned) < 0.5 < pinned[0]


# -------------------------------------------------------------------------------------------------- what goes wrong


class Spoilt:
    """DPO in which one row goes wrong from one step on: its loss, or only its gradient."""

    needs = DPO.needs

    def __init__(self, row: str, how: str, calls: int = 0) -> None:
        self.row, self.how, self.calls = row, how, calls

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Any, heads: Any) -> Losses:
        losses = DPO()(policy, reference, batch, heads)
        value, count, _ = losses.terms["dpo"]
        self.calls += policy.token.requires_grad
        if self.row in batch.ids and self.calls > 1:
            mine = torch.tensor([row == self.row for row in batch.ids])
            zero = policy.token.sum() * 0
            spoil = {"nan": zero + math.nan, "inf": zero + math.inf, "slope": zero.sqrt()}[self.how]
            value = torch.where(mine, value + spoil, value)
        return losses._replace(terms={"dpo": Term(value, count)})


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_non_finite_loss_names_its_row(how: str, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"non-finite loss at step 2 from 1 rows: 5\b.*model\.dtype=float32"):
        train(model("llama", vocab_size=96), tmp_path, examples=many(8), steps=3, objective=Spoilt("5", how))
    assert [line["step"] for line in logged(tmp_path)] == [1]


def test_non_finite_gradient_stops_before_the_optimizer(tmp_path: Path) -> None:
    base, seen = model("llama", vocab_size=96), Seen()
    with pytest.raises(NonFiniteError, match=r"the gradient's norm is nan at step 2, every loss was finite"):
        train(base, tmp_path, examples=many(8), steps=3, objective=Spoilt("5", "slope"), watch=seen)
    assert len(seen.steps) == 1
    assert all(bool(p.isfinite().all()) for p in base.parameters())


def shifted(by: float) -> Callable[[Batch], LogProbs]:
    scorer = Scorer(model("llama", vocab_size=96))

    def reference(batch: Batch) -> LogProbs:
        with torch.no_grad():
            found = scorer(batch)
        return found._replace(token=found.token + by * found.mask)

    return reference


def test_the_policy_starts_at_the_reference(tmp_path: Path) -> None:
    train(model("llama", vocab_size=96), tmp_path, steps=1, reference=shifted(1e-4))
    with pytest.raises(InvariantError, match=r"differs from the reference by 1\.0e-02 nats a token \(allowed: 1e-03\)"):
        train(model("llama", vocab_size=96), tmp_path, steps=1, reference=shifted(0.01))
    with pytest.raises(InvariantError, match="by nan nats"):
        train(model("llama", vocab_size=96), tmp_path, steps=1, reference=shifted(math.nan))
    train(model("llama", vocab_size=96), tmp_path, steps=1, reference=shifted(0.01), tolerance=0.1)


def test_the_loss_starts_at_the_objectives_constant(tmp_path: Path) -> None:
    class Wrong:
        needs, constant = DPO.needs, 0.5

        def __call__(self, *args: Any) -> Losses:
            return DPO()(*args)

    with pytest.raises(InvariantError, match=r"the loss is 0\.693147, the objective's constant 0\.500000"):
        train(model("llama", vocab_size=96), tmp_path, steps=1, objective=Wrong())


def test_the_invariants_are_logged_with_the_first_step(tmp_path: Path) -> None:
    train(model("llama", vocab_size=96), tmp_path, steps=2, reference=shifted(1e-4))
    first, second = logged(tmp_path)
    assert first["start/policy_minus_reference"] == pytest.approx(1e-4, rel=0.05)
    assert (first["start/constant"], first["start/loss"]) == (math.log(2), pytest.approx(math.log(2), abs=1e-3))
    assert not any(name.startswith("start/") for name in second)


def test_no_reference_no_check(tmp_path: Path) -> None:
    outcome = train(model("llama", vocab_size=96), tmp_path, steps=3, objective=SFT())
    assert outcome.finished
    assert losses(tmp_path)[2] < losses(tmp_path)[0] - 0.01


# --------------------------------------------------------------------------------------- evaluations and schedules


def test_best_checkpoint_is_kept_and_holds_the_best_weights(tmp_path: Path) -> None:
    kept: dict[int, Tensor] = {}

    class Keep:
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **known: Any) -> None:
            kept[state.global_step] = next(p for p in model.parameters() if p.requires_grad).detach().clone()

    base = model("llama", vocab_size=96)
    plan = {"evaluate_every": 1, "best": "score", "save_every": 1, "keep": 1}
    outcome = train(base, tmp_path, steps=5, plan=plan, evaluate=scripted(0.1, 0.7, 0.7, 0.2, 0.3), callbacks=[Keep()])
    assert outcome.best == tmp_path / "checkpoints" / "step-000002"  # the first of equals
    assert sorted(f.name for f in outcome.best.parent.iterdir()) == ["step-000002", "step-000005"]
    assert outcome.metrics == {"score": 0.3}
    scorer = Scorer(adapted(model("llama", vocab_size=96), fresh=True))
    checkpoint.load_trainable(outcome.best, scorer)
    first = next(p for p in scorer.parameters() if p.requires_grad)
    assert torch.equal(first, kept[2])
    assert not torch.equal(first, kept[5])


def test_a_leading_minus_prefers_less(tmp_path: Path) -> None:
    plan = {"evaluate_every": 1, "best": "-score"}
    outcome = train(model("llama", vocab_size=96), tmp_path, plan=plan, evaluate=scripted(0.5, -0.2, 0.1, 0.0))
    assert outcome.best is not None
    assert outcome.best.name == "step-000002"


def test_patience(tmp_path: Path) -> None:
    plan = {"evaluate_every": 2, "best": "score", "patience": 2}
    scores = (0.5, 0.6, 0.6, 0.1, 0.9, 0.9)
    outcome = train(model("llama", vocab_size=96), tmp_path, steps=12, plan=plan, evaluate=scripted(*scores))
    assert (outcome.step, outcome.finished) == (8, True)  # best at 4; 6 and 8 are no better
    assert outcome.best is not None
    assert outcome.best.name == "step-000004"
    again = train(model("llama", vocab_size=96), tmp_path, steps=12, plan=plan, evaluate=scripted(), resume=True)
    assert (again.step, again.finished, again.best) == (8, True, outcome.best)  # it had ended, and has ended still


def test_unknown_metric(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.best: no metric 'accuracy'.*There are: score\."):
        train(model("llama", vocab_size=96), tmp_path, steps=1, plan={"best": "-accuracy"}, evaluate=scripted(1.0))


def test_evaluation_runs_in_evaluation_mode_and_is_logged(tmp_path: Path) -> None:
    base = model("llama", vocab_size=96)
    modes: list[bool] = []

    def evaluate() -> dict[str, float]:
        modes.append(base.training)
        return {"eval_x": 2.0}

    class Mode:
        def on_step_end(self, *_: Any, **__: Any) -> None:
            modes.append(base.training)

    train(base, tmp_path, steps=2, plan={"evaluate_every": 1}, evaluate=evaluate, callbacks=[Mode()])
    assert modes == [True, False, True, False]
    assert logged(tmp_path)[1] == {"step": 1, "eval_x": 2.0}


def test_schedules_are_functions_of_the_step() -> None:
    linear = rate_of(Plan(steps=10, warmup=4))
    assert [linear(s) for s in range(10)] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert linear(7) == linear(7) == pytest.approx(0.5)
    cosine = rate_of(Plan(steps=10, schedule="cosine"))
    assert [cosine(s) for s in (0, 5, 10)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert {rate_of(Plan(steps=10, schedule="constant"))(s) for s in range(10)} == {1.0}


def test_warmup_is_a_share_below_one_and_steps_from_one_on() -> None:
    share, steps = rate_of(Plan(steps=40, warmup=0.1)), rate_of(Plan(steps=40, warmup=4))
    assert [share(s) for s in range(40)] == [steps(s) for s in range(40)]
    assert rate_of(Plan(steps=40, warmup=1))(1) == 1.0  # one step, not all of them
    assert rate_of(Plan(steps=40))(0) == 1.0


@pytest.mark.parametrize("schedule", ["liner", "reduce_lr_on_plateau", "greedy"])
def test_bad_schedule(schedule: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"schedule: '{schedule}' is not a schedule of the step alone.*linear or cosine"
    ):
        rate_of(Plan(steps=10, schedule=schedule))


def test_logged_learning_rate_is_the_optimizers(tmp_path: Path) -> None:
    """The largest, where roles have rates of their own: as the report says."""
    used: list[float] = []

    def watch(optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_pre_hook(lambda o, *_: used.append(max(group["lr"] for group in o.param_groups)))

    adamw = AdamW(lr=0.005, lr_scale={"up": 4})
    train(model("llama", vocab_size=96), tmp_path, optimizer=adamw, plan={"warmup": 2}, watch=watch)
    assert used == pytest.approx([0.0, 0.01, 0.02, 0.01])
    assert [line["learning_rate"] for line in logged(tmp_path)] == used


def test_clipping(tmp_path: Path) -> None:
    sizes: list[float] = []

    def watch(optimizer: torch.optim.Optimizer) -> None:
        def look(o: torch.optim.Optimizer, *_: Any) -> None:
            grads = [p.grad for g in o.param_groups for p in g["params"]]
            sizes.append(sum(float(g.square().sum()) for g in grads) ** 0.5)

        optimizer.register_step_pre_hook(look)

    for limit in (0.01, 0.0):
        train(model("llama", vocab_size=96), tmp_path / str(limit), steps=1, plan={"max_grad_norm": limit}, watch=watch)
    free = logged(tmp_path / "0.0")[0]["grad_norm"]
    assert free > 0.1
    assert logged(tmp_path / "0.01")[0]["grad_norm"] == pytest.approx(free)  # the log tells the norm before clipping
    assert sizes == pytest.approx([0.01, free], rel=1e-4)


# --------------------------------------------------------------------------------------------------- two processes


def torchrun(script: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(TESTS / "scripts" / script), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.xdist_group("processes")  # two at a time on two cores starve each other
def test_two_processes_are_one(tmp_path: Path) -> None:
    torchrun("two_processes.py", str(tmp_path / "two"))
    train(model("llama", vocab_size=96), tmp_path / "one", batch_size=7, max_tokens=70)
    two = logged(tmp_path / "two")
    assert two[-1]["processes"] == 2
    shares = [json.loads((tmp_path / "two" / f"forwards-{rank}.json").read_text()) for rank in (0, 1)]
    assert shares[0] != shares[1]  # uneven
    steps = [line for line in two if "loss" in line]
    assert len(steps) == 4
    for found, wanted in zip(steps, logged(tmp_path / "one"), strict=True):
        same = {"loss", "logps/chosen", "rewards/margins", "rewards/accuracies", "grad_norm", "learning_rate"}
        assert {k: found[k] for k in same} == pytest.approx({k: wanted[k] for k in same}, rel=1e-4, abs=1e-5)
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-5)


@pytest.mark.xdist_group("processes")  # two at a time on two cores starve each other
def test_two_processes_couple_and_train_heads_as_one(tmp_path: Path) -> None:
    torchrun("two_coupled.py", str(tmp_path / "two"))
    train_more(lambda: model("llama", vocab_size=96), tmp_path / "one", max_tokens=10_000)
    for name in MORE:
        two, one = logged(tmp_path / "two" / name), logged(tmp_path / "one" / name)
        assert len(two) == len(one) == 3
        for found, wanted in zip(two, one, strict=True):
            same = wanted.keys() - {"num_tokens", "start/loss", "start/policy_minus_reference"}
            assert {k: found[k] for k in same} == pytest.approx({k: wanted[k] for k in same}, rel=1e-4, abs=2e-5), name


@pytest.mark.xdist_group("processes")  # two at a time on two cores starve each other
def test_scorer_under_fully_shard(tmp_path: Path) -> None:
    """FSDP2 on two gloo processes: log-probs, adapter gradients and the adapter-off reference are those of one."""
    torchrun("sharded.py", str(tmp_path))
    scorer = Scorer(adapted(model("llama")))
    batch = collate(questions())
    token = scorer(batch).token
    (token * torch.cos(torch.arange(token.numel(), dtype=token.dtype)).view_as(token)).sum().backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        assert found["sharded"]
        assert float((found["token"] - token.detach()).abs().max()) < 1e-5
        assert float((found["reference"] - adapter_off(scorer)(batch).token).abs().max()) < 1e-5
        assert apart(found["gradients"], gradients(scorer)) < 1e-5


if __name__ == "__main__":  # writes the pinned trajectory anew: PYTHONPATH=tests python tests/test_trainer.py
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        pinned = {
            "made": f"PYTHONPATH=tests python tests/test_trainer.py, torch {torch.__version__}, one thread, float32",
            "losses": [round(loss, 7) for loss in trajectory(Path(scratch))],
        }
    PINNED.write_text(json.dumps(pinned, indent=1) + "\n", encoding="utf-8")
