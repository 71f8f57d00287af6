// The reading page. First functions of numbers, which tests call under node; then the page itself.
// Images are 2D grey arrays; positions are pixels of the image file, x right, y down, origin at the top-left corner.
"use strict";

// ---- functions of numbers

/** Grey of each pixel value, Uint8Array (most + 1): low is black, high is white. */
function windowTable(low, high, most, invert) {
  const table = new Uint8ClampedArray(most + 1);
  const factor = 255 / Math.max(high - low, 1e-9);
  for (let value = 0; value <= most; value++) {
    const grey = (value - low) * factor;
    table[value] = invert ? 255 - grey : grey;
  }
  return table;
}

/** [low, high] to start with: all of 8 bits; of 16 bits up to what only a thousandth of the pixels exceeds. */
function autoWindow(pixels, most) {
  if (most === 255) return [0, 255];
  const counts = new Uint32Array(most + 1);
  let total = 0;
  for (let place = 0; place < pixels.length; place += 5, total++) counts[pixels[place]]++;
  let above = 0, high = most;
  while (high > 1 && above + counts[high] <= total / 1000) above += counts[high--];
  return [0, high];
}

/** "left" or "right": the side of the chest wall, where more tissue touches the border. */
function wallSide(pixels, width, height) {
  const strip = Math.max(1, Math.round(width / 10));
  let left = 0, right = 0;
  for (let y = 0; y < height; y += 4) {
    for (let x = 0; x < strip; x++) {
      left += pixels[y * width + x];
      right += pixels[y * width + width - 1 - x];
    }
  }
  return left >= right ? "left" : "right";
}

/** Where the chest wall belongs: a right breast hangs on the left, its wall in the middle. */
const wantedSide = (laterality) => ({ R: "right", L: "left" })[laterality] ?? null;

/** View that shows a whole image in a panel, its chest wall at the border where it belongs. */
function fit(panel, image, side, mirror) {
  const scale = Math.min(panel.width / image.width, panel.height / image.height);
  const free = panel.width - image.width * scale;
  const x = side === "right" ? free : side === "left" ? 0 : free / 2;
  return { scale, x, y: (panel.height - image.height * scale) / 2, mirror };
}

function toScreen(view, image, [x, y]) {
  return [view.x + (view.mirror ? image.width - x : x) * view.scale, view.y + y * view.scale];
}

function toImage(view, image, [x, y]) {
  const across = (x - view.x) / view.scale;
  return [view.mirror ? image.width - across : across, (y - view.y) / view.scale];
}

/** The view zoomed by a factor around a place on the screen, which keeps its pixel. */
function zoomAt(view, [x, y], factor) {
  const scale = Math.min(Math.max(view.scale * factor, 0.02), 32);
  const real = scale / view.scale;
  return { ...view, scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
}

/** Columns in which n images of an aspect (width / height) are shown largest. */
function columnsFor(n, width, height, aspect) {
  let best = 1, size = 0;
  for (let columns = 1; columns <= n; columns++) {
    if (n % columns) if (n > 2 && columns % 2) continue;
    const rows = Math.ceil(n / columns);
    const here = Math.min(width / columns / aspect, height / rows);
    if (here > size) [best, size] = [columns, here];
  }
  return best;
}

/** Hanging order: CC before MLO before other views, right before left. */
function hangingOrder(images) {
  const rank = (image) => [["CC", "MLO"].indexOf(image.view), ["R", "L"].indexOf(image.laterality)].map((n) => (n < 0 ? 9 : n));
  return images.map((image, place) => [...rank(image), place]).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])
    .map((entry) => entry[2]);
}

/** What stands at a threshold: lesions found and missed, false findings; null where that cannot be judged. */
function judgeAt(image, threshold) {
  const shown = image.findings.filter((one) => one.score >= threshold);
  if (!image.judged) return null;
  const hit = new Set(shown.map((one) => one.lesion).filter((one) => one !== null));
  const real = image.truth.map((_, place) => place).filter((place) => !image.truth[place].ignore);
  return {
    found: real.filter((place) => hit.has(place)), missed: real.filter((place) => !hit.has(place)),
    wrong: shown.filter((one) => one.kind === "false").length,
  };
}

/** Distance in mm of two points in pixels, spacing [row, column]. */
const lengthMm = ([row, column], [x1, y1], [x2, y2]) => Math.hypot((x2 - x1) * column, (y2 - y1) * row);

/** A box x1, y1, x2, y2 of two corners in any order, cut to the image. */
function boxOf(image, [ax, ay], [bx, by]) {
  const cut = (value, most) => Math.min(Math.max(value, 0), most);
  return [cut(Math.min(ax, bx), image.width), cut(Math.min(ay, by), image.height),
    cut(Math.max(ax, bx), image.width), cut(Math.max(ay, by), image.height)];
}

/** Colour of a score, dark violet over orange to pale yellow: lighter is higher, also without colour. */
function heatColour(score) {
  const stops = [[60, 15, 112], [229, 92, 48], [252, 255, 164]], place = Math.min(Math.max(score, 0), 1) * 2;
  const low = Math.min(Math.floor(place), 1);
  return `rgb(${stops[low].map((from, n) => Math.round(from + (stops[low + 1][n] - from) * (place - low))).join(", ")})`;
}

/** The marks after a verdict on a finding (null takes it away); added boxes are appended. */
function withMark(marks, detection, verdict, box) {
  const others = marks.filter((mark) => detection === null || mark.detection !== detection);
  return verdict === null ? others : [...others, { verdict, detection, box_xyxy: box ?? null }];
}

/** Text without characters that turn the direction of what follows, so that a name cannot reverse a number. */
const plain = (text) => String(text).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

// ---- the page

const FIRST_SIDE = 1024; // px of the longer side of what is seen first
const KEYS = [
  ["j / k", "next, previous exam"], ["Tab / Shift+Tab", "next, previous image"], ["f, Enter or double click", "one image alone, or all"],
  ["mouse drag", "window (right, left) and level (up, down); Shift+drag or middle button: pan"],
  ["wheel, + / -", "zoom"], ["arrows", "pan"], ["0 / 1", "fit / one pixel to one of the screen"],
  ["w / W", "window wider, narrower"], ["l / L", "level up, down"], ["p", "next window of the DICOM file"], ["i", "invert"], ["g", "magnifier"],
  ["b / c / t / h", "boxes, contours, truth, heat on or off"], ["[ / ]", "threshold down, up"], ["o", "next operating point"],
  ["r", "ruler: drag, or arrows and Shift+arrows move its ends; in mm only where the spacing is known"],
  [". / ,", "next, previous finding"], ["a / x / X", "accept, reject the finding; reject all that have no verdict"],
  ["d / n", "redraw the finding / new box: drag, or arrows move, Shift+arrows resize, Enter keeps, Esc drops"],
  ["u", "clear the verdict; of an added box: remove it"], ["m", "comment"], ["v", "image done"], ["e", "export the corrected images as COCO"],
  ["O / D, or drop", "predict DICOM, PNG and zip files / folders of them"],
  ["/", "search"], ["? / Esc", "these keys / close, leave"],
];

function start() {
  const $ = (id) => document.getElementById(id);
  const embedded = $("data") ? JSON.parse($("data").textContent) : null;
  const token = document.body.dataset.token;
  const state = {
    exam: 0, exams: [], panels: [], active: 0, alone: false, threshold: 0.3, point: -1, finding: 0, preset: "0", cases: null, chosen: null,
    show: { b: true, c: true, t: true, h: false, i: false, g: false }, tool: null, drag: null, ruler: null, draft: null, load: null,
  };
  const study = { parts: [], images: [], exams: [], verdicts: embedded ? null : [] }; // of all studies of the server
  let saving = Promise.resolve(), commentTimer = null, mostBytes = 0, keptIn = "", reading = null;
  const ahead = new Map(); // of the next exam, by image
  const unsaved = new Set(); // images with verdicts that were not sent

  const ask = (path, options = {}) => fetch(path, { ...options, headers: { Authorization: `Bearer ${token}` } });
  const say = (text) => { $("status").textContent = plain(text); };
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = plain(text);
    if (kind) element.className = kind;
    return element;
  };
  const percent = (value) => (value === undefined ? "" : value.toFixed(2));
  const active = () => state.panels[state.active];
  const imageOf = (panel) => study.images[panel.number];
  const rowAt = () => state.exams.findIndex((row) => row.place === state.exam && row.number === state.chosen);
  const points = () => imageOf(active()).part.points;

  async function fetched(path, signal) {
    const answer = await ask(path, { signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    return answer;
  }

  /** Puts a study behind those that are shown; answers the position of its first exam. */
  function append(part, path) {
    const first = study.images.length, exam = study.exams.length;
    study.images = study.images.concat(part.images.map((image, n) => ({ ...image, part, path: `${path}/images/${n}` })));
    study.exams = study.exams.concat(part.exams.map((one, n) => ({ ...one, first, path: `${path}/exams/${n}`, images: one.images.map((number) => number + first) })));
    if (study.verdicts) study.verdicts = study.verdicts.concat(part.verdicts);
    study.parts.push(Object.assign(part, { path, first }));
    const known = [...new Set(study.images.map((image) => image.density).filter(Boolean))].sort();
    const chosen = $("density").value;
    $("density").replaceChildren(...["", ...known].map((value) => Object.assign(make("option", value ? `density ${value}` : "any density"), { value })));
    $("density").value = chosen;
    $("density").hidden = !known.length;
    return exam;
  }

  const appendFrom = async (path) => append(await fetched(path).then((answer) => answer.json()), path);

  /** A new reading of images, which ends the one before. */
  function newLoad() {
    state.load?.abort();
    state.load = new AbortController();
    return state.load;
  }

  async function readPixels(number, preset, most, signal) {
    if (embedded) {
      const picture = new Image();
      picture.src = embedded.pictures[number];
      await picture.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      const context = canvas.getContext("2d");
      context.drawImage(picture, 0, 0);
      const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
      const pixels = new Uint8Array(canvas.width * canvas.height);
      for (let place = 0; place < pixels.length; place++) pixels[place] = rgba[4 * place];
      return { pixels, width: canvas.width, height: canvas.height, most: 255 };
    }
    const answer = await fetched(`${study.images[number].path}/pixels?window=${preset}&most=${most}`, signal);
    const [height, width, bits] = answer.headers.get("X-Image").split(",").map(Number);
    const buffer = await answer.arrayBuffer();
    if (buffer.byteLength !== (width * height * bits) / 8) throw new Error("the image was cut short; open the exam again");
    return { pixels: bits === 16 ? new Uint16Array(buffer) : new Uint8Array(buffer), width, height, most: bits === 16 ? 65535 : 255 };
  }

  // -- exams

  function examScore(exam) {
    return Math.max(-1, ...exam.images.map((number) => study.images[number].scores?.tumor ?? study.images[number].findings[0]?.score ?? -1));
  }

  function examFacts(exam) {
    const images = exam.images.map((number) => study.images[number]);
    const judged = images.map((image) => judgeAt(image, state.threshold)).filter(Boolean);
    const sum = (key) => judged.reduce((total, one) => total + (one[key].length ?? one[key]), 0);
    const labels = images.map((image) => image.labels.tumor).filter((value) => value !== undefined);
    const mislabelled = ({ labels, scores }) => labels.tumor !== undefined && scores?.tumor !== undefined && (scores.tumor >= 0.5) !== (labels.tumor === 1);
    return {
      densities: images.map((image) => image.density), mislabelled: images.some(mislabelled),
      found: sum("found"), missed: sum("missed"), wrong: sum("wrong"), judged: judged.length > 0,
      tumor: labels.length ? Math.max(...labels) : null, done: exam.images.every((number) => study.verdicts?.[number].done),
    };
  }

  function listExams() {
    const text = $("search").value.toLowerCase(), kept = $("filter").value, density = $("density").value;
    const fits = (exam, facts) => ({
      all: true, tumor: facts.tumor === 1, normal: facts.tumor === 0, found: facts.found > 0, missed: facts.missed > 0,
      false: facts.wrong > 0, mislabelled: facts.mislabelled, open: !facts.done,
    })[kept] && (!density || facts.densities.includes(density)) && [exam.name, ...exam.images.map((number) => study.images[number].name)].some((name) => name.toLowerCase().includes(text));
    const whole = study.exams.map((exam, place) => ({ exam, place, number: null }));
    const rows = (state.cases?.rows ?? whole).map((row) => ({ ...row, facts: examFacts(row.exam), score: examScore(row.exam) }))
      .filter((row) => fits(row.exam, row.facts));
    const byName = (a, b) => a.exam.name.localeCompare(b.exam.name, undefined, { numeric: true });
    const by = $("sort").value, key = (row) => ({ score: row.score, tumor: row.facts.tumor ?? -1, name: 0 })[by] ?? row.facts[by];
    rows.sort((a, b) => key(b) - key(a) || (by === "name" ? 0 : b.score - a.score) || byName(a, b));
    state.exams = rows;
    $("count").textContent = plain(state.cases ? `${rows.length} of ${state.cases.rows.length} ${state.cases.words}` : `${rows.length} of ${study.exams.length} exams`);
    $("all").hidden = !state.cases;
    $("exams").replaceChildren(...rows.map(({ exam, place, number, facts, score }) => {
      const item = make("li"), button = make("button", undefined, "exam");
      button.type = "button";
      button.append(make("strong", exam.name), make("span", score >= 0 ? percent(score) : "", "score"));
      const truth = facts.tumor === null ? "" : facts.tumor ? "tumor" : "no tumor";
      const parts = [study.parts.length > 1 && study.images[exam.images[0]].part.title, `${exam.images.length} image${exam.images.length > 1 ? "s" : ""}`, truth,
        ...(facts.judged ? [facts.found && `${facts.found} found`, facts.missed && `${facts.missed} missed`, facts.wrong && `${facts.wrong} false`] : []),
        facts.done ? "\u2713 done" : ""];
      button.append(make("span", parts.filter(Boolean).join(" \u00b7 "), "faint"));
      button.setAttribute("aria-current", place === state.exam && number === state.chosen);
      button.onclick = () => open(place, number);
      item.append(button);
      return item;
    }));
    $("exams").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
  }

  /** Opens an exam, as the row of the list that `number` is the first image of; `shown` is chosen among its images. */
  async function open(place, number = null, shown = number) {
    if (state.panels.length) keepComment();
    const before = state.panels.length ? imageOf(active()).part : null;
    Object.assign(state, { exam: place, chosen: number, active: 0, finding: 0, alone: false, tool: null, draft: null, ruler: null, preset: "0" });
    const load = newLoad(), exam = study.exams[place];
    state.panels = hangingOrder(exam.images.map((number) => study.images[number])).map((position) => makePanel(exam.images[position]));
    state.active = Math.max(state.panels.findIndex((panel) => panel.number === shown), 0);
    $("panels").replaceChildren(...state.panels.map((panel) => panel.element));
    if (imageOf(active()).part !== before) showPart();
    layout();
    listExams();
    if (document.activeElement === document.body) active().canvas.focus(); // not while a reader types elsewhere
    const { panels } = state;
    reading = (embedded ? Promise.resolve(embedded.details) : fetched(exam.path, load.signal).then((answer) => answer.json()))
      .then((found) => { for (const panel of panels) panel.details = found[panel.number - exam.first]; });
    reading.then(() => load === state.load && refresh(), () => null); // loadPixels says why it failed
    await loadAll(load);
  }

  /** Pixels of all panels: few of each, the active one's before the others are decoded, then every one. */
  async function loadAll(load) {
    const { panels } = state, first = active();
    say("reading ...");
    await loadPixels(first, load, FIRST_SIDE);
    await Promise.all(panels.filter((panel) => panel !== first).map((panel) => loadPixels(panel, load, FIRST_SIDE)));
    await Promise.all(panels.map((panel) => loadPixels(panel, load, 99999)));
    if (load !== state.load) return;
    if (panels.every((panel) => !panel.error)) say("");
    readAhead(load);
  }

  /** The first view of the next exam, image after image. */
  async function readAhead(load) {
    ahead.clear();
    const next = embedded ? undefined : state.exams[rowAt() + 1]?.exam;
    for (const number of next?.images ?? []) {
      if (load !== state.load) return;
      await readPixels(number, "0", FIRST_SIDE, load.signal).then((loaded) => ahead.set(number, loaded), () => null);
    }
  }

  async function loadPixels(panel, load, most) {
    if (load !== state.load || (most > FIRST_SIDE && (embedded || panel.width === imageOf(panel).width))) return;
    try {
      const own = ["0", "none"].includes(state.preset) || Number(state.preset) < panel.details.presets.length, preset = own ? state.preset : "0";
      const loaded = (most === FIRST_SIDE && preset === "0" && ahead.get(panel.number)) || await readPixels(panel.number, preset, most, load.signal);
      await reading;
      if (load !== state.load) return;
      const same = panel.preset === preset;
      Object.assign(panel, loaded, { error: null, off: null, preset });
      if (!same) panel.range = preset === "none" || !panel.details.presets.length ? autoWindow(panel.pixels, panel.most) : [0, panel.most];
      if (!panel.view) {
        const wanted = wantedSide(imageOf(panel).laterality), wall = wallSide(panel.pixels, panel.width, panel.height);
        home(Object.assign(panel, { side: wanted ?? wall, mirror: wanted !== null && wall !== wanted }));
      }
    } catch (error) {
      if (load !== state.load) return;
      panel.error = error.message;
      say(error.message);
    }
    draw(panel);
  }

  /** The title and the operating points of the study that an exam belongs to. */
  function showPart() {
    const part = imageOf(active()).part;
    $("title").textContent = plain(part.title);
    $("points").replaceChildren(Object.assign(make("option", "no operating point"), { value: "-1" }),
      ...part.points.map((point, n) => Object.assign(make("option", `${point.label}, ${point.goal}: ${point.threshold.toFixed(3)}`), { value: String(n) })));
    $("points").hidden = !part.points.length;
    state.point = part.points.length ? 0 : -1;
    if (part.points[0]?.label === "tumor") state.threshold = part.points[0].threshold;
  }

  /** Shows what the address asks for: #image=NAME, #filter=missed&density=C&threshold=0.3, ... */
  async function follow() {
    if (!study.exams.length) return;
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const id of ["filter", "density", "sort", "search"]) {
      if (wanted.has(id)) $(id).value = wanted.get(id);
      if ($(id).selectedIndex < 0) $(id).selectedIndex = 0;
    }
    const query = new URLSearchParams([...wanted].filter(([name]) => !["image", "study"].includes(name))).toString();
    let failure = "";
    if (!wanted.has("cases")) state.cases = null;
    else if (state.cases?.query !== query) {
      state.cases = await casesOf(query).catch((error) => { failure = error.message; return null; });
      [$("filter").value, $("density").value, $("search").value] = ["all", "", ""];
    }
    const threshold = state.cases?.threshold ?? (wanted.has("threshold") ? Number(wanted.get("threshold")) || 0 : null);
    if (threshold !== null) state.threshold = Math.min(Math.max(threshold, 0), 1);
    listExams();
    const named = (image) => image.name === wanted.get("image") && (!wanted.has("study") || image.part.title === wanted.get("study"));
    const number = wanted.has("image") ? study.images.findIndex(named) : state.panels.length ? active().number : -1;
    const exam = study.exams.findIndex((one) => one.images.includes(number)), row = state.exams.find((one) => one.exam.images.includes(number));
    const first = row ?? (wanted.has("image") && exam >= 0 ? { place: exam } : state.exams[0] ?? { place: 0 });
    const opened = open(first.place, first.number ?? null, study.exams[first.place].images.includes(number) ? number : first.number);
    if (threshold !== null) setThreshold(threshold); // not that of an operating point, with which a study is shown first
    await opened;
    if (wanted.has("image") && exam < 0) say(`no image is named ${wanted.get("image")}${wanted.has("study") ? ` in ${wanted.get("study")}` : ""}`);
    if (!state.exams.length) say("none fits");
    if (failure) say(failure);
  }

  /** The cases of a figure as rows of the list. */
  async function casesOf(query) {
    const { study: part, words, rows, threshold } = await fetched(`api/cases?${query}`).then((answer) => answer.json()), { first } = study.parts[part];
    const exams = new Map(study.exams.flatMap((exam, place) => exam.images.map((number) => [number, place])));
    return { query, words, threshold, rows: rows.map(({ name, images }) => ({ exam: { name, images: images.map((number) => number + first) }, place: exams.get(images[0] + first), number: images[0] + first })) };
  }

  // -- uploads

  async function upload(given) {
    if (!study.verdicts) return say("this file has no server that predicts; start mammodet view");
    const files = given.filter((file) => !file.name.startsWith(".")); // what a system leaves in folders
    const bytes = files.reduce((sum, file) => sum + file.size, 0), bar = $("progress");
    if (!files.length) return say("NOT PREDICTED: there is no file in it");
    if (!bar.hidden) return say("NOT PREDICTED: another upload is still running");
    if (bytes > mostBytes) return say(`NOT PREDICTED: ${(bytes / 1e6).toFixed(0)} MB; expected at most ${(mostBytes / 1e6).toFixed(0)} MB. Name the files on the command line.`);
    const form = new FormData();
    for (const file of files) form.append("file", file, file.path ?? (file.webkitRelativePath || file.name));
    bar.removeAttribute("value");
    bar.hidden = false;
    say(`sending ${files.length} file${files.length > 1 ? "s" : ""} ...`);
    try {
      const answer = await ask("api/studies", { method: "POST", body: form });
      if (!answer.ok) throw new Error((await answer.json()).error);
      say("waiting ...");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "", last = {};
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const lines = (text + part.value).split("\n");
        text = lines.pop();
        for (const line of lines) {
          last = JSON.parse(line);
          if (last.of) Object.assign(bar, { max: last.of, value: last.done });
          if (last.of) say(`predicted ${last.done} of ${last.of} images`);
        }
      }
      if (last.study === undefined) throw new Error(last.error ?? "the server failed; its terminal says why");
      state.cases = null;
      await open(await appendFrom(`api/studies/${last.study}`));
      if (last.skipped.length) say(`skipped: ${last.skipped.join("; ")}`);
    } catch (error) {
      say(`NOT PREDICTED: ${error.message}`);
    } finally {
      bar.hidden = true;
    }
  }

  function drop(event) {
    event.preventDefault();
    document.body.classList.toggle("dropping", event.type === "dragover");
    if (event.type !== "drop") return;
    const { items, files } = event.dataTransfer, entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return upload([...files]);
    Promise.all(entries.map(filesOf)).then((found) => upload(found.flat()), (error) => say(`NOT PREDICTED: ${error.message}`));
  }

  /** The files of a dropped file or folder, with their paths; a folder is read in parts, until one is empty. */
  async function filesOf(entry) {
    const ask = (call) => new Promise((resolve, reject) => call(resolve, reject));
    if (entry.isFile) return [Object.assign(await ask((...to) => entry.file(...to)), { path: entry.fullPath.slice(1) })];
    const reader = entry.createReader(), found = [];
    for (let part = [0]; part.length; found.push(...part)) part = await ask((...to) => reader.readEntries(...to));
    return (await Promise.all(found.map(filesOf))).flat();
  }

  // -- panels

  function makePanel(number) {
    const element = make("figure"), canvas = make("canvas"), caption = make("figcaption");
    const image = study.images[number];
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", `Image ${image.name}`);
    element.append(canvas, caption);
    const panel = { number, element, canvas, caption, view: null, pixels: null, details: null };
    canvas.onfocus = () => activate(state.panels.indexOf(panel));
    canvas.onpointerdown = (event) => pointerDown(panel, event);
    canvas.onpointermove = (event) => pointerMove(panel, event);
    canvas.onpointerup = canvas.onpointercancel = () => pointerUp(panel);
    canvas.onpointerleave = () => { panel.pointer = null; draw(panel); };
    canvas.ondblclick = () => press("f");
    canvas.oncontextmenu = (event) => event.preventDefault();
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!panel.view) return;
      panel.view = zoomAt(panel.view, place(panel, event), Math.exp(-event.deltaY / 400));
      draw(panel);
    }, { passive: false });
    return panel;
  }

  const ratio = () => window.devicePixelRatio || 1;
  const unit = () => ratio() * Math.max(1, window.innerWidth / 2200); // of lines and letters, larger on large screens
  const place = (panel, event) => {
    const frame = panel.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) * ratio(), (event.clientY - frame.top) * ratio()];
  };
  const middle = (panel) => toImage(panel.view, imageOf(panel), [panel.canvas.width / 2, panel.canvas.height / 2]);
  const stepOf = (panel, dx, dy) => [dx * (panel.view.mirror ? -1 : 1), dy].map((by) => (by * 6 * ratio()) / panel.view.scale); // of an arrow key
  const home = (panel) => { panel.view = fit(panel.canvas, imageOf(panel), panel.side, panel.mirror); };

  function layout() {
    if (!state.panels.length) return;
    const host = $("panels"), shown = state.alone ? 1 : state.panels.length;
    const images = state.panels.map(imageOf);
    const aspect = images.reduce((sum, image) => sum + image.width / image.height, 0) / images.length;
    const columns = columnsFor(shown, host.clientWidth, host.clientHeight, aspect);
    host.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    host.style.gridTemplateRows = `repeat(${Math.ceil(shown / columns)}, 1fr)`;
    state.panels.forEach((panel, index) => {
      panel.element.hidden = state.alone && index !== state.active;
      if (panel.element.hidden) return;
      const frame = panel.canvas.getBoundingClientRect();
      [panel.canvas.width, panel.canvas.height] = [Math.round(frame.width * ratio()), Math.round(frame.height * ratio())];
      if (panel.pixels) home(panel);
      draw(panel);
    });
  }

  function activate(index) {
    if (index === state.active && state.panels[index].element.classList.contains("active")) return;
    keepComment();
    Object.assign(state, { active: index, finding: 0, draft: null, tool: state.draft ? null : state.tool }); // a box belongs to its image
    refresh();
  }

  function shade(panel) {
    const wanted = `${panel.range} ${state.show.i}`;
    if (panel.off && panel.shaded === wanted) return;
    const table = windowTable(panel.range[0], panel.range[1], panel.most, state.show.i);
    const picture = new ImageData(panel.width, panel.height), words = new Uint32Array(picture.data.buffer);
    for (let at = 0; at < words.length; at++) words[at] = 0xff000000 | (table[panel.pixels[at]] * 0x010101);
    panel.off ??= Object.assign(document.createElement("canvas"), { width: panel.width, height: panel.height });
    panel.off.getContext("2d").putImageData(picture, 0, 0);
    panel.shaded = wanted;
  }

  function draw(panel) {
    if (panel.waiting) return;
    panel.waiting = true;
    requestAnimationFrame(() => { panel.waiting = false; paint(panel); });
  }

  function paint(panel) {
    const context = panel.canvas.getContext("2d"), image = imageOf(panel);
    Object.assign(context, { words: [], labels: [] }); // to be written when all lines are drawn, and where some are
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, panel.canvas.width, panel.canvas.height);
    const name = [image.laterality, image.view].filter(Boolean).join(" ") || image.name;
    const score = image.scores?.tumor === undefined ? "" : `score ${percent(image.scores.tumor)}`;
    const point = image.part.points[state.point], value = point && image.scores?.[point.label];
    const call = value === undefined ? "" : `${point.label} ${percent(value)} ${value >= point.threshold ? "\u2265" : "<"} ${percent(point.threshold)}: ${value >= point.threshold ? "positive" : "negative"}`;
    panel.caption.textContent = plain([name, score, call, image.facts, panel.mirror ? "shown mirrored" : "", panel.error].filter(Boolean).join(" \u00b7 "));
    if (!panel.pixels) return;
    shade(panel);
    drawPixels(context, panel, panel.view);
    if (state.show.h) drawHeat(context, panel, panel.view);
    drawMarks(context, panel, panel.view);
    for (const label of context.words) drawLabel(context, ...label);
    if (state.show.g && (panel.pointer || panel === active())) magnify(context, panel, panel.pointer ?? [panel.canvas.width / 2, panel.canvas.height / 2]);
    if (panel === active()) $("window").textContent = `black ${Math.round(panel.range[0])}, white ${Math.round(panel.range[1])}, zoom ${panel.view.scale.toFixed(2)}`;
  }

  function drawPixels(context, panel, view) {
    const image = imageOf(panel);
    context.imageSmoothingEnabled = view.scale < 1;
    context.imageSmoothingQuality = "high";
    const sign = view.mirror ? -1 : 1;
    context.setTransform(sign * view.scale, 0, 0, view.scale, view.x + (view.mirror ? image.width * view.scale : 0), view.y);
    context.drawImage(panel.off, 0, 0, image.width, image.height);
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  function magnify(context, panel, [x, y]) {
    const size = 130 * ratio();
    context.save();
    context.beginPath();
    context.arc(x, y, size, 0, 2 * Math.PI);
    context.clip();
    drawPixels(context, panel, zoomAt(panel.view, [x, y], 3));
    context.restore();
    line(context, "#ddd", [], () => context.arc(x, y, size, 0, 2 * Math.PI));
  }

  function line(context, colour, dashes, path) {
    for (const [width, stroke] of [[4, "#000a"], [2, colour]]) { // a dark rim, so that lines show on white tissue
      context.lineWidth = width * unit();
      context.strokeStyle = stroke;
      context.setLineDash(dashes.map((dash) => dash * unit()));
      context.beginPath();
      path();
      context.stroke();
    }
    context.setLineDash([]);
  }

  /** Words on a dark ground, moved up (-1) or down until they cover no others. */
  function drawLabel(context, words, [x, y], colour, towards = 1) {
    const text = plain(words);
    const size = 13 * unit();
    context.font = `${size}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 8;
    const left = Math.min(Math.max(x, 0), Math.max(context.canvas.width - width, 0)), step = size * 1.45;
    const covers = (top) => context.labels.some((other) => left < other.right && other.left < left + width && Math.abs(top - other.top) < step * 0.9);
    let top = Math.max(y, step);
    for (let tries = 0; tries < 6 && covers(top); tries++) top = Math.max(top + towards * step, step);
    context.labels.push({ left, right: left + width, top });
    context.fillStyle = "#000c";
    context.fillRect(left, top - size * 1.3, width, size * 1.4);
    context.fillStyle = colour;
    context.fillText(text, left + 4, top - size * 0.25);
  }

  /** The highest score of the findings at each place, whatever the threshold. */
  function drawHeat(context, panel, view) {
    const image = imageOf(panel), heat = Object.assign(document.createElement("canvas"), { width: panel.canvas.width, height: panel.canvas.height });
    const pen = heat.getContext("2d");
    for (let n = image.findings.length - 1; n >= 0; n--) { // the strongest is drawn last
      const { box: [x1, y1, x2, y2], score } = image.findings[n], rims = panel.details.findings[n];
      pen.fillStyle = heatColour(score);
      pen.beginPath();
      for (const rim of rims?.length ? rims : [[x1, y1, x2, y1, x2, y2, x1, y2]]) {
        for (let at = 0; at < rim.length; at += 2) pen[at ? "lineTo" : "moveTo"](...toScreen(view, image, [rim[at], rim[at + 1]]));
      }
      pen.fill();
    }
    context.globalAlpha = 0.5;
    context.drawImage(heat, 0, 0);
    context.globalAlpha = 1;
  }

  function drawShape(context, panel, view, box, rims, colour, dashes, label) {
    const image = imageOf(panel), at = (point) => toScreen(view, image, point);
    const [ax, ay] = at([box[0], box[1]]), [bx, by] = at([box[2], box[3]]);
    if (rims?.length && state.show.c) {
      line(context, colour, dashes, () => rims.forEach((rim) => {
        for (let n = 0; n < rim.length; n += 2) context[n ? "lineTo" : "moveTo"](...at([rim[n], rim[n + 1]]));
        context.closePath();
      }));
    }
    if (state.show.b || !rims?.length) line(context, colour, dashes, () => context.rect(Math.min(ax, bx), ay, Math.abs(bx - ax), by - ay));
    context.words.push([label, [Math.min(ax, bx), dashes.length ? by + 18 * unit() : ay - 3 * unit()], colour, dashes.length ? 1 : -1]);
  }

  const TRUTH = "#6cc4f5", FOUND = "#f5b52e", DRAWN = "#7ee08a";
  const SIGNS = { accepted: "\u2713 accepted", rejected: "\u2717 rejected", redrawn: "\u270e redrawn" };
  const marksOf = (number) => study.verdicts?.[number].marks ?? [];
  const markOf = (number, finding) => marksOf(number).find((mark) => mark.detection === finding);

  /** Rows of the side list: findings from the threshold on or with a verdict, then added boxes. */
  function rowsOf(number) {
    const rows = study.images[number].findings.map((finding, detection) => ({ ...finding, detection, mark: markOf(number, detection) }))
      .filter((row) => row.score >= state.threshold || row.mark);
    return [...rows, ...marksOf(number).filter((mark) => mark.verdict === "added").map((mark) => ({ detection: null, mark, box: mark.box_xyxy }))];
  }

  function drawMarks(context, panel, view) {
    const image = imageOf(panel), judged = judgeAt(image, state.threshold);
    if (state.show.b || state.show.c) {
      rowsOf(panel.number).forEach((row, position) => {
        const chosen = panel === active() && position === state.finding ? "\u25b6 " : "";
        const verdict = row.mark?.verdict;
        if (verdict === "added") return drawShape(context, panel, view, row.box, [], DRAWN, [], `${chosen}${position + 1} added`);
        if (verdict === "redrawn") return drawShape(context, panel, view, row.mark.box_xyxy, [], DRAWN, [], `${chosen}${position + 1} ${SIGNS.redrawn}`);
        const words = [`${chosen}${position + 1}`, percent(row.score), SIGNS[verdict] ?? (state.show.t && ["false", "second"].includes(row.kind) ? row.kind : "")];
        drawShape(context, panel, view, row.box, panel.details?.findings[row.detection], FOUND, verdict === "rejected" ? [2, 5] : [], words.filter(Boolean).join(" "));
      });
    }
    if (state.show.t) {
      image.truth.forEach((lesion, position) => {
        const fate = lesion.ignore ? "not counted" : judged ? (judged.found.includes(position) ? "found" : "MISSED") : "";
        drawShape(context, panel, view, lesion.box, panel.details?.truth[position], TRUTH, [9, 5], ["truth:", lesion.text, fate].filter(Boolean).join(" "));
      });
    }
    if (panel !== active()) return;
    if (state.draft) drawShape(context, panel, view, state.draft.box, [], DRAWN, [5, 4], "new box");
    if (state.ruler?.panel === panel) {
      const ends = [state.ruler.from, state.ruler.to];
      line(context, "#fff", [], () => ends.forEach((end, n) => context[n ? "lineTo" : "moveTo"](...toScreen(view, image, end))));
      const [from, to] = ends;
      const text = image.spacing ? `${lengthMm(image.spacing.mm, from, to).toFixed(1)} mm` : `${Math.hypot(to[0] - from[0], to[1] - from[1]).toFixed(0)} px (no spacing known)`;
      drawLabel(context, text, toScreen(view, image, to), "#fff");
    }
  }

  // -- mouse

  function pointerDown(panel, event) {
    panel.canvas.focus();
    if (!panel.pixels) return;
    panel.canvas.setPointerCapture(event.pointerId);
    const at = place(panel, event), point = toImage(panel.view, imageOf(panel), at);
    const pan = event.shiftKey || event.button === 1;
    const kind = pan ? "pan" : state.tool ?? "window";
    state.drag = { kind, at, point, view: panel.view, range: panel.range };
    if (kind === "ruler") state.ruler = { panel, from: point, to: point };
  }

  function pointerMove(panel, event) {
    panel.pointer = place(panel, event);
    if (state.show.g) draw(panel);
    const drag = state.drag;
    if (!drag) return;
    const [dx, dy] = [panel.pointer[0] - drag.at[0], panel.pointer[1] - drag.at[1]];
    const point = toImage(panel.view, imageOf(panel), panel.pointer);
    if (drag.kind === "pan") panel.view = { ...drag.view, x: drag.view.x + dx, y: drag.view.y + dy };
    if (drag.kind === "ruler") state.ruler.to = point;
    if (drag.kind === "box") state.draft.box = boxOf(imageOf(panel), drag.point, point);
    if (drag.kind === "window") {
      const [low, high] = drag.range, step = panel.most / (600 * ratio());
      const centre = (low + high) / 2 - dy * step, half = Math.max((high - low) / 2 + dx * step, 1);
      panel.range = [centre - half, centre + half];
    }
    draw(panel);
  }

  function pointerUp(panel) {
    const drag = state.drag;
    state.drag = null;
    if (drag?.kind === "box" && state.draft) keepDraft();
    if (drag?.kind === "window" && panel.range !== drag.range) shareRange(panel);
  }

  /** Films of one exam and depth are looked at through one window. */
  function shareRange(panel) {
    for (const other of state.panels) if (other.pixels && other.most === panel.most) other.range = [...panel.range];
    state.panels.forEach(draw);
  }

  // -- verdicts

  function change(number, patch) {
    if (!study.verdicts) return say("this file has no server to keep verdicts; open the predictions with mammodet view");
    study.verdicts[number] = { ...study.verdicts[number], ...patch };
    unsaved.add(number);
    saving = saving.then(() => save(number));
    refresh();
    return saving;
  }

  async function save(number) {
    if (!unsaved.delete(number)) return; // sent with an earlier change, or given up for what another window saved
    try {
      const answer = await ask(`${study.images[number].path}/verdict`, { method: "PUT", body: JSON.stringify(study.verdicts[number]), keepalive: true });
      const value = await answer.json();
      if (answer.ok) {
        study.verdicts[number] = { ...study.verdicts[number], version: value.version };
        say("saved");
      } else if (answer.status === 409) {
        const { comment } = study.verdicts[number];
        study.verdicts[number] = value.stored;
        unsaved.delete(number);
        say(`Another window changed this image: its verdicts are shown now, yours was not saved. Give it again.${comment && comment !== value.stored.comment ? ` Your comment was: ${comment}` : ""}`);
      } else say(`NOT SAVED: ${value.error}`);
    } catch {
      unsaved.add(number);
      say("NOT SAVED: mammodet view does not answer; is it still running?");
    }
    refresh();
  }

  function keepComment() {
    if (commentTimer === null) return;
    clearTimeout(commentTimer);
    commentTimer = null;
    const number = active().number, comment = $("comment").value;
    if (comment !== study.verdicts[number].comment) change(number, { comment });
  }

  function verdictOn(verdict) {
    const number = active().number, row = rowsOf(number)[state.finding];
    if (!row) return say("no finding is chosen");
    if (row.detection !== null) return change(number, { marks: withMark(marksOf(number), row.detection, verdict), ...(verdict === null && { done: false }) });
    if (verdict !== null) return say("this box was added by hand: u removes it");
    change(number, { marks: marksOf(number).filter((mark) => mark !== row.mark) });
  }

  const undecided = (number) => rowsOf(number).filter((row) => row.detection !== null && !row.mark);

  function rejectRest() {
    const { number } = active();
    change(number, { marks: [...marksOf(number), ...undecided(number).map(({ detection }) => ({ verdict: "rejected", detection, box_xyxy: null }))] });
  }

  /** An image is done once every finding that is shown has a verdict: what is left open would count as no lesion. */
  function toggleDone() {
    const { number } = active(), done = !study.verdicts?.[number].done, open = done && study.verdicts ? undecided(number).length : 0;
    if (open) say(`not done: ${open} finding${open > 1 ? "s have" : " has"} no verdict. a accepts, x rejects, X rejects all that are left.`);
    else change(number, done ? { done, shown_from: state.threshold } : { done })?.then(listExams);
    refresh();
  }

  function startDraft(verdict) {
    const panel = active(), row = rowsOf(panel.number)[state.finding], image = imageOf(panel);
    if (!study.verdicts) return change(panel.number);
    if (!panel.pixels) return;
    if (verdict === "redrawn" && (!row || row.detection === null)) return say("choose a finding of the model to redraw");
    const [x, y] = middle(panel), side = image.width / 12;
    state.draft = { number: panel.number, detection: verdict === "redrawn" ? row.detection : null, verdict, box: verdict === "redrawn" ? [...(row.mark?.box_xyxy ?? row.box)] : boxOf(image, [x - side, y - side], [x + side, y + side]) };
    state.tool = "box";
    say("Drag a box, or move it with arrows, resize with Shift+arrows; Enter keeps, Esc drops.");
    draw(panel);
  }

  function keepDraft() {
    const { number, detection, verdict, box } = state.draft;
    Object.assign(state, { draft: null, tool: null });
    if (box[2] - box[0] < 2 || box[3] - box[1] < 2) say("the box is too small; nothing was kept");
    else change(number, { marks: withMark(marksOf(number), detection, verdict, box) });
    refresh();
  }

  function moveDraft(dx, dy, resize) {
    const panel = active(), [mx, my] = stepOf(panel, resize && panel.view.mirror ? -dx : dx, dy), [x1, y1, x2, y2] = state.draft.box;
    state.draft.box = boxOf(imageOf(panel), resize ? [x1, y1] : [x1 + mx, y1 + my], [Math.max(x2 + mx, x1 + 2), Math.max(y2 + my, y1 + 2)]);
  }

  function moveRuler(dx, dy, first) {
    const panel = active(), end = first ? "from" : "to";
    if (state.ruler?.panel !== panel) state.ruler = { panel, from: middle(panel), to: middle(panel) };
    state.ruler[end] = stepOf(panel, dx, dy).map((by, axis) => state.ruler[end][axis] + by);
  }

  // -- what stands beside the images

  function refresh() {
    if (!state.panels.length) return;
    const panel = active(), image = imageOf(panel), rows = rowsOf(panel.number);
    const address = `#${state.cases ? `${state.cases.query}&` : ""}image=${encodeURIComponent(image.name)}${study.parts.length > 1 ? `&study=${encodeURIComponent(image.part.title)}` : ""}`;
    if (state.at !== address) history.replaceState(null, "", address);
    state.at = address;
    $("model").textContent = plain(image.part.model ? `model: ${image.part.model}` : "");
    state.finding = Math.min(state.finding, Math.max(rows.length - 1, 0));
    state.panels.forEach((each, index) => { each.element.classList.toggle("active", index === state.active); draw(each); });
    $("image-name").textContent = plain(image.name);
    const labels = Object.entries(image.scores ?? {}).map(([name, value]) => `${name} ${value.toFixed(3)}`);
    const facts = [image.patient && `patient ${image.patient}`, image.laterality, image.view, image.density && `density ${image.density}`,
      image.facts && `truth: ${image.facts}`, labels.length && `scores: ${labels.join(", ")}`,
      image.spacing ? `spacing ${image.spacing.mm.map((mm) => mm.toFixed(3)).join(" x ")} mm (${image.spacing.basis})` : "no pixel spacing"];
    $("image-facts").textContent = plain(facts.filter(Boolean).join(" \u00b7 "));
    $("warnings").replaceChildren(...image.warnings.map((text) => make("li", `\u26a0 ${text}`)));
    const words = (row) => (row.detection === null ? "added by hand" : [percent(row.score), image.part.categories.length > 1 ? row.category : "",
      row.kind && state.show.t ? { found: "on a lesion", false: "false", second: "second on a found lesion" }[row.kind] ?? row.kind : "", SIGNS[row.mark?.verdict]].filter(Boolean).join(" \u00b7 "));
    $("findings").replaceChildren(...(rows.length ? rows : [null]).map((row, position) => {
      if (!row) return make("li", image.scores ? "no finding from this threshold on" : "not predicted", "faint");
      const item = make("li"), button = make("button", words(row));
      button.type = "button";
      button.setAttribute("aria-current", position === state.finding);
      button.onclick = () => { state.finding = position; refresh(); };
      item.append(button);
      return item;
    }));
    $("verdicts").hidden = !study.verdicts;
    if (study.verdicts && commentTimer === null) $("comment").value = study.verdicts[panel.number].comment;
    $("done").checked = Boolean(study.verdicts?.[panel.number].done);
    $("threshold").value = state.threshold;
    $("threshold-value").textContent = percent(state.threshold);
    $("points").value = String(state.point);
    const presets = panel.details?.presets ?? [];
    const options = embedded ? [] : [...presets.map((name, n) => [String(n), name]), ...(presets.length ? [["none", "all values"]] : [])];
    $("presets").replaceChildren(...options.map(([value, name]) => Object.assign(make("option", name), { value })));
    $("presets").hidden = !options.length;
    $("presets").value = state.preset;
    for (const button of document.querySelectorAll("#bar [data-key]")) {
      if (button.dataset.key in state.show) button.setAttribute("aria-pressed", state.show[button.dataset.key]);
      if (button.dataset.key === "r") button.setAttribute("aria-pressed", state.tool === "ruler");
    }
  }

  /** An operating point judges images; of the label tumor it is the threshold of findings, too. */
  function choosePoint(number) {
    state.point = number;
    if (points()[number]?.label === "tumor") setThreshold(points()[number].threshold);
    else refresh();
  }

  function setThreshold(value) {
    const { number } = active(), kept = rowsOf(number)[state.finding];
    state.threshold = Math.min(Math.max(value, 0), 1);
    state.finding = Math.max(rowsOf(number).findIndex((row) => row.detection === kept?.detection && row.mark === kept?.mark), 0);
    listExams();
    refresh();
  }

  async function setPreset(value) {
    state.preset = value;
    await loadAll(newLoad());
    refresh();
  }

  async function exportCoco() {
    await saving;
    const answer = await ask(`${imageOf(active()).part.path}/export`);
    if (!answer.ok) return say((await answer.json()).error);
    const link = Object.assign(make("a"), { href: URL.createObjectURL(await answer.blob()), download: "corrected.json" });
    link.click();
    URL.revokeObjectURL(link.href);
    say("exported: corrected.json");
  }

  // -- keys

  function zoomTo(factor) {
    const panel = active();
    if (!panel.view) return;
    panel.view = zoomAt(panel.view, [panel.canvas.width / 2, panel.canvas.height / 2], factor);
    draw(panel);
  }

  function windowBy(widen, shift) {
    const panel = active();
    if (!panel.pixels) return;
    const [low, high] = panel.range, centre = (low + high) / 2 + (shift * panel.most) / 40, half = Math.max(((high - low) / 2) * widen, 1);
    panel.range = [centre - half, centre + half];
    shareRange(panel);
  }

  function nextExam(step) {
    const at = rowAt(), next = state.exams[at < 0 ? 0 : at + step];
    if (next) open(next.place, next.number);
  }

  function nextFinding(step) {
    const count = rowsOf(active().number).length;
    if (count) state.finding = (state.finding + step + count) % count;
    refresh();
  }

  const nudge = (by) => setThreshold(Math.round((state.threshold + by) * 1e6) / 1e6);
  const toggle = (name) => () => { state.show[name] = !state.show[name]; refresh(); };
  const ACTIONS = {
    j: () => nextExam(1), k: () => nextExam(-1), b: toggle("b"), c: toggle("c"), t: toggle("t"), h: () => { toggle("h")(); say(state.show.h ? "Heat: the highest score of the findings at each place, whatever the threshold." : ""); }, i: toggle("i"), g: toggle("g"),
    f: () => { state.alone = !state.alone; layout(); },
    Enter: () => (state.draft ? keepDraft() : press("f")),
    Tab: () => step(1), BackTab: () => step(-1),
    "+": () => zoomTo(1.25), "=": () => zoomTo(1.25), "-": () => zoomTo(0.8), 0: () => { if (active().pixels) { home(active()); draw(active()); } },
    1: () => { if (active().view) zoomTo(1 / active().view.scale); },
    w: () => windowBy(1.15, 0), W: () => windowBy(1 / 1.15, 0), l: () => windowBy(1, 1), L: () => windowBy(1, -1),
    p: () => { const list = $("presets"); if (list.options.length) setPreset(list.options[(list.selectedIndex + 1) % list.options.length].value); },
    "[": () => nudge(-0.02), "]": () => nudge(0.02),
    o: () => { const n = points().length; if (n) choosePoint((state.point + 1) % n); },
    r: () => { Object.assign(state, { tool: state.tool === "ruler" ? null : "ruler", ruler: null, draft: null }); say(state.tool ? "Ruler: drag over the image, or move its ends with arrows and Shift+arrows." : ""); refresh(); },
    ".": () => nextFinding(1), ",": () => nextFinding(-1),
    a: () => verdictOn("accepted"), x: () => verdictOn("rejected"), X: rejectRest, u: () => verdictOn(null),
    d: () => startDraft("redrawn"), n: () => startDraft("added"),
    m: () => $("comment").focus(), v: toggleDone,
    e: () => study.verdicts && exportCoco(), "/": () => $("search").focus(),
    "?": () => $("help").showModal(), O: () => $("files")?.click(), D: () => $("folder")?.click(),
    Escape: () => { Object.assign(state, { tool: null, draft: null, ruler: null }); if (state.alone) press("f"); say(""); refresh(); },
  };
  const step = (by) => {
    const count = state.panels.length;
    activate((state.active + by + count) % count);
    if (state.alone) layout();
    active().canvas.focus();
  };
  const press = (key) => { if (state.panels.length || ["?", "O", "D", "/"].includes(key)) ACTIONS[key]?.(); };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function keyDown(event) {
    const typing = ["TEXTAREA", "SELECT"].includes(event.target.tagName) || event.target.type === "search" || (event.target.type === "range" && event.key in ARROWS);
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (typing) {
      if (event.key === "Escape") { event.target.blur(); active()?.canvas.focus(); }
      return;
    }
    if (event.target.tagName !== "CANVAS" && event.target !== document.body && ["Tab", "Enter"].includes(event.key)) return; // the page's own buttons
    const arrow = ARROWS[event.key];
    if (arrow && active()?.view) {
      const panel = active();
      if (state.draft) moveDraft(...arrow, event.shiftKey);
      else if (state.tool === "ruler") moveRuler(...arrow, event.shiftKey);
      else panel.view = { ...panel.view, x: panel.view.x - arrow[0] * 40, y: panel.view.y - arrow[1] * 40 };
      draw(panel);
    } else if (event.key === "Tab") {
      const next = state.active + (event.shiftKey ? -1 : 1);
      if (event.target.tagName === "CANVAS" && (next < 0 || next >= state.panels.length)) return; // on to the page's other parts
      step(event.shiftKey ? -1 : 1);
    } else if (ACTIONS[event.key]) press(event.key);
    else return;
    event.preventDefault();
  }

  async function begin() {
    $("keys").replaceChildren(...KEYS.flatMap(([keys, what]) => [make("dt", keys), make("dd", what)]));
    for (const id of ["search", "filter", "density", "sort"]) $(id).oninput = listExams;
    $("threshold").oninput = () => setThreshold(Number($("threshold").value));
    $("all").onclick = () => { Object.assign(state, { cases: null, chosen: null }); listExams(); refresh(); };
    $("points").onchange = () => choosePoint(Number($("points").value));
    $("presets").onchange = () => setPreset($("presets").value);
    $("close-help").onclick = () => $("help").close();
    $("done").onchange = () => press("v");
    $("comment").oninput = () => { clearTimeout(commentTimer); commentTimer = setTimeout(keepComment, 400); };
    $("comment").onblur = keepComment;
    for (const button of document.querySelectorAll("[data-key]")) button.onclick = () => press(button.dataset.key);
    document.addEventListener("keydown", keyDown);
    for (const chooser of document.querySelectorAll("input[type=file]")) chooser.onchange = () => { upload([...chooser.files]); chooser.value = ""; };
    for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, drop);
    window.addEventListener("pagehide", () => { keepComment(); unsaved.forEach(save); });
    window.addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });
    window.addEventListener("resize", layout);
    window.addEventListener("hashchange", follow);
    if (embedded) append(embedded, "");
    else {
      const { studies, most_bytes, kept_in } = await fetched("api/studies").then((answer) => answer.json());
      [mostBytes, keptIn] = [most_bytes, kept_in];
      for (let number = 0; number < studies; number++) await appendFrom(`api/studies/${number}`);
    }
    listExams();
    if (!study.exams.length) return say(`What is dropped here stays on this computer: it is predicted and kept in ${keptIn}`);
    await follow();
  }
  begin().catch((error) => say(error.message));
}

if (typeof document !== "undefined") start();
else module.exports = { windowTable, autoWindow, wallSide, wantedSide, fit, toScreen, toImage, zoomAt, columnsFor, hangingOrder, judgeAt, lengthMm, boxOf, heatColour, withMark, plain };
