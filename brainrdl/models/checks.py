"""Whether images and a network's patterns are what they are taken for: told, since each may be meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from brainrdl.models.preprocessing import Preprocessing
from brainrdl.notes import warn_result
from brainrdl.randomness import torch_seeded

_BYTES = 32.0  # whole numbers from 0 up to more than this are pixels of 0…255
_ROUNDING = 0.01  # beyond 0…1 through resizing
FEW = 8  # images that are looked at more than once

# Relative to a layer's largest response: how far two looks at the same images may lie apart, and looks at them beside
# other images, which libraries compute in another order (TensorFloat-32 keeps 3 digits). Batch statistics and dropout
# change patterns by a tenth and more.
_AGAIN, _BESIDE_OTHERS = 1e-3, 1e-2
_AGAIN_HALF, _BESIDE_OTHERS_HALF = 1e-2, 5e-2


_OF_A_CLASS, _SURE = 5, 0.8


def check_range(images: Tensor, preprocess: object = None, what: str = "images") -> None:
    """Warn of images of 0…255, and of images beyond 0…1 that `preprocess` would normalise once more.

    images: (n_stimuli, channels, height, width), a batch of them is enough. Images that are normalised already and meet
    no further normalisation are as someone wants them: nothing is said.
    """
    if not images.numel():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    seen = f"{what}: values from {low:.3g} to {high:.3g}"
    if low >= 0 and high > _BYTES and bool((images == images.round()).all()):
        warn_result(f"{seen}, all of them whole: images of 0…255, expected 0…1; divide them by 255", stacklevel=2)
    elif (low < -_ROUNDING or high > 1 + _ROUNDING) and _normalises(preprocess):
        warn_result(
            f"{seen} are normalised by the preprocessing, which expects 0…1: normalised twice? give images as they are "
            "(0…1), or leave its mean, std and global_contrast out",
            stacklevel=2,
        )


def _normalises(preprocess: object) -> bool:
    if isinstance(preprocess, Preprocessing):
        return preprocess.mean is not None or preprocess.std is not None or preprocess.global_contrast
    parts = preprocess.modules() if isinstance(preprocess, nn.Module) else ()
    return any(type(part).__name__ == "Normalize" for part in parts)  # torchvision's, which need not be imported


def check_repeatable(run: Callable[[Tensor], Mapping[str, Tensor]], images: Tensor, what: str) -> Mapping[str, Tensor]:
    """Warn, by layer, of patterns that differ each time an image is seen, or go by which images are beside it.

    run: (n_stimuli, ...) images -> what each layer gives, in eval mode and without gradient. It is called three times
    with a few of `images`; torch's random state is as before. Dropout that does not heed eval mode, noise, and batch
    normalisation without running statistics are found so. what: the network, for the message.
    Returns what the layers give for those few.
    """
    few = images[:FEW]
    with torch_seeded(0):
        # Kept as they were: the next run overwrites them.
        first, again, part = (
            {layer: pattern.detach().clone() for layer, pattern in run(shown).items()}
            for shown in (few, few, few[: max(1, len(few) // 2)])
        )
    for layer, pattern in first.items():
        if pattern.ndim == 0 or len(pattern) != len(few) or len(part[layer]) != max(1, len(few) // 2):
            continue  # no row an image, which is refused elsewhere
        half = pattern.dtype in (torch.float16, torch.bfloat16)
        named = f"{what}: layer '{layer}'" if layer else f"{what}: its output"
        if _apart(pattern, again[layer]) > (_AGAIN_HALF if half else _AGAIN):
            warn_result(
                f"{named} gives other patterns each time it sees the same images, in eval mode too: dropout or noise "
                "that goes on there makes its RDM a matter of chance; let the module heed `self.training`",
                stacklevel=2,
            )
        elif _apart(pattern[: len(part[layer])], part[layer]) > (_BESIDE_OTHERS_HALF if half else _BESIDE_OTHERS):
            warn_result(
                f"{named} gives patterns that depend on which images are beside it in a batch, in eval mode too, so "
                "its RDM depends on the batch size: batch normalisation without running statistics? set "
                "track_running_stats=True, or take a normalisation of each image by itself",
                stacklevel=2,
            )
    return first


def are_probabilities(outputs: Tensor) -> bool:
    """Whether each row, (n_stimuli, n_classes), is 0 or more and sums to 1, as class scores do not by chance."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return False
    rows = outputs.detach().float()
    return bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-2).all())


def exchanged_classes(scores: Tensor, labels: Tensor) -> dict[int, int]:
    """label -> the class that a network gives its images instead, where classes stand in another order.

    scores: (n_stimuli, n_classes); labels: (n_stimuli,). Only classes of which 5 images or more are there and 4 of 5
    are given one other class, which no other images are given: a network that is merely wrong is not meant.
    """
    given = scores.detach().argmax(1).cpu()
    instead: dict[int, int] = {}
    kept: set[int] = set()
    for label in torch.unique(labels.cpu()).tolist():
        of_label = given[labels.cpu() == label]
        most = int(of_label.mode().values)
        if len(of_label) >= _OF_A_CLASS and float((of_label == most).float().mean()) >= _SURE:
            if most == label:
                kept.add(label)
            else:
                instead[label] = most
    found = {label: most for label, most in instead.items() if most not in kept}
    return found if len(set(found.values())) == len(found) else {}


def _apart(one: Tensor, other: Tensor) -> float:
    one, other = one.float(), other.float()
    size = float(one.abs().max())
    return 0.0 if size == 0 else float((one - other).abs().max()) / size
