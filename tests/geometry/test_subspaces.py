"""Projectors on the radical and the screen, held against a naive singular value decomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from oracles.networks import fill, mlp, normal
from oracles.reference import whitened

EPS = torch.finfo(torch.float64).eps
HEADS = ("categorical", "gaussian", "bernoulli")


def naive(model, x, head, rank):
    """Projector on the row space, and the singular values, of A from single backward passes."""
    A = torch.as_tensor(whitened(model, [(x, None)], head))
    _, s, V = torch.linalg.svd(A)
    return A, s, V[:rank].T @ V[:rank]


def agree(F, reference, method, seed=3):
    """Everything that projections promise, against the reference's A, s and P."""
    A, s, P = reference
    size = A.shape[1]
    radical, screen = ll.subspaces(F, method)
    d = int(ll.dimension(F, method))
    assert (screen.dimension, radical.dimension) == (d, size - d)
    v = normal(size, 4, seed=seed)
    inside, outside = screen.project(v), radical.project(v)
    turned = 50 * EPS * max(A.shape) * float(s[0] / s[d - 1]) if d else EPS
    torch.testing.assert_close(inside, P @ v, rtol=0, atol=turned * float(v.norm()))
    torch.testing.assert_close(inside + outside, v, rtol=0, atol=4 * EPS * float(v.abs().max()))
    assert float((A @ outside).norm()) <= 20 * EPS * max(A.shape) * float(s[0] * v.norm())
    # Idempotent and symmetric.
    torch.testing.assert_close(screen.project(inside), inside, rtol=0, atol=turned)
    torch.testing.assert_close(radical.project(outside), outside, rtol=0, atol=turned)
    torch.testing.assert_close(v.T @ inside, inside.T @ v, rtol=0, atol=turned * size)
    one = screen.project(v[:, 0])
    assert one.shape == (size,)
    torch.testing.assert_close(one, inside[:, 0], rtol=0, atol=turned * 10)
    return radical, screen


@settings(max_examples=14, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.integers(1, 12),
    st.sampled_from(HEADS),
    st.sampled_from(["leaky", "tanh", "relu"]),
    st.sampled_from(["gram", "metric", "svd", "auto"]),
    st.integers(0, 99),
)
def test_projections_are_those_of_a_naive_decomposition(widths, n, head, act, method, seed):
    widths = [*widths, 3]
    model = fill(mlp(widths, act), seed)
    x = normal(n, widths[0], seed=seed + 1)
    F = ll.fisher(model, (x,), head)
    rank = int(ll.dimension(F, method))
    agree(F, naive(model, x, head, rank), method)


@pytest.mark.parametrize(
    ("method", "width", "depth"), [("gram", 16, 8), ("gram", 6, 12), ("metric", 6, 12)]
)
def test_a_direction_far_below_rounding_of_the_gram_matrix_is_on_the_screen(method, width, depth):
    """Deep linear networks of rank w (w + w − w), with s_d/s_1 down to 4e-9 and 5e-11."""
    seed = 0 if width == 16 else 3
    chain = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    model = fill(nn.Sequential(*chain).double(), seed, 1.0)
    F = ll.fisher(model, (normal(2 * width, width),), "gaussian")
    radical, screen = ll.subspaces(F, method)
    d, size = width**2, depth * width**2
    assert screen.dimension == d
    A = F.root.dense()
    _, s, V = torch.linalg.svd(A, full_matrices=False)
    assert float(s[d - 1] / s[0]) < 1e-8
    v = normal(size, 3, seed=1)
    outside = radical.project(v)
    assert float((A @ outside).norm() / (s[0] * v.norm())) < 4 * EPS
    faint = V[d - 1]
    assert float(radical.project(faint).norm()) < 1e-14 * float(s[0] / s[d - 1])
    assert screen.contains(faint)
    basis = screen.basis()
    eye = torch.eye(d, dtype=torch.float64)
    torch.testing.assert_close(basis.T @ basis, eye, rtol=0, atol=1e-13)
    images = (A @ basis).norm(dim=0)
    torch.testing.assert_close(images[: d // 2], s[: d // 2], rtol=1e-9, atol=0)
    torch.testing.assert_close(images[-1:], s[d - 1 : d], rtol=1e-4, atol=0)
    null = radical.basis()
    assert null.shape == (size, size - d)
    assert float((A @ null).norm(dim=0).max() / s[0]) < 10 * EPS


def test_a_dead_network_is_all_radical():
    model = mlp([3, 4, 2], "relu").double()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model[0].bias.fill_(-1.0)
    x = normal(5, 3)
    for method in ("gram", "metric", "svd"):
        F = ll.fisher(model, (x,), "gaussian")
        radical, screen = ll.subspaces(F, method)
        assert (screen.dimension, radical.dimension) == (2, 24)
        v = normal(26, seed=2)
        expected = v.clone()
        expected[-2:] = 0.0  # only the output bias is felt
        torch.testing.assert_close(radical.project(v), expected)


def test_nothing_is_felt_at_all():
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    F = ll.fisher(model, (torch.zeros(4, 3),), "gaussian")
    for method in ("gram", "metric", "svd"):
        radical, screen = ll.subspaces(F, method)
        assert (screen.dimension, radical.dimension) == (0, 6)
        v = normal(6)
        assert torch.equal(radical.project(v), v)
        assert not screen.project(v).any()
        assert radical.contains(v)
        assert not screen.contains(v)


def test_softmax_shift_and_rescaling_are_in_the_radical():
    model = fill(mlp([3, 4, 3], "leaky").double(), 5)
    F = ll.fisher(model, (normal(30, 3),), "categorical")
    radical, screen = ll.subspaces(F)
    parts = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    parts["2.bias"].fill_(1.0)
    shift = F.problem.selection.flatten(parts)
    found = radical.contains(shift)
    assert found
    assert found.residual < 1e-14
    assert "≤" in found.reason
    assert not screen.contains(shift)
    rescaling = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    rescaling["0.weight"][1] = model[0].weight.detach()[1]
    rescaling["0.bias"][1] = model[0].bias.detach()[1]
    rescaling["2.weight"][:, 1] = -model[2].weight.detach()[:, 1]
    assert radical.contains(F.problem.selection.flatten(rescaling))
    rescaling["2.weight"][:, 1] *= 1.001
    found = radical.contains(F.problem.selection.flatten(rescaling))
    assert not found
    assert found.residual > 1e-6
    assert radical.contains(F.problem.selection.flatten(rescaling), tolerance=0.01)


def test_gradients_of_the_fit_are_in_the_screen():
    x, y = normal(12, 3), torch.arange(12) % 3
    model = fill(mlp([3, 4, 3], "tanh").double(), 6)
    F = ll.fisher(model, (x, y), "categorical")
    radical, screen = ll.subspaces(F)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert screen.contains(gradient)
    assert not radical.contains(gradient)
    assert screen.contains(gradient, tolerance=1e-9).tolerance == 1e-9


def test_what_cannot_be_taken_apart_is_refused():
    F = ll.fisher(fill(mlp([3, 2], "tanh").double(), 0), (normal(4, 3),), "gaussian")
    radical, screen = ll.subspaces(F)
    with pytest.raises(ll.errors.ParameterError, match=r"\(7,\)"):
        radical.project(torch.zeros(7))
    with pytest.raises(ll.errors.ParameterError, match="not finite"):
        screen.project(torch.full((8,), torch.nan))
    with pytest.raises(ll.errors.ParameterError, match="one at a time"):
        screen.contains(torch.zeros(8, 2))
    with pytest.raises(ll.errors.ChoiceError, match="float64"):
        ll.subspaces(
            ll.fisher(fill(mlp([3, 2], "tanh"), 0), (normal(4, 3),), "gaussian", dtype="float32")
        )
    with pytest.raises(ll.errors.ChoiceError, match="'gram'"):
        ll.subspaces(F, "lanczos")


@pytest.mark.parametrize("scale", [1e300, 1e155, 1e-170, 1e-300])
@pytest.mark.parametrize("precision", [None, 2.0])
def test_lengths_of_vectors_do_not_matter(scale, precision):
    model = fill(mlp([3, 4, 2], "tanh").double(), 0)
    F = ll.fisher(model, (normal(9, 3),), "gaussian")
    radical, screen = ll.subspaces(F, precision=precision)
    v = torch.ones(F.shape[0], dtype=torch.float64)
    for part in (radical, screen):
        small, large = part.contains(v), part.contains(scale * v)
        assert bool(large) is bool(small) is False
        assert large.residual == pytest.approx(small.residual, rel=1e-9)
        torch.testing.assert_close(part.project(scale * v) / scale, part.project(v))
        assert bool(part.contains(part.project(scale * v)))
    torch.testing.assert_close(screen.solve(scale * v) / scale, screen.solve(v), rtol=1e-6, atol=0)
