"""The folder `bids/` of a view: the sessions of a scope as a BIDS dataset, docs/bids.md.

    bids/dataset_description.json, README, participants.tsv, unmapped.tsv, code/bids.toml ...
        /sub-*/sub-*_sessions.tsv
              /ses-*/sub-*_ses-*_scans.tsv, anat/ func/ dwi/ fmap/ perf/

Used by `views`. Images are the nodes of their resources under other names. A sidecar that lacks something is
made when it is opened; until then its size is a placeholder. Looking at the top lists no session's files; a
session's are listed when its folder is looked at. Threading: any thread; values derived from listings are
kept with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from xnatfs._version import __version__
from xnatfs.bids import file_names, mapping, metadata_files, sidecars
from xnatfs.bids.dataset import BidsPlan, Same, ScanFiles, Sidecar, Text, Unmapped, arrange
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.mapping import BidsMap, Nowhere
from xnatfs.bids.metadata_files import Person, VisitRow
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.records import FileRecord, Owner, ResourceRecord, ScanRecord, natural
from xnatfs.tree.generated import GeneratedFile, GeneratedFolderState, known_text, made_when_opened
from xnatfs.tree.names import spell_label
from xnatfs.tree.node import Branch, FileBranch, Node, inode_in_order, inode_of
from xnatfs.tree.resource import ResourceFile, ResourcePlace, Sources, file_nodes
from xnatfs.tree.scope import Member, SessionScope, Snapshot, scans_of
from xnatfs.tree.session_folders import scan_place

_LARGEST_TEXT = 16 * 2**20  # of a sidecar, or a map
_BAD_LISTINGS = frozenset({Cause.LISTING_EMPTY, Cause.BAD_LISTING, Cause.GONE})


class _People(NamedTuple):
    """Who is in the dataset: subjects and their visits by label, in order, the visits by label too."""

    people: dict[str, Person]
    visits: dict[str, dict[str, VisitRow]]
    accession: dict[str, str]  # of a subject, by label
    hidden: list[VisitRow]  # sessions nothing of which can be placed


class _Maps(NamedTuple):
    """The maps of the scope's projects; or why there are none."""

    maps: dict[str, BidsMap]
    problem: str = ""


@dataclass(frozen=True)
class _BidsFolder:
    """One dataset."""

    sources: Sources
    scope: SessionScope
    user_map: BidsMap | None
    made: GeneratedFolderState

    # --- the top --------------------------------------------------------------------------------------------

    def top(self) -> Mapping[str, Node]:
        snapshot = self.scope.members()
        maps = self.maps(snapshot)
        return snapshot.memo.get(
            (self.scope.identity, "bids top", self._prints(maps)), lambda: self._top(snapshot, maps)
        )

    def _top(self, snapshot: Snapshot, maps: _Maps) -> Mapping[str, Node]:
        mtime = self._mtime(snapshot)
        where = self.scope.identity
        if maps.problem:
            text = f"No BIDS view: {maps.problem}\n"
            return {"README": known_text(text.encode("utf-8", "replace"), mtime, *where, "README")}
        people = self.people(snapshot, maps)
        small = {
            "dataset_description.json": metadata_files.description(
                self._title(snapshot), self.sources.settings.server, __version__
            ),
            "README": metadata_files.readme(self._title(snapshot), __version__),
            ".bidsignore": metadata_files.IGNORED,
            "participants.tsv": metadata_files.participants(people.people.values()),
            "participants.json": metadata_files.described(metadata_files.PARTICIPANTS),
        }
        nodes: dict[str, Node] = {name: known_text(data, mtime, *where, name) for name, data in small.items()}
        nodes[metadata_files.UNMAPPED] = self._unmapped_file(mtime)
        nodes["code"] = self._code(maps, mtime)
        for label, visits in people.visits.items():
            nodes[f"sub-{label}"] = self._subject(label, people.accession[label], visits)
        return nodes

    def _code(self, maps: _Maps, mtime: float) -> Branch:
        files: dict[str, Node] = {}
        for project, one in maps.maps.items():
            name = mapping.NAME if len(maps.maps) == 1 else f"{spell_label(project)}.toml"
            text = "\n".join(f"# --- {where}\n{text.strip()}\n" for where, text in one.sources)
            files[name] = known_text(
                text.encode("utf-8", "replace"), mtime, *self.scope.identity, "code", name
            )
        return Branch(inode_of("bids", *self.scope.identity, "code"), lambda: files, mtime=mtime)

    def _title(self, snapshot: Snapshot) -> str:
        if len(snapshot.project_snapshots) == 1:
            project = next(iter(snapshot.project_snapshots.values())).project
            return project.name or project.id
        return self.scope.title

    def _mtime(self, snapshot: Snapshot) -> float:
        stamps = [one.experiment.inserted for one in snapshot.members]
        stamps += [one.project.inserted for one in snapshot.project_snapshots.values()]
        return max((one for one in stamps if one is not None), default=0.0)

    # --- maps -----------------------------------------------------------------------------------------------

    def maps(self, snapshot: Snapshot) -> _Maps:
        """Every project's map: the user's over the project's own over the usual."""
        found: dict[str, BidsMap] = {}
        for project, project_snapshots in snapshot.project_snapshots.items():
            try:
                own = self._project_map(project, project_snapshots)
            except UsageError as error:
                self.sources.diagnostics.odd(str(error))
                return _Maps({}, str(error))
            user = self.user_map
            key = (
                "bids whole map",
                own.fingerprint if own is not None else "",
                user.fingerprint if user is not None else "",
            )
            found[project] = project_snapshots.memo.get(key, partial(_whole, own, user))
        return _Maps(found)

    def _project_map(self, project: str, project_snapshots: ProjectSnapshot) -> BidsMap | None:
        if self.user_map is not None and self.user_map.only:
            return None
        place = ResourcePlace(project, project_snapshots.project.inserted, {})
        own = [one for one in project_snapshots.own_resources if one.label == mapping.RESOURCE]
        nodes = [item for one in own for item in self._files(place, one).items()]
        node = next((one for path, one in nodes if path.rsplit("/", 1)[-1] == mapping.NAME), None)
        if node is None:
            return None
        where = f"the {mapping.NAME} in the resource {mapping.RESOURCE} of project {project}"

        def parse() -> BidsMap | UsageError:
            try:
                return mapping.parse(_read(node).decode("utf-8-sig"), where)
            except UnicodeDecodeError:
                return UsageError(f"{where} is not UTF-8")
            except UsageError as error:
                return error

        parsed = project_snapshots.memo.get(("bids map", node.version), parse)
        if isinstance(parsed, UsageError):
            raise parsed
        return parsed

    @staticmethod
    def _prints(maps: _Maps) -> tuple[str, ...]:
        return (maps.problem, *(one.fingerprint for one in maps.maps.values()))

    # --- people ---------------------------------------------------------------------------------------------

    def people(self, snapshot: Snapshot, maps: _Maps) -> _People:
        """Subjects and sessions under legal labels; only sessions that may have something to show."""
        key = (self.scope.identity, "bids people", self._prints(maps))
        return snapshot.memo.get(key, lambda: self._people(snapshot, maps))

    def _people(self, snapshot: Snapshot, maps: _Maps) -> _People:
        of_subject: dict[str, dict[str, Member]] = {}
        hidden: list[VisitRow] = []
        for member in snapshot.members:
            one = member.experiment
            if not one.may_have_scans:
                continue
            of_subject.setdefault(one.subject_id or one.subject_label, {}).setdefault(one.id, member)
        members = {subject: next(iter(theirs.values())) for subject, theirs in of_subject.items()}
        # Every subject takes part in telling labels apart, shown or not: a first image must not rename
        # another subject.
        labels = file_names.labels(
            {
                subject: file_names.subject_text(it.experiment.subject_label, maps.maps[it.project].subject)
                for subject, it in members.items()
            }
        )
        found = _People({}, {}, {}, hidden)
        for subject, theirs in of_subject.items():
            original = members[subject].experiment.subject_label
            inner = file_names.labels(
                {
                    id: file_names.session_text(
                        it.experiment.label, it.experiment.subject_label, maps.maps[it.project].session
                    )
                    for id, it in theirs.items()
                }
            )
            visits: dict[str, VisitRow] = {}
            for identity, member in theirs.items():
                visit = VisitRow(inner[identity], member.project, member.experiment)
                if self._may_show(snapshot, maps, member):
                    visits[inner[identity]] = visit
                else:
                    hidden.append(visit)
            if visits:
                label = labels[subject]
                found.people[label] = Person(label, original, subject, members[subject].project)
                found.visits[label] = visits
                found.accession[label] = subject
        return found

    def _may_show(self, snapshot: Snapshot, maps: _Maps, member: Member) -> bool:
        """Whether some scan may have an image with a place, as far as is known without asking."""
        project_snapshots, identity = snapshot.project_snapshots[member.project], member.experiment.id
        if identity not in project_snapshots.scans_known:
            return True
        chosen = maps.maps[member.project]
        for scan in project_snapshots.scans.get(identity, []):
            labels = [
                one.label for one in project_snapshots.resources.get(Owner("scan", identity, scan.id), [])
            ]
            if chosen.choose(labels) is not None and chosen.may_place(scan):
                return True
        return False

    # --- subjects and sessions ------------------------------------------------------------------------------

    def _subject(self, label: str, accession: str, visits: Mapping[str, VisitRow]) -> Branch:
        where = (*self.scope.identity, accession)
        mtime = max((one.experiment.inserted or 0.0 for one in visits.values()), default=0.0)
        nodes: dict[str, Node] = {f"ses-{name}": self._session(label, one) for name, one in visits.items()}
        stem = f"sub-{label}_sessions"
        nodes[f"{stem}.tsv"] = known_text(
            metadata_files.sessions(visits.values()), mtime, *where, "sessions.tsv"
        )
        nodes[f"{stem}.json"] = known_text(
            metadata_files.described(metadata_files.SESSIONS), mtime, *where, "sessions.json"
        )
        first = next(iter(visits.values())).experiment
        xattrs = {"subject": first.subject_label, "id": accession}
        inode = inode_in_order(accession, "bids", *self.scope.identity)
        return Branch(inode, lambda: nodes, mtime=mtime, xattrs=xattrs)

    def _session(self, subject: str, visit: VisitRow) -> Branch:
        one = visit.experiment
        inode = inode_in_order(one.id, "bids", *self.scope.identity, "sessions")
        xattrs = {"project": visit.project, "id": one.id, "label": one.label, "date": one.date}
        return Branch(
            inode,
            lambda: self.session(subject, visit).nodes,
            mtime=one.inserted,
            xattrs={name: value for name, value in xattrs.items() if value},
        )

    def session(self, subject: str, visit: VisitRow) -> _Shown:
        """The files of a session: listed now, unless they are held."""
        snapshot = self.scope.members()
        maps = self.maps(snapshot)
        rules = maps.maps.get(visit.project)
        if rules is None:
            raise Failure(Cause.NO_ENTRY, visit.experiment.label, maps.problem)
        result = self._gather(snapshot, rules, visit)
        # What is derived lives with the listing it is derived from; where a session needs several, with the
        # newest members.
        key = (self.scope.identity, "bids session", subject, visit, rules.fingerprint, result.state)
        return snapshot.memo.get(key, lambda: self._show(subject, visit, rules, result))

    def _gather(self, snapshot: Snapshot, rules: BidsMap, visit: VisitRow) -> _Gathered:
        one = visit.experiment
        found = _Gathered([], {}, ())
        state: list[object] = []
        for scan, resources in scans_of(self.sources, snapshot, Member(visit.project, one)):
            key = ("bids scan", rules.fingerprint, scan, tuple(resources))
            label, wanted, reason = snapshot.memo.get(key, partial(_wanted, rules, scan, resources))
            if not wanted:
                found.given.append(ScanFiles(scan, label, problem=reason))
                state.append((scan, label))
                continue
            place = scan_place(visit.project, one, scan)
            problem = ""
            lists: list[list[FileRecord]] = []
            for resource in wanted:
                try:
                    nodes: Mapping[str, ResourceFile] = self._files(place, resource)
                except Failure as failure:
                    if failure.cause not in _BAD_LISTINGS:
                        raise
                    problem = str(failure)
                    nodes = {}
                lists.append([node.record for node in nodes.values()])
                found.nodes.update({node.record: node for node in nodes.values()})
            given = ScanFiles(
                scan, label, lists[0], [record for some in lists[1:] for record in some], problem
            )
            found.given.append(given)
            state.append((scan, label, problem, tuple(record for some in lists for record in some)))
        return found._replace(state=tuple(state))

    def _files(self, place: ResourcePlace, resource: ResourceRecord) -> Mapping[str, ResourceFile]:
        return file_nodes(
            self.sources, place, self.sources.listing_service.files.of(place.project, resource), resource
        )

    def _show(self, subject: str, visit: VisitRow, rules: BidsMap, result: _Gathered) -> _Shown:
        one = visit.experiment
        plan = arrange(subject, visit.label, result.given, rules)
        folders: dict[str, dict[str, Node]] = {}
        where = (*self.scope.identity, one.id)
        for path, what in plan.files.items():
            folder, _, name = path.partition("/")
            folders.setdefault(folder, {})[name] = self._node(
                what, result.nodes, one.inserted or 0.0, *where, path
            )
        nodes: dict[str, Node] = {}
        for folder in sorted(folders):
            inode = inode_of("bids", *where, folder)
            nodes[folder] = FileBranch(inode, partial(_same, folders[folder]), mtime=one.inserted)
        if plan.rows:
            stem = f"sub-{subject}_ses-{visit.label}_scans"
            nodes[f"{stem}.tsv"] = known_text(
                metadata_files.scans(plan.rows, one), one.inserted or 0.0, *where, "scans.tsv"
            )
            nodes[f"{stem}.json"] = known_text(
                metadata_files.described(metadata_files.SCANS), one.inserted or 0.0, *where, "scans.json"
            )
        return _Shown(nodes, plan)

    def _node(
        self, what: Same | Text | Sidecar, files: Mapping[FileRecord, ResourceFile], mtime: float, *where: str
    ) -> Node:
        if isinstance(what, Same):
            return files[what.record]
        if isinstance(what, Text):
            return known_text(what.data, mtime, *where)
        if not what.sources and not what.preparation:
            return known_text(sidecars.with_fields(b"", what.fields), mtime, *where)
        nodes = {record: files[record] for record in what.sources}
        recipe = json.dumps(
            [*what.fields.items(), what.header, what.preparation, sorted(what.borrowed)], default=str
        )
        original = None if what.original is None else nodes[what.original]

        def key() -> str:
            return "\n".join([recipe, *(one.version for one in nodes.values())])

        return made_when_opened(
            self.made,
            key,
            lambda: self._sidecar(what, nodes),
            lambda: mtime if original is None else original.mtime,
            *where,
        )

    def _sidecar(self, what: Sidecar, nodes: Mapping[FileRecord, ResourceFile]) -> bytes:
        """The bytes of a sidecar, from the files it is made from."""
        original = b"" if what.original is None else _read(nodes[what.original])
        found = sidecars.read(original) if original else {}
        if found is None and what.original is not None:
            self.sources.diagnostics.odd(f"{what.original.uri!r}: a sidecar that is not a JSON object")
        told = found or {}
        wanted: dict[str, Any] = dict(what.fields)
        if what.header and "RepetitionTime" not in told and "VolumeTiming" not in told:
            repetition = sidecars.repetition_time(_read(nodes[what.image], sidecars.HEADER_BYTES))
            if repetition is not None:
                wanted["RepetitionTime"] = repetition
        if what.preparation and "RepetitionTime" in {**wanted, **told}:
            wanted.setdefault("RepetitionTimePreparation", {**wanted, **told}["RepetitionTime"])
        for name, record in what.borrowed.items():
            echo = (sidecars.read(_read(nodes[record])) or {}).get("EchoTime") if name not in told else None
            if echo is not None:
                wanted.setdefault(name, echo)
        return sidecars.with_fields(original, wanted)

    # --- what could not be mapped ---------------------------------------------------------------------------

    def _unmapped_file(self, mtime: float) -> GeneratedFile:
        def key() -> str:
            snapshot = self.scope.members()
            return snapshot.memo.get(
                ("bids unmapped", self.scope.identity),
                lambda: f"unmapped {self.scope.identity} {id(snapshot)}",
            )

        return made_when_opened(
            self.made,
            key,
            self._unmapped,
            lambda: mtime,
            *self.scope.identity,
            metadata_files.UNMAPPED,
            anew=True,
        )

    def _unmapped(self) -> bytes:
        snapshot = self.scope.members()
        maps = self.maps(snapshot)
        people = self.people(snapshot, maps)
        shown = [(label, visit) for label, visits in people.visits.items() for visit in visits.values()]
        by_project: dict[str, list[str]] = {}
        for _, visit in shown:
            by_project.setdefault(visit.project, []).append(visit.experiment.id)
        for project, sessions in by_project.items():
            self.sources.listing_service.files.prefetch(project, sessions)
        rows: list[tuple[VisitRow, str, Unmapped]] = []
        for label, visit in shown:
            rows += [
                (visit, visit.experiment.subject_label, one)
                for one in self.session(label, visit).plan.unmapped
            ]
        for visit in people.hidden:
            plan = arrange(
                "x",
                visit.label,
                self._gather(snapshot, maps.maps[visit.project], visit).given,
                maps.maps[visit.project],
            )
            rows += [(visit, visit.experiment.subject_label, one) for one in plan.unmapped]
        rows.sort(
            key=lambda row: (row[1], row[0].experiment.label, row[0].experiment.id, natural(row[2].scan.id))
        )
        return metadata_files.unmapped(rows)


class _Gathered(NamedTuple):
    """The scans of a session with their files, the nodes of these, and what tells this from a later state."""

    given: list[ScanFiles]
    nodes: dict[FileRecord, ResourceFile]
    state: tuple[object, ...]


class _Shown(NamedTuple):
    """A session's folder."""

    nodes: Mapping[str, Node]
    plan: BidsPlan


def bids_folder(sources: Sources, scope: SessionScope, user_map: BidsMap | None) -> Branch:
    """The folder `bids` of a view.

    Args:
        sources: what rooms are made from.
        scope: the sessions it is about.
        user_map: the user's map (`mapping.user_map`), over the projects' own.
    """
    view = _BidsFolder(sources, scope, user_map, sources.kept.get("bids made", GeneratedFolderState))
    return Branch(inode_of("bids", *scope.identity), view.top, xattrs={"view": "bids"})


def _whole(own: BidsMap | None, user: BidsMap | None) -> BidsMap:
    below = usual_map() if own is None else own.over(usual_map())
    return below if user is None else user.over(below)


def _read(node: ResourceFile, length: int = _LARGEST_TEXT) -> bytes:
    """The first bytes of a file of the server."""
    content = node.open()
    try:
        data = b""
        while len(data) < min(length, content.size):
            piece = content.read(len(data), min(length, content.size) - len(data))
            if not piece:
                break
            data += piece
        return data
    finally:
        content.close()


def _wanted(
    rules: BidsMap, scan: ScanRecord, resources: list[ResourceRecord]
) -> tuple[str, list[ResourceRecord], str]:
    """The label of a scan's image resource, that resource and those with sidecars; or none, and why."""
    label = rules.choose([one.label for one in resources])
    if label is None or not rules.may_place(scan):
        where = rules.place(scan, "")
        return label or "", [], where.reason if isinstance(where, Nowhere) else ""
    beside = [one.lower() for one in rules.sidecars]
    chosen = next(one for one in resources if one.label == label)
    others = [one for one in resources if one.label.lower() in beside and one != chosen]
    return label, [chosen, *sorted(others, key=lambda one: beside.index(one.label.lower()))], ""


def _same(nodes: Mapping[str, Node]) -> Mapping[str, Node]:
    return nodes
