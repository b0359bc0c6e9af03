"""Launches that cannot be: each is refused with one sentence, before anything is sent."""

import uuid
from pathlib import Path

import pytest

from checkpoints.stores import StoreRefused
from launcher import launch, managed, recipe
from launcher.errors import RecipeError, RunError
from launcher.ledger import Ledger, Record
from market.errors import MarketError
from tests.fault_proxy import FaultProxy, always
from tests.servers import Server, make_bucket

TINY = Path(__file__).parent / "cluster" / "tiny.toml"


def prepare(infra: str | None, text: str = "", clouds: list[str] | None = None, folder: Path | None = None) -> None:
    path = TINY
    if folder is not None:
        path = folder / "own.toml"
        path.write_text(TINY.read_text() + text)
    launch.prepare(
        recipe.load(str(path), ("checkpoints.store=s3://b",)),
        spot=True, infra=infra, zones=(), max_price=None, run_id="r", clouds=clouds,
    )  # fmt: skip


def test_a_cloud_that_the_server_has_not_enabled_is_named_with_those_it_has() -> None:
    with pytest.raises(RecipeError, match=r"has not enabled aws \(it has slurm\); `sky check aws`"):
        prepare("aws", clouds=["slurm"])
    with pytest.raises(RecipeError, match=r"it has none"):
        prepare(None, clouds=[])


def test_an_infra_without_a_price_is_refused_with_the_way_to_give_one() -> None:
    with pytest.raises(RecipeError, match=r"No price is known for nowhere\. Give the recipe its places"):
        prepare("nowhere")


def test_a_place_that_the_recipe_does_not_list_is_refused(tmp_path: Path) -> None:
    place = '\n[[machine.places]]\ninfra = "slurm/sim/spot-a"\nusd_per_hour = 1\nspot = true\n'
    with pytest.raises(MarketError, match="no offer of A100:8 on spot in slurm/nowhere; leave out --infra"):
        prepare("slurm/nowhere", place, folder=tmp_path)


def test_a_name_in_use_is_refused_here_and_on_a_machine_that_knows_the_store_alone(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    ledger = Ledger(tmp_path / "home")
    launch.check_name("mine", store, ledger)
    managed.announce(Record(kind="run", at="2026-11-25T00:00:00.000Z", run_id="mine", facts={}), store)
    ledger.append("run", "ours")
    for name in ("mine", "ours"):
        with pytest.raises(RunError, match=f"The name {name} is in use by another run; .* --resume {name}"):
            launch.check_name(name, store, ledger)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("403 AccessDenied", "the credentials do not allow it"), ("400 ExpiredToken", "the credentials have expired")],
)
def test_a_bucket_that_cannot_be_used_is_said_before_a_machine_is_asked_for(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, sentence: str
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    make_bucket(s3_server, "refused")
    with FaultProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.plan = always(f"refuse {answer}", "GET", ".")
        with pytest.raises(StoreRefused, match=sentence):
            launch.check_name(uuid.uuid4().hex, "s3://refused", Ledger(tmp_path))
