"""ragaf_exp: experiments in sketch + text controllable diffusion by Region-Adaptive Graph-Attention Fusion."""

import os

__version__ = "0.1.0"

# PyTorch's threads on a processor wait for one another in a busy loop. Where anything else runs on the machine, that
# loop holds the core that the awaited thread needs; steps take several times as long as with a short loop. To be set
# before PyTorch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
