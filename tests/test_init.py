"""What ``import grainline`` offers, and what it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import grainline


def test_importing_it_imports_no_torch() -> None:
    program = "import sys, grainline; dir(grainline); assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_it_offers_is_there() -> None:
    assert dir(grainline) == sorted(grainline.__all__)
    assert all(getattr(grainline, name) is not None for name in grainline.__all__)


def test_align_stays_a_function_when_its_module_is_imported() -> None:
    first = grainline.align
    importlib.import_module("grainline.runs")
    assert grainline.align is first
    assert callable(first)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'grainline' has no attribute 'algn'"):
        _ = grainline.algn
