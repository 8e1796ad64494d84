"""Figures show the numbers they were given, and nothing outside them changes."""

import csv
import io
import subprocess
import sys
import warnings
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import style as styles
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

import lightlike as ll
from geometry.test_closed_forms import weights
from geometry.test_saturation import generic
from lightlike.errors import ChoiceError
from lightlike.figures.chart import brief
from lightlike.present import plots
from oracles.networks import mlp, normal


def drawn(figure):
    """Write it down, so that everything is laid out; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure


def texts(figure):
    return " | ".join(
        t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible()
    )


def lines(axes):
    return [np.array(line.get_xydata()) for line in axes.lines]


def has_line(axes, x, y):
    wanted = np.column_stack([x, y]).astype(float)
    return any(a.shape == wanted.shape and np.array_equal(a, wanted) for a in lines(axes))


def named(axes, x, y):
    return x in axes.get_xlabel() and y in axes.get_ylabel() and axes.get_title(loc="left")


@pytest.fixture(scope="module")
def measured():
    model = weights(mlp([3, 6, 3], "leaky"))
    x = normal(60, 3)
    y = torch.randint(3, (60,), generator=torch.Generator().manual_seed(0))
    return model, (x, y), ll.measure(model, (x, y), "categorical", progress=False)


def test_spectrum(measured, tmp_path):
    m = measured[2]
    figure = drawn(m.plot())
    (axes,) = figure.axes
    values = m.spectrum.eigenvalues.tolist()
    assert has_line(axes, range(1, len(values) + 1), values)
    assert plots.data_of(figure)["eigenvalue"] == values
    assert plots.data_of(figure)["index"] == list(range(1, len(values) + 1))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert named(axes, "index", "eigenvalue")
    assert "log" in axes.get_xlabel()
    assert "log" in axes.get_ylabel()
    d = int(m.dimension)
    assert f"{d} of {m.parameters} directions" in axes.get_title(loc="left")
    assert f"d̂ = {d}" in texts(figure)
    assert has_line(axes, [d + 0.5, d + 0.5], [0, 1])  # in the axes' own height
    bands = [p.get_bbox() for p in axes.patches if isinstance(p, Rectangle)]
    assert any(band.y1 == pytest.approx(m.spectrum.floor) for band in bands)
    m.save(tmp_path / "m.safetensors")
    again = ll.load(tmp_path / "m.safetensors").plot()
    assert isinstance(again, Figure)
    assert plots.data_of(again) == plots.data_of(figure)


def test_spectrum_with_an_open_rank(measured):
    model, data, _ = measured
    F = ll.fisher(model, data, "categorical", dtype="float32")
    s, d = ll.spectrum(F), ll.dimension(F)
    assert d.lower < d.upper
    figure = drawn(plots.plot_spectrum(s, d))
    (axes,) = figure.axes
    assert axes.get_title(loc="left").startswith(f"{d.lower} to {d.upper} of")
    bands = [p.get_bbox() for p in axes.patches if isinstance(p, Rectangle)]
    assert any((b.x0, b.x1) == (d.lower + 0.5, d.upper + 0.5) for b in bands)
    assert plots.data_of(figure)["error"] == s.errors.tolist()
    assert "certified" in texts(figure)


def test_spectrum_of_a_dead_network():
    model = mlp([3, 4, 2], "relu", bias=False).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    F = ll.fisher(model, (normal(5, 3),), "gaussian")
    figure = drawn(plots.plot_spectrum(ll.spectrum(F), ll.dimension(F)))
    assert "The matrix is zero" in texts(figure)
    assert plots.data_of(figure)["eigenvalue"] == []


def test_shares():
    shares = {"": 0.1, "0": 0.25, "block.out": 0.6496, "2": 0.0004}
    figure = drawn(plots.plot_share(shares))
    (axes,) = figure.axes
    widths = {round(p.get_y() + p.get_height() / 2): p.get_width() for p in axes.patches}
    assert [widths[k] for k in (3, 2, 1, 0)] == list(shares.values())
    assert [t.get_text() for t in axes.get_yticklabels()] == ["(model)", "0", "block.out", "2"]
    assert axes.get_xlim()[0] == 0
    assert axes.get_title(loc="left") == "65 % of the radical lies in block.out"
    for text in ("10 %", "25 %", "65 %", "< 0.1 %"):
        assert text in texts(figure)
    assert plots.data_of(figure) == {"layer": list(shares), "share": list(shares.values())}
    assert "The screen is empty" in texts(plots.plot_share({"0": 0.0}, subspace="screen"))


def test_many_shares_are_all_in_the_data():
    shares = {f"layer {i}": (i + 1) / 820 for i in range(40)}
    figure = drawn(plots.plot_share(shares))
    widths = [p.get_width() for p in figure.axes[0].patches]
    assert len(widths) == 24
    assert sum(widths) == pytest.approx(1.0)
    assert "17 other layers" in texts(figure)
    assert len(plots.data_of(figure)["share"]) == 40


SOURCES = [("rescaling", "0", 4), ("dead unit", "0", 0), ("rescaling", "2", 6), ("shift", "4", 3)]


class Named:
    def __init__(self, kind, where, dimension):
        self.kind, self.where, self.dimension = kind, where, dimension


@pytest.mark.parametrize("make", [tuple, lambda s: Named(*s)])
def test_sources(make):
    figure = drawn(plots.plot_sources([make(s) for s in SOURCES], 2))
    (axes,) = figure.axes
    centres = [p.get_x() + p.get_width() / 2 for p in axes.patches]
    assert centres == pytest.approx([2, 7, 11.5, 14])
    assert [p.get_width() for p in axes.patches] == pytest.approx([4, 6, 3, 2], abs=0.07)
    assert "13 of 15 null directions" in axes.get_title(loc="left")
    for text in ("rescaling  10  (67 %)  in 2 places", "shift  3  (20 %)  in layer 4",
                 "unexplained  2  (13 %)"):  # fmt: skip
        assert text in texts(figure)
    assert "dead unit" not in texts(figure)
    data = plots.data_of(figure)
    assert list(zip(*data.values(), strict=True)) == [*SOURCES, ("unexplained", "", 2)]
    assert "No null directions" in texts(drawn(plots.plot_sources([])))


def test_labels_of_sources_do_not_meet():
    figure = drawn(plots.plot_sources([(f"kind {i}", str(i), 1 + i % 3) for i in range(9)], 1))
    (axes,) = figure.axes
    boxes = [t.get_window_extent() for t in axes.texts if "(" in t.get_text()]
    stems = [line.get_window_extent() for line in axes.lines]
    assert len(boxes) == len(stems) == 10
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.overlaps(stem) for stem in stems)


@pytest.mark.parametrize("sizes", [None, [5, 10, 20, 30, 50], [4, 8, 12]])
def test_saturation(sizes):
    n = 60 if sizes != [4, 8, 12] else 12
    s = ll.saturation(ll.fisher(generic([3, 8, 2]), (2 * normal(n, 3),), "gaussian"), sizes)
    figure = drawn(plots.plot_saturation(s))
    (axes,) = figure.axes
    values = [int(d) for d in s.dimensions]
    assert has_line(axes, s.sizes, values)
    dashed = next(a for a in lines(axes) if len(a) == 2 and np.allclose(a[:, 1], 2 * a[:, 0]))
    assert dashed[1, 0] > dashed[0, 0]
    assert named(axes, "observations n", "dimension d̂")
    assert ("log" in axes.get_xlabel()) == (axes.get_xscale() == "log") == (sizes is None)
    assert axes.get_xscale() == axes.get_yscale()
    assert f"d̂ = {int(s.dimension)}" in texts(figure)
    assert "K = 2 n" in texts(figure)
    assert ("n = 25" in texts(figure)) == (n == 60)
    data = plots.data_of(figure)
    assert (data["observations"], data["rows"]) == (list(s.sizes), list(s.rows))
    assert data["dimension"] == values
    assert data["kind"] == ["exact"] * len(values)


def test_bounds_are_drawn():
    s = ll.saturation(ll.fisher(generic([3, 8, 2]), (2 * normal(40, 3),), "gaussian"), [5, 10, 40])
    open_ = replace(s.dimensions[1], lower=18, upper=20, kind="certified")
    s = replace(s, dimensions=(s.dimensions[0], open_, s.dimensions[2]), point=(5, 40))
    figure = drawn(plots.plot_saturation(s))
    (bars,) = figure.axes[0].collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[10, 18], [10, 20]]]
    assert "certain bounds" in texts(figure)
    assert "n from 6 to 40" in texts(figure)
    figure = drawn(plots.plot_path(s.dimensions, [0.5, 1.5, 2.5]))
    (bars,) = figure.axes[0].collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[1.5, 18], [1.5, 20]]]
    assert plots.data_of(figure)["upper"] == [10, 20, 50]


def test_path():
    F = ll.fisher(generic([3, 8, 2]), (normal(60, 3),), "gaussian")
    path = ll.dimension_path(F, ll.between(F, 0 * F.problem.theta, 4))
    figure = drawn(plots.plot_path(path, [0, 100, 200, 300], name="training step"))
    (axes,) = figure.axes
    assert has_line(axes, [0, 100, 200, 300], [50, 50, 50, 2])
    assert named(axes, "training step", "dimension d̂")
    assert axes.get_title(loc="left") == "The dimension goes from 50 to 2"
    assert plots.data_of(figure)["dimension"] == [50, 50, 50, 2]
    still = drawn(plots.plot_path(path.dimensions[:1]))
    assert "stays at 50" in texts(still)
    assert "does not start at 0" in texts(still)


WALK = {
    "distance": np.array([0.0, 1.0, 2.0]), "divergence": [0.0, 1e-8, 3e-8],
    "squared_norm": torch.tensor([9.0, 7.5, 7.0]), "zeros": [0, 2, 5],
}  # fmt: skip


def test_walk():
    control = {"distance": [0.0, 1.0, 2.0], "divergence": [0.0, 0.01, 0.05]}
    figure = drawn(plots.plot_walk(WALK, control, budget=1e-6))
    top, norm, zeros = figure.axes
    assert has_line(top, [1, 2], [1e-8, 3e-8])
    assert has_line(top, [1, 2], [0.01, 0.05])
    assert has_line(top, [0, 1], [1e-6, 1e-6])
    assert has_line(norm, [0, 1, 2], [9, 7.5, 7])
    assert has_line(zeros, [0, 1, 2], [0, 2, 5])
    assert (top.get_yscale(), norm.get_yscale(), zeros.get_yscale()) == ("log", "linear", "linear")
    assert "log" in top.get_ylabel()
    assert zeros.get_ylim()[0] == 0
    for text in ("budget", "walk", "random direction", "differ by 3 × 10⁻⁸ nats", "0.05 nats"):
        assert text in texts(figure)
    data = plots.data_of(figure)
    assert data["walk"] == ["walk"] * 3 + ["random direction"] * 3
    assert data["divergence"] == [0.0, 1e-8, 3e-8, 0.0, 0.01, 0.05]
    assert data["zeros"] == [0, 2, 5, None, None, None]


def test_walk_of_steps_and_ends_of_controls():
    steps = [
        type("Step", (), {k: float(v[i]) for k, v in WALK.items()})() for i in range(3)
    ]  # fmt: skip
    trails = [plots.Trail("random", [2.0], [float("inf")]), plots.Trail("null", [2.0], [1e-4])]
    figure = drawn(plots.plot_walk(steps, trails))
    assert has_line(figure.axes[0], [2], [1e-4])
    assert "random: outputs not finite" in texts(figure)
    still = {"distance": [0.0], "divergence": [0.0], "squared_norm": [1.0], "zeros": [0]}
    assert "differ by 0 nats" in texts(drawn(plots.plot_walk(still)))


def test_csv_can_be_read_back():
    figure = plots.plot_share({'a "b", c': 0.25, "d": 0.75})
    rows = list(csv.reader(io.StringIO(plots.csv_of(figure))))
    assert rows == [["layer", "share"], ['a "b", c', "0.25"], ["d", "0.75"]]
    walk = list(csv.DictReader(io.StringIO(plots.csv_of(plots.plot_walk(WALK, WALK)))))
    assert walk[4]["zeros"] == ""
    with pytest.raises(ChoiceError, match="does not know its numbers"):
        plots.data_of(Figure())


def test_as_svg():
    out = io.StringIO()
    plots.plot_walk(WALK, WALK).savefig(out, format="svg")
    assert out.getvalue().rstrip().endswith("</svg>")


def test_answers_are_drawn_as_they_are():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    F = ll.fisher(model, (torch.randn(5, 3, dtype=torch.float64),), "categorical")
    named, walked = ll.explain(F), ll.walk(F, "norm", max_steps=2)
    last = plots.data_of(plots.plot_sources(named))["dimension"][-1]
    assert last == named.unexplained
    columns = plots.data_of(plots.plot_walk(walked))
    assert list(columns["distance"]) == [step.distance for step in walked.steps]
    with pytest.raises(ChoiceError):
        plots.plot_share({"a": float("nan")})


def test_what_cannot_be_drawn():
    for shares in ({}, {"a": -0.1}):
        with pytest.raises(ChoiceError, match="no shares"):
            plots.plot_share(shares)
    with pytest.raises(ChoiceError, match="negative"):
        plots.plot_sources([], -1)
    with pytest.raises(ChoiceError, match="0 dimensions"):
        plots.plot_path([])
    with pytest.raises(ChoiceError, match="lacks"):
        plots.plot_walk({"distance": [0.0]})
    with pytest.raises(ChoiceError, match="lengths"):
        plots.plot_walk(WALK | {"zeros": [1]})


@pytest.mark.parametrize("style", ["dark_background", "ggplot"])
def test_the_look_is_its_own_and_nothing_global_changes(style, measured):
    """Also under a user's own settings."""
    with mpl.rc_context():
        mpl.rcParams.update(styles.library.get(style, {}))
        before = dict(mpl.rcParams)
        figure = drawn(measured[2].plot())
        assert dict(mpl.rcParams) == before
    (axes,) = figure.axes
    assert figure.get_facecolor() == axes.get_facecolor() == (0.0, 0.0, 0.0, 0.0)
    assert not axes.spines["top"].get_visible()
    assert axes.spines["left"].get_visible()
    assert not any(line.get_visible() for line in axes.get_xgridlines())
    colours = {mpl.colors.to_hex(t.get_color()) for t in axes.texts}
    assert colours == {"#737883", "#d2762a"}
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
def test_neither_pyplot_nor_matplotlib_is_loaded_unasked():
    code = (
        "import sys, lightlike; assert 'matplotlib' not in sys.modules; "
        "from lightlike.present import plots; plots.plot_share({'a': 1.0})._repr_png_(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.7212, "0.721"), (1536.2, "1,536"), (3.04e-9, "3 × 10⁻⁹"), (1e-6, "10⁻⁶"),
     (-2.5e7, "-2.5 × 10⁷")],
)  # fmt: skip
def test_numbers_in_running_text(value, text):
    assert brief(value) == text
