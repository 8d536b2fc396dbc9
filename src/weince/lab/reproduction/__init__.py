"""The paper's table, and ours beside it."""
