"""An objective's own modules: trained beside the adapter, in groups of their own, saved, resumed and never exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from _build import adapted, model
from _toy import Toy
from grainline import heads, rooms
from grainline.errors import SpecError
from grainline.forward import Scorer
from grainline.runs import align
from grainline.types import Dims

DIMS = Dims(hidden=6, layers=3, vocabulary=9)


def test_who_has_none() -> None:
    scorer = Scorer(model("llama"))
    heads.attach(rooms.parse("objectives", "dpo + sft"), scorer)
    assert scorer.heads is None
    assert heads.tagged(scorer.heads) == []


@pytest.mark.parametrize(
    ("text", "roles"),
    [("sparsepo", {"mask"}), ("dnpo", {"noise"}), ("sft + 0.5*sparsepo + dnpo", {"mask", "noise"})],
)
def test_roles_and_sizes(text: str, roles: set[str]) -> None:
    scorer = Scorer(adapted(model("gemma3")))
    heads.attach(rooms.parse("objectives", text), scorer)
    found = heads.tagged(scorer.heads)
    assert {tagged.role for tagged in found} == roles
    assert {tagged.name for tagged in found} == {n for n, _ in scorer.named_parameters() if n.startswith("heads.")}
    if text == "sparsepo":
        sizes = {tagged.name.split(".")[-1]: tuple(tagged.tensor.shape) for tagged in found}
        assert sizes["mixer"] == (1, 2)
        assert tuple(scorer.heads.masks["mask"].weight.shape) == (2, 32)  # type: ignore[union-attr, index, operator]


def test_a_sum_keeps_its_summands_apart() -> None:
    built = heads.build(rooms.parse("objectives", "sparsepo + 0.5*sparsepo:masks=independent"), DIMS)
    assert built is not None
    assert built.names == ("0.mask", "1.reward_mask", "1.kl_mask")


EVALUATION = {"samples": 0}


@pytest.mark.parametrize("objective", ["sparsepo:module=simple_last", "dnpo:updates=alternating"])
def test_they_are_trained_saved_resumed_and_not_exported(objective: str, toy: Toy, tmp_path: Path) -> None:
    role = "mask" if "sparse" in objective else "noise"
    held_out = {"data": {"test": toy.held_out}, **EVALUATION}
    choices = toy.choices(
        tmp_path / "run", objective=objective, steps=4, checkpoints={"every": 2, "keep": 9}, evaluation=held_out
    )
    run = align(**choices)
    assert role in json.loads((run.folder / "provenance.json").read_text())["run"]["roles"]
    saved = [load_file(run.folder / "checkpoints" / f"step-00000{k}" / "state.safetensors") for k in (2, 4)]
    own = [name for name in saved[0] if name.startswith("model.heads.")]
    assert own
    assert any(not torch.equal(saved[0][name], saved[1][name]) for name in own)  # they moved
    assert not any("heads" in name for name in load_file(run.adapter / "adapter_model.safetensors"))
    wanted = [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics]
    for file in ("step-000004", "step-000003"):
        for part in (run.folder / "checkpoints").glob(f"{file}*"):
            for inner in part.iterdir():
                inner.unlink()
            part.rmdir()
    (run.folder / "results.json").unlink()
    again = align(**choices, resume=True)
    assert [{k: v for k, v in line.items() if k != "seconds"} for line in again.metrics] == wanted
    later = again.evaluate(toy.held_out)["test"]["rewards/margins"]  # of the adapter alone
    assert later == pytest.approx(again.summary()["eval_test_rewards/margins"], abs=1e-5)


def test_their_rate_can_be_set_apart(toy: Toy, tmp_path: Path) -> None:
    run = align(
        **toy.choices(tmp_path / "run", objective="sparsepo", optimizer="adamw:lr=1e-2,lr_scale.mask=0", steps=2)
    )
    state = load_file(run.folder / "checkpoints" / "step-000002" / "state.safetensors")
    assert state["model.heads.masks.mask.norm.weight"].eq(1).all()  # where it was born
    with pytest.raises(SpecError, match="no parameter has the role 'mask'"):
        align(**toy.choices(tmp_path / "none", optimizer="adamw:lr=1e-2,lr_scale.mask=0"))
