"""A network file: a network whose RDMs are wanted, its layers, and the images that it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from brainrdl.data import DataSettings
from brainrdl.experiment_file.settings import NetworkSettings
from brainrdl.settings import read_yaml, validate


class NetworkFile(NetworkSettings):
    """A network, trained elsewhere or here, as input of a figure.

    layers: module paths; "" is the output, "softmax" the softmax of it. dissimilarity: between patterns. data: a data
    set, whose test images are shown. n_per_class: so many of each class. stimuli: in its place a brain data spec, all
    of whose images are shown. name: what the network is called; null = the file's name.
    """

    layers: list[str] = Field(min_length=1)
    dissimilarity: Literal["euclidean", "sqeuclidean", "correlation", "cosine"] = "correlation"
    data: DataSettings | None = None
    n_per_class: int = Field(10, ge=1)
    stimuli: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> NetworkFile:
        if (self.data is None) == (self.stimuli is None):
            raise ValueError("the network is shown either data (a data set) or stimuli (a brain data spec); give one")
        return self


def load_network_file(path: Path) -> NetworkFile:
    """Read a network file. Raises ValueError with file, field, what was expected and what came."""
    settings = validate(NetworkFile, read_yaml(path), str(path))
    return settings.model_copy(update={"name": settings.name or path.stem})
