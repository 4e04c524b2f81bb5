"""Names of TRL and transformers that a recipe understands, as data.

A name is an alias where its meaning and unit are ours (``RENAMED``), or where its value can be rewritten exactly
(``_CONVERTED``). A name that decides nothing here is accepted with the reason (``INERT``); a name whose meaning differs
is refused with what to write instead (``REFUSED``), unless its value is the one that asks for nothing. An alias carries
a value, never a default: what is not written has our default, not theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from grainline import rooms
from grainline.errors import RecipeError

RENAMED = {
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "dtype": "model.dtype",
    "torch_dtype": "model.dtype",
    "attn_implementation": "model.attn_implementation",
    "trust_remote_code": "model.trust_remote_code",
    "load_in_4bit": "model.load_in_4bit",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "dataset_name": "data.path",
    "dataset_train_split": "data.split",
    "output_dir": "out",
    "cutoff_len": "max_length",
    "num_train_epochs": "epochs",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "beta": "objective.beta",
    "pref_beta": "objective.beta",
    "label_smoothing": "objective.label_smoothing",
    "dpo_label_smoothing": "objective.label_smoothing",
    "f_alpha_divergence_coef": "objective.alpha",
    "lora_r": "adapter.rank",
    "lora_rank": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_target_modules": "adapter.targets",
    "lora_bias": "adapter.bias",
    "lora_modules_to_save": "adapter.modules_to_save",
    "use_rslora": "adapter.rslora",
    "use_dora": "adapter.dora",
    "eval_steps": "evaluation.every",
    "save_steps": "checkpoints.every",
    "save_total_limit": "checkpoints.keep",
}
"""Their name -> our key: the same meaning in the same unit."""

INERT = {
    "padding_free": "rows are packed without padding wherever that is exact (layout)",
    "pad_to_multiple_of": "rows are packed without padding wherever that is exact (layout)",
    "per_device_eval_batch_size": "max_tokens sizes every forward pass and never changes a result",
    "precompute_ref_batch_size": "max_tokens sizes every forward pass and never changes a result",
    "eval_accumulation_steps": "evaluation keeps numbers per row, not logits",
    "logging_steps": "every step is written to metrics.jsonl",
    "logging_first_step": "every step is written to metrics.jsonl",
    "logging_strategy": "every step is written to metrics.jsonl",
    "logging_dir": "the run's folder is out",
    "run_name": "a run is named by its folder, out",
    "dataset_num_proc": "it decides speed only",
    "dataloader_num_workers": "it decides speed only",
    "dataloader_pin_memory": "it decides speed only",
    "remove_unused_columns": "columns that are not understood are left alone",
    "lora_task_type": "the task is causal language modelling",
    "pad_token": "rows are told apart by masks, never by a padding token",
    "ddp_find_unused_parameters": "all trainable tensors take part in each step",
    "do_train": "the verb decides what is done",
    "do_eval": "held-out data is evaluated whenever evaluation.data names some",
}
"""Their name -> why it decides nothing here."""

REFUSED = {
    "bf16": "It asks for autocast over float32 weights there; here model.dtype=bfloat16 holds the frozen model in it.",
    "fp16": "It asks for autocast with a loss scaler there; here model.dtype=bfloat16 holds the frozen model in it.",
    "load_in_8bit": "8-bit weights are not here; write model.load_in_4bit=true or model.dtype=bfloat16.",
    "gradient_checkpointing_kwargs": "Write model.gradient_checkpointing=true; there is nothing to choose about it.",
    "max_prompt_length": "Prompts have no limit of their own: max_length cuts the oldest turns of prompt + answer.",
    "max_completion_length": "Answers have no limit of their own: write max_length, of prompt + answer.",
    "truncation_mode": "Rows longer than max_length lose the oldest turns of their prompt, never the answer's end.",
    "loss_weights": "Write the sum as text: objective: dpo + 0.5*sft.",
    "rpo_alpha": "Add the supervised loss as text: objective: dpo + 1.0*sft.",
    "cpo_alpha": "Write objective: cpo:sft=1.0, or add the supervised loss as text: simpo + 1.0*sft.",
    "pref_ftx": "Add the supervised loss as text: objective: dpo + 1.0*sft.",
    "simpo_gamma": "Write it as an option of the objective: simpo:gamma=1.375.",
    "gamma_beta_ratio": "Write it as an option of the objective: simpo:gamma=0.55,gamma_as=ratio.",
    "ld_alpha": "Write supervision: shared-length:tail=0.5, which damps policy and reference alike, as TRL does.",
    "use_weighting": "Write objective: wpo, which is dpo with these weights.",
    "discopop_tau": "Write it as an option of the objective: discopop:tau=0.05.",
    "reference_free": "Choose an objective that needs no reference (grainline ls objectives).",
    "ref_model_name_or_path": "The reference is the model before training; write model.adapter to continue from one.",
    "dataset_config": "Name a hub id, folder or file under data; a configuration is a folder of the hub's repository.",
    "dataset": "Write data: a file, folder or hub id. There it is a name in dataset_info.json.",
    "template": "The tokenizer's own chat template is applied; set it there if it is another one.",
    "dataset_test_split": "Write evaluation.data: {test: {path: ..., split: test}}.",
    "dataset_streaming": "Records are read whole: they are checked before the first step.",
    "metric_for_best_model": "Metrics are named by their set: write evaluation.best: eval_SET_rewards/accuracies.",
    "greater_is_better": "Write a leading minus in evaluation.best where lower is better.",
    "load_best_model_at_end": "Write evaluation.best; the best checkpoint is then kept beside the newest.",
    "resume_from_checkpoint": "Resuming is asked of the run, not of the recipe: grainline align RECIPE --resume.",
    "lr_scheduler_kwargs": "A schedule has warmup and nothing else to choose.",
    "adam_beta1": "Betas are options of the optimizer: see grainline show optimizer adamw.",
    "adam_beta2": "Betas are options of the optimizer: see grainline show optimizer adamw.",
    "adam_epsilon": "It is an option of the optimizer: see grainline show optimizer adamw.",
    "neftune_noise_alpha": "Noise on embeddings is not here.",
    "push_to_hub": "Nothing is uploaded; grainline export writes a folder to upload.",
    "group_by_length": "sampler decides the order of rows; packing makes lengths irrelevant to speed.",
    "use_liger_kernel": "Log-probs are already taken in chunks, without the whole table of logits.",
    "deepspeed": "It is not supported; shard: true shares frozen weights out over processes (FSDP2).",
    "fsdp": "Write shard: true, and start with torchrun.",
}
"""Their name -> what to write instead. ``null``, ``false`` and ``no`` ask for nothing, and pass."""

REMARKS = {
    "label_smoothing": " (TRL ignores it with loss_type sigmoid; here it is applied)",
    "warmup_steps": " (below 1, a share of all steps)",
}
"""What the notice of an alias adds."""

_NOTHING: tuple[Any, ...] = (None, False, "no", "", [], {})
_LOSSES = {"sigmoid": "dpo", "sigmoid_norm": "dpo", "exo_pair": "exo", "nca_pair": "nca"}
"""TRL's loss_type -> our objective where the formula is the same. Any other is looked up under its own name."""
_DIVERGENCES = {"js_divergence": "js", "alpha_divergence": "alpha"}
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def translate(key: str, value: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """(our keys with their values, a notice) for one of their names; None for a name that is not theirs.

    ``given`` holds all that stands beside ``key``: a batch size there is a product of two.

    Raises:
        RecipeError: the name means something else here, or its value cannot be rewritten exactly.
    """
    if key in REFUSED:
        if any(value is nothing or (value == nothing and type(value) is type(nothing)) for nothing in _NOTHING):
            return {}, f"{key} asks for nothing and is left out."
        raise RecipeError(f"{key} is not understood here.", instead=REFUSED[key])
    if key in INERT:
        return {}, f"{key} decides nothing here: {INERT[key]}."
    if key in RENAMED:
        ours = {RENAMED[key]: value}
    elif key in _CONVERTED:
        ours = _CONVERTED[key](value, given)
    else:
        return None
    said = ", ".join(f"{name}={value}" for name, value in ours.items()) + REMARKS.get(key, "")
    return ours, f"{key} is read as {said}." if ours else f"{key}={value} asks for nothing and is left out."


def names() -> list[str]:
    """All names of theirs that are known here, whatever becomes of them."""
    return sorted({*RENAMED, *_CONVERTED, *INERT, *REFUSED})


def _batch_size(_: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows per step over all processes; each factor that is not written has transformers' own default."""
    try:
        rows, accumulated = int(given.get(_BATCH[0], 8)), int(given.get(_BATCH[1], 1))
    except (TypeError, ValueError):
        raise RecipeError(f"{' and '.join(_BATCH)} must be whole numbers.", instead="Or write batch_size.") from None
    return {"batch_size": rows * accumulated * int(os.environ.get("WORLD_SIZE", "1"))}


def _loss_type(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    loss = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    if not isinstance(loss, str):
        raise RecipeError("loss_type with several losses is not understood here.", instead=REFUSED["loss_weights"])
    name = _LOSSES.get(loss, loss.replace("_", "-"))
    if name not in rooms.names("objectives"):
        instead = f"There are: {', '.join(rooms.names('objectives'))}."
        raise RecipeError(f"loss_type {loss!r} is not here yet.", instead=instead)
    return {"objective": name} | ({"objective.normalise": "mean"} if loss == "sigmoid_norm" else {})


def _stage(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """LLaMA-Factory's: of dpo, pref_loss says which."""
    if value not in ("dpo", "kto", "sft"):
        instead = "There are dpo, kto and sft; grainline reward train teaches a reward."
        raise RecipeError(f"stage {value!r} is not here.", instead=instead)
    return {} if value == "dpo" and "pref_loss" in given else {"objective": value}


def _report_to(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    trackers = [value] if isinstance(value, str) else list(value or ())
    if "all" in trackers:
        raise RecipeError("report_to: all depends on what is installed.", instead="Name the trackers: [tensorboard].")
    return {"trackers": [tracker for tracker in trackers if tracker != "none"]}


def _optim(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    if value not in ("adamw_torch", "adamw_torch_fused", "adamw_hf"):
        raise RecipeError(f"optim {value!r} is not here.", instead="Write optimizer (grainline ls optimizers).")
    return {"optimizer": "adamw"}


def _when(key: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    def convert(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
        if str(value) not in ("no", "steps", "False"):
            raise RecipeError(f"a strategy of {value!r} is not here.", instead=f"Count in optimizer steps: {key}.")
        return {}

    return convert


def _unless(expected: bool, key: str, instead: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    def convert(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
        if value is not expected:
            raise RecipeError(f"{key}={value} is not understood here.", instead=instead)
        return {}

    return convert


_CONVERTED: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(_BATCH, _batch_size),
    "loss_type": _loss_type,
    "pref_loss": _loss_type,
    "stage": _stage,
    "f_divergence_type": lambda value, _: {"objective.divergence": _DIVERGENCES.get(value, value)},
    "report_to": _report_to,
    "optim": _optim,
    # Theirs halves a device's batch until it fits, and learns from fewer rows a step; this one changes no result.
    "auto_find_batch_size": lambda value, _: {"max_tokens": "auto"} if value is True else {},
    "use_cpu": lambda value, _: {"model.device": "cpu"} if value is True else {},
    "max_steps": lambda value, _: {"steps": None if value == -1 else value},
    "finetuning_type": lambda value, _: {"adapter": {"full": "none"}.get(value, value)},
    "use_peft": lambda value, _: {} if value is True else {"adapter": "none"},
    "sync_ref_model": lambda value, said: (
        {"synchronise.every": said.get("ref_model_sync_steps", 512)} if value is True else {}
    ),
    "ref_model_sync_steps": lambda *_: {},  # read with sync_ref_model
    "ref_model_mixup_alpha": lambda value, said: (
        {"synchronise.share": value} if said.get("sync_ref_model") is True else {}
    ),
    "precompute_ref_log_probs": lambda value, _: {"reference": "cache"} if value is True else {},
    "disable_dropout": _unless(True, "disable_dropout", "The model's own dropout is always off, as the papers assume."),
    "eval_strategy": _when("evaluation.every"),
    "evaluation_strategy": _when("evaluation.every"),
    "save_strategy": _when("checkpoints.every"),
}
