"""``grainline schema``: what a recipe may say, for editors."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON schema of a recipe, for editors.

    \b
    Examples:
      grainline schema > recipe.schema.json
      # then, as the first line of a recipe:
      # yaml-language-server: $schema=recipe.schema.json
    """
    from grainline import recipe
    from grainline.cli import _print

    _print.as_json(recipe.schema())
