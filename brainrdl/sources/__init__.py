"""Teachers: whatever can say how dissimilar pairs of stimuli are."""

from brainrdl.sources.base import TeacherRDMSource
from brainrdl.sources.combined import CombinedTeacher
from brainrdl.sources.controls import RenamedTeacher, make_control
from brainrdl.sources.network import NetworkTeacher
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.sources.weights import precision_weights, reliability_weights

__all__ = [
    "CombinedTeacher",
    "MeasuredPatterns",
    "MeasuredRDMs",
    "NetworkTeacher",
    "PatternTable",
    "RenamedTeacher",
    "TeacherRDMSource",
    "make_control",
    "precision_weights",
    "reliability_weights",
]
