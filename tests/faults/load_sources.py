"""Very many regions and subjects as teachers at once, and what each of them costs."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from load_steps import images, network
from rsatoolbox.rdm import RDMs

from brainrdl.analysis.agreement import average_seeds, score_agreement
from brainrdl.analysis.fixed_networks import layer_agreement
from brainrdl.analysis.rdms import network_rdms
from brainrdl.brain_rdms import make_rdms
from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.pairs import all_pairs
from brainrdl.rdms import average_rdms, load_rdms, save_rdms, select_rdms
from brainrdl.sources import CombinedTeacher, MeasuredPatterns, MeasuredRDMs, PatternTable
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer

N_STIMULI, N_VOXELS, BATCH = 24, 8, 12


class Cost(NamedTuple):
    """Of so many names: seconds of the processor a thing that is done with them, and the largest memory so far, MiB."""

    n_names: int
    seconds: dict[str, float]
    largest_mib: float


class Clock:
    """Seconds of the processor by what was done; `clock("what", act)` gives what `act` gives."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, what: str, act: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = act()
        self.seconds[what] = time.process_time() - begin
        return result


def brain(n_rois: int, n_subjects: int, ids: tuple[str, ...]) -> RDMs:
    """An RDM a subject and region. Each subject lacks one stimulus, so that no two have the same coverage."""
    random = np.random.default_rng(0)
    i, j = np.triu_indices(len(ids), 1)
    values = random.uniform(0.0, 2.0, size=(n_rois * n_subjects, len(i)))
    subject = np.arange(len(values)) % n_subjects
    values[(subject[:, None] == i) | (subject[:, None] == j)] = np.nan
    told = {
        "roi": [f"roi-{k // n_subjects:03d}" for k in range(len(values))],
        "subject": [f"sub-{k:02d}" for k in subject],
    }
    patterns = {"stimulus": list(ids)}
    return RDMs(values, "correlation", rdm_descriptors=told, pattern_descriptors=patterns)


def patterns(n_rois: int, n_subjects: int, ids: tuple[str, ...]) -> MeasuredPatterns:
    """Responses in two folds; each subject lacks one stimulus, as in `brain`."""
    random = np.random.default_rng(1)
    tables = {}
    for subject in range(n_subjects):
        rows = [one for k, one in enumerate(ids) if k != subject for _ in range(2)]
        responses = random.normal(size=(n_rois, len(rows), N_VOXELS))
        for roi in range(n_rois):
            tables[f"sub-{subject:02d}/roi-{roi:03d}"] = PatternTable(responses[roi], rows, [0, 1] * (len(rows) // 2))
    return MeasuredPatterns(tables)


def combined(n_rois: int, n_subjects: int, ids: tuple[str, ...]) -> CombinedTeacher:
    """A source a subject, and a mean over the subjects for each region."""
    whole = brain(n_rois, n_subjects, ids)
    sources = {
        name: MeasuredRDMs(select_rdms(whole, subject=name)) for name in sorted(set(whole.rdm_descriptors["subject"]))
    }
    rois = dict.fromkeys(whole.rdm_descriptors["roi"])
    return CombinedTeacher(sources, {f"mean/{roi}": {f"{name}/{roi}": 1.0 for name in sources} for roi in rois})


def cost(n_rois: int, n_subjects: int, n_steps: int, folder: Path) -> Cost:
    """What a teacher of each kind with so many names costs, from its making to the analysis."""
    shown, clock = images(N_STIMULI, 3), Clock()
    ids, folder = shown.ids, folder / f"{n_rois}"
    folder.mkdir(parents=True)
    rdms = brain(n_rois, n_subjects, ids)
    makers: dict[str, Callable[[], Any]] = {
        "RDMs": lambda: MeasuredRDMs(rdms, name=["subject", "roi"]),
        "patterns": lambda: patterns(n_rois, n_subjects, ids),
        "combined": lambda: combined(n_rois, n_subjects, ids),
    }
    for kind, make in makers.items():
        source = clock(f"{kind}: made", make)
        covered = clock(f"{kind}: covers", lambda s=source: s.covers(ids))
        if len(covered) != len(source.names):
            raise ValueError(f"{kind}: {len(covered)} of {len(source.names)} names are covered")
        clock(f"{kind}: targets", lambda s=source: s.targets(shown, all_pairs(N_STIMULI)))
        # All steps of the one kind, the others until it is seen what a step takes.
        n = n_steps if kind == "RDMs" else max(3, n_steps // 5)
        for stream in ("stimuli", "task"):
            row = clock(f"{kind}: {n} steps, {stream}", lambda s=source, t=stream, n=n: train(s, shown, t, n))
            check_trained(row, source.names, stream)
    _analyse(rdms, shown, folder, clock)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(n_rois * n_subjects, clock.seconds, largest)


def train(source: Any, shown: Stimuli, stream: str, n_steps: int) -> Mapping[str, Any]:
    """The history of an epoch of `n_steps` steps in which one layer is pulled towards every name of the source."""
    objective = RDLObjective(source, {"fc": dict.fromkeys(source.names, 1.0)}, pairs=40, stream=stream)
    # As many images as are needed, those of the brain's stimuli in both streams.
    task = Stimuli(shown.images[:BATCH], shown.ids[:BATCH], shown.labels)
    if stream == "stimuli":
        task = images(n_steps * BATCH, 9)
        fed: tuple[Stimuli, Stimuli | None] = (task, shown)
    else:
        fed = (Stimuli(shown.images, shown.ids, shown.labels), None)
    epochs = 1 if stream == "stimuli" else max(1, n_steps // (N_STIMULI // BATCH))
    trainer = Trainer(
        network(0), Stage(objective, 0.1, epochs=epochs, optimizer=sgd(0.01)), batch_size=BATCH, accelerator="cpu"
    )
    return [record.history for record in trainer.fit(*fed)][-1]


def check_trained(row: Mapping[str, Any], names: tuple[str, ...], stream: str) -> None:
    """Raise ValueError where a term of some name is not there or is not finite.

    Of the stimuli's stream a name has batches of its own: in a short epoch not every one has had its turn.
    """
    terms = [row[f"rdl/fc/{name}"] for name in names]
    there = sum(math.isfinite(term) for term in terms)
    if there < (1 if stream == "stimuli" else len(names)):
        raise ValueError(f"{there} of {len(names)} terms were measured in the stream '{stream}'")


def _analyse(rdms: RDMs, shown: Stimuli, folder: Path, clock: Clock) -> None:
    """Files, means, scores and agreement of all RDMs with a network's."""
    clock("saved", lambda: save_rdms(rdms, folder / "brain.h5"))
    again = clock("loaded", lambda: load_rdms(folder / "brain.h5"))
    np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
    clock("averaged", lambda: average_rdms(rdms, "subject"))
    models = network_rdms(network(1), ["conv1", "conv2", "fc"], shown, "correlation", name="model", seed=0, epoch=0)
    agreement = clock("layer_agreement", lambda: layer_agreement(models, rdms))
    n_regions = len(set(rdms.rdm_descriptors["roi"]))
    if len(agreement.means) != 3 * n_regions or agreement.means["score"].isna().any():
        raise ValueError(f"layer_agreement has scores of {len(agreement.means)} layers and regions")
    scores = clock("score_agreement", lambda: score_agreement(models, rdms, shown.ids[:16], shown.ids[16:]))
    clock("averages", lambda: average_seeds(scores.assign(n_folds=1)))
    clock("brainrdl rdms", lambda: make_rdms(_spec(folder), folder / "out.h5", root=folder))
    if load_rdms(folder / "out.h5").n_rdm != rdms.n_rdm:
        raise ValueError("brainrdl rdms wrote another number of RDMs")


def _spec(folder: Path) -> Path:
    ids = load_rdms(folder / "brain.h5").pattern_descriptors["stimulus"]
    (folder / "stimuli.tsv").write_text("\n".join(["stimulus", *ids]) + "\n")
    spec = {
        "kind": "brain",
        "name": "many",
        "folder": ".",
        "stimuli": {"table": "stimuli.tsv"},
        "data": {"format": "rdms", "files": [{"file": "brain.h5"}]},
    }
    (folder / "many.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return folder / "many.yaml"


def exponents(costs: list[Cost], least: float = 0.2) -> dict[str, float]:
    """Of each thing that takes `least` seconds or more with most names: p, where its seconds grow as n_names^p.

    From the two largest sizes; what takes less is not told from what does not depend on the names.
    """
    before, last = sorted(costs)[-2:]
    ratio = math.log(last.n_names / before.n_names)
    return {
        what: math.log(seconds / max(before.seconds[what], 1e-3)) / ratio
        for what, seconds in last.seconds.items()
        if seconds >= least
    }


def one_thread() -> None:
    """What is measured is work, not how it is shared out."""
    torch.set_num_threads(1)
