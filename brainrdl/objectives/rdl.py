"""Representational distance learning (McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brainrdl.discrepancy import MIN_MEASURED, Measured, check_discrepancy, discrepancy, measured
from brainrdl.dissimilarity import (
    PrecisionFactors,
    Transformed,
    check_dissimilarity,
    defined_dissimilarities,
    transform_patterns,
    undefined_pairs,
)
from brainrdl.layers import as_patterns, delay_gradient, in_memory_order
from brainrdl.notes import warn_result
from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import AlphaSettings, MethodContext
from brainrdl.pairs import Pairs, all_pairs, rows_of_pairs, sample_images, sample_pairs
from brainrdl.randomness import Draw, from_torch
from brainrdl.ranks import Share
from brainrdl.reductions import Reducer, Reduction, check_reductions
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli, Targets, without_waiting


class RDLObjective(nn.Module):
    """Pulls the dissimilarities between the student's patterns towards a teacher's, at sampled pairs (Eq. 2 to 5).

    teacher: any `TeacherRDMSource`. One with an attribute `unbiased` was measured: it says whether its dissimilarities
        are cross-validated, so that their noise has no offset and zero means something.
    layers: student layer (module path) -> the teacher's name for it, or {name: weight}. Each weight, 1 unless
        given, is that layer's own factor within the term; several names pull one layer towards several RDMs.
    pairs: how many distinct pairs of each batch are drawn, uniformly; None = all. Batches smaller than the one
        `prepare` saw draw in proportion.
    images: instead of `pairs`: all pairs among so many stimuli of each batch; a teacher sees only those.
    dissimilarity: the student's measure. "mahalanobis" needs `precision`, per student layer (n_units, n_units).
    discrepancy: "mse" compares units, so it needs the teacher's measure to be the same; "scaled_mse" fits the student's
        scale first; "correlation", "cosine", "corr_cov" and "cosine_cov" compare shapes. None goes by the teacher:
        "mse" for a network, "cosine" for measured dissimilarities that are unbiased, else "correlation".
    normalization: of "mse": "image" (default) is the paper's Eq. 4, which divides each image's gradient by the
        number of its own pairs; "pair" is the plain mean over the pairs (Eq. 2 on the sample). The two have
        the same value and, with all pairs, the same gradient. "image" is no scalar's gradient.
    stream: "task" reads the task's batches. "stimuli" reads those of the stimuli with measured RDMs, each drawn from
        what one of the names covers: a name that does not cover a whole batch takes no part in it.
    reductions: student layer -> `Reduction`: patterns that are pooled, projected or of some units only, so that large
        layers take no memory of their own. A "mahalanobis" precision is then of the reduced units. Pooled patterns have
        dissimilarities of their own, which "mse" does not compare with a teacher's.
    across_ranks: where several processes share a batch, pairs are drawn within each one's share; True: among all
        stimuli of the whole batch, whose patterns each process is given, with gradients to those who gave them. The
        terms are then those of the whole batch, the same in every process. For a `NetworkTeacher`, which looks at its
        own share of the images in each process, and measured teachers. Alone it changes nothing.

    A call returns {"rdl/<layer>": term} ("rdl/<layer>/<name>" where a layer has several). Pairs the teacher has
    not measured (NaN), and pairs with a pattern that has no such dissimilarity, take no part. There are no
    parameters, and in one's own loop no `prepare` is needed.

    n_measured: of a measured teacher, term -> how many of the last call's pairs it has measured, a tensor on their
    device; empty for others. 0 leaves a term without gradient, 1 or 2 say nothing of an RDM (`Trainer` refuses them).

    Raises ValueError for names, measures and combinations that do not exist. Warns where "scaled_mse" would fit its
    scale to a teacher's noise.
    """

    def __init__(
        self,
        teacher: TeacherRDMSource,
        layers: Mapping[str, str | Mapping[str, float]],
        *,
        pairs: int | None = None,
        images: int | None = None,
        dissimilarity: str = "euclidean",
        precision: Mapping[str, Tensor] | None = None,
        discrepancy: str | None = None,
        normalization: str | None = None,
        stream: str = "task",
        reductions: Mapping[str, Reduction] | None = None,
        across_ranks: bool = False,
    ) -> None:
        super().__init__()
        check_dissimilarity(dissimilarity, precision)
        unbiased: bool | None = getattr(teacher, "unbiased", None)
        self.is_measured = unbiased is not None
        if discrepancy is None:
            discrepancy = {None: "mse", True: "cosine", False: "correlation"}[unbiased]
        self.normalization = check_discrepancy(discrepancy, normalization)
        if discrepancy == "mse" and teacher.dissimilarity != dissimilarity:
            raise ValueError(
                f"discrepancy 'mse' compares units: the student's are '{dissimilarity}', the teacher's "
                f"'{teacher.dissimilarity}'; use the same, or a discrepancy without units such as 'correlation'"
            )
        if discrepancy == "scaled_mse" and unbiased is False:
            warn_result(
                f"discrepancy 'scaled_mse' fits a scale to the teacher's '{teacher.dissimilarity}', which is not "
                "cross-validated: noise adds an offset to it that is fitted too; 'correlation' takes no notice of it",
                stacklevel=2,
            )
        reductions = check_reductions(reductions or {}, layers)
        _check_pooled(discrepancy, reductions)
        _check_sampling(pairs, images, self.is_measured)
        if stream not in ("task", "stimuli"):
            raise ValueError(f"unknown stream '{stream}'; expected 'task' or 'stimuli'")
        if not layers:
            raise ValueError("no layers: map at least one student layer to one of the teacher's names")
        if across_ranks and not self.is_measured and not isinstance(teacher, NetworkTeacher):
            raise ValueError(
                f"across_ranks: a {type(teacher).__name__} is asked about images, of which each process has its share; "
                "give a NetworkTeacher or a measured teacher, or leave across_ranks out"
            )
        self.teacher, self.across_ranks = teacher, across_ranks
        self.mapping = {layer: _weights(layer, names, teacher) for layer, names in layers.items()}
        self.layers = tuple(self.mapping)
        self.reductions = {layer: Reducer(layer, reduction, dissimilarity) for layer, reduction in reductions.items()}
        self.pairs, self.images = pairs, images
        self.dissimilarity, self.discrepancy, self.stream = dissimilarity, discrepancy, stream
        if precision is not None and set(self.layers) - set(precision):
            raise ValueError(f"no precision for student layer '{sorted(set(self.layers) - set(precision))[0]}'")
        self._factors = PrecisionFactors({} if precision is None else {layer: precision[layer] for layer in layers})
        self._batch_size: int | None = None
        self.n_measured: dict[str, Tensor] = {}

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """Per name of the teacher that a layer is mapped to: (n_stimuli,) bool, which of the stimuli it covers."""
        covered = self.teacher.covers(ids)
        return {name: covered[name] for name in self._names()}

    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for names in self.mapping.values() for name in names))

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Take the size of a full batch, to which `pairs` refers, and check that the layers can be compared."""
        for layer in self.layers:
            self._patterns(layer, patterns, len(stimuli.ids))
        share = self._share(stimuli)
        self._batch_size = len(stimuli.ids) if share is None else share.n_stimuli

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """The terms of this batch, each with its weight; their sum is the auxiliary error."""
        share = self._share(stimuli)
        n_own = n_stimuli = len(stimuli.ids)
        if share is not None:
            if draw is None:
                raise ValueError("across_ranks: all processes must draw the same pairs; give a Draw")
            n_stimuli, draw = share.n_stimuli, draw._replace(rank=0)
        pairs = self.draw_pairs(n_stimuli, draw)
        targets = self._targets(stimuli, pairs, share)
        rows = None
        # The other images need not be looked at, nor sent from process to process.
        if share is not None or (self.images is not None and 2 * self.images <= n_stimuli):
            rows, pairs = rows_of_pairs(pairs)
            n_stimuli = len(rows)
        pairs = pairs.to(stimuli.images.device)
        transformed: dict[str, Transformed] = {}
        for layer in self.mapping:
            flat, measure = self._patterns(layer, patterns, n_own)
            if share is not None and rows is not None:
                flat = share.gather(flat, rows)
            elif rows is not None:
                flat = flat.index_select(0, without_waiting(rows, flat.device))
            transformed[layer] = transform_patterns(flat, measure, self._factors.get(layer, flat))
        # All terms at once: their many small operations would take longer to start than to run.
        terms = [(layer, name) for layer, names in self.mapping.items() for name in names]
        of_terms = [targets[name] for _, name in terms]
        undefined = [undefined_pairs(transformed[layer], pairs) for layer, _ in terms]
        target = _stacked(of_terms, undefined)
        scales = image_scale(target, pairs, n_stimuli).unbind() if self.normalization == "image" else None
        predicted: list[Tensor] = []
        for k, (layer, _) in enumerate(terms):
            if scales is None and k and terms[k - 1][0] == layer:
                predicted.append(predicted[-1])
            else:
                scale = None if scales is None else scales[k]
                predicted.append(defined_dissimilarities(transformed[layer], pairs, scale))
        for (layer, _), one in zip(terms, predicted, strict=True):
            delay_gradient(one, patterns[layer])
        values = discrepancy(self.discrepancy, torch.stack(predicted), target, pairs, n_stimuli).unbind()
        if self.is_measured:
            of_teacher = target if all(part is None for part in undefined) else _stacked(of_terms)
            n_measured = (of_teacher.weights > 0).sum(1).unbind()
            self.n_measured = {self._term(*term): n for term, n in zip(terms, n_measured, strict=True)}
        weights = [self.mapping[layer][name] for layer, name in terms]
        return {
            self._term(*term): value if weight == 1 else weight * value
            for term, value, weight in zip(terms, values, weights, strict=True)
        }

    def _term(self, layer: str, name: str) -> str:
        return f"rdl/{layer or 'output'}" + (f"/{name}" if len(self.mapping[layer]) > 1 else "")

    def _patterns(self, layer: str, patterns: Mapping[str, Tensor], n_stimuli: int) -> tuple[Tensor, str]:
        """(n_stimuli, n_units) of a layer, reduced if it is to be, and what they are compared by."""
        recorded, measure = patterns[layer], self.dissimilarity
        reducer = self.reductions.get(layer)
        if reducer is not None:
            reducer.check(recorded)
            measure = reducer.measure
        if measure != "mahalanobis":
            recorded = in_memory_order(recorded)
        return as_patterns(layer, recorded, n_stimuli), measure

    def _share(self, stimuli: Stimuli) -> Share | None:
        """Of a batch whose pairs are drawn among all processes' stimuli, what this process has; else None."""
        share = stimuli.share if self.across_ranks else None
        return share if share is not None and share.world_size > 1 else None

    def _targets(self, stimuli: Stimuli, pairs: Pairs, share: Share | None) -> Mapping[str, Targets]:
        """The teacher's answer, NaN for names that do not cover a batch of the stimulus stream.

        Raises ValueError where the answer is not what the protocol promises.
        """
        names = self._names()
        if share is None:
            answer = dict(self.teacher.targets(stimuli, pairs))
        elif isinstance(self.teacher, NetworkTeacher):
            answer = self.teacher.targets_across_ranks(stimuli, pairs, names)
        else:  # one that answers by id needs no images
            whole = Stimuli(stimuli.images.new_empty(share.n_stimuli, 0, 0, 0), share.ids)
            answer = dict(self.teacher.targets(whole, pairs))
        covered = self.covers(stimuli.ids if share is None else share.ids) if self.stream == "stimuli" else {}
        for name in names:
            target = answer.get(name)
            shapes = [
                tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                for part in (target if isinstance(target, Targets) else (target,))
                if part is not None
            ]
            if not isinstance(target, Targets) or any(shape != (len(pairs.i),) for shape in shapes):
                raise ValueError(
                    f"the teacher's targets for '{name}': expected Targets(values, weights) of {len(pairs.i)} numbers "
                    f"each, got {type(target).__name__} {shapes}"
                )
            if name in covered and not covered[name].all():
                answer[name] = Targets(torch.full_like(target.values, torch.nan))
        return answer

    def draw_pairs(self, n_stimuli: int, draw: Draw | None = None) -> Pairs:
        """The pairs of a batch; none where it has a single stimulus."""
        if n_stimuli < 2:
            return all_pairs(n_stimuli)
        generator = from_torch() if draw is None else draw.generator("pairs")
        if self.images is not None:
            n_images = self.images
            if self._batch_size:
                n_images = max(3 if self.is_measured else 2, round(n_images * min(1.0, n_stimuli / self._batch_size)))
            return sample_images(n_stimuli, n_images, generator)
        n_pairs = self.pairs
        if n_pairs is not None and self._batch_size:
            in_proportion = round(n_pairs * min(1.0, comb(n_stimuli, 2) / comb(self._batch_size, 2)))
            n_pairs = max(MIN_MEASURED if self.is_measured else 1, in_proportion)
        return sample_pairs(n_stimuli, n_pairs, generator)


def image_scale(target: Measured, pairs: Pairs, n_stimuli: int) -> Tensor:
    """(n_rows, n_stimuli): 2|P| / (|X_P| |P_xi|), which makes the mean over the pairs' gradient that of Eq. 4.

    target: (n_rows, n_pairs). P, X_P and P_xi count measured pairs only; an image in none of them gets 0.
    """
    taking_part = (target.weights > 0).to(target.weights.dtype)
    of_image = taking_part.new_zeros(len(taking_part), n_stimuli)  # |P_xi|
    of_image.index_add_(1, pairs.i, taking_part).index_add_(1, pairs.j, taking_part)
    n_images = (of_image > 0).sum(1, keepdim=True)
    scale = 2 * taking_part.sum(1, keepdim=True) / (n_images.clamp(min=1) * of_image.clamp(min=1))
    return scale.masked_fill_(of_image == 0, 0)


def _stacked(targets: Sequence[Targets], undefined: Sequence[Tensor | None] = ()) -> Measured:
    """(n_targets, n_pairs): the targets, without the pairs that are undefined for each."""
    values = torch.stack([target.values for target in targets])
    weights = excluded = None
    if any(target.weights is not None for target in targets):
        weights = torch.stack(
            [torch.ones_like(target.values) if target.weights is None else target.weights for target in targets]
        )
    if any(part is not None for part in undefined):
        nowhere = torch.zeros_like(values[0], dtype=torch.bool)
        excluded = torch.stack([nowhere if part is None else part for part in undefined])
    return measured(values, weights, excluded)


def _check_sampling(pairs: int | None, images: int | None, is_measured: bool = False) -> None:
    if pairs is not None and images is not None:
        raise ValueError("give either pairs or images: both say how the pairs of a batch are drawn")
    if is_measured and ((pairs is not None and pairs < MIN_MEASURED) or (images is not None and images < 3)):
        raise ValueError(
            f"a measured teacher needs at least {MIN_MEASURED} pairs in a batch: expected pairs >= {MIN_MEASURED} or "
            f"images >= 3, got pairs={pairs}, images={images}"
        )
    if (pairs is not None and pairs < 1) or (images is not None and images < 2):
        raise ValueError(f"expected pairs >= 1 or images >= 2, got pairs={pairs}, images={images}")


def _check_pooled(discrepancy: str, reductions: Mapping[str, Reduction]) -> None:
    pooled = [layer for layer, reduction in reductions.items() if reduction.pool is not None]
    if discrepancy == "mse" and pooled:
        raise ValueError(
            f"discrepancy 'mse' compares units, and those of pooled patterns (layer '{pooled[0]}') are not the whole "
            "layer's; use a discrepancy without units such as 'correlation', or project"
        )


def _weights(layer: str, names: str | Mapping[str, float], teacher: TeacherRDMSource) -> dict[str, float]:
    weights = {names: 1.0} if isinstance(names, str) else dict(names)
    if not weights:
        raise ValueError(f"student layer '{layer}' is mapped to nothing; give it one of the teacher's names")
    for name, weight in weights.items():
        if name not in teacher.names:
            raise ValueError(
                f"student layer '{layer}' is mapped to '{name}', which the teacher does not have; "
                f"it has: {', '.join(teacher.names)}"
            )
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight of layer '{layer}' for '{name}': expected a number >= 0, got {weight}")
    return weights


DiscrepancyName = Literal["mse", "correlation", "cosine", "corr_cov", "cosine_cov", "scaled_mse"]


class RDLSettings(AlphaSettings):
    """The task and, with weight alpha, the teacher's RDMs.

    As `RDLObjective`, which says more. layers: student layer -> the teacher's name for it, or {name: weight}.
    pairs: how many distinct pairs of a batch are drawn; null = all. images: instead of pairs: all pairs among so many
    images of a batch. dissimilarity: the student's measure and, of a network as teacher, the teacher's. discrepancy:
    how RDMs are compared; "mse" compares units and is for a network as teacher; null goes by the teacher.
    normalization: of "mse": "image" (Eq. 4, also for null) or "pair" (the plain mean). reduce: student layer -> how its
    patterns are made smaller, for large layers. across_ranks: with several devices, pairs are drawn among all stimuli
    of a batch; false: within each device's share.
    """

    method: Literal["rdl"] = "rdl"
    layers: dict[str, str | dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(min_length=1)
    pairs: int | None = Field(None, ge=1)
    images: int | None = Field(None, ge=2)
    dissimilarity: Literal["euclidean", "sqeuclidean", "correlation", "cosine"] = "euclidean"
    discrepancy: DiscrepancyName | None = "mse"
    normalization: Literal["image", "pair"] | None = None
    reduce: dict[str, Reduction] = Field(default_factory=dict)
    across_ranks: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> RDLSettings:
        check_reductions(self.reduce, self.layers)
        if self.discrepancy is not None:  # else `RDLObjective` looks, which knows the teacher
            check_discrepancy(self.discrepancy, self.normalization)
            _check_pooled(self.discrepancy, self.reduce)
        _check_sampling(self.pairs, self.images)
        return self

    def student_layers(self) -> tuple[str, ...]:
        """The layers that are pulled."""
        return tuple(self.layers)

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers they are pulled towards."""
        return tuple(name for names in self.layers.values() for name in ([names] if isinstance(names, str) else names))

    def reducers(self) -> list[Reducer]:
        """Of the layers whose patterns are made smaller."""
        return [Reducer(layer, reduction, self.dissimilarity) for layer, reduction in self.reduce.items()]

    def objective(self, teacher: TeacherRDMSource, stream: str = "task") -> RDLObjective:
        """The objective that these settings say."""
        return RDLObjective(
            teacher,
            self.layers,
            pairs=self.pairs,
            images=self.images,
            dissimilarity=self.dissimilarity,
            discrepancy=self.discrepancy,
            normalization=self.normalization,
            stream=stream,
            reductions=self.reduce,
            across_ranks=self.across_ranks,
        )

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage(self.objective(context.teacher(self.dissimilarity)), self.alpha_schedule())]
