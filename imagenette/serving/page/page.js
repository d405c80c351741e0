"use strict";

const byId = (id) => document.getElementById(id);
const drop = byId("drop"), input = byId("files"), answers = byId("answers"), problem = byId("problem");
const percent = (share) => (100 * share).toFixed(1) + " %";

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

function describe(model) {
  return model.name ? `${model.name} version ${model.version}` : "a model from a folder";
}

async function introduce() {
  const response = await fetch("model");
  const card = await response.json();
  if (!response.ok) throw new Error(card.detail);
  const known = card.lineage;
  const right = known && known.metrics["selected/test_accuracy"];
  const parts = [known ? `${known.name} version ${known.version}` : "A model from a folder"];
  if (known && known.arm) parts.push(known.arm);
  parts.push(`${card.labels.length} classes`);
  if (right !== undefined && right !== null) parts.push(`${percent(right)} of its test pictures right`);
  byId("model").textContent = parts.join(" · ");
  byId("drop").title = "It knows: " + card.labels.join(", ");
}

function show(file, prediction, model) {
  const card = byId("answer").content.cloneNode(true);
  const [first] = prediction.top;
  const picture = card.querySelector("img");
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name;
  picture.onload = () => URL.revokeObjectURL(picture.src);
  card.querySelector("h2").textContent = first.label;
  card.querySelector(".sure").textContent = `${percent(first.share)} sure · ${file.name}`;
  for (const row of prediction.top) {
    const item = document.createElement("li");
    const label = document.createElement("span"), share = document.createElement("span");
    const bar = document.createElement("progress");
    label.textContent = row.label;
    share.textContent = percent(row.share);
    bar.max = 1;
    bar.value = row.share;
    bar.setAttribute("aria-label", `${row.label}: ${percent(row.share)}`);
    item.append(label, share, bar);
    card.querySelector("ol").append(item);
  }
  const run = model.run_id ? `, run ${model.run_id}` : "";
  card.querySelector(".from").textContent = `Said by ${describe(model)}${run}`;
  answers.prepend(card);
}

async function classify(files) {
  if (!files.length || drop.classList.contains("busy")) return;
  complain("");
  drop.classList.add("busy");
  const body = new FormData();
  for (const file of files) body.append("files", file);
  try {
    const response = await fetch("predict?top=5", { method: "POST", body });
    const said = await response.json();
    if (!response.ok) throw new Error(said.detail);
    said.predictions.forEach((each, i) => each.problem || show(files[i], each, said.model));
    complain(said.predictions.flatMap((each) => each.problem || []).join("\n"));
  } catch (error) {
    complain(error instanceof TypeError ? "The server does not answer." : error.message);
  } finally {
    drop.classList.remove("busy");
    input.value = "";
  }
}

input.addEventListener("change", () => classify([...input.files]));
document.addEventListener("paste", (event) => classify([...event.clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") classify([...event.dataTransfer.files]);
  });
}
byId("curl").textContent = `curl -F files=@picture.jpg ${new URL("predict", location)}`;
introduce().catch((error) => { byId("model").textContent = `No model: ${error.message}`; });
