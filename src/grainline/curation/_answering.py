"""Who answers many prompts: a model at hand, a run, a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from grainline.curation._seam import Bench
from grainline.errors import DataError
from grainline.types import Answer as Words
from grainline.types import Record

if TYPE_CHECKING:
    from grainline.endpoint import Endpoint

Answers = list[dict[str, Any]]
"""{"text", "model", "finish"} each; finish is "stop", "length" (cut off) or "unasked" (the prompt does not fit)."""
Answer = Callable[[Iterable[Record]], Iterator[Answers]]
"""Prompts -> the answers to each, in order."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ROWS = 32
"""Rows whose answers a model at hand makes together: a job that is killed loses as many at most."""

ENDLESS = 2**30
"""Tokens: no prompt is as long."""


class Voice(Protocol):
    """Fields of a step that asks a model."""

    @property
    def model(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def positions(self) -> int: ...

    @property
    def dtype(self) -> Dtype: ...

    @property
    def device(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    @property
    def api_key_env(self) -> str: ...

    @property
    def at_once(self) -> int: ...

    @property
    def retries(self) -> int: ...

    @property
    def timeout(self) -> float: ...


@contextmanager
def answering(
    voice: Voice, bench: Bench, *, each: int = 1, top_p: float = 1.0, whole: bool = False
) -> Iterator[Answer]:
    """``each`` answers a prompt, fewer where a server does not answer. A model at hand loses the oldest turns of a
    prompt that does not fit its window; with ``whole`` it is not asked then."""
    if not voice.base_url:
        yield _at_hand(voice, bench.seed, each, top_p, whole=whole)
        return
    from grainline import progress
    from grainline.endpoint import Access, Endpoint
    from grainline.ledger import Ledger

    own = ("base_url", "api_key_env", "timeout", "retries", "at_once")
    options = {"temperature": voice.temperature, "top_p": top_p}
    options |= {"max_tokens": voice.max_new_tokens, "seed": bench.seed}
    access = Access(**{key: getattr(voice, key) for key in own})
    with Endpoint(voice.model, access, Ledger(bench.folder / "replies.jsonl"), options) as endpoint:
        yield lambda records: _by_server(voice, endpoint, records, each)
        progress.say(f"{voice.model}: {endpoint.tally}", quiet=bench.quiet)


def _at_hand(voice: Voice, seed: int, each: int, top_p: float, *, whole: bool) -> Answer:
    """Answers of a model that is loaded here, :data:`ROWS` prompts at a time."""
    from grainline import conversation, generation
    from grainline.data.encode import Encoder

    speakers = conversation.of(voice.model, dtype=voice.dtype, device=voice.device)
    model, tokenizer = speakers.voices[0].model, speakers.tokenizer
    manner = generation.Manner(voice.max_new_tokens, voice.temperature, seed, top_p)
    room = generation.room(generation.window(model), manner)
    encoder = Encoder(tokenizer, max_length=ENDLESS if whole else room)

    def made(said: generation.Said) -> dict[str, Any]:
        text = tokenizer.decode(list(said.ids), skip_special_tokens=True).strip()
        return _made(voice, text, "stop" if said.ended else "length")

    def answer(records: Iterable[Record]) -> Iterator[Answers]:
        asked = (record._replace(answers=(Words("Yes."),), label=True) for record in records)  # of it the end counts
        while window := list(islice(asked, ROWS)):
            examples, problems = encoder.encode_all(window)
            if problems:
                raise problems[0]
            prompts = [tuple(speakers.place(one.prompt) if speakers.place else one.prompt) for one in examples]
            distinct = list(dict.fromkeys(one for one in prompts if len(one) <= room))  # one prompt, the same answers
            ends = sorted({one.answers[0].ids[-1] for one in examples})
            found = generation.generate(model, distinct, manner, each=each, ends=ends, at_once=voice.positions)
            known = dict(zip(distinct, found, strict=True))
            unasked = [_made(voice, "", "unasked")] * each
            yield from ([made(said) for said in known[one]] if one in known else unasked for one in prompts)

    return answer


def _by_server(voice: Voice, endpoint: Endpoint, records: Iterable[Record], each: int) -> Iterator[Answers]:
    """Answers of a server, one a request, in order; a request that fails leaves one out."""
    from grainline.endpoint import Unanswered

    def ask(item: tuple[Record, int]) -> Answers:
        record, number = item
        try:
            reply = endpoint.ask(_messages(record), draw=number)
        except Unanswered:
            return []
        return [_made(voice, reply.text.strip(), "length" if reply.cut else "stop")]

    heard = endpoint.in_order(ask, ((record, number) for record in records for number in range(each)))
    while first := list(islice(heard, each)):
        yield [answer for few in first for answer in few]


def _messages(record: Record) -> list[Mapping[str, Any]]:
    """The conversation as a server is asked it: a plain text is what the user says."""
    if record.tools or record.template:
        raise DataError(
            "tools and chat_template_kwargs do not go to a server.", where=record.id, instead="Remove the columns."
        )
    return [{"role": "user", "content": record.prompt}] if isinstance(record.prompt, str) else list(record.prompt)


def _made(voice: Voice, text: str, finish: str) -> dict[str, Any]:
    return {"text": text, "model": voice.model, "finish": finish}
