"""The sides that are compared. A side takes the examples of a step and leaves its loss's gradient in the adapter.

All begin with the same token ids, the same weights and the same adapter, and end with the backward pass; laying out the
batch is part of the step. Nothing is updated, so each step can be done again by the next side.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from grainline import models
from grainline.adapters import _seam as adapters
from grainline.adapters.lora import LoRA
from grainline.data import collate, load
from grainline.data.encode import Encoder
from grainline.forward import Scorer
from grainline.objectives.dpo import DPO
from grainline.recipe import ModelChoice
from grainline.reduction import share, totals
from grainline.reference_cache import ReferenceCache
from grainline.types import Batch, Example, LogProbs

ADAPTER = LoRA(rank=16, alpha=32)  # on all linear layers
BETA = 0.1
SMOLLM2 = "smollm2-135m-instruct"
SIDES = {
    "trl": "TRL DPOTrainer",
    "tree": "Grainline",
    "cache": "Grainline, reference cached",
    "packed": "Grainline, packed layout",
    "padded": "Grainline, padded layout",
}


class Grainline:
    """One forward-backward of ``grainline.trainer.fit``, in a given layout."""

    def __init__(self, scorer: Scorer, layout: str, max_tokens: int) -> None:
        self.scorer, self.layout, self.max_tokens, self.objective = scorer, layout, max_tokens, DPO(beta=BETA)
        self.model = scorer.model
        self.accelerator = Accelerator(cpu=next(scorer.parameters()).device.type == "cpu")
        self.cache: ReferenceCache | None = None

    def fill_cache(self, steps: Sequence[Sequence[Example]]) -> None:
        """From now on the reference is read, not computed."""
        with tempfile.TemporaryDirectory() as folder:
            cache = ReferenceCache(Path(folder))
            cache.fill((batch for examples in steps for batch in self.forwards(examples)), self.without_adapter)
        self.cache = cache

    def forwards(self, examples: Sequence[Example]) -> list[Batch]:
        parts = collate.pack(examples, max_tokens=self.max_tokens, layout=self.layout)
        return [collate.collate(part, layout=self.layout).to(self.accelerator.device) for part in parts]

    @torch.no_grad()
    def without_adapter(self, batch: Batch) -> LogProbs:
        with self.model.disable_adapter():
            return self.scorer(batch)

    def __call__(self, examples: Sequence[Example]) -> float:
        self.scorer.use(packed=self.layout != "padded")  # the sides share it
        forwards, value = self.forwards(examples), 0.0
        counted = totals(self.objective, forwards, self.accelerator)
        for batch in forwards:
            policy = self.scorer(batch)
            reference = self.without_adapter(batch) if self.cache is None else self.cache(batch)
            loss = share(self.objective(policy, reference, batch.facts, {}), batch.facts.weight, counted)
            loss.backward()
            value += loss.item()
        return value


class Trl:
    """TRL's own trainer object: its collator, its compute_loss, its backward. float32, no gradient checkpointing."""

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int) -> None:
        from datasets import Dataset, disable_progress_bars
        from trl import DPOConfig, DPOTrainer

        disable_progress_bars()
        cpu = next(model.parameters()).device.type == "cpu"
        settings = DPOConfig(
            output_dir=tempfile.gettempdir(),  # nothing is written
            use_cpu=cpu,
            bf16=False,
            gradient_checkpointing=False,
            disable_dropout=True,
            beta=BETA,
            max_length=max_length,
            report_to="none",
        )
        # The trainer wants rows before it exists; the steps are handed to it as ids, so that both sides read the same.
        row = {"prompt": "one", "chosen": " two", "rejected": " three"}
        self.trainer = DPOTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
            peft_config=ADAPTER.config(model),
        )
        self.model = self.trainer.model.train()
        fill_adapter(self.model)

    def __call__(self, examples: Sequence[Example]) -> float:
        rows = [
            {"prompt_ids": list(e.prompt), "chosen_ids": list(e.answers[0].ids), "rejected_ids": list(e.answers[1].ids)}
            for e in examples
        ]
        inputs = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
        with self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(self.model, inputs)
        self.trainer.accelerator.backward(loss)
        return loss.item()


class Bench:
    """The models of the sides asked for, and the steps they are to do."""

    def __init__(self, options: Any) -> None:
        warnings.simplefilter("ignore", FutureWarning)  # transformers' renamings, met by TRL and PEFT
        torch.set_num_threads(options.threads)
        self.device, self.options = models.device(options.device), options
        self.tokenizer = models.load_tokenizer(SMOLLM2)
        data = Path(os.environ.get("GRAINLINE_SHARED", Path(__file__).parents[2] / "shared"), "data")
        count = options.pairs * (options.warm + options.steps)
        records = load.read(data / "hh_harmless" / "train.jsonl.gz", limit=count).records
        examples, _ = Encoder(self.tokenizer, max_length=options.max_length).encode_all(records)
        self.steps = [examples[i : i + options.pairs] for i in range(0, len(examples), options.pairs)]
        self._scorer: Scorer | None = None

    def side(self, name: str) -> Grainline | Trl:
        """The side called ``name``; Grainline's sides share one scorer."""
        if name == "trl":
            return Trl(self.model(), self.tokenizer, self.options.max_length)
        if self._scorer is None:
            self._scorer = Scorer(adapters.attach(ADAPTER, self.model()).train())
            fill_adapter(self._scorer)
        ours = Grainline(self._scorer, "tree" if name == "cache" else name, self.options.max_tokens)
        if name == "cache":
            ours.fill_cache(self.steps)
        return ours

    def model(self) -> nn.Module:
        if self.options.model == "smollm2":
            choice = ModelChoice(name=SMOLLM2, dtype="float32", device=str(self.device))
            model = models.load(choice).model
        else:
            from transformers import LlamaConfig, LlamaForCausalLM

            torch.manual_seed(0)
            sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
            config = LlamaConfig(vocab_size=len(self.tokenizer), num_key_value_heads=2, **sizes)
            model = LlamaForCausalLM(config).to(self.device)
        models.disable_dropout(model)
        return model


@torch.no_grad()
def fill_adapter(model: nn.Module) -> None:
    """The same adapter everywhere, with a B that is not zero, so that no gradient is."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def take_gradient(model: nn.Module) -> Tensor:
    """All of the adapter's gradient as one vector; leaves none behind."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return gradient


def tokens(steps: Sequence[Sequence[Example]]) -> dict[str, int]:
    """Tokens of ``steps``: what stands in the data, and what each layout puts through the model."""
    whole = [len(e.prompt) + len(a.ids) for step in steps for e in step for a in e.answers]
    answers = [len(a.ids) for step in steps for e in step for a in e.answers]
    laid = {layout: sum(collate.tokens(step, layout) for step in steps) for layout in ("tree", "packed", "padded")}
    return {"real": sum(whole), "answers": sum(answers), **laid}
