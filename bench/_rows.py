"""The steps that are measured: which rows, and in which batches.

``hh``   hh_harmless, one pair a question. Rows vary in length, so a batch of a few is mostly padding; TRL can be
         asked to put rows of like length together, and does so over 50 batches at a time. The rows here are therefore
         whole batches of TRL's so sorted, evenly spaced from the shortest to the longest, and put back into the file's
         order for everybody else. All sides do the same rows.
``qa``   qa_feedback, four answers a question and up to six pairs: a step is some pairs of each of a few questions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline.data import collate, load
from grainline.data.encode import Encoder
from grainline.types import Example

DATA = Path(os.environ.get("GRAINLINE_SHARED", Path(__file__).resolve().parents[2] / "shared"), "data")
FILES = {"hh": DATA / "hh_harmless" / "train.jsonl.gz", "qa": DATA / "qa_feedback" / "prefs_train.jsonl.gz"}
WINDOW = 50
"""Batches that transformers' length-grouped sampler sorts together."""

Steps = list[list[Example]]


class Rows(NamedTuple):
    warm: Steps
    steps: Steps
    sorted: Steps  # the rows of ``steps``, in TRL's length-sorted batches


class Own(tuple):
    """A prompt that equals no other, so that pairs of one question do not share it."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def read(options: Any, tokenizer: Any) -> Rows:
    """The steps for ``options`` (data, pairs, questions, steps, warm, max_length).

    Raises:
        SystemExit: the data has fewer rows than asked for.
    """
    encode = Encoder(tokenizer, max_length=options.max_length).encode_all
    if options.data == "qa":
        enough = 20 * options.questions * (options.warm + options.steps)  # rows; some questions have too few pairs
        return _questions(encode(load.read(FILES["qa"], limit=enough).records)[0], options)
    window = WINDOW * options.pairs
    examples, _ = encode(load.read(FILES["hh"], limit=window + options.warm * options.pairs + 20).records)
    if len(examples) < window + options.warm * options.pairs or options.steps > WINDOW:
        raise SystemExit(f"hh has too few rows for {options.steps} steps of {options.pairs} pairs.")
    place = {id(example): i for i, example in enumerate(examples)}
    batches = cut(sorted(examples[:window], key=length), options.pairs)
    taken = [batches[(2 * k + 1) * WINDOW // (2 * options.steps)] for k in range(options.steps)]
    mixed = sorted((e for batch in taken for e in batch), key=lambda e: place[id(e)])
    # Long rows first: what memory the process keeps is then there, as in a run that goes on.
    long = sorted(examples[window:], key=length)[-options.warm * options.pairs :]
    return Rows(cut(long, options.pairs), cut(mixed, options.pairs), taken)


def _questions(examples: Sequence[Example], options: Any) -> Rows:
    """Steps of ``pairs // questions`` pairs each of ``questions`` questions, those with fewer pairs left out."""
    each = options.pairs // options.questions
    groups: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt, []).append(example)
    flat = [example for group in groups.values() if len(group) >= each for example in group[:each]]
    steps = cut(flat, each * options.questions)[: options.warm + options.steps]
    if len(steps) < options.warm + options.steps:
        raise SystemExit(f"qa has too few questions with {each} pairs for {options.steps} steps.")
    timed = steps[options.warm :]
    by_length = sorted((e for step in timed for e in step), key=length)
    return Rows(steps[: options.warm], timed, cut(by_length, len(timed[0])))


def length(example: Example) -> int:
    """Tokens of the longer sequence, which is what a padded batch must hold."""
    return len(example.prompt) + max(len(answer.ids) for answer in example.answers)


def cut(examples: Sequence[Example], size: int) -> Steps:
    return [list(examples[i : i + size]) for i in range(0, len(examples), size)]


def apart(step: Sequence[Example]) -> list[Example]:
    """The same pairs, each with a prompt of its own."""
    return [example._replace(prompt=Own(example.prompt)) for example in step]


def mixed(steps: Steps) -> Steps:
    """The same rows in as many steps as large, dealt out in turn: the pairs of a question stand in different steps."""
    dealt = [example for row in zip(*steps, strict=True) for example in row]
    return cut(dealt, len(steps[0]))


def tokens(steps: Steps) -> dict[str, int]:
    """Tokens of ``steps``: what stands in the data, and what each way of laying it out puts through the model."""
    whole = [len(e.prompt) + len(a.ids) for step in steps for e in step for a in e.answers]
    answers = {(id(step), e.prompt, a.ids) for step in steps for e in step for a in e.answers}
    own = [apart(step) for step in steps]
    return {
        "real": sum(whole),
        "answers": sum(len(ids) for _, _, ids in answers),
        "tree": sum(collate.tokens(step, "tree") for step in steps),
        "pair-trees": sum(collate.tokens(step, "tree") for step in own),
        "packed": sum(collate.tokens(step, "packed") for step in own),
        "padded": sum(collate.tokens(step, "padded") for step in own),
    }
