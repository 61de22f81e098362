"use strict";

// Accuracy over steps, by who answers and by which pictures the student sees.
(() => {
  const { budgets, methods, svm } = kdftPlayed.patience;
  const { axes, interval, line, percent, scale, signed, text } = kdftDraw;

  function drawn(width, { chosen, step }) {
    const left = 34, right = width - 12, bottom = 268;
    const x = scale([330, 7800], [left, right], true), y = scale([77, 89], [bottom, 8]);
    const path = ({ accuracy }) => accuracy.map(([mean], at) => `${x(budgets[at])},${y(mean)}`).join(" ");
    const others = methods.filter((method) => method !== chosen).map((method) => [
      "polyline", `${method.teacher}-${method.pictures}`,
      { points: path(method), fill: "none", stroke: "var(--line)", "stroke-width": 1.5 },
    ]);
    const color = "var(--vermilion)";
    const own = chosen ? [
      ["polyline", "chosen", { points: path(chosen), fill: "none", stroke: color, "stroke-width": 2.5 }],
      ...chosen.accuracy.flatMap((accuracy, at) => interval(`after-${budgets[at]}`, x(budgets[at]), accuracy, y, color)),
    ] : [];
    const at = x(budgets[step]), dashed = { stroke: "var(--text)", "stroke-dasharray": "5 4" };
    const marks = [
      ...axes({ x, y, xTicks: budgets, yTicks: [78, 80, 82, 84, 86, 88], left, right, bottom,
        xText: (steps) => steps.toLocaleString("en") }),
      text("axis", right, bottom + 38, "steps", { "text-anchor": "end" }),
      line("svm", left, y(svm[0]), right, y(svm[0]), dashed),
      text("svm-text", left + 6, y(svm[0]) + 17, "SVM on pixels"),
      line("now", at, 4, at, bottom, { stroke: "var(--text)", "stroke-width": 2 }),
      ...others, ...own,
    ];
    const list = chosen?.accuracy.map(([mean], at) => `${budgets[at]}: ${mean.toFixed(1)} %`).join(", ");
    return { height: 312, label: `Test accuracy over steps: ${list ?? "not measured"}.`, marks };
  }

  kdftDraw.figure("kdft-patience", ({ find, panel, shown }) => () => {
    const slider = find("[type=range]"), step = slider.valueAsNumber, steps = budgets[step].toLocaleString("en");
    const teacher = find(".teacher :checked"), pictures = find(".seen :checked");
    const chosen = methods.find((method) => method.teacher === teacher.value && method.pictures === pictures.value);
    shown(slider, steps);
    panel(".waited", (width) => drawn(width, { chosen, step }));

    const what = `${teacher.parentElement.textContent.trim()}, pictures ${pictures.parentElement.textContent.trim()}`;
    if (!chosen) return `${what}: not measured at all three budgets.`;
    const reached = `${what}, after ${steps} steps: ${percent(chosen.accuracy[step])}.`;
    if (!chosen.difference) return `${reached} It is what the others are compared with.`;
    const [mean, low, high] = chosen.difference[step].map((end) => signed(end, 1));
    return `${reached} From labels with changing pictures: ${mean} points [${low}, ${high}].`;
  });
})();
