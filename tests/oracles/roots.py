"""A model's root asked in every way, against the naive reference and the generic path."""

from unittest.mock import patch

import pytest
import torch

import lightlike as ll
from lightlike.metric.contractions import CONTRACTIONS
from oracles.networks import normal
from oracles.reference import whitened


def near(found, expected, scale):
    """Equal but for rounding, which is relative to the largest terms that met in the sums."""
    return found.shape == expected.shape and float((found - expected).norm()) <= 1e-10 * scale


def check_root(model, batches, likelihood="gaussian"):
    """Assert that the root is the reference's and the generic path's; give the root."""
    root = ll.fisher(model, batches, likelihood).root
    rows = root.dense()
    size = float(rows.norm()) or 1.0
    expected = torch.from_numpy(whitened(model, batches, likelihood))
    # Labels' laws have roots of different shapes; what they agree on is the Fisher matrix.
    assert near(rows.T @ rows, expected.T @ expected, size**2)
    check_answers(root, rows)
    check_units(root)
    with patch.dict(CONTRACTIONS, clear=True):
        generic = ll.fisher(model, batches, likelihood).root
        assert near(generic.gram(), rows @ rows.T, size**2)
    root.gram()  # so that the ways are those of all layers
    return root


def check_answers(root, rows):
    """Assert that all of a root's products are those of its rows, also weighted and by layer."""
    count, width = rows.shape
    size = float(rows.norm()) or 1.0
    v, u = normal(width, 3, seed=1), normal(count, 3, seed=2)
    assert root.shape == (count, width)
    assert near(root.metric(), rows.T @ rows, size**2)
    check_traces(root, rows)
    assert near(root.gram(), rows @ rows.T, size**2)
    check_traces(root, rows)
    assert near(root.mv(v), rows @ v, size * float(v.norm()))
    assert near(root.rmv(u), rows.T @ u, size * float(u.norm()))
    assert near(root.rmv(u[:, 0]), rows.T @ u[:, 0], size * float(u.norm()))
    for weights in weightings(root):
        scaled, weighted = root.scaled(weights), rows * weights
        size = float(weighted.norm()) or 1.0
        assert near(scaled.gram(), weighted @ weighted.T, size**2)
        assert near(scaled.dense(), weighted, size)
        assert near(scaled.mv(v[:, 0]), weighted @ v[:, 0], size * float(v.norm()))
        assert near(scaled.rmv(u), weighted.T @ u, size * float(u.norm()))
    if root.layer is None:
        for layer, entries in root.problem.selection.layers().items():
            mine = torch.cat([rows[:, e.start : e.stop] for e in entries], 1)
            part = root.of_layer(layer)
            assert near(part.gram(), mine @ mine.T, float(rows.norm()) ** 2)
            assert near(part.dense(), mine, float(rows.norm()))


def weightings(root):
    """Weights of every column of its own, and one for each parameter tensor."""
    yield normal(root.shape[1], seed=3).exp()
    entries = root.problem.selection.entries
    if root.layer is None:
        yield torch.cat([torch.full((e.size,), 0.5 + i).double() for i, e in enumerate(entries)])


def check_traces(root, rows):
    """Assert that the traces by layer are those of the rows' columns."""
    total = float(rows.square().sum())
    if root.layer is not None:
        assert sum(root.traces.values()) == pytest.approx(total, rel=1e-10, abs=1e-200)
        return
    for layer, entries in root.problem.selection.layers().items():
        mine = sum(float(rows[:, e.start : e.stop].square().sum()) for e in entries)
        assert root.traces.get(layer, 0.0) == pytest.approx(mine, rel=1e-9, abs=1e-12 * total)


def check_units(root):
    """Assert that every parameter is in one unit and the units' columns are all columns, once."""
    names = [name for unit in root.units for name in unit.names]
    assert sorted(names) == sorted(e.name for e in root.problem.selection.entries)
    counted = torch.zeros(root.shape[1])
    for unit in root.units:
        unit.scatter(torch.ones(unit.width), counted)
    assert bool((counted == 1).all())
