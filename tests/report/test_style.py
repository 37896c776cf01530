"""The colours of the page can be told from each other, on light and on dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("rcptgen.report").joinpath("templates", "page.css").read_text("utf-8")
BLOCKS = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
LIGHT, DARK, *_ = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block)) for block in BLOCKS)
ENOUGH = 4.5
"""What WCAG 2.1 asks of text of ordinary size (1.4.3)."""


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        *((text, behind) for text in ("ink", "soft", "accent") for behind in ("paper", "card", "fill")),
        *((text, "card") for text in ("good", "warn", "bad")),
        *((text, f"{kind}-fill") for text in ("ink", "accent") for kind in ("good", "warn", "bad")),
    ],
)
def test_text_stands_out(colours: dict[str, str], text: str, behind: str) -> None:
    dark, bright = sorted((luminance(colours[text]), luminance(colours[behind])))
    assert (bright + 0.05) / (dark + 0.05) >= ENOUGH
