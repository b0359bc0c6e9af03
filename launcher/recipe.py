"""Recipes: TOML a person writes, composed of the rooms' configs, read strictly; what is wrong is said in a
sentence with file, section and key.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from checkpoints.config import CheckpointConfig
from launcher.errors import RecipeError
from train.config import DataConfig, LoraConfig, ModelConfig, TrainConfig, above_zero, at_least

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE.parent / "recipes", HERE / "recipes")
"""In a checkout, and in an installed package."""
MOUNTED = "~/vlaunch-data"
"""Where a conversations file from outside the workdir appears on the machine."""
DEFAULT = "vicuna-7b"
DEFAULT_LOCAL = "smollm2-135m"


class PlaceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place that no price list knows, such as a Slurm or Kubernetes cluster of your own: `[[machine.places]]`."""

    infra: str
    """SkyPilot's form: `slurm/cluster/partition`, `kubernetes/context`."""

    usd_per_hour: float
    """What an hour of one whole machine costs there."""

    spot: bool = False
    """Whether it may be taken away."""

    def __post_init__(self) -> None:
        at_least(self, "usd_per_hour", 0)


class MachineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[machine]` section: what the recipe runs on."""

    accelerators: list[str] = []
    """Acceptable ones, `NAME:COUNT` a node, in SkyPilot's names; empty: a machine without."""

    nodes: int = 1
    processes: int = 0
    """Processes a node; 0: one for each accelerator."""

    cpus: str = ""
    """SkyPilot's form, `2+`."""

    disk_gb: int = 256
    grace_seconds: int = 110
    """How long the workers may take to save and leave after a notice before they are killed. AWS gives 120
    seconds, GCP and Azure 30."""

    secrets: list[str] = []
    """Names of environment variables the machine needs; their values are never written down."""

    places: list[PlaceConfig] = []
    """With prices of your own, beside those of the price list."""

    def __post_init__(self) -> None:
        at_least(self, "nodes", 1)
        at_least(self, "processes", 0)
        at_least(self, "disk_gb", 10)
        at_least(self, "grace_seconds", 1)
        if not self.accelerators and not self.processes:
            raise ValueError("accelerators is empty and processes is 0; one of them must say what computes")
        for each in self.accelerators:
            parse_accelerator(each)


class ZoneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A simulated zone of `--infra local`."""

    name: str
    usd_per_hour: float
    """Simulated."""

    def __post_init__(self) -> None:
        at_least(self, "usd_per_hour", 0)


class LocalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[local]` section: the spot market that is simulated on this machine. Every price in it is made up."""

    zones: list[ZoneConfig] = []
    on_demand_usd_per_hour: float = 0.0
    mean_life_seconds: float = 600.0
    """Mean of the exponential life of a machine, from its start."""

    start_seconds: float = 2.0
    """From asking for a machine to having it."""

    grace_seconds: float = 30.0
    """Between the notice and the end."""

    notice_share: float = 0.5
    """Share of preemptions that are announced."""

    max_preemptions: int = 4
    """After so many the machine is left alone, so that a demonstration ends."""

    seed: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "mean_life_seconds")
        at_least(self, "start_seconds", 0)
        at_least(self, "grace_seconds", 0)
        at_least(self, "max_preemptions", 0)
        at_least(self, "on_demand_usd_per_hour", 0)
        if not 0 <= self.notice_share <= 1:
            raise ValueError(f"notice_share is {self.notice_share:g}; it must be from 0 to 1")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train, on what, and how."""

    model: ModelConfig
    data: DataConfig
    machine: MachineConfig
    train: TrainConfig = msgspec.field(default_factory=TrainConfig)
    lora: LoraConfig | None = None
    checkpoints: CheckpointConfig = msgspec.field(default_factory=CheckpointConfig)
    local: LocalConfig = msgspec.field(default_factory=LocalConfig)


class NamedRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe with its name and the text that a run freezes."""

    name: str
    recipe: Recipe
    text: str
    """TOML, with what `--set` changed written in: what the machine reads and every attempt compares with."""
    mounts: dict[str, str] = {}
    """Place on the machine to file here: conversations that are not in the workdir."""


def parse_accelerator(text: str) -> tuple[str, int]:
    """`A100-80GB:8` as name and count. Raises ValueError."""
    name, colon, count = text.partition(":")
    if not name or (colon and (not count.isdigit() or int(count) < 1)):
        raise ValueError(f"accelerators has '{text}'; write NAME:COUNT, as in A100-80GB:8")
    return name, int(count or 1)


def names(folders: Sequence[Path] = FOLDERS) -> list[str]:
    """The recipes that come with vlaunch."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})


def load(name_or_path: str, changes: Sequence[str] = ()) -> NamedRecipe:
    """The recipe of that name or at that path, with `section.key=value` changes. Raises RecipeError."""
    path = find(name_or_path, FOLDERS)
    document, shown = read(path, changes)
    decode(document, shown)
    mounts = _mount(document)
    return NamedRecipe(name=path.stem, recipe=decode(document, shown), text=to_toml(document), mounts=mounts)


def draft(name_or_path: str, changes: Sequence[str]) -> str:
    """A recipe's TOML with changes, for a person to keep. Raises RecipeError where it would not be one."""
    document, shown = read(find(name_or_path, FOLDERS), changes)
    decode(document, shown)
    return to_toml(document)


def read(path: Path, changes: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """The document at `path` with the changes made, and how a complaint names it. Raises RecipeError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failure:
        raise RecipeError(f"The recipe {path} cannot be read: {failure}.") from None
    except tomllib.TOMLDecodeError as failure:
        raise RecipeError(f"The recipe {path} is not TOML: {failure}.") from None
    ours = next((folder for folder in FOLDERS if path.is_relative_to(folder)), None)
    shown = f"recipes/{path.relative_to(ours)}" if ours else str(path)
    for change in changes:
        _apply(document, change)
    if changes:
        shown += f" with {', '.join(f'--set {change}' for change in changes)}"
    return document, shown


def decode(document: dict[str, Any], shown: str) -> Recipe:
    """A recipe out of parsed TOML; `shown` names it in a complaint. Raises RecipeError."""
    try:
        return msgspec.convert(document, type=Recipe)
    except msgspec.ValidationError as failure:
        raise RecipeError(f"{shown}: {explain(str(failure), _SECTIONS)}") from None


def to_toml(document: dict[str, Any]) -> str:
    """Plain TOML of a recipe's document: scalars and lists first, then tables, in the order given."""
    lines: list[str] = []
    _write_table(document, "", lines)
    return "\n".join(lines).strip() + "\n"


def find(name_or_path: str, folders: Sequence[Path]) -> Path:
    """The file of that name in one of `folders`, or at that path. Raises RecipeError."""
    given = Path(name_or_path)
    if given.suffix == ".toml" or given.parent != Path("."):
        if given.is_file():
            return given
        raise RecipeError(f"There is no recipe at {given}.")
    for folder in folders:
        if (folder / f"{name_or_path}.toml").is_file():
            return folder / f"{name_or_path}.toml"
    raise RecipeError(f"There is no recipe '{name_or_path}'.{_near(name_or_path, names(folders))}")


def _apply(document: dict[str, Any], change: str) -> None:
    """Put one `section.key=value` into the document."""
    path, equals, value = change.partition("=")
    section, dot, key = path.partition(".")
    if not equals or not dot or not section or not key:
        raise RecipeError(f"--set {change}: write section.key=value, as in --set train.epochs=1")
    table = document.setdefault(section, {})
    if not isinstance(table, dict):
        raise RecipeError(f"--set {change}: '{section}' is not a section.")
    try:
        table[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[key] = value  # a bare word is a string


def _mount(document: dict[str, Any]) -> dict[str, str]:
    """Point the recipe at where a conversations file given by an absolute path will be on the machine."""
    given = document["data"]["conversations"]
    local = Path(given).expanduser()
    if "://" in given or not local.is_absolute():
        return {}
    document["data"]["conversations"] = f"{MOUNTED}/{local.name}"
    mounts = {document["data"]["conversations"]: str(local)}
    manifest = local.with_name(local.name + ".manifest.json")
    if manifest.is_file():
        mounts[f"{document['data']['conversations']}.manifest.json"] = str(manifest)
    return mounts


_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "": Recipe,
    "model": ModelConfig,
    "data": DataConfig,
    "machine": MachineConfig,
    "train": TrainConfig,
    "lora": LoraConfig,
    "checkpoints": CheckpointConfig,
    "local": LocalConfig,
}


def explain(complaint: str, sections: Mapping[str, type[msgspec.Struct]]) -> str:
    """msgspec's complaint as a sentence that names section and key; `sections` has the type of each, "" the whole."""
    found = _PATH.search(complaint)
    path = found[1] if found else ""
    what = complaint[: found.start()] if found else complaint
    section = path.split(".")[0].split("[")[0]
    if unknown := re.match(r"Object contains unknown field `(.*)`", what):
        known = [field.name for field in msgspec.structs.fields(sections.get(section, ZoneConfig))]
        if path.startswith("local.zones"):
            known = [field.name for field in msgspec.structs.fields(ZoneConfig)]
        if path.startswith("machine.places"):
            known = [field.name for field in msgspec.structs.fields(PlaceConfig)]
        where = f"[{path}] has no key" if path else "there is no section"
        return f"{where} '{unknown[1]}'.{_near(unknown[1], known)}"
    if missing := re.match(r"Object missing required field `(.*)`", what):
        return f"[{path}] lacks the key '{missing[1]}'." if path else f"the section [{missing[1]}] is missing."
    key = path.partition(".")[2]
    if wrong := re.match(r"Expected `(.*)`, got `(.*)`$", what):
        return f"[{section}] {key} must be {_kind(wrong[1])}, not {_kind(wrong[2])}."
    if choice := re.match(r"Invalid enum value '(.*)'", what):
        allowed = _choices(sections, section, key)
        return f"[{section}] {key} is '{choice[1]}'; it must be one of {', '.join(allowed)}."
    return f"[{section}] {what}." if section else f"{what}."


def _kind(name: str) -> str:
    return {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
            "array": "a list", "object": "a section"}.get(name, name)  # fmt: skip


def _choices(sections: Mapping[str, type[msgspec.Struct]], section: str, key: str) -> list[str]:
    hints = {field.name: field.type for field in msgspec.structs.fields(sections[section])}
    found = hints.get(key)
    return [str(each) for each in getattr(found, "__args__", ())] if found is not Literal else []


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else f" Known are {', '.join(sorted(known))}."


def _write_table(table: dict[str, Any], path: str, lines: list[str]) -> None:
    tables = {key: value for key, value in table.items() if _is_table(value)}
    for key, value in table.items():
        if key not in tables:
            lines.append(f"{key} = {_value(value)}")
    for key, value in tables.items():
        name = f"{path}.{key}" if path else key
        for each in value if isinstance(value, list) else [value]:
            lines += ["", f"[[{name}]]" if isinstance(value, list) else f"[{name}]"]
            _write_table(each, name, lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists of them are TOML's.
    return msgspec.json.encode(value).decode()
