"""Runs in processes of their own: two at once, killed in the middle, without network, read by others' scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from _toy import Toy
from grainline import recipe as recipes
from grainline import replay
from grainline.runs import Run, align


def launch(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A new Python with ``arguments``; the toy's cache comes with the environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=clean | environment, timeout=300
    )


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]


def written(choices: dict[str, Any], file: Path) -> str:
    """The recipe as a file, as a person would start it."""
    choices = {key: value for key, value in choices.items() if key != "progress"}
    file.write_text(recipes.dump(recipes.load(choices)), encoding="utf-8")
    return str(file)


def without_clock(run: Run) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics]


# ------------------------------------------------------------------------------------------------------- kill -9

MORTAL = '''
"""DPO that is killed in the middle of a step, once."""

import os
import signal
from pathlib import Path
from typing import ClassVar

from grainline.objectives.dpo import DPO
from grainline.types import spec

CALLS = 0


@spec
class Mortal:
    needs: ClassVar[frozenset[str]] = DPO.needs

    grave: str = ""
    """File that is there once it has died."""
    calls: int = 0
    """How many calls it lives."""

    def __call__(self, policy, reference, batch, heads):
        global CALLS
        CALLS += 1
        if CALLS > self.calls and not Path(self.grave).exists():
            Path(self.grave).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return DPO()(policy, reference, batch, heads)
'''


def test_a_killed_run_goes_on_as_if_nothing_had_happened(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL, encoding="utf-8")
    grave = tmp_path / "grave"
    choices = toy.choices(
        tmp_path / "run",
        objective=f'{tmp_path}/mortal.py:grave="{grave}",calls=13',  # three calls a step: it dies in the fifth
        adapter="lora:rank=4,dropout=0.1",
        steps=8,
        checkpoints={"every": 2, "keep": 3},
    )
    recipe = written(choices, tmp_path / "recipe.yaml")
    killed = launch(["-m", "grainline", "align", recipe])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert grave.exists()
    run = Run(tmp_path / "run")
    assert not run.finished
    assert [line["step"] for line in run.metrics if "loss" in line] == [1, 2, 3, 4]
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:  # the line it was writing
        stream.write('{"step": 5, "lo')
    align(**choices, resume=True)
    whole = align(**choices | {"out": str(tmp_path / "whole")})
    assert without_clock(run) == without_clock(whole)
    one, other = (load_file(r.adapter / "adapter_model.safetensors") for r in (run, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------- two processes


@pytest.mark.xdist_group("processes")
def test_two_processes_are_one(toy: Toy, tmp_path: Path) -> None:
    evaluation = {"data": {"test": toy.held_out}, "every": 2, "samples": 3}
    choices = toy.choices(tmp_path / "two", steps=4, evaluation=evaluation, checkpoints={"every": 2})
    recipe = written(choices, tmp_path / "recipe.yaml")
    done = launch([*TORCHRUN, "grainline", "align", recipe, "--json"], OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    alike(Run(tmp_path / "two"), align(**choices | {"out": str(tmp_path / "one")}))


def alike(two: Run, one: Run) -> None:
    """Two processes learnt, measured and wrote what one did."""
    facts = json.loads((two.folder / "provenance.json").read_text(encoding="utf-8"))
    assert facts["run"]["processes"] == 2
    assert len(two.metrics) == len(one.metrics) >= 6
    for found, wanted in zip(two.metrics, one.metrics, strict=True):
        same = {k for k in wanted if k not in ("seconds", "num_tokens") and "accuracies" not in k}
        assert found.keys() == wanted.keys()
        assert {k: found[k] for k in same} == pytest.approx({k: wanted[k] for k in same}, abs=2e-4, rel=1e-5)
        assert found.get("loss", 0) == pytest.approx(wanted.get("loss", 0), abs=1e-5)
    assert two.summary()["eval_test_rewards/accuracies"] == one.summary()["eval_test_rewards/accuracies"]
    pair = [load_file(r.adapter / "adapter_model.safetensors") for r in (two, one)]
    for name in pair[1]:
        torch.testing.assert_close(pair[0][name], pair[1][name], atol=1e-4, rtol=1e-3)


@pytest.mark.xdist_group("processes")
def test_two_processes_that_share_weights_are_one(toy: Toy, tmp_path: Path) -> None:
    """FSDP2 in the loop: reference, steps of several forwards, evaluation, the best checkpoint, samples, export."""
    evaluation = {"data": {"test": toy.held_out}, "every": 2, "samples": 1, "best": "eval_test_rewards/margins"}
    choices = toy.choices(tmp_path / "two", steps=5, evaluation=evaluation, max_tokens=80)
    recipe = written(choices | {"shard": True}, tmp_path / "recipe.yaml")
    done = launch([*TORCHRUN, "grainline", "align", recipe, "--json"], OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    two, one = Run(tmp_path / "two"), align(**choices | {"out": str(tmp_path / "one")})
    alike(two, one)
    assert [row.keys() for row in two.samples()] == [row.keys() for row in one.samples()]
    assert two.samples()[0]["reference"] == one.samples()[0]["reference"]
    # From here on one process holds all weights again.
    assert two.export(tmp_path / "lora")["max_error_nats"] < 1e-4
    found = two.evaluate({"again": toy.held_out}, progress=False)["again"]
    assert found["rewards/margins"] == pytest.approx(two.summary()["eval_test_rewards/margins"], abs=1e-4)
    again = replay.replay(two.folder, tmp_path / "again", steps=1, progress=False)
    assert again.compared.steps == 1
    assert again.elsewhere["run.processes"] == (2, 1)


# ------------------------------------------------------------------------------------------------------ plain PEFT

READER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, *adapters = sys.argv[1:]
for adapter in adapters:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    said = json.load(open(f"{adapter}/probe.json"))
    ids = torch.tensor([said["ids"]])
    with torch.no_grad():
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        with model.disable_adapter():
            off = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    wanted = torch.tensor(said["token_logps"])
    print(float((logp - wanted).abs().max()), float((off - wanted).abs().max()))
assert not any(name.startswith("grainline") for name in sys.modules)
"""


def test_plain_peft_reads_what_is_exported(toy_run: Run, toy: Toy, tmp_path: Path) -> None:
    """``probe.json`` holds what the live model said after training, so a plain script can be held against it."""
    pissa = align(**toy.choices(tmp_path / "pissa", adapter="lora:rank=4,init=pissa"))
    for name, run in (("lora", toy_run), ("pissa-plain", pissa)):
        assert run.export(tmp_path / name)["max_error_nats"] < 1e-4
    (tmp_path / "reader.py").write_text(READER, encoding="utf-8")
    said = launch([str(tmp_path / "reader.py"), toy.model, str(tmp_path / "lora"), str(tmp_path / "pissa-plain")])
    assert said.returncode == 0, said.stderr
    for line in said.stdout.splitlines():
        on, off = map(float, line.split())
        assert on < 1e-4
        assert off > 1e-2  # it is the adapter that says so
    assert len(said.stdout.splitlines()) == 2
