"""The pipeline of diffusers around the networks of a run folder, without an export."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ragaf_exp.export import diffusers_folder
from ragaf_exp.export.kinds import Options
from ragaf_exp.export.pipeline import RagafPipeline
from ragaf_exp.export.trained import open_run


def pipeline_of_run(folder: str | Path, followed: Mapping[str, str] | None = None) -> RagafPipeline:
    """Load a run folder as a pipeline of diffusers, through an export in a temporary folder.

    Args:
        folder: The run folder.
        followed: Config keys of files or networks in a run made elsewhere, such as backbone.source, and their values.

    Returns:
        The pipeline.

    Raises:
        UserError: The run is missing, unfinished or damaged.
    """
    trained = open_run(str(folder), followed or {})
    with tempfile.TemporaryDirectory() as name:
        out = Path(name).resolve() / "export"
        out.mkdir()
        diffusers_folder.write(trained, out, Options())
        return RagafPipeline.from_pretrained(out, sources=diffusers_folder.given_sources(trained, out))
