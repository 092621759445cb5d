"""The bounds of each part, out of the one list: what `Configuration` holds, in the words of the part that obeys it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string

from apps.agents.fetching import FetchLimits
from apps.agents.provider import ModelSettings
from apps.chat.conversation import ChatLimits
from apps.chat.history import HistoryLimits
from apps.execution.limits import JobLimits, LeaseLimits, PlanLimits, Plans, RunLimits
from apps.realtime.connection import ConnectionLimits
from apps.realtime.group_commit import FlushLimits
from apps.realtime.hints import HintLimits
from apps.realtime.log import LogLimits
from apps.realtime.pool import PoolLimits
from apps.realtime.proofs import ProofLimits
from apps.realtime.protocol import Limits, Window
from apps.realtime.publisher import PublisherLimits
from apps.realtime.redaction import Disclosure
from apps.realtime.retention import RetentionLimits
from apps.realtime.segments import SegmentLimits
from apps.vocabulary import Identity
from project.configuration import Configuration, ConfigurationError

_PROOFS_A_LOOK = 500  # compared by one query of a database thread


_SECRET_CHARACTERS = 12  # a shorter key, as local servers take any, could be a word


def pool_limits(bounds: Configuration) -> PoolLimits:
    """Sockets of one process."""
    return PoolLimits(
        connections=bounds.connections,
        connections_per_user=bounds.connections_per_user,
        connections_per_address=bounds.connections_per_address,
        head_poll_s=bounds.head_poll_s,
        revalidate_s=bounds.revalidate_s,
        reconnect_spread_ms=bounds.reconnect_spread_ms,
    )


def proof_limits(bounds: Configuration) -> ProofLimits:
    """Proofs that wait. The longest run, and a minute: by then every message that is ever stored is stored."""
    return ProofLimits(
        waiting=bounds.proofs,
        waiting_per_user=bounds.proofs_per_user,
        batch=_PROOFS_A_LOOK,
        look_s=bounds.proof_look_s,
        patience_s=bounds.run_timeout_s + 60.0,
    )


def log_limits(bounds: Configuration) -> LogLimits:
    """Rows of the log, commits, and what one run may have waiting."""
    return LogLimits(
        segment=SegmentLimits(bounds.segment_events, bounds.segment_bytes),
        flush=FlushLimits(
            bounds.flush_window_min_ms,
            bounds.flush_window_max_ms,
            bounds.commit_events_per_user,
            bounds.commit_bytes_per_user,
            bounds.commit_held_wait_ms,
        ),
        publisher=PublisherLimits(
            waiting_events=bounds.publisher_events,
            waiting_bytes=bounds.publisher_bytes,
            event_bytes=bounds.event_bytes,
            id_characters=bounds.event_id_characters,
            run_events=bounds.run_events,
            run_bytes=bounds.run_bytes,
        ),
    )


def hint_limits(bounds: Configuration) -> HintLimits:
    """How processes tell each other of commits."""
    return HintLimits(
        beat_s=bounds.hint_beat_s,
        silence_s=bounds.hint_silence_s,
        timeout_s=bounds.hint_timeout_s,
        users=bounds.hint_users,
    )


def retention_limits(bounds: Configuration) -> RetentionLimits:
    """What the log keeps of each user; the audit of clean-up judges by it."""
    return RetentionLimits(
        rows=bounds.log_rows_per_user,
        size=bounds.log_bytes_per_user,
        age_s=bounds.log_age_hours * 3_600.0,
        step_rows=bounds.retention_step_rows,
        steps=bounds.retention_steps,
        every_s=bounds.retention_s,
    )


def connection_limits(bounds: Configuration) -> ConnectionLimits:
    """One socket, and what `hello` tells of it."""
    return ConnectionLimits(
        window=Window(bounds.window_events, bounds.window_bytes),
        announced=Limits(
            frame_bytes=bounds.frame_bytes,
            event_bytes=bounds.event_bytes,
            text_bytes=bounds.text_bytes,
            attachments=bounds.attachments_per_run,
            runs=bounds.open_runs_per_user,
        ),
        segment_events=bounds.segment_events,
        segment_bytes=bounds.segment_bytes,
        heartbeat_s=bounds.heartbeat_s,
        stall_timeout_s=bounds.stall_timeout_s,
        subscribe_timeout_s=bounds.subscribe_timeout_s,
        closing_s=bounds.closing_s,
        stalled_after_s=bounds.stalled_after_s,
        lagging_events=bounds.lagging_events,
        waiting_frames=bounds.waiting_frames,
    )


def run_limits(bounds: Configuration) -> RunLimits:
    """Runs of one user and of one process."""
    return RunLimits(
        queued_runs=bounds.queued_runs,
        run_slots_per_user=bounds.run_slots_per_user,
        run_slots=bounds.run_slots,
        run_timeout_s=bounds.run_timeout_s,
        model_calls=bounds.model_calls_per_run,
        approval_timeout_s=bounds.approval_timeout_s,
        cancel_timeout_s=bounds.cancel_timeout_s,
        cleanup_timeout_s=bounds.cleanup_timeout_s,
        history_messages=bounds.history_messages,
        history_bytes=bounds.history_bytes,
        sweep_s=bounds.sweep_s,
    )


def job_limits(bounds: Configuration) -> JobLimits:
    """Wake-ups between machines."""
    return JobLimits(
        heartbeat_s=bounds.job_heartbeat_s,
        stalled_s=bounds.job_stalled_s,
        poll_s=bounds.job_poll_s,
        sweep_s=bounds.job_sweep_s,
        stop_s=bounds.job_stop_s,
    )


def lease_limits(bounds: Configuration) -> LeaseLimits:
    """When a process counts as gone."""
    return LeaseLimits(
        renew_s=bounds.lease_renew_s,
        dead_s=bounds.lease_dead_s,
        hold_s=bounds.lease_hold_s,
        ttl_s=bounds.lease_ttl_s,
    )


def default_plan(bounds: Configuration) -> PlanLimits:
    """What a user may hold and use, unless `TURNOUT_PLAN` says otherwise."""
    return PlanLimits(
        open_runs_per_user=bounds.open_runs_per_user,
        waiting_runs_per_user=bounds.waiting_runs_per_user,
        tokens_per_day=bounds.tokens_per_day,
        threads_per_user=bounds.threads_per_user,
        messages_per_thread=bounds.messages_per_thread,
        stored_bytes_per_user=bounds.stored_bytes_per_user,
    )


def plans(bounds: Configuration, dotted_path: str) -> Plans:
    """The one callable that knows every user's plan. Raises ConfigurationError for a path that names none."""
    default = default_plan(bounds)
    if not dotted_path:
        return lambda _identity: default
    try:
        chosen = import_string(dotted_path)
    except ImportError as error:
        raise ConfigurationError(f"TURNOUT_PLAN is {dotted_path!r}, which cannot be imported: {error}") from error
    if not callable(chosen):
        raise ConfigurationError(
            f"TURNOUT_PLAN names {dotted_path}, which is no callable (identity, default) -> limits"
        )

    def plan(identity: Identity) -> PlanLimits:
        limits = chosen(identity, default)
        if not isinstance(limits, PlanLimits):
            raise TypeError(f"TURNOUT_PLAN's {dotted_path} gave a {type(limits).__name__}; it gives PlanLimits")
        return limits

    return plan


def history_limits(bounds: Configuration) -> HistoryLimits:
    """What an agent is told of the conversation so far."""
    return HistoryLimits(messages=bounds.history_messages, size=bounds.history_bytes)


def chat_limits(bounds: Configuration) -> ChatLimits:
    """What every user may send and keep alike."""
    return ChatLimits(
        text_bytes=bounds.text_bytes,
        receipt_hours=bounds.receipt_hours,
    )


def disclosure(bounds: Configuration) -> Disclosure:
    """What users may see of agents' insides, and the installation's own key, which nobody may."""
    key = bounds.model_api_key
    secrets = (key,) if len(key) >= _SECRET_CHARACTERS else ()
    return Disclosure(reasoning=bounds.show_reasoning, subagents=bounds.show_subagents, secrets=secrets)


def model_settings(bounds: Configuration) -> ModelSettings:
    """The model that `assistant` uses."""
    return ModelSettings(
        model=bounds.model,
        base_url=bounds.model_base_url,
        api_key=bounds.model_api_key,
        timeout_s=bounds.model_timeout_s,
        stall_timeout_s=bounds.model_stall_timeout_s,
        connect_timeout_s=bounds.model_connect_timeout_s,
        retries=bounds.model_tries - 1,
        answer_tokens=bounds.model_answer_tokens,
        response_bytes=bounds.model_answer_bytes,
        connections=bounds.model_connections,
        by_agent=bounds.models_by_agent(),
    )


def fetch_limits(bounds: Configuration) -> FetchLimits | None:
    """What the tool that reads the web may take; None where it is off."""
    if not bounds.fetch_tool:
        return None
    return FetchLimits(timeout_s=bounds.fetch_timeout_s, bytes=bounds.fetch_bytes, redirects=bounds.fetch_redirects)


def witness_file(bounds: Configuration, database: Mapping[str, Any]) -> Path | None:
    """Where a process remembers how far the database was. None: in memory alone, as nobody named a file."""
    if bounds.witness_file:
        return Path(bounds.witness_file)
    name = str(database["NAME"])
    in_file = database["ENGINE"] == "project.sqlite" and not name.startswith((":memory:", "file:"))
    return Path(f"{name}.witness") if in_file else None
