"""Table 1, Figures 1, 2, 4 to 8 and the local Lipschitz constant of Bai et al. 2024 with small nets on CIFAR-10.

    python reproductions/mixing_curves.py NAME...            compute what is missing, then write .json, .md and .svg
    python reproductions/mixing_curves.py NAME... --render   write .md and .svg again from the .json alone

NAME is table_1, figure_1, ..., local_lipschitz or all.  Needs the runs of ``results.sh``, and one of each recipe
smoothed_*, trades_0 to trades_6, iaat and pgd_l2: ``hauberk train RECIPE -o runs/small_cifar10/RECIPE-seed0``.  Every
cell is kept as soon as it is finished, and a cell that is there is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

import mixing_curves_attacked as attacked
import mixing_curves_certified as smoothing
import mixing_curves_trades as sweep
import mixing_curves_trust as trust
from mixing_curves_nets import Curve


@dataclass(frozen=True)
class Result:
    """How a table or figure is computed, summed up and drawn.

    Args:
        measure: store, images, divisor of steps.
        summarise: puts ``summary`` into the store.
        page: the Markdown lines.
        chart: the SVG, or none for a table.
        images: how many.
    """

    measure: Callable[[Curve, int], None]
    summarise: Callable[[Curve], None]
    page: Callable[[Curve], list[str]]
    chart: Callable[[Curve], str] | None
    images: int


RESULTS = {
    "table_1": Result(attacked.gaps, attacked.gaps_summary, attacked.gaps_page, None, 1000),
    "figure_2": Result(attacked.targets, attacked.targets_summary, attacked.targets_page, attacked.targets_chart, 1000),
    "figure_4": Result(attacked.kinds, attacked.kinds_summary, attacked.kinds_page, attacked.kinds_chart, 1000),
    "local_lipschitz": Result(sweep.slopes, sweep.slopes_summary, sweep.slopes_page, None, 500),
    "figure_5": Result(sweep.trades, sweep.trades_summary, sweep.trades_page, sweep.trades_chart, 1000),
    "figure_6": Result(smoothing.measure, smoothing.summarise, smoothing.page, smoothing.chart, 500),
    "figure_7": Result(smoothing.measure, smoothing.summarise, smoothing.page, smoothing.chart, 500),
    "figure_1": Result(trust.measure, trust.summarise, trust.page, trust.chart, 256),
    "figure_8": Result(trust.measure, trust.summarise, trust.page, trust.chart, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*RESULTS, "all"], metavar="NAME")
    parser.add_argument("--render", action="store_true", help="no models: pages and charts from the JSON")
    parser.add_argument("--images", type=int, help="fewer of the first images")
    parser.add_argument("--smoke", action="store_true", help="a trial, written under runs/smoke")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(RESULTS) if "all" in options.names else options.names
    for name in names:
        store, result = Curve(name, options.smoke), RESULTS[name]
        if not options.render:
            result.measure(store, options.images or result.images)
        result.summarise(store)
        store.write()
        store.put(".md", "\n".join(result.page(store)).rstrip() + "\n")
        if result.chart:
            store.put(".svg", result.chart(store))
        print(f"{store.path.parent}/{name}.md", flush=True)


if __name__ == "__main__":
    main()
