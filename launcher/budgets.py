"""The budgets a person has set, in config.toml beside the ledger. The edge to that file."""

import msgspec

from launcher.errors import RecipeError
from launcher.forecast import Budgets
from launcher.ledger import home

NAME = "config.toml"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    budgets: Budgets = msgspec.field(default_factory=Budgets)


def budgets() -> Budgets:
    """What is set; none where there is no file. Raises RecipeError where it cannot be used."""
    path = home() / NAME
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config).budgets
    except FileNotFoundError:
        return Budgets()
    except OSError as failure:
        raise RecipeError(f"{path} cannot be read: {failure.strerror}.") from failure
    except msgspec.DecodeError as failure:
        raise RecipeError(
            f"{path} cannot be used: {failure}. Known is [budgets] with run_usd, month_usd, at_limit."
        ) from None
