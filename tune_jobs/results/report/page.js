"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const root = document.documentElement;

  // --- figures: drawn when they come into view, in the colours of the page ---

  let loading = null;
  function plotly() {
    loading ??= (async () => {
      const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
    })();
    return loading;
  }

  // "var(--c0)" anywhere in a figure becomes that colour.
  function coloured(value, style) {
    if (typeof value === "string" && value.startsWith("var(--")) return style.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, style)]));
    return value;
  }

  function dressed(spec) {
    const frame = { gridcolor: "var(--line)", zerolinecolor: "var(--line)", linecolor: "var(--line)", automargin: true };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { t: 16, l: 56, r: 16, b: 48 },
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif", size: 12, color: "var(--ink)" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, hovermode: "closest",
      hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--line)", font: { color: "var(--ink)" } }, ...spec.layout,
    };
    for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))]))
      layout[name] = { ...frame, ...layout[name] };
    const data = spec.data.map((trace) => trace.type === "parcoords"
      ? { labelfont: { color: "var(--ink)", size: 13 }, tickfont: { color: "var(--muted)", size: 11 },
          rangefont: { color: "rgba(0,0,0,0)", size: 1 }, ...trace }
      : trace);
    return coloured({ data, layout }, getComputedStyle(root));
  }

  async function draw(place) {
    const key = place.dataset.figure;
    await plotly();
    const { data, layout } = dressed(key.endsWith("-heat") ? heat(key) : specs[key]);
    place.style.height = `${layout.height}px`; // plotly forgets the layout's own when the window changes its size
    await Plotly.react(place, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    place.dataset.drawn = "yes";
  }

  const places = [...document.querySelectorAll(".plot")];
  const drawn = () => places.filter((place) => place.dataset.drawn);
  const watcher = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen)
      if (isIntersecting) { watcher.unobserve(target); draw(target); }
  }, { rootMargin: "300px" });
  for (const place of places) watcher.observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn().forEach(draw));

  // Paper is light, and has all figures.  The browser does not wait for a promise here: plotly must be there already.
  (window.requestIdleCallback ?? setTimeout)(() => plotly());
  function printed(now) {
    root.classList.toggle("print", now);
    if (window.Plotly) (now ? places : drawn()).forEach(draw);
  }
  addEventListener("beforeprint", () => printed(true));
  addEventListener("afterprint", () => printed(false));

  // --- the heat map of any two fields ---

  function heat(key) {
    const { axes, values } = specs[key];
    const chosen = Object.fromEntries([...document.querySelectorAll(`[data-heat="${key}"] select`)].map((s) => [s.name, s.value]));
    const across = axes[chosen.x], down = axes[chosen.y], of = values[chosen.value];
    const cells = down.labels.map(() => across.labels.map(() => []));
    of.forEach((value, i) => {
      if (value !== null && across.of[i] !== null && down.of[i] !== null) cells[down.of[i]][across.of[i]].push(value);
    });
    const least = chosen.value.includes("time");
    const sum = (found) => !found.length ? null : chosen.how === "mean" ? found.reduce((a, b) => a + b, 0) / found.length
      : Math[least ? "min" : "max"](...found);
    const z = cells.map((row) => row.map(sum));
    const text = z.map((row) => row.map((value) => value === null ? "" : least ? value.toPrecision(3) : value.toFixed(2)));
    // As in views.py: a hopeless cell does not take all the colours.
    const known = z.flat().filter((value) => value !== null).sort((a, b) => a - b);
    const quartile = (share) => {
      const at = share * (known.length - 1), low = Math.floor(at);
      return known[low] + (at - low) * ((known[low + 1] ?? known[low]) - known[low]);
    };
    const reach = 3 * (quartile(0.75) - quartile(0.25));
    const near = known.filter((value) => least ? value <= quartile(0.75) + reach : value >= quartile(0.25) - reach);
    const ends = reach > 0 && near.length < known.length ? { zmin: near[0], zmax: near.at(-1) } : {};
    const axis = (name) => ({ title: { text: name, standoff: 16 }, type: "category", showgrid: false });
    return {
      data: [{
        type: "heatmap", z, x: across.labels, y: down.labels, text, texttemplate: across.labels.length > 8 ? "" : "%{text}",
        customdata: cells.map((row) => row.map((found) => found.length)), xgap: 2, ygap: 2, hoverongaps: false,
        hovertemplate: `${chosen.x} %{x}<br>${chosen.y} %{y}<br>%{text} (%{customdata} configs)<extra></extra>`,
        colorscale: [0, 1, 2, 3, 4].map((i) => [i / 4, `var(--s${i})`]), reversescale: least, ...ends,
        colorbar: { thickness: 12, outlinewidth: 0, title: { text: least ? "s" : "%" } },
      }],
      layout: { height: Math.max(280, 130 + 46 * down.labels.length), xaxis: axis(chosen.x), yaxis: axis(chosen.y) },
    };
  }
  for (const chooser of document.querySelectorAll("[data-heat]"))
    chooser.addEventListener("change", () => draw(document.querySelector(`[data-figure="${chooser.dataset.heat}"]`)));

  // --- tables: sorted and filtered ---

  const FIRST = 100; // rows shown at first: a thousand take a while to lay out

  function keeps(filter, cell) {
    const match = /^(<=|>=|<|>|=|!)?\s*(.*)$/.exec(filter.trim());
    const [, sign, wanted] = match;
    if (!wanted) return true;
    const own = cell.dataset.v, text = (cell.textContent + " " + own).toLowerCase();
    const numbers = own !== "" && wanted !== "" && !isNaN(own) && !isNaN(wanted);
    if (sign === "!") return !text.includes(wanted.toLowerCase());
    if (sign === "=") return numbers ? +own === +wanted : own.toLowerCase() === wanted.toLowerCase();
    if (sign) return numbers && { "<": +own < +wanted, ">": +own > +wanted, "<=": +own <= +wanted, ">=": +own >= +wanted }[sign];
    return text.includes(wanted.toLowerCase());
  }

  for (const table of document.querySelectorAll("table.trials")) {
    const body = table.tBodies[0], card = table.closest(".card");
    const heads = [...table.querySelectorAll("th")], inputs = [...table.querySelectorAll("input")];
    const more = card.querySelector(".more");
    let rows = [...body.rows], all = false;

    function show() {
      const filters = inputs.map((input) => input.value);
      let found = 0;
      for (const row of rows) {
        const kept = filters.every((filter, i) => !filter || keeps(filter, row.cells[i]));
        found += kept;
        row.hidden = !kept || (!all && found > FIRST);
      }
      const seen = all ? found : Math.min(found, FIRST);
      card.querySelector("output").textContent =
        found === rows.length && seen === found ? `${rows.length} ${table.dataset.noun}` : `${seen} of ${found} that match, ${rows.length} in all`;
      more.hidden = seen === found;
    }

    function sort(column) {
      const head = heads[column];
      const numeric = head.classList.contains("n");
      const way = head.ariaSort === "none" ? (numeric ? "descending" : "ascending")
        : head.ariaSort === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => { other.ariaSort = other === head ? way : "none"; });
      const sign = way === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.v;
      rows = rows.toSorted((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is not known stays last
        return sign * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      });
      body.append(...rows);
      show();
    }

    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
    inputs.forEach((input) => input.addEventListener("input", show));
    more.addEventListener("click", () => { all = true; show(); });
    addEventListener("beforeprint", () => { all = true; show(); });
    show();
  }

  for (const button of document.querySelectorAll("[data-copy]"))
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    });
})();
