"""SkyPilot's own word on the tasks and services that vlaunch renders."""

import copy
from typing import Any

import pytest
import yaml


def accepted(text: str, **variables: str) -> Any:
    """The task that SkyPilot makes of `text`, with these variables and with a value for every secret. Its schema and
    its classes raise where they do not take it."""
    pytest.importorskip("sky", reason="SkyPilot is not installed (the extra `cloud`)")
    import sky
    from sky.utils import common_utils, schemas

    document = yaml.safe_load(text)
    common_utils.validate_schema(document, schemas.get_task_schema(), "not a task: ")
    secrets = [(name, "x") for name in document.get("secrets", {})]
    task = sky.Task.from_yaml_config(
        copy.deepcopy(document), env_overrides=list(variables.items()), secrets_overrides=secrets
    )
    task.workdir = None  # not this checkout: only what the text says
    return task
