"""Several answers to each prompt, by a model of one's own or behind a server: the column ``answers``, still unscored.

``model`` is a name as everywhere (alias, folder, hub id), a saved adapter, or the folder of a run, whose policy then
answers: on-policy data. With ``base_url`` it is what an OpenAI-compatible server, such as vLLM, calls its model.

An answer is ``{"text", "model", "finish"}``; ``finish`` is "stop", or "length" where it was cut off. Those that say
nothing are left out; a row without any is dropped. Answers that a row has already stay before the new ones.

A model at hand reads each prompt once for all of its answers, many prompts together (:mod:`grainline.generation`). An
answer is drawn with luck made of the seed, its prompt and its number, so it is the same in any company and after any
interruption. A server is asked for one answer a request (seed and number in it; whether it heeds them is its own
affair), and each reply is kept, so nothing is asked or paid twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.curation._seam import Bench, Dropped, Row, Step, signed
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.endpoint import Endpoint
    from grainline.generation import Said
    from grainline.types import Record

Answers = list[dict[str, Any]]
ROWS = 32
"""Rows whose answers a model at hand makes together: a job that is killed loses as many at most."""


@spec
class Generate:
    whole: ClassVar[bool] = False

    model: str = Field("smollm2-135m-instruct", min_length=1)
    """Who answers: a model, an adapter's folder, a run's folder; with base_url the name that the server knows."""
    each: int = Field(4, ge=1)
    """Answers a prompt."""
    temperature: float = Field(0.8, ge=0)
    """Of the drawing; 0 = the likeliest token each time (DNPO's, with each=1)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens of an answer at most."""
    own: bool = False
    """The row's own answers (chosen and rejected, completion...) stand before the new ones, with the model "data"."""
    positions: int = Field(8192, ge=1)
    """Of a model at hand: positions, prompts and answers together, held at once; sets memory and speed alone."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of a model at hand: what its weights are held in; auto = as in training."""
    device: str = "auto"
    """Of a model at hand: auto, cpu, cuda, cuda:1, mps."""
    base_url: str = ""
    """A server's address, up to and with /v1; empty = a model at hand."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key. The key itself is written nowhere."""
    at_once: int = Field(8, ge=1)
    """Requests to a server that are under way at the same time."""
    retries: int = Field(5, ge=0)
    """Further tries of a request that failed for a reason that passes."""
    timeout: float = Field(600.0, gt=0)
    """Seconds that one reply of a server may take."""

    @model_validator(mode="after")
    def _several_are_drawn(self) -> Generate:
        if self.each > 1 and self.temperature == 0:
            raise ValueError("each > 1 at temperature 0 is one answer several times")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"endpoint" if self.base_url else "model"})

    @property
    def reads(self) -> tuple[str, ...]:
        from grainline.curation._asking import weights

        return () if self.base_url else weights(self.model)

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        if not self.base_url:
            yield _Making(self, _at_hand(self, bench.seed))
            return
        from grainline import progress
        from grainline.endpoint import Access, Endpoint
        from grainline.ledger import Ledger

        own = ("base_url", "api_key_env", "timeout", "retries", "at_once")
        options = {key: getattr(self, key) for key in ("temperature", "top_p")}
        options |= {"max_tokens": self.max_new_tokens, "seed": bench.seed}
        access = Access(**{key: getattr(self, key) for key in own})
        with Endpoint(self.model, access, Ledger(bench.folder / "replies.jsonl"), options) as endpoint:
            yield _Making(self, lambda records: _by_server(self, endpoint, records))
            progress.say(f"{self.model}: {endpoint.tally}", quiet=bench.quiet)


class _Making:
    """The step, opened; ``answer`` gives the new answers to each record, in order."""

    def __init__(self, spec: Generate, answer: Any) -> None:
        self.spec, self.answer = spec, answer

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        from grainline.curation._asking import question

        waiting: deque[tuple[Row, Record]] = deque()

        def records() -> Iterator[Record]:
            for row in rows:
                waiting.append((row, question(row)))
                yield waiting[-1][1]

        for new in self.answer(records()):
            yield self._row(*waiting.popleft(), new)

    def _row(self, row: Row, record: Record, new: Answers) -> Sequence[Row]:
        from grainline.curation._asking import is_answered
        from grainline.curation._parts import answers

        said = [answer for answer in new if answer["text"].strip()]
        if not said:
            return Dropped("no answer says anything")
        before = answers(row) if row.get("answers") else []
        if self.spec.own and is_answered(row):
            before += [{"text": one.text, "model": "data"} for one in record.answers]
        prompt = row.get("prompt") if row.get("prompt") is not None else record.prompt
        made = {**row, "prompt": prompt, "answers": [*before, *said]}
        cut = sum(answer["finish"] == "length" for answer in said)
        again = len(said) - len({answer["text"] for answer in said})
        facts = {"made": len(said), "again": again, "cut": cut, "missing": self.spec.each - len(said)}
        return [signed(made, written(self.spec), **facts)]

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How many answers were made, say the same as another to their prompt, were cut off at their longest, and are
        missing: they said nothing, or the server did not answer."""
        total: Counter[str] = Counter()
        for row in rows:
            total.update({key: row["curation"][-1][key] for key in ("made", "again", "cut", "missing")})
        return dict(total)


def _at_hand(spec: Generate, seed: int) -> Any:
    """Answers of a model that is loaded here, :data:`ROWS` prompts at a time."""
    from grainline import conversation, generation
    from grainline.data.encode import Encoder
    from grainline.types import Answer

    speakers = conversation.of(spec.model, dtype=spec.dtype, device=spec.device)
    model, tokenizer = speakers.voices[0].model, speakers.tokenizer
    manner = generation.Manner(spec.max_new_tokens, spec.temperature, seed, spec.top_p)
    encoder = Encoder(tokenizer, max_length=conversation.room(conversation.window(model), manner))

    def answer(records: Iterable[Record]) -> Iterator[Answers]:
        asked = (
            record._replace(answers=(Answer("Yes."),), label=True) for record in records
        )  # of which only the end counts
        while window := list(islice(asked, ROWS)):
            examples, problems = encoder.encode_all(window)
            if problems:
                raise problems[0]
            prompts = [tuple(speakers.place(one.prompt) if speakers.place else one.prompt) for one in examples]
            distinct = list(dict.fromkeys(prompts))  # rows of one prompt would get the same answers
            ends = sorted({one.answers[0].ids[-1] for one in examples})
            made = generation.generate(model, distinct, manner, each=spec.each, ends=ends, at_once=spec.positions)
            known = dict(zip(distinct, made, strict=True))
            yield from ([_said(spec, tokenizer, one) for one in known[prompt]] for prompt in prompts)

    return answer


def _said(spec: Generate, tokenizer: Any, said: Said) -> dict[str, Any]:
    text = tokenizer.decode(list(said.ids), skip_special_tokens=True).strip()
    return _made(spec, text, "stop" if said.ended else "length")


def _by_server(spec: Generate, endpoint: Endpoint, records: Iterable[Record]) -> Iterator[Answers]:
    """Answers of a server, one a request, in order; a request that fails leaves one out."""
    from grainline.endpoint import Unanswered

    def ask(item: tuple[Record, int]) -> Answers:
        record, number = item
        try:
            reply = endpoint.ask(_messages(record), draw=number)
        except Unanswered:
            return []
        return [_made(spec, reply.text.strip(), "length" if reply.cut else "stop")]

    heard = endpoint.in_order(ask, ((record, number) for record in records for number in range(spec.each)))
    while first := list(islice(heard, spec.each)):
        yield [answer for few in first for answer in few]


def _messages(record: Record) -> list[Mapping[str, Any]]:
    """The conversation as a server is asked it: a plain text is what the user says."""
    if record.tools or record.template:
        raise DataError(
            "tools and chat_template_kwargs do not go to a server.", where=record.id, instead="Remove the columns."
        )
    return [{"role": "user", "content": record.prompt}] if isinstance(record.prompt, str) else list(record.prompt)


def _made(spec: Generate, text: str, finish: str) -> dict[str, Any]:
    return {"text": text, "model": spec.model, "finish": finish}
