"""The commands of the lab, one file each, with `run(words)`."""
