"""Where things are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from grainline import models
from grainline.places import cache_dir


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path == models.cache_dir()
    monkeypatch.setenv("GRAINLINE_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("GRAINLINE_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "grainline"
