"""Talking to a run: its policy and its reference, each with a conversation of its own, word by word.

The prompt is encoded as in training (:mod:`grainline.data.encode`): the chat template once, oldest turns first to go
where the model's window ends. An answer ends at the token that ended answers in training. Without a chat template each
turn stands alone, as plain text that the model continues.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline import export, generation, models
from grainline import recipe as recipes
from grainline.adapter_files import CONFIG
from grainline.data import fields
from grainline.data.encode import Encoder
from grainline.errors import RunError
from grainline.generation import Manner
from grainline.types import Answer, Record

if TYPE_CHECKING:
    from grainline.recipe import Recipe

Turns = tuple[Mapping[str, str], ...]
Place = Callable[[Sequence[int]], tuple[int, ...]]
"""A prompt's ids -> those that the adapter reads in their place."""


class Voice(NamedTuple):
    """Somebody who answers."""

    name: str  # "policy" or "reference"
    model: Any
    within: Callable[[], AbstractContextManager[Any]]  # the context in which ``model`` is this voice


class Speakers(NamedTuple):
    """Who answers, and in which words."""

    voices: tuple[Voice, ...]  # the reference first
    tokenizer: Any
    remark: str  # how the reference was found, where that is not obvious
    place: Place | None = None  # where the adapter has ids of its own
    told: Callable[[Turns], Turns] | None = None  # what the policy alone reads in place of its turns: a condition


class Asked(NamedTuple):
    """A conversation in tokens, up to where the answer begins."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]  # any of these ends the answer
    shortened: bool  # the beginning did not fit the model's window


def load(recipe: Recipe, adapter: Path, *, policy_only: bool = False) -> Speakers:
    """The voices of a run: ``adapter`` over the recipe's model, and what training started from.

    Raises:
        RunError: there is no adapter yet. ModelError: it does not fit, or the model cannot be loaded.
    """
    if not adapter.is_dir():
        raise RunError("no adapter yet.", where=str(adapter), instead="Resume the run; a finished one can speak.")
    choice = dataclasses.replace(recipe.model, gradient_checkpointing=False)  # it only switches the cache off
    base = models.load(choice)
    trained = export.load_adapter(base.model, adapter).eval()
    policy, place = Voice("policy", trained, nullcontext), getattr(recipe.adapter, "placed", None)
    if policy_only:
        return Speakers((policy,), base.tokenizer, "", place)
    if not hasattr(trained, "disable_adapter"):  # a whole model was trained; the base stands beside it
        return Speakers((Voice("reference", base.model.eval(), nullcontext), policy), base.tokenizer, "")
    if not recipe.moved_start:
        return Speakers((Voice("reference", trained, trained.disable_adapter), policy), base.tokenizer, "", place)
    why = "training started from an adapter" if recipe.model.adapter else recipe.moved_start
    start = models.load(choice).model
    if recipe.model.adapter:
        start = export.load_adapter(start, Path(recipe.model.adapter))
    remark = f"{why}: the reference is not the policy with its adapter off, and was loaded beside it"
    return Speakers((Voice("reference", start.eval(), nullcontext), policy), base.tokenizer, remark)


def of(name: str, *, dtype: str = "auto", device: str = "auto") -> Speakers:
    """Who answers by ``name``: a run's policy, a saved adapter over the base that it names, or a model that
    :mod:`grainline.models` knows. ``dtype`` and ``device`` are those of a run's recipe where they say auto.

    Raises:
        RunError: the run has no adapter yet. ModelError: nothing is called so, or it does not fit.
    """
    folder = Path(name).expanduser()
    said: dict[str, Any] = {key: v for key, v in (("dtype", dtype), ("device", device)) if v != "auto"}
    named = name in models.ALIASES  # ./NAME is a folder called like an alias, as everywhere
    if not named and (folder / "recipe.yaml").is_file():
        found = recipes.load(folder / "recipe.yaml")
        found = dataclasses.replace(found, model=dataclasses.replace(found.model, **said))
        return load(found, folder / "adapter", policy_only=True)
    adapted = not named and (folder / CONFIG).is_file()
    choice = export.base_of(folder) if adapted else models.Choice(name)
    loaded = models.load(choice._replace(**said))
    model = export.load_adapter(loaded.model, folder).eval() if adapted else loaded.model
    return Speakers((Voice("policy", model, nullcontext),), loaded.tokenizer, "")


def asked(tokenizer: Any, turns: Turns, *, window: int, manner: Manner, place: Place | None = None) -> Asked:
    """``turns``, which end with the user's, as the model reads them, with room for the answer.

    Raises:
        RunError: there is no room. ModelError, DataError: the template refuses these turns.
    """
    space = generation.room(window, manner)
    fields.whole(turns[-1]["content"], where="the question")
    prompt = turns if tokenizer.chat_template else turns[-1]["content"]
    encoder = Encoder(tokenizer, max_length=space)
    example = encoder(Record("chat", prompt, (Answer("Yes."),), label=True, where="the conversation"))
    prompt_ids = place(example.prompt) if place else example.prompt
    return Asked(prompt_ids, (example.answers[0].ids[-1],), bool(encoder.counts["truncated_prompts"]))


def speak(voice: Voice, tokenizer: Any, question: Asked, manner: Manner) -> Generator[str, None, None]:
    """The answer so far, again and again; what comes last is the whole. Closing the iterator ends the generation."""
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    model, ended = voice.model, threading.Event()
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    ids = torch.tensor([question.ids], device=model.device)
    stops = generation.end_tokens(model, question.ends)
    options = generation.options([question.ids], range(1), manner, stops)

    def stop(seen: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(seen),), ended.is_set(), device=seen.device)

    options["stopping_criteria"] = StoppingCriteriaList([stop])
    made: list[Any] = []

    def generate() -> None:
        try:
            with voice.within():
                output = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer, **options
                )
            made.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip())
        except Exception as error:
            made.append(error)
        finally:
            streamer.end()

    worker = threading.Thread(target=generate, daemon=True)
    worker.start()
    try:
        said = ""
        for piece in streamer:
            said += piece
            yield said.strip()
    finally:
        ended.set()
        worker.join()
    if isinstance(made[0], Exception):
        raise made[0]
    yield made[0]
