// The chat page: talks to /v1 of the gateway it came from, and to /page for votes and saved conversations.
// Nothing that a model or a person wrote is ever taken for HTML: text goes into text nodes.

const find = (id) => document.getElementById(id);
const LIVE_SECONDS = 3;

// One conversation with one model; two of them side by side when comparing.
const state = { sides: [], about: { saves: false }, busy: null, voted: true, id: crypto.randomUUID?.() ?? newId() };

function newId() { // randomUUID is only there on a secure origin
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A sentence for each way of failing; the gateway's codes are in docs/serving.md.
const SENTENCES = {
  model_not_found: "This model is not there any more. Choose another one.",
  no_worker_ready: "No machine with this model is ready just now; one may be on its way. Try again in a few seconds.",
  overloaded: "Every machine with this model is busy. Try again in a few seconds.",
  worker_lost: "The machine that was answering went away, and this answer could not go on elsewhere. Regenerate asks again.",
  stopping: "The gateway is being stopped. Try again in a moment.",
  invalid_api_key: "The API key is missing or wrong. It goes into Settings.",
  rate_limited: "You have used up what your key may ask for at the moment. Try again in a minute.",
  moderated: "This was not sent to the model, because the moderation in front of it flagged it.",
  moderation_down: "This was not sent to the model, because the moderation in front of it does not answer.",
  body_too_large: "This conversation has become too long to send. Clear begins a new one.",
  context_length_exceeded: "This conversation has become longer than the model can read. Clear begins a new one.",
};
const NO_GATEWAY = "The gateway does not answer. Is it running, and are you online?";
const BROKEN_OFF = "The connection to the gateway broke off in the middle of the answer. Regenerate asks again.";

class Failure extends Error {}

function headers() {
  const key = find("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function failureOf(answer) {
  let error = {};
  try { error = (await answer.json()).error ?? {}; } catch { /* not ours: the status has to do */ }
  return new Failure(sentenceOf(error) ?? `The gateway refused this (status ${answer.status}).`);
}

const sentenceOf = (error) => SENTENCES[error.code] ?? error.message;

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new Failure(NO_GATEWAY);
  }
  if (!answer.ok) throw await failureOf(answer);
  return answer;
}

// Pieces of an answer as they come. Throws Failure where it does not come whole.
async function* pieces(model, messages, signal) {
  const body = {
    model, messages, stream: true,
    temperature: Number(find("temperature").value), top_p: Number(find("top_p").value),
    max_tokens: Number(find("max_tokens").value),
  };
  const answer = await call("/v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
  let rest = "", over = false;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  while (!over) {
    let chunk;
    try { chunk = await reader.read(); } catch (failure) {
      if (failure.name === "AbortError") throw failure;
      throw new Failure(BROKEN_OFF);
    }
    if (chunk.done) throw new Failure(BROKEN_OFF);
    const lines = (rest + chunk.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") { over = true; break; }
      const event = JSON.parse(data);
      if (event.error) throw new Failure(sentenceOf(event.error));
      const piece = event.choices?.[0]?.delta?.content;
      if (piece) yield piece;
    }
  }
}

// Text with ``` blocks as such; everything else as it was written.
function write(element, text) {
  element.replaceChildren(...text.split("```").map((part, index) => {
    const block = document.createElement(index % 2 ? "pre" : "p");
    block.textContent = index % 2 ? part.replace(/^[^\n]*\n/, "") : part.trim();
    return block;
  }).filter((block) => block.textContent || block.tagName === "P"));
}

function draw() {
  find("sides").replaceChildren(...state.sides.map((side, index) => {
    const column = document.createElement("section");
    column.className = state.sides.length === 1 ? "side single" : "side";
    const title = document.createElement("h2");
    const letter = "AB"[index];
    title.textContent = state.sides.length === 1 ? side.model ?? "" : state.voted && side.messages.length ? `${letter}: ${side.model}` : letter;
    column.append(title);
    if (!side.messages.length) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = state.sides.length === 1 ? "Ask something." : "Ask both something; vote, and see who they are.";
      column.append(empty);
    }
    for (const message of side.messages) {
      const turn = document.createElement("div");
      turn.className = `turn ${message.role}${message.going ? " going" : ""}`;
      write(turn, message.content);
      if (message.failure) {
        const failure = document.createElement("p");
        failure.className = "failure";
        failure.textContent = message.failure;
        turn.append(failure);
      }
      column.append(turn);
      message.element = turn;
    }
    side.column = column;
    return column;
  }));
  for (const side of state.sides) side.column.scrollTop = side.column.scrollHeight;
  buttons();
}

function buttons() {
  const begun = state.sides.some((side) => side.messages.length);
  find("send").hidden = Boolean(state.busy);
  find("stop").hidden = !state.busy;
  find("again").disabled = Boolean(state.busy) || !begun || (comparing() && state.voted);
  find("clear").disabled = Boolean(state.busy) || !begun;
  find("model").disabled = comparing();
  find("compare").disabled = Boolean(state.busy) || (names().length < 2 && !comparing());
  find("votes").hidden = !(comparing() && begun && !state.busy && !state.voted);
}

const comparing = () => find("compare").checked;
const names = () => Array.from(find("model").options, (option) => option.value);

// What was said, without what only the page knows.
const said = (side) => side.messages.filter((m) => m.content && !m.going).map(({ role, content }) => ({ role, content }));

async function answer(side) {
  const system = find("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...said(side)];
  const turn = { role: "assistant", content: "", going: true };
  side.messages.push(turn);
  draw();
  try {
    for await (const piece of pieces(side.model, messages, state.busy.signal)) {
      turn.content += piece;
      const low = side.column.scrollHeight - side.column.scrollTop - side.column.clientHeight < 40;
      write(turn.element, turn.content);
      if (low) side.column.scrollTop = side.column.scrollHeight;
    }
  } catch (failure) {
    if (failure.name !== "AbortError") {
      if (!(failure instanceof Failure)) throw failure;
      turn.failure = failure.message;
    }
  } finally {
    turn.going = false;
  }
}

async function answerAll() {
  state.busy = new AbortController();
  if (comparing()) state.voted = false;
  notice("");
  try {
    await Promise.all(state.sides.map(answer));
  } finally {
    state.busy = null;
    if (comparing() && state.sides.every((side) => side.messages.at(-1).failure)) state.voted = true;
    draw();
  }
  await save();
}

async function send(event) {
  event?.preventDefault();
  const text = find("text").value.trim();
  if (!text || state.busy) return;
  if (comparing() && (!state.sides[0].messages.length || state.voted)) pair();
  if (!comparing()) state.sides[0].model = find("model").value;
  if (state.sides.some((side) => !side.model)) { notice(SENTENCES.no_worker_ready); return; }
  find("text").value = "";
  for (const side of state.sides) side.messages.push({ role: "user", content: text });
  await answerAll();
}

async function again() {
  for (const side of state.sides) {
    while (side.messages.at(-1)?.role === "assistant") side.messages.pop();
    if (!comparing()) side.model = find("model").value;
  }
  await answerAll();
}

// Two different models in an order that says nothing, and nothing said yet.
function pair() {
  const left = names();
  state.sides = [0, 1].map(() => {
    const at = Math.floor(Math.random() * left.length);
    return { model: left.splice(at, 1)[0], messages: [] };
  });
  state.id = newId();
}

function begin() {
  if (comparing()) pair(); else state.sides = [{ model: find("model").value, messages: [] }];
  state.id = newId();
  state.voted = true;
  find("saved").textContent = "";
  notice("");
  draw();
}

async function vote(winner) {
  const consent = find("consent").checked;
  const body = {
    id: state.id, winner, models: state.sides.map((side) => side.model),
    conversations: consent ? state.sides.map(said) : [],
  };
  try {
    await call("/page/votes", { method: "POST", body: JSON.stringify(body) });
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    notice(failure.message);
    return;
  }
  state.voted = true;
  find("saved").textContent = "Thank you. These were the names.";
  draw();
}

async function save() {
  if (!state.about.saves || !find("consent").checked || comparing()) return;
  const [side] = state.sides;
  if (!side.messages.length || side.messages.at(-1).failure || state.busy) return;
  const system = find("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...said(side)];
  try {
    await call("/page/conversations", {
      method: "POST", body: JSON.stringify({ id: state.id, model: side.model, consent: true, messages }),
    });
    find("saved").textContent = "Saved.";
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    find("saved").textContent = failure.message;
  }
}

function notice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

// The list of models as it is now, by the gateway.
async function live() {
  try {
    const listed = (await (await call("/v1/models")).json()).data.map((model) => model.id);
    const select = find("model"), chosen = select.value;
    if (listed.join("\n") !== names().join("\n")) {
      select.replaceChildren(...listed.map((name) => new Option(name, name, false, name === chosen)));
      if (!comparing() && !state.busy && state.sides.every((side) => !side.messages.length)) begin();
    }
    find("live").textContent = listed.length ? `${listed.length} ${listed.length === 1 ? "model" : "models"} ready` : "No model is ready yet.";
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    find("live").textContent = failure.message;
  }
  buttons();
}

find("ask").addEventListener("submit", send);
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
find("stop").addEventListener("click", () => state.busy?.abort());
find("again").addEventListener("click", again);
find("clear").addEventListener("click", begin);
find("compare").addEventListener("change", begin);
find("model").addEventListener("change", () => { if (!state.busy && !comparing()) { state.sides[0].model = find("model").value; draw(); } });
find("consent").addEventListener("change", save);
find("key").addEventListener("change", () => { sessionStorage.setItem("key", find("key").value); live(); });
for (const button of document.querySelectorAll("[data-vote]")) button.addEventListener("click", () => vote(button.dataset.vote));

find("key").value = sessionStorage.getItem("key") ?? "";
begin();
await live();
try {
  state.about = await (await call("/page/about")).json();
} catch (failure) {
  if (!(failure instanceof Failure)) throw failure;
}
find("consent-line").hidden = !state.about.saves;
buttons();
const again_and_again = async () => { await live(); setTimeout(again_and_again, LIVE_SECONDS * 1000); };
setTimeout(again_and_again, LIVE_SECONDS * 1000);
