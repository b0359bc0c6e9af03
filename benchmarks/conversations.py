"""Cleaning and splitting beside FastChat's own, from PyPI's fschat: `python benchmarks/conversations.py`.

The peer has a virtual environment of its own, with the markdownify that its source names. In one run over the same
input: HTML turns a second of one core, CPU seconds of clean and split together (ours with all worker processes), memory
at 1,000 and 50,000 conversations, and what each way of splitting loses of 10,000 generated conversations.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-fschat"
PEER = ("fschat==0.2.36", "beautifulsoup4", "markdownify==0.11.6", "tqdm", "transformers<5")
MAX_TOKENS = 256

PEER_HTML = """
import json, sys, time
from fastchat.data.clean_sharegpt import html_to_markdown
pages = json.load(open(sys.argv[1]))
html_to_markdown(pages[0])
began = time.process_time()
for page in pages:
    html_to_markdown(page)
print(time.process_time() - began)
"""
PEER_SPLIT = """
import json, sys
from transformers import PreTrainedTokenizerFast
from fastchat.data import split_long_conversation as theirs
theirs.tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[2] + "/tokenizer.json")
theirs.max_length = int(sys.argv[3])
content = json.load(open(sys.argv[1]))
json.dump(theirs.filter_invalid_roles(theirs.worker(content)), open(sys.argv[4], "w"))
"""
PEER_CLEAN = """
import json, sys
from fastchat.data.clean_sharegpt import clean_html_all
json.dump(clean_html_all(json.load(open(sys.argv[1])), None, None), open(sys.argv[2], "w"))
"""


def install() -> str:
    """The peer's Python."""
    python = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
        (VENV / "ready").touch()
    return str(python)


def measured(*command: str) -> tuple[float, float]:
    """CPU seconds and the largest process' megabytes of a command with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    probe = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, " \
            "stderr=subprocess.DEVNULL).returncode; " \
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(code)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", probe, *command], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, float(done.stdout)


def chats(path: Path, count: int, most_rounds: int = 5) -> list[str]:
    """Write conversations of pages; the pages of the first 400."""
    from tests import site_pages

    chance = random.Random(20261125)
    made = [site_pages.render(site_pages.answer(chance)) for _ in range(400)]
    with path.open("w") as file:
        file.write("[")
        for number in range(count):
            rounds = range(chance.randint(1, most_rounds))
            turns = [{"from": speaker, "value": f"Question {number}, {at}: why?" if speaker == "human" else
                      made[chance.randrange(len(made))].replace("model", f"model{number}", 2)}
                     for at in rounds for speaker in ("human", "gpt")]  # fmt: skip
            file.write(",\n" * (number > 0) + json.dumps({"id": f"c{number}", "conversations": turns}))
        file.write("]")
    return made


def tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on the spot, that both ways load."""
    from tests.test_split import trained

    trained("byte-level BPE", folder)


def html_turns(python: str, pages: list[str], folder: Path) -> None:
    from conversations.html import converted

    (folder / "pages.json").write_text(json.dumps(pages))
    done = subprocess.run(
        [python, "-c", PEER_HTML, str(folder / "pages.json")], stdout=subprocess.PIPE, text=True, check=True
    )
    theirs = float(done.stdout)
    converted(pages[0])
    began = time.process_time()
    for page in pages:
        converted(page)
    ours = time.process_time() - began
    print(f"HTML turns a second of one core: ours {len(pages) / ours:,.0f}, fschat's {len(pages) / theirs:,.0f}: "
          f"{theirs / ours:.1f} times")  # fmt: skip


def together(python: str, folder: Path, count: int) -> None:
    given, words = folder / "chats.json", str(folder / "tokenizer")
    chats(given, count)
    theirs = measured(python, "-c", PEER_CLEAN, str(given), str(folder / "their-clean.json"))[0]
    theirs_split = measured(python, "-c", PEER_SPLIT, str(folder / "their-clean.json"), words, "2048",
                            str(folder / "their-split.json"))[0]  # fmt: skip
    (ours, _), (ours_split, _) = clean_and_split(given, folder)
    ratio = (theirs + theirs_split) / (ours + ours_split)
    print(f"clean and split of {count:,} conversations, CPU seconds: ours {ours:.1f} + {ours_split:.1f}, "
          f"fschat's {theirs:.1f} + {theirs_split:.1f}: {ratio:.1f} times")  # fmt: skip


def clean_and_split(given: Path, folder: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """CPU seconds and megabytes of each of our two commands."""
    cleaned = str(folder / "clean.jsonl")
    vlaunch = (sys.executable, "-m", "launcher", "data")
    return measured(*vlaunch, "clean", str(given), "--out", cleaned), measured(
        *vlaunch, "split", cleaned, "--tokenizer", str(folder / "tokenizer"), "--template", "vicuna",
        "--max-tokens", "2048", "--out", str(folder / "split.jsonl"),
    )  # fmt: skip


def memory(folder: Path) -> None:
    found = []
    for count in (1_000, 50_000):
        chats(folder / "many.json", count, most_rounds=1)
        found.append([megabytes for _, megabytes in clean_and_split(folder / "many.json", folder)])
    for name, few, many in zip(("clean", "split"), *found, strict=True):
        print(f"memory of {name}'s largest process: {few:.0f} MB at 1,000 conversations, {many:.0f} MB at 50,000: "
              f"{many / few:.2f} times")  # fmt: skip


def losses(python: str, folder: Path) -> None:
    """10,000 generated conversations: answers' characters in and out."""
    from conversations import schema
    from conversations.split import pieces
    from conversations.tokens import Counter
    from tests.test_split import answers, generated
    from train.templates import NAMED

    counter = Counter(str(folder / "tokenizer"), NAMED["vicuna"])
    whole = [generated(seed) for seed in range(10_000)]
    lost = sum(
        answers(pieces(each, counter, MAX_TOKENS)) != [t.value for t in each.conversations if t.speaker == "gpt"]
        for each in whole
    )
    records: list[dict[str, Any]] = [
        {"id": each.id, "conversations": [{"from": turn.speaker, "value": turn.value} for turn in each.conversations
                                          if turn.speaker != "system"]}
        for each in whole
    ]  # fmt: skip
    (folder / "generated.json").write_text(json.dumps(records))
    subprocess.run(
        [python, "-c", PEER_SPLIT, str(folder / "generated.json"), str(folder / "tokenizer"), str(MAX_TOKENS),
         str(folder / "theirs.json")], check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    said = json.loads((folder / "theirs.json").read_text())
    turns_in = sum(len(each["conversations"]) // 2 for each in records)
    turns_out = sum(len(each["conversations"]) // 2 for each in said)
    too_long = sum(
        counter.count(schema.conversation(each, "x").conversations) > MAX_TOKENS
        for each in said
        if each["conversations"]
    )
    print(f"10,000 generated conversations split to {MAX_TOKENS} tokens: ours loses or doubles an answer in {lost}; "
          f"fschat's drops {turns_in - turns_out:,} of {turns_in:,} answers,\n"
          f"and {too_long:,} of its {len(said):,} pieces are longer than they may be")  # fmt: skip


def main() -> None:
    sys.path.insert(0, str(ROOT))
    # Where Python may write no bytecode, each start of either side compiles all of it again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    python = install()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        tokenizer(folder / "tokenizer")
        pages = chats(folder / "chats.json", 1_500)
        html_turns(python, pages, folder)
        for count in (1, 1_500, 6_000, 24_000):
            together(python, folder, count)
        memory(folder)
        losses(python, folder)


if __name__ == "__main__":
    main()
