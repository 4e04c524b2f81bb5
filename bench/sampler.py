"""What does ``sampler=by_prompt`` spare? Tokens through the model in one epoch, counted, and seconds of some steps.

    python bench/sampler.py                         qa_feedback, several pairs a question; counted only: seconds
    python bench/sampler.py --time 4 --model tiny-4k --pairs 16

Rows of a question fall into one step by chance if rows are shuffled, and always if questions are. With ``--time N``,
N steps of either kind are timed in turn (reference computed each step); their rows differ, so the counted tokens are
the better figure where they disagree.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

from _options import as_dict, parser

SAMPLERS = ("shuffle", "by_prompt")
SIZES = (4, 8, 16, 32, 64)


def main() -> None:
    options = parse()
    import _machine
    import _models
    import torch
    from _race import write
    from _rows import DATA, FILES

    from grainline.data import load
    from grainline.data.encode import Encoder

    tokenizer = _models.tokenizer(options.model, DATA)
    records = load.read(FILES["qa"]).records
    examples, _ = Encoder(tokenizer, max_length=options.max_length).encode_all(records)
    questions = len({example.prompt for example in examples})
    print(f"{len(examples)} pairs of {questions} questions; tokens through the model in one epoch, thousands\n")
    print(f"{'pairs a step':>14}" + "".join(f"{name:>12}" for name in (*SAMPLERS, "ratio", "packed")))
    counted = {size: count(examples, size, options.seeds) for size in SIZES}
    for size, line in counted.items():
        cells = [line[name] / 1000 for name in SAMPLERS]
        print(f"{size:14}" + "".join(f"{cell:12.0f}" for cell in cells), end="")
        print(f"{cells[0] / cells[1]:12.2f}{line['packed'] / 1000:12.0f}")
    result = {"settings": as_dict(options), "machine": _machine.facts(torch.device("cpu")), "tokens": counted}
    if options.time:
        result["seconds"] = seconds = timed(options, examples)
        print("\n" + ", ".join(f"{name} {mean(taken):.2f} s a step" for name, taken in seconds.items()))
    write(result, options.json)


def parse() -> Any:
    made = parser(__doc__, steps=1)
    made.add_argument("--seeds", type=int, default=3, metavar="N", help="orders that are counted (default 3)")
    made.add_argument("--time", type=int, default=0, metavar="N", help="also time N steps of either kind")
    made.set_defaults(data="qa")
    return made.parse_args()


def count(examples: list[Any], size: int, seeds: int) -> dict[str, float]:
    """Mean tokens of an epoch by sampler; ``packed``: two sequences a pair, whoever draws."""
    from _rows import apart

    from grainline.data import collate
    from grainline.data.order import Order

    found: dict[str, float] = {}
    for sampler in SAMPLERS:
        orders = [Order(examples, batch_size=size, sampler=sampler, seed=seed) for seed in range(seeds)]
        found[sampler] = mean(sum(collate.tokens(o.step(i)) for i in range(o.steps(1))) for o in orders)
    return found | {"packed": collate.tokens(apart(examples), "packed")}


def timed(options: Any, examples: list[Any]) -> dict[str, list[float]]:
    """Seconds of the same numbered steps of two orders, in turn."""
    import _machine
    from _sides import Bench, Ours, take_gradient

    from grainline.data.order import Order

    bench = Bench(options)
    side = bench.ours(Ours())
    orders = {name: Order(examples, batch_size=options.pairs, sampler=name) for name in SAMPLERS}
    seconds: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for i in range(options.time + 1):  # the first to warm up
        for name, order in orders.items():
            clock = _machine.Clock(bench.device)
            side.grainline(order.step(i))
            take_gradient(side.model)
            if i:
                seconds[name].append(clock.read().seconds)
    return seconds


if __name__ == "__main__":
    main()
