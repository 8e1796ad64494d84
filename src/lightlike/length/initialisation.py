"""The prior that a network's initialisation is: the law its weights were drawn from."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from lightlike.errors import PriorError, choice_error
from lightlike.length.prior import Mean, Prior, named_mean, named_vector
from lightlike.length.schemes import Scheme, hosts, pretrained_scheme, scheme_of
from lightlike.numbers import check_whole, is_finite
from lightlike.problem.isolation import isolated
from lightlike.problem.parameters import Entry
from lightlike.problem.problem import Problem

# Probability below which the values that a Hugging Face model's own initialiser gave are not those
# of the scheme that was read.
IMPROBABLE = 1e-9


@dataclass(frozen=True)
class FromInitialisation(Prior):
    """N(μ, diag σ²) with the mean and variance that each parameter was initialised with.

    Read from the types of modules: U(±1/√fan_in) for linear and convolution layers, N(0, 1) for
    embeddings, U(±1/√hidden) for recurrent layers, Xavier's law for attention, N(0, range²) by
    `config.initializer_range` for Hugging Face models (held against the model's own initialiser,
    run on a copy). A model that initialises its weights in another way needs `fresh`, from which
    each parameter tensor's mean and variance are measured.

    Parameters that start at a constant, as gains at 1 and many biases at 0, were not drawn from
    anything, and 0 as a variance would hold them there for ever. Which variance they have under the
    prior is for the caller to say.

    Args:
        fresh: None, a freshly built model of the same architecture, or a function that builds one;
            it is called with all random states seeded, and they are restored.
        constants: σ² of parameters that start at a constant, about that constant; 0 holds them at
            it. If there are such parameters it must be given.
        mean: μ: None for that of the initialisation, a number, or a state dict, such as the initial
            one.
        seed: For `fresh` as a function.

    Raises:
        ChoiceError: if `fresh` or `seed` is neither.
        PriorError: if `constants` is no variance; when the prior is used, if a parameter's
            initialisation is not known, or it is constant and `constants` is not given.
    """

    fresh: nn.Module | Callable[[], nn.Module] | None = None
    constants: float | None = None
    mean: Mean | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.fresh is None or callable(self.fresh)):
            raise choice_error(
                "fresh", self.fresh, ["None", "a model", "a function that builds one"]
            )
        check_whole("seed", self.seed, 0)
        if not self.seed < 2**32:
            raise choice_error("seed", self.seed, ["a whole number below 2³²"])
        given = self.constants
        if given is None or (is_finite(given) and given >= 0):
            return
        raise PriorError(
            f"FromInitialisation(constants={given!r}) is not a variance.",
            "Only finite positive variances give a code length; 0 holds parameters fixed.",
            "Give such a number.",
        )

    def moments(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """μ and σ² of every selected parameter, both (D,) float64.

        Raises:
            PriorError: if they are not known for a parameter.
        """
        model = problem.evaluator.model
        schemes = (
            self._read(model, problem) if self.fresh is None else self._measured(model, problem)
        )
        theta = problem.theta
        mean, variance = torch.empty_like(theta), torch.empty_like(theta)
        constant = []
        for entry, scheme in zip(problem.selection.entries, schemes, strict=True):
            here = slice(entry.start, entry.stop)
            mean[here] = _flat(scheme.mean, entry, theta)
            variance[here] = _flat(scheme.variance, entry, theta)
            if not bool((variance[here] > 0).all()):
                constant.append(entry.name)
        if constant and self.constants is None:
            more = f" and {len(constant) - 1} more" if len(constant) > 1 else ""
            raise PriorError(
                f"Parameter {constant[0]!r}{more} starts at a constant (as gains and some biases "
                "and padding rows do).",
                "It was not drawn from anything, so the initialisation says nothing of its spread.",
                "Say which variance such parameters have with constants=..., 0 to hold them.",
            )
        if self.constants is not None:
            variance[variance == 0] = float(self.constants)
        if self.mean is not None:
            mean = named_vector(self.mean, problem.selection, theta, "mean")
        return mean, variance

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {
            "name": "from_initialisation",
            "source": "types of modules" if self.fresh is None else "a fresh model",
            "constants": None if self.constants is None else float(self.constants),
            "mean": "initialisation" if self.mean is None else named_mean(self.mean),
        }

    def _read(self, model: nn.Module, problem: Problem) -> list[Scheme]:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        pretrained = hosts(model)
        copies = {prefix: _reinitialised(host) for prefix, host in pretrained.items()}
        found = []
        for entry in problem.selection.entries:
            schemes: list[Scheme | None] = []
            for name in (entry.name, *entry.aliases):
                prefix = next(
                    (p for p in pretrained if name.startswith(f"{p}." if p else "")), None
                )
                if "lora_" in name:
                    schemes.append(None)
                elif prefix is None:
                    schemes.append(scheme_of(model, name, parameters[name]))
                else:
                    inner = name[len(prefix) + 1 :] if prefix else name
                    scheme = pretrained_scheme(pretrained[prefix], inner, parameters[name])
                    own = copies[prefix].get(inner)
                    schemes.append(scheme if scheme is None or _agrees(scheme, own) else None)
            if prefix is not None and any(schemes):
                # Of tied names the model's own initialiser has settled which one counts.
                schemes = [scheme for scheme in schemes if scheme is not None]
            found.append(_one(model, entry, schemes))
        return found

    def _measured(self, model: nn.Module, problem: Problem) -> list[Scheme]:
        fresh = self.fresh
        if not isinstance(fresh, nn.Module):
            assert fresh is not None
            fresh = _built(fresh, int(self.seed))
        if not isinstance(fresh, nn.Module) or fresh is model:
            raise PriorError(
                "The fresh copy is the measured model itself."
                if fresh is model
                else f"fresh gives a {type(fresh).__name__}, not a torch.nn.Module.",
                "The spread of trained weights is not that of the initialisation.",
                "Give another, freshly built model, or a function that builds one.",
            )
        values = dict(fresh.named_parameters(remove_duplicate=False))
        found = []
        for entry in problem.selection.entries:
            name = next((n for n in (entry.name, *entry.aliases) if n in values), None)
            if name is None or values[name].shape != entry.shape:
                has = "no parameter" if name is None else f"{tuple(values[name].shape)} for"
                raise PriorError(
                    f"The fresh model has {has} {entry.name!r}, of shape {tuple(entry.shape)}.",
                    "Each parameter's variance is that of its own initial values.",
                    "Build it as the measured model was built.",
                )
            found.append(measured(values[name]))
        return found


def measured(values: Tensor) -> Scheme:
    """The mean, and the second moment around it, of the entries of an initial tensor."""
    flat = values.detach().double().reshape(-1)
    if bool((flat == flat[0]).all()):
        return Scheme(float(flat[0]), 0.0)
    return Scheme(float(flat.mean()), float(flat.var()))


def _one(model: nn.Module, entry: Entry, schemes: list[Scheme | None]) -> Scheme:
    """The one scheme that all names of a parameter agree on."""
    known = [scheme for scheme in schemes if scheme is not None]
    names = (entry.name, *entry.aliases)
    if len(known) < len(schemes):
        owner = model.get_submodule(entry.layer)
        raise PriorError(
            f"How {entry.name!r} of a {type(owner).__name__} was initialised is not known.",
            "A guess would be a silent choice of prior.",
            "Pass fresh=, a function that builds the untrained model, to have it measured; or give "
            "the variances with PerLayer or PerParameter.",
        )
    if not all(_same(known[0], other) for other in known[1:]):
        raise PriorError(
            f"Parameter {entry.name!r} is tied to {names[1]!r}, which is initialised otherwise.",
            "Which of the two drew its values cannot be seen.",
            "Pass fresh=, a function that builds the untrained model, to have it measured.",
        )
    return known[0]


def _same(one: Scheme, other: Scheme) -> bool:
    pairs = ((one.mean, other.mean), (one.variance, other.variance))
    return all(bool((_exact(a) == _exact(b)).all()) for a, b in pairs)


def _exact(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _agrees(scheme: Scheme, own: Tensor | None) -> bool:
    """Whether values that a model's own initialiser gave can be drawn from a scheme."""
    if own is None:
        return False
    values = own.detach().double()
    mean = torch.as_tensor(scheme.mean, dtype=torch.float64, device=values.device)
    variance = torch.as_tensor(scheme.variance, dtype=torch.float64, device=values.device)
    off, variance = (values - mean).square(), variance.expand(values.shape)
    drawn = variance > 0
    if bool((off[~drawn] > 0).any()):
        return False
    n = int(drawn.sum())
    if n == 0:
        return True
    # n normal numbers have n·ratio ~ χ²_n; numbers with lighter tails stray less.
    total = float((off[drawn] / variance[drawn]).sum())
    return bool(min(chi2.cdf(total, n), chi2.sf(total, n)) > IMPROBABLE)


def _reinitialised(host: Any) -> dict[str, Tensor]:
    """Parameters of a copy of a Hugging Face model after its own initialiser ran over it."""
    with isolated(), torch.no_grad():
        torch.manual_seed(0)
        fresh = copy.deepcopy(host)
        fresh.apply(fresh._init_weights)
    return dict(fresh.named_parameters(remove_duplicate=False))


def _built(factory: Callable[[], Any], seed: int) -> Any:
    """What a factory builds from seeded random states, which are restored."""
    with isolated():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return factory()


def _flat(value: float | Tensor, entry: Entry, like: Tensor) -> Tensor:
    return (
        torch.as_tensor(value, dtype=torch.float64, device=like.device)
        .expand(entry.shape)
        .reshape(-1)
    )
