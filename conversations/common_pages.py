"""The pages that most answers are, as markdown in one way through their tags: paragraphs, headings, lists, tables,
code, formulas, emphasis and links, with nothing broken or odd in them. For those it gives what `html.to_markdown`
gives, byte for byte, in a third of its time; every other page it refuses.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product

from conversations import verbatim

DEEPEST = 50
"""Elements inside one another."""

_TOKEN = re.compile(
    r"<(strong>(?! )[^<>&]+(?<! )</strong(?!><strong)|code>[^<>&`]+</code|t[hd]>[^<>& ][^<>&]*(?<! )</t[hd]"
    r"|t[hd]><code>[^<>&`]+</code></t[hd]|/tr>\n?<tr|p>[^<]++</p|li>\n?<p|/p>\n?<p"
    r"|/p>\n?</li>\n?<li>\n?<p|/li>\n?<li(?!>\n?<p>)"
    r"|table>\n?<thead>\n?<tr|/tr>\n?</thead>\n?<tbody>\n?<tr|/tr>\n?</tbody>\n?</table"
    r"|[^<>]*)>(?:(?<=[pidhlrvy1-6]>)\n)?"
)
"""A tag; or for speed what is often between two, or two that often follow each other. With it a newline after it that
means nothing, because the element is a block.
"""
_VERBATIM = re.compile(r"<(?:pre>|(span|div) class=\"(?:math|katex)\b[^<>]*>)")
_LINK = re.compile(r"a href=\"([\w:/.?=&;%#+,@-]+)\"(?: (?:target|rel|class)=\"[^\"]*\")*")
_START = re.compile(r"ol start=\"(\d{1,6})\"")
_DIV = re.compile(r"div(?: class=\"[^\"]*\")?")
_MARKS_A_LINE = frozenset("#>+-*=~_|`\\ 0123456789")
"""Characters that the converter may escape, or leave out, where a line begins with them."""

_PLAIN_NUMBER = re.compile(r"\d+(?![\d.)])")

_EMPHASIS = {"strong": "**", "em": "*"}
_HEADINGS = {"p": ""} | {f"h{level}": "#" * level + " " for level in range(1, 7)}
_PARAGRAPHS, _AFTER_ITS_LIST, _BEFORE_ITS_LIST = "li of paragraphs", "li after its list", "li before its list"
_ROWS_OF = {"th": "thead", "td": "tbody"}
_HOLDS_BLOCKS = {"", "div", _PARAGRAPHS}
_NO_TEXT = _HOLDS_BLOCKS | {_AFTER_ITS_LIST, _BEFORE_ITS_LIST, "ul", "ol", "thead", "tbody"}
"""Elements that have only others in them."""


class Uncommon(Exception):
    """The page has something that is left to the converter."""


def to_markdown(page: str) -> str:
    """The markdown of a page. Raises Uncommon."""
    prose, kept = _without_verbatim(page)
    stars = "*" in prose and ("<strong>" in prose or "<em>" in prose)
    if stars or "\\" in prose or prose.rfind("  ") >= 0 or ("|" in prose and "<table" in prose):
        raise Uncommon
    if not prose.replace("\n", "").isprintable():
        raise Uncommon
    parts = _TOKEN.split(prose)
    texts = "".join(parts[::2])
    if "<" in texts or ">" in texts or parts[0]:
        raise Uncommon
    if "&" in texts:
        parts[::2] = [_unescaped(text) if "&" in text else text for text in parts[::2]]
    each = iter(parts)
    next(each)
    return _Page(kept).read(zip(each, each, strict=True))


def _unescaped(text: str) -> str:
    text = verbatim.unescaped(text)
    if not text.replace("\n", "").isprintable():
        raise Uncommon
    return text


def _without_verbatim(page: str) -> tuple[str, Iterator[str]]:
    """The page with tags `pre`, `tex` and `p tex` (a paragraph that is a formula) for code and TeX; and those."""
    kept: list[str] = []
    parts: list[str] = []
    at = 0
    while found := _VERBATIM.search(page, at):
        start, end = found.span()
        before = page[at:start]
        if name := found[1]:
            at = verbatim.end_of(page, start, name)
            tex = verbatim.tex(page[start:at])
            if not tex or (tex[1] != "$" and "\n" in tex):
                raise Uncommon
            kept.append(tex)
            if tex[1] == "$" and before.endswith("<p>") and page.startswith("</p>", at):
                parts += (before[:-3], "<p tex>")
                at += 4
            else:
                parts += (before, "<tex>")
        else:
            close = verbatim.closing("pre").search(page, end)
            code = verbatim.fenced(page[end : close.start()]) if close else ""
            if not code or not close or close[0] != "</pre>":
                raise Uncommon
            at = close.end()
            kept.append(code)
            parts += (before, "<pre>")
    return "".join([*parts, page[at:]]), iter(kept)


def _marks_a_line(text: str) -> bool:
    return text[:1] in _MARKS_A_LINE and not _PLAIN_NUMBER.match(text)


class _Page:
    """What has been written of a page, and where in its elements the reading is."""

    def __init__(self, kept: Iterator[str]) -> None:
        self.kept = kept
        self.out: list[str] = []
        """A mark and the text after it, by turns; between blocks more marks may follow one another."""
        self.opened = [""]
        self.lists: list[tuple[str, str, int | None, bool | None]] = []
        """`line`, `indent`, `number` and `loose` of what is around the list that is read."""

    line = "\n"
    """How a line begins: with the indent of the list."""
    indent = ""
    """What is added to it in an item."""
    number: int | None = None
    """Of the list's next item."""
    loose: bool | None = None
    """Whether the list's items hold paragraphs; None before the first."""
    after_numbers = -1
    """How much was written when the last numbered list had ended; another one right after it has other marks."""
    address = ""
    link = 0
    """Of the link that is read, and where in `out` its text begins."""
    columns = cells = 0
    """Of the table that is read, and of its row so far."""

    def read(self, tokens: Iterable[tuple[str, str]]) -> str:
        """The markdown of tokens, each with the text that follows it."""
        out, opened = self.out, self.opened
        no_text = True
        for tag, text in tokens:
            if tag[:7] == "strong>":
                if no_text or "strong" in opened or "\n" in tag or (not out[-1] and out[-2] == "**"):
                    raise Uncommon
                out.append(f"**{tag[7:-8]}**")
            elif tag == "/p":
                if opened.pop() != "p" or (out[-1] or out[-2])[-1] in " \n":
                    raise Uncommon
            elif tag[:2] == "p>":
                block = tag[2:-3]
                if "&" in block:
                    block = _unescaped(block)
                if opened[-1] not in _HOLDS_BLOCKS or _marks_a_line(block) or block[-1] == " ":
                    raise Uncommon
                if "\n" in block or ">" in tag[2:]:
                    raise Uncommon
                out += (f"\n{self.line}{self.indent}", block)
            elif tag == "p":
                if opened[-1] not in _HOLDS_BLOCKS or _marks_a_line(text):
                    raise Uncommon
                opened.append("p")
                out.append(f"\n{self.line}{self.indent}")
            else:
                _OTHERS.get(tag, _Page.longer)(self, tag, text)
            no_text = opened[-1] in _NO_TEXT
            if no_text:
                if text and text != "\n":
                    raise Uncommon
            elif "\n" not in text:
                out.append(text)
            elif opened[-1] == "li" and text.find("\n") == len(text) - 1:
                opened[-1] = _BEFORE_ITS_LIST
                out.append(text[:-1])
            else:
                raise Uncommon
        if len(opened) != 1:
            raise Uncommon
        return "".join(out).strip("\n")

    def ends(self) -> None:
        """A block's text ends here: there is some, and no white space at its end."""
        if (self.out[-1] or self.out[-2])[-1] in " \n":
            raise Uncommon

    def block(self, tag: str, text: str) -> None:
        if self.opened[-1] not in _HOLDS_BLOCKS or _marks_a_line(text):
            raise Uncommon
        self.opened.append(tag)
        self.out.append(f"\n{self.line}{self.indent}{_HEADINGS[tag]}")

    def heading_ends(self, tag: str, text: str) -> None:
        self.ends()
        if self.opened.pop() != tag[1:] or self.out[-1][-1:] == "#":
            raise Uncommon

    def emphasis(self, tag: str, text: str) -> None:
        """The beginning of one that has elements in it."""
        mark = _EMPHASIS[tag]
        if self.opened[-1] in _NO_TEXT or tag in self.opened or text[:1] == " ":
            raise Uncommon
        if not self.out[-1] and self.out[-2][-2:] == mark:
            raise Uncommon
        self.opened.append(tag)
        self.out.append(mark)

    def emphasis_ends(self, tag: str, text: str) -> None:
        mark = _EMPHASIS[tag[1:]]
        if self.opened.pop() != tag[1:] or self.out[-1][-1:] == " " or (not self.out[-1] and self.out[-2] == mark):
            raise Uncommon
        self.out.append(mark)

    def list_begins(self, tag: str, text: str) -> None:
        around = self.opened[-1]
        if around in ("li", _BEFORE_ITS_LIST):
            self.ends()
            self.opened[-1] = _AFTER_ITS_LIST
        elif around not in _HOLDS_BLOCKS or len(self.opened) > DEEPEST:
            raise Uncommon
        if tag == "ol" and len(self.out) == self.after_numbers:
            raise Uncommon
        self.lists.append((self.line, self.indent, self.number, self.loose))
        self.line += self.indent
        self.number = 1 if tag == "ol" else None
        self.loose = None
        self.opened.append(tag)
        if around in _HOLDS_BLOCKS:
            self.out.append("\n")

    def list_ends(self, tag: str, text: str) -> None:
        if self.opened.pop() != tag[1:] or self.loose is None:
            raise Uncommon
        self.line, self.indent, self.number, self.loose = self.lists.pop()
        if tag == "/ol":
            self.after_numbers = len(self.out)

    def item_begins(self, tag: str, text: str) -> None:
        loose = tag != "li"
        if self.opened[-1] not in ("ul", "ol") or self.loose is (not loose) or _marks_a_line(text):
            raise Uncommon
        if loose and self.loose:
            self.out.append("\n")
        elif loose and self.opened[-2] == _AFTER_ITS_LIST:
            raise Uncommon
        self.loose = loose
        self.mark_item()
        self.opened += [_PARAGRAPHS, "p"] if loose else ["li"]

    def mark_item(self) -> None:
        if self.number is None:
            self.out.append(f"{self.line}- ")
            self.indent = "  "
        else:
            mark = f"{self.number}. "
            self.out.append(self.line + mark)
            self.indent = " " * len(mark)
            self.number += 1

    def item_ends(self, tag: str, text: str) -> None:
        item = self.opened.pop()
        if item == "li":
            self.ends()
        elif item not in (_PARAGRAPHS, _AFTER_ITS_LIST):
            raise Uncommon

    def next_item(self, tag: str, text: str) -> None:
        out = self.out
        if self.opened[-1] == "li" and text[:1] not in _MARKS_A_LINE:  # without calls: the most frequent of all
            if (out[-1] or out[-2])[-1] in " \n":
                raise Uncommon
            self.mark_item()
        else:
            self.item_ends("/li", "")
            self.item_begins("li", text)

    def next_item_of_paragraphs(self, tag: str, text: str) -> None:
        opened, out = self.opened, self.out
        if opened[-1] != "p" or opened[-2] != _PARAGRAPHS or not self.loose or _marks_a_line(text):
            raise Uncommon
        self.ends()
        out.append("\n")
        self.mark_item()

    def next_paragraph(self, tag: str, text: str) -> None:
        opened, out = self.opened, self.out
        if opened[-1] != "p" or opened[-2] not in _HOLDS_BLOCKS or _marks_a_line(text):
            raise Uncommon
        if (out[-1] or out[-2])[-1] in " \n":
            raise Uncommon
        out.append(f"\n{self.line}{self.indent}")

    def table_begins(self, tag: str, text: str) -> None:
        if self.opened[-1] not in _HOLDS_BLOCKS or self.lists:
            raise Uncommon
        self.opened.append("thead")
        self.cells = 0
        self.out += ("\n", "\n|")

    def head_ends(self, tag: str, text: str) -> None:
        if self.opened.pop() != "thead" or not self.cells:
            raise Uncommon
        self.opened.append("tbody")
        self.out.append("\n|" + " --- |" * self.cells + "\n|")
        self.columns, self.cells = self.cells, 0

    def next_row(self, tag: str, text: str) -> None:
        if self.opened[-1] != "tbody" or self.cells != self.columns:
            raise Uncommon
        self.cells = 0
        self.out.append("\n|")

    def table_ends(self, tag: str, text: str) -> None:
        if self.opened.pop() != "tbody" or self.cells != self.columns:
            raise Uncommon

    def cell(self, tag: str, text: str) -> None:
        """The beginning of one that has elements in it."""
        if self.opened[-1] != _ROWS_OF[tag] or text[:1] == " ":
            raise Uncommon
        self.cells += 1
        self.opened.append(tag)
        self.out.append(" ")

    def cell_ends(self, tag: str, text: str) -> None:
        if self.opened.pop() != tag[1:] or self.out[-1][-1:] == " ":
            raise Uncommon
        self.out.append(" |")

    def alone(self, tag: str, text: str) -> None:
        """A block without text of its own: a line across, code, or a formula that is a paragraph."""
        if self.opened[-1] not in _HOLDS_BLOCKS or (self.lists and tag != "pre"):
            raise Uncommon
        block = "---" if tag == "hr" else self.next_kept()
        if tag.endswith("tex"):
            if block[1] != "$":
                raise Uncommon
            block = f"$$\n{block[2:-2].strip()}\n$$"
        elif self.lists:
            block = re.sub(r"\n(?!\n|\Z)", self.line + self.indent, block)
        self.out.append(f"\n{self.line}{self.indent}{block}")

    def next_kept(self) -> str:
        kept = next(self.kept, None)
        if kept is None:  # the page has such tags of its own
            raise Uncommon
        return kept

    def formula(self, tag: str, text: str) -> None:
        if self.opened[-1] not in _NO_TEXT:
            tex = self.next_kept()
            if tex[1] == "$" or ("|" in tex and ("thead" in self.opened or "tbody" in self.opened)):
                raise Uncommon
            self.out.append(tex)
        elif self.out and self.out[-1].endswith("$$"):
            raise Uncommon
        else:
            self.alone(tag, text)

    def link_ends(self, tag: str, text: str) -> None:
        inside = "".join(self.out[self.link :])
        if self.opened.pop() != "a" or inside[-1:] == " " or "[" in inside or "]" in inside:
            raise Uncommon
        self.out.append(f"]({self.address})")

    def division_ends(self, tag: str, text: str) -> None:
        if self.opened.pop() != "div":
            raise Uncommon

    def line_ends(self, tag: str, text: str) -> None:
        if self.opened[-1] != "p" or self.lists or self.out[-1][-1:] == " " or _marks_a_line(text):
            raise Uncommon
        self.out.append("  \n")

    def longer(self, tag: str, text: str) -> None:
        """A token that is more than a name, or one that is not known."""
        parent = self.opened[-1]
        if tag[:3] in ("td>", "th>") and parent == _ROWS_OF[tag[:2]] and tag[1] == tag[-1] and "\n" not in tag:
            self.cells += 1
            cell = tag[3:-4]
            self.out.append(f" {verbatim.inline_code(cell[6:-7]) if cell[0] == '<' else cell} |")
        elif tag[:3] == "div" and parent in ("", "div") and _DIV.fullmatch(tag):
            if "math" in tag or "katex" in tag or len(self.opened) > DEEPEST:
                raise Uncommon
            self.opened.append("div")
        elif tag[:5] == "code>" and parent not in _NO_TEXT and "\n" not in tag:
            self.out.append(verbatim.inline_code(tag[5:-6]))
        elif found := _START.fullmatch(tag):
            self.list_begins("ol", text)
            self.number = int(found[1])
            if self.opened[-2] == _AFTER_ITS_LIST:
                raise Uncommon
        elif (found := _LINK.fullmatch(tag)) and parent not in _NO_TEXT and text and text[0] != " ":
            self.address = verbatim.unescaped(found[1])
            if text == self.address or "a" in self.opened:
                raise Uncommon
            self.opened.append("a")
            self.out.append("[")
            self.link = len(self.out)
        else:
            raise Uncommon


_OTHERS: dict[str, Callable[[_Page, str, str], None]] = {
    "li": _Page.item_begins,
    "/li": _Page.item_ends,
    "ul": _Page.list_begins,
    "ol": _Page.list_begins,
    "/ul": _Page.list_ends,
    "/ol": _Page.list_ends,
    "th": _Page.cell,
    "td": _Page.cell,
    "/th": _Page.cell_ends,
    "/td": _Page.cell_ends,
    "/a": _Page.link_ends,
    "/div": _Page.division_ends,
    "br": _Page.line_ends,
    "pre": _Page.alone,
    "p tex": _Page.alone,
    "hr": _Page.alone,
    "tex": _Page.formula,
}
_SEVERAL = {
    "li><p": _Page.item_begins,
    "/li><li": _Page.next_item,
    "/p><p": _Page.next_paragraph,
    "/p></li><li><p": _Page.next_item_of_paragraphs,
    "table><thead><tr": _Page.table_begins,
    "/tr></thead><tbody><tr": _Page.head_ends,
    "/tr><tr": _Page.next_row,
    "/tr></tbody></table": _Page.table_ends,
}
for tags, read in _SEVERAL.items():
    first, *more = tags.split("><")
    for gaps in product(("><", ">\n<"), repeat=len(more)):
        _OTHERS[first + "".join(gap + name for gap, name in zip(gaps, more, strict=True))] = read
_OTHERS |= dict.fromkeys(_HEADINGS, _Page.block) | {f"/{name}": _Page.heading_ends for name in _HEADINGS}
_OTHERS |= dict.fromkeys(_EMPHASIS, _Page.emphasis) | {f"/{name}": _Page.emphasis_ends for name in _EMPHASIS}
