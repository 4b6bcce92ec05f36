// Strokes are vectors in shares of width and height: {points: [[x, y, pressure]], width, erase, colour}.
const round = value => Math.round(value * 1e4) / 1e4;
export const point = (x, y, pressure = 0.5) => [round(x), round(y), round(pressure)];
const thickness = (stroke, at, side) => stroke.width * side * (0.4 + 1.2 * (at[2] ?? 0.5));

// A joint is smooth where the hand moved on: short segments and a small turn. Corners of shapes stay sharp.
function smooth(before, a, b) {
  if (!before || !b) return false;
  const [ux, uy, vx, vy] = [a[0] - before[0], a[1] - before[1], b[0] - a[0], b[1] - a[1]];
  const [u, v] = [Math.hypot(ux, uy), Math.hypot(vx, vy)];
  return u < 0.08 && v < 0.08 && ux * vx + uy * vy > 0.64 * u * v;
}

// Draws a stroke from its point `first` on.
export function drawStroke(context, stroke, first = 1, colour = stroke.colour ?? '#15171a') {
  const { width: w, height: h } = context.canvas, side = Math.min(w, h), all = stroke.points;
  context.globalCompositeOperation = stroke.erase ? 'destination-out' : 'source-over';
  context.strokeStyle = context.fillStyle = colour;
  context.lineCap = context.lineJoin = 'round';
  const xy = at => [at[0] * w, at[1] * h];
  const middle = (a, b) => [(a[0] + b[0]) / 2 * w, (a[1] + b[1]) / 2 * h];
  if (all.length === 1) {
    context.beginPath();
    context.arc(...xy(all[0]), thickness(stroke, all[0], side) / 2, 0, 7);
    context.fill();
  }
  for (let i = Math.max(1, first); i < all.length; i++) {
    const [before, a, b, after] = [all[i - 2], all[i - 1], all[i], all[i + 1]], round = smooth(before, a, b);
    context.lineWidth = thickness(stroke, b, side);
    context.beginPath();
    context.moveTo(...(round ? middle(before, a) : xy(a)));
    if (round) context.quadraticCurveTo(...xy(a), ...middle(a, b));
    if (!smooth(a, b, after)) context.lineTo(...xy(b));
    else context.lineTo(...middle(a, b));
    context.stroke();
  }
  context.globalCompositeOperation = 'source-over';
}

export function drawAll(context, strokes, photo = null, colour) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  if (photo) context.drawImage(photo, 0, 0, width, height);
  for (const stroke of strokes) drawStroke(context, stroke, 1, colour);
}

// The points of a shape in a box given by two corners.
export function shape(kind, [x0, y0], [x1, y1]) {
  const [cx, cy, rx, ry] = [(x0 + x1) / 2, (y0 + y1) / 2, Math.abs(x1 - x0) / 2, Math.abs(y1 - y0) / 2];
  const around = (count, radius, start) => Array.from({ length: count + 1 }, (_, i) => {
    const angle = start + (i % count) / count * 2 * Math.PI;
    return point(cx + rx * radius(i) * Math.cos(angle), cy + ry * radius(i) * Math.sin(angle));
  });
  if (kind === 'ellipse') return around(48, () => 1, 0);
  if (kind === 'star') return around(10, i => (i % 2 ? 0.45 : 1), -Math.PI / 2);
  if (kind === 'triangle') return [[cx, cy - ry], [cx + rx, cy + ry], [cx - rx, cy + ry], [cx, cy - ry]].map(p => point(...p));
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]].map(p => point(...p));
}

export function canvasOf(width, height, strokes, photo, paper, colour) {
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  drawAll(context, strokes, photo, colour);
  context.globalCompositeOperation = 'destination-over';
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  return context.canvas;
}
export const png = canvas => canvas.convertToBlob({ type: 'image/png' });
