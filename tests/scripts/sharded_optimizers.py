"""Every optimizer on tensors sharded by FSDP2's fully_shard, two processes on gloo. Argument: where results go."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from grainline.errors import ModelError
from optimizers.test_room import NAMES, holder, installed, optimizer, pulls, stage, switch

torch.set_num_threads(1)
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
mesh = init_device_mesh("cpu", (2,))
found = {}
for name in filter(installed, NAMES):
    tags = stage()
    module = holder(tags)
    fully_shard(module, mesh=mesh)
    shards = dict(module.named_parameters())
    assert all(isinstance(shard, DTensor) and shard.to_local().numel() < shard.numel() for shard in shards.values())
    try:
        made = optimizer(name, [tag._replace(tensor=shards[tag.role]) for tag in tags])
        switch(made, "train")
        for step in range(6):
            for role, pull in pulls(tags, step).items():
                shards[role].grad = distribute_tensor(pull, mesh, shards[role].placements)
            made.step()
        switch(made, "eval")
        found[name] = {role: shard.detach().full_tensor() for role, shard in shards.items()}
    except ModelError as error:
        found[name] = str(error)
if dist.get_rank() == 0:
    torch.save(found, Path(sys.argv[1]) / "found.pt")
dist.destroy_process_group()
