"""All workloads, in the order of the table of figures to reach. A further table is a further module, listed
here.
"""

from __future__ import annotations

from benchmark.converting import ConvertAll, ConvertT1
from benchmark.copying import ConvertScan, CopySession
from benchmark.crowd import Crowd
from benchmark.large import Header, Scattered, SecondRead, Sequential
from benchmark.listing import Find
from benchmark.tables import ASEG, ASHS, LargeCsv, LargeXlsx, Maps
from benchmark.views import CopyLargeView, CopyView, ListTypes
from benchmark.workload import Workload

_ALL: tuple[type[Workload], ...] = (
    *(CopySession, ConvertScan, ConvertT1, ConvertAll),
    *(Sequential, Header, Scattered, SecondRead, Find, Crowd),
    *(ASEG, ASHS, Maps, LargeCsv, LargeXlsx),
    *(CopyView, CopyLargeView, ListTypes),
)
WORKLOADS: dict[str, type[Workload]] = {workload.name: workload for workload in _ALL}
