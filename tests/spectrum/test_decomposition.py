import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.spectrum.decomposition import Decomposition, decompose
from lightlike.spectrum.dense import singular_values
from lightlike.spectrum.operator import Cost, ExplicitFactor, Factor
from lightlike.spectrum.rounding import eigenvalue_floor, rank_tolerance
from lightlike.spectrum.routes import routes

ROUTES = ("gram", "metric", "svd")
EPS = torch.finfo(torch.float64).eps


def orthogonal(n, k, random):
    return torch.linalg.qr(torch.randn(n, k, generator=random, dtype=torch.float64)).Q


def graded(singular, rows, columns, seed=0):
    """A matrix with the given non-zero singular values."""
    random = torch.Generator().manual_seed(seed)
    s = torch.as_tensor(singular, dtype=torch.float64)
    left, right = orthogonal(rows, len(s), random), orthogonal(columns, len(s), random)
    return ExplicitFactor(left * s @ right.T)


def by(factor, method):
    rows, columns = factor.shape
    found = {r.method: r for r in routes(rows, columns, Cost(1.0, 1.0))}
    return Decomposition(factor, found[method], 1e9)


SPECTRA = {
    "flat": torch.ones(12),
    "geometric": torch.logspace(0, -5, 20),
    "to 1e-13": torch.logspace(0, -13, 27, dtype=torch.float64),
    "cliff": torch.cat([torch.ones(9), torch.full((9,), 1e-9)]),
    "two groups": torch.cat([torch.linspace(3, 1, 10), torch.logspace(-11, -12, 6)]),
    "one": torch.tensor([7.0]),
    "scaled down": torch.logspace(-150, -155, 10, dtype=torch.float64),
    "scaled up": torch.logspace(150, 145, 10, dtype=torch.float64),
}  # fmt: skip
SHAPES = {"wide": (30, 70), "tall": (70, 30), "square": (40, 40)}


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SPECTRA)
def test_known_singular_values_by_every_route(kind, shape, method):
    singular = SPECTRA[kind].double()
    factor = graded(singular, *SHAPES[shape])
    spectrum = by(factor, method).spectrum
    assert len(spectrum) == len(singular)
    assert spectrum.rank_bounds == (len(singular),) * 2
    assert spectrum.resolved
    assert spectrum.rank() == len(singular)
    assert spectrum.shape == SHAPES[shape]
    found = spectrum.eigenvalues.sqrt()
    error = (found - singular).abs().max()
    assert error <= 1e-8 * singular[0]
    small = singular < 1e-5 * singular[0]
    if bool(small.any()):
        assert (found - singular)[small].abs().max() <= 40 * EPS * singular[0]
    assert spectrum.trace == pytest.approx(float(singular.square().sum()), rel=1e-12)
    d = ll.dimension(factor, method=method)
    assert (int(d), d.kind) == (len(singular), "exact")


@pytest.mark.parametrize("method", ["gram", "metric"])
def test_the_subspace_finds_what_the_matrix_hides(method):
    singular = SPECTRA["to 1e-13"]
    decomposition = by(graded(singular, 60, 90), method)
    assert len(decomposition.first) < len(singular)
    assert not decomposition.first.resolved
    assert decomposition.first.rank_bounds[0] <= len(singular) <= decomposition.first.rank_bounds[1]
    for spectrum in (decomposition.by_subspace(), decomposition.by_svd("")):
        assert spectrum.rank_bounds == (len(singular),) * 2
        relative = spectrum.eigenvalues.sqrt() / singular - 1
        assert relative.abs()[:20].max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 25), st.integers(0, 20), st.integers(0, 20), st.floats(0, 13),
    st.integers(0, 10**6), st.sampled_from(["gram", "metric"]),
)  # fmt: skip
def test_refinement_counts_what_an_svd_counts(rank, extra_rows, extra_columns, depth, seed, method):
    random = np.random.default_rng(seed)
    singular = torch.tensor(sorted(10 ** -random.uniform(0, depth, rank))[::-1])
    factor = graded(singular, rank + extra_rows, rank + extra_columns, seed)
    cut = rank_tolerance(factor.shape) * float(singular[0])
    decomposition = by(factor, method)
    if float(singular[-1]) > 10 * cut:
        # Two rows may leave rounding of the size of the cut, which is then told as open.
        least, most = decomposition.by_subspace().rank_bounds
        assert least == rank <= most
        assert decomposition.spectrum.rank_bounds == (rank, rank)
    lower, upper = decomposition.first.rank_bounds
    assert lower <= rank <= upper


@pytest.mark.parametrize("method", ["gram", "metric"])
def test_no_memory_for_a_refinement_leaves_open_bounds(method):
    singular = SPECTRA["to 1e-13"]
    factor = graded(singular, 60, 90)
    decomposition = by(factor, method)
    decomposition.budget = 0
    spectrum = decomposition.spectrum
    assert not spectrum.resolved
    assert spectrum.rank_bounds[0] < len(singular) <= spectrum.rank_bounds[1] == 60


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_zero_matrix_has_rank_zero(shape, method):
    factor = ExplicitFactor(torch.zeros(SHAPES[shape]))
    spectrum = by(factor, method).spectrum
    assert (len(spectrum), spectrum.trace, spectrum.rank_bounds) == (0, 0.0, (0, 0))
    d = ll.dimension(factor, method=method)
    assert (int(d), d.lower, d.upper, d.kind) == (0, 0, 0, "exact")


def test_a_value_at_the_threshold_is_not_decided():
    cut = rank_tolerance((50, 50))
    close = by(graded([1.0, 0.5, cut], 50, 50), "svd").spectrum
    assert close.rank_bounds == (2, 3)
    assert ll.dimension(graded([1.0, 0.5, cut], 50, 50), method="svd").kind == "certified"


def linear_network(depth=8, width=16):
    random = torch.Generator().manual_seed(0)
    layers = [nn.Linear(width, width, bias=False, dtype=torch.float64) for _ in range(depth)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.randn(width, width, generator=random).double() / width**0.5)
    x = torch.randn(40, width, generator=random, dtype=torch.float64)
    return nn.Sequential(*layers), x


@pytest.fixture(scope="module")
def deep():
    model, x = linear_network()
    return ll.fisher(model, (x,), "gaussian")


@pytest.mark.parametrize("method", ROUTES)
def test_the_deep_linear_network_has_rank_256(deep, method):
    assert deep.root.shape == (640, 2048)
    d = ll.dimension(deep, method=method)
    assert (int(d), d.lower, d.upper, d.kind) == (256, 256, 256, "exact")
    assert not d.data_limited
    assert d.gap > 2


@pytest.mark.parametrize("method", ["gram", pytest.param("metric", marks=pytest.mark.slow)])
def test_the_deep_linear_network_by_subspace(deep, method):
    decomposition = deep.decomposition(method)
    spectrum = decomposition.by_subspace()
    assert spectrum.rank_bounds == (256, 256)
    exact = ll.spectrum(deep, method="svd").eigenvalues.sqrt()
    assert (spectrum.eigenvalues.sqrt() - exact).abs().max() <= 1e-8 * exact[0]
    assert float((spectrum.eigenvalues.sqrt() - exact)[-40:].abs().max()) <= 1e-13 * exact[0]


@pytest.mark.parametrize("shape", [(5, 5), (40, 7), (7, 40), (1, 9)])
def test_compression_keeps_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(np.linalg.svd(matrix.numpy(), compute_uv=False))
    assert torch.allclose(singular_values(matrix), expected, rtol=1e-13, atol=1e-14)


def test_the_floor_is_above_the_error_of_a_solver():
    for n in (20, 100, 300):
        factor = graded(torch.logspace(0, -12, n // 2), n, 2 * n)
        values = torch.linalg.eigvalsh(factor.gram()).flip(0)[n // 2 :]
        assert float(values.abs().max()) < eigenvalue_floor(n, 1.0) / 2


def test_factors_are_recognised():
    factor = graded(torch.ones(3), 5, 7)
    assert isinstance(factor, Factor)
    assert decompose(factor).route.method in ROUTES
    root = factor.matrix
    v, u = torch.ones(7, 2, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    assert torch.equal(factor.mv(v), root @ v)
    assert torch.equal(factor.rmv(u), root.T @ u)


@pytest.mark.parametrize("zeros", [0, 3])
def test_short_of_memory_only_what_is_close_to_call_is_refined(zeros):
    """Singular values over nine orders, some exactly zero, and a budget for few vectors."""
    rows, columns = 40, 4000
    generator = torch.Generator().manual_seed(zeros)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator).double()).Q
    right = torch.linalg.qr(torch.randn(columns, rows, generator=generator).double()).Q
    s = torch.logspace(0, -9, rows, dtype=torch.float64)
    s[rows - zeros :] = 0.0
    matrix = (left * s) @ right.T
    factor = ExplicitFactor(matrix)
    few = 8 * (3 * rows**2 + 4 * columns * 20)
    route = next(r for r in routes(rows, columns, Cost(1.0, 1.0)) if r.method == "gram")
    found = Decomposition(factor, route, few).solve()
    assert "refined in their subspace" in found.reason
    assert len(found.eigenvalues) == rows - zeros
    exact = torch.linalg.svdvals(matrix)[: rows - zeros]
    floor = eigenvalue_floor(rows, 1.0)
    allowed = torch.where(exact**2 > 4 * floor, floor / exact, 1e-12)
    assert bool(((found.eigenvalues.sqrt() - exact).abs() <= allowed).all())
    assert found.rank_bounds == (rows - zeros, rows - zeros)
