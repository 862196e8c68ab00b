"""Who is there: the projects, people, keys and service accounts of the simulated company."""

from dataclasses import dataclass

from otel_openai_usage.simulator.chance import code, spread

_FOUNDED = 1711929600  # 2024-04-01
_PROJECTS = (
    "Support Copilot",
    "Search & Recommendations",
    "Document Intelligence",
    "Data Platform",
    "Hackathon 2025",
)
_ARCHIVED = "Hackathon 2025"
_PEOPLE = (
    "Mara Lindqvist", "Tomasz Wilk", "Aisha Rahman", "Jonas Feld", "Priya Natarajan",
    "Lucía Ortega", "Kenji Watanabe", "Noor El-Sayed", "Hannah Brandt", "Diego Almeida",
)  # fmt: skip
_KEYS = (
    "support-copilot-prod", "catalogue-enrichment", "support-copilot-staging", "contract-reader", "nightly-reports",
    "search-embeddings-prod", "search-ranking", "invoice-extraction", "voice-notes", "data-quality-agents",
    "hack-week-demo", "legacy-crm-sync",
)  # fmt: skip
_HOMES = (0, 1, 0, 2, 3, 1, 1, 2, 2, 3, 4, 0)
_DELETED = "legacy-crm-sync"
_MACHINES = {"Support Copilot": "copilot-backend", "Data Platform": "scheduler"}
_LIMITS = (250_000, 400_000, None, 500_000)
"""Monthly, in cents."""


@dataclass(frozen=True, slots=True)
class Person:
    """A member of the organization; a service account is one that is no human."""

    id: str
    name: str
    email: str
    role: str
    since: int
    service: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """`limit_cents` is its monthly spend limit; None where nobody set one."""

    id: str
    name: str
    since: int
    archived_at: int | None
    limit_cents: int | None


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The account a machine's keys belong to; `person` is how it appears among the users."""

    id: str
    name: str
    project: Project
    person: Person
    since: int


@dataclass(frozen=True, slots=True)
class Key:
    """A project's API key. A deleted one is still in the usage, but in no list; `orphan`: its owner
    left the project.
    """

    id: str
    name: str
    project: Project
    owner: Person
    account: ServiceAccount | None
    since: int
    tail: str
    deleted: bool
    orphan: bool


@dataclass(frozen=True, slots=True)
class Company:
    """Everybody and everything that has an id."""

    id: str
    name: str
    projects: tuple[Project, ...]
    people: tuple[Person, ...]
    accounts: tuple[ServiceAccount, ...]
    keys: tuple[Key, ...]
    limit_cents: int | None

    def members(self, project: Project) -> tuple[Person, ...]:
        """Those who work on a project: the owners of its keys, and the first person, who owns the
        organization.
        """
        # The owner of an orphaned key has left the project, but the key still works.
        owners = {key.owner.id for key in self.keys if key.project == project and not key.orphan}
        members = []
        for person in self.people:
            is_member = person.role == "owner" or person.id in owners
            if is_member and not person.service:
                members.append(person)
        return tuple(members)


def _since(seed: int, what: str, index: int) -> int:
    """When the thing with this index was created: one about every week."""
    weeks = 86400 * 7 * index
    return _FOUNDED + weeks + spread(86400 * 3, seed, what, index)


def _project(seed: int, index: int) -> Project:
    name = _PROJECTS[index] if index < len(_PROJECTS) else f"Team {index + 1}"
    # An archived project is listed only on request, and OpenAI refuses lists below it.
    archived = name == _ARCHIVED
    limit = _LIMITS[index % len(_LIMITS)]
    return Project(
        id="proj_" + code(24, seed, "project", index),
        name=name,
        since=_since(seed, "project", index),
        archived_at=1767225600 if archived else None,
        limit_cents=None if archived else limit,
    )


def _person(seed: int, index: int) -> Person:
    name = _PEOPLE[index] if index < len(_PEOPLE) else f"Colleague {index + 1}"
    local = name.lower().replace(" ", ".")
    # The names have no other letter outside ASCII, which an address could not have.
    local = local.replace("í", "i")
    role = "owner" if index == 0 else "reader"
    return Person(
        "user-" + code(24, seed, "user", index),
        name,
        f"{local}@larkspur.example",
        role,
        _since(seed, "user", index),
    )


def _account(seed: int, project: Project) -> ServiceAccount:
    name = _MACHINES[project.name]
    since = project.since + 86400
    person = Person(
        "user-" + code(24, seed, "service", project.id),
        name,
        f"{name}@larkspur.example",
        "reader",
        since,
        True,
    )
    # Usage shows a service account under a user id, the lists under an id of its own.
    account_id = "svc_acct_" + code(20, seed, "account", project.id)
    return ServiceAccount(account_id, name, project, person, since)


def _key(
    seed: int,
    index: int,
    projects: tuple[Project, ...],
    people: tuple[Person, ...],
    accounts: tuple[ServiceAccount, ...],
) -> Key:
    name = _KEYS[index] if index < len(_KEYS) else f"service-{index + 1}"
    # The named keys belong to projects that fit their names; other sizes of company deal them out.
    is_named = len(projects) == len(_PROJECTS) and index < len(_HOMES)
    home = _HOMES[index] if is_named else index
    project = projects[home % len(projects)]
    account = None
    if index % 4 == 0:
        account = next((one for one in accounts if one.project == project), None)
    owner = account.person if account else people[index % len(people)]
    return Key(
        id="key_" + code(16, seed, "key", index),
        name=name,
        project=project,
        owner=owner,
        account=account,
        since=_since(seed, "key", index) + 86400 * 2,
        tail=code(4, seed, "tail", index),
        deleted=name == _DELETED,
        orphan=name == "voice-notes",
    )


def found(seed: int, projects: int, keys: int, users: int) -> Company:
    """The company of a seed with so many of each."""
    every_project = tuple(_project(seed, index) for index in range(projects))
    people = tuple(_person(seed, index) for index in range(users))
    automated = [project for project in every_project if project.name in _MACHINES]
    accounts = tuple(_account(seed, project) for project in automated)
    every_key = [_key(seed, index, every_project, people, accounts) for index in range(keys)]
    service_people = tuple(account.person for account in accounts)
    return Company(
        id="org-" + code(24, seed, "organization"),
        name="Larkspur Labs",
        projects=every_project,
        people=people + service_people,
        accounts=accounts,
        keys=tuple(every_key),
        limit_cents=2_000_000,
    )
