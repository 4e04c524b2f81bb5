"""A real browser without a window, to open pages from the disk as a reader does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Opened(NamedTuple):
    """A page that is open, and what it did that no page of ours may do."""

    page: Any  # playwright's
    complaints: list[str]  # what the console said, and errors of scripts
    asked: list[str]  # addresses that were requested, beside the file itself


class Browser:
    def __init__(self, playwright: Any) -> None:
        self.process = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])

    @contextmanager
    def open(self, file: Path, **options: Any) -> Iterator[Opened]:
        """``file`` from the disk; ``options`` of playwright's context: color_scheme, viewport, java_script_enabled."""
        context = self.process.new_context(**{"viewport": {"width": 1100, "height": 800}} | options)
        try:
            opened = Opened(context.new_page(), [], [])
            opened.page.on("console", lambda message: opened.complaints.append(message.text))
            opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
            opened.page.on("request", lambda request: opened.asked.append(request.url))
            opened.page.goto(file.resolve().as_uri())
            opened.asked.remove(file.resolve().as_uri())
            yield opened
        finally:
            context.close()


def found() -> str:
    """The path of a Chromium: ``$GRAINLINE_CHROMIUM``, or one on the path."""
    path = os.environ.get("GRAINLINE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"NO BROWSER: none of {', '.join(NAMES)}; install one, or name one in GRAINLINE_CHROMIUM")
    return path
