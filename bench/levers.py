"""What is each lever of speed worth, alone and together with all others? One run, all ways interleaved.

    python bench/levers.py                                        SmolLM2-135M, hh: about ten minutes on two cores
    python bench/levers.py --data qa --model tiny-49k --pairs 20 --questions 4
    python bench/levers.py --levers tree,cached --dtype bfloat16

Two columns of ratios: ``alone`` is the textbook step (two padded sequences a pair, logits at every position, reference
each step) over the same with this lever; ``without`` is everything but this lever over everything. Both are times of
the same rows. docs/performance.md says what the levers do and how they are switched.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from _options import as_dict, names, parser


class Lever(NamedTuple):
    """One lever is one entry of :data:`LEVERS`."""

    title: str
    on: dict[str, Any]  # fields of _sides.Ours with the lever
    off: dict[str, Any]  # and without it, when all others are on


def levers() -> dict[str, Lever]:
    """The table. A new lever is a line here (and, where it needs one, a field of ``_sides.Ours``)."""
    from _heads import AnswerPositions, EveryPosition
    from grainline.forward import Scorer

    unshared = {"layout": "packed", "shared": False}
    return {
        "packed": Lever("packing: nothing is padded", unshared, {"layout": "padded", "shared": False}),
        "pair-trees": Lever("a prompt once a pair (and packing)", {"layout": "tree", "shared": False}, unshared),
        "tree": Lever("a prompt once a question (and packing)", {"layout": "tree", "shared": True}, unshared),
        "answers": Lever("head at answer tokens only", {"scorer": AnswerPositions}, {"scorer": EveryPosition}),
        "head": Lever("the same, row by row in chunks", {"scorer": Scorer}, {"scorer": AnswerPositions}),
        "cached": Lever("reference read from a cache", {"cached": True}, {"cached": False}),
        "fused": Lever("fewer, larger operations", {"fused": True}, {"fused": False}),
        "products": Lever("attention by plain products", {"products": True, "layout": "packed"}, {"products": False}),
    }


def main() -> None:
    options = parse()
    import _machine
    from _race import compare, heading, race, table, write
    from _rows import tokens
    from _sides import Bench, Ours

    from _heads import EveryPosition

    known = levers()
    if unknown := [name for name in options.levers if name not in known]:
        raise SystemExit(f"no lever {unknown[0]}; there are {', '.join(known)}")
    textbook, best = (
        Ours(layout="padded", shared=False, scorer=EveryPosition, fused=False, products=False),
        Ours(cached=True),
    )
    ways = {"textbook": textbook, "all": best}
    for name in options.levers:
        ways |= {f"{name}+": textbook._replace(**known[name].on), f"{name}-": best._replace(**known[name].off)}
    bench = Bench(options)
    made: dict[Ours, Any] = {}
    for how in ways.values():
        made.setdefault(how, bench.ours(how))
    sides = {name: made[how] for name, how in ways.items()}
    first = {how: name for name, how in reversed(ways.items())}  # two names of one way are timed once
    exact = bench.ours(Ours(dtype="float32")) if options.dtype != "float32" else None
    rows = race({n: sides[n] for n in ways if first[ways[n]] == n}, options, device=bench.device, yardstick=exact)
    counts = tokens(bench.rows.steps[: options.steps])  # fewer after Ctrl-C
    found = {n: compare(rows[first[ways[n]]], rows["textbook"], counts["real"]) for n in ways}
    result = {
        "settings": as_dict(options),
        "machine": _machine.facts(bench.device),
        "tokens": counts,
        "ways": found,
        "levers": summary(found, options.levers),
    }
    titles = {"textbook": "textbook", "all": "all levers"} | {n: known[n].title for n in options.levers}
    print("\n".join(heading(result)))
    print(table(titles, result["levers"], COLUMNS))
    write(result, options.json)


COLUMNS = {
    "s/step": ("seconds", ".2f", "with this lever alone"),
    "alone": ("alone", ".2f", "times faster than the textbook with this lever alone"),
    "without": ("without", ".2f", "times slower than all levers without this one"),
    "gradient": ("gradient_away", ".0e", "relative L2 distance to the textbook's (bfloat16: to ours in float32)"),
    "others": ("others", ".2f", "cores used by other processes, the worst of the timings"),
}


def summary(found: dict[str, Any], chosen: list[str]) -> dict[str, Any]:
    """The two ratios of each lever."""
    together = found["all"]["seconds"]

    def line(alone: str, without: str) -> dict[str, Any]:
        one, rest = found[alone], found[without]
        return {
            "seconds": one["seconds"],
            "alone": one["speedup"],
            "without": rest["seconds"] / together,
            "gradient_away": max(one["gradient_away"], rest["gradient_away"]),
            "others": max(one["others"], rest["others"]),
        }

    ends = {"textbook": line("textbook", "textbook"), "all": line("all", "all")}
    return ends | {name: line(f"{name}+", f"{name}-") for name in chosen}


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=4)
    made.add_argument("--levers", default="packed,tree,answers,head,cached", type=names, help="also pair-trees")
    return made.parse_args()


if __name__ == "__main__":
    main()
