"""Models of a data map file: a Fides dataset as it is, and what stands under `habeas:` beside it.

::

    dataset:
      - fides_key: platform
        habeas: {store: platform, connection: PLATFORM_DSN, schema: public, root: accounts}
        collections:
          - name: accounts
            habeas: {category: account, on_erasure: delete}
            fields:
              - {name: id, fides_meta: {primary_key: true, identity: account_id}}
              - {name: email, habeas: {contact: address}}
              - {name: password_hash, habeas: {export: never}}
          - name: tasks
            habeas: {category: usage, retention: execution, age: created_at, on_erasure: delete, partitioned: day}
            fields:
              - {name: id, fides_meta: {primary_key: true}}
              - name: account_id
                fides_meta: {references: [{dataset: platform, field: accounts.id, direction: from}]}
              - {name: prompt, habeas: {category: task_content, portable: given}}
              - {name: created_at}
          - name: task_steps
            habeas: {category: usage, retention: execution, age: parent.created_at, on_erasure: delete}
            fields: [...]
          - name: invoices
            habeas:
              category: payment
              retention: invoices
              age: issued_at
              on_erasure: {keep: legal_obligation, until: invoices, anonymise: [billing_name]}
            fields:
              - {name: account_id, fides_meta: {identity: account_id}}
              - {name: billing_name, habeas: {anonymise: null}}
          - name: models
            habeas: {personal: false, reason: price list of models}
            fields: []

Keys, their meaning and their defaults are told in `docs/data-map-reference.md`. Fides' own keys that Habeas has no use for are
ignored; a key under `habeas:` that nobody knows is an error.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from habeas.contracts.vocabulary import KeepGround

REVIEW = "REVIEW"
"""What `habeas datamap draft` writes where it only guessed; refused by every check until a person has decided."""

NO_ROOT = "none"
"""The `root` of a store that has no table of people, only rows that hold their account ids."""

IDENTITY = "account_id"
"""The one kind of identity (`fides_meta.identity`) by which platform services name a person."""

StoreName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,79}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,79}$")]
SqlName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_\-]{0,62}$")]
"""A schema or table as the database spells it (63 bytes, PostgreSQL's NAMEDATALEN); always quoted in SQL. Events name tables too."""

ColumnName = Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,63}$")]
"""A column as the database spells it, which may be anything (PostgreSQL 4.1.1); always quoted in SQL."""

Dotted = Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,127}$")]
"""A column, or `collection.column`."""

Constant = str | int | float | bool | None

JsonPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^\$(?:(?:\.[A-Za-z_][A-Za-z0-9_]*)+|(?:\.[A-Za-z_][A-Za-z0-9_]*)*\[\*\](?:\.[A-Za-z_][A-Za-z0-9_]*)*)$"
    ),
]
"""Where in a `jsonb` value an id stands: keys, and every element of at most one array (a part of RFC 9535)."""

Conditions = dict[ColumnName, Constant | tuple[Constant, ...]]
"""Columns, each with the value or the values that it must have."""


class Export(StrEnum):
    """How much of a field a person is shown: its value, only that it exists, or nothing (secrets)."""

    SHOWN = "shown"
    NAMED_ONLY = "named_only"
    NEVER = "never"


class Portable(StrEnum):
    """Whether a field goes into a portability export: given by the person or observed do, derived doesn't (Art. 20)."""

    GIVEN = "given"
    OBSERVED = "observed"
    NO = "no"


class Contact(StrEnum):
    """What a mail to a person needs."""

    ADDRESS = "address"
    NAME = "name"
    LANGUAGE = "language"


class Role(StrEnum):
    """What a link makes of a person (K9db, OSDI 2023): the one whose row it is, one of several, or one who may have a copy."""

    OWNER = "owner"
    CO_OWNER = "co_owner"
    ACCESSOR = "accessor"


class WhenParentGoes(StrEnum):
    """What becomes of rows that refer to a row which is deleted, whoever's they are.

    They let go of it, go with it, or it stays for them, anonymised.
    """

    DETACH = "detach"
    DELETE = "delete"
    KEEP_PARENT = "keep_parent"


class Match(StrEnum):
    """How the value of a field is compared with that of the field that it refers to."""

    EXACT = "exact"
    CASE_INSENSITIVE = "case_insensitive"


class Action(StrEnum):
    """What an erasure does to rows of a collection that are not kept under a ground."""

    DELETE = "delete"
    ANONYMISE = "anonymise"
    NONE = "none"


class _Fides(BaseModel):
    """A part of a Fides file: keys of Fides that have no meaning here are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Notes(BaseModel):
    """What stands under `habeas:`; only known keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Keep(_Notes):
    """Rows stay in spite of an erasure, under a ground of GDPR Art. 17(3), until their retention class lets them go.

    ``until`` may name that class once more; another one is refused, since nobody would let the rows go by it.
    """

    keep: KeepGround | Literal["REVIEW"]
    until: str | None = None
    anonymise: tuple[ColumnName, ...] = ()


class Anonymise(_Notes):
    """Rows stay in spite of an erasure, without what these fields tell of the person."""

    anonymise: tuple[ColumnName, ...] = Field(min_length=1)


class Template(_Notes):
    """A value of its own for each row: `{random}` stands for random hexadecimal digits, `{key}` for the row's key."""

    template: Annotated[
        str, StringConstraints(pattern=r"^[^{}\x00]*(?:\{(?:random|key)\}[^{}\x00]*)+$", max_length=200)
    ]


class DetachedTo(_Notes):
    """What a field becomes that lets go of a row: a constant, which for a reference to the root is a ghost's id."""

    to: Constant


class Detach(_Notes):
    """Rows that refer to a row which is deleted let go of it by another value than null."""

    detach: DetachedTo


class Redact(_Notes):
    """A person who is shown a row is not shown these fields of it."""

    redact: tuple[ColumnName, ...] = Field(min_length=1)


def _kind_of_erasure(value: object) -> str:
    if isinstance(value, Keep) or (isinstance(value, dict) and "keep" in value):
        return "keep"
    return "anonymise" if isinstance(value, dict | Anonymise) else "word"


def _kind(value: object) -> str:
    return "more" if isinstance(value, dict | BaseModel) else "word"


OnErasure = Annotated[
    Annotated[Action | Literal["REVIEW"], Tag("word")] | Annotated[Keep, Tag("keep")],
    Discriminator(_kind_of_erasure),
]


LinkErasure = Annotated[
    Annotated[Action | Literal["REVIEW"], Tag("word")]
    | Annotated[Keep, Tag("keep")]
    | Annotated[Anonymise, Tag("anonymise")],
    Discriminator(_kind_of_erasure),
]

LinkExport = Annotated[
    Annotated[Literal["none", "review", "REVIEW"], Tag("word")] | Annotated[Redact, Tag("more")], Discriminator(_kind)
]

LinkName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_\-]{0,62}$")]


class ByOne(_Notes):
    """A field that may refer to rows of several collections, and the one that is meant."""

    field: ColumnName
    to: Dotted


def _kind_of_by(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "one"
    return "field" if isinstance(value, str) else "fields"


By = Annotated[
    Annotated[ColumnName, Tag("field")]
    | Annotated[tuple[ColumnName, ...], Tag("fields")]
    | Annotated[ByOne, Tag("one")],
    Discriminator(_kind_of_by),
]


class LinkNotes(_Notes):
    """One way in which rows of a collection belong to people.

    Exactly one of `by` (fields of the row that refer to a person or to a row that leads to one), `through` (a collection whose rows refer
    to this one and lead to people), `from` (the field of another collection that refers to this one) and `in` (a field that holds
    several ids, or a JSON value with ids in it, which `at` finds).
    """

    by: By | None = None
    through: Dotted | None = None
    from_: Dotted | None = Field(default=None, alias="from")
    in_: ColumnName | None = Field(default=None, alias="in")
    at: JsonPath | None = None
    where: Conditions = Field(default_factory=dict)
    role: Role | None = None
    on_erasure: LinkErasure | None = None
    on_export: LinkExport | None = None
    reason: str | None = Field(default=None, min_length=3)


class DatasetNotes(_Notes):
    """`habeas:` on a dataset: which store it is and where a person begins in it.

    Without `root` it is the only collection that has an identity field; with `root: none` a person begins in another store.
    """

    store: StoreName
    connection: EnvironmentName
    schema_name: SqlName = Field(default="public", alias="schema")
    root: SqlName | None = None


class CollectionNotes(_Notes):
    """`habeas:` on a collection. Whether the keys fit together is judged in `habeas.datamap.map.loading`."""

    category: str | None = None
    retention: str | None = None
    age: Dotted | None = None
    on_erasure: OnErasure | None = None
    reason: str | None = Field(default=None, min_length=3)
    partitioned: Literal["day", "week", "month", "year"] | None = None
    personal: bool = True
    export: Export = Export.SHOWN
    path: ColumnName | None = None
    where: Conditions = Field(default_factory=dict)
    links: dict[LinkName, LinkNotes] = Field(default_factory=dict)
    triggers: tuple[ColumnName, ...] = ()
    materialised: Literal["refresh"] | None = None


class FieldNotes(_Notes):
    """`habeas:` on a field; `anonymise: null` differs from no `anonymise`, see `anonymises`."""

    category: str | None = None
    export: Export | None = None
    portable: Portable | None = None
    anonymise: Constant | Template = None
    contact: Contact | None = None
    reference: LinkName | tuple[LinkName, ...] | None = None
    when_parent_goes: (
        Annotated[
            Annotated[WhenParentGoes | Literal["REVIEW"], Tag("word")] | Annotated[Detach, Tag("more")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    match: Match | None = None
    large_object: bool | None = None

    @property
    def anonymises(self) -> bool:
        """Whether the file says what an anonymisation writes here."""
        return "anonymise" in self.model_fields_set


class Reference(_Fides):
    """`fides_meta.references`: `direction: from` (or none) says that this field holds the value of that one."""

    dataset: str
    field: Annotated[str, StringConstraints(pattern=r"^[^.]+\.[^.]+$")]
    direction: Literal["from", "to"] | None = None


class FieldMeta(_Fides):
    """What is read of Fides' `fides_meta` on a field."""

    primary_key: bool = False
    identity: str | None = None
    references: tuple[Reference, ...] | None = None


class DatasetField(_Fides):
    """One column. Fields nested in it (a JSON document's) belong to Fides; Habeas treats the column as one."""

    name: ColumnName
    fides_meta: FieldMeta | None = None
    habeas: FieldNotes = FieldNotes()


class DatasetCollection(_Fides):
    """One table."""

    name: SqlName
    habeas: CollectionNotes
    fields: tuple[DatasetField, ...]


class Dataset(_Fides):
    """One schema of one store."""

    fides_key: str
    habeas: DatasetNotes
    collections: tuple[DatasetCollection, ...] = Field(min_length=1)


class DatasetFile(_Fides):
    """A whole file: Fides' manifest form, a list of datasets under `dataset`."""

    dataset: tuple[Dataset, ...] = Field(min_length=1)
