"use strict";
const byId = (id) => document.getElementById(id);
const address = new URL(location.href);
const token = address.searchParams.get("token");
const ownSeat = address.searchParams.has("seat") ? Number(address.searchParams.get("seat")) : null;
const COLOURS = ["#6cb6ff", "#ffb454"];
const WASD = { KeyW: [1, 0], KeyS: [-1, 0], KeyA: [0, -1], KeyD: [0, 1] };
const ARROWS = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const KEYS = {}; // key -> [seat, throttle, steering]
for (const [seat, keys] of [[0, WASD], [1, ARROWS]])
  for (const [key, [throttle, steering]] of Object.entries(keys)) KEYS[key] = [ownSeat ?? seat, throttle, steering];
const PAD = [["◀", 0, -1], ["▲", 1, 0], ["▼", -1, 0], ["▶", 0, 1]];
const LEGEND = ["W A S D", "arrow keys"];
const LATENCIES = 20, NOTICES = 4, RATE_MS = 3000;

let socket, about, scenes = {}, state = {}, scene, cars = [], lastFrame = null;
let mine = [false, false]; // seats that this page holds
let pressed = [new Map(), new Map()]; // key or pad -> [throttle, steering], by seat
let number = 0, waiting = [], latencies = [], drawn = [], truthShown = false;
window.shareverse = { frames: 0, truths: 0, get lastFrame() { return lastFrame; }, get state() { return state; } };

const say = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));

function notice(text, bad = false) {
  const item = document.createElement("li");
  item.textContent = text;
  item.className = bad ? "bad" : "";
  byId("notices").prepend(item);
  while (byId("notices").children.length > NOTICES) byId("notices").lastChild.remove();
}

function buildCars() {
  byId("cars").replaceChildren();
  const shownSeats = ownSeat === null ? [0, 1] : [ownSeat, 1 - ownSeat];
  cars = [];
  for (const seat of shownSeats) {
    const part = byId("car").content.cloneNode(true).firstElementChild;
    part.style.setProperty("--own", COLOURS[seat]);
    part.dataset.seat = seat;
    part.querySelector("h2").textContent = `Car ${seat}`;
    const pad = part.querySelector(".pad");
    const driveable = ownSeat === null || ownSeat === seat;
    if (driveable)
      for (const [sign, throttle, steering] of PAD) {
        const button = document.createElement("button");
        button.textContent = sign;
        const press = (event) => { event.preventDefault(); hold(seat, sign, [throttle, steering]); };
        const release = () => let_go(seat, sign);
        button.addEventListener("pointerdown", press);
        for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, release);
        pad.append(button);
      }
    else pad.remove();
    const button = part.querySelector(".seat");
    button.hidden = !driveable;
    button.addEventListener("click", () => {
      mine[seat] ? leave(seat) : take(seat);
      button.blur();
    });
    cars[seat] = part;
    byId("cars").append(part);
  }
}

function take(seat) {
  if (mine[seat]) return;
  mine[seat] = !state.seats?.[seat]; // where somebody sits there, the server says so
  say({ type: "take", seat });
  showState();
}

function leave(seat) {
  mine[seat] = false;
  pressed[seat].clear();
  say({ type: "leave", seat });
  showState();
}

function hold(seat, key, control) {
  if (pressed[seat].has(key)) return;
  take(seat);
  if (!mine[seat]) return;
  pressed[seat].set(key, control);
  drive(seat);
}

function let_go(seat, key) {
  if (pressed[seat].delete(key)) drive(seat);
}

function drive(seat) {
  let throttle = 0, steering = 0;
  for (const [t, s] of pressed[seat].values()) { throttle += t; steering += s; }
  number += 1;
  if (waiting.length < 50) waiting.push({ seat, number, at: performance.now() });
  say({ type: "drive", seat, throttle, steering, number });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, input")) return;
  const key = KEYS[event.code];
  if (key) {
    event.preventDefault();
    if (!event.repeat) hold(key[0], event.code, key.slice(1));
  } else if (!event.repeat) {
    if (event.code === "KeyR") restart();
    else if (event.code === "KeyP") byId("pause").click();
    else if (event.code === "KeyT") byId("truth").click();
  }
});
addEventListener("keyup", (event) => { const key = KEYS[event.code]; if (key) let_go(key[0], event.code); });
addEventListener("blur", () => { for (const seat of [0, 1]) for (const key of [...pressed[seat].keys()]) let_go(seat, key); });

const restart = () => say({ type: "scene", name: state.scene });
byId("restart").addEventListener("click", restart);
byId("pause").addEventListener("click", () => say({ type: "pause", on: !state.paused }));
byId("record").addEventListener("click", () => say({ type: "record", on: !state.recording }));
byId("truth").addEventListener("click", () => say({ type: "truth", on: !["on", "starting"].includes(state.truth) }));
byId("scene").addEventListener("change", (event) => { say({ type: "scene", name: event.target.value }); event.target.blur(); });

function hello(message) {
  about = message;
  scenes = Object.fromEntries(message.scenes.map((one) => [one.name, one]));
  byId("scene").replaceChildren(...message.scenes.map((one) => new Option(one.title, one.name)));
  const steps = message.steps === 1 ? "one sampling step" : `${message.steps} sampling steps`;
  byId("model").textContent =
    `Model ${message.model} on ${message.device}: ${steps} for ${message.chunk} frames, views of ${message.view.join("×")}.` +
    (message.student ? "" : " There is no few-step student: the ordinary sampler serves, slower.");
  const links = [0, 1].map((seat) => {
    const link = document.createElement("a");
    link.href = `/?token=${token}&seat=${seat}`;
    link.textContent = `car ${seat}`;
    link.target = "_blank";
    link.rel = "noopener";
    return link;
  });
  const keys = ownSeat === null
    ? "Keys: W A S D for car 0, arrows for car 1. R restarts, P pauses, T shows the truth. "
    : "Keys: W A S D or the arrows. R restarts, P pauses, T shows the truth. ";
  byId("links").replaceChildren(keys, "For two browsers, one link each: ", links[0], " and ", links[1], ".");
  buildCars();
}

function showState() {
  const press = (id, on) => byId(id).setAttribute("aria-pressed", String(Boolean(on)));
  press("pause", state.paused);
  press("record", state.recording);
  press("truth", ["on", "starting"].includes(state.truth));
  byId("pause").textContent = state.paused ? "Go on" : "Pause";
  byId("truth").textContent = state.truth === "starting" ? "Starting…" : "Truth";
  if (state.scene && state.scene !== scene?.name) {
    scene = scenes[state.scene];
    byId("scene").value = scene.name;
    byId("about").textContent = `${scene.about} ${scene.town}, ${scene.weather.replace("_", " ")}.`;
  }
  for (const seat of [0, 1]) {
    const taken = state.seats?.[seat];
    const keys = ownSeat === null ? LEGEND[seat] : "W A S D or arrows";
    cars[seat].querySelector(".who").textContent = mine[seat]
      ? `you drive: ${keys}` : taken ? "somebody drives" : "follows its plan";
    const button = cars[seat].querySelector(".seat");
    button.textContent = mine[seat] ? "Let go" : "Take the wheel";
    button.disabled = !mine[seat] && Boolean(taken);
  }
  const on = state.truth === "on" && truthShown;
  for (const car of cars) {
    car.querySelector(".worlds").classList.toggle("both", on);
    car.querySelector(".true").hidden = car.querySelector(".figures").hidden = !on;
  }
  if (state.truth !== "on") truthShown = false;
}

function drawViews(figure, picture, seat, agents) {
  const width = picture.width / 2, height = picture.height / agents / 2;
  figure.querySelectorAll("canvas").forEach((canvas, view) => {
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const x = (view % 2) * width, y = seat * 2 * height + Math.floor(view / 2) * height;
    canvas.getContext("2d").drawImage(picture, x, y, width, height, 0, 0, width, height);
  });
}

function showFrame(header, picture) {
  lastFrame = header;
  window.shareverse.frames += 1;
  const now = performance.now();
  for (const seat of [0, 1]) {
    drawViews(cars[seat].querySelector(".generated"), picture, seat, 2);
    cars[seat].querySelector(".speed b").textContent = Math.round(header.cars[seat].speed_mps * 3.6);
  }
  waiting = waiting.filter((one) => {
    const answer = header.cars[one.seat].answers;
    if (answer < one.number) return now - one.at < 20000;
    if (answer === one.number) latencies.push(now - one.at);
    return false;
  });
  latencies = latencies.slice(-LATENCIES);
  drawn.push(now);
  while (drawn[0] < now - RATE_MS) drawn.shift();
  const span = (drawn[drawn.length - 1] - drawn[0]) / 1000;
  byId("rate").textContent = span > 0.5 ? `${((drawn.length - 1) / span).toFixed(1)} frames/s` : "–";
  byId("model-rate").textContent = header.model_fps ? `${header.model_fps.toFixed(1)} frames/s` : "–";
  if (latencies.length) {
    const middle = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
    byId("latency").textContent = `${(middle / 1000).toFixed(2)} s`;
  }
  drawMap(header);
}

function showTruth(header, picture) {
  if (state.truth !== "on") return;
  window.shareverse.truths += 1;
  if (!truthShown) { truthShown = true; showState(); }
  for (const seat of [0, 1]) {
    drawViews(cars[seat].querySelector(".true"), picture, seat, 2);
    const { psnr_db, other_visible, other_bearing_deg } = header.cars[seat];
    const other = !other_visible ? "not in sight" : other_bearing_deg === null ? "not found" : `${other_bearing_deg.toFixed(1)}° off`;
    const figures = cars[seat].querySelector(".figures");
    figures.replaceChildren("PSNR ", strong(`${psnr_db.toFixed(1)} dB`), " · the other car ", strong(other));
  }
}

function strong(text) {
  const part = document.createElement("b");
  part.textContent = text;
  return part;
}

function drawMap(header) {
  const canvas = byId("map").querySelector("canvas"), ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
  const pen = canvas.getContext("2d"), points = scene.trajectories.flat().concat(header.cars.map((car) => [car.x, car.y]));
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]), margin = 14;
  const [left, right, top, bottom] = [Math.min(...xs) - margin, Math.max(...xs) + margin, Math.min(...ys) - margin, Math.max(...ys) + margin];
  const scale = Math.min(width / (right - left), height / (bottom - top));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.translate(width / 2, height / 2);
  pen.scale(scale, scale);
  pen.translate(-(left + right) / 2, -(top + bottom) / 2);
  const line = (path, colour, thick) => {
    pen.beginPath();
    path.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.strokeStyle = colour; pen.lineWidth = thick; pen.stroke();
  };
  pen.lineCap = pen.lineJoin = "round";
  for (const road of scene.roads) line(road.points, "#2b323b", road.width_m + 0.8);
  for (const road of scene.roads) line(road.points, "#343d48", 0.15);
  scene.trajectories.forEach((path, seat) => line(path, COLOURS[seat] + "66", 0.7));
  const box = (x, y, yaw, long, wide, colour) => {
    pen.save(); pen.translate(x, y); pen.rotate((yaw * Math.PI) / 180);
    pen.fillStyle = colour; pen.fillRect(-long / 2, -wide / 2, long, wide); pen.restore();
  };
  for (const [x, y, , , yaw] of scene.others) box(x, y, yaw, 5.5, 2.2, "#5d6875");
  header.cars.forEach((car, seat) => {
    const least = Math.max(1, 9 / (4.2 * scale)); // never smaller than some pixels
    box(car.x, car.y, car.yaw, 4.2 * least, 2 * least, COLOURS[seat]);
    const ahead = (car.yaw * Math.PI) / 180, reach = 4.2 * least;
    line([[car.x, car.y], [car.x + reach * Math.cos(ahead), car.y + reach * Math.sin(ahead)]], COLOURS[seat], 0.5 * least);
  });
}

async function receive(data) {
  if (typeof data === "string") {
    const message = JSON.parse(data);
    if (message.type === "hello") hello(message);
    else if (message.type === "state") { state = message; showState(); }
    else if (message.type === "notice") notice(message.message);
    else if (message.type === "refused") {
      notice(message.message, true);
      for (const seat of [0, 1]) if (message.message.startsWith(`Car ${seat} `)) { mine[seat] = false; pressed[seat].clear(); }
      showState();
    }
    return;
  }
  const bytes = new Uint8Array(data), end = bytes.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const picture = await createImageBitmap(new Blob([bytes.subarray(end + 1)], { type: "image/jpeg" }));
  if (header.type === "frame") showFrame(header, picture);
  else showTruth(header, picture);
  picture.close();
  say({ type: "seen" });
}

function open() {
  byId("gone").hidden = true;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/socket?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  let queue = Promise.resolve(); // one after the other
  socket.onmessage = (event) => { queue = queue.then(() => receive(event.data)); };
  socket.onclose = () => { mine = [false, false]; byId("gone").hidden = false; };
}
byId("gone").querySelector("button").addEventListener("click", open);
open();
