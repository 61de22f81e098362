"use strict";

// What the page's figures share. A figure reads its controls and says which marks its panels hold.
const kdftDraw = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** Give `parent` the marks, each [tag, key, attributes, text or marks]; a mark that was there is moved. */
  function draw(parent, marks) {
    const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
    marks.forEach(([tag, key, attributes, content], place) => {
      const element = known.get(key) ?? document.createElementNS(SVG, tag);
      known.delete(key);
      element.dataset.key = key;
      for (const [name, value] of Object.entries(attributes)) {
        element.setAttribute(name, typeof value === "number" ? +value.toFixed(2) : value);
      }
      if (Array.isArray(content)) draw(element, content);
      else if (content !== undefined) element.textContent = content;
      if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    });
    for (const left of known.values()) left.remove();
  }

  /** Show the figure in place of its still. `prepare` gets ways to find and draw, and returns what draws it anew
   *  from its controls and says in a sentence what is seen. */
  function figure(id, prepare) {
    const root = document.getElementById(id), find = (selector) => root.querySelector(selector);
    let later, drawn;

    function panel(selector, describe) {
      // Narrower than any phone it is for a moment, while a window changes its size.
      const svg = find(selector), width = Math.max(240, svg.getBoundingClientRect().width);
      const { height, label, marks } = describe(width);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      svg.setAttribute("aria-label", label);
      draw(svg, marks);
    }

    /** What a slider says, beside it and to a screen reader. */
    function shown(slider, text) {
      slider.setAttribute("aria-valuetext", text);
      slider.parentElement.querySelector(".value").textContent = text;
    }

    const redraw = prepare({ find, panel, shown });
    function update() {
      const sentence = redraw();
      clearTimeout(later); // once things have come to rest, so that a screen reader is not flooded
      later = setTimeout(() => (find("[role=status]").textContent = sentence), 300);
    }

    find(".app").hidden = false;
    update();
    find(".still").hidden = true;
    root.addEventListener("input", update);
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width !== drawn) update();
      drawn = contentRect.width;
    }).observe(find(".app"));
  }

  /** Radio buttons for the test pictures; returns which of them is chosen. */
  function pictures(fieldset, at) {
    const { pictures, classes } = kdftPlayed;
    pictures.forEach(({ image, label }, index) => {
      const box = fieldset.appendChild(document.createElement("label"));
      const radio = { type: "radio", name: fieldset.id, value: index, defaultChecked: index === at };
      radio.ariaLabel = `${classes[label]}, picture ${index + 1}`;
      box.append(Object.assign(new Image(28, 28), { src: image, alt: "" }));
      box.append(Object.assign(document.createElement("input"), radio));
    });
    return () => pictures[fieldset.querySelector(":checked").value];
  }

  /** From a domain to a range; with `logarithmic`, equal ratios take equal room. */
  function scale([from, to], [start, end], logarithmic = false) {
    const place = logarithmic ? Math.log : Number;
    return (value) => start + ((place(value) - place(from)) / (place(to) - place(from))) * (end - start);
  }

  const line = (key, x1, y1, x2, y2, more) => ["line", key, { x1, y1, x2, y2, stroke: "var(--muted)", ...more }];
  const text = (key, x, y, content, more) => ["text", key, { x, y, fill: "var(--text)", ...more }, content];

  /** Ticks and their numbers along the bottom, and lines at the left axis's ticks. */
  function axes({ x, y, xTicks, yTicks, left, right, bottom, xText = String }) {
    return [
      ...yTicks.map((tick) => line(`y-${tick}`, left, y(tick), right, y(tick), { stroke: "var(--grid)" })),
      ...yTicks.map((tick) => text(`y-text-${tick}`, left - 6, y(tick) + 5, tick, { "text-anchor": "end" })),
      ...xTicks.map((tick) => text(`x-text-${tick}`, x(tick), bottom + 18, xText(tick), { "text-anchor": "middle" })),
    ];
  }

  /** A mean as a dot and its 95 % interval as a bar. */
  function interval(key, x, [mean, low, high], y, color) {
    return [
      line(`${key}-interval`, x, y(low), x, y(high), { stroke: color, "stroke-width": 4, "stroke-opacity": 0.4 }),
      ["circle", `${key}-mean`, { cx: x, cy: y(mean), r: 5, fill: color }],
    ];
  }

  function softmax(logits, temperature) {
    const highest = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp((logit - highest) / temperature));
    const total = weights.reduce((sum, weight) => sum + weight);
    return weights.map((weight) => weight / total);
  }

  const percent = ([mean, low, high]) => `${mean.toFixed(1)}\u00a0% [${low.toFixed(1)}, ${high.toFixed(1)}]`;
  const signed = (value, digits) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

  return { figure, pictures, scale, line, text, axes, interval, softmax, percent, signed };
})();
