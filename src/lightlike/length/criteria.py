"""What a description length stands beside: AIC, BIC, and codes that know nothing of the inputs."""

from __future__ import annotations

import math
from typing import Any

from lightlike.problem.problem import Problem
from lightlike.results import Result

NAMES = {
    "aic": "AIC",
    "bic": "BIC with D",
    "bic_dimension": "BIC with d",
    "tic": "TIC",
    "tic_ggn": "TIC with the Fisher matrix",
    "uniform": "uniform code",
    "label_entropy": "label entropy",
}


class Criteria(Result, dict[str, float | None]):
    """Criteria and codes that know nothing, by name, in nats; None where one is not defined."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return dict(self)

    def _records(self) -> list[dict[str, Any]]:
        return [
            {"name": key, "title": NAMES.get(key, key), "nats": value}
            for key, value in self.items()
        ]


def criteria_of(problem: Problem, dimension: int) -> Criteria:
    """Criteria by name, all as code lengths in nats (AIC and BIC halved from their usual scale).

    - "aic": NLL + D (Akaike 1974, doi:10.1109/TAC.1974.1100705)
    - "bic": NLL + (D/2) log N (Schwarz 1978, doi:10.1214/aos/1176344136)
    - "bic_dimension": NLL + (d/2) log N, with the local dimension d in place of D
    - "uniform": N log m, the code that knows nothing; only for discrete labels
    - "label_entropy": N times the empirical entropy of the labels, the best code that does not
      look at the inputs, without the cost of its own parameters; only for discrete labels

    None where a criterion needs labels that are not there, or is not defined.
    """
    survey = problem.survey
    n, parameters = survey.observations, problem.parameters
    nll = None if survey.nll is None else float(survey.nll.sum())
    uniform = problem.likelihood.uniform_nll(survey.width)
    entropy = survey.label_entropy
    found = {
        "aic": None if nll is None else nll + parameters,
        "bic": None if nll is None else nll + 0.5 * parameters * math.log(n),
        "bic_dimension": None if nll is None else nll + 0.5 * dimension * math.log(n),
        "uniform": None if uniform is None else n * uniform,
        "label_entropy": None if entropy is None else n * entropy,
    }
    return Criteria(found)
