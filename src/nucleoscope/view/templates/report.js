"use strict";
(() => {
  function stageParts(stage) {
    return {
      layers: [...stage.querySelectorAll("img.channel")],
      rims: stage.querySelector("img.rims"),
    };
  }

  function setUpImage(section) {
    const block = section.querySelector("script.frames");
    if (!block) return;
    const data = JSON.parse(block.textContent);
    const stage = section.querySelector(".stage.slices");
    const parts = stageParts(stage);
    const slider = section.querySelector("input.slice");
    const readout = section.querySelector("output.slice");
    const hover = section.querySelector(".hover");
    const svg = stage.querySelector("svg");
    const ring = svg.querySelector(".ring");
    let current = 0;
    let chosen = null;

    function show(index) {
      current = index;
      const frame = data.frames[index];
      parts.layers.forEach((img, i) => { img.src = frame.layers[i]; });
      parts.rims.hidden = !frame.rims;
      if (frame.rims) parts.rims.src = frame.rims;
      const z = data.slices[index];
      if (slider) slider.value = String(index);
      if (readout) readout.textContent = `slice ${z + 1} of ${data.depth} (z = ${z})`;
      const next = index + 1 < data.slices.length ? data.slices[index + 1] : Infinity;
      svg.querySelectorAll(".click").forEach((dot) => {
        const at = Number(dot.dataset.z);
        dot.classList.toggle("away", !(at >= z && at < next));
      });
      mark();
    }

    function holds(nucleus) {
      const z = data.slices[current];
      return data.depth === 1 || (nucleus.z0 <= z && z <= nucleus.z1);
    }

    function mark() {
      const on = chosen !== null && holds(chosen);
      ring.classList.toggle("away", !on);
      if (on) { ring.setAttribute("cx", chosen.x); ring.setAttribute("cy", chosen.y); }
    }

    function describe(nucleus) {
      let text = `nucleus ${nucleus.id}`;
      text += ` · ${nucleus.type}`;
      if (nucleus.prob !== null) text += ` (probability ${nucleus.prob.toFixed(2)})`;
      if (nucleus.score !== null) text += ` · score ${nucleus.score.toFixed(2)}`;
      if (data.depth > 1) text += ` · z ${nucleus.z0} to ${nucleus.z1}`;
      return text;
    }

    function nearest(event) {
      const at = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      let least = data.reach * data.reach;
      for (const nucleus of data.nuclei) {
        const distance = (nucleus.x - at.x) ** 2 + (nucleus.y - at.y) ** 2;
        if (distance < least && holds(nucleus)) { least = distance; best = nucleus; }
      }
      return best;
    }

    if (slider) {
      slider.addEventListener("input", () => show(Number(slider.value)));
    }
    svg.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      hover.textContent = found ? describe(found) : data.hint;
    });
    svg.addEventListener("pointerleave", () => { hover.textContent = data.hint; });

    section.querySelectorAll("input.toggle").forEach((box) => {
      box.addEventListener("change", () => {
        section.classList.toggle(`hide-${box.dataset.layer}`, !box.checked);
      });
    });

    const byId = new Map(data.nuclei.map((nucleus) => [String(nucleus.id), nucleus]));
    section.querySelectorAll("tr.nucleus").forEach((row) => {
      const pick = () => {
        chosen = byId.get(row.dataset.id) || null;
        if (!chosen) return;
        section.querySelectorAll("tr.nucleus.chosen").forEach((r) => r.classList.remove("chosen"));
        row.classList.add("chosen");
        const middle = chosen.z === null ? 0 : Math.round(chosen.z);
        let index = 0;
        data.slices.forEach((z, i) => { if (z <= middle) index = i; });
        show(index);
        hover.textContent = describe(chosen);
        stage.scrollIntoView({ block: "nearest" });
      };
      row.addEventListener("click", pick);
      row.addEventListener("keydown", (event) => { if (event.key === "Enter") pick(); });
    });
    show(data.first);
  }

  function sortTable(header) {
    const table = header.closest("table");
    const column = [...header.parentNode.children].indexOf(header);
    const rising = header.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = table.tBodies[0];
    const key = (row) => row.children[column].dataset.v ?? row.children[column].textContent;
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      const x = Number(a);
      const y = Number(b);
      const order = a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)
        ? x - y : a.localeCompare(b);
      return rising ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  }

  document.querySelectorAll("section.image").forEach(setUpImage);
  document.querySelectorAll("th button").forEach((button) => {
    button.addEventListener("click", () => sortTable(button.closest("th")));
  });
  document.documentElement.classList.add("ready");
})();
