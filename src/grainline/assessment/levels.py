"""The family ``control``: does a conditioned model do what it is told?"""

from __future__ import annotations

from typing import Any

from grainline import rooms
from grainline.assessment.answers import answers_of, questions_of
from grainline.assessment.work import Findings, Work
from grainline.evaluation import control
from grainline.evaluation.journal import clean
from grainline.evaluation.measures import Measures
from grainline.rewards import _seam as rewards


def on_control(work: Work) -> Findings:
    m, questions = work.measures, questions_of(work).questions
    spec, lines = rooms.resolve("rewards", m.judge), []
    with spec.open(rewards.Desk(work.folder / "judge", m.seed, work.quiet)) as reward:
        for aspect, levels in m.levels.items():
            for asked in levels:
                said = list(answers_of(work, work.bench.voices.policy, questions, (aspect, asked)).values())
                bare = {q.id: q.prompt for q in questions}  # a judge that reads the condition would score obedience
                asks = [rewards.Asked(bare[line["group"]], line["text"], aspects=(aspect,)) for line in said]
                for line, scores in zip(said, reward.score(asks), strict=True):
                    value = clean(scores.value[0][0])
                    line_of = {"id": f"{aspect} {asked:g} {line['id']}", "group": line["group"], "aspect": aspect}
                    lines.append(line_of | {"requested": asked, "obtained": value, "level": _level(m, spec, value)})
    work.write("levels.jsonl", lines)
    unjudged = sum(line["obtained"] is None for line in lines)
    notes = [f"{unjudged} answers could not be judged, and are left out"] if unjudged else []
    seed = m.seed
    return Findings(control.figures(lines, seed=seed), {"levels": control.table(lines, seed=seed)}, notes)


def _level(m: Measures, spec: Any, value: float | None) -> float | None:
    """A score on the scale of the levels; None where the reward has no bounds."""
    if value is None or spec.between is None:
        return None
    (low, high), (worst, best) = spec.between, m.condition_scale
    return worst + (best - worst) * (value - low) / (high - low)
