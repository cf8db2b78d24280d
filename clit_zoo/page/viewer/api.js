// What the page asks the server. Every failure is an Error whose message is a sentence to show.

const viewer = crypto.getRandomValues(new Uint32Array(2)).join("-"); // tells the server whose turn it is

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "X-Viewer": viewer, ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: it has been stopped.");
  }
  if (answer.ok) return answer;
  let sentence = answer.statusText;
  try { sentence = (await answer.json()).error; } catch { /* no JSON: the status will do */ }
  const failed = new Error(sentence);
  failed.status = answer.status;
  throw failed;
}

const json = async (path, options) => (await ask(path, options)).json();

export const models = async () => (await json("/api/models")).models;
export const pictures = async () => (await json("/api/pictures")).pictures;
export const picture = (id) => json(`/api/pictures/${id}`);
export const example = () => json("/api/example", { method: "POST" });
export const close = (id) => ask(`/api/pictures/${id}`, { method: "DELETE" });
export const encode = (id, model) =>
  json(`/api/pictures/${id}/encode?model=${encodeURIComponent(model)}`, { method: "POST" });
export const attention = (id, model, x, y, scale) =>
  json(`/api/pictures/${id}/attention?model=${encodeURIComponent(model)}&x=${x}&y=${y}&scale=${scale}`);
export const save = (id, wish) => json(`/api/pictures/${id}/saves`, { method: "POST", body: JSON.stringify(wish) });
export const saves = async () => (await json("/api/saves")).saves;
export const saved = (id) => json(`/api/saves/${id}`);
export const cancel = (id) => ask(`/api/saves/${id}`, { method: "DELETE" });

// A region of the picture at a scale, in that enlargement's pixels (IIIF Image API).
export const tileAddress = (id, model, scale, x, y, w, h) =>
  `/iiif/${encodeURIComponent(model)}/${id}@${scale}/${x},${y},${w},${h}/max/0/default.png`;
export const thumbnailAddress = (id, side) => `/iiif/bicubic/${id}/full/!${side},${side}/0/default.png`;

export async function bitmap(address, signal) {
  return createImageBitmap(await (await ask(address, { signal })).blob(), { colorSpaceConversion: "default" });
}

// fetch tells nothing of an upload's progress
export function upload(file, told) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/pictures?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    request.onload = () => request.status === 201
      ? resolve(request.response) : reject(new Error(request.response?.error ?? `${file.name}: it was refused.`));
    request.onerror = () => reject(new Error(`${file.name} could not be sent: it is too large, or the server was stopped.`));
    request.send(file);
  });
}
