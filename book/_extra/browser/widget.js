"use strict";

// The page's widget: a picture of 28×28 pixels, and what both networks say to it at the slider's temperature.
(() => {
  const SIDE = 28, PIXELS = SIDE * SIDE, BRUSH = 1.3;
  const { classes, mean, deviation, labels } = kdftData;
  const root = document.getElementById("kdft-browser");
  const find = (selector) => root.querySelector(selector);
  const canvas = find("canvas"), cells = document.createElement("canvas");
  const slider = find("[type=range]"), eraser = find(".erase"), kinds = find("select"), choices = find(".choices");

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  /** Half precision: the bits of exponent and fraction in a float's places, and the exponent's offset, 15, made 127. */
  function halves(text) {
    const bits = Uint32Array.from(new Uint16Array(bytes(text).buffer), (h) => ((h & 0x8000) << 16) | ((h & 0x7fff) << 13));
    return new Float32Array(bits.buffer).map((value) => value * 2 ** 112);
  }

  const pictures = bytes(kdftData.pictures), known = floats(kdftData.teacherLogits);
  const student = kdftNetworks.student(floats(kdftData.student));
  const testPicture = (index) => pictures.slice(index * PIXELS, (index + 1) * PIXELS);
  const normalised = (grey) => Float32Array.from(grey, (value) => (value / 255 - mean) / deviation);
  const decided = (values) => values.indexOf(Math.max(...values));

  let picture, origin, chosen; // grey values; what they are, in words; the number of a test picture that is unchanged
  const logits = {};

  // ---- what the networks say

  let framed = false, rest;
  /** The student answers once for each frame, the teacher, which takes longer, once the drawing rests. */
  function changed() {
    draw();
    find("table").ariaBusy = "true";
    if (!framed) requestAnimationFrame(answer);
    framed = true;
  }

  function answer() {
    framed = false;
    clearTimeout(rest);
    logits.student = student(normalised(picture));
    if (chosen !== null) return settle(Array.from(known.subarray(10 * chosen, 10 * (chosen + 1))));
    rest = setTimeout(askTeacher, 100);
    showBars();
  }

  function settle(teacherLogits) {
    logits.teacher = teacherLogits;
    find("table").ariaBusy = "false";
    showBars();
  }

  let teacher = null; // a promise: its weights are loaded for the first picture that needs them
  let without = "is being loaded";

  function loadTeacher() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "browser/teacher.js";
      script.onload = () => resolve(kdftNetworks.teacher(halves(kdftData.teacher)));
      script.onerror = reject;
      document.head.append(script);
    });
  }

  async function askTeacher() {
    const asked = picture;
    if (!teacher) {
      logits.teacher = null;
      showBars();
    }
    teacher ??= loadTeacher();
    try {
      const network = await teacher;
      if (asked === picture) settle(network(normalised(asked)));
    } catch {
      teacher = null;
      if (asked !== picture) return;
      without = "could not be loaded (draw once more to try again)";
      settle(null);
      without = "is being loaded";
    }
  }

  const table = classes.map((name) => {
    const row = find("tbody").insertRow();
    const title = row.appendChild(Object.assign(document.createElement("th"), { scope: "row", textContent: name }));
    const bars = ["teacher", "student"].map((who) => {
      const cell = row.insertCell();
      cell.className = who;
      const number = cell.appendChild(document.createElement("span"));
      return { who, cell, number, bar: cell.appendChild(document.createElement("i")) };
    });
    return { title, bars };
  });

  function probabilities(who) {
    return logits[who] && kdftNetworks.softmax(logits[who], slider.valueAsNumber);
  }

  function showBars() {
    find(".value").textContent = slider.value;
    const shares = { teacher: probabilities("teacher"), student: probabilities("student") };
    table.forEach(({ title, bars }, label) => {
      title.classList.toggle("label", chosen !== null && labels[chosen] === label);
      for (const { who, cell, bar, number } of bars) {
        const share = shares[who]?.[label];
        bar.style.setProperty("--share", share ?? 0);
        number.textContent = share === undefined ? "…" : `${(100 * share).toFixed(1)}\u00a0%`;
        cell.classList.toggle("first", share !== undefined && decided(shares[who]) === label);
      }
    });
    summarise();
  }

  let later;
  /** In a sentence, for everyone, once things have come to rest: a screen reader says it too. */
  function summarise() {
    clearTimeout(later);
    const words = (who) => {
      const shares = probabilities(who);
      return shares ? `says ${classes[decided(shares)]} (${(100 * Math.max(...shares)).toFixed(0)}\u00a0%)` : without;
    };
    const sentence = `${origin} At T\u00a0=\u00a0${slider.value} the teacher ${words("teacher")}, the student ${words("student")}.`;
    later = setTimeout(() => (find("[role=status]").textContent = sentence), 300);
  }

  // ---- the picture

  const cursor = { x: SIDE / 2, y: SIDE / 2, shown: false };
  cells.width = cells.height = SIDE;

  function paint(context, grey) {
    const image = context.createImageData(SIDE, SIDE);
    grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    context.putImageData(image, 0, 0);
  }

  function draw() {
    const context = canvas.getContext("2d"), scale = canvas.width / SIDE;
    paint(cells.getContext("2d"), picture);
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
    if (!cursor.shown) return;
    context.lineWidth = 3;
    context.strokeStyle = getComputedStyle(root).getPropertyValue("--cursor");
    context.strokeRect(cursor.x * scale, cursor.y * scale, scale, scale);
  }

  function show(grey, words, index = null) {
    picture = grey;
    origin = words;
    chosen = index;
    for (const choice of choices.querySelectorAll("input")) choice.checked = +choice.value === index;
    changed();
  }

  /** A line with round ends, in pixels of the picture; the brush's edge is grey. */
  function stroke(from, to) {
    const ink = picture.slice(), steps = Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)) || 1;
    for (let step = 0; step <= steps; step++) {
      const x = from.x + ((to.x - from.x) * step) / steps, y = from.y + ((to.y - from.y) * step) / steps;
      ink.forEach((value, i) => {
        const distance = Math.hypot((i % SIDE) + 0.5 - x, Math.floor(i / SIDE) + 0.5 - y);
        const cover = 255 * Math.min(1, Math.max(0, BRUSH + 0.5 - distance));
        ink[i] = eraser.ariaPressed === "true" ? Math.min(value, 255 - cover) : Math.max(value, cover);
      });
    }
    show(ink, "Your drawing.");
  }

  const clear = () => show(new Uint8Array(PIXELS), "An empty picture.");

  // ---- drawing by mouse, finger or pen

  let pen = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pen) return;
    canvas.setPointerCapture(event.pointerId);
    pen = { id: event.pointerId, at: place(event) };
    cursor.shown = false;
    stroke(pen.at, pen.at);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen?.id) return;
    const to = place(event);
    stroke(pen.at, to);
    pen.at = to;
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pen?.id) pen = null;
    });

  // ---- drawing by keyboard

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let spaceIsDown = false;
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey || !(move || event.key === " " || event.key === "Escape")) return;
    event.preventDefault();
    if (event.key === "Escape") return clear();
    const middle = () => ({ x: cursor.x + 0.5, y: cursor.y + 0.5 });
    const from = middle();
    if (move) {
      cursor.x = Math.min(SIDE - 1, Math.max(0, cursor.x + move[0]));
      cursor.y = Math.min(SIDE - 1, Math.max(0, cursor.y + move[1]));
    } else spaceIsDown = true;
    cursor.shown = true;
    if (spaceIsDown) stroke(from, middle());
    else draw();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key === " ") spaceIsDown = false;
  });
  canvas.addEventListener("focus", () => {
    cursor.shown = canvas.matches(":focus-visible");
    draw();
  });
  canvas.addEventListener("blur", () => {
    cursor.shown = spaceIsDown = false;
    draw();
  });

  // ---- a picture of the reader's own

  /** Fitted into 28×28, each pixel the mean of what it covers; grey; light on dark, as the networks know clothes. */
  function shrink(image) {
    const fine = 10, large = document.createElement("canvas");
    const scale = (SIDE * fine) / Math.max(image.width, image.height);
    const width = Math.max(fine, image.width * scale), height = Math.max(fine, image.height * scale);
    large.width = large.height = SIDE * fine;
    const context = large.getContext("2d");
    context.fillStyle = "white"; // where the picture is transparent
    const box = [(large.width - width) / 2, (large.height - height) / 2, width, height];
    context.fillRect(...box);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, ...box);
    const { data } = context.getImageData(0, 0, large.width, large.height);
    const sums = new Float64Array(PIXELS), inside = new Float64Array(PIXELS);
    for (let i = 0; i < data.length / 4; i++) {
      const pixel = Math.floor(i / large.width / fine) * SIDE + Math.floor((i % large.width) / fine);
      const alpha = data[4 * i + 3] / 255;
      sums[pixel] += alpha * (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
      inside[pixel] += alpha;
    }
    const isBorder = (i) => {
      const [x, y] = [i % SIDE, Math.floor(i / SIDE)];
      const [left, top] = [Math.floor(box[0] / fine), Math.floor(box[1] / fine)];
      return inside[i] > 0 && (x === left || y === top || x === SIDE - 1 - left || y === SIDE - 1 - top);
    };
    const border = [...sums.keys()].filter(isBorder).map((i) => sums[i] / inside[i]);
    const inverted = border.reduce((total, value) => total + value, 0) / border.length > 127;
    const grey = Uint8Array.from(sums, (total, i) => Math.round((inverted ? 255 * inside[i] - total : total) / fine ** 2));
    return { grey, inverted };
  }

  find("[type=file]").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    try {
      const { grey, inverted } = shrink(await createImageBitmap(file));
      const why = inverted ? "and inverted, since its border is light" : "and not inverted, since its border is dark";
      show(grey, `${file.name}, scaled to 28×28, made grey ${why}.`);
    } catch {
      clearTimeout(later);
      find("[role=status]").textContent = `${file.name} cannot be read as a picture; choose a PNG, JPEG or WebP.`;
    }
    target.value = ""; // so that the same file can be chosen again
  });

  // ---- test pictures

  function offer(kind) {
    choices.replaceChildren(find("legend"));
    labels.forEach((label, index) => {
      if (label !== kind) return;
      const wrong = decided(student(normalised(testPicture(index)))) !== label;
      const box = choices.appendChild(document.createElement("label"));
      box.classList.toggle("wrong", wrong);
      const thumbnail = box.appendChild(document.createElement("canvas"));
      thumbnail.width = thumbnail.height = SIDE;
      paint(thumbnail.getContext("2d"), testPicture(index));
      const choice = Object.assign(document.createElement("input"), { type: "radio", name: "kdft-picture", value: index });
      choice.ariaLabel = `${classes[kind]} ${choices.children.length - 1}${wrong ? ", the student errs" : ""}`;
      choice.addEventListener("change", () => choose(index));
      box.append(choice);
    });
  }

  const choose = (index) => show(testPicture(index), `A test picture labelled ${classes[labels[index]]}.`, index);

  kinds.append(...classes.map((name, kind) => new Option(name, kind)));
  kinds.addEventListener("change", () => {
    offer(+kinds.value);
    choose(labels.indexOf(+kinds.value));
  });
  eraser.addEventListener("click", () => (eraser.ariaPressed = eraser.ariaPressed !== "true"));
  find(".clear").addEventListener("click", clear);
  slider.addEventListener("input", showBars);

  offer(0);
  choose(0);
  find(".still").hidden = true;
  find(".app").hidden = false;
})();
