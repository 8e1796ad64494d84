"""Exact Fisher-information geometry of PyTorch networks: dimension, spectrum, description length.

import lightlike as ll
m = ll.measure(model, (x, y), "categorical")
print(m)
"""

from lightlike import errors
from lightlike.assess import lengths
from lightlike.assess.comparison import Comparison, compare
from lightlike.assess.densities import density
from lightlike.assess.diagnosis import Diagnosis, diagnose
from lightlike.assess.history import History, Snapshot, read_history
from lightlike.assess.measure import measure
from lightlike.assess.measurement import Measurement, load
from lightlike.assess.planning import Plan, plan
from lightlike.assess.questions import description_length, dimension
from lightlike.assess.reanalysis import reanalyse
from lightlike.assess.singular import effective_dimension, learning_coefficient
from lightlike.assess.tracking import Tracker
from lightlike.demos import demo
from lightlike.geometry.chain import DimensionChain, dimension_chain
from lightlike.geometry.dimension import Dimension, SignificantDimension
from lightlike.geometry.flow import walk
from lightlike.geometry.path import PathLength, fisher_length
from lightlike.geometry.saturation import Saturation, saturation
from lightlike.geometry.subspaces import subspaces
from lightlike.geometry.symmetry.explain import explain
from lightlike.geometry.symmetry.explanation import Explanation, ExplanationSummary, Source
from lightlike.geometry.tangent import Radical, Screen
from lightlike.geometry.variation import (
    DimensionNear,
    DimensionPath,
    between,
    dimension_near,
    dimension_path,
)
from lightlike.geometry.walk import Walk
from lightlike.length import priors
from lightlike.length.coefficient import LearningCoefficient, SingularLength
from lightlike.length.description import DescriptionLength
from lightlike.length.region import EffectiveDimension
from lightlike.metric.fisher import Fisher, fisher
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.products.operator import Products
from lightlike.metric.root import Root
from lightlike.present.report import report
from lightlike.problem import likelihoods
from lightlike.problem.likelihoods import Likelihood
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.density import Density
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.nystrom import LowRank, nystrom
from lightlike.spectrum.partial import Lanczos
from lightlike.spectrum.quadrature import Quadrature
from lightlike.spectrum.sketch import Sketch
from lightlike.spectrum.spectra import spectrum
from lightlike.spectrum.spectrum import Spectrum

__all__ = [
    "Columns",
    "Comparison",
    "Density",
    "DescriptionLength",
    "Diagnosis",
    "Dimension",
    "DimensionChain",
    "DimensionNear",
    "DimensionPath",
    "EffectiveDimension",
    "Explanation",
    "ExplanationSummary",
    "Fisher",
    "History",
    "Kronecker",
    "Lanczos",
    "Leading",
    "LearningCoefficient",
    "Likelihood",
    "LowRank",
    "Measurement",
    "PathLength",
    "Plan",
    "Products",
    "Quadrature",
    "Radical",
    "Root",
    "Saturation",
    "Screen",
    "SignificantDimension",
    "SingularLength",
    "Sketch",
    "Snapshot",
    "Source",
    "Spectrum",
    "Tracker",
    "Walk",
    "between",
    "compare",
    "demo",
    "density",
    "description_length",
    "diagnose",
    "dimension",
    "dimension_chain",
    "dimension_near",
    "dimension_path",
    "effective_dimension",
    "errors",
    "explain",
    "fisher",
    "fisher_length",
    "lanczos",
    "learning_coefficient",
    "lengths",
    "likelihoods",
    "load",
    "measure",
    "nystrom",
    "plan",
    "priors",
    "read_history",
    "reanalyse",
    "report",
    "saturation",
    "spectrum",
    "subspaces",
    "walk",
]
