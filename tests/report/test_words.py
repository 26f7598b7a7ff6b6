"""What a report says of its numbers: against the baseline, beside published results, per seed, of a search."""

import numpy as np
import pandas as pd
import pytest
import yaml

from brainrdl.analysis.accuracy import mcnemar_table
from brainrdl.report.blocks import Bullets, Heading, Paragraph, as_markdown, markdown_table
from brainrdl.report.search import read_search, readable_search, trial_counts
from brainrdl.report.task_page import task_page
from brainrdl.report.task_run import TaskRun
from brainrdl.report.task_tables import (
    error_summary,
    readable_errors,
    readable_seeds,
    seed_table,
    table_notes,
    with_holm,
)
from brainrdl.report.task_words import in_words

N = 1000


def made_up(folder, wrong, seeds=(0, 1, 2), teacher=None, published=None):
    """A run of which method m errs with seed k on the first `wrong[m][k]` of 1,000 images."""
    labels = np.zeros(N, dtype=int)

    def predictions(n_wrong):
        ids = [str(k) for k in range(N)]
        return pd.DataFrame({"stimulus": ids, "label": labels, "predicted": (np.arange(N) < n_wrong).astype(int)})

    found = {
        (method, seed): predictions(n) for method, own in wrong.items() for seed, n in zip(seeds, own, strict=True)
    }
    if teacher is not None:
        found["teacher", None] = predictions(teacher)
    settings = {"methods": {method: {} for method in wrong}, "seeds": list(seeds)}
    if published:
        settings["published"] = {"source": "An article, Table 2", "test_error_percent": published}
    return TaskRun(folder, "made up", settings, tuple(wrong), tuple(seeds), found)


def said(run):
    """Everything that is said, and its bullets by what they begin with."""
    blocks = in_words(run, error_summary(run), mcnemar_table(run.predictions))
    return as_markdown(blocks), [item for block in blocks if isinstance(block, Bullets) for item in block.items]


@pytest.fixture
def run(tmp_path):
    wrong = {"baseline": (60, 62, 64), "rdl": (50, 53, 55), "hints": (58, 66, 60), "worse": (80, 83, 86)}
    published = {"baseline": 6.2, "rdl": 6.0, "worse": 5.5, "teacher": 2.0, "finetuning": 4.8}
    return made_up(tmp_path, wrong, teacher=30, published=published)


# against the baseline


def test_differences_are_said_with_both_p_values_and_mcnemars_tests(run):
    _, bullets = said(run)
    table = error_summary(run).set_index("method")
    assert table.loc["rdl", "difference"] == pytest.approx((-10 - 9 - 9) / 3 / N)
    (rdl,) = [item for item in bullets if item.startswith("**rdl**: −")]
    # t = -28 with 2 degrees of freedom; "worse" has a smaller p, so that two tests are left for Holm's.
    assert table.loc["rdl", "p_holm"] == pytest.approx(2 * table.loc["rdl", "p"])
    assert rdl.startswith("**rdl**: −0.93 [−1.08 … −0.79], p = 0.001 (Holm: 0.003): fewer errors. ")
    assert rdl.endswith("McNemar's test: better in 3 of 3 seeds, worse in 0.")
    (worse,) = [item for item in bullets if item.startswith("**worse**: +")]
    assert ": more errors. McNemar's test: better in 0 of 3 seeds, worse in 3." in worse
    (hints,) = [item for item in bullets if item.startswith("**hints**: −")]
    assert ": no difference that 3 seeds can show. McNemar's test: better in 0 of 3 seeds, worse in 0." in hints


def test_a_difference_that_correction_takes_away_is_said(tmp_path):
    run = made_up(tmp_path, {"baseline": (60, 60, 60), "rdl": (50, 55, 52), "a": (61, 58, 60), "b": (60, 62, 57)})
    table = error_summary(run).set_index("method")
    assert table.loc["rdl", "p"] < 0.05 < table.loc["rdl", "p_holm"]
    text, _ = said(run)
    assert "fewer errors, but not after Holm's correction." in text
    assert "after Holm's correction for 3 methods" in text


def test_one_seed_has_no_interval_and_no_verdict(tmp_path):
    run = made_up(tmp_path, {"baseline": (60,), "rdl": (50,)}, seeds=(0,), published={"rdl": 5})
    text, bullets = said(run)
    assert "one seed has no interval" in text
    assert "**rdl**: −1.00. McNemar's test: better in 1 of 1 seed, worse in 0." in bullets
    assert "**rdl**: published 5.00 %, here 5.00 %, of one network, so there is no interval." in bullets
    assert "nan" not in text.lower()


def test_without_a_baseline_or_a_second_network_nothing_is_said_of_them(tmp_path):
    run = made_up(tmp_path, {"rdl": (50, 55), "hints": (50, 55)}, seeds=(0, 1))
    assert "## Against the baseline" not in said(run)[0]
    alone = made_up(tmp_path, {"rdl": (50,)}, seeds=(0,))
    assert in_words(alone, error_summary(alone), mcnemar_table(alone.predictions)) == []


def test_holms_correction_is_statsmodels():
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    random = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = np.concatenate([random.random(n) ** 3, [0.01, 0.01]])
        np.testing.assert_allclose(with_holm(p), multipletests(p, method="holm")[1])
    with_nan = with_holm([np.nan, 0.01, np.nan, 0.04])
    np.testing.assert_allclose(with_nan, [np.nan, 0.02, np.nan, 0.04])
    assert with_holm([]).size == 0


# who differs from whom


def test_pairs_that_differ_are_counted_in_seeds(run):
    text, bullets = said(run)
    tests = mcnemar_table(run.predictions)
    for item in bullets:
        if ": published" in item or item.startswith(tuple(f"**{m}**: {s}" for m in run.methods for s in "+−")):
            continue
        better, others = item.removeprefix("**").split("**: ")
        for other in others.split(", "):
            name, _, count = other.rstrip(")").partition(" (")
            pair = tests[tests[["method_a", "method_b"]].isin([better, name]).all(axis=1)]
            assert count == f"{(pair['better'] == better).sum()}/{len(pair)}"
    n_telling = tests[tests["better"] != ""].groupby(["method_a", "method_b"]).ngroups
    assert f"of 10 pairs of methods {n_telling} differ in at least one seed" in text
    assert "**teacher**: baseline (3/3), rdl (3/3), hints (3/3), worse (3/3)" in bullets


def test_no_difference_at_all_is_said(tmp_path):
    text, _ = said(made_up(tmp_path, {"baseline": (60, 60), "rdl": (60, 60)}, seeds=(0, 1)))
    assert "no pair of methods differs at p < 0.05 in any seed" in text


# beside published results


def test_published_numbers_stand_in_the_table_and_are_compared(run):
    errors = error_summary(run)
    assert errors.set_index("method")["published"].to_dict() == pytest.approx(
        {"baseline": 0.062, "rdl": 0.06, "hints": np.nan, "worse": 0.055, "teacher": 0.02}, nan_ok=True
    )
    table = readable_errors(errors).set_index("method")
    assert list(table["published (%)"]) == ["6.20", "6.00", "—", "5.50", "2.00"]
    assert "Published: An article, Table 2." in table_notes(run)
    text, bullets = said(run)
    low, high = errors.loc[0, "low"], errors.loc[0, "high"]
    assert low < 0.062 < high
    assert any(b.startswith("**baseline**: published 6.20 %, here 6.20 % [") for b in bullets)
    assert any(
        b.startswith("**rdl**") and b.endswith("does not contain the published number, which is higher.")
        for b in bullets
    )
    assert any(
        b.startswith("**worse**") and b.endswith("does not contain the published number, which is lower.")
        for b in bullets
    )
    assert "**teacher**: published 2.00 %, here 3.00 %, of one network, so there is no interval." in bullets
    assert "contains the published number for 1 of 3 methods (baseline)." in text
    assert "published: worse, rdl, baseline; here: rdl, baseline, worse." in text
    assert "Of 3 pairs of methods 1 come in the published order." in text
    assert "with no finished network here: finetuning 4.80 %." in text


def test_methods_that_were_published_alike_are_in_no_order(tmp_path):
    text, _ = said(made_up(tmp_path, {"a": (1, 2), "b": (3, 4)}, seeds=(0, 1), published={"a": 5, "b": 5}))
    assert "pairs of methods 0" not in text and "order" not in text


def test_without_published_numbers_there_is_no_column(tmp_path):
    run = made_up(tmp_path, {"baseline": (60, 62), "rdl": (50, 53)}, seeds=(0, 1))
    assert "published" not in error_summary(run) and "published (%)" not in readable_errors(error_summary(run))
    assert "ublished" not in said(run)[0]


def test_the_page_says_what_results_md_says(run):
    errors, tests = error_summary(run), mcnemar_table(run.predictions)
    page = task_page(run, errors, tests, (), ())
    (results,) = [section for section in page.sections if section.title == "Results"]
    kinds = (Heading, Paragraph, Bullets)
    shown = [block for block in results.blocks if isinstance(block, kinds)]
    words = in_words(run, errors, tests)
    assert words == shown[-len(words) :]


# seed by seed


def test_a_row_a_network_with_what_it_took(tmp_path, synthetic_run):
    from brainrdl.report.task_run import read_task_run

    folder = synthetic_run(tmp_path / "run", seeds=(3, 5), n_figure=20)
    part = folder / "rdl" / "seed-5"
    pd.DataFrame({"epoch": [0, 1], "seconds": [1.5, 2.0]}).to_csv(part / "timing.csv", index=False)
    (folder / "rdl" / "seed-3" / "timing.csv").write_text("epoch\n")  # of a training that was interrupted at its end
    run = read_task_run(folder)
    table = seed_table(run)
    assert list(table.columns) == [
        "method",
        "seed",
        "test_error",
        "validation_error",
        "train_error",
        "epochs",
        "seconds",
    ]
    assert list(zip(table["method"], table["seed"].fillna(-1), strict=True))[-3:] == [
        ("rdl", 3),
        ("rdl", 5),
        ("teacher", -1),
    ]
    row = table[(table["method"] == "rdl") & (table["seed"] == 5)].iloc[0]
    history, predictions = pd.read_csv(part / "history.csv"), pd.read_csv(part / "predictions.csv")
    assert row["test_error"] == (predictions["label"] != predictions["predicted"]).mean()
    assert row["validation_error"] == history["validation_error"].iloc[-1]
    assert (row["train_error"], row["epochs"], row["seconds"]) == (history["train_error"].iloc[-1], 8, 3.5)
    assert np.isnan(table[(table["method"] == "rdl") & (table["seed"] == 3)].iloc[0]["seconds"])
    assert pd.isna(table.iloc[-1]["epochs"])  # the teacher has no history there
    text = readable_seeds(table).set_index("method")
    assert list(text.index) == ["baseline", "finetuning", "rdl"]
    assert text.loc["rdl", "seed 5"] == f"{100 * row['test_error']:.2f}"
    assert text.loc["baseline", "seconds a network"] == "—"
    assert (text["epochs"] == "8").all()


# a search


@pytest.fixture
def searched(tmp_path):
    rows = [
        ("baseline", 0, 0.05, None, None, 0.0080, True),
        ("baseline", 1, 0.10, None, None, 0.0095, False),
        ("rdl", 0, 0.05, 3.0, "{'fc': 'fc'}", 0.0070, False),
        ("rdl", 1, 0.05, 10.0, None, 0.0060, True),
        ("rdl", 2, 0.02, 10.0, None, 0.0065, False),
    ]
    columns = ["method", "trial", "training.learning_rate", "alpha", "layers", "validation_error", "chosen"]
    pd.DataFrame(rows, columns=columns).assign(seed=100, epochs=5).to_csv(tmp_path / "search.csv", index=False)
    return tmp_path


def test_a_search_is_a_row_a_trial_with_its_own_settings(searched):
    table = read_search(searched)
    rows = markdown_table(readable_search(table)).splitlines()[2:]
    assert rows == [
        "| baseline | **0** | **training.learning_rate=0.05** | **0.80** |",
        "| baseline | 1 | training.learning_rate=0.1 | 0.95 |",
        "| rdl | 0 | training.learning_rate=0.05; alpha=3; layers={'fc': 'fc'} | 0.70 |",
        "| rdl | **1** | **training.learning_rate=0.05; alpha=10** | **0.60** |",
        "| rdl | 2 | training.learning_rate=0.02; alpha=10 | 0.65 |",
    ]
    assert trial_counts(table).to_dict("records") == [
        {"method": "baseline", "trials": "2", "networks each": "1", "epochs each": "5"},
        {"method": "rdl", "trials": "3", "networks each": "1", "epochs each": "5"},
    ]


def test_a_trial_of_several_seeds_has_a_mean_and_a_spread(searched):
    one = read_search(searched)
    both = pd.concat([one, one.assign(seed=101, validation_error=one["validation_error"] + 0.002, epochs=6)])
    table = readable_search(both)
    assert len(table) == 5
    assert table.loc[3, "validation error (%)"] == "**0.70 ± 0.14**"
    assert trial_counts(both).loc[1].to_dict() == {
        "method": "rdl",
        "trials": "3",
        "networks each": "2",
        "epochs each": "5 to 6",
    }


def test_no_search_and_a_damaged_one(tmp_path, searched):
    assert read_search(tmp_path / "absent") is None
    text = (searched / "search.csv").read_text()
    (searched / "search.csv").write_text(text.replace("True", "perhaps"))
    with pytest.raises(ValueError, match=r"search.csv': expected chosen to be true or false, got 'perhaps'"):
        read_search(searched)
    (searched / "search.csv").write_text(text.replace("trial", "attempt"))
    with pytest.raises(ValueError, match=r"search.csv': column 'trial' is missing"):
        read_search(searched)


def test_the_page_has_the_search_among_the_set_up(searched):
    run = made_up(searched, {"baseline": (60, 62), "rdl": (50, 53)}, seeds=(0, 1))
    (searched / "experiment.yaml").write_text(yaml.safe_dump(dict(run.settings)))
    page = task_page(run, error_summary(run), mcnemar_table(run.predictions), (), ())
    (set_up,) = [section for section in page.sections if section.title == "Set-up"]
    text = as_markdown(block for block in set_up.blocks)
    assert "## How the settings were chosen" in text
    assert "| rdl | **1** | **training.learning_rate=0.05; alpha=10** | **0.60** |" in text
