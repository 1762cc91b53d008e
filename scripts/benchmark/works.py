"""All works, in the order of the table of figures to reach. A further table is a further module, listed
here.
"""

from __future__ import annotations

from benchmark.copying import ConvertScan, CopySession
from benchmark.crowd import Crowd
from benchmark.large import Header, Scattered, SecondRead, Sequential
from benchmark.listing import Find
from benchmark.tables import ASEG, ASHS, LargeCsv, LargeXlsx, Maps
from benchmark.views import CopyLargeView, CopyView, ListTypes
from benchmark.work import Work

_ALL: tuple[type[Work], ...] = (
    *(CopySession, ConvertScan, Sequential, Header, Scattered, SecondRead, Find, Crowd),
    *(ASEG, ASHS, Maps, LargeCsv, LargeXlsx),
    *(CopyView, CopyLargeView, ListTypes),
)
WORKS: dict[str, type[Work]] = {one.name: one for one in _ALL}
