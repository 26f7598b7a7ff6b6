"""The page of a run with brains as teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brainrdl.analysis.figures.style import TEACHER_COLOUR, looks
from brainrdl.rdms import stimulus_ids
from brainrdl.report.blocks import Block, Bullets, Heading, Paragraph, Picture
from brainrdl.report.brain import TEACHER, BrainRun, BrainTables
from brainrdl.report.brain_figures import example_rdms
from brainrdl.report.brain_tables import set_up_lines
from brainrdl.report.dots import DotPlot, DotRow, known
from brainrdl.report.page import Explorer, Page, Section
from brainrdl.report.rdm_view import RDMView
from brainrdl.report.run_files import read_thumbnails
from brainrdl.report.set_up import (
    citation,
    data_title,
    environment_facts,
    environment_lines,
    left_out,
    settings_table,
    to_be_known,
)


def brain_page(
    run: BrainRun, tables: BrainTables, results: Sequence[Block], pictures: Sequence[Picture], notes: Sequence[str]
) -> Page:
    """The run as a page: agreement first, then what can be looked into, then how it was made.

    results: of `results_blocks`, under their own headings. notes: what was not scored or drawn.
    """
    first, further = _by_heading(results)
    sections = [Section("Agreement with the brain", [*score_dots(run, tables), *first])]
    sections += to_be_known(run.folder)
    sections.append(Section("RDMs to look into", [Paragraph(_EXPLORER_WORDS), Explorer()]))
    sections += [Section(title, blocks) for title, blocks in further]
    if pictures:
        sections.append(Section("Figures", pictures))
    stimuli, score = run.settings["stimuli"]["spec"], run.settings["score"]
    specs = dict.fromkeys(spec for spec in (stimuli, score.get("spec"), *_teacher_specs(run)) if spec)
    sections += [_set_up(run), *left_out(notes), citation([(spec, "brain") for spec in specs])]
    return Page(
        kind="Networks that learn from brains",
        title=run.name,
        question=_question(run),
        facts=_facts(run),
        sections=sections,
        status=[
            f"{label}, seed {seed}: {n} of {n_all} networks are finished." for label, seed, n, n_all in _missing(run)
        ],
        views=[brain_view(run)],
    )


_EXPLORER_WORDS = (
    "A representational dissimilarity matrix (RDM) says how differently a layer, or a brain region, responds to each "
    "pair of stimuli. Here are those of the first fold's networks, the brains' means and the pixels: choose one, or "
    "click a point. The networks have learned from some of these stimuli; scores are of held-out pairs alone."
)


def _by_heading(blocks: Sequence[Block]) -> tuple[list[Block], list[tuple[str, list[Block]]]]:
    """What stands before the first heading that opens a section, and what stands under each."""
    first: list[Block] = []
    further: list[tuple[str, list[Block]]] = []
    for block in blocks:
        if isinstance(block, Heading) and not block.text.startswith("Layer "):
            further.append((block.text, []))
        elif further:
            further[-1][1].append(block)
        else:
            first.append(block)
    return first, further


def _teacher_specs(run: BrainRun) -> list[str]:
    return [str(teacher.get("spec") or "") for teacher in run.settings["teachers"].values()]


def _missing(run: BrainRun) -> Iterator[tuple[str, int, int, int]]:
    for method, student, seed, n, n_all in run.missing:
        yield run.label(method, student), seed, n, n_all


def _question(run: BrainRun) -> str:
    settings = run.settings
    taught = [name for name, method in settings["methods"].items() if method["teacher"] and not method["control"]]
    controls = [name for name, method in settings["methods"].items() if method["control"]]
    teachers = dict.fromkeys(data_title(spec, "brain") for spec in _teacher_specs(run) if spec)
    scored = data_title(settings["score"].get("spec") or settings["stimuli"]["spec"], "brain")
    against = f"; controls in the brain's place: {', '.join(controls)}" if controls else ""
    return (
        f"Do networks that learn from brains’ RDMs come to represent new stimuli as brains do? Taught by a brain "
        f"({'; '.join(teachers) or 'files of RDMs'}): {', '.join(taught) or 'no method'}{against}. Scored on "
        f"“{scored}”, on stimuli that no network has learned from and people who taught none."
    )


def _facts(run: BrainRun) -> dict[str, str]:
    brain = run.brain.rdm_descriptors
    facts = {
        "Methods": str(len(run.settings["methods"])),
        "Students": ", ".join(run.settings["students"]),
        "Stimuli": f"{run.n_stimuli:,}",
        "Subjects": str(len(set(map(str, brain["subject"])))),
        "Regions": ", ".join(sorted(set(map(str, brain["roi"])))),
        "Networks": str(len(run.networks)),
    }
    return {**facts, **environment_facts(run.folder)}


def score_dots(run: BrainRun, tables: BrainTables) -> Iterator[DotPlot]:
    """Agreement on held-out pairs of all kinds, a plot a region and layer, with the noise ceiling as a band."""
    rows = tables.agreement
    rows = rows[(rows["pairs"] == "held_out") & (rows["kind"] == "all") & rows["score"].notna()]
    methods = {run.label(m, s): m for m in run.settings["methods"] for s in run.settings["students"]}
    colours = {name: look.colour for name, look in looks(run.settings["methods"]).items()}
    layers = run.settings["score"]["layers"]
    for roi in dict.fromkeys(rows["roi"]):
        for layer in layers:
            part = rows[(rows["roi"] == roi) & ((rows["layer"] == layer) | (rows["network"] == TEACHER))]
            if part.empty:
                continue
            dots = []
            for row in part.to_dict("records"):
                name = f"{TEACHER}: {row['layer']}" if row["network"] == TEACHER else row["network"]
                colour = colours.get(methods.get(row["network"], ""), TEACHER_COLOUR)
                low, high = known(row["low"]), known(row["high"])
                text = f"{row['score']:.3f}" + ("" if low is None else f"  [{low:.3f} … {high:.3f}]")
                dots.append(DotRow(name, row["score"], low, high, (), text.replace("-", "−"), colour))
            ceiling = part[["ceiling_low", "ceiling_high"]].round(3).drop_duplicates().dropna()
            # Networks that were scored on other subjects have ceilings of their own, which the list below tells.
            band = (float(ceiling.iloc[0, 0]), float(ceiling.iloc[0, 1])) if len(ceiling) else None
            grey = "; grey: noise ceiling" + (" of the first network" if len(ceiling) > 1 else "") if band else ""
            title = f"{roi}" + (f", layer {layer}" if len(layers) > 1 else "")
            unit = f"{run.settings['score']['comparison']}, held-out pairs; dot: mean over subjects, bar: 95 % interval"
            yield DotPlot(title, unit + grey, dots, reference=0.0, band=band)


def _set_up(run: BrainRun) -> Section:
    settings = run.settings
    blocks: list[Block] = [Bullets(tuple(set_up_lines(run)))]
    parts = ("stimuli", "task", "training", "folds", "choose", "score")
    named = {part: settings[part] for part in parts if settings.get(part)}
    blocks += [Heading("Data and training"), settings_table(named, "part")]
    blocks += [Heading("Students"), settings_table(settings["students"], "student")]
    blocks += [Heading("Teachers"), settings_table(settings["teachers"], "teacher")]
    blocks += [Heading("Methods"), settings_table(settings["methods"], "method")]
    blocks += [Heading("Made with"), Bullets(tuple(environment_lines(run.folder)))]
    return Section("Set-up", blocks)


def brain_view(run: BrainRun) -> RDMView:
    """The RDMs of the first fold's networks, the mean brains and the pixels."""
    rdms = example_rdms(run)
    pictures = read_thumbnails(run.folder, stimulus_ids(rdms))
    methods = tuple(run.settings["methods"])
    return RDMView(run.name, rdms, methods, (), pictures)
