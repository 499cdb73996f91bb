
showCloud(document.querySelector("canvas.cloud"), document.querySelector(".cloud-controls"));

// Points and cameras in the axes of the first camera: x right, y down, z forward.
function showCloud(canvas, controls) {
  const gl = canvas.getContext("webgl", { antialias: true });
  if (!gl) return canvas.replaceWith("The points in space need WebGL, which this browser does not offer.");
  controls.hidden = false;

  const program = linked(gl);
  const positions = buffer(gl, new Float32Array(bytes(cloud.positions).buffer));
  const colors = {};
  for (const [name, data] of Object.entries(cloud.colors)) colors[name] = buffer(gl, bytes(data));
  const corners = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1];
  const edges = cloud.frustums.map((f) => corners.flatMap((i) => f.slice(3 * i, 3 * i + 3)));
  const path = cloud.frustums.map((f) => f.slice(0, 3));
  const lines = buffer(gl, new Float32Array([...edges.flat(), ...path.flat()]));
  const home = path.reduce((sum, p) => sum.map((s, i) => s + p[i] / path.length), [0, 0, 0]);
  const at = Object.fromEntries(["position", "color"].map((n) => [n, gl.getAttribLocation(program, n)]));
  const uniform = (name) => gl.getUniformLocation(program, name);
  const place = { projection: uniform("projection"), home: uniform("home"), size: uniform("size") };

  const start = () => ({ target: [...cloud.middle], distance: 1.6 * cloud.distance, yaw: 0.45, pitch: 0.35 });
  let view = start();
  let frame = 0;
  let waiting = false;
  const color = () => controls.querySelector("input[name=color]:checked").value;
  const through = controls.querySelector(".through");

  const draw = () => {
    waiting = false;
    const scale = Math.min(devicePixelRatio, 2);
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    const camera = through.checked ? recorded(frame, canvas) : orbiting(view, canvas);
    const style = getComputedStyle(canvas);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...rgb(style.backgroundColor), 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL); // the marked camera is drawn over its own lines
    gl.useProgram(program);
    gl.uniformMatrix4fv(place.projection, false, projection(camera, cloud.distance));
    gl.uniform3fv(place.home, home);
    // A point is as large as the pixel it comes from, and larger where others were left out.
    const pixel = Math.sqrt(cloud.thinning) / cloud.intrinsics[0][0][0];
    gl.uniform1f(place.size, 1.2 * pixel * camera.scaleY * canvas.height / 2);
    gl.enableVertexAttribArray(at.position);
    gl.bindBuffer(gl.ARRAY_BUFFER, positions);
    gl.vertexAttribPointer(at.position, 3, gl.FLOAT, false, 0, 0);
    gl.enableVertexAttribArray(at.color);
    gl.bindBuffer(gl.ARRAY_BUFFER, colors[color()]);
    gl.vertexAttribPointer(at.color, 3, gl.UNSIGNED_BYTE, true, 0, 0);
    gl.drawArrays(gl.POINTS, 0, cloud.points);
    if (through.checked) return;
    gl.disableVertexAttribArray(at.color);
    gl.bindBuffer(gl.ARRAY_BUFFER, lines);
    gl.vertexAttribPointer(at.position, 3, gl.FLOAT, false, 0, 0);
    gl.vertexAttrib3fv(at.color, hex(style.getPropertyValue("--muted")));
    gl.drawArrays(gl.LINES, 0, 16 * edges.length);
    gl.vertexAttrib3fv(at.color, hex(style.getPropertyValue("--worse")));
    gl.drawArrays(gl.LINE_STRIP, 16 * edges.length, path.length);
    gl.drawArrays(gl.LINES, 16 * frame, 16);
  };
  const redraw = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };

  const turn = (right, down) => {
    view.yaw += right;
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + down));
  };
  const move = (right, down) => {
    const { axes } = orbiting(view, canvas);
    const step = view.distance / canvas.clientHeight;
    view.target = view.target.map((t, i) => t - step * (right * axes[0][i] + down * axes[1][i]));
  };
  const zoom = (factor) => {
    view.distance = Math.max(0.02 * cloud.distance, Math.min(50 * cloud.distance, view.distance * factor));
  };
  steer(canvas, { turn, move, zoom, redraw, free: () => { through.checked = false; } });
  controls.querySelector(".reset").addEventListener("click", () => {
    view = start();
    through.checked = false;
    redraw();
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "0") controls.querySelector(".reset").click();
  });
  controls.addEventListener("change", redraw);
  document.addEventListener("frame", (event) => {
    frame = event.detail;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(redraw).observe(canvas);
}

function linked(gl) {
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    attribute vec3 position, color;
    uniform mat4 projection;
    uniform vec3 home;
    uniform float size;
    varying vec3 shade;
    void main() {
      gl_Position = projection * vec4(position, 1.0);
      gl_PointSize = clamp(size * distance(position, home) / gl_Position.w, 1.0, 24.0);
      shade = color;
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    precision mediump float;
    varying vec3 shade;
    void main() { gl_FragColor = vec4(shade, 1.0); }`));
  gl.linkProgram(program);
  return program;
}

function buffer(gl, data) {
  const made = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, made);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  return made;
}

// A camera: axes (right, down, forward) as rows, centre, and where directions fall in the square from -1 to 1.
function orbiting(view, canvas) {
  const [sy, cy, sp, cp] = [Math.sin(view.yaw), Math.cos(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch)];
  const axes = [[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [sy * cp, sp, cy * cp]];
  const centre = view.target.map((t, i) => t - view.distance * axes[2][i]);
  const scaleY = 1.8;
  return { axes, centre, scaleX: scaleY * canvas.height / canvas.width, scaleY, shiftX: 0, shiftY: 0 };
}

// The camera that took a frame, its picture as large as the canvas can show whole.
function recorded(frame, canvas) {
  const [height, width] = cloud.size;
  const [[fx, , cx], [, fy, cy]] = cloud.intrinsics[frame];
  const pose = cloud.extrinsics[frame];
  const axes = pose.map((row) => row.slice(0, 3));
  const centre = [0, 1, 2].map((i) => -axes.reduce((sum, axis, j) => sum + axis[i] * pose[j][3], 0));
  const fit = Math.min(canvas.width / width, canvas.height / height);
  const [shareX, shareY] = [fit * width / canvas.width, fit * height / canvas.height];
  return {
    axes, centre,
    scaleX: shareX * 2 * fx / width, shiftX: shareX * (2 * (cx + 0.5) / width - 1),
    scaleY: shareY * 2 * fy / height, shiftY: shareY * (2 * (cy + 0.5) / height - 1),
  };
}

// World points to clip space, column by column.
function projection({ axes, centre, scaleX, scaleY, shiftX, shiftY }, distance) {
  const [near, far] = [0.005 * distance, 500 * distance];
  const [right, down, forward] = axes.map((axis) => [...axis, -axis.reduce((sum, a, i) => sum + a * centre[i], 0)]);
  const columns = [0, 1, 2, 3].map((i) => [
    scaleX * right[i] + shiftX * forward[i],
    -scaleY * down[i] - shiftY * forward[i],
    ((far + near) * forward[i] - (i === 3 ? 2 * far * near : 0)) / (far - near),
    forward[i],
  ]);
  return new Float32Array(columns.flat());
}

// Mouse, touch and keys.
function steer(canvas, { turn, move, zoom, redraw, free }) {
  const pointers = new Map();
  const spread = () => {
    const [a, b] = pointers.values();
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = pointers.get(event.pointerId);
    const [right, down] = [event.clientX - before.x, event.clientY - before.y];
    const apart = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    free();
    if (pointers.size === 2) {
      zoom(apart / Math.max(spread(), 1));
      move(right / 2, down / 2);
    } else if (event.shiftKey || event.buttons === 2) move(right, down);
    else turn(0.008 * right, 0.008 * down);
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    free();
    zoom(Math.exp(0.0015 * event.deltaY));
    redraw();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const zooms = { "+": 0.9, "=": 0.9, "-": 1.1 };
    const [right, down] = arrows[event.key] ?? [0, 0];
    if (!(event.key in arrows) && !(event.key in zooms)) return;
    event.preventDefault();
    free();
    if (event.key in zooms) zoom(zooms[event.key]);
    else if (event.shiftKey) move(30 * right, 30 * down);
    else turn(0.1 * right, 0.1 * down);
    redraw();
  });
}

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function rgb(text) {
  return text.match(/[\d.]+/g).slice(0, 3).map((x) => Number(x) / 255);
}

function hex(text) {
  const value = parseInt(text.trim().slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255].map((x) => x / 255);
}
