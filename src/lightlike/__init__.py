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
from lightlike.demos import demo
from lightlike.geometry.dimension import Dimension, SignificantDimension
from lightlike.geometry.symmetry.explain import explain
from lightlike.geometry.symmetry.explanation import Explanation, Source
from lightlike.length import priors
from lightlike.length.description import DescriptionLength
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
    "Explanation",
    "Fisher",
    "Likelihood",
    "Measurement",
    "Plan",
    "Root",
    "SignificantDimension",
    "Sketch",
    "Source",
    "Spectrum",
    "demo",
    "description_length",
    "dimension",
    "errors",
    "explain",
    "fisher",
    "lengths",
    "likelihoods",
    "load",
    "measure",
    "plan",
    "priors",
    "spectrum",
]
