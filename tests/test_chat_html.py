import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from conversations.html import TooDeep, converted, is_page, to_markdown
from tests import site_pages

CODES = [
    'def f():\n\n\n    return "<b>" & x\n',
    "a\n\n\n\n",
    "\n\nlead",
    "  indented\n\tand a tab\n",
    "```\nfence\n```\n",
    "&lt;p&gt; &amp;amp; </code></pre>\n",
    "Copy code\n1 / 2\n",
    "no newline at the end",
    "a_b *c* [d](e) $x$ \\( y \\)",
    "\ue000 1\ue001",
]


def back(markdown: str, **shape: bool) -> str:
    page = site_pages.render(markdown, **shape)
    assert is_page(page)
    return to_markdown(page)


def meaning(markdown: str) -> str:
    """The HTML of a standard renderer, white space between blocks aside: two texts with the same mean the same."""
    renderer = MarkdownIt("commonmark").enable(["table", "strikethrough"]).use(dollarmath_plugin, allow_digits=False)
    html = renderer.render(markdown)
    # A list item's paragraph may be written tight or loose, and the end of a block of code is a newline either way.
    return re.sub(r"\s*(</?(?:p|ul|ol|li|table|thead|tbody|tr|blockquote|h\d|hr ?/?)[^>]*>)\s*", r"\1", html)


def codes(markdown: str) -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return [(token.info, token.content) for token in MarkdownIt("commonmark").parse(markdown) if token.type == "fence"]


def fenced(code: str, language: str = "python") -> str:
    return f"~~~~~~~~{language}\n{code.removesuffix(chr(10))}\n~~~~~~~~"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("before", ["", "1. first\n\n   ", "> quoted\n>\n> ", "- a\n  - b\n\n    "])
def test_code_comes_back_byte_for_byte_with_its_language(code: str, before: str) -> None:
    indent = re.sub(r"[^> ]", " ", before.split("\n")[-1])
    markdown = before + fenced(code).replace("\n", "\n" + indent)
    assert codes(back(markdown)) == codes(markdown) == [("python", code.removesuffix("\n") + "\n")]


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=("Cs",)), min_size=1), st.booleans())
def test_any_code_comes_back_byte_for_byte(code: str, framed: bool) -> None:
    markdown = "text\n\n" + fenced(code, "c++")
    assert codes(back(markdown, frame=framed)) == codes(markdown)


words = st.lists(
    st.sampled_from(["my_func_name", "a", "café", "漢字", "x < y", "A&B", "5", "don't"]), min_size=1, max_size=8
)
text = words.map(" ".join)
inline = st.one_of(
    text,
    text.map("**{}**".format),
    text.map("*{}*".format),
    text.map("~~{}~~".format),
    st.sampled_from(["`a|b`", "`` x`y ``", "`<div>`", "`a  b`", "`_x_ *y*`"]),
    st.sampled_from(["$E = mc^2$", "$a_1 < b_{2}$", "$\\frac{a}{b} \\& c$"]),
    st.just("[a link](https://example.com/a_b?c=1&d=2)"),
    st.just('![an image](https://example.com/i.png "title")'),
)
line = st.lists(inline, min_size=1, max_size=4).map(" ".join)
cell = st.sampled_from(["x", "`a_b`", "**bold**", "2 < 3", "$x^2$", "a\\|b"])


def listed(items: list[str], ordered: bool, depth: int) -> str:
    """A list, each item's successors nested in it down to `depth`."""
    mark = "1. " if ordered else "- "
    lines = []
    for at, item in enumerate(items):
        lines.append(mark + item)
        if depth and at % 2 == 0:
            lines += [" " * len(mark) + each for each in listed(items[:2], not ordered, depth - 1).split("\n")]
    return "\n".join(lines)


table = st.integers(1, 4).flatmap(
    lambda columns: st.lists(st.lists(cell, min_size=columns, max_size=columns), min_size=2, max_size=5)
)
block = st.one_of(
    line,
    line.map("## {}".format),
    st.lists(line, min_size=1, max_size=3).map(lambda lines: "\n>\n".join(f"> {each}" for each in lines)),
    st.builds(listed, st.lists(line, min_size=1, max_size=4), st.booleans(), st.integers(0, 2)),
    table.map(lambda rows: "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])),
    st.sampled_from(CODES[:6]).map(fenced),
    st.just("$$\n\\int_0^1 x < y\\,dx\n$$"),
    st.just("---"),
)


@settings(deadline=None)
@given(st.lists(block, min_size=1, max_size=6).map("\n\n".join), st.booleans())
def test_what_markdown_means_survives_the_site_and_the_way_back(markdown: str, counter: bool) -> None:
    assert meaning(back(markdown, counter=counter)) == meaning(markdown)


def test_ordinary_answers_come_back_meaning_the_same() -> None:
    chance = random.Random(20261125)
    for _ in range(100):
        markdown = site_pages.answer(chance)
        assert meaning(back(markdown)) == meaning(markdown)


@pytest.mark.parametrize("align", ['align="{}"', 'style="text-align: {};"', 'style="text-align:{}"'])
def test_a_tables_alignment_is_kept(align: str) -> None:
    heads = "".join(f"<th {align.format(side)}>{side}</th>" for side in ("left", "center", "right"))
    page = f"<table><thead><tr>{heads}<th>none</th></tr></thead><tbody><tr>{'<td>1</td>' * 4}</tr></tbody></table>"
    assert to_markdown(page).split("\n")[1] == "| :--- | :---: | ---: | --- |"


@pytest.mark.parametrize(
    ("page", "markdown"),
    [
        ("<p>10<sup>5</sup> H<sub>2</sub>O</p><blockquote>q</blockquote>", "10<sup>5</sup> H<sub>2</sub>O\n\n> q"),
        ("<div>1 / 2</div><div class=\"markdown prose\"><p>x</p></div>Copy12 chars / 3 words", "x"),
        ("<p>1 / 2</p>", "1 / 2"),
        ("<table><tr><th>a</th></tr><tr><td>b<br>c</td></tr></table>", "| a |\n| --- |\n| b<br>c |"),
        ('<p>See <a href="http://a.b"><sup>1</sup></a></p>', "See [<sup>1</sup>](http://a.b)"),
        ('<p><img alt="User" src="/_next/image?u">hi <img alt="a cat" src="http://a/c.png"></p>', "hi ![a cat](http://a/c.png)"),
        ('<ol start="3"><li>three</li><li>four</li></ol>', "3. three\n4. four"),
        ("<p>a &lt;b&gt; &amp;amp; my_x * 2</p>", "a <b> &amp; my_x * 2"),
        ("<pre><div><span>bash</span><button>Copy code</button></div><code>ls\n</code></pre>", "```bash\nls\n```"),
        ('<p>so <script type="math/tex">x<y</script></p>', "so $x<y$"),
    ],
)  # fmt: skip
def test_the_sites_particulars(page: str, markdown: str) -> None:
    assert to_markdown(page) == markdown


@pytest.mark.parametrize(
    "answer",
    [
        "a<b and c>d",
        "Use `List<String>` or Map<K, V>.",
        "The <p> tag opens a paragraph and </p> closes it: <p>hi</p>",
        '<!DOCTYPE html>\n<html><body><div class="markdown prose"><p>x</p></div></body></html>',
        '```html\n<div class="markdown prose"><p>x</p></div>\n```',
        '<div class="c">\n  <h1>T</h1>\n</div>\n\nThis is a component.',
        "<form><input name='a'></form>",
        "<3 you too",
        "<think>hm</think> yes",
        "",
    ],
)
def test_text_that_is_not_a_page_is_left_alone(answer: str) -> None:
    assert not is_page(answer)


@pytest.mark.parametrize("bomb", ["<div>" * 100_000 + "x", "<ul><li>" * 5_000 + "x" + "</li></ul>" * 5_000])
def test_a_nesting_bomb_is_refused(bomb: str) -> None:
    with pytest.raises(TooDeep, match="200 deep"):
        to_markdown(bomb)
    with pytest.raises(TooDeep, match="200 deep"):
        converted(site_pages.FRAME.format(bomb))
