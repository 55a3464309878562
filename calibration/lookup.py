"""One wording for a name that a catalogue does not hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from sim.config_errors import clip
from sim.errors import ConfigError

_LONGEST_LIST: Final = 800


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """The error to raise for an unknown name, with a suggestion and what is allowed.

    Args:
        kind: what the name should have been, as the user calls it ("GPU").
        name: what was given.
        allowed: the names that exist.

    Returns:
        A one-line `ConfigError`, not raised yet.
    """
    names = sorted(allowed)
    folded = {known.casefold(): known for known in names}
    given = clip(name)
    close = difflib.get_close_matches(given.casefold(), list(folded), n=1, cutoff=0.5)
    hint = f' (did you mean "{clip(folded[close[0]])}"?)' if close else ""
    listed = clip(", ".join(names), _LONGEST_LIST)
    return ConfigError(f'unknown {kind} "{given}"{hint}; allowed: {listed}')
