"""Representational distance learning (McClure & Kriegeskorte 2016)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import comb
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brainrdl.discrepancy import MIN_MEASURED, Measured, check_discrepancy, discrepancy, measured
from brainrdl.dissimilarity import (
    check_dissimilarity,
    precision_factor,
    squared_distances,
    transform_patterns,
    undefined_pairs,
)
from brainrdl.layers import as_patterns
from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import AlphaSettings, MethodContext
from brainrdl.pairs import Pairs, all_pairs, sample_images, sample_pairs
from brainrdl.randomness import Draw, from_torch
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.stimuli import Stimuli, Targets


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
            warnings.warn(
                f"discrepancy 'scaled_mse' fits a scale to the teacher's '{teacher.dissimilarity}', which is not "
                "cross-validated: noise adds an offset to it that is fitted too; 'correlation' takes no notice of it",
                stacklevel=2,
            )
        _check_sampling(pairs, images, self.is_measured)
        if stream not in ("task", "stimuli"):
            raise ValueError(f"unknown stream '{stream}'; expected 'task' or 'stimuli'")
        if not layers:
            raise ValueError("no layers: map at least one student layer to one of the teacher's names")
        self.teacher = teacher
        self.mapping = {layer: _weights(layer, names, teacher) for layer, names in layers.items()}
        self.layers = tuple(self.mapping)
        self.pairs, self.images = pairs, images
        self.dissimilarity, self.discrepancy, self.stream = dissimilarity, discrepancy, stream
        if precision is not None and set(self.layers) - set(precision):
            raise ValueError(f"no precision for student layer '{sorted(set(self.layers) - set(precision))[0]}'")
        self._factors = {} if precision is None else {layer: precision_factor(precision[layer]) for layer in layers}
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
            as_patterns(layer, patterns[layer], len(stimuli.ids))
        self._batch_size = len(stimuli.ids)

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """The terms of this batch, each with its weight; their sum is the auxiliary error."""
        n_stimuli = len(stimuli.ids)
        pairs = self.draw_pairs(n_stimuli, draw)
        targets = self._targets(stimuli, pairs)
        pairs = pairs.to(stimuli.images.device)
        terms: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for layer, names in self.mapping.items():
            flat = as_patterns(layer, patterns[layer], n_stimuli)
            transformed = transform_patterns(flat, self.dissimilarity, self._factors.get(layer))
            undefined = undefined_pairs(transformed, pairs)
            for name, weight in names.items():
                target = measured(*targets[name], excluded=undefined)
                balanced = transformed
                if self.normalization == "image":
                    scaled = _ScaleGradient.apply(transformed.patterns, image_scale(target, pairs, n_stimuli))
                    balanced = transformed._replace(patterns=scaled)
                predicted = squared_distances(balanced, pairs)
                term = f"rdl/{layer or 'output'}" + (f"/{name}" if len(names) > 1 else "")
                terms[term] = weight * discrepancy(self.discrepancy, predicted, target, pairs, n_stimuli)
                if self.is_measured:
                    counts[term] = (measured(*targets[name]).weights > 0).sum()
        self.n_measured = counts
        return terms

    def _targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """The teacher's answer, NaN for names that do not cover a batch of the stimulus stream.

        Raises ValueError where the answer is not what the protocol promises.
        """
        answer = dict(self.teacher.targets(stimuli, pairs))
        covered = self.covers(stimuli.ids) if self.stream == "stimuli" else {}
        for name in self._names():
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
    """(n_stimuli,): 2|P| / (|X_P| |P_xi|), which makes the mean over the pairs' gradient that of Eq. 4.

    P, X_P and P_xi count measured pairs only; an image in none of them gets 0.
    """
    taking_part = (target.weights > 0).to(target.weights.dtype)
    of_image = taking_part.new_zeros(n_stimuli)  # |P_xi|
    of_image.index_add_(0, pairs.i, taking_part).index_add_(0, pairs.j, taking_part)
    n_images = (of_image > 0).sum()
    scale = 2 * taking_part.sum() / (n_images.clamp(min=1) * of_image.clamp(min=1))
    return torch.where(of_image > 0, scale, 0)


class _ScaleGradient(torch.autograd.Function):
    """The identity; its backward multiplies the rows of the gradient."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return patterns.view_as(patterns)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return gradient * scale[:, None].to(gradient.dtype), None


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
    normalization: of "mse": "image" (Eq. 4, also for null) or "pair" (the plain mean).
    """

    method: Literal["rdl"] = "rdl"
    layers: dict[str, str | dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(min_length=1)
    pairs: int | None = Field(None, ge=1)
    images: int | None = Field(None, ge=2)
    dissimilarity: Literal["euclidean", "sqeuclidean", "correlation", "cosine"] = "euclidean"
    discrepancy: DiscrepancyName | None = "mse"
    normalization: Literal["image", "pair"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RDLSettings:
        if self.discrepancy is not None:  # else `RDLObjective` looks, which knows the teacher
            check_discrepancy(self.discrepancy, self.normalization)
        _check_sampling(self.pairs, self.images)
        return self

    def student_layers(self) -> tuple[str, ...]:
        """The layers that are pulled."""
        return tuple(self.layers)

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers they are pulled towards."""
        return tuple(name for names in self.layers.values() for name in ([names] if isinstance(names, str) else names))

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
        )

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage(self.objective(context.teacher(self.dissimilarity)), self.alpha_schedule())]
