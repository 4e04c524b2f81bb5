"""How long do sampled answers take? Many at once behind a prompt read once, beside transformers' ``generate``.

    python bench/generation.py                  SmolLM2-135M, 4 prompts of hh, 4 answers each: about two minutes

Three ways make the very same answers: each draws its tokens with the luck of :mod:`grainline.generation`, handed to
transformers as a logits processor, and the tokens are compared. ``one by one`` calls ``generate`` for each answer, ``a
prompt at a time`` for each prompt with its row repeated (what ``num_return_sequences`` does). They take turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

from _options import as_dict

COLUMNS = {
    "s": ("seconds", ".2f", "for all answers, median"),
    "tok/s": ("tokens_a_second", ".1f", "tokens made"),
    "faster": ("speedup", ".2f", "times faster than the first line, median of the rounds"),
    "same": ("same", ".2f", "share of answers with the same tokens as the first line's"),
    "others": ("others", ".2f", "cores used by other processes, the worst"),
}


def main() -> None:
    options = parse()
    import _machine
    import _models
    import torch
    from _race import say, table, write
    from _rows import DATA

    from grainline import models

    torch.set_num_threads(options.threads)
    device = models.device(options.device)
    tokenizer = _models.tokenizer(options.model, DATA)
    model = _models.model(options.model, len(tokenizer), dtype=options.dtype, device=device).eval()
    ways = ways_of(model, prompts(tokenizer, options), options)
    taken: dict[str, list[Any]] = {name: [] for name in ways}
    said: dict[str, Any] = {}
    for turn in range(options.rounds):
        order = list(ways)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            clock = _machine.Clock(device)
            with torch.no_grad():
                said[name] = ways[name]()
            taken[name].append(clock.read())
            say(f"{name}: {taken[name][-1].seconds:.1f} s, others {taken[name][-1].others:.2f} cores")
    first = next(iter(ways))
    found = {name: summary(taken[name], taken[first], said[name], said[first]) for name in ways}
    facts = _machine.facts(device)
    print(f"\n{options.model}, {options.dtype}: {options.prompts} prompts, {options.each} answers each")
    print(f"{facts['processor']}, {facts['threads']} threads, transformers {facts['transformers']}\n")
    print(table({name: name for name in found}, found, COLUMNS))
    write({"settings": as_dict(options), "machine": facts, "ways": found}, options.json)


def parse() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, count = made.add_argument, {"type": int, "metavar": "N"}
    add("--model", choices=["smollm2", "tiny-4k", "tiny-49k", "tiny"], default="smollm2", help="default smollm2")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="default float32")
    add("--prompts", default=4, **count, help="prompts, evenly spaced in hh's test split (default 4)")
    add("--each", default=4, **count, help="answers a prompt (default 4)")
    add("--max-new-tokens", default=48, **count, help="tokens of an answer at most (default 48)")
    add("--rounds", default=2, **count, help="times each way is timed (default 2)")
    add("--threads", default=2, **count, help="of torch (default 2)")
    add("--device", default="cpu", help="cpu, cuda, mps or auto (default cpu)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return made.parse_args()


def prompts(tokenizer: Any, options: argparse.Namespace) -> list[tuple[int, ...]]:
    """Prompts of hh's test split, as token ids."""
    from _rows import DATA

    from grainline.data import load
    from grainline.data.encode import Encoder

    records = load.read(DATA / "hh_harmless" / "test.jsonl.gz", limit=400).records
    examples, _ = Encoder(tokenizer, max_length=512).encode_all(records)
    return [e.prompt for e in examples[:: max(1, len(examples) // options.prompts)][: options.prompts]]


def ways_of(model: Any, asked: list[tuple[int, ...]], options: argparse.Namespace) -> dict[str, Any]:
    """Name -> a function that makes all answers: a list of token tuples, prompt by prompt."""
    import torch

    from grainline import generation

    manner = generation.Manner(max_new_tokens=options.max_new_tokens, temperature=1.0)
    stops = generation.end_tokens(model)

    def theirs(prompt: tuple[int, ...], numbers: range) -> list[tuple[int, ...]]:
        ids = torch.tensor([prompt] * len(numbers), device=model.device)
        how = generation.options([prompt], numbers, manner, stops)
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[:, len(prompt) :].tolist()
        ends = [next((t for t, token in enumerate(row) if token in stops), None) for row in made]
        return [tuple(row[:end]) for row, end in zip(made, ends, strict=True)]

    def ours() -> list[tuple[int, ...]]:
        return [one.ids for few in generation.generate(model, asked, manner, each=options.each) for one in few]

    return {
        "transformers, one by one": lambda: [
            said for prompt in asked for k in range(options.each) for said in theirs(prompt, range(k, k + 1))
        ],
        "transformers, a prompt at a time": lambda: [
            said for prompt in asked for said in theirs(prompt, range(options.each))
        ],
        "Grainline": ours,
    }


def summary(taken: list[Any], first: list[Any], said: Any, wanted: Any) -> dict[str, Any]:
    seconds = median(one.seconds for one in taken)
    return {
        "seconds": seconds,
        "tokens_a_second": sum(map(len, said)) / seconds,
        "speedup": median(a.seconds / b.seconds for a, b in zip(first, taken, strict=True)),
        "same": sum(a == b for a, b in zip(said, wanted, strict=True)) / len(wanted),
        "others": max(one.others for one in taken),
        "rounds": [one._asdict() for one in taken],
    }


if __name__ == "__main__":
    main()
