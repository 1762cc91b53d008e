"""What a server knows of the subjects and sessions of a project beyond their labels: demographics, scanners,
custom variables, the fields of 1.8's forms, an assessor's own fields.

Used by `listing.details`, which compares what is listed with the plain listing. One request a project and
kind (xnat-rest.md 14), the custom variables in it: a row for each. A column that the server fails on, drops,
or that costs rows is found by asking for each by itself, and left out.
Threading: any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xnatfs.config import Privacy
from xnatfs.errors import Cause, Failure
from xnatfs.server import claims
from xnatfs.server.bulk_rows import AGE
from xnatfs.server.claims import Claim
from xnatfs.server.form_requests import FormRequests, is_refusal
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.resultset import Row, has_column, pick
from xnatfs.server.urls import segment
from xnatfs.server.witness_requests import WitnessRequests

_CUSTOM_FIELDS = "custom fields of 1.8"
_ABOUT_SUBJECTS = ("project", "insert_date")
DEMOGRAPHICS = (
    *("gender", "yob", "dob", "age", "handedness", "group", "education", "educationDesc", "race"),
    *("ethnicity", "height", "weight", "ses", "src", "gestational_age", "post_menstrual_age", "birth_weight"),
)
_BIRTH = ("yob", "dob")
_IMAGE = "xnat:imageSessionData"
_ABOUT_SESSIONS = ("visit_id",)
SCANNERS = (
    *("scanner", "operator", f"{_IMAGE}/scanner/manufacturer", f"{_IMAGE}/scanner/model"),
    "fieldStrength",
)
_FORM_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SHORT = re.compile(r"[0-9]{1,4}")
_YEAR = re.compile(r"(?<![0-9])(1[89]|20)[0-9]{2}(?![0-9])")


class Details(NamedTuple):
    """What is known of one object: by the name of the column, "" for nothing; and its custom variables."""

    values: Mapping[str, str]
    custom: Mapping[str, str]


@dataclass
class DetailListing:
    """The details of a project's subjects, or of its sessions.

    Attributes:
        of: by accession id.
        columns: the columns the server tells; others are not known, and not to be taken for empty.
        odd: sentences on what it does not tell, or tells twice.
        stamps: of the objects when it was made, by accession id; filled in by whoever keeps it.
        with_fields: the objects that have 1.8's custom fields; None where the listing does not tell.
    """

    of: dict[str, Details] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    with_fields: set[str] | None = None
    stamps: Mapping[str, str] = field(default_factory=dict)

    def value(self, identity: str, column: str) -> str:
        """A cell; "" for what is not known."""
        found = self.of.get(identity)
        return found.values.get(column, "") if found is not None else ""

    def custom_names(self) -> list[str]:
        """The names of the custom variables that anybody has."""
        return sorted({name for one in self.of.values() for name in one.custom})


@dataclass(frozen=True)
class _Form:
    """A kind of listing: what is asked for, of which root, and what it is about."""

    what: str
    path: str
    claim: Claim
    head: tuple[str, ...]
    branch: str  # of the custom variables
    xsi_type: str = ""


class DetailRequests:
    """The requests for details of one server.

    Args:
        listings: for the plain listings, and what the server is known to refuse.
        privacy: what is not asked for, or not kept.
    """

    def __init__(self, listings: ListingRequests, privacy: Privacy) -> None:
        self._listings: FormRequests = listings
        self._witness = WitnessRequests(listings)
        self.privacy = privacy

    # --- in bulk --------------------------------------------------------------------------------------------

    def subjects(self, project: str, expected: Collection[str]) -> DetailListing:
        """The subjects of a project.

        Args:
            expected: the accession ids that the plain listing has.

        Raises:
            Failure: what keeps the server from answering.
        """
        form = _Form(
            "subjects",
            f"/data/projects/{segment(project)}/subjects",
            claims.ONLY_IDS,
            ("ID",),
            "xnat:subjectData",
        )
        standard = [*_ABOUT_SUBJECTS]
        if self.privacy.demographics:
            standard += [
                one for one in DEMOGRAPHICS if one not in _BIRTH or self.privacy.birth_dates != "none"
            ]
        found = self._listed(
            form,
            project,
            lambda: set(expected) & self._witness.subject_labels(project).keys(),
            expected,
            [(standard, "")],
            custom=self.privacy.demographics,
        )
        if self.privacy.birth_dates != "full":
            _only_years(found)
        return found

    def sessions(self, project: str, expected: Collection[str], imaging: Collection[str]) -> DetailListing:
        """The experiments of a project that are no image assessors.

        Args:
            expected: the accession ids that the plain listing has.
            imaging: of these, those that are image sessions.

        Raises:
            Failure: what keeps the server from answering.
        """
        form = _Form(
            "sessions",
            f"/data/projects/{segment(project)}/experiments",
            claims.ONLY_IDS,
            ("ID",),
            "xnat:experimentData",
            "xnat:subjectAssessorData",
        )
        base = [*_ABOUT_SESSIONS, *([AGE] if self.privacy.demographics else [])]
        return self._listed(
            form,
            project,
            lambda: set(expected) & self._witness.labels(project).keys(),
            expected,
            [(base, ""), (list(SCANNERS), _IMAGE)],
            custom=self.privacy.demographics,
            imaging=imaging,
        )

    def _listed(
        self,
        form: _Form,
        project: str,
        confirmed: Callable[[], set[str]],
        expected: Collection[str],
        groups: Sequence[tuple[list[str], str]],
        *,
        custom: bool,
        imaging: Collection[str] = (),
    ) -> DetailListing:
        """All columns in one request; where that is refused, or has not all rows, each group by itself, and
        of a group that is refused each column.

        Args:
            confirmed: asks the plain listing which of the expected objects are still there.
            groups: columns, and the type to list if they are asked for alone ("": the form's).
        """
        may = self._listings.capabilities.may
        groups = [([one for one in columns if may(self._name(form, one))], root) for columns, root in groups]
        pair = (f"{form.branch}/fields/field/name", f"{form.branch}/fields/field/field")
        names = [*pair] if custom and may(self._name(form, pair[0])) else []
        fields = f"{form.branch}/custom_fields"
        hints = [fields] if custom and may(self._name(form, fields)) else []
        known = set(expected)

        def rows_of(columns: Sequence[str], root: str, theirs: Collection[str]) -> list[Row] | None:
            """None: refused, or a row is missing."""
            nonlocal known
            try:
                rows = self._ask(form, columns, root)
            except Failure as failure:
                if not is_refusal(failure) or failure.away:
                    raise
                return None
            lacking = (set(theirs) & known) - {pick(row, "id") for row in rows}
            if lacking:
                known &= confirmed()
            return None if lacking & known else rows

        found = _Collected(pair, fields)
        asked = [one for columns, _ in groups for one in columns]
        refused: list[str] = []

        def take(rows: Sequence[Row], columns: Sequence[str]) -> None:
            told = [one for one in columns if has_column(rows[:1], one)]
            if pair[0] in columns and len({*pair} & {*told}) == 1:
                told = [one for one in told if one not in pair]
            found.take(rows, told)
            refused.extend(one for one in columns if one not in told)

        rows = None
        for optional in (hints, []) if hints else ([],):
            columns = [*asked, *names, *optional]
            rows = rows_of(columns, form.xsi_type, expected) if columns else []
            if rows is not None:
                take(rows, columns)
                break
            refused += optional
        for columns, root in (*groups, (names, "")) if rows is None else ():
            theirs = imaging if root else expected
            rows = rows_of(columns, root or form.xsi_type, theirs) if columns else []
            if rows is not None:
                take(rows, columns)
            elif columns == names:
                refused += names
            else:
                for one in columns:
                    rows = rows_of([one], root or form.xsi_type, theirs)
                    if rows is None:
                        refused.append(one)
                    else:
                        take(rows, [one])
        if refused and len(refused) == len(asked) + len(names) + len(hints):
            confirmed()  # if this is answered it is the columns that are refused
        for one in refused:
            self._listings.capabilities.refuse(self._name(form, one))
            said = "the custom variables" if one == pair[0] else column_name(one)
            if one not in (fields, pair[1]):
                found.odd.append(
                    f"project {project}: its server lists its {form.what} without {said}, which is left out"
                )
        return found.listing()

    def _ask(self, form: _Form, columns: Sequence[str], root: str) -> list[Row]:
        params = {"xsiType": root} if root else {}
        return self._listings.table(form.path, form.claim, columns=",".join((*form.head, *columns)), **params)

    @staticmethod
    def _name(form: _Form, column: str) -> str:
        return f"{form.what}: column {column}"

    # --- singly ---------------------------------------------------------------------------------------------

    def custom_fields(
        self, project: str, kind: str, identity: str, *, probe: bool = False
    ) -> dict[str, str] | None:
        """The fields of 1.8's forms of one subject ("subjects") or experiment ("experiments"); None where the
        server has no such thing, or does not show this one's.

        Args:
            probe: a refusal says that the server has no such thing.

        Raises:
            Failure: what keeps the server from answering.
        """
        if not self._listings.capabilities.may(_CUSTOM_FIELDS):
            return None
        path = f"/xapi/custom-fields/projects/{segment(project)}/{kind}/{segment(identity)}/fields"
        try:
            found = self._listings.object(path, lambda body: flat_fields(json.loads(body)))
        except Failure as failure:
            if failure.away or not (is_refusal(failure) or failure.cause is Cause.NOT_DATA):
                raise
            if probe:
                self._listings.capabilities.refuse(_CUSTOM_FIELDS)
            return None
        return found

    def subject_fields(self, subject: str) -> dict[str, str]:
        """A subject's own fields, from its item, which has all that is below it.

        Raises:
            Failure: what keeps the server from answering.
        """
        return self._listings.object(f"/data/subjects/{segment(subject)}", read_fields, format="json")

    def own_fields(self, experiment: str) -> dict[str, str]:
        """An experiment's own fields, from its item.

        Raises:
            Failure: what keeps the server from answering.
        """
        path = f"/data/experiments/{segment(experiment)}"
        found = self._listings.object(path, read_fields, format="json")
        if not self.privacy.demographics:
            found.pop("age", None)
        return found


class _Collected:
    """The rows of several answers, put together."""

    def __init__(self, pair: Sequence[str], fields: str) -> None:
        self._pair = [one.lower() for one in pair]
        self._special = {*pair, fields}
        self._fields = fields
        self._with_fields: set[str] | None = None
        self._values: dict[str, dict[str, dict[str, None]]] = {}
        self._custom: dict[str, dict[str, dict[str, None]]] = {}
        self._columns: list[str] = []
        self._nameless = False
        self.odd: list[str] = []

    def take(self, rows: Iterable[Row], columns: Sequence[str]) -> None:
        """The values of some columns, which these rows have."""
        names = [(column_name(one), one) for one in columns if one not in self._special]
        self._columns += [name for name, _ in names]
        if self._fields in columns:
            self._with_fields = self._with_fields or set()
        for row in rows:
            identity = pick(row, "id")
            values = self._values.setdefault(identity, {})
            for name, column in names:
                if value := pick(row, column):
                    values.setdefault(name, {})[value] = None
            if self._with_fields is not None and pick(row, self._fields).strip() not in ("", "{}", "null"):
                self._with_fields.add(identity)
            name, value = row.get(self._pair[0], ""), row.get(self._pair[1], "")
            if name:
                self._custom.setdefault(identity, {}).setdefault(name, {})[value] = None
            elif value:
                self._nameless = True

    def listing(self) -> DetailListing:
        """What is told; of two values both, and a sentence."""
        odd = list(self.odd)
        if self._nameless:
            odd.append("a custom variable has a value and no name, and is left out")

        def one_of(identity: str, found: Mapping[str, Mapping[str, None]]) -> dict[str, str]:
            for name, values in found.items():
                if len(values) > 1:
                    odd.append(f"{identity} has {len(values)} values of {name}, and is shown with both")
            return {name: "; ".join(values) for name, values in found.items()}

        return DetailListing(
            {
                identity: Details(one_of(identity, values), one_of(identity, self._custom.get(identity, {})))
                for identity, values in self._values.items()
            },
            self._columns,
            odd,
            self._with_fields,
        )


def column_name(column: str) -> str:
    """What a column is called in `Details`: the end of its path."""
    return column.rpartition("/")[2]


def _only_years(listing: DetailListing) -> None:
    """Leave nothing but the year of birth; in place of no year the one of the date."""
    for identity, found in listing.of.items():
        values = {name: value for name, value in found.values.items() if name not in _BIRTH}
        years = [_year(found.values.get(name, "")) for name in _BIRTH]
        if any(years):
            values["yob"] = next(filter(None, years))
        listing.of[identity] = found._replace(values=values)
    if "dob" in listing.columns:
        listing.columns.remove("dob")
        if "yob" not in listing.columns:
            listing.columns.append("yob")


def _year(text: str) -> str:
    """The year in a text; what is no longer than one is taken for it as it is."""
    if _SHORT.fullmatch(text.strip()):
        return text.strip()
    year = _YEAR.search(text)
    return year[0] if year is not None else ""


def flat_fields(body: Any, above: str = "") -> dict[str, str]:
    """A JSON object as texts by name. A form's fields stand below its id, which is left out; below another
    name they are `name.field`.

    Raises:
        ValueError: it is no object.
    """
    if not isinstance(body, dict):
        raise ValueError("no object of fields")
    found: dict[str, str] = {}
    for name, value in body.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            inner = flat_fields(value, above if _FORM_ID.fullmatch(name) else f"{path}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            inner = {path: "" if value is None else text}
        for key, text in inner.items():
            # Two forms may have a field of one name.
            found[key if key not in found else f"{path}.{key}"] = text
    return found


def read_fields(body: bytes) -> dict[str, str]:
    """The own fields of an item: not its resources, scans or assessors.

    Raises:
        ValueError: it is no item.
    """
    try:
        (item,) = json.loads(body)["items"]
        found = {str(name): _text(value) for name, value in item["data_fields"].items()}
        for group in item["children"]:
            for place, child in enumerate(group["items"]):
                _add_child(found, group["field"], child, place, len(group["items"]))
        return found
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("no item") from None


_NOT_OWN = re.compile(
    r"(?:.*/)?(?:file|scan|experiment|assessor|reconstructedImage|share|resource)|addParam|provenance",
    re.IGNORECASE,
)


def _add_child(found: dict[str, str], branch: str, child: Any, place: int, count: int) -> None:
    if _NOT_OWN.fullmatch(branch):
        return
    fields = child["data_fields"]
    if branch == "fields/field":
        found.setdefault(str(fields.get("name", "")), _text(fields.get("field")))
        return
    above = branch if count == 1 else f"{branch}{place + 1}"
    for name, value in fields.items():
        found[f"{above}/{name}"] = _text(value)
    for group in child["children"]:
        for number, below in enumerate(group["items"]):
            _add_child(found, f"{above}/{group['field']}", below, number, len(group["items"]))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
