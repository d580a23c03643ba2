"""Where units of work are done."""

from hauberk.catalogue.entry import Family

FAMILY = Family("executor")

FAMILY.add(
    "inline", "hauberk.executors.inline:Inline", "one after another, in this process", where="this process",
)  # fmt: skip
FAMILY.add(
    "processes", "hauberk.executors.processes:Processes", "in several processes of this machine", where="this machine",
)  # fmt: skip
FAMILY.add(
    "ray", "hauberk.executors.ray:Ray", "on a Ray cluster, or in Ray's processes of this machine",
    "Moritz et al. 2018, Ray", where="a cluster",
)  # fmt: skip
