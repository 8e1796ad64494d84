"""Options and matrices that make no sense are refused by name, whatever is asked."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, EstimateError, LightlikeError, UndefinedError
from oracles.networks import fill, mlp, normal

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = {"text": "a", "none": None, "nan": NAN, "inf": INF, "truth": True, "negative": -1.0}


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(fill(mlp([3, 4, 2], "tanh"), 0), (normal(5, 3),), "gaussian")


@pytest.fixture(scope="module", name="spectra")
def spectra_of_one(F):
    """Before and after its eigenvalues are computed, the largest only, and an estimate."""
    settled = ll.spectrum(F).settled()
    return {
        "lazy": ll.spectrum(F.root.metric()),
        "settled": settled,
        "largest": ll.spectrum(F, "lanczos", count=3),
        "density": ll.density(F),
    }


@pytest.mark.parametrize("bad", NO_NUMBERS)
@pytest.mark.parametrize("question", ["logdet", "effective_dimension", "above"])
@pytest.mark.parametrize("which", ["lazy", "settled", "largest", "density"])
def test_what_is_no_scale_or_bound(spectra, which, question, bad):
    with pytest.raises(ChoiceError, match="is not a choice"):
        getattr(spectra[which], question)(NO_NUMBERS[bad])


def test_limits_of_the_range(spectra):
    for which in ("lazy", "settled", "density"):
        assert float(spectra[which].logdet(0.0)) == 0.0
    with pytest.raises(ChoiceError, match="tau"):
        spectra["density"].effective_dimension(0.0)
    assert spectra["settled"].effective_dimension(0) == 10
    assert spectra["settled"].above(0) == spectra["settled"].rank() == 10
    assert spectra["settled"].logdet(np.float64(2.0)) == spectra["settled"].logdet(2)


QUESTIONS = {
    "density scale": lambda F: ll.density(F, scale=-1),
    "density scale nan": lambda F: ll.density(F, scale=NAN),
    "density scale text": lambda F: ll.density(F, scale="a"),
    "density above": lambda F: ll.density(F, above=-1),
    "density above text": lambda F: ll.density(F, above="a"),
    "density seed": lambda F: ll.density(F, seed="a"),
    "density state": lambda F: ll.density(F, state=3),
    "density keep": lambda F: ll.density(F, keep=3),
    "density options": lambda F: ll.density(F, 3),
    "density options of a matrix": lambda _: ll.density(torch.eye(3), 3),
    "density share": lambda _: ll.Quadrature(share="a"),
    "density sum": lambda F: ll.density(F).sum(3),
    "density sum none": lambda F: ll.density(F).sum(None),
    "density cumulative": lambda F: ll.density(F).cumulative("a"),
    "density level": lambda F: ll.density(F).trace.interval("a"),
    "sketch level": lambda F: F.sketch(ll.Sketch(draws=1)).trace().interval("a"),
    "kronecker small": lambda F: F.kronecker(small=-1),
    "kronecker small text": lambda F: F.kronecker(small="a"),
    "kronecker largest": lambda F: F.kronecker(largest=-1),
    "kronecker correction": lambda F: F.kronecker(eigenvalue_correction="no"),
    "products": lambda F: F.products(1.5),
    "products text": lambda F: F.products("a"),
    "products none": lambda F: F.products(0),
    "products negative": lambda F: F.products(-1),
    "certify": lambda F: ll.dimension(F, certify="no"),
    "dimension above": lambda F: ll.dimension(F, above="a"),
    "dimension above inf": lambda F: ll.dimension(F, above=INF),
    "chain modules": lambda F: ll.dimension_chain(F, modules="x"),
    "chain none": lambda _: ll.dimension_chain(None),
    "lanczos maximum": lambda F: ll.lanczos(F, 3, maximum=0),
    "lanczos state": lambda F: ll.lanczos(F, 3, state=5),
    "lanczos seed": lambda F: ll.lanczos(F, 3, seed="x"),
    "lanczos keep": lambda F: ll.lanczos(F, 3, keep=5),
    "lanczos tolerance": lambda F: ll.lanczos(F, 3, tolerance="a"),
    "lanczos chance": lambda F: ll.lanczos(F, 3, chance="a"),
    "nystrom seed": lambda F: ll.nystrom(F, 3, seed=None),
    "nystrom damping": lambda F: ll.nystrom(F, 3).precondition(F.problem.theta, "a"),
    "explain": lambda F: ll.explain(F, spectrum=3),
    "rows": lambda F: F.root.rows(1000),
    "rows text": lambda F: F.root.rows("a"),
    "rows none": lambda F: F.root.rows(None),
    "prequential": lambda _: ll.lengths.prequential(
        None, (normal(9, 3), torch.arange(9) % 2), "categorical"
    ),
    "report": lambda _: ll.report(ll.measure(nn.Linear(3, 1), (normal(5, 3),), "gaussian"), None),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_no_option(F, question):
    with pytest.raises(ChoiceError) as caught:
        QUESTIONS[question](F)
    assert "is not a choice" in caught.value.what
    assert "Use one of" in caught.value.remedy


def test_observations_count_from_either_end(F):
    assert torch.equal(F.root.rows(4), F.root.rows(-1))
    assert torch.allclose(F.root.rows(1), F.root.dense()[2:4], atol=1e-14)


def test_count_without_lanczos_says_what_it_goes_with(F):
    with pytest.raises(ChoiceError, match="count=6 goes with method='lanczos' only"):
        ll.spectrum(F, count=6)


NO_MATRICES = {
    "none": None, "text": "F", "number": 3.0, "lists": [[1.0, 0.0], [0.0, 1.0]],
    "not square": torch.ones(2, 3), "vector": torch.ones(3), "nan": torch.full((3, 3), NAN),
    "inf": np.full((3, 3), INF), "complex": torch.eye(3) + 0j, "texts": np.full((2, 2), "a"),
    "sparse": torch.eye(3).to_sparse(),
}  # fmt: skip
OF_MATRICES = {
    "spectrum": ll.spectrum,
    "largest": lambda F: ll.spectrum(F, "lanczos", count=1),
    "dimension": ll.dimension,
    "lanczos": lambda F: ll.lanczos(F, 1),
    "nystrom": lambda F: ll.nystrom(F, 1),
    "density": ll.density,
}


@pytest.mark.parametrize("bad", NO_MATRICES)
@pytest.mark.parametrize("question", OF_MATRICES)
def test_what_is_no_matrix(question, bad):
    # What multiplies only learns of undefined entries from a product.
    kinds = (DataError, EstimateError) if bad in ("nan", "inf") else DataError
    with pytest.raises(kinds) as caught:
        OF_MATRICES[question](NO_MATRICES[bad])
    assert "matrix" in str(caught.value).lower() or "roduct" in caught.value.what


def test_operator_with_undefined_entries():
    class Undefined:
        shape = 3, 3

        def __matmul__(self, v):
            return v * NAN

    for question in OF_MATRICES.values():
        with pytest.raises(LightlikeError):
            question(Undefined())


@pytest.mark.parametrize("diagonal", [[-1.0] * 5, [2.0, 1.0, 0.0, 0.0, -0.1]])
@pytest.mark.parametrize("deflate", [0, 10])
def test_density_refuses_negative_eigenvalues(diagonal, deflate):
    with pytest.raises(EstimateError, match="eigenvalue of -"):
        ll.density(torch.diag(torch.tensor(diagonal)), ll.Quadrature(deflate=deflate))


def test_density_of_an_empty_matrix():
    found = ll.density(torch.zeros(0, 0))
    assert float(found.trace) == float(found.logdet(1.0)) == float(found.above(0.1)) == 0.0
    with pytest.raises(UndefinedError, match="no eigenvalues"):
        found.cumulative(1.0)


def test_density_of_zeros_is_sure():
    found = ll.density(torch.zeros(4, 4))
    assert float(found.trace) == 0.0
    assert math.isclose(float(found.cumulative(0.0)), 1.0)
