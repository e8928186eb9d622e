// What is drawn: the heading, the rows that can be seen, the arrows between them.

// columns -----------------------------------------------------------------------------------------------------------
const dense = layers.length > 9;
let nameWidth = 0, seenWidth = 0, cell = 0;

function measure() {
  const narrow = innerWidth < 700;
  let widest = 14;
  for (let at = 0; at < count; at++)
    widest = Math.max(widest, rows[at][NAME].length + rows[at][DEPTH] * 2.2 + (below(at) ? 6 : 0));
  nameWidth = Math.round(Math.min(widest * 7.4 + 50, narrow ? 190 : 380, Math.max(170, grid.clientWidth * 0.42)));
  seenWidth = narrow ? 112 : 150;
  const room = grid.clientWidth - nameWidth - seenWidth - 20;
  cell = dense ? 26 : Math.max(98, Math.min(170, Math.floor(room / Math.max(1, layers.length))));
  const style = document.documentElement.style;
  style.setProperty("--columns", `${nameWidth}px ${seenWidth}px repeat(${layers.length}, ${cell}px) 1fr`);
  style.setProperty("--wide", nameWidth + seenWidth + layers.length * cell + 20 + "px");
  style.setProperty("--cell", cell + "px");
  style.setProperty("--inset", dense ? "5px" : "6px");
  document.body.classList.toggle("dense", dense);
}

function drawHead() {
  const columns = layers.map((layer, at) => {
    const holder = make("div");
    holder.setAttribute("role", "columnheader");
    holder.style.gridColumn = at + 3;
    const button = make("button", "l" + layer.number);
    button.type = "button";
    button.tabIndex = at ? -1 : 0;
    button.append(make("span", "title", layer.name), make("span", "number", dense ? layer.number || "" : layerWords(layer)));
    button.title = [layer.name, layerWords(layer), layer.path, layer.about].filter(Boolean).join("\n");
    button.addEventListener("click", () => showLayer(layer));
    holder.append(button);
    return holder;
  });
  const [name, seen] = [make("div", "name", "path"), make("div", "seen", "what is seen")];
  for (const one of [name, seen]) one.setAttribute("role", "columnheader");
  head.replaceChildren(name, seen, ...columns);
  grid.setAttribute("aria-colcount", layers.length + 2);
}

// One stop for Tab, however many layers there are.
head.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const buttons = [...head.querySelectorAll("button")], at = buttons.indexOf(event.target) + step;
  if (!step || !buttons[at]) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  buttons[at].tabIndex = 0;
  buttons[at].focus();
});

const layerWords = (layer) => (layer.number ? "layer " + layer.number : "changes");
const layerOf = (at) => layers.find((layer) => layer.number === at);

// rows --------------------------------------------------------------------------------------------------------------
let current = 0, selected = -1, drawn = new Map();
const ways = document.createElementNS("http://www.w3.org/2000/svg", "svg");
ways.id = "ways";
ways.setAttribute("aria-hidden", "true");

function render(anew) {
  if (anew) {
    drawn.clear();
    body.replaceChildren(ways);
    if (!lines.length) body.append(make("div", "nothing", "No path matches."));
  }
  const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - 6);
  const to = Math.min(lines.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + 6);
  for (const [at, element] of drawn) if (at < from || at >= to) element.remove(), drawn.delete(at);
  for (let at = from; at < to; at++) {
    if (drawn.has(at)) continue;
    const element = lines[at] < 0 ? drawFold(at) : drawRow(at);
    element.style.top = at * ROW + "px";
    element.setAttribute("aria-rowindex", at + 2);
    drawn.set(at, element);
    body.append(element);
  }
  mark();
  drawWays(from, to);
}

function mark() {
  for (const [at, element] of drawn) {
    element.classList.toggle("current", at === current);
    element.classList.toggle("selected", lines[at] === selected && selected >= 0);
    element.setAttribute("aria-selected", lines[at] === selected);
  }
  const element = drawn.get(current);
  if (element) grid.setAttribute("aria-activedescendant", element.id);
  else grid.removeAttribute("aria-activedescendant");
}

function frame(line, depth) {
  const element = make("div", "row"), name = make("div", "name");
  element.id = "line" + line;
  element.setAttribute("role", "row");
  element.setAttribute("aria-level", depth + 1);
  name.setAttribute("role", "rowheader");
  name.style.paddingLeft = 12 + depth * 16 + "px";
  element.append(name);
  element.addEventListener("click", (event) => act(line, event.target.classList.contains("twist")));
  return [element, name];
}

function drawFold(line) {
  const directory = -1 - lines[line];
  let names = 0;
  const used = new Set();
  for (let child = directory + 1; child <= directory + below(directory); child++) {
    const top = parent[child] === directory;
    if (top && notable[child]) child += below(child);
    else names++, rows[child][PARTS].forEach((part) => used.add(part[LAYER]));
  }
  const [element, name] = frame(line, rows[directory][DEPTH] + 1);
  element.classList.add("fold");
  const only = used.size === 1 ? `, only in ${layerOf([...used][0]).name}` : `, in ${used.size} layers`;
  name.append(make("span", "twist", "⋯"), make("span", "label", `${number(names)} more${only}`));
  name.title = name.textContent;
  return element;
}

function drawRow(line) {
  const at = lines[line], row = rows[at];
  const [element, name] = frame(line, row[DEPTH]);
  const directory = isDirectory(at);
  if (directory) element.classList.add("dir");
  if (state(at) === "deleted") element.classList.add("gone");
  if (below(at)) element.setAttribute("aria-expanded", isOpen(at));
  name.append(make("span", "twist", below(at) ? (isOpen(at) ? "▾" : "▸") : ""), drawLabel(at, directory));
  if (below(at) && !isOpen(at)) name.append(make("span", "count", number(below(at))));
  else if ((row[MORE] || {}).cut) name.append(make("span", "count", "…"));
  name.title = "/" + paths[at];
  if (row[KIND]) element.append(drawSeen(row));
  else if (state(at) === "broken") element.append(drawFailure(row));
  else element.setAttribute("aria-label", `/${paths[at]}, deleted`);
  drawCopyUp(at, element);
  const done = new Set();
  for (const part of row[PARTS]) {
    if (done.has(part[LAYER])) continue;
    done.add(part[LAYER]);
    element.append(drawCell(row, part));
  }
  return element;
}

function drawLabel(at, directory) {
  const text = (rows[at][DEPTH] ? rows[at][NAME] : "/" + data.path) + (directory && (data.path || at) && kind(at) !== "file" ? "/" : "");
  const label = make("span", "label");
  const where = query ? text.toLowerCase().indexOf(query.replace(/^.*\//, "")) : -1;
  const length = query.replace(/^.*\//, "").length;
  if (where < 0 || !length) label.textContent = text;
  else label.append(text.slice(0, where), make("mark", "", text.slice(where, where + length)), text.slice(where + length));
  return label;
}

const shownParts = (row) => row[PARTS].filter((part) => ["wins", "merged", "data"].includes(words.roles[part[ROLE]]));
const size = (bytes) => {
  let unit = 0;
  while (bytes >= 1000 && unit < 8) (bytes /= 1000), unit++;
  return `${Number(bytes.toPrecision(3))} ${["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"][unit]}`;
};

function kindWords(part) {
  const what = words.kinds[part[P_KIND]], extra = part[EXTRA] || {};
  if (what === "file") return size(part[SIZE]);
  return what === "symlink" ? "→ " + extra.target : what;
}

function drawSeen(row) {
  const shown = shownParts(row);
  const element = make("div", "seen cell wins l" + shown[0][LAYER]);
  element.setAttribute("role", "gridcell");
  element.style.gridColumn = 2;
  element.append(make("span", "text", kindWords(shown[0])));
  for (const part of shown.slice(1, 5)) element.append(make("i", "chip l" + part[LAYER]));
  element.title = "from " + shown.map((part) => layerOf(part[LAYER]).name).join(", ");
  return element;
}

function drawFailure(row) {
  const element = make("div", "failure", row[MORE].failure);
  element.setAttribute("role", "gridcell");
  element.style.gridColumn = "2 / -1";
  return element;
}

function drawCell(row, part) {
  const role = words.roles[part[ROLE]], extra = part[EXTRA] || {};
  const look = { data: "merged", linked: "hidden" }[role] || role;
  const element = make("div", `cell ${look} l${part[LAYER]}`);
  element.setAttribute("role", "gridcell");
  element.style.gridColumn = column.get(part[LAYER]);
  if (extra.opaque) element.classList.add("opaque");
  let text = kindWords(part);
  if (role === "whiteout") text = "deleted";
  else if (extra.opaque) text = "opaque " + text;
  else if (extra.metacopy) text = "metacopy " + text;
  else if (extra.redirect) text = text + " → " + extra.redirect;
  if (!dense) element.textContent = text;
  element.title = [layerOf(part[LAYER]).name + ": " + role + ", " + text, ...remarks(row, part)].join("\n");
  if (dense) element.setAttribute("aria-label", element.title);
  return element;
}

// arrows ------------------------------------------------------------------------------------------------------------
function drawCopyUp(at, element) {
  const origin = (rows[at][MORE] || {}).origin;
  if (!origin || origin[1] !== paths[at] || !column.has(0)) return;
  const arrow = make("div", "arrow");
  arrow.style.gridColumn = `${column.get(0)} / ${column.get(origin[0]) + 1}`;
  element.append(arrow);
}

const moved = [];
for (let at = 0; at < count; at++) for (const way of (rows[at][MORE] || {}).ways || []) moved.push([at, ...way]);

function drawWays(from, to) {
  ways.replaceChildren();
  if (!moved.length) return;
  const place = new Map();
  lines.forEach((at, line) => at >= 0 && place.set(at, line));
  const svg = (tag, attributes) => {
    const element = document.createElementNS(ways.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    ways.append(element);
  };
  const inset = dense ? 5 : 6;
  for (const [at, start, end, path, copied] of moved) {
    const target = byPath.get(path);
    if (!place.has(at) || !place.has(target) || target === at) continue;
    const [a, b] = [place.get(at), place.get(target)];
    if (Math.max(a, b) < from || Math.min(a, b) > to) continue;
    const left = nameWidth + seenWidth;
    const x1 = left + (column.get(start) - 2) * cell - inset, x2 = left + (column.get(end) - 3) * cell + inset;
    const y1 = a * ROW + ROW / 2, y2 = b * ROW + ROW / 2, bend = (x1 + x2) / 2;
    const kind = copied ? "copied" : "";
    svg("path", { class: kind, d: `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}` });
    svg("path", { class: "tip " + kind, d: copied ? `M${x1} ${y1}l8 -4v8z` : `M${x2} ${y2}l-8 -4v8z` });
  }
}
