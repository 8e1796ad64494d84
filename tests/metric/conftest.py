import pytest
import torch

import lightlike as ll
from lightlike.metric.sweep import Sweep
from oracles.reference import whitened


@pytest.fixture
def only(monkeypatch):
    """Leave the sweep one way of back-propagating a batch."""

    def choose(way):
        for other in {"causal", "aligned", "single", "whole"} - {way}:
            monkeypatch.setattr(Sweep, f"_{other}", lambda *_: None)

    return choose


@pytest.fixture(scope="session")
def agree():
    """Assert that the root of a model is the reference's; give the root."""

    def compare(model, batches, likelihood="gaussian", name=None, **options):
        expected = whitened(model, batches, name or likelihood, **options)
        root = ll.fisher(model, batches, likelihood).root
        dense = root.dense().numpy()
        scale = (expected**2).sum()
        square = expected.T @ expected
        assert abs(dense.T @ dense - square).max() <= 1e-12 * scale
        assert abs(root.metric().numpy() - square).max() <= 1e-12 * scale
        assert abs(root.gram().numpy() - dense @ dense.T).max() <= 1e-12 * scale
        u = torch.linspace(-1, 1, len(dense), dtype=torch.float64)
        for block in (u, torch.stack([u, u**2], 1)):
            found = root.rmv(block).numpy() - dense.T @ block.numpy()
            assert abs(found).max() <= 1e-12 * scale**0.5 * len(u)
        v = torch.linspace(-1, 1, dense.shape[1], dtype=torch.float64)
        assert abs(root.mv(v).numpy() - dense @ v.numpy()).max() <= 1e-12 * scale**0.5 * len(v)
        return root

    return compare
