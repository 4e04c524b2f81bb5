"""Makes PEFT know our adapters, without importing it: they are registered the moment somebody does.

After ``import grainline``, before or after ``import peft``, ``PeftModel.from_pretrained`` loads what we wrote. PEFT has
no door for other people's methods: a stored ``peft_type`` that it does not know is a KeyError.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


def install() -> None:
    """Register our tuners now if PEFT is loaded, else right after it will have been."""
    if "peft" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterPeft) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPeft())


def _register() -> None:
    importlib.import_module("grainline.adapters._tuner")  # may be what is importing PEFT: then it is under way


class _AfterPeft(importlib.abc.MetaPathFinder):
    """Finds nothing itself: it lets the others find PEFT, and adds one step to its loading."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "peft":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            # Only now: a bare find_spec("peft"), which asks whether it is installed, must not use the hook up.
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
