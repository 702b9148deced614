/* The review page: one trace at a time, and what is said of it, stored as soon as it is said. */
"use strict";

(async () => {
  const { h, load, plural, graded, pictures, steps, thought } = gallery;
  const { rows, chunk } = gallery.index;
  const at = (id) => document.getElementById(id);
  const trace = async (i) => (await load(`traces-${String(Math.floor(i / chunk)).padStart(5, "0")}`))[i % chunk];
  const key = (id, step) => `${id}/${step ?? ""}`;
  const said = new Map(); // by trace and step: { verdict, comment }
  let place = 0;
  let shown = null; // the trace on the page

  function trouble(sentence) {
    at("trouble").textContent = sentence;
    at("trouble").hidden = !sentence;
  }

  /** 32 hexadecimal digits that no other review has, so that one sent twice is stored once. */
  const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(16)),
    (byte) => byte.toString(16).padStart(2, "0")).join("");

  /** Store a verdict; return whether it was. A failed one is told, and can be given again. */
  async function store(entry, step, verdict, comment) {
    const body = JSON.stringify({ review_id: unique(), trace_id: entry.id, step, verdict, comment });
    const headers = { "content-type": "application/json" };
    for (const again of [true, false]) {
      try {
        const answer = await fetch("reviews", { method: "POST", headers, body });
        if (answer.ok) {
          said.set(key(entry.id, step), { verdict, comment });
          trouble("");
          return true;
        }
        const { detail } = await answer.json().catch(() => ({}));
        trouble(`Not stored: ${typeof detail === "string" ? detail : answer.statusText}`);
        return false;
      } catch {
        if (!again) trouble("Not stored: the command that serves this page does not answer. Is it still running?");
      }
    }
    return false;
  }

  const count = () => rows.filter((row) => said.has(key(row[0], null))).length;
  function progress() {
    at("progress").textContent =
      `${(place + 1).toLocaleString()} of ${plural(rows.length, "trace")}, ${count().toLocaleString()} reviewed`;
  }

  function press(where, verdict) {
    for (const button of where.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
    }
  }

  /** Two buttons beside a step: it is right, or wrong. */
  function ask(entry, step) {
    const button = (verdict, sign) => h("button", {
      type: "button", "data-verdict": verdict, title: `Step ${step + 1} is ${verdict}`,
      "aria-label": `Step ${step + 1} is ${verdict}`,
      onclick: async () => { if (await store(entry, step, verdict, "")) press(asked, verdict); },
    }, sign);
    const asked = h("div", { class: "ask" }, button("right", "✓"), button("wrong", "✗"));
    press(asked, said.get(key(entry.id, step))?.verdict);
    return asked;
  }

  async function show(to) {
    place = to;
    const entry = await trace(to);
    if (to !== place) return; // another was asked for while this one was loading
    shown = entry;
    const view = h("div", { class: "view" },
      h("div", { class: "look" }, pictures(entry.images, entry.steps, {
        answer: entry.answer_marks, boxes: entry.boxes, alt: entry.q,
      }), entry.boxes.length ? h("p", { class: "quiet" }, "Dotted: the gold region.") : null),
      h("div", { class: "read" },
        h("p", { class: "facts" }, [entry.task, entry.family.replaceAll("_", " "), entry.kind].filter(Boolean).join(" · ")),
        h("h2", {}, entry.q),
        entry.choices.length ? h("p", { class: "quiet" }, entry.choices.join(" / ")) : null));
    const read = view.querySelector(".read");
    const list = steps(entry.steps, view, entry.images);
    [...list.children].forEach((line, i) => line.append(ask(entry, i)));
    read.append(list, h("div", { class: "result" }, h("span", { class: "label" }, "Answer"),
      h("b", {}, ...thought(entry.answer ?? "no answer was given", entry.answer_places)), graded(entry.reward),
      entry.gold.length && !(entry.reward >= 1) ? h("span", { class: "quiet" }, `Right would be: ${entry.gold.join(", or ")}`) : ""),
    h("dl", { class: "ids" }, ...gallery.id("trace_id", entry.id)));
    gallery.watch(view);
    at("trace").replaceChildren(view);
    const before = said.get(key(entry.id, null));
    press(at("verdict"), before?.verdict);
    at("comment").value = before?.comment ?? "";
    at("back").disabled = to === 0;
    at("on").disabled = to === rows.length - 1;
    at("verdict").hidden = false;
    trouble("");
    progress();
    scrollTo(0, 0);
    history.replaceState(null, "", `#${entry.id}`);
  }

  let storing = false;
  async function decide(verdict) {
    if (storing || !shown) return; // a key that is held down says one thing once
    storing = true;
    try {
      if (!(await store(shown, null, verdict, at("comment").value.trim()))) return;
      press(at("verdict"), verdict);
      progress();
      if (place < rows.length - 1) await show(place + 1);
    } finally {
      storing = false;
    }
  }

  if (!rows.length) {
    at("trace").append(h("p", { class: "empty" }, "There is nothing to review."));
    return;
  }
  const answer = await fetch("reviews");
  for (const { trace_id, step, verdict, comment } of await answer.json()) {
    said.set(key(trace_id, step), { verdict, comment });
  }
  for (const button of document.querySelectorAll(".said [data-verdict]")) {
    button.addEventListener("click", () => decide(button.dataset.verdict));
  }
  at("back").addEventListener("click", () => show(place - 1));
  at("on").addEventListener("click", () => show(place + 1));
  at("verdict").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches("input")) {
      if (event.key === "Escape" || event.key === "Enter") event.target.blur();
      return;
    }
    const verdict = { r: "right", w: "wrong", u: "unsure" }[event.key.toLowerCase()];
    if (verdict) decide(verdict);
    else if (event.key === "ArrowLeft" && place > 0) show(place - 1);
    else if (event.key === "ArrowRight" && place < rows.length - 1) show(place + 1);
    else if (event.key.toLowerCase() === "c") { event.preventDefault(); at("comment").focus(); }
  });
  const asked = rows.findIndex((row) => row[0] === location.hash.slice(1));
  const open = rows.findIndex((row) => !said.has(key(row[0], null)));
  await show(asked >= 0 ? asked : Math.max(open, 0));
})();
