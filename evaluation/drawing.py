"""The page's two drawings: won, tied and lost of each pair, and scores against dollars of training. Pure."""

from collections.abc import Sequence
from html import escape

from evaluation.scores import PairScore
from evaluation.worth import RunWorth

_WIDTH = 720


def outcomes(scores: Sequence[PairScore]) -> str:
    """One bar a pair, split into what the candidate won, tied and lost."""
    kinds = ("won", "tied", "lost")
    legend = "".join(f'<span class="mark {kind}">{kind}</span> ' for kind in kinds)
    parts = [f'<p class="legend">{legend}<span class="soft">by the candidate, the first named</span></p>']
    for score in scores:
        title = f"{score.candidate} against {score.baseline}"
        counts = zip(kinds, (score.candidate_wins, score.ties, score.losses), strict=True)
        spans = "".join(
            f'<span class="{kind}" style="flex:{count}" title="{count} {kind}">{count}</span>'
            for kind, count in counts
            if count
        )
        parts.append(f'<p class="pair">{escape(title)}</p><div class="bar">{spans or "nothing to count"}</div>')
    return f'<div id="bars" role="img" aria-label="Wins, ties and losses">{"".join(parts)}</div>'


def worth(rows: Sequence[RunWorth]) -> str:
    """A point a run: dollars of training to the right, points a question upwards."""
    known = [(each, each.usd_trained, each.mean_score) for each in rows]
    points = [(each, usd, score) for each, usd, score in known if usd is not None and score is not None]
    if not points:
        return '<p class="soft">The dollars of these runs are not known, so there is nothing to draw.</p>'
    most = max(usd for _, usd, _ in points) or 1.0
    left, bottom, width, height = 40, 220, _WIDTH - 160, 200

    def at(usd: float, score: float) -> tuple[float, float]:
        return left + width * usd / most, bottom - height * score / 10

    marks = []
    for grid in (0, 2, 4, 6, 8, 10):
        _, y = at(0, grid)
        marks.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/><text x="8" y="{y + 4}">{grid}</text>')
    for share in (0, 0.5, 1):
        x, _ = at(most * share, 0)
        marks.append(f'<text class="middle" x="{x}" y="{bottom + 18}">${most * share:,.2f}</text>')
    for each, usd, score in points:
        x, y = at(usd, score)
        about = f"{each.name}: {score:.2f} points a question for ${usd:,.2f}"
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{escape(about)}</title></circle>'
            f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{escape(each.name)}</text>'
        )
    return (
        f'<div class="scroll"><svg id="dollars" viewBox="0 0 {_WIDTH} 250" role="img" '
        f'aria-label="Points a question against dollars of training">{"".join(marks)}</svg></div>'
    )
