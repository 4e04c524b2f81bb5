"""2d-dpo on *predicted* segment scores against dpo, and against 2d-dpo on the data's own scores, with equal budgets.

    python studies/predicted-scores/run.py rates    dpo and 2d-dpo at four learning rates each, on training rows
    python studies/predicted-scores/run.py house    3 seeds x {dpo, 2d-dpo: predicted, own, shuffled}, and dpo
                                                    once more at 2d-dpo's rate
    python studies/predicted-scores/run.py prefs    2 seeds x {dpo, 2d-dpo: predicted} on qa_feedback's preferences,
                                                    which nobody scored; 335 other answers are marked
    python studies/predicted-scores/run.py table    Markdown of all results
    python studies/predicted-scores/run.py loudness how loud 2d-dpo makes either answer, by the scores made so far

Equal budget: the same pairs in the same order, the same steps, adapter, optimizer and seeds. Each method has the
learning rate that ``rates`` found for it: there it trains on half of house's training prompts and is measured on the
other half, with a seed that no other study uses. No test row takes part in that choice.

No row is scored by a head that was taught on its prompt: prompts are dealt into five folds, each scored by a
head that the marks of the other four taught. ``shuffled`` deals the predicted scores out anew among all sentences: what
a method gains from scores beyond that, it gains from their places. Heads, scores and features are kept in the cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from grainline.data import load
from grainline.places import cache_dir
from grainline.reward_training import Plan, train
from grainline.scoring import score
from grainline.supervision.segments import Segment, Segments

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, average, beside, estimate, markdown  # noqa: E402
from _rows import QA_FEEDBACK, preferences, read, write  # noqa: E402

RECORDS = Records(HERE)
MADE = cache_dir() / "studies" / "predicted-scores"
MODEL = "smollm2-135m-instruct"
SIDES = ("chosen", "rejected")
FOLDS = 5
ASPECTS = {
    "house": ("helpfulness", "correctness", "safety", "completeness", "clarity"),
    "prefs": ("factuality", "relevance"),
}
COMMON = {"model": {"name": MODEL, "dtype": "bfloat16"}, "adapter": "lora:rank=16", "batch_size": 8, "max_tokens": 2048}
DPO = {"supervision": "sequence", "objective": "dpo"}
SEGMENTS = {"supervision": "segments", "objective": "2d-dpo"}
WAYS = {"dpo": DPO, "2d-dpo": SEGMENTS}
RATES = {"dpo": (1e-4, 3e-4, 1e-3, 3e-3), "2d-dpo": (3e-4, 1e-3, 3e-3, 1e-2)}
"""As many of either, around its best."""
BEST = {"dpo": 3e-4, "2d-dpo": 3e-3}
QUESTIONS = {"train": 40, "test": 37}
"""Of 340 and of 74 of qa_feedback."""
Row = dict[str, Any]
Runs = Iterator[tuple[Row, Row]]
"""(what identifies a run, its recipe)"""


# ----------------------------------------------------------------------------------------------------------------- runs


def rates() -> Runs:
    rows, made = read("house"), MADE / "house"
    half = halves(rows)
    predicted = scored("house", rows, rows)
    parts = {
        "dpo": write(made / "half-plain.jsonl", [row for row in rows if prompt(row) in half]),
        "scores": write(made / "half-predicted.jsonl", [row for row in predicted if prompt(row) in half]),
        "held_out": write(made / "half-held-out.jsonl", [row for row in rows if prompt(row) not in half]),
    }
    for name, rate in [(name, rate) for name, tried in RATES.items() for rate in tried]:
        key = {"study": "rates", "method": name, "rate": rate, "seed": 9}
        data = parts["dpo" if name == "dpo" else "scores"]
        yield key, recipe(WAYS[name], data, parts["held_out"], rate) | {"steps": 20}


def house() -> Runs:
    """The comparison first, with all seeds; then what tells its causes apart."""
    rows = read("house")
    predicted = scored("house", rows, rows)
    made = MADE / "house"
    plain = write(made / "plain.jsonl", rows)
    methods = {
        "dpo": lambda seed: (DPO, plain),
        "2d-dpo, predicted": lambda seed: (SEGMENTS, write(made / "predicted.jsonl", predicted)),
        "dpo, rate of 2d-dpo": lambda seed: (DPO, plain),
        "2d-dpo, own": lambda seed: (SEGMENTS, plain),
        "2d-dpo, shuffled": lambda seed: (SEGMENTS, write(made / f"shuffled-{seed}.jsonl", shuffled(predicted, seed))),
    }
    for names in (("dpo", "2d-dpo, predicted"), ("dpo, rate of 2d-dpo",), ("2d-dpo, own",), ("2d-dpo, shuffled",)):
        for seed, name in itertools.product(range(3), names):
            way, data = methods[name](seed)
            found = recipe(way, data, "house", BEST["dpo" if name == "dpo" else "2d-dpo"])
            yield {"study": "house", "method": name, "seed": seed}, found | {"steps": 20}


def prefs() -> Runs:
    """Rows of a question together: half the tokens, see docs/performance.md; so for both methods."""
    rows, held_out = preferences("train", QUESTIONS["train"]), preferences("test", QUESTIONS["test"])
    predicted = scored("prefs", read(QA_FEEDBACK / "spans_train.jsonl.gz"), rows)
    test = write(MADE / "prefs" / "test.jsonl", held_out)
    methods = {
        "dpo": (DPO, write(MADE / "prefs" / "plain.jsonl", rows)),
        "2d-dpo, predicted": (SEGMENTS, write(MADE / "prefs" / "predicted.jsonl", predicted)),
    }
    for seed in range(2):
        for name, (way, data) in methods.items():
            found = recipe(way, data, test, BEST[name.partition(",")[0]])
            yield {"study": "prefs", "method": name, "seed": seed}, found | {"sampler": "by_prompt", "epochs": 1}


def recipe(way: Row, data: str, held_out: str, rate: float) -> Row:
    return COMMON | way | {"data": data, "held_out": held_out, "optimizer": f"adamw:lr={rate}"}


STUDIES = {"rates": rates, "house": house, "prefs": prefs}


# --------------------------------------------------------------------------------------------------------------- scores


def scored(study: str, marked: list[Row], rows: list[Row]) -> list[Row]:
    """``rows``, each by a head that has not seen its prompt."""
    fold = dealt((*marked, *rows), FOLDS)
    found: list[Row] = []
    for k in range(FOLDS):
        lessons, asked = ([row for row in marked if fold[prompt(row)] != k], [r for r in rows if fold[prompt(r)] == k])
        head, out = MADE / study / f"head-{k}", MADE / study / f"scored-{k}.jsonl"
        if not (head / "head.json").is_file():
            told = train(lessons, head, Plan(model=MODEL), quiet=False)
            auc = {key: round(value, 3) for key, value in told["unseen"].items() if key.endswith("/auc")}
            print(f"fold {k}, said of its own unseen rows: {auc}", flush=True)
        found += read(
            str(score(asked, f"head:path={head}", out, aspects=ASPECTS[study], replace=True, quiet=False).path)
        )
    return found


def dealt(rows: Iterable[Row], parts: int) -> dict[str, int]:
    """prompt -> one of ``parts``, by chance."""
    prompts = sorted({prompt(row) for row in rows})
    random.Random(0).shuffle(prompts)
    return {name: n % parts for n, name in enumerate(prompts)}


def halves(rows: list[Row]) -> set[str]:
    """Prompts to train on; the others are for measuring."""
    return {name for name, part in dealt(rows, 2).items() if part == 0}


def prompt(row: Row) -> str:
    return str(row.get("group") or json.dumps(row["prompt"]))


def shuffled(rows: list[Row], seed: int) -> list[Row]:
    rng = random.Random(seed)
    every = [line for row in rows for side in SIDES for line in row[f"{side}_aspect_scores"]]
    rng.shuffle(every)
    return [
        row | {f"{side}_aspect_scores": [every.pop() for _ in row[f"{side}_aspect_scores"]] for side in SIDES}
        for row in rows
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def table(study: str) -> str:
    """Markdown of a study."""
    return rates_table() if study == "rates" else beside("dpo", RECORDS.by_method(study))


def rates_table() -> str:
    cells: dict[str, dict[float, str]] = {}
    for line in RECORDS.lines():
        if (run := line["run"])["study"] == "rates":
            seeds = {run["seed"]: RECORDS.rows(run)}
            accuracy, margin = (average(seeds, f"rewards/{kind}") for kind in ("accuracies", "margins"))
            found = f"{estimate(accuracy, seeds)}, {sum(margin.values()) / len(margin):.2f}"
            cells.setdefault(run["method"], {})[run["rate"]] = found
    every = sorted({rate for tried in RATES.values() for rate in tried})
    rows = [(method, *(found.get(rate, "") for rate in every)) for method, found in cells.items()]
    return markdown(("accuracy, margin", *(f"{rate:g}" for rate in every)), rows)


def loudness() -> str:
    """Mean loudness of a letter of the chosen and of the rejected answer in 2d-dpo."""
    rows = []
    for study, name in itertools.product(ASPECTS, ("plain", "predicted")):
        file = MADE / study / f"{name}.jsonl"
        if not file.is_file() or (study, name) == ("prefs", "plain"):
            continue
        pairs = [[Segments().pieces(answer) for answer in record.answers] for record in load.read(str(file)).records]
        chosen, rejected = (mean(_score(pair[side]) for pair in pairs) for side in (0, 1))
        rows.append((f"{study}, {name}", f"{chosen:.2f}", f"{1 - rejected:.2f}"))
    return markdown(("scores", "chosen", "rejected"), rows)


def _score(pieces: list[Segment]) -> float:
    """Of an answer: its segments' scores by their length."""
    size = [piece.stop - piece.start for piece in pieces]
    return sum(n * piece.score for n, piece in zip(size, pieces, strict=True)) / sum(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*STUDIES, "table", "loudness"])
    what = parser.parse_args().what
    if what == "loudness":
        print(loudness())
        return
    if what != "table":
        RECORDS.carry_out(STUDIES[what]())
    for study in (what,) if what != "table" else dict.fromkeys(line["run"]["study"] for line in RECORDS.lines()):
        print(f"\n{study}\n\n{table(study)}")


if __name__ == "__main__":
    main()
