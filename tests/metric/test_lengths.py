"""Squared lengths of rows of AᵀC against A written out, by forms and by rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.metric import lengths
from lightlike.metric.lengths import outer_square, squared_lengths
from oracles.networks import Call, fill, mlp, normal

TOLERANCE = 1e-9


def sequence(positions):
    """A layer at several positions, and one behind their mean."""
    return Call(
        lambda s, x: s.last(torch.tanh(s.first(x)).mean(1)),
        first=nn.Linear(30, 20), last=nn.Linear(20, 7),
    ), normal(6, positions, 30)  # fmt: skip


def turned():
    parts = dict(w=nn.Parameter(torch.zeros(30, 12)), last=nn.Linear(12, 7))
    return Call(lambda s, x: s.last(torch.tanh(x @ s.w)), **parts), normal(9, 30)


def separate():
    """Weight and bias that are no one layer's."""
    parts = dict(w=nn.Parameter(torch.zeros(20, 30)), b=nn.Parameter(torch.zeros(20)),
                 last=nn.Linear(20, 7))  # fmt: skip
    return Call(
        lambda s, x: s.last(torch.tanh(functional.linear(x, s.w) + 2 * s.b)), **parts
    ), normal(9, 30)


def convolution():
    layers = nn.Conv1d(12, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 7)
    return nn.Sequential(*layers), normal(9, 12, 4)


CASES = {
    "layers": lambda: (mlp([30, 20, 7], "tanh"), normal(9, 30)),
    "without biases": lambda: (mlp([30, 20, 7], "tanh", bias=False), normal(9, 30)),
    "two positions": lambda: sequence(2),
    "many positions": lambda: sequence(25),
    "matrix product": turned,
    "bias apart": separate,
    "convolution": convolution,
}


def built(name, seed=0):
    model, x = CASES[name]()
    model = fill(model.double(), seed)
    # Batches of unequal size.
    data = [((part,), None) for part in (x[:4], x[4:5], x[5:])]
    return ll.fisher(model, data, "categorical").root


def expected(root, C):
    return (root.dense().T @ C).square().sum(1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [None, 3, 90])
def test_against_rows_written_out(name, width):
    root = built(name)
    C = normal(root.shape[0], root.shape[0] if width is None else width, seed=3)
    found = squared_lengths(root, C, TOLERANCE)
    torch.testing.assert_close(found, expected(root, C), rtol=1e-12, atol=1e-12)


@pytest.fixture
def formed(monkeypatch):
    """Coordinates that forms gave."""
    widths = []
    plain = lengths.quadratic_forms

    def noted(pieces, matrix):
        found = plain(pieces, matrix)
        widths.append(len(found))
        return found

    monkeypatch.setattr(lengths, "quadratic_forms", noted)
    return widths


def test_the_cheaper_way_is_taken(formed):
    root = built("layers")
    squared_lengths(root, normal(root.shape[0], root.shape[0]), TOLERANCE)
    assert sum(formed) == root.shape[1]
    formed.clear()
    squared_lengths(root, normal(root.shape[0], 1), TOLERANCE)  # one row of AᵀC is nothing
    root = built("many positions")
    squared_lengths(root, normal(root.shape[0], root.shape[0]), TOLERANCE)
    assert sum(formed) == 7 * 21  # only the layer behind the mean


def test_where_rounding_is_too_much_the_rows_are_taken(formed):
    """Two inputs that nearly agree: AᵀC is orthonormal, but C Cᵀ is 1e13 times as large."""
    model, x = mlp([30, 20, 7], "tanh"), normal(9, 30)
    x[1] = x[0] + 1e-6 * x[2]
    root = ll.fisher(fill(model.double(), 0), (x,), "gaussian").root
    A = root.dense()
    U, s, _ = torch.linalg.svd(A, full_matrices=False)
    C = U / s
    plain = (A.T @ C).square().sum(1)
    rough = squared_lengths(root, C, 1.0)
    assert float((rough - plain).abs().max()) > 1e-7
    assert sum(formed) == root.shape[1]
    found = squared_lengths(root, C, TOLERANCE)
    torch.testing.assert_close(found, plain, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(40, 40), (40, 70), (70, 40), (1, 1)])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_squares_are_products(shape, upper, turned):
    C = normal(*shape, seed=1)
    C = C.triu() if upper else C
    C = C.T.contiguous().T if turned else C
    before, found = C.clone(), outer_square(C)
    torch.testing.assert_close(found, C @ C.T, rtol=1e-13, atol=1e-13)
    assert torch.equal(found, found.T)
    assert torch.equal(C, before)


def test_weights_and_one_layer():
    root = built("layers")
    C = normal(*[root.shape[0]] * 2, seed=1)
    for other in (root.scaled(normal(root.shape[1]).abs() + 0.1), root.of_layer("2")):
        found = squared_lengths(other, C, TOLERANCE)
        torch.testing.assert_close(found, expected(other, C), rtol=1e-12, atol=1e-12)


def test_labels_that_do_not_count_leave_no_rows():
    model = Call(
        lambda s, x: s.last(torch.tanh(s.first(x))), first=nn.Linear(9, 8), last=nn.Linear(8, 5)
    )
    x, y = normal(4, 3, 9), torch.randint(5, (4, 3), generator=torch.Generator().manual_seed(0))
    y[1, 2] = y[3, 0] = -100
    root = ll.fisher(fill(model.double(), 1), (x, y), "categorical").root
    C = normal(*[root.shape[0]] * 2, seed=1)
    found = squared_lengths(root, C, TOLERANCE)
    torch.testing.assert_close(found, expected(root, C), rtol=1e-12, atol=1e-12)


def test_little_memory_holds_no_square(formed, monkeypatch):
    root = built("layers")
    C = normal(*[root.shape[0]] * 2, seed=1)
    monkeypatch.setattr(lengths, "available_memory", lambda: 1000)
    torch.testing.assert_close(squared_lengths(root, C, TOLERANCE), expected(root, C))
    assert not formed
