"""Sketch, regions and graph of every image kept on disk, so that a second epoch and a second run only read them."""
