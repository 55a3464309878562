"use strict";
// Drives the page: theme, load, chart zoom by button and key, and the explorer's
// filters, axes, frontier and pins. Charts are Bokeh's; this only sets their fields.
(() => {
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const page = read("page-data");
  let doc = null;

  // ---- theme ----
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let theme = prefersDark.matches ? "dark" : "light";
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const setTheme = (name) => {
    theme = name;
    document.documentElement.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = name === "dark" ? "Light colours" : "Dark colours";
    if (doc) paint();
  };
  const set = (model, values) => {
    const known = Object.entries(values).filter(([name]) => name in model.properties);
    model.setv(Object.fromEntries(known));
  };
  const paint = () => {
    const ink = color("--ink"), soft = color("--soft"), grid = color("--grid");
    const back = color("--back");
    for (const root of doc.roots()) {
      for (const model of root.references()) {
        if (model.type.endsWith("Axis")) {
          set(model, {
            axis_label_text_color: ink, major_label_text_color: ink,
            group_text_color: ink, subgroup_text_color: ink, axis_line_color: soft,
            major_tick_line_color: soft, minor_tick_line_color: soft,
            axis_label_text_font_style: "normal",
            axis_label_text_font_size: "13px", major_label_text_font_size: "12px",
          });
        } else if (model.type === "Grid") {
          if (model.grid_line_color !== null) model.grid_line_color = grid;
        } else if (model.tags && model.tags.includes("ink")) {
          model.line_color = soft;
        } else if (model.type === "Scatter" && model.selection_line_color) {
          model.line_color = back;
        }
        if (model.name && String(model.name).startsWith("explorer-points")) {
          model.selection_glyph.line_color = ink;
        }
      }
    }
  };

  // ---- load ----
  const showLoad = (load) => {
    for (const element of $("[data-load]")) element.hidden = element.dataset.load !== load;
    for (const root of doc.roots()) {
      for (const renderer of root.renderers) {
        const tag = (renderer.tags || []).find((text) => text.startsWith("load:"));
        if (tag) renderer.visible = tag === `load:${load}`;
      }
    }
  };

  // ---- zoom by button and key ----
  const moved = (range, by, scale) => {
    const middle = (range.start + range.end) / 2, half = (range.end - range.start) / 2;
    let start = middle + (by * 2 - 1 / scale) * half, end = middle + (by * 2 + 1 / scale) * half;
    if (range.bounds && range.bounds !== "auto") {
      const [low, high] = range.bounds, width = Math.min(end - start, high - low);
      start = Math.min(Math.max(start, low), high - width);
      end = start + width;
    }
    range.setv({start, end});
  };
  const act = (plot, action) => {
    const {x_range: x, y_range: y} = plot;
    const numeric = (range) => range.type !== "FactorRange";
    const both = page.x_only.includes(plot.name) ? [x] : [x, y].filter(numeric);
    if (action === "in") both.forEach((range) => moved(range, 0, 1.5));
    else if (action === "out") both.forEach((range) => moved(range, 0, 1 / 1.5));
    else if (action === "left" && numeric(x)) moved(x, -0.1, 1);
    else if (action === "right" && numeric(x)) moved(x, 0.1, 1);
    else if (action === "reset") Bokeh.index.find_one(plot).reset();
    else return false;
    return true;
  };
  const KEYS = {"+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", "0": "reset"};
  const wireZoom = () => {
    for (const place of $("figure[data-chart]")) {
      const plot = doc.get_model_by_name(place.dataset.chart);
      if (!plot) continue;
      for (const button of $("button[data-act]", place)) {
        button.addEventListener("click", () => act(plot, button.dataset.act));
      }
      place.querySelector(".chart").addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && KEYS[event.key] && act(plot, KEYS[event.key])) event.preventDefault();
      });
    }
  };

  // ---- explorer ----
  const wireExplorer = () => {
    const info = page.explorer;
    const source = doc.get_model_by_name("explorer-points-0").data_source;
    const filter = doc.get_model_by_name("explorer-points-0").view.filter;
    const plots = [0, 1].map((place) => doc.get_model_by_name(`explorer-${place}`));
    const columns = source.data, count = columns.policy.length;
    const axes = info.axes.map((pair) => [...pair]);
    const quantity = Object.fromEntries(info.choices.map((item) => [item.key, item]));
    let kept = Array(count).fill(true);

    const best = (key, i) => {
      const value = columns[key][i];
      return isFinite(value) ? (quantity[key].less === false ? -value : value) : Infinity;
    };
    // Points in order of one quantity, then another: sorted once, as a filter changes neither.
    const orders = {};
    const sorted = (x, y) => (orders[`${x} ${y}`] ??= Array.from({length: count}, (_, i) => i).sort((a, b) =>
      best(x, a) - best(x, b) || best(y, a) - best(y, b) || a - b));

    const front = (place) => {
      // What no other kept point beats in both; points that served fewer do not count.
      const [x, y] = axes[place];
      const ordered = [x, y].every((key) => quantity[key].less !== null);
      const counts = (i) => kept[i] && columns.served[i] === 1 && isFinite(columns[x][i]) && isFinite(columns[y][i]);
      const order = ordered ? sorted(x, y).filter(counts) : [];
      const xs = [], ys = [];
      let least = Infinity;
      for (const i of order) {
        if (best(y, i) < least) {
          least = best(y, i);
          xs.push(columns[x][i]);
          ys.push(columns[y][i]);
        }
      }
      const line = doc.get_model_by_name(`explorer-front-${place}`);
      line.glyph.mode = quantity[x].less === false ? "before" : "after";
      line.data_source.data = {x: xs, y: ys};
    };
    const cell = (row, tag, name = "") => {
      const made = document.createElement(tag);
      made.className = name;
      row.append(made);
      return made;
    };
    const head = document.createElement("tr");
    cell(head, "td");
    for (const key of info.keys) cell(head, "th", "text").textContent = key.name;
    for (const item of info.quantities) cell(head, "th").textContent = item.label;
    for (const made of $("th", head)) made.scope = "col";
    document.getElementById("explorer-head").append(head);
    const body = document.querySelector("#explorer-table tbody");
    // Rows are made once and written again, as making them costs more than all else here.
    const made = Array.from({length: Math.min(count, page.most_rows)}, () => {
      const row = document.createElement("tr"), box = document.createElement("input");
      box.type = "checkbox";
      cell(row, "td").append(box);
      const texts = info.keys.map((key) => [cell(row, "td", "text"), columns[key.column]]);
      for (const item of info.quantities) {
        const number = cell(row, "td");
        number.dataset.key = item.key;
        texts.push([number, columns[`text:${item.key}`]]);
      }
      return {row, box, texts};
    });
    const write = ({row, box, texts}, i, pinned) => {
      box.checked = pinned;
      box.dataset.point = i;
      box.setAttribute("aria-label", `pin ${info.keys.map((key) => `${key.name} ${columns[key.column][i]}`).join(", ")}`);
      for (const [at, values] of texts) {
        if (at.textContent !== String(values[i])) at.textContent = values[i];
      }
      if (!row.isConnected) body.append(row);
    };
    const fill = () => {
      const pinned = new Set(source.selected.indices);
      const [x] = axes[0], order = sorted(x, x);
      const rows = [true, false].flatMap((pins) => order.filter((i) => pinned.has(i) === pins && (pins || kept[i])));
      const focused = document.activeElement?.dataset?.point;
      made.forEach((line, place) => {
        if (place < rows.length) write(line, rows[place], pinned.has(rows[place]));
        else line.row.remove();
      });
      if (focused !== undefined) body.querySelector(`input[data-point="${focused}"]`)?.focus();
      const shown = kept.filter(Boolean).length;
      document.getElementById("explorer-count").textContent =
        `${shown} of ${count} configurations pass the filters; ${pinned.size} pinned` +
        (rows.length > page.most_rows ? `; the first ${page.most_rows} are listed` : "");
    };
    const numbers = Object.fromEntries(info.keys.map((key) => [key.column, Array.from(columns[key.column], Number)]));
    const update = () => {
      const tests = [];
      for (const set of $("fieldset[data-column]")) {
        const boxes = $("input[type=checkbox]", set);
        if (boxes.length) {
          const values = columns[set.dataset.column];
          const allowed = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
          tests.push((i) => allowed.has(values[i]));
        } else {
          const values = numbers[set.dataset.column];
          const [low, high] = $("input", set).map((input) => input.value === "" ? NaN : Number(input.value));
          tests.push((i) => !(values[i] < low) && !(values[i] > high));
        }
      }
      kept = kept.map((_, i) => tests.every((test) => test(i)));
      filter.booleans = kept;
      [0, 1].forEach(front);
      fill();
    };
    for (const input of $("fieldset[data-column] input")) input.addEventListener("input", update);
    document.getElementById("explorer-clear").addEventListener("click", () => { source.selected.indices = []; });
    document.getElementById("explorer-all").addEventListener("click", () => {
      for (const input of $("fieldset[data-column] input")) {
        if (input.type === "checkbox") input.checked = true; else input.value = "";
      }
      update();
    });
    for (const select of $("select[data-axis]")) {
      const [place, axis] = select.dataset.axis.split("-").map(Number);
      select.addEventListener("change", () => {
        axes[place][axis] = select.value;
        const plot = plots[place], points = doc.get_model_by_name(`explorer-points-${place}`);
        const field = axis === 0 ? "x" : "y";
        for (const glyph of [points.glyph, points.selection_glyph, points.nonselection_glyph]) {
          if (glyph && glyph !== "auto") glyph[field] = {field: select.value};
        }
        for (const side of axis === 0 ? plot.below : plot.left) side.axis_label = quantity[select.value].label;
        front(place);
        Bokeh.index.find_one(plot)?.reset_range?.();
        if (place === 0) fill();
      });
    }
    document.getElementById("explorer-table").addEventListener("change", (event) => {
      const i = Number(event.target.dataset.point);
      const chosen = new Set(source.selected.indices);
      if (event.target.checked) chosen.add(i); else chosen.delete(i);
      source.selected.indices = [...chosen].sort((a, b) => a - b);
    });
    source.selected.properties.indices.change.connect(fill);
    update();
  };

  const start = async () => {
    setTheme(theme);
    document.getElementById("theme").addEventListener("click", () => setTheme(theme === "dark" ? "light" : "dark"));
    prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
    const content = read("chart-data");
    const roots = Object.fromEntries(content.roots.map((root, i) => [root.id, `chart-${page.charts[i]}`]));
    await Bokeh.embed.embed_items({page: content}, [{docid: "page", roots, root_ids: Object.keys(roots)}]);
    doc = Bokeh.documents[Bokeh.documents.length - 1];
    wireZoom();
    if (page.explorer) wireExplorer();
    const select = document.getElementById("load");
    if (select) {
      select.addEventListener("change", () => showLoad(select.value));
      showLoad(select.value);
    }
    paint();
    document.documentElement.dataset.ready = "yes";
  };
  addEventListener("DOMContentLoaded", start);
})();
