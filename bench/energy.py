"""Which adapters keep the hyperspherical energy? A small model learns a text with each; the plot shows every matrix.

    python bench/energy.py ropo lora sara --out docs/assets/ropo_energy.svg

One line an adapter: the largest relative change of the energy over all matrices, at each step, float32. Every adapter
learns with Adam at its own learning rate until the loss has fallen alike; the loss is drawn beside.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grainline import geometry, rooms
from grainline.adapters import _seam

STEPS, FLOOR = 50, 1e-10
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280")
Curve = list[tuple[float, float]]  # (loss, largest relative change of the energy) after each step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+", help="as in a recipe")
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    options = parser.parse_args()
    base = small_model()
    curves = {text: learn(copy.deepcopy(base), text, options.lr) for text in options.adapters}
    for text, curve in curves.items():
        (first, _), (last, change) = curve[0], curve[-1]
        print(f"{text:32} loss {first:.2f} -> {last:.2f}, energy changed by up to {change:.1e}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(drawn(curves), encoding="utf-8")


def small_model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def learn(base: Any, text: str, lr: float) -> Curve:
    torch.manual_seed(0)
    ids = torch.randint(1, 96, (4, 32))
    model = _seam.attach(rooms.parse("adapters", text), base)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    curve = []
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append((float(loss.detach()), max(changes(model))))
    return curve


def changes(model: Any) -> list[float]:
    pairs = [(before, after) for _, before, after in geometry.changed_weights(model)]
    energy = geometry.hyperspherical_energy
    return [abs(energy(after) / energy(before) - 1) for before, after in pairs]


def drawn(curves: dict[str, Curve]) -> str:
    """Two panels: the energy on a logarithmic axis, and the loss."""
    import math

    width, height, left, top = 330, 220, 60, 30
    top_loss = max(loss for curve in curves.values() for loss, _ in curve)

    def energy_y(change: float) -> float:
        return top - height * math.log10(max(change, FLOOR)) / math.log10(1 / FLOOR)

    def loss_y(loss: float) -> float:
        return top + height * (1 - loss / top_loss)

    def x(step: int, panel: int) -> float:
        return left + panel * (width + left) + width * step / STEPS

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * (width + left) + 20} {height + 100}" '
        'font-family="sans-serif" font-size="12" fill="#808080">'
    ]
    for panel, title in enumerate(("largest relative change of the energy", "loss, nats a token")):
        parts.append(f'<text x="{x(0, panel)}" y="{top - 12}">{title}</text>')
        parts.append(f'<path d="M{x(0, panel)} {top}v{height}h{width}" fill="none" stroke="#808080"/>')
        parts.append(f'<text x="{x(STEPS // 2, panel)}" y="{top + height + 18}" text-anchor="middle">step</text>')
    marks = [(energy_y(10.0**-p), 0, f"1e-{p}") for p in (0, 2, 4, 6, 8, 10)]
    marks += [(loss_y(value), 1, f"{value:g}") for value in range(0, math.floor(top_loss) + 1, 2)]
    for y, panel, said in marks:
        parts.append(f'<text x="{x(0, panel) - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
        parts.append(f'<path d="M{x(0, panel)} {y:.1f}h{width}" stroke="#808080" stroke-opacity="0.3"/>')
    for colour, (text, curve), i in zip(COLOURS, curves.items(), range(5), strict=False):
        for panel, points in enumerate(([energy_y(c) for _, c in curve], [loss_y(loss) for loss, _ in curve])):
            line = " ".join(f"{x(step + 1, panel):.1f},{y:.1f}" for step, y in enumerate(points))
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{left + 150 * i}" y="{top + height + 48}" fill="{colour}">{text}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
