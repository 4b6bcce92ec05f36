"""Latents and text features, computed once by frozen encoders and read while the denoiser trains."""
