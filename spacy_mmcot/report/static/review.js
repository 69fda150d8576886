"use strict";
// Corrects one text at a time. Offsets count code points, as Python does; JavaScript counts UTF-16.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const labels = Object.keys(data.labels);
  const find = (id) => document.getElementById(id);
  const hue = (label) => (labels.indexOf(label) * 137 + 210) % 360;
  const texts = data.texts.map((text) => ({ ...text, chars: [...text.post.text], state: read(text), past: [] }));
  const memory = `spacy-mmcot review ${texts.map((text) => text.post.id).join(" ")}`;
  const related = Object.keys(data.relations).length > 0; // else relations are kept, and not asked for
  let at = 0;
  let active = labels[0];
  let cursor = 0;
  let anchor = null; // where the chosen words begin; null where none are chosen
  let picked = null; // the chosen entity
  let from = null; // the head of a relation whose tail is still to be chosen
  let dragging = false;
  let unsaved = false;

  function read(text) {
    const entities = text.post.entities.map((entity, i) => ({ ...entity, by: text.by[i] }));
    return { entities, relations: text.post.relations ?? [], status: "" };
  }

  const now = () => texts[at];
  const state = () => texts[at].state;
  const words = (start, end) => now().chars.slice(start, end).join("");
  const name = (entity) => `${words(entity.start, entity.end)} (${entity.label})`;

  // Every change goes through here, so that it can be undone and is remembered.
  function change(edit) {
    const before = JSON.stringify(state());
    edit(state());
    if (JSON.stringify(state()) !== before) {
      now().past.push(before);
      remember();
    }
    show();
  }

  function remember() {
    unsaved = true;
    try {
      localStorage.setItem(memory, JSON.stringify(texts.map((text) => text.state)));
    } catch {
      // Without storage the page works until it is closed.
    }
  }

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(memory) ?? "[]");
      kept.forEach((one, i) => { texts[i].state = one; });
      const open = texts.findIndex((text) => !text.state.status);
      at = open < 0 ? 0 : open;
    } catch {
      // What was kept cannot be read: begin anew.
    }
  }

  function remove(one, entity) {
    const place = one.entities.indexOf(entity);
    one.entities.splice(place, 1);
    one.relations = one.relations
      .filter(({ head, tail }) => head !== place && tail !== place)
      .map((r) => ({ ...r, head: r.head - (r.head > place), tail: r.tail - (r.tail > place) }));
  }

  function label(first, last, name) {
    const { tokens } = now();
    const [start, end] = [tokens[Math.min(first, last)][0], tokens[Math.max(first, last)][1]];
    change((one) => {
      one.entities.filter((e) => e.start < end && start < e.end).forEach((e) => remove(one, e));
      const entity = { start, end, label: name, by: "you" };
      one.entities.push(entity);
      sort(one);
      picked = one.entities.indexOf(entity);
    });
  }

  // Entities stand in text order; relations are by their places.
  function sort(one) {
    const before = [...one.entities];
    one.entities.sort((a, b) => a.start - b.start);
    const moved = before.map((entity) => one.entities.indexOf(entity));
    one.relations = one.relations.map((r) => ({ ...r, head: moved[r.head], tail: moved[r.tail] }));
  }

  function allowed(head, tail) {
    const { entities } = state();
    return Object.entries(data.relations)
      .filter(([, r]) => r.head.includes(entities[head].label) && r.tail.includes(entities[tail].label))
      .map(([name]) => name);
  }

  function relate(head, tail, name) {
    change((one) => {
      one.relations = one.relations.filter((r) => r.head !== head || r.tail !== tail);
      one.relations.push({ head, tail, label: name });
    });
  }

  function pick(entity) {
    if (from !== null && from !== entity) {
      const [head, names] = [from, allowed(from, entity)];
      from = null;
      picked = entity;
      if (names.length === 1) relate(head, entity, names[0]);
      else show(names.length ? { head, tail: entity, names } : null, names.length ? "" : "No relation joins these labels.");
      return;
    }
    picked = entity;
    anchor = null;
    show();
  }

  function press(name) {
    active = name;
    if (picked !== null) change((one) => {
      one.entities[picked].label = name;
      one.entities[picked].by = "you";
      if (related) one.relations = one.relations.filter((r) => allowed(r.head, r.tail).includes(r.label));
    });
    else if (anchor !== null) { const begin = anchor; anchor = null; label(begin, cursor, name); }
    else show();
  }

  function decide(status) {
    change((one) => { one.status = status; });
    go(1);
  }

  function go(step) {
    at = Math.min(Math.max(at + step, 0), texts.length - 1);
    [cursor, anchor, picked, from] = [0, null, null, null];
    show();
    find("text").focus({ preventScroll: true });
  }

  function undo() {
    if (!now().past.length) return;
    now().state = JSON.parse(now().past.pop());
    [picked, from, anchor] = [null, null, null];
    remember();
    show();
  }

  function dump() {
    return texts.filter((text) => text.state.status === "done").map((text) => {
      const entities = text.state.entities.map(({ start, end, label }) => ({ start, end, label }));
      const post = { ...text.post, entities };
      if (post.relations || related) post.relations = text.state.relations;
      return `${JSON.stringify(post)}\n`;
    }).join("");
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([dump()], { type: "application/jsonl" }));
    link.download = "reviewed.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
    unsaved = false;
    show();
  }

  function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function show(question = null, problem = "") {
    const [text, one] = [now(), state()];
    const [done, out] = ["done", "skipped"].map((s) => texts.filter((t) => t.state.status === s).length);
    find("place").textContent = `${at + 1} of ${texts.length}: ${done} correct, ${out} left out${unsaved ? ", not saved" : ""}`;
    find("name").textContent = text.post.id;
    find("doubts").textContent = text.doubts && `Doubtful: ${text.doubts}`;
    find("card").className = `mmcot ${one.status}`;
    find("picture").innerHTML = text.picture;
    showLabels();
    showText(text, one);
    showRelations(one);
    let ask = problem;
    if (from !== null) ask = `Relation from ${name(one.entities[from])}: choose the other entity.`;
    if (question) ask = `${name(one.entities[question.head])} → ${name(one.entities[question.tail])}: choose the relation.`;
    find("ask").textContent = ask;
    find("choices").replaceChildren(...(question?.names ?? []).map((relation) => {
      const button = make("button", "", relation);
      button.addEventListener("click", () => relate(question.head, question.tail, relation));
      return button;
    }));
    find("choices").firstChild?.focus();
  }

  function showLabels() {
    find("labels").replaceChildren(...labels.map((name, i) => {
      const button = make("button", "label", `${name} `);
      button.title = data.labels[name];
      button.style.setProperty("--hue", hue(name));
      button.setAttribute("aria-pressed", name === active);
      if (i < 9) button.append(make("kbd", "", i + 1));
      button.addEventListener("click", () => press(name));
      return button;
    }));
  }

  function showText(text, one) {
    const nodes = [];
    let box = null;
    let end = 0;
    text.tokens.forEach(([start, stop], i) => {
      const place = one.entities.findIndex((e) => e.start < stop && start < e.end);
      const token = make("span", "token", words(start, stop));
      token.dataset.token = i;
      const [low, high] = anchor === null ? [-1, -1] : [Math.min(anchor, cursor), Math.max(anchor, cursor)];
      token.classList.toggle("chosen", i >= low && i <= high);
      token.classList.toggle("cursor", i === cursor);
      const gap = document.createTextNode(words(end, start));
      end = stop;
      if (place < 0) {
        nodes.push(gap, token);
        box = null;
        return;
      }
      if (box?.dataset.entity === String(place)) box.lastChild.before(gap, token);
      else {
        const entity = one.entities[place];
        box = make("span", `entity${entity.by.includes(" ") || entity.by === "you" ? "" : " single"}`);
        box.dataset.entity = place;
        box.title = `${data.labels[entity.label] ?? ""} (${entity.by})`;
        box.style.setProperty("--hue", hue(entity.label));
        box.classList.toggle("picked", place === picked);
        box.append(token, make("b", "", entity.label));
        nodes.push(gap, box);
      }
    });
    nodes.push(document.createTextNode(words(end)));
    find("text").replaceChildren(...nodes);
  }

  function showRelations(one) {
    find("relations").replaceChildren(...one.relations.map((relation, i) => {
      const [head, tail] = [one.entities[relation.head], one.entities[relation.tail]];
      const line = make("li", "", `${name(head)} — ${relation.label} → ${name(tail)}`);
      const button = make("button", "", "×");
      button.setAttribute("aria-label", "Remove the relation");
      button.addEventListener("click", () => change((s) => s.relations.splice(i, 1)));
      line.append(button);
      return line;
    }));
  }

  const token = (event) => event.target.closest?.("[data-token]");

  find("text").addEventListener("pointerdown", (event) => {
    const box = event.target.closest("[data-entity]");
    if (box) return pick(Number(box.dataset.entity));
    if (!token(event)) return;
    dragging = true;
    [anchor, picked] = [Number(token(event).dataset.token), null];
    cursor = anchor;
    show();
  });
  find("text").addEventListener("pointermove", (event) => {
    const under = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-token]");
    if (!dragging || !under || Number(under.dataset.token) === cursor) return;
    cursor = Number(under.dataset.token);
    show();
  });
  document.addEventListener("pointerup", () => {
    if (!dragging) return;
    dragging = false;
    const begin = anchor;
    anchor = null;
    label(begin, cursor, active);
  });

  function move(step, extend) {
    if (!extend) anchor = null;
    else anchor ??= cursor;
    picked = null;
    cursor = Math.min(Math.max(cursor + step, 0), now().tokens.length - 1);
    show();
  }

  function cycle(step) {
    const count = state().entities.length;
    if (count) pick(picked === null ? (step > 0 ? 0 : count - 1) : (picked + step + count) % count);
  }

  // Past the last entity, Tab leaves the text.
  function isLast(backwards) {
    const last = backwards ? 0 : state().entities.length - 1;
    return !state().entities.length || picked === last;
  }

  const keys = {
    ArrowLeft: (event) => move(-1, event.shiftKey),
    ArrowRight: (event) => move(1, event.shiftKey),
    Tab: (event) => cycle(event.shiftKey ? -1 : 1),
    Delete: () => picked !== null && change((one) => { remove(one, one.entities[picked]); picked = null; }),
    Escape: () => { [anchor, picked, from] = [null, null, null]; show(); },
    Enter: () => decide("done"),
    PageDown: () => go(1),
    PageUp: () => go(-1),
    x: () => decide("skipped"),
    u: undo,
    s: save,
    r: () => { if (picked !== null && related) { from = picked; show(); } },
    "?": () => find("help").showModal(),
  };
  keys.Backspace = keys.Delete;
  document.addEventListener("keydown", (event) => {
    if (find("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
    // Buttons keep the keys that press them and leave them.
    if (event.target.closest?.("button") && ["Enter", "Tab", " "].includes(event.key)) return;
    if (event.key === "Tab" && (event.target !== find("text") || isLast(event.shiftKey))) return;
    const digit = /^[1-9]$/.test(event.key) ? labels[Number(event.key) - 1] : undefined;
    const act = digit ? () => { if (picked === null && anchor === null) anchor = cursor; press(digit); } : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  find("accept").addEventListener("click", () => decide("done"));
  find("skip").addEventListener("click", () => decide("skipped"));
  find("undo").addEventListener("click", undo);
  find("back").addEventListener("click", () => go(-1));
  find("next").addEventListener("click", () => go(1));
  find("save").addEventListener("click", save);
  find("help-open").addEventListener("click", keys["?"]);
  window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  recall();
  if (texts.length) go(0);
})();
