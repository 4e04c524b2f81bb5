"""What was paid for once and must not be lost: a file of lines, each a key and a value, that is only ever appended.

A job may be killed at any byte. The line it was writing is then torn, is passed over by the next reader and cannot
spoil the next line. Several threads and processes may append at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Value = Mapping[str, Any]


def address(*parts: Any) -> str:
    """A key for whatever ``parts`` say: sha256 of their JSON, the same in every process."""
    said = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


class Ledger:
    """Keys and values in the file ``path``, which is made with the first line.

    >>> import tempfile; file = Path(tempfile.mkdtemp()) / "kept.jsonl"
    >>> Ledger(file).add("a", {"score": 1})
    >>> Ledger(file).get("a")
    {'score': 1}
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Value] = {}
        self._torn = False  # the file ends in the middle of a line
        if path.is_file():
            self._read(path.read_bytes())

    def get(self, key: str) -> Value | None:
        return self._known.get(key)

    def add(self, key: str, value: Value) -> None:
        """Keep ``value``; it is with the operating system when this returns.

        Raises:
            OSError: the disk took less than the line.
        """
        line = json.dumps({"key": key, **value}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = b"\n" + line if self._torn else line
            with self.path.open("ab", buffering=0) as file:
                if file.write(whole) != len(whole):
                    self._torn = True
                    raise OSError(f"{self.path}: a line was cut short; is the disk full?")
            self._torn = False
            self._known[key] = value

    def _read(self, content: bytes) -> None:
        for line in content.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # torn: it is asked for once more
                value = json.loads(line)
                self._known[value.pop("key")] = value
        self._torn = bool(content) and not content.endswith(b"\n")
