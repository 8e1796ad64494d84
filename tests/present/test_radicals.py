"""Null directions of several networks, side by side: figure, table and page."""

from __future__ import annotations

import re

import pytest
import torch

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.figures.chart import data_of
from lightlike.figures.stacks import HUES
from lightlike.geometry.symmetry.explanation import ExplanationSummary, Source
from lightlike.present.plots import plot_radicals
from oracles.networks import mlp, normal


def explained(*sources, unexplained=0):
    """An explanation made up of kinds and dimensions."""
    listed = tuple(Source(kind, f"layer {i}", n, n, n) for i, (kind, n) in enumerate(sources))
    total = sum(n for _, n in sources)
    return ExplanationSummary(listed, total, unexplained, total, (90, 100), (), 1e-14, True)


@pytest.fixture(scope="module")
def comparison():
    x = normal(60, 4)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    found = {}
    for width, explain in ((5, True), (8, True), (3, False)):
        torch.manual_seed(width)
        model = mlp([4, width, 3], "leaky").double().eval()
        found[f"{width} <units>"] = ll.measure(
            model, (x, y), "categorical", progress=False, explain=explain
        )
    return ll.compare(found)


def test_the_figure_holds_the_closed_form(comparison):
    """One rescaling a unit; shifts of logits by each input of the last layer and its bias."""
    columns = data_of(plot_radicals([(e.name, e.explanation) for e in comparison.entries]))
    found = set(zip(*columns.values(), strict=True))
    assert found == {
        ("5 <units>", "rescaling", 5), ("5 <units>", "softmax shift", 6),
        ("8 <units>", "rescaling", 8), ("8 <units>", "softmax shift", 9),
    }  # fmt: skip


def test_bars_are_as_long_as_the_radical_and_kinds_keep_their_hue():
    a = explained(("x", 4), ("y", 3), ("x", 2), unexplained=5)
    b = explained(("y", 7), ("z", 1))
    figure = plot_radicals([("a", a), ("b", b), ("c", None), ("d", explained())])
    (axes,) = figure.axes
    bars = {}
    for patch in axes.patches:
        place = round(patch.get_y() + patch.get_height() / 2)
        bars.setdefault(place, []).append(patch)
    assert {p: sum(bar.get_width() for bar in found) for p, found in bars.items()} == {3: 14, 2: 8}
    # y is the largest of all, then x, z; what has no name is hollow.
    hues = [[bar.get_facecolor()[:3] for bar in bars[p] if bar.get_fill()] for p in (3, 2)]
    assert hues[0][0] == hues[1][0] != hues[0][1]
    assert [bar.get_width() for bar in bars[3]] == [3, 6, 5]
    texts = [t.get_text() for t in axes.texts]
    assert {"14", "8", "0", "not measured"} <= {*texts}
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["y", "x", "z", "unexplained"]


def test_the_smallest_of_many_kinds_share_a_hue():
    many = explained(*[(f"kind {i}", 20 - i) for i in range(len(HUES) + 3)])
    figure = plot_radicals([("a", many)])
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == [*(f"kind {i}" for i in range(len(HUES))), "other sources"]
    assert len(data_of(figure)["kind"]) == len(HUES) + 3
    # One alone has its own name.
    few = explained(*[(f"kind {i}", 20 - i) for i in range(len(HUES) + 1)])
    assert plot_radicals([("a", few)]).legends[0].get_texts()[-1].get_text() == "kind 6"


def test_without_any_explanation_there_is_nothing_to_draw():
    with pytest.raises(ChoiceError, match="explain=True"):
        plot_radicals([("a", None)])
    plot_radicals([("a", explained())])


def test_the_page_has_them_side_by_side(comparison, tmp_path):
    """Each kind a row, each network a column; the sums are those of the networks."""
    page = ll.report(comparison, tmp_path / "c.html").read_text(encoding="utf-8")
    section = page[page.index('id="sources"') : page.index('id="checks"')]
    assert "Not explained: 3 &lt;units&gt;" in section
    rows = [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    ]
    heads = [e.name.replace("<", "&lt;").replace(">", "&gt;") for e in comparison.entries]
    assert rows[0] == ["source", *heads]
    table = {row[0]: dict(zip(heads, row[1:], strict=True)) for row in rows[1:]}
    for width in (5, 8):
        name = f"{width} &lt;units&gt;"
        assert table["rescaling"][name] == str(width)
        assert table["softmax shift"][name] == str(width + 1)
        assert table["all null directions"][name] == str(2 * width + 1)
        assert table["of parameters"][name] == str(8 * width + 3)
    assert table["rescaling"]["3 &lt;units&gt;"] == "—"
    kept = {e["name"]: e["explanation"] for e in comparison.to_dict()["entries"]}
    assert kept["3 <units>"] is None
    assert kept["8 <units>"]["explained"] == 17


def test_the_page_says_how_to_ask_for_them(comparison, tmp_path):
    import dataclasses

    bare = dataclasses.replace(
        comparison,
        entries=tuple(dataclasses.replace(e, explanation=None) for e in comparison.entries),
    )
    page = ll.report(bare, tmp_path / "c.html").read_text(encoding="utf-8")
    section = page[page.index('id="sources"') :][:600]
    assert "not measured" in section
    assert "<svg" not in section
