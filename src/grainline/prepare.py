"""Data, ready before any weight is loaded: read, checked, mixed, tokenised, marked. A bad row costs seconds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline import atomic, curate, rooms
from grainline.data import collate, load, mixture
from grainline.data.audit import audit
from grainline.data.encode import Encoder
from grainline.errors import DataError, RecipeError, nearest
from grainline.objectives._seam import NEEDS, unknown
from grainline.progress import say
from grainline.recipe import DataChoice, HeldOutChoice, Recipe
from grainline.types import Example, Record


class Prepared(NamedTuple):
    """Examples, ready before any weight is loaded."""

    train: list[Example]
    held_out: dict[str, list[Example]]
    facts: dict[str, Any]  # digests and counts, for the provenance


def prepare(recipe: Recipe, tokenizer: Any, *, quiet: bool = True, spend: bool = True) -> Prepared:
    """Read, check, tokenise and mark every row of the recipe's data, curated where it says so.

    ``spend``: whether steps of curation that take a model may be carried out now, if they were not before.

    Raises:
        DataError: rows that cannot be used (unless ``skip_bad_rows``), or data without what a method needs.
    """
    for remark in audit(tokenizer):
        say(f"tokenizer: {remark}", quiet=quiet)
    unmet = unknown(recipe.objective.needs)
    if unmet:
        raise RecipeError(
            f"{rooms.text(recipe.objective)} needs {', '.join(sorted(unmet))}.",
            where="objective",
            instead=nearest(min(unmet), NEEDS),
        )
    if recipe.batch_size == recipe.max_tokens == "auto" and "mismatched" in recipe.objective.needs:
        raise RecipeError(
            f"{rooms.text(recipe.objective)} reads answers to other prompts of the step, and so must its reference.",
            where="batch_size",
            instead="State it, or max_tokens: with both auto the rows of a step are known too late.",
        )
    curated = [_curated(choice, recipe, quiet=quiet, spend=spend) for choice in recipe.data]
    read = [found for found, _ in curated]
    mixed = mixture.mix([(f.records, c.weight) for f, c in zip(read, recipe.data, strict=True)], seed=recipe.seed)
    train, counts = _encode(mixed, read, recipe, tokenizer, quiet, train=True)
    held_out, described = prepare_held_out(recipe, recipe.evaluation.data, tokenizer, quiet=quiet)
    facts = {
        "train": [_described(found) | facts for found, facts in curated],
        "counts": counts,
        "tokens": _digest(train),
        "evaluation": described,
    }
    return Prepared(train, held_out, facts)


def prepare_held_out(
    recipe: Recipe, choices: Mapping[str, HeldOutChoice], tokenizer: Any, *, quiet: bool = True
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """The same for named held-out sets: name -> examples, and name -> digests and counts."""
    examples, facts = {}, {}
    for name, choice in choices.items():
        found = _read(choice, recipe)
        examples[name], counts = _encode(found.records, [found], recipe, tokenizer, quiet)
        facts[name] = _described(found) | {"tokens": counts}
    return examples, facts


def held_out_on_disk(evaluation: Mapping[str, Any], kept: Path) -> dict[str, Any]:
    """The same choices with held-out rows as files: one set, or several by their names."""
    data = evaluation.get("data")
    if isinstance(data, Mapping):
        data = {name: on_disk(rows, kept / f"{name}.jsonl") for name, rows in data.items()}
    return {**evaluation, **({} if data is None else {"data": on_disk(data, kept / "test.jsonl")})}


def on_disk(data: Any, file: Path) -> Any:
    """Rows in memory -> the file they are kept in, so that the run can be resumed; anything else as it is.

    Raises:
        RecipeError: several splits in one.
    """
    if isinstance(data, Mapping) and hasattr(data, "column_names"):
        splits = ", ".join(data)
        raise RecipeError(
            f"a {type(data).__name__} holds several splits ({splits}).",
            where="data",
            instead="Give one of them, such as data['train'].",
        )
    in_memory = hasattr(data, "column_names") or (
        isinstance(data, (list, tuple)) and data and isinstance(data[0], Mapping) and "path" not in data[0]
    )
    if not in_memory:
        return data
    atomic.text(file, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in data))
    return str(file)


def _curated(choice: DataChoice, recipe: Recipe, *, quiet: bool, spend: bool) -> tuple[load.Loaded, dict[str, Any]]:
    """Training rows, and how they were made where the recipe has steps for it."""
    if not recipe.curate:
        return _read(choice, recipe), {}
    made = curate.cached(
        choice.path,
        recipe.curate,
        seed=recipe.seed,
        split=choice.split,
        format=choice.format,
        skip_bad_rows=recipe.skip_bad_rows,
        quiet=quiet,
        spend=spend,
    )
    found = _read(DataChoice(path=str(made.path)), recipe)
    return found._replace(name=f"{made.facts['source']['path']}, curated"), {"curated": made.facts}


def _read(choice: DataChoice | HeldOutChoice, recipe: Recipe) -> load.Loaded:
    found = load.read(choice.path, split=choice.split, format=choice.format)
    load.refuse(found, skip_bad_rows=recipe.skip_bad_rows)
    return found


def _digest(examples: Sequence[Example]) -> str:
    """sha256 of all tokens in order and how loudly they speak: it changes with a template that writes today's date,
    and with a library that cuts sentences elsewhere."""
    digest = hashlib.sha256()
    for example in examples:
        for answer in example.answers:
            digest.update(collate.content_key(example.prompt, answer.ids).encode())
            digest.update(repr((answer.weight, answer.segment, answer.score)).encode())
    return digest.hexdigest()


def _described(found: load.Loaded) -> dict[str, Any]:
    return {
        "path": found.name,
        "digest": found.digest,
        "rows": len(found.records),
        "left_out": [str(problem) for problem in found.problems],
        "passed_over": dict(found.passed_over),
    }


def _encode(
    records: Sequence[Record],
    sources: Sequence[load.Loaded],
    recipe: Recipe,
    tokenizer: Any,
    quiet: bool,
    *,
    train: bool = False,
) -> tuple[list[Example], dict[str, int]]:
    """Tokenised and marked examples of ``records``, and what was done to them."""
    encoder = Encoder(tokenizer, max_length=recipe.max_length)
    examples, problems = encoder.encode_all(records)
    examples, unplaced, placed = _placed(recipe, examples, train=train)
    problems += unplaced
    name = " + ".join(found.name for found in sources)
    load.refuse(load.Loaded([e.record for e in examples], problems, name, ""), skip_bad_rows=recipe.skip_bad_rows)
    _check_needs(recipe, examples)
    if train:
        _check_spans(recipe, examples)
        _check_numbers(recipe, examples)
    if collate.speaking(recipe.objective.needs) == "chosen":
        examples = _desirable(examples, name, recipe)
    left_out = sum(len(found.problems) for found in sources) + len(problems)
    counts = encoder.counts
    notes = {
        f"prompts shortened to fit {recipe.max_length} tokens": counts["truncated_prompts"],
        f"answers cut to fit {recipe.max_length} tokens": counts["truncated_answers"],
        "answers that would merge with their prompt's last token": counts["boundary_merges"],
        "special tokens in the answers' own words": counts["control_tokens"],
        "prompts with ids of the adapter's own": placed,
        "unusable rows left out": left_out,
        "answers without spans, neutral all over": _unjudged(recipe, examples),
    }
    for found in sources:
        for what, count in found.passed_over.items():
            notes[f"{what} passed over"] = notes.get(f"{what} passed over", 0) + count
    said = "".join(f"; {count} {what}" for what, count in notes.items() if count)
    say(f"data: {name}, {len(examples)} rows{said}", quiet=quiet)
    marked = [recipe.supervision(example) for example in examples]
    _check_segments(recipe, marked)
    return marked, {**counts, "left_out": left_out}


def _placed(recipe: Recipe, examples: list[Example], *, train: bool) -> tuple[list[Example], list[DataError], int]:
    """The examples with prompts as the adapter reads them, a DataError for each that it cannot, how many it changed."""
    place = getattr(recipe.adapter, "placed", None)
    if place is None:
        return examples, [], 0
    found: list[Example] = []
    problems: list[DataError] = []
    replaced = 0
    for example in examples:
        try:
            prompt = place(example.prompt, example.record.where)
        except DataError as problem:
            problems.append(problem)
            continue
        replaced += prompt != example.prompt
        found.append(example._replace(prompt=prompt))
    if train and found and not replaced:
        raise RecipeError(
            f"no prompt has anything that {rooms.text(recipe.adapter)} reads, so nothing would train.",
            where="adapter",
            instead="Name the token that stands before each document in your prompts.",
        )
    return found, problems, replaced


def _desirable(examples: Sequence[Example], name: str, recipe: Recipe) -> list[Example]:
    """What an objective that only imitates may see: pairs for their chosen answer, and answers labelled desirable."""
    found = [example for example in examples if example.record.is_pair or example.record.label]
    if not found:
        raise DataError(
            f"no answer is labelled desirable, and {rooms.text(recipe.objective)} learns from no other.", where=name
        )
    return found


def _check_needs(recipe: Recipe, examples: Sequence[Example]) -> None:
    first = examples[0].record
    if "pairs" in recipe.objective.needs and not first.is_pair:
        raise RecipeError(
            f"{rooms.text(recipe.objective)} needs pairs (chosen, rejected); {first.where} is a labelled answer.",
            where="objective",
            instead="Choose an objective for labelled rows, or sft.",
        )


def _check_numbers(recipe: Recipe, examples: Sequence[Example]) -> None:
    """Every training row must say what the objective reads; held-out rows are measured without."""
    least = getattr(recipe.objective, "least", None)
    for column in sorted(need.removeprefix("number ") for need in recipe.objective.needs if need.startswith("number ")):
        for record in (example.record for example in examples):
            there = dict(record.numbers)
            if column not in there:
                raise RecipeError(
                    f"{rooms.text(recipe.objective)} reads a number from the column {column!r}, this row has none.",
                    where=record.where,
                    instead=f"Add the column to every row. {nearest(column, sorted(there))}".strip(),
                )
            if least is not None and there[column] < least:
                raise RecipeError(
                    f"{column} is {there[column]:g}; {rooms.text(recipe.objective)} reads numbers from {least:g} on.",
                    where=record.where,
                    instead="Correct the row, or leave it out.",
                )


def _check_spans(recipe: Recipe, examples: Sequence[Example]) -> None:
    """A held-out row without spans can be measured all the same, so only training data are asked."""
    spans = [span for example in examples for answer in example.record.answers for span in answer.spans]
    if "spans" in recipe.supervision.needs and not spans:
        raise RecipeError(
            f"{rooms.text(recipe.supervision)} needs spans, no row has any.",
            where="supervision",
            instead="Choose supervision=sequence, or add chosen_spans and rejected_spans.",
        )
    raw = "segments" in recipe.objective.needs and getattr(recipe.objective, "score_range", None) is None
    for example in examples if "spans" in recipe.supervision.needs and not raw else ():
        for span in (span for answer in example.record.answers for span in answer.spans):
            if not 0 <= span.score <= 1:
                raise RecipeError(
                    f"a span has score {span.score:g}; {rooms.text(recipe.supervision)} reads 0 (wrong) to 1 (right).",
                    where=example.record.where,
                    instead="State the data's scale in a column score_range: [worst, best].",
                )
    there = {span.aspect for span in spans}
    for need in sorted(recipe.supervision.needs):
        aspect = need.removeprefix("aspect ")
        if need != aspect and aspect not in there:
            raise RecipeError(
                f"no span judges {aspect!r}.",
                where=f"supervision={rooms.text(recipe.supervision)}",
                instead=nearest(aspect, sorted(there)),
            )


def _unjudged(recipe: Recipe, examples: Sequence[Example]) -> int:
    """Answers that a supervision which reads spans has nothing to read of."""
    if "spans" not in recipe.supervision.needs:
        return 0
    return sum(not answer.spans for example in examples for answer in example.record.answers)


def _check_segments(recipe: Recipe, examples: Sequence[Example]) -> None:
    if "segments" not in recipe.objective.needs:
        return
    objective, supervision = rooms.text(recipe.objective), rooms.text(recipe.supervision)
    if any(answer.segment is None for example in examples for answer in example.answers):
        raise RecipeError(
            f"{objective} needs segments, supervision={supervision} makes none.",
            where="objective",
            instead="Choose supervision=segments.",
        )
    low, high = getattr(recipe.objective, "score_range", None) or (-math.inf, math.inf)
    for example in examples:
        for score in (score for answer in example.answers for score in answer.score or ()):
            if not low - 1e-6 <= score <= high + 1e-6:
                raise RecipeError(
                    f"a segment has score {score:g}, {objective} reads scores from {low:g} to {high:g}.",
                    where=example.record.where,
                    instead="Choose segments:normalise=none, or a rule that reads any score (2d-dpo:rejected=score).",
                )
