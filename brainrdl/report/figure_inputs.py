"""What a figure is made of: runs, files of RDMs, patterns from elsewhere and networks, as RDMs over common stimuli."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from brainrdl.data import first_of_each_class, load_data
from brainrdl.data.stimulus_set import stimulus_table
from brainrdl.data.thumbnails import load_thumbnails
from brainrdl.rdms import load_rdms, match_rdms, select_rdms, stimulus_ids
from brainrdl.rdms.hdf5 import open_hdf5
from brainrdl.rdms.selection import group_rdms, rdm_descriptor
from brainrdl.report.figure_runs import all_logged_rdms, has_brains, is_run, short_names
from brainrdl.report.task_run import final_rdms, logged_rdms, read_task_run
from brainrdl.report.task_tables import missing_lines
from brainrdl.run_folder import THUMBNAILS, check_noted
from brainrdl.settings import naming

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read.

    select: rdm descriptor -> values; only RDMs with one of them are taken. ids: of an array's stimuli, a file of them.
    key: which array of a file that holds several. patterns: arrays are patterns, (n_stimuli, n_units), and not RDMs.
    dissimilarity: between patterns, or without those the measure of RDMs whose file does not say. stimulus: the
    pattern descriptor that holds the stimulus ids.
    images: a folder of pictures named by stimulus id, or "run", those that a run keeps. categories: a table of stimuli
    (.tsv or .csv) with the column `category`; without it `category` is a pattern descriptor. category: None takes
    "category" where there is one. logged: all logged epochs of runs, not the last alone.
    """

    select: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ids: Path | None = None
    key: str | None = None
    patterns: bool = False
    dissimilarity: str | None = None
    stimulus: str = "stimulus"
    images: str | None = None
    categories: Path | None = None
    category: str | None = None
    logged: bool = False
    allow_code: bool = False


class Inputs(NamedTuple):
    """rdms: all of them, over the stimuli that they share. thumbnails: id -> picture; None where none were asked for.
    category: the pattern descriptor of their categories, None without. notes: what was left out, and why. not_layers:
    networks whose several RDMs are not of layers, beside others' that are."""

    rdms: RDMs
    thumbnails: dict[str, np.ndarray] | None
    category: str | None
    notes: tuple[str, ...]
    not_layers: tuple[str, ...] = ()


def read_inputs(inputs: Sequence[str], options: InputOptions) -> Inputs:
    """Read the inputs of a figure: folders of runs, files of RDMs or patterns, network files (.yaml).

    Of a run the first seed and the last epoch are taken, unless `select` says otherwise. RDMs of several inputs are
    matched by stimulus id; those that do not say which network they are of are called by their file's name.
    Raises ValueError where an input is none of these, stands twice or holds no RDM, they share fewer than 3 stimuli,
    or `select`, `images` or `categories` ask for what is not there.
    """
    if not inputs:
        raise ValueError("expected at least one input: the folder of a run, a file of RDMs or patterns, a network file")
    notes: list[str] = []
    names = short_names(inputs)
    parts = [_read(path, name, options, len(inputs) > 1, notes) for path, name in zip(inputs, names, strict=True)]
    rdms, not_layers = parts[0], []
    if len(parts) > 1:
        several_runs = sum(map(is_run, inputs)) > 1
        with_layers = any("layer" in part.rdm_descriptors for part in parts)
        alike = len({frozenset(part.rdm_descriptors) for part in parts}) == 1
        for part, path, name in zip(parts, inputs, names, strict=True):
            if with_layers and "layer" not in part.rdm_descriptors and part.n_rdm > 1:
                not_layers.append(name)
            of_network(part, name, "layer" if with_layers else None if alike else "rdm")
            if several_runs and is_run(path):
                part.rdm_descriptors["network"] = [f"{name}: {own}" for own in part.rdm_descriptors["network"]]
        matched = match_rdms(parts, list(inputs))
        rdms, notes = matched.rdms, [*notes, *matched.notes]
    if options.select:
        rdms = select_rdms(rdms, **options.select)
    category = _category(rdms, options)
    thumbnails = _thumbnails(rdms, inputs, options.images)
    return Inputs(rdms, thumbnails, category, tuple(notes), tuple(not_layers))


def of_network(rdms: RDMs, name: str, apart: str | None = "layer") -> RDMs:
    """Give RDMs that lack them the descriptors of a network's, to stand beside those that have them; returns them.

    name: of the network. apart: the descriptor that says what tells its RDMs apart (subject and session, say; `name`
    of a single one); None: none.
    """
    own = rdms.rdm_descriptors
    if apart is not None and apart not in own:
        differ = [key for key in group_rdms(rdms, ("network",))[0] if len(set(rdm_descriptor(rdms, key))) > 1]
        own[apart] = [" ".join(str(own[key][k]) for key in differ) or name for k in range(rdms.n_rdm)]
    for key, value in {"network": name, "seed": -1, "epoch": -1}.items():
        own.setdefault(key, [value] * rdms.n_rdm)
    return rdms


def _read(path: str, name: str, options: InputOptions, beside: bool, notes: list[str]) -> RDMs:
    """The RDMs of one input. name: what it is called. beside: there are other inputs."""
    if is_run(path):
        return _of_run(Path(path), options, notes)
    file = Path(path)
    if file.is_dir() or not file.exists():
        what = "a folder that holds no run (experiment.yaml)" if file.is_dir() else "not there"
        raise ValueError(f"'{path}' is {what}; give the folder of a run, a file of RDMs or patterns, or a network file")
    if file.suffix in (".yaml", ".yml"):
        try:
            return _of_network(file, options.allow_code)
        except ValueError as error:
            raise ValueError(naming(str(error), path)) from error
    is_array = not is_of_rsatoolbox(file)
    if is_array and options.patterns:
        return _of_patterns(file, name, options)
    # What is said of arrays, or of patterns, does not hold for a file of RDMs beside them.
    ids = options.ids if is_array or not beside else None
    measure = None if options.patterns else options.dissimilarity
    rdms = load_rdms(file, ids, options.key if is_array else None, measure)
    if rdms.n_rdm == 0:
        raise ValueError(f"{file}: expected at least one RDM, got none over {rdms.n_cond} stimuli; write it again")
    needed = beside or options.stimulus != "stimulus" or options.images or options.categories
    if needed and options.stimulus not in rdms.pattern_descriptors:
        known = ", ".join(key for key in rdms.pattern_descriptors if key != "index") or "none"
        raise ValueError(
            f"{file}: its RDMs have no pattern descriptor '{options.stimulus}'; they have: {known}; say by --stimulus "
            "which one holds the ids of their stimuli"
        )
    if options.stimulus != "stimulus":
        rdms.pattern_descriptors["stimulus"] = list(rdms.pattern_descriptors[options.stimulus])
    return rdms


def is_of_rsatoolbox(file: Path) -> bool:
    """Whether it is a file of RDMs that rsatoolbox wrote, and not an array."""
    if file.suffix.lower() not in (".h5", ".hdf5"):
        return False
    try:
        with open_hdf5(file) as opened:
            return {"dissimilarities", "pattern_descriptors"} <= set(opened)
    except ValueError:
        return False  # whoever reads it says so


def _of_run(folder: Path, options: InputOptions, notes: list[str]) -> RDMs:
    if has_brains(folder):
        from brainrdl.report.brain import BrainRun
        from brainrdl.report.brain_figures import example_rdms

        if options.logged:
            raise ValueError(
                f"'{folder}' is a run with brains as teachers, which keeps no RDMs of epochs; draw another kind"
            )
        brain_run = BrainRun(folder)
        notes += [f"{folder.name}: {line}" for line in brain_run.missing_lines()]
        return example_rdms(brain_run)
    run = read_task_run(folder)
    if options.logged or {"seed", "epoch"} & set(options.select):
        notes += [f"{folder.name}: {line}" for line in missing_lines(run)]
    if options.logged:
        return all_logged_rdms(run)
    if {"seed", "epoch"} & set(options.select):
        rdms = all_logged_rdms(run) if "seed" in options.select else logged_rdms(run)
        return rdms if "epoch" in options.select else _last_epochs(rdms)
    final, lacking = final_rdms(run)
    if final is None:
        raise ValueError(f"'{folder}': {'; '.join(lacking)}; let `brainrdl run` finish a network")
    notes += [f"{folder.name}: {line}" for line in lacking]
    return final


def _last_epochs(rdms: RDMs) -> RDMs:
    """Of each network and seed its last epoch."""
    epochs = [int(epoch) for epoch in rdms.rdm_descriptors["epoch"]]
    networks = list(zip(rdms.rdm_descriptors["network"], rdms.rdm_descriptors["seed"], strict=True))
    last: dict[tuple[object, object], int] = {}
    for network, epoch in zip(networks, epochs, strict=True):
        last[network] = max(epoch, last.get(network, epoch))
    return rdms[[k for k in range(rdms.n_rdm) if epochs[k] == last[networks[k]]]]


def _of_network(file: Path, allow_code: bool) -> RDMs:
    """RDMs of a network on the images that its file names."""
    from brainrdl.analysis.rdms import network_rdms
    from brainrdl.experiment_file.network import load_network_file
    from brainrdl.fmri.read import read_stimuli
    from brainrdl.models import Preprocessing, build_network

    settings = load_network_file(file)
    network = build_network(settings.network, settings.arguments, settings.weights, allow_code)
    names = None
    if settings.data is not None:
        data = load_data(settings.data)
        stimuli, names = first_of_each_class(data, settings.n_per_class, f"{file}: n_per_class"), data.class_names
        table = None
    else:
        assert settings.stimuli is not None
        images, table = read_stimuli(settings.stimuli)
        stimuli = images.read()._replace(labels=None)
    preprocess = Preprocessing(**settings.preprocess.model_dump())
    rdms = network_rdms(
        network, settings.layers, stimuli, settings.dissimilarity, preprocess, str(settings.name), class_names=names
    )
    if table is not None:
        rdms.pattern_descriptors.update({str(name): table[name].tolist() for name in table if name != "stimulus"})
    return rdms


def _of_patterns(file: Path, name: str, options: InputOptions) -> RDMs:
    from brainrdl.analysis.rdms import pattern_rdms
    from brainrdl.rdms.features import load_features

    features = load_features(file, options.ids, options.key)
    rdms = pattern_rdms(features.values, features.ids, options.dissimilarity or "correlation", network=name)
    del rdms.rdm_descriptors["layer"]  # whether arrays are layers of one network, nobody has said
    return rdms


def _category(rdms: RDMs, options: InputOptions) -> str | None:
    """The pattern descriptor of the categories; those of a table are added."""
    name = options.category or "category"
    if options.categories is None:
        if name in rdms.pattern_descriptors:
            return name
        if options.category is None:
            return None
        raise ValueError(
            f"the RDMs have no pattern descriptor '{name}'; they have: {', '.join(rdms.pattern_descriptors)}. "
            "Give a table of the stimuli with --categories"
        )
    table = stimulus_table(options.categories)
    if name not in table:
        raise ValueError(f"{options.categories}: the column '{name}' is missing; it has: {', '.join(map(str, table))}")
    known = table[name].to_dict()
    ids = stimulus_ids(rdms)
    unknown = [stimulus for stimulus in ids if stimulus not in known]
    if unknown:
        raise ValueError(
            f"{options.categories}: {len(unknown)} of {len(ids)} stimuli are not in it, the first is '{unknown[0]}'; "
            "add them"
        )
    rdms.pattern_descriptors[name] = [known[stimulus] for stimulus in ids]
    return name


def _thumbnails(rdms: RDMs, inputs: Iterable[str], images: str | None) -> dict[str, np.ndarray] | None:
    if images is None:
        return None
    path = Path(images)
    if images == "run":
        kept = [Path(folder) / THUMBNAILS for folder in inputs if (Path(folder) / THUMBNAILS).is_file()]
        if not kept:
            raise ValueError(
                "--images run: no input is a run that keeps pictures of its stimuli; give a folder of images named by "
                "stimulus id"
            )
        path = kept[0]
        check_noted(path.parent, THUMBNAILS)
    return load_thumbnails(path, stimulus_ids(rdms))
