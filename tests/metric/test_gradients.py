import pytest
import torch
from torch import nn

import lightlike as ll

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(7, (9, 5), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear layer, something in between, and another linear layer."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between, self.last = nn.Linear(4, 8), between, nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.between(self.first(x)))


class Words(nn.Module):
    """The mean of embedded tokens, and a linear layer."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(7, 4, **options), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.last(torch.tanh(self.table(tokens)).mean(1))


def warned(model, x):
    found = ll.measure(model, (x,), "gaussian", progress=False).warnings
    return any("gradient is not the derivative" in text for text in found)


@pytest.mark.parametrize("between", [torch.tanh, torch.relu, torch.sign, lambda h: h * h.exp()])
def test_true_derivatives_pass(between):
    assert not warned(Net(between), X)


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h + (h.round() - h).detach(),
        lambda h: torch.tanh(h - h.mean(1, keepdim=True).detach()),
    ],
)
def test_gradients_that_are_no_derivatives_are_told(between):
    assert warned(Net(between), X)


@pytest.mark.parametrize("options", [{"scale_grad_by_freq": True}, {"max_norm": 0.5}])
def test_embeddings_with_gradients_of_their_own_are_told(options):
    assert warned(Words(**options), TOKENS)


def test_sparse_embeddings_give_what_dense_ones_do():
    sparse, dense = (ll.fisher(Words(sparse=s), (TOKENS,), "gaussian").root for s in (True, False))
    assert torch.equal(sparse.gram(), dense.gram())
    assert torch.equal(sparse.metric(), dense.metric())
    u = torch.ones(dense.shape[0])
    assert torch.equal(sparse.rmv(u), dense.rmv(u))
