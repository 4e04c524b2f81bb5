"""Warnings while a run is under way, in plain words: what was seen, at which step, and what to try.

A callback that reads nothing but logged metrics. Each kind of trouble is one small function of them, with its limits
beside it; docs/warnings.md says what each means. A kind is said once, and again only when it has doubled. What is said
stands in ``warnings.jsonl`` of the run's folder too, one JSON object a line.

Steps differ in their rows, so single steps say little: means over :data:`WINDOW` steps are compared.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from grainline import checkpoint
from grainline.progress import say

FILE = "warnings.jsonl"
WINDOW = 10
"""Steps that are averaged."""
FALLEN = 10.0
"""Nats by which an answer has become less likely."""
SATURATED = 5.0
"""Margin at which the logistic link leaves 0.7 % of the gradient."""
SPIKE = 10.0
"""Gradient norm over its usual one."""
CLIPPED, CLIPPED_SHARE = 50, 0.9
"""Steps looked at, and the share of them that is clipped."""
FLAT, FLAT_SHARE = 40, 0.01
"""Steps without a change of loss, and the change that counts as none, in shares of the loss."""
OVERFIT = 0.02
"""Fall of the held-out accuracy that counts, if its interval is no wider."""
LENGTH = 0.3
"""By how much pairs whose better answer is the shorter one are ranked worse than all pairs."""
FEW = 0.15
"""Share of the pairs that carry the margin."""

SHORT = "rewards/accuracies_shorter"
SHORT_GAP = f"rewards/accuracies - {SHORT}"
TRAINING = "rewards/accuracies"

Line = Mapping[str, float]


class Finding(NamedTuple):
    """One warning."""

    kind: str
    step: int
    amount: float  # how bad; said again when it has doubled
    seen: str
    instead: str


class Logged:
    """What is kept of a run so far: of each metric the first and the last steps, and all evaluations."""

    def __init__(self, *, beta: float | None = None, max_grad_norm: float = 0.0) -> None:
        self.beta, self.max_grad_norm = beta, max_grad_norm  # nats -> reward, where the objective has one; 0: no clip
        self.steps = 0
        self.first: dict[str, list[float]] = {}
        self.last: dict[str, deque[float]] = {}
        self.looks: list[dict[str, float]] = []

    def step(self, line: Line) -> None:
        """Take in the metrics of a step."""
        self.steps += 1
        more = {SHORT_GAP: line["rewards/accuracies"] - line[SHORT]} if SHORT in line else {}
        for name, value in {**line, **more}.items():
            if len(early := self.first.setdefault(name, [])) < WINDOW:
                early.append(value)
            self.last.setdefault(name, deque(maxlen=CLIPPED)).append(value)

    def look(self, line: Line) -> None:
        """Take in the metrics of an evaluation, beside the training accuracy at that time."""
        self.looks.append({**line, TRAINING: fmean(self.late("rewards/accuracies") or [0.0])})

    def early(self, name: str) -> list[float]:
        """A metric in the first steps that had it."""
        return self.first.get(name, [])

    def late(self, name: str, steps: int = WINDOW) -> list[float]:
        """A metric in the last steps that had it."""
        return [*self.last.get(name, ())][-steps:]

    def grown(self, name: str) -> float:
        """How much the metric's mean has grown since the first steps; 0 while these are the last."""
        return fmean(self.late(name)) - fmean(self.early(name)) if self.steps >= 2 * WINDOW and self.late(name) else 0.0

    def noise(self, name: str) -> float:
        """Two standard errors of :meth:`grown`, from how much steps differ."""
        parts = [stdev(part) for part in (self.early(name), self.late(name)) if len(part) > 1]
        return 2 * (sum(part**2 for part in parts) / WINDOW) ** 0.5


class Watch:
    """A callback for the trainer (transformers' event names) that warns; ``quiet``: into the file only."""

    def __init__(
        self, folder: Path, *, beta: float | None = None, max_grad_norm: float = 0.0, quiet: bool = False
    ) -> None:
        self.folder, self.quiet = folder, quiet
        self._logged = Logged(beta=beta, max_grad_norm=max_grad_norm)
        self._said: dict[str, float] = {}  # kind -> amount

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A resumed run remembers what was logged and said up to its checkpoint."""
        checkpoint.cut(self.folder / FILE, after=state.global_step)
        for line in _lines(self.folder / FILE):
            self._said[line.get("kind", "")] = line.get("amount", 0.0)
        if state.global_step:
            for line in _lines(self.folder / "metrics.jsonl"):
                self._remember(line)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:  # the first line says where training starts
            self._remember(logs)
            self._tell(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self._remember({"step": state.global_step, **metrics})
        self._tell(state.global_step)

    def _remember(self, line: Line) -> None:
        (self._logged.step if "loss" in line else self._logged.look)(line)

    def _tell(self, step: int) -> None:
        for finding in findings(self._logged, step):
            if finding.amount >= 2 * self._said.get(finding.kind, 0.0) and finding.amount > 0:
                self._said[finding.kind] = finding.amount
                checkpoint.append(self.folder / FILE, finding._asdict())
                say(f"warning, step {step}: {finding.seen} {finding.instead}", quiet=self.quiet)


def findings(logged: Logged, step: int) -> Iterator[Finding]:
    """Everything that is wrong as of ``step``."""
    for kind, look in KINDS.items():
        if (found := look(logged)) is not None:
            yield Finding(kind, step, *found)


# --------------------------------------------------------------------------------------------------------- the kinds

Found = tuple[float, str, str] | None
"""(amount, what was seen, what to try)"""


def displaced(logged: Logged) -> Found:
    """Chosen answers become less likely while margins grow: both fall, rejected ones faster."""
    fall, margin = _fall(logged, "chosen"), logged.grown("rewards/margins")
    if fall < FALLEN or margin <= 0:
        return None
    seen = f"chosen answers have become {fall:.1f} nats less likely, while the margin has grown by {margin:.2f}."
    return fall, seen, "Try objective=dpo+0.2*sft, which holds them up, a larger objective.beta, or a smaller rate."


def both_falling(logged: Logged) -> Found:
    """Chosen and rejected answers become less likely, and the margin does not grow: another thing is learnt."""
    fall = min(_fall(logged, "chosen"), _fall(logged, "rejected"))
    if fall < FALLEN or logged.grown("rewards/margins") > 0:
        return None
    seen = f"chosen and rejected answers have both become {fall:.1f} nats less likely, and the margin has not grown."
    return fall, seen, "Try a smaller optimizer.lr, or a larger objective.beta; look at the samples."


def saturated(logged: Logged) -> Found:
    """All pairs of all late steps are won by far: little gradient is left."""
    right, margins = logged.late("rewards/accuracies"), logged.late("rewards/margins")
    if len(margins) < WINDOW or min(right) < 1 or min(margins) < SATURATED:
        return None
    seen = (
        f"every pair of {WINDOW} steps is ranked rightly, by {fmean(margins):.1f} on average: little is left to learn."
    )
    return fmean(margins), seen, "Try fewer steps, harder or more data, or a smaller objective.beta."


def spike(logged: Logged) -> Found:
    """One gradient is many times the usual one."""
    *before, now = logged.late("grad_norm", 2 * WINDOW + 1) or [0.0]
    usual = median(before) if len(before) >= WINDOW else 0.0
    if not usual or now < SPIKE * usual:
        return None
    seen = f"the gradient's norm is {now:.3g}, {now / usual:.0f} times its usual {usual:.3g}."
    return now / usual, seen, "Look at the step's rows; try a smaller max_grad_norm or a larger batch_size."


def clipped(logged: Logged) -> Found:
    """Nearly every gradient is cut to the same length."""
    norms, limit = logged.late("grad_norm", CLIPPED), logged.max_grad_norm
    share = sum(norm > limit for norm in norms) / CLIPPED
    if not limit or len(norms) < CLIPPED or share < CLIPPED_SHARE:
        return None
    seen = f"{share:.0%} of {CLIPPED} gradients exceeded max_grad_norm={limit:g}; their median is {median(norms):.3g}."
    return share, seen, "Try a larger max_grad_norm, or a smaller optimizer.lr; with adamw alone it does little harm."


def flat(logged: Logged) -> Found:
    """The loss stays where it was."""
    before, now = logged.early("loss"), logged.late("loss")
    if logged.steps < FLAT:
        return None
    least = FLAT_SHARE * abs(fmean(before))
    if abs(logged.grown("loss")) > least or logged.noise("loss") > 5 * least:
        return None
    seen = f"in {logged.steps} steps the loss has gone from {fmean(before):.4f} to {fmean(now):.4f}."
    return float(logged.steps), seen, "Try a larger optimizer.lr or adapter.rank, or a shorter warmup."


def overfitting(logged: Logged) -> Found:
    """The held-out accuracy falls while the one in training rises."""
    worst: Found = None
    names = {n for look in logged.looks for n in look if n.startswith("eval_") and n.endswith("_rewards/accuracies")}
    for name in sorted(names):
        looks = [look for look in logged.looks if name in look]
        best = max(looks, key=lambda look: look[name])
        fall = best[name] - looks[-1][name]
        # One interval is that of a single look; the same rows were looked at twice, which is less uncertain.
        certain = max(OVERFIT, (best[name] - best.get(f"{name}_low", best[name])) / 2)
        rise = looks[-1][TRAINING] - best[TRAINING]
        if fall >= certain and rise > 0 and (worst is None or fall > worst[0]):
            seen = (
                f"{name} has fallen from {best[name]:.3f} at step {best['step']:.0f} to {looks[-1][name]:.3f}, "
                f"while the accuracy in training has risen by {rise:.3f}."
            )
            worst = fall, seen, f"Try evaluation.best={name} with evaluation.patience, fewer epochs, or more data."
    return worst


def length(logged: Logged) -> Found:
    """Pairs are won by the longer answer: those whose better one is shorter are ranked worse than at the start."""
    gap, short = fmean(logged.late(SHORT_GAP) or [0.0]), fmean(logged.late(SHORT) or [1.0])
    if gap < LENGTH or logged.grown(SHORT_GAP) < LENGTH / 2 or short >= 0.5:
        return None
    seen = (
        f"of pairs whose chosen answer is the shorter one, {short:.0%} are ranked rightly: {gap:.0%} below all pairs."
    )
    return gap, seen, "Longer is taken for better: try data with more such pairs, or weights for them."


def few_pairs(logged: Logged) -> Found:
    """A few pairs carry the margin: mean(margin)^2 / mean(margin^2) is their share, 1 where all margins are equal."""
    name = "rewards/margins_squared"
    margins, squares, right = (logged.late(n) for n in ("rewards/margins", name, "rewards/accuracies"))
    if len(squares) < WINDOW or fmean(right) < 0.7:  # else margins of both signs cancel
        return None
    share = fmean(m * m / s if s else 1.0 for m, s in zip(margins, squares, strict=False))
    if share > FEW:
        return None
    seen = f"about {share:.0%} of the pairs carry the margin, as if the others had none."
    return 1 / share, seen, "Look at the rows with the largest margins; try objective.label_smoothing or cleaner data."


KINDS: dict[str, Callable[[Logged], Found]] = {
    look.__name__: look
    for look in (displaced, both_falling, saturated, spike, clipped, flat, overfitting, length, few_pairs)
}


def _fall(logged: Logged, side: str) -> float:
    """Nats by which the answers of one side have become less likely, beyond what steps differ by.

    The implied reward is preferred where it is logged: it compares each answer with itself under the reference, while
    log-probs differ from row to row.
    """
    name, scale = (f"rewards/{side}", logged.beta) if logged.beta else (f"logps/{side}", 1.0)
    if name not in logged.last:
        name, scale = f"logps/{side}", 1.0
    fall = -logged.grown(name)
    return fall / scale if fall > logged.noise(name) else 0.0


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
