"""The models that are measured, each the same on every machine.

``smollm2``   SmolLM2-135M-Instruct, real weights
``tiny-49k``  a random Llama of 256 hidden units and 6 layers with SmolLM2's 49152 tokens: the head outweighs the body
``tiny-4k``   the same body with 4096 tokens of its own, learnt from the rows that are measured: a balanced model
``tiny``      smaller still: does the benchmark itself work?
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grainline import atomic, cpu, models
from grainline.data import load as rows
from grainline.recipe import ModelChoice

SMOLLM2 = "smollm2-135m-instruct"
NAMES = ("smollm2", "tiny-4k", "tiny-49k", "tiny")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # SmolLM2's names, so that its chat template fits


@cache
def tokenizer(name: str, data: Path) -> Any:
    """The tokenizer of model ``name``; that of tiny-4k is learnt once from the training rows in ``data``, and kept."""
    return _small_tokenizer(data) if name == "tiny-4k" else models.load_tokenizer(SMOLLM2)


def model(name: str, vocabulary: int, *, dtype: str, device: torch.device) -> nn.Module:
    """A fresh copy of model ``name``, without dropout, its weights held in ``dtype``."""
    if name == "smollm2":
        made = models.load(ModelChoice(name=SMOLLM2, dtype=dtype, device=str(device))).model
    elif name == "tiny":
        made = llama(vocabulary, hidden=64, layers=2, heads=4, inner=128)
    else:
        made = llama(vocabulary, hidden=256, layers=6, heads=4, inner=1024)
    cpu.settle()  # as where weights are loaded
    models.disable_dropout(made)
    return made.to(device=device, dtype=getattr(torch, dtype))


def llama(vocabulary: int, *, hidden: int, layers: int, heads: int, inner: int, longest: int = 4096) -> nn.Module:
    """A random Llama with tied embeddings and half as many key heads as heads; float32, seeded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            intermediate_size=inner,
            max_position_embeddings=longest,
            tie_word_embeddings=True,
        )
    ).eval()


def _small_tokenizer(data: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = models.cache_dir() / "bench" / "tiny-4k"
    if folder.is_dir():
        return AutoTokenizer.from_pretrained(folder)
    print(f"Learning a vocabulary of 4096 tokens, kept in {folder}: once.", file=sys.stderr)
    made = PreTrainedTokenizerFast(
        tokenizer_object=_learn(data),
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
    )
    made.chat_template = models.load_tokenizer(SMOLLM2).chat_template
    with atomic.folder(folder) as temporary:
        made.save_pretrained(temporary)
    return made


def _learn(data: Path) -> Any:
    """Byte-level BPE over every turn of hh_harmless."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    found = Tokenizer(BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator(_turns(data), trainer)
    return found


def _turns(data: Path) -> Iterator[str]:
    for record in rows.read(data / "hh_harmless" / "train.jsonl.gz").records:
        yield from (record.prompt,) if isinstance(record.prompt, str) else (turn["content"] for turn in record.prompt)
        yield from (answer.text for answer in record.answers)
