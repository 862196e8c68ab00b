"""The guard admits keys of the state's organization, whatever several answers say at once."""

from types import SimpleNamespace

import pytest

from otel_openai_usage.domain.identity import Identity, Owner
from otel_openai_usage.errors import OtherOrganization
from otel_openai_usage.providers.openai.guard import Guard

OURS = Identity(ids=frozenset({"org-ours"}))


class Vault:
    """A state that knows two keys of its organization."""

    def __init__(self) -> None:
        self.stored = Owner(OURS, ("old", "new"), counted=True)

    def mark(self, secret: str) -> str:
        """The key stands for itself."""
        return secret

    async def owner(self) -> Owner:
        """What is stored."""
        return self.stored

    async def note(self, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store it."""
        self.stored = Owner(seen, marks, counted=True)


def guard(vault: Vault) -> Guard:
    """A guard without a client: both keys are known, so it asks nothing."""
    client = SimpleNamespace(name="default")
    return Guard(client, vault, now=lambda: 0.0, mono=lambda: 0.0)  # type: ignore[arg-type]


async def test_costs_of_another_organization_refuse_every_key() -> None:
    """Costs do not say for which key they are, so after a rotation neither key stays admitted."""
    vault = Vault()
    subject = guard(vault)
    for secret in ("old", "new"):
        await subject.admit(secret)
    with pytest.raises(OtherOrganization):
        await subject.named(["org-other"])
    for secret in ("old", "new"):
        with pytest.raises(OtherOrganization):
            await subject.admit(secret)
    assert vault.stored == Owner(OURS, (), counted=True)


async def test_costs_that_end_after_a_refusal_are_refused_too() -> None:
    """A reading that was under way when its key was refused is not recorded, and the state's
    organization stays what it was.
    """
    vault = Vault()
    subject = guard(vault)
    await subject.admit("new")
    for _ in range(2):
        with pytest.raises(OtherOrganization):
            await subject.named(["org-other"])
    assert vault.stored.identity == OURS
