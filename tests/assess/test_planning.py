from itertools import pairwise

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.assess.planning import format_seconds, product_rate
from lightlike.errors import CapacityError, ChoiceError, LightlikeError


def problem(N, widths, likelihood="categorical"):
    torch.manual_seed(0)
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())]
    x = torch.randn(N, widths[0])
    y = torch.arange(N) % widths[-1] if likelihood == "categorical" else torch.randn(N, widths[-1])
    return nn.Sequential(*layers[:-1]), (x, y), likelihood


SHAPES = {
    "few rows": (8, (6, 20, 3), "categorical"),
    "many rows": (300, (3, 2, 2), "gaussian"),
    "square": (40, (4, 6, 3), "categorical"),
}
FIELDS = ("parameters", "observations", "rows")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["auto", "gram", "metric", "svd"])
def test_measure_does_what_the_plan_says(shape, method):
    case = problem(*SHAPES[shape])
    p = ll.plan(*case, method=method, memory="1 GB")
    m = ll.measure(*case, method=method, memory="1 GB", progress=False)
    # Small singular values are refined by a decomposition of A; the reason says so.
    assert m.spectrum.method in (p.method, "svd")
    assert m.record["reason"].startswith(p.reason)
    assert p.exact
    assert m.spectrum.kind == "exact"
    assert [getattr(p, f) for f in FIELDS] == [getattr(m, f) for f in FIELDS]
    assert method in ("auto", p.method)


def test_auto_takes_the_smaller_side():
    assert ll.plan(*problem(*SHAPES["few rows"])).method == "gram"
    assert ll.plan(*problem(*SHAPES["many rows"])).method == "metric"


def test_a_tight_budget_changes_the_route_of_both():
    case = problem(300, (3, 2, 2), "gaussian")
    plans = ll.plan(*case, memory=10**9)
    *exact, sketch = plans.alternatives
    assert {plans.method, *(r.method for r in exact)} == {"gram", "metric", "svd"}
    assert [r.operations for r in exact] == sorted(r.operations for r in exact)
    assert (sketch.method, sketch.exact) == ("sketch", False)
    needs = {r.method: r.memory for r in exact} | {plans.method: plans.memory}
    for budget in sorted(needs.values()):
        p = ll.plan(*case, memory=budget + 1)
        m = ll.measure(*case, memory=budget + 1, progress=False, layers=False)
        assert p.method == m.record["method"]
        assert p.memory <= budget + 1


@pytest.mark.parametrize("method", ["auto", "gram", "metric", "svd"])
@pytest.mark.parametrize("call", [ll.plan, ll.measure])
def test_what_does_not_fit_is_refused_with_sizes(call, method):
    case = problem(50, (6, 20, 3))
    with pytest.raises(CapacityError, match=r"No exact route fits in 1\.02 kB") as caught:
        call(*case, method=method, memory="1 KB")
    message = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, LightlikeError)
    for text in ("100", "203", "parameters=", "memory="):
        assert (
            text in message
            or (method == "gram" and text == "203")
            or (method == "metric" and text == "100")
        )
    assert message.count("needs") == (3 if method == "auto" else 1)


def test_a_refused_measurement_leaves_no_file(tmp_path):
    out = tmp_path / "m.ll"
    with pytest.raises(CapacityError):
        ll.measure(*problem(50, (6, 20, 3)), memory=1000, out=out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"method": "lanczos!"}, {"memory": "plenty"}, {"memory": -1}])
@pytest.mark.parametrize("call", [ll.plan, ll.measure])
def test_unknown_choices(call, options):
    with pytest.raises(ChoiceError):
        call(*problem(4, (2, 2)), **options)


def test_it_prints_itself():
    p = ll.plan(*problem(300, (3, 2, 2), "gaussian"), memory="2 GB")
    text = str(p)
    lines = text.splitlines()
    assert len(lines) == 6
    assert "D = 14 parameters, N = 300 observations, K = 600 rows" in lines[0]
    assert lines[1].startswith("route    metric: eigenvalues of the 14 × 14 Fisher matrix; exact")
    assert "of 2.15 GB" in lines[2]
    assert all(line.startswith("or") for line in lines[3:])
    assert lines[5].startswith("or       sketch: 4 × ")
    assert "1 draw for 2 rows" in lines[5]
    assert lines[5].endswith("estimated")
    assert max(map(len, lines)) <= 120
    tight = ll.plan(*problem(300, (3, 2, 2), "gaussian"), memory="1 MB")
    assert str(tight).count("does not fit") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1e-3, "under 1 s"), (3.2, "about 3 s"), (119, "about 119 s"), (600, "about 10 min"),
     (3 * 3600, "about 3.0 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_rate_of_this_machine_is_plausible():
    assert 1e7 < product_rate(torch.device("cpu"), 128) < 1e15


def test_planning_leaves_the_model_alone():
    model, data, likelihood = problem(8, (6, 20, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ll.plan(model, data, likelihood)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
