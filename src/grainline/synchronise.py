"""A reference that follows the policy: every so many steps its weights go a share of the way towards the policy's.

Gorbatovski et al. 2024, "Learn Your Reference Model for Real Good Alignment" (TR-DPO), arXiv:2404.09656:

.. math:: \\theta_0 \\leftarrow (1 - a)\\,\\theta_0 + a\\,\\theta

taken over whole weights: an adapter is merged into a copy of its model first, so a share of the way is a share of the
way for every adapter (the mean of two low-rank factors would not be). For that moment a second copy of the model is in
memory, beside the reference.

The reference is then part of a run's state. It is a function of what the policy was at each synchronisation, so that is
what is kept: the tensors that train, in ``synchronised/``; a resumed run moves its reference through them again.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grainline import atomic, checkpoint


class Synchronise:
    """A callback of the loop that moves ``reference`` towards ``policy`` every ``every`` steps, ``share`` of the way.

    Args:
        policy: the model that is trained, as PEFT wraps it.
        reference: a plain model of the same architecture, changed in place.
        folder: where the policy's tensors are kept.
        writes: whether this process writes them; all move their reference.
    """

    def __init__(
        self, policy: nn.Module, reference: nn.Module, folder: Path, *, every: int, share: float, writes: bool = True
    ) -> None:
        self.policy, self.reference, self.folder = policy, reference, folder
        self.every, self.share, self.writes = every, share, writes

    def on_train_begin(self, _: Any, state: Any, control: Any, **known: Any) -> None:
        """Go through the synchronisations of the steps that are already done, and forget those that are not."""
        from safetensors.torch import load_file

        own = {name: tensor.detach().clone() for name, tensor in checkpoint.trainable(self.policy)}
        for file in sorted(self.folder.glob("step-*.safetensors")):
            if int(file.stem.removeprefix("step-")) <= state.global_step:
                self._load(load_file(file))
                self._move()
            elif self.writes:
                file.unlink()
        self._load(own)

    def on_step_end(self, _: Any, state: Any, control: Any, **known: Any) -> None:
        from safetensors.torch import save_file

        if state.global_step % self.every:
            return
        if self.writes:
            kept = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.trainable(self.policy)}
            with atomic.file(self.folder / f"step-{state.global_step:06d}.safetensors") as temporary:
                save_file(kept, temporary)
        self._move()

    def _load(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in checkpoint.trainable(self.policy):
                tensor.copy_(tensors[name])

    def _move(self) -> None:
        towards = dict(merged(self.policy).named_parameters())
        with torch.no_grad():
            for name, tensor in self.reference.named_parameters():
                tensor.lerp_(towards[name].to(tensor), self.share)


def merged(model: nn.Module) -> nn.Module:
    """A plain copy of ``model`` with its adapter merged in; of a model without one, a copy."""
    model = copy.deepcopy(model)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator]
