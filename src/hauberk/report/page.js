"use strict";
(() => {
  const text = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

  const draw = async (element) => {
    const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
    const { view } = await vegaEmbed(element, spec, { actions: false, defaultStyle: false, renderer: "svg" });
    // the width follows the text column, not only the window (print, zoom)
    new ResizeObserver(() => {
      if (element.clientWidth !== view.signal("width")) view.signal("width", element.clientWidth).resize().runAsync();
    }).observe(element);
    return view;
  };

  // how many of the sorted values are below the bound, or at most the bound
  const count = (sorted, bound, inclusive) => {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < bound || (inclusive && sorted[middle] === bound)) low = middle + 1; else high = middle;
    }
    return low;
  };

  const parameters = () => new URLSearchParams(location.hash.slice(1));

  const mix = async (section) => {
    const data = JSON.parse(document.getElementById(section.dataset.numbers).textContent);
    const slider = section.querySelector("input[type=range]");
    const choice = section.querySelector("select");
    const parts = (name) => section.querySelectorAll(`[data-value=${name}]`);
    const part = (name) => parts(name)[0];
    const view = await draw(section.querySelector(".plane"));
    const clean = (alpha) => count(data.low, alpha, false) - count(data.high, alpha, true);
    const proved = (alpha, index) => count(data.needed[index], alpha, true);
    const share = (k, round) => `${text.format(round(1000 * k / data.images) / 10)} %`;
    const point = (alpha, index) => ({ alpha, x: proved(alpha, index) / data.images, y: clean(alpha) / data.images });
    const replace = (name, rows) => view.data(name, rows);

    const show = () => {
      const alpha = Number(slider.value), target = data.targets[Number(choice.value)], index = target.index;
      part("alpha").textContent = alpha.toFixed(data.step === 0.01 ? 2 : 3);
      part("clean").textContent = share(clean(alpha), Math.round);
      part("clean-count").textContent = `${clean(alpha)} of ${data.images} images`;
      parts("where").forEach((place) => { place.textContent = target.where; });
      part("proved").textContent = index === null ? "–" : share(proved(alpha, index), Math.floor);
      part("proved-count").textContent =
        index === null ? `not ${data.word} at this budget` : `${proved(alpha, index)} of ${data.images} images`;
      const measured = target.dots.find((dot) => dot.alpha === alpha);
      part("attacked").textContent = measured ? measured.text : "–";
      part("attacked-count").textContent = measured ? measured.count : "not attacked at this α";
      slider.setAttribute("aria-valuetext", `alpha ${part("alpha").textContent}, clean ${part("clean").textContent}, ` +
        `${data.word} ${part("proved").textContent}`);
      replace("here", index === null ? [] : [point(alpha, index)]);
      view.runAsync();
    };
    const retarget = () => {
      const target = data.targets[Number(choice.value)];
      const steps = Math.round(1 / data.step);
      const alphas = Array.from({ length: steps + 1 }, (_, k) => k / steps);
      replace("path", target.index === null ? [] : alphas.map((alpha) => point(alpha, target.index)));
      replace("dots", target.dots);
      show();
    };
    const follow = () => {
      const wanted = parameters(), alpha = Number(wanted.get(slider.name)), target = Number(wanted.get(choice.name));
      if (wanted.has(slider.name) && alpha >= 0 && alpha <= 1) slider.value = alpha;
      if (wanted.has(choice.name) && target in data.targets) choice.value = target;
      retarget();
    };
    const share_link = () => {
      const wanted = parameters();
      wanted.set(slider.name, slider.value);
      wanted.set(choice.name, choice.value);
      history.replaceState(null, "", `#${wanted}`);
    };
    slider.addEventListener("input", show);
    slider.addEventListener("change", share_link);
    choice.addEventListener("change", () => { retarget(); share_link(); });
    window.addEventListener("hashchange", follow);
    follow();
  };

  const work = [...[...document.querySelectorAll(".mix")].map(mix), ...[...document.querySelectorAll(".chart")].map(draw)];
  Promise.all(work).then(() => { document.documentElement.dataset.ready = "yes"; });
})();
