"""A reference that follows the policy: how far, for which adapters, after a resume, and what it cannot be."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from _build import adapted, model, questions
from _toy import Toy
from grainline import recipe as recipes
from grainline.data.collate import collate
from grainline.engine import reference_kind
from grainline.errors import RecipeError
from grainline.forward import Scorer
from grainline.runs import align
from grainline.synchronise import Synchronise, merged


def moved(policy: Any, reference: Any, folder: Path, share: float, step: int = 4) -> Synchronise:
    follow = Synchronise(policy, reference, folder, every=4, share=share)
    follow.on_step_end(None, SimpleNamespace(global_step=step), None)
    return follow


def test_by_hand(tmp_path: Path) -> None:
    """0.75 of the old weights and 0.25 of the base's plus B A (scaled by alpha / rank), and only at the fourth step."""
    base = model("llama", torch.float64)
    reference = copy.deepcopy(base)
    policy = adapted(base)
    before = reference.model.layers[0].self_attn.q_proj.weight.clone()
    moved(policy, reference, tmp_path, 0.25, step=3)
    assert torch.equal(reference.model.layers[0].self_attn.q_proj.weight, before)
    moved(policy, reference, tmp_path, 0.25)
    layer = policy.base_model.model.model.layers[0].self_attn.q_proj
    change = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(
        reference.model.layers[0].self_attn.q_proj.weight, before + 0.25 * change.detach(), rtol=1e-9, atol=1e-9
    )


def test_a_whole_share_is_the_policy(tmp_path: Path) -> None:
    base = model("llama", torch.float64)
    policy = adapted(base, targets=("q_proj", "lm_head"))
    reference = merged(policy)
    with torch.no_grad():
        for name, tensor in policy.named_parameters():
            if "lora_B" in name:
                tensor.mul_(-3)
    own = {name: tensor.clone() for name, tensor in policy.named_parameters()}
    moved(policy, reference, tmp_path, 1.0)
    batch = collate(questions())
    with torch.no_grad():
        torch.testing.assert_close(Scorer(reference)(batch).token, Scorer(policy)(batch).token, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, own[name]) for name, tensor in policy.named_parameters())  # who is only looked at


def test_a_resumed_run_goes_on_with_the_same_reference(toy: Toy, tmp_path: Path) -> None:
    choices = toy.choices(
        tmp_path / "run", steps=5, synchronise={"every": 2, "share": 0.5}, checkpoints={"every": 3, "keep": 9}
    )
    run = align(**choices)

    def lines() -> list[dict[str, float]]:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics]

    wanted = lines()
    last = run.folder / "checkpoints" / "step-000005"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    (run.folder / "results.json").unlink()
    align(**choices, resume=True)
    assert lines() == wanted
    assert sorted(f.name for f in (run.folder / "synchronised").iterdir()) == [
        "step-000002.safetensors",
        "step-000004.safetensors",
    ]


def test_the_divergence_is_from_where_the_reference_stands(toy: Toy, tmp_path: Path) -> None:
    """With a whole share after every step the reference is the policy at every forward, with the head adapted too."""
    adapter = "lora:rank=4,targets=[q_proj,lm_head]"
    choices: dict[str, Any] = {"objective": "tdpo", "adapter": adapter, "steps": 4, "schedule": "constant", "warmup": 0}
    still = align(**toy.choices(tmp_path / "still", **choices)).metrics[-1]["kl/chosen"]
    follows = align(**toy.choices(tmp_path / "follows", synchronise={"every": 1, "share": 1.0}, **choices))
    assert abs(follows.metrics[-1]["kl/chosen"]) < 1e-4 < still


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"reference": "cache"}, "cannot be 'cache'"),
        ({"reference": "off"}, "cannot be 'off'"),
        ({"objective": "sft"}, "no reference that could follow"),
    ],
)
def test_what_does_not_go_together(choices: dict[str, Any], said: str, toy: Toy) -> None:
    recipe = recipes.load({"model": toy.model, "data": toy.pairs, "synchronise": {"every": 2}} | choices)
    with pytest.raises(RecipeError, match=said):
        reference_kind(recipe)


def test_trls_names() -> None:
    said = {"sync_ref_model": True, "ref_model_sync_steps": 64, "ref_model_mixup_alpha": 0.3}
    recipe = recipes.load({"model": "m", "data": "d", **said}, notice=lambda _: None)
    assert (recipe.synchronise.every, recipe.synchronise.share) == (64, 0.3)
    recipe = recipes.load({"model": "m", "data": "d", **said, "sync_ref_model": False}, notice=lambda _: None)
    assert recipe.synchronise.every == 0
