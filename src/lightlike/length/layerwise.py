"""Gaussian priors with one variance for every layer, given or fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import PriorError, choice_error
from lightlike.length.prior import Mean, Prior, named_mean
from lightlike.numbers import is_finite
from lightlike.problem.parameters import Entry, Selection

EVIDENCE = "evidence"
Variance = float | str


@dataclass(frozen=True)
class PerLayer(Prior):
    """N(μ, diag σ²) with one variance σ_l² for the parameters of every layer.

    A layer is the module that owns a parameter: "0", "encoder.layers.3.linear1", or "" for raw
    parameters of the model itself.

    Args:
        variance: A mapping from layers to variances. A key is the name of a layer, the name of a
            parameter, or a regular expression that is searched for in the names of parameters;
            names go before expressions, and of expressions the first that fits counts, so that a
            last `".*"` catches the rest. 0 holds parameters at their mean. "evidence" in place of a
            number has the variance of each layer under that key fitted by the evidence (empirical
            Bayes), and `PerLayer("evidence")` that of every layer; each fitted number costs at most
            ½ log N, which is reported beside the length. Where the evidence is largest with a layer
            at its prior mean its variance is 0, if the network's own loss bears that out; otherwise
            the variances maximise Laplace's evidence with θ̂ for its mode, σ_l² = |θ̂_l − μ_l|²/γ_l
            (MacKay 1992, doi:10.1162/neco.1992.4.3.415). The prior's description says which, under
            `fitted_by` and `limits`.
        mean: μ: 0, another number, or a state dict.

    Raises:
        ChoiceError: if the variance is neither "evidence" nor a mapping.
        PriorError: if a variance is negative or not a finite number.
    """

    variance: str | Mapping[str, Variance]
    mean: Mean = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.variance, Mapping):
            if self.variance != EVIDENCE:
                raise choice_error(
                    "variance", self.variance, ["a mapping from layers to variances", "'evidence'"]
                )
            return
        for key, value in self.variance.items():
            number = is_finite(value) and not isinstance(value, str) and value >= 0
            if not number and value != EVIDENCE:
                raise PriorError(
                    f"PerLayer gives {key!r} the variance {value!r}.",
                    "Only finite positive variances give a code length; 0 holds a layer fixed.",
                    "Give such a number, or 'evidence' to have it fitted.",
                )

    @property
    def rules(self) -> Mapping[str, Variance]:
        """Variances by layer, parameter or expression."""
        return self.variance if isinstance(self.variance, Mapping) else {".*": EVIDENCE}

    @property
    def by_evidence(self) -> bool:
        """Whether some variance is fitted to the labels."""
        return EVIDENCE in self.rules.values()

    def variances(self, selection: Selection, like: Tensor) -> Tensor:
        """σ² of every selected parameter; 1 where it is still to be fitted.

        Raises:
            PriorError: if a parameter has no variance, or a key fits none.
        """
        out = torch.empty(selection.size, dtype=torch.float64, device=like.device)
        for entry, value in self._assigned(selection):
            out[entry.start : entry.stop] = 1.0 if isinstance(value, str) else float(value)
        return out

    def groups(self, selection: Selection) -> dict[str, list[Entry]]:
        """Parameters whose variance is to be fitted, by layer."""
        found: dict[str, list[Entry]] = {}
        for entry, value in self._assigned(selection):
            if isinstance(value, str):
                found.setdefault(entry.layer, []).append(entry)
        return found

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        variance = (
            self.variance
            if isinstance(self.variance, str)
            else {k: v if isinstance(v, str) else float(v) for k, v in self.variance.items()}
        )
        return {"name": "per_layer", "variance": variance, "mean": named_mean(self.mean)}

    def _assigned(self, selection: Selection) -> list[tuple[Entry, Variance]]:
        """Every entry with the variance, or "evidence", that the rules give it."""
        layers = {entry.layer for entry in selection.entries}
        names = {n for entry in selection.entries for n in (entry.name, *entry.aliases)}
        patterns = {k: _compiled(k) for k in self.rules if k not in layers and k not in names}
        unused = dict.fromkeys(self.rules)
        found: list[tuple[Entry, Variance]] = []
        for entry in selection.entries:
            key = self._key(entry, patterns)
            if key is None:
                raise PriorError(
                    f"PerLayer has no variance for parameter {entry.name!r}.",
                    "A default would be a silent choice of prior.",
                    f"Add its layer, {entry.layer!r}, or a last '.*' for all that is left.",
                )
            unused.pop(key, None)
            found.append((entry, self.rules[key]))
        if unused:
            raise PriorError(
                f"PerLayer's {next(iter(unused))!r} gives no parameter its variance.",
                "It may be misspelt, or every parameter it fits has another one.",
                f"The layers are: {', '.join(map(repr, sorted(layers)))}.",
            )
        return found

    def _key(self, entry: Entry, patterns: Mapping[str, re.Pattern[str]]) -> str | None:
        own = (entry.name, *entry.aliases)
        for name in (*own, entry.layer):
            if name in self.rules and name not in patterns:
                return name
        return next((k for k, p in patterns.items() if any(map(p.search, own))), None)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise PriorError(
            f"PerLayer's key {pattern!r} is neither a layer nor a regular expression ({error}).",
            "No parameter can be matched against it.",
            "Give the name of a layer, or escape special characters.",
        ) from error
