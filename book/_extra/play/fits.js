"use strict";

// What a run needs in memory, time and money, by the formulas of benchmarks/what_it_costs.py.
(() => {
  const { networks, passes, rate } = kdftCosts;
  const { line, scale, text } = kdftDraw;
  const GIB = 2 ** 30;
  const SIZES = {
    pixels: [28, 32, 48, 64, 96, 128, 160, 192, 224],
    tokens: [16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
  };
  const COUNTS = [1, 2, 3, 5, 10, 20, 30, 50, 100];
  const STATES = { adamw: 2, momentum: 1, sgd: 0 };
  // Bytes of a weight, and of each number that goes with one; of a copy of what moves; activations against float32's.
  const PRECISIONS = {
    float32: { number: 4, copy: 0, activations: 1 },
    mixed: { number: 4, copy: 2, activations: 0.5 },
    bfloat16: { number: 2, copy: 0, activations: 0.5 },
  };
  // Memory in GiB, and the makers' peak rates in float32 and in 16 bits, 10^12 operations a second.
  const DEVICES = {
    cpu: { memory: 8, rates: [rate / 1e12, rate / 1e12] },
    "8": { memory: 8, rates: [15, 15] },
    "16": { memory: 16, rates: [8.1, 65] },
    "24": { memory: 24, rates: [82.6, 165] },
    "80": { memory: 80, rates: [67, 989] },
  };
  const LONG = 512; // tokens of a text that is written, to begin with
  const USUAL = 30; // percent of the peak rate; an assumption

  /** A language model of Llama's shape: so many numbers make 128 times as wide as deep. */
  function llama(numbers) {
    const { size, unit, moves } = networks.smollm2, vocabulary = 32000, rank = 8;
    const width = Math.cbrt((numbers * 128) / 12), layers = width / 128;
    const like = (layers * width) / (30 * 576); // SmolLM2's layers and width
    const shared = {
      numbers, widest: 4 * size * 3.7 * width, operations: 2 * numbers * size, outputs: size * vocabulary,
    };
    const entry = (moving, { kept }) => ({ ...shared, moving, kept: kept * like, reached: null });
    const update = rank * layers * width * (4 * 2 + 3 * 3.7); // four matrices of attention, three of the rest
    return { name: "another language model", unit, size, moves: {
      all: entry(numbers, moves.all), LoRA: entry(update, moves.LoRA),
    } };
  }

  /** Bytes of each part, operations of each part of a step, and what is kept on disk. */
  function reckoned({ network, moves, size, batch, state, precision, teacher, times, examples, views }) {
    const seen = network.moves[moves], unit = network.unit, bytes = PRECISIONS[precision];
    const factor = unit === "pixels" ? (size / network.size) ** 2 : size / network.size;
    const outputs = seen.outputs * (writes(seen) ? factor : 1);
    const widest = factor * seen.widest * bytes.activations;
    const memory = {
      weights: bytes.number * seen.numbers + bytes.copy * seen.moving,
      gradients: bytes.number * seen.moving,
      optimiser: bytes.number * state * seen.moving,
      activations: batch * Math.max(factor * seen.kept * bytes.activations, widest),
      logits: 4 * 3 * batch * outputs,
      teacher: 0,
    };
    const forward = factor * seen.operations;
    const operations = { forward: batch * forward, backward: batch * (passes[moves] - 1) * forward, teacher: 0 };
    if (teacher === "live") {
      memory.teacher = bytes.number * times * seen.numbers + batch * (Math.sqrt(times) * widest + 4 * outputs);
      operations.teacher = batch * times * forward;
    }
    const answers = teacher === "kept" ? examples * views : 0;
    const answer = writes(seen) ? size * (64 * 6 + 2) : 2 * outputs; // of a vocabulary the 64 highest; in float16
    return { memory, operations, once: answers * times * forward, disk: answers * answer };
  }

  /** Whether it answers at each place, from a vocabulary. */
  function writes({ outputs }) {
    return outputs > 1000;
  }

  const count = (value) => value.toLocaleString("en");
  const sum = (parts) => Object.values(parts).reduce((total, part) => total + part, 0);
  const short = (value) => (value >= 99.5 ? count(Math.round(value)) : Number(value.toPrecision(2)));

  function inBytes(bytes) {
    if (!bytes) return "none";
    const power = Math.max(0, Math.min(4, Math.floor(Math.log2(bytes) / 10)));
    return `${short(bytes / 2 ** (10 * power))}\u00a0${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  }

  function inTime(seconds) {
    if (!seconds) return "none";
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1], ["ms", 1e-3], ["µs", 1e-6]];
    const [unit, size] = units.find(([, each]) => seconds >= 1.5 * each) ?? units[5];
    return `${short(seconds / size)}\u00a0${unit}`;
  }

  /** Parts as bars, each from where the one before it ends, and their sum. */
  function bars(width, parts, total, said, label, limit) {
    const left = 92, right = width - 78, top = limit ? 26 : 4, all = sum(parts), rows = Object.entries(parts);
    const near = limit && limit < 5 * all, x = scale([0, near ? Math.max(all, limit) : all || 1], [left, right]);
    const over = limit && all > limit ? "var(--vermilion)" : "var(--text)";
    let from = 0;
    const marks = [...rows, [total, all]].flatMap(([name, value], row) => {
      const y = top + 26 * row, last = name === total, start = last ? 0 : from;
      from += value;
      const bold = last ? { "font-weight": 700 } : {};
      const size = { x: x(start), y, width: Math.max(x(start + value) - x(start), value ? 1 : 0), height: 18 };
      return [
        text(`${name}-name`, left - 8, y + 14, name, { "text-anchor": "end", ...bold }),
        ["rect", `${name}-bar`, { ...size, fill: last ? over : "var(--blue)" }],
        text(`${name}-value`, width, y + 14, said(value), { "text-anchor": "end", ...bold }),
      ];
    });
    const bottom = top + 26 * (rows.length + 1), at = near ? x(limit) : right;
    if (limit) {
      const words = near ? said(limit) : `${said(limit)} →`;
      marks.push(line("limit", at, 20, at, bottom, { stroke: "var(--text)", "stroke-width": near ? 2 : 0 }));
      marks.push(text("limit-text", at, 14, words, { "text-anchor": at > left + 60 ? "end" : "start" }));
    }
    const list = [...rows, [total, all]].map(([name, value]) => `${name} ${said(value)}`).join(", ");
    return { height: bottom + 4, label: `${label}: ${list}.`, marks };
  }

  kdftDraw.figure("kdft-fits", ({ find, panel, shown }) => {
    const control = (name) => find(`[name=${name}]`), checked = (name) => find(`[name=kdft-${name}]:checked`).value;
    const model = control("model"), device = control("device");
    const was = {};

    /** Whether one of these has another value than the last time. */
    function changed(name, ...values) {
      const now = values.join(), before = was[name];
      was[name] = now;
      return now !== before;
    }

    function offered(network) {
      const radios = ["all", "LoRA", "head"].map((moves) => find(`[name=kdft-moves][value=${moves}]`));
      for (const radio of radios) radio.disabled = !(radio.value in network.moves);
      if (find("[name=kdft-moves]:checked").disabled) radios.find((radio) => !radio.disabled).checked = true;
    }

    function slider(name, value, said) {
      shown(control(name), said(value));
      return value;
    }

    return () => {
      const billions = (value) => `${short(value / 1e9)}\u00a0bn`;
      const numbers = slider("numbers", 10 ** control("numbers").valueAsNumber, billions);
      const network = model.value === "llama" ? llama(numbers) : networks[model.value];
      find(".numbers").hidden = model.value !== "llama";
      if (changed("model", model.value)) {
        control("size").value = SIZES[network.unit].indexOf(writes(network.moves.all) ? LONG : network.size);
      }
      offered(network);
      const moves = checked("moves"), precision = checked("precision"), teacher = checked("teacher");
      find(".times").hidden = teacher === "none";
      find(".views").hidden = teacher !== "kept";
      const preset = DEVICES[device.value], here = device.value === "cpu";
      if (changed("preset", device.value)) control("memory").value = preset.memory;
      if (changed("rates", device.value, precision)) {
        control("rate").value = Number(preset.rates[precision === "float32" ? 0 : 1].toPrecision(3));
      }
      if (changed("reached", device.value, here && model.value, here && moves)) {
        control("reached").value = here ? Math.round(100 * (network.moves[moves].reached ?? USUAL / 100)) : USUAL;
      }
      const unit = network.unit === "pixels" ? "pixels" : "tokens";
      find(".size > span").textContent = unit === "pixels" ? "Pixels, each side" : "Tokens of a text";
      const given = {
        network, moves, precision, teacher,
        size: slider("size", SIZES[unit][control("size").value], count),
        batch: slider("batch", 2 ** control("batch").value, count),
        examples: slider("examples", Number((10 ** control("examples").valueAsNumber).toPrecision(1)), count),
        times: slider("times", COUNTS[control("times").value], (value) => `${value} ×`),
        views: slider("views", COUNTS[control("views").value], String),
        state: STATES[checked("optimiser")],
      };
      const epochs = slider("passes", COUNTS[control("passes").value], String);
      const reached = slider("reached", control("reached").valueAsNumber, (value) => `${value}\u00a0%`);
      const { memory, operations, once, disk } = reckoned(given);
      const limit = GIB * Math.max(control("memory").valueAsNumber || 0, 0.001);
      const each = 1e12 * Math.max(control("rate").valueAsNumber || 0, 1e-6) * (reached / 100);
      const price = Math.max(control("price").valueAsNumber || 0, 0);
      const seconds = Object.fromEntries(Object.entries(operations).map(([name, value]) => [name, value / each]));
      const steps = Math.ceil((given.examples * epochs) / given.batch);
      const whole = steps * sum(seconds) + once / each, needed = sum(memory);
      panel(".memory", (width) => bars(width, memory, "together", inBytes, "Memory", limit));
      panel(".time", (width) => bars(width, seconds, "a step", inTime, "Time of a step"));

      const [most, bytes] = Object.entries(memory).sort((a, b) => b[1] - a[1])[0];
      const fits = needed <= limit ? "It fits" : "It does not fit";
      const asking = ` To ask the teacher takes ${inTime(once / each)}, its answers ${inBytes(disk)} on disk.`;
      const euros = (whole / 3600) * price, rounded = euros < 10 ? euros.toFixed(2) : count(Math.round(euros));
      const money = euros < 0.005 ? "less than a cent" : `${rounded} euros`;
      return `${fits}: ${inBytes(needed)} of ${inBytes(limit)}; the largest part: ${most}, ${inBytes(bytes)}.`
        + `${disk ? asking : ""} ${count(steps)} steps take ${inTime(whole)} and cost ${money}.`;
    };
  });
})();
