"""A small GPT-2 that spells Python's documentation: how much of it do the data pin down?

Needs the extra `hf`, and no download.
"""

from pydoc_data.topics import topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import lightlike as ll
from lightlike.integrations import huggingface

LETTERS = " abcdefghijklmnopqrstuvwxyz"
LENGTH = 12


def sequences(topic: str) -> torch.Tensor:
    """The letters of a topic as numbers, (sequences, 12)."""
    text = " ".join("".join(c if c in LETTERS else " " for c in topics[topic].lower()).split())
    numbers = torch.tensor([LETTERS.index(c) for c in text])
    return numbers[: len(numbers) // LENGTH * LENGTH].view(-1, LENGTH)


def trained(tokens: torch.Tensor, steps: int = 300) -> GPT2LMHeadModel:
    """One block of width 16, trained from a fixed seed."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(LETTERS), n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.3)
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
    return model


def main() -> None:
    """Train on eight sequences, measure, print."""
    tokens = sequences("compound")[:8]
    model = trained(tokens)
    # Each label beside the logits that predict it: position t has token t + 1.
    prepared, batches = huggingface.prepare(model, tokens)
    prior = ll.priors.Isotropic("evidence")
    print(ll.measure(prepared, batches, "categorical", prior=prior))


if __name__ == "__main__":
    main()
