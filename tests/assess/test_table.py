import json
import math
import sys

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.assess import entries, table
from lightlike.errors import CapacityError, ChoiceError
from lightlike.length.codelength import CodeLength

NAMES = [entry.name for entry in entries.ENTRIES]


def classes(n=20):
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    x = torch.randn(n, 2, dtype=torch.float64)
    return model, x, torch.arange(n) % 3


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("arviz_stats")
    model, x, y = classes()
    F = ll.fisher(model, (x, y), "categorical")
    return F, ll.lengths.table(F, draws=30, seed=3)


def test_every_row_is_the_number_itself(found):
    F, t = found
    assert [row.name for row in t] == NAMES
    criteria = ll.lengths.criteria(F)
    expected = {
        "gaussian": ll.description_length(F).total,
        "tic_ggn": ll.lengths.tic(F, method="ggn").total,
        "waic": ll.lengths.waic(F, draws=30, seed=3).total,
        "loo": ll.lengths.loo(F, draws=30, seed=3).total,
        "nml": ll.lengths.nml([7, 7, 6]).total,
        **{k: criteria[k] for k in ("aic", "bic", "bic_dimension", "uniform", "label_entropy")},
    }
    for name, total in expected.items():
        row = t[name]
        assert row.total == pytest.approx(total, rel=1e-12), name
        assert row.per_observation == pytest.approx(total / 20, rel=1e-12)
        assert row.reason == ""
        assert row.note
        assert row.seconds >= 0
    assert t["waic"].kind == "estimated"
    assert t["waic"].stderr > 0
    assert t["gaussian"].kind == "exact"
    assert t["tic"].total == criteria["tic"]


def test_sampled_lengths_are_those_of_their_own_functions():
    """Variational ones always; interpolating and singular with what they need."""
    model, x, y = classes(60)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    F = ll.fisher(model, (x, y), "categorical")
    prior = ll.priors.Isotropic(0.01)
    lc = ll.learning_coefficient(
        model, (x, y), "categorical", method="difference", chains=2, draws=200, burn_in=100
    )
    t = ll.lengths.table(F, prior=prior, draws=20, epsilon=1.0, coefficient=lc, include=[
        "interpolating", "laplace", "mean_field", "singular",
    ])  # fmt: skip
    expected = {
        "interpolating": ll.lengths.interpolating(F, prior=prior, epsilon=1.0, draws=20),
        "laplace": ll.lengths.variational(F, prior=prior, draws=20),
        "mean_field": ll.lengths.variational(F, prior=prior, posterior="mean_field", draws=20),
        "singular": ll.lengths.singular(lc),
    }
    for name, length in expected.items():
        assert t[name].total == pytest.approx(length.total, rel=1e-12), name
        assert t[name].stderr == pytest.approx(length.stderr), name
    with torch.no_grad():
        model.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    other = ll.fisher(model, (x, y), "categorical")
    assert "another fit" in ll.lengths.table(
        other, coefficient=lc, include=["singular"]
    )["singular"].reason  # fmt: skip


def coin(_, y, seed):
    """A model that knows the shares of the labels so far, with half a count for each class."""
    del seed
    shares = (torch.bincount(y, minlength=3).double() + 0.5) / (len(y) + 1.5)
    model = nn.Linear(2, 3).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(shares.log())
    return model.eval()


def test_a_prequential_length_beside_the_others():
    model, x, y = classes()
    F = ll.fisher(model, (x, y), "categorical")
    found = ll.lengths.prequential(coin, (x, y), "categorical")
    t = ll.lengths.table(F, include=["prequential", "uniform"], prequential=found)
    assert t["prequential"].total == found.total
    assert t["prequential"].kind == "exact"
    bits = ll.lengths.table(F, include=["prequential"], prequential=found.to("bits"), units="bits")
    assert bits["prequential"].total == pytest.approx(found.total / math.log(2))
    other = ll.fisher(model, (x[:10], y[:10]), "categorical")
    for fisher, given, says in (
        (other, found, "20 observations, not 10"), (F, None, "No prequential length"),
        (F, 3.0, "prequential=3.0 is not a choice"),
    ):  # fmt: skip
        t = ll.lengths.table(fisher, include=["prequential"], prequential=given)
        assert says in t["prequential"].reason


def test_no_silent_gap(found):
    _, t = found
    for row in t:
        assert (row.length is None) == bool(row.reason)
        assert row.needs
    assert "bounds" in t["rissanen"].reason
    assert t["rissanen"].kind == "undefined"
    assert t["rissanen"].total is t["rissanen"].stderr is t["rissanen"].per_observation is None


def test_as_text_and_json(found):
    _, t = found
    text = str(t)
    for row in t:
        assert row.title in text
        assert row.needs.split()[0] in text
    assert "20 observations in nats" in text
    # A hat over a letter takes no room of its own.
    assert max(map(len, text.replace("\u0302", "").splitlines())) <= table.WIDTH
    plain = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    assert [row["name"] for row in plain["rows"]] == NAMES
    assert plain["rows"][0]["total"] == t["gaussian"].total


def test_units(found):
    F, t = found
    bits = t.to("bits")
    assert bits["gaussian"].total == pytest.approx(t["gaussian"].total / math.log(2))
    assert bits.to("nats")["waic"].stderr == pytest.approx(t["waic"].stderr)
    asked = ll.lengths.table(F, include=["bic"], units="bits")
    assert asked["bic"].total == pytest.approx(bits["bic"].total)
    assert "in bits" in str(asked)
    for call in (lambda: t.to("bytes"), lambda: ll.lengths.table(F, units="bytes")):
        with pytest.raises(ChoiceError, match="'bits'"):
            call()


def test_choosing_rows(found):
    F, _ = found
    t = ll.lengths.table(F, include=["uniform", "gaussian"])
    assert [row.name for row in t] == ["uniform", "gaussian"]
    assert len(t) == 2
    with pytest.raises(ChoiceError, match="'label_entropy'"):
        ll.lengths.table(F, include=["gauss"])
    with pytest.raises(ChoiceError, match="'uniform'"):
        t["waic"]


def test_rissanen_with_bounds():
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    with torch.no_grad():
        model.weight.fill_(0.5)
    F = ll.fisher(model, (x, 0.5 * x), "gaussian")
    row = ll.lengths.table(F, bounds=(-2, 2), include=["rissanen", "uniform", "nml"])
    spread = float((x**2).sum())
    penalty = 0.5 * math.log(spread / (2 * math.pi)) + math.log(4)
    assert row["rissanen"].length.penalty == pytest.approx(penalty, abs=1e-10)
    assert "finite set" in row["uniform"].reason
    assert "finite set" in row["nml"].reason


def test_without_labels():
    model, x, _ = classes()
    t = ll.lengths.table(ll.fisher(model, (x,), "categorical"), draws=3)
    assert t["uniform"].total == pytest.approx(20 * math.log(3))
    for row in t:
        if row.name not in (
                "uniform", "rissanen", "interpolating", "singular", "prequential"
            ):  # fmt: skip
            assert "label" in row.reason, row.name


def test_without_arviz(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    model, x, y = classes()
    t = ll.lengths.table(ll.fisher(model, (x, y), "categorical"), include=["loo"], draws=3)
    assert "pip install" in t["loo"].reason


def test_an_entry_more(monkeypatch):
    def compute(question):
        return CodeLength(
            name="mine", total=question.fit + 1, fit=question.fit, stderr=0.5, kind="estimated",
            observations=20, note="for the test", warnings=("careful",),
        )  # fmt: skip

    more = (*entries.ENTRIES, entries.Entry("mine", "My length", "nothing", compute))
    monkeypatch.setattr(table, "ENTRIES", more)
    model, x, y = classes()
    F = ll.fisher(model, (x, y), "categorical")
    row = ll.lengths.table(F, include=["mine"])["mine"]
    assert row.total == pytest.approx(float(F.problem.survey.nll.sum()) + 1)
    assert row.note == "careful for the test"


def test_a_bug_is_not_a_reason(monkeypatch):
    """Only errors that lightlike raises on purpose become rows."""

    def compute(_):
        raise ZeroDivisionError

    monkeypatch.setattr(table, "ENTRIES", (entries.Entry("bug", "Bug", "", compute),))
    model, x, y = classes(5)
    with pytest.raises(ZeroDivisionError):
        ll.lengths.table(ll.fisher(model, (x, y), "categorical"))


def test_only_the_row_that_needs_a_decomposition_fails_with_it(monkeypatch):
    def too_large(_):
        raise CapacityError("No route fits.", "Why.", "What to do.")

    monkeypatch.setattr(entries, "dimension", too_large)
    model, x, y = classes()
    F = ll.fisher(model, (x, y), "categorical")
    t = ll.lengths.table(F, include=["aic", "bic", "bic_dimension", "uniform"])
    assert [row.total is None for row in t] == [False, False, True, False]
    assert t["bic_dimension"].reason == "CapacityError: No route fits. Why. What to do."


def test_rows_say_so_off_an_optimum():
    """Softmax regression, where the loss is convex: far away, nearer, and at the minimum."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 2, dtype=torch.float64), torch.arange(40) % 3
    names = ["gaussian", "interpolating", "tic", "tic_ggn"]
    prior = ll.priors.Isotropic(0.01)

    def rows(model):
        F = ll.fisher(model, (x, y), "categorical")
        t = ll.lengths.table(F, prior=prior, epsilon=1.0, draws=20, include=names)
        measured = ll.measure(model, (x, y), "categorical", prior=prior, progress=False)
        return F, t, next(c for c in measured.checks if c.name == "at an optimum")

    far = nn.Linear(2, 3).double()
    with torch.no_grad():
        far.weight.copy_(4 * torch.eye(3, 2))
    F, t, check = rows(far)
    assert check.status in ("warning", "failed")
    for name in names:
        assert any("from an optimum" in w for w in t[name].length.warnings), name
    for name in ("gaussian", "interpolating"):
        assert t[name].length.warnings == (f"{check.evidence} {check.remedy}",)
        assert t[name].note.startswith(check.evidence)
    assert "from an optimum" in ll.description_length(F, prior=prior).validity
    # ½ gᵀ(N Î)⁺g with the matrix written out.
    A = F.root.dense()
    out = far(x)
    g = torch.autograd.grad(
        nn.functional.cross_entropy(out, y, reduction="sum"), list(far.parameters())
    )
    g = torch.cat([part.reshape(-1) for part in g])
    decrement = 0.5 * float(g @ torch.linalg.pinv(40 * A.T @ A, rtol=1e-10) @ g)
    tic = ll.lengths.tic(F, method="ggn")
    assert tic.record["decrement"] == pytest.approx(decrement, rel=1e-8)
    assert tic.kind == "exact"
    near = nn.Linear(2, 3).double()
    optimiser = torch.optim.LBFGS(near.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        found = nn.functional.cross_entropy(near(x), y)
        found.backward()
        return found

    optimiser.step(loss)
    near.zero_grad(set_to_none=True)
    F, t, check = rows(near)
    assert check.status == "passed"
    assert all(t[name].length.warnings == () for name in ("gaussian", "tic", "tic_ggn"))
    assert ll.description_length(F, prior=prior).validity == ""
