/* What every page of a gallery shares: loading data files, building elements, drawing marks.

   Texts become text nodes, never HTML. Data arrives by script tags, because a page opened from disk
   may not fetch. A mark's place is a share of its picture; its badge stands off in nominal pixels.
*/
"use strict";

const gallery = (() => {
  const root = document.documentElement.dataset.root || "";
  const known = {};
  const waiting = {};

  /** Called by each data file with its name and its content. */
  const take = (name, value) => { known[name] = value; };

  /** The content of data file `name`, loaded at its first use. */
  function load(name) {
    if (name in known) return Promise.resolve(known[name]);
    waiting[name] ??= new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = `${root}data/${name}.js`;
      script.onload = () => done(known[name]);
      script.onerror = () => fail(new Error(`${script.src} could not be read`));
      document.head.append(script);
    });
    return waiting[name];
  }

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name.startsWith("--")) element.style.setProperty(name, value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }
  const h = (tag, attributes = {}, ...children) =>
    fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;

  /** How an answer was graded: a class, a sign and a word. None of the three is said alone. */
  function grade(reward) {
    if (reward === null) return { look: "none", sign: "–", word: "not graded" };
    if (reward >= 1) return { look: "good", sign: "✓", word: "correct" };
    if (reward > 0) return { look: "bad", sign: "~", word: `partly correct (${reward.toFixed(2)})` };
    return { look: "bad", sign: "✗", word: "wrong" };
  }
  function graded(reward) {
    const { look, sign, word } = grade(reward);
    return h("span", { class: `graded ${look}` }, h("span", { "aria-hidden": "true" }, sign), word);
  }

  /** A node's mean reward as a chip between the colours of wrong and right. */
  function worth(value) {
    const none = value === null;
    const share = none ? null : `${Math.round(value * 100)}%`;
    const title = none ? "no reward yet" : `mean reward ${value.toFixed(3)}`;
    return h("span", { class: none ? "worth none" : "worth", "--share": share, title },
      none ? "–" : value.toFixed(2));
  }

  const numeral = (n, role) => h("span", { class: `numeral ${role}` }, n);

  function badge(role, radius, name) {
    if (role !== "wrong") return s("circle", { r: radius, class: name });
    return s("rect", {
      x: -radius, y: -radius, width: 2 * radius, height: 2 * radius, rx: radius * 0.35, class: name,
    });
  }

  function drawMark(mark) {
    const [dx, dy] = mark.badge;
    const [wx, wy] = mark.way;
    const parts = mark.out
      ? [s("path", { class: "arrow", d:
        `M${dx + wx * 24} ${dy + wy * 24}L${dx + wx * 15 + wy * 6} ${dy + wy * 15 - wx * 6}` +
        `L${dx + wx * 15 - wy * 6} ${dy + wy * 15 + wx * 6}Z` })]
      : [s("line", { x2: dx, y2: dy, class: "halo" }), s("line", { x2: dx, y2: dy, class: "stem" }),
        s("circle", { r: 5.6, class: "ring-halo" }), s("circle", { r: 3.9, class: "ring" }),
        s("circle", { r: 1.5, class: "dot" })];
    const label = s("g", { transform: `translate(${dx} ${dy})` }, badge(mark.role, 11, "rim"),
      badge(mark.role, 9.4, "face"),
      s("text", { dy: "0.36em", class: mark.n.length > 1 ? "long" : null }, mark.n));
    const name = `mark ${mark.role}${mark.out ? " out" : ""}`;
    return s("svg", { x: `${mark.x * 100}%`, y: `${mark.y * 100}%`, overflow: "visible" },
      s("g", { class: name, "data-n": mark.n }, ...parts, label));
  }

  /** The thin line from point to point; into a step of a wrong attempt it is dashed. */
  function drawRoute(marks) {
    const pairs = marks.slice(1).map((to, i) => [marks[i], to]);
    const line = ([a, b], name) => s("line", {
      x1: `${a.x * 100}%`, y1: `${a.y * 100}%`, x2: `${b.x * 100}%`, y2: `${b.y * 100}%`,
      class: `${name} ${b.role}`,
    });
    return [...pairs.map((p) => line(p, "route-halo")), ...pairs.map((p) => line(p, "route"))];
  }

  const outline = (box, { w, h: tall }, name) => s("rect", {
    x: `${(box.x1 / w) * 100}%`, y: `${(box.y1 / tall) * 100}%`, class: name,
    width: `${((box.x2 - box.x1) / w) * 100}%`, height: `${((box.y2 - box.y1) / tall) * 100}%`,
  });

  /** The region that a step looked at closer; a tab at its corner names the crop, above it where
      there is room. */
  function drawRegion({ n, role, look }, image) {
    const { crop, number } = look;
    const above = crop.y1 / image.h > 0.05;
    const [width, top] = [number > 9 ? 62 : 56, above ? -18 : 1];
    const tab = number === null ? null : s("svg", {
      x: `${(crop.x1 / image.w) * 100}%`, y: `${((above ? crop.y1 : crop.y2) / image.h) * 100}%`, overflow: "visible",
    }, s("g", { class: "tab" }, s("rect", { x: -1, y: top, width, height: 17 }),
      s("text", { x: width / 2 - 1, y: top + 12.5 }, `image ${number}`)));
    return s("g", { class: `region ${role}`, "data-n": n },
      outline(crop, image, "region-halo"), outline(crop, image, "crop"), tab);
  }

  /** What a step's call showed, cut out of the image on this page; or why nothing was shown. */
  function seen(look, images) {
    const { crop, dot, told, width } = look;
    if (!crop) return h("p", { class: "told" }, told);
    const image = images[crop.image];
    const [w, tall] = [crop.x2 - crop.x1, crop.y2 - crop.y1];
    const shown = image?.src
      ? s("svg", { viewBox: `${crop.x1} ${crop.y1} ${w} ${tall}`, role: "img", "aria-label": told,
        "--r": w / tall, preserveAspectRatio: "none" },
      s("image", { href: root + image.src, width: image.w, height: image.h, preserveAspectRatio: "none" }),
      dot ? s("circle", { cx: dot[0], cy: dot[1], r: (8 * w) / width, class: "dotted", "stroke-width": (2 * w) / width }) : null)
      : h("span", { class: "missing" }, "This image is missing or cannot be read.");
    return h("figure", { class: "seen" }, shown, h("figcaption", {}, told));
  }

  // Badges were laid out on a picture of 480 pixels: they grow and shrink with it, within reason.
  const fitted = new ResizeObserver((seen) => requestAnimationFrame(() => {
    for (const { target, contentRect } of seen) {
      const unit = contentRect.width / target.children.length / 480;
      target.style.setProperty("--unit", Math.min(Math.max(unit, 0.68), 1.15).toFixed(2));
    }
  }));

  /** The pictures of a question side by side with marks on them.
      `steps` carry marks and crops; gold boxes are outlined only when given. */
  function pictures(images, steps, { answer = [], boxes = [], alt = "" } = {}) {
    const stages = images.map((image, i) => {
      const route = steps.flatMap((step) => step.marks).filter((mark) => mark.image === i);
      const marks = [...route, ...answer.filter((mark) => mark.image === i)];
      const looks = steps.filter((step) => step.look?.crop && step.look.crop.image === i);
      const which = images.length > 1 ? `Image ${i + 1} of ${images.length}. ` : "";
      const words = `${which}${alt}${marks.length ? ` Marked: ${marks.map((m) => m.n).join(", ")}.` : ""}`;
      const shown = image.src
        ? h("img", { src: root + image.src, alt: words, loading: "lazy", decoding: "async" })
        : h("span", { class: "missing" }, "This image is missing or cannot be read.");
      const overlay = s("svg", { class: "overlay", "aria-hidden": "true" },
        ...boxes.filter((box) => box.image === i).map((box) => outline(box, image, "gold")),
        ...looks.map((step) => drawRegion(step, image)),
        ...drawRoute(route), ...marks.map(drawMark));
      // Room for the badges of points outside, on the sides where there are some.
      const room = (axis, sign) => Number(marks.some((mark) => mark.out && mark.badge[axis] * sign >= 20));
      return h("div", { class: "stage", "--r": image.w / image.h, "--left": room(0, -1),
        "--right": room(0, 1), "--above": room(1, -1), "--below": room(1, 1),
        "data-name": images.length > 1 ? `Image ${i + 1}` : null },
        shown, overlay);
    });
    const shown = h("div", { class: "pictures", "--n": images.length }, ...stages);
    fitted.observe(shown);
    return shown;
  }

  /** A text, the coordinates at its `places` set apart in whole pixels; the exact ones show when
   *  pointed at. All else in it stays as it is written. */
  const thought = (text, places = []) => {
    const parts = [];
    let at = 0;
    for (const [start, end] of places) {
      const exact = text.slice(start, end);
      const whole = exact.replace(/-?\d+\.\d+/g, (x) => String(Math.round(Number(x)) + 0));
      parts.push(text.slice(at, start),
        h("span", { class: "coordinate", title: whole === exact ? null : exact }, whole));
      at = end;
    }
    return [...parts, text.slice(at)];
  };

  /** A numbered list of steps, each with what it was shown of `images`; pointing at one lights its
      marks in `where`. */
  function steps(list, where, images) {
    const notes = { wrong: "Wrong attempt", turn: "Turns back" };
    return h("ol", { class: "steps" }, ...list.map((step, i) => {
      const first = i === 0 || list[i - 1].role !== step.role;
      const lit = () => light(where, step.n);
      const dark = () => light(where, null);
      return h("li", {
        class: step.role, tabindex: "0", "data-n": step.n,
        onmouseenter: lit, onfocus: lit, onmouseleave: dark, onblur: dark,
      }, numeral(step.n, step.role), h("div", {},
        first && notes[step.role] ? h("span", { class: "note" }, notes[step.role]) : null,
        h("p", {}, ...thought(step.text, step.places)),
        ...step.marks.filter((mark) => mark.out).map((mark) => h("p", { class: "told" }, mark.out)),
        step.look ? seen(step.look, images) : null));
    }));
  }

  /** Light the marks and steps numbered `n` inside `where`; null lights none. */
  function light(where, n) {
    where.classList.toggle("lit", n !== null);
    for (const each of where.querySelectorAll("[data-n]")) {
      each.classList.toggle("on", n !== null && each.dataset.n === n);
    }
  }

  /** Pointing at a mark in `where` lights it and its step. */
  function watch(where) {
    for (const mark of where.querySelectorAll(".mark")) {
      mark.addEventListener("mouseenter", () => light(where, mark.dataset.n));
      mark.addEventListener("mouseleave", () => light(where, null));
    }
  }

  /** An id with a button that copies it. */
  function id(name, value) {
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(value);
      } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1200);
    };
    const code = h("code", {}, value);
    const button = h("button", { class: "copy", "aria-label": `Copy ${name}`, onclick: copy }, "Copy");
    return [h("dt", {}, name), h("dd", {}, code, button)];
  }

  return { root, take, load, h, s, plural, grade, graded, worth, numeral, pictures, seen, steps, thought,
    light, watch, id, get index() { return known.index; } };
})();
