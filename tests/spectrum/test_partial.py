"""A spectrum that holds the largest eigenvalues only is never read as a whole one."""

import json
from dataclasses import replace

import pytest
import torch

import lightlike as ll
from lightlike.errors import UndefinedError
from lightlike.geometry.dimension import dimension_of, significant_dimension_of
from lightlike.present import plots
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.spectrum import Spectrum

VALUES = [5.0, 2.0, 1.0]


def partial(trace=None, **changes):
    return Eigenvalues(
        eigenvalues=torch.tensor(VALUES, dtype=torch.float64),
        trace=trace,
        shape=(6, 10),
        kind="certified",
        method="lanczos",
        floor=0.9,
        residue=0.0,
        rank_bounds=(3, 6),
        whole=False,
        deviations=(0.01, 0.02, 0.05),
        **changes,
    )


REFUSED = {
    "trace": lambda s: s.trace,
    "rank": lambda s: s.rank(),
    "rank at a tolerance": lambda s: s.rank(1e-3),
    "above": lambda s: s.above(0.5),
    "above, within an error": lambda s: s.above(1.97 + 0.01),
    "effective dimension": lambda s: s.effective_dimension(1.0),
    "participation ratio": lambda s: s.participation_ratio(),
    "stable rank": lambda s: s.stable_rank(),
    "entropy dimension": lambda s: s.entropy_dimension(),
    "logdet": lambda s: s.logdet(1.0),
    "plateau": lambda s: plots.plot_plateau(s, dimension_of(s)),
}


@pytest.mark.parametrize("question", REFUSED)
def test_what_takes_all_eigenvalues_is_refused(question):
    with pytest.raises(UndefinedError, match=r"lanczos.*0.9.*auto"):
        REFUSED[question](Spectrum(partial()))


@pytest.mark.parametrize("question", REFUSED)
def test_the_same_questions_to_a_whole_spectrum(question):
    whole = Spectrum(replace(partial(trace=8.0), whole=True, floor=1e-14, deviations=None))
    assert REFUSED[question](whole) is not None


def test_what_the_largest_do_tell():
    s = Spectrum(partial())
    assert (s.whole, len(s), s.largest, s.floor) == (False, 3, 5.0, 0.9)
    assert s.errors.tolist() == [0.01, 0.02, 0.05]
    assert (s.above(1.5), s.above(3.0), s.above(0.92), s.above(6.0)) == (2, 1, 3, 0)
    assert s.rank(0.5) == 2  # singular values above half the largest: λ > 5/4
    assert Spectrum(partial(trace=9.5)).trace == 9.5


def test_counts_have_bounds_on_both_sides():
    s = Spectrum(partial())
    below = s.count(0.5)
    assert (below.value, below.lower, below.upper) == (3, 3, 6)
    close = s.count(1.99)
    assert (close.lower, close.upper) == (1, 2)
    found = dimension_of(s)
    assert (found.lower, found.upper, found.kind) == (3, 6, "certified")
    assert significant_dimension_of(s, 0.5).kind == "certified"
    assert significant_dimension_of(s, 1.5).kind == "exact"


def test_it_says_so():
    assert "only the 3 largest" in repr(Spectrum(partial()))
    chart = plots.plot_spectrum(Spectrum(partial()), dimension_of(Spectrum(partial())))
    texts = [t.get_text() for t in chart.findobj(lambda a: hasattr(a, "get_text"))]
    assert any("Only the 3 largest" in t for t in texts)
    assert any("not computed" in t for t in texts)
    assert not any("d̂" in t for t in texts)


@pytest.fixture(scope="module")
def measured():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    g = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=g)
    return ll.measure(model.eval(), (x, torch.arange(8) % 2), "categorical", layers=False)


def test_a_measurement_that_holds_one(measured, tmp_path):
    held = replace(measured, spectrum=Spectrum(partial()))
    held.save(tmp_path / "m.safetensors")
    again = ll.load(tmp_path / "m.safetensors")
    assert again.spectrum == held.spectrum
    assert not again.spectrum.whole
    assert "only the 3 largest" in str(again)
    content = json.loads(json.dumps(again.to_dict()))["spectrum"]
    assert content["whole"] is False
    assert content["trace"] is None
    path = tmp_path / "m.html"
    ll.report(again, path)
    page = path.read_text()
    assert "The 3 largest only." in page
    assert "participation ratio" not in page
    assert again.spectrum != measured.spectrum
