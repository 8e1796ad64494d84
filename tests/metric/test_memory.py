"""Peak memory of the Gram matrix: K² numbers and the factors, never the K · D numbers of A."""

import gc
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.metric.gram import STRIP
from lightlike.metric.sweep import IN_FLIGHT
from oracles import networks as nets

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Temporaries of a tile or a strip, gradients in flight twice, and what the allocator keeps.
CONSTANT = 4 * (STRIP + IN_FLIGHT) + (48 << 20)


def perceptron(small):
    n, width = (20, 16) if small else (160, 400)
    return nets.mlp([30, width, width, 10], "tanh"), nets.normal(n, 30)


def convolutional(small):
    n, width = (4, 4) if small else (70, 128)
    body = nn.Sequential(
        nn.Conv2d(1, width, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(width, width, 3), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip
    return body, nets.normal(n, 1, 10, 10)


def transformer(small):
    n, width, length = (2, 8, 4) if small else (6, 96, 16)
    layer = nn.TransformerEncoderLayer(width, 4, 3 * width, 0.0, batch_first=True)

    def forward(self, t):
        mask = nn.Transformer.generate_square_subsequent_mask(t.shape[1], dtype=torch.float64)
        return self.out(self.body(self.table(t), mask=mask, is_causal=True))

    parts = dict(
        table=nn.Embedding(20, width),
        body=nn.TransformerEncoder(layer, 2),
        out=nn.Linear(width, 20),
    )
    return nets.Call(forward, **parts), torch.arange(n * length).view(n, length) % 20


def mark(field):
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def work(make, small, ask):
    torch.set_num_threads(1)
    model, x = make(small)
    root = ll.fisher(nets.fill(model, 0).double(), (x,), "categorical").root
    rows, width = root.shape
    held = sum(unit.held for unit in root.units)
    gc.collect()
    # The peak forgets what was before.
    CLEAR.write_text("5")
    before = mark("VmHWM")
    result = root.gram() if ask == "gram" else root.dense()
    taken = mark("VmHWM") - before
    assert len(result) == rows
    return taken, rows, width, held


def measure(make, ask, sender):
    work(make, True, ask)
    sender.send(work(make, False, ask))


def peak(make, ask):
    """Bytes at the peak above those before, in a fresh process; K, D, and numbers held a row."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=measure, args=(make, ask, sender))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="there is no high-water mark to read")
@pytest.mark.parametrize("make", [perceptron, convolutional, transformer])
def test_the_gram_matrix_is_made_without_the_root(make):
    taken, rows, width, held = peak(make, "gram")
    # Factors once as they come and once joined, K² and the copy of a batch's forward pass.
    ceiling = 8 * (rows**2 + 2 * rows * held) + CONSTANT
    everything = 8 * rows * width
    # Else the test could not fail.
    assert ceiling < 0.8 * everything
    assert taken < ceiling


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="there is no high-water mark to read")
def test_the_mark_sees_the_whole_root():
    taken, rows, width, _ = peak(perceptron, "dense")
    assert taken > 8 * rows * width
