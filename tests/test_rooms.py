"""Who may import whom. The table is the house's plan; a change to it belongs in docs/decisions.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("checkpoints", "market", "conversations", "serving", "evaluation", "train", "launcher")

# room -> prefixes of our own modules it may import besides itself
MAY_IMPORT = {
    "checkpoints": (),
    "market": (),
    "conversations": (),
    "serving": (),
    "evaluation": (),
    "train": ("checkpoints",),
    "launcher": (
        "market",
        "checkpoints.config",
        "checkpoints.layout",
        "checkpoints.stores",
        "train.config",
        "train.memory",
        "train.templates",
        "serving.config",
        "evaluation",
        "conversations",
    ),
}

# library -> the only files (by prefix) that may import it
ONLY_IN = {
    "sky": ("launcher/skypilot.py", "launcher/skyserve.py", "launcher/recovery.py"),
    "click": ("launcher/cli/",),
    "rich": ("launcher/cli/",),
    "torch": ("train/", "checkpoints/sharded.py", "checkpoints/saver.py"),
}

# files that read no clock, disk, network or environment
PURE = (
    "launcher/plan.py",
    "launcher/task_yaml.py",
    "launcher/cost_page.py",
    "launcher/forecast.py",
    "launcher/lines.py",
    "launcher/machines.py",
    "launcher/serve_plan.py",
    "launcher/serve_yaml.py",
    "launcher/report.py",
    "market/offers.py",
    "market/availability.py",
    "market/policy.py",
    "market/replay.py",
    "market/optimal.py",
    "market/deadline.py",
    "market/baselines.py",
    "market/chain.py",
    "market/least_cost.py",
    "market/policies.py",
    "market/arrangements.py",
    "market/fleet.py",
    "market/least_cost_fleet.py",
    "market/least_serving.py",
    "market/serving.py",
    "market/spells.py",
    "market/waiting.py",
    "launcher/speed.py",
    "launcher/ways.py",
    "checkpoints/layout.py",
    "checkpoints/cadence.py",
)
IMPURE = {
    "os",
    "time",
    "socket",
    "subprocess",
    "urllib",
    "http",
    "requests",
    "shutil",
    "tempfile",
    "pathlib",
    "random",
}


def files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Every module name `path` imports, inside functions too unless `top_level_only`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def starts(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    ours = {name for name in imports(path) if name.split(".")[0] in ROOMS}
    wrong = {name for name in ours if not starts(name, (room, *MAY_IMPORT[room]))}
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_imported_only_where_it_belongs(library: str) -> None:
    for path in files():
        where = str(path.relative_to(ROOT))
        if any(name.split(".")[0] == library for name in imports(path)):
            assert where.startswith(ONLY_IN[library]), f"{where} imports {library}"


@pytest.mark.parametrize("where", PURE)
def test_a_file_called_pure_imports_nothing_that_touches_the_world(where: str) -> None:
    path = ROOT / where
    touched = {name for name in imports(path) if name.split(".")[0] in IMPURE}
    assert not touched, f"{where} imports {sorted(touched)}"


def test_the_command_line_loads_no_heavy_library() -> None:
    probe = (
        "import sys, importlib, launcher.cli as cli\n"
        "for module, attribute, _ in cli.COMMANDS.values():\n"
        "    importlib.import_module('launcher.cli.' + module)\n"
        "print(*sorted({'sky', 'torch', 'transformers', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []
