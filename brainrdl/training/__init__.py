"""Training: stages of a loss, on Lightning Fabric."""

from brainrdl.training.record import EpochRecord
from brainrdl.training.trainer import Trainer

__all__ = ["EpochRecord", "Trainer"]
