// The data, the tree of its rows, and which of them are to be seen (unionfs/explain/page.py says how it is laid out).
// Everything in it that people have named is put into the page as text (textContent), never as markup.
// These files are one function, in the order tree, rows, history, page.

const data = JSON.parse(document.getElementById("data").textContent);
const { layers, rows, words } = data;
const [DEPTH, NAME, STATE, KIND, PARTS, BELOW, NOTABLE, MORE] = [0, 1, 2, 3, 4, 5, 6, 7];
const [LAYER, ROLE, P_KIND, SIZE, META, TIME, HIDER, EXTRA] = [0, 1, 2, 3, 4, 5, 6, 7];
const ROW = 28, FEW = 8, SMALL = 200;
const $ = (id) => document.getElementById(id);
const grid = $("grid"), body = $("body"), head = $("head"), details = $("details"), search = $("search");
const number = new Intl.NumberFormat("en").format;

function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

// the tree ----------------------------------------------------------------------------------------------------------
const count = rows.length;
const parent = new Int32Array(count).fill(-1);
const notable = new Int32Array(count); // of what is in it, and itself
const opened = new Uint8Array(count), unfolded = new Uint8Array(count);
const paths = new Array(count);
const byPath = new Map();
const column = new Map(layers.map((layer, at) => [layer.number, at + 3]));
{
  const way = [];
  for (let at = 0; at < count; at++) {
    const row = rows[at], depth = row[DEPTH];
    way.length = depth;
    parent[at] = depth ? way[depth - 1] : -1;
    paths[at] = !depth ? data.path : paths[parent[at]] ? paths[parent[at]] + "/" + row[NAME] : row[NAME];
    byPath.set(paths[at], at);
    way.push(at);
    if (row[NOTABLE]) for (let up = at; up >= 0; up = parent[up]) notable[up]++;
  }
}
const below = (at) => rows[at][BELOW];
const isDirectory = (at) => rows[at][PARTS].some((part) => words.kinds[part[P_KIND]] === "dir");
const state = (at) => words.states[rows[at][STATE]];
const kind = (at) => words.kinds[rows[at][KIND]];

function openNotable() {
  unfolded.fill(count <= SMALL ? 1 : 0);
  for (let at = 0; at < count; at++) {
    const inside = notable[at] - (rows[at][NOTABLE] ? 1 : 0);
    opened[at] = below(at) && (at === 0 || count <= SMALL || (inside && state(at) !== "deleted")) ? 1 : 0;
  }
}

// Which rows are to be seen, in order: numbers of rows; -1 - n stands for what is folded in directory n.
let lines = [], query = "", wanted = new Set(), matches = null;

function find() {
  if (!query && !wanted.size) return null;
  const found = new Uint8Array(count), inside = new Uint8Array(count);
  let hits = 0;
  for (let at = 0; at < count; at++) {
    if (wanted.size && !(wanted.has(state(at)) && isFirst(at))) continue;
    if (query && !("/" + paths[at]).toLowerCase().includes(query)) continue;
    hits++;
    found[at] = 2;
    for (let up = parent[at]; up >= 0 && !inside[up]; up = parent[up]) {
      inside[up] = 1;
      if (!found[up]) found[up] = 1;
    }
  }
  return { found, inside, hits };
}

// What is in a deleted or added directory is so with it: the directory is what one looks for.
const isFirst = (at) =>
  query || parent[at] < 0 || !["deleted", "added"].includes(state(at)) || state(parent[at]) !== state(at);

function arrange() {
  matches = find();
  lines = [];
  if (matches) {
    for (let at = 0; at < count; at++) if (matches.found[at]) lines.push(at);
  } else {
    const todo = [0];
    while (todo.length) {
      const at = todo.pop();
      lines.push(at);
      if (at < 0 || !opened[at]) continue;
      const children = [], plain = [];
      for (let child = at + 1; child <= at + below(at); child += 1 + below(child))
        (notable[child] || unfolded[at] ? children : plain).push(child);
      const fold = plain.length > (at === 0 ? 40 : FEW);
      const all = fold ? children : [...children, ...plain].sort((a, b) => a - b);
      if (fold) todo.push(-1 - at);
      for (let i = all.length - 1; i >= 0; i--) todo.push(all[i]);
    }
  }
  body.style.height = lines.length * ROW + "px";
  grid.setAttribute("aria-rowcount", lines.length + 1);
  const said = matches ? `${number(matches.hits)} of ${number(count)} paths match` : `${number(lines.length)} rows`;
  $("status").textContent = said + (data.left_out ? `, ${number(data.left_out)} more are not in this file` : "");
  if (current >= lines.length) current = Math.max(0, lines.length - 1);
  render(true);
}

const isOpen = (at) => (matches ? matches.inside[at] === 1 : opened[at] === 1);
