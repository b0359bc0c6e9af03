"""How this room fails: what stops a command, and what is wrong with a single record."""


class ConversationsError(Exception):
    """A sentence for the person: what happened, where, what to do next. It ends the command."""


class Unreadable(Exception):
    """One record that cannot be used; the rest goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        """A name that is counted: `not_json`, `truncated`, `encoding`, `schema`, `too_large`, `html`, `crash`."""
        self.detail = detail
