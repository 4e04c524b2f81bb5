r"""Few rows, and good ones: the most complex and best answered, of which no two are alike (Deita).

Liu et al. 2024, *What Makes Good Data for Alignment?*, ICLR, arXiv:2312.15685; the combination and the filter as in the
authors' released code. A row's score is summed over the exchanges of its conversation,

.. math:: s = \sum_i c_i\, q_i

with the complexity c of what is asked and the quality q of what is answered. Rows are gone through from the highest
score down (the first of two equal ones first); one is kept unless its cosine similarity to a row kept before is above
``threshold``; at ``budget`` it ends.

The authors' scorers, LLaMA models of 7B trained on rankings by ChatGPT, are not at hand. So c and q come from columns
(a number, or a list of one each exchange, as the released code writes them), or from any reward, asked about each
exchange for an aspect of that name, e.g. ``(judge:rubric=deita,model=NAME)``, whose rubric has the paper's scale, 1 to
6, in our own words. Their complexity scorer sees the question alone; a reward sees the answer too.

A row's vector is the final hidden state of its last token, as in the released code; the paper's model is LLaMA-1-13B,
here it is any.

Differs: the filter is the greedy one in truth. (The released code is so at its default, one row at a time; in larger
chunks it also drops rows that are near to a row of the chunk which is dropped itself.) The released sort is unstable.
``centred`` is ours: final states of small models are all much alike, and 0.9 then leaves next to nothing.
``manhattan`` is left out: there the same comparison means its opposite. Long conversations add up, and score high;
``turns=last`` looks at the last exchange alone (ours), which is the one that training here reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError, nearest
from grainline.rooms import resolve
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.curation._neighbours import Array, Directions, Kept
    from grainline.rewards._seam import Asked, Scoring

ASKED = ("complexity", "quality")


@spec
class Select:
    paper: ClassVar[str] = "arXiv:2312.15685"
    whole: ClassVar[bool] = True

    budget: int | None = Field(None, ge=1)
    """Rows that are kept at most; null = all that are far enough from each other. The paper's best: 6000 to 10000."""
    threshold: float = Field(0.9, ge=-1, le=1)
    """tau: two rows are alike where their cosine similarity is above it; 1 keeps all, by score alone."""
    complexity: Any = "complexity"
    """A column, or a reward in brackets; null = 1, so that quality alone counts."""
    quality: Any = "quality"
    """A column, or a reward in brackets; null = 1, so that complexity alone counts."""
    turns: Literal["all", "last"] = "all"
    """Exchanges of a conversation that are summed over (all, the paper) or the last one alone."""
    vectors: str = ""
    """A column that holds each row's vector; empty = ``model`` makes them."""
    model: str = Field("smollm2-135m-instruct", min_length=1)
    """What makes vectors: a language model, an adapter's or a run's folder; or a sentence-transformers model."""
    encoder: Literal["causal", "sentence-transformers"] = "causal"
    """What ``model`` is."""
    pooling: Literal["last", "mean"] = "last"
    """Of a causal model: the state of the last token (the released code), or the mean over all."""
    of: Literal["conversation", "prompt"] = "conversation"
    """What must not be alike: whole conversations (the paper), or what is asked."""
    max_length: int = Field(2048, ge=2)
    """Tokens of a conversation that are read; the oldest turns go first."""
    centred: bool = False
    """Compare vectors without their mean over all rows (ours): states of one model have much in common."""
    search: Literal["auto", "exact", "hnsw"] = "auto"
    """Of neighbours: exact, or a graph that may overlook one (hnswlib); auto = exact where that takes minutes."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the vectors on the disk."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the weights of ``model`` are held in; auto = as in training."""
    device: str = "auto"
    """Where ``model`` is: auto, cpu, cuda, cuda:1, mps."""

    @field_validator(*ASKED)
    @classmethod
    def _column_or_reward(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else resolve("rewards", value)

    @model_validator(mode="after")
    def _something_counts(self) -> Select:
        if self.complexity is None and self.quality is None:
            raise ValueError("complexity and quality cannot both be null")
        return self

    @property
    def rewards(self) -> dict[tuple[str, ...], Any]:
        """What is asked for, and whom: one reward for both is asked once, and a judge paid once."""
        asked = {name: getattr(self, name) for name in ASKED}
        asked = {name: one for name, one in asked.items() if one is not None and not isinstance(one, str)}
        if len(asked) == 2 and self.complexity == self.quality:
            return {ASKED: self.quality}
        return {(name,): one for name, one in asked.items()}

    @property
    def needs(self) -> frozenset[str]:
        asked, vectors = {"reward"} if self.rewards else set(), set() if self.vectors else {"model"}
        return frozenset(asked | vectors)

    @property
    def reads(self) -> tuple[str, ...]:
        from grainline.curation._asking import weights

        return () if self.vectors else weights(self.model)

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        from grainline.curation._asking import desk

        with ExitStack() as stack:
            asked = {names: stack.enter_context(one.open(desk(bench, one))) for names, one in self.rewards.items()}
            yield _Selecting(self, bench, asked)


class _Selecting:
    """The step, opened."""

    def __init__(self, spec: Select, bench: Bench, rewards: Mapping[tuple[str, ...], Scoring]) -> None:
        self.spec, self.bench, self.rewards = spec, bench, rewards
        self.facts: dict[str, Any] = {}

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        import numpy as np

        score = np.fromiter(self._scores(rows), float)
        order = np.argsort(-score, kind="stable")[: (~np.isnan(score)).sum()]  # NaN sorts last
        chosen = self._chosen(self._vectors(rows), order)
        kept = {one.row: (rank, one) for rank, one in enumerate(chosen, start=1)}
        full = len(kept) == self.spec.budget
        seen = np.zeros(len(score), bool)
        seen[order[: np.flatnonzero(order == chosen[-1].row)[0]] if full else order] = True
        for n, row in enumerate(rows):
            if n in kept:
                rank, one = kept[n]
                facts = {"score": float(score[n]), "rank": rank, "nearest": round(one.nearest, 6)}
                yield [signed(row, written(self.spec), **facts)]
            elif np.isnan(score[n]):
                yield Dropped("no score")
            else:
                yield Dropped("alike a better row" if seen[n] else "beyond the budget")

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How neighbours were looked for, and what that may have overlooked."""
        return self.facts

    def _chosen(self, vectors_ND: Array, order: Array) -> list[Kept]:
        from grainline.curation import _neighbours

        if not len(order):
            return []
        spec, (rows, dims) = self.spec, vectors_ND.shape
        directions = _neighbours.Directions(vectors_ND, centred=spec.centred)
        self._look(directions)
        how = _neighbours.choose(rows, dims, spec.budget) if spec.search == "auto" else spec.search
        near = _neighbours.Graph(dims) if how == "hnsw" else _neighbours.Exact(directions)
        kept = list(_neighbours.greedy(directions, order, near, threshold=spec.threshold, budget=spec.budget))
        self.facts |= {"search": how, "dimensions": dims, "scored": len(order), "kept": len(kept)}
        if how == "hnsw":
            looked, wrong = _neighbours.overlooked(directions, kept, spec.threshold)
            self.facts |= {"looked_at_exactly": looked, "of_these_too_near": wrong}
        return kept

    def _look(self, directions: Directions) -> None:
        """Note how much alike rows are that have nothing to do with each other, and say so if it is too much."""
        import numpy as np

        from grainline import progress

        found = directions.similarities(np.random.default_rng(self.bench.seed))
        if not len(found):
            return
        low, middle, high = (round(float(n), 3) for n in np.quantile(found, (0.05, 0.5, 0.95)))
        self.facts["similarity_of_any_two"] = {"5%": low, "50%": middle, "95%": high}
        if middle > self.spec.threshold:
            remark = (
                f"most rows are alike by these vectors (half of all pairs above {middle:g}): hardly any can be kept"
            )
            progress.say(f"{remark}. Set centred=true, another pooling, or a higher threshold.", quiet=self.bench.quiet)

    # ---------------------------------------------------------------------------------------------------- vectors

    def _vectors(self, rows: Iterable[Row]) -> Array:
        from grainline.curation import _embeddings
        from grainline.curation._asking import conversation

        spec, precision = self.spec, self.spec.precision
        if spec.vectors:
            column = _embeddings.Column(spec.vectors)
            pairs = _Again(lambda: ((identity(row), row.get(spec.vectors)) for row in rows))
            return _embeddings.filled(self.bench.folder, pairs, column, precision, quiet=self.bench.quiet)
        manner = _embeddings.Manner(spec.pooling, spec.of, spec.max_length, spec.dtype, spec.device)
        make = _embeddings.Causal if spec.encoder == "causal" else _embeddings.Sentences
        records = _Again(lambda: map(conversation, rows))
        maker = make(spec.model, manner)
        return _embeddings.filled(self.bench.folder, records, maker, precision, quiet=self.bench.quiet)

    # ----------------------------------------------------------------------------------------------------- scores

    def _scores(self, rows: Iterable[Row]) -> Iterator[float]:
        """s of each row, in order; NaN where it cannot be said."""
        streams = [self._asked(names, reward, rows) for names, reward in self.rewards.items()]
        columns = {name: getattr(self.spec, name) for name in ASKED if isinstance(getattr(self.spec, name), str)}
        for row, *said in zip(rows, *streams, strict=True):
            known = {name: _column(row, column) for name, column in columns.items()}
            for values in said:
                known |= values
            yield self._sum(row, list(known.values()))

    def _asked(self, names: tuple[str, ...], reward: Scoring, rows: Iterable[Row]) -> Iterator[dict[str, list[float]]]:
        """For each row what the reward says of each of its exchanges."""
        from grainline.curation._asking import each, exchanges
        from grainline.rewards._seam import Asked

        def ask(row: Row) -> list[Asked]:
            return [Asked(prompt, answer, (), names) for prompt, answer in exchanges(row)]

        for _, heard in each(rows, ask, reward):
            yield {name: [scores.value[0][a] for scores in heard] for a, name in enumerate(names)}

    def _sum(self, row: Row, factors: Sequence[Sequence[float]]) -> float:
        if len(set(map(len, factors))) > 1:
            raise DataError(
                f"{' and '.join(str(len(one)) for one in factors)} scores: one each exchange is needed of both.",
                where=identity(row),
            )
        if any(value < 0 for one in factors for value in one):
            raise DataError(
                "a score is below 0, and the product of two such is high.",
                where=identity(row),
                instead="Take scores on a scale that begins at 0 or above, as the paper's 1 to 6.",
            )
        each = [math.prod(exchange) for exchange in zip(*factors, strict=True)]
        return math.fsum(each[-1:] if self.spec.turns == "last" else each)


class _Again:
    """What can be gone through again and again."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


def _column(row: Row, column: str) -> list[float]:
    """A number, or one each exchange; a null is NaN."""
    where = f"{identity(row)} {column}"
    if column not in row:
        raise DataError("the column is missing.", where=where, instead=nearest(column, map(str, row)))
    given = row[column]
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = fields.parsed(given, where=where)
    values = list(given) if fields.is_list(given) else [given]
    for value in values:
        if value is not None and not fields.is_number(value):
            raise DataError(
                f"{fields.show(value)} is no score.", where=where, instead="Write a number, or a list of them."
            )
    return [math.nan if value is None else float(value) for value in values]
