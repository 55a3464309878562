"""Named random streams."""

import hashlib
import math

import numpy as np

from workloads.streams import stream


def test_spawn_key_is_the_sha256_of_the_name_as_eight_little_endian_words() -> None:
    digest = hashlib.sha256(b"arrivals").digest()
    words = [int.from_bytes(digest[k : k + 4], "little") for k in range(0, 32, 4)]
    by_hand = np.random.PCG64(np.random.SeedSequence(7, spawn_key=words))
    assert stream(7, "arrivals").bit_generator.state == by_hand.state


def test_a_stream_does_not_depend_on_the_streams_made_before_it() -> None:
    alone = stream(3, "output_len").random(8)
    for name in ("arrivals", "prompt_len", "replication/7"):
        stream(3, name).random(100)
    assert np.array_equal(alone, stream(3, "output_len").random(8))


def test_streams_of_other_names_or_seeds_are_uncorrelated() -> None:
    """|r| < 3.9 / sqrt(n): the 99.99 % interval of zero correlation."""
    n = 20_000
    base = stream(0, "prompt_len").standard_normal(n)
    for other in (stream(0, "output_len"), stream(1, "prompt_len")):
        r = np.corrcoef(base, other.standard_normal(n))[0, 1]
        assert abs(r) < 3.9 / math.sqrt(n)
