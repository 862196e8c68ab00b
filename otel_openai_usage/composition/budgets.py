"""Budgets and credits as configured."""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

from otel_openai_usage.config import Settings
from otel_openai_usage.config.settings import BudgetItem
from otel_openai_usage.domain.budgets import Budget, Credit, basis_of
from otel_openai_usage.domain.model import midnight
from otel_openai_usage.engine.budget_figures import Plan
from otel_openai_usage.errors import WebhookFailed


def plan(settings: Settings) -> Plan:
    """What the settings say of budgets."""
    return Plan(
        [organization.name for organization in settings.organizations],
        list(_budgets(settings)),
        list(_credits(settings)),
        bills=settings.costs.enabled,
        bills_keys=bills_keys(settings),
    )


def bills_keys(settings: Settings) -> bool:
    """Whether costs are read by API key."""
    return settings.costs.enabled and "api_key_id" in settings.costs.group_by


def estimated_instead(settings: Settings) -> list[str]:
    """Sentences about budgets that count estimates, although the bill was asked for."""
    found = []
    for budget in _budgets(settings):
        basis = basis_of(budget, bills=settings.costs.enabled, bills_keys=bills_keys(settings))
        if basis != budget.basis:
            matched = ", ".join(budget.match) or "everything"
            found.append(
                f"budgets: {budget.name!r} counts estimated cost: the bill, as it is read, does not"
                f" answer {matched}"
            )
    return found


def webhook_url(settings: Settings) -> Callable[[], str] | None:
    """Where reached thresholds are sent; None for nowhere. The file is read at each call.

    Raises WebhookFailed if it cannot be read.
    """
    webhook = settings.budgets.webhook
    file = webhook.url_file
    if file is not None:
        return partial(_read_url, file)
    secret = webhook.url
    return None if secret is None else secret.get_secret_value


def _read_url(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise WebhookFailed(
            f"read budgets.webhook.url_file {file}: {type(error).__name__}; check the file"
        ) from error


def _budgets(settings: Settings) -> Iterator[Budget]:
    names = [organization.name for organization in settings.organizations]
    for item in settings.budgets.items:
        yield Budget(
            item.name,
            item.amount,
            item.currency,
            item.period,
            item.match,
            item.basis,
            _only_organization(item, names),
        )


def _only_organization(item: BudgetItem, names: list[str]) -> str | None:
    """The organization that a budget names, None if it may be about several."""
    named = item.match.get("organization")
    return named if named in names else None


def _credits(settings: Settings) -> Iterator[Credit]:
    for item in settings.credits:
        yield Credit(
            item.organization,
            midnight(item.date),
            item.amount,
            item.currency,
            _midnight(item.expires),
        )


def _midnight(day: date | None) -> int | None:
    return None if day is None else midnight(day)
