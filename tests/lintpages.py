"""The hosts that the pages of `rcptgen lint` and `rcptgen doctor` describe, laid down."""

from __future__ import annotations

import datetime as dt
import os
import tomllib
from pathlib import Path
from typing import Any

from hosts import Dir, File, Host, Link, Thing, cdb_bytes, qmail_newu

from rcptgen.config import Config, parse
from rcptgen.lint.pages import common_host


def lay(root: Path, example: str, common: str = "") -> Host:
    """The host of an example below `root`; it stands on `common` (TOML), else on rcptgen/lint/pages/host.toml."""
    table = {**(tomllib.loads(common) if common else common_host()), **tomllib.loads(example)}
    laid = Host(root, {name: thing(name, what) for name, what in table.items()})
    for name, what in table.items():
        if isinstance(what, dict) and isinstance(what.get("mtime"), dt.datetime):
            when = what["mtime"].timestamp()
            os.utime(laid.path(name), (when, when))
    return laid


def configured(root: Path) -> Config:
    """The configuration that an example brings along."""
    file = root / "etc/rcptgen.toml"
    return parse(file.read_bytes(), "rcptgen.toml") if file.exists() else Config()


def thing(name: str, what: Any) -> Any:
    """What hosts.Host takes for an entry of an example."""
    if what is False:
        return None
    if isinstance(what, str) or name == "passwd":
        return what
    more = {key: what[key] for key in ("mode", "uid", "gid") if key in what}
    if "dir" in what:
        return Dir(**more)
    if "link" in what:
        return Link(what["link"])
    file: Thing = File(_content(what), **more)
    return file


def _content(what: dict[str, Any]) -> str | bytes:
    if "cdb" in what:
        return cdb_bytes([(os.fsencode(key), os.fsencode(value)) for key, value in what["cdb"].items()])
    if "assign" in what:
        return qmail_newu(os.fsencode(what["assign"]))
    if "repeat" in what:
        text: str = what["repeat"] * what["times"]
        return text
    found: str = what["content"]
    return found
