"""Families that follow from the held-out rows, read once: preference, displacement, masks, documents."""

from __future__ import annotations

from grainline.assessment.work import Findings, Work
from grainline.errors import RunError
from grainline.evaluation import displacement, documents, masks, preference, token_table


def on_preference(work: Work) -> Findings:
    rows, seed = work.rows(), work.measures.seed
    figures = preference.figures(rows, seed=seed)
    if work.other is not None:
        figures |= preference.against_run(rows, work.other.rows, seed=seed)
    few = [(row, e) for row, e in zip(rows, work.examples, strict=True) if "chosen" in row][: work.measures.pairs]
    beta = getattr(work.bench.of.recipe.objective, "beta", None) or 1.0
    lines = token_table.lines([r for r, _ in few], [e for _, e in few], work.bench.voices.tokenizer, beta=beta)
    work.write("tokens.jsonl", lines)
    return Findings(figures, preference.tables(rows, seed=seed))


def on_displacement(work: Work) -> Findings:
    rows = work.rows()
    tables = {"positions": displacement.positions(rows), "margin_shares": displacement.margin_shares(rows)}
    return Findings(displacement.figures(rows, seed=work.measures.seed), tables)


def on_masks(work: Work) -> Findings:
    rows = work.rows()
    return Findings(masks.figures(rows), {"positions": masks.positions(rows)})


def on_documents(work: Work) -> Findings:
    column, lines = work.measures.place, []
    for row, example in zip(work.rows(), work.examples, strict=True):
        place = row.get("numbers", {}).get(column)
        right = row.get("rewards/accuracies", row.get("likelihood/accuracies"))
        if place is not None and right is not None:
            asked = documents.question([answer.text for answer in example.record.answers])
            lines.append({"id": row["id"], "group": row["group"], "place": place, "question": asked, "right": right})
    if not lines:
        there = sorted({name for example in work.examples for name, _ in example.record.numbers})
        raise RunError(
            f"no pair has a number in the column {column!r}.",
            where="place",
            instead=f"There are {', '.join(there)}." if there else "Add it to the rows.",
        )
    work.write("documents.jsonl", lines)
    seed = work.measures.seed
    return Findings(documents.figures(lines, seed=seed), {"places": documents.table(lines, seed=seed)})
