"""What a command that has done one thing says of it: a sentence, or the same facts as JSON."""

import json
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")


def say(sentence: str, *, as_json: bool, **facts: Any) -> None:
    """Print the one or the other; values that JSON has no form for are printed as text."""
    click.echo(json.dumps(facts, default=str) if as_json else sentence)
