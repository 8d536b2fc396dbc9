"""The losses that are compared, one file each."""

from weince.lab.rivals.registry import COLOURS, NAMES, Loss, Rivals, make_criterion

__all__ = ["COLOURS", "NAMES", "Loss", "Rivals", "make_criterion"]
