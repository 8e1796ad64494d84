import re
from itertools import pairwise

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.assess import passes, planning
from lightlike.assess.planning import format_seconds, product_rate
from lightlike.errors import CapacityError, ChoiceError, LightlikeError
from lightlike.metric.alternatives import estimates


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
    *exact, estimate = plans.alternatives
    assert {plans.method, *(r.method for r in exact)} == {"gram", "metric", "svd"}
    assert [r.operations for r in exact] == sorted(r.operations for r in exact)
    assert (estimate.method, estimate.exact) == ("kronecker", False)
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
    assert len(lines) == 7
    assert "D = 14 parameters, N = 300 observations, K = 600 rows" in lines[0]
    assert lines[1].startswith("route    metric: eigenvalues of the 14 × 14 Fisher matrix; exact")
    assert lines[2].startswith("cost     under 1 s, ")
    assert "of 2.15 GB" in lines[2]
    # The Fisher matrix has a size of its own, however many observations there are.
    assert lines[3] == "exact    with any number of observations, in this memory"
    assert all(line.startswith("or") for line in lines[4:])
    assert [line.rsplit("; ", 1)[1] for line in lines[4:]] == ["exact", "exact", "approximate"]
    assert max(map(len, lines)) <= 120
    tight = ll.plan(*problem(300, (3, 2, 2), "gaussian"), memory="1 MB")
    # The Gram matrix of 600 rows takes 2.9 MB; what fits comes first.
    assert not any(r.fits(tight.budget) for r in tight.alternatives[2:] if r.method == "gram")
    fits = [r.fits(tight.budget) for r in tight.alternatives]
    assert fits == sorted(fits, reverse=True)


@pytest.mark.parametrize("method", ["auto", "kronecker", "slq", "sketch"])
def test_three_alternatives_that_fit_and_are_exact_first(method):
    p = ll.plan(*problem(60, (4, 6, 3)), method=method, memory="1 GB")
    assert len(p.alternatives) == 3
    assert p.method not in {r.method for r in p.alternatives}
    exact = [r.exact for r in p.alternatives]
    assert exact == sorted(exact, reverse=True)
    assert p.exact == (method == "auto")
    records = p.to_frame().to_dict("records")
    assert [r["method"] for r in records] == [p.method, *(r.method for r in p.alternatives)]
    assert all(r["seconds"] > 0 and r["memory"] > 0 for r in records)


def test_time_is_operations_over_the_rate(monkeypatch):
    case = problem(90, (4, 6, 3))  # K = 180, D = 51
    times = {}
    for rate in (1e6, 1e9):
        monkeypatch.setattr(planning, "product_rate", lambda _, rate=rate: rate)
        monkeypatch.setattr(planning, "pass_seconds", lambda _: 0.0)
        times[rate] = ll.plan(*case, method="metric", memory="1 GB")
    slow, fast = times[1e6], times[1e9]
    assert slow.seconds == pytest.approx(1000 * fast.seconds, rel=1e-12)
    assert slow.rate == 1e6
    # The product alone takes 2 K D², and the time cannot be less; its eigenvalues are told too.
    K, D = 180, 51
    product, eigenvalues = 2 * K * D**2, 4 * 4 / 3 * D**3
    assert slow.seconds > (product + eigenvalues) / 1e6
    ranks = sum(2 * K * d**2 + 4 * 4 / 3 * d**3 for d in (30, 21))
    rows = 6 * K * D
    # Rows are written out for the matrix, and once for the columns of each layer.
    expected = product + eigenvalues + D**3 / 3 + rows + ranks + rows
    assert slow.seconds == pytest.approx(expected / 1e6, rel=1e-9)
    assert slow.time_of(slow.alternatives[0]) > slow.alternatives[0].operations / 1e6


def test_rows_are_back_propagated_for_the_route_the_length_and_each_layer(monkeypatch):
    monkeypatch.setattr(planning, "product_rate", lambda _: 1e30)
    monkeypatch.setattr(planning, "pass_seconds", lambda _: 3.0)
    case = problem(90, (4, 6, 3))
    assert ll.plan(*case, memory="1 GB").seconds == pytest.approx(3.0 * (1 + 1 + 2))
    p = ll.plan(*case, method="slq", memory="1 GB")
    # 16 probes of 21 products, 10 leading vectors, 20 for the displacement; four passes of one row
    # where an observation has two.
    products = 16 * 21 + 5 * 10 + 20
    assert p.seconds == pytest.approx(3.0 * 4 * products / 2)


def test_a_pass_is_timed_by_one_backward_pass_of_the_first_batch(monkeypatch):
    model, _, likelihood = problem(1, (4, 6, 3))
    batches = [(torch.randn(n, 4), torch.arange(n) % 3) for n in (10, 10, 5)]
    F = ll.fisher(model, batches, likelihood)
    clock = iter([5.0, 5.5])
    monkeypatch.setattr(passes.time, "perf_counter", lambda: next(clock))
    # Half a second for ten samples: 1.25 for all 25 of them, for each of their two rows.
    assert passes.pass_seconds(F.root) == pytest.approx(2 * 1.25)


def test_the_rate_is_measured_once(monkeypatch):
    product_rate.cache_clear()
    clock, reads = iter(range(100)), []
    monkeypatch.setattr(planning.time, "perf_counter", lambda: reads.append(0) or next(clock))
    assert product_rate(torch.device("cpu"), 16) == 2 * 16**3
    assert product_rate(torch.device("cpu"), 16) == 2 * 16**3
    assert len(reads) == 6
    product_rate.cache_clear()


@pytest.mark.parametrize("memory", ["4 MB", "16 MB"])
def test_the_largest_exact_number_of_observations_is_where_the_routes_stop(memory):
    model, _, likelihood = problem(1, (6, 60, 3))
    D = 6 * 60 + 60 + 60 * 3 + 3

    def asked(N):
        batches = [(torch.randn(10, 6), torch.arange(10) % 3) for _ in range(N // 10)]
        return ll.plan(model, batches, likelihood, memory=memory)

    most = asked(20).largest
    assert most is not None
    # Three matrices of K × K or of D × D have to fit, whatever else does.
    assert 3 * 8 * min(2 * most, D) ** 2 <= int(memory.split()[0]) * 2**20
    last = most - most % 10
    assert last > 50
    assert asked(last).largest == most
    assert asked(last).exact
    with pytest.raises(CapacityError, match=rf"at most {most:,} observations"):
        asked(last + 10)


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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_does_not_fit_can_be_estimated_and_all_ways_are_named(dtype):
    model, _, likelihood = problem(1, (6, 20, 9))
    data = [(torch.randn(50, 6), torch.arange(50) % 9) for _ in range(4)]
    F = ll.fisher(model, data, likelihood, dtype=dtype)
    found = {r.method: r for r in estimates(F.root, 2 << 20)}
    names = {"kronecker", "sketch"} | ({"slq", "lanczos"} if dtype == "float64" else set())
    assert set(found) == names
    assert sorted(found.values(), key=lambda r: (not r.fits(2 << 20), r.operations)) == list(
        found.values()
    )
    with pytest.raises(CapacityError) as caught:
        ll.measure(model, data, likelihood, memory=2 << 20, dtype=dtype, progress=False)
    with pytest.raises(CapacityError) as asked:
        F.decomposition("auto", 2 << 20).spectrum.rank()
    for message in (str(caught.value), str(asked.value)):
        told = message.split("the cheapest first: ")[1]
        assert re.findall(r"method='(\w+)'", told) == list(found)
        for route in found.values():
            assert f"{route.reason}) takes {route.operations:.1e} operations" in told
        assert told.count("too much here") == sum(not r.fits(2 << 20) for r in found.values())
    for name in names:
        options = {"method": name, "memory": 2 << 20, "dtype": dtype, "progress": False}
        if found[name].fits(2 << 20):
            assert ll.measure(model, data, likelihood, **options).length.complexity > 0
