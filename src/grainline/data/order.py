"""Which rows make which step: a pure function of the seed, so that a resumed run sees what it would have seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from grainline.types import Example

Sampler = Literal["shuffle", "sequential", "by_prompt"]


class Order:
    """The endless stream of rows, cut into steps.

    Each epoch is a permutation of all rows, seeded by (seed, epoch); steps run across the seam between epochs, so every
    step is full. ``by_prompt`` shuffles prompts instead of rows and keeps the rows of a prompt side by side, which
    makes trees larger and changes SGD: rows of a step are then no longer independent.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int, sampler: Sampler = "shuffle", seed: int = 0):
        self.examples, self.batch_size, self.sampler, self.seed = examples, batch_size, sampler, seed
        self._epochs: dict[int, list[int]] = {}

    def step(self, step: int) -> list[Example]:
        """The examples of optimizer step ``step`` (0-based)."""
        size = len(self.examples)
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self.examples[self._epoch(place // size)[place % size]] for place in places]

    def steps(self, epochs: float) -> int:
        """Steps that ``epochs`` passes take, at least one."""
        return max(1, round(epochs * len(self.examples) / self.batch_size))

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}  # a step spans at most two
            self._epochs[epoch] = self._permutation(epoch)
        return self._epochs[epoch]

    def _permutation(self, epoch: int) -> list[int]:
        rows = list(range(len(self.examples)))
        if self.sampler == "sequential":
            return rows
        rng = random.Random(f"{self.seed}:{epoch}")
        if self.sampler == "shuffle":
            rng.shuffle(rows)
            return rows
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            groups.setdefault(self.examples[row].prompt, []).append(row)
        prompts = list(groups.values())
        rng.shuffle(prompts)
        return [row for group in prompts for row in group]
