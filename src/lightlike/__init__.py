"""Exact Fisher-information geometry of PyTorch networks: dimension, spectrum, description length.

import lightlike as ll
m = ll.measure(model, (x, y), "categorical")
print(m)
"""

from lightlike import errors
from lightlike.assess import lengths
from lightlike.assess.measure import measure
from lightlike.assess.measurement import Measurement, load
from lightlike.assess.planning import Plan, plan
from lightlike.assess.questions import description_length, dimension
from lightlike.assess.singular import effective_dimension, learning_coefficient
from lightlike.demos import demo
from lightlike.geometry.dimension import Dimension, SignificantDimension
from lightlike.length import priors
from lightlike.length.coefficient import LearningCoefficient, SingularLength
from lightlike.length.description import DescriptionLength
from lightlike.length.region import EffectiveDimension
from lightlike.metric.fisher import Fisher, fisher
from lightlike.metric.root import Root
from lightlike.problem import likelihoods
from lightlike.problem.likelihoods import Likelihood
from lightlike.spectrum.sketch import Sketch
from lightlike.spectrum.spectra import spectrum
from lightlike.spectrum.spectrum import Spectrum

__all__ = [
    "DescriptionLength",
    "Dimension",
    "EffectiveDimension",
    "Fisher",
    "LearningCoefficient",
    "Likelihood",
    "Measurement",
    "Plan",
    "Root",
    "SignificantDimension",
    "SingularLength",
    "Sketch",
    "Spectrum",
    "demo",
    "description_length",
    "dimension",
    "effective_dimension",
    "errors",
    "fisher",
    "learning_coefficient",
    "lengths",
    "likelihoods",
    "load",
    "measure",
    "plan",
    "priors",
    "spectrum",
]
