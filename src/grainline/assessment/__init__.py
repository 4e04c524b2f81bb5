"""A run, or a model alone, measured family by family: what ``grainline evaluate`` does."""
