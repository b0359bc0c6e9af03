"""The sentences vlaunch ends with.

VlaunchError                exit 1; its text is the whole message: what happened, where, what to do next
├── RecipeError             a recipe file, section or key is wrong
├── OfferError              no machine on offer satisfies the recipe
├── RunError                a run is not there, is in use, or ended badly
├── ServeError              a gateway or worker cannot start as asked
├── LedgerError             the ledger cannot be read or written
├── SkyPilotError           SkyPilot's API server does not answer, or says no
└── MissingPart             something that is installed separately is not on this machine

Rooms that may not import the launcher raise errors of their own; `launcher.cli` translates those it knows.
"""


class VlaunchError(Exception):
    """A failure a person can act on. The text is one sentence or two, never a traceback, never a secret."""


class RecipeError(VlaunchError):
    """A recipe is not what it should be; the text names file, section and key."""


class OfferError(VlaunchError):
    """No offer satisfies what was asked; the text shows the nearest that exists."""


class RunError(VlaunchError):
    """A run cannot be found, started, resumed, or ended badly."""


class LedgerError(VlaunchError):
    """The ledger on this machine cannot be read or written."""


class ServeError(VlaunchError):
    """A gateway or worker cannot be started as asked."""


class SkyPilotError(VlaunchError):
    """SkyPilot does not do what it was asked; the text holds its own words."""


class MissingPart(VlaunchError):
    """A part that vlaunch needs for this is not installed; the text holds the command that installs it."""
