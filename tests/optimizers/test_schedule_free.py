"""Schedule-free: the package's figures, the average that is evaluated and saved, and a way back that is exact."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import Parameter

import _walk
from _build import logged, model, train
from _walk import golden
from grainline import checkpoint, rooms
from grainline.errors import SpecError
from grainline.optimizers.schedule_free import ScheduleFree
from grainline.types import Tagged

PACKAGE = "NOT TESTED: the package schedulefree is not installed (pip install schedulefree==1.4.1)"


def test_first_step_by_hand() -> None:
    """z and x agree after one step (c_1 = 1), so y does, too: it is AdamW's first step."""
    pytest.importorskip("schedulefree", reason=PACKAGE)
    p = Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    made = ScheduleFree(lr=0.1, eps=0.5, weight_decay=0.3)([Tagged("p", p, "up")])
    made.train()
    p.grad = torch.tensor([[4.0]], dtype=torch.float64)
    made.step()
    wanted = 2.0 - 0.1 * (4.0 / (4.0 + 0.5) + 0.3 * 2.0)
    assert p.item() == pytest.approx(wanted, abs=1e-12)
    made.eval()
    assert p.item() == pytest.approx(wanted, abs=1e-12)


def test_golden_trajectory() -> None:
    pytest.importorskip("schedulefree", reason=PACKAGE)
    stream, figures = golden("optim_stream"), golden("schedulefree_adamw")
    p = Parameter(torch.tensor(stream["p0"], dtype=torch.float64))
    made = rooms.parse("optimizers", "schedule-free:lr=0.1,weight_decay=0.01")([Tagged("p", p, "up")])
    made.train()
    for gradient, wanted in zip(stream["grads"], figures["train_params_y"], strict=True):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        made.step()
        torch.testing.assert_close(p.detach(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)
    made.eval()
    wanted = torch.tensor(figures["eval_params_x"], dtype=torch.float64)
    torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-9)


def test_evaluating_changes_nothing() -> None:
    """To the average and back, at every step, bit by bit; the package's own way rounds."""
    pytest.importorskip("schedulefree", reason=PACKAGE)
    ends = []
    for looks in (False, True):
        parameters = _walk.weights(torch.float32)
        made = ScheduleFree(lr=0.01)([Tagged(f"{i}", p, "up") for i, p in enumerate(parameters)])
        made.train()
        for step in range(10):
            for which, p in enumerate(parameters):
                p.grad = _walk.pull(p.detach(), which, step)
            made.step()
            if looks:
                held = parameters[1].detach().clone()
                made.eval()
                made.eval()  # twice is once
                assert step == 0 or not torch.equal(parameters[1], held)
                made.train()
        ends.append(parameters)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Quadratic:
    """Gradients of a noisy parabola with its minimum at 0."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)

    def __call__(self, p: Parameter) -> torch.Tensor:
        return p.detach() + torch.randn(p.shape, generator=self.random)


def test_the_average_is_nearer_than_a_constant_rate_comes() -> None:
    """The paper's promise, against AdamW at the same constant rate: noise is averaged out without decay."""
    pytest.importorskip("schedulefree", reason=PACKAGE)
    ends = {}
    for text in ("schedule-free:lr=0.05", "adamw:lr=0.05"):
        p, pull = Parameter(torch.ones(64, 4)), Quadratic()
        made = rooms.parse("optimizers", text)([Tagged("p", p, "up")])
        getattr(made, "train", lambda: None)()
        for _ in range(600):
            p.grad = pull(p)
            made.step()
        getattr(made, "eval", lambda: None)()
        ends[text] = float(p.detach().square().mean())
    assert ends["schedule-free:lr=0.05"] < 0.5 * ends["adamw:lr=0.05"]


def test_the_trainer_evaluates_and_saves_the_average(tmp_path: Path, one_thread: None) -> None:
    """What evaluation sees is what the checkpoint of that step holds, and not where gradients are taken; a run that
    was evaluated goes on as one that was not."""
    pytest.importorskip("schedulefree", reason=PACKAGE)
    seen, trained = [], []

    def go(folder: Path, every: int) -> None:
        base = model("llama", vocab_size=96)

        def held() -> torch.Tensor:
            return torch.cat([p.detach().flatten() for p in base.parameters() if p.requires_grad])

        class Look:
            def on_step_end(self, *_: object, **__: object) -> None:
                trained.append(held().clone())

        def evaluate() -> dict[str, float]:
            seen.append(held().clone())
            return {"m": 0.0}

        options = {"evaluate": evaluate, "callbacks": [Look()]} if every else {}
        plan = {"evaluate_every": every, "save_every": every, "schedule": "constant", "keep": 9}
        train(base, folder, steps=4, optimizer=ScheduleFree(lr=1e-2), plan=plan, **options)
        seen.append(held())

    go(tmp_path / "looks", 2)
    looks, end = seen[:-1], seen.pop()
    assert [torch.equal(look, at) for look, at in zip(looks, trained[1::2], strict=True)] == [False, False]
    assert torch.equal(end, looks[-1])  # the model is left as it is to be used
    for step, look in zip((2, 4), looks, strict=True):
        folder = tmp_path / "looks" / "checkpoints" / f"step-{step:06d}"
        saved = {k: v for k, v in load_file(folder / "state.safetensors").items() if k.startswith("model.")}
        assert sum(v.numel() for v in saved.values()) == look.numel()
        assert torch.equal(torch.cat([v.flatten() for v in saved.values()]).sort()[0], look.sort()[0])
    go(tmp_path / "blind", 0)
    assert [line["loss"] for line in logged(tmp_path / "blind") if "loss" in line] == [
        line["loss"] for line in logged(tmp_path / "looks") if "loss" in line
    ]
    assert checkpoint.newest(tmp_path / "blind" / "checkpoints") is not None


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    monkeypatch.delitem(sys.modules, "grainline.optimizers.schedule_free_torch", raising=False)
    with pytest.raises(SpecError, match="pip install schedulefree"):
        ScheduleFree()([Tagged("p", Parameter(torch.ones(1)), "up")])


def test_no_memory_no_average() -> None:
    with pytest.raises(SpecError, match="without memory of x"):
        ScheduleFree(betas=(0.0, 0.999))([Tagged("p", Parameter(torch.ones(1)), "up")])
