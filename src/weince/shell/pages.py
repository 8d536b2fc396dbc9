"""The pages: one builder, one style, one set of macros; each page opens offline, with all that it shows inside.

A template extends shell/page.html and takes its pieces from shell/macros.html. Where it has a payload, its block
`script` finds that as `data`, and what plots share in plots.js; it draws them all in a function `redraw`, which is
called again when the screen turns dark or light. What nobody can use without scripts has the class "interactive".
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weince.shell.files import json_text

__all__ = ["render"]


def render(template: str, *, payload: Any = None, **values: Any) -> str:
    """A page, with its data and, where it has any, the library that draws them.

    Args:
        template: path of the page inside the package.
        payload: plain data for the page's script.
        values: for the template; escaped.
    """
    environment = Environment(loader=PackageLoader("weince", ""), autoescape=True, undefined=StrictUndefined)
    if payload is not None:
        from plotly.offline import get_plotlyjs

        # In a script only "<" could end it.
        data = Markup(json_text(payload).replace("<", "\\u003c"))
        values = {**values, "payload": data, "plotly": Markup(get_plotlyjs())}
    return environment.get_template(template).render(**values)
