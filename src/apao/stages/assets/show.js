"use strict";
// Draws one history: its items, the search as a tree of prefixes, and both lists. The data is `page_case` in
// shown_search.py. Rows have one height, so links are drawn without measuring anything.
const data = JSON.parse(document.getElementById("data").textContent);
const ROW = 25, EDGE = 34, SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function vector(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- words and numbers

function ordinal(number) {
  const last = number % 100;
  const ending = last > 10 && last < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[number % 10] || "th";
  return number.toLocaleString("en") + ending;
}

function percent(logp, digits = 2) {
  const value = 100 * Math.exp(logp);
  return `${value < 1e-4 ? value.toExponential(digits - 1) : value.toPrecision(digits)} %`;
}

function named(item) {
  return item.titles[0] + (item.titles.length > 1 ? ` +${item.titles.length - 1}` : "");
}

function count(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}

// --- the head

function headline(shown) {
  const target = shown.target, top = shown.exact.length;
  if (target === null) {
    const lost = shown.exact.filter((item) => item.foundRank === null).length;
    return `Beam search returns ${top - lost} of the ${top} most probable items`;
  }
  if (target.lost && target.exactRank <= top) return `The right item ranks ${ordinal(target.exactRank)}, and beam search never returns it`;
  if (target.foundRank) return `The right item is found: ${ordinal(target.foundRank)} in the list of beam search`;
  return `The right item is not found: exactly, it ranks ${ordinal(target.exactRank)}`;
}

function lead(shown) {
  const target = shown.target, text = element("p", { class: "lead" });
  if (target !== null) {
    text.append("Scored exactly, ", element("b", {}, named(target)),
      ` is the ${target.exactRank === 1 ? "" : ordinal(target.exactRank) + " "}most probable next item of ${shown.codes.toLocaleString("en")}. `);
    if (target.lost) {
      text.append("Beam search drops it ", element("em", {}, `at step ${target.lost.step}`), `: its ${target.lost.step < shown.steps.length ? "prefix" : "code"} ranks ${ordinal(target.lost.place)} of `,
        `${count(target.lost.candidates, "candidate")} (${percent(target.lost.logp, 3)}; the last of the ${target.lost.kept} that are kept has `,
        `${percent(target.lost.lastKept, 3)}), and a prefix that is dropped does not come back. `);
    }
  }
  const lost = shown.exact.filter((item) => item.foundRank === null);
  const steps = shown.steps.map((step, i) => [i + 1, lost.filter((item) => item.lost && item.lost.step === i + 1).length]);
  const where = steps.filter(([, number]) => number).map(([step, number]) => `${number} at step ${step}`).join(", ");
  text.append(lost.length ? `Of the ${shown.exact.length} most probable items the search loses ${lost.length} (${where}).`
    : `None of the ${shown.exact.length} most probable items is lost.`);
  return text;
}

function historyStrip(shown) {
  const { titles, earlier, read } = shown.history, strip = element("div", { class: "history" });
  if (earlier) strip.append(element("span", { class: "quiet" }, `${count(earlier, "earlier item")}, then`));
  titles.forEach((title, i) => strip.append(
    element("span", { class: i >= titles.length - read ? "item read" : "item", title }, title)));
  strip.append(element("span", { class: "quiet" }, "→"),
    shown.target ? element("span", { class: "item target", title: shown.target.titles.join("; ") }, `★ ${named(shown.target)}`)
      : element("span", { class: "quiet" }, "?"));
  return strip;
}

// --- rows and links

function kind(row) {
  const fate = { kept: row.top ? "top" : "", cut: "lost", gone: "gone" }[row.fate];
  return row.target ? `${fate} target` : fate;
}

function placed(y, classes, path, ...children) {
  return element("div", { class: `row ${classes}`, style: `top:${y}px`, "data-path": path, tabindex: 0 }, ...children);
}

function bar(logp, best) {
  return element("span", { class: "bar", style: `width:${Math.max(0.5, 100 * Math.exp(logp - best)).toFixed(1)}%` });
}

function curve(from, to, attributes) {
  return vector("path", { d: `M0 ${from} C50 ${from} 50 ${to} 100 ${to}`, ...attributes });
}

function gap(height, links) {
  const order = (link) => ["", "top", "gone", "lost"].indexOf(link.classes.split(" ")[0]) + (link.classes.includes("target") ? 9 : 0);
  links.sort((one, other) => order(one) - order(other));
  const drawn = links.map((link) => curve(link.from, link.to, { class: link.classes, "stroke-width": link.width, "data-path": link.path }));
  return element("div", {}, element("div", { class: "head" }),
    vector("svg", { viewBox: `0 0 100 ${height}`, height, preserveAspectRatio: "none", "aria-hidden": "true" }, ...drawn));
}

// --- the tree

function tree(shown) {
  const steps = shown.steps, last = steps.length - 1;
  const keptRows = Math.max(...steps.map((step) => step.rows.filter((row) => row.fate === "kept").length + (step.hidden > 0)));
  const edge = keptRows * ROW, lostRows = Math.max(...steps.map((step) => step.rows.filter((row) => row.fate !== "kept").length));
  const height = edge + (lostRows ? EDGE + lostRows * ROW : 0);
  const exactRank = new Map(shown.exact.map((item) => [item.path, item.exactRank]));
  const figure = element("div", { class: "tree", style: `grid-template-columns:44px ${steps.map((_, i) => i < last ? "minmax(120px,1fr) 64px" : "2.3fr").join(" ")}` });
  let above = new Map([["", edge / 2]]);
  steps.forEach((step, level) => {
    const column = element("div", { class: "rows" }), links = [], here = new Map(), best = Math.max(...step.rows.map((row) => row.logp));
    let kept = 0, lost = 0;
    for (const row of step.rows) {
      const y = row.fate === "kept" ? ROW * kept++ : edge + EDGE + ROW * lost++;
      const middle = y + (ROW - 4) / 2, classes = kind(row), parent = row.path.split(".").slice(0, -1).join(".");
      here.set(row.path, middle);
      links.push({ from: above.get(parent) ?? edge / 2, to: middle, classes, path: row.path, width: row.top ? 2 * Math.sqrt(row.top) : row.target ? 2 : 1 });
      const rank = exactRank.get(row.path) ?? (row.target && level === last ? shown.target.exactRank : null);
      const why = row.fate === "cut" ? element("span", { class: "why" }, ordinal(row.place), element("span", { class: "wide" }, ` of ${step.candidates.toLocaleString("en")}`)) : null;
      column.append(placed(y, classes, row.path, bar(row.logp, best),
        element("span", { class: level < last ? "name token" : "name", title: row.titles.join("; ") },
          (row.target ? "★ " : "") + (level < last ? row.token : named(row))),
        why, level === last && rank ? element("span", { class: "number" }, `exactly ${ordinal(rank)}`) : null,
        element("span", { class: "number" }, percent(row.logp))));
    }
    if (step.hidden) column.append(element("span", { class: "note", style: `top:${ROW * kept}px` }, `and ${count(step.hidden, "other")} kept`));
    const head = element("div", { class: "head" }, element("b", {}, level < last ? `Step ${level + 1}` : `Step ${level + 1}: whole codes`),
      `${count(step.candidates, "candidate")}, ${step.kept} kept`);
    figure.append(gap(height, links), element("div", {}, head, element("div", { style: `height:${height}px;position:relative` }, column)));
    above = here;
  });
  if (lostRows) figure.append(element("div", { class: "edge", style: `top:calc(var(--head) + ${edge + EDGE / 2 - 2}px)` },
    element("span", {}, `▲ kept\u2003▼ dropped, though they lead to the exact top ${shown.exact.length}${shown.target ? " or the right item" : ""}`)));
  return figure;
}

// --- the lists

function lists(shown) {
  const height = Math.max(shown.found.length, shown.exact.length) * ROW, middle = (rank) => (rank - 1) * ROW + (ROW - 4) / 2;
  const best = shown.exact[0].logp, links = [];
  const left = element("div", { class: "rows" }), right = element("div", { class: "rows" });
  const star = (item) => (item.target ? "★ " : "") + named(item);
  shown.found.forEach((item, i) => {
    const listed = item.exactRank <= shown.exact.length;
    left.append(placed(i * ROW, (listed ? "top" : "") + (item.target ? " target" : ""), item.path, bar(item.logp, best),
      element("span", { class: "rank" }, i + 1), element("span", { class: "name", title: item.titles.join("; ") }, star(item)),
      listed ? null : element("span", { class: "number" }, `exactly ${ordinal(item.exactRank)}`),
      element("span", { class: "number" }, percent(item.logp))));
    if (listed) links.push({ from: middle(i + 1), to: middle(item.exactRank), path: item.path, width: 2, classes: item.target ? "top target" : "top" });
  });
  shown.exact.forEach((item, i) => {
    const lost = item.foundRank === null;
    right.append(placed(i * ROW, (lost ? "lost" : "top") + (item.target ? " target" : ""), item.path, bar(item.logp, best),
      element("span", { class: "rank" }, i + 1), element("span", { class: "name", title: item.titles.join("; ") }, star(item)),
      lost && item.lost ? element("span", { class: "why" }, `lost at step ${item.lost.step}, ${ordinal(item.lost.place)} of ${item.lost.candidates.toLocaleString("en")}`) : null,
      element("span", { class: "number" }, percent(item.logp))));
  });
  const column = (title, under, rows) => element("div", {}, element("div", { class: "head" }, element("b", {}, title), under),
    element("div", { style: `height:${height}px;position:relative` }, rows));
  return element("div", { class: "lists" }, column("Beam search returns", "the best codes it kept", left), gap(height, links),
    column("Exact scoring finds", "the best of all codes", right));
}

// --- what is under the pointer

function related(one, other) {
  return one === other || one.startsWith(`${other}.`) || other.startsWith(`${one}.`);
}

function light(page, path) {
  page.classList.toggle("lighting", path !== null);
  for (const each of page.querySelectorAll("[data-path]")) each.classList.toggle("lit", path !== null && related(each.dataset.path, path));
}

function explain(shown, path) {
  const level = path.split(".").length, row = shown.steps[level - 1].rows.find((each) => each.path === path);
  const item = [...shown.exact, ...shown.found].find((each) => each.path === path);
  const parts = [];
  if (row) {
    const tokens = path.split(".").map((_, i, all) => all.slice(0, i + 1).join(".")).map((each, i) => shown.steps[i].rows.find((one) => one.path === each));
    parts.push(`${tokens.map((each) => each ? each.token : "…").join(" ")}: ${percent(row.logp)}`);
    if (row.place) parts.push(`${ordinal(row.place)} of ${count(shown.steps[level - 1].candidates, "candidate")} of step ${level}`);
    if (row.fate === "gone") parts.push("its beginning was dropped before");
    if (level < shown.steps.length && row.top) parts.push(`${count(row.top, "item")} of the exact top ${shown.exact.length} begin${row.top === 1 ? "s" : ""} so`);
  }
  if (item) parts.push(`${item.titles.join("; ")}: exactly ${ordinal(item.exactRank)}, ${item.foundRank ? `${ordinal(item.foundRank)} of the search` : "not found"}`);
  return parts.join(". ") + ".";
}

function lively(page, shown) {
  const hint = "Point at a row to follow its path.", detail = page.querySelector(".detail");
  const over = (event) => {
    const row = event.target.closest(".row");
    light(page, row ? row.dataset.path : null);
    detail.textContent = row ? explain(shown, row.dataset.path) : hint;
  };
  for (const name of ["pointerover", "focusin"]) page.addEventListener(name, over);
  page.addEventListener("pointerleave", () => { light(page, null); detail.textContent = hint; });
  detail.textContent = hint;
}

// --- the page

function legend(shown) {
  return element("div", { class: "legend" }, element("span", { class: "kept" }, `leads to the exact top ${shown.exact.length} (thicker: to more of it)`),
    element("span", {}, "kept, leads to none of it"), element("span", { class: "lost" }, "dropped (dashed: since an earlier step)"),
    shown.target ? element("span", { class: "target" }, "the right item") : null);
}

function page(shown) {
  const made = element("div", {});
  made.append(element("h1", {}, headline(shown)), lead(shown),
    element("section", {}, element("h2", {}, shown.target ? "What the user had, and what came next" : "The history"),
      element("p", {}, `The model reads the newest ${count(shown.history.read, "item")} (blue).`), historyStrip(shown)),
    element("section", {}, element("h2", {}, "The search, step by step"),
      element("p", {}, "Each step continues the kept prefixes by one token and keeps the best of the results. Bars are probabilities of whole prefixes."),
      legend(shown), element("p", { class: "detail", "aria-live": "polite" }), element("div", { class: "scroll" }, tree(shown))),
    element("section", {}, element("h2", {}, "Both lists"), element("p", {}, data.lists),
      element("div", { class: "scroll" }, lists(shown))));
  lively(made, shown);
  return made;
}

function start() {
  const main = document.querySelector("main"), place = element("div", {});
  const show = (index) => place.replaceChildren(page(data.cases[index]));
  const picker = element("select", { "aria-label": "Which user" }, ...data.cases.map((each, i) => element("option", { value: i }, each.label)));
  picker.addEventListener("change", () => show(picker.value));
  main.replaceChildren(element("div", { class: "run" }, element("span", {}, data.run), data.cases.length > 1 ? picker : null), place,
    element("footer", {}, data.footer));
  show(0);
}

start();
