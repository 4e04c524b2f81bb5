"""Teaching a reward head: annotated rows in, a folder for ``head:path=FOLDER`` out; and measuring any reward.

What is learnt follows from the rows, or is said in ``learn``:

============  ======================================================================================================
``segments``  pieces that spans judge, aspect by aspect (``data/judged.py``)
``pairs``     whole answers, the chosen against the rejected one
``answers``   whole answers with a label: right or wrong
============  ======================================================================================================
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pydantic import Field

from grainline import models, places, provenance, rooms
from grainline.data import judged, load
from grainline.errors import DataError, RunError, SpecError, nearest
from grainline.evaluation import rewards as quality
from grainline.features import Features, Passage, Pool, Taken
from grainline.progress import say, track
from grainline.rewards._parts import bradley_terry, unit
from grainline.rewards._seam import Asked, Desk, Duel, compare
from grainline.rewards.head import FORMAT
from grainline.types import Record, spec

if TYPE_CHECKING:
    from torch import Tensor

Learn = Literal["segments", "pairs", "answers"]


@spec
class Plan:
    """How a head is made."""

    model: str = "smollm2-135m-instruct"
    """Whose hidden states: hub id, folder or alias."""
    revision: str | None = None
    """Of a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The model is held in."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    layers: tuple[float, ...] = Field((0.5,), min_length=1)
    """Shares of the depth: 0.5 = the middle, 1 = the final state; several stand side by side."""
    pool: Literal["auto", "mean", "last"] = "auto"
    """Of a piece's tokens: the state of the last one, or the mean; auto = last of segments, mean of whole answers."""
    learn: Literal["auto", "segments", "pairs", "answers"] = "auto"
    """auto = segments where any span is, else pairs or labelled answers, whichever the rows are."""
    aspects: tuple[str, ...] = ()
    """Empty = all that the data judge."""
    unmarked: Literal["auto", "unjudged", "marked", "right"] = "auto"
    """What text without a span means, see ``data/judged.py``; auto = marked where all spans are errors."""
    loss: Literal["auto", "likelihood", "squares", "ordinal"] = "auto"
    """Of segments and answers; auto = likelihood. Pairs have their own."""
    learning: str = "backprop"
    """How members learn, written as a method is: backprop, equilibrium:epochs=20... See ``head_torch.LEARNERS``."""
    members: int = Field(5, ge=2)
    """Folds of prompts, and heads: each is taught without one fold."""
    max_tokens: int = Field(4096, ge=1)
    """Tokens read at once."""
    language: str = "en"
    """Of the sentences."""
    seed: int = 0
    """Of the folds and the learner."""


def train(
    data: Any,
    out: str | Path,
    plan: Plan,
    *,
    split: str = "train",
    format: str = "",
    limit: int | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Teach a head and write it to ``out``; what ``head.json`` says.

    Raises:
        DataError: rows that cannot be read, too few prompts, or nothing that is judged.
        ModelError: no such model.
    """
    from grainline.rewards.head_torch import learner

    began, out = time.monotonic(), Path(out)
    learning, options = rooms.options("rewards", plan.learning) or (plan.learning, {})
    fit = learner(learning, options)
    if out.exists() and not (out / "head.json").is_file():
        raise RunError("something else is there.", where=str(out), instead="Give a new folder, or that of a head.")
    read = load.read(data, split=split, format=format, limit=limit)
    load.refuse(read)
    lessons = _lessons(read.records, plan, read.name)
    model = models.load(models.Choice(plan.model, plan.revision, plan.dtype, plan.device))
    pool: Pool = ("last" if lessons.learn == "segments" else "mean") if plan.pool == "auto" else plan.pool
    taken = Taken(plan.layers, pool, plan.max_tokens)
    features = Features(model, _desk("head") / "features", taken, quiet=quiet)
    seen = features([Passage(one.prompt, one.answer, one.pieces) for one in lessons.judged])
    rows, unread = _rows(lessons, seen), sum(one is None for one in seen)
    if unread:
        say(f"{unread} of {len(seen)} answers cannot be read with this model's template", quiet=quiet)
    source = {"name": read.name, "split": split, "format": format, "digest": read.digest, "rows": len(read.records)}
    chosen = {key: getattr(plan, key) for key in ("layers", "language", "seed")} | {"pool": pool}
    facts = {"format": FORMAT, "base": _base(plan, features, str(model.dtype)), **chosen}
    facts |= {"learning": learning, "options": options, "data": source, "unread": unread}
    facts = _teach(lessons, rows, plan, fit, facts, out)
    say(f"head: {out}, {time.monotonic() - began:.0f} s", quiet=quiet)
    return facts


def _base(plan: Plan, features: Features, dtype: str) -> dict[str, Any]:
    """The language model by which the head stands."""
    held = {"fingerprint": features.fingerprint, "dtype": dtype.removeprefix("torch.")}
    return {"name": plan.model, "revision": plan.revision, **held}


def _desk(name: str) -> Path:
    """Where rewards of that name work, here as in curation: features that were read once are read once."""
    return places.cache_dir() / "rewards" / name.replace("/", "_")


class _Lessons(NamedTuple):
    """What rows have to teach."""

    learn: Learn
    aspects: tuple[str, ...]
    unmarked: judged.Unmarked
    judged: list[judged.Judged]  # with learn=pairs chosen and rejected answers in turn


class _Row(NamedTuple):
    """One piece to learn from."""

    group: str
    features: Tensor  # (D,)
    right: tuple[float, ...]  # (A,) NaN where nobody judged
    weight: float


def _lessons(records: Sequence[Record], plan: Plan, name: str) -> _Lessons:
    learn, aspects = _what(records, plan.learn, plan.aspects, name)
    if learn == "pairs" and plan.loss != "auto":
        raise SpecError(f"pairs are not taught by {plan.loss}.", where="loss", instead="They have a loss of their own.")
    unmarked = judged.silence(records) if plan.unmarked == "auto" else plan.unmarked
    if learn == "segments":
        found = judged.by_pieces(records, aspects, unmarked=unmarked, language=plan.language)
    else:
        found = judged.as_wholes(records)
    if not found:
        raise DataError(f"nothing is judged in {', '.join(aspects)}.", where=name, instead="Give other aspects.")
    prompts = len({one.group for one in found})
    if prompts < 2 * plan.members:
        raise DataError(
            f"{prompts} prompts with something judged are too few for {plan.members} members.",
            where=name,
            instead="Give more rows, or fewer members.",
        )
    return _Lessons(learn, aspects, unmarked, found)


def _what(records: Sequence[Record], learn: str, wanted: Sequence[str], name: str) -> tuple[Learn, tuple[str, ...]]:
    """What is learnt of these rows, and in which aspects."""
    known, pairs = judged.aspects(records), records[0].is_pair
    if learn == "auto":
        learn = "segments" if known else "pairs" if pairs else "answers"
    if learn != "segments":
        if (learn == "pairs") != pairs:
            rows = "pairs" if pairs else "labelled answers"
            raise DataError(f"learn={learn} does not go with {rows}.", where=name, instead="Set learn=auto.")
        if wanted:
            raise SpecError(f"learn={learn} knows no aspects.", where="aspects", instead="Leave them out.")
        return cast(Learn, learn), ("",)
    if not known:
        raise DataError("no span judges anything.", where=name, instead="learn=pairs or learn=answers need none.")
    for aspect in wanted:
        if aspect not in known:
            raise SpecError(f"no span judges {aspect!r}.", where="aspects", instead=nearest(aspect, known))
    return "segments", tuple(wanted) or known


def _rows(lessons: _Lessons, read: Sequence[Tensor | None]) -> list[_Row]:
    """Judged pieces that could be read. Of pairs: all chosen answers, then as many rejected ones."""
    rows = [
        []
        if features is None
        else [_Row(one.group, *piece, one.weight) for piece in zip(features, one.right, strict=True)]
        for one, features in zip(lessons.judged, read, strict=True)
    ]
    whole = [[row for row in part if bool(row.features.isfinite().all())] for part in rows]
    if lessons.learn == "pairs":
        pairs = [(a[0], b[0]) for a, b in zip(whole[::2], whole[1::2], strict=True) if a and b]
        return [a for a, _ in pairs] + [b for _, b in pairs]
    return [row for part in whole for row in part if not all(map(math.isnan, row.right))]


def _teach(
    lessons: _Lessons, rows: Sequence[_Row], plan: Plan, fit: Any, facts: dict[str, Any], out: Path
) -> dict[str, Any]:
    import torch

    from grainline.rewards import head_torch as head

    groups = [row.group for row in rows]
    features, target = torch.stack([row.features for row in rows]), torch.tensor([row.right for row in rows])
    weight = torch.tensor([[row.weight] for row in rows]) * target.isfinite()
    scale = head.Scale.of(features)
    lesson = head.Lesson(scale(features), target.nan_to_num(0.0), weight)
    usual: head.LossName = "pairs" if lessons.learn == "pairs" else "likelihood"
    loss = head.loss(usual if plan.loss == "auto" else plan.loss, lesson)
    fold = head.folds(groups, plan.members, plan.seed)
    taught = head.teach(lesson, fold, loss, fit, seed=plan.seed)
    calibration = head.calibrated(loss, taught.unseen_NA, lesson)
    facts = facts | {
        "aspects": list(lessons.aspects),
        "learn": lessons.learn,
        "unmarked": lessons.unmarked,
        "taught": {"pieces": len(rows), "prompts": len(set(groups))},
        "unseen": _unseen(lessons, rows, loss.log_odds(taught.unseen_NA).tolist(), calibration),
        "made": provenance.gathered(),
    }
    return head.save(out, head.Trained(scale, loss, taught.members, calibration), facts)


def _unseen(
    lessons: _Lessons, rows: Sequence[_Row], said: Sequence[Sequence[float]], calibration: Sequence[Any]
) -> dict[str, float]:
    """How good the members are on the folds that they have not seen."""
    if lessons.learn == "pairs":
        sides = said[: len(rows) // 2], said[len(rows) // 2 :]
        duels = [
            quality.Duel(row.group, bradley_terry(a, b))
            for row, (a,), (b,) in zip(rows[: len(rows) // 2], *sides, strict=True)
        ]
        return quality.measured({}, duels, bounded=False)
    pieces = {
        aspect: [
            quality.Piece(row.group, calibration[a](one[a]), row.right[a])
            for row, one in zip(rows, said, strict=True)
            if not math.isnan(row.right[a])
        ]
        for a, aspect in enumerate(lessons.aspects)
    }
    return quality.measured(pieces, [], bounded=True)


# ---------------------------------------------------------------------------------------------------- measuring any


class Quality(NamedTuple):
    """How good a reward is."""

    metrics: dict[str, float]  # see evaluation/rewards.py
    reliability: dict[str, list[dict[str, float]]]  # of each aspect; empty where the reward has no bounds


def evaluate(
    reward: Any,
    data: Any,
    *,
    aspects: Sequence[str] = (),
    unmarked: Literal["auto", "unjudged", "marked", "right"] = "auto",
    language: str = "en",
    split: str = "test",
    format: str = "",
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Quality:
    """Measure ``reward`` (text or value) on judged rows: pieces by their spans, and pairs as wholes.

    Raises:
        SpecError: no such reward, or an aspect that nothing judges.
        DataError: rows that cannot be read, or nothing in them is judged.
    """
    spec = rooms.resolve("rewards", reward)
    read = load.read(data, split=split, format=format, limit=limit)
    load.refuse(read)
    known = judged.aspects(read.records)
    wanted = _what(read.records, "segments", aspects, read.name)[1] if known or aspects else ()
    if unmarked == "auto":
        unmarked = judged.silence(read.records)
    lessons = judged.by_pieces(read.records, wanted, unmarked=unmarked, language=language)
    if not wanted and not read.records[0].is_pair:
        lessons, wanted = judged.as_wholes(read.records), ("",)
    pairs = [record for record in read.records if record.is_pair]
    with spec.open(Desk(_desk(rooms.name_of(type(spec))), seed, quiet)) as opened:
        asked = [Asked(one.prompt, one.answer, one.pieces, wanted) for one in lessons]
        said = list(opened.score(track(asked, "scoring pieces", quiet=quiet))) if asked else []
        duels = [Duel(record.prompt, *(answer.text for answer in record.answers)) for record in pairs]
        won = compare(opened, duels) if duels else []
    scale = spec.between
    pieces = {
        aspect: [
            quality.Piece(one.group, unit(row[a], scale) if scale else row[a], marks[a])
            for one, scores in zip(lessons, said, strict=True)
            for row, marks in zip(scores.value, one.right, strict=True)
            if not math.isnan(marks[a])
        ]
        for a, aspect in enumerate(wanted)
    }
    fought = [quality.Duel(repr(duel.prompt), win) for duel, win in zip(duels, won, strict=True)]
    metrics = quality.measured(pieces, fought, bounded=scale is not None, seed=seed)
    known_pieces = {a: [p for p in every if not math.isnan(p.said)] for a, every in pieces.items()}
    return Quality(metrics, {a: quality.reliability(p) for a, p in known_pieces.items()} if scale else {})
