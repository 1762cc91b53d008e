"""The folder `bids/` of a view: the sessions of a scope as a BIDS dataset, docs/bids.md.

    bids/dataset_description.json, README, participants.tsv, unmapped.tsv, code/bids.toml ...
        /sub-*/sub-*_sessions.tsv
              /ses-*/sub-*_ses-*_scans.tsv, anat/ func/ dwi/ fmap/ perf/

Used by `views`. Images are the nodes of their resources under other names. A sidecar that lacks something is
made when it is opened; until then its size is a placeholder. Looking at the top lists no session's files; a
session's are listed when its folder is looked at.
Threading: any thread; values derived from listings are kept with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from xnatfs._version import __version__
from xnatfs.bids import file_names, metadata_files, sidecars
from xnatfs.bids.dataset import BidsPlan, Context, Same, Sidecar, Text, Unmapped, arrange, context
from xnatfs.bids.mapping import BidsMap
from xnatfs.bids.metadata_files import Person, VisitRow
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord, Owner, natural
from xnatfs.tree.bids_guesses import SUGGESTED, BidsGuesses
from xnatfs.tree.bids_maps import Maps, ScopeMaps
from xnatfs.tree.bids_people import FILES, KnownPeople, known_people
from xnatfs.tree.bids_scans import Gathered, gather, may_make, may_show, read_start
from xnatfs.tree.converted_files import AssumedFile, ConvertedFile
from xnatfs.tree.generated import GeneratedFile, GeneratedFolderState, known_text, made_when_opened
from xnatfs.tree.node import Branch, File, FileBranch, Node, UnknownSize, inode_in_order, inode_of
from xnatfs.tree.resource import Sources
from xnatfs.tree.scope import Member, SessionScope, Snapshot

# Shown of a sidecar before it is made. The BIDS validator reserves as much memory; what is made of a text is
# at most several times as long.
_MIN_UNKNOWN_BYTES = 2**20


class _People(NamedTuple):
    """Who is in the dataset: subjects and their visits by label, in order, the visits by label too."""

    people: dict[str, Person]
    visits: dict[str, dict[str, VisitRow]]
    accession: dict[str, str]  # of a subject, by label
    hidden: list[VisitRow]  # sessions nothing of which can be placed


@dataclass(frozen=True)
class _BidsFolder:
    """One dataset."""

    sources: Sources
    scope: SessionScope
    maps: ScopeMaps
    made: GeneratedFolderState

    # --- the top --------------------------------------------------------------------------------------------

    def top(self) -> Mapping[str, Node]:
        snapshot = self.scope.members()
        maps = self.maps.of(snapshot)
        return snapshot.memo.get(
            (self.scope.identity, "bids top", maps.prints), lambda: self._top(snapshot, maps)
        )

    def _top(self, snapshot: Snapshot, maps: Maps) -> Mapping[str, Node]:
        mtime = self._mtime(snapshot)
        where = self.scope.identity
        if maps.problem:
            text = f"No BIDS view: {maps.problem}\n"
            return {"README": known_text(text.encode("utf-8", "replace"), mtime, *where, "README")}
        people = self.people(snapshot, maps)
        known = known_people(self.sources, snapshot.project_snapshots, people.people, people.visits)
        title = self._title(snapshot)
        made_by = self._made_by(snapshot, maps)
        projects = [
            f"{self.sources.settings.server}/data/projects/{project}"
            for project in snapshot.project_snapshots
        ]
        small = {
            "dataset_description.json": metadata_files.description(
                title, projects, __version__, [made_by] if made_by else []
            ),
            "README": metadata_files.readme(title, __version__, maps.described(), made_by.get("Version", "")),
            ".bidsignore": metadata_files.IGNORED,
        }
        if known.failure is None:
            small |= known.files(people.people.values())
        nodes: dict[str, Node] = {name: known_text(data, mtime, *where, name) for name, data in small.items()}
        if known.failure is not None:
            nodes |= {name: self._participants_file(name, mtime) for name in FILES}
        nodes[metadata_files.UNMAPPED] = self._made_of_all(mtime, self._unmapped, metadata_files.UNMAPPED)
        nodes["code"] = self._code(maps, mtime)
        for label, visits in people.visits.items():
            nodes[f"sub-{label}"] = self._subject(label, people.accession[label], visits, known)
        return nodes

    def _made_by(self, snapshot: Snapshot, maps: Maps) -> dict[str, str]:
        """What makes images of DICOM files; nothing where there is no scan, as far as is known, to make one
        of.
        """
        conversions = self.sources.conversions
        if conversions is None or conversions.missing:
            return {}
        for project, experiment in snapshot.members:
            project_snapshot, chosen = snapshot.project_snapshots[project], maps.maps[project]
            for scan in project_snapshot.scans.get(experiment.id, ()):
                resources = project_snapshot.resources.get(Owner("scan", experiment.id, scan.id), [])
                if may_make(self.sources, chosen, project, scan, resources):
                    return conversions.made_by()
        return {}

    def _participants_file(self, name: str, mtime: float) -> GeneratedFile:
        """A table that cannot be had now: each look tries again."""

        def made() -> bytes:
            snapshot = self.scope.members()
            people = self.people(snapshot, self.maps.of(snapshot))
            known = known_people(self.sources, snapshot.project_snapshots, people.people, people.visits)
            return known.files(people.people.values())[name]

        return made_when_opened(
            self.made, lambda: name, made, lambda: mtime, *self.scope.identity, name, every_time=True
        )

    def _code(self, maps: Maps, mtime: float) -> Branch:
        files: dict[str, Node] = {
            name: known_text(text, mtime, *self.scope.identity, "code", name)
            for name, text in maps.texts().items()
        }
        files[SUGGESTED] = self._made_of_all(mtime, self._suggestion, "code", SUGGESTED)
        return Branch(inode_of("bids", *self.scope.identity, "code"), lambda: files, mtime=mtime)

    def _title(self, snapshot: Snapshot) -> str:
        if len(snapshot.project_snapshots) == 1:
            project = next(iter(snapshot.project_snapshots.values())).project
            return project.name or project.id
        return self.scope.title

    def _mtime(self, snapshot: Snapshot) -> float:
        stamps = [member.experiment.inserted for member in snapshot.members]
        stamps += [
            project_snapshot.project.inserted for project_snapshot in snapshot.project_snapshots.values()
        ]
        return max((stamp for stamp in stamps if stamp is not None), default=0.0)

    # --- people ---------------------------------------------------------------------------------------------

    def people(self, snapshot: Snapshot, maps: Maps) -> _People:
        """Subjects and sessions under legal labels; only sessions that may have something to show."""
        key = (self.scope.identity, "bids people", maps.prints)
        return snapshot.memo.get(key, lambda: self._people(snapshot, maps))

    def _people(self, snapshot: Snapshot, maps: Maps) -> _People:
        of_subject: dict[str, dict[str, Member]] = {}
        hidden: list[VisitRow] = []
        for member in snapshot.members:
            experiment = member.experiment
            if not experiment.may_have_scans:
                continue
            of_subject.setdefault(experiment.subject_id or experiment.subject_label, {}).setdefault(
                experiment.id, member
            )
        members = {subject: next(iter(sessions.values())) for subject, sessions in of_subject.items()}
        # Every subject takes part in telling labels apart, shown or not: a first image must not rename
        # another subject.
        labels = file_names.labels(
            {
                subject: file_names.subject_text(
                    member.experiment.subject_label, maps.maps[member.project].subject
                )
                for subject, member in members.items()
            }
        )
        people = _People({}, {}, {}, hidden)
        for subject, sessions in of_subject.items():
            original = members[subject].experiment.subject_label
            inner = file_names.labels(
                {
                    id: file_names.session_text(
                        member.experiment.label,
                        member.experiment.subject_label,
                        maps.maps[member.project].session,
                    )
                    for id, member in sessions.items()
                }
            )
            visits: dict[str, VisitRow] = {}
            for identity, member in sessions.items():
                visit = VisitRow(inner[identity], member.project, member.experiment)
                if self._may_show(snapshot, maps, member):
                    visits[inner[identity]] = visit
                else:
                    hidden.append(visit)
            if visits:
                label = labels[subject]
                people.people[label] = Person(label, original, subject, members[subject].project)
                people.visits[label] = visits
                people.accession[label] = subject
        return people

    def _may_show(self, snapshot: Snapshot, maps: Maps, member: Member) -> bool:
        """Whether some scan may have an image with a place, as far as is known without asking."""
        project_snapshot, identity = snapshot.project_snapshots[member.project], member.experiment.id
        if identity not in project_snapshot.scans_known:
            return True
        chosen = maps.maps[member.project]
        for scan in project_snapshot.scans.get(identity, []):
            resources = project_snapshot.resources.get(Owner("scan", identity, scan.id), [])
            if may_show(self.sources, chosen, member.project, scan, resources):
                return True
        return False

    # --- subjects and sessions ------------------------------------------------------------------------------

    def _subject(
        self, label: str, accession: str, visits: Mapping[str, VisitRow], known: KnownPeople
    ) -> Branch:
        where = (*self.scope.identity, accession)
        mtime = max((visit.experiment.inserted or 0.0 for visit in visits.values()), default=0.0)
        nodes: dict[str, Node] = {
            f"ses-{name}": self._session(label, visit) for name, visit in visits.items()
        }
        stem = f"sub-{label}_sessions"
        table, described = known.of_sessions(visits.values())
        nodes[f"{stem}.tsv"] = known_text(table, mtime, *where, "sessions.tsv")
        nodes[f"{stem}.json"] = known_text(described, mtime, *where, "sessions.json")
        first = next(iter(visits.values())).experiment
        xattrs = {"subject": first.subject_label, "id": accession}
        inode = inode_in_order(accession, "bids", *self.scope.identity)
        return Branch(inode, lambda: nodes, mtime=mtime, xattrs=xattrs)

    def _session(self, subject: str, visit: VisitRow) -> Branch:
        experiment = visit.experiment
        inode = inode_in_order(experiment.id, "bids", *self.scope.identity, "sessions")
        xattrs = {
            "project": visit.project,
            "id": experiment.id,
            "label": experiment.label,
            "date": experiment.date,
        }
        return Branch(
            inode,
            lambda: self.session(subject, visit).nodes,
            mtime=experiment.inserted,
            xattrs={name: value for name, value in xattrs.items() if value},
        )

    def session(self, subject: str, visit: VisitRow) -> _Shown:
        """The files of a session: listed now, unless they are in memory."""
        snapshot = self.scope.members()
        maps = self.maps.of(snapshot)
        rules = maps.maps.get(visit.project)
        if rules is None:
            raise Failure(Cause.NO_ENTRY, visit.experiment.label, maps.problem)
        result = gather(self.sources, snapshot, rules, Member(visit.project, visit.experiment))
        # What is derived lives with the listing it is derived from; where a session needs several, with the
        # newest members.
        key = (self.scope.identity, "bids session", subject, visit, rules.fingerprint, result.state)
        return snapshot.memo.get(key, lambda: self._show(subject, visit, rules, result))

    def _show(self, subject: str, visit: VisitRow, rules: BidsMap, result: Gathered) -> _Shown:
        experiment = visit.experiment
        plan = arrange(subject, visit.label, result.given, rules)
        folders: dict[str, dict[str, Node]] = {}
        where = (*self.scope.identity, experiment.id)
        mtime = experiment.inserted or 0.0
        maps = dict.fromkeys(
            record.owner.part
            for path, what in plan.files.items()
            if path.startswith("fmap/")
            for record in _made_from(what)
        )
        for path, what in plan.files.items():
            folder, _, name = path.partition("/")
            node = self._node(what, result.nodes, mtime, *where, path)
            involved = _made_from(what)
            scans = dict.fromkeys(record.owner.part for record in involved)
            if folder == "fmap":  # which image is which, and echo times, are in the files of all of them
                scans |= maps
            unknown = tuple(result.unknown[scan] for scan in scans if scan in result.unknown)
            if unknown:
                node = AssumedFile(node, unknown, partial(self._now, subject, visit, path, involved[0].owner))
            folders.setdefault(folder, {})[name] = node
        nodes: dict[str, Node] = {}
        for folder in sorted(folders):
            inode = inode_of("bids", *where, folder)
            # Whoever has just looked a folder up sees what became of the scans meanwhile.
            entries = (
                partial(self._folder, subject, visit, folder)
                if result.unknown
                else partial(_same, folders[folder])
            )
            nodes[folder] = FileBranch(inode, entries, mtime=mtime)
        if plan.rows:
            stem = f"sub-{subject}_ses-{visit.label}_scans"
            nodes[f"{stem}.tsv"] = known_text(
                metadata_files.scans(plan.rows, experiment), mtime, *where, "scans.tsv"
            )
            nodes[f"{stem}.json"] = known_text(
                metadata_files.described(metadata_files.SCANS), mtime, *where, "scans.json"
            )
        return _Shown(nodes, plan, folders)

    def _folder(self, subject: str, visit: VisitRow, folder: str) -> Mapping[str, Node]:
        return self.session(subject, visit).folders.get(folder, {})

    def _now(self, subject: str, visit: VisitRow, path: str, scan: Owner) -> File | None:
        """What has a name now, if it is of the scan it was of."""
        shown = self.session(subject, visit)
        what = shown.plan.files.get(path)
        image = what.record if isinstance(what, Same) else getattr(what, "image", None)
        if image is None or image.owner != scan:
            return None
        folder, _, name = path.partition("/")
        node = shown.folders[folder][name]
        return node if isinstance(node, File) else None

    def _node(
        self,
        what: Same | Text | Sidecar | Context,
        files: Mapping[FileRecord, File],
        mtime: float,
        *where: str,
    ) -> File:
        if isinstance(what, Same):
            return files[what.record]
        if isinstance(what, Text):
            return known_text(what.data, mtime, *where)
        if isinstance(what, Context):
            image = files[what.image]

            def made() -> bytes:
                volumes = sidecars.volumes(read_start(image, sidecars.HEADER_BYTES)) or len(what.volumes)
                return context(what.volumes, volumes)

            recipe = f"{image.version} {what.volumes}"
            return made_when_opened(
                self.made,
                lambda: recipe,
                made,
                lambda: mtime,
                *where,
                unknown=UnknownSize(_MIN_UNKNOWN_BYTES),
            )
        if not what.sources and not what.preparation:
            return known_text(sidecars.with_fields(b"", what.fields), mtime, *where)
        nodes = {record: files[record] for record in what.sources}
        recipe = json.dumps(
            [*what.fields.items(), what.header, what.preparation, sorted(what.borrowed)], default=str
        )
        original = None if what.original is None else nodes[what.original]

        def key() -> str:
            return "\n".join([recipe, *(node.version for node in nodes.values())])

        return made_when_opened(
            self.made,
            key,
            lambda: self._sidecar(what, nodes),
            lambda: mtime if original is None else original.mtime,
            *where,
            unknown=UnknownSize(max(_MIN_UNKNOWN_BYTES, 8 * what.original.size if what.original else 0)),
            xattrs=files[what.image].xattrs() if isinstance(files[what.image], ConvertedFile) else None,
        )

    def _sidecar(self, what: Sidecar, nodes: Mapping[FileRecord, File]) -> bytes:
        """The bytes of a sidecar, from the files it is made from."""
        original = b"" if what.original is None else read_start(nodes[what.original])
        parsed = sidecars.read(original) if original else {}
        if parsed is None and what.original is not None:
            self.sources.diagnostics.odd(f"{what.original.uri!r}: a sidecar that is not a JSON object")
        fields = parsed or {}
        wanted: dict[str, Any] = dict(what.fields)
        if what.header and "RepetitionTime" not in fields and "VolumeTiming" not in fields:
            repetition = sidecars.repetition_time(read_start(nodes[what.image], sidecars.HEADER_BYTES))
            if repetition is not None:
                wanted["RepetitionTime"] = repetition
        if what.preparation and "RepetitionTime" in {**wanted, **fields}:
            wanted.setdefault("RepetitionTimePreparation", {**wanted, **fields}["RepetitionTime"])
        for name, record in what.borrowed.items():
            echo = (
                (sidecars.read(read_start(nodes[record])) or {}).get("EchoTime")
                if name not in fields
                else None
            )
            if echo is not None:
                wanted.setdefault(name, echo)
        return sidecars.with_fields(original, wanted)

    # --- what could not be mapped ---------------------------------------------------------------------------

    def _made_of_all(self, mtime: float, made: Callable[[], bytes], *where: str) -> GeneratedFile:
        """A file that all sessions have to be listed for, made at each look."""

        def key() -> str:
            snapshot = self.scope.members()
            return snapshot.memo.get(
                ("bids unmapped", self.scope.identity, where),
                lambda: f"{where[-1]} {self.scope.identity} {id(snapshot)}",
            )

        return made_when_opened(
            self.made, key, made, lambda: mtime, *self.scope.identity, *where, every_time=True
        )

    def _unmapped(self) -> bytes:
        snapshot = self.scope.members()
        guesses = BidsGuesses(self.sources, snapshot, self.maps.of(snapshot))
        return metadata_files.unmapped(
            (visit, visit.experiment.subject_label, row, guesses.at_hand(visit, row.scan))
            for visit, row in self._left_out(snapshot)
        )

    def _suggestion(self) -> bytes:
        snapshot = self.scope.members()
        guesses = BidsGuesses(self.sources, snapshot, self.maps.of(snapshot))
        return guesses.suggestion(
            (visit, row)
            for visit, row in self._left_out(snapshot)
            if row.scan.quality not in (guesses.maps.maps[visit.project].skip_quality or ())
        )

    def _left_out(self, snapshot: Snapshot) -> list[tuple[VisitRow, Unmapped]]:
        """Scans and images without a place, in order."""
        maps = self.maps.of(snapshot)
        people = self.people(snapshot, maps)
        shown = [(label, visit) for label, visits in people.visits.items() for visit in visits.values()]
        by_project: dict[str, list[str]] = {}
        for _, visit in shown:
            by_project.setdefault(visit.project, []).append(visit.experiment.id)
        for project, sessions in by_project.items():
            self.sources.listing_service.files.prefetch(project, sessions)
        rows: list[tuple[VisitRow, Unmapped]] = []
        for label, visit in shown:
            rows += [(visit, unmapped) for unmapped in self.session(label, visit).plan.unmapped]
        for visit in people.hidden:
            plan = arrange(
                "x",
                visit.label,
                gather(
                    self.sources,
                    snapshot,
                    maps.maps[visit.project],
                    Member(visit.project, visit.experiment),
                ).given,
                maps.maps[visit.project],
            )
            rows += [(visit, unmapped) for unmapped in plan.unmapped]

        def order(row: tuple[VisitRow, Unmapped]) -> tuple[object, ...]:
            experiment = row[0].experiment
            return experiment.subject_label, experiment.label, experiment.id, natural(row[1].scan.id)

        return sorted(rows, key=order)


class _Shown(NamedTuple):
    """A session's folder."""

    nodes: Mapping[str, Node]
    plan: BidsPlan
    folders: Mapping[str, Mapping[str, Node]]


def bids_folder(sources: Sources, scope: SessionScope, user_map: BidsMap | None) -> Branch:
    """The folder `bids` of a view.

    Args:
        sources: what sections are made from.
        scope: the sessions it is about.
        user_map: the user's map (`map_file.user_map`), over the projects' own.
    """
    view = _BidsFolder(
        sources,
        scope,
        ScopeMaps(sources, user_map),
        sources.kept.get("bids made", GeneratedFolderState),
    )
    return Branch(inode_of("bids", *scope.identity), view.top, xattrs={"view": "bids"})


def _made_from(what: Same | Text | Sidecar | Context) -> list[FileRecord]:
    """The files that a file is made from, that of its own image first."""
    if isinstance(what, Same):
        return [what.record]
    return [] if isinstance(what, Text) else [what.image, *what.sources]


def _same(nodes: Mapping[str, Node]) -> Mapping[str, Node]:
    return nodes
