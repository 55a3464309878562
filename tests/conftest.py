"""The normal and the long suite: profiles, the count of cases, how to replay.

Every simulation of the suite is checked, unless it has its own observer.

``pytest -m long`` runs the tests marked so and every property test with many more
cases, drawn from a seed that is printed (``--hypothesis-seed`` sets it).
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import hypothesis
import pytest

from sim.checks import run_checker
from sim.compare import compare
from sim.events import Observer
from sim.request import Request
from sim.runner import run_config, run_prepared
from sim.shell.cluster import Cluster, ClusterRun
from tests.cases import (
    LONG_FLOOR,
    counted,
    load_constants,
    load_profile,
    passed_cases,
)
from tests.floor import complaint

UNTRACED = (
    *(
        "tests/docs",
        "tests/golden",
        "tests/reports/html",
        "tests/sim/checks/test_knowledge",
    ),
    *("tests/sim/machine/test_fidelity", "tests/sim/test_conformance"),
    *("tests/reports/test_compare", "tests/reports/test_trace", "tests/sim/test_fast"),
    "tests/sim/checks/test_blocks.py::test_blocks_pass",
    *(
        f"tests/sim/test_{file}.py::test_random"
        for file in ("disaggregation", "outages", "pools", "swapping")
    ),
    *(
        "tests/sim/test_metamorphic",
        "tests/sim/test_queue",
        "tests/sim/test_saturation",
    ),
    *("tests/sim/test_sessions", "tests/sim/test_slow_twin", "tests/sim/test_theory"),
    "tests/sim/test_multiplex.py::test_prompts",
    "tests/sim/test_swapping.py::test_without_room",
)
"""Long simulations that --cov does not trace, which would double their time.

What they run is covered by the tests beside the code; the report says if it is not.
"""
SAY = "say"
"""``record_property(SAY, line)`` in a test prints the line, from a worker too."""
_CASES = "property_cases"
_STARTED = pytest.StashKey[float]()


def _is_long(config: pytest.Config) -> bool:
    return str(config.option.markexpr) == "long"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()
    load_profile(long=_is_long(config))
    if _is_long(config) and config.option.hypothesis_seed is None:
        # Set before the workers start, which copy the options.
        config.option.hypothesis_seed = str(secrets.randbelow(10**9))
    if config.option.hypothesis_seed is not None:
        load_constants()


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.option.hypothesis_seed
    return f"property cases drawn with --hypothesis-seed={seed}" if seed else None


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what has no mark
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    wrong = complaint(len(items)) if whole else None
    if wrong is not None:
        raise pytest.UsageError(wrong)
    for item in items:
        if item.nodeid.startswith(UNTRACED):
            item.add_marker(pytest.mark.no_cover)
        test = getattr(item, "obj", None)
        if not hypothesis.is_hypothesis_test(test):
            continue
        if _is_long(config):
            item.add_marker(pytest.mark.long)
        handle = getattr(test, "hypothesis", None)
        if handle is not None and not hasattr(handle.inner_test, "is_counted"):
            handle.inner_test = counted(handle.inner_test)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    seed = item.config.option.hypothesis_seed
    test = getattr(item, "function", None)
    if seed is not None and hasattr(test, "hypothesis"):
        # With the seed alone, tests that draw alike would all see the same cases.
        hypothesis.seed(f"{seed} {item.nodeid}")(test)
    before = passed_cases()
    try:
        yield
    finally:
        if passed_cases() > before:
            item.user_properties.append((_CASES, passed_cases() - before))


def _ran(config: pytest.Config) -> tuple[int, int]:
    """Property cases, and the tests they belong to."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [r for rs in reporter.stats.values() for r in rs] if reporter else []
    counts = [
        count
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, count in report.user_properties
        if name == _CASES
    ]
    return sum(counts), len(counts)


def _is_whole_long_suite(config: pytest.Config) -> bool:
    chosen = config.option.keyword or config.option.collectonly
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return _is_long(config) and whole and not chosen


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or not _is_whole_long_suite(config):
        return
    if session.exitstatus == pytest.ExitCode.OK and _ran(config)[0] < LONG_FLOOR:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    count, tests = _ran(config)
    seconds = time.monotonic() - config.stash[_STARTED]
    if count:
        terminalreporter.write_line(
            f"{count:,} property cases passed in {tests} tests, {seconds:.0f} s in all"
        )
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == SAY and report.when == "call":
                terminalreporter.write_line(str(value))
    if _is_whole_long_suite(config) and count < LONG_FLOOR:
        terminalreporter.write_line(f"at least {LONG_FLOOR:,} were to run", red=True)
    for report in [
        r for kind in ("failed", "error") for r in terminalreporter.stats.get(kind, ())
    ]:
        terminalreporter.write_line(f"replay: {_replay(config, report.nodeid)}")


def _replay(config: pytest.Config, nodeid: str) -> str:
    words = ["python", "-m", "pytest"]
    if config.option.markexpr != "not long":
        words += ["-m", config.option.markexpr]
    if config.option.hypothesis_seed is not None:
        words.append(f"--hypothesis-seed={config.option.hypothesis_seed}")
    return shlex.join([*words, nodeid])


@pytest.fixture(scope="session", autouse=True)
def _every_simulation_is_checked() -> Iterator[None]:
    """``check`` defaults to True, in other processes too; clusters are watched."""
    run = Cluster.run

    def checked(
        self: Cluster,
        requests: Sequence[Request],
        on_done: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> ClusterRun:
        return run(self, requests, on_done, observer or run_checker())

    with pytest.MonkeyPatch.context() as patch:
        for function in (run_prepared, run_config, compare):
            patch.setitem(function.__kwdefaults__, "check", True)
        patch.setattr(Cluster, "run", checked)
        patch.setenv("SERVESCOPE_CHECK", "1")
        yield
