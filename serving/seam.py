"""Joining an answer that began on one engine and goes on on another, and cutting it at stop strings. Pure.

Text cut in the middle of a word may be tokenized differently when it is sent back. With greedy decoding the next engine
is therefore sent one word less, says that word again, and it is checked and left out:

    said:      The cat s|at      (pieces "The", " cat", " s", "at")
    sent back: The cat
    it says:   " s", "at", " on" -> only " on" is passed on
"""

from collections.abc import Sequence


class SeamBroken(Exception):
    """The engine did not say again what had been said; the text must be sent back whole."""


MOST_SAID_AGAIN = 16
"""Pieces; a longer word is not worth its time."""


def safe_pieces(pieces: Sequence[str]) -> int:
    """How many pieces to send back, so that the text ends where a word does; all of them where no word ends near by.

    A tokenizer never joins a word with the one before it, so whatever the rest was, these pieces tokenize as they did.
    """
    for index in range(len(pieces) - 1, max(0, len(pieces) - 1 - MOST_SAID_AGAIN), -1):
        piece, before = pieces[index], pieces[index - 1]
        if len(piece) > 1 and piece[0] == " " and piece[1].isalnum() and before and not before[-1].isspace():
            return index
    return len(pieces)


class Overlap:
    """Leaves out of what comes what has been said already."""

    def __init__(self, said: str) -> None:
        self.left = said

    def feed(self, text: str) -> str:
        if not self.left:
            return text
        if text.startswith(self.left):
            text, self.left = text[len(self.left) :], ""
            return text
        if self.left.startswith(text):
            self.left = self.left[len(text) :]
            return ""
        raise SeamBroken


class Whitespace(Overlap):
    """Leaves out whitespace said already: templates strip it from what they are sent. It may also not come."""

    def feed(self, text: str) -> str:
        if not self.left or not text:
            return text
        if not text.isspace():
            kept = text.removeprefix(self.left) if text.startswith(self.left) else text
            self.left = ""
            return kept
        return super().feed(text) if text.startswith(self.left) or self.left.startswith(text) else text


class Stop:
    """Cuts at the first stop string, holding back what may be the beginning of one, so none spans a seam."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self.held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What may be passed on; `found` is set once a stop string has come, and the rest is nothing."""
        if self.found:
            return ""
        text = self.held + text
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self.held = True, ""
            return text[: min(places)]
        keep = max((self._beginning(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :] if keep else ""
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, when the engine has ended."""
        text, self.held = self.held, ""
        return text

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """The longest end of `text` that begins `stop`."""
        for length in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0
