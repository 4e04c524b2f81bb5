"""Names of TRL and transformers: what is read as what, what decides nothing, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import pytest

from grainline import recipe, rooms
from grainline.errors import RecipeError
from grainline.recipe import aliases as _aliases

LEAST = {"model": "m", "data": "d.jsonl"}


def load(given: dict[str, Any], least: dict[str, Any] = LEAST) -> tuple[recipe.Recipe, list[str]]:
    notices: list[str] = []
    return recipe.load({**least, **given}, notice=notices.append), notices


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        ({"learning_rate": "1e-4", "weight_decay": 0.1}, ["optimizer=adamw:lr=1e-4,weight_decay=0.1"]),
        ({"beta": 0.2, "label_smoothing": 0.1}, ["objective=dpo:beta=0.2,label_smoothing=0.1"]),
        ({"f_divergence_type": "js_divergence"}, ["objective=dpo:divergence=js"]),
        ({"loss_type": "sigmoid", "beta": 0.5}, ["objective=dpo:beta=0.5"]),
        ({"loss_type": ["sft"]}, ["objective=sft"]),
        ({"loss_type": "ipo"}, ["objective=ipo"]),
        ({"loss_type": "exo_pair", "label_smoothing": 0.01}, ["objective=exo:label_smoothing=0.01"]),
        ({"loss_type": "sppo_hard"}, ["objective=sppo-hard"]),
        ({"loss_type": "sigmoid_norm"}, ["objective=dpo:normalise=mean"]),
        ({"stage": "kto", "pref_beta": 0.2, "cutoff_len": 512}, ["objective=kto:beta=0.2", "max_length=512"]),
        ({"stage": "dpo", "pref_loss": "simpo"}, ["objective=simpo"]),
        ({"stage": "dpo", "lora_rank": 8}, ["objective=dpo", "adapter=lora:rank=8"]),
        ({"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.1}, ["adapter=lora:rank=8,alpha=16,dropout=0.1"]),
        ({"lora_target_modules": ["q_proj", "v_proj"]}, ["adapter=lora:targets=[q_proj, v_proj]"]),
        ({"use_dora": True, "use_rslora": False}, ["adapter=lora:dora=true"]),
        ({"use_peft": True}, []),
        ({"use_peft": False}, ["adapter=none"]),
        ({"max_steps": 30, "num_train_epochs": 1}, ["steps=30"]),
        ({"max_steps": -1, "num_train_epochs": 3}, ["epochs=3"]),
        ({"lr_scheduler_type": "cosine", "warmup_ratio": 0.03}, ["schedule=cosine", "warmup=0.03"]),
        ({"warmup_steps": 20}, ["warmup=20"]),
        ({"eval_steps": 5}, ["evaluation.every=5"]),
        ({"save_steps": 7, "save_total_limit": 1}, ["checkpoints.every=7", "checkpoints.keep=1"]),
        ({"report_to": "none"}, []),
        ({"report_to": ["wandb", "tensorboard"]}, ["trackers=[wandb, tensorboard]"]),
        ({"output_dir": "x"}, ["out=x"]),
        ({"precompute_ref_log_probs": True}, ["reference=cache"]),
        ({"precompute_ref_log_probs": False, "disable_dropout": True, "eval_strategy": "steps"}, []),
        ({"torch_dtype": "bfloat16"}, ["model.dtype=bfloat16"]),
        ({"attn_implementation": "sdpa"}, ["model={name: m, attn_implementation: sdpa}"]),
        ({"load_in_4bit": True}, ["model.load_in_4bit=true"]),
        ({"gradient_checkpointing": True}, ["model.gradient_checkpointing=true"]),
        ({"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}, ["batch_size=8"]),
        ({"per_device_train_batch_size": 2}, ["batch_size=2"]),
        ({"auto_find_batch_size": True}, ["max_tokens=auto"]),
        ({"auto_find_batch_size": False}, []),
        ({"optim": "adamw_torch"}, ["optimizer=adamw"]),
        ({"bf16": False, "padding_free": True, "logging_steps": 10, "loss_weights": None}, []),
    ],
)  # fmt: skip
def test_a_name_that_means_the_same_is_read(given: dict[str, Any], overrides: list[str]) -> None:
    read, notices = load(given)
    assert read == recipe.load(LEAST, overrides, notice=lambda remark: None)
    assert len([notice for notice in notices if notice.startswith("recipe: ")]) == len(given)
    assert all(any(key in notice for notice in notices) for key in given)


def test_model_and_data_by_their_names() -> None:
    given = {"model_name_or_path": "m", "model_revision": "main", "dataset_name": "d", "dataset_train_split": "t"}
    read, _ = load(given, {})
    assert (read.model.name, read.model.revision) == ("m", "main")
    assert (read.data[0].path, read.data[0].split) == ("d", "t")


def test_processes_count_into_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    read, notices = load({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3})
    assert read.batch_size == 24
    assert "recipe: per_device_train_batch_size is read as batch_size=24." in notices


def test_an_alias_on_the_command_line_overrides_the_file() -> None:
    notices: list[str] = []
    read = recipe.load({**LEAST, "optimizer": "adamw:lr=1e-3"}, ["learning_rate=1e-5"], notice=notices.append)
    assert read.optimizer.lr == 1e-5
    assert notices == ["learning_rate is read as optimizer.lr=1e-05."]


@pytest.mark.parametrize("name", _aliases.REFUSED)
def test_a_name_that_means_something_else_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load({name: True})
    assert str(caught.value) == f"recipe: {name} is not understood here. {_aliases.REFUSED[name]}"
    assert _aliases.REFUSED[name].endswith(".")
    assert load({name: None})[1] == [f"recipe: {name} asks for nothing and is left out."]


@pytest.mark.parametrize("name", _aliases.INERT)
def test_a_name_that_decides_nothing_passes_with_the_reason(name: str) -> None:
    read, notices = load({name: True})
    assert read == recipe.load(LEAST)
    assert notices == [f"recipe: {name} decides nothing here: {_aliases.INERT[name]}."]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss_type": "no_such_loss"}, "loss_type 'no_such_loss' is not here yet."),
        (
            {"loss_type": ["sigmoid", "sft"]},
            "loss_type with several losses is not understood here. Write the sum as text",
        ),
        ({"disable_dropout": False}, "disable_dropout=False is not understood here."),
        ({"eval_strategy": "epoch"}, "a strategy of 'epoch' is not here."),
        ({"report_to": "all"}, "Name the trackers"),
        ({"optim": "adafactor"}, "optim 'adafactor' is not here."),
        ({"stage": "rm"}, "stage 'rm' is not here. There are dpo, kto and sft"),
        ({"per_device_train_batch_size": "two"}, "must be whole numbers"),
        ({"batch_size": 4, "per_device_train_batch_size": 2}, "batch_size is stated twice."),
        ({"objective": "dpo:beta=0.1", "beta": 0.2}, "objective.beta is stated twice."),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "warmup is stated twice."),
        ({"objective": "dpo + sft", "beta": 0.2}, "objective.beta cannot be set, objective is not one named method."),
        ({"adapter": "none", "lora_r": 8}, "none has no option 'rank'."),
    ],
)
def test_what_cannot_be_rewritten_exactly_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="recipe") as caught:
        load(given)
    assert said in str(caught.value)


def test_every_name_leads_to_a_key_that_exists() -> None:
    specs = {key: rooms.load(room, name) for key, room, name in _defaults()}
    for ours in _aliases.RENAMED.values():
        head, _, rest = ours.partition(".")
        owner = {**specs, "model": recipe.ModelChoice, "data": recipe.DataChoice}.get(head)
        owner = owner or {"evaluation": recipe.EvaluationChoice, "checkpoints": recipe.CheckpointChoice}.get(head)
        known = {field.name for field in dataclasses.fields(owner if rest else recipe.Recipe)}  # type: ignore[arg-type]
        assert (rest or head) in known, ours
    assert not set(_aliases.names()) & {field.name for field in dataclasses.fields(recipe.Recipe)}


def _defaults() -> list[tuple[str, str, str]]:
    return [("objective", "objectives", "dpo"), ("adapter", "adapters", "lora"), ("optimizer", "optimizers", "adamw")]


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs TRL")
def test_trls_own_names_are_known() -> None:
    """Every field that TRL's DPO configuration adds is ours, an alias, or on the list of what we have no word for."""
    from transformers import TrainingArguments
    from trl import DPOConfig, ModelConfig

    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    theirs = {f.name for config in (DPOConfig, ModelConfig) for f in dataclasses.fields(config)} - inherited
    ours = {field.name for field in dataclasses.fields(recipe.Recipe)}
    unknown = {
        "activation_offloading", "bnb_4bit_quant_storage", "bnb_4bit_quant_type", "lora_target_parameters",
        "model_init_kwargs", "router_aux_loss_coef", "use_bnb_nested_quant",
    }  # fmt: skip
    assert theirs - ours - set(_aliases.names()) == unknown
