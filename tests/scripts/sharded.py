"""The Scorer under FSDP2's fully_shard on gloo: layers, then the rest. Arguments: where results go."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from _build import adapted, adapter_off, model, questions
from grainline.data.collate import collate
from grainline.forward import Scorer

torch.set_num_threads(1)
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
mesh = init_device_mesh("cpu", (2,))
scorer = Scorer(adapted(model("llama")))
for layer in scorer.causal.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(scorer.causal.lm_head, mesh=mesh)
fully_shard(scorer, mesh=mesh)
batch = collate(questions())
reference = adapter_off(scorer)(batch).token
token = scorer(batch).token
(token * torch.cos(torch.arange(token.numel(), dtype=token.dtype)).view_as(token)).sum().backward()
found = {
    "sharded": all(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in scorer.parameters()),
    "token": token.detach(),
    "reference": reference,
    "gradients": {name: p.grad.full_tensor() for name, p in scorer.named_parameters() if p.requires_grad},
}
torch.save(found, Path(sys.argv[1]) / f"rank-{dist.get_rank()}.pt")
dist.destroy_process_group()
