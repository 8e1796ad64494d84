"""Every answer has plain values, a table, a figure and a piece of a page; none is forgotten."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import math
import re
import sys
import types
import typing

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DependencyError, UndefinedError
from lightlike.figures.chart import data_of
from lightlike.length.coefficient import Diagnostics
from lightlike.results import Result
from present.conftest import data, net

# What computes answers, and what they are asked for with; neither is an answer.
OPERATORS = {
    ll.Fisher, ll.Root, ll.Radical, ll.Screen, ll.Tracker, ll.Products, ll.LowRank
}  # fmt: skip
SETTINGS = {ll.Likelihood, ll.Sketch, ll.Kronecker, ll.Lanczos, ll.Quadrature, ll.Columns}


def returned(function) -> set[type]:
    """The classes of lightlike that a function says it returns."""
    hint = function.__annotations__["return"]
    found, todo = set(), [eval(hint, function.__globals__) if isinstance(hint, str) else hint]
    while todo:
        hint = todo.pop()
        if isinstance(hint, type) and hint.__module__.startswith("lightlike"):
            found.add(hint)
        todo += typing.get_args(hint)
    return found


def everything(kind: type) -> set[type]:
    return {kind, *(c for sub in kind.__subclasses__() for c in everything(sub))}


PUBLIC = {getattr(ll, name) for name in ll.__all__}
CLASSES = {c for c in PUBLIC if inspect.isclass(c)}
FUNCTIONS = {f for f in PUBLIC if inspect.isfunction(f)} | {
    getattr(ll.lengths, name)
    for name in ll.lengths.__all__
    if inspect.isfunction(getattr(ll.lengths, name))
}


def test_every_public_class_is_an_answer_an_operator_or_a_setting():
    assert {c for c in CLASSES if not issubclass(c, Result)} == OPERATORS | SETTINGS


def test_every_public_function_returns_an_answer():
    """Or an operator; no answer is a class without figure, table and page."""
    answers = set().union(*map(returned, FUNCTIONS))
    assert {c for c in answers if not issubclass(c, Result)} <= OPERATORS
    assert len(answers) > 15


@pytest.fixture(scope="module")
def answers(measured) -> dict[str, Result]:
    """One of each kind at least; `test_no_kind_is_left_out` says so."""
    torch.manual_seed(0)
    F = ll.fisher(net(3), data(), "categorical")
    theta = F.problem.theta
    radical, screen = ll.subspaces(F)
    line = nn.Linear(2, 1).double().eval()
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = x @ torch.ones(2, 1, dtype=torch.float64) + 0.1 * torch.sin(9 * x[:, :1])
    with torch.no_grad():
        line.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
        line.bias.zero_()
    G = ll.fisher(line, (x, y), ll.likelihoods.Gaussian(0.1))
    tracker = ll.Tracker(data(), "categorical")
    tracker(net(3), 1, loss=1.0)
    chains = Diagnostics(1 / math.log(30), 1.0, 40.0, 0.1, 35.0, 1.0, 900.0, (0.8, 0.9),
                         (1.4, 1.6), 0.3, 0, True)  # fmt: skip
    coefficient = ll.LearningCoefficient(1.5, 0.1, 30, 36.0, 1.5, "reference", (chains,))
    found = [
        measured, measured.dimension, measured.spectrum, measured.length, measured.explanation,
        measured.explanation.sources[0], measured.saturation, measured.criteria, tracker.history,
        tracker.history.snapshots[0], ll.diagnose(measured), ll.compare({"it <b>": measured}),
        ll.plan(net(3), data(), "categorical"), ll.dimension(F, above=1e-3), ll.explain(F),
        ll.lanczos(F, 3), ll.density(F), ll.density(F).logdet(2.0),
        F.sketch(ll.Sketch(draws=1)).trace(), F.sketch(ll.Sketch(draws=1)).diagonal(),
        measured.spectrum.count(1e-3), radical.contains(torch.ones_like(theta)), screen.share(),
        ll.dimension_chain(F), ll.dimension_path(F, [theta, 0 * theta]),
        ll.dimension_near(F, 0.01, draws=3), ll.walk(F, "norm", budget=1e-4),
        ll.fisher_length(F, [theta, 0.9 * theta], relative_error=0.1), ll.lengths.nml([3, 4]),
        ll.effective_dimension(net(3), data()[:1], "categorical", radius=0.1, draws=11),
        coefficient, coefficient.length(), ll.lengths.noise_variance(G),
        ll.lengths.table(F, include=["gaussian", "aic", "rissanen"]),
        ll.lengths.waic(G, draws=30),
        ll.lengths.prequential(lambda *_: net(2), data(), "categorical"),
    ]  # fmt: skip
    found.append(found[-3].rows[0])
    return {f"{i} {type(answer).__name__}": answer for i, answer in enumerate(found)}


def test_no_kind_is_left_out(answers):
    assert {type(answer) for answer in answers.values()} == everything(Result) - {Result}


def test_plain_values(answers):
    """JSON without NaN, the same from one call to the next; nothing of numbers is lost."""
    for name, answer in answers.items():
        found = answer.to_dict()
        assert json.loads(json.dumps(found, allow_nan=False)) == found, name
        for key, value in found.items():
            mine = getattr(answer, key, None)
            if isinstance(mine, int | float | str) and value is not None:
                assert value == mine, (name, key)


def test_frames(answers):
    pandas = pytest.importorskip("pandas")
    for name, answer in answers.items():
        frame = answer.to_frame()
        assert isinstance(frame, pandas.DataFrame), name
        assert len(frame) > 0, name
        assert len(frame.columns) > 1, name
    by_kind = {type(a): a for a in answers.values()}
    m = by_kind[ll.Measurement]
    assert by_kind[ll.Spectrum].to_frame()["eigenvalue"].tolist() == m.spectrum.eigenvalues.tolist()
    assert by_kind[ll.Saturation].to_frame()["dimension"].tolist() == [
        int(d) for d in m.saturation.dimensions
    ]
    assert m.to_frame()["total"].tolist() == [m.length.total]
    e = by_kind[ll.Explanation]
    assert int(e.to_frame()["dimension"].sum()) == e.radical


def test_figures(answers):
    """Each holds finite columns of one length; the same is drawn in given axes."""
    for name, answer in answers.items():
        figure = answer.plot()
        assert isinstance(figure, Figure), name
        columns = data_of(figure)
        assert len({len(values) for values in columns.values()}) == 1, name
        figure.savefig(io.BytesIO(), format="png", dpi=20)
        whole = Figure()
        panels = [whole.add_subplot(len(figure.axes), 1, i + 1) for i in range(len(figure.axes))]
        drawn = answer.plot(ax=panels[0] if len(panels) == 1 else panels)
        assert drawn is whole, name
        assert all(axes.has_data() for axes in panels), name
        seen = [t.get_text() for t in figure.findobj(mpl.text.Text)]
        again = [t.get_text() for t in whole.findobj(mpl.text.Text)]
        assert set(filter(None, (a.get_title(loc="left") for a in figure.axes))) <= {*again}
        assert len(seen) > 3, name
        with pytest.raises(ChoiceError, match="not what this figure is drawn in"):
            answer.plot(ax=[*panels, *panels])


def test_figures_in_a_part_of_a_figure(answers):
    """Axes of a subfigure are axes too; what is returned is the whole."""
    whole = Figure()
    left, _ = whole.subfigures(1, 2)
    dimension = next(a for a in answers.values() if isinstance(a, ll.Dimension))
    assert dimension.plot(ax=left.add_subplot()) is whole


def test_figures_show_the_numbers(answers):
    by_kind = {type(a): a for a in answers.values()}
    d = by_kind[ll.Dimension]
    assert data_of(d.plot())["value"] == [d.value]
    chain = by_kind[ll.DimensionChain]
    assert sum(data_of(chain.plot())["value"]) == chain.layers[0].onwards.value
    lc = by_kind[ll.LearningCoefficient]
    columns = data_of(lc.plot())
    assert columns["value"] == [lc.value, *lc.diagnostics[0].chain_means]
    assert columns["high"][0] - columns["low"][0] == pytest.approx(4 * lc.stderr)
    steps = data_of(lc.length().plot())
    assert steps["value"][-1] == lc.length().total
    assert math.fsum(steps["value"][:-1]) == pytest.approx(lc.length().total)


def test_pieces_of_pages(answers):
    """Static and self-contained; the number and the figure are in it; names are text."""
    figures: dict[str, str] = {}
    for name, answer in answers.items():
        text = answer._repr_html_()
        assert text.startswith('<div class="lightlike piece">'), name
        assert not set(text.split()) & {"<script>", "<button"}, name
        # Of what is drawn, only names of its own parts are referred to.
        outside = text.replace("url(#piece-", "").replace('href="#piece-', "")
        assert not any(mark in outside for mark in ("http:", "https:", "src=", "@import", "url("))
        assert "href=" not in outside, name
        assert text.count('<svg viewBox="') == text.count("</svg>") == 1, name
        drawing = text[text.index("<svg") : text.index("</svg>")]
        (mark,) = {i.rsplit("-", 1)[0] for i in re.findall(r' id="([^"]+)"', text)}
        # Pieces of one notebook do not draw with one another's parts.
        assert figures.setdefault(mark, drawing) == drawing, name
        assert "<b>" not in text
        assert text.count("<div") == text.count("</div>"), name
        if isinstance(value := getattr(answer, "value", None), int) and value is not True:
            assert f"{value:,}" in text or isinstance(answer, ll.lengths.NoiseVariance), name
        assert len(text) < 2e5, name
    assert len(figures) > 20
    assert answer._repr_html_() == text


def test_figures_too_large_for_a_piece_are_left_to_plot(measured, monkeypatch):
    monkeypatch.setattr("lightlike.present.rendering.LARGEST", 1000)
    text = measured._repr_html_()
    assert "<svg" not in text
    assert "too large" in text
    assert "<svg" not in ll.History(())._repr_html_()  # nothing to draw


def test_pieces_are_in_the_units_asked_for(measured):
    inside = dataclasses.replace(measured, length=measured.length.to("bits"))._repr_html_()
    assert f"{measured.length.to('bits').total:,.1f} bits" in inside
    assert f"{measured.length.total:,.1f} nats" not in inside


def test_without_pandas(measured, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for answer in (measured, measured.spectrum, ll.History(()), ll.compare({"a": measured})):
        with pytest.raises(DependencyError, match="pip install pandas"):
            answer.to_frame()


def test_nothing_to_draw(answers):
    """An error that says so, not an empty figure."""
    table = next(a for a in answers.values() if type(a).__name__ == "LengthTable")
    with pytest.raises(UndefinedError, match="not defined here"):
        table["rissanen"].plot()
    for empty in (type(table)((), 3, "nats"), ll.History(())):
        with pytest.raises(ChoiceError):
            empty.plot()
    with pytest.raises(ChoiceError, match="ax="):
        table.plot(ax="here")


def test_values_that_json_lacks():
    from lightlike.results import plain

    odd = {1: math.inf, "b": (math.nan, torch.tensor([1.5, math.inf])), "c": torch.float32}
    assert plain(odd) == {"1": None, "b": [None, [1.5, None]], "c": "torch.float32"}
    assert plain(types.MappingProxyType({"x": np.float64(2.0)})) == {"x": 2.0}
