"""Control variates: unbiased, never much worse, with intervals that cover."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import ChoiceError
from lightlike.spectrum.control import controlled, slopes


def normal(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 12), seed=st.integers(0, 1000))
def test_slopes_leave_one_out(n, seed):
    q, k = normal(n, seed=seed), normal(n, seed=seed + 1)
    for i, slope in enumerate(slopes(q, k).tolist()):
        rest = [j for j in range(n) if j != i]
        A = torch.stack([k[rest], torch.ones(n - 1, dtype=torch.float64)], 1)
        expected = torch.linalg.lstsq(A, q[rest, None]).solution[0, 0]
        assert slope == pytest.approx(float(expected), rel=1e-8, abs=1e-10)


def test_controls_that_say_all_leave_no_noise():
    k = normal(8)
    found = controlled(3 * k + 2, k, 0.7)
    assert found.value == pytest.approx(3 * 0.7 + 2)
    assert found.stderr == pytest.approx(0.0, abs=1e-12)


def test_constant_controls_change_nothing():
    q = normal(6)
    found = controlled(q, torch.full_like(q, 0.1), 0.1)
    assert found.value == pytest.approx(float(q.mean()))


def test_intervals_cover_and_are_shorter():
    """90 % over 2,000 repetitions, with a standard error of 0.7 %."""
    covered, widths = [], []
    for seed in range(2000):
        k = normal(10, seed=seed)
        q = 5 + 2 * k + 0.5 * normal(10, seed=seed + 10_000)
        found = controlled(q, k, 0.0)
        low, high = found.interval(0.9)
        covered.append(low <= 5 <= high)
        widths.append(found.stderr)
    assert sum(covered) / 2000 == pytest.approx(0.9, abs=0.025)
    plain = (4.25 / 10) ** 0.5
    assert sum(widths) / 2000 < 0.35 * plain


def test_too_few_are_refused():
    with pytest.raises(ChoiceError, match="4 or more"):
        controlled(normal(3), normal(3), 0.0)
    with pytest.raises(ChoiceError, match="as many"):
        controlled(normal(5), normal(4), 0.0)
