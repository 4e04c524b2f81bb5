"""Checkpoints: exact, strict, whole or absent; and metrics.jsonl cut to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from grainline import checkpoint
from grainline.errors import RunError


def start(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A net with a frozen part, and AdamW with two groups."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.constant_(net[0].bias, 0.3).requires_grad_(False)
    groups = [
        {"params": [("0.weight", net[0].weight)], "lr": 0.1, "role": "down"},
        {"params": [("1.weight", net[1].weight), ("1.bias", net[1].bias)], "lr": 0.01, "weight_decay": 0.5},
    ]
    return net, torch.optim.AdamW(groups, betas=(0.8, 0.9))


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """One step on random data: the random state takes part."""
    loss = (net(torch.randn(5, 3)) - 1).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_save_and_restore_are_exact(tmp_path: Path) -> None:
    net, optimizer = start()
    for _ in range(3):
        step(net, optimizer)
    facts = {"best": 0.25, "best_step": None, "stale": 1, "rows": 24, "tokens": 1000}
    folder = checkpoint.save(tmp_path, 3, net, optimizer, facts)
    assert folder.name == "step-000003"
    wanted = [step(net, optimizer) for _ in range(4)]

    other, fresh = start(seed=1)
    assert checkpoint.restore(folder, other, fresh) == {"step": 3, **facts}
    assert fresh.state_dict()["param_groups"][0]["role"] == "down"
    assert [step(other, fresh) for _ in range(4)] == wanted  # bit for bit: AdamW's state and the random state too
    states = [o.state_dict()["state"] for o in (optimizer, fresh)]
    for index, entries in states[0].items():
        for name, value in entries.items():
            assert torch.equal(value, states[1][index][name])
            assert value.dtype == states[1][index][name].dtype


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    net, optimizer = start()
    step(net, optimizer)
    folder = checkpoint.save(tmp_path, 1, net, optimizer, {})
    assert sorted(f.name for f in folder.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((folder / "state.json").read_text())["step"] == 1


def test_plain_numbers_in_the_optimizers_state(tmp_path: Path) -> None:
    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["seen"] = self.state[p].get("seen", 0) + 1

    net, _ = start()
    counting = Counting(net.parameters(), lr=0.1)
    counting.step()
    counting.step()
    folder = checkpoint.save(tmp_path, 2, net, counting, {})
    again = Counting(net.parameters(), lr=0.1)
    checkpoint.restore(folder, net, again)
    assert {entry["seen"] for entry in again.state.values()} == {2}


def test_another_adapters_checkpoint_is_refused(tmp_path: Path) -> None:
    net, optimizer = start()
    folder = checkpoint.save(tmp_path, 1, net, optimizer, {})
    net[0].bias.requires_grad_(True)  # type: ignore[union-attr]
    before = net[0].weight.clone()  # type: ignore[union-attr]
    with pytest.raises(RunError, match=r"of another adapter: 1 tensors differ, e\.g\. 0\.bias"):
        checkpoint.restore(folder, net, optimizer)
    assert torch.equal(net[0].weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(7, 4), (1, 4)], ids=["another", "one that would broadcast"])
def test_another_shape_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    net, _ = start()
    net[1] = nn.Linear(shape[1], shape[0])
    folder = checkpoint.save(tmp_path, 1, net, torch.optim.AdamW(net.parameters()), {})
    other, _ = start()
    with pytest.raises(RunError, match=r"of another adapter.*1\.bias"):
        checkpoint.restore(folder, other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_damaged_checkpoint(tmp_path: Path, file: str) -> None:
    net, optimizer = start()
    folder = checkpoint.save(tmp_path, 1, net, optimizer, {})
    (folder / file).write_bytes((folder / file).read_bytes()[:-3])
    with pytest.raises(RunError, match=r"step-000001: unreadable checkpoint.*Delete it and resume"):
        checkpoint.restore(folder, net, optimizer)


def test_load_trainable(tmp_path: Path) -> None:
    net, optimizer = start()
    folder = checkpoint.save(tmp_path, 1, net, optimizer, {})
    kept = [p.detach().clone() for p in net.parameters()]
    step(net, optimizer)
    assert not torch.equal(net[1].weight, kept[2])  # type: ignore[arg-type]
    checkpoint.load_trainable(folder, net)
    assert all(torch.equal(p, k) for p, k in zip(net.parameters(), kept, strict=True))


def test_newest_and_prune(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None
    for number in (1, 2, 3, 10, 999_999, 1_000_000):
        (tmp_path / f"step-{number:06d}").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-1000000"
    checkpoint.prune(tmp_path, keep=2, spare=[tmp_path / "step-000002", None])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000002", "step-1000000", "step-999999"]
    checkpoint.prune(tmp_path, keep=9)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_crash_while_writing_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = start()
    checkpoint.save(tmp_path, 1, net, optimizer, {"stale": 7})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, net, optimizer, {})
    assert [f.name for f in tmp_path.iterdir()] == ["step-000001"]
    # A kill leaves even the temporary folder, and nobody minds.
    (tmp_path / ".step-000002.4711").mkdir()
    (tmp_path / ".step-000002.4711" / "state.json").write_text("{")
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000001"
    assert checkpoint.restore(tmp_path / "step-000001", net, optimizer)["stale"] == 7
    checkpoint.prune(tmp_path, keep=1)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000001"


def test_cut_drops_later_and_half_written_lines(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    checkpoint.cut(file, after=3)  # nothing there, nothing to do
    for number in (1, 2, 2, 3, 4):
        checkpoint.append(file, {"step": number})
    with file.open("a") as stream:
        stream.write('{"step": 5, "lo')
    checkpoint.cut(file, after=2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 2]
    assert file.read_text().endswith("\n")
    checkpoint.append(file, {"step": 3})
    assert len(file.read_text().splitlines()) == 4
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.jsonl"]
