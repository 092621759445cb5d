// The page of the API: sends a call as its form says, and shows what came back. The session is the page's own.

const CSRF_COOKIE = document.body.querySelector("main").dataset.csrfCookie;
const SHOWN_CHARACTERS = 20_000;

function csrfToken() {
  const pairs = document.cookie.split("; ").map((pair) => pair.split("="));
  return pairs.find(([name]) => name === CSRF_COOKIE)?.[1] ?? "";
}

/** Address, headers and body as the form's fields say. */
function request(form) {
  const { method, path } = form.dataset;
  const query = new URLSearchParams();
  let address = path;
  const headers = { Accept: "application/json" };
  let body;
  for (const field of form.elements) {
    if (!field.name || (!field.value && field.dataset.in !== "path")) continue;
    if (field.dataset.in === "path") address = address.replace(`{${field.name}}`, encodeURIComponent(field.value));
    if (field.dataset.in === "query") query.set(field.name, field.value);
    if (field.dataset.in === "body") {
      headers["Content-Type"] = "application/json";
      body = field.value;
    }
    if (field.dataset.in === "file") {
      body = new FormData();
      body.set(field.name, field.files[0]);
    }
  }
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  return { address: query.size ? `${address}?${query}` : address, options: { method, headers, body } };
}

/** The answer's text as it comes: an event stream is shown while it goes on. */
async function show(response, output) {
  output.textContent = `${response.status} ${response.statusText}\n`;
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  while (reader && output.textContent.length < SHOWN_CHARACTERS) {
    const { done, value } = await reader.read();
    if (done) return;
    output.textContent += value;
  }
  await reader?.cancel();
}

for (const form of document.querySelectorAll("form.tryout")) {
  const output = form.querySelector("output");
  let stop = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    stop?.abort();
    const mine = (stop = new AbortController());
    const { address, options } = request(form);
    output.hidden = false;
    try {
      await show(await fetch(address, { ...options, signal: mine.signal }), output);
    } catch (failure) {
      if (stop === mine) output.textContent += `${failure}`;
    }
  });
  form.addEventListener("reset", () => {
    stop?.abort();
    output.hidden = true;
  });
}
