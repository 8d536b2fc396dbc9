"""The passes over a tile as Triton kernels: one program a row, no atomics, the same bits every run.

`weince.tiles.rows` launches them; `weince.tiles.passes` is what they compute, as one reads it. Rows are float32.
A role is a tuple (`weince.tiles.rows.roles_of`): what is None in it is known when a kernel is compiled.
"""

from weince.tiles.kernels.loss import conclude
from weince.tiles.kernels.tail import lines, sort_rows, tails
from weince.tiles.kernels.unit import of_unit_rows, unit_rows
from weince.tiles.kernels.weight import weights

__all__ = ["conclude", "lines", "of_unit_rows", "sort_rows", "tails", "unit_rows", "weights"]
