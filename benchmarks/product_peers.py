"""Products with the Fisher matrix by other libraries, and by nobody's: torch.func in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from product_cases import ProductCase
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# A product: (D,) -> (D,), in the type that the model has.
Product = Callable[[Tensor], Tensor]


def prepared(case: ProductCase, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """A copy of the model, and the inputs, in a dtype."""
    x = case.x.to(dtype) if case.x.is_floating_point() else case.x
    return copy.deepcopy(case.model).to(dtype), x


def gradient(case: ProductCase, dtype: torch.dtype) -> Callable[[], object]:
    """One gradient of the mean loss: the unit that products are counted in."""
    model, x = prepared(case, dtype)
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(functional.cross_entropy(model(x), case.y), parameters)


def reference(case: ProductCase) -> Product:
    """Jᵀ Λ J v / N by torch.func in float64, Λ from its definition."""
    model, x = prepared(case, torch.float64)
    values = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def forward(given: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(model, {**given, **buffers}, (x,))
        return found

    def product(v: Tensor) -> Tensor:
        parts = v.double().split([p.numel() for p in values.values()])
        tangents = {
            name: part.view_as(p) for (name, p), part in zip(values.items(), parts, strict=True)
        }
        with sdpa_kernel(SDPBackend.MATH):
            h, image = jvp(forward, (values,), (tangents,))
            p = torch.softmax(h, -1)
            weighed = torch.einsum("nk,nk->nk", p, image) - p * torch.einsum(
                "nk,nk->n", p, image
            ).unsqueeze(-1)
            (found,) = vjp(forward, values)[1](weighed / len(h))
        return torch.cat([found[name].reshape(-1) for name in values])

    return product


def curvlinops_product(case: ProductCase, dtype: torch.dtype) -> Product:
    """Its generalised Gauss–Newton matrix."""
    from curvlinops import GGNLinearOperator

    model, x = prepared(case, dtype)
    operator = GGNLinearOperator(
        model, nn.CrossEntropyLoss(), [p for p in model.parameters()], [(x, case.y)],
        num_data=len(x),
    )  # fmt: skip

    def product(v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = operator @ v.to(dtype)
        return found

    return product


def eigenthings_product(case: ProductCase, dtype: torch.dtype) -> Product:
    """hessian-eigenthings' generalised Gauss–Newton matrix."""
    from hessian_eigenthings import (
        GGNOperator,
        supervised_forward,
        supervised_loss_of_output,
    )

    model, x = prepared(case, dtype)
    operator = GGNOperator(
        model, [(x, case.y)], supervised_forward,
        supervised_loss_of_output(functional.cross_entropy),
    )  # fmt: skip

    def product(v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = operator.matvec(v.to(dtype))
        return found

    return product


def nngeometry_product(case: ProductCase, dtype: torch.dtype) -> Product:
    """nngeometry's implicit matrix."""
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object.pspace import PMatImplicit
    from nngeometry.object.vector import PVector
    from torch.utils.data import DataLoader, TensorDataset

    model, x = prepared(case, dtype)
    loader = DataLoader(TensorDataset(x), batch_size=len(x))
    layers = LayerCollection.from_model(model)
    matrix = FIM(model, loader, PMatImplicit, variant="classif_logits", layer_collection=layers)

    def product(v: Tensor) -> Tensor:
        found: Tensor = matrix.mv(PVector(layers, vector_repr=v.to(dtype))).to_torch()
        return found

    return product


PEERS: dict[str, Callable[[ProductCase, torch.dtype], Product]] = {
    "curvlinops": curvlinops_product,
    "hessian-eigenthings": eigenthings_product,
    "nngeometry": nngeometry_product,
}
