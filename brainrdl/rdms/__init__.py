"""RDMs as rsatoolbox objects: files, selection, averages."""

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
    "Matched",
    "average_rdms",
    "explain_missing",
    "join_rdms",
    "load_rdms",
    "match_rdms",
    "measure_name",
    "save_rdms",
    "select_rdms",
    "stimulus_ids",
    "subset_stimuli",
]
