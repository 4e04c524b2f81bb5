"""The interface of a supervision: a spec that can be called on an example and answers with the same example, marked.

``supervision(example) -> Example`` fills ``weight`` of each answer, and ``segment`` with ``score`` where it knows of
segments. It may read the record (text, spans, margin) and the tokens' character offsets; it never changes ``ids``. It
states what the records must carry: ``needs`` may hold ``"spans"``, ``"aspect NAME"`` for each aspect it names, and
``"pairs"`` where the one answer's marks depend on the other.
"""

from __future__ import annotations

from typing import Protocol

from grainline.types import Example

NEEDS = frozenset({"spans", "pairs"})


class Supervision(Protocol):
    needs: frozenset[str]

    def __call__(self, example: Example) -> Example: ...
