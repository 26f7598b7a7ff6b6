"""What a brain data spec (a YAML with `kind: brain`) says: files, subjects, regions, and how RDMs are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from brainrdl.data.fetch import PublicFile
from brainrdl.data.inside import InsidePath, NameInPath, placeholders
from brainrdl.data.spec import Source, data_root, read_spec, spec_names
from brainrdl.data.stimulus_set import StimulusFiles
from brainrdl.settings import validate

Measure = Literal["euclidean", "correlation", "mahalanobis", "crossnobis"]


def _checked_pattern(text: str) -> str:
    try:
        unknown = placeholders(text) - {"subject", "session", "run", "hemi"}
    except ValueError as error:
        raise ValueError(f"expected a path with {{subject}}, {{session}}, {{run}} or {{hemi}} in it; {error}") from None
    if unknown:
        raise ValueError(f"{{{sorted(unknown)[0]}}} is none of {{subject}}, {{session}}, {{run}}, {{hemi}}")
    return text


Pattern = Annotated[InsidePath, AfterValidator(_checked_pattern)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_different(**lists: tuple[str, ...] | None) -> None:
    for name, values in lists.items():
        twice = next((one for one in values or () if (values or ()).count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"{name}: '{twice}' stands twice; name each once")


def _check_runs(
    images: str, beside: str | None, sessions: tuple[str, ...] | None, runs: tuple[str, ...] | None
) -> None:
    """Every image has one file beside it, and what is listed is told apart by the images' names."""
    if beside is not None and placeholders(beside) - {"hemi"} != placeholders(images) - {"hemi"}:
        raise ValueError(f"'{beside}' and images '{images}' need the same of {{subject}}, {{session}}, {{run}}")
    _check_different(sessions=sessions, runs=runs)
    for name, given in (("session", sessions), ("run", runs)):
        if given is not None and name not in placeholders(images):
            raise ValueError(f"{name}s are listed, but images '{images}' has no {{{name}}}")


class RdmFile(_Settings):
    """A file of RDMs that somebody else made.

    file: relative to the data set's folder; .h5, .npy, .npz, .csv, .tsv or .mat. key: which array of it. measure: the
    dissimilarity; left out: as the file says. descriptors: of its RDMs (subject, roi, session, …), one text for all or
    one an RDM, in the file's order; they replace the file's own.
    """

    file: InsidePath
    key: str | None = None
    measure: str | None = None
    descriptors: dict[str, str | tuple[str, ...]] = {}


class RdmFiles(_Settings):
    """RDMs as they were published. Their rows are the spec's stimuli: matched by id where the file names them (HDF5,
    tables with ids), else in the order of the stimulus table.

    format: "rdms". files: one or several.
    """

    format: Literal["rdms"]
    files: tuple[RdmFile, ...] = Field(min_length=1)


class Bold(_Settings):
    """Time series of one image a run, with events in BIDS form.

    format: "bold". images, events, confounds: paths with {subject}, {session}, {run} and, of surfaces, {hemi}.
    sessions, runs: their values; left out: those found on disk. t_r: seconds from scan to scan; left out: as the images
    say. model: condition (one response a condition and run), or one a trial: lsa (all trials in one model) or lss (a
    model a trial, the others in one regressor). condition: the events' column that names the stimulus. ignore: its
    values that are no stimulus (rest) and are left out of the model. file_ids: the id is the name of a stim_file
    without folder and ending. confounds_columns: which of the confounds' file; left out: all. hrf, drift, high_pass
    (Hz), noise_model: nilearn's. scale: percent: of each voxel's mean over the run.
    """

    format: Literal["bold"]
    images: Pattern
    events: Pattern
    confounds: Pattern | None = None
    confounds_columns: tuple[str, ...] | None = None
    sessions: tuple[NameInPath, ...] | None = None
    runs: tuple[NameInPath, ...] | None = None
    t_r: float | None = Field(None, gt=0, allow_inf_nan=False)
    model: Literal["condition", "lsa", "lss"] = "condition"
    condition: str = "trial_type"
    ignore: tuple[str, ...] = ()
    file_ids: bool = False
    hrf: Literal["glover", "spm", "spm + derivative", "glover + derivative"] = "glover"
    drift: Literal["cosine", "polynomial", "none"] = "cosine"
    high_pass: float = Field(0.01, gt=0, allow_inf_nan=False)
    noise_model: Literal["ols", "ar1"] = "ar1"
    scale: Literal["percent", "none"] = "percent"

    @model_validator(mode="after")
    def _one_file_a_run(self) -> Bold:
        _check_runs(self.images, self.events, self.sessions, self.runs)
        _check_runs(self.images, self.confounds, self.sessions, self.runs)
        return self


class Betas(_Settings):
    """Single-trial responses that are there already: images whose volumes are trials, tables with a row a volume.

    format: "betas". images, trials: paths with {subject}, {session}, {run} and, of surfaces' images, {hemi}, otherwise
    the same in both. sessions, runs: their values; left out: those found on disk.
    stimulus: the table's column with the stimulus id; its columns `run` and `session`, where it has them, go before
    what stands in the file's name.
    """

    format: Literal["betas"]
    images: Pattern
    trials: Pattern
    sessions: tuple[NameInPath, ...] | None = None
    runs: tuple[NameInPath, ...] | None = None
    stimulus: str = "stimulus"

    @model_validator(mode="after")
    def _one_table_an_image(self) -> Betas:
        _check_runs(self.images, self.trials, self.sessions, self.runs)
        return self


class LayoutSettings(_Settings):
    """A data set in its publisher's own layout.

    format: which layout. betas: which version of the responses, as it stands in the files' names (nsd, bold5000,
    glmsingle); left out: the one its publisher recommends. space: nsd's preparation. shared_only: nsd's images that
    were meant for all subjects. sessions: only these; left out: all there are. min_repetitions: only stimuli measured
    at least that often. outputs: the folder GLMsingle wrote. trials: a table with a row a trial in the order of
    GLMsingle's design, its columns stimulus and, where there are several, run and session.
    """

    format: Literal["nsd", "things_fmri", "bold5000", "algonauts2023", "glmsingle"]
    betas: NameInPath | None = None
    space: Literal["func1pt8mm", "func1mm", "fsaverage"] = "func1pt8mm"
    shared_only: bool = False
    sessions: tuple[NameInPath, ...] | None = None
    min_repetitions: PositiveInt = 1
    outputs: Pattern | None = None
    trials: Pattern | None = None

    @model_validator(mode="after")
    def _fits_the_format(self) -> LayoutSettings:
        known = _LAYOUT_KEYS[self.format] | {"format"}
        for key in sorted(self.model_fields_set - known):
            raise ValueError(f"{key}: format '{self.format}' has no such setting; leave it out")
        for key in ("outputs", "trials"):
            if key in known and getattr(self, key) is None:
                raise ValueError(f"{key}: missing; format '{self.format}' needs it")
        return self


_LAYOUT_KEYS = {
    "nsd": {"betas", "space", "shared_only", "sessions", "min_repetitions"},
    "things_fmri": {"sessions", "min_repetitions"},
    "bold5000": {"betas", "sessions", "min_repetitions"},
    "algonauts2023": set[str](),
    "glmsingle": {"betas", "sessions", "min_repetitions", "outputs", "trials"},
}


_FORMATS = ("rdms", "bold", "betas", *_LAYOUT_KEYS)


class Roi(_Settings):
    """A region: voxels where `mask` is not 0, or where `atlas` has one of `labels`.

    mask, atlas: a file, its path relative to the data set's folder, with {subject} and {hemi}; one of the two. labels:
    numbers, or names where the file tells them (GIFTI, FreeSurfer's .annot). resample: `nearest` brings a volume in
    another space to that of the images; without it another space is refused.
    """

    mask: Pattern | None = None
    atlas: Pattern | None = None
    labels: tuple[int | str, ...] = ()
    resample: Literal["nearest"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Roi:
        if (self.mask is None) == (self.atlas is None) or (self.atlas is None) != (not self.labels):
            raise ValueError("expected either a mask, or an atlas with labels")
        return self


class VoxelSelection(_Settings):
    """Voxels whose responses repeat. min_reliability: split-half correlation over the stimuli named in `stimuli`.

    stimuli: a text file of ids (a line each, relative to the data set's folder), or `all`: also those that are
    analysed afterwards, which is told with the result.
    """

    min_reliability: float = Field(ge=-1, le=1)
    stimuli: InsidePath


class BrainSpec(_Settings):
    """What a brain data spec says.

    kind: "brain". name: as it is called in messages and by `brainrdl fetch`. title: one line for people.
    folder: where the data lie, relative to the data root; in a file of one's own, relative to that file. stimuli:
    their table and images. data: the files, by format. subjects: as they stand in paths. hemispheres: the values of
    {hemi}, in the order in which their vertices are joined. rois: by name. measure: dissimilarity of the RDMs. folds:
    what counts as an independent measurement. noise: what the noise precision is estimated from; repetitions: for
    crossnobis those of other stimuli than are compared. shrinkage: rsatoolbox's names. zscore: each voxel over the
    trials of a session or run, which changes units. voxels: which are kept; left out: all. files: what
    `fetch` brings; instructions: what it prints, such as what to do where terms must be accepted first.
    tested: on what the reader was tried. images_from: public collections that the images were taken from (ImageNet,
    COCO, …): networks trained on those have seen them. source: where the data set comes from.
    """

    kind: Literal["brain"]
    name: str = Field(pattern=r"^[\w.-]+$")
    title: str = ""
    folder: str = "."
    stimuli: StimulusFiles | None = None
    data: Annotated[RdmFiles | Bold | Betas | LayoutSettings, Field(discriminator="format")]
    subjects: tuple[NameInPath, ...] = ()
    hemispheres: tuple[NameInPath, ...] = Field(("L", "R"), min_length=1)
    rois: dict[str, Roi] = {}
    measure: Measure = "crossnobis"
    folds: Literal["run", "session"] = "run"
    noise: Literal["none", "residuals", "repetitions"] = "none"
    shrinkage: Literal["shrinkage_eye", "shrinkage_diag", "diag", "full"] = "shrinkage_diag"
    zscore: Literal["none", "session", "run"] = "none"
    voxels: VoxelSelection | None = None
    files: tuple[PublicFile, ...] = ()
    instructions: str = ""
    tested: str = ""
    images_from: tuple[str, ...] = ()
    source: Source = Source()

    @field_validator("data", mode="before")
    @classmethod
    def _has_a_format(cls, given: object) -> object:
        """Told in words: the discriminator's own message is about tags."""
        if isinstance(given, dict) and given.get("format") not in _FORMATS:
            raise ValueError(f"expected format: one of {', '.join(_FORMATS)}, and not {given.get('format')!r}")
        return given

    @model_validator(mode="after")
    def _belongs_together(self) -> BrainSpec:
        _check_different(subjects=self.subjects, hemispheres=self.hemispheres)
        if self.data.format == "rdms":
            for setting in ("subjects", "rois", "measure", "folds", "noise", "shrinkage", "zscore", "voxels"):
                if setting in self.model_fields_set:
                    raise ValueError(f"{setting}: RDMs that are made already have no such setting; leave it out")
            if self.stimuli is None:
                raise ValueError("stimuli: missing; RDMs need the list of their stimuli")
            return self
        for needed in ("subjects", "rois"):
            if not getattr(self, needed):
                raise ValueError(f"{needed}: missing; format '{self.data.format}' needs at least one")
        images = getattr(self.data, "images", "{subject}")
        if len(self.subjects) > 1 and "subject" not in placeholders(images):
            raise ValueError(f"data.images '{images}' has no {{subject}}, but there are {len(self.subjects)} subjects")
        if self.noise == "residuals" and not isinstance(self.data, Bold):
            raise ValueError(f"noise: format '{self.data.format}' has no residuals; expected 'repetitions' or 'none'")
        if self.noise == "residuals" and isinstance(self.data, Bold) and self.data.model == "lss":
            raise ValueError("noise: lss has a model a trial, so no residuals of one model; expected 'repetitions'")
        if self.noise == "residuals" and self.zscore != "none":
            raise ValueError("zscore: residuals are not z-scored with the responses; expected noise: repetitions")
        if self.measure == "mahalanobis" and self.noise == "none":
            raise ValueError("noise: mahalanobis needs a noise precision; expected 'residuals' or 'repetitions'")
        if self.measure in ("euclidean", "correlation") and self.noise != "none":
            raise ValueError(f"noise: {self.measure} uses no noise precision; expected 'none', or another measure")
        return self


def load_brain_spec(name_or_path: str | Path) -> BrainSpec:
    """The brain data spec of a built-in's name or of a YAML file. Raises ValueError naming file and field."""
    file = read_spec(name_or_path, "brain")
    if (kind := file.raw.get("kind")) != "brain":
        raise ValueError(f"{name_or_path}: expected a brain data spec with the line 'kind: brain', got kind: {kind}")
    spec = validate(BrainSpec, file.raw, file.what)
    return spec.model_copy(update={"folder": file.below(spec.folder)})


def brain_spec_names() -> tuple[str, ...]:
    """The built-in brain data specs."""
    return spec_names("brain")


def spec_folder(spec: BrainSpec, root: Path | None = None) -> Path:
    """The data set's folder below the data root (left out: `data_root()`). Raises ValueError where it is not there."""
    folder = (root or data_root()) / spec.folder
    if not folder.is_dir():
        own = Path(spec.folder).is_absolute()  # of a file of one's own
        remedy = "correct 'folder' in the spec" if own else f"see `brainrdl fetch {spec.name}`, or set BRAINRDL_DATA"
        raise ValueError(f"{spec.name}: no folder {folder}; {remedy}")
    return folder


def brain_schema() -> dict[str, Any]:
    """The JSON schema of a brain data spec."""
    return BrainSpec.model_json_schema()
