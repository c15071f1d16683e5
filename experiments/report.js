"use strict";

/* Moving pictures: uint16 x, y of [T, M, V] in a square, 65535 where a joint is absent. */
const pictures = [...document.querySelectorAll("canvas[data-points]")].map((canvas) => {
  const bytes = Uint8Array.from(atob(canvas.dataset.points), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const points = Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
  const pairs = (canvas.dataset.limbs || "").split(" ").filter(Boolean);
  const [frames, persons, joints] = canvas.dataset.shape.split(" ").map(Number);
  const limbs = pairs.map((pair) => pair.split("-").map(Number));
  const picture = { canvas, points, limbs, frames, persons, joints };
  Object.assign(picture, { seconds: Number(canvas.dataset.seconds), frame: 0, last: 0 });
  Object.assign(picture, { plays: true, seen: true });
  canvas.addEventListener("click", () => { picture.plays = !picture.plays; });
  return picture;
});

function draw(picture) {
  const { canvas, points, limbs, persons, joints, frames, frame } = picture;
  const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
  if (!side) return;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const style = getComputedStyle(canvas);
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, side, side);
  pen.lineCap = "round";
  for (let m = 0; m < persons; m++) {
    const at = (v) => {
      const i = 2 * ((frame * persons + m) * joints + v);
      return points[i] === 65535 ? null : [points[i] / 65534 * side, points[i + 1] / 65534 * side];
    };
    pen.strokeStyle = style.getPropertyValue("--c" + (m % 8));
    pen.lineWidth = Math.max(1.5, side / 130);
    for (const [a, b] of limbs) {
      const from = at(a), to = at(b);
      if (!from || !to) continue;
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(...to);
      pen.stroke();
    }
    pen.fillStyle = style.color;
    for (let v = 0; v < joints; v++) {
      const place = at(v);
      if (!place) continue;
      pen.beginPath();
      pen.arc(place[0], place[1], Math.max(1.2, side / 150), 0, 7);
      pen.fill();
    }
  }
  pen.fillStyle = style.getPropertyValue("--c7");
  pen.fillRect(0, side - side / 80, side * (frame + 1) / frames, side / 80);
}

const pauses = [...document.querySelectorAll("button.pause")];
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const say = () => pauses.forEach((button) => { button.textContent = playing ? "stop all" : "play all"; });
pauses.forEach((button) => button.addEventListener("click", () => {
  playing = !playing;
  pictures.forEach((picture) => { picture.plays = true; });
  say();
}));
say();

function tick(now) {
  for (const picture of pictures) {
    if (!picture.seen || now - picture.last < 1000 * picture.seconds) continue;
    const moves = playing && picture.plays && picture.last > 0;
    picture.last = now;
    if (moves) picture.frame = (picture.frame + 1) % picture.frames;
    draw(picture);
  }
  requestAnimationFrame(tick);
}
if (pictures.length) {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      pictures.find((picture) => picture.canvas === entry.target).seen = entry.isIntersecting;
    }
  });
  pictures.forEach((picture) => { draw(picture); watcher.observe(picture.canvas); });
  requestAnimationFrame(tick);
}

/* Tables are sorted by a click on a column's title: numbers from high to low, texts from a to z. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const rows = [...body.rows], numbers = rows.every((row) => !isNaN(key(row)));
    const down = head.ariaSort ? head.ariaSort === "ascending" : numbers;
    const order = (a, b) => numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
    rows.sort((a, b) => down ? order(b, a) : order(a, b));
    heads.forEach((other) => { other.ariaSort = null; });
    head.ariaSort = down ? "descending" : "ascending";
    body.append(...rows);
  }));
}

/* The matrix: its zoom, and what the cell below the pointer says. */
for (const matrix of document.querySelectorAll(".matrix")) {
  const table = matrix.querySelector("table"), status = matrix.querySelector(".status");
  const zoom = matrix.querySelector("input");
  const resize = () => table.style.setProperty("--cell", zoom.value + "px");
  zoom.addEventListener("input", resize);
  resize();
  let lit = [];
  const point = (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    const head = table.tHead.rows[0].cells[cell.cellIndex], side = cell.parentNode.cells[0];
    lit.forEach((one) => one.classList.remove("lit", "on"));
    lit = [head, side, cell];
    [head, side].forEach((one) => one.classList.add("lit"));
    cell.classList.add("on");
    status.textContent = cell.title || side.title + " was never taken for " + head.title;
  };
  table.addEventListener("pointerover", point);
  table.addEventListener("click", point);
}

/* A link to a run that is folded opens it. */
window.addEventListener("hashchange", () => {
  const there = document.getElementById(location.hash.slice(1));
  if (there instanceof HTMLDetailsElement) there.open = true;
});
