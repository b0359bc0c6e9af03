"""A cost report as one self-contained page: when each machine ran where, dollars over time against on demand, and every
figure of the table. Pure: text out of a report.
"""

import datetime
import itertools
from collections.abc import Iterable, Sequence
from html import escape

from launcher.machines import time_of
from launcher.report import AttemptCost, CostReport, RunCost

_DRAWN = 50
"""So many of the newest runs are drawn; every run is in the table."""
_WIDTH, _ROW, _LEFT = 720, 26, 150

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #66717f; --line: #d8dee6; --page: #fff; --spot: #2a7de1;
  --demand: #9aa5b1; --bad: #d1453b; --good: #1f8a53; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa5b1; --line: #36404c; --page: #14191f;
  --spot: #5aa2f5; --demand: #75808c; --bad: #ef6b61; --good: #4fbf83; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.card b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.soft, small { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
.n { text-align: right; } svg { width: 100%; min-width: 34rem; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
"""


def dollars(usd: float | None) -> str:
    """With cents; an unknown price is said."""
    if usd is None:
        return "unknown"
    return f"{'-' if usd < 0 else ''}${abs(usd):,.2f}"


def page(report: CostReport) -> str:
    """The whole HTML document."""
    count = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    made = report.generated_at[:16].replace("T", " ")
    body = [
        "<h1>What it cost</h1>",
        f'<p class="soft">{count}, reckoned {made}. Times are UTC.</p>',
        _cards(
            [
                ("spent", report.usd_spent),
                ("the same hours on demand", report.usd_on_demand),
                ("saved", report.usd_saved),
                ("lost to preemption", report.usd_lost_to_preemption),
            ]
        ),
    ]
    if any(run.simulated for run in report.runs):
        body.append('<p class="soft">Prices of runs marked simulated are made up.</p>')
    body += [
        f'<p class="soft">{escape(line.subject)}: {dollars(line.usd)}, {escape(line.part)}</p>'
        for line in report.lines
        if line.what in ("judge", "controller")
    ]
    body += [_runs(report.runs)] if len(report.runs) > 1 else []
    now = time_of(report.generated_at)
    body += [_run(run, now) for run in report.runs[-_DRAWN:]]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>What it cost</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _cards(figures: Iterable[tuple[str, float | None]]) -> str:
    cards = "".join(
        f'<div class="card"><small>{escape(name)}</small><b>{dollars(usd)}</b></div>' for name, usd in figures
    )
    return f'<div class="cards">{cards}</div>'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    """The first `text_columns` columns are text, the rest numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{'' if index < text_columns else ' class=n'}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        )

    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", headings)}</tr>{lines}</table></div>'


def _runs(runs: Sequence[RunCost]) -> str:
    rows = [
        (
            run.run_id + (" (simulated)" if run.simulated else ""), run.state, dollars(run.usd_spent),
            dollars(run.usd_on_demand), dollars(run.usd_saved), dollars(run.usd_lost_to_preemption),
        )
        for run in runs
    ]  # fmt: skip
    return _table(("run", "state", "spent", "on demand", "saved", "lost"), rows, 2)


def _run(run: RunCost, now: datetime.datetime) -> str:
    goodput = "" if run.goodput is None else f"; {run.goodput:.0%} of the hours paid for became kept work"
    simulated = " (simulated)" if run.simulated else ""
    rows = [
        (
            each.zone, each.end_reason, each.started_at[:16].replace("T", " "), f"{each.hours:.2f}",
            dollars(each.usd_per_hour), dollars(each.usd), str(each.steps_kept), str(each.steps_lost),
            dollars(each.usd_lost),
        )
        for each in run.attempts
    ]  # fmt: skip
    headings = ("zone", "why it ended", "from", "hours", "$/hour", "dollars", "kept", "again", "lost")
    beside = [f"{each.what}: {dollars(each.usd)}, estimated; {each.part}" for each in run.upkeep]
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in (*beside, *run.notes))
    drawings = _timeline(run, now) + _spending(run, now) if run.attempts else ""
    return (
        f"<section><h2>{escape(run.run_id)}{simulated}: {escape(run.state)}</h2>"
        f'<p class="soft">spent {dollars(run.usd_spent)}, saved {dollars(run.usd_saved)}, '
        f"{run.preemptions} times taken away{goodput}. Prices: {escape(run.price_source)}.</p>{notes}{drawings}"
        f"{_table(headings, rows, 3)}</section>"
    )


def _span(run: RunCost, now: datetime.datetime) -> tuple[datetime.datetime, float]:
    """When the run began, and its seconds up to its end or now."""
    begin = min(time_of(each.started_at) for each in run.attempts)
    end = max(_end(each, now) for each in run.attempts)
    return begin, max(1.0, (end - begin).total_seconds())


def _end(attempt: AttemptCost, now: datetime.datetime) -> datetime.datetime:
    return time_of(attempt.ended_at) if attempt.ended_at else now


def _timeline(run: RunCost, now: datetime.datetime) -> str:
    """A row a zone, a bar a machine, a mark where one was taken away."""
    begin, seconds = _span(run, now)
    zones = list(dict.fromkeys(each.zone for each in run.attempts))
    height = _ROW * len(zones) + 22
    shapes = []
    for row, zone in enumerate(zones):
        y = row * _ROW
        shapes.append(f'<text x="0" y="{y + 16}">{escape(zone[-22:])}</text>')
        for each in (attempt for attempt in run.attempts if attempt.zone == zone):
            left = _across((time_of(each.started_at) - begin).total_seconds() / seconds)
            right = _across((_end(each, now) - begin).total_seconds() / seconds)
            label = f"machine {each.number}: {each.end_reason}, {dollars(each.usd)}"
            shapes.append(
                f'<rect x="{left:.1f}" y="{y + 4}" width="{max(2.0, right - left):.1f}" height="16" rx="3" '
                f'fill="var(--spot)"><title>{escape(label)}</title></rect>'
            )
            if each.end_reason.startswith("preempted"):
                shapes.append(
                    f'<path d="M{right - 4:.1f} {y + 2} l8 20 m0 -20 l-8 20" stroke="var(--bad)" stroke-width="2"/>'
                )
    shapes.append(_axis(begin, seconds, height))
    return _svg(height, shapes, f"When each machine of {run.run_id} ran, by zone; crosses are preemptions")


def _spending(run: RunCost, now: datetime.datetime) -> str:
    """Dollars spent so far, and what an on-demand machine that nobody takes away would have cost by then."""
    if run.usd_spent is None or run.on_demand_usd_per_hour is None:
        return ""
    begin, seconds = _span(run, now)
    points = [(0.0, 0.0)]
    for each in run.attempts:
        start = (time_of(each.started_at) - begin).total_seconds()
        points += [(start, points[-1][1]), (start + each.hours * 3600, points[-1][1] + (each.usd or 0.0))]
    useful = (
        (run.usd_uninterrupted_on_demand or 0.0) / run.on_demand_usd_per_hour * 3600
        if run.on_demand_usd_per_hour
        else 0
    )
    demand = [(0.0, 0.0), (min(useful, seconds), run.usd_uninterrupted_on_demand or 0.0)]
    demand.append((seconds, demand[-1][1]))
    most = max(usd for _, usd in itertools.chain(points, demand)) or 1.0
    height = 150

    def path(line: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{_across(second / seconds):.1f},{126 - 90 * usd / most:.1f}" for second, usd in line)

    lines = (
        ("machines", points, "var(--spot)", "none"),
        ("uninterrupted on demand", demand, "var(--demand)", "5 4"),
    )
    shapes = [f'<text x="{_LEFT - 8}" y="40" text-anchor="end">{dollars(most)}</text>', _axis(begin, seconds, height)]
    for number, (name, line, colour, dash) in enumerate(lines):
        stroke = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
        shapes.append(f'<polyline points="{path(line)}" {stroke}/>')
        x = _LEFT + number * 170
        shapes.append(f'<line x1="{x}" x2="{x + 24}" y1="10" y2="10" {stroke}/>')
        shapes.append(f'<text x="{x + 30}" y="14">{name} {dollars(line[-1][1])}</text>')
    return _svg(height, shapes, f"Dollars of {run.run_id} over time against on demand")


def _across(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - 8)


def _axis(begin: datetime.datetime, seconds: float, height: int) -> str:
    marks = []
    for quarter in range(4):
        moment = begin + datetime.timedelta(seconds=seconds * quarter / 4)
        shown = f"{moment:%m-%d %H:%M}" if seconds > 3600 else f"{moment:%H:%M:%S}"
        marks.append(f'<text x="{_across(quarter / 4):.0f}" y="{height - 4}">{shown}</text>')
    return "".join(marks)


def _svg(height: int, shapes: Iterable[str], label: str) -> str:
    drawing = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'
    return f'<div class="scroll">{drawing}</div>'
