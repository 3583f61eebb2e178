// One trace: its hops in time, the critical path, each hop's split, and the kernel's events
// behind them. The address says which one, so that it can be sent to somebody.
"use strict";

const EVENTS_SHOWN = 300;  // rows of one table
const EDGE_NS = 5000000n;  // events this long before and after a hop are shown too

function traceLink(id, text) {
  const a = el("a", "out", text);
  a.href = "#trace=" + id;
  return a;
}

// A stretch of the trace's time as a place in a bar.
function placed(node, report, from, to) {
  const total = report.duration_ms || 1;
  const start = Math.min(Math.max(from / total, 0), 1);
  const end = Math.min(Math.max(to / total, start), 1);
  node.style.left = (100 * start) + "%";
  node.style.width = (100 * (end - start)) + "%";
  return node;
}

function timeline(report, hop) {
  const line = el("div", "lane");
  line.setAttribute("role", "img");
  line.setAttribute("aria-label", ms(hop.start_ms) + " to " + ms(hop.start_ms + hop.duration_ms) + " after the start, " + ms(hop.critical_ms) + " on the critical path");
  line.append(placed(el("i", "extent"), report, hop.start_ms, hop.start_ms + hop.duration_ms));
  for (const [from, to] of hop.segments) line.append(placed(el("i", "critical"), report, from, to));
  for (const s of hop.stretches) {
    const i = placed(tone(el("i", "lost"), s.cause), report, s.start_ms, s.end_ms);
    i.title = s.fault + " " + words(s.cause) + ", " + ms(s.end_ms - s.start_ms);
    line.append(i);
  }
  return line;
}

function splitOf(hop) {
  const parts = ORDER.filter((c) => hop.split[c] > 0).map((c) => [c, hop.split[c]]);
  if (!parts.length) return null;
  const box = document.createDocumentFragment();
  const list = el("ul", "parts");
  for (const [cause, v] of parts) {
    const li = el("li");
    li.append(tone(keyOf(cause), cause), word(cause, words(cause)), el("span", "ms", ms(v)));
    list.append(li);
  }
  box.append(bar(parts), list);
  return box;
}

function eventTable(events) {
  const table = el("table", "events");
  const head = el("tr");
  for (const name of ["Start", "Lasted", "Cause", "Thread", "CPU", "Workload", "Limited by"]) {
    const th = el("th", "", name);
    th.scope = "col";
    head.append(th);
  }
  const thead = el("thead");
  thead.append(head);
  const body = el("tbody");
  for (const e of events) {
    const row = el("tr");
    const cause = el("td");
    cause.append(tone(keyOf(e.cause), e.cause), words(e.cause));
    row.append(el("td", "", clock(e.start_unix_nano)), el("td", "", ms(e.duration_ms)), cause,
      el("td", "", e.tid ? e.pid + "/" + e.tid : ""), el("td", "", e.cpu), el("td", "", e.workload), el("td", "", e.limiter));
    body.append(row);
  }
  table.append(thead, body);
  return table;
}

// The kernel's events in the time of a hop, of its workload where that is known.
function eventsButton(report, hop) {
  const from = BigInt(hop.start_unix_nano) - EDGE_NS;
  const to = BigInt(hop.start_unix_nano) + BigInt(Math.round(hop.duration_ms * 1e6)) + EDGE_NS;
  const path = "api/v1/events?trace_id=" + report.trace_id + "&from=" + from + "&to=" + to + "&limit=" + EVENTS_SHOWN
    + (hop.workload ? "&workload=" + encodeURIComponent(hop.workload) : "");
  const box = el("div", "raw");
  const button = el("button", "", "Kernel events");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  const place = el("div", "scroll");
  place.hidden = true;
  button.addEventListener("click", async () => {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    if (place.hidden) return;
    place.replaceChildren(el("p", "hint", "Asking…"));
    try {
      const { events } = await get(path);
      const raw = el("a", "", "as JSON");
      raw.href = path;
      const said = el("p", "hint", events.length ? (events.length === EVENTS_SHOWN ? "The latest " : "") + events.length + " events in its time, " : "None is kept of its time: healthy intervals are short, and old ones give way. ");
      said.append(raw);
      place.replaceChildren(said);
      if (events.length) place.append(eventTable(events.reverse()));
    } catch (e) {
      place.replaceChildren(el("p", "why", "The agent does not answer: " + e.message));
    }
  });
  box.append(button, place);
  return box;
}

function hopRow(report, hop) {
  const slowest = report.slowest_hop && report.slowest_hop.span_id === hop.span_id && hop.critical_ms > 0;
  const li = el("li", "hop" + (hop.critical_ms > 0 ? " on-path" : "") + (slowest ? " slowest" : ""));
  const box = el("details");
  box.open = slowest;
  const line = el("summary");
  const title = el("span", "who");
  // Deep ones would leave no room for their names.
  title.style.paddingLeft = Math.min(hop.depth, 12) * 10 + "px";
  title.append(el("span", "svc", hop.service || "(no service.name)"), el("span", "sep", "›"), el("span", "op", hop.operation || "(no name)"));
  if (hop.verdict) title.append(tone(el("span", "tag", hop.verdict.fault + " " + words(hop.verdict.cause)), hop.verdict.cause));
  if (hop.error) title.append(el("span", "err", "error"));
  if (hop.not_awaited) title.append(el("span", "aside", "nobody waited"));
  line.append(title, timeline(report, hop), el("span", "own", hop.critical_ms > 0 ? ms(hop.critical_ms) + "  " + percent(hop.share) : ""));
  const inner = el("div", "inside");
  const split = splitOf(hop);
  if (split) inner.append(split);
  else inner.append(el("p", "hint", hop.confidence ? "Its agent did not split its time." : "No agent saw this span."));
  const facts = el("dl", "grid");
  if (hop.verdict) {
    fact(facts, "Verdict", hop.verdict.summary);
    fact(facts, "Culprit", hop.verdict.culprit);
    fact(facts, "What to do", hop.verdict.remedy);
    fact(facts, "Evidence", Object.entries(hop.verdict.evidence).map(([k, v]) => k + " = " + Number(v.toPrecision(5))).join(", "));
  }
  fact(facts, "Own time", ms(hop.self_time_ms) + " of " + ms(hop.duration_ms) + ", " + ms(hop.critical_ms) + " on the critical path");
  fact(facts, "Node", hop.node);
  fact(facts, "Workload", hop.workload);
  fact(facts, "Stack", hop.stack ? el("code", "", hop.stack) : "");
  fact(facts, "Joined by", words(hop.confidence));
  fact(facts, "Clock moved by", hop.clock_shift_ms ? hop.clock_shift_ms.toFixed(3) + " ms" : "");
  fact(facts, "Span", el("code", "", hop.span_id));
  inner.append(facts, eventsButton(report, hop));
  box.append(line, inner);
  li.append(box);
  return li;
}

function drawTrace(report) {
  const box = $("trace-body");
  box.replaceChildren();
  const head = el("div", "card");
  const top = el("div", "head");
  top.append(el("h3", "", "Trace"), el("code", "", report.trace_id), el("span", "dur", ms(report.duration_ms)), el("span", "time", report.spans_total + (report.spans_total === 1 ? " span of " : " spans of ") + report.services.join(", ")));
  head.append(top);
  if (report.verdict) {
    tone(head, report.verdict.cause);
    head.classList.add("bad");
    const answer = el("div", "answer");
    const badge = el("span", "badge");
    badge.append(word(report.verdict.fault, report.verdict.fault), " ", word(report.verdict.cause, report.verdict.cause), " " + percent(report.verdict.share));
    answer.append(badge);
    if (report.verdict.culprit) answer.append(el("span", "by", "by " + report.verdict.culprit));
    head.append(answer);
  }
  head.append(el("p", "summary", report.summary));
  if (report.verdict && report.verdict.remedy) {
    const remedy = el("p", "remedy");
    remedy.append(el("span", "", "What to do: "), report.verdict.remedy);
    head.append(remedy);
  }
  const legend = el("p", "hint legend");
  legend.append(el("span", "swatch critical"), "critical path  ", el("span", "swatch extent"), "running  ", el("span", "swatch lost"), "time lost to a cause");
  const list = el("ol", "hops");
  for (const hop of report.spans) list.append(hopRow(report, hop));
  box.append(head, legend, list);
  if (report.spans_left_out) box.append(el("p", "hint", report.spans_left_out + " more spans are not shown."));
  if (report.gap_ms > 0) box.append(el("p", "hint", ms(report.gap_ms) + " lie between spans whose parent is not here."));
  for (const note of report.notes) box.append(el("p", "hint", "Note: " + note + "."));
}

let asked = "";  // the trace that the address names

async function route() {
  const match = /^#trace=([0-9a-fA-F]{1,32})$/.exec(location.hash);
  asked = match ? match[1] : "";
  $("trace").hidden = !match;
  for (const id of ["filter", "count", "list"]) $(id).hidden = Boolean(match);
  document.body.classList.toggle("in-trace", Boolean(match));
  if (!match) return;
  const id = asked;
  $("trace-body").replaceChildren(el("p", "hint", "Asking…"));
  const answer = await fetch("api/v1/traces/" + id).catch(() => null);
  // Another one may have been asked for meanwhile.
  if (asked !== id) return;
  const json = answer ? await answer.text().then(read).catch(() => null) : null;
  if (answer && answer.ok && json) drawTrace(json);
  else {
    const box = el("div", "empty");
    box.append(el("h3", "", "This trace cannot be shown"), el("p", "", (json && json.error) || "The agent does not answer."),
      el("p", "", "A trace store may have it, with the spans of all nodes:"), el("pre", "mono", "isostack-agent trace " + id + " --jaeger http://jaeger:16686"));
    $("trace-body").replaceChildren(box);
  }
  $("trace-back").focus({ preventScroll: true });
  scrollTo(0, 0);
}

$("trace-back").addEventListener("click", () => { location.hash = ""; });
addEventListener("hashchange", route);
route();
