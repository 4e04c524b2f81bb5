"""No option is dead: each field of a recipe, and of each method, changes a number, a file or a message.

The fields are enumerated, so a new one without a case fails here. A method from a new file may keep its cases beside
its other tests instead: a function ``test_option_<field>`` in ``tests/<room>/test_<method>.py``, or in the room's
battery, ``tests/<room>/test_room.py``, where the option means the same in all its methods.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers

from _toy import Toy, jsonl, pairs, write_model
from grainline import models, rooms
from grainline.adapters import _seam
from grainline.adapters.lora import LoRA
from grainline.errors import ModelError, RecipeError, RunError
from grainline.forward import Scorer, kernels
from grainline.objectives.dpo import DPO
from grainline.optimizers.adamw import AdamW
from grainline.recipe import Recipe
from grainline.runs import Run, align
from grainline.types import LogProbs, Losses, Pairs, Tagged

HERE = Path(__file__).parent


def options(cls: type = Recipe, prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaves of the recipe: ``model.dtype``, ``data.weight``, ``evaluation.data.path``..."""
    for field in dataclasses.fields(cls):
        hint = cls.__pydantic_fields__[field.name].annotation  # type: ignore[attr-defined]
        inner = next((h for h in (hint, *get_args(hint)) if dataclasses.is_dataclass(h)), None)
        yield from options(inner, f"{prefix}{field.name}.") if inner else [f"{prefix}{field.name}"]  # type: ignore[arg-type]


def method_options() -> Iterator[str]:
    """``lora.rank`` and so on, for every method of every room."""
    for room in rooms.FOLDERS:
        for name in rooms.names(room):
            yield from (f"{room}/{name}.{field}" for field in rooms.fields(rooms.load(room, name)))


# -------------------------------------------------------------------------------------------------------- the world


class World:
    """Runs of a few steps, made when they are asked for and remembered."""

    def __init__(self, toy: Toy, patch: pytest.MonkeyPatch, folder: Path, known: dict[str, Run]) -> None:
        self.toy, self.patch, self.folder, self.known = toy, patch, folder, known

    def run(self, **choices: Any) -> Run:
        name = repr(sorted(choices.items()))
        if name not in self.known:
            self.known[name] = align(**self.toy.choices(self.toy.root / f"option-{len(self.known)}", **choices))
        return self.known[name]

    def losses(self, **choices: Any) -> list[float]:
        return [line["loss"] for line in self.run(**choices).metrics if "loss" in line]

    def changes(self, **choices: Any) -> None:
        """Other losses than those of the plain run, already at one of the first three steps."""
        plain, found = self.losses(), self.losses(**choices)
        assert all(map(math.isfinite, found))
        assert found[:3] != pytest.approx(plain[:3], abs=1e-5)

    def evaluated(self, **choices: Any) -> Run:
        return self.run(evaluation={"data": {"test": self.toy.held_out}, "samples": 0} | choices)

    def facts(self, **choices: Any) -> dict[str, Any]:
        return json.loads((self.run(**choices).folder / "provenance.json").read_text(encoding="utf-8"))

    def model(self, **choices: Any) -> dict[str, Any]:
        return {"model": {"name": self.toy.model, **choices}}


@pytest.fixture(scope="module")
def known() -> dict[str, Run]:
    return {}


@pytest.fixture
def world(toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: dict[str, Run]) -> World:
    return World(toy, monkeypatch, tmp_path, known)


Case = Callable[[World], None]
CASES: dict[str, Case] = {}


def case(*names: str) -> Callable[[Case], Case]:
    def keep(function: Case) -> Case:
        CASES.update(dict.fromkeys(names, function))
        return function

    return keep


@pytest.mark.parametrize("option", list(options()))
def test_option_of_a_recipe(option: str, world: World) -> None:
    assert option in CASES, f"{option} has no case here: does it do anything?"
    CASES[option](world)


@pytest.mark.parametrize("option", list(method_options()))
def test_option_of_a_method(option: str, world: World) -> None:
    if option in CASES:
        CASES[option](world)
        return
    room, _, rest = option.partition("/")
    name, _, field = rest.partition(".")
    file = HERE / room / f"test_{rooms.load(room, name).__module__.rpartition('.')[2]}.py"
    files = (file, HERE / room / "test_room.py")
    nodes = (node for each in files for node in ast.parse(each.read_text(encoding="utf-8")).body)
    tests = {node.name for node in nodes if hasattr(node, "name")}
    assert f"test_option_{field}" in tests, f"{option} has no case here, nor test_option_{field} in {file}"


def test_no_case_is_left_over() -> None:
    assert set(CASES) <= {*options(), *method_options()}


# ------------------------------------------------------------------------------------------------------------ model


@case("model.name")
def _(world: World) -> None:
    write_model(world.folder / "wider", hidden_size=48, intermediate_size=96)
    run = align(**world.toy.choices(world.folder / "run", model=str(world.folder / "wider"), steps=1))
    assert json.loads((run.adapter / "adapter_config.json").read_text())["base_model_name_or_path"].endswith("wider")
    sizes = [json.loads((r.folder / "provenance.json").read_text())["run"]["trainable"] for r in (run, world.run())]
    assert sizes[0] > sizes[1]


def asked(world: World, **choices: Any) -> dict[str, Any]:
    """What reaches transformers' from_pretrained."""
    seen: dict[str, Any] = {}
    real = transformers.AutoModelForCausalLM.from_pretrained
    world.patch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda path, **kw: seen.update(kw) or real(path, **kw)
    )
    models.load(models.Choice(world.toy.model, **choices))
    return seen


@case("model.revision")
def _(world: World) -> None:
    assert asked(world, revision="v1.2")["revision"] == "v1.2"
    assert "revision" not in asked(world)


@case("model.trust_remote_code")
def _(world: World) -> None:
    assert asked(world, trust_remote_code=True)["trust_remote_code"] is True
    assert asked(world)["trust_remote_code"] is False


@case("model.attn_implementation")
def _(world: World) -> None:
    held = [models.load(models.Choice(world.toy.model, attn_implementation=a)).model for a in ("eager", None)]
    assert [model.config._attn_implementation for model in held] == ["eager", "sdpa"]
    assert Scorer(held[0], packed=False).causal.config._attn_implementation == "eager"


@case("model.adapter")
def _(world: World) -> None:
    first = world.run()
    world.changes(**world.model(adapter=str(first.adapter)), adapter="lora")


@case("model.dtype")
def _(world: World) -> None:
    half = world.model(dtype="bfloat16")
    world.changes(**half)
    assert world.facts(**half)["model"]["dtype"] == "torch.bfloat16"


@case("model.device")
def _(world: World) -> None:
    with pytest.raises(ModelError, match="device cuda:7"):
        align(**world.toy.choices(world.folder / "run", **world.model(device="cuda:7")))
    assert world.run(**world.model(device="cpu")).recipe.model.device == "cpu"


@case("model.load_in_4bit")
def _(world: World) -> None:
    if models.importlib.util.find_spec("bitsandbytes"):
        world.changes(**world.model(load_in_4bit=True))
        return
    with pytest.raises(ModelError, match="bitsandbytes"):
        align(**world.toy.choices(world.folder / "run", **world.model(load_in_4bit=True)))


@case("model.gradient_checkpointing")
def _(world: World) -> None:
    calls = {True: 0, False: 0}
    real = transformers.models.llama.modeling_llama.LlamaMLP.forward
    for on in calls:

        def counted(self: Any, x: Any, on: bool = on) -> Any:
            calls[on] += torch.is_grad_enabled()
            return real(self, x)

        world.patch.setattr(transformers.models.llama.modeling_llama.LlamaMLP, "forward", counted)
        folder = world.folder / f"run-{on}"
        run = align(**world.toy.choices(folder, steps=1, fuse=False, **world.model(gradient_checkpointing=on)))
        assert run.metrics[-1]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert calls[True] == 2 * calls[False]  # each layer once more, in the backward pass


# ------------------------------------------------------------------------------------------------------------- data


@case("data.path")
def _(world: World) -> None:
    world.changes(data=world.toy.held_out)


@case("data.split")
def _(world: World) -> None:
    folder = world.folder / "splits"
    folder.mkdir()
    jsonl(folder / "train.jsonl", pairs(8, prompts=8, seed=4))
    jsonl(folder / "spare.jsonl", pairs(6, prompts=6, seed=5))
    run = align(**world.toy.choices(world.folder / "run", data={"path": str(folder), "split": "spare"}, steps=1))
    assert json.loads((run.folder / "provenance.json").read_text())["data"]["train"][0]["rows"] == 6


def rated(count: int) -> list[dict[str, Any]]:
    """Two answers each to ``count`` questions, as HelpSteer has them; the last two are equally good."""
    ratings = [(n % 2, 3, 4) for n in range(2 * count - 1)] + [(0, 3, 4)]
    names = ("helpfulness", "correctness", "coherence")
    return [
        {"prompt": f"why {n // 2}?", "response": f"because {n}", **dict(zip(names, ratings[n], strict=True))}
        for n in range(2 * count)
    ]


@case("data.format")
def _(world: World) -> None:
    data = {"path": jsonl(world.folder / "rated.jsonl", rated(4)), "format": "helpsteer"}
    run = align(**world.toy.choices(world.folder / "run", data=data, steps=1))
    (read,) = json.loads((run.folder / "provenance.json").read_text())["data"]["train"]
    assert (read["rows"], read["passed_over"]) == (3, {"ties": 2})


@case("data.weight")
def _(world: World) -> None:
    half = {"data": {"path": world.toy.pairs, "weight": 0.5}}
    assert world.facts(**half)["data"]["counts"]["rows"] == 20
    world.changes(**half)


@case("curate")
def _(world: World) -> None:
    dropping = world.folder / "dropping.py"
    dropping.write_text(DROPPING, encoding="utf-8")
    run = align(**world.toy.choices(world.folder / "run", curate=[f"{dropping}:Dropping:every=4", "segment"], steps=1))
    (read,) = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))["data"]["train"]
    assert (read["rows"], read["path"]) == (30, "pairs.jsonl, curated")
    assert [step["made"] for step in read["curated"]["made"]] == [30, 30]
    assert read["curated"]["made"][0]["dropped"] == {"each 4": 10}
    assert [rooms.text(step) for step in run.recipe.curate] == [f"{dropping}:Dropping:every=4", "segment"]


DROPPING = '''
"""Drops each so many rows."""

from contextlib import contextmanager
from typing import ClassVar

from grainline.curation._seam import Dropped
from grainline.types import spec


@spec
class Dropping:
    whole: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    every: int = 2

    @contextmanager
    def open(self, bench):
        yield lambda rows: (Dropped(f"each {self.every}") if n % self.every == 0 else [r] for n, r in enumerate(rows))
'''


@case("evaluation.data.path")
def _(world: World) -> None:
    assert world.evaluated().summary()["eval_test_rows"] == 16
    assert "eval_test_rows" not in world.run().summary()


@case("evaluation.data.split")
def _(world: World) -> None:
    folder = world.folder / "splits"
    folder.mkdir()
    jsonl(folder / "test.jsonl", pairs(3, prompts=3, seed=6))
    jsonl(folder / "validation.jsonl", pairs(5, prompts=5, seed=7))
    run = world.evaluated(data={"v": {"path": str(folder), "split": "validation"}, "t": str(folder)})
    assert [run.summary()[f"eval_{name}_rows"] for name in ("v", "t")] == [5, 3]


def looks(run: Run) -> list[int]:
    return [line["step"] for line in run.metrics if "eval_test_rows" in line]


@case("evaluation.data.format")
def _(world: World) -> None:
    path = jsonl(world.folder / "rated.jsonl", rated(5))
    run = world.evaluated(data={"h": {"path": path, "format": "helpsteer"}})
    assert run.summary()["eval_h_rows"] == 4


@case("evaluation.every")
def _(world: World) -> None:
    assert looks(world.evaluated()) == [0, 3]
    assert looks(world.evaluated(every=1)) == [0, 1, 2, 3]


@case("evaluation.best")
def _(world: World) -> None:
    lowest = world.evaluated(every=1, best="-eval_test_rewards/margins")
    assert lowest.summary()["step"] == 1
    assert world.evaluated(every=1, best="eval_test_rewards/margins").summary()["step"] == 3


@case("evaluation.patience")
def _(world: World) -> None:
    assert looks(world.evaluated(every=1, best="-eval_test_rewards/margins", patience=1)) == [0, 1, 2]


@case("evaluation.geometry")
def _(world: World) -> None:
    keys = {f"geometry_{key}" for key in ("energy", "change", "angle", "spectrum")}
    plain, looked = world.evaluated().metrics, world.evaluated(geometry=True, every=2).metrics
    assert not any(keys & set(line) for line in plain)
    assert [line["step"] for line in looked if keys <= set(line)] == [2, 3]
    assert 0 < looked[-1]["geometry_change"] < 1
    assert world.losses(evaluation={"geometry": True}) == world.losses()  # without held-out data too
    for adapter, why in (("none", "no weights to compare"), ("mo-sara", "each token mixes")):
        with pytest.raises((ModelError, RecipeError), match=why):
            align(**world.toy.choices(world.folder / adapter, adapter=adapter, evaluation={"geometry": True}))


@case("evaluation.samples")
def _(world: World) -> None:
    assert not (world.evaluated().folder / "samples.jsonl").exists()
    lines = (world.evaluated(samples=1).folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1


def saved(run: Run) -> list[str]:
    return sorted(folder.name for folder in (run.folder / "checkpoints").iterdir())


@case("evaluation.temperature")
def _(world: World) -> None:
    greedy, drawn = (
        (world.evaluated(samples=1, **options).folder / "samples.jsonl").read_text(encoding="utf-8")
        for options in ({}, {"temperature": 5.0})
    )
    assert json.loads(greedy)["reference"] != json.loads(drawn)["reference"]


@case("synchronise.every")
def _(world: World) -> None:
    run = world.run(synchronise={"every": 2})
    assert [file.name for file in (run.folder / "synchronised").iterdir()] == ["step-000002.safetensors"]
    losses, plain = world.losses(synchronise={"every": 2}), world.losses()
    assert losses[:2] == pytest.approx(plain[:2], abs=1e-6)
    assert losses[2] != pytest.approx(plain[2], abs=1e-5)  # a step after the reference has moved


@case("synchronise.share")
def _(world: World) -> None:
    half, whole = (world.losses(synchronise={"every": 2, "share": share})[2] for share in (0.6, 1.0))
    assert half != pytest.approx(whole, abs=1e-6)


@case("checkpoints.every")
def _(world: World) -> None:
    assert saved(world.run()) == ["step-000003"]
    assert saved(world.run(checkpoints={"every": 2})) == ["step-000002", "step-000003"]


@case("checkpoints.keep")
def _(world: World) -> None:
    assert saved(world.run(checkpoints={"every": 1, "keep": 1})) == ["step-000003"]
    assert len(saved(world.run(checkpoints={"every": 1, "keep": 3}))) == 3


# ---------------------------------------------------------------------------------------------------- the four rooms

LOUD = '''
"""Every other token is silent."""

from typing import ClassVar

from grainline.types import spec


@spec
class Half:
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, example):
        answers = [a._replace(weight=tuple(float(i % 2) for i in range(len(a.ids)))) for a in example.answers]
        return example._replace(answers=tuple(answers))
'''


@case("supervision")
def _(world: World) -> None:
    (world.toy.root / "half.py").write_text(LOUD, encoding="utf-8")
    world.changes(supervision=f"{world.toy.root}/half.py")


@case("objective")
def _(world: World) -> None:
    world.changes(objective="sft")


@case("adapter")
def _(world: World) -> None:
    world.changes(adapter="lora:rank=2")


@case("optimizer")
def _(world: World) -> None:
    world.changes(optimizer="adamw:lr=3e-3")


@case("reference")
def _(world: World) -> None:
    for kind in ("off", "snapshot"):
        cache = world.folder / kind
        world.patch.setenv("GRAINLINE_CACHE", str(cache))
        align(**world.toy.choices(world.folder / f"run-{kind}", steps=1, reference=kind))
        assert not (cache / "reference").exists()
    align(**world.toy.choices(world.folder / "run", steps=1))
    assert (cache / "reference").is_dir()


# ------------------------------------------------------------------------------------------------------- the numbers


@case("steps")
def _(world: World) -> None:
    assert len(world.losses(steps=2)) == 2


@case("epochs")
def _(world: World) -> None:
    assert len(world.losses(steps=None, epochs=0.8)) == 4  # 0.8 * 40 rows / 8


@case("batch_size")
def _(world: World) -> None:
    world.changes(batch_size=5)


@case("max_length")
def _(world: World) -> None:
    short = {"max_length": 24}
    assert world.facts(**short)["data"]["counts"]["truncated_prompts"] > 0
    world.changes(**short)


@case("max_tokens")
def _(world: World) -> None:
    def forwards(tokens: int) -> list[int]:
        seen: list[int] = []
        real = Scorer.forward
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Scorer,
                "forward",
                lambda self, batch, *more, **how: seen.append(batch.ids.numel()) or real(self, batch, *more, **how),
            )
            out = world.folder / f"run-{tokens}"
            align(**world.toy.choices(out, steps=1, reference="snapshot", max_tokens=tokens))
        return seen

    large, small = forwards(4096), forwards(100)
    assert len(small) > len(large)
    assert max(small[1:]) <= 100 < max(large)  # the first is the probe of layouts


@case("memory")
def _(world: World) -> None:
    run = world.run(max_tokens="auto", memory="64GB")
    assert isinstance(run.recipe.max_tokens, int)
    assert run.recipe.max_tokens < Recipe.max_tokens  # as much as a step has
    assert [line["loss"] for line in run.metrics] == pytest.approx(world.losses(), abs=1e-5)
    with pytest.raises(RecipeError, match="memory: the longest row"):
        align(**world.toy.choices(world.folder / "small", max_tokens="auto", memory="1MB"))


@case("layout")
def _(world: World) -> None:
    assert world.run(layout="packed").metrics[-1]["num_tokens"] > world.run().metrics[-1]["num_tokens"]


@case("fuse")
def _(world: World) -> None:
    def taken(fuse: bool) -> int:
        seen: list[int] = []
        real = kernels.low_rank
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "low_rank", lambda x, layers: seen.append(1) or real(x, layers))
            align(**world.toy.choices(world.folder / f"run-{fuse}", steps=1, fuse=fuse))
        return len(seen)

    assert taken(True) > 0 == taken(False)


@case("shard")
def _(world: World) -> None:  # on two processes: test_sharding
    with pytest.raises(RecipeError, match="shard: one process"):
        world.run(shard=True)


@case("sampler")
def _(world: World) -> None:
    world.changes(sampler="sequential")


@case("schedule")
def _(world: World) -> None:
    rates = [[line["learning_rate"] for line in world.run(schedule=s).metrics if "loss" in line]
             for s in ("constant", "linear")]  # fmt: skip
    assert rates[0] == [1e-2] * 3 != rates[1]
    world.changes(schedule="constant", optimizer="adamw:lr=2e-2")


@case("warmup")
def _(world: World) -> None:
    world.changes(warmup=2)


@case("max_grad_norm")
def _(world: World) -> None:
    world.changes(max_grad_norm=1e-8)  # so small that AdamW's eps weighs in


@case("seed")
def _(world: World) -> None:
    world.changes(seed=1)


@case("skip_bad_rows")
def _(world: World) -> None:
    rows = [*pairs(3, prompts=3, seed=8), {"nothing": 1}]
    data = jsonl(world.folder / "bad.jsonl", rows)
    run = align(**world.toy.choices(world.folder / "run", data=data, skip_bad_rows=True, steps=1))
    assert len(json.loads((run.folder / "provenance.json").read_text())["data"]["train"][0]["left_out"]) == 1


@case("trackers")
def _(world: World) -> None:
    pytest.importorskip("tensorboard")
    assert not list(world.run().folder.rglob("events.out.tfevents*"))
    assert list(world.run(trackers=["tensorboard"]).folder.rglob("events.out.tfevents*"))


@case("out")
def _(world: World) -> None:
    run = world.run()
    assert run.folder.name.startswith("option-")
    with pytest.raises(RunError, match="holds a run"):
        align(**world.toy.choices(run.folder))


# ------------------------------------------------------------------------------------------------------- objectives


def rewards(objective: DPO) -> Losses:
    """Two pairs: the policy likes the first chosen answer more than the reference does, the second less."""
    shift = torch.tensor([1.0, -0.5, -2.0, 0.25])
    mask = torch.ones(4, 1, dtype=torch.bool)
    reference = LogProbs(torch.full((4, 1), -3.0), mask, torch.ones(4, 1))
    policy = reference._replace(token=reference.token + shift[:, None])
    return objective(policy, reference, Pairs(("a", "b"), torch.ones(2), torch.full((2,), math.nan)), {})


def losses_of(**options: Any) -> list[float]:
    return rewards(DPO(**options)).terms["dpo"].value.tolist()


@case("objectives/dpo.beta")
def _(world: World) -> None:
    assert rewards(DPO(beta=0.2)).margin == pytest.approx(2 * rewards(DPO(beta=0.1)).margin)


@case("objectives/dpo.label_smoothing")
def _(world: World) -> None:
    plain, flipped = losses_of(), [-math.log(1 / (1 + math.exp(m))) for m in rewards(DPO()).margin.tolist()]
    wanted = [0.8 * a + 0.2 * b for a, b in zip(plain, flipped, strict=True)]
    assert losses_of(label_smoothing=0.2) == pytest.approx(wanted, rel=1e-5)


@case("objectives/dpo.divergence")
def _(world: World) -> None:
    found = [losses_of(divergence=d) for d in ("reverse_kl", "forward_kl", "js", "alpha")]
    assert all(a != pytest.approx(b, rel=1e-3) for i, a in enumerate(found) for b in found[:i])


@case("objectives/dpo.alpha")
def _(world: World) -> None:
    assert losses_of(divergence="alpha", alpha=0.3) != pytest.approx(losses_of(divergence="alpha"), rel=1e-3)
    assert losses_of(divergence="alpha", alpha=0.0) == pytest.approx(losses_of(divergence="forward_kl"))


# ---------------------------------------------------------------------------------------------------------- adapters


def attached(world: World, **options: Any) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(world.toy.model)
    torch.manual_seed(0)
    return _seam.attach(LoRA(**{"rank": 4} | options), model)


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    found = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    return {name.removeprefix("base_model.model.model.layers.").replace(".default", ""): s for name, s in found.items()}


def scaling(model: Any, name: str = "layers.0.self_attn.q_proj") -> float:
    return model.get_base_model().get_submodule(f"model.{name}").scaling["default"]


@case("adapters/lora.rank")
def _(world: World) -> None:
    assert shapes(attached(world, rank=6))["0.self_attn.q_proj.lora_A.weight"] == (6, 32)


@case("adapters/lora.alpha")
def _(world: World) -> None:
    assert scaling(attached(world, alpha=10.0)) == 10.0 / 4


@case("adapters/lora.dropout")
def _(world: World) -> None:
    world.changes(adapter="lora:rank=4,dropout=0.4")


@case("adapters/lora.targets")
def _(world: World) -> None:
    found = shapes(attached(world, targets=("q_proj", "down_proj")))
    assert {name.split(".")[2] for name in found} == {"q_proj", "down_proj"}


@case("adapters/lora.rslora")
def _(world: World) -> None:
    assert scaling(attached(world, rslora=True, alpha=8.0)) == 8.0 / math.sqrt(4)


@case("adapters/lora.dora")
def _(world: World) -> None:
    assert any("magnitude" in name for name in shapes(attached(world, dora=True)))
    assert not any("magnitude" in name for name in shapes(attached(world)))


@case("adapters/lora.init")
def _(world: World) -> None:
    starts = [
        dict(attached(world, init=init).named_parameters())[
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
        ]
        for init in ("default", "gaussian", "orthogonal", "pissa", "olora")
    ]
    assert all(not torch.allclose(a, b) for i, a in enumerate(starts) for b in starts[:i])


def begun(world: World, **options: Any) -> torch.Tensor:
    """LoRA-GA's A of one layer, as a run kept it."""
    spec = ",".join(f"{name}={value}" for name, value in options.items())
    run = world.run(adapter=f"lora:rank=2,init=lora_ga,{spec}", steps=2, batch_size=4)
    from safetensors.torch import load_file

    found = load_file(run.folder / "initial" / "adapter_model.safetensors")
    return found["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]


@case("adapters/lora.gamma")
def _(world: World) -> None:
    torch.testing.assert_close(begun(world, gamma=4.0), 2 * begun(world, gamma=16.0))


@case("adapters/lora.start_rows")
def _(world: World) -> None:
    assert not torch.allclose(begun(world, start_rows=4).abs(), begun(world, start_rows=8).abs(), atol=1e-4)


@case("adapters/lora.bias")
def _(world: World) -> None:
    write_model(world.folder / "biased", attention_bias=True)
    trained = {}
    for bias in ("none", "all", "lora_only"):
        model = transformers.AutoModelForCausalLM.from_pretrained(world.folder / "biased")
        trained[bias] = sum(
            name.endswith("bias") for name in shapes(_seam.attach(LoRA(rank=2, targets=("q_proj",), bias=bias), model))
        )
    assert trained == {"none": 0, "all": 8, "lora_only": 2}


@case("adapters/lora.layers")
def _(world: World) -> None:
    assert {name.split(".")[0] for name in shapes(attached(world, layers=(1,)))} == {"1"}


@case("adapters/lora.modules_to_save")
def _(world: World) -> None:
    assert any("lm_head" in name for name in shapes(attached(world, modules_to_save=("lm_head",))))


@case("adapters/lora.rank_pattern")
def _(world: World) -> None:
    found = shapes(attached(world, rank_pattern={"v_proj": 2}))
    assert [found[f"0.self_attn.{name}_proj.lora_A.weight"][0] for name in "qv"] == [4, 2]


@case("adapters/lora.alpha_pattern")
def _(world: World) -> None:
    model = attached(world, alpha_pattern={"v_proj": 4.0})
    assert (scaling(model), scaling(model, "layers.0.self_attn.v_proj")) == (8.0, 1.0)


# --------------------------------------------------------------------------------------------------------- optimizers


def moved(steps: int = 3, **options: Any) -> torch.Tensor:
    """Where a matrix and a vector are after some steps under gradients that change; tiny ones, so that eps matters."""
    tensors = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    optimizer = AdamW(**{"lr": 0.1} | options)([Tagged("a", tensors[0], "up"), Tagged("b", tensors[1], "bias")])
    for step in range(steps):
        for tensor in tensors:
            tensor.grad = torch.full_like(tensor, 1e-6 * (1 - 0.8 * step))
        optimizer.step()
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@case("optimizers/adamw.lr")
def _(world: World) -> None:
    assert (1 - moved(lr=0.2)).tolist() == pytest.approx((2 * (1 - moved())).tolist(), rel=1e-5)


@case("optimizers/adamw.betas")
def _(world: World) -> None:
    assert not torch.allclose(moved(betas=(0.5, 0.999)), moved())
    assert not torch.allclose(moved(betas=(0.9, 0.5)), moved())


@case("optimizers/adamw.eps")
def _(world: World) -> None:
    assert (1 - moved(eps=1.0)).abs().max() < 1e-6 < (1 - moved()).abs().min()


@case("optimizers/adamw.weight_decay")
def _(world: World) -> None:
    apart = moved(weight_decay=0.5) - moved()
    assert (apart[:4] < -0.01).all()
    assert (apart[4:] == 0).all()  # a vector does not decay


@case("optimizers/adamw.lr_scale")
def _(world: World) -> None:
    apart = (1 - moved(lr_scale={"up": 3.0})) / (1 - moved())
    assert apart.tolist() == pytest.approx([3.0] * 4 + [1.0] * 3, rel=1e-5)
