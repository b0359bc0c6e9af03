"""The cost report as a person asks for it: the same totals however it is printed, and what a cloud charged."""

import csv
import datetime
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from launcher.cli import vlaunch
from launcher.cli.failures import sentence
from tests.ledgers import Home

RUN = "vicuna-7b-20261123-a1b2c3"
SPENT = 18.96 + 13.10


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("VLAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    return Home(tmp_path / "home")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(vlaunch, arguments, prog_name="vlaunch")


def said(*arguments: str) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_table_json_csv_and_page_say_the_same_totals(home: Home, tmp_path: Path) -> None:
    home.two_machines()
    report = json.loads(said("cost", "report", "--json"))
    assert report["usd_spent"] == pytest.approx(SPENT)
    run = report["runs"][0]
    assert (run["usd_spent"], run["preemptions"], run["owner"]) == (report["usd_spent"], 1, "ada")
    rows = list(csv.DictReader(io.StringIO(said("cost", "report", "--csv"))))
    assert round(sum(float(row["usd"]) for row in rows), 2) == report["usd_spent"]
    assert {row["part"] for row in rows} == {"work", "starting up", "done again"}
    table = said("cost", "report")
    said("cost", "report", "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    for key in ("usd_spent", "usd_on_demand", "usd_saved", "usd_lost_to_preemption"):
        assert f"${run[key]:,.2f}" in table
        assert f"<b>${run[key]:,.2f}</b>" in page
    for by in ("run", "zone", "day", "owner", "accelerator", "what"):
        assert f"${run['usd_spent']:,.2f}" in said("cost", "report", "--by", by)


@pytest.mark.parametrize("width", [60, 80, 100, 160, 200])
def test_a_table_is_never_wider_than_the_terminal_and_always_says_what_was_spent(
    home: Home, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    home.two_machines()
    monkeypatch.setenv("COLUMNS", str(width))
    for output in (said("cost", "report"), said("status"), said("cost", "report", "--by", "zone")):
        assert max(len(line) for line in output.splitlines()) <= width
        assert f"${SPENT:,.2f}" in output


def test_many_runs_are_listed_newest_last_and_older_ones_are_in_the_totals(home: Home) -> None:
    for number in range(25):
        home.two_machines(f"vicuna-7b-20261123-{number:06x}")
    output = said("cost", "report")
    assert "and 5 older runs, in the totals" in output
    assert f"25 runs: spent ${25 * SPENT:,.2f}" in output
    assert "vicuna-7b-20261123-000000" not in output
    assert "vicuna-7b-20261123-000000" in said("cost", "report", "--all")
    assert "and 5 older runs" in said("status")


def test_since_leaves_out_what_began_earlier_and_refuses_what_is_no_time(home: Home) -> None:
    home.two_machines()
    assert json.loads(said("cost", "report", "--since", "2026-11-23", "--json"))["usd_spent"] == pytest.approx(SPENT)
    assert json.loads(said("cost", "report", "--since", "2026-11-24", "--json"))["runs"] == []
    refused = call("cost", "report", "--since", "soon")
    assert refused.exit_code == 2
    assert "'soon' is not a time" in refused.output


def test_a_store_that_is_gone_leaves_what_was_spent_known_and_what_was_lost_unknown(home: Home) -> None:
    run = home.two_machines()
    (home.store / run).rename(home.store / "elsewhere")
    output = said("cost", "report")
    assert "what was lost to preemption is not known: nothing of it is in its store any more" in output
    found = json.loads(said("cost", "report", "--json"))["runs"][0]
    assert (found["usd_spent"], found["usd_lost_to_preemption"]) == (pytest.approx(SPENT), None)


def test_what_a_finished_runs_store_said_is_read_once_and_kept(home: Home) -> None:
    run = home.two_machines()
    before = said("cost", "report", "--csv")
    (home.store / run).rename(home.store / "elsewhere")
    assert said("cost", "report", "--csv") == before


def aws_legacy(rows: list[tuple[str, float]]) -> str:
    lines = ["identity/LineItemId,lineItem/UsageStartDate,lineItem/CurrencyCode,lineItem/UnblendedCost,"
             "lineItem/ProductCode,resourceTags/user:vlaunch-run"]  # fmt: skip
    lines += [f"x{n},2026-11-23T12:00:00Z,USD,{usd},AmazonEC2,{run}" for n, (run, usd) in enumerate(rows)]
    return "\n".join(lines)


def aws_2(rows: list[tuple[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["line_item_usage_start_date", "line_item_currency_code", "line_item_unblended_cost", "resource_tags"]
    )
    for run, usd in rows:
        tags = json.dumps({"user_vlaunch_run": run}) if run else "{}"
        writer.writerow(["2026-11-23 12:00:00.000", "USD", usd, tags])
    return text.getvalue()


def gcp(rows: list[tuple[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["billing_account_id", "usage_start_time", "labels", "cost", "currency", "credits"])
    for run, usd in rows:
        labels = json.dumps([{"key": "vlaunch-run", "value": run}] if run else [])
        # A dollar is credited on each line, so the export says a dollar more than what is paid.
        writer.writerow(["0", "2026-11-23 12:00:00 UTC", labels, usd + 1, "USD", json.dumps([{"amount": -1.0}])])
    return text.getvalue()


@pytest.mark.parametrize("layout", [aws_legacy, aws_2, gcp])
def test_what_a_cloud_charged_stands_beside_what_was_computed(home: Home, tmp_path: Path, layout: Any) -> None:
    home.two_machines()
    export = tmp_path / "export.csv"
    export.write_text(layout([(RUN, 30.00), (RUN, 3.25), ("", 7.5), ("another-run", 2.0)]))
    rows = json.loads(said("cost", "report", "--billing", str(export), "--json"))
    assert [(row["run_id"], row["usd_computed"], row["usd_charged"], row["usd_difference"]) for row in rows] == [
        (RUN, pytest.approx(SPENT), 33.25, pytest.approx(33.25 - SPENT)), ("another-run", None, 2.0, None),
    ]  # fmt: skip
    output = said("cost", "report", "--billing", str(export))
    assert "disks, addresses and traffic" in output
    assert "$7.50 of them without the label vlaunch-run" in output


def test_an_export_as_parquet_says_the_same(home: Home, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    home.two_machines()
    labels = [[{"key": "vlaunch-run", "value": RUN}], []]
    start = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
    columns = {"cost": [34.25, 1.0], "usage_start_time": [start, start], "labels": labels, "currency": ["USD", "USD"],
               "credits": [[{"amount": -1.0}], []]}  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "export.parquet")
    rows = json.loads(said("cost", "report", "--billing", str(tmp_path / "export.parquet"), "--json"))
    assert [row["usd_charged"] for row in rows] == [33.25]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no rows"),
        ("a,b\n1,2\n", "has the columns a, b"),
        ("cost,usage_start_time,labels\nmuch,2026-11-23,[]\n", "Row 2 of the billing export"),
        ("cost,usage_start_time,labels,currency\n1,2026-11-23,[],EUR\n", "its currency is EUR"),
    ],
)
def test_an_export_that_cannot_be_used_is_one_sentence(home: Home, tmp_path: Path, text: str, complaint: str) -> None:
    home.two_machines()
    (tmp_path / "export.csv").write_text(text)
    done = call("cost", "report", "--billing", str(tmp_path / "export.csv"))
    assert isinstance(done.exception, Exception)
    assert complaint in (sentence(done.exception) or "")


def test_a_service_pays_for_all_its_replicas_at_once_and_loses_no_steps(home: Home) -> None:
    home.run("chat", service=True)
    home.machine("chat", 1, 0, 60, 2.0)
    home.machine("chat", 2, 0, 90, 4.0, reason="stopped by a person", preempted=False)
    home.record("chat", "ended", 90, state="stopped", why="")
    found = json.loads(said("cost", "report", "--json"))["runs"][0]
    assert (found["kind"], found["usd_spent"], found["hours"]) == ("service", 8.0, 2.5)
    assert (found["usd_lost_to_preemption"], found["preemptions"]) == (0.0, 1)
    assert "service chat: stopped" in said("cost", "report")


def test_what_a_judge_was_paid_is_in_the_total_and_in_no_run(home: Home) -> None:
    run = home.two_machines()
    for reviews, usd in ((10, 0.5), (160, 1.25)):  # the newest record of a file counts
        home.record(
            run, "evaluation", 200, file="/r.jsonl", baseline="a", candidate="b", judge="j", reviews=reviews, usd=usd,
            price_source="a table, 2026-11-01",
        )  # fmt: skip
    report = json.loads(said("cost", "report", "--json"))
    assert (report["usd_judging"], report["usd_spent"]) == (1.25, pytest.approx(SPENT + 1.25))
    assert report["runs"][0]["usd_spent"] == pytest.approx(SPENT)
    assert "judges of evaluations: $1.25" in said("cost", "report")
    assert f"${SPENT + 1.25:.2f}" in said("cost", "report", "--by", "what")


def running(home: Home) -> None:
    """A run on the first of its machines, 100 minutes in, an hour of work left, held by this test's own lock."""
    home.run("going", -100, store=str(home.store))
    home.machine("going", 1, -100, None, 12.0)
    home.event("going", -95, 1, "training_started", step=0, steps=100)
    metrics = home.store / "going" / "metrics" / "0001-000001.jsonl"
    metrics.parent.mkdir(parents=True)
    line = {"at": "2026-11-23T12:00:00Z", "attempt": 1, "step": 50, "steps": 100, "loss": 1.5, "seconds_left": 3600.0}
    metrics.write_text(json.dumps(line) + "\n")


def test_a_forecast_says_what_a_run_will_have_cost_and_warns_at_four_fifths_of_a_budget(home: Home) -> None:
    from launcher import runs
    from launcher.forecast import Budgets, forecast
    from launcher.ledger import Ledger
    from launcher.machines import RunFacts
    from launcher.report import cost
    from tests.ledgers import T

    running(home)
    facts = runs.facts(Ledger(home.folder).runs()["going"])
    alive = RunFacts(run_id=facts.run_id, records=facts.records, events=facts.events, metrics=facts.metrics, alive=True)
    report = cost([alive], T)
    found = forecast(report, Budgets(run_usd=25.0, month_usd=24.0))
    assert found.runs[0].usd_spent == 20.0
    assert found.runs[0].usd_at_end == (32.0, 32.0)
    assert (found.month, found.usd_this_month, found.usd_month_end) == ("2026-11", 20.0, (32.0, 32.0))
    assert found.warnings == [
        "going has spent $20.00, 80% of the budget of a run ($25.00)",
        "everything in 2026-11 has spent $20.00, 83% of the month's budget ($24.00)",
    ]
    assert forecast(report, Budgets(run_usd=26.0)).warnings == []


def test_a_new_run_may_cost_what_its_budget_and_the_month_leave(home: Home) -> None:
    from launcher.budgets import allowed
    from launcher.errors import RunError
    from launcher.ledger import Ledger
    from tests.ledgers import T

    home.two_machines()  # $32.06
    config, ledger = home.folder / "config.toml", Ledger(home.folder)
    now = T.replace(hour=23)
    assert allowed(7.0, ledger, now) == 7.0
    config.write_text('[budgets]\nrun_usd = 20\nmonth_usd = 100\nat_limit = "stop"\n')
    assert (allowed(None, ledger, now), allowed(7.0, ledger, now)) == (20.0, 7.0)
    config.write_text('[budgets]\nmonth_usd = 100\nat_limit = "stop"\n')
    assert allowed(None, ledger, now) == 67.94
    config.write_text('[budgets]\nmonth_usd = 30\nat_limit = "stop"\n')
    with pytest.raises(RunError, match=r"budget of \$30\.00 is spent"):
        allowed(None, ledger, now)
    assert allowed(None, ledger, now.replace(month=12)) == 30.0
    config.write_text("[budgets]\nmonth_usd = 30\n")
    assert allowed(None, ledger, now) is None


def test_what_runs_that_go_on_were_promised_is_not_given_away_twice(home: Home) -> None:
    from launcher import runs
    from launcher.forecast import left_this_month
    from launcher.ledger import Ledger
    from launcher.report import cost
    from tests.ledgers import T

    home.two_machines()
    report = cost([runs.facts(each) for each in Ledger(home.folder).runs().values()], T.replace(hour=23))
    assert left_this_month(report, 100.0, {RUN: 50.0}) == 50.0  # 67.94 less the 17.94 it may still spend
    assert left_this_month(report, 100.0, {RUN: 10.0}) == 67.94


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[budgets]\nrun_usd = -1\n", "run_usd is -1; it must be above 0"),
        ("[budgets]\nrun = 5\n", "unknown field `run`"),
        ("budgets", "cannot be used"),
    ],
)
def test_budgets_that_cannot_be_used_are_one_sentence(home: Home, text: str, complaint: str) -> None:
    home.two_machines()
    (home.folder / "config.toml").write_text(text)
    done = call("cost", "report")
    assert isinstance(done.exception, Exception)
    assert complaint in (sentence(done.exception) or "")


def test_watching_where_there_is_no_terminal_prints_a_line_a_run_and_ends_when_nothing_runs(home: Home) -> None:
    home.two_machines()
    output = said("status", "--watch")
    assert re.fullmatch(rf"{RUN}, finished, step 100/100, in gcp/\S+, 1 times taken away, \$32\.06\n", output)


def test_a_sparkline_shows_the_shape_of_a_loss_in_the_width_there_is() -> None:
    from launcher.cli.watch import sparkline

    assert sparkline([3.0, 2.0, 1.0], 10) == "█▅▁"
    assert sparkline([1.0] * 5, 5) == "▁▁▁▁▁"
    assert len(sparkline(list(range(1000)), 40)) == 40
    assert sparkline([], 10) == ""
