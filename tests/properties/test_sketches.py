"""Row sketches of random networks under every likelihood, against naive rows and A itself."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lightlike as ll
from lightlike.metric.drawing import sketched
from lightlike.problem.draws import Draws
from lightlike.spectrum.sketch import DISTRIBUTIONS
from oracles import networks as nets
from oracles.reference import jacobians, score_root, whitened

LIKELIHOODS = {
    "categorical": ll.likelihoods.Categorical(),
    "gaussian": ll.likelihoods.Gaussian(variance=0.3),
    "bernoulli": ll.likelihoods.Bernoulli(),
    "poisson": ll.likelihoods.Poisson(),
    "heteroscedastic": ll.likelihoods.HeteroscedasticGaussian(),
}


def root_of(name, h):
    """L (m × m) with L Lᵀ = Λ: score covariances from the labels' law; diagonal but for classes."""
    if name == "categorical":
        p = np.exp(h - h.max())
        p /= p.sum()
        return np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p))
    return score_root(name, h, 0.3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(list(LIKELIHOODS)),
    width=st.integers(1, 3),
    half=st.integers(1, 3),
    n=st.integers(1, 6),
    cuts=st.sets(st.integers(1, 5), max_size=3),
    draws=st.builds(
        Draws,
        count=st.integers(1, 3),
        seed=st.integers(-(2**40), 2**40),
        repetition=st.integers(0, 50),
        distribution=st.sampled_from(DISTRIBUTIONS),
    ),
)
def test_sketches(name, width, half, n, cuts, draws):
    m = 2 * half
    model = nets.fill(nets.mlp([2, width, m], "tanh"), draws.seed % 1000)
    x = nets.normal(n, 2, seed=draws.seed % 997)
    bounds = [0, *sorted(c for c in cuts if c < n), n]
    batches = [(x[a:b], None) for a, b in pairwise(bounds)]
    root = ll.fisher(model, batches, LIKELIHOODS[name]).root
    S = sketched(root, draws)
    h, J = jacobians(model, batches)
    xi = draws.vectors([(i, 0) for i in range(n)], m).numpy()
    expected = np.concatenate(
        [(root_of(name, o) @ k).T @ j for o, j, k in zip(h, J, xi, strict=True)]
    ) / math.sqrt(n)
    scale = np.linalg.norm(expected)
    assert S.shape == expected.shape
    assert np.linalg.norm(S.dense().numpy() - expected) <= 1e-10 * scale
    assert np.linalg.norm(S.gram().numpy() - expected @ expected.T) <= 1e-10 * scale**2
    # Its rows lie in A's row space, so that its rank is at most A's.
    A = whitened(model, batches, name, variance=0.3)
    _, s, rows = np.linalg.svd(A, full_matrices=False)
    rows = rows[s > 1e-12 * s.max()]
    outside = expected - expected @ rows.T @ rows
    assert np.linalg.norm(outside) <= 1e-9 * scale
    assert np.linalg.matrix_rank(expected, tol=1e-9 * scale) <= len(rows)
