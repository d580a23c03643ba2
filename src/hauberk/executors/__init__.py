"""The executors of units of work: in this process, in several processes of this machine, or on a Ray cluster."""

from hauberk.executors.base import Crew, Executor, Job
from hauberk.executors.inline import Inline
from hauberk.executors.processes import Processes
from hauberk.executors.ray import Ray

__all__ = ["Crew", "Executor", "Inline", "Job", "Processes", "Ray"]
