"""Export of trained runs as files that other tools load. See docs/export.md."""
