"""Training: stages of a loss, on Lightning Fabric."""

from brainrdl.training.trainer import EpochRecord, Trainer

__all__ = ["EpochRecord", "Trainer"]
