"""What ``from grainline import recipe`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

from grainline import recipe


def test_every_name_it_offers_is_there() -> None:
    assert len(set(recipe.__all__)) == len(recipe.__all__)
    assert all(getattr(recipe, name) is not None for name in recipe.__all__)


def test_a_recipe_imports_no_torch() -> None:
    program = (
        "import sys; from grainline import recipe\n"
        "recipe.dump(recipe.load({'model': 'm', 'data': 'd'})); recipe.schema()\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
