// What is said of one path, and of one layer.

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
  if (state(at) === "broken") return "it cannot be looked up: " + row[MORE].failure;
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
