"""The SkyPilot task of a gateway's own machine, as a dictionary. Pure.

Small and on demand: it is the one address in front, so it is not on the spot market. It keeps nothing; a second one
beside it, dialled by the same replicas, makes it dispensable.
"""

from typing import Any

from launcher import machine_setup
from launcher.serve_yaml import ENVIRONMENT, TOKEN
from launcher.task_yaml import REPOSITORY_FILES

NAME = "vlaunch-gateway"
KEY = "VLAUNCH_API_KEY"
"""The secret that users ask with."""
PORT = 8080


HEADER = f"""\
Rendered by vlaunch: the machine of a gateway. Change launcher/gateway_yaml.py, not this file.
Runs with: sky launch -c {NAME} --secret {KEY} --secret {TOKEN} THIS_FILE
Its address: sky status --endpoint {PORT} {NAME}; end it with: sky down {NAME}"""


def task() -> dict[str, Any]:
    """Run by `sky launch`; needs both secrets."""
    return {
        "name": NAME,
        "workdir": REPOSITORY_FILES,
        "resources": {"use_spot": False, "cpus": "2+", "memory": "4+", "disk_size": 30, "ports": PORT},
        "envs": {"VLAUNCH_SKYSERVE": ""},
        "secrets": {KEY: None, TOKEN: None},
        "setup": machine_setup.environment("The gateway's libraries", "serve", name=ENVIRONMENT),
        "run": machine_setup.variable(ENVIRONMENT)
        + f'exec "$env/bin/python" -m launcher gateway --host 0.0.0.0 --port {PORT}\n',
    }
