"use strict";

// Accuracy over size or time, and what is left within a budget of both.
(() => {
  const { models } = kdftPlayed;
  const { axes, line, percent, scale, text } = kdftDraw;
  const COLORS = { distilled: "var(--vermilion)", labels: "var(--blue)", other: "var(--text)" };
  const AXES = {
    kilobytes: { domain: [18, 20000], ticks: [25, 100, 400, 1600, 6400], unit: "kB", title: "kilobytes" },
    milliseconds: { domain: [0.08, 6.4], ticks: [0.1, 0.2, 0.5, 1, 2, 5], unit: "ms", title: "milliseconds a picture" },
  };

  function drawn(width, { axis, limit, fits, best }) {
    const { domain, ticks, title } = AXES[axis], left = 34, right = width - 12, bottom = 268;
    const x = scale(domain, [left, right], true), y = scale([75.5, 84], [bottom, 8]);
    const border = Math.min(right, Math.max(left, x(limit)));
    const points = models.flatMap((model) => {
      const [mean, low, high] = model.accuracy, at = x(model[axis]), stroke = COLORS[model.kind];
      const [opacity, fill] = fits(model) ? [1, "var(--text)"] : [0.35, "var(--muted)"];
      const [side, anchor] = at > width * 0.6 ? [-1, "end"] : [1, "start"];
      const name = model.kind === "other" ? model.name.replace(/,.*| on pixels/, "") : "";
      const whisker = { stroke, "stroke-width": 3, "stroke-opacity": 0.45, opacity };
      return [
        line(`${model.name}-interval`, at, y(low), at, y(high), whisker),
        ["circle", `${model.name}-mean`, { cx: at, cy: y(mean), r: 5, fill: stroke, opacity }],
        text(`${model.name}-text`, at + 9 * side, y(mean) + 5, name, { "text-anchor": anchor, fill }),
      ];
    });
    const ring = best ? { cx: x(best[axis]), cy: y(best.accuracy[0]), opacity: 1 } : { opacity: 0 };
    const beyond = { x: border, y: 4, width: right - border, height: bottom - 4, fill: "var(--grid)" };
    const marks = [
      ["rect", "beyond", { ...beyond, "fill-opacity": 0.5 }],
      ...axes({ x, y, xTicks: ticks, yTicks: [76, 78, 80, 82, 84], left, right, bottom }),
      text("axis", right, bottom + 38, title, { "text-anchor": "end" }),
      line("limit", border, 4, border, bottom, { stroke: "var(--text)", "stroke-width": 2 }),
      ...points,
      ["circle", "best", { r: 10, fill: "none", stroke: "var(--text)", "stroke-width": 2, ...ring }],
    ];
    const list = models.filter(fits).map(({ name, accuracy }) => `${name} ${accuracy[0].toFixed(1)} %`).join(", ");
    return { height: 312, label: `Test accuracy over ${title}. Within the budget: ${list || "none"}.`, marks };
  }

  kdftDraw.figure("kdft-sizes", ({ find, panel, shown }) => () => {
    const budget = {};
    for (const [name, { unit }] of Object.entries(AXES)) {
      const slider = find(`[type=range][name=${name}]`);
      budget[name] = Number((10 ** slider.valueAsNumber).toPrecision(2));
      shown(slider, `${budget[name]}\u00a0${unit}`);
    }
    const fits = (model) => Object.keys(AXES).every((name) => model[name] <= budget[name]);
    const left = models.filter(fits).sort((a, b) => b.accuracy[0] - a.accuracy[0]), [best, ...others] = left;
    const axis = find(".axis :checked").value;
    panel(".models", (width) => drawn(width, { axis, limit: budget[axis], fits, best }));

    const within = `Within ${budget.kilobytes}\u00a0kB and ${budget.milliseconds}\u00a0ms`;
    if (!best) return `${within} there is no model.`;
    const alike = others.filter(({ group }) => [...group].some((letter) => best.group.includes(letter)));
    const told = alike.length ? ` Five seeds cannot tell ${alike.length} of the others from it.` : "";
    const highest = `The highest mean: ${best.name}, ${percent(best.accuracy)}.`;
    return `${within} there are ${left.length} of ${models.length} models. ${highest}${told}`;
  });
})();
