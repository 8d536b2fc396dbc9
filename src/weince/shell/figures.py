"""Figures of a page: drawings inside it, whose text is text and whose colours follow a light or dark screen."""

from __future__ import annotations

import io
import re
from hashlib import sha256
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

__all__ = ["png", "svg"]

INK, CARD = (0xE6, 0xE9, 0xEE), (0x1B, 0x20, 0x29)
"""Of style.css in the dark."""
LEAST_CONTRAST = 3.0
"""Of a line against what it is drawn on: WCAG 2.2, 1.4.11."""
SCALE = 24
"""Colours of a figure: more of them are a continuous scale, whose order lightening would break."""
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def png(figure: Figure, dpi: int = 140) -> bytes:
    """A figure as a picture on white, for documents that show files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def svg(figure: Figure, alt: str) -> Markup:
    """A figure as a drawing that stands in a page.

    Black is the page's ink and white its card, in the light and in the dark; other colours keep their hue, and are
    lightened on a dark screen as far as they need it to be seen. Text is drawn in ink whatever its colour, save white
    text, which stands on a mark. One panel a figure reads best on a phone: see `figure` in macros.html.

    Args:
        figure: of matplotlib.
        alt: what is to be seen, for those who do not see it.
    """
    name = "f" + sha256(alt.encode()).hexdigest()[:8]
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    name += sha256(drawn.encode()).hexdigest()[:8]
    root = ElementTree.fromstring(drawn)
    _drop(root, "metadata")
    _drop(root, "style")  # of all elements of the page, once it stands in one
    _rename(root, name)
    colours = _recolour(root)

    width = float(root.attrib["viewBox"].split()[2])
    for attribute in ("width", "height", "version"):
        del root.attrib[attribute]
    root.attrib |= {
        "id": name, "class": "drawing", "role": "img", "aria-label": alt, "fill": "currentColor",
        "stroke-linejoin": "round", "stroke-linecap": "butt", "style": f"--natural: {width:.0f}px",
    }  # fmt: skip
    if colours:
        style = ElementTree.Element(f"{SVG}style")
        inside = "; ".join(f"--{key}: {value}" for key, value in colours.items())
        style.text = f"@media (prefers-color-scheme: dark) {{ #{name} {{ {inside} }} }}"
        root.insert(0, style)
    title = ElementTree.Element(f"{SVG}title")
    title.text = alt
    root.insert(0, title)
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", LINK[1:].split("}")[0])
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _drop(root: ElementTree.Element, tag: str) -> None:
    for parent in list(root.iter()):
        for child in parent.findall(f"{SVG}{tag}"):
            parent.remove(child)


def _rename(root: ElementTree.Element, name: str) -> None:
    """Names that several figures of a page share would be taken from the first; names that nothing uses go."""
    used = {element.attrib[LINK] for element in root.iter() if element.attrib.get(LINK, "").startswith("#")}
    used |= {f"#{found}" for element in root.iter() for found in re.findall(r"url\(#([^)]+)\)", str(element.attrib))}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if f"#{own}" in used:
            element.set("id", f"{name}-{own}")
        if element.attrib.get(LINK, "").startswith("#"):
            element.set(LINK, f"#{name}-{element.attrib[LINK][1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{name}-"))


def _recolour(root: ElementTree.Element) -> dict[str, str]:
    """Name colours that a dark screen changes; returns what they become there."""
    styled = [element for element in root.iter() if "style" in element.attrib]
    found = {colour for element in styled for colour in re.findall(r"#[0-9a-f]{6}", element.attrib["style"])}
    dark = {} if len(found) > SCALE else {colour: _dark(colour) for colour in found}
    dark = {colour: other for colour, other in dark.items() if other != colour}
    for element in styled:
        style = element.attrib["style"]
        if element.tag == f"{SVG}text":
            style = re.sub(r"font-family: [^;]*", "font-family: system-ui, sans-serif", style)
            style = re.sub(r"fill: #(?!ffffff)[0-9a-f]{6};? ?", "", style)
        else:
            style = style.replace("#000000", "currentColor")
            style = re.sub(r"#([0-9a-f]{6})", lambda m: f"var(--{_key(m[0])}, {m[0]})" if m[0] in dark else m[0], style)
        element.set("style", style)
    return {_key(colour): other for colour, other in sorted(dark.items()) if colour != "#000000"}


def _key(colour: str) -> str:
    return f"c{colour[1:]}"


def _dark(colour: str) -> str:
    """A grey between ink and card as it was between black and white; another colour towards ink until it is seen."""
    parts = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
    if max(parts) - min(parts) <= 8:
        return _mixed(INK, CARD, sum(parts) / (3 * 255))
    share = 0.0
    while _contrast(_mixed(parts, INK, share), CARD) < LEAST_CONTRAST:
        share += 0.05
    return _mixed(parts, INK, share)


def _mixed(one: tuple[int, ...], other: tuple[int, ...], share: float) -> str:
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(one, other, strict=True))


def _contrast(colour: str, ground: tuple[int, ...]) -> float:
    """WCAG's ratio of the luminances of two colours, the lighter over the darker."""
    parts = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
    high, low = sorted((_luminance(parts), _luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(parts: tuple[int, ...]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in parts)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
