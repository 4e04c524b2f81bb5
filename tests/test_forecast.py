"""What a run will take: against runs, and without a weight being read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file

from _toy import Toy, write_model
from grainline import models
from grainline import recipe as recipes
from grainline.adapters._seam import attach
from grainline.errors import ModelError, RecipeError, SpecError
from grainline.forecast import Estimate, forecast
from grainline.prepare import prepare
from grainline.runs import Run, align


def estimated(toy: Toy, *, processes: int = 1, **choices: Any) -> Estimate:
    recipe = recipes.load({"model": toy.model, "data": toy.pairs, "adapter": "lora:rank=4", "steps": 3} | choices)
    return forecast(recipe, prepare(recipe, models.load_tokenizer(recipe.model)), processes)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight can be read."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)


@pytest.mark.parametrize(
    ("adapter", "objective"),
    [
        ("lora:rank=4", "dpo"),
        ("lora:rank=4,dora=true,targets=[q_proj,v_proj]", "dpo"),
        ("lora:rank=2,init=pissa", "dpo"),
        ("lora:rank=4,init=olora,layers=[1]", "dpo"),
        ("lora:rank=4,bias=all,modules_to_save=[lm_head]", "dpo"),
        ("none", "dpo"),
        ("lora:rank=4", "sft + 0.5*sparsepo + dnpo"),
    ],
)
def test_trainable_parameters_are_those_of_a_run(adapter: str, objective: str, toy: Toy, tmp_path: Path) -> None:
    found = estimated(toy, adapter=adapter, objective=objective).trainable
    run = align(**toy.choices(tmp_path / "run", adapter=adapter, objective=objective, steps=1))
    facts = json.loads((run.folder / "provenance.json").read_text())["run"]
    assert found.total == sum(found.roles.values()) == facts["trainable"]
    assert sorted(found.roles) == facts["roles"]
    stored = sum(
        t.numel() * t.element_size() for file in run.adapter.glob("*.safetensors") for t in load_file(file).values()
    )
    assert found.adapter_bytes == stored


def test_no_weight_is_read(toy: Toy, unreadable: None) -> None:
    found = estimated(toy)
    assert found.trainable.total == 4096
    assert found.memory.total is not None
    assert found.work is not None


def test_an_adapter_that_goes_on(toy: Toy, toy_run: Run, tmp_path: Path, unreadable: None) -> None:
    choice = {"name": toy.model, "adapter": str(toy_run.adapter)}
    assert estimated(toy, model=choice, adapter="lora").trainable.total == 4096
    with pytest.raises(ModelError, match="no adapter_config"):
        estimated(toy, model=choice | {"adapter": str(tmp_path)}, adapter="lora")


def test_the_data(toy: Toy) -> None:
    data = estimated(toy).data
    assert (data.rows, data.prompts, data.left_out, data.truncated_prompts) == (40, 25, 0, 0)
    cut = estimated(toy, max_length=24).data
    assert cut.longest == 24
    assert cut.truncated_prompts > 0
    assert cut.prompt_tokens < data.prompt_tokens


def test_memory_by_its_parts(toy: Toy) -> None:
    found = estimated(toy)
    memory, trained = found.memory, found.trainable.total
    base = found.trainable.parameters - trained
    assert memory.weights == {"float32": 4 * base}
    # adapter, gradient, two moments; and a step counter for each of 28 tensors
    assert memory.adapter == 4 * 4 * trained + 4 * 28
    assert memory.activations is not None
    assert memory.total == 4 * base + memory.adapter + memory.activations + memory.logits + memory.process
    assert estimated(toy, reference="snapshot").memory.reference == 4 * base
    assert estimated(toy, adapter="none").memory.adapter == 3 * 4 * base + 4 * len(_names(toy))


@pytest.mark.parametrize(
    "adapter", ["soda", "spectral:rank=4", "peft:type=VERA,r=8", "peft:type=OSF", "peft:type=BOFT,boft_block_size=4"]
)
def test_what_an_adapter_holds_frozen_is_counted(adapter: str, toy: Toy) -> None:
    """Bases, projections and permutations: bytes of a real adapter beside the weights and what trains."""
    chosen = recipes.load({"model": toy.model, "data": toy.pairs, "adapter": adapter})
    base = models.load(chosen.model).model
    weights = {id(tensor) for tensor in (*base.parameters(), *base.buffers())}
    model = attach(chosen.adapter, base)
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in weights]
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    frozen = sum(tensor.nbytes for tensor in tensors if not tensor.requires_grad)
    assert frozen > 0
    moments = 4 * 4 * sum(tensor.numel() for tensor in trained) + 4 * len(trained)
    assert estimated(toy, adapter=adapter).memory.adapter == frozen + moments


def test_an_objectives_own_modules_train_too(toy: Toy, unreadable: None) -> None:
    """sparsepo's simplest mask: a weight for each of 32 hidden numbers, and a bias. With Adam they take their own size
    four times, and a step counter for each of two tensors; no file of an adapter holds them."""
    slow = "adamw:lr_scale.mask=0.1"  # their role is known
    plain, masked = estimated(toy), estimated(toy, objective="sparsepo:module=simple_last", optimizer=slow)
    assert masked.trainable.roles == plain.trainable.roles | {"mask": 33}
    assert masked.trainable.parameters == plain.trainable.parameters + 33
    assert masked.trainable.adapter_bytes == plain.trainable.adapter_bytes
    assert masked.memory.adapter == plain.memory.adapter + 4 * 4 * 33 + 4 * 2
    assert masked.memory.weights == plain.memory.weights


@pytest.mark.parametrize("objective", ["sparsepo", "dnpo"])
def test_what_an_objectives_modules_keep_is_an_activation(objective: str, toy: Toy) -> None:
    """Masks keep each layer's 32 numbers of each answer token twice, as they are and normed, and little more; noise
    is made again in backward."""
    beside, plain = (estimated(toy, objective=one, layout="packed") for one in (objective, "tdpo"))
    kept = beside.memory.activations - plain.memory.activations  # type: ignore[operator]
    normed = 2 * 4 * 2 * 32 * beside.course.largest.rows.numel()
    assert normed < kept < 1.2 * normed if objective == "sparsepo" else 0 <= kept < normed / 2


def _names(toy: Toy) -> list[str]:
    return list(load_file(Path(toy.model) / "model.safetensors"))


def test_weights_shared_out_by_hand(toy: Toy) -> None:
    """torch cuts along rows and rounds up: of 32, 16 and 64 rows three processes hold at most 11, 6 and 22."""
    ends = 2 * 330 * 32 + 32  # embeddings, head, final norm
    layer = (32 + 16 + 16 + 32 + 64 + 64) * 32 + 32 * 64 + 2 * 32  # q k v o gate up, down, two norms
    part = (11 + 6 + 6 + 11 + 22 + 22) * 32 + 11 * 64 + 2 * 11
    for processes, held in ((2, layer // 2), (3, part)):
        found = estimated(toy, shard=True, processes=processes)
        memory = found.memory
        assert found.processes == processes
        assert memory.weights == {"float32": 4 * (ends + 2 * held)}
        assert memory.fetched == 2 * 4 * layer
        assert memory.start == 4 * (ends + 2 * layer + 4096)
        assert memory.adapter == estimated(toy).memory.adapter
        assert memory.activations is not None
        parts = 4 * (ends + 2 * held) + memory.fetched + memory.adapter + memory.activations + memory.logits
        assert memory.total == max(parts, memory.start) + memory.process
    assert memory._replace(start=10**9).total == 10**9 + memory.process


def test_several_processes_that_share_nothing(toy: Toy) -> None:
    """Each holds all weights, a share of a step's rows, and the gradients that DDP exchanges."""
    alone, several = estimated(toy), estimated(toy, processes=4)
    assert several.memory.weights == alone.memory.weights
    assert several.memory.adapter == alone.memory.adapter + 4 * 4096
    assert (several.memory.fetched, several.memory.start) == (0, 0)
    assert several.steps.forwards >= 4 * 3
    assert several.steps.largest < alone.steps.largest / 2
    with pytest.raises(RecipeError, match="a step of 4 rows cannot be shared by 5 processes"):
        estimated(toy, processes=5, batch_size=4)


def test_weights_shared_out_are_those_that_were_measured(toy: Toy, tmp_path: Path) -> None:
    """The model of docs/performance.md: 758 MiB in one process, adapter included, 404 in each of two."""
    config = transformers.LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=8,
        intermediate_size=2752,
        tie_word_embeddings=True,
    )
    write_model(tmp_path / "model")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path / "model")
    choices = {"model": str(tmp_path / "model"), "adapter": "lora:rank=16", "reference": "off"}
    for shard, measured in ((False, 758), (True, 404)):
        found = estimated(toy, shard=shard, processes=2, **choices)
        mib = (sum(found.memory.weights.values()) + 4 * found.trainable.total) / 2**20
        assert mib == pytest.approx(measured, abs=0.5)


def test_dtype_and_four_bits(toy: Toy) -> None:
    half = estimated(toy, model={"name": toy.model, "dtype": "bfloat16"})
    whole = estimated(toy)
    assert half.memory.weights == {"bfloat16": whole.memory.weights["float32"] // 2}
    assert half.trainable.adapter_bytes == whole.trainable.adapter_bytes  # adapters stay float32
    short = estimated(toy, model={"name": toy.model, "load_in_4bit": True}).memory.weights
    assert set(short) == {"4 bits", "float32"}
    assert sum(short.values()) < whole.memory.weights["float32"]


def test_smaller_forwards_keep_less(toy: Toy) -> None:
    large, small = (estimated(toy, batch_size=32, max_tokens=size).memory.activations for size in (2048, 128))
    assert large is not None
    assert small is not None
    assert small < large / 2
    spared = estimated(toy, batch_size=32, model={"name": toy.model, "gradient_checkpointing": True})
    assert spared.memory.activations is not None
    assert spared.memory.activations < large
    plain = estimated(toy, batch_size=32).work
    assert plain is not None
    assert spared.work is not None
    assert 1.2 < spared.work.training / plain.training < 1.6  # each layer is read twice


def test_the_caches_size_on_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    found = estimated(toy, steps=5, batch_size=8).memory.on_disk
    align(**toy.choices(tmp_path / "run", steps=5))
    files = list((tmp_path / "cache" / "reference").rglob("*.safetensors"))
    stored = sum(t.numel() * t.element_size() for file in files for t in load_file(file).values())
    assert found == stored
    assert estimated(toy, reference="off").memory.on_disk == 0


@pytest.mark.parametrize("adapter", ["bone", "miss", "mo-sara", "ropo", "sara", "soda", "spectral"])
def test_our_own_adapters_are_read_without_weights(adapter: str, toy: Toy, unreadable: None) -> None:
    """A failure there would be taken for one of the architecture, and said to be unknown."""
    found, lora = estimated(toy, adapter=adapter), estimated(toy)
    assert found.memory.activations is not None
    assert found.work is not None
    assert lora.work is not None
    assert 0.5 < found.work.training / lora.work.training < 2


def test_an_architecture_that_is_not_understood(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("grainline.footprint.cost", fail)
    found = estimated(toy)
    assert (found.memory.activations, found.memory.total, found.work) == (None, None, None)
    assert found.as_dict()["flops"] is None


def test_json(toy: Toy) -> None:
    found = json.loads(json.dumps(estimated(toy).as_dict()))
    assert found["memory"]["total"] > found["memory"]["activations"]
    assert found["flops"]["total"] > found["flops"]["training"] > 0


@pytest.mark.parametrize(
    ("choices", "error", "said"),
    [
        ({"adapter": "lora:targets=[q_prj]"}, ModelError, "Did you mean 'q_proj'"),
        ({"adapter": "lora:dropout=0.1", "layout": "tree"}, RecipeError, "not exact in the tree layout"),
        ({"adapter": "none", "reference": "off"}, RecipeError, "is not the reference"),
        ({"objective": "sft", "reference": "cache"}, RecipeError, "uses no reference"),
        ({"optimizer": "adamw:lr_scale.magnitud=2"}, SpecError, "no parameter has the role"),
        ({"adapter": "none", "model.dtype": "bfloat16"}, RecipeError, "small updates round away"),
        ({"shard": True}, RecipeError, "nobody to share weights with.* plan with --processes 2"),
        ({"shard": True, "processes": 2, "adapter": "none"}, RecipeError, "all weights would train"),
    ],
    ids=str,
)
def test_what_a_run_would_refuse(choices: dict[str, Any], error: type, said: str, toy: Toy) -> None:
    dtype = choices.pop("model.dtype", "auto") if (choices := dict(choices)) else "auto"
    with pytest.raises(error, match=said):
        estimated(toy, model={"name": toy.model, "dtype": dtype}, **choices)


def test_a_model_without_a_configuration_that_is_known(toy: Toy, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"model_type": "nothing-known"}))
    with pytest.raises(ModelError):
        estimated(toy, model=str(tmp_path / "model"))
