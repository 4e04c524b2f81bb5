"""Weights shared out over two processes: the same numbers as one process, half of the weights each, nobody waits for
ever; and what cannot be done is refused before anything is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from _build import apart
from _toy import Toy, jsonl, pairs
from grainline import models
from grainline import recipe as recipes
from grainline.engine import reference_kind
from grainline.errors import RecipeError
from grainline.forecast import forecast
from grainline.forward import Scorer
from grainline.prepare import prepare
from grainline.runs import Run, align
from grainline.sharding import check_sharing, in_step, is_sharded

TESTS = Path(__file__).parent


def shared_out(runs: list[dict[str, Any]], folder: Path) -> list[list[dict[str, int]]]:
    """Carry ``runs`` out on two processes; what each tells of each run."""
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(TESTS / "scripts" / "shared_out.py"), str(folder / "runs.json"), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"told-{process}.json").read_text()) for process in (0, 1)]


@pytest.mark.xdist_group("processes")
def test_two_processes_are_one_whatever_is_asked(toy: Toy, tmp_path: Path) -> None:
    """Layers that run again, a stop and a resumed run; all rows judged together, by an adapter of ours; an objective
    with modules of its own; an adapter that goes on, on a base in half precision."""
    few = jsonl(tmp_path / "few.jsonl", pairs(1, prompts=1, seed=5))  # one process has nothing to evaluate
    common = {"max_tokens": 80, "evaluation": {"data": {"few": few}, "samples": 0}, "steps": 2}
    recomputed = {"name": toy.model, "gradient_checkpointing": True}
    further = {"name": toy.model, "adapter": str(tmp_path / "one" / "off" / "adapter"), "dtype": "bfloat16"}
    runs: dict[str, dict[str, Any]] = {
        "off": {"model": recomputed, "reference": "off", "batch_size": 7, "max_tokens": 20, "steps": 4},
        "coupled": {"objective": "kto", "data": toy.labelled, "adapter": "ropo"},
        "heads": {"objective": "sparsepo", "layout": "padded"},
        "further": {"model": further, "adapter": "lora"},
    }
    every = {name: toy.choices(tmp_path / "one" / name, **common | choices) for name, choices in runs.items()}
    alone = {name: align(**choices) for name, choices in every.items()}
    first, *others = (c | {"out": str(tmp_path / "two" / name), "shard": True} for name, c in every.items())
    told = shared_out([first | {"stop": 2}, first | {"resume": True}, *others], tmp_path)
    for weights in told[0] + told[1]:  # embeddings and head stay whole
        assert weights["here"] - weights["ends"] == pytest.approx((weights["all"] - weights["ends"]) / 2, rel=0.01)
    assert told[1][0]["reads along"] > told[0][0]["reads along"]  # the other had the row of the evaluation
    assert [run["learns along"] for run in told[1][:2]] == [2, 2]  # 7 rows, 4 and 3 forwards a step
    for name, one in alone.items():
        same(Run(tmp_path / "two" / name), one, half_since=alone["off"] if name == "further" else None)
    planned = forecast(*prepared(first | {"shard": True}), processes=2)
    assert sum(planned.memory.weights.values()) == told[0][0]["here"]
    assert planned.steps.tokens == Run(tmp_path / "two" / "off").metrics[-2]["num_tokens"]


def prepared(choices: dict[str, Any]) -> tuple[Any, Any]:
    recipe = recipes.load({key: value for key, value in choices.items() if key != "progress"})
    return recipe, prepare(recipe, models.load_tokenizer(recipe.model))


def same(two: Run, one: Run, *, half_since: Run | None) -> None:
    """Two processes measured and learnt what one did, up to rounding.

    ``half_since``: whose adapter they went on from, on a base in half precision. There Adam moves a weight whose
    gradient is next to nothing either way, as rounding has it; so all that was learnt is compared as one.
    """
    near = {"abs": 0.05, "rel": 0.05} if half_since else {"abs": 2e-4, "rel": 1e-5}
    assert len(one.metrics) == len(two.metrics) >= 4
    for found, wanted in zip(two.metrics, one.metrics, strict=True):
        keys = {key for key in wanted if key not in ("seconds", "num_tokens") and "accuracies" not in key}
        assert {key: found[key] for key in keys} == pytest.approx({key: wanted[key] for key in keys}, **near)
        if not half_since:
            assert found.get("loss", 0) == pytest.approx(wanted.get("loss", 0), abs=1e-5)
    tensors = [load_file(run.adapter / "adapter_model.safetensors") for run in (two, one)]
    assert tensors[0].keys() == tensors[1].keys()
    if half_since:
        start = load_file(half_since.adapter / "adapter_model.safetensors")
        learnt = [{name: tensor - start[name] for name, tensor in found.items()} for found in tensors]
        assert apart(*learnt) < 0.05
        return
    for name, wanted in tensors[1].items():
        torch.testing.assert_close(tensors[0][name], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("where", "why", "choices"),
    [
        ("adapter", "all weights would train", {"adapter": "none"}),
        ("adapter", "its start would change", {"adapter": "lora:init=pissa"}),
        ("model.load_in_4bit", "no tensors of numbers", {"model": {"name": "some", "load_in_4bit": True}}),
        ("reference", "a second model", {"reference": "snapshot"}),
        ("max_tokens", "one process alone", {"max_tokens": "auto"}),
        ("evaluation.geometry", "whole matrices", {"evaluation": {"geometry": True}}),
    ],
)
def test_what_needs_whole_weights_is_refused(where: str, why: str, choices: dict[str, Any]) -> None:
    recipe = recipes.load({"model": "some", "data": "some.jsonl", "shard": True} | choices)
    with pytest.raises(RecipeError, match=f"{where}: with shard=true, .*{why}.* or shard to false"):
        check_sharing(recipe, reference_kind(recipe), processes=2)


def test_one_process_has_nobody_to_share_with(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"shard: one process.* torchrun"):
        align(**toy.choices(tmp_path / "run", shard=True))
    assert not (tmp_path / "run").exists()


def test_whole_weights_are_left_alone(tiny_llama: Any) -> None:
    scorer = Scorer(tiny_llama)
    assert not is_sharded(scorer)
    with in_step(scorer):  # no process group is asked
        scorer.glance()
