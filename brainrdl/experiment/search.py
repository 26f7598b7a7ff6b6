"""Settings searched by validation error: as many trials, as long, for every method; test images are left alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from brainrdl.data import DataSettings
from brainrdl.experiment.common import RunOptions, say
from brainrdl.experiment.task import DIVERGED, run_task_experiment
from brainrdl.experiment.task_data import TaskData
from brainrdl.experiment_file import Experiment, TrainingSettings
from brainrdl.experiment_file.settings import over
from brainrdl.experiment_file.task import read_method
from brainrdl.randomness import Draw
from brainrdl.run_folder import CHOSEN, SEARCH, TRIAL, check_noted, noted, noted_damage, read_table, write_table
from brainrdl.runs import write_text
from brainrdl.settings import dump_yaml, read_yaml, validate

_NO_ANALYSIS = {"layers": [], "every": 0, "test_every": 2**31, "n_per_class": 2}
_LAST = ["validation_error", "chosen"]
_EPOCHS, _SHARES = ("epochs", "hint_epochs", "halve_every", "patience"), ("warm_up",)


class Trial(NamedTuple):
    """label: of the method. number: from 0. settings: key.path of the method's settings -> the value tried."""

    label: str
    number: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The label of its part."""
        return f"{self.label}{TRIAL}{self.number}"


def run_search(experiment: Experiment, out: Path, options: RunOptions | None = None) -> bool:
    """Train every trial; write OUT/search.csv, and OUT/chosen.yaml: the experiment with the best settings found.

    The best trial of a method has the lowest validation error, after its last epoch (with keep: best, its lowest); of
    equal ones the first. One whose loss did not stay finite has none. What OUT holds of other methods stays.
    Raises ValueError where there is nothing to search, where no trial of a method came to an end, where a search would
    see the experiment's test images, and as `run_task_experiment`.
    """
    trials = draw_trials(experiment)
    searched = _of_trials(experiment, trials)
    _check_images(experiment, searched)
    before = _before(out)
    writes = run_task_experiment(searched, out, replace(options or RunOptions(), search=True))
    if writes:
        table = _results(experiment, searched, trials, out)
        best = {trials[row].label: trials[row].settings for row in table.index[table["chosen"]]}
        chosen = experiment.model_dump(mode="json", exclude_unset=True)
        chosen["methods"] = {
            label: with_settings(given, best.get(label, {})) for label, given in chosen["methods"].items()
        }
        if before is not None:
            table = pd.concat([before[~before["method"].isin(best)], table], ignore_index=True)
            table = table[[column for column in table if column not in _LAST] + _LAST]
            chosen["methods"] = {**read_yaml(out / CHOSEN)["methods"], **chosen["methods"]}
        with noted(out, SEARCH, CHOSEN):
            write_table(out / SEARCH, table)
            write_text(out / CHOSEN, dump_yaml(chosen))
        say(f"{out / SEARCH}: every trial; {out / CHOSEN}: the experiment with the best settings")
    return writes


def _before(out: Path) -> pd.DataFrame | None:
    """What OUT/search.csv holds of an earlier search, with chosen.yaml beside it; None where they are not both there.

    Raises ValueError naming the one that is damaged.
    """
    for name in (SEARCH, CHOSEN):
        if (out / name).exists():
            check_noted(out, name)
        elif noted_damage(out, name):
            say(f"note: {out / name} is missing; it is made anew, of the methods that are searched now")
    if not ((out / SEARCH).exists() and (out / CHOSEN).exists()):
        return None
    return read_table(out / SEARCH, ("method", "trial", *_LAST))


def draw_trials(experiment: Experiment) -> list[Trial]:
    """The trials of every method that has values to try, a function of the settings alone.

    Raises ValueError for nothing to try, a value given twice, and fewer combinations than trials.
    """
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    search = experiment.search
    if search is None:
        raise ValueError("the experiment has no 'search': say under it which settings are tried")
    unknown = sorted(set(search.methods) - set(experiment.methods))
    if unknown:
        raise ValueError(f"search.methods.{unknown[0]}: no such method; there are: {', '.join(experiment.methods)}")
    trials = []
    for label in experiment.methods:
        space = search.space(label)
        if not space:
            continue
        for path, values in space.items():
            if len({repr(value) for value in values}) < len(values):
                raise ValueError(f"search: '{path}' of method '{label}' has a value twice: {values}; give each once")
        size = len(ParameterGrid(space))
        if size < search.trials:
            raise ValueError(
                f"search: method '{label}' has {size} combinations of values, fewer than the {search.trials} trials; "
                "give it more values, or lower search.trials"
            )
        seed = Draw(search.seed).torch_seed(f"search {label}") % 2**32
        drawn = ParameterSampler(space, search.trials, random_state=seed)
        trials += [Trial(label, k, {key: one[key] for key in space}) for k, one in enumerate(drawn)]
    if not trials:
        raise ValueError("search: no values to try; give some under search.every or search.methods")
    return trials


def with_settings(method: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings with the values at the given key.paths; a number is a place in a list (parts.0.alpha).

    Raises ValueError for a place that a list does not have.
    """
    changed = dict(method)
    for path, value in settings.items():
        key, _, rest = path.partition(".")
        changed[key] = _within(changed.get(key), rest, value) if rest else value
    return changed


def _within(settings: Any, path: str, value: Any) -> Any:
    """Settings, or a list of settings, with the value at its path."""
    if settings is None or isinstance(settings, Mapping):
        return with_settings(settings or {}, {path: value})
    if not isinstance(settings, list):
        raise ValueError(f"search: '{path}' cannot stand below the value {settings!r}; expected settings there")
    place, _, rest = path.partition(".")
    if not place.isdecimal() or int(place) >= len(settings) or not rest:
        raise ValueError(f"search: '{path}' is no place in a list of {len(settings)}; expected such as 0.alpha")
    changed = list(settings)
    changed[int(place)] = _within(settings[int(place)], rest, value)
    return changed


def shortened(settings: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Settings in which all that counts epochs is `share` of what it was; whole epochs are rounded up."""
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            changed[key] = shortened(value, share)
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            changed[key] = [shortened(one, share) for one in value]
        elif key in _EPOCHS and value is not None:
            changed[key] = max(1, math.ceil(round(share * value, 9)))
        elif key in _SHARES:
            changed[key] = share * value
        else:
            changed[key] = value
    return changed


def _of_trials(experiment: Experiment, trials: list[Trial]) -> Experiment:
    """An experiment whose methods are the trials, each as long as a trial is."""
    search = experiment.search
    assert search is not None
    training = shortened(experiment.training.model_dump(), search.epochs)
    methods = {}
    for trial in trials:
        given = experiment.methods[trial.label].model_dump(mode="json", exclude_unset=True)
        settings = shortened(with_settings(given, trial.settings), search.epochs)
        told = ", ".join(f"{path}={value}" for path, value in trial.settings.items())
        where = f"search (trial {trial.number} of '{trial.label}': {told})"
        methods[trial.name] = read_method(trial.name, settings, where)
        validate(TrainingSettings, over(training, methods[trial.name].training), where, "training")
    settings = {
        **experiment.model_dump(),
        "data": {**experiment.data.model_dump(), **search.data},
        "training": training,
        "methods": methods,
        # Validation errors are in every history; RDMs of trials are not looked at.
        "analysis": {**experiment.analysis.model_dump(), **_NO_ANALYSIS},
        "seeds": [search.seed],
        "search": None,
        "published": None,
    }
    validate(DataSettings, settings["data"], "search", "data")
    if not settings["data"]["validation"]:
        raise ValueError(
            "a search goes by validation images, and data.validation is 0; give some under search.data, such as "
            "{validation: 1000}"
        )
    return validate(Experiment, settings, "search")


def _check_images(experiment: Experiment, searched: Experiment) -> None:
    """Raise ValueError where the search would learn from or go by images that the experiment is tested on."""
    if experiment.data == searched.data:
        return
    test = set(TaskData(experiment).splits.test.ids)
    splits = TaskData(searched).splits
    seen = test & {*splits.train.ids, *splits.validation.ids}
    if seen:
        raise ValueError(
            f"search.data: {len(seen)} of the experiment's test images would be seen in the search (such as "
            f"'{sorted(seen)[0]}'); take fewer images for the search"
        )


def _results(experiment: Experiment, searched: Experiment, trials: list[Trial], out: Path) -> pd.DataFrame:
    """A row a trial: method, trial, seed, epochs, the values tried, validation_error (NaN: diverged), chosen."""
    assert experiment.search is not None
    rows = []
    for trial in trials:
        folder = out / trial.name / f"seed-{experiment.search.seed}"
        error, n_epochs = math.nan, 0
        if not (folder / DIVERGED).exists():
            errors = read_table(folder / "history.csv", ("validation_error",))["validation_error"]
            n_epochs = len(errors)
            error = errors.min() if searched.training_of(trial.name).keep == "best" else errors.iloc[-1]
        row = {"method": trial.label, "trial": trial.number, "seed": experiment.search.seed, "epochs": n_epochs}
        rows.append({**row, **trial.settings, "validation_error": float(error)})
    table = pd.DataFrame(rows)
    without = table.groupby("method", sort=False)["validation_error"].count()
    if (without == 0).any():
        raise ValueError(
            f"search: every trial of method '{without.index[without == 0][0]}' diverged; give it lower learning rates "
            "or weights, or clipping"
        )
    table["chosen"] = table.index.isin(table.groupby("method", sort=False)["validation_error"].idxmin())
    return table[[column for column in table if column not in _LAST] + _LAST]
