"""All of PEFT's types: each trains, can be switched off, merges and loads, or says why not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer

import _build
from grainline import contract, rooms
from grainline.adapters._seam import attach, tagged
from grainline.adapters.peft import _REFUSED, _TOKEN_WISE, _WHOLE_WEIGHTS, PEFT
from grainline.data.collate import collate
from grainline.errors import ModelError, SpecError
from grainline.forward import Scorer

TYPES = [name for kind in PEFT_TYPE_TO_CONFIG_MAPPING if not (name := kind.value).startswith("GRAINLINE_")]
SMALL = {
    "C3A": "block_size=16", "CARTRIDGE": "num_virtual_tokens=4", "FOURIERFT": "n_frequency=50", "GRALORA": "r=4",
    "MISS": "r=8", "PREFIX_TUNING": "num_virtual_tokens=4", "PROMPT_TUNING": "num_virtual_tokens=4", "PSOFT": "r=8",
    "P_TUNING": "num_virtual_tokens=4", "RANDLORA": "r=8", "ROAD": "group_size=8", "SHIRA": "r=4",
    "TRAINABLE_TOKENS": "token_indices=[5, 9]", "VBLORA": "vector_length=16,num_vectors=8,r=4", "VERA": "r=8",
    "WAVEFT": "n_frequency=50",
}  # fmt: skip
"""Options without which a type does not fit a model of width 32."""
OFFERED = [name for name in TYPES if name not in _REFUSED]
IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])


def spec(kind: str) -> PEFT:
    return rooms.parse("adapters", f"peft:type={kind}" + (f",{SMALL[kind]}" if kind in SMALL else ""))


def tried_on(model: Any, kind: str) -> contract.Subject:
    if kind == "ADAMSS":
        pytest.importorskip("sklearn", reason="PEFT's AdaMSS needs scikit-learn")
    return contract.Subject(spec(kind), model, IDS)


@pytest.mark.parametrize("kind", OFFERED)
def test_every_type_keeps_its_promises(kind: str, tiny_llama: Any) -> None:
    subject = tried_on(tiny_llama, kind)
    for promise in ("only tagged tensors train", "off is the base", "merged is the adapted", "saved and loaded"):
        finding = contract.tried(promise, subject)
        assert finding.verdict != "broken", finding


@pytest.mark.parametrize("kind", OFFERED)
def test_every_type_keeps_its_promises_in_four_bits(kind: str, four_bit_llama: Any) -> None:
    subject = tried_on(four_bit_llama, kind)
    for promise in ("it changes the model", "only tagged tensors train", "off is the base", "saved and loaded"):
        finding = contract.tried(promise, subject)
        assert finding.verdict != "broken", finding
        assert kind not in _WHOLE_WEIGHTS or "needs weights that are not quantised" in finding.said


@pytest.mark.parametrize("kind", sorted(_TOKEN_WISE))
def test_types_that_share_prompts_read_one_token_at_a_time(kind: str, tiny_llama: Any) -> None:
    """A layer says of a token what it says of it alone, in training too: so an answer cannot see its siblings."""
    model = attach(spec(kind), tiny_llama).train()
    torch.manual_seed(1)
    for tensor in filter(lambda p: p.requires_grad, model.parameters()):
        tensor.data.add_(0.05 * torch.randn_like(tensor))
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    for layer in layers[:7]:
        if isinstance(layer.get_base_layer(), torch.nn.Embedding):
            continue
        x = torch.randn(1, 7, getattr(layer.get_base_layer(), "in_features", 32))
        assert torch.allclose(layer(x)[:, 2:3], layer(x[:, 2:3]), atol=2e-5)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_the_scorer_reads_a_learnt_prompt(kind: str) -> None:
    policy = attach(spec(kind), _build.model("llama"))
    batch = collate(_build.questions(), rows="pairs", layout="padded")
    found = Scorer(policy, packed=False)(batch).token
    first = _build.questions()[0]
    ids = torch.tensor([first.prompt + first.answers[0].ids])
    with torch.no_grad():
        logits = policy(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -ids.shape[1] :]
    said = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[len(first.prompt) - 1 :, 0]
    assert torch.allclose(found[0, : len(said)], said, atol=1e-4)
    found.sum().backward()
    assert all(tag.tensor.grad.abs().sum() > 0 for tag in tagged(spec(kind), policy))
    with policy.disable_adapter(), torch.no_grad():
        off = Scorer(policy, packed=False)(batch).token
    assert torch.equal(off, Scorer(_build.model("llama"), packed=False)(batch).token)


@pytest.mark.parametrize("kind", sorted(_REFUSED))
def test_what_cannot_be_trained_says_why(kind: str) -> None:
    with pytest.raises(SpecError, match=f"type={kind} is not offered: "):
        rooms.parse("adapters", f"peft:type={kind}")


def test_no_type_of_pefts_is_forgotten() -> None:
    """A type that PEFT gains is offered in padded rows until somebody looks at it; one that it loses is named here."""
    assert set(_REFUSED) - {"MIXED"} <= set(TYPES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("peft:type=OFTT", r"no type 'OFTT'. Did you mean 'OFT'\?"),
        ("peft:type=OFT,oft_blok_size=3", r"OFTConfig has no field 'oft_blok_size'. Did you mean 'oft_block_size'\?"),
        ("peft:type=OFT,oft_block_size=wide", "oft_block_size should be a valid integer"),
        ("peft:type=GRALORA,r=3", "PEFT refuses it: r should be divisible by gralora_k"),
        ("peft:type=LORA,init_lora_weights=pissa", "write lora:init=pissa"),
        ("peft:type=P_TUNING,num_virtual_tokens=4,targets=[q_proj]", "changes no modules"),
        ("peft:type=PROMPT_TUNING", "PROMPT_TUNING needs num_virtual_tokens"),
        ("peft:type=OFT,inference_mode=true", "has no field 'inference_mode'"),
    ],
)
def test_refused_options_say_why(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        rooms.parse("adapters", text)


def test_option_type() -> None:
    assert rooms.parse("adapters", "peft:type=ln-tuning") == PEFT(type="LN_TUNING")


def test_option_options(tiny_llama: Any) -> None:
    written = rooms.parse("adapters", "peft:type=LOHA,r=4,module_dropout=0.1")
    assert written == PEFT(type="LOHA", options={"r": 4, "module_dropout": 0.1})
    assert rooms.text(written) == "peft:type=LOHA,r=4,module_dropout=0.1"
    assert written == rooms.parse("adapters", "peft:type=LOHA,options={r: 4, module_dropout: 0.1}")
    assert written == rooms.parse("adapters", "peft:type=LOHA,options.r=4,module_dropout=0.1")
    assert written.config(tiny_llama).r == 4
    assert written.layouts == {"packed", "padded"}
    assert PEFT(options={"bias": "all"}).changes_base


def test_option_targets(tiny_llama: Any) -> None:
    assert PEFT(targets=("q_proj",)).config(tiny_llama).target_modules == {"q_proj"}
    with pytest.raises(ModelError, match="Did you mean 'q_proj'"):
        PEFT(targets=("q_prj",)).config(tiny_llama)


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in PEFT(layers=(1,)).config(tiny_llama).target_modules)
    with pytest.raises(ModelError, match="cannot choose layers"):
        PEFT(type="LN_TUNING", layers=(1,)).config(tiny_llama)


def test_a_start_at_the_base_where_peft_has_one(tiny_llama: Any) -> None:
    for kind in ("C3A", "FOURIERFT"):
        subject = contract.Subject(spec(kind), tiny_llama, IDS)
        assert contract.tried("fresh is the base", subject).verdict == "kept"
