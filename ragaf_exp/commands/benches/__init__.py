"""What `make bench` measures, one file per subject; ragaf_exp/bench.py is the command line."""
