"""Commands for the disk cache of sketches, regions and graphs, which later epochs and runs read instead of recomputing."""
