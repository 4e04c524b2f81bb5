"""A sentence-transformers model, tiny and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny(folder: Path, tokenizer: Any) -> Path:
    """Written to ``folder``, with the words of ``tokenizer``."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder / "bert")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16, "mean")], device="cpu").save(
        str(folder / "model")
    )
    return folder / "model"
