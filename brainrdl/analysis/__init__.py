"""What comes after training: RDMs (rsatoolbox's) of networks, errors, tests between methods, figures."""

from __future__ import annotations

from brainrdl.analysis.accuracy import error_table, mcnemar, mcnemar_markdown, mcnemar_summary, mcnemar_table
from brainrdl.analysis.rdms import join_rdms, label_rdm, load_rdms, network_rdms, pixel_rdm, save_rdms
from brainrdl.analysis.second_order import SecondOrder, second_order_mds

__all__ = [
    "SecondOrder",
    "error_table",
    "join_rdms",
    "label_rdm",
    "load_rdms",
    "mcnemar",
    "mcnemar_markdown",
    "mcnemar_summary",
    "mcnemar_table",
    "network_rdms",
    "pixel_rdm",
    "save_rdms",
    "second_order_mds",
]
