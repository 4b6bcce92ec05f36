"""Run folders and jobs: checkpoints, status, locks across processes and hosts, signals, and SLURM."""
