"""RePaint with the networks of a run: any of them inpaints, whether its task has a hole or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.keeping import Known
from ragaf_exp.diffusion.repaint import RePaint
from ragaf_exp.tasks.holes import GIVEN, HOLE, touched

IMAGE, MASK = "image", "mask"  # of a request to a run whose task takes no image
STEPS, RESAMPLINGS = 50, 5


def make_repaint(parts: Parts, args: Mapping[str, Any]) -> RePaint:
    """A RePaint sampler with the run's guidance, whose known pixels are the image of a batch outside its hole.

    Args:
        parts: The components of the run.
        args: steps, jump and resamplings, each optional.

    Returns:
        The sampler.
    """

    def known(batch: Batch) -> Known:
        given = batch.conditions.get(GIVEN, batch.conditions.get(IMAGE))
        hole = batch.conditions.get(HOLE, batch.conditions.get(MASK))
        assert given is not None and hole is not None, "requests with an image have both"
        latent = parts.codec.encode(given)
        return Known(latent, touched(hole, latent) > 0)

    sampler, steps = parts.sampler, args.get("steps", STEPS)
    jump = args.get("jump", max(1, steps // 10))
    return RePaint(parts.diffusion, known, parts.cfg.seed, steps, jump, args.get("resamplings", RESAMPLINGS),
                   sampler.guidance, sampler.sketch_guidance, sampler.image_guidance)  # fmt: skip
