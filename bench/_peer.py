"""TRL's side: its own trainer object, fed with the same token ids."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from grainline.types import Example


class Trl:
    """One forward-backward of TRL's DPOTrainer: its collator, its compute_loss (metrics and all), its backward.

    Its settings are TRL's documented ones: ``bf16`` (autocast over float32 weights) or not, no gradient checkpointing,
    no dropout. The trainer wants rows before it exists; the steps are handed to it later, as ids, so that both
    sides read the same.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, adapter: Any, *, beta: float, options: Any) -> None:
        from datasets import Dataset, disable_progress_bars
        from trl import DPOConfig, DPOTrainer

        disable_progress_bars()
        settings = DPOConfig(
            output_dir=tempfile.gettempdir(),  # nothing is written
            use_cpu=next(model.parameters()).device.type == "cpu",
            bf16=options.dtype == "bfloat16",
            gradient_checkpointing=False,
            disable_dropout=True,
            beta=beta,
            max_length=options.max_length,
            per_device_eval_batch_size=options.pairs,
            report_to="none",
            disable_tqdm=True,
        )
        row = {"prompt": "one", "chosen": " two", "rejected": " three"}
        self.trainer = DPOTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
            peft_config=adapter,
        )
        # As Trainer.train does it: this is where bf16's autocast is put around the forward.
        self.model = self.trainer.accelerator.prepare_model(self.trainer.model.train())

    def rows(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Examples as TRL's data set holds them once it has tokenised it."""
        return [
            {"prompt_ids": list(e.prompt), "chosen_ids": list(e.answers[0].ids), "rejected_ids": list(e.answers[1].ids)}
            for e in examples
        ]

    def with_reference(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The same with the reference's log-probs beside them: what ``precompute_ref_log_probs=True`` stores."""
        rows = self.rows(examples)
        inputs = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
        chosen, rejected = self.trainer.compute_ref_log_probs(self.trainer.model, inputs)
        names = ("ref_chosen_logps", "ref_rejected_logps")
        return [
            row | dict(zip(names, pair, strict=True))
            for row, *pair in zip(rows, chosen.tolist(), rejected.tolist(), strict=True)
        ]

    def step(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        """Forward and backward of ``rows``; with a stored reference where they have one."""
        trainer = self.trainer
        trainer.precompute_ref_logps = "ref_chosen_logps" in rows[0]
        inputs = trainer._prepare_inputs(trainer.data_collator(rows))
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(self.model, inputs)
        trainer.accelerator.backward(loss)
        return loss
