// The page: pictures, models, tools and files being saved, around the stage.

import * as api from "./api.js";
import { Stage, heat } from "./stage.js";

const $ = (id) => document.getElementById(id);
const state = { pictures: [], current: null, models: [], encoding: 0, attention: null, chosen: {} };

const stage = new Stage($("stage"), $("canvas"), $("slider"), {
  moved: () => { $("scale").textContent = `×${stage.scale.toPrecision(stage.scale < 1 ? 2 : 3).replace(/\.?0+$/, "")}`; },
  sharp: told,
  box: () => { document.querySelector("[name=part][value=box]").disabled = !stage.box; },
  picked: look,
});

// What is going on, in words and for programs: data-sharp tells when the view is decoded for its scale.
function told() {
  const done = stage.done, failure = stage.failure;
  $("stage").dataset.sharp = String(!!done && done[0] === done[1]);
  $("stage").setAttribute("aria-busy", String(!!done && done[0] < done[1]));
  if (failure) return say(failure.message, true);
  if (state.encoding) return;
  if (done && done[0] < done[1]) say(`decoding for ×${stage.scale}: ${done[0]} of ${done[1]}`);
  else if (/^(de|en)coding /.test($("state").textContent)) say(""); // what else is said there stays
}

function say(sentence, wrong = false) {
  $("state").textContent = sentence;
  $("state").classList.toggle("wrong", wrong);
}

function progress(share) {
  $("progress").classList.toggle("hidden", share === null);
  if (share !== null) $("progress").value = share;
}

const tried = (work) => async (...given) => {
  try { return await work(...given); } catch (error) { say(error.message, true); }
};

// Pictures -------------------------------------------------------------------------------------------------

async function refresh() {
  state.pictures = await api.pictures();
  if (!state.pictures.some((one) => one.id === state.current?.id)) show(state.pictures.at(-1) ?? null);
  else list();
}

function list() {
  $("start").classList.toggle("hidden", state.pictures.length > 0);
  $("pictures").replaceChildren(...state.pictures.map((one) => {
    const item = document.createElement("li"), pick = document.createElement("button"), image = new Image();
    image.src = api.thumbnailAddress(one.id, 192);
    image.alt = "";
    pick.className = "pick";
    pick.setAttribute("aria-current", String(one.id === state.current?.id));
    pick.append(image, one.name, quiet(`${one.width}×${one.height}`));
    pick.onclick = () => show(one);
    const close = button("×", tried(async () => { await api.close(one.id); await refresh(); }));
    close.className = "close";
    close.setAttribute("aria-label", `Close ${one.name}`);
    item.append(pick, close);
    return item;
  }));
}

function show(picture) {
  state.current = picture;
  list();
  state.attention = null;
  $("heads").classList.add("hidden");
  for (const id of ["save", "box", "look", "fit", "actual", "in", "out", "model", "other"]) $(id).disabled = !picture;
  say("");
  if (!picture) { stage.show(null, []); return; }
  state.chosen[picture.id] ??= { model: picture.model, other: "" };
  $("model").value = state.chosen[picture.id].model;
  $("other").value = state.chosen[picture.id].other;
  stage.box = null;
  document.querySelector("[name=part][value=box]").disabled = true;
  document.querySelector("[name=part][value=whole]").checked = true;
  inModels();
}

// Show the current picture in the models chosen, encoding it first where need be.
const inModels = tried(async () => {
  const picture = state.current, own = $("model").value, other = $("other").value;
  state.chosen[picture.id] = { model: own, other };
  stage.show(picture, other ? [own, other] : [own]);
  $("left").textContent = other ? own : "";
  $("right").textContent = other;
  const looks = state.models.find((model) => model.name === own)?.attention;
  $("look").disabled = !looks;
  if (!looks) { tool(""); unlook(); }
  await Promise.all([...new Set([own, other])].filter((name) => name && name !== "bicubic").map((name) => encoded(picture, name)));
  if (picture.notices.length && !state.told?.has(picture.id)) {
    (state.told ??= new Set()).add(picture.id);
    say(picture.notices.join(" "));
  }
});

async function encoded(picture, model) {
  let { encoded: shares } = await api.encode(picture.id, model);
  if (shares[model] === 1) return;
  state.encoding += 1;
  try {
    while (state.current?.id === picture.id && shares[model] < 1) { // none any more if it failed: the tiles tell why
      say(`encoding ${picture.name} for ${model}: ${Math.round(100 * shares[model])} %`);
      progress(shares[model]);
      await new Promise((resolve) => setTimeout(resolve, 250));
      ({ encoded: shares } = await api.picture(picture.id));
    }
  } finally {
    state.encoding -= 1;
    if (!state.encoding) progress(null);
    told();
  }
}

const open = tried(async (files) => {
  await ready; // or the list's first showing would wipe away what is said here
  const failures = [];
  for (const file of files) {
    say(`sending ${file.name}`);
    try {
      await added(await api.upload(file, (share) => { progress(share); if (share === 1) say(`reading ${file.name}`); }));
    } catch (error) { failures.push(error.message); }
    progress(null);
  }
  if (failures.length) say(failures.join(" "), true);
});

async function added(picture) {
  state.pictures = await api.pictures();
  show(state.pictures.find((one) => one.id === picture.id));
  if (picture.closed.length) say(`${picture.closed.join(", ")} was closed to make room.`);
}

// Where the model looks ------------------------------------------------------------------------------------

async function look(x, y) {
  try {
    const { width, height } = state.current, scale = Math.max(1, stage.scale);
    const found = await api.attention(state.current.id, $("model").value, Math.min(x, width), Math.min(y, height), scale);
    state.attention = { ...found, stage: 0, head: -1 };
    glance();
  } catch (error) { say(error.message, true); }
}

function glance() {
  const { x, y, stages, stage: number, head } = state.attention, { box, heads } = stages[number];
  const mean = heads[0].map((row, j) => row.map((_, i) => heads.reduce((sum, one) => sum + one[j][i], 0) / heads.length));
  const maps = [mean, ...heads];
  stage.glance = { x, y, box, weights: maps[head + 1] };
  const title = document.createElement("div"), row = document.createElement("div");
  title.append(`Where ${$("model").value} looks for this point `);
  if (stages.length > 1) {
    stages.forEach((_, i) => {
      const pick = button(`stage ${i + 1}`, () => { state.attention.stage = i; glance(); });
      pick.setAttribute("aria-pressed", String(i === number));
      title.append(pick, " ");
    });
  }
  title.append(button("close", unlook));
  row.className = "maps";
  maps.forEach((weights, i) => {
    const pick = button("", () => { state.attention.head = i - 1; glance(); }), canvas = document.createElement("canvas");
    const side = canvas.width = canvas.height = weights.length, most = Math.max(...weights.flat());
    const context = canvas.getContext("2d");
    weights.forEach((line, j) => line.forEach((weight, k) => {
      context.fillStyle = heat(weight / most);
      context.fillRect(k, j, 1, 1);
    }));
    pick.setAttribute("aria-pressed", String(i - 1 === head));
    pick.title = `${side}×${side} feature pixels, the strongest weight ${most.toFixed(2)}`;
    pick.append(canvas, i ? `head ${i}` : "mean");
    row.append(pick);
  });
  $("heads").replaceChildren(title, row);
  $("heads").classList.remove("hidden");
  stage.draw();
}

function unlook() {
  state.attention = stage.glance = null;
  $("heads").classList.add("hidden");
  stage.draw();
}

function tool(name) {
  stage.tool = stage.tool === name ? "" : name;
  for (const id of ["box", "look"]) $(id).setAttribute("aria-pressed", String(stage.tool === id));
  $("stage").classList.toggle("tool", stage.tool !== "");
}

// Saving ---------------------------------------------------------------------------------------------------

const checked = (name) => document.querySelector(`[name=${name}]:checked`).value;

function wish() {
  const { width, height } = state.current, view = stage.view;
  const part = {
    whole: [0, 0, width, height],
    view: [Math.max(0, view.left), Math.max(0, view.top), Math.min(width, view.right), Math.min(height, view.bottom)],
    box: stage.box,
  }[checked("part")] ?? [0, 0, width, height];
  const found = { model: $("model").value, box: part, format: $("format").value };
  if (checked("by") === "scale") found.scale = $("by-scale").valueAsNumber;
  else found.width = $("by-width").valueAsNumber;
  if (["webp", "jpeg"].includes(found.format)) found.quality = $("quality").valueAsNumber;
  return found;
}

function preview() {
  $("quality-label").classList.toggle("hidden", !["webp", "jpeg"].includes($("format").value));
  const { box, scale, width } = wish(), wide = box[2] - box[0], factor = scale ?? width / wide;
  $("size").textContent = factor > 0 ? `about ${Math.round(wide * factor)}×${Math.round((box[3] - box[1]) * factor)} pixels` : "";
  $("do-save").disabled = !(factor > 0);
}

function dialog() {
  if (!state.current) return;
  const { box } = stage;
  if (box) document.querySelector("[name=part][value=box]").checked = true;
  if (stage.scale > 1) $("by-scale").value = Number(stage.scale.toPrecision(3));
  if (!$("by-width").value) $("by-width").value = state.current.width * 4;
  preview();
  $("dialog").returnValue = "";
  $("dialog").showModal();
}

const save = tried(async () => follow(await api.save(state.current.id, wish()), true));

// A file being saved, with its progress; it comes down when it is done, if this page has asked for it.
async function follow(found, own) {
  const item = document.createElement("li"), bar = document.createElement("progress"), line = document.createElement("div");
  const cancel = button("Cancel", tried(async () => { item.remove(); await api.cancel(found.id); }));
  cancel.setAttribute("aria-label", `Cancel ${found.name}`);
  item.append(found.name, quiet(` ${found.width}×${found.height}`), bar, line, cancel);
  $("saves").append(item);
  while (!["done", "failed"].includes(found.state)) {
    bar.value = found.progress;
    line.textContent = found.state === "writing" ? "writing the file" : `${Math.round(100 * found.progress)} %`;
    await new Promise((resolve) => setTimeout(resolve, 250));
    if (!item.isConnected) return;
    try { found = await api.saved(found.id); } catch (error) {
      if (!item.isConnected) return;
      item.remove();
      throw error;
    }
  }
  if (!item.isConnected) return;
  bar.remove();
  cancel.textContent = "Close";
  line.textContent = found.notices.join(" ");
  if (found.state === "failed") return;
  const link = document.createElement("a");
  Object.assign(link, { href: `/api/saves/${found.id}/file`, download: found.name, textContent: own ? "Fetch again" : "Fetch" });
  line.append(" ", link);
  if (own) link.click();
}

// Small things ---------------------------------------------------------------------------------------------

function button(text, work) {
  const made = document.createElement("button");
  made.textContent = text;
  made.onclick = work;
  return made;
}

function quiet(text) {
  const made = document.createElement("span");
  made.className = "quiet";
  made.textContent = text;
  return made;
}

$("in").onclick = () => stage.zoom(1.5);
$("out").onclick = () => stage.zoom(1 / 1.5);
$("fit").onclick = () => stage.fit();
$("actual").onclick = () => stage.go(1, stage.x, stage.y);
$("model").onchange = $("other").onchange = () => { unlook(); inModels(); };
$("box").onclick = () => tool("box");
$("look").onclick = () => { tool("look"); if (!stage.tool) unlook(); };
$("save").onclick = dialog;
$("dont-save").onclick = () => $("dialog").close(); // no submit button: Enter would take the form's first
$("dialog").oninput = preview;
$("dialog").onclose = () => { if ($("dialog").returnValue === "save") save(); $("stage").focus(); };
$("by-scale").onfocus = () => { document.querySelector("[name=by][value=scale]").checked = true; preview(); };
$("by-width").onfocus = () => { document.querySelector("[name=by][value=width]").checked = true; preview(); };
$("file").onchange = () => { open([...$("file").files]); $("file").value = ""; };
$("example").onclick = tried(async () => added(await api.example()));
document.addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("dropping"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("dropping");
  open([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) open([...event.clipboardData.files]); });
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, dialog") || event.ctrlKey || event.metaKey || event.altKey || !state.current) return;
  const work = {
    0: () => stage.fit(), 1: () => stage.go(1, stage.x, stage.y), b: () => tool("box"), s: dialog,
    l: () => $("look").click(), Escape: () => { tool(""); unlook(); stage.box = null; stage.told.box(); stage.draw(); },
  }[event.key];
  if (work) { event.preventDefault(); work(); }
});
window.clitZoo = { stage }; // for tests and the curious

const ready = tried(async () => {
  state.models = await api.models();
  for (const id of ["model", "other"]) {
    $(id).append(...state.models.map(({ name, summary }) => Object.assign(new Option(name, name), { title: summary })));
  }
  show(null);
  await refresh();
  for (const one of await api.saves()) tried(follow)(one, false);
})();
