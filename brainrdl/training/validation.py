"""Validation images: by their error the best weights are chosen."""

from __future__ import annotations

from torch import nn

from brainrdl.models.inference import predict
from brainrdl.stimuli import Stimuli, StoredStimuli, check_stimuli


def check_validation(validation: Stimuli | StoredStimuli) -> None:
    """Raise ValueError where there is nothing to count wrong classes of."""
    if isinstance(validation, Stimuli):
        check_stimuli(validation, "validation images")
    if validation.labels is None or not len(validation.ids):
        raise ValueError("validation images: expected at least one, with labels; validation_error counts wrong classes")


def validation_error(student: nn.Module, validation: Stimuli | StoredStimuli, preprocess: nn.Module | None) -> float:
    """The fraction of images whose class the student does not tell; `validation` as `check_validation` has it."""
    assert validation.labels is not None
    predicted = predict(student, validation, preprocess)
    return float((predicted != validation.labels.cpu()).double().mean())
