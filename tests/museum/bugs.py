"""Twenty bugs that other simulators really had, each planted in our code.

A bug is a snippet of a file and what takes its place. The tests named must fail on it
within two minutes; `tests.museum.run` plants it in a copy of the project and runs them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One planted bug.

    Attributes:
        number: 1 to 20.
        history: What went wrong, where.
        file: File of this project it is planted in.
        original: Text of that file, found exactly once.
        mutated: What takes its place.
        test: Node id of the test that must fail.
    """

    number: int
    history: str
    file: str
    original: str
    mutated: str
    test: str


_CONFORMANCE = "tests/sim/test_conformance.py::"

BUGS = (
    Bug(
        1,
        "a request silently dropped when KV allocation fails (BLIS #183)",
        "sim/engine.py",
        "        self.waiting.push_front(self._queued(record, tokens, resumed=True))",
        "        del tokens, self._records[request_id]",
        _CONFORMANCE + "test_every_request_ends_finished_or_rejected_with_a_reason",
    ),
    Bug(
        2,
        "idle while work waits: mean wait off by 151,000 % (BLIS #325)",
        "sim/shell/replica.py",
        "            if not engine.has_work:\n                yield",
        "            if not engine.decoding.size:\n                yield",
        "tests/sim/test_theory.py::test_one_sequence_is_lindleys_recursion",
    ),
    Bug(
        3,
        "a list changed while it was iterated (BLIS #349)",
        "sim/decode_batch.py",
        "        return list(self._finishing.pop(self.tick, ()))",
        "        return self._finishing.get(self.tick, {})",
        "tests/sim/test_decode_batch.py::TestDecodeBatch",
    ),
    Bug(
        4,
        "preempted and queued for ever when the KV cache cannot hold one request"
        " (BLIS #386, #963)",
        "sim/build.py",
        "    if blocks * engine.block_size < engine.max_model_len:",
        "    if blocks < 1:",
        "tests/sim/test_kv_capacity.py::test_pool_holds_a_whole_request_in_blocks",
    ),
    Bug(
        5,
        "output tokens counted again after preemption (BLIS #1091, #1095)",
        "sim/engine.py",
        "        remaining = record.output_tokens - self._emitted[state.id]",
        "        remaining = record.output_tokens - 1",
        _CONFORMANCE + "test_requests_emit_exactly_their_tokens",
    ),
    Bug(
        6,
        "TTFT frozen at a first run that emitted nothing (BLIS #1122)",
        "sim/engine.py",
        "        if state.computed < state.tokens:\n            return None\n",
        "        early = self._records[state.id]\n"
        "        early.first_token_ns = early.first_token_ns or end_ns\n"
        "        if state.computed < state.tokens:\n            return None\n",
        _CONFORMANCE + "test_times_follow_cause_and_effect",
    ),
    Bug(
        7,
        "admission looked at the true output length (BLIS #567)",
        "sim/engine.py",
        "        reason = self.limits.reject_reason(tokens)\n",
        "        reason = self.limits.reject_reason(tokens + request.output_tokens)\n",
        _CONFORMANCE + "test_only_prompts_that_can_never_run_are_rejected",
    ),
    Bug(
        8,
        "the check for free blocks one block too strict (BLIS #492)",
        "sim/schedulers/admission.py",
        "        if slots <= 0 or free < 0:",
        "        if slots <= 0 or free <= 0:",
        "tests/sim/test_slow_twin.py::test_simulator_equals_the_literal_loop",
    ),
    Bug(
        9,
        "a rollback freed another request's blocks (BLIS #1061)",
        "sim/engine.py",
        "        self._free(request_id, stored)\n        record.preemptions += 1\n",
        "        self._free(request_id, stored)\n        self.free_blocks += 1\n"
        "        record.preemptions += 1\n",
        "tests/sim/test_engine_kv.py::test_free_blocks_equal_a_recount",
    ),
    Bug(
        10,
        "rate 0 loops for ever, NaN is accepted (BLIS rule R3)",
        "sim/config_fields.py",
        "    if MIN_RATE <= rate <= MAX_RATE or rate == math.inf:",
        "    if not rate < 0:",
        "tests/sim/test_config.py::test_numbers_outside_their_bounds_are_one_line_errors",
    ),
    Bug(
        11,
        "a misspelt key accepted in silence (BLIS rule R10)",
        "sim/config_file.py",
        "                raise _unknown(name, item, key)",
        "                continue",
        "tests/sim/test_config_file.py::test_a_bad_file_is_one_clear_line",
    ),
    Bug(
        12,
        "a sum in the order of a hash map (BLIS rule R2)",
        "sim/weighted.py",
        "        return self._sum(self.values) / self.size\n",
        "        values = sorted(self.values, key=lambda value: hash(str(value)))\n"
        "        return float(sum(values)) / self.size\n",
        "tests/sim/test_cli.py::test_same_bytes_whatever_the_processes",
    ),
    Bug(
        13,
        "events at equal times in another order than documented (Vidur)",
        "sim/shell/clock.py",
        "    ARRIVAL = 0\n    ITERATION_END = 1\n    FLEET = 2\n    PLAN = 3\n",
        "    ARRIVAL = 3\n    ITERATION_END = 1\n    FLEET = 2\n    PLAN = 0\n",
        "tests/sim/test_schedulers.py"
        "::test_arrival_at_the_end_of_an_iteration_is_in_the_next_plan",
    ),
    Bug(
        14,
        "outputs lost when the process is killed (Vidur)",
        "sim/files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/sim/test_files.py::test_data_reaches_the_disk_before_the_name",
    ),
    Bug(
        15,
        "a failed job's file recorded as complete (Snakemake #3808)",
        "sim/results.py",
        "    for name in (RESULT_FILE, *_OPTIONAL_FILES, FAILED_FILE):\n"
        "        remove(",
        "    write_json_atomic(directory / RESULT_FILE, result.summary)\n"
        "    for name in (*_OPTIONAL_FILES, FAILED_FILE):\n"
        "        remove(",
        "tests/sim/test_results.py::test_result_json_means_complete",
    ),
    Bug(
        16,
        "a new component reshuffles everyone's random numbers (ns-3)",
        "workloads/streams.py",
        "    sequence = np.random.SeedSequence(entropy=seed, spawn_key=words)",
        "    made = stream.__dict__['made'] = stream.__dict__.get('made', 0) + 1\n"
        "    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(made,))",
        "tests/workloads/test_streams.py"
        "::test_a_stream_does_not_depend_on_the_streams_made_before_it",
    ),
    Bug(
        17,
        "half of the test suite silently not collected (Ciw)",
        "pyproject.toml",
        'testpaths = ["tests"]',
        'testpaths = ["tests/sim"]',
        "tests/test_floor.py::test_the_whole_suite_is_above_its_floor",
    ),
    Bug(
        18,
        "a mutation gate green because no mutant ever ran (RuView #1884)",
        "tests/mutation/gate.py",
        "    if ran < LEAST_RUN:",
        "    if ran < 0:",
        "tests/mutation/test_gate.py::test_a_run_without_mutants_fails",
    ),
    Bug(
        19,
        "preemption frees no block and cascades through the queue (vLLM #49674)",
        "sim/schedulers/room.py",
        "        free += blocks\n",
        "",
        _CONFORMANCE + "test_preemption_takes_no_more_than_it_must",
    ),
    Bug(
        20,
        "an event of t = 1.0 happens at 0.9999999999999999 (float time)",
        "sim/units.py",
        "    return round(seconds * NS_PER_S)",
        "    return int(seconds * NS_PER_S)",
        "tests/sim/test_units.py::test_decimal_seconds_are_exact",
    ),
)
