import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversations import common_pages, html
from conversations.common_pages import Uncommon
from tests import site_pages

TAME = ["a", "word", "my_x", "漢字", "&lt;", "5", "it's", "so:", "&quot;q&quot;", "A&amp;B"]
ODD = [
    "", " ", "  ", "\n", "\t", "\u00a0", "\u200b", "\ue000", "&nbsp;", "&#39;", "&#10;", "&copy;", "&amp;lt;", "&gt;",
    "<", ">", "1.", "1.5", "12) b", "#", "# b", "C#", "-", "- b", "+", "*", "*b*", "**", "_c_", "~~", "~~~", "|", "\\",
    "\\*", "`", "```", "=", "---", "===", "[x](y)", "![", "]", "!", "[ ]", "$", "1 / 2", "http://a.b", "🙂", "<br>",
    "<br/>", "<img src='x'>", "<sup>2</sup>", "<strong>", "</em>", "<b>x</b>", "<del>x</del>", "Copy2 chars / 1 words",
]  # fmt: skip
CODES = [
    '<pre><code class="language-python">x = "&lt;b&gt;"\n\n  <span class="hljs-x">y</span>\n</code></pre>',
    "<pre><div><span>bash</span><button>Copy code</button></div><code>ls\n\n\n</code></pre>",
    "<pre><code>`</code></pre>",
    "<pre>x</pre>",
    "<pre><code></code></pre>",
    "<pre><code>```<br></code></pre>",
    "<pre><code>x</pre>",
    "<pre><code>a</PRE>b</code></pre>",
]
FORMULA = (
    '<span class="{}"><span class="katex"><math><annotation encoding="application/x-tex">{}</annotation></math>'
    '<span class="katex-html"><span>drawn</span></span></span></span>'
)


class Generator:
    """HTML of the shapes that chat sites make, with wrong and rare things in between, the more the odder."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.oddness = self.chance.choice([0.0, 0.0, 0.003, 0.02, 0.1])

    def odd(self) -> bool:
        return self.chance.random() < self.oddness

    def text(self) -> str:
        return " ".join(self.chance.choice(ODD if self.odd() else TAME) for _ in range(self.chance.randint(1, 3)))

    def inline(self, depth: int = 2) -> str:
        parts = []
        for _ in range(0 if self.odd() else self.chance.randint(1, 3)):
            kind = self.chance.choice(["strong", "em", "code", "a", "tex", "text", "text"])
            inside = self.inline(depth - 1) if depth and self.chance.random() < 0.3 else self.text()
            if kind == "text":
                parts.append(self.text())
            elif kind == "a":
                address = self.chance.choice(["http://a.b", 'http://a.b/c_d?e=1&amp;f" target="_new', "x y", "a"])
                parts.append(f'<a href="{address}">{inside}</a>')
            elif kind == "tex":
                shape = "math math-display" if self.odd() else "math math-inline"
                parts.append(FORMULA.format(shape, self.chance.choice(["x^2", "a &lt; \\b", "|x|"])))
            else:
                parts.append(f"<{kind}>{self.text() if kind == 'code' else inside}</{kind}>")
        return self.chance.choice([" ", " ", ""]).join(parts)

    def joined(self, parts: list[str]) -> str:
        gap = self.chance.choice(["\n\n", " ", "x"]) if self.odd() else self.chance.choice(["\n", ""])
        return gap.join(["", *parts, ""])

    def block(self, depth: int) -> str:
        name = self.chance.choice(["p", "p", "h2", "list", "list", "table", "code", "hr", "tex"])
        if name == "list":
            return self.listed(depth)
        if name == "table":
            return self.table()
        if name == "code":
            return self.chance.choice(CODES if self.odd() else CODES[:2])
        if name == "tex":
            formula = FORMULA.format("math math-display", self.chance.choice(["x\n^2", "a &lt; \\b"]))
            return self.chance.choice([formula, f"<p>{formula}</p>", f'<div class="math block">{formula}</div>'])
        if self.odd():
            name = self.chance.choice(["hr/", "blockquote", "div", "h7", "p class='x'", "/p", "span", "ol start='3'"])
        return "<hr>" if name == "hr" else f"<{name}>{self.inline()}</{name}>"

    def listed(self, depth: int) -> str:
        items = []
        loose = self.chance.random() < 0.4
        for _ in range(self.chance.randint(0 if self.odd() else 1, 4)):
            parts = [f"<p>{self.inline()}</p>" if loose != self.odd() else self.inline()]
            if depth and self.chance.random() < 0.4:
                parts.append(self.block(depth - 1) if loose or self.odd() else self.listed(depth - 1))
            if loose and self.chance.random() < 0.2:
                parts.append(f"<p>{self.inline()}</p>")
            inside = self.joined(parts) if loose or self.odd() else self.chance.choice(["", "\n"]).join(parts)
            items.append(f"<li>{inside}</li>")
        begin = self.chance.choice(["ol", "ul", "ul", 'ol start="9"'])
        return f"<{begin}>{self.joined(items)}</{begin[:2]}>"

    def table(self) -> str:
        columns = self.chance.randint(1, 3)

        def row(cell: str) -> str:
            texts = (self.chance.choice(["", self.text(), self.inline()]) for _ in range(columns + self.odd()))
            return f"<tr>{self.joined([f'<{cell}>{each}</{cell}>' for each in texts])}</tr>"

        head = self.joined([row("th") for _ in range(1 + self.odd())])
        body = self.joined([row("td") for _ in range(0 if self.odd() else self.chance.randint(1, 3))])
        return f"<table>{self.joined([f'<thead>{head}</thead>', f'<tbody>{body}</tbody>'])}</table>"

    def page(self) -> str:
        body = self.joined([self.block(2) for _ in range(self.chance.randint(1, 4))])
        return self.chance.choice([site_pages.FRAME, "{}", '<div class="a"><div>{}</div></div>']).replace("{}", body)


def agrees(page: str) -> bool:
    """Whether the page is a common one. What becomes of it must be what the converter makes of it in any case."""
    assert html.converted(page) == (html.to_markdown(page) if html.is_page(page) else page)
    try:
        assert common_pages.to_markdown(page) == html.to_markdown(page)
    except Uncommon:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64))
def test_a_page_that_is_not_refused_is_given_as_the_converter_gives_it(seed: int) -> None:
    agrees(Generator(seed).page())


@pytest.mark.parametrize(
    "page", ["<p>a <tex> b</p>", "<p>a</p><p tex><p>b</p>", "</div>", "</p>", "<strong>a</strong>", "<"]
)
def test_tags_that_nobody_opened_or_closed_are_refused(page: str) -> None:
    with pytest.raises(Uncommon):
        common_pages.to_markdown(page)


def test_the_pages_that_most_answers_are_are_common() -> None:
    chance = random.Random(20261125)
    answers = [site_pages.render(site_pages.answer(chance)) for _ in range(200)]
    assert all(agrees(answer) for answer in answers)
    generated = [Generator(seed) for seed in range(300)]
    assert sum(agrees(each.page()) for each in generated if not each.oddness) > 30
