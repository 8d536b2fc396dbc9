"""The passes over a tile as Triton kernels: one program a row, no atomics, the same bits every run.

`weince.tiles.rows` launches them; `weince.tiles.passes` is what they compute, as one reads it. Rows are float32.
A role is a tuple (`weince.tiles.rows.roles_of`): what is None in it is known when a kernel is compiled.
"""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

LARGEST = tl.constexpr(0x7FFFFFFF)
"""Above the bits of every shortfall: a candidate that is no negative."""
LOWEST = tl.constexpr(-3.4028234663852886e38)
TINY = tl.constexpr(1.1754943508222875e-38)
ROUNDING = tl.constexpr(4.0 * 2.0**-23)
NOWHERE_NEAR = tl.constexpr(2.0)
FEWEST = tl.constexpr(8.0)
NO_ID = tl.constexpr(-(2**63))


@triton.jit
def _columns(roles, row, column, inside):
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
def _bits(S, stride, roles, row, column, M, eps):
    """Shortfalls of the negatives as integers, which order as they do; LARGEST elsewhere."""
    inside = column < M
    s = tl.load(S + row * stride + column, mask=inside, other=0.0)
    _, negative = _columns(roles, row, column, inside)
    return tl.where(negative, tl.maximum(1.0 - s, eps).to(tl.int32, bitcast=True), LARGEST)


@triton.jit
def _digit(found, shift, digit):
    """The largest integer with this digit after what was found, at most LARGEST."""
    return tl.minimum(found.to(tl.int64) + ((digit + 1).to(tl.int64) << shift) - 1, LARGEST).to(tl.int32)


@triton.jit
def _tail_end(S, stride, roles, row, M, eps, size, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Bits of the size-th smallest shortfall: digit by digit, by counting. A row of at most ROW stays in registers."""
    found = tl.full([], 0, tl.int32)
    lane = tl.arange(0, BLOCK)
    if ROW > 0:
        bits = _bits(S, stride, roles, row, tl.arange(0, ROW), M, eps)
        for step in range(31):
            end = _digit(found, 30 - step, tl.full([], 0, tl.int32))
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
                bits = _bits(S, stride, roles, row, start + lane, M, eps)
                counts_0 += (bits <= _digit(found, shift, base)).to(tl.int32)
                counts_1 += (bits <= _digit(found, shift, base + 1)).to(tl.int32)
                counts_2 += (bits <= _digit(found, shift, base + 2)).to(tl.int32)
                counts_3 += (bits <= _digit(found, shift, base + 3)).to(tl.int32)
                counts_4 += (bits <= _digit(found, shift, base + 4)).to(tl.int32)
                counts_5 += (bits <= _digit(found, shift, base + 5)).to(tl.int32)
                counts_6 += (bits <= _digit(found, shift, base + 6)).to(tl.int32)
            total += (tl.sum(counts_0) < size).to(tl.int32)
            total += (tl.sum(counts_1) < size).to(tl.int32)
            total += (tl.sum(counts_2) < size).to(tl.int32)
            total += (tl.sum(counts_3) < size).to(tl.int32)
            total += (tl.sum(counts_4) < size).to(tl.int32)
            total += (tl.sum(counts_5) < size).to(tl.int32)
            total += (tl.sum(counts_6) < size).to(tl.int32)
            found = tl.where(total > 0, _digit(found, shift, total - 1) + 1, found)
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
        bits = _bits(S, stride, roles, row, column, M, eps)
        nearest = tl.minimum(nearest, bits)
        count += (bits != LARGEST).to(tl.int32)
        if POSITIVES:
            positive, _ = _columns(roles, row, column, inside)
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
        bits = _bits(S, stride, roles, row, start + lane, M, eps)
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


@triton.jit
def _nearest_of_rank(nearness, count, rank, BLOCK: tl.constexpr):
    """The rank-th smallest nearness of a batch."""
    lane = tl.arange(0, BLOCK)
    found = tl.full([], 0, tl.int32)
    for step in range(31):
        end = _digit(found, 30 - step, tl.full([], 0, tl.int32))
        counts = tl.zeros([BLOCK], tl.int32)
        for start in range(0, count, BLOCK):
            value = tl.load(nearness + start + lane, mask=start + lane < count, other=float("inf"))
            counts += (value.to(tl.int32, bitcast=True) <= end).to(tl.int32)
        found = tl.where(tl.sum(counts) < rank, end + 1, found)
    return found.to(tl.float32, bitcast=True)


@triton.jit
def _expected(place, excess):
    return 2.0 / tl.maximum(1.0 + place * excess, 0.5)


@triton.jit
def _end_of(dispersions, excesses, numbers, count, BLOCK: tl.constexpr):
    """`weince.evidence.end_of`: place, statistic and trust."""
    lane = tl.arange(0, BLOCK)
    many_v = tl.zeros([BLOCK], tl.float32)
    missing_v = tl.zeros([BLOCK], tl.float32)
    null_v = tl.zeros([BLOCK], tl.float32)
    excess_v = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        inside = start + lane < count
        n = tl.load(numbers + start + lane, mask=inside, other=0.0)
        some = n >= FEWEST
        n = tl.where(some, n, FEWEST)
        many_v += some.to(tl.float32)
        dispersion = tl.load(dispersions + start + lane, mask=inside, other=0.0)
        missing_v += tl.where(some, 2.0 - dispersion, 0.0)
        null_v += tl.where(some, 4.0 * (n - 1.0) / ((n + 2.0) * (n + 3.0)), 0.0)
        excess_v += tl.where(some, tl.load(excesses + start + lane, mask=inside, other=0.0), 0.0)
    many = tl.maximum(tl.sum(many_v), 1.0)
    missing = tl.sum(missing_v)
    statistic = missing / tl.sqrt(tl.maximum(2.0 * tl.sum(null_v), 1e-12))
    dispersion = 2.0 - missing / many
    place = (2.0 / dispersion - 1.0) / tl.maximum(tl.sum(excess_v) / many, 1e-6)
    xi = tl.minimum(tl.maximum((dispersion - 2.0) / tl.maximum(2.0 * (dispersion - 1.0), 1e-3), -2.0), 0.2)
    m_2 = 2.0 * (1.0 - xi) / (1.0 - 2.0 * xi)
    m_3 = m_2 * 3.0 * (1.0 - xi) / (1.0 - 3.0 * xi)
    m_4 = m_3 * 4.0 * (1.0 - xi) / (1.0 - 4.0 * xi)
    variance = (m_4 - m_2 * m_2) + 4.0 * m_2 * m_2 * (m_2 - 1.0) - 4.0 * m_2 * (m_3 - m_2)
    away_v = tl.zeros([BLOCK], tl.float32)
    noise_v = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        inside = start + lane < count
        n = tl.load(numbers + start + lane, mask=inside, other=0.0)
        some = n >= FEWEST
        own = tl.load(dispersions + start + lane, mask=inside, other=0.0)
        excess = tl.load(excesses + start + lane, mask=inside, other=0.0)
        away = tl.where(some, own - _expected(place, excess), 0.0)
        away_v += away * away
        noise_v += tl.where(some, variance / tl.where(some, n, FEWEST), 0.0)
    trust = 1.0 - tl.sum(noise_v) / tl.maximum(tl.sum(away_v), 1e-12)
    return place, statistic, tl.minimum(tl.maximum(trust, 0.0), 1.0)


@triton.jit(do_not_specialize=["all_rows", "count", "rank"])
def weights(
    fits, mixed, all_rows, count, rank,
    kappa_rho, kappa_aic, margin, kappa_end, number, slope_number, slope_max,
    REFERENCE: tl.constexpr, AIC: tl.constexpr, POOL: tl.constexpr, POSITIVES: tl.constexpr, FIXED: tl.constexpr,
    OWN_SLOPE: tl.constexpr, BOUNDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`weince.gate.mix` of one batch a program: weights, then slopes, into `mixed`, (2, all_rows).

    Args:
        fits: a `TailFit` of pointers. Batches of `count` anchors lie one after the other.
        rank: of the reference of nearness, from 1.
        number, slope_number: where they are fixed.
    """
    first = tl.program_id(0) * count
    slopes, _, gaps, nearnesses, dispersions, excesses, numbers, beaten, valid = fits
    lane = tl.arange(0, BLOCK)
    reference = tl.full([], 1.0, tl.float32)
    if REFERENCE:
        reference = _nearest_of_rank(nearnesses + first, count, rank, BLOCK)
    place = tl.full([], 0.0, tl.float32)
    statistic = place
    trust = place
    if POOL:
        place, statistic, trust = _end_of(dispersions + first, excesses + first, numbers + first, count, BLOCK)
    shared = tl.full([], 1.0, tl.float32)
    if POSITIVES:
        beaten_v = tl.zeros([BLOCK], tl.float32)
        known_v = tl.zeros([BLOCK], tl.float32)
        for start in range(0, count, BLOCK):
            value = tl.load(beaten + first + start + lane, mask=start + lane < count, other=float("nan"))
            known = value == value
            beaten_v += tl.where(known, value, 0.0)
            known_v += known.to(tl.float32)
        known = tl.sum(known_v)
        share = tl.sum(beaten_v) / tl.maximum(known, 1.0)
        shared = tl.where(known > 0.0, tl.sigmoid(20.0 * (share - 0.5)), 0.0)
    for start in range(0, count, BLOCK):
        at = start + lane
        inside = at < count
        weight = tl.full([BLOCK], 1.0, tl.float32)
        if FIXED:
            weight = weight * number
        if REFERENCE:
            nearness = tl.load(nearnesses + first + at, mask=inside, other=1.0)
            weight = weight * tl.sigmoid(kappa_rho * (tl.log(reference) - tl.log(nearness)))
        if POOL:
            dispersion = tl.load(dispersions + first + at, mask=inside, other=1.0)
            excess = tl.maximum(tl.load(excesses + first + at, mask=inside, other=1.0), 1e-6)
            points = tl.load(numbers + first + at, mask=inside, other=0.0)
            expected = _expected(place, excess)
            own = expected + trust * (dispersion - expected)
            ends = (2.0 / own - 1.0) / excess
            end = tl.sigmoid(2.0 * (statistic - 3.0))
            end = end * tl.sigmoid(kappa_end * (ends - 0.5)) * tl.sigmoid(kappa_end * (1.5 - ends))
            weight = weight * tl.where(points >= FEWEST, end, 0.0)
        if POSITIVES:
            weight = weight * shared
        if AIC:
            gap = tl.load(gaps + first + at, mask=inside, other=0.0)
            weight = weight * tl.sigmoid(kappa_aic * (gap - margin))
        slope = tl.full([BLOCK], 1.0, tl.float32) * slope_number
        if OWN_SLOPE:
            slope = tl.load(slopes + first + at, mask=inside, other=0.0)
            weight = tl.where(tl.load(valid + first + at, mask=inside, other=0) != 0, weight, 0.0)
        if BOUNDED:
            slope = tl.minimum(slope, slope_max)
        tl.store(mixed + first + at, weight, mask=inside)
        tl.store(mixed + all_rows + first + at, slope, mask=inside)


@triton.jit
def _logits(S, stride, roles, row, column, M, weight, slope, scale, eps, ZERO: tl.constexpr):
    """Similarities, logits, their derivative, and which columns are positives and negatives."""
    inside = column < M
    s = tl.load(S + row * stride + column, mask=inside, other=0.0)
    positive, negative = _columns(roles, row, column, inside)
    logit = s * scale
    derivative = tl.zeros_like(s) + scale
    if not ZERO:
        raw = 1.0 - s
        delta = tl.maximum(raw, eps)
        logit = s * (scale * (1.0 - weight)) - (weight * slope) * tl.log(delta)
        derivative = scale * (1.0 - weight) + tl.where(raw > eps, weight * slope / delta, 0.0)
    return s, logit, derivative, positive, negative


@triton.jit
def _log1p_exp(x):
    """log(1 + exp(x)), with the relative precision of small ones: log(1 + u) is 2 atanh(u / (2 + u))."""
    u = tl.exp(-tl.abs(x))
    r = u / (2.0 + u)
    q = r * r
    series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13 + q / 15))))))
    return tl.maximum(x, 0.0) + 2.0 * r * series


@triton.jit
def conclude(
    S, stride, roles, M, mixed_weight, mixed_slope, scale_at, eps, smoothing, factor, losses, counted, of_scale,
    ZERO: tl.constexpr, SMOOTH: tl.constexpr, DECOUPLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss of a row, and its similarities replaced by the gradient in them.

    Args:
        S: (t, M), rows `stride` apart; overwritten where `factor` is given.
        mixed_weight, mixed_slope: (t,). ZERO: every weight is 0.
        scale_at: 1 / tau, one number.
        factor: (t,), or None where no gradient is wanted.
        losses, counted: (t,), written. of_scale: (t,) or None, likewise.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    scale = tl.load(scale_at)
    weight = tl.full([], 0.0, tl.float32)
    slope = weight
    if not ZERO:
        weight = tl.load(mixed_weight + row)
        slope = tl.load(mixed_slope + row)
    top = tl.full([], LOWEST, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    top_won = tl.full([], LOWEST, tl.float32)
    total_won = tl.full([], 0.0, tl.float32)
    positives_v = tl.zeros([BLOCK], tl.float32)
    negatives_v = tl.zeros([BLOCK], tl.float32)
    sum_won_v = tl.zeros([BLOCK], tl.float32)
    sum_lost_v = tl.zeros([BLOCK], tl.float32)
    for start in range(0, M, BLOCK):
        _, logit, _, positive, negative = _logits(
            S, stride, roles, row, start + lane, M, weight, slope, scale, eps, ZERO
        )
        new = tl.maximum(top, tl.max(tl.where(negative, logit, LOWEST)))
        total = total * tl.exp(top - new) + tl.sum(tl.where(negative, tl.exp(logit - new), 0.0))
        top = new
        new = tl.maximum(top_won, tl.max(tl.where(positive, logit, LOWEST)))
        total_won = total_won * tl.exp(top_won - new) + tl.sum(tl.where(positive, tl.exp(logit - new), 0.0))
        top_won = new
        positives_v += positive.to(tl.float32)
        sum_won_v += tl.where(positive, logit, 0.0)
        if SMOOTH:
            negatives_v += negative.to(tl.float32)
            sum_lost_v += tl.where(negative, logit, 0.0)
    positives = tl.sum(positives_v)
    some = tl.maximum(positives, 1.0)
    sum_won = tl.sum(sum_won_v)
    # One positive: exactly its own logit.
    won = tl.where(positives > 1.0, top_won + tl.log(total_won), sum_won)
    mean = sum_won / some
    log_odds = won - (top + tl.log(total))
    lost = -log_odds if DECOUPLED else _log1p_exp(-log_odds)
    loss = (won - mean) + lost
    candidates = some
    if SMOOTH:
        candidates = tl.maximum(positives + tl.sum(negatives_v), 1.0)
        everyone = (sum_won + tl.sum(sum_lost_v)) / candidates
        loss = (1.0 - smoothing) * loss + smoothing * ((won - everyone) + lost)
    live = positives > 0.0
    if DECOUPLED:
        live = live & (total > 0.0)
    tl.store(losses + row, tl.where(live, loss, 0.0))
    tl.store(counted + row, (positives > 0.0).to(tl.int8))
    if factor is not None:
        share = tl.where(live, tl.load(factor + row), 0.0)
        losing = tl.full([], 1.0, tl.float32)
        if not DECOUPLED:
            losing = 1.0 / (1.0 + tl.exp(log_odds))
        of_negatives = losing * share / tl.maximum(total, TINY)
        everywhere = smoothing / candidates if SMOOTH else 0.0
        along_v = tl.zeros([BLOCK], tl.float32)
        for start in range(0, M, BLOCK):
            s, logit, derivative, positive, negative = _logits(
                S, stride, roles, row, start + lane, M, weight, slope, scale, eps, ZERO
            )
            lost_share = tl.exp(tl.where(negative, logit - top, 0.0)) * of_negatives
            # Of one positive exactly 1: a fused product and difference would not be.
            won_share = tl.where(positives > 1.0, tl.exp(tl.where(positive, logit - won, 0.0)), 1.0)
            of_positives = -losing * won_share + (won_share - 1.0 / some)
            if SMOOTH:
                lost_share = lost_share - everywhere * share
                of_positives = of_positives + smoothing / some - everywhere
            gradient = tl.where(positive, of_positives * share, tl.where(negative, lost_share, 0.0))
            along_v += gradient * s
            tl.store(S + row * stride + start + lane, gradient * derivative, mask=start + lane < M)
        if of_scale is not None:
            tl.store(of_scale + row, (1.0 - weight) * tl.sum(along_v))


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
