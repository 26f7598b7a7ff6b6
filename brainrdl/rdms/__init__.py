"""RDMs as rsatoolbox objects: files, selection, averages; and files of features, from which RDMs are made."""

from brainrdl.rdms.features import Features, load_features
from brainrdl.rdms.files import load_rdms, measure_name, save_rdms
from brainrdl.rdms.selection import (
    Matched,
    average_rdms,
    explain_missing,
    join_rdms,
    match_rdms,
    select_rdms,
    stimulus_ids,
    subset_stimuli,
)

__all__ = [
    "Features",
    "Matched",
    "average_rdms",
    "explain_missing",
    "join_rdms",
    "load_features",
    "load_rdms",
    "match_rdms",
    "measure_name",
    "save_rdms",
    "select_rdms",
    "stimulus_ids",
    "subset_stimuli",
]
