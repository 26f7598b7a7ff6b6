"""A network as teacher."""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from brainrdl.dissimilarity import (
    PrecisionFactors,
    check_dissimilarity,
    defined_dissimilarities,
    transform_patterns,
    undefined_pairs,
)
from brainrdl.layers import as_patterns, check_layers, evaluating, record_layers
from brainrdl.models.checks import FEW, check_range, check_repeatable
from brainrdl.pairs import Pairs, rows_of_pairs
from brainrdl.ranks import gather_rows
from brainrdl.sources.cache import PatternCache
from brainrdl.stimuli import Stimuli, Targets, without_waiting

OUTPUT = ""


class NetworkTeacher:
    """Dissimilarities between a network's patterns at chosen layers, the network left as it is.

    network: any `nn.Module` that takes a batch of images. It is in eval mode, without gradient, for the time
        it is asked, and each module's own mode is back afterwards. It is moved to `device`.
    layers: module paths; they are the source's `names`. "" is the network's output.
    dissimilarity: a name of `brainrdl.dissimilarity`; "mahalanobis" needs `precision`, per layer the
        (n_units, n_units) inverse of a noise covariance.
    preprocess: raw images (0…1) to the network's input; None where the network takes them as they are.
    device: where it computes; None = where the stimuli are. dtype: `torch.bfloat16` or `torch.float16` to
        run it under autocast.
    cache: "memory", or a folder for patterns memory-mapped on disk (in float32), which any number of processes may
        use at a time; where a stimulus always has the same image. None (augmented data) computes every time. Or a
        `PatternCache` that holds this network's patterns.

    It sees only the images that occur in the asked pairs, and sees them once a batch however many objectives
    ask. Raises ValueError for unknown layers and measures, for weights that are not finite, for a cache on disk
    whose preprocessing the next process could not tell from another, and as `record_layers`.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        dissimilarity: str = "euclidean",
        *,
        precision: Mapping[str, Tensor] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        cache: str | Path | PatternCache | None = None,
    ) -> None:
        self.names = tuple(dict.fromkeys(layers))
        if isinstance(layers, str) or not self.names:
            raise ValueError(f"expected a list of at least one teacher layer, got {layers!r}")
        check_layers(network, self.names, "teacher")
        check_finite(network, "teacher")
        check_dissimilarity(dissimilarity, precision)
        self.dissimilarity = dissimilarity
        if precision is not None and set(self.names) - set(precision):
            raise ValueError(f"no precision for teacher layer '{sorted(set(self.names) - set(precision))[0]}'")
        self._factors = PrecisionFactors({} if precision is None else {name: precision[name] for name in self.names})
        self.network = network
        self.preprocess = preprocess
        self.device = None if device is None else torch.device(device)
        self.dtype = dtype
        self._cache_place = cache
        self._cache: PatternCache | None = None
        self._cache_version: _Version = ()
        self._batch = _Batch.nothing()
        on_disk = isinstance(cache, (str, Path)) and cache != "memory"
        if on_disk and _UNTOLD.search(_describe(preprocess)):
            raise ValueError(
                f"a cache on disk must tell one preprocessing from another, and {_describe(preprocess)} does not say "
                "what it does; give an nn.Module or a function of a module"
            )

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """A network can look at any stimulus: all True."""
        return {name: torch.ones(len(ids), dtype=torch.bool) for name in self.names}

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """Dissimilarities of the network's patterns at the pairs; NaN where the measure is not defined."""
        device = stimuli.images.device
        if not len(pairs.i):
            return {name: Targets(torch.zeros(0, device=device)) for name in self.names}
        rows, seen = rows_of_pairs(pairs.to("cpu"))
        seen = seen.to(device)
        shown = self.patterns(stimuli, rows)
        return {name: self._between(name, as_patterns(name, shown[name], len(rows)), seen) for name in self.names}

    def targets_across_ranks(self, stimuli: Stimuli, pairs: Pairs, names: Sequence[str]) -> dict[str, Targets]:
        """As `targets` of these names, at pairs of the whole batch of which `stimuli` is this process's share.

        All processes ask for the same; each looks at its own images among the pairs, and they exchange patterns.
        """
        share, device = stimuli.share, stimuli.images.device
        if share is None or not len(pairs.i):
            return {name: target for name, target in self.targets(stimuli, pairs).items() if name in names}
        rows, seen = rows_of_pairs(pairs.to("cpu"))
        seen = seen.to(device)
        owners = share.owners(rows)
        own = rows[owners == share.rank] // share.world_size
        # Who has none of them looks at one, to know the patterns' shape.
        shown = self.patterns(stimuli, own if len(own) else torch.zeros(1, dtype=torch.int64))
        result = {}
        for name in names:
            flat = as_patterns(name, shown[name], max(1, len(own)))[: len(own)]
            result[name] = self._between(name, gather_rows(flat, owners), seen)
        return result

    def _between(self, name: str, patterns: Tensor, pairs: Pairs) -> Targets:
        transformed = transform_patterns(patterns, self.dissimilarity, self._factors.get(name, patterns))
        # Patterns that are not finite must show in the loss, and not pass for such as were not measured.
        values = defined_dissimilarities(transformed, pairs).nan_to_num(nan=torch.inf, posinf=torch.inf)
        undefined = undefined_pairs(transformed, pairs)
        return Targets(values if undefined is None else values.masked_fill(undefined, torch.nan))

    def patterns(self, stimuli: Stimuli, rows: Tensor | None = None) -> Mapping[str, Tensor]:
        """Per layer, and for the output (""): (n_rows, ...) as the layer gives it, on the stimuli's device.

        rows: int64 rows of `stimuli`; None = all. What this batch was asked before is not computed again.
        """
        rows = torch.arange(len(stimuli.ids)) if rows is None else rows.cpu()
        self._move(self.device or stimuli.images.device)
        batch, version = self._batch, self._version()
        if not batch.is_of(stimuli, version):
            batch = _Batch(weakref.ref(stimuli.images), stimuli.images._version, version, rows[:0], {})
        unknown = rows[~torch.isin(rows, batch.rows)] if len(batch.rows) else rows
        new = torch.unique(unknown)  # sorted: all of them are the batch as it is
        if len(new):
            computed = self._look_at(stimuli if len(new) == len(stimuli.ids) else stimuli.subset(new), version)
            merged = {
                layer: torch.cat([batch.patterns[layer], p]) if batch.patterns else p for layer, p in computed.items()
            }
            batch = self._batch = batch.with_rows(torch.cat([batch.rows, new]), merged)
        if torch.equal(rows, batch.rows):
            return batch.patterns
        where = torch.zeros(len(stimuli.ids), dtype=torch.int64)
        where[batch.rows] = torch.arange(len(batch.rows))
        of_rows = where[rows]
        return {layer: p[without_waiting(of_rows, p.device)] for layer, p in batch.patterns.items()}

    def fingerprint(self) -> str:
        """What determines the patterns: architecture, weights, layers, precision and preprocessing (SHA-256)."""
        digest = hashlib.sha256()
        for part in (self.network, self.names, self.dtype, self.preprocess):
            digest.update(_UNTOLD.sub("", _describe(part)).encode())
        modules = [self.network] + ([self.preprocess] if isinstance(self.preprocess, nn.Module) else [])
        for module in modules:
            for key, value in module.state_dict().items():
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def check(self, stimuli: Stimuli) -> None:
        """Look at a few stimuli and see whether what the network gives can teach anything.

        Raises ValueError, by layer and stimulus, for patterns that are not finite. Warns (`ResultWarning`) of patterns
        that differ each time an image is seen or go by which images are beside it, of images of 0…255, and of images
        that are normalised twice. No weight, running statistic, mode or random state is changed.
        """
        self._move(self.device or stimuli.images.device)
        check_range(stimuli.images, self.preprocess, "the teacher's images")
        few = stimuli.subset(torch.arange(min(FEW, len(stimuli.ids))))
        given = check_repeatable(
            lambda images: self._named(few.subset(torch.arange(len(images)))), few.images, "the teacher"
        )
        for layer in self.names:
            finite = torch.isfinite(given[layer])
            if len(finite) == len(few.ids) and not finite.all():
                first = few.ids[int((~finite.flatten(1).all(1) if finite.ndim > 1 else ~finite).nonzero()[0])]
                half = self.dtype == torch.float16 or given[layer].dtype == torch.float16
                raise ValueError(
                    f"the teacher's layer '{layer or 'output'}' gives NaN or infinite values for stimulus '{first}'; "
                    + (
                        "float16 holds no number beyond 65504: run the teacher in torch.bfloat16 or float32"
                        if half
                        else "look at its weights, its preprocessing and the image"
                    )
                )

    def _named(self, stimuli: Stimuli) -> dict[str, Tensor]:
        """What the layers that teach give, computed anew."""
        given = self._forward(stimuli)
        return {layer: given[layer] for layer in self.names}

    def _look_at(self, stimuli: Stimuli, version: _Version) -> Mapping[str, Tensor]:
        if self._cache_place is None:
            return self._forward(stimuli)
        if isinstance(self._cache_place, PatternCache):
            return self._cache_place.fetch(stimuli, self._forward, (*self.names, OUTPUT))
        if self._cache is None or self._cache_version != version:
            folder = None if self._cache_place == "memory" else Path(self._cache_place)
            self._cache = PatternCache(folder, "" if folder is None else self.fingerprint())
            self._cache_version = version
        return self._cache.fetch(stimuli, self._forward)

    def _forward(self, stimuli: Stimuli) -> dict[str, Tensor]:
        images = stimuli.images
        device = self.device or images.device
        half = self.dtype in (torch.bfloat16, torch.float16)
        with (
            evaluating(self.network),
            record_layers(self.network, (*self.names, OUTPUT)) as patterns,
            torch.autocast(device.type, dtype=self.dtype if half else None, enabled=half),
        ):
            weight = next((p for p in self.network.parameters() if p.is_floating_point()), images)
            inputs = images.to(device, weight.dtype)
            self.network(inputs if self.preprocess is None else self.preprocess(inputs))
            return {layer: patterns[layer].to(images.device) for layer in (*self.names, OUTPUT)}

    def _move(self, device: torch.device) -> None:
        for module in (self.network, self.preprocess):
            if isinstance(module, nn.Module) and any(
                t.device != device for t in (*module.parameters(), *module.buffers())
            ):
                module.to(device)

    def _version(self) -> _Version:
        """Changes when a weight is changed or replaced, so that nothing computed before is taken for it."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)


# Where each weight is, and how often it was changed in place.
_Version = tuple[tuple[int, int], ...]


class _Batch:
    """What the teacher has computed of the batch at hand."""

    def __init__(
        self,
        images: Callable[[], Tensor | None],
        version: int,
        weights: _Version,
        rows: Tensor,
        patterns: Mapping[str, Tensor],
    ) -> None:
        self.images, self.version, self.weights, self.rows, self.patterns = images, version, weights, rows, patterns

    @classmethod
    def nothing(cls) -> _Batch:
        return cls(lambda: None, 0, (), torch.zeros(0, dtype=torch.int64), {})

    def is_of(self, stimuli: Stimuli, weights: _Version) -> bool:
        same = self.images() is stimuli.images
        return same and self.version == stimuli.images._version and self.weights == weights

    def with_rows(self, rows: Tensor, patterns: Mapping[str, Tensor]) -> _Batch:
        return _Batch(self.images, self.version, self.weights, rows, patterns)


def check_finite(network: nn.Module, what: str) -> None:
    """Raise ValueError naming the first weight or buffer of the network that holds NaN or infinite values."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"the {what}'s '{name}' holds NaN or infinite values; give it other weights")


# What does not tell one function from another: no name of its own, or where in memory it is.
_UNTOLD = re.compile(r"<lambda>|<locals>| at 0x[0-9a-f]+")


def _describe(part: object) -> str:
    """Functions by their name, modules by what they print."""
    name = getattr(part, "__qualname__", None)
    return f"{getattr(part, '__module__', '')}.{name}" if name else repr(part)
