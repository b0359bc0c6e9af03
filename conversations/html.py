"""A chat site's HTML of a model's answer, back to the markdown the model wrote. Knows the shapes that such pages
have; knows nothing of conversations. Code and TeX are taken out first and put back verbatim, so that no conversion
touches a byte of them.
"""

import functools
import re
from typing import Any

from conversations import common_pages, verbatim

DEEPEST = 200
"""Elements inside one another; no answer needs more, and beyond a certain depth the converter drops text."""

_BLOCKS = "p|div|pre|ol|ul|h[1-6]|table|blockquote|hr|article|section|figure"
_BEGINS = re.compile(rf"\s*(?:\d+ / \d+\s*)?<(?:{_BLOCKS}|span|strong|em|b|i|a|img|code|button|svg)\b[^<>]*>", re.I)
_BLOCK_END = re.compile(rf"</(?:{_BLOCKS})\s*>|<hr\b", re.I)
_ENDS = re.compile(r"(?:</[a-z][a-z0-9]*\s*>|<(?:br|hr|img)\b[^<>]*>|Copy\d+ chars / \d+ words)\s*$", re.I)
_SITE = re.compile(
    r"<div class=\"(?:[^\"<>]* )?(?:markdown(?: prose| |\")|bg-black |overflow-y-auto)|<code class=\"!?whitespace-pre|"
    r"<span class=\"(?:math math-|katex|hljs-)|<button class=\"flex ml-auto",
    re.I,
)
_A_WHOLE_PAGE = re.compile(
    r"<(?:!doctype|html|head|body|script(?! type=\"math)|style|link|meta|title|form|input(?! type=\"checkbox)|textarea|"
    r"iframe|nav|template)\b",
    re.I,
)
_FRAME = '<div class="markdown prose'
_DIV = re.compile(r"<div(?: class=\"[^\"<>]*\")?")
_FENCED = re.compile(r"^[ >]*(```+|~~~+).*?(?:^[ >]*\1|\Z)", re.M | re.S)

_SPECIAL = re.compile(
    r"<(?:(?P<name>pre|code|button|svg|style|script|annotation)\b(?P<attributes>[^<>]*)>"
    r"|(?P<math>(?:span|div|section)(?= [^<>]*class=\"[^\"<>]*\b(?:katex|math)\b)|math\b|mjx-container\b)[^<>]*>"
    r"|(?P<counter>span|div)\b[^<>]*>\s*\d+\s*/\s*\d+\s*</(?:span|div)\s*>"
    r"|img\b[^<>]*(?P<avatar>alt=\"User\"|src=\"/_next/image)[^<>]*>"
    r"|(?P<raised>/?su[bp]>))",
    re.I,
)
"""The beginnings of what the converter is not given."""
_OPENING = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)[^<>]*?(/?)>")
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())  # noqa: SIM905
_FIRST_COUNTER = re.compile(r"\A((?:\s*<(?:div|span)\b[^<>]*>)*)\s*\d+ / \d+\s*(?=<)", re.I)
_COPIED = re.compile(r"\s*Copy\d+ chars / \d+ words\s*$")
_QUOTE = re.compile(r"(</[^<>]+>|[^<>\s])\s*<blockquote\b", re.I)
_TABLE = re.compile(r"<table\b", re.I)
_ROW_END = re.compile(r"</tr\s*>", re.I)
_HEAD_CELL = re.compile(r"<t[hd]\b([^<>]*)>", re.I)
_SIDE = re.compile(r"(?:align=[\"']?|text-align:\s*)(left|right|center)", re.I)
_RULE = re.compile(r"^([ >]*)(\|(?: --- \|)+)$", re.M)


class TooDeep(Exception):
    """Elements are nested deeper than any answer's; the text says how deep."""


def converted(answer: str) -> str:
    """The markdown of an answer that is a page; any other answer as it is. Raises TooDeep."""
    if "<" not in answer:
        return answer
    if answer.startswith(_FRAME) or (answer[0] == "<" and "```" not in answer and "~~~" not in answer):
        try:
            return common_pages.to_markdown(_unframed(answer))
        except common_pages.Uncommon:
            pass
    return to_markdown(answer) if is_page(answer) else answer


def _unframed(page: str) -> str:
    """The page without the one element that most have around the whole. Where its two ends are of different elements,
    the reading meets an end too many.
    """
    head, _, rest = page.partition(">")
    return rest[:-6].removeprefix("\n") if rest.endswith("</div>") and _is_frame(head) else page


@functools.lru_cache(maxsize=100)
def _is_frame(head: str) -> bool:
    return bool(_DIV.fullmatch(head)) and "math" not in head and "katex" not in head


def is_page(text: str) -> bool:
    """Whether an answer is HTML of a chat site, not text that has tags in it: `a<b`, `List<String>`, a lesson on
    HTML, or a web page that the model wrote.
    """
    if "<" not in text:
        return False
    begins = _BEGINS.match(text)
    if not begins and not _SITE.search(text):
        return False
    outside = _FENCED.sub("", text) if "```" in text or "~~~" in text else text
    if _A_WHOLE_PAGE.search(outside):
        return False
    if _SITE.search(outside):
        return True
    if not begins:
        return False
    return bool(_BLOCK_END.search(outside) and _ENDS.search(outside[-200:])) or _is_deep(outside)


def to_markdown(page: str) -> str:
    """The markdown of a page. Raises TooDeep."""
    # Not the package's own convert: it translates the options again each time, which takes as long as a page does.
    from html_to_markdown._html_to_markdown import convert

    kept = _Kept(page)
    if page.rstrip().endswith("words"):
        page = _COPIED.sub("", page)
    text = _taken_out(_FIRST_COUNTER.sub(r"\1", page, count=1), kept)
    if _is_deep(text):
        raise TooDeep(f"its HTML has elements more than {DEEPEST} deep inside one another")
    if "blockquote" in text:
        text = _QUOTE.sub(rf"\1{kept.blank_line}<blockquote", text)
    markdown = kept.put_back(convert(html=text, options=_options(), visitor=None).content or "")
    return _aligned(markdown, text).strip("\n")


@functools.cache
def _options() -> Any:
    from html_to_markdown._html_to_markdown import ConversionOptions

    return ConversionOptions(
        bullets="-",
        compact_tables=True,
        br_in_tables=True,
        extract_metadata=False,
        max_depth=4 * DEEPEST,
        keep_inline_images_in=["h1", "h2", "h3", "h4", "h5", "h6", "td", "th", "a", "li", "strong", "em", "del"],
    )


class _Kept:
    """Text that conversion must not touch, each piece behind a mark of characters that the page has not."""

    def __init__(self, page: str) -> None:
        first = 0xE000  # the first of the characters that Unicode leaves to private use
        while chr(first) in page or chr(first + 1) in page:
            first += 2
        self._open, self._close = chr(first), chr(first + 1)
        self._pieces: list[str] = []
        self._mark = re.compile(rf"{self._open}(\d+){self._close}")
        self._line = re.compile(rf"^([^\n{self._open}]*){self._open}(\d+){self._close}[ ]*$", re.M)

        self._blank = re.compile(rf"^[ >]*{self._open}{self._close}[ ]*\n", re.M)
        self.blank_line = f"<p>{self._open}{self._close}</p>"
        """Goes before a quotation: the converter puts no blank line there."""

    def inline(self, text: str) -> str:
        self._pieces.append(text)
        return f"{self._open}{len(self._pieces) - 1}{self._close}"

    def block(self, text: str) -> str:
        return f"<p>{self.inline(text)}</p>" if text else ""

    def put_back(self, markdown: str) -> str:
        markdown = self._blank.sub("", markdown)
        markdown = self._line.sub(self._whole_line, markdown)
        return "\n".join(self._within(line) for line in markdown.split("\n"))

    def _whole_line(self, found: re.Match[str]) -> str:
        """A piece that has its line to itself; its lines are indented or quoted as that line is."""
        piece = self._pieces[int(found[2])]
        first = found[1]
        if piece.startswith("$$") and not first.strip(" >-*+0123456789."):
            piece = f"$$\n{piece[2:-2].strip()}\n$$"
        if "\n" not in piece:
            return found[0]
        rest = re.sub(r"[^>\s]", " ", first)
        top, *lines = piece.split("\n")
        return "\n".join([first + top, *(rest + line if line else rest.rstrip(" ") for line in lines)])

    def _within(self, line: str) -> str:
        if self._open not in line:
            return line
        in_table = line.lstrip().startswith("|")

        def piece(found: re.Match[str]) -> str:
            text = self._pieces[int(found[1])]
            return text.replace("|", "\\|") if in_table else text

        return self._mark.sub(piece, line)


def _taken_out(page: str, kept: _Kept) -> str:
    """The page with code, TeX and raised text behind marks, and without buttons, drawings, counters and faces. One
    way through it, whatever is left open.
    """
    parts: list[str] = []
    never_closed: set[str] = set()
    at = 0
    while found := _SPECIAL.search(page, at):
        parts.append(page[at : found.start()])
        at = found.end()
        if found["math"]:
            at = verbatim.end_of(page, found.start(), found["math"])
            parts.append(kept.inline(verbatim.tex(page[found.start() : at])))
        elif found["raised"]:
            parts.append(kept.inline(found[0]))
        elif name := (found["name"] or "").lower():
            end = None if name in never_closed else verbatim.closing(name).search(page, at)
            if end is None:
                never_closed.add(name)
                parts.append(found[0])
                continue
            parts.append(_element(name, found["attributes"], page[at : end.start()], kept))
            at = end.end()
    return "".join([*parts, page[at:]])


def _element(name: str, attributes: str, inside: str, kept: _Kept) -> str:
    """What the converter is given for an element that is taken out."""
    if name == "pre":
        return kept.block(verbatim.fenced(inside))
    if name == "code":
        return kept.inline(verbatim.inline_code(verbatim.text_of(inside)))
    if name == "script" and "math/tex" in attributes:
        tex = inside.strip()
        return kept.inline(f"$${tex}$$" if "mode=display" in attributes else f"${tex}$")
    return ""


def _aligned(markdown: str, html: str) -> str:
    """The markdown with the tables' alignment, which the converter leaves out."""
    if "align" not in html or not _SIDE.search(html):
        return markdown
    heads = iter([_head(html, found.end()) for found in _TABLE.finditer(html)])

    def rule(found: re.Match[str]) -> str:
        cells = _HEAD_CELL.findall(next(heads, ""))
        sides = [side[1].lower() if (side := _SIDE.search(cell)) else "" for cell in cells]
        if len(sides) != found[2].count("---"):
            return found[0]
        marks = {"": "---", "left": ":---", "right": "---:", "center": ":---:"}
        return f"{found[1]}| {' | '.join(marks[side] for side in sides)} |"

    return _RULE.sub(rule, markdown)


def _head(html: str, start: int) -> str:
    """The first row of the table that begins there."""
    end = _ROW_END.search(html, start)
    return html[start : end.start()] if end else ""


def _is_deep(html: str) -> bool:
    """Whether elements are deeper inside one another than DEEPEST."""
    if html.count("<") <= DEEPEST:
        return False
    depth = 0
    for slash, name, closed in _OPENING.findall(html):
        if slash:
            depth = max(0, depth - 1)
        elif not closed and name.lower() not in _VOID:
            depth += 1
            if depth > DEEPEST:
                return True
    return False
