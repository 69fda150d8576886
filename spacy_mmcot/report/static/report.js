/* Chooses, orders and shows the docs of a report. They lie in <template> elements, which cost nothing
   until they are shown; what is chosen stands in the address, so that a view can be kept. */
(() => {
  const STEP = 20;
  const form = document.getElementById("filters"), list = document.getElementById("list");
  const count = document.getElementById("count"), more = document.getElementById("more");
  const help = document.getElementById("help");
  const docs = [...document.querySelectorAll("template.doc")].map((template) => ({
    template,
    place: +template.dataset.place,
    views: JSON.parse(template.dataset.views),
    search: template.dataset.search,
  }));
  let chosen = [];

  const show = (number) => {
    const start = list.childElementCount;
    chosen.slice(start, start + number).forEach((doc, index) => {
      const article = list.appendChild(doc.template.content.cloneNode(true).querySelector("article"));
      article.setAttribute("aria-posinset", start + index + 1);
      article.setAttribute("aria-setsize", chosen.length);
    });
    more.hidden = list.childElementCount >= chosen.length;
    list.dispatchEvent(new CustomEvent("mmcot:shown", { bubbles: true }));
  };

  const choose = () => {
    const { view, label, order, text } = Object.fromEntries(new FormData(form));
    const words = text.trim().toLowerCase();
    chosen = docs.filter(({ views, search }) => {
      const labels = views[+view];
      const fits = label ? labels.includes(label) : +view === 0 || labels.length > 0;
      return fits && search.includes(words);
    });
    if (order === "data") chosen.sort((a, b) => a.place - b.place);
    list.replaceChildren();
    show(STEP);
    count.textContent = `${chosen.length} of ${docs.length} docs`;
  };

  // Only what differs from the page as it opens.
  const opening = Object.fromEntries(new FormData(form));
  const remember = () => {
    const state = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (value !== opening[name]) state.set(name, value);
    }
    if (scheme) state.set("theme", scheme);
    history.replaceState(null, "", `#${state.toString() || "docs"}`);
  };

  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(opening)) {
      const control = form.elements[name];
      control.value = state.get(name) ?? opening[name];
      if (control.selectedIndex === -1) control.value = opening[name];
    }
    if (["light", "dark"].includes(state.get("theme"))) paint(state.get("theme"));
  };

  /* The style sheets ask for the system's scheme; a choice here answers for it. */
  const system = matchMedia("(prefers-color-scheme: dark)");
  const darkRules = [...document.styleSheets]
    .flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule.media?.mediaText === "(prefers-color-scheme: dark)");
  let scheme = "";
  const paint = (next) => {
    scheme = next;
    document.documentElement.style.colorScheme = next;
    for (const rule of darkRules) rule.media.mediaText = next === "dark" ? "all" : "not all";
  };

  const step = (by) => {
    const articles = [...list.children];
    const at = articles.findIndex((article) => article.contains(document.activeElement));
    if (at + by >= articles.length) show(STEP);
    const next = list.children[Math.max(at + by, 0)];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  };

  const keys = {
    j: () => step(1), ArrowRight: () => step(1),
    k: () => step(-1), ArrowLeft: () => step(-1),
    "/": () => form.elements.text.focus(),
    "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog, .scroll");
    if (event.key === "Escape" && event.target === form.elements.text) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  form.addEventListener("input", () => { choose(); remember(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); step(1); });
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.getElementById("theme").addEventListener("click", () => {
    paint((scheme || (system.matches ? "dark" : "light")) === "dark" ? "light" : "dark");
    remember();
  });
  more.firstElementChild.addEventListener("click", () => show(STEP));
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && list.childElementCount) show(STEP);
  }, { rootMargin: "600px" }).observe(more);

  // Tables that do not fit say so.
  const measure = () => document.querySelectorAll(".scroll").forEach((box) => {
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth);
  });
  addEventListener("resize", measure);
  document.querySelector("details")?.addEventListener("toggle", measure);
  measure();

  const start = () => {
    const asked = location.hash.includes("=");
    if (asked) recall();
    if (asked || !list.childElementCount) choose();
    if (asked) document.getElementById("docs").scrollIntoView();
  };
  addEventListener("hashchange", start);
  start();
})();
