"""Runs on two gloo processes: what each process held, and how often it read along. Arguments: a JSON list of choices
(with ``stop``, the step to stop after), a folder."""

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from grainline import engine, models
from grainline.forward import Scorer
from grainline.replay import StopAfter
from grainline.runs import align

torch.set_num_threads(1)
Accelerator.end_training = lambda self: None  # type: ignore[method-assign]  # it would end the processes' group
process = Accelerator(cpu=True)
assert process.num_processes == 2
told: list[dict[str, int]] = []


class Weigh:
    """Bytes of the base's weights: of the model, and in this process."""

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        tensors = [tensor for _, tensor in models.base_parameters(model.model)]
        here = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
        ends = [
            id(module.weight) for module in (model.causal.get_input_embeddings(), model.causal.get_output_embeddings())
        ]
        found = {"all": tensors, "here": here, "ends": [tensor for tensor in tensors if id(tensor) in ends]}
        told.append({name: sum(tensor.nbytes for tensor in those) for name, those in found.items()})
        assert not any(isinstance(p, DTensor) for p in model.parameters() if p.requires_grad)


class Glancing(Scorer):
    """Counts what :func:`grainline.sharding.in_step` reads."""

    reads: ClassVar = {True: 0, False: 0}  # with gradient, without

    def glance(self) -> torch.Tensor:
        self.reads[torch.is_grad_enabled()] += 1
        return super().glance()


engine.Scorer = Glancing  # type: ignore[misc]
for choices in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    stop = choices.pop("stop", None)
    Glancing.reads |= {True: 0, False: 0}
    align(**choices, callbacks=[Weigh(), *([StopAfter(stop)] if stop else [])])
    told[-1] |= {"learns along": Glancing.reads[True], "reads along": Glancing.reads[False]}
(Path(sys.argv[2]) / f"told-{process.process_index}.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
