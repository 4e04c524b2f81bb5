"""Rows of numbers on disk, by address: what a model once said, kept for every later job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grainline import atomic
from grainline.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


class Shelf:
    """Tables of one width by address, in safetensors files that are written whole and never changed.

    ``keys (n, 32) uint8``, ``stops (n,) int64`` and ``rows (total, width) float32`` a file. Addresses are held in
    memory, rows stay on the disk. Without a folder rows are held too, and nothing stays.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: dict[str, Tensor] = {}
        self._place: dict[str, tuple[Path, int, int]] = {}
        self._open: dict[Path, Any] = {}
        for file in sorted(folder.glob("*.safetensors")) if folder else ():
            self._look(file)

    def __contains__(self, key: str) -> bool:
        return key in self._place or key in self._held

    def __getitem__(self, key: str) -> Tensor:
        if key in self._held:
            return self._held[key]
        file, start, stop = self._place[key]
        return self._opened(file).get_slice("rows")[start:stop]

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Keep ``rows``, all of them or none."""
        import torch
        from safetensors.torch import save_file

        if self.folder is None:
            self._held |= rows
            return
        keys = torch.tensor([list(bytes.fromhex(key)) for key in rows], dtype=torch.uint8)
        stops = torch.tensor([len(part) for part in rows.values()]).cumsum(0)
        file = self.folder / f"{hashlib.sha256(''.join(rows).encode()).hexdigest()[:24]}.safetensors"
        with atomic.file(file) as temporary:
            save_file({"keys": keys, "stops": stops, "rows": torch.cat(list(rows.values()))}, temporary)
        self._look(file)

    def _look(self, file: Path) -> None:
        """Learn what a file holds."""
        try:
            opened = self._opened(file)
            keys, stops = opened.get_tensor("keys").numpy().tobytes(), opened.get_tensor("stops").tolist()
        except Exception as error:
            raise RunError(f"unreadable: {error}", where=str(file), instead="Delete it.") from error
        for i, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            self._place[keys[32 * i : 32 * (i + 1)].hex()] = (file, start, stop)

    def _opened(self, file: Path) -> Any:
        from safetensors import safe_open

        if file not in self._open:
            self._open[file] = safe_open(file, "pt")
        return self._open[file]
