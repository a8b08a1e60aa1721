// The race: draws what the server tells, and computes no figure. It paints when something has changed and at no other
// time, since the browser may run on the machine that is measured: no animation, and at most four updates a second.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const OVER = new Set(["done", "stopped", "failed"]);
const STATES = {
  starting: "The run is starting",
  waiting: "Waiting: another run holds this machine",
  measuring: "Measuring",
  cleaning: "Cleaning up what the run made",
  stopping: "Ending the run; what was measured is kept",
  done: "The run is over",
  stopped: "The run was stopped; what was measured is kept",
  failed: "The run ended with a complaint",
};
const LANES = { waits: "waits for its turn", prepares: "is prepared", turn: "is launched", done: "", skipped: "left out", failed: "given up", ok: "" };
const ANNOUNCE_EVERY_MS = 10_000;

let plan = null;
let last = null;
let longest = 0;
let drawn = "";
let announced = { state: "", at: 0 };

function make(tag, className = "", words = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (words) made.textContent = words;
  return made;
}

function say(id, words) {
  const place = $(id);
  if (place.textContent !== words) place.textContent = words;
}

function show(id, shown) {
  $(id).hidden = !shown;
}

function list(id, lines) {
  const key = JSON.stringify(lines);
  const place = $(id);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...lines.map((line) => make("li", "", line)));
}

function draw(state) {
  last = state;
  const goesOn = state !== null && !OVER.has(state.state);
  show("race", state !== null && state.lanes.length > 0);
  show("ask", !goesOn);
  show("stop", goesOn && state.state !== "stopping");
  show("told", state !== null && (OVER.has(state.state) || state.problems.length > 0));
  if (goesOn) show("plan", false);
  show("lead", state === null);
  if (state !== null) $(OVER.has(state.state) ? "race" : "told").before($("podium"));
  if (state === null) {
    announce("idle", "Nothing runs.");
    say("status", "Nothing runs yet. Choose who races, and have the plan shown.");
    show("podium", false);
    return;
  }
  const words = [STATES[state.state] ?? state.state, state.state === "measuring" ? state.round : "", state.holder];
  const told = words.filter(Boolean).join(": ");
  say("status", [told, state.left].filter(Boolean).join(" · "));
  announce(state.state, told);
  if (state.run && state.run !== drawn) {
    drawn = state.run;
    longest = 0;
    $("lanes").replaceChildren();
  }
  lanes(state.lanes);
  podium(state.podium);
  ending(state);
}

// A screen reader is told of each new state, and of rounds at most every ten seconds.
function announce(state, words) {
  const now = performance.now();
  if (announced.state === state && now - announced.at < ANNOUNCE_EVERY_MS) return;
  announced = { state, at: now };
  say("announced", words);
}

function lanes(found) {
  for (const lane of found) {
    for (const mark of [...lane.service, ...lane.engine]) longest = Math.max(longest, mark.at_s);
  }
  for (const lane of found) {
    let row = [...$("lanes").children].find((one) => one.dataset.target === lane.target);
    if (!row) {
      row = newLane(lane);
      $("lanes").append(row);
    }
    fill(row, lane);
  }
  const end = longest > 0 ? written(longest) : "";
  say("axis", !end ? "" : $("own").checked ? "Each bar is its own launch's whole." : `All bars on one scale, from 0 to ${end}.`);
}

function newLane(lane) {
  const row = make("li", "lane");
  row.dataset.target = lane.target;
  const head = make("div", "lane-head");
  head.append(make("span", "lane-name", lane.label), make("span", "lane-state"), make("span", "lane-figure"));
  const track = document.createElementNS(SVG, "svg");
  track.setAttribute("viewBox", "0 0 1000 40");
  track.setAttribute("preserveAspectRatio", "none");
  track.setAttribute("class", "track");
  track.setAttribute("role", "img");
  const marks = make("div", "lane-marks");
  marks.append(make("p", "marks service"), make("p", "marks engine"));
  row.append(head, track, marks, make("p", "lane-why"));
  return row;
}

function fill(row, lane) {
  const key = JSON.stringify([lane, $("own").checked ? 0 : longest]);
  if (row.dataset.key === key) return;
  row.dataset.key = key;
  row.dataset.state = lane.state;
  const [head, track, marks, why] = row.children;
  const [service, engine] = marks.children;
  const ready = lane.service.find((one) => one.phase === "ready");
  const median = lane.median ? `median ${lane.median}` : "";
  const count = lane.n ? `n ${lane.n}` : "";
  const failed = lane.failed ? `${lane.failed} failed` : "";
  const warms = lane.warmup && lane.state === "turn" ? "warm-up" : "";
  const state = [LANES[lane.state] ?? lane.state, warms, median, count, failed];
  head.children[0].textContent = lane.label;
  head.children[1].textContent = state.filter(Boolean).join(" · ");
  head.children[2].replaceChildren();
  if (ready) head.children[2].append(make("small", "", "last launch"), ` ${ready.at}`);
  why.textContent = lane.why;
  drawTrack(track, lane);
  chips(service, "service", lane.service);
  chips(engine, "engine says", lane.engine);
}

function drawTrack(track, lane) {
  const own = Math.max(0, ...lane.service.map((one) => one.at_s), ...lane.engine.map((one) => one.at_s));
  const whole = $("own").checked ? own : longest;
  const at = (seconds) => (whole > 0 ? (1000 * seconds) / whole : 0);
  const parts = lane.service.map((one) => {
    const part = document.createElementNS(SVG, "rect");
    part.setAttribute("x", at(one.from_s).toFixed(2));
    part.setAttribute("y", "10");
    part.setAttribute("width", Math.max(1.5, at(one.at_s) - at(one.from_s)).toFixed(2));
    part.setAttribute("height", "30");
    part.setAttribute("class", `phase-${one.phase}`);
    return part;
  });
  const ticks = lane.engine.map((one) => {
    const tick = document.createElementNS(SVG, "rect");
    tick.setAttribute("x", Math.max(0, Math.min(996, at(one.at_s) - 2)).toFixed(2));
    tick.setAttribute("y", "0");
    tick.setAttribute("width", "4");
    tick.setAttribute("height", "8");
    tick.setAttribute("class", "tick");
    return tick;
  });
  track.replaceChildren(...parts, ...ticks);
  const told = lane.service.map((one) => `${one.phase} at ${one.at}`).join(", ");
  track.setAttribute("aria-label", told ? `Last launch of ${lane.label}: ${told}` : `${lane.label}: no launch yet`);
}

function chips(place, title, marks) {
  place.replaceChildren();
  if (!marks.length) return;
  place.append(make("span", "chain", title));
  for (const mark of marks) {
    const chip = make("span", "chip");
    chip.append(make("i", `swatch phase-${mark.phase}`), `${mark.phase} `, make("b", "", mark.at));
    place.append(chip);
  }
}

function podium(told) {
  show("podium", told.places.length > 0 || told.waits !== "" || told.notes.length > 0);
  say("podium-waits", told.waits);
  list("podium-notes", told.notes);
  const key = JSON.stringify(told.places);
  const place = $("places");
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(
    ...told.places.map((one) => {
      const card = make("li", `place place-${one.place}`);
      const between = make("span", "place-between", "95 % interval ");
      between.append(make("span", "", `${one.interval},`), ` n ${one.n}`);
      card.append(
        make("span", "place-number", one.shared ? `${one.place}=` : `${one.place}`),
        make("span", "place-name", one.label),
        make("span", "place-median", one.median),
        between,
      );
      return card;
    }),
  );
}

function ending(state) {
  list("problems", state.problems);
  say("told-typed", state.typed);
  say("told-text", state.told);
  const place = $("told-report");
  if (OVER.has(state.state) && state.run) {
    if (place.dataset.run === state.run) return;
    place.dataset.run = state.run;
    const link = make("a", "", `The report of run ${state.run}`);
    link.href = `run?id=${encodeURIComponent(state.run)}`;
    place.replaceChildren(link);
  } else if (place.dataset.run) {
    delete place.dataset.run;
    place.replaceChildren();
  }
}

function written(seconds) {
  return seconds >= 1 ? `${seconds.toPrecision(3)} s` : `${(1000 * seconds).toPrecision(3)} ms`;
}

async function send(path, body) {
  say("trouble", "");
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const told = await answer.json();
    if (answer.ok) return told;
    say("trouble", told.error);
  } catch {
    say("trouble", "The lab does not answer: is lab serve still running?");
  }
  return null;
}

function duration(likely) {
  const shown = (seconds) => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);
  const [least, most] = [shown(likely.least_s), shown(likely.most_s)];
  return least === most ? most : `${least} to ${most}`;
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData($("ask"));
  const button = $("ask").querySelector("button");
  button.disabled = true;
  button.textContent = "Asking the engines …";
  const told = await send("plan", {
    scenario: form.get("scenario"),
    targets: form.getAll("target"),
    rounds: Number(form.get("rounds")),
  });
  button.disabled = false;
  button.textContent = "Show the plan";
  if (told === null) return;
  plan = told.id;
  const found = told.plan;
  list("plan-told", [
    `${found.scenario} on ${found.targets.join(", ") || "nothing"}: at most ${found.launches} launches, ` +
      `${Math.round(found.memory_bytes / 1048576)} MiB at a time, likely ${duration(found.likely)}`,
    ...found.changes,
    ...found.others.map((one) => `beside ${one}`),
    ...found.skipped.map((one) => `left out ${one.target}: ${one.reason}${one.remedy ? ` (${one.remedy})` : ""}`),
  ]);
  say("plan-typed", told.typed);
  $("start").disabled = found.targets.length === 0;
  show("plan", true);
  $("plan-title").focus();
});

$("start").addEventListener("click", async () => {
  if (await send("start", { id: plan })) show("plan", false);
});
$("drop").addEventListener("click", () => {
  show("plan", false);
  $("ask").querySelector("button").focus();
});
$("stop").addEventListener("click", () => send("stop", {}));
$("own").addEventListener("change", () => last && lanes(last.lanes));

const source = new EventSource("events");
source.addEventListener("message", (event) => draw(JSON.parse(event.data)));
source.addEventListener("error", () => say("status", "The lab does not answer; trying again …"));
