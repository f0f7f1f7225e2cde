// The filter: pure functions of the items and the controls' values.

function matches(item, wanted) {
  if (wanted.item !== "" && `${wanted.item}` !== `${item.task}/${item.name}`) return false;
  if (wanted.set !== "" && item.task !== Number(wanted.set)) return false;
  if (wanted.kind !== "" && item.kind !== Number(wanted.kind)) return false;
  if (wanted.category !== "" && item.category !== Number(wanted.category)) return false;
  if (wanted.attack !== "" && item.attack !== Number(wanted.attack)) return false;
  if (wanted.answer !== "") {
    const bit = 1 << Number(wanted.answer);
    const of = wanted.of === "" ? item.kinds : [item.kinds[Number(wanted.of)] || 0];
    if (!of.some((mask) => mask & bit)) return false;
  }
  if (wanted.show === "flips" && !(item.safe[Number(wanted.from)] && item.unsafe[Number(wanted.to)])) return false;
  if (wanted.show === "disagree" && !item.disagree) return false;
  if (wanted.show === "truncated" && !item.truncated) return false;
  return wanted.q === "" || searchable(item).includes(wanted.q.toLowerCase());
}

function select(items, wanted) {
  const found = items.filter((item) => matches(item, wanted));
  if (wanted.sort === "longest") found.sort((a, b) => b.longest - a.longest || a.number - b.number);
  return found;
}

// One JSON object per selected answer, for export.
function asLines(data, found) {
  const word = (words, number) => (number < 0 ? null : words[number]);
  const lines = [];
  for (const item of found) {
    item.models.forEach((samples, model) => samples.forEach((sample, number) => {
      const [answer, kind, tokens, truncated, help, detail, verdicts, thinking = "", refused = null] = sample;
      lines.push(JSON.stringify({
        model: data.models[model], task: data.tasks[item.task], item: item.name, sample: number,
        kind: data.kinds[item.kind], category: word(data.categories, item.category), attack: word(data.attacks, item.attack),
        prompt: item.prompt, answer, answer_kind: data.answerKinds[kind], tokens, truncated: Boolean(truncated), p_help: help, detail, thinking,
        verdicts: verdicts.map(([label, safe, refusal, categories, raw], judge) => ({
          judge_id: data.judges[model][judge], label: data.labels[label], p_safe: safe, refusal: data.refusals[refusal], categories, raw,
        })),
        refusal_verdict: refused && { judge_id: refused[0], refusal: data.refusals[refused[1]], raw: refused[2] },
      }));
    }));
  }
  return lines.map((line) => `${line}\n`);
}
