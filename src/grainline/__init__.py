"""Grainline: fine-grained, parameter-efficient preference alignment of language models.

>>> import grainline as gl
>>> run = gl.align("smollm2-135m-instruct", "pairs.jsonl", objective="dpo:beta=0.1", out="runs/first")

Importing this package imports no torch; the names below load what they need when they are first used. Adapters of ours
are known to PEFT from here on (:mod:`grainline.peft_hook`).
"""

from __future__ import annotations

import importlib
from typing import Any

from grainline import peft_hook

__version__ = "0.1.0"
__all__ = ["Recipe", "Run", "align", "evaluate_model", "run"]

_HOME = {"align": "runs", "run": "runs", "Run": "runs", "evaluate_model": "assessment.facts", "Recipe": "recipe"}

peft_hook.install()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"grainline.{_HOME[name]}"), name)
    raise AttributeError(f"module 'grainline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
