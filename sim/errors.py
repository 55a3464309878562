"""The two ways a run can fail: the user's input, or a broken promise inside."""

from __future__ import annotations


class ServescopeError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(ServescopeError):
    """Bad input: one line naming file, key, value and what is allowed (exit 2)."""


class SimulationError(ServescopeError):
    """A scheduler or the engine broke an invariant: no result to trust (exit 1)."""

    def at(self, time_ns: int) -> SimulationError:
        """The same error, with the simulated time at which it was found."""
        return SimulationError(f"{self} (at {time_ns} ns)")

    def replayed_by(self, command: str) -> SimulationError:
        """The same error, with the command that shows it again."""
        return SimulationError(f"{self}; replay: {command}")


class InvariantError(SimulationError):
    """A law that every run obeys does not hold in this one.

    Attributes:
        invariant: Its name, a key of ``sim.checks.INVARIANTS``, of
            ``sim.checks.machine.MACHINE_LAWS`` or of
            ``sim.checks.results.RESULT_CHECKS``.
        problem: What was seen, and what the law says instead.
        time_ns: Simulated time, None if it is not known here.
        request_id: The request, None if the law is not about one.
        replica: The replica, None if the law is not about one.
        replay: Command that shows it again, None if it is not known here.
    """

    def __init__(
        self,
        invariant: str,
        problem: str,
        time_ns: int | None = None,
        request_id: int | None = None,
        replica: int | None = None,
        replay: str | None = None,
    ) -> None:
        # All of it, so that the error crosses processes whole.
        super().__init__(invariant, problem, time_ns, request_id, replica, replay)
        self.invariant = invariant
        self.problem = problem
        self.time_ns = time_ns
        self.request_id = request_id
        self.replica = replica
        self.replay = replay

    def at(self, time_ns: int) -> InvariantError:
        """The same error; the time it was raised with stays."""
        known = time_ns if self.time_ns is None else self.time_ns
        return InvariantError(
            *(self.invariant, self.problem, known, self.request_id, self.replica),
            replay=self.replay,
        )

    def replayed_by(self, command: str) -> InvariantError:
        """The same error, with the command that shows it again."""
        return InvariantError(
            *(self.invariant, self.problem, self.time_ns),
            *(self.request_id, self.replica),
            replay=command,
        )

    def __str__(self) -> str:
        where = [
            text
            for value, text in (
                (self.time_ns, f"at {self.time_ns} ns"),
                (self.request_id, f"request {self.request_id}"),
                (self.replica, f"replica {self.replica}"),
            )
            if value is not None
        ]
        line = " ".join((f"{self.invariant} broken", ", ".join(where))).rstrip()
        again = "" if self.replay is None else f"; replay: {self.replay}"
        return f"{line}: {self.problem}{again}"
