"use strict";
// The page's interactive views: an RDM, the map of all RDMs, and curves. Everything they show is in #report-data.
(function () {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const byId = (id) => document.getElementById(id);
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down"];
  const GLYPHS = ["●", "■", "◆", "▲", "✚", "★", "⬢", "▼"];
  const MISSING = 65535;
  const FONT = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1c2530" };
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const CONFIG = { displayModeBar: false, responsive: true, typesetMath: false };  // a name with dollar signs is a name
  // Seen where a pair has no value: the plot's ground is an image of stripes.
  const STRIPES = "data:image/svg+xml;base64," + btoa(
    '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400"><defs><pattern id="p" width="6" height="6" ' +
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>' +
    '<rect width="2.4" height="6" fill="#c3cad2"/></pattern></defs><rect width="400" height="400" fill="url(#p)"/></svg>');

  // RDMs

  function unpack(rdm) {
    if (!rdm.values) {
      const text = atob(rdm.codes);
      rdm.values = new Float64Array(text.length / 2);
      for (let k = 0; k < rdm.values.length; k++) {
        const code = text.charCodeAt(2 * k) | (text.charCodeAt(2 * k + 1) << 8);
        rdm.values[k] = code === MISSING ? NaN : rdm.low + (code / 65534) * (rdm.high - rdm.low);
      }
    }
    return rdm.values;
  }

  function valueOf(rdm, i, j, n) {
    if (i === j) return 0;
    const low = Math.min(i, j), high = Math.max(i, j);
    return unpack(rdm)[low * (2 * n - low - 1) / 2 + high - low - 1];
  }

  function matrix(rdm, n) {
    const rows = Array.from({ length: n }, () => new Array(n).fill(0));
    const values = unpack(rdm);
    let k = 0;
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) {
        const value = values[k++];
        rows[i][j] = rows[j][i] = Number.isNaN(value) ? null : value;
      }
    }
    return rows;
  }

  const measureOf = (rdm) => view().methods.includes(view().networks[rdm.network]) ? view().measure : "dissimilarity";
  // In plotly's labels a few tags have a meaning.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const readable = (value) => Number.isNaN(value) ? "not measured" : String(Number(value.toPrecision(4)));

  function epochText(epoch) {
    if (epoch === null) return "";
    return epoch < 0 ? "before training" : `after epoch ${epoch + 1}`;
  }

  // What is chosen

  const chosen = { view: 0, network: 0, layer: 0, seed: null, epoch: 0, scale: "own", pair: null, zoom: false };
  const view = () => data.views[chosen.view];

  // Of a network in training the RDM of the last logged epoch up to the slider's, else its first one.
  function rdmAt(network, layer, seed, epoch) {
    let best = -1;
    view().rdms.forEach((rdm, k) => {
      if (rdm.network !== network || rdm.layer !== layer || (rdm.seed !== null && rdm.seed !== seed)) return;
      if (best < 0) { best = k; return; }
      const there = view().rdms[best].epoch;
      if (rdm.epoch !== null && (rdm.epoch <= epoch ? there > epoch || rdm.epoch > there : there > epoch && rdm.epoch < there)) best = k;
    });
    return best;
  }

  const unique = (values) => [...new Set(values)];
  const layersOf = (network) => unique(view().rdms.filter((r) => r.network === network).map((r) => r.layer));
  const seedsOf = () => unique(view().rdms.map((r) => r.seed).filter((s) => s !== null)).sort((a, b) => a - b);
  const epochsOf = () => unique(view().rdms.map((r) => r.epoch).filter((e) => e !== null)).sort((a, b) => a - b);
  const firstSeed = () => { const rdm = view().rdms.find((r) => r.seed !== null); return rdm ? rdm.seed : null; };
  const sliderEpoch = () => { const epochs = view() ? epochsOf() : []; return epochs.length ? epochs[chosen.epoch] : null; };

  function fill(select, options, value) {
    select.replaceChildren(...options.map(([key, text]) => {
      const option = document.createElement("option");
      option.value = key;
      option.textContent = text === "" ? "output" : text;
      return option;
    }));
    select.value = String(value);
  }

  function chooseView(k) {
    chosen.view = k;
    const has = view().methods.length ? view().networks.indexOf(view().methods.find((m) => view().networks.includes(m))) : 0;
    chosen.network = Math.max(0, has);
    const layers = layersOf(chosen.network);
    chosen.layer = layers[Math.max(0, layers.length - 2)];  // the last hidden one, where the output is among them
    chosen.seed = firstSeed();
    chosen.epoch = Math.max(0, epochsOf().length - 1);
    chosen.pair = null;
    const notes = byId("view-notes");
    notes.replaceChildren(...view().notes.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
    notes.hidden = !view().notes.length;
    render();
  }

  function renderControls() {
    fill(byId("view"), data.views.map((v, k) => [k, v.name]), chosen.view);
    byId("view-label").hidden = data.views.length < 2;
    fill(byId("network"), view().networks.map((name, k) => [k, name]), chosen.network);
    fill(byId("layer"), layersOf(chosen.network).map((k) => [k, view().layers[k]]), chosen.layer);
    const seeds = seedsOf();
    fill(byId("seed"), seeds.map((s) => [s, s]), chosen.seed);
    byId("seed-label").hidden = seeds.length < 2;
    byId("scale").value = chosen.scale;
    const epochs = epochsOf();
    byId("epoch-controls").hidden = epochs.length < 2;
    const slider = byId("epoch");
    slider.max = Math.max(0, epochs.length - 1);
    slider.value = chosen.epoch;
    const text = epochText(sliderEpoch());
    byId("epoch-text").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }

  // The RDM

  function classTicks() {
    const categories = view().categories;
    if (!categories) return { places: [], names: [], ends: [] };
    const places = [], names = [], ends = [];
    let start = 0;
    for (let k = 1; k <= categories.length; k++) {
      if (k === categories.length || categories[k] !== categories[start]) {
        places.push((start + k - 1) / 2);
        names.push(categories[start].length > 14 ? categories[start].slice(0, 13) + "…" : categories[start]);
        if (k < categories.length) ends.push(k - 0.5);
        start = k;
      }
    }
    // Names that would run into each other are left to the hover.
    return places.length > 30 ? { places: [], names: [], ends: [] } : { places, names, ends };
  }

  function renderRDM() {
    const n = view().stimuli.length;
    const k = rdmAt(chosen.network, chosen.layer, chosen.seed, sliderEpoch());
    const rdm = view().rdms[k];
    let low = rdm.low, high = rdm.high;
    if (chosen.scale === "layer") {
      const alike = view().rdms.filter((r) => r.layer === rdm.layer && r.low !== null);
      low = Math.min(...alike.map((r) => r.low));
      high = Math.max(...alike.map((r) => r.high));
    }
    const layer = view().layers[rdm.layer] || "output";
    const network = view().networks[rdm.network];
    const parts = [layer === network ? network : `${network}, ${layer}`];
    if (rdm.seed !== null && seedsOf().length > 1) parts.push(`seed ${rdm.seed}`);
    if (rdm.epoch !== null) parts.push(epochText(rdm.epoch));
    byId("rdm-title").textContent = parts.join(", ");
    const ticks = classTicks();
    const axis = {
      tickvals: ticks.places, ticktext: ticks.names.map(escaped), ticks: "", showgrid: false, zeroline: false, range: [-0.5, n - 0.5],
      tickfont: { size: 10.5 }, fixedrange: coarse, automargin: true,
    };
    const lines = ticks.ends.flatMap((at) => [
      { type: "line", x0: at, x1: at, y0: -0.5, y1: n - 0.5, line: { color: "rgba(255,255,255,.55)", width: 0.7 } },
      { type: "line", y0: at, y1: at, x0: -0.5, x1: n - 0.5, line: { color: "rgba(255,255,255,.55)", width: 0.7 } },
    ]);
    if (chosen.pair) {
      const [i, j] = chosen.pair;
      lines.push({ type: "rect", x0: j - 0.5, x1: j + 0.5, y0: i - 0.5, y1: i + 0.5, line: { color: "#d55e00", width: 2.5 } });
    }
    Plotly.react("rdm", [{
      type: "heatmap", z: matrix(rdm, n), zmin: low === null ? 0 : Math.min(0, low), zmax: high === null ? 1 : (high > Math.min(0, low) ? high : 1),
      colorscale: "Viridis", hoverinfo: "none", showscale: true,
      colorbar: { thickness: 10, len: 0.85, outlinewidth: 0, tickfont: { size: 10.5 }, title: { text: escaped(measureOf(rdm)), side: "right", font: { size: 11 } } },
    }], {
      font: FONT, margin: { l: 46, r: 8, t: 6, b: 46 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", dragmode: coarse ? false : "zoom",
      xaxis: { ...axis, tickangle: ticks.names.some((name) => name.length > 3) ? -50 : 0, constrain: "domain" },
      yaxis: { ...axis, range: [n - 0.5, -0.5], scaleanchor: "x", constrain: "domain", constraintoward: "top" }, shapes: lines,
      uirevision: `${chosen.view}`,
      images: [{ source: STRIPES, xref: "x domain", yref: "y domain", x: 0, y: 1, sizex: 1, sizey: 1, sizing: "stretch", layer: "below" }],
    }, CONFIG);
    byId("rdm").dataset.rdm = String(k);
    renderPair();
  }

  function renderPair() {
    const place = byId("pair");
    if (!chosen.pair) {
      const words = document.createElement("span");
      words.className = "value";
      words.textContent = "The two stimuli of a cell and their dissimilarity are shown here.";
      place.replaceChildren(words);
      return;
    }
    const [i, j] = chosen.pair;
    const rdm = view().rdms[Number(byId("rdm").dataset.rdm)];
    const parts = [i, j].flatMap((k) => [pictureOf(k), nameOf(k)]);
    const value = document.createElement("span");
    value.className = "value";
    value.textContent = i === j
      ? "a stimulus with itself: 0"
      : `${measureOf(rdm)}: ${readable(valueOf(rdm, i, j, view().stimuli.length))}`;
    place.replaceChildren(...parts, value);
  }

  function pictureOf(k) {
    if (!view().pictures[k]) {
      const blank = document.createElement("span");
      blank.className = "blank";
      return blank;
    }
    const image = document.createElement("img");
    image.src = view().pictures[k];
    image.alt = `picture of ${view().stimuli[k]}`;
    image.onload = () => image.classList.toggle("small", image.naturalWidth < 40);
    return image;
  }

  function nameOf(k) {
    const name = document.createElement("span");
    name.className = "who";
    name.append(view().stimuli[k]);
    if (view().categories) {
      const category = document.createElement("small");
      category.textContent = view().categories[k];
      name.append(document.createElement("br"), category);
    }
    return name;
  }

  // A mouse that rests over the RDM is told of again when it is drawn anew; the keys' pair stays then.
  let pointing = false;

  function movePair(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    pointing = false;
    const last = view().stimuli.length - 1;
    const [i, j] = chosen.pair || [0, 0];
    const [down, right] = steps[event.key];
    chosen.pair = [Math.min(last, Math.max(0, i + down)), Math.min(last, Math.max(0, j + right))];
    renderRDM();
  }

  // The map

  function renderMap() {
    const map = view().map;
    byId("map").hidden = byId("layers").hidden = byId("map-note").hidden = map === null;
    byId("map-title").hidden = map === null;
    byId("zoom-label").hidden = map === null || epochsOf().length < 2;
    if (map === null) return;
    const epoch = sliderEpoch(), seed = firstSeed();
    const depths = new Set(view().methods.flatMap((name) => layersOf(view().networks.indexOf(name))));
    const traces = view().networks.map((name, network) => {
      const rows = layersOf(network).map((layer) => rdmAt(network, layer, seed, epoch)).filter((k) => k >= 0 && map.points[k]);
      const shown = rows.map((k) => view().rdms[k]);
      const isMethod = view().methods.includes(name);
      // Regions of a brain are no depth: they are named and not joined.
      const isBrain = !isMethod && rows.length > 1 && !shown.some((r) => depths.has(r.layer));
      const current = shown.map((r) => r.network === chosen.network && r.layer === chosen.layer);
      return {
        type: "scatter", name, customdata: rows, x: rows.map((k) => map.points[k][0]), y: rows.map((k) => map.points[k][1]),
        mode: isMethod ? "lines+markers" : isBrain ? "markers+text" : "lines+markers+text", line: { color: view().colours[network], width: 1.2 },
        text: shown.map((r, k) => isMethod ? "" : isBrain ? `${name} ${view().layers[r.layer]}` : k < shown.length - 1 ? "" : name), textposition: "top center", textfont: { size: 11 },
        hovertext: shown.map((r) => [escaped(name), escaped(view().layers[r.layer] || "output"), epochText(r.epoch)].filter(Boolean).join(" · ")),
        hoverinfo: "text", showlegend: isMethod, cliponaxis: false,
        marker: {
          color: view().colours[network], symbol: shown.map((r) => SYMBOLS[r.layer % SYMBOLS.length] + (view().open[network] ? "-open" : "")),
          size: current.map((on) => (on ? 17 : 10)), line: { color: current.map((on) => (on ? "#1c2530" : view().open[network] ? view().colours[network] : "#fff")), width: current.map((on) => (on ? 2.5 : view().open[network] ? 1.8 : 1)) },
        },
      };
    }).filter((trace) => trace.x.length);
    traces.forEach((trace) => { trace.name = escaped(trace.name); trace.text = trace.text.map(escaped); });
    const points = chosen.zoom ? traces.flatMap((trace) => trace.customdata.map((k) => map.points[k])) : Object.values(map.points);
    const range = (axis) => {
      const values = points.map((p) => p[axis]);
      const low = Math.min(...values), high = Math.max(...values), room = 0.1 * (high - low) || 0.1;
      return [low - room, high + room];
    };
    const axis = { showticklabels: false, ticks: "", showgrid: false, zeroline: false, showline: true, linecolor: "#dde3ea", mirror: true, fixedrange: coarse };
    Plotly.react("map", traces, {
      font: FONT, margin: { l: 6, r: 6, t: 6, b: 6 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "closest",
      dragmode: coarse ? false : "pan", uirevision: `${chosen.view} ${chosen.zoom} ${chosen.zoom ? epoch : ""}`,
      xaxis: { ...axis, range: range(0) }, yaxis: { ...axis, range: range(1), scaleanchor: "x" },
      legend: { orientation: "h", y: -0.02, yanchor: "top", x: 0, font: { size: 11 } },
    }, CONFIG);
    const used = unique(view().rdms.map((r) => r.layer));
    byId("layers").textContent = used.length > 16 ? "" : "Layers: " + used.map((k) => `${GLYPHS[k % GLYPHS.length]} ${view().layers[k] || "output"}`).join("  ");
    const one = seedsOf().length > 1 ? ` RDMs of seed ${seed}.` : "";
    byId("map-note").textContent = `Near points are similar RDMs (${map.comparison}); lines run along depth. All epochs lie in one space, ` +
      `whose stress is ${map.stress.toFixed(2)} (0: nothing is lost in two dimensions; 0.2: poor).${one} Click a point to see its RDM.`;
    if (!epochsOf().length) byId("map-note").textContent = byId("map-note").textContent.replace("All epochs lie in one space, whose", "The map's");
  }

  function render() {
    renderControls();
    renderRDM();
    renderMap();
    renderCurves();
  }

  // Curves

  function renderCurves() {
    if (!data.curves) return;
    const curves = data.curves[Number(byId("quantity").value)];
    const traces = curves.lines.flatMap((line) => {
      const x = line.epochs.map((e) => e + 1);
      const band = line.low === null ? [] : [{
        type: "scatter", x: [...x, ...[...x].reverse()], y: [...line.high, ...[...line.low].reverse()], fill: "toself", mode: "lines",
        line: { width: 0 }, fillcolor: line.colour + "26", hoverinfo: "skip", showlegend: false, legendgroup: line.method,
      }];
      return [...band, {
        type: "scatter", name: escaped(line.method), legendgroup: line.method, x, y: line.mean, mode: x.length > 1 ? "lines" : "markers",
        line: { color: line.colour, dash: line.dash, width: 2 }, hovertemplate: "%{y:.4~g}",
      }];
    });
    const epoch = sliderEpoch();
    Plotly.react("curves", traces, {
      font: FONT, margin: { l: 56, r: 10, t: 8, b: 40 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "x unified",
      dragmode: coarse ? false : "zoom", uirevision: curves.name,
      xaxis: { title: { text: "epoch" }, gridcolor: "#eef1f4", zeroline: false, fixedrange: coarse },
      yaxis: { title: { text: escaped(curves.name) }, gridcolor: "#eef1f4", zeroline: false, rangemode: "tozero", fixedrange: coarse },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", font: { size: 11 } },
      shapes: epoch === null || epoch < 0 ? [] : [{ type: "line", x0: epoch + 1, x1: epoch + 1, yref: "paper", y0: 0, y1: 1, line: { color: "#8994a0", dash: "dot", width: 1.2 } }],
    }, CONFIG);
  }

  // Start

  function startExplorer() {
    byId("explorer").hidden = false;
    const on = (id, kind, act) => byId(id).addEventListener(kind, act);
    on("view", "change", (event) => chooseView(Number(event.target.value)));
    on("network", "change", (event) => {
      const name = view().layers[chosen.layer];
      chosen.network = Number(event.target.value);
      const layers = layersOf(chosen.network);
      chosen.layer = layers.find((k) => view().layers[k] === name) ?? layers[layers.length - 1];
      render();
    });
    on("layer", "change", (event) => { chosen.layer = Number(event.target.value); render(); });
    on("seed", "change", (event) => { chosen.seed = Number(event.target.value); render(); });
    on("scale", "change", (event) => { chosen.scale = event.target.value; render(); });
    on("epoch", "input", (event) => { stop(); chosen.epoch = Number(event.target.value); render(); });
    on("play", "click", () => (timer === null ? play() : stop()));
    on("zoom", "change", (event) => { chosen.zoom = event.target.checked; renderMap(); });
    on("rdm", "keydown", movePair);
    chooseView(0);
    byId("rdm").addEventListener("mousemove", () => { pointing = true; }, true);
    byId("rdm").on("plotly_hover", (event) => {
      if (!pointing) return;
      const { x, y } = event.points[0];
      chosen.pair = [Math.round(y), Math.round(x)];
      renderPair();
    });
    if (view().map !== null || data.views.some((v) => v.map !== null)) {
      if (!byId("map").on) Plotly.newPlot("map", [], {}, CONFIG);
      byId("map").on("plotly_click", (event) => {
        const rdm = view().rdms[event.points[0].customdata];
        chosen.network = rdm.network;
        chosen.layer = rdm.layer;
        if (rdm.seed !== null) chosen.seed = rdm.seed;
        render();
      });
    }
  }

  let timer = null;

  function play() {
    const last = epochsOf().length - 1;
    if (chosen.epoch >= last) chosen.epoch = -1;
    byId("play").textContent = "❚❚";
    byId("play").setAttribute("aria-label", "Stop");
    timer = setInterval(() => {
      if (chosen.epoch >= last) { stop(); return; }
      chosen.epoch += 1;
      render();
    }, 900);
  }

  function stop() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    byId("play").textContent = "▶";
    byId("play").setAttribute("aria-label", "Play the epochs");
  }

  // A printed page is narrower than most windows, and no plot is drawn anew for it.

  const drawn = () => ["rdm", "map", "curves"].map(byId).filter((plot) => plot && plot.data && plot.offsetParent !== null);
  const printed = (plot) => plot.classList.contains("square") ? { width: 460, height: 420 } : { width: 640, height: 340 };
  window.addEventListener("beforeprint", () => drawn().forEach((plot) => Plotly.relayout(plot, printed(plot))));
  window.addEventListener("afterprint", () => drawn().forEach((plot) => Plotly.relayout(plot, { width: null, height: null, autosize: true })));

  if (data.curves) {
    byId("curves-part").hidden = false;
    fill(byId("quantity"), data.curves.map((c, k) => [k, c.name]), 0);
    byId("quantity").addEventListener("change", renderCurves);
  }
  if (data.views.length) startExplorer();
  else renderCurves();
})();
