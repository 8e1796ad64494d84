"""What an iteration that goes on spares, and when its states are not used."""

import pytest
import torch

import lightlike as ll
from lightlike import checkpoint, store
from lightlike.assess import iterations
from lightlike.metric.operator import FisherOperator
from oracles import networks as nets

X, Y = nets.normal(30, 4, seed=1), torch.arange(30) % 3
METHODS = {
    "lanczos": ll.Lanczos(count=3),
    "slq": ll.Quadrature(probes=4, block=1, deflate=2),
}


@pytest.fixture
def counted(monkeypatch):
    """Every state is written; `products` are counted, and a write can be made the last one."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    seen = {"products": 0, "writes": 0, "last": None}
    multiply, replace = FisherOperator.__matmul__, store.os.replace

    def product(self, block):
        seen["products"] += 1 if block.ndim == 1 else block.shape[1]
        return multiply(self, block)

    def write(source, target):
        seen["writes"] += 1
        replace(source, target)
        if seen["writes"] == seen["last"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(FisherOperator, "__matmul__", product)
    monkeypatch.setattr(store.os, "replace", write)
    return seen


def measured(method, out, **options):
    model = nets.fill(nets.mlp([4, 5, 3], "tanh"), 0)
    return ll.measure(
        model, (X, Y), "categorical", method=method, out=out, progress=False, **options
    )


def stopped(seen, last, *given, **options):
    seen.update(products=0, writes=0, last=last)
    with pytest.raises(KeyboardInterrupt):
        measured(*given, **options)


def again(seen, *given, **options):
    seen.update(products=0, writes=0, last=None)
    return measured(*given, **options), seen["products"]


@pytest.mark.parametrize("name", METHODS)
def test_products_are_not_taken_again(name, counted, tmp_path):
    method = METHODS[name]
    whole, all_of_them = again(counted, method, tmp_path / "whole.ll")
    last = counted["writes"] - 1
    stopped(counted, last, method, tmp_path / "a.ll")
    found, products = again(counted, method, tmp_path / "a.ll")
    assert found.length == whole.length
    assert torch.equal(found.spectrum.eigenvalues, whole.spectrum.eigenvalues)
    # The search itself is nearly all there; what follows it is not kept.
    assert products < all_of_them - 8


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("other", ["seed", "options"])
def test_states_of_another_seed_or_of_other_options_are_not_used(name, other, counted, tmp_path):
    method, options = METHODS[name], {}
    stopped(counted, 5, method, tmp_path / "a.ll")
    if other == "seed":
        options["seed"] = 1
    else:
        method = {"lanczos": ll.Lanczos(count=2), "slq": ll.Quadrature(probes=3)}[name]
    found, products = again(counted, method, tmp_path / "a.ll", **options)
    fresh, all_of_them = again(counted, method, tmp_path / "b.ll", **options)
    assert products == all_of_them
    assert found.length == fresh.length


def test_another_prior_goes_on_with_what_does_not_depend_on_it(counted, tmp_path):
    method = METHODS["lanczos"]
    stopped(counted, 8, method, tmp_path / "a.ll")
    other = ll.priors.Isotropic(0.1)
    found, products = again(counted, method, tmp_path / "a.ll", prior=other)
    fresh, all_of_them = again(counted, method, tmp_path / "b.ll", prior=other)
    assert products < all_of_them
    assert found.length == fresh.length


def test_with_less_memory_than_then_it_begins_anew(counted, tmp_path, monkeypatch, capsys):
    method = METHODS["slq"]
    stopped(counted, 4, method, tmp_path / "a.ll")
    monkeypatch.setattr(iterations, "resolve_memory", lambda _: 1 << 20)
    counted.update(products=0, writes=0, last=None)
    model = nets.fill(nets.mlp([4, 5, 3], "tanh"), 0)
    ll.measure(model, (X, Y), "categorical", method=method, out=tmp_path / "a.ll", progress=True)
    assert "less memory is available now than then" in capsys.readouterr().err
