"""The memory planner: predicts the peak memory of training and sampling without a device or weights."""
