"""Which text of ours equals which setting of TRL's, and how far apart are they? Writes docs/objectives/parity.md.

    python bench/parity.py

Wants TRL. Both sides are run on the same random logits (tests/_trl.py): eight answers of 1 to 6 tokens over a
vocabulary of 7, in float64 where TRL can. No training. tests/objectives/test_parity_trl.py asserts what is written.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "objectives" / "parity.md"
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402

from _answers import answers, losses  # noqa: E402
from _trl import CASES, Case, apart  # noqa: E402
from grainline import rooms  # noqa: E402

SEEDS = range(3)

HEAD = """# Parity with TRL

Written by `python bench/parity.py` with TRL {trl} on torch {torch}.

TRL's own loss code and ours, on the same random log-probs. "loss" is the largest difference of the values over three
draws, "gradient" the largest difference of the gradients by the logits, over the size of TRL's. Most is computed in
float64; TRL takes some of it in float32 (marked *), where 1e-7 is rounding. Settings that are not written are TRL's
defaults; `supervision` is `sequence` unless written."""

DIFFERENT = """## Different on purpose

The same name or the nearest setting, another number."""

START = """## Before the first step

Loss and slopes by the log-prob of the chosen and of the rejected answer, at policy = reference, with the default
options; both answers have four tokens of -1 nat each. A negative slope raises the answer. Objectives without a
reference have no constant: theirs is the loss of these answers. `constant` says whether the loss is the same for all
answers. Where data columns are read (`updpo`) they are 0. Objectives that need more than log-probs are not listed."""


def page() -> str:
    """The whole page."""
    equal = table(("ours", "TRL", "loss", "gradient"), (row(case) for case in CASES if not case.why))
    apart_ = ((*row(case), case.why) for case in CASES if case.why)
    different = table(("ours", "TRL", "loss", "gradient", "why"), apart_)
    start = table(("objective", "loss", "constant", "chosen", "rejected"), map(beginning, simple()))
    head = HEAD.format(trl=importlib.metadata.version("trl"), torch=torch.__version__.partition("+")[0])
    every = "Every loss type of TRL's `DPOTrainer` is among these."
    return "\n\n".join([head, equal + every, DIFFERENT, different.rstrip(), START, start])


def row(case: Case) -> tuple[str, ...]:
    """A case and how far apart both sides are, at most."""
    found = [apart(case, seed) for seed in SEEDS]
    text = f"`{case.objective}`" + (f" with `{case.supervision}`" if case.supervision != "sequence" else "")
    return (
        text,
        f"`{case.setting}`" + ("*" if case.single else ""),
        *(f"{max(gaps):.0e}" for gaps in zip(*found, strict=True)),
    )


def simple() -> list[str]:
    """Objectives that can be called with log-probs of pairs and numbers."""
    known = {"pairs", "reference"}
    return [
        name
        for name in rooms.names("objectives")
        if "pairs" in (needs := rooms.load("objectives", name)().needs)
        and all(need in known or need.startswith("number ") for need in needs)
    ]


def beginning(name: str) -> tuple[str, ...]:
    """Loss and slopes at policy = reference."""
    objective = rooms.parse("objectives", name)
    numbers = {need.removeprefix("number "): [0.0] for need in objective.needs if need.startswith("number ")}
    policy = answers([-4.0], [-4.0], [4, 4])
    found = losses(objective, policy, answers([-4.0], [-4.0], [4, 4]), **numbers)
    loss = sum(t.coefficient * t.value.sum() / t.count.sum() for t in found.terms.values())
    loss.backward()
    chosen, rejected = (f"{slope + 0.0:.3g}" for slope in policy.token.grad[:, 0].tolist())
    constant = "reference" in objective.needs and getattr(objective, "constant", None) is not None
    return (f"`{name}`", f"{loss.item():.6g}", "yes" if constant else "no", chosen, rejected)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
