"""Graph attention's message passing (config group `graph/backend`): one file per library, the same results."""
