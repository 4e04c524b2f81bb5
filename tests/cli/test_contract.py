"""``grainline contract``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grainline import cli
from grainline.contract import PROMISES


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["contract", *arguments])
    out, err = capsys.readouterr()
    assert caught.value.code == status, err
    return out if status == 0 else out + err


def test_one_adapter_gives_a_line_for_each_promise(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "miss:rank=8", "--tokens", "1x8")
    assert all(promise in out for promise in PROMISES)
    assert "of lora:rank=16" in out
    assert "parameters 16,384 0.25" in " ".join(out.split())  # 8 x 1,024 outputs in each layer; LoRA has 65,536


def test_several_adapters_give_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "lora:init=pissa", "ln-tuning", "--no-cost")
    assert "lora:init=pissa   9 kept; excused: off is the base, two adapters" in out
    assert "ln-tuning" in out  # a preset


def test_json(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(said(capsys, "bone:block=8", "--model", toy.model, "--tokens", "1x8", "--json"))
    assert [promise["verdict"] for promise in found["promises"]] == ["kept"] * len(PROMISES)
    assert found["cost"]["parameters"] == 2 * 8 * (32 + 16 + 16 + 32 + 64 + 64 + 32)
    assert found["beside lora:rank=16"]["parameters"] == pytest.approx(0.25, abs=0.01)


def test_a_breach_is_exit_status_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Any) -> str:
        from grainline.contract import Broken

        raise Broken("by 3 nats")

    monkeypatch.setitem(PROMISES, "two adapters", broken)
    assert "BROKEN: two adapters" in said(capsys, "lora", "bone", "--no-cost", status=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lorra"], "Did you mean 'lora'"),
        (["none"], "none attaches nothing"),
        (["lora", "--tokens", "many"], "not ROWSxTOKENS"),
        (["lora", "--tokens", "0x3"], "not ROWSxTOKENS"),
        (["miss:rank=4096"], "q_proj has only 128 inputs"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in said(capsys, *arguments, status=2)
