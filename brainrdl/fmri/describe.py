"""What is in a brain data set, and whether it can be used here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from brainrdl.data.spec import source_lines
from brainrdl.data.stimulus_set import read_stimulus_set, read_stimulus_table
from brainrdl.fmri.paths import fill, find_runs
from brainrdl.fmri.read import read_rdms
from brainrdl.fmri.spec import Betas, Bold, BrainSpec, RdmFiles, spec_folder
from brainrdl.settings import plain


class BrainDescription(NamedTuple):
    """What `brainrdl check` tells of a brain data set; printed as text.

    contents: a line a kind of thing that was found. problem: why it cannot be used here, and what to do; None: it can.
    """

    spec: BrainSpec
    contents: dict[str, str]
    problem: str | None

    @property
    def usable(self) -> bool:
        """Whether everything that was looked at is there."""
        return self.problem is None

    def __str__(self) -> str:
        lines = {
            **source_lines("brain data", self.spec.name, self.spec.title, self.spec.source),
            "tested": self.spec.tested.strip(),
            **self.contents,
            "usable": "yes" if self.usable else f"no. {self.problem}",
        }
        return "\n".join(f"{key:<12}{text}" for key, text in lines.items() if text)


def describe_brain(spec: BrainSpec, root: Path | None = None) -> BrainDescription:
    """Look for the data set's folder, stimuli, images and files by run, and read RDMs that are made already.

    Responses are not read, which can take long: `brainrdl rdms` does that. Nor are a publisher's own layouts gone
    through.
    """
    contents: dict[str, str] = {}
    if not isinstance(spec.data, RdmFiles):
        noise = f", noise precision from {spec.noise}" if spec.noise != "none" else ""
        contents = {
            "subjects": ", ".join(spec.subjects),
            "regions": ", ".join(spec.rois),
            "RDMs": f"to be made by `brainrdl rdms`: {spec.measure} over {spec.folds}s{noise}",
        }
    try:
        folder = spec_folder(spec, root)
        if spec.stimuli is not None:
            table = read_stimulus_table(spec.stimuli, folder, spec.name)
            contents["stimuli"] = f"{len(table)}: {table.index[0]} … {table.index[-1]}"
            contents["columns"] = ", ".join(str(name) for name in table if name not in ("stimulus", "file"))
            if spec.stimuli.file is not None:
                images = read_stimulus_set(spec.stimuli, folder, spec.name).images
                images.subset(torch.tensor([0])).read()
                contents["images"] = f"{len(images)} of {images.channels} x {images.size[0]} x {images.size[1]}"
        if isinstance(spec.data, Bold | Betas):
            contents["runs"] = f"{_found_runs(spec, spec.data, folder)} in all"
        if isinstance(spec.data, RdmFiles):
            rdms = read_rdms(spec, root)
            for name, what in (("subject", "subjects"), ("roi", "regions"), ("session", "sessions")):
                if name in rdms.rdm_descriptors:
                    contents[what] = ", ".join(dict.fromkeys(map(str, rdms.rdm_descriptors[name])))
            contents["RDMs"] = f"{rdms.n_rdm}, {rdms.dissimilarity_measure or 'of an unknown measure'}"
    except ValueError as error:
        return BrainDescription(spec, contents, plain(str(error), 1200))
    return BrainDescription(spec, contents, None)


def _found_runs(spec: BrainSpec, data: Bold | Betas, folder: Path) -> int:
    """How many runs all subjects have. Raises ValueError where a file of one, or of a region, is not there."""
    beside = [data.trials] if isinstance(data, Betas) else [data.events, *([data.confounds] if data.confounds else [])]
    n_runs, files = 0, []
    for subject in spec.subjects:
        runs = find_runs(data.images, folder, subject, data.sessions, data.runs, spec.hemispheres)
        n_runs += len(runs)
        for run in runs:
            for pattern in (data.images, *beside):
                files += fill(pattern, folder, subject, run, spec.hemispheres)
        for roi in spec.rois.values():
            files += fill(roi.mask or roi.atlas or "", folder, subject, hemispheres=spec.hemispheres)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{spec.name}: {len(missing)} of {len(files)} files are not there, the first is {missing[0]}; correct the "
            "spec's paths, or add the files"
        )
    return n_runs
