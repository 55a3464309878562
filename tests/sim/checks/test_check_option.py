"""``--check``: the same bytes with it, and a failure that can be replayed."""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from sim import build_cluster
from sim.cli import main
from sim.engine import Engine
from sim.errors import InvariantError, SimulationError
from sim.plan import StepPlan
from sim.request import RequestRecord
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster
from sim.view import SchedulerView
from tests.sim.pricing import (
    LinearPricer,
    Recorder,
    Scenario,
    limits,
    requests,
    scheduler,
    serve,
)
from tests.sim.test_cli import _digests, command

LOAD = ("--set", "workload.num_requests=12", "--set", "workload.request_rate=2")


@pytest.mark.parametrize(
    "words",
    [("run",), pytest.param(("compare", "--jobs", "2"), marks=pytest.mark.long)],
)
def test_same_bytes_with_and_without(words: tuple[str, ...], tmp_path: Path) -> None:
    """Every file, in processes that nothing else tells to check."""
    for out, check in (("off", ()), ("on", ("--check",))):
        told = (*words, *LOAD, "--iterations", "-q", "--out", str(tmp_path / out))
        done = command(*told, *check, SERVESCOPE_CHECK="0")
        assert (done.returncode, done.stderr) == (0, "")
    plain = _digests(tmp_path / "off")
    assert plain == _digests(tmp_path / "on")
    assert len(plain) >= 5


class Greedy(Recorder):
    """Keeps one request waiting although there is room: lawful, but not its promise."""

    def plan(self, view: SchedulerView) -> StepPlan:
        plan = super().plan(view)
        (span,) = plan.spans
        return StepPlan((type(span)(span.first, span.last, span.prefill[:1]),))


def test_every_simulation_of_the_suite_is_checked() -> None:
    """A broken promise is found although nobody asked for a check here."""
    engine = Engine(Greedy(scheduler("orca", limits())), limits(), 100)
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    with pytest.raises(InvariantError, match="work-conservation broken at 0 ns"):
        cluster.run(requests((0, 9, 3), (0, 9, 3)))


def lazy_schedulers() -> Mapping[str, object]:
    """The registry with one broken policy."""
    made = SCHEDULERS["orca"]
    return MappingProxyType(
        {**SCHEDULERS, "orca": lambda options: Greedy(made(options))}
    )


@pytest.mark.parametrize(
    "words", [("run",), ("compare", "--schedulers", "orca", "--jobs", "1")]
)
def test_a_failure_is_exit_1_with_a_line_that_replays_it(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Law, time, request, replica; the command of the line fails in the same words."""
    monkeypatch.setattr(build_cluster, "SCHEDULERS", lazy_schedulers())
    monkeypatch.chdir(tmp_path)
    settings = (
        *("engine.scheduler=orca", "workload.request_rate=inf"),
        *("workload.dataset=random", "workload.num_requests=5"),
        "workload.random_input_len=100",
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    line = failure(capfd, *words, *sets, "--out", "my results", "-q", "--check")
    told, again = line.rstrip("\n").split("; replay: servescope ")
    assert told.startswith("error: work-conservation broken at ")
    assert "request 1, replica 0: waits although" in told
    replayed = failure(capfd, *shlex.split(again), "-q")
    assert replayed.startswith(f"{told}; replay: ")
    failed = next(Path("my results").rglob("failed.toml"))
    assert not (failed.parent / "result.json").exists()


def failure(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The only line on stderr of a command that exits with 1."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capfd.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (1, "", 1)
    return err


def test_errors_cross_processes_whole() -> None:
    """As joblib sends them."""
    error = InvariantError("busy-time", "busy 3", 5, 7, 1).replayed_by("again")
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own)
    assert str(sent) == str(error)
    assert str(error) == (
        "busy-time broken at 5 ns, request 7, replica 1: busy 3; replay: again"
    )
    assert (sent.time_ns, sent.request_id, sent.replica) == (5, 7, 1)


def test_errors_of_plans_say_when() -> None:
    """What the engine itself refuses gets the time too."""

    class Forgetful(Recorder):
        def plan(self, view: SchedulerView) -> StepPlan:
            return StepPlan(())

    engine = Engine(Forgetful(scheduler("orca", limits())), limits(), 100)
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    with pytest.raises(SimulationError, match=r"cover 0 of 4 layers \(at 40 ns\)"):
        cluster.run(requests((40, 9, 3)))


class Engines:
    """Engines with one fault each, as the museum of real simulators shows them."""

    class Drops(Engine):
        """Loses a request that finds no room (never counted again)."""

        def submit(self, record: RequestRecord) -> None:
            super().submit(record)
            if len(self.waiting) > 2:
                self._records.pop(self.waiting.pop().id)

    class Leaks(Engine):
        """Forgets one block of each request that finishes."""

        def _retire(
            self, record: RequestRecord, stored: int, end_ns: int
        ) -> RequestRecord:
            self.free_blocks -= 1
            return super()._retire(record, stored, end_ns)

    class Repeats(Engine):
        """Stamps the first token again at the end."""

        def _retire(
            self, record: RequestRecord, stored: int, end_ns: int
        ) -> RequestRecord:
            record.first_token_ns = end_ns
            return super()._retire(record, stored, end_ns)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (Engines.Drops, "request-conservation"),
        (Engines.Leaks, "kv-conservation"),
        (Engines.Repeats, "causality"),
    ],
)
def test_a_broken_engine_breaks_the_law(fault: type[Engine], law: str) -> None:
    """With the real event stream, not one that was edited."""
    rows = requests(*[(0, 9, 3)] * 5)
    at = limits(max_num_seqs=1)
    engine = fault(scheduler("orca", at), at, 100)
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    with pytest.raises(InvariantError) as caught:
        cluster.run(rows)
    assert caught.value.invariant == law
    assert len(serve("orca", Scenario(rows, at)).run.records) == 5
