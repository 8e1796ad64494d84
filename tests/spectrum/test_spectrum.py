import math
import random

import numpy as np
import pytest
import torch
from scipy.sparse import diags
from scipy.sparse.linalg import aslinearoperator

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, LightlikeError
from lightlike.spectrum.memory import available_memory, format_bytes, resolve_memory
from lightlike.spectrum.operator import Cost, ExplicitFactor, explicit
from lightlike.spectrum.routes import choose, routes

EIGENVALUES = [5.0, 2.0, 1.0, 0.25, 0.0]


def matrix(values, seed=0):
    g = torch.Generator().manual_seed(seed)
    n = len(values)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q
    full = Q * torch.tensor(values, dtype=torch.float64) @ Q.T
    return (full + full.T) / 2


def spectrum_of(values):
    return ll.spectrum(torch.diag(torch.tensor(values, dtype=torch.float64)))


class Operator:
    """No entries, only products."""

    def __init__(self, full):
        self.full, self.shape = full, full.shape

    def __matmul__(self, v):
        return self.full @ v


FORMS = {
    "tensor": lambda full: full,
    "float32": lambda full: full.float(),
    "operator": Operator,
    "numpy": lambda full: full.numpy(),
    "numpy operator": lambda full: aslinearoperator(full.numpy()),
    "negative strides": lambda full: full.numpy()[::-1, ::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_symmetric_matrices_in_any_form(form):
    spectrum = ll.spectrum(FORMS[form](matrix(EIGENVALUES)))
    tolerance = 1e-6 if form == "float32" else 1e-12
    assert spectrum.eigenvalues[:4].tolist() == pytest.approx(EIGENVALUES[:4], rel=tolerance)
    assert spectrum.trace == pytest.approx(8.25, rel=tolerance)
    assert spectrum.eigenvalues.dtype == torch.float64
    assert (spectrum.shape, spectrum.kind, spectrum.method) == ((5, 5), "exact", "dense")
    if form != "float32":
        assert len(spectrum) == 4
        assert spectrum.rank_bounds[0] == 4


def test_scipy_sparse_matrices():
    assert ll.spectrum(aslinearoperator(diags([3.0, 2.0, 1.0]))).eigenvalues.tolist() == [3, 2, 1]


def test_a_matrix_of_full_rank_is_decided():
    d = ll.dimension(matrix([4.0, 2.0, 1.0]))
    assert (int(d), d.kind, d.bound, d.data_limited) == (3, "exact", "parameters", False)


def test_a_singular_matrix_without_a_root_has_bounds():
    d = ll.dimension(matrix(EIGENVALUES))
    assert (d.lower, d.upper, d.kind, d.value) == (4, 5, "certified", 4)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_zero_and_empty_matrices(n):
    spectrum = ll.spectrum(torch.zeros(n, n))
    assert len(spectrum) == spectrum.rank() == spectrum.trace == 0
    assert spectrum.rank_bounds == (0, 0)
    assert spectrum.participation_ratio() == spectrum.stable_rank() == 0
    assert spectrum.entropy_dimension() == spectrum.logdet(3.0) == 0
    assert spectrum.effective_dimension(0.5) == 0


@pytest.mark.parametrize("kind", ["not square", "vector", "not symmetric", "not PSD"])
def test_other_matrices_are_refused(kind):
    bad, message = {
        "not square": (torch.ones(2, 3), "square"),
        "vector": (torch.ones(3), "square"),
        "not symmetric": (torch.tensor([[1.0, 0.1], [0.0, 1.0]]), "not symmetric"),
        "not PSD": (matrix([2.0, 1.0, -0.01]), "positive semi-definite.*-0.01"),
    }[kind]
    with pytest.raises(ValueError, match=message):
        ll.spectrum(bad)


def test_rounding_is_forgiven():
    full = matrix([2.0, 1.0, -1e-15])
    full[0, 1] += 1e-13
    assert len(ll.spectrum(full)) == 2
    assert torch.equal(explicit(full), explicit(full).T)


@pytest.mark.parametrize("method", ["gram", "svd", "arnoldi", "Gram", ""])
def test_a_matrix_without_a_root_has_one_method(method):
    with pytest.raises(ChoiceError, match="'auto', 'metric'"):
        ll.spectrum(matrix([1.0, 2.0]), method=method)
    if method not in ("gram", "svd"):
        with pytest.raises(ChoiceError, match="'auto', 'gram', 'metric', 'svd'"):
            ll.spectrum(ExplicitFactor(torch.ones(2, 3)), method=method)


VALUES = [4.0, 1.0, 1e-3, 1e-9]


def test_functions_of_a_spectrum():
    spectrum = spectrum_of(VALUES)
    total, squares = math.fsum(VALUES), math.fsum(v * v for v in VALUES)
    assert spectrum.effective_dimension(0.01) == pytest.approx(
        math.fsum(v / (v + 0.01) for v in VALUES), rel=1e-14
    )
    assert spectrum.participation_ratio() == pytest.approx(total**2 / squares, rel=1e-14)
    assert spectrum.stable_rank() == pytest.approx(total / 4, rel=1e-14)
    entropy = -math.fsum(v / total * math.log(v / total) for v in VALUES)
    assert spectrum.entropy_dimension() == pytest.approx(math.exp(entropy), rel=1e-13)
    for scale in (1e-6, 1.0, 1e6):
        expected = math.fsum(math.log1p(scale * v) for v in VALUES)
        assert spectrum.logdet(scale) == pytest.approx(expected, rel=1e-13)
    assert [spectrum.above(e) for e in (0, 1e-9, 1e-4, 1.0, 2.0, 4.0)] == [4, 3, 3, 1, 1, 0]
    assert [spectrum.rank(t) for t in (None, 1e-5, 1e-4, 0.1, 0.6)] == [4, 4, 3, 2, 1]
    assert spectrum.largest == 4.0
    assert len(spectrum) == 4


@pytest.mark.parametrize("n", [1, 3, 40])
def test_equal_eigenvalues_make_every_count_n(n):
    spectrum = spectrum_of([0.3] * n)
    for count in (
        spectrum.participation_ratio(), spectrum.stable_rank(), spectrum.entropy_dimension(),
        spectrum.rank(), spectrum.effective_dimension(0.0), 2 * spectrum.effective_dimension(0.3),
    ):  # fmt: skip
        assert count == pytest.approx(n, rel=1e-12)
    assert spectrum.logdet(2.0) == pytest.approx(n * math.log1p(0.6), rel=1e-13)


def test_logdet_is_that_of_the_matrix():
    full = matrix(EIGENVALUES)
    expected = np.linalg.slogdet(np.eye(5) + 37.0 * full.numpy())[1]
    assert ll.spectrum(full).logdet(37.0) == pytest.approx(expected, rel=1e-13)
    assert ll.spectrum(full).logdet(0.0) == 0.0


def test_half_the_mackay_dimension_is_the_slope_of_logdet():
    spectrum, n, h = spectrum_of(VALUES), 1000.0, 1e-4
    slope = (spectrum.logdet(n * math.exp(h)) - spectrum.logdet(n * math.exp(-h))) / (2 * h)
    assert slope == pytest.approx(spectrum.effective_dimension(1 / n), rel=1e-6)


@pytest.mark.parametrize("method", ["gram", "metric", "svd"])
def test_routes_agree_on_a_factor(method):
    A = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spectrum = ll.spectrum(ExplicitFactor(A), method=method)
    expected = np.linalg.svd(A.numpy(), compute_uv=False) ** 2
    assert spectrum.eigenvalues.numpy() == pytest.approx(expected, rel=1e-12)
    assert spectrum.method == method
    assert ("6 × 9" if method == "svd" else "9 × 9" if method == "metric" else "6 × 6") in (
        spectrum.reason
    )


@pytest.mark.parametrize(
    ("rows", "columns", "gram", "write", "first"),
    [
        (100, 10_000, 1e7, 6e6, "gram"),
        (10_000, 100, 1e10, 6e6, "metric"),
        (100, 100, 1e12, 1.0, "metric"),
    ],
)
def test_the_cheapest_route_is_first(rows, columns, gram, write, first):
    found = routes(rows, columns, Cost(gram, write))
    assert sorted(r.method for r in found) == ["gram", "metric", "svd"]
    costs = [r.operations for r in found]
    assert costs == sorted(costs)
    assert found[0].method == first
    assert choose(found, "auto", 10**12) is found[0]
    for route in found:
        assert choose(found, route.method, 10**12) is route
        assert route.fits(route.memory)
        assert not route.fits(route.memory - 1)


def test_a_dearer_route_is_taken_where_the_cheapest_does_not_fit():
    found = routes(3000, 1000, Cost(1.0, 1.0))
    lean = min(found, key=lambda r: r.memory)
    found.sort(key=lambda r: -r.memory)
    assert choose(found, "auto", int(lean.memory)) is lean


def test_nothing_fits():
    factor = ExplicitFactor(torch.ones(123, 456))
    with pytest.raises(CapacityError) as caught:
        ll.spectrum(factor, memory=1000)
    text = str(caught.value)
    for part in ("1 kB", "gram", "metric", "svd", "123 × 123", "456 × 456", "123 × 456", "memory="):
        assert part in text
    with pytest.raises(CapacityError) as caught:
        ll.spectrum(factor, method="gram", memory=1000)
    assert "svd" not in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, LightlikeError)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8 GB", 8 << 30), ("1.5g", 3 << 29), ("512MiB", 512 << 20), ("10 k", 10240), ("7", 7),
     (1e6, 10**6), (5, 5), ("2 TB", 2 << 40)],
)  # fmt: skip
def test_amounts_of_memory(text, size):
    assert resolve_memory(text) == size


@pytest.mark.parametrize(
    "text", ["much", "8 XB", -1, 0, "GB", "1.2.3 GB", "", True, "nan", 1j, math.nan, math.inf]
)
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ChoiceError, match="memory="):
        resolve_memory(text)


def test_memory_unless_given():
    assert 0 < resolve_memory(None) <= 2 * available_memory()
    assert [format_bytes(s) for s in (5, 1500, 2.5e9, 3e12, 3e15)] == [
        "5 B", "1.5 kB", "2.5 GB", "3 TB", "3e+03 TB",
    ]  # fmt: skip


def test_a_spectrum_says_what_it_is():
    assert repr(spectrum_of([2.0, 1.0])) == (
        "Spectrum(2 eigenvalues from 2, trace 3, exact by dense)"
    )


def test_order_of_eigenvalues_does_not_matter():
    shuffled = VALUES.copy()
    random.Random(0).shuffle(shuffled)
    assert torch.equal(spectrum_of(shuffled).eigenvalues, spectrum_of(VALUES).eigenvalues)
