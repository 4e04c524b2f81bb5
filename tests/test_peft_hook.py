"""PEFT knows our adapters after ``import grainline``, in any order of the two; and grainline stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = "print(sorted(t for t in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING if t.startswith('GRAINLINE_'))[:1])"


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "imports",
    [
        "import grainline, peft",
        "import peft, grainline",
        "import grainline; from peft.tuners.lora import LoraLayer; import peft",  # by a way of its own
        # Asking whether PEFT is installed, as transformers does, must not use the hook up.
        "import importlib.util, grainline; importlib.util.find_spec('peft'); import peft",
        "import grainline.adapters.sara_torch, peft",  # PEFT comes in the middle of ours
        "import grainline.adapters._spectral, peft",
        "import grainline.adapters._tuner, peft",
        "import grainline, importlib, sys; del sys.modules['grainline']; import grainline, peft",  # hooked twice
    ],
)
def test_registered_in_any_order(imports: str) -> None:
    assert "GRAINLINE_" in said(f"{imports}; {KNOWN}")


def test_nothing_is_imported_before_peft_is() -> None:
    assert said("import grainline, sys; print('peft' in sys.modules, 'torch' in sys.modules)") == "False False"


def test_the_hook_leaves_when_its_work_is_done() -> None:
    code = (
        "import grainline, peft, sys; print([f for f in sys.meta_path if type(f).__module__ == 'grainline.peft_hook'])"
    )
    assert said(code) == "[]"
