"""Pages in a real browser, offline, and what every one of them owes its readers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

UNREADABLE = """
() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + [.2126, .7152, .0722][k] * v, 0);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > .9) return colour;
    }
    return [255, 255, 255];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || element.closest("script, style, noscript, title, defs") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), ink = numbers(element instanceof SVGElement ? style.fill : style.color);
    if (style.visibility === "hidden" || ink[3] === 0) continue;
    const [low, high] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
    if ((high + .05) / (low + .05) < 4.5) found.push(`${text}: ${ink} on ${ground(element)}`);
  }
  return found;
}
"""
"""Texts whose contrast is below WCAG's 4.5 : 1, as they stand on the screen."""


@contextmanager
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "Chromium is missing: `make test` installs it"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def opened(running: Browser, path: Path, width: int = 1200, **context: Any) -> Iterator[Page]:
    """A page; fails on an error of a script and on a request of anything but the file."""
    problems: list[str] = []
    offline = running.new_context(offline=True, viewport={"width": width, "height": 1000}, **context)
    page = offline.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))
    page.goto(path.as_uri())
    yield page
    offline.close()
    assert problems == []


def owes(running: Browser, path: Path) -> None:
    """A page that is readable at 400 and 1,080 pixels, in the light and in the dark, by eye and by screen reader."""
    with opened(running, path, 400, color_scheme="dark") as page:
        for summary in page.locator("summary").all():
            summary.click()
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            unreadable = page.evaluate(UNREADABLE)
            assert not unreadable, (scheme, unreadable)
        for width in (400, 1080):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # What is wide scrolls in a box of its own, and leaves headings and text where they are.
            fits = "[...document.querySelectorAll('section')].every(s => s.scrollWidth <= s.clientWidth)"
            page.wait_for_function(fits, timeout=5000)  # plots follow a new width after a moment
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels)), levels
        assert page.locator("thead th:not([scope=col]), tbody th:not([scope])").count() == 0
        nameless = "[role=img]:not([aria-label]), [role=figure]:not([aria-label]), img:not([alt])"
        assert page.locator(nameless).count() == 0
