"""From the tails of a batch to weights and slopes: one program a batch."""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from weince.tiles.kernels.roles import up_to_digit

FEWEST = tl.constexpr(8.0)


@triton.jit
def _nearest_of_rank(nearness, count, rank, BLOCK: tl.constexpr):
    """The rank-th smallest nearness of a batch."""
    lane = tl.arange(0, BLOCK)
    found = tl.full([], 0, tl.int32)
    for step in range(31):
        end = up_to_digit(found, 30 - step, tl.full([], 0, tl.int32))
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
