"""A run as a job among others: who owns its folder, whether it lives, when it has to stop, and its fellow processes."""
