"""The losses that are compared, one file each."""
