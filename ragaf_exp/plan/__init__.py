"""The planner: peak memory of training and sampling, predicted without a device and without weights."""
