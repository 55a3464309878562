"""Every simulation of the test suite is checked, unless it has its own observer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from sim.checks import run_checker
from sim.compare import compare
from sim.events import Observer
from sim.request import Request
from sim.runner import run_config, run_prepared
from sim.shell.cluster import Cluster, ClusterRun


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
