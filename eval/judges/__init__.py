"""Exchange with the judges of published benchmarks: scenes in their file formats, and their result files as figures."""
