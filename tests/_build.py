"""What tests of the loop build with: examples made of numbers, tiny models of many architectures, a small run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from grainline import heads, rooms
from grainline.adapters._seam import attach, tagged
from grainline.adapters.lora import LoRA
from grainline.data.collate import Layout, collate, pack, speaking
from grainline.data.mismatch import mismatch
from grainline.data.order import Order
from grainline.forward import Scorer
from grainline.forward import parts as parts_of
from grainline.objectives.dpo import DPO
from grainline.optimizers.adamw import AdamW
from grainline.trainer import Outcome, Plan, fit
from grainline.types import Answer, AnswerTokens, Batch, Example, LogProbs, Record, Span

WINDOW = 6  # sliding window of those architectures that have one: much shorter than the rows of `questions`


# ------------------------------------------------------------------------------------------------------------ rows


def example(
    row: object,
    prompt: Sequence[int],
    *answers: Sequence[int],
    weights: Sequence[Sequence[float]] | None = None,
    weight: float = 1.0,
    label: bool | None = None,
    margin: float | None = None,
) -> Example:
    """An example straight from token ids; every token speaks with 1.0 unless ``weights`` says otherwise."""
    record = Record(str(row), "", tuple(Answer("") for _ in answers), label=label, weight=weight, margin=margin)
    loud = weights or [[1.0] * len(ids) for ids in answers]
    tokens = [AnswerTokens(tuple(ids), ((0, 0),) * len(ids), tuple(w)) for ids, w in zip(answers, loud, strict=True)]
    return Example(record, tuple(prompt), tuple(tokens))


def judged(one: Example, *sides: Sequence[tuple[str, float]]) -> Example:
    """``one`` with a score in each aspect for each answer as a whole, (aspect, score) pairs a side, and as segments."""
    answers = tuple(Answer("x", tuple(Span(0, 1, aspect, score) for aspect, score in side)) for side in sides)
    means = [sum(score for _, score in side) / len(side) for side in sides]
    tokens = tuple(
        tokens._replace(segment=(0,) * len(tokens.ids), score=(mean,))
        for tokens, mean in zip(one.answers, means, strict=True)
    )
    return one._replace(record=one.record._replace(answers=answers), answers=tokens)


def numbers(count: int, seed: object, vocabulary: int = 96) -> list[int]:
    """``count`` token ids, the same for the same seed."""
    rng = random.Random(str(seed))
    return [rng.randrange(3, vocabulary) for _ in range(count)]


def questions(vocabulary: int = 60) -> list[Example]:
    """Four pairs: two share prompt and chosen answer, one has an answer of one token, all but one outgrow WINDOW."""
    first, second = numbers(9, "first", vocabulary), numbers(14, "second", vocabulary)
    shared = numbers(6, "shared", vocabulary)
    return [
        example(0, first, shared, numbers(8, "b", vocabulary)),
        example(1, first, shared, numbers(3, "c", vocabulary)),
        example(2, second, numbers(1, "d", vocabulary), numbers(7, "e", vocabulary)),
        example(3, numbers(5, "third", vocabulary), numbers(12, "f", vocabulary), numbers(2, "g", vocabulary)),
    ]


def many(count: int, *, prompts: int | None = None, seed: int = 0, vocabulary: int = 96) -> list[Example]:
    """``count`` random pairs of uneven lengths over ``prompts`` prompts (default: half as many as pairs)."""
    rng = random.Random(seed)
    asked = [numbers(rng.randint(3, 12), (seed, "prompt", i), vocabulary) for i in range(prompts or (count + 1) // 2)]

    def answer(name: object) -> list[int]:
        return numbers(rng.randint(1, 9), (seed, name), vocabulary)

    return [example(i, asked[i % len(asked)], answer((i, "w")), answer((i, "l"))) for i in range(count)]


# ---------------------------------------------------------------------------------------------------------- models

_COMMON = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.25,
}  # fmt: skip
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2-window": ("Qwen2Config", {"use_sliding_window": True, **_MIXED}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "gemma": ("GemmaConfig", {"head_dim": 8}),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}
        | _MIXED,
    ),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, **_MIXED}),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}),
    "granite": (
        "GraniteConfig",
        {"logits_scaling": 3.0, "attention_multiplier": 0.4, "residual_multiplier": 0.7, "embedding_multiplier": 2.0},
    ),
    "phi": ("PhiConfig", {}),  # its head has a bias
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0, "embd_pdrop": 0,
         "attn_pdrop": 0},
    ),
}  # fmt: skip
"""Name -> configuration class and what is special of it; windows and soft-caps are small enough to bite."""


def model(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A random model of an architecture, the same one each time; every parameter is random, biases and norms too."""
    kind, special = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**(_COMMON | special | options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def adapted(base: Any, *, fresh: bool = False, rank: int = 4, seed: int = 0, **options: Any) -> Any:
    """``base`` under a LoRA; unless ``fresh``, B is random too, so that the policy is not the reference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = attach(LoRA(rank=rank, **options), base)
        if not fresh:
            with torch.no_grad():
                for name, tensor in policy.named_parameters():
                    if "lora_B" in name:
                        tensor.copy_(0.1 * torch.randn_like(tensor))
    return policy


def gradients(module: Any) -> dict[str, Tensor]:
    """Name -> gradient of every trainable tensor, zero where none came."""
    return {
        name: (torch.zeros_like(p) if p.grad is None else p.grad.detach().clone())
        for name, p in module.named_parameters()
        if p.requires_grad
    }


def apart(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative L2 distance of two sets of gradients."""
    assert found.keys() == wanted.keys()
    size = sum(float(g.double().square().sum()) for g in wanted.values()) ** 0.5
    assert size > 0
    return sum(float((found[k].double() - wanted[k].double()).square().sum()) for k in wanted) ** 0.5 / size


# ----------------------------------------------------------------------------------------------------------- a run


def adapter_off(scorer: Scorer, keep: Sequence[str] = ()) -> Callable[[Batch], LogProbs]:
    """The reference that is the same model without its adapter."""

    def reference(batch: Batch) -> LogProbs:
        with torch.no_grad(), scorer.model.disable_adapter():  # type: ignore[operator]
            return scorer(batch, keep=keep)

    return reference


def train(
    base: Any,
    folder: Path,
    *,
    examples: Sequence[Example] | None = None,
    steps: int = 4,
    batch_size: int = 8,
    max_tokens: int = 10_000,
    layout: Layout = "tree",
    objective: Any = None,
    lr: float = 1e-2,
    optimizer: Any = None,
    dropout: float = 0.0,
    watch: Callable[[Optimizer], object] | None = None,
    spy: Callable[[int], object] = id,
    plan: dict[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """A whole small run: LoRA on ``base``, reference = adapter off, AdamW, shuffled rows.

    ``watch`` may hook into the optimizer, ``spy`` hears the number of forwards of each step, ``plan`` holds more of the
    Plan, ``options`` go to ``fit``.
    """
    objective = objective or DPO()
    accelerator = Accelerator(cpu=True)
    adapter = LoRA(rank=4, dropout=dropout)
    torch.manual_seed(0)
    scorer = Scorer(attach(adapter, base), packed=layout != "padded")
    heads.attach(objective, scorer)
    order = Order(examples or many(20), batch_size=batch_size, seed=0)

    def batches(step: int) -> list[Batch]:
        rows = mismatch(order.step(step)) if "mismatched" in objective.needs else order.step(step)
        parts = pack(rows, max_tokens=max_tokens, layout=layout, parts=accelerator.num_processes)
        mine = parts[accelerator.process_index :: accelerator.num_processes]
        spy(len(mine))
        return [collate(part, rows=speaking(objective.needs), layout=layout) for part in mine]

    folder.mkdir(parents=True, exist_ok=True)
    made = (optimizer or AdamW(lr=lr))([*tagged(adapter, scorer.model), *heads.tagged(scorer.heads)])
    if watch is not None:
        watch(made)
    options.setdefault(
        "reference", adapter_off(scorer, parts_of(objective.needs)) if "reference" in objective.needs else None
    )
    return fit(
        scorer,
        objective,
        made,
        options.pop("batches", batches),
        Plan(steps=steps, **(plan or {})),
        folder,
        accelerator=accelerator,
        **options,
    )


MORE = {
    "kto": "kto:beta=0.5",
    "bco": "bco:beta=0.5",
    "aot": "aot:variant=unpaired",
    "masks": "sparsepo + 0.5*aot",
}
"""Objectives whose steps are more than a sum over forwards, or that train modules of their own."""


def train_more(base: Callable[[], Any], folder: Path, *, max_tokens: int = 70) -> None:
    """Three uneven steps of each objective of :data:`MORE` into folders of their names."""
    for name, text in MORE.items():
        train(
            base(),
            folder / name,
            objective=rooms.parse("objectives", text),
            batch_size=7,
            max_tokens=max_tokens,
            steps=3,
        )


def logged(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without the clock."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in logged(folder) if "loss" in line]
