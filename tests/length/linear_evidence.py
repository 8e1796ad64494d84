"""Bayesian linear regression with the exact evidence, in plain NumPy."""

import mpmath
import numpy as np
import torch
from scipy.special import expit
from torch import nn

import lightlike as ll

# N, D, d, s², σ², seed | −log p, ML point without |θ|² less exact, min-norm ML point with it less
# exact.
TABLE = [
    (50, 5, 5, 0.25, 1.0, 0, 55.8081277996, -1.12321627, 0.00533362),
    (50, 5, 3, 0.25, 2.0, 1, 34.5216493994, -0.60113366, 0.00139067),
    (20, 40, 20, 0.1, 0.5, 2, 53.3993305750, -7.98550895, 0.11832973),
    (20, 40, 7, 0.1, 0.5, 3, 29.1400537214, -8.33534822, 0.03164980),
    (1000, 10, 10, 1.0, 1.0, 4, 1468.5275897037, -3.23632374, 0.00339689),
    (100, 300, 100, 0.01, 3.0, 5, 468.6390025936, -46.29129951, 0.00068047),
]

# Variances of θ ~ N(μ, diag σ²) in `general`: −log p and complexity.
GENERAL = {
    "diagonal": ([1.0, 0.1, 2.0, 0.01, 5.0], 41.3136711080, 8.5136598053),
    "frozen": ([1.0, 0.0, 2.0, 0.0, 5.0], 41.4534690778, 7.3738358438),
}

# Inputs and N: −log p of logistic regression by quadrature, and by how much the razor at the MAP
# point exceeds it.
LOGISTIC = {
    1: {
        10: (5.8431536382, 0.0342475391),
        30: (18.1261183668, 0.0173946491),
        100: (54.7653826662, 0.0063078153),
        1000: (534.5455111887, 0.0006618567),
        10000: (5286.4519652561, 0.0000671533),
    },
    2: {
        10: (6.4889873692, 0.0882257228),
        30: (19.5824401764, 0.0449418119),
        100: (56.1580745050, 0.0162113168),
        1000: (530.9738826023, 0.0016980407),
        10000: (5212.5949102346, 0.0001724606),
    },
}


class Regression:
    """Y ~ N(X θ, s² I) with θ ~ N(μ, diag σ²)."""

    def __init__(self, X, Y, noise):
        self.X, self.Y, self.noise = X, Y, noise
        self.N, self.D = X.shape

    @classmethod
    def seeded(cls, N, D, rank, noise, variance, seed):
        g = np.random.default_rng(seed)
        X = g.standard_normal((N, D))
        if rank < min(N, D):
            X = g.standard_normal((N, rank)) @ g.standard_normal((rank, D)) / np.sqrt(rank)
        theta = np.sqrt(variance) * g.standard_normal(D)
        return cls(X, X @ theta + np.sqrt(noise) * g.standard_normal(N), noise)

    def evidence(self, variance, mean=0.0):
        """−log p(Y) from the N × N density itself."""
        sigma = np.broadcast_to(np.asarray(variance, float), self.D)
        error = self.Y - self.X @ np.broadcast_to(mean, self.D)
        w, U = np.linalg.eigh((self.X * sigma) @ self.X.T)
        c, e = self.noise + w.clip(min=0), U.T @ error
        return 0.5 * (e**2 / c).sum() + 0.5 * np.log(2 * np.pi * c).sum()

    def precise_evidence(self, variance):
        """The same for N(0, σ² I) in 50 digits, where float64 does not hold s² + σ² X Xᵀ."""
        with mpmath.workdps(50):
            X, Y = mpmath.matrix(self.X.tolist()), mpmath.matrix(self.Y.tolist())
            C = variance * X * X.T + self.noise * mpmath.eye(self.N)
            L = mpmath.cholesky(C)
            half_logdet = sum(mpmath.log(L[i, i]) for i in range(self.N))
            square = (Y.T * mpmath.lu_solve(C, Y))[0]
            return float(square / 2 + half_logdet + mpmath.log(2 * mpmath.pi) * self.N / 2)

    def nll(self, theta):
        error = self.Y - self.X @ theta
        return 0.5 * error @ error / self.noise + self.N / 2 * np.log(2 * np.pi * self.noise)

    def posterior_mean(self, variance, mean=0.0):
        mean = np.broadcast_to(mean, self.D)
        system = self.X.T @ self.X / self.noise + np.eye(self.D) / variance
        return mean + np.linalg.solve(system, self.X.T @ (self.Y - self.X @ mean) / self.noise)

    def points(self, variance):
        """MAP, the ML point of least norm, another one, and a point far from everything."""
        g = np.random.default_rng(99)
        inverse = np.linalg.pinv(self.X, rcond=1e-10)
        free = g.standard_normal(self.D)
        free -= inverse @ (self.X @ free)
        ml = inverse @ self.Y
        return {
            "map": self.posterior_mean(variance),
            "ml": ml,
            "other ml": ml + 3 * free,
            "far": 10 * g.standard_normal(self.D),
        }

    def eigenvalues(self):
        """Positive eigenvalues of XᵀX/(N s²)."""
        s = np.linalg.svd(self.X, compute_uv=False)
        return s[s > 1e-10 * s[0]] ** 2 / (self.N * self.noise)

    def model(self, theta):
        return linear(np.asarray(theta)[None])

    @property
    def data(self):
        return torch.as_tensor(self.X), torch.as_tensor(self.Y)[:, None]

    @property
    def likelihood(self):
        return ll.likelihoods.Gaussian(variance=self.noise)

    def measure(self, theta, prior, **options):
        return ll.measure(
            self.model(theta), self.data, self.likelihood, prior=prior, progress=False, **options
        )

    def length(self, theta, prior, method="auto"):
        return self.measure(theta, prior, method=method, layers=False).length


def general():
    g = np.random.default_rng(11)
    X = g.standard_normal((30, 5))
    Y = g.standard_normal(30) + X @ np.array([1, 0, -1, 0.5, 2.0])
    return Regression(X, Y, 0.4), np.array([0.5, 0, 0, 0, 1.0])


def linear(weight, bias=None):
    """nn.Linear in double with given weights (outputs, inputs)."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.as_tensor(bias, dtype=torch.float64))
    return layer


def logistic_data(N, inputs=2):
    """x_i = −2 + 4(i − ½)/N, y_i = 1[frac(φ i) < σ(0.3 + 1.2 x_i)]; a column of ones if 2."""
    i = np.arange(1, N + 1)
    x = -2 + 4 * (i - 0.5) / N
    y = (np.modf((5**0.5 - 1) / 2 * i)[0] < expit(0.3 + 1.2 * x)).astype(float)
    return (x[:, None] if inputs == 1 else np.stack([np.ones(N), x], 1)), y


def logistic_map(Z, y, variance):
    """The MAP point of logistic regression by Newton's method."""
    theta = np.zeros(Z.shape[1])
    for _ in range(100):
        p = expit(Z @ theta)
        slope = Z.T @ (p - y) + theta / variance
        H = Z.T @ (Z * (p * (1 - p))[:, None]) + np.eye(len(theta)) / variance
        step = np.linalg.solve(H, slope)
        theta = theta - step
        if abs(step).max() < 1e-14:
            break
    return theta
