"""What comes after training: RDMs (rsatoolbox's) of networks, errors, tests between methods, figures."""

from __future__ import annotations

from brainrdl.analysis.accuracy import error_table, mcnemar, mcnemar_markdown, mcnemar_summary, mcnemar_table
from brainrdl.analysis.agreement import as_model, average_folds, average_seeds, score_agreement, teacher_score
from brainrdl.analysis.ceiling import Ceiling, noise_ceiling, within_subject_ceiling
from brainrdl.analysis.fixed_networks import LayerAgreement, layer_agreement
from brainrdl.analysis.inference import category_only, over_subjects, paired_over_subjects, with_fdr
from brainrdl.analysis.logged_rdms import agreement_history
from brainrdl.analysis.rdms import (
    category_rdm,
    join_rdms,
    label_rdm,
    load_features,
    load_rdms,
    network_rdms,
    pattern_rdms,
    pixel_rdm,
    save_rdms,
)
from brainrdl.analysis.second_order import SecondOrder, second_order_distances, second_order_mds, undefined_rdms

__all__ = [
    "Ceiling",
    "LayerAgreement",
    "SecondOrder",
    "agreement_history",
    "as_model",
    "average_folds",
    "average_seeds",
    "category_only",
    "category_rdm",
    "error_table",
    "join_rdms",
    "label_rdm",
    "layer_agreement",
    "load_features",
    "load_rdms",
    "mcnemar",
    "mcnemar_markdown",
    "mcnemar_summary",
    "mcnemar_table",
    "network_rdms",
    "noise_ceiling",
    "over_subjects",
    "paired_over_subjects",
    "pattern_rdms",
    "pixel_rdm",
    "save_rdms",
    "score_agreement",
    "second_order_distances",
    "second_order_mds",
    "teacher_score",
    "undefined_rdms",
    "with_fdr",
    "within_subject_ceiling",
]
