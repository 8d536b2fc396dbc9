"""Extreme-value statistics, offline: NumPy and SciPy alone, nothing of the loss."""
