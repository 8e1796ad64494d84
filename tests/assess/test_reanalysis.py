"""A saved result asked again gives what a measurement with these settings gives."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.errors import (
    ChoiceError,
    ComparisonError,
    EstimateError,
    MissingError,
    PriorError,
)


def net(width=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(0.1), nn.Linear(width, 3))


def data(items=12, labels=True):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(items, 4, generator=g), torch.randint(3, (items,), generator=g)
    return (x, y) if labels else (x,)


def made(what=None, likelihood="categorical", **options):
    return ll.measure(net(), what or data(), likelihood, progress=False, **options)


MEAN = {name: p + 0.1 for name, p in net().state_dict().items()}
CASES = {
    "data-limited": {},
    "more data than parameters": {"what": data(60)},
    "fisher matrix": {"what": data(60), "method": "metric"},
    "given mean": {"prior": ll.priors.Isotropic(2.0, mean=MEAN)},
    "unequal before": {"prior": ll.priors.PerParameter(torch.linspace(0.1, 2, 43))},
    "gaussian": {"what": (data(30)[0], data(30)[0][:, :3]), "likelihood": "gaussian"},
}


def close(found, expected, tolerance=1e-9):
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("variance", [1e-6, 0.3, 1e4])
@pytest.mark.parametrize("case", CASES)
def test_another_variance_is_as_measured_with_it(case, variance, tmp_path):
    options = dict(CASES[case])
    mean = getattr(options.get("prior"), "mean", 0.0)
    direct = made(**{**options, "prior": ll.priors.Isotropic(variance, mean)})
    made(**options, projections=True).save(tmp_path / "m.ll")
    m = ll.load(tmp_path / "m.ll")
    again = ll.reanalyse(m, prior=variance)
    for term in ("total", "fit", "displacement", "complexity", "dimension_term", "spectrum_term"):
        close(getattr(again.length, term), getattr(direct.length, term), 1e-8)
    close(again.length.effective_dimension, direct.length.effective_dimension)
    assert again.length.prior == direct.length.prior
    assert int(again.dimension) == int(direct.dimension)
    statuses = ({c.name: c.status for c in m.checks} for m in (again, direct))
    assert next(statuses) == next(statuses)
    assert again.record["reanalysed"] == {"prior": {"name": "isotropic", "variance": variance}}
    assert str(again).splitlines()[1] == f"re-analysed  prior variance {variance:.4g}"
    if not isinstance(mean, dict):
        assert again.record["prior_digest"] == direct.record["prior_digest"]
    # Nothing that was given has changed.
    assert "reanalysed" not in m.record


@pytest.mark.parametrize("case", ["more data than parameters", "data-limited"])
@pytest.mark.parametrize("variance", [0.1, 7.0])
def test_another_variance_against_the_definition(case, variance):
    options = CASES[case]
    F = ll.fisher(net(), options.get("what", data()), "categorical")
    A, theta, n = F.root.dense(), F.problem.theta, F.problem.survey.observations
    model = net().double()
    x, y = options.get("what", data())
    loss = nn.functional.cross_entropy(model(x.double()), y, reduction="sum")
    g = torch.cat([p.reshape(-1) for p in torch.autograd.grad(loss, list(model.parameters()))])
    H, eye = n * A.T @ A, torch.eye(len(theta), dtype=torch.float64)
    r = g + theta / variance
    expected = float(loss.detach()) + float(theta @ theta) / (2 * variance)
    expected -= 0.5 * float(r @ torch.linalg.solve(H + eye / variance, r))
    expected += 0.5 * float(torch.logdet(eye + variance * H))
    close(ll.reanalyse(made(**options), prior=variance).length.total, expected)


def test_the_evidence_is_found_again():
    options = CASES["gaussian"]
    direct = made(**{**options, "prior": ll.priors.Isotropic("evidence")})
    again = ll.reanalyse(made(**options), prior="evidence")
    close(again.length.prior["variance"], direct.length.prior["variance"], 1e-6)
    close(again.length.total, direct.length.total)
    close(again.length.tuning_cost, direct.length.tuning_cost)
    assert again.length.prior.keys() == direct.length.prior.keys()
    fixed = ll.reanalyse(direct, prior=ll.priors.Isotropic(3.0))
    close(fixed.length.total, ll.reanalyse(made(**options), prior=3.0).length.total)
    assert fixed.length.tuning_cost == 0
    assert "fitted_by" not in fixed.length.prior


@pytest.mark.parametrize("case", ["data-limited", "more data than parameters", "gaussian"])
@pytest.mark.parametrize("times", [2, 5])
def test_more_observations_are_the_same_ones_again(case, times):
    options = CASES[case]
    x, y = options.get("what", data())
    repeated = torch.cat([x] * times), torch.cat([y] * times)
    direct = made(**{**options, "what": repeated, "prior": ll.priors.Isotropic(0.5)})
    again = ll.reanalyse(made(**options), observations=times * len(x), prior=0.5)
    assert again.observations == direct.observations
    for term in ("total", "fit", "displacement", "complexity", "dimension_term"):
        close(getattr(again.length, term), getattr(direct.length, term), 1e-8)
    for name, value in direct.criteria.items():
        assert again.criteria[name] == (None if value is None else pytest.approx(value)), name
    back = ll.reanalyse(again, observations=len(x), prior=1.0)
    close(back.length.total, made(**options).length.total)


@settings(max_examples=25, deadline=None)
@given(st.floats(-12, -0.01))
def test_the_dimension_counts_singular_values_above_the_tolerance(exponent):
    tolerance = 10.0**exponent
    m = MEASURED
    again = ll.reanalyse(m, tolerance=tolerance)
    s = torch.linalg.svdvals(ROOT)
    expected = int((s > tolerance * s[0]).sum())
    assert again.dimension.lower <= expected <= again.dimension.upper
    assert int(again.dimension) == m.spectrum.rank(tolerance)
    if again.dimension.kind == "exact":
        assert int(again.dimension) == expected
        if expected < len(s) and s[expected] > 1e-12 * s[0]:
            gap = math.log10(float(s[expected - 1] / s[expected]))
            assert again.dimension.gap == pytest.approx(gap, abs=1e-3)
    assert again.dimension.tolerance == again.record["tolerance"] == tolerance
    assert again.length.dimension == int(again.dimension)
    close(again.length.complexity, m.length.complexity)
    close(again.length.dimension_term + again.length.spectrum_term, m.length.complexity)
    n, d = m.observations, int(again.dimension)
    close(again.criteria["bic_dimension"], m.length.fit + 0.5 * d * math.log(n))


MEASURED = made(data(60))
ROOT = ll.fisher(net(), data(60), "categorical").root.dense()


def test_units_and_nothing():
    m = MEASURED
    assert ll.reanalyse(m) is m
    assert ll.reanalyse(m, units="nats") is m
    bits = ll.reanalyse(m, units="bits")
    close(bits.length.total, m.length.total / math.log(2))
    assert bits.checks == m.checks
    assert bits.warnings == m.warnings
    again = ll.reanalyse(ll.reanalyse(bits, tolerance=1e-3), prior=2.0)
    assert set(again.record["reanalysed"]) == {"units", "tolerance", "prior"}
    assert again.length.units == "bits"
    assert again.length.dimension == int(again.dimension)


def test_without_labels_the_complexity_is_enough():
    m = made(data(labels=False))
    assert m.projections is None
    again = ll.reanalyse(m, prior=3.0)
    direct = made(data(labels=False), prior=ll.priors.Isotropic(3.0))
    assert again.length.total is None
    close(again.length.complexity, direct.length.complexity)
    with pytest.raises(PriorError, match="needs labels"):
        ll.reanalyse(m, prior="evidence")


def test_all_of_it_survives_a_file(tmp_path):
    m = ll.reanalyse(MEASURED, prior=0.7, tolerance=1e-4, observations=200, units="bits")
    m.save(tmp_path / "m.ll")
    found = ll.load(tmp_path / "m.ll")
    assert str(found) == str(m)
    assert found.to_dict() == m.to_dict()
    for name, tensor in m.projections.tensors().items():
        assert torch.equal(found.projections.tensors()[name], tensor)
    assert ll.report(found, tmp_path / "m.html").is_file()
    found.plot()


PER_PARAMETER = ll.priors.PerParameter(torch.linspace(0.1, 2, 43))


@pytest.mark.parametrize(
    ("m", "asked", "error", "says"),
    [
        (lambda: made(projections=False), {"prior": 2.0}, MissingError, "projections=True"),
        (lambda: made(projections=False), {"observations": 9}, MissingError, "projections=True"),
        (lambda: made(dtype="float32"), {"prior": 2.0}, MissingError, "in float64"),
        (lambda: made(prior=PER_PARAMETER), {"observations": 9}, MissingError, "not .*equal"),
        (lambda: MEASURED, {"prior": PER_PARAMETER}, MissingError, "Measure again under it"),
        (lambda: MEASURED, {"prior": ll.priors.Isotropic(1.0, mean=1.0)}, MissingError, "mean"),
        (
            lambda: made(prior=ll.priors.Isotropic(1.0, mean=MEAN)),
            {"prior": ll.priors.Isotropic(1.0, mean=MEAN)}, MissingError, "variance alone",
        ),
        (lambda: MEASURED, {"tolerance": 1e-17}, MissingError, "were not kept"),
        (lambda: MEASURED, {"tolerance": 0.0}, MissingError, "or more"),
        (lambda: MEASURED, {"tolerance": 1.0}, ChoiceError, "tolerance=1.0"),
        (lambda: MEASURED, {"tolerance": math.nan}, ChoiceError, "tolerance=nan"),
        (lambda: MEASURED, {"tolerance": True}, ChoiceError, "tolerance=True"),
        (lambda: MEASURED, {"prior": -1.0}, PriorError, "not a proper prior"),
        (lambda: MEASURED, {"prior": math.inf}, PriorError, "not a proper prior"),
        (lambda: MEASURED, {"prior": "guess"}, ChoiceError, "evidence"),
        (lambda: MEASURED, {"prior": 1e14}, EstimateError, "Rounding leaves"),
        (lambda: MEASURED, {"units": "bytes"}, ChoiceError, "bytes"),
        (lambda: MEASURED, {"observations": 0}, ChoiceError, "observations=0"),
        (lambda: MEASURED, {"observations": 2.5}, ChoiceError, "observations=2.5"),
        (lambda: MEASURED, {"observations": True}, ChoiceError, "observations=True"),
        (lambda: made(method="sketch"), {"prior": 2.0}, MissingError, "by .sketch"),
        (lambda: made(method="sketch"), {"tolerance": 1e-3}, MissingError, "by .sketch"),
    ],
)  # fmt: skip
def test_what_is_not_kept_is_not_guessed(m, asked, error, says):
    with pytest.raises(error, match=says):
        ll.reanalyse(m(), **asked)


def test_projections_are_kept_where_they_are_cheap(monkeypatch):
    assert MEASURED.projections is not None
    monkeypatch.setattr("lightlike.assess.stages.SMALL", 0.0)
    assert made().projections is None
    assert made(projections=True).projections is not None
    assert made(**CASES["gaussian"], prior=ll.priors.Isotropic("evidence")).projections is not None


def test_projections_that_do_not_give_the_measured_length_are_not_kept(monkeypatch):
    from lightlike.assess import stages

    real = stages.project
    wrong = lambda *given: dataclasses.replace(  # noqa: E731
        real(*given), displacement=real(*given).displacement * 1.001
    )
    monkeypatch.setattr(stages, "project", wrong)
    assert made().projections is None


def test_comparisons():
    wide = ll.measure(net(7), data(60), "categorical", progress=False)
    pair = {"a": ll.reanalyse(MEASURED, prior=3.0), "b": ll.reanalyse(wide, prior=3.0)}
    direct = {
        "a": made(data(60), prior=ll.priors.Isotropic(3.0)),
        "b": ll.measure(
            net(7), data(60), "categorical", progress=False, prior=ll.priors.Isotropic(3.0)
        ),
    }
    for one in (pair, {**pair, "b": direct["b"]}):
        found, expected = ll.compare(one), ll.compare(direct)
        for mine, theirs in zip(found.entries, expected.entries, strict=True):
            assert mine.name == theirs.name
            close(mine.total, theirs.total, 1e-8)
            close(mine.stderr, theirs.stderr, 1e-8)
    with pytest.raises(ComparisonError, match="priors"):
        ll.compare({"a": pair["a"], "b": wide})
    with pytest.raises(ComparisonError, match="as if it had 99"):
        ll.compare({"a": MEASURED, "b": ll.reanalyse(wide, observations=99)})


def test_what_was_counted_at_another_tolerance_is_left_out():
    m = made(explain=True)
    found = ll.reanalyse(m, tolerance=0.1)
    assert int(found.dimension) < int(m.dimension)
    assert found.dimension.bound != "symmetries"
    assert found.explanation is None
    assert all(layer.dimension is None for layer in found.layers)
    assert [layer.trace for layer in found.layers] == [layer.trace for layer in m.layers]
    assert ll.reanalyse(m, prior=2.0).explanation == m.explanation
