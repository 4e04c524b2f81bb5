"""Files and folders that appear whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file(path: Path) -> Iterator[Path]:
    """Fill the file that is handed out: it replaces ``path`` at the end, or vanishes if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def text(path: Path, content: str) -> None:
    """Replace ``path`` by ``content``, or leave it as it was."""
    with file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Fill the folder that is handed out: it replaces ``path`` at the end, or vanishes if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        made, old = Path(scratch) / "made", Path(scratch) / "old"
        made.mkdir()
        yield made
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        made.rename(path)
