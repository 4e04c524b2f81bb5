"""What can go wrong, and what to do about it.

::

    GrainlineError                 what happened, where, what to do instead
    ├── UserError (ValueError)     the input is at fault: the command line answers in one sentence, exit status 2
    │   ├── SpecError              a method's name or option
    │   ├── RecipeError            a recipe's key or value
    │   ├── DataError              a record: file, row, field
    │   ├── ModelError             a model, tokenizer or adapter that cannot do what is asked
    │   └── RunError               a run folder: missing, of another recipe, or damaged
    └── TrainingError (RuntimeError)   the run itself failed
        ├── NonFiniteError         a loss or gradient became NaN or infinite: names the rows
        └── InvariantError         a fact that must hold before the first step does not
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GrainlineError(Exception):
    """Root of all our errors: ``what`` happened, ``where`` (file, row, field), and what to do ``instead``."""

    def __init__(self, what: str, *, where: str = "", instead: str = "") -> None:
        what = what if what.endswith((".", "!", "?")) or not instead else f"{what}."
        self.what, self.where, self.instead = what, where, instead
        super().__init__(" ".join(part for part in (f"{where}: {what}" if where else what, instead) if part))


class UserError(GrainlineError, ValueError):
    """The input is at fault; nothing was started."""


class SpecError(UserError):
    """A method's name or one of its options."""


class RecipeError(UserError):
    """A recipe's key or value."""


class DataError(UserError):
    """A record that cannot be used; ``where`` is file:row and the field."""


class ModelError(UserError):
    """A model, tokenizer or adapter that cannot do what is asked of it."""


class RunError(UserError):
    """A run folder that is missing, damaged, or made by another recipe."""


class TrainingError(GrainlineError, RuntimeError):
    """The run itself failed."""


class NonFiniteError(TrainingError):
    """A loss or gradient became NaN or infinite; the message names the rows."""


class InvariantError(TrainingError):
    """A fact that must hold before the first step does not."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The sentence that helps after a misspelt ``name``: the closest of ``choices``, and all of them.

    >>> nearest("dop", ["dpo", "sft"])
    "Did you mean 'dpo'? There are: dpo, sft."
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}There are: {', '.join(known)}." if known else hint.strip()
