"""Each check passes where all is well, and speaks up where something planted is wrong."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import lightlike as ll
from lightlike.cli import app
from lightlike.errors import ChoiceError

NAMES = {
    "arithmetic", "gap at the cut", "enough data", "at an optimum", "quadratic picture",
    "data outweigh prior", "saturated outputs", "agreement", "true derivatives",
    "independent items", "labels", "all parameters",
}  # fmt: skip


def data(n: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, (x[:, :3] + noise).argmax(-1)


def trained(width: int = 3, steps: int = 150) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()
    x, y = data()
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(model(x), y)
        value.backward()
        return value

    optimiser.step(loss)
    return model


@pytest.fixture(scope="module")
def healthy() -> ll.Measurement:
    return ll.measure(trained(), data(), "categorical", progress=False)


def status(m: ll.Measurement, name: str) -> str:
    return next(check.status for check in ll.diagnose(m).checks if check.name == name)


def test_a_healthy_network_passes_every_check(healthy):
    """All are made, none speaks up; nothing is left to warn of."""
    found = ll.diagnose(healthy)
    assert {check.name for check in found.checks} == NAMES
    assert {c.name: c.evidence for c in found.checks if c.status != "passed"} == {}
    assert found.healthy
    assert healthy.warnings == ()


class Straight(nn.Module):
    """Rounds its hidden layer, and passes gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = trained()

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner[0](x)
        return self.inner[2](h + (torch.sign(h) - h).detach())


class Centred(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = trained()

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return h - h.mean(0)


def scaled(factor: float) -> nn.Module:
    model = trained()
    with torch.no_grad():
        model[2].weight.mul_(factor)
        model[2].bias.mul_(factor)
    return model


def partly_frozen() -> nn.Module:
    model = trained()
    model[0].bias.requires_grad_(False)
    return model


def untrained() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


@pytest.mark.parametrize(
    ("name", "expected", "made", "options"),
    [
        ("arithmetic", "warning", trained, dict(dtype="float32")),
        ("enough data", "warning", trained, dict(n=2)),
        ("at an optimum", "warning", untrained, dict(n=300)),
        ("data outweigh prior", "warning", trained, dict(prior=ll.priors.Isotropic(1e-7))),
        ("saturated outputs", "warning", lambda: scaled(1000.0), {}),
        ("true derivatives", "failed", Straight, {}),
        ("independent items", "failed", Centred, {}),
        ("all parameters", "warning", partly_frozen, {}),
    ],
)
def test_what_is_wrong_is_found(name, expected, made, options):
    """A fault, planted; its text is among the warnings."""
    n = options.pop("n", 300)
    m = ll.measure(made(), tuple(t[:n] for t in data()), "categorical", progress=False, **options)
    assert status(m, name) == expected
    check = next(check for check in m.checks if check.name == name)
    assert check.text in m.warnings
    assert ll.diagnose(m).healthy == (
        expected != "failed" and status(m, "at an optimum") != "failed"
    )


def test_failures_come_first():
    """Whatever the order in which they were made."""
    m = ll.measure(Straight(), data(), "categorical", progress=False)
    found = [check.status for check in ll.diagnose(m).checks]
    assert found == sorted(found, key=["failed", "warning", "passed"].index)
    assert str(ll.diagnose(m)).startswith("failed")


def test_saved_results_can_be_diagnosed_and_gate_a_build(healthy, tmp_path):
    """Exit code 0 for a healthy one, 3 for another."""
    healthy.save(tmp_path / "good")
    ll.measure(Straight(), data(), "categorical", progress=False, out=tmp_path / "bad")
    assert ll.diagnose(ll.load(tmp_path / "good")) == ll.diagnose(healthy)
    assert CliRunner().invoke(app, ["diagnose", str(tmp_path / "good")]).exit_code == 0
    bad = CliRunner().invoke(app, ["diagnose", str(tmp_path / "bad"), "--json"])
    assert bad.exit_code == 3
    assert json.loads(bad.stdout)["healthy"] is False


def test_other_things_cannot_be_diagnosed():
    """An error names what they are."""
    with pytest.raises(ChoiceError, match="A dict cannot"):
        ll.diagnose({})  # type: ignore[arg-type]
