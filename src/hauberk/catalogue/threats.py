"""What the adversary may do."""

from hauberk.catalogue.entry import Family

FAMILY = Family("threat")

FAMILY.add("linf", "hauberk.threats:Linf", "each pixel moves by at most eps", "Madry et al. 2018")
FAMILY.add("l2", "hauberk.threats:L2", "the Euclidean length of the change is at most eps")
FAMILY.add("l1", "hauberk.threats:L1", "the sum of absolute changes is at most eps")
