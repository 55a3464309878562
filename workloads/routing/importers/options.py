"""What a file of routing counts does not say about itself."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Facts beside the file.

    Attributes:
        top_k: Experts per token; None where the file says it.
        model: Preset whose layers and experts a log is about.
        gpus: EP size of the run a log is about.
        seed: Draws what a log leaves open.
    """

    top_k: int | None = None
    model: str | None = None
    gpus: int | None = None
    seed: int = 0

    def required_top_k(self, where: str) -> int:
        """Experts per token.

        Raises:
            ConfigError: If nobody said it.
        """
        if self.top_k is None:
            raise ConfigError(f"{where}: does not say top_k; give --top-k")
        return self.top_k
