"""Measurements from block-diagonal approximations: what they bound, say and store."""

import math

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, PriorError
from oracles import curvature
from oracles import networks as nets

X, Y = nets.normal(15, 4, seed=1), torch.arange(15) % 3


def model(seed=0):
    return nets.fill(nets.mlp([4, 5, 3], "tanh", norm=nn.LayerNorm), seed)


def measured(method="kronecker", **options):
    return ll.measure(model(), (X, Y), "categorical", method=method, **options)


def dense_complexity(matrix, scale):
    return 0.5 * float(torch.logdet(torch.eye(len(matrix)) + scale * matrix))


@pytest.mark.parametrize("form", ["ekfac", "kfac", "blocks", "diagonal"])
def test_all_terms_are_those_of_the_approximation_and_the_exact_displacement(form):
    found = measured(ll.Kronecker(form), prior=ll.priors.Isotropic(0.7))
    exact = measured("auto", prior=ll.priors.Isotropic(0.7))
    F = curvature.fisher(model(), [(X, None)], "categorical")
    plain = ll.fisher(model(), (X, Y), "categorical")
    M = {
        "ekfac": lambda: plain.kronecker(eigenvalue_correction=True),
        "kfac": plain.kronecker,
        "blocks": plain.blocks,
        "diagonal": plain.diagonal,
    }[form]().dense()
    length = found.length
    assert length.kind == found.spectrum.kind == "approximate"
    assert length.complexity == pytest.approx(dense_complexity(M, 15 * 0.7), rel=1e-9)
    assert length.fit == exact.length.fit
    assert length.displacement == pytest.approx(exact.length.displacement, abs=2e-3)
    assert found.spectrum.trace == pytest.approx(float(M.trace()), rel=1e-10)
    tau = 1 / (15 * 0.7)
    values = torch.linalg.eigvalsh(M)
    gamma = float((values / (values + tau)).sum())
    assert length.effective_dimension == pytest.approx(gamma, rel=1e-9)
    approximation = found.record["approximation"]
    true = dense_complexity(F, 15 * 0.7)
    assert approximation["complexity_error"] == pytest.approx(length.complexity - true, abs=1e-9)
    assert 0.5 * approximation["error"]["exact"] == pytest.approx(true, rel=1e-9)
    distance = float((M - F).norm() / F.norm())
    assert approximation["error"]["frobenius"] == pytest.approx(distance, rel=1e-8)
    if form == "kfac":
        assert approximation["bound"] is None
    else:
        assert approximation["bound"] == "above"
        assert length.complexity >= true
        assert length.effective_dimension >= exact.length.effective_dimension
        assert length.total >= exact.length.total - 2e-3


@pytest.mark.parametrize("seed", range(3))
def test_the_rank_is_bounded_never_guessed(seed):
    F = curvature.fisher(model(seed), [(X, None)], "categorical")
    rank = int(torch.linalg.matrix_rank(F, hermitian=True))
    for check in (True, False):
        found = ll.measure(
            model(seed), (X, Y), "categorical", method=ll.Kronecker(check=check)
        ).dimension
        assert found.lower <= rank <= found.upper
        assert found.value == found.lower
        assert found.kind == ("exact" if found.lower == found.upper else "certified")
        assert found.gap == math.inf
        assert found.lower > rank // 2 if check else found.lower == 1


def test_an_unmeasured_error_is_said_to_be_unknown():
    known, unknown = measured(), measured(ll.Kronecker(check=False))
    assert "Approximation error" in known.warnings[0]
    assert "nats" in known.warnings[0]
    assert "upper bounds" in unknown.warnings[0]
    assert "not known" in unknown.warnings[0]
    assert unknown.record["approximation"]["error"] is None
    plain = measured(ll.Kronecker("kfac", check=False))
    assert "nor its sign" in plain.warnings[0]
    for m in (known, unknown, plain):
        decided = m.dimension.kind == "exact"
        assert (m.criteria["bic_dimension"] is None) != decided
        assert ("only bounds" in m.warnings[1]) != decided
        text = str(m)
        assert "≈" in text
        assert "exact by" not in text
        assert len(text.splitlines()) <= 20


def test_it_is_stored_and_reported_as_what_it_is(tmp_path):
    found = measured(out=tmp_path / "result.safetensors")
    again = ll.load(tmp_path / "result.safetensors")
    assert str(again) == str(found)
    assert again.length.kind == again.spectrum.kind == "approximate"
    assert again.record["approximation"] == found.record["approximation"]
    assert found.to_dict()["length"]["kind"] == "approximate"
    page = ll.report(found, tmp_path / "page.html").read_text()
    assert "approximate" in page
    count = again.spectrum.count(0.1)
    assert (count.lower, count.upper) == (0, 30)
    found.plot()


def test_variances_of_layers_are_taken_into_the_blocks():
    prior = ll.priors.PerLayer({"0": 0.1, ".*": 2.0})
    found = measured(prior=prior)
    plain = ll.fisher(model(), (X, Y), "categorical")
    variance = torch.full((plain.shape[0],), 2.0).double()
    first = plain.problem.selection.layers()["0"]
    variance[first[0].start : first[-1].stop] = 0.1
    M = plain.kronecker(eigenvalue_correction=True).dense()
    sigma = variance.sqrt()
    expected = dense_complexity(sigma[:, None] * M * sigma, 15.0)
    assert found.length.complexity == pytest.approx(expected, rel=1e-9)
    F = curvature.fisher(model(), [(X, None)], "categorical")
    true = dense_complexity(sigma[:, None] * F * sigma, 15.0)
    error = found.record["approximation"]["complexity_error"]
    assert error == pytest.approx(expected - true, abs=1e-9)


def test_data_without_labels_have_a_complexity_alone():
    found = ll.measure(model(), (X,), "categorical", method="kronecker")
    assert found.length.total is None
    assert found.length.displacement is None
    assert found.length.complexity == pytest.approx(measured().length.complexity, rel=1e-12)


def test_displacement_of_models_that_cannot_be_differentiated_twice_comes_from_the_rows():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.tanh()
            ctx.save_for_backward(y.detach())
            return y

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * (1 - ctx.saved_tensors[0] ** 2)

    lower, upper = nn.Linear(4, 5), nn.Linear(5, 3)
    once = nets.fill(
        nets.Call(lambda self, x: self.upper(Once.apply(self.lower(x))), lower=lower, upper=upper),
        0,
    )
    plain = nets.Call(lambda self, x: self.upper(self.lower(x).tanh()), lower=lower, upper=upper)
    found, expected = (
        ll.measure(net.eval(), (X, Y), "categorical", method="kronecker").length
        for net in (once, plain)
    )
    assert found.displacement == pytest.approx(expected.displacement, abs=2e-3)
    assert found.complexity == pytest.approx(expected.complexity, rel=1e-9)


def test_lower_precision_bounds_nothing():
    found = measured(ll.Kronecker(check=False), dtype="float32")
    assert found.record["approximation"]["bound"] is None
    assert "nor its sign" in found.warnings[0]
    assert found.length.complexity == pytest.approx(measured().length.complexity, rel=1e-4)


def test_layers_have_the_traces_of_the_blocks():
    found = measured(layers=True)
    exact = measured("auto", layers=True)
    for mine, theirs in zip(found.layers, exact.layers, strict=True):
        assert mine.trace == pytest.approx(theirs.trace, rel=1e-9)
        assert mine.dimension == theirs.dimension
    assert all(layer.dimension is None for layer in measured().layers)


def test_plans_tell_what_it_takes():
    plan = ll.plan(model(), (X, Y), "categorical", method="kronecker")
    assert plan.method == "kronecker"
    assert not plan.exact
    assert "approximate" in str(plan)
    assert "largest side 10" in plan.reason  # the block of the normalisation
    sides = ll.plan(model(), (X, Y), "categorical", method=ll.Kronecker(largest=5, small=5))
    assert "largest side 5" in sides.reason
    assert sides.memory < plan.memory
    with pytest.raises(CapacityError, match="approximation"):
        measured(memory=2000)


def test_what_does_not_fit_is_refused():
    with pytest.raises(PriorError, match="not fitted"):
        measured(prior=ll.priors.Isotropic("evidence"))
    for wrong in (dict(form="full"), dict(sharing="both"), dict(small=-1), dict(check="yes")):
        with pytest.raises(ChoiceError):
            ll.Kronecker(**wrong)


def test_the_model_is_left_alone(untouched):
    net = model()
    with untouched(net, X, Y):
        ll.measure(net, (X, Y), "categorical", method="kronecker")
