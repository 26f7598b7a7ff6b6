"""How much memory do activations take in a step of training with RDL on four layers, against plain training?

    python -m benchmarks.big_networks --batch 8 --threads 1

ViT-B/16 and ResNet-50 (torchvision, random weights) learn images of 224 × 224 pixels with a task alone, and with RDL
("correlation") on four layers: whole, pooled, projected and some of their units; towards measured RDMs, and towards a
ResNet-18 whose patterns are cached. "Kept" are the bytes of all distinct tensors that autograd holds between forward
and backward, weights and images left out; "peak" the most that is allocated at once in forward and backward, beyond
what was there before (weights, their gradients, images): from torch.profiler on the CPU, from the allocator on a GPU.
Both are of a third step, in MiB, with the ratio to plain training. Markdown goes to stdout; the profiler may write to
stderr.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torchvision
from rsatoolbox.rdm import RDMs
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from brainrdl.objectives import RDLObjective, Stage
from brainrdl.randomness import Draw
from brainrdl.reductions import Reduction
from brainrdl.sources import MeasuredRDMs, NetworkTeacher
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.stimuli import Stimuli
from brainrdl.training.stage import StageModule, loss_of, prepare_objectives, stage_module

BLOCKS = tuple(f"encoder.layers.encoder_layer_{k}" for k in (2, 5, 8, 11))
STAGES = ("layer1", "layer2", "layer3", "layer4")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "ViT-B/16": (torchvision.models.vit_b_16, BLOCKS),
    "ResNet-50": (torchvision.models.resnet50, STAGES),
}
WAYS = {
    "whole": None,
    "pooled": {"ViT-B/16": Reduction(pool=1), "ResNet-50": Reduction(pool=4)},
    "projected onto 1,024": Reduction(project=1024),
    "1,024 units": Reduction(units=1024),
}


def measured(ids: tuple[str, ...]) -> MeasuredRDMs:
    """Four RDMs of the stimuli, of random numbers."""
    values = np.random.default_rng(0).random((4, len(ids) * (len(ids) - 1) // 2))
    names = {"name": list(STAGES)}
    return MeasuredRDMs(RDMs(values, "correlation", rdm_descriptors=names, pattern_descriptors={"stimulus": list(ids)}))


def teachers(images: Stimuli) -> Iterator[tuple[str, TeacherRDMSource]]:
    """What the layers are pulled towards."""
    yield "measured RDMs", measured(images.ids)
    resnet = torchvision.models.resnet18().to(images.images.device)
    yield "cached patterns", NetworkTeacher(resnet, STAGES, dissimilarity="correlation", cache="memory")


def step(module: StageModule, stage: Stage, images: Stimuli, number: int) -> Tensor:
    """The loss of one step; its backward is the caller's."""
    return loss_of(module(images, None, Draw(0, step=number)), module, 1.0, [1.0] * len(stage.objectives))


def kept_bytes(module: StageModule, stage: Stage, images: Stimuli) -> int:
    """What autograd holds between forward and backward."""
    left_out = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers(), images.images)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step(module, stage, images, 1)
    loss.backward()
    return sum(size for place, size in kept.items() if place not in left_out)


def peak_bytes(module: StageModule, stage: Stage, images: Stimuli) -> int:
    """The most that is allocated at once, beyond what is there before."""
    if images.images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(module, stage, images, 2).backward()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(module, stage, images, 2).backward()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(sizes).max())


def measure(student: nn.Module, stage: Stage, images: Stimuli, precision: str) -> tuple[int, int]:
    """Kept and peak bytes of a step."""
    half = precision == "bf16"
    with (
        torch.autocast(images.images.device.type, dtype=torch.bfloat16, enabled=half),
        stage_module(student, stage) as module,
    ):
        prepare_objectives(module, images, None)
        module.train()
        step(module, stage, images, 0).backward()  # finds out which tensors are changed in place; fills the cache
        kept = kept_bytes(module, stage, images)
        return kept, peak_bytes(module, stage, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=[*NETWORKS])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = Stimuli(
        torch.rand(options.batch, 3, options.size, options.size, device=options.device),
        tuple(f"image-{k}" for k in range(options.batch)),
        torch.arange(options.batch, device=options.device),
    )
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    print(f"Batches of {options.batch}, {options.precision}, {where}, torch {torch.__version__}\n")
    print("| network | layers | towards | kept, MiB | ratio | peak, MiB | ratio |\n|---|---|---|---|---|---|---|")
    for name in options.networks:
        make, layers = NETWORKS[name]
        arguments = {"image_size": options.size} if name.startswith("ViT") else {}
        student = make(**arguments).to(options.device)
        plain = measure(student, Stage(), images, options.precision)
        print_row(name, "plain training", "", plain, plain)
        for kind, teacher in teachers(images):
            for way, reduction in WAYS.items():
                one = reduction[name] if isinstance(reduction, dict) else reduction
                objective = RDLObjective(
                    teacher,
                    dict(zip(layers, teacher.names, strict=True)),
                    dissimilarity="correlation",
                    discrepancy="correlation",
                    reductions={} if one is None else dict.fromkeys(layers, one),
                )
                found = measure(student, Stage(objective), images, options.precision)
                print_row(name, way, kind, found, plain)


def print_row(name: str, way: str, kind: str, found: tuple[int, int], plain: tuple[int, int]) -> None:
    """One line of the table."""
    columns = [f"{value / 2**20:.1f} | {value / base:.3f}" for value, base in zip(found, plain, strict=True)]
    print(f"| {name} | {way} | {kind} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
