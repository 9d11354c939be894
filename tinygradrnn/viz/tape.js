"use strict";
// One tape: DATA holds its facts, `view` what the reader has opened and where the reader is.
const { items, rows, crossings, kinds, visits, leaves, times, most } = DATA;
for (const item of items) Object.assign(item, DATA.facts[item.facts]);
for (const visit of visits) visit.cotangents ??= items[visit.item].gradients;
const nodes = items.filter((item) => item.operation);
const tour = [
  ...nodes.map((item) => ({ back: false, item: item.number })),
  ...visits.map((visit, i) => ({ back: true, item: visit.item, visit: i })),
];
const view = { open: new Set(), shown: new Set(), at: -1, item: null, leaf: null, auto: null };
const SIZE = { box: [104, 54], space: 58, left: 176, rolled: 210, pill: [92, 22] };
const SIGNS = { multiply: "×", add: "+", subtract: "−", matmul: "@", divide: "÷" };
const $ = (id) => document.getElementById(id);
const short = (text, most) => (text.length <= most ? text : text.slice(0, most - 1) + "…");
const key = (r, b) => `${r}/${b}`;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "circle", "title", "defs", "marker"];
  const node = svg.includes(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const label = (x, y, text, kind, size = 12, anchor = "middle", weight = 400) =>
  make("text", { x, y, class: kind, "font-size": size, "text-anchor": anchor,
    "font-weight": weight }, text);
const frame = (x, y, width, height, kind) =>
  make("rect", { x, y, width, height, rx: 7, class: kind });
const line = (d, kind, tip, width, about) => {
  const path = make("path", { d, class: kind });
  if (tip) path.setAttribute("marker-end", `url(#${tip})`);
  if (width) path.setAttribute("stroke-width", width);
  if (about) path.append(make("title", {}, about));
  return path;
};
const number = (x) => {
  x = Number(x);
  if (!Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  return x === 0 || (size >= 1e-3 && size < 1e4) ? String(Number(x.toPrecision(4)))
    : x.toExponential(2);
};
const shape = (s) => `(${s.join(", ")}${s.length === 1 ? "," : ""})`;
const called = (item) => {
  const sign = SIGNS[item.operation] || item.operation;
  return item.name && item.operation ? `${item.name} = ${sign}` : item.name || sign;
};

// ---------------------------------------------------------------- which steps have a column

function columns() {
  if (times.length <= most) return times.map((t) => [t, t]);
  const ends = Math.max(1, Math.floor((most - 1) / 2));
  const shown = new Set([...times.slice(0, ends), ...times.slice(-ends), ...view.shown]);
  const found = [];
  for (const t of [...shown].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && t > last[1] + 1) found.push([last[1] + 1, t - 1]);
    found.push([t, t]);
  }
  return found;
}

const isOpen = (r, b) => view.open.has(key(r, b));
const normOf = (r, b) =>
  Math.hypot(...crossings.filter((c) => c.first[0] === r && c.first[1] === b && c.norm)
    .map((c) => c.norm));

// --------------------------------------------------------------------------------- drawing

function draw() {
  const drawn = columns();
  const at = rows.map((row) => new Map(row.boxes.map((box, b) => [box.t, b])));
  const widths = drawn.map(([a, z]) => {
    if (a !== z) return SIZE.rolled;
    const wide = rows.map((row, r) => {
      const b = at[r].get(a);
      return row.loop && b !== undefined && isOpen(r, b) ? kinds[row.boxes[b].kind].width : 0;
    });
    return Math.max(SIZE.box[0], ...wide);
  });
  const lefts = [];
  let right = SIZE.left + 30;
  for (const width of widths) {
    lefts.push(right);
    right += width + SIZE.space;
  }
  right = Math.max(right - SIZE.space + 34, SIZE.left + 420);
  const heights = rows.map((row, r) => {
    const open = row.boxes.map((box, b) => (isOpen(r, b) ? kinds[box.kind].height + 22 : 0));
    return Math.max(row.loop ? SIZE.box[1] : 30, ...open);
  });
  const body = heights.reduce((sum, h) => sum + h + 52, 0);
  const height = Math.max(46 + body + 30, 70 + 34 * leaves.length);
  const svg = make("svg", { width: right, height, viewBox: `0 0 ${right} ${height}`, role: "group",
    "font-family": "system-ui, sans-serif" });
  svg.append(make("defs", {}, tip("tip", "#777"), tip("waytip", "#d55e00")));
  const places = new Map();
  const wires = make("g");
  const boxes = make("g");
  svg.append(wires, boxes);
  let low = height - 64;
  rows.forEach((row, r) => {
    const top = low - heights[r];
    low = top - 52;
    if (!row.loop) {
      const place = [SIZE.left + 30, top, right - SIZE.left - 64, heights[r]];
      places.set(key(r, 0), place);
      boxes.append(isOpen(r, 0) ? opened(r, 0, place) : bar(r, place));
      return;
    }
    drawn.forEach(([a, z], i) => {
      const inside = row.boxes.map((box, b) => b).filter((b) => {
        const t = row.boxes[b].t;
        return a <= t && t <= z;
      });
      if (!inside.length) return;
      const middle = top + (heights[r] - SIZE.box[1]) / 2;
      const place = [lefts[i], middle, widths[i], SIZE.box[1]];
      if (a !== z) {
        for (const b of inside) places.set(key(r, b), place);
        boxes.append(rolled(r, inside, place));
      } else if (isOpen(r, inside[0])) {
        const kind = kinds[row.boxes[inside[0]].kind];
        const tall = kind.height + 22;
        const open = [lefts[i] + (widths[i] - kind.width) / 2, top + (heights[r] - tall) / 2,
          kind.width, tall];
        places.set(key(r, inside[0]), open);
        boxes.append(opened(r, inside[0], open));
      } else {
        places.set(key(r, inside[0]), place);
        boxes.append(closed(r, inside[0], place));
      }
      if (row.boxes[inside[0]].data) {
        const [x, y, w, h] = places.get(key(r, inside[0]));
        const mx = x + w / 2 - 24;
        wires.append(line(`M${mx} ${y + h + 20}V${y + h + 3}`, "on", "tip"),
          make("circle", { cx: mx, cy: y + h + 22, r: 3, class: "data" }));
      }
    });
  });
  drawCrossings(wires, places, right);
  drawn.forEach(([a, z], i) => boxes.append(label(lefts[i] + widths[i] / 2, height - 20,
    a === z ? `t = ${a}` : `t = ${a} ... ${z}`, "soft")));
  boxes.append(weights());
  $("picture").replaceChildren(svg);
}

function tip(id, colour) {
  const marker = make("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7,
    markerHeight: 7, orient: "auto", markerUnits: "userSpaceOnUse" });
  marker.append(make("path", { d: "M0 0L8 4L0 8z", fill: colour }));
  return marker;
}

function button(about, expanded, act, ...children) {
  const g = make("g", { role: "button", tabindex: 0, "aria-label": about, onclick: act,
    onkeydown: (event) => {
      if (event.key === "Enter") act(event);
    } }, ...children);
  if (expanded !== null) g.setAttribute("aria-expanded", expanded);
  g.append(make("title", {}, about));
  return g;
}

function toggle(r, b) {
  if (!view.open.delete(key(r, b))) view.open.add(key(r, b));
  view.auto = null;
  draw();
  $("picture").querySelector(`[data-box="${key(r, b)}"]`)?.focus({ preventScroll: true });
}

function marked(g, r, b) {
  g.dataset.box = key(r, b);
  const box = rows[r].boxes[b];
  if (rows[r].loop) g.dataset.t = box.t;
  const now = view.at >= 0 && items[tour[view.at].item].box;
  if (now && now[0] === r && now[1] === b) g.classList.add("now");
  if (view.leaf !== null && box.items.some((n) => items[n].inputs.some(
    (ref) => ref && ref[0] === view.leaf))) g.classList.add("uses");
  return g;
}

function closed(r, b, [x, y, w, h]) {
  const { name, boxes } = rows[r];
  const n = boxes[b].items.length;
  const about = `${name}, step ${boxes[b].t}: ${n} operations, click to open`;
  return marked(button(about, false, () => toggle(r, b), frame(x, y, w, h, "box"),
    label(x + w / 2, y + 23, short(name, 15), "ink"),
    label(x + w / 2, y + 40, `${n} operation${n > 1 ? "s" : ""}`, "soft", 10)), r, b);
}

function bar(r, [x, y, w, h]) {
  const names = [...new Set(rows[r].boxes[0].items.map((n) => items[n].operation))];
  const text = names.slice(0, 6).join(", ") + (names.length > 6 ? ", ..." : "");
  return marked(button(`${text}: click to open`, false, () => toggle(r, 0),
    frame(x, y, w, h, "bar"), label(x + w / 2, y + 19, text, "ink")), r, 0);
}

function opened(r, b, [x, y, w]) {
  const box = rows[r].boxes[b];
  const kind = kinds[box.kind];
  const left = x + (w - kind.width) / 2;
  const tall = kind.height + 22;
  const name = rows[r].loop ? `${rows[r].name}, t = ${box.t}` : "outside of the loops";
  const g = make("g");
  g.append(marked(button(`${name}: click to close`, true, () => toggle(r, b),
    frame(rows[r].loop ? left : x, y, rows[r].loop ? kind.width : w, tall,
      rows[r].loop ? "box" : "bar"),
    label((rows[r].loop ? left : x) + 8, y + 16, `${name}  ×`, "ink", 11, "start", 600)), r, b));
  const [pw, ph] = SIZE.pill;
  for (const [from, to] of kind.wires) {
    const [x1, y1] = kind.places[from];
    const [x2, y2] = kind.places[to];
    const start = y + 22 + y1 - ph / 2;
    const end = y + 22 + y2 + ph / 2;
    const bend = (start - end) / 2;
    g.append(line(`M${left + x1} ${start}C${left + x1} ${start - bend} ${left + x2} ${end + bend} `
      + `${left + x2} ${end}`, "wire"));
  }
  const going = new Set(crossings.filter((c) => c.first[0] === r && c.first[1] === b)
    .flatMap((c) => c.names));
  box.items.forEach((n, i) => {
    const item = items[n];
    const [px, py] = kind.places[i];
    const pill = button(about(item), null, (event) => {
      event.stopPropagation();
      pick(n);
    }, frame(left + px - pw / 2, y + 22 + py - ph / 2, pw, ph,
      item.name && going.has(item.name) ? "state" : "pill"),
    label(left + px, y + 22 + py + 4, short(called(item), 15), "ink", 11));
    pill.dataset.item = n;
    if (view.at >= 0 && tour[view.at].item === n) pill.classList.add("now");
    if (view.item === n) pill.classList.add("picked");
    g.append(pill);
  });
  return g;
}

function about(item) {
  const parts = [item.text ? `${item.name ? `${item.name} = ` : ""}${item.text}` : item.name,
    `shape ${shape(item.shape)}`];
  for (const value of item.values) if (value) parts.push(`value ${words(value)}`);
  for (const g of item.gradients) if (g) parts.push(`gradient norm ${number(g.norm)}`);
  return parts.join("\n");
}

function words(x) {
  if (x.values !== undefined && x.shape.every((n) => n < 5)) return JSON.stringify(x.values);
  return `norm ${number(x.norm)}`;
}

function rolled(r, inside, [x, y, w, h]) {
  const row = rows[r];
  const alike = new Set(inside.map((b) => row.boxes[b].kind)).size;
  const like = alike === 1 ? "one step" : `${alike} kinds of step`;
  const g = make("g", { "data-rolled": r });
  g.append(frame(x, y, w, h, "rolled"),
    label(x + w / 2, y + 16, `${short(row.name, 16)}: ${like} × ${inside.length}`, "ink"));
  const norms = inside.map((b) => normOf(r, b));
  const logs = norms.filter((n) => n).map(Math.log10);
  const least = logs.length ? Math.min(...logs) : 0;
  const span = Math.max(Math.max(...logs, least) - least, 1);
  const wide = (w - 16) / inside.length;
  inside.forEach((b, i) => {
    const tall = norms[i] ? 2 + 24 * ((Math.log10(norms[i]) - least) / span) : 2;
    const t = row.boxes[b].t;
    const hit = make("rect", { x: x + 8 + i * wide, y: y + 22, width: wide, height: h - 26,
      class: "norm", "fill-opacity": 0, "data-open": t, onclick: () => openStep(t) });
    hit.append(make("title", {}, `step ${t}: gradient norm ${number(norms[i])}, click to open`));
    g.append(make("rect", { x: x + 8 + i * wide, y: y + h - 5 - tall,
      width: Math.max(wide - 0.3, 0.4), height: tall, class: "norm" }), hit);
  });
  return g;
}

function openStep(t) {
  if (!times.includes(t)) return;
  view.shown.add(t);
  rows.forEach((row, r) => row.boxes.forEach((box, b) => {
    if (box.t === t) view.open.add(key(r, b));
  }));
  draw();
  $("picture").querySelector(`[data-t="${t}"]`)?.scrollIntoView({ block: "nearest",
    inline: "center" });
}

function drawCrossings(wires, places, right) {
  const across = new Map();
  for (const c of crossings) {
    const a = places.get(key(...c.first));
    const b = places.get(key(...c.second));
    if (!a || !b || a === b) continue;
    const name = `${a}|${b}`;
    if (!across.has(name)) across.set(name, [a, b, []]);
    across.get(name)[2].push(c);
  }
  const most = Math.max(...crossings.filter((c) => c.norm).map((c) => c.norm), 1e-300);
  for (const [a, b, all] of across.values()) {
    const c = all.at(-1);
    const from = rows[c.first[0]];
    const to = rows[c.second[0]];
    if (from === to && from.loop) along(wires, a, b, c, most);
    else if (!from.loop && !to.loop) {
      wires.append(line(`M${a[0] + a[2]} ${a[1] + a[3] / 2}H${right - 18}V${b[1] + b[3] / 2}h-9`,
        "on", "tip"));
    } else up(wires, a, b);
  }
}

function along(wires, a, b, c, most) {
  const sign = b[0] > a[0] ? 1 : -1;
  const x1 = sign > 0 ? a[0] + a[2] : a[0];
  const x2 = sign > 0 ? b[0] : b[0] + b[2];
  const first = rows[c.first[0]].boxes[c.first[1]].t;
  const cut = (word, from) => {
    const x = (x1 + x2) / 2;
    const bottom = Math.max(a[1] + a[3], b[1] + b[3]);
    const path = line(`M${x} ${Math.min(a[1], b[1]) + from}V${bottom + 4}`, "cut", null, 0,
      "no gradient goes back from here");
    path.setAttribute("data-cut", first);
    wires.append(path, label(x, bottom + 17, word, "cuttext", 11, "middle", 600));
  };
  if (c.factor === 0 && !c.names.length) {
    cut("cut", -8);
    return;
  }
  const names = c.names.join(", ");
  if (Math.abs(x2 - x1) > SIZE.space + 4) {
    wires.append(line(`M${x1} ${a[1]}C${x1} ${a[1] - 26} ${x2} ${b[1] - 26} ${x2} ${b[1]}`,
      "wire", null, 0, names));
    return;
  }
  const curve = (y1, y2, s, e) =>
    `M${s} ${y1}C${s + Math.sign(e - s) * 24} ${y1} ${e - Math.sign(e - s) * 24} ${y2} ${e} ${y2}`;
  let [y1, y2] = [a[1] + a[3] * 0.3, b[1] + b[3] * 0.3];
  wires.append(line(curve(y1, y2, x1, x2 - 5 * sign), "on", "tip", 0, `${names || "state"} goes on`));
  if (names) wires.append(label((x1 + x2) / 2, Math.min(y1, y2) - 5, short(names, 9), "soft", 10));
  if (c.norm === null) return;
  if (!c.norm) {
    cut("nothing", 14);
    return;
  }
  [y1, y2] = [a[1] + a[3] * 0.72, b[1] + b[3] * 0.72];
  const factor = c.factor === 1 ? "" : ` × ${number(c.factor)}`;
  const width = Math.max(1, 5 + 1.5 * Math.log10(c.norm / most));
  wires.append(line(curve(y2, y1, x2, x1 + 6 * sign), "way", "waytip", width,
    `cotangent of the state back to step ${first}: norm ${number(c.norm)}${factor}`),
  label((x1 + x2) / 2, Math.max(y1, y2) + 17, number(c.norm.toPrecision(2)) + factor,
    "waytext", 10));
}

function up(wires, a, b) {
  const rises = b[1] < a[1];
  let x = Math.max(a[0], b[0]) + Math.min(a[2], b[2]) / 2;
  if (a[0] + a[2] < b[0] || b[0] + b[2] < a[0]) x = a[0] + a[2] / 2;
  const within = ([left, , width]) => Math.min(Math.max(x, left + 8), left + width - 8);
  const [y1, y2] = rises ? [a[1], b[1] + b[3] + 5] : [a[1] + a[3], b[1] - 5];
  const middle = (y1 + y2) / 2;
  wires.append(line(`M${within(a)} ${y1}C${within(a)} ${middle} ${within(b)} ${middle} `
    + `${within(b)} ${y2}`, "on", "tip"));
}

function weights() {
  const g = make("g");
  if (leaves.length) g.append(label(14, 30, "weights, drawn once", "soft", 11, "start"));
  leaves.forEach((n, i) => {
    const item = items[n];
    const y = 44 + 34 * i;
    const norm = item.gradients[0] ? `   |∇| ${number(item.gradients[0].norm)}` : "";
    const chip = button(about(item), null, () => pick(n), frame(12, y, SIZE.left - 22, 28, "leaf"),
      label(20, y + 12, short(item.name, 22), "ink", 11, "start", 600),
      label(20, y + 24, shape(item.shape) + norm, "soft", 9, "start"));
    chip.dataset.item = n;
    if (view.item === n) chip.classList.add("picked");
    chip.addEventListener("mouseenter", () => uses(n));
    chip.addEventListener("mouseleave", () => uses(null));
    g.append(chip);
  });
  return g;
}

function uses(n) {
  for (const g of $("picture").querySelectorAll("[data-box]")) {
    const [r, b] = g.dataset.box.split("/").map(Number);
    g.classList.toggle("uses", n !== null && rows[r].boxes[b].items.some((i) =>
      items[i].inputs.some((ref) => ref && ref[0] === n)));
  }
}

// --------------------------------------------------------------------------- going through it

function go(place) {
  view.at = Math.max(-1, Math.min(tour.length - 1, place));
  view.item = view.at < 0 ? null : tour[view.at].item;
  if (view.at >= 0 && $("follow").checked) {
    const now = items[view.item].box;
    if (view.auto && view.auto !== key(...now)) view.open.delete(view.auto);
    if (!isOpen(...now)) {
      view.open.add(key(...now));
      view.auto = key(...now);
    }
    const t = rows[now[0]].boxes[now[1]].t;
    if (t !== null) view.shown.add(t);
  }
  draw();
  detail();
  const now = $("picture").querySelector(".now");
  if (view.at >= 0 && now) now.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function pick(n) {
  view.item = view.item === n ? null : n;
  draw();
  detail();
}

function matrix(x) {
  if (!x) return [make("p", {}, "not known")];
  const head = make("p", {}, `${shape(x.shape)}, norm ${number(x.norm)}`);
  if (x.values !== undefined) {
    let values = x.values;
    if (!Array.isArray(values)) values = [[values]];
    else if (!Array.isArray(values[0])) values = [values];
    while (Array.isArray(values[0]?.[0])) values = values.flat();
    const table = make("table", {}, ...values.map((row) =>
      make("tr", {}, ...row.map((value) => make("td", {}, number(value))))));
    return [head, make("div", { class: "scroll" }, table)];
  }
  if (x.range) {
    const [low, mean, high] = x.range;
    const middle = mean === null ? "" : `, mean ${number(mean)}`;
    const odd = x.odd ? `, ${x.odd} not finite` : "";
    return [make("p", {}, `${shape(x.shape)}, from ${number(low)} to ${number(high)}${middle}, `
      + `norm ${number(x.norm)}${odd}`)];
  }
  return [head];
}

function part(title, ...content) {
  return make("div", {}, make("h3", {}, title), ...content);
}

function nameOf(ref) {
  const item = items[ref[0]];
  const names = item.name.split(", ");
  return (names.length > 1 ? names[ref[1]] : item.name) || item.text || item.operation;
}

function detail() {
  const stop = view.at >= 0 ? tour[view.at] : null;
  $("place").value = view.at + 1;
  $("position").textContent = stop === null ? `${nodes.length} operations`
    : stop.back ? `back ${stop.visit + 1} of ${visits.length}: ${items[stop.item].operation}`
      : `forward ${view.at + 1} of ${nodes.length}: ${items[stop.item].operation}`;
  const panel = $("detail");
  if (view.item === null) {
    panel.replaceChildren(make("p", {}, "Press next to go through the tape, node by node: "
      + "forward, and then the way back."));
    return;
  }
  const item = items[view.item];
  const touring = stop !== null && stop.item === view.item;
  const head = [make("h2", {}, item.text && item.name ? `${item.name} = ${item.text}`
    : item.text || item.name)];
  for (const text of [item.step && `step ${item.step}`, item.layer, item.where]) {
    if (text) head.push(make("p", {}, text));
  }
  const body = make("div", { class: touring && stop.back ? "back" : "on" });
  if (touring && stop.back) {
    const visit = visits[stop.visit];
    visit.cotangents.forEach((g, i) => {
      const of = visit.cotangents.length > 1 ? ` at ${nameOf([visit.item, i])}` : "";
      if (g) body.append(part(`cotangent that arrived${of}`, ...matrix(g)));
    });
    for (const { to, share, sum } of visit.shares) {
      const target = items[to[0]];
      body.append(part(`its share for ${nameOf(to)}`, ...matrix(share)));
      if (!target.operation) body.append(part(`${nameOf(to)}.grad so far`, ...matrix(sum)));
    }
  } else {
    item.inputs.forEach((ref, i) => {
      const name = item.input_names[i] || (ref ? nameOf(ref) : "data");
      if (ref) body.append(part(`in: ${name}`, ...matrix(items[ref[0]].values[ref[1]])));
      else body.append(part(`in: ${name}, which needs no gradient`, ...matrix(item.data[i])));
    });
    item.values.forEach((value, i) => {
      const names = item.name.split(", ");
      body.append(part(`${item.operation ? "out" : "value"}${item.values.length > 1
        ? `: ${names[i] || i}` : ""}`, ...matrix(value)));
    });
    if (!touring) {
      item.gradients.forEach((g) => {
        if (g) body.append(part(item.operation ? "its gradient" : ".grad", ...matrix(g)));
      });
    }
    if (!item.operation) body.append(make("p", {}, `used ${item.uses} times`));
  }
  panel.replaceChildren(...head, body);
}

let timer = null;
function play() {
  if (timer) {
    clearInterval(timer);
    timer = null;
  } else {
    if (view.at >= tour.length - 1) go(-1);
    timer = setInterval(() => {
      if (view.at >= tour.length - 1) play();
      else go(view.at + 1);
    }, 700);
  }
  $("play").textContent = timer ? "stop" : "play";
}

$("first").onclick = () => go(-1);
$("back").onclick = () => go(view.at - 1);
$("next").onclick = () => go(view.at + 1);
$("play").onclick = play;
$("place").max = tour.length;
$("place").oninput = (event) => go(Number(event.target.value) - 1);
$("step").onchange = (event) => openStep(Number(event.target.value));
$("close").onclick = () => {
  view.open.clear();
  view.shown.clear();
  view.auto = null;
  draw();
};
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=number], input[type=range]")) return;
  const keys = { ArrowRight: () => go(view.at + 1), ArrowLeft: () => go(view.at - 1),
    Home: () => go(-1), End: () => go(tour.length - 1), " ": play };
  if (event.key === " " && event.target.matches("button, [type=checkbox]")) return;
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});
draw();
detail();
