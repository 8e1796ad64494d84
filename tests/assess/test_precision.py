"""Measurements in float32 on request, and models whose own type is a smaller one."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, PriorError
from oracles import networks as nets

X = nets.normal(40, 5).float()
Y = torch.arange(40) % 3


def net(seed=0, widths=(5, 8, 3)):
    return nets.fill(nets.mlp(list(widths), "tanh"), seed)


def measured(model=None, data=(X, Y), dtype="float32", **options):
    return ll.measure(model or net(), data, "categorical", dtype=dtype, progress=False, **options)


def test_float64_is_the_default_and_exact():
    m = measured(dtype="float64")
    plain = ll.measure(net(), (X, Y), "categorical", progress=False)
    assert (m.record["dtype"], m.spectrum.kind, m.dimension.kind) == ("float64", "exact", "exact")
    assert torch.equal(m.spectrum.eigenvalues, plain.spectrum.eigenvalues)
    assert m.spectrum.rounding is None
    assert m.length.error == m.length.complexity_error == m.length.displacement_error == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("asked", ["float64", "float32"])
def test_models_of_a_smaller_type_are_measured_as_if_converted_by_hand(dtype, asked):
    model = net().to(dtype)
    x = X.to(dtype)
    by_hand = copy.deepcopy(model).to(getattr(torch, asked))
    one = measured(model, (x, Y), asked)
    two = measured(by_hand, (x.to(getattr(torch, asked)), Y), asked)
    assert torch.equal(one.spectrum.eigenvalues, two.spectrum.eigenvalues)
    assert one.length.to_dict() == two.length.to_dict()
    assert one.dimension == two.dimension
    assert (
        one.record["fingerprint"]["model"]
        == measured(by_hand.double()).record["fingerprint"]["model"]
    )


def test_a_full_rank_in_float32_is_not_called_exact():
    m = measured(net(widths=(5, 40, 3)), (X[:8], Y[:8]), method="svd")
    d = m.dimension
    assert (d.lower, d.upper, d.kind) == (16, 16, "certified")
    assert "certified" in str(m)
    assert "exact" not in str(m)
    assert [layer.dimension.kind for layer in m.layers] == ["certified"] * 2
    F = ll.fisher(net(widths=(5, 40, 3)), (X[:8], Y[:8]), "categorical", dtype="float32")
    for above in (1e-3, 0.0):
        assert ll.dimension(F, above=above).kind == "certified"


def test_the_result_says_what_it_is_worth():
    m = measured()
    exact = measured(dtype="float64")
    assert m.record["dtype"] == "float32"
    assert m.record["precision"] == torch.finfo(torch.float32).eps
    assert m.dimension.lower <= int(exact.dimension) <= m.dimension.upper
    note = next(w for w in m.warnings if "float32" in w)
    assert "certain from below only" in note
    assert "dtype='float64'" in note
    line = next(line for line in str(m).splitlines() if line.startswith("spectrum"))
    assert re.search(r"certified by \w+, float32, floor \S+, λ_1 ± ", line)
    assert "at most" in next(line for line in str(m).splitlines() if line.startswith("dimension"))
    assert "(rounding)" in next(line for line in str(m).splitlines() if line.startswith("length"))
    assert m.dimension.tolerance == pytest.approx((m.spectrum.floor / m.spectrum.largest) ** 0.5)
    assert m.spectrum.rank() == len(m.spectrum)
    # What float32 has no part in.
    assert m.length.fit == exact.length.fit
    assert torch.equal(m.nll, exact.nll)
    for name in ("aic", "bic", "uniform", "label_entropy"):
        assert m.criteria[name] == exact.criteria[name]


def test_files_keep_the_bounds(tmp_path):
    m = measured(out=tmp_path / "result.safetensors")
    again = ll.load(tmp_path / "result.safetensors")
    assert again.spectrum.rounding == m.spectrum.rounding
    assert torch.equal(again.spectrum.errors, m.spectrum.errors)
    assert again.spectrum.logdet_error(3.0) == m.spectrum.logdet_error(3.0) > 0
    assert again.length.to_dict() == m.length.to_dict()
    assert str(again) == str(m)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float16, "double", 32, None])
def test_other_types_are_refused_with_the_choices(dtype):
    for call in (ll.measure, ll.fisher, ll.plan):
        with pytest.raises(ChoiceError, match="'float64', 'float32'"):
            call(net(), (X, Y), "categorical", dtype=dtype)


def test_torch_dtypes_are_choices_too():
    F = ll.fisher(net(), (X, Y), "categorical", dtype=torch.float32)
    G = ll.fisher(net(), (X, Y), "categorical", dtype="float32")
    assert torch.equal(F.root.gram(), G.root.gram())
    assert F.dtype == F.root.gram().dtype == torch.float64


def test_the_plan_promises_nothing_exact():
    plan = ll.plan(net(), (X, Y), "categorical", dtype="float32")
    exact = ll.plan(net(), (X, Y), "categorical")
    assert (plan.exact, plan.dtype, exact.exact, exact.dtype) == (False, "float32", True, "float64")
    assert "float32" in str(plan)
    assert "exact" not in str(plan).splitlines()[1]


def test_half_the_memory_for_gradients():
    one, two = (
        ll.fisher(net(), (X, Y), "categorical", dtype=dtype).root
        for dtype in ("float32", "float64")
    )
    assert one.footprint().factors == 0.5 * two.footprint().factors
    held = [
        sum(f.nbytes for b in root.blocks("test") for f in b.factors.values())
        for root in (one, two)
    ]
    assert held[0] == 0.5 * held[1]
    assert one.cost().gram_operations == 0.5 * two.cost().gram_operations


@pytest.mark.parametrize("labels", [True, False])
def test_sketches_are_of_float32_too(labels):
    data = (X, Y) if labels else (X,)
    model, sketch = net(widths=(5, 8, 6)), ll.Sketch(draws=2, repetitions=3)
    one, two = (
        ll.measure(model, data, "categorical", dtype=dtype, method=sketch, progress=False)
        for dtype in ("float32", "float64")
    )
    assert one.spectrum.kind == two.spectrum.kind == "estimated"
    k = min(len(one.spectrum), len(two.spectrum))
    apart = (one.spectrum.eigenvalues[:k] - two.spectrum.eigenvalues[:k]).abs()
    assert bool((apart <= one.spectrum.errors[:k]).all())
    assert abs(one.length.complexity - two.length.complexity) <= one.length.complexity_error
    assert one.dimension.kind == "certified"
    assert one.dimension.lower <= two.dimension.upper
    assert any("Computed in float32" in w for w in one.warnings)
    if labels:  # exact products, in float64 whatever the dtype
        assert one.length.displacement == pytest.approx(two.length.displacement, abs=1e-9)


def test_products_are_those_of_one_matrix():
    root = ll.fisher(net(), (X,), "categorical", dtype="float32").root
    v, u = nets.normal(root.shape[1]), nets.normal(root.shape[0])
    assert float(u @ root.mv(v)) == pytest.approx(float(v @ root.rmv(u)), rel=1e-12)
    exact = ll.fisher(net(), (X,), "categorical").root
    assert float((root.mv(v) - exact.mv(v)).norm() / exact.mv(v).norm()) < 1e-5


@pytest.mark.parametrize("variance", ["layers", "ramp"])
@pytest.mark.parametrize("method", ["gram", "metric"])
def test_priors_of_unequal_variances(variance, method):
    size = 5 * 8 + 8 + 8 * 3 + 3
    scale = torch.linspace(0.1, 3.0, size, dtype=torch.float64)
    if variance == "layers":
        scale = torch.cat([torch.full((48,), 0.5), torch.full((27,), 2.0)]).double()
    prior = ll.priors.PerParameter(scale)
    one, two = (
        measured(dtype=d, prior=prior, method=method).length for d in ("float32", "float64")
    )
    assert 0 < abs(one.complexity - two.complexity) <= one.complexity_error
    assert 0 < abs(one.displacement - two.displacement) <= one.displacement_error
    assert one.error < 0.01 * two.complexity


def test_a_prior_fitted_in_float32_is_near_that_in_float64():
    prior = ll.priors.Isotropic("evidence")
    model = net()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimiser.step()
    one, two = (measured(model, dtype=d, prior=prior).length for d in ("float32", "float64"))
    assert one.prior["variance"] == pytest.approx(two.prior["variance"], rel=1e-3)
    assert one.total == pytest.approx(two.total, abs=1e-3)


def test_a_prior_too_wide_for_float32_is_told_or_refused():
    wide = ll.priors.Isotropic(1e7)
    m = measured(prior=wide)
    exact = measured(dtype="float64", prior=wide)
    assert abs(m.length.complexity - exact.length.complexity) <= m.length.complexity_error
    assert any("leaves the length open" in w for w in m.warnings)
    assert not any("leaves the length open" in w for w in measured().warnings)
    with pytest.raises(CapacityError, match=r"Products in float32.*dtype='float64'"):
        measured(net(widths=(5, 200, 3)), prior=wide, method="gram", memory=4.5e6)


def test_parameters_without_variance_away_from_the_mean_are_refused():
    variance = torch.ones(75, dtype=torch.float64)
    variance[:5] = 0.0
    with pytest.raises(PriorError, match="dtype='float64'"):
        measured(prior=ll.priors.PerParameter(variance))


def test_what_is_cast_down_inside_stays_in_the_bound():
    """The reference in float64 is no better than the model's own casts let it be."""

    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            return self.net(x.bfloat16().to(x.dtype)).bfloat16().to(x.dtype)

    m = measured(Casting())
    assert m.spectrum.rounding.reference == torch.finfo(torch.bfloat16).eps
    assert m.spectrum.floor > 1e-3 * m.spectrum.largest


def test_the_user_s_settings_come_back(untouched):
    model = net()
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with untouched(model, X, Y):
        measured(model)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_the_model_runs_in_float32_indeed():
    seen = set()

    class Watching(nn.Linear):
        def forward(self, x):
            seen.add((x.dtype, self.weight.dtype, torch.get_default_dtype()))
            return super().forward(x)

    torch.manual_seed(0)
    model = Watching(5, 3).double()
    F = ll.fisher(model, (X.double(), Y), "categorical", dtype="float32")
    F.root.sweep  # noqa: B018
    assert seen == {(torch.float32,) * 3}
    F.root.gram()
    assert seen == {(torch.float32,) * 3, (torch.float64,) * 3}
    assert np.isfinite(F.root.rounding.root)
