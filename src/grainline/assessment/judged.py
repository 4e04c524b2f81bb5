"""What a reward says of answers: who wins, which score, which level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grainline import rooms
from grainline.assessment.work import Line, Work
from grainline.evaluation import duels
from grainline.evaluation.journal import clean
from grainline.rewards import _seam as rewards


def judged(work: Work, lines: Sequence[Line], rival: str | None) -> list[dict[str, Any]]:
    """What the judge says of each line: who wins, or, where it scores, which scores both have."""
    spec = rooms.resolve("rewards", work.measures.judge)
    desk = rewards.Desk(work.folder / "judge", work.measures.seed, work.quiet)
    sides = [who for who in ("policy", rival) if who]
    with spec.open(desk) as reward:
        if rival and hasattr(reward, "compare"):
            asked = [rewards.Duel(turns(line["prompt"]), line["policy"], line[rival]) for line in lines]
            if getattr(spec, "swap", False):  # it asks in both orders itself
                return [{"win": win} for win in rewards.compare(reward, asked)]
            both = duels.both_orders(asked, lambda some: rewards.compare(reward, some), _turned)
            return [{"win": order.win, "agreed": order.agreed} for order in both]
        scores: dict[str, list[float | None]] = {}
        for who in sides:
            asks = [rewards.Asked(turns(line["prompt"]), line[who]) for line in lines]
            scores[who] = [clean(found.value[0][0]) for found in reward.score(asks)]
    said: list[dict[str, Any]] = [{f"score_{who}": scores[who][i] for who in sides} for i in range(len(lines))]
    if rival:
        for one in said:
            own, others = one["score_policy"], one[f"score_{rival}"]
            one["win"] = 0.5 if own is None or others is None else 0.5 + 0.5 * ((own > others) - (own < others))
    return said


def _turned(duel: rewards.Duel) -> rewards.Duel:
    return rewards.Duel(duel.prompt, duel.second, duel.first)


def turns(prompt: Any) -> rewards.Prompt:
    return prompt if isinstance(prompt, str) else tuple(prompt)
