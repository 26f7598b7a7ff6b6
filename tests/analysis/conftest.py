"""The real RDMs of the 92 objects, where they are; and RDMs drawn as several subjects' would be."""

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.rdm import RDMs


@pytest.fixture(scope="session")
def objects92(real_data):
    """(brain, teacher, categories): Cichy 2014's 15 subjects in EVC and IT, the mean human IT RDM of 2008, animacy."""
    names = ("cichy2014", "kriegeskorte2008")
    folders = [real_data(*names) / name for name in names]
    from rsatoolbox.rdm import load_rdm

    human = load_rdm(str(folders[1] / "human_it_rdms.h5"), file_type="hdf5")
    ids = [str(stimulus) for stimulus in human.pattern_descriptors["stimulus"]]
    parts = {roi: np.load(folders[0] / f"fmri_{roi}_RDMs.npz")["Net_RDM"] for roi in ("EVC", "IT")}
    brain = RDMs(
        np.concatenate(list(parts.values())),
        "correlation",
        rdm_descriptors={
            "roi": [roi for roi in parts for _ in range(15)],
            "subject": [f"sub-{k:02d}" for _ in parts for k in range(1, 16)],
        },
        pattern_descriptors={"stimulus": ids},
    )
    teacher = RDMs(
        human.get_vectors().mean(0, keepdims=True),
        "correlation",
        rdm_descriptors={"roi": ["IT"]},
        pattern_descriptors={"stimulus": ids},
    )
    table = pd.read_csv(folders[1] / "stimuli.tsv", sep="\t", dtype=str).set_index("stimulus")
    return brain, teacher, table["animal"].to_dict()


@pytest.fixture
def drawn():
    """Makes RDMs of subjects (one roi) that share a true RDM, and that RDM: `drawn(n_subjects, n_stimuli, seed)`."""

    def draw(n_subjects=5, n_stimuli=12, seed=0, rois=("IT",), noise=0.5):
        generator = np.random.default_rng(seed)
        n_pairs = n_stimuli * (n_stimuli - 1) // 2
        truth = generator.random((1, n_pairs))
        ids = [f"s{k:02d}" for k in range(n_stimuli)]
        n_rdms = n_subjects * len(rois)
        brain = RDMs(
            truth + noise * generator.random((n_rdms, n_pairs)),
            rdm_descriptors={
                "roi": [roi for roi in rois for _ in range(n_subjects)],
                "subject": [f"sub-{k}" for _ in rois for k in range(n_subjects)],
            },
            pattern_descriptors={"stimulus": ids},
        )
        return brain, RDMs(truth, pattern_descriptors={"stimulus": ids}), ids

    return draw
