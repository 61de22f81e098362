"use strict";

// A temperature over the teacher's distribution, and what it was worth to students.
(() => {
  const { classes, sensitivity } = kdftPlayed;
  const { axes, interval, line, scale, softmax, text } = kdftDraw;
  const WEIGHT = 0.9, LEFT = 92, ROW = 26;
  const taught = sensitivity.soft.filter(({ weight }) => weight === WEIGHT);

  /** The shares as bars; those at T = 1 as dashed frames, where there is something to frame. */
  function distribution(width, { shares, before, label, said }) {
    const x = scale([0, 1], [LEFT, width - 58]);
    const bar = (key, share, row, more) => [
      "rect", `${key}-${row}`, { x: LEFT, y: row * ROW + 4, width: x(share) - LEFT, height: 18, ...more },
    ];
    const frame = { fill: "none", stroke: "var(--muted)", "stroke-dasharray": "3 2" };
    const written = shares.map((share) => `${(100 * share).toFixed(1)}\u00a0%`);
    const marks = classes.flatMap((name, row) => {
      const y = row * ROW + 18, weight = { "text-anchor": "end", "font-weight": row === label ? 700 : 400 };
      return [
        text(`name-${row}`, LEFT - 8, y, row === label ? `▸ ${name}` : name, weight),
        bar("share", shares[row], row, { fill: "var(--blue)" }),
        bar("before", before[row], row, { ...frame, "stroke-opacity": before[row] > 0.005 ? 1 : 0 }),
        text(`number-${row}`, x(Math.max(shares[row], before[row])) + 6, y, written[row]),
      ];
    });
    const list = classes.map((name, row) => `${name} ${written[row]}`).join(", ");
    return { height: ROW * classes.length, label: `The teacher at T = ${said}: ${list}.`, marks };
  }

  function students(width, temperature) {
    const left = 34, right = width - 12, bottom = 128;
    const x = scale([0.5, 32], [left, right], true), y = scale([78, 84], [bottom, 8]);
    const [labels, low, high] = sensitivity.labels;
    const band = { x: left, y: y(high), width: right - left, height: y(low) - y(high), fill: "var(--blue)" };
    const marks = [
      ...axes({ x, y, xTicks: [0.5, 1, 2, 4, 8, 16, 32], yTicks: [78, 80, 82, 84], left, right, bottom }),
      ["rect", "labels-interval", { ...band, "fill-opacity": 0.15 }],
      line("labels-mean", left, y(labels), right, y(labels), { stroke: "var(--blue)", "stroke-dasharray": "5 4" }),
      text("labels-text", right, y(labels) - 5, "labels alone", { "text-anchor": "end" }),
      line("now", x(temperature), 4, x(temperature), bottom, { stroke: "var(--text)", "stroke-width": 2 }),
      ...taught.flatMap(({ temperature, accuracy }) =>
        interval(`at-${temperature}`, x(temperature), accuracy, y, "var(--vermilion)")),
    ];
    const list = taught.map((row) => `${row.accuracy[0].toFixed(1)} % at T = ${row.temperature}`).join(", ");
    return { height: 150, label: `Validation accuracy: ${list}; labels alone ${labels.toFixed(1)} %.`, marks };
  }

  kdftDraw.figure("kdft-temperature", ({ find, panel, shown }) => {
    const slider = find("[type=range]"), picture = kdftDraw.pictures(find(".pictures"), 3);

    return () => {
      const temperature = 2 ** slider.valueAsNumber, { teacher, label } = picture();
      const shares = softmax(teacher, temperature), before = softmax(teacher, 1);
      const said = Number(temperature.toPrecision(3));
      shown(slider, said);
      panel(".distribution", (width) => distribution(width, { shares, before, label, said }));
      panel(".students", (width) => students(width, temperature));

      const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 2);
      const words = order.map((row) => `${classes[row]} ${(100 * shares[row]).toFixed(1)}\u00a0%`).join(", ");
      const entropy = -shares.reduce((sum, share) => sum + (share && share * Math.log(share)), 0);
      const even = `as open as an even choice among ${Math.exp(entropy).toFixed(1)} classes`;
      return `At T\u00a0=\u00a0${said} the teacher says ${words}: ${even}.`;
    };
  });
})();
