"""The oracle: WEINCE of two views in plain float64 loops, to be held beside the specification section by section.

Nothing is vectorised, shared or clever here. `gate` is anything with the fields of section 5; a batch is the list of
all 2N rows, view a before view b; a shortfall is 1 - s.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

# ---- Section 2: notation


def normalise(rows: list[list[float]]) -> list[list[float]]:
    unit = []
    for row in rows:
        length = math.hypot(*row)
        unit.append([x / length if length > 0 else 0.0 for x in row])
    return unit


def similarities(z_a: list[list[float]], z_b: list[list[float]]) -> list[list[float]]:
    views = normalise(z_a + z_b)
    return [[sum(x * y for x, y in zip(u, v, strict=True)) for v in views] for u in views]


def positive(i: int, anchors: int) -> int:
    return (i + anchors // 2) % anchors


def negatives(i: int, anchors: int) -> list[int]:
    return [j for j in range(anchors) if j != i and j != positive(i, anchors)]


# ---- Section 3: the loss


def logit(s: float, weight: float, slope: float, temperature: float, eps: float) -> float:
    return (1 - weight) * s / temperature + weight * (-slope * math.log(max(1 - s, eps)))


def cross_entropy(won: float, others: list[float]) -> float:
    """-log softmax of the winner = log(1 + sum of exp(other - winner)), with the relative precision of small losses."""
    gaps = [other - won for other in others]
    top = max(0.0, *gaps)
    if top == 0:
        return math.log1p(sum(math.exp(gap) for gap in gaps))
    return top + math.log(math.exp(-top) + sum(math.exp(gap - top) for gap in gaps))


def anchor_losses(
    s: list[list[float]], weight: list[float], slope: list[float], temperature: float, eps: float
) -> list[float]:
    losses = []
    for i in range(len(s)):
        logits = [logit(x, weight[i], slope[i], temperature, eps) for x in s[i]]
        others = [logits[j] for j in negatives(i, len(s))]
        losses.append(cross_entropy(logits[positive(i, len(s))], others))
    return losses


def gradient(
    z_a: list[list[float]],
    z_b: list[list[float]],
    weight: list[float],
    slope: list[float],
    temperature: float,
    eps: float,
) -> list[list[float]]:
    """Of the mean loss with respect to the rows of both views, by the chain rule; weight and slope are constants."""
    rows, units, s = z_a + z_b, normalise(z_a + z_b), similarities(z_a, z_b)
    count, width = len(rows), len(rows[0])
    by_unit = [[0.0] * width for _ in rows]
    for i in range(count):
        won = logit(s[i][positive(i, count)], weight[i], slope[i], temperature, eps)
        gaps = {j: logit(s[i][j], weight[i], slope[i], temperature, eps) - won for j in negatives(i, count)}
        top = max(0.0, *gaps.values())
        total = math.exp(-top) + sum(math.exp(gap - top) for gap in gaps.values())
        by_logit = {j: math.exp(gap - top) / total for j, gap in gaps.items()}
        by_logit[positive(i, count)] = -sum(by_logit.values())
        for j, share in by_logit.items():
            shortfall = 1 - s[i][j]
            by_s = (1 - weight[i]) / temperature + (weight[i] * slope[i] / shortfall if shortfall > eps else 0.0)
            for d in range(width):
                by_unit[i][d] += share * by_s * units[j][d] / count
                by_unit[j][d] += share * by_s * units[i][d] / count
    by_row = []
    for row, u, g in zip(rows, units, by_unit, strict=True):
        length = math.hypot(*row)
        radial = sum(x * y for x, y in zip(g, u, strict=True))
        by_row.append([(x - radial * y) / length if length > 0 else 0.0 for x, y in zip(g, u, strict=True)])
    return by_row


# ---- Section 4: the tail fit


class Fit(NamedTuple):
    slope: float
    r2: float
    aic_gap: float
    nearness: float
    dispersion: float
    excess: float
    points: float
    beaten: float
    valid: bool


def tail_size(count: int, tail_fraction: float, tail_min: int) -> int:
    return min(count, max(tail_min, 10, round(tail_fraction * count)))


def line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Ordinary least squares of y on x: slope, SSE, R^2."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    s_xx = sum((v - mean_x) ** 2 for v in x)
    s_yy = sum((v - mean_y) ** 2 for v in y)
    s_xy = sum((v - mean_x) * (w - mean_y) for v, w in zip(x, y, strict=True))
    slope = s_xy / max(s_xx, 1e-12)
    sse = sum((w - mean_y - slope * (v - mean_x)) ** 2 for v, w in zip(x, y, strict=True))
    sse = max(sse, 1e-12)
    return slope, sse, 1 - sse / s_yy


def fit_tail(shortfalls: list[float], k_tail: int, eps: float) -> Fit:
    delta = sorted(max(shortfall, eps) for shortfall in shortfalls)[:k_tail]
    burn = max(1, k_tail // 20)
    n = k_tail - burn
    if n < 2:
        return Fit(0.0, 0.0, 0.0, delta[0], *moments(delta), math.nan, valid=False)
    f = [k / (k_tail + 1) for k in range(1, k_tail + 1)]
    x = [math.log(v) for v in delta[burn:]]
    slope_w, sse_w, r2 = line(x, [math.log(v) for v in f[burn:]])
    slope_g, sse_g, _ = line(x, [math.log(-math.log(v)) for v in f[burn:]])
    if slope_w <= 0:
        sse_w += 1e6
    if slope_g >= 0:
        sse_g += 1e6
    aic_w = n * math.log(sse_w / n) + 4
    aic_g = n * math.log(sse_g / n) + 4
    return Fit(max(slope_w, 0.0), r2, aic_g - aic_w, delta[0], *moments(delta), math.nan, valid=slope_w > 0)


def moments(delta: list[float]) -> tuple[float, float, float]:
    """Dispersion, mean excess and number of the exceedances over the smallest similarity of a tail."""
    y = [delta[-1] - value for value in delta[:-1]]
    if len(y) < 2 or sum(y) == 0:
        return 0.0, 0.0, 0.0
    mean = sum(y) / len(y)
    square = sum(value**2 for value in y) / len(y)
    return (len(y) + 1) / len(y) * square / mean**2, mean / delta[-1], float(len(y))


def likelihood_slope(shortfalls: list[float], k_tail: int, eps: float) -> float:
    """Section 8: the maximum-likelihood exponent, unbiased form."""
    delta = sorted(max(shortfall, eps) for shortfall in shortfalls)[:k_tail]
    return (k_tail - 2) / sum(math.log(delta[-1] / value) for value in delta[:-1])


def tail_fits(s: list[list[float]], tail_fraction: float, tail_min: int, eps: float) -> list[Fit]:
    fits = []
    for i in range(len(s)):
        shortfalls = [1 - s[i][j] for j in negatives(i, len(s))]
        fit = fit_tail(shortfalls, tail_size(len(shortfalls), tail_fraction, tail_min), eps)
        fits.append(fit._replace(beaten=float(max(1 - s[i][positive(i, len(s))], eps) > fit.nearness)))
    return fits


# ---- Section 5: the gate


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def nearness_reference(nearness: list[float], quantile: float) -> float:
    return sorted(nearness)[round(quantile * (len(nearness) - 1))]


def end_weights(fits: list[Fit], kappa: float) -> list[float]:
    """Whether the tails of all end, and whether at the cap."""
    inside = [fit for fit in fits if fit.points >= 8]
    if not inside:
        return [0.0] * len(fits)
    mean = sum(fit.dispersion for fit in inside) / len(inside)
    null = sum(4 * (fit.points - 1) / ((fit.points + 2) * (fit.points + 3)) for fit in inside)
    z = sum(2 - fit.dispersion for fit in inside) / math.sqrt(2 * null)
    place = (2 / mean - 1) / (sum(fit.excess for fit in inside) / len(inside))

    def expected(fit: Fit) -> float:
        return 2 / max(1 + place * fit.excess, 0.5)

    xi = min(max((mean - 2) / max(2 * (mean - 1), 1e-3), -2.0), 0.2)
    m = [1.0, 1.0]
    for r in (2, 3, 4):
        m.append(m[-1] * r * (1 - xi) / (1 - r * xi))
    variance = m[4] - m[2] ** 2 + 4 * m[2] ** 2 * (m[2] - 1) - 4 * m[2] * (m[3] - m[2])
    noise = sum(variance / fit.points for fit in inside)
    found = sum((fit.dispersion - expected(fit)) ** 2 for fit in inside)
    trust = min(max(1 - noise / max(found, 1e-12), 0.0), 1.0)
    weights = []
    for fit in fits:
        if fit.points < 8:
            weights.append(0.0)
            continue
        own = (2 / (expected(fit) + trust * (fit.dispersion - expected(fit))) - 1) / fit.excess
        weights.append(sigmoid(2 * (z - 3)) * sigmoid(kappa * (own - 0.5)) * sigmoid(kappa * (1.5 - own)))
    return weights


def mix(fits: list[Fit], gate: Any) -> tuple[list[float], list[float]]:
    """Weights and slopes of all anchors, with the ablations of section 5 and the forms of section 6."""
    rho_0 = nearness_reference([fit.nearness for fit in fits], gate.quantile)
    ends = end_weights(fits, gate.kappa_end)
    judged = [fit.beaten for fit in fits if not math.isnan(fit.beaten)]
    most = sigmoid(20 * (sum(judged) / len(judged) - 0.5)) if judged else 0.0
    weights, slopes = [], []
    for fit, end in zip(fits, ends, strict=True):
        near = sigmoid(gate.kappa_rho * (math.log(rho_0) - math.log(fit.nearness)))
        aic = sigmoid(gate.kappa_aic * (fit.aic_gap - gate.margin))
        weight = {
            "both": near * aic,
            "nearness": near,
            "aic": aic,
            "endpoint": end,
            "nearness*endpoint": near * end,
            "beaten*endpoint": most * end,
        }.get(gate.evidence, gate.evidence)
        if gate.slope == "anchor" and not fit.valid:
            weight = 0.0
        slope = {"anchor": fit.slope, "unit": 1.0}.get(gate.slope, gate.slope)
        weights.append(weight)
        slopes.append(slope if gate.slope_max is None else min(slope, gate.slope_max))
    return weights, slopes


class Weince(NamedTuple):
    per_anchor: list[float]
    weight: list[float]
    slope: list[float]
    fits: list[Fit]


def weince(s: list[list[float]], temperature: float, gate: Any, eps: float = 1e-6) -> Weince:
    fits = tail_fits(s, gate.tail_fraction, gate.tail_min, eps)
    weight, slope = mix(fits, gate)
    return Weince(anchor_losses(s, weight, slope, temperature, eps), weight, slope, fits)


# ---- Section 6: the released extra terms


def top_m_loss(
    s: list[list[float]], top: int, weight: float, slope: float, temperature: float, eps: float = 1e-6
) -> float:
    losses = []
    for i in range(len(s)):
        hardest = sorted((s[i][j] for j in negatives(i, len(s))), reverse=True)[:top]
        logits = [logit(x, weight, slope, temperature, eps) for x in hardest]
        won = logit(s[i][positive(i, len(s))], weight, slope, temperature, eps)
        losses.append(cross_entropy(won, logits))
    return sum(losses) / len(losses)


def pooled_fit(s: list[list[float]], eps: float = 1e-6) -> Fit | None:
    shortfalls = [1 - s[i][j] for i in range(len(s)) for j in negatives(i, len(s))]
    if len(shortfalls) < 10:
        return None
    return fit_tail(shortfalls, min(len(shortfalls), max(1024, int(0.05 * len(shortfalls)))), eps)


def moved_slope(slope: float, pooled: Fit | None, momentum: float = 0.9) -> float:
    if pooled is None or pooled.r2 < 0.85 or pooled.slope <= 0:
        return slope
    return momentum * slope + (1 - momentum) * min(max(pooled.slope, 0.5), 16.0)


# ---- Any contest: each anchor has its own list of candidates, some of them positives, some negatives


class Contest(NamedTuple):
    """Of one anchor."""

    anchor: list[float]
    candidates: list[list[float]]
    positives: list[int]
    negatives: list[int]


def contest_loss(
    logits: list[float], positives: list[int], negatives: list[int], smoothing: float, decoupled: bool
) -> float:
    """Cross-entropy with the target (1 - e) / |P| on positives plus e / |P + N| on all; 0 without a positive.

    Decoupled, the sum under the fraction is that of the negatives; 0 without one.
    """
    if not positives or (decoupled and not negatives):
        return 0.0
    everyone = positives + negatives
    if decoupled:
        top = max(logits[j] for j in negatives)
        under = top + math.log(math.fsum(math.exp(logits[j] - top) for j in negatives))
        over = [(1 - smoothing) / len(positives) * (j in positives) + smoothing / len(everyone) for j in everyone]
        return math.fsum(share * (under - logits[j]) for share, j in zip(over, everyone, strict=True))
    alone = {j: cross_entropy(logits[j], [logits[k] for k in everyone if k != j] or [-math.inf]) for j in everyone}
    of_positives = sum(alone[j] for j in positives) / len(positives)
    return (1 - smoothing) * of_positives + smoothing * sum(alone.values()) / len(everyone)


def weince_of(
    contests: list[Contest],
    temperature: float,
    gate: Any,
    eps: float = 1e-6,
    smoothing: float = 0.0,
    decoupled: bool = False,
) -> Weince:
    s = []
    for contest in contests:
        (u,) = normalise([contest.anchor])
        s.append([sum(x * y for x, y in zip(u, v, strict=True)) for v in normalise(contest.candidates)])
    fits = []
    for row, contest in zip(s, contests, strict=True):
        shortfalls = [1 - row[j] for j in contest.negatives]
        size = tail_size(len(shortfalls), gate.tail_fraction, gate.tail_min)
        none = Fit(0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, math.nan, valid=False)
        fit = fit_tail(shortfalls, size, eps) if shortfalls else none
        won = [max(1 - row[j], eps) for j in contest.positives]
        fits.append(fit._replace(beaten=float(min(won) > fit.nearness)) if won and shortfalls else fit)
    weight, slope = mix(fits, gate)
    losses = []
    for i, contest in enumerate(contests):
        logits = [logit(x, weight[i], slope[i], temperature, eps) for x in s[i]]
        losses.append(contest_loss(logits, contest.positives, contest.negatives, smoothing, decoupled))
    return Weince(losses, weight, slope, fits)
