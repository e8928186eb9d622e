"use strict";
// What the page does with its data (unionfs/explain/page.py says how that is laid out). Everything in it that people
// have named is put into the page as text (textContent), never as markup.
(() => {
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
    if (!row[KIND]) element.classList.add("gone");
    if (below(at)) element.setAttribute("aria-expanded", isOpen(at));
    name.append(make("span", "twist", below(at) ? (isOpen(at) ? "▾" : "▸") : ""), drawLabel(at, directory));
    if (below(at) && !isOpen(at)) name.append(make("span", "count", number(below(at))));
    else if ((row[MORE] || {}).cut) name.append(make("span", "count", "…"));
    name.title = "/" + paths[at];
    if (row[KIND]) element.append(drawSeen(row));
    else if (!row[KIND]) element.setAttribute("aria-label", `/${paths[at]}, deleted`);
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

  // words -------------------------------------------------------------------------------------------------------------
  const RULES = {
    whiteout: "the whiteout ", opaque: "the opaque directory ", file: "", directory: "the directory ",
    redirect: "the redirect of ", link: "its copy ",
  };

  function hiderWords(row, part) {
    if (!part[HIDER]) return null;
    const [rule, layer, path] = part[HIDER];
    return [`hidden by ${RULES[words.rules[rule]]}`, path, ` in ${layerOf(layer).name}`];
  }

  // In one line each, of a part.
  function remarks(row, part) {
    const extra = part[EXTRA] || {}, found = [], hider = hiderWords(row, part);
    if (hider) found.push(hider[0] + "/" + hider[1] + hider[2]);
    if (extra.opaque) found.push("opaque: what lies below is not seen");
    if (extra.metacopy) found.push("metacopy: its data is further down");
    if (extra.redirect) found.push("redirect: goes on below as " + extra.redirect);
    if (extra.links) found.push(`hard link: ${number(extra.links)} names in this layer`);
    if (extra.link_below) found.push(`hard link to /${extra.link_below} of a layer below`);
    if (extra.in_work) found.push("in the work directory, for another name was copied up");
    return found;
  }

  function headline(at) {
    const row = rows[at];
    if (!row[KIND]) {
      const part = row[PARTS].find((one) => one[HIDER]);
      const hider = part && hiderWords(row, part);
      return hider ? `not there, ${hider[0]}/${hider[1]}${hider[2]}` : "not there, and below nothing that is hidden";
    }
    const names = shownParts(row).map((part) => layerOf(part[LAYER]).name);
    if (names.length === 1) return `${kind(at)} of ${names[0]}`;
    return kind(at) === "dir" ? `dir of ${names.slice(0, -1).join(", ")} and ${names.at(-1)}, merged`
      : `${kind(at)} of ${names[0]}, a metacopy: its data is in ${names.at(-1)}`;
  }

  function facts(part) {
    if (words.roles[part[ROLE]] === "whiteout") return "";
    const [mode, uid, gid] = data.metas[part[META]], what = words.kinds[part[P_KIND]];
    const when = new Date(part[TIME] * 1000);
    const said = [what + (what === "file" ? ` of ${size(part[SIZE])}${part[SIZE] >= 1000 ? ` (${number(part[SIZE])} bytes)` : ""}` : ""),
      mode.toString(8).padStart(4, "0"), `${uid}:${gid}`];
    if (!Number.isNaN(when.getTime())) said.push(when.toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC"));
    return said.join("  ·  ");
  }

  // one path ----------------------------------------------------------------------------------------------------------
  function link(path) {
    const target = byPath.get(path);
    if (target === undefined) return make("code", "", "/" + path);
    const button = make("button", "path", "/" + path);
    button.type = "button";
    button.addEventListener("click", () => reveal(target));
    return button;
  }

  function line(...parts) {
    const element = make("p");
    element.append(...parts);
    return element;
  }

  function showDetails(label, ...content) {
    const shut = make("button", "shut", "✕");
    shut.type = "button";
    shut.setAttribute("aria-label", "Close");
    shut.addEventListener("click", hideDetails);
    details.replaceChildren(shut, ...content);
    details.setAttribute("aria-label", label);
    const appears = details.hidden;
    details.hidden = false;
    details.scrollTop = 0;
    if (appears) measure(), render(true);
  }

  function hideDetails() {
    details.hidden = true;
    selected = -1;
    measure();
    render(true);
    grid.focus();
  }

  function showRow(at) {
    const row = rows[at], more = row[MORE] || {};
    const list = make("ol");
    for (const part of row[PARTS]) list.append(drawPart(at, part));
    const content = [make("h2", "", "/" + paths[at]), make("p", "", headline(at)), make("h3", "", "From the top"), list];
    if (more.origin) content.push(line("copied up from ", link(more.origin[1]), ` in ${layerOf(more.origin[0]).name}`));
    for (const [layer, path, redirect] of more.redirects || [])
      content.push(line(link(path), ` in ${layerOf(layer).name} goes on below as ${redirect}`));
    if (more.data) {
      const [file, offset, bytes, sparse] = more.data;
      content.push(make("h3", "", "Where the bytes are"), line(make("code", "", typeof file === "number" ? data.files[file] : file)));
      if (offset >= 0) content.push(line(`${number(bytes)} bytes at offset ${number(offset)}${sparse ? ", the first piece of a sparse file" : ""}`));
    }
    showDetails("History of /" + paths[at], ...content);
  }

  function drawPart(at, part) {
    const role = words.roles[part[ROLE]], layer = layerOf(part[LAYER]), extra = part[EXTRA] || {}, row = rows[at];
    const look = { data: "merged", linked: "hidden" }[role] || role;
    const item = make("li", `${look} l${layer.number}`), top = make("div", "layer");
    item.classList.remove("wins");
    top.append(make("span", "", layer.name), make("span", "role", role));
    item.append(top);
    const said = facts(part);
    if (said) item.append(make("p", "", said));
    if (extra.path !== undefined && extra.path !== paths[at]) item.append(line("as ", make("code", "", "/" + extra.path)));
    if (extra.target !== undefined) item.append(line("→ ", make("code", "", extra.target)));
    const hider = hiderWords(row, part);
    if (hider) item.append(line(hider[0], link(hider[1]), hider[2]));
    for (const remark of remarks(row, part).slice(hider ? 1 : 0)) item.append(make("p", "", remark));
    if (layer.about) item.append(make("p", "dim", layer.about));
    return item;
  }

  function tallyWords(layer) {
    const tally = { wins: 0, merged: 0, data: 0, linked: 0, hidden: 0, whiteout: 0 };
    let seen = 0, hidden = 0;
    for (const row of rows)
      for (const part of row[PARTS]) {
        if (part[LAYER] !== layer) continue;
        const role = words.roles[part[ROLE]];
        tally[role]++;
        if (words.kinds[part[P_KIND]] !== "file") continue;
        if (role === "hidden" || role === "linked") hidden += part[SIZE];
        else seen += part[SIZE];
      }
    const said = [`${number(tally.wins + tally.merged + tally.data)} paths that are seen, ${size(seen)}`];
    if (tally.hidden + tally.linked) said.push(`${number(tally.hidden + tally.linked)} hidden, ${size(hidden)}`);
    if (tally.whiteout) said.push(`${number(tally.whiteout)} ${tally.whiteout === 1 ? "whiteout" : "whiteouts"}`);
    return said.join("; ");
  }

  function showLayer(layer) {
    const content = [make("h2", "", layer.name), make("p", "", layerWords(layer))];
    if (layer.path) content.push(line(make("code", "", layer.path)));
    content.push(make("h3", "", "What it has"), make("p", "", tallyWords(layer.number)));
    if (layer.about) content.push(make("h3", "", "Made by"), make("p", "", layer.about));
    selected = -1;
    showDetails("Layer " + layer.name, ...content);
    mark();
  }

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
  for (const name of ["deleted", "changed", "moved", "overridden", "added"]) {
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
})();
