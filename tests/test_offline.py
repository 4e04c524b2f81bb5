"""No telemetry, no network: with every connection refused, a run works from data to export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from _toy import Toy

SEALED = """
import socket, sys

tried = []

def refuse(*arguments, **options):
    tried.append(arguments[1:] or arguments)
    raise OSError("the network is sealed")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

from grainline.runs import align

model, data, held_out, out = sys.argv[1:]
run = align(
    model, data, adapter="lora:rank=2", steps=2, batch_size=4, out=f"{out}/run", progress=False,
    evaluation={"data": {"test": held_out}, "samples": 1},
)
run.evaluate({"test": held_out}, progress=False)
run.export(f"{out}/peft")
run.export(f"{out}/merged", format="merged")
print(len(run.metrics), tried)
"""


def test_a_run_needs_no_network(toy: Toy, tmp_path: Path) -> None:
    """In a process that nobody told to be offline."""
    told = {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"}
    environment = {key: value for key, value in os.environ.items() if key not in told}
    arguments = [toy.model, toy.pairs, toy.held_out, str(tmp_path)]
    said = subprocess.run(
        [sys.executable, "-c", SEALED, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["4", "[]"]  # before, two steps, after
