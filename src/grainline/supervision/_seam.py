"""The interface of a supervision: a spec that can be called on an example and answers with the same example, marked.

``supervision(example) -> Example`` fills ``weight`` and/or ``segment`` and ``scores`` of each answer. It may read the
record (text, spans, margin) and the tokens' character offsets; it never changes ``ids``. It states what the record must
carry: ``needs`` may hold ``"spans"``.
"""

from __future__ import annotations

from typing import Protocol

from grainline.types import Example

NEEDS = frozenset({"spans"})


class Supervision(Protocol):
    needs: frozenset[str]

    def __call__(self, example: Example) -> Example: ...
