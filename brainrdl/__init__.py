"""Representational distance learning: train a network so that its RDMs become a teacher's.

The names below are loaded when they are first used, so that `import brainrdl` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from brainrdl.dissimilarity import pair_dissimilarities
    from brainrdl.layers import record_layers
    from brainrdl.notes import ResultWarning
    from brainrdl.objectives import (
        DeepSupervision,
        Distillation,
        Hints,
        LinearCKA,
        RDLObjective,
        RelationalDistillation,
        SimilarityPreserving,
    )
    from brainrdl.objectives.base import Stage
    from brainrdl.pairs import Pairs, sample_pairs
    from brainrdl.reductions import Reduction
    from brainrdl.schedule import constant, lee_decay, linear_decay, warm_up
    from brainrdl.sources import (
        CombinedTeacher,
        MeasuredPatterns,
        MeasuredRDMs,
        NetworkTeacher,
        PatternTable,
        make_control,
        reliability_weights,
    )
    from brainrdl.sources.base import TeacherRDMSource
    from brainrdl.stimuli import Stimuli, Targets
    from brainrdl.training import Trainer

__all__ = [
    "CombinedTeacher",
    "DeepSupervision",
    "Distillation",
    "Hints",
    "LinearCKA",
    "MeasuredPatterns",
    "MeasuredRDMs",
    "NetworkTeacher",
    "Pairs",
    "PatternTable",
    "RDLObjective",
    "Reduction",
    "RelationalDistillation",
    "ResultWarning",
    "SimilarityPreserving",
    "Stage",
    "Stimuli",
    "Targets",
    "TeacherRDMSource",
    "Trainer",
    "constant",
    "lee_decay",
    "linear_decay",
    "make_control",
    "pair_dissimilarities",
    "record_layers",
    "reliability_weights",
    "sample_pairs",
    "warm_up",
]

# public name -> the module it is loaded from
_MODULES = {
    "CombinedTeacher": "brainrdl.sources",
    "DeepSupervision": "brainrdl.objectives",
    "Distillation": "brainrdl.objectives",
    "Hints": "brainrdl.objectives",
    "LinearCKA": "brainrdl.objectives",
    "MeasuredPatterns": "brainrdl.sources",
    "MeasuredRDMs": "brainrdl.sources",
    "NetworkTeacher": "brainrdl.sources",
    "Pairs": "brainrdl.pairs",
    "PatternTable": "brainrdl.sources",
    "RDLObjective": "brainrdl.objectives",
    "Reduction": "brainrdl.reductions",
    "RelationalDistillation": "brainrdl.objectives",
    "ResultWarning": "brainrdl.notes",
    "SimilarityPreserving": "brainrdl.objectives",
    "Stage": "brainrdl.objectives.base",
    "Stimuli": "brainrdl.stimuli",
    "Targets": "brainrdl.stimuli",
    "TeacherRDMSource": "brainrdl.sources.base",
    "Trainer": "brainrdl.training",
    "constant": "brainrdl.schedule",
    "lee_decay": "brainrdl.schedule",
    "linear_decay": "brainrdl.schedule",
    "make_control": "brainrdl.sources",
    "pair_dissimilarities": "brainrdl.dissimilarity",
    "record_layers": "brainrdl.layers",
    "reliability_weights": "brainrdl.sources",
    "sample_pairs": "brainrdl.pairs",
    "warm_up": "brainrdl.schedule",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'brainrdl' has no attribute '{name}'; it has: {', '.join(__all__)}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
