"""What no conversion may touch a byte of: the code and the TeX of a chat site's page, each as the markdown it is."""

import functools
import re
from html import unescape

_TAG = re.compile(r"<[^<>]*>")
_SPAN = re.compile(r"<span\b[^>]*>")
_CODE = re.compile(r"<code\b([^<>]*)>")
_LANGUAGE = re.compile(r"\b(?:language|lang)-([^\s\"']+)")
_BAR = re.compile(r"^(?:\s*<(?:div|span)\b[^<>]*>)*\s*([A-Za-z0-9+#._ -]{1,30}?)\s*<", re.I)
_BUTTON = re.compile(r"<(button|svg)\b[^<>]*>.*?</\1\s*>", re.I | re.S)
_ANNOTATION = re.compile(r"<annotation encoding=\"application/x-tex\"[^<>]*>([^<]*)</annotation>")
_DISPLAY = ("katex-display", "math-display", "mode=display", 'display="block"', 'display="true"')
_BREAK = re.compile(r"<br\b[^<>]*>", re.I)


def text_of(html: str) -> str:
    """The characters of HTML without its tags."""
    if "<" in html:
        html = _SPAN.sub("", html.replace("</span>", ""))  # most tags in code are highlighting
        if "<" in html:
            html = _TAG.sub("", _BREAK.sub("\n", html))
    return unescaped(html)


def unescaped(text: str) -> str:
    """The text with its references to characters resolved: the usual ones fast, others by the standard library."""
    if "&" not in text:
        return text
    quick = text.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&#x27;", "'")
    return quick.replace("&amp;", "&") if quick.count("&") == quick.count("&amp;") else unescape(text)


def fenced(inside: str) -> str:
    """A code block of a page (what is inside `<pre>`) as a fence with its language; empty where it has no code."""
    found = _CODE.search(inside)
    if found:
        language = _LANGUAGE.search(found[1]) or _BAR.match(inside[: found.start()])
        named = language[1].strip() if language else ""
        start = found.end()
        end = inside.find("</code>", start)
        code = text_of(inside[start:end] if end >= 0 else inside[start:])
    else:
        named, code = "", text_of(_BUTTON.sub("", inside)).removeprefix("\n")
    if not code:
        return ""
    fence = "`" * max(3, _longest_run(code) + 1) if "```" in code else "```"
    return f"{fence}{named}\n{code.removesuffix(chr(10))}\n{fence}"


def inline_code(code: str) -> str:
    if not code:
        return ""
    ticks = "`" * (_longest_run(code) + 1 if "`" in code else 1)
    padded = code[0] == "`" or code[-1] == "`" or (code[0] == code[-1] == " " and code.strip())
    return f"{ticks} {code} {ticks}" if padded else f"{ticks}{code}{ticks}"


def _longest_run(code: str) -> int:
    return max((len(run) for run in re.findall("`+", code)), default=0)


def tex(element: str) -> str:
    """The TeX of KaTeX or MathML, from its annotation, in dollars."""
    annotation = _ANNOTATION.search(element)
    tex = unescaped(annotation[1]).strip() if annotation else text_of(element).strip()
    if not tex:
        return ""
    head = element[: annotation.start()] if annotation else element
    display = "display" in head and any(sign in head for sign in _DISPLAY)
    return f"$${tex}$$" if display else f"${tex}$"


def end_of(html: str, start: int, name: str) -> int:
    """Where the element ends that begins at `start`; the end of the page where it is never closed."""
    opening, closing = f"<{name}", f"</{name}>"
    depth = 0
    while (end := html.find(closing, start)) >= 0:
        depth += html.count(opening, start, end) - 1
        start = end + len(closing)
        if depth <= 0:
            return start
    return len(html)


@functools.cache
def closing(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*>", re.I)
