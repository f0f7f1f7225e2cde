// The controls set the filter, the URL stores it, and the list shows the matching items.

const NOTHING = { q: "", set: "", kind: "", category: "", attack: "", answer: "", of: "", show: "", from: "0", to: "1", sort: "", item: "", page: "1" };
const PAGE = 10;

function hashOf(wanted) {
  const chosen = Object.entries(wanted).filter(([name, value]) => value !== NOTHING[name]);
  return `#answers?${new URLSearchParams(chosen)}`;
}

function wantedOf(hash) {
  if (!hash.startsWith("#answers?")) return { ...NOTHING };
  const chosen = [...new URLSearchParams(hash.slice(9))].filter(([name]) => Object.hasOwn(NOTHING, name));
  return { ...NOTHING, ...Object.fromEntries(chosen) };
}

function addOptions(control, words, only) {
  words.forEach((word, number) => {
    if (only && !only.has(number)) return;
    const option = make("option", "", word);
    option.value = String(number);
    control.append(option);
  });
  return control.options.length;
}

// Adds the options that occur in this page's answers; hides controls with a single option.
function fillControls(data, form) {
  const present = (key) => new Set(data.items.map((item) => item[key]));
  const used = new Set([...data.answerKinds.keys()].filter((kind) => data.items.some((item) => item.kinds.some((mask) => mask & (1 << kind)))));
  const choices = { set: data.tasks, category: data.categories, attack: data.attacks, kind: data.kinds, answer: data.answerKinds, of: data.models, from: data.models, to: data.models };
  for (const [name, words] of Object.entries(choices)) {
    const only = { kind: present("kind"), answer: used }[name];
    const count = addOptions(form.elements[name], words, only);
    if (name !== "from" && name !== "to") form.elements[name].closest("label").hidden = count < 3;
  }
  for (const option of [...form.elements.show.options]) {
    if (option.value === "flips" && data.models.length < 2) option.remove();
    if (option.value === "disagree" && !data.items.some((item) => item.disagree)) option.remove();
  }
}

function browse(data) {
  const at = (id) => document.getElementById(id);
  const form = at("controls");
  const list = at("list");
  const controls = [...form.elements].filter((control) => Object.hasOwn(NOTHING, control.name));
  fillControls(data, form);
  let wanted = wantedOf(location.hash);
  let found = [];
  let filtered = "";

  function show(moved) {
    for (const control of controls) {
      control.value = wanted[control.name];
      // A URL may name an option that this page doesn't have.
      if (control.value !== wanted[control.name]) control.value = wanted[control.name] = NOTHING[control.name];
    }
    const filter = JSON.stringify({ ...wanted, page: "" });
    if (filter !== filtered) found = select(data.items, wanted);
    filtered = filter;
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const page = Math.min(Math.max(1, Number.parseInt(wanted.page, 10) || 1), pages);
    wanted.page = String(page);
    at("flip-models").hidden = wanted.show !== "flips";
    at("all").hidden = hashOf({ ...wanted, page: "1" }) === hashOf(NOTHING);
    const revealed = at("revealed").checked;
    list.replaceChildren(...found.slice((page - 1) * PAGE, page * PAGE).map((item) => viewItem(data, item, revealed)));
    const total = data.items.length.toLocaleString("en");
    at("count").textContent = `${found.length.toLocaleString("en")} of ${total} prompts${pages > 1 ? `, page ${page} of ${pages}` : ""}`;
    for (const [id, off] of [["previous", page <= 1], ["next", page >= pages]]) at(id).disabled = off;
    if (moved) {
      history.replaceState(null, "", hashOf(wanted));
      if (moved === "page") at("count").focus();
    }
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    for (const control of controls) wanted[control.name] = control.value;
    wanted = { ...wanted, item: "", page: "1" };
    show("filter");
  });
  at("all").addEventListener("click", () => { wanted = { ...NOTHING }; show("filter"); });
  at("revealed").addEventListener("change", () => show());
  at("previous").addEventListener("click", () => { wanted.page = String(Number(wanted.page) - 1); show("page"); });
  at("next").addEventListener("click", () => { wanted.page = String(Number(wanted.page) + 1); show("page"); });
  at("export").addEventListener("click", () => {
    const link = make("a", "");
    link.href = URL.createObjectURL(new Blob(asLines(data, found), { type: "application/jsonl" }));
    link.download = "answers.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  window.addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#answers?")) return;
    wanted = wantedOf(location.hash);
    show();
    at("answers").scrollIntoView();
  });
  show();
  if (location.hash.startsWith("#answers?")) at("answers").scrollIntoView();
}

function theme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colors`); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  label();
}

// Plots are laid out for one font. A label that a wider one pushes out of its plot is condensed until it fits.
function fitLabels() {
  for (const svg of document.querySelectorAll("figure svg")) {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    if (!scale) continue;
    for (const text of svg.querySelectorAll("text")) {
      text.removeAttribute("textLength");
      const own = text.getBoundingClientRect();
      const turned = (text.getAttribute("transform") || "").includes("rotate(-90");
      const ends = turned ? [box.top - own.top, own.bottom - box.bottom] : [box.left - own.left, own.right - box.right];
      const over = Math.max(...ends) / scale;
      if (over <= 0) continue;
      const sides = getComputedStyle(text).textAnchor === "middle" ? 2 : 1;
      text.setAttribute("lengthAdjust", "spacingAndGlyphs");
      text.setAttribute("textLength", Math.max(1, text.getComputedTextLength() - sides * over));
    }
  }
}

theme();
fitLabels();
addEventListener("resize", fitLabels);
document.fonts.addEventListener("loadingdone", fitLabels);
if (matchMedia("(max-width: 30rem)").matches) document.getElementById("facts").open = false;
const packed = document.getElementById("packed");
if (packed) {
  unpack(packed).then((raw) => {
    const data = shape(raw);
    document.getElementById("browser").hidden = false;
    document.getElementById("waiting").remove();
    browse(data);
    performance.mark("bfpo:open");
    document.documentElement.dataset.ready = "yes";
    prepareSearch(data.items);
  }).catch((error) => {
    document.getElementById("waiting").textContent = `The answers can't be loaded in this browser: ${error.message}`;
  });
} else {
  document.documentElement.dataset.ready = "yes";
}
