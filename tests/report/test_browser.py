"""The page in a real browser: it opens within a second, asks for nothing, and can be seen."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from parts import browse
from runs import Names, Site, forked_workers

from rcptgen.config import Config
from rcptgen.report import gather, rendered
from rcptgen.request import Output, Request

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("chromium")]

NAMES: Names = {
    "control/me": "mail.example\n",
    "control/locals": "mail.example\n",
    "alias/.qmail-info": "./Mailbox\n",
    "alias/.qmail-list-default": "|bouncesaying <b>no</b>\n./Mailbox\n",
}
DOMAINS = 10_000
SECONDS = 1.0

_TIMED = (
    "<script>addEventListener('load', () => {"
    "document.title = `laid out to ${document.body.offsetHeight} pixels after ${performance.now()}`})</script>"
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page of a small host, with 10,000 domains in its tables."""
    site = Site(tmp_path, NAMES)
    with forked_workers():
        found = gather(site.host.root, Config(), Request((Output("validrcptto", b"/nowhere"),)))
    rows = found.census.rows
    names = [b"<b>domain-%05d</b>.example.org" % number for number in range(DOMAINS)]
    found.census.rows = [replace(rows[0], name=name, counts=(number, 1, 2, 3, 4)) for number, name in enumerate(names)]
    file = tmp_path / "page.html"
    file.write_text("".join(rendered(found)))
    assert file.stat().st_size < 3_000_000
    return file


def test_it_opens_within_a_second(tmp_path: Path, page: Path) -> None:
    timed = tmp_path / "timed.html"
    text = page.read_text()
    # The same page, but for the policy that lets no script run.
    text = text.replace('http-equiv="Content-Security-Policy"', 'name="policy"').replace("</body>", f"{_TIMED}</body>")
    timed.write_text(text)
    taken = []
    for _ in range(5):
        found = re.search(
            r"<title>laid out to [0-9]{4,} pixels after ([0-9.]+)", browse("--dump-dom", timed.as_uri()).stdout
        )
        assert found is not None
        taken.append(float(found[1]) / 1000)
        if taken[-1] < SECONDS:
            break
    assert min(taken) < SECONDS, taken


def asked(log: Path) -> set[str]:
    """What pages of files asked the network for; the browser's own questions are not theirs."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if '"network_isolation_key":"file:' in line]
    return {found[1] for line in lines if (found := re.search(r'"url":"(http[^"]*)"', line))}


def test_it_asks_for_nothing_and_its_policy_holds(tmp_path: Path, page: Path) -> None:
    log = tmp_path / "net.json"
    watched = "--dump-dom", "--enable-logging=stderr", f"--log-net-log={log}", page.as_uri()
    done = browse("--window-size=800,600", *watched)
    assert "Content Security Policy" not in done.stderr
    assert done.stdout.count("&lt;b&gt;domain-") == DOMAINS + 25
    assert asked(log) == set()
    # A picture from elsewhere would be seen in that log, and the policy keeps it out.
    text, elsewhere = page.read_text(), "http://127.0.0.1:9/picture"
    page.write_text(text.replace("<body>", f'<body><img src="{elsewhere}">'))
    assert "Content Security Policy" in browse(*watched).stderr
    assert asked(log) == set()
    page.write_text(page.read_text().replace('http-equiv="Content-Security-Policy"', 'name="policy"'))
    browse(*watched)
    assert asked(log) == {elsewhere}
    # With a style that the policy does not know it is refused: the policy is in force.
    page.write_text(text.replace("<style>", "<style>/* */"))
    refused = browse(*watched)
    assert "Content Security Policy" in refused.stderr


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_seen(tmp_path: Path, page: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse("--window-size=800,600", f"--screenshot={shot}", *dark, page.as_uri())
    pixels = colours(shot.read_bytes())
    paper, ink = max(pixels, key=lambda one: pixels[one]), min(pixels, key=sum) if not dark else max(pixels, key=sum)
    assert pixels[paper] > 0.3 * sum(pixels.values())
    assert (sum(paper) > 600) == (scheme == "light"), paper
    assert abs(sum(paper) - sum(ink)) > 400, "text stands out from its paper"
    assert len(pixels) > 50


def colours(png: bytes) -> dict[tuple[int, int, int], int]:
    """How often each colour stands in a PNG of 8 bits without interlacing."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", png[16:29])
    size = {2: 3, 6: 4}[kind]
    assert (depth, interlaced) == (8, 0)
    packed, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    data = zlib.decompress(packed)
    found: dict[tuple[int, int, int], int] = {}
    above = bytearray(width * size)
    for row in range(height):
        start = row * (width * size + 1)
        line = unfiltered(data[start], bytearray(data[start + 1 : start + 1 + width * size]), above, size)
        for pixel in range(0, len(line), size):
            colour = line[pixel], line[pixel + 1], line[pixel + 2]
            found[colour] = found.get(colour, 0) + 1
        above = line
    return found


def unfiltered(how: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    """One row of a PNG as it was before its filter."""
    for at in range(len(line)):
        left = line[at - size] if at >= size else 0
        up, corner = above[at], above[at - size] if at >= size else 0
        if how == 4:
            guess = left + up - corner
            _, _, nearest = min((abs(guess - one), number, one) for number, one in enumerate((left, up, corner)))
        else:
            nearest = (0, left, up, (left + up) // 2)[how]
        line[at] = (line[at] + nearest) & 255
    return line
