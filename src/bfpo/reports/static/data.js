// Unpacks the answers from the page and prepares them for filtering. Nothing is fetched.

async function unpack(element) {
  const text = element.textContent;
  let bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(text);
  } else {
    const binary = atob(text);
    bytes = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  }
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function shape(data) {
  const unsafe = data.answerKinds.indexOf("unsafe");
  const safe = data.safeKinds.map((kind) => data.answerKinds.indexOf(kind));
  const items = data.items.map(([task, name, kind, category, attack, prompt, models], number) => {
    const item = { number, task, name, kind, category, attack, prompt, models, longest: 0, kinds: [], disagree: false, truncated: false };
    item.unsafe = models.map((samples) => samples.some((sample) => sample[1] === unsafe));
    item.safe = models.map((samples) => samples.length > 0 && samples.every((sample) => safe.includes(sample[1])));
    for (const samples of models) {
      let mask = 0;
      for (const [answer, answerKind, , truncated, , , verdicts] of samples) {
        mask |= 1 << answerKind;
        item.longest = Math.max(item.longest, answer.length);
        item.truncated ||= Boolean(truncated);
        item.disagree ||= verdicts.some((verdict) => verdict[0] !== verdicts[0][0]);
      }
      item.kinds.push(mask);
    }
    return item;
  });
  return { ...data, items };
}

// Lower-case text for the search, built on first use or in idle time.
function searchable(item) {
  if (item.text === undefined) {
    const parts = [item.name, item.prompt];
    for (const samples of item.models) for (const sample of samples) parts.push(sample[0]);
    item.text = parts.join("\n").toLowerCase();
  }
  return item.text;
}

function prepareSearch(items) {
  const idle = window.requestIdleCallback || ((work) => setTimeout(() => work({ timeRemaining: () => 5 }), 10));
  let at = 0;
  const work = (deadline) => {
    do {
      for (const end = Math.min(at + 50, items.length); at < end; at += 1) searchable(items[at]);
    } while (at < items.length && deadline.timeRemaining() > 3);
    if (at < items.length) idle(work);
    else document.documentElement.dataset.searchable = "yes";
  };
  idle(work);
}
