"""Data sets: what is known of them, where they are, how they are split; deformed digits, flips, pictures of stimuli."""

from brainrdl.data.augment import horizontal_flips
from brainrdl.data.deformed import deformed
from brainrdl.data.image_folder import ImageFiles
from brainrdl.data.load import DataSettings, DataSplits, Description, describe, first_of_each_class, load_data
from brainrdl.data.readers import stimuli_from_dataset
from brainrdl.data.spec import DataSpec, data_root, load_spec, schema, spec_names
from brainrdl.data.thumbnails import load_thumbnails, make_thumbnails, save_thumbnails

__all__ = [
    "DataSettings",
    "DataSpec",
    "DataSplits",
    "Description",
    "ImageFiles",
    "data_root",
    "deformed",
    "describe",
    "first_of_each_class",
    "horizontal_flips",
    "load_data",
    "load_spec",
    "load_thumbnails",
    "make_thumbnails",
    "save_thumbnails",
    "schema",
    "spec_names",
    "stimuli_from_dataset",
]
