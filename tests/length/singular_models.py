"""Models whose learning coefficient is known, and the slope of their free energy at finite n."""

import math

import mpmath
import numpy as np
import torch
from torch import nn


class Crossing(nn.Module):
    """y = x Π_j w_j^{k_j}: with x² of mean 1, K = ½ Π_j w_j^{2 k_j}, λ = min 1/(2 k_j)."""

    def __init__(self, *powers):
        super().__init__()
        self.powers = powers
        self.w = nn.Parameter(torch.zeros(len(powers), dtype=torch.float64))

    def forward(self, x):
        factors = [w**k for w, k in zip(self.w, self.powers, strict=True)]
        return x * math.prod(factors)


class ReducedRank(nn.Module):
    """y = B A x with A: H × M, B: N × H, at a truth of rank r."""

    def __init__(self, M, H, N, r):
        super().__init__()
        A, B = torch.zeros(H, M, dtype=torch.float64), torch.zeros(N, H, dtype=torch.float64)
        for k in range(r):
            A[k, k] = B[k, k] = 1.0
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def forward(self, x):
        return x @ self.A.T @ self.B.T


def design(width, rows=None):
    """Inputs (n, width) with xᵀx = n I, so that K is exactly ½ |BA − B₀A₀|²."""
    rows = max(2 * width, 2) if rows is None else rows
    g = torch.Generator().manual_seed(0)
    columns = torch.randn(rows, width, generator=g, dtype=torch.float64)
    return torch.linalg.qr(columns).Q * math.sqrt(rows)


def noiseless(model, width):
    """Labels that are the model's own outputs: L_n(θ) − L_n(θ̂) is K itself."""
    x = design(width)
    with torch.no_grad():
        return x, model(x)


def aoyagi_watanabe(M, H, N, r):
    """(λ, m) of reduced-rank regression, Aoyagi & Watanabe 2005."""
    if N + r <= M + H and M + r <= N + H and H + r <= M + N:
        value = -((H + r) ** 2) - M**2 - N**2 + 2 * (H + r) * (M + N) + 2 * M * N
        return (value / 8, 1) if (M + H + N + r) % 2 == 0 else ((value + 1) / 8, 2)
    if N + r > M + H:
        return (H * M - H * r + N * r) / 2, 1
    if M + r > N + H:
        return (H * N - H * r + M * r) / 2, 1
    return M * N / 2, 1


def slope_of_one_hidden_unit(M, N, t):
    """dF/d log t for H = 1, truth 0, N(0, I): Z = (2t)^{−M/2} U(M/2, (M − N)/2 + 1, 1/(2t))."""

    def free_energy(log_t):
        z = mpmath.exp(-log_t) / 2
        a, b = mpmath.mpf(M) / 2, mpmath.mpf(M - N) / 2 + 1
        return -mpmath.log(z**a * mpmath.hyperu(a, b, z))

    return float(mpmath.diff(free_energy, mpmath.log(t)))


def slope_of_crossing(powers, t):
    """t E_t[K] for two factors under N(0, I), by quadrature in log |w|."""
    s = np.linspace(-30.0, 2.5, 1_500)
    log_density = s - 0.5 * np.exp(2 * s)
    K = 0.5 * np.exp(2 * (powers[0] * s[:, None] + powers[1] * s))
    weights = np.exp(log_density[:, None] + log_density - t * K)
    return float(t * (weights * K).sum() / weights.sum())


def slope_of_regression(gram, beta, gamma):
    """½ Σ β g_k / (β g_k + γ) for eigenvalues g_k of xᵀx/s²: exact for a linear model."""
    g = torch.linalg.eigvalsh(gram)
    return float(0.5 * (beta * g / (beta * g + gamma)).sum())


def slope_of_product(t):
    """t E_t[K] for K = ½ (a b − 1)², N((1, 1), I): b integrated out, a by quadrature."""
    a = np.linspace(-8.0, 10.0, 200_001)

    def free_energy(t):
        flat = 1.0 + t * a * a
        log = -0.5 * (a - 1.0) ** 2 - 0.5 * np.log(flat) - 0.5 * t * (1.0 - a) ** 2 / flat
        return -log.max() - math.log(np.exp(log - log.max()).sum())

    h = 1e-3
    return (free_energy(t * math.exp(h)) - free_energy(t * math.exp(-h))) / (2 * h)
