"""`python -m brainrdl`, as `torchrun -m brainrdl` runs it."""

import os
import sys

# With -m Python looks for modules in the working folder first: a torch.py among somebody's data would be run.
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.abspath(f"{__file__}/../.."):
    del sys.path[0]

from brainrdl.cli import main

main()
