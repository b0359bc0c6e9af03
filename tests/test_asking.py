"""What an engine is asked when half of an answer is there already, for each kind of engine; no engine runs here."""

from typing import Any

import msgspec
import pytest

from serving.asking import Asking, ask
from serving.errors import EngineFailed
from serving.reading import NotText, Reading
from serving.template import Template
from serving.wire import Begin, End, Events, Text


class Words(Template):
    """A template whose tokens are words."""

    def __init__(self) -> None:
        pass

    def render(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"

    def count(self, text: str) -> int:
        return len(text.split())


def begin(said: list[str], endpoint: str = "chat/completions", **more: Any) -> Begin:
    body: dict[str, Any] = {"model": "ours", "max_tokens": 10, "temperature": 0}
    body |= {"prompt": "Say:"} if endpoint == "completions" else {"messages": [{"role": "user", "content": "Say"}]}
    ids = list(range(len(said)))
    return Begin(
        request=1, endpoint=endpoint, mode="text", model="ours", answer_id="a", body=msgspec.json.encode(body | more),
        said=said, tokens=len(said), prompt_ids=[7, 8], said_ids=ids,
    )  # fmt: skip


HALF = ["The", " cat", " s", "at"]


def test_a_new_request_is_passed_on_under_the_engines_name_with_usage() -> None:
    asking = ask(begin([]), "theirs", "openai", None)
    assert asking.endpoint == "chat/completions"
    assert asking.body["model"] == "theirs"
    assert asking.body["stream_options"] == {"include_usage": True}
    assert asking.body["max_tokens"] == 10


def test_a_chat_goes_on_from_the_last_word_which_is_said_again() -> None:
    asking = ask(begin(HALF), "m", "openai", None)
    assert asking.body["messages"][-1] == {"role": "assistant", "content": "The cat"}
    assert asking.body["continue_final_message"] is True
    assert asking.body["add_generation_prompt"] is False
    assert (asking.body["max_tokens"], asking.prefix_tokens, asking.overlap.left) == (8, 2, " sat")


def test_drawn_words_do_not_come_again_so_all_is_sent_back() -> None:
    asking = ask(begin(HALF, temperature=0.7), "m", "openai", None)
    assert asking.body["messages"][-1]["content"] == "The cat sat"
    assert (asking.body["max_tokens"], asking.overlap.left) == (6, "")


def test_text_that_ends_in_whitespace_is_sent_without_it_and_not_given_twice() -> None:
    asking = ask(begin(["t0 ", "t1 "]), "m", "openai", None)
    assert asking.body["messages"][-1]["content"] == "t0 t1"
    assert asking.body["max_tokens"] == 8
    assert asking.overlap.feed(" t2 ") == "t2 "


def test_a_conversation_that_ended_with_the_assistants_words_goes_on_with_them() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once"}]
    asking = ask(begin(HALF, messages=messages), "m", "openai", None)
    assert asking.body["messages"] == [messages[0], {"role": "assistant", "content": "OnceThe cat"}]


def test_token_ids_go_on_where_the_engine_gave_them() -> None:
    asking = ask(begin(HALF), "m", "vllm", None)
    assert asking.endpoint == "completions"
    assert asking.body["prompt"] == [7, 8, 0, 1, 2, 3]
    assert "messages" not in asking.body
    assert (asking.body["max_tokens"], asking.overlap.left) == (6, "")


def test_token_ids_run_ahead_of_text_where_there_are_stop_strings() -> None:
    assert ask(begin(HALF, stop="END"), "m", "vllm", None).endpoint == "chat/completions"


def test_a_template_renders_the_prompt_and_counts_what_was_said() -> None:
    asking = ask(begin(HALF), "m", "transformers", Words())
    assert asking.endpoint == "completions"
    assert asking.body["prompt"] == "<user>Say<assistant>The cat"
    assert asking.prompt_tokens == 1


def test_a_completion_goes_on_behind_its_prompt() -> None:
    asking = ask(begin(HALF, "completions"), "m", "openai", None)
    assert asking.body["prompt"] == "Say:The cat"


def test_nothing_is_asked_when_everything_was_said() -> None:
    assert ask(begin(["a"] * 10, temperature=1), "m", "openai", None).complete


def test_the_newer_name_of_the_limit_is_put_as_the_older() -> None:
    body = ask(begin([], max_tokens=None, max_completion_tokens=5), "m", "openai", None).body
    assert body["max_tokens"] == 5
    assert "max_completion_tokens" not in body


def chunk(text: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return msgspec.json.encode({"id": "x", "choices": [choice], **more})


def read(asked: Begin, asking: Asking, data: list[bytes], *, streamed: bool = True) -> list[Any]:
    reading = Reading(asked, asking, streamed=streamed)
    return [*reading.take(data), *reading.end()]


def test_the_count_of_tokens_is_that_of_an_undisturbed_answer() -> None:
    asked = begin(HALF)
    asking = ask(asked, "m", "openai", None)
    usage = {"prompt_tokens": 5, "completion_tokens": 4}
    records = read(
        asked, asking, [chunk(" s"), chunk("at"), chunk(" on"), chunk(" it", finish="stop"), chunk(usage=usage)]
    )
    said = [record for record in records if isinstance(record, Text)]
    assert [piece for record in said for piece in record.pieces] == [" on", " it"]
    ends = [record for record in records if isinstance(record, End)]
    assert len(HALF) + sum(record.tokens for record in [*said, *ends]) == 6
    assert ends[0].prompt_tokens == 3
    assert ends[0].finish_reason == "stop"


def test_a_stop_string_the_engine_let_through_ends_the_answer() -> None:
    asked = begin([], stop=["END"])
    records = read(
        asked, ask(asked, "m", "openai", None), [chunk("go E"), chunk("ND on"), chunk("x"), chunk("", finish="length")]
    )
    assert "".join(piece for record in records if isinstance(record, Text) for piece in record.pieces) == "go "
    assert records[-1].finish_reason == "stop"


def test_a_stream_that_ends_early_is_a_failure() -> None:
    asked = begin([])
    with pytest.raises(EngineFailed, match="in the middle"):
        read(asked, ask(asked, "m", "openai", None), [chunk("a")])


def test_an_error_in_a_stream_is_a_failure() -> None:
    asked = begin([])
    with pytest.raises(EngineFailed, match="out of memory"):
        read(asked, ask(asked, "m", "openai", None), [b'{"error": "out of memory"}'])


def test_reasoning_is_passed_on_in_a_stream_and_cannot_be_collected() -> None:
    asked = begin([])
    thought = msgspec.json.encode({"id": "x", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    records = read(asked, ask(asked, "m", "openai", None), [thought, chunk("yes", finish="stop")])
    assert isinstance(records[0], Events)
    assert b'"id":"a"' in records[0].data
    with pytest.raises(NotText):
        read(asked, ask(asked, "m", "openai", None), [thought], streamed=False)
