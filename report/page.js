"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const words = JSON.parse(document.body.dataset.words);
  root.classList.add("scripted");

  // Theme: the system's, until the reader says otherwise.
  const theme = document.getElementById("page:theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const tell = () => {
    theme.textContent = isDark() ? words.light : words.dark;
    theme.setAttribute("aria-label", isDark() ? words.to_light : words.to_dark);
    theme.removeAttribute("aria-pressed");
  };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; tell(); });
  dark.addEventListener("change", tell);
  tell();

  // A grid's experiments stay together, below a row that names them.
  const rowsOf = (body) => Array.from(body.rows).filter((row) => !row.classList.contains("grid"));

  // Sorting: numbers by value, text by the reader's language; nothing measured goes last.
  const value = (cell) => cell.dataset.value ?? cell.textContent.trim();
  const number = (text) => (text === "" || text === "None" || text === "–" ? NaN : Number(text));
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const sign = up ? 1 : -1;
        const numeric = head.classList.contains("n");
        const key = (row) => (numeric ? number(value(row.cells[column])) : value(row.cells[column]));
        for (const body of table.tBodies) {
          rowsOf(body)
            .map((row) => [key(row), row])
            .sort(([a], [b]) => {
              if (!numeric) return sign * a.localeCompare(b);
              if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
              return sign * (a - b);
            })
            .forEach(([, row]) => body.append(row));
        }
      });
    });
  }

  // Copying: the cells as they are read, without the small print's line breaks.
  const text = (cell) => {
    const copy = cell.cloneNode(true);
    all(".interval", copy).forEach((small) => { small.textContent = ` [${small.textContent}]`; });
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const latex = (words) => words.replace(/[\\&%$#_{}~^]/g, (c) =>
    ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[c] ?? `\\${c}`);
  const formats = {
    csv: (rows) => rows.map((r) => r.map((c) => (/[",\n]/.test(c) ? `"${c.replaceAll('"', '""')}"` : c)).join(",")).join("\n"),
    markdown: ([head, ...rows]) => [head, head.map(() => "---"), ...rows].map((r) => `| ${r.map((c) => c.replaceAll("|", "\\|")).join(" | ")} |`).join("\n"),
    latex: ([head, ...rows]) => [`\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule", `${head.map(latex).join(" & ")} \\\\`, "\\midrule", ...rows.map((r) => `${r.map(latex).join(" & ")} \\\\`), "\\bottomrule", "\\end{tabular}"].join("\n"),
  };
  const copy = async (words) => {
    try { await navigator.clipboard.writeText(words); } catch {
      const area = document.createElement("textarea");
      area.value = words;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const tools of all(".tools")) {
    const table = document.getElementById(tools.dataset.for);
    const status = tools.querySelector("[role=status]");
    const shown = (row) => Array.from(row.cells).filter((cell) => !cell.classList.contains("dull")).map(text);
    for (const button of all("[data-copy]", tools)) {
      button.addEventListener("click", async () => {
        const rows = [...table.tHead.rows, ...Array.from(table.tBodies).flatMap(rowsOf)];
        await copy(formats[button.dataset.copy](rows.map(shown)));
        button.focus();
        status.textContent = words.copied;
      });
    }
    const differences = tools.querySelector("[data-differences]");
    differences.addEventListener("click", () => {
      const only = differences.getAttribute("aria-pressed") !== "true";
      differences.setAttribute("aria-pressed", String(only));
      const rows = Array.from(table.tBodies).flatMap(rowsOf);
      Array.from(table.tHead.rows[0].cells).forEach((_, column) => {
        const same = column > 0 && new Set(rows.map((row) => text(row.cells[column]))).size === 1;
        [...table.tHead.rows, ...rows].forEach((row) => row.cells[column].classList.toggle("dull", only && same));
      });
    });
  }

  // Zoom: the figure's own drawing, larger, in a dialog that Escape closes.
  const dialog = document.createElement("dialog");
  const close = document.createElement("button");
  const view = document.createElement("div");
  close.type = "button";
  close.textContent = words.close;
  close.addEventListener("click", () => dialog.close());
  dialog.setAttribute("aria-label", words.enlarged);
  dialog.append(close, view);
  dialog.addEventListener("close", () => view.replaceChildren());
  document.body.append(dialog);
  for (const figure of all("figure.zoomable")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "zoom";
    button.textContent = words.enlarge;
    button.addEventListener("click", () => {
      const drawing = figure.querySelector("svg").cloneNode(true);
      drawing.querySelector("defs")?.remove(); // ids stay unique: it uses the pictures on the page
      view.className = figure.querySelector(".scales :checked") ? "own-scales" : "";
      view.replaceChildren(drawing);
      dialog.showModal();
    });
    figure.append(button);
  }

  // Print: everything that is folded is opened, and folded again.
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach((d) => { d.open = true; }); });
  addEventListener("afterprint", () => folded.forEach((d) => { d.open = false; }));

  // Where the reader is, in the contents.
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    links.forEach((link) => { link.classList.remove("here"); link.removeAttribute("aria-current"); });
    const link = links.get(entry.target.id);
    link.classList.add("here");
    link.setAttribute("aria-current", "true");
  }), { rootMargin: "0px 0px -75% 0px" });
  links.forEach((_, id) => { const target = document.getElementById(id); if (target) watch.observe(target); });
})();
