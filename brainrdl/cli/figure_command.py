"""`brainrdl figure` and its many options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from brainrdl.cli.telling import told

_INPUTS, _RDM, _MDS, _OTHERS = "What is drawn", "rdm, stimulus-mds", "mds, training", "agreement, curves"


def figure(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="rdm, mds, stimulus-mds, curves, agreement or training.")],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Folders of runs, files of RDMs, arrays, network files (.yaml)."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="FILE.png, FILE.pdf or FILE.svg.")],
    width: Annotated[
        str, typer.Option(metavar="WIDTH", help="single (85 mm, one column) or double (180 mm, two).")
    ] = "double",
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DESCRIPTOR=VALUE[,VALUE]",
            help="Only RDMs of these, such as layer=fc,softmax. Of a run: the last epoch of the first seed.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    patterns: Annotated[
        bool, typer.Option("--patterns", help="Arrays are patterns, stimuli × units.", rich_help_panel=_INPUTS)
    ] = False,
    dissimilarity: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Between patterns (default: correlation), or the measure of RDMs in arrays.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The stimuli of arrays: an id a line, or a table.", rich_help_panel=_INPUTS),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which array of files that hold several.", rich_help_panel=_INPUTS),
    ] = None,
    stimulus: Annotated[
        str,
        typer.Option(
            metavar="DESCRIPTOR", help="The pattern descriptor that holds stimulus ids.", rich_help_panel=_INPUTS
        ),
    ] = "stimulus",
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Allow networks package.module:callable.", rich_help_panel=_INPUTS),
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Pictures of stimuli: images named by id, or run: those that the run keeps.",
            rich_help_panel=_RDM,
        ),
    ] = None,
    categories: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A table of stimuli (.tsv, .csv) with categories.", rich_help_panel=_RDM),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Its column, or a pattern descriptor; default: category, where there is one.",
            rich_help_panel=_RDM,
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option(metavar="SCALE", help="rdm: percentile or raw.", rich_help_panel=_RDM)
    ] = "percentile",
    shared: Annotated[
        bool, typer.Option("--shared", help="rdm: one colour scale for all RDMs.", rich_help_panel=_RDM)
    ] = False,
    rows: Annotated[
        str | None,
        typer.Option(metavar="DESCRIPTOR", help="rdm: of RDMs, what the grid's rows are.", rich_help_panel=_RDM),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="DESCRIPTOR", help="rdm: of RDMs, what its columns are.", rich_help_panel=_RDM),
    ] = None,
    comparison: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of RDMs: correlation, normalized_euclidean, … (default: correlation); agreement: rho-a, corr, … "
            "(default: rho-a).",
            rich_help_panel=_MDS,
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Samples of stimuli; 0: all stimuli once.", rich_help_panel=_MDS),
    ] = 20,
    sample: Annotated[
        int | None,
        typer.Option(min=3, metavar="N", help="Stimuli in each; default: as many as there are.", rich_help_panel=_MDS),
    ] = None,
    non_metric: Annotated[
        bool,
        typer.Option(
            "--non-metric", help="MDS of the order of distances alone; stimulus-mds, too.", rich_help_panel=_MDS
        ),
    ] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="What others move towards, such as teacher.", rich_help_panel=_MDS),
    ] = None,
    colour_by: Annotated[
        str | None,
        typer.Option(metavar="DESCRIPTOR", help="mds: of RDMs, what colours stand for.", rich_help_panel=_MDS),
    ] = None,
    shape_by: Annotated[
        str | None,
        typer.Option(metavar="DESCRIPTOR", help="mds: of RDMs, what shapes stand for.", rich_help_panel=_MDS),
    ] = None,
    brain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="agreement: RDMs with the descriptors roi and subject.", rich_help_panel=_OTHERS
        ),
    ] = None,
    inference: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="agreement: fixed, bootstrap_rdm, bootstrap_pattern or dual_bootstrap.",
            rich_help_panel=_OTHERS,
        ),
    ] = "fixed",
    quantity: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="curves: only these, such as test_error.", rich_help_panel=_OTHERS),
    ] = None,
) -> None:
    """Draw one figure of runs, RDMs, patterns or networks, for a paper."""
    with told(context):
        from brainrdl.report.figure import FigureOptions, draw_figure
        from brainrdl.report.figure_inputs import InputOptions

        chosen = FigureOptions(
            inputs=InputOptions(
                select=_selection(select or []),
                ids=ids,
                key=key,
                patterns=patterns,
                dissimilarity=dissimilarity,
                stimulus=stimulus,
                images=images,
                categories=categories,
                category=category,
                allow_code=allow_code,
            ),
            width=cast(Any, width),  # checked there
            scale=scale,
            shared=shared,
            comparison=comparison,
            n_bootstrap=bootstrap,
            n_stimuli=sample,
            metric=not non_metric,
            targets=tuple(target or ()),
            brain=brain,
            rows=rows,
            columns=columns,
            colour_by=colour_by,
            shape_by=shape_by,
            inference=inference,
            quantities=tuple(quantity or ()),
        )
        drawn = draw_figure(kind, inputs, out, chosen)
        for note in drawn.notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(str(drawn.file))


def _selection(given: list[str]) -> dict[str, list[str]]:
    """rdm descriptor -> the values that are wanted."""
    chosen: dict[str, list[str]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--select {text}: expected descriptor=value[,value], such as layer=fc,softmax")
        # The empty name is a network's output.
        chosen.setdefault(name.strip(), []).extend(value.strip() for value in values.split(","))
    return chosen
