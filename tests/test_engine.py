"""The engine: an exact layout, a reference that is the model training starts from, one evaluation for all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from _toy import Toy, write_model
from grainline import models
from grainline import recipe as recipes
from grainline.data.collate import collate
from grainline.engine import Engine
from grainline.errors import ModelError, RecipeError, RunError
from grainline.forward import Scorer, probe_examples, voices
from grainline.prepare import prepare
from grainline.runs import Run, align
from grainline.types import Batch, Example, LogProbs


class World:
    """An engine and the examples it was built with."""

    def __init__(self, toy: Toy, **choices: Any) -> None:
        self.recipe = recipes.load({"model": toy.model, "data": toy.pairs, "adapter": "lora:rank=4"} | choices)
        self.loaded = models.load(self.recipe.model)
        self.examples: list[Example] = prepare(self.recipe, self.loaded.tokenizer).train
        self.engine = Engine.build(self.recipe, self.loaded.model, self.examples, Accelerator(cpu=True))

    def batch(self, count: int = 6) -> Batch:
        return collate(self.examples[:count], rows=self.engine.rows, layout=self.engine.layout)

    def reference(self) -> Any:
        return self.engine.reference(self.examples, quiet=True)


def shake(model: Any) -> None:
    """Give a fresh LoRA something to say."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.copy_(0.1 * torch.randn_like(tensor))


# --------------------------------------------------------------------------------------------------------- the layout


@pytest.mark.parametrize(
    ("choices", "layout"),
    [({}, "tree"), ({"layout": "packed"}, "packed"), ({"adapter": "lora:rank=4,dropout=0.1"}, "packed"),
     ({"layout": "padded"}, "padded")],
    ids=str,
)  # fmt: skip
def test_the_first_layout_that_is_exact(choices: dict[str, Any], layout: str, toy: Toy) -> None:
    engine = World(toy, **choices).engine
    assert engine.layout == layout
    assert engine.scorer.packed == (layout != "padded")
    assert f"{layout}: differs from the plain model by" in engine.why


def test_a_layout_that_the_adapter_forbids(toy: Toy) -> None:
    with pytest.raises(RecipeError, match=r"layout: .*not exact in the tree layout\. Choose auto or packed or padded"):
        World(toy, adapter="lora:rank=4,dropout=0.1", layout="tree")


def test_the_probe_shows_a_shared_prompt_and_the_longest_row(toy: Toy) -> None:
    examples = World(toy).examples

    def size(example: Example) -> int:
        return len(example.prompt) + max(len(answer.ids) for answer in example.answers)

    few = probe_examples(examples, length=max(map(size, examples)))
    assert max(map(size, few)) == max(map(size, examples))
    prompts = [example.prompt for example in few]
    assert len(set(prompts)) < len(prompts) <= 6
    assert len(probe_examples(examples[:1], length=9999)) == 2  # whatever there is


def test_dropout_of_the_model_is_off(toy: Toy, tmp_path: Path) -> None:
    write_model(tmp_path / "model", attention_dropout=0.5)
    world = World(toy, model=str(tmp_path / "model"))
    world.engine.attach(tmp_path)
    world.engine.scorer.train()
    with torch.no_grad():
        one, other = (world.engine.scorer(world.batch()).token for _ in range(2))
    assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize("kind", ["off", "snapshot", "cache"])
def test_the_reference_is_the_model_before_training(kind: str, toy: Toy, tmp_path: Path) -> None:
    world = World(toy, reference=kind)
    batch = world.batch()
    with torch.no_grad():
        before = world.engine.scorer(batch).token
    reference = world.reference()
    world.engine.attach(tmp_path)
    shake(world.engine.scorer.model)
    said: LogProbs = reference(batch)
    assert not said.token.requires_grad
    torch.testing.assert_close(said.token, before, atol=1e-5, rtol=0)
    assert float((world.engine.scorer(batch).token.detach() - before).abs().max()) > 0.1
    assert torch.equal(said.mask, batch.rows >= 0)


def test_auto_is_the_cache(toy: Toy) -> None:
    assert World(toy).engine.kind == "cache"


def test_no_reference_where_none_is_needed(toy: Toy) -> None:
    world = World(toy, objective="sft")
    assert world.reference() is None
    assert world.engine.rows == "chosen"


def test_every_model_has_a_cache_of_its_own(toy: Toy, toy_run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "other", initializer_range=0.1)
    for model in (toy.model, str(tmp_path / "other"), {"name": toy.model, "adapter": str(toy_run.adapter)}, toy.model):
        world = World(toy, model=model, adapter="lora")
        batch = world.batch()
        with torch.no_grad():
            torch.testing.assert_close(
                world.reference()(batch).token, world.engine.scorer(batch).token, atol=1e-5, rtol=0
            )
    names = sorted(folder.name for folder in (tmp_path / "cache" / "reference").iterdir())
    assert len(names) == 3
    assert sum(name.startswith(world.engine.fingerprint[:32]) for name in names) == 2  # alone, and with the adapter
    assert world.engine.verified is not None


def test_a_cache_that_lies_is_found_out(toy: Toy, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    World(toy).reference()
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {"logprobs": tensors["logprobs"] - 0.01}, file)
    with pytest.raises(RunError, match=r"differ from the model's by 1\.0e-02 nats.*Delete the folder"):
        World(toy).reference()


# -------------------------------------------------------------------------------------------------------- the adapter


def test_the_adapters_start_depends_on_the_seed_alone(toy: Toy, tmp_path: Path) -> None:
    starts = []
    for seed in (0, 0, 1):
        world = World(toy, seed=seed)
        torch.rand(seed + len(starts))  # whatever happened before
        world.engine.attach(tmp_path)
        starts.append({n: p.detach() for n, p in world.engine.scorer.model.named_parameters() if "lora_A" in n})
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not any(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_a_start_that_is_taken_out_of_the_base_is_kept(toy: Toy, tmp_path: Path) -> None:
    for adapter, kept in (("lora:rank=4", False), ("lora:rank=4,init=pissa", True), ("none", False)):
        folder = tmp_path / adapter.replace(":", "-")
        World(toy, adapter=adapter).engine.attach(folder)
        assert (folder / "initial").is_dir() == kept, adapter


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_a_learnt_prompt_starts_apart_from_its_reference(kind: str, toy: Toy, tmp_path: Path) -> None:
    """The reference is the model without the prompt: cached, or read with the prompt off; the start says how far."""
    choices = {"adapter": f"peft:type={kind},num_virtual_tokens=4", "evaluation": {"data": toy.held_out, "samples": 0}}
    cached, off = (align(**toy.choices(tmp_path / of, reference=of, **choices)) for of in ("cache", "off"))
    before, first = cached.metrics[:2]
    assert first["start/policy_minus_reference"] > 0.01
    assert abs(first["start/loss"] - first["start/constant"]) > 1e-5
    assert before["eval_test_rewards/margins"] != 0  # of the policy, prompt and all
    for mine, other in zip(cached.metrics, off.metrics, strict=True):
        same = mine.keys() - {"seconds"}
        assert {key: other[key] for key in same} == pytest.approx({key: mine[key] for key in same}, abs=1e-4)


def test_going_on_attaches_nothing_new(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    world = World(toy, model={"name": toy.model, "adapter": str(toy_run.adapter)}, adapter="lora")
    before = world.engine.scorer.model
    world.engine.attach(tmp_path)
    assert world.engine.scorer.model is before
    trainable = [name for name, p in before.named_parameters() if p.requires_grad]
    assert len(trainable) == len(load_file(toy_run.adapter / "adapter_model.safetensors"))


def test_an_adapter_of_another_model(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "wider", hidden_size=48, intermediate_size=96)
    with pytest.raises(ModelError, match="Another base model"):
        World(toy, model={"name": str(tmp_path / "wider"), "adapter": str(toy_run.adapter)}, adapter="lora")


# --------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_keeps_the_datas_order_and_is_zero_at_the_start(toy: Toy, tmp_path: Path) -> None:
    world = World(toy, reference="off", max_tokens=120)
    reference = world.reference()
    world.engine.attach(tmp_path)
    found = world.engine.evaluate(world.examples, reference)
    assert [row["id"] for row in found.rows] == [example.record.id for example in world.examples]
    assert found.metrics["rewards/margins"] == 0
    assert found.metrics["rewards/accuracies"] == 0.5  # ties count one half
    assert found.metrics["rows"] == 40
    assert len(world.engine.forwards(world.examples)) > 5
    shake(world.engine.scorer.model)
    again = world.engine.evaluate(world.examples, reference)
    chosen = [row["rewards/chosen"] - row["rewards/rejected"] for row in again.rows]
    assert chosen == pytest.approx([row["rewards/margins"] for row in again.rows], abs=1e-5)
    assert again.metrics["rewards/margins"] == pytest.approx(sum(chosen) / 40, abs=1e-5)
    assert again.metrics["rewards/accuracies"] == pytest.approx(sum(c > 0 for c in chosen) / 40)


def test_processes_share_the_forwards(toy: Toy) -> None:
    engine = World(toy, max_tokens=120).engine
    examples = World(toy).examples

    class Rank:
        num_processes = 3

        def __init__(self, index: int) -> None:
            self.process_index = index

    shares = []
    for index in range(3):
        engine.accelerator = Rank(index)  # type: ignore[assignment]
        shares.append([row for batch in engine.forwards(examples) for row in batch.facts.ids])
    assert sorted(row for share in shares for row in share) == sorted(e.record.id for e in examples)
    assert all(shares)


def test_facts(toy: Toy, tmp_path: Path) -> None:
    world = World(toy)
    facts = world.engine.facts([])
    assert (facts["processes"], facts["layout"], facts["reference"], facts["trainable"]) == (1, "tree", "cache", 0)
    assert World(toy, objective="sft").engine.facts([])["reference"] is None
    assert world.engine.fingerprint == models.fingerprint(world.loaded.model)
    assert world.engine.tolerance == 1e-3
    assert World(toy, model={"name": toy.model, "dtype": "bfloat16"}).engine.tolerance == 2.0


# ------------------------------------------------------------------------------- more of the reference than log-probs


@pytest.mark.parametrize(
    "choices",
    [
        {"reference": "cache"},
        {"reference": "off"},
        {"reference": "snapshot"},
        {"reference": "cache", "adapter": "lora:rank=4,targets=[q_proj,lm_head]"},
        {"reference": "off", "adapter": "lora:rank=4,targets=[q_proj,lm_head]"},
        {"reference": "snapshot", "adapter": "none"},
        {"reference": "cache", "adapter": "none"},
    ],
    ids=str,
)
def test_the_divergence_is_from_the_model_before_training(choices: dict[str, Any], toy: Toy, tmp_path: Path) -> None:
    """Whoever keeps the reference, and whatever becomes of the head: only a head that changes is held twice."""
    world = World(toy, objective="tdpo", **choices)
    engine, batch = world.engine, world.batch()
    before = copy.deepcopy(engine.scorer.causal)
    reference = world.reference()
    engine.attach(tmp_path)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (p for p in engine.scorer.parameters() if p.requires_grad):
            tensor.add_(0.1 * torch.randn_like(tensor))
        found, against = voices(engine.scorer, reference, batch, world.recipe.objective.needs)
        truth = Scorer(before)
        wanted = truth(batch)
        assert torch.allclose(against.token, wanted.token, rtol=0, atol=1e-5)  # type: ignore[union-attr]
        hidden = truth(batch, keep=("hidden",))
        engine.scorer.reference_head = before.get_output_embeddings()
        wanted = engine.scorer(batch, hidden, kl=True)
    assert found.kl is not None
    assert float(found.kl.max()) > 1e-3
    assert torch.allclose(found.kl, wanted.kl, rtol=0, atol=1e-5)


def test_a_head_that_stays_is_not_held_twice(toy: Toy, tmp_path: Path) -> None:
    for name, adapter in {"frozen": "lora:rank=4", "adapted": "lora:rank=4,targets=[q_proj,lm_head]"}.items():
        world = World(toy, objective="tdpo", adapter=adapter)
        world.reference()
        world.engine.attach(tmp_path / name)
        assert (world.engine.scorer.reference_head is None) == (name == "frozen")


def test_training_and_evaluation_know_of_the_divergence(toy: Toy, tmp_path: Path) -> None:
    evaluation = {"data": {"test": toy.held_out}, "samples": 0}
    choices = {"objective": "tdpo", "evaluation": evaluation}
    runs = {
        kind: align(**toy.choices(tmp_path / kind, reference=kind, **choices)) for kind in ("cache", "off", "snapshot")
    }
    one = runs["cache"]
    assert one.before()["eval_test_kl/chosen"] == 0
    assert one.summary()["eval_test_kl/chosen"] > 0
    assert one.metrics[1]["kl/chosen"] == pytest.approx(0, abs=1e-5)
    for other in runs.values():
        for found, wanted in zip(other.metrics, one.metrics, strict=True):
            assert found.get("loss") == pytest.approx(wanted.get("loss"), abs=1e-5)
    again = one.evaluate(toy.held_out)["test"]["kl/chosen"]
    assert again == pytest.approx(one.summary()["eval_test_kl/chosen"], abs=1e-5)
