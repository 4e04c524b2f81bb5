"""The probe: a model's own log-probs, strict about another model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline import probe
from grainline.errors import ModelError

IDS = [1, 5, 9, 33, 70, 12, 8, 3]


def test_it_is_the_models_own_log_probs(tiny_llama: Any) -> None:
    tiny_llama.train()
    found = probe.measure(tiny_llama, IDS)
    assert tiny_llama.training  # left as it was
    with torch.no_grad():
        logp = tiny_llama.eval()(torch.tensor([IDS])).logits[0].log_softmax(-1)
    assert found.token_logps == pytest.approx([logp[t, token].item() for t, token in enumerate(IDS[1:])])
    assert found.top_ids[0] == logp[-1].argmax()
    assert len(found.top_ids) == len(found.top_logps) == 16
    assert sum(map(math.exp, found.top_logps)) <= 1
    assert found.dtype == "float32"


def test_stored_and_repeated(tiny_llama: Any, tmp_path: Path) -> None:
    found = probe.measure(tiny_llama, IDS)
    assert not probe.is_in(tmp_path)
    probe.write(found, tmp_path)
    assert probe.is_in(tmp_path)
    assert probe.read(tmp_path) == found
    assert probe.check(tiny_llama, tmp_path) == 0
    with torch.no_grad():
        tiny_llama.model.norm.weight.mul_(1.1)
    assert probe.distance(tiny_llama, found) > 1e-3
    with pytest.raises(ModelError, match="same base model"):
        probe.check(tiny_llama, tmp_path)


def test_not_a_number_never_passes(tiny_llama: Any, tmp_path: Path) -> None:
    probe.write(probe.measure(tiny_llama, IDS), tmp_path)
    with torch.no_grad():
        tiny_llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError):
        probe.check(tiny_llama, tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_damaged(content: str, tmp_path: Path) -> None:
    (tmp_path / probe.FILE).write_text(content)
    with pytest.raises(ModelError, match=r"no readable probe\.json"):
        probe.read(tmp_path)
