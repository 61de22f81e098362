"use strict";

// The four choices: what an answer to each brought in chapter 02, and the chapters that work at them.
(() => {
  const { runs, baselines, chapters } = kdftPlayed;
  const { line, percent, scale, signed, text } = kdftDraw;
  const CHOICES = ["start", "inputs", "objective", "strategy"], ROW = 44;
  const CODE = {
    start: ["student,  # random weights", "student,  # has learned rotations"],
    inputs: ["labeled,", "labeled, augment=RandomShiftFlip(1),", "labeled, transfer_data=unlabeled,"],
    objective: ["objective=Supervised(),", "objective=SoftTargets(teacher),"],
    strategy: [
      "strategy=FullFineTuning(lr=lr),",
      'strategy=BitFit(lr=lr, head="head"),',
      'strategy=HeadOnly(lr=lr, head="head"),',
    ],
  };
  const withAnswers = (answers) =>
    runs.find((run) => CHOICES.every((choice) => (run.answers[choice] ?? 0) === (answers[choice] ?? 0)));
  const base = withAnswers({});

  /** All that was measured as ticks, the reader's answers as mean and interval. */
  function measured(width, run) {
    const x = scale([55, 89], [8, width - 8]), middle = 34;
    const tick = (key, accuracy, more) =>
      line(key, x(accuracy), middle - 10, x(accuracy), middle + 10, { "stroke-width": 2, ...more });
    const below = (key, accuracy, content, more) => text(key, x(accuracy), middle + 28, content, more);
    const muted = { "text-anchor": "middle", fill: "var(--muted)" };
    const marks = [
      line("axis", x(55), middle, x(89), middle, { stroke: "var(--grid)", "stroke-width": 2 }),
      ...[60, 70].map((mark) => below(`mark-${mark}`, mark, `${mark} %`, muted)),
      ...runs.map(({ accuracy }, row) => tick(`run-${row}`, accuracy[0])),
      tick("svm", baselines.SVM[0], { stroke: "var(--text)", "stroke-dasharray": "3 3" }),
      below("svm-text", baselines.SVM[0], "SVM"),
      below("base-text", base.accuracy[0], "base", { "text-anchor": "end" }),
    ];
    if (run) {
      const [mean, low, high] = run.accuracy, wide = { "stroke-width": 10, "stroke-opacity": 0.4 };
      marks.push(
        line("now-interval", x(low), middle, x(high), middle, { stroke: "var(--vermilion)", ...wide }),
        ["circle", "now", { cx: x(mean), cy: middle, r: 7, fill: "var(--vermilion)" }],
        text("now-text", x(mean), 16, `${mean.toFixed(1)} %`, { "text-anchor": "middle", "font-weight": 700 }),
      );
    }
    const these = run ? `these answers have ${percent(run.accuracy)}` : "none for these answers";
    return { height: 68, label: `Test accuracies that chapter 02 recorded; ${these}.`, marks };
  }

  /** Lines from choices to chapters; those of what was changed in their colour, over the others. */
  function map(width, changed) {
    const height = ROW * chapters.length, box = Math.min(104, width * 0.28);
    const linked = width - Math.min(190, width * 0.5), bend = (box + linked) / 2;
    const middle = (choice) => ((CHOICES.indexOf(choice) + 0.5) * height) / CHOICES.length;
    const curves = chapters.flatMap((chapter, row) =>
      chapter.choices.map((choice, place) => {
        const end = (row + 0.5) * ROW + (place - (chapter.choices.length - 1) / 2) * 7;
        const d = `M${box},${middle(choice)} C${bend},${middle(choice)} ${bend},${end} ${linked - 10},${end}`;
        const look = changed.includes(choice) ? [`var(--${choice})`, 3] : ["var(--line)", 1.5];
        return ["path", `${choice}-${chapter.page}`, { d, fill: "none", stroke: look[0], "stroke-width": look[1] }];
      }),
    );
    const boxes = CHOICES.map((choice) => {
      const on = changed.includes(choice), color = `var(--${choice})`, y = middle(choice);
      const frame = { x: 1, y: y - 22, width: box - 2, height: 44, rx: 6, stroke: color, "stroke-width": 2 };
      const name = { "text-anchor": "middle", fill: on ? "var(--ground)" : "var(--text)" };
      return ["g", choice, {}, [
        ["rect", "frame", { ...frame, fill: on ? color : "var(--ground)" }],
        text("name", box / 2, y + 5, choice, name),
      ]];
    });
    const links = chapters.map(({ page, title, choices }, row) => {
      const all = changed.length > 0 && changed.every((choice) => choices.includes(choice));
      const room = { x: linked - 4, y: row * ROW, width: width - linked + 2, height: ROW, rx: 4 };
      const look = { fill: "var(--link)", "font-weight": all ? 700 : 400, "text-decoration": "underline" };
      return ["a", page, { href: page, "aria-label": `${title}: ${choices.join(", ")}` }, [
        ["rect", "room", { ...room, fill: "transparent" }],
        text("title", linked + 4, (row + 0.5) * ROW + 5, title, look),
      ]];
    });
    curves.sort(([, , a], [, , b]) => a["stroke-width"] - b["stroke-width"]);
    return { height, label: "Chapters, by the choices that they work at", marks: [...curves, ...boxes, ...links] };
  }

  kdftDraw.figure("kdft-choices", ({ find, panel }) => () => {
    const answers = Object.fromEntries(CHOICES.map((choice) => [choice, +find(`.${choice} :checked`).value]));
    const changed = CHOICES.filter((choice) => answers[choice]), run = withAnswers(answers);
    const lines = CHOICES.map((choice) => `    ${CODE[choice][answers[choice]]}\n`);
    find("code").textContent = `fit(\n${lines.join("")}    steps=400,\n)`;
    panel(".measured", (width) => measured(width, run));
    panel(".map", (width) => map(width, changed));

    const what = changed.length ? `Changed: ${changed.join(", ")}.` : "The base: nothing is changed.";
    if (!run) return `${what} Chapter 02 did not measure these answers together.`;
    if (run === base) return `${what} Chapter 02 measured ${percent(run.accuracy)}.`;
    const [mean, low, high] = run.difference.map((end) => signed(end, 1));
    return `${what} Chapter 02 measured ${percent(run.accuracy)}: ${mean} points [${low}, ${high}] from the base.`;
  });
})();
