"use strict";
/* Shows CT slices in true HU: `ViewedSlice` in parts.py says what a slice consists of.
 *
 * From top to bottom: unpacking, colours, the view, panels, gestures, controls, the
 * viewer that joins them, and its start. All panels share one window and one view.
 */

(() => {
  const PRESETS = [
    { name: "Lung", centre: -600, width: 1500 },
    { name: "Mediastinum", centre: 40, width: 400 },
    { name: "Bone", centre: 400, width: 1800 },
  ];
  const LARGEST_ZOOM = 64;
  const CENTRES = { min: -32768, max: 32767 };
  const WIDTHS = { min: 1, max: 65535 };
  const RANGES = { min: 1, max: 65535 };

  const limited = (value, { min, max }) => Math.min(Math.max(value, min), max);
  const signed = (hu) => (hu > 0 ? `+${hu}` : hu < 0 ? `\u2212${-hu}` : "0");
  const minus = (hu) => String(hu).replace("-", "\u2212");

  // --- Unpacking: the counterpart of hu_images.py. --------------------------------

  async function unpackedImage(text, height, width) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const inflating = new DecompressionStream("deflate-raw");
    const stream = new Blob([packed]).stream().pipeThrough(inflating);
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    return joinedHu(planes, height, width);
  }

  /** Adds the prediction to each difference; Int16Array wraps modulo 2^16. */
  function joinedHu(planes, height, width) {
    const size = height * width;
    const hu = new Int16Array(size);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const folded = planes[i] | (planes[size + i] << 8);
        const difference = (folded >>> 1) ^ -(folded & 1);
        let predicted = 0;
        if (x && y) predicted = (hu[i - 1] + hu[i - width]) >> 1;
        else if (x) predicted = hu[i - 1];
        else if (y) predicted = hu[i - width];
        hu[i] = predicted + difference;
      }
    }
    return hu;
  }

  // --- Colours: a table for each of all possible values. --------------------------

  const opaque = (red, green, blue) => (255 << 24) | (blue << 16) | (green << 8) | red;

  /** Black to white over the window, at index HU + 32768. */
  function greys(centre, width) {
    const colours = new Uint32Array(65536);
    const lowest = centre - width / 2;
    for (let i = 0; i < colours.length; i++) {
      const share = limited((i - 32768 - lowest) / width, { min: 0, max: 1 });
      const grey = Math.round(255 * share);
      colours[i] = opaque(grey, grey, grey);
    }
    return colours;
  }

  // Black at 0, so that what differs stands out. Page.css draws the same scale.
  const BELOW = [[17, 19, 22], [0, 114, 178], [170, 222, 255]];
  const ABOVE = [[17, 19, 22], [213, 94, 0], [255, 218, 165]];

  /** Blue for values below 0, orange above, to `range` HU, at index HU + 65535. */
  function divergingColours(range) {
    const colours = new Uint32Array(131071);
    for (let i = 0; i < colours.length; i++) {
      const share = limited((i - 65535) / range, { min: -1, max: 1 });
      colours[i] = opaque(...mixed(share < 0 ? BELOW : ABOVE, Math.abs(share)));
    }
    return colours;
  }

  function mixed([near, middle, far], share) {
    const [from, to] = share < 0.5 ? [near, middle] : [middle, far];
    const part = share < 0.5 ? 2 * share : 2 * share - 1;
    return from.map((value, i) => Math.round(value + part * (to[i] - value)));
  }

  /** Paints HU within a window; painters with the same key paint the same. */
  function windowPainter({ centre, width }) {
    const colours = greys(centre, width);
    return {
      key: `window ${centre} ${width}`,
      fill(pixels, { hu }) {
        for (let i = 0; i < pixels.length; i++) pixels[i] = colours[hu[i] + 32768];
      },
    };
  }

  /** Paints the difference from a reference. */
  function differencePainter(reference, range) {
    const colours = divergingColours(range);
    const base = reference.hu;
    return {
      key: `difference ${range}`,
      fill(pixels, { hu }) {
        for (let i = 0; i < pixels.length; i++) pixels[i] = colours[hu[i] - base[i] + 65535];
      },
    };
  }

  // --- The view: what part of the images is seen, in shares of their sides. -------

  class View {
    constructor() {
      this.reset();
    }

    reset() {
      this.zoom = 1;
      this.centre = { u: 0.5, v: 0.5 };
    }

    /** Where a point of a panel lies on the image; both in shares of the sides. */
    onImage({ u, v }) {
      return {
        u: this.centre.u + (u - 0.5) / this.zoom,
        v: this.centre.v + (v - 0.5) / this.zoom,
      };
    }

    /** The inverse of `onImage`. */
    onPanel({ u, v }) {
      return {
        u: 0.5 + (u - this.centre.u) * this.zoom,
        v: 0.5 + (v - this.centre.v) * this.zoom,
      };
    }

    /** Changes the zoom; the image stays where it is at a point of the panel. */
    zoomBy(factor, point) {
      const fixed = this.onImage(point);
      this.zoom = limited(this.zoom * factor, { min: 1, max: LARGEST_ZOOM });
      const moved = this.onImage(point);
      this.moveBy(fixed.u - moved.u, fixed.v - moved.v);
    }

    /** Moves the images with the pointer, by shares of the panel. */
    panBy(u, v) {
      this.moveBy(-u / this.zoom, -v / this.zoom);
    }

    /** Moves the centre; the image always fills the panel. */
    moveBy(u, v) {
      const half = 0.5 / this.zoom;
      const bounds = { min: half, max: 1 - half };
      this.centre.u = limited(this.centre.u + u, bounds);
      this.centre.v = limited(this.centre.v + v, bounds);
    }
  }

  // --- Images and panels. ---------------------------------------------------------

  /** Pixels of one image, and their colours as they were painted last. */
  class SliceImage {
    constructor({ name, facts }, hu, { height, width }) {
      Object.assign(this, { name, facts, hu, height, width, paintedBy: "" });
      this.raster = Object.assign(document.createElement("canvas"), { height, width });
    }

    paint(painter) {
      if (this.paintedBy === painter.key) return;
      const context = this.raster.getContext("2d");
      const picture = context.createImageData(this.width, this.height);
      painter.fill(new Uint32Array(picture.data.buffer), this);
      context.putImageData(picture, 0, 0);
      this.paintedBy = painter.key;
    }

    /** HU at whole pixel numbers. */
    at({ x, y }) {
      return this.hu[y * this.width + x];
    }
  }

  /** A canvas with the marks that lie over it, as sharp as the screen. */
  class Stage {
    constructor(label, onResize) {
      this.canvas = element("canvas", { role: "img", "aria-label": label });
      this.cross = element("span", { class: "cross", hidden: true });
      this.scale = element("span", { class: "scale", hidden: true });
      this.root = element("div", { class: "stage" }, [this.canvas, this.cross, this.scale]);
      this.observer = new ResizeObserver(onResize);
      this.observer.observe(this.root);
    }

    setShape({ height, width }) {
      this.root.style.aspectRatio = `${width} / ${height}`;
    }

    /** Gives the canvas as many pixels as the screen has there. */
    fit() {
      const { width, height } = this.root.getBoundingClientRect();
      const size = [width, height].map((side) => Math.round(side * devicePixelRatio));
      const [across, down] = size;
      if (this.canvas.width !== across) this.canvas.width = across;
      if (this.canvas.height !== down) this.canvas.height = down;
    }

    /** Draws the seen part of an image between two columns of the canvas. */
    draw(image, view, from = 0, to = this.canvas.width) {
      const { width, height } = this.canvas;
      const context = this.canvas.getContext("2d");
      const corner = view.onPanel({ u: 0, v: 0 });
      const across = (width * view.zoom) / image.width;
      const down = (height * view.zoom) / image.height;
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, height);
      context.clip();
      context.imageSmoothingEnabled = across < 1; // enlarged pixels stay squares
      context.imageSmoothingQuality = "high";
      context.setTransform(across, 0, 0, down, corner.u * width, corner.v * height);
      context.drawImage(image.raster, 0, 0);
      context.restore();
    }

    /** Marks a pixel; null for none. */
    mark(pixel, image, view) {
      this.cross.hidden = !pixel;
      if (!pixel) return;
      const middle = { u: (pixel.x + 0.5) / image.width, v: (pixel.y + 0.5) / image.height };
      const { u, v } = view.onPanel(middle);
      this.cross.style.left = `${100 * u}%`;
      this.cross.style.top = `${100 * v}%`;
    }

    /** Says which colours stand for which differences; null for none. */
    showScale(range) {
      this.scale.hidden = range === null;
      if (range === null) return;
      const ends = [`\u2212${range}`, `+${range} HU`].map((end) => element("span", {}, [end]));
      this.scale.replaceChildren(ends[0], element("i", {}), ends[1]);
    }
  }

  /** One image with its name, its value under the cursor and its facts. */
  class Panel {
    constructor(image, isReference, onResize) {
      this.image = image;
      this.stage = new Stage(image.name, onResize);
      this.stage.setShape(image);
      this.value = element("output", { class: "value" });
      const name = element("span", { class: "name", title: image.name }, [image.name]);
      const badge = element("span", { class: "badge" }, ["reference"]);
      const caption = isReference ? [name, badge, this.value] : [name, this.value];
      const facts = image.facts ? [element("p", { class: "facts" }, [image.facts])] : [];
      this.root = element("figure", { class: "panel" }, [
        element("figcaption", {}, caption),
        this.stage.root,
        ...facts,
      ]);
    }

    draw(painterOf, view) {
      this.stage.fit();
      this.image.paint(painterOf(this.image));
      this.stage.draw(this.image, view);
    }
  }

  /** Two images in one large panel, left and right of a divider. */
  class Wipe {
    constructor(onChange) {
      this.stage = new Stage("Wipe", onChange);
      this.divider = element("span", { class: "divider" });
      this.stage.root.append(this.divider);
      this.sides = [new Side("Left", onChange), new Side("Right", onChange)];
      this.slider = element("input", { type: "range", min: 0, max: 100, step: 0.5 });
      this.slider.addEventListener("input", () => {
        this.moveTo(this.slider.valueAsNumber / 100);
        onChange();
      });
      this.moveTo(0.5);
      this.root = element("div", { class: "wipe", hidden: true }, [
        element("div", { class: "sides" }, this.sides.map((side) => side.root)),
        this.stage.root,
        element("label", { class: "field" }, ["Divider", this.slider]),
      ]);
    }

    /** Offers the images of a slice: at first its first and its last one. */
    offer(images) {
      this.sides[0].offer(images, 0);
      this.sides[1].offer(images, images.length - 1);
      this.stage.setShape(images[0]);
    }

    moveTo(position) {
      this.position = limited(position, { min: 0, max: 1 });
      this.divider.style.left = `${100 * this.position}%`;
      this.slider.value = 100 * this.position;
    }

    /** How far a point of the canvas is from the divider, in pixels of the page. */
    distance({ u }) {
      return Math.abs(u - this.position) * this.stage.canvas.clientWidth;
    }

    draw(painterOf, view) {
      this.stage.fit();
      const { width } = this.stage.canvas;
      const edge = Math.round(this.position * width);
      const [left, right] = this.sides.map((side) => side.image);
      left.paint(painterOf(left));
      this.stage.draw(left, view, 0, edge);
      right.paint(painterOf(right));
      this.stage.draw(right, view, edge, width);
    }
  }

  /** A side of the wipe: a choice of images, and the value under the cursor. */
  class Side {
    constructor(label, onChange) {
      this.select = element("select", {});
      this.value = element("output", { class: "value" });
      this.root = element("div", { class: "side" }, [
        element("label", { class: "field" }, [label, this.select]),
        this.value,
      ]);
      this.images = [];
      this.select.addEventListener("change", onChange);
    }

    get image() {
      return this.images[this.select.selectedIndex];
    }

    /** Keeps the chosen image where the new slice has one of its name. */
    offer(images, standard) {
      const kept = images.findIndex(({ name }) => name === this.image?.name);
      this.images = images;
      this.select.replaceChildren(...images.map(({ name }) => element("option", {}, [name])));
      this.select.selectedIndex = kept < 0 ? standard : kept;
    }
  }

  // --- Gestures of mouse, pen and fingers. ----------------------------------------

  class Gestures {
    constructor(viewer) {
      this.viewer = viewer;
      this.pointers = new Map();
      this.mode = "";
      this.lastZoom = -Infinity;
      this.lastTap = -Infinity;
    }

    watch(stage) {
      const { canvas } = stage;
      const on = (kind, act) => canvas.addEventListener(kind, act, { passive: false });
      on("pointerdown", (event) => this.press(event, stage));
      on("pointermove", (event) => this.move(event, stage));
      on("pointerup", (event) => this.release(event));
      on("pointercancel", (event) => this.release(event));
      on("pointerleave", (event) => {
        if (event.pointerType !== "touch") this.viewer.pointAt(null);
      });
      on("wheel", (event) => this.turnWheel(event, stage));
      on("dblclick", () => this.viewer.reset());
      on("contextmenu", (event) => event.preventDefault());
      on("mousedown", (event) => {
        if (event.button === 1) event.preventDefault(); // no scrolling by the middle one
      });
    }

    press(event, stage) {
      stage.canvas.setPointerCapture(event.pointerId);
      this.viewer.focus();
      const point = pointOn(stage.canvas, event);
      this.pointers.set(event.pointerId, point);
      this.viewer.pointAt(point);
      if (this.pointers.size === 2) this.mode = "pinch";
      if (this.pointers.size > 1) return;
      this.mode = this.modeOf(event, stage, point);
      this.step = Math.max(1, this.viewer.window.width / 300);
      this.travel = 0;
      this.start = { ...this.viewer.window, x: event.clientX, y: event.clientY };
    }

    modeOf(event, stage, point) {
      if (event.pointerType !== "touch" && (event.button !== 0 || event.shiftKey)) return "pan";
      const { wipe } = this.viewer;
      const reach = event.pointerType === "touch" ? 24 : 10;
      return stage === wipe.stage && wipe.distance(point) <= reach ? "divider" : "window";
    }

    move(event, stage) {
      const point = pointOn(stage.canvas, event);
      const before = this.pointers.get(event.pointerId);
      if (before) {
        this.drag(event, point, before);
        this.pointers.set(event.pointerId, point);
      }
      this.viewer.pointAt(point);
    }

    drag(event, point, before) {
      const { viewer } = this;
      if (this.mode === "window") this.dragWindow(event);
      if (this.mode === "pan") viewer.view.panBy(point.u - before.u, point.v - before.v);
      if (this.mode === "divider") viewer.wipe.moveTo(point.u);
      if (this.mode === "pinch") this.pinch(event, point);
      viewer.render();
    }

    /** Right widens the window, up raises its centre. */
    dragWindow(event) {
      const x = event.clientX - this.start.x;
      const y = event.clientY - this.start.y;
      this.travel = Math.max(this.travel, Math.hypot(x, y));
      if (this.travel < 3) return; // a click
      this.viewer.setWindow(this.start.centre - y * this.step, this.start.width + x * this.step);
    }

    pinch(event, point) {
      const [id] = [...this.pointers.keys()].filter((key) => key !== event.pointerId);
      const other = this.pointers.get(id);
      const before = this.pointers.get(event.pointerId);
      const distance = (a, b) => Math.max(Math.hypot(a.u - b.u, a.v - b.v), 0.01);
      const { view } = this.viewer;
      view.panBy((point.u - before.u) / 2, (point.v - before.v) / 2);
      view.zoomBy(distance(point, other) / distance(before, other), {
        u: (point.u + other.u) / 2,
        v: (point.v + other.v) / 2,
      });
    }

    release(event) {
      this.pointers.delete(event.pointerId);
      // After a pinch, the finger that stays does nothing.
      const isTap = event.pointerType === "touch" && this.mode === "window" && this.travel < 3;
      this.mode = "";
      if (!isTap) return;
      if (event.timeStamp - this.lastTap < 350) this.viewer.reset();
      this.lastTap = event.timeStamp;
    }

    /** At the smallest zoom, turning on out of it scrolls the page. */
    turnWheel(event, stage) {
      const isOut = event.deltaY > 0 && this.viewer.view.zoom === 1;
      if (isOut && event.timeStamp - this.lastZoom > 400) return;
      event.preventDefault();
      this.lastZoom = event.timeStamp;
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      const point = pointOn(stage.canvas, event);
      this.viewer.view.zoomBy(Math.exp(-limited(pixels, { min: -200, max: 200 }) / 400), point);
      this.viewer.pointAt(point);
      this.viewer.render();
    }
  }

  /** Where an event lies on a canvas, in shares of its sides. */
  function pointOn(canvas, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return { u: (event.clientX - left) / width, v: (event.clientY - top) / height };
  }

  // --- Controls. ------------------------------------------------------------------

  function element(tag, attributes, children = []) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function button(text, key, act, attributes = {}) {
    const keys = key ? [element("kbd", {}, [key])] : [];
    const made = element("button", { type: "button", ...attributes }, [text, ...keys]);
    made.addEventListener("click", act);
    return made;
  }

  function numberField(label, { min, max }, act) {
    const input = element("input", { type: "number", min, max, step: 1 });
    input.addEventListener("change", () => {
      const value = input.valueAsNumber;
      act(Number.isNaN(value) ? null : Math.round(limited(value, { min, max })));
    });
    return { input, root: element("label", { class: "field" }, [label, input]) };
  }

  function group(label, children) {
    return element("div", { class: "group", role: "group", "aria-label": label }, children);
  }

  const HELP = [
    ["Drag", "window: right widens it, up raises its centre"],
    ["Wheel, or + and \u2212", "zoom about the pointer"],
    ["Shift and drag, or another mouse button", "move the images"],
    ["Double click, or 0", "the whole image, in the preset chosen last"],
    ["1, 2, 3", "window of lung, mediastinum, bone"],
    ["\u2190 \u2192", "slice before, slice after"],
    ["D", "difference from the reference instead of the images"],
    ["W", "wipe: two images in one, with a divider to drag"],
    ["One finger", "window"],
    ["Two fingers", "zoom and move"],
    ["Two taps", "like a double click"],
  ];

  function help() {
    const rows = HELP.map(([keys, act]) =>
      element("div", {}, [element("dt", {}, [keys]), element("dd", {}, [act])]),
    );
    return element("details", { class: "help" }, [
      element("summary", {}, ["Keys and gestures"]),
      element("dl", {}, rows),
      element("p", {}, [
        "Keys work while the pointer is over the viewer, or after a click on it. " +
          "Pixels are numbered from 0, from the upper left; millimetres are those of a " +
          "pixel\u2019s middle from the upper left corner of the image.",
      ]),
    ]);
  }

  // --- The viewer. ----------------------------------------------------------------

  class SliceViewer {
    constructor(root, slices, texts) {
      Object.assign(this, { root, slices, texts, unpacked: new Map(), panels: [] });
      this.number = -1;
      this.images = [];
      this.point = null;
      this.view = new View();
      this.window = { ...PRESETS[0] };
      this.preset = PRESETS[0];
      this.difference = false;
      this.range = 100;
      this.isWiping = false;
      this.gestures = new Gestures(this);
      const render = () => this.render();
      this.wipe = new Wipe(render);
      this.gestures.watch(this.wipe.stage);
      this.build();
      this.showSlice(0);
    }

    build() {
      this.title = element("p", { class: "slice-title", "aria-live": "polite" });
      this.grid = element("div", { class: "panels" });
      this.readout = element("output", { class: "readout" });
      this.problem = element("p", { class: "problem", role: "alert", hidden: true });
      this.area = element(
        "div",
        { class: "area", tabindex: 0, role: "group", "aria-label": "Images" },
        [this.grid, this.wipe.root],
      );
      this.windowText = element("p", { class: "print-only" });
      this.root.replaceChildren(
        element("div", { class: "line" }, [this.sliceControls(), this.title, this.readout]),
        element("div", { class: "bar" }, [this.windowControls(), this.modeControls()]),
        this.windowText,
        this.problem,
        this.area,
        help(),
      );
    }

    sliceControls() {
      const last = this.slices.length - 1;
      this.slider = element("input", { type: "range", min: 0, max: last, step: 1, value: 0 });
      this.slider.disabled = last === 0;
      this.slider.addEventListener("input", () => this.showSlice(Number(this.slider.value)));
      const step = (by) => () => this.showSlice(this.number + by);
      this.earlier = button("\u2039", "", step(-1), { "aria-label": "Slice before" });
      this.later = button("\u203a", "", step(1), { "aria-label": "Slice after" });
      this.count = element("output", { class: "count" });
      return group("Slice", [
        this.earlier,
        element("label", { class: "field" }, [
          element("span", { class: "off-screen" }, ["Slice"]),
          this.slider,
        ]),
        this.later,
        this.count,
      ]);
    }

    windowControls() {
      this.presets = PRESETS.map((preset, i) =>
        button(preset.name, String(i + 1), () => this.choosePreset(i)),
      );
      this.centre = numberField("Centre", CENTRES, (value) =>
        this.setWindow(value ?? this.window.centre, this.window.width),
      );
      this.width = numberField("Width", WIDTHS, (value) =>
        this.setWindow(this.window.centre, value ?? this.window.width),
      );
      const fields = [this.centre.root, this.width.root, element("span", {}, ["HU"])];
      return group("Window", [
        element("span", { class: "joined" }, this.presets),
        element("span", { class: "fields" }, fields),
      ]);
    }

    modeControls() {
      this.differenceButton = button("Difference", "D", () => this.toggleDifference());
      this.rangeField = numberField("\u00b1", RANGES, (value) => {
        this.range = value ?? this.range;
        this.render();
      });
      this.rangeField.input.setAttribute("aria-label", "Range of the difference in HU");
      this.wipeButton = button("Wipe", "W", () => this.toggleWipe());
      return group("Compare", [
        this.differenceButton,
        this.rangeField.root,
        element("span", {}, ["HU"]),
        this.wipeButton,
        button("Reset", "0", () => this.reset()),
      ]);
    }

    // Changes of what is shown; each ends with `render`.

    async showSlice(number) {
      if (number < 0 || number >= this.slices.length || number === this.number) return;
      this.number = number;
      const slice = this.slices[number];
      try {
        const images = await this.imagesOf(number);
        if (this.number === number) this.place(slice, images);
      } catch (error) {
        this.problem.hidden = false;
        this.problem.textContent = `The browser cannot unpack the images: ${error.message}`;
      }
    }

    /** Unpacks a slice when it is shown first. */
    imagesOf(number) {
      if (!this.unpacked.has(number)) {
        const slice = this.slices[number];
        const images = slice.images.map(async (image, i) => {
          const text = this.texts[number][i].textContent;
          return new SliceImage(image, await unpackedImage(text, slice.height, slice.width), slice);
        });
        this.unpacked.set(number, Promise.all(images));
      }
      return this.unpacked.get(number);
    }

    place(slice, images) {
      for (const panel of this.panels) panel.stage.observer.disconnect();
      this.problem.hidden = true;
      this.images = images;
      this.reference = images.find((image) => image.name === slice.reference);
      const render = () => this.render();
      this.panels = images.map((image) => new Panel(image, image === this.reference, render));
      for (const panel of this.panels) this.gestures.watch(panel.stage);
      this.grid.replaceChildren(...this.panels.map((panel) => panel.root));
      this.grid.style.setProperty("--columns", columnsFor(images.length));
      this.wipe.offer(images);
      this.showTitle(slice);
      this.render();
    }

    setWindow(centre, width) {
      this.window.centre = Math.round(limited(centre, CENTRES));
      this.window.width = Math.round(limited(width, WIDTHS));
      this.render();
    }

    choosePreset(i) {
      this.preset = PRESETS[i];
      this.setWindow(this.preset.centre, this.preset.width);
    }

    reset() {
      this.view.reset();
      this.setWindow(this.preset.centre, this.preset.width);
    }

    toggleDifference() {
      if (!this.reference) return;
      this.difference = !this.difference;
      this.render();
    }

    toggleWipe() {
      this.isWiping = !this.isWiping;
      this.render();
    }

    pointAt(point) {
      this.point = point;
      this.showValues();
    }

    focus() {
      this.area.focus({ preventScroll: true });
    }

    // Drawing, at most once a frame.

    render() {
      if (this.isWaiting || !this.images.length) return;
      this.isWaiting = true;
      requestAnimationFrame(() => {
        this.isWaiting = false;
        this.draw();
      });
    }

    draw() {
      const grey = windowPainter(this.window);
      const isDifferent = this.difference && this.reference;
      const diverging = isDifferent ? differencePainter(this.reference, this.range) : grey;
      const painterOf = (image) => (image === this.reference ? grey : diverging);
      this.showControls();
      this.grid.hidden = this.isWiping;
      this.wipe.root.hidden = !this.isWiping;
      const shown = this.isWiping ? [this.wipe] : this.panels;
      for (const panel of shown) {
        panel.draw(painterOf, this.view);
        const isScaled = isDifferent && panel.image !== this.reference;
        panel.stage.showScale(isScaled ? this.range : null);
      }
      this.showValues();
    }

    showControls() {
      const { centre, width } = this.window;
      this.centre.input.value = centre;
      this.width.input.value = width;
      this.presets.forEach((preset, i) => {
        const isOn = PRESETS[i].centre === centre && PRESETS[i].width === width;
        preset.setAttribute("aria-pressed", isOn);
      });
      const isDifferent = Boolean(this.difference && this.reference);
      this.differenceButton.setAttribute("aria-pressed", isDifferent);
      this.differenceButton.disabled = !this.reference;
      this.rangeField.input.value = this.range;
      this.wipeButton.setAttribute("aria-pressed", this.isWiping);
      this.windowText.textContent = `Window: centre ${minus(centre)}, width ${width} HU`;
    }

    /** Says which slice is shown. */
    showTitle({ name, role, pixelMm, height, width }) {
      this.slider.value = this.number;
      this.count.textContent = `${this.number + 1} of ${this.slices.length}`;
      this.earlier.disabled = this.number === 0;
      this.later.disabled = this.number === this.slices.length - 1;
      const badge = role ? [element("span", { class: "badge" }, [role])] : [];
      const side = pixelMm ? ` of ${Number(pixelMm.toFixed(3))} mm` : "";
      const size = `${width} \u00d7 ${height} pixels${side}`;
      this.title.replaceChildren(
        ...badge,
        element("b", {}, [name]),
        element("span", { class: "size" }, [size]),
      );
    }

    /** Shows the values of the pixel under the cursor. */
    showValues() {
      const pixel = this.pixelAtPoint();
      for (const { image, stage, value } of this.panels) {
        stage.mark(pixel, image, this.view);
        value.textContent = this.valueOf(image, pixel);
      }
      for (const { image, value } of this.wipe.sides) {
        if (image) value.textContent = this.valueOf(image, pixel);
      }
      const zoom = `zoom ${this.view.zoom.toFixed(1)}`;
      this.readout.textContent = pixel ? `${this.placeOf(pixel)} \u00b7 ${zoom}` : zoom;
    }

    /** The whole numbers of the pixel under the cursor; null without one. */
    pixelAtPoint() {
      if (!this.point || !this.images.length) return null;
      const { width, height } = this.images[0];
      const { u, v } = this.view.onImage(this.point);
      const [x, y] = [Math.floor(u * width), Math.floor(v * height)];
      return x >= 0 && y >= 0 && x < width && y < height ? { x, y } : null;
    }

    valueOf(image, pixel) {
      if (!pixel) return "";
      const hu = image.at(pixel);
      const isDifference = this.difference && this.reference && image !== this.reference;
      const change = isDifference ? ` (${signed(hu - this.reference.at(pixel))})` : "";
      return `${minus(hu)} HU${change}`;
    }

    placeOf({ x, y }) {
      const { pixelMm } = this.slices[this.number];
      const mm = (pixels) => `${((pixels + 0.5) * pixelMm).toFixed(1)} mm`;
      const place = `x ${x}, y ${y}`;
      return pixelMm ? `${place} \u00b7 ${mm(x)}, ${mm(y)}` : place;
    }

    /** Does what a key stands for; returns whether it stands for anything. */
    press(key) {
      const acts = {
        1: () => this.choosePreset(0),
        2: () => this.choosePreset(1),
        3: () => this.choosePreset(2),
        0: () => this.reset(),
        d: () => this.toggleDifference(),
        w: () => this.toggleWipe(),
        "+": () => this.zoomBy(1.25),
        "=": () => this.zoomBy(1.25), // the same key without shift
        "-": () => this.zoomBy(0.8),
        arrowleft: () => this.showSlice(this.number - 1),
        arrowright: () => this.showSlice(this.number + 1),
      };
      const act = acts[key.toLowerCase()];
      act?.();
      return Boolean(act);
    }

    zoomBy(factor) {
      this.view.zoomBy(factor, this.point ?? { u: 0.5, v: 0.5 });
      this.render();
    }

    isHovered() {
      return this.root.matches(":hover");
    }

    isFocused() {
      return this.root.contains(document.activeElement);
    }
  }

  /** Whole rows where that is possible, of at most four panels. */
  function columnsFor(panels) {
    return panels <= 4 ? panels : Math.min(4, Math.ceil(panels / 2));
  }

  // --- The start. -----------------------------------------------------------------

  function startViewer(figure) {
    const slices = JSON.parse(figure.querySelector("script.index").textContent);
    const packed = [...figure.querySelectorAll("script.image")];
    const texts = slices.map((slice) => packed.splice(0, slice.images.length));
    return new SliceViewer(figure.querySelector(".slices"), slices, texts);
  }

  /** Gives a key to the viewer under the pointer, else to the one with the focus. */
  function listenToKeys(viewers) {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      // These take keys themselves; a slider takes only the arrows.
      if (event.target.matches("select, textarea, input:not([type=range])")) return;
      if (event.target.matches("input") && event.key.startsWith("Arrow")) return;
      const viewer =
        viewers.find((one) => one.isHovered()) ?? viewers.find((one) => one.isFocused());
      if (viewer?.press(event.key)) event.preventDefault();
    });
  }

  const figures = [...document.querySelectorAll("figure.viewer")];
  const filled = figures.filter((figure) => figure.querySelector("script.index"));
  listenToKeys(filled.map(startViewer));
})();
