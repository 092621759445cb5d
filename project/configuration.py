"""Every bound of Turnout, with its unit, in one list; the relations between them are asserted when a process starts.

Each field can be set by the environment variable `TURNOUT_` + the field's name in capitals, as in
`TURNOUT_RUN_SLOTS=8`. A bound that is missing here does not exist: nothing below reads the environment.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

_ACK_EVENTS, _ACK_BYTES = 128, 65_536  # the protocol: at the latest then a client acknowledges; a smaller window stalls
_EVENT_BYTES, _ID_COLUMN = 4_096, 128
_REVOKED_WITHIN_S = 5.0  # the protocol's promise: a socket outlives its session by less than this


class ConfigurationError(ValueError):
    """A setting has a value that cannot be used, or two settings contradict each other."""


def _bound(default: Any, unit: str, meaning: str) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What one process may hold, and how long it waits. Raises ConfigurationError when the bounds contradict."""

    # where runs are executed
    execution: Literal["in_process", "workers"] = _bound("in_process", "mode", "who executes runs")

    # socket
    frame_bytes: int = _bound(65_536, "bytes", "largest frame accepted from a client")
    text_bytes: int = _bound(32_768, "bytes", "largest message text, as JSON")
    event_bytes: int = _bound(65_536, "bytes", "largest event, as JSON")
    event_id_characters: int = _bound(128, "characters", "longest id of a message, a tool call or a sub-agent's run")
    window_events: int = _bound(512, "events", "events sent beyond the last ack")
    window_bytes: int = _bound(262_144, "bytes", "bytes sent beyond the last ack")
    attachments_per_run: int = _bound(8, "attachments", "attachments of one run")
    attachment_bytes: int = _bound(4_194_304, "bytes", "one attachment")
    attachment_bytes_per_user: int = _bound(67_108_864, "bytes", "attachments of one user")
    attachment_hours: int = _bound(24, "hours", "an attachment that no message holds is kept for")
    inbox_commands: int = _bound(64, "commands", "commands of one connection that wait")
    inbox_bytes: int = _bound(262_144, "bytes", "commands of one connection that wait")
    command_rate_per_s: float = _bound(20.0, "commands/s", "sustained commands of one connection")
    command_burst: int = _bound(60, "commands", "commands of one connection at once")
    waiting_frames: int = _bound(256, "frames", "replies and other frames that wait for a tab, beside events")
    intake_frames: int = _bound(16, "frames", "frames of one connection read ahead of their handling")
    intake_bytes: int = _bound(65_536, "bytes", "bytes of one connection read ahead of their handling")
    heartbeat_s: float = _bound(15.0, "seconds", "interval of pings")
    stall_timeout_s: float = _bound(30.0, "seconds", "no progress and no pong: the connection is closed")
    stalled_after_s: float = _bound(10.0, "seconds", "a ping unanswered for this long: reported as stalled")
    lagging_events: int = _bound(64, "events", "unacknowledged events beyond which a tab is reported as lagging")
    closing_s: float = _bound(2.0, "seconds", "for a tab that was told to go to take what was sent before")
    subscribe_timeout_s: float = _bound(10.0, "seconds", "connect without subscribe: the connection is closed")
    connections_per_user: int = _bound(16, "connections", "sockets of one user in one process")
    connections_per_address: int = _bound(1_000, "connections", "sockets of one address in one process")
    connections: int = _bound(4_000, "connections", "sockets of one process")
    proofs: int = _bound(10_000, "proofs", "proofs of all tabs that wait to be compared")
    proofs_per_user: int = _bound(256, "proofs", "proofs of one user that wait to be compared")
    proof_look_s: float = _bound(1.0, "seconds", "between two looks at the proofs that wait")
    revalidate_s: float = _bound(2.0, "seconds", "between two looks whether connected users may still be here")

    stream_snapshot_bytes: int = _bound(1_048_576, "bytes", "messages that an event stream begins with, as JSON")

    # log
    flush_window_min_ms: float = _bound(2.0, "milliseconds", "shortest time between two commits")
    flush_window_max_ms: float = _bound(40.0, "milliseconds", "longest time between two commits")
    segment_events: int = _bound(64, "events", "events of one row of the log")
    segment_bytes: int = _bound(65_536, "bytes", "bytes of one row of the log")
    commit_events_per_user: int = _bound(256, "events", "one user's share of a commit")
    commit_bytes_per_user: int = _bound(262_144, "bytes", "one user's share of a commit")
    commit_held_wait_ms: float = _bound(20.0, "milliseconds", "for a row that another transaction holds, in a commit")
    publisher_events: int = _bound(256, "events", "accepted and not yet committed events of one run")
    publisher_bytes: int = _bound(262_144, "bytes", "accepted and not yet committed bytes of one run")
    head_poll_s: float = _bound(1.0, "seconds", "between two queries for the heads of connected users")
    log_rows_per_user: int = _bound(20_000, "rows", "rows of one user's log, beyond which it is trimmed")
    log_bytes_per_user: int = _bound(67_108_864, "bytes", "bytes of one user's log, beyond which it is trimmed")
    log_age_hours: int = _bound(168, "hours", "age from which rows of the log are trimmed")
    retention_s: float = _bound(5.0, "seconds", "between two turns of trimming and erasing, of all processes together")
    retention_step_rows: int = _bound(256, "rows", "rows that one transaction of a turn trims or looks at")
    retention_steps: int = _bound(200, "transactions", "transactions of one turn")
    witness_file: str = _bound("", "path", "remembers how far the database was; empty: beside SQLite's file")

    hint_beat_s: float = _bound(1.0, "seconds", "between two signs of life of a process on the channel layer")
    hint_silence_s: float = _bound(3.0, "seconds", "a process that does not hear itself joins the channel layer anew")
    hint_timeout_s: float = _bound(1.0, "seconds", "one message to the channel layer")
    hint_users: int = _bound(10_000, "users", "users with events that other processes were not told of yet")

    # runs
    open_runs_per_user: int = _bound(20, "runs", "queued, running and waiting runs of one user")
    waiting_runs_per_user: int = _bound(10, "runs", "runs of one user that wait for an approval")
    tokens_per_day: int = _bound(10_000_000, "tokens", "input and output of one user's runs in a day (UTC)")
    run_slots_per_user: int = _bound(3, "runs", "running runs of one user, over all processes")
    run_slots: int = _bound(200, "runs", "running runs of one process")
    queued_runs: int = _bound(10_000, "runs", "queued runs of all users")
    run_timeout_s: float = _bound(600.0, "seconds", "longest run")
    run_events: int = _bound(200_000, "events", "events of one run, as logged")
    run_bytes: int = _bound(16_777_216, "bytes", "bytes of one run, as logged")
    model_calls_per_run: int = _bound(32, "calls", "calls of the model of one run")
    approval_timeout_s: float = _bound(86_400.0, "seconds", "a tool call waits this long for its user's word")
    approval_sweep_s: float = _bound(5.0, "seconds", "between two looks for calls whose time to be approved is over")
    cleanup_timeout_s: float = _bound(5.0, "seconds", "one clean-up callback")
    cancel_timeout_s: float = _bound(5.0, "seconds", "an agent that was cancelled has this long to stop")
    history_messages: int = _bound(40, "messages", "finished messages that an agent is given")
    history_bytes: int = _bound(131_072, "bytes", "text of the history that an agent is given")
    sweep_s: float = _bound(1.0, "seconds", "between two looks for queued runs whose wake-up was lost")
    run_restarts: int = _bound(1, "runs", "how often a restartable run is asked again when its process died")

    # leases
    lease_renew_s: float = _bound(0.5, "seconds", "between two beats of a process' lease")
    lease_dead_s: float = _bound(
        2.0, "seconds", "a lease that stands still for this long, its lock free, is a dead one's"
    )
    lease_hold_s: float = _bound(10.0, "seconds", "runs go no further while their lease was not renewed for this long")
    lease_ttl_s: float = _bound(15.0, "seconds", "a lease that stands still for this long is taken away")

    # jobs
    job_heartbeat_s: float = _bound(5.0, "seconds", "between two beats of a process that listens for wake-ups")
    job_stalled_s: float = _bound(30.0, "seconds", "a listener silent for this long is gone, and its jobs are deleted")
    job_poll_s: float = _bound(5.0, "seconds", "between two looks for wake-ups whose notification was lost")
    job_sweep_s: float = _bound(30.0, "seconds", "between two looks for stalled jobs")
    job_stop_s: float = _bound(1.0, "seconds", "for a wake-up at work when its process stops")

    # process
    database_threads: int = _bound(8, "threads", "threads that use the ORM")
    goodbye_s: float = _bound(5.0, "seconds", "for tabs to hear that they must go, at the end of a drain")
    shutdown_s: float = _bound(3.0, "seconds", "for the parts of a process to close, after the goodbye")
    drain_timeout_s: float = _bound(25.0, "seconds", "from SIGTERM to the end of the process")
    reconnect_spread_ms: int = _bound(2_000, "milliseconds", "clients that are sent away come back within")
    stall_report_s: float = _bound(1.0, "seconds", "an event loop that stands still for this long is reported")
    report_s: float = _bound(2.0, "seconds", "between two reports of a process about itself")
    trace_marks: int = _bound(20_000, "marks", "steps of events that a process remembers for manage.py trace")
    metrics: bool = _bound(default=False, unit="switch", meaning="answer /metrics")
    report_stale_s: float = _bound(10.0, "seconds", "a process that is silent for this long is missing")

    # threads and messages
    threads_per_user: int = _bound(1_000, "threads", "threads of one user")
    messages_per_thread: int = _bound(2_000, "messages", "messages of one thread")
    stored_bytes_per_user: int = _bound(268_435_456, "bytes", "text of all messages of one user")
    receipt_hours: int = _bound(24, "hours", "how long a command id is remembered")

    # rollout
    guard_alarm: float = _bound(1_000.0, "bad outcomes", "of equal paths, on average between two false alarms")
    guard_failure_limit: float = _bound(0.05, "share of runs", "failures that must be ruled out before a seam goes up")
    guard_evidence: float = _bound(20.0, "odds", "against that many failures before a seam goes up")
    guard_users: int = _bound(5, "users", "of the factory on this release before a seam goes up")
    guard_recent_starts: int = _bound(1_000, "runs", "newest starts that say which share the factory has")
    guard_baseline_runs: int = _bound(5_000, "runs", "newest legacy runs that its frozen figures are made of")
    observed_ends: int = _bound(20_000, "runs", "ends that are kept of each seam")

    # comparing the two paths of a seam
    shadow_slots: int = _bound(2, "replays", "replays at a time in one process")
    shadow_timeout_s: float = _bound(30.0, "seconds", "one replay on one path")
    shadow_share: float = _bound(1.0, "share", "of legacy's runs that are recorded while a seam is compared; up to 1")
    shadow_waiting: int = _bound(200, "recordings", "recordings of all processes that wait for their replay")
    shadow_queued: int = _bound(100, "runs", "finished runs of one process on their way to a recording")
    shadow_poll_s: float = _bound(15.0, "seconds", "between two looks for recordings that other processes left")
    shadow_stop_s: float = _bound(1.0, "seconds", "for replays under way, when the process ends")
    recording_bytes: int = _bound(524_288, "bytes", "one recorded run; a larger one is not compared")
    recording_minutes: float = _bound(60.0, "minutes", "an older recording is thrown away")

    # agents
    show_reasoning: bool = _bound(default=True, unit="switch", meaning="let users see the reasoning of agents")
    show_subagents: bool = _bound(default=True, unit="switch", meaning="let users see which agents work for others")
    faulty_agent: bool = _bound(default=False, unit="switch", meaning="register the agent that misbehaves")
    model: str = _bound("", "provider:model", "model that `assistant` uses; empty for the offline agent")
    model_base_url: str = _bound("", "URL", "OpenAI-compatible server; empty for the provider's own")
    model_api_key: str = _bound("", "secret", "key for the model's provider")
    agent_models: str = _bound("", "agent=provider:model", "models of single agents, with commas between")
    model_timeout_s: float = _bound(120.0, "seconds", "one answer of a model")
    model_stall_timeout_s: float = _bound(30.0, "seconds", "a model's answer without a byte")
    model_connect_timeout_s: float = _bound(5.0, "seconds", "until a model's server takes the connection")
    model_tries: int = _bound(3, "requests", "of one answer, refused or lost before it began")
    model_answer_tokens: int = _bound(16_384, "tokens", "one answer of a model, reasoning included")
    model_answer_bytes: int = _bound(16_777_216, "bytes", "one answer of a model")
    model_connections: int = _bound(1_000, "connections", "to the models' servers from one process")
    fetch_tool: bool = _bound(default=False, unit="switch", meaning="let agents read pages of the public web")
    fetch_timeout_s: float = _bound(10.0, "seconds", "one page, its redirects included")
    fetch_bytes: int = _bound(1_048_576, "bytes", "one page")
    fetch_redirects: int = _bound(3, "redirects", "followed for one page")

    def __post_init__(self) -> None:
        for bound in dataclasses.fields(self):
            value = getattr(self, bound.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ConfigurationError(f"{_variable(bound.name)} is {value}; it must be above 0")
        self.models_by_agent()
        for holds, relation in self._relations():
            if not holds:
                raise ConfigurationError(f"the bounds contradict each other: {relation} must hold")

    def _relations(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.execution in ("in_process", "workers"), "execution is in_process or workers"),
            (self.text_bytes < self.frame_bytes, "text_bytes < frame_bytes"),
            (self.segment_events <= self.window_events, "segment_events <= window_events"),
            (self.segment_bytes <= self.window_bytes, "segment_bytes <= window_bytes"),
            (self.window_events > _ACK_EVENTS, f"window_events > {_ACK_EVENTS}, at which a client acknowledges"),
            (self.window_bytes > _ACK_BYTES, f"window_bytes > {_ACK_BYTES}, at which a client acknowledges"),
            (self.segment_events <= self.commit_events_per_user, "segment_events <= commit_events_per_user"),
            (self.segment_bytes <= self.commit_bytes_per_user, "segment_bytes <= commit_bytes_per_user"),
            (self.event_bytes >= _EVENT_BYTES, f"event_bytes >= {_EVENT_BYTES}, an envelope and some text"),
            (self.event_id_characters <= _ID_COLUMN, f"event_id_characters <= {_ID_COLUMN}, as messages store them"),
            (self.attachment_bytes <= self.attachment_bytes_per_user, "attachment_bytes <= attachment_bytes_per_user"),
            (self.event_bytes <= self.publisher_bytes, "event_bytes <= publisher_bytes"),
            (self.run_bytes <= self.log_bytes_per_user, "run_bytes <= log_bytes_per_user"),
            (self.flush_window_min_ms <= self.flush_window_max_ms, "flush_window_min_ms <= flush_window_max_ms"),
            (2 * self.hint_beat_s < self.hint_silence_s, "2 * hint_beat_s < hint_silence_s"),
            *self._relations_of_runs(),
        )

    def _relations_of_runs(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.run_slots_per_user <= self.open_runs_per_user, "run_slots_per_user <= open_runs_per_user"),
            (self.waiting_runs_per_user <= self.open_runs_per_user, "waiting_runs_per_user <= open_runs_per_user"),
            (self.run_slots_per_user <= self.run_slots, "run_slots_per_user <= run_slots"),
            (
                self.cancel_timeout_s + 2 * self.cleanup_timeout_s + self.goodbye_s + self.shutdown_s
                < self.drain_timeout_s,
                "cancel_timeout_s + 2 * cleanup_timeout_s + goodbye_s + shutdown_s < drain_timeout_s",
            ),
            (4 * self.lease_renew_s <= self.lease_dead_s, "4 * lease_renew_s <= lease_dead_s"),
            (self.lease_dead_s < self.lease_hold_s, "lease_dead_s < lease_hold_s"),
            (self.lease_hold_s < self.lease_ttl_s, "lease_hold_s < lease_ttl_s"),
            (2 * self.job_heartbeat_s < self.job_stalled_s, "2 * job_heartbeat_s < job_stalled_s"),
            (self.job_stop_s <= self.shutdown_s, "job_stop_s <= shutdown_s"),
            (self.heartbeat_s < self.stall_timeout_s, "heartbeat_s < stall_timeout_s"),
            (self.report_s * 2 < self.report_stale_s, "2 * report_s < report_stale_s"),
            (self.revalidate_s < _REVOKED_WITHIN_S, f"revalidate_s < {_REVOKED_WITHIN_S}"),
            (self.shadow_share <= 1, "shadow_share <= 1"),
            (self.proofs_per_user <= self.proofs, "proofs_per_user <= proofs"),
            (self.stalled_after_s < self.stall_timeout_s, "stalled_after_s < stall_timeout_s"),
            (self.closing_s < self.goodbye_s, "closing_s < goodbye_s"),
            (self.command_burst <= self.inbox_commands, "command_burst <= inbox_commands"),
            (self.frame_bytes <= self.inbox_bytes, "frame_bytes <= inbox_bytes"),
            (
                self.inbox_commands + 2 * self.command_burst < self.waiting_frames,
                "inbox_commands + 2 * command_burst < waiting_frames",
            ),
            (self.connections_per_user <= self.connections, "connections_per_user <= connections"),
            (
                self.guard_failure_limit < 1 < min(self.guard_evidence, self.guard_alarm),
                "guard_failure_limit < 1 < guard_evidence, guard_alarm",
            ),
            (self.guard_baseline_runs <= self.observed_ends, "guard_baseline_runs <= observed_ends"),
            (
                self.connections_per_user <= self.connections_per_address,
                "connections_per_user <= connections_per_address",
            ),
        )

    def models_by_agent(self) -> dict[str, str]:
        """Agent -> model. Raises ConfigurationError."""
        pairs = [pair.partition("=") for pair in self.agent_models.split(",") if pair.strip()]
        if not all(agent.strip() and model.strip() for agent, _, model in pairs):
            raise ConfigurationError(
                f"TURNOUT_AGENT_MODELS is {self.agent_models!r}; it takes agent=provider:model, with commas between"
            )
        if pairs and not self.model:
            raise ConfigurationError("TURNOUT_AGENT_MODELS needs TURNOUT_MODEL, the model of all other agents")
        return {agent.strip(): model.strip() for agent, _, model in pairs}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read every `TURNOUT_*` variable. Raises ConfigurationError naming the variable and what it accepts."""
        values: dict[str, Any] = {}
        for bound in dataclasses.fields(cls):
            text = environment.get(_variable(bound.name))
            if text is not None:
                values[bound.name] = _read(_variable(bound.name), text, bound.default)
        return cls(**values)


def _variable(name: str) -> str:
    return f"TURNOUT_{name.upper()}"


def _read(variable: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "0": False, "false": False}[text.strip().lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigurationError(f"{variable} is {text!r}; it takes {kind}") from None
    return text.strip()
