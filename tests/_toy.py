"""A whole small world on disk: a random Llama with a real tokenizer, and preferences that it can learn.

People prefer answers made of warm words; the rest follows TRL's conversational formats. One run takes about a second.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WARM = ("glad", "kind", "yes", "sure", "warm", "good")
COLD = ("no", "never", "bad", "cold", "rude", "go")
THINGS = ("sky", "grass", "cat", "mat", "sea", "sun", "tree", "door", "road", "song")


class Toy(NamedTuple):
    """Paths of the small world, as a recipe takes them."""

    model: str  # folder of a random Llama
    pairs: str  # 40 pairs over 25 prompts
    held_out: str  # 16 pairs over 16 other prompts
    labelled: str  # 30 answers with a label
    root: Path

    def choices(self, out: Path, **more: Any) -> dict[str, Any]:
        """Arguments of ``grainline.runs.align`` for a short run into ``out``; ``more`` replaces."""
        return {
            "model": self.model,
            "data": self.pairs,
            "adapter": "lora:rank=4",
            "optimizer": "adamw:lr=1e-2",
            "steps": 3,
            "batch_size": 8,
            "out": str(out),
            "progress": False,
        } | more


def build(root: Path) -> Toy:
    """Write the small world to ``root``."""
    write_model(root / "model")
    paths = {
        "pairs": jsonl(root / "pairs.jsonl", pairs(40, prompts=25, seed=0)),
        "held_out": jsonl(root / "test.jsonl", pairs(16, prompts=16, seed=1)),
        "labelled": jsonl(root / "labelled.jsonl", labelled(30)),
    }
    return Toy(model=str(root / "model"), root=root, **paths)


def jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


# ------------------------------------------------------------------------------------------------------------ rows


def pairs(count: int, *, prompts: int, seed: int) -> list[dict[str, Any]]:
    """Pairs in turn as explicit turns, as two conversations, with a weight, with a margin, and as plain text."""
    rng = random.Random(seed)
    asked = [f"tell me of the {rng.choice(THINGS)} and the {rng.choice(THINGS)} {seed}{i}" for i in range(prompts)]
    return [_pair(i, asked[i % prompts], _words(rng, WARM), _words(rng, COLD)) for i in range(count)]


def _pair(i: int, question: str, chosen: str, rejected: str) -> dict[str, Any]:
    ask, warm, cold = _turn("user", question), _turn("assistant", chosen), _turn("assistant", rejected)
    if i % 5 == 1:
        return {"chosen": [ask, warm], "rejected": [ask, cold]}
    if i % 5 == 4:
        return {"prompt": f"{question}?", "chosen": f" {chosen}", "rejected": f" {rejected}"}
    row = {"prompt": [ask], "chosen": [warm], "rejected": [cold]}
    return row | ({"weight": 1.5} if i % 5 == 2 else {"margin": 0.5, "id": f"m{i}"} if i % 5 == 3 else {})


def labelled(count: int) -> list[dict[str, Any]]:
    rng = random.Random(2)
    return [
        {
            "prompt": [_turn("user", f"tell me of the {rng.choice(THINGS)} {i % 12}")],
            "completion": [_turn("assistant", _words(rng, WARM if i % 3 else COLD))],
            "label": bool(i % 3),
        }
        for i in range(count)
    ]


def marked(count: int) -> list[dict[str, Any]]:
    """Those of ``count`` answers of three sentences, warm and cold, that hold a cold one: it is marked as an error."""
    rng, found = random.Random(0), []
    for n in range(count):
        text, spans = "", []
        for _ in range(3):
            cold = rng.random() < 0.4
            sentence = " ".join(rng.choice(COLD if cold else WARM) for _ in range(4)).capitalize() + ". "
            spans += [{"start": len(text), "end": len(text) + len(sentence) - 1, "aspect": "tone"}] if cold else []
            text += sentence
        if spans:
            prompt = [_turn("user", f"tell me of {n // 2}")]
            found.append({"prompt": prompt, "completion": text.strip(), "completion_spans": spans})
    return found


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _words(rng: random.Random, words: tuple[str, ...]) -> str:
    return " ".join(rng.choice(words) for _ in range(rng.randint(2, 6)))


# ----------------------------------------------------------------------------------------------------------- model


def tokenizer() -> Any:
    """A byte-level BPE of 330 tokens under ChatML; <|im_end|> ends a turn, there is no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["user assistant tell me of the " + " ".join((*WARM, *COLD, *THINGS))] * 4, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", additional_special_tokens=specials[:2]
    )
    made.chat_template = CHATML
    return made


def write_model(folder: Path, **options: Any) -> None:
    """A random Llama of 2 layers and width 32 with its tokenizer, the same one each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": None,
        }
        | options
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
