// Builds the HTML of an item. Models' text is inserted only as text nodes, each in its own direction of writing.

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function quoted(name, className, text) {
  const made = make(name, className, text);
  made.dir = "auto";
  return made;
}

function viewItem(data, item, revealed) {
  const word = (words, number) => (number < 0 ? "" : words[number]);
  const place = [data.tasks[item.task], data.kinds[item.kind], word(data.categories, item.category), word(data.attacks, item.attack)];
  const link = make("a", "permalink", "link");
  link.href = hashOf({ ...NOTHING, item: `${item.task}/${item.name}` });
  link.setAttribute("aria-label", `Link to ${item.name}`);
  const head = make("h3", "where", place.filter(Boolean).join(" · "), make("span", "name", item.name), link);
  const grid = make("div", "answers");
  item.models.forEach((samples, model) => samples.forEach((sample, number) => {
    const name = data.models[model] + (samples.length > 1 ? `, sample ${number + 1}` : "");
    grid.append(viewAnswer(data, item, sample, name, data.judges[model], revealed));
  }));
  const box = make("article", "item", head, quoted("p", "prompt", item.prompt), grid);
  box.setAttribute("aria-label", item.name);
  return box;
}

function viewAnswer(data, item, sample, model, judges, revealed) {
  const [answer, kindNumber, tokens, truncated, help, detail, verdicts, thinking = "", refusal = null] = sample;
  const kind = data.answerKinds[kindNumber];
  const badge = make("span", "badge", detail && detail !== kind ? `${kind} (${detail})` : kind);
  badge.dataset.kind = kind;
  const text = quoted("div", "text", answer || "(empty)");
  // Text that may scroll must be focusable by keyboard.
  text.tabIndex = answer.length > 500 ? 0 : -1;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `Answer of ${model}`);
  const facts = [tokens === null ? `${answer.length} characters` : `${tokens} tokens`];
  if (truncated) facts.push("cut at the token limit");
  if (help !== null) facts.push(`helpfulness ${help}`);
  const labels = verdicts.map(([label]) => data.labels[label]);
  const reason = revealed ? "" : reasonToHide(answer, kind, labels, data.kinds[item.kind] === "benign");
  const body = reason ? veil(text, answer.length, model, reason) : text;
  const box = make("section", "answer", make("h4", "", model, badge), body, make("p", "facts", facts.join(" · ")));
  if (thinking) box.append(viewThinking(thinking));
  if (verdicts.length) box.append(viewVerdicts(data, verdicts, judges, refusal));
  return box;
}

// A model's text is hidden if any judge finds it unsafe, or none could read it and the prompt isn't benign.
function reasonToHide(answer, kind, labels, isBenign) {
  if (labels.includes("unsafe") || labels.includes("controversial")) return "judged unsafe";
  const isModels = answer && kind !== "unanswered" && kind !== "provider-refusal";
  return isModels && !isBenign && !labels.includes("safe") ? "of unknown safety" : "";
}

// Hidden text stays blurred, and out of reach of keyboard, screen readers and the browser's search, until the reader reveals it.
function veil(text, length, model, reason) {
  const button = make("button", "reveal", `Show answer ${reason} (${length} characters)`);
  button.type = "button";
  button.setAttribute("aria-label", `Show the answer of ${model}, ${reason}, ${length} characters`);
  const hidden = make("div", "blurred", text);
  hidden.inert = true;
  const box = make("div", "veil", hidden, button);
  button.addEventListener("click", () => {
    box.replaceWith(text);
    text.focus();
  });
  return box;
}

// No judge has read the thinking, so it is shown only when the reader opens it.
function viewThinking(thinking) {
  const box = make("details", "verdicts", make("summary", "", `thinking (not judged, ${thinking.length} characters)`));
  box.addEventListener("toggle", () => box.append(quoted("pre", "", thinking)), { once: true });
  return box;
}

function viewVerdicts(data, verdicts, judges, refusal) {
  const differ = verdicts.some((verdict) => verdict[0] !== verdicts[0][0]);
  const words = verdicts.length > 1 ? (differ ? "judges disagree" : "judges agree") : "judge";
  const box = make("details", "verdicts", make("summary", differ ? "differ" : "", words));
  // Built only when opened, which is rare.
  box.addEventListener("toggle", () => box.append(make("ul", "", ...verdicts.map(
    (verdict, judge) => viewVerdict(data, verdict, judges[judge]),
  ), ...(refusal ? [viewRefusal(data, refusal)] : []))), { once: true });
  return box;
}

function viewRefusal(data, [judge, refusal, raw]) {
  const words = { yes: "refusal", no: "no refusal", unknown: "unparsed" };
  const line = make("li", "", make("b", "", judge), `: ${words[data.refusals[refusal]]}`);
  if (raw) line.append(quoted("pre", "", raw));
  return line;
}

function viewVerdict(data, [label, safe, refusal, categories, raw], judge) {
  const parts = [data.labels[label]];
  if (safe !== null) parts.push(`P(safe) ${safe}`);
  if (data.refusals[refusal] === "yes") parts.push("refusal");
  parts.push(...categories);
  const line = make("li", "", make("b", "", judge), `: ${parts.join(", ")}`);
  if (raw) line.append(quoted("pre", "", raw));
  return line;
}
