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
