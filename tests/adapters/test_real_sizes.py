"""What a plan states of the models that people have, against each method's own formula, without their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import LlamaConfig, LlamaForCausalLM

from grainline import contract, rooms
from grainline.adapters._seam import attach_shapes, tagged
from grainline.adapters.peft import _REFUSED
from grainline.errors import ModelError


class Sizes(NamedTuple):
    """Those of a model; two layers stand for all."""

    width: int
    inner: int
    keys: int
    vocabulary: int
    layers: int = 2

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's matrices."""
        square, key, up = (self.width, self.width), (self.width, self.keys), (self.width, self.inner)
        named = {"q_proj": square, "k_proj": key, "v_proj": key, "o_proj": square, "gate_proj": up, "up_proj": up}
        return named | {"down_proj": (self.inner, self.width)}


REAL = {
    "Llama-7B": Sizes(4096, 11008, 4096, 32000),
    "Llama-3-8B": Sizes(4096, 14336, 1024, 128256),
    "Mistral-7B": Sizes(4096, 14336, 1024, 32000),
}
Formula = Callable[[Sizes], int]


def each(formula: Callable[[int, int], int]) -> Formula:
    """``formula`` of (inputs, outputs), over all matrices of all layers."""
    return lambda of: of.layers * sum(formula(*matrix) for matrix in of.matrices.values())


def low_rank(rank: int) -> Formula:
    return each(lambda inputs, outputs: rank * (inputs + outputs))


def turned(inputs: int, outputs: int) -> int:
    """SODA: the values, and blocks of each factor of the smaller side that is turned."""
    blocks = {4096: (16, 16, 16), 11008: (16, 16, 43), 14336: (28, 16, 32)}[inputs]
    return min(inputs, outputs) + sum(block**2 for block in blocks)


def kronecker(inputs: int, outputs: int) -> int:
    """LoKr: the product of the factors nearest to the root, and a matrix of rank 8 of the others."""
    parts = {1024: (32, 32), 4096: (64, 64), 11008: (86, 128), 14336: (112, 128)}
    (a, c), (b, d) = parts[outputs], parts[inputs]
    return a * b + 8 * (c + d)


COUNTS: dict[str, Formula] = {
    "none": lambda of: each(lambda inputs, outputs: inputs * outputs)(of)
    + (2 * of.layers + 1) * of.width + 2 * of.vocabulary * of.width,
    "lora:rank=16": low_rank(16),
    "lora:rank=16,dora=true": each(lambda inputs, outputs: 16 * (inputs + outputs) + outputs),
    "miss:rank=32": each(lambda _, outputs: 32 * outputs),
    "bone:block=64": each(lambda _, outputs: 64 * outputs),
    "ropo": each(lambda inputs, outputs: 2 * (inputs - 1) + outputs),
    "spectral:rank=8": low_rank(8),
    "spectral:mode=rotational,rank=128": each(lambda *_: 2 * 128**2),
    "soda": each(turned),
    "papeft:locations=20,tokens=2,width=128": lambda of: 20 * 128 + 128 * 129 + 2 * of.width * 129,
    # Ranks follow from weights: these are what each matrix has that reaches the limit.
    "sara:share=0.5,max_rank=8": each(lambda inputs, outputs: 8 * (inputs + outputs + 1)),
    "mo-sara:share=0.5,max_rank=8,experts=5": each(lambda _, outputs: 5 * 8 + outputs + 8 + 5),
    "peft:type=LORA,r=8": low_rank(8),
    "peft:type=BEFT": lambda of: of.layers * of.keys,  # a bias of each v_proj
    # One matrix, since PEFT fills a square of its width, entry by entry.
    "peft:type=BOFT,boft_block_size=4,targets=[k_proj],layers=[0]": lambda of: of.width // 4 * 4**2 + of.keys,
    "peft:type=C3A,block_size=256": each(lambda inputs, outputs: inputs * outputs // 256),
    "peft:type=CARTRIDGE,num_virtual_tokens=4": lambda of: (4 - 1) * 2 * of.layers * of.keys,  # the first is frozen
    "peft:type=DEFT": low_rank(8),
    "peft:type=DELORA,r=8": each(lambda inputs, outputs: 8 * (inputs + outputs) + 1),
    # One matrix, since PEFT shuffles all its entries to choose some.
    "peft:type=FOURIERFT,n_frequency=1000,targets=[k_proj],layers=[0]": lambda of: 1000,
    "peft:type=WAVEFT,n_frequency=500,targets=[k_proj],layers=[0]": lambda of: 500,
    "peft:type=GLORA,r=8": low_rank(2 * 8),
    "peft:type=GRALORA,r=32": low_rank(32),
    "peft:type=HIRA,r=32": low_rank(32),
    "peft:type=HRA,r=8": each(lambda inputs, _: 8 * inputs),
    "peft:type=IA3": lambda of: of.layers * (2 * of.keys + of.inner),
    "peft:type=LN_TUNING": lambda of: (2 * of.layers + 1) * of.width,
    "peft:type=LOHA,r=8": low_rank(2 * 8),
    "peft:type=LOKR,r=8": each(kronecker),
    "peft:type=MISS,r=64": each(lambda _, outputs: 64 * outputs),
    "peft:type=OFT,oft_block_size=32": each(lambda inputs, _: inputs // 32 * (32 * 31 // 2)),
    "peft:type=OSF": each(lambda inputs, outputs: min(inputs, outputs) // 2 * (inputs + outputs + 1)),
    "peft:type=PEANUT,r=32": each(lambda _, outputs: 2 * 32 * outputs),
    "peft:type=PREFIX_TUNING,num_virtual_tokens=4": lambda of: 4 * 2 * of.layers * of.keys,
    "peft:type=PROMPT_TUNING,num_virtual_tokens=4": lambda of: 4 * of.width,
    "peft:type=PSOFT,r=32": each(lambda *_: 32 * 31 // 2 + 2 * 32),
    "peft:type=PVERA,r=256": each(lambda _, outputs: outputs + 2 * 256),
    "peft:type=P_TUNING,num_virtual_tokens=4": lambda of: 4 * of.width + 3 * (of.width**2 + of.width),
    # As many random bases of rank 32 as span the smaller side, each with scales for it and for the rank; one matrix,
    # since PEFT draws the bases.
    "peft:type=RANDLORA,r=32,targets=[k_proj],layers=[0]": lambda of: of.keys // 32 * (32 + of.keys),
    "peft:type=ROAD": each(lambda _, outputs: outputs),
    "peft:type=SUPERTUNING": each(lambda inputs, outputs: inputs * outputs // 100),  # one entry of a hundred
    "peft:type=TINYLORA": each(lambda *_: 64),
    "peft:type=TRAINABLE_TOKENS,token_indices=[5, 9]": lambda of: 2 * of.width,
    "peft:type=UNILORA": lambda of: 256,  # one vector, which everything is made of
    "peft:type=VBLORA,r=4,vector_length=256,num_vectors=256": lambda of: 256 * 256 + low_rank(4)(of),
    "peft:type=VERA,r=256": each(lambda _, outputs: outputs + 256),
}  # fmt: skip
FROM_WEIGHTS = tuple(f"peft:type={kind},targets=[k_proj],layers=[0]" for kind in ("ADAMSS", "FROD", "SHIRA"))
"""PEFT reads the weights to know which tensors there are."""


def model(of: Sizes) -> Any:
    sizes = {"hidden_size": of.width, "intermediate_size": of.inner, "num_key_value_heads": of.keys // 128}
    config = LlamaConfig(**sizes, num_attention_heads=32, num_hidden_layers=of.layers, vocab_size=of.vocabulary)
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize("size", REAL)
@pytest.mark.parametrize("choice", COUNTS)
def test_stated_is_the_formula(choice: str, size: str) -> None:
    adapter, of = rooms.parse("adapters", choice), REAL[size]
    assert contract.count(tagged(adapter, attach_shapes(adapter, model(of)))) == COUNTS[choice](of)


@pytest.mark.parametrize("choice", ["sara", "mo-sara"])
def test_ranks_of_a_plan_are_those_of_random_matrices(choice: str) -> None:
    """A bound, since real spectra are more peaked; what is counted is counted at these ranks."""
    adapter, of = rooms.parse("adapters", choice), REAL["Llama-3-8B"]
    attached = attach_shapes(adapter, model(of))
    by_rank = {"sara": lambda k, i, o: k * (i + o + 1), "mo-sara": lambda k, _, o: 5 * k + o + k + 5}[choice]
    ranks = attached.peft_config["default"].ranks
    stated = sum(by_rank(rank, *of.matrices[name.rpartition(".")[2]]) for name, rank in ranks.items())
    assert len(ranks) == 7 * of.layers
    assert contract.count(tagged(adapter, attached)) == stated


@pytest.mark.parametrize("choice", FROM_WEIGHTS)
def test_what_follows_from_weights_is_not_guessed(choice: str) -> None:
    if "ADAMSS" in choice:
        pytest.importorskip("sklearn", reason="PEFT's AdaMSS needs scikit-learn")
    with pytest.raises(ModelError, match="cannot be counted without weights"):
        attach_shapes(rooms.parse("adapters", choice), model(REAL["Llama-3-8B"]))


def test_a_plan_holds_no_matrix() -> None:
    """Nor one that PEFT makes where tensors are born, not where the model is."""
    boft = rooms.parse("adapters", "peft:type=BOFT,boft_block_size=4,targets=[k_proj],layers=[0]")
    attached = attach_shapes(boft, model(REAL["Llama-3-8B"]))
    assert {tensor.device.type for tensor in (*attached.parameters(), *attached.buffers())} == {"meta"}


def test_no_adapter_is_forgotten() -> None:
    known = {choice.partition(",")[0] for choice in (*COUNTS, *FROM_WEIGHTS)}
    types = {f"peft:type={kind.value}" for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind.value not in _REFUSED}
    assert {one for one in known if one.startswith("peft:")} == {one for one in types if "GRAINLINE_" not in one}
    assert {one.partition(":")[0] for one in known} == set(rooms.names("adapters"))
