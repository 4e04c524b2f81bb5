"""What a model is told that shall revise an answer, and how its reply is read: strictly.

A template is a YAML file with a version: the packaged ones are in ``curation/templates/``, any other is named by its
path. The conversation and the answer stand between tags that no text can close (:mod:`grainline.rewards._rubric`).

A reply has two parts, each behind its title: ``Reasoning:`` and ``Revised answer:``. A title may be bold, a heading, in
braces, with underscores for spaces, in capitals or not; it begins a line, and a colon or the line's end follows. A
reply with no title of a revision, or with two, is :class:`Unreadable`: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic
import yaml

from grainline.errors import SpecError, nearest
from grainline.rewards import _rubric
from grainline.rewards._seam import Prompt

FOLDER = Path(__file__).parent / "templates"


class Unreadable(ValueError):
    """The reply is not as asked."""


class Revised(NamedTuple):
    """What a reply says."""

    text: str
    reason: str  # "" where none is given


class Template(pydantic.BaseModel):
    """What stands in the file."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    version: int
    makes: Literal["better", "worse"]
    reason: str = pydantic.Field(min_length=1)
    revision: str = pydantic.Field(min_length=1)
    task: str = pydantic.Field(min_length=1)


def path_of(name: str) -> Path:
    """Where a template stands: packaged by its name, any other by its path."""
    own = "/" in name or name.endswith((".yaml", ".yml"))
    return Path(name).expanduser() if own else FOLDER / f"{name}.yaml"


def template(name: str) -> Template:
    """The template of that name or path.

    Raises:
        SpecError: there is none, or its file is no template.
    """
    if not (path := path_of(name)).is_file():
        known = (file.stem for file in FOLDER.glob("*.yaml"))
        raise SpecError(f"no template {name!r}.", where="template", instead=nearest(name, known))
    try:
        return Template.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", where=f"template {name}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"no YAML: {error}", where=f"template {name}") from None


def question(told: Template, prompt: Prompt, answer: str) -> tuple[Mapping[str, Any], ...]:
    """The conversation that asks for a revision of ``answer``."""
    tag = _rubric.tag_of(prompt, answer)
    body = f"{_rubric.conversation(prompt, tag)}\n\n<answer-{tag}>\n{answer}\n</answer-{tag}>"
    form = (
        f"Write two parts, each behind its title, which stands at the beginning of a line, and without any tags:\n"
        f"{told.reason}: in a few sentences\n{told.revision}: the whole answer"
    )
    return (
        {"role": "system", "content": f"{told.task.strip()}\n\n{_rubric.DATA}"},
        {"role": "user", "content": f"The tags end in -{tag}\n\n{body}\n\n{form}"},
    )


def read(reply: str, *, reason: str, revision: str) -> Revised:
    """The two parts of a reply, by their titles.

    Raises:
        Unreadable: no revision, or it cannot be told where it begins.
    """
    said = re.sub(r"^\s*<think>.*?</think>", "", reply, count=1, flags=re.DOTALL)
    found = list(_title(revision).finditer(said))
    if len(found) != 1:
        raise Unreadable(f"the title {revision!r} stands in it {len(found)} times")
    before, text = said[: found[0].start()].strip(), said[found[0].end() :].strip()
    if not text:
        raise Unreadable("the revision is empty")
    opening = _title(reason).match(before)
    return Revised(text, before[opening.end() :].strip() if opening else before)


def _title(words: str) -> re.Pattern[str]:
    name = r"[ _]+".join(map(re.escape, re.split(r"[ _]+", words)))
    end = r"(?:[ \t]*(?:\*\*)?[ \t]*:[ \t]*(?:\*\*)?|[ \t]*(?:\*\*)?[ \t]*$)"
    return re.compile(rf"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?\{{?{name}\}}?{end}", re.IGNORECASE | re.MULTILINE)
