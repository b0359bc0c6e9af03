"""Markdown rendered as chat sites of 2023 showed it: a standard renderer, with the sites' own shapes for code blocks,
KaTeX and the frame around an answer. For tests and benchmarks.
"""

import random
import re
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

FRAME = '<div class="markdown prose w-full break-words dark:prose-invert light">{}</div>'
_BAR = (
    '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center relative text-gray-200 bg-gray-800 px-4 '
    'py-2 text-xs font-sans justify-between rounded-t-md"><span>{}</span><button class="flex ml-auto gap-2"><svg '
    'stroke="currentColor" fill="none" viewBox="0 0 24 24" class="h-4 w-4" height="1em" width="1em">'
    '<path d="M16 4h2a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2h2"></path></svg>Copy code'
    '</button></div><div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs{}">{}</code></div></div></pre>'
)
_COUNTER = (
    '<div class="text-xs flex items-center justify-center gap-1"><button disabled=""><svg><polyline points="15 18 9"/>'
    '</svg></button><span class="flex-grow flex-shrink-0">1 / 2</span><button><svg><polyline points="9 18 15"/></svg>'
    "</button></div>"
)
_WORDS = re.findall(
    r"\S+",
    "the model returns a list of values for each row and then it writes them to my_output_file where users can read "
    "them again later if they want because memory is small compute time matters more than disk space here so we keep "
    "only what is needed and drop everything else which makes results stable across machines",
)
_CODE = """def read_rows(path, limit=None):
    \"\"\"Rows of a file, at most `limit`.\"\"\"
    rows = []


    for number, line in enumerate(open(path)):
        if limit is not None and number >= limit:
            break
        rows.append([int(x) for x in line.split(",") if x < "9" and x != "&"])
    return rows
"""


def render(markdown: str, *, frame: bool = True, counter: bool = False) -> str:
    """The HTML that the site shows for an answer of this markdown."""
    page = _renderer().render(markdown)
    framed = FRAME.format(page) if frame else page
    return (_COUNTER if counter else "") + framed


def _renderer() -> MarkdownIt:
    renderer = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    renderer.use(dollarmath_plugin, renderer=_katex, allow_digits=False, double_inline=True)
    renderer.add_render_rule("fence", _fence)
    return renderer


def _katex(tex: str, options: dict[str, Any]) -> str:
    drawn = "".join(f'<span class="mord mathnormal" style="margin-right:0.05em;">{escape(c)}</span>' for c in tex)
    one = (
        '<span class="katex"><span class="katex-mathml"><math xmlns="http://www.w3.org/1998/Math/MathML"><semantics>'
        f'<mrow><mi>{escape(tex)}</mi></mrow><annotation encoding="application/x-tex">{escape(tex)}</annotation>'
        '</semantics></math></span><span class="katex-html" aria-hidden="true"><span class="base"><span class="strut" '
        f'style="height:0.6833em;"></span>{drawn}</span></span></span>'
    )
    if options["display_mode"]:
        return f'<span class="math math-display"><span class="katex-display">{one}</span></span>'
    return f'<span class="math math-inline">{one}</span>'


def _fence(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    language = tokens[index].info.strip()
    code = escape(tokens[index].content)
    if language:
        code = re.sub(r"\b(def|return|for|in|if|not|and|is|class)\b", r'<span class="hljs-keyword">\1</span>', code)
        code = re.sub(r"\b(\d+)\b", r'<span class="hljs-number">\1</span>', code)
    return _BAR.format(language, f" language-{language}" if language else "", code)


def answer(chance: random.Random) -> str:
    """Markdown of an ordinary answer: prose, often code or lists, now and then a table or a formula."""

    def prose(low: int, high: int) -> str:
        return " ".join(chance.choices(_WORDS, k=chance.randint(low, high))).capitalize() + "."

    parts = [prose(15, 70)]
    for _ in range(chance.randint(0, 4)):
        kind = chance.random()
        if kind < 0.35:
            parts.append(prose(20, 90))
        elif kind < 0.6:
            parts.append("\n".join(f"{n}. **{prose(2, 4)}** {prose(8, 25)}" for n in range(1, chance.randint(4, 8))))
        elif kind < 0.85:
            parts.append(f"```python\n{_CODE}```")
        elif kind < 0.93:
            parts.append("| name | value |\n| --- | --- |\n" + "\n".join(f"| `row_{n}` | {n} |" for n in range(4)))
        else:
            parts.append(f"It holds that $x_{chance.randint(1, 9)} < y^2$, so:\n\n$$\n\\frac{{a}}{{b}} + c\n$$")
    return "\n\n".join(parts)
