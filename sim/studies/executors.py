"""Where points run: this machine's cores, or a Dask or Ray cluster that is there.

All three are joblib backends, so a study's work is the same on each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from joblib import Parallel, cpu_count, parallel_config

from sim.config_errors import clip
from sim.errors import ConfigError

LOCAL: Final = "local"
_DASK: Final = "dask://"
_RAY: Final = "ray"
ALLOWED: Final = f'"{LOCAL}", "{_DASK}HOST:PORT", "{_RAY}" or "{_RAY}://HOST:PORT"'
_ALL: Final = -1


def check_executor(executor: str) -> None:
    """Refuse what no executor understands.

    Raises:
        ConfigError: With what is allowed.
    """
    if executor not in (LOCAL, _RAY) and not executor.startswith((_DASK, f"{_RAY}://")):
        raise ConfigError(f'--executor = "{clip(executor)}": must be {ALLOWED}')


@contextmanager
def workers(executor: str, jobs: int | None, tasks: int) -> Iterator[Parallel]:
    """Give workers that return results as they come, or with Ray at the end.

    Args:
        executor: "local", "dask://HOST:PORT", "ray" or "ray://HOST:PORT".
        jobs: Processes or cluster workers; None for all there are.
        tasks: How many tasks there are, for no more processes than that.

    Raises:
        ConfigError: If the name is unknown, its extra not installed or its cluster
            not reached.
    """
    check_executor(executor)
    with ExitStack() as stack:
        if executor == LOCAL:
            processes = max(1, min(jobs or cpu_count(), tasks))
        else:
            connect = _dask if executor.startswith(_DASK) else _ray
            stack.enter_context(connect(executor))
            processes = jobs or _ALL
        # Ray's backend gives all results at the end; its workers still write each point
        ray = executor.startswith(_RAY)
        yield Parallel(
            n_jobs=processes, return_as="list" if ray else "generator_unordered"
        )


@contextmanager
def _dask(executor: str) -> Iterator[None]:
    try:
        from distributed import Client  # noqa: PLC0415  (an extra)
    except ImportError:
        raise _missing("dask") from None
    address = f"tcp://{executor.removeprefix(_DASK)}"
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise _unreachable(executor, error) from None
    with client, parallel_config(backend="dask"):
        yield


@contextmanager
def _ray(executor: str) -> Iterator[None]:
    try:
        import ray  # noqa: PLC0415  (an extra)
        from ray.util.joblib import register_ray  # noqa: PLC0415
    except ImportError:
        raise _missing("ray") from None
    address = "auto" if executor == _RAY else executor
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise _unreachable(executor, error) from None
    register_ray()
    with parallel_config(backend="ray"):
        yield


def _missing(extra: str) -> ConfigError:
    return ConfigError(
        f"--executor: needs the extra servescope[{extra}]"
        f" (pip install 'servescope[{extra}]')"
    )


def _unreachable(executor: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(
        f'--executor = "{clip(executor)}": no cluster reached: {clip(reason, 200)}'
    )
