"""What is each lever of speed worth, alone and together with all others? Ways take turns, step by step.

    python bench/levers.py                                        SmolLM2-135M, hh: half an hour on two cores
    python bench/levers.py --levers tree --json FILE              a lever a call: FILE gathers them
    python bench/levers.py --levers by-prompt --data qa --steps 4
    python bench/levers.py --levers backward --first-layer 15     only the upper half of the layers is adapted
    python bench/levers.py --json FILE --memory                   peaks too, each of a process of its own

Two columns of ratios, both of times of the same rows: ``alone`` is the textbook step (two padded sequences a pair,
logits at every position, reference each step) without the lever over with it; ``without`` is the same for a step with
all other levers. A lever that stands on another (the head row by row on the head at answers) has that one both times.
docs/performance.md says what the levers do and how they are switched.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any, NamedTuple

from _options import as_dict, names, parser


class Lever(NamedTuple):
    """One lever is one entry of :func:`levers`."""

    title: str
    on: dict[str, Any]  # fields of _sides.Ours with the lever
    off: dict[str, Any]  # and without it


def levers() -> dict[str, Lever]:
    """The table. A new lever is a line here (and, where it needs one, a field of ``_sides.Ours``)."""
    from _heads import AnswerPositions, EveryPosition
    from grainline.forward import Scorer

    padded, packed = ({"layout": layout, "shared": False} for layout in ("padded", "packed"))
    return {
        "packed": Lever("packing: nothing is padded", packed, padded),
        "pair-trees": Lever("a prompt once a pair", {"layout": "tree", "shared": False}, packed),
        "tree": Lever("a prompt once a question", {"layout": "tree", "shared": True}, packed),
        "answers": Lever("head at answer tokens only", {"scorer": AnswerPositions}, {"scorer": EveryPosition}),
        "head": Lever("head row by row in chunks", {"scorer": Scorer}, {"scorer": AnswerPositions}),
        "cached": Lever("reference read from a cache", {"cached": True}, {"cached": False}),
        "fused": Lever("fewer, larger operations", {"fused": True}, {"fused": False}),
        "products": Lever(
            "attention by plain products", {"products": True, "layout": "tree"}, {"products": False, "layout": "tree"}
        ),
        "onednn": Lever("float32 products by oneDNN", {"onednn": True}, {"onednn": False}),
        "backward": Lever(
            "backward no deeper than the first adapted layer", {"inputs_learn": False}, {"inputs_learn": True}
        ),
        "bfloat16": Lever("frozen weights in bfloat16", {"dtype": "bfloat16"}, {"dtype": "float32"}),
        "recomputed": Lever("layers recomputed (gradient checkpointing)", {"recomputed": True}, {"recomputed": False}),
        "by-prompt": Lever("rows of a question in one step", {"by_prompt": True}, {"by_prompt": False}),
    }


SHOWN = "packed,tree,answers,head,cached,fused,products,onednn,backward,bfloat16,recomputed"


def main() -> None:
    options = parse()
    known = levers()
    if unknown := [name for name in options.levers if name not in known]:
        raise SystemExit(f"no lever {unknown[0]}; there are {', '.join(known)}")
    ways = ways_of(known, options.levers)
    if options.peak_of:
        print(peak(options, ways[options.peak_of]))
        return
    import _machine
    import torch
    from _race import heading, table, write

    result = so_far(options)
    if options.memory and not result["runs"]:
        raise SystemExit("--memory adds to what was timed: give the --json file of such a call.")
    if options.memory:
        first = first_names(ways)
        for name in dict.fromkeys(first[how] for how in ways.values()):
            result["peaks"] |= dict.fromkeys((n for n, how in ways.items() if first[how] == name), in_child(name))
            write(result, options.json)
    else:
        result["machine"] = _machine.facts(torch.device(options.device))
        found, result["tokens"] = timed(options, ways)
        result["runs"] |= {
            name: {way: found[way] for way in ("textbook", "all", *parts(name))} for name in options.levers
        }
    result["levers"] = {
        **{name: line(result, [name], parts(name)) for name in known if name in result["runs"]},
        "all": line(result, list(result["runs"]), ("textbook", "all")),
    }
    write(result, options.json)
    print("\n".join(heading(result)))
    titles = {"all": "all of the library's own"} | {name: lever.title for name, lever in known.items()}
    print(table({name: titles[name] for name in result["levers"]}, result["levers"], COLUMNS))


def so_far(options: argparse.Namespace) -> dict[str, Any]:
    """What the JSON file holds of earlier calls with the same settings: levers may be measured one at a time."""
    settings = {key: value for key, value in as_dict(options).items() if key not in ("levers", "memory", "peak_of")}
    settings = json.loads(json.dumps(settings))
    if not (options.json and options.json.exists()):
        return {"settings": settings, "runs": {}, "peaks": {}}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{options.json} was measured with other settings: {found['settings']}")
    return found


COLUMNS = {
    "s/step": ("seconds", ".2f", "of the textbook step with this lever"),
    "alone": ("alone", ".2f", "textbook step: seconds without this lever over seconds with it"),
    "without": ("without", ".2f", "all other levers on: seconds without this one over seconds with it"),
    "gradient": ("gradient_away", ".0e", "relative L2 distance to the textbook's (bfloat16: to ours in float32)"),
    "MiB": ("peak_alone", ".2f", "textbook step: peak without this lever over peak with it"),
    "MiB all": ("peak_without", ".2f", "the same, all other levers on"),
    "others": ("others", ".2f", "cores used by other processes, the worst of the timings"),
}


def ways_of(known: dict[str, Lever], chosen: list[str]) -> dict[str, Any]:
    """What is timed: four ways a lever, and the two ends."""
    from _sides import Ours

    from _heads import EveryPosition

    textbook = Ours(layout="padded", shared=False, scorer=EveryPosition, fused=False, products=False, onednn=False)
    best = Ours(cached=True)
    found = {"textbook": textbook, "all": best}
    for name in chosen:
        on, off = known[name].on, known[name].off
        ends = (textbook._replace(**off), textbook._replace(**on), best._replace(**off), best._replace(**on))
        found |= dict(zip(parts(name), ends, strict=True))
    return found


def parts(name: str) -> tuple[str, ...]:
    return tuple(f"{name}: {end}" for end in ("textbook off", "textbook on", "all off", "all on"))


def first_names(ways: dict[str, Any]) -> dict[Any, str]:
    """Two names of one way are measured once."""
    return {how: name for name, how in reversed(ways.items())}


def timed(options: argparse.Namespace, ways: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Every way's timings beside the textbook's, and the tokens of the rows."""
    from _race import compare, here, race
    from _rows import tokens
    from _sides import Bench, Ours

    bench, first = Bench(options), first_names(ways)
    sides = {first[how]: here(bench.ours(how), bench.device) for how in dict.fromkeys(ways.values())}
    exact = here(bench.ours(Ours(dtype="float32")), bench.device) if options.dtype != "float32" else None
    rows = race(sides, options, yardstick=exact)
    counts = tokens(bench.rows.steps[: options.steps])  # fewer after Ctrl-C
    return {n: compare(rows[first[how]], rows["textbook"], counts["real"]) for n, how in ways.items()}, counts


def peak(options: argparse.Namespace, how: Any) -> float:
    """MiB at the peak of this process over the largest timed step done ``how``."""
    from _rows import tokens
    from _sides import Bench, peak_of

    bench = Bench(options)
    largest = max(range(options.steps), key=lambda i: tokens([bench.rows.steps[i]])[how.layout])
    return peak_of(bench, bench.ours(how), options.warm + largest)


def in_child(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def line(result: dict[str, Any], runs: list[str], ways: tuple[str, ...]) -> dict[str, Any]:
    """The ratios of ``ways`` (off, on; and the same with all other levers on), over the sums of all ``runs``."""
    found = [[result["runs"][run][way] for way in ways] for run in runs]
    seconds = [sum(way["seconds"] for way in same) for same in zip(*found, strict=True)]
    away = [way["gradient_away"] for run in found for way in run]
    peaks = [result["peaks"].get(way) for way in ways]
    return {
        "seconds": seconds[1] / len(runs),
        "gradient_away": None if None in away else max(away),
        "others": max(way["others"] for run in found for way in run),
        **ratios("alone", "without", seconds),
        **ratios("peak_alone", "peak_without", peaks),
    }


def ratios(alone: str, without: str, of: list[Any]) -> dict[str, float | None]:
    off, on, *others = of
    rest, best = others or (None, None)
    return {alone: off / on if off and on else None, without: rest / best if rest and best else None}


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=3)
    made.add_argument("--levers", default=SHOWN.split(","), type=names, help=f"default {SHOWN}")
    made.add_argument("--first-layer", default=0, type=int, metavar="N", help="adapt only layers from N on (default 0)")
    made.add_argument("--memory", action="store_true", help="measure peaks instead of times")
    made.add_argument("--peak-of", help=argparse.SUPPRESS)  # what a child is asked
    return made.parse_args()


if __name__ == "__main__":
    main()
