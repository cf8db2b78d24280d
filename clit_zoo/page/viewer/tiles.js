// Tiles of one picture in one model. While the view moves, those at hand are drawn scaled; when it rests, the
// visible ones are asked for at exactly the scale on screen, the centre's first.

import { bitmap, tileAddress, thumbnailAddress } from "./api.js";

const SIDE = 256;
const KEPT = 400; // tiles: 100 MB of bitmaps
const AT_ONCE = 3; // more would only wait at the server, out of order

// A scale as an address says it: five digits are finer than a pixel of any screen.
export const round = (scale) => Number(scale.toPrecision(5));

export class Tiles {
  constructor(picture, model, changed) {
    Object.assign(this, { picture, model, changed, kept: new Map(), wanted: [], asked: new Map(), failure: null });
    bitmap(thumbnailAddress(picture.id, 512)).then((image) => { this.thumbnail = image; changed(); }, () => {});
  }

  canvasSize(scale) {
    return [Math.max(1, even(this.picture.width * scale)), Math.max(1, even(this.picture.height * scale))];
  }

  // The tiles that a view shows at its own scale, from the centre outwards. view: scale, and its edges in pixels
  // of the picture.
  visible(view) {
    const scale = round(view.scale), [width, height] = this.canvasSize(scale), found = [];
    const fx = width / this.picture.width, fy = height / this.picture.height;
    const from = (edge) => Math.max(0, Math.floor(edge / SIDE));
    for (let j = from(view.top * fy); j * SIDE < Math.min(height, view.bottom * fy); j++) {
      for (let i = from(view.left * fx); i * SIDE < Math.min(width, view.right * fx); i++) {
        const x = i * SIDE, y = j * SIDE;
        const w = Math.min(SIDE, width - x), h = Math.min(SIDE, height - y);
        const dx = x + w / 2 - (view.left + view.right) / 2 * fx, dy = y + h / 2 - (view.top + view.bottom) / 2 * fy;
        found.push({ key: `${scale}/${x}/${y}`, scale, x, y, w, h, fx, fy, far: dx * dx + dy * dy });
      }
    }
    return found.sort((a, b) => a.far - b.far);
  }

  // Ask for what a view needs and drop all else that was asked for.
  want(view) {
    this.failure = null;
    this.wanted = this.visible(view);
    const keys = new Set(this.wanted.map((tile) => tile.key));
    for (const [key, abort] of this.asked) if (!keys.has(key)) abort.abort();
    this.next();
  }

  drop() {
    this.wanted = [];
    for (const abort of this.asked.values()) abort.abort();
  }

  next() {
    for (const tile of this.wanted) {
      if (this.asked.size >= AT_ONCE) return;
      if (!this.kept.has(tile.key) && !this.asked.has(tile.key) && !this.failure) this.ask(tile);
    }
  }

  async ask(tile) {
    const abort = new AbortController(), { id } = this.picture;
    this.asked.set(tile.key, abort);
    try {
      const address = tileAddress(id, this.model, tile.scale, tile.x, tile.y, tile.w, tile.h);
      tile.image = await bitmap(address, abort.signal);
      this.kept.set(tile.key, tile);
      this.trim();
    } catch (error) {
      if (error.name !== "AbortError") this.failure = error;
    } finally {
      if (this.asked.get(tile.key) === abort) this.asked.delete(tile.key);
    }
    this.next();
    this.changed();
  }

  trim() {
    for (const [key, tile] of this.kept) {
      if (this.kept.size <= KEPT) return;
      if (this.wanted.some((wanted) => wanted.key === key)) continue;
      tile.image.close();
      this.kept.delete(key);
    }
  }

  // How many of the tiles that were asked for last are here, and how many they are.
  get done() { return [this.wanted.filter((tile) => this.kept.has(tile.key)).length, this.wanted.length]; }

  draw(context, view) {
    const { scale, left, top } = view, place = (edge, origin) => Math.round((edge - origin) * scale);
    const put = (image, x0, y0, x1, y1) => {
      const x = place(x0, left), y = place(y0, top);
      context.drawImage(image, x, y, place(x1, left) - x, place(y1, top) - y);
    };
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    if (this.thumbnail) put(this.thumbnail, 0, 0, this.picture.width, this.picture.height);
    const own = round(scale), exact = (tile) => (tile.scale === own ? 1 : 0);
    // the nearer a tile's scale is to the view's, the later it is drawn: on top
    const order = [...this.kept.values()].filter((tile) =>
      tile.x / tile.fx < view.right && (tile.x + tile.w) / tile.fx > left &&
      tile.y / tile.fy < view.bottom && (tile.y + tile.h) / tile.fy > top);
    const off = (tile) => Math.abs(Math.log(tile.scale / scale));
    order.sort((a, b) => exact(a) - exact(b) || off(b) - off(a));
    for (const tile of order) {
      if (exact(tile)) { // its pixels are the screen's
        const x = place(0, left) + tile.x, y = place(0, top) + tile.y;
        context.drawImage(tile.image, x, y);
      } else {
        put(tile.image, tile.x / tile.fx, tile.y / tile.fy, (tile.x + tile.w) / tile.fx, (tile.y + tile.h) / tile.fy);
      }
    }
  }

  close() {
    this.drop();
    for (const tile of this.kept.values()) tile.image.close();
    this.kept.clear();
  }
}

// Python's round: halves go to the even number
function even(number) {
  const low = Math.floor(number), rest = number - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}
