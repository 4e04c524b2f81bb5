"""Grainline's scorer and an objective in a loop of your own: no recipe, no trainer, no run folder.

A tiny random model learns to prefer the first answer of three hand-made pairs; it runs in a second, on any machine:
``python examples/own_loop.py``. With real text, examples come from ``grainline.data`` instead.
"""

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grainline.data.collate import collate
from grainline.forward import Scorer
from grainline.objectives.dpo import DPO
from grainline.types import Answer, AnswerTokens, Example, Record


def pair(name: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> Example:
    """Two answers to one prompt, in token ids; every token speaks with weight 1."""
    answers = [AnswerTokens(tuple(ids), ((0, 0),) * len(ids), (1.0,) * len(ids)) for ids in (chosen, rejected)]
    return Example(Record(name, "", (Answer(""), Answer(""))), tuple(prompt), tuple(answers))


pairs = [
    pair("sky", [5, 6, 7], [20, 21, 2], [30, 2]),
    pair("grass", [5, 6, 8], [22, 23, 24, 2], [31, 32, 2]),
    pair("sea", [5, 6, 9], [20, 25, 2], [33, 2]),
]
torch.manual_seed(0)
tiny = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.2,
)
model = peft.get_peft_model(LlamaForCausalLM(tiny), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))

scorer = Scorer(model)
objective = DPO(beta=0.1)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
batch = collate(pairs)  # one packed row: each prompt once, each answer once
with torch.no_grad(), model.disable_adapter():
    reference = scorer(batch)
losses = []
for _ in range(30):
    answer = objective(scorer(batch), reference, batch.facts, {})
    loss = answer.terms["dpo"].value.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
margins = dict(zip(batch.facts.ids, answer.margin.tolist(), strict=True))

if __name__ == "__main__":
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    for name, margin in margins.items():
        print(f"{name}: implied reward of chosen minus rejected {margin:+.2f}")
