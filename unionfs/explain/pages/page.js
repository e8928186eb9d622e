// What people do, and how it begins.

// what people do ----------------------------------------------------------------------------------------------------
function setOpen(at, value) {
  if (matches || !below(at)) return;
  opened[at] = value ? 1 : 0;
  arrange();
}

function act(line, twist) {
  current = line;
  const at = lines[line];
  if (at < 0) {
    unfolded[-1 - at] = 1;
    arrange();
  } else if (twist && below(at) && !matches) setOpen(at, !opened[at]);
  else choose(at);
}

function choose(at) {
  selected = at;
  showRow(at);
  keepInSight();
  keepCellInSight(at);
  mark();
  history.replaceState(null, "", "#" + encodeURIComponent("/" + paths[at]));
}

function reveal(at) {
  for (let up = parent[at]; up >= 0; up = parent[up]) opened[up] = unfolded[up] = 1;
  if (matches && !matches.found[at]) clear();
  arrange();
  move(lines.indexOf(at));
  choose(at);
}

function keepInSight() {
  const top = current * ROW, space = grid.clientHeight - head.offsetHeight - ROW;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top > grid.scrollTop + space) grid.scrollTop = top - space;
  render(false);
}

// Where it is decided, among many layers.
function keepCellInSight(at) {
  const part = rows[at][PARTS][0];
  if (!part || isDirectory(at)) return;
  const x = nameWidth + seenWidth + (column.get(part[LAYER]) - 3) * cell, edge = grid.scrollLeft;
  if (x < edge + nameWidth || x + cell > edge + grid.clientWidth) grid.scrollLeft = x - nameWidth - 2 * cell;
}

function move(line) {
  current = Math.max(0, Math.min(lines.length - 1, line));
  keepInSight();
  if (!details.hidden && lines[current] >= 0 && selected >= 0) choose(lines[current]);
}

function clear() {
  search.value = query = "";
  wanted.clear();
  for (const button of $("filters").children) button.setAttribute("aria-pressed", "false");
  arrange();
}

const KEYS = {
  ArrowDown: () => move(current + 1),
  ArrowUp: () => move(current - 1),
  PageDown: () => move(current + Math.floor(grid.clientHeight / ROW) - 2),
  PageUp: () => move(current - Math.floor(grid.clientHeight / ROW) + 2),
  Home: () => move(0),
  End: () => move(lines.length - 1),
  ArrowRight: () => {
    const at = lines[current];
    if (at < 0) act(current);
    else if (!matches && below(at) && !opened[at]) setOpen(at, true);
    else if (below(at)) move(current + 1);
  },
  ArrowLeft: () => {
    const at = lines[current];
    if (at >= 0 && !matches && opened[at]) setOpen(at, false);
    else move(lines.indexOf(at < 0 ? -1 - at : parent[at]));
  },
  Enter: () => act(current),
  " ": () => act(current),
};

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target !== grid || !KEYS[event.key] || !lines.length) return;
  event.preventDefault();
  KEYS[event.key]();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== search && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape") {
    if (event.target === search || query || wanted.size) clear(), grid.focus();
    else if (!details.hidden) hideDetails();
  }
});
search.addEventListener("input", () => {
  query = search.value.trim().toLowerCase();
  current = 0;
  grid.scrollTop = 0;
  arrange();
});
search.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" && event.key !== "Enter") return;
  event.preventDefault();
  grid.focus();
  if (matches) move(lines.findIndex((at) => matches.found[at] === 2));
});
grid.addEventListener("scroll", () => render(false), { passive: true });
addEventListener("resize", () => (measure(), render(true)));
$("open").addEventListener("click", () => (clear(), opened.fill(1), unfolded.fill(1), arrange()));
$("close").addEventListener("click", () => (clear(), opened.fill(0), unfolded.fill(0), (opened[0] = 1), arrange()));

// the beginning -----------------------------------------------------------------------------------------------------
const tally = new Map();
for (let at = 0; at < count; at++) if (isFirst(at)) tally.set(state(at), (tally.get(state(at)) || 0) + 1);
for (const name of ["deleted", "changed", "moved", "overridden", "added", "broken"]) {
  if (!tally.get(name)) continue;
  const button = make("button", "", name);
  button.type = "button";
  button.append(make("b", "", number(tally.get(name))));
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    if (!wanted.delete(name)) wanted.add(name);
    button.setAttribute("aria-pressed", wanted.has(name));
    current = 0;
    grid.scrollTop = 0;
    arrange();
  });
  $("filters").append(button);
}
$("numbers").textContent = `${number(count + data.left_out)} paths in ${number(layers.length)} ${layers.length === 1 ? "layer" : "layers"}`;
measure();
drawHead();
openNotable();
arrange();
let wish;
try {
  wish = byPath.get(decodeURIComponent(location.hash.slice(1)).replace(/^\//, ""));
} catch { /* no path of ours */ }
if (location.hash && wish !== undefined) reveal(wish);
