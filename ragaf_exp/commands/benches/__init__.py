"""The benchmarks of `make bench`, one file per subject; ragaf_exp/bench.py is the command line."""
