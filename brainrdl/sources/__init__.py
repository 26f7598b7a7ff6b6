"""Teachers: whatever can say how dissimilar pairs of stimuli are."""

from brainrdl.sources.base import TeacherRDMSource
from brainrdl.sources.network import NetworkTeacher

__all__ = ["NetworkTeacher", "TeacherRDMSource"]
