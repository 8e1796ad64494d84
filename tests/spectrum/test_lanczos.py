"""Leading eigenvalues against all eigenvalues of the same matrices, SciPy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from products_only import Operator
from scipy.sparse.linalg import LinearOperator, eigsh

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, EstimateError
from oracles.matrices import planted, toeplitz

SPECTRA = {
    "decaying": [1 / (1 + i) ** 2 for i in range(200)],
    "geometric": [0.8**i for i in range(200)],
    "steep": [0.2**i for i in range(100)],
    "multiple": [5.0] * 4 + [3.0] * 3 + [1.0] * 2 + [0.01 * 0.99**i for i in range(100)],
    "multiple at the end": [3.0] * 5 + [1.0] * 30 + [0.1] * 60,
    "clustered": [1 + 1e-9 * i for i in range(15)] + [0.5 * 0.97**i for i in range(150)],
    "near pairs": [2.0, 2.0 - 1e-6, 1.5, 1.5 - 1e-10] + [0.9**i for i in range(100)],
    "identity": [1.0] * 80,
    "low rank": [5.0, 4.0, 3.0, 2.0, 1.0] + [0.0] * 75,
    "zero": [0.0] * 30,
    "linear": [1 - i / 150 for i in range(150)],
    "small": [3.0, 2.0, 1.0],
    "one": [7.0],
}


def check(found, values, count, tolerance=1e-7):
    """The pairs are right within their bounds, and the bounds within the tolerance."""
    true = np.sort(np.asarray(values, dtype=float))[::-1]
    held = len(found)
    assert held <= min(count, len(true))
    errors = np.abs(found.eigenvalues.numpy() - true[:held])
    assert (errors <= found.errors.numpy()).all()
    assert found.converged.all()
    assert (found.errors.numpy() <= tolerance * true[0] + 2 * found.noise).all()
    rest = true[held:]
    assert (rest <= found.beyond).all()
    if held < min(count, len(true)):
        assert found.beyond <= tolerance * true[0] + 2 * found.noise
    assert (np.diff(found.eigenvalues.numpy()) <= 0).all()


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra(name, block):
    values = SPECTRA[name]
    full = planted(values)
    found = ll.lanczos(Operator(full), 10, block=block, seed=1)
    check(found, torch.linalg.eigvalsh(full).numpy(), 10)
    X = found.eigenvectors
    torch.testing.assert_close(X.T @ X, torch.eye(len(found)).double(), atol=1e-12, rtol=0)
    apart = (full @ X - X * found.eigenvalues).norm(dim=0)
    torch.testing.assert_close(apart, found.residuals, atol=1e-12 * max(values) + 1e-300, rtol=1e-6)


@st.composite
def spectra(draw):
    """Up to 80 eigenvalues over many orders of magnitude, some of them several times."""
    distinct = draw(st.lists(st.floats(-9.0, 0.0), min_size=1, max_size=25))
    times = draw(st.lists(st.integers(1, 4), min_size=len(distinct), max_size=len(distinct)))
    zeros = draw(st.integers(0, 20))
    values = [10.0**e for e, n in zip(distinct, times, strict=True) for _ in range(n)]
    return values[:80] + [0.0] * zeros


@settings(deadline=None, max_examples=40)
@given(
    values=spectra(),
    count=st.integers(1, 12),
    block=st.integers(1, 3),
    seed=st.integers(0, 9),
    scale=st.sampled_from([1.0, 1e-120, 1e120]),
)
def test_any_spectrum(values, count, block, seed, scale):
    full = scale * planted(values, seed)
    found = ll.lanczos(full, count, block=block, seed=seed)
    check(found, torch.linalg.eigvalsh(full).numpy(), count)
    # Nothing that is clear of the tolerance is left out.
    clear = int((np.asarray(values) * scale > 2e-7 * max(values) * scale).sum())
    assert len(found) >= min(count, clear)


def test_many_copies_are_all_found():
    full = planted([2.0] * 9 + [1.0] * 3 + [0.5**i for i in range(60)])
    found = ll.lanczos(full, 12)
    assert found.eigenvalues[:9].tolist() == pytest.approx([2.0] * 9, rel=1e-7)
    assert found.eigenvalues[9:].tolist() == pytest.approx([1.0] * 3, rel=1e-7)


def test_an_eigenvector_that_the_start_cannot_see():
    """Two copies of one matrix: a Krylov space of one start holds one vector of each pair."""
    half = toeplitz(60)
    full = torch.block_diag(half, half)
    found = ll.lanczos(full, 6)
    exact = 2 - 2 * np.cos(np.arange(60, 57, -1) * np.pi / 61)
    assert found.eigenvalues.tolist() == pytest.approx(np.repeat(exact, 2), rel=1e-7)
    X = found.eigenvectors
    assert torch.linalg.matrix_rank(X) == 6


def test_against_scipy():
    full = planted([1 / (1 + i) for i in range(300)], seed=3)
    operator = LinearOperator(full.shape, matvec=lambda v: full.numpy() @ v, dtype=float)
    theirs = np.sort(eigsh(operator, k=12, which="LA", tol=1e-12)[0])[::-1]
    mine = ll.lanczos(operator, 12)
    assert mine.eigenvalues.tolist() == pytest.approx(theirs.tolist(), abs=1e-7)
    assert np.abs(mine.eigenvalues.numpy() - theirs).max() <= float(mine.errors.max())


def test_restarts_leave_the_answer_alone():
    values = [1 - i / 400 for i in range(400)]
    full = planted(values)
    small = ll.lanczos(full, 4, memory=8 * 400 * 110)
    assert any("restarts" in reason for reason in small.reasons)
    check(small, values, 4)
    with pytest.raises(CapacityError, match="one might be missing"):
        ll.lanczos(full, 4, memory=8 * 400 * 28)


@pytest.mark.parametrize("block", [1, 2])
def test_products_in_float32_are_not_trusted_beyond_their_rounding(block):
    full = planted([1 / (1 + i) ** 2 for i in range(300)], seed=5)
    operator = Operator(full, torch.float32)
    found = ll.lanczos(operator, 10, block=block)
    exact = torch.linalg.eigvalsh(full).flip(0)[:10]
    errors = (found.eigenvalues - exact).abs()
    assert (errors <= found.errors).all()
    assert found.noise >= 8 * operator.precision * found.largest
    assert any("products themselves" in reason for reason in found.reasons)
    assert found.products == operator.count
    # Scalars and basis are in float64: products are all that is lost.
    assert errors.max() < 3e-7
    X = found.eigenvectors
    assert (X.T @ X - torch.eye(10)).abs().max() < 1e-12


def test_the_noise_of_products_is_measured():
    full = planted([1 / (1 + i) ** 2 for i in range(200)], seed=5)
    noise = planted(np.random.default_rng(0).uniform(-1e-9, 1e-9, 200), seed=6)

    class Noisy(Operator):
        """Not linear: by 1e-9 and by the sign of an entry."""

        def __matmul__(self, v):
            return self.full @ v + torch.sign(v[0]) * (noise @ v)

    found = ll.lanczos(Noisy(full), 5, tolerance=1e-6)
    assert 1e-10 < found.noise < 1e-6
    exact = torch.linalg.eigvalsh(full).flip(0)[:5]
    assert ((found.eigenvalues - exact).abs() <= found.errors).all()


@pytest.mark.parametrize(
    ("values", "what"),
    [([1.0, 0.5, -0.3], "semi-definite"), ([2.0, 1.0, -1.0] + [0.0] * 40, "semi-definite")],
)
def test_negative_eigenvalues_are_refused(values, what):
    with pytest.raises(ValueError, match=what):
        ll.lanczos(planted(values), 2)


def test_matrices_that_are_not_symmetric_are_refused():
    full = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(ValueError, match="not symmetric"):
        ll.lanczos(full @ full.T + 0.1 * full, 3)
    with pytest.raises(ValueError, match="square"):
        ll.lanczos(full[:3], 3)


def test_what_does_not_converge_is_not_returned():
    with pytest.raises(EstimateError, match=r"20 products did not settle.*maximum"):
        ll.lanczos(planted(SPECTRA["linear"]), 10, maximum=20)
    with pytest.raises(EstimateError, match="may still have been missed"):
        ll.lanczos(planted(SPECTRA["geometric"]), 3, maximum=22)
    broken = planted([3.0, 2.0, 1.0])
    broken[0, 0] = torch.nan
    with pytest.raises(EstimateError, match="not finite"):
        ll.lanczos(broken, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 0},
        {"count": 2.5},
        {"block": 0},
        {"tolerance": 0.0},
        {"tolerance": 1e-20},
        {"chance": 0.0},
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ChoiceError):
        ll.lanczos(planted([1.0, 2.0]), **{"count": 1, **options})


def test_a_basis_that_does_not_fit():
    with pytest.raises(CapacityError, match="vectors of 200 entries"):
        ll.lanczos(planted(SPECTRA["decaying"]), 10, memory=10_000)


def test_an_empty_matrix():
    found = ll.lanczos(torch.zeros(0, 0), 3)
    assert (len(found), found.beyond, found.products) == (0, 0.0, 0)


def test_the_random_state_is_left_alone(untouched):
    with untouched(torch.nn.Linear(1, 1)):
        ll.lanczos(planted(SPECTRA["decaying"]), 3)
