"""Sections of the page: their charts, in order, and what the page's script needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from reports.html.charts.base import Figure
from reports.html.charts.distributions import distribution_charts
from reports.html.charts.explorer import Explorer, explorer, points_of, text_of
from reports.html.charts.heat import heat_charts, heat_legend
from reports.html.charts.rates import rate_charts
from reports.html.charts.series import series_charts
from reports.html.charts.stacks import ENERGY, TRAFFIC, stack_chart
from reports.html.charts.timeline import KERNELS, breakdown_chart, timeline_charts
from reports.html.embed import document_json, script_json
from reports.html.placements import Placements, layers_table, placements_of_runs
from reports.html.points import Points
from reports.html.quantities import QUANTITIES
from reports.html.study import Run, Study

_MOST_DETAILED: Final = 24
"""Runs with distributions, time series and timeline; more would not fit the page."""
MOST_ROWS: Final = 25
"""Configurations listed below the charts, each a row that a filter writes again."""
_TITLES: Final = {
    "rates": "Against the rate",
    "distributions": "Latencies",
    "explorer": "Explore",
    "energy": "Energy",
    "traffic": "HBM traffic",
    "experts": "Experts",
    "timeline": "Iterations",
    "series": "Over time",
}


def chart_context(study: Study, placements: Placements | None = None) -> dict[str, Any]:
    """Charts of a study and all that the template and script say about them.

    Without ``placements`` those of the runs are shown, where they have any.

    Raises:
        ConfigError: If a file of a run is malformed.
    """
    placements = placements or placements_of_runs(study)
    groups = _chart_groups(study, _detailed(study)) | _heat(placements)
    points = explorer(points_of(study.runs), _first_shown(study))
    charts = {str(c.name): c for group in groups.values() for c in group.values()}
    if points is not None:
        charts |= {str(chart.name): chart for chart in points.charts}
    return _charts_context(groups, charts, points, placements)


def points_context(
    points: Points, placements: Placements | None = None
) -> dict[str, Any]:
    """The same of a sweep or a capacity study, which has the explorer only."""
    found, groups = explorer(points.points, {}, points.axes), _heat(placements)
    charts = {str(c.name): c for group in groups.values() for c in group.values()}
    if found is not None:
        charts |= {str(c.name): c for c in found.charts}
    return _charts_context(groups, charts, found, placements)


def placements_context(placements: Placements) -> dict[str, Any]:
    """The same of placements alone."""
    groups = _heat(placements)
    charts = {str(c.name): c for c in groups["experts"].values()}
    return _charts_context(groups, charts, None, placements)


def _heat(placements: Placements | None) -> dict[str, dict[str, Figure]]:
    return {} if placements is None else {"experts": heat_charts(placements)}


def _detailed(study: Study) -> list[Run]:
    """Runs shown in detail: all, or those whose loads are nearest to the headline's."""
    loads, middle = study.loads, study.loads.index(study.headline)
    nearest = sorted(loads, key=lambda load: abs(loads.index(load) - middle))
    kept: list[Run] = []
    for load in nearest:
        more = [run for run in study.compared if run.load == load]
        if kept and len(kept) + len(more) > _MOST_DETAILED:
            break
        kept += more
    return [run for run in study.compared if run in kept]


def _first_shown(study: Study) -> dict[str, str]:
    """Filters set at first: frontiers across request rates would say little."""
    run = study.run(study.baseline, study.headline) or study.compared[0]
    rate = run.config.get("workload.request_rate")
    many = len(study.loads) > 1 and rate is not None
    return {"workload.request_rate": text_of(rate)} if many else {}


def _chart_groups(
    study: Study, detailed: Sequence[Run]
) -> dict[str, dict[str, Figure]]:
    """Charts by section; a section without charts is left out."""
    compared = study.compared
    whole = breakdown_chart(study, detailed)
    energy = stack_chart("energy", "energy (mJ/token)", ENERGY, compared, 1e3)
    traffic = stack_chart("traffic", "HBM traffic (MB/token)", TRAFFIC, compared, 1e-6)
    groups = {
        "rates": rate_charts(study),
        "distributions": distribution_charts(study, detailed),
        "energy": {"energy": energy},
        "traffic": {"traffic": traffic},
        "timeline": timeline_charts(study, detailed),
        "breakdown": {} if whole is None else {"breakdown": whole},
        "series": series_charts(study, detailed),
    }
    return {name: group for name, group in groups.items() if group}


def _charts_context(
    groups: Mapping[str, Mapping[str, Figure]],
    charts: Mapping[str, Figure],
    points: Explorer | None,
    placements: Placements | None,
) -> dict[str, Any]:
    anchors = [name for name in _TITLES if name in groups]
    have = {*anchors, *(["explorer"] if points is not None else [])}
    sections = [(name, text) for name, text in _TITLES.items() if name in have]
    return {
        "charts": charts,
        "anchors": anchors,
        "sections": [
            ("short", "In short"),
            *sections,
            ("accuracy", "Accuracy"),
            ("provenance", "Provenance"),
        ],
        "rate_titles": [
            (chart.name, _sentence(QUANTITIES[key].title) + " against rate")
            for key, chart in groups.get("rates", {}).items()
        ],
        "distribution_titles": _titles(groups, "distributions"),
        "series_titles": [
            item for item in _titles(groups, "series") if "power" not in item[0]
        ],
        "timeline_titles": [
            (chart.name, f"Which layers run what, {name.replace('-', ' ')}")
            for name, chart in groups.get("timeline", {}).items()
        ],
        "heat_titles": [
            (chart.name, title) for title, chart in groups.get("experts", {}).items()
        ],
        "heat_legend": heat_legend(),
        "heat_note": "" if placements is None else placements.note,
        "layers_table": None if placements is None else layers_table(placements),
        "explorer": points,
        "kernels": list(KERNELS.values()),
        "energy_parts": [(part.title, part.color) for part in reversed(ENERGY)],
        "traffic_parts": [(part.title, part.color) for part in reversed(TRAFFIC)],
        "page_json": Markup(script_json(_page(charts, points))),  # noqa: S704  (escaped there)
        "chart_json": Markup(document_json(list(charts.values()))),  # noqa: S704
    }


def _titles(
    groups: Mapping[str, Mapping[str, Figure]], section: str
) -> list[tuple[str, str]]:
    charts = groups.get(section, {}).values()
    if section == "series":
        return [(c.name, _sentence(str(c.yaxis.axis_label))) for c in charts]
    return [(c.name, _sentence(str(c.xaxis.axis_label))) for c in charts]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _page(charts: Mapping[str, Figure], points: Explorer | None) -> dict[str, Any]:
    """What the script needs to know."""
    info = None
    if points is not None:
        info = {
            "axes": points.axes,
            "choices": [
                {"key": q.key, "label": q.label, "less": q.less} for q in points.choices
            ],
            "keys": [{"column": k.column, "name": k.name} for k in points.keys],
            "quantities": [
                {"key": q.key, "label": q.label, "less": q.less}
                for q in points.quantities
            ],
        }
    return {
        "charts": list(charts),
        "x_only": [n for n in charts if n.startswith(("timeline", "series"))],
        "explorer": info,
        "most_rows": MOST_ROWS,
    }
