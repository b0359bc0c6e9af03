"""How a machine gets the libraries of a room: the shell that makes an environment for one of our extras. Pure.

The environment is kept under a name made of what it was made from, so that a second start finds it and is done.
"""


def variable(name: str = "") -> str:
    """The line that says which environment; `name` is of those that are not the trainer's."""
    return f'env="${{VLAUNCH_ENV:-{_folder(name)}}}"\n'


def environment(what: str, extra: str, *, name: str = "", more: str = "") -> str:
    """The setup that makes it for `extra`; `what` is said over it, and `more` is shell that is run in it once."""
    return f"""\
# {what}. A second start finds them and is done.
set -eu
env="{_folder(name)}"
if [ -z "${{VLAUNCH_ENV:-}}" ] && [ ! -e "$env/ready" ]; then  # VLAUNCH_ENV has them already
  command -v uv >/dev/null || python3 -m pip install --quiet uv
  uv venv --quiet --allow-existing --seed --python 3.11 "$env"
  uv pip install --quiet --python "$env/bin/python" -r pyproject.toml --extra {extra}
{more}  touch "$env/ready"
fi
"""


def _folder(name: str) -> str:
    return "$HOME/.vlaunch/env-$(sha256sum pyproject.toml | cut -c1-16)" + (f"-{name}" if name else "")
