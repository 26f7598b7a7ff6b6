"""Settings for every test process, made before torch and matplotlib are first imported."""

import os

# Tests run in several processes; each of them (and what it starts) takes one core, and draws to no screen.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "agg"
