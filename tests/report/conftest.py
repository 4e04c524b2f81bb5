"""Folders of runs, each written in a moment."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import _runs


@pytest.fixture
def make(tmp_path: Path) -> _runs.Make:
    """Writes a run's folder: see :func:`_runs.write`."""
    return functools.partial(_runs.write, tmp_path)
