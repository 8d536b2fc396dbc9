"""The recipe of each task, apart from the task, so that reading one imports no library."""
