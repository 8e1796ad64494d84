"""What is doubtful is said, and what does not belong together is refused."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import DeterminismError, PriorError

X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(50) % 3


class Scaled(nn.Module):
    """A network with its outputs multiplied, far from any optimum."""

    def __init__(self, factor):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))
        self.factor = factor

    def forward(self, x):
        return self.net(x) * self.factor


def test_a_negative_length_of_labels_is_told():
    m = ll.measure(Scaled(30.0), (X, Y), "categorical", progress=False)
    assert m.length.total < 0
    assert any("negative" in text for text in m.warnings)


def test_a_point_far_from_an_optimum_is_told():
    m = ll.measure(Scaled(3.0), (X, Y), "categorical", progress=False)
    assert m.length.displacement < -0.5 * m.length.complexity
    assert any("far from an optimum" in text for text in m.warnings)


def test_a_spectrum_of_another_matrix_is_refused():
    F, G = (ll.fisher(Scaled(c), (X, Y), "categorical") for c in (1.0, 2.0))
    own = ll.description_length(F, spectrum=ll.spectrum(F))
    assert own.total == pytest.approx(ll.description_length(F).total)
    with pytest.raises(PriorError, match="not that of"):
        ll.description_length(F, spectrum=ll.spectrum(G))


@pytest.mark.parametrize("part", ["inputs", "labels"])
@pytest.mark.parametrize("first", [2, 3, 4, 6])
def test_data_that_change_later_are_refused(first, part):
    class Changing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            late = self.passes >= first
            yield X[:20], Y[:20]
            x = X[20:] + 1e-3 if late and part == "inputs" else X[20:]
            yield x, (Y[20:] + 1) % 3 if late and part == "labels" else Y[20:]

    with pytest.raises(DeterminismError, match="pass"):
        ll.measure(Scaled(1.0), Changing(), "categorical", progress=False)


def test_padded_transformers_are_measured_with_the_fast_path_left_on():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
            self.table, self.inner = nn.Embedding(7, 8), nn.TransformerEncoder(layer, 1)
            self.head = nn.Linear(8, 3)

        def forward(self, input_ids, mask):
            h = self.inner(self.table(input_ids), src_key_padding_mask=~mask)
            return {"logits": self.head(h)}

    ids = torch.arange(20).view(4, 5) % 7
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0, 3:] = False
    labels = (ids % 3).masked_fill(~mask, -100)
    batch = {"input_ids": ids, "mask": mask, "labels": labels}
    m = ll.measure(Encoder().eval(), [batch], "categorical", progress=False)
    assert m.observations == 18
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_likelihood_that_mixes_observations_is_refused():
    class Rate(ll.Likelihood):
        def nll(self, outputs, targets):
            return (outputs.exp() - targets * outputs).sum(-1)

        def root(self, outputs):
            return torch.diag_embed((0.5 * outputs).exp())

        def sample(self, outputs, generator=None):
            return torch.poisson(outputs.exp(), generator=generator)

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    good = ll.measure(model, (X, Y[:, None].double()), Rate(), progress=False)
    assert good.length.fit is not None
    with pytest.raises(ll.errors.ModelError, match="alone"):
        ll.measure(model, (X, Y.double()), Rate(), progress=False)
