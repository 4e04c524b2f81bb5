"""The family ``generation``: answers of policy and reference, or of another run, and what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline import atomic
from grainline.assessment.judged import judged
from grainline.assessment.work import FORMAT, Findings, Line, Work
from grainline.data.conditions import Condition, conditioned
from grainline.evaluation import answers, diversity, drift, duels, prompt_files
from grainline.evaluation.journal import Journal, key_of
from grainline.evaluation.measures import Measures
from grainline.evaluation.prompt_files import Prompts, Question
from grainline.evaluation.speakers import Speaker
from grainline.evaluation.vectors import Sentences, sentences, vectors
from grainline.generation import Manner
from grainline.progress import track

DIVERSITY = ("distinct_1", "distinct_2", "distinct_3", "self_bleu", "repetition", "embedding")


def on_generation(work: Work) -> Findings:
    voices, prompts = work.bench.voices, questions_of(work)
    spoken: dict[str, dict[str, Line]] = {"policy": answers_of(work, voices.policy, prompts.questions)}
    if voices.reference is not None:
        spoken["reference"] = answers_of(work, voices.reference, prompts.questions)
    if work.other is not None:
        spoken["against"] = dict(work.other.answers)
    for who, said in spoken.items():
        _write_native(work, prompts, who, said)
    lines = _samples(work, spoken)
    figures: dict[str, float | None] = {"generation/prompts": float(len(prompts.questions))}
    tables: dict[str, list[Line]] = {"lengths": [], "diversity": []}
    embed = sentences(work.measures.embedding, voices.device) if work.measures.embedding else None
    for who, said in spoken.items():
        own = _varied(work, list(said.values()), embed)
        figures |= {f"generation/{who}/{name}": value for name, value in own.items()}
        tables["diversity"].append({"who": who} | {k: own[k] for k in DIVERSITY})
        tables["lengths"].append({"who": who} | _lengths(list(said.values())))
    for name in ("kl", "k1", "k3"):
        values = [line[name] for line in spoken["policy"].values() if line.get(name) is not None]
        if values:
            figures[f"generation/{name}"] = sum(values) / len(values)
    decided = [line for line in lines if "win" in line]
    if decided:
        figures |= duels.figures(decided, seed=work.measures.seed)
    figures |= _mean_scores(lines)
    return Findings(figures, tables, _generation_notes(work, spoken, embed))


def questions_of(work: Work) -> Prompts:
    """What is answered: a file's questions, or the first of the held-out prompts."""
    if work.measures.prompts:
        return prompt_files.read(work.measures.prompts, limit=work.measures.generate)
    distinct = list({example.prompt: example.record for example in work.examples}.values())
    return Prompts("records", [Question(r.id, r.prompt) for r in distinct[: work.measures.generate or None]])


def answers_of(
    work: Work, speaker: Speaker, questions: Sequence[Question], level: tuple[str, float] | None = None
) -> dict[str, Line]:
    """Every answer of a speaker, given now or earlier, with how far the policy's are from the reference."""
    m, voices = work.measures, work.bench.voices
    manner = Manner(m.max_new_tokens, m.temperature or 0.0, m.seed, top_p=0.95)
    own = {q.id: q.temperature for q in questions if m.temperature is None and q.temperature is not None}
    who = "against" if work.as_other else speaker.name
    # The reference was never told of a condition: its answers are to the bare prompts.
    said = _condition(m, level) if speaker.name == "policy" else None
    label = f"{who}-{level[0]}-{level[1]:g}" if level else who
    decides = key_of(
        format=FORMAT, of=work.bench.key, who=speaker.name, manner=manner, condition=said and said.said(),
        questions=[(q.id, q.prompt, q.further, *([own[q.id]] if q.id in own else [])) for q in questions],
    )  # fmt: skip
    journal = Journal(work.folder / f"answers-{_safe(label)}.jsonl", decides, writes=work.writes)
    wanted = [(draw, q) for draw in range(m.draws) for q in questions]
    missing = [(d, q) for d, q in wanted if answers.name(q.id, len(q.further) + 1, d) not in journal]
    parts = [missing[i : i + answers.PROMPTS] for i in range(0, len(missing), answers.PROMPTS)]
    for part in track(parts, f"answers of {label}", quiet=work.quiet):
        for draw, heat in sorted({(d, own.get(q.id, manner.temperature)) for d, q in part}):
            some = [q for d, q in part if (d, own.get(q.id, manner.temperature)) == (draw, heat)]
            told = (lambda prompt: conditioned(prompt, said)) if said else (lambda prompt: prompt)
            made = answers.answer(speaker, voices, some, manner._replace(temperature=heat), draw=draw, asked=told)
            made = [line | ({"temperature": heat} if own else {}) for line in made]
            if speaker.name == "policy" and voices.reference is not None and said is None:
                far = drift.measure(voices, made, max_tokens=work.max_tokens)
                made = [line | apart for line, apart in zip(made, far, strict=True)]
            journal.add(made)
    names = [
        answers.name(q.id, turn, draw)
        for draw in range(m.draws)
        for q in questions
        for turn in range(1, len(q.further) + 2)
    ]
    return {line["id"]: line for line in journal.ordered(names)}


def _condition(m: Measures, level: tuple[str, float] | None) -> Condition | None:
    levels = {**m.condition, **({level[0]: level[1]} if level else {})}
    return Condition(levels, m.condition_style, m.condition_place, m.condition_scale) if levels else None


def _samples(work: Work, spoken: Mapping[str, Mapping[str, Line]]) -> list[dict[str, Any]]:
    """samples.jsonl: the policy's answers beside the other side's, judged where there is a judge."""
    rival = next((who for who in ("against", "reference") if who in spoken), None)
    lines = []
    for name, own in spoken["policy"].items():
        line = {"id": name, "draw": own["draw"], "group": own["group"], "prompt": own["prompt"]}
        for who in ("policy", "reference", "against"):
            if who in spoken:
                said = spoken[who][name]
                line |= {who: said["text"], f"{who}_tokens": said["tokens"], f"{who}_ended": said["ended"]}
        line |= {key: own[key] for key in ("temperature", "kl", "k1", "k3") if key in own}
        if rival:
            line["longer"] = len(line["policy"]) - len(line[rival])
        lines.append(line)
    if work.measures.judge:
        lines = [line | said for line, said in zip(lines, judged(work, lines, rival), strict=True)]
    work.write("samples.jsonl", lines)
    return lines


def _mean_scores(lines: Sequence[Line]) -> dict[str, float | None]:
    names = [name for name in (lines[0] if lines else ()) if name.startswith("score_")]
    found: dict[str, float | None] = {}
    for name in names:
        values = [line[name] for line in lines if line[name] is not None]
        found[f"generation/score/{name.removeprefix('score_')}"] = sum(values) / len(values) if values else None
    return found


def _varied(work: Work, lines: Sequence[Line], embed: Sentences | None) -> dict[str, float | None]:
    """Length and diversity of one speaker's answers; vectors are the base's or the sentence model's, whoever speaks."""
    texts = [line["text"] for line in lines]
    voices, spoken = work.bench.voices, [text for text in texts if text.strip()]
    if embed is not None:
        seen = embed(spoken)
    else:
        ids = [_reread(voices.tokenizer, text) for text in spoken]
        seen = vectors(voices.reference or voices.policy, voices, ids, max_tokens=work.max_tokens)
    return {
        "tokens": sum(line["tokens"] for line in lines) / len(lines),
        "ended": sum(line["ended"] for line in lines) / len(lines),
        **{f"distinct_{n}": diversity.distinct(texts, n) for n in (1, 2, 3)},
        "self_bleu": diversity.self_bleu(texts),
        "repetition": diversity.repetition(texts),
        "embedding": diversity.spread(seen),
    }


def _reread(tokenizer: Any, text: str) -> list[int]:
    """A text in tokens, alone: of another run's answer too, whatever its tokenizer."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _lengths(lines: Sequence[Line]) -> dict[str, Any]:
    tokens = sorted(line["tokens"] for line in lines)
    return {
        "mean": sum(tokens) / len(tokens),
        "median": _quantile(tokens, 0.5),
        "low": _quantile(tokens, 0.1),
        "high": _quantile(tokens, 0.9),
        "ended": sum(line["ended"] for line in lines) / len(lines),
    }


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Between the two nearest, as numpy's."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _generation_notes(work: Work, spoken: Mapping[str, Mapping[str, Line]], embed: Sentences | None) -> list[str]:
    notes = []
    if embed is not None:
        notes.append(f"embeddings are those of {work.measures.embedding}, whose weights have the sha256 {embed.sha256}")
    cut = [who for who, said in spoken.items() if sum(not line["ended"] for line in said.values()) > len(said) / 2]
    if cut:
        notes.append(
            f"more than half of the answers of {' and '.join(cut)} were cut at {work.measures.max_new_tokens} tokens"
        )
    if work.measures.condition:
        notes.append("the policy was told the condition, whom it is compared with was not")
    return notes


def _write_native(work: Work, prompts: Prompts, who: str, said: Mapping[str, Line]) -> None:
    """The benchmark's own file of answers (its first draw)."""
    first = {name: line["text"] for name, line in said.items() if not line["draw"]}
    called = work.other.told["name"] if who == "against" and work.other else f"{work.bench.of.name}-{who}"
    name, text = prompt_files.answers(prompts.kind, prompts.questions, first, called)
    if name and work.writes:
        stem, _, ending = name.partition(".")
        atomic.text(work.folder / f"{stem}-{who}.{ending}", text)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
