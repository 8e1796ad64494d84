"""Blocks without columns, vectors that are none, and models whose derivatives are infinite."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ModelError, ParameterError
from oracles.networks import fill, mlp, normal


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(fill(mlp([3, 4, 2], "tanh"), 0), (normal(5, 3),), "gaussian")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blocks_without_columns(dtype):
    F = ll.fisher(fill(mlp([3, 4, 2], "tanh"), 0), (normal(5, 3),), "gaussian", dtype=dtype)
    (K, D), ready = F.root.shape, F.products()
    none, rows = torch.zeros(D, 0), torch.zeros(K, 0)
    products = [F @ none, ready @ none, F.diagonal() @ none, F.kronecker() @ none]
    assert [tuple(p.shape) for p in products] == [(D, 0)] * 4
    assert {p.dtype for p in products} == {torch.float64}
    for root in (F.root, ready):
        assert root.mv(none).shape == (K, 0)
        assert root.rmv(rows).shape == (D, 0)


APPROXIMATIONS = {
    "diagonal": lambda F: F.diagonal(),
    "kronecker": lambda F: F.kronecker(),
    "blocks": lambda F: F.blocks(),
}


@pytest.mark.parametrize("which", APPROXIMATIONS)
def test_approximations_take_what_the_matrix_takes(F, which):
    M, v = APPROXIMATIONS[which](F), normal(F.shape[0])
    for bad in (None, "v", v[:3], v * float("nan"), v + 0j):
        for product in (M.__matmul__, lambda u: M.solve(u, 1.0), lambda u: M.half_solve(u, 1.0)):
            with pytest.raises(ParameterError, match="The vector"):
                product(bad)
    assert torch.equal(M @ v.tolist(), M @ v)
    assert torch.equal(M @ v.numpy(), M @ v)


class Rooted(nn.Module):
    """x √|a|, whose derivative at a = 0 is infinite."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([[1.0], [at]]))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x @ self.scale.abs().sqrt() + self.shift


@pytest.mark.parametrize(
    "question",
    [
        lambda F: F @ torch.ones(3),
        lambda F: F.products(100) @ torch.ones(3),
        lambda F: F.root.rmv(torch.ones(4)),
        lambda F: F.root.mv(torch.ones(3)),
        lambda F: F.dense(),
        lambda F: F.trace(),
        lambda F: F.diagonal(),
        lambda F: F.root.rows(0),
        ll.dimension,
    ],
)
def test_infinite_derivatives_are_named(question):
    x = normal(4, 2)
    with pytest.raises(ModelError, match=r"not finite.*scale") as caught:
        question(ll.fisher(Rooted(0.0), (x,), "gaussian"))
    assert "shift" not in caught.value.what


def test_infinite_gradient_of_the_loss_is_named():
    F = ll.fisher(Rooted(0.0), (normal(4, 2), normal(4, 1, seed=1)), "gaussian")
    with pytest.raises(ModelError, match=r"not finite.*scale"):
        ll.description_length(F)


def test_derivatives_near_it_are_taken():
    x = normal(4, 2)
    F = ll.fisher(Rooted(0.25), (x,), "gaussian")
    J = torch.cat([x.double() * torch.tensor([0.5, 1.0]), torch.ones(4, 1)], 1)
    assert torch.allclose(F.dense(), J.T.double() @ J.double() / 4, rtol=1e-12)
