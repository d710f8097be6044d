// Draws each event of /events, one a second. Keeps rows by key and changes them in place, so that focus, selection and
// scroll positions stay.
"use strict";

const KEPT = 120; // samples in a small chart
const SILENT = 5000; // ms without news from which on the page says so; a host tells something each second
const history = new Map(); // route -> { answers: [], errors: [], last }
const $ = (id) => document.getElementById(id);
let latest = null;

const seconds = (s) => {
  if (s === null || s === undefined) return "–";
  if (s < 1) return `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s < 100) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
};
const rate = (r) => (r >= 100 ? r.toFixed(0) : r >= 10 ? r.toFixed(1) : r.toFixed(2));
const number = (n) => n.toLocaleString("en");
const bytes = (b) => (b ? `${(b / 2 ** 20).toFixed(0)} MiB` : "–");
const sum = (o) => Object.values(o).reduce((a, b) => a + b, 0);
// Formats a time of the host, with the date if the host has another day now.
const clock = (s) => {
  const time = new Date(s * 1000), day = time.toLocaleDateString("sv");
  const other = latest && day !== new Date(latest.at * 1000).toLocaleDateString("sv");
  return `${other ? `${day} ` : ""}${time.toLocaleTimeString("sv")}`;
};
const routeName = (r) => (r === "" ? "(catch-all)" : r === null ? "(no route)" : r);

// How each table is sorted: the key of each column, the present column (by), and whether in descending order (down).
const sorting = {
  routes: {
    by: 0, down: false,
    keys: [(r) => routeName(r.route), null, (r) => r.per_second, (r) => r.errors_per_second, (r) => r.p50_s || 0, (r) => r.p99_s || 0,
      (r) => r.waiting_p99_s || 0, (r) => r.running, (r) => r.waiting, (r) => r.completed, (r) => sum(r.failed) + r.terminated, (r) => sum(r.refused)],
  },
  tasks: { by: 4, down: true, keys: [(t) => t.id, (t) => t.type, (t) => t.route, (t) => t.slot, (t) => t.running_s, (t) => Date.parse(t.deadline)] },
  workers: {
    by: 2, down: false,  // those that serve come last
    keys: [(w) => w.slot, (w) => w.pid, (w) => (w.state === "serving" ? "zzz" : w.state), (w) => (w.connection ? w.connection.state + w.connection.reason : ""), (w) => w.memory,
      (w) => w.cpu, (w) => w.tasks.length, (w) => w.counts.completed || 0, (w) => w.generation],
  },
};

function sorted(name, items) {
  const { by, down, keys } = sorting[name];
  const key = keys[by];
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return [...items].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1));
}

// Makes a button of the title of each column that has a sort key.
function sortable(name) {
  const order = sorting[name];
  const titles = [...$(`${name}-rows`).closest("table").tHead.rows[0].cells];
  const show = () => titles.forEach((title, index) => {
    if (index === order.by) title.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else title.removeAttribute("aria-sort");
  });
  titles.forEach((title, index) => {
    if (!order.keys[index]) return;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: title.textContent });
    button.addEventListener("click", () => {
      order.down = order.by === index ? !order.down : index > 0 && title.classList.contains("n");
      order.by = index;
      show();
      if (latest) draw(latest);
    });
    title.replaceChildren(button);
  });
  show();
}

// Tells assistive technology what is a table, a row and a cell: a style sheet that shows a row as a block takes it away.
function keepRoles(table) {
  table.setAttribute("role", "table");
  table.setAttribute("aria-labelledby", table.parentElement.getAttribute("aria-labelledby"));
  for (const group of [table.tHead, ...table.tBodies]) group.setAttribute("role", "rowgroup");
  table.tHead.rows[0].setAttribute("role", "row");
  for (const title of table.tHead.rows[0].cells) title.setAttribute("role", "columnheader");
}

// The rows of a table body: `cells(item)` gives [text or node, class] for each column.
function rows(body, items, key, cells, empty) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = items.map((item) => {
    const name = key(item);
    const row = old.get(name) || document.createElement("tr");
    old.delete(name);
    row.dataset.key = name;
    row.setAttribute("role", "row");
    cells(item).forEach(([content, kind], index) => {
      let cell = row.children[index];
      if (!cell) {
        cell = document.createElement(index === 0 ? "th" : "td");
        if (index === 0) cell.scope = "row";
        cell.setAttribute("role", index === 0 ? "rowheader" : "cell");
        row.append(cell);
      }
      if (cell.className !== (kind || "")) cell.className = kind || "";
      if (content instanceof Node) cell.replaceChildren(content);
      else if (cell.textContent !== content) cell.textContent = content;
    });
    return row;
  });
  for (const row of old.values()) row.remove();
  if (!wanted.length) {
    const row = document.createElement("tr");
    row.dataset.key = " none";
    row.setAttribute("role", "row");
    const cell = document.createElement("td");
    cell.setAttribute("role", "cell");
    cell.colSpan = 20;
    cell.className = "none";
    cell.textContent = empty;
    row.append(cell);
    wanted.push(row);
  }
  wanted.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
  });
}

function spark(answers, errors, name) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const top = Math.max(1, ...answers, ...errors);
  svg.setAttribute("aria-label", `${name}: ${rate(answers.at(-1) || 0)} answers a second now, at most ${rate(Math.max(0, ...answers))}`);
  for (const [values, kind] of [[answers, "answers"], [errors, "errors"]]) {
    const path = document.createElementNS(ns, "path");
    const from = KEPT - values.length;
    path.setAttribute("class", kind);
    path.setAttribute("d", values.map((v, i) => `${i ? "L" : "M"}${from + i} ${(19 - (v / top) * 18).toFixed(1)}`).join(""));
    if (kind === "answers" || values.some((v) => v > 0)) svg.append(path);
  }
  return svg;
}

function sample(route, at) {
  const name = route.route === null ? "\u0000" : route.route;
  const seen = history.get(name) || { answers: [], errors: [], last: null };
  const failed = sum(route.failed) + sum(route.refused);
  const now = { at, answers: route.completed + route.terminated + failed, errors: failed };
  if (seen.last && at > seen.last.at) {
    const passed = at - seen.last.at;
    seen.answers.push(Math.max(0, now.answers - seen.last.answers) / passed);
    seen.errors.push(Math.max(0, now.errors - seen.last.errors) / passed);
    seen.answers.splice(0, seen.answers.length - KEPT);
    seen.errors.splice(0, seen.errors.length - KEPT);
  }
  seen.last = now;
  history.set(name, seen);
  return seen;
}

function mark(text, kind) {
  const span = document.createElement("span");
  span.className = `mark ${kind}`;
  span.textContent = text;
  return span;
}

function stateKind(state) {
  if (state === "serving") return "good";
  return ["hung", "disconnected", "locked out", "silent"].includes(state) ? "bad" : "warn";
}

// Returns `127.0.0.1:4222 for 3 h`, or the state of the connection and why: the text of `ajhost status`.
function connectionText(connection) {
  if (!connection) return "";
  const { state, server, reason, reconnects } = connection;
  const howLong = seconds(connection.since_s);
  if (state === "connected") return `${server} for ${howLong}${reconnects ? `, ${reconnects} reconnect${reconnects === 1 ? "" : "s"}` : ""}`;
  const where = server && !reason.includes(server) ? ` (${server})` : "";
  return `${state.replaceAll("_", " ")} for ${howLong}${where}${reason ? `: ${reason}` : ""}`;
}

function hostState({ supervisor, slots, serving, draining, drained, left }) {
  if (supervisor.stopping) return "stopping";
  if (!slots) return "starting";
  if (drained) return "drained";
  if (draining) return `draining, ${left} left`;
  if (!supervisor.ready) return "not ready";
  return serving >= slots ? "ready" : "degraded";
}

function drawHead(status) {
  const { supervisor } = status;
  const state = hostState(status);
  const text = `${state}: ${status.serving} of ${status.slots} workers serve`;
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = `badge ${state === "ready" ? "good" : state === "not ready" ? "bad" : "warn"}`;
  document.title = `${state} – ajhost`;
  const connection = supervisor.connection;
  const facts = [
    ["NATS", connectionText(connection)],
    ["Drain", supervisor.drain_by ? `asked for ${seconds(supervisor.drain_s)} ago by ${supervisor.drain_by}` : ""],
    ["Version", supervisor.version], ["Settings", supervisor.settings],
    ["Last death", supervisor.last_death ? `${seconds(supervisor.died_s)} ago: ${supervisor.last_death}` : ""],
    ["Last replaced", supervisor.last_replaced ? `${seconds(supervisor.replaced_s)} ago: ${supervisor.last_replaced}` : ""],
    ["Up", supervisor.uptime_s ? seconds(supervisor.uptime_s) : ""], ["Generation", String(supervisor.generation)],
  ].filter(([, value]) => value);
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
    return pair;
  }));
}

function drawRoutes(status, at) {
  const routes = sorted("routes", status.routes);
  $("routes-count").textContent = `(${routes.length})`;
  rows($("routes-rows"), routes, (r) => (r.route === null ? "\u0000" : `r${r.route}`), (r) => {
    const seen = sample(r, at);
    return [
      [routeName(r.route), "name"], [spark(seen.answers, seen.errors, routeName(r.route)), "chart"], [rate(r.per_second), "n"],
      [rate(r.errors_per_second), r.errors_per_second > 0 ? "n bad" : "n"], [seconds(r.p50_s), "n"], [seconds(r.p99_s), "n"],
      [seconds(r.waiting_p99_s), "n"], [number(r.running), "n"], [number(r.waiting), "n"], [number(r.completed), "n"],
      [number(sum(r.failed) + r.terminated), "n"], [number(sum(r.refused)), "n"],
    ];
  }, "no request has come yet");
}

function drawTasks(status, at) {
  const tasks = status.workers.flatMap((w) => w.tasks.map((t) => ({ ...t, slot: w.slot, pid: w.pid })));
  const shown = sorted("tasks", tasks).slice(0, 200);
  $("tasks-count").textContent = tasks.length > shown.length ? `(${shown.length} of ${number(tasks.length)})` : `(${tasks.length})`;
  rows($("tasks-rows"), shown, (t) => `${t.pid} ${t.id}`, (t) => {
    const left = Date.parse(t.deadline) / 1000 - at;
    const cell = document.createElement("span");
    const meter = document.createElement("meter");
    meter.max = Math.max(t.running_s + Math.max(left, 0), 0.001);
    meter.value = t.running_s;
    meter.high = meter.max * 0.8;
    meter.optimum = 0;
    meter.setAttribute("aria-hidden", "true");
    cell.append(meter, left > 0 ? seconds(left) : mark("overdue", "bad"));
    return [[t.id, "id"], [t.type, "name"], [routeName(t.route), "name"], [String(t.slot), "n"], [seconds(t.running_s), "n"], [cell]];
  }, "none");
}

function drawWorkers(status) {
  $("workers-count").textContent = `(${status.workers.length})`;
  rows($("workers-rows"), sorted("workers", status.workers), (w) => `${w.slot} ${w.pid}`, (w) => {
    return [
      [String(w.slot), "n"], [String(w.pid), "n"], [mark(w.state, stateKind(w.state))], [connectionText(w.connection), "text"], [bytes(w.memory), "n"],
      [w.cpu === undefined ? "–" : `${Math.round(w.cpu * 100)} %`, "n"], [String(w.tasks.length), "n"], [number(w.counts.completed || 0), "n"],
      [String(w.generation), "n"],
    ];
  }, "no worker lives");
}

function drawAttempts() {
  if (!latest) return;
  const wanted = $("filter").value.trim().toLowerCase();
  const found = latest.attempts.filter((a) => !wanted || `${a.id} ${a.type} ${a.reason} ${a.text}`.toLowerCase().includes(wanted));
  $("attempts-count").textContent = wanted ? `(${found.length} of the last ${latest.attempts.length})` : `(the last ${latest.attempts.length})`;
  rows($("attempts-rows"), found, (a) => `${a.at} ${a.id} ${a.reason}`, (a) => [
    [clock(a.at)], [a.id, "id"], [a.type, "name"], [mark(a.reason, a.outcome === "terminated" ? "warn" : "bad")], [a.text, "text"],
    [a.tries ? String(a.tries) : "–", "n try"],
  ], wanted ? "nothing fits the filter" : "none");
}

function drawEvents() {
  const list = $("events");
  const items = latest.events.map((e) => {
    const item = document.createElement("li");
    const time = Object.assign(document.createElement("time"), { textContent: clock(e.at), dateTime: new Date(e.at * 1000).toISOString() });
    item.append(time, mark(e.kind, e.kind === "death" || e.kind === "rejected" ? "bad" : "good"), " ", Object.assign(document.createElement("bdi"), { textContent: e.text }));
    return item;
  });
  if (!items.length) items.push(Object.assign(document.createElement("li"), { className: "none", textContent: "none since the start" }));
  if (list.dataset.shown !== JSON.stringify(latest.events)) {
    list.dataset.shown = JSON.stringify(latest.events);
    list.replaceChildren(...items);
  }
}

function draw(told) {
  latest = told;
  drawHead(told.status);
  drawRoutes(told.status, told.at);
  drawTasks(told.status, told.at);
  drawWorkers(told.status);
  drawAttempts();
  drawEvents();
  $("lost").hidden = true;
}

// Shows that the page's content is old, and why.
function lose(why, state) {
  if (latest) $("lost-since").textContent = clock(latest.at);
  if ($("lost-why").textContent !== why) $("lost-why").textContent = why;
  $("lost").hidden = !latest;
  if ($("state").textContent !== state) $("state").textContent = state;
  $("state").className = "badge bad";
  document.title = `${state} – ajhost`;
}

let source, heard = performance.now();

function connect() {
  source = new EventSource("events");
  source.onmessage = (event) => {
    heard = performance.now();
    draw(JSON.parse(event.data));
  };
  source.onerror = () => lose("The page has lost the host.", "not reachable");
}

// Connects again after an error: a browser gives an EventSource up for good when the host answers with one, such as too
// many viewers. Reports a host that hangs: its connection stays open, so the browser fires no event.
function look() {
  const silent = performance.now() - heard;
  if (source.readyState === EventSource.CLOSED) connect();
  else if (source.readyState === EventSource.OPEN && silent > SILENT) lose(`The host has said nothing for ${seconds(silent / 1000)}.`, "silent");
}

document.querySelectorAll("table").forEach(keepRoles);
Object.keys(sorting).forEach(sortable);
$("filter").addEventListener("input", drawAttempts);
connect();
setInterval(look, SILENT / 2);
