"""Objectives: auxiliary terms that join the task's loss, and the methods made of them."""

from brainrdl.objectives.base import Objective, Stage, adamw, sgd
from brainrdl.objectives.cka import LinearCKA
from brainrdl.objectives.deep_supervision import DeepSupervision
from brainrdl.objectives.distillation import Distillation
from brainrdl.objectives.hints import Hints
from brainrdl.objectives.rdl import RDLObjective
from brainrdl.objectives.rkd import RelationalDistillation
from brainrdl.objectives.similarity_preserving import SimilarityPreserving

__all__ = [
    "DeepSupervision",
    "Distillation",
    "Hints",
    "LinearCKA",
    "Objective",
    "RDLObjective",
    "RelationalDistillation",
    "SimilarityPreserving",
    "Stage",
    "adamw",
    "sgd",
]
