"""Draws time per pair and peak memory by batch: `docs/cost.png` from `results.csv`; `gpu.py` draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from rows import read

OUT = Path(__file__).parent.parent / "docs" / "cost.png"
STYLES = {
    "WEINCE tiled": ("WEINCE", "#c2410c", "-", 2.4),
    "InfoNCE tiled": ("our InfoNCE", "#1d4ed8", "-", 2.4),
    "WEINCE dense": ("WEINCE, dense", "#c2410c", ":", 1.4),
    "lightly NTXentLoss": ("lightly NTXentLoss", "#15803d", "--", 1.6),
    "pytorch-metric-learning NTXent": ("pytorch-metric-learning", "#7e22ce", "--", 1.6),
    "floor (3 products)": ("three bare products", "#737373", "-.", 1.4),
}


def draw(rows: Sequence[Mapping[str, str]], out: Path, width: str = "128") -> None:
    """Draw the rows of one device and width; who was not measured is left out."""
    rows = [row for row in rows if row["width"] == width and row["value"] != "skipped"]
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for loss, (label, colour, line, weight) in STYLES.items():
        for ax, metric in ((left, "step_ms"), (right, "peak_mib")):
            points = sorted(
                (int(r["two_n"]), float(r["value"])) for r in rows if (r["loss"], r["metric"]) == (loss, metric)
            )
            if metric == "step_ms":
                points = [(n, 1e6 * ms / n**2) for n, ms in points]
            if points:
                xs, ys = zip(*points, strict=True)
                ax.plot(xs, ys, line, color=colour, linewidth=weight, marker="o", markersize=4, label=label)
    for ax, title in ((left, "forward + backward, ns a pair"), (right, "peak extra memory, MiB")):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("embeddings in the batch, 2N")
        ax.set_title(title, fontsize=10, loc="left")
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    device = rows[0]["device"]
    figure.suptitle(f"D = {width}, float32, {device}", fontsize=9, color="0.4", x=0.01, ha="left")
    figure.savefig(out, dpi=150, facecolor="white")
    print(out)


if __name__ == "__main__":
    draw(read(), OUT)
