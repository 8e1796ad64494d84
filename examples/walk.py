"""Shrink or thin out networks for handwritten digits along directions that change no prediction.

python examples/walk.py            # the network of `lightlike demo`, about a minute of CPU
python examples/walk.py --wide     # 64-256-256-10 on 500 digits too, three minutes more
"""

import sys
import time

import torch
from torch import nn

import lightlike as ll
from lightlike.demos import Digits, load_digits, train_mlp

BUDGET = 1e-3


def train_wide(digits: Digits, images: int = 500, width: int = 256) -> tuple[nn.Module, tuple]:
    """A 64-256-256-10 ReLU network, trained on the first images; and these images."""
    x, y = (part[:images] for part in digits.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 10),
        )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval(), (x, y)


def show(title: str, F: ll.Fisher, objective: str, held_out: tuple, **options) -> ll.Walk:
    """Walk and print what was found."""
    begun = time.process_time()
    walk = ll.walk(F, objective, budget=BUDGET, held_out=held_out, **options)
    rows, columns = F.root.shape
    print(f"{title}: D = {columns:,}, K = {rows:,}")
    print(walk)
    print(f"  {time.process_time() - begun:.0f} s of CPU\n")
    return walk


def main() -> None:
    digits = load_digits()
    demo = ll.fisher(train_mlp(digits), digits.train, "categorical")
    for objective in ("norm", "sparse"):
        show("demo network", demo, objective, digits.held_out, epsilon="auto", max_steps=20)
    if "--wide" not in sys.argv:
        return
    model, data = train_wide(digits)
    wide = ll.fisher(model, data, "categorical")
    show("wide network, exact radical", wide, "norm", digits.held_out, max_steps=6)
    show("wide network", wide, "sparse", digits.held_out, epsilon="auto", max_steps=4)


if __name__ == "__main__":
    main()
