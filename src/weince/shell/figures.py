"""Figures inside a page."""

from __future__ import annotations

import io

from markupsafe import Markup
from matplotlib.figure import Figure

__all__ = ["svg"]


def svg(figure: Figure, alt: str) -> Markup:
    """Placeholder."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return Markup(buffer.getvalue())
