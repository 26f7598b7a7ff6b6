"""`python -m brainrdl`, as `torchrun -m brainrdl` runs it."""

from brainrdl.cli import main

main()
