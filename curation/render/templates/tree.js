/* One search tree: an outline to walk with the mouse or the arrow keys, and beside it the picture
   with the points on the way to the node that is looked at.
*/
"use strict";

gallery.load(document.documentElement.dataset.tree).then((tree) => {
  const { h, worth, graded, grade, pictures, steps, plural } = gallery;
  const at = (id) => document.getElementById(id);
  const byId = new Map(tree.nodes.map((node) => [node.id, { ...node, children: [] }]));
  const root = byId.get(tree.nodes[0].id);
  for (const node of byId.values()) if (node.parent !== null) byId.get(node.parent).children.push(node);
  const most = Math.max(1, root.visits);
  let selected = root;

  const lineage = (node) => (node.parent === null ? [node] : [...lineage(byId.get(node.parent)), node]);

  function title(node) {
    if (node.parent === null) return h("span", { class: "thought" }, h("b", {}, "The question"));
    if (node.step === null) return h("span", { class: "thought" }, h("b", {}, "Answers ", ...gallery.thought(node.answer ?? "nothing", node.answer_places)), " ", graded(node.reward));
    return h("span", { class: "thought" }, ...gallery.thought(node.step.text, node.step.places));
  }

  function row(node) {
    const signs = node.rollouts.map((rollout) => {
      const { look, sign, word } = grade(rollout.reward);
      return h("span", { class: look, title: `rollout ${rollout.id}: ${word}` }, sign);
    });
    const lean = node.children.length
      ? h("span", { class: "fold", "aria-hidden": "true", onclick: (event) => { event.stopPropagation(); fold(node); } })
      : h("span", { class: "leaf", "aria-hidden": "true" });
    return h("div", { class: "row", onclick: () => pick(node), onmouseenter: () => look(node) },
      lean, worth(node.value),
      node.step ? gallery.numeral(node.step.n, "step") : null,
      h("div", { class: "says" }, title(node),
        node.discarded ? h("span", { class: "told" }, `Discarded: ${node.discarded.replaceAll("_", " ")}`) : null),
      h("span", { class: "visits", "--much": `${(100 * node.visits) / most}%`, title: plural(node.visits, "visit") },
        plural(node.visits, "visit")),
      h("span", { class: "rolled", "aria-label": plural(node.rollouts.length, "rollout") }, ...signs));
  }

  function item(node) {
    node.item = h("li", {
      role: "treeitem", tabindex: node === root ? "0" : "-1", "aria-selected": "false",
      "aria-expanded": node.children.length ? "true" : null, class: node.discarded ? "discarded" : null,
      onfocus: (event) => { if (event.target === node.item) pick(node); },
    }, row(node), node.children.length
      ? h("ul", { role: "group" }, ...node.children.map(item)) : null);
    return node.item;
  }

  function fold(node, open) {
    if (!node.children.length) return;
    open ??= node.item.getAttribute("aria-expanded") !== "true";
    node.item.setAttribute("aria-expanded", String(open));
  }

  function pick(node) {
    for (const each of byId.values()) {
      each.item.setAttribute("aria-selected", String(each === node));
      each.item.tabIndex = each === node ? 0 : -1;
    }
    selected = node;
    look(node);
  }

  /** Draw the points on the way to `node`, and those of a rollout below it when one is given. */
  function draw(node, rollout) {
    const way = lineage(node).map((above) => above.step).filter(Boolean);
    const all = rollout ? [...way, ...rollout.steps] : way;
    at("picture").replaceChildren(pictures(tree.images, all, { boxes: tree.boxes, alt: tree.q }));
    gallery.watch(at("side"));
    return way;
  }

  function rolled(node, rollout) {
    const lit = () => draw(node, rollout);
    const dark = () => draw(node);
    return h("li", { tabindex: "0", onmouseenter: lit, onfocus: lit, onmouseleave: dark, onblur: dark },
      h("p", { class: "answer" }, h("span", { class: "quiet" }, `Rollout ${rollout.id}`),
        h("b", {}, ...gallery.thought(rollout.answer ?? "no answer", rollout.answer_places)), graded(rollout.reward)),
      h("p", { class: "quiet" }, rollout.reason),
      ...rollout.steps.map((step) => h("div", { class: "small" }, gallery.numeral(step.n, step.role),
        h("div", {}, h("p", {}, ...gallery.thought(step.text, step.places),
          ...step.marks.filter((mark) => mark.out).map((mark) => h("span", { class: "told" }, mark.out))),
        step.look ? gallery.seen(step.look, tree.images) : null))));
  }

  let shown = null;
  function look(node) {
    if (shown === node) return;
    shown = node;
    const way = draw(node);
    const facts = [plural(node.visits, "visit"),
      node.value === null ? "no value yet" : `value ${node.value.toFixed(3)}`,
      node.reward === null ? null : `reward ${node.reward}`, node.reason || null,
      node.problems.length ? node.problems.join(", ") : null].filter(Boolean).join(" · ");
    at("detail").replaceChildren(...[
      way.length ? steps(way, at("side"), tree.images) : null,
      node.answer === null ? null : h("div", { class: "result" }, h("span", { class: "label" }, "Answer"),
        h("b", {}, ...gallery.thought(node.answer, node.answer_places)), graded(node.reward)),
      h("p", { class: "quiet" }, `Node ${node.id}: ${facts}`),
      node.discarded ? h("p", { class: "told" }, `Discarded: ${node.discarded.replaceAll("_", " ")}`) : null,
      node.rollouts.length ? h("ul", { class: "rollouts" }, ...node.rollouts.map((r) => rolled(node, r))) : null,
    ].filter(Boolean));
  }

  const visible = () => [...byId.values()].filter((node) => node.item.checkVisibility?.() ?? node.item.offsetParent);
  at("tree").addEventListener("keydown", (event) => {
    const here = visible();
    const i = here.indexOf(selected);
    const open = selected.item.getAttribute("aria-expanded") === "true";
    const to = {
      ArrowDown: () => here[i + 1], ArrowUp: () => here[i - 1], Home: () => here[0], End: () => here.at(-1),
      ArrowRight: () => (open ? selected.children[0] : fold(selected, true)),
      ArrowLeft: () => (open ? fold(selected, false) : byId.get(selected.parent)),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    to()?.item.focus();
  });
  at("tree").addEventListener("mouseleave", () => look(selected));
  at("tree").append(item(root));
  at("facts").textContent = [tree.task, tree.family.replaceAll("_", " "), tree.choices.join(" / "),
    tree.gold.length ? `gold: ${tree.gold.join(", or ")}` : ""].filter(Boolean).join(" · ");
  at("ids").append(...gallery.id("tree_id", tree.id), ...gallery.id("question_id", tree.question));
  at("errors").append(...tree.errors.map((error) => h("li", {}, error)));
  at("failed").hidden = !tree.errors.length;
  at("open-all").addEventListener("click", () => byId.forEach((node) => fold(node, true)));
  at("close-all").addEventListener("click", () => byId.forEach((node) => fold(node, node === root)));
  // Open at the end of the way the search preferred: it shows what the page can do.
  let best = root;
  const busier = (a, b) => (b.visits > a.visits ? b : a);
  while (best.children.length) best = best.children.reduce(busier);
  pick(best);
});
