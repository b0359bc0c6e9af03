"""The client side of SkyPilot. Submitting is not here yet: this says what a machine lacks for it, and how to send
a rendered task by SkyPilot's own command.
"""

import importlib.util


def what_is_missing() -> str:
    """One sentence on why a task cannot be sent from this machine by vlaunch."""
    if importlib.util.find_spec("sky") is None:
        return "SkyPilot is not installed on this machine: pip install 'vlaunch[cloud]', then `sky check`."
    return (
        "vlaunch does not submit to SkyPilot by itself yet: write the task with --dry-run > task.yaml and send it "
        "with `sky jobs launch task.yaml` (clouds are enabled by `sky check`)."
    )
