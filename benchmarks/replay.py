"""Policies against recorded markets, side by side: the tables and plots of docs/market.md.

    python benchmarks/replay.py FOLDER [--quick]     FOLDER holds the two recorded sets
    python benchmarks/replay.py --speed              1,000 one-zone runs with their optimum, on a modelled market

One core. Ratios are of dollars to the exact optimum, by the rules in docs/market.md.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from market.availability import Market, subset
from market.least_serving import usd_least
from market.modelled import modelled
from market.optimal import usd_optimal
from market.policies import BY_NAME, OURS, named
from market.replay import Run, job, replay
from market.serving import SERVING, serve
from market.traces import Reading, read

WORK = 48.0
LOOSE = (1.08, 1.2, 1.5, 2.0)
RESTARTS = (3.0, 6.0, 12.0)
HISTORY_HOURS = 168.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--starts", type=int, default=4, help="Starts spread over the record.")
    parser.add_argument("--subsets", type=int, default=3, help="Random subsets of 2, 3 and 5 zones each.")
    parser.add_argument("--history", type=float, default=HISTORY_HOURS, help="Hours before the start a policy may see.")
    parser.add_argument("--parts", default="one,several,checkpoints,serving")
    parser.add_argument("--replicas", type=int, default=4, help="In the table of serving.")
    parser.add_argument("--cold-start", type=float, default=120, help="Seconds, in the table of serving.")
    parser.add_argument("--policies", default=",".join(BY_NAME), help="Rows of the tables of runs.")
    parser.add_argument("--plot", type=Path, help="Write the bars as SVG here.")
    given = parser.parse_args()
    if given.speed:
        speed()
        return
    if given.folder is None:
        sys.exit("Name the folder with the recorded sets, or --speed.")
    sets = recorded(given.folder)
    parts = given.parts.split(",")
    bars: dict[str, dict[str, float]] = {}
    single = {name: found for name, found in sets.items() if name != "h100 x 8 of 16"}
    if "one" in parts:
        markets = [(name, subset(found, [zone.name])) for name, found in single.items() for zone in found.zones]
        bars["one zone"] = table("One zone", markets, given)
    if "several" in parts:
        markets = [(name, each) for name, found in sets.items() for each in several(found, given.subsets)]
        bars["several zones"] = table("Several zones", markets, given)
    if "checkpoints" in parts:
        markets = [(name, subset(found, [zone.name])) for name, found in single.items() for zone in found.zones]
        table("One zone, commits every 10 minutes, 6 minutes to restart", markets, given, (6.0,), checkpoint=10.0)
    if "serving" in parts:
        serving(sets, given.subsets, given.replicas, given.cold_start)
    if given.plot:
        given.plot.write_text(svg(bars))


def recorded(folder: Path) -> dict[str, Market]:
    """The two sets, and the gangs of eight of the first."""
    h100, v100 = folder / "gcp-h100x16-2025-10", folder / "aws-v100x1-2023-02"
    return {
        "h100": read(h100, "h100", Reading(available_when=0)),
        "v100": read(v100, "v100", Reading(available_when=0)),
        "h100 x 8 of 16": read(h100 / "counts.csv", "h100 x 8 of 16", Reading(available_when=8)),
    }


def several(market: Market, count: int) -> Iterator[Market]:
    """Seeded random subsets, and all zones."""
    dice = random.Random(0)
    names = [zone.name for zone in market.zones]
    for size in (2, 3, 5):
        for _ in range(count):
            yield subset(market, sorted(dice.sample(names, size)))
    yield market


def table(
    title: str, markets: list[tuple[str, Market]], given: argparse.Namespace, restarts: tuple[float, ...] = RESTARTS,
    *, checkpoint: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """Print the table; mean ratios by policy."""
    runs: dict[str, list[tuple[str, float, Run]]] = {name: [] for name in given.policies.split(",")}
    for name, market in markets:
        hours = market.ticks * market.tick_seconds / 3600
        for loose in LOOSE:
            for restart in restarts:
                for at in range(given.starts):
                    start = (hours - WORK * loose) * at / max(1, given.starts - 1)
                    start = int(start * 3600 / market.tick_seconds) * market.tick_seconds / 3600
                    asked = job(
                        market, work_hours=WORK, deadline_hours=WORK * loose, restart_minutes=restart,
                        checkpoint_minutes=checkpoint, start_hours=start, history_hours=given.history,
                    )  # fmt: skip
                    optimum = usd_optimal(market, asked)
                    for policy, found in runs.items():
                        run = replay(policy, named(policy), market, asked)
                        found.append((name, loose, run))
                        run.usd_optimal = optimum
    sets = sorted({name for name, _ in markets})
    print(f"\n### {title}\n\nRuns of every policy: {len(next(iter(runs.values())))}\n")
    print(
        f"| policy | mean | p95 | worst | late | {' | '.join(sets)} | {' | '.join(f'D/W {each:g}' for each in LOOSE)} |"
    )
    print("|---|" + "---:|" * (4 + len(sets) + len(LOOSE)))
    means = {}
    for policy, found in runs.items():
        every = sorted(_ratio(run) for _, _, run in found)
        by_set = [statistics.fmean(_ratio(run) for name, _, run in found if name == each) for each in sets]
        by_loose = [statistics.fmean(_ratio(run) for _, loose, run in found if loose == each) for each in LOOSE]
        late = sum(not run.met_deadline for _, _, run in found)
        means[policy] = statistics.fmean(every)
        cells = [means[policy], every[int(0.95 * len(every))], every[-1]]
        print(
            f"| {policy} | " + " | ".join(f"{cell:.3f}" for cell in cells) + f" | {late} | "
            + " | ".join(f"{cell:.3f}" for cell in (*by_set, *by_loose)) + " |", flush=True,
        )  # fmt: skip
    return means


def _ratio(run: Run) -> float:
    assert run.usd_optimal
    return run.usd / run.usd_optimal


def serving(sets: dict[str, Market], subsets: int, replicas: int, cold_start: float) -> None:
    """The whole of every set and of subsets of its zones; dollars as a share of what so many on demand cost."""
    print(f"\n### Serving: {replicas} replicas, {cold_start:g} s cold start\n")
    names = list(SERVING)
    print(f"| zones | {' | '.join(f'{name}: ready | dollars' for name in names)} | least dollars |")
    print("|---|" + "---:|" * (2 * len(names) + 1))
    for name, found in sets.items():
        for market in several(found, subsets):
            runs = [
                serve(
                    each, SERVING[each](), market, replicas=replicas, cold_start_seconds=cold_start, availability=0.995
                )
                for each in names
            ]
            least = usd_least(market, replicas=replicas, cold_start_seconds=cold_start, availability=0.995)
            cells = [f"{run.availability:.2%} | {run.usd / run.usd_on_demand:.1%}" for run in runs]
            cells.append(f"{least / runs[0].usd_on_demand:.1%}")
            print(f"| {name}, {len(market.zones)} | {' | '.join(cells)} |", flush=True)


def speed() -> None:
    """1,000 runs of 48 hours in ticks of 10 minutes, each with its optimum."""
    markets = [
        modelled([("zone-a", 1.0)], on_demand_usd_per_hour=4.0, hours=97, seed=seed) for seed in range(1000 // 4)
    ]
    began = time.process_time()
    late = 0
    for loose in LOOSE:
        for market in markets:
            asked = job(
                market, work_hours=WORK, deadline_hours=WORK * loose, restart_minutes=6, checkpoint_minutes=0,
                start_hours=0,
            )  # fmt: skip
            usd_optimal(market, asked)
            late += not replay(OURS, named(OURS), market, asked).met_deadline
    print(f"{len(markets) * len(LOOSE)} runs and optima in {time.process_time() - began:.1f} s of CPU, {late} late")


def svg(groups: dict[str, dict[str, float]]) -> str:
    """Bars of the mean ratio over 1, a group a chart."""
    parts, top = [], 30
    for title, means in groups.items():
        parts.append(f'<text x="10" y="{top}" font-weight="bold">{title}: dollars over the exact optimum</text>')
        for at, (policy, mean) in enumerate(sorted(means.items(), key=lambda each: each[1])):
            y = top + 14 + 22 * at
            width = min(400.0, 1000 * (mean - 1))
            colour = "#2a7" if policy == OURS else "#999"
            parts.append(f'<text x="10" y="{y + 13}">{policy}</text>')
            parts.append(f'<rect x="150" y="{y}" width="{width:.0f}" height="16" fill="{colour}"/>')
            parts.append(f'<text x="{155 + width:.0f}" y="{y + 13}">+{mean - 1:.1%}</text>')
        top += 50 + 22 * len(means)
    style = 'font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{top}" {style}>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
