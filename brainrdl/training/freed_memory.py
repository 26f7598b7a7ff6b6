"""Let the processor's allocator keep the memory that one training step frees for the next one."""

from __future__ import annotations

import torch

# The largest block from whose being freed glibc still learns is one of 32 MiB, its own header included.
_BLOCK = 31 << 20


def keep_freed_memory() -> None:
    """Make glibc keep up to 62 MiB of freed memory instead of giving it back to the system.

    What a step frees, glibc gives back where it is more than a threshold, and the next step gets it anew, page by page
    and filled with zeros: with the paper's MNIST network a third of the time. The threshold is twice the largest block
    that was freed so far, and so a matter of chance; freeing one, which is never touched and so costs nothing, sets
    it. Larger blocks (activations of more than 32 MiB) are given back still. Other allocators take no notice.
    """
    torch.empty(_BLOCK, dtype=torch.uint8, device="cpu")
