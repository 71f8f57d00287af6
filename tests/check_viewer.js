// The reading page's functions of numbers, by hand: node check_viewer.js viewer.js
"use strict";
const { deepStrictEqual: same, ok } = require("node:assert");
const view = require(process.argv[2]);

// window: 0 to 10 of 10 is black to white; beyond it is clipped; inverted
same([...view.windowTable(0, 10, 10, false)].slice(0, 3), [0, 26, 51]);
same([...view.windowTable(2, 4, 5, false)], [0, 0, 0, 128, 255, 255]);
same([...view.windowTable(2, 4, 5, true)], [255, 255, 255, 128, 0, 0]);
same([...view.windowTable(3, 3, 4, false)], [0, 0, 0, 0, 255]);
same(view.autoWindow(new Uint8Array(9), 255), [0, 255]);
const sixteen = new Uint16Array(50000).fill(1000);
sixteen[0] = 60000; // one of 10000 that are looked at: less than a thousandth
same(view.autoWindow(sixteen, 65535), [0, 1000]);

// chest wall: where tissue touches the border
const film = new Uint8Array(200).fill(0);
for (let y = 0; y < 10; y++) film[y * 20 + 19] = 200;
same(view.wallSide(film, 20, 10), "right");
same([view.wantedSide("R"), view.wantedSide("L"), view.wantedSide(null)], ["right", "left", null]);

// fit: the image touches the side of its chest wall
const image = { width: 100, height: 200 }, panel = { width: 200, height: 200 };
same(view.fit(panel, image, "right", false), { scale: 1, x: 100, y: 0, mirror: false });
same(view.fit(panel, image, "left", false).x, 0);
same(view.fit(panel, image, null, false).x, 50);

// there and back, also mirrored; zooming keeps the pixel under the mouse
for (const mirror of [false, true]) {
  const shown = { scale: 2, x: 10, y: -5, mirror };
  same(view.toScreen(shown, image, [0, 0]), mirror ? [210, -5] : [10, -5]);
  same(view.toImage(shown, image, view.toScreen(shown, image, [30, 40])), [30, 40]);
  const near = view.zoomAt(shown, [60, 70], 1.5);
  same(near.scale, 3);
  const [before, after] = [shown, near].map((one) => view.toImage(one, image, [60, 70]));
  ok(Math.hypot(before[0] - after[0], before[1] - after[1]) < 1e-9);
}

// four views of upright films: two by two on a square, four in a row on a wide screen
same([view.columnsFor(4, 1000, 1000, 1), view.columnsFor(4, 4000, 1000, 0.75), view.columnsFor(1, 9, 9, 1)], [2, 4, 1]);
const views = [["L", "MLO"], ["L", "CC"], ["R", "MLO"], ["R", "CC"], [null, null]];
same(view.hangingOrder(views.map(([laterality, name]) => ({ laterality, view: name }))), [3, 1, 2, 0, 4]);

// found, missed and false at a threshold; nothing where that cannot be judged
const judged = {
  judged: true, truth: [{ ignore: false }, { ignore: false }, { ignore: true }],
  findings: [{ score: 0.9, kind: "found", lesion: 0 }, { score: 0.5, kind: "false", lesion: null }, { score: 0.2, kind: "found", lesion: 1 }],
};
same(view.judgeAt(judged, 0.5), { found: [0], missed: [1], wrong: 1 });
same(view.judgeAt(judged, 0.1), { found: [0, 1], missed: [], wrong: 1 });
same(view.judgeAt({ ...judged, judged: false }, 0.5), null);

// 30 columns of 0.2 mm and 80 rows of 0.1 mm: 6 and 8 mm
same(view.lengthMm([0.1, 0.2], [10, 10], [40, 90]), 10);
same(view.boxOf(image, [50, 60], [-5, 500]), [0, 60, 50, 200]);

const marks = [{ verdict: "accepted", detection: 1, box_xyxy: null }];
same(view.withMark(marks, 1, "rejected"), [{ verdict: "rejected", detection: 1, box_xyxy: null }]);
same(view.withMark(marks, 1, null), []);
same(view.withMark(marks, null, "added", [1, 2, 3, 4]).length, 2);

// a name cannot turn the numbers after it
same(view.plain("a\u202eb <b> \u05d0"), "a\ufffdb <b> \u05d0");
