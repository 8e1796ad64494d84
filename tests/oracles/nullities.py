"""Random networks whose number of null directions is known in closed form, by family.

Each family draws a network, inputs and a head from a NumPy generator and returns them with the
dimension of the radical on that sample. Nothing here comes from lightlike.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    """A model in float64, its inputs, its head, and D − rank."""

    family: str
    model: nn.Module
    x: torch.Tensor
    head: str
    nullity: int

    @property
    def parameters(self):
        return sum(p.numel() for p in self.model.parameters())


def draw(random, *shape):
    return torch.from_numpy(random.standard_normal(shape))


def settle(model, random, bias=0.1):
    """Weights of variance 2 / fan-in, and small biases."""
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            scale = (2 / p[0].numel()) ** 0.5 if p.ndim > 1 else bias
            p.copy_(scale * draw(random, *p.shape))
    return model


def layered(widths, activation=None, biases=None):
    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b, bias=True if biases is None else bool(biases[i])))
        if activation is not None and i < len(widths) - 2:
            layers.append(activation())
    return nn.Sequential(*layers)


def size(model):
    return sum(p.numel() for p in model.parameters())


def bends(model, x):
    """Whether no rectified unit is linear, or nearly so, on the sample."""
    inputs = []
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.LeakyReLU):
                inputs.append(x.movedim(1, -1).reshape(-1, x.shape[1]) > 0)
            x = layer(x)
    shares = [z.double().mean(0) for z in inputs]
    return all(bool(((s > 0.05) & (s < 0.95)).all()) for s in shares)


def pick_head(random):
    return ("gaussian", "categorical")[random.integers(2)]


def outputs_that_count(width, head):
    return width - (head == "categorical")


def deep_linear(random):
    """D − r (m + k − r), m inputs that are independent, k outputs, r the narrowest width."""
    widths = random.integers(2, 7, random.integers(3, 6)).tolist()
    head, n = pick_head(random), int(random.choice([2, 3, 40]))
    model = settle(layered(widths, None, [0] * 9), random)
    m, k = min(n, widths[0]), outputs_that_count(widths[-1], head)
    r = min([m, k, *widths[1:-1]])
    return Case(
        "deep linear", model, draw(random, n, widths[0]), head, size(model) - r * (m + k - r)
    )


def biased_linear(random):
    """Biases add k if the output has one or more than r dimensions lead on from one, else r."""
    widths = random.integers(2, 7, random.integers(3, 6)).tolist()
    biases = random.integers(0, 2, len(widths) - 1)
    head = pick_head(random)
    k = outputs_that_count(widths[-1], head)
    r = min([*widths[:-1], k])
    later = [min([*widths[i + 1 : -1], k]) for i in np.flatnonzero(biases)]
    extra = (k if biases[-1] or max(later) > r else r) if biases.any() else 0
    model = settle(layered(widths, None, biases), random, bias=0.5)
    rank = r * (widths[0] + k - r) + extra
    return Case("biased linear", model, draw(random, 60, widths[0]), head, size(model) - rank)


def low_rank(random):
    """W_2 W_1 of ranks q_2 and q_1: the rank is k q_1 + n q_2 − q_1 q_2."""
    n, h, k = random.integers(2, 6, 3).tolist()
    q1, q2 = int(random.integers(0, min(n, h) + 1)), int(random.integers(0, min(h, k) + 1))
    model = settle(layered([n, h, k], None, [0, 0]), random)
    with torch.no_grad():
        model[0].weight.copy_(draw(random, h, q1) @ draw(random, q1, n))
        model[1].weight.copy_(draw(random, k, q2) @ draw(random, q2, h))
    rank = k * q1 + n * q2 - q1 * q2
    return Case("low rank", model, draw(random, 40, n), "gaussian", size(model) - rank)


def leaky(random):
    """One for each hidden unit, and the shift of logits."""
    widths = [int(random.integers(2, 5)), *random.integers(2, 6, random.integers(1, 4)).tolist(), 3]
    head = pick_head(random)
    shift = widths[-2] + 1 if head == "categorical" else 0
    model, x = layered(widths, lambda: nn.LeakyReLU(0.1)), 2 * draw(random, 400, widths[0])
    while not bends(settle(model, random), x):
        pass
    return Case("leaky ReLU", model, x, head, sum(widths[1:-1]) + shift)


def smooth(random):
    """Nothing but the shift of logits."""
    widths = [int(random.integers(2, 5)), int(random.integers(2, 7)), 3]
    head = pick_head(random)
    model = settle(layered(widths, nn.Tanh), random, bias=0.5)
    shift = widths[-2] + 1 if head == "categorical" else 0
    return Case("tanh", model, 1.5 * draw(random, 150, widths[0]), head, shift)


def sampled(random):
    """Too few observations: D − min(d, rows)."""
    model = settle(layered([3, 4, 3], nn.Tanh), random, bias=0.5)
    head, n = pick_head(random), int(random.integers(1, 15))
    d = size(model) - (5 if head == "categorical" else 0)
    rows = n * outputs_that_count(3, head)
    return Case(
        "few observations", model, 1.5 * draw(random, n, 3), head, size(model) - min(d, rows)
    )


def degenerate(random):
    """One hidden layer of tanh units at points where one or two of them count for less."""
    n, h, k = 3, 5, int(random.integers(1, 4))
    model = settle(layered([n, h, k], nn.Tanh), random, bias=0.5)
    kind = str(
        random.choice(["outgoing", "incoming", "both", "twin", "antipode", "collinear", "full"])
    )
    first, last = model[0], model[2]
    with torch.no_grad():
        if kind in ("outgoing", "both"):
            last.weight[:, 0] = 0
        if kind in ("incoming", "both"):
            first.weight[0] = 0
        if kind in ("twin", "collinear", "antipode"):
            sign = -1 if kind == "antipode" else 1
            first.weight[1], first.bias[1] = sign * first.weight[0], sign * first.bias[0]
        if kind == "collinear":
            last.weight[:, 1] = 2 * last.weight[:, 0]
        if kind == "full":
            first.weight[0] *= 0.01
            first.bias[0] = 40.0
    twins = k + (n + 1 if k == 1 else 0)
    nullity = {
        "outgoing": n + 1, "incoming": k + 1, "both": k + n + 1, "twin": twins, "antipode": twins,
        "collinear": k + n + 1, "full": k + n + 1,
    }[kind]  # fmt: skip
    return Case(f"tanh, {kind}", model, 1.5 * draw(random, 200, n), "gaussian", nullity)


def rectified(random):
    """One hidden layer of ReLU units, some dead, some always active."""
    n, h, k = 3, 6, 3
    dead = int(random.integers(0, 4))
    model = settle(layered([n, h, k], nn.ReLU), random)
    always = bool(random.integers(2))
    with torch.no_grad():
        model[0].bias[:dead] = -1e3
        if always:
            model[0].bias[-1] = 1e3
    nullity = h - dead + dead * (n + 1 + k) + always
    return Case("ReLU", model, 1.5 * draw(random, 300, n), "gaussian", nullity)


def normalised(random):
    """BatchNorm with fixed statistics: scale, bias, and rescaling where a rectifier follows."""
    n, c, k = 4, int(random.integers(2, 6)), 2
    bias, rectifier = bool(random.integers(2)), bool(random.integers(2))
    act = nn.LeakyReLU(0.1) if rectifier else nn.Tanh()
    model = nn.Sequential(nn.Linear(n, c, bias=bias), nn.BatchNorm1d(c), act, nn.Linear(c, k))
    x = 1.5 * draw(random, 300, n)
    while True:
        settle(model, random)
        with torch.no_grad():
            model[1].weight.copy_(draw(random, c).abs() + 0.5)
            model[1].running_mean.copy_(0.3 * draw(random, c))
            model[1].running_var.copy_(draw(random, c).abs() + 0.5)
        if bends(model, x):
            break
    nullity = c * (1 + bias) + (c if rectifier else 0)
    return Case("BatchNorm", model, x, "gaussian", nullity)


def convolved(random):
    """One for each hidden channel that a rectifier follows."""
    a, b = random.integers(2, 4, 2).tolist()
    rectifier = bool(random.integers(2))
    act = (lambda: nn.LeakyReLU(0.1)) if rectifier else nn.Tanh
    model = nn.Sequential(
        nn.Conv1d(2, a, 3), act(), nn.Conv1d(a, b, 2), act(), nn.Conv1d(b, 2, 2), nn.Flatten()
    )
    x = draw(random, 60, 2, 10)
    while not bends(settle(model, random), x):
        pass
    return Case("convolutions", model, x, "gaussian", a + b if rectifier else 0)


FAMILIES = (
    deep_linear, biased_linear, low_rank, leaky, smooth, sampled, degenerate, rectified, normalised,
    convolved,
)  # fmt: skip


def case(index):
    """Case number `index`: its family and its numbers."""
    random = np.random.Generator(np.random.PCG64(index))
    return FAMILIES[index % len(FAMILIES)](random)
