"""How long does reward accuracy on held-out pairs take? Grainline's evaluation beside TRL's ``evaluate``.

    python bench/evaluation.py                       SmolLM2-135M, 96 pairs of hh: some minutes
    python bench/evaluation.py --pairs 500 --dtype bfloat16

Both evaluate the same pairs with the same adapter, the reference computed beside the policy; with ``--known`` also with
the reference already there (``precompute_ref_log_probs=True``, our cache). TRL's batches hold ``--batch`` pairs; its
default is 8. Seconds for 500 pairs are scaled from the pairs that were taken, evenly spaced in the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from _environment import with_peers
from _options import as_dict

COLUMNS = {
    "s": ("seconds", ".1f", "for these pairs"),
    "s/500": ("scaled", ".0f", "for 500 pairs"),
    "faster": ("speedup", ".2f", "times faster than the first line"),
    "accuracy": ("accuracy", ".4f", "share of pairs whose chosen answer has the larger implied reward"),
    "margin": ("margin", ".4f", "mean implied reward of chosen minus rejected"),
    "others": ("others", ".2f", "cores used by other processes"),
}


def main() -> None:
    options = parse()
    import _machine
    import torch
    from _race import say, table, write
    from _sides import Bench

    bench = Bench(options)
    pairs = held_out(bench, options)
    ways = {**trl(bench, pairs, options), **ours(bench, pairs, options)}
    found: dict[str, Any] = {}
    for name, run in ways.items():
        clock = _machine.Clock(bench.device)
        accuracy, margin = run()
        found[name] = clock.read()._asdict() | {"accuracy": accuracy, "margin": margin}
        found[name]["scaled"] = found[name]["seconds"] * 500 / len(pairs)
        say(f"{name}: {found[name]['seconds']:.1f} s")
    first = next(iter(found.values()))["seconds"]
    for way in found.values():
        way["speedup"] = first / way["seconds"]
    facts = _machine.facts(bench.device)
    print(f"\n{options.model}, {options.dtype}, {len(pairs)} pairs of hh (test)")
    print(f"{facts['processor']}, {torch.get_num_threads()} threads, torch {facts['torch']}, trl {facts['trl']}\n")
    print(table({name: name for name in found}, found, COLUMNS))
    write({"settings": as_dict(options), "machine": facts, "ways": found}, options.json)


def parse() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, count = made.add_argument, {"type": int, "metavar": "N"}
    add("--model", choices=["smollm2", "tiny-4k", "tiny-49k", "tiny"], default="smollm2", help="default smollm2")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="default float32")
    add("--pairs", dest="count", default=96, **count, help="held-out pairs (default 96)")
    add("--batch", dest="pairs", default=8, **count, help="pairs in a batch of TRL's (default 8)")
    add("--threads", default=2, **count, help="of torch (default 2)")
    add("--device", default="cpu", help="cpu, cuda, mps or auto (default cpu)")
    add("--max-length", default=512, **count, help="tokens of prompt and answer (default 512)")
    add("--max-tokens", default=4096, **count, help="tokens in one forward of Grainline's (default 4096)")
    add("--known", action="store_true", help="also with the reference known beforehand")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    made.set_defaults(data="qa", steps=1, warm=0, questions=8)  # steps of the bench, which are not used here
    return made.parse_args()


def held_out(bench: Any, options: argparse.Namespace) -> list[Any]:
    from _rows import DATA

    from grainline.data import load
    from grainline.data.encode import Encoder

    records = load.read(DATA / "hh_harmless" / "test.jsonl.gz").records
    examples, _ = Encoder(bench.tokenizer, max_length=options.max_length).encode_all(records)
    return examples[:: max(1, len(examples) // options.count)][: options.count]


def trl(bench: Any, pairs: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """TRL's ``evaluate`` of the same token ids, which it keeps as its evaluation set."""
    from _rows import cut
    from datasets import Dataset

    side = bench.trl()
    trainer = side.trainer

    def run(rows: Any, known: bool) -> tuple[float, float]:
        trainer.eval_dataset, trainer.precompute_ref_logps = rows, known
        metrics = trainer.evaluate()
        return metrics["eval_rewards/accuracies"], metrics["eval_rewards/margins"]

    plain = Dataset.from_list(side.rows(pairs))
    run(plain.select(range(min(len(pairs), options.pairs))), False)  # warm-up
    ways = {"TRL evaluate": lambda: run(plain, False)}
    if options.known:
        stored = Dataset.from_list([row for batch in cut(pairs, options.pairs) for row in side.with_reference(batch)])
        ways["TRL, reference known"] = lambda: run(stored, True)
    return ways


def ours(bench: Any, pairs: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Grainline's evaluation, as a run does it: forwards of trees, every token counting 1; laying them out included."""
    from _sides import Ours

    from grainline.evaluation import preferences

    grainline = bench.ours(Ours()).grainline

    def forwards(chosen: list[Any]) -> list[Any]:
        return preferences.forwards(chosen, rows="pairs", layout="tree", max_tokens=options.max_tokens)

    def run(reference: Any, chosen: list[Any] = pairs) -> tuple[float, float]:
        with grainline.ready():
            rows = preferences.evaluate(
                grainline.scorer, grainline.objective, forwards(chosen), reference=reference, device=bench.device
            )
        metrics = preferences.summarise(rows, {e.record.id: e.prompt for e in chosen})
        return metrics["rewards/accuracies"], metrics["rewards/margins"]

    run(grainline.without_adapter, pairs[: options.pairs])  # warm-up
    ways = {"Grainline": lambda: run(grainline.without_adapter)}
    if options.known:
        cache = grainline.cached(forwards(pairs))
        ways["Grainline, reference known"] = lambda: run(cache)
    return ways


if __name__ == "__main__":
    with_peers()
    main()
