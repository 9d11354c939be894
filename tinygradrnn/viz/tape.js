"use strict";
// One tape: DATA holds its facts, `view` what the reader has opened and where the reader is.
const { rows, crossings, kinds, leaves, times, most } = DATA;
const place = (ref) => (ref === null || Array.isArray(ref) ? ref : [ref, 0]);
const unpacked = (x) => x && { shape: DATA.shapes[x[0]], norm: x[1],
  ...(x[2] === null ? { range: x[3], odd: x[4] } : { values: x[2] }) };
const items = DATA.items.map(([fact, inputs, data, values, gradients], number) => ({
  ...DATA.facts[fact], number, inputs: inputs.map(place),
  data: inputs.map((_, i) => unpacked(data && data[i])), values: values.map(unpacked),
  gradients: gradients.map(unpacked), box: null, uses: 0 }));
const visits = DATA.visits.map(([item, shares, cotangents]) => ({
  item, cotangents: cotangents ? cotangents.map(unpacked) : items[item].gradients,
  shares: shares.map(([to, share, sum]) => ({ to: place(to), share: unpacked(share),
    sum: unpacked(sum) })) }));
for (const item of items) for (const ref of item.inputs) if (ref) items[ref[0]].uses += 1;
rows.forEach((row, r) => row.boxes.forEach((box, b) => {
  for (const n of box.items) items[n].box = [r, b];
}));
const nodes = items.filter((item) => item.operation);
const tour = [
  ...nodes.map((item) => ({ back: false, item: item.number })),
  ...visits.map((visit, i) => ({ back: true, item: visit.item, visit: i })),
];
// `shown`: steps with a column of their own; `item` and `box`: what the panel is about; `peek`: what
// the pointer is at.
const view = { open: new Set(), shown: new Set(), at: -1, item: null, box: null, peek: null,
  auto: null, places: new Map(), chips: new Map() };
const SIZE = { box: [108, 58], space: 66, left: 176, rolled: 230, between: 56, head: 22 };
const first = leaves.length ? SIZE.left + 30 : 16;
const $ = (id) => document.getElementById(id);
const short = (text, most) => (text.length <= most ? text : text.slice(0, most - 1) + "…");
const shorter = (name, most) => (name.length <= most ? name
  : short(name.slice(name.lastIndexOf(".") + 1), most));
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
const brief = (x) => {
  x = Number(x);
  if (!Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  if (x === 0 || (size >= 1e-3 && size < 1e4)) {
    return size < 100 ? String(Number(x.toPrecision(2))) : x.toFixed(0);
  }
  return x.toExponential(1).replace("e+", "e");
};
const curve = (points) => points.slice(1).reduce(([d, x, y], [x2, y2]) => {
  const [mx, my] = [(x + x2) / 2, (y + y2) / 2];
  if (x2 === x) return [`${d}V${y2}`, x2, y2];
  const bend = Math.abs(y2 - y) < 4 ? `${mx} ${y} ${mx} ${y2}` : `${x} ${my} ${x2} ${my}`;
  return [`${d}C${bend} ${x2} ${y2}`, x2, y2];
}, [`M${points[0][0]} ${points[0][1]}`, ...points[0]])[0];
const sideways = (x1, y1, x2, y2) => {
  const mx = (x1 + x2) / 2;
  return `M${x1} ${y1}C${mx} ${y1} ${mx} ${y2} ${x2} ${y2}`;
};

// ---------------------------------------------------------------- which steps have a column

function columns() {
  if (times.length <= most) return times.map((t) => [t, t]);
  const ends = Math.max(1, Math.floor((most - 1) / 2));
  const here = view.at >= 0 && view.auto ? [stepOf(...view.auto.split("/"))] : [];
  const own = new Set([...times.slice(0, ends), ...times.slice(-ends), ...view.shown, ...here]);
  own.delete(null);
  const found = [];
  for (const t of [...own].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && t > last[1] + 1) found.push([last[1] + 1, t - 1]);
    found.push([t, t]);
  }
  return found;
}

const stepOf = (r, b) => rows[r].boxes[b].t;
const isOpen = (r, b) => view.open.has(key(r, b)) || view.auto === key(r, b);

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
  let right = first;
  for (const width of widths) {
    lefts.push(right);
    right += width + SIZE.space;
  }
  const bars = rows.map((row, r) => (!row.loop && isOpen(r, 0) ? first + 20
    + kinds[row.boxes[0].kind].width : 0));
  right = Math.max(right - SIZE.space + 30, first + 420, ...bars);
  const heights = rows.map((row, r) => row.boxes.reduce((tall, box, b) =>
    (isOpen(r, b) ? Math.max(tall, kinds[box.kind].height + SIZE.head) : tall),
  row.loop ? SIZE.box[1] : 30));
  const body = heights.reduce((sum, h) => sum + h, 0) + SIZE.between * (rows.length - 1);
  const top = 16;
  const height = top + Math.max(body + (drawn.length ? 62 : 16), 28 + 34 * leaves.length);
  // A little too wide is made smaller, so that all is seen; what is much wider scrolls.
  const room = $("picture").clientWidth - 18;
  view.scale = right > room && right * 0.78 < room ? room / right : 1;
  const svg = make("svg", { width: right * view.scale, height: height * view.scale, viewBox: `0 0 ${right} ${height}`, role: "group",
    "font-family": "system-ui, sans-serif" });
  svg.append(make("defs", {}, tip("tip", 7), tip("waytip", 11)));
  const places = view.places = new Map();
  const wires = make("g");
  const boxes = make("g");
  svg.append(wires, boxes, make("g", { id: "uses" }));
  let low = top + body;
  rows.forEach((row, r) => {
    const y = low - heights[r];
    low = y - SIZE.between;
    if (!row.loop) {
      const place = [first, y, right - first - 30, heights[r]];
      places.set(key(r, 0), place);
      boxes.append(isOpen(r, 0) ? opened(r, 0, place) : bar(r, place));
      return;
    }
    drawn.forEach(([a, z], i) => {
      const inside = [];
      for (let t = a; t <= z; t += 1) if (at[r].has(t)) inside.push(at[r].get(t));
      if (!inside.length) return;
      const last = inside.at(-1);
      const middle = y + (heights[r] - SIZE.box[1]) / 2;
      if (a !== z) {
        const place = [lefts[i], middle, widths[i], SIZE.box[1]];
        for (const b of inside) places.set(key(r, b), place);
        boxes.append(rolled(r, inside, place));
      } else if (isOpen(r, last)) {
        const kind = kinds[row.boxes[last].kind];
        const tall = kind.height + SIZE.head;
        const open = [lefts[i] + (widths[i] - kind.width) / 2, y + (heights[r] - tall) / 2,
          kind.width, tall];
        places.set(key(r, last), open);
        boxes.append(opened(r, last, open));
      } else {
        const place = [lefts[i] + (widths[i] - SIZE.box[0]) / 2, middle, ...SIZE.box];
        places.set(key(r, last), place);
        boxes.append(closed(r, last, place));
      }
      const { data } = kinds[row.boxes[last].kind];
      if (data) {
        const [, py, , ph] = places.get(key(r, last));
        const mx = lefts[i] + widths[i] / 2 - 26;
        wires.append(line(`M${mx} ${py + ph + 20}V${py + ph + 3}`, "on", "tip"),
          make("circle", { cx: mx, cy: py + ph + 22, r: 3, class: "data" }),
          label(mx - 7, py + ph + 26, short(data.join(", "), 8), "soft", 10, "end"));
      }
    });
  });
  drawCrossings(wires, places);
  drawn.forEach(([a, z], i) => boxes.append(label(lefts[i] + widths[i] / 2, top + body + 42,
    a === z ? `t = ${a}` : `t = ${a} ... ${z}`, "soft")));
  boxes.append(weights(top));
  $("picture").replaceChildren(svg);
  drawUses();
}

function tip(id, size) {
  const marker = make("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: size,
    markerHeight: size, orient: "auto", markerUnits: "userSpaceOnUse" });
  marker.append(make("path", { d: "M0 0L8 4L0 8z", class: id }));
  return marker;
}

function button(about, expanded, act, subject, ...children) {
  const g = make("g", { role: "button", tabindex: 0, "aria-label": about, onclick: act,
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      act(event);
    },
    onmouseenter: () => peek(subject), onmouseleave: () => peek(null) }, ...children);
  if (expanded !== null) g.setAttribute("aria-expanded", expanded);
  return g;
}

function peek(subject) {
  view.peek = subject;
  drawUses();
  detail();
}

function toggle(r, b) {
  if (isOpen(r, b)) view.open.delete(key(r, b));
  else view.open.add(key(r, b));
  if (view.auto === key(r, b)) view.auto = null;
  view.box = [r, b];
  view.item = null;
  view.peek = null;
  draw();
  detail();
  $("picture").querySelector(`[data-box="${key(r, b)}"]`)?.focus({ preventScroll: true });
}

function marked(g, r, b) {
  g.dataset.box = key(r, b);
  const box = rows[r].boxes[b];
  if (rows[r].loop) g.dataset.t = box.t;
  const now = view.at >= 0 && items[tour[view.at].item].box;
  if (now && now[0] === r && now[1] === b) g.classList.add("now");
  return g;
}

const count = (n) => `${n} operation${n > 1 ? "s" : ""}`;

function closed(r, b, [x, y, w, h]) {
  const { name, boxes } = rows[r];
  const n = boxes[b].items.length;
  const about = `${name}, step ${boxes[b].t}: ${count(n)}, click to open`;
  return marked(button(about, false, () => toggle(r, b), { box: [r, b] },
    frame(x, y, w, h, "box"), label(x + w / 2, y + 26, shorter(name, 15), "ink"),
    label(x + w / 2, y + 43, count(n), "soft", 10)), r, b);
}

function bar(r, [x, y, w, h]) {
  const { told } = rows[r];
  return marked(button(`${told}: click to open`, false, () => toggle(r, 0), { box: [r, 0] },
    frame(x, y, w, h, "bar"),
    label(x + w / 2, y + 19, short(told, Math.floor(w / 7)), "ink")), r, 0);
}

function opened(r, b, [x, y, w]) {
  const box = rows[r].boxes[b];
  const kind = kinds[box.kind];
  const left = x + (w - kind.width) / 2;
  const top = y + SIZE.head;
  const { loop } = rows[r];
  const name = loop ? `${rows[r].name}, t = ${box.t}` : "outside of the loops";
  const [fx, fw] = loop ? [left, kind.width] : [x, w];
  const g = make("g");
  g.append(marked(button(`${name}: click to close`, true, () => toggle(r, b), { box: [r, b] },
    frame(fx, y, fw, kind.height + SIZE.head, loop ? "box" : "bar"),
    label(fx + 8, y + 16, name, "ink", 11, "start", 600),
    label(fx + fw - 9, y + 16, "×", "soft", 14, "end")), r, b));
  for (const [ix, iy, iw, ih] of kind.frames) {
    g.append(frame(left + ix, top + iy, iw, ih, "frame"));
  }
  for (const wire of kind.wires) {
    g.append(line(curve(wire.map(([px, py]) => [left + px, top + py])), "wire"));
  }
  for (const [ix, iy, , , said] of kind.frames) {
    g.append(label(left + ix + 7, top + iy + 14, said, "soft halo", 10, "start"));
  }
  for (const [[px, py, pw], said, from] of kind.ports) {
    g.append(frame(left + px - pw / 2, top + py - 9, pw, 18,
      from === "state" || from === "cut" ? `port${from}` : "port"),
    label(left + px, top + py + 4, said, "soft", 10));
  }
  const going = new Set(crossings.filter((c) => c.first[0] === r && c.first[1] === b)
    .flatMap((c) => [...c.names, ...c.silent]));
  const { tall } = kind;
  box.items.forEach((n, i) => {
    const item = items[n];
    const [px, py, pw] = kind.places[i];
    const pill = button(`${item.label}, ${item.text}`, null, (event) => {
      event.stopPropagation();
      pick(n);
    }, { item: n }, frame(left + px - pw / 2, top + py - tall / 2, pw, tall,
      item.name && going.has(item.name) ? "state" : "pill"));
    if (tall > 12) pill.append(label(left + px, top + py + 4, item.label, "ink", 11));
    pill.dataset.item = n;
    if (view.at >= 0 && tour[view.at].item === n) pill.classList.add("now");
    if (view.item === n) pill.classList.add("picked");
    g.append(pill);
  });
  return g;
}

function rolled(r, inside, [x, y, w, h]) {
  const row = rows[r];
  const alike = new Set(inside.map((b) => row.boxes[b].kind)).size;
  const like = alike === 1 ? "one step" : `${alike} kinds of step`;
  const g = make("g", { "data-rolled": r });
  g.append(frame(x, y, w, h, "rolled"),
    label(x + w / 2, y + 15, `${shorter(row.name, 14)}: ${like} × ${inside.length}`, "ink"));
  const norms = inside.map((b) => Number(row.boxes[b].norm));
  const logs = norms.filter((n) => n && Number.isFinite(n)).map(Math.log10);
  const least = logs.length ? logs.reduce((a, b) => Math.min(a, b)) : 0;
  const highest = logs.length ? logs.reduce((a, b) => Math.max(a, b)) : 0;
  const span = Math.max(highest - least, 1);
  const wide = (w - 16) / inside.length;
  if (logs.length) {
    g.append(label(x + w / 2, y + 27, `|∇| ${brief(10 ** least)} to ${brief(10 ** highest)}`,
      "waytext", 9));
  }
  const place = new Map(inside.map((b, i) => [b, i]));
  for (const c of crossings) {
    if (!c.cut || c.first[0] !== r || !place.has(c.first[1]) || !place.has(c.second[1])) continue;
    const at = x + 8 + wide * Math.max(place.get(c.first[1]), place.get(c.second[1]));
    g.append(line(`M${at} ${y + 31}V${y + h}`, "cut", null, 1, "cut"));
  }
  inside.forEach((b, i) => {
    const known = norms[i] && Number.isFinite(norms[i]);
    const tall = known ? 2 + 22 * ((Math.log10(norms[i]) - least) / span) : 0;
    const { t } = row.boxes[b];
    const hit = make("rect", { x: x + 8 + i * wide, y: y + 28, width: wide, height: h - 30,
      class: "norm hit", "fill-opacity": 0, "data-open": t, onclick: () => openStep(t) });
    hit.append(make("title", {}, `step ${t}: gradient norm ${brief(norms[i])}, click to open`));
    g.append(make("g", {}, make("rect", { x: x + 8 + i * wide, y: y + h - 4 - tall,
      width: Math.max(wide - 0.3, 0.4), height: tall, class: "norm" }), hit));
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

function drawCrossings(wires, places) {
  const across = new Map();
  for (const c of crossings) {
    const a = places.get(key(...c.first));
    const b = places.get(key(...c.second));
    if (!a || !b || a === b) continue;
    const name = `${a}|${b}`;
    if (!across.has(name)) across.set(name, [a, b, []]);
    across.get(name)[2].push(c);
  }
  const seen = [...across.values()].flatMap(([, , all]) => all.map((c) => c.norm))
    .filter((n) => n && Number.isFinite(n));
  const most = seen.reduce((a, b) => Math.max(a, b), 1e-300);
  for (const [a, b, all] of across.values()) {
    const near = all.filter((c) => c.near);
    const c = (near.length ? near : all).at(-1);
    const from = rows[c.first[0]];
    const to = rows[c.second[0]];
    if (c.near) along(wires, a, b, c, most);
    else if (from === to && from.loop) over(wires, a, b, c);
    else if (!from.loop && !to.loop) {
      wires.append(line(`M${a[0] + a[2]} ${a[1] + a[3] / 2}h14V${b[1] + b[3] / 2}h-11`,
        "on", "tip"));
    } else up(wires, a, b);
  }
}

function along(wires, a, b, c, most) {
  const sign = b[0] > a[0] ? 1 : -1;
  const x1 = sign > 0 ? a[0] + a[2] : a[0];
  const x2 = sign > 0 ? b[0] : b[0] + b[2];
  const t = stepOf(...c.first);
  const names = c.names.join(", ");
  const middle = (x1 + x2) / 2;
  const low = Math.max(a[1] + a[3], b[1] + b[3]);
  let [y1, y2] = [a[1] + a[3] * 0.3, b[1] + b[3] * 0.3];
  if (c.cut) {
    if (c.silent.length) {
      wires.append(line(sideways(x1, y1, x2 - 3 * sign, y2), "silent", "tip", 1.6,
        `${c.silent.join(", ")}: goes on without its history`),
      label(middle - 16, Math.min(y1, y2) - 5, short(c.silent.join(", "), 5), "soft", 10));
    }
    const path = line(`M${middle} ${Math.min(a[1], b[1]) - 8}V${low + 4}`, "cut", null, 0,
      "no gradient comes back");
    path.setAttribute("data-cut", t);
    wires.append(path, label(middle, low + 17, "cut", "cuttext", 11, "middle", 600));
    return;
  }
  wires.append(line(sideways(x1, y1, x2 - 3 * sign, y2), "on", "tip", 0,
    `${names || "state"} goes on`),
  label(middle, Math.min(y1, y2) - 5, short(names, 10), "soft", 10));
  if (c.norm === null) return;
  [y1, y2] = [a[1] + a[3] * 0.7, b[1] + b[3] * 0.7];
  if (c.label) {
    const y = (y1 + y2) / 2;
    wires.append(line(`M${middle} ${y - 9}V${y + 9}`, "some", null, 0, c.label));
  }
  const finite = c.norm && Number.isFinite(c.norm);
  const shown = c.norm ? brief(c.norm) : "nothing";
  const width = finite ? Math.max(1, 5 + 1.5 * Math.log10(c.norm / most)) : 1;
  wires.append(line(sideways(x2, y2, x1 + 5 * sign, y1), c.norm ? "way" : "silent", "waytip",
    width, `cotangent of the state back to step ${t}: norm ${shown}`),
  label(middle, Math.max(y1, y2) + 16, shown, "waytext", 10));
  const marks = [c.label, c.silent.length && `${c.silent.join(", ")} cut`].filter((m) => m);
  wires.append(label(middle, low + 17, marks.join("; "), "cuttext", 9, "middle", 600));
}

function over(wires, a, b, c) {
  const [x1, x2] = b[0] > a[0] ? [a[0] + a[2] - 12, b[0] + 12] : [a[0] + 12, b[0] + b[2] - 12];
  wires.append(line(`M${x1} ${a[1]}C${x1} ${a[1] - 26} ${x2} ${b[1] - 26} ${x2} ${b[1]}`,
    "wire", null, 0, c.names.join(", ")));
}

function up(wires, a, b) {
  const rises = b[1] < a[1];
  let x = Math.max(a[0], b[0]) + Math.min(a[2], b[2]) / 2;
  if (a[0] + a[2] < b[0] || b[0] + b[2] < a[0]) x = a[0] + a[2] / 2;
  const within = ([left, , width]) => Math.min(Math.max(x, left + 8), left + width - 8);
  const [y1, y2] = rises ? [a[1], b[1] + b[3] + 3] : [a[1] + a[3], b[1] - 3];
  wires.append(line(curve([[within(a), y1], [within(b), y2]]), "on", "tip"));
}

function weights(top) {
  const g = make("g");
  view.chips = new Map();
  if (leaves.length) g.append(label(14, top + 10, "weights, drawn once", "soft", 11, "start"));
  leaves.forEach((n, i) => {
    const item = items[n];
    const y = top + 20 + 34 * i;
    view.chips.set(n, y + 14);
    const norm = item.gradients[0] ? `   |∇| ${brief(item.gradients[0].norm)}` : "";
    const chip = button(`${item.name}, used ${item.uses} times`, null, () => pick(n), { item: n },
      frame(12, y, SIZE.left - 22, 29, "leaf"),
      label(20, y + 12, short(item.name, 23), "ink", 11, "start", 600),
      label(20, y + 24.5, shape(item.shape) + norm, "soft", 9, "start"));
    chip.dataset.item = n;
    if (view.item === n) chip.classList.add("picked");
    g.append(chip);
  });
  return g;
}

// Lines from weights to the boxes that use them: of the one pointed at or picked, or of those that
// the operation one has come to uses, and only to its box.
function drawUses() {
  const group = $("uses");
  if (!group) return;
  group.replaceChildren();
  for (const g of $("picture").querySelectorAll(".user")) g.classList.remove("user");
  const n = view.peek ? view.peek.item : view.item;
  if (n === null || n === undefined) return;
  const item = items[n];
  const stop = view.at >= 0 && !view.peek ? tour[view.at] : null;
  const back = stop !== null && stop.back && stop.item === n;
  const wanted = item.operation ? new Set(item.inputs.filter((ref) => ref
    && !items[ref[0]].operation).map((ref) => ref[0])) : new Set([n]);
  for (const leaf of wanted) {
    rows.forEach((row, r) => {
      const users = row.boxes.map((box, b) => b).filter((b) => view.places.has(key(r, b))
        && (item.operation ? item.box[0] === r && item.box[1] === b
          : row.boxes[b].items.some((i) => items[i].inputs.some((ref) => ref && ref[0] === leaf))));
      if (!users.length) return;
      for (const b of users) {
        $("picture").querySelector(`[data-box="${key(r, b)}"]`)?.classList.add("user");
      }
      const places = new Map(users.map((b) => view.places.get(key(r, b))).map((p) => [p[0], p]));
      const ends = [...places.values()].sort((p, q) => p[0] - q[0]);
      const top = Math.min(...ends.map((p) => p[1])) - 12;
      const drops = ends.map((p) => `M${p[0] + 14} ${top}V${p[1]}`).join("");
      group.append(line(`M${SIZE.left - 10} ${view.chips.get(leaf)}H${SIZE.left + 8}V${top}`
        + `H${ends.at(-1)[0] + 14}${drops}`, back ? "uses usesback" : "uses"));
    });
  }
}

// --------------------------------------------------------------------------- going through it

function go(place) {
  view.at = Math.max(-1, Math.min(tour.length - 1, place));
  view.item = view.at < 0 ? null : tour[view.at].item;
  view.box = view.peek = null;
  view.auto = view.at >= 0 && $("follow").checked ? key(...items[view.item].box) : null;
  draw();
  detail();
  if (view.at < 0) return;
  const [x, y, w, h] = view.places.get(key(...items[view.item].box)).map((v) => v * view.scale);
  const picture = $("picture");
  const outside = x < picture.scrollLeft || x + w > picture.scrollLeft + picture.clientWidth;
  if (outside && w < picture.clientWidth) {
    picture.scrollLeft = x + w < picture.clientWidth - 20 ? 0 : x + w / 2 - picture.clientWidth / 2;
  }
  if (y < picture.scrollTop || y + h > picture.scrollTop + picture.clientHeight) {
    picture.scrollTop = y - 30;
  }
  picture.querySelector("[data-item].now")?.scrollIntoView({ block: "nearest",
    inline: "nearest" });
}

function pick(n) {
  view.item = view.item === n ? null : n;
  view.box = null;
  view.peek = null;
  draw();
  detail();
}

function matrix(x) {
  if (!x) return [make("p", {}, "not kept; tgr.watch() keeps it")];
  const odd = x.odd ? `, ${x.odd} not finite` : "";
  const head = make("p", {}, `${shape(x.shape)}, norm ${number(x.norm)}${odd}`);
  if (x.values !== undefined) {
    let values = x.values;
    if (!Array.isArray(values)) return [make("table", {}, make("tr", {}, cell(values)))];
    if (!Array.isArray(values[0])) values = [values];
    while (Array.isArray(values[0]?.[0])) values = values.flat();
    const table = make("table", {}, ...values.map((row) => make("tr", {}, ...row.map(cell))));
    return [make("div", { class: "scroll" }, table), head];
  }
  if (x.range) {
    const [low, mean, high] = x.range;
    const middle = mean === null ? "" : `, mean ${number(mean)}`;
    return [make("p", {}, `${number(low)} to ${number(high)}${middle}`), head];
  }
  return [head];
}

const cell = (value) => make("td", {}, typeof value === "boolean" ? String(value) : number(value));

function part(title, content, kind = "") {
  return make("div", { class: kind }, make("h3", {}, title), ...content);
}

function nameOf([n, slot]) {
  const item = items[n];
  return item.names[slot] || item.text || item.operation;
}

function titleOf(item) {
  return item.text && item.name ? `${item.name} = ${item.text}` : item.text || item.name;
}

function whereOf(item) {
  const [r, b] = item.box || [];
  const step = r !== undefined && rows[r].loop ? `step ${stepOf(r, b)}` : "";
  return [step, item.inner, item.layer, item.where].filter((text) => text).join("  ·  ");
}

function detail() {
  const stop = view.at >= 0 ? tour[view.at] : null;
  $("place").value = view.at + 1;
  $("position").textContent = stop === null ? `${nodes.length} operations`
    : stop.back ? `back ${stop.visit + 1} of ${visits.length}: ${items[stop.item].operation}`
      : `forward ${view.at + 1} of ${nodes.length}: ${items[stop.item].operation}`;
  const panel = $("detail");
  if (view.peek || view.item !== null || view.box) panel.classList.remove("idle");
  const subject = view.peek || (view.item !== null ? { item: view.item }
    : view.box && { box: view.box });
  if (!subject) {
    panel.replaceChildren(make("p", {}, "Press next to go through the tape, node by node: "
      + "forward, and then the way back."));
  } else if (subject.box) panel.replaceChildren(...aboutBox(...subject.box));
  else panel.replaceChildren(...aboutItem(items[subject.item], view.peek ? null : stop));
}

function aboutBox(r, b) {
  const box = rows[r].boxes[b];
  const shown = box.items.slice(0, 60);
  const tableRow = (...cells) => make("tr", {}, ...cells);
  const body = shown.flatMap((n) => items[n].values.map((value, i) => {
    const item = items[n];
    const g = item.gradients[i];
    return tableRow(make("td", { class: "name" }, item.values.length > 1 && item.names[i]
      ? `${item.names[i]}  (of ${item.operation})` : short(titleOf(item), 70)),
    make("td", {}, value ? shape(value.shape) : ""), make("td", {}, value ? number(value.norm) : ""),
    make("td", {}, g ? number(g.norm) : ""));
  }));
  const head = tableRow(...["", "shape", "|value|", "|gradient|"].map((h) => make("th", {}, h)));
  const more = box.items.length - shown.length;
  return [make("h2", {}, rows[r].loop ? `${rows[r].name}, step ${box.t}` : rows[r].told),
    make("p", {}, `${count(box.items.length)}${more ? `, the first ${shown.length} of them` : ""}`),
    make("div", { class: "scroll" }, make("table", {}, head, ...body))];
}

function aboutItem(item, stop) {
  const touring = stop !== null && stop.item === item.number;
  const cards = make("div", { class: "cards" });
  const arrow = () => make("div", { class: "to" }, "→");
  if (touring && stop.back) {
    const visit = visits[stop.visit];
    cards.classList.add("back");
    visit.cotangents.forEach((g, i) => {
      const of = visit.cotangents.length > 1 ? ` at ${nameOf([visit.item, i])}` : "";
      if (g) cards.append(part(`cotangent that arrived${of}`, matrix(g)));
    });
    cards.append(arrow());
    for (const { to, share, sum } of visit.shares) {
      cards.append(part(`its share for ${short(nameOf(to), 44)}`, matrix(share)));
      if (sum) cards.append(part(`${nameOf(to)}.grad so far`, matrix(sum), "sum"));
    }
  } else {
    item.inputs.forEach((ref, i) => {
      const name = item.input_names[i] || (ref ? nameOf(ref) : "data");
      if (ref) cards.append(part(`in: ${short(name, 44)}`, matrix(items[ref[0]].values[ref[1]])));
      else if (item.data[i]) cards.append(part(`in: ${name}, needs no gradient`,
        matrix(item.data[i])));
    });
    if (item.operation) cards.append(arrow());
    item.values.forEach((value, i) => {
      const of = item.values.length > 1 ? `: ${item.names[i] || i}` : "";
      cards.append(part(`${item.operation ? "out" : "value"}${of}`, matrix(value)));
    });
    if (!touring) {
      item.gradients.forEach((g, i) => {
        const of = item.gradients.length > 1 ? ` of ${item.names[i] || i}` : "";
        if (g) cards.append(part(item.operation ? `gradient${of}` : ".grad", matrix(g), "back"));
      });
    }
  }
  const where = item.operation ? whereOf(item) : `used ${item.uses} times`;
  return [make("h2", {}, titleOf(item)), make("p", {}, where), cards];
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
$("last").onclick = () => go(tour.length - 1);
$("next").onclick = () => go(view.at + 1);
$("play").onclick = play;
$("place").max = tour.length;
$("place").oninput = (event) => go(Number(event.target.value) - 1);
$("step").oninput = ({ target }) => target.setCustomValidity(target.value === ""
  || times.includes(Number(target.value)) ? "" : `there is no step ${target.value}`);
$("step").onchange = ({ target }) => {
  if (target.reportValidity() && target.value !== "") openStep(Number(target.value));
};
$("close").onclick = () => {
  view.open.clear();
  view.shown.clear();
  view.auto = view.box = null;
  draw();
  detail();
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
addEventListener("resize", draw);
draw();
detail();
