// The stage: a camera over a picture, moved by mouse, touch and keyboard; two models side by side; a box; a map
// of where the model looks.

import { Tiles, round } from "./tiles.js";

const REST = 140; // milliseconds without a movement after which the view is decoded
const MAX_SCALE = 1000;

export class Stage {
  // told: functions moved(), sharp(), box(), picked(x, y)
  constructor(element, canvas, slider, told) {
    Object.assign(this, { element, canvas, slider, told, context: canvas.getContext("2d"), layers: [], split: 0.5 });
    Object.assign(this, { picture: null, scale: 1, x: 0, y: 0, tool: "", box: null, glance: null, fingers: new Map() });
    new ResizeObserver(() => this.resized()).observe(element);
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => this.up(event));
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("dblclick", (event) => !this.tool && this.zoom(2, ...this.at(event)));
    element.addEventListener("keydown", (event) => this.key(event));
    slider.addEventListener("input", () => { this.split = slider.value / 1000; this.draw(); });
    this.resized();
  }

  show(picture, models) {
    const other = this.picture?.id !== picture?.id;
    if (other) { this.box = null; this.glance = null; }
    this.picture = picture;
    const old = this.layers;
    this.layers = !picture ? [] : models.map((model) =>
      old.find((layer) => layer.model === model && layer.picture.id === picture.id) ??
      new Tiles(picture, model, () => this.arrived()));
    for (const layer of old) if (!this.layers.includes(layer)) layer.close();
    this.slider.classList.toggle("hidden", this.layers.length < 2);
    if (picture && other) this.fit(); else this.moved();
  }

  // The part of the picture on screen, in its pixels; scale is screen pixels for each of them.
  get view() {
    const w = this.canvas.width / this.scale / 2, h = this.canvas.height / this.scale / 2;
    return { scale: this.scale, left: this.x - w, top: this.y - h, right: this.x + w, bottom: this.y + h };
  }

  get fitScale() {
    return Math.min(this.canvas.width / this.picture.width, this.canvas.height / this.picture.height);
  }

  fit() { this.go(this.fitScale * 0.98, this.picture.width / 2, this.picture.height / 2); }

  go(scale, x, y) {
    if (!this.picture) return;
    this.scale = round(Math.min(MAX_SCALE, Math.max(Math.min(this.fitScale * 0.5, 1), scale)));
    this.x = Math.min(this.picture.width, Math.max(0, x));
    this.y = Math.min(this.picture.height, Math.max(0, y));
    this.moved();
  }

  // Zoom by a factor around a point of the canvas.
  zoom(factor, px = this.canvas.width / 2, py = this.canvas.height / 2) {
    if (!this.picture) return;
    const [x, y] = this.toPicture(px, py), { scale } = this;
    this.scale = Math.min(MAX_SCALE, Math.max(Math.min(this.fitScale * 0.5, 1), scale * factor));
    const dx = (px - this.canvas.width / 2) / this.scale, dy = (py - this.canvas.height / 2) / this.scale;
    this.go(this.scale, x - dx, y - dy);
  }

  moved() {
    clearTimeout(this.timer);
    this.resting = false;
    this.timer = setTimeout(() => {
      this.resting = true;
      for (const layer of this.layers) layer.want(this.view);
      this.arrived();
    }, REST);
    this.told.moved();
    this.draw();
  }

  arrived() {
    this.draw();
    this.told.sharp();
  }

  // [tiles here, tiles needed] of a view at rest; null while it moves
  get done() {
    if (!this.resting || !this.layers.length) return null;
    return this.layers.map((layer) => layer.done).reduce((a, b) => [a[0] + b[0], a[1] + b[1]]);
  }

  get failure() { return this.layers.map((layer) => layer.failure).find(Boolean); }

  resized() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.element.clientWidth * ratio), height = Math.round(this.element.clientHeight * ratio);
    if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.picture) this.moved();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  paint() {
    const { context, canvas, layers, view } = this, cut = Math.round(this.split * canvas.width);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!layers.length) return;
    const parts = layers.length > 1 ? [[0, cut], [cut, canvas.width - cut]] : [[0, canvas.width]];
    layers.forEach((layer, i) => {
      context.save();
      context.beginPath();
      context.rect(parts[i][0], 0, parts[i][1], canvas.height);
      context.clip();
      layer.draw(context, view);
      context.restore();
    });
    const ratio = window.devicePixelRatio || 1;
    if (layers.length > 1) {
      context.fillStyle = "#fff";
      context.fillRect(cut - ratio, 0, 2 * ratio, canvas.height);
    }
    if (this.glance) this.paintGlance();
    if (this.box) {
      const [x, y] = this.toCanvas(this.box[0], this.box[1]), [right, bottom] = this.toCanvas(this.box[2], this.box[3]);
      for (const [color, dash] of [["#000", []], ["#fff", [6 * ratio, 6 * ratio]]]) {
        context.strokeStyle = color;
        context.lineWidth = 2 * ratio;
        context.setLineDash(dash);
        context.strokeRect(x, y, right - x, bottom - y);
      }
      context.setLineDash([]);
    }
  }

  // glance: {x, y, box, weights (K rows of K)} over the picture, the strongest weight opaque
  paintGlance() {
    const { context, glance } = this, side = glance.weights.length;
    const [left, top] = this.toCanvas(glance.box[0], glance.box[1]);
    const [right, bottom] = this.toCanvas(glance.box[2], glance.box[3]);
    const most = Math.max(...glance.weights.flat());
    glance.weights.forEach((row, j) => row.forEach((weight, i) => {
      const x = left + (right - left) * i / side, y = top + (bottom - top) * j / side;
      context.fillStyle = heat(weight / most, 0.75);
      context.fillRect(x, y, (right - left) / side, (bottom - top) / side);
    }));
    const [x, y] = this.toCanvas(glance.x, glance.y), ratio = window.devicePixelRatio || 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5 * ratio;
    context.strokeRect(left, top, right - left, bottom - top);
    context.beginPath();
    context.arc(x, y, 4 * ratio, 0, 7);
    context.stroke();
  }

  toPicture(px, py) {
    return [this.x + (px - this.canvas.width / 2) / this.scale, this.y + (py - this.canvas.height / 2) / this.scale];
  }

  toCanvas(x, y) {
    return [(x - this.x) * this.scale + this.canvas.width / 2, (y - this.y) * this.scale + this.canvas.height / 2];
  }

  at(event) {
    const place = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / place.width;
    return [(event.clientX - place.left) * ratio, (event.clientY - place.top) * ratio];
  }

  inside([x, y]) {
    return [Math.min(this.picture.width, Math.max(0, x)), Math.min(this.picture.height, Math.max(0, y))];
  }

  down(event) {
    if (!this.picture || event.button || event.target.closest("button, input, a, label, #heads")) return;
    this.element.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.at(event));
    this.travelled = 0;
    if (this.tool === "box" && this.fingers.size === 1) this.corner = this.inside(this.toPicture(...this.at(event)));
    else this.corner = null;
    this.element.classList.add("moving");
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event), others = [...this.fingers].filter(([id]) => id !== event.pointerId);
    this.travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    this.fingers.set(event.pointerId, now);
    if (this.corner && !others.length) {
      const [x, y] = this.inside(this.toPicture(...now)), [a, b] = this.corner;
      this.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)];
      this.told.box();
      this.draw();
    } else if (others.length) { // two fingers: the point between them stays where it is in the picture
      const other = others[0][1], apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      const middle = (p) => [(p[0] + other[0]) / 2, (p[1] + other[1]) / 2], [mx, my] = middle(now), [bx, by] = middle(before);
      this.go(this.scale, this.x - (mx - bx) / this.scale, this.y - (my - by) / this.scale);
      this.zoom(apart(now) / apart(before), mx, my);
    } else {
      this.go(this.scale, this.x - (now[0] - before[0]) / this.scale, this.y - (now[1] - before[1]) / this.scale);
    }
  }

  up(event) {
    const at = this.fingers.get(event.pointerId);
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.element.classList.remove("moving");
    if (!at || event.type === "pointercancel") return;
    if (this.corner && this.box && (this.box[2] - this.box[0] < 0.5 || this.box[3] - this.box[1] < 0.5)) this.box = null;
    if (this.tool === "box") this.told.box();
    if (this.tool === "look" && this.travelled < 6) this.told.picked(...this.inside(this.toPicture(...at)));
    this.corner = null;
    this.draw();
  }

  wheel(event) {
    if (event.target.closest("#heads")) return;
    event.preventDefault();
    const lines = event.deltaMode ? 30 : 1;
    this.zoom(2 ** (-event.deltaY * lines / 240), ...this.at(event));
  }

  key(event) {
    if (event.target !== this.element || !this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (event.shiftKey ? 0.8 : 0.15) * Math.min(this.canvas.width, this.canvas.height) / this.scale;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (moves) this.go(this.scale, this.x + moves[0] * step, this.y + moves[1] * step);
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else return;
    event.preventDefault();
  }
}

// From dark blue over red to yellow, as opaque as it is strong.
export function heat(value, most = 1) {
  const red = Math.min(1, value * 1.6), green = Math.max(0, value * 1.7 - 0.7), blue = Math.max(0, 0.5 - value);
  return `rgb(${red * 255} ${green * 255} ${blue * 255} / ${most * (0.25 + 0.75 * value)})`;
}
