"""Runs on two gloo processes, with what each process holds. Arguments: a JSON list of {stop, **choices}, a folder."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from grainline import models
from grainline.replay import StopAfter
from grainline.runs import align

torch.set_num_threads(1)
Accelerator.end_training = lambda self: None  # type: ignore[method-assign]  # it would end the processes' group
process = Accelerator(cpu=True)
assert process.num_processes == 2
held: list[dict[str, int]] = []


class Weigh:
    """Bytes of the base's weights: of the model, and in this process."""

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        tensors = [tensor for _, tensor in models.base_parameters(model.model)]
        here = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
        ends = [
            id(module.weight) for module in (model.causal.get_input_embeddings(), model.causal.get_output_embeddings())
        ]
        found = {"all": tensors, "here": here, "ends": [tensor for tensor in tensors if id(tensor) in ends]}
        held.append({name: sum(tensor.nbytes for tensor in those) for name, those in found.items()})
        assert not any(isinstance(p, DTensor) for p in model.parameters() if p.requires_grad)


for choices in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    stop = choices.pop("stop", None)
    align(**choices, callbacks=[Weigh(), *([StopAfter(stop)] if stop else [])])
(Path(sys.argv[2]) / f"held-{process.process_index}.json").write_text(json.dumps(held))
torch.distributed.destroy_process_group()
