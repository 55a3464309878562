"""Serving policies by one word, as ``servescope compare`` takes and prints them.

``SCHEDULER[+QUEUE][@xPyD]``: a scheduler, a queue discipline other than first come,
first served, and pools of x prefill and y decode replicas. ``xPyD`` alone is chunked
prefill in whole batches, as vLLM's prefill workers run it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sim.config import Config
from sim.config_errors import clip
from sim.config_sections import BATCH_TOKENS, CHUNKED_PREFILL
from sim.errors import ConfigError

_WORD: Final = re.compile(
    r"(?P<scheduler>[a-z][a-z-]*)?(?:\+(?P<queue>[a-z]+))?"
    r"(?:@?(?P<prefill>[0-9]{1,5})p(?P<decode>[0-9]{1,5})d)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a word says.

    Attributes:
        scheduler: Name of the scheduler; whether it exists is for others to say.
        queue: Queue discipline, or None for that of the configuration.
        prefill: Prefill replicas; None if every replica does both.
        decode: Decode replicas, or None.
    """

    scheduler: str
    queue: str | None = None
    prefill: int | None = None
    decode: int | None = None

    def settings(self, base: Config) -> dict[str, Any]:
        """Values by key that make a configuration this policy's.

        Raises:
            ConfigError: If its pools are not as many replicas as the others have.
        """
        values: dict[str, Any] = {"engine.scheduler": self.scheduler}
        if self.queue is not None:
            values["engine.queue"] = self.queue
        if self.prefill is None or self.decode is None:
            return values
        replicas, gpus = base.parallel.replicas, base.parallel.gpus_per_replica
        if self.prefill + self.decode != replicas or not self.prefill * self.decode:
            count = self.prefill + self.decode
            raise ConfigError(
                f"{self.prefill}p{self.decode}d: must be two pools of 1 or more and"
                f" parallel.replicas ({replicas}) in all, so that policies have equally"
                f" many GPUs; {count} replicas of {gpus} GPUs: --set"
                f" parallel.replicas={count} --set cluster.gpus_per_node={count * gpus}"
            )
        values["parallel.prefill_replicas"] = self.prefill
        if base.engine.max_num_batched_tokens is None:
            values["engine.max_num_batched_tokens"] = BATCH_TOKENS
        return values


def parse_policy(word: str) -> Policy:
    """The policy of a word.

    Raises:
        ConfigError: If it is not made as the module says.
    """
    match = _WORD.fullmatch(word.lower())
    if not word or match is None or word.startswith("+"):
        raise ConfigError(
            f'policy "{clip(word)}": must be SCHEDULER[+QUEUE][@xPyD] or xPyD, such as'
            " layered-prefill, chunked-prefill+sjf or 1p3d"
        )
    name, queue = match["scheduler"] or CHUNKED_PREFILL, match["queue"]
    if match["prefill"] is None:
        return Policy(name, queue)
    return Policy(name, queue, int(match["prefill"]), int(match["decode"]))


def policy_label(config: Config) -> str:
    """The word for the policy of a configuration."""
    engine, parallel = config.engine, config.parallel
    queue = "" if engine.queue == "fcfs" else f"+{engine.queue}"
    if parallel.prefill_replicas is None:
        return f"{engine.scheduler}{queue}"
    decode = parallel.replicas - parallel.prefill_replicas
    return f"{engine.scheduler}{queue}@{parallel.prefill_replicas}p{decode}d"
