import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from lightlike.errors import ChoiceError, ModelError, TargetError
from lightlike.problem.likelihoods import (
    NAMED,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
    resolve_likelihood,
)

few = settings(max_examples=25, deadline=None)


def vectors(low, high, least, most, step=1):
    sizes = st.integers(least, most).map(lambda k: k * step)
    entries = st.floats(low, high, allow_subnormal=False)
    return sizes.flatmap(lambda k: st.lists(entries, min_size=k, max_size=k)).map(
        lambda v: torch.tensor(v, dtype=torch.float64)
    )


def product(nodes: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    labels = torch.cartesian_prod(*nodes).reshape(-1, len(nodes))
    return labels, torch.cartesian_prod(*weights).reshape(-1, len(nodes)).prod(-1)


def hermite(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(6))
    weights = weights / weights.sum()
    return product(
        [m + s * nodes for m, s in zip(mean, deviation, strict=True)], [weights] * len(mean)
    )


def support(likelihood: Likelihood, h: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and probabilities (or quadrature weights) of p(y | h), from first principles."""
    match likelihood:
        case Categorical():
            e = (h - h.max()).exp()
            return torch.arange(len(h)), e / e.sum()
        case Bernoulli():
            labels = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(h)))).double()
            odds = h.exp()
            return labels, (labels * odds + (1 - labels)).div(1 + odds).prod(-1)
        case Poisson():
            counts = torch.arange(120, dtype=torch.float64)
            factorial = torch.tensor([math.lgamma(k + 1) for k in range(120)], dtype=h.dtype)
            pmfs = [(counts * x - math.exp(x) - factorial).exp() for x in h]
            return product([counts] * len(h), pmfs)
        case Gaussian():
            return hermite(h, torch.full_like(h, likelihood.variance**0.5))
        case HeteroscedasticGaussian():
            q = len(h) // 2
            return hermite(h[:q], (h[q:] / 2).exp())
    raise AssertionError(likelihood)


def scores(likelihood: Likelihood, h: Tensor, labels: Tensor) -> Tensor:
    h = h.expand(len(labels), -1).clone().requires_grad_()
    (grad,) = torch.autograd.grad(-likelihood.nll(h, labels).sum(), h)
    return grad


def statistic(likelihood: Likelihood, labels: Tensor, width: int) -> Tensor:
    if isinstance(likelihood, Categorical):
        return torch.nn.functional.one_hot(labels, width).double()
    return labels


CASES = {
    "categorical": (Categorical(), vectors(-8, 8, 2, 7)),
    "bernoulli": (Bernoulli(), vectors(-8, 8, 1, 5)),
    "poisson": (Poisson(), vectors(-4, 3, 1, 2)),
    "gaussian": (Gaussian(), vectors(-9, 9, 1, 3)),
    "gaussian_quiet": (Gaussian(0.01), vectors(-9, 9, 1, 3)),
    "gaussian_loud": (Gaussian(variance=37.0), vectors(-9, 9, 1, 3)),
    "heteroscedastic": (HeteroscedasticGaussian(), vectors(-4, 4, 1, 2, step=2)),
}
each = pytest.mark.parametrize(("likelihood", "outputs"), CASES.values(), ids=CASES)
FIXED = {
    "categorical": torch.tensor([0.3, -1.2, 2.0, 0.0]),
    "bernoulli": torch.tensor([0.4, -1.7, 2.2]),
    "poisson": torch.tensor([-0.5, 1.9]),
    "gaussian": torch.tensor([4.0, -2.5]),
    "gaussian_quiet": torch.tensor([4.0, -2.5]),
    "gaussian_loud": torch.tensor([4.0, -2.5]),
    "heteroscedastic": torch.tensor([1.0, -3.0, 0.8, -1.1]),
}
fixed = pytest.mark.parametrize(
    ("likelihood", "h"), [(CASES[k][0], FIXED[k].double()) for k in CASES], ids=CASES
)


@each
def test_root_is_a_root_of_the_score_covariance(likelihood, outputs):
    @few
    @given(outputs)
    def check(h):
        labels, weights = support(likelihood, h)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
        s = scores(likelihood, h, labels)
        covariance = (weights.unsqueeze(-1) * s).T @ s
        scale = float(covariance.abs().max())
        torch.testing.assert_close(weights @ s, torch.zeros_like(h), rtol=0, atol=1e-9 * scale**0.5)
        (root,) = likelihood.root(h.unsqueeze(0))
        torch.testing.assert_close(root @ root.T, covariance, rtol=1e-9, atol=1e-12 * scale)

    check()


@each
def test_root_has_as_many_columns_as_its_rank(likelihood, outputs):
    @few
    @given(outputs)
    def check(h):
        (root,) = likelihood.root(h.unsqueeze(0))
        rank = len(h) - isinstance(likelihood, Categorical)
        assert root.shape == (len(h), rank)
        assert int(torch.linalg.matrix_rank(root)) == rank

    check()


@each
def test_root_takes_each_observation_by_itself(likelihood, outputs):
    @few
    @given(outputs, st.integers(0, 2**16))
    def check(h, seed):
        noise = torch.randn(5, len(h), generator=torch.Generator().manual_seed(seed)).double()
        batch = h + noise
        alone = torch.cat([likelihood.root(row.unsqueeze(0)) for row in batch])
        torch.testing.assert_close(likelihood.root(batch), alone, rtol=1e-14, atol=1e-15)

    check()


@few
@given(vectors(-700, 700, 2, 9))
def test_softmax_root_is_orthogonal_to_ones(h):
    (root,) = Categorical().root(h.unsqueeze(0))
    assert bool((root.sum(0).abs() <= 1e-14 * root.abs().amax(0) + 1e-305).all())


SATURATED = [
    [700.0, -700.0],
    [-700.0, 700.0],
    [700.0, 0.0, -700.0],
    [700.0, 700.0, -700.0],
    [-700.0, 700.0, 699.0, 660.0, -700.0],
    [0.0, 0.0, 0.0],
    [1e-17, 0.0, 40.0],
    [36.0, -36.0, 35.0, -700.0],
]


def check_saturated(h: Tensor) -> None:
    (root,) = Categorical().root(h.unsqueeze(0))
    assert bool(torch.isfinite(root).all())
    m = len(h)
    with mpmath.workdps(700):
        e = [mpmath.exp(mpmath.mpf(x)) for x in h.tolist()]
        p = [x / mpmath.fsum(e) for x in e]
        q = [mpmath.sqrt(x) for x in p]
        L = [[mpmath.mpf(x) for x in row] for row in root.tolist()]
        least = mpmath.mpf("1e-305")  # what float64 cannot resolve
        for i, j in itertools.combinations_with_replacement(range(m), 2):
            exact = p[i] * ((i == j) - p[j])
            found = mpmath.fsum(a * b for a, b in zip(L[i], L[j], strict=True))
            bound = 2e-12 * abs(exact) + least * (q[i] + q[j])
            assert abs(found - exact) <= bound, (i, j)
        pivots = [k for k in range(m) if q[k] >= (1 - 1e-14) * max(q)]
        assert any(is_reflection(L, q, top, least) for top in pivots)


def is_reflection(L, q, top, least):
    """Whether L is diag(q) times the columns of the reflection of q to −e_top but the top one."""
    m = len(q)
    for column, j in enumerate(j for j in range(m) if j != top):
        for i in range(m):
            exact = q[i] * ((i == j) - (q[i] + (i == top)) * q[j] / (1 + q[top]))
            if abs(L[i][column] - exact) > 1e-12 * abs(exact) + least:
                return False
    return True


@pytest.mark.parametrize("logits", SATURATED, ids=str)
def test_saturated_softmax_keeps_relative_accuracy(logits):
    check_saturated(torch.tensor(logits, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(vectors(-700, 700, 2, 5))
def test_any_softmax_keeps_relative_accuracy(h):
    check_saturated(h)


@pytest.mark.parametrize("h", [-700.0, -40.0, 40.0, 700.0])
def test_saturated_coin_keeps_relative_accuracy(h):
    root = float(Bernoulli().root(torch.tensor([[h]], dtype=torch.float64)))
    with mpmath.workdps(700):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(h)))
        assert root == pytest.approx(float(mpmath.sqrt(p * (1 - p))), rel=1e-12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("h", [-700.0, -40.0, 0.0, 40.0, 700.0])
def test_saturated_coin_nll_is_that_of_two_classes(h, label):
    coin = Bernoulli().nll(torch.tensor([[h]]).double(), torch.tensor([[label]]).double())
    pair = Categorical().nll(torch.tensor([[0.0, h]]).double(), torch.tensor([label]))
    torch.testing.assert_close(coin, pair, rtol=1e-14, atol=1e-16)


def log_prob(likelihood: Likelihood, h: Tensor, y: Tensor) -> Tensor:
    match likelihood:
        case Categorical():
            return td.Categorical(logits=h).log_prob(y)
        case Bernoulli():
            return td.Bernoulli(logits=h).log_prob(y).sum(-1)
        case Poisson():
            return td.Poisson(h.exp()).log_prob(y).sum(-1)
        case Gaussian():
            return td.Normal(h, likelihood.variance**0.5).log_prob(y).sum(-1)
        case HeteroscedasticGaussian():
            mean, log_variance = h.chunk(2, -1)
            return td.Normal(mean, (log_variance / 2).exp()).log_prob(y).sum(-1)
    raise AssertionError(likelihood)


@each
def test_nll_is_minus_the_log_density(likelihood, outputs):
    @few
    @given(outputs, st.integers(0, 2**16))
    def check(h, seed):
        generator = torch.Generator().manual_seed(seed)
        batch = h + torch.randn(4, len(h), generator=generator).double()
        labels = likelihood.sample(batch, generator)
        nll = likelihood.nll(batch, labels)
        assert nll.shape == (4,)
        torch.testing.assert_close(
            nll, -log_prob(likelihood, batch, labels), rtol=1e-11, atol=1e-11
        )

    check()


@fixed
def test_samples_have_the_right_mean_and_covariance(likelihood, h):
    draws = 40_000
    labels = likelihood.sample(h.expand(draws, -1), torch.Generator().manual_seed(11))
    every, weights = support(likelihood, h)
    exact = statistic(likelihood, every, len(h))
    mean = weights @ exact
    covariance = (weights.unsqueeze(-1) * (exact - mean)).T @ (exact - mean)
    t = statistic(likelihood, labels, len(h)) - mean
    products = t.unsqueeze(-1) * t.unsqueeze(-2)
    for values, truth in ((t, torch.zeros_like(mean)), (products, covariance)):
        error = (values.mean(0) - truth).abs()
        assert bool((error <= 5 * values.std(0) / draws**0.5 + 1e-15).all())


@fixed
def test_sample_uses_its_generator_only(likelihood, h):
    batch = h.expand(200, -1)
    state = torch.get_rng_state()
    one, same, other = (
        likelihood.sample(batch, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@fixed
def test_samples_are_labels(likelihood, h):
    batch = h.expand(20, -1)
    labels = likelihood.sample(batch, torch.Generator().manual_seed(1))
    arranged = likelihood.arrange(labels, torch.Size([20]), len(h))
    torch.testing.assert_close(arranged, labels)
    assert likelihood.nll(batch, arranged).shape == (20,)


@pytest.mark.parametrize("ignore", [-100, -1, 1, 7])
def test_ignored_labels_are_not_observations(ignore):
    likelihood = Categorical(ignore_index=ignore)
    labels = likelihood.arrange(torch.tensor([0, ignore, 2, 2, ignore]), torch.Size([5]), 3)
    assert likelihood.observed(labels).tolist() == [True, False, True, True, False]
    h = torch.tensor([[0.5, -1.0, 2.0]]).double().expand(5, -1).clone().requires_grad_()
    nll = likelihood.nll(h, labels)
    kept = torch.tensor([0, 2, 3])
    assert nll[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(
        nll[kept], -td.Categorical(logits=h[kept]).log_prob(labels[kept]), rtol=1e-13, atol=0
    )
    assert likelihood.label_entropy(labels) == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    (grad,) = torch.autograd.grad(nll.sum(), h)
    assert not bool(grad[[1, 4]].any())
    assert bool(grad[kept].all())


def test_all_labels_observed_needs_no_mask():
    assert Categorical().observed(torch.tensor([0, 1])) is None


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32])
def test_classes_of_any_number_type(shape, dtype):
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    arranged = Categorical().arrange(labels.to(dtype).reshape(shape), torch.Size([6]), 3)
    assert arranged.dtype == torch.int64
    assert torch.equal(arranged, labels)


def test_classes_may_be_booleans():
    assert Categorical().arrange(torch.tensor([True, False]), torch.Size([2]), 2).tolist() == [1, 0]


@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli(), Poisson()])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_single_outputs_take_labels_with_or_without_a_last_dimension(likelihood, shape):
    labels = likelihood.arrange(torch.tensor([0, 1, 1]).reshape(shape), torch.Size([3]), 1)
    assert labels.dtype == torch.float64
    assert labels.tolist() == [[0], [1], [1]]


@pytest.mark.parametrize(("shape", "width"), [((2, 3, 4), 4), ((2, 3), 1), ((2, 3, 1), 1)])
def test_labels_of_positions_are_flattened_in_order(shape, width):
    labels = torch.arange(math.prod(shape)).reshape(shape)
    arranged = Gaussian().arrange(labels, torch.Size([2, 3]), width)
    assert arranged.tolist() == labels.reshape(6, -1).tolist()


NAN, INF = float("nan"), float("inf")
BAD = {
    "class_too_large": (Categorical(), [0, 3], 3, "run from 0 to 3.* 3 outputs"),
    "class_negative": (Categorical(), [0, -1], 3, "run from -1 to 0"),
    "default_ignore_not_ignored": (Categorical(ignore_index=-1), [0, -100], 3, "from -100"),
    "class_fraction": (Categorical(), [0.5, 1.0], 3, "whole numbers"),
    "class_nan": (Categorical(), [NAN, 1.0], 3, "1 label entries are NaN"),
    "class_inf": (Categorical(), [INF, 1.0], 3, "infinite"),
    "one_hot": (Categorical(), [[0, 1, 0], [1, 0, 0]], 3, r"shape \(2, 3\)"),
    "class_missing": (Categorical(), [0], 3, r"shape \(1,\)"),
    "class_scalar": (Categorical(), 0, 3, r"shape \(\)"),
    "class_complex": (Categorical(), [0j, 1j], 3, "complex"),
    "gaussian_nan": (Gaussian(), [[0.0, NAN], [INF, 1.0]], 2, "2 label entries"),
    "gaussian_flat": (Gaussian(), [0.0, 1.0], 2, r"shape \(2,\).*\(2, 2\)"),
    "gaussian_narrow": (Gaussian(), [[0.0], [1.0]], 2, r"shape \(2, 1\)"),
    "gaussian_short": (Gaussian(), [[0.0, 1.0]], 2, r"shape \(1, 2\)"),
    "gaussian_transposed": (Gaussian(), [[0.0, 1.0]], 1, r"shape \(1, 2\)"),
    "gaussian_complex": (Gaussian(), [[0j], [1j]], 1, "complex"),
    "heteroscedastic_wide": (HeteroscedasticGaussian(), [[0.0, 1.0]] * 2, 2, r"\(2, 1\)"),
    "heteroscedastic_nan": (HeteroscedasticGaussian(), [NAN, 0.0], 2, "NaN"),
    "coin_half": (Bernoulli(), [0.0, 0.5], 1, "from 0 to 0.5"),
    "coin_minus_one": (Bernoulli(), [-1, 1], 1, "from -1 to 1"),
    "coin_nan": (Bernoulli(), [NAN, 1.0], 1, "NaN"),
    "coin_shape": (Bernoulli(), [0, 1], 3, r"shape \(2,\)"),
    "count_negative": (Poisson(), [-1, 2], 1, "from -1 to 2"),
    "count_fraction": (Poisson(), [0.0, 2.5], 1, "whole numbers"),
    "count_inf": (Poisson(), [0.0, INF], 1, "infinite"),
}


@pytest.mark.parametrize(("likelihood", "labels", "width", "words"), BAD.values(), ids=BAD)
def test_bad_labels(likelihood, labels, width, words):
    with pytest.raises(TargetError, match=words):
        likelihood.arrange(torch.tensor(labels), torch.Size([2]), width)


@pytest.mark.parametrize(
    ("likelihood", "width", "fits"),
    [
        (Categorical(), 1, False),
        (Categorical(), 2, True),
        (HeteroscedasticGaussian(), 3, False),
        (HeteroscedasticGaussian(), 4, True),
        (Gaussian(), 1, True),
        (Bernoulli(), 1, True),
        (Poisson(), 1, True),
    ],
)
def test_number_of_outputs(likelihood, width, fits):
    if fits:
        likelihood.check_outputs(width)
    else:
        with pytest.raises(ModelError, match=f"gives {width}"):
            likelihood.check_outputs(width)


@pytest.mark.parametrize("variance", [0.0, -1.0, NAN, INF, "1", None])
def test_gaussian_needs_a_positive_variance(variance):
    with pytest.raises(ChoiceError, match="variance"):
        Gaussian(variance)


@pytest.mark.parametrize("name", NAMED)
def test_names(name):
    likelihood = resolve_likelihood(name)
    assert likelihood == NAMED[name]()
    assert likelihood.describe()["name"] == name
    assert resolve_likelihood(likelihood) is likelihood


@pytest.mark.parametrize("likelihood", ["Categorical", "", None, 3, Categorical, ["gaussian"]])
def test_unknown_names_list_the_choices(likelihood):
    with pytest.raises(ChoiceError) as caught:
        resolve_likelihood(likelihood)
    assert all(name in str(caught.value) for name in NAMED)


def test_settings_are_described():
    assert Categorical(ignore_index=0, dim=1).describe() == {
        "name": "categorical",
        "ignore_index": 0,
        "dim": 1,
    }
    assert Gaussian(2.0).describe() == {"name": "gaussian", "variance": 2.0}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
@few
def test_label_entropy_of_classes(labels):
    frequencies = [labels.count(k) / len(labels) for k in set(labels)]
    entropy = Categorical().label_entropy(torch.tensor(labels))
    assert entropy == pytest.approx(sum(-f * math.log(f) for f in frequencies), abs=1e-12)
    assert math.copysign(1, entropy) == 1


def test_label_entropy_of_coins():
    labels = torch.tensor([[0, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]).double()
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert Bernoulli().label_entropy(labels) == pytest.approx(2 * quarter)


@pytest.mark.parametrize(
    ("likelihood", "nats"),
    [(Categorical(), math.log(4)), (Bernoulli(), 4 * math.log(2)), (Gaussian(), None)],
)
def test_uniform_code(likelihood, nats):
    assert likelihood.uniform_nll(4) == nats


def test_continuous_labels_have_no_entropy():
    assert Gaussian().label_entropy(torch.zeros(3, 1)) is None
