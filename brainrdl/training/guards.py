"""What would make a training's result mean something else than it seems to: refused where certain, else told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from brainrdl.discrepancy import MIN_MEASURED
from brainrdl.models.checks import check_range
from brainrdl.notes import warn_result
from brainrdl.objectives.base import Objective, Stage
from brainrdl.objectives.rdl import RDLObjective
from brainrdl.pairs import all_pairs
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.rdms import explain_missing
from brainrdl.sources.base import TeacherRDMSource, sources_in
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli, StoredStimuli, read_stimuli

if TYPE_CHECKING:
    from brainrdl.training.stage import StageModule

# A term takes no part in practice where what it adds to the loss is under a millionth of another, and its gradient
# under a ten-thousandth of the others': an error of squares near its minimum is small beside a gradient that is not.
_SMALL_LOSS, _SMALL_GRADIENT = 1e-6, 1e-4
# A term is judged where its alpha is near its highest, and while it has not been learned away.
_NEAR_HIGHEST, _LEARNED = 0.5, 0.1
_MOST_STIMULI, _MOST_BATCHES, _FEW = 64, 10, 8


class _Stream(Protocol):
    def batches(self, draw: Draw) -> Iterator[Stimuli]:
        """Those of the epoch that the draw says."""
        ...


# -- before the first stage --------------------------------------------------------------------------------------------


def check_data(
    stages: Sequence[Stage],
    task: Stimuli | Dataset[Any] | None,
    stimuli: Stimuli | Dataset[Any] | None,
    validation: Stimuli | StoredStimuli | None,
    keep: str,
) -> None:
    """What the data of a training tell before anything is learned from them; arguments as of `Trainer.fit`.

    Raises ValueError where weights are chosen by images that are trained on. Warns where such images are measured, of
    stimuli that a teacher has under an id written otherwise, and of labels counted from 1.
    """
    objectives = [objective for stage in stages for objective in stage.objectives]
    for name, data, what in (("task", task, "training images"), ("stimuli", stimuli, "stimuli")):
        ids = getattr(data, "ids", None)
        if ids is not None:
            # As text, which is what images are called by.
            reading = [objective for objective in objectives if objective.stream == name]
            _check_ids(reading, [str(one) for one in ids], what)
    if task is not None:
        labels = getattr(task, "labels", None)
        if isinstance(labels, Tensor):  # those of any other data set may be of any kind
            _check_labels(labels)
        if validation is not None:
            _check_validation_apart(task, validation, keep)


def _check_validation_apart(task: Stimuli | Dataset[Any], validation: Stimuli | StoredStimuli, keep: str) -> None:
    if not isinstance(task, Stimuli) and not (
        hasattr(task, "ids") and hasattr(task, "subset") and hasattr(task, "read")  # as stored stimuli have
    ):
        return
    both = sorted(set(task.ids) & set(validation.ids))
    # Ids may be numbers that were given out twice: what says that images are the same is the images.
    if not both or not any(_same_image(task, validation, one) for one in both[:_FEW]):
        return
    told = f"validation images: {len(both)} of {len(validation.ids)} are training images too (such as '{both[0]}')"
    if keep == "best":
        raise ValueError(f"{told}, so keep='best' would choose what is learned by heart; give other images")
    warn_result(f"{told}, so validation_error is no error on new images; give other images")


def _same_image(one: Any, other: Any, stimulus: str) -> bool:
    a, b = (read_stimuli(data.subset(torch.tensor([data.ids.index(stimulus)]))).images.cpu() for data in (one, other))
    return torch.equal(a, b)


def _check_ids(objectives: Iterable[Objective], ids: Sequence[str], what: str) -> None:
    """Warn of stimuli that a teacher seems to have under ids that are written otherwise; nothing is matched so.

    ids: of the images. what: those are called in the message.
    """
    shown = set(ids)
    teachers = {id(teacher): teacher for o in objectives if (teacher := getattr(o, "teacher", None)) is not None}
    for teacher in teachers.values():
        for source in sources_in(teacher):
            known = set(getattr(source, "ids", ()))
            missing = [one for one in ids if one not in known] if known else []
            if missing and (hint := explain_missing(missing, known - shown)):
                warn_result(
                    f"{what}: {len(missing)} of {len(ids)} have no dissimilarities in the teacher, and take no part. "
                    f"{hint}"
                )


def _check_labels(labels: Tensor) -> None:
    """Warn of labels that seem to be counted from 1: whether a network has an output too many is not seen else."""
    if not labels.numel():
        return
    found = torch.unique(labels).tolist()
    if found[0] == 1 and len(found) > 1 and found == list(range(1, len(found) + 1)):
        warn_result(
            f"training images: labels are 1 to {found[-1]}, and none is 0; classes are counted from 0: subtract 1, or "
            "the network has an output that is never right"
        )


# -- at the start of a stage -------------------------------------------------------------------------------------------


def network_teachers(stage: Stage) -> list[NetworkTeacher]:
    """Every network that the stage's objectives ask, those within other sources too, each once."""
    teachers = [getattr(objective, "teacher", None) for objective in stage.objectives]
    found = [source for teacher in teachers for source in sources_in(teacher) if isinstance(source, NetworkTeacher)]
    return list({id(source): source for source in found}.values())


def check_apart(student: nn.Module, stage: Stage) -> None:
    """Raise ValueError where a teacher shares weights with the student."""
    own = _memory_of(student)
    for teacher in network_teachers(stage):
        if own & _memory_of(teacher.network):
            raise ValueError("student and teacher share weights, so the teacher would change; give the teacher a copy")


def _memory_of(network: nn.Module) -> set[int]:
    """Where its weights and running statistics lie; a view of a weight lies where the weight does."""
    tensors = (*network.parameters(), *network.buffers())
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()} - {0}


def check_start(
    module: StageModule,
    stage: Stage,
    batches: tuple[Stimuli | None, Stimuli | None],
    draw: Draw,
    streams: Sequence[_Stream | None],
) -> None:
    """What the first batches of a stage tell of its images, its teachers and their targets.

    batches: of the task and of the stimuli; streams: where they are from, to look at more of the epoch that `draw` says
    where one batch is not enough. Raises ValueError for teachers whose patterns are not finite, warns of all else.
    """
    for batch in batches:
        if batch is not None:
            check_range(batch.images, module.preprocess)
    first = batches[0] if batches[0] is not None else batches[1]
    assert first is not None
    for teacher in network_teachers(stage):
        teacher.check(first)
    for name, batch, stream in zip(("task", "stimuli"), batches, streams, strict=True):
        if batch is not None and stream is not None:
            reading = [objective for objective in stage.objectives if objective.stream == name]
            _check_targets(reading, batch, stream.batches(draw))
    check_alphas(stage, module)


def check_student_patterns(objective: Objective, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
    """Warn of student layers whose dissimilarities are pulled, but which give one pattern for all stimuli.

    patterns: what the layers give for `stimuli`, before the first step.
    """
    images = stimuli.images
    if not isinstance(objective, RDLObjective) or len(images) < 2 or bool((images == images[:1]).all()):
        return
    for layer in objective.layers:
        pattern = patterns[layer]
        if len(pattern) == len(images) and bool((pattern == pattern[:1]).all()):
            warn_result(
                f"the student's layer '{layer or 'output'}' gives one pattern for all {len(images)} stimuli of the "
                "first batch, so its dissimilarities are 0 and have no gradient: dead units, or initial weights of 0?"
            )


def _check_targets(objectives: Iterable[Objective], batch: Stimuli, stream: Iterator[Stimuli]) -> None:
    """Warn of names whose dissimilarities do not vary in any of the first batches."""
    few = _few(batch)
    for objective in objectives:
        teacher = getattr(objective, "teacher", None)
        if not isinstance(teacher, TeacherRDMSource):
            continue
        names = {name: layer for layer, mapped in _mapping(objective).items() for name in mapped}
        constant = _constant(teacher, names, few)
        if constant:
            # A small batch of few categories may be alike by chance.
            for other in islice(stream, 1, _MOST_BATCHES):
                constant &= _constant(teacher, constant, _few(other))
                if not constant:
                    break
        for name in sorted(constant):
            warn_result(
                f"the teacher's '{name or 'output'}' finds all pairs of stimuli equally dissimilar, so there is "
                f"nothing to learn from it, and pulling layer '{names[name] or 'output'}' towards it takes away "
                "what it tells apart: dead units, or the same image for every stimulus?"
            )


def _mapping(objective: Objective) -> dict[str, list[str]]:
    """Student layer -> the teacher's names it is compared with."""
    mapping = getattr(objective, "mapping", {})
    return {layer: [names] if isinstance(names, str) else list(names) for layer, names in mapping.items()}


def _few(batch: Stimuli) -> Stimuli:
    """A small batch as it is: a teacher has looked at it already."""
    return batch if len(batch.ids) <= _MOST_STIMULI else batch.subset(torch.arange(_MOST_STIMULI))


def _constant(teacher: TeacherRDMSource, names: Iterable[str], stimuli: Stimuli) -> set[str]:
    """Those of the names that give equal values, or none where all should have one, for enough pairs of the stimuli."""
    targets = teacher.targets(stimuli, all_pairs(len(stimuli.ids)))
    found = set()
    for name in names:
        values = targets[name].values
        measured = values[~values.isnan()]
        if len(measured) >= MIN_MEASURED:
            low, high = torch.aminmax(measured)
            if float(high - low) <= 1e-6 * float(measured.abs().max()):
                found.add(name)
        elif not len(measured) and isinstance(teacher, NetworkTeacher) and len(values) >= MIN_MEASURED:
            found.add(name)  # constant patterns have no correlation
    return found


def check_gradients(module: StageModule, terms: Mapping[str, Tensor], found: Sequence[tuple[int, str]]) -> None:
    """Raise ValueError, by term and layer, for an objective's term without a gradient.

    found: (objective, layer) of the patterns without gradient. Warns of a term whose gradient reaches its objective's
    own parameters alone, where the student has some that are trained.
    """
    student_learns = any(parameter.requires_grad for parameter in module.student.parameters())
    why = "since nothing that is trained comes before it; unfreeze a layer before it or map a later one, and look for "
    why += "detach() and torch.no_grad() in its forward"
    for k, layer in found:
        named = layer or "output"
        # None: an objective may look at a layer for another reason than a term.
        of_layer = [name for name, of in module.objective_of.items() if of == k and f"/{named}/" in f"{name}/"]
        objective = module._objectives[k]
        own = objective.parameters() if isinstance(objective, nn.Module) else ()
        if of_layer and not any(parameter.requires_grad for parameter in own):
            raise ValueError(
                f"term '{of_layer[0]}' cannot change the student: no gradient goes through its layer '{named}', {why}"
            )
        if of_layer and student_learns:
            warn_result(
                f"term '{of_layer[0]}' trains parameters of its own alone: no gradient goes through the student's "
                f"layer '{named}', {why}"
            )
    for name in module.objective_of:
        if not terms[name].requires_grad:
            raise ValueError(
                f"term '{name}' has no gradient, so it cannot change the student: its objective makes it of numbers or "
                "detached patterns; make it of the patterns themselves, by torch"
            )


def check_alphas(stage: Stage, module: StageModule) -> None:
    """Warn of an objective whose alpha is 0 in every epoch of the stage."""
    for k, alpha in enumerate(stage.alphas):
        name = next((name for name, of in module.objective_of.items() if of == k), "")
        if name and not any(alpha(epoch, stage.epochs) for epoch in range(stage.epochs)):
            warn_result(
                f"stage '{stage.name}': alpha of '{name}' is 0 in all {stage.epochs} epochs, so its term is measured "
                "and changes nothing: the network is trained as without it"
            )


# -- at the end of an epoch --------------------------------------------------------------------------------------------


def check_sizes(
    module: StageModule,
    stage: Stage,
    epoch: int,
    rows: Sequence[Mapping[str, Any]],
    batches: tuple[Stimuli | None, Stimuli | None],
) -> None:
    """Warn, once a stage, of a term that took no part in an epoch beside another.

    epoch: of the stage, from 0. rows: the history of the stage's epochs so far, this one last. batches: to compare
    gradients on, where the losses differ so much. Every process must call it.
    """
    small = _small_terms(module, stage, epoch, rows)
    for earlier in range(epoch if small else 0):
        small -= _small_terms(module, stage, earlier, rows[: earlier + 1])
    if not small:
        return
    with torch_seeded(0):
        gradients = _gradients(module, stage, epoch, batches, small)
    parts = _contributions(module, stage, epoch, rows[-1])
    largest = max(parts, key=lambda name: parts[name])
    for name in sorted(small & gradients.keys()):
        own, others = gradients[name]
        if own < _SMALL_GRADIENT * others:
            warn_result(
                f"term '{name}' takes no part: with its weight it is {parts[name]:.2g} in epoch {rows[-1]['epoch']} "
                f"(stage '{stage.name}'), while '{largest}' is {parts[largest]:.2g}, and its gradient is "
                f"{own / others:.1g} of the others'; "
                + ("lower alpha" if name == "task" else "raise its alpha or weight, or leave it out")
            )


def _contributions(module: StageModule, stage: Stage, epoch: int, row: Mapping[str, Any]) -> dict[str, float]:
    """Term -> what it adds to the loss in an epoch; those that are 0 or were not measured are left out."""
    alphas = [alpha(epoch, stage.epochs) for alpha in stage.alphas]
    weights = {"task": stage.task_weight} | {name: alphas[k] for name, k in module.objective_of.items()}
    added = {name: weight * abs(row[name]) for name, weight in weights.items() if name in row}
    return {name: value for name, value in added.items() if value > 0}  # NaN is not


def _small_terms(module: StageModule, stage: Stage, epoch: int, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Terms that are small beside the largest, and are so neither by their schedule nor because they were learned."""
    parts = _contributions(module, stage, epoch, rows[-1])
    found = set()
    for name, value in parts.items():
        if value >= _SMALL_LOSS * max(parts.values()) or abs(rows[-1][name]) < _LEARNED * abs(rows[0][name]):
            continue
        if name in module.objective_of:
            alpha = stage.alphas[module.objective_of[name]]
            highest = max(alpha(one, stage.epochs) for one in range(stage.epochs))
            if alpha(epoch, stage.epochs) < _NEAR_HIGHEST * highest:
                continue
        found.add(name)
    return found


def _gradients(
    module: StageModule,
    stage: Stage,
    epoch: int,
    batches: tuple[Stimuli | None, Stimuli | None],
    names: Iterable[str],
) -> dict[str, tuple[float, float]]:
    """Term -> norm of its gradient in the student, and of the others' together there; on one batch, in eval mode."""
    alphas = [alpha(epoch, stage.epochs) for alpha in stage.alphas]
    learned = [parameter for parameter in module.student.parameters() if parameter.requires_grad]
    if not learned:
        return {}
    modes = {part: part.training for part in module.modules()}
    run, module.run = module.run, module.student.__call__  # of what is compiled only one gradient can be taken
    module.eval()  # running statistics must not move
    try:
        with torch.enable_grad():
            terms = module(*batches, Draw(0))
        weights = {"task": stage.task_weight} | {name: alphas[k] for name, k in module.objective_of.items()}
        weighted = {name: weight * terms[name] for name, weight in weights.items() if name in terms}
        total = torch.stack([term.double() for term in weighted.values()]).sum()
        of_all = torch.autograd.grad(total, learned, retain_graph=True, allow_unused=True)
        found = {}
        for name in weighted.keys() & names:
            own = torch.autograd.grad(weighted[name], learned, retain_graph=True, allow_unused=True)
            both = [
                (g.double(), a.double()) for g, a in zip(own, of_all, strict=True) if g is not None and a is not None
            ]
            if both:
                norms = [sum(float(part.square().sum()) for part in parts) ** 0.5 for parts in zip(*both, strict=True)]
                others = sum(float((a - g).square().sum()) for g, a in both) ** 0.5
                found[name] = norms[0], others
    finally:
        module.run = run
        for part, mode in modes.items():
            part.training = mode
    return found
