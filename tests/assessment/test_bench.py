"""Who is measured: the reference is what training started from, however it started."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from _toy import Toy
from grainline import models
from grainline.assessment import bench as bench_module
from grainline.assessment.bench import Bench, Measured, fingerprint
from grainline.data.collate import collate
from grainline.evaluation import by_token
from grainline.launch import accelerator_for
from grainline.prepare import prepare_held_out
from grainline.recipe import HeldOutChoice
from grainline.runs import Run, align


def bench(run: Run, toy: Toy) -> tuple[Bench, Any]:
    recipe = run.recipe
    sets = {"test": HeldOutChoice(path=toy.held_out)}
    examples, _ = prepare_held_out(recipe, sets, models.load_tokenizer(recipe.model))
    return Bench(Measured(recipe, run.adapter, "x"), examples["test"], accelerator_for(recipe)), examples["test"]


@pytest.mark.parametrize(
    "choices",
    [{"adapter": "lora:rank=2"}, {"adapter": "lora:rank=2,init=pissa"}, {"adapter": "none"}, {"objective": "simpo"}],
    ids=str,
)
def test_the_reference_is_the_start(choices: dict[str, Any], toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", **choices))
    made, examples = bench(run, toy)
    batch = collate(examples[:3], layout=made.engine.layout)
    from grainline.forward import Scorer

    base = Scorer(models.load(toy.model).model.eval(), packed=made.engine.layout != "padded")
    with torch.no_grad():
        wanted, policy = base(batch).token, made.voices.policy.scorer(batch).token
    said = made.against(batch)
    torch.testing.assert_close(said.token, wanted, atol=1e-4, rtol=0)
    assert said.hidden is not None
    assert (policy - wanted).abs().max() > 1e-3


def test_going_on_starts_at_the_old_adapter(toy_run: Run, toy: Toy, tmp_path: Path) -> None:
    model = {"name": toy.model, "adapter": str(toy_run.adapter)}
    run = align(**toy.choices(tmp_path / "run", model=model, adapter="lora"))
    made, examples = bench(run, toy)
    before, _ = bench(toy_run, toy)
    batch = collate(examples[:3], layout=made.engine.layout)
    with torch.no_grad():
        wanted = before.voices.policy.scorer(batch).token
    torch.testing.assert_close(made.against(batch).token, wanted, atol=1e-4, rtol=0)


def test_masks_are_those_of_the_adapters_step(toy: Toy, tmp_path: Path) -> None:
    """A run of SparsePO keeps its masks in its checkpoints: they are measured; without them they are not."""
    run = align(**toy.choices(tmp_path / "run", objective="sparsepo", steps=2, checkpoints={"every": 1, "keep": 3}))
    found = run.evaluate(toy.held_out, progress=False)["test"]
    lines = (run.folder / "evaluation" / "test" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    values = [v for line in map(json.loads, lines) for role in ("chosen", "rejected") for v in line[role]["mask mask"]]
    assert found["masks/mask/mean"] == pytest.approx(sum(values) / len(values))
    assert found["masks/mask/mean"] > 0
    tokens = (run.folder / "evaluation" / "test" / "tokens.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(json.loads(tokens[0])["answers"][0]["mask"]) == len(json.loads(tokens[0])["answers"][0]["tokens"])
    for file in (run.folder / "checkpoints").glob("step-000002/*"):
        file.unlink()
    assert bench(run, toy)[0].voices.policy.scorer.heads is None


def test_fingerprints_differ(toy_run: Run, toy: Toy, tmp_path: Path) -> None:
    full = align(**toy.choices(tmp_path / "run", adapter="none", steps=1))
    assert len({fingerprint(toy_run.adapter), fingerprint(full.adapter), fingerprint(Path(toy.model))}) == 3


def test_a_memory_that_is_full_makes_smaller_forwards(toy_run: Run, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    made, examples = bench(toy_run, toy)
    wanted = made.rows(examples, by_token.look).rows
    own, sizes = made.engine.evaluate, []

    def full(*args: Any, **options: Any) -> Any:
        sizes.append(made.engine.recipe.tokens_at_once)
        if sizes[-1] > 300:
            raise torch.OutOfMemoryError
        return own(*args, **options)

    monkeypatch.setattr(made.engine, "evaluate", full)
    found = made.rows(examples, by_token.look).rows
    assert sizes == [1024, 512, 256]
    for a, b in zip(found, wanted, strict=True):
        assert a["rewards/margins"] == pytest.approx(b["rewards/margins"], abs=1e-5)
    monkeypatch.setattr(bench_module, "LEAST", 300)
    made.engine.recipe = dataclasses.replace(made.engine.recipe, max_tokens=512)
    with pytest.raises(torch.OutOfMemoryError):
        made.rows(examples, by_token.look)
