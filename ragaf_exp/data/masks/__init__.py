"""Masks of holes: generated ones and users' files. A mask is (H, W) bool, True = hole."""
