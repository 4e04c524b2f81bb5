"""Who answers many prompts: a model at hand, a run, a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from grainline.curation._seam import Bench
from grainline.errors import DataError
from grainline.types import Answer as Words
from grainline.types import Record, spec

if TYPE_CHECKING:
    from grainline.endpoint import Endpoint

Answers = list[dict[str, Any]]
"""{"text", "model", "finish"} each; finish is "stop", "length" (cut off) or "unasked" (the prompt does not fit)."""
Answer = Callable[[Iterable[Record]], Iterator[Answers]]
"""Prompts -> the answers to each, in order."""
ROWS = 32
"""Rows whose answers a model at hand makes together: a job that is killed loses as many at most."""

ENDLESS = 2**30
"""Tokens: no prompt is as long."""


@spec
class Voice:
    """Options of a step that asks a model; ``temperature`` and ``max_new_tokens`` are each step's own."""

    # Described this way, since pydantic hands the text under a field on to no subclass.
    model: str = Field(
        "smollm2-135m-instruct",
        description="Who is asked: a model, an adapter's folder, a run's folder; with base_url the name that the "
        "server knows.",
        min_length=1,
    )
    temperature: float
    max_new_tokens: int
    positions: int = Field(
        8192,
        description="Of a model at hand: positions, prompts and answers together, held at once; sets memory and speed "
        "alone.",
        ge=1,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of a model at hand: what its weights are held in; auto = as in training."
    )
    device: str = Field("auto", description="Of a model at hand: auto, cpu, cuda, cuda:1, mps.")
    base_url: str = Field("", description="A server's address, up to and with /v1; empty = a model at hand.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="The environment variable that holds the server's key. The key itself is written nowhere.",
    )
    at_once: int = Field(8, description="Requests to a server that are under way at the same time.", ge=1)
    retries: int = Field(5, description="Further tries of a request that failed for a reason that passes.", ge=0)
    timeout: float = Field(600.0, description="Seconds that one reply of a server may take.", gt=0)


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
