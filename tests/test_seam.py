"""Where half an answer is cut and how the rest is joined, for every way it can be cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.seam import Overlap, SeamBroken, Stop, Whitespace, safe_pieces


@pytest.mark.parametrize(
    ("pieces", "safe"),
    [
        (["The", " cat", " s", "at"], 2),
        (["The", " cat"], 1),
        (["The"], 1),
        ([" a"], 1),
        (["Hi", "\n", " x"], 3),
        (["one", " two", ".", "\n"], 1),
        (["a", " ", "b"], 3),
        (["今", "日", "は"], 3),
        (["a", " b", *["c"] * 40], 42),
    ],
)
def test_text_is_sent_back_up_to_the_end_of_a_word(pieces: list[str], safe: int) -> None:
    assert safe_pieces(pieces) == safe


@given(st.text(max_size=8), st.text(max_size=8), st.data())
def test_what_was_said_is_left_out_however_it_comes(said: str, rest: str, data: st.DataObject) -> None:
    whole, overlap, out = said + rest, Overlap(said), ""
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        out += overlap.feed(whole[:size])
        whole = whole[size:]
    assert out == rest


def test_an_engine_that_says_something_else_breaks_the_seam() -> None:
    overlap = Overlap(" sat")
    assert overlap.feed(" s") == ""
    with pytest.raises(SeamBroken):
        overlap.feed("lept")


@pytest.mark.parametrize(("pieces", "out"), [([" ", "world"], "world"), (["world"], "world"), ([" world"], "world")])
def test_whitespace_that_a_template_stripped_is_not_said_twice(pieces: list[str], out: str) -> None:
    seam = Whitespace(" ")
    assert "".join(seam.feed(piece) for piece in pieces) == out


@given(st.lists(st.text("ab.", max_size=4), max_size=8), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3))
def test_stop_strings_cut_as_if_the_text_had_come_at_once(pieces: list[str], stops: list[str]) -> None:
    stop, text = Stop(stops), "".join(pieces)
    out = "".join(stop.feed(piece) for piece in pieces) + stop.rest()
    ends = [text.find(each) for each in stops if each in text]
    assert stop.found == bool(ends)
    # The stop that is complete first cuts; one that begins earlier but ends later is cut into.
    assert text.startswith(out)
    assert not any(each in out for each in stops)


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    stop = Stop(["END"])
    assert stop.feed("the E") == "the "
    assert stop.feed("N") == ""
    assert stop.feed("emy") == "ENemy"
    assert stop.feed(" END of") == " "
    assert stop.found
