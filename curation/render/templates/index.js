/* The first page: cards of traces with filters and pages of cards, the opened trace, and the trees.

   Filters work on the short rows of the index; a card's own data is loaded when it is shown.
*/
"use strict";

(() => {
  const { h, load, plural, graded, pictures, steps, thought, worth } = gallery;
  const { rows, names, chunk, trees } = gallery.index;
  const PAGE = 24;
  const at = (id) => document.getElementById(id);
  if (!rows.length && !trees.length) return; // the page itself says that it is empty

  // A group of filters: what it is called, the values of a row, and each value's name.
  const verdict = (row) => (row[4] === null ? 2 : row[4] ? 0 : 1);
  const groups = [
    { label: "Verdict", values: (row) => [verdict(row)], names: ["Kept", "Rejected", "Not judged"] },
    { label: "Kind", values: (row) => [row[1]], names: names.kind },
    { label: "Family", values: (row) => [row[2]], names: names.family },
    { label: "Dropped by", values: (row) => row[3], names: names.filter },
  ];
  const chosen = groups.map(() => null);
  const all = rows.map((_, i) => i);
  const passes = (i, but) => groups.every((group, g) =>
    g === but || chosen[g] === null || group.values(rows[i]).includes(chosen[g]));
  let found = all;
  let page = 0;
  let drawing = 0;
  const spoken = (name) => name.replaceAll("_", " ");

  function filters() {
    const lines = groups.map((group, g) => {
      if (!group.names.length) return null;
      const counts = group.names.map(() => 0);
      let any = 0;
      for (const i of all) {
        if (!passes(i, g)) continue;
        any += 1;
        for (const value of group.values(rows[i])) counts[value] += 1;
      }
      const button = (value, name, count) => {
        if (value !== null && !group.has[value]) return null;
        return h("button", {
          class: "chip", "aria-pressed": String(chosen[g] === value),
          onclick: () => { chosen[g] = value; page = 0; show(`${g}/${value}`); },
          "data-key": `${g}/${value}`,
        }, spoken(name), h("span", { class: "count" }, count.toLocaleString()));
      };
      return h("div", { class: "group", role: "group", "aria-label": group.label },
        h("span", { class: "label" }, group.label), h("div", { class: "chips" },
          button(null, "All", any), ...group.names.map((name, v) => button(v, name, counts[v]))));
    });
    at("filters").replaceChildren(...lines.filter(Boolean));
  }
  for (const group of groups) {
    group.has = group.names.map(() => false);
    for (const row of rows) for (const value of group.values(row)) group.has[value] = true;
  }

  const trace = async (i) => (await load(`traces-${String(Math.floor(i / chunk)).padStart(5, "0")}`))[i % chunk];

  function standing(entry) {
    if (entry.kept === null) return h("p", { class: "standing none" }, "Not judged");
    if (entry.kept) return h("p", { class: "standing good" }, "Kept");
    const [first, ...more] = entry.verdicts.filter((v) => !v.keep);
    const rest = more.length ? `, and ${more.length} more` : "";
    return h("p", { class: "standing bad" },
      h("b", {}, "Rejected"), " ", `${first.reason || spoken(first.filter)}${rest}`);
  }

  function card(entry, place) {
    return h("article", { class: "card" },
      pictures(entry.images, entry.steps, { answer: entry.answer_marks }),
      h("h2", {}, h("button", { class: "open", onclick: () => open(place) }, entry.q)),
      h("p", { class: "answer" }, h("b", {}, ...thought(entry.answer ?? "no answer", entry.answer_places)), graded(entry.reward)),
      h("p", { class: "facts" },
        [entry.kind, plural(entry.steps.length, "step"), spoken(entry.family)].filter(Boolean).join(" · ")),
      standing(entry));
  }

  async function show(focus) {
    const turn = ++drawing;
    found = all.filter((i) => passes(i));
    filters();
    if (focus) document.querySelector(`[data-key="${focus}"]`)?.focus();
    const first = page * PAGE;
    const entries = await Promise.all(found.slice(first, first + PAGE).map(trace));
    if (turn !== drawing) return; // another choice was made while these were loading
    at("cards").replaceChildren(...entries.map((entry, k) => card(entry, first + k)));
    const clear = h("button", { class: "chip", onclick: () => {
      chosen.fill(null); page = 0; show();
    } }, "Clear the filters");
    if (!found.length) at("cards").append(h("p", { class: "empty" }, "No trace is all of this. ", clear));
    at("tally").textContent = found.length === rows.length
      ? plural(rows.length, "trace") : `${found.length.toLocaleString()} of ${plural(rows.length, "trace")}`;
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    const turnTo = (to) => () => { page = to; show(); at("cards").scrollIntoView(); };
    at("pager").replaceChildren(...(last ? [
      h("button", { class: "chip", disabled: page === 0, onclick: turnTo(0) }, "First"),
      h("button", { class: "chip", disabled: page === 0, onclick: turnTo(page - 1) }, "Previous"),
      h("span", {}, `${first + 1}–${Math.min(first + PAGE, found.length)} of ${found.length.toLocaleString()}`),
      h("button", { class: "chip", disabled: page === last, onclick: turnTo(page + 1) }, "Next"),
      h("button", { class: "chip", disabled: page === last, onclick: turnTo(last) }, "Last"),
    ] : []));
  }

  const dialog = at("opened");

  function judgements(entry) {
    if (!entry.verdicts.length) return h("p", { class: "quiet" }, "No filter has judged this trace.");
    return h("ul", { class: "verdicts" }, ...entry.verdicts.map((v) => h("li", { class: v.keep ? "good" : "bad" },
      h("span", { class: "sign", "aria-hidden": "true" }, v.keep ? "✓" : "✗"),
      h("span", { class: "name" }, spoken(v.filter)),
      h("span", { class: "why" }, v.reason || (v.keep ? "passes" : "dropped")),
      v.score === null ? null : h("span", { class: "score" }, "score ", String(Math.round(v.score * 1000) / 1000)))));
  }

  /** Open the trace at `place` of those found. */
  async function open(place, way = "on") {
    const entry = await trace(found[place]);
    const go = (to, by) => () => open(to, by);
    const view = h("div", { class: "view" },
      h("div", { class: "look" }, pictures(entry.images, entry.steps, {
        answer: entry.answer_marks, boxes: entry.boxes, alt: entry.q,
      }), entry.boxes.length ? h("p", { class: "quiet" }, "Dotted: the gold region.") : null),
      h("div", { class: "read" },
        h("p", { class: "facts" }, [entry.task, spoken(entry.family), entry.kind].filter(Boolean).join(" · ")),
        h("h2", { id: "opened-title" }, entry.q),
        entry.choices.length ? h("p", { class: "quiet" }, entry.choices.join(" / ")) : null));
    const read = view.querySelector(".read");
    read.append(...[steps(entry.steps, view, entry.images),
      h("div", { class: "result" }, h("span", { class: "label" }, "Answer"),
        h("b", {}, ...thought(entry.answer ?? "no answer was given", entry.answer_places)), graded(entry.reward),
        entry.gold.length && !(entry.reward >= 1) ? h("span", { class: "quiet" }, `Right would be: ${entry.gold.join(", or ")}`) : null,
        ...entry.answer_marks.filter((m) => m.out).map((m) => h("span", { class: "told" }, m.out))),
      h("h3", {}, entry.kept === null ? "Verdicts" : entry.kept ? "Kept" : "Rejected"), judgements(entry),
      entry.problems.length ? h("p", { class: "quiet" }, `The responses had: ${entry.problems.map(spoken).join(", ")}`) : null,
      h("dl", { class: "ids" }, ...gallery.id("trace_id", entry.id), ...gallery.id("question_id", entry.question),
        ...(entry.tree ? gallery.id("tree_id", entry.tree) : [])),
      entry.page ? h("p", {}, h("a", { href: entry.page }, "See the tree it was cut from")) : null,
    ].filter(Boolean));
    gallery.watch(view);
    dialog.replaceChildren(h("div", { class: "bar" },
      h("button", { class: "chip", id: "back", disabled: place === 0, onclick: go(place - 1, "back") }, "Previous"),
      h("button", { class: "chip", id: "on", disabled: place === found.length - 1, onclick: go(place + 1) }, "Next"),
      h("span", { class: "quiet" }, `${(place + 1).toLocaleString()} of ${found.length.toLocaleString()}`),
      h("button", { class: "chip close", onclick: () => dialog.close() }, "Close")), view);
    if (!dialog.open) dialog.showModal();
    else at(way === "back" && place ? "back" : "on").focus();
    dialog.scrollTop = 0;
    history.replaceState(null, "", `#${entry.id}`);
  }
  dialog.addEventListener("close", () => history.replaceState(null, "", "#"));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: "back", ArrowRight: "on" }[event.key];
    if (way) at(way).click();
  });

  function treeCard(tree) {
    return h("article", { class: "card" }, pictures(tree.images, []),
      h("h2", {}, h("a", { class: "open", href: tree.page }, tree.q)),
      h("p", { class: "answer" }, worth(tree.value), `${tree.right} of ${plural(tree.ends, "answer")} correct`),
      h("p", { class: "facts" }, [plural(tree.nodes, "node"), plural(tree.simulations, "simulation"),
        spoken(tree.family)].filter(Boolean).join(" · ")));
  }

  /** Which of the two lists is shown; the trees are drawn at their first showing. */
  function turnTo(part) {
    const grown = at("tree-cards");
    if (part === "trees" && !grown.children.length) grown.append(...trees.map(treeCard));
    at("trace-list").hidden = part !== "traces";
    at("tree-list").hidden = part !== "trees";
    for (const tab of document.querySelectorAll(".tabs button")) {
      tab.setAttribute("aria-pressed", String(tab.dataset.part === part));
    }
  }
  for (const tab of document.querySelectorAll(".tabs button")) {
    tab.addEventListener("click", () => {
      turnTo(tab.dataset.part);
      history.replaceState(null, "", tab.dataset.part === "trees" ? "#trees" : "#");
    });
  }

  const asked = location.hash.slice(1);
  turnTo(asked === "trees" || !rows.length ? "trees" : "traces");
  if (rows.length) {
    show().then(() => {
      const place = asked ? rows.findIndex((row) => row[0] === asked) : -1;
      if (place >= 0) open(place);
    });
  }
})();
