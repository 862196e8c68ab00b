"""The company as OpenAI's lists and objects: projects, keys, users, service accounts, admin keys,
spend limits.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias, TypeVar

from otel_openai_usage.simulator.company import Key, Person, Project, ServiceAccount
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.query import Parameters, Refused, values
from otel_openai_usage.simulator.world import World

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")

Object: TypeAlias = dict[str, object]
Identified = TypeVar("Identified", Key, Person, Project, ServiceAccount)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that passed the door: the parts of its path, its parameters, its time, and the
    faults that struck it.
    """

    path: Mapping[str, str]
    parameters: Parameters
    now: datetime
    struck: Sequence[Fault] = ()


class Absent(Exception):
    """A 404; the message is OpenAI's."""


def listed(items: Sequence[Object], parameters: Parameters) -> Object:
    """One page of a list: `after` an id, at most `limit` (20; 1 to 100). last_id is there on the
    last page, too.
    """
    sent = dict(parameters)
    text = sent.get("limit", "20")
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise Refused(
            f"Invalid 'limit': expected a value between 1 and 100, but got {text!r} instead.",
            "limit",
            "integer_out_of_range",
        )
    first = 0
    after = sent.get("after")
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            message = f"Invalid 'after': no object with id '{after}'."
            raise Refused(message, "after", "invalid_value")
        first = ids.index(after) + 1
    part = items[first : first + int(text)]
    return {
        "object": "list",
        "data": list(part),
        "first_id": part[0]["id"] if part else None,
        "last_id": part[-1]["id"] if part else None,
        "has_more": first + len(part) < len(items),
    }


def _project(project: Project) -> Object:
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "created_at": project.since,
        "archived_at": project.archived_at,
        "status": "archived" if project.archived_at else "active",
        "external_key_id": None,
    }


def _owner(key: Key) -> Object:
    # OpenAI nests the owner of a project's key under the name of its type; an admin key's is flat.
    if key.account is not None:
        account = key.account
        inner: Object = {
            "id": account.id,
            "name": account.name,
            "created_at": account.since,
            "role": "member",
        }
        return {"type": "service_account", "service_account": inner}
    person = key.owner
    inner = {
        "id": person.id,
        "email": person.email,
        "name": person.name,
        "created_at": person.since,
        "role": person.role,
    }
    return {"type": "user", "user": inner}


def _rate_limit(model: str, place: int) -> Object:
    """The rate limits of a model; larger ones for the models that come first."""
    limit: Object = {
        "object": "project.rate_limit",
        "id": f"rl-{model}",
        "model": model,
        "max_requests_per_1_minute": max(500, 10_000 - 1000 * place),
        "max_tokens_per_1_minute": max(200_000, 30_000_000 - 4_000_000 * place),
    }
    if "image" in model or "dall-e" in model:
        limit["max_images_per_1_minute"] = 50
    if not place:
        limit["max_requests_per_1_day"] = 10_000_000
        limit["batch_1_day_max_input_tokens"] = 15_000_000_000
    return limit


def _key(key: Key, now: datetime) -> Object:
    day = int(now.timestamp()) // 86400 * 86400
    # One key in seven was never used, one in five not for long, and one in six expires.
    mark = int.from_bytes(key.id.encode()[-2:], "big")
    used = None if mark % 7 == 0 else day - (100 * 86400 if mark % 5 == 0 else 0)
    expires = day + 86400 * (mark % 30 + 1) if mark % 6 == 0 else None
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": f"sk-proj-***{key.tail}",
        "created_at": key.since,
        "last_used_at": used,
        "expires_at": expires,
        "owner_project_access": "inactive" if key.orphan else "active",
        "owner": _owner(key),
    }


def _user(person: Person) -> Object:
    nested: Object = {
        "object": "user",
        "id": person.id,
        "email": person.email,
        "name": person.name,
        "picture": None,
        "enabled": True,
    }
    return {
        "object": "organization.user",
        "id": person.id,
        "name": person.name,
        "email": person.email,
        "role": person.role,
        "added_at": person.since,
        "created": person.since,
        "is_default": False,
        "is_service_account": person.service,
        "user": nested,
    }


def _member(person: Person) -> Object:
    return {
        "object": "organization.project.user",
        "id": person.id,
        "name": person.name,
        "email": person.email,
        "role": "owner" if person.role == "owner" else "member",
        "added_at": person.since,
    }


def _account(account: ServiceAccount) -> Object:
    return {
        "object": "organization.project.service_account",
        "id": account.id,
        "name": account.name,
        "role": "member",
        "created_at": account.since,
    }


def _admin_keys(owner: Person) -> list[Object]:
    holder: Object = {
        "type": "user",
        "object": "organization.user",
        "id": owner.id,
        "name": owner.name,
        "created_at": owner.since,
        "role": "owner",
    }
    return [
        {
            "object": "organization.admin_api_key",
            "id": f"key_admin{place}",
            "name": name,
            "redacted_value": f"sk-admin...{place}ed",
            "created_at": owner.since + 86400 * (place + 1),
            "expires_at": None,
            "last_used_at": None,
            "owner": holder,
        }
        for place, name in enumerate(("Usage exporter", "Terraform"))
    ]


def _limit(name: str, cents: int | None, spent: Decimal) -> Object:
    if cents is None:
        raise Absent("No spend limit is configured.")
    # OpenAI gives limits in cents, but costs in dollars.
    status = "enforcing" if spent * 100 >= cents else "inactive"
    return {
        "object": name,
        "threshold_amount": cents,
        "currency": "USD",
        "interval": "month",
        "enforcement": {"status": status},
    }


class Lists:
    """Answers about who is there. Raises Absent for what is not, Refused for what may not be asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._company = world.company

    def projects(self, ask: Ask) -> Object:
        """Active projects, and archived ones if asked for."""
        with_archived = dict(ask.parameters).get("include_archived", "false") == "true"
        projects = self._company.projects
        chosen = [one for one in projects if with_archived or not one.archived_at]
        return listed([_project(project) for project in chosen], ask.parameters)

    def project(self, ask: Ask) -> Object:
        """One project, archived or not."""
        return _project(self._project(ask.path))

    def keys(self, ask: Ask) -> Object:
        """The keys of an active project; those whose owner has left only if asked for."""
        # The default hides working keys whose owner has left, as OpenAI's does.
        access = dict(ask.parameters).get("owner_project_access", "active")
        if access not in ("active", "inactive", "any"):
            raise Refused(f"Invalid value: '{access}'.", "owner_project_access", "invalid_value")
        keys = [_key(key, ask.now) for key in self._keys(ask.path)]
        chosen = [key for key in keys if access in ("any", key["owner_project_access"])]
        return listed(chosen, ask.parameters)

    def key(self, ask: Ask) -> Object:
        """One key of an active project."""
        key = _found(self._keys(ask.path), ask.path["key_id"], "API key")
        return _key(key, ask.now)

    def service_accounts(self, ask: Ask) -> Object:
        """The service accounts of an active project."""
        accounts = [_account(account) for account in self._accounts(ask.path)]
        return listed(accounts, ask.parameters)

    def service_account(self, ask: Ask) -> Object:
        """One service account of an active project."""
        accounts = self._accounts(ask.path)
        return _account(_found(accounts, ask.path["account_id"], "service account"))

    def members(self, ask: Ask) -> Object:
        """The people in an active project."""
        people = self._company.members(self._active(ask.path))
        return listed([_member(person) for person in people], ask.parameters)

    def member(self, ask: Ask) -> Object:
        """One of the people in an active project."""
        people = self._company.members(self._active(ask.path))
        return _member(_found(people, ask.path["user_id"], "user"))

    def users(self, ask: Ask) -> Object:
        """The people in the organization, or those with the given `emails`."""
        emails = values(ask.parameters, "emails")
        people = self._company.people
        chosen = [person for person in people if not emails or person.email in emails]
        return listed([_user(person) for person in chosen], ask.parameters)

    def user(self, ask: Ask) -> Object:
        """One of the people in the organization."""
        return _user(_found(self._company.people, ask.path["user_id"], "user"))

    def admin_keys(self, ask: Ask) -> Object:
        """The organization's admin keys, oldest first unless `order` is desc."""
        keys = _admin_keys(self._company.people[0])
        if dict(ask.parameters).get("order") == "desc":
            keys.reverse()
        return listed(keys, ask.parameters)

    def admin_key(self, ask: Ask) -> Object:
        """One of the organization's admin keys."""
        for key in _admin_keys(self._company.people[0]):
            if key["id"] == ask.path["key_id"]:
                return key
        raise Absent(f"No admin API key found with id '{ask.path['key_id']}'.")

    def limit(self, ask: Ask) -> Object:
        """The spend limit of the organization."""
        spent = self._world.spent(None, ask.now)
        return _limit("organization.spend_limit", self._company.limit_cents, spent)

    def project_limit(self, ask: Ask) -> Object:
        """The spend limit of an active project, if it has one."""
        project = self._active(ask.path)
        spent = self._world.spent(project.id, ask.now)
        return _limit("project.spend_limit", project.limit_cents, spent)

    def rate_limits(self, ask: Ask) -> Object:
        """The rate limits of an active project, one object for each model."""
        self._active(ask.path)
        # OpenAI's limits are of a model's name without the date of its snapshot.
        models = {_DATE.sub("", stream.model) for stream in self._world.streams if stream.model}
        limits = [_rate_limit(model, place) for place, model in enumerate(sorted(models))]
        return listed(limits, ask.parameters)

    def _project(self, path: Mapping[str, str]) -> Project:
        return _found(self._company.projects, path["project_id"], "project")

    def _active(self, path: Mapping[str, str]) -> Project:
        project = self._project(path)
        # OpenAI documents a 400 for the lists below an archived project.
        if project.archived_at:
            raise Refused(f"Project '{project.id}' is archived.", None, "project_archived")
        return project

    def _keys(self, path: Mapping[str, str]) -> list[Key]:
        project = self._active(path)
        return [key for key in self._company.keys if key.project == project and not key.deleted]

    def _accounts(self, path: Mapping[str, str]) -> list[ServiceAccount]:
        project = self._active(path)
        return [account for account in self._company.accounts if account.project == project]


def _found(items: Sequence[Identified], wanted: str, what: str) -> Identified:
    for item in items:
        if item.id == wanted:
            return item
    raise Absent(f"No {what} found with id '{wanted}'.")
