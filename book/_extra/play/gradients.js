"use strict";

// One picture's logits under SoftTargets: the pull of the label, that of the teacher, and their sum.
(() => {
  const { classes, sensitivity } = kdftPlayed;
  const { axes, interval, line, scale, signed, softmax, text } = kdftDraw;
  const LEFT = 92, ROW = 34, TEMPERATURES = [1, 2, 4, 8, 16];
  const LABEL = "var(--blue)", TEACHER = "var(--vermilion)", SUM = "var(--text)";
  const norm = (vector) => Math.hypot(...vector);

  /** Downhill for the cross-entropy with the label. */
  const fromLabel = (student, label) => softmax(student, 1).map((share, row) => (row === label) - share);

  /** Downhill for T² · KL(teacher ‖ student). */
  function fromTeacher(student, teacher, temperature) {
    const wanted = softmax(teacher, temperature), has = softmax(student, temperature);
    return wanted.map((share, row) => temperature * (share - has[row]));
  }

  function angleBetween(a, b) {
    const cosine = a.reduce((total, value, row) => total + value * b[row], 0) / (norm(a) * norm(b));
    return Math.acos(Math.max(-1, Math.min(1, cosine)));
  }

  /** The two pulls on each logit as bars, and their sum as a mark. `most` is the longest bar that any slider makes. */
  function pulls(width, { ofLabel, ofTeacher, sum, label, most }) {
    const x = scale([-most, most], [LEFT, width - 56]), height = 24 + ROW * classes.length;
    const bar = (key, value, y, fill) => [
      "rect", key, { x: Math.min(x(0), x(value)), y, width: Math.abs(x(value) - x(0)), height: 10, fill },
    ];
    const rows = classes.flatMap((name, row) => {
      const y = 22 + row * ROW, weight = { "text-anchor": "end", "font-weight": row === label ? 700 : 400 };
      return [
        text(`name-${row}`, LEFT - 8, y + 21, row === label ? `▸ ${name}` : name, weight),
        bar(`label-${row}`, ofLabel[row], y + 5, LABEL),
        bar(`teacher-${row}`, ofTeacher[row], y + 17, TEACHER),
        line(`sum-${row}`, x(sum[row]), y + 2, x(sum[row]), y + 30, { stroke: SUM, "stroke-width": 4 }),
        text(`number-${row}`, width, y + 21, signed(sum[row], 3), { "text-anchor": "end" }),
      ];
    });
    const marks = [
      text("down", x(0) - 8, 14, "← down", { "text-anchor": "end", fill: "var(--muted)" }),
      text("up", x(0) + 8, 14, "up →", { fill: "var(--muted)" }),
      line("zero", x(0), 4, x(0), height - 2),
      ...rows,
    ];
    const list = classes.map((name, row) => `${name} ${signed(sum[row], 3)}`).join(", ");
    return { height, label: `The sum of both pulls on each logit: ${list}.`, marks };
  }

  /** The plane of the two pulls, that of the label to the right. `all` are the teacher's at every temperature. */
  function plane(width, { atFull, weight, all }) {
    const polar = (length, angle) => ({ x: length * Math.cos(angle), y: -length * Math.sin(angle) });
    const label = polar(norm(atFull.label), 0);
    const teacher = polar(norm(atFull.teacher), angleBetween(atFull.label, atFull.teacher));
    const reached = [{ x: 0, y: 0 }, label, ...all.map((pull) => polar(norm(pull), angleBetween(atFull.label, pull)))];
    const [left, right] = [Math.min, Math.max].map((end) => end(...reached.map(({ x }) => x)));
    const top = Math.min(...reached.map(({ y }) => y));
    const unit = Math.min((width - 24) / (right - left), 190 / -top);
    const height = Math.ceil(24 - top * unit), start = (width - unit * (left + right)) / 2;
    const place = ({ x, y }) => ({ x: start + unit * x, y: height - 12 + unit * y });
    const times = (factor, { x, y }) => ({ x: factor * x, y: factor * y });

    const origin = place({ x: 0, y: 0 }), part = times(1 - weight, label), rest = times(weight, teacher);
    const [middle, end] = [place(part), place({ x: part.x + rest.x, y: part.y + rest.y })];
    const dashes = { "stroke-dasharray": "4 4" };
    const dashed = (key, from, to, stroke) => line(key, from.x, from.y, to.x, to.y, { stroke, ...dashes });
    return {
      height,
      unit,
      marks: [
        dashed("full-label", origin, place(label), LABEL),
        dashed("full-teacher", origin, place(teacher), TEACHER),
        dashed("between", place(label), place(teacher), "var(--muted)"),
        ...arrow("label", origin, middle, LABEL, 4),
        ...arrow("teacher", middle, end, TEACHER, 4),
        ...arrow("sum", origin, end, SUM, 2.5),
      ],
    };
  }

  /** A line with a head, which is smaller where there is little room for it. */
  function arrow(key, from, to, color, thickness) {
    const length = Math.hypot(to.x - from.x, to.y - from.y) || 1, size = Math.min(11, length) / length;
    const [x, y] = [size * (to.x - from.x), size * (to.y - from.y)];
    const corners = [[to.x, to.y], [to.x - x + y / 2, to.y - y - x / 2], [to.x - x - y / 2, to.y - y + x / 2]];
    const points = corners.map((corner) => corner.map((value) => value.toFixed(2)).join(",")).join(" ");
    return [
      line(key, from.x, from.y, to.x, to.y, { stroke: color, "stroke-width": thickness }),
      ["polygon", `${key}-head`, { points, fill: color }],
    ];
  }

  /** What students reached at this temperature; a weight of 0 is labels alone. */
  function students(width, { weight, temperature }) {
    const left = 34, right = width - 12, bottom = 128;
    const x = scale([0, 1], [left, right]), y = scale([78, 84.8], [bottom, 8]);
    const soft = sensitivity.soft.filter((row) => row.temperature === temperature);
    const rows = [{ weight: 0, accuracy: sensitivity.labels }, ...soft];
    const marks = [
      ...axes({ x, y, xTicks: [0, 0.1, 0.5, 0.9, 1], yTicks: [78, 80, 82, 84], left, right, bottom }),
      line("now", x(weight), 4, x(weight), bottom, { stroke: SUM, "stroke-width": 2 }),
      ...rows.flatMap(({ weight, accuracy }) =>
        interval(`at-${weight}`, x(weight), accuracy, y, weight ? TEACHER : LABEL)),
    ];
    const list = rows.map((row) => `${row.accuracy[0].toFixed(1)} % at ${row.weight}`).join(", ");
    return { height: 150, label: `Validation accuracy over kd_weight at T = ${temperature}: ${list}.`, marks };
  }

  kdftDraw.figure("kdft-gradients", ({ find, panel, shown }) => {
    const [weighing, cooling] = ["weight", "temperature"].map((name) => find(`[name=${name}]`));
    const picture = kdftDraw.pictures(find(".pictures"), 1);

    return () => {
      const weight = weighing.valueAsNumber, temperature = 2 ** cooling.valueAsNumber;
      const { label, teacher, [find(".state :checked").value]: student } = picture();
      shown(weighing, weight.toFixed(2));
      shown(cooling, temperature);

      const all = TEMPERATURES.map((each) => fromTeacher(student, teacher, each));
      const atFull = { label: fromLabel(student, label), teacher: fromTeacher(student, teacher, temperature) };
      const ofLabel = atFull.label.map((value) => (1 - weight) * value);
      const ofTeacher = atFull.teacher.map((value) => weight * value);
      const sum = ofLabel.map((value, row) => value + ofTeacher[row]);
      const most = Math.max(...[atFull.label, ...all].flat().map(Math.abs));
      const degrees = ((angleBetween(atFull.label, atFull.teacher) * 180) / Math.PI).toFixed(0);
      const [one, two, both] = [ofLabel, ofTeacher, sum].map((pull) => norm(pull).toFixed(2));
      const lengths = `label ${one}, teacher ${two}, sum ${both}`;

      panel(".pulls", (width) => pulls(width, { ofLabel, ofTeacher, sum, label, most }));
      panel(".plane", (width) => ({
        ...plane(width, { atFull, weight, all }),
        label: `Lengths of the weighted pulls: ${lengths}; ${degrees} degrees between the two.`,
      }));
      panel(".students", (width) => students(width, { weight, temperature }));

      const highest = sum.indexOf(Math.max(...sum));
      const where = `At kd_weight\u00a0${weight.toFixed(2)} and T\u00a0=\u00a0${temperature}`;
      const what = `${classes[highest]} is pulled up most, by ${sum[highest].toFixed(3)}`;
      const angle = `${degrees}° between the two pulls`;
      return `${where}, ${what}; the label is ${classes[label]}. Lengths: ${lengths}; ${angle}.`;
    };
  });
})();
