/* Draws each relation of a figure as an arc over its text. Where a relation goes from one line to
   another, its arc leaves at the end of the upper line and comes back at the start of the lower.
   Where the arcs have no room, the list of relations stays as it is. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LEVEL = 26, LOWEST = 13, CORNER = 6, CLEAR = 10, MOST_LEVELS = 6, LEAST_WIDTH = 560;
  const pen = document.createElement("canvas").getContext("2d");

  const element = (name, attributes, parent) => {
    const made = parent.appendChild(document.createElementNS(SVG, name));
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const boxes = (figure, marks) => {
    const origin = figure.getBoundingClientRect();
    return marks.map((mark) => {
      const box = mark.getBoundingClientRect();
      return {
        left: box.left - origin.left, width: box.width,
        top: box.top - origin.top, line: Math.round(box.bottom - origin.top),
      };
    });
  };

  const sameLine = (a, b) => Math.abs(a.line - b.line) < 5;

  // Where an arc goes that leaves its line: out at the line's end, in at the next one's start.
  const edge = (from, to, view) => ((from.line < to.line) !== view.rtl ? view.width : 0);

  // The ends of the relations at one mention stand side by side, so that longer arcs enclose
  // shorter ones: first what leads left, the nearest first, then what leads right, the farthest
  // first.
  const spreadEnds = (links, places, view) => {
    const goal = (at, to) => (sameLine(at, to) ? to.left + to.width / 2 : edge(at, to, view));
    places.forEach((place, index) => {
      const here = [];
      for (const link of links) {
        for (const [role, at, to] of [["from", link.head, link.tail], ["to", link.tail, link.head]]) {
          if (at !== index) continue;
          const x = goal(place, places[to]), right = x > place.left;
          here.push({ link, role, x, right, rank: right ? link.order : -link.order });
        }
      }
      here.sort((a, b) => a.right - b.right || b.x - a.x || a.rank - b.rank);
      here.forEach((end, k) => {
        end.link[end.role] = place.left + (place.width * (k + 1)) / (here.length + 1);
      });
    });
  };

  const piecesOf = (link, places, view) => {
    const head = places[link.head], tail = places[link.tail];
    const piece = (place, x1, x2, more) => {
      const half = link.width / 2 + 4;
      const centre = Math.min(Math.max((x1 + x2) / 2, half), view.width - half);
      return {
        link, line: place.line, x1, x2, centre, ...more,
        start: Math.min(x1, x2, centre - half), end: Math.max(x1, x2, centre + half),
      };
    };
    if (sameLine(head, tail)) return [piece(head, link.from, link.to, { tip: true })];
    return [
      piece(head, link.from, edge(head, tail, view), { leaves: true }),
      piece(tail, edge(tail, head, view), link.to, { enters: true, tip: true }),
    ];
  };

  // Short arcs lie low, and none lies where another's line or label does.
  const stack = (pieces) => {
    const settled = [];
    pieces.sort((a, b) => Math.abs(a.x1 - a.x2) - Math.abs(b.x1 - b.x2));
    for (const piece of pieces) {
      const near = settled.filter((other) => sameLine(other, piece)
        && other.start < piece.end + CLEAR && piece.start < other.end + CLEAR);
      piece.level = 1;
      while (near.some((other) => other.level === piece.level)) piece.level += 1;
      settled.push(piece);
    }
  };

  const outline = (piece, foot) => {
    const { x1, x2 } = piece, y = foot - LOWEST - (piece.level - 1) * LEVEL;
    const side = Math.sign(x2 - x1), r = Math.min(CORNER, Math.abs(x2 - x1) / 2);
    const rise = piece.enters ? `M${x1} ${y}` : `M${x1} ${foot}V${y + r}Q${x1} ${y} ${x1 + side * r} ${y}`;
    const fall = piece.leaves ? `H${x2}` : `H${x2 - side * r}Q${x2} ${y} ${x2} ${y + r}V${foot - 5}`;
    return { d: rise + fall, y };
  };

  const draw = (figure) => {
    figure.querySelector(".mmcot-arcs")?.remove();
    figure.classList.remove("mmcot-drawn");
    const text = figure.querySelector(".mmcot-text");
    const marks = [...text.querySelectorAll("mark")];
    marks.forEach((mark) => { mark.style.marginTop = ""; });
    const width = figure.clientWidth;
    const items = [...figure.querySelectorAll("li[data-head]")];
    if (!items.length || width < LEAST_WIDTH) return;

    const style = getComputedStyle(text);
    const size = 0.78 * parseFloat(style.fontSize);
    pen.font = `${size}px ${style.fontFamily}`;
    const links = items.map((item, order) => {
      const label = item.querySelector(".mmcot-name").textContent;
      const score = ` ${item.querySelector("small").textContent}`;
      return {
        item, order, label, score, head: +item.dataset.head, tail: +item.dataset.tail,
        width: pen.measureText(label + score).width,
      };
    });
    const before = boxes(figure, marks);
    const view = { width, rtl: style.direction === "rtl" };
    spreadEnds(links, before, view);
    const pieces = links.flatMap((link) => piecesOf(link, before, view));
    stack(pieces);
    const fits = (piece) => piece.level <= MOST_LEVELS && piece.link.width + 8 < width;
    if (!pieces.every(fits)) return;

    // Room above a line moves what stands below it, and nothing sideways.
    marks.forEach((mark, index) => {
      const levels = pieces
        .filter((piece) => sameLine(piece, before[index]))
        .map((piece) => piece.level);
      if (levels.length) mark.style.marginTop = `${Math.max(...levels) * LEVEL + 6}px`;
    });
    const places = boxes(figure, marks);
    const footOf = (piece) => places[before.findIndex((place) => sameLine(place, piece))].top - 1;

    const canvas = element("svg", { class: "mmcot-arcs", "aria-hidden": "true" }, figure);
    const drawn = pieces.map((piece) => {
      const group = element("g", { class: piece.link.item.className }, canvas);
      group.style.setProperty("--hue", piece.link.item.style.getPropertyValue("--hue"));
      element("title", {}, group).textContent = piece.link.item.title;
      const foot = footOf(piece), { d, y } = outline(piece, foot);
      element("path", { d }, group);
      if (piece.tip) {
        const tip = `M${piece.x2 - 4} ${foot - 7}h8l-4 7z`;
        element("path", { d: tip, class: "mmcot-tip" }, group);
      }
      return { piece, group, y };
    });
    // Labels last, each in a group of its own, so that no arc runs through one.
    for (const { piece, group, y } of drawn) {
      const above = canvas.appendChild(group.cloneNode(false));
      above.appendChild(group.firstChild.cloneNode(true));
      const { label, score, width: wide } = piece.link;
      element("rect", { x: piece.centre - wide / 2 - 2, y: y - size - 3, width: wide + 4, height: size + 1 }, above);
      const words = element("text", { x: piece.centre, y: y - 5, "font-size": size }, above);
      words.textContent = label;
      element("tspan", { class: "mmcot-score" }, words).textContent = score;
    }
    figure.classList.add("mmcot-drawn");
  };

  const start = () => {
    const widths = new WeakMap();
    const observer = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (widths.get(target) === target.clientWidth) continue;
        widths.set(target, target.clientWidth);
        // Drawing changes heights, which must not be observed in the same frame.
        requestAnimationFrame(() => draw(target));
      }
    });
    const watch = (root) => {
      root.querySelectorAll("figure.mmcot").forEach((figure) => observer.observe(figure));
    };
    watch(document);
    // A page that adds figures says so.
    document.addEventListener("mmcot:shown", (event) => watch(event.target));
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
