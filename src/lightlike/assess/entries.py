"""What a table of lengths can hold: named entries, in the order in which they are shown.

An entry more is one `Entry` in `ENTRIES`: a name, what it needs, and a function from a `Question`
to a `CodeLength` that raises an error of lightlike where it is not defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from lightlike.assess.questions import description_length, dimension
from lightlike.assess.singular import singular
from lightlike.errors import UndefinedError, choice_error
from lightlike.length.codelength import CodeLength, as_code_length
from lightlike.length.coefficient import LearningCoefficient
from lightlike.length.criteria import criteria_of
from lightlike.length.description import DescriptionLength
from lightlike.length.information import tic
from lightlike.length.interpolating import interpolating
from lightlike.length.nml import nml_of_labels
from lightlike.length.observed import require_labels
from lightlike.length.optimum import doubts, told_of_limits
from lightlike.length.posterior import log_likelihoods
from lightlike.length.predictive import loo_of, smoothing, waic_of
from lightlike.length.prequential import PrequentialLength
from lightlike.length.priors import Prior, resolve_prior
from lightlike.length.regular import Bounds, rissanen
from lightlike.length.variational import FEWEST_DRAWS, variational
from lightlike.metric.fisher import Fisher

# Draws at most where each takes a pass over the data or more.
PASSES = 100
# What each criterion that is one line of arithmetic is good for.
NOTES = {
    "aic": "Expected loss on new data; regular, well-specified models, N ≫ D.",
    "bic": "Evidence up to O(1); regular models, N ≫ D.",
    "bic_dimension": "As BIC with the local dimension d for D; blind to the size of eigenvalues.",
    "uniform": "A code that knows nothing; any number of labels from a finite set.",
    "label_entropy": "No code: the cost of the label frequencies themselves is left out.",
}


@dataclass(frozen=True)
class Question:
    """A Fisher matrix, and what goes with it, to be asked for lengths.

    Attributes:
        F: With model, data and likelihood.
        prior: Of everything that needs one; None for N(0, I).
        bounds: Of the region of regular razors, or None.
        draws: Of everything that samples.
        seed: Of everything that samples.
        epsilon: Of the interpolating razor, or None.
        coefficient: A learning coefficient of the same model and data, or None.
        prequential: A prequential length of the same data, or None.
    """

    F: Fisher
    prior: Prior | None = None
    bounds: Bounds | None = None
    draws: int = 1000
    seed: int = 0
    epsilon: float | None = None
    coefficient: LearningCoefficient | None = None
    prequential: PrequentialLength | None = None

    def criterion(self, name: str) -> float | None:
        """AIC, BIC or their like; only that with the local dimension takes a decomposition."""
        d = int(dimension(self.F)) if name == "bic_dimension" else 0
        return criteria_of(self.F.problem.reference, d)[name]

    @cached_property
    def log_likelihoods(self) -> Tensor:
        """Of each observation at each draw of the Laplace posterior, (draws, N)."""
        return self._at_draws(linearised=False)

    @cached_property
    def linearised(self) -> Tensor:
        """The same with outputs linear in the parameters around θ̂, (draws, N)."""
        return self._at_draws(linearised=True)

    def _at_draws(self, *, linearised: bool) -> Tensor:
        return log_likelihoods(
            self.F,
            prior=resolve_prior(self.prior),
            draws=self.draws,
            seed=self.seed,
            linearised=linearised,
        )

    @property
    def fit(self) -> float:
        """NLL_total(θ̂)."""
        return require_labels(self.F.problem, "length")


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        name: What it is chosen by.
        title: What it is printed as.
        needs: What it takes, in a few words.
        compute: The length in nats.
    """

    name: str
    title: str
    needs: str
    compute: Callable[[Question], CodeLength]


def _razor(question: Question) -> CodeLength:
    length = description_length(question.F, prior=question.prior)
    note = "Exact for linear models with Gaussian noise; elsewhere a quadratic picture at θ̂."
    note = " ".join(filter(None, (told_of_limits(length.prior), note)))
    return _labelled(question, "gaussian", replace(length, validity=note))


def _interpolating(question: Question) -> CodeLength:
    if question.epsilon is None:
        raise UndefinedError(
            "No epsilon was given.",
            "This razor lies between the Gaussian one and Jeffreys' by its measure.",
            "Pass epsilon=..., in units of eigenvalues.",
        )
    prior = resolve_prior(question.prior)
    draws = min(question.draws, PASSES)
    length = interpolating(
        question.F, prior=prior, epsilon=question.epsilon, draws=draws, seed=question.seed
    )
    return _labelled(question, "interpolating", length)


def _variational(posterior: str) -> Callable[[Question], CodeLength]:
    def compute(question: Question) -> CodeLength:
        prior = resolve_prior(question.prior)
        draws = max(FEWEST_DRAWS, min(question.draws, PASSES) // 2 * 2)
        length = variational(
            question.F, prior=prior, posterior=posterior, draws=draws, seed=question.seed
        )
        return _labelled(question, posterior, length)

    return compute


def _singular(question: Question) -> CodeLength:
    found = question.coefficient
    if found is None:
        raise UndefinedError(
            "No learning coefficient was given.",
            "It takes chains of samples, minutes rather than seconds.",
            "Pass coefficient=lightlike.learning_coefficient(model, data, likelihood).",
        )
    if not isinstance(found, LearningCoefficient):
        wanted = "what lightlike.learning_coefficient(model, data, likelihood) returns"
        raise choice_error("coefficient", found, [wanted])
    survey = question.F.problem.reference.survey
    if survey.nll is None or abs(found.nll - question.fit) > 1e-6 * max(1.0, abs(question.fit)):
        raise UndefinedError(
            f"The learning coefficient is of another fit: {found.nll:.6g} nats.",
            "It would be the length of other labels, or of another network.",
            "Estimate it for the same model and data.",
        )
    length = singular(found)
    return CodeLength(
        name="singular",
        total=length.total,
        fit=question.fit,
        stderr=length.stderr,
        kind="estimated",
        observations=survey.observations,
        note="n L_n + λ log n, up to O(log log n): singular models too, N large.",
    )


def _prequential(question: Question) -> CodeLength:
    found = question.prequential
    if found is None:
        raise UndefinedError(
            "No prequential length was given.",
            "It takes a training run for every block of the data.",
            "Pass prequential=lightlike.lengths.prequential(train, data, likelihood).",
        )
    if not isinstance(found, PrequentialLength):
        wanted = "what lightlike.lengths.prequential(train, data, likelihood) returns"
        raise choice_error("prequential", found, [wanted])
    observations = question.F.problem.survey.observations
    if found.observations != observations:
        raise UndefinedError(
            f"The prequential length is of {found.observations:,} observations, not "
            f"{observations:,}.",
            "It would be the length of other labels.",
            "Code the same data.",
        )
    return CodeLength(
        name="prequential",
        total=found.to("nats").total,
        fit=None,
        stderr=found.to("nats").stderr,
        kind=found.kind,
        observations=observations,
        note=found.note,
        record=found.record,
    )


def _labelled(question: Question, name: str, length: DescriptionLength) -> CodeLength:
    found = as_code_length(name, length, length.validity)
    if found is None:
        raise _unlabelled()
    return replace(found, warnings=doubts(question.F.problem, length))


def _regular(question: Question) -> CodeLength:
    if question.bounds is None:
        raise UndefinedError(
            "No region of parameters was given.",
            "This razor is an integral over a bounded one.",
            "Pass bounds=(low, high).",
        )
    return rissanen(
        question.F, bounds=question.bounds, draws=max(2, question.draws), seed=question.seed
    )


def _criterion(name: str) -> Callable[[Question], CodeLength]:
    labels_only = name in ("uniform", "label_entropy")

    def compute(question: Question) -> CodeLength:
        survey = question.F.problem.reference.survey
        if survey.nll is None and name != "uniform":
            raise _unlabelled()
        value = question.criterion(name)
        if value is None:
            raise UndefinedError(
                f"Labels of a {question.F.problem.likelihood.name} likelihood are not from a "
                "finite set.",
                "Without one there is neither a uniform code nor an entropy in nats a label.",
                "Compare with the other rows.",
            )
        return CodeLength(
            name=name,
            total=value,
            fit=None if labels_only else question.fit,
            stderr=0.0,
            kind="exact",
            observations=survey.observations,
            note=NOTES[name],
        )

    return compute


def _loo(question: Question) -> CodeLength:
    smoothing()
    return loo_of(question.log_likelihoods, question.fit)


def _linearised_loo(question: Question) -> CodeLength:
    smoothing()
    return loo_of(question.linearised, question.fit)


def _unlabelled() -> UndefinedError:
    return UndefinedError(
        "The data have no labels.",
        "A code length is that of labels.",
        "Pass (x, y).",
    )


ENTRIES: tuple[Entry, ...] = (
    Entry("gaussian", "Gaussian razor", "prior, one factorisation", _razor),
    Entry(
        "interpolating", "interpolating razor", "epsilon, a Gram matrix a draw", _interpolating,
    ),
    Entry("laplace", "variational, Laplace", "a pass a draw", _variational("laplace")),
    Entry("mean_field", "variational, mean field", "a pass a draw", _variational("mean_field")),
    Entry("singular", "singular free energy", "a learning coefficient", _singular),
    Entry("prequential", "prequential", "training, once a block", _prequential),
    Entry("rissanen", "Rissanen razor", "bounds, regular metric, D ≤ 64", _regular),
    Entry("bic", "BIC (D)", "labels", _criterion("bic")),
    Entry("bic_dimension", "BIC (d)", "local dimension", _criterion("bic_dimension")),
    Entry("aic", "AIC", "labels", _criterion("aic")),
    Entry("tic", "TIC (Hessian)", "minimum, D ≤ 2,000", lambda q: tic(q.F, method="hessian")),
    Entry("tic_ggn", "TIC (GGN)", "eigenvectors of A Aᵀ", lambda q: tic(q.F, method="ggn")),
    Entry("waic", "WAIC", "posterior draws", lambda q: waic_of(q.log_likelihoods, q.fit)),
    Entry("loo", "PSIS-LOO", "posterior draws, arviz-stats", _loo),
    Entry(
        "waic_linearised", "WAIC (linear)", "posterior draws, linearised",
        lambda q: waic_of(q.linearised, q.fit),
    ),
    Entry(
        "loo_linearised", "PSIS-LOO (linear)", "posterior draws, linearised, arviz-stats",
        _linearised_loo,
    ),
    Entry("nml", "NML of labels", "discrete labels", lambda q: nml_of_labels(q.F.problem)),
    Entry("label_entropy", "label entropy", "discrete labels", _criterion("label_entropy")),
    Entry("uniform", "uniform code", "discrete labels", _criterion("uniform")),
)  # fmt: skip
