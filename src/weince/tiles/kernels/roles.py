"""Which candidates are positives and negatives of an anchor, and their shortfalls as integers."""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

LARGEST = tl.constexpr(0x7FFFFFFF)
"""Above the bits of every shortfall: a candidate that is no negative."""
NO_ID = tl.constexpr(-(2**63))


@triton.jit
def roles_at(roles, row, column, inside):
    """Which of some columns are positives and which negatives of the anchor of a row."""
    only, itself, mask, ignored, labels, ids, before = roles
    # Negated, for a 1 would be known when this is compiled, which older compilers lose in a loop; so would a count.
    own = -before
    positive = column < 0
    hidden = column < 0
    if only is not None:
        positive = column == tl.load(only + row)
    if mask is not None:
        pointer, down, across = mask
        positive = tl.load(pointer + row * down + column.to(tl.int64) * across, mask=inside, other=0) != 0
    if labels is not None:
        of_anchors, of_candidates = labels
        other = tl.load(of_candidates + column - own, mask=inside & (column >= own), other=0)
        positive = (other == tl.load(of_anchors + row)) & (column >= own)
    if itself is not None:
        hidden = column == tl.load(itself + row)
    if ignored is not None:
        pointer, down, across = ignored
        hidden = hidden | (tl.load(pointer + row * down + column.to(tl.int64) * across, mask=inside, other=0) != 0)
    # An only positive stays one; no other takes part where it is hidden.
    won = positive if only is not None else positive & ~hidden
    out = positive | hidden
    if ids is not None:
        of_anchors, of_candidates, beyond = ids
        count = beyond - 1
        for each in range(count):
            mine = tl.load(of_anchors + row * count + each)
            theirs = tl.load(of_candidates + (column - own) * count + each, mask=inside & (column >= own), other=NO_ID)
            out = out | ((theirs == mine) & (mine != NO_ID) & (column >= own))
    return won & inside, inside & ~out


@triton.jit
def shortfall_bits(S, stride, roles, row, column, M, eps):
    """Shortfalls of the negatives as integers, which order as they do; LARGEST elsewhere."""
    inside = column < M
    s = tl.load(S + row * stride + column, mask=inside, other=0.0)
    _, negative = roles_at(roles, row, column, inside)
    return tl.where(negative, tl.maximum(1.0 - s, eps).to(tl.int32, bitcast=True), LARGEST)


@triton.jit
def up_to_digit(found, shift, digit):
    """The largest integer with this digit after what was found, at most LARGEST."""
    return tl.minimum(found.to(tl.int64) + ((digit + 1).to(tl.int64) << shift) - 1, LARGEST).to(tl.int32)
