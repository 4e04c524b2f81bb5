"""Schedule-free AdamW that comes back to the very weights it left."""

from __future__ import annotations

import torch
from schedulefree import AdamWScheduleFree


class Averaged(AdamWScheduleFree):
    """The package computes y from x and z each time it goes on training, which rounds: a run that was evaluated, saved
    or resumed would go on from elsewhere. Here y is kept while x stands in its place, and is saved with the state."""

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model."""
        for group in self.param_groups:
            for parameter in group["params"] if group["train_mode"] else ():
                if "z" in self.state[parameter]:
                    self.state[parameter]["y"] = parameter.detach().clone()
        super().eval()

    @torch.no_grad()
    def train(self) -> None:
        """Put y, where gradients are taken, into the model."""
        super().train()
        for group in self.param_groups:
            for parameter in group["params"]:
                if "y" in self.state[parameter]:
                    parameter.copy_(self.state[parameter].pop("y"))
