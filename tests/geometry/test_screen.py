"""Bases, shares, angles, other inner products and the metric on the screen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space

import lightlike as ll
from oracles.networks import fill, mlp, normal

METHODS = ("gram", "metric", "svd")


def network(seed=5, n=9, widths=(3, 4, 3), head="categorical", act="leaky"):
    """A Fisher matrix, its A, singular values and right singular vectors, and d."""
    model = fill(mlp(list(widths), act).double(), seed)
    F = ll.fisher(model, (normal(n, widths[0], seed=seed),), head)
    A = F.root.dense()
    _, s, V = np.linalg.svd(A.numpy())
    return F, A, torch.as_tensor(s), torch.as_tensor(V), int(ll.dimension(F))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [3, 40])
def test_bases_are_orthonormal_and_in_order(method, n):
    F, A, s, V, d = network(n=n)
    radical, screen = ll.subspaces(F, method)
    B, N = screen.basis(), radical.basis()
    assert B.shape == (len(V), d)
    assert N.shape == (len(V), len(V) - d)
    both = torch.cat([B, N], 1)
    torch.testing.assert_close(both.T @ both, torch.eye(len(V)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close((A @ B).norm(dim=0), s[:d], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(screen.basis(2), B[:, :2], rtol=0, atol=1e-12)
    assert screen.basis(0).shape == (len(V), 0)
    torch.testing.assert_close((B.T @ V[:d].T).abs().diagonal(), torch.ones(d).double())
    with pytest.raises(ll.errors.ChoiceError, match=f"0 to {d}"):
        screen.basis(d + 1)


def test_a_basis_that_does_not_fit_is_refused(monkeypatch):
    F, *_ = network()
    radical, screen = ll.subspaces(F, "gram")
    for module in ("rowspace", "gramspace"):
        monkeypatch.setattr(f"lightlike.geometry.{module}.available_memory", lambda: 1000)
    with pytest.raises(ll.errors.CapacityError, match=r"radical\.project"):
        radical.basis()
    with pytest.raises(ll.errors.CapacityError, match=r"basis\(k\)"):
        screen.basis()


@pytest.mark.parametrize("method", METHODS)
def test_shares_are_the_diagonal_of_the_projector(method):
    F, _, _, V, d = network(n=4)
    P = V[:d].T @ V[:d]
    radical, screen = ll.subspaces(F, method)
    share = screen.share()
    torch.testing.assert_close(share.coordinates, P.diagonal(), rtol=0, atol=1e-11)
    assert list(share.layers) == ["0", "2"]
    assert sum(share.layers.values()) == pytest.approx(1.0, abs=1e-11)
    assert sum(share.parameters.values()) == pytest.approx(1.0, abs=1e-11)
    assert share.layers["0"] == pytest.approx(float(P.diagonal()[:16].sum()) / d)
    assert share.parameters["2.bias"] == pytest.approx(float(P.diagonal()[-3:].sum()) / d)
    assert share.fractions["2"] == pytest.approx(float(P.diagonal()[16:].mean()))
    other = radical.share()
    torch.testing.assert_close(other.coordinates, 1.0 - share.coordinates)
    assert sum(other.layers.values()) == pytest.approx(1.0, abs=1e-11)
    assert other.dimension == len(V) - d


def test_shares_of_one_layer():
    F, *_ = network()
    layer = ll.fisher(F.problem.evaluator.model, (normal(9, 3, seed=5),), "categorical", "2")
    part = type(F)(F.root.of_layer("2"))
    found, expected = (ll.subspaces(each)[1].share() for each in (part, layer))
    assert list(found.layers) == ["2"]
    torch.testing.assert_close(found.coordinates, expected.coordinates, rtol=0, atol=1e-12)
    assert found.parameters == pytest.approx(expected.parameters)


@pytest.mark.parametrize("method", METHODS)
def test_the_metric_on_the_screen(method):
    F, A, s, V, d = network(n=4)
    _, screen = ll.subspaces(F, method)
    metric = F.dense()
    B = screen.basis()
    torch.testing.assert_close(screen.metric(), B.T @ metric @ B, rtol=0, atol=1e-13)
    torch.testing.assert_close(screen.metric(3), torch.diag(s[:3].square()), rtol=1e-12, atol=1e-14)
    v = normal(len(V), 3, seed=2)
    W = V[:d]
    expected = W.T @ ((W @ v) / s[:d, None].square())
    torch.testing.assert_close(screen.solve(v), expected, rtol=1e-8, atol=1e-9)
    assert screen.solve(v[:, 0]).shape == (len(V),)
    u = v.flip(1)
    torch.testing.assert_close(screen.inner(u, v), u.T @ metric @ v)
    torch.testing.assert_close(screen.inner(u[:, 0], v[:, 1]), u[:, 0] @ metric @ v[:, 1])
    torch.testing.assert_close(screen.norm(v).square(), (v.T @ metric @ v).diagonal())
    assert screen.norm(v[:, 0]).shape == ()
    torch.testing.assert_close(screen.norm(v[:, 0]), (A @ v[:, 0]).norm())


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.sampled_from(METHODS), st.integers(1, 12), st.integers(1, 12), st.floats(-9, 0),
    st.integers(0, 99),
)  # fmt: skip
def test_angles_to_a_neighbouring_point(method, n, m, size, seed):
    model = fill(mlp([3, 4, 3], "tanh").double(), seed)
    F = ll.fisher(model, (normal(n, 3, seed=seed),), "categorical")
    H = ll.fisher(model, (normal(m, 3, seed=seed),), "categorical")
    H = H.at(F.problem.theta + 10.0**size * normal(len(F.problem.theta), seed=seed + 1))
    (radical, screen), (other_radical, other) = (ll.subspaces(x, method) for x in (F, H))
    row = [np.linalg.svd(x.root.dense().numpy())[2] for x in (F, H)]
    d, e = screen.dimension, other.dimension
    turned = max(x.rows.turning for x in (screen, other))
    for mine, theirs, a, b in (
        (screen, other, row[0][:d].T, row[1][:e].T),
        (radical, other_radical, row[0][d:].T, row[1][e:].T),
    ):
        angles = mine.angles(theirs).numpy()
        assert len(angles) == min(a.shape[1], b.shape[1])
        allowed = dict(rtol=0, atol=20 * turned + 1e-13)
        np.testing.assert_allclose(
            np.cos(angles), np.linalg.svd(a.T @ b, compute_uv=False), **allowed
        )
        # Eigenvalues of P − Q are ± the sines, ± 1 for what one has more dimensions, and 0.
        sines = np.linalg.svd(a @ a.T - b @ b.T, compute_uv=False)
        expected = np.concatenate(
            [np.sin(angles).repeat(2), np.ones(abs(a.shape[1] - b.shape[1])), 0 * sines]
        )
        expected = np.sort(expected)[::-1][: len(sines)]
        np.testing.assert_allclose(sines, expected, **allowed)
        assert (np.diff(angles) >= -1e-12).all()
    assert float(screen.angles(screen).max()) <= turned


def test_small_angles_keep_their_digits():
    """Rows (cos t, sin t) of a linear model: the angle is t, far below √eps."""
    model = torch.nn.Linear(2, 1, bias=False).double()
    t = 3e-12
    F, H = (
        ll.fisher(model, (torch.tensor([[1.0, x]], dtype=torch.float64),), "gaussian")
        for x in (0.0, t)
    )
    (radical, screen), (other_radical, other) = ll.subspaces(F), ll.subspaces(H)
    assert float(screen.angles(other)) == pytest.approx(t, rel=1e-4)
    assert float(radical.angles(other_radical)) == pytest.approx(t, rel=1e-4)


def test_angles_of_unlike_subspaces_are_refused():
    F, *_ = network()
    H, *_ = network(widths=(3, 5, 3))
    radical, screen = ll.subspaces(F)
    with pytest.raises(ll.errors.ParameterError, match="same parameters"):
        screen.angles(ll.subspaces(H)[1])
    with pytest.raises(ll.errors.ChoiceError, match="a Screen"):
        screen.angles(radical)
    with pytest.raises(ll.errors.ChoiceError, match="same precision"):
        screen.angles(ll.subspaces(F, precision=2.0)[1])


@pytest.mark.parametrize("method", METHODS)
def test_orthogonality_in_a_prior_precision(method):
    F, A, _, V, d = network(n=4)
    size = len(V)
    precision = torch.exp(normal(size, seed=8))
    radical, screen = ll.subspaces(F, method, precision=precision)
    assert (screen.dimension, radical.dimension) == (d, size - d)
    # The radical of null vectors, the screen by its definition: vᵀ Σ⁻¹ r = 0 for r in the radical.
    N = torch.as_tensor(null_space(A.numpy(), rcond=1e-10))
    S = (A.T / precision[:, None])[:, :]
    v = normal(size, 3, seed=2)
    G = N.T @ (precision[:, None] * N)
    expected = N @ torch.linalg.solve(G, N.T @ (precision[:, None] * v))
    torch.testing.assert_close(radical.project(v), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(screen.project(v), v - expected, rtol=0, atol=1e-9)
    assert float(radical.project(S).abs().max()) < 1e-10
    assert radical.contains(N[:, 0])
    assert screen.contains(S[:, 0])
    assert not screen.contains(A[0])
    B, R = screen.basis(), radical.basis()
    both = torch.cat([B, R], 1)
    inner = both.T @ (precision[:, None] * both)
    torch.testing.assert_close(inner, torch.eye(size).double(), rtol=0, atol=1e-11)
    assert float((A @ R).abs().max()) < 1e-13
    metric = F.dense()
    torch.testing.assert_close(screen.metric(), B.T @ metric @ B, rtol=0, atol=1e-12)
    torch.testing.assert_close(screen.norm(v).square(), (v.T @ metric @ v).diagonal())
    # The solution in the screen of Î x = Pᵀ v.
    x = screen.solve(v)
    P = B @ B.T * precision
    torch.testing.assert_close(metric @ x, P.T @ v, rtol=0, atol=1e-9)
    torch.testing.assert_close(P @ x, x, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(screen.share().coordinates, P.diagonal(), rtol=0, atol=1e-10)


def test_one_number_for_all_is_the_euclidean_case():
    F, *_ = network()
    v = normal(F.shape[0], seed=2)
    (_, plain), (_, scaled) = ll.subspaces(F), ll.subspaces(F, precision=4.0)
    torch.testing.assert_close(scaled.project(v), plain.project(v))
    torch.testing.assert_close(scaled.basis(1).abs(), plain.basis(1).abs() / 2)
    torch.testing.assert_close(scaled.solve(v), plain.solve(v), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "precision", [torch.ones(3), torch.zeros(31), torch.full((31,), torch.inf), -1.0]
)
def test_what_is_no_inner_product_is_refused(precision):
    with pytest.raises(ll.errors.PriorError):
        ll.subspaces(network()[0], precision=precision)


def repeated(copies=3):
    """A linear layer on orthonormal inputs: each singular value many times."""
    x = (
        torch.linalg.qr(normal(12, 12, seed=1)).Q[:9]
        * torch.arange(1.0, 4.0).repeat(copies)[:, None]
    )
    return ll.fisher(fill(mlp([12, 5], "tanh", bias=False).double(), 0), (x,), "gaussian")


@pytest.mark.parametrize("method", ["gram", "metric"])
@pytest.mark.parametrize("k", [1, 7, 15, 20])
def test_a_basis_may_end_among_equal_singular_values(method, k):
    """3 values, 15 times each: whatever is given is orthonormal and goes to its own image."""
    F = repeated()
    screen = ll.subspaces(F, method)[1]
    B, A = screen.basis(k), F.root.dense()
    assert "vectors" not in vars(F.decomposition(method))
    torch.testing.assert_close(B.T @ B, torch.eye(k).double(), rtol=0, atol=1e-12)
    s = screen.metric(k).diagonal()
    torch.testing.assert_close(A.T @ (A @ B), B * s, rtol=0, atol=1e-12 * float(s[0]))


@pytest.mark.parametrize("method", ["gram", "metric"])
def test_a_few_vectors_take_no_others(method):
    F, _, _, V, _ = network(n=20, widths=(6, 9, 4), act="tanh", head="gaussian")
    screen = ll.subspaces(F, method)[1]
    B = screen.basis(5)
    assert "vectors" not in vars(F.decomposition(method))
    whole = screen.basis()
    torch.testing.assert_close(whole[:, :5], B, rtol=0, atol=1e-11)
    cosines = (V[:5] * B.T).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(5).double(), rtol=0, atol=1e-12)
