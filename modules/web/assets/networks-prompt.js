// What a network writes into the prompts, and takes out of them again: functions of texts alone.

const TAGS = { lora: "lora", hypernetwork: "hypernet" };
const LETTER = "[\\p{L}\\p{N}_]";

// Whether a prompt can name the network: a tag ends at the first colon or bracket in a name.
export function sayable(network) {
  return !(network.kind in TAGS) || !/[:>]/.test(network.name);
}

// Whether a prompt uses the network.
export function holds(network, prompt) {
  return pattern(network, "iu").test(prompt);
}

// The prompts with the network in them, or without it where it is there already. `into` is the prompt that embeddings
// go into; `usual` the weight of a network that prefers none.
export function toggled(network, prompts, into, usual) {
  const used = ["prompt", "negative"].filter((name) => holds(network, prompts[name]));
  if (used.length) return Object.fromEntries(Object.entries(prompts).map(([name, prompt]) => [name, without(network, prompt, name)]));
  if (!(network.kind in TAGS)) return { ...prompts, [into]: joined(prompts[into], network.name, ", ") };
  const tag = `<${TAGS[network.kind]}:${network.name}:${network.weight || usual}>`;
  const words = network.activation.trim();
  const negative = network.negative.trim();
  return {
    prompt: words ? joined(prompts.prompt, `${tag} ${words}`, ", ") : joined(prompts.prompt, tag, " "),
    negative: negative && !prompts.negative.includes(negative) ? joined(prompts.negative, negative, ", ") : prompts.negative,
  };
}

function without(network, prompt, name) {
  if (!(network.kind in TAGS)) return cut(prompt, pattern(network, "iu").source, "iu");
  const negative = network.negative.trim();
  if (name === "negative") return negative ? cut(prompt, literal(negative), "u") : prompt;
  const words = network.activation.trim();
  const tag = pattern(network, "iu").source;
  const withWords = words ? cut(prompt, `${tag}\\s+${literal(words)}`, "iu") : prompt;
  return withWords.replace(new RegExp(`\\s*${tag}`, "giu"), "").trimStart();
}

// A piece of a list goes with the comma before it, the first with the one behind it.
function cut(prompt, piece, flags) {
  const forms = [`\\s*,\\s*${piece}`, `^\\s*${piece}\\s*,?`, `\\s*${piece}`];
  return forms.reduce((rest, form) => rest.replace(new RegExp(form, `g${flags}`), ""), prompt).trimStart();
}

function joined(prompt, piece, separator) {
  if (!prompt.trim()) return piece;
  if (/\s$/.test(prompt)) return prompt + piece;
  return prompt + (prompt.endsWith(",") ? " " : separator) + piece;
}

function pattern(network, flags) {
  const name = literal(network.name);
  if (network.kind in TAGS) return new RegExp(`<${TAGS[network.kind]}:\\s*${name}\\s*(?::[^>]*)?>`, flags);
  return new RegExp(`(?:\\(${name}(?::[\\d.]+)?\\)|(?<!${LETTER})${name}(?!${LETTER}))`, flags);
}

function literal(words) {
  return words.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
}
