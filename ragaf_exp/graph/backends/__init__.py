"""Message passing for graph attention (config group `graph/backend`): one file per library, with equal results."""
