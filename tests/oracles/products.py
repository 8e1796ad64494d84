"""Models, data and likelihoods that products with the Fisher matrix are tested on."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lightlike.problem.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Poisson,
)
from oracles import networks as nets

X = nets.normal(7, 3, seed=1)
TOKENS = torch.randint(5, (4, 3), generator=nets.generator(3))
LABELS = torch.tensor([[1, 2, -100], [0, -100, -100], [4, 1, 1], [2, 0, 3]])
LIKELIHOODS = {
    "categorical": Categorical(),
    "gaussian": Gaussian(0.3),
    "bernoulli": Bernoulli(),
    "poisson": Poisson(),
    "heteroscedastic": HeteroscedasticGaussian(),
}


class Once(torch.autograd.Function):
    """tanh whose backward pass refuses to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y**2)


class Detached(torch.autograd.Function):
    """tanh whose backward pass is right and has a graph that is wrong."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return (g.detach() + 0.5 * (g - g.detach())) * (1 - y**2)


def custom(function):
    return nets.fill(
        nets.Call(lambda self, x: self.last(function.apply(self.first(x))),
                  first=nn.Linear(3, 4), last=nn.Linear(4, 4)), 0)  # fmt: skip
