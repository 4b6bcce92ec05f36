"""Measures of inpainting by RePaint."""
