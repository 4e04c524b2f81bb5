"""Examples -> batches: the question tree, and how a step's rows are split into forwards.

A tree is a question with its answers: the prompt stands once, each *distinct* answer once, however many pairs speak of
it. Trees stand one after another in a packed row, so nothing is padded::

    prompt A | answer A1 | answer A2 | prompt B | answer B1 | answer B2 | answer B3

Positions restart after the prompt for each answer, and an answer sees its prompt and itself only, so the model computes
exactly what it would for each (prompt, answer) alone. The last token of an answer predicts nothing and is left out.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from grainline.errors import RecipeError
from grainline.types import NEUTRAL, Answer, AnswerTokens, Batch, Example, Layout, Pairs, Record, Rows, Tree

if TYPE_CHECKING:
    from torch import Tensor

Speaking = Literal["pairs", "labels", "chosen"]
"""Which rows an objective sees: [chosen; rejected], single answers with labels, or the desirable answers alone."""


class _Bin(NamedTuple):
    """A forward being filled."""

    examples: tuple[Example, ...]
    rows: int  # padded rows
    longest: int  # tokens of the longest padded row
    size: int  # tokens

    @classmethod
    def of(cls, examples: Sequence[Example], layout: Layout) -> _Bin:
        answers = _answers(examples)
        longest = max(len(prompt) + len(ids) - 1 for prompt, ids in answers)
        return cls(tuple(examples), len(answers), longest, tokens(examples, layout))

    def grown(self, other: _Bin, layout: Layout) -> int:
        """Tokens with ``other`` in it too."""
        padded = (self.rows + other.rows) * max(self.longest, other.longest)
        return padded if layout == "padded" else self.size + other.size

    def add(self, other: _Bin, layout: Layout) -> _Bin:
        rows, longest = self.rows + other.rows, max(self.longest, other.longest)
        return _Bin(self.examples + other.examples, rows, longest, self.grown(other, layout))


class _Speaker(NamedTuple):
    """One row of the objective: an example's answer, and what is said of it."""

    example: Example
    answer: AnswerTokens
    label: bool


def speaking(needs: Iterable[str]) -> Speaking:
    """The rows an objective with these ``needs`` sees."""
    return "pairs" if "pairs" in needs else "labels" if "labels" in needs else "chosen"


def content_key(prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Content address of an answer in its context: sha256 of both token sequences."""
    digest = hashlib.sha256(array("q", prompt).tobytes())
    digest.update(b"|" + array("q", answer).tobytes())
    return digest.hexdigest()


def collate(examples: Sequence[Example], *, rows: Speaking = "pairs", layout: Layout = "tree") -> Batch:
    """Lay out ``examples`` for one forward.

    Args:
        examples: from one optimizer step; examples with equal prompts share a tree.
        rows: which answers the objective sees, and in which order; behind them stand the examples' ``others``.
        layout: ``tree``; ``packed``, where each answer carries its own prompt; ``padded``, one answer a row.
    """
    import torch

    own = _speakers(examples, rows)
    speakers = [*own, *(_Speaker(e, other, False) for e in examples for other in e.others)]
    ids: list[int] = []
    positions: list[int] = []
    source: list[int] = []
    target: list[int] = []
    trees: list[Tree] = []
    place: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}  # (prompt, answer) -> where its targets begin
    for prompt, answers in _plant(speakers, layout):
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        for answer in answers:
            first = len(ids)
            source += [start + len(prompt) - 1, *range(first, first + len(answer) - 1)]
            place[prompt, answer] = len(target)
            target += answer
            ids += answer[:-1]
            positions += range(len(prompt), len(prompt) + len(answer) - 1)
        trees.append(Tree(start, len(prompt), tuple(len(answer) - 1 for answer in answers)))
    longest = max(len(s.answer.ids) for s in speakers)
    index = torch.full((len(speakers), longest), -1)
    for b, speaker in enumerate(speakers):
        begin, length = place[speaker.example.prompt, speaker.answer.ids], len(speaker.answer.ids)
        index[b, :length] = torch.arange(begin, begin + length)
    said = [speaker.answer for speaker in speakers]
    segments = [(a.segment, a.score) for a in said if a.segment is not None and a.score is not None]
    complete = len(segments) == len(said)
    batch = Batch(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        trees=tuple(trees),
        source=torch.tensor(source),
        target=torch.tensor(target),
        rows=index,
        weight=_table([a.weight for a in said], outside=0.0),
        facts=_facts(examples, own, rows),
        keys=tuple(content_key(s.example.prompt, s.answer.ids) for s in speakers),
        segment=_table([segment for segment, _ in segments], outside=-1) if complete else None,
        score=_table([score for _, score in segments], outside=math.nan) if complete else None,
    )
    return _pad(batch) if layout == "padded" else batch


def pack(
    examples: Sequence[Example], *, max_tokens: int, layout: Layout = "tree", parts: int = 1
) -> list[list[Example]]:
    """Split a step's examples into forwards of at most ``max_tokens`` tokens, and into at least ``parts``.

    Examples of one prompt stay together while they fit. An example larger than the budget gets a forward of its own.
    First fit, largest first. Where ``parts`` processes share the forwards (every ``parts``-th from the k-th on is
    process k's), each has as many as the others unless single rows are too large for that, and the largest is as small
    as this allows: the budget is lowered as far as it makes no further forward (MULTIFIT: Coffman, Garey and Johnson
    1978). The result depends on the examples alone.

    Raises:
        RecipeError: fewer examples than ``parts`` (processes).
    """
    if len(examples) < parts:
        raise RecipeError(
            f"a step of {len(examples)} rows cannot be shared by {parts} processes",
            where="batch_size",
            instead=f"Set it to at least {parts}.",
        )
    groups = _by_prompt(examples)
    bins = _first_fit(groups, max_tokens, layout)
    if parts > 1:
        bins = _dealt(_levelled(groups, parts * _rounds(bins, parts), max_tokens, layout), parts)
    forwards = [list(b.examples) for b in bins]
    while len(forwards) < parts:
        largest = max(forwards, key=len)
        forwards.remove(largest)
        forwards += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return forwards


def rounds(examples: Sequence[Example], *, max_tokens: int, layout: Layout = "tree", parts: int = 1) -> int:
    """Forwards, one after another, that :func:`pack` makes of a step in each of ``parts`` processes; not yet levelled,
    which makes no more."""
    return _rounds(_first_fit(_by_prompt(examples), max_tokens, layout), parts)


def _rounds(bins: Sequence[_Bin], parts: int) -> int:
    return -(-len(bins) // parts)


def _first_fit(groups: Sequence[list[Example]], budget: int, layout: Layout) -> list[_Bin]:
    """Forwards within the budget, each prompt's examples in the first that has room for them, the largest first."""
    pieces = [_Bin.of(piece, layout) for group in groups for piece in _fit(group, budget, layout)]
    bins: list[_Bin] = []
    for piece in sorted(pieces, key=lambda piece: -piece.size):
        home = next((i for i, other in enumerate(bins) if other.grown(piece, layout) <= budget), None)
        if home is None:
            bins.append(piece)
        else:
            bins[home] = bins[home].add(piece, layout)
    return bins


def _levelled(groups: Sequence[list[Example]], most: int, max_tokens: int, layout: Layout) -> list[_Bin]:
    """The same with the least budget, found by halving, that makes ``most`` forwards or fewer; ``max_tokens`` does."""
    least = min(max_tokens, math.ceil(sum(tokens(group, layout) for group in groups) / most))
    budgets = range(least, max_tokens)
    enough = bisect.bisect_left(budgets, True, key=lambda budget: len(_first_fit(groups, budget, layout)) <= most)
    return _first_fit(groups, least + enough, layout)


def _dealt(bins: Sequence[_Bin], parts: int) -> list[_Bin]:
    """In rounds of ``parts``, the largest first and every other round the other way round: who had the largest of one
    gets the smallest of the next."""
    ranked = sorted(bins, key=lambda b: -b.size)
    rounds = [ranked[i : i + parts] for i in range(0, len(ranked), parts)]
    return [b for n, one in enumerate(rounds) for b in (one[::-1] if n % 2 and len(one) == parts else one)]


def tokens(examples: Sequence[Example], layout: Layout = "tree") -> int:
    """Tokens that go through the model for ``examples``: each distinct prompt once in a tree, else once an answer."""
    answers = _answers(examples)
    if layout == "tree":
        return sum(map(len, {prompt for prompt, _ in answers})) + sum(len(ids) - 1 for _, ids in answers)
    lengths = [len(prompt) + len(ids) - 1 for prompt, ids in answers]
    return len(lengths) * max(lengths) if layout == "padded" else sum(lengths)


def _answers(examples: Sequence[Example]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every distinct (prompt, answer) that is read."""
    return {(e.prompt, a.ids) for e in examples for a in (*e.answers, *e.others)}


def _speakers(examples: Sequence[Example], rows: Speaking) -> list[_Speaker]:
    if rows == "pairs":
        return [_Speaker(e, e.answers[side], side == 0) for side in (0, 1) for e in examples]
    labels = [(e, (True, False) if e.record.is_pair else (bool(e.record.label),)) for e in examples]
    return [
        _Speaker(e, answer, label)
        for e, marks in labels
        for answer, label in zip(e.answers, marks, strict=True)
        if label or rows == "labels"
    ]


def _plant(speakers: Sequence[_Speaker], layout: Layout) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """(prompt, its distinct answers) of each tree, in order of appearance."""
    grown: dict[object, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {}
    for prompt, answer in dict.fromkeys((s.example.prompt, s.answer.ids) for s in speakers):
        grown.setdefault(prompt if layout == "tree" else (prompt, answer), (prompt, []))[1].append(answer)
    return list(grown.values())


def _facts(examples: Sequence[Example], speakers: Sequence[_Speaker], rows: Speaking) -> Pairs | Rows:
    import torch

    if rows == "pairs":
        records = [e.record for e in examples]
        margin = [math.nan if r.margin is None else r.margin for r in records]
        levels = [[aspect_levels(answer) for answer in record.answers] for record in records]
        aspects = sorted({aspect for pair in levels for level in pair for aspect in level})
        apart = [[w.get(a, NEUTRAL) - l.get(a, NEUTRAL) for a in aspects] for w, l in levels]
        better = torch.tensor(apart).reshape(len(records), len(aspects))
        better = better.sign() * (better.abs() > 1e-6)
        weight = torch.tensor([r.weight for r in records])
        columns, numbers = _numbers(records)
        ids = tuple(r.id for r in records)
        return Pairs(ids, weight, torch.tensor(margin), tuple(aspects), better, columns, numbers)
    records = [s.example.record for s in speakers]
    label = torch.tensor([s.label for s in speakers], dtype=torch.bool)
    return Rows(tuple(r.id for r in records), torch.tensor([r.weight for r in records]), label)


def _numbers(records: Sequence[Record]) -> tuple[tuple[str, ...], Tensor]:
    """Which columns hold a number in some record, and (records, columns) what they hold, NaN for nothing."""
    import torch

    held = [dict(record.numbers) for record in records]
    columns = sorted({column for one in held for column in one})
    numbers = torch.tensor([[one.get(column, math.nan) for column in columns] for one in held], dtype=torch.float32)
    return tuple(columns), numbers.reshape(len(records), len(columns))


def aspect_levels(answer: Answer) -> dict[str, float]:
    """How good an answer is in each aspect that somebody judged: the mean score of its characters, 0 to 1.

    Characters that nobody judged are neutral, so an answer with one wrong word is worse than one with none.
    """
    marked: dict[str, list[float]] = {}
    for span in answer.spans:
        if span.aspect:
            length = span.stop - span.start
            sums = marked.setdefault(span.aspect, [0.0, 0.0])
            marked[span.aspect] = [sums[0] + length * (span.score - NEUTRAL), sums[1] + length]
    whole = {aspect: max(len(answer.text), length) for aspect, (_, length) in marked.items()}
    return {aspect: NEUTRAL + total / whole[aspect] for aspect, (total, _) in marked.items()}


def _table(rows: Sequence[Sequence[float]], *, outside: float) -> Tensor:
    """Rows of uneven length as one tensor: float32, or int64 where ``outside`` is a whole number."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    dtype = torch.long if isinstance(outside, int) else torch.float32
    return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True, padding_value=outside)


def _pad(batch: Batch) -> Batch:
    """A packed batch with one answer a tree -> the same answers as rows, padded on the right."""
    import torch

    longest = max(tree.stop - tree.start for tree in batch.trees)
    ids = torch.zeros(len(batch.trees), longest, dtype=torch.long)
    moved = torch.empty(batch.ids.numel(), dtype=torch.long)  # flattened position in the packed row -> in the padded
    for row, tree in enumerate(batch.trees):
        length = tree.stop - tree.start
        ids[row, :length] = batch.ids[0, tree.start : tree.stop]
        moved[tree.start : tree.stop] = torch.arange(row * longest, row * longest + length)
    positions = torch.arange(longest).expand(len(batch.trees), -1)
    return batch._replace(ids=ids, positions=positions, trees=(), source=moved[batch.source])


def _by_prompt(examples: Sequence[Example]) -> list[list[Example]]:
    groups: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt, []).append(example)
    return list(groups.values())


def _fit(group: list[Example], budget: int, layout: Layout) -> list[list[Example]]:
    """Cut one prompt's examples into pieces within the budget."""
    pieces: list[list[Example]] = []
    for example in group:
        if pieces and tokens([*pieces[-1], example], layout) <= budget:
            pieces[-1].append(example)
        else:
            pieces.append([example])
    return pieces
