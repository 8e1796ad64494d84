"""Distinct eigenvalues by steps that keep no basis, against dense spectra."""

import gc
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import ChoiceError, EstimateError
from lightlike.spectrum.distinct import distinct, sifted
from lightlike.spectrum.locking import Beside, lock
from lightlike.spectrum.probes import Operator, sphere
from lightlike.spectrum.quadrature import Quadrature, quadrature
from lightlike.spectrum.recurrence import Recurrence
from lightlike.spectrum.threeterm import ThreeTerm
from oracles.matrices import planted

SPECTRA = {
    "decaying": [2.0**-k for k in range(24)] + [0.0] * 76,
    "power": [(k + 1.0) ** -1.5 for k in range(150)],
    "close": [1.0, 0.999, 0.998, 0.5, 0.499, *np.linspace(0.0, 0.1, 60)],
    "repeated": [3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 0.7, *np.linspace(0.0, 0.2, 60)],
}


class Single:
    """Products in float32, which it says."""

    precision = 1.2e-7

    def __init__(self, matrix):
        self.matrix, self.shape = matrix.float(), matrix.shape

    def __matmul__(self, block):
        return self.matrix @ block.float()


def recurred(F, steps, seed=0):
    run = ThreeTerm(Operator(F), sphere(F.shape[0], seed, range(1), torch.device("cpu"))[:, 0])
    while run.steps < steps and not run.finished:
        run.advance()
    return run


def found_in(F, count, **options):
    return quadrature(F, Quadrature(probes=2, distinct=count, **options), scale=1.0, seed=1)


def once(values, apart=1e-9):
    """Each of some eigenvalues once, descending."""
    kept = []
    for value in np.sort(values)[::-1]:
        if not kept or kept[-1] - value > apart:
            kept.append(float(value))
    return torch.tensor(kept, dtype=torch.float64)


@pytest.mark.parametrize("deflate", [0, 3])
@pytest.mark.parametrize("wrapped", [torch.as_tensor, Single], ids=["float64", "float32"])
@pytest.mark.parametrize("name", SPECTRA)
def test_every_eigenvalue_once(name, wrapped, deflate):
    F = planted(SPECTRA[name])
    # What products in float32 are products with.
    matrix = F.float().double() if wrapped is Single else F
    truth = once(np.linalg.eigvalsh(matrix.numpy()), 1e-6)
    found = found_in(wrapped(F), 7, deflate=deflate).distinct
    assert len(found) == 7
    assert bool(((found.values - truth[:7]).abs() <= found.errors).all())
    assert bool((found.errors <= 1e-4 * truth[0]).all())
    # Distinct by themselves: no interval meets the next.
    low, high = found.values - found.errors, found.values + found.errors
    assert bool((low[:-1] > high[1:]).all())


def test_copies_are_there_and_not_reported():
    run = recurred(planted(SPECTRA["decaying"]), 80)
    nodes = sifted(run.measures()[0]).values
    near = (nodes[:, None] - nodes.new_tensor(SPECTRA["decaying"][:5])).abs() < 1e-10
    assert bool((near.sum(0) > 2).all())
    found = distinct(run.measures(), 5, 1e-6)
    assert torch.allclose(found.values, nodes.new_tensor(SPECTRA["decaying"][:5]), atol=1e-13)
    # One may be on its way there still.
    assert bool(((found.copies <= near.sum(0)) & (found.copies >= near.sum(0) - 1)).all())


@pytest.mark.parametrize("steps", [14, 23, 37, 60])
@pytest.mark.parametrize("name", SPECTRA)
def test_spurious_as_cullum_and_willoughby_have_it(name, steps):
    """What has nothing of the start in it is an eigenvalue of T without its first row, too."""
    measure = recurred(planted(SPECTRA[name]), steps).measures()[0]
    off = measure.betas[:-1].numpy()
    T = np.diag(measure.alphas.numpy()) + np.diag(off, 1) + np.diag(off, -1)
    values, smaller = np.linalg.eigvalsh(T), np.linalg.eigvalsh(T[1:, 1:])
    told = sifted(measure)
    assert np.allclose(np.sort(told.values.numpy()), values, atol=1e-12)
    scale = np.abs(values).max()
    for value, spurious, weight in zip(
        told.values.tolist(), told.spurious.tolist(), told.weights.tolist(), strict=True
    ):
        nearest = np.abs(smaller - value).min()
        if spurious:
            assert nearest < 1e-12 * scale
        elif nearest > 1e-9 * scale:
            assert weight > 1e-24


def test_where_a_threshold_decides_there_are_both_kinds():
    told = sifted(recurred(planted(SPECTRA["decaying"]), 60).measures()[0])
    assert 0 < int(told.spurious.sum()) < 40


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.floats(0.0, 5.0), st.sampled_from([1.0, 2.0, 2.0 + 1e-7])),
        min_size=1,
        max_size=25,
    ),
    count=st.integers(1, 8),
    deflate=st.integers(0, 3),
    single=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_spectrum(values, count, deflate, single, seed):
    F = planted(values, seed % 89)
    matrix = F.float().double() if single else F
    truth = torch.as_tensor(np.linalg.eigvalsh(matrix.numpy()))
    options = Quadrature(probes=2, distinct=count, deflate=deflate, tolerance=1e-3, maximum=3000)
    density = quadrature(Single(F) if single else F, options, scale=1.0, seed=seed)
    found = density.distinct
    assert len(found) <= count
    largest = float(truth.max())
    if largest > 0.0:
        slack = 1e-14 * largest
        away = (truth[:, None] - found.values).abs() - found.errors
        assert bool((away.min(0).values <= slack).all())
        assert bool((found.errors <= 1e-3 * largest * (1 + 1e-9)).all())
        # Nothing larger than the last is missing, but what is as close as the tolerance.
        if len(found):
            apart = (truth[:, None] - found.values).abs().min(1).values
            missed = (truth > float(found.values[-1])) & (apart > 2e-3 * largest)
            assert not bool(missed.any())
    low, high = found.values - found.errors, found.values + found.errors
    assert bool((low[:-1] > high[1:]).all())
    assert density.least_rank <= int((truth > 0).sum())


def test_the_same_steps_as_with_a_basis_at_first():
    F = planted(SPECTRA["power"])
    start = sphere(150, 3, range(1), torch.device("cpu"))
    kept = Recurrence(Operator(F), start)
    bare = ThreeTerm(Operator(F), start[:, 0])
    for _ in range(8):
        kept.advance()
        bare.advance()
    mine, theirs = bare.measures()[0], kept.measures()[0]
    assert torch.allclose(mine.alphas, theirs.alphas, atol=1e-10)
    assert torch.allclose(mine.betas, theirs.betas, atol=1e-10)
    assert (theirs.orthogonal, mine.orthogonal) == (True, False)


def test_three_vectors_at_most():
    n, seen = 12_347, []
    diagonal = torch.linspace(0.0, 1.0, n, dtype=torch.float64)

    class Counting:
        shape = (n, n)

        def __matmul__(self, v):
            found = diagonal * v
            held = {
                t.untyped_storage().data_ptr()
                for t in gc.get_objects()
                if type(t) is torch.Tensor and t.numel() == n and t is not diagonal
            }
            seen.append(len(held))
            return found

    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = ThreeTerm(Operator(Counting()), start)
    del start
    gc.collect()
    for _ in range(6):
        run.advance()
    assert max(seen[1:]) == 3


def test_one_run_gives_the_sums_too():
    F = planted(SPECTRA["power"])
    exact = torch.as_tensor(np.linalg.eigvalsh(F.numpy())).clamp_min(0)
    found = quadrature(F, Quadrature(probes=12, distinct=6), scale=30.0, seed=5)
    assert torch.allclose(found.eigenvalues, exact.flip(0)[:6], atol=1e-8)
    assert found.steps[1] > 2 * found.steps[0]  # the first probe goes on alone
    for estimate, truth in [
        (found.logdet(30.0), torch.log1p(30 * exact)),
        (found.trace, exact),
        (found.effective_dimension(0.1), exact / (exact + 0.1)),
    ]:
        low, high = estimate.interval(1 - 1e-6)
        assert low < float(truth.sum()) < high
    assert found.mass == 150
    assert 6 <= found.least_rank <= 150
    assert found.products == sum(len(m) for m in found.probes)


def test_vectors_taken_out_spare_steps():
    """In float32 copies come early; the numbers are the same."""
    F = Single(planted([1 / (k + 1.0) for k in range(600)]))
    plain, beside = (found_in(F, 24, deflate=deflate, tolerance=1e-3) for deflate in (0, 4))
    apart = (plain.eigenvalues - beside.eigenvalues).abs()
    assert bool((apart <= plain.residuals + beside.residuals).all())
    assert beside.products < plain.products


def test_locked_vectors_are_those_of_the_largest():
    F = planted(SPECTRA["close"])
    operator = Operator(F)
    start = sphere(len(F), 2, range(1), torch.device("cpu"))[:, 0]
    measure = recurred(F, 60, seed=2).measures()[0]
    found = lock(operator, start, measure, 4, 1e-4)
    values, vectors = np.linalg.eigh(F.numpy())
    top = torch.as_tensor(vectors[:, ::-1][:, :4].copy())
    assert torch.allclose((found.rows @ top).abs(), torch.eye(4, dtype=torch.float64), atol=1e-7)
    assert torch.allclose(found.rows @ found.rows.T, torch.eye(4).double(), atol=1e-13)
    assert torch.allclose(found.values, torch.as_tensor(values[::-1][:4].copy()), atol=1e-12)
    residual = F @ found.rows.T - found.rows.T @ (found.rows @ F @ found.rows.T)
    assert float(residual.norm()) <= found.coupling < 1e-7
    v = torch.randn(len(F), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    P = torch.eye(len(F)).double() - found.rows.T @ found.rows
    assert torch.allclose(Beside(operator, found.rows) @ (P @ v), P @ F @ P @ v, atol=1e-12)


def test_a_state_goes_on_to_the_same_bits():
    F, options, states = planted(SPECTRA["close"]), Quadrature(probes=3, distinct=4), []
    whole = quadrature(F, options, scale=10.0, seed=4, keep=states.append)
    assert len(states) == 3  # the search is the first probe
    for state in states:
        again = quadrature(F, options, scale=10.0, seed=4, state=state)
        assert torch.equal(whole.eigenvalues, again.eigenvalues)
        assert whole.logdet(10.0) == again.logdet(10.0)
    with pytest.raises(ChoiceError, match="state"):
        quadrature(F, Quadrature(probes=3, distinct=5), scale=10.0, seed=4, state=states[1])


def test_small_large_and_nothing():
    for scale in (1e-100, 1e100):
        found = found_in(scale * planted(SPECTRA["close"]), 3).distinct
        assert (found.values / scale).tolist() == pytest.approx([1.0, 0.999, 0.998], abs=1e-9)
    assert len(found_in(torch.zeros(6, 6, dtype=torch.float64), 2).distinct) == 0
    one = found_in(2.0 * torch.eye(5, dtype=torch.float64), 3)
    assert one.eigenvalues.tolist() == pytest.approx([2.0])
    assert one.least_rank == 1
    assert len(found_in(torch.zeros(0, 0, dtype=torch.float64), 3).eigenvalues) == 0


def test_what_cannot_be_had_is_refused():
    F = planted(SPECTRA["power"])
    with pytest.raises(EstimateError, match="did not settle 9 eigenvalues"):
        found_in(F, 9, maximum=15)
    # Products in float32 do not tell eigenvalues to 1e-9 of the largest.
    with pytest.raises(EstimateError, match="did not settle"):
        found_in(Single(F), 2, tolerance=1e-9, maximum=60)
    with pytest.raises(EstimateError, match="not symmetric"):
        found_in(F + torch.triu(F, 1), 2)
    with pytest.raises(EstimateError, match="NaN"):
        found_in(F * math.nan, 2)
    with pytest.raises(ChoiceError, match="one vector at a time"):
        Quadrature(distinct=3, block=4)
    with pytest.raises(ChoiceError, match="vectors"):
        quadrature(F, Quadrature(distinct=3), vectors=torch.eye(150, 2))
    for bad in ({"distinct": -1}, {"tolerance": 0.0}, {"maximum": 1}):
        with pytest.raises(ChoiceError, match="is not a choice"):
            Quadrature(**bad)
    assert Quadrature().deflated == 10
    assert Quadrature(distinct=3).deflated == 0
