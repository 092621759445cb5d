"""The ways in which systems of this kind have leaked, by number, and the tests that look for each of them here.

`file::test`, below tests/. A class names every test that would fail if it came back; `test_leak_classes.py` holds that
each of them is there.
"""

EVERYWHERE = "promises/test_isolation_everywhere.py::test_no_sink_holds_anything_of_another_user"
CONTROL = "legacy/test_leaks_end_to_end.py::test_the_same_search_finds_the_leaks_of_the_singletons"
MATRIX = "authorisation/test_matrix.py::"
HERE = "promises/test_leak_classes.py::"
SERVED = "promises/test_leaks_of_a_server.py::"

LEAK_CLASSES: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "agent or history on a shared instance",
        (
            EVERYWHERE,
            CONTROL,
            "execution/test_factory.py::test_each_run_gets_an_engine_of_its_own_and_the_count_falls_when_it_is_left",
            "agents/test_registry.py::test_every_run_gets_an_instance_of_its_own",
            "test_house.py::test_no_module_holds_what_could_pass_from_one_user_to_another",
        ),
    ),
    2: (
        "mutable default arguments, class attributes, caches on methods",
        (
            HERE + "test_2_the_linter_refuses_what_calls_or_instances_would_share",
            "agents/test_registry.py::test_running_agents_changes_nothing_in_the_registry",
        ),
    ),
    3: (
        "context variables left from an earlier task",
        (
            SERVED + "test_3_a_connection_that_served_one_user_serves_the_next_as_themselves",
            "test_house.py::test_identity_travels_as_an_argument_and_control_flow_in_no_signal",
        ),
    ),
    4: ("thread-locals", (HERE + "test_4_one_thread_serves_fifty_users_and_keeps_nothing_of_them",)),
    5: (
        "a cancelled await on a pooled connection",
        (
            HERE + "test_5_cancelled_calls_leave_nobody_an_answer_of_another",
            HERE + "test_5_cancelled_answers_of_a_model_leave_nobody_an_answer_of_another",
            "realtime/test_cuts.py::test_a_link_that_breaks_at_any_statement_of_a_commit_loses_and_doubles_nothing",
        ),
    ),
    6: (
        "scope or environment shared by two requests",
        (SERVED + "test_6_a_run_outlives_its_socket_and_stays_its_owners",),
    ),
    7: (
        "a cache key without the user, or with part of it",
        (
            "realtime/test_reader.py::test_many_requests_are_answered_as_each_by_itself_would_be",
            "chat/test_authentication.py::test_part_of_a_token_is_no_token",
        ),
    ),
    8: (
        "composite keys joined without escape",
        (
            HERE + "test_8_ids_that_join_to_the_same_text_are_different_commands",
            HERE + "test_8_threads_and_runs_of_stock_clients_that_join_to_the_same_text_are_different",
        ),
    ),
    9: ("normalised names collide", (SERVED + "test_9_users_whose_names_look_alike_are_different_users",)),
    10: ("a default identity", (HERE + "test_10_nothing_that_touches_a_users_data_knows_a_default_user",)),
    11: (
        "ids enumerated, ownership unchecked",
        (
            MATRIX + "test_every_address_answers_each_reader_as_its_row_says",
            MATRIX + "test_anothers_id_and_an_unknown_one_are_answered_alike",
            "faults/test_hostile_frames.py::test_58_what_belongs_to_another_user_is_answered_like_what_does_not_exist",
        ),
    ),
    12: ("resuming with another's place", (SERVED + "test_12_a_position_of_another_user_resumes_nothing",)),
    13: (
        "rights kept after they changed",
        ("chat/test_authentication.py::test_a_session_ends_when_it_is_ended_anywhere_and_for_that_user_alone",),
    ),
    14: (
        "another person in the same browser",
        (
            "browser/test_connection.py::test_the_next_person_in_the_same_tab_finds_no_word_of_the_last",
            "browser/test_connection.py::test_a_tab_whose_user_logged_out_shows_nothing_any_more",
            "browser/test_connection.py::test_a_tab_that_comes_back_as_somebody_else_begins_anew",
        ),
    ),
    15: (
        "tool calls routed by what the client names",
        (
            "chat/test_decisions.py::test_nobody_else_can_decide",
            "agents/test_tools.py::test_after_the_run_its_tools_refuse_every_use",
        ),
    ),
    16: (
        "state of tools: cookies, folders, environment",
        (
            "agents/test_provider.py::test_a_cookie_of_one_users_answer_goes_out_with_nobodys_request",
            HERE + "test_16_no_agent_or_tool_touches_a_folder_or_the_environment",
        ),
    ),
    17: (
        "error messages and debug pages",
        (EVERYWHERE, "chat/test_http.py::test_a_fault_of_ours_is_a_reference_and_no_trace"),
    ),
    18: ("log lines and traces", (EVERYWHERE,)),
    19: (
        "labels of metrics",
        (
            EVERYWHERE,
            "operations/test_metrics.py::test_no_label_names_a_user_a_thread_or_a_run",
            SERVED + "test_19_metrics_have_no_series_more_for_any_user",
        ),
    ),
    20: (
        "admin, exports, searches",
        (
            EVERYWHERE,
            "chat/test_admin.py::test_staff_without_the_permission_to_read_see_rows_and_no_words",
            "chat/test_admin.py::test_staff_who_may_view_nothing_see_nothing",
            MATRIX + "test_every_address_answers_each_reader_as_its_row_says",
        ),
    ),
    21: ("more sent than shown", (EVERYWHERE,)),
    22: (
        "caches of HTTP",
        (
            MATRIX + "test_what_a_user_is_told_is_kept_by_no_cache",
            "chat/test_http.py::test_every_answer_is_private",
        ),
    ),
    23: (
        "shadow runs",
        (
            "project/test_shadowing.py::test_at_shadow_legacy_serves_the_factory_replays_and_the_bridges_leak_becomes_a_number",
            "rollout/test_comparison.py::test_a_shape_says_where_streams_begin_to_differ_and_nothing_of_what_was_said",
        ),
    ),
    24: (
        "what the provider is told",
        (
            EVERYWHERE,
            "agents/test_provider.py::test_the_request_holds_instructions_history_tools_and_no_name_of_user_or_thread",
        ),
    ),
    25: (
        "buffers that users share in a process",
        (
            "realtime/test_commit.py::test_a_lone_surrogate_fails_its_own_run_only",
            "realtime/test_commit.py::test_a_nul_reaches_nobody_else",
            "realtime/test_commit.py::test_a_run_of_another_user_is_refused_and_writes_to_neither",
            "realtime/test_commit.py::test_four_writers_at_once_store_everything_once",
        ),
    ),
    26: (
        "remembered replies",
        (
            "chat/test_receipts.py::test_an_id_of_one_user_is_free_for_another",
            "faults/test_hostile_frames.py::test_55_56_an_id_belongs_to_its_user_and_to_one_content",
        ),
    ),
    27: (
        "numbers of others in errors and counters",
        (SERVED + "test_27_bounds_and_places_are_told_without_a_number_of_anybody_else",),
    ),
}
