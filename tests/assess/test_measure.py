import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lightlike as ll
from lightlike.errors import StoreError


class Named(nn.Module):
    """Layers whose names are not ASCII."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.schicht_größe = nn.Linear(4, 5)
        self.add_module("層 <b>", nn.Linear(5, 3))

    def forward(self, x):
        return getattr(self, "層 <b>")(torch.tanh(self.schicht_größe(x)))


def net(width=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(0.1), nn.Linear(width, 3))


def data(N=12):
    g = torch.Generator().manual_seed(1)
    return torch.randn(N, 4, generator=g), torch.randint(3, (N,), generator=g)


def made(model=None, what=None, likelihood="categorical", **options):
    return ll.measure(model or net(), what or data(), likelihood, progress=False, **options)


def same(a, b):
    """Equality in every field; tensors to the bit."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


CASES = {
    "plain": dict,
    "no labels": lambda: {"what": (data()[0],)},
    "no gap": lambda: {"what": data(3)},
    "unicode": lambda: {"model": Named()},
    "bits": lambda: {"units": "bits"},
    "fitted": lambda: {
        "prior": ll.priors.Isotropic("evidence"),
        "what": (data()[0], 5 * data()[0][:, :3]),
        "likelihood": "gaussian",
    },
    "integer variance": lambda: {"prior": ll.priors.Isotropic(np.float32(2))},
    "per parameter": lambda: {
        "prior": ll.priors.PerParameter(torch.linspace(0, 2, 43), net().state_dict())
    },
    "gaussian": lambda: {"what": (data()[0], torch.ones(12, 3)), "likelihood": "gaussian"},
    "part": lambda: {"parameters": "weight"},
    "svd": lambda: {"method": "svd"},
    "no ranks": lambda: {"layers": False},
    "single": lambda: {"what": data(1)},
}


@pytest.fixture(params=CASES, scope="module")
def measured(request):
    return request.param, made(**CASES[request.param]())


def test_saved_and_loaded_it_is_the_same_in_every_field(measured, tmp_path):
    name, m = measured
    m.save(tmp_path / "m.ll")
    again = ll.load(tmp_path / "m.ll")
    for field in dataclasses.fields(m):
        assert same(getattr(m, field.name), getattr(again, field.name)), field.name
    assert str(again) == str(m)
    assert again.to_dict() == m.to_dict()
    if name == "no gap":
        assert m.dimension.gap == math.inf


def test_as_json(measured):
    _, m = measured
    d = m.to_dict()
    assert json.loads(json.dumps(d, allow_nan=False)) == d
    assert d["eigenvalues"] == m.spectrum.eigenvalues.tolist()
    assert d["dimension"]["value"] == int(m.dimension)
    assert d["length"]["total"] == m.length.total
    assert d["length"]["complexity"] == m.length.complexity
    assert (d["parameters"], d["observations"], d["rows"]) == (
        m.parameters, m.observations, m.rows,
    )  # fmt: skip


def test_in_words(measured):
    name, m = measured
    text = str(m)
    lines = text.splitlines()
    assert 6 <= len(lines) <= 20
    assert max(map(len, lines)) <= 130
    assert f"D = {m.parameters} parameters, N = {m.observations} observations" in text
    assert f"{m.dimension.value} of {m.parameters} ({m.dimension.kind}" in text
    if m.length.total is None:
        assert "no labels" in text
    else:
        assert f"{m.length.total:.1f} {m.length.units}" in text
    assert ("(fitted)" in text) == (name == "fitted")
    assert ("inf" in text) is False


def test_as_html(measured):
    """Key numbers with their kind, in one unit; nothing runs and nothing is fetched."""
    _, m = measured
    html = m._repr_html_()
    assert f"{m.dimension.value:,}" in html
    assert f"{m.length.complexity:,.1f} {m.length.units}" in html.replace("−", "-")
    assert f'<span class="kind {m.dimension.kind}">' in html
    assert not re.search(r"<script|https?:|src=|<button", html)
    figure = {"figure", "svg", "defs", "use", "g", "path", "rect", "clipPath", "text", "tspan"}
    words = {"h3", "div", "style", "p", "dl", "dt", "dd", "span", "ul", "li"}
    assert set(re.findall(r"<(\w+)", html)) <= words | figure


def test_names_are_escaped(tmp_path):
    html = ll.report(made(Named()), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "層 &lt;b&gt;" in html
    assert "schicht_größe" in html


def test_all_fields():
    model, (x, y) = net(), data()
    m = made(model, (x, y))
    assert (m.parameters, m.observations, m.rows) == (43, 12, 24)
    assert int(m.dimension) == m.dimension.value == len(m.spectrum) == m.spectrum.rank()
    A = ll.fisher(model, (x, y), "categorical").root.dense().numpy()
    assert int(m.dimension) == np.linalg.matrix_rank(A)
    np.testing.assert_allclose(
        m.spectrum.eigenvalues, np.linalg.svd(A, compute_uv=False)[: len(m.spectrum)] ** 2,
        rtol=1e-9,
    )  # fmt: skip
    assert m.likelihood["name"] == "categorical"
    assert m.excluded == ()
    assert m.nll.shape == (12,)
    record = m.record
    assert record["dtype"] == "float64"
    assert record["method"] == m.spectrum.method
    assert record["tolerance"] == 43 * 2.0**-52
    assert record["share_measured"] == 1
    assert record["seed"] == 0
    assert record["device"] == "cpu"
    assert {len(v) for v in record["fingerprint"].values()} == {64}
    assert record["fingerprint"].keys() == {"model", "data"}
    assert record["versions"].keys() == {"lightlike", "torch", "python"}
    assert record["seconds"] >= 0
    assert record["peak_memory"] is None or record["peak_memory"] > 1e6


def test_fingerprints_tell_model_and_data_apart():
    first = made().record["fingerprint"]
    assert made().record["fingerprint"] == first
    other = net()
    with torch.no_grad():
        other[0].bias[0] += 1e-6
    changed = made(other).record["fingerprint"]
    assert (changed["model"] != first["model"], changed["data"] == first["data"]) == (True, True)
    x, y = data()
    y[0] = (y[0] + 1) % 3
    changed = made(what=(x, y)).record["fingerprint"]
    assert (changed["model"] == first["model"], changed["data"] != first["data"]) == (True, True)


def test_batches_make_no_difference():
    x, y = data()
    whole = made(what=(x, y))
    cut = made(what=[(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])])
    assert cut.dimension == whole.dimension
    np.testing.assert_allclose(cut.spectrum.eigenvalues, whole.spectrum.eigenvalues, rtol=1e-9)
    assert cut.length.total == pytest.approx(whole.length.total, rel=1e-10)


def test_model_is_left_alone(tmp_path):
    model, what = net(), data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    made(model, what, out=tmp_path / "m.ll")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


def test_out_writes_what_is_returned(tmp_path):
    m = made(out=tmp_path / "m.ll")
    assert same(ll.load(tmp_path / "m.ll"), m)


@pytest.mark.parametrize("out", ["missing/m.ll", "."])
def test_out_is_looked_at_before_anything_is_computed(tmp_path, out, monkeypatch):
    monkeypatch.setattr("lightlike.assess.measure.Problem", None)
    with pytest.raises(StoreError, match="cannot be written"):
        made(out=tmp_path / out)


@pytest.mark.parametrize("how", ["frozen", "pattern", "list"])
def test_excluded_parameters(how):
    model, options = net(), {}
    if how == "frozen":
        model[0].requires_grad_(False)
    else:
        options["parameters"] = r"^2\." if how == "pattern" else ["2.weight", "2.bias"]
    m = made(model, **options)
    assert m.parameters == 18
    assert m.excluded == ("0.weight", "0.bias")
    assert m.record["share_measured"] == 18 / 43
    assert any("Not measured (frozen or not selected): 0.weight, 0.bias." in w for w in m.warnings)
    assert "41.9% of all parameters" in str(m)


def warned(m, text):
    return any(text in w for w in m.warnings)


def test_warning_of_too_little_data():
    few, many = made(what=data(3)), made(what=data(200))
    assert few.dimension.data_limited
    assert warned(few, "more observations would raise the dimension")
    assert "limited by the data" in str(few)
    assert not many.dimension.data_limited
    assert not warned(many, "more observations")


@pytest.mark.parametrize("kind", [float, int, np.float64])
def test_warning_of_eigenvalues_around_the_prior(kind):
    """All eigenvalues of XᵀX/(N s²) equal: at 1/(N σ²), or far above it."""
    model = nn.Linear(4, 1, bias=False).double()
    x = 2 * torch.eye(4, dtype=torch.float64)
    for noise, expected in ((4.0, True), (1e-6, False)):
        m = made(
            model, (x, torch.zeros(4, 1)), ll.likelihoods.Gaussian(noise),
            prior=ll.priors.Isotropic(kind(1)),
        )  # fmt: skip
        assert warned(m, "lie within a factor 10") is expected
        assert warned(m, "100% of the eigenvalues") is expected


def test_warning_of_a_dim_gap():
    """A singular value just above the cut and one just below it."""
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.diag(torch.tensor([1.0, 2e-15, 0.2e-15], dtype=torch.float64))
    m = made(model, (x, torch.zeros(3, 1)), "gaussian", method="svd")
    assert (m.dimension.value, m.dimension.kind) == (2, "exact")
    assert m.dimension.gap == pytest.approx(1.0, abs=0.01)
    assert warned(m, "No clear gap at the cut (a factor 10.0 between singular values)")


def test_warning_of_a_close_call():
    """A singular value at the cut itself: bounds, not a number."""
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.diag(torch.tensor([1.0, 0.1, 3 * 2.0**-52], dtype=torch.float64))
    m = made(model, (x, torch.zeros(3, 1)), "gaussian", method="svd")
    assert (m.dimension.lower, m.dimension.upper, m.dimension.kind) == (2, 3, "certified")
    assert warned(m, "Rounding hides whether the dimension is 2 or up to 3")
    assert "2 to 3" in str(m)


class Coarse(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)).float().to(x.dtype))


def test_warning_of_lower_precision_inside():
    m = made(Coarse())
    assert m.record["precision"] > 1e-8
    assert warned(m, "lower precision inside")


def test_many_layers_and_warnings_still_fit_in_twenty_lines():
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(4, 4), nn.Tanh())))
    model[0].requires_grad_(False)
    x = data(3)[0]
    m = made(model, (x, 5 * x), "gaussian", prior=ll.priors.Isotropic("evidence"))
    assert len(m.warnings) >= 2
    m = dataclasses.replace(m, warnings=(*m.warnings, "one", "two", "three"))
    lines = str(m).splitlines()
    assert len(lines) <= 20
    assert "… 5 more in .layers" in str(m)
    assert re.search(r"\d more in .warnings", str(m))


def test_numbers_do_not_depend_on_the_route():
    found = [made(method=method) for method in ("gram", "metric", "svd")]
    for m in found[1:]:
        assert m.dimension.value == found[0].dimension.value
        np.testing.assert_allclose(m.spectrum.eigenvalues, found[0].spectrum.eigenvalues, rtol=1e-8)
        assert m.length.total == pytest.approx(found[0].length.total, rel=1e-9)
        assert m.criteria == pytest.approx(found[0].criteria, rel=1e-12)


def test_nothing_to_see():
    """A network whose outputs no parameter moves: dimension 0, complexity 0."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    m = made(model)
    assert (m.dimension.value, m.dimension.upper, m.dimension.kind) == (0, 0, "exact")
    assert m.length.complexity == 0
    assert m.length.displacement == 0
    assert m.length.total == pytest.approx(12 * math.log(3))
    assert "zero" in str(m)
    assert len(m.spectrum) == 0
    json.dumps(m.to_dict(), allow_nan=False)


def test_nothing_to_see_saves(tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    m = made(model, out=tmp_path / "m.ll")
    assert same(ll.load(tmp_path / "m.ll"), m)
