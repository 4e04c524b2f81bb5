"""Other adapters as plain LoRAs, read by PEFT alone."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline import export, rooms
from grainline.adapters._seam import attach
from grainline.as_lora import _Part, as_lora, change
from grainline.contract import Subject
from grainline.errors import ModelError

IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])


def subject(choice: str, base: Any) -> Subject:
    return Subject(rooms.parse("adapters", choice), base, IDS)


@pytest.mark.parametrize(
    ("choice", "rank"),
    [
        ("lora:rank=4", 4),
        ("lora:rank=4,rslora=true,rank_pattern.q_proj=6", 6),
        ("miss:rank=4", 4),  # one block of 4 columns, repeated
        ("peft:type=VERA,r=5", 5),
        ("sara:share=0.4,max_rank=3", 3),
    ],
)
def test_a_change_of_low_rank_is_exact(choice: str, rank: int, tiny_llama: Any, tmp_path: Path) -> None:
    one = subject(choice, tiny_llama)
    model = one.moved()
    said = export.write_lora(model, tmp_path / "lora", ids=IDS[0].tolist())
    assert (said["rank"], said["exact"]) == (rank, True)
    assert said["max_error_nats"] < 1e-4
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", rank, rank)
    again = export.load_adapter(copy.deepcopy(tiny_llama), tmp_path / "lora")
    assert torch.allclose(one.logits(again), one.logits(model), atol=1e-4)


@pytest.mark.parametrize("choice", ["bone:block=8", "peft:type=OFT,oft_block_size=16", "lora:rank=2,dora=true"])
def test_a_change_of_full_rank_is_the_best_of_its_rank(choice: str, tiny_llama: Any) -> None:
    model = subject(choice, tiny_llama).moved()
    found = as_lora(model, 4)
    assert not found.exact
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    whole = change(layer, "up_proj")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    lost = (whole - found.tensors[f"{name}B.weight"] @ found.tensors[f"{name}A.weight"]).norm()
    assert float(lost) == pytest.approx(float(torch.linalg.svdvals(whole)[4:].norm()), rel=1e-4)  # Eckart and Young
    assert as_lora(model, 8).error < found.error
    assert as_lora(model, 32).exact  # as wide as the layers


def test_error_is_that_of_all_layers_together() -> None:
    """A change diag(3, 4) at rank 1 leaves 3 of 5."""
    part = _Part.of(torch.diag(torch.tensor([3.0, 4.0])), 1)
    assert part.lost(1) / part.size == pytest.approx(3 / 5)
    assert part.needed is None


def test_a_large_matrix_is_decomposed_iteratively() -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(1100, 5, generator=generator), torch.randn(5, 1200, generator=generator)
    part = _Part.of(up @ down, 8)
    assert part.needed == 5
    A, B = part.factors(6)
    assert torch.allclose(B @ A, up @ down, atol=1e-3)


def test_peft_alone_reads_it(toy: Any, tmp_path: Path) -> None:
    """In a process that has not imported grainline."""
    from grainline import models

    base = models.load(toy.model).model
    one = subject("sara:max_rank=3", base)
    export.write_lora(one.moved(), tmp_path / "lora", ids=IDS[0].tolist())
    wanted = export.load_adapter(copy.deepcopy(base), tmp_path / "lora")
    code = f"""if True:
        import sys, torch, peft, transformers
        base = transformers.AutoModelForCausalLM.from_pretrained({toy.model!r}, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(base, {str(tmp_path / "lora")!r}).eval()
        assert "grainline" not in sys.modules
        print(float(model(input_ids=torch.tensor({IDS.tolist()})).logits.double().sum()))
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(said.stdout) == pytest.approx(float(one.logits(wanted).double().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("peft:type=PROMPT_TUNING,num_virtual_tokens=4", "PROMPT_TUNING adds to what the model reads"),
        ("peft:type=LN_TUNING", "is a LlamaRMSNorm"),
        ("lora:modules_to_save=[lm_head]", "lm_head is trained whole"),
        ("lora:bias=all", "biases are trained"),
    ],
)
def test_what_has_no_lora_says_why(choice: str, reason: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=reason):
        as_lora(attach(rooms.parse("adapters", choice), tiny_llama))


def test_a_quantised_base_is_refused(tiny_llama: Any) -> None:
    model = subject("lora", tiny_llama).moved()
    frozen = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    frozen.weight = torch.nn.Parameter(frozen.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="q_proj is quantised"):
        as_lora(model)


def test_a_run_is_exported_as_lora(toy_run: Any, tmp_path: Path) -> None:
    said = toy_run.export(tmp_path / "lora", format="lora")
    assert said["rank"] == 4
    assert said["relative_error"] < 1e-5
    with pytest.raises(ModelError, match="format peft has no rank"):
        toy_run.export(tmp_path / "other", rank=4)
