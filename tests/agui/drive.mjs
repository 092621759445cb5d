// Drives the stock AG-UI client as one scenario says, and prints what it saw as one line of JSON.
import { HttpAgent } from "@ag-ui/client";

const { url, token, steps } = JSON.parse(process.argv[2]);
const headers = { Authorization: `Bearer ${token}` };

// The stream of a thread is asked for by GET; everything else is the stock client's.
class FollowingAgent extends HttpAgent {
  requestInit() {
    return { method: "GET", headers: { ...this.headers, Accept: "text/event-stream" }, signal: this.abortController.signal };
  }
}

function watching(agent, seen, step) {
  return {
    onEvent({ event }) {
      seen.push(event);
      if (step.abort_at && seen.filter((one) => one.type === step.abort_at).length === 1) agent.abortRun();
    },
  };
}

const agents = new Map();
const results = [];
for (const step of steps) {
  const known = agents.get(step.agent);
  const kind = step.follow ? FollowingAgent : HttpAgent;
  const agent = known ?? new kind({ url: url + step.path, headers, threadId: step.thread_id });
  agents.set(step.agent, agent);
  agent.url = url + step.path;
  if (step.say) agent.addMessage({ id: crypto.randomUUID(), role: "user", content: step.say });
  const seen = [];
  let error = null;
  try {
    await agent.runAgent({ ...(step.parameters ?? {}) }, watching(agent, seen, step));
  } catch (failure) {
    error = { message: String(failure.message), status: failure.status ?? null, payload: failure.payload ?? null };
  }
  results.push({ events: seen, messages: structuredClone(agent.messages), error });
}
console.log(JSON.stringify(results));
process.exit(0);
