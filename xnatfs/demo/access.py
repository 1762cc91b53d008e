"""Who may see what (xnat-rest.md 8), and the labels objects have in a project (2.8).

Used by the listings, addresses and items. Reads the archive on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Archive, Experiment, Project, Subject, User


@dataclass(frozen=True)
class View:
    """The archive as one user sees it."""

    archive: Archive
    user: User

    def readable(self, project: Project | None) -> bool:
        """Member, administrator, or everybody where it is public: may read the data of a project."""
        if project is None:
            return False
        return self.user.admin or project.access == "public" or bool(self._group(project))

    def _group(self, project: Project) -> str:
        login = self.user.login
        if login in project.owners:
            return "Owners"
        return (
            "Members"
            if login in project.members
            else "Collaborators"
            if login in project.collaborators
            else ""
        )

    def role(self, project: Project) -> str:
        """The user's group in a project, by its display name; administrators are owners everywhere."""
        return "Owners" if self.user.admin else self._group(project)

    def may_edit(self, project: Project | None) -> bool:
        """Owners and members: create, edit, activate."""
        return project is not None and self.role(project) in ("Owners", "Members")

    def may_delete(self, project: Project | None) -> bool:
        return project is not None and self.role(project) == "Owners"

    def listed(self, project: Project | None) -> bool:
        """Readable, or protected: then everybody sees that it exists, and no more."""
        return project is not None and (self.readable(project) or project.access == "protected")

    def project(self, project_id: str) -> Project | None:
        """A project by id, None when it is not there for this user."""
        project = self.archive.projects.get(project_id)
        return project if self.listed(project) else None

    def subject_readable(self, subject: Subject) -> bool:
        return any(
            self.readable(self.archive.projects.get(name)) for name in (subject.project, *subject.shares)
        )

    def experiment_readable(self, experiment: Experiment) -> bool:
        return any(
            self.readable(self.archive.projects.get(name))
            for name in (experiment.project, *experiment.shares)
        )

    def addressable(self, experiment: Experiment) -> bool:
        """Readable, and not put away (quarantined, obsolete) from who may not activate it; lists show it all
        the same (xnat-rest.md 12).
        """
        if not self.experiment_readable(experiment):
            return False
        if experiment.status in ("active", "locked"):
            return True
        return any(
            self.may_edit(self.archive.projects.get(name))
            for name in (experiment.project, *experiment.shares)
        )

    def subjects(self, project_id: str) -> list[Subject]:
        """The subjects of a project, shared ones too."""
        return [
            item
            for item in self.archive.subjects.values()
            if item.project == project_id or project_id in item.shares
        ]

    def experiments(self, project_id: str) -> list[Experiment]:
        """The experiments (assessors too) of a project, shared ones too."""
        return [
            item
            for item in self.archive.experiments.values()
            if item.project == project_id or project_id in item.shares
        ]

    def assessors(self, session: Experiment) -> list[Experiment]:
        """The readable assessors of a session. (Lists of assessors show all of them.)"""
        return [
            item
            for item in self.archive.experiments.values()
            if item.session_id == session.id and self.experiment_readable(item)
        ]

    def find_subject(self, name: str, project_id: str = "") -> Subject | None:
        """By id; within a project also by the label it has there."""
        subject = self.archive.subjects.get(name)
        if project_id and (subject is None or not _in_project(subject, project_id)):
            subject = next(
                (item for item in self.subjects(project_id) if label_in(item, project_id) == name), None
            )
        return subject if subject is not None and self.subject_readable(subject) else None

    def find_experiment(self, name: str, project_id: str = "") -> Experiment | None:
        """By id; within a project also by the label it has there. Assessors are experiments too."""
        experiment = self.archive.experiments.get(name)
        if project_id and (experiment is None or not _in_project(experiment, project_id)):
            experiment = next(
                (item for item in self.experiments(project_id) if label_in(item, project_id) == name), None
            )
        return experiment if experiment is not None and self.addressable(experiment) else None


def _in_project(item: Subject | Experiment, project_id: str) -> bool:
    return item.project == project_id or project_id in item.shares


def label_in(item: Subject | Experiment, project_id: str) -> str:
    """The label in a project it belongs to or is shared into (xnat-rest.md 2.8)."""
    if project_id and item.project != project_id:
        return item.shares.get(project_id) or item.label
    return item.label
