"""Unit rows of embeddings, and their gradient."""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unit_rows(Z, down, across, U, inverse, D, TINY_ROW: tl.constexpr, BLOCK: tl.constexpr):
    """`weince.contest.unit_rows`, and 1 / |z| for its gradient; 0 for a zero row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    largest_v = tl.zeros([BLOCK], tl.float32)
    broken_v = tl.zeros([BLOCK], tl.int32)
    for start in range(0, D, BLOCK):
        column = start + lane
        z = tl.load(Z + row * down + column * across, mask=column < D, other=0.0).to(tl.float32)
        largest_v = tl.maximum(largest_v, tl.abs(z))
        broken_v += (z != z).to(tl.int32)
    # A maximum leaves NaN out.
    largest = tl.where(tl.sum(broken_v) > 0, float("nan"), tl.max(largest_v))
    zero = largest < TINY_ROW
    safe = tl.where(zero, float("inf"), largest)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, D, BLOCK):
        column = start + lane
        z = tl.load(Z + row * down + column * across, mask=column < D, other=0.0).to(tl.float32)
        z = tl.div_rn(z, safe)
        squares += z * z
    length = tl.where(zero, 1.0, tl.sqrt_rn(tl.sum(squares)))
    for start in range(0, D, BLOCK):
        column = start + lane
        z = tl.load(Z + row * down + column * across, mask=column < D, other=0.0).to(tl.float32)
        z = tl.div_rn(z, safe)
        tl.store(U + row * D + column, tl.div_rn(z, length), mask=column < D)
    tl.store(inverse + row, 1.0 / (safe * length))


@triton.jit
def of_unit_rows(G, down, across, U, inverse, out, D, BLOCK: tl.constexpr):
    """Its gradient, (g - u (u . g)) / |z|, in the dtype of `out`."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    along_v = tl.zeros([BLOCK], tl.float32)
    for start in range(0, D, BLOCK):
        column = start + lane
        g = tl.load(G + row * down + column * across, mask=column < D, other=0.0)
        along_v += g * tl.load(U + row * D + column, mask=column < D, other=0.0)
    along = tl.sum(along_v)
    each = tl.load(inverse + row)
    for start in range(0, D, BLOCK):
        column = start + lane
        g = tl.load(G + row * down + column * across, mask=column < D, other=0.0)
        u = tl.load(U + row * D + column, mask=column < D, other=0.0)
        tl.store(out + row * D + column, ((g - u * along) * each).to(out.dtype.element_ty), mask=column < D)
