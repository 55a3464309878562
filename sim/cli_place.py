"""The command ``servescope place``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from calibration.models import model
from reports.placement import write_placement_report
from reports.placement_files import EXPERTS_FILE, LOADS_FILE, PLACE_FILE
from sim.cli_output import print_json, progress
from sim.config_errors import one_of
from sim.errors import ConfigError
from sim.expert_loads import experts_table, loads_table
from sim.files import write_csv_atomic, write_csv_gz_atomic, write_json_atomic
from sim.place import (
    PlacedRow,
    PlaceProblem,
    alltoall_bytes,
    load_stats,
    place,
)
from sim.placement import PLACEMENTS
from sim.placement.dispatch import DISPATCHES
from sim.placement.export import EXPORTS
from sim.placement.strategy import HIERARCHIES, PlacementOptions
from sim.placement.topology import EpTopology
from sim.results import make_directory
from workloads.routing.importers.options import ImportOptions

_BLIND: Final = ("exflow", "coactivation")
_MUCH_HIGHER: Final = 1.02
_LEGEND: Final = """\
affinity: share of tokens whose next expert is on the same GPU; load: of the
busiest GPU, mean over layers; sends: copies of a token to other GPUs; worst
link: share of moves between layers over the busiest pair of GPUs; a gap is
proven where no placement can be better"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceArguments:
    """The options of the command, as given."""

    routing: str
    gpus: int
    gpus_per_node: int
    strategy: str
    eval_routing: str | None
    domain: str | None
    eval_domain: str | None
    redundant_experts: int
    hierarchy: str
    solver: str
    time_limit_s: float
    max_par: float
    dispatch: str
    top_k: int | None
    model: str | None
    export: str | None
    seed: int


def place_command(
    arguments: PlaceArguments, out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Place experts, print a table or JSON, write tables, figures and exports.

    Raises:
        ConfigError: On bad statistics or options, or if a file cannot be written.
    """
    problem = _problem(arguments)
    problem.check()
    exports = _names(arguments.export, EXPORTS, "--export") if arguments.export else []
    if exports and out is None:
        out = Path("servescope-place")
    if out is not None:
        make_directory(out)
    with progress("strategies", len(problem.strategies), quiet=quiet) as one_more:
        rows = place(problem, one_more)
    documents = [row.document(problem.hidden_size) for row in rows]
    if not quiet:
        _warn(rows, problem)
    if out is not None:
        _write(out, rows, documents, exports)
    if as_json:
        print_json(documents)
    elif not quiet:
        _print_tables(rows, problem)
        if out is not None:
            typer.echo(f"written: {out}")


def _problem(arguments: PlaceArguments) -> PlaceProblem:
    topology = EpTopology(arguments.gpus, min(arguments.gpus_per_node, arguments.gpus))
    options = ImportOptions(
        top_k=arguments.top_k,
        model=arguments.model,
        gpus=arguments.gpus,
        seed=arguments.seed,
    )
    judged = None
    other = arguments.eval_routing
    if other is None and arguments.eval_domain is not None:
        other = arguments.routing
    if other is not None:
        judged = load_stats(other, options, arguments.eval_domain)
    return PlaceProblem(
        stats=load_stats(arguments.routing, options, arguments.domain),
        topology=topology,
        strategies=_strategies(arguments.strategy),
        options=PlacementOptions(
            redundant_experts=arguments.redundant_experts,
            hierarchy=_one(arguments.hierarchy, HIERARCHIES, "--hierarchy"),
            solver=_one(arguments.solver, ("lap", "milp"), "--solver"),
            time_limit_s=arguments.time_limit_s,
            max_par=arguments.max_par,
        ),
        dispatch=_one(arguments.dispatch, DISPATCHES, "--dispatch"),
        eval_stats=judged,
        hidden_size=_hidden_size(arguments),
        seed=arguments.seed,
    )


def _strategies(text: str) -> list[str]:
    if text == "all":
        return list(PLACEMENTS)
    return _names(text, PLACEMENTS, "--strategy")


def _names(text: str, known: Any, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    return list(dict.fromkeys(_one(name, known, option) for name in names))


def _one(name: str, known: Any, option: str) -> Any:
    if name not in known:
        raise ConfigError(f'{option} = "{name}": {one_of(name, known)}')
    return name


def _hidden_size(arguments: PlaceArguments) -> int | None:
    """Width of the model, if the catalogue knows it."""
    try:
        return model(arguments.model or arguments.routing).hidden_size
    except ConfigError:
        return None


def _warn(rows: Sequence[PlacedRow], problem: PlaceProblem) -> None:
    experts, gpus = problem.stats.num_experts, problem.topology.gpus
    ranks = problem.stats.load.reshape(len(problem.stats.load), -1)
    if experts % gpus == 0:
        ranks = ranks.reshape(len(ranks), gpus, -1).sum(axis=2)
        linear = float((ranks.max(axis=1) * gpus).mean())
        for row in rows:
            par = row.metrics.load_par
            if row.result.strategy in _BLIND and par > _MUCH_HIGHER * linear:
                _note(
                    f"{row.result.strategy} is blind to load: max/mean GPU load"
                    f" {par:.2f} against {linear:.2f} of linear; see joint"
                )
    hot = int((problem.stats.load.max(axis=1) * gpus > problem.options.max_par).sum())
    if hot and any(row.result.strategy == "joint" for row in rows):
        _note(
            f"in {hot} of {problem.stats.num_layers} layers one expert alone is more"
            f" than {problem.options.max_par:g} times a GPU's mean load; only copies"
            " balance those (eplb, --redundant)"
        )
    for row in rows:
        if row.result.changes_output:
            _note(f"{row.result.strategy} changes which experts tokens meet (output)")
    if problem.stats.transition is None:
        _note("no transition in the statistics: layers are taken as independent")


def _note(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _write(
    out: Path,
    rows: Sequence[PlacedRow],
    documents: Sequence[dict[str, Any]],
    exports: Sequence[str],
) -> None:
    table = pd.DataFrame(
        [{k: v for k, v in d.items() if k != "placement"} for d in documents]
    )
    write_csv_atomic(out / PLACE_FILE, table)
    loads = loads_table({row.result.strategy: row.loads for row in rows})
    write_csv_gz_atomic(out / LOADS_FILE, loads)
    experts = experts_table(rows[0].result.stats.load)
    write_csv_gz_atomic(out / EXPERTS_FILE, experts)
    write_json_atomic(out / "place.json", documents)
    for row in rows:
        for name in exports:
            path = out / f"{row.result.strategy}.{name}.json"
            write_json_atomic(path, EXPORTS[name](row.result.placement))
    write_placement_report(out)


def _print_tables(rows: Sequence[PlacedRow], problem: PlaceProblem) -> None:
    """What placements are like, how they were found, how they do elsewhere."""
    stats, topology = problem.stats, problem.topology
    title = (
        f"{stats.num_layers} layers x {stats.num_experts} experts, top-{stats.top_k},"
        f" on {topology.gpus} GPUs in {topology.nodes} node(s)"
    )
    Console().print(_quality_table(title, rows, problem.hidden_size))
    Console().print(_search_table(rows))
    if problem.eval_stats is not None:
        Console().print(_elsewhere_table(rows))
    typer.echo(_LEGEND)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False
    )
    for heading in headings:
        left = heading in ("Strategy", "Objective")
        table.add_column(
            heading, justify="left" if left else "right", no_wrap=heading == "Strategy"
        )
    return table


def _quality_table(
    title: str, rows: Sequence[PlacedRow], hidden_size: int | None
) -> Table:
    headings = [
        *("Strategy", "Affinity", "Load\nmax/mean", "Cross-\nGPU %", "Cross-\nnode %"),
        *("Sends/token,\nlayer", "Worst\nlink %"),
    ]
    if hidden_size is not None:
        headings.append("All-to-all\nMB/token")
    table = _table(title, headings)
    for row in rows:
        result, metrics = row.result, row.metrics
        cells = [
            result.strategy,
            f"{metrics.affinity:.3f}",
            f"{metrics.load_par:.3f}",
            f"{100 * metrics.cross_gpu_share:.1f}",
            f"{100 * metrics.cross_node_share:.1f}",
            f"{metrics.dispatch_sends:.2f}",
            f"{100 * metrics.worst_link:.2f}",
        ]
        if hidden_size is not None:
            moved = alltoall_bytes(metrics, result.stats.num_layers, hidden_size)
            cells.append(f"{moved / 1e6:.2f}")
        table.add_row(*cells)
    return table


def _search_table(rows: Sequence[PlacedRow]) -> Table:
    table = _table(
        "Objective of each, and how far it may be from the best",
        ("Strategy", "Objective", "Value", "Bound", "Gap %", "Solve s", "Moved slots"),
    )
    for row in rows:
        result = row.result
        table.add_row(
            result.strategy,
            result.objective_name,
            f"{result.objective:.4f}",
            f"{result.upper_bound:.4f}",
            "proven" if result.proven else f"{100 * result.gap:.1f}",
            f"{result.solve_seconds:.2f}",
            f"{result.migrated_slots}",
        )
    return table


def _elsewhere_table(rows: Sequence[PlacedRow]) -> Table:
    """Fitted to one routing, judged on it and on another, side by side."""
    table = _table(
        "Where it was fitted, and elsewhere",
        ("Strategy", "Affinity\nfitted", "elsewhere", "Load\nfitted", "elsewhere"),
    )
    for row in rows:
        here, there = row.metrics, row.eval_metrics
        if there is not None:
            table.add_row(
                row.result.strategy,
                f"{here.affinity:.3f}",
                f"{there.affinity:.3f}",
                f"{here.load_par:.3f}",
                f"{there.load_par:.3f}",
            )
    return table
