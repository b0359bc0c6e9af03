from pathlib import Path

import pytest

from train.conversations import main, read
from train.errors import TrainError

GOOD = '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}'


def test_a_list_and_lines_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"[{GOOD}, {GOOD}]")
    (tmp_path / "lines").write_text(f"{GOOD}\n\n{GOOD}\n")
    assert read(tmp_path / "list") == read(tmp_path / "lines")
    assert read(tmp_path / "list")[0][1] == {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no conversation"),
        ("[]", "holds no conversation"),
        ("hello", "line 1, record 1 is not JSON"),
        (f"{GOOD}\n{{broken\n", "line 2, record 2 is not JSON"),
        ('[{"conversations": [', "is not JSON: line 1"),
        (f'{GOOD}\n{{"text": "x"}}', "line 2, record 2: no list of turns under 'conversations'"),
        (GOOD.replace('"from": "gpt", ', ""), "line 1, record 1, turn 2 says not whose it is: 'from' is missing"),
        (GOOD.replace("gpt", "robot"), "turn 2 is from 'robot'; known are assistant, gpt, human"),
        (GOOD.replace('"Hello"', "3"), "turn 2 has no text under 'value'"),
        (GOOD.replace("human", "gpt"), "turn 1 is the assistant's where the user's belongs"),
        ('{"conversations": [{"from": "human", "value": "Hi"}]}', "no turn of the assistant's to train on"),
    ],
)
def test_what_is_not_a_conversation_is_named_by_line_and_record(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(text)
    with pytest.raises(TrainError, match=sentence):
        read(path)


def test_bytes_that_are_not_text_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "chats").write_bytes(b"[\xff\xfe]")
    with pytest.raises(TrainError, match="is not UTF-8 text: byte 1"):
        read(tmp_path / "chats")


def test_a_file_that_is_not_there_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 1
    assert "set data.conversations" in capsys.readouterr().out


def test_the_conversations_of_this_repository_are_conversations() -> None:
    assert len(read(Path(__file__).parent.parent / "data" / "identity.jsonl")) == 64
