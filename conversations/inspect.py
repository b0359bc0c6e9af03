"""What is in a set of conversations: counts, lengths, languages, samples, and what its manifest says was removed; and
the same as a page.
"""

import html
from collections import Counter as Tally
from pathlib import Path
from typing import Any

import msgspec

from conversations import language
from conversations.output import read_manifest
from conversations.records import Reading
from conversations.schema import Conversation
from conversations.select import LARGEST, conversations, place
from conversations.sources import Source
from conversations.tokens import Counter

SAMPLES = 5
JUDGED = 0.1
"""Share of conversations whose language is detected, and all of the first hundred."""


class Facts(msgspec.Struct, kw_only=True):
    """What `inspect` finds; `--json` prints it."""

    conversations: int = 0
    turns: int = 0
    characters: int = 0
    tokens: int | None = None
    """With a tokenizer."""
    longest_tokens: int | None = None
    turns_a_conversation: dict[int, int] = msgspec.field(default_factory=dict)
    sizes: dict[int, int] = msgspec.field(default_factory=dict)
    """Conversations by size, in tokens or else characters: a power of two, and how many have that much or more, less
    than twice it."""
    languages: dict[str, int] = msgspec.field(default_factory=dict)
    """Of those looked at that are long enough to tell."""
    cut_pieces: int = 0
    removed: dict[str, Any] = msgspec.field(default_factory=dict)
    """The counts of the manifest."""
    samples: list[Conversation] = msgspec.field(default_factory=list)


def inspect(given: list[Source], counter: Counter | None, manifest_of: Path | None) -> Facts:
    """Read the sources. Raises ConversationsError."""
    facts = Facts(tokens=0 if counter else None, longest_tokens=0 if counter else None)
    turns, sizes, languages = Tally[int](), Tally[int](), Tally[str]()
    chosen: list[tuple[float, Conversation]] = []
    for each in conversations(Reading(given, LARGEST)):
        facts.conversations += 1
        facts.turns += len(each.conversations)
        size = sum(len(turn.value) for turn in each.conversations)
        facts.characters += size
        facts.cut_pieces += each.cut is not None
        if counter and facts.tokens is not None and facts.longest_tokens is not None:
            size = counter.count(each.conversations)
            facts.tokens += size
            facts.longest_tokens = max(facts.longest_tokens, size)
        turns[len(each.conversations)] += 1
        sizes[1 << max(size.bit_length() - 1, 0)] += 1
        at = place(each, "inspect")
        if facts.conversations <= 100 or at < JUDGED:
            prose, letters = language.letters("\n".join(turn.value for turn in each.conversations))
            if letters >= 200:
                languages[language.detect(prose)] += 1
        chosen = sorted([*chosen, (at, each)], key=lambda pair: pair[0])[:SAMPLES]
    facts.turns_a_conversation = dict(sorted(turns.items()))
    facts.sizes = dict(sorted(sizes.items()))
    facts.languages = dict(languages.most_common())
    facts.samples = [each for _, each in chosen]
    manifest = read_manifest(manifest_of) if manifest_of else None
    facts.removed = manifest.counts if manifest else {}
    return facts


def page(facts: Facts, title: str) -> str:
    """The facts as a page of its own, without scripts."""
    unit = "characters" if facts.tokens is None else "tokens"
    most = max(facts.sizes.values(), default=1)
    bars = "".join(
        f"<tr><td>{low:,} to {2 * low - 1:,}</td><td>{count:,}</td>"
        f'<td class="bars"><div class="bar" style="width:{100 * count / most:.1f}%"></div></td></tr>'
        for low, count in facts.sizes.items()
    )
    samples = "".join(
        f"<h3>{html.escape(each.id)}</h3>"
        + "".join(f'<div class="{turn.speaker}"><b>{turn.speaker}</b><pre>{html.escape(turn.value[:4000])}</pre></div>'
                  for turn in each.conversations)
        for each in facts.samples
    )  # fmt: skip
    totals = {"conversations": facts.conversations, "turns": facts.turns, "characters": facts.characters}
    if facts.tokens is not None:
        totals |= {"tokens": facts.tokens, "longest, in tokens": facts.longest_tokens or 0}
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>"
        "body{font:15px system-ui;max-width:60em;margin:2em auto;padding:0 1em}td,th{padding:.1em .8em;text-align:left}"
        "h1,h3,pre{overflow-wrap:anywhere}pre{white-space:pre-wrap;margin:.2em 0 1em}"
        ".gpt{background:#f2f4f7;padding:.3em .8em}.human{padding:.3em .8em}"
        f".bars{{width:60%}}.bar{{background:#47a;height:1em}}</style><h1>{html.escape(title)}</h1>{_table(totals)}"
        f"<h2>Size, in {unit}</h2><table style='width:100%'>{bars}</table>"
        f"<h2>Turns a conversation</h2>{_table(facts.turns_a_conversation)}"
        f"<h2>Languages</h2>{_table(facts.languages)}<h2>What was removed</h2>{_table(flat(facts.removed))}"
        f"<h2>Samples</h2>{samples}</html>\n"
    )


def flat(counts: dict[str, Any]) -> dict[str, int]:
    """Counts in counts as `dropped: role_order`."""
    found: dict[str, int] = {}
    for key, value in counts.items():
        if isinstance(value, dict):
            found |= {f"{key}: {name}": count for name, count in value.items()}
        elif isinstance(value, int):
            found[key] = value
    return found


def _table(rows: dict[Any, int]) -> str:
    lines = "".join(f"<tr><td>{html.escape(str(key))}</td><td>{value:,}</td></tr>" for key, value in rows.items())
    return f"<table>{lines}</table>" if rows else "<p>none</p>"
