// Boxes are [y0, x0, y1, x1] in [0, 1]. The template draws `props.value`; only the box that is being dragged is drawn
// here.
const presets = {
  none: [],
  halves: [[0, 0, 1, 0.5], [0, 0.5, 1, 1]],
  thirds: [[0, 0, 1, 0.333], [0, 0.333, 1, 0.667], [0, 0.667, 1, 1]],
  quarters: [[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]],
};
const minSide = 0.05; // ignores clicks and slips of the hand
const keyStep = 0.05;
let start = null;

function pointAt(event) {
  const edge = element.querySelector(".pad").getBoundingClientRect();
  const inside = (share) => Math.round(Math.min(1, Math.max(0, share)) * 1000) / 1000;
  return [inside((event.clientY - edge.top) / edge.height), inside((event.clientX - edge.left) / edge.width)];
}

function boxBetween(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

function drawRubber(box) {
  const rubber = element.querySelector(".rubber");
  const sides = { x: box[1], y: box[0], width: box[3] - box[1], height: box[2] - box[0] };
  for (const [name, share] of Object.entries(sides)) rubber.setAttribute(name, share * 100);
}

function setActive(box) {
  const { boxes, active } = props.value;
  const all = Array.from({ length: Math.max(boxes.length, active + 1) }, (_, n) => boxes[n] || null);
  all[active] = box;
  props.value = { ...props.value, boxes: all };
}

element.addEventListener("keydown", (event) => {
  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const way = ways[event.key];
  if (!event.target.closest(".pad") || !(way || event.key === "Delete" || event.key === "Backspace")) return;
  event.preventDefault();
  if (!way) return setActive(null);
  const { boxes, active } = props.value;
  const [y0, x0, y1, x1] = boxes[active] || [0.25, 0.25, 0.75, 0.75];
  const corner = event.shiftKey;
  const [down, right] = way.map((step) => step * keyStep);
  const moved = corner ? [y0, x0, y1 + down, x1 + right] : [y0 + down, x0 + right, y1 + down, x1 + right];
  const rounded = moved.map((share) => Math.round(share * 1000) / 1000);
  const fits = rounded.every((share) => share >= 0 && share <= 1);
  if (!fits || rounded[2] - rounded[0] < minSide || rounded[3] - rounded[1] < minSide) return;
  setActive(rounded);
  // The template was filled anew: the new pad gets the focus of the old one.
  requestAnimationFrame(() => element.querySelector(".pad").focus());
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.person) props.value = { ...props.value, active: Number(button.dataset.person) };
  if (button.dataset.preset) props.value = { ...props.value, boxes: presets[button.dataset.preset] };
});

element.addEventListener("pointerdown", (event) => {
  const pad = event.target.closest(".pad");
  if (!pad) return;
  event.preventDefault();
  pad.setPointerCapture(event.pointerId);
  start = pointAt(event);
});

element.addEventListener("pointermove", (event) => {
  if (start) drawRubber(boxBetween(start, pointAt(event)));
});

element.addEventListener("pointerup", (event) => {
  if (!start) return;
  const box = boxBetween(start, pointAt(event));
  start = null;
  drawRubber([0, 0, 0, 0]);
  if (box[2] - box[0] < minSide || box[3] - box[1] < minSide) return;
  setActive(box);
});

element.addEventListener("pointercancel", () => {
  start = null;
  drawRubber([0, 0, 0, 0]);
});
