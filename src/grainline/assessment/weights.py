"""The families ``geometry`` and ``forgetting``: what became of the weights, and of what they knew."""

from __future__ import annotations

from typing import Any

from grainline import geometry
from grainline.assessment.work import FORMAT, Findings, Line, Work
from grainline.data import collate
from grainline.evaluation import harness, neutral
from grainline.evaluation.journal import Journal, key_of
from grainline.evaluation.speakers import Speaker
from grainline.progress import track
from grainline.types import Example


def on_geometry(work: Work) -> Findings:
    layers = geometry.carriers(work.bench.engine.scorer.model)
    decides = key_of(format=FORMAT, of=work.bench.key, layers=list(layers))
    journal = Journal(work.folder / "geometry.jsonl", decides, writes=work.writes)
    for name in track([name for name in layers if name not in journal], "changed weights", quiet=work.quiet):
        journal.add([{"id": name, **geometry.compared(*geometry.before_and_after(layers[name]))}])
    lines = journal.ordered(layers)
    figures: dict[str, float | None] = {"geometry/matrices": float(len(lines))}
    for key in geometry.KEYS if lines else ():
        figures[f"geometry/{key}"] = sum(line[key] for line in lines) / len(lines)
    notes = [] if lines else ["this adapter stands for no changed weights that could be compared"]
    return Findings(figures, {"layers": [{"name": line["id"]} | _numbers(line) for line in lines]}, notes)


def _numbers(line: Line) -> dict[str, float]:
    return {key: line[key] for key in geometry.KEYS}


def on_forgetting(work: Work) -> Findings:
    m, voices = work.measures, work.bench.voices
    read = neutral.pieces(voices.tokenizer, m.neutral)
    decides = key_of(format=FORMAT, of=work.bench.key, text=[line["text"] for _, line in read], length=neutral.PIECE)
    journal = Journal(work.folder / "neutral.jsonl", decides, writes=work.writes)
    missing = [(example, line) for example, line in read if line["id"] not in journal]
    for example, line in track(missing, "neutral text", quiet=work.quiet):
        speakers = [s for s in (voices.policy, voices.reference) if s]
        journal.add([line | {s.name: round(_total(work, s, example), 6) for s in speakers}])
    lines = journal.ordered([line["id"] for _, line in read])
    figures, tables = neutral.figures(lines, seed=m.seed), {"tasks": _tasks(work)}
    for line in tables["tasks"]:
        figures[f"forgetting/tasks/{line['task']} {line['metric']}"] = line["after"]
        if line["before"] is not None:
            figures[f"forgetting/tasks/{line['task']} {line['metric']}_before"] = line["before"]
    text = m.neutral or "the packaged text, passages in the public domain that every model has read"
    return Findings(figures, tables, [f"the neutral text is {text}"])


def _total(work: Work, speaker: Speaker, example: Example) -> float:
    """log p(answer | prompt), nats."""
    import torch

    batch = collate.collate([example], rows="chosen", layout=work.bench.voices.layout)  # type: ignore[arg-type]
    with torch.no_grad(), speaker.within():
        return float(speaker.scorer(batch.to(work.bench.voices.device)).token.double().sum())


def _tasks(work: Work) -> list[dict[str, Any]]:
    m, voices = work.measures, work.bench.voices
    if not m.tasks:
        return []
    found = {}
    for speaker in [s for s in (voices.reference, voices.policy) if s]:
        with speaker.plain() as model:
            found[speaker.name] = harness.measure(model, voices.tokenizer, m.tasks, rows=m.task_rows, seed=m.seed)
    before = found.get("reference", {})
    return [
        {
            "task": task,
            "metric": metric,
            "before": before.get(task, {}).get(metric),
            "after": value,
            "stderr": values.get(_error_of(metric)),
        }
        for task, values in found["policy"].items()
        for metric, value in values.items()
        if "_stderr" not in metric
    ]


def _error_of(metric: str) -> str:
    """Where the harness keeps a metric's standard error: before the filter of the answers, if one is named."""
    name, comma, answers = metric.partition(",")
    return f"{name}_stderr{comma}{answers}"
