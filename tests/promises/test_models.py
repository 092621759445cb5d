"""The chat against a model server on loopback: one setting away, and its faults end in one clear RUN_ERROR."""

import json

import httpx

from tests.agents import fake_provider as fake
from tests.serving import ServerProcess


async def say(server, token, text, agent="assistant"):
    body = {"threadId": "t", "runId": text, "messages": [{"id": "m", "role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
        answer = await http.post(f"/api/agui/{agent}", json=body)
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_a_local_model_server_answers_and_each_of_its_faults_ends_in_one_error(tmp_path, migrated):
    async with fake.fake_provider() as provider:
        model = {"TURNOUT_MODEL": "openai:local", "TURNOUT_MODEL_BASE_URL": provider.url}
        bounds = {"TURNOUT_MODEL_TRIES": "1", "TURNOUT_MODEL_STALL_TIMEOUT_S": "1"}
        bounds["TURNOUT_MODEL_ANSWER_BYTES"] = "100000"
        key = {"TURNOUT_MODEL_API_KEY": "local-key-0001"}
        server = ServerProcess(tmp_path, migrated, {**model, **bounds, **key})
        token = server.token("ann")
        server.start()
        try:
            provider.script.append(fake.says("Forty", "-two, says local-key-", "0001."))
            events = await say(server, token, "What is 6 * 7?")
            text = "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
            assert text == "Forty-two, says [removed]."
            assert events[-1]["usage"][0]["totalTokens"] == 18
            for name, fault in {
                "429": fake.fails("429 Too Many Requests", "{}"),
                "500": fake.fails("500 Oops", '{"error": "sk-hunter2"}'),
                "hang": fake.stalls("half"),
                "cut": fake.breaks_off("half"),
                "large": fake.floods(),
                "garbage": fake.sends(b"data: [1]\n\n"),
            }.items():
                provider.script.append(fault)
                events = await say(server, token, name)
                ends = [event for event in events if event["type"] in ("RUN_ERROR", "RUN_FINISHED")]
                assert [end.get("code") for end in ends] == ["unavailable"], name
                reference = ends[0]["message"].partition("Reference: ")[2].rstrip(".")
                assert reference
                assert any(reference in line for line in server.output), name
                assert "hunter2" not in ends[0]["message"]
            assert server.stop() == 0
        finally:
            server.kill()
    assert "local-key-0001" not in "".join(server.output)


def test_a_model_without_its_key_stops_the_start_with_one_line(tmp_path, migrated):
    server = ServerProcess(tmp_path, migrated, {"TURNOUT_MODEL": "openai:gpt-5-mini", "OPENAI_API_KEY": ""})
    done = server.manage("serve", "--port", "0")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("CommandError: the model 'openai:gpt-5-mini' needs a key")
    assert "Traceback" not in done.stderr
