r"""Controllable preferences: prompts carry the levels that are wanted, and chosen is the answer that meets them better.

Guo et al. 2024, arXiv:2402.19085 (OpenBMB's CPO; not contrastive preference optimisation). For each row objectives are
chosen that are controlled, each at a level :math:`P_i`; the others are to be as high as possible:

.. math:: R(y) = \sum_i g_i(y), \qquad g_i(y) = \begin{cases} -\lambda\,|P_i - p_i(y)| & i \text{ controlled} \\
          p_i(y) & \text{else} \end{cases}

with the answer's ratings :math:`p_i`. Of every two answers whose values differ the one with the larger R is chosen, and
the prompt begins with the controlled levels, ``<honesty: 5>``, as plain text (:mod:`grainline.data.conditions`). That
much is the released code's, where every :math:`\lambda` is 1 (the paper's values were not read). Its first stage,
supervised, learns every answer under its own levels: ``make=completions``.

Its script departs from the formula: a misplaced bracket makes honesty count against the answer, a level that is met
exactly counts as missing, and one objective is misspelt in the prompt. Not so here. Which objectives are controlled is
drawn from all subsets alike (ours; the release has fixed counts a configuration).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, ClassVar, Literal

from pydantic import Field

from grainline.curation._parts import Ends, every, paired, record, without_answers
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.data.conditions import Condition, Place, conditioned
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec

Levels = Mapping[str, float]


@spec
class Control:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    paper: ClassVar[str] = "arXiv:2402.19085"

    aspects: tuple[str, ...] = ()
    """Objectives: [helpfulness, honesty]; empty = the row's aspect_names."""
    between: Ends = (0.0, 1.0)
    """Worst and best rating that the data can hold; the step score writes 0 to 1."""
    scale: Ends = (1.0, 5.0)
    """Worst and best level, in the prompt; 1 to 5 in the paper. Levels in the prompt are whole numbers."""
    controlled: Literal["drawn", "all"] = "drawn"
    """drawn = any subset of the objectives, none and all included; all = each of them."""
    level: Literal["answer", "best"] = "answer"
    """What is asked for: the levels of one of the row's answers, drawn; or the best level."""
    each: int = Field(1, ge=1)
    """Requests a row; those that read alike are made once."""
    penalty: float = Field(1.0, gt=0)
    """Lambda: what a level that is missed by one costs; 1 as released."""
    make: Literal["pairs", "completions"] = "pairs"
    """pairs = the second stage; completions = the first: every answer under its own levels."""
    place: Place = "user"
    """Of chat prompts: user = before the question, as released; system = in the system's turn."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        def each(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
            for row in rows:
                yield self._row(row, bench.luck(row))

        yield each

    def value(self, rated: Levels, asked: Levels) -> float:
        """R of an answer with these ratings: how well it meets what is asked, and how good it is in all else."""
        return sum(
            -self.penalty * abs(asked[aspect] - level) if aspect in asked else level for aspect, level in rated.items()
        )

    def _row(self, row: Row, luck: random.Random) -> Sequence[Row]:
        prompt = record(row).prompt
        rated = [(one, levels) for one, levels in self._rated(row) if levels is not None]
        if len(rated) < (2 if self.make == "pairs" else 1):
            return Dropped("too few answers with a rating in every aspect")
        if self.make == "completions":
            return [self._completion(row, prompt, luck, *one) for one in rated]
        requests = [self._request(luck, [levels for _, levels in rated]) for _ in range(self.each)]
        different = {tuple(asked.items()): asked for asked in requests}.values()
        made = [pair for asked in different for pair in self._pairs(row, prompt, rated, asked)]
        return made or Dropped("no two answers differ in what is asked")

    def _pairs(
        self, row: Row, prompt: Any, rated: Sequence[tuple[Row, Levels]], asked: Levels
    ) -> Iterator[dict[str, Any]]:
        condition = self._condition(asked)
        for both in combinations(rated, 2):
            (better, p), (worse, q) = sorted(both, key=lambda one: -self.value(one[1], asked))
            if (margin := self.value(p, asked) - self.value(q, asked)) > 0:
                made = {**paired(row, better, worse), "margin": margin}
                yield self._under(made, prompt, condition)

    def _completion(self, row: Row, prompt: Any, luck: random.Random, answer: Row, rated: Levels) -> dict[str, Any]:
        made = without_answers(row) | {f"completion_{key}": v for key, v in answer.items() if key != "text"}
        asked = {aspect: self._whole(rated[aspect]) for aspect in self._drawn(luck, list(rated))}
        return self._under({**made, "completion": answer["text"]}, prompt, self._condition(asked))

    def _under(self, row: Row, prompt: Any, condition: Condition) -> dict[str, Any]:
        made = {**row, "prompt": conditioned(prompt, condition), "condition": condition.said()}
        return signed(made, written(self))

    def _condition(self, asked: Levels) -> Condition:
        return Condition(asked, "tokens", self.place, self.scale)

    def _request(self, luck: random.Random, rated: Sequence[Levels]) -> dict[str, float]:
        aspects = self._drawn(luck, list(rated[0]))
        pattern = luck.choice(rated)
        return {a: self.scale[1] if self.level == "best" else self._whole(pattern[a]) for a in aspects}

    def _drawn(self, luck: random.Random, aspects: list[str]) -> list[str]:
        return aspects if self.controlled == "all" else [aspect for aspect in aspects if luck.random() < 0.5]

    def _whole(self, level: float) -> float:
        return float(int(level + 0.5))

    # ------------------------------------------------------------------------------------------------ ratings

    def _rated(self, row: Row) -> Iterator[tuple[Row, Levels | None]]:
        """Each answer with its levels; None where an aspect has no rating."""
        where = identity(row)
        names = fields.parsed(row.get("aspect_names"), where=f"{where} aspect_names") or []
        aspects = self.aspects or tuple(names)
        if not aspects:
            raise DataError("no aspects.", where=where, instead="Write control:aspects=[helpfulness, honesty].")
        for n, answer in enumerate(every(row)):
            matrix = fields.parsed(answer.get("aspect_scores"), where=f"{where} aspect_scores") or []
            columns = dict(zip(names, zip(*matrix, strict=True), strict=True)) if matrix else {}
            low, high = fields.score_range(row, where=where) or self.between
            levels = {}
            for aspect in aspects:
                given = [answer[aspect]] if aspect in answer else columns.get(aspect, ())
                known = [value for value in given if value is not None]
                ends = self.between if aspect in answer else (low, high)
                if known:
                    levels[aspect] = self._level(known, ends, where=f"{where} answer {n + 1}, {aspect}")
            yield answer, levels if len(levels) == len(aspects) else None

    def _level(self, ratings: Sequence[Any], between: tuple[float, float], *, where: str) -> float:
        """The mean of these ratings, as a level."""
        for rating in ratings:
            if not fields.is_number(rating) or not between[0] <= rating <= between[1]:
                raise DataError(
                    f"{fields.show(rating)} is no rating between {between[0]:g} and {between[1]:g}.",
                    where=where,
                    instead="Say what ratings lie between: control:between=[1, 5].",
                )
        share = (sum(ratings) / len(ratings) - between[0]) / (between[1] - between[0])
        return self.scale[0] + (self.scale[1] - self.scale[0]) * share
