"""What the figure of a spectrum shows of the worth of its values."""

import numpy as np
import torch

import lightlike as ll
from lightlike.present import plots
from oracles.networks import mlp, normal


def test_errors_and_estimates_of_a_spectrum_are_seen():
    """A band about eigenvalues that float32 leaves open; dashes where they are estimates."""
    x = normal(60, 3)
    data = x, torch.randint(3, (60,), generator=torch.Generator().manual_seed(0))
    model = mlp([3, 6, 3], "leaky")
    exact = ll.spectrum(ll.fisher(model, data, "categorical")).plot()
    F = ll.fisher(mlp([3, 12, 12, 3], "tanh"), data, "categorical", dtype="float32")
    s = ll.spectrum(F)
    assert (s.errors > 0.1 * s.eigenvalues).any()
    (axes,) = plots.plot_spectrum(s, ll.dimension(F)).axes
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    widest = int((s.errors / s.eigenvalues).argmax())
    assert any(np.isclose(heights, float(s.eigenvalues[widest] + s.errors[widest]), rtol=1e-9))
    assert not exact.axes[0].collections
    dashed = [line.is_dashed() for line in exact.axes[0].lines if len(line.get_xdata()) > 2]
    assert not any(dashed)
    sketched = ll.spectrum(ll.fisher(model, data, "categorical"), ll.Sketch(draws=1))
    lines = [x for x in sketched.plot().axes[0].lines if len(x.get_xdata()) > 2]
    assert any(line.is_dashed() for line in lines)


def test_no_label_is_struck_through():
    """What is said of the floor and of the cut stands beside one another, clear of both lines."""
    x = normal(60, 3)
    seen = 0
    for widths, parts, head in (
        ([3, 12, 3], None, "categorical"), ([3, 4, 3], r"^2\.", "categorical"),
        ([3, 8, 3], r"2.bias", "categorical"), ([3, 12, 3], None, "gaussian"),
    ):  # fmt: skip
        F = ll.fisher(mlp(widths, "leaky"), (x,), head, parts)
        figure = ll.spectrum(F).plot()
        figure.draw_without_rendering()
        axes = figure.axes[0]
        boxes = {t.get_text().split(":")[0]: t.get_window_extent() for t in axes.texts}
        if "largest below the cut" not in boxes:
            continue
        seen += 1
        label, floor = boxes["largest below the cut"], boxes["hidden by rounding"]
        assert not label.overlaps(floor)
        line = axes.transData.transform((1, ll.spectrum(F).floor))[1]
        assert label.y1 < line
        cut = axes.transData.transform((int(ll.dimension(F)) + 0.5, 1.0))[0]
        assert label.x1 < cut or label.x0 > cut
    assert seen > 1
