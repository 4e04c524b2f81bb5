"""What the plots of the docs share."""

from __future__ import annotations

_INK = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
ON_ANY_PAGE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
    **dict.fromkeys(_INK, "#808080"),
}
"""matplotlib's settings for a figure that can be read on light pages and on dark ones."""
