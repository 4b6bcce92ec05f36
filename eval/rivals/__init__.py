"""Simple methods that every task's model is compared with. They train nothing, and are pure functions of arrays."""
