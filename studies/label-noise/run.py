"""Does the disagreement of reward heads find wrong labels?

    python studies/label-noise/run.py run [house|qa_feedback]    all settings that results.jsonl has not
    python studies/label-noise/run.py table                      Markdown of all results

A share of pairs is turned the wrong way round, several heads learn from what is then said, and each pair is given a
number: how far the heads disagree about it. Does that separate the turned pairs from the others? Measured as the AUC:
how likely a turned pair has the larger number than a clean one; 1/2 is chance. Features are those of frozen
SmolLM2-135M, read once and kept.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from grainline.concordance import concordance
from grainline.data.files import packaged
from grainline.evaluation.intervals import interval
from grainline.features import Features, Passage, Pool, Taken
from grainline.models import Choice, load
from grainline.places import cache_dir
from grainline.rewards.head_torch import Lesson, Loss, Scale, backprop, folds

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
QA = HERE.parents[2] / "shared" / "data" / "qa_feedback" / "prefs_train.jsonl.gz"
LAYERS = (0.5, 0.75, 1.0)
POOLS: tuple[Pool, ...] = ("mean", "last")
WAYS = ("bootstrap", "folds", "layers")
SHARES = (0.1, 0.2, 0.3)
SEEDS = range(5)
MEMBERS = 8


class Pairs(NamedTuple):
    """Pairs in features, and the prompt of each: rows of a prompt are drawn and left out together."""

    chosen: Tensor  # (P, L, H) float32
    rejected: Tensor
    groups: list[str]


class Said(NamedTuple):
    """What members say of the pairs they were (or were not) taught with, on a scale of their own."""

    chosen: Tensor  # (K, P)
    rejected: Tensor
    seen: Tensor  # (K, P) whether the member was taught with that pair


# ------------------------------------------------------------------------------------------------------------ data


def house() -> list[dict[str, Any]]:
    """All 308 pairs that come with Grainline: one answer of each has a flaw that was put there."""
    lines = [
        line for part in ("train", "test") for line in (packaged("house") / f"{part}.jsonl").open(encoding="utf-8")
    ]
    return [{**row, "group": row["id"][:-1]} for row in map(json.loads, lines)]


def qa_feedback() -> list[dict[str, Any]]:
    """Human preferences between four answers to each of 170 questions; people differ, so some are wrong already."""
    with gzip.open(QA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    questions = set(list(dict.fromkeys(row["group"] for row in rows))[:170])
    return [row for row in rows if row["group"] in questions]


DATA = {"house": house, "qa_feedback": qa_feedback}


def features(name: str, pool: Pool) -> Pairs:
    rows = DATA[name]()
    sides = [
        Passage(row["prompt"], row[side], ((0, len(row[side])),)) for side in ("chosen", "rejected") for row in rows
    ]
    model = load(Choice("smollm2-135m-instruct", dtype="bfloat16"))
    reader = Features(model, cache_dir() / "features", Taken(layers=LAYERS, pool=pool, max_tokens=2048), quiet=False)
    read = torch.stack([found for found in reader(sides) if found is not None])
    assert len(read) == len(sides), "an answer of these data cannot be read"
    chosen, rejected = read.view(2, len(rows), len(LAYERS), -1)
    return Pairs(chosen, rejected, [row["group"] for row in rows])


# ---------------------------------------------------------------------------------------------------------- members


def members(way: str, pairs: Pairs, wrong_P: Tensor, seed: int) -> Said:
    """Heads taught with labels of which those of ``wrong_P`` are turned.

    ``bootstrap``: on prompts drawn with replacement, middle layer. ``folds``: on all prompts but an eighth each,
    middle layer. ``layers``: as bootstrap, on the middle, three-quarter and last layer in turn. The prompts left out
    decide how far each is trained.
    """
    turn = wrong_P[:, None, None]
    first, second = (
        torch.where(turn, b, a) for a, b in ((pairs.chosen, pairs.rejected), (pairs.rejected, pairs.chosen))
    )
    said = []
    for k, drawn in enumerate(draws(way, pairs.groups, seed)):
        layer = k % len(LAYERS) if way == "layers" else 0
        scale = Scale.of(torch.cat([first[:, layer], second[:, layer]]))
        answers = [scale(side[:, layer]) for side in (first, second)]
        rows = torch.tensor([p for group in drawn for p, own in enumerate(pairs.groups) if own == group])
        left = torch.tensor([own not in set(drawn) for own in pairs.groups])
        head = backprop(lesson(answers, rows), lesson(answers, left), Loss("pairs"), seed)
        with torch.no_grad():
            said.append([*(head(answer)[:, 0] for answer in answers), ~left])
    return Said(*(torch.stack(part) for part in zip(*said, strict=True)))


def draws(way: str, groups: list[str], seed: int) -> Iterator[list[str]]:
    """The prompts that each member is taught with."""
    names = list(dict.fromkeys(groups))
    luck = torch.Generator().manual_seed(seed)
    fold = dict(zip(groups, folds(groups, MEMBERS, seed).tolist(), strict=True))
    for k in range(MEMBERS):
        if way == "folds":
            yield [name for name in names if fold[name] != k]
        else:
            yield [names[i] for i in torch.randint(len(names), (len(names),), generator=luck).tolist()]


def lesson(answers: list[Tensor], which: Tensor) -> Lesson:
    both = torch.cat([answer[which] for answer in answers])
    return Lesson(both, torch.zeros(len(both), 1), torch.ones(len(both), 1))


# --------------------------------------------------------------------------------------------------------- measures


def standard(said: Said) -> tuple[Tensor, Tensor]:
    """Scores of each member over its own deviation: members' scales have nothing to do with each other."""
    both_K2P = torch.stack([said.chosen, said.rejected], 1)
    shift, scale = both_K2P.mean((1, 2), keepdim=True), both_K2P.std((1, 2), keepdim=True).clamp(min=1e-9)
    chosen, rejected = ((both_K2P - shift) / scale).unbind(1)
    return chosen, rejected


def measures(said: Said) -> dict[str, Tensor]:
    """(P,) numbers of each pair; larger ought to mean: wrong. All over n - 1."""
    chosen_KP, rejected_KP = standard(said)
    margin_KP = chosen_KP - rejected_KP
    unseen_KP = torch.where(said.seen, torch.nan, margin_KP)
    return {
        "answers": chosen_KP.std(0) + rejected_KP.std(0),  # what updpo's columns add up to
        "pair": margin_KP.std(0),
        "against": -margin_KP.mean(0),  # no spread: how far the members are against the label, all of them
        "against, unseen": -unseen_KP.nanmean(0),  # and those alone that were not taught with it
    }


def separation(numbers: list[float], marked: list[bool], groups: list[str]) -> tuple[float, float, float]:
    """The AUC, and 95 % of it over resamples of prompts."""
    said, right = np.array(numbers), np.array(marked)
    return concordance(said, right), *interval(lambda rows: concordance(said[rows], right[rows]), groups)


def run(name: str, pool: Pool, known: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    settings = [(way, share) for way in WAYS for share in SHARES if (name, pool, way, str(share)) not in known]
    if not settings:
        return
    pairs = features(name, pool)
    for way, share in settings:
        numbers: dict[str, list[float]] = {}
        wrong, right, factor = [], [], []
        for seed in SEEDS:
            wrong_P = torch.rand(len(pairs.groups), generator=torch.Generator().manual_seed(100 + seed)) < share
            found = measures(members(way, pairs, wrong_P, seed))
            for measure, number_P in found.items():
                numbers.setdefault(measure, []).extend(number_P.tolist())
            wrong.extend(wrong_P.tolist())
            for_label = found["against, unseen"] < 0
            right.append(float((for_label != wrong_P)[~found["against, unseen"].isnan()].float().mean()))
            counts_P = (-found["answers"] / found["answers"].mean()).exp()  # updpo's, tau = the mean uncertainty
            factor.append(float(counts_P[wrong_P].mean() / counts_P[~wrong_P].mean()))
        groups = pairs.groups * len(SEEDS)
        yield {
            "data": name,
            "pool": pool,
            "way": way,
            "share": share,
            "pairs": len(pairs.groups),
            "accuracy": statistics.fmean(right),  # of unseen members, on the true labels
            "counts": statistics.fmean(factor),  # what a wrong pair counts in updpo, a right one counting 1
            **{measure: separation(number, wrong, groups) for measure, number in numbers.items()},
        }


# ------------------------------------------------------------------------------------------------------------ table


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.open(encoding="utf-8")] if RESULTS.is_file() else []


def table() -> None:
    names = ("answers", "pair", "against", "against, unseen")
    print("| data | pool | members | turned | accuracy | " + " | ".join(names) + " | counts |")
    print("| --- " * (len(names) + 6) + "|")
    for row in results():
        found = [f"{row[name][0]:.2f} [{row[name][1]:.2f}, {row[name][2]:.2f}]" for name in names]
        start = f"| {row['data']} | {row['pool']} | {row['way']} | {row['share']:.0%} | {row['accuracy']:.2f}"
        print(f"{start} | {' | '.join(found)} | {row['counts']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("data", nargs="*", choices=[*DATA, []], default=[])
    chosen = parser.parse_args()
    if chosen.what == "table":
        return table()
    known = {(row["data"], row["pool"], row["way"], str(row["share"])) for row in results()}
    for name, pool in itertools.product(chosen.data or DATA, POOLS):
        for row in run(name, pool, known):
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    return None


if __name__ == "__main__":
    main()
