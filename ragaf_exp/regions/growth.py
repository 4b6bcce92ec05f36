"""Label growth: spreading region labels over pixels that have none."""

from __future__ import annotations

import cv2
import numpy as np

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def grow(labels: np.ndarray, free: np.ndarray | None, steps: int) -> np.ndarray:
    """Spread labels by `steps` pixels (4-neighbours) over unlabelled pixels, staying inside `free`.

    labels (H,W) int16, -1 = unlabelled; free (H,W) bool, None = everywhere. A pixel that two labels reach at
    once takes the higher one: labels are ordered by area, so an outline goes to the figure, not to its
    ground, and a flipped sketch grows the flipped labels. Growth stays 4-connected; labels is not changed.
    """
    for _ in range(steps):
        unlabelled = labels < 0
        if free is not None:
            unlabelled &= free
        if not unlabelled.any():
            break
        labels = np.where(unlabelled, cv2.dilate(labels, CROSS), labels)
    return labels


def fill(labels: np.ndarray, steps: int = 4) -> np.ndarray:
    """Give every unlabelled pixel the label nearest to it; labels (H,W) int16, -1 = unlabelled.

    The first `steps` pixels grow by `grow` (its tie rule); what is still bare lies inside thick strokes and
    takes the label of the nearest labelled pixel by distance transform. A map without labels stays as it is.
    """
    labels = grow(labels, None, steps)
    bare = labels < 0
    if not bare.any() or bare.all():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(bare.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    source = np.zeros(int(nearest.max()) + 1, labels.dtype)
    source[nearest[~bare]] = labels[~bare]
    return source[nearest]
