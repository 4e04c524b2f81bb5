r"""Rank several answers to a prompt by comparing two at a time: the best and the worst with little more than n calls.

Chen et al. 2024, arXiv:2411.05875, find that comparisons order answers better than scores do, and take them one after
the other (iterative pairwise ranking). Only the abstract could be read; the procedure is **inferred** from it: the best
so far meets each further answer, n - 1 comparisons; a second pass among those that won nothing finds the worst. A tie
leaves whoever was there first. ``knockout``, ``insertion`` and ``robin`` are ours, see ``_ranking.py``. A knockout
costs the same and errs less with an unsure judge, for the best has log2(n) duels to survive instead of up to n - 1.

Each answer that was placed gets a ``score``, 1 for the best and 0 for the worst; scores that were there go. The step
``pair`` then makes the pair (``pair:of=all`` after ``way=insertion`` or ``robin``). Answers are asked in an order drawn
for each row; an answer that stands there twice takes part once.

A reward that compares by itself (a judge) is asked in both orders, p = (p(a, b) + 1 - p(b, a)) / 2; where the orders
contradict each other the duel is a tie, and is counted as ``split``. Other rewards compare by score, and score each
answer once. What cannot be scored ties with all others. Rows of a window are asked together, round by round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import field_validator, model_validator

from grainline.curation._parts import answers
from grainline.curation._ranking import Table, Way, contest, play
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.errors import SpecError
from grainline.rooms import resolve
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.rewards._seam import Asked, Prompt, Scores, Scoring

SUMS = ("comparisons", "ties", "split")


@spec
class Rank:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "reward"})
    paper: ClassVar[str] = "arXiv:2411.05875"

    reward: Any = None
    """Who compares: (judge:model=NAME), (rules:measure=length)..."""
    way: Way = "iterative"
    """iterative, knockout = best and worst; insertion = all in order; robin = all, everybody against everybody."""
    other: Literal["worst", "loser"] = "worst"
    """Beside the best: worst = looked for in a second pass; loser = one that lost, drawn, at no further comparison."""
    swap: bool = True
    """Ask a reward that compares by itself in both orders: two calls a comparison, and no liking for a place."""
    check: bool = False
    """Afterwards let everybody meet everybody, and count how often the best and the worst are the same: n (n - 1) / 2
    comparisons a row in all."""

    @field_validator("reward", mode="before")
    @classmethod
    def _resolved(cls, value: Any) -> Any:
        return None if value is None else resolve("rewards", value)

    @model_validator(mode="after")
    def _a_loser_is_read(self) -> Rank:
        if self.other == "loser" and self.way not in ("iterative", "knockout"):
            raise ValueError("other=loser is read with way=iterative or knockout only")
        return self

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        from grainline.curation._asking import desk

        if self.reward is None:
            raise SpecError("no reward.", where="rank", instead="Write rank:reward=(judge:model=NAME).")
        with self.reward.open(desk(bench, self.reward)) as opened:
            yield _Ranking(self, bench, opened)


class _Asked(NamedTuple):
    """A row whose answers are ranked."""

    row: Row
    prompt: Prompt
    texts: tuple[str, ...]  # distinct
    table: Table


class _Ranking:
    """The step, opened."""

    def __init__(self, spec: Rank, bench: Bench, reward: Scoring) -> None:
        self.spec, self.bench, self.reward = spec, bench, reward

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        from grainline.rewards._parts import windows

        for window in windows(rows, identity):
            yield from self._ranked([self._asked(row) for row in window])

    def _asked(self, row: Row) -> _Asked:
        from grainline.curation._asking import question

        texts = tuple(dict.fromkeys(answer["text"] for answer in answers(row)))
        order = list(range(len(texts)))
        self.bench.luck(row).shuffle(order)
        return _Asked(row, question(row).prompt, texts, Table(order))

    def _ranked(self, window: Sequence[_Asked]) -> Iterator[Sequence[Row]]:
        playing = [one for one in window if len(one.texts) > 1]
        split = [0] * len(playing)
        judge = _Duels(self.reward, playing, split, swap=self.spec.swap)
        found = play([contest(one.table, self.spec.way, self._draw(one)) for one in playing], judge)
        facts: list[dict[str, Any]] = [
            {"comparisons": one.table.met, "ties": one.table.ties, "split": n}
            for one, n in zip(playing, split, strict=True)
        ]
        if self.spec.check:
            everybody = play([contest(one.table, "robin") for one in playing], judge)
            for fact, ours, theirs in zip(facts, found, everybody, strict=True):
                fact |= {"agrees": _agrees(ours, theirs)}
        made = iter([self._row(*one) for one in zip(playing, found, facts, strict=True)])
        yield from (next(made) if len(one.texts) > 1 else Dropped("fewer than two answers") for one in window)

    def _draw(self, one: _Asked) -> Any:
        return self.bench.luck(one.row).choice if self.spec.other == "loser" else None

    def _row(self, one: _Asked, scores: Sequence[float | None], facts: dict[str, Any]) -> Sequence[Row]:
        if not any(score is not None for score in scores):
            return Dropped("no answer is better than another")
        score = dict(zip(one.texts, scores, strict=True))
        made = [{key: value for key, value in answer.items() if key != "score"} for answer in answers(one.row)]
        for answer in made:
            if (found := score[answer["text"]]) is not None:
                answer["score"] = found
        return [signed({**one.row, "answers": made}, written(self.spec), **facts)]

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How many comparisons were made, how many were ties, in how many the orders contradicted each other; with
        ``check`` in which share of rows the best, and the worst, are those of a full round robin."""
        total, agreed, number = dict.fromkeys(SUMS, 0), [0, 0], 0
        for row in rows:
            facts = row["curation"][-1]
            total = {key: total[key] + facts[key] for key in SUMS}
            agreed = [a + b for a, b in zip(agreed, facts.get("agrees", (0, 0)), strict=True)]
            number += 1
        shares = {f"{which}_agrees": n / number for which, n in zip(("best", "worst"), agreed, strict=True) if number}
        return total | (shares if self.spec.check else {})


class _Duels:
    """The judge of a window: how likely the first of two answers to one of its prompts is the better one."""

    def __init__(self, reward: Scoring, asked: Sequence[_Asked], split: list[int], *, swap: bool) -> None:
        compares = hasattr(reward, "compare")
        self.reward = reward if compares else _Once(reward)
        self.asked, self.split, self.swap = asked, split, swap and compares

    def __call__(self, duels: Sequence[tuple[int, int, int]]) -> list[float]:
        from grainline.rewards._seam import Duel, compare

        said = [Duel(self.asked[n].prompt, self.asked[n].texts[i], self.asked[n].texts[j]) for n, i, j in duels]
        if not self.swap:
            return compare(self.reward, said)
        turned = [Duel(duel.prompt, duel.second, duel.first) for duel in said]
        heard = compare(self.reward, [*said, *turned])
        found = []
        for (n, _, _), p, q in zip(duels, heard[: len(said)], heard[len(said) :], strict=True):
            contradicted = (p - 0.5) * (q - 0.5) > 0  # twice the one that stood first, or twice the second
            self.split[n] += contradicted
            found.append(0.5 if contradicted else (p + 1 - q) / 2)
        return found


class _Once:
    """A reward that scores each answer once."""

    def __init__(self, reward: Scoring) -> None:
        self.reward = reward
        self.known: dict[tuple[str, str], Scores] = {}

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        asked = list(asked)
        new = {key: one for one in asked if (key := (str(one.prompt), one.answer)) not in self.known}
        self.known |= zip(new, self.reward.score(new.values()), strict=True)
        return (self.known[str(one.prompt), one.answer] for one in asked)


def _agrees(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[bool]:
    """Whether our best is a best of the round robin, and our worst a worst."""
    known = [(score, n) for n, score in enumerate(ours) if score is not None]
    points = [score for score in theirs if score is not None]
    if not known or not points:
        return [not known and not points] * 2
    return [theirs[end(known)[1]] == end(points) for end in (max, min)]
