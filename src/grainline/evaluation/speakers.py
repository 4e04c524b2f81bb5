"""Who is asked: a scorer, and the context in which it is the policy or the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple


class Speaker(NamedTuple):
    name: str  # policy, reference, against
    scorer: Any  # grainline.forward.Scorer
    within: Callable[[], AbstractContextManager[Any]]

    @contextmanager
    def plain(self) -> Iterator[Any]:
        """The speaker's model with its own attention, to generate with."""
        with self.within(), self.scorer.plain() as model:
            yield model


class Subject(NamedTuple):
    """The voices of a run, or of a model alone, with their tokenizer."""

    policy: Speaker
    reference: Speaker | None
    tokenizer: Any
    place: Callable[..., Any] | None = None  # a prompt's ids -> those that the adapter reads in their place
    layout: str = "padded"
    device: Any = "cpu"
