"""Settings searched by validation error: as many trials for every method, and no look at test images."""

import json
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from brainrdl.cli import app
from brainrdl.experiment import RunOptions, task
from brainrdl.experiment.search import draw_trials, shortened, with_settings
from brainrdl.experiment_file import load_experiment

NETWORK = {
    "network": "mnist_cnn",
    "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
}
RATES = [0.01, 0.05, 0.1, 0.2]
SEARCHED = {
    "name": "searched",
    "data": {"spec": "digits", "train": 100, "validation": 100, "test": 200},
    "student": NETWORK,
    "teacher": {**NETWORK, "deformed": {"train": 100, "validation": 50}, "training": {"epochs": 1, "batch_size": 50}},
    "training": {"epochs": 5, "batch_size": 50, "clip": 2.0, "warm_up": 2},
    "methods": {
        "baseline": None,
        "hints": {"layers": {"pool2": "pool2"}, "hint_epochs": 6},
        "rdl": {"layers": {"fc": "fc"}, "pairs": 100, "alpha": 3.0, "training": {"epochs": 8}},
    },
    "seeds": [0, 1],
    "search": {
        "trials": 3,
        "epochs": 0.25,
        "seed": 7,
        "every": {"training.learning_rate": RATES},
        "methods": {"rdl": {"alpha": [1.0, 10.0], "layers": [{"fc": "fc"}, {"pool1": {"pool1": 2.0}}]}},
    },
}


def write(folder: Path, **search) -> Path:
    file = folder / "searched.yaml"
    settings = json.loads(json.dumps(SEARCHED))
    settings["search"].update(search)
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def call(*words: str | Path):
    alone = ("--jobs", "1", "--accelerator", "cpu")
    return CliRunner().invoke(app, [str(word) for word in ("run", *words, *alone)])


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    result = call(write(folder), "--search", "--out", folder / "search")
    assert result.exit_code == 0, result.output
    return folder


def test_every_method_has_as_many_trials_and_the_best_of_each_is_marked(searched):
    table = pd.read_csv(searched / "search" / "search.csv")
    assert table["method"].value_counts().to_dict() == {"baseline": 3, "hints": 3, "rdl": 3}
    for method, trials in table.groupby("method"):
        best = trials[trials["chosen"]]
        assert len(best) == 1 and best["validation_error"].item() == trials["validation_error"].min()
        assert trials["training.learning_rate"].isin(RATES).all()
        values = trials[["training.learning_rate", "alpha", "layers"]].astype(str)
        assert not values.duplicated().any(), method
        for trial in trials.itertuples():
            history = pd.read_csv(searched / "search" / f"{method}.trial-{trial.trial}" / "seed-7" / "history.csv")
            assert history["validation_error"].iloc[-1] == trial.validation_error
            assert history["learning_rate"].max() <= trial._asdict()["_5"]
    # A quarter of 5 and 8 epochs, and 6 hint epochs, rounded up.
    assert table.groupby("method")["epochs"].unique().map(list).to_dict() == {"baseline": [2], "hints": [4], "rdl": [2]}


def test_the_chosen_settings_are_an_experiment_that_runs(searched):
    table = pd.read_csv(searched / "search" / "search.csv")
    best = table[table["chosen"]].set_index("method")
    chosen = load_experiment(str(searched / "search" / "chosen.yaml"))
    assert chosen.training == load_experiment(str(searched / "searched.yaml")).training
    for label in chosen.methods:
        assert chosen.training_of(label).learning_rate == best["training.learning_rate"][label]
    assert chosen.methods["rdl"].alpha == best["alpha"]["rdl"]
    assert str(chosen.methods["rdl"].model_dump()["layers"]) == best["layers"]["rdl"]
    assert chosen.training_of("rdl").epochs == 8 and chosen.methods["hints"].hint_epochs == 6
    words = ("--methods", "rdl", "--seeds", "0", "--out", searched / "run")
    result = call(searched / "search" / "chosen.yaml", *words)
    assert result.exit_code == 0, result.output


def test_test_images_are_left_alone(searched):
    experiment = load_experiment(str(searched / "searched.yaml"))
    images = task.TaskData(experiment, for_search=True)
    splits = task.TaskData(experiment).splits
    assert images.splits.test.ids == splits.validation.ids
    predicted = pd.read_csv(next((searched / "search").glob("rdl.trial-0/*/predictions.csv")))
    assert set(predicted["stimulus"]) == set(splits.validation.ids)


def test_trials_are_a_function_of_the_settings_and_differ_between_seeds(tmp_path):
    drawn = [draw_trials(load_experiment(str(write(tmp_path, seed=seed)))) for seed in (7, 7, 8)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_space_as_large_as_the_trials_is_tried_whole(tmp_path):
    trials = draw_trials(load_experiment(str(write(tmp_path, trials=4))))
    assert sorted(t.settings["training.learning_rate"] for t in trials if t.label == "baseline") == RATES
    every = [t.settings for t in draw_trials(load_experiment(str(write(tmp_path, trials=4)))) if t.label == "rdl"]
    possible = product(RATES, [1.0, 10.0], SEARCHED["search"]["methods"]["rdl"]["layers"])
    assert len(every) == 4 and {str(tuple(one.values())) for one in every} <= {str(one) for one in possible}


def test_a_search_goes_on_where_it_stopped(searched, tmp_path, monkeypatch):
    file, out = write(tmp_path), tmp_path / "search"
    train, calls = task.TaskRun.run_method, []

    def stop(self, part, title, show=True):
        calls.append(part.label)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(self, part, title, show)

    monkeypatch.setattr(task.TaskRun, "run_method", stop)
    assert call(file, "--search", "--out", out).exit_code == 130
    monkeypatch.undo()
    assert not (out / "search.csv").exists()
    assert call(file, "--search", "--out", out, "--resume").exit_code == 0
    assert (out / "search.csv").read_bytes() == (searched / "search" / "search.csv").read_bytes()


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"trials": 5}, "search: method 'baseline' has 4 combinations of values, fewer than the 5 trials"),
        ({"methods": {"rld": {"alpha": [1]}}}, "search.methods.rld: no such method; there are: baseline, hints, rdl"),
        ({"every": {"training.learning_rat": RATES}}, "learning_rat"),
        ({"every": {"training.learning_rate": [-1, -2, -3]}}, "learning_rate"),
        ({"data": {"train": 10**6}}, "1000000"),
        ({"data": {"trian": 100}}, "search: data.trian"),
        ({"data": {"validation": 0}}, "a search goes by validation images, and data.validation is 0"),
        ({"data": {"split_seed": 1}}, "test images would be seen in the search"),
        ({"every": {"training.learning_rate.x": RATES}}, "training.learning_rate: input should be a valid number"),
        ({"every": {"alpha.x": RATES}, "methods": {}}, "alpha"),
        ({"every": {"trainig.learning_rate": RATES}}, "search (trial 0 of 'baseline'"),
        ({"every": {"training.learning_rate": [0.1, 0.1, 0.2]}}, "has a value twice"),
    ],
)
def test_a_search_that_cannot_be_is_told_before_anything_is_written(tmp_path, search, told):
    result = call(write(tmp_path, **search), "--search", "--out", tmp_path / "out")
    assert result.exit_code == 2 and told in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_one_diverged_trial_is_a_result_and_the_others_go_on(tmp_path):
    rates = {"trials": 2, "every": {"training.learning_rate": [0.05, 1e30]}, "methods": {}}
    result = call(write(tmp_path, **rates), "--search", "--out", tmp_path / "out", "--methods", "baseline")
    assert result.exit_code == 0 and "diverged" in result.output, result.output
    table = pd.read_csv(tmp_path / "out" / "search.csv").set_index("training.learning_rate")
    assert table["chosen"].to_dict() == {0.05: True, 1e30: False}
    assert table["validation_error"].isna().to_dict() == {0.05: False, 1e30: True}
    all_too_large = {**rates, "every": {"training.learning_rate": [1e29, 1e30]}}
    result = call(write(tmp_path, **all_too_large), "--search", "--out", tmp_path / "none", "--methods", "baseline")
    assert result.exit_code == 2 and "every trial of method 'baseline' diverged" in result.output


def test_methods_searched_later_join_those_before(searched, tmp_path):
    out = tmp_path / "out"
    for label in ("baseline", "rdl"):
        result = call(write(tmp_path), "--search", "--out", out, "--methods", label)
        assert result.exit_code == 0, result.output
    joined, whole = (pd.read_csv(folder / "search.csv") for folder in (out, searched / "search"))
    pd.testing.assert_frame_equal(
        joined, whole[whole["method"] != "hints"].reset_index(drop=True), check_dtype=False, check_like=True
    )
    assert list(load_experiment(str(out / "chosen.yaml")).methods) == ["baseline", "rdl"]


def test_with_the_best_weights_kept_a_trial_counts_by_its_best_epoch(tmp_path):
    file = write(tmp_path, trials=4, every={"training.learning_rate": RATES}, methods={}, epochs=1.0)
    settings = yaml.safe_load(file.read_text())
    settings["training"]["keep"] = "best"
    file.write_text(yaml.safe_dump(settings))
    assert call(file, "--search", "--out", tmp_path / "out", "--methods", "baseline").exit_code == 0
    for trial in pd.read_csv(tmp_path / "out" / "search.csv").itertuples():
        history = pd.read_csv(tmp_path / "out" / f"baseline.trial-{trial.trial}" / "seed-7" / "history.csv")
        assert trial.validation_error == history["validation_error"].min()


def test_a_report_of_trials_is_refused(searched):
    result = CliRunner().invoke(app, ["report", str(searched / "search")])
    assert result.exit_code == 2 and "holds the trials of a search" in result.output


def test_a_method_without_values_to_try_is_left_as_it_is(tmp_path):
    file = write(tmp_path, every={})
    assert {trial.label for trial in draw_trials(load_experiment(str(file)))} == {"rdl"}
    result = call(write(tmp_path, every={}, methods={}), "--search", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "search: no values to try" in result.output


def test_without_a_search_there_is_nothing_to_search(tmp_path):
    settings = {key: value for key, value in SEARCHED.items() if key != "search"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(settings))
    result = call(tmp_path / "plain.yaml", "--search", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "the experiment has no 'search'" in result.output
    result = call("it92", "--search", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "chosen by 'choose'" in result.output


def test_what_counts_epochs_is_shortened_and_nothing_else():
    full = {"epochs": 10, "warm_up": 2.0, "patience": None, "alpha": 4, "training": {"epochs": 12, "halve_every": 25}}
    parts = {"parts": [{"hint_epochs": 3, "pairs": 500}], "layers": ["a", "b"]}
    assert shortened({**full, **parts}, 0.25) == {
        "epochs": 3,
        "warm_up": 0.5,
        "patience": None,
        "alpha": 4,
        "training": {"epochs": 3, "halve_every": 7},
        "parts": [{"hint_epochs": 1, "pairs": 500}],
        "layers": ["a", "b"],
    }


def test_a_change_of_a_setting_stays_in_its_place_where_the_file_shares_it(tmp_path):
    assert load_experiment("cifar100", ["training.epochs=1"]).teacher.training.epochs > 1
    changed = load_experiment("mnist_beyond", ["search.methods.rdl.alpha=[7.0]"])
    assert [label for label, space in changed.search.methods.items() if space.get("alpha") == [7.0]] == ["rdl"]


def test_a_setting_is_put_in_its_place_and_the_others_stay():
    method = {"alpha": 1, "training": {"clip": 2.0}}
    changed = with_settings(method, {"training.learning_rate": 0.1, "student.arguments.dropout": 0.2, "alpha": 3})
    assert changed == {
        "alpha": 3,
        "training": {"clip": 2.0, "learning_rate": 0.1},
        "student": {"arguments": {"dropout": 0.2}},
    }
    assert method == {"alpha": 1, "training": {"clip": 2.0}}
    parts = {"parts": [{"alpha": 1}, {"alpha": 2, "layers": ["a"]}]}
    assert with_settings(parts, {"parts.1.alpha": 5}) == {"parts": [{"alpha": 1}, {"alpha": 5, "layers": ["a"]}]}
    assert parts["parts"][1]["alpha"] == 2
    with pytest.raises(ValueError, match="'x' cannot stand below the value 1; expected settings there"):
        with_settings(method, {"alpha.x": 5})
    for path in ("parts.2.alpha", "parts.x.alpha", "parts.0"):
        with pytest.raises(ValueError, match="is no place in a list of 2"):
            with_settings(parts, {path: 5})


def test_a_search_changes_no_fingerprint_of_a_run(tmp_path):
    file = write(tmp_path)
    before = [part.settings for part in task.TaskRun(load_experiment(str(file)), tmp_path, RunOptions())._parts()]
    after = [
        part.settings
        for part in task.TaskRun(load_experiment(str(write(tmp_path, trials=2))), tmp_path, RunOptions())._parts()
    ]
    assert before == after


def test_the_search_of_the_mnist_experiment_is_as_long_for_every_method():
    experiment = load_experiment("mnist")
    assert experiment.search is not None and experiment.search.trials >= 8 and experiment.search.epochs == 0.25
    assert experiment.search.seed not in experiment.seeds
    trials = pd.DataFrame(draw_trials(experiment))
    assert set(trials["label"].value_counts()) == {experiment.search.trials}
    assert set(trials["label"]) == set(experiment.methods)
    for label, method in experiment.methods.items():
        tried = experiment.search.space(label)
        for path, values in tried.items():
            settings = method.model_dump() | {"training": experiment.training_of(label).model_dump()}
            for key in path.split("."):
                settings = settings[key]
            assert settings in values, (label, path)


def test_what_goes_beyond_mnist_has_its_data_and_teacher():
    table, beyond = load_experiment("mnist"), load_experiment("mnist_beyond")
    assert (beyond.data, beyond.teacher, beyond.student) == (table.data, table.teacher, table.student)
    assert beyond.methods["rdl"].layers == table.methods["rdl"].layers
    numbers = pd.DataFrame(draw_trials(beyond))["label"].value_counts()
    assert set(numbers) == {beyond.search.trials}
    assert set(numbers.index) < set(beyond.methods) and {"rdl", "rkd", "rdl_cosine"} <= set(numbers.index)
