"""What an evaluation measures, as one frozen value: which families, and how."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

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
    """Prompts of the held-out rows that are answered, from the first on; 0 = none, or all of ``prompts``."""
    prompts: str = ""
    """A file of prompts to answer instead: AlpacaEval's or MT-Bench's questions as they are, or records."""
    draws: int = Field(1, ge=1)
    """Answers to each prompt; more than one needs a temperature."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens of an answer."""
    temperature: float = Field(0.0, ge=0)
    """0 = the likeliest token each time."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of all that is drawn: answers, resamples, the reward's own draws."""
    judge: str = ""
    """A method of rewards/ that compares generated answers, and says what level they have."""
    condition: str = ""
    """What conditioned models are told before a prompt, for all generated answers."""
    levels: str = ""
    """Requested levels, ASPECT=1,3,5: each prompt is answered under each, and the judge says what it got."""
    condition_form: str = ""
    """How a requested level is written: text with {aspect} and {level}; empty = as the step relabel writes it."""
    neutral: str = ""
    """A text file whose perplexity says what was forgotten; empty = a packaged one."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, before and after; needs the extra lm-eval."""
    task_rows: int = Field(0, ge=0)
    """Rows of each task; 0 = all."""
    marker: str = ""
    """Text that stands before each document of a prompt: accuracy by the place of the relevant one."""
    relevant: str = "relevant"
    """The data's column with the number of the relevant document, from 0."""
    pairs: int = Field(12, ge=0)
    """Pairs whose tokens are kept to be looked at."""

    @property
    def wanted(self) -> tuple[Family, ...]:
        """The families to measure, in their order."""
        asked: dict[Family, object] = {
            "generation": self.generate or self.prompts,
            "forgetting": self.neutral or self.tasks,
            "control": self.levels,
            "documents": self.marker,
        }
        named = set(self.families or USUAL) | {family for family, option in asked.items() if option}
        return tuple(family for family in FAMILIES if family in named)
