"""An evaluation's folder as ``grainline evaluate`` writes it (docs/evaluation.md), with figures chosen by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from _runs import NASTY, lines

PAIRS = 24
WORDS = ("Warm", " water", " boils", " later", ",", " as", " people", " say", ".", " So", " wait", "!")


def rows() -> list[dict[str, Any]]:
    """Pairs whose margin is beta = 0.1 times the change of chosen minus that of rejected."""
    rng = random.Random(0)
    found = []
    for i in range(PAIRS):
        row: dict[str, Any] = {"id": f"m{i}", "group": f"g{i // 2}"}
        for role, gain in (("chosen", 0.2), ("rejected", -0.1)):
            reference = [-rng.uniform(0.5, 3.0) for _ in range(rng.randint(4, 12))]
            policy = [value + rng.gauss(gain, 0.4) for value in reference]
            kl = [rng.expovariate(4) for _ in reference]
            row[role] = {"tokens": len(reference), "policy": policy, "reference": reference, "kl": kl}
        chosen, rejected = (sum(row[r]["policy"]) - sum(row[r]["reference"]) for r in ("chosen", "rejected"))
        row |= {"rewards/margins": 0.1 * (chosen - rejected), "rewards/accuracies": float(chosen > rejected)}
        found.append(row)
    return found


def tokens(row: dict[str, Any]) -> dict[str, Any]:
    """A pair of :func:`rows` as tokens.jsonl holds it."""
    answers = []
    for role in ("chosen", "rejected"):
        side, count = row[role], row[role]["tokens"]
        pieces = [WORDS[t % len(WORDS)] for t in range(count)]
        segment = [min(1, t // 4) for t in range(count)]
        answers.append(
            {
                "role": role,
                "text": "".join(pieces),
                "tokens": pieces,
                "policy": side["policy"],
                "reference": side["reference"],
                "reward": [0.1 * (p - r) for p, r in zip(side["policy"], side["reference"], strict=True)],
                "kl": side["kl"],
                "weight": [0.25 + 0.75 * s for s in segment],
                "segment": segment,
                "segments": [
                    {"text": "", "score": 0.25, "aspects": {"clear": 0.5}},
                    {"text": "", "score": 1.0, "aspects": {"clear": 1.0, "safe": 0.75}},
                ],
            }
        )
    prompt = [{"role": "user", "content": "When does it boil?"}]
    margin = row["rewards/margins"]
    return {"id": row["id"], "prompt": prompt, "margin": margin, "aspects": {"clear": margin}, "answers": answers}


def facts() -> dict[str, Any]:
    families = {
        "preference": {"figures": preference(), "tables": preference_tables(), "notes": ["Ties count one half."]},
        "displacement": {
            "figures": {"displacement/chosen": 1.5, "displacement/unknown": None},
            "tables": {
                "positions": [position(low, role) for role in ("chosen", "rejected") for low in (0, 4, 8)],
                "margin_shares": [{"tokens": n, "share": n / (n + 4)} for n in (1, 2, 4, 8, 12)],
            },
        },
        "generation": {"figures": {"generation/kl": 9.5}, "tables": {}, "options": {"temperature": 0.7}},
        "geometry": {"figures": {}, "tables": {"layers": layers()}},
        "forgetting": {
            "figures": {"forgetting/change": 0.02, "forgetting/change_low": -0.01, "forgetting/change_high": 0.04},
            "tables": {"tasks": [{"task": "arc_easy", "metric": "acc", "before": 0.45, "after": 0.44, "stderr": 0.02}]},
        },
    }
    return {
        "format": 1,
        "name": "test",
        "of": {"kind": "run", "name": "first"},
        "against": None,
        "time": "2026-11-25T05:00:00Z",
        "data": {"path": "org/held-out", "digest": "ef" * 32, "rows": PAIRS},
        "metrics": {key: value for family in families.values() for key, value in family["figures"].items()},
        "about": {"rewards/accuracies": "share of pairs whose chosen answer has the larger reward"},
        "families": families,
    }


def preference() -> dict[str, float]:
    found = rows()
    return {
        "rewards/accuracies": sum(row["rewards/accuracies"] for row in found) / PAIRS,
        "rewards/accuracies_low": 0.55,
        "rewards/accuracies_high": 0.95,
        "rewards/margins": sum(row["rewards/margins"] for row in found) / PAIRS,
        "rows": float(PAIRS),
        "against_reference/likelihood": 0.1,
        "against_reference/likelihood_low": 0.05,
        "against_reference/likelihood_high": 0.2,
        "against_reference/likelihood_p": 0.004,
    }


def preference_tables() -> dict[str, list[dict[str, Any]]]:
    steps = [a / 10 for a in range(5, 9)]
    accuracy = {"accuracy": 0.7, "accuracy_low": 0.5, "accuracy_high": 0.9}
    return {
        "calibration": [{"from": a, "to": a + 0.1, "rows": 6, "said": a + 0.05, "was": 0.9 * a} for a in steps],
        "aspects": [
            {"aspect": "clear", "rows": 20, "accuracy": 0.7, "margin": 0.2, "margin_low": 0.1, "margin_high": 0.3},
            {"aspect": "safe", "rows": 9, "accuracy": 0.4, "margin": -0.05, "margin_low": -0.2, "margin_high": 0.1},
        ],
        "lengths": [{"from": a, "to": a + 4, "rows": 8, "margin": 0.1} | accuracy for a in (0, 4, 8)],
    }


def position(low: int, role: str) -> dict[str, Any]:
    sign = 1 if role == "chosen" else -1
    change, kl = sign * (9 - low) / 40, 0.3 - low / 100
    return {"from": low, "to": None if low == 8 else low + 4, "role": role, "tokens": 50, "change": change, "kl": kl}


def layers() -> list[dict[str, Any]]:
    """Of each layer two matrices, the second changed by 0.01 more."""
    return [
        {
            "name": f"model.layers.{i}.self_attn.{kind}_proj",
            "energy": i / 1000,
            "change": 0.01 * (i + bump),
            "angle": 0.02 * i,
            "spectrum": 0.005 * i,
        }
        for i in range(6)
        for bump, kind in enumerate("qv")
    ]


def samples() -> list[dict[str, Any]]:
    one = {
        "id": "m3",
        "draw": 0,
        "prompt": "When does it boil?",
        "policy_tokens": 5,
        "reference_tokens": 5,
        "win": 0.75,
    }
    return [one | {"policy": "At 100 degrees.", "reference": "At 90 degrees."}, one | {"draw": 1, "policy": "Never."}]


def write(run: Path, name: str = "test", **files: str | None) -> Path:
    """``run/evaluation/name``; a file given as None is left out, one given as text stands as it is."""
    found: dict[str, str | None] = {
        "facts.json": json.dumps(facts() | {"name": name}),
        "rows.jsonl": lines(rows()),
        "tokens.jsonl": lines(map(tokens, rows()[:3])),
        "samples.jsonl": lines(samples()),
    }
    found |= {key.replace("_", "."): text for key, text in files.items()}
    folder = run / "evaluation" / name
    folder.mkdir(parents=True)
    for file, text in found.items():
        if text is not None:
            (folder / file).write_text(text, encoding="utf-8")
    return folder


def nasty(run: Path) -> Path:
    """An evaluation in which all text that data or a model can reach is hostile."""
    pair, known = tokens(rows()[0]), facts()
    for answer in pair["answers"]:
        answer |= {"tokens": [NASTY] * len(answer["tokens"]), "text": NASTY, "role": NASTY}
        answer["segments"] = [{"text": NASTY, "score": 0.5, "aspects": {NASTY: 0.5}}] * 2
    pair |= {"id": NASTY, "prompt": [{"role": NASTY, "content": "y" * 100_000 + NASTY}], "aspects": {NASTY: 0.5}}
    sample = samples()[0] | {"id": NASTY, "prompt": NASTY, "policy": "x" * 100_000 + NASTY, "reference": NASTY}
    preference = known["families"]["preference"]
    preference["figures"] |= {NASTY: 0.5}
    preference["notes"] = [NASTY]
    preference["tables"] |= {NASTY: [{NASTY: NASTY}], "aspects": [{"aspect": NASTY, "margin": 0.5}]}
    known["families"] |= {NASTY: {"figures": {}, "tables": {}, "notes": [NASTY]}}
    known |= {"about": {NASTY: NASTY}, "time": NASTY, "against": {"kind": "run", "name": NASTY}, "name": NASTY}
    files = {"facts_json": json.dumps(known), "tokens_jsonl": lines([pair]), "samples_jsonl": lines([sample])}
    return write(run, "hostile", **files)
