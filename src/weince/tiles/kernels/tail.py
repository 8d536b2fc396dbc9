"""The tail of each row: its end by counting, the sums over it, and the lines through it once it is sorted."""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from weince.tiles.kernels.roles import LARGEST, roles_at, shortfall_bits, up_to_digit

ROUNDING = tl.constexpr(4.0 * 2.0**-23)
NOWHERE_NEAR = tl.constexpr(2.0)


@triton.jit
def _tail_end(S, stride, roles, row, M, eps, size, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Bits of the size-th smallest shortfall: digit by digit, by counting. A row of at most ROW stays in registers."""
    found = tl.full([], 0, tl.int32)
    lane = tl.arange(0, BLOCK)
    if ROW > 0:
        bits = shortfall_bits(S, stride, roles, row, tl.arange(0, ROW), M, eps)
        for step in range(31):
            end = up_to_digit(found, 30 - step, tl.full([], 0, tl.int32))
            fewer = tl.sum((bits <= end).to(tl.int32)) < size
            found = tl.where(fewer, end + 1, found)
    else:
        # Three binary digits a visit of the row.
        for step in range(11):
            shift = 30 - 3 * step
            total = tl.full([], 0, tl.int32)
            counts_0 = tl.zeros([BLOCK], tl.int32)
            counts_1 = tl.zeros([BLOCK], tl.int32)
            counts_2 = tl.zeros([BLOCK], tl.int32)
            counts_3 = tl.zeros([BLOCK], tl.int32)
            counts_4 = tl.zeros([BLOCK], tl.int32)
            counts_5 = tl.zeros([BLOCK], tl.int32)
            counts_6 = tl.zeros([BLOCK], tl.int32)
            base = tl.full([], 0, tl.int32)
            for start in range(0, M, BLOCK):
                bits = shortfall_bits(S, stride, roles, row, start + lane, M, eps)
                counts_0 += (bits <= up_to_digit(found, shift, base)).to(tl.int32)
                counts_1 += (bits <= up_to_digit(found, shift, base + 1)).to(tl.int32)
                counts_2 += (bits <= up_to_digit(found, shift, base + 2)).to(tl.int32)
                counts_3 += (bits <= up_to_digit(found, shift, base + 3)).to(tl.int32)
                counts_4 += (bits <= up_to_digit(found, shift, base + 4)).to(tl.int32)
                counts_5 += (bits <= up_to_digit(found, shift, base + 5)).to(tl.int32)
                counts_6 += (bits <= up_to_digit(found, shift, base + 6)).to(tl.int32)
            total += (tl.sum(counts_0) < size).to(tl.int32)
            total += (tl.sum(counts_1) < size).to(tl.int32)
            total += (tl.sum(counts_2) < size).to(tl.int32)
            total += (tl.sum(counts_3) < size).to(tl.int32)
            total += (tl.sum(counts_4) < size).to(tl.int32)
            total += (tl.sum(counts_5) < size).to(tl.int32)
            total += (tl.sum(counts_6) < size).to(tl.int32)
            found = tl.where(total > 0, up_to_digit(found, shift, total - 1) + 1, found)
    return found


@triton.jit
def _tail_size(count, fraction, MINIMUM: tl.constexpr):
    """`weince.tail.tail_size`: half to even, in double precision."""
    share = fraction * count.to(tl.float64)
    whole = tl.floor(share)
    half = share - whole
    odd = whole - 2 * tl.floor(whole / 2)
    rounded = tl.where((half > 0.5) | ((half == 0.5) & (odd == 1)), whole + 1, whole).to(tl.int32)
    return tl.minimum(count, tl.maximum(rounded, MINIMUM))


@triton.jit(do_not_specialize=["size", "room", "A"])
def tails(
    S, stride, roles, M, eps, size,
    fits, A, valid, kept, sizes, room,
    FRACTION: tl.constexpr, MINIMUM: tl.constexpr, LIKELIHOOD: tl.constexpr, MOMENTS: tl.constexpr,
    POSITIVES: tl.constexpr, LINES: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Everything of a row's tail that takes no order; with LINES its shortfalls, unsorted, into `kept`.

    Args:
        S: (t, M) similarities, rows `stride` apart.
        roles: which column is what.
        size: K_tail of every row; where rows differ FRACTION and MINIMUM tell.
        fits: (8, A) in the order of `TailFit`; valid: (A,).
        kept: (t, room), sizes: (t,), for `lines`.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    nearest = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
    count = tl.zeros([BLOCK], tl.int32)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, M, BLOCK):
        column = start + lane
        inside = column < M
        bits = shortfall_bits(S, stride, roles, row, column, M, eps)
        nearest = tl.minimum(nearest, bits)
        count += (bits != LARGEST).to(tl.int32)
        if POSITIVES:
            positive, _ = roles_at(roles, row, column, inside)
            s = tl.load(S + row * stride + column, mask=inside, other=0.0)
            best = tl.maximum(best, tl.where(positive, s, float("-inf")))
    negatives = tl.sum(count)
    # A size of 1 may be known when the kernel is compiled, and no tensor.
    size = tl.full([], 0, tl.int32) + size
    if FRACTION is not None:
        size = _tail_size(negatives, tl.full([], FRACTION, tl.float64), MINIMUM)
    there = negatives > 0
    nearness = tl.where(there, tl.min(nearest).to(tl.float32, bitcast=True), NOWHERE_NEAR)
    end_bits = _tail_end(S, stride, roles, row, M, eps, size, ROW, BLOCK)
    end = tl.where(there, end_bits.to(tl.float32, bitcast=True), NOWHERE_NEAR)

    below = tl.zeros([BLOCK], tl.int32)
    distance = tl.zeros([BLOCK], tl.float32)
    noise = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    placed = tl.full([], 0, tl.int32)
    for start in range(0, M, BLOCK):
        bits = shortfall_bits(S, stride, roles, row, start + lane, M, eps)
        inside = bits < end_bits
        delta = tl.where(inside, bits.to(tl.float32, bitcast=True), 1.0)
        below += inside.to(tl.int32)
        if LIKELIHOOD:
            distance += tl.where(inside, tl.log(end / delta), 0.0)
            noise += tl.where(inside, ROUNDING / delta, 0.0)
        if MOMENTS:
            y = tl.where(inside, end - delta, 0.0)
            total += y
            squares += y * y
        if LINES:
            place = placed + tl.cumsum(inside.to(tl.int32), 0) - 1
            tl.store(kept + row * room + place, delta, mask=inside)
            placed += tl.sum(inside.to(tl.int32))
    under = tl.sum(below)
    n = size.to(tl.float32)
    if LINES:
        # The rest of the tail is as far as its end, and what is beyond it sorts last.
        for start in range(0, room, BLOCK):
            place = start + lane
            value = tl.where(place < size, end, float("inf"))
            tl.store(kept + row * room + place, value, mask=(place >= under) & (place < room))
        tl.store(sizes + row, size)
    if LIKELIHOOD:
        apart = tl.sum(distance)
        fits_noise = tl.sum(noise) + (n - under.to(tl.float32)) * ROUNDING / end
        holds = (size >= 3) & (apart > fits_noise)
        tl.store(fits + row, tl.where(holds, (n - 2.0) / tl.maximum(apart, 1e-12), 0.0))
        tl.store(valid + row, holds.to(tl.int8))
    tl.store(fits + 3 * A + row, nearness)
    points = tl.maximum(n - 1.0, 0.0)
    dispersion = tl.full([], float("nan"), tl.float32)
    excess = tl.full([], float("nan"), tl.float32)
    if MOMENTS:
        # In double precision: 2 less the dispersion cancels.
        y = tl.sum(total.to(tl.float64))
        spread = (points >= 2.0) & (y > ROUNDING * points)
        some = tl.maximum(points, 1.0).to(tl.float64)
        ratio = (some + 1.0) * tl.sum(squares.to(tl.float64)) / tl.maximum(y * y, 1e-300)
        dispersion = tl.where(spread, ratio, 0.0).to(tl.float32)
        excess = tl.where(spread, y / some / tl.maximum(end, 1e-12), 0.0).to(tl.float32)
        points = tl.where(spread, points, 0.0)
    else:
        points = tl.full([], float("nan"), tl.float32)
    tl.store(fits + 4 * A + row, dispersion)
    tl.store(fits + 5 * A + row, excess)
    tl.store(fits + 6 * A + row, points)
    beaten = tl.full([], float("nan"), tl.float32)
    if POSITIVES:
        most = tl.max(best)
        ahead = (tl.maximum(1.0 - most, eps) - nearness > ROUNDING).to(tl.float32)
        beaten = tl.where((most == float("-inf")) | (nearness == NOWHERE_NEAR), float("nan"), ahead)
    tl.store(fits + 7 * A + row, beaten)
    if not LINES:
        tl.store(fits + A + row, float("nan"))
        tl.store(fits + 2 * A + row, float("nan"))


@triton.jit(do_not_specialize=["room"])
def sort_rows(kept, room, BLOCK: tl.constexpr):
    """Each row in ascending order."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    values = tl.load(kept + row * room + lane, mask=lane < room, other=float("inf"))
    tl.store(kept + row * room + lane, tl.sort(values), mask=lane < room)


@triton.jit
def _line_points(kept, room, row, start, lane, size, burned):
    """Log shortfalls and the two responses of some ranks, and which of them count."""
    rank = start + lane + 1
    inside = (rank > burned) & (rank <= size)
    delta = tl.load(kept + row * room + start + lane, mask=inside, other=1.0)
    x = tl.log(delta).to(tl.float64)
    share = tl.where(inside, rank.to(tl.float64) / (size + 1).to(tl.float64), 0.5)
    weibull = tl.log(share)
    return x, weibull, tl.log(-weibull), inside, delta


@triton.jit(do_not_specialize=["room", "A"])
def lines(kept, sizes, room, fits, A, valid, SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    """The two lines through a row's sorted tail: `weince.tail.fit_tail`. SLOPE: whether the first is the slope."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    size = tl.load(sizes + row)
    burned = tl.maximum(size // 20, 1)
    number = tl.maximum(size - burned, 0)
    n = tl.maximum(number, 1).to(tl.float64)
    sum_x = tl.zeros([BLOCK], tl.float64)
    sum_w = tl.zeros([BLOCK], tl.float64)
    sum_g = tl.zeros([BLOCK], tl.float64)
    for start in range(0, room, BLOCK):
        x, weibull, gumbel, inside, _ = _line_points(kept, room, row, start, lane, size, burned)
        sum_x += tl.where(inside, x, 0.0)
        sum_w += tl.where(inside, weibull, 0.0)
        sum_g += tl.where(inside, gumbel, 0.0)
    mean_x = tl.sum(sum_x) / n
    mean_w = tl.sum(sum_w) / n
    mean_g = tl.sum(sum_g) / n
    xx = tl.zeros([BLOCK], tl.float64)
    xw = tl.zeros([BLOCK], tl.float64)
    xg = tl.zeros([BLOCK], tl.float64)
    ww = tl.zeros([BLOCK], tl.float64)
    gg = tl.zeros([BLOCK], tl.float64)
    noise = tl.zeros([BLOCK], tl.float32)
    for start in range(0, room, BLOCK):
        x, weibull, gumbel, inside, delta = _line_points(kept, room, row, start, lane, size, burned)
        x = tl.where(inside, x - mean_x, 0.0)
        weibull = tl.where(inside, weibull - mean_w, 0.0)
        gumbel = tl.where(inside, gumbel - mean_g, 0.0)
        xx += x * x
        xw += x * weibull
        xg += x * gumbel
        ww += weibull * weibull
        gg += gumbel * gumbel
        noise += tl.where(inside, (ROUNDING / delta) * (ROUNDING / delta), 0.0)
    square = tl.sum(xx)
    resolved = (square > tl.sum(noise).to(tl.float64)).to(tl.float64)
    of_weibull = tl.sum(xw)
    of_gumbel = tl.sum(xg)
    variance = tl.sum(ww)
    slope = of_weibull / tl.maximum(square, 1e-12) * resolved
    proxy = of_gumbel / tl.maximum(square, 1e-12) * resolved
    left = tl.maximum(variance - slope * (2.0 * of_weibull - slope * square), 1e-12)
    left_proxy = tl.maximum(tl.sum(gg) - proxy * (2.0 * of_gumbel - proxy * square), 1e-12)
    r2 = 1.0 - left / tl.maximum(variance, 1e-12)
    rising = slope > 0.0
    left = left + tl.where(rising, 0.0, 1e6)
    left_proxy = left_proxy + tl.where(proxy >= 0.0, 1e6, 0.0)
    gap = number.to(tl.float64) * (tl.log(left_proxy) - tl.log(left))
    enough = number >= 2
    if SLOPE:
        tl.store(fits + row, tl.where(enough, tl.maximum(slope, 0.0), 0.0).to(tl.float32))
        tl.store(valid + row, (rising & enough).to(tl.int8))
    tl.store(fits + A + row, tl.where(enough, r2, 0.0).to(tl.float32))
    tl.store(fits + 2 * A + row, tl.where(enough, gap, 0.0).to(tl.float32))
