"""Writes a run's scenes for the judges of other benchmarks, and reads their results into its report.

    python -m eval.export run=DIR out=DIR format=geneval|compbench|coco_mig|layoutsam [items=N]
        [images=generated|truth]
    python -m eval.export run=DIR out=DIR read=FILE

format: the benchmark whose files are written: prompts, layouts and pictures of the test split. out: a new folder, or with
read= the one that was written. items: number of test items; by default as many as the run's evaluation has. images: the
run's images, or the data's own as the ceiling. read: the file that the judge wrote.

Judges run with the benchmark's own code and weights. Their figures get a section of the report, which states that judge
and data differ from the published ones. Only data whose objects are known can be written, as the embedded scenes.

Example:
    python -m eval.export run=runs/latest out=judged format=compbench items=100
"""

from ragaf_exp.commands.judged import main
from ragaf_exp.config.command_line import guarded

if __name__ == "__main__":
    guarded(main)
