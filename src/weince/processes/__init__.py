"""Many processes: `gather.py` moves rows and numbers between them, `shared.py` makes a contest of a process's part."""
