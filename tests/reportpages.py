"""A page of `rcptgen report`, read as a browser would and more strictly, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "h1", "h2", "h3"),
    *("p", "ul", "ol", "li", "dl", "dt", "dd", "div", "span", "a", "b", "em", "small", "code", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "line", "path", "circle", "rect", "text", "g"),
}
"""What a page is made of; anything else came from a name."""

ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "scope", "tabindex", "role", "open"),
    *("aria-label", "aria-labelledby", "aria-hidden"),
    *("viewbox", "preserveaspectratio", "transform", "width", "height", "d", "x", "x1", "x2", "y", "y1", "y2"),
    *("cx", "cy", "r", "rx"),
}


@dataclass
class Cells:
    """One table: its caption, and the text of its cells, row by row, the heads first."""

    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)

    @property
    def body(self) -> list[dict[str, str]]:
        """The rows below the first one, by its titles."""
        titles = self.rows[0]
        return [dict(zip(titles, row, strict=True)) for row in self.rows[1:]]


class Page(HTMLParser):
    """The page: its text, its tables by caption, its style, every attribute.  AssertionError where it is unsound.

    Tables with one caption count as one.  `notes` are the items of its lists, `summaries` those of its details,
    `figures` the key figures.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.text = ""
        self.style = ""
        self.notes: list[str] = []
        self.summaries: list[str] = []
        self.figures: dict[str, int] = {}
        self.tables: dict[str, Cells] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self._table = Cells()
        self._title = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_decl(self, decl: str) -> None:
        assert (decl, self.text.strip()) == ("DOCTYPE html", "")

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        self._attributes(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        self._attributes(tag, attrs)
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self._table = Cells()
        elif tag == "tr":
            self._table.rows.append([])
        elif tag in ("td", "th"):
            self._table.rows[-1].append("")
        elif tag == "dt":
            self._title = ""
        elif tag == "li":
            self.notes.append("")
        elif tag == "summary":
            self.summaries.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop() == tag
        if tag == "table":
            known = self.tables.setdefault(self._table.caption, self._table)
            if known is not self._table:
                known.rows += self._table.rows[1:]

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
            return
        self.text += data
        if "caption" in self._open:
            self._table.caption += data
        elif "td" in self._open or "th" in self._open:
            self._table.rows[-1][-1] += data
        elif self._open[-1:] == ["dt"]:
            self._title += data
        elif self._open[-1:] == ["dd"] and data.strip():
            self.figures[self._title] = integer(data.strip())
        elif "li" in self._open:
            self.notes[-1] += data
        elif "summary" in self._open:
            self.summaries[-1] += data

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            self.attributes.append((tag, name, value or ""))

    def values(self, wanted: str) -> list[str]:
        """Every value of an attribute."""
        return [value for _, name, value in self.attributes if name == wanted]


def integer(text: str) -> int:
    """A number of the page, whatever its sign and however its digits stand; nothing is a zero."""
    return int(text.lstrip("+−~").replace(",", "") or 0)  # noqa: RUF001 - a minus sign
