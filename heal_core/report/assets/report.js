"use strict";
/* The inspector of a report: filters, a list, and one trajectory to read. Texts only ever become text nodes.
   A page holds its trajectories itself; `heal view` gives `api` instead, and they are asked for one by one. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const FIELDS = { kind: "phase", band: "band", verdict: "label", outcome: "outcome", gate: "reason", stage: "stage" };
  const WORDS = {
    rollouts: "rollout", repairs: "repair", guided: "guided sample", evaluation: "student's answer",
    extremely_hard: "extremely hard",
  };
  const words = (value) => Object.hasOwn(WORDS, value) ? WORDS[value] : String(value).replaceAll("_", " ");

  /** Return a text as nodes with places to break within long words: a browser takes half a minute to paint one of
      20,000 letters that has none. */
  const breakable = (text) => text.split(/(\S{100})(?=\S)/u).flatMap((part, index) => (index % 2 ? [part, document.createElement("wbr")] : [part]));

  /** Return an element with attributes and children; children that are no nodes become text. */
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
    }
    const given = children.flat().filter((child) => child !== null && child !== undefined && child !== "");
    element.append(...given.flatMap((child) => (typeof child === "string" ? breakable(child) : [child])));
    return element;
  };

  // ---- where trajectories come from

  const ask = async (path, parameters = {}) => {
    const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
    const reply = await fetch(`${data.api}/${path}?${query}`).catch(() => {
      throw new Error("heal view does not answer: it may have ended.");
    });
    const body = await reply.text();
    const isData = (reply.headers.get("content-type") || "").startsWith("application/json");
    if (!reply.ok || !isData) throw new Error((isData ? JSON.parse(body).error : body) || `the server answered ${reply.status}`);
    return JSON.parse(body);
  };

  /** Wait where there is a server, so that it is not asked for every letter that is typed. */
  const settle = (milliseconds) => (data.api ? new Promise((resolve) => { setTimeout(resolve, milliseconds); }) : null);

  const textOf = (row) => {
    const view = data.trajectories[row.trajectory_id];
    return [row.trajectory_id, row.problem_id, view.question, view.prefix, view.tokens.join("")].join("\n").toLowerCase();
  };

  const meets = (row, wanted) => {
    for (const [name, field] of Object.entries(FIELDS)) {
      if (!wanted[name]) continue;
      if (name === "stage" ? !row.stages.includes(wanted.stage) : row[field] !== wanted[name]) return false;
    }
    for (const [end, sign] of [["pure-min", 1], ["pure-max", -1]]) {
      if (wanted[end] !== "" && !(row.pure !== null && sign * (row.pure - Number(wanted[end])) >= 0)) return false;
    }
    return !wanted.text || textOf(row).includes(wanted.text.toLowerCase());
  };

  const source = data.api
    ? {
        list: (wanted) => ask("trajectories", { run: data.run_id, ...wanted }),
        view: (id) => ask("trajectory", { run: data.run_id, id }),
      }
    : {
        list: async (wanted) => {
          const rows = data.listed.filter((row) => meets(row, wanted));
          return { rows, num_all: rows.length };
        },
        view: async (id) => data.trajectories[id] || null,
      };

  // ---- the list

  const list = byId("trajectory-list");
  let rows = [];
  let chosen = -1;

  const wantedNow = () => {
    const wanted = { text: byId("filter-text").value.trim() };
    for (const name of [...Object.keys(FIELDS), "pure-min", "pure-max"]) wanted[name] = byId(`filter-${name}`).value;
    return wanted;
  };

  const badge = (word, kind) => make("span", { class: `badge ${kind || ""}` }, words(word));

  const option = (row, index) => {
    const about = [row.band && words(row.band), `${row.num_tokens} tokens`];
    if (row.pure !== null) about.push(`PURE ${row.pure.toPrecision(3)}`);
    if (row.stages.length) about.push(`stage ${row.stages.join(", ")}`);
    if (row.num_repairs) about.push(`${row.num_verified} of ${row.num_repairs} repairs verified`);
    if (row.arm) about.push(row.arm);
    const outcome = row.outcome ? [" ", badge(row.outcome, row.outcome.split(" ")[0])] : [];
    const element = make(
      "div",
      { role: "option", id: `option-${index}`, "data-id": row.trajectory_id, "aria-selected": "false" },
      make("b", {}, words(row.phase)), " ", make("code", {}, row.trajectory_id.slice(0, 8)), " ",
      row.label ? badge(row.label, row.label) : "", ...outcome,
      make("small", {}, about.filter(Boolean).join(" · "), row.reason ? ` · ${words(row.reason)}` : ""),
    );
    element.addEventListener("click", () => choose(index, true));
    return element;
  };

  const said = (number) => number.toLocaleString("en");
  const counted = (numAll) => {
    if (!data.api) return `${said(rows.length)} of ${said(data.listed.length)} shown`;
    return rows.length < numAll ? `the first ${said(rows.length)} of ${said(numAll)}: narrow the filters to see others` : `${said(numAll)} shown`;
  };

  let asked = 0;
  const show = (found, note) => {
    rows = found.rows;
    chosen = -1;
    list.replaceChildren(...rows.map(option));
    if (!rows.length) list.append(make("div", { class: "empty" }, "No trajectory meets all filters."));
    list.removeAttribute("aria-activedescendant");
    byId("trajectory-count").textContent = note ?? counted(found.num_all);
  };

  const refresh = async () => {
    const turn = ++asked;
    try {
      await settle(150);
      if (turn !== asked) return;
      const found = await source.list(wantedNow());
      if (turn === asked) show(found);
    } catch (error) {
      if (turn === asked) show({ rows: [], num_all: 0 }, error.message);
    }
  };

  const mark = (index) => {
    list.children[chosen]?.setAttribute("aria-selected", "false");
    chosen = index;
    const element = list.children[index];
    element.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", element.id);
    // by hand, since scrollIntoView moves the page too, and a page that is opened shall begin at its top
    const [box, place] = [list.getBoundingClientRect(), element.getBoundingClientRect()];
    list.scrollTop += Math.min(0, place.top - box.top) + Math.max(0, place.bottom - box.bottom);
  };

  const choose = async (index, read) => {
    if (index < 0 || index >= rows.length) return;
    mark(index);
    if (read) await open(rows[index].trajectory_id);
  };

  // ---- one trajectory

  const LEVELS = 5;
  const detail = byId("trajectory");

  const shown = (text, isLast) => (isLast ? text.replace(/[\n ]*\n[\n ]*$/, " ↵") : text);

  const tokens = (view, from, to, most) => {
    const nodes = [];
    let last = to; // from here on there is only the blank line between two steps, of which a sign is enough
    while (last > from && !view.tokens[last - 1].trim()) last -= 1;
    for (let index = from; index < to; index += 1) {
      const nats = view.entropies[index];
      const level = nats && most ? Math.ceil((LEVELS * Math.min(nats, most)) / most - 1e-9) : 0;
      const radius = view.radii ? ` ± ${view.radii[index]}` : "";
      const title = nats === null || nats === undefined ? "entropy not known" : `${nats}${radius} nats`;
      nodes.push(make("span", { class: level ? `token e${level}` : "token", title }, shown(view.tokens[index], index >= last - 1)));
    }
    return nodes;
  };

  /** Return the steps from `first` on; those of a repair are counted on from the `kept` ones. */
  const steps = (view, most, first = 0, kept = 0) => {
    const items = [];
    for (let index = first; index < view.steps.length; index += 1) {
      const from = view.steps[index].start;
      const to = index + 1 < view.steps.length ? view.steps[index + 1].start : view.tokens.length;
      const breaks = view.breakpoint === index;
      const radius = view.steps[index].radius ? ` ± ${view.steps[index].radius}` : "";
      let about = `step ${kept + index + 1} · ${view.steps[index].entropy}${radius} nats`;
      if (breaks) {
        const flat = view.flat ? "; nothing rises here, so that the place is a convention" : "";
        const open = view.is_certain === false ? "; not certain" : "";
        about = `breakpoint: ${about}, surge ${view.surge > 0 ? "+" : ""}${view.surge}, the largest of the ${view.window_size} steps searched${flat}${open}`;
      }
      items.push(make("li", { class: breaks ? "step breakpoint" : "step" }, make("span", { class: "about" }, about), tokens(view, from, to, most)));
    }
    if (!view.steps.length && view.tokens.length) items.push(make("li", { class: "step" }, tokens(view, 0, view.tokens.length, most)));
    if (view.num_left_out) items.push(make("li", { class: "step" }, `${view.num_left_out} more tokens are in the store.`));
    return make("ol", { class: "steps" }, items);
  };

  const legend = (view, most) => {
    const source = view.radii ? `; middles of the intervals that ${view.entropy_source} tells` : "";
    const shades = [...Array(LEVELS).keys()].map((level) => make("span", { class: `token e${level + 1}` }, " "));
    return make("p", { class: "legend" }, "entropy of each token: 0 ", shades, ` ${most.toPrecision(2)} nats${source}`);
  };

  const mostOf = (...views) => {
    let most = 0;
    for (const view of views) for (const nats of view ? view.entropies : []) if (nats > most) most = nats;
    return most;
  };

  const link = (id, text, kind) => {
    const button = make("button", { type: "button" }, text, kind ? [" ", badge(kind, kind.split(" ")[0])] : []);
    button.addEventListener("click", () => open(id));
    return button;
  };

  const PHASES = { gate_base: "gates (for comparison only)", gate: "gates", pure: "PURE", cap: "cap", path: "choice of paths to repair", breakpoint: "breakpoint" };

  const ENDS = { stop: "the model ended its turn", length: "cut at the limit", hopeless: "given up as hopeless" };

  const explained = (reason) => (Object.hasOwn(data.reasons, reason) ? `: ${data.reasons[reason]}` : "");

  const fate = (view) => {
    const items = view.decisions.map((one) =>
      make("li", {}, `${PHASES[one.phase] || words(one.phase)}: `, badge(one.decision, one.decision), one.reason ? ` ${words(one.reason)}${explained(one.reason)}` : "",
        one.value === null ? "" : ` (${Number(one.value).toPrecision(3)})`));
    for (const one of view.gates.filter((gate) => gate.refused)) items.push(make("li", {}, `${one.gate}${explained(one.gate)}; refuses: ${one.detail || "no more is known"}`));
    const score = view.score;
    if (score && score.ratio !== null) {
      const share = `${Math.round(100 * score.drop_fraction)} %`;
      const cut = score.rule === "problem"
        ? `compared within its problem, of whose ${score.num_candidates} scored repairs the highest ${share}, rounded down, are dropped, ties by id`
        : `compared with the pooled cut ${score.pooled_threshold}`;
      const reliance = score.reliance === null ? "" : `, reliance ${score.reliance}`;
      items.push(make("li", {}, `PURE: ratio ${score.ratio}, jump ${score.jump}${reliance}; by ${score.score_name}, ${cut}; steps ${score.span_start + 1} to ${score.span_end}`));
    }
    return items.length ? [make("h3", {}, "Why it was kept or dropped"), make("ul", {}, items)] : [];
  };

  const verdict = (view) => {
    const said = view.verdict.label ? badge(view.verdict.label, view.verdict.label) : "not graded";
    const read = view.verdict.extracted ? `, read “${view.verdict.extracted}”` : "";
    const reason = view.verdict.reason ? ` (${words(view.verdict.reason)})` : "";
    return make("p", {}, said, `${reason}${read}; the reference is “${view.answer}”; ${ENDS[view.finish_reason] || view.finish_reason}`);
  };

  const render = (view, parent) => {
    const isRepair = view.kind === "repair";
    const most = mostOf(view, parent);
    const arm = view.listed[0]?.arm ? ` (${view.listed[0].arm})` : "";
    const what = view.listed.length ? `${words(view.listed[0].phase)}${arm}` : view.kind;
    const head = [
      make("h3", {}, `${what} `, make("code", {}, view.id)),
      verdict(view),
      make("h3", {}, "Problem"),
      make("div", { class: "block", tabindex: 0, role: "group", "aria-label": "Problem" }, view.question),
    ];
    if (!isRepair) {
      const repairs = view.repairs.map((one) => link(one.trajectory_id, one.trajectory_id.slice(0, 8), one.outcome || "not graded"));
      return [...head, ...fate(view), make("h3", {}, "Text by step"), legend(view, most), steps(view, most),
        ...(repairs.length ? [make("h3", {}, "Repairs of it"), make("div", { class: "links" }, repairs)] : [])];
    }
    const hint = view.hint
      ? [make("h3", {}, "Hidden hint, in the prompt only"), make("div", { class: "block hint", tabindex: 0, role: "group", "aria-label": "Hint" }, view.hint)]
      : [];
    const kept = view.prefix
      ? [make("h3", {}, "Kept steps"), make("div", { class: "block", tabindex: 0, role: "group", "aria-label": "Kept steps" }, view.prefix.trimEnd())]
      : [];
    const original = parent
      ? [steps(parent, most, parent.breakpoint ?? 0), make("div", { class: "links" }, link(parent.id, "the whole original"))]
      : [make("p", { class: "notice" }, "The original is not in this page; heal show prints it.")];
    return [...head, ...fate(view), ...kept, ...hint, make("h3", {}, "From the breakpoint on"), legend(view, most),
      make("div", { class: "sides" }, make("div", {}, make("h4", {}, "original, wrong"), original), make("div", {}, make("h4", {}, "repair"), steps(view, most, 0, parent?.breakpoint ?? 0)))];
  };

  let current = null;
  let opened = 0;
  const open = async (id) => {
    const turn = ++opened;
    try {
      await settle(50);
      if (turn !== opened) return;
      const view = await source.view(id);
      if (!view) throw new Error(`Trajectory ${id} is not in this page; heal show ${id} prints it.`);
      const parent = view.parent && view.kind === "repair" ? await source.view(view.parent) : null;
      if (turn !== opened) return;
      current = view;
      detail.replaceChildren(...render(view, parent));
      const index = rows.findIndex((row) => row.trajectory_id === id);
      if (index >= 0 && index !== chosen) mark(index);
    } catch (error) {
      if (turn === opened) detail.replaceChildren(make("p", { class: "notice" }, error.message));
    }
  };

  /** Open what the address names; else something, so that there is something to see. */
  const openLinked = async () => {
    const linked = /^#t=([0-9a-z]+)$/.exec(location.hash);
    if (!linked) return current || choose(0, true);
    await open(linked[1]);
    detail.scrollIntoView({ block: "start" });
    detail.focus({ preventScroll: true });
  };

  // ---- filters, keys, help

  const fill = async () => {
    const found = data.api ? (await ask("values", { run: data.run_id })) : null;
    for (const [name, field] of Object.entries(FIELDS)) {
      const values = found ? found[name] : [...new Set(data.listed.flatMap((row) => (name === "stage" ? row.stages : [row[field]])))];
      for (const value of values.filter((one) => one !== null).sort()) byId(`filter-${name}`).append(make("option", { value }, words(value)));
    }
  };

  const form = byId("filters");
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(refresh));
  byId("help-button").addEventListener("click", () => byId("help").showModal());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const inList = document.activeElement === list; // elsewhere arrows scroll: in a long text, the text
    if (event.key === "Escape" && event.target.closest("#inspector")) return list.focus();
    if (event.target.closest("input, select, textarea")) return;
    const move = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "/") byId("filter-text").focus();
    else if (event.key === "?") byId("help").showModal();
    else if (move && (inList || event.key === "j" || event.key === "k")) {
      list.focus();
      choose(Math.max(0, Math.min(rows.length - 1, chosen + move)), true);
    } else if (event.key === "Enter" && document.activeElement === list) {
      choose(Math.max(0, chosen), true).then(() => detail.focus());
    } else if (event.key === "o" && current) {
      if (current.kind === "repair") open(current.parent);
      else if (current.repairs.length) open(current.repairs[0].trajectory_id);
    } else return;
    event.preventDefault();
  });
  list.addEventListener("focus", () => { if (chosen < 0 && rows.length) mark(0); });
  window.addEventListener("hashchange", openLinked);

  // ---- what the marks of a chart say

  const tip = make("div", { id: "tip", hidden: "", "aria-hidden": "true" });
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.(".plot svg [aria-label][aria-roledescription]");
    const label = mark && !/axis|legend|title|group/.test(mark.getAttribute("aria-roledescription")) && mark.getAttribute("aria-label");
    tip.hidden = !label;
    if (!label) return;
    tip.textContent = label;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });

  // ---- search by SQL, in `heal view`

  const cell = (value) => {
    if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
    return value === null ? "–" : String(value);
  };
  const search = async () => {
    const note = byId("sql-note");
    const turn = asked;
    note.textContent = "…";
    try {
      const found = await ask("sql", { run: data.run_id, query: byId("sql").value });
      const head = make("tr", {}, found.columns.map((name) => make("th", { scope: "col" }, name)));
      const body = found.rows.map((row) => make("tr", {}, row.map((value) => make("td", {}, cell(value)))));
      byId("sql-rows").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, body)));
      const notes = found.notes.map((one) => ` Note: ${one}`).join("");
      note.textContent = `${found.is_cut ? "the first " : ""}${said(found.rows.length)} row${found.rows.length === 1 ? "" : "s"}${notes}`;
      if (found.listed && turn === asked) { // no filter was changed meanwhile
        asked += 1;
        show({ rows: found.listed }, `${said(found.listed.length)} of the query's ${said(found.num_ids)} ids listed`);
      }
    } catch (error) {
      byId("sql-rows").replaceChildren();
      note.textContent = error.message;
    }
  };
  byId("sql-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("sql")?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    search();
  });

  // where the values of the filters are not to be had, the list says why
  fill().catch(() => null).then(refresh).then(openLinked).then(() => document.documentElement.setAttribute("data-ready", ""));
})();
