"""The command line. Heavy imports happen inside the commands, so that help and version answer at once."""

from __future__ import annotations

import json
import shlex
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainrdl import __version__
from brainrdl.cli.figure_command import figure
from brainrdl.cli.telling import told

if TYPE_CHECKING:
    from brainrdl.data import Description
    from brainrdl.data.spec import DataSpec
    from brainrdl.experiment import RunOptions
    from brainrdl.experiment_file import BrainExperiment, Experiment
    from brainrdl.fmri.describe import BrainDescription
    from brainrdl.fmri.spec import BrainSpec

app = typer.Typer(
    name="brainrdl",
    help="Train deep networks under representational constraints: representational distance learning (RDL).",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")]
Formats = Annotated[str, typer.Option("--format", help="Formats of the figures, comma-separated: png, pdf.")]


def main() -> None:
    """Entry point of the `brainrdl` command."""
    import os

    # Processes that this one starts would look for modules in the working folder first, as `python -m` does.
    if sys.path[0] != str(Path(__file__).parents[2]):
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    app()


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show Python's traceback with an error.")] = False,
) -> None:
    import warnings

    context.obj = {"traceback": traceback}
    # Pillow's words of an image that is refused for its size; the filter is of this program, not of who imports us.
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    if version:
        typer.echo(f"brainrdl {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(context: typer.Context, out: Out = None) -> None:
    """Compare six training methods on real handwritten digits that are already installed; minutes on a laptop."""
    with told(context, "brainrdl demo" + (f" --out {shlex.quote(str(out))}" if out else "")):
        import os

        from brainrdl.experiment import RunOptions
        from brainrdl.experiment_file import load_experiment

        _run(load_experiment("digits"), out, RunOptions(jobs=min(2, os.cpu_count() or 1), resume=True))


@app.command()
def run(
    context: typer.Context,
    experiment: Annotated[
        str,
        typer.Argument(
            help="An experiment file, or a built-in one: digits, mnist, mnist_beyond, cifar100 (for a GPU), it92."
        ),
    ],
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run left.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices (or CPU processes) that share each batch.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that share each batch.")] = 1,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at the same time, each with the result it has alone; default: of a task on the CPU as many "
            "as it has cores (at most 8), else 1.",
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Instead of the file's, such as 0,1,2.")] = None,
    methods: Annotated[str | None, typer.Option(help="Only these of the file, such as baseline,rdl.")] = None,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Within epochs, save the state every so many steps, too; no result changes."),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0.01, help="Within epochs, save the state where it was saved so long ago.")
    ] = 10.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: key.path=value.")] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Instead, search the settings under the file's search by validation error; default folder: "
            "runs/NAME-search.",
        ),
    ] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Allow networks package.module:callable.")] = False,
) -> None:
    """Run an experiment: its teacher, then every method with every seed; finished parts are not run again."""
    again = " ".join(shlex.quote(word) for word in sys.argv[1:] if word != "--resume")
    with told(context, f"brainrdl {again} --resume", experiment, str(out or "")):
        from brainrdl.experiment import RunOptions
        from brainrdl.experiment_file import load_experiment

        changes = list(set_ or []) + ([] if precision is None else [f"training.precision={json.dumps(precision)}"])
        loaded = load_experiment(experiment, changes, _words(methods), _numbers(seeds))
        options = RunOptions(
            resume=resume,
            checkpoint_steps=checkpoint_steps,
            checkpoint_minutes=checkpoint_minutes,
            jobs=jobs,
            accelerator=accelerator,
            devices=devices,
            nodes=nodes,
            allow_code=allow_code,
        )
        if search:
            _search(loaded, out, options)
        else:
            _run(loaded, out, options)


@app.command()
def report(
    context: typer.Context,
    run_dir: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    formats: Formats = "png,pdf",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report of several runs; default: report, beside the first run.")
    ] = None,
) -> None:
    """Make the tables, figures and report.html of runs anew, without training; of several runs one of all, too."""
    with told(context):
        from brainrdl.report import write_report, write_reports

        if len(run_dir) == 1:
            if out is not None:
                raise ValueError("--out is for the report of several runs; one run's is written to RUN_DIR/report")
            write_report(run_dir[0], tuple(_words(formats)))
        else:
            joint = write_reports(run_dir, out, tuple(_words(formats)))
        for folder in run_dir:
            _tell_results(folder)
        if len(run_dir) > 1:
            for note in joint.notes:
                typer.echo(f"note: {note}", err=True)
            typer.echo(f"all runs: {joint.page}")


def _tell_results(folder: Path) -> None:
    from brainrdl.report import results_table

    table = results_table(folder)
    typer.echo(table.to_string(index=False) if len(table) else f"{folder}: no network is finished yet")
    typer.echo(f"figures and tables: {folder / 'report'}")


app.command()(figure)


@app.command()
def rdms(
    context: typer.Context,
    data_spec: Annotated[str, typer.Argument(help="A brain data spec: a YAML file or a built-in's name.")],
    out: Annotated[Path, typer.Option(help="FILE.h5; FILE.csv, FILE.png and FILE.pdf are written beside it.")],
    subjects: Annotated[str | None, typer.Option(help="Only these of the spec, such as sub-01,sub-02.")] = None,
    rois: Annotated[str | None, typer.Option(help="Only these of the spec, such as V1,IT.")] = None,
) -> None:
    """Make RDMs of measured patterns, with their reliability and noise ceilings."""
    with told(context, of=data_spec):
        from brainrdl.brain_rdms import make_rdms, summary

        made = make_rdms(
            data_spec,
            out,
            subjects=None if subjects is None else _words(subjects),
            rois=None if rois is None else _words(rois),
        )
        typer.echo(summary(made))


@app.command()
def fetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A data spec of images or brain data: a built-in's name or a YAML file.")],
    into: Annotated[Path | None, typer.Option(help="Data folder; default: $BRAINRDL_DATA, else the cache.")] = None,
) -> None:
    """Bring a public data set here, or say how its publisher gives it out."""
    again = f"brainrdl fetch {shlex.quote(name)}" + (f" --into {shlex.quote(str(into))}" if into else "")
    with told(context, again):
        from brainrdl.data.fetch import FetchError, fetch_files
        from brainrdl.data.spec import fetch_folder

        spec = _any_spec(name)
        root = _data_root() if into is None else into
        folder = fetch_folder(name, spec.folder, into)
        try:
            brought = fetch_files(spec.files, folder, show_progress=True)
        except FetchError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        there = sum(file.was_there for file in brought)
        what = f"{len(brought)} files in {folder}, checked; {there} were there" if brought else "nothing is downloaded"
        typer.echo(f"{spec.name}: {what}")
        if spec.instructions or not brought:
            typer.echo(spec.instructions.strip() or f"see {spec.source.url or 'its publisher'}")
        if brought and root != _data_root() and not Path(spec.folder).is_absolute():
            typer.echo(f"to use them: export BRAINRDL_DATA={shlex.quote(str(root.resolve()))}")


def _data_root() -> Path:
    from brainrdl.data.spec import data_root

    return data_root()


def _any_spec(name: str) -> DataSpec | BrainSpec:
    """The data spec of a name or file, of images or brain data."""
    from brainrdl.data.spec import load_spec, spec_names
    from brainrdl.fmri.spec import load_brain_spec
    from brainrdl.settings import read_yaml

    known = sorted((*spec_names(), *spec_names("brain")))
    if name not in known and not Path(name).is_file():
        close = get_close_matches(name, known, n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"data spec '{name}' is no file and no built-in; {nearest}built in: {', '.join(known)}")
    is_brain = name in spec_names("brain") if name in known else read_yaml(Path(name)).get("kind") == "brain"
    return load_brain_spec(name) if is_brain else load_spec(name)


@app.command()
def check(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(help="A data spec or an experiment: a YAML file or a built-in's name.")],
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Allow networks package.module:callable.")] = False,
) -> None:
    """Say whether a data spec or an experiment can be used here, and what is in it."""
    with told(context, of=spec):
        from brainrdl.experiment_file import built_in_experiments
        from brainrdl.settings import read_yaml

        path = Path(spec)
        a_file = path.suffix in (".yaml", ".yml") or path.exists()
        keys = read_yaml(path) if a_file and not path.is_dir() else {}
        if "methods" in keys or "student" in keys or "students" in keys:
            typer.echo(_experiment_text(spec, allow_code))
            return
        built_in = not a_file and spec in built_in_experiments()
        if not built_in or spec in _known_specs():
            described = _described(spec)
            typer.echo(described)
            if not described.usable:
                raise typer.Exit(2)
        if built_in:
            typer.echo(_experiment_text(spec, allow_code))


def _described(spec: str) -> Description | BrainDescription:
    from brainrdl.data import DataSpec, describe, load_spec
    from brainrdl.fmri.describe import describe_brain

    found = load_spec(spec) if Path(spec).is_dir() else _any_spec(spec)
    return describe(found) if isinstance(found, DataSpec) else describe_brain(found)


def _known_specs() -> list[str]:
    from importlib import resources

    return [file.name.removesuffix(".yaml") for file in resources.files("brainrdl.data_specs").iterdir()]


def _experiment_text(source: str, allow_code: bool) -> str:
    from brainrdl.experiment import describe_experiment
    from brainrdl.experiment_file import load_experiment

    return describe_experiment(load_experiment(source), allow_code)


def _run(experiment: Experiment | BrainExperiment, out: Path | None, options: RunOptions) -> None:
    from brainrdl.experiment import run_experiment
    from brainrdl.folder_lock import locked
    from brainrdl.report import write_report

    folder = out or Path("runs") / experiment.name
    with locked(folder, n_processes=options.devices * options.nodes):
        chief = run_experiment(experiment, folder, options)
        if chief:
            with locked(folder, "report", wait=60, remedy="make it anew with brainrdl report"):
                write_report(folder)
            _tell_results(folder)


def _search(experiment: Experiment | BrainExperiment, out: Path | None, options: RunOptions) -> None:
    from brainrdl.experiment import search_settings

    search_settings(experiment, out or Path("runs") / f"{experiment.name}-search", options)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ValueError(f"--seeds {text}: expected whole numbers separated by commas, such as 0,1,2") from None
