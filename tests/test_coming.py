"""docs/coming-from-mkvalidrcptto.md shows what `diff` says of such a host, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hosts import Dir, cdb_bytes
from runs import Names, Site, called

PAGE = Path(__file__).parent.parent / "docs" / "coming-from-mkvalidrcptto.md"

pytestmark = [pytest.mark.root, pytest.mark.needs("checkout")]

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002, "svc": 1005, "backup": 34},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\nclub.example:ann-club\n",
    "control/rcpthosts": "example.org\nshop.example\nclub.example\n",
    "users/assign": "=helpdesk:ann:1002:1002:/home/ann:-:desk:\n.\n",
    "~svc": Dir(uid=0),
    "~joe/.qmail-list": "ann\n",
    "~joe/.qmail-old": "|bouncesaying gone\n",
    "~joe/.qmail-shop-default": "|bouncesaying closed\n",
    "~ann/.qmail-desk": "joe\n",
    "~ann/.qmail-club-default": "joe\n",
    "~ann/.qmail-club-spam": "|bouncesaying no\n",
    "alias/.qmail-postmaster": "joe\n",
    "alias/.qmail-Info": "joe\n",
}

LISTED = [
    "joe",
    "joe-list",
    "joe-old",
    "joe-shop-default",
    "ann",
    "ann-desk",
    "ann-club-default",
    "ann-club-spam",
    "svc",
    "postmaster",
    "Info",
]
"""What the script lists for the local domain: accounts by uid, and every dot-qmail file by its name."""


def test_the_page_shows_what_diff_says(tmp_path: Path) -> None:
    site = Site(tmp_path, NAMES)
    old = tmp_path / "old.cdb"
    keys = [f"{name}@example.org".encode() for name in LISTED] + [b"@shop.example", b"@club.example"]
    old.write_bytes(cdb_bytes([(key, b"") for key in keys]))
    shown = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0].splitlines()
    assert shown[0].startswith("# rcptgen diff ")
    done = called("diff", old, site.host.root)
    assert done.status == 1
    assert done.out.splitlines() == shown[1:]
