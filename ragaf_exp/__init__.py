"""ragaf_exp: experiments in sketch + text controllable diffusion by Region-Adaptive Graph-Attention Fusion."""

__version__ = "0.1.0"
