import re
from itertools import pairwise

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.assess import passes, rates
from lightlike.assess.passes import Passes, Plain, Product
from lightlike.assess.rates import Rates
from lightlike.errors import CapacityError, ChoiceError, LightlikeError
from lightlike.geometry.saturation import steps
from lightlike.meter import format_seconds
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
    chosen = ll.plan(*case, method="gram", memory=10**9).alternatives[0]
    assert chosen.method == plans.method
    needs = {r.method: r.memory for r in [*exact, chosen]}
    for budget in sorted(needs.values()):
        p = ll.plan(*case, memory=budget + 1, layers=False)
        m = ll.measure(*case, memory=budget + 1, progress=False, layers=False)
        assert p.method == m.record["method"]


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


RATE = 1e9
SLOW = Rates(
    product=RATE, memory=1e30, touch=1e30, hashing=1e30, values=0.0, vectors=0.0, singular=0.0,
    cholesky=RATE,
)  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """Passes without time, so that only operations are left; set what passes take by name."""
    found = {"rows": 0.0, "forward": 0.0, "backward": 0.0, "product": 0.0}
    monkeypatch.setattr(passes, "rates", lambda _: SLOW)
    plain = property(lambda _: Plain(found["forward"], found["backward"]))
    product = property(lambda _: Product(found["product"], 0.0, 0))
    monkeypatch.setattr(Passes, "plain", plain)
    monkeypatch.setattr(Passes, "rows", property(lambda _: found["rows"]))
    monkeypatch.setattr(Passes, "tile", None)
    layers = property(
        lambda self: dict.fromkeys(self.root.problem.selection.layers(), found["rows"])
    )
    monkeypatch.setattr(Passes, "layers", layers)
    for name in ("product", "foreseen"):
        monkeypatch.setattr(Passes, name, product)
    return found


@pytest.mark.usefixtures("counted")
def test_operations_of_every_stage_are_those_of_textbooks():
    case = problem(30, (4, 20, 3))  # K = 60, D = 163
    K, D = 60, 163
    p = ll.plan(*case, method="gram", memory="1 GB", layers=False)
    # K² inner products of rows: over units the numbers that the gradients at their outputs have.
    product, values, factorisation = K**2 * (20 + 3), 2 / 3 * K**3, K**3 / 3
    assert p.stages["Gram matrix"] == pytest.approx(product / RATE, rel=1e-9)
    assert p.stages["eigenvalues"] == pytest.approx(values / RATE, rel=1e-9)
    assert p.stages["length"] == pytest.approx(factorisation / RATE, rel=1e-9)
    assert p.seconds == pytest.approx(sum(p.stages.values()), rel=1e-12)
    assert "layers" not in p.stages
    p = ll.plan(*case, method="metric", memory="1 GB", layers=False, projections=False)
    assert p.stages["Fisher matrix"] == pytest.approx(K * D**2 / RATE, rel=1e-9)
    assert p.stages["eigenvalues"] == pytest.approx(2 / 3 * D**3 / RATE, rel=1e-9)
    # There are more parameters than rows: K eigenvalues are told from zero, or rows are.
    assert "refinement" not in p.stages
    p = ll.plan(*case, method="svd", memory="1 GB", layers=False)
    bidiagonal, compression = 4 / 3 * K**3, 2 * D * K**2 - 2 / 3 * K**3
    assert p.stages["singular values"] == pytest.approx((bidiagonal + compression) / RATE, rel=1e-9)


def test_rows_are_back_propagated_for_the_route_the_length_and_each_layer(counted):
    case = problem(90, (4, 6, 3))
    counted["rows"] = 3.0
    p = ll.plan(*case, method="gram", memory="1 GB")
    assert {"layers", "projections"} <= p.stages.keys()
    # The matrix, the length, the projections; for each of two layers, whose columns are fewer than
    # rows, its matrix, and three products with its columns to look at small eigenvalues.
    assert p.stages["Gram matrix"] == pytest.approx(3.0, rel=1e-3)
    assert p.stages["length"] == pytest.approx(3.0, rel=1e-2)
    assert p.stages["projections"] == pytest.approx(3.0, rel=1e-2)
    assert p.stages["layers"] == pytest.approx(2 * 4 * 3.0, rel=1e-2)


@pytest.mark.usefixtures("counted")
def test_refinement_is_planned_where_there_are_more_rows_than_parameters():
    case = problem(90, (4, 6, 3))  # K = 180, D = 51
    assert "refinement" in ll.plan(*case, method="metric", memory="1 GB").stages
    assert "refinement" in ll.plan(*case, method="gram", memory="1 GB").stages


def test_iterations_take_their_usual_number_of_products(counted):
    counted["product"] = 2.0
    case = problem(90, (4, 6, 3))
    # 16 probes of 20 steps and one more for the traces, 10 leading vectors, 20 for displacement.
    p = ll.plan(*case, method="slq", memory="1 GB")
    assert p.stages["products"] == pytest.approx(2.0 * (16 * 21 + 5 * 10 + 20))
    p = ll.plan(*case, method=ll.Lanczos(count=3), memory="1 GB")
    assert p.stages["products"] == pytest.approx(2.0 * (6 * 3 + 60 + 3 + 20))
    for method in ("kronecker", "sketch"):
        found = ll.plan(*problem(60, (4, 6, 5)), method=method, memory="1 GB").stages
        assert found["products"] == pytest.approx(2.0 * 20)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("option", ["explain", "saturation", "layers", "projections"])
def test_what_is_asked_for_besides_is_a_stage_of_its_own(option):
    case = problem(30, (4, 60, 3))
    none = dict.fromkeys(("layers", "projections"), False)
    without = ll.plan(*case, memory="1 GB", **none)
    p = ll.plan(*case, memory="1 GB", **none | {option: True})
    assert p.stages.keys() - without.stages.keys() == {option}
    assert p.seconds == pytest.approx(without.seconds + p.stages[option], rel=1e-9)
    assert p.memory >= without.memory


@pytest.mark.usefixtures("counted")
def test_saturation_takes_eigenvalues_of_every_size():
    case = problem(64, (4, 90, 3))
    p = ll.plan(*case, method="gram", memory="1 GB", saturation=True, layers=False)
    sizes = steps(64)
    assert sizes[0] == 1
    assert sizes[-1] == 64
    halves = [55, 60, 62, 63, 64]  # between 45 and 64, towards 64
    expected = sum(2 / 3 * (2 * n) ** 3 for n in sizes[:-1] + halves)
    assert p.stages["saturation"] == pytest.approx(expected / RATE, rel=0.05)


@pytest.mark.parametrize("option", ["explain", "saturation"])
def test_plan_refuses_what_measure_refuses(option):
    case = problem(30, (4, 6, 3))
    for call in (ll.plan, ll.measure):
        with pytest.raises(ChoiceError):
            call(*case, method="slq", **{option: True})


def test_a_pass_is_timed_by_a_part_of_the_first_batch():
    model, _, likelihood = problem(1, (4, 6, 3))
    batches = [(torch.randn(n, 4), torch.arange(n) % 3) for n in (10, 10, 5)]
    F = ll.fisher(model, batches, likelihood)
    found = Passes(F.root)
    # Ten of 25 samples.
    assert found.batches == 2.5
    trial = found._trial
    assert found.rows == pytest.approx(2.5 * (trial.fixed + trial.rows))
    assert found.fewer(25) == pytest.approx(2.5 * (trial.fixed + trial.rows / 2))
    # Of the layers 4 → 6 and 6 → 3, six and three gradients at the outputs of each row.
    assert list(trial.bytes.values()) == pytest.approx([8 * 6, 8 * 3])
    assert found.layers.keys() == F.root.problem.selection.layers().keys()


def test_rates_are_measured_once_for_a_number_of_threads(monkeypatch):
    rates._measured.cache_clear()
    clock, reads = iter(range(1000)), []
    monkeypatch.setattr(rates.time, "perf_counter", lambda: reads.append(0) or next(clock))
    device = torch.device("cpu")
    assert rates.rates(device).product == 2 * rates.PRODUCT**3
    assert rates.rates(device).touch == rates.TOUCHED
    first = len(reads)
    assert rates.rates(device) is rates.rates(device)
    assert len(reads) == first
    rates._measured.cache_clear()


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


def test_rates_of_this_machine_are_plausible():
    found = rates.rates(torch.device("cpu"))
    assert 1e7 < found.product < 1e15
    assert 1e6 < found.memory < 1e14
    assert found.eigenvectors(100) > found.eigenvalues(100) > 0
    assert found.singular_values(200, 100) > found.singular_values(100, 100) > 0


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
