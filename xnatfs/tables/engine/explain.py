"""Why a project has the tables it has: its resources, what each feeds, and which nothing reads.

Used by `xnatfs table PROJECT --explain`, for sites whose labels differ from the usual ones.
"""

from __future__ import annotations

from xnatfs.tables.engine import overrides
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.engine.discover import TableDiscovery

_LEVELS = {
    "experiment": "session",
    "scan": "scan",
    "assessor": "assessor",
    "reconstruction": "reconstruction",
}


def explain(builder: Builder, finder: TableDiscovery, project: str) -> str:
    """A text for people.

    Raises:
        Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering.
        UsageError: the project's tables.toml cannot be understood.
    """
    summary = builder.summaries.get(project)
    builder.summaries.look_into(summary, summary.experiments, all_of_them=False)
    present = finder.present(project)
    site = builder.overrides.of(summary)
    types = present.types
    feeds: dict[tuple[str, str], list[str]] = {}
    for key in present.keys:
        for want in site.spec(builder.tables[key]).wanted:
            for level, label in present.labels:
                fits = label == want.label and (
                    not want.xsi_type or (level == "assessor" and (want.xsi_type, label) in types)
                )
                if fits:
                    feeds.setdefault((level, label), []).append(key)
    lines = [f"project {project}: {len(summary.experiments)} sessions"]
    has_resource = any(resource.label == overrides.RESOURCE for resource in summary.resources)
    lines.append(
        f"overrides: {overrides.user_file()} ({'there' if overrides.user_file().exists() else 'not there'})"
    )
    lines.append(
        f"           {overrides.NAME} in the project's resource {overrides.RESOURCE} "
        f"({'there' if has_resource else 'not there'})"
    )
    lines.append("")
    lines.append("resources and the tables they feed:")
    for level, label in sorted(present.labels, key=lambda entry: (list(_LEVELS).index(entry[0]), entry[1])):
        kinds = sorted(kind for kind, name in types if name == label and kind) if level == "assessor" else []
        name = f"{'|'.join(kinds)}/{label}" if kinds else label or "(no label)"
        where = f"{_LEVELS[level]} resource {name}"
        lines.append(
            f"  {where}: {', '.join(sorted(set(feeds.get((level, label), ())))) or 'nothing reads it'}"
        )
    if not present.labels:
        lines.append("  the sessions have no resources")
    return "\n".join(lines)
