"use strict";
(() => {
  const text = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

  const charts = new Map();
  const settled = () => { document.documentElement.dataset.ready = "yes"; };

  const draw = async (element) => {
    const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
    const { view } = await vegaEmbed(element, spec, { actions: false, defaultStyle: false, renderer: "svg" });
    // the width follows the text column, not only the window (print, zoom)
    new ResizeObserver(() => {
      if (element.clientWidth !== view.signal("width")) view.signal("width", element.clientWidth).resize().runAsync();
    }).observe(element);
    return view;
  };

  const copy = (picture) => {
    const made = picture.cloneNode();
    made.removeAttribute("id");
    return made;
  };

  const parameters = () => new URLSearchParams(location.hash.slice(1));

  const mix = async (section) => {
    const data = JSON.parse(document.getElementById(section.dataset.numbers).textContent);
    const slider = section.querySelector("input[type=range]");
    const choice = section.querySelector("select[name^=against]"), filter = section.querySelector("select[name^=show]");
    const parts = (name) => section.querySelectorAll(`[data-value=${name}]`);
    const part = (name) => parts(name)[0];
    const write = (name, value) => parts(name).forEach((place) => { place.textContent = value; });
    const view = await draw(section.querySelector(".plane"));
    const images = grid(section, data, write);
    const step = (alpha) => Math.round(alpha * data.steps);  // the counts are listed by step of the slider
    const clean = (alpha) => data.clean[step(alpha)];
    const share = (k, n, round) => `${text.format(round(1000 * k / n) / 10)} %`;
    const replace = (name, rows) => view.data(name, rows);
    const target = () => data.targets[Number(choice.value)];

    // both lines of the plane: how many images count at each step, and of how many images
    const lines = () => {
      const { index, estimate } = target(), guess = data.estimates[estimate];
      return {
        proved: index === null ? null : { needed: data.needed[index], images: data.images, from: 0 },
        guessed: guess ? { needed: guess.needed, images: guess.images, from: 0.5 } : null,
      };
    };
    const point = (alpha, line) =>
      ({ alpha, x: line.needed[step(alpha)] / line.images, y: clean(alpha) / data.images });
    const points = (alphas, line) =>
      line === null ? [] : alphas.filter((alpha) => alpha >= line.from).map((alpha) => point(alpha, line));
    const figure = (name, alpha, line, round, missing) => {
      const known = line !== null && alpha >= line.from, found = known ? line.needed[step(alpha)] : 0;
      write(name, known ? share(found, line.images, round) : "–");
      write(`${name}-count`, known ? `${found} of ${line.images} images` : missing);
    };

    const show = () => {
      const alpha = Number(slider.value), { dots, estimate, index, where } = target(), { proved, guessed } = lines();
      write("alpha", alpha.toFixed(data.steps === 100 ? 2 : 3));
      write("where", where);
      write("clean", share(clean(alpha), data.images, Math.round));
      write("clean-count", `${clean(alpha)} of ${data.images} images`);
      figure("proved", alpha, proved, Math.floor, "not certified at this budget");
      figure("guessed", alpha, guessed, Math.round, guessed ? "no estimate below α = 0.5" : "no attack on the robust model");
      const measured = dots.find((dot) => dot.alpha === alpha);
      write("attacked", measured ? measured.text : "–");
      write("attacked-count", measured ? measured.count : "not attacked at this α");
      write("command", data.command.join(String(alpha)));
      write("copied", "");
      const said = { alpha: "alpha", clean: "clean", proved: "certified", guessed: "estimated" };
      slider.setAttribute("aria-valuetext", Object.entries(said).filter(([name]) => part(name))
        .map(([name, word]) => `${word} ${part(name).textContent}`).join(", "));
      replace("here", points([alpha], proved));
      replace("there", points([alpha], guessed));
      images(alpha, index, estimate);
      view.runAsync();
    };
    const retarget = () => {
      const { proved, guessed } = lines();
      const alphas = Array.from({ length: data.steps + 1 }, (_, k) => k / data.steps);
      replace("path", points(alphas, proved));
      replace("guess", points(alphas, guessed));
      replace("dots", target().dots);
      show();
    };
    const follow = () => {
      const wanted = parameters(), alpha = Number(wanted.get(slider.name)), place = Number(wanted.get(choice.name));
      if (wanted.has(slider.name) && alpha >= 0 && alpha <= 1) slider.value = alpha;
      if (wanted.has(choice.name) && place in data.targets) choice.value = place;
      const kept = [...filter?.options ?? []].find((option) => option.value === wanted.get(filter.name));
      if (kept) kept.selected = true;
      retarget();
    };
    const share_link = () => {
      const wanted = parameters();
      [slider, choice, filter].forEach((control) => { if (control) wanted.set(control.name, control.value); });
      history.replaceState(null, "", `#${wanted}`);
    };
    const copied = async () => {
      const code = part("command");
      try {
        await navigator.clipboard.writeText(code.textContent);
        write("copied", "Copied.");
      } catch {  // no permission, or no such interface
        getSelection().selectAllChildren(code);
        write("copied", "Selected, ready to be copied.");
      }
    };
    slider.addEventListener("input", show);
    slider.addEventListener("change", share_link);
    choice.addEventListener("change", () => { retarget(); share_link(); });
    filter?.addEventListener("change", () => { show(); share_link(); });
    section.querySelector("button").addEventListener("click", copied);
    window.addEventListener("hashchange", follow);
    follow();
  };

  // the images: their pictures are copies of those further down the page
  const grid = (section, data, write) => {
    const filter = section.querySelector("select[name^=show]"), items = section.querySelectorAll(".grid li");
    items.forEach((item) => {
      item.prepend(copy(document.getElementById(item.dataset.picture)));
    });
    return (alpha, index, estimate) => {
      let shown = 0;
      section.style.setProperty("--alpha", alpha);
      items.forEach((item, k) => {
        const card = data.cards[k], right = card.low < alpha && alpha < card.high;
        const from = (needed) => typeof needed === "number" && needed <= alpha;
        const state = !right ? "wrong" : from(card.needed[index]) ? "right, certified"
          : from(card.estimates[estimate]) ? "right, estimated to hold" : "right";
        const kinds = {
          all: true, right, wrong: !right, accurate: card.accurate && !card.robust,
          robust: card.robust && !card.accurate, neither: !card.accurate && !card.robust,
        };
        item.querySelector(".state").textContent = state;
        item.className = right ? "right" : "wrong";
        item.hidden = !kinds[filter.value];
        if (!item.hidden) shown += 1;
      });
      write("shown", `${shown} of ${items.length} images`);
    };
  };

  // what is folded is drawn when it is opened: a chart has no width before
  const drawn = new WeakSet();
  const work = (root) => {
    const found = [...root.querySelectorAll(".mix, .chart")].filter((e) => !drawn.has(e) && e.getClientRects().length > 0);
    return Promise.all(found.map((element) => {
      drawn.add(element);
      return element.matches(".mix") ? mix(element) : draw(element).then((view) => charts.set(element, view));
    }));
  };
  const unfold = (event) => { if (event.target.open) work(event.target).then(settled); };
  document.addEventListener("toggle", unfold, true);
