"""The whole answer speaks with one voice: every answer token counts 1, the end-of-turn token too.

This is what DPO, SFT and every other objective assume when nothing else is said.
"""

from __future__ import annotations

from typing import ClassVar

from grainline.types import Example, spec


@spec
class Sequence:
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""

    def __call__(self, example: Example) -> Example:
        answers = tuple(answer._replace(weight=(1.0,) * len(answer.ids)) for answer in example.answers)
        return example._replace(answers=answers)
