"""A model behind an OpenAI-compatible address: asked many times at once, patiently, and never paid twice.

Each request has one answer for ever: it is kept in a :class:`grainline.ledger.Ledger` under a key made of everything
that decides it (address, model, messages, temperature, seed...), before anybody reads it.

===========================  =========================================================================================
408, 409, 429, 5xx,          asked again, after a pause that doubles and is drawn between its half and its whole;
time-outs, closed            never earlier than the server's Retry-After. After a 429 all other requests pause too
connections, no completion
401, 403, 404                the job ends: nobody would be answered
other 4xx, or still nothing  :class:`Unanswered`, this request's own misfortune. After ``SILENCE`` of them in a row the
after all retries            job ends
===========================  =========================================================================================

The key comes from an environment variable when the endpoint is opened, goes into the client, and is struck out of all
that a server says before it is kept, printed or raised.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from grainline.errors import ModelError, SpecError, TrainingError
from grainline.ledger import Ledger, address

Message = Mapping[str, str]
Item = TypeVar("Item")
Made = TypeVar("Made")

OPENAI = "https://api.openai.com/v1"
SILENCE = 10
"""Requests in a row without an answer, each after all its retries, that end a job."""
LONGEST_PAUSE = 120.0
"""Seconds. A server that asks for more is taken not to answer."""
AGAIN = frozenset({408, 409, 429})


class Access(NamedTuple):
    """How an endpoint is reached."""

    base_url: str = ""  # "": $OPENAI_BASE_URL, else OpenAI's own
    api_key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    timeout: float = 120.0  # seconds for one reply
    retries: int = 5  # further tries of one request
    wait: float = 1.0  # seconds before the first of them
    at_once: int = 8  # requests under way
    price_in: float | None = None  # US dollars per million prompt tokens
    price_out: float | None = None  # the same of the reply's tokens
    budget: float | None = None  # US dollars at which the job stops; requests under way are still paid


class Reply(NamedTuple):
    """What the model said."""

    text: str
    prompt_tokens: int | None = None  # None: the server did not count
    completion_tokens: int | None = None
    cut: bool = False  # it ended because it had become too long


class Unanswered(Exception):
    """This request has no reply; others may have."""


@dataclass
class Tally:
    """What a job has asked and paid so far."""

    requests: int = 0  # answered over the network
    kept: int = 0  # answered from the ledger
    retries: int = 0
    unanswered: int = 0
    uncounted: int = 0  # replies whose server did not count tokens
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price: tuple[float | None, float | None] = (None, None)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def cost(self) -> float | None:
        """US dollars for the tokens of this job, as far as the server counted them; None without prices."""
        if self.price[0] is None or self.price[1] is None:
            return None
        return (self.prompt_tokens * self.price[0] + self.completion_tokens * self.price[1]) / 1e6

    def __str__(self) -> str:
        parts = [f"{self.requests} requests", f"{self.kept} answered from the cache"]
        parts += [f"{self.retries} retries"] if self.retries else []
        parts += [f"{self.unanswered} without an answer"] if self.unanswered else []
        parts += [f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"]
        parts += [f"{self.uncounted} replies without a token count"] if self.uncounted else []
        return ", ".join(parts + ([f"{self.cost:.4f} USD"] if self.cost is not None else []))


class Endpoint:
    """An open line to ``model``. Close it, or use it in a ``with``.

    ``options`` go into the body of each request as they are; one that is None is left out.

    Raises:
        SpecError: no model is named, the address is none or holds a password, or openai is not installed.
        ModelError: OpenAI's own address without a key.
    """

    def __init__(self, model: str, access: Access, ledger: Ledger, options: Mapping[str, Any] | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise SpecError(
                f"an endpoint needs the package openai: {error}.", instead="pip install 'grainline[judge]'."
            ) from error
        if not model:
            raise SpecError("no model is named.", where="model", instead="Write model=NAME, as the endpoint calls it.")
        self.model, self.access, self.ledger = model, access, ledger
        self.options = dict(options or {})
        self.url = _address(access.base_url)
        self._key = _key(access.api_key_env, self.url)
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=self.url, timeout=access.timeout, max_retries=0
        )
        self.tally = Tally(price=(access.price_in, access.price_out))
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._why: Exception | None = None  # what ended the job
        self._under_way: dict[str, threading.Lock] = {}
        self._silence, self._not_before = 0, 0.0
        self._luck = random.Random()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.close()

    def ask(self, messages: Sequence[Message], *, draw: int = 0, about: str = "") -> Reply:
        """One reply. ``draw`` numbers repeated questions (it is added to the option ``seed``); ``about`` is whatever
        else the reply must not be kept without.

        Raises:
            Unanswered: no reply to this one.
            ModelError: the endpoint refuses the key, or has no such model or address.
            TrainingError: it has become silent, or the budget is spent. What was answered is kept.
        """
        body = {"model": self.model, "messages": [dict(message) for message in messages], **self.options}
        if isinstance(body.get("seed"), int):
            body["seed"] += draw
        body = {name: value for name, value in body.items() if value is not None}
        key = address("chat", self.url, body, draw, about)
        with self._lock:
            one_at_a_time = self._under_way.setdefault(key, threading.Lock())
        with one_at_a_time:  # whoever asks the same meanwhile finds the answer kept
            if (kept := self.ledger.get(key)) is not None:
                self.tally.count(kept=1)
                return Reply(*(kept[name] for name in Reply._fields))
            reply = self._patiently(body)
            self.ledger.add(key, {"model": self.model, **reply._asdict()})
        with self._lock:
            self._under_way.pop(key, None)
        return reply

    def in_order(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """``function`` of each item, up to ``at_once`` at the same time, reading twice as far ahead.

        While requests go unanswered what was made is held back: it is given when the next one is answered, and not at
        all where the job ends of silence. So nobody writes down as judged by nobody what the next job would ask again.
        """
        pending: deque[Future[Made]] = deque()
        held: list[Made] = []
        with ThreadPoolExecutor(self.access.at_once) as pool:
            try:
                for item in items:
                    pending.append(pool.submit(function, item))
                    if len(pending) >= 2 * self.access.at_once:
                        held.append(pending.popleft().result())
                        if not self._silence:
                            yield from held
                            held.clear()
                held += [future.result() for future in pending]
                yield from held
            except KeyboardInterrupt:  # nobody should wait for pauses to pass
                self._stop.set()
                raise
            finally:
                for future in pending:
                    future.cancel()

    # ------------------------------------------------------------------------------------------------ one request

    def _patiently(self, body: Mapping[str, Any]) -> Reply:
        for tried in range(self.access.retries + 1):
            self._pause(self._not_before - time.monotonic())
            self._stay_in_budget()
            reply, why, least = self._once(body)
            if reply is not None:
                self._silence = 0
                self.tally.count(
                    requests=1,
                    uncounted=reply.prompt_tokens is None or reply.completion_tokens is None,
                    prompt_tokens=reply.prompt_tokens or 0,
                    completion_tokens=reply.completion_tokens or 0,
                )
                return reply
            if least is None or least > LONGEST_PAUSE or tried == self.access.retries:
                break
            self.tally.count(retries=1)
            pause = min(self.access.wait * 2**tried, LONGEST_PAUSE) * self._luck.uniform(0.5, 1.0)
            self._pause(max(pause, least))
        raise self._given_up(why)

    def _once(self, body: Mapping[str, Any]) -> tuple[Reply | None, str, float | None]:
        """A reply; or None, why, and the least pause before it is worth asking again (None: it is not)."""
        import openai

        create = self._client.chat.completions.with_raw_response.create
        further = {name: value for name, value in body.items() if name not in ("model", "messages")}
        try:
            raw = create(model=body["model"], messages=body["messages"], extra_body=further)
            return self._read(raw.content), "", None
        except openai.APIStatusError as error:
            why = f"{error.status_code}: {self._said(_complaint(error.response.text))}"
            if error.status_code in (401, 403, 404):
                raise self._ended(
                    ModelError(
                        why,
                        where=f"{self.model} at {self.url}",
                        instead=f"Look at ${self.access.api_key_env}, model, base_url.",
                    )
                ) from None
            if error.status_code not in AGAIN and error.status_code < 500:
                return None, why, None
            least = _retry_after(error.response.headers)
            if error.status_code == 429:
                self._not_before = time.monotonic() + min(max(least, self.access.wait / 2), LONGEST_PAUSE)
            return None, why, least
        except openai.APITimeoutError:
            return None, f"no reply within {self.access.timeout:g} s", 0.0
        except openai.APIConnectionError as error:
            return None, self._said(f"{error} {error.__cause__ or ''}"), 0.0
        except ValidationError as error:  # a proxy's page, or half a body
            return None, f"no chat completion: {error.errors()[0]['msg']}", 0.0

    def _read(self, content: bytes) -> Reply:
        read = _Completion.model_validate_json(content)
        choice, usage = read.choices[0], read.usage or _Usage()
        text = self._hide(choice.message.content or "")
        return Reply(text, usage.prompt_tokens, usage.completion_tokens, choice.finish_reason == "length")

    def _given_up(self, why: str) -> Exception:
        self.tally.count(unanswered=1)
        with self._lock:
            self._silence += 1
            if self._silence < SILENCE:
                return Unanswered(why)
        return self._ended(
            TrainingError(
                f"{SILENCE} requests in a row were not answered, the last with {why}",
                where=f"{self.model} at {self.url}",
                instead="What was answered is kept: start again when the endpoint is well.",
            )
        )

    def _ended(self, why: Exception) -> Exception:
        """End the job. Requests that wait end for the same reason: they are not unanswered, the next job asks."""
        self._why = self._why or why
        self._stop.set()
        return why

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise self._why or Unanswered("the job has ended")

    def _stay_in_budget(self) -> None:
        cost, budget = self.tally.cost, self.access.budget
        if budget is not None and cost is not None and cost >= budget:
            why = f"the budget of {budget:g} USD is spent"
            raise self._ended(TrainingError(why, where=self.model, instead="What was answered is kept."))

    # ------------------------------------------------------------------------------------------------ the key

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text

    def _said(self, message: str) -> str:
        return " ".join(self._hide(message).split())[:300]


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What we read of a reply's body: some servers leave out what OpenAI's own types demand."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _address(base_url: str) -> str:
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    if urlsplit(url).scheme not in ("http", "https"):
        raise SpecError(f"{url} is no address.", where="base_url", instead="Begin it with http:// or https://.")
    if urlsplit(url).password is not None:
        raise SpecError(
            "a password stands in it, and it would be written into recipes and logs.",
            where="base_url",
            instead="Give the key in an environment variable: api_key_env=NAME.",
        )
    return url.rstrip("/")


def _key(name: str, url: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key and url == OPENAI:
        raise ModelError(f"${name} is not set.", where=url, instead="Export the key, or name a base_url of your own.")
    return key


def _complaint(body: str) -> str:
    """What a server says in an error's body: OpenAI's form, FastAPI's, or any text."""
    try:
        said = json.loads(body)
        said = said.get("error", said)
        return str(said.get("message") or said["detail"])
    except (ValueError, AttributeError, KeyError):
        return body


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks us to wait, 0 where it asks nothing: a number or a date, RFC 9110 10.2.3."""
    said = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
