"""Fill the tables of docs/results/*.md from the runs that are kept: `python docs/fill_results.py [NAME...]`.

On a page, what stands between `<!-- table: KIND of runs/NAME -->` and `<!-- end -->` is made anew; `KINDS` are the
kinds. Beside the pages stand the same numbers in full: NAME.csv (results), NAME_per_seed.csv and NAME_mcnemar.csv.
Names are of pages and runs; without them all are made. With `--check` nothing is written: the exit status says whether
all is up to date.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from brainrdl.analysis.accuracy import error_table, mcnemar_cells, mcnemar_table
from brainrdl.report.blocks import Block, Bullets, Paragraph, Table, as_markdown
from brainrdl.report.search import SEARCH_WORDS, read_search, readable_search, trial_counts
from brainrdl.report.set_up import environment_lines, settings_table
from brainrdl.report.task_run import TaskRun, read_task_run
from brainrdl.report.task_tables import (
    MCNEMAR_WORDS,
    error_of,
    error_summary,
    readable_errors,
    readable_seeds,
    seed_table,
    table_notes,
)
from brainrdl.report.task_words import against_baseline, against_published, who_differs

RESULTS = Path(__file__).parent / "results"
_MARKED = re.compile(r"(<!-- table: (?P<kind>[\w ]+) of (?P<run>runs/[\w-]+) -->\n)(?P<inside>.*?)(<!-- end -->)", re.S)


def _search(run: TaskRun) -> list[Block]:
    search = read_search(run.folder)
    if search is None:
        raise ValueError(f"{run.folder} has no search.csv; give it to docs/keep_results.py with --search")
    return [Paragraph(SEARCH_WORDS), Table(trial_counts(search)), Table(readable_search(search))]


def _sizes(run: TaskRun) -> list[Block]:
    """Where a run has rdl_N and baseline_N, learned from N images: the one against the other, seed by seed."""
    of_all = run.settings["methods"].get("baseline", {}).get("n_train") or run.settings["data"]["train"]
    sizes: dict[str, int] = {"": of_all or 0} | {
        f"_{n}": int(n) for n in (label.removeprefix("baseline_") for label in run.methods) if n.isdecimal()
    }
    if any(f"{method}{ending}" not in run.methods for ending in sizes for method in ("baseline", "rdl")):
        raise ValueError(f"{run.folder}: expected a method rdl_N for every baseline_N, and rdl and baseline")
    tables = []
    for ending, n_images in sorted(sizes.items(), key=lambda item: item[1]):
        labels = [f"baseline{ending}", f"rdl{ending}"]
        errors = [(label, seed, error_of(run.predictions[label, seed])) for label in labels for seed in run.seeds]
        table = error_table(pd.DataFrame(errors, columns=["method", "seed", "error"]), labels[0])
        readable = readable_errors(table).assign(images=f"{n_images:,}")
        baseline, rdl = (readable[readable["method"] == label].iloc[0] for label in labels)
        tables.append(
            {
                "images": rdl["images"],
                "baseline (%)": baseline["test error (%)"],
                "RDL (%)": rdl["test error (%)"],
                "difference": rdl["difference to baseline"],
                "its 95 % interval": rdl["its 95 % interval"],
                "p": rdl["p"],
            }
        )
    return [Table(pd.DataFrame(tables))]


def _tests(run: TaskRun) -> pd.DataFrame:
    return mcnemar_table(run.predictions)


# What can stand in a table's marker -> what is shown of a run.
KINDS: dict[str, Callable[[TaskRun], Sequence[Block]]] = {
    "results": lambda run: [Table(readable_errors(error_summary(run))), Paragraph(table_notes(run))],
    "published": lambda run: [*against_published(run, error_summary(run))],
    "differences": lambda run: [*against_baseline(error_summary(run), _tests(run))],
    "pairs": lambda run: [*who_differs(_tests(run))],
    "mcnemar": lambda run: [
        *map(Paragraph, MCNEMAR_WORDS),
        Table(mcnemar_cells(_tests(run)).rename_axis("").reset_index()),
    ],
    "sizes": _sizes,
    "seeds": lambda run: [Table(readable_seeds(seed_table(run)))],
    "search": _search,
    "settings": lambda run: [settings_table(run.settings["methods"], "method")],
    "hardware": lambda run: [Bullets(tuple(environment_lines(run.folder)[:-1]))],
}


def filled(page: Path) -> str:
    """The text of a page with its tables made anew.

    Raises ValueError for a kind that is not known, a run that is not kept, or a table that nothing ends.
    """
    text = page.read_text("utf-8")
    if text.count("<!-- table:") != len(_MARKED.findall(text)):
        raise ValueError(f"{page}: expected '<!-- table: KIND of runs/NAME -->', a table and '<!-- end -->'")

    def table(found: re.Match[str]) -> str:
        if found["kind"] not in KINDS:
            raise ValueError(f"{page}: no table '{found['kind']}'; expected one of {', '.join(KINDS)}")
        return f"{found[1]}\n{as_markdown(KINDS[found['kind']](_kept(page.parent / found['run'])))}\n{found[5]}"

    return _MARKED.sub(table, text)


@cache
def _kept(folder: Path) -> TaskRun:
    return read_task_run(folder)


def made(results: Path = RESULTS, names: Sequence[str] = ()) -> dict[Path, str]:
    """Every page and table below `results`, as they should be; names: of these pages and runs alone."""
    pages = [page for page in sorted(results.glob("*.md")) if not names or page.stem in names]
    files = {page: filled(page) for page in pages}
    for folder in sorted(path.parent for path in results.glob("runs/*/experiment.yaml")):
        if not names or folder.name in names:
            run = _kept(folder)
            tables = {"": error_summary(run), "_per_seed": seed_table(run), "_mcnemar": _tests(run)}
            files |= {results / f"{folder.name}{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    return files


def out_of_date(results: Path = RESULTS, names: Sequence[str] = ()) -> dict[Path, str]:
    """Pages and tables that do not say what the kept runs do, and what they should say."""
    return {file: text for file, text in made(results, names).items() if not _says(file, text)}


def _says(file: Path, text: str) -> bool:
    """Whether the file holds the text; numbers of a CSV to nine digits, since the last ones differ between versions."""
    if not file.is_file():
        return False
    there = file.read_text("utf-8")
    if there == text or file.suffix != ".csv":
        return there == text
    try:
        pd.testing.assert_frame_equal(*(pd.read_csv(io.StringIO(one)) for one in (there, text)), rtol=1e-9)
    except AssertionError:
        return False
    return True


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as mnist; default: all")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    given = parser.parse_args()
    try:
        old = out_of_date(names=given.names)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    for file, text in old.items():
        print(f"{file}: {'out of date' if given.check else 'written'}")
        if not given.check:
            file.write_text(text, "utf-8")
    raise SystemExit(1 if old and given.check else 0)


if __name__ == "__main__":
    main()
