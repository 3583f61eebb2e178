// The page: reads the API once, then follows the event stream. Everything that comes from
// outside is put in as text, never as markup.
"use strict";

const MAX_ROWS = 60;     // cards on the page
const MAX_KEPT = 500;    // rows kept for filtering
const MAX_WORKLOADS = 40; // rows of workloads
const LOOK_EVERY = 5000; // ms between looks at workloads
const DRAW_EVERY = 250;  // ms between redraws

const FAMILY = {
  memory_reclaim: "memory", oom_kill: "memory", block_throttle: "block", block_queue: "block",
  block_device: "block", tcp_connect: "net", tcp_rtt: "net", tcp_retransmit: "net",
  net_drop: "net", virtqueue: "net", conntrack: "net", seccomp_denied: "seccomp",
};
const ORDER = ["cpu_throttle", "runqueue", "steal", "kvm_exit", "memory_reclaim", "oom_kill",
  "block_throttle", "block_queue", "block_device", "tcp_connect", "tcp_rtt", "tcp_retransmit",
  "net_drop", "virtqueue", "conntrack", "seccomp_denied", "lock_wait", "sleep", "socket_wait",
  "on_cpu", "unexplained", "downstream"];

const $ = (id) => document.getElementById(id);
const rows = { verdicts: [], spans: [] };
const seen = { verdicts: new Set(), spans: new Set() };
const cards = new Map();
const held = [];          // rows that came while paused
let host = null;
let known = { layers: [], places: [], causes: [] };  // what api/v1/layers says
let paused = false;
let drawn = 0;           // time of the last redraw
let timer = 0;

// What others chose is shown, and obeyed by nobody: a character that would do more than show itself
// is written as its number, as in the terminal. Everything that the API says is read by this.
const BENDS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const visible = (text) => text.replace(BENDS, (c) => "\\u{" + c.charCodeAt(0).toString(16) + "}");
const read = (json) => JSON.parse(json, (_, value) => typeof value === "string" ? visible(value) : value);

function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

function tone(e, cause) {
  if (ORDER.includes(cause)) {
    e.style.setProperty("--tone", "var(--" + (FAMILY[cause] || cause) + ")");
  }
  return e;
}

function ms(v) {
  if (!(v >= 0)) return "–";
  if (v >= 10000) return (v / 1000).toFixed(1) + " s";
  if (v >= 1000) return (v / 1000).toFixed(2) + " s";
  if (v >= 100) return v.toFixed(0) + " ms";
  if (v >= 1) return v.toFixed(1) + " ms";
  return (v * 1000).toFixed(0) + " µs";
}

const percent = (v) => Math.round(v * 100) + " %";
const words = (cause) => cause.replaceAll("_", " ");

// Milliseconds of a decimal string of nanoseconds; a Number would lose digits before this.
function clock(nanos) {
  const d = new Date(Number(BigInt(nanos) / 1000000n));
  const p = (n, w) => String(n).padStart(w, "0");
  return p(d.getHours(), 2) + ":" + p(d.getMinutes(), 2) + ":" + p(d.getSeconds(), 2) + "." + p(d.getMilliseconds(), 3);
}

// ---- what words mean ------------------------------------------------------------------

// A cause or a place that says what it means when it is asked.
function word(id, text) {
  const b = el("button", "word", text);
  b.type = "button";
  b.title = "What " + words(id) + " means, and what to do";
  b.addEventListener("click", (e) => { e.preventDefault(); explain(id); });
  return b;
}

function points(body, title, list) {
  if (!list || !list.length) return;
  const ul = el("ul");
  for (const text of list) ul.append(el("li", "", text));
  body.append(el("h3", "", title), ul);
}

function explain(id) {
  const cause = known.causes.find((c) => c.id === id);
  const place = [...known.layers, ...known.places].find((p) => p.id === id);
  const body = $("help-body");
  body.replaceChildren();
  // "downstream" is both a cause and a place: both are told.
  $("help-title").textContent = place ? place.id + ": " + place.title : words(id);
  if (cause) {
    body.append(el("p", "", cause.means));
    // What a sentence would be filled with is shown by its name.
    points(body, "What to do", cause.remedies.map((r) => (r.at ? "In " + r.at.join(", ") + ": " : "") + r.say.replace(/\{(\w+)\}/g, "‹$1›")));
    points(body, "Where the fault is then", cause.faults);
    points(body, "Metrics", cause.metrics);
  }
  if (place) {
    body.append(el("p", "", place.about));
    points(body, "Boundary", [place.boundary]);
    points(body, "How it fails", place.fails);
    points(body, "What to do", place.actions);
    if (place.network) points(body, "Its slice of the network", [place.network.devices.join(", ") + ": " + place.network.faults]);
    points(body, "Causes", place.causes.map(words));
  }
  if (!cause && !place) body.append(el("p", "", "Nothing is known of it."));
  points(body, "Log lines", [...(cause ? cause.log_lines : []), ...(place ? place.log_lines : [])].slice(0, 8).map((l) => l.meaning + ": " + l.line));
  $("help").showModal();
}

// ---- one span -------------------------------------------------------------------------

function partsOf(row) {
  const parts = ORDER.filter((c) => row.split[c] > 0).map((c) => [c, row.split[c]]);
  if (row.downstream_ms > 0 && !(row.split.downstream > 0)) parts.push(["downstream", row.downstream_ms]);
  return parts;
}

function bar(parts) {
  const total = parts.reduce((sum, [, v]) => sum + v, 0);
  const b = el("div", "bar");
  b.setAttribute("role", "img");
  b.setAttribute("aria-label", "Split: " + parts.map(([c, v]) => words(c) + " " + ms(v)).join(", "));
  for (const [cause, v] of parts) {
    const i = tone(el("i", cause), cause);
    i.style.width = (100 * v / total) + "%";
    i.title = words(cause) + " " + ms(v) + " (" + percent(v / total) + ")";
    b.append(i);
  }
  return b;
}

function when(row) {
  const w = el("div", "when");
  const n = row.intervals.length;
  w.setAttribute("role", "img");
  w.setAttribute("aria-label", n + " stretches in time, from the span's start to its end");
  for (const iv of row.intervals) {
    const i = tone(el("i"), iv.cause);
    const start = Math.min(Math.max(iv.start_ms / row.duration_ms, 0), 1);
    const end = Math.min(Math.max(iv.end_ms / row.duration_ms, start), 1);
    i.style.left = (100 * start) + "%";
    i.style.width = (100 * (end - start)) + "%";
    i.title = iv.fault + " " + words(iv.cause) + ", " + ms(iv.start_ms) + " to " + ms(iv.end_ms) + " after the start, " + ms(iv.cause_ms);
    w.append(i);
  }
  const axis = el("div", "axis");
  axis.setAttribute("aria-hidden", "true");
  axis.append(el("span", "", "start"), el("span", "", n + (n === 1 ? " stretch" : " stretches") + " in time"), el("span", "", ms(row.duration_ms)));
  const both = document.createDocumentFragment();
  both.append(w, axis);
  return both;
}

function fact(list, name, value) {
  if (value === "" || value === null || value === undefined) return;
  list.append(el("dt", "", name));
  const dd = el("dd");
  dd.append(value);
  list.append(dd);
}

function traceLine(row) {
  const line = document.createDocumentFragment();
  const id = traceLink(row.trace_id, "");
  id.append(el("code", "", row.trace_id));
  line.append(id);
  const copy = el("button", "", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", "Copy the trace id");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(row.trace_id);
      copy.textContent = "Copied";
    } catch {
      // Without a secure context there is no clipboard: select it for the user instead.
      getSelection().selectAllChildren(copy.previousSibling);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  line.append(copy);
  const base = host && /^https?:\/\//.test(host.jaeger_url) ? host.jaeger_url.replace(/\/+$/, "") : "";
  if (base && /^[0-9a-f]{32}$/.test(row.trace_id)) {
    const a = el("a", "out", "In Jaeger");
    a.href = base + "/trace/" + row.trace_id;
    a.rel = "noopener noreferrer";
    a.target = "_blank";
    line.append(a);
  }
  return line;
}

function details(row, answer) {
  const box = el("details", "more");
  box.append(el("summary", "", "Evidence and trace"));
  const list = el("dl", "grid");
  if (answer) {
    fact(list, "Culprit", answer.culprit);
    fact(list, "Incident", answer.incident);
    const evidence = Object.entries(answer.evidence);
    fact(list, "Evidence", evidence.map(([k, v]) => k + " = " + Number(v.toPrecision(5))).join(", "));
  }
  fact(list, "Workload", row.workload);
  fact(list, "Stack", row.stack ? el("code", "", row.stack) : "");
  fact(list, "Joined by", words(row.confidence));
  fact(list, "Self time", row.self_time_ms === null ? "not judged" : ms(row.self_time_ms) + " of " + ms(row.duration_ms));
  fact(list, "Trace", traceLine(row));
  fact(list, "Span", el("code", "", row.span_id));
  box.append(list);
  return box;
}

function card(row, answer) {
  const c = el("article", answer ? "card bad new" : "card new");
  const head = el("div", "head");
  const title = el("h3");
  title.append(el("span", "svc", row.service || "(no service.name)"), el("span", "sep", "›"), el("span", "op", row.operation || "(no name)"));
  head.append(title, el("span", "dur", ms(row.duration_ms)));
  if (row.status === "error") head.append(el("span", "err", "error"));
  head.append(traceLink(row.trace_id, "Trace"));
  const time = el("time", "time", clock(row.start_unix_nano));
  head.append(time);
  c.append(head);
  if (answer) {
    tone(c, answer.cause);
    const line = el("div", "answer");
    const badge = el("span", "badge");
    badge.append(word(answer.fault, answer.fault), " ", word(answer.cause, answer.cause), " " + percent(answer.share));
    line.append(badge);
    if (answer.culprit) line.append(el("span", "by", "by " + answer.culprit));
    c.append(line, el("p", "summary", answer.summary));
    if (answer.remedy) {
      const remedy = el("p", "remedy");
      remedy.append(el("span", "", "What to do: "), answer.remedy);
      c.append(remedy);
    }
  }
  const parts = partsOf(row);
  if (parts.length) {
    c.append(bar(parts));
    if (row.intervals.length && row.duration_ms > 0) c.append(when(row));
    const list = el("ul", "parts");
    for (const [cause, v] of parts) {
      const li = el("li");
      li.append(tone(keyOf(cause), cause), word(cause, words(cause)), el("span", "ms", ms(v)));
      list.append(li);
    }
    c.append(list);
  }
  c.append(details(row, answer));
  return c;
}

function keyOf(cause) {
  const k = el("span", "key " + cause);
  k.setAttribute("aria-hidden", "true");
  if (cause !== "downstream" && cause !== "unexplained") k.style.background = "var(--tone)";
  return k;
}

// ---- the list -------------------------------------------------------------------------

const keyOfRow = (row) => row.trace_id + row.span_id + row.start_unix_nano;

function add(kind, row) {
  const key = keyOfRow(row);
  if (seen[kind].has(key)) return;
  seen[kind].add(key);
  rows[kind].unshift(row);
  if (rows[kind].length > MAX_KEPT) seen[kind].delete(keyOfRow(rows[kind].pop()));
}

// While paused, what comes is held back: the page stands still.
function take(kind, row) {
  if (!paused) add(kind, row);
  else if (!seen[kind].has(keyOfRow(row))) {
    held.push([kind, row]);
    if (held.length > 2 * MAX_KEPT) held.shift();
  }
  later();
}

function draw() {
  timer = 0;
  drawn = performance.now();
  const kind = document.querySelector("input[name=show]:checked").value;
  const service = $("service").value;
  const cause = $("cause").value;
  const all = rows[kind];
  const waiting = new Set(held.filter(([k]) => k === kind).map(([, r]) => keyOfRow(r))).size;
  const wanted = all.filter((r) => {
    const answer = kind === "verdicts" ? r : r.verdict;
    return (!service || r.service === service) && (!cause || (answer && answer.cause === cause));
  });
  const shown = wanted.slice(0, MAX_ROWS);
  // Cards that stay are kept, so that an open one stays open and focus is not lost.
  const keep = new Set(shown.map((r) => kind + keyOfRow(r)));
  for (const [key, node] of cards) if (!keep.has(key)) { node.remove(); cards.delete(key); }
  const list = $("list");
  let at = list.firstChild;
  for (const row of shown) {
    const key = kind + keyOfRow(row);
    let node = cards.get(key);
    if (!node) { node = card(row, kind === "verdicts" ? row : row.verdict); cards.set(key, node); }
    if (node === at) at = at.nextSibling; else list.insertBefore(node, at);
  }
  options($("service"), new Set(all.map((r) => r.service)));
  options($("cause"), new Set(all.map((r) => (kind === "verdicts" ? r : r.verdict || {}).cause).filter(Boolean)));
  $("count").textContent = wanted.length === 0 ? "" :
    shown.length + (kind === "verdicts" ? " latest verdicts" : " latest spans")
    + (shown.length < wanted.length ? " of " + wanted.length : "")
    + (waiting ? ", " + waiting + " more since the pause" : "");
  empty(kind, all.length, wanted.length);
}

function later() {
  if (!timer) timer = setTimeout(draw, Math.max(0, DRAW_EVERY - (performance.now() - drawn)));
}

function options(select, values) {
  if (select === document.activeElement) return;
  if (select.value) values.add(select.value);
  const want = [...values].sort();
  const have = [...select.options].slice(1).map((o) => o.value);
  if (want.join("\n") === have.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0]);
  for (const v of want) { const o = el("option", "", v || "(no service.name)"); o.value = v; select.append(o); }
  select.value = chosen;
}

function empty(kind, total, wanted) {
  const box = $("empty");
  // Before the first answer nothing is known, and nothing is said.
  const why = wanted || !host ? "" : total ? "filter" : kind === "verdicts" && rows.spans.length ? "healthy" : "none";
  box.hidden = !why;
  if (box.dataset.why === why) return;
  box.dataset.why = why;
  if (why === "filter") {
    box.replaceChildren(el("h3", "", "Nothing matches the filter"), el("p", "", "Set service and cause to “all” to see the rest."));
  } else if (why === "healthy") {
    box.replaceChildren(el("h3", "", "No slow span to explain"), el("p", "", "Spans arrive and none of them has one cause that takes an abnormal part of its time. “All spans” shows them with their split."));
  } else if (why === "none") {
    const at = (host && host.listen.otlp_http) || "127.0.0.1:4318";
    box.replaceChildren(el("h3", "", "No spans yet"),
      el("p", "", "Point the OpenTelemetry SDK of a service on this host at the agent; nothing else is needed:"),
      el("pre", "mono", "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + at + "\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"));
  }
}

// ---- the side -------------------------------------------------------------------------

function showHost(h) {
  host = h;
  document.title = h.node + " · ISOSTACK";
  $("node").textContent = h.node;
  $("facts").textContent = ["Linux " + h.kernel, h.architecture, h.cpus + " CPUs", "agent " + h.version].join("  ·  ");
  const list = $("stack");
  list.replaceChildren();
  for (const { id: layer, short: what } of known.layers) {
    const found = h.stack.filter((e) => e.layer === layer);
    const li = el("li", found.length ? "has" : "");
    const line = el(found.length ? "summary" : "div", found.length ? "" : "none");
    const name = el("b");
    name.append(word(layer, layer));
    line.append(name, el("span", "tech", found.map((e) => e.technology).join(", ") || "–"), el("span", "what", what));
    if (found.length) {
      const d = el("details");
      d.append(line);
      for (const e of found) d.append(el("p", "why", e.technology + ": " + e.evidence));
      line.title = found.map((e) => e.evidence).join("\n");
      li.append(d);
    } else li.append(line);
    list.append(li);
  }
  showNames(h.names);
  showFlow(h);
  $("empty").dataset.why = "";
  later();
}

// Where things come in and go, and whether they are taken there.
function showFlow(h) {
  const flow = $("flow");
  // Anew only when it changed: somebody may be selecting an address.
  const shown = JSON.stringify([h.listen, h.downstream]);
  if (flow.dataset.shown === shown) return;
  flow.dataset.shown = shown;
  flow.replaceChildren();
  fact(flow, "OTLP gRPC", el("code", "", h.listen.otlp_grpc));
  fact(flow, "OTLP HTTP", el("code", "", h.listen.otlp_http));
  if (!h.downstream.some((to) => to.signal === "traces")) fact(flow, "Spans to", "nowhere: analysed and shown here only (--export-endpoint sends them on)");
  const names = { traces: "Spans to", metrics: "Metrics to", logs: "Logs to" };
  for (const to of h.downstream) {
    const where = document.createDocumentFragment();
    where.append(el("code", "", to.endpoint + " (" + to.protocol + ")"));
    if (to.state === "failing") {
      const kept = to.queued_requests + (to.queued_requests === 1 ? " request is" : " requests are");
      where.append(el("p", "why", "Failing since " + clock(to.failing_since_unix_nano).slice(0, 8) + "; " + kept + " kept and tried again: " + to.reason));
    }
    fact(flow, names[to.signal] || to.signal, where);
  }
}

function showSensors(sensors) {
  const list = $("sensors");
  const marks = { on: "●", reduced: "◐", off: "○" };
  // An open one stays open: the list comes anew only when a state changed.
  const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.name));
  list.replaceChildren();
  for (const s of sensors) {
    const li = el("li");
    li.dataset.state = s.state;
    const line = el("summary");
    const mark = el("span", "mark", marks[s.state] || "○");
    mark.setAttribute("aria-hidden", "true");
    line.append(mark, el("span", "name", s.name), el("span", "state", s.state));
    const d = el("details");
    d.dataset.name = s.name;
    d.open = open.has(s.name);
    const why = el("dl");
    for (const [k, v] of [["Why", s.reason], ["Loses", s.loses], ["Fix", s.fix], ["Hooks", s.hook]]) {
      if (!v) continue;
      const pair = el("div");
      pair.append(el("dt", "", k), el("dd", "", v));
      why.append(pair);
    }
    d.append(line, why);
    li.append(d);
    list.append(li);
  }
}

// What the log says, the latest first.
function showLogs(matches) {
  const list = $("logs");
  const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.name));
  list.replaceChildren();
  if (!matches.length) list.append(el("li", "none", "None that speaks of a layer"));
  for (const m of matches) {
    const d = el("details");
    d.dataset.name = m.start_unix_nano + m.rule;
    d.open = open.has(d.dataset.name);
    const line = el("summary");
    line.append(el("b", "", m.layer), el("span", "name", m.rule), el("span", "count", m.lines > 1 ? "×" + m.lines : ""));
    const facts = el("dl", "grid");
    fact(facts, "When", clock(m.start_unix_nano));
    fact(facts, "Workload", m.workload);
    fact(facts, "Source", m.source);
    fact(facts, "Means", m.meaning);
    fact(facts, "Line", m.line);
    fact(facts, "Do", m.remedy);
    d.append(line, facts);
    const li = el("li");
    li.append(d);
    list.append(li);
  }
}

// Verdicts of one story taken together, the latest first.
function showIncidents({ incidents, convergence }) {
  const list = $("incident-list");
  $("incidents").hidden = !incidents.length;
  $("h-incidents").textContent = "Incidents · " + percent(convergence) + " of verdicts belong to one that was known";
  const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.name));
  list.replaceChildren();
  for (const i of incidents) {
    const d = el("details");
    d.dataset.name = i.incident;
    d.open = open.has(i.incident);
    const line = el("summary");
    const what = words(i.cause) + (i.culprit ? " by " + i.culprit : "") + " · " + i.services.map((s) => s.service).join(", ");
    line.append(el("b", "", i.fault), el("span", "name", what), el("span", "count", "×" + i.verdicts + (i.end_unix_nano ? " over" : " now")));
    const facts = el("dl", "grid");
    fact(facts, "Incident", i.incident);
    fact(facts, "From", clock(i.start_unix_nano) + " to " + clock(i.last_seen_unix_nano) + (i.end_unix_nano ? "" : ", may go on"));
    fact(facts, "Lost", ms(i.lost_ms) + " in " + i.verdicts + (i.verdicts === 1 ? " span" : " spans"));
    for (const s of i.services) fact(facts, s.service || "(no service.name)", "×" + s.verdicts + " " + s.operations.join(", "));
    fact(facts, "Worst", i.summary);
    fact(facts, "Do", i.remedy);
    fact(facts, "Trace", traceLine(i));
    d.append(line, facts);
    const li = el("li");
    li.append(d);
    list.append(li);
  }
}

// Workloads that sent spans come first; then those that were only measured.
function showWorkloads(workloads) {
  const list = $("workloads");
  const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.name));
  list.replaceChildren();
  for (const w of workloads.slice(0, MAX_WORKLOADS)) {
    const d = el("details");
    d.dataset.name = w.name + " " + w.pid + " " + w.workload.cgroup_id;
    d.open = open.has(d.dataset.name);
    const line = el("summary");
    line.append(el("b", "", w.layer || "–"), el("span", "name", w.name), el("span", "count", w.verdicts ? w.verdicts + " slow" : w.spans ? w.spans + " spans" : ""));
    const facts = el("dl", "grid");
    fact(facts, "Owner", w.workload.owner);
    fact(facts, "Runtime", w.workload.runtime);
    fact(facts, "Stack", w.stack.map((e) => e.layer + ":" + e.technology).join("/"));
    fact(facts, "Services", w.services.join(", "));
    fact(facts, "Labels", Object.entries(w.workload.labels).map(([k, v]) => k + "=" + v).join(", "));
    fact(facts, "Pod uid", w.workload.pod_uid);
    fact(facts, "Container", w.workload.container_id);
    fact(facts, "Names from", w.workload.names_from);
    d.append(line, facts);
    const li = el("li");
    li.append(d);
    list.append(li);
  }
  const more = workloads.length - MAX_WORKLOADS;
  if (more > 0) list.append(el("li", "none", more + " more: see workloads below"));
}

// What is wrong with the names, if anything is.
function showNames(names) {
  const bad = names.sources.filter((s) => s.state === "failing" || s.state === "denied");
  $("names").textContent = bad.map((s) => "Names from " + s.source + " " + s.state + ": " + s.reason).join("\n");
}

// ---- live -----------------------------------------------------------------------------

function say(state, text) {
  const box = document.querySelector(".live");
  box.dataset.state = state;
  if ($("live").textContent !== text) $("live").textContent = text;
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return read(await answer.text());
}

async function load() {
  const [k, h, s, v, n] = await Promise.all([get("api/v1/layers"), get("api/v1/host"), get("api/v1/spans?limit=200"), get("api/v1/verdicts?limit=200"), get("api/v1/sensors")]);
  known = k;
  for (const row of s.spans.reverse()) take("spans", row);
  for (const row of v.verdicts.reverse()) take("verdicts", row);
  showSensors(n.sensors);
  showHost(h);
}

// None of it is in the stream; a page that nobody looks at does not ask.
async function look() {
  if (!document.hidden && !paused) {
    try {
      const [w, h, l, i] = await Promise.all([get("api/v1/workloads?limit=500"), get("api/v1/host"), get("api/v1/log-matches?limit=8"), get("api/v1/incidents?limit=20")]);
      showIncidents(i);
      showWorkloads(w.workloads);
      showLogs(l.log_matches);
      showNames(h.names);
      showFlow(h);
    } catch { /* The stream says that the agent is away. */ }
  }
  setTimeout(look, LOOK_EVERY);
}

function follow() {
  const source = new EventSource("api/v1/stream");
  let pause = 1000;
  source.onopen = () => {
    say(paused ? "pause" : "on", paused ? "Paused" : "Live");
    // What came while there was no stream is in the API.
    load().catch(() => {});
  };
  source.onerror = () => {
    say("off", "Reconnecting");
    // After a refusal the browser gives up for good.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, pause);
  };
  source.addEventListener("verdict", (m) => {
    const row = read(m.data);
    take("verdicts", row);
    take("spans", { ...row, verdict: row });
  });
  source.addEventListener("span", (m) => take("spans", read(m.data)));
  source.addEventListener("sensors", (m) => showSensors(read(m.data)));
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Resume" : "Pause";
  const broken = document.querySelector(".live").dataset.state === "off";
  if (!broken) say(paused ? "pause" : "on", paused ? "Paused" : "Live");
  if (!paused) { for (const [kind, row] of held.splice(0)) add(kind, row); }
  draw();
});
$("help-close").addEventListener("click", () => $("help").close());
$("filter").addEventListener("change", draw);
$("filter").addEventListener("submit", (e) => e.preventDefault());
draw();
// Not only once the stream is open: something between may hold a stream back.
load().catch(() => {});
look();
follow();
