"""What an evaluation measures, as one frozen value: which families, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pydantic
import yaml
from pydantic import Field

from grainline.data.conditions import Place, Style
from grainline.errors import SpecError, nearest
from grainline.types import spec

Family = Literal["preference", "displacement", "generation", "geometry", "forgetting", "control", "documents", "masks"]
FAMILIES: tuple[Family, ...] = get_args(Family)
USUAL: tuple[Family, ...] = ("preference", "displacement", "masks")
"""What is measured where nothing is said: what the held-out rows tell in one reading."""


@spec
class Measures:
    families: tuple[Family, ...] = ()
    """What to measure; none = preference, displacement and masks, and those that another option asks for."""
    generate: int = Field(0, ge=0)
    """Prompts that are answered, from the first on; 0 = all of ``prompts``, or of the held-out rows where generation is
    among the families; else none."""
    prompts: str = ""
    """A file of prompts to answer instead: AlpacaEval's or MT-Bench's questions as they are, or records."""
    draws: int = Field(1, ge=1)
    """Answers to each prompt; more than one needs a temperature."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens of an answer."""
    temperature: float | None = Field(None, ge=0)
    """0 = the likeliest token each time; null = 0, but of MT-Bench's questions the temperature of their category."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of all that is drawn: answers, resamples, the reward's own draws."""
    embedding: str = ""
    """A sentence-transformers model, by name or folder, whose vectors say how far answers are apart; empty = the base
    model's mean final states."""
    judge: str = ""
    """A method of rewards/ that compares generated answers, and says what level they have."""
    condition: dict[str, float] = Field(default_factory=dict)
    """What conditioned models are told before each prompt: aspect -> level."""
    condition_style: Style = "goal"
    """How a condition is written, as in the data that the model learnt from: goal (relabel) or tokens (control)."""
    condition_place: Place = "system"
    """Where it stands in a chat: in the system's turn, or before what the user says."""
    condition_scale: tuple[float, float] = (1.0, 10.0)
    """Worst and best level."""
    levels: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Levels to request of an aspect, {helpfulness: [1, 3, 5]}: each prompt is answered under each, and the judge says
    what it got."""
    neutral: str = ""
    """A text file whose perplexity says what was forgotten; empty = a packaged one."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, before and after; needs the extra lm-eval."""
    task_rows: int = Field(0, ge=0)
    """Rows of each task; 0 = all."""
    place: str = ""
    """The data's column with the place of the relevant document: accuracy by it."""
    pairs: int = Field(12, ge=0)
    """Pairs whose tokens are kept to be looked at."""

    @property
    def wanted(self) -> tuple[Family, ...]:
        """The families to measure, in their order."""
        asked: dict[Family, object] = {
            "generation": self.generate or self.prompts,
            "forgetting": self.neutral or self.tasks,
            "control": self.levels,
            "documents": self.place,
        }
        named = set(self.families or USUAL) | {family for family, option in asked.items() if option}
        return tuple(family for family in FAMILIES if family in named)


def made(**options: Any) -> Measures:
    """Measures of ``options``.

    Raises:
        SpecError: there is no such option, or its value is none for it.
    """
    try:
        return Measures(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where, given = ".".join(map(str, first["loc"])), first.get("input")
        if first["type"] == "unexpected_keyword_argument":
            known = list(Measures.__dataclass_fields__)
            raise SpecError(f"no option {where!r}.", where="evaluate", instead=nearest(where, known)) from None
        raise SpecError(f"{first['msg']}, not {given!r}.", where=f"evaluate: {where}") from None


def read(words: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` words as options; values are YAML, lists of words may stand bare: ``tasks=arc_easy,piqa``.

    Raises:
        SpecError: a word is none.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise SpecError(
                f"{word!r} sets nothing.", where="evaluate", instead="Write KEY=VALUE, such as generate=32."
            )
        many = key in ("families", "tasks") and not value.startswith("[")
        try:
            found[key] = [v for v in value.split(",") if v] if many else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SpecError(
                f"{value!r} is unreadable.", where=f"evaluate: {key}", instead="Values are YAML."
            ) from error
        if isinstance(found[key], type(None)):
            found[key] = ""
    return found
