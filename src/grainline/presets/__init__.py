"""Papers that are combinations: one YAML file each, expanded before the rooms are resolved (``recipe/preset.py``)."""
