  // --- the first screen: one threat at a time ---
  const threats = () => {
    const choice = document.getElementById("threat"), boards = [...document.querySelectorAll(".board")];
    const overlays = [...document.querySelectorAll("[data-overlay]")];
    const show = async () => {
      const place = choice ? choice.value : boards[0]?.dataset.board;
      boards.forEach((board) => { board.hidden = board.dataset.board !== place; });
      const board = boards.find((one) => !one.hidden);
      if (!board) return;
      overlays.forEach((figure) => { figure.hidden = figure.dataset.overlay !== board.dataset.axis; });
      const figure = overlays.find((one) => !one.hidden);
      await work(figure);
      const view = charts.get(figure.querySelector(".chart"));
      if (view) await view.data("chosen", [{ x: Number(board.dataset.chosen) }]).runAsync();
    };
    const follow = () => {
      const wanted = parameters().get("threat");
      if (choice && wanted !== null && choice.options[wanted]) choice.value = wanted;
      return show();
    };
    choice?.addEventListener("change", () => { show(); keep(choice); });
    window.addEventListener("hashchange", follow);
    return follow();
  };

  const keep = (control) => {
    const wanted = parameters();
    wanted.set(control.name, control.value);
    history.replaceState(null, "", `#${wanted}`);
  };

  // --- the images: filters, order, a few at a time ---
  const viewer = () => {
    const section = document.getElementById("images");
    if (!section) return;
    const list = section.querySelector(".pictures"), items = [...list.children];
    const controls = Object.fromEntries([...section.querySelectorAll("select")].map((c) => [c.name, c]));
    const told = section.querySelector("[data-value=images-shown]");
    const [back, on] = section.querySelectorAll("[data-step]");
    const few = window.matchMedia("(max-width: 40rem)").matches ? 3 : 6;
    let start = 0;
    const near = (item) => (item.dataset.near === "" ? Infinity : Number(item.dataset.near));
    const keeps = (item) => {
      const { of, state, class: label } = Object.fromEntries(Object.entries(controls).map(([n, c]) => [n, c.value]));
      const held = state === "certified" ? item.dataset.certified === "yes" : item.dataset.state === state;
      return (of === "all" || item.dataset.of === of) && (state === "all" || held)
        && (label === "all" || item.dataset.class === label);
    };
    const show = () => {
      const kept = items.filter(keeps);
      if (controls.order.value === "near") kept.sort((a, b) => near(a) - near(b) || a.dataset.id - b.dataset.id);
      const shown = kept.slice(start, start + few);
      items.forEach((item) => { item.hidden = !shown.includes(item); });
      list.append(...shown);
      told.textContent = kept.length ? `${start + 1} to ${start + shown.length} of ${kept.length} images` : "no such image";
      back.disabled = start === 0;
      on.disabled = start + few >= kept.length;
    };
    section.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => {
      start = Math.max(0, start + few * Number(button.dataset.step));
      show();
    }));
    Object.values(controls).forEach((c) => c.addEventListener("change", () => { start = 0; show(); }));
    show();
  };

  // --- two classifiers, image by image ---
  const pairing = () => {
    const section = document.getElementById("pairs");
    if (!section) return;
    const [first, second, what] = section.querySelectorAll("select");
    const rows = [...section.querySelectorAll(".pairing")], missing = section.querySelector("[data-value=pair-missing]");
    const illustrate = (row) => row.querySelectorAll(".thumbs li:not(:has(img))").forEach((item) => {
      const places = [row.dataset.first, row.dataset.second].map((n) => `picture-${n}-${item.dataset.id}`);
      const picture = places.map((place) => document.getElementById(place)).find(Boolean);
      if (picture) item.prepend(copy(picture));
    });
    const show = () => {
      const chosen = [first.value, second.value];
      rows.forEach((row) => {
        const { first: a, second: b, what: kind } = row.dataset;
        row.hidden = !(chosen.includes(a) && chosen.includes(b) && a !== b && kind === what.value);
        if (!row.hidden) illustrate(row);
      });
      missing.hidden = rows.some((row) => !row.hidden);
    };
    [first, second, what].forEach((control) => control.addEventListener("change", show));
    const { first: a, second: b, what: kind } = (rows.find((row) => row.dataset.what !== "clean") ?? rows[0]).dataset;
    [first.value, second.value, what.value] = [a, b, kind];
    show();
  };

  // --- folds: a link opens what it points into, print opens the classifiers ---
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    target.querySelector(":scope > details.whole")?.setAttribute("open", "");
    for (let at = target; at; at = at.parentElement) if (at.matches("details")) at.open = true;
    target.scrollIntoView();
  };
  document.addEventListener("click", (event) => {
    const more = event.target.closest("button.more"), link = event.target.closest("a[href^='#']");
    if (more) {
      const table = more.closest("div").querySelector(".byclass");
      more.setAttribute("aria-expanded", String(table.classList.toggle("all")));
    }
    if (link && link.hash === location.hash) reveal();
  });
  window.addEventListener("hashchange", reveal);
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details.whole").forEach((fold) => { fold.open = true; });
  });

  viewer();
  pairing();
  reveal();
  threats().then(() => work(document)).then(settled);
})();
