"""Where Grainline keeps what it need not make twice."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$GRAINLINE_CACHE``, or ``~/.cache/grainline``: converted models, reference log-probs, singular vectors."""
    return Path(os.environ.get("GRAINLINE_CACHE") or Path.home() / ".cache" / "grainline").expanduser()
