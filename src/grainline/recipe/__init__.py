"""A recipe: one choice from each room, a model, data, and the run's numbers. One YAML file, one frozen value.

===============  =====================================================================================
``value``        the frozen dataclasses, every key with its default and its sentence
``files``        load, dump, and what makes two recipes the same run
``draft``        what a person wrote, on its way to a value: shorthands, overrides, presets
``preset``       papers that are combinations, read from the folder ``presets``
``aliases``      TRL's and transformers' names, where they mean the same
``json_schema``  for editors
``notebook``     a recipe as a notebook shows it
``yamls``        YAML 1.2 scalars and duplicate keys, with line numbers
===============  =====================================================================================
"""

from __future__ import annotations

from grainline.recipe.files import as_dict, differences, dump, fingerprint, load, resumed, schema
from grainline.recipe.preset import Preset, presets
from grainline.recipe.value import (
    MAY_CHANGE,
    CheckpointChoice,
    DataChoice,
    EvaluationChoice,
    HeldOutChoice,
    ModelChoice,
    Recipe,
    SynchroniseChoice,
)

__all__ = [
    "MAY_CHANGE",
    "CheckpointChoice",
    "DataChoice",
    "EvaluationChoice",
    "HeldOutChoice",
    "ModelChoice",
    "Preset",
    "Recipe",
    "SynchroniseChoice",
    "as_dict",
    "differences",
    "dump",
    "fingerprint",
    "load",
    "presets",
    "resumed",
    "schema",
]
